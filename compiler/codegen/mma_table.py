"""Tensor-core instructions: one row each. The matmul-like families are written once over this table.

A row is what an instruction is called, which targets have it, its shape and types; where each element of its operands lies
follows from those by the fragment rules below, which are the PTX ISA's for every dense `mma.sync` shape used here ("Matrix
Fragments for mma.m16n8k8" and its sisters):

    A (m x k, row-major fragments): a register packs p = 32 / bits neighbouring k; lane l holds row l/4, k (l%4)*p; registers
      step 8 rows first (where m is 16), then 4*p along k.
    B (k x n, column fragments): lane l holds column l/4 and k (l%4)*p; registers step 4*p along k.
    C, D (m x n): lane l holds row l/4, columns 2*(l%4) and the next; the other pairs lie 8 rows below.

`wgmma` reads A (or its 64 rows from registers, laid out a warp a 16-row slab as A above) and B from shared memory; its
accumulator is C's layout repeated: warp w of the warpgroup holds rows 16*w.., each further 8 columns take four more registers.

Block-scaled rows (`mma.sync.block_scale`) take one 32-bit register of scales an operand: the scale of row i of A (column n of
B) for the s-th group of k lies in byte s of the lane that `scale_lane_a` (`scale_lane_b`) names.

Sums. A tensor core adds the products of an instruction and the accumulator as fixed-point numbers, aligned to the largest
exponent among them. Of 16-bit floats it keeps as many bits as an f32 has, or more; of 8-bit floats, on Ada and Hopper, 13
behind the leading one, also in the accumulator that it returns (Xie et al., "MMA-Sim: Bit-Accurate Reference Model of Tensor
Cores and Matrix Cores", arXiv 2511.10909; Khattak and Mikaitis, "Accurate Models of NVIDIA Tensor Cores", arXiv 2512.07004).
Kernels therefore add such accumulators to others of f32 every `PROMOTION_K` k (DeepSeek-V3, arXiv 2412.19437, section 3.3.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ingot.target import Target

WARP = 32
PROMOTION_K = 128  # k of 8-bit floats that are summed in less than f32


@dataclass(frozen=True)
class Fragment:
    """Where a warp's registers hold the elements of an operand of `rows` x `cols`.

    Attributes:
        rows, cols: of A and C/D as they are; of B transposed (n x k), because its columns are contiguous in registers.
        bits: size of an element as it lies in a register.
        pair: elements of a lane that are neighbours along `cols`: those of one register, or an accumulator's two.
    """

    rows: int
    cols: int
    bits: int
    pair: int

    @property
    def elements(self) -> int:
        """Elements that a lane holds."""
        return self.rows * self.cols // WARP

    @property
    def registers(self) -> int:
        """32-bit registers that a lane holds."""
        return max(1, self.elements * self.bits // 32)

    def position(self, lane: int, element: int) -> tuple[int, int]:
        """(row, col) of a lane's element, counted through its registers in order, low bits first."""
        if not (0 <= lane < WARP and 0 <= element < self.elements):
            raise ValueError(f"lane {lane}, element {element} is outside a fragment of {self.elements} elements x {WARP} lanes")
        group, part = divmod(element, self.pair)
        slabs = self.rows // 8
        return lane // 4 + 8 * (group % slabs), (lane % 4) * self.pair + part + 4 * self.pair * (group // slabs)


@dataclass(frozen=True)
class BlockScale:
    """Scales of a block-scaled instruction.

    Attributes:
        kind: PTX's `.kind`.
        dtype: storage type of a scale.
        vector: neighbouring k that share one.
        size: PTX's `.scale_vec` (scales an instruction takes for a row).
    """

    kind: Literal["mxf8f6f4", "mxf4", "mxf4nvf4"]
    dtype: str
    vector: int
    size: int


@dataclass(frozen=True)
class MmaRow:
    """An instruction.

    Attributes:
        name: unique; targets list these names.
        engine: `mma` (mma.sync, a warp) or `wgmma` (wgmma.mma_async, a warpgroup; n is then the largest n of a multiple of 8).
        m, n, k: shape.
        dtype: storage type of A's and B's elements.
        ptx: PTX's name of that type.
        acc: type of the accumulator.
        min_sm: first compute capability (times ten).
        bits: of an element in a register: 4-bit floats of f8f6f4 kinds take a byte.
        kind: PTX's `.kind` of unscaled rows, or "".
        scale: block scales, or None.
        tag: the opcode in machine code that shows it was used, on the targets that list it.
        on_hardware: True where the row has run on a real GPU, of its own or a later generation, with its results checked.
        sum_bits: fraction bits of its sums, where they are less than an f32's; 0: they are not.
    """

    name: str
    engine: Literal["mma", "wgmma"]
    m: int
    n: int
    k: int
    dtype: str
    ptx: str
    acc: str
    min_sm: int
    bits: int
    kind: str = ""
    scale: BlockScale | None = None
    tag: str = "HMMA"
    on_hardware: bool = False
    sum_bits: int = 0

    def __post_init__(self) -> None:
        if self.engine == "mma":
            assert (self.m, self.n) in ((16, 8), (8, 8)), f"{self.name}: m{self.m}n{self.n} has no fragment rule"
            assert self.m * self.k * self.bits % (WARP * 32) == 0, f"{self.name}: A does not fill registers of {WARP} lanes"
        else:
            assert (self.m, self.k * self.bits) == (64, 256), f"{self.name}: wgmma takes 64 rows and 32 bytes of k"
        assert self.scale is None or self.k == self.scale.vector * self.scale.size, (
            f"{self.name}: scales do not cover k={self.k}"
        )

    @property
    def a(self) -> Fragment:
        """A of a warp (of wgmma: the 16 rows of a warp, when A is given in registers)."""
        return Fragment(min(self.m, 16), self.k, self.bits, max(1, 32 // self.bits))

    @property
    def b(self) -> Fragment:
        """B transposed: n x k. For wgmma, B has no fragments."""
        return Fragment(8, self.k, self.bits, max(1, 32 // self.bits))

    @property
    def c(self) -> Fragment:
        """Accumulator of a warp, for 8 columns."""
        return Fragment(min(self.m, 16), 8, 32, 2)

    @property
    def k_bytes(self) -> int:
        """Bytes of k that one instruction takes from a row of A in registers."""
        return self.k * self.bits // 8

    def scale_lane_a(self, row: int) -> int:
        """The lane whose scale register serves row `row` of A (thread-id-a 0)."""
        return (row % 8) * 4 + row // 8

    def scale_lane_b(self, col: int) -> int:
        """The lane whose scale register serves column `col` of B (thread-id-b 0)."""
        return col * 4


_S8: dict[str, Any] = {"acc": "i32", "tag": "IMMA"}
_F8: dict[str, Any] = {"acc": "f32", "bits": 8, "sum_bits": 13}
MMA_ROWS: tuple[MmaRow, ...] = (
    MmaRow("mma.m16n8k8.f16", "mma", 16, 8, 8, "f16", "f16", "f32", 75, 16, on_hardware=True),
    MmaRow("mma.m8n8k16.s8", "mma", 8, 8, 16, "i8", "s8", min_sm=75, bits=8, on_hardware=True, **_S8),
    MmaRow("mma.m8n8k16.u8", "mma", 8, 8, 16, "i8", "u8", min_sm=75, bits=8, on_hardware=True, **_S8),
    MmaRow("mma.m16n8k16.f16", "mma", 16, 8, 16, "f16", "f16", "f32", 80, 16, on_hardware=True),
    MmaRow("mma.m16n8k16.bf16", "mma", 16, 8, 16, "bf16", "bf16", "f32", 80, 16, on_hardware=True),
    MmaRow("mma.m16n8k8.tf32", "mma", 16, 8, 8, "f32", "tf32", "f32", 80, 32, on_hardware=True),
    MmaRow("mma.m16n8k32.s8", "mma", 16, 8, 32, "i8", "s8", min_sm=80, bits=8, on_hardware=True, **_S8),
    MmaRow("mma.m16n8k32.u8", "mma", 16, 8, 32, "i8", "u8", min_sm=80, bits=8, on_hardware=True, **_S8),
    # On sm_90, which has no QMMA, these two run as conversions and HMMA: right results there prove layouts, not sums.
    MmaRow("mma.m16n8k32.e4m3", "mma", 16, 8, 32, "f8E4M3FN", "e4m3", min_sm=89, tag="QMMA", **_F8),
    MmaRow("mma.m16n8k32.e5m2", "mma", 16, 8, 32, "f8E5M2", "e5m2", min_sm=89, tag="QMMA", **_F8),
    *(
        MmaRow(f"mma.m16n8k32.f8f6f4.{p}", "mma", 16, 8, 32, d, p, "f32", 120, 8, kind="f8f6f4", tag="QMMA")
        for p, d in (("e4m3", "f8E4M3FN"), ("e5m2", "f8E5M2"), ("e2m1", "f4E2M1FN"))
    ),
    *(
        MmaRow(f"mma.m16n8k32.mxf8f6f4.{p}", "mma", 16, 8, 32, d, p, "f32", 120, 8,
               scale=BlockScale("mxf8f6f4", "f8E8M0FNU", 32, 1), tag="QMMA")
        for p, d in (("e4m3", "f8E4M3FN"), ("e5m2", "f8E5M2"), ("e2m1", "f4E2M1FN"))
    ),
    MmaRow("mma.m16n8k64.mxf4", "mma", 16, 8, 64, "f4E2M1FN", "e2m1", "f32", 120, 4,
           scale=BlockScale("mxf4", "f8E8M0FNU", 32, 2), tag="OMMA"),
    MmaRow("mma.m16n8k64.mxf4nvf4", "mma", 16, 8, 64, "f4E2M1FN", "e2m1", "f32", 120, 4,
           scale=BlockScale("mxf4nvf4", "f8E4M3FN", 16, 4), tag="OMMA"),
    MmaRow("wgmma.m64k16.f16", "wgmma", 64, 256, 16, "f16", "f16", "f32", 90, 16, tag="HGMMA", on_hardware=True),
    MmaRow("wgmma.m64k16.bf16", "wgmma", 64, 256, 16, "bf16", "bf16", "f32", 90, 16, tag="HGMMA", on_hardware=True),
    MmaRow("wgmma.m64k8.tf32", "wgmma", 64, 256, 8, "f32", "tf32", "f32", 90, 32, tag="HGMMA", on_hardware=True),
    MmaRow("wgmma.m64k32.s8", "wgmma", 64, 256, 32, "i8", "s8", "i32", 90, 8, tag="IGMMA", on_hardware=True),
    MmaRow("wgmma.m64k32.u8", "wgmma", 64, 256, 32, "i8", "u8", "i32", 90, 8, tag="IGMMA", on_hardware=True),
    MmaRow("wgmma.m64k32.e4m3", "wgmma", 64, 256, 32, "f8E4M3FN", "e4m3", min_sm=90, tag="QGMMA", on_hardware=True, **_F8),
    MmaRow("wgmma.m64k32.e5m2", "wgmma", 64, 256, 32, "f8E5M2", "e5m2", min_sm=90, tag="QGMMA", on_hardware=True, **_F8),
)  # fmt: skip
MMA_BY_NAME = {row.name: row for row in MMA_ROWS}


def rows_for(target: Target) -> tuple[MmaRow, ...]:
    """The rows that `target` lists, best first."""
    return tuple(MMA_BY_NAME[name] for name in target.mma)


def find_row(
    target: Target, dtype: str, *, engine: str = "mma", tf32: bool = False, unsigned: bool = False, scale: str = ""
) -> MmaRow | None:
    """The best row of `target` for operands of storage type `dtype`, or None.

    Args:
        target: lists the rows.
        dtype: storage type of both operands. f32 has rows only where `tf32` allows rounding it to tf32.
        engine: `mma` or `wgmma`.
        tf32: f32 operands may be rounded to tf32 (10 bits of mantissa).
        unsigned: i8 means uint8.
        scale: `.kind` of a block-scaled row; "" for rows without scales.
    """
    for row in rows_for(target):
        if row.engine != engine or row.dtype != dtype or (row.scale.kind if row.scale else "") != scale:
            continue
        if row.ptx == "tf32" and not tf32:
            continue
        if row.dtype == "i8" and (row.ptx == "u8") != unsigned:
            continue
        return row
    return None
