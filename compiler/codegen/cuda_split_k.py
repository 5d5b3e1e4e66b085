"""The second launch of a split product: sum the splits' partial accumulators in order, and run the epilogue region.

Partials lie in the workspace as [splits, elements of the domain in row-major order] of the accumulator type. The order of
summation is fixed, so that results do not depend on timing.
"""

from __future__ import annotations

import math

from ingot import dims
from ingot.compiler.codegen.cuda_kernel import DispatchKernel, dispatch_kernel, known_multiple, region_buffers, symbol_of
from ingot.compiler.codegen.kernel_builder import KernelModule
from ingot.compiler.codegen.values import Val
from ingot.dims import Dim
from ingot.dispatch import Dispatch
from ingot.kernel_plan import BufferArg, KernelLaunch

THREADS = 256


def reduce_launch(dispatch: Dispatch, domain: tuple[Dim, ...], suffix: str) -> KernelLaunch:
    """The launch that finishes a split product over `domain`."""
    elements = dims.product(domain)
    return KernelLaunch(
        symbol_of(dispatch, suffix + "_reduce"),
        (dims.ceildiv(elements, THREADS * _lanes(dispatch, domain)), 1, 1),
        (BufferArg("workspace"), *region_buffers(dispatch)),
        (THREADS, 1, 1),
    )


def _lanes(dispatch: Dispatch, domain: tuple[Dim, ...]) -> int:
    return math.gcd(4, known_multiple(domain[-1], dispatch)) or 4


def emit_reduce(
    module: KernelModule, dispatch: Dispatch, domain: tuple[Dim, ...], launch: KernelLaunch, splits: int, acc: str
) -> None:
    """Write the kernel: a thread sums `lanes` neighbouring columns over the splits."""
    lanes = _lanes(dispatch, domain)
    with dispatch_kernel(module, dispatch, launch) as dk:
        k = dk.k
        elements = dk.size(dims.product(domain))
        first = (k.cast(k.block_id(), "i64") * THREADS + k.cast(k.thread_id(), "i64")) * lanes
        with k.if_(first < elements):
            t = k.vector_of(acc, lanes)
            partial = dk.pointer("workspace").at(first, acc)
            total = k.load(partial, t, align=4 * lanes)
            for i in range(1, splits):
                total = total + k.load(partial.at(elements * i, acc), t, align=4 * lanes)
            finish(dk, domain, first, total, lanes)


def finish(dk: DispatchKernel, domain: tuple[Dim, ...], first: Val, total: Val, lanes: int) -> None:
    """Run the dispatch's region on `lanes` accumulators at a row-major index of the domain, and store its results."""
    k = dk.k
    position = dk.split(first, domain)
    if lanes == 1:
        values = dk.region(dk.d.regions[0], [k.extract(total, 0)], position, domain)
    else:
        values = dk.region(dk.d.regions[0], [total], position, domain, lanes)
    for i, x in enumerate(values):
        dk.store(i, x, position, 0 if lanes == 1 else lanes)
