"""Products of many rows with quantized weights on sm_90a: weights decoded into registers that wgmma takes as its A operand.

The instruction computes C^T = B^T A^T: its rows are the weights' columns n, its columns the rows m, which TMA brings into
swizzled shared memory as for cuda_gemm_wgmma.py. TMA brings the weights as they lie in memory, too; each of the two consumer
warpgroups reads its 64 or 128 columns once, decodes them (cuda_weight_fragments.py) and multiplies them with all rows of the
tile. A stage is multiplied in two groups of instructions, so that one group's weights are decoded while the other is running;
registers of a group are not written before it has ended (PTX ISA, "wgmma.wait_group").

Which n is which row of an instruction is free: lane / 4 holds neighbours, so that accumulators are pairs of columns of the
result. The order of k is that of the rows in shared memory:

- K-major weights of 4 bits: the lanes of a quad read the same 16 bytes, and each takes one byte of every word;
- K-major weights of 8 bits: a lane reads two bytes for each half of an instruction's k;
- N-major weights: a lane reads four neighbouring n at each of its four k.

One producer warp is enough for the copies, and leaves registers to the consumers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ingot import dims
from ingot.compiler.codegen.cuda_decode import QuantizedElements
from ingot.compiler.codegen.cuda_gemm_decoded import decodes, elements_of
from ingot.compiler.codegen.cuda_gemm_problem import GemmProblem
from ingot.compiler.codegen.cuda_gemm_tiles import Work, tile_count
from ingot.compiler.codegen.cuda_gemm_wgmma import ATOM, SWIZZLE
from ingot.compiler.codegen.cuda_kernel import DispatchKernel, dispatch_kernel, region_buffers, symbol_of
from ingot.compiler.codegen.cuda_stream_k import tile_order, with_shares
from ingot.compiler.codegen.cuda_weight_fragments import WeightDecoder
from ingot.compiler.codegen.kernel_builder import KernelModule
from ingot.compiler.codegen.mma_table import MmaRow, find_row
from ingot.compiler.codegen.values import Val
from ingot.cuda_targets import facts
from ingot.kernel_plan import BufferArg, KernelLaunch, TensorMapArg
from ingot.target import Target

CONSUMERS = 2
WARPS = 4 * CONSUMERS + 1
TILE_K = SWIZZLE * 8 // 16  # k of a stage
STEP_K = 16  # of an instruction
GROUP_STEPS = 2  # instructions along k of a group


@dataclass(frozen=True)
class DecodedWgmmaSchedule:
    """How the kernel divides a product.

    Attributes:
        tile_m: rows of a block's tile, at most 256.
        tiles: instructions' rows of 64 columns that a consumer has.
        stages: in flight.
        splits: blocks that share a tile, each a part of K.
        stream: blocks that share all steps of all tiles (cuda_stream_k.py); 0: blocks take tiles.
    """

    tile_m: int
    tiles: int
    stages: int
    splits: int = 1
    stream: int = 0
    k_bytes: ClassVar[int] = SWIZZLE

    @property
    def tile_n(self) -> int:
        return 64 * self.tiles * CONSUMERS


# Rows of tiles that the cost model chooses from: accumulators take half as many registers of the 168 that a thread has, and
# with 128 of them ptxas waits for each instruction (C7512).
TILE_ROWS = (192, 176, 160, 128, 96, 64)


@dataclass(frozen=True)
class DecodedWgmmaPlan:
    """What the kernel needs beyond its schedule: the instruction, the tensor maps of rows and weights, the launch."""

    row: MmaRow
    rows: TensorMapArg
    weights: TensorMapArg
    launch: KernelLaunch


def weights_bytes(p: GemmProblem, s: DecodedWgmmaSchedule) -> int:
    """Bytes of the weights of a stage."""
    return s.tile_n * TILE_K * p.b.bits // 8


def stage_bytes(p: GemmProblem, s: DecodedWgmmaSchedule) -> int:
    """Bytes of a stage: rows, then weights, each a multiple of 1024."""
    return s.tile_m * SWIZZLE + weights_bytes(p, s)


def decoded_stages(p: GemmProblem, target: Target, rows: int) -> int:
    """Stages of a tile of so many rows that fit, at most 8."""
    s = DecodedWgmmaSchedule(rows, 1, 1)
    return min(8, (target.shared_bytes - 2 * ATOM) // (stage_bytes(p, s) + 16))


def box_bytes(p: GemmProblem, s: DecodedWgmmaSchedule) -> int:
    """Bytes of columns of a box of N-major weights, which is what they are swizzled by."""
    return min(SWIZZLE, s.tile_n * p.b.bits // 8)


def _weights_map(p: GemmProblem, s: DecodedWgmmaSchedule) -> TensorMapArg | None:
    """Weights as bytes: boxes of a stage's k of all columns, or of up to 128 bytes of columns."""
    x = p.b
    if not x.aligned(16, p.dispatch):
        return None
    k_major = x.major == "col"
    inner, outer, step = (x.cols, x.rows, x.row_stride) if k_major else (x.rows, x.cols, x.col_stride)
    if step == 0 or (outer == 1 and not isinstance(step, int)):
        return None
    own = [(d, t) for d, t in zip(p.batch, x.batch_strides, strict=True) if t != 0]
    if len(own) > 3:
        return None
    shape = (dims.ceildiv(inner * x.bits, 8), outer, *(d for d, _ in own))
    strides = tuple(dims.floordiv(t * x.bits, 8) for t in (step, *(t for _, t in own)))
    line = TILE_K * x.bits // 8
    box, swizzle = ((line, s.tile_n), 64 if line == 64 else 0) if k_major else ((box_bytes(p, s), TILE_K), box_bytes(p, s))
    return TensorMapArg(x.kind, x.index, "i8", shape, strides, (*box, *(1 for _ in own)), swizzle)


def plan_decoded_wgmma(p: GemmProblem, target: Target, s: DecodedWgmmaSchedule) -> DecodedWgmmaPlan | None:
    """The launch of a schedule, or None where the instruction, TMA or the lanes cannot take the operands."""
    if not (decodes(p) and p.acc == "f32" and p.a.dtype in ("f16", "bf16") and p.a_scales is None and p.b.bits <= 8):
        return None
    row = find_row(target, p.a.dtype, engine="wgmma")
    block = p.b_scales.block if p.b_scales is not None else 0
    suits = block % TILE_K == 0 or (TILE_K % block == 0 and block >= STEP_K)
    if row is None or p.a.major != "col" or p.b.major == "none" or not suits:
        return None
    rows, weights = p.a.tma_map(p.dispatch, p.batch, (TILE_K, s.tile_m)), _weights_map(p, s)
    if rows is None or weights is None:
        return None
    shared = s.stages * stage_bytes(p, s) + 16 * s.stages + ATOM
    if shared > target.shared_bytes:
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
    return DecodedWgmmaPlan(row, rows, weights, with_shares(launch, p, s))


def emit_decoded_wgmma(module: KernelModule, p: GemmProblem, s: DecodedWgmmaSchedule, target: Target) -> KernelLaunch:
    """Write the kernel of a schedule into `module`. Raises NotImplementedError where `plan_decoded_wgmma` has none."""
    plan = plan_decoded_wgmma(p, target, s)
    if plan is None:
        raise NotImplementedError(f"{s} does not suit {p.a.dtype} and {p.b.dtype} on {target.name}")
    with dispatch_kernel(module, p.dispatch, plan.launch, exact_threads=True, min_blocks=1, prologue=True) as dk:
        _Kernel(dk, p, s, plan.row).emit()
    return plan.launch


class _StagedWeights(WeightDecoder):
    """A consumer's weights of a stage, decoded into registers of its instructions.

    Args:
        dk: the kernel.
        elements: the weights.
        s: the schedule.
        dtype: the 16-bit type to decode to.
        consumer, local: the warpgroup, and the thread in it.
    """

    def __init__(
        self, dk: DispatchKernel, elements: QuantizedElements, s: DecodedWgmmaSchedule, dtype: str, consumer: Val, local: Val
    ) -> None:
        self.k_major = elements.x.major == "col"
        super().__init__(dk, elements, dtype, 1 if self.k_major else 2 * s.tiles)
        self.s, self.consumer = s, consumer
        self.warp, lane = local >> 5, local & 31
        self.group, self.quad = lane >> 2, lane & 3
        k, bits = self.k, elements.x.bits
        self.step_bytes = STEP_K * bits // 8
        if self.k_major:
            line = TILE_K * bits // 8
            self.starts = [self.column(t, h) * line for t in range(s.tiles) for h in range(2)]
            if bits == 8:  # chunks of 16 bytes are swizzled by bits 1 and 2 of the line
                swizzle = self.column(0, 0) >> 1 & 3
                self.chunks = [((swizzle ^ i) << 4) + 2 * self.quad for i in range(TILE_K // STEP_K)]
            self.selector = self.quad * 0x1111
            return
        # Lines are of k: 64 or 128 bytes of columns, in chunks of 16 that are swizzled by the line's number in 128 bytes.
        inside = self.column(0, 0) * bits // 8
        self.line = line = min(SWIZZLE, s.tile_n * bits // 8)
        box = inside // line * (TILE_K * line)
        inside = inside % line
        self.starts = []
        for odd in range(2):
            at = 2 * self.quad + odd
            chunk = (inside >> 4) ^ (at if line == SWIZZLE else self.quad)
            self.starts.append(box + at * line + (chunk << 4) + (inside & 15))
        self.kind = k.type(f"i{self.count * bits}")

    def column(self, tile: int, half: int) -> Val:
        """The column in the block's tile in row lane / 4 + 8 * `half` of this warp's 16 of an instruction."""
        first = (self.consumer * 4 + self.warp) * (16 * self.s.tiles)
        if self.k_major:  # columns of an instruction are neighbours
            first = self.consumer * (64 * self.s.tiles) + self.warp * 16 + 64 * tile
            return first + 2 * self.group + half
        return first + self.group * (2 * self.s.tiles) + (2 * tile + half)

    def begin(self, batch: Sequence[Val], col: Val) -> None:
        """Begin with a block's tile from column `col` on."""
        self.elements.start_scales(batch)
        n = self.dk.size(self.x.rows, "i32")
        if self.k_major:
            self.lines = [self.k.min(col + self.column(t, h), n - 1) for t in range(self.s.tiles) for h in range(2)]
        else:
            self.lines = [self.k.min(col + self.column(0, 0), n - self.count)]

    @property
    def blocks(self) -> int:
        """Blocks of k with scales of their own in a stage."""
        block = self.scales.block if self.scales is not None else 0
        return TILE_K // block if block and block < TILE_K else 1

    def fetch_scales(self, step: Val) -> list[Any]:
        """What `prepare` takes of a stage, of the last k for what lies beyond."""
        if self.scales is None:
            return []
        last = self.dk.size(self.x.cols, "i32") - 1
        each = TILE_K // self.blocks
        return [self.read_scales(self.k.min(step * TILE_K + i * each, last)) for i in range(self.blocks)]

    def registers(self, base: Val, step: int, prepared: Sequence[Any]) -> list[list[Val]]:
        """The four registers of each of this consumer's instructions for 16 k, of weights at shared address `base`."""
        of = prepared[step * STEP_K * self.blocks // TILE_K] if prepared else None
        if not self.k_major:
            return self._across(base, step, of[0] if of else None)
        k, rows = self.k, []
        for i, start in enumerate(self.starts):
            scale = of[i][0] if of else None
            if self.x.bits == 8:
                at = base + (start + self.chunks[step])
                low, high = (k.cast(k.load(at + 8 * h, "i16", align=2), "i32", signed=False) for h in range(2))
                rows.append(self.pairs(k.prmt(low, high, 0x5410), [scale] * 2))
                continue
            words = k.elements(k.load(base + (start + self.step_bytes * step), k.vector_of("i32", 2), align=8))
            rows.append([self.byte_pair(k.prmt(w, w, self.selector), scale) for w in words])
        return [
            [low[0], high[0], low[1], high[1]] for low, high in zip(rows[::2], rows[1::2], strict=True)
        ]  # fmt: skip

    def _across(self, base: Val, step: int, scales: Sequence[Any] | None) -> list[list[Val]]:
        k, halves = self.k, []
        for half in range(2):
            words = []
            for start in self.starts:
                at = base + (start + (STEP_K * step + 8 * half) * self.line)
                words.append(k.cast(k.load(at, self.kind, align=self.kind.bits // 8), "i32", signed=False))
            halves.append(self.across(words[:1], words[1:], scales))
        low, high = halves
        return [[low[2 * t], low[2 * t + 1], high[2 * t], high[2 * t + 1]] for t in range(self.s.tiles)]


class _Kernel:
    def __init__(self, dk: DispatchKernel, p: GemmProblem, s: DecodedWgmmaSchedule, row: MmaRow) -> None:
        self.dk, self.p, self.k, self.s, self.row = dk, p, dk.k, s, row
        self.rows_map, self.weights_map = dk.maps
        self.shared = dk.k.dynamic_shared(ATOM)
        self.rows_bytes, self.stage_bytes = s.tile_m * SWIZZLE, stage_bytes(p, s)
        self.order = tile_order(dk, p, s, TILE_K)

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
        with k.if_else(warp.eq(WARPS - 1)) as role:
            with role.then, k.if_(thread.eq(32 * (WARPS - 1))):
                self.produce()
            with role.else_:
                self.consume(warp >> 2, thread & 127)

    def produce(self) -> None:
        """Fill stages, in the order in which consumers read them."""
        k, s, p = self.k, self.s, self.p
        zero = k.const(0, "i32")
        with k.for_(*self.order.span(), carry=[zero, zero]) as tiles:
            work = self.order.work(tiles.iv)
            with k.for_(work.first, work.last, carry=tiles.carry) as steps:
                stage, parity = steps.carry
                k.mbarrier_wait(self.empty(stage), parity ^ 1)
                full = self.full(stage)
                k.mbarrier_arrive_expect(full, self.stage_bytes)
                rows = self.shared + stage * self.stage_bytes
                at = steps.iv * TILE_K
                k.tma_load(rows, self.rows_map, [at, work.row, *p.a.tma_batch(work.batch)], full)
                weights, rest = rows + self.rows_bytes, p.b.tma_batch(work.batch)
                if p.b.major == "col":
                    k.tma_load(weights, self.weights_map, [at * p.b.bits // 8, work.col, *rest], full)
                else:
                    line = box_bytes(p, s)
                    for box in range(s.tile_n * p.b.bits // 8 // line):
                        column = work.col * p.b.bits // 8 + box * line
                        k.tma_load(weights + box * TILE_K * line, self.weights_map, [column, at, *rest], full)
                steps.yield_(self.next_stage(stage, parity))
            tiles.yield_(list(steps.results))

    def consume(self, consumer: Val, local: Val) -> None:
        """Decode and multiply what the producer brings, and give each tile to the epilogue."""
        k, s = self.k, self.s
        zero = k.const(0, "i32")
        weights = _StagedWeights(self.dk, elements_of(self.dk, self.p)[1], s, self.row.dtype, consumer, local)
        with k.for_(*self.order.span(), carry=[zero, zero]) as tiles:
            work = self.order.work(tiles.iv)
            weights.begin(work.batch, work.col)
            acc, state = self.multiply(weights, work, tiles.carry, local)

            def store(out: Any, work: Work = work, acc: list[list[Val]] = acc) -> None:
                self.store(out, weights, acc, work)

            self.order.deliver(work, store)
            tiles.yield_(state)

    def multiply(
        self, weights: _StagedWeights, work: Work, state: Sequence[Val], local: Val
    ) -> tuple[list[list[Val]], list[Val]]:
        """From a piece of work and (stage, parity) to the accumulators of each instruction and (stage, parity)."""
        k, s = self.k, self.s
        rows = k.wgmma_descriptor(self.shared, leading_bytes=16, stride_bytes=ATOM, swizzle=SWIZZLE)
        acc = [k.wgmma_accumulator(s.tile_m) for _ in range(s.tiles)]
        first_of_warp = (local & 31).eq(0)
        scales = weights.fetch_scales(work.first)
        with k.for_(work.first, work.last, carry=[*state, k.const(0, "i32"), acc, scales]) as steps:
            stage, parity, previous, acc, scales = steps.carry
            acc = list(acc)
            ahead = weights.fetch_scales(steps.iv + 1)
            prepared = weights.prepare(scales)
            k.mbarrier_wait(self.full(stage), parity)
            base = self.shared + (stage * self.stage_bytes + self.rows_bytes)
            b = rows + k.cast(stage * (self.stage_bytes >> 4), "i64", signed=False)
            for group in range(TILE_K // STEP_K // GROUP_STEPS):
                numbers = [group * GROUP_STEPS + i for i in range(GROUP_STEPS)]
                a = [weights.registers(base, i, prepared) for i in numbers]
                k.wgmma_fence()
                for i, registers in zip(numbers, a, strict=True):
                    for t in range(s.tiles):
                        at = b + (i * STEP_K * 2 >> 4)
                        acc[t] = k.wgmma_registers(acc[t], registers[t], at, (64, s.tile_m, STEP_K), self.row.ptx)
                k.wgmma_commit()
                k.wgmma_wait(1)
                if group == 0:  # the last group of the stage before has ended
                    with k.if_(first_of_warp & (steps.iv > work.first)):
                        k.mbarrier_arrive(self.empty(previous))
            steps.yield_([*self.next_stage(stage, parity), stage, acc, ahead])
        stage, parity, previous, acc, _ = steps.results
        k.wgmma_wait(0)
        with k.if_(first_of_warp & (work.first < work.last)):
            k.mbarrier_arrive(self.empty(previous))
        return [k.elements(x) for x in acc], [stage, parity]

    def store(self, out: Any, weights: _StagedWeights, acc: list[list[Val]], work: Work) -> None:
        """Give the accumulators to `out`, neighbouring columns together."""
        for j in range(self.s.tile_m // 8):
            for e in range(2):
                line = out.at_row(work.batch, work.row + (2 * weights.quad + (8 * j + e)))
                for t, values in enumerate(acc):
                    out.pair(line, work.col + weights.column(t, 0), [values[4 * j + e], values[4 * j + 2 + e]])
