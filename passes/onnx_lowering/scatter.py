"""Operators that write to computed positions."""

from __future__ import annotations

from collections.abc import Sequence

from ingot import dims
from ingot.dims import Dim
from ingot.passes.onnx_inference.scatter import Unpooled, folded_sizes
from ingot.passes.onnx_lowering.lowering import Lowering, lowering
from ingot.passes.onnx_lowering.reductions import is_unsigned
from ingot.passes.onnx_lowering.region_builder import RegionBuilder, Scalar
from ingot.passes.onnx_lowering.values import Source, TypedValue
from ingot.passes.onnx_lowering.views import pad

_KINDS = {"none": "set", "add": "sum", "mul": "prod", "max": "max", "min": "min"}


def _kind(low: Lowering, x: TypedValue) -> str:
    """How values meet, from the attribute `reduction`."""
    kind = _KINDS[low.attr("reduction")]
    if kind in ("max", "min") and is_unsigned(x.type):
        raise low.fail(f"reduction={kind} of element type {x.type.name} is not supported", "cast to a signed type")
    if kind in ("sum", "prod") and x.type.storage == "i1":
        raise low.fail(f"reduction={low.attr('reduction')} of bools is not supported", "cast to integers")
    return kind


@lowering("ScatterElements")
def _scatter_elements(low: Lowering) -> Source:
    x, updates = low.tensor(0), low.tensor(2)
    axis = low.node.axis(low.attr("axis"), x.rank)

    def place(b: RegionBuilder) -> list[Scalar]:
        at = b.wrapped_index(b.load(low.source(1)), x.shape[axis])
        return [at if i == axis else b.index(i) for i in range(x.rank)]

    return low.build.scatter(x, updates, _kind(low, x), [axis], place)


@lowering("ScatterND")
def _scatter_nd(low: Lowering) -> Source:
    x, indices, updates = (low.tensor(i) for i in range(3))
    depth, lead = indices.shape[-1], indices.rank - 1
    assert isinstance(depth, int)

    def place(b: RegionBuilder) -> list[Scalar]:
        at = [b.index(i) for i in range(lead)]
        found = [b.load_at(indices, [*at, b.const(k, "i64")]) for k in range(depth)]
        inner = [b.index(lead + i) for i in range(x.rank - depth)]
        return [*(b.wrapped_index(i, x.shape[k]) for k, i in enumerate(found)), *inner]

    return low.build.scatter(x, updates, _kind(low, x), range(lead), place)


@lowering("TensorScatter")
def _tensor_scatter(low: Lowering) -> Source:
    """Consecutive positions of a cache, from one that each of the batch has, are replaced."""
    x, updates = low.tensor(0), low.tensor(1)
    axis = low.node.axis(low.attr("axis"), x.rank)
    circular = low.attr("mode") == "circular"
    begins = None if not low.has(2) else low.tensor(2)

    def place(b: RegionBuilder) -> list[Scalar]:
        at = b.index(axis)
        if begins is not None:
            at = b.addi(at, b.load_at(begins, [b.index(0)]))
        at = b.remsi(at, b.dim(x.shape[axis])) if circular else at
        return [b.clamped_index(at, x.shape[axis]) if i == axis else b.index(i) for i in range(x.rank)]

    return low.build.scatter(x, updates, "set", [axis], place)


def _zeros(low: Lowering, shape: Sequence[Dim]) -> TypedValue:
    return low.build.pointwise(low.type, shape, lambda b: b.known(0.0 if low.node.input(0).is_float else 0, low.type))


@lowering("MaxUnpool")
def _max_unpool(low: Lowering) -> Source:
    """Each element goes where its position in the flattened tensor says that it came from; all else is zero."""
    x = low.tensor(0)
    unpooled = Unpooled.of(low.node)
    flat = _zeros(low, (dims.product(unpooled.shape),))

    def place(b: RegionBuilder) -> list[Scalar]:
        return [b.wrapped_index(b.load(low.source(1)), flat.shape[0])]

    y = low.build.reshaped(low.build.scatter(flat, x, "set", range(x.rank), place), unpooled.shape)
    return y if low.shape == y.shape else pad(low, y, [0] * y.rank, low.shape, "constant")


@lowering("Col2Im")
def _col2im(low: Lowering) -> Source:
    """The columns [N, C * block, L] are summed up where blocks overlap, in a padded image that is then cropped."""
    block, padded, counts, strides, dilations, pads = folded_sizes(low.node)
    n, c = low.shape[:2]
    x = low.build.reshaped(low.tensor(0), (n, c, *block, *counts))
    image = _zeros(low, (n, c, *padded))
    rank = len(block)

    def place(b: RegionBuilder) -> list[Scalar]:
        at = [b.index(0), b.index(1)]
        for i in range(rank):
            tap = b.muli(b.index(2 + i), b.const(dilations[i], "i64"))
            at.append(b.addi(b.muli(b.index(2 + rank + i), b.const(strides[i], "i64")), tap))
        return at

    y = low.build.scatter(image, x, "sum", range(2, 2 + 2 * rank), place)
    return low.build.slice(y, [0, 0, *pads[:rank]], low.shape)
