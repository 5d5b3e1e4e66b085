"""Attention in one pass by fused multiply-adds: exact float32, and types without an instruction row.

Threads form a 16 x 16 grid over a tile of queries and keys, `rows` x `keys` products each; a row's threads are half a warp.
Queries and keys lie in shared memory with depth outermost, converted to f32; probabilities pass through shared memory to meet
values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ingot import dims
from ingot.compiler.codegen.cuda_attention_problem import AttentionProblem, score
from ingot.compiler.codegen.cuda_attention_softmax import LOG2E, SplitLayout, power_of_two, store_pair
from ingot.compiler.codegen.cuda_gemm_problem import Matrix
from ingot.compiler.codegen.cuda_gemm_simt import as_accumulator
from ingot.compiler.codegen.cuda_kernel import (
    DispatchKernel,
    dispatch_kernel,
    divides,
    memory_type,
    region_buffers,
    region_operands,
    symbol_of,
)
from ingot.compiler.codegen.kernel_builder import KernelModule
from ingot.compiler.codegen.values import Val
from ingot.kernel_plan import BufferArg, KernelLaunch

GRID = 16  # threads along each side of a tile
THREADS = GRID * GRID
PADDING = 4


@dataclass(frozen=True)
class SimtAttentionSchedule:
    """`rows` and `keys` of a thread (a tile has 16 times as many), `splits` blocks that share a head's keys."""

    rows: int = 4
    keys: int = 4
    splits: int = 1

    def shared_bytes(self, p: AttentionProblem) -> int:
        """Shared memory of a block."""
        m, n = GRID * self.rows, GRID * self.keys
        return 4 * (p.depth * (m + PADDING) + p.depth * (n + PADDING) + n * _columns(p) * 4 * GRID + m * (n + PADDING))


SIMT_SCHEDULES: tuple[SimtAttentionSchedule, ...] = (
    SimtAttentionSchedule(4, 4), SimtAttentionSchedule(4, 2), SimtAttentionSchedule(2, 2), SimtAttentionSchedule(2, 1),
    SimtAttentionSchedule(1, 1),
)  # fmt: skip


def _columns(p: AttentionProblem) -> int:
    """Groups of four elements of a value that a thread accumulates."""
    return -(-p.depth_v // (4 * GRID))


def simt_attention_launch(p: AttentionProblem, s: SimtAttentionSchedule) -> KernelLaunch:
    """The launch of a schedule: tiles of rows, heads, batches times splits."""
    own = tuple(BufferArg("operand", i) for i in range(3))
    if s.splits > 1:
        loaded = (BufferArg("operand", i) for i in region_operands(p.dispatch.regions[:1]) if i > 2)
        rest: tuple[BufferArg, ...] = (*loaded, BufferArg("workspace"))
    else:
        rest = region_buffers(p.dispatch, skip=(0, 1, 2))
    return KernelLaunch(
        symbol_of(p.dispatch), (dims.ceildiv(p.rows, GRID * s.rows), p.heads, p.batch * s.splits), (*own, *rest),
        (THREADS, 1, 1), shared_bytes=s.shared_bytes(p), flops=p.flops,
    )  # fmt: skip


def emit_attention_simt(module: KernelModule, p: AttentionProblem, s: SimtAttentionSchedule, launch: KernelLaunch) -> None:
    """Write the kernel of a schedule into `module`."""
    with dispatch_kernel(module, p.dispatch, launch, min_blocks=1) as dk:
        _Attention(dk, p, s).emit()


class _Tile:
    """Copies a tile of an operand into shared memory as f32, zeros beyond its end.

    Args:
        dk: the kernel.
        x: rows and columns of the operand; columns are contiguous, if any axis is.
        rows: of the tile.
        cols: of the tile: all of the operand's, rounded up.
        line: elements from a line of shared memory to the next.
        transposed: lines are columns.
    """

    def __init__(self, dk: DispatchKernel, x: Matrix, rows: int, cols: int, line: int, transposed: bool) -> None:
        self.dk, self.k, self.x, self.rows, self.cols, self.line, self.transposed = dk, dk.k, x, rows, cols, line, transposed
        lanes = 4
        while lanes > 1 and not (
            x.col_stride == 1 and cols % lanes == 0 and divides(lanes, x.cols, dk.d) and x.aligned(lanes * x.bits // 8, dk.d)
        ):
            lanes //= 2
        self.lanes = lanes

    def copy(self, shared: Val, first: Val, batch: Sequence[Val]) -> None:
        """Copy rows from `first` on."""
        k, x, dk = self.k, self.x, self.dk
        offset = k.const(0, "i64")
        for b, s in zip(batch, x.batch_strides, strict=True):
            offset = offset + k.cast(b, "i64") * dk.size(s)
        name = memory_type(x.dtype)
        base = dk.pointer(x.kind, x.index).at(offset, name)
        rows, cols = dk.size(x.rows, "i32"), dk.size(x.cols, "i32")
        vectors = self.cols // self.lanes
        t = k.vector_of(name, self.lanes)
        with k.for_(k.thread_id(), self.rows * vectors, THREADS) as loop:
            row, col = loop.iv // vectors, (loop.iv % vectors) * self.lanes
            at = first + row
            valid = (at < rows) & (col < cols)
            place = k.cast(at, "i64") * dk.size(x.row_stride) + k.cast(col, "i64") * dk.size(x.col_stride)
            raw = k.load(base.at(k.select(valid, place, 0), name), t, align=self.lanes * x.bits // 8)
            values = k.elements(as_accumulator(dk, k.select(valid, raw, k.const(0, t)), x.dtype, "f32", False))
            for i, value in enumerate(values):
                line, within = (col + i, row) if self.transposed else (row, col + i)
                k.store(value, shared.at(line * self.line + within, "f32"))


class _Attention:
    """The kernel while it is written."""

    def __init__(self, dk: DispatchKernel, p: AttentionProblem, s: SimtAttentionSchedule) -> None:
        self.dk, self.k, self.p, self.s = dk, dk.k, p, s
        k = self.k
        self.m, self.n = GRID * s.rows, GRID * s.keys
        self.columns = _columns(p)
        self.width_v = self.columns * 4 * GRID
        thread = k.thread_id()
        self.row, self.col = thread // GRID, thread % GRID
        shared = k.dynamic_shared(128)
        self.q = shared
        self.keys = self.q + 4 * p.depth * (self.m + PADDING)
        self.v = self.keys + 4 * p.depth * (self.n + PADDING)
        self.probabilities = self.v + 4 * self.n * self.width_v
        # The second product's operand as rows of keys.
        v = Matrix(
            "operand", 2, p.v.dtype, p.v.cols, p.depth_v, p.v.col_stride, p.v.row_stride, p.v.batch_strides, p.v.align, p.v.bits
        )
        self.tile_q = _Tile(dk, p.q, self.m, p.depth, self.m + PADDING, True)
        self.tile_k = _Tile(dk, p.k, self.n, p.depth, self.n + PADDING, True)
        self.tile_v = _Tile(dk, v, self.n, self.width_v, self.width_v, False)
        self.n_keys, self.n_rows = dk.size(p.keys, "i32"), dk.size(p.rows, "i32")
        self.factor = p.scale * LOG2E if p.plain_scores else LOG2E

    def emit(self) -> None:
        k, s, p = self.k, self.s, self.p
        m0, head, z = k.block_id(0) * self.m, k.block_id(1), k.block_id(2)
        batch = z // s.splits if s.splits > 1 else z
        split = z % s.splits if s.splits > 1 else k.const(0, "i32")
        self.rows_at = [m0 + self.row * s.rows + i for i in range(s.rows)]
        self.positions = [p.position(k, batch, head, k.min(r, self.n_rows - 1)) for r in self.rows_at]
        self.tile_q.copy(self.q, m0, [batch, head])
        tiles = (self.n_keys + (self.n - 1)) // self.n
        if p.causal:
            shift = self.n_keys - self.n_rows
            tiles = k.min(tiles, k.max((m0 + (self.m + self.n - 1) + shift).sdiv(self.n), 0))
        begin = k.const(0, "i32")
        if s.splits > 1:
            per = (tiles + (s.splits - 1)) // s.splits
            begin = k.min(split * per, tiles)
            tiles = k.min(begin + per, tiles)
        low, zero = k.const(float("-inf"), "f32"), k.const(0.0, "f32")
        start = [[low] * s.rows, [zero] * s.rows, [zero] * (s.rows * self.columns * 4)]
        with k.for_(begin, tiles, carry=start) as loop:
            maximum, total, acc = loop.carry
            k.barrier()
            self.tile_k.copy(self.keys, loop.iv * self.n, [batch, p.kv_head(head)])
            self.tile_v.copy(self.v, loop.iv * self.n, [batch, p.kv_head(head)])
            k.barrier()
            scores = self.scores(loop.iv * self.n)
            maximum, total, acc = self.softmax(scores, maximum, total, acc)
            loop.yield_([maximum, total, self.add_values(acc)])
        maximum, total, acc = loop.results
        total = [k.warp_reduce(lambda x, y: x + y, x, GRID) for x in total]
        self.store(batch, head, split, maximum, total, acc)

    def scores(self, first: Val) -> list[Val]:
        """Scores of the thread's rows and keys of a tile, rows first; minus infinity where a key does not take part."""
        k, s, p = self.k, self.s, self.p
        zero = k.const(0.0, "f32")
        with k.for_(0, p.depth, carry=[zero] * (s.rows * s.keys)) as loop:
            acc = list(loop.carry)
            q = k.load(
                self.q.at(loop.iv * (self.m + PADDING) + self.row * s.rows, "f32"), k.vector_of("f32", s.rows), align=4 * s.rows
            )
            key = k.load(
                self.keys.at(loop.iv * (self.n + PADDING) + self.col * s.keys, "f32"),
                k.vector_of("f32", s.keys),
                align=4 * s.keys,
            )
            for i, x in enumerate(k.elements(q)):
                for j, y in enumerate(k.elements(key)):
                    acc[i * s.keys + j] = k.fma(x, y, acc[i * s.keys + j])
            loop.yield_(acc)
        out = list(loop.results)
        low = k.const(float("-inf"), "f32")
        for i, row in enumerate(self.rows_at):
            last = self.n_keys - 1
            if p.causal:
                last = k.min(last, row + (self.n_keys - self.n_rows))
            for j in range(s.keys):
                col = first + self.col * s.keys + j
                x = out[i * s.keys + j]
                if not p.plain_scores:
                    x = score(self.dk, p, x, self.positions[i], k.min(col, self.n_keys - 1), 0)
                out[i * s.keys + j] = k.select(col <= last, x, low)
        return out

    def softmax(
        self, scores: list[Val], maximum: list[Val], total: list[Val], acc: list[Val]
    ) -> tuple[list[Val], list[Val], list[Val]]:
        """Maxima and sums with a tile's scores, accumulators rescaled to them; probabilities go to shared memory."""
        k, s = self.k, self.s
        maximum, total, acc = list(maximum), list(total), list(acc)
        per_row = self.columns * 4
        for i in range(s.rows):
            own = scores[i * s.keys : (i + 1) * s.keys]
            m = own[0]
            for x in own[1:]:
                m = k.max(m, x)
            m = k.max(maximum[i], k.warp_reduce(k.max, m, GRID))
            shift = k.select(m.eq(float("-inf")), 0.0, m)
            # Differences first: what is exact stays so, however large the scores.
            rescale = power_of_two(k, (maximum[i] - shift) * self.factor)
            p = [power_of_two(k, (x - shift) * self.factor) for x in own]
            added = p[0]
            for x in p[1:]:
                added = added + x
            total[i] = k.fma(total[i], rescale, added)
            maximum[i] = m
            line = (self.row * s.rows + i) * (self.n + PADDING) + self.col * s.keys
            k.store(k.vector(p), self.probabilities.at(line, "f32"), align=4 * s.keys)
            for j in range(per_row):
                acc[i * per_row + j] = acc[i * per_row + j] * rescale
        k.warp_sync()
        return maximum, total, acc

    def add_values(self, acc: list[Val]) -> list[Val]:
        """Accumulators with probabilities times values added: a row's probabilities were written by its own half warp."""
        k, s = self.k, self.s
        per_row = self.columns * 4
        four = k.vector_of("f32", 4)
        with k.for_(0, self.n, carry=list(acc)) as loop:
            out = list(loop.carry)
            p = [
                k.load(self.probabilities.at((self.row * s.rows + i) * (self.n + PADDING) + loop.iv, "f32"), "f32")
                for i in range(s.rows)
            ]
            for g in range(self.columns):
                v = k.elements(k.load(self.v.at(loop.iv * self.width_v + (g * GRID + self.col) * 4, "f32"), four, align=16))
                for i in range(s.rows):
                    for e in range(4):
                        at = i * per_row + g * 4 + e
                        out[at] = k.fma(p[i], v[e], out[at])
            loop.yield_(out)
        k.warp_sync()
        return list(loop.results)

    def store(
        self, batch: Val, head: Val, split: Val, maximum: list[Val], total: list[Val], acc: list[Val]
    ) -> None:
        """Results of the thread's rows, or their parts of a split."""
        k, s, p = self.k, self.s, self.p
        lanes = 2 if p.depth_v % 2 == 0 else 0
        layout = SplitLayout(self.dk, p, s.splits) if s.splits > 1 else None
        for i, row in enumerate(self.rows_at):
            with k.if_(row < self.n_rows):
                if layout is None:
                    scale = 1.0 / total[i]
                else:
                    scale = k.const(1.0, "f32")
                    sums, weights = layout.row(split, batch, head, row)
                    with k.if_(self.col.eq(0)):
                        k.store(maximum[i] * self.factor, weights)
                        k.store(total[i], weights.at(1, "f32"))
                for g in range(self.columns):
                    for e in range(0, 4, 2):
                        at = (i * self.columns + g) * 4 + e
                        col = (g * GRID + self.col) * 4 + e
                        if layout is None:
                            exact = (g + 1) * 4 * GRID <= p.depth_v
                            pair = [x * scale for x in acc[at : at + 2]]
                            store_pair(self.dk, p, self.positions[i], col, pair, lanes, exact)
                            continue
                        for j in range(2):
                            with k.if_(col + j < p.depth_v):
                                k.store(acc[at + j], sums.at(col + j, "f32"))
