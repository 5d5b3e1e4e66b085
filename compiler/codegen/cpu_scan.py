"""The family of `scan` on the CPU: lines run along the scanned axis, side by side in vectors where another axis is the last."""

from __future__ import annotations

from typing import Any

from ingot import dims
from ingot.compiler.codegen.cpu_kernel import cpu_kernel
from ingot.compiler.codegen.cpu_reduce import neutral, reduction_operation
from ingot.compiler.codegen.cpu_region import Position, RegionEmitter, load_elements, loaded_operands, store_elements
from ingot.compiler.codegen.cpu_space import clipped, for_lanes, takes_masks, vector_lanes
from ingot.compiler.codegen.family import Emitted
from ingot.compiler.codegen.values import Val
from ingot.dispatch import Dispatch
from ingot.target import Target

_BLOCK = 256  # lines of a work item


def emit(dispatch: Dispatch, target: Target, schedule: Any = None) -> Emitted:
    """See `family.emit`; there is one schedule."""
    x, result = dispatch.operands[0], dispatch.results[0]
    axis, kind = int(dispatch.attr("axis")), str(dispatch.attr("kind"))
    exclusive, reverse = (bool(dispatch.attr(n, False)) for n in ("exclusive", "reverse"))
    mapping = dispatch.regions[0]
    acc = mapping.type_of(mapping.results[0])
    lane_axis = x.rank - 1 if axis != x.rank - 1 else -1
    outer = [a for a in range(x.rank) if a not in (axis, lane_axis)]
    width = 1 if lane_axis < 0 else x.shape[lane_axis]
    grid = (*(x.shape[a] for a in outer), dims.ceildiv(width, _BLOCK))
    operands = {n for r in dispatch.regions for n in loaded_operands(r)}
    dtypes = [x.dtype, *(r.dtype for r in dispatch.results), acc, *(dispatch.operands[n].dtype for n in operands)]
    lanes = vector_lanes(target, dtypes)
    with cpu_kernel(dispatch, target, dims.product(grid)) as ck:
        k = ck.k
        combine, start = reduction_operation(ck, kind, acc), neutral(kind, acc)
        map_emitter, finish_emitter = (RegionEmitter(ck, r, x.rank) for r in dispatch.regions)
        length = ck.dim(x.shape[axis])
        with ck.items() as item:
            *at_outer, block = ck.split(item, grid)
            first, last = clipped(ck, block, _BLOCK, width)

            def line(lane: Val, n: int, mask: Val | None) -> None:
                """One line, or `n` of them side by side."""
                begin = k.const(start, k.vector_of(acc, n) if n else acc)
                with k.for_(0, length, carry=[begin]) as loop:
                    place = length - 1 - loop.iv if reverse else loop.iv
                    index = dict(zip(outer, at_outer, strict=True)) | {axis: place, lane_axis: lane}
                    position = tuple(index[a] for a in range(x.rank))
                    at = Position(position, lane_axis if n else -1, n, mask)
                    element = load_elements(ck, ck.operand(0), position, x.strides, x.dtype, at)
                    (value,) = map_emitter([element], at)
                    if n and value.t.kind != "vector":
                        value = k.broadcast(value, n)
                    total = combine(loop.carry[0], value)
                    done = finish_emitter([loop.carry[0] if exclusive else total], at)
                    for number, (y, r) in enumerate(zip(done, dispatch.results, strict=True)):
                        store_elements(ck, y, ck.result(number), position, r.strides, r.dtype, at)
                    loop.yield_([total])

            if lane_axis < 0:
                line(k.const(0, "i64"), 0, None)
            else:
                for_lanes(ck, first, last, lanes, line, masked=takes_masks(ck, dtypes))
        return ck.emitted(dims.product(result.shape))
