"""Numbers as integers in the same order, for kernels that sort."""

from __future__ import annotations

from typing import Any

from ingot.compiler.codegen.values import Val
from ingot.dtypes import DTYPES


def key_type(dtype: str) -> str:
    """The type of the keys of elements of `dtype`: i64 for those of 64 bits, else i32."""
    return "i64" if DTYPES[dtype].bits == 64 else "i32"


def sort_key(k: Any, x: Val, dtype: str) -> Val:
    """The key of a scalar of computing type `dtype`: signed integers, ordered as the numbers are.

    Both zeros have one key, and all NaN the largest.
    """
    name = key_type(dtype)
    if DTYPES[dtype].kind != "float":
        return k.cast(x, name, signed=dtype != "i1")
    bits = 64 if name == "i64" else 32
    raw = k.bitcast(x + 0.0, name)  # -0 + 0 is +0
    # The bits of negative floats count downwards.
    key = raw ^ (raw.sar(bits - 1) & ((1 << (bits - 1)) - 1))
    return k.select(k.is_nan(x), (1 << (bits - 1)) - 1, key)
