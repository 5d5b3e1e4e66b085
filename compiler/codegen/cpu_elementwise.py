"""Elementwise kernels for the CPU: `pointwise` and `move` are one loop nest over a collapsed iteration space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ingot import dims
from ingot.compiler.codegen.cpu_kernel import CpuKernel, cpu_kernel
from ingot.compiler.codegen.cpu_nibbles import begin_bytes, shares_bytes
from ingot.compiler.codegen.cpu_region import (
    Position,
    RegionEmitter,
    domain_strides,
    indexed_axes,
    load_elements,
    loaded_operands,
    storage_type,
    store_elements,
)
from ingot.compiler.codegen.cpu_space import (
    Space,
    chunks,
    clipped,
    collapse,
    for_lanes,
    inner_axis,
    order_by_result,
    takes_masks,
    vector_lanes,
)
from ingot.compiler.codegen.cpu_transpose import transpose_block
from ingot.compiler.codegen.family import Emitted
from ingot.compiler.codegen.values import Val
from ingot.dims import Dim
from ingot.dispatch import Dispatch, known_multiple
from ingot.target import Target

TRANSPOSE_ROWS, TRANSPOSE_LANES = 64, 256  # a work item where an operand is contiguous along another axis than the result


@dataclass(frozen=True)
class Elementwise:
    """An elementwise computation.

    Attributes:
        dispatch: whose only region is run.
        shape: the iteration domain.
        argument: number of the operand whose element is the region's argument, or -1.
        start: element offsets, over the results' axes, of the domain's origin in the results; () for none.
    """

    dispatch: Dispatch
    shape: tuple[Dim, ...]
    argument: int = -1
    start: tuple[Dim, ...] = ()


def emit_elementwise(work: Elementwise, target: Target) -> Emitted:
    """Write the kernel."""
    dispatch = work.dispatch
    region = dispatch.regions[0]
    operands = loaded_operands(region)
    if work.argument >= 0 and work.argument not in operands:
        operands.append(work.argument)
    results = [r.strides for r in dispatch.results]
    accesses = [*results, *(domain_strides(dispatch.operands[n], len(work.shape)) for n in operands)]
    order = order_by_result(work.shape, results[0])
    space = collapse(work.shape, accesses, indexed_axes(region), order)
    rows = _transposed_axis(space, len(results))
    if rows is not None:
        space = _with_row_axis(space, rows)
    strides = dict(zip(operands, space.strides[len(results) :], strict=True))
    dtypes = [dispatch.operands[n].dtype for n in operands] + [r.dtype for r in dispatch.results]
    computed = dtypes if region.is_identity else dtypes + [i.type for i in region.insts]
    lanes = vector_lanes(target, computed)
    inner = 1 if rows is not None else inner_axis(space.sizes, space.strides[: len(results)], dtypes, lanes, dispatch)
    # Work items, and loops, are over the space with the axes that lanes run over made one.
    sizes = space.sizes if inner == 1 else (*space.sizes[:-2], space.sizes[-2] * inner)
    part = chunks(sizes) if rows is None else chunks(sizes, TRANSPOSE_ROWS, TRANSPOSE_LANES)
    packed = any(shares_bytes(r.dtype) for r in dispatch.results)
    # Work items that may meet within a byte run one after the other.
    serial = packed and not _ends_at_bytes(work, space)
    with cpu_kernel(dispatch, target, 1 if serial else dims.product(part.grid)) as ck:
        emitter = RegionEmitter(ck, region, len(space.sizes), strides, space.axes)
        masked = takes_masks(ck, dtypes) and not packed
        starts = [ck.offset([ck.dim(d) for d in work.start], r) if work.start else ck.k.const(0, "i64") for r in results]

        def at_position(at: Position) -> None:
            _element(ck, work, emitter, space, starts, at)

        def work_item(item: Val) -> None:
            *outer, lane_block = ck.split(item, part.grid)
            start, stop = clipped(ck, lane_block, part.lanes, sizes[-1])
            axis = len(space.sizes) - 1

            def row(index: Sequence[Val]) -> None:
                def vector(i: Val, n: int, mask: Val | None) -> None:
                    along = (i,) if inner == 1 else (i // inner, i % inner)
                    at_position(Position((*index, *along), axis if n else -1, n, mask, inner if n else 1))

                for_lanes(ck, start, stop, lanes, vector, masked=masked)

            if not outer:
                row(())
            else:
                first, last = clipped(ck, outer[-1], part.rows, sizes[-2])
                if rows is None:
                    with ck.k.for_(first, last) as loop:
                        row((*outer[:-1], loop.iv))
                elif _is_plain_copy(work) and ck.k.type(storage_type(dtypes[0])).bits >= 16:
                    source = ck.operand(work.argument)
                    at = ck.offset(outer[:-1], strides[work.argument][:-2])
                    to = ck.offset(outer[:-1], space.strides[0][:-2])
                    storage = storage_type(dtypes[0])
                    row_step, lane_step = (ck.dim(d) for d in space.strides[0][-2:])
                    source_row, source_lane = (ck.dim(d) for d in strides[work.argument][-2:])
                    transpose_block(
                        ck, storage, source.at(at, storage), source_row, source_lane,
                        ck.result(0).at(to + starts[0], storage), row_step, lane_step, (first, last), (start, stop),
                    )  # fmt: skip
                else:

                    def column(i: Val, n: int, mask: Val | None) -> None:
                        with ck.k.for_(first, last) as loop:
                            at_position(Position((*outer[:-1], loop.iv, i), axis if n else -1, n, mask))

                    for_lanes(ck, start, stop, lanes, column, masked=masked)

        with ck.items() as item:
            if serial:
                with ck.k.for_(0, ck.dim(dims.product(part.grid))) as loop:
                    work_item(loop.iv)
            else:
                work_item(item)
        return ck.emitted()


def _ends_at_bytes(work: Elementwise, space: Space) -> bool:
    """True where rows and vectors of every result whose elements share bytes begin at whole bytes."""
    d = work.dispatch

    def even(x: Dim) -> bool:
        return known_multiple(x, d) % 2 == 0

    for result, strides in zip(d.results, space.strides, strict=False):
        if not shares_bytes(result.dtype):
            continue
        origin = zip(work.start, result.strides, strict=False)
        if not begin_bytes(strides, -1, d) or not all(even(a) or even(b) for a, b in origin):
            return False
    return True


def _element(
    ck: CpuKernel, work: Elementwise, emitter: RegionEmitter, space: Space, starts: Sequence[Val], at: Position
) -> None:
    """One vector (or element) of the computation: loads, region, stores."""
    args = []
    if work.argument >= 0:
        tensor = ck.dispatch.operands[work.argument]
        strides = emitter.strides[work.argument]
        args.append(load_elements(ck, ck.operand(work.argument), at.index, strides, tensor.dtype, at))
    values = emitter(args, at)
    for number, (value, result, start) in enumerate(zip(values, ck.dispatch.results, starts, strict=True)):
        store_elements(ck, value, ck.result(number), at.index, space.strides[number], result.dtype, at, start)


def _is_plain_copy(work: Elementwise) -> bool:
    return work.argument >= 0 and work.dispatch.regions[0].is_identity


def _transposed_axis(space: Space, results: int) -> int | None:
    """The axis along which an operand is contiguous while the last axis, contiguous in the result, strides through it."""
    last = len(space.sizes) - 1
    if any(s[last] != 1 for s in space.strides[:results]):
        return None
    for strides in space.strides[results:]:
        if strides[last] not in (0, 1) and 1 in strides:
            return strides.index(1)
    return None


def _with_row_axis(space: Space, rows: int) -> Space:
    """The space with axis `rows` moved to stand before the last."""
    last = len(space.sizes) - 1
    order = [*(a for a in range(last) if a != rows), rows, last]
    return replace(
        space,
        sizes=tuple(space.sizes[a] for a in order),
        axes={original: order.index(a) for original, a in space.axes.items()},
        strides=tuple(tuple(s[a] for a in order) for s in space.strides),
    )
