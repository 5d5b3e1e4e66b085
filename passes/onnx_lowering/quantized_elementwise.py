"""ONNX Runtime's operators on quantized tensors that are no products: off the grid, computed in f32, and onto the next grid."""

from __future__ import annotations

from collections.abc import Callable

from ingot.dims import Dim
from ingot.passes.onnx_inference.quantization import undilated
from ingot.passes.onnx_lowering.graph_builder import FLOAT
from ingot.passes.onnx_lowering.lowering import Lowering, lowering
from ingot.passes.onnx_lowering.quantization import Grid, dequantized, grid, operand_grid, result_grid
from ingot.passes.onnx_lowering.region_builder import RegionBuilder, Scalar
from ingot.passes.onnx_lowering.values import Source, TypedValue
from ingot.passes.onnx_lowering.windows import pool

_BINARY: dict[str, Callable[[RegionBuilder, Scalar, Scalar], Scalar]] = {
    "com.microsoft.QLinearAdd": lambda b, x, y: b.addf(x, y),
    "com.microsoft.QLinearMul": lambda b, x, y: b.mulf(x, y),
}
_UNARY: dict[str, Callable[[Lowering, RegionBuilder, Scalar], Scalar]] = {
    "com.microsoft.QLinearSigmoid": lambda low, b, x: b.sigmoid(x),
    "com.microsoft.QLinearLeakyRelu": lambda low, b, x: b.select(
        b.cmpf_olt(x, b.like(0, x)), b.mulf(x, b.like(low.attr("alpha"), x)), x
    ),
}


@lowering(*_BINARY)
def _binary(low: Lowering) -> Source:
    f, left, right, to = _BINARY[low.op], operand_grid(low, 0, 1, 2), operand_grid(low, 3, 4, 5), result_grid(low, 6, 7)

    def body(b: RegionBuilder) -> Scalar:
        x, y = left.dequantize(b, b.load(low.source(0))), right.dequantize(b, b.load(low.source(3)))
        return to.quantize(b, f(b, x, y))

    return low.build.stored(low.type, low.shape, body)


@lowering(*_UNARY)
def _unary(low: Lowering) -> Source:
    f, own, to = _UNARY[low.op], operand_grid(low, 0, 1, 2), result_grid(low, 3, 4)
    x = low.source(0)
    return low.build.stored(low.type, low.shape, lambda b: to.quantize(b, f(low, b, own.dequantize(b, b.load(x)))))


@lowering("com.microsoft.QLinearWhere")
def _where(low: Lowering) -> Source:
    left, right, to = operand_grid(low, 1, 2, 3), operand_grid(low, 4, 5, 6), result_grid(low, 7, 8)

    def body(b: RegionBuilder) -> Scalar:
        x, y = left.dequantize(b, b.load(low.source(1))), right.dequantize(b, b.load(low.source(4)))
        return to.quantize(b, b.select(b.load(low.source(0)), x, y))

    return low.build.stored(low.type, low.shape, body)


@lowering("com.microsoft.QLinearConcat")
def _concat(low: Lowering) -> Source:
    to = result_grid(low, 0, 1)
    parts = [_regridded(low, low.source(i), operand_grid(low, i, i + 1, i + 2), to) for i in range(2, len(low.sources), 3)]
    return low.build.concat(parts, low.node.axis(low.attr("axis"), parts[0].rank), low.shape)


def _regridded(low: Lowering, x: Source, own: Grid, to: Grid) -> TypedValue:
    return low.build.stored(low.type, x.shape, lambda b: to.quantize(b, own.dequantize(b, b.load(x))))


def _mean(low: Lowering, axes: list[int], to: Grid) -> TypedValue:
    """The mean of operand 0 over axes, which keep size 1, on the grid `to`."""
    x, own = low.tensor(0), operand_grid(low, 0, 1, 2)
    sizes: list[Dim] = [x.shape[a] for a in axes]
    y = low.build.reduce(
        x, "sum", axes, FLOAT, own.dequantize, lambda b, s: b.divf(s, b.to_float(b.product(sizes), s.type)), acc="f32"
    )
    return low.build.stored(low.type, y.shape, lambda b: to.quantize(b, b.load(y)))


@lowering("com.microsoft.QLinearGlobalAveragePool")
def _global_average_pool(low: Lowering) -> Source:
    rank = low.source(0).rank
    axes = range(1, rank - 1) if low.attr("channels_last") else range(2, rank)
    return _mean(low, list(axes), result_grid(low, 3, 4))


@lowering("com.microsoft.QLinearReduceMean")
def _reduce_mean(low: Lowering) -> Source:
    rank = low.source(0).rank
    axes = sorted({low.node.axis(a, rank) for a in low.attr("axes") or range(rank)})
    return low.build.reshape(_mean(low, axes, result_grid(low, 3, 4)), low.shape)


@lowering("com.microsoft.QLinearAveragePool")
def _average_pool(low: Lowering) -> Source:
    x = dequantized(low, low.tensor(0), low.source(1), low.optional(2), FLOAT)
    y, to = pool(low, x, undilated(low.node)), result_grid(low, 3, 4)
    return low.build.stored(low.type, low.shape, lambda b: to.quantize(b, b.load(y)))


@lowering("com.microsoft.QLinearSoftmax")
def _softmax(low: Lowering) -> Source:
    """Over one axis, or, in models of opset 12 and earlier, over all axes from `axis` on."""
    x, to = low.tensor(0), result_grid(low, 3, 4)
    axis = low.node.axis(low.attr("axis"), x.rank)
    axes = range(axis, x.rank) if low.attr("opset") < 13 else [axis]
    own = grid(low, low.source(1), None, x.type)  # a softmax does not see zero points
    probabilities = low.build.normalize(
        low.build.pointwise(FLOAT, x.shape, lambda b: own.dequantize(b, b.load(x))), "softmax", list(axes)
    )
    return low.build.stored(low.type, low.shape, lambda b: to.quantize(b, b.load(probabilities)))
