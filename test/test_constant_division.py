"""Division by a constant in two instructions: every significand, special values, and what kernels have instead."""

from __future__ import annotations

import cuda_dispatches as make
import numpy as np
import pytest
from cuda_emulation import run_emulated

from ingot.compiler.codegen.constant_division import reciprocal_parts
from ingot.compiler.codegen.family import emit
from ingot.compiler.toolchain.stages import compile_kernels
from ingot.cuda_targets import BY_NAME
from ingot.dialects.mlir import kernel_context
from ingot.dispatch import Dispatch, contiguous

ROOT = float(np.float32(2**0.5))  # of exported GELUs
DIVISORS = (ROOT, 3.0, -7.0, 255.0, 0.1, 1e-20, 12345.678, float(np.float32(1 - 2**-24)), float(np.float32(1 + 2**-23)))


def quotients(x: np.ndarray, divisor: float) -> np.ndarray:
    """fma(x, h, x * l); 64 bits of significand are enough for the sum of these (49 bits apart at the most)."""
    parts = reciprocal_parts(divisor)
    assert parts is not None
    high, low = (np.float32(p) for p in parts)
    with np.errstate(all="ignore"):
        return (x.astype(np.longdouble) * high + (x * low).astype(np.longdouble)).astype(np.float32)


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="sums are rounded twice here")
@pytest.mark.parametrize("divisor", DIVISORS)
def test_every_significand(divisor: float) -> None:
    x = np.arange(2**23, 2**24, dtype=np.int32).astype(np.float32)
    np.testing.assert_array_equal(quotients(x, divisor), x / np.float32(divisor))


def test_special_values() -> None:
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 3.4e38, -3.4e38, 1e-29, 1.2e-38, 1e-45], np.float32)
    for divisor in (ROOT, -7.0, 0.75, 1e-20):
        with np.errstate(all="ignore"):
            exact, found = x / np.float32(divisor), quotients(x, divisor)
        np.testing.assert_array_equal(np.signbit(found[:2]), np.signbit(exact[:2]))
        np.testing.assert_array_equal(found[:8], exact[:8])
        assert np.all(np.abs(found[8:] - exact[8:]) <= np.spacing(np.abs(exact[8:])))


@pytest.mark.parametrize("divisor", [0.0, 1.0, -0.25, 2.0**64, np.inf, np.nan, 1e-40, 3e38])
def test_powers_of_two_and_extremes_are_left(divisor: float) -> None:
    assert reciprocal_parts(divisor) is None


def test_a_divisor_with_a_wrong_quotient_is_left() -> None:
    """1.495435118675232 is one: the sum lies just beyond the middle that the quotient lies before."""
    assert reciprocal_parts(1.495435118675232) is None


def division(divisor: float) -> Dispatch:
    r = make.Region()
    region = r.end(r.add("divf", r.load(0, "f32"), r.add("const", value=divisor)))
    t = contiguous("f32", 64, 129)
    return make.make("pointwise", [t], [t], [region])


@pytest.mark.parametrize("divisor", [ROOT, 1.495435118675232])
def test_kernels_divide_exactly(divisor: float) -> None:
    def fill(operands: list[np.ndarray]) -> None:
        operands[0].reshape(-1)[:4] = np.inf, -np.inf, np.nan, -0.0

    found = run_emulated(division(divisor), "sm_80", prepare=fill)
    np.testing.assert_array_equal(found.results[0], found.operands[0] / np.float32(divisor))


def test_kernels_of_wgmma_divide_as_before() -> None:
    """Their divisions are approximate, and one instruction: a multiplication."""
    r = make.Region("f32")
    region = r.end(r.narrow(r.add("divf", 0, r.add("const", value=ROOT)), "f16"))
    with kernel_context():
        d = make.matmul(4096, 4096, 4096, "f16", region=region)
        ptx = compile_kernels(emit(d, BY_NAME["sm_90a"]).module, "sm_90a", stop="ptx")
    assert "wgmma" in ptx
    assert "div.approx.f32" in ptx


def test_no_division_is_left() -> None:
    for divisor, divisions in ((ROOT, False), (1.495435118675232, True)):
        with kernel_context():
            ptx = compile_kernels(emit(division(divisor), BY_NAME["sm_86"]).module, "sm_86", stop="ptx")
        assert ("div." in ptx) is divisions
