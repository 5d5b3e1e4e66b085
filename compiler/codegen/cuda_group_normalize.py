"""Group normalization, channels last, on NVIDIA GPUs: x [outer..., positions..., groups, channels of a group].

A group's elements are short runs far apart, so that walking a group at a time wastes most of every memory access. Here a
block takes a chunk of positions with all their channels, each thread a fixed vector of channels: the first launch sums over
positions, then over the channels of each group, and leaves each chunk's mean and sum of squared deviations; the second
combines chunks (Chan, Golub and LeVeque 1983) and normalizes. Sums are of differences from the group's first element, so that
large means cancel little.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ingot import dims
from ingot.compiler.codegen.cuda_domain import PartedDomain, parted_domain
from ingot.compiler.codegen.cuda_kernel import DispatchKernel, dispatch_kernel, region_buffers, region_operands, symbol_of
from ingot.compiler.codegen.cuda_rows import inner_lanes
from ingot.compiler.codegen.kernel_builder import KernelModule
from ingot.compiler.codegen.values import Val
from ingot.cuda_targets import facts
from ingot.dims import Dim
from ingot.dispatch import Dispatch
from ingot.kernel_plan import BufferArg, KernelLaunch, KernelPlan
from ingot.target import Target

MAX_THREADS = 512
COMBINE = 8  # threads that combine the chunks of a group
UNROLL = 4


@dataclass(frozen=True)
class GroupSchedule:
    """`lanes` channels a thread, `rows` positions at a time, `chunk` positions a block."""

    lanes: int
    rows: int
    chunk: int


@dataclass(frozen=True)
class GroupProblem:
    """A normalization over positions and the channels of groups.

    Attributes:
        domain: parts (outer, positions, channels); channels are one axis.
        groups, per_group: channels are `groups` runs of `per_group`.
        kind: `layer` or `rms`.
    """

    domain: PartedDomain
    groups: int
    per_group: int
    kind: str

    @property
    def channels(self) -> int:
        return self.groups * self.per_group

    @property
    def outer(self) -> Dim:
        return dims.product(self.domain.shapes[0])

    @property
    def positions(self) -> Dim:
        return dims.product(self.domain.shapes[1])


def group_problem(dispatch: Dispatch) -> GroupProblem | None:
    """The problem behind a `normalize` dispatch, or None where it is not of this form."""
    x = dispatch.operands[0]
    axes = sorted(int(a) % x.rank for a in dispatch.attr("axes"))
    kind = str(dispatch.attr("kind"))
    kept = [i for i in range(x.rank) if i not in axes]
    if kind not in ("layer", "rms") or x.rank < 3 or not kept or len(axes) < 2 or len(dispatch.regions[-1].args) > 1:
        return None
    if axes[-1] != x.rank - 1 or kept[-1] != x.rank - 2 or any(a > kept[-1] for a in axes[:-1]):
        return None
    groups, per_group = x.shape[-2], x.shape[-1]
    if not isinstance(groups, int) or not isinstance(per_group, int):
        return None
    domain = parted_domain(dispatch, x.shape, (kept[:-1], axes[:-1], (x.rank - 2, x.rank - 1)))
    if len(domain.shapes[2]) != 1 or domain.dispatch.operands[0].strides[-1] != 1:
        return None
    return GroupProblem(domain, groups, per_group, kind)


def choose(p: GroupProblem, target: Target, typical: int = 1024) -> GroupSchedule | None:
    """Chunks so that every SM has some blocks; None where channels are too many for a block."""
    d = p.domain.dispatch
    lanes = inner_lanes(d, [d.operands[0], *d.results])
    vectors = p.channels // lanes
    if vectors > MAX_THREADS or p.groups * COMBINE > 32 * MAX_THREADS:
        return None
    rows = max(1, MAX_THREADS // vectors)
    outer = p.outer if isinstance(p.outer, int) else 1
    positions = p.positions if isinstance(p.positions, int) else typical
    wanted = math.ceil(3 * facts(target).sms / max(1, outer))
    chunks = max(1, min(wanted, positions // (2 * rows)))
    chunk = math.ceil(math.ceil(positions / chunks) / rows) * rows
    return GroupSchedule(lanes, min(rows, chunk), chunk)


def write_groups(module: KernelModule, dispatch: Dispatch, p: GroupProblem, s: GroupSchedule) -> KernelPlan:
    """Write both launches into `module`."""
    d = p.domain.dispatch
    threads = -(-(p.channels // s.lanes * s.rows) // 32) * 32
    threads = max(threads, 32 * math.ceil(min(p.groups * COMBINE, MAX_THREADS) / 32))
    chunks = dims.ceildiv(p.positions, s.chunk)
    grid: tuple[Dim, Dim, Dim] = (chunks, p.outer, 1)
    reads = tuple(BufferArg("operand", i) for i in region_operands(d.regions[:1]) if i != 0)
    shared = 8 * p.channels * s.rows
    traffic = dims.product(p.domain.domain) * d.operands[0].type.bytes
    first = KernelLaunch(
        symbol_of(dispatch, "_stats"), grid, (BufferArg("operand", 0), *reads, BufferArg("workspace")), (threads, 1, 1),
        shared_bytes=shared, bytes=traffic,
    )  # fmt: skip
    second = KernelLaunch(
        symbol_of(dispatch), grid, (BufferArg("operand", 0), *region_buffers(d, skip=[0]), BufferArg("workspace")),
        (threads, 1, 1), shared_bytes=8 * p.groups, bytes=2 * traffic,
    )  # fmt: skip
    for launch in (first, second):
        with dispatch_kernel(module, d, launch) as dk:
            kernel = GroupsKernel(dk, p, s, threads, p.groups)
            kernel.statistics() if launch is first else kernel.normalize()
    return KernelPlan((first, second), p.outer * p.groups * chunks * 8)


class GroupsKernel:
    """A kernel over a chunk of positions, and the channels of `groups` groups from `first_group` on, while it is written."""

    def __init__(
        self, dk: DispatchKernel, p: GroupProblem, s: GroupSchedule, threads: int, groups: int, first_group: Val | int = 0
    ) -> None:
        self.dk, self.k, self.p, self.s, self.threads = dk, dk.k, p, s, threads
        k = self.k
        self.thread = k.thread_id()
        self.vectors = groups * p.per_group // s.lanes
        self.row, vector = self.thread // self.vectors, self.thread % self.vectors
        self.base = first_group * p.per_group
        self.channel = vector * s.lanes + self.base
        self.works = self.row < s.rows
        self.chunk = k.block_id(0)
        self.outer = dk.split(k.block_id(1), p.domain.shapes[0])
        self.positions = dk.size(p.positions, "i32")
        self.chunks = dk.size(dims.ceildiv(p.positions, s.chunk), "i32")
        self.first = self.chunk * s.chunk
        self.last = k.min(self.first + s.chunk, self.positions)

    def place(self, at: Val, channel: Val) -> list[Val]:
        """The domain's position."""
        return [*self.outer, *self.dk.split(at, self.p.domain.shapes[1]), channel]

    def element(self, at: Val, channel: Val, lanes: int) -> Val:
        """Mapped elements."""
        place, domain = self.place(at, channel), self.p.domain.domain
        raw = self.dk.load(0, place, domain, lanes)
        (value,) = self.dk.region(self.dk.d.regions[0], [raw], place, domain, lanes)
        return value

    def workspace(self, group: Val, chunk: Val) -> Val:
        """Address of the mean and the sum of squared deviations of a group's chunk."""
        k = self.k
        at = k.cast(k.block_id(1), "i64") * self.p.groups + k.cast(group, "i64")
        at = at * k.cast(self.chunks, "i64") + k.cast(chunk, "i64")
        return self.dk.pointer("workspace").at(at * 2, "f32")

    def shifts(self) -> Val:
        """What the thread's channels are summed as differences from: the first element of each one's group in this chunk."""
        k, s = self.k, self.s
        if self.p.kind == "rms":
            return k.const(0.0, k.vector_of("f32", s.lanes) if s.lanes > 1 else "f32")
        values = []
        for i in range(s.lanes):
            group = (self.channel + i) // self.p.per_group
            values.append(self.element(self.first, group * self.p.per_group, 0))
        return k.vector(values) if s.lanes > 1 else values[0]

    def statistics(self) -> None:
        k, s, p = self.k, self.s, self.p
        lanes = s.lanes if s.lanes > 1 else 0
        shared = k.dynamic_shared(16)
        t = k.vector_of("f32", s.lanes) if lanes else k.type("f32")
        zero = k.const(0.0, t)
        with k.if_(self.works):
            shift = self.shifts()

            def body(i: Val, carry: list[Val]) -> list[Val]:
                x = self.element(self.first + self.row + i * s.rows, self.channel, lanes) - shift
                return [carry[0] + x, k.fma(x, x, carry[1])]

            count = (k.max(self.last - self.first - self.row, 0) + (s.rows - 1)) // s.rows
            sums = k.for_unrolled(0, count, UNROLL, body, [zero, zero])
            for i, x in enumerate(sums):
                at = (self.row * 2 + i) * p.channels + self.channel
                k.store(x, shared.at(at, "f32"), align=min(16, 4 * s.lanes))
        k.barrier()
        # A warp a group: its lanes add channels and rows, in a fixed order.
        lane = k.lane_id()
        n = k.cast((self.last - self.first) * p.per_group, "f32")
        with k.for_(k.warp_id(), p.groups, self.threads // 32) as groups:
            start = [k.const(0.0, "f32")] * 2
            with k.for_(lane, p.per_group * s.rows, 32, carry=start) as loop:
                row, channel = loop.iv // p.per_group, loop.iv % p.per_group
                at = row * (2 * p.channels) + groups.iv * p.per_group + channel
                parts = [k.load(shared.at(at + i * p.channels, "f32"), "f32") for i in range(2)]
                loop.yield_([x + y for x, y in zip(loop.carry, parts, strict=True)])
            s1, s2 = (k.warp_reduce(lambda x, y: x + y, x) for x in loop.results)
            with k.if_(lane.eq(0)):
                out = self.workspace(groups.iv, self.chunk)
                if p.kind == "rms":
                    k.store(k.const(0.0, "f32"), out)
                    k.store(s2, out.at(1, "f32"))
                else:
                    difference = s1 / n
                    k.store(self.element(self.first, groups.iv * p.per_group, 0) + difference, out)
                    k.store(k.max(s2 - s1 * difference, 0.0), out.at(1, "f32"))

    def normalize(self) -> None:
        k, s, p = self.k, self.s, self.p
        lanes = s.lanes if s.lanes > 1 else 0
        shared = k.dynamic_shared(16)
        self.combine(shared)
        k.barrier()
        with k.if_(self.works):
            means, scales = [], []
            for i in range(s.lanes):
                group = (self.channel + i) // p.per_group
                means.append(k.load(shared.at(group * 2, "f32"), "f32"))
                scales.append(k.load(shared.at(group * 2 + 1, "f32"), "f32"))
            mean = k.vector(means) if lanes else means[0]
            scale = k.vector(scales) if lanes else scales[0]
            domain = p.domain.domain

            def body(i: Val, carry: list[Val]) -> list[Val]:
                at = self.first + self.row + i * s.rows
                y = (self.element(at, self.channel, lanes) - mean) * scale
                place = self.place(at, self.channel)
                for r, x in enumerate(self.dk.region(self.dk.d.regions[-1], [y], place, domain, lanes)):
                    self.dk.store(r, x, place, lanes)
                return carry

            count = (k.max(self.last - self.first - self.row, 0) + (s.rows - 1)) // s.rows
            k.for_unrolled(0, count, UNROLL, body, [k.const(0, "i32")])

    def combine(self, shared: Val) -> None:
        """Each group's mean and factor into shared memory: eight neighbouring threads take turns along its chunks."""
        k, s, p = self.k, self.s, self.p
        epsilon = float(self.dk.d.attr("epsilon", 0.0))
        part, per_pass = self.thread % COMBINE, self.threads // COMBINE
        zero = k.const(0.0, "f32")
        total = self.dk.size(p.positions, "i32") * p.per_group
        for first in range(0, p.groups, per_pass):
            group = self.thread // COMBINE + first
            safe = k.min(group, p.groups - 1)
            with k.for_(part, self.chunks, COMBINE, carry=[zero, zero, zero]) as loop:
                at = self.workspace(safe, loop.iv)
                size = k.cast(k.min(self.positions - loop.iv * s.chunk, s.chunk) * p.per_group, "f32")
                new = [size, k.load(at, "f32"), k.load(at.at(1, "f32"), "f32")]
                loop.yield_(self.merged(list(loop.carry), new))
            have = list(loop.results)
            step = COMBINE // 2
            while step:
                have = self.merged(have, [k.shfl_xor(x, step) for x in have])
                step //= 2
            with k.if_(part.eq(0) & (group < p.groups)):
                k.store(have[1], shared.at(group * 2, "f32"))
                k.store(1.0 / k.sqrt(have[2] / k.cast(total, "f32") + epsilon), shared.at(group * 2 + 1, "f32"))

    def merged(self, a: list[Val], b: list[Val]) -> list[Val]:
        """(count, mean, sum of squared deviations) of two sets."""
        k = self.k
        n = a[0] + b[0]
        if self.p.kind == "rms":
            return [n, a[1], a[2] + b[2]]
        share = k.select(n.eq(0.0), 0.0, b[0] / n)
        delta = b[1] - a[1]
        return [n, k.fma(delta, share, a[1]), a[2] + b[2] + delta * delta * (a[0] * share)]
