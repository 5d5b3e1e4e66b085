"""The family of `pool` on the CPU: lanes are channels, taps inside the tensor are combined."""

from __future__ import annotations

from typing import Any

from ingot import dims
from ingot.compiler.codegen.cpu_conv import pixel_epilogue
from ingot.compiler.codegen.cpu_depthwise import tap_range
from ingot.compiler.codegen.cpu_kernel import CpuKernel, cpu_kernel
from ingot.compiler.codegen.cpu_reduce import neutral, reduction_operation
from ingot.compiler.codegen.cpu_region import Position, load_lanes
from ingot.compiler.codegen.cpu_space import clipped, tail_mask, vector_lanes
from ingot.compiler.codegen.cpu_window import Window, window_of
from ingot.compiler.codegen.family import Emitted
from ingot.compiler.codegen.values import Val
from ingot.dispatch import Dispatch
from ingot.target import Target

_VECTORS = 4  # vectors of channels at a time
_ITEM_ELEMENTS = 8192


def emit(dispatch: Dispatch, target: Target, schedule: Any = None) -> Emitted:
    """See `family.emit`; there is one schedule."""
    x = dispatch.operands[0]
    shape = dispatch.results[0].shape
    kind = str(dispatch.attr("kind"))
    if kind not in ("max", "sum", "average"):
        raise ValueError(f"pool of kind {kind!r}: expected max, sum or average")
    window = window_of(dispatch, dispatch.attr("kernel"), x.shape[1:-1])
    ends = tuple(int(p) for p in dispatch.attr("pads"))[window.rank :] if dispatch.attr("count_include_pad", False) else None
    acc = dispatch.regions[0].args[0]
    channels, pixels = shape[-1], dims.product(shape[:-1])
    lanes = vector_lanes(target, [acc, "f32"])
    vectors = min(_VECTORS, -(-channels // lanes)) if isinstance(channels, int) else _VECTORS
    width = max(1, vectors) * lanes
    per_item = max(1, _ITEM_ELEMENTS // max(1, channels)) if isinstance(channels, int) else 64
    combined = "max" if kind == "max" else "sum"
    grid = dims.ceildiv(pixels, per_item)
    epilogue = pixel_epilogue(dispatch)
    with cpu_kernel(dispatch, target, grid) as ck:
        k = ck.k
        emitter = epilogue.emitter(ck)
        combine, start = reduction_operation(ck, combined, acc), neutral(combined, acc)
        step = ck.dim(x.strides[-1])
        with ck.items() as item:
            first, last = clipped(ck, item, per_item, pixels)
            with k.for_(first, last) as over_pixels, k.for_(0, ck.dim(channels), width) as over_channels:
                pixel, c0 = over_pixels.iv, over_channels.iv
                image, *out = ck.split(pixel, shape[:-1])
                left = ck.dim(channels) - c0
                whole = isinstance(channels, int) and channels % width == 0
                masks = [None if whole else tail_mask(ck, k.max(left - j * lanes, k.const(0, "i64")), lanes)
                         for j in range(max(1, vectors))]  # fmt: skip
                base = ck.operand(0).at(image * ck.dim(x.strides[0]) + c0 * step, x.dtype)

                def nest(axis: int, p: Val, sums: list[Val], out: list[Val] = out, masks: list = masks) -> list[Val]:
                    if axis == window.rank:
                        values = []
                        for j, (mask, total) in enumerate(zip(masks, sums, strict=True)):
                            at = Position((), 0, lanes, mask)
                            value = load_lanes(ck, p.at(step * (j * lanes), x.dtype), x.dtype, step, at)
                            values.append(combine(total, k.cast(value, acc)))
                        return values
                    origin = window.first(ck, axis, out[axis])
                    low, high = tap_range(ck, window, axis, origin)
                    with k.for_(low, high, carry=sums) as loop:
                        inner = (origin + loop.iv * window.dilations[axis]) * ck.dim(x.strides[1 + axis])
                        loop.yield_(nest(axis + 1, p.at(inner, x.dtype), loop.carry))
                    return loop.results

                values = nest(0, base, [k.const(start, k.vector_of(acc, lanes)) for _ in masks])
                if kind == "average":
                    count = k.cast(_count(ck, window, out, ends), acc)
                    values = [v / count if v.t.is_float else v.sdiv(v.like(count)) for v in values]
                for j, (value, mask) in enumerate(zip(values, masks, strict=True)):
                    epilogue.store(ck, emitter, pixel, Position((c0 + j * lanes,), 0, lanes, mask), value)
        return ck.emitted(dims.product(shape) * dims.product(window.kernel))


def _count(ck: CpuKernel, window: Window, out: list[Val], ends: tuple[int, ...] | None) -> Val:
    """Elements that the average at `out` is over: taps in the tensor, or with `ends` in its declared padding too."""
    k = ck.k
    count = k.const(1, "i64")
    for axis, o in enumerate(out):
        first = window.first(ck, axis, o)
        low, high = tap_range(ck, window, axis, first)
        if ends is not None:
            reach = k.max(k.const(0, "i64"), ck.dim(window.size[axis]) + ends[axis] - first)
            low, high = k.const(0, "i64"), k.min(reach.ceildiv(window.dilations[axis]), k.const(window.kernel[axis], "i64"))
        count = count * (high - low)
    return count
