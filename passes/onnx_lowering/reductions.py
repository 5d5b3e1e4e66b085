"""Reductions and normalizations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ingot.dtypes import DTYPES, OnnxType
from ingot.passes.onnx_inference.linear import reduced_axes
from ingot.passes.onnx_lowering.elementwise import divide, multiply
from ingot.passes.onnx_lowering.graph_builder import FLOAT
from ingot.passes.onnx_lowering.lowering import Lowering, lowering
from ingot.passes.onnx_lowering.region_builder import RegionBuilder, Scalar
from ingot.passes.onnx_lowering.values import Source, TypedValue

Function = Callable[[RegionBuilder, Scalar], Scalar]


@dataclass(frozen=True)
class Reduction:
    """An ONNX reduction: what is reduced (`map` of an element), how, and what follows."""

    kind: str
    map: Function | None = None
    finish: Function | None = None


def _absolute(b: RegionBuilder, x: Scalar) -> Scalar:
    return b.absf(x) if x.is_float else x if x.unsigned else b.maxsi(x, b.subi(b.like(0, x), x))


def _square(b: RegionBuilder, x: Scalar) -> Scalar:
    return multiply(b, x, x)


_REDUCTIONS = {
    "ReduceSum": Reduction("sum"),
    "ReduceProd": Reduction("prod"),
    "ReduceMax": Reduction("max"),
    "ReduceMin": Reduction("min"),
    "ReduceMean": Reduction("sum"),
    "ReduceL1": Reduction("sum", _absolute),
    "ReduceL2": Reduction("sum", _square, lambda b, x: b.sqrt(x)),
    "ReduceSumSquare": Reduction("sum", _square),
    "ReduceLogSum": Reduction("sum", None, lambda b, x: b.log(x)),
}


@lowering(*_REDUCTIONS)
def _reduce(low: Lowering) -> Source:
    x = low.tensor(0)
    row = _REDUCTIONS[low.op]
    axes = reduced_axes(low.node, x.rank)
    finish, mapped = row.finish, row.map
    if row.kind in ("max", "min") and is_unsigned(x.type):
        finish = mapped = ordered_as_signed
    if low.op in ("ReduceL2", "ReduceLogSum") and not DTYPES[x.type.storage].kind == "float":
        finish = _in_floats(row.finish, x.type)
    if low.op == "ReduceMean":

        def finish(b: RegionBuilder, total: Scalar) -> Scalar:
            count = b.product([x.shape[a] for a in axes])
            return divide(b, total, b.to_float(count, total.type) if total.is_float else b.narrowed(count, total))

    if not axes:

        def body(b: RegionBuilder) -> Scalar:
            y = b.load(x)
            y = mapped(b, y) if mapped else y
            return finish(b, y) if finish else y

        return low.build.pointwise(low.type, low.shape, body) if mapped or finish else x
    return low.build.reshape(low.build.reduce(x, row.kind, axes, low.type, mapped, finish), low.shape)


def is_unsigned(type: OnnxType) -> bool:
    """True for unsigned integers."""
    return not type.signed and DTYPES[type.storage].kind == "int"


def ordered_as_signed(b: RegionBuilder, x: Scalar) -> Scalar:
    """An unsigned integer as the signed one of the same place in their order, and back: comparisons of roots are signed."""
    return b.xori(x, b.like(1 << (DTYPES[x.type].bits - 1), x))


def _in_floats(f: Function | None, type: OnnxType) -> Function:
    """A function of floats for an integer, cut off to an integer."""
    assert f is not None
    return lambda b, x: b.cast(f(b, b.to_float(x, "f64")), type)


@lowering("ReduceLogSumExp")
def _log_sum_exp(low: Lowering) -> Source:
    x = low.tensor(0)
    axes = reduced_axes(low.node, x.rank)
    if not axes:
        return x
    largest = low.build.reduce(x, "max", axes, FLOAT if x.type.storage != "f64" else x.type)

    def shift(b: RegionBuilder) -> Scalar:
        # An infinite maximum is not subtracted: it would make NaN of itself.
        m = b.load(largest)
        return b.select(b.cmpf_olt(b.absf(m), b.like(float("inf"), m)), m, b.like(0, m))

    total = low.build.reduce(
        x, "sum", axes, low.type, lambda b, e: b.exp(b.subf(e, shift(b))), lambda b, s: b.addf(b.log(s), shift(b))
    )
    return low.build.reshape(total, low.shape)


# Normalizations -------------------------------------------------------------------------------------------------------


def affine(scale: Source | None, bias: Source | None) -> Function:
    """x * scale + bias, both aligned with x."""

    def f(b: RegionBuilder, x: Scalar) -> Scalar:
        y = x if scale is None else b.mulf(x, b.to_float(b.load(scale), x.type))
        return y if bias is None else b.addf(y, b.to_float(b.load(bias), x.type))

    return f


@lowering("Softmax", "LogSoftmax")
def _softmax(low: Lowering) -> Source:
    x = low.tensor(0)
    axis = low.node.axis(low.attr("axis"), x.rank)
    return low.build.normalize(x, "softmax" if low.op == "Softmax" else "log_softmax", [axis])


@lowering("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
def _layer_normalization(low: Lowering) -> list[Source | None]:
    x = low.tensor(0)
    axes = list(range(low.node.axis(low.attr("axis"), x.rank), x.rank))
    kind = "layer" if low.op == "LayerNormalization" else "rms"
    bias = low.optional(2) if kind == "layer" else None
    epsilon = low.attr("epsilon")
    y = low.build.normalize(x, kind, axes, epsilon, affine(low.source(1), bias), type=low.type)
    if not any(low.used[1:]):
        return [y]
    if kind == "rms":
        raise low.fail("output inv_std_var is not supported", "export the model without it")
    return [y, *_statistics(low, x, axes, epsilon)]


def _statistics(low: Lowering, x: TypedValue, axes: list[int], epsilon: float) -> tuple[Source, Source]:
    """The mean over `axes` and the inverse of the standard deviation."""
    type = low.result(1).type
    sizes = [x.shape[a] for a in axes]
    mean = low.build.reduce(x, "sum", axes, type, None, lambda b, s: b.divf(s, b.to_float(b.product(sizes), s.type)))

    def deviation(b: RegionBuilder, s: Scalar) -> Scalar:
        variance = b.divf(s, b.to_float(b.product(sizes), s.type))
        return b.divf(b.like(1, s), b.sqrt(b.addf(variance, b.like(epsilon, s))))

    def squared(b: RegionBuilder, e: Scalar) -> Scalar:
        return _square(b, b.subf(e, b.to_float(b.load(mean), e.type)))

    return mean, low.build.reduce(x, "sum", axes, type, squared, deviation)


@lowering("com.microsoft.SkipLayerNormalization", "com.microsoft.SkipSimplifiedLayerNormalization")
def _skip_normalization(low: Lowering) -> list[Source | None]:
    if any(low.used[1:3]):
        raise low.fail("outputs mean and inv_std_var are not supported", "export the model without them")
    layer = low.op == "com.microsoft.SkipLayerNormalization"
    bias = low.optional(4 if layer else 3)

    def total(b: RegionBuilder) -> Scalar:
        y = b.addf(b.load(low.source(0)), b.load(low.source(1)))
        return y if bias is None else b.addf(y, b.load(bias))

    x = low.build.pointwise(low.type, low.shape, total)
    epilogue = affine(low.source(2), low.optional(3) if layer else None)
    y = low.build.normalize(x, "layer" if layer else "rms", [x.rank - 1], low.attr("epsilon"), epilogue)
    return [y, None, None, x]


def per_channel(low: Lowering, x: Source, rank: int) -> Source:
    """A vector over channels, aligned with [N, C, spatial...] of `rank`."""
    return low.build.reshape(x, (*x.shape, *(1 for _ in range(rank - 2))))


@lowering("InstanceNormalization")
def _instance_normalization(low: Lowering) -> Source:
    x = low.tensor(0)
    scale, bias = (per_channel(low, low.source(i), x.rank) for i in (1, 2))
    return low.build.normalize(x, "layer", range(2, x.rank), low.attr("epsilon"), affine(scale, bias))


@lowering("GroupNormalization")
def _group_normalization(low: Lowering) -> Source:
    x = low.tensor(0)
    groups = low.attr("num_groups")
    n, c, *spatial = x.shape
    size = low.node.divide_exactly(c, groups, "channels do not divide by num_groups")
    grouped = low.build.reshaped(x, (n, groups, size, *spatial))
    scale, bias = (low.build.reshape(low.source(i), (groups, size, *(1 for _ in spatial))) for i in (1, 2))
    y = low.build.normalize(grouped, "layer", range(2, grouped.rank), low.attr("epsilon"), affine(scale, bias))
    return low.build.reshape(y, low.shape)


@lowering("BatchNormalization")
def _batch_normalization(low: Lowering) -> list[Source]:
    low.only_first_output()
    x = low.tensor(0)
    scale, bias, mean, variance = (per_channel(low, low.source(i), x.rank) for i in range(1, 5))

    def body(b: RegionBuilder) -> Scalar:
        e = b.load(x)
        loads = [b.to_float(b.load(p), e.type) for p in (scale, bias, mean, variance)]
        deviation = b.sqrt(b.addf(loads[3], b.like(low.attr("epsilon"), e)))
        return b.addf(b.mulf(b.divf(b.subf(e, loads[2]), deviation), loads[0]), loads[1])

    return [low.build.pointwise(low.type, low.shape, body)]


@lowering("LpNormalization")
def _lp_normalization(low: Lowering) -> Source:
    x = low.tensor(0)
    axis = low.node.axis(low.attr("axis"), x.rank)
    if low.attr("p") == 2:
        norm = low.build.reduce(x, "sum", [axis], x.type, _square, lambda b, s: b.sqrt(s))
    else:
        norm = low.build.reduce(x, "sum", [axis], x.type, _absolute)

    def body(b: RegionBuilder) -> Scalar:
        d = b.load(norm)
        # A vector of norm 0 stays 0.
        zero = b.like(0, d)
        return b.select(b.cmpf_oeq(d, zero), zero, b.divf(b.load(x), d))

    return low.build.pointwise(low.type, low.shape, body)
