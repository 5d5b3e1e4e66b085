"""DLPack capsules of memory on any device (https://dmlc.github.io/dlpack, `dlpack.h` version 0.8, `DLManagedTensor`).

A capsule owns a struct that holds the array alive until its consumer, or the capsule that nobody consumed, calls the deleter.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

CPU, CUDA = 1, 2  # DLDeviceType
# DLDataTypeCode by numpy's kind, and by name for types that numpy lacks.
_KINDS = {"i": 0, "u": 1, "f": 2, "c": 5, "b": 6}
_NAMES = {
    "bfloat16": 4, "float8_e4m3fn": 10, "float8_e4m3fnuz": 11, "float8_e5m2": 12, "float8_e5m2fnuz": 13, "float8_e8m0fnu": 14,
}  # fmt: skip


class DLDevice(ctypes.Structure):
    _fields_ = (("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32))


class DLDataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", DLDevice),
        ("ndim", ctypes.c_int32),
        ("dtype", DLDataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class DLManagedTensor(ctypes.Structure):
    pass


_Deleter = ctypes.CFUNCTYPE(None, ctypes.POINTER(DLManagedTensor))
DLManagedTensor._fields_ = (("dl_tensor", DLTensor), ("manager_ctx", ctypes.c_void_p), ("deleter", _Deleter))

_NAME = b"dltensor"
_owned: dict[int, tuple[Any, ...]] = {}  # by the struct's address: what it points to, and the array's owner

# The capsule is dying when its destructor gets it, so it goes by address: Python must not count references to it.
_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", ctypes.pythonapi))
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", ctypes.pythonapi))


@_Deleter
def _delete(managed: Any) -> None:
    _owned.pop(ctypes.addressof(managed.contents), None)


@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def _destroy(capsule: int) -> None:
    if _is_valid(capsule, _NAME):  # a consumer renames it
        _owned.pop(_pointer(capsule, _NAME), None)


def data_type(dtype: np.dtype) -> DLDataType:
    """DLPack's description of a type. Raises BufferError where it has none."""
    code = _NAMES.get(dtype.name)
    if code is None and dtype.isbuiltin == 1:
        code = _KINDS.get(dtype.kind)
    if code is None:
        raise BufferError(f"DLPack has no code for {dtype}")
    return DLDataType(code, 8 * dtype.itemsize, 1)


def capsule(
    address: int, shape: Sequence[int], strides: Sequence[int], dtype: np.dtype, device: tuple[int, int], owner: Any
) -> Any:
    """A capsule named `dltensor`.

    Args:
        address: of element 0.
        shape, strides: of the same length; strides in bytes, multiples of the element.
        device: DLDeviceType and ordinal.
        owner: kept alive as long as the capsule's tensor.

    Raises:
        BufferError: DLPack cannot describe the type or the strides.
    """
    dtype = np.dtype(dtype)
    if any(s % dtype.itemsize for s in strides):
        raise BufferError(f"strides of {list(strides)} bytes are no multiples of {dtype.itemsize}")
    sizes = (ctypes.c_int64 * len(shape))(*shape)
    steps = (ctypes.c_int64 * len(shape))(*(s // dtype.itemsize for s in strides))
    managed = DLManagedTensor(DLTensor(address, DLDevice(*device), len(shape), data_type(dtype)), None, _delete)
    managed.dl_tensor.shape = ctypes.cast(sizes, ctypes.POINTER(ctypes.c_int64))
    managed.dl_tensor.strides = ctypes.cast(steps, ctypes.POINTER(ctypes.c_int64))
    where = ctypes.addressof(managed)
    _owned[where] = managed, sizes, steps, owner
    return _new(where, _NAME, ctypes.cast(_destroy, ctypes.c_void_p))
