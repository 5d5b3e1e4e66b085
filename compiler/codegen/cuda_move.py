"""Copies between strided views on NVIDIA GPUs.

Where source and destination are contiguous along the same axis, a move is a walk like a pointwise one. Where they are not
(a transpose), tiles of 64 x 64 pass through shared memory, so that both sides are read and written along their contiguous
axes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from ingot import dims
from ingot.compiler.codegen.cuda_domain import collapse_domain
from ingot.compiler.codegen.cuda_kernel import (
    DispatchKernel,
    dispatch_kernel,
    divides,
    memory_type,
    region_buffers,
    symbol_of,
    vector_lanes,
)
from ingot.compiler.codegen.cuda_pointwise import PointwiseSchedule, choose, emit_domain
from ingot.compiler.codegen.family import Emitted
from ingot.compiler.codegen.kernel_builder import KernelModule
from ingot.compiler.codegen.values import Val
from ingot.dialects.mlir import ir
from ingot.dims import Dim
from ingot.dispatch import Dispatch, TensorArg
from ingot.kernel_plan import BufferArg, KernelLaunch, KernelPlan
from ingot.target import Target

TILE = 64
THREADS = 256


@dataclass(frozen=True)
class TransposeSchedule:
    """Axes along which the source and the destination are contiguous, and elements of a vector on each side."""

    source_axis: int
    lanes_in: int
    lanes_out: int


def emit(dispatch: Dispatch, target: Target, schedule: Any = None) -> Emitted:
    """Write the kernel of a `move` dispatch."""
    d = collapse_domain(dispatch, streamed=[0])
    if d.results[0].type.bits < 8:
        d = collapse_domain(_as_bytes(d), streamed=[0])
    if schedule is None:
        schedule = transpose_schedule(d) or choose(d)
    if isinstance(schedule, PointwiseSchedule):
        return emit_domain(dispatch, d, target, schedule, _element, (BufferArg("operand", 0),))
    return _transpose(dispatch, d, target, schedule)


def _as_bytes(d: Dispatch) -> Dispatch:
    """A copy of elements of four bits as one of bytes. Raises NotImplementedError where rows are not whole bytes."""
    x, y = d.operands[0], d.results[0]

    def halved(t: TensorArg) -> TensorArg:
        steps = [s for n, s in zip(t.shape[:-1], t.strides[:-1], strict=True) if n != 1]
        if t.rank == 0 or t.strides[-1] != 1 or not all(divides(2, n, d) for n in (t.shape[-1], *steps)):
            raise NotImplementedError(f"move of {t.dtype}[{', '.join(map(str, t.shape))}]: rows must be whole bytes")
        shape = (*t.shape[:-1], dims.floordiv(t.shape[-1], 2))
        return TensorArg("i8", shape, (*(dims.floordiv(s, 2) for s in t.strides[:-1]), 1), t.align)

    if x.dtype != y.dtype or not d.regions[0].is_identity:
        raise NotImplementedError(f"move from {x.dtype} to {y.dtype}: results of four bits can only be copied")
    region = replace(d.regions[0], args=("i8",))
    return replace(d, operands=(halved(x), *d.operands[1:]), results=(halved(y),), regions=(region,))


def _element(dk: DispatchKernel, position: list[Val], lanes: int) -> list[Val]:
    domain = dk.d.results[0].shape
    return dk.region(dk.d.regions[0], [dk.load(0, position, domain, lanes)], position, domain, lanes)


def transpose_schedule(d: Dispatch) -> TransposeSchedule | None:
    """The schedule of a move whose sides are contiguous along different axes, both long; None for other moves."""
    x, y = d.operands[0], d.results[0]
    if x.rank != y.rank or x.type.bits < 8 or x.rank < 2 or y.strides[-1] != 1 or x.strides[-1] == 1:
        return None
    axes = [i for i, s in enumerate(x.strides) if s == 1 and x.shape[i] != 1]
    if not axes:
        return None
    axis = axes[-1]
    if any(isinstance(n, int) and n < 16 for n in (x.shape[axis], x.shape[-1])):
        return None
    last = x.rank - 1
    swapped = replace(x, shape=_swap(x.shape, axis, last), strides=_swap(x.strides, axis, last))
    return TransposeSchedule(axis, _lanes(swapped, d), _lanes(y, d))


def _swap(values: tuple[Dim, ...], i: int, j: int) -> tuple[Dim, ...]:
    out = list(values)
    out[i], out[j] = out[j], out[i]
    return tuple(out)


def _lanes(t: TensorArg, d: Dispatch) -> int:
    return math.gcd(vector_lanes(t, d), 8)


def _transpose(dispatch: Dispatch, d: Dispatch, target: Target, s: TransposeSchedule) -> Emitted:
    domain = d.results[0].shape
    rows, cols = domain[s.source_axis], domain[-1]
    others = [i for i in range(len(domain) - 1) if i != s.source_axis]
    grid: tuple[Dim, Dim, Dim] = (
        dims.ceildiv(rows, TILE) * dims.ceildiv(cols, TILE) * dims.product(domain[i] for i in others), 1, 1
    )  # fmt: skip
    launch = KernelLaunch(
        symbol_of(dispatch), grid, (BufferArg("operand", 0), *region_buffers(d, skip=[0])), (THREADS, 1, 1),
        bytes=2 * dims.product(domain) * d.results[0].type.bytes,
    )  # fmt: skip
    module = KernelModule(target.name, context=ir.Context.current)
    with module, dispatch_kernel(module, d, launch) as dk:
        k = dk.k
        tiles_r, tiles_c = dk.size(dims.ceildiv(rows, TILE), "i32"), dk.size(dims.ceildiv(cols, TILE), "i32")
        block = k.block_id()
        tile_r, rest = block % tiles_r, block // tiles_r
        tile_c, rest = rest % tiles_c, rest // tiles_c
        other = dk.split(rest, [domain[i] for i in others])
        n_rows, n_cols = dk.size(rows, "i32"), dk.size(cols, "i32")
        x = d.operands[0]
        size = x.type.bytes
        # A line holds one column of the tile, padded by a word or an element so that both directions meet different banks.
        line = TILE * size + max(4, size)
        shared = k.static_shared(TILE * line)
        thread = k.thread_id()

        def position(row: Val, col: Val) -> list[Val]:
            out = [k.const(0, "i32")] * len(domain)
            for i, at in zip(others, other, strict=True):
                out[i] = at
            out[s.source_axis], out[-1] = row, col
            return out

        name = memory_type(x.dtype)
        for i in range(TILE * TILE // (THREADS * s.lanes_in)):
            at = thread + i * THREADS
            row, col = (at % (TILE // s.lanes_in)) * s.lanes_in, at // (TILE // s.lanes_in)
            place = position(tile_r * TILE + row, tile_c * TILE + col)
            with k.if_((place[s.source_axis] < n_rows) & (place[-1] < n_cols)):
                p = dk.pointer("operand", 0).at(dk.offset(x, place), name)
                values = k.elements(k.load(p, k.vector_of(name, s.lanes_in), align=s.lanes_in * size))
                for j, value in enumerate(values):
                    k.store(value, shared + (col * line + (row + j) * size), align=size)
        k.barrier()
        for i in range(TILE * TILE // (THREADS * s.lanes_out)):
            at = thread + i * THREADS
            col, row = (at % (TILE // s.lanes_out)) * s.lanes_out, at // (TILE // s.lanes_out)
            place = position(tile_r * TILE + row, tile_c * TILE + col)
            with k.if_((place[s.source_axis] < n_rows) & (place[-1] < n_cols)):
                values = [k.load(shared + ((col + j) * line + row * size), name, align=size) for j in range(s.lanes_out)]
                lanes = s.lanes_out if s.lanes_out > 1 else 0
                value = k.vector(values) if lanes else values[0]
                if x.dtype == "i1":
                    value = value.ne(0)
                for r, result in enumerate(dk.region(d.regions[0], [value], place, domain, lanes)):
                    dk.store(r, result, place, lanes)
    return Emitted(KernelPlan((launch,)), module.module)
