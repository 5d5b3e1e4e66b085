"""Products of quantized operands.

Integers are multiplied as signed 8-bit numbers and added in i32, so that sums are exact: unsigned operands are moved by 128,
and what zero points add to a sum is a correction of rows and columns. Where a convolution's weights have zero points that are
not zero, both operands are widened to i32 instead, which is as exact. Where sums become floats, those beyond 2**24 are rounded
to 24 bits, as in ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ingot import dims
from ingot.dialects.mlir import ir
from ingot.dims import Dim
from ingot.dtypes import ONNX_TYPE_BY_NAME
from ingot.passes.onnx_inference.linear import window_attributes, window_pads
from ingot.passes.onnx_inference.quantization import block_axis, unpacked_shape
from ingot.passes.onnx_inference.tensors import Tensor
from ingot.passes.onnx_lowering.linear import matmul, swapped
from ingot.passes.onnx_lowering.lowering import Lowering, lowering
from ingot.passes.onnx_lowering.quantization import (
    Grid,
    Load,
    aligned,
    dequantized,
    dynamically_quantized,
    load_number,
    result_grid,
)
from ingot.passes.onnx_lowering.region_builder import RegionBuilder, Scalar
from ingot.passes.onnx_lowering.values import Known, Source, TypedValue
from ingot.passes.onnx_lowering.views import pad
from ingot.passes.onnx_lowering.windows import channels_first, channels_last, convolution_attributes

INT8 = ONNX_TYPE_BY_NAME["int8"]
INT32 = ONNX_TYPE_BY_NAME["int32"]
INT64 = ONNX_TYPE_BY_NAME["int64"]
UINT4 = ONNX_TYPE_BY_NAME["uint4"]
UINT8 = ONNX_TYPE_BY_NAME["uint8"]

Finish = Callable[[RegionBuilder, Scalar], Scalar]  # an i32 sum as a value of the result's storage type


@dataclass(frozen=True)
class _Signed:
    """An operand as signed bytes: what they stand for is `tensor` - `zero`.

    Attributes:
        zero: loads the zero point as i32, aligned with the result; None where it is zero.
        number: the zero point where it is one number known at compile time, else None.
    """

    tensor: TypedValue
    zero: Load | None
    number: int | None = None


def _signed(low: Lowering, x: TypedValue, zero: Source | None) -> _Signed:
    """An operand of bytes with its zero point, which is aligned with the result."""
    moved = 0 if x.type.signed else 128
    if moved:
        x = low.build.stored(INT8, x.shape, lambda b: b.xori(b.load(x), b.const(-128, "i8")))
    values = {0} if zero is None else _elements(low, zero)
    if values is not None and len(values) == 1:
        number = next(iter(values)) - moved
        return _Signed(x, (lambda b: b.const(number, "i32")) if number else None, number)
    assert zero is not None

    def load(b: RegionBuilder) -> Scalar:
        z = _widened(b, b.load(zero))
        return b.subi(z, b.const(moved, "i32")) if moved else z

    return _Signed(x, load)


def _elements(low: Lowering, x: Source) -> set[int] | None:
    array = low.build.constant_array(x)
    return None if array is None else {int(e) for e in array.ravel().tolist()}


def _widened(b: RegionBuilder, x: Scalar) -> Scalar:
    return b.emit("extui" if x.unsigned else "extsi", (x,), "i32")


def _sums(low: Lowering, x: TypedValue, axis: int) -> TypedValue:
    return low.build.reduce(x, "sum", [axis], INT32, _widened, acc="i32")


def integer_product(
    low: Lowering, a: TypedValue, a_zero: Source | None, b: TypedValue, b_zero: Source | None, finish: Finish
) -> Source:
    """The product of a - a_zero and b - b_zero, both matrices of bytes with leading axes or vectors, for the first output.

    Zero points are one element, or one for each row of a and each column of b.
    """
    shape = low.shape
    left = low.build.reshaped(a, (1, *a.shape)) if a.rank == 1 else a
    right = low.build.reshaped(b, (*b.shape, 1)) if b.rank == 1 else b
    lead = shape[: len(shape) - (a.rank > 1) - (b.rank > 1)]
    full = (*lead, left.shape[-2], right.shape[-1])
    x = _signed(low, left, _by_row(low, a_zero))
    w = _signed(low, right, _by_column(low, b_zero))
    columns = None if x.zero is None else _sums(low, w.tensor, right.rank - 2)
    rows = None if w.zero is None else _sums(low, x.tensor, left.rank - 1)
    inner = left.shape[-1]

    def epilogue(b: RegionBuilder, acc: Scalar) -> Scalar:
        if columns is not None and x.zero is not None:
            acc = b.subi(acc, b.muli(x.zero(b), b.load(columns)))
        if rows is not None and w.zero is not None:
            total = b.load(rows)
            if x.zero is not None:
                count = b.narrowed(b.dim(inner), total)
                total = b.subi(total, b.muli(count, x.zero(b)))
            acc = b.subi(acc, b.muli(w.zero(b), total))
        return finish(b, acc)

    tensors = [x.tensor.value, w.tensor.value]
    region = low.build.region(tensors, ["i32"])
    regions = [region.finish(epilogue(region, region.arg()))]
    attrs: dict[str, ir.Attribute] = {"acc": ir.StringAttr.get("i32")}
    product = low.build.root("matmul", tensors[:2], low.type, full, attrs, regions, tensors)
    return low.build.reshape(product, shape)


def _by_row(low: Lowering, x: Source | None) -> Source | None:
    """One element, or one a row as [M] or [..., M, 1], aligned with a result [..., M, N]."""
    if x is None or x.rank != 1:
        return x
    return aligned(low, x, 2, 0)


def _by_column(low: Lowering, x: Source | None) -> Source | None:
    """One element, or one a column as [N] or [..., 1, N], aligned with a result [..., M, N]."""
    return aligned(low, x, 1, 0) if x is not None and x.rank == 1 else x


def _scale(low: Lowering, *scales: Source | None) -> Load:
    """The product of scales, each aligned with the result."""
    loads = [load_number(low.build.stored_constant(s)) for s in scales if s is not None]

    def load(b: RegionBuilder) -> Scalar:
        total = loads[0](b)
        for factor in loads[1:]:
            total = b.mulf(total, factor(b))
        return total

    return load


def _requantized(scale: Load, to: Grid) -> Finish:
    """The sum times `scale`, on the grid `to`: one factor, which ONNX Runtime rounds too."""

    def finish(b: RegionBuilder, acc: Scalar) -> Scalar:
        return to.round(b, b.mulf(b.to_float(acc), b.divf(scale(b), to.scale(b))))

    return finish


def _rescaled(low: Lowering, scale: Load, bias: Source | None) -> Finish:
    """The sum times `scale`, plus a bias, as floats of the result's type."""

    def finish(b: RegionBuilder, acc: Scalar) -> Scalar:
        y = b.mulf(b.to_float(acc), scale(b))
        return b.store(y if bias is None else b.addf(y, b.load(bias)), low.type)

    return finish


@lowering("MatMulInteger")
def _matmul_integer(low: Lowering) -> Source:
    return integer_product(low, low.tensor(0), low.optional(2), low.tensor(1), low.optional(3), lambda b, acc: acc)


@lowering("QLinearMatMul")
def _qlinear_matmul(low: Lowering) -> Source:
    scale = _scale(low, _by_row(low, low.source(1)), _by_column(low, low.source(4)))
    finish = _requantized(scale, result_grid(low, 6, 7))
    return integer_product(low, low.tensor(0), low.source(2), low.tensor(3), low.source(5), finish)


@lowering("com.microsoft.MatMulIntegerToFloat")
def _matmul_integer_to_float(low: Lowering) -> Source:
    scale = _scale(low, _by_row(low, low.source(2)), _by_column(low, low.source(3)))
    finish = _rescaled(low, scale, low.optional(6))
    return integer_product(low, low.tensor(0), low.optional(4), low.tensor(1), low.optional(5), finish)


@lowering("com.microsoft.DynamicQuantizeMatMul")
def _dynamic_quantize_matmul(low: Lowering) -> Source:
    a, a_scale, a_zero = dynamically_quantized(low, low.tensor(0))
    finish = _rescaled(low, _scale(low, a_scale, _by_column(low, low.source(2))), low.optional(4))
    return integer_product(low, low.build.tensor(a), a_zero, low.tensor(1), low.optional(3), finish)


@lowering("com.microsoft.QGemm")
def _qgemm(low: Lowering) -> Source:
    a, b = low.tensor(0), low.tensor(3)
    a = swapped(low, a) if low.attr("transA") else a
    b = swapped(low, b) if low.attr("transB") else b
    alpha, bias = low.attr("alpha"), low.optional(6)
    scale = _scale(low, low.source(1), _by_column(low, low.source(4)))
    if alpha != 1.0:
        unscaled = scale
        scale = lambda r: r.mulf(unscaled(r), r.const(alpha, "f32"))  # noqa: E731
    last = _requantized(scale, result_grid(low, 7, 8)) if low.has(7) else _rescaled(low, scale, None)

    def finish(r: RegionBuilder, acc: Scalar) -> Scalar:
        return last(r, acc if bias is None else r.addi(acc, r.load(bias)))

    return integer_product(low, a, low.source(2), b, low.optional(5), finish)


# Convolutions ---------------------------------------------------------------------------------------------------------


def _widen(low: Lowering, x: TypedValue, zero: Source | None) -> TypedValue:
    """x minus its zero point, as i32."""

    def body(b: RegionBuilder) -> Scalar:
        y = _widened(b, b.load(x))
        return y if zero is None else b.subi(y, _widened(b, b.load(zero)))

    return low.build.stored(INT32, x.shape, body)


def integer_convolution(
    low: Lowering, x: TypedValue, x_zero: Source | None, w: TypedValue, w_zero: Source | None, finish: Finish
) -> Source:
    """The convolution of x - x_zero with w - w_zero, padded with zeros, for the first output.

    The domain of `finish` is channels last: [N, spatial..., M].
    """
    kernel = [int(k) for k in w.shape[2:]]  # type: ignore[arg-type]
    pads = window_pads(low.node, x.shape[2:], kernel)
    taken = _signed(low, x, x_zero)
    weights = _signed(low, w, w_zero)
    padding = taken.number
    correction = None
    if weights.zero is not None or padding is None:
        per_output = None if w_zero is None else aligned(low, w_zero, w.rank, 0)
        a, b = _widen(low, x, x_zero if x_zero is None else aligned(low, x_zero, 0, None)), _widen(low, w, per_output)
        padding = 0
    else:
        a, b = taken.tensor, weights.tensor
        if padding:  # what lies outside stands for zero too, and counts in the correction
            sums = low.build.reduce(b, "sum", range(1, b.rank), INT32, _widened, acc="i32")
            correction = low.build.reshaped(sums, (w.shape[0],))
    if padding or any(not isinstance(p, int) or p < 0 for p in pads):
        n = len(kernel)
        shape = (*x.shape[:2], *(d + pads[i] + pads[i + n] for i, d in enumerate(x.shape[2:])))
        a = pad(low, a, [0, 0, *pads[:n]], shape, "constant", padding)
        pads = [0] * (2 * n)
    a, b = channels_last(low, a), channels_last(low, b)
    tensors = [a.value, b.value]
    region = low.build.region(tensors, ["i32"])
    acc = region.arg()
    if correction is not None:
        acc = region.subi(acc, region.muli(region.const(padding, "i32"), region.load(correction)))
    strides, dilations = window_attributes(low.node, kernel)
    attrs = convolution_attributes("i32", strides, dilations, [int(p) for p in pads], low.attr("group"))  # type: ignore[arg-type]
    count, channels, *spatial = low.shape
    regions = [region.finish(finish(region, acc))]
    out = low.build.root("conv", tensors[:2], low.type, (count, *spatial, channels), attrs, regions, tensors)
    return channels_first(low, out)


@lowering("ConvInteger")
def _conv_integer(low: Lowering) -> Source:
    return integer_convolution(low, low.tensor(0), low.optional(2), low.tensor(1), low.optional(3), lambda b, acc: acc)


@lowering("QLinearConv")
def _qlinear_conv(low: Lowering) -> Source:
    bias = low.optional(8)
    last = _requantized(_scale(low, _by_channel(low, low.source(1)), _by_channel(low, low.source(4))), result_grid(low, 6, 7))

    def finish(b: RegionBuilder, acc: Scalar) -> Scalar:
        return last(b, acc if bias is None else b.addi(acc, b.load(bias)))

    return integer_convolution(low, low.tensor(0), low.source(2), low.tensor(3), low.source(5), finish)


def _by_channel(low: Lowering, x: Source) -> Source:
    """One element, or one for each channel of the result, which stand last."""
    return aligned(low, x, 1, 0)


# Weights of few bits --------------------------------------------------------------------------------------------------


@lowering("com.microsoft.MatMulNBits")
def _matmul_nbits(low: Lowering) -> Source:
    """a @ the transpose of the dequantized weight [N, K], in blocks along K, of which the last one may be cut."""
    a = low.tensor(0)
    n, k, block, bits = (low.attr(name) for name in ("N", "K", "block_size", "bits"))
    blocks = dims.ceildiv(k, block)
    weight = _packed_elements(low, low.source(1), n, blocks * block, bits)
    scale = low.build.reshape(low.source(2), (n, blocks))
    zero = _packed_zeros(low, low.optional(3), n, blocks, bits)
    order = _order_of_groups(low, k, block)
    if order is not None:
        a, weight = (_gathered_last(low, x, order) for x in (a, weight))
    w = dequantized(low, weight, scale, zero, a.type, axis=1, block=block)
    w = low.build.slice_axis(w, 1, 0, k)
    bias = low.optional(5)
    add_bias = None if bias is None else lambda b, acc: b.addf(acc, b.load(bias))
    return matmul(low, a, swapped(low, w), low.shape, add_bias)


def _packed_elements(low: Lowering, x: Source, rows: int, columns: Dim, bits: int) -> TypedValue:
    """Bytes as the unsigned elements that they hold, the first in the lowest bits; those of 2 bits in 4."""
    if bits == 8:
        return low.build.reshaped(low.build.tensor(x), (rows, columns))
    if bits == 4:
        return low.build.reinterpreted(x, UINT4, (rows, columns))
    quarter = dims.floordiv(columns, 4)
    bytes_ = low.build.reshape(x, (rows, quarter, 1))

    def element(b: RegionBuilder) -> Scalar:
        byte = b.emit("extui", (b.load(bytes_),), "i64")
        part = b.andi(b.shrui(byte, b.muli(b.index(2), b.const(2, "i64"))), b.const(3, "i64"))
        return b.emit("trunci", (part,), "i4", unsigned=True)

    return low.build.reshaped(low.build.stored(UINT4, (rows, quarter, 4), element), (rows, columns))


def _packed_zeros(low: Lowering, zero: Source | None, n: int, blocks: Dim, bits: int) -> Source:
    """Zero points [n, blocks]: floats, or integers of which each row begins a byte; half the range where there are none."""
    if zero is None:
        return Known(UINT8 if bits == 8 else UINT4, (1, 1), (1 << (bits - 1),))
    if zero.type != UINT8:
        return low.build.reshape(zero, (n, blocks))
    whole = _packed_elements(low, zero, n, dims.ceildiv(blocks, 8 // bits) * (8 // bits), bits)
    return low.build.slice_axis(whole, 1, 0, blocks)


def _order_of_groups(low: Lowering, k: int, block: int) -> TypedValue | None:
    """The k that `g_idx` puts into each block, block by block; None where they are the blocks' own."""
    given = low.optional(4)
    if given is None:
        return None
    array = low.build.constant_array(given)
    if array is None:
        raise low.fail("g_idx is computed at run time", "make it an initializer")
    groups = array.ravel()[:k].astype(np.int64)
    if np.array_equal(groups, np.arange(k) // block):
        return None
    if k % block or not np.array_equal(np.sort(groups), np.arange(k) // block):
        raise low.fail(f"g_idx with groups of other than {block} rows is not supported", "quantize without act_order")
    return low.build.array(np.argsort(groups, kind="stable"), INT64)


def _gathered_last(low: Lowering, x: TypedValue, order: TypedValue) -> TypedValue:
    """Elements of the last axis in another order."""

    def element(b: RegionBuilder) -> Scalar:
        places = [b.index(i) for i in range(x.rank)]
        return b.load_at(x, [*places[:-1], b.load(order)])

    build = low.build.pointwise if x.type.name.startswith(("float", "bfloat")) else low.build.stored
    return build(x.type, x.shape, element)


@lowering("com.microsoft.GatherBlockQuantized")
def _gather_block_quantized(low: Lowering) -> Source:
    """Only what is gathered is dequantized."""
    x, indices, scale, zero = low.source(0), low.source(1), low.tensor(2), low.optional(3)
    shape = unpacked_shape(low.node, Tensor(x.type, x.shape))
    axis = low.node.axis(low.attr("gather_axis"), len(shape))
    quantized = low.node.axis(low.attr("quantize_axis"), len(shape))
    block = low.attr("block_size")
    quantized = block_axis(low.node, Tensor(x.type, shape), Tensor(scale.type, scale.shape), quantized, block)
    offset: Source | None = zero
    if x.type == UINT8:
        type = UINT4 if low.attr("bits") == 4 else UINT8
        if type == UINT4:
            x = low.build.reinterpreted(x, type, shape)
            if zero is not None:
                row = dims.ceildiv(scale.shape[-1], 2) * 2
                stored = low.build.reinterpreted(zero, type, (*scale.shape[:-1], row))
                offset = low.build.slice_axis(stored, scale.rank - 1, 0, scale.shape[-1])
        if zero is None:
            offset = Known(type, (), (8 if type == UINT4 else 128,))
    data = low.build.tensor(x)
    places = low.build.reshape(indices, (*indices.shape, *(1 for _ in shape[axis + 1 :])))

    def body(b: RegionBuilder) -> Scalar:
        at = [b.index(i if i < axis else i + indices.rank - 1) for i in range(len(shape))]
        at[axis] = b.wrapped_index(b.load(places), shape[axis])
        q = b.to_float(b.load_at(data, at))
        at[quantized] = b.floordivsi(at[quantized], b.const(block, "i64"))
        if offset is not None:
            z = offset
            q = b.subf(q, load_number(z)(b) if isinstance(z, Known) else b.to_float(b.load_at(z, at)))
        return b.mulf(q, b.to_float(b.load_at(scale, at)))

    return low.build.pointwise(low.type, low.shape, body)
