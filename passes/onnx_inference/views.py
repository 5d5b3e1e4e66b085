"""Rules for operators that rearrange elements: reshapes, transposes, slices, concatenations, pads, and shapes as data."""

from __future__ import annotations

import math

import numpy as np

from ingot import dims
from ingot.dims import UNBOUNDED, Dim, Expr
from ingot.passes.onnx_inference.facts import at_most
from ingot.passes.onnx_inference.rules import Node, rule
from ingot.passes.onnx_inference.tensors import (
    FLOAT_NAMES,
    INT64,
    MAX_ELEMENTS,
    Tensor,
    constant_elements,
    object_array,
    with_value,
)


def _constant_sizes(shape: tuple[Dim, ...]) -> list[int] | None:
    """The sizes where all are constant and few elements in all, else None."""
    sizes = [d for d in shape if isinstance(d, int)]
    return sizes if len(sizes) == len(shape) and math.prod(sizes) <= MAX_ELEMENTS else None


def reshaped(x: Tensor, shape: tuple[Dim, ...]) -> Tensor:
    """`x` under another shape, elements included."""
    sizes = _constant_sizes(shape)
    if x.value is None or sizes is None or math.prod(sizes) != x.value.size:
        return Tensor(x.type, shape)
    return with_value(x.type, x.value.reshape(sizes))


@rule("Shape")
def _shape(node: Node) -> Tensor:
    shape = node.input(0).shape
    rank = len(shape)
    start, end = node.attr("start") or 0, node.attr("end")
    start = min(max(start + rank if start < 0 else start, 0), rank)
    end = rank if end is None else min(max(end + rank if end < 0 else end, 0), rank)
    return with_value(INT64, object_array(shape[start:end]))


@rule("Size")
def _size(node: Node) -> Tensor:
    return with_value(INT64, object_array([dims.product(node.input(0).shape)], ()))


@rule("Reshape")
def _reshape(node: Node) -> Tensor:
    x, target = node.input(0), node.dims(1)
    copies = not node.attr("allowzero")
    what = f"[{', '.join(map(str, x.shape))}] cannot be reshaped to [{', '.join(map(str, target))}]"
    if any(map(dims.has_signed, target)):
        shape = tuple(map(node.defined, _shape_read_at_run_time(x, target, copies)))
        node.equal(dims.product(x.shape), dims.product(shape), what)
        return reshaped(x, shape)
    sizes: list[Dim] = []
    for i, d in enumerate(target):
        if d == 0 and copies:
            if i >= x.rank:
                raise node.fail(f"shape [{', '.join(map(str, target))}] copies axis {i} of a tensor of rank {x.rank}",
                                "correct the shape")  # fmt: skip
            d = x.shape[i]
        elif isinstance(d, int) and d < -1:
            raise node.fail(f"shape [{', '.join(map(str, target))}] has a negative size", "correct the shape")
        sizes.append(d)
    total = dims.product(x.shape)
    if -1 in sizes:
        at = sizes.index(-1)
        if -1 in sizes[at + 1 :]:
            raise node.fail(f"shape [{', '.join(map(str, target))}] leaves two sizes open", "correct the shape")
        rest = dims.product(sizes[:at] + sizes[at + 1 :])
        # Where a size that is copied may be 0, dividing common factors away keeps the quotient defined.
        sizes[at] = node.divide_exactly(total, rest, what)
    else:
        node.equal(total, dims.product(sizes), what)
    return reshaped(x, tuple(sizes))


def _shape_read_at_run_time(x: Tensor, target: list[Dim], copies: bool) -> tuple[Dim, ...]:
    """The sizes that a Reshape gives where any element of its target may turn out to be -1 or, if `copies`, 0."""
    given = [dims.select(d, 0, x.shape[i], d) if copies and i < x.rank else d for i, d in enumerate(target)]
    rest = dims.product(dims.select(d, -1, 1, d) for d in given)
    open_size = dims.floordiv(dims.product(x.shape), dims.maximum(rest, 1))
    return tuple(dims.maximum(dims.select(d, -1, open_size, d), 0) for d in given)


@rule("Flatten")
def _flatten(node: Node) -> Tensor:
    x = node.input(0)
    axis = node.attr("axis")
    axis = x.rank if axis == x.rank else node.axis(axis, x.rank)
    return reshaped(x, (dims.product(x.shape[:axis]), dims.product(x.shape[axis:])))


@rule("Unsqueeze")
def _unsqueeze(node: Node) -> Tensor:
    x = node.input(0)
    rank = x.rank + len(node.ints(1))
    axes = node.axes(1, rank) or []
    if len(set(axes)) < len(axes):
        raise node.fail(f"axes {axes} repeat an axis", "correct the axes")
    sizes = iter(x.shape)
    return reshaped(x, tuple(1 if i in axes else next(sizes) for i in range(rank)))


@rule("Squeeze")
def _squeeze(node: Node) -> Tensor:
    x = node.input(0)
    axes = node.axes(1, x.rank)
    if axes is None:
        unknown = [d for d in x.shape if isinstance(d, Expr)]
        if unknown:
            raise node.fail(f"without axes its rank depends on whether {unknown[0]} is 1", "give the axes")
        axes = [i for i, d in enumerate(x.shape) if d == 1]
    for i in axes:
        node.equal(x.shape[i], 1, f"axis {i} of size {x.shape[i]} cannot be squeezed")
    return reshaped(x, tuple(d for i, d in enumerate(x.shape) if i not in axes))


@rule("Transpose")
def _transpose(node: Node) -> Tensor:
    x = node.input(0)
    perm = node.attr("perm")
    perm = list(range(x.rank))[::-1] if perm is None else list(perm)
    if sorted(perm) != list(range(x.rank)):
        raise node.fail(f"perm {perm} is no permutation of {x.rank} axes", "correct the attribute perm")
    if x.value is not None:
        return with_value(x.type, x.value.transpose(perm))
    return Tensor(x.type, tuple(x.shape[p] for p in perm))


@rule("Concat")
def _concat(node: Node) -> Tensor:
    inputs = [node.input(i) for i in range(len(node.inputs))]
    first = inputs[0]
    axis = node.axis(node.attr("axis"), first.rank)
    shape = list(first.shape)
    for k, x in enumerate(inputs[1:], 1):
        if x.rank != first.rank or x.type != first.type:
            raise node.fail(f"inputs 0 and {k} differ in rank or element type", "correct the model")
        for i, d in enumerate(x.shape):
            shape[i] = shape[i] + d if i == axis else node.equal(shape[i], d, f"axis {i} of input {k} differs")
    sizes = _constant_sizes(tuple(shape))
    if sizes is None or any(_constant_sizes(x.shape) is None for x in inputs):
        return Tensor(first.type, tuple(shape))
    parts = [x.value if x.value is not None else np.full(_constant_sizes(x.shape) or [], None, object) for x in inputs]
    return with_value(first.type, np.concatenate(parts, axis))


def _total(sizes: list[Dim]) -> Dim:
    total: Dim = 0
    for d in sizes:
        total = total + d
    return total


@rule("Split")
def _split(node: Node) -> list[Tensor]:
    x = node.input(0)
    axis = node.axis(node.attr("axis"), x.rank)
    size = x.shape[axis]
    if node.has(1):
        sizes = node.sizes(1)
        node.equal(_total(sizes), size, "the sizes of the parts do not add up")
    else:
        count = node.attr("num_outputs") or node.outputs
        part = dims.ceildiv(size, count)
        exact = dims.exact_div(size, count)
        # With a remainder the last part is smaller (ONNX, Split-18).
        sizes = [exact] * count if exact is not None else [part] * (count - 1) + [size - part * (count - 1)]
    out, at = [], 0
    for d in sizes:
        shape = tuple(d if i == axis else s for i, s in enumerate(x.shape))
        if x.value is not None and isinstance(d, int):
            out.append(with_value(x.type, x.value.take(range(at, at + d), axis)))
            at += d
        else:
            out.append(Tensor(x.type, shape))
    return out


def clamp_position(node: Node, position: Dim, size: Dim, what: str) -> Dim:
    """A slice's start or end within [0, size], counted from the end where it is negative."""
    if isinstance(position, int):
        if position >= UNBOUNDED:
            return size
        if position <= -UNBOUNDED:
            return 0
    if dims.has_signed(position):
        return dims.maximum(dims.minimum(_from_the_beginning(position, size), size), 0)
    nonnegative = dims.is_nonnegative(position)
    if not nonnegative and dims.is_nonnegative(-1 - position):
        position = size + position
        return position if dims.is_nonnegative(position) else dims.maximum(position, 0)
    if not nonnegative:
        node.at_most(0, position, f"{what} {position} is negative")
    return position if node.facts.is_at_most(position, size) else dims.minimum(position, size)


def _from_the_beginning(position: Dim, size: Dim) -> Dim:
    """A position that counts from the end where it turns out to be negative."""
    is_negative = dims.maximum(dims.minimum(-position, 1), 0)
    return position + size * is_negative


def slice_bounds(node: Node, rank: int) -> list[tuple[int, Dim, Dim, int]]:
    """(axis, start, end, step) for each sliced axis, from a Slice node's operands."""
    starts, ends = node.dims(1), node.dims(2)
    axes = node.axes(3, rank) if node.has(3) else list(range(len(starts)))
    steps = node.ints(4) if node.has(4) else [1] * len(starts)
    assert axes is not None
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise node.fail("starts, ends, axes and steps differ in length, or a step is 0", "correct the model")
    return list(zip(axes, starts, ends, steps, strict=True))


def resolve_slice(node: Node, size: Dim, start: Dim, end: Dim, step: int) -> tuple[Dim, Dim]:
    """The first position and the number of elements of a slice of an axis of `size`."""
    first: Dim
    last: Dim
    if step > 0:
        first = clamp_position(node, start, size, "start")
        last = clamp_position(node, end, size, "end")
        length = last - first
        if not at_most(first, last):
            length = dims.maximum(length, 0)
        return first, node.defined(dims.ceildiv(length, step))
    # Going down: start within [0, size - 1], end within [-1, size - 1].
    first = size - 1  # -1 where there is no element
    if dims.has_signed(start):
        first = dims.minimum(dims.maximum(_from_the_beginning(start, size), 0), size - 1)
    elif isinstance(start, int) and start < -1:
        first = size + start
        if not dims.is_nonnegative(first):
            first = dims.minimum(dims.maximum(first, 0), size - 1)
    elif start != -1 and (not isinstance(start, int) or start < UNBOUNDED):
        first = clamp_position(node, start, size - 1, "start")
    last = -1
    if dims.has_signed(end):
        last = dims.maximum(dims.minimum(_from_the_beginning(end, size), size - 1), -1)
    elif not (isinstance(end, int) and end <= -UNBOUNDED):
        if isinstance(end, int) and end < 0:
            last = size + end if dims.is_nonnegative(size + end + 1) else dims.maximum(size + end, -1)
        else:
            last = clamp_position(node, end, size - 1, "end")
    length = first - last
    return first, node.defined(dims.ceildiv(length if dims.is_nonnegative(length) else dims.maximum(length, 0), -step))


@rule("Slice")
def _slice(node: Node) -> Tensor:
    x = node.input(0)
    shape = list(x.shape)
    value = x.value
    for axis, start, end, step in slice_bounds(node, x.rank):
        first, length = resolve_slice(node, shape[axis], start, end, step)
        shape[axis] = length
        if value is not None and isinstance(first, int) and isinstance(length, int):
            value = value.take([first + i * step for i in range(length)], axis)
        else:
            value = None
    return Tensor(x.type, tuple(shape)) if value is None else with_value(x.type, value)


@rule("Expand")
def _expand(node: Node) -> Tensor:
    x = node.input(0)
    target = tuple(node.sizes(1))
    shape = node.broadcast(x.shape, target)
    sizes = _constant_sizes(shape)
    if x.value is not None and sizes is not None:
        return with_value(x.type, np.broadcast_to(x.value, sizes).copy())
    return Tensor(x.type, shape)


@rule("Tile")
def _tile(node: Node) -> Tensor:
    x = node.input(0)
    repeats = node.sizes(1)
    if len(repeats) != x.rank:
        raise node.fail(f"{len(repeats)} repeats for a tensor of rank {x.rank}", "correct the model")
    shape = tuple(d * r for d, r in zip(x.shape, repeats, strict=True))
    if x.value is not None and _constant_sizes(shape) is not None:
        return with_value(x.type, np.tile(x.value, node.ints(1)))
    return Tensor(x.type, shape)


@rule("ConstantOfShape")
def _constant_of_shape(node: Node) -> Tensor:
    from ingot.passes.onnx_inference.constants import type_of_array

    shape = tuple(node.sizes(0))
    fill = node.attr("value")
    fill = np.zeros(1, np.float32) if fill is None else np.asarray(fill)
    type = type_of_array(fill)
    sizes = _constant_sizes(shape)
    if sizes is None:
        return Tensor(type, shape)
    return with_value(type, np.broadcast_to(constant_elements(fill.reshape(())), sizes).copy())


@rule("Range")
def _range(node: Node) -> Tensor:
    type = node.input(0).type
    start, limit, delta = (node.element(i) for i in range(3))
    if any(isinstance(e, float) and not e.is_integer() for e in (start, limit, delta)):
        if any(isinstance(e, Expr) for e in (start, limit, delta)):
            raise node.fail("its floating-point bounds are symbolic", "use integer bounds")
        return Tensor(type, (max(math.ceil((limit - start) / delta), 0),))
    start, limit, delta = (int(e) if isinstance(e, float) else e for e in (start, limit, delta))
    if delta == 0:
        raise node.fail("delta is 0", "correct the model")
    if isinstance(delta, int):
        span = limit - start if delta > 0 else start - limit
        length = dims.ceildiv(span if dims.is_nonnegative(span) else dims.maximum(span, 0), abs(delta))
    else:
        length = dims.maximum(dims.ceildiv(limit - start, delta), 0)
    length = node.defined(length)
    if isinstance(length, int) and length <= MAX_ELEMENTS:
        elements = [start + i * delta for i in range(length)]
        if type.name in FLOAT_NAMES:
            elements = [float(e) if isinstance(e, int) else e for e in elements]
        return with_value(type, object_array(elements))
    return Tensor(type, (length,))


@rule("Pad")
def _pad(node: Node) -> Tensor:
    x = node.input(0)
    pads = node.dims(1)
    axes = node.axes(3, x.rank) if node.has(3) else list(range(x.rank))
    assert axes is not None
    if len(pads) != 2 * len(axes):
        raise node.fail(f"{len(pads)} pads for {len(axes)} axes", "correct the model")
    shape = list(x.shape)
    for k, axis in enumerate(axes):
        shape[axis] = node.size(shape[axis] + pads[k] + pads[k + len(axes)], f"axis {axis} of the padded tensor")
    for k, axis in enumerate(axes):
        if pads[k] != 0 or pads[k + len(axes)] != 0:
            node.reads(x.shape[axis], 1, shape, f"axis {axis} is empty: padding it is not supported")
    return Tensor(x.type, tuple(shape))


@rule("CenterCropPad")
def _center_crop_pad(node: Node) -> Tensor:
    x, sizes = node.input(0), node.sizes(1)
    axes = node.attr("axes")
    axes = list(range(x.rank)) if axes is None else [node.axis(a, x.rank) for a in axes]
    if len(sizes) != len(axes):
        raise node.fail(f"{len(sizes)} sizes for {len(axes)} axes", "correct the model")
    wanted = dict(zip(axes, sizes, strict=True))
    return Tensor(x.type, tuple(wanted.get(i, d) for i, d in enumerate(x.shape)))


@rule("DepthToSpace")
def _depth_to_space(node: Node) -> Tensor:
    x, b = node.input(0), node.attr("blocksize")
    n, c, *spatial = x.shape
    return Tensor(x.type, (n, node.divide_exactly(c, b ** len(spatial), "channels do not divide by the blocks"),
                           *(d * b for d in spatial)))  # fmt: skip


@rule("SpaceToDepth")
def _space_to_depth(node: Node) -> Tensor:
    x, b = node.input(0), node.attr("blocksize")
    n, c, *spatial = x.shape
    sizes = (node.divide_exactly(d, b, "sizes do not divide by the blocks") for d in spatial)
    return Tensor(x.type, (n, c * b ** len(spatial), *sizes))
