"""Operators that rearrange elements: views, concatenation, padding, and tensors made from positions."""

from __future__ import annotations

import numpy as np

from ingot import dims
from ingot.dims import Dim
from ingot.passes.onnx_inference.constants import type_of_array
from ingot.passes.onnx_inference.tensors import constant_elements
from ingot.passes.onnx_inference.views import resolve_slice, slice_bounds
from ingot.passes.onnx_lowering.elementwise import equal, less
from ingot.passes.onnx_lowering.lowering import Lowering, lowering
from ingot.passes.onnx_lowering.region_builder import RegionBuilder, Scalar
from ingot.passes.onnx_lowering.values import Source, TypedValue


@lowering("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def _reshape(low: Lowering) -> Source:
    return low.build.reshape(low.source(0), low.shape)


@lowering("Transpose")
def _transpose(low: Lowering) -> Source:
    perm = low.attr("perm")
    rank = len(low.shape)
    return low.build.transpose(low.source(0), range(rank)[::-1] if perm is None else perm)


@lowering("Expand")
def _expand(low: Lowering) -> Source:
    return low.build.expand(low.source(0), low.shape)


@lowering("Tile")
def _tile(low: Lowering) -> Source:
    x = low.tensor(0)
    repeats = low.node.sizes(1)
    apart: list[Dim] = []
    repeated: list[Dim] = []
    for d, r in zip(x.shape, repeats, strict=True):
        apart += [d] if r == 1 else [1, d]
        repeated += [d] if r == 1 else [r, d]
    return low.build.reshape(low.build.expand(low.build.reshape(x, apart), repeated), low.shape)


@lowering("Slice")
def _slice(low: Lowering) -> Source:
    x = low.source(0)
    starts: list[Dim] = [0] * x.rank
    steps = [1] * x.rank
    for axis, start, end, step in slice_bounds(low.node, x.rank):
        starts[axis], _ = resolve_slice(low.node, x.shape[axis], start, end, step)
        steps[axis] = step
    return low.build.slice(x, starts, low.shape, steps)


@lowering("Split")
def _split(low: Lowering) -> list[Source]:
    x = low.tensor(0)
    axis = low.node.axis(low.attr("axis"), x.rank)
    out: list[Source] = []
    at: Dim = 0
    for part in low.results:
        assert part is not None
        out.append(low.build.slice_axis(x, axis, at, part.shape[axis]))
        at = at + part.shape[axis]
    return out


@lowering("Concat")
def _concat(low: Lowering) -> Source:
    axis = low.node.axis(low.attr("axis"), len(low.shape))
    parts = [low.source(i) for i in range(len(low.sources))]
    return low.build.concat([p for p in parts if p.shape[axis] != 0] or parts[:1], axis, low.shape)


@lowering("DepthToSpace")
def _depth_to_space(low: Lowering) -> Source:
    x, b = low.tensor(0), low.attr("blocksize")
    n, _, h, w = x.shape
    depth = low.shape[1]
    if low.attr("mode") == "CRD":
        blocks, perm = (n, depth, b, b, h, w), (0, 1, 4, 2, 5, 3)
    else:
        blocks, perm = (n, b, b, depth, h, w), (0, 3, 4, 1, 5, 2)
    return low.build.reshape(low.build.transpose(low.build.reshape(x, blocks), perm), low.shape)


@lowering("SpaceToDepth")
def _space_to_depth(low: Lowering) -> Source:
    x, b = low.tensor(0), low.attr("blocksize")
    n, c, _, _ = x.shape
    blocks = low.build.reshape(x, (n, c, low.shape[2], b, low.shape[3], b))
    perm = (0, 1, 3, 5, 2, 4) if low.attr("mode") == "CRD" else (0, 3, 5, 1, 2, 4)
    return low.build.reshape(low.build.transpose(blocks, perm), low.shape)


# Padding --------------------------------------------------------------------------------------------------------------


def pad(
    low: Lowering, x: TypedValue, begins: list[Dim], shape: tuple[Dim, ...], mode: str, fill: Source | float = 0
) -> TypedValue:
    """x in a tensor of `shape`, `begins` elements from its beginning on each axis; negative ones crop.

    `mode` is constant (elements outside are `fill`), edge, reflect or wrap, as in ONNX's Pad.
    """
    moved = [i for i in range(x.rank) if begins[i] != 0 or shape[i] != x.shape[i]]
    inner = [shape[i] - begins[i] - x.shape[i] for i in range(x.rank)]
    if all(dims.is_nonnegative(-begins[i]) and dims.is_nonnegative(-inner[i]) for i in moved):
        return low.build.slice(x, [-b for b in begins], shape)

    def body(b: RegionBuilder) -> Scalar:
        inside: Scalar | None = None
        indices = []
        zero = b.const(0, "i64")
        for axis in range(x.rank):
            i = b.index(axis)
            if axis in moved:
                i = b.subi(i, b.dim(begins[axis]))
                if mode == "constant":
                    fits = b.andi(b.cmpi_sge(i, zero), b.cmpi_slt(i, b.dim(x.shape[axis])))
                    inside = fits if inside is None else b.andi(inside, fits)
                elif mode == "reflect":
                    last = b.dim(x.shape[axis] - 1)
                    i = b.maxsi(i, b.subi(zero, i))
                    away = b.subi(last, i)
                    i = b.subi(last, b.maxsi(away, b.subi(zero, away)))
                elif mode == "wrap":
                    n = b.dim(x.shape[axis])
                    i = b.subi(i, b.muli(b.floordivsi(i, n), n))
                i = b.clamped_index(i, x.shape[axis])
            indices.append(i)
        y = b.load_at(x, indices)
        if inside is None:
            return y
        outside = b.like(fill, y) if isinstance(fill, int | float) else b.load(fill)
        return b.select(inside, y, outside)

    return low.build.pointwise(x.type, shape, body)


@lowering("Pad")
def _pad(low: Lowering) -> Source:
    x = low.tensor(0)
    mode = low.attr("mode")
    if mode not in ("constant", "edge", "reflect", "wrap"):
        raise low.fail(f"mode {mode!r} is not supported", "use constant, edge, reflect or wrap")
    pads = low.node.dims(1)
    axes = low.node.axes(3, x.rank) if low.has(3) else list(range(x.rank))
    begins: list[Dim] = [0] * x.rank
    for axis, begin in zip(axes or [], pads, strict=False):
        begins[axis] = begin
    fill = low.optional(2)
    if fill is not None:
        fill = low.build.reshape(fill, ())
    return pad(low, x, begins, low.shape, mode, 0 if fill is None else fill)


@lowering("CenterCropPad")
def _center_crop_pad(low: Lowering) -> Source:
    x = low.tensor(0)
    # Half of what is added or taken away, rounded to zero.
    begins = [
        dims.maximum(dims.floordiv(new - old, 2), 0) - dims.maximum(dims.floordiv(old - new, 2), 0)
        for old, new in zip(x.shape, low.shape, strict=True)
    ]
    return pad(low, x, begins, low.shape, "constant")


# Tensors made from positions ------------------------------------------------------------------------------------------


@lowering("ConstantOfShape")
def _constant_of_shape(low: Lowering) -> Source:
    value = low.attr("value")
    fill = constant_elements(np.zeros(1, np.float32) if value is None else np.asarray(value)).item()
    type = low.type if value is None else type_of_array(np.asarray(value))
    return low.build.pointwise(type, low.shape, lambda b: b.known(fill, type))


@lowering("Range")
def _range(low: Lowering) -> Source:
    start, delta = low.node.value(0).item(), low.node.value(2).item()

    def body(b: RegionBuilder) -> Scalar:
        first, step, i = b.known(start, low.type), b.known(delta, low.type), b.index(0)
        if first.is_float:
            return b.addf(first, b.mulf(b.to_float(i, first.type), step))
        narrow = Scalar(b.cast(i, low.type).number, first.type)
        y = narrow if delta == 1 else b.muli(narrow, step)
        return y if start == 0 else b.addi(y, first)

    return low.build.pointwise(low.type, low.shape, body)


@lowering("EyeLike")
def _eye_like(low: Lowering) -> Source:
    k = low.attr("k")

    def body(b: RegionBuilder) -> Scalar:
        on = b.cmpi_eq(b.addi(b.index(0), b.const(k, "i64")), b.index(1))
        return b.select(on, b.known(1, low.type), b.known(0, low.type))

    return low.build.pointwise(low.type, low.shape, body)


@lowering("Trilu")
def _trilu(low: Lowering) -> Source:
    rank = len(low.shape)

    def body(b: RegionBuilder) -> Scalar:
        x = b.load(low.source(0))
        k = b.to_index(b.load(low.build.reshape(low.source(1), ()))) if low.has(1) else b.const(0, "i64")
        diagonal = b.addi(b.index(rank - 2), k)
        column = b.index(rank - 1)
        keep = b.cmpi_sge(column, diagonal) if low.attr("upper") else b.cmpi_sle(column, diagonal)
        return b.select(keep, x, b.like(0, x))

    return low.build.pointwise(low.type, low.shape, body)


@lowering("OneHot")
def _one_hot(low: Lowering) -> Source:
    indices, values = low.tensor(0), low.tensor(2)
    axis = low.node.axis(low.attr("axis"), indices.rank + 1)
    apart = low.build.reshaped(indices, (*indices.shape[:axis], 1, *indices.shape[axis:]))

    def body(b: RegionBuilder) -> Scalar:
        i = b.load(apart)
        i = b.emit("fptosi", (i,), "i64") if i.is_float else b.to_index(i)
        depth = b.dim(low.shape[axis])
        i = b.select(less(b, i, b.const(0, "i64")), b.addi(i, depth), i)
        off, on = (b.load_at(values, [b.const(k, "i64")]) for k in (0, 1))
        return b.select(equal(b, i, b.index(axis)), on, off)

    return low.build.pointwise(low.type, low.shape, body)
