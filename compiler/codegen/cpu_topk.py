"""The family of `topk` on the CPU: a work item finds the largest elements of one line.

The line is read once. What exceeds the least of the best so far waits until there is a batch of it, which is then sorted and
merged into the best: few elements do so where k is small, and where k is all of them it is a merge sort. Merges are stable, and
elements come in order, so that of equal ones the first stay first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ingot import dims
from ingot.compiler.codegen.cpu_kernel import CpuKernel, cpu_kernel
from ingot.compiler.codegen.cpu_region import Position, RegionEmitter, load_elements, store_elements
from ingot.compiler.codegen.family import Emitted
from ingot.compiler.codegen.sort_key import key_type, sort_key
from ingot.compiler.codegen.values import Operand, Val
from ingot.dispatch import Dispatch
from ingot.target import Target

_BATCH = 256  # elements that wait at least


@dataclass(frozen=True)
class _Pairs:
    """An array of keys and one of positions in memory."""

    keys: Val
    places: Val
    type: str

    def load(self, i: Operand) -> tuple[Val, Val]:
        k = self.keys.k
        return k.load(self.keys.at(i, self.type), self.type), k.load(self.places.at(i, "i64"), "i64")

    def store(self, i: Operand, pair: tuple[Val, Val]) -> None:
        k = self.keys.k
        k.store(pair[0], self.keys.at(i, self.type))
        k.store(pair[1], self.places.at(i, "i64"))


def emit(dispatch: Dispatch, target: Target, schedule: Any = None) -> Emitted:
    """See `family.emit`; there is one schedule."""
    x, result = dispatch.operands[0], dispatch.results[0]
    axis = int(dispatch.attr("axis"))
    (mapping,) = dispatch.regions
    mapped = mapping.type_of(mapping.results[0])
    lines = tuple(d for a, d in enumerate(x.shape) if a != axis)
    count = result.shape[axis]
    batch = dims.maximum(count, _BATCH)
    # Arrays of `count`, `batch` and `batch` elements, each of keys and of positions; merges look one element beyond.
    room = (count + 2 * batch + 2) * 16
    with cpu_kernel(dispatch, target, dims.product(lines)) as ck:
        k = ck.k
        emitter = RegionEmitter(ck, mapping, x.rank)
        length, wanted, most = ck.dim(x.shape[axis]), ck.dim(count), ck.dim(batch)
        name = key_type(mapped)
        zero = k.const(0, "i64")
        with ck.items() as item:
            at_lines = ck.split(item, lines)
            base = ck.workspace() + item * ck.dim(room)
            arrays = []
            for size in (wanted, most, most + 2):
                arrays.append(_Pairs(base, base.at(size, "i64"), name))
                base = base.at(size * 2, "i64")
            best, waiting, spare = arrays
            line = _Line(ck, best, waiting, spare, wanted)

            def place(i: Val) -> tuple[Val, ...]:
                index = list(at_lines)
                index.insert(axis, i)
                return tuple(index)

            lowest = k.const(-(1 << (k.type(name).bits - 1)), name)
            with k.for_(0, length, carry=[zero, zero, lowest]) as loop:
                waits, found, least = loop.carry
                at = Position(place(loop.iv))
                element = load_elements(ck, ck.operand(0), at.index, x.strides, x.dtype, at)
                key = sort_key(k, emitter([element], at)[0], mapped)
                with k.if_else((key > least) | (found < wanted), results=["i64"]) as taken:
                    with taken.then:
                        waiting.store(waits, (key, loop.iv))
                        taken.yield_([waits + 1])
                    with taken.else_:
                        taken.yield_([waits])
                (waits,) = taken.results
                with k.if_else(waits.eq(most), results=["i64", "i64", name]) as full:
                    with full.then:
                        found_now = line.merge_waiting(waits, found)
                        full.yield_([zero, found_now, best.load(k.max(found_now - 1, 0))[0]])
                    with full.else_:
                        full.yield_([waits, found, least])
                loop.yield_(full.results)
            line.merge_waiting(loop.results[0], loop.results[1])
            with k.for_(0, wanted) as loop:
                at = Position(place(loop.iv))
                store_elements(ck, best.load(loop.iv)[1], ck.result(0), at.index, result.strides, result.dtype, at)
        return ck.emitted(workspace=dims.product(lines) * room)


@dataclass(frozen=True)
class _Line:
    """The arrays of a line: the best so far in order, those that wait, and room for merges."""

    ck: CpuKernel
    best: _Pairs
    waiting: _Pairs
    spare: _Pairs
    wanted: Val

    def merge_waiting(self, waits: Val, found: Val) -> Val:
        """Merge `waits` waiting elements into the `found` best ones; how many there are then."""
        k = self.ck.k
        self._sort(waits)
        total = k.min(found + waits, self.wanted)
        zero = k.const(0, "i64")
        self._merge(self.best, (zero, found), self.waiting, (zero, waits), (zero, total))
        self._copy(self.best, total)
        return total

    def _sort(self, count: Val) -> None:
        """Sort the first `count` waiting elements, by merges of runs of growing length."""
        k = self.ck.k
        with k.while_([k.const(1, "i64")], lambda c: c[0] < count) as passes:
            (width,) = passes.carry
            with k.for_(k.const(0, "i64"), count, width * 2) as runs:
                middle, end = k.min(runs.iv + width, count), k.min(runs.iv + width * 2, count)
                self._merge(self.waiting, (runs.iv, middle), self.waiting, (middle, end), (runs.iv, end))
            self._copy(self.waiting, count)
            passes.yield_([width * 2])

    def _merge(
        self, a: _Pairs, of_a: tuple[Val, Val], b: _Pairs, of_b: tuple[Val, Val], out: tuple[Val, Val]
    ) -> None:
        """Merge two descending ranges into the spare array's range `out`; of equal elements, those of `a` come first."""
        k = self.ck.k
        with k.for_(*out, carry=[of_a[0], of_b[0]]) as loop:
            i, j = loop.carry
            x, y = a.load(i), b.load(j)
            first = (i < of_a[1]) & ((j >= of_b[1]) | (x[0] >= y[0]))
            self.spare.store(loop.iv, (k.select(first, x[0], y[0]), k.select(first, x[1], y[1])))
            step = k.cast(first, "i64", signed=False)
            loop.yield_([i + step, j + (1 - step)])

    def _copy(self, to: _Pairs, count: Val) -> None:
        """Copy the first `count` elements of the spare array."""
        with self.ck.k.for_(0, count) as loop:
            to.store(loop.iv, self.spare.load(loop.iv))
