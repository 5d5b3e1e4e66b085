"""Strided views: where the elements of a reshaped, transposed, sliced or repeated tensor lie in another's memory.

Sizes, strides and offsets count elements and are shape expressions, so that a view that is known to exist exists at every size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ingot import dims
from ingot.dims import Dim


@dataclass(frozen=True)
class StridedView:
    """Element `i` of the view lies at `offset + sum(i[a] * strides[a])` of the memory it is taken of.

    An axis of size 1 has the stride that a contiguous tensor of this shape would have, so that equal views are equal objects.
    """

    shape: tuple[Dim, ...]
    strides: tuple[Dim, ...]
    offset: Dim = 0

    def __post_init__(self) -> None:
        assert len(self.shape) == len(self.strides), (self.shape, self.strides)
        strides = list(self.strides)
        for axis in reversed(range(len(strides))):
            if self.shape[axis] == 1:
                last = axis + 1 == len(strides)
                strides[axis] = 1 if last else strides[axis + 1] * self.shape[axis + 1]
        object.__setattr__(self, "strides", tuple(strides))

    @staticmethod
    def contiguous(shape: Sequence[Dim]) -> StridedView:
        """A whole row-major tensor."""
        return StridedView(tuple(shape), dims.row_major(shape))

    @property
    def is_contiguous(self) -> bool:
        """True where the elements are known to follow each other in row-major order; the offset does not matter."""
        return self.strides == dims.row_major(self.shape)

    def transpose(self, perm: Sequence[int]) -> StridedView:
        """Axis i of the result is axis perm[i]."""
        return StridedView(tuple(self.shape[p] for p in perm), tuple(self.strides[p] for p in perm), self.offset)

    def slice(self, starts: Sequence[Dim], steps: Sequence[int], shape: Sequence[Dim]) -> StridedView:
        """`shape` elements from `starts`, each axis by its step, which may be negative."""
        offset = self.offset
        for start, stride in zip(starts, self.strides, strict=True):
            offset = offset + start * stride
        strides = tuple(stride * step for stride, step in zip(self.strides, steps, strict=True))
        return StridedView(tuple(shape), strides, offset)

    def expand(self, shape: Sequence[Dim]) -> StridedView:
        """Right-aligned with `shape`; axes of size 1, and those that are missing, repeat with stride 0. So do, at run time,
        those that turn out to have size 1."""
        missing = len(shape) - len(self.shape)
        strides: list[Dim] = [0] * missing
        for size, wanted, stride in zip(self.shape, shape[missing:], self.strides, strict=True):
            strides.append(stride if size == wanted else dims.select(size, 1, 0, stride))
        return StridedView(tuple(shape), tuple(strides), self.offset)

    def reshape(self, shape: Sequence[Dim]) -> StridedView | None:
        """The same elements in row-major order under another shape, or None where no strides are known to give them."""
        if self.is_contiguous:
            return StridedView(tuple(shape), dims.row_major(shape), self.offset)
        old = [(d, s) for d, s in zip(self.shape, self.strides, strict=True) if d != 1]
        new = [d for d in shape if d != 1]
        groups = _groups([d for d, _ in old], new)
        if groups is None:
            return None
        strides: list[Dim] = []
        for (i, j), (k, m) in groups:
            part = old[i:j]
            for (_, stride), (inner_size, inner_stride) in pairwise(part):
                if stride != inner_stride * inner_size:
                    return None
            last = part[-1][1]
            strides += [s * last for s in dims.row_major(new[k:m])]
        found = iter(strides)
        return StridedView(tuple(shape), tuple(1 if d == 1 else next(found) for d in shape), self.offset)


def _groups(old: list[Dim], new: list[Dim]) -> list[tuple[tuple[int, int], tuple[int, int]]] | None:
    """The finest partition of both shapes into runs of equal products; None where the whole is not known to be equal."""
    ends: dict[Dim, int] = {}
    product: Dim = 1
    for j, d in enumerate(new):
        product = product * d
        ends.setdefault(product, j + 1)
    groups = []
    i = k = 0
    product = 1
    for j, d in enumerate(old):
        product = product * d
        m = ends.get(product)
        if m is not None and m > k:
            groups.append(((i, j + 1), (k, m)))
            i, k = j + 1, m
    return groups if i == len(old) and k == len(new) else None
