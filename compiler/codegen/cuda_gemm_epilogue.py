"""The end of every matmul-like kernel: accumulators in registers, through the dispatch's region, to the results.

Tensor-core accumulators give a thread pairs of neighbouring columns; `FragmentEpilogue` runs the region on such pairs. Where
sizes do not divide tiles, positions that regions load from are clamped into range (what they yield is dropped) and stores are
predicated.
"""

from __future__ import annotations

from collections.abc import Sequence

from ingot.compiler.codegen.cuda_gemm_problem import GemmProblem
from ingot.compiler.codegen.cuda_kernel import DispatchKernel, divides, region_operands
from ingot.compiler.codegen.values import Val


class FragmentEpilogue:
    """Runs the epilogue region of `p` on pairs of accumulators, at rows set by `at_row`.

    Args:
        dk: the kernel.
        p: the products.
        tile: (rows, columns) of a block's tile: a size that it divides needs no predicate.
        lanes: neighbouring columns handled at once; 2 where n is known to be even, else 1.
    """

    def __init__(self, dk: DispatchKernel, p: GemmProblem, tile: tuple[int, int]) -> None:
        self.dk, self.p, self.k = dk, p, dk.k
        self.region = p.dispatch.regions[0]
        self.lanes = 2 if divides(2, p.n, p.dispatch) else 1
        self.rows_exact = divides(tile[0], p.m, p.dispatch)
        self.cols_exact = divides(tile[1], p.n, p.dispatch)
        self.m, self.n = dk.size(p.m, "i32"), dk.size(p.n, "i32")
        looks = bool(region_operands([self.region])) or any(i.op == "index" for i in self.region.insts)
        self.clamp_rows = looks and not self.rows_exact
        self.clamp_cols = looks and not self.cols_exact

    def at_row(self, batch: Sequence[Val], row: Val) -> tuple[list[Val], list[Val], Val | None]:
        """(position to load from, position to store to, predicate of the store or None) of a row, without the column."""
        k, p = self.k, self.p
        valid = None if self.rows_exact else row < self.m
        store = p.position(self.dk, batch, row)
        load = p.position(self.dk, batch, k.min(row, self.m - 1)) if self.clamp_rows else store
        return load, store, valid

    def results(self, load: Sequence[Val], col: Val, acc: Sequence[Val]) -> list[Val]:
        """The region's results for the accumulators at `col` and the next column: vectors of two of storage type."""
        k = self.k
        if self.lanes == 2:
            at = k.min(col, self.n - 2) if self.clamp_cols else col
            return self.dk.region(self.region, [k.vector(list(acc))], [*load, at], self.p.domain, lanes=2)
        singles = []
        for i, x in enumerate(acc):
            at = k.min(col + i, self.n - 1) if self.clamp_cols else col + i
            singles.append(self.dk.region(self.region, [x], [*load, at], self.p.domain))
        return [k.vector(pair) for pair in zip(*singles, strict=True)]

    def store(self, result: int, x: Val, store: Sequence[Val], valid: Val | None, col: Val) -> None:
        """Store a pair of a result to memory where it is in range."""
        k = self.k
        if self.lanes == 2:
            with k.if_(self._and(valid, None if self.cols_exact else col < self.n)):
                self.dk.store(result, x, [*store, col], lanes=2)
            return
        for i in range(2):
            with k.if_(self._and(valid, None if self.cols_exact else col + i < self.n)):
                self.dk.store(result, k.extract(x, i), [*store, col + i])

    def pair(self, batch_row: tuple[list[Val], list[Val], Val | None], col: Val, acc: Sequence[Val]) -> None:
        """Run the region on a pair and store all results."""
        load, store, valid = batch_row
        for i, x in enumerate(self.results(load, col, acc)):
            self.store(i, x, store, valid, col)

    def _and(self, a: Val | None, b: Val | None) -> Val | bool:
        if a is None:
            return True if b is None else b
        return a if b is None else a & b
