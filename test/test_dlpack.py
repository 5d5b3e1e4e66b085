"""DLPack capsules: the struct's contents, its life, and a consumer that is not ours."""

from __future__ import annotations

import ctypes
import gc
import weakref

import ml_dtypes
import numpy as np
import pytest

from ingot.runtime import dlpack
from ingot.runtime.cuda_array import CudaArray


class Producer:
    """Memory of a numpy array, offered through `dlpack.capsule` alone."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CPU, 0

    def __dlpack__(self, **kwargs) -> object:
        a = self.array
        return dlpack.capsule(a.ctypes.data, a.shape, a.strides, a.dtype, (dlpack.CPU, 0), self)


def tensor(capsule: object) -> dlpack.DLManagedTensor:
    get = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", ctypes.pythonapi))
    return dlpack.DLManagedTensor.from_address(get(capsule, b"dltensor"))


def test_structs_have_the_layout_of_the_header():
    assert ctypes.sizeof(dlpack.DLTensor) == 48
    assert ctypes.sizeof(dlpack.DLManagedTensor) == 64
    assert dlpack.DLTensor.shape.offset == 24
    assert dlpack.DLTensor.byte_offset.offset == 40


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (np.float32, (2, 32)), (np.float16, (2, 16)), (np.int64, (0, 64)), (np.uint8, (1, 8)), (np.bool_, (6, 8)),
        (ml_dtypes.bfloat16, (4, 16)), (ml_dtypes.float8_e4m3fn, (10, 8)), (ml_dtypes.float8_e5m2, (12, 8)),
    ],
)  # fmt: skip
def test_types(dtype, expected):
    found = dlpack.data_type(np.dtype(dtype))
    assert (found.code, found.bits, found.lanes) == (*expected, 1)


def test_types_and_strides_that_do_not_exist():
    with pytest.raises(BufferError, match="no code for"):
        dlpack.data_type(np.dtype(ml_dtypes.int4))
    with pytest.raises(BufferError, match="no multiples"):
        dlpack.capsule(0, (2,), (6,), np.dtype(np.float32), (dlpack.CPU, 0), None)


class NoCuda:
    """A GPU that is asked for nothing but its number, and for order among streams."""

    ordinal = 3

    def __init__(self) -> None:
        self.orders: list[tuple[int, int]] = []

    def activate(self) -> None: ...

    def order(self, before: int, after: int) -> None:
        self.orders.append((before, after))


def test_device_arrays_describe_themselves():
    array = CudaArray(NoCuda(), object(), 0xABC000, (4, 6, 8), np.float16)[1:3, ::2]
    assert array.__dlpack_device__() == (2, 3)
    found = tensor(held := array.__dlpack__()).dl_tensor
    assert found.data == 0xABC000 + 48 * 2
    assert (found.device.device_type, found.device.device_id) == (2, 3)
    assert found.ndim == 3
    assert found.shape[:3] == [2, 3, 8]
    assert found.strides[:3] == [48, 16, 1]
    assert (found.dtype.code, found.dtype.bits) == (2, 16)
    assert found.byte_offset == 0
    del held


def test_consumers_wait_for_the_stream_that_writes_the_array():
    cuda = NoCuda()
    array = CudaArray(cuda, object(), 0xABC000, (4,), np.float32)
    array.__dlpack__(stream=77)
    assert cuda.orders == []  # nothing is under way
    array.ready = 55
    array.__dlpack__(stream=77)
    array.__dlpack__(stream=None)
    array.__dlpack__(stream=-1)
    array.__dlpack__(stream=55)
    assert cuda.orders == [(55, 77), (55, 1)]
    with pytest.raises(ValueError, match="stream 0"):
        array.__dlpack__(stream=0)
    with pytest.raises(BufferError, match="copy"):
        array.__dlpack__(copy=True)
    with pytest.raises(BufferError, match="cannot move"):
        array.__dlpack__(dl_device=(1, 0))
    assert array.__cuda_array_interface__["stream"] == 55


def test_numpy_reads_in_place_and_releases():
    producer = Producer(np.arange(24, dtype=np.int32).reshape(4, 6)[:, ::2])
    alive = weakref.ref(producer)
    seen = np.from_dlpack(producer)
    assert np.shares_memory(seen, producer.array)
    np.testing.assert_array_equal(seen, producer.array)
    del producer
    gc.collect()
    assert alive() is not None
    del seen
    gc.collect()
    assert alive() is None


def test_a_capsule_that_nobody_consumes_releases():
    producer = Producer(np.arange(3.0))
    alive = weakref.ref(producer)
    capsule = producer.__dlpack__()
    del producer
    gc.collect()
    assert alive() is not None
    del capsule
    gc.collect()
    assert alive() is None
