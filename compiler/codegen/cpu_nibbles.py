"""4-bit elements on the CPU: two a byte, the first in the low nibble; in registers, codes from 0 to 15 in i8.

A pointer cannot name an element, so its place is counted from the beginning of its tensor. A vector of neighbours is half as
many bytes where its first element begins one; other vectors are gathered element by element.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ingot.compiler.codegen.cpu_kernel import CpuKernel
from ingot.compiler.codegen.values import Val
from ingot.dims import Dim
from ingot.dispatch import Dispatch, known_multiple
from ingot.dtypes import DTYPES

if TYPE_CHECKING:
    from ingot.compiler.codegen.cpu_region import Position


def shares_bytes(dtype: str) -> bool:
    """True for types of which two elements lie in a byte."""
    return DTYPES[dtype].bits < 8


def begin_bytes(strides: Sequence[Dim], lane_axis: int, dispatch: Dispatch) -> bool:
    """True where vectors of an even number of neighbours along an axis begin bytes: every other stride is even."""
    return strides[lane_axis] == 1 and all(
        known_multiple(s, dispatch) % 2 == 0 for axis, s in enumerate(strides) if axis != lane_axis % len(strides)
    )


def load_wide_nibbles(ck: CpuKernel, base: Val, place: Val, lanes: int) -> Val:
    """`lanes` neighbours (a multiple of 8), the first of which begins a byte, as codes in i32: each lane shifts its own out of
    a word of eight."""
    k = ck.k
    words = k.load(base.at(place >> 1, "i8"), k.vector_of("i32", lanes // 8), align=1)
    each = k.shuffle(words, words, [i // 8 for i in range(lanes)])
    return (each >> k.vector_constant([i % 8 * 4 for i in range(lanes)], k.vector_of("i32", lanes))) & 15


def load_nibbles(ck: CpuKernel, base: Val, place: Val, step: Val, at: Position, *, begins: bool) -> Val:
    """Elements from number `place` of the tensor at `base`, `step` apart from lane to lane; those that `at` masks are not read.

    Args:
        begins: the first element is known to begin a byte.
    """
    k = ck.k
    if not at.lanes or step.const == 0:
        return _load_one(ck, base, place)
    if begins and step.const == 1 and at.lanes % 2 == 0:
        half = at.lanes // 2
        p = base.at(place >> 1, "i8")
        vector = k.vector_of("i8", half)
        both = k.load(p, vector) if at.mask is None else k.masked_load(p, vector, _pairs(ck, at.mask))
        return k.shuffle(both & 15, both >> 4, [i // 2 + i % 2 * half for i in range(at.lanes)])
    places = k.iota(f"vector<{at.lanes}xi64>") * step + k.broadcast(place, at.lanes)
    if at.mask is not None:
        places = k.select(at.mask, places, k.broadcast(place, at.lanes))
    codes = k.vector([_load_one(ck, base, k.extract(places, i)) for i in range(at.lanes)])
    return codes if at.mask is None else k.select(at.mask, codes, 0)


def _load_one(ck: CpuKernel, base: Val, place: Val) -> Val:
    k = ck.k
    byte = k.load(base.at(place >> 1, "i8"), "i8")
    return (byte >> k.cast((place & 1) << 2, "i8")) & 15


def store_nibbles(ck: CpuKernel, x: Val, base: Val, place: Val, step: Val, at: Position, *, begins: bool) -> None:
    """Store codes as elements from number `place` of the tensor at `base`.

    An element that is stored alone rewrites its byte: no other work item may write the byte's other half.
    """
    k = ck.k
    if not at.lanes:
        _store_one(ck, x, base, place)
        return
    if x.t.kind != "vector":
        x = k.broadcast(x, at.lanes)
    if begins and step.const == 1 and at.lanes % 2 == 0 and at.mask is None:
        low, high = (k.shuffle(x, x, range(i, at.lanes, 2)) for i in (0, 1))
        k.store(low | (high << 4), base.at(place >> 1, "i8"))
        return
    for i in range(at.lanes):
        with k.if_(True if at.mask is None else k.extract(at.mask, i)):
            _store_one(ck, k.extract(x, i), base, place + step * i)


def _store_one(ck: CpuKernel, code: Val, base: Val, place: Val) -> None:
    k = ck.k
    p, shift = base.at(place >> 1, "i8"), k.cast((place & 1) << 2, "i8")
    kept = k.load(p, "i8") & (k.const(0xF0, "i8") >> shift)
    k.store(kept | (code << shift), p)


def _pairs(ck: CpuKernel, mask: Val) -> Val:
    """Which bytes have a lane that exists."""
    return ck.k.shuffle(mask, mask, range(0, mask.t.lanes, 2))
