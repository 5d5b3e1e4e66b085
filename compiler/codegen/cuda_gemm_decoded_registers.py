"""Products of quantized weights by mma.sync: weights come to shared memory as they are, registers decode them.

The rows' side is that of cuda_gemm_mma.py. A warp reads its columns of a stage as they lie in memory and decodes them between
its instructions (cuda_staged_weights.py), as often as there are warps along the rows: what that costs is less than a trip of
decoded weights through shared memory (cuda_gemm_decoded.py), and stages are a quarter as large. Of packed weights a lane reads
16 bytes for two columns at once.

Stages are filled by cp.async (sm_80 and later). Those of packed weights, which no other kernel of these targets reads, are
filled through registers where that is missing (sm_75) or cannot read the rows: fetched a stage ahead, stored after the last
instruction.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from ingot.compiler.codegen.cuda_decode import QuantizedElements
from ingot.compiler.codegen.cuda_gemm_decoded import DecodedMmaSchedule, decoded_row, decodes, elements_of, with_scales
from ingot.compiler.codegen.cuda_gemm_mma import MmaLoop, MmaSchedule, mma_launch, tile_shape
from ingot.compiler.codegen.cuda_gemm_problem import GemmProblem, Matrix
from ingot.compiler.codegen.cuda_gemm_tiles import TileOrder
from ingot.compiler.codegen.cuda_kernel import DispatchKernel, dispatch_kernel, divides
from ingot.compiler.codegen.cuda_shared_tile import TileCopy, TileShape, swizzle
from ingot.compiler.codegen.cuda_staged_weights import (
    STEPS,
    TILE_K,
    PackedWeights,
    StagedWeights,
    packed_matrix,
    packed_shape,
    raw_matrix,
    raw_shape,
    suits_stages,
)
from ingot.compiler.codegen.kernel_builder import KernelModule
from ingot.compiler.codegen.mma_table import MmaRow
from ingot.compiler.codegen.values import Val
from ingot.kernel_plan import KernelLaunch
from ingot.target import Target
from ingot.weight_packing import TILE_COLUMNS

MAX_WARP_N = 32  # columns of a warp: with more, decoded registers spill beside accumulators


@dataclass(frozen=True)
class DecodedRegistersSchedule(DecodedMmaSchedule):
    """A product by mma.sync of weights decoded in registers, which `mma` divides as if they were of 16 bits."""


def registers_tiles(p: GemmProblem, target: Target, tiles: Iterable[MmaSchedule]) -> Iterator[MmaSchedule]:
    """Those of `tiles` that the kernel can take for a product."""
    for s in tiles:
        if registers_row(p, target, s) is not None:
            yield s


def registers_row(p: GemmProblem, target: Target, s: MmaSchedule) -> MmaRow | None:
    """The instruction for a schedule, or None where operands or the target do not suit."""
    if not (decodes(p) and p.a.dtype in ("f16", "bf16") and p.a_scales is None and p.b.bits <= 8):
        return None
    if not p.packed:
        wide = p.b.aligned(4, p.dispatch) and raw_matrix(p.b).aligned(4, p.dispatch) and p.a.aligned(4, p.dispatch)
        whole = p.b.major == "col" or divides(s.warp_n // 8, p.n, p.dispatch)
        if not (target.cp_async and wide and whole):
            return None
    if not suits_stages(p.b_scales) or s.warp_n > MAX_WARP_N or s.k_bytes * 8 // 16 != TILE_K or s.stream:
        return None
    return decoded_row(p, target)


def _bytes_of(p: GemmProblem, columns: int) -> tuple[Matrix, TileShape]:
    """The weights as an operand of bytes, and its tile of `columns` columns."""
    if p.packed:
        return packed_matrix(p.b), packed_shape(p.b, columns)
    return raw_matrix(p.b), raw_shape(p.b, columns)


def _row_of(p: GemmProblem, column: Val) -> Val:
    """The row of the operand of bytes at which a block's columns begin."""
    if p.packed:
        return column // TILE_COLUMNS
    return column if p.b.major == "col" else column * p.b.bits // 8


def emit_decoded_registers(module: KernelModule, p: GemmProblem, s: DecodedRegistersSchedule, target: Target) -> KernelLaunch:
    """Write the kernel of a schedule into `module`. Raises NotImplementedError where `registers_row` has none."""
    row = registers_row(p, target, s.mma)
    if row is None:
        raise NotImplementedError(f"{s} does not suit {p.a.dtype} and {p.b.dtype} on {target.name}")
    weights, shape = _bytes_of(p, s.tile_n)
    shapes = [tile_shape(p.a, s.tile_m, s.mma.k_bytes), shape]
    stage_bytes = sum(shape.nbytes for shape in shapes)
    launch = replace(with_scales(p, mma_launch(p, s.mma)), shared_bytes=s.mma.stages * stage_bytes)
    with dispatch_kernel(module, p.dispatch, launch, min_blocks=1) as dk:
        threads, thread = 32 * s.mma.warps, dk.k.thread_id()
        copies = [TileCopy(dk, x, t, threads, thread, target.cp_async) for x, t in zip((p.a, weights), shapes, strict=True)]
        order = TileOrder(dk, p, s, TILE_K)
        work = order.work(dk.k.block_id())
        for copy, line in zip(copies, (work.row, _row_of(p, work.col)), strict=True):
            copy.start(line, work.batch)
        loop = _Loop(dk, row, s.mma, shapes, copies, elements_of(dk, p)[1], p.packed)
        loop.weights.begin(work.batch, work.col)
        acc = loop.run(work.first, work.last)
        order.deliver(work, lambda out: loop.store(acc, out, work.batch, work.row, work.col))
    return launch


class _Loop(MmaLoop):
    def __init__(
        self, dk: DispatchKernel, row: MmaRow, s: MmaSchedule, shapes: Sequence[TileShape], copies: Sequence[TileCopy],
        elements: QuantizedElements, packed: bool,
    ) -> None:
        super().__init__(dk, row, s, shapes, copies)
        self.stage_bytes = sum(shape.nbytes for shape in shapes)
        group, self.quad = self.lane >> 2, self.lane & 3
        columns = s.warp_n // 8
        # Neighbouring columns that are columns lane / 4 of neighbouring instructions.
        self.count = 2 if packed else 1 if elements.x.major == "col" else columns
        places = [8 * (j - j % self.count) + group * self.count + j % self.count for j in range(columns)]
        mine = [self.warp_col + x for x in places]
        self.weights: PackedWeights | StagedWeights
        if packed:
            tile = self.warp_col // TILE_COLUMNS
            starts = [swizzle(shapes[1], tile + t, self.lane) for t in range(columns // 2)]
            self.weights = PackedWeights(dk, elements, row.dtype, mine[::2], starts)
        else:
            self.weights = StagedWeights(dk, elements, row.dtype, shapes[1], mine, self.quad)
        self.weights.read_runs()

    def run(self, first: Val, last: Val) -> list[Val]:
        """Accumulators, four for each 16 x 8 of the warp's tile, rows first."""
        k, s = self.k, self.s
        acc = [k.const(0, self.row.acc)] * (self.blocks_m * self.blocks_n * 2 * 4)
        for i in range(s.stages - 1):
            with k.if_(first + i < last):
                self.copy(self.shared + i * self.stage_bytes, first + i)
            self.commit()
        scales = self.weights.fetch_scales(first)
        read, write = k.const(0, "i32"), k.const((s.stages - 1) * self.stage_bytes, "i32")
        with k.for_(first, last, carry=[read, write, acc, scales]) as loop:
            read, write, acc, scales = loop.carry
            if self.asynchronous:
                k.cp_async_wait(s.stages - 2)
            k.barrier()  # this stage has arrived, and the one before is not read any more
            following = k.min(loop.iv + (s.stages - 1), last - 1)
            coming = self.begin(self.shared + write, following)
            ahead = self.weights.fetch_scales(loop.iv + 1)
            prepared = self.weights.prepare(scales)
            tile = self.shared + read
            for step in range(STEPS):
                fragments = [x for i in range(self.blocks_m) for x in self.reader_a.read(tile, i, step)]
                pairs = self.weights.pairs_of(tile + self.bytes_a, step, prepared)
                acc = self.multiply([*fragments, *(x for pair in pairs for x in pair)], acc)
            self.put(self.shared + write, coming)
            loop.yield_([self.next(read), self.next(write), acc, ahead])
        if self.asynchronous:
            k.cp_async_wait(0)
        return list(loop.results[2])

    def begin(self, stage: Val, step: Val) -> list[Val]:
        """Begin to bring a step's tiles to the stage at `stage`; what `put` is to store there of those that are fetched."""
        for copy, base in zip(self.copies, (0, self.bytes_a), strict=True):
            if copy.asynchronous:
                copy.copy(stage + base, step)
        self.commit()
        return [x for copy in self.fetched for x in copy.fetch(step)]

    def next(self, offset: Val) -> Val:
        """The stage after the one at `offset`."""
        last = (self.s.stages - 1) * self.stage_bytes
        return self.k.select(offset.eq(last), 0, offset + self.stage_bytes)

    def store(self, acc: list[Val], out: object, batch: Sequence[Val], m0: Val, n0: Val) -> None:
        """Give the accumulators to the epilogue, a row of pairs at a time."""
        if self.count == 1:
            super().store(acc, out, batch, m0, n0)
            return
        row, columns = m0 + self.warp_row + (self.lane >> 2), 2 * self.blocks_n
        for i in range(self.blocks_m):
            for half in range(2):
                line = out.at_row(batch, row + (16 * i + 8 * half))  # type: ignore[attr-defined]
                for first in range(0, columns, self.count):
                    for e in range(2):
                        col = n0 + self.warp_col + (2 * self.quad + e) * self.count + 8 * first
                        for j in range(0, self.count, 2):
                            two = [acc[4 * (i * columns + first + j + h) + 2 * half + e] for h in range(2)]
                            out.pair(line, col + j, two)  # type: ignore[attr-defined]
