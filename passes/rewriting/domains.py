"""Running the same elementwise computation over a domain of another form.

A view of a pointwise operation's result is a pointwise operation over views of what it loads, and a pointwise operation over a
view of a tensor is, where the view can be undone, a view of a pointwise operation over the tensor. A `DomainMap` says how: what
each loaded tensor, and each `index`, becomes in the new domain.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from ingot import dims
from ingot.dialects import ingot as dialect
from ingot.dialects.layout import layout_of
from ingot.dialects.mlir import ir
from ingot.dims import Dim
from ingot.dispatch import ScalarInst, ScalarRegion
from ingot.passes.rewriting import views
from ingot.passes.rewriting.ops import operand_number
from ingot.passes.rewriting.scalar_regions import RegionBuilder

__all__ = ["DomainMap", "Permutation", "Regrouping", "Repetition", "Slicing", "axis_groups", "inverse", "map_region", "of_view"]

Shape = tuple[Dim, ...]


class DomainMap(ABC):
    """A change of an elementwise computation's domain."""

    @property
    @abstractmethod
    def shape(self) -> Shape:
        """The new domain."""

    @abstractmethod
    def tensor(self, x: ir.Value, before: ir.Operation) -> ir.Value | None:
        """What a `load` of `x` loads in the new domain, or None where no view does it."""

    @abstractmethod
    def index(self, axis: int, builder: RegionBuilder) -> int | None:
        """The position along `axis` of the old domain, computed in the new one, or None."""


@dataclass(frozen=True)
class Permutation(DomainMap):
    """Axis i of the new domain is axis perm[i] of the old domain `old`."""

    old: Shape
    perm: tuple[int, ...]

    @property
    def shape(self) -> Shape:
        return tuple(self.old[p] for p in self.perm)

    def tensor(self, x: ir.Value, before: ir.Operation) -> ir.Value | None:
        return views.transpose(_full_rank(x, len(self.old), before), self.perm, before)

    def index(self, axis: int, builder: RegionBuilder) -> int | None:
        return builder.emit("index", type="i64", axis=self.perm.index(axis))


@dataclass(frozen=True)
class Regrouping(DomainMap):
    """The same elements in the same order; axes merged and split as `groups` says (`axis_groups`).

    Attributes:
        computed: positions along axes that are merged are computed by divisions, and what is read backwards is read at these.
    """

    old: Shape
    new: Shape
    groups: tuple[tuple[range, range], ...]
    computed: bool = False

    @property
    def shape(self) -> Shape:
        return self.new

    def tensor(self, x: ir.Value, before: ir.Operation) -> ir.Value | None:
        x = _full_rank(x, len(self.old), before)
        sizes = dialect.shape_of(x)
        shape: list[Dim] = [1] * len(self.new)
        for old, new in self.groups:
            if all(sizes[a] == 1 for a in old):
                continue
            if any(sizes[a] != self.old[a] for a in old):
                return None  # repeated along some of the merged axes only
            for a in new:
                shape[a] = self.new[a]
        regrouped = views.reshape(x, shape, before)
        # A copy of what is read backwards would cost more than what is fused saves.
        return None if _is_reversed(x) and layout_of(regrouped) is None else regrouped

    def index(self, axis: int, builder: RegionBuilder) -> int | None:
        for old, new in self.groups:
            if axis in old and self.old[axis] != 1:
                is_merged = any(self.old[a] != 1 for a in old if a != axis)
                if is_merged and not self.computed:
                    return None
                position = _linear(self.new, new, builder)
                return self._digit(position, axis, old, builder) if is_merged else position
        return builder.const(0, "i64")

    def _digit(self, position: int, axis: int, group: range, builder: RegionBuilder) -> int | None:
        """The position along `axis` of a row-major position in the axes of `group`."""
        inner = dims.product(self.old[a] for a in group if a > axis)
        if inner != 1:
            position = _divided("divui", position, inner, builder)
        is_first = all(self.old[a] == 1 for a in group if a < axis)
        return position if is_first else _divided("remui", position, self.old[axis], builder)


@dataclass(frozen=True)
class Slicing(DomainMap):
    """Element i of the new domain is element starts + i*steps of the old domain."""

    old: Shape
    new: Shape
    starts: tuple[Dim, ...]
    steps: tuple[int, ...]

    @property
    def shape(self) -> Shape:
        return self.new

    def tensor(self, x: ir.Value, before: ir.Operation) -> ir.Value | None:
        sizes = dialect.shape_of(x)
        lead = len(self.old) - len(sizes)
        starts, steps, shape = [], [], []
        for i, size in enumerate(sizes):
            whole = size == 1 and self.old[lead + i] != 1
            if not whole and size != self.old[lead + i]:
                return None
            starts.append(0 if whole else self.starts[lead + i])
            steps.append(1 if whole else self.steps[lead + i])
            shape.append(1 if whole else self.new[lead + i])
        return views.slice_(x, starts, steps, shape, before)

    def index(self, axis: int, builder: RegionBuilder) -> int | None:
        position = builder.emit("index", type="i64", axis=axis)
        position = builder.emit("muli", position, builder.const(self.steps[axis], "i64"))
        return builder.emit("addi", position, builder.emit("dim", type="i64", dim=str(self.starts[axis])))


@dataclass(frozen=True)
class Repetition(DomainMap):
    """The old domain `old`, right-aligned with the new one, repeated along its axes of size 1."""

    old: Shape
    new: Shape

    @property
    def shape(self) -> Shape:
        return self.new

    def tensor(self, x: ir.Value, before: ir.Operation) -> ir.Value | None:
        return x  # loads repeat by themselves

    def index(self, axis: int, builder: RegionBuilder) -> int | None:
        if self.old[axis] == 1:
            return builder.const(0, "i64")
        return builder.emit("index", type="i64", axis=axis + len(self.new) - len(self.old))


def _linear(shape: Shape, axes: range, builder: RegionBuilder) -> int:
    """The row-major position along several axes of the domain `shape`."""
    total: int | None = None
    stride: Dim = 1
    for a in reversed(axes):
        if shape[a] != 1:
            term = builder.emit("muli", builder.emit("index", type="i64", axis=a), _size(stride, builder))
            total = term if total is None else builder.emit("addi", term, total)
        stride = stride * shape[a]
    return builder.const(0, "i64") if total is None else total


def _divided(op: str, position: int, size: Dim, builder: RegionBuilder) -> int:
    """The quotient (`divui`) or remainder (`remui`) by a size; shifts and masks where it is a power of two."""
    if isinstance(size, int) and size > 0 and size & (size - 1) == 0:
        by = size - 1 if op == "remui" else size.bit_length() - 1
        return builder.emit("andi" if op == "remui" else "shrui", position, builder.const(by, "i64"))
    return builder.emit(op, position, _size(size, builder))


def _size(d: Dim, builder: RegionBuilder) -> int:
    return builder.emit("dim", type="i64", dim=str(d))


def _is_reversed(x: ir.Value) -> bool:
    """True for a view that reads an axis of memory backwards."""
    found = layout_of(x)
    return found is not None and any(isinstance(s, int) and s < 0 for s in found[1].strides)


def _full_rank(x: ir.Value, rank: int, before: ir.Operation) -> ir.Value:
    shape = dialect.shape_of(x)
    return views.reshape(x, (*(1,) * (rank - len(shape)), *shape), before)


def axis_groups(old: Sequence[Dim], new: Sequence[Dim]) -> tuple[tuple[range, range], ...] | None:
    """The finest partition of two shapes of equally many elements into runs of axes with equal products.

    Axes of size 1 join the run before them, or the first one. None where the products are not known to be equal.
    """
    ends: dict[Dim, int] = {}
    product: Dim = 1
    for j, d in enumerate(new):
        product = product * d
        if d != 1:
            ends.setdefault(product, j + 1)
    groups: list[tuple[range, range]] = []
    i = k = 0
    product = 1
    for j, d in enumerate(old):
        product = product * d
        end = ends.get(product)
        if d != 1 and end is not None and end > k:
            groups.append((range(i, j + 1), range(k, end)))
            i, k = j + 1, end
    if any(d != 1 for d in (*old[i:], *new[k:])):
        return None
    if groups:  # trailing axes of size 1
        groups[-1] = (range(groups[-1][0].start, len(old)), range(groups[-1][1].start, len(new)))
    return tuple(groups)


def of_view(view: views.View, computed: bool = False) -> DomainMap | None:
    """The map with which a view of a computation's result becomes the computation; None where there is none.

    `computed`: see `Regrouping`.
    """
    old = dialect.shape_of(view.x)
    match view.name:
        case "transpose":
            return Permutation(old, view.attr("perm"))
        case "reshape":
            groups = axis_groups(old, view.shape)
            return None if groups is None else Regrouping(old, view.shape, groups, computed)
        case "slice":
            return Slicing(old, view.shape, tuple(map(dims.parse, view.attr("starts"))), view.attr("steps"))
    aligned = zip(reversed(old), reversed(view.shape), strict=False)
    return Repetition(old, view.shape) if all(a in (1, b) for a, b in aligned) else None


def inverse(view: views.View) -> DomainMap | None:
    """The map that takes a computation over a view's domain to the domain of what is viewed; None where there is none."""
    old = dialect.shape_of(view.x)
    if view.name == "transpose":
        perm = view.attr("perm")
        return Permutation(view.shape, tuple(perm.index(i) for i in range(len(perm))))
    if view.name == "reshape":
        groups = axis_groups(view.shape, old)
        return None if groups is None else Regrouping(view.shape, old, groups)
    return None


def map_region(
    change: DomainMap, region: ScalarRegion, tensors: Sequence[ir.Value], before: ir.Operation
) -> tuple[ScalarRegion, list[ir.Value]] | None:
    """A region over the new domain, and the tensors that it loads; views that it needs are created before `before`.

    None where the region reads something that has no counterpart; views created till then are left unused.
    """
    builder = RegionBuilder(region.args)
    out = list(tensors)

    def read_at(x: ir.Value, dtype: str) -> int:
        if not isinstance(change, Regrouping) or not change.computed or not _is_reversed(x):
            raise _NoCounterpartError
        sizes = dialect.shape_of(x)
        lead = len(change.old) - len(sizes)
        indices = [builder.const(0, "i64") if d == 1 else change.index(lead + a, builder) for a, d in enumerate(sizes)]
        if any(i is None for i in indices):
            raise _NoCounterpartError
        return builder.emit("load_at", *(i for i in indices if i is not None), type=dtype, operand=operand_number(out, x))

    def counterpart(inst: ScalarInst, args: tuple[int, ...]) -> int | None:
        if inst.op == "load":
            x = tensors[inst.attr("operand")]
            tensor = change.tensor(x, before)
            if tensor is None:
                return read_at(x, inst.type)
            return builder.emit("load", type=inst.type, operand=operand_number(out, tensor))
        if inst.op == "index":
            position = change.index(inst.attr("axis"), builder)
            if position is None:
                raise _NoCounterpartError
            return position
        return None

    try:
        results = builder.inline(region, range(len(region.args)), replace=counterpart)
    except _NoCounterpartError:
        return None
    return builder.finish(results), out


def map_through(
    changes: Sequence[DomainMap], region: ScalarRegion, tensors: Sequence[ir.Value], before: ir.Operation
) -> tuple[ScalarRegion, list[ir.Value]] | None:
    """A region over the domain that changes lead to, one after the other; see `map_region`."""
    mapped: tuple[ScalarRegion, list[ir.Value]] | None = (region, list(tensors))
    for change in changes:
        if mapped is not None:
            mapped = map_region(change, *mapped, before)
    return mapped


class _NoCounterpartError(Exception):
    """An instruction has no counterpart in the new domain."""
