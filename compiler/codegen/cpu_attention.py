"""The family of `attention` on the CPU: a running softmax over blocks of keys (Dao et al., FlashAttention, 2022).

For each block of queries, scores against a block of keys are a product into scratch memory, through the region `score`; the
softmax of its rows rescales what was summed before; the product with the values is added. Memory is bounded whatever the
lengths. One or a few queries (a decoding step) stream keys and values instead of packing them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ingot import dims
from ingot.compiler.codegen.cpu_attention_rows import RowStatistics, count_keys, emit_streamed, finish_row, softmax_row
from ingot.compiler.codegen.cpu_factors import Arithmetic, Factor, Lines
from ingot.compiler.codegen.cpu_gemm import BlockedGemm, GemmSchedule, MatrixA, MatrixB, block_range, register_tile
from ingot.compiler.codegen.cpu_kernel import CpuKernel, cpu_kernel
from ingot.compiler.codegen.cpu_region import Position, RegionEmitter
from ingot.compiler.codegen.family import Emitted
from ingot.compiler.codegen.values import Val
from ingot.dims import Dim
from ingot.dispatch import Dispatch
from ingot.target import Target

KEYS = 256  # keys of a block
QUERIES = 96  # queries of a block, at most
STREAMED = 4  # at most as many queries are streamed


@dataclass(frozen=True)
class AttentionSchedule:
    """Queries and keys of a block."""

    queries: int = QUERIES
    keys: int = KEYS


class _ScratchA:
    """The rows of a block of probabilities, as they lie in scratch memory."""

    k_step, scratch = 1, 0

    def __init__(self, rows: Val, row_step: int) -> None:
        self._rows, self.row_step = rows, row_step

    def block(self, m0: Val, rows: Val, k0: Val, kc: Val, scratch: Val | None) -> Val:
        """See `cpu_gemm.ASource`."""
        return self._rows


def emit(dispatch: Dispatch, target: Target, schedule: Any = None) -> Emitted:
    """See `family.emit`; `schedule` is an `AttentionSchedule`."""
    q, key = dispatch.operands[:2]
    batch, heads, queries, depth = q.shape
    if schedule is None and isinstance(queries, int) and queries <= STREAMED:
        return emit_streamed(dispatch, target)
    schedule = schedule or AttentionSchedule()
    assert isinstance(schedule, AttentionSchedule)
    acc = dispatch.regions[0].args[0]
    lanes = target.vector_bits // (64 if acc == "f64" else 32)
    registers = 32 if target.vector_bits >= 512 else 16
    width = dispatch.operands[2].shape[3]
    wanted = schedule.queries if not isinstance(queries, int) else -(-queries // -(-queries // schedule.queries))
    scores = _schedule(wanted, key.shape[2], depth, schedule.keys, lanes, registers)
    values = _schedule(wanted, width, schedule.keys, 4 * lanes, lanes, registers)
    block = max(scores.mc, values.mc)
    grid = (batch, heads, dims.ceildiv(queries, wanted))
    with cpu_kernel(dispatch, target, dims.product(grid)) as ck:
        with ck.items() as item:
            b, h, number = ck.split(item, grid)
            q0, rows = block_range(ck, number, wanted, queries)
            _Block(ck, dispatch, acc, scores, values, schedule.keys, block).emit(b, h, q0, rows)
        return ck.emitted(dims.product((batch, heads, queries, key.shape[2])) * (depth + width) * 2)


def _schedule(m: int, n: Dim, k: Dim, nc: int, lanes: int, registers: int) -> GemmSchedule:
    mr, nv = register_tile(m, n, lanes, registers)
    nr = nv * lanes
    kc = -(-k // lanes) * lanes if isinstance(k, int) and k <= 512 else 256
    return GemmSchedule(mr, nv, -(-m // mr) * mr, -(-nc // nr) * nr, max(lanes, kc))


class _Block:
    """One block of queries of a head against all keys."""

    def __init__(
        self, ck: CpuKernel, dispatch: Dispatch, acc: str, scores: GemmSchedule, values: GemmSchedule, keys: int, rows: int
    ) -> None:
        self.ck, self.dispatch, self.acc, self.keys = ck, dispatch, acc, keys
        self._scores, self._values = scores, values
        self.lanes = ck.lanes(acc)
        width = dispatch.operands[2].shape[3]
        size = ck.k.type(acc).bits // 8
        # Rows are padded against falling into the same sets of the cache.
        self.p_step = -(-keys // self.lanes) * self.lanes + self.lanes
        self.p = ck.k.alloca(rows * self.p_step * size)
        if not isinstance(width, int):
            raise NotImplementedError(f"attention on cpu needs values of constant width, not {width}")
        self.o_step = -(-width // self.lanes) * self.lanes
        self.out = ck.k.alloca(rows * self.o_step * size)
        self.statistics = RowStatistics(ck, acc, rows)

    def emit(self, b: Val, h: Val, q0: Val, rows: Val) -> None:
        """Write the code for queries [q0, q0 + rows) of head h of batch b."""
        ck, k, d = self.ck, self.ck.k, self.dispatch
        q, key, value = d.operands[:3]
        queries, keys, width = q.shape[2], key.shape[2], value.shape[3]
        shared = h // ck.dim(dims.floordiv(q.shape[1], key.shape[1]))
        arithmetic = Arithmetic(self.acc)
        factor_q = Factor(ck, arithmetic, Lines(ck, q, q.strides[2], q.strides[3]), q.shape[3])
        factor_k = Factor(ck, arithmetic, Lines(ck, key, key.strides[2], key.strides[3]), q.shape[3])
        factor_v = Factor(ck, arithmetic, Lines(ck, value, value.strides[3], value.strides[2]), keys)
        source_q = MatrixA(ck, factor_q, queries, self._scores)
        source_k = MatrixB(ck, factor_k, keys, self._scores)
        source_v = MatrixB(ck, factor_v, width, self._values)
        factor_q.lines.begin(ck.operand(0), ck.offset((b, h), q.strides[:2]))
        factor_k.lines.begin(ck.operand(1), ck.offset((b, shared), key.strides[:2]))
        first_value = ck.offset((b, shared), value.strides[:2])
        sizes = (ck.dim(queries), ck.dim(keys), ck.dim(q.shape[3]))
        scores = BlockedGemm(ck, self._scores, arithmetic, *sizes, source_q, source_k)
        source_p = _ScratchA(self.p, self.p_step)
        region = RegionEmitter(ck, d.regions[0], 4)
        scale = float(d.attr("scale"))
        zero = k.const(0, "i64")
        last = count_keys(ck, b)
        shift = last - ck.dim(queries)  # query s sees keys up to s + shift
        if d.attr("causal", False):
            last = k.max(zero, k.min(last, q0 + rows + shift))
        self.statistics.reset(rows)
        vector = k.vector_of(self.acc, self.lanes)
        with k.for_(0, rows * self.o_step, self.lanes) as loop:
            k.store(k.const(0, vector), self.out.at(loop.iv, self.acc), align=vector.nbytes)
        with k.for_(0, last, self.keys) as over_keys:
            t0 = over_keys.iv
            count = k.min(last - t0, k.const(self.keys, "i64"))

            def score(s: Val, at: Position, product: Val) -> None:
                lane_axis = 3 if at.lanes else -1
                (x,) = region([product * scale], Position((b, h, s, at.index[0]), lane_axis, at.lanes, at.mask))
                if at.lanes and x.t.kind != "vector":
                    x = k.broadcast(x, at.lanes)
                if d.attr("causal", False):
                    x = k.select(self._seen(at, s + shift), x, k.const(float("-inf"), x.t))
                # Whole vectors: what lies beyond the last key is never read.
                k.store(x, self.p.at((s - q0) * self.p_step + (at.index[0] - t0), self.acc))

            scores.block(q0, rows, t0, count, score)
            with k.for_(0, rows) as loop:
                p = self.p.at(loop.iv * self.p_step, self.acc)
                rescale = softmax_row(ck, self.acc, p, count, self.statistics, loop.iv)
                with k.for_(0, self.o_step, self.lanes) as columns:
                    o = self.out.at(loop.iv * self.o_step + columns.iv, self.acc)
                    k.store(k.load(o, vector, align=vector.nbytes) * rescale, o, align=vector.nbytes)
            factor_v.lines.begin(ck.operand(2), first_value + t0 * ck.dim(value.strides[2]))
            products = BlockedGemm(
                ck, self._values, arithmetic, k.const(self._values.mc, "i64"), ck.dim(width), count, source_p, source_v,
                single_pass=True,
            )  # fmt: skip

            def add(row: Val, at: Position, product: Val) -> None:
                o = self.out.at(row * self.o_step + at.index[0], self.acc)
                k.store(k.load(o, product.t) + product, o)

            panel = self._values.nc
            with k.for_(0, ck.dim(width), panel) as loop:
                cols = k.min(ck.dim(width) - loop.iv, k.const(panel, "i64"))
                products.block(zero, rows, loop.iv, cols, add)
        epilogue = RegionEmitter(ck, d.regions[1], 4)
        with k.for_(0, rows) as loop:
            o = self.out.at(loop.iv * self.o_step, self.acc)
            finish_row(ck, d, epilogue, (b, h, q0 + loop.iv), o, self.statistics.total(loop.iv), self.lanes, width)

    def _seen(self, at: Position, last: Val) -> Val:
        """Lanes whose key is not after `last`."""
        k = self.ck.k
        if not at.lanes:
            return at.index[0] <= last
        left = k.max(k.min(last - at.index[0], k.const(at.lanes, "i64")), k.const(-1, "i64"))
        return k.iota(f"vector<{at.lanes}xi32>") <= k.broadcast(k.cast(left, "i32"), at.lanes)
