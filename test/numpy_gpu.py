"""Engines on a GPU that lies in host memory, whose kernels are numpy's: the whole CUDA runtime without a GPU."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from control_models import Feeds
from cuda_dispatches import strided
from fake_cuda import FakeCuda, FakeDriver

import ingot
from ingot import dims
from ingot.compiler.jit import draft_program
from ingot.compiler.reference import run_dispatch
from ingot.cuda_targets import target, with_sms
from ingot.dispatch import Dispatch, TensorArg, from_json
from ingot.kernel_code import KernelCode
from ingot.kernel_plan import BufferArg, KernelLaunch, KernelPlan
from ingot.launch_program import LaunchProgram
from ingot.program_linking import link, specialize
from ingot.runtime import session as session_module
from ingot.runtime.cuda_device import CudaContext, prepare
from ingot.runtime.device import Call
from ingot.runtime.program_loader import LoadedProgram
from ingot.runtime.shape_binding import ShapeBinder
from ingot.runtime.specialization import Specializer, check_mode, machine_passes
from ingot.target import Target

Observer = Callable[[Dispatch, list[np.ndarray], dict[str, int]], None]


class NumpyKernels:
    """A GPU that lies in host memory, and kernels of numpy's for all that it is to launch.

    Args:
        driver: what the CUDA runtime takes for the driver.
        machine: name of the target.
        observe: called with the dispatch, operands and sizes of each launch before it runs.

    Attributes:
        cuda: the GPU.
        target: what programs are drafted for.
    """

    def __init__(self, driver: FakeDriver, machine: str = "sm_90a", observe: Observer | None = None) -> None:
        self.cuda, self.target = FakeCuda(), target(machine)
        self.dispatches: dict[str, Dispatch] = {}
        self.cuda.function = self._function  # type: ignore[method-assign]
        self._driver, self._observe = driver, observe
        self.cuda.on_launch = self._launch
        self.begin()

    def begin(self) -> None:
        """Let the driver's graphs be this GPU's."""
        self._driver.on_launch = self._launch

    def draft(self, engine: ingot.Engine, stage: int, passes: tuple[str, ...]) -> LaunchProgram:
        """A stage's program, with its kernels."""
        if engine.header.stages > 1:
            passes = (f"ingot-select-stage{{number={stage}}}", *passes)
        return self._linked(draft_program(engine.ir, self.target, passes=passes).program)

    def specialize(self, program: LaunchProgram, env: Mapping[str, int], live: frozenset[str]) -> LoadedProgram:
        """See `ProgramLoader.specialize`."""
        return self.loaded(self._linked(specialize(program, env, live)))

    @staticmethod
    def loaded(program: LaunchProgram) -> LoadedProgram:
        """A program as loaders give it."""
        return LoadedProgram(program, tuple(KernelCode(e.plan, "cubin", e.key.encode()) for e in program.kernels))

    def _linked(self, draft: LaunchProgram) -> LaunchProgram:
        plans = []
        for entry in draft.kernels:
            dispatch = from_json(json.loads(entry.dispatch))
            symbol = f"k{len(self.dispatches)}"
            self.dispatches[symbol] = dispatch
            buffers = [BufferArg("operand", i) for i in range(len(dispatch.operands))]
            buffers += [BufferArg("result", i) for i in range(len(dispatch.results))]
            elements = dims.product(dispatch.operands[1].shape if _in_place(dispatch) else dispatch.results[0].shape)
            plans.append(KernelPlan((KernelLaunch(symbol, (elements, 1, 1), tuple(buffers), (1, 1, 1)),)))
        return link(draft, [f"key{i}" for i in range(len(plans))], plans)

    def _function(self, module: Any, symbol: str, shared_bytes: int) -> Any:
        dispatch = self.dispatches[symbol]
        return {"name": symbol, "params": len(dispatch.operands) + len(dispatch.results) + bool(dispatch.symbols)}

    def _launch(self, name: str, grid: tuple, values: list[int]) -> None:
        dispatch = self.dispatches[name]
        sizes: dict[str, int] = {}
        if dispatch.symbols:
            table = (ctypes.c_int64 * len(dispatch.symbols)).from_address(values[-1])
            sizes = dict(zip(dispatch.symbols, table, strict=True))
        offsets = {(kind, index): dims.evaluate(nbytes, sizes) for kind, index, nbytes in dispatch.offsets}
        places = [("operand", i, t) for i, t in enumerate(dispatch.operands)]
        places += [("result", i, t) for i, t in enumerate(dispatch.results)]
        tensors = [
            _view(address + offsets.get((kind, i), 0), t, sizes)
            for address, (kind, i, t) in zip(values, places, strict=False)
        ]
        operands, results = tensors[: len(dispatch.operands)], tensors[len(dispatch.operands) :]
        if self._observe is not None:
            self._observe(dispatch, operands, sizes)
        for result, found in zip(results, run_dispatch(dispatch, [o.copy() for o in operands], sizes), strict=True):
            assert grid[0] >= (operands[1] if _in_place(dispatch) else found).size
            result[...] = found
        for address, t, result in zip(values[len(operands) :], dispatch.results, results, strict=False):
            if t.type.bits == 4:  # a copy
                _write_pairs(address, t, sizes, result)


class NumpyGpu:
    """An engine's stage, loaded, and a context of it.

    Args:
        driver: what the CUDA runtime takes for the driver.
        mode: see `ingot.runtime.specialization`.
        stage: number of the engine's stage that is loaded.
        machine: name of the target.

    Attributes:
        program: its launch program.
        stream: of the calls.
    """

    def __init__(
        self, engine: ingot.Engine, driver: FakeDriver, mode: str = "none", stage: int = 0, machine: str = "sm_90a"
    ) -> None:
        self._kernels = kernels = NumpyKernels(driver, machine)
        self.cuda, self.dispatches = kernels.cuda, kernels.dispatches
        self.program = kernels.draft(engine, stage, machine_passes(kernels.target, specialize=check_mode(mode)))
        specializer = Specializer(lambda env, live: kernels.specialize(self.program, env, live), check_mode(mode))
        cuda: Any = self.cuda
        (self.executable,) = prepare(cuda, [kernels.loaded(self.program)], engine.weights, [specializer])
        self.executable.weights.wait()
        self._context: CudaContext = self.executable.new_context()
        self.stream = self._context.stream
        self._binder = ShapeBinder(self.program)

    def run(self, feeds: Feeds, status: int = 0) -> list[np.ndarray | None]:
        """The outputs of one call, which must end with `status`."""
        self._kernels.begin()
        results, found = self._context.run(self._call(feeds))
        assert found == status
        return results

    def profile(self, feeds: Feeds) -> list[dict[str, Any]]:
        """See `ingot.Session.profile`."""
        return self._context.profile(self._call(feeds), 1)

    def close(self) -> None:
        """Free everything."""
        self._context.close()
        self.executable.close()
        del self._context, self.executable

    def _call(self, feeds: Feeds) -> Call:
        arrays = [np.array(feeds[spec.name], order="C") for spec in self.program.inputs]
        elements = [int(arrays[v.input].reshape(-1)[v.element]) for v in self.program.values]
        sizes = self._binder.bind(tuple(a.shape for a in arrays), elements=elements)
        return Call(sizes, arrays, [None] * len(self.program.outputs))


class _Device:
    """As `CudaDevice`, of a GPU of 24 SMs."""

    name = "cuda:0"

    def __init__(self, kernels: NumpyKernels) -> None:
        self.cuda, self.target, self.own_target = kernels.cuda, kernels.target, with_sms(kernels.target, 24)

    def prepare(self, programs: Any, weights: Any, specializers: Any = ()) -> Any:
        cuda: Any = self.cuda
        return prepare(cuda, programs, weights, specializers)


class _Loader:
    """As `ProgramLoader`.

    Attributes:
        loaded, specialized: targets that were asked for.
    """

    passes: tuple[str, ...] = ()

    def __init__(self, kernels: NumpyKernels) -> None:
        self.kernels = kernels
        self.loaded: list[Target] = []
        self.specialized: list[Target] = []

    def expect(self, engine: ingot.Engine) -> None: ...

    def load(self, engine: ingot.Engine, target: Any, report: Any, stage: int) -> LoadedProgram:
        self.loaded.append(target)
        return self.kernels.loaded(self.kernels.draft(engine, stage, self.passes))

    def specialize(self, program: LaunchProgram, env: Any, live: frozenset[str], target: Any) -> LoadedProgram:
        self.specialized.append(target)
        return self.kernels.specialize(program, env, live)


def numpy_session(
    engine: ingot.Engine, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> tuple[ingot.Session, FakeCuda]:
    """A session on a GPU that lies in host memory, and that GPU; `options` are the session's."""
    kernels = NumpyKernels(driver)
    on_numpy(monkeypatch, lambda: kernels)
    return ingot.Session(engine, **options), kernels.cuda


def on_numpy(monkeypatch: pytest.MonkeyPatch, new: Callable[[], NumpyKernels]) -> None:
    """Let every session run on numpy's kernels, which `new` gives it."""
    monkeypatch.setattr(session_module, "shared_client", lambda: None)
    monkeypatch.setattr(session_module.RuntimeCache, "open_default", lambda: None)
    monkeypatch.setattr(session_module, "ProgramLoader", lambda *args: _Loader(new()))
    monkeypatch.setattr(session_module, "open_device", lambda name, loader, **options: _Device(loader.kernels))


def _in_place(dispatch: Dispatch) -> bool:
    return bool(dispatch.attr("in_place", False))


def _view(address: int, t: TensorArg, sizes: dict[str, int]) -> np.ndarray:
    """A tensor in memory; a copy of one whose elements have four bits."""
    shape = [dims.evaluate(d, sizes) for d in t.shape]
    if t.type.bits == 4:
        steps, memory = _pairs(address, t, sizes)
        codes = np.stack([memory & 15, memory >> 4], 1).ravel()
        elements = ((codes ^ 8).astype(np.int8) - 8).astype(t.type.np) if t.dtype == "i4" else codes.view(t.type.np)
        return strided(elements, shape, steps)
    strides = [dims.evaluate(d, sizes) * t.type.bytes for d in t.strides]
    spans = [(n - 1) * s for n, s in zip(shape, strides, strict=True)] if all(shape) else []
    before, behind = -sum(s for s in spans if s < 0), sum(s for s in spans if s > 0)
    extent = t.type.bytes + before + behind if all(shape) else 0
    return np.ndarray(shape, t.type.np, _memory(address - before, extent), before, strides)


def _pairs(address: int, t: TensorArg, sizes: dict[str, int]) -> tuple[list[int], np.ndarray]:
    """(Strides, bytes) of a tensor whose elements have four bits, two in each byte."""
    shape, steps = ([dims.evaluate(d, sizes) for d in x] for x in (t.shape, t.strides))
    last = sum((n - 1) * s for n, s in zip(shape, steps, strict=True)) if all(shape) else -1
    return steps, _memory(address, last // 2 + 1)


def _write_pairs(address: int, t: TensorArg, sizes: dict[str, int], values: np.ndarray) -> None:
    """Elements of four bits, each in its half of a byte."""
    if values.size:
        steps, memory = _pairs(address, t, sizes)
        codes = np.stack([memory & 15, memory >> 4], 1).ravel()
        strided(codes, values.shape, steps)[...] = values.view(np.uint8) & 15
        memory[...] = codes[::2] | codes[1::2] << 4


def _memory(address: int, nbytes: int) -> np.ndarray:
    return np.frombuffer((ctypes.c_uint8 * max(nbytes, 1)).from_address(address), np.uint8)
