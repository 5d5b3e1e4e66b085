"""Strided views against numpy: offsets and strides must name the elements that numpy's own views name."""

from __future__ import annotations

import random

import numpy as np
import pytest

from ingot import dims
from ingot.strided_view import StridedView


def elements(view: StridedView, memory: np.ndarray, env: dict[str, int]) -> np.ndarray:
    shape = [dims.evaluate(d, env) for d in view.shape]
    strides = [dims.evaluate(s, env) * memory.itemsize for s in view.strides]
    start = dims.evaluate(view.offset, env)
    return np.lib.stride_tricks.as_strided(memory[start:], shape, strides)


def test_split_heads_with_symbolic_sizes() -> None:
    n, s = dims.symbol("N"), dims.symbol("S")
    view = StridedView.contiguous((n, s, 768))
    heads = view.reshape((n, s, 12, 64))
    assert heads is not None
    heads = heads.transpose((0, 2, 1, 3))
    assert heads.strides == (s * 768, 64, 768, 1)
    assert heads.reshape((n, s, 768)) is None  # would mix heads and positions
    merged = heads.reshape((n, 12, s * 64))
    assert merged is None
    back = heads.transpose((0, 2, 1, 3)).reshape((n * s, 768))
    assert back is not None
    assert back.is_contiguous
    memory = np.arange(2 * 5 * 768)
    expected = memory.reshape(2, 5, 12, 64).transpose(0, 2, 1, 3)
    np.testing.assert_array_equal(elements(heads, memory, {"N": 2, "S": 5}), expected)


def test_slice_expand_and_negative_steps() -> None:
    s = dims.symbol("S")
    view = StridedView.contiguous((s, 6)).slice((s - 1, 1), (-1, 2), (s, 3))
    memory = np.arange(24)
    np.testing.assert_array_equal(elements(view, memory, {"S": 4}), memory.reshape(4, 6)[::-1, 1::2])
    row = StridedView.contiguous((1, 6)).expand((2, s, 6))
    assert row.strides == (0, 0, 1)
    maybe = StridedView.contiguous((s, 6)).expand((dims.parse("bcast(R, S)"), 6))
    for size, repeated in ((1, 3), (3, 3)):
        found = elements(maybe, memory, {"S": size, "R": 3})
        np.testing.assert_array_equal(found, np.broadcast_to(memory[: size * 6].reshape(size, 6), (repeated, 6)))
    np.testing.assert_array_equal(elements(row, memory, {"S": 3}), np.broadcast_to(memory[:6], (2, 3, 6)))
    assert row.reshape((2 * s, 6)) is not None


def test_size_one_axes_are_canonical() -> None:
    assert StridedView((1, 3, 1), (99, 1, 7)).strides == (3, 1, 1)
    assert StridedView((1, 3, 1), (99, 1, 7)).is_contiguous
    column = StridedView((4, 1), (6, 1)).reshape((4,))
    assert column is not None
    assert column.strides == (6,)


@pytest.mark.parametrize("seed", range(40))
def test_random_chains_agree_with_numpy(seed: int) -> None:
    rng = random.Random(seed)
    shape = [rng.choice([1, 2, 3, 4]) for _ in range(rng.randrange(1, 5))]
    memory = np.arange(int(np.prod(shape)))
    array, view = memory.reshape(shape), StridedView.contiguous(shape)
    for _ in range(5):
        if rng.random() < 0.5:
            perm = list(range(array.ndim))
            rng.shuffle(perm)
            array, view = array.transpose(perm), view.transpose(perm)
        else:
            factors = [d for d in (2, 3) for _ in range(4)]
            new, rest = [], array.size
            rng.shuffle(factors)
            for f in factors:
                if rest % f == 0:
                    new.append(f)
                    rest //= f
            new.insert(rng.randrange(len(new) + 1), rest)
            reshaped = view.reshape(new)
            aliases = array.reshape(new)
            if reshaped is None:
                continue
            array, view = aliases, reshaped
        np.testing.assert_array_equal(elements(view, memory, {}), array)
