"""Fewer axes for the same work: neighbouring axes of an iteration domain that every tensor walks as one become one.

Rectangular walks over memory (pointwise, move, and the epilogues of row-wise kernels) cost an integer division an axis; most
dispatches are one or two axes once collapsed, and then need none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

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

    The domain is the results' shape; tensors read at computed indices keep their axes. Where an operand cannot be expanded to the
    domain (a size that may be 1), the dispatch comes back as it is.
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
