"""Arrays in a GPU's memory, exchanged with other libraries without copies.

`CudaArray` offers `__cuda_array_interface__` (Numba, "CUDA Array Interface", version 3), DLPack and, for those who want numpy,
`__array__`. `as_cuda_array` reads other libraries' arrays by the same interface or by DLPack.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ingot.errors import InputError
from ingot.runtime import dlpack
from ingot.runtime.cuda_driver import Cuda
from ingot.runtime.cuda_stream import LEGACY_DEFAULT, CudaStream

# Types that numpy lacks travel as unsigned integers of their width, as the interface has no code for them.
_CARRIERS = {1: "|u1", 2: "<u2"}


class DeviceMemory:
    """A piece of device memory, freed when nothing refers to it any more.

    With a stream it is allocated and freed in the stream's order, and neither waits for the GPU: work of another stream that
    uses it must have ended when it goes.
    """

    def __init__(self, cuda: Cuda, nbytes: int, stream: CudaStream | None = None) -> None:
        self._cuda, self.nbytes, self._stream = cuda, nbytes, stream
        self.address = cuda.allocate(nbytes) if stream is None else cuda.allocate_async(nbytes, stream.handle)

    def __del__(self) -> None:
        address, self.address = getattr(self, "address", 0), 0
        if not address:
            return
        with self._cuda.borrowed() as usable:
            if usable and self._stream is None:
                self._cuda.free(address)
            elif usable and self._stream is not None:
                self._cuda.free_async(address, self._stream.handle)


class CudaArray:
    """A strided view of device memory.

    Attributes:
        memory: what keeps it alive.
        address: of element 0.
        shape, dtype: as numpy's.
        strides: in bytes.
        ready: handle of the stream in whose order the contents are there; None where they are there already.
    """

    def __init__(
        self,
        cuda: Cuda,
        memory: Any,
        address: int,
        shape: Sequence[int],
        dtype: np.dtype,
        strides: Sequence[int] | None = None,
        ready: int | None = None,
    ) -> None:
        self.cuda, self.memory, self.address, self.ready = cuda, memory, address, ready
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        self.strides = tuple(strides) if strides is not None else _row_major(self.shape, self.dtype.itemsize)

    @staticmethod
    def empty(cuda: Cuda, shape: Sequence[int], dtype: np.dtype, stream: CudaStream | None = None) -> CudaArray:
        """A new contiguous array with undefined contents, in `stream`'s order (see `DeviceMemory`) where one is given.

        Raises DeviceError where there is no memory.
        """
        memory = DeviceMemory(cuda, math.prod(shape) * np.dtype(dtype).itemsize, stream)
        return CudaArray(cuda, memory, memory.address, shape, dtype, ready=None if stream is None else stream.handle)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def is_contiguous(self) -> bool:
        """True where elements lie in row-major order without gaps."""
        step = self.dtype.itemsize
        for d, s in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if d != 1 and s != step:
                return False
            step *= d
        return True

    def __repr__(self) -> str:
        return f"CudaArray({self.dtype}{list(self.shape)} on cuda:{self.cuda.ordinal})"

    def __getitem__(self, index: Any) -> CudaArray:
        """A view by slices with positive steps, one for each leading axis."""
        index = index if isinstance(index, tuple) else (index,)
        if len(index) > self.ndim or not all(isinstance(i, slice) for i in index):
            raise IndexError(f"{index} is not a tuple of at most {self.ndim} slices")
        address, shape, strides = self.address, list(self.shape), list(self.strides)
        for axis, part in enumerate(index):
            start, stop, step = part.indices(self.shape[axis])
            address += start * strides[axis]
            shape[axis] = max(0, -(-(stop - start) // step))
            strides[axis] *= step
        return CudaArray(self.cuda, self.memory, address, shape, self.dtype, strides, self.ready)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        known = self.dtype.kind in "fiub" and self.dtype.isbuiltin == 1
        return {
            "shape": self.shape,
            "typestr": self.dtype.str if known else _CARRIERS[self.dtype.itemsize],
            "data": (self.address, False),
            "strides": None if self.is_contiguous else self.strides,
            "version": 3,
            "stream": self.ready,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, self.cuda.ordinal

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A capsule over this memory (Python array API, `__dlpack__`): work put on `stream` from now on finds the contents.

        `stream` is a handle, None for the legacy default stream, or -1 for no order. `max_version` is accepted and an
        unversioned capsule given, as is allowed. Raises BufferError where a copy or another device is asked for.
        """
        if copy:
            raise BufferError("an array of Ingot is exported without a copy")
        if dl_device is not None and tuple(dl_device) != self.__dlpack_device__():
            raise BufferError(f"cannot move from {self.__dlpack_device__()} to {dl_device}")
        if stream == 0:
            raise ValueError("stream 0 is ambiguous (array API, __dlpack__): 1 is the legacy default, 2 the thread's")
        consumer = LEGACY_DEFAULT if stream is None else stream
        if self.ready is not None and consumer not in (-1, self.ready):
            self.cuda.activate()
            self.cuda.order(self.ready, consumer)
        return dlpack.capsule(self.address, self.shape, self.strides, self.dtype, self.__dlpack_device__(), self)

    def numpy(self) -> np.ndarray:
        """A copy in host memory."""
        self.cuda.activate()
        out = np.empty(self.shape, self.dtype)
        if out.size == 0:
            return out
        stream = self.ready or 0
        if self.is_contiguous:
            self.cuda.download(out.ctypes.data, self.address, self.nbytes, stream)
            self.cuda.synchronize(stream)
            return out
        extent = sum((d - 1) * s for d, s in zip(self.shape, self.strides, strict=True)) + self.dtype.itemsize
        raw = np.empty(extent, np.uint8)
        self.cuda.download(raw.ctypes.data, self.address, extent, stream)
        self.cuda.synchronize(stream)
        view = np.lib.stride_tricks.as_strided(raw[: self.dtype.itemsize].view(self.dtype), self.shape, self.strides)
        out[...] = view
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("an array on a GPU cannot become a numpy array without a copy")
        array = self.numpy()
        return array if dtype is None else array.astype(dtype)


def _row_major(shape: tuple[int, ...], step: int) -> tuple[int, ...]:
    """Byte strides of a contiguous array whose elements take `step` bytes."""
    out = []
    for d in reversed(shape):
        out.append(step)
        step *= d
    return tuple(reversed(out))


def is_device_array(value: Any) -> bool:
    """True for arrays of any library that lie in a GPU's memory."""
    if isinstance(value, CudaArray) or hasattr(value, "__cuda_array_interface__"):
        return True
    if not hasattr(value, "__dlpack_device__"):
        return False
    kind, _ = value.__dlpack_device__()
    return int(kind) == 2  # kDLCUDA


def as_cuda_array(value: Any, name: str, cuda: Cuda, dtype: np.dtype) -> CudaArray:
    """A view of another library's array in this GPU's memory, without a copy.

    Args:
        name: of the input, for errors.
        dtype: what the engine expects.

    Raises:
        InputError: the array is of another type, or on another GPU.
    """
    if isinstance(value, CudaArray):
        _check_place(value.cuda.ordinal, name, cuda)
        if value.dtype != dtype:
            raise InputError(f"expects {dtype}, got {value.dtype}", node=name, cure="convert it first")
        return value
    interface = _interface(value)
    if interface is None:
        return _from_dlpack(value, name, cuda, dtype)
    if hasattr(value, "__dlpack_device__"):  # the interface itself does not say where the memory is
        _check_place(int(value.__dlpack_device__()[1]), name, cuda)
    typestr = interface["typestr"]
    if np.dtype(typestr) != dtype and not (dtype.isbuiltin != 1 and typestr == _CARRIERS.get(dtype.itemsize)):
        raise InputError(f"expects {dtype}, got an array of type {typestr}", node=name, cure="convert it first")
    address = interface["data"][0]
    # Before version 3 the interface said nothing of streams: the default stream is what such libraries use.
    ready = interface.get("stream") if interface.get("version", 0) >= 3 else LEGACY_DEFAULT
    return CudaArray(cuda, value, address, interface["shape"], dtype, interface.get("strides"), ready)


def _check_place(ordinal: int, name: str, cuda: Cuda) -> None:
    if ordinal != cuda.ordinal:
        raise InputError(f"lies on cuda:{ordinal}, the session runs on cuda:{cuda.ordinal}", node=name, cure="move it")


def _interface(value: Any) -> dict[str, Any] | None:
    try:
        return getattr(value, "__cuda_array_interface__", None)
    except (AttributeError, TypeError, RuntimeError):  # PyTorch raises for types that the interface has no code for
        return None


def _from_dlpack(value: Any, name: str, cuda: Cuda, dtype: np.dtype) -> CudaArray:
    from cuda.core.utils import StridedMemoryView

    try:
        # The producer's stream is made to come before it.
        view = StridedMemoryView.from_dlpack(value, stream_ptr=LEGACY_DEFAULT)
        found = np.dtype(view.dtype)
    except (BufferError, RuntimeError, TypeError, ValueError) as e:
        raise InputError(f"{type(value).__name__} cannot be read: {e}", node=name, cure="convert it first") from None
    _check_place(view.device_id, name, cuda)
    if found != dtype and not (dtype.isbuiltin != 1 and found.str == _CARRIERS.get(dtype.itemsize)):
        raise InputError(f"expects {dtype}, got {view.dtype}", node=name, cure="convert it first")
    strides = None if view.strides is None else [s * dtype.itemsize for s in view.strides]
    return CudaArray(cuda, (value, view), view.ptr, view.shape, dtype, strides, LEGACY_DEFAULT)


def copy_strided(cuda: Cuda, target: CudaArray, source: CudaArray) -> None:
    """Copy between views of one shape in a GPU's memory, by as few two-dimensional copies as their strides allow.

    Waits for both arrays' streams and for the copy.
    Raises ValueError where the shapes differ or the innermost axis of a view has gaps.
    """
    if target.shape != source.shape or target.dtype != source.dtype:
        raise ValueError(f"cannot copy {source} to {target}")
    if target.size == 0:
        return
    for stream in {target.ready, source.ready}:
        if stream is not None:
            cuda.synchronize(stream)
    outer, width = _rows(target, source)
    count, target_pitch, source_pitch = 1, width, width
    if outer and min(outer[-1][1:]) >= width:  # rows that repeat (stride 0) or run backwards are copied one by one
        count, target_pitch, source_pitch = outer.pop()
    for index in np.ndindex(*(n for n, _, _ in outer)):
        t = target.address + sum(i * s for i, (_, s, _) in zip(index, outer, strict=True))
        f = source.address + sum(i * s for i, (_, _, s) in zip(index, outer, strict=True))
        cuda.copy_rows(t, target_pitch, f, source_pitch, width, count, 0)
    assert width % target.dtype.itemsize == 0
    cuda.synchronize(0)


def _rows(target: CudaArray, source: CudaArray) -> tuple[list[tuple[int, int, int]], int]:
    """Axes outside the contiguous part, as (size, target stride, source stride), neighbours merged; and that part's bytes."""
    width = target.dtype.itemsize
    axes = [a for a in zip(target.shape, target.strides, source.strides, strict=True) if a[0] != 1]
    while axes and axes[-1][1] == axes[-1][2] == width:
        width *= axes.pop()[0]
    if width == target.dtype.itemsize and axes and width not in (axes[-1][1], axes[-1][2]):
        raise ValueError(f"the innermost axis has gaps: strides {target.strides} and {source.strides}")
    merged: list[tuple[int, int, int]] = []
    for n, t, f in axes:
        if merged and merged[-1][1] == n * t and merged[-1][2] == n * f:
            merged[-1] = merged[-1][0] * n, t, f
        else:
            merged.append((n, t, f))
    return merged, width
