"""Matrix products of block-scaled operands: NVFP4, MXFP4 and MXFP8 by mma.sync (PTX ISA, "Block Scaling for mma.sync").

The main loop is cuda_gemm_mma.py's over bytes of k: 4-bit elements lie in pairs, the lower nibble first, along k. A stage holds
the tiles of both operands, then their scales: for each row of A and column of B those of the stage's k, in order. A lane reads
as many as an instruction takes of the row that it serves (`MmaRow.scale_lane_a`, `scale_lane_b`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ingot import dims
from ingot.compiler.codegen.cuda_decode import QuantizedElements
from ingot.compiler.codegen.cuda_gemm_decoded import PaddingCopy, with_scales
from ingot.compiler.codegen.cuda_gemm_mma import MMA_TILES, MmaLoop, MmaSchedule, StageCopy, mma_launch, tile_shape
from ingot.compiler.codegen.cuda_gemm_problem import GemmProblem, Matrix
from ingot.compiler.codegen.cuda_gemm_tiles import TileOrder, sink
from ingot.compiler.codegen.cuda_kernel import DispatchKernel, dispatch_kernel, divides
from ingot.compiler.codegen.cuda_shared_tile import TileCopy, TileShape
from ingot.compiler.codegen.kernel_builder import KernelModule
from ingot.compiler.codegen.mma_table import MmaRow, rows_for
from ingot.compiler.codegen.values import Val
from ingot.kernel_plan import KernelLaunch
from ingot.target import Target

_PTX_SCALES = {"f8E8M0FNU": "ue8m0", "f8E4M3FN": "ue4m3"}


@dataclass(frozen=True)
class BlockScaleSchedule(MmaSchedule):
    """An `MmaSchedule` whose stages hold `scale_bytes` bytes of scales for each row of A and column of B."""

    scale_bytes: int = 4

    @property
    def stage_bytes(self) -> int:
        return (self.tile_m + self.tile_n) * (self.k_bytes + self.scale_bytes)


def block_scale_rows(p: GemmProblem, target: Target) -> tuple[MmaRow, MmaRow] | None:
    """The instruction that takes both operands with their scales, as the rows of a's and of b's type, or None.

    They are one row, or two of a kind that takes operands of two types (`mxf8f6f4`). Rows that hold elements as they lie in
    memory come before those that spread 4 bits over a byte.
    """
    a, b = p.a_scales, p.b_scales
    if a is None or b is None or b.zero is not None or p.acc != "f32":
        return None
    rows = [
        r for r in rows_for(target)
        if r.scale is not None and a.block == b.block == r.scale.vector and a.scale.dtype == b.scale.dtype == r.scale.dtype
    ]  # fmt: skip
    for bits in (4, 8):
        of_a, of_b = (
            next((r for r in rows if r.dtype == x.dtype and r.bits == bits >= x.bits), None) for x in (p.a, p.b)
        )
        if of_a is not None and of_b is not None and of_a.scale == of_b.scale:
            if bits == 8 or all(_in_bytes(x, p) for x in (p.a, p.b)):
                return of_a, of_b
    return None


def _in_bytes(x: Matrix, p: GemmProblem) -> bool:
    """True where pairs of the operand's elements along k are bytes."""
    steps = (x.cols, x.row_stride, *x.batch_strides)
    return x.major == "col" and all(divides(2, d, p.dispatch) for d in steps)


def bytes_of(x: Matrix) -> Matrix:
    """The operand of 4-bit elements with bytes for elements."""

    def half(d: dims.Dim) -> dims.Dim:
        return dims.floordiv(d, 2)

    return replace(
        x, dtype="i8", bits=8, cols=half(x.cols), row_stride=half(x.row_stride), batch_strides=tuple(map(half, x.batch_strides))
    )


def block_scale_schedules(p: GemmProblem, target: Target) -> list[BlockScaleSchedule]:
    """Schedules that fit the target's shared memory, largest tiles first; none where it has no instruction."""
    rows = block_scale_rows(p, target)
    if rows is None:
        return []
    row, _ = rows
    assert row.scale is not None
    out = []
    for tile in MMA_TILES:
        scale_bytes = tile.k_bytes * 8 // row.bits // row.scale.vector
        for stages in (tile.stages, 2):
            s = BlockScaleSchedule(tile.tile_m, tile.tile_n, tile.warp_m, tile.warp_n, stages, tile.k_bytes, 1, scale_bytes)
            if s.stages * s.stage_bytes <= target.shared_bytes:
                out.append(s)
                break
    return out


def emit_block_scale(module: KernelModule, p: GemmProblem, s: BlockScaleSchedule, target: Target) -> KernelLaunch:
    """Write the kernel of a schedule into `module`. Raises NotImplementedError where the target has no instruction for it."""
    found = block_scale_rows(p, target)
    if found is None:
        raise NotImplementedError(f"{target.name} has no block-scaled instruction for {p.a.dtype} and {p.b.dtype}")
    assert p.a_scales is not None
    assert p.b_scales is not None
    launch = with_scales(p, mma_launch(p, s))
    with dispatch_kernel(module, p.dispatch, launch, min_blocks=1) as dk:
        k = dk.k
        threads, thread = 32 * s.warps, k.thread_id()
        order = TileOrder(dk, p, s, s.k_bytes * 8 // found[0].bits)
        m0, n0, batch, split = order.tile(k.block_id())
        shapes, copies, scales = [], [], []
        for x, rows, line in ((p.a, s.tile_m, m0), (p.b, s.tile_n, n0)):
            if x.bits < found[0].bits:
                shape = tile_shape(replace(x, bits=found[0].bits), rows, s.k_bytes)
                copy: TileCopy = PaddingCopy(dk, QuantizedElements(dk, x, None, False), shape, threads, thread)
            else:
                packed = bytes_of(x) if x.bits < 8 else x
                shape = tile_shape(packed, rows, s.k_bytes)
                copy = TileCopy(dk, packed, shape, threads, thread, target.cp_async)
            copy.start(line, batch)
            shapes.append(shape)
            copies.append(copy)
        # Scales are copied with B's tile, in its group of asynchronous copies if it has one.
        for of, rows, line in ((p.a_scales, s.tile_m, m0), (p.b_scales, s.tile_n, n0)):
            scale = ScaleCopy(dk, of.scale, rows, s.scale_bytes, threads, thread, copies[1].asynchronous)
            scale.start(line, batch)
            scales.append(scale)
        both: list[StageCopy] = [copies[0], _TileAndScales(copies[1], shapes[1], scales)]
        loop = _BlockScaleLoop(dk, found[0], s, shapes, both)
        loop.b_type = found[1].ptx
        loop.store(loop.run(*order.k_range(split)), sink(dk, p, s, split), batch, m0, n0)
    return launch


class ScaleCopy:
    """Copies scales, `width` a row, of `rows` rows into shared memory; zeros where there are none."""

    def __init__(
        self, dk: DispatchKernel, x: Matrix, rows: int, width: int, threads: int, thread: Val, asynchronous: bool
    ) -> None:
        self.dk, self.k, self.x, self.rows, self.width = dk, dk.k, x, rows, width
        self.threads, self.thread = threads, thread
        pieces = (w for w in (16, 8, 4) if asynchronous and width % w == 0 and x.major == "col" and x.aligned(w, dk.d))
        self.piece = next(pieces, 1)
        self.per_row = width // self.piece
        self.count = -(-rows * self.per_row // threads)

    @property
    def nbytes(self) -> int:
        """Bytes of shared memory."""
        return self.rows * self.width

    def start(self, row: Val, batch: Sequence[Val]) -> None:
        """Begin with rows from `row` on, of a batch."""
        k, x, dk = self.k, self.x, self.dk
        offset = k.const(0, "i64")
        for b, s in zip(batch, x.batch_strides, strict=True):
            if s != 0:
                offset = offset + k.cast(b, "i64") * dk.size(s)
        self.base = dk.pointer(x.kind, x.index) + offset
        self.row, self.row_size, self.size = row, dk.size(x.rows, "i32"), dk.size(x.cols, "i32")

    def copy(self, shared: Val, step: Val) -> None:
        """Copy the scales of a step's k: asynchronously where rows are aligned, else a byte at a time."""
        k, x, dk = self.k, self.x, self.dk
        for i in range(self.count):
            at = self.thread + i * self.threads
            line, first = at // self.per_row, at % self.per_row * self.piece
            row, col = self.row + line, step * self.width + first
            left = k.select(row < self.row_size, self.size - col, 0)
            offset = k.cast(row, "i64") * dk.size(x.row_stride) + k.cast(col, "i64") * dk.size(x.col_stride)
            source = self.base + k.select(left > 0, offset, 0)
            with k.if_(True if self.rows * self.per_row % self.threads == 0 else line < self.rows):
                target = shared + (line * self.width + first)
                if self.piece >= 4:
                    k.cp_async(target, source, self.piece, k.max(k.min(left, self.piece), 0))
                else:
                    k.store(k.select(left > 0, k.load(source, "i8"), k.const(0, "i8")), target)


class _TileAndScales:
    """B's tile with the scales of both operands behind it: a `TileCopy` for the main loop."""

    def __init__(self, tile: TileCopy, shape: TileShape, scales: Sequence[ScaleCopy]) -> None:
        self.tile, self.scales = tile, scales
        self.places = [shape.nbytes, shape.nbytes + scales[0].nbytes]
        self.asynchronous, self.count = tile.asynchronous, tile.count

    def _copy_scales(self, stage: Val, step: Val) -> None:
        for scale, place in zip(self.scales, self.places, strict=True):
            scale.copy(stage + place, step)

    def copy(self, stage: Val, step: Val) -> None:
        """Issue the copies of a step."""
        self.tile.copy(stage, step)
        self._copy_scales(stage, step)

    def fetch(self, step: Val) -> list[Val]:
        """A step's tile in registers."""
        self.step = step
        return self.tile.fetch(step)

    def put(self, stage: Val, registers: Sequence[Val]) -> None:
        """Store what `fetch` gave, and copy the scales of the same step."""
        self.tile.put(stage, registers)
        self._copy_scales(stage, self.step)


class _BlockScaleLoop(MmaLoop):
    """The main loop with registers of scales among the fragments."""

    s: BlockScaleSchedule
    b_type: str

    @property
    def fragment_registers(self) -> int:
        """How many registers `fragments` gives."""
        return super().fragment_registers + self.blocks_m + 2 * self.blocks_n

    def fragments(self, stage: Val, step: int) -> list[Val]:
        """Registers of the warp's rows of A, of its columns of B, then of the scales of both, for 32 bytes of k."""
        k, s = self.k, self.s
        assert self.row.scale is not None
        size = self.row.scale.size
        first = stage + (s.tile_m + s.tile_n) * s.k_bytes + step * size
        quad = self.lane >> 2
        # Of a quad's lanes, the first serves row `quad` of A, the second the row 8 below; the others' registers are not read.
        rows = [self.warp_row + quad + ((self.lane & 1) << 3) + 16 * i for i in range(self.blocks_m)]
        columns = [self.warp_col + quad + (8 * j + s.tile_m) for j in range(2 * self.blocks_n)]
        scales = [k.load(first + at * s.scale_bytes, f"i{8 * size}", align=size) for at in (*rows, *columns)]
        return [*super().fragments(stage, step), *(k.cast(x, "i32", signed=False) for x in scales)]

    def multiply(self, fragments: list[Val], acc: list[Val]) -> list[Val]:
        """One product for each 16 x 8 of the warp's tile."""
        row, acc = self.row, list(acc)
        assert row.scale is not None
        columns = 2 * self.blocks_n
        registers, scales = fragments[: 4 * (self.blocks_m + self.blocks_n)], fragments[4 * (self.blocks_m + self.blocks_n) :]
        for i in range(self.blocks_m):
            for jj in range(columns):
                j = jj if i % 2 == 0 else columns - 1 - jj  # back and forth: neighbours share B's registers
                b = registers[4 * self.blocks_m + 4 * (j // 2) :][:4][2 * (j % 2) :][:2]
                at = slice(4 * (i * columns + j), 4 * (i * columns + j) + 4)
                acc[at] = self.k.mma_block_scale(
                    (row.m, row.n, row.k), registers[4 * i : 4 * i + 4], b, acc[at], row.ptx, self.b_type, kind=row.scale.kind,
                    scale_vector=row.scale.size, scale_type=_PTX_SCALES[row.scale.dtype], a_scale=scales[i],
                    b_scale=scales[self.blocks_m + j],
                )  # fmt: skip
        return acc
