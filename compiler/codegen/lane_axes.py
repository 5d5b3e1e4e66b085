"""Vectors whose lanes run over several trailing axes of an iteration domain.

A domain ends in a short axis where some tensor walks it in a way of its own: pairs [..., D/2, 2] of which one operand is read
backwards (a rotary embedding's partners). A vector of 8 lanes covers four pairs then. Whatever lies in memory as the domain
runs is one access; what lies in another order within the same run of memory is one access and a shuffle of registers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ingot.dims import Dim
from ingot.dispatch import Dispatch, TensorArg, known_multiple


def covered_axes(domain: Sequence[Dim], lanes: int, dispatch: Dispatch) -> int | None:
    """How many trailing axes of `domain` vectors of `lanes` neighbours run over, all but the first of these whole.

    None where rows of these axes are not known to be whole vectors.
    """
    rest = lanes
    for count, size in enumerate(reversed(domain), 1):
        if known_multiple(size, dispatch) % rest == 0:
            return count
        if not isinstance(size, int) or size == 0 or rest % size:
            return None
        rest //= size
    return None


def lane_positions(domain: Sequence[Dim], lanes: int, axes: int) -> list[tuple[int, ...]]:
    """For every lane its position along the last `axes` axes, from the vector's own."""
    inner = [int(str(d)) for d in domain[len(domain) - axes + 1 :]]
    out = []
    for lane in range(lanes):
        position: list[int] = []
        for size in reversed(inner):
            position.insert(0, lane % size)
            lane //= size
        out.append((lane, *position))
    return out


def merged_rows(t: TensorArg, axes: int) -> TensorArg:
    """`t` with its last `axes` axes made one where they lie one after the other in memory, else as it is."""
    if axes < 2 or t.rank < axes:
        return t
    shape, strides = t.shape[-axes:], t.strides[-axes:]
    size, stride = shape[-1], strides[-1]
    for d, s in zip(reversed(shape[:-1]), reversed(strides[:-1]), strict=True):
        if s != stride * size:
            return t
        size = size * d
    return TensorArg(t.dtype, (*t.shape[:-axes], size), (*t.strides[:-axes], stride), t.align)


@dataclass(frozen=True)
class LanePattern:
    """Where a vector's lanes lie in a tensor.

    Attributes:
        first: distance of the run of memory that holds all lanes from the vector's own position, in elements.
        width: elements of the run.
        lanes: for each lane, its element of the run.
        align: bytes that the run's address is known to be a multiple of.
    """

    first: int
    width: int
    lanes: tuple[int, ...]
    align: int


def lane_pattern(t: TensorArg, domain: Sequence[Dim], lanes: int, axes: int, dispatch: Dispatch) -> LanePattern | None:
    """How vectors of `lanes` neighbours over the last `axes` axes of `domain` lie in `t`; None where that is not constant."""
    missing = max(0, len(domain) - t.rank)
    sizes, strides = (*(1,) * missing, *t.shape), (*(0,) * missing, *t.strides)
    steps = [0 if d == 1 else s for d, s in zip(sizes[-axes:], strides[-axes:], strict=True)]
    constant = [s for s in steps if isinstance(s, int)]
    if len(constant) != len(steps) or any(d not in (1, n) for d, n in zip(sizes[-axes:], domain[-axes:], strict=True)):
        return None
    distances = [sum(p * s for p, s in zip(at, constant, strict=True)) for at in lane_positions(domain, lanes, axes)]
    first, last = min(distances), max(distances)
    # The address of the run, from the tensor's lowest, which `align` is about.
    align = t.align
    shift: Dim = first
    whole = math.prod(int(str(n)) for n in domain[len(domain) - axes + 1 :])
    for axis, (d, s) in enumerate(zip(sizes, strides, strict=True)):
        inner = axis - len(sizes) + axes
        if d != 1 and inner <= 0:
            step = s * (lanes // whole) if inner == 0 else s
            align = math.gcd(align, known_multiple(step, dispatch) * t.type.bits // 8)
        if d != 1 and isinstance(s, int) and s < 0:
            shift = shift - s * (d - 1)
    align = math.gcd(align, known_multiple(shift, dispatch) * t.type.bits // 8)
    return LanePattern(first, last - first + 1, tuple(d - first for d in distances), align)
