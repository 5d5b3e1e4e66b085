"""Kernel plans on the emulator: every launch of a dispatch run on numpy, races and missing fences included.

What costs time and gives the same is not done again: the emission of a dispatch for one target, and the check of random
operands where the module of Kernel IR, its launches and all else are those of another target that was checked before.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from cuda_dispatches import (
    before_rounding,
    check_against,
    check_rounded,
    extent,
    peers,
    random_operands,
    result_view,
    strided,
    unrounded,
)

from ingot import dims
from ingot.compiler.codegen.family import Emitted, emit
from ingot.compiler.codegen.mma_table import MmaRow, rows_for
from ingot.compiler.emulator import TensorMap, Uninitialized, Within, emulate
from ingot.compiler.emulator.program import Program
from ingot.compiler.reference import run_dispatch
from ingot.cuda_targets import BY_NAME
from ingot.dialects.mlir import kernel_context
from ingot.dispatch import Dispatch, TensorArg
from ingot.kernel_plan import BufferArg, KernelPlan
from ingot.target import Target


@dataclass
class Emulated:
    """What a dispatch gave: its plan, result views, the views of its operands, and matrix instructions executed, by name.

    `bank_conflicts` are cycles, where they were to be counted.
    """

    plan: KernelPlan
    results: list[np.ndarray]
    operands: list[np.ndarray]
    executed: dict[str, int] = field(default_factory=dict)
    bank_conflicts: int = 0


class _Kernels:
    """What was emitted for a dispatch, with its kernels ready for emulation."""

    def __init__(self, emitted: Emitted) -> None:
        self.emitted, self.plan = emitted, emitted.plan
        self._programs: dict[str, Program] = {}

    def program(self, symbol: str) -> Program:
        if symbol not in self._programs:
            self._programs[symbol] = Program(self.emitted.module, symbol)
        return self._programs[symbol]

    @cached_property
    def hash(self) -> bytes:
        """Of all that says what the launches do, but for the target's name."""
        text = re.sub(r'ingot\.target = "\w+"', "", f"{self.emitted.module}\n{self.plan}", count=1)
        return hashlib.sha256(text.encode()).digest()


@lru_cache(maxsize=8)
def _kernels(d: Dispatch, target: Target, schedule: Any, rows: tuple[MmaRow, ...]) -> _Kernels:
    """`rows`: of the table of instructions at this time."""
    with kernel_context():
        return _Kernels(emit(d, target, schedule))


_checked: dict[tuple, tuple[Emulated, int]] = {}  # the latest of `check`, and the bits of their sums
_REMEMBERED = 256


def _target(target: str | Target) -> Target:
    return BY_NAME[target] if isinstance(target, str) else target


def run_emulated(
    d: Dispatch, target: str | Target, sizes: Mapping[str, int] | None = None, schedule: Any = None, seed: int = 0,
    prepare: Callable[[list[np.ndarray]], None] | None = None, count_conflicts: bool = False, least_aligned: bool = False,
) -> Emulated:
    """Emit `d` for `target` and run its launches; raises EmulationError on any finding.

    Operands are random, then changed in place by `prepare`, which gets their views. `least_aligned`: tensors lie at multiples
    of what the dispatch says, and of no more.
    """
    sizes = dict(sizes or {})
    operands = random_operands(d, sizes, seed)
    if prepare is not None:
        prepare([o.view for o in operands])
    before = {
        (kind, i): t.align if least_aligned and t.align < 64 else 0
        for kind, tensors in (("operand", d.operands), ("result", d.results)) for i, t in enumerate(tensors)
    }  # fmt: skip
    results = [_behind(before["result", i], _memory(t, sizes)) for i, t in enumerate(d.results)]
    in_place = d.attr("in_place", False)
    if in_place:
        results[0] = _behind(before["result", 0], operands[0].packed())
    kernels = _kernels(d, _target(target), schedule, rows_for(_target(target)))
    plan = kernels.plan
    with kernel_context():
        workspace = np.full(dims.evaluate(plan.workspace, sizes), 0xFF, np.uint8)  # what others left there: NaN
        arrays: dict[tuple[str, int], np.ndarray] = {("workspace", 0): workspace}
        arrays |= {("operand", i): _behind(before["operand", i], o.packed()) for i, o in enumerate(operands)}
        arrays |= {("result", i): r for i, r in enumerate(results)}
        for kind, i, nbytes in d.offsets:
            arrays[kind, i] = np.pad(arrays[kind, i].view(np.uint8), (dims.evaluate(nbytes, sizes), 0))
            if kind == "result":
                results[i] = arrays[kind, i][dims.evaluate(nbytes, sizes) :]
        table = np.array([sizes[s] for s in d.symbols], np.int64)
        # Parts of the workspace are buffers of their own, so that running over a part's end is found.
        starts = {dims.evaluate(b.offset, sizes) for x in plan.launches for b in x.buffers if b.kind == "workspace"}
        ends = dict(zip(sorted(starts), [*sorted(starts)[1:], workspace.size], strict=False))
        parts = {start: workspace[start:end] for start, end in ends.items()}
        out = Emulated(plan, [], [o.view for o in operands])
        begun = {0} if in_place else set[int]()  # results that an earlier launch has written
        for launch in plan.launches:
            args: list[Any] = []
            for b in launch.buffers:
                array, offset = arrays[b.kind, b.index], dims.evaluate(b.offset, sizes)
                if b.kind == "workspace":
                    array, offset = parts[offset], 0
                skipped = before.get((b.kind, b.index), 0)
                start = operands[b.index].start * operands[b.index].memory.itemsize if b.kind == "operand" else 0
                if isinstance(b, BufferArg):
                    unwritten = b.kind == "result" and b.index not in begun
                    args.append(Within(Uninitialized(array) if unwritten else array, skipped + start + offset))
                else:
                    shape, strides = ([dims.evaluate(x, sizes) for x in v] for v in (b.shape, b.strides))
                    window = b.im2col, skipped + offset, b.steps
                    args.append(TensorMap(array, b.dtype, shape, strides, b.box, b.swizzle, *window))
            if d.symbols:
                args.append(table)
            grid = [dims.evaluate(x, sizes) for x in launch.grid]
            if 0 in grid:
                continue
            report = emulate(
                kernels.program(launch.symbol), launch.symbol, grid, launch.block, args, cluster=launch.cluster,
                dynamic_shared_bytes=launch.shared_bytes, count_conflicts=count_conflicts,
            ).check()  # fmt: skip
            begun |= {b.index for b in launch.buffers if b.kind == "result"}
            out.bank_conflicts += report.bank_conflicts or 0
            for name, count in report.executed.items():
                out.executed[name] = out.executed.get(name, 0) + count
    for i, (memory, t) in enumerate(zip(results, d.results, strict=True)):
        out.results.append(result_view(memory[before["result", i] :], t, sizes))
        assert in_place or _gaps_are_unwritten(memory[before["result", i] :], t, sizes), "memory between elements was written"
    return out


def check(
    d: Dispatch, target: str | Target, schedule: Any = None, sizes: Mapping[str, int] | None = None, seed: int = 0,
    prepare: Callable[[list[np.ndarray]], None] | None = None,
) -> Emulated:
    """`run_emulated`, and results compared with the float64 reference by the statistical rule.

    Integers must be equal, but for those that are rounded from sums of floats.
    """
    target = _target(target)
    key = d, tuple((sizes or {}).items()), seed, _kernels(d, target, schedule, rows_for(target)).hash
    found, bits = _checked.get(key, (None, 0)) if prepare is None else (None, 0)
    if found is None or bits != sum_bits(found, target):
        found = run_emulated(d, target, sizes, schedule, seed, prepare)
        bits = sum_bits(found, target)
        _compare(d, found, sizes or {}, bits)
        if prepare is None:
            _checked[key] = found, bits
            if len(_checked) > _REMEMBERED:
                del _checked[next(iter(_checked))]
    return found


def _compare(d: Dispatch, found: Emulated, sizes: Mapping[str, int], bits: int) -> None:
    plain, operands = signed(d, found.operands)
    if d.results[0].type.kind == "int" and d.attr("acc") == "f32":
        (exact,) = run_dispatch(before_rounding(plain), operands, sizes, float64=True)
        check_rounded(found.results[0], exact, bits)
        return
    exact = run_dispatch(unrounded(plain), operands, sizes, float64=True)
    for got, reference, peer in zip(found.results, exact, peers(plain, operands, sizes), strict=True):
        if got.dtype.kind in "iub":
            assert np.array_equal(got, peer), f"{np.sum(got != peer)} of {got.size} values differ"
        else:
            check_against(got, reference, peer, bits)


def sum_bits(found: Emulated, target: Target) -> int:
    """Fraction bits of the sums of the instructions that were executed, where they are less than an f32's; else 0."""
    limited = {(row.engine, row.ptx): row.sum_bits for row in rows_for(target) if row.sum_bits}
    parts = [name.split(".") for name in found.executed]
    return min((limited[p[0], p[2]] for p in parts if len(p) == 4 and (p[0], p[2]) in limited), default=0)


def signed(d: Dispatch, operands: list[np.ndarray]) -> tuple[Dispatch, list[np.ndarray]]:
    """A product with unsigned bytes as one of 16-bit integers, whose signs the reference does not need to be told."""
    tensors, arrays = list(d.operands), list(operands)
    for i, name in enumerate(("a_unsigned", "b_unsigned")):
        if d.attr(name, False):
            tensors[i], arrays[i] = replace(tensors[i], dtype="i16"), arrays[i].astype(np.uint8).astype(np.int16)
    return replace(d, operands=tuple(tensors)), arrays


def _memory(t: TensorArg, sizes: Mapping[str, int]) -> np.ndarray:
    return np.full(t.type.nbytes(extent(t, sizes)[2]), 0xFF, np.uint8)


def _behind(count: int, memory: np.ndarray) -> np.ndarray:
    """A copy of memory, as bytes, behind `count` others."""
    return np.concatenate([np.full(count, 0xFF, np.uint8), np.ascontiguousarray(memory).view(np.uint8)])


def _gaps_are_unwritten(memory: np.ndarray, t: TensorArg, sizes: Mapping[str, int]) -> bool:
    """Whether no kernel wrote what lies between the elements of a result."""
    shape, strides, count = extent(t, sizes)
    gap = np.ones(count, bool)
    strided(gap, shape, strides)[...] = False
    if t.type.bits == 4:
        return bool((np.stack([memory & 15, memory >> 4], -1).ravel()[:count][gap] == 15).all())
    return bool((memory.reshape(-1, t.type.bytes)[gap] == 0xFF).all())
