"""Reductions on NVIDIA GPUs.

Along rows (the reduced axes are contiguous) a warp or a block reduces a row. Across rows (a kept axis is contiguous) a block
takes 32 vectors along it, and its warps take turns along the reduced axes. Few and long reductions are split over blocks: parts
go to the workspace, and a second launch reduces them, always in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ingot import dims
from ingot.compiler.codegen.cuda_domain import PartedDomain, parted_domain
from ingot.compiler.codegen.cuda_kernel import DispatchKernel, constant, dispatch_kernel, region_operands, symbol_of
from ingot.compiler.codegen.cuda_rows import fold, inner_lanes
from ingot.compiler.codegen.family import Emitted
from ingot.compiler.codegen.kernel_builder import KernelModule
from ingot.compiler.codegen.values import Val
from ingot.cuda_targets import facts
from ingot.dialects.mlir import ir
from ingot.dims import Dim
from ingot.dispatch import Dispatch
from ingot.dtypes import DTYPES
from ingot.kernel_plan import BufferArg, KernelLaunch, KernelPlan
from ingot.target import Target

WARPS = 8
UNROLL = 4
FINISH_THREADS = 128


@dataclass(frozen=True)
class ReduceSchedule:
    """`across`: the contiguous axis is kept; `lanes` of a vector; `threads` a row; `splits` blocks for a row."""

    across: bool
    lanes: int
    threads: int = 32 * WARPS
    splits: int = 1


def identity(kind: str, acc: str) -> float:
    """The neutral element of a reduction in type `acc`."""
    if kind in ("sum", "prod"):
        return 0 if kind == "sum" else 1
    t = DTYPES[acc]
    if t.kind == "float":
        return float("-inf") if kind == "max" else float("inf")
    if t.kind == "bool":
        return 0 if kind == "max" else 1
    return -(2 ** (t.bits - 1)) if kind == "max" else 2 ** (t.bits - 1) - 1


def combiner(k: Any, kind: str, acc: str) -> Callable[[Val, Val], Val]:
    """The combining operation of a reduction; extrema of floats pass NaN on."""
    if acc == "i1":
        return {"max": lambda x, y: x | y, "min": lambda x, y: x & y}[kind]
    is_float = DTYPES[acc].kind == "float"
    return {
        "sum": lambda x, y: x + y,
        "prod": lambda x, y: x * y,
        "max": k.maximum if is_float else k.max,
        "min": k.minimum if is_float else k.min,
    }[kind]


@dataclass(frozen=True)
class _Reduction:
    """A reduce dispatch over a parted domain: (kept, reduced), or (kept, reduced, kept contiguous) for reductions across
    rows."""

    domain: PartedDomain
    kind: str
    acc: str

    @property
    def kept(self) -> tuple[Dim, ...]:
        """Sizes of the kept axes, in the domain's order."""
        return (*self.domain.shapes[0], *(self.domain.shapes[2] if len(self.domain.shapes) > 2 else ()))

    @property
    def reduced(self) -> Dim:
        return dims.product(self.domain.shapes[1])

    def place(self, dk: DispatchKernel, kept: list[Val], reduced: list[Val]) -> list[Val]:
        """The domain's position of kept and reduced positions."""
        outer = len(self.domain.shapes[0])
        return [*kept[:outer], *reduced, *kept[outer:]]


def emit(dispatch: Dispatch, target: Target, schedule: ReduceSchedule | None = None) -> Emitted:
    """Write the kernels of a `reduce` dispatch."""
    x = dispatch.operands[0]
    axes = sorted(int(a) % x.rank for a in dispatch.attr("axes"))
    kept = [i for i in range(x.rank) if i not in axes]
    across = bool(
        kept and kept[-1] > max(axes, default=-1) and x.strides[kept[-1]] == 1 and x.shape[kept[-1]] != 1
    )
    parts = (kept[:-1], axes, kept[-1:]) if across else (kept, axes)
    domain = parted_domain(dispatch, x.shape, parts, reduced=(1,))
    kind = str(dispatch.attr("kind"))
    acc = dispatch.regions[0].type_of(dispatch.regions[0].results[0])
    r = _Reduction(domain, kind, acc)
    s = schedule or choose(r, across, target)
    module = KernelModule(target.name, context=ir.Context.current)
    with module:
        plan = _write(module, dispatch, r, s)
    return Emitted(plan, module.module)


def choose(r: _Reduction, across: bool, target: Target) -> ReduceSchedule:
    """A warp for short rows, a block for long ones, several blocks where rows are too few to fill the SMs."""
    d = r.domain.dispatch
    lanes = inner_lanes(d, [d.operands[0]])
    sms = facts(target).sms
    length = max(1, constant(r.reduced))
    rows = max(1, constant(dims.product(r.kept)))
    if across:
        blocks = -(-rows // (32 * lanes))
        least = 4 * WARPS
    else:
        threads = 32 if length <= 1024 or (length <= 4096 and rows >= 8 * sms) else 32 * WARPS
        blocks = -(-rows // (WARPS if threads == 32 else 1))
        least = 4096
    splits = 1
    while splits < 64 and blocks * splits < sms and length // (2 * splits) >= least:
        splits *= 2
    return ReduceSchedule(across, lanes, 32 * WARPS if across else threads, splits)


def _write(module: KernelModule, dispatch: Dispatch, r: _Reduction, s: ReduceSchedule) -> KernelPlan:
    d = r.domain.dispatch
    kept = dims.product(r.kept)
    reads = tuple(BufferArg("operand", i) for i in region_operands(d.regions[:1]) if i != 0)
    finish_reads = tuple(BufferArg("operand", i) for i in region_operands(d.regions[1:]) if i != 0)
    results = tuple(BufferArg("result", i) for i in range(len(d.results)))
    own = (BufferArg("operand", 0), *reads)
    rest = (BufferArg("workspace"),) if s.splits > 1 else (*(b for b in finish_reads if b not in own), *results)
    if s.across:
        vectors = dims.ceildiv(r.domain.shapes[2][-1], 32 * s.lanes)
        grid: tuple[Dim, Dim, Dim] = (vectors * dims.product(r.kept[:-1]), s.splits, 1)
    else:
        grid = (dims.ceildiv(kept, WARPS) if s.threads == 32 else kept, s.splits, 1)
    traffic = dims.product(r.domain.domain) * d.operands[0].type.bytes
    launch = KernelLaunch(
        symbol_of(dispatch, "_parts" if s.splits > 1 else ""), grid, (*own, *rest), (32 * WARPS, 1, 1), bytes=traffic
    )
    with dispatch_kernel(module, d, launch) as dk:
        (_across if s.across else _along)(dk, r, s)
    if s.splits == 1:
        return KernelPlan((launch,))
    finish = KernelLaunch(
        symbol_of(dispatch), (dims.ceildiv(kept, FINISH_THREADS), 1, 1),
        (BufferArg("workspace"), *(finish_reads if 0 not in _indices(finish_reads) else ()), *results), (FINISH_THREADS, 1, 1),
    )  # fmt: skip
    with dispatch_kernel(module, d, finish) as dk:
        _finish_parts(dk, r, s)
    size = 1 if r.acc == "i1" else DTYPES[r.acc].bytes
    return KernelPlan((launch, finish), kept * s.splits * size)


def _indices(buffers: tuple[BufferArg, ...]) -> list[int]:
    return [b.index for b in buffers]


def _mapped(dk: DispatchKernel, r: _Reduction, position: list[Val], lanes: int) -> Val:
    domain = r.domain.domain
    (value,) = dk.region(dk.d.regions[0], [dk.load(0, position, domain, lanes)], position, domain, lanes)
    return value


def _deliver(dk: DispatchKernel, r: _Reduction, s: ReduceSchedule, kept: list[Val], linear: Val, x: Val) -> None:
    """Finish one reduced value, or leave a split's part of it in the workspace."""
    k = dk.k
    if s.splits > 1:
        name = "i8" if r.acc == "i1" else r.acc
        at = k.cast(linear, "i64") * s.splits + k.cast(k.block_id(1), "i64")
        k.store(k.cast(x, name, signed=False) if r.acc == "i1" else x, dk.pointer("workspace").at(at, name))
        return
    _finish(dk, r, kept, x)


def _finish(dk: DispatchKernel, r: _Reduction, kept: list[Val], x: Val) -> None:
    k = dk.k
    place = r.place(dk, kept, [k.const(0, "i32")] * len(r.domain.shapes[1]))
    for i, value in enumerate(dk.region(dk.d.regions[1], [x], place, r.domain.domain)):
        dk.store(i, value, place)


def _part_range(dk: DispatchKernel, total: Val, splits: int) -> tuple[Val, Val]:
    k = dk.k
    if splits == 1:
        return k.const(0, total.t), total
    per = (total + (splits - 1)) // splits
    first = k.min(k.cast(k.block_id(1), total.t) * per, total)
    return first, k.min(first + per, total)


def _along(dk: DispatchKernel, r: _Reduction, s: ReduceSchedule) -> None:
    """A warp, or the block, reduces a row."""
    k = dk.k
    combine, neutral = combiner(k, r.kind, r.acc), identity(r.kind, r.acc)
    warp_rows = s.threads == 32
    row = k.block_id() * WARPS + k.warp_id() if warp_rows else k.block_id()
    thread = k.lane_id() if warp_rows else k.thread_id()
    rows = dk.size(dims.product(r.kept), "i32")
    with k.if_(row < rows if warp_rows else True):
        kept = dk.split(row, r.kept)
        vectors = dk.size(r.reduced, "i32") // s.lanes
        first, last = _part_range(dk, vectors, s.splits)
        lanes = s.lanes if s.lanes > 1 else 0

        def body(i: Val, acc: Val) -> Val:
            at = (first + thread + i * s.threads) * s.lanes
            place = r.place(dk, kept, dk.split(at, r.domain.shapes[1]))
            return combine(acc, _mapped(dk, r, place, lanes))

        start = k.const(neutral, k.vector_of(r.acc, s.lanes) if lanes else r.acc)
        count = (k.max(last - first - thread, 0) + (s.threads - 1)) // s.threads
        (total,) = k.for_unrolled(0, count, UNROLL, lambda i, c: [body(i, c[0])], [start])
        if lanes:
            total = fold(k, total, combine)
        total = _warp(k, total, combine)
        if warp_rows:
            with k.if_(thread.eq(0)):
                _deliver(dk, r, s, kept, row, total)
            return
        name = "i8" if r.acc == "i1" else r.acc
        size = DTYPES[r.acc].bytes
        shared = k.static_shared(WARPS * size)
        with k.if_((thread & 31).eq(0)):
            k.store(k.cast(total, name, signed=False) if r.acc == "i1" else total, shared.at(thread >> 5, name))
        k.barrier()
        with k.if_(thread.eq(0)):
            parts = [k.load(shared.at(i, name), name) for i in range(WARPS)]
            parts = [p.ne(0) for p in parts] if r.acc == "i1" else parts
            total = parts[0]
            for p in parts[1:]:
                total = combine(total, p)
            _deliver(dk, r, s, kept, row, total)


def _warp(k: Any, x: Val, combine: Callable[[Val, Val], Val]) -> Val:
    """A warp's values combined; bools travel as i32."""
    if x.t.name == "i1":
        wide = k.cast(x, "i32", signed=False)
        return k.warp_reduce(lambda a, b: k.cast(combine(a.ne(0), b.ne(0)), "i32", signed=False), wide).ne(0)
    return k.warp_reduce(combine, x)


def _across(dk: DispatchKernel, r: _Reduction, s: ReduceSchedule) -> None:
    """A thread owns a vector along the contiguous kept axis; warps take turns along the reduced axes."""
    k = dk.k
    combine, neutral = combiner(k, r.kind, r.acc), identity(r.kind, r.acc)
    width = r.domain.shapes[2][-1]
    vectors = dk.size(dims.ceildiv(width, 32 * s.lanes), "i32")
    block = k.block_id()
    outer = dk.split(block // vectors, r.kept[:-1])
    lane, warp = k.lane_id(), k.warp_id()
    col = ((block % vectors) * 32 + lane) * s.lanes
    n = dk.size(width, "i32")
    at_col = k.min(col, n - s.lanes)
    first, last = _part_range(dk, dk.size(r.reduced, "i32"), s.splits)
    lanes = s.lanes if s.lanes > 1 else 0

    def body(i: Val, acc: Val) -> Val:
        place = r.place(dk, [*outer, at_col], dk.split(first + warp + i * WARPS, r.domain.shapes[1]))
        return combine(acc, _mapped(dk, r, place, lanes))

    start = k.const(neutral, k.vector_of(r.acc, s.lanes) if lanes else r.acc)
    count = (k.max(last - first - warp, 0) + (WARPS - 1)) // WARPS
    (total,) = k.for_unrolled(0, count, UNROLL, lambda i, c: [body(i, c[0])], [start])
    name = "i8" if r.acc == "i1" else r.acc
    size = DTYPES[r.acc].bytes
    shared = k.static_shared(WARPS * 32 * s.lanes * size)
    stored = k.cast(total, k.vector_of(name, s.lanes) if lanes else name, signed=False) if r.acc == "i1" else total
    k.store(stored, shared.at((warp * 32 + lane) * s.lanes, name), align=min(16, size * s.lanes))
    k.barrier()
    for i in range(s.lanes):
        # Thread t finishes columns t, t + 256, ... of the block's 32 * lanes.
        column = k.thread_id() + i * 32 * WARPS
        if i * 32 * WARPS >= 32 * s.lanes:
            break
        place = (block % vectors) * (32 * s.lanes) + column
        with k.if_((column < 32 * s.lanes) & (place < n)):
            parts = [k.load(shared.at(w * 32 * s.lanes + column, name), name) for w in range(WARPS)]
            parts = [p.ne(0) for p in parts] if r.acc == "i1" else parts
            total = parts[0]
            for p in parts[1:]:
                total = combine(total, p)
            linear = k.cast(block // vectors, "i64") * k.cast(n, "i64") + k.cast(place, "i64")
            _deliver(dk, r, s, [*outer, place], linear, total)


def _finish_parts(dk: DispatchKernel, r: _Reduction, s: ReduceSchedule) -> None:
    """A thread reduces the parts of one value."""
    k = dk.k
    combine = combiner(k, r.kind, r.acc)
    name = "i8" if r.acc == "i1" else r.acc
    linear = k.block_id() * FINISH_THREADS + k.thread_id()
    with k.if_(linear < dk.size(dims.product(r.kept), "i32")):
        base = dk.pointer("workspace").at(k.cast(linear, "i64") * s.splits, name)
        total: Val | None = None
        for i in range(s.splits):
            x = k.load(base.at(i, name), name)
            x = x.ne(0) if r.acc == "i1" else x
            total = x if total is None else combine(total, x)
        assert total is not None
        _finish(dk, r, dk.split(linear, r.kept), total)


