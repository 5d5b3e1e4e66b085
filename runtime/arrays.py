"""Callers' arrays: checking them against what an engine declares, and bringing them into the form that kernels read."""

from __future__ import annotations

from typing import Any

import numpy as np

from ingot.dtypes import DTYPES, OnnxType, nibbles, onnx_numpy
from ingot.errors import DeviceError, InputError

CALLER_ALIGNMENT = 16  # what kernels assume of inputs and outputs (`ingot.compiler.dispatch_builder`)
ALIGNMENT = 64


def allocate(nbytes: int) -> np.ndarray:
    """`nbytes` uninitialized bytes at a multiple of 64. Raises DeviceError where there is no memory."""
    try:
        raw = np.empty(nbytes + ALIGNMENT, np.uint8)
    except (MemoryError, ValueError) as e:
        raise DeviceError(f"{nbytes} bytes of memory cannot be allocated", cure="use smaller inputs") from e
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes]


def storage_shape(storage: str, shape: tuple[int, ...]) -> tuple[tuple[int, ...], np.dtype]:
    """The shape and dtype of the array that holds a tensor: packed bytes for sub-byte types."""
    dtype = DTYPES[storage]
    if dtype.bits < 8:
        elements = 1
        for d in shape:
            elements *= d
        return (dtype.nbytes(elements),), np.dtype(np.uint8)
    return shape, dtype.np


def as_array(value: Any, name: str, onnx_type: OnnxType) -> np.ndarray:
    """The numpy array of an input of any kind that shares its memory, of the type that the engine declares.

    Raises:
        InputError: it is no array, or of another type.
    """
    if not isinstance(value, np.ndarray):
        try:
            value = np.from_dlpack(value) if hasattr(value, "__dlpack__") else np.asarray(value)
        except (TypeError, ValueError, RuntimeError, BufferError) as e:
            raise InputError(f"{type(value).__name__} is not an array: {e}", node=name, cure="give a numpy array") from None
    expected = onnx_numpy(onnx_type)
    if value.dtype != expected:
        if value.dtype.kind == expected.kind and value.dtype == expected.newbyteorder():
            return value.astype(expected)
        cure = f"convert it: x.astype({expected.name!r})"
        raise InputError(f"expects tensor({onnx_type.name}), got {value.dtype}", node=name, cure=cure)
    return value


def to_storage(array: np.ndarray, onnx_type: OnnxType) -> np.ndarray:
    """The array as kernels read it: contiguous, aligned, 4-bit elements two a byte. Itself where it is so already."""
    if DTYPES[onnx_type.storage].bits < 8:
        codes = nibbles(array)
        packed = allocate((codes.size + 1) // 2)
        packed[:] = codes[0::2]
        packed[: codes.size // 2] |= codes[1::2] << 4
        return packed
    if array.flags.c_contiguous and array.ctypes.data % CALLER_ALIGNMENT == 0:
        return array
    return aligned_copy(array)


def aligned_copy(array: np.ndarray) -> np.ndarray:
    """A contiguous copy in memory of its own."""
    copy = allocate(array.nbytes).view(array.dtype)[: array.size].reshape(array.shape)
    copy[...] = array
    return copy


def from_storage(array: np.ndarray, onnx_type: OnnxType, shape: tuple[int, ...]) -> np.ndarray:
    """The array that a caller sees: of ONNX's type, 4-bit elements unpacked."""
    dtype = onnx_numpy(onnx_type)
    if DTYPES[onnx_type.storage].bits >= 8:
        return array.view(dtype) if array.dtype != dtype else array
    codes = np.empty(array.size * 2, np.uint8)
    codes[0::2] = array & 15
    codes[1::2] = array >> 4
    codes = codes[: int(np.prod(shape, dtype=np.int64))].reshape(shape)
    if onnx_type.storage == "i4" and onnx_type.signed:
        return ((codes.view(np.int8) ^ 8) - 8).astype(dtype)
    return codes.astype(dtype) if onnx_type.storage == "i4" else codes.view(dtype)
