"""Attention in one pass over keys and values, by mma.sync (Dao, FlashAttention-2, 2023).

A warp holds 16 or 32 rows of queries. For each tile of keys it multiplies queries by keys, scores the products, updates each
row's maximum and sum, rescales what it has accumulated and adds probabilities times values; probabilities pass from
accumulators to operands in registers. Keys and values of the next tile are copied meanwhile.

With few rows and many keys (decoding), warps of a block and blocks of a cluster share the keys of a head, and combine their
parts in shared memory (cuda_attention_parts.py). Where there are no clusters, each block leaves its part of the sum with its
maximum and weight in the workspace, and a second launch combines them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ingot.compiler.codegen.cuda_attention_parts import AttentionParts, PartShape, leave_fragments, part_bytes, part_shape
from ingot.compiler.codegen.cuda_attention_problem import AttentionProblem, tiled_launch
from ingot.compiler.codegen.cuda_attention_softmax import SoftmaxRows, SplitLayout, rescaling, store_pair
from ingot.compiler.codegen.cuda_gemm_mma import mma_registers
from ingot.compiler.codegen.cuda_kernel import (
    DispatchKernel,
    dispatch_kernel,
    region_operands,
    symbol_of,
)
from ingot.compiler.codegen.cuda_shared_tile import K_STEP, TileCopy, TileReader, TileShape
from ingot.compiler.codegen.kernel_builder import KernelModule
from ingot.compiler.codegen.mma_table import MmaRow
from ingot.compiler.codegen.values import Val
from ingot.dims import Dim
from ingot.kernel_plan import BufferArg, KernelLaunch
from ingot.target import Target


@dataclass(frozen=True)
class MmaAttentionSchedule:
    """How the kernel divides a head.

    Attributes:
        warps: of a block, each with `warp_rows` rows of queries.
        warp_rows: 16 or 32.
        keys: of a tile, a multiple of 16.
        stages: tiles of keys and values in shared memory.
        splits: blocks that share a head's keys and leave their parts to a second launch.
        blocks: of an SM, for which registers are kept.
        along: warps that share a head's keys, each with tiles of its own; `warps` is 1 then.
        cluster: blocks that share a head's keys and combine their parts.
    """

    warps: int = 4
    warp_rows: int = 32
    keys: int = 64
    stages: int = 2
    splits: int = 1
    blocks: int = field(default=1, kw_only=True)
    along: int = field(default=1, kw_only=True)
    cluster: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        if self.along > 1 and self.warps > 1:
            raise ValueError(f"warps have rows of their own or share keys: {self}")
        if self.splits > 1 and self.parts > 1:
            raise ValueError(f"parts are combined in one launch or in a second one: {self}")

    @property
    def parts(self) -> int:
        """Parts of a head's keys that are combined within the launch."""
        return self.along * self.cluster

    @property
    def rows(self) -> int:
        """Rows of a block."""
        return self.warps * self.warp_rows


@dataclass(frozen=True)
class AttentionTiles:
    """The shared tiles of a schedule."""

    q: TileShape
    k: TileShape
    v: TileShape

    def nbytes(self, stages: int) -> int:
        return self.q.nbytes + stages * (self.k.nbytes + self.v.nbytes)


def attention_tiles(p: AttentionProblem, s: MmaAttentionSchedule) -> AttentionTiles:
    """Tiles with depths rounded up to 32 bytes."""
    depth_bytes = -(-p.depth * p.q.bits // 8 // K_STEP) * K_STEP
    depth_v = -(-p.depth_v // 16) * 16
    k_major_v = p.v.major == "col"
    return AttentionTiles(
        TileShape(s.rows, depth_bytes, p.q.bits, k_major=True),
        TileShape(s.keys, depth_bytes, p.k.bits, k_major=True),
        TileShape(depth_v, s.keys * p.v.bits // 8, p.v.bits, k_major=k_major_v),
    )


def attention_part(p: AttentionProblem, s: MmaAttentionSchedule) -> PartShape:
    """A part of a block's rows, where several are combined."""
    return part_shape(p, s.rows, attention_tiles(p, s).v.rows)


def warp_bytes(p: AttentionProblem, s: MmaAttentionSchedule) -> int:
    """Bytes of shared memory of a warp that has tiles of its own, or of a block whose warps share them."""
    return part_bytes(attention_part(p, s), attention_tiles(p, s).nbytes(s.stages), s.along, s.cluster)


def attention_launch(p: AttentionProblem, s: MmaAttentionSchedule) -> KernelLaunch:
    """The launch of a schedule."""
    return tiled_launch(p, s.rows, s.splits, 32 * s.warps * s.along, s.along * warp_bytes(p, s), s.cluster)


def emit_attention_mma(
    module: KernelModule, p: AttentionProblem, row: MmaRow, s: MmaAttentionSchedule, target: Target, launch: KernelLaunch
) -> None:
    """Write the kernel of a schedule into `module`."""
    with dispatch_kernel(module, p.dispatch, launch, min_blocks=s.blocks) as dk:
        _Attention(dk, p, row, s, target).emit()


class _Attention:
    """The kernel while it is written."""

    def __init__(self, dk: DispatchKernel, p: AttentionProblem, row: MmaRow, s: MmaAttentionSchedule, target: Target) -> None:
        self.dk, self.k, self.p, self.row, self.s = dk, dk.k, p, row, s
        k = self.k
        self.tiles = attention_tiles(p, s)
        self.block_shared = self.shared = k.dynamic_shared(1024)
        self.lane, self.warp = k.lane_id(), k.warp_id()
        threads, thread = 32 * s.warps, k.thread_id()
        self.part = k.const(0, "i32")  # which of the block's
        if s.along > 1:  # every warp is what else were a block
            self.part, thread = self.warp, self.lane
            self.shared = self.shared + self.warp * warp_bytes(p, s)
            self.warp = k.const(0, "i32")
        self.blocks = s.warp_rows // 16
        self.columns = s.keys // 8
        self.columns_v = self.tiles.v.rows // 8
        self.depth_steps = self.tiles.q.k_bytes // K_STEP
        self.asynchronous = target.cp_async
        self.copy_q = TileCopy(dk, p.q, self.tiles.q, threads, thread, target.cp_async)
        self.copy_k = TileCopy(dk, p.k, self.tiles.k, threads, thread, target.cp_async)
        self.copy_v = TileCopy(dk, p.v, self.tiles.v, threads, thread, target.cp_async)
        self.first_row = self.warp * s.warp_rows
        zero = k.const(0, "i32")
        self.read_q = TileReader(dk, self.tiles.q, self.first_row, self.lane, s.warp_rows)
        self.read_k = TileReader(dk, self.tiles.k, zero, self.lane, s.keys, columns=True)
        self.read_v = TileReader(dk, self.tiles.v, zero, self.lane, self.tiles.v.rows, columns=True)
        self.n_rows = dk.size(p.rows, "i32")

    def emit(self) -> None:
        k, s, p = self.k, self.s, self.p
        m0 = k.block_id(0) * s.rows
        head, z = k.block_id(1), k.block_id(2)
        sharing = s.splits * s.cluster
        batch = z // sharing if sharing > 1 else z
        rank = z % sharing if sharing > 1 else k.const(0, "i32")
        kv = p.kv_head(head)
        n_keys = p.n_keys(self.dk, batch)
        self.copy_q.start(m0, [batch, head])
        self.bring(self.copy_q, self.shared, k.const(0, "i32"))
        self.copy_v.start(k.const(0, "i32"), [batch, kv])
        self.kv_position = [batch, kv]
        first_row = m0 + self.first_row + (self.lane >> 2)
        self.softmax = SoftmaxRows(
            self.dk, p, batch, head, first_row, n_keys, self.blocks, self.columns, self.columns_v, self.lane, s.rows
        )

        # Tiles of keys: those of this split, up to what causality leaves for the block's last row; the first of them need no
        # mask.
        tiles = (n_keys + (s.keys - 1)) // s.keys
        plain = n_keys // s.keys if p.masks(s.keys) else tiles
        if p.causal:
            shift = n_keys - self.n_rows
            tiles = k.min(tiles, k.max((m0 + (s.rows + s.keys - 1) + shift).sdiv(s.keys), 0))
            plain = k.min(plain, k.max((m0 + 1 + shift).sdiv(s.keys), 0))
        begin = k.const(0, "i32")
        parts = s.splits * s.parts
        if parts > 1:
            # Neighbouring parts are different blocks', so that few keys are not all one's.
            part = self.part * s.cluster + rank if s.along > 1 else rank
            per = (tiles + (parts - 1)) // parts
            begin = k.min(part * per, tiles)
            tiles = k.min(begin + per, tiles)
        plain = k.max(k.min(plain, tiles), begin)
        state = self.start(begin, tiles)
        state = self.loop(begin, plain, tiles, state, masked=False)
        if p.masks(s.keys):
            state = self.loop(plain, tiles, tiles, state, masked=True)
        _, maximum, total, acc = state
        if s.splits > 1:
            self.softmax.store_partial(rank, s.splits, maximum, total, acc)
        elif s.parts > 1:
            shape = attention_part(p, s)
            if self.asynchronous:
                k.cp_async_wait(0)  # where there were no keys, queries may still be on their way
            self.synchronize()  # tiles are not read any more
            leave_fragments(self.softmax, shape, self.shared, self.first_row + (self.lane >> 2), maximum, total, acc)
            whole = AttentionParts(self.dk, p, shape, self.block_shared, warp_bytes(p, s), s.along, s.cluster)
            whole.finish(batch, head, m0, rank)
        else:
            self.softmax.store(total, acc)

    def synchronize(self) -> None:
        """Wait for the threads that share tiles."""
        if self.s.along > 1:
            self.k.warp_sync()
        else:
            self.k.barrier()

    # --- copies

    def bring(self, copy: TileCopy, stage: Val, step: Val) -> None:
        if copy.asynchronous:
            copy.copy(stage, step)
        else:
            copy.put(stage, copy.fetch(step))

    def stage(self, number: Val) -> Val:
        """Start of a stage: its keys, then its values."""
        return self.shared + self.tiles.q.nbytes + number * (self.tiles.k.nbytes + self.tiles.v.nbytes)

    def bring_tile(self, tile: Val, number: Val) -> None:
        stage = self.stage(number)
        self.copy_k.start(tile * self.s.keys, self.kv_position)
        self.bring(self.copy_k, stage, self.k.const(0, "i32"))
        self.bring(self.copy_v, stage + self.tiles.k.nbytes, tile)

    def start(self, begin: Val, tiles: Val) -> list:
        """The first tile on its way; (stage, maxima, sums, accumulators) before it."""
        k = self.k
        with k.if_(begin < tiles):
            self.bring_tile(begin, k.const(0, "i32"))
        if self.asynchronous:
            k.cp_async_commit()
        maximum, total = self.softmax.start()
        return [k.const(0, "i32"), maximum, total, [k.const(0.0, "f32")] * (self.blocks * self.columns_v * 4)]

    def loop(self, begin: Val, end: Val, tiles: Val, state: list, *, masked: bool) -> list:
        k, s = self.k, self.s
        with k.for_(begin, end, carry=state) as loop:
            number, maximum, total, acc = loop.carry
            if self.asynchronous:
                k.cp_async_wait(0)
            self.synchronize()
            other = 1 - number
            with k.if_(loop.iv + 1 < tiles):
                self.bring_tile(loop.iv + 1, other)
            if self.asynchronous:
                k.cp_async_commit()
            stage = self.stage(number)
            scores = self.scores(stage, loop.iv * s.keys, masked)
            maximum, total, factors, probabilities = self.softmax.update(scores, maximum, total)
            acc = self.softmax.rescale(acc, factors)
            acc = self.add_values(stage + self.tiles.k.nbytes, probabilities, acc)
            loop.yield_([other, maximum, total, acc])
        return loop.results

    # --- a tile

    def scores(self, stage: Val, first: Val, masked: bool) -> list[Val]:
        """Scores of the warp's rows and a tile's keys, four for each 16 x 8."""
        k = self.k
        zero = k.const(0.0, "f32")
        acc = [zero] * (self.blocks * self.columns * 4)
        for step in range(self.depth_steps):
            a = [self.read_q.read(self.shared, i, step) for i in range(self.blocks)]
            for pair in range(self.columns // 2):
                b = self.read_k.read(stage, pair, step)
                for half in range(2):
                    for i in range(self.blocks):
                        at = 4 * (i * self.columns + 2 * pair + half)
                        acc[at : at + 4] = mma_registers(self.row, self.dk, a[i], b[2 * half :][:2], acc[at : at + 4])
        if self.p.plain_scores and not masked:
            return acc
        return self.softmax.scored(acc, first, masked)

    def add_values(self, stage: Val, probabilities: list[Val], acc: list[Val]) -> list[Val]:
        """Accumulators with probabilities times values added: accumulator pairs are the operand's registers."""
        acc = list(acc)
        registers = self.softmax.operand(probabilities, self.row.ptx)
        steps = self.columns // 2
        for step in range(steps):
            a = [registers[4 * (i * steps + step) :][:4] for i in range(self.blocks)]
            for pair in range(self.columns_v // 2):
                b = self.read_v.read(stage, pair, step)
                for half in range(2):
                    for i in range(self.blocks):
                        at = 4 * (i * self.columns_v + 2 * pair + half)
                        acc[at : at + 4] = mma_registers(self.row, self.dk, a[i], b[2 * half :][:2], acc[at : at + 4])
        return acc


def combine_launch(p: AttentionProblem) -> KernelLaunch:
    """The launch that combines splits: a warp a row."""
    buffers = [BufferArg("operand", i) for i in region_operands(p.dispatch.regions[1:])]
    buffers += [BufferArg("result", i) for i in range(len(p.dispatch.results))]
    grid: tuple[Dim, Dim, Dim] = (p.rows, p.heads, p.batch)
    return KernelLaunch(symbol_of(p.dispatch, "_combine"), grid, (BufferArg("workspace"), *buffers), (32, 1, 1))


def emit_combine(module: KernelModule, p: AttentionProblem, splits: int, launch: KernelLaunch) -> None:
    """Write the kernel that combines the parts of split keys, in order."""
    with dispatch_kernel(module, p.dispatch, launch) as dk:
        k = dk.k
        layout = SplitLayout(dk, p, splits)
        row, head, batch = k.block_id(0), k.block_id(1), k.block_id(2)
        parts = [layout.row(k.const(i, "i32"), batch, head, row) for i in range(splits)]
        maxima = [k.load(weights, "f32") for _, weights in parts]
        m = maxima[0]
        for x in maxima[1:]:
            m = k.max(m, x)
        shift = k.select(m.eq(float("-inf")), 0.0, m)
        scales = [rescaling(k, p, x, shift) for x in maxima]
        total = k.const(0.0, "f32")
        for x, (_, weights) in zip(scales, parts, strict=True):
            total = k.fma(x, k.load(weights.at(1, "f32"), "f32"), total)
        scale = 1.0 / total
        position = p.position(k, batch, head, row)
        for i in range(math.ceil(p.depth_v / 64)):
            col = (k.thread_id() + 32 * i) * 2
            with k.if_(True if 64 * (i + 1) <= p.depth_v else col < p.depth_v):
                pair = [k.const(0.0, "f32")] * 2
                for x, (sums, _) in zip(scales, parts, strict=True):
                    for e in range(2):
                        at = col + e if p.depth_v % 2 == 0 else k.min(col + e, p.depth_v - 1)
                        pair[e] = k.fma(x, k.load(sums.at(at, "f32"), "f32"), pair[e])
                lanes = 2 if p.depth_v % 2 == 0 else 0
                store_pair(dk, p, position, col, [y * scale for y in pair], lanes, exact=64 * (i + 1) <= p.depth_v)
