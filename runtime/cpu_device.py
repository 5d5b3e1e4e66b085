"""The CPU as a device: launch programs as native functions over a pool of threads."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ingot.dims import evaluate
from ingot.dtypes import ONNX_TYPE_BY_NAME, OnnxType
from ingot.engine import Weight
from ingot.errors import DeviceError
from ingot.launch_program import kernel_symbols
from ingot.runtime.arrays import allocate, as_array, from_storage, storage_shape, to_storage
from ingot.runtime.cpu_image import CpuImages
from ingot.runtime.device import Call, Resident
from ingot.runtime.program_loader import LoadedProgram
from ingot.runtime.specialization import Specializer
from ingot.runtime.thread_pool import shared_pool
from ingot.target import Target

RUN = "run"  # the native program's symbol (`ingot.compiler.native_program`)


class CpuDevice:
    """This machine's processor.

    Args:
        target: what it is.
        threads: threads that a call uses; the cores by default.
    """

    name = "cpu"

    def __init__(self, target: Target, threads: int | None = None) -> None:
        self.target = self.own_target = target
        self.threads = threads

    def prepare(
        self, programs: Sequence[LoadedProgram], weights: Mapping[str, Weight], specializers: Sequence[Specializer] = ()
    ) -> list[CpuExecutable]:
        """Map the kernels; weights are used where they lie. Kernels for any shape serve all shapes."""
        shared = CpuWeights(weights)
        return [CpuExecutable(loaded, shared, self.threads) for loaded in programs]


class CpuWeights:
    """Weights where they lie, or copied once where that is not aligned for kernels."""

    def __init__(self, weights: Mapping[str, Weight]) -> None:
        self._weights = weights
        self._views: dict[str, np.ndarray] = {}

    def address(self, name: str, nbytes: Any) -> int:
        """Where a weight lies. Raises DeviceError where it is missing or of another size than a program expects."""
        view = self._views.get(name)
        if view is None:
            if name not in self._weights:
                raise DeviceError(f"weight {name!r} has no data", cure="refit the engine: it was saved without weights")
            view = np.frombuffer(self._weights[name].bytes_view(), np.uint8)
            if view.ctypes.data % 64 and view.nbytes:
                aligned = allocate(view.nbytes)
                aligned[:] = view
                view = aligned
            self._views[name] = view
        if view.nbytes != nbytes:
            raise DeviceError(f"weight {name!r} has {view.nbytes} bytes, the program expects {nbytes}")
        return view.ctypes.data


class CpuExecutable:
    """A program's code and the addresses of its kernels and weights."""

    def __init__(self, loaded: LoadedProgram, weights: CpuWeights, threads: int | None) -> None:
        assert loaded.native is not None
        assert loaded.thread_pool is not None
        self.program = loaded.program
        self.pool = shared_pool(loaded.thread_pool, threads)
        self._images = CpuImages([loaded.native, *loaded.kernels])
        addresses = [self.kernel_address(i, symbol) for i, symbol in kernel_symbols(self.program)]
        self.kernels = np.array([*addresses, 0], np.int64)
        self.run = self._images.function(0, RUN, 6)
        self._weights = weights  # keeps the memory
        self.buffers = np.zeros(len(self.program.buffers) + 1, np.int64)
        for number, buffer in enumerate(self.program.buffers):
            if buffer.kind == "weight":
                self.buffers[number] = weights.address(buffer.name, buffer.bytes)

    def kernel_address(self, number: int, symbol: str) -> int:
        """Address of a function of the program's `number`-th kernel entry."""
        return self._images.address(1 + number, symbol)

    def new_context(self) -> CpuContext:
        """A context with an arena that grows to what calls need."""
        return CpuContext(self)

    def as_input(self, value: Any, name: str, onnx_type: OnnxType) -> np.ndarray:
        """See `ingot.runtime.device.Executable`."""
        return as_array(value, name, onnx_type)

    def to_storage(self, array: np.ndarray, onnx_type: OnnxType) -> np.ndarray:
        """See `ingot.runtime.device.Executable`."""
        return to_storage(array, onnx_type)

    def is_resident(self, array: Any) -> bool:
        """False: the device's memory is the host's."""
        return False

    def to_host(self, array: np.ndarray) -> np.ndarray:
        """See `ingot.runtime.device.Executable`."""
        return array

    def allocate_state(self, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
        """Memory aligned for kernels."""
        return allocate(math.prod(shape) * dtype.itemsize).view(dtype).reshape(shape)

    def copy(self, target: np.ndarray, source: np.ndarray) -> None:
        """See `ingot.runtime.device.Executable`."""
        target[...] = source

    def counters(self) -> dict[str, int]:
        """None."""
        return {}

    def close(self) -> None:
        """Nothing: memory goes with the object."""


class CpuContext:
    """An arena and the arrays of addresses that one call at a time fills in."""

    def __init__(self, executable: CpuExecutable) -> None:
        self._executable = executable
        self._program = executable.program
        self._arena = allocate(0)
        self._buffers = executable.buffers.copy()
        self._status = np.zeros(1, np.int64)
        self._resident: Callable[[], Resident | None] = lambda: None  # whose addresses are in `_buffers`
        self._kinds = [(i, b.kind, b.index) for i, b in enumerate(self._program.buffers) if b.kind in ("input", "output")]
        self._types = [ONNX_TYPE_BY_NAME[o.onnx_type] for o in self._program.outputs]

    def is_free_for(self, call: Call) -> bool:
        """Always: calls end before they return."""
        return True

    def wait_for(self, call: Call) -> None:
        """Nothing is under way between calls."""

    def uploaded(self, index: int) -> int:
        """0: inputs are read where they lie."""
        return 0

    def run(self, call: Call) -> tuple[list[Any], int]:
        """See `ingot.runtime.device.ExecutionContext`."""
        executable = self._executable
        outputs = self._place(call)
        dims = np.array([*call.sizes.dims, 0], np.int64)
        executable.run(
            executable.kernels.ctypes.data,
            self._buffers.ctypes.data,
            self._arena.ctypes.data,
            dims.ctypes.data,
            executable.pool.address,
            self._status.ctypes.data,
        )
        results = [
            a if a is g else from_storage(a, t, shape)
            for a, g, t, shape in zip(outputs, call.outputs, self._types, call.sizes.output_shapes, strict=True)
        ]
        return results, int(self._status[0])

    def profile(self, call: Call, repeats: int = 10) -> list[dict[str, Any]]:
        """See `ingot.runtime.device.ExecutionContext`."""
        from ingot.runtime.cpu_profile import profile

        self.run(call)
        outputs = self._place(call)
        bases = [int(b) for b in self._buffers]
        for number, buffer in enumerate(self._program.buffers):
            if buffer.kind == "arena":
                bases[number] = self._arena.ctypes.data + evaluate(buffer.offset, call.sizes.env)
        executable = self._executable
        rows = profile(self._program, executable.pool, executable.kernel_address, bases, dict(call.sizes.env), repeats)
        del outputs  # kernels wrote there until now
        return rows

    def _place(self, call: Call) -> list[np.ndarray]:
        """Make room for a call and write down where everything lies; the arrays of the outputs."""
        if call.sizes.arena_bytes > self._arena.nbytes:
            self._arena = allocate(0)  # the old one goes first
            self._arena = allocate(call.sizes.arena_bytes)
        outputs = [
            allocate_array(t.storage, shape) if given is None else given
            for t, shape, given in zip(self._types, call.sizes.output_shapes, call.outputs, strict=True)
        ]
        resident = call.resident
        stay = self._resident() is resident
        self._resident = lambda: None
        for number, kind, index in self._kinds:
            if stay and index in (resident.inputs if kind == "input" else resident.outputs):
                continue  # as in the call before
            array = call.inputs[index] if kind == "input" else outputs[index]
            self._buffers[number] = array.ctypes.data
        self._resident = weakref.ref(resident)
        return outputs

    def close(self) -> None:
        """Drop the arena."""
        self._arena = allocate(0)


def allocate_array(storage: str, shape: tuple[int, ...]) -> np.ndarray:
    """A new array of a storage type, aligned for kernels; sub-byte types give their packed bytes."""
    stored, dtype = storage_shape(storage, shape)
    elements = int(np.prod(stored, dtype=np.int64))
    return allocate(elements * dtype.itemsize).view(dtype)[:elements].reshape(stored)
