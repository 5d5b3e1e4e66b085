"""Matrix products on sm_90a: TMA fills a ring of shared-memory stages, warpgroups multiply them with wgmma.

A block is one producer warpgroup, of which one thread issues copies, and one consumer warpgroup for each 64 rows of its tile.
Stages are handed over by two mbarriers each, `full` (bytes have arrived) and `empty` (all consumers have read). Blocks are
persistent: each walks tiles in steps of the grid, and the producer runs ahead into the next tile while consumers write the last
one.

A and B may each lie K-major, or (16-bit types) M- or N-major: a stage holds them as TMA brings them, in 128-byte swizzled rows,
and the descriptors say which way they lie (PTX ISA, "Asynchronous Warpgroup Level Matrix Shared Memory Layout"). Results of 8
and 16 bits leave through shared memory and TMA stores, others straight from registers.

Of 8-bit floats the instruction sums in less than f32 (mma_table.py). Unless a product asks for fast sums, a consumer waits for
the instructions of each stage, which are 128 k, and adds their sums to accumulators of f32, while the other one's are running.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ingot import dims
from ingot.compiler.codegen.cuda_gemm_epilogue import FragmentEpilogue
from ingot.compiler.codegen.cuda_gemm_problem import GemmProblem, Matrix, promotes
from ingot.compiler.codegen.cuda_gemm_tiles import PartialSums, Work, tile_count
from ingot.compiler.codegen.cuda_kernel import DispatchKernel, dispatch_kernel, region_buffers, symbol_of
from ingot.compiler.codegen.cuda_stream_k import PartialTile, tile_order, with_shares
from ingot.compiler.codegen.kernel_builder import KernelModule
from ingot.compiler.codegen.mma_table import PROMOTION_K, MmaRow, find_row
from ingot.compiler.codegen.values import Val
from ingot.cuda_targets import facts
from ingot.kernel_plan import BufferArg, KernelLaunch, TensorMapArg
from ingot.target import Target

SWIZZLE = 128  # bytes of a swizzled row, of K or of a contiguous M or N
ATOM = 1024  # bytes of eight swizzled rows
STAGING_COLUMNS = (64, 32)  # columns of a result's box in shared memory, the first that divides a tile
STAGING_BYTES = 64 * SWIZZLE
STAGING_BUFFERS = 2
# Registers of a producer's and of a consumer's thread, by blocks on an SM, for one producer and two consumers: they share what
# the block got at its start, 65536 / (384 * blocks) a thread rounded down to 8. One consumer alone needs no sharing.
# nvJitLink ignores setmaxnreg (C7504): a thread then keeps those 168 (80), which an epilogue must not exceed by much.
REGISTERS = {1: (40, 232), 2: (24, 104)}
SHARED_SM_AREA = 128 * 64  # accumulators of the largest tile of which an SM holds two
# Rows and columns of the largest tile whose accumulators, held twice, leave a thread of two consumers registers to work with.
PROMOTED_TILE = (128, 128)


@dataclass(frozen=True)
class WgmmaSchedule:
    """How the wgmma kernel divides a product.

    Attributes:
        tile_m: rows of a block's tile: 64 for each of one to three consumer warpgroups.
        tile_n: columns of a tile, at most 256.
        stages: tiles of A and B in flight.
        splits: blocks that share a tile, each a part of K.
        stream: blocks that share all steps of all tiles (cuda_stream_k.py); 0: blocks take tiles.
    """

    tile_m: int = 128
    tile_n: int = 256
    stages: int = 4
    splits: int = 1
    stream: int = 0
    k_bytes: ClassVar[int] = SWIZZLE

    def __post_init__(self) -> None:
        if self.tile_m not in (64, 128, 192) or self.tile_n % 8 or not 8 <= self.tile_n <= 256:
            raise ValueError(f"wgmma tiles are 64, 128 or 192 rows by at most 256 columns, not {self.tile_m} x {self.tile_n}")


@dataclass(frozen=True)
class WgmmaTile:
    """A tile that the cost model chooses from, and the share of the peak rate that it reaches by itself.

    Smaller tiles read shared memory more often for each multiplication. From products of few waves on an H200; 96 and
    160 columns are read as 128 and 192 where they are neighbours in memory.
    """

    m: int
    n: int
    efficiency: float


WGMMA_TILES: tuple[WgmmaTile, ...] = (
    WgmmaTile(128, 256, 0.83), WgmmaTile(128, 192, 0.84), WgmmaTile(192, 128, 0.83), WgmmaTile(128, 160, 0.77),
    WgmmaTile(128, 128, 0.82), WgmmaTile(128, 96, 0.6), WgmmaTile(128, 64, 0.8), WgmmaTile(64, 256, 0.8),
    WgmmaTile(64, 128, 0.78), WgmmaTile(64, 64, 0.55),
)  # fmt: skip


def column_lines(p: GemmProblem, s: WgmmaSchedule) -> int:
    """Rows of B in a stage: those of the tile, and where they are neighbours in memory as many as fill boxes of 64."""
    return -(-s.tile_n // 64) * 64 if p.b.major == "row" else s.tile_n


def stage_bytes(p: GemmProblem, s: WgmmaSchedule) -> int:
    """Bytes of a stage: rows of A and of B, 128 bytes of k each."""
    return (s.tile_m + column_lines(p, s)) * SWIZZLE


def staging_columns(s: WgmmaSchedule) -> int:
    """Columns of the boxes in which results leave through shared memory; 0 where none divide a tile."""
    return next((c for c in STAGING_COLUMNS if s.tile_n % c == 0), 0)


def _staged(r: Matrix) -> bool:
    """True for results whose pairs of columns are too narrow to be stored from registers."""
    return r.bits in (8, 16) and r.dtype != "i1" and r.major == "col"


@dataclass(frozen=True)
class WgmmaPlan:
    """What the kernel needs beyond its schedule: the instruction, tensor maps, the launch, and whether sums are promoted."""

    schedule: WgmmaSchedule
    row: MmaRow
    map_a: TensorMapArg | None
    map_b: TensorMapArg | None
    maps_out: tuple[TensorMapArg | None, ...]
    launch: KernelLaunch
    promotes: bool


def _operand_map(p: GemmProblem, x: Matrix, lines: int, tile_k: int) -> TensorMapArg | None:
    """The map that fills `lines` rows of a stage: boxes of 128 bytes of k, or of 128 bytes of rows by `tile_k`."""
    if x.major == "row":
        if x.bits != 16:
            return None
        return x.tma_map(p.dispatch, p.batch, (64, tile_k))
    return x.tma_map(p.dispatch, p.batch, (tile_k, lines))


def plan_wgmma(
    p: GemmProblem, target: Target, s: WgmmaSchedule, suffix: str = "", gathered: bool = False,
    windows: TensorMapArg | None = None,
) -> WgmmaPlan | None:
    """The launch of a schedule, or None where the instruction or TMA cannot take the operands, or registers not the sums.

    `gathered`: the producer's threads copy A themselves, from operand 0, and where TMA cannot read it B, from operand 1.
    `windows`: the map of A, where it is no matrix.
    """
    row = None
    if p.a.dtype == p.b.dtype and p.unsigned[0] == p.unsigned[1]:
        row = find_row(target, p.a.dtype, engine="wgmma", tf32=p.tf32, unsigned=p.unsigned[0])
    if row is None or row.acc != p.acc:
        return None
    promoted = promotes(p, target)
    if promoted and (s.tile_m > PROMOTED_TILE[0] or s.tile_n > PROMOTED_TILE[1]):
        return None
    tile_k = SWIZZLE * 8 // row.bits
    assert not promoted or tile_k == PROMOTION_K, row
    map_a = None if gathered else windows or _operand_map(p, p.a, s.tile_m, tile_k)
    map_b = _operand_map(p, p.b, column_lines(p, s), tile_k)
    if not gathered and (map_a is None or map_b is None):
        return None
    own = tuple(BufferArg("operand", i) for i, m in enumerate((map_a, map_b)) if m is None)
    maps_out: tuple[TensorMapArg | None, ...] = tuple(
        r.tma_map(p.dispatch, p.batch, (staging_columns(s), 64), staging_columns(s) * r.bits // 8)
        if s.splits == 1 and r is not None and _staged(r) and staging_columns(s) else None
        for r in p.results
    )  # fmt: skip
    if s.splits > 1:
        buffers: tuple = (BufferArg("workspace"),)
    else:
        skip = [b.index for b in own]
        buffers = tuple(b for b in region_buffers(p.dispatch, skip=skip) if b.kind != "result" or maps_out[b.index] is None)
    staging = STAGING_BUFFERS * STAGING_BYTES * (s.tile_m // 64) * sum(m is not None for m in maps_out)
    shared = s.stages * stage_bytes(p, s) + staging + 16 * s.stages + ATOM
    if shared > target.shared_bytes:
        return None
    launch = KernelLaunch(
        symbol_of(p.dispatch, suffix),
        (dims.minimum(tile_count(p, s), facts(target).sms * (1 if gathered else blocks_per_sm(p, s, target))), 1, 1),
        (*(m for m in (map_a, map_b, *maps_out) if m is not None), *own, *buffers),
        (128 * (1 + s.tile_m // 64), 1, 1),
        shared_bytes=shared,
        flops=p.flops,
    )
    return WgmmaPlan(s, row, map_a, map_b, maps_out, with_shares(launch, p, s), promoted)


def shared_sm_area(p: GemmProblem, target: Target) -> int:
    """Elements of the largest tile of which an SM holds two; promoted sums take twice the registers."""
    return SHARED_SM_AREA // 2 if promotes(p, target) else SHARED_SM_AREA


def blocks_per_sm(p: GemmProblem, s: WgmmaSchedule, target: Target) -> int:
    """Blocks of a schedule that an SM holds at once: by shared memory and by registers, at most 2.

    Two blocks leave a thread 80 registers (128 where there is one consumer), of which accumulators may take less than half.
    """
    fits = target.shared_bytes // (s.stages * stage_bytes(p, s) + ATOM) >= 2
    return 2 if fits and s.tile_m * s.tile_n <= shared_sm_area(p, target) else 1


def emit_wgmma(module: KernelModule, p: GemmProblem, plan: WgmmaPlan, target: Target) -> None:
    """Write the kernel of `plan` into `module`."""
    blocks = blocks_per_sm(p, plan.schedule, target)
    with dispatch_kernel(module, p.dispatch, plan.launch, exact_threads=True, prologue=True, min_blocks=blocks) as dk:
        WgmmaKernel(dk, p, plan, blocks).emit()


def _swizzle(row: Val, line_bytes: int) -> Val:
    """What TMA exchanges the 16-byte chunks of a row by, in boxes whose rows have 128, 64 or 32 bytes (0: there is no box)."""
    shift, mask = {128: (0, 7), 64: (1, 3), 32: (2, 1), 0: (0, 0)}[line_bytes]
    return (row >> shift) & mask


class WgmmaKernel:
    """The kernel while it is written. `arrivals`: of the producer's threads, for each stage that is full."""

    arrivals = 1

    def __init__(self, dk: DispatchKernel, p: GemmProblem, plan: WgmmaPlan, blocks: int) -> None:
        self.dk, self.p, self.k, self.s, self.row, self.promotes = dk, p, dk.k, plan.schedule, plan.row, plan.promotes
        k, s = self.k, self.s
        rest = iter(dk.maps)
        self.map_a = None if plan.map_a is None else next(rest)
        self.map_b = None if plan.map_b is None else next(rest)
        self.maps_out: list[Val | None] = [None if m is None else next(rest) for m in plan.maps_out]
        self.tile_k = SWIZZLE * 8 // self.row.bits
        self.consumers = s.tile_m // 64
        self.registers = REGISTERS[blocks] if self.consumers == 2 else None
        self.shared = k.dynamic_shared(ATOM)
        self.bytes_a = s.tile_m * SWIZZLE
        self.lines_b = column_lines(p, s)
        self.stage_bytes = stage_bytes(p, s)
        self.staging = s.stages * self.stage_bytes
        staged = sum(m is not None for m in self.maps_out)
        self.barriers = self.staging + STAGING_BUFFERS * STAGING_BYTES * self.consumers * staged
        self.order = tile_order(dk, p, s, self.tile_k)

    def full(self, stage: Val | int) -> Val:
        return self.shared + self.barriers + (stage * 8)

    def empty(self, stage: Val | int) -> Val:
        return self.shared + (self.barriers + 8 * self.s.stages) + (stage * 8)

    def next_stage(self, stage: Val, parity: Val) -> tuple[Val, Val]:
        k = self.k
        last = stage.eq(self.s.stages - 1)
        return k.select(last, 0, stage + 1), k.select(last, parity ^ 1, parity)

    def emit(self) -> None:
        k = self.k
        thread = k.thread_id()
        group = k.warp_id() >> 2
        self.initialize(thread)
        with k.if_else(group.eq(0)) as role:
            with role.then:
                if self.registers:
                    k.set_max_registers(self.registers[0], increase=False)
                self.producer(thread)
            with role.else_:
                if self.registers:
                    k.set_max_registers(self.registers[1], increase=True)
                self.consume(thread, group - 1)

    def initialize(self, thread: Val) -> None:
        """Set up the barriers, and wait until that is done and operands may be read."""
        k = self.k
        with k.if_(thread.eq(0)):
            for i in range(self.s.stages):
                k.mbarrier_init(self.full(i), self.arrivals)
                k.mbarrier_init(self.empty(i), self.consumers)
            k.fence_mbarrier_init()
            for tensor_map in self.dk.maps:
                k.tma_prefetch_descriptor(tensor_map)
        k.barrier()
        self.dk.begin()

    # --- producer

    def producer(self, thread: Val) -> None:
        """The producer warpgroup: one thread issues all copies."""
        with self.k.if_(thread.eq(0)):
            self.produce()

    def produce(self) -> None:
        """Fill stages with the tiles' operands, in the order in which consumers read them."""
        k = self.k
        zero = k.const(0, "i32")
        with k.for_(*self.order.span(), carry=[zero, zero]) as tiles:
            tiles.yield_(self.fill(self.order.work(tiles.iv), tiles.carry))

    def fill(self, work: Work, state: list[Val]) -> list[Val]:
        """Fill a stage for each step of a piece of work; `state` is (stage, parity), before and after."""
        k = self.k
        load_rows = self.rows_loader(work)
        with k.for_(work.first, work.last, carry=state, rolled=True) as steps:
            stage, parity = steps.carry
            k.mbarrier_wait(self.empty(stage), parity ^ 1)
            full = self.full(stage)
            k.mbarrier_arrive_expect(full, self.stage_bytes)
            base = self.shared + stage * self.stage_bytes
            at = steps.iv * self.tile_k
            assert self.map_b is not None, "a gathered operand has its own producer"
            load_rows(base, steps.iv, full)
            self.load(base + self.bytes_a, self.p.b, self.map_b, self.lines_b, work.col, at, work.batch, full)
            steps.yield_(list(self.next_stage(stage, parity)))
        return list(steps.results)

    def rows_loader(self, work: Work) -> Callable[[Val, Val, Val], None]:
        """What fetches A of a piece of work: a function of a stage's address, a step of K and the stage's barrier."""
        map_a = self.map_a
        assert map_a is not None, "a gathered operand has its own producer"

        def load(dst: Val, step: Val, full: Val) -> None:
            self.load(dst, self.p.a, map_a, self.s.tile_m, work.row, step * self.tile_k, work.batch, full)

        return load

    def load(
        self, dst: Val, x: Matrix, tensor_map: Val, lines: int, line: Val, at: Val, batch: Sequence[Val], full: Val
    ) -> None:
        k = self.k
        rest = x.tma_batch(batch)
        if x.major == "col":
            k.tma_load(dst, tensor_map, [at, line, *rest], full)
            return
        for i in range(lines // 64):  # 64 neighbouring rows by tile_k: one box each
            k.tma_load(dst + i * self.tile_k * SWIZZLE, tensor_map, [line + i * 64, at, *rest], full)

    # --- consumers

    def ready(self) -> None:
        """A stage is full and about to be read: nothing more to do where the copy engine filled it."""

    def descriptor(self, p: Val, x: Matrix) -> Val:
        """The descriptor of an operand's first instruction in a stage at `p`."""
        if x.major == "col":
            return self.k.wgmma_descriptor(p, leading_bytes=16, stride_bytes=ATOM, swizzle=SWIZZLE)
        # Contiguous along rows: boxes of 64 rows follow each other, groups of eight k lie in an atom.
        return self.k.wgmma_descriptor(p, leading_bytes=self.tile_k * SWIZZLE, stride_bytes=ATOM, swizzle=SWIZZLE)

    def advance(self, x: Matrix) -> int:
        """Bytes from one instruction's k to the next one's."""
        return 32 if x.major == "col" else self.row.k * SWIZZLE

    def consume(self, thread: Val, consumer: Val) -> None:
        """Multiply what the producer brings, and write each tile."""
        k = self.k
        local = thread & 127
        zero = k.const(0, "i32")
        multiply = self.multiplier(local, consumer)
        with k.for_(*self.order.span(), carry=[zero, zero]) as tiles:
            work = self.order.work(tiles.iv)
            values, state = multiply(work, tiles.carry)

            def store(out: Any, work: Work = work, values: list[Val] = values) -> None:
                to = self.store_results if isinstance(out, FragmentEpilogue) else self.store_partial
                to(out, values, local, consumer, work.row, work.col, work.batch)

            self.order.deliver(work, store)
            tiles.yield_(state)
        if any(m is not None for m in self.maps_out):
            with k.if_(local.eq(0)):
                k.bulk_wait(0)

    def multiplier(
        self, local: Val, consumer: Val
    ) -> Callable[[Work, list[Val]], tuple[list[Val], list[Val]]]:
        """The main loop: from a piece of work and (stage, parity) to the accumulators and (stage, parity)."""
        k, s, p, row = self.k, self.s, self.p, self.row
        # A consumer's 64 rows are 64 swizzled lines, or one box of rows.
        bytes_64 = 64 * SWIZZLE if p.a.major == "col" else self.tile_k * SWIZZLE
        base_a = self.descriptor(self.shared + consumer * bytes_64, p.a)
        base_b = self.descriptor(self.shared + self.bytes_a, p.b)
        transposed = {"a_transposed": p.a.major == "row", "b_transposed": p.b.major == "row"}
        shape = (64, s.tile_n, row.k)

        def issue(stage: Val, parity: Val, acc: Val) -> Val:
            """Start a stage's instructions, as one group."""
            k.mbarrier_wait(self.full(stage), parity)
            self.ready()
            step = k.cast(stage * (self.stage_bytes >> 4), "i64", signed=False)
            a, b = base_a + step, base_b + step
            k.wgmma_fence()
            for i in range(self.tile_k // row.k):
                da, db = i * self.advance(p.a) >> 4, i * self.advance(p.b) >> 4
                kept = i > 0 or not self.promotes
                acc = k.wgmma(acc, a + da, b + db, shape, row.ptx, accumulate=kept, **transposed)
            k.wgmma_commit()
            return acc

        def multiply(work: Work, state: list[Val]) -> tuple[list[Val], list[Val]]:
            first, last = work.first, work.last
            acc = k.wgmma_accumulator(s.tile_n, row.acc)
            with k.for_(first, last, carry=[*state, acc, k.const(0, "i32")], rolled=True) as steps:
                stage, parity, acc, previous = steps.carry
                acc = issue(stage, parity, acc)
                # The instructions before these have finished: their stage may be filled again.
                k.wgmma_wait(1)
                with k.if_(local.eq(0) & (steps.iv > first)):
                    k.mbarrier_arrive(self.empty(previous))
                steps.yield_([*self.next_stage(stage, parity), acc, stage])
            stage, parity, acc, previous = steps.results
            k.wgmma_wait(0)
            with k.if_(local.eq(0) & (first < last)):
                k.mbarrier_arrive(self.empty(previous))
            return k.elements(acc), [stage, parity]

        def multiply_promoted(work: Work, state: list[Val]) -> tuple[list[Val], list[Val]]:
            totals = [k.const(0.0, "f32")] * (s.tile_n // 2)
            with k.for_(work.first, work.last, carry=[*state, k.wgmma_accumulator(s.tile_n), totals], rolled=True) as steps:
                stage, parity, acc, totals = steps.carry
                acc = issue(stage, parity, acc)
                k.wgmma_wait(0)
                acc = k.wgmma_settled(acc)
                with k.if_(local.eq(0)):
                    k.mbarrier_arrive(self.empty(stage))
                totals = [t + x for t, x in zip(totals, k.elements(acc), strict=True)]
                steps.yield_([*self.next_stage(stage, parity), acc, totals])
            stage, parity, _, totals = steps.results
            return list(totals), [stage, parity]

        return multiply_promoted if self.promotes else multiply

    def lane_position(self, local: Val, consumer: Val) -> tuple[Val, Val]:
        """Row in the tile and column in eight of a thread's first accumulator."""
        lane = local & 31
        return (consumer << 6) + ((local >> 5) << 4) + (lane >> 2), (lane & 3) << 1

    def store_results(
        self, epilogue: FragmentEpilogue, acc: list[Val], local: Val, consumer: Val, m0: Val, n0: Val, batch: list[Val]
    ) -> None:
        """Run the region; stage what TMA stores, box by box, and store the rest from registers."""
        k, s = self.k, self.s
        row, col = self.lane_position(local, consumer)
        rows = [epilogue.at_row(batch, m0 + row + 8 * h) for h in range(2)]
        staged = [i for i, m in enumerate(self.maps_out) if m is not None]
        lane, barrier = local & 31, consumer + 1
        columns = staging_columns(s)
        # Results of 16 bits go by stmatrix: lane l gives the address of row l % 16 of its warp's 16, 16-byte chunk l / 16 of a
        # pair; chunks are swizzled. Pairs of 8 bits are stored as they are, to other banks for each row.
        line = (((local >> 5) << 4) + (lane & 15)) * (2 * columns)
        swizzle = _swizzle(lane, 2 * columns)
        narrow = (row & 63) * columns + col
        narrow_swizzle = _swizzle(lane >> 2, columns)
        buffers = self.shared + self.staging + consumer * (STAGING_BUFFERS * STAGING_BYTES * len(staged))
        boxes = s.tile_n // columns if staged else 1
        per_box = s.tile_n // 8 // boxes
        # All results of a box come first, what the region loads at once; pairs of bytes would take two registers each until the
        # buffer is there.
        early = all(self._bits(i) == 16 for i in staged)
        for box in range(boxes):
            slot = buffers + (box % STAGING_BUFFERS) * (STAGING_BYTES * len(staged))
            if staged and not early:
                self.await_buffer(local, barrier, box, boxes)
            found: list[list[Val]] = []
            for j in range(box * per_box, (box + 1) * per_box):
                for h in range(2):
                    at = n0 + col + 8 * j
                    values = epilogue.results(rows[h][0], at, acc[4 * j + 2 * h : 4 * j + 2 * h + 2])
                    found.append(values)
                    for i, x in enumerate(values):
                        if i not in staged:
                            epilogue.store(i, x, rows[h][1], rows[h][2], at)
            if staged and early:
                self.await_buffer(local, barrier, box, boxes)
            for number, i in enumerate(staged):
                start = slot + number * STAGING_BYTES
                results = [values[i] for values in found]
                if self._bits(i) == 16:
                    for j in range(0, per_box, 2):
                        chunk = ((lane >> 4) + j) ^ swizzle
                        k.stmatrix(start + (line + (chunk << 4)), results[2 * j : 2 * j + 4])
                else:
                    for j, x in enumerate(results):
                        chunk = (narrow_swizzle ^ (j >> 2)) << 4
                        k.store(x, start + (narrow + (chunk + (8 * (j >> 1 & 1) + 8 * (j & 1) * columns))), align=2)
            if staged:
                k.fence_async_shared()
                k.barrier(barrier, 128)
                with k.if_(local.eq(0)):
                    for number, i in enumerate(staged):
                        tensor_map, result = self.maps_out[i], self.p.results[i]
                        assert tensor_map is not None, i
                        assert result is not None, i
                        at_box = [n0 + box * columns, m0 + (consumer << 6), *result.tma_batch(batch)]
                        k.tma_store(tensor_map, slot + number * STAGING_BYTES, at_box)
                    k.bulk_commit()

    def await_buffer(self, local: Val, barrier: Val, box: int, boxes: int) -> None:
        """Wait until the staging buffer of a tile's box may be written."""
        k = self.k
        # Its last store must have been read; where boxes are odd, it is the last tile's last one.
        with k.if_(local.eq(0)):
            k.bulk_wait(0 if box == 0 and boxes % STAGING_BUFFERS else STAGING_BUFFERS - 1, read=True)
        k.barrier(barrier, 128)

    def _bits(self, result: int) -> int:
        """Bits of a result's elements."""
        return self.dk.d.results[result].type.bits

    def store_partial(
        self, out: PartialSums | PartialTile, acc: list[Val], local: Val, consumer: Val, m0: Val, n0: Val, batch: list[Val]
    ) -> None:
        """Store accumulators of a part of a tile to the workspace."""
        row, col = self.lane_position(local, consumer)
        for h in range(2):
            line: Any = out.at_row(batch, m0 + row + 8 * h)
            for j in range(self.s.tile_n // 8):
                out.pair(line, n0 + col + 8 * j, acc[4 * j + 2 * h : 4 * j + 2 * h + 2])
