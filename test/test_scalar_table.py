"""Every expansion of the scalar table against float64, within the row's own bound."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ingot.dialects.scalar_table import ROWS, TABLE
from ingot.dtypes import DTYPES


class NumpyBuilder:
    """A `ScalarBuilder` that computes on numpy arrays, expanding every row that has an expansion."""

    def __init__(self, *, cuda: bool) -> None:
        self.cuda = cuda

    def const(self, value: float, type: str) -> Any:
        return np.array(value, DTYPES[type].np)

    def const_like(self, value: float, like: Any) -> Any:
        return np.array(value, np.asarray(like).dtype)

    def __getattr__(self, name: str) -> Any:
        row = TABLE[name]
        expand = (row.expand_cuda if self.cuda else None) or row.expand

        def call(*args: Any, type: str | None = None) -> Any:
            if expand is not None:
                return expand(self, *args)
            return row.numpy(*args, DTYPES[type].np) if type else row.numpy(*args)

        return call


RANGES = {
    "exp": (-80, 80),
    "log": (1e-30, 1e30),
    "tanh": (-12, 12),
    "erf": (-5, 5),
    "sigmoid": (-30, 30),
    "sin": (-30000, 30000),
    "cos": (-30000, 30000),
    "atan": (-20, 20),
    "rsqrt": (1e-20, 1e20),
}


@pytest.mark.parametrize("cuda", [False, True], ids=["cpu", "cuda"])
@pytest.mark.parametrize("name", RANGES)
def test_functions_keep_their_bound(name, cuda):
    low, high = RANGES[name]
    rng = np.random.default_rng(0)
    x = np.exp(rng.uniform(np.log(low), np.log(high), 50000)) if low > 0 else rng.uniform(low, high, 50000)
    x = x.astype(np.float32)
    with np.errstate(all="ignore"):
        got = np.asarray(getattr(NumpyBuilder(cuda=cuda), name)(x), np.float64)
    exact = TABLE[name].numpy(x.astype(np.float64))
    # Near a zero of the function the error is absolute: the argument's own rounding is magnified there.
    error = np.abs(got - exact) / np.maximum(np.abs(exact), 2.0**-3 if name in ("sin", "cos") else 0.0)
    assert error.max() * 2**24 <= TABLE[name].bound


@pytest.mark.parametrize("cuda", [False, True], ids=["cpu", "cuda"])
def test_special_values(cuda):
    b = NumpyBuilder(cuda=cuda)
    inf, nan = np.float32("inf"), np.float32("nan")
    with np.errstate(all="ignore"):
        assert b.exp(-inf) == 0
        assert b.exp(inf) == inf
        assert np.isnan(b.exp(nan))
        assert b.log(np.float32(0)) == -inf
        assert b.log(inf) == inf
        assert np.isnan(b.log(np.float32(-1)))
        assert np.isnan(b.log(nan))
        assert np.isclose(b.log(np.float32(1e-40)), np.log(1e-40))
        assert abs(b.tanh(inf) - 1) < 1e-6
        assert abs(b.erf(-inf) + 1) < 1e-6
        assert b.sigmoid(-inf) == 0
        assert b.sigmoid(inf) == 1
        assert b.atan(-inf) == np.float32(-np.pi / 2)
        assert np.isnan(b.atan(nan))
        assert np.signbit(b.atan(np.float32(-0.0)))
        assert b.atan(np.float32(1e-30)) == np.float32(1e-30)


def test_pow():
    b = NumpyBuilder(cuda=False)
    with np.errstate(all="ignore"):
        x = np.random.default_rng(0).uniform(0.01, 100, 1000).astype(np.float32)
        for y in (-2.5, 0.3, 2.0, 7.0):
            exact = x.astype(np.float64) ** np.float64(np.float32(y))
            error = np.abs(b.pow(x, np.full_like(x, y)) - exact) / exact
            assert error.max() * 2**24 <= TABLE["pow"].bound
        assert np.isclose(b.pow(np.float32(-2), np.float32(3)), -8)
        assert np.isclose(b.pow(np.float32(-2), np.float32(2)), 4)
        assert np.isnan(b.pow(np.float32(-2), np.float32(0.5)))
        assert b.pow(np.float32(0), np.float32(0)) == 1
        assert b.pow(np.float32(0), np.float32(2)) == 0


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_integer_division_is_onnxs_and_never_traps(dtype):
    rng = np.random.default_rng(0)
    x, y = rng.integers(-30, 30, 2000).astype(dtype), rng.integers(-6, 6, 2000).astype(dtype)
    lowest = np.iinfo(dtype).min
    x, y = np.append(x, dtype(lowest)), np.append(y, dtype(-1))
    b = NumpyBuilder(cuda=False)
    valid = y != 0
    valid[-1] = False  # lowest / -1 overflows: any value will do, a trap will not
    with np.errstate(all="ignore"):
        assert np.array_equal(b.divsi(x, y)[valid], np.trunc(x[valid] / y[valid]))
        assert np.array_equal(b.remsi(x, y)[valid], np.fmod(x[valid], y[valid]))
        assert np.array_equal(b.floordivsi(x, y)[valid], x[valid] // y[valid])


def test_rows_are_complete():
    for row in ROWS:
        assert bool(row.mlir) != bool(row.expand), f"{row.name} must have either an operation or an expansion"
        assert row.exact or row.bound or row.name == "fma", f"{row.name} has no error bound"
        assert set(row.params) <= set("fixb"), row.name
