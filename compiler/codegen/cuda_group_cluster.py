"""Group normalization with one read: some groups of all positions of an image lie in the shared memory of a cluster of blocks.

A block copies its share of the positions, with the channels of its groups, by cp.async; sums them, as the two launches of
cuda_group_normalize.py do, and leaves each group's mean and sum of squared deviations in shared memory. Every block combines
those of its cluster (Chan, Golub and LeVeque 1983) by reading the others' shared memory, and normalizes its share from its own.
A cluster of one block needs no sm_90.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ingot import dims
from ingot.compiler.codegen.cuda_group_normalize import MAX_THREADS, UNROLL, GroupProblem, GroupSchedule, GroupsKernel
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


@dataclass(frozen=True)
class ClusterSchedule:
    """`groups` groups a cluster of `cluster` blocks; in a block, `lanes` channels a thread and `rows` positions at a time."""

    groups: int
    cluster: int
    lanes: int
    rows: int


@dataclass(frozen=True)
class _Layout:
    """Where things lie in shared memory, in bytes, and what follows from a schedule.

    Attributes:
        chunk: positions of a block; the last block of a cluster may have fewer.
        vectors: vectors of a position.
        spans: groups that a vector may meet.
        sums: offset of the threads' sums; elements lie at 0.
        own: offset of the groups' statistics of this block.
        both: offset of the groups' means and factors.
    """

    chunk: int
    vectors: int
    spans: int
    sums: int
    own: int
    both: int
    end: int


def _layout(p: GroupProblem, s: ClusterSchedule) -> _Layout:
    positions, channels = p.positions, s.groups * p.per_group
    assert isinstance(positions, int)
    chunk, vectors = -(-positions // s.cluster), channels // s.lanes
    spans = 1 if p.per_group % s.lanes == 0 else (s.lanes - 2) // p.per_group + 2
    sums = -(-chunk * channels * p.domain.dispatch.operands[0].type.bytes // 16) * 16
    own = sums + 8 * s.rows * vectors * spans
    both = own + 8 * s.groups
    return _Layout(chunk, vectors, spans, sums, own, both, both + 8 * s.groups)


def _schedules(p: GroupProblem, target: Target) -> Iterator[ClusterSchedule]:
    d = p.domain.dispatch
    size = d.operands[0].type.bytes
    widest = inner_lanes(d, [d.operands[0], *d.results])
    for groups in (g for g in range(1, p.groups + 1) if p.groups % g == 0):
        channels = groups * p.per_group
        lanes = math.gcd(widest, channels)
        vectors = channels // lanes
        if lanes * size not in _COPIES or vectors > MAX_THREADS or (channels * size < _SEGMENT and groups < p.groups):
            continue
        for cluster in (c for c in (1, 2, 4, 8) if c <= target.max_cluster):
            chunk = dims.ceildiv(p.positions, cluster)
            assert isinstance(chunk, int)
            assert isinstance(p.positions, int)
            s = ClusterSchedule(groups, cluster, lanes, min(MAX_THREADS // vectors, chunk))
            if cluster > 1 and chunk * channels * size < _LEAST:
                continue
            if chunk * (cluster - 1) < p.positions and _layout(p, s).end <= target.shared_bytes:
                yield s


def choose(p: GroupProblem, target: Target) -> ClusterSchedule | None:
    """The smallest blocks that together keep every SM busy: few groups a cluster, and clusters as large as that takes.

    None where sizes are not constant, where a cluster cannot hold a group, or where blocks come in several waves: one that
    copies, and waits for its cluster, has nothing to do meanwhile, and two launches are faster (by 1.4 times over 16 images of
    9216 positions and 320 channels on an H200, by 10 over 2 of 960 channels).
    """
    if not target.cp_async or not isinstance(p.positions, int) or not isinstance(p.outer, int) or not p.positions:
        return None
    sms, outer = facts(target).sms, p.outer

    def blocks(s: ClusterSchedule) -> int:
        return outer * (p.groups // s.groups) * s.cluster

    def resident(s: ClusterSchedule) -> int:
        """Blocks that the chip holds at once."""
        return sms * min(target.shared_bytes // _layout(p, s).end, target.max_threads // MAX_THREADS)

    def badness(s: ClusterSchedule) -> tuple[int, int, int]:
        return -min(blocks(s), 2 * sms), s.cluster, s.groups

    return min((s for s in _schedules(p, target) if blocks(s) <= resident(s)), key=badness, default=None)


def write_cluster(module: KernelModule, dispatch: Dispatch, p: GroupProblem, s: ClusterSchedule) -> KernelPlan:
    """Write the launch into `module`."""
    d = p.domain.dispatch
    layout = _layout(p, s)
    threads = -(-(layout.vectors * s.rows) // 32) * 32
    traffic = dims.product(p.domain.domain) * (d.operands[0].type.bytes + sum(r.type.bytes for r in d.results))
    launch = KernelLaunch(
        symbol_of(dispatch), (s.cluster, p.outer, p.groups // s.groups),
        (BufferArg("operand", 0), *region_buffers(d, skip=[0])), (threads, 1, 1), (s.cluster, 1, 1),
        shared_bytes=layout.end, bytes=traffic,
    )  # fmt: skip
    with dispatch_kernel(module, d, launch) as dk:
        _Cluster(dk, p, s, layout, threads).emit()
    return KernelPlan((launch,))


class _Cluster(GroupsKernel):
    """The kernel while it is written. Groups are numbered within the block's."""

    def __init__(self, dk: DispatchKernel, p: GroupProblem, s: ClusterSchedule, layout: _Layout, threads: int) -> None:
        super().__init__(dk, p, GroupSchedule(s.lanes, s.rows, layout.chunk), threads, s.groups, dk.k.block_id(2) * s.groups)
        self.cluster, self.layout, self.groups = s, layout, s.groups
        self.shared = self.k.dynamic_shared(16)
        self.lanes = s.lanes if s.lanes > 1 else 0
        self.local = self.channel - self.base  # of the block's channels

    def emit(self) -> None:
        k, s = self.k, self.cluster
        self.copy()
        k.barrier()
        with k.if_(self.works):
            self.sum()
        k.barrier()
        self.statistics_of_groups()
        if s.cluster > 1:
            k.cluster_sync()  # every block's statistics are there
        else:
            k.barrier()
        self.combine_blocks()
        k.barrier()
        with k.if_(self.works):
            self.finish()
        if s.cluster > 1:
            k.cluster_wait()  # a block's shared memory must be there until all have read it

    def slot(self, at: Val, channel: Val) -> Val:
        """Where the element of a position of the block's, and of one of its channels, lies in shared memory."""
        t = self.dk.d.operands[0].dtype
        return self.shared.at(at * (self.groups * self.p.per_group) + channel, memory_type(t))

    def rows(self) -> Val:
        """Positions of this thread."""
        k, s = self.k, self.s
        return (k.max(self.last - self.first - self.row, 0) + (s.rows - 1)) // s.rows

    def copy(self) -> None:
        k, d = self.k, self.dk.d
        nbytes = self.s.lanes * d.operands[0].type.bytes
        with k.if_(self.works), k.for_(0, self.rows()) as loop:
            at = self.row + loop.iv * self.s.rows
            source = self.dk.address("operand", 0, self.place(self.first + at, self.channel), self.p.domain.domain)
            k.cp_async(self.slot(at, self.local), source, nbytes)
        k.cp_async_commit()
        k.cp_async_wait(0)

    def element_at(self, at: Val, local: Val, lanes: int) -> Val:
        """Mapped elements of a position and channels of the block's."""
        d = self.dk.d
        raw = self.dk.load_raw(self.slot(at, local), d.operands[0].dtype, lanes, max(1, lanes) * d.operands[0].type.bytes)
        place = self.place(self.first + at, self.base + local)
        (value,) = self.dk.region(d.regions[0], [raw], place, self.p.domain.domain, lanes)
        return value

    def shift(self, group: Val) -> Val:
        """What a group's elements are summed as differences from: its first one in this block."""
        return self.element_at(self.k.const(0, "i32"), group * self.p.per_group, 0)

    def sum(self) -> None:
        """Sums, and sums of squares, of the thread's channels of each group, into shared memory."""
        k, s, p = self.k, self.s, self.p
        t = k.vector_of("f32", s.lanes) if self.lanes else k.type("f32")
        zero = k.const(0.0, t)
        shift = zero
        if p.kind != "rms":
            values = [self.shift((self.local + i) // p.per_group) for i in range(s.lanes)]
            shift = k.vector(values) if self.lanes else values[0]

        def body(i: Val, carry: list[Val]) -> list[Val]:
            x = self.element_at(self.row + i * s.rows, self.local, self.lanes) - shift
            return [carry[0] + x, k.fma(x, x, carry[1])]

        sums = k.for_unrolled(0, self.rows(), UNROLL, body, [zero, zero])
        group = self.local // p.per_group
        for span in range(self.layout.spans):
            at = ((self.row * self.vectors + self.local // s.lanes) * self.layout.spans + span) * 2
            for number, x in enumerate(sums):
                parts = k.elements(x) if self.lanes else [x]
                if self.layout.spans > 1:
                    parts = [
                        k.select(((self.local + i) // p.per_group - group).eq(span), y, 0.0) for i, y in enumerate(parts)
                    ]
                total = parts[0]
                for y in parts[1:]:
                    total = total + y
                k.store(total, (self.shared + self.layout.sums).at(at + number, "f32"))

    def statistics_of_groups(self) -> None:
        """Each group's mean and sum of squared deviations in this block: a warp a group, in a fixed order."""
        k, s, p, layout = self.k, self.s, self.p, self.layout
        lane = k.lane_id()
        n = k.cast((self.last - self.first) * p.per_group, "f32")
        # Vectors that a group may meet, from the one that holds its first channel on.
        met = p.per_group // s.lanes if layout.spans == 1 else (p.per_group - 2) // s.lanes + 2
        with k.for_(k.warp_id(), self.groups, self.threads // 32) as groups:
            start = [k.const(0.0, "f32")] * 2
            first = groups.iv * p.per_group // s.lanes
            with k.for_(lane, met * s.rows, 32, carry=start) as loop:
                row, vector = loop.iv // met, first + loop.iv % met
                safe = k.min(vector, layout.vectors - 1)
                span = groups.iv - safe * s.lanes // p.per_group
                inside = (vector < layout.vectors) & (span >= 0) & (span < layout.spans)
                span = k.max(k.min(span, layout.spans - 1), 0)
                at = ((row * layout.vectors + safe) * layout.spans + span) * 2
                parts = [k.load((self.shared + layout.sums).at(at + i, "f32"), "f32") for i in range(2)]
                loop.yield_([x + k.select(inside, y, 0.0) for x, y in zip(loop.carry, parts, strict=True)])
            s1, s2 = (k.warp_reduce(lambda x, y: x + y, x) for x in loop.results)
            with k.if_(lane.eq(0)):
                mean, squares = k.const(0.0, "f32"), s2
                if p.kind != "rms":
                    difference = s1 / n
                    mean, squares = self.shift(groups.iv) + difference, k.max(s2 - s1 * difference, 0.0)
                k.store(mean, (self.shared + layout.own).at(groups.iv * 2, "f32"))
                k.store(squares, (self.shared + layout.own).at(groups.iv * 2 + 1, "f32"))

    def combine_blocks(self) -> None:
        """Each group's mean and factor, of all blocks of the cluster: a thread a group."""
        k, p, s, layout = self.k, self.p, self.cluster, self.layout
        positions = p.positions
        assert isinstance(positions, int)
        epsilon = float(self.dk.d.attr("epsilon", 0.0))
        with k.for_(self.thread, self.groups, self.threads) as loop:
            have: list[Val] = []
            for rank in range(s.cluster):
                own = (self.shared + layout.own).at(loop.iv * 2, "f32")
                at = k.cluster_address(own, rank) if s.cluster > 1 else own
                count = (min((rank + 1) * layout.chunk, positions) - rank * layout.chunk) * p.per_group
                new = [k.const(float(count), "f32"), k.load(at, "f32"), k.load(at.at(1, "f32"), "f32")]
                have = self.merged(have, new) if have else new
            both = (self.shared + layout.both).at(loop.iv * 2, "f32")
            k.store(have[1], both)
            k.store(1.0 / k.sqrt(have[2] / float(positions * p.per_group) + epsilon), both.at(1, "f32"))
        if s.cluster > 1:
            k.cluster_arrive()

    def finish(self) -> None:
        """Normalize the block's elements and store the results."""
        k, s, p = self.k, self.s, self.p
        both = self.shared + self.layout.both
        parts: list[list[Val]] = [[], []]
        for i in range(s.lanes):
            group = (self.local + i) // p.per_group
            for number, part in enumerate(parts):
                part.append(k.load(both.at(group * 2 + number, "f32"), "f32"))
        mean, scale = (k.vector(x) if self.lanes else x[0] for x in parts)

        def body(i: Val, carry: list[Val]) -> list[Val]:
            at = self.row + i * s.rows
            y = (self.element_at(at, self.local, self.lanes) - mean) * scale
            place = self.place(self.first + at, self.channel)
            for r, x in enumerate(self.dk.region(self.dk.d.regions[-1], [y], place, p.domain.domain, self.lanes)):
                self.dk.store(r, x, place, self.lanes)
            return carry

        k.for_unrolled(0, self.rows(), UNROLL, body, [k.const(0, "i32")])
