"""Rows of a domain spread over threads: what kernels that reduce along rows share.

A row's elements lie in registers, `lanes` neighbours a vector, vector v of a row with thread v % threads. Reductions combine a
thread's own elements first, then lanes by shuffles, then warps through shared memory, always in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ingot.compiler.codegen.cuda_domain import PartedDomain
from ingot.compiler.codegen.cuda_kernel import DispatchKernel, vector_lanes
from ingot.compiler.codegen.values import Val
from ingot.dispatch import Dispatch, TensorArg

Combine = Callable[[Val, Val], Val]


def widest(*tensors: TensorArg) -> int:
    """Lanes of vectors of which the narrowest of some tensors takes 16 bytes; at most 8."""
    return min(8, 16 // min(t.type.bytes for t in tensors))


def inner_lanes(d: Dispatch, tensors: Sequence[TensorArg]) -> int:
    """Lanes of vectors along the last axis that all of `tensors` can take in accesses of at most 16 bytes."""
    lanes = 16 // min(t.type.bytes for t in tensors)
    for t in tensors:
        lanes = math.gcd(lanes, vector_lanes(t, d, limit=lanes * t.type.bytes))
    return min(8, lanes)


@dataclass(frozen=True)
class Element:
    """A vector of a row in registers: its position along the inner axes, whether it lies in the row, its value."""

    position: list[Val]
    valid: Val | None
    value: Val


class RowWalk:
    """A block's walk over the elements of one row, or of a chunk of it.

    Args:
        dk: the kernel; its dispatch is `domain.dispatch`.
        domain: the domain.
        lanes: elements of a vector.
        threads: threads that share a row: 32, or the block's.
        vectors: vectors a thread holds.
        lane_axes: trailing axes over which a vector runs.
    """

    def __init__(
        self, dk: DispatchKernel, domain: PartedDomain, lanes: int, threads: int, vectors: int, lane_axes: int = 1
    ) -> None:
        self.dk, self.k, self.domain = dk, dk.k, domain
        dk.lane_axes, dk.whole_vectors = lane_axes, True
        self.lanes, self.threads, self.vectors = lanes, threads, vectors
        self.thread = dk.k.thread_id() & (threads - 1) if threads == 32 else dk.k.thread_id()
        self._slots = 0

    def load(self, row: Sequence[Val], first: Val, cols: Val) -> list[Element]:
        """The mapped elements of a row from column `first` on, up to column `cols`; beyond it, copies of the last vector.

        `row`: position along the outer axes; `first`, `cols`: of one integer type, multiples of `lanes`.
        """
        k, d, out = self.k, self.dk.d, []
        lanes = self.lanes if self.lanes > 1 else 0
        raw = []
        for i in range(self.vectors):
            col = first + (k.cast(self.thread, first.t) + i * self.threads) * self.lanes
            exact = col.const is not None or self._covers(first, cols, i)
            valid = None if exact else col < cols
            at = col if exact else k.min(col, cols - self.lanes)
            position = [*row, *self.dk.split(at, self.domain.shapes[1], self.dk.lane_axes - 1)]
            raw.append((position, valid, self.dk.load(0, position, self.domain.domain, lanes)))
        for position, valid, x in raw:
            (value,) = self.dk.region(d.regions[0], [x], position, self.domain.domain, lanes)
            out.append(Element(position, valid, value))
        return out

    def _covers(self, first: Val, cols: Val, i: int) -> bool:
        return (
            first.const is not None and cols.const is not None
            and first.const + (i + 1) * self.threads * self.lanes <= cols.const
        )  # fmt: skip

    def reduce(self, elements: Sequence[Element], map_: Callable[[Val], Val], combine: Combine, neutral: float) -> Val:
        """`map_` of every valid element, combined; all threads of the row get the result."""
        total: Val | None = None
        for e in elements:
            x = map_(e.value)
            if e.valid is not None:
                x = self.k.select(e.valid, x, neutral)
            total = x if total is None else combine(total, x)
        assert total is not None
        if total.t.kind == "vector":
            total = fold(self.k, total, combine)
        return self.all_threads(total, combine)

    def all_threads(self, x: Val, combine: Combine) -> Val:
        """`x` of the row's threads combined, in every thread."""
        k = self.k
        x = k.warp_reduce(combine, x)
        warps = self.threads // 32
        if warps == 1:
            return x
        size = x.t.nbytes
        slots = k.static_shared(warps * size, name=f"reduce{self._slots}")
        self._slots += 1
        with k.if_((self.thread & 31).eq(0)):
            k.store(x, slots.at(self.thread >> 5, x.t))
        k.barrier()
        total = k.load(slots, x.t)
        for i in range(1, warps):
            total = combine(total, k.load(slots.at(i, x.t), x.t))
        return total

    def store(self, elements: Sequence[Element], normalized: Callable[[Val], Val], *statistics: Val) -> None:
        """Run the last region on `normalized` of each element, and on the statistics where it takes them; store the results."""
        k, d = self.k, self.dk.d
        lanes = self.lanes if self.lanes > 1 else 0
        region = d.regions[-1]
        more = [k.broadcast(x, lanes) if lanes else x for x in statistics] if len(region.args) > 1 else []
        for e in elements:
            with k.if_(True if e.valid is None else e.valid):
                values = self.dk.region(region, [normalized(e.value), *more], e.position, self.domain.domain, lanes)
                for i, x in enumerate(values):
                    self.dk.store(i, x, e.position, lanes)


def fold(k: object, x: Val, combine: Combine) -> Val:
    """A vector's lanes combined in order of halves."""
    while x.t.lanes > 1:
        half = x.t.lanes // 2
        x = combine(k.slice(x, 0, half), k.slice(x, half, half))  # type: ignore[attr-defined]
    return k.extract(x, 0)  # type: ignore[attr-defined]
