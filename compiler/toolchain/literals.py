"""Floating-point literals between two versions of LLVM's text: MLIR writes LLVM 24's, llvmlite reads LLVM 22's.

LLVM 24 prints decimals that round to the value (`float 1.000000e-01`), bit patterns as `f0x3F4C422A`, and the words
`+inf`, `-qnan`, `+nan(0x1)`, `+snan(0x1)`. LLVM 22 refuses all of these except exact decimals. It accepts bit patterns:
`0xH3C00` (half), `0xR3F80` (bfloat), and 16 hexadecimal digits for float (as the double of equal value) and double.
`fix_literals` rewrites to those; nothing else was found to differ in what Ingot's kernels use.
"""

from __future__ import annotations

import re
import struct
from fractions import Fraction
from functools import cache

_FORMATS = {"half": (5, 10), "bfloat": (8, 7), "float": (8, 23), "double": (11, 52)}  # exponent and mantissa bits
_LITERAL = re.compile(
    r"(?<![\w.%@])(?:f0x[0-9A-Fa-f]+|[-+]?\d+\.\d+e[-+]\d+|[-+](?:inf|qnan|s?nan\(0x[0-9A-Fa-f]+\)))(?![\w.])"
)
_TYPE = re.compile(r"(?<![\w.%@])(half|bfloat|float|double)(?![\w.])")


def _round_decimal(text: str, exponent_bits: int, mantissa_bits: int) -> int:
    """Bits of a decimal rounded to nearest even in an IEEE format with the given field widths."""
    sign = int(text.startswith("-")) << (exponent_bits + mantissa_bits)
    value = abs(Fraction(text))
    if value == 0:
        return sign
    bias = (1 << (exponent_bits - 1)) - 1
    exponent = value.numerator.bit_length() - value.denominator.bit_length()
    if Fraction(2) ** exponent > value:
        exponent -= 1
    exponent = max(exponent, 1 - bias)
    units = round(value / Fraction(2) ** (exponent - mantissa_bits))  # Fraction rounds halves to even
    # A unit count at or above 2^mantissa_bits carries the hidden bit, which is the exponent field's lowest; sums carry over.
    field = (exponent + bias - 1) << mantissa_bits
    return sign | (units if exponent == 1 - bias and units < 1 << mantissa_bits else field + units)


def _literal_bits(kind: str, text: str) -> int:
    exponent_bits, mantissa_bits = _FORMATS[kind]
    if text.startswith("f0x"):
        return int(text[3:], 16)
    if text[1:].startswith(("inf", "qnan", "nan", "snan")):
        bits = int(text[0] == "-") << (exponent_bits + mantissa_bits)
        bits |= ((1 << exponent_bits) - 1) << mantissa_bits
        quiet = 1 << (mantissa_bits - 1)
        if "(" in text:
            bits |= int(text[text.index("(") + 1 : -1], 16)
            return bits if "snan" in text else bits | quiet
        return bits | quiet if "qnan" in text else bits
    return _round_decimal(text, exponent_bits, mantissa_bits)


@cache
def _rewrite(kind: str, text: str) -> str:
    bits = _literal_bits(kind, text)
    if kind == "half":
        return f"0xH{bits:04X}"
    if kind == "bfloat":
        return f"0xR{bits:04X}"
    if kind == "float":
        if (bits >> 23) & 0xFF == 0xFF:  # keep a NaN's payload, which a conversion could quieten
            bits = (bits >> 31) << 63 | 0x7FF << 52 | (bits & 0x7FFFFF) << 29
        else:
            single = struct.unpack("<f", struct.pack("<I", bits))[0]
            bits = struct.unpack("<Q", struct.pack("<d", single))[0]
    return f"0x{bits:016X}"


def fix_literals(text: str) -> str:
    """LLVM 24 text with its floating-point literals as LLVM 22 reads them.

    The type is the last one named before it on its line.
    """
    pieces: list[str] = []
    done = line_start = seen = 0
    kind: str | None = None
    for match in _LITERAL.finditer(text):
        at = match.start()
        start = text.rfind("\n", line_start, at) + 1
        if start > line_start or seen == 0:
            line_start = seen = max(start, line_start)
            kind = None
        for named in _TYPE.finditer(text, seen, at):
            kind = named[1]
        seen = at
        if kind is None or text.count('"', line_start, at) & 1:  # inside a string: inline assembly
            continue
        pieces.append(text[done:at])
        pieces.append(_rewrite(kind, match[0]))
        done = match.end()
    pieces.append(text[done:])
    return "".join(pieces)
