"""Which element of a matrix each lane's registers hold, transcribed from the PTX ISA's figures for `mma` and `wgmma`.

These are the emulator's own tables, formula by formula as the ISA prints them ("Matrix Fragments for mma.m16n8k16 with
floating point type" and the like): the code generator has its own, so that an error in one shows against the other.

The ISA's words: groupID = lane >> 2, threadID_in_group = lane % 4; `a_i`, `b_i` and `c_i` are the elements of a lane's
registers in order, low bits first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

Position = Callable[[int, int, int], tuple[int, int]]  # (groupID, threadID_in_group, i) -> (row, column)


@dataclass(frozen=True)
class Layout:
    """Fragments of one shape.

    Attributes:
        shape: (m, n, k).
        bits: size of an element of A and B in a register.
        a, b, c: element positions.
        counts: elements of A, B and C in a lane.
    """

    shape: tuple[int, int, int]
    bits: int
    a: Position
    b: Position
    c: Position
    counts: tuple[int, int, int]


def _c16(g: int, t: int, i: int) -> tuple[int, int]:
    return (g if i < 2 else g + 8, t * 2 + (i & 1))


def _c8(g: int, t: int, i: int) -> tuple[int, int]:
    return (g, t * 2 + i)


LAYOUTS = (
    # m16n8k8, .f16 and .bf16
    Layout(
        (16, 8, 8),
        16,
        lambda g, t, i: (g if i < 2 else g + 8, t * 2 + (i & 1)),
        lambda g, t, i: (t * 2 + i, g),
        _c16,
        (4, 2, 4),
    ),
    # m16n8k16, .f16 and .bf16
    Layout(
        (16, 8, 16),
        16,
        lambda g, t, i: (g if i < 2 or 4 <= i < 6 else g + 8, t * 2 + (i & 1) + (8 if i >= 4 else 0)),
        lambda g, t, i: (t * 2 + (i & 1) + (8 if i >= 2 else 0), g),
        _c16,
        (8, 4, 4),
    ),
    # m16n8k4, .tf32
    Layout((16, 8, 4), 32, lambda g, t, i: (g if i == 0 else g + 8, t), lambda g, t, i: (t, g), _c16, (2, 1, 4)),
    # m16n8k8, .tf32
    Layout(
        (16, 8, 8),
        32,
        lambda g, t, i: (g if i in (0, 2) else g + 8, t if i < 2 else t + 4),
        lambda g, t, i: (t if i == 0 else t + 4, g),
        _c16,
        (4, 2, 4),
    ),
    # m8n8k16, .u8 and .s8
    Layout((8, 8, 16), 8, lambda g, t, i: (g, t * 4 + i), lambda g, t, i: (t * 4 + i, g), _c8, (4, 4, 2)),
    # m16n8k16, .u8 and .s8 (and .e4m3, .e5m2)
    Layout(
        (16, 8, 16),
        8,
        lambda g, t, i: (g if i < 4 else g + 8, t * 4 + (i & 3)),
        lambda g, t, i: (t * 4 + i, g),
        _c16,
        (8, 4, 4),
    ),
    # m16n8k32, .u8, .s8 and the 8-bit (and padded 6- and 4-bit) floats
    Layout(
        (16, 8, 32),
        8,
        lambda g, t, i: (g if i < 4 or 8 <= i < 12 else g + 8, t * 4 + (i & 3) + (16 if i >= 8 else 0)),
        lambda g, t, i: (t * 4 + (i & 3) + (16 if i >= 4 else 0), g),
        _c16,
        (16, 8, 4),
    ),
    # m8n8k32, .u4 and .s4
    Layout((8, 8, 32), 4, lambda g, t, i: (g, t * 8 + i), lambda g, t, i: (t * 8 + i, g), _c8, (8, 8, 2)),
    # m16n8k32, .u4 and .s4
    Layout(
        (16, 8, 32),
        4,
        lambda g, t, i: (g if i < 8 else g + 8, t * 8 + (i & 7)),
        lambda g, t, i: (t * 8 + i, g),
        _c16,
        (16, 8, 4),
    ),
    # m16n8k64, .u4, .s4 and .e2m1
    Layout(
        (16, 8, 64),
        4,
        lambda g, t, i: (g if i < 8 or 16 <= i < 24 else g + 8, t * 8 + (i & 7) + (32 if i >= 16 else 0)),
        lambda g, t, i: (t * 8 + (i & 7) + (32 if i >= 8 else 0), g),
        _c16,
        (32, 16, 4),
    ),
)


@dataclass(frozen=True, eq=False)
class Index:
    """A fragment as index arrays: element (row, column) of the matrix lies in lane `lane`, register element `element`."""

    lane: np.ndarray
    element: np.ndarray


def _invert(position: Position, count: int, rows: int, columns: int) -> Index:
    lane = np.full((rows, columns), -1)
    element = np.full((rows, columns), -1)
    for thread in range(32):
        for i in range(count):
            row, column = position(thread >> 2, thread % 4, i)
            lane[row, column], element[row, column] = thread, i
    assert (lane >= 0).all(), (rows, columns)
    return Index(lane, element)


@cache
def mma_fragments(shape: tuple[int, int, int], bits: int) -> tuple[Index, Index, Index]:
    """Fragments of A (m x k), B (k x n) and C (m x n). Raises NotImplementedError for a shape that has no row."""
    for row in LAYOUTS:
        if row.shape == shape and row.bits == bits:
            m, n, k = shape
            return (
                _invert(row.a, row.counts[0], m, k),
                _invert(row.b, row.counts[1], k, n),
                _invert(row.c, row.counts[2], m, n),
            )
    m, n, k = shape
    raise NotImplementedError(f"no fragment layout for mma m{m}n{n}k{k} with {bits}-bit elements")


@cache
def wgmma_accumulator(n: int) -> Index:
    """D of wgmma.m64nN: `lane` counts the warpgroup's 128 threads.

    "WGMMA .m64nNk16 register fragment layout for accumulator matrix D": row = groupID of the warp's 16 rows, plus 8 for
    d_i with i % 4 >= 2; column = (i / 4) * 8 + threadID_in_group * 2 + (i & 1).
    """
    lane = np.zeros((64, n), int)
    element = np.zeros((64, n), int)
    for thread in range(128):
        warp, inside = divmod(thread, 32)
        for i in range(n // 2):
            row = warp * 16 + (inside >> 2) + (8 if i % 4 >= 2 else 0)
            column = (i // 4) * 8 + (inside % 4) * 2 + (i & 1)
            lane[row, column], element[row, column] = thread, i
    return Index(lane, element)


@cache
def wgmma_registers(k: int, bits: int) -> Index:
    """A of wgmma.m64nNkK from registers: each warp holds 16 rows with the layout of the mma of 256 bits of K."""
    one = mma_fragments((16, 8, k), bits)[0]
    lane = np.concatenate([one.lane + 32 * warp for warp in range(4)])
    return Index(lane, np.concatenate([one.element] * 4))


def scale_lanes(thread_a: int, thread_b: int) -> tuple[np.ndarray, np.ndarray]:
    """Lanes whose scale registers hold the scales of A's 16 rows and B's 8 columns ("Block Scaling for mma").

    `thread_a` (0 or 1) chooses a pair of each quad of lanes: its first lane has row groupID, its second row groupID +
    8. `thread_b` (0 to 3) chooses the lane of each quad that has column groupID.
    """
    rows = np.arange(16)
    return 4 * (rows % 8) + 2 * thread_a + rows // 8, 4 * np.arange(8) + thread_b
