"""Matrix products by mma.sync: a ring of stages in shared memory, fragments by ldmatrix, any row of the instruction table.

Stages are filled by cp.async (sm_80); where that is missing, or lines are not aligned to 4 bytes, through registers, a step
ahead. While a step's last instructions run, the fragments of the next step are already being read. The kernel is written once:
a row of the table decides which registers of a fragment an instruction takes (cuda_shared_tile.py) and how accumulators lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ingot.compiler.codegen.cuda_gemm_problem import GemmProblem, Matrix, promotes
from ingot.compiler.codegen.cuda_gemm_tiles import TileOrder, Work, tile_count
from ingot.compiler.codegen.cuda_kernel import DispatchKernel, dispatch_kernel, region_buffers, symbol_of
from ingot.compiler.codegen.cuda_shared_tile import K_STEP, TileCopy, TileReader, TileShape
from ingot.compiler.codegen.cuda_stream_k import tile_order, with_shares
from ingot.compiler.codegen.kernel_builder import KernelModule
from ingot.compiler.codegen.mma_table import MmaRow, find_row
from ingot.compiler.codegen.values import Val
from ingot.kernel_plan import BufferArg, KernelLaunch
from ingot.target import Target


@dataclass(frozen=True)
class MmaSchedule:
    """How the mma.sync kernel divides a product.

    Attributes:
        tile_m, tile_n: of a block.
        warp_m, warp_n: of a warp, multiples of 16.
        stages: tiles in flight.
        k_bytes: bytes of k of a tile.
        splits: blocks that share a tile, each a part of K.
        stream: blocks that share all steps of all tiles (cuda_stream_k.py); 0: blocks take tiles.
    """

    tile_m: int
    tile_n: int
    warp_m: int
    warp_n: int
    stages: int = 3
    k_bytes: int = 128
    splits: int = 1
    stream: int = field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        if self.tile_m % self.warp_m or self.tile_n % self.warp_n or self.warp_m % 16 or self.warp_n % 16:
            raise ValueError(f"warps of {self.warp_m} x {self.warp_n} do not divide a tile of {self.tile_m} x {self.tile_n}")

    @property
    def warps(self) -> int:
        return self.tile_m // self.warp_m * (self.tile_n // self.warp_n)

    @property
    def stage_bytes(self) -> int:
        return (self.tile_m + self.tile_n) * self.k_bytes

    def registers(self, *, clamped: bool = False, fetched: bool = False) -> int:
        """Registers of a thread, about: accumulators, fragments of a step and of the next one, and addresses.

        Args:
            clamped: each chunk that a thread copies has an address of its own, as rows may end anywhere.
            fetched: chunks pass through registers.
        """
        fragments = 4 * (self.warp_m + self.warp_n) // 16
        chunks = self.stage_bytes // (16 * 32 * self.warps) * (1 + 2 * clamped + 4 * fetched)
        return self.warp_m * self.warp_n // 32 + 2 * fragments + chunks + 36


# Tiles the cost model chooses from, largest first.
MMA_TILES: tuple[MmaSchedule, ...] = (
    MmaSchedule(128, 256, 64, 64),
    MmaSchedule(256, 128, 64, 64),
    MmaSchedule(128, 128, 64, 64),
    MmaSchedule(128, 128, 64, 32),
    MmaSchedule(128, 64, 64, 32),
    MmaSchedule(64, 128, 32, 64),
    MmaSchedule(64, 64, 32, 32),
    MmaSchedule(32, 64, 16, 32, 4),
    MmaSchedule(16, 128, 16, 32, 5),
    MmaSchedule(16, 64, 16, 16, 4),
)


def mma_row(p: GemmProblem, target: Target) -> MmaRow | None:
    """The instruction for a product, or None."""
    if p.a.dtype != p.b.dtype or p.unsigned[0] != p.unsigned[1]:
        return None
    row = find_row(target, p.a.dtype, tf32=p.tf32, unsigned=p.unsigned[0])
    return row if row is not None and row.acc == p.acc and row.scale is None and row.bits == p.a.bits else None


def mma_launch(p: GemmProblem, s: MmaSchedule, suffix: str = "") -> KernelLaunch:
    """The launch of a schedule."""
    own = (BufferArg("operand", 0), BufferArg("operand", 1))
    rest = (BufferArg("workspace"),) if s.splits > 1 else region_buffers(p.dispatch, skip=(0, 1))
    launch = KernelLaunch(
        symbol_of(p.dispatch, suffix), (tile_count(p, s), 1, 1), (*own, *rest), (32 * s.warps, 1, 1),
        shared_bytes=s.stages * s.stage_bytes, flops=p.flops,
    )  # fmt: skip
    return with_shares(launch, p, s)


def emit_mma(module: KernelModule, p: GemmProblem, s: MmaSchedule, target: Target, launch: KernelLaunch) -> None:
    """Write the kernel of a schedule into `module`."""
    row = mma_row(p, target)
    assert row is not None, (p.a.dtype, target.name)
    with dispatch_kernel(module, p.dispatch, launch, min_blocks=1) as dk:
        shapes = [tile_shape(x, rows, s.k_bytes) for x, rows in ((p.a, s.tile_m), (p.b, s.tile_n))]
        order = tile_order(dk, p, s, shapes[0].tile_k)
        threads, thread = 32 * s.warps, dk.k.thread_id()
        copies = [TileCopy(dk, x, t, threads, thread, target.cp_async) for x, t in zip((p.a, p.b), shapes, strict=True)]
        MmaLoop(dk, row, s, shapes, copies, promotes(p, target)).work(order, copies)


def tile_shape(x: Matrix, rows: int, k_bytes: int) -> TileShape:
    """The shared tile of an operand: row-major only where its rows are contiguous."""
    return TileShape(rows, k_bytes, x.bits, k_major=x.major != "row" or rows * x.bits // 8 < 32)


def mma_registers(row: MmaRow, dk: DispatchKernel, a: Sequence[Val], b: Sequence[Val], acc: Sequence[Val]) -> list[Val]:
    """The product of 16 rows (four registers, see cuda_shared_tile.py) and 8 columns (two) over 32 bytes of k, added to `acc`.

    Instructions of 8 rows, or of 16 bytes of k, are issued several times.
    """
    acc = list(acc)
    parts = K_STEP // row.k_bytes
    for part in range(parts):
        for half in range(16 // row.m):
            taken = [h + 2 * c for c in range(part * 2 // parts, (part + 1) * 2 // parts) for h in range(2)]
            if row.m == 8:
                taken = [r for r in taken if r % 2 == half]
            registers = [b[c] for c in range(part * 2 // parts, (part + 1) * 2 // parts)]
            at = slice(2 * half, 2 * half + 2) if row.m == 8 else slice(0, 4)
            acc[at] = dk.k.mma((row.m, row.n, row.k), [a[r] for r in taken], registers, acc[at], row.ptx, kind=row.kind)
    return acc


class StageCopy(Protocol):
    """What the main loop asks of a `TileCopy`, or of what copies more than a tile.

    Attributes:
        asynchronous: steps are brought by `copy`; else by `fetch` and `put`.
        count: chunks of 16 bytes that a thread fetches.
    """

    asynchronous: bool
    count: int

    def copy(self, stage: Val, step: Val) -> None: ...

    def fetch(self, step: Val) -> list[Val]: ...

    def put(self, stage: Val, registers: Sequence[Val]) -> None: ...


class MmaLoop:
    """The main loop: accumulators of a block's tile over a range of steps.

    Args:
        dk: the kernel.
        row: the instruction.
        s: the schedule.
        shapes: of A's and B's tiles.
        copies: bring A's and B's tiles; their `start` has been called.
        promotes: the sums of each step, which are at most 128 bytes of k, are added in f32 (mma_table.py).
    """

    def __init__(
        self, dk: DispatchKernel, row: MmaRow, s: MmaSchedule, shapes: Sequence[TileShape], copies: Sequence[StageCopy],
        promotes: bool = False,
    ) -> None:  # fmt: skip
        self.dk, self.k, self.row, self.s, self.copies, self.promotes = dk, dk.k, row, s, copies, promotes
        k = dk.k
        self.shared = k.dynamic_shared(1024)
        self.lane, warp = k.lane_id(), k.warp_id()
        across = s.tile_m // s.warp_m
        self.warp_row, self.warp_col = (warp % across) * s.warp_m, (warp // across) * s.warp_n
        self.blocks_m, self.blocks_n = s.warp_m // 16, s.warp_n // 16
        self.reader_a = TileReader(dk, shapes[0], self.warp_row, self.lane, s.warp_m)
        self.reader_b = TileReader(dk, shapes[1], self.warp_col, self.lane, s.warp_n, columns=True)
        self.bytes_a = shapes[0].nbytes
        self.k_steps = s.k_bytes // K_STEP
        self.asynchronous = [c for c in copies if c.asynchronous]
        self.fetched = [c for c in copies if not c.asynchronous]

    @property
    def fragment_registers(self) -> int:
        """How many registers `fragments` gives."""
        return 4 * (self.blocks_m + self.blocks_n)

    def work(self, order: TileOrder, copies: Sequence[TileCopy]) -> None:
        """All that a block does: its tile, or where steps are shared one piece of work after the other."""
        k = self.k

        def do(work: Work) -> None:
            for copy, line in zip(copies, (work.row, work.col), strict=True):
                copy.start(line, work.batch)
            acc = self.run(work.first, work.last)
            order.deliver(work, lambda out: self.store(acc, out, work.batch, work.row, work.col))

        if not self.s.stream:
            do(order.work(k.block_id()))
            return
        with k.for_(*order.span()) as pieces:
            do(order.work(pieces.iv))
            self._drain()

    def run(self, first: Val, last: Val) -> list[Val]:
        """Accumulators, four for each 16 x 8 of the warp's tile, rows first."""
        k, s = self.k, self.s
        zero = k.const(0, self.row.acc)
        acc = [zero] * (self.blocks_m * self.blocks_n * 2 * 4)
        for i in range(s.stages - 1):
            with k.if_(first + i < last):
                self.copy(self.shared + i * s.stage_bytes, first + i)
            self.commit()
        if self.asynchronous:
            k.cp_async_wait(s.stages - 2)
        k.barrier()
        with k.if_else(first < last, ["i32"] * self.fragment_registers) as filled:
            with filled.then:
                filled.yield_(self.fragments(self.shared, 0))
            with filled.else_:  # a split without steps
                filled.yield_([k.const(0, "i32")] * self.fragment_registers)
        fragments = filled.results
        ahead: list[Val] = []
        read, write = k.const(0, "i32"), k.const((s.stages - 1) * s.stage_bytes, "i32")
        with k.for_(first, last, carry=[read, write, fragments, acc]) as loop:
            read, write, fragments, acc = loop.carry
            totals = acc
            if self.promotes:
                acc = [zero] * len(totals)
            following = loop.iv + (s.stages - 1)
            # After the last step there is nothing to read ahead: read this stage once more.
            after = k.select(loop.iv + 1 < last, self.next(read), read)
            for step in range(self.k_steps):
                if step < self.k_steps - 1:
                    coming = self.fragments(self.shared + read, step + 1)
                if step == 0:
                    ahead = [x for c in self.fetched for x in c.fetch(k.min(following, last - 1))]
                    # Past the end the last tiles are brought once more: a branch here would cost a move of every accumulator.
                    for c, base in zip(self.copies, (0, self.bytes_a), strict=True):
                        if c.asynchronous:
                            c.copy(self.shared + write + base, k.min(following, last - 1))
                    self.commit()
                if step == self.k_steps - 1:
                    if self.fetched:
                        self.put(self.shared + write, ahead)
                    if self.asynchronous:
                        k.cp_async_wait(s.stages - 2)
                    k.barrier()
                    coming = self.fragments(self.shared + after, 0)
                acc = self.multiply(fragments, acc)
                fragments = coming
            if self.promotes:
                acc = [t + x for t, x in zip(totals, acc, strict=True)]
            loop.yield_([after, self.next(write), fragments, acc])
        return list(loop.results[3])

    def _drain(self) -> None:
        """Wait until shared memory may be filled anew: the last steps brought tiles that nothing reads."""
        if self.asynchronous:
            self.k.cp_async_wait(0)
        self.k.barrier()

    def commit(self) -> None:
        if self.asynchronous:
            self.k.cp_async_commit()

    def copy(self, stage: Val, step: Val) -> None:
        """Bring a step's tiles, waiting for those that pass through registers."""
        for c, base in zip(self.copies, (0, self.bytes_a), strict=True):
            if c.asynchronous:
                c.copy(stage + base, step)
            else:
                c.put(stage + base, c.fetch(step))

    def put(self, stage: Val, registers: list[Val]) -> None:
        at = 0
        for c, base in zip(self.copies, (0, self.bytes_a), strict=True):
            if not c.asynchronous:
                c.put(stage + base, registers[at : at + 4 * c.count])
                at += 4 * c.count

    def next(self, offset: Val) -> Val:
        """The stage after the one at `offset`."""
        last = (self.s.stages - 1) * self.s.stage_bytes
        return self.k.select(offset.eq(last), 0, offset + self.s.stage_bytes)

    def fragments(self, stage: Val, step: int) -> list[Val]:
        """Registers of the warp's rows of A, then of its columns of B, for 32 bytes of k."""
        out = []
        for i in range(self.blocks_m):
            out += self.reader_a.read(stage, i, step)
        for i in range(self.blocks_n):
            out += self.reader_b.read(stage + self.bytes_a, i, step)
        return out

    def multiply(self, fragments: list[Val], acc: list[Val]) -> list[Val]:
        """One product for each 16 x 8 of the warp's tile."""
        acc = list(acc)
        columns = 2 * self.blocks_n
        for i in range(self.blocks_m):
            a = fragments[4 * i : 4 * i + 4]
            for jj in range(columns):
                j = jj if i % 2 == 0 else columns - 1 - jj  # back and forth: neighbours share B's registers
                block = fragments[4 * self.blocks_m + 4 * (j // 2) :][:4]
                b = block[2 * (j % 2) :][:2]
                at = slice(4 * (i * columns + j), 4 * (i * columns + j) + 4)
                acc[at] = mma_registers(self.row, self.dk, a, b, acc[at])
        return acc

    def store(self, acc: list[Val], out: object, batch: Sequence[Val], m0: Val, n0: Val) -> None:
        """Give the accumulators to the epilogue, a row of pairs at a time."""
        row = m0 + self.warp_row + (self.lane >> 2)
        col = n0 + self.warp_col + ((self.lane & 3) << 1)
        columns = 2 * self.blocks_n
        for i in range(self.blocks_m):
            for half in range(2):
                line = out.at_row(batch, row + (16 * i + 8 * half))  # type: ignore[attr-defined]
                for j in range(columns):
                    at = 4 * (i * columns + j) + 2 * half
                    out.pair(line, col + 8 * j, acc[at : at + 2])  # type: ignore[attr-defined]
