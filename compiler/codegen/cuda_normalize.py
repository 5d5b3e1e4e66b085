"""Normalizations and softmax on NVIDIA GPUs: one read and one write where a row fits into a block's registers.

Short rows take a warp each, longer ones a block. Rows that are too long, or whose length is not constant, are cut into chunks:
a first launch finds each chunk's statistics (softmax: maximum and sum; layer: mean and sum of squared deviations; rms: sum of
squares), a second combines them (Chan, Golub and LeVeque 1983, for variances) and writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ingot import dims
from ingot.compiler.codegen.cuda_domain import PartedDomain, row_domain
from ingot.compiler.codegen.cuda_group_cluster import WIDE, ClusterSchedule, write_cluster
from ingot.compiler.codegen.cuda_group_cluster import schedules as cluster_schedules
from ingot.compiler.codegen.cuda_group_cluster import seconds as cluster_seconds
from ingot.compiler.codegen.cuda_group_normalize import (
    GroupProblem,
    GroupSchedule,
    group_problem,
    write_groups,
)
from ingot.compiler.codegen.cuda_group_normalize import schedules as launch_schedules
from ingot.compiler.codegen.cuda_group_normalize import seconds as launch_seconds
from ingot.compiler.codegen.cuda_kernel import (
    DispatchKernel,
    dispatch_kernel,
    lanes_across,
    region_buffers,
    region_operands,
    symbol_of,
)
from ingot.compiler.codegen.cuda_rows import Element, RowWalk, inner_lanes, widest
from ingot.compiler.codegen.family import Emitted
from ingot.compiler.codegen.kernel_builder import KernelModule
from ingot.compiler.codegen.scalar_lowering import ScalarEmitter
from ingot.compiler.codegen.values import Val
from ingot.dialects.mlir import ir
from ingot.dims import Dim
from ingot.dispatch import Dispatch
from ingot.dtypes import DTYPES
from ingot.kernel_plan import BufferArg, KernelLaunch, KernelPlan
from ingot.target import Target

REGISTER_ELEMENTS = 32  # elements of a row that a thread holds, at most
WARP_ROWS = 4  # rows of a block whose rows take a warp each
MAX_THREADS = 512
CHUNK_THREADS = 256
CHUNK_VECTORS = 4


@dataclass(frozen=True)
class NormalizeSchedule:
    """`threads` a row (32: a warp; more: a block), `lanes` a vector, over the last `axes` axes, `vectors` a thread; `chunked`:
    two launches."""

    threads: int
    lanes: int
    vectors: int
    chunked: bool = False
    axes: int = 1


def choose(domain: PartedDomain) -> NormalizeSchedule:
    """A warp a row up to 1024 elements, a block up to 16384, chunks beyond and where the length is not constant."""
    d = domain.dispatch
    cols = dims.product(domain.shapes[1])
    lanes, axes = inner_lanes(d, [d.operands[0], *d.results]), 1
    across = lanes_across(d, [d.operands[0], *d.results], domain.shapes[1], widest(d.operands[0], *d.results))
    if across[0] > lanes:
        lanes, axes = across
    rows = dims.product(domain.shapes[0])
    if isinstance(cols, int) and cols > 0:
        vectors = cols // lanes
        if vectors * lanes <= 32 * REGISTER_ELEMENTS:
            return NormalizeSchedule(32, lanes, -(-vectors // 32), axes=axes)
        few = isinstance(rows, int) and rows < 128 and cols > 8192
        threads = 128
        while threads < MAX_THREADS and vectors * lanes > threads * REGISTER_ELEMENTS:
            threads *= 2
        if vectors * lanes <= threads * REGISTER_ELEMENTS and not few:
            return NormalizeSchedule(threads, lanes, -(-vectors // threads), axes=axes)
    return NormalizeSchedule(CHUNK_THREADS, lanes, max(1, CHUNK_VECTORS * 4 // max(4, lanes)), chunked=True, axes=axes)


GroupSchedules = list[tuple[float, ClusterSchedule | GroupSchedule]]


def group_schedules(p: GroupProblem, target: Target, waves: int = 1, wide: bool = WIDE) -> GroupSchedules:
    """(estimated seconds, schedule) of a group normalization, the least first; `waves`: of clusters, at most; `wide`: see
    `cuda_group_cluster.schedules`."""
    found: GroupSchedules = [(cluster_seconds(p, s, target), s) for s in cluster_schedules(p, target, waves, wide)]
    found += [(launch_seconds(p, target), s) for s in launch_schedules(p, target)]
    return sorted(found, key=lambda x: x[0])


def emit(
    dispatch: Dispatch, target: Target, schedule: NormalizeSchedule | GroupSchedule | ClusterSchedule | None = None
) -> Emitted:
    """Write the kernels of a `normalize` dispatch; group normalizations go to cuda_group_cluster.py, and where no cluster holds
    a group to cuda_group_normalize.py."""
    groups = group_problem(dispatch)
    if groups is not None and not isinstance(schedule, NormalizeSchedule):
        by_group = schedule or next((s for _, s in group_schedules(groups, target)), None)
        if by_group is not None:
            module = KernelModule(target.name, context=ir.Context.current)
            with module:
                if isinstance(by_group, ClusterSchedule):
                    plan = write_cluster(module, dispatch, groups, by_group, target)
                else:
                    plan = write_groups(module, dispatch, groups, by_group)
            return Emitted(plan, module.module)
    assert schedule is None or isinstance(schedule, NormalizeSchedule), "the dispatch is no group normalization"
    x = dispatch.operands[0]
    axes = sorted(int(a) % x.rank for a in dispatch.attr("axes"))
    domain = row_domain(dispatch, x.shape, axes)
    s = schedule or choose(domain)
    module = KernelModule(target.name, context=ir.Context.current)
    with module:
        plan = _chunked(module, dispatch, domain, s) if s.chunked else _whole_rows(module, dispatch, domain, s)
    return Emitted(plan, module.module)


def _buffers(d: Dispatch) -> tuple[BufferArg, ...]:
    return (BufferArg("operand", 0), *region_buffers(d, skip=[0]))


def _traffic(d: Dispatch) -> Dim:
    tensors = [d.operands[0], *d.results]
    return sum((dims.product(t.shape) * t.type.bytes for t in tensors), start=0)


# Whole rows -----------------------------------------------------------------------------------------------------------


def _whole_rows(module: KernelModule, dispatch: Dispatch, domain: PartedDomain, s: NormalizeSchedule) -> KernelPlan:
    rows = dims.product(domain.shapes[0])
    per_block = WARP_ROWS if s.threads == 32 else 1
    launch = KernelLaunch(
        symbol_of(dispatch), (dims.ceildiv(rows, per_block), 1, 1), _buffers(domain.dispatch),
        (s.threads * per_block, 1, 1), bytes=_traffic(domain.dispatch),
    )  # fmt: skip
    with dispatch_kernel(module, domain.dispatch, launch) as dk:
        k = dk.k
        walk = RowWalk(dk, domain, s.lanes, s.threads, s.vectors, s.axes)
        row = k.block_id()
        if per_block > 1:
            row = row * per_block + (k.thread_id() >> 5)
        exact = per_block == 1 or (isinstance(rows, int) and rows % per_block == 0)
        with k.if_(True if exact else row < dk.size(rows, "i32")):
            cols = dk.size(dims.product(domain.shapes[1]), "i32")
            elements = walk.load(dk.split(row, domain.shapes[0]), k.const(0, "i32"), cols)
            _finish(walk, elements, _statistics(walk, elements, cols))
    return KernelPlan((launch,))


def _kind(walk: RowWalk) -> str:
    kind = str(walk.dk.d.attr("kind"))
    if kind not in ("softmax", "log_softmax", "layer", "rms"):
        raise NotImplementedError(f"normalize of kind {kind!r}")
    return kind


def _add(a: Val, b: Val) -> Val:
    return a + b


def exp_shifted(k: object, x: Val, shift: Val) -> Val:
    """e**(x - shift) for x <= shift, by ex2.approx. Subtracting first keeps the error relative to the difference."""
    if x.t.element.name == "f64":  # which ex2 does not take
        return ScalarEmitter(k).exp(x - shift)  # type: ignore[arg-type]
    return k.ex2((x - shift) * 1.4426950408889634)  # type: ignore[attr-defined]


def _wide(k: object, like: Val, x: Val) -> Val:
    """`x` splatted to the lanes of `like`."""
    return k.broadcast(x, like.t.lanes) if like.t.kind == "vector" else x  # type: ignore[attr-defined]


def _finite(k: object, m: Val) -> Val:
    """A maximum to subtract: 0 where the row is all minus infinity, so that no NaN arises from subtracting it."""
    return k.select(m.eq(float("-inf")), 0.0, m)  # type: ignore[attr-defined]


def _statistics(walk: RowWalk, elements: Sequence[Element], cols: Val) -> list[Val]:
    """A row's (or chunk's) statistics: softmax [maximum, sum]; layer [mean, sum of squared deviations]; rms [sum of
    squares]."""
    k = walk.k
    match _kind(walk):
        case "softmax" | "log_softmax":
            m = walk.reduce(elements, lambda x: x, k.maximum, float("-inf"))
            shift = _finite(k, m)
            return [m, walk.reduce(elements, lambda x: exp_shifted(k, x, _wide(k, x, shift)), _add, 0.0)]
        case "layer":
            count = k.cast(cols, elements[0].value.t.element)
            mean = walk.reduce(elements, lambda x: x, _add, 0.0) / count
            return [mean, walk.reduce(elements, lambda x: _square(x - _wide(k, x, mean)), _add, 0.0)]
        case _:
            return [walk.reduce(elements, _square, _add, 0.0)]


def _square(x: Val) -> Val:
    return x * x


def _finish(walk: RowWalk, elements: Sequence[Element], stats: list[Val], count: Val | None = None) -> None:
    """Normalize elements by their row's statistics, and store them."""
    k = walk.k
    if count is None:
        count = walk.dk.size(dims.product(walk.domain.shapes[1]), "i32")
    n = k.cast(count, stats[0].t)
    epsilon = float(walk.dk.d.attr("epsilon", 0.0))
    match _kind(walk):
        case "softmax":
            shift, scale = _finite(k, stats[0]), 1.0 / stats[1]
            walk.store(elements, lambda x: exp_shifted(k, x, _wide(k, x, shift)) * _wide(k, x, scale))
        case "log_softmax":
            most, shift = _finite(k, stats[0]), ScalarEmitter(k).log(stats[1])
            # One after the other: the sum of both would be rounded as the largest element is.
            walk.store(elements, lambda x: (x - _wide(k, x, most)) - _wide(k, x, shift))
        case "layer":
            scale = 1.0 / k.sqrt(stats[1] / n + epsilon)
            walk.store(elements, lambda x: (x - _wide(k, x, stats[0])) * _wide(k, x, scale), stats[0], scale)
        case _:
            scale = 1.0 / k.sqrt(stats[0] / n + epsilon)
            walk.store(elements, lambda x: x * _wide(k, x, scale), scale)


# Chunks ---------------------------------------------------------------------------------------------------------------


def _chunked(module: KernelModule, dispatch: Dispatch, domain: PartedDomain, s: NormalizeSchedule) -> KernelPlan:
    d = domain.dispatch
    rows, cols = dims.product(domain.shapes[0]), dims.product(domain.shapes[1])
    chunk = s.threads * s.vectors * s.lanes
    chunks = dims.ceildiv(cols, chunk)
    kind = str(d.attr("kind"))
    count = 1 if kind == "rms" else 2
    reads = [i for i in region_operands(d.regions[:1]) if i != 0]
    operands = (BufferArg("operand", 0), *(BufferArg("operand", i) for i in reads))
    grid = (rows, chunks, 1)
    first = KernelLaunch(symbol_of(dispatch, "_stats"), grid, (*operands, BufferArg("workspace")), (s.threads, 1, 1))
    second = KernelLaunch(
        symbol_of(dispatch), grid, (*_buffers(d), BufferArg("workspace")), (s.threads, 1, 1), bytes=_traffic(d)
    )
    for launch in (first, second):
        with dispatch_kernel(module, d, launch) as dk:
            _Chunk(dk, domain, s, chunk, count).emit(write=launch is second)
    return KernelPlan((first, second), rows * chunks * count * DTYPES[_accumulator(d)].bytes)


def _accumulator(d: Dispatch) -> str:
    """The type of statistics: what the first region makes of an element."""
    region = d.regions[0]
    return region.type_of(region.results[0])


class _Chunk:
    """A kernel over a chunk of a row while it is written."""

    def __init__(self, dk: DispatchKernel, domain: PartedDomain, s: NormalizeSchedule, chunk: int, count: int) -> None:
        self.dk, self.k, self.domain, self.chunk, self.count = dk, dk.k, domain, chunk, count
        self.walk = RowWalk(dk, domain, s.lanes, s.threads, s.vectors, s.axes)
        cols = dims.product(domain.shapes[1])
        self.cols = dk.size(cols, "i32")
        self.chunks = dk.size(dims.ceildiv(cols, chunk), "i32")
        self.acc = _accumulator(dk.d)

    def emit(self, write: bool) -> None:
        k = self.k
        row, part = k.block_id(0), k.block_id(1)
        at = self.dk.pointer("workspace").at(k.cast(row, "i64") * k.cast(self.chunks, "i64") * self.count, self.acc)
        elements = self.walk.load(self.dk.split(row, self.domain.shapes[0]), part * self.chunk, self.cols)
        if write:
            _finish(self.walk, elements, self.combined(at), self.cols)
            return
        stats = _statistics(self.walk, elements, k.min(self.cols - part * self.chunk, self.chunk))
        with k.if_(k.thread_id().eq(0)):
            for i, x in enumerate(stats):
                k.store(x, at.at(part * self.count + i, self.acc))

    def combined(self, at: Val) -> list[Val]:
        """The row's statistics from its chunks', in order; every thread does the same."""
        k = self.k
        kind = _kind(self.walk)
        zero = k.const(0.0, self.acc)
        start = [k.const(float("-inf"), self.acc) if "softmax" in kind else zero, *[zero] * (self.count - 1)]
        with k.for_(0, self.chunks, carry=[*start, zero]) as loop:
            *have, seen = loop.carry
            new = [k.load(at.at(loop.iv * self.count + i, self.acc), self.acc) for i in range(self.count)]
            size = k.cast(k.min(self.cols - loop.iv * self.chunk, self.chunk), self.acc)
            total = seen + size
            if kind == "rms":
                merged = [have[0] + new[0]]
            elif kind == "layer":
                delta = new[0] - have[0]
                share = size / total
                merged = [have[0] + delta * share, have[1] + new[1] + delta * delta * seen * share]
            else:
                m = k.maximum(have[0], new[0])
                shift = _finite(k, m)
                merged = [m, have[1] * exp_shifted(k, have[0], shift) + new[1] * exp_shifted(k, new[0], shift)]
            loop.yield_([*merged, total])
        return list(loop.results[:-1])
