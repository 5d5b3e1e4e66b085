"""Sessions: an engine ready to run on a device, called as ONNX Runtime's sessions are.

session = ingot.Session("model.ingot")
logits, = session.run(None, {"input_ids": ids})
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from ingot.engine import Engine
from ingot.errors import EngineError, InputError
from ingot.launch_program import TensorSpec
from ingot.runtime.cache import RuntimeCache
from ingot.runtime.compile_client import CompileClient, shared_client
from ingot.runtime.context_pool import ContextPool
from ingot.runtime.cuda_stream import CudaStream, as_stream
from ingot.runtime.device import NOTHING_RESIDENT, Call, ExecutionContext, Resident, Sizes, open_device
from ingot.runtime.engine_context import EngineContext
from ingot.runtime.load_report import LoadReport
from ingot.runtime.program_loader import LoadedProgram, ProgramLoader, Progress
from ingot.runtime.shape_binding import Shapes
from ingot.runtime.specialization import Specializer, check_mode, machine_passes
from ingot.runtime.stage import Stage


@dataclass(frozen=True)
class NodeArg:
    """An input or output as ONNX Runtime describes it: name, sizes (numbers or texts), `tensor(float)`."""

    name: str
    shape: list[int | str]
    type: str


@dataclass
class Counters:
    """What a session counts.

    Attributes:
        runs: calls.
        compiled_kernels: kernels that were compiled because the cache lacked them.
        copied_inputs: inputs that had to be copied because of their layout in memory.
        state_copies: copies of a donated state, made only where its buffer had to grow.
    """

    runs: int = 0
    compiled_kernels: int = 0
    copied_inputs: int = 0
    state_copies: int = 0


class Session:
    """An engine on a device. Threads may call one session at the same time.

    Args:
        engine: an `Engine`, or the path of an engine file.
        device: `cpu`, `cuda:N`, or None for the first GPU where there is one, else the CPU.
        tf32: CUDA: f32 products may round their operands to tf32 (10 bits of mantissa), which tensor cores multiply.
        fast_accumulation: CUDA: products of 8-bit floats may be summed in the 14 bits that tensor cores of compute capability
            8.9 and 9.0 keep; by default they are added in f32 every 128 elements.
        specialize: CUDA: when a shape gets kernels of its own: `lazy`, in the background once it was called twice; `eager`,
            at its first call, which waits; `none`.
        threads: CPU: threads a call uses; the cores by default.
        stream: CUDA: the stream that calls run on unless they are given another (see `run`); by default the session's own.
        priority: CUDA: of the session's own streams; lower numbers are more urgent.
        max_contexts: calls that run at the same time; others wait.
        cache: the runtime cache; by default the user's.
        client: the compile server; by default the process' own.
        progress: called with (what, done, of how many) while kernels compile.

    Raises:
        EngineError: the engine is damaged, or has no weights.
        CompileError: a kernel cannot be compiled.
        DeviceError: the device is missing.
    """

    def __init__(
        self,
        engine: Engine | str | os.PathLike,
        device: str | None = None,
        *,
        tf32: bool = False,
        fast_accumulation: bool = False,
        specialize: str = "lazy",
        threads: int | None = None,
        stream: Any = None,
        priority: int = 0,
        max_contexts: int = 4,
        cache: RuntimeCache | None = None,
        client: CompileClient | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._report = LoadReport()
        with self._report.step("engine"):
            self.engine = engine if isinstance(engine, Engine) else Engine.load(engine)
        if self.engine.is_stripped:
            cure = "refit it first: Engine.load(path).refit('model.onnx')"
            raise EngineError("the engine was saved without weights", node=self.engine.path or None, cure=cure)
        self.counters = Counters()
        self._loader = loader = ProgramLoader(cache or RuntimeCache.open_default(), client or shared_client(), progress)
        loader.expect(self.engine)
        with self._report.step("device"):
            self.device = open_device(device, loader, threads=threads, priority=priority)
        self._stream = self._as_stream(stream)
        mode = check_mode(specialize)
        loader.passes = machine_passes(
            self.device.target, tf32=tf32, fast_accumulation=fast_accumulation, specialize=mode
        )
        programs: list[LoadedProgram] = []
        for number in range(self.engine.header.stages):
            programs.append(loader.load(self.engine, self.device.target, self._report, number))
            self.counters.compiled_kernels += self._report.compiled
        with self._report.step("prepare"):
            build = partial(loader.specialize, target=self.device.own_target)
            specializers = [Specializer(partial(build, loaded.program), mode) for loaded in programs]
            executables = self.device.prepare(programs, self.engine.weights, specializers)
            self._stages = [Stage(*both) for both in zip(programs, executables, strict=True)]
        self._contexts = ContextPool(partial(EngineContext, self._stages), max_contexts)
        first = self._stages[0]
        self.program, self._executable, self._binder = first.program, first.executable, first.binder
        specs = self.program.outputs if len(self._stages) == 1 else self.engine.header.outputs
        self._specs = {spec.name: spec for spec in specs}
        self._inputs = {spec.name: i for i, spec in enumerate(self.program.inputs)}
        self._outputs = {name: i for i, name in enumerate(self._specs)}
        self._types, self._names = first.types, first.input_names
        self._lock = threading.Lock()

    def get_inputs(self) -> list[NodeArg]:
        """The inputs, in order."""
        return list(map(_node_arg, self.program.inputs))

    def get_outputs(self) -> list[NodeArg]:
        """The outputs, in order."""
        return list(map(_node_arg, self._specs.values()))

    def get_size_elements(self) -> dict[str, dict[int, str]]:
        """The elements of inputs on which sizes depend: for each such input, names by (row-major) number of the element."""
        found: dict[str, dict[int, str]] = {}
        for stage in self._stages:
            for v in stage.program.values:
                name = stage.program.inputs[v.input].name
                if name in self._inputs:
                    found.setdefault(name, {})[v.element] = v.symbol
        return found

    def run(self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any], *, stream: Any = None) -> list[Any]:
        """Run the engine.

        Args:
            output_names: outputs to return, in this order; None for all.
            input_feed: an array for every input, by name: numpy, or anything with DLPack, `__cuda_array_interface__` or
                `__array__`. Arrays in the GPU's memory are read where they lie, and make the outputs the GPU's arrays too.
            stream: CUDA: the stream to run on: its handle, or an object with `__cuda_stream__` or `cuda_stream`. With inputs in
                the GPU's memory the call returns at once, and the outputs are there in the stream's order. Inputs whose
                library tells its stream are waited for, on the GPU. A stream given as a number must outlive the outputs.

        Raises:
            InputError: a name, type or shape is not what the engine expects; names the input and the cure.
            DeviceError: memory is missing, or a kernel faulted.
        """
        wanted = self._wanted(output_names)
        arrays = self._arrays(input_feed)
        shapes = tuple(a.shape for a in arrays)
        sizes = None
        if len(self._stages) == 1 and not self.program.values:
            sizes = self._binder.bind(shapes)  # what is impossible is said before inputs are copied
        stored = [self._stored(a, i) for i, a in enumerate(arrays)]
        on_device = any(map(self._executable.is_resident, stored))
        on_stream = self._stream if stream is None else self._as_stream(stream)
        results = self._call(stored, shapes, {}, sizes=sizes, on_device=on_device, stream=on_stream)
        return [results[i] for i in wanted]

    def bind(
        self,
        inputs: Mapping[str, Any] | None = None,
        outputs: Mapping[str, Any] | None = None,
        donate: bool | Sequence[str] = False,
        *,
        capacity: int = 512,
    ) -> Any:
        """A `BoundSession`, which calls this one with arrays that are given once.

        An engine of several stages (whose sizes depend on what it computes) has no states; an output array must have the shape
        that a call turns out to give it.

        Args:
            inputs: arrays that every call reads, unless it is given others.
            outputs: arrays that every call writes, of exactly the outputs' shapes.
            donate: states (inputs whose output is the input grown along an axis, or with elements replaced) that are kept on
                the device and updated in place: their names, or True for all.
            capacity: length that donated states have room for from the beginning; they double beyond it, by copying.
        """
        from ingot.runtime.bound_session import BoundSession

        return BoundSession(self, dict(inputs or {}), dict(outputs or {}), donate, capacity)

    @property
    def device_name(self) -> str:
        """`cpu`, or `cuda:N`."""
        return self.device.name

    def stats(self) -> dict[str, int]:
        """The session's counters (see `Counters`), the device's own, and how many execution contexts it has made."""
        own: Counter[str] = Counter()
        for stage in self._stages:
            own.update(stage.executable.counters())
        return {**asdict(self.counters), **own, "contexts": self._contexts.made}

    def load_report(self) -> dict[str, Any]:
        """Where the time of making this session went: the attributes of `LoadReport`, and `seconds`, their sum."""
        return self._report.as_dict()

    def profile(self, input_feed: Mapping[str, Any], repeats: int = 10) -> list[dict[str, Any]]:
        """Time each kernel of a call by itself.

        Args:
            input_feed: an array for every input, by name.
            repeats: runs of the program, of which each kernel's median is taken.

        Returns:
            for each kernel launch, in order: `kernel`, `node` (the ONNX nodes it implements), `runs` (how often such a call
            runs it: in a loop's body more than once), `ms` of one run, and the `flops` and `bytes` that its plan counts
            (0 where it counts none); on a GPU also `arithmetic`, the type of the flops.

        Raises:
            InputError: as for `run`.
        """
        arrays = self._arrays(input_feed)
        stored = [self._stored(a, i) for i, a in enumerate(arrays)]
        shapes = tuple(a.shape for a in arrays)
        rows: list[dict[str, Any]] = []

        def measured(stage: Stage, call: Call, context: ExecutionContext) -> list[Any]:
            rows.extend(context.profile(call, repeats))
            return stage.run(call, context)

        with self._contexts.lease() as context:
            context.run(self._stages[0].call_for(stored, shapes, {}), shapes, {}, measured)
        return rows

    def close(self) -> None:
        """Free contexts and kernels; no call may be running."""
        self._contexts.close()
        for stage in self._stages:
            stage.executable.close()

    def _as_stream(self, stream: Any) -> CudaStream | None:
        if stream is not None and self.device.target.kind != "cuda":
            raise InputError(f"{self.device.name} has no streams", cure="leave `stream` out, or use a GPU")
        return None if stream is None else as_stream(stream)

    # Parts of a call, shared with BoundSession

    def _wanted(self, output_names: Sequence[str] | None) -> list[int]:
        if output_names is None:
            return list(range(len(self._outputs)))
        if isinstance(output_names, str):
            raise InputError(f"{output_names!r} is one name, not a list of names", cure=f"give [{output_names!r}]")
        for name in output_names:
            if name not in self._outputs:
                raise InputError(f"no output is named {name!r}", cure=f"outputs are {', '.join(self._outputs)}")
        return [self._outputs[name] for name in output_names]

    def _check_names(self, feed: Mapping[str, Any], without: Container[str] = ()) -> None:
        for name in feed:
            if name not in self._inputs:
                raise InputError(f"no input is named {name!r}", cure=f"inputs are {', '.join(self._inputs)}")
        missing = [name for name in self._inputs if name not in feed and name not in without]
        if missing:
            raise InputError("no array was given for this input", node=missing[0], cure=f"needed are {', '.join(missing)}")

    def _arrays(self, feed: Mapping[str, Any]) -> list[Any]:
        if not isinstance(feed, Mapping):
            cure = f"give a dictionary: {{{next(iter(self._inputs), 'x')!r}: array}}"
            raise InputError(f"the inputs are a {type(feed).__name__}", cure=cure)
        self._check_names(feed)
        convert = self._executable.as_input
        return [convert(feed[spec.name], spec.name, t) for spec, t in zip(self.program.inputs, self._types, strict=True)]

    def _stored(self, array: Any, index: int) -> Any:
        stored = self._executable.to_storage(array, self._types[index])
        if stored is not array:
            self.counters.copied_inputs += 1
        return stored

    def _call(
        self,
        stored: Sequence[Any],
        shapes: Shapes,
        outputs: Mapping[str, Any],
        *,
        resident: Resident = NOTHING_RESIDENT,
        sizes: Sizes | None = None,
        on_device: bool = False,
        stream: CudaStream | None = None,
    ) -> list[Any]:
        """The outputs of a call with these inputs, in the engine's order; for the rest see `Stage.call_for`."""
        call = self._stages[0].call_for(
            stored, shapes, outputs, resident=resident, sizes=sizes, on_device=on_device, stream=stream
        )
        with self._contexts.lease(lambda context: context.is_free_for(call)) as context:
            found = context.run(call, shapes, outputs)
        with self._lock:
            self.counters.runs += 1
        return [found[name] for name in self._outputs]


def _node_arg(spec: TensorSpec) -> NodeArg:
    shape = [d if isinstance(d, int) else str(d) for d in spec.shape]
    return NodeArg(spec.name, shape, f"tensor({spec.onnx_type})")
