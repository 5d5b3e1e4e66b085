"""Stream-K: products whose tiles do not fill whole waves of blocks, divided by steps of K instead of by tiles.

A grid of as many blocks as run at once first takes whole tiles, as many for each block as there are whole waves. The steps of
the tiles that are left, one tile's after the other's, are cut into equal shares, one a block (Osama et al., "Stream-K:
Work-centric Parallel Decomposition for Dense Matrix-Matrix Multiplication on the GPU", 2023; their hybrid with data-parallel
waves). A tile that one share contains is finished by its block; accumulators of the others go to the workspace, and a second
launch adds them in the order of K and runs the epilogue: results do not depend on timing, and no block waits for another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ingot import dims
from ingot.compiler.codegen.cuda_gemm_epilogue import FragmentEpilogue
from ingot.compiler.codegen.cuda_gemm_problem import GemmProblem
from ingot.compiler.codegen.cuda_gemm_tiles import Schedule, TileOrder, Work, split_workspace, tile_count
from ingot.compiler.codegen.cuda_kernel import DispatchKernel, dispatch_kernel, region_buffers, symbol_of
from ingot.compiler.codegen.cuda_split_k import emit_reduce, reduce_launch
from ingot.compiler.codegen.kernel_builder import KernelModule
from ingot.compiler.codegen.values import Val
from ingot.dims import Dim
from ingot.dispatch import Dispatch
from ingot.kernel_plan import BufferArg, KernelLaunch

THREADS, LANES = 256, 4
LEAST_STEPS = 4  # a share below it would spend its time filling the pipeline


class StreamSchedule(Schedule):
    """A schedule whose grid may be one of shares.

    Attributes:
        stream: blocks that run at once and share the tiles; 0: tiles are not divided so.
        k_bytes: bytes of k of a step.
    """

    stream: int
    k_bytes: int


@dataclass(frozen=True)
class StreamK:
    """Which block works on what.

    Attributes:
        tiles: of the product.
        steps: of K of a tile.
        blocks: that run at once.
    """

    tiles: int
    steps: int
    blocks: int

    @property
    def waves(self) -> int:
        """Whole tiles of each block."""
        return self.tiles // self.blocks

    @property
    def whole(self) -> int:
        """Tiles in whole waves; the others are divided."""
        return self.waves * self.blocks

    @property
    def divided(self) -> int:
        """Tiles whose steps are shared."""
        return self.tiles - self.whole

    @property
    def share(self) -> int:
        """Steps of a block's share; the last one may have less."""
        return max(LEAST_STEPS, -(-self.divided * self.steps // self.blocks))

    @property
    def shares(self) -> int:
        """Blocks that have a share."""
        return -(-self.divided * self.steps // self.share)

    @property
    def grid(self) -> int:
        """Blocks with work."""
        return self.blocks if self.waves else self.shares

    @property
    def slots(self) -> int:
        """Partial tiles that the workspace holds: a share's part of a tile goes to slot (share + tile), which no other has."""
        return max(0, self.shares + self.divided - 1)


def stream_of(p: GemmProblem, s: Any) -> StreamK | None:
    """The division of a product by a schedule, or None where no tile is shared, because whole waves take them all or the
    schedule says so. Raises NotImplementedError for sizes that are not constant."""
    blocks = getattr(s, "stream", 0)
    if not blocks:
        return None
    tiles, steps = tile_count(p, s), dims.ceildiv(p.k, s.k_bytes * 8 // p.a.bits)
    if not isinstance(tiles, int) or not isinstance(steps, int):
        raise NotImplementedError(f"stream-K of a product of sizes known at run time only: {p.m} x {p.n} x {p.k}")
    return StreamK(tiles, steps, blocks) if steps and tiles % blocks else None


def stream_workspace(p: GemmProblem, s: Schedule, stream: StreamK) -> int:
    """Bytes of the partial tiles."""
    return stream.slots * s.tile_m * s.tile_n * (8 if p.acc in ("f64", "i64") else 4)


def tile_order(dk: DispatchKernel, p: GemmProblem, s: Schedule, tile_k: int) -> TileOrder:
    """The order in which a schedule's blocks work on tiles."""
    stream = stream_of(p, s)
    return TileOrder(dk, p, s, tile_k) if stream is None else StreamOrder(dk, p, s, tile_k, stream)


class StreamOrder(TileOrder):
    """Positions of a block's tiles, whole ones first, then those of its share of steps."""

    def __init__(self, dk: DispatchKernel, p: GemmProblem, s: Schedule, tile_k: int, stream: StreamK) -> None:
        super().__init__(dk, p, s, tile_k)
        self.stream = stream
        k, steps = self.k, stream.steps
        self.block = k.block_id()
        total = stream.divided * steps
        self.begin = k.min(self.block * stream.share, total)
        self.end = k.min(self.begin + stream.share, total)
        self.first_tile = self.begin // max(1, steps)

    def span(self) -> tuple[Val, Val, Val]:
        """Numbers of the block's pieces of work, as a range."""
        k = self.k
        last = (self.end + (self.stream.steps - 1)) // max(1, self.stream.steps)
        pieces = k.select(self.begin < self.end, last - self.first_tile, 0) + self.stream.waves
        return k.const(0, "i32"), pieces, k.const(1, "i32")

    def work(self, index: Val) -> Work:
        """The block's piece of work number `index`."""
        k, stream = self.k, self.stream
        shared = self.first_tile + (index - stream.waves)
        start = shared * stream.steps
        first, last = k.max(self.begin - start, 0), k.min(self.end - start, stream.steps)
        tile = shared + stream.whole
        if stream.waves:
            alone = index < stream.waves
            tile = k.select(alone, index * stream.blocks + self.block, tile)
            first, last = k.select(alone, 0, first), k.select(alone, stream.steps, last)
        row, col, batch, _ = self.tile(tile)
        return Work(row, col, batch, first, last, self.block + shared)

    def deliver(self, work: Work, store: Callable[[Any], None]) -> None:
        """Give a whole tile to the epilogue, and a part of one to the workspace."""
        with self.k.if_else((work.last - work.first).eq(self.stream.steps)) as whole:
            with whole.then:
                store(FragmentEpilogue(self.dk, self.p, (self.s.tile_m, self.s.tile_n)))
            with whole.else_:
                store(PartialTile(self.dk, self.p, self.s, work))


class PartialTile:
    """Stores pairs of accumulators to a slot of the workspace, tiles in row-major order: a stand-in for `FragmentEpilogue`."""

    def __init__(self, dk: DispatchKernel, p: GemmProblem, s: Schedule, work: Work) -> None:
        self.k, self.s, self.work, self.acc = dk.k, s, work, p.acc
        self.start = slot_address(dk, p, s, work.part)

    def at_row(self, batch: Sequence[Val], row: Val) -> Val:
        """The address of a row's first accumulator."""
        return self.start.at((row - self.work.row) * self.s.tile_n, self.acc)

    def pair(self, row: Val, col: Val, acc: Sequence[Val]) -> None:
        """Store accumulators of two neighbouring columns."""
        self.k.store(self.k.vector(list(acc)), row.at(col - self.work.col, self.acc), align=8)


def slot_address(dk: DispatchKernel, p: GemmProblem, s: Schedule, slot: Val) -> Val:
    """The address of a partial tile."""
    return dk.pointer("workspace").at(dk.k.cast(slot, "i64") * (s.tile_m * s.tile_n), p.acc)


def _stream_launch(dispatch: Dispatch, s: Schedule, stream: StreamK) -> KernelLaunch:
    """The launch that finishes the tiles of which several blocks had a share."""
    return KernelLaunch(
        symbol_of(dispatch, "_finish"),
        (-(-s.tile_m * s.tile_n // (THREADS * LANES)), stream.divided, 1),
        (BufferArg("workspace"), *region_buffers(dispatch)),
        (THREADS, 1, 1),
    )


def _emit_stream_finish(module: KernelModule, p: GemmProblem, s: Schedule, stream: StreamK, launch: KernelLaunch) -> None:
    """Write the kernel: a thread adds the parts of neighbouring columns in the order of K, and runs the epilogue."""
    steps, share = stream.steps, stream.share
    with dispatch_kernel(module, p.dispatch, launch) as dk:
        k = dk.k
        tile = k.block_id(1)
        # The shares that hold the tile's first and last steps.
        first, last = tile * steps // share, (tile * steps + (steps - 1)) // share
        with k.if_(first < last):
            row, col, batch, _ = TileOrder(dk, p, s, 1).tile(tile + stream.whole)
            at = (k.block_id(0) * THREADS + k.thread_id()) * LANES
            with k.if_(at < s.tile_m * s.tile_n if s.tile_m * s.tile_n % (THREADS * LANES) else True):
                t = k.vector_of(p.acc, LANES)

                def part(number: Val) -> Val:
                    return k.load(slot_address(dk, p, s, number + tile).at(at, p.acc), t, align=4 * LANES)

                with k.for_(first + 1, last + 1, carry=part(first)) as parts:
                    parts.yield_(parts.carry + part(parts.iv))
                total = k.elements(parts.results)
                epilogue = FragmentEpilogue(dk, p, (s.tile_m, s.tile_n))
                line = epilogue.at_row(batch, row + at // s.tile_n)
                for i in range(0, LANES, 2):
                    epilogue.pair(line, col + (at % s.tile_n + i), total[i : i + 2])


def emit_finish(module: KernelModule, p: GemmProblem, s: Any) -> tuple[list[KernelLaunch], Dim]:
    """Write what follows the launch of a product whose tiles are divided among blocks: (launches, bytes of workspace).

    The product's own launch reads none of the region's operands, and writes no result, of tiles that are divided.
    """
    if s.splits > 1:
        reduce = reduce_launch(p.dispatch, p.domain, "")
        emit_reduce(module, p.dispatch, p.domain, reduce, s.splits, p.acc)
        return [reduce], split_workspace(p, s)
    stream = stream_of(p, s)
    if stream is None:
        return [], 0
    finish = _stream_launch(p.dispatch, s, stream)
    _emit_stream_finish(module, p, s, stream, finish)
    return [finish], stream_workspace(p, s, stream)


def with_shares(launch: KernelLaunch, p: GemmProblem, s: Schedule) -> KernelLaunch:
    """A data-parallel launch as one of shares, where the schedule says so: its grid, and the workspace beside its buffers."""
    stream = stream_of(p, s)
    if stream is None:
        return launch
    return replace(launch, grid=(stream.grid, 1, 1), buffers=(*launch.buffers, BufferArg("workspace")))
