"""Sums of 8-bit floats in exact arithmetic, term by term: what the emulator's vectorized model of them is compared with.

The model is that of Xie et al., "MMA-Sim: Bit-Accurate Reference Model of Tensor Cores and Matrix Cores", arXiv 2511.10909.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

FRACTION_BITS = 13
LEAST_EXPONENT = {"e4m3": -6, "e5m2": -14}
K_AT_ONCE = {"mma": 16, "wgmma": 32}
_POINT = 150  # numbers are integers, in units of 2**-150: a finite f32, and a product of two 8-bit floats, is one


def _integer(x: float) -> int:
    numerator, denominator = float(x).as_integer_ratio()
    return (numerator << _POINT) // denominator


def _exponent(x: int, least: int) -> int:
    """floor(log2|x|), at least `least`."""
    return max(abs(x).bit_length() - 1 - _POINT, least)


def _cut(x: int, e: int) -> int:
    """`x` without what lies 13 bits behind 2**e, towards zero."""
    bits = max(e - FRACTION_BITS + _POINT, 0)
    return (abs(x) >> bits << bits) * (1 if x > 0 else -1)


def _added(a: Sequence[tuple[int, int]], b: Sequence[tuple[int, int]], c: float) -> float:
    """c and the products of numbers, each with its exponent."""
    terms = [(_integer(c), _exponent(_integer(c), -126))] if c else []
    terms += [(x * y >> _POINT, ex + ey) for (x, ex), (y, ey) in zip(a, b, strict=True) if x and y]
    if not terms:
        return 0.0
    top = max(e for _, e in terms)
    total = sum(_cut(x, top) for x, _ in terms)
    return math.ldexp(_cut(total, _exponent(total, -126)), -_POINT)


def instruction(a: np.ndarray, b: np.ndarray, c: np.ndarray, types: tuple[str, str], engine: str) -> np.ndarray:
    """c + a @ b, f32, as an instruction of `engine` (`mma`, `wgmma`) gives it: a [m, k], b [k, n] of finite numbers."""
    out, step = c.astype(np.float32), K_AT_ONCE[engine]
    rows, columns = (
        [[(i, _exponent(i, LEAST_EXPONENT[t])) for i in map(_integer, line)] for line in lines.tolist()]
        for lines, t in zip((a, b.T), types, strict=True)
    )
    for k in range(0, a.shape[1], step):
        for i, j in np.ndindex(out.shape):
            out[i, j] = _added(rows[i][k : k + step], columns[j][k : k + step], float(out[i, j]))
    return out
