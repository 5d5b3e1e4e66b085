"""The family of `topk` on NVIDIA GPUs: a block finds the largest elements of one line.

Candidates are all elements of a short line; of a long one, the k largest by radix selection (Knuth, "The Art of Computer
Programming" 5.2.5, from the most significant digit): of each digit of the k-th largest key a histogram tells the value, and
ties are decided by a selection on positions. A candidate's place in the result is the number of candidates that come before it.
So results depend on the elements alone, not on the order in which threads find them.
"""

from __future__ import annotations

from dataclasses import dataclass

from ingot import dims
from ingot.compiler.codegen.cuda_kernel import DispatchKernel, dispatch_kernel, region_buffers, symbol_of
from ingot.compiler.codegen.family import Emitted
from ingot.compiler.codegen.kernel_builder import KernelModule
from ingot.compiler.codegen.sort_key import key_type, sort_key
from ingot.compiler.codegen.values import Val
from ingot.dialects.mlir import ir
from ingot.dims import Dim
from ingot.dispatch import Dispatch
from ingot.dtypes import DTYPES
from ingot.kernel_plan import BufferArg, KernelLaunch, KernelPlan
from ingot.target import Target

_SHORT = 512  # elements of a line that are all candidates
_SHARED = 2048  # candidates that shared memory holds
_DIGIT = 8  # bits


@dataclass(frozen=True)
class TopkSchedule:
    """`threads` of a block (a multiple of 32, at least 256 with `selects`); `selects`: candidates are selected."""

    threads: int
    selects: bool


def choose(d: Dispatch) -> TopkSchedule:
    """All elements of a short line are candidates, of which a thread ranks one at a time."""
    axis = int(d.attr("axis"))
    length = d.operands[0].shape[axis]
    if isinstance(length, int) and length <= _SHORT:
        return TopkSchedule(max(32, min(256, -(-length // 32) * 32)), False)
    return TopkSchedule(512, True)


def emit(dispatch: Dispatch, target: Target, schedule: TopkSchedule | None = None) -> Emitted:
    """See `family.emit`."""
    s = schedule or choose(dispatch)
    x, result = dispatch.operands[0], dispatch.results[0]
    axis = int(dispatch.attr("axis"))
    lines = [n for a, n in enumerate(x.shape) if a != axis]
    candidates = result.shape[axis] if s.selects else x.shape[axis]
    in_shared = candidates if isinstance(candidates, int) and candidates <= _SHARED else None
    (mapping,) = dispatch.regions
    mapped = mapping.type_of(mapping.results[0])
    size = DTYPES[key_type(mapped)].bytes + 4
    # Whole multiples of 8 bytes, so that every line's keys are aligned.
    room = dims.ceildiv(candidates * size, 8) * 8
    buffers = (BufferArg("operand", 0), *region_buffers(dispatch, skip=[0]))
    if in_shared is None:
        buffers = (*buffers, BufferArg("workspace"))
    launch = KernelLaunch(
        symbol_of(dispatch), (dims.product(lines), 1, 1), buffers, (s.threads, 1, 1),
        bytes=dims.product(x.shape) * x.type.bytes,
    )  # fmt: skip
    module = KernelModule(target.name, context=ir.Context.current)
    with module, dispatch_kernel(module, dispatch, launch) as dk:
        k = dk.k
        if in_shared is not None:
            keys = k.static_shared(max(8, in_shared * size), name="candidates")
        else:
            keys = dk.pointer("workspace") + k.cast(k.block_id(), "i64") * dk.size(room)
        places = keys.at(dk.size(candidates, "i64" if in_shared is None else "i32"), key_type(mapped))
        _Line(dk, s, axis, lines, mapped, keys, places).emit()
    return Emitted(KernelPlan((launch,), dims.product(lines) * room if in_shared is None else 0), module.module)


class _Line:
    """A block's work on one line.

    Args:
        mapped: type of what the region gives.
        keys, places: memory of the candidates' keys and positions.
    """

    def __init__(
        self, dk: DispatchKernel, s: TopkSchedule, axis: int, lines: list[Dim], mapped: str, keys: Val, places: Val
    ) -> None:
        self.dk, self.k, self.s, self.axis = dk, dk.k, s, axis
        self.mapped, self.type = mapped, key_type(mapped)
        self.bits = DTYPES[self.type].bits
        self.keys, self.places = keys, places
        self.thread = self.k.thread_id()
        d = dk.d
        self.length = dk.size(d.operands[0].shape[axis], "i32")
        self.wanted = dk.size(d.results[0].shape[axis], "i32")
        self.line = dk.split(self.k.cast(self.k.block_id(), "i64"), lines)

    def emit(self) -> None:
        if self.s.selects:
            self._select()
            count = self.wanted
        else:
            self._all()
            count = self.length
        self.k.barrier()
        self._rank(count)

    def _position(self, i: Val) -> list[Val]:
        return [*self.line[: self.axis], self.k.cast(i, "i64"), *self.line[self.axis :]]

    def _key(self, i: Val) -> Val:
        """The key of element `i`, in unsigned order."""
        domain = self.dk.d.operands[0].shape
        position = self._position(i)
        x = self.dk.load(0, position, domain)
        (y,) = self.dk.region(self.dk.d.regions[0], [x], position, domain)
        return sort_key(self.k, y, self.mapped) ^ -(1 << (self.bits - 1))

    def _keep(self, slot: Val, key: Val, i: Val) -> None:
        self.k.store(key, self.keys.at(slot, self.type))
        self.k.store(i, self.places.at(slot, "i32"))

    def _all(self) -> None:
        with self.k.for_(self.thread, self.length, self.s.threads) as loop:
            self._keep(loop.iv, self._key(loop.iv), loop.iv)

    def _rank(self, count: Val) -> None:
        """Store each candidate's position at its rank."""
        k = self.k
        with k.for_(self.thread, count, self.s.threads) as own:
            key, i = k.load(self.keys.at(own.iv, self.type), self.type), k.load(self.places.at(own.iv, "i32"), "i32")
            with k.for_(k.const(0, "i32"), count, carry=[k.const(0, "i32")]) as others:
                other = k.load(self.keys.at(others.iv, self.type), self.type)
                j = k.load(self.places.at(others.iv, "i32"), "i32")
                before = other.ugt(key) | (other.eq(key) & (j < i))
                others.yield_([others.carry[0] + k.cast(before, "i32", signed=False)])
            (rank,) = others.results
            with k.if_(rank < self.wanted):
                self.dk.store(0, k.cast(i, "i64"), self._position(rank))

    # Selection

    def _select(self) -> None:
        """Keep the k largest elements, in any order."""
        k = self.k
        digits = 1 << _DIGIT
        self.histogram = k.static_shared(digits * 4, name="histogram")
        self.totals = k.static_shared(digits // 32 * 4, name="totals")
        self.state = k.static_shared(16, name="state")  # the digit, how many are still wanted, how many have the digit; taken
        zero = k.const(0, "i32")
        least, wanted, has_ties = self._least(self.type, self.bits, self.wanted, lambda i: (self._key(i), None))
        # Where some of the elements with the least key are too many, those with the largest ~i are taken.
        with k.if_else(has_ties, results=["i32"]) as ties:
            with ties.then:
                first, _, _ = self._least("i32", 32, wanted, lambda i: (~i, self._key(i).eq(least)))
                ties.yield_([first])
            with ties.else_:
                ties.yield_([zero])
        taken = self.state.at(3, "i32")
        with k.if_(self.thread.eq(0)):
            k.store(zero, taken)
        k.barrier()
        with k.for_(self.thread, self.length, self.s.threads) as loop:
            key = self._key(loop.iv)
            with k.if_(key.ugt(least) | (key.eq(least) & (~loop.iv).uge(ties.results[0]))):
                slot = k.atomic("add", taken, 1, element="i32", scope="block")
                self._keep(slot, key, loop.iv)

    def _least(self, type_: str, bits: int, wanted: Val, key: object) -> tuple[Val, Val, Val]:
        """The smallest of the `wanted` largest keys, digit by digit; or its leading digits, followed by zeros, where all
        elements that have these are taken.

        Args:
            key: gives the key of an element and whether it takes part (None: all do).

        Returns:
            the key; how many of the elements that have it are wanted; whether that is not all of them.
        """
        k = self.k
        carry = [k.const(bits - _DIGIT, type_), k.const(0, type_), wanted, k.const(True, "i1")]
        with k.while_(carry, lambda c: (c[0] >= 0) & c[3]) as loop:
            shift, prefix, left, _ = loop.carry
            with k.if_(self.thread < 1 << _DIGIT):
                k.store(k.const(0, "i32"), self.histogram.at(self.thread, "i32"))
            k.barrier()
            with k.for_(self.thread, self.length, self.s.threads) as over:
                x, joins = key(over.iv)  # type: ignore[operator]
                # In two shifts: one by all bits has no meaning.
                same = (((x ^ prefix) >> shift) >> _DIGIT).eq(0)
                with k.if_(same if joins is None else same & joins):
                    digit = k.cast((x >> shift) & ((1 << _DIGIT) - 1), "i32")
                    k.atomic("add", self.histogram.at(digit, "i32"), 1, element="i32", scope="block")
            k.barrier()
            self._find_digit(left)
            digit, left, have = (k.load(self.state.at(i, "i32"), "i32") for i in range(3))
            k.barrier()
            prefix = prefix | (k.cast(digit, type_, signed=False) << shift)
            loop.yield_([shift - _DIGIT, prefix, left, have > left])
        _, prefix, left, more = loop.results
        return prefix, left, more

    def _find_digit(self, wanted: Val) -> None:
        """Leave in `state` the digit of the element that is number `wanted` from the largest down, how many of those with this
        digit are wanted, and how many there are."""
        k = self.k
        digits = 1 << _DIGIT
        lane, warp = k.lane_id(), k.warp_id()
        digit = (digits - 1) - self.thread
        counts = self.thread < digits
        count = k.load(self.histogram.at(k.max(digit, 0), "i32"), "i32")
        total = count
        for step in (1, 2, 4, 8, 16):
            total = k.select(lane >= step, total + k.shfl_up(total, step), total)
        with k.if_(counts & lane.eq(31)):
            k.store(total, self.totals.at(warp, "i32"))
        k.barrier()
        for w in range(digits // 32 - 1):
            part = k.load(self.totals.at(w, "i32"), "i32")
            total = total + k.select(warp > w, part, 0)
        before = total - count
        with k.if_(counts & (before < wanted) & (total >= wanted)):
            for i, value in enumerate((digit, wanted - before, count)):
                k.store(value, self.state.at(i, "i32"))
        k.barrier()
