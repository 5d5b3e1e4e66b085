"""The order in which a product's tiles are worked on, and where the accumulators of a split product go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ingot import dims
from ingot.compiler.codegen.cuda_gemm_epilogue import FragmentEpilogue
from ingot.compiler.codegen.cuda_gemm_problem import GemmProblem
from ingot.compiler.codegen.cuda_kernel import DispatchKernel, divides
from ingot.compiler.codegen.values import Val
from ingot.dims import Dim

GROUP = 8  # rows of tiles walked together, so that their operands stay in the second-level cache


class Schedule(Protocol):
    """What a schedule says about tiles: their size, and the blocks that share one, each with a part of K."""

    @property
    def tile_m(self) -> int: ...

    @property
    def tile_n(self) -> int: ...

    @property
    def splits(self) -> int: ...


def tile_count(p: GemmProblem, s: Schedule) -> Dim:
    """Tiles of a product, the splits of K counted apart."""
    return dims.ceildiv(p.m, s.tile_m) * dims.ceildiv(p.n, s.tile_n) * dims.product(p.batch) * s.splits


def split_workspace(p: GemmProblem, s: Schedule) -> Dim:
    """Bytes of partial sums of a split product."""
    size = 8 if p.acc in ("f64", "i64") else 4
    return 0 if s.splits == 1 else size * s.splits * dims.product(p.batch) * p.m * p.n


@dataclass(frozen=True)
class Work:
    """What a block does at once: a tile of the result, or some steps of it.

    Attributes:
        row, col: of the tile's first element.
        batch: position along the batch axes.
        first, last: steps of K, as a range.
        part: which part of the tile it is, where it is not all of it: a split, or a slot of cuda_stream_k.py.
    """

    row: Val
    col: Val
    batch: list[Val]
    first: Val
    last: Val
    part: Val


class TileOrder:
    """Positions of tiles by number, in a kernel."""

    def __init__(self, dk: DispatchKernel, p: GemmProblem, s: Schedule, tile_k: int) -> None:
        self.dk, self.p, self.k, self.s = dk, p, dk.k, s
        self.tiles_m = dk.size(dims.ceildiv(p.m, s.tile_m), "i32")
        self.tiles_n = dk.size(dims.ceildiv(p.n, s.tile_n), "i32")
        self.steps = dk.size(dims.ceildiv(p.k, tile_k), "i32")
        self.count = self.tiles_m * self.tiles_n * dk.size(dims.product(p.batch), "i32") * s.splits

    def span(self) -> tuple[Val, Val, Val]:
        """Numbers of a persistent block's pieces of work, as a range."""
        return self.k.block_id(), self.count, self.k.grid_dim()

    def work(self, index: Val) -> Work:
        """A piece of work by its number."""
        row, col, batch, split = self.tile(index)
        return Work(row, col, batch, *self.k_range(split), split)

    def deliver(self, work: Work, store: Callable[[Any], None]) -> None:
        """Call `store` with what takes the accumulators of a piece of work."""
        store(sink(self.dk, self.p, self.s, work.part))

    def tile(self, index: Val) -> tuple[Val, Val, list[Val], Val]:
        """(first row, first column, batch position, split) of a tile.

        Splits are innermost, then rows within a group of rows, columns, groups and batches.
        """
        k, s = self.k, self.s
        split = k.const(0, "i32")
        if s.splits > 1:
            split, index = index % s.splits, index // s.splits
        batch: list[Val] = []
        if self.p.batch:
            per_batch = self.tiles_m * self.tiles_n
            z = index // per_batch
            index = index - z * per_batch
            batch = self.dk.split(z, self.p.batch)
        per_group = self.tiles_n * GROUP
        group = index // per_group
        rest = index - group * per_group
        rows = k.min(self.tiles_m - group * GROUP, GROUP)
        col = rest // rows
        row = group * GROUP + (rest - col * rows)
        return row * s.tile_m, col * s.tile_n, batch, split

    def k_range(self, split: Val, splits: int = 0) -> tuple[Val, Val]:
        """Steps of K of one of `splits` parts, by default the schedule's."""
        k = self.k
        splits = splits or self.s.splits
        if splits == 1:
            return k.const(0, "i32"), self.steps
        per = (self.steps + (splits - 1)) // splits
        first = k.min(split * per, self.steps)
        return first, k.min(first + per, self.steps)


class PartialSums:
    """Stores pairs of accumulators to the workspace [splits, batch, m, n]: a stand-in for `FragmentEpilogue`."""

    def __init__(self, dk: DispatchKernel, p: GemmProblem, split: Val) -> None:
        self.dk, self.p, self.k, self.split = dk, p, dk.k, split
        self.m, self.n = dk.size(p.m), dk.size(p.n)
        self.even = divides(2, p.n, p.dispatch)

    def at_row(self, batch: Sequence[Val], row: Val) -> tuple[Val, Val]:
        """(address of the row's first accumulator, whether the row exists)."""
        k = self.k
        z = self.split
        for b, d in zip(batch, self.p.batch, strict=True):
            z = z * self.dk.size(d, "i32") + b
        line = (k.cast(z, "i64") * self.m + k.cast(row, "i64")) * self.n
        return self.dk.pointer("workspace").at(line, self.p.acc), k.cast(row, "i64") < self.m

    def pair(self, row: tuple[Val, Val], col: Val, acc: Sequence[Val]) -> None:
        """Store accumulators of two neighbouring columns."""
        k, (line, valid) = self.k, row
        at = k.cast(col, "i64")
        if self.even:
            with k.if_(valid & (at < self.n)):
                k.store(k.vector(list(acc)), line.at(col, self.p.acc), align=8)
            return
        for i, x in enumerate(acc):
            with k.if_(valid & (at + i < self.n)):
                k.store(x, line.at(col + i, self.p.acc))


def sink(dk: DispatchKernel, p: GemmProblem, s: Schedule, split: Val) -> FragmentEpilogue | PartialSums:
    """What takes a tile's accumulators: the dispatch's epilogue, or the workspace of a split product."""
    return FragmentEpilogue(dk, p, (s.tile_m, s.tile_n)) if s.splits == 1 else PartialSums(dk, p, split)
