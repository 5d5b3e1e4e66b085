"""The family of `scatter` on NVIDIA GPUs: a copy, unless it is in place, then stores at computed places.

Values that may meet in one place are one thread's, which combines them in order: no atomics, so that sums of floats are the
same in every run. Values that replace each other are stored by a thread each.
"""

from __future__ import annotations

from typing import Any

from ingot import dims
from ingot.compiler.codegen import cuda_pointwise
from ingot.compiler.codegen.cuda_kernel import DispatchKernel, dispatch_kernel, region_buffers, symbol_of
from ingot.compiler.codegen.cuda_reduce import combiner
from ingot.compiler.codegen.family import Emitted
from ingot.compiler.codegen.kernel_builder import KernelModule
from ingot.compiler.codegen.scatter_copy import copy_of_operand
from ingot.compiler.codegen.values import Val
from ingot.dialects.layout import IN_PLACE
from ingot.dialects.mlir import ir
from ingot.dispatch import Dispatch
from ingot.kernel_plan import KernelLaunch, KernelPlan
from ingot.target import Target

THREADS = 256


def emit(dispatch: Dispatch, target: Target, schedule: Any = None) -> Emitted:
    """See `family.emit`; there is one schedule."""
    if dispatch.results[0].type.bits < 8:
        raise NotImplementedError(f"scatter of elements of {dispatch.results[0].dtype}")
    domain, kind = dispatch.operands[1].shape, str(dispatch.attr("kind"))
    meeting = [] if kind == "set" else [int(a) for a in dispatch.attr("axes")]
    own = [a for a in range(len(domain)) if a not in meeting]
    module = KernelModule(target.name, context=ir.Context.current)
    before: tuple[KernelLaunch, ...] = ()
    if not dispatch.attr(IN_PLACE, False):
        before = cuda_pointwise.emit(copy_of_operand(dispatch), target, module=module).plan.launches
    count = dims.product(domain[a] for a in own)
    element = dispatch.results[0].type.bytes
    launch = KernelLaunch(
        symbol_of(dispatch), (dims.ceildiv(count, THREADS), 1, 1), region_buffers(dispatch), (THREADS, 1, 1),
        bytes=dims.product(domain) * 2 * element,
    )  # fmt: skip
    with module, dispatch_kernel(module, dispatch, launch) as dk:
        k = dk.k
        narrow = isinstance(n := dims.product(domain), int) and n < 1 << 30
        wide = "i32" if narrow else "i64"
        thread = k.cast(k.block_id(), wide) * THREADS + k.cast(k.thread_id(), wide)
        with k.if_(thread < dk.size(count, wide)):
            at = dict(zip(own, dk.split(thread, [domain[a] for a in own]), strict=True))
            turns = [domain[a] for a in meeting]
            with k.for_(k.const(0, wide), dk.size(dims.product(turns), wide)) as turn:
                at |= dict(zip(meeting, dk.split(turn.iv, turns), strict=True))
                position = [at[a] for a in range(len(domain))]
                place, value = (dk.region(r, [], position, domain) for r in dispatch.regions)
                _store(dk, kind, place, value[0])
    return Emitted(KernelPlan((*before, launch)), module.module)


def _store(dk: DispatchKernel, kind: str, index: list[Val], value: Val) -> None:
    """Replace an element of the result by a value, or combine both, in f32 where elements are narrower floats."""
    k, result = dk.k, dk.d.results[0]
    if kind != "set":
        row = result.type
        computed = "f32" if row.kind == "float" and row.bits < 32 else result.dtype
        there = dk.load_raw(dk.address("result", 0, index), result.dtype, 0, row.bytes)
        if computed == result.dtype:
            value = combiner(k, kind, computed)(there, value)
        else:
            value = k.cast(combiner(k, kind, computed)(k.cast(there, computed), k.cast(value, computed)), result.dtype)
    dk.store(0, value, index)
