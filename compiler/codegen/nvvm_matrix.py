"""Matrix operations of NVIDIA's tensor cores: a layer of `NvvmBuilder`.

Fragments are lists of 32-bit registers (`i32`, or `f32` for float accumulators); which element lies where is the PTX
ISA's business ("Matrix Fragments for mma.m16n8k16" and the like) and that of the table of instructions, not of this
file. Every operation here is executed by all lanes of a warp (wgmma: all four warps of a warpgroup) together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ingot.compiler.codegen.kernel_builder import KernelBuilder
from ingot.compiler.codegen.values import Val
from ingot.dialects.mlir import ir

_BELOW_8_BITS = ("e2m3", "e3m2", "e2m1")
_INTEGER_OPERANDS = ("s8", "u8", "s4", "u4")


class MatrixOps(KernelBuilder):
    """See the module's docstring."""

    # --- shared memory to fragments ("ldmatrix", "stmatrix")

    def ldmatrix(self, p: Val, count: int, transpose: bool = False) -> list[Val]:
        """`ldmatrix.m8n8.xCOUNT.b16` (sm_75): `count` (1, 2 or 4) 8x8 matrices of 16-bit elements, one i32 each.

        Lane 8 * i + r gives the shared address (16-byte aligned) of row r of matrix i.
        """
        attributes = {
            "num": self.attr(f"{count} : i32"),
            "layout": self.attr(f"#nvvm.mma_layout<{'col' if transpose else 'row'}>"),
            "shape": self.attr("#nvvm.ld_st_matrix_shape<m = 8, n = 8>"),
            "eltType": self.attr("#nvvm.ld_st_matrix_elt_type<b16>"),
        }
        if count == 1:
            return [self.emit("nvvm.ldmatrix", (p,), self.i32, attributes)]
        result = self.type(f"struct<{', '.join(['i32'] * count)}>")
        return self.elements(self.emit("nvvm.ldmatrix", (p,), result, attributes))

    def stmatrix(self, p: Val, registers: Sequence[Val], transpose: bool = False) -> None:
        """`stmatrix.m8n8.b16` (sm_90): the inverse of `ldmatrix`; registers may be i32 or any 32-bit type."""
        attributes = {
            "layout": self.attr(f"#nvvm.mma_layout<{'col' if transpose else 'row'}>"),
            "shape": self.attr("#nvvm.ld_st_matrix_shape<m = 8, n = 8>"),
            "eltType": self.attr("#nvvm.ld_st_matrix_elt_type<b16>"),
        }
        words = [self.bitcast(r, self.i32) for r in registers]
        self.op("nvvm.stmatrix", [p, *words], (), attributes)

    # --- mma.sync

    def mma(
        self,
        shape: tuple[int, int, int],
        a: Sequence[Val],
        b: Sequence[Val],
        c: Sequence[Val],
        a_type: str,
        b_type: str = "",
        *,
        kind: str = "",
        satfinite: bool = False,
    ) -> list[Val]:
        """`mma.sync.mMnNkK.row.col`: D = A * B + C, with A row-major and B column-major.

        Args:
            shape: (m, n, k).
            a, b: 32-bit registers.
            c: accumulators: f32, or i32 for integer operands.
            a_type, b_type: `f16`, `bf16`, `tf32`, `e4m3`, `e5m2`, `e2m3`, `e3m2`, `e2m1`, `s8`, `u8`, `s4` or `u4`; `b_type`
                defaults to `a_type`.
            kind: "" or `f8f6f4` (sm_120a: needed for the types below 8 bits and for mixed ones).
            satfinite: integer accumulation saturates.

        Returns:
            The accumulators' new values.
        """
        b_type = b_type or a_type
        m, n, k = shape
        if {a_type, b_type} & set(_BELOW_8_BITS):
            # nvvm.mma.sync has no translation for these types: the translator would end the process.
            return self._mma_f8f6f4_asm(a, b, c, a_type, b_type)
        half = self.vector_of("f16", 2)
        attributes: dict[str, Any] = {
            "shape": self.attr(f"#nvvm.shape<m = {m}, n = {n}, k = {k}>"),
            "layoutA": self.attr("#nvvm.mma_layout<row>"),
            "layoutB": self.attr("#nvvm.mma_layout<col>"),
            "multiplicandAPtxType": self.attr(f"#nvvm.mma_type<{a_type}>"),
            "multiplicandBPtxType": self.attr(f"#nvvm.mma_type<{b_type}>"),
            "operandSegmentSizes": self.attr(f"array<i32: {len(a)}, {len(b)}, {len(c)}>"),
        }
        if a_type in _INTEGER_OPERANDS:
            overflow = "satfinite" if satfinite else "wrapped"
            attributes["intOverflowBehavior"] = self.attr(f"#nvvm.mma_int_overflow<{overflow}>")
        if kind:
            attributes["kind"] = self.attr(f"#nvvm.mma_kind<{kind}>")
        register = half if a_type == "f16" else self.i32
        operands = [self.bitcast(x, register) for x in (*a, *b)]
        result = self.type(f"struct<{', '.join(x.t.name for x in c)}>")
        return self.elements(self.emit("nvvm.mma.sync", [*operands, *c], result, attributes))

    def _mma_f8f6f4_asm(self, a: Sequence[Val], b: Sequence[Val], c: Sequence[Val], a_type: str, b_type: str) -> list[Val]:
        text = (
            f"mma.sync.aligned.m16n8k32.row.col.kind::f8f6f4.f32.{a_type}.{b_type}.f32 "
            "{$0, $1, $2, $3}, {$4, $5, $6, $7}, {$8, $9}, {$10, $11, $12, $13};"
        )
        constraints = ",".join(["=f"] * 4 + ["r"] * 6 + ["f"] * 4)
        attributes = {
            "asm_string": ir.StringAttr.get(text, self.module.context),
            "constraints": ir.StringAttr.get(constraints, self.module.context),
            "asm_dialect": self.attr("0 : i64"),
        }
        return self.elements(self.emit("llvm.inline_asm", [*a, *b, *c], self.type("struct<f32, f32, f32, f32>"), attributes))

    def mma_block_scale(
        self,
        shape: tuple[int, int, int],
        a: Sequence[Val],
        b: Sequence[Val],
        c: Sequence[Val],
        a_type: str,
        b_type: str,
        *,
        kind: str,
        scale_vector: int,
        scale_type: str,
        a_scale: Val,
        b_scale: Val,
        a_selector: tuple[int, int] = (0, 0),
        b_selector: tuple[int, int] = (0, 0),
    ) -> list[Val]:
        """`mma.sync...block_scale` (sm_120a): D = (A * SFA) * (B * SFB) + C.

        Args:
            kind: `mxf8f6f4` (m16n8k32), `mxf4` or `mxf4nvf4` (m16n8k64).
            scale_vector: scales along K for each row of A or column of B: 1, 2 or 4 (`scale_vec::1X`, `2X`, `4X`).
            scale_type: `ue8m0` or `ue4m3`.
            a_scale, b_scale: i32 with the scales' bytes of this lane.
            a_selector, b_selector: (byte id, thread id): which bytes, of which threads of each quad, hold the scales.
        """
        m, n, k = shape
        attributes = {
            "shape": self.attr(f"#nvvm.shape<m = {m}, n = {n}, k = {k}>"),
            "multiplicandAPtxType": self.attr(f"#nvvm.mma_type<{a_type}>"),
            "multiplicandBPtxType": self.attr(f"#nvvm.mma_type<{b_type}>"),
            "scaleVecSize": self.attr(f"#nvvm.scale_vec_size<x{scale_vector}>"),
            "blockScaleFormat": self.attr(f"#nvvm.block_scale_format<{scale_type}>"),
            "kind": self.attr(f"#nvvm.block_scale_kind<{kind}>"),
            "operandSegmentSizes": self.attr(f"array<i32: {len(a)}, {len(b)}, {len(c)}, 1, 1, 1, 1, 1, 1>"),
        }
        scales: list[Val] = []
        for scale, (byte, thread) in ((a_scale, a_selector), (b_scale, b_selector)):
            scales += [scale, self.const(byte, "i16"), self.const(thread, "i16")]
        result = self.type(f"struct<{', '.join(x.t.name for x in c)}>")
        return self.elements(self.emit("nvvm.mma.block_scale", [*a, *b, *c, *scales], result, attributes))

    # --- wgmma (sm_90a, "Asynchronous Warpgroup Level Matrix Instructions")

    def wgmma_fence(self) -> None:
        """`wgmma.fence`: before the first wgmma, and when registers it uses were written otherwise."""
        self.op("nvvm.wgmma.fence.aligned")

    def wgmma_commit(self) -> None:
        """`wgmma.commit_group`."""
        self.op("nvvm.wgmma.commit.group.sync.aligned")

    def wgmma_wait(self, pending: int = 0) -> None:
        """`wgmma.wait_group`: until at most `pending` groups are unfinished."""
        self.op("nvvm.wgmma.wait.group.sync.aligned", [], (), {"group": self.attr(f"{pending} : i64")})

    def wgmma_accumulator(self, n: int, element: str = "f32") -> Val:
        """A zero accumulator for m64nN: a struct of n / 2 f32 or i32."""
        return self.emit("llvm.mlir.zero", (), self.type(f"struct<{', '.join([element] * (n // 2))}>"))

    def wgmma(
        self,
        accumulator: Val,
        a_descriptor: Val,
        b_descriptor: Val,
        shape: tuple[int, int, int],
        a_type: str,
        b_type: str = "",
        *,
        a_transposed: bool = False,
        b_transposed: bool = False,
        accumulate: bool = True,
    ) -> Val:
        """`wgmma.mma_async.m64nNkK`: the accumulator plus A * B, both read from shared memory through 64-bit descriptors.

        Args:
            accumulator: struct of n / 2 f32 (i32 for s8 and u8).
            a_type, b_type: `f16`, `bf16`, `tf32`, `e4m3`, `e5m2`, `s8` or `u8`.
            a_transposed: A is M-major in shared memory (16-bit types only); by default K-major.
            b_transposed: B is N-major in shared memory (16-bit types only); by default K-major.
            accumulate: False ignores the accumulator's old value.
        """
        m, n, k = shape
        b_type = b_type or a_type
        d_type = "s32" if a_type in _INTEGER_OPERANDS else "f32"
        attributes = {
            "shape": self.attr(f"#nvvm.shape<m = {m}, n = {n}, k = {k}>"),
            "typeA": self.attr(f"#nvvm.wgmma_type<{a_type}>"),
            "typeB": self.attr(f"#nvvm.wgmma_type<{b_type}>"),
            "typeD": self.attr(f"#nvvm.wgmma_type<{d_type}>"),
            "scaleD": self.attr(f"#nvvm.wgmma_scale_out<{'one' if accumulate else 'zero'}>"),
            "scaleA": self.attr("#nvvm.wgmma_scale_in<one>"),
            "scaleB": self.attr("#nvvm.wgmma_scale_in<one>"),
            "layoutA": self.attr(f"#nvvm.mma_layout<{'col' if a_transposed else 'row'}>"),
            "layoutB": self.attr(f"#nvvm.mma_layout<{'row' if b_transposed else 'col'}>"),
        }
        if d_type == "s32":
            attributes["satfinite"] = self.attr("#nvvm.mma_int_overflow<wrapped>")
        return self.emit("nvvm.wgmma.mma_async", (accumulator, a_descriptor, b_descriptor), accumulator.t, attributes)

    def wgmma_registers(
        self,
        accumulator: Val,
        a: Sequence[Val],
        b_descriptor: Val,
        shape: tuple[int, int, int],
        a_type: str,
        b_type: str = "",
        *,
        b_transposed: bool = False,
        accumulate: bool = True,
    ) -> Val:
        """`wgmma.mma_async` with A from four registers (its fragment is that of mma.m16n8k16, a warp per 16 rows).

        The nvvm operation takes A from shared memory only, hence inline assembly.
        """
        m, n, k = shape
        b_type = b_type or a_type
        count = n // 2
        member = accumulator.t.members[0]
        outputs = ", ".join(f"${i}" for i in range(count))
        registers = ", ".join(f"${count + i}" for i in range(4))
        # 16-bit types may be transposed in shared memory, which an immediate says.
        transpose = f", {int(b_transposed)}" if a_type in ("f16", "bf16") else ""
        integer = member is self.i32
        scale = "" if integer else ", 1, 1"
        d_type = "s32" if integer else "f32"
        text = (
            f"wgmma.mma_async.sync.aligned.m{m}n{n}k{k}.{d_type}.{a_type}.{b_type} "
            f"{{{outputs}}}, {{{registers}}}, ${count + 4}, {int(accumulate)}{scale}{transpose};"
        )
        letter = "r" if integer else "f"
        constraints = ",".join([f"={letter}"] * count + ["r"] * 4 + ["l"] + [str(i) for i in range(count)] + ["~{memory}"])
        operands = [*(self.bitcast(x, self.i32) for x in a), b_descriptor, *self.elements(accumulator)]
        attributes = {
            "asm_string": ir.StringAttr.get(text, self.module.context),
            "constraints": ir.StringAttr.get(constraints, self.module.context),
            "asm_dialect": self.attr("0 : i64"),
            "has_side_effects": self.attr("unit"),
        }
        return self.emit("llvm.inline_asm", operands, accumulator.t, attributes)

    def wgmma_descriptor(self, p: Val, *, leading_bytes: int, stride_bytes: int, swizzle: int) -> Val:
        """A shared-memory matrix descriptor ("Matrix-descriptor Format"): an i64 for the tile at shared address `p`.

        Args:
            leading_bytes: leading dimension byte offset (ignored by K-major swizzled layouts).
            stride_bytes: stride dimension byte offset: between groups of 8 rows of a K-major tile.
            swizzle: 0, 32, 64 or 128 bytes.

        A step of `n` bytes within a swizzle atom is `descriptor + (n >> 4)`.
        """
        mode = {0: 0, 128: 1, 64: 2, 32: 3}[swizzle]
        fixed = (leading_bytes >> 4) << 16 | (stride_bytes >> 4) << 32 | mode << 62
        low = (self.ptr_to_int(p, "i32") & 0x3FFFF) >> 4
        return self.cast(low, "i64", signed=False) | fixed
