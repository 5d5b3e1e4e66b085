"""Time of each launch on the CPU: the launch program is walked in Python, one launch after the other."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ingot import dims
from ingot.kernel_plan import BufferArg
from ingot.launch_program import BufferRef, DispatchStep, LaunchProgram
from ingot.runtime.thread_pool import ThreadPool


def profile(
    program: LaunchProgram,
    pool: ThreadPool,
    kernel: Callable[[int, str], int],
    bases: Sequence[int],
    env: dict[str, int],
    repeats: int = 10,
) -> list[dict[str, Any]]:
    """One row for each launch: kernel, ONNX node, median ms, and the flops and bytes that its plan counts.

    Steps inside control flow, and sizes that depend on data, are left out.

    Args:
        kernel: the address of a function, by number of the kernel entry and symbol.
        bases: the address of every buffer of the program.
        env: values of the program's symbols.
    """
    symbols = [tuple(json.loads(e.dispatch)["symbols"]) for e in program.kernels]
    launches = []
    for step in program.steps:
        if not isinstance(step, DispatchStep) or dims.symbols_of(step.sizes) - env.keys():
            continue
        sizes = [dims.evaluate(d, env) for d in step.sizes]
        local = dict(zip(symbols[step.kernel], sizes, strict=True))

        def address(ref: BufferRef) -> int:
            return bases[ref.buffer] + dims.evaluate(ref.offset, env)

        for launch in program.kernels[step.kernel].plan.launches:
            addresses = []
            for arg in launch.buffers:
                assert isinstance(arg, BufferArg)
                ref = step.workspace if arg.kind == "workspace" else _tensors(step, arg.kind)[arg.index]
                assert ref is not None
                addresses.append(address(ref) + dims.evaluate(arg.offset, local))
            items, flops, moved = (dims.evaluate(d, local) for d in (launch.grid[0], launch.flops, launch.bytes))
            tables = np.array([*addresses, 0]), np.array([*sizes, 0])
            launches.append((step, launch.symbol, kernel(step.kernel, launch.symbol), tables, items, flops, moved))
    times: list[list[float]] = [[] for _ in launches]
    for _ in range(repeats):
        for samples, (_, _, function, tables, items, flops, moved) in zip(times, launches, strict=True):
            begin = time.perf_counter()
            pool.parallel_for(function, tables[0].ctypes.data, tables[1].ctypes.data, items, flops + moved)
            samples.append((time.perf_counter() - begin) * 1e3)
    return [
        {"kernel": symbol, "node": step.node, "ms": sorted(samples)[repeats // 2], "flops": flops, "bytes": moved}
        for samples, (step, symbol, _, _, _, flops, moved) in zip(times, launches, strict=True)
    ]


def _tensors(step: DispatchStep, kind: str) -> tuple[BufferRef, ...]:
    return step.operands if kind == "operand" else step.results
