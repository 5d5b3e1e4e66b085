"""Number formats of matrix operands: register bits to exact float64 (or int64) arrays."""

from __future__ import annotations

from functools import cache

import ml_dtypes
import numpy as np

# Elements as they lie in registers: bits of the container. 6-bit and 4-bit floats of kind::f8f6f4 fill a byte each.
CONTAINER_BITS = {
    "f16": 16, "bf16": 16, "tf32": 32, "e4m3": 8, "e5m2": 8, "e2m3": 8, "e3m2": 8, "e2m1": 8,
    "s8": 8, "u8": 8, "s4": 4, "u4": 4,
}  # fmt: skip
INTEGERS = ("s8", "u8", "s4", "u4")
_SMALL = {
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
    "e2m3": ml_dtypes.float6_e2m3fn,
    "e3m2": ml_dtypes.float6_e3m2fn,
    "e2m1": ml_dtypes.float4_e2m1fn,
    "ue8m0": ml_dtypes.float8_e8m0fnu,
}


@cache
def _byte_table(name: str, padded: bool) -> np.ndarray:
    """float64 value of every byte. `padded`: e2m1 lies in bits 2 to 5 of its byte, as kind::f8f6f4 wants it."""
    codes: np.ndarray = np.arange(256, dtype=np.uint8)
    if name == "ue4m3":
        codes &= 0x7F
        name = "e4m3"
    elif name == "e2m1":
        codes = (codes >> 2 if padded else codes) & 15
    elif name in ("e2m3", "e3m2"):
        codes &= 63
    return codes.view(_SMALL[name]).astype(np.float64)


def split_words(words: np.ndarray, bits: int) -> np.ndarray:
    """(..., registers) int32 as (..., elements) of unsigned containers of 4, 8, 16 or 32 bits, low bits first."""
    words = np.ascontiguousarray(words)
    if bits == 4:
        octets = words.view(np.uint8)
        return np.stack([octets & 15, octets >> 4], -1).reshape(*octets.shape[:-1], -1)
    return words.view({8: np.uint8, 16: np.uint16, 32: np.uint32}[bits])


def decode(containers: np.ndarray, name: str, padded: bool = True) -> np.ndarray:
    """Exact float64 values of operand containers of type `name` (integers too: they are below 2**8)."""
    if name == "f16":
        return containers.view(np.float16).astype(np.float64)
    if name == "bf16":
        return (containers.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    if name == "tf32":  # the hardware reads the upper 19 bits
        return (containers & np.uint32(0xFFFFE000)).view(np.float32).astype(np.float64)
    if name == "s8":
        return containers.view(np.int8).astype(np.float64)
    if name == "s4":
        return ((containers ^ 8).astype(np.int8) - 8).astype(np.float64)
    if name in ("u8", "u4"):
        return containers.astype(np.float64)
    return _byte_table(name, padded)[containers]
