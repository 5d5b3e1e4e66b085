"""Rules for operators that interpolate at computed coordinates."""

from __future__ import annotations

from ingot.passes.onnx_inference.linear import conv_shape
from ingot.passes.onnx_inference.rules import Node, rule
from ingot.passes.onnx_inference.tensors import Tensor


@rule("GridSample")
def _grid_sample(node: Node) -> Tensor:
    x, grid = node.input(0), node.input(1)
    if grid.rank != x.rank:
        raise node.fail(f"a grid of rank {grid.rank} for a tensor of rank {x.rank}", "correct the model")
    node.equal(grid.shape[-1], x.rank - 2, "the grid does not have one coordinate for each spatial axis")
    shape = (node.equal(x.shape[0], grid.shape[0], "batches differ"), x.shape[1], *grid.shape[1:-1])
    for axis in range(2, x.rank):
        node.reads(x.shape[axis], 1, shape, f"axis {axis} has no element to sample")
    return Tensor(x.type, shape)


@rule("RoiAlign")
def _roi_align(node: Node) -> Tensor:
    x, regions, images = (node.input(i) for i in range(3))
    count = node.equal(regions.shape[0], images.shape[0], "there is not one batch index for each region")
    node.equal(regions.shape[1], 4, "a region does not have four coordinates")
    shape = (count, x.shape[1], node.attr("output_height"), node.attr("output_width"))
    for axis in (0, 2, 3):
        node.reads(x.shape[axis], 1, shape, f"axis {axis} has no element to sample")
    return Tensor(x.type, shape)


@rule("DeformConv")
def _deform_conv(node: Node) -> Tensor:
    x, w, offsets = (node.input(i) for i in range(3))
    shape = conv_shape(node, x, w)
    taps = 1
    for k in w.shape[2:]:
        taps = taps * k  # type: ignore[assignment]
    groups = node.attr("offset_group")
    node.equal(offsets.shape[1], groups * taps * (x.rank - 2), "there is not one offset for each tap, axis and offset group")
    node.divide_exactly(x.shape[1], groups, "channels do not divide by offset_group")
    for wanted, given in zip((shape[0], *shape[2:]), (offsets.shape[0], *offsets.shape[2:]), strict=True):
        node.equal(wanted, given, "offsets differ from the result in size")
    if node.has(4):
        node.equal(node.input(4).shape[1], groups * taps, "there is not one mask for each tap and offset group")
    for axis in range(2, x.rank):
        node.reads(x.shape[axis], 1, shape, f"axis {axis} has no element to sample")
    return Tensor(x.type, shape)
