"""Group normalization, channels last, on NVIDIA GPUs: x [outer..., positions..., groups, channels of a group].

A group's elements are short runs far apart, so that walking a group at a time wastes most of every memory access. Here a
block takes a chunk of positions with all their channels, each thread a fixed vector of channels: the first launch sums over
positions, then over the channels of each group; the second adds the chunks' sums in their order and normalizes, last positions
first, which the second-level cache still has. Sums are of differences from one value for each group, the median of three of its
elements, so that large means cancel little and an outlier does no harm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ingot import dims
from ingot.compiler.codegen.cuda_domain import PartedDomain, parted_domain
from ingot.compiler.codegen.cuda_kernel import DispatchKernel, dispatch_kernel, region_buffers, region_operands, symbol_of
from ingot.compiler.codegen.cuda_rows import fold, inner_lanes
from ingot.compiler.codegen.kernel_builder import KernelModule
from ingot.compiler.codegen.values import Val
from ingot.cuda_targets import facts
from ingot.dims import Dim
from ingot.dispatch import Dispatch
from ingot.kernel_plan import BufferArg, KernelLaunch, KernelPlan
from ingot.target import Target

MAX_THREADS = 512
BLOCKS = 2  # on an SM
AHEAD = 4  # vectors that a thread reads before it uses the first
# Instructions of an SM's special function units in scalar operations. An SM does 16 of these a cycle, and 128 multiply-adds,
# but for the first ones 64 (CUDA programming guide, "Arithmetic Instructions").
_SPECIAL = {"exp": 1, "log": 1, "sigmoid": 2, "tanh": 2, "erf": 1, "sqrt": 1, "rsqrt": 1, "divf": 1, "pow": 2}
_HALF_SMS = (75, 80)


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
    first = dispatch.regions[0]
    if not isinstance(groups, int) or not isinstance(per_group, int) or first.type_of(first.results[0]) != "f32":
        return None
    domain = parted_domain(dispatch, x.shape, (kept[:-1], axes[:-1], (x.rank - 2, x.rank - 1)))
    if len(domain.shapes[2]) != 1 or domain.dispatch.operands[0].strides[-1] != 1:
        return None
    return GroupProblem(domain, groups, per_group, kind)


def spans_of(p: GroupProblem, lanes: int) -> int:
    """Groups that a vector of channels may meet."""
    return 1 if p.per_group % lanes == 0 else (lanes - 2) // p.per_group + 2


def schedules(p: GroupProblem, target: Target, typical: int = 1024) -> Iterator[GroupSchedule]:
    """Chunks so that as many blocks as run at once share all positions, or twice or half as many; the schedule to take first.

    None where channels are too many for a block.
    """
    d = p.domain.dispatch
    lanes = inner_lanes(d, [d.operands[0], *d.results])
    vectors = p.channels // lanes
    if vectors > MAX_THREADS:
        return
    rows = max(1, MAX_THREADS // vectors)
    outer = max(1, p.outer) if isinstance(p.outer, int) else 1
    positions = p.positions if isinstance(p.positions, int) else typical
    found: dict[GroupSchedule, None] = {}
    for blocks in (BLOCKS, 2 * BLOCKS, BLOCKS // 2):
        wanted = max(1, blocks * facts(target).sms // outer)
        chunks = max(1, min(wanted, positions // (2 * rows)))
        chunk = math.ceil(math.ceil(positions / chunks) / rows) * rows
        found[GroupSchedule(lanes, min(rows, chunk), chunk)] = None
    yield from found


def seconds(p: GroupProblem, target: Target) -> float:
    """An estimate of both launches, which read twice and write once: numbers of an H200."""
    outer = p.outer if isinstance(p.outer, int) else 1
    positions = p.positions if isinstance(p.positions, int) else 1024
    d = p.domain.dispatch
    f = facts(target)
    size, written = d.operands[0].type.bytes, sum(r.type.bytes for r in d.results)
    sums, finish = (outer * positions * p.channels * n / (0.85 * f.bandwidth) for n in (size, size + written))
    return 3e-6 + sums + max(finish, finish_seconds(p, f.sms, target))


def finish_seconds(p: GroupProblem, sms: int, target: Target) -> float:
    """An estimate of the special functions of the last region (a sigmoid) on `sms` SMs, which bound what else they compute."""
    special = sum(_SPECIAL.get(inst.op, 0) for inst in p.domain.dispatch.regions[-1].insts)
    outer = p.outer if isinstance(p.outer, int) else 1
    positions = p.positions if isinstance(p.positions, int) else 1024
    f = facts(target)
    clock = f.f32_tflops * 1e12 / (f.sms * (128 if target.sm in _HALF_SMS else 256))
    return outer * positions * p.channels * special / (16 * sms * clock)


def write_groups(module: KernelModule, dispatch: Dispatch, p: GroupProblem, s: GroupSchedule) -> KernelPlan:
    """Write both launches into `module`."""
    d = p.domain.dispatch
    vectors = p.channels // s.lanes
    threads = -(-(vectors * s.rows) // 32) * 32
    chunks = dims.ceildiv(p.positions, s.chunk)
    grid: tuple[Dim, Dim, Dim] = (chunks, p.outer, 1)
    reads = tuple(BufferArg("operand", i) for i in region_operands(d.regions[:1]) if i != 0)
    traffic = dims.product(p.domain.domain) * d.operands[0].type.bytes
    first = KernelLaunch(
        symbol_of(dispatch, "_stats"), grid, (BufferArg("operand", 0), *reads, BufferArg("workspace")), (threads, 1, 1),
        shared_bytes=8 * s.rows * vectors * spans_of(p, s.lanes), bytes=traffic,
    )  # fmt: skip
    second = KernelLaunch(
        symbol_of(dispatch), grid, (BufferArg("operand", 0), *region_buffers(d, skip=[0]), BufferArg("workspace")),
        (threads, 1, 1), shared_bytes=8 * (p.groups + max(threads, p.groups)), bytes=2 * traffic,
    )  # fmt: skip
    for launch in (first, second):
        with dispatch_kernel(module, d, launch, min_blocks=BLOCKS) as dk:
            kernel = GroupsKernel(dk, p, s, threads, p.groups, last_first=launch is second)
            kernel.statistics() if launch is first else kernel.normalize()
    return KernelPlan((first, second), p.outer * p.groups * chunks * 8)


class GroupsKernel:
    """A kernel over a chunk of positions, and the channels of `groups` groups from `first_group` on, while it is written.

    `last_first`: chunks, and positions of a chunk, are taken in the reverse order.
    """

    def __init__(
        self, dk: DispatchKernel, p: GroupProblem, s: GroupSchedule, threads: int, groups: int, first_group: Val | int = 0,
        last_first: bool = False,
    ) -> None:
        self.dk, self.k, self.p, self.s, self.threads = dk, dk.k, p, s, threads
        k = self.k
        self.groups, self.last_first = groups, last_first
        self.lanes = s.lanes if s.lanes > 1 else 0
        self.type = k.vector_of("f32", s.lanes) if self.lanes else k.type("f32")
        self.spans = spans_of(p, s.lanes)
        self.thread = k.thread_id()
        self.vectors = groups * p.per_group // s.lanes
        self.row, self.vector = self.thread // self.vectors, self.thread % self.vectors
        self.base = first_group * p.per_group
        self.local = self.vector * s.lanes  # of the block's channels
        self.channel = self.local + self.base
        self.works = self.row < s.rows
        self.positions = dk.size(p.positions, "i32")
        self.chunks = dk.size(dims.ceildiv(p.positions, s.chunk), "i32")
        self.chunk, self.image = k.block_id(0), k.block_id(1)
        if last_first:
            self.chunk = self.chunks - 1 - self.chunk
            self.image = dk.size(p.outer, "i32") - 1 - self.image
        self.outer = dk.split(self.image, p.domain.shapes[0])
        self.first = self.chunk * s.chunk
        self.last = k.min(self.first + s.chunk, self.positions)

    def place(self, at: Val, channel: Val) -> list[Val]:
        """The domain's position."""
        return [*self.outer, *self.dk.split(at, self.p.domain.shapes[1]), channel]

    def raw(self, at: Val, channel: Val, lanes: int) -> Val:
        """Elements as they are in memory."""
        return self.dk.load(0, self.place(at, channel), self.p.domain.domain, lanes)

    def mapped(self, raw: Val, at: Val, channel: Val, lanes: int) -> Val:
        """The elements that are normalized."""
        place = self.place(at, channel)
        return self.dk.region(self.dk.d.regions[0], [raw], place, self.p.domain.domain, lanes)[0]

    def store(self, x: Val, at: Val) -> None:
        """Run the last region on normalized elements of the thread's channels, and store the results."""
        place = self.place(at, self.channel)
        for r, y in enumerate(self.dk.region(self.dk.d.regions[-1], [x], place, self.p.domain.domain, self.lanes)):
            self.dk.store(r, y, place, self.lanes)

    def by_group(self, values: Callable[[Val], Sequence[Val]]) -> list[Val]:
        """Values that `values` gives for a group of the block, for each of the thread's channels."""
        k, p = self.k, self.p
        start = self.local // p.per_group
        found = [values(k.min(start + i, self.groups - 1) if i else start) for i in range(self.spans)]
        out = []
        for column in zip(*found, strict=True):
            lanes = []
            for i in range(self.s.lanes):
                x = column[0]
                for span in range(1, self.spans):
                    x = k.select(((self.local + i) // p.per_group).eq(start + span), column[span], x)
                lanes.append(x)
            out.append(k.vector(lanes) if self.lanes else lanes[0])
        return out

    # --- sums

    def shift(self, group: Val) -> Val:
        """What elements of a group of the block are summed as differences from."""
        k, p = self.k, self.p
        if p.kind == "rms":
            return k.const(0.0, "f32")
        start = self.base + group * p.per_group
        places = (
            (k.const(0, "i32"), start),
            (self.positions >> 1, start + p.per_group // 2),
            (self.positions - 1, start + (p.per_group - 1)),
        )
        raw = [self.raw(at, channel, 0) for at, channel in places]
        a, b, c = (self.mapped(x, at, channel, 0) for x, (at, channel) in zip(raw, places, strict=True))
        return k.maximum(k.minimum(a, b), k.minimum(k.maximum(a, b), c))

    def leave(self, sums: Sequence[Val], shared: Val) -> None:
        """Store a thread's sums and sums of squares, those of each group apart: [row, vector, span, 2]."""
        k, s = self.k, self.s
        first = self.local // self.p.per_group
        for span in range(self.spans):
            totals = []
            for x in sums:
                parts = k.elements(x) if self.lanes else [x]
                if self.spans > 1:
                    parts = [
                        k.select(((self.local + i) // self.p.per_group - first).eq(span), y, 0.0)
                        for i, y in enumerate(parts)
                    ]
                totals.append(fold(k, k.vector(parts), lambda x, y: x + y) if s.lanes > 1 else parts[0])
            at = ((self.row * self.vectors + self.vector) * self.spans + span) * 2
            k.store(k.vector(totals), shared.at(at, "f32"), align=8)

    def group_sums(self, group: Val, shared: Val, part: Val | int = 0, parts: int = 1) -> list[Val]:
        """The two sums of a group of the block, or one of `parts` parts of them, added by a warp in a fixed order."""
        k, s, p = self.k, self.s, self.p
        pair = k.vector_of("f32", 2)
        # Vectors that a group may meet, from the one that holds its first channel on.
        met = p.per_group // s.lanes if self.spans == 1 else (p.per_group - 2) // s.lanes + 2
        first = group * p.per_group // s.lanes

        def body(i: Val, total: Val) -> Val:
            row, vector = i // met, first + i % met
            safe = k.min(vector, self.vectors - 1)
            span = group - safe * s.lanes // p.per_group
            inside = (vector < self.vectors) & (span >= 0) & (span < self.spans)
            span = k.max(k.min(span, self.spans - 1), 0)
            x = k.load(shared.at(((row * self.vectors + safe) * self.spans + span) * 2, "f32"), pair, align=8)
            return total + k.select(inside, x, k.const(0.0, pair))

        count = met * s.rows
        start = k.lane_id() + part * 32
        rounds = k.max(count - start + (32 * parts - 1), 0) // (32 * parts)
        total = k.for_unrolled(0, rounds, AHEAD, lambda i, x: body(start + i * (32 * parts), x), k.const(0.0, pair))
        return [k.warp_reduce(lambda x, y: x + y, x) for x in k.elements(total)]

    def moments(self, shift: Val, s1: Val, s2: Val) -> tuple[Val, Val]:
        """A group's mean, and the factor that normalizes, from its sums over all positions."""
        k = self.k
        n = k.cast(self.positions * self.p.per_group, "f32")
        epsilon = float(self.dk.d.attr("epsilon", 0.0))
        if self.p.kind == "rms":
            return k.const(0.0, "f32"), 1.0 / k.sqrt(s2 / n + epsilon)
        difference = s1 / n
        return shift + difference, 1.0 / k.sqrt(k.maximum(s2 / n - difference * difference, 0.0) + epsilon)

    # --- the two launches

    def rows(self) -> Val:
        """Positions of this thread."""
        return (self.k.max(self.last - self.first - self.row, 0) + (self.s.rows - 1)) // self.s.rows

    def some(self, number: Val) -> list[tuple[Val, Val, Val]]:
        """The thread's next few elements, all of which are read before one is used: (position, whether there is one, value)."""
        k, s = self.k, self.s
        start, rows = self.first + self.row, self.rows()
        places = []
        for i in range(AHEAD):
            if self.last_first:
                turn = rows - 1 - (number + i)
                places.append((start + k.max(turn, 0) * s.rows, turn >= 0))
            else:
                at = start + (number + i) * s.rows
                places.append((k.min(at, self.last - 1), at < self.last))
        raw = [self.raw(at, self.channel, self.lanes) for at, _ in places]
        return [(at, ok, self.mapped(x, at, self.channel, self.lanes)) for x, (at, ok) in zip(raw, places, strict=True)]

    def statistics(self) -> None:
        k, p = self.k, self.p
        shared = k.dynamic_shared(16)
        zero = k.const(0.0, self.type)
        with k.if_(self.works):
            (shift,) = self.by_group(lambda group: [self.shift(group)])
            with k.for_(0, self.rows(), AHEAD, carry=[zero, zero]) as loop:
                s1, s2 = loop.carry
                for _, ok, value in self.some(loop.iv):
                    x = k.select(ok, value - shift, zero)
                    s1, s2 = s1 + x, k.fma(x, x, s2)
                loop.yield_([s1, s2])
            self.leave(list(loop.results), shared)
        k.barrier()
        with k.for_(k.warp_id(), p.groups, self.threads // 32) as groups:
            sums = self.group_sums(groups.iv, shared)
            with k.if_(k.lane_id().eq(0)):
                k.store(k.vector(sums), self.workspace(self.chunk, groups.iv), align=8)

    def workspace(self, chunk: Val, group: Val) -> Val:
        """Address of the sums of a group's chunk."""
        k = self.k
        at = (k.cast(self.image, "i64") * k.cast(self.chunks, "i64") + k.cast(chunk, "i64")) * self.p.groups
        return self.dk.pointer("workspace").at((at + k.cast(group, "i64")) * 2, "f32")

    def normalize(self) -> None:
        k = self.k
        shared = k.dynamic_shared(16)
        self.combine(shared)
        pair = k.vector_of("f32", 2)
        with k.if_(self.works):
            mean, scale = self.by_group(lambda group: k.elements(k.load(shared.at(group * 2, "f32"), pair, align=8)))
            with k.for_(0, self.rows(), AHEAD) as loop:
                for at, ok, value in self.some(loop.iv):
                    with k.if_(ok):
                        self.store((value - mean) * scale, at)

    def combine(self, shared: Val) -> None:
        """Each group's mean and factor into shared memory: threads take turns along chunks, neighbours are groups."""
        k, p = self.k, self.p
        pair = k.vector_of("f32", 2)
        zero = k.const(0.0, pair)
        parts = max(1, self.threads // p.groups)
        partial = shared.at(2 * p.groups, "f32")

        def turns(count: int) -> Iterator[Val]:
            """Numbers below `count` that are this thread's."""
            for first in range(0, count, self.threads):
                with k.if_(True if first + self.threads <= count else self.thread + first < count):
                    yield self.thread + first

        # Shifts come while sums do.
        last = p.groups - 1
        shifts = [self.shift(k.min(self.thread + first, last)) for first in range(0, p.groups, self.threads)]
        for at in turns(p.groups * parts):
            group, part = at % p.groups, at // p.groups
            count = (self.chunks - part + (parts - 1)) // parts

            def body(i: Val, total: Val, group: Val = group, part: Val = part) -> Val:
                return total + k.load(self.workspace(part + i * parts, group), pair, align=8)

            k.store(k.for_unrolled(0, count, 2 * AHEAD, body, zero), partial.at(at * 2, "f32"), align=8)
        k.barrier()
        for at, shift in zip(turns(p.groups), shifts, strict=True):
            total = zero
            for number in range(parts):
                total = total + k.load(partial.at((at + number * p.groups) * 2, "f32"), pair, align=8)
            k.store(k.vector(self.moments(shift, *k.elements(total))), shared.at(at * 2, "f32"), align=8)
        k.barrier()
