"""Matrix products of quantized operands where no instruction takes them: decoded to 16 bits on their way into shared memory.

Each element is decoded once a block, by the thread that brings it, while the instructions of the step before run; the main loop
is cuda_gemm_mma.py's, for any target with an instruction row of 16-bit floats. Without one (or where 16 bits do not hold what
elements stand for), fused multiply-adds in f32 take their place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ingot.compiler.codegen.cuda_decode import QUANTIZED, QuantizedElements
from ingot.compiler.codegen.cuda_gemm_mma import MmaLoop, MmaSchedule, mma_launch, tile_shape
from ingot.compiler.codegen.cuda_gemm_problem import GemmProblem, Matrix, Scales
from ingot.compiler.codegen.cuda_gemm_simt import SimtKernel, SimtLoader, SimtSchedule, simt_launch
from ingot.compiler.codegen.cuda_gemm_tiles import TileOrder, sink
from ingot.compiler.codegen.cuda_kernel import DispatchKernel, dispatch_kernel
from ingot.compiler.codegen.cuda_shared_tile import CHUNK, TileCopy, TileShape
from ingot.compiler.codegen.kernel_builder import KernelModule
from ingot.compiler.codegen.mma_table import MmaRow, find_row
from ingot.compiler.codegen.values import Val
from ingot.kernel_plan import BufferArg, KernelLaunch
from ingot.target import Target

ELEMENTS = 8  # of 16 bits in a chunk of shared memory
_HALF = ("f16", "bf16")


@dataclass(frozen=True)
class DecodedMmaSchedule:
    """A product by mma.sync of decoded operands, which `mma` divides as what they are decoded to."""

    mma: MmaSchedule

    @property
    def splits(self) -> int:
        return self.mma.splits

    @property
    def tile_m(self) -> int:
        return self.mma.tile_m

    @property
    def tile_n(self) -> int:
        return self.mma.tile_n


@dataclass(frozen=True)
class DecodedSimtSchedule:
    """A product by fused multiply-adds of decoded operands."""

    simt: SimtSchedule

    @property
    def splits(self) -> int:
        return self.simt.splits

    @property
    def tile_m(self) -> int:
        return self.simt.tile_m

    @property
    def tile_n(self) -> int:
        return self.simt.tile_n


# Significant bits of what an element or a scale is: products of two have as many as both together, powers of two add none.
_BITS = {"i8": 8, "i4": 4, "f8E4M3FN": 4, "f8E5M2": 3, "f4E2M1FN": 2}
_SCALE_BITS = {"f8E4M3FN": 4, "f8E8M0FNU": 0}


def _holds(dtype: str, x: Matrix, scales: Scales | None) -> bool:
    """True where every element times its scale is a number of 16-bit type `dtype`."""
    if scales is None:
        return dtype == "f16" or _BITS[x.dtype] <= 8
    if scales.zero is not None or scales.scale.dtype not in _SCALE_BITS:
        return False
    if dtype == "f16":  # whose exponents hold E4M3's, with a few bits to spare
        return x.dtype in ("i4", "f4E2M1FN") and scales.scale.dtype == "f8E4M3FN"
    return _BITS[x.dtype] + _SCALE_BITS[scales.scale.dtype] <= 8


def decoded_row(p: GemmProblem, target: Target) -> MmaRow | None:
    """The instruction that multiplies decoded operands, or None.

    Decoded elements of b are of a's 16-bit type, by definition; where both operands are quantized, of one that holds them all,
    or of their own type where the target multiplies that in a wider form.
    """
    if p.acc != "f32" or p.b.dtype not in QUANTIZED:
        return None
    if p.a.dtype in _HALF:
        return find_row(target, p.a.dtype) if p.a_scales is None else None
    if p.a.dtype not in QUANTIZED:
        return None
    if p.a.dtype == p.b.dtype and p.a_scales is None and p.b_scales is None:
        row = find_row(target, p.a.dtype)
        if row is not None and row.acc == p.acc:
            return row  # 4-bit floats, in bytes
    for dtype in ("bf16", "f16"):
        if _holds(dtype, p.a, p.a_scales) and _holds(dtype, p.b, p.b_scales):
            row = find_row(target, dtype)
            if row is not None:
                return row
    return None


class DecodingCopy(TileCopy):
    """Brings tiles of a quantized operand, decoded to 16-bit `dtype`, through registers."""

    def __init__(
        self, dk: DispatchKernel, elements: QuantizedElements, shape: TileShape, dtype: str, threads: int, thread: Val
    ) -> None:
        super().__init__(dk, elements.x, shape, threads, thread, asynchronous=False)
        self.elements, self.dtype = elements, dtype
        along = elements.x.major == ("col" if shape.k_major else "row")
        self.lanes = elements.lanes(ELEMENTS) if along else 1

    def start(self, row: Val, batch: Sequence[Val]) -> None:
        """Begin with the tiles of rows from `row` on, of a batch."""
        self.elements.start(batch)
        self.row, self.row_size = row, self.dk.size(self.x.rows, "i32")

    def fetch(self, step: Val) -> list[Val]:
        """A step's chunks in registers, four i32 each, decoded."""
        k, out = self.k, []
        for i, (line, chunk) in enumerate(self.chunk_places):
            registers: list[Val] = []
            for j in range(0, ELEMENTS, self.lanes):
                inner = chunk * ELEMENTS + j
                row, col = (line, inner) if self.shape.k_major else (inner, line)
                row, col = self.row + row, step * self.shape.tile_k + col
                valid = (row < self.row_size) & (col < self.k_size)
                if not self.exact:
                    valid = valid & self._inside(i)
                registers += [k.select(valid, x, 0) for x in self.decoded(row, col, valid)]
            if self.lanes == 1:
                registers = k.elements(k.bitcast(k.vector(registers), k.vector_of("i32", CHUNK // 4)))
            out += registers
        return out

    def decoded(self, row: Val, col: Val, valid: Val) -> list[Val]:
        """What the elements from (row, col) on that are read at once stand for: i32, two in each; a lone one as i16."""
        k, elements, lanes = self.k, self.elements, self.lanes
        words = elements.load(row, col, lanes, valid)
        if elements.in_f16 and self.dtype == "f16" and lanes > 1:
            return [k.bitcast(x, "i32") for x in elements.pairs(words, row, col, lanes, valid)]
        values = k.cast(k.vector(elements.decode(words, row, col, lanes, valid)), self.dtype)
        if lanes == 1:
            return [k.bitcast(k.extract(values, 0), "i16")]
        return list(k.elements(k.bitcast(values, k.vector_of("i32", lanes // 2))))


class PaddingCopy(TileCopy):
    """Brings tiles of 4-bit floats as bytes, through registers: each code in bits 2 to 5, as `kind::f8f6f4` reads E2M1."""

    def __init__(
        self, dk: DispatchKernel, elements: QuantizedElements, shape: TileShape, threads: int, thread: Val
    ) -> None:
        super().__init__(dk, elements.x, shape, threads, thread, asynchronous=False)
        self.elements = elements
        along = elements.x.major == ("col" if shape.k_major else "row")
        lanes = elements.lanes(CHUNK) if along else 1
        self.lanes = lanes if lanes >= 8 else 1

    def start(self, row: Val, batch: Sequence[Val]) -> None:
        """Begin with the tiles of rows from `row` on, of a batch."""
        self.elements.start(batch)
        self.row, self.row_size = row, self.dk.size(self.x.rows, "i32")

    def fetch(self, step: Val) -> list[Val]:
        """A step's chunks in registers, four i32 each."""
        k, low = self.k, 0x0F0F0F0F
        out: list[Val] = []
        for i, (line, chunk) in enumerate(self.chunk_places):
            parts: list[Val] = []
            for j in range(0, CHUNK, self.lanes):
                inner = chunk * CHUNK + j
                row, col = (line, inner) if self.shape.k_major else (inner, line)
                row, col = self.row + row, step * self.shape.tile_k + col
                valid = (row < self.row_size) & (col < self.k_size)
                if not self.exact:
                    valid = valid & self._inside(i)
                for word in self.elements.load(row, col, self.lanes, valid):
                    codes = k.select(valid, word, 0)
                    if self.lanes == 1:
                        parts.append(k.cast(codes << 2, "i8"))
                        continue
                    even, odd = ((codes << 2) & (low << 2), (codes >> 2) & (low << 2))
                    parts += [k.prmt(even, odd, 0x5140), k.prmt(even, odd, 0x7362)]
            out += parts if self.lanes > 1 else k.elements(k.bitcast(k.vector(parts), k.vector_of("i32", CHUNK // 4)))
        return out


def decodes(p: GemmProblem) -> bool:
    """True for products whose operands these kernels (and cuda_gemv.py) decode: quantized, or of two types of floats."""
    known = (*QUANTIZED, *_HALF, "f32")
    return p.quantized and p.acc == "f32" and p.a.dtype in known and p.b.dtype in known


def with_scales(p: GemmProblem, launch: KernelLaunch) -> KernelLaunch:
    """The launch with the buffers of scales and zero points after those of a and b."""
    found = [x.index for s in (p.a_scales, p.b_scales) if s is not None for x in (s.scale, s.zero) if x is not None]
    return replace(launch, buffers=(*launch.buffers[:2], *(BufferArg("operand", i) for i in found), *launch.buffers[2:]))


def elements_of(dk: DispatchKernel, p: GemmProblem) -> tuple[QuantizedElements, QuantizedElements]:
    """What the elements of a and b stand for."""
    narrow = p.a.dtype if p.a.dtype in _HALF else ""
    return (
        QuantizedElements(dk, p.a, p.a_scales, p.unsigned[0]),
        QuantizedElements(dk, p.b, p.b_scales, p.unsigned[1], narrow),
    )


def emit_decoded_mma(module: KernelModule, p: GemmProblem, s: DecodedMmaSchedule, target: Target) -> KernelLaunch:
    """Write the kernel of a schedule into `module`. Raises NotImplementedError where the target has no instruction for it."""
    row = decoded_row(p, target)
    if row is None:
        raise NotImplementedError(f"{target.name} has no mma.sync for decoded operands of {p.a.dtype} and {p.b.dtype}")
    launch = with_scales(p, mma_launch(p, s.mma))
    with dispatch_kernel(module, p.dispatch, launch, min_blocks=1) as dk:
        k = dk.k
        threads, thread = 32 * s.mma.warps, k.thread_id()
        shapes: list[TileShape] = []
        copies: list[TileCopy] = []
        for elements, rows in zip(elements_of(dk, p), (s.tile_m, s.tile_n), strict=True):
            x = elements.x
            shape = tile_shape(replace(x, bits=row.bits), rows, s.mma.k_bytes)
            if x.dtype == row.dtype and x.bits < row.bits:
                copies.append(PaddingCopy(dk, elements, shape, threads, thread))
            elif x.dtype == row.dtype and elements.scales is None:
                copies.append(TileCopy(dk, x, shape, threads, thread, target.cp_async))
            else:
                copies.append(DecodingCopy(dk, elements, shape, row.dtype, threads, thread))
            shapes.append(shape)
        order = TileOrder(dk, p, s, shapes[0].tile_k)
        m0, n0, batch, split = order.tile(k.block_id())
        for copy, line in zip(copies, (m0, n0), strict=True):
            copy.start(line, batch)
        loop = MmaLoop(dk, row, s.mma, shapes, copies)
        loop.store(loop.run(*order.k_range(split)), sink(dk, p, s, split), batch, m0, n0)
    return launch


class _DecodedLoader(SimtLoader):
    """Brings tiles of what a quantized operand's elements stand for."""

    def __init__(self, dk: DispatchKernel, p: GemmProblem, elements: QuantizedElements, rows: int, s: SimtSchedule) -> None:
        self.elements = elements
        super().__init__(dk, p, elements.x, rows, s, elements.unsigned)

    def widest(self) -> int:
        """Neighbouring elements that may be read at once, at most 4."""
        return self.elements.lanes(4)

    def start(self, row: Val, batch: Sequence[Val]) -> None:
        """Begin with rows from `row` on, of a batch."""
        self.elements.start(batch)
        self.row = row
        self.row_count, self.k_count = self.dk.size(self.x.rows, "i32"), self.dk.size(self.x.cols, "i32")

    def fetch(self, step: Val) -> list[Val]:
        """This thread's elements of a step, decoded."""
        k, out = self.k, []
        for i in range(self.count):
            row, depth, inside = self.place(i)
            row, depth = self.row + row, step * self.s.tile_k + depth
            valid = (row < self.row_count) & (depth < self.k_count)
            if not self.exact:
                valid = valid & inside
            words = self.elements.load(row, depth, self.lanes, valid)
            out += [k.select(valid, x, 0.0) for x in self.elements.decode(words, row, depth, self.lanes, valid)]
        return out


class _DecodedSimtKernel(SimtKernel):
    def loaders(self) -> tuple[SimtLoader, SimtLoader]:
        """What brings tiles of A and of B."""
        a, b = elements_of(self.dk, self.p)
        return (
            _DecodedLoader(self.dk, self.p, a, self.s.tile_m, self.s),
            _DecodedLoader(self.dk, self.p, b, self.s.tile_n, self.s),
        )


def emit_decoded_simt(module: KernelModule, p: GemmProblem, s: DecodedSimtSchedule, target: Target) -> KernelLaunch:
    """Write the kernel of a schedule into `module`. Raises NotImplementedError for what is not decoded to f32."""
    if not decodes(p):
        raise NotImplementedError(f"matmul of {p.a.dtype} and {p.b.dtype} accumulating in {p.acc} on {target.name}")
    launch = with_scales(p, simt_launch(p, s.simt))
    with dispatch_kernel(module, p.dispatch, launch, min_blocks=1) as dk:
        _DecodedSimtKernel(dk, p, s.simt).emit()
    return launch
