"""Fewer axes for the same work: neighbouring axes of an iteration domain that every tensor walks as one become one.

Rectangular walks over memory (pointwise, move, and the epilogues of row-wise kernels) cost an integer division an axis; most
dispatches are one or two axes once collapsed, and then need none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ingot import dims
from ingot.dims import Dim
from ingot.dispatch import Dispatch, ScalarInst, ScalarRegion, TensorArg


def expand(t: TensorArg, domain: Sequence[Dim]) -> TensorArg:
    """`t` with one axis for each of `domain`'s: axes it lacks, and axes of size 1 against others, repeat (stride 0).

    Raises ValueError for an axis whose size is neither 1 nor known to be the domain's.
    """
    skip = len(domain) - t.rank
    shape, strides = list(domain), [0] * len(domain)  # type: list[Dim], list[Dim]
    for axis, (d, s) in enumerate(zip(t.shape, t.strides, strict=True)):
        if d == domain[skip + axis]:
            strides[skip + axis] = s
        elif d != 1:
            raise ValueError(f"axis {axis} of a tensor has size {d}, the domain {domain[skip + axis]}")
    return replace(t, shape=tuple(shape), strides=tuple(strides))


def groups_of(domain: Sequence[Dim], tensors: Sequence[TensorArg], fixed: Sequence[int] = ()) -> list[list[int]]:
    """Runs of neighbouring axes that all of `tensors` (of the domain's axes) walk as one; axes in `fixed` stay alone.

    Axes of size 1 vanish, unless all are.
    """
    out: list[list[int]] = []
    for axis, d in enumerate(domain):
        if d == 1 and axis not in fixed:
            continue
        last = out[-1][-1] if out else -1
        joined = (
            out
            and axis not in fixed
            and last not in fixed
            and all(t.strides[last] == t.strides[axis] * d for t in tensors)
        )
        if joined:
            out[-1].append(axis)
        else:
            out.append([axis])
    return out or [[len(domain) - 1]] if domain else []


def merge(t: TensorArg, groups: Sequence[Sequence[int]]) -> TensorArg:
    """`t` with each group of axes made one."""
    shape, strides = [], []
    for group in groups:
        size: Dim = 1
        for axis in group:
            size = size * t.shape[axis]
        shape.append(size)
        strides.append(t.strides[group[-1]])
    return replace(t, shape=tuple(shape), strides=tuple(strides))


def uses_index(region: ScalarRegion) -> set[int]:
    """Axes whose positions a region asks for."""
    return {inst.attr("axis") for inst in region.insts if inst.op == "index"}


def collapse_domain(dispatch: Dispatch, streamed: Sequence[int] = ()) -> Dispatch:
    """The dispatch over as few axes as its results, its regions' loads and the operands `streamed` allow.

    The domain is the results' shape; tensors read at computed indices keep their axes. Where an operand cannot be expanded to
    the domain (a size that may be 1), the dispatch comes back as it is.
    """
    domain = dispatch.results[0].shape
    loaded = set(streamed)
    at: set[int] = set()
    for region in dispatch.regions:
        loaded |= {i.attr("operand") for i in region.insts if i.op == "load"}
        at |= {i.attr("operand") for i in region.insts if i.op == "load_at"}
    if loaded & at:
        return dispatch
    try:
        wide = {i: expand(dispatch.operands[i], domain) for i in loaded}
    except ValueError:
        return dispatch
    fixed = set().union(*(uses_index(r) for r in dispatch.regions)) if dispatch.regions else set()
    groups = groups_of(domain, [*wide.values(), *dispatch.results], sorted(fixed))
    number = {axis: g for g, group in enumerate(groups) for axis in group}

    def inst(i: ScalarInst) -> ScalarInst:
        return replace(i, attrs=(("axis", number[i.attr("axis")]),)) if i.op == "index" else i

    return replace(
        dispatch,
        operands=tuple(merge(wide[i], groups) if i in wide else t for i, t in enumerate(dispatch.operands)),
        results=tuple(merge(t, groups) for t in dispatch.results),
        regions=tuple(replace(r, insts=tuple(map(inst, r.insts))) for r in dispatch.regions),
    )


@dataclass(frozen=True)
class PartedDomain:
    """A dispatch over a reordered domain of several parts, each merged as far as its tensors allow.

    Attributes:
        dispatch: operands walked over the domain, and results, have the domain's axes.
        shapes: sizes of each part's axes.
    """

    dispatch: Dispatch
    shapes: tuple[tuple[Dim, ...], ...]

    @property
    def domain(self) -> tuple[Dim, ...]:
        return tuple(d for shape in self.shapes for d in shape)


def parted_domain(
    dispatch: Dispatch, domain: Sequence[Dim], parts: Sequence[Sequence[int]], reduced: Sequence[int] = (),
    streamed: Sequence[int] = (0,),
) -> PartedDomain:
    """The dispatch with the axes of `domain` ordered by `parts`; the operands `streamed` are walked over it.

    Args:
        dispatch: its first region's domain is `domain`.
        domain: sizes.
        parts: axes of each part; every axis once.
        reduced: parts along which results have size 1.
        streamed: operands that the kernel reads at the current position, besides those that regions load.

    Raises NotImplementedError where an operand's size along an axis may turn out to be 1.
    """
    order = [axis for part in parts for axis in part]
    shape = [domain[i] for i in order]

    def walk(t: TensorArg) -> TensorArg:
        wide = expand(t, domain)
        return replace(t, shape=tuple(shape), strides=tuple(wide.strides[i] for i in order))

    loaded = set(streamed) | {i.attr("operand") for r in dispatch.regions for i in r.insts if i.op == "load"}
    at = {i.attr("operand") for r in dispatch.regions for i in r.insts if i.op == "load_at"}
    if loaded & at:
        raise NotImplementedError(f"{dispatch.root}: an operand is read both at the current and at computed indices")
    try:
        wide = {i: walk(dispatch.operands[i]) for i in sorted(loaded)}
        results = [walk(t) for t in dispatch.results]
    except ValueError as error:
        raise NotImplementedError(f"{dispatch.root}: {error}") from None
    fixed = {order.index(a) for r in dispatch.regions for a in uses_index(r)}
    groups: list[list[int]] = []
    counts = []
    begin = 0
    for number, part in enumerate(parts):
        end = begin + len(part)
        tensors = [*wide.values(), *([] if number in reduced else results)]
        found = _part(shape, tensors, fixed, begin, end) if part else []
        groups += found
        counts.append(len(found))
        begin = end
    number_of = {axis: g for g, group in enumerate(groups) for axis in group}

    def inst(i: ScalarInst) -> ScalarInst:
        return replace(i, attrs=(("axis", number_of[order.index(i.attr("axis"))]),)) if i.op == "index" else i

    merged = replace(
        dispatch,
        operands=tuple(merge(wide[i], groups) if i in wide else t for i, t in enumerate(dispatch.operands)),
        results=tuple(merge(t, groups) for t in results),
        regions=tuple(replace(r, insts=tuple(map(inst, r.insts))) for r in dispatch.regions),
    )
    sizes = [dims.product(shape[axis] for axis in group) for group in groups]
    shapes = []
    for count in counts:
        shapes.append(tuple(sizes[:count]))
        sizes = sizes[count:]
    return PartedDomain(merged, tuple(shapes))


def _part(
    shape: Sequence[Dim], tensors: Sequence[TensorArg], fixed: set[int], begin: int, end: int
) -> list[list[int]]:
    """Groups of the axes [begin, end)."""
    local = [replace(t, shape=t.shape[begin:end], strides=t.strides[begin:end]) for t in tensors]
    groups = groups_of(shape[begin:end], local, [a - begin for a in fixed if begin <= a < end])
    return [[begin + axis for axis in group] for group in groups]


def row_domain(dispatch: Dispatch, domain: Sequence[Dim], inner: Sequence[int]) -> PartedDomain:
    """The dispatch over rows, and within them the axes `inner`, in order (see `parted_domain`)."""
    return parted_domain(dispatch, domain, ([i for i in range(len(domain)) if i not in inner], inner))
