"""The family of `scatter` on the CPU: a copy, unless it is in place, then stores at computed places.

Values that may meet in one place are one work item's, which combines them in order; so results never depend on threads. Values
that replace each other are stored by whoever comes.
"""

from __future__ import annotations

from typing import Any

from ingot import dims
from ingot.compiler.codegen.cpu_elementwise import Elementwise, emit_elementwise
from ingot.compiler.codegen.cpu_kernel import CpuKernel, cpu_kernel
from ingot.compiler.codegen.cpu_reduce import reduction_operation
from ingot.compiler.codegen.cpu_region import Position, RegionEmitter, load_elements, store_elements
from ingot.compiler.codegen.cpu_space import clipped
from ingot.compiler.codegen.family import Emitted
from ingot.compiler.codegen.scatter_copy import copy_of_operand
from ingot.compiler.codegen.values import Val
from ingot.dialects.layout import IN_PLACE
from ingot.dispatch import Dispatch
from ingot.dtypes import DTYPES
from ingot.target import Target

_BLOCK = 1024  # positions of the innermost axis in a work item


def emit(dispatch: Dispatch, target: Target, schedule: Any = None) -> Emitted:
    """See `family.emit`; there is one schedule."""
    result, updates = dispatch.results[0], dispatch.operands[1]
    if any(t.type.bits < 8 for t in (dispatch.operands[0], result)):
        raise NotImplementedError(f"scatter on cpu has no code for tensors of {result.dtype}: convert them first")
    copied = None
    if not dispatch.attr(IN_PLACE, False):
        copied = emit_elementwise(Elementwise(copy_of_operand(dispatch), result.shape), target)
    kind, domain = str(dispatch.attr("kind")), updates.shape
    meeting = [] if kind == "set" else [int(a) for a in dispatch.attr("axes")]
    *outer, inner = [a for a in range(len(domain)) if a not in meeting] or [-1]
    width = 1 if inner < 0 else domain[inner]
    grid = (*(domain[a] for a in outer), dims.ceildiv(width, _BLOCK))
    turns = tuple(domain[a] for a in meeting)
    with cpu_kernel(dispatch, target, dims.product(grid), after=copied) as ck:
        k = ck.k
        place, value = (RegionEmitter(ck, r, len(domain)) for r in dispatch.regions)
        with ck.items() as item:
            *at_outer, block = ck.split(item, grid)
            start, stop = clipped(ck, block, _BLOCK, width)
            with k.for_(0, ck.dim(dims.product(turns))) as turn, k.for_(start, stop) as lane:
                at = dict(zip(meeting, ck.split(turn.iv, turns), strict=True))
                at |= {**dict(zip(outer, at_outer, strict=True)), inner: lane.iv}
                position = Position(tuple(at[a] for a in range(len(domain))))
                _store(ck, kind, place([], position), value([], position)[0])
        return ck.emitted(dims.product(domain))


def _store(ck: CpuKernel, kind: str, index: list[Val], value: Val) -> None:
    """Replace an element of the result by a value, or combine both, in f32 where elements are narrower floats."""
    result, one = ck.dispatch.results[0], Position(())
    if kind != "set":
        row = DTYPES[result.dtype]
        computed = "f32" if row.kind == "float" and row.bits < 32 else result.dtype
        there = load_elements(ck, ck.result(0), index, result.strides, result.dtype, one)
        if computed == result.dtype:
            value = reduction_operation(ck, kind, computed)(there, value)
        else:
            wide = [ck.k.cast(x, computed) for x in (there, value)]
            value = ck.k.cast(reduction_operation(ck, kind, computed)(*wide), result.dtype)
    store_elements(ck, value, ck.result(0), index, result.strides, result.dtype, one)
