"""Depthwise convolutions on the CPU: every channel has its own window, so lanes are channels and taps are summed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ingot import dims
from ingot.compiler.codegen.cpu_factors import as_number
from ingot.compiler.codegen.cpu_kernel import CpuKernel, cpu_kernel
from ingot.compiler.codegen.cpu_region import Position, load_lanes, storage_type
from ingot.compiler.codegen.cpu_space import tail_mask
from ingot.compiler.codegen.cpu_window import Window
from ingot.compiler.codegen.family import Emitted
from ingot.compiler.codegen.values import Val
from ingot.dispatch import Dispatch, TensorArg
from ingot.target import Target

if TYPE_CHECKING:
    from ingot.compiler.codegen.cpu_conv import PixelEpilogue

_VECTORS = 4  # vectors of channels of a work item: accumulators in flight
_ITEM_PIXELS = 256


def emit_depthwise(dispatch: Dispatch, window: Window, epilogue: PixelEpilogue, acc: str, target: Target) -> Emitted:
    """Write the kernel of a convolution with as many groups as channels in and out."""
    x, w = dispatch.operands[:2]
    unsigned = [bool(dispatch.attr(name)) for name in ("a_unsigned", "b_unsigned")]
    shape = dispatch.results[0].shape
    channels = shape[-1]
    assert isinstance(channels, int)
    lanes = target.vector_bits // (64 if acc == "f64" else 32)
    vectors = min(_VECTORS, -(-channels // lanes))
    width = vectors * lanes
    taps = math.prod(window.kernel)
    rows, row_size = dims.product(shape[:-2]), shape[-2]
    per_item = max(1, _ITEM_PIXELS // max(1, row_size)) if isinstance(row_size, int) else 4
    grid = (dims.ceildiv(channels, width), dims.ceildiv(rows, per_item))
    with cpu_kernel(dispatch, target, dims.product(grid)) as ck:
        k = ck.k
        emitter = epilogue.emitter(ck)
        weights = k.alloca(taps * width * (k.type(acc).bits // 8))
        with ck.items() as item:
            block, row_block = ck.split(item, grid)
            c0 = block * width
            left = k.const(channels, "i64") - c0
            masks = [None if channels % width == 0 else
                     tail_mask(ck, k.max(left - j * lanes, k.const(0, "i64")), lanes) for j in range(vectors)]  # fmt: skip
            source = ck.operand(1).at(c0 * ck.dim(w.strides[0]), storage_type(w.dtype))
            _pack_weights(ck, source, w, unsigned[1], window, weights, acc, lanes, masks)
            first_row = row_block * per_item
            with k.for_(first_row, k.min(first_row + per_item, ck.dim(rows))) as over_rows:
                image, *outer = ck.split(over_rows.iv, shape[:-2])
                base = ck.operand(0).at(image * ck.dim(x.strides[0]) + c0 * ck.dim(x.strides[-1]), storage_type(x.dtype))
                with k.for_(0, ck.dim(row_size)) as over_columns:
                    out = (*outer, over_columns.iv)
                    sums = _sum_taps(ck, x, unsigned[0], window, base, out, weights, acc, lanes, masks)
                    pixel = over_rows.iv * ck.dim(row_size) + over_columns.iv
                    for j, (value, mask) in enumerate(zip(sums, masks, strict=True)):
                        epilogue.store(ck, emitter, pixel, Position((c0 + j * lanes,), 0, lanes, mask), value)
        return ck.emitted(dims.product(shape) * taps * 2)


def _pack_weights(
    ck: CpuKernel, source: Val, w: TensorArg, unsigned: bool, window: Window, weights: Val, acc: str, lanes: int, masks: list
) -> None:
    """The weights of a block of channels as [taps][channels]."""
    k = ck.k
    strides, dtype = w.strides, w.dtype
    step = ck.dim(strides[0])
    with k.for_(0, math.prod(window.kernel)) as loop:
        tap = source.at(ck.offset(ck.split(loop.iv, window.kernel), strides[1:-1]), storage_type(dtype))
        for j, mask in enumerate(masks):
            value = load_lanes(ck, tap.at(step * (j * lanes), storage_type(dtype)), dtype, step, Position((), 0, lanes, mask))
            k.store(as_number(ck, value, dtype, unsigned, acc), weights.at(loop.iv * (len(masks) * lanes) + j * lanes, acc))


def _sum_taps(
    ck: CpuKernel, x: TensorArg, unsigned: bool, window: Window, base: Val, out: tuple, weights: Val, acc: str, lanes: int,
    masks: list,
) -> list[Val]:  # fmt: skip
    """The sums over the taps that exist of a window at output position `out`, as vectors of channels."""
    k = ck.k
    strides, dtype = x.strides, x.dtype
    zero = k.const(0, "i64")
    step = ck.dim(strides[-1])

    def nest(axis: int, p: Val, tap: Val, sums: list) -> list:
        if axis == window.rank:
            values = []
            for j, (mask, total) in enumerate(zip(masks, sums, strict=True)):
                at = Position((), 0, lanes, mask)
                raw = load_lanes(ck, p.at(step * (j * lanes), storage_type(dtype)), dtype, step, at)
                value = as_number(ck, raw, dtype, unsigned, acc)
                weight = k.load(weights.at(tap * (len(masks) * lanes) + j * lanes, acc), total.t, align=total.t.nbytes)
                values.append(k.fma(value, weight, total))
            return values
        first = window.first(ck, axis, out[axis])
        low, high = tap_range(ck, window, axis, first)
        with k.for_(low, high, carry=sums) as loop:
            position = first + loop.iv * window.dilations[axis]
            inner = p.at(position * ck.dim(strides[1 + axis]), storage_type(dtype))
            loop.yield_(nest(axis + 1, inner, tap * window.kernel[axis] + loop.iv, loop.carry))
        return loop.results

    return nest(0, base, zero, [k.const(0, k.vector_of(acc, lanes)) for _ in masks])


def tap_range(ck: CpuKernel, window: Window, axis: int, first: Val) -> tuple[Val, Val]:
    """The taps [low, high) along an axis that lie inside the tensor, for a window that begins at `first`."""
    k = ck.k
    zero, count, dilation = k.const(0, "i64"), k.const(window.kernel[axis], "i64"), window.dilations[axis]
    low = k.max(zero, zero - first + (dilation - 1))
    left = k.max(zero, ck.dim(window.size[axis]) - first + (dilation - 1))
    if dilation > 1:
        low, left = low // dilation, left // dilation
    return k.min(low, count), k.min(left, count)
