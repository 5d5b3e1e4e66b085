"""Tensor maps: what a TMA descriptor says, as plain data, and the copies it describes.

PTX ISA, "Tensor-map" and "Tensor Copy": tiled and im2col modes, out-of-bounds elements filled with zeros and not
stored, and the shared memory swizzles of 32, 64 and 128 bytes, which exchange 16-byte chunks by address bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ingot.dtypes import DTYPES

# XOR of address bits 4.. by bits 7..: how many bits take part.
_SWIZZLE_BITS = {0: 0, 32: 1, 64: 2, 128: 3}


@dataclass(eq=False)
class TensorMap:
    """A tensor map over a numpy array (fields as in `ingot.kernel_plan.TensorMapArg`).

    Attributes:
        array: the memory; element 0 of the tensor is at byte `offset` of it.
        dtype: storage type of `ingot.dtypes`.
        shape: sizes, innermost first.
        strides: byte strides of axes 1.., innermost first.
        box: elements of a tile, innermost first.
        swizzle: 0, 32, 64 or 128 bytes.
        im2col: (lower corner, upper corner, channels per pixel, pixels per column), corners innermost (W) first; or ().
        element_strides: traversal strides of im2col's W, H, D axes (a convolution's strides), or () for 1.
    """

    array: np.ndarray
    dtype: str
    shape: Sequence[int]
    strides: Sequence[int]
    box: Sequence[int]
    swizzle: int = 128
    im2col: tuple[Any, ...] = ()
    offset: int = 0
    element_strides: Sequence[int] = ()

    def __post_init__(self) -> None:
        size = DTYPES[self.dtype].bytes
        inner = (self.im2col[2] if self.im2col else self.box[0]) * size
        if inner % 16:
            raise ValueError(f"a box's inner axis takes {inner} bytes, which is no multiple of 16")
        if self.swizzle and inner > self.swizzle:
            raise ValueError(f"a box's inner axis takes {inner} bytes, more than the {self.swizzle}-byte swizzle")
        if any(s % 16 for s in self.strides) or self.offset % 16:
            raise ValueError(f"strides {tuple(self.strides)} and offset {self.offset} must be multiples of 16 bytes")
        if len(self.strides) != len(self.shape) - 1 or (not self.im2col and len(self.box) != len(self.shape)):
            raise ValueError(f"shape {self.shape}, strides {self.strides} and box {self.box} do not fit together")
        if any(not 1 <= b <= 256 for b in self.box):
            raise ValueError(f"a box's axes have 1 to 256 elements, not {tuple(self.box)}")

    @property
    def element_bytes(self) -> int:
        return DTYPES[self.dtype].bytes

    @property
    def inner_elements(self) -> int:
        """Elements of a row of the box in shared memory."""
        return self.im2col[2] if self.im2col else self.box[0]

    @property
    def rows(self) -> int:
        """Rows of the box in shared memory."""
        return self.im2col[3] if self.im2col else int(np.prod(self.box[1:], dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes a copy takes in shared memory, and counts on an mbarrier, filled elements included."""
        return self.rows * self.inner_elements * self.element_bytes

    def _pixels(self, start: Sequence[int], offsets: Sequence[int]) -> np.ndarray:
        """(pixels, axes - 1) coordinates of an im2col column: W first, then H, D and N, wrapped at the bounding box."""
        lower, upper, _, count = self.im2col
        axes = len(lower)
        step = tuple(self.element_strides) or (1,) * axes
        low = list(lower)
        high = [self.shape[1 + i] + upper[i] for i in range(axes)]
        position = list(start[1:])
        pixels = np.empty((count, axes + 1), np.int64)
        for pixel in range(count):
            pixels[pixel, :axes] = [position[i] + offsets[i] for i in range(axes)]
            pixels[pixel, axes] = position[axes]
            for i in range(axes):
                position[i] += step[i]
                if position[i] < high[i]:
                    break
                position[i] = low[i]
            else:
                position[axes] += 1
        return pixels

    def elements(self, start: Sequence[int], offsets: Sequence[int] = ()) -> tuple[np.ndarray, np.ndarray]:
        """(rows, inner) byte offsets into the array of a copy's elements, and whether each is inside the tensor."""
        inner = start[0] + np.arange(self.inner_elements)
        if self.im2col:
            outer = self._pixels(start, offsets)
        else:
            grids = np.meshgrid(*[start[i] + np.arange(self.box[i]) for i in range(len(self.box) - 1, 0, -1)], indexing="ij")
            outer = np.stack([g.reshape(-1) for g in grids[::-1]], axis=-1) if grids else np.zeros((1, 0), np.int64)
        sizes = np.array(self.shape[1:], np.int64)
        row_inside = np.logical_and(outer >= 0, outer < sizes).all(axis=1)
        good = np.asarray(row_inside)[:, None] & (inner >= 0) & (inner < self.shape[0])
        where = self.offset + (outer @ np.array(self.strides, np.int64))[:, None] + inner * self.element_bytes
        return where, good

    def shared_offsets(self, start: int) -> np.ndarray:
        """Shared addresses of a copy's 16-byte chunks, in the order of the box's bytes, for a box that starts at `start`."""
        linear = start + 16 * np.arange(self.nbytes // 16)
        return swizzled(linear, self.swizzle)


def swizzled(address: np.ndarray, swizzle: int) -> np.ndarray:
    """The address at which a byte of a swizzled tile lies: address bits 4.. are XORed with bits 7..."""
    mask = (1 << _SWIZZLE_BITS[swizzle]) - 1
    return address ^ (((address >> 7) & mask) << 4)
