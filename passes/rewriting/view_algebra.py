"""Views of views rearranged: two slices as one view, and slices after what they commute with."""

from __future__ import annotations

from collections.abc import Sequence

from ingot import dims
from ingot.dialects import ingot as dialect
from ingot.dialects.mlir import ir
from ingot.dims import Dim
from ingot.passes.rewriting.domains import axis_groups
from ingot.passes.rewriting.views import View, chain_of, reshape, slice_, transpose

__all__ = ["joined", "slices_last"]

Shape = tuple[Dim, ...]


def joined(first: ir.Value, second: ir.Value, before: ir.Operation) -> ir.Value | None:
    """A view [2, ...] of a tensor whose parts are `first` and `second`, which are slices of it, seen alike.

    They differ in where the slices start along one axis: halves side by side, or every other element. The view goes backwards
    where the second comes first. None where there is no such view.
    """
    one, two = chain_of(first)[1], chain_of(second)[1]
    while one and two and _alike(one[0], two[0]) and one[0].x == two[0].x:
        one, two = one[1:], two[1:]
        if one and two and one[0].x != two[0].x:  # equal views, made twice
            two[0] = View(two[0].name, one[0].x, two[0].shape, two[0].attrs)
    if not one or len(one) != len(two) or not all(map(_alike, one[1:], two[1:])):
        return None
    a, b, tail = one[0], two[0], one[1:]
    if a.name != "slice" or b.name != "slice" or a.x != b.x or a.shape != b.shape or a.attr("steps") != b.attr("steps"):
        return None
    if any(v.name == "expand" for v in tail):
        return None
    starts, steps = _starts(a), a.attr("steps")
    distances = [other - start for other, start in zip(_starts(b), starts, strict=True)]
    axes = [i for i, d in enumerate(distances) if d != 0]
    if len(axes) != 1:
        return None
    (axis,) = axes
    count, distance = a.shape[axis], distances[axis]
    if not isinstance(count, int) or not isinstance(distance, int):
        return None
    lead, rest, rank = a.shape[:axis], a.shape[axis + 1 :], len(a.shape) + 1
    if count == 1:
        along = [distance if i == axis else s for i, s in enumerate(steps)]
        place, value = axis, slice_(a.x, starts, along, (*lead, 2, *rest), before)
        value = reshape(value, (*lead, 2, 1, *rest), before)
    else:
        if steps[axis] == 1 and abs(distance) == count:
            place, pair = axis, (2, count)
        elif steps[axis] == 2 and abs(distance) == 1:
            place, pair = axis + 1, (count, 2)
        else:
            return None
        starts[axis] = starts[axis] + min(distance, 0)
        along = [1 if i == axis else s for i, s in enumerate(steps)]
        value = reshape(slice_(a.x, starts, along, (*lead, 2 * count, *rest), before), (*lead, *pair, *rest), before)
        if distance < 0:
            backwards = [-1 if i == place else 1 for i in range(rank)]
            value = slice_(value, [int(i == place) for i in range(rank)], backwards, dialect.shape_of(value), before)
    value = transpose(value, (place, *(i for i in range(rank) if i != place)), before)
    for view in tail:
        match view.name:
            case "reshape":
                value = reshape(value, (2, *view.shape), before)
            case "transpose":
                value = transpose(value, (0, *(p + 1 for p in view.attr("perm"))), before)
            case _:
                value = slice_(value, (0, *_starts(view)), (1, *view.attr("steps")), (2, *view.shape), before)
    return value


def slices_last(value: ir.Value, before: ir.Operation) -> ir.Value:
    """A view with its slices after the reshapes and transposes that leave the axes they cut alone; `value` itself where one of
    these does not."""
    whole, chain = chain_of(value)
    shape = dialect.shape_of(whole)
    starts: list[Dim] = [0] * len(shape)
    steps = [1] * len(shape)
    for view in chain:
        match view.name:
            case "slice":
                found = zip(_starts(view), starts, steps, strict=True)
                starts, steps = [at + step * start for start, at, step in found], [
                    a * b for a, b in zip(steps, view.attr("steps"), strict=True)
                ]
            case "transpose":
                perm = view.attr("perm")
                whole = transpose(whole, perm, before)
                starts, steps = [starts[p] for p in perm], [steps[p] for p in perm]
            case "reshape":
                regrouped = _regrouped(dialect.shape_of(whole), shape, view.shape, starts, steps)
                if regrouped is None:
                    return value
                full, starts, steps = regrouped
                whole = reshape(whole, full, before)
            case _:
                return value
        shape = view.shape
    return slice_(whole, starts, steps, shape, before)


def _regrouped(
    full: Shape, cut: Shape, new: Shape, starts: Sequence[Dim], steps: Sequence[int]
) -> tuple[Shape, list[Dim], list[int]] | None:
    """How a slice, to `cut`, of a tensor `full` is one of the tensor reshaped, where it is reshaped to `new` afterwards: the
    tensor's shape then, starts and steps."""
    groups = axis_groups(cut, new)
    if groups is None:
        return None
    shape, at, by = list(new), [0] * len(new), [1] * len(new)  # type: tuple[list[Dim], list[Dim], list[int]]
    for old, made in groups:
        sliced = [a for a in old if starts[a] != 0 or steps[a] != 1 or full[a] != cut[a]]
        wide = [a for a in made if new[a] != 1]
        if sliced and ([a for a in old if cut[a] != 1] != sliced or len(sliced) != 1 or len(wide) != 1):
            return None
        if sliced:
            shape[wide[0]], at[wide[0]], by[wide[0]] = full[sliced[0]], starts[sliced[0]], steps[sliced[0]]
    return tuple(shape), at, by


def _starts(view: View) -> list[Dim]:
    return [dims.parse(s) for s in view.attr("starts")]


def _alike(a: View, b: View) -> bool:
    return (a.name, a.shape, a.attrs) == (b.name, b.shape, b.attrs)
