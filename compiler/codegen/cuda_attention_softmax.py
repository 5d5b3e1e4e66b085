"""The row-wise part of attention: scores, running softmax, results, for accumulators as tensor cores leave them.

A thread holds pairs of neighbouring columns of two rows for each 16 rows: accumulator 4 * (block * columns + j) + 2 * half + e
is row 16 * block + 8 * half + lane / 4, column 8 * j + 2 * (lane % 4) + e (mma_table.py, operand C); four lanes share a row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ingot.compiler.codegen.cuda_attention_problem import AttentionProblem, score
from ingot.compiler.codegen.cuda_kernel import DispatchKernel, divides
from ingot.compiler.codegen.values import Val
from ingot.dims import Dim

LOG2E = 1.4426950408889634


def power_of_two(k: Any, x: Val) -> Val:
    """2**x; no probability needs subnormal results."""
    return k.ex2(x, ftz=True)


def exponent_factor(p: AttentionProblem) -> float:
    """What scores are multiplied by in powers of two: where products are scored by a factor alone, that factor too."""
    return p.scale * LOG2E if p.plain_scores else LOG2E


def exponentials(k: Any, p: AttentionProblem, scores: Sequence[Val], shift: Val) -> list[Val]:
    """e**(score - shift) of scores of a row.

    Where scores are products alone, one instruction prepares the power. Others may hold a mask's lowest finite number, which
    times log2(e) would be minus infinity: there the difference comes first.
    """
    factor = exponent_factor(p)
    if not p.plain_scores:
        return [power_of_two(k, (x - shift) * factor) for x in scores]
    low = -(shift * factor)
    return [power_of_two(k, k.fma(x, factor, low)) for x in scores]


def rescaling(k: Any, p: AttentionProblem, maximum: Val, shift: Val) -> Val:
    """e**(maximum - shift): what brings `exponentials` of one shift to another, rounded as those were, so that it cancels."""
    factor = exponent_factor(p)
    return power_of_two(k, maximum * factor - shift * factor if p.plain_scores else (maximum - shift) * factor)


class SoftmaxRows:
    """Rows of queries of a thread.

    Args:
        dk: the kernel.
        p: the attention.
        batch, head: of the product.
        first: the thread's first row.
        n_keys: how many keys of the batch take part.
        blocks: of 16 rows.
        columns: keys of a tile, in eights; `columns_v`: elements of a value, in eights.
        lane: of the warp.
        tile: rows of a block: where it divides the rows, none needs a predicate.
    """

    def __init__(
        self, dk: DispatchKernel, p: AttentionProblem, batch: Val, head: Val, first: Val, n_keys: Val, blocks: int,
        columns: int, columns_v: int, lane: Val, tile: int,
    ) -> None:  # fmt: skip
        self.dk, self.k, self.p = dk, dk.k, p
        self.batch, self.head, self.lane = batch, head, lane
        self.blocks, self.columns, self.columns_v, self.tile = blocks, columns, columns_v, tile
        k = self.k
        self.n_keys, self.n_rows = n_keys, dk.size(p.rows, "i32")
        self.rows = [first + 8 * i for i in range(2 * blocks)]
        self.positions = [p.position(k, batch, head, k.min(r, self.n_rows - 1)) for r in self.rows]

    def start(self) -> tuple[list[Val], list[Val]]:
        """Maxima and sums of no keys."""
        k = self.k
        return [k.const(float("-inf"), "f32")] * (2 * self.blocks), [k.const(0.0, "f32")] * (2 * self.blocks)

    def scored(self, acc: list[Val], first: Val, masked: bool) -> list[Val]:
        """The dispatch's score of products, and minus infinity where a key does not take part."""
        k, p = self.k, self.p
        acc = list(acc)
        low = k.const(float("-inf"), "f32")
        even, stored = divides(2, p.keys, p.dispatch), self.dk.size(p.keys, "i32")
        shift = self.n_keys - self.n_rows
        for i in range(self.blocks):
            for half in range(2):
                row, position = self.rows[2 * i + half], self.positions[2 * i + half]
                last = k.min(self.n_keys - 1, row + shift) if p.causal else self.n_keys - 1
                for j in range(self.columns):
                    col = first + (8 * j + ((self.lane & 3) << 1))
                    at = 4 * (i * self.columns + j) + 2 * half
                    x = acc[at : at + 2]
                    if not p.plain_scores:
                        if even:
                            where = k.min(col, stored - 2) if masked else col
                            x = k.elements(score(self.dk, p, k.vector(x), position, where, 2))
                        else:
                            places = [k.min(col + e, stored - 1) if masked else col + e for e in range(2)]
                            x = [score(self.dk, p, y, position, c, 0) for y, c in zip(x, places, strict=True)]
                    if masked:
                        x = [k.select(col + e <= last, y, low) for e, y in enumerate(x)]
                    acc[at : at + 2] = x
        return acc

    def update(
        self, scores: list[Val], maximum: list[Val], total: list[Val]
    ) -> tuple[list[Val], list[Val], list[Val], list[Val]]:
        """(maxima, sums, factors that rescale what was accumulated before, unnormalized probabilities) with a tile's scores."""
        k = self.k
        maximum, total, out, factors = list(maximum), list(total), list(scores), []
        for r in range(2 * self.blocks):
            i, half = divmod(r, 2)
            at = [4 * (i * self.columns + j) + 2 * half + e for j in range(self.columns) for e in range(2)]
            m = self._fold(k.max, [scores[x] for x in at])
            m = k.max(maximum[r], k.warp_reduce(k.max, m, 4))
            shift = k.select(m.eq(float("-inf")), 0.0, m)
            rescale = rescaling(k, self.p, maximum[r], shift)
            for x, y in zip(at, exponentials(k, self.p, [scores[x] for x in at], shift), strict=True):
                out[x] = y
            added = self._fold(lambda x, y: x + y, [out[x] for x in at])
            total[r] = k.fma(total[r], rescale, added)
            maximum[r] = m
            factors.append(rescale)
        return maximum, total, factors, out

    @staticmethod
    def _fold(combine: Callable[[Val, Val], Val], values: list[Val]) -> Val:
        """Values combined in four chains, so that no long dependence holds up the others."""
        chains = values[:4]
        for i, x in enumerate(values[4:]):
            chains[i % 4] = combine(chains[i % 4], x)
        total = chains[0]
        for x in chains[1:]:
            total = combine(total, x)
        return total

    def rescale(self, acc: list[Val], factors: Sequence[Val]) -> list[Val]:
        """Accumulated values times their rows' factors."""
        out = list(acc)
        for r, factor in enumerate(factors):
            i, half = divmod(r, 2)
            for j in range(self.columns_v):
                for e in range(2):
                    at = 4 * (i * self.columns_v + j) + 2 * half + e
                    out[at] = out[at] * factor
        return out

    def operand(self, probabilities: Sequence[Val], narrow: str) -> list[Val]:
        """Probabilities as left operands of 16-bit type `narrow`: four registers for each 16 keys of a block."""
        k = self.k
        out = []
        for i in range(self.blocks):
            for step in range(self.columns // 2):
                for j in range(2):
                    for half in range(2):
                        at = 4 * (i * self.columns + 2 * step + j) + 2 * half
                        out.append(k.bitcast(k.cast(k.vector(list(probabilities[at : at + 2])), narrow), "i32"))
        return out

    def store(self, total: Sequence[Val], acc: Sequence[Val]) -> None:
        """Divide by the sums (of the thread's own columns), run the epilogue and store, two neighbouring elements at a time."""
        k, p = self.k, self.p
        lanes = 2 if p.depth_v % 2 == 0 else 0
        for r, row in enumerate(self.rows):
            i, half = divmod(r, 2)
            # An exact division would be a call, and calls keep ptxas from overlapping wgmma.
            scale = k.rcp(k.warp_reduce(lambda x, y: x + y, total[r], 4))
            with k.if_(True if divides(self.tile, p.rows, p.dispatch) else row < self.n_rows):
                for j in range(self.columns_v):
                    at = 4 * (i * self.columns_v + j) + 2 * half
                    x = [y * scale for y in acc[at : at + 2]]
                    col = 8 * j + ((self.lane & 3) << 1)
                    store_pair(self.dk, p, self.positions[r], col, x, lanes, exact=8 * j + 8 <= p.depth_v)

    def store_partial(
        self, split: Val, splits: int, maximum: Sequence[Val], total: Sequence[Val], acc: Sequence[Val]
    ) -> None:
        """Leave sums, maxima and weights of a split in the workspace."""
        k, p = self.k, self.p
        layout = SplitLayout(self.dk, p, splits)
        for r, row in enumerate(self.rows):
            i, half = divmod(r, 2)
            weight = k.warp_reduce(lambda x, y: x + y, total[r], 4)
            with k.if_(row < self.n_rows):
                sums, weights = layout.row(split, self.batch, self.head, row)
                with k.if_((self.lane & 3).eq(0)):
                    k.store(maximum[r], weights)
                    k.store(weight, weights.at(1, "f32"))
                for j in range(self.columns_v):
                    at = 4 * (i * self.columns_v + j) + 2 * half
                    for e in range(2):
                        col = 8 * j + ((self.lane & 3) << 1) + e
                        with k.if_(True if 8 * j + 8 <= p.depth_v else col < p.depth_v):
                            k.store(acc[at + e], sums.at(col, "f32"))


def store_pair(
    dk: DispatchKernel, p: AttentionProblem, position: Sequence[Val], col: Val, x: Sequence[Val], lanes: int, exact: bool
) -> None:
    """Run the epilogue on two neighbouring elements of a row and store its results."""
    k = dk.k
    if lanes == 2:
        with k.if_(True if exact else col < p.depth_v):
            place = [*position, col]
            for i, y in enumerate(dk.region(p.dispatch.regions[1], [k.vector(list(x))], place, p.out_domain, 2)):
                dk.store(i, y, place, 2)
        return
    for e in range(2):
        with k.if_(True if exact else col + e < p.depth_v):
            place = [*position, col + e]
            for i, y in enumerate(dk.region(p.dispatch.regions[1], [x[e]], place, p.out_domain)):
                dk.store(i, y, place)


class SplitLayout:
    """The workspace of split keys: sums [splits, batch, head, row, depth_v], then (maximum, weight) for each row."""

    def __init__(self, dk: DispatchKernel, p: AttentionProblem, splits: int) -> None:
        self.dk, self.p, self.splits = dk, p, splits
        self.heads, self.rows = dk.size(p.heads), dk.size(p.rows)
        self.per_split = dk.size(p.batch * p.heads * p.rows)

    def row(self, split: Val, batch: Val, head: Val, row: Val) -> tuple[Val, Val]:
        """Addresses of a row's sums and of its maximum and weight."""
        k = self.dk.k
        wide = [k.cast(x, "i64") for x in (split, batch, head, row)]
        at = ((wide[0] * self.dk.size(self.p.batch) + wide[1]) * self.heads + wide[2]) * self.rows + wide[3]
        base = self.dk.pointer("workspace")
        weights = base.at(self.per_split * (self.splits * self.p.depth_v), "f32")
        return base.at(at * self.p.depth_v, "f32"), weights.at(at * 2, "f32")


def split_workspace(p: AttentionProblem, splits: int) -> Dim:
    """Bytes of the workspace of split keys."""
    return 0 if splits == 1 else 4 * splits * p.batch * p.heads * p.rows * (p.depth_v + 2)
