"""Rules for operators that read at computed positions."""

from __future__ import annotations

import functools
import itertools
import math
from fractions import Fraction

import numpy as np

from ingot import dims
from ingot.dims import Dim, Expr
from ingot.passes.onnx_inference.rules import Node, rule
from ingot.passes.onnx_inference.tensors import INT64, Tensor, with_value


@rule("Gather")
def _gather(node: Node) -> Tensor:
    x, indices = node.input(0), node.input(1)
    axis = node.axis(node.attr("axis"), x.rank)
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    if x.value is not None and indices.value is not None:
        at = indices.value.ravel().tolist()
        if all(isinstance(i, int) for i in at):
            size = x.value.shape[axis]
            if any(not -size <= i < size for i in at):
                raise node.fail(f"indices {at} are out of range for axis {axis} of size {size}", "correct the model")
            return with_value(x.type, np.asarray(np.take(x.value, indices.value.astype(np.int64), axis), object))
    count, what = 1, f"axis {axis} has no element to gather"
    if indices.value is not None and all(isinstance(i, int) for i in indices.value.ravel().tolist()):
        at = indices.value.ravel().tolist()
        count = max((i + 1 if i >= 0 else -i for i in at), default=0)
        what = f"index {next((i for i in at if count in (i + 1, -i)), 0)} is out of range for axis {axis}"
    node.reads(x.shape[axis], count, shape, what)
    return Tensor(x.type, shape)


def check_elements(node: Node, x: Tensor, indices: Tensor, verb: str) -> None:
    """Check indices of single elements along the node's axis: on the others they are no longer than the data."""
    axis = node.axis(node.attr("axis"), x.rank)
    for i, (size, count) in enumerate(zip(x.shape, indices.shape, strict=True)):
        if i != axis:
            node.at_most(count, size, f"axis {i} of the indices is longer than that of the data")
    node.reads(x.shape[axis], 1, indices.shape, f"axis {axis} has no element to {verb}")


@rule("GatherElements")
def _gather_elements(node: Node) -> Tensor:
    x, indices = node.input(0), node.input(1)
    check_elements(node, x, indices, "gather")
    return Tensor(x.type, indices.shape)


@rule("GatherND")
def _gather_nd(node: Node) -> Tensor:
    x, indices = node.input(0), node.input(1)
    batch = node.attr("batch_dims")
    depth = indices.shape[-1]
    if not isinstance(depth, int):
        raise node.fail(f"the last size of its indices, {depth}, decides its rank", "make it constant")
    if batch + depth > x.rank:
        raise node.fail(f"indices of {depth} coordinates for a tensor of rank {x.rank}", "correct the model")
    lead = [node.equal(a, b, "batch sizes differ") for a, b in zip(x.shape[:batch], indices.shape[:batch], strict=True)]
    shape = (*lead, *indices.shape[batch:-1], *x.shape[batch + depth :])
    for axis in range(batch, batch + depth):
        node.reads(x.shape[axis], 1, shape, f"axis {axis} has no element to gather")
    return Tensor(x.type, shape)


@rule("OneHot")
def _one_hot(node: Node) -> Tensor:
    indices, depth, values = node.input(0), node.element(1), node.input(2)
    if isinstance(depth, float) and depth.is_integer():
        depth = int(depth)
    if isinstance(depth, bool) or not isinstance(depth, int | Expr):
        raise node.fail(f"depth {depth} is no size", "make it an integer")
    depth = node.size(depth, "its depth")
    axis = node.axis(node.attr("axis"), indices.rank + 1)
    return Tensor(values.type, (*indices.shape[:axis], depth, *indices.shape[axis:]))


@rule("ArgMax", "ArgMin")
def _arg(node: Node) -> Tensor:
    x = node.input(0)
    axis = node.axis(node.attr("axis"), x.rank)
    kept = (1,) if node.attr("keepdims") else ()
    return Tensor(INT64, (*x.shape[:axis], *kept, *x.shape[axis + 1 :]))


@rule("ReverseSequence")
def _reverse_sequence(node: Node) -> Tensor:
    x = node.input(0)
    batch, _ = (node.axis(node.attr(n), x.rank) for n in ("batch_axis", "time_axis"))
    node.equal(node.input(1).shape[0], x.shape[batch], "sequence_lens does not have one element for each of the batch")
    return Tensor(x.type, x.shape)


@rule("TopK")
def _topk(node: Node) -> list[Tensor]:
    x = node.input(0)
    axis = node.axis(node.attr("axis"), x.rank)
    (k,) = node.sizes(1)
    node.at_most(k, x.shape[axis], f"axis {axis} has fewer than k elements")
    shape = tuple(k if i == axis else d for i, d in enumerate(x.shape))
    return [Tensor(x.type, shape), Tensor(INT64, shape)]


@rule("CumProd")
def _cumprod(node: Node) -> Tensor:
    x = node.input(0)
    node.axis(node.ints(1)[0], x.rank)
    return Tensor(x.type, x.shape)


@rule("CumSum")
def _cumsum(node: Node) -> Tensor:
    x = node.input(0)
    axis = node.axis(node.ints(1)[0], x.rank)
    if x.value is None or node.attr("exclusive") or node.attr("reverse"):
        return Tensor(x.type, x.shape)
    value = x.value.copy()
    for i in itertools.product(*map(range, value.shape)):
        if i[axis]:
            before = value[(*i[:axis], i[axis] - 1, *i[axis + 1 :])]
            value[i] = None if before is None or value[i] is None else before + value[i]
    return with_value(x.type, value)


def scaled(node: Node, d: Dim, scale: object) -> Dim:
    """floor(d * scale) for a constant scale."""
    if not isinstance(scale, float):
        raise node.fail(f"scale {scale} is computed at run time", "make the scales constant or give sizes")
    if isinstance(d, int):
        return math.floor(d * scale)
    fraction = Fraction(scale).limit_denominator(1 << 16)
    return dims.floordiv(d * fraction.numerator, fraction.denominator)


@rule("Resize")
def _resize(node: Node) -> Tensor:
    x = node.input(0)
    axes = node.attr("axes")
    axes = list(range(x.rank)) if axes is None else [node.axis(a, x.rank) for a in axes]
    shape = list(x.shape)
    if node.attr("coordinate_transformation_mode") == "tf_crop_and_resize":
        node.equal(node.input(1).shape[0], 2 * len(axes), "roi does not have a start and an end for each axis")
        if not node.has(3):
            # By ONNX's text sizes depend on roi; its evaluator and ONNX Runtime leave roi out.
            raise node.fail("scales beside tf_crop_and_resize are not supported", "give sizes")
    if node.has(3):
        sizes = node.sizes(3)
        if node.attr("keep_aspect_ratio_policy") not in (None, "stretch"):
            policy = node.attr("keep_aspect_ratio_policy")
            pick = dims.minimum if policy == "not_larger" else dims.maximum
            # The one scale is s / x of some axis; halves are rounded up.
            fractions = [(s, x.shape[a]) for s, a in zip(sizes, axes, strict=True)]
            sizes = [
                functools.reduce(pick, (dims.floordiv(2 * s * x.shape[a] + d, 2 * d) for s, d in fractions)) for a in axes
            ]
    else:
        scales = node.value(2).ravel().tolist()
        if len(scales) != len(axes):
            raise node.fail(f"{len(scales)} scales for {len(axes)} axes", "correct the model")
        sizes = [scaled(node, x.shape[a], s) for a, s in zip(axes, scales, strict=True)]
    for a, d in zip(axes, sizes, strict=True):
        shape[a] = d
    if node.has(3):  # by scales an empty axis stays empty
        for a in axes:
            if shape[a] != x.shape[a]:
                node.reads(x.shape[a], 1, shape, f"axis {a} has no element to resize")
    return Tensor(x.type, tuple(shape))
