"""Inverse trigonometric and hyperbolic functions, from `atan` and `log`.

Each is written so that no difference of nearly equal numbers is taken: 1 - x * x, for one, is (1 - x) * (1 + x).
"""

from __future__ import annotations

import math

from ingot.passes.onnx_lowering.elementwise import Unary
from ingot.passes.onnx_lowering.lowering import Lowering, lowering
from ingot.passes.onnx_lowering.region_builder import RegionBuilder, Scalar
from ingot.passes.onnx_lowering.values import Source

_LARGE = 1e4  # from here on sqrt(x * x +- 1) is x, to f32's precision and without overflow


def _log1p(b: RegionBuilder, x: Scalar) -> Scalar:
    """log(1 + x), also of small x: the rounding of u = 1 + x is undone by the factor x / (u - 1) (Kahan; Higham, "Accuracy and
    Stability of Numerical Algorithms", 1.14.1)."""
    one, infinity = b.like(1, x), b.like(math.inf, x)
    u = b.addf(x, one)
    rounded = b.subf(u, one)
    y = b.mulf(b.log(u), b.divf(x, rounded))
    y = b.select(b.cmpf_oeq(rounded, b.like(0, x)), x, y)
    return b.select(b.cmpf_oeq(u, infinity), infinity, y)


def _signed(b: RegionBuilder, magnitude: Scalar, x: Scalar) -> Scalar:
    """The magnitude with x's sign; 0 is x."""
    zero = b.like(0, x)
    y = b.select(b.cmpf_olt(x, zero), b.negf(magnitude), magnitude)
    return b.select(b.cmpf_oeq(x, zero), x, y)


def _asin(b: RegionBuilder, x: Scalar) -> Scalar:
    one = b.like(1, x)
    return b.atan(b.divf(x, b.sqrt(b.mulf(b.subf(one, x), b.addf(one, x)))))


def _acos(b: RegionBuilder, x: Scalar) -> Scalar:
    """Twice the angle whose tangent is sqrt((1 - x) / (1 + x))."""
    one = b.like(1, x)
    half = b.atan(b.sqrt(b.divf(b.subf(one, x), b.addf(one, x))))
    return b.addf(half, half)


def _asinh(b: RegionBuilder, x: Scalar) -> Scalar:
    """log(a + sqrt(a^2 + 1)) of a = |x|."""
    a, one = b.absf(x), b.like(1, x)
    square = b.mulf(a, a)
    y = _log1p(b, b.addf(a, b.divf(square, b.addf(one, b.sqrt(b.addf(square, one))))))
    return _signed(b, _log_twice(b, a, y), x)


def _acosh(b: RegionBuilder, x: Scalar) -> Scalar:
    """log(x + sqrt(x^2 - 1)); NaN below 1."""
    one = b.like(1, x)
    t = b.subf(x, one)
    y = _log_twice(b, x, _log1p(b, b.addf(t, b.sqrt(b.mulf(t, b.addf(x, one))))))
    return b.select(b.cmpf_olt(x, one), b.like(math.nan, x), y)


def _log_twice(b: RegionBuilder, x: Scalar, y: Scalar) -> Scalar:
    """log(2 * x) where x is large, else y."""
    return b.select(b.cmpf_ogt(x, b.like(_LARGE, x)), b.addf(b.log(x), b.like(math.log(2), x)), y)


def _atanh(b: RegionBuilder, x: Scalar) -> Scalar:
    """log((1 + a) / (1 - a)) / 2 of a = |x|."""
    a = b.absf(x)
    y = b.mulf(b.like(0.5, x), _log1p(b, b.divf(b.addf(a, a), b.subf(b.like(1, x), a))))
    return _signed(b, y, x)


_INVERSES: dict[str, Unary] = {
    "Atan": lambda b, x: b.atan(x),
    "Asin": _asin,
    "Acos": _acos,
    "Asinh": _asinh,
    "Acosh": _acosh,
    "Atanh": _atanh,
}


@lowering(*_INVERSES)
def _inverse(low: Lowering) -> Source:
    f = _INVERSES[low.op]
    return low.build.pointwise(low.type, low.shape, lambda b: f(b, b.load(low.source(0))))
