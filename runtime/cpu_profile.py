"""Time of each launch on the CPU: the launch program is walked in Python, one launch after the other."""

from __future__ import annotations

import ctypes
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ingot import dims
from ingot.kernel_plan import BufferArg, KernelLaunch
from ingot.launch_program import BufferRef, DispatchStep, HostReadStep, IfStep, LaunchProgram, LoopStep, Step
from ingot.runtime.thread_pool import ThreadPool


def profile(
    program: LaunchProgram,
    pool: ThreadPool,
    kernel: Callable[[int, str], int],
    bases: Sequence[int],
    env: dict[str, int],
    repeats: int = 10,
) -> list[dict[str, Any]]:
    """One row for each launch: kernel, ONNX node, how often it runs in a call, median ms, and the flops and bytes that its plan
    counts.

    Args:
        kernel: the address of a function, by number of the kernel entry and symbol.
        bases: the address of every buffer of the program.
        env: values of the program's symbols, whose guards hold.
    """
    walk = _Walk(program, pool, kernel, bases, env)
    for _ in range(repeats):
        walk.steps(program.steps)
    return [{**row, "runs": len(ms) // repeats, "ms": sorted(ms)[len(ms) // 2]} for row, ms in walk.rows.values()]


class _Walk:
    def __init__(
        self,
        program: LaunchProgram,
        pool: ThreadPool,
        kernel: Callable[[int, str], int],
        bases: Sequence[int],
        env: dict[str, int],
    ) -> None:
        self._program, self._pool, self._kernel, self._bases, self._env = program, pool, kernel, bases, dict(env)
        self._symbols = [tuple(json.loads(e.dispatch)["symbols"]) for e in program.kernels]
        self.rows: dict[tuple[int, int], tuple[dict[str, Any], list[float]]] = {}  # by step and number of the launch

    def steps(self, steps: Sequence[Step]) -> None:
        """Run steps in order."""
        for step in steps:
            match step:
                case DispatchStep():
                    for number, launch in enumerate(self._program.kernels[step.kernel].plan.launches):
                        self._launch(step, number, launch)
                case HostReadStep():
                    self._env[step.symbol] = ctypes.c_int64.from_address(self._address(step.source)).value
                case IfStep():
                    self.steps(step.then if self._holds(step.condition) else step.otherwise)
                case LoopStep():
                    trips, iteration = dims.evaluate(step.trips, self._env), 0
                    while iteration < trips and (step.condition is None or self._holds(step.condition)):
                        self._env[step.symbol] = iteration
                        self.steps(step.body)
                        iteration += 1

    def _address(self, ref: BufferRef) -> int:
        return self._bases[ref.buffer] + dims.evaluate(ref.offset, self._env)

    def _holds(self, condition: BufferRef) -> bool:
        return ctypes.c_uint8.from_address(self._address(condition)).value != 0

    def _launch(self, step: DispatchStep, number: int, launch: KernelLaunch) -> None:
        sizes = [dims.evaluate(d, self._env) for d in step.sizes]
        local = dict(zip(self._symbols[step.kernel], sizes, strict=True))
        addresses = []
        for arg in launch.buffers:
            assert isinstance(arg, BufferArg)
            ref = step.workspace if arg.kind == "workspace" else _tensors(step, arg.kind)[arg.index]
            assert ref is not None
            addresses.append(self._address(ref) + dims.evaluate(arg.offset, local))
        items, flops, moved = (dims.evaluate(d, local) for d in (launch.grid[0], launch.flops, launch.bytes))
        tables = np.array([*addresses, 0]), np.array([*sizes, 0])
        function = self._kernel(step.kernel, launch.symbol)
        begin = time.perf_counter()
        self._pool.parallel_for(function, tables[0].ctypes.data, tables[1].ctypes.data, items, flops + moved)
        ms = (time.perf_counter() - begin) * 1e3
        row = {"kernel": launch.symbol, "node": step.node, "flops": flops, "bytes": moved}
        self.rows.setdefault((id(step), number), (row, []))[1].append(ms)


def _tensors(step: DispatchStep, kind: str) -> tuple[BufferRef, ...]:
    return step.operands if kind == "operand" else step.results
