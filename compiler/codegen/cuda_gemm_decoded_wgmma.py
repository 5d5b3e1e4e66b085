"""Products of many rows with quantized weights on sm_90a: weights decoded into registers that wgmma takes as its A operand.

The instruction computes C^T = B^T A^T: its rows are the weights' columns n, its columns the rows m, which TMA brings into
swizzled shared memory as for cuda_gemm_wgmma.py. TMA brings the weights as they lie in memory, too; each of the two consumer
warpgroups reads its 64 columns once, decodes them (cuda_staged_weights.py) and multiplies them with all rows of the tile. A
stage is multiplied in two groups of instructions, so that one group's weights are decoded while the other is running; registers
of a group are not written before it has ended (PTX ISA, "wgmma.wait_group").

Packed weights (ingot.weight_packing) come as whole tiles, of which each lane reads 16 bytes at once.

N-major operands of 8 bits, which wgmma reads from shared memory in the other order only, take the same way without decoding:
their bytes are transposed in registers. Sums of 8-bit floats are promoted to f32 as in cuda_gemm_wgmma.py: a stage's are added
when the first registers of the next stage are ready.

Which n is which row of an instruction is free: lane / 4 holds neighbours, so that accumulators are pairs of columns of the
result.

One producer warp is enough for the copies, and leaves registers to the consumers.

The blocks of a cluster may share a tile, each with a part of K (cuda_cluster_sums.py): products of few tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ingot import dims
from ingot.compiler.codegen.cuda_cluster_sums import ClusterSums
from ingot.compiler.codegen.cuda_gemm_decoded import decodes, elements_of
from ingot.compiler.codegen.cuda_gemm_problem import GemmProblem, promotes
from ingot.compiler.codegen.cuda_gemm_tiles import Work, tile_count
from ingot.compiler.codegen.cuda_gemm_wgmma import ATOM, SWIZZLE
from ingot.compiler.codegen.cuda_kernel import DispatchKernel, dispatch_kernel, divides, region_buffers, symbol_of
from ingot.compiler.codegen.cuda_shared_tile import TileShape
from ingot.compiler.codegen.cuda_staged_weights import (
    STEPS,
    TILE_K,
    PackedWeights,
    StagedWeights,
    TransposedBytes,
    packed_bytes,
    raw_matrix,
    raw_shape,
    suits_stages,
)
from ingot.compiler.codegen.cuda_stream_k import tile_order, with_shares
from ingot.compiler.codegen.kernel_builder import KernelModule
from ingot.compiler.codegen.mma_table import MmaRow, find_row
from ingot.compiler.codegen.values import Val
from ingot.cuda_targets import facts
from ingot.kernel_plan import BufferArg, KernelLaunch, TensorMapArg
from ingot.target import Target
from ingot.weight_packing import LANE_BYTES, TILE_BYTES, TILE_COLUMNS, tile_k

_Weights = StagedWeights | PackedWeights | TransposedBytes
CONSUMERS = 2
WARPS = 4 * CONSUMERS + 1
TILE_N = 64 * CONSUMERS
SUMS_PITCH = TILE_N + 4  # sums from a row to the next in shared memory: a warp's pairs reach every bank equally often
GROUP_STEPS = 2  # instructions along k of a group


@dataclass(frozen=True)
class DecodedWgmmaSchedule:
    """How the kernel divides a product.

    Attributes:
        tile_m: rows of a block's tile, at most 256.
        stages: in flight.
        splits: blocks that share a tile, each a part of K.
        stream: blocks that share all steps of all tiles (cuda_stream_k.py); 0: blocks take tiles.
        cluster: blocks that share a tile, each a part of K, and add their sums in the same launch.
    """

    tile_m: int
    stages: int
    splits: int = 1
    stream: int = 0
    cluster: int = 1
    k_bytes: ClassVar[int] = SWIZZLE

    @property
    def tile_n(self) -> int:
        return TILE_N


PROMOTED_ROWS = 96  # of the largest tile whose accumulators a thread can hold twice
# Rows of tiles that the cost model chooses from: accumulators take half as many registers of the 168 that a thread has, and
# with 128 of them ptxas waits for each instruction (C7512).
TILE_ROWS = (192, 176, 160, 128, 96, 64, 32, 16)


@dataclass(frozen=True)
class DecodedWgmmaPlan:
    """What the kernel needs beyond its schedule: the instruction, the tensor maps of rows and weights, the launch."""

    row: MmaRow
    rows: TensorMapArg
    weights: TensorMapArg
    launch: KernelLaunch


def _transposes(p: GemmProblem) -> bool:
    """True where weights are operands of the instruction as they are."""
    return not p.quantized and p.a.bits == p.b.bits == 8 and p.b.major == "row" and p.unsigned[0] == p.unsigned[1]


def weights_shape(p: GemmProblem) -> TileShape:
    """The tile of a stage's weights, in bytes."""
    return TileShape(TILE_N, SWIZZLE, 8, False) if _transposes(p) else raw_shape(p.b, TILE_N)


def stage_bytes(p: GemmProblem, tile_m: int) -> int:
    """Bytes of a stage: rows, then weights, each a multiple of 1024."""
    return tile_m * SWIZZLE + weights_shape(p).nbytes


def decoded_stages(p: GemmProblem, target: Target, tile_m: int) -> int:
    """Stages of a tile of so many rows that fit, at most 16."""
    return min(16, (target.shared_bytes - 2 * ATOM) // (stage_bytes(p, tile_m) + 16))


def _weights_map(p: GemmProblem) -> TensorMapArg | None:
    """Boxes of a stage's weights, in bytes; of packed ones in tiles' words."""
    if p.packed:
        line, each = dims.floordiv(p.k, tile_k(p.b.bits)), TILE_K // tile_k(p.b.bits)
        tiles = (TILE_BYTES // 4, line, dims.floordiv(p.n, TILE_COLUMNS))
        part = (TILE_BYTES // 4, each, TILE_N // TILE_COLUMNS)
        return TensorMapArg("operand", 1, "i32", tiles, (TILE_BYTES, TILE_BYTES * line), part, 0)
    x, shape = raw_matrix(p.b), weights_shape(p)
    assert shape.line_bytes == 16 * shape.chunks <= SWIZZLE, shape
    inner, outer, step = (x.cols, x.rows, x.row_stride) if shape.k_major else (x.rows, x.cols, x.col_stride)
    own = [(d, t) for d, t in zip(p.batch, x.batch_strides, strict=True) if t != 0]
    # Half of a size that is known at run time only does not show what the size is a multiple of: the weights themselves do.
    if not p.b.aligned(16, p.dispatch) or step == 0 or len(own) > 3:
        return None
    sizes, strides = (inner, outer, *(d for d, _ in own)), (step, *(t for _, t in own))
    box = (shape.line_bytes, shape.lines, *(1 for _ in own))
    return TensorMapArg(x.kind, x.index, x.dtype, sizes, strides, box, shape.line_bytes)


def plan_decoded_wgmma(p: GemmProblem, target: Target, s: DecodedWgmmaSchedule) -> DecodedWgmmaPlan | None:
    """The launch of a schedule, or None where the instruction, TMA or the lanes cannot take the operands, or registers not the
    sums."""
    if _transposes(p):
        row = find_row(target, p.a.dtype, engine="wgmma", unsigned=p.unsigned[0])
    elif decodes(p) and p.a.dtype in ("f16", "bf16") and p.a_scales is None and p.b.bits <= 8 and suits_stages(p.b_scales):
        row = find_row(target, p.a.dtype, engine="wgmma")
    else:
        return None
    if promotes(p, target) and s.tile_m > PROMOTED_ROWS:
        return None
    whole = p.b.major == "col" or divides(2, p.n, p.dispatch)
    if row is None or row.acc != p.acc or p.a.major != "col" or p.b.major == "none" or not whole:
        return None
    rows, weights = p.a.tma_map(p.dispatch, p.batch, (SWIZZLE * 8 // p.a.bits, s.tile_m)), _weights_map(p)
    if rows is None or weights is None:
        return None
    stages = s.stages * stage_bytes(p, s.tile_m)
    shared = stages + 16 * s.stages + ATOM
    if shared > target.shared_bytes or s.cluster > target.max_cluster or (s.cluster > 1 and 4 * s.tile_m * SUMS_PITCH > stages):
        return None
    sides = [x for x in (p.b_scales.scale, p.b_scales.zero) if x is not None] if p.b_scales is not None else []
    beside = tuple(BufferArg("operand", x.index) for x in sides)
    rest: tuple = (BufferArg("workspace"),)
    if s.splits == 1:
        rest = tuple(b for b in region_buffers(p.dispatch) if b not in beside)
    launch = KernelLaunch(
        symbol_of(p.dispatch), (dims.minimum(tile_count(p, s), facts(target).sms), 1, 1), (rows, weights, *beside, *rest),
        (32 * WARPS, 1, 1), shared_bytes=shared, flops=p.flops,
    )  # fmt: skip
    if s.cluster > 1:
        launch = replace(launch, grid=(tile_count(p, s) * s.cluster, 1, 1), cluster=(s.cluster, 1, 1))
    return DecodedWgmmaPlan(row, rows, weights, with_shares(launch, p, s))


def emit_decoded_wgmma(module: KernelModule, p: GemmProblem, s: DecodedWgmmaSchedule, target: Target) -> KernelLaunch:
    """Write the kernel of a schedule into `module`. Raises NotImplementedError where `plan_decoded_wgmma` has none."""
    plan = plan_decoded_wgmma(p, target, s)
    if plan is None:
        raise NotImplementedError(f"{s} does not suit {p.a.dtype} and {p.b.dtype} on {target.name}")
    with dispatch_kernel(module, p.dispatch, plan.launch, exact_threads=True, min_blocks=1, prologue=True) as dk:
        _Kernel(dk, p, s, plan.row, promotes(p, target)).emit()
    return plan.launch


class _Kernel:
    def __init__(self, dk: DispatchKernel, p: GemmProblem, s: DecodedWgmmaSchedule, row: MmaRow, promotes: bool) -> None:
        self.dk, self.p, self.k, self.s, self.row, self.promotes = dk, p, dk.k, s, row, promotes
        self.rows_map, self.weights_map = dk.maps
        self.shared = dk.k.dynamic_shared(ATOM)
        self.rows_bytes, self.stage_bytes = s.tile_m * SWIZZLE, stage_bytes(p, s.tile_m)
        self.tile_k = SWIZZLE * 8 // row.bits
        self.order = tile_order(dk, p, s, self.tile_k)

    def full(self, stage: Val | int) -> Val:
        return self.shared + self.s.stages * self.stage_bytes + (stage * 8)

    def empty(self, stage: Val | int) -> Val:
        return self.full(stage) + 8 * self.s.stages

    def next_stage(self, stage: Val, parity: Val) -> list[Val]:
        k = self.k
        last = stage.eq(self.s.stages - 1)
        return [k.select(last, 0, stage + 1), k.select(last, parity ^ 1, parity)]

    def emit(self) -> None:
        k = self.k
        thread, warp = k.thread_id(), k.warp_id()
        with k.if_(thread.eq(0)):
            for i in range(self.s.stages):
                k.mbarrier_init(self.full(i), 1)
                k.mbarrier_init(self.empty(i), 4 * CONSUMERS)
            k.fence_mbarrier_init()
            for tensor_map in self.dk.maps:
                k.tma_prefetch_descriptor(tensor_map)
        k.barrier()
        self.dk.begin()
        if self.s.cluster > 1:
            self.share(thread, warp)
            return
        with k.if_else(warp.eq(WARPS - 1)) as role:
            with role.then, k.if_(thread.eq(32 * (WARPS - 1))):
                self.produce()
            with role.else_:
                self.consume(warp >> 2, thread & 127)

    def share(self, thread: Val, warp: Val) -> None:
        """This block's part of a tile of its cluster's."""
        k, s = self.k, self.s
        zero = k.const(0, "i32")
        row, col, batch, _ = self.order.tile(k.block_id() // s.cluster)
        rank = k.cluster_rank()
        work = Work(row, col, batch, *self.order.k_range(rank, s.cluster), rank)
        with k.if_else(warp.eq(WARPS - 1)) as role:
            with role.then, k.if_(thread.eq(32 * (WARPS - 1))):
                self.fill(work, [zero, zero])
            with role.else_:
                local = thread & 127
                weights, first = self.weights_of(warp >> 2, local)
                weights.begin(work.batch, work.col)
                acc, _ = self.multiply(weights, work, [zero, zero], local)
                k.barrier(1, 128 * CONSUMERS)  # sums lie over the stages, which the other consumer may still read
                start = self.shared.at(((local & 3) << 1) * SUMS_PITCH + first, self.row.acc)
                for j in range(s.tile_m // 8):
                    for e in range(2):
                        at = start.at((8 * j + e) * SUMS_PITCH, self.row.acc)
                        k.store(k.vector([acc[4 * j + e], acc[4 * j + 2 + e]]), at, align=8)
        sums = ClusterSums(self.dk, self.p, s.tile_m, TILE_N, SUMS_PITCH, s.cluster, self.shared)
        sums.synchronize()
        sums.finish(thread, rank, batch, row, col)

    def produce(self) -> None:
        """Fill stages, in the order in which consumers read them."""
        zero = self.k.const(0, "i32")
        with self.k.for_(*self.order.span(), carry=[zero, zero]) as tiles:
            tiles.yield_(self.fill(self.order.work(tiles.iv), tiles.carry))

    def fill(self, work: Work, state: Sequence[Val]) -> list[Val]:
        """Fill the stages of a piece of work, from (stage, parity) to (stage, parity)."""
        k, p = self.k, self.p
        with k.for_(work.first, work.last, carry=list(state), rolled=True) as steps:
            stage, parity = steps.carry
            k.mbarrier_wait(self.empty(stage), parity ^ 1)
            full = self.full(stage)
            k.mbarrier_arrive_expect(full, self.stage_bytes)
            rows = self.shared + stage * self.stage_bytes
            at = steps.iv * self.tile_k
            k.tma_load(rows, self.rows_map, [at, work.row, *p.a.tma_batch(work.batch)], full)
            place = self.weights_place(at, work.col)
            k.tma_load(rows + self.rows_bytes, self.weights_map, [*place, *p.b.tma_batch(work.batch)], full)
            steps.yield_(self.next_stage(stage, parity))
        return list(steps.results)

    def weights_place(self, at: Val, col: Val) -> list[Val]:
        """Coordinates of a stage's weights in their tensor map, from k = `at` and the column `col` on."""
        x = self.p.b
        if self.p.packed:
            return [self.k.const(0, "i32"), at // tile_k(x.bits), col // TILE_COLUMNS]
        line = [at, col] if x.major == "col" else [col, at]
        return [line[0] * x.bits // 8, line[1]]

    def weights_of(self, consumer: Val, local: Val) -> tuple[_Weights, Val]:
        """What decodes a thread's weights, and the first of its two columns in a tile."""
        lane = local & 31
        # In rows lane / 4 and 8 more of this warp's 16 of an instruction.
        first = (consumer * 4 + (local >> 5)) * 16 + ((lane >> 2) << 1)
        shape = weights_shape(self.p)
        if _transposes(self.p):
            return TransposedBytes(self.k, shape, first, lane & 3), first
        elements, columns = elements_of(self.dk, self.p)[1], [first, first + 1]
        if self.p.packed:
            start = (consumer * 4 + (local >> 5)) * packed_bytes(self.p.b.bits) + lane * LANE_BYTES
            return PackedWeights(self.dk, elements, self.row.dtype, columns[:1], [start]), first
        return StagedWeights(self.dk, elements, self.row.dtype, shape, columns, lane & 3), first

    def consume(self, consumer: Val, local: Val) -> None:
        """Decode and multiply what the producer brings, and give each tile to the epilogue."""
        k, zero = self.k, self.k.const(0, "i32")
        weights, first = self.weights_of(consumer, local)
        with k.for_(*self.order.span(), carry=[zero, zero]) as tiles:
            work = self.order.work(tiles.iv)
            weights.begin(work.batch, work.col)
            acc, state = self.multiply(weights, work, tiles.carry, local)

            def store(out: Any, work: Work = work, acc: list[Val] = acc) -> None:
                self.store(out, first, local & 3, acc, work)

            self.order.deliver(work, store)
            tiles.yield_(state)

    def multiply(
        self, weights: _Weights, work: Work, state: Sequence[Val], local: Val
    ) -> tuple[list[Val], list[Val]]:
        """From a piece of work and (stage, parity) to the accumulators and (stage, parity)."""
        k, s = self.k, self.s
        rows = k.wgmma_descriptor(self.shared, leading_bytes=16, stride_bytes=ATOM, swizzle=SWIZZLE)
        acc = k.wgmma_accumulator(s.tile_m, self.row.acc)
        first_of_warp = (local & 31).eq(0)
        scales = weights.fetch_scales(work.first)
        totals = [k.const(0.0, "f32")] * (s.tile_m // 2) if self.promotes else []
        with k.for_(work.first, work.last, carry=[*state, k.const(0, "i32"), acc, scales, totals], rolled=True) as steps:
            stage, parity, previous, acc, scales, totals = steps.carry
            ahead = weights.fetch_scales(steps.iv + 1)
            prepared = weights.prepare(scales)
            k.mbarrier_wait(self.full(stage), parity)
            base = self.shared + (stage * self.stage_bytes + self.rows_bytes)
            b = rows + k.cast(stage * (self.stage_bytes >> 4), "i64", signed=False)
            for group in range(STEPS // GROUP_STEPS):
                numbers = [group * GROUP_STEPS + i for i in range(GROUP_STEPS)]
                operands = [weights.registers(base, i, prepared) for i in numbers]
                k.wgmma_fence()
                for i, a in zip(numbers, operands, strict=True):
                    shape, kept = (64, s.tile_m, self.row.k), i > 0 or not self.promotes
                    acc = k.wgmma_registers(acc, a, b + (32 * i >> 4), shape, self.row.ptx, accumulate=kept)
                k.wgmma_commit()
                k.wgmma_wait(1)
                if group == 0:  # the last group of the stage before has ended
                    with k.if_(first_of_warp & (steps.iv > work.first)):
                        k.mbarrier_arrive(self.empty(previous))
            if self.promotes:  # here: registers that instructions still write must not be carried to where they are read
                acc, totals = self.promote(acc, totals)
            steps.yield_([*self.next_stage(stage, parity), stage, acc, ahead, totals])
        stage, parity, previous, acc, _, totals = steps.results
        k.wgmma_wait(0)
        with k.if_(first_of_warp & (work.first < work.last)):
            k.mbarrier_arrive(self.empty(previous))
        return totals if self.promotes else list(k.elements(acc)), [stage, parity]

    def promote(self, acc: Val, totals: list[Val]) -> tuple[Val, list[Val]]:
        """Wait for the instructions under way, and add their sums; the accumulator, and the totals."""
        k = self.k
        k.wgmma_wait(0)
        acc = k.wgmma_settled(acc)
        return acc, [t + x for t, x in zip(totals, k.elements(acc), strict=True)]

    def store(self, out: Any, first: Val, quad: Val, acc: list[Val], work: Work) -> None:
        """Give the accumulators to `out`, neighbouring columns from the tile's `first` on together."""
        for j in range(self.s.tile_m // 8):
            for e in range(2):
                line = out.at_row(work.batch, work.row + (2 * quad + (8 * j + e)))
                out.pair(line, work.col + first, [acc[4 * j + e], acc[4 * j + 2 + e]])
