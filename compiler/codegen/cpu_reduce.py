"""The family of `reduce` on the CPU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ingot import dims
from ingot.compiler.codegen.cpu_kernel import CpuKernel, cpu_kernel
from ingot.compiler.codegen.cpu_reduction import (
    LANE_BLOCK,
    Combine,
    Instance,
    ReductionSpace,
    for_instances,
    reduction_space,
)
from ingot.compiler.codegen.cpu_region import (
    Position,
    RegionEmitter,
    domain_strides,
    indexed_axes,
    load_elements,
    loaded_operands,
    store_elements,
)
from ingot.compiler.codegen.cpu_space import inner_axis, takes_masks, vector_lanes
from ingot.compiler.codegen.family import Emitted
from ingot.compiler.codegen.values import Val
from ingot.dims import Dim
from ingot.dispatch import Dispatch, ScalarRegion
from ingot.dtypes import DTYPES
from ingot.target import Target

_WIDE = 4  # registers of a vector where lanes lie along a kept axis


def reduction_operation(ck: CpuKernel, kind: str, dtype: str) -> Combine:
    """The operation of a reduction on accumulators of `dtype`. NaN wins over numbers, as in numpy."""
    k = ck.k
    if dtype == "i1":
        return {"max": lambda x, y: x | y, "min": lambda x, y: x & y}[kind]
    is_float = DTYPES[dtype].kind == "float"
    table: dict[str, Combine] = {
        "sum": lambda x, y: x + y,
        "prod": lambda x, y: x * y,
        "max": k.maximum if is_float else k.max,
        "min": k.minimum if is_float else k.min,
    }
    return table[kind]


def neutral(kind: str, dtype: str) -> float:
    """The value that a reduction starts from."""
    if kind in ("sum", "prod"):
        return 0 if kind == "sum" else 1
    t = DTYPES[dtype]
    if t.kind == "float":
        return float("-inf") if kind == "max" else float("inf")
    if t.kind == "bool":
        return 0 if kind == "max" else 1
    return -(1 << (t.bits - 1)) if kind == "max" else (1 << (t.bits - 1)) - 1


class ReductionRegions:
    """The two regions of a reduction over a common space: `first` over the input's domain, `second` over its own.

    Attributes:
        space: where both are evaluated.
        lanes: elements of a vector.
        masked: whether every access may be masked.
    """

    def __init__(self, dispatch: Dispatch, target: Target, axes: tuple[int, ...], statistic: str) -> None:
        x = dispatch.operands[0]
        rank = x.rank
        self.dispatch = dispatch
        self._loads = [loaded_operands(r) for r in dispatch.regions]
        operands = list(dict.fromkeys(n for loads in self._loads for n in loads))
        accesses = [x.strides, *(domain_strides_of(r.shape, r.strides) for r in dispatch.results)]
        accesses += [domain_strides(dispatch.operands[n], rank) for n in operands]
        fixed = set().union(*(indexed_axes(r) for r in dispatch.regions))
        self.space: ReductionSpace = reduction_space(x.shape, axes, accesses, fixed)
        first = 1 + len(dispatch.results)
        self.x_strides, self.result_strides = self.space.strides[0], self.space.strides[1:first]
        self._strides = dict(zip(operands, self.space.strides[first:], strict=True))
        dtypes = [x.dtype, *(r.dtype for r in dispatch.results), *(dispatch.operands[n].dtype for n in operands)]
        self.dtypes = dtypes
        self.lanes = vector_lanes(target, [*dtypes, statistic])
        if not self.space.lanes_kept:
            # What a reduction writes has no reduced axes; a normalization's results must be walked as its input is.
            count = len(self.space.kept)
            walks = [s[count:] for s in self.space.strides[:first] if any(d != 0 for d in s[count:])]
            inner = inner_axis(self.space.reduced, walks, dtypes, self.lanes, dispatch)
            self.space = replace(self.space, inner=inner)
        width = self.space.kept[-1]
        if self.space.lanes_kept and isinstance(width, int) and width >= _WIDE * self.lanes:
            # Down a column, one register's worth of each row would use a fraction of the lines and pages it touches.
            self.lanes = max(self.lanes, min(_WIDE * self.lanes, LANE_BLOCK))

    def emitter(self, ck: CpuKernel, region: ScalarRegion, axes: dict[int, int]) -> RegionEmitter:
        """One of the regions."""
        return RegionEmitter(ck, region, len(self.space.kept) + len(self.space.reduced), self._strides, axes)

    def masked(self, ck: CpuKernel) -> bool:
        """Whether tails are masked vectors rather than single elements."""
        return takes_masks(ck, self.dtypes)

    def element(self, ck: CpuKernel, at: Position) -> Val:
        """The element of the input at a position."""
        return load_elements(ck, ck.operand(0), at.index, self.x_strides, self.dispatch.operands[0].dtype, at)

    def store(self, ck: CpuKernel, values: list[Val], at: Position) -> None:
        """Store the results at a position."""
        for number, (value, result) in enumerate(zip(values, ck.dispatch.results, strict=True)):
            store_elements(ck, value, ck.result(number), at.index, self.result_strides[number], result.dtype, at)


def domain_strides_of(shape: tuple[Dim, ...], strides: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """Strides of a result over the input's domain: 0 along axes that it keeps as size 1."""
    return tuple(0 if d == 1 else s for d, s in zip(shape, strides, strict=True))


def emit(dispatch: Dispatch, target: Target, schedule: Any = None) -> Emitted:
    """See `family.emit`; there is one schedule."""
    x = dispatch.operands[0]
    axes = tuple(int(a) % max(1, x.rank) for a in dispatch.attr("axes"))
    kind = str(dispatch.attr("kind"))
    mapping, finish = dispatch.regions
    dtype = mapping.type_of(mapping.results[0])
    regions = ReductionRegions(dispatch, target, axes, "i8" if dtype == "i1" else dtype)
    space = regions.space
    with cpu_kernel(dispatch, target, dims.product(space.grid)) as ck:
        combine, start = reduction_operation(ck, kind, dtype), neutral(kind, dtype)
        map_emitter = regions.emitter(ck, mapping, space.axes)
        finish_emitter = regions.emitter(ck, finish, space.kept_axes)

        def instance(one: Instance) -> None:
            def step(at: Position, carry: list[Val]) -> list[Val]:
                (y,) = map_emitter([regions.element(ck, at)], at)
                return [combine(carry[0], one.keep(at, y, start))]

            (total,) = one.fold([one.splat(start, dtype)], step)
            regions.store(ck, finish_emitter([one.across(total, combine)], one.at), one.at)

        for_instances(ck, space, regions.lanes, instance, regions.masked(ck))
        return ck.emitted(dims.product(x.shape))
