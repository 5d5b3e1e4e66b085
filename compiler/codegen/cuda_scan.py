"""The family of `scan` on NVIDIA GPUs.

Where another axis is the last, or lines are many, a thread runs along a line of its own. Else a block does: its threads scan
as many neighbours as they are by shuffles, then go on with what came before. Sums are always taken in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass

from ingot import dims
from ingot.compiler.codegen.cuda_kernel import DispatchKernel, dispatch_kernel, region_buffers, symbol_of
from ingot.compiler.codegen.cuda_reduce import combiner, identity
from ingot.compiler.codegen.family import Emitted
from ingot.compiler.codegen.kernel_builder import KernelModule
from ingot.compiler.codegen.values import Val
from ingot.dialects.mlir import ir
from ingot.dims import Dim
from ingot.dispatch import Dispatch
from ingot.dtypes import DTYPES
from ingot.kernel_plan import BufferArg, KernelLaunch, KernelPlan
from ingot.target import Target

THREADS = 256
_MANY_LINES = 4096  # constant numbers of lines from which each gets one thread, if another axis is the last


@dataclass(frozen=True)
class ScanSchedule:
    """`by_block`: a block runs along a line, else a thread does."""

    by_block: bool


def choose(d: Dispatch) -> ScanSchedule:
    """A block for a line, but where neighbouring lines lie side by side and are many, or of unknown number."""
    x, axis = d.operands[0], int(d.attr("axis"))
    if all(n == 1 for n in x.shape[axis + 1 :]):
        return ScanSchedule(True)
    lines = dims.product(n for a, n in enumerate(x.shape) if a != axis)
    return ScanSchedule(isinstance(lines, int) and lines < _MANY_LINES)


def emit(dispatch: Dispatch, target: Target, schedule: ScanSchedule | None = None) -> Emitted:
    """See `family.emit`."""
    s = schedule or choose(dispatch)
    x = dispatch.operands[0]
    axis = int(dispatch.attr("axis"))
    lines = [n for a, n in enumerate(x.shape) if a != axis]
    count = dims.product(lines)
    launch = KernelLaunch(
        symbol_of(dispatch), (count if s.by_block else dims.ceildiv(count, THREADS), 1, 1),
        (BufferArg("operand", 0), *region_buffers(dispatch, skip=[0])), (THREADS, 1, 1),
        bytes=dims.product(x.shape) * (x.type.bytes + dispatch.results[0].type.bytes),
    )  # fmt: skip
    module = KernelModule(target.name, context=ir.Context.current)
    with module, dispatch_kernel(module, dispatch, launch) as dk:
        walk = _Walk(dk, axis, lines)
        if s.by_block:
            walk.along_by_block(dk.k.cast(dk.k.block_id(), "i64"))
        else:
            line = dk.k.cast(dk.k.block_id(), "i64") * THREADS + dk.k.cast(dk.k.thread_id(), "i64")
            with dk.k.if_(line < dk.size(count)):
                walk.along_by_thread(line)
    return Emitted(KernelPlan((launch,)), module.module)


class _Walk:
    """A walk along lines of a dispatch's domain."""

    def __init__(self, dk: DispatchKernel, axis: int, lines: list[Dim]) -> None:
        self.dk, self.k, self.axis, self.lines = dk, dk.k, axis, lines
        d = dk.d
        self.domain = d.operands[0].shape
        self.acc = d.regions[0].type_of(d.regions[0].results[0])
        kind = str(d.attr("kind"))
        self.combine, self.neutral = combiner(dk.k, kind, self.acc), identity(kind, self.acc)
        self.exclusive, self.reverse = (bool(d.attr(n, False)) for n in ("exclusive", "reverse"))
        self.length = dk.size(self.domain[axis])

    def position(self, line: Val, i: Val) -> list[Val]:
        """The domain's position of element `i`, in the scan's order, of a line."""
        at = self.dk.split(line, self.lines)
        at.insert(self.axis, self.length - 1 - i if self.reverse else i)
        return at

    def mapped(self, position: list[Val]) -> Val:
        x = self.dk.load(0, position, self.domain)
        return self.dk.region(self.dk.d.regions[0], [x], position, self.domain)[0]

    def finish(self, position: list[Val], value: Val) -> None:
        for number, y in enumerate(self.dk.region(self.dk.d.regions[1], [value], position, self.domain)):
            self.dk.store(number, y, position)

    def along_by_thread(self, line: Val) -> None:
        k = self.k
        with k.for_(k.const(0, "i64"), self.length, carry=[k.const(self.neutral, self.acc)]) as loop:
            position = self.position(line, loop.iv)
            total = self.combine(loop.carry[0], self.mapped(position))
            self.finish(position, loop.carry[0] if self.exclusive else total)
            loop.yield_([total])

    def along_by_block(self, line: Val) -> None:
        k, combine = self.k, self.combine
        thread, lane, warp = k.thread_id(), k.lane_id(), k.warp_id()
        warps = THREADS // 32
        neutral = k.const(self.neutral, self.acc)
        # Two sets of totals, so that one barrier a turn keeps those of the last turn from being written over.
        size = DTYPES[self.acc].bytes
        shared = k.static_shared(2 * warps * size, name="totals")
        turns = (self.length + (THREADS - 1)) // THREADS
        with k.for_(k.const(0, "i64"), turns, carry=[neutral]) as loop:
            i = loop.iv * THREADS + k.cast(thread, "i64")
            inside = i < self.length
            position = self.position(line, k.min(i, self.length - 1))
            value = k.select(inside, self.mapped(position), neutral)
            for step in (1, 2, 4, 8, 16):
                value = k.select(lane >= step, combine(k.shfl_up(value, step), value), value)
            slots = shared.at((k.cast(loop.iv, "i32") & 1) * warps, self.acc)
            with k.if_(lane.eq(31)):
                k.store(value, slots.at(warp, self.acc))
            k.barrier()
            before, total = loop.carry[0], loop.carry[0]
            for w in range(warps):
                part = k.load(slots.at(w, self.acc), self.acc)
                before = k.select(warp > w, combine(before, part), before)
                total = combine(total, part)
            if self.exclusive:
                left = k.shfl_up(value, 1)
                done = k.select(lane.eq(0), before, combine(before, left))
            else:
                done = combine(before, value)
            with k.if_(inside):
                self.finish(position, done)
            loop.yield_([total])
