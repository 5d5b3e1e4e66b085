"""Convolutions and pools: channels-last roots between transposes, which the layout pass removes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ingot import dims
from ingot.dialects.mlir import ir
from ingot.dims import Dim
from ingot.dtypes import DTYPES, OnnxType
from ingot.passes.onnx_inference.linear import transposed_window, window_attributes, window_pads
from ingot.passes.onnx_inference.rules import Node
from ingot.passes.onnx_lowering.elementwise import divide, power
from ingot.passes.onnx_lowering.graph_builder import FLOAT, INT64
from ingot.passes.onnx_lowering.lowering import Lowering, lowering
from ingot.passes.onnx_lowering.reductions import is_unsigned, ordered_as_signed
from ingot.passes.onnx_lowering.region_builder import RegionBuilder, Scalar, computing_type
from ingot.passes.onnx_lowering.values import Source, TypedValue
from ingot.passes.onnx_lowering.views import pad


def channels_last(low: Lowering, x: TypedValue) -> TypedValue:
    """[N, C, spatial...] as [N, spatial..., C]; of a weight, [M, C, kernel...] as [M, kernel..., C]."""
    return low.build.transpose(x, [0, *range(2, x.rank), 1])


def channels_first(low: Lowering, x: TypedValue) -> TypedValue:
    """[N, spatial..., C] as [N, C, spatial...]."""
    return low.build.transpose(x, [0, x.rank - 1, *range(1, x.rank - 1)])


def _ints(values: Sequence[int]) -> ir.Attribute:
    return ir.DenseI64ArrayAttr.get(list(values))


def _integer(value: int) -> ir.Attribute:
    return ir.IntegerAttr.get(ir.IntegerType.get_signless(64), value)


def _constant_pads(
    low: Lowering, x: TypedValue, kernel: list[int], fill: float, node: Node
) -> tuple[TypedValue, list[int]]:
    """x [N, C, spatial...] and its constant pads; pads that are negative or depend on sizes are applied here."""
    spatial = x.shape[2:]
    pads = window_pads(node, spatial, kernel)
    constant = [p for p in pads if isinstance(p, int) and p >= 0]
    if len(constant) == len(pads):
        return x, constant
    n = len(kernel)
    begins: list[Dim] = [0, 0, *pads[:n]]
    shape = (*x.shape[:2], *(d + pads[i] + pads[i + n] for i, d in enumerate(spatial)))
    return pad(low, x, begins, shape, "constant", fill), [0] * (2 * n)


@lowering("Conv")
def _conv(low: Lowering) -> Source:
    w = low.tensor(1)
    kernel = [int(k) for k in w.shape[2:]]  # type: ignore[arg-type]
    x, pads = _constant_pads(low, low.tensor(0), kernel, 0.0, low.node)
    strides, dilations = window_attributes(low.node, kernel)
    return _convolution(low, x, channels_last(low, w), strides, dilations, pads)


@lowering("ConvTranspose")
def _conv_transpose(low: Lowering) -> Source:
    x, w = low.tensor(0), low.tensor(1)
    kernel = [int(k) for k in w.shape[2:]]  # type: ignore[arg-type]
    _, pads = transposed_window(low.node, x.shape[2:], kernel)
    strides, dilations = window_attributes(low.node, kernel)
    extra = {
        "transposed": ir.UnitAttr.get(),
        "output_padding": _ints(low.attr("output_padding") or [0] * len(kernel)),
    }
    return _convolution(low, x, channels_last(low, w), strides, dilations, pads, extra)


def convolution_attributes(
    acc: str, strides: Sequence[int], dilations: Sequence[int], pads: Sequence[int], groups: int
) -> dict[str, ir.Attribute]:
    """The attributes of a `conv`."""
    return {
        "acc": ir.StringAttr.get(acc),
        "strides": _ints(strides),
        "dilations": _ints(dilations),
        "pads": _ints(pads),
        "groups": _integer(groups),
    }


def _convolution(
    low: Lowering,
    x: TypedValue,
    w: TypedValue,
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    extra: dict[str, ir.Attribute] | None = None,
) -> Source:
    x = channels_last(low, x)
    tensors = [x.value, w.value]
    acc = computing_type(x.type.storage)
    region = low.build.region(tensors, [acc])
    y = region.arg()
    bias = low.optional(2)
    if bias is not None:
        y = region.addf(y, region.load(bias))
    attrs = {**convolution_attributes(acc, strides, dilations, pads, low.attr("group")), **(extra or {})}
    n, c, *spatial = low.shape
    regions = [region.finish(region.store(y, low.type))]
    out = low.build.root("conv", [x.value, w.value], low.type, (n, *spatial, c), attrs, regions, tensors)
    return channels_first(low, out)


@lowering("AveragePool")
def _average_pool(low: Lowering) -> Source:
    return pool(low, low.tensor(0), low.node)


@lowering("MaxPool")
def _max_pool(low: Lowering) -> list[Source | None]:
    y = pool(low, low.tensor(0), low.node)
    return [y, _places_of_maxima(low, low.build.tensor(y)) if len(low.used) > 1 and low.used[1] else None]


def _places_of_maxima(low: Lowering, y: TypedValue) -> Source:
    """Where in x, flattened, the first element of each window lies that is its maximum: a reduction over the windows."""
    x, kernel = low.tensor(0), list(low.attr("kernel_shape"))
    strides, dilations = window_attributes(low.node, kernel)
    pads = window_pads(low.node, x.shape[2:], kernel)
    # With storage_order=1 the last spatial axis but one counts fastest.
    order = [0, 1, *range(2, x.rank)]
    if low.attr("storage_order"):
        order[2:] = order[2:][::-1]
    taps = math.prod(kernel)
    over = low.build.tensor(low.build.expand(low.build.reshape(y, (*y.shape, 1)), (*y.shape, taps)))

    def place(b: RegionBuilder, maximum: Scalar) -> Scalar:
        at, inside = [b.index(0), b.index(1)], b.const(True, "i1")
        rest = b.index(y.rank)
        spatial: list[Scalar] = []
        for i in reversed(range(len(kernel))):
            quotient = b.divsi(rest, b.const(kernel[i], "i64"))
            tap = b.subi(rest, b.muli(quotient, b.const(kernel[i], "i64")))
            rest = quotient
            origin = b.subi(b.muli(b.index(2 + i), b.const(strides[i], "i64")), b.dim(pads[i]))
            p = b.addi(origin, b.muli(tap, b.const(dilations[i], "i64")))
            within = b.andi(b.cmpi_sge(p, b.const(0, "i64")), b.cmpi_slt(p, b.dim(x.shape[2 + i])))
            inside = b.andi(inside, within)
            spatial.insert(0, b.clamped_index(p, x.shape[2 + i]))
        at += spatial
        e = b.load_at(x, at)
        hit = b.cmpf_oeq(e, maximum) if e.is_float else b.cmpi_eq(e, maximum)
        flat = b.const(0, "i64")
        for axis in order:
            flat = b.addi(b.muli(flat, b.dim(x.shape[axis])), at[axis])
        return b.select(b.andi(hit, inside), flat, b.const(2**63 - 1, "i64"))

    found = low.build.reduce(over, "min", [y.rank], INT64, map=place, acc="i64")
    return low.build.reshape(found, low.result(1).shape)


def pool(low: Lowering, x: TypedValue, node: Node) -> Source:
    """x [N, C, spatial...] pooled as the attributes of `node` say, in the shape of the first output."""
    kind = "max" if node.op == "MaxPool" else "average"
    kernel = list(node.attr("kernel_shape"))
    count_pad = kind == "average" and bool(node.attr("count_include_pad"))
    if kind == "average" and node.attr("ceil_mode") and count_pad:
        raise low.fail("ceil_mode=1 with count_include_pad=1 is not supported", "use one of them")
    pads = window_pads(node, x.shape[2:], kernel)
    if kind == "average" and not count_pad and any(not isinstance(p, int) for p in pads):
        raise low.fail("auto_pad of sizes that are not constant is not supported", "give pads")
    ordered = None
    if is_unsigned(x.type):
        ordered, unordered = ordered_as_signed, x
        x = low.build.pointwise(x.type, x.shape, lambda b: ordered_as_signed(b, b.load(unordered)))
    fill = _lowest(x.type) if kind == "max" else 0.0
    x, constant = _constant_pads(low, x, kernel, fill, node)
    strides, dilations = window_attributes(node, kernel)
    n, c, *spatial = low.shape
    shape = (n, *spatial, c)
    y = window_root(low, channels_last(low, x), shape, kind, kernel, strides, dilations, constant, ordered, count_pad=count_pad)
    return channels_first(low, y)


def _lowest(type: OnnxType) -> float:
    row = DTYPES[type.storage]
    return float("-inf") if row.kind == "float" else -(1 << (row.bits - 1))


def window_root(
    low: Lowering,
    x: TypedValue,
    shape: Sequence[Dim],
    kind: str,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    finish: Callable[[RegionBuilder, Scalar], Scalar] | None = None,
    type: OnnxType | None = None,
    *,
    count_pad: bool = False,
) -> TypedValue:
    """A `pool` of x [N, spatial..., C] to `shape`; `finish` maps what it gives, in the computing type, to `type`'s."""
    type = type or x.type
    tensors = [x.value]
    region = low.build.region(tensors, [computing_type(x.type.storage)])
    done = region.arg(0, not x.type.signed)
    if finish is not None:
        done = finish(region, done)
    attrs = {
        "kind": ir.StringAttr.get(kind),
        "kernel": _ints(kernel),
        "strides": _ints(strides),
        "dilations": _ints(dilations),
        "pads": _ints(pads),
    }
    if count_pad:
        attrs["count_include_pad"] = ir.UnitAttr.get()
    return low.build.root("pool", [x.value], type, shape, attrs, [region.finish(region.store(done, type))], tensors)


@lowering("LpPool")
def _lp_pool(low: Lowering) -> Source:
    """The p-th root of the windows' sums of |x|^p."""
    x, p = low.tensor(0), low.attr("p")
    kernel = list(low.attr("kernel_shape"))
    powers = low.build.pointwise(FLOAT, x.shape, lambda b: power(b, b.absf(b.to_float(b.load(x))), p))
    powers, pads = _constant_pads(low, powers, kernel, 0.0, low.node)
    strides, dilations = window_attributes(low.node, kernel)
    n, c, *spatial = low.shape

    def root(b: RegionBuilder, total: Scalar) -> Scalar:
        return b.to_float(power(b, total, 1 / p), computing_type(x.type.storage))

    y = window_root(
        low, channels_last(low, powers), (n, *spatial, c), "sum", kernel, strides, dilations, pads, root, x.type
    )
    return channels_first(low, y)


@lowering("LRN")
def _local_response_normalization(low: Lowering) -> Source:
    """x / (bias + alpha / size * s)^beta, where s sums the squares of `size` neighbouring channels.

    The sums are those of windows along C of [N, C, rest]: the rest takes the place of channels.
    """
    x, size = low.tensor(0), low.attr("size")
    flat = low.build.reshaped(x, (*x.shape[:2], dims.product(x.shape[2:])))
    squares = low.build.pointwise(FLOAT, flat.shape, lambda b: power(b, b.to_float(b.load(flat)), 2))

    def normalized(b: RegionBuilder, total: Scalar) -> Scalar:
        scale = b.fma(total, b.like(low.attr("alpha") / size, total), b.like(low.attr("bias"), total))
        y = b.mulf(b.to_float(b.load(flat)), power(b, scale, -low.attr("beta")))
        return b.to_float(y, computing_type(x.type.storage))

    pads = [(size - 1) // 2, size // 2]
    y = window_root(low, squares, flat.shape, "sum", [size], [1], [1], pads, normalized, x.type)
    return low.build.reshape(y, low.shape)


@lowering("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(low: Lowering) -> Source:
    x = low.tensor(0)
    axes = list(range(2, x.rank))
    if low.op == "GlobalMaxPool":
        return low.build.reduce(x, "max", axes, x.type)

    def mean(b: RegionBuilder, total: Scalar) -> Scalar:
        return divide(b, total, b.to_float(b.product([x.shape[a] for a in axes]), total.type))

    return low.build.reduce(x, "sum", axes, x.type, finish=mean)
