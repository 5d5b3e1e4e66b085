"""Engines on a GPU that lies in host memory, whose kernels are numpy's: the whole CUDA runtime without a GPU."""

from __future__ import annotations

import ctypes
import json
from typing import Any

import numpy as np
from control_models import Feeds
from cuda_dispatches import strided
from fake_cuda import FakeCuda, FakeDriver

import ingot
from ingot import dims
from ingot.compiler.jit import draft_program
from ingot.compiler.reference import run_dispatch
from ingot.cuda_targets import target
from ingot.dispatch import Dispatch, TensorArg, from_json
from ingot.kernel_code import KernelCode
from ingot.kernel_plan import BufferArg, KernelLaunch, KernelPlan
from ingot.launch_program import LaunchProgram
from ingot.program_linking import link, specialize
from ingot.runtime.cuda_device import CudaContext, CudaExecutable
from ingot.runtime.device import Call
from ingot.runtime.program_loader import LoadedProgram
from ingot.runtime.shape_binding import ShapeBinder
from ingot.runtime.specialization import Specializer, check_mode, machine_passes


class NumpyGpu:
    """An engine, loaded.

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
        self.cuda = FakeCuda()
        self.dispatches: dict[str, Dispatch] = {}
        self.cuda.function = self._function  # type: ignore[method-assign]
        self._driver = driver
        self.cuda.on_launch = self._launch
        row = target(machine)
        passes = machine_passes(row, specialize=check_mode(mode))
        if engine.header.stages > 1:
            passes = (f"ingot-select-stage{{number={stage}}}", *passes)
        self.program = self._linked(draft_program(engine.ir, row, passes=passes).program)
        build = lambda env, live: self._loaded(self._linked(specialize(self.program, env, live)))  # noqa: E731
        specializer = Specializer(build, check_mode(mode))
        self.executable = CudaExecutable(self.cuda, self._loaded(self.program), engine.weights, specializer)  # type: ignore[arg-type]
        self.executable.weights.wait()
        self._context: CudaContext = self.executable.new_context()
        self.stream = self._context.stream
        self._binder = ShapeBinder(self.program)

    def run(self, feeds: Feeds, status: int = 0) -> list[np.ndarray | None]:
        """The outputs of one call, which must end with `status`."""
        self._driver.on_launch = self._launch
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

    def _linked(self, draft: LaunchProgram) -> LaunchProgram:
        plans = []
        for entry in draft.kernels:
            dispatch = from_json(json.loads(entry.dispatch))
            symbol = f"k{len(self.dispatches)}"
            self.dispatches[symbol] = dispatch
            buffers = [BufferArg("operand", i) for i in range(len(dispatch.operands))]
            buffers += [BufferArg("result", i) for i in range(len(dispatch.results))]
            elements = dims.product(dispatch.results[0].shape)
            plans.append(KernelPlan((KernelLaunch(symbol, (elements, 1, 1), tuple(buffers), (1, 1, 1)),)))
        return link(draft, [f"key{i}" for i in range(len(plans))], plans)

    @staticmethod
    def _loaded(program: LaunchProgram) -> LoadedProgram:
        return LoadedProgram(program, tuple(KernelCode(e.plan, "cubin", e.key.encode()) for e in program.kernels))

    def _function(self, module: Any, symbol: str, shared_bytes: int) -> Any:
        dispatch = self.dispatches[symbol]
        return {"name": symbol, "params": len(dispatch.operands) + len(dispatch.results) + bool(dispatch.symbols)}

    def _launch(self, name: str, grid: tuple, values: list[int]) -> None:
        dispatch = self.dispatches[name]
        sizes: dict[str, int] = {}
        if dispatch.symbols:
            table = (ctypes.c_int64 * len(dispatch.symbols)).from_address(values[-1])
            sizes = dict(zip(dispatch.symbols, table, strict=True))
        tensors = [
            _view(address, t, sizes) for address, t in zip(values, (*dispatch.operands, *dispatch.results), strict=False)
        ]
        operands, results = tensors[: len(dispatch.operands)], tensors[len(dispatch.operands) :]
        for result, found in zip(results, run_dispatch(dispatch, [o.copy() for o in operands], sizes), strict=True):
            assert grid[0] >= found.size
            result[...] = found


def _view(address: int, t: TensorArg, sizes: dict[str, int]) -> np.ndarray:
    """A tensor in memory; a copy of one whose elements have four bits."""
    shape = [dims.evaluate(d, sizes) for d in t.shape]
    if t.type.bits == 4:
        steps = [dims.evaluate(d, sizes) for d in t.strides]
        last = sum((n - 1) * s for n, s in zip(shape, steps, strict=True))
        memory = _memory(address, last // 2 + 1)
        codes = np.stack([memory & 15, memory >> 4], 1).ravel()
        elements = ((codes ^ 8).astype(np.int8) - 8).astype(t.type.np) if t.dtype == "i4" else codes.view(t.type.np)
        return strided(elements, shape, steps)
    strides = [dims.evaluate(d, sizes) * t.type.bytes for d in t.strides]
    spans = [(n - 1) * s for n, s in zip(shape, strides, strict=True)] if all(shape) else []
    before, behind = -sum(s for s in spans if s < 0), sum(s for s in spans if s > 0)
    extent = t.type.bytes + before + behind if all(shape) else 0
    return np.ndarray(shape, t.type.np, _memory(address - before, extent), before, strides)


def _memory(address: int, nbytes: int) -> np.ndarray:
    return np.frombuffer((ctypes.c_uint8 * max(nbytes, 1)).from_address(address), np.uint8)
