"""Operands for which a product's result is exact in every order of summation, so that an element out of place shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cuda_dispatches as make
import numpy as np
from cuda_emulation import Emulated, run_emulated
from packed_products import packing

from ingot.compiler.reference import run_dispatch
from ingot.dispatch import Dispatch
from ingot.dtypes import DTYPES
from ingot.target import Target
from ingot.weight_packing import unpacked


def fill_blocks_of_ones(rng: np.random.Generator, views: Sequence[np.ndarray]) -> None:
    """Zeros with one block of ones in each of the two operands, and scales that are powers of two."""
    for view in views[:2]:
        row, col = (int(rng.integers(0, n // 2 + 1)) for n in view.shape)
        view[...] = np.zeros(1, view.dtype)
        view[row : row + view.shape[0] // 2 + 1, col : col + view.shape[1] // 2 + 1] = np.ones(1).astype(view.dtype)
    for view in views[2:]:
        view[...] = np.exp2(rng.integers(-3, 4, view.shape)).astype(view.dtype)


def check_exactly(
    d: Dispatch, target: str | Target, schedule: Any = None, sizes: Mapping[str, int] | None = None, *, prepare: Any
) -> Emulated:
    """Run on the emulator with operands that `prepare` fills; results equal the reference's, and are not all zeros."""
    found = run_emulated(d, target, sizes, schedule, prepare=prepare)
    (exact,) = run_dispatch(d, found.operands, sizes, float64=True)
    assert exact.any()
    assert np.array_equal(found.results[0], exact), np.argwhere(found.results[0] != exact)[:5]
    return found


def check_blocks_of_ones(d: Dispatch, target: str | Target, schedule: Any, seed: int) -> None:
    """`check_exactly` with blocks of ones at random offsets: wrong places show, however small the sums."""
    rng = np.random.default_rng(seed)
    check_exactly(d, target, schedule, prepare=lambda views: fill_blocks_of_ones(rng, views))


def every_code(dtype: str, weights: str, columns: int = 64, depth: int = 64, **options: Any) -> Dispatch:
    """A product of one row with a weight of `columns` columns, or of one for each code of its type (`check_every_code`)."""
    return make.quantized_matmul(1, max(columns, 1 << DTYPES[weights].bits), depth, dtype, weights, **options)


def check_every_code(d: Dispatch, target: str | Target, schedule: Any, *, packs: bool = False) -> None:
    """All codes of a weight's type, infinities and NaN among them, come out as they are: each is met alone, by a one.

    With `packs`, the weights are put into packed order.
    """
    t = d.operands[1].type

    def fill(views: list[np.ndarray]) -> None:
        a, b = views[:2]
        depth, count = b.shape
        codes = (np.arange(count) % (1 << t.bits)).astype(np.uint8)
        if t.name == "i4":
            codes = (codes ^ 8) - 8
        a[...] = 1
        b[...] = np.zeros(1, np.uint8).view(t.np)[0]
        for i in range(count):  # at another k for each
            b[i % depth, i] = codes[i : i + 1].view(t.np)[0]

    if packs:

        def prepare(views: list[np.ndarray]) -> None:
            fill(views)
            packing(d)(views)

        found = run_emulated(make.packed(d), target, schedule=schedule, prepare=prepare)
        weights = unpacked(found.operands[1].T, t.bits).T
    else:
        found = run_emulated(d, target, schedule=schedule, prepare=fill)
        weights = found.operands[1]
    expected = weights.astype(np.float32).sum(0, keepdims=True)
    assert np.array_equal(found.results[0], expected, equal_nan=True)
