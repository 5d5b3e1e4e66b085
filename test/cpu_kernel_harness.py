"""Compiles a dispatch for this CPU and runs it on numpy arrays: what the tests and benchmarks of CPU kernels share."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Mapping, Sequence

import numpy as np
from cuda_dispatches import strided

from ingot import dims
from ingot.compiler.codegen.family import emit
from ingot.compiler.cpu_target import host_target
from ingot.compiler.toolchain.host import HostTarget
from ingot.compiler.toolchain.stages import Options, compile_kernels
from ingot.compiler.weights import pack_nibbles
from ingot.dialects.mlir import context
from ingot.dispatch import Dispatch, TensorArg
from ingot.dtypes import DTYPES
from ingot.runtime.arrays import allocate
from ingot.runtime.platform_posix import CodeMapping
from ingot.target import Target


class CompiledDispatch:
    """A dispatch compiled for `target`; call `run`.

    Attributes:
        dispatch, plan: what was compiled, and its kernel plan.
        emit_ms, compile_ms: how long emission and the toolchain took.
    """

    def __init__(self, dispatch: Dispatch, target: Target | None = None) -> None:
        target = target or host_target()
        self.dispatch = dispatch
        begin = time.perf_counter()
        with context():
            emitted = emit(dispatch, target)
            done = time.perf_counter()
            options = Options(host=HostTarget(target.cpu, target.features))
            image = compile_kernels(emitted.module, "cpu", options=options)
        self.plan = emitted.plan
        self.emit_ms = (done - begin) * 1e3
        self.compile_ms = (time.perf_counter() - done) * 1e3
        self._code = CodeMapping(image.data)
        prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
        self._functions = [prototype(self._code.address + image.symbols[x.symbol]) for x in self.plan.launches]

    def bind(self, operands: Sequence[np.ndarray], results: Sequence[np.ndarray], sizes: Mapping[str, int] | None = None):
        """A function without arguments that runs the kernels once, on one thread, all work items."""
        values = dict(sizes or {})
        table = (ctypes.c_int64 * max(1, len(self.dispatch.symbols)))(*(values[s] for s in self.dispatch.symbols))
        workspace = allocate(dims.evaluate(self.plan.workspace, values) + 64)
        workspace[:] = 0xFF  # NaN, whatever the type
        calls = []
        for launch, function in zip(self.plan.launches, self._functions, strict=True):
            addresses = []
            for b in launch.buffers:
                array = {"operand": operands, "result": results, "workspace": [workspace]}[b.kind][b.index]
                addresses.append(array.ctypes.data + dims.evaluate(b.offset, values))
            buffers = (ctypes.c_void_p * len(addresses))(*addresses)
            calls.append((function, buffers, dims.evaluate(launch.grid[0], values)))

        def run(pieces: int = 1) -> None:
            for function, buffers, grid in calls:
                for piece in range(pieces):
                    function(buffers, table, grid * piece // pieces, grid * (piece + 1) // pieces)

        run.keep = (operands, results, workspace)  # type: ignore[attr-defined]
        return run

    def run(
        self, operands: Sequence[np.ndarray], sizes: Mapping[str, int] | None = None, *, into: np.ndarray | None = None
    ) -> list[np.ndarray]:
        """Results for `operands`, which must lie in memory as the dispatch's strides say (see `place`).

        The work items are run in three separate ranges, as three threads would. Results are surrounded by guard bytes that
        are checked afterwards, and filled with a pattern before. `into` is the memory of the first result (for `move`).
        """
        values = dict(sizes or {})
        results, guards = [], []
        for r in self.dispatch.results:
            array, raw = _guarded(r, values)
            results.append(array)
            guards.append(raw)
        if into is not None:
            results[0][...] = into
        # Elements of 4 bits, which numpy keeps a byte each, are packed for the kernel only.
        read = [_packed(t, x, values) for t, x in zip(self.dispatch.operands, operands, strict=True)]
        written = []
        for number, r in enumerate(self.dispatch.results):
            if DTYPES[r.dtype].bits < 8:
                guards[number] = np.full(2 * _GUARD + (results[number].size + 1) // 2, _PATTERN, np.uint8)
                written.append(guards[number][_GUARD:-_GUARD])
                if into is not None and number == 0:
                    written[0][...] = pack_nibbles(into)
            else:
                written.append(results[number])
        self.bind(read, written, sizes)(3)
        for number, raw in enumerate(guards):
            assert (raw[:_GUARD] == _PATTERN).all()
            assert (raw[-_GUARD:] == _PATTERN).all()
            if written[number] is not results[number]:
                bits = np.stack([written[number] & 15, written[number] >> 4], axis=-1).reshape(-1)[: results[number].size]
                dtype = results[number].dtype
                codes = ((bits.view(np.int8) ^ 8) - 8).astype(dtype) if dtype.name == "int4" else bits.view(dtype)
                results[number] = codes.reshape(results[number].shape)
        return results


def _packed(arg: TensorArg, array: np.ndarray, sizes: Mapping[str, int]) -> np.ndarray:
    """The memory of an operand, two elements a byte where they have 4 bits."""
    if DTYPES[arg.dtype].bits >= 8:
        return array
    span = _extent(arg, sizes)[3]
    return pack_nibbles(strided(array, (span,), (1,)))


_GUARD, _PATTERN = 256, 0x5A


def _extent(arg: TensorArg, sizes: Mapping[str, int]) -> tuple[list[int], list[int], int, int]:
    """Sizes, strides, and the element span of a view: how far it reaches below and above element 0."""
    shape = [dims.evaluate(d, dict(sizes)) for d in arg.shape]
    strides = [dims.evaluate(d, dict(sizes)) for d in arg.strides]
    reach = [(n - 1) * s for n, s in zip(shape, strides, strict=True)] if 0 not in shape else [0]
    return shape, strides, sum(r for r in reach if r < 0), sum(r for r in reach if r > 0) + (0 not in shape)


def _guarded(arg: TensorArg, sizes: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    shape, strides, low, high = _extent(arg, sizes)
    item = DTYPES[arg.dtype].np.itemsize
    raw = np.full(2 * _GUARD + (high - low) * item + 64, _PATTERN, np.uint8)
    start = -raw.ctypes.data % 64  # element 0 is aligned as the dispatch says
    raw = raw[start : start + 2 * _GUARD + (high - low) * item]
    flat = raw[_GUARD : raw.size - _GUARD].view(DTYPES[arg.dtype].np)
    return strided(flat[-low:], shape, strides), raw


def place(arg: TensorArg, array: np.ndarray, sizes: Mapping[str, int] | None = None) -> np.ndarray:
    """A copy of `array` that lies in memory as `arg` says (axes of stride 0 must repeat), next to poisoned bytes."""
    view, _ = _guarded(arg, dict(sizes or {}))
    if view.size:
        view[...] = array
    return view
