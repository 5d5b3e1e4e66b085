"""Division of f32 by a constant, correctly rounded, in two instructions and without a branch.

x / c is fma(x, h, x * l), where h is 1/c rounded towards zero and l what h lacks of it (N. Brisebarre, J.-M. Muller,
S. K. Raina: "Accelerating Correctly Rounded Floating-Point Division when the Divisor Is Known in Advance", IEEE Transactions on
Computers 53(8), 2004). As h and l have one sign, infinities stay infinities. The sum is rounded once, and is off by 2**-46 of
itself before: only quotients that lie so near to the middle between two numbers may be rounded to the wrong one. A divisor has
few of them, and all are tried here. GPUs divide by ten instructions, a branch and a call, and assemblers take long for them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache

import numpy as np

_BITS = 24  # of a significand
_LARGEST = 100  # exponent up to which divisors and their reciprocals are taken, so that nothing over- or underflows within
_NEAR = 8  # numerators of differences to the middle that 2**-46 of the quotient can be


@lru_cache(maxsize=1024)
def reciprocal_parts(divisor: float) -> tuple[float, float] | None:
    """(h, l) of an f32, with which fma(x, h, x * l) is x / divisor, rounded correctly for every x.

    A quotient below 2**-100 may be off by a unit of its last place, as x * l is subnormal there.
    None for powers of two, whose reciprocals are exact, for divisors beyond 2**100 or below 2**-100, and where a quotient
    would be rounded wrongly.
    """
    c = float(np.float32(divisor))
    if not math.isfinite(c) or c == 0 or math.frexp(c)[0] in (0.5, -0.5) or abs(math.frexp(c)[1]) > _LARGEST:
        return None
    exact = 1 / Fraction(abs(c))
    high = _round(exact, nearest=False)
    low = _round(exact - high)
    for x in _difficult(abs(c)):
        if _round(x * high + _round(x * low)) != _round(x * exact):
            return None
    return math.copysign(float(high), c), math.copysign(float(low), c)


def _difficult(c: float) -> Iterator[Fraction]:
    """The numbers in [2**23, 2**24) whose quotients by `c` are within 2**-46 of a middle between two numbers.

    With C the significand of c as an integer, the quotient's is X * 2**s / C; it is near a middle N / 2, N odd, where
    X * 2**(s + 1) - C * N is a small integer, which says what N is modulo a power of two.
    """
    significand = int(math.frexp(c)[0] * 2**_BITS)
    shift = (significand & -significand).bit_length() - 1
    odd = significand >> shift
    for s in (_BITS - 1, _BITS):
        modulus = 1 << (s + 1 - shift)
        inverse = pow(odd, -1, modulus)
        for difference in range(-_NEAR, _NEAR + 1):
            if not difference or difference % (1 << shift):  # no quotient lies in the middle
                continue
            first = (-(difference >> shift) * inverse) % modulus
            begin = (1 << _BITS) + (first - (1 << _BITS)) % modulus
            for n in range(begin, 2 << _BITS, modulus):
                x = (difference + significand * n) >> (s + 1)
                if n % 2 and 1 << (_BITS - 1) <= x < 1 << _BITS:
                    yield Fraction(x)


def _round(x: Fraction, *, nearest: bool = True) -> Fraction:
    """A positive number to 24 bits, to nearest (even), or towards zero."""
    exponent = x.numerator.bit_length() - x.denominator.bit_length() - _BITS
    unit = Fraction(2) ** exponent
    if x / unit >= 1 << _BITS:
        unit *= 2
    quotient = x / unit
    return (round(quotient) if nearest else quotient.numerator // quotient.denominator) * unit
