"""Sums of 8-bit floats as the tensor cores of Ada and Hopper make them: with fewer bits than an f32 has.

The products of an instruction and the accumulator are aligned to the largest exponent among them and cut off `FRACTION_BITS`
behind its leading bit, towards zero; the sum of what is left is exact, and is cut off to as many bits once more. A product's
exponent is the sum of its factors', its significand between 1 and 4. Ada adds the k of an instruction in two halves. (Xie et
al., "MMA-Sim: Bit-Accurate Reference Model of Tensor Cores and Matrix Cores", arXiv 2511.10909, whose model equals the
hardware's results bit by bit; so do Khattak and Mikaitis, arXiv 2512.07004. `kind::f8f6f4` keeps 25 bits.)

These numbers are the emulator's own, as its fragments are: the code generator has its table.
"""

from __future__ import annotations

import numpy as np

FRACTION_BITS = 13
HALF_K = {"mma": 16, "wgmma": 32}  # k that are added at once
_LEAST_EXPONENT = {"e4m3": -6, "e5m2": -14}  # of normal numbers; subnormal ones have it too
_NONE = -1000  # the exponent of zero: below all others


def is_limited(*types: str) -> bool:
    """True where an instruction of operands of these types sums so."""
    return all(t in _LEAST_EXPONENT for t in types)


def _exponents(x: np.ndarray, least: int) -> np.ndarray:
    return np.where(x == 0, _NONE, np.maximum(np.frexp(x)[1] - 1, least))


def _cut(x: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    """`x` without what lies `FRACTION_BITS` behind 2**exponent."""
    step = FRACTION_BITS - exponent
    return np.ldexp(np.trunc(np.ldexp(x, step)), -step)


def limited_sum(a: np.ndarray, b: np.ndarray, c: np.ndarray, types: tuple[str, str], engine: str) -> np.ndarray:
    """c + a @ b as an instruction of `engine` (`mma` or `wgmma`) gives it.

    Args:
        a: (..., m, k) float64; `b` (..., k, n) float64; `c` (..., m, n) float32.
        types: of a's and b's elements.
    """
    out, half = c.astype(np.float64), HALF_K[engine]
    for first in range(0, a.shape[-1], half):
        x, y = a[..., first : first + half], b[..., first : first + half, :].swapaxes(-1, -2)
        with np.errstate(invalid="ignore"):
            plain = x @ y.swapaxes(-1, -2) + out
        special = ~np.isfinite(plain)
        x, y, out = (np.nan_to_num(v, nan=0.0, posinf=0.0, neginf=0.0) for v in (x, y, out))
        ex, ey = (_exponents(v, _LEAST_EXPONENT[t]) for v, t in zip((x, y), types, strict=True))
        # Row by row: all products of a tile at once would not fit the caches.
        exponent, total = np.empty(plain.shape, np.int64), np.empty(plain.shape)
        for i in range(x.shape[-2]):
            largest = np.max(ex[..., i, None, :] + ey, axis=-1)
            largest = np.maximum(largest, _exponents(out[..., i, :], -126))
            largest = np.where(largest < -300, 0, largest)  # all are zero
            products = x[..., i, None, :] * y
            total[..., i, :] = _cut(products, largest[..., None]).sum(-1) + _cut(out[..., i, :], largest)
            exponent[..., i, :] = np.maximum(np.frexp(total[..., i, :])[1] - 1, -126)
        out = np.where(special, plain, _cut(total, exponent))
    return out.astype(np.float32)
