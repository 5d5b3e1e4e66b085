"""Rows of attention on the CPU: the running softmax of one row of scores, and attention of few queries by streaming.

The running softmax keeps for each query the largest score m and the sum l of exp(score - m) so far; a new block of scores
multiplies what was summed under the old maximum by exp(m_old - m_new). A maximum of minus infinity (all keys so far are
masked) counts as 0, so that such blocks add nothing; a query that sees no key at all gives NaN, as softmax does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ingot import dims
from ingot.compiler.codegen.cpu_kernel import CpuKernel, cpu_kernel
from ingot.compiler.codegen.cpu_region import Position, RegionEmitter, load_elements, load_lanes, storage_type, store_lanes
from ingot.compiler.codegen.cpu_space import for_lanes, tail_mask, takes_masks
from ingot.compiler.codegen.family import Emitted
from ingot.compiler.codegen.scalar_lowering import ScalarEmitter
from ingot.compiler.codegen.values import Val
from ingot.dims import Dim
from ingot.dispatch import Dispatch
from ingot.target import Target

_KEYS = 256  # keys of a block of scores
_GROUP = 8  # keys whose products with a query are summed at once
_VECTORS = 8  # vectors of an output row that are accumulated at once


class RowStatistics:
    """The running maximum and sum of a number of rows, in scratch memory."""

    def __init__(self, ck: CpuKernel, acc: str, rows: int) -> None:
        self.ck, self.acc = ck, acc
        size = ck.k.type(acc).bits // 8
        self._maxima, self._sums = ck.k.alloca(rows * size), ck.k.alloca(rows * size)

    def reset(self, rows: Val) -> None:
        """Begin rows [0, rows)."""
        k = self.ck.k
        with k.for_(0, rows) as loop:
            k.store(k.const(float("-inf"), self.acc), self._maxima.at(loop.iv, self.acc))
            k.store(k.const(0.0, self.acc), self._sums.at(loop.iv, self.acc))

    def maximum(self, row: Val) -> Val:
        """The largest score of a row so far."""
        return self.ck.k.load(self._maxima.at(row, self.acc), self.acc)

    def total(self, row: Val) -> Val:
        """The sum of a row's exponentials so far."""
        return self.ck.k.load(self._sums.at(row, self.acc), self.acc)

    def update(self, row: Val, maximum: Val, total: Val) -> None:
        """Set both."""
        self.ck.k.store(maximum, self._maxima.at(row, self.acc))
        self.ck.k.store(total, self._sums.at(row, self.acc))


def _fold_vectors(
    ck: CpuKernel, count: Val, lanes: int, start: Val, step: Callable[[Val, Val | None, Val], Val]
) -> Val:
    """Carry one vector over positions [0, count), the last of which may be masked."""
    k = ck.k
    main = count // lanes * lanes
    with k.for_(0, main, lanes, carry=[start]) as loop:
        loop.yield_([step(loop.iv, None, loop.carry[0])])
    with k.if_else(main < count, results=loop.results) as tail:
        with tail.then:
            tail.yield_([step(main, tail_mask(ck, count - main, lanes), loop.results[0])])
        with tail.else_:
            tail.yield_(loop.results)
    return tail.results[0]


def _across(ck: CpuKernel, x: Val, combine: Callable[[Val, Val], Val]) -> Val:
    k = ck.k
    while x.t.lanes > 1:
        half = x.t.lanes // 2
        x = combine(k.slice(x, 0, half), k.slice(x, half, half))
    return k.extract(x, 0)


def softmax_row(ck: CpuKernel, acc: str, p: Val, count: Val, statistics: RowStatistics, row: Val) -> Val:
    """Replace the scores p[0:count] by exponentials, update the row's statistics, and give the factor of earlier sums.

    `p` must have room for whole vectors.
    """
    k = ck.k
    lanes = ck.lanes(acc)
    vector = k.vector_of(acc, lanes)
    exp = ScalarEmitter(k).exp
    lowest = k.const(float("-inf"), vector)

    def largest(i: Val, mask: Val | None, carry: Val) -> Val:
        x = k.load(p.at(i, acc), vector)
        return k.maximum(carry, x if mask is None else k.select(mask, x, lowest))

    old = statistics.maximum(row)
    new = k.maximum(old, _across(ck, _fold_vectors(ck, count, lanes, lowest, largest), k.maximum))
    base = k.select(new.eq(float("-inf")), k.const(0.0, acc), new)

    def exponentials(i: Val, mask: Val | None, carry: Val) -> Val:
        e = exp(k.load(p.at(i, acc), vector) - base)
        e = e if mask is None else k.select(mask, e, k.const(0.0, vector))
        k.store(e, p.at(i, acc))
        return carry + e

    total = _across(ck, _fold_vectors(ck, count, lanes, k.const(0.0, vector), exponentials), Val.__add__)
    rescale = exp(old - base)
    statistics.update(row, new, k.fma(statistics.total(row), rescale, total))
    return rescale


def finish_row(
    ck: CpuKernel, dispatch: Dispatch, epilogue: RegionEmitter, row: Sequence[Val], out: Val, total: Val, lanes: int, width: Dim
) -> None:
    """Divide a row's sums by the sum of its exponentials, run the epilogue and store the results."""
    k = ck.k
    acc = total.t.name
    factor = 1.0 / total
    dtypes = [t.dtype for t in (*dispatch.results, *dispatch.operands)]

    def vector(i: Val, n: int, mask: Val | None) -> None:
        at = Position((*row, i), 3 if n else -1, n, mask)
        y = k.load(out.at(i, acc), k.vector_of(acc, n) if n else acc) * factor
        for number, x in enumerate(epilogue([y], at)):
            result = dispatch.results[number]
            storage = storage_type(result.dtype)
            to = ck.result(number).at(ck.offset(at.index, result.strides), storage)
            store_lanes(ck, x, to, result.dtype, ck.dim(result.strides[3]), at)

    for_lanes(ck, k.const(0, "i64"), ck.dim(width), lanes, vector, masked=takes_masks(ck, dtypes))


def count_keys(ck: CpuKernel, batch: Val) -> Val:
    """How many keys of a batch take part, in i64."""
    k, stored = ck.k, ck.dim(ck.dispatch.operands[1].shape[2])
    if not ck.dispatch.attr("ragged", False):
        return stored
    t = ck.dispatch.operands[3]
    length = load_elements(ck, ck.operand(3), [batch], t.strides, t.dtype, Position(()))
    return k.max(k.min(k.cast(length, "i64"), stored), k.const(0, "i64"))


def emit_streamed(dispatch: Dispatch, target: Target) -> Emitted:
    """Write attention whose queries are few: a work item is one query of one head, and keys and values are read once each."""
    q, key, value = dispatch.operands[:3]
    batch, heads, queries, depth = q.shape
    width = value.shape[3]
    acc = dispatch.regions[0].args[0]
    grid = (batch, heads, queries)
    if not isinstance(depth, int) or not isinstance(width, int):
        raise NotImplementedError(f"attention on cpu needs heads of constant width, not {depth} and {width}")
    with cpu_kernel(dispatch, target, dims.product(grid)) as ck:
        k = ck.k
        lanes = ck.lanes(acc)
        size = k.type(acc).bits // 8
        room = -(-width // lanes) * lanes
        p, out = k.alloca((_KEYS + lanes) * size), k.alloca(room * size)
        query = k.alloca((-(-depth // lanes) * lanes) * size)
        statistics = RowStatistics(ck, acc, 1)
        score, epilogue = RegionEmitter(ck, dispatch.regions[0], 4), RegionEmitter(ck, dispatch.regions[1], 4)
        zero, one = k.const(0, "i64"), k.const(1, "i64")
        vector = k.vector_of(acc, lanes)
        with ck.items() as item:
            b, h, s = ck.split(item, grid)
            shared = h // ck.dim(dims.floordiv(heads, key.shape[1]))
            source = ck.operand(0).at(ck.offset((b, h, s), q.strides[:3]), q.dtype)
            keys = ck.operand(1).at(ck.offset((b, shared), key.strides[:2]), key.dtype)
            values = ck.operand(2).at(ck.offset((b, shared), value.strides[:2]), value.dtype)
            for_vectors(ck, depth, lanes, lambda i, mask: k.store(
                _load(ck, source, q.dtype, q.strides[3], i, lanes, mask, acc), query.at(i, acc)))  # fmt: skip
            for_vectors(ck, room, lanes, lambda i, mask: k.store(k.const(0, vector), out.at(i, acc)))
            statistics.reset(one)
            last = count_keys(ck, b)
            if dispatch.attr("causal", False):
                last = k.max(zero, k.min(last, s + (last - ck.dim(queries)) + 1))
            with k.for_(0, last, _KEYS) as over_keys:
                t0 = over_keys.iv
                count = k.min(last - t0, k.const(_KEYS, "i64"))
                block = keys.at(t0 * ck.dim(key.strides[2]), key.dtype)
                _products(ck, key, block, count, depth, query, p, acc)

                def scored(i: Val, n: int, mask: Val | None) -> None:
                    at = Position((b, h, s, t0 + i), 3 if n else -1, n, mask)
                    x = k.load(p.at(i, acc), k.vector_of(acc, n) if n else acc) * float(dispatch.attr("scale"))
                    (x,) = score([x], at)
                    k.store(x if x.t.kind == "vector" or not n else k.broadcast(x, n), p.at(i, acc))

                dtypes = [t.dtype for t in dispatch.operands]
                for_lanes(ck, zero, count, lanes, scored, masked=takes_masks(ck, dtypes))
                rescale = softmax_row(ck, acc, p, count, statistics, zero)
                block = values.at(t0 * ck.dim(value.strides[2]), value.dtype)
                _weighted_sum(ck, value, block, count, room, p, out, rescale, acc)
            finish_row(ck, dispatch, epilogue, (b, h, s), out, statistics.total(zero), lanes, width)
        return ck.emitted(dims.product((*grid, key.shape[2])) * (depth + width) * 2)


def for_vectors(ck: CpuKernel, size: int, lanes: int, body: Callable[[Val, Val | None], Any]) -> None:
    """Emit `body(position, mask)` for the vectors of [0, size), the last masked where it is not whole."""
    k = ck.k
    main = size // lanes * lanes
    if main:
        with k.for_(0, main, lanes) as loop:
            body(loop.iv, None)
    if main < size:
        body(k.const(main, "i64"), tail_mask(ck, size - main, lanes))


def _load(
    ck: CpuKernel, base: Val, dtype: str, stride: Dim, i: Val, lanes: int, mask: Val | None, acc: str
) -> Val:
    k = ck.k
    step = ck.dim(stride)
    x = k.cast(load_lanes(ck, base.at(i * step, dtype), dtype, step, Position((), 0, lanes, mask)), acc)
    return x if x.t.kind == "vector" else k.broadcast(x, lanes)


def _products(
    ck: CpuKernel, key: Any, keys: Val, count: Val, depth: int, query: Val, p: Val, acc: str
) -> None:
    """p[t] = query . keys[t], a group of keys at a time; the last group repeats the last key."""
    k = ck.k
    lanes = ck.lanes(acc)
    vector = k.vector_of(acc, lanes)
    with k.for_(0, count, _GROUP) as loop:
        rows = [keys.at(k.min(loop.iv + j, count - 1) * ck.dim(key.strides[2]), key.dtype) for j in range(_GROUP)]

        def step(i: Val, mask: Val | None, sums: list[Val], rows: list[Val] = rows) -> list[Val]:
            x = k.load(query.at(i, acc), vector)
            return [
                k.fma(x, _load(ck, row, key.dtype, key.strides[3], i, lanes, mask, acc), total)
                for row, total in zip(rows, sums, strict=True)
            ]

        sums = [k.const(0.0, vector)] * _GROUP
        main = depth // lanes * lanes
        if main:
            with k.for_(0, main, lanes, carry=sums) as inner:
                inner.yield_(step(inner.iv, None, inner.carry))
            sums = inner.results
        if main < depth:
            sums = step(k.const(main, "i64"), tail_mask(ck, depth - main, lanes), sums)
        k.store(k.vector([k.reduce("add", x) for x in sums]), p.at(loop.iv, acc))


def _weighted_sum(
    ck: CpuKernel, value: Any, values: Val, count: Val, room: int, p: Val, out: Val, rescale: Val, acc: str
) -> None:
    """out = out * rescale + sum over t of p[t] * values[t]."""
    k = ck.k
    lanes = ck.lanes(acc)
    vector = k.vector_of(acc, lanes)
    width = value.shape[3]
    for first in range(0, room, _VECTORS * lanes):
        starts = range(first, min(room, first + _VECTORS * lanes), lanes)
        masks = [None if c + lanes <= width else tail_mask(ck, width - c, lanes) for c in starts]
        sums = [k.load(out.at(c, acc), vector) * rescale for c in starts]
        with k.for_(0, count, carry=sums) as loop:
            weight = k.broadcast(k.load(p.at(loop.iv, acc), acc), lanes)
            row = values.at(loop.iv * ck.dim(value.strides[2]), value.dtype)
            loop.yield_([
                k.fma(weight, _load(ck, row, value.dtype, value.strides[3], k.const(c, "i64"), lanes, mask, acc), total)
                for c, mask, total in zip(starts, masks, loop.carry, strict=True)
            ])  # fmt: skip
        for c, x in zip(starts, loop.results, strict=True):
            k.store(x, out.at(c, acc))
