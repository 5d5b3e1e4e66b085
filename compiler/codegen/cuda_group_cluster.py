"""Group normalization with one read: some groups of all positions of an image are held by a cluster of blocks.

A block holds its share of the positions, with the channels of its groups, in registers where a thread's part is small, and else
in shared memory, where cp.async copies it. It sums them as the two launches of cuda_group_normalize.py do, and leaves each
group's sums in shared memory. Every block adds those of its cluster by reading the others' shared memory, and normalizes its
share. A cluster of one block needs no sm_90.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from ingot import dims
from ingot.compiler.codegen.cuda_group_normalize import (
    AHEAD,
    MAX_THREADS,
    GroupProblem,
    GroupSchedule,
    GroupsKernel,
    finish_seconds,
    spans_of,
)
from ingot.compiler.codegen.cuda_kernel import DispatchKernel, dispatch_kernel, memory_type, region_buffers, symbol_of
from ingot.compiler.codegen.cuda_rows import inner_lanes
from ingot.compiler.codegen.kernel_builder import KernelModule
from ingot.compiler.codegen.values import Val
from ingot.cuda_targets import facts
from ingot.dispatch import Dispatch
from ingot.kernel_plan import BufferArg, KernelLaunch, KernelPlan
from ingot.target import Target

_SEGMENT = 64  # bytes of a position that a block reads, at least: two sectors
_LEAST = 8192  # bytes of a block of a cluster: waiting for others takes as long as reading so much
_COPIES = (4, 8, 16)  # bytes that cp.async copies
_HELD = 64  # registers of a thread that may hold elements
_OTHERS = 48  # registers that it needs besides
_FEW = 16  # registers of elements up to which these rather lie there than in shared memory
WIDE = False  # clusters of more blocks than are portable, and blocks that have an SM alone, are chosen: not timed yet
LINE = 128  # bytes that memory is read by


@dataclass(frozen=True)
class ClusterSchedule:
    """`groups` groups a cluster of `cluster` blocks; in a block, `lanes` channels a thread and `rows` positions at a time, held
    in `registers` or else in shared memory; `alone`: a block asks for so much of that that an SM holds no other."""

    groups: int
    cluster: int
    lanes: int
    rows: int
    registers: bool = False
    alone: bool = False

    @property
    def is_wide(self) -> bool:
        """True where the cluster has more blocks than is portable."""
        return self.cluster > 8


@dataclass(frozen=True)
class _Layout:
    """Where things lie in shared memory, in bytes, and what follows from a schedule.

    Attributes:
        chunk: positions of a block; the last block of a cluster may have fewer.
        vectors: vectors of a position.
        threads: of a block.
        warps: that add a group's sums.
        sums: offset of the threads' sums; elements lie at 0.
        own: offset of the groups' sums of this block, a pair for each warp that adds them.
        both: offset of the groups' means and factors.
    """

    chunk: int
    vectors: int
    threads: int
    warps: int
    sums: int
    own: int
    both: int
    end: int


def _layout(p: GroupProblem, s: ClusterSchedule) -> _Layout:
    positions, channels = p.positions, s.groups * p.per_group
    assert isinstance(positions, int)
    chunk, vectors = -(-positions // s.cluster), channels // s.lanes
    threads = -(-(vectors * s.rows) // 32) * 32
    # A warp reads the pairs of all warps of all blocks at once.
    warps = max(1, min(threads // 32 // s.groups, 32 // s.cluster))
    held = 0 if s.registers else chunk * channels * p.domain.dispatch.operands[0].type.bytes
    sums = -(-held // 16) * 16
    own = sums + 8 * s.rows * vectors * spans_of(p, s.lanes)
    both = own + 8 * s.groups * warps
    return _Layout(chunk, vectors, threads, warps, sums, own, both, both + 8 * s.groups)


def _held_registers(p: GroupProblem, s: ClusterSchedule) -> int:
    """Registers that hold a thread's elements."""
    return -(-_layout(p, s).chunk // s.rows) * -(-s.lanes * p.domain.dispatch.operands[0].type.bytes // 4)


def _blocks(p: GroupProblem, s: ClusterSchedule, target: Target) -> int:
    """Blocks that an SM holds at once."""
    layout = _layout(p, s)
    registers = _OTHERS + (_held_registers(p, s) if s.registers else 0)
    return min(
        target.shared_bytes // _shared_bytes(layout, s, target), target.max_threads // layout.threads,
        65536 // (registers * layout.threads),
    )  # fmt: skip


def _all_schedules(p: GroupProblem, target: Target) -> Iterator[ClusterSchedule]:
    """Schedules whose blocks fit."""
    sms = facts(target).sms
    # A wide cluster lies in one of a GPU's groups of SMs: a part of a GPU may have none that is whole.
    widest_cluster = target.wide_cluster if sms >= 6 * target.wide_cluster else target.max_cluster
    d = p.domain.dispatch
    size = d.operands[0].type.bytes
    widest = inner_lanes(d, [d.operands[0], *d.results])
    for groups in (g for g in range(1, p.groups + 1) if p.groups % g == 0):
        channels = groups * p.per_group
        lanes = math.gcd(widest, channels)
        vectors = channels // lanes
        if vectors > MAX_THREADS or (channels * size < _SEGMENT and groups < p.groups):
            continue
        for cluster in (c for c in (1, 2, 4, 8, 16) if c <= widest_cluster):
            chunk = dims.ceildiv(p.positions, cluster)
            assert isinstance(chunk, int)
            assert isinstance(p.positions, int)
            s = ClusterSchedule(groups, cluster, lanes, _rows(vectors, chunk))
            if (cluster > 1 and chunk * channels * size < _LEAST) or chunk * (cluster - 1) >= p.positions:
                continue
            if _held_registers(p, s) <= _HELD:
                yield replace(s, registers=True)
            if target.cp_async and lanes * size in _COPIES and _layout(p, s).end <= target.shared_bytes:
                yield s


def _shared_bytes(layout: _Layout, s: ClusterSchedule, target: Target) -> int:
    """Shared memory that a block asks for."""
    return max(layout.end, target.shared_bytes // 2 + 16) if s.alone else layout.end


def _rows(vectors: int, chunk: int) -> int:
    """Positions of a block at a time: as many as it has threads for, or somewhat fewer that divide the chunk and fill warps."""
    most = max(1, min(MAX_THREADS // vectors, chunk))
    return next((r for r in range(most, most * 3 // 4, -1) if chunk % r == 0 and vectors * r % 32 == 0), most)


# What a region with special functions (SiLU) adds for each element, in bytes at the memory's rate.
FINISH, FINISH_OF_SEVERAL = 2.0, 6.0


def seconds(p: GroupProblem, s: ClusterSchedule, target: Target) -> float:
    """An estimate: the launch, runs of channels in lines of 128 bytes, the cluster's barrier, a second block on an SM.

    Its numbers are an H200's, from images of 576 to 9216 positions.
    """
    d, f = p.domain.dispatch, facts(target)
    positions, outer = p.positions, p.outer
    assert isinstance(positions, int)
    assert isinstance(outer, int)
    size = d.operands[0].type.bytes
    run = s.groups * p.per_group * size
    lines = 1.0 if s.groups == p.groups else 1 + (LINE - 16) / run
    traffic = outer * positions * p.channels * (size + sum(r.type.bytes for r in d.results))
    blocks = outer * (p.groups // s.groups) * s.cluster
    # An SM can take more than its part of the memory's rate.
    moved = traffic * lines / (0.94 * f.bandwidth * min(1.0, 2.5 * blocks / f.sms))
    if finish_seconds(p, f.sms, target):
        # Not a matter of how many SMs compute; why blocks of several groups take so much longer is not known.
        moved += outer * positions * p.channels * (FINISH if s.groups == 1 else FINISH_OF_SEVERAL) / f.bandwidth
    # Registers save the way through shared memory where they are few.
    held = 0.0 if s.registers == (_held_registers(p, s) <= _FEW) else 3e-7
    return 1.3e-6 + moved + (1.2e-7 * s.cluster if s.cluster > 1 else 0.0) + (1e-6 if blocks > f.sms else 0.0) + held


def schedules(p: GroupProblem, target: Target, waves: int = 1, wide: bool = WIDE) -> list[ClusterSchedule]:
    """The schedules, the one with the least estimated time first.

    None where sizes are not constant, where a cluster cannot hold a group, or where blocks come in more than `waves` waves: one
    that reads, and waits for its cluster, has nothing to do meanwhile, and two launches are faster.

    Args:
        wide: whether clusters may be wider than is portable, and blocks alone on an SM.
    """
    if not isinstance(p.positions, int) or not isinstance(p.outer, int) or not p.positions:
        return []
    sms, outer = facts(target).sms, p.outer

    def blocks(s: ClusterSchedule) -> int:
        return outer * (p.groups // s.groups) * s.cluster

    found = []
    for s in _all_schedules(p, target):
        if s.cluster > target.max_cluster and not wide:
            continue
        on_sm = max(1, _blocks(p, s, target))
        if blocks(s) <= waves * sms * on_sm:
            found.append(s)
        if wide and 1 < s.cluster and on_sm > 1 and sms // 2 < blocks(s) <= sms:
            found.append(replace(s, alone=True))
    return sorted(found, key=lambda s: seconds(p, s, target))


def write_cluster(
    module: KernelModule, dispatch: Dispatch, p: GroupProblem, s: ClusterSchedule, target: Target
) -> KernelPlan:
    """Write the launch into `module`."""
    d = p.domain.dispatch
    layout = _layout(p, s)
    traffic = dims.product(p.domain.domain) * (d.operands[0].type.bytes + sum(r.type.bytes for r in d.results))
    launch = KernelLaunch(
        symbol_of(dispatch), (s.cluster, p.outer, p.groups // s.groups),
        (BufferArg("operand", 0), *region_buffers(d, skip=[0])), (layout.threads, 1, 1), (s.cluster, 1, 1),
        shared_bytes=_shared_bytes(layout, s, target), bytes=traffic,
    )  # fmt: skip
    with dispatch_kernel(module, d, launch, min_blocks=max(1, min(4, _blocks(p, s, target)))) as dk:
        _Cluster(dk, p, s, layout).emit()
    return KernelPlan((launch,))


class _Cluster(GroupsKernel):
    """The kernel while it is written. Groups are numbered within the block's."""

    def __init__(self, dk: DispatchKernel, p: GroupProblem, s: ClusterSchedule, layout: _Layout) -> None:
        schedule = GroupSchedule(s.lanes, s.rows, layout.chunk)
        super().__init__(dk, p, schedule, layout.threads, s.groups, dk.k.block_id(2) * s.groups)
        self.cluster, self.layout = s, layout
        self.shared = self.k.dynamic_shared(16)
        self.pair = self.k.vector_of("f32", 2)
        positions = p.positions
        assert isinstance(positions, int)
        self.count = self.last - self.first
        # Every element of every thread exists.
        self.exact = (
            layout.chunk % s.rows == 0 and positions == layout.chunk * s.cluster
            and layout.threads == layout.vectors * s.rows
        )  # fmt: skip

    def emit(self) -> None:
        k, s, layout = self.k, self.cluster, self.layout
        held: list[Val] = []
        if s.registers:
            for i in range(-(-layout.chunk // s.rows)):
                at = self.row + i * s.rows
                held.append(self.raw(self.first + (at if self.exact else k.min(at, self.count - 1)), self.channel, self.lanes))
        else:
            self.copy()
        warps = self.threads // 32
        shifts = [self.shift(k.min(k.warp_id() + first, self.groups - 1)) for first in range(0, self.groups, warps)]
        with k.if_(self.works):
            (shift,) = self.by_group(lambda group: [self.shift(group)])
            self.leave(self.sums(held, shift), self.shared + layout.sums)
        k.barrier()
        self.statistics_of_groups()
        if s.cluster > 1:
            k.cluster_sync()  # every block's sums are there
        else:
            k.barrier()
        self.combine_blocks(shifts)
        k.barrier()
        with k.if_(self.works):
            self.finish(held)
        if s.cluster > 1:
            k.cluster_wait()  # a block's shared memory must be there until all have read it

    def slot(self, at: Val) -> Val:
        """Where the thread's channels of a position of the block's lie in shared memory."""
        t = self.dk.d.operands[0].dtype
        return self.shared.at(at * (self.groups * self.p.per_group) + self.local, memory_type(t))

    def copy(self) -> None:
        """Copy the thread's elements, which no other thread reads, to shared memory."""
        k, d = self.k, self.dk.d
        nbytes = self.s.lanes * d.operands[0].type.bytes

        def body(i: Val, carry: list[Val]) -> list[Val]:
            at = self.row + i * self.s.rows
            source = self.dk.address("operand", 0, self.place(self.first + at, self.channel), self.p.domain.domain)
            k.cp_async(self.slot(at), source, nbytes)
            return carry

        with k.if_(self.works):
            k.for_unrolled(0, self.rows(), AHEAD, body, [k.const(0, "i32")])
        k.cp_async_commit()

    def each(self, held: list[Val], use: Callable[[Val, Val | None, Val, Any], Any], carry: Any) -> Any:
        """`carry = use(position, whether it exists, mapped elements, carry)` for all of the thread's elements."""
        k, s, d = self.k, self.s, self.dk.d

        def one(at: Val, raw: Val, carry: Any) -> Any:
            position = self.first + at
            ok = None if self.exact or not held else at < self.count
            return use(position, ok, self.mapped(raw, position, self.channel, self.lanes), carry)

        if held:
            for i, raw in enumerate(held):
                carry = one(self.row + i * s.rows, raw, carry)
            return carry

        def body(i: Val, carry: Any) -> Any:
            at = self.row + i * s.rows
            raw = self.dk.load_raw(self.slot(at), d.operands[0].dtype, self.lanes, s.lanes * d.operands[0].type.bytes)
            return one(at, raw, carry)

        return k.for_unrolled(0, self.rows(), AHEAD, body, carry)

    def sums(self, held: list[Val], shift: Val) -> list[Val]:
        """Sums, and sums of squares, of the thread's channels."""
        k = self.k
        zero = k.const(0.0, self.type)
        if not held:
            k.cp_async_wait(0)

        def add(_: Val, ok: Val | None, value: Val, carry: list[Val]) -> list[Val]:
            x = value - shift
            if ok is not None:
                x = k.select(ok, x, zero)
            return [carry[0] + x, k.fma(x, x, carry[1])]

        return list(self.each(held, add, [zero, zero]))

    def statistics_of_groups(self) -> None:
        """Each group's sums in this block, by some warps, each of which leaves its part."""
        k, layout = self.k, self.layout
        own = self.shared + layout.own
        with k.for_(k.warp_id(), self.groups * layout.warps, self.threads // 32) as loop:
            group, part = loop.iv // layout.warps, loop.iv % layout.warps
            sums = self.group_sums(group, self.shared + layout.sums, part, layout.warps)
            with k.if_(k.lane_id().eq(0)):
                k.store(k.vector(sums), own.at(loop.iv * 2, "f32"), align=8)

    def combine_blocks(self, shifts: list[Val]) -> None:
        """Each group's mean and factor, from the parts of all blocks of the cluster: a warp a group, a lane a part."""
        k, s, layout = self.k, self.cluster, self.layout
        lane, parts = k.lane_id(), s.cluster * layout.warps
        safe = k.min(lane, parts - 1) if parts < 32 else lane
        rank, part = safe // layout.warps, safe % layout.warps
        for turn, shift in enumerate(shifts):
            group = k.warp_id() + turn * (self.threads // 32)
            with k.if_(True if (turn + 1) * (self.threads // 32) <= self.groups else group < self.groups):
                at = (self.shared + layout.own).at((group * layout.warps + part) * 2, "f32")
                x = k.load(k.cluster_address(at, rank) if s.cluster > 1 else at, self.pair, align=8)
                if parts < 32:
                    x = k.select(lane < parts, x, k.const(0.0, self.pair))
                s1, s2 = (k.warp_reduce(lambda x, y: x + y, y) for y in k.elements(x))
                with k.if_(lane.eq(0)):
                    both = (self.shared + layout.both).at(group * 2, "f32")
                    k.store(k.vector(self.moments(shift, s1, s2)), both, align=8)
        if s.cluster > 1:
            k.cluster_arrive()

    def finish(self, held: list[Val]) -> None:
        """Normalize the thread's elements and store the results."""
        k = self.k
        both = self.shared + self.layout.both
        mean, scale = self.by_group(lambda group: k.elements(k.load(both.at(group * 2, "f32"), self.pair, align=8)))

        def write(position: Val, ok: Val | None, value: Val, carry: list[Val]) -> list[Val]:
            with k.if_(True if ok is None else ok):
                self.store((value - mean) * scale, position)
            return carry

        self.each(held, write, [k.const(0, "i32")])
