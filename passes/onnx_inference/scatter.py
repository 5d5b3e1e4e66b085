"""Rules for operators that write to computed positions."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ingot import dims
from ingot.dims import Dim
from ingot.passes.onnx_inference.indexing import check_elements
from ingot.passes.onnx_inference.rules import Node, rule
from ingot.passes.onnx_inference.tensors import Tensor


def _check_types(node: Node, x: Tensor, updates: Tensor) -> None:
    if x.type != updates.type:
        raise node.fail(f"its data is {x.type.name}, its updates are {updates.type.name}", "insert a Cast")


@rule("ScatterElements")
def _scatter_elements(node: Node) -> Tensor:
    x, indices, updates = (node.input(i) for i in range(3))
    _check_types(node, x, updates)
    for written, given in zip(indices.shape, updates.shape, strict=True):
        node.equal(written, given, "indices and updates differ in size")
    check_elements(node, x, indices, "replace")
    return Tensor(x.type, x.shape)


@rule("ScatterND")
def _scatter_nd(node: Node) -> Tensor:
    x, indices, updates = (node.input(i) for i in range(3))
    _check_types(node, x, updates)
    depth = indices.shape[-1]
    if not isinstance(depth, int):
        raise node.fail(f"the last size of its indices, {depth}, decides the rank of its updates", "make it constant")
    if depth > x.rank:
        raise node.fail(f"indices of {depth} coordinates for a tensor of rank {x.rank}", "correct the model")
    for wanted, given in zip((*indices.shape[:-1], *x.shape[depth:]), updates.shape, strict=True):
        node.equal(wanted, given, "updates do not have the size that indices and data give them")
    for axis in range(depth):
        node.reads(x.shape[axis], 1, updates.shape, f"axis {axis} has no element to replace")
    return Tensor(x.type, x.shape)


@rule("TensorScatter")
def _tensor_scatter(node: Node) -> Tensor:
    x, updates = node.input(0), node.input(1)
    _check_types(node, x, updates)
    axis = node.axis(node.attr("axis"), x.rank)
    if axis == 0:
        raise node.fail("axis 0 is that of the batch", "correct the attribute axis")
    for i, (size, given) in enumerate(zip(x.shape, updates.shape, strict=True)):
        if i != axis:
            node.equal(size, given, "cache and update differ in size")
    node.at_most(updates.shape[axis], x.shape[axis], "the update is longer than the cache")
    if node.has(2):
        node.equal(node.input(2).shape[0], x.shape[0], "there is not one write index for each of the batch")
    return Tensor(x.type, x.shape)


@dataclass(frozen=True)
class Unpooled:
    """What a MaxUnpool undoes: `shape` is that of the tensor into which its indices point."""

    shape: tuple[Dim, ...]

    @classmethod
    def of(cls, node: Node) -> Unpooled:
        """Read a node."""
        x, kernel = node.input(0), list(node.attr("kernel_shape"))
        count = len(kernel)
        strides, pads = node.attr("strides") or [1] * count, node.attr("pads") or [0] * (2 * count)
        sizes = [
            (d - 1) * strides[i] - (pads[i] + pads[count + i]) + kernel[i] for i, d in enumerate(x.shape[2:])
        ]
        return cls((*x.shape[:2], *sizes))


@rule("MaxUnpool")
def _max_unpool(node: Node) -> Tensor:
    x, indices = node.input(0), node.input(1)
    for a, b in zip(x.shape, indices.shape, strict=True):
        node.equal(a, b, "indices and data differ in size")
    shape = Unpooled.of(node).shape
    node.reads(dims.product(shape), 1, x.shape, "there is no element to write")
    if not node.has(2):
        return Tensor(x.type, shape)
    given = tuple(node.sizes(2))
    for least, size in zip(shape, given, strict=True):
        node.at_most(least, size, "output_shape is smaller than what was pooled")
    return Tensor(x.type, given)


def folded_sizes(
    node: Node,
) -> tuple[list[int], tuple[Dim, ...], tuple[Dim, ...], list[int], list[int], list[int]]:
    """Of a Col2Im: the block's sizes, those of the padded image, the number of blocks along each axis, strides, dilations and
    pads."""
    image, block = node.sizes(1), node.ints(2)
    count = len(block)
    strides, dilations = (list(node.attr(n) or [1] * count) for n in ("strides", "dilations"))
    pads = list(node.attr("pads") or [0] * (2 * count))
    if not len(image) == len(strides) == len(dilations) == count or len(pads) != 2 * count:
        raise node.fail(f"strides, dilations, pads or image_shape do not fit {count} axes", "correct the model")
    padded = tuple(d + pads[i] + pads[count + i] for i, d in enumerate(image))
    counts = tuple(
        dims.floordiv(d - dilations[i] * (block[i] - 1) - 1, strides[i]) + 1 for i, d in enumerate(padded)
    )
    return block, padded, counts, strides, dilations, pads


@rule("Col2Im")
def _col2im(node: Node) -> Tensor:
    x = node.input(0)
    block, _, counts, *_ = folded_sizes(node)
    node.equal(x.shape[2], dims.product(counts), "the number of columns is not that of the blocks of the image")
    channels = node.divide_exactly(x.shape[1], math.prod(block), "channels do not divide by the block's size")
    return Tensor(x.type, (x.shape[0], channels, *node.sizes(1)))
