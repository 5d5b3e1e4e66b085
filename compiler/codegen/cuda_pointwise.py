"""Pointwise dispatches on NVIDIA GPUs: collapsed domains, 16-byte accesses, several in flight.

A thread handles `unroll` vectors, a block's threads side by side, so that every access of a warp is one run of memory. Blocks
that lie fully inside the domain take a path without predicates: all loads are issued before the first store.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from ingot import dims
from ingot.compiler.codegen.cuda_domain import collapse_domain, uses_index
from ingot.compiler.codegen.cuda_kernel import (
    DispatchKernel,
    dispatch_kernel,
    lanes_across,
    nibble_lanes,
    region_buffers,
    region_operands,
    span,
    symbol_of,
    vector_lanes,
)
from ingot.compiler.codegen.family import Emitted
from ingot.compiler.codegen.kernel_builder import KernelModule
from ingot.compiler.codegen.values import Val
from ingot.dialects.mlir import ir
from ingot.dims import Dim
from ingot.dispatch import Dispatch, ScalarRegion, TensorArg
from ingot.kernel_plan import KernelLaunch, KernelPlan
from ingot.target import Target

THREADS = 256
SMALL = 1 << 18  # elements below which more blocks matter more than more loads in flight


@dataclass(frozen=True)
class PointwiseSchedule:
    """`lanes` elements a vector, which run over the last `axes` axes, `unroll` vectors a thread, `threads` a block."""

    lanes: int
    unroll: int = 2
    threads: int = THREADS
    axes: int = 1


def choose(d: Dispatch, across: bool = True) -> PointwiseSchedule:
    """Vectors of 16 bytes of the narrowest result, as far as the results' rows allow; one vector a thread in small domains.

    Vectors run over the last axis alone unless `across`, which is for kernels that read operands at the position they write.
    """
    domain = d.results[0].shape
    lanes = min(16 // t.type.bytes for t in d.results)
    # Wide vectors of a long region only cost registers.
    lanes = widest = min(8, lanes)
    for t in d.results:
        lanes = math.gcd(lanes, whole_vectors(d, t, lanes))
    elements = dims.product(domain)
    small = isinstance(elements, int) and elements < SMALL
    wider, axes = lanes_across(d, d.results, domain, widest) if across else (lanes, 1)
    return PointwiseSchedule(max(lanes, wider), 1 if small else 2, axes=axes if wider > lanes else 1)


def whole_vectors(d: Dispatch, t: TensorArg, lanes: int) -> int:
    """Lanes of the widest vectors that never cross a row of `t`; a domain of one contiguous axis has a tail instead."""
    if t.rank == 1 and t.strides == (1,):
        t = replace(t, shape=(lanes,))
    if t.type.bits < 8:
        return nibble_lanes(t, d, lanes)
    return vector_lanes(t, d, limit=lanes * t.type.bytes)


def emit(
    dispatch: Dispatch, target: Target, schedule: PointwiseSchedule | None = None, module: KernelModule | None = None
) -> Emitted:
    """Write the kernel of a `pointwise` dispatch, in `module` or in one of its own."""
    d = collapse_domain(dispatch)
    return emit_domain(dispatch, d, target, schedule or choose(d), lambda dk, position, lanes: (
        dk.region(d.regions[0], [], position, d.results[0].shape, lanes)
    ), module=module)  # fmt: skip


def emit_domain(
    dispatch: Dispatch,
    d: Dispatch,
    target: Target,
    s: PointwiseSchedule,
    body: Callable[[DispatchKernel, list[Val], int], list[Val]],
    streamed: tuple = (),
    module: KernelModule | None = None,
) -> Emitted:
    """Write a kernel that stores `body(kernel, position, lanes)` at every position of the domain of `d`'s results.

    Args:
        dispatch: names the kernel.
        d: the dispatch over collapsed axes.
        target: the target.
        s: the schedule.
        body: values of the results, of storage type: vectors of `lanes`, scalars for 0.
        streamed: buffers that `body` reads besides those of the regions.
        module: gets the kernel; a new one by default.
    """
    domain = d.results[0].shape
    elements = dims.product(domain)
    per_block = s.threads * s.unroll * s.lanes
    launch = KernelLaunch(
        symbol_of(dispatch),
        (dims.ceildiv(elements, per_block), 1, 1),
        (*streamed, *region_buffers(d, skip=[b.index for b in streamed])),
        (s.threads, 1, 1),
        bytes=_traffic(d, domain, [b.index for b in streamed]),
    )
    module = module or KernelModule(target.name, context=ir.Context.current)
    with module, dispatch_kernel(module, d, launch) as dk:
        _Walk(dk, domain, s, body).emit()
    return Emitted(KernelPlan((launch,)), module.module)


def _traffic(d: Dispatch, domain: tuple[Dim, ...], streamed: list[int]) -> Dim:
    """Bytes read and written, each tensor once."""
    operands = {*streamed, *region_operands(d.regions)}
    tensors = [*(d.operands[i] for i in operands), *d.results]
    return sum(
        (dims.product(n for n, s in zip(t.shape, t.strides, strict=True) if s != 0) * t.type.bits // 8 for t in tensors),
        start=0,
    )


class _Walk:
    """A kernel over a domain while it is written."""

    def __init__(
        self,
        dk: DispatchKernel,
        domain: tuple[Dim, ...],
        s: PointwiseSchedule,
        body: Callable[[DispatchKernel, list[Val], int], list[Val]],
    ) -> None:
        self.dk, self.k, self.domain, self.s, self.body = dk, dk.k, domain, s, body
        dk.lane_axes, dk.whole_vectors = s.axes, True
        for t in dk.d.results:
            if t.type.bits < 8 and s.lanes % 2:
                raise NotImplementedError(f"results of {t.dtype} whose rows are no whole bytes")
        elements = dims.product(domain)
        narrow = isinstance(elements, int) and elements < 1 << 30 and all((span(t) or 0) < 1 << 31 for t in dk.d.results)
        self.type = "i32" if narrow else "i64"

    def emit(self) -> None:
        k, s = self.k, self.s
        elements = self.dk.size(dims.product(self.domain), self.type)
        block = k.cast(k.block_id(), self.type) * (s.threads * s.unroll * s.lanes)
        thread = k.cast(k.thread_id(), self.type)
        starts = [block + (thread + u * s.threads) * s.lanes for u in range(s.unroll)]
        static = elements.const
        if static is not None and static % (s.threads * s.unroll * s.lanes) == 0:
            self.vectors(starts)
            return
        if s.unroll == 1:
            self.guarded(starts, elements)
            return
        with k.if_else(block + s.threads * s.unroll * s.lanes <= elements) as inside:
            with inside.then:
                self.vectors(starts)
            with inside.else_:
                self.guarded(starts, elements)

    def guarded(self, starts: list[Val], elements: Val) -> None:
        """Vectors that may lie beyond the end; of one axis, the last may be cut."""
        k, lanes = self.k, self.s.lanes
        for start in starts:
            with k.if_else(start + lanes <= elements) as whole:
                with whole.then:
                    self.vectors([start])
                with whole.else_:
                    if lanes > 1 and len(self.domain) == 1:
                        with k.for_(start, elements) as tail:
                            self.store([tail.iv], self.body(self.dk, [tail.iv], 0), 0)

    def vectors(self, starts: list[Val]) -> None:
        lanes = self.s.lanes if self.s.lanes > 1 else 0
        positions = [self.dk.split(start, self.domain, self.s.axes - 1) for start in starts]
        values = [self.body(self.dk, position, lanes) for position in positions]
        for position, results in zip(positions, values, strict=True):
            self.store(position, results, lanes)

    def store(self, position: list[Val], results: list[Val], lanes: int) -> None:
        for i, x in enumerate(results):
            self.dk.store(i, x, position, lanes)


def uses_position(region: ScalarRegion) -> bool:
    """True where a region asks for its position."""
    return bool(uses_index(region))
