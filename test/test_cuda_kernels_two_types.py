"""Kernels whose results are of two types: what a residual stream and a quantized product both read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import cuda_dispatches as make
import numpy as np
import pytest
from cuda_emulation import run_emulated

from ingot.compiler.reference import run_dispatch
from ingot.dispatch import Dispatch, ScalarInst
from ingot.dtypes import DTYPES


def with_second(d: Dispatch, dtype: str) -> Dispatch:
    """The dispatch with its result a second time, in `dtype`: an 8-bit type that takes a sixteenth of it."""
    (t,) = d.results
    last = d.regions[-1]
    insts = list(last.insts)

    def add(op: str, *args: int, type: str = "f32", **attrs: object) -> int:
        insts.append(ScalarInst(op, args, type, tuple(attrs.items())))  # type: ignore[arg-type]
        return len(last.args) + len(insts) - 1

    x = last.results[0] if t.dtype == "f32" else add("extf", last.results[0])
    x = add("mulf", x, add("const", value=0.0625))
    if dtype == "i8":
        x = add("minf", add("maxf", add("roundeven", x), add("const", value=-128.0)), add("const", value=127.0))
    x = add("fptosi" if dtype == "i8" else "truncf", x, type=dtype)
    region = replace(last, insts=tuple(insts), results=(*last.results, x))
    second = replace(t, dtype=dtype)
    return replace(d, results=(t, second), regions=(*d.regions[:-1], region))


def check(d: Dispatch, dtype: str, target: str, sizes: Mapping[str, int] | None = None) -> None:
    """The first result is what the dispatch alone gives, the second one exactly a sixteenth of it, rounded."""
    found = run_emulated(with_second(d, dtype), target, sizes)
    first, second = found.results
    (expected,) = (x.astype(np.float64) for x in run_dispatch(d, found.operands, sizes or {}))
    assert np.abs(first.astype(np.float64) - expected).max() <= 1e-3 * np.abs(expected).max()
    scaled = first.astype(np.float32) * np.float32(0.0625)
    wanted = np.clip(np.rint(scaled), -128, 127) if dtype == "i8" else scaled
    assert second.dtype == DTYPES[dtype].np
    assert np.array_equal(second.astype(np.float32), wanted.astype(DTYPES[dtype].np).astype(np.float32))


@pytest.mark.parametrize("dtype", ["i8", "f8E4M3FN"])
@pytest.mark.parametrize("target", ["sm_75", "sm_86", "sm_90a", "sm_120a"])
@pytest.mark.parametrize("rows", [1, 5, 16, 130])
def test_products(rows: int, target: str, dtype: str) -> None:
    check(make.matmul(rows, 72, 256, "f16", out="f16"), dtype, target)


def test_products_of_any_size() -> None:
    check(make.matmul("m", 72, 256, "f16", out="f16"), "f8E4M3FN", "sm_90a", {"m": 70})
    check(make.matmul(33, 40, 64, "f32", out="f32"), "i8", "sm_86")


@pytest.mark.parametrize("target", ["sm_75", "sm_90a"])
def test_other_roots(target: str) -> None:
    check(make.conv(1, (6, 6), 16, 24, (3, 3), pads=(1,) * 4), "i8", target)
    check(make.conv(1, (6, 6), 16, 16, (3, 3), pads=(1,) * 4, groups=16), "i8", target)
    check(make.attention(1, 2, 40, 48, 64), "f8E4M3FN", target)
    check(make.normalize("layer", 5, 96, dtype="f16"), "i8", target)
    check(make.normalize("rms", 2, 1100, dtype="f16"), "f8E4M3FN", target)
    check(make.normalize("layer", 2, 16, 4, 8, axes=(1, 3), dtype="f16"), "f8E4M3FN", target)
