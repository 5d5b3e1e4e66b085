"""Reductions on the CPU: the loops that `reduce` and `normalize` share.

The axes of the domain are kept or reduced; each kind is merged for itself. Lanes lie along the axis that is contiguous in the
input. Where that is a reduced axis, an instance is one position of the kept axes, and lanes are folded at the end; where it
is a kept one, a vector holds as many instances as it has lanes, and nothing is folded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ingot import dims
from ingot.compiler.codegen.cpu_kernel import CpuKernel
from ingot.compiler.codegen.cpu_region import Position
from ingot.compiler.codegen.cpu_space import (
    ITEM_ELEMENTS,
    clipped,
    collapse,
    for_lanes,
    order_by_result,
    tail_mask,
)
from ingot.compiler.codegen.values import Val
from ingot.dims import Dim

LANE_BLOCK = 64  # elements of the kept lane axis in a work item

Combine = Callable[[Val, Val], Val]


@dataclass(frozen=True)
class ReductionSpace:
    """A domain cut into kept and reduced axes.

    Attributes:
        kept, reduced: sizes of the merged axes of either kind; at least one each.
        axes: which axis of (kept..., reduced...) an original one became.
        strides: for each access, its strides over (kept..., reduced...).
        lanes_kept: whether lanes lie along the last kept axis; else along the last reduced one.
        grid: counts of a work item's coordinates.
        rows: kept positions of a work item where lanes are reduced.
        inner: size of the last reduced axis where lanes run over it and the one before (`cpu_region.Position`), else 1.
    """

    kept: tuple[Dim, ...]
    reduced: tuple[Dim, ...]
    axes: dict[int, int]
    strides: tuple[tuple[Dim, ...], ...]
    lanes_kept: bool
    grid: tuple[Dim, ...]
    rows: Dim
    inner: int = 1

    @property
    def walked(self) -> tuple[Dim, ...]:
        """Sizes of the reduced axes, with those over which lanes run made one."""
        return self.reduced if self.inner == 1 else (*self.reduced[:-2], self.reduced[-2] * self.inner)

    @property
    def kept_axes(self) -> dict[int, int]:
        """`axes`, of kept axes only."""
        return {original: axis for original, axis in self.axes.items() if axis < len(self.kept)}

    @property
    def count(self) -> Dim:
        """Elements that are reduced to one."""
        return dims.product(self.reduced)


def reduction_space(
    shape: Sequence[Dim], reduced: Iterable[int], accesses: Sequence[Sequence[Dim]], fixed: Iterable[int]
) -> ReductionSpace:
    """The space of a reduction over `shape`; the first of `accesses` is the input's, which decides where lanes lie."""
    fixed, gone = set(fixed), set(reduced)
    order = order_by_result(shape, accesses[0])
    kept = collapse(shape, accesses, fixed, [a for a in order if a not in gone])
    rest = collapse(shape, accesses, fixed, [a for a in order if a in gone])
    lanes_kept = bool(order) and order[-1] not in gone and kept.sizes != (1,)
    axes = {**kept.axes, **{original: len(kept.sizes) + a for original, a in rest.axes.items()}}
    strides = tuple((*a, *b) for a, b in zip(kept.strides, rest.strides, strict=True))
    rows: Dim = 1
    if lanes_kept:
        grid = (*kept.sizes[:-1], dims.ceildiv(kept.sizes[-1], LANE_BLOCK))
    else:
        rows = dims.maximum(1, dims.floordiv(ITEM_ELEMENTS, dims.maximum(1, dims.product(rest.sizes))))
        grid = (dims.ceildiv(dims.product(kept.sizes), rows),)
    return ReductionSpace(kept.sizes, rest.sizes, axes, strides, lanes_kept, grid, rows)


class Instance:
    """One position of the kept axes (or a vector of them) being reduced.

    Attributes:
        at: the position with the reduced axes at 0: where results of a reduction go.
    """

    def __init__(self, ck: CpuKernel, space: ReductionSpace, kept: tuple[Val, ...], lanes: int, mask: Val | None) -> None:
        self.ck, self.space, self._lanes = ck, space, lanes
        self._kept = kept
        across = space.lanes_kept and lanes
        zero = ck.k.const(0, "i64")
        index = (*kept, *(zero for _ in space.reduced))
        self.at = Position(index, len(kept) - 1 if across else -1, lanes if across else 0, mask)

    @property
    def value_lanes(self) -> int:
        """Lanes of accumulators; 0 for scalars."""
        return self._lanes

    def splat(self, value: float, dtype: str) -> Val:
        """A constant accumulator."""
        k = self.ck.k
        return k.const(value, k.vector_of(dtype, self._lanes) if self._lanes else dtype)

    def fold(self, start: list[Val], step: Callable[[Position, list[Val]], list[Val]]) -> list[Val]:
        """Carry values through all reduced positions; masked lanes must be made neutral by `step` (see `keep`)."""
        k, space = self.ck.k, self.space
        last = len(space.walked) - 1

        def nest(axis: int, index: tuple[Val, ...], carry: list[Val]) -> list[Val]:
            size = self.ck.dim(space.walked[axis])
            if axis == last and not space.lanes_kept:
                return self._fold_lanes(index, size, carry, step)
            with k.for_(0, size, carry=carry) as loop:
                inner = (*index, loop.iv)
                done = step(self._inside(inner), loop.carry) if axis == last else nest(axis + 1, inner, loop.carry)
                loop.yield_(done)
            return loop.results

        return nest(0, (), start)

    def _inside(self, index: tuple[Val, ...]) -> Position:
        return Position((*self._kept, *index), self.at.lane_axis, self.at.lanes, self.at.mask)

    def _along(self, index: tuple[Val, ...], i: Val, lanes: int, mask: Val | None) -> Position:
        """The position at place `i` of the axis (or axes) that lanes run over."""
        inner = self.space.inner
        index = (*index, i) if inner == 1 else (*index, i // inner, i % inner)
        return Position(index, len(index) - 1 if lanes else -1, lanes, mask, inner if lanes else 1)

    def _fold_lanes(
        self, index: tuple[Val, ...], size: Val, carry: list[Val], step: Callable[[Position, list[Val]], list[Val]]
    ) -> list[Val]:
        ck, k, lanes = self.ck, self.ck.k, self._lanes
        main = size // lanes * lanes
        if main.const is None or main.const > 0:
            with k.for_(0, main, lanes, carry=carry) as loop:
                loop.yield_(step(self._along((*self._kept, *index), loop.iv, lanes, None), loop.carry))
            carry = loop.results
        if main.const is not None and main.const == size.const:
            return carry
        with k.if_else(main < size, results=carry) as tail:
            with tail.then:
                mask = tail_mask(ck, size - main, lanes)
                tail.yield_(step(self._along((*self._kept, *index), main, lanes, mask), carry))
            with tail.else_:
                tail.yield_(carry)
        return tail.results

    def each(self, body: Callable[[Position], None], masked: bool) -> None:
        """Visit all reduced positions."""
        k, space = self.ck.k, self.space
        last = len(space.walked) - 1

        def nest(axis: int, index: tuple[Val, ...]) -> None:
            size = self.ck.dim(space.walked[axis])
            if axis == last and not space.lanes_kept:

                def vector(i: Val, lanes: int, mask: Val | None) -> None:
                    body(self._along((*self._kept, *index), i, lanes, mask))

                for_lanes(self.ck, k.const(0, "i64"), size, self._lanes, vector, masked=masked)
                return
            with k.for_(0, size) as loop:
                inner = (*index, loop.iv)
                if axis == last:
                    body(self._inside(inner))
                else:
                    nest(axis + 1, inner)

        nest(0, ())

    def keep(self, at: Position, value: Val, neutral: float) -> Val:
        """`value` as a vector (or scalar) of accumulators, with `neutral` in lanes that do not exist."""
        k = self.ck.k
        if at.lanes and value.t.kind != "vector":
            value = k.broadcast(value, at.lanes)
        if at.mask is None or self.space.lanes_kept:
            return value
        return k.select(at.mask, value, k.const(neutral, value.t))

    def across(self, value: Val, combine: Combine) -> Val:
        """An accumulator's final value: lanes folded pairwise, halves against halves, where they lie along a reduced axis."""
        if self.space.lanes_kept:
            return value
        k = self.ck.k
        while value.t.lanes > 1:
            half = value.t.lanes // 2
            value = combine(k.slice(value, 0, half), k.slice(value, half, half))
        return k.extract(value, 0)


def for_instances(
    ck: CpuKernel, space: ReductionSpace, lanes: int, body: Callable[[Instance], None], masked: bool
) -> None:
    """Emit `body` for the instances of all work items."""
    k = ck.k
    with ck.items() as item:
        if space.lanes_kept:
            *outer, block = ck.split(item, space.grid)
            start, stop = clipped(ck, block, LANE_BLOCK, space.kept[-1])

            def vector(i: Val, n: int, mask: Val | None) -> None:
                body(Instance(ck, space, (*outer, i), n, mask))

            for_lanes(ck, start, stop, lanes, vector, masked=masked)
        else:
            first, last = clipped(ck, item, space.rows, dims.product(space.kept))
            with k.for_(first, last) as loop:
                body(Instance(ck, space, tuple(ck.split(loop.iv, space.kept)), lanes, None))
