"""Sums of 8-bit floats in exact arithmetic, term by term: what the emulator's vectorized model of them is compared with.

The model is that of Xie et al., "MMA-Sim: Bit-Accurate Reference Model of Tensor Cores and Matrix Cores", arXiv 2511.10909.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

FRACTION_BITS = 13
LEAST_EXPONENT = {"e4m3": -6, "e5m2": -14}
K_AT_ONCE = {"mma": 16, "wgmma": 32}


def _exponent(x: Fraction, least: int) -> int:
    """floor(log2|x|), at least `least`."""
    e = abs(x.numerator).bit_length() - x.denominator.bit_length()
    if abs(x) < Fraction(2) ** e:
        e -= 1
    return max(e, least)


def _cut(x: Fraction, e: int) -> Fraction:
    """`x` without what lies 13 bits behind 2**e, towards zero."""
    step = Fraction(2) ** (e - FRACTION_BITS)
    return int(x / step) * step


def _added(a: Sequence[float], b: Sequence[float], c: float, least: tuple[int, int]) -> float:
    terms = [(Fraction(c), _exponent(Fraction(c), -126))] if c else []
    for x, y in zip(a, b, strict=True):
        if x and y:
            p, q = Fraction(float(x)), Fraction(float(y))
            terms.append((p * q, _exponent(p, least[0]) + _exponent(q, least[1])))
    if not terms:
        return 0.0
    top = max(e for _, e in terms)
    total = sum((_cut(x, top) for x, _ in terms), Fraction(0))
    return float(_cut(total, _exponent(total, -126))) if total else 0.0


def instruction(a: np.ndarray, b: np.ndarray, c: np.ndarray, types: tuple[str, str], engine: str) -> np.ndarray:
    """c + a @ b, f32, as an instruction of `engine` (`mma`, `wgmma`) gives it: a [m, k], b [k, n] of finite numbers."""
    out, least, step = c.astype(np.float32), (LEAST_EXPONENT[types[0]], LEAST_EXPONENT[types[1]]), K_AT_ONCE[engine]
    for k in range(0, a.shape[1], step):
        for i, j in np.ndindex(out.shape):
            out[i, j] = _added(a[i, k : k + step], b[k : k + step, j], float(out[i, j]), least)
    return out
