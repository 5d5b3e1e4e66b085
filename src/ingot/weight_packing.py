"""How packed weights lie in memory: in tiles, whose elements stand in the order in which a warp's lanes take them.

A weight of n columns and k rows, of 4 or 8 bits, is a sequence of tiles of `TILE_BYTES` bytes, those of 16 columns after one
another along k. A tile holds 16 columns by 64 k (4 bits) or 32 k (8 bits), and each of 32 lanes `LANE_BYTES` bytes of it: lane
4 g + q has the columns 2 g and 2 g + 1, at those k that the fragments of an instruction of 16 k give it (PTX ISA, "Matrix
Fragments for mma.m16n8k16" and "wgmma.mma_async", A in registers): 2 q, 2 q + 1, 2 q + 8 and 2 q + 9, of one instruction after
the other (of mma.m16n8k8, of its halves). As the B operand of mma.sync they are the columns of two instructions. So a lane
reads 16 bytes at once, and a word is

- of 4 bits, an instruction's k of both columns: nibbles j and j + 4, which lie 16 bits apart, are neighbouring k of one column,
  of 2 q (j = 0, 1: both columns) and of 2 q + 8 (j = 2, 3);
- of 8 bits, half of an instruction's k of both columns: a half-word is neighbouring k of one column.

A matmul says that its b lies like this by the unit attribute `b_packed`; shape and strides of the operand are then those of a
contiguous matrix [n, k], transposed. `ingot-pack-weights` puts weights in that order.
"""

from __future__ import annotations

import numpy as np

TILE_COLUMNS = 16
TILE_BYTES = 512
LANE_BYTES = 16
STEP_K = 16  # of an instruction
STAGE_K = 64  # k that packed weights have a multiple of: whole tiles of either width

# Names of the axes of a weight [n, k] whose axes are split: tiles, g and the column of a lane's two; tiles, instructions, half
# of an instruction's k, q, and the neighbour.
AXES = ("tile_n", "group", "column", "tile_k", "step", "half", "quad", "neighbour")
_ORDER = {
    4: ("tile_n", "tile_k", "group", "quad", "step", "neighbour", "half", "column"),
    8: ("tile_n", "tile_k", "group", "quad", "step", "half", "column", "neighbour"),
}


def tile_k(bits: int) -> int:
    """The k of a tile of elements of `bits` bits."""
    return TILE_BYTES * 8 // (TILE_COLUMNS * bits)


def split_shape(n: int, k: int, bits: int) -> tuple[int, ...]:
    """The sizes of `AXES` for a weight [n, k]. Raises ValueError where it has not whole tiles."""
    if bits not in _ORDER or n % TILE_COLUMNS or k % STAGE_K:
        raise ValueError(f"a weight [{n}, {k}] of {bits} bits has no whole tiles of {TILE_COLUMNS} columns and {STAGE_K} k")
    return n // TILE_COLUMNS, 8, 2, k // tile_k(bits), tile_k(bits) // STEP_K, 2, 4, 2


def packed_order(bits: int) -> tuple[int, ...]:
    """The axes of `AXES`, by number, in the order in which they lie in memory, outermost first."""
    return tuple(map(AXES.index, _ORDER[bits]))


def unpacked(elements: np.ndarray, bits: int) -> np.ndarray:
    """The weight [n, k] whose elements, one an entry of an array [n, k], are in packed order."""
    n, k = elements.shape
    shape, order = split_shape(n, k, bits), packed_order(bits)
    split = np.ascontiguousarray(elements).reshape([shape[a] for a in order])
    return split.transpose([order.index(a) for a in range(len(order))]).reshape(n, k)


def packed(elements: np.ndarray, bits: int) -> np.ndarray:
    """The inverse of `unpacked`."""
    n, k = elements.shape
    return elements.reshape(split_shape(n, k, bits)).transpose(packed_order(bits)).reshape(n, k)


