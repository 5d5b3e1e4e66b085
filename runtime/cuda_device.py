"""NVIDIA GPUs as devices: weights uploaded once, a stream, an arena and plans with CUDA graphs for each execution context.

The first call at new sizes launches kernel by kernel; from the second on, a call is one graph launch, or with control whose
outcome depends on data one for each segment between decisions of the host. States that grow from call to call keep their plan:
the sizes that were seen to change become live, and kernels read them from the size table.

A call on the user's stream returns while it is under way. Its context is then *pending*: the next call on another stream is put
behind it by an event, and what the host frees waits for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ingot.cuda_targets import target_for, with_sms
from ingot.dtypes import ONNX_TYPE_BY_NAME, OnnxType, onnx_numpy
from ingot.engine import Weight
from ingot.errors import DeviceError
from ingot.launch_program import dim_names
from ingot.runtime.arrays import CALLER_ALIGNMENT, as_array, from_storage, storage_shape, to_storage
from ingot.runtime.cuda_array import CudaArray, as_cuda_array, copy_strided, is_device_array
from ingot.runtime.cuda_call_plan import CallPlan, HostReader, Memory
from ingot.runtime.cuda_driver import Cuda
from ingot.runtime.cuda_output_memory import OutputPool
from ingot.runtime.cuda_plan import bucket
from ingot.runtime.cuda_segments import entry_guards, positions, read_by_host
from ingot.runtime.cuda_staging import SMALL, Landing, SmallInputs, Staging
from ingot.runtime.cuda_weights import CudaWeights
from ingot.runtime.device import Call, Resident, Sizes
from ingot.runtime.program_loader import LoadedProgram
from ingot.runtime.shape_binding import compile_sizes, values_of
from ingot.runtime.specialization import Specializer

_KEPT_PLANS = 32  # of a context; the one used longest ago is closed first
_KEPT_VARIANTS = 64  # specialized programs of an executable; likewise
_KEPT_COUNTS = 1024  # shapes whose calls a context counts; likewise


class CudaDevice:
    """GPU number `ordinal`, with streams of a priority. Raises DeviceError where it is missing or older than Ingot supports."""

    def __init__(self, ordinal: int = 0, priority: int = 0) -> None:
        self.cuda = Cuda(ordinal)
        self._priority = priority
        self.facts = self.cuda.facts()
        self.name = f"cuda:{ordinal}"
        self.target = target_for(self.facts.capability)
        self.own_target = with_sms(self.target, self.facts.multiprocessors)

    def prepare(
        self, programs: Sequence[LoadedProgram], weights: Mapping[str, Weight], specializers: Sequence[Specializer] = ()
    ) -> list[CudaExecutable]:
        """Start the upload of the weights, each once; specializers build programs for the shapes that are called."""
        return prepare(self.cuda, programs, weights, specializers, self._priority)


class CudaKernels:
    """A program's kernels, loaded when first launched, and unloaded when no plan refers to them any more. Threads may share
    it."""

    def __init__(self, cuda: Cuda, loaded: LoadedProgram) -> None:
        self.program = loaded.program
        self._cuda, self._kernels = cuda, loaded.kernels
        self._lock = threading.Lock()
        self._modules: dict[str | int, Any] = {}
        self._functions: dict[tuple[int, str], Any] = {}

    def function(self, kernel: int, symbol: str, shared_bytes: int) -> Any:
        """A loaded kernel; its module is loaded when first used."""
        key = kernel, symbol
        with self._lock:
            if key not in self._functions:
                code = self._kernels[kernel]
                module = code.module or kernel  # small kernels share modules
                if module not in self._modules:
                    self._modules[module] = self._cuda.load_module(code.code, symbol)
                self._functions[key] = self._cuda.function(self._modules[module], symbol, shared_bytes)
            return self._functions[key]

    def close(self) -> None:
        """Unload the modules; the GPU's context must be current."""
        for module in self._modules.values():
            self._cuda.unload_module(module)
        self._modules, self._functions = {}, {}

    def __del__(self) -> None:
        if getattr(self, "_modules", None):
            with self._cuda.borrowed() as usable:
                if usable:
                    self.close()


def prepare(
    cuda: Cuda,
    programs: Sequence[LoadedProgram],
    weights: Mapping[str, Weight],
    specializers: Sequence[Specializer] = (),
    priority: int = 0,
) -> list[CudaExecutable]:
    """An engine's programs, ready to run, with their weights on the way. Raises DeviceError as `CudaWeights` does."""
    cuda.activate()
    kernels = [CudaKernels(cuda, loaded) for loaded in programs]
    shared = CudaWeights(cuda, [(k.program, k.function) for k in kernels], weights)
    each: Sequence[Specializer | None] = specializers or [None] * len(programs)
    return [
        CudaExecutable(cuda, own, shared, addresses, specializer, priority)
        for own, addresses, specializer in zip(kernels, shared.addresses, each, strict=True)
    ]


class CudaExecutable:
    """A program's kernels, and its engine's weights, in a GPU's memory.

    Attributes:
        graphs: CUDA graphs made so far, by all contexts.
        weights: of the engine.
        addresses: base address of every buffer of the program that is a weight, 0 for others.
        outputs: memory of outputs that stay on the GPU.
    """

    def __init__(
        self,
        cuda: Cuda,
        kernels: CudaKernels,
        weights: CudaWeights,
        addresses: Sequence[int],
        specializer: Specializer | None = None,
        priority: int = 0,
    ) -> None:
        self.cuda, self.program, self._priority = cuda, kernels.program, priority
        self.graphs = 0
        self.outputs = OutputPool(cuda)
        self.kernels, self.weights, self.addresses = kernels, weights, addresses
        self._specializer = specializer
        self._lock = threading.Lock()
        self._variants: OrderedDict[Hashable, CudaKernels] = OrderedDict()

    def has_variant(self, key: Hashable) -> bool:
        """True where the sizes of a key have a specialized program."""
        return key in self._variants

    def kernels_for(self, key: Hashable, env: Mapping[str, int], live: frozenset[str], calls: int) -> CudaKernels:
        """The kernels for sizes: those of a specialized program where there is one, else for any shape."""
        if self._specializer is None:
            return self.kernels
        with self._lock:
            found = self._variants.get(key)
            if found is not None:
                self._variants.move_to_end(key)
                return found
        loaded = self._specializer.get(key, env, live, calls)
        if loaded is None:
            return self.kernels
        with self._lock:
            found = self._variants.setdefault(key, CudaKernels(self.cuda, loaded))
            while len(self._variants) > _KEPT_VARIANTS:
                self._variants.popitem(last=False)  # plans that use it keep it
        return found

    def new_context(self) -> CudaContext:
        """A context with a stream of its own."""
        return CudaContext(self, self._priority)

    def as_input(self, value: Any, name: str, onnx_type: OnnxType) -> Any:
        """See `ingot.runtime.device.Executable`."""
        if is_device_array(value):
            return as_cuda_array(value, name, self.cuda, onnx_numpy(onnx_type))
        return as_array(value, name, onnx_type)

    def to_storage(self, array: Any, onnx_type: OnnxType) -> Any:
        """See `ingot.runtime.device.Executable`; a strided or unaligned array on the device is copied there."""
        if isinstance(array, np.ndarray):
            return to_storage(array, onnx_type)
        if array.is_contiguous and array.address % CALLER_ALIGNMENT == 0:
            return array
        compact = self.allocate_state(array.shape, array.dtype)
        self.copy(compact, array)
        return compact

    def is_resident(self, array: Any) -> bool:
        """True for arrays in a GPU's memory."""
        return isinstance(array, CudaArray)

    def to_host(self, array: Any) -> np.ndarray:
        """See `ingot.runtime.device.Executable`."""
        return array if isinstance(array, np.ndarray) else array.numpy()

    def allocate_state(self, shape: Sequence[int], dtype: np.dtype) -> CudaArray:
        """An array in the GPU's memory."""
        self.cuda.activate()
        return CudaArray.empty(self.cuda, shape, dtype)

    def copy(self, target: CudaArray, source: Any) -> None:
        """See `ingot.runtime.device.Executable`."""
        self.cuda.activate()
        if isinstance(source, np.ndarray):
            staged = CudaArray.empty(self.cuda, source.shape, source.dtype)
            flat = np.ascontiguousarray(source)
            self.cuda.upload(staged.address, flat.ctypes.data, flat.nbytes, 0)
            source = staged
        copy_strided(self.cuda, target, source)

    def counters(self) -> dict[str, int]:
        """CUDA graphs made so far by all contexts, specialized programs in use, and kernels compiled for them."""
        compiled = self._specializer.compiled if self._specializer is not None else 0
        return {"graphs": self.graphs, "specialized_programs": len(self._variants), "specialized_kernels": compiled}

    def close(self) -> None:
        """Free weights and kernels."""
        if self._specializer is not None:
            self._specializer.close()
        self.weights.close()
        if self.cuda.activate_quietly():
            self.outputs.close()
            for kernels in (self.kernels, *self._variants.values()):
                kernels.close()
        self._variants.clear()


@dataclass(frozen=True)
class _Placement:
    """Where what calls share lies.

    Attributes:
        resident: what that is; dropped with its session.
        stream: handle of the stream of the calls; None for the context's own.
        addresses: of every buffer, 0 for those that calls bring.
        inputs, outputs: numbers of those that calls bring.
    """

    resident: Callable[[], Resident | None]
    stream: int | None
    addresses: list[int]
    inputs: list[int]
    outputs: list[int]

    def is_for(self, call: Call) -> bool:
        """Whether a call shares it."""
        return self.resident() is call.resident and self.stream == (None if call.stream is None else call.stream.handle)


class CudaContext:
    """A stream, an arena and plans: what one call at a time needs."""

    def __init__(self, executable: CudaExecutable, priority: int = 0) -> None:
        self._executable, self._cuda, self._program = executable, executable.cuda, executable.program
        self._cuda.activate()
        self._pending = 0  # the user's stream with a call that may be under way
        self._held: Any = None  # what that call reads
        self._uploaded: list[int] = []  # addresses of the last call's inputs that were numpy's
        self._arena = Staging(self._cuda)
        self._small_inputs, self._landing = SmallInputs(self._cuda), Landing(self._cuda)
        self._staged_inputs = [Staging(self._cuda) for _ in self._program.inputs]
        self._staged_outputs = [Staging(self._cuda) for _ in self._program.outputs]
        self._input_types = [ONNX_TYPE_BY_NAME[t.onnx_type] for t in self._program.inputs]
        self._output_types = [ONNX_TYPE_BY_NAME[t.onnx_type] for t in self._program.outputs]
        names = dim_names(self._program)
        self._guards = entry_guards(self._program, names)
        self._guard_sizes = compile_sizes(names, [d for c in self._guards for d in (c.guard.left, c.guard.right)])
        self._callers = [(i, b.kind, b.index) for i, b in enumerate(self._program.buffers) if b.kind in ("input", "output")]
        self._read_by_host = [(i, index) for i, kind, index in self._callers if i in read_by_host(self._program)]
        self._placement: _Placement | None = None  # of the call before
        self._input_buffers, self._output_buffers = (
            [[i for i, kind, index in self._callers if (kind, index) == (wanted, n)] for n in range(len(specs))]
            for wanted, specs in (("input", self._program.inputs), ("output", self._program.outputs))
        )
        self._states = values_of([f"donated_{n}" for n in range(len(self._program.states))])
        self._reader = HostReader(self._cuda)
        self._plans: OrderedDict[tuple, CallPlan] = OrderedDict()
        self._calls: dict[Hashable, int] = {}
        self._grown: frozenset[str] = frozenset()
        self._positions = positions(self._program)
        self._live_sets: list[_LiveSet] = []
        self._last: Sizes | None = None  # of the last call with donated states
        self._donated: dict[tuple[int, ...], tuple[int, ...]] = {}  # numbers of donated states, by their flags
        self._growing: dict[tuple[int, ...], tuple[Callable[..., tuple[int, ...]], list[str]]] = {}  # by these numbers
        self._checked = os.environ.get("INGOT_SYNC", "") not in ("", "0")
        self._ended = self._cuda.event()
        self.stream = self._cuda.stream(priority)

    def __del__(self) -> None:
        if getattr(self, "stream", 0):
            with contextlib.suppress(DeviceError), self._cuda.borrowed():
                self.close()

    def is_free_for(self, call: Call) -> bool:
        """See `ingot.runtime.device.ExecutionContext`."""
        if not self._pending or (call.stream is not None and call.stream.handle == self._pending):
            return True
        self._cuda.activate()
        return self._cuda.is_past(self._ended)

    def wait_for(self, call: Call) -> None:
        """See `ingot.runtime.device.ExecutionContext`."""
        if not self.is_free_for(call):
            self._settle()

    def uploaded(self, index: int) -> int:
        """See `ingot.runtime.device.ExecutionContext`."""
        return self._uploaded[index]

    def _settle(self) -> None:
        """Wait for the call that is under way."""
        if self._pending:
            self._cuda.wait_event(self._ended)
            self._pending, self._held = 0, None

    def _follow(self, stream: int, call: Call) -> None:
        """Put what comes on `stream` behind this context's call before, and behind the streams that make the inputs."""
        if self._pending and self._pending != stream:
            self._cuda.wait(stream, self._ended)
        placement = self._placement
        if placement is not None and placement.is_for(call):  # what is resident was waited for
            arrays = [*(call.inputs[i] for i in placement.inputs), *(call.outputs[i] for i in placement.outputs)]
        else:
            arrays = [*call.inputs, *call.outputs]
        for other in {a.ready for a in arrays if isinstance(a, CudaArray)}:
            if other is not None and other != stream:
                self._cuda.order(other, stream)

    def run(self, call: Call) -> tuple[list[Any], int]:
        """See `ingot.runtime.device.ExecutionContext`."""
        cuda = self._cuda
        cuda.activate()
        stream = self.stream if call.stream is None else call.stream.handle
        sides = iter(self._guard_sizes(*call.sizes.dims))
        for check, left, right in zip(self._guards, sides, sides, strict=True):
            if left > right or (left != right and check.guard.relation == "eq"):
                return self._refused(check.status)
        try:
            return self._run(call, stream)
        except BaseException:  # an interrupt, too
            with contextlib.suppress(DeviceError):
                self._settle()
                cuda.synchronize(stream)  # what was enqueued must not run into the next call
            self._drop_plans()  # their parameters may be half written; and the memory may be wanted
            if cuda.activate_quietly():
                self._executable.outputs.release()
            raise

    def _refused(self, status: int) -> tuple[list[Any], int]:
        return [None] * len(self._output_types), status

    def _run(self, call: Call, stream: int) -> tuple[list[Any], int]:
        cuda, env = self._cuda, call.sizes.env
        self._follow(stream, call)
        addresses, results, downloads = self._place(call, stream)
        plan = self._plan(call.sizes)
        memory = Memory(addresses, self._arena.address(plan.arena_bytes, self._settle), self._in_host_memory(call))
        self._executable.weights.before(stream)
        before = plan.graphs
        status = plan.run(memory, env, stream, self._reader, checked=self._checked)
        self._executable.graphs += plan.graphs - before
        if status:
            cuda.synchronize(stream)
            self._pending, self._held = 0, None
            return self._refused(status)
        landed = self._landing.download(downloads, stream) if downloads else []
        if call.stream is None or downloads:
            cuda.synchronize(stream)
            self._pending, self._held = 0, None
            for host, address in landed:
                ctypes.memmove(host.ctypes.data, address, host.nbytes)
        else:
            cuda.record(self._ended, stream)
            self._pending, self._held = stream, call.inputs
        for i in self._placed_for(call).outputs:
            if isinstance(results[i], np.ndarray) and call.outputs[i] is None:
                results[i] = from_storage(results[i], self._output_types[i], call.sizes.output_shapes[i])
        return results, 0

    def _in_host_memory(self, call: Call) -> dict[int, np.ndarray]:
        """The inputs that the host reads on its way, of those that are numpy's, by number of the buffer."""
        inputs = ((number, call.inputs[index]) for number, index in self._read_by_host)
        return {number: array for number, array in inputs if isinstance(array, np.ndarray)}

    def profile(self, call: Call, repeats: int = 10) -> list[dict[str, Any]]:
        """Median time of each kernel launch at these sizes, of what has run; see `CallPlan.profile`."""
        self.run(call)
        self._settle()
        rows = next(reversed(self._plans.values())).profile(self.stream, repeats)
        self._cuda.synchronize(self.stream)
        return rows

    def close(self) -> None:
        """Free memory, plans and the stream, after the call that is under way. A GPU that is lost has nothing to free."""
        if not self.stream or not self._cuda.activate_quietly():
            return
        with contextlib.suppress(DeviceError):
            self._settle()
        self._drop_plans()
        self._small_inputs.free()
        self._landing.free()
        for staging in (self._arena, *self._staged_inputs, *self._staged_outputs):
            staging.free()
        self._reader.close()
        self._cuda.destroy_event(self._ended)
        self._cuda.destroy_stream(self.stream)
        self.stream = 0

    def _drop_plans(self) -> None:
        plans, self._plans = self._plans, OrderedDict()
        if self._cuda.activate_quietly():
            for plan in plans.values():
                plan.close()

    def _place(self, call: Call, stream: int) -> tuple[list[int], list[Any], list[tuple[np.ndarray, int]]]:
        """Base addresses of all buffers, results, and (host array, device address) pairs to download after the run."""
        cuda = self._cuda
        placement = self._placed_for(call)
        addresses = placement.addresses.copy()
        self._uploaded = [0] * len(call.inputs)
        placed = self._upload_small(call, placement, stream) or call.placed
        for i in placement.inputs:
            array = call.inputs[i]
            if i in placed:
                address = placed[i]
            elif isinstance(array, CudaArray):  # checked when it came, or our own
                address = array.address
            elif isinstance(array, np.ndarray):
                address = self._uploaded[i] = self._staged_inputs[i].address(array.nbytes, self._settle)
                cuda.upload(address, array.ctypes.data, array.nbytes, stream)
            else:
                address = self._device_array(array, self._program.inputs[i].name, self._input_types[i]).address
            for number in self._input_buffers[i]:
                addresses[number] = address
        results = list(call.outputs)
        downloads = []
        for i in placement.outputs:
            given, t, shape = call.outputs[i], self._output_types[i], call.sizes.output_shapes[i]
            result: Any = given
            if given is None and i in call.kept:
                dtype = onnx_numpy(t)
                place = self._staged_outputs[i].address(math.prod(shape) * dtype.itemsize, self._settle)
                result = CudaArray(cuda, self._staged_outputs[i], place, shape, dtype)
            elif given is None:
                stored, dtype = storage_shape(t.storage, shape)
                result = self._new_output(stored, dtype, call) if call.on_device else np.empty(stored, dtype)
            if isinstance(result, np.ndarray):
                address = self._staged_outputs[i].address(result.nbytes, self._settle)
                downloads.append((result, address))
            else:
                address = self._written(result, t, call)
            for number in self._output_buffers[i]:
                addresses[number] = address
            results[i] = result
        return addresses, results, downloads

    def _upload_small(self, call: Call, placement: _Placement, stream: int) -> dict[int, int]:
        """Bring small inputs of numpy's, where there are several, to the GPU at once; where these, and those that lie there
        already, lie."""
        small: dict[int, np.ndarray] = {}
        for i in placement.inputs:
            array = call.inputs[i]
            if isinstance(array, np.ndarray) and array.nbytes <= SMALL and i not in call.placed:
                small[i] = array
        if len(small) < 2:
            return {}
        found = self._small_inputs.upload(small, stream, self._settle)
        for i, address in found.items():
            self._uploaded[i] = address
        return {**call.placed, **found}

    def _new_output(self, shape: tuple[int, ...], dtype: np.dtype, call: Call) -> CudaArray:
        if call.stream is not None:
            return CudaArray.empty(self._cuda, shape, dtype, call.stream)
        memory = self._executable.outputs.take(math.prod(shape) * dtype.itemsize)
        return CudaArray(self._cuda, memory, memory.address, shape, dtype)

    def _written(self, result: Any, t: OnnxType, call: Call) -> int:
        """The address of an output on the device, whose contents are there in the order of the call's stream."""
        array = self._device_array(result, "output", t)
        array.ready = None if call.stream is None else call.stream.handle
        return array.address

    def _device_array(self, array: Any, name: str, t: OnnxType) -> CudaArray:
        return array if isinstance(array, CudaArray) else as_cuda_array(array, name, self._cuda, onnx_numpy(t))

    def _placed_for(self, call: Call) -> _Placement:
        """Where the weights and what is resident lie, found once for calls that share it."""
        found = self._placement
        if found is not None and found.is_for(call):
            return found
        resident = call.resident
        addresses = list(self._executable.addresses)
        for number, kind, index in self._callers:
            array = (resident.inputs if kind == "input" else resident.outputs).get(index)
            if array is None:
                continue
            if kind == "input":
                name, t = self._program.inputs[index].name, self._input_types[index]
                addresses[number] = self._device_array(array, name, t).address
            else:
                addresses[number] = self._written(array, self._output_types[index], call)
        inputs, outputs = (
            [i for i in range(len(specs)) if i not in there]
            for specs, there in ((self._program.inputs, resident.inputs), (self._program.outputs, resident.outputs))
        )
        handle = None if call.stream is None else call.stream.handle
        self._placement = _Placement(weakref.ref(resident), handle, addresses, inputs, outputs)
        return self._placement

    def _plan(self, sizes: Sizes) -> CallPlan:
        """The plan for these sizes."""
        env = sizes.env
        flags = self._states(env)
        donated = self._donated.get(flags)
        if donated is None:
            donated = self._donated[flags] = tuple(n for n, flag in enumerate(flags) if flag)
        live, shape = self._live_set(sizes, donated)
        self._calls[shape] = calls = self._calls.pop(shape, -1) + 1
        if len(self._calls) > _KEPT_COUNTS:
            del self._calls[next(iter(self._calls))]
        # A state that grows comes back in the same shape at the next call, so its kernels are asked for at once.
        kernels = self._executable.kernels_for(shape, env, live.names, 1 if donated and self._grown else calls)
        key = shape, live.buckets(env)
        plan = self._plans.get(key)
        if plan is not None and plan.program is not kernels.program:
            self._settle()
            del self._plans[key]
            plan.close()
            plan = None
        if plan is None:
            skipped = {i for n in donated for i in self._program.states[n].copies}
            plan = CallPlan(self._cuda, kernels.program, kernels.function, env, live.names, skipped)
            self._plans[key] = plan
            if len(self._plans) > _KEPT_PLANS:
                self._settle()
                self._plans.popitem(last=False)[1].close()
        else:
            self._plans.move_to_end(key)
        return plan

    def _live_set(self, sizes: Sizes, donated: tuple[int, ...]) -> tuple[_LiveSet, Hashable]:
        """What stays in the size table: positions, and with donated states their lengths and what grows with them; and what is
        one shape to kernels then.

        A program specialized when less was known to grow serves its sizes still.
        """
        env, names = sizes.env, self._positions
        if donated:
            self._learn(sizes, donated)
            names = names.union(self._grown, self._program.live)
        live = next((s for s in self._live_sets if s.names == names), None)
        if live is None:
            live = _LiveSet(names, env, self._positions)
            self._live_sets.append(live)
        shape = live.shape(env)
        if donated and not self._executable.has_variant(shape):
            for earlier in self._live_sets:
                if earlier.names > self._positions and self._executable.has_variant(other := earlier.shape(env)):
                    return earlier, other
        return live, shape

    def _learn(self, sizes: Sizes, donated: tuple[int, ...]) -> None:
        """Sizes that changed since the call before, and were a state's length in both calls, grow with it (a mask's length)."""
        lengths, names = self._growing.get(donated) or self._may_grow(donated)
        if self._last is not None:
            env, before = sizes.env, self._last.env
            for now, then in zip(lengths(*sizes.dims), lengths(*self._last.dims), strict=True):
                if now != then:
                    self._grown |= {name for name in names if env[name] == now and before[name] == then}
        self._last = sizes

    def _may_grow(self, donated: tuple[int, ...]) -> tuple[Callable[..., tuple[int, ...]], list[str]]:
        """New lengths of donated states, each once, and the sizes that are no capacity of theirs."""
        states = self._program.states
        own = {name for n in donated for name in (states[n].kept_capacity, states[n].capacity, f"donated_{n}")}
        names = dim_names(self._program)
        lengths = compile_sizes(names, list(dict.fromkeys(states[n].length for n in donated)))
        self._growing[donated] = found = lengths, [name for name in names if name not in own]
        return found


class _LiveSet:
    """Sizes that stay in the size table, by name, among all that a call gives values; those of `positions` are planned for
    nothing."""

    def __init__(self, names: frozenset[str], known: Iterable[str], positions: frozenset[str]) -> None:
        self.names = names
        self._fixed = values_of(sorted(set(known) - names))
        self._growing = values_of(sorted(names - positions))

    def shape(self, env: Mapping[str, int]) -> Hashable:
        """What is one shape to kernels: the sizes that are not live, and which are."""
        return self.names, self._fixed(env)

    def buckets(self, env: Mapping[str, int]) -> tuple[int, ...]:
        """What live sizes are planned for."""
        return tuple(map(bucket, self._growing(env)))
