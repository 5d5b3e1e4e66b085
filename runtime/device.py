"""What a session needs of a device: the interface between `Session` and the runtimes of CPU and CUDA.

A `Device` makes an `Executable` of each of an engine's loaded programs and its weights, which they share; an executable makes
`ExecutionContext`s. A context holds what one call at a time needs (an arena; on a GPU also a stream and graphs) and is leased
to one thread for each call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ingot.dtypes import OnnxType
from ingot.engine import Weight
from ingot.errors import DeviceError
from ingot.runtime.cuda_stream import CudaStream
from ingot.runtime.program_loader import LoadedProgram, ProgramLoader
from ingot.runtime.specialization import Specializer
from ingot.target import Target


@dataclass(frozen=True)
class Sizes:
    """Everything that follows from the inputs' shapes, evaluated once and kept.

    Attributes:
        env: values of the program's symbols; see `ingot.launch_program.dim_names`.
        dims: the same, in the order of `dim_names`.
        arena_bytes: size of the arena.
        output_shapes: sizes of the outputs.
        lengths: of the program's states after the call.
    """

    env: Mapping[str, int]
    dims: tuple[int, ...]
    arena_bytes: int
    output_shapes: tuple[tuple[int, ...], ...]
    lengths: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Resident:
    """Memory that calls share: the buffers of a bound session's donated states. As long as calls have the same object, a
    context need not look for these again.

    Attributes:
        inputs, outputs: arrays of the device's, by number.
        capacities: of states, by number.
    """

    inputs: Mapping[int, Any] = field(default_factory=dict)
    outputs: Mapping[int, Any] = field(default_factory=dict)
    capacities: Mapping[int, int] = field(default_factory=dict)


NOTHING_RESIDENT = Resident()


@dataclass(frozen=True)
class Call:
    """One call.

    Attributes:
        sizes: what the shapes gave.
        inputs: an array for each input: of numpy, or of the device; contiguous, of the storage type.
        outputs: for each output an array to write to, or None for a new one. A donated state's output is its input's array.
        on_device: return the device's own arrays rather than numpy's.
        stream: CUDA: the user's stream to run on; where nothing has to reach numpy's arrays, the call does not wait for it.
        kept: numbers of outputs that may stay in the context's memory until its next call, on the device.
        placed: addresses at which inputs of numpy's, by number, lie on the device already.
        resident: those of `inputs` and `outputs` that do not change from call to call.
    """

    sizes: Sizes
    inputs: Sequence[Any]
    outputs: Sequence[Any | None]
    on_device: bool = False
    stream: CudaStream | None = None
    kept: frozenset[int] = frozenset()
    placed: Mapping[int, int] = field(default_factory=dict)
    resident: Resident = NOTHING_RESIDENT


class ExecutionContext(Protocol):
    """Memory and queues for one call at a time."""

    def is_free_for(self, call: Call) -> bool:
        """True where the call would not wait for an earlier one of this context that is still under way."""
        ...

    def wait_for(self, call: Call) -> None:
        """Until what this context has under way has ended, unless all that the call does comes after it anyway."""
        ...

    def uploaded(self, index: int) -> int:
        """The address on the device at which the last call's input lies; 0 where it is read where the caller has it."""
        ...

    def run(self, call: Call) -> tuple[list[Any], int]:
        """Run the program; its outputs, and 0, or 1 + the number of the guard that failed.

        Raises DeviceError where memory is missing or a kernel faulted.
        """
        ...

    def profile(self, call: Call, repeats: int = 10) -> list[dict[str, Any]]:
        """Run the launches one by one: `{"kernel", "node", "runs", "ms", "flops", "bytes"}` for each, in order."""
        ...

    def close(self) -> None:
        """Free what the context holds."""
        ...


class Executable(Protocol):
    """A program on a device, with its weights."""

    def new_context(self) -> ExecutionContext: ...

    def as_input(self, value: Any, name: str, onnx_type: OnnxType) -> Any:
        """A caller's array of any kind as numpy's or the device's, sharing its memory. Raises InputError."""
        ...

    def to_storage(self, array: Any, onnx_type: OnnxType) -> Any:
        """The array as kernels read it; itself where it is so already."""
        ...

    def is_resident(self, array: Any) -> bool:
        """True for an array that lies in the device's own memory, apart from the host's."""
        ...

    def to_host(self, array: Any) -> np.ndarray:
        """An input's array in host memory: itself, or a copy of what lies in the device's, which is waited for."""
        ...

    def allocate_state(self, shape: Sequence[int], dtype: np.dtype) -> Any:
        """An uninitialized array on the device for a donated state; slices of it are views."""
        ...

    def copy(self, target: Any, source: Any) -> None:
        """Copy between arrays of one shape; `target` is (a view of) a state, `source` that or numpy's."""
        ...

    def counters(self) -> dict[str, int]:
        """What this kind of device counts, for `Session.stats`."""
        ...

    def close(self) -> None: ...


class Device(Protocol):
    """A place to run.

    Attributes:
        name: `cpu` or `cuda:N`.
        target: what kernels for any shape are compiled for: those that `ingot compile --target` made serve all such devices.
        own_target: the same with what is known of this very device, for kernels of one shape.
    """

    name: str
    target: Target
    own_target: Target

    def prepare(
        self, programs: Sequence[LoadedProgram], weights: Mapping[str, Weight], specializers: Sequence[Specializer] = ()
    ) -> Sequence[Executable]:
        """Load an engine's programs and the weights that they share, each once; a device that gains from kernels for the shape
        at hand asks the program's specializer for them."""
        ...


def open_device(name: str | None, loader: ProgramLoader, *, threads: int | None = None, priority: int = 0) -> Device:
    """The device of a name; None takes the first GPU where there is one, else the CPU.

    Args:
        loader: knows the host's target.
        threads: CPU: of a call.
        priority: CUDA: of the streams that calls run on.

    Raises:
        DeviceError: no device has this name here.
    """
    if name is None:
        from ingot.runtime.platform_posix import has_gpu

        name = "cuda:0" if has_gpu() else "cpu"
    if name == "cpu":
        from ingot.runtime.cpu_device import CpuDevice

        return CpuDevice(loader.host_target(), threads)
    kind, _, ordinal = name.partition(":") if isinstance(name, str) else (None, "", "")
    if kind == "cuda" and (ordinal or "0").isdecimal():
        from ingot.runtime.cuda_device import CudaDevice

        return CudaDevice(int(ordinal or "0"), priority)
    raise DeviceError(f"no device is named {name!r}", cure="use 'cpu', 'cuda' or 'cuda:N'")
