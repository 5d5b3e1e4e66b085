"""Quantization: tensors brought onto a grid of few values and back.

A dequantization is one `pointwise` of one form, which passes recognize: the element, converted to f32 (`sitofp` and `uitofp`
say whether it is signed); minus the zero point, converted alike, where there is one that is not known to be zero; times the
scale; rounded to the result's type. Scales of an axis are loaded in the shape [C, 1, ...]. In blocks along an axis of size K,
elements are read as [..., K / B, B, ...] and scales as [..., K / B, 1, ...].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ingot import dims
from ingot.dims import Dim
from ingot.dtypes import DTYPES, ONNX_TYPE_BY_NAME, OnnxType
from ingot.passes.onnx_inference.quantization import EXPONENT8, block_axis
from ingot.passes.onnx_inference.tensors import Tensor
from ingot.passes.onnx_lowering.elementwise import clamp
from ingot.passes.onnx_lowering.graph_builder import FLOAT, weight_name
from ingot.passes.onnx_lowering.lowering import Lowering, lowering
from ingot.passes.onnx_lowering.region_builder import RegionBuilder, Scalar
from ingot.passes.onnx_lowering.values import Known, Source, TypedValue

UINT8 = ONNX_TYPE_BY_NAME["uint8"]
_LARGEST = {"float8e4m3fn": 448.0, "float8e5m2": 57344.0, "float4e2m1": 6.0}

Load = Callable[[RegionBuilder], Scalar]


@dataclass(frozen=True)
class Grid:
    """Scale and zero point of a quantized tensor, as a region loads them beside its elements.

    Attributes:
        scale: the scale in f32.
        zero: the zero point in f32, or None where it is zero.
        type: the quantized element type.
    """

    scale: Load
    zero: Load | None
    type: OnnxType

    def dequantize(self, b: RegionBuilder, q: Scalar) -> Scalar:
        """A quantized element as f32."""
        x = b.to_float(q)
        if self.zero is not None:
            x = b.subf(x, self.zero(b))
        return b.mulf(x, self.scale(b))

    def quantize(self, b: RegionBuilder, x: Scalar, *, saturate: bool = True) -> Scalar:
        """An f32 as the nearest element of the grid, of the storage type; ties go to even."""
        return self.round(b, b.divf(x, self.scale(b)), saturate=saturate)

    def round(self, b: RegionBuilder, x: Scalar, *, saturate: bool = True) -> Scalar:
        """What `quantize` does of a value that has been divided by the scale."""
        if DTYPES[self.type.storage].kind == "float":
            if not saturate and self.type.name == "float8e4m3fn":
                # What rounds to more than the largest number is none: 464 lies between that and the next code, which is NaN.
                x = b.select(b.cmpf_ole(b.absf(x), b.like(464.0, x)), x, b.like(float("nan"), x))
            return b.emit("truncf", (x,), self.type.storage)
        x = b.roundeven(x)
        if self.zero is not None:
            x = b.addf(x, self.zero(b))
        return b.cast(clamp(b, x, *integer_range(self.type)), self.type)


def integer_range(type: OnnxType) -> tuple[float, float]:
    """The smallest and the largest number of an integer type."""
    bits = type.bits
    return (-float(1 << (bits - 1)), float((1 << (bits - 1)) - 1)) if type.signed else (0.0, float((1 << bits) - 1))


def is_zero(low: Lowering, x: Source | None) -> bool:
    """True where a zero point is absent or known to be zero throughout."""
    if x is None:
        return True
    array = low.build.constant_array(x)
    return array is not None and not np.any(array.astype(np.float32))


def load_number(x: Source) -> Load:
    """Loads an integer or float as f32; what is known is a constant."""
    if isinstance(x, Known) and x.scalar is not None:
        value = float(x.scalar)
        return lambda b: b.const(value, "f32")
    return lambda b: b.to_float(b.load(x))


def aligned(low: Lowering, x: Source, rank: int, axis: int | None) -> Source:
    """A scale or zero point of one element, or of one for each position of an axis, for a region over `rank` axes."""
    if all(d == 1 for d in x.shape):
        return low.build.reshape(x, ())
    assert axis is not None
    return low.build.reshape(x, (*x.shape, *(1 for _ in range(rank - 1 - axis))))


def grid(
    low: Lowering, scale: Source, zero: Source | None, type: OnnxType, rank: int = 0, axis: int | None = None
) -> Grid:
    """The grid of a tensor of `rank` axes with one scale, or one for each position of `axis`."""
    scale = low.build.stored_constant(aligned(low, scale, rank, axis))
    loaded = None if zero is None or is_zero(low, zero) else load_number(aligned(low, zero, rank, axis))
    return Grid(load_number(scale), loaded, type)


def operand_grid(low: Lowering, x: int, scale: int, zero: int, rank: int = 0, axis: int | None = None) -> Grid:
    """The grid of operand `x`, whose scale and zero point are operands too."""
    return grid(low, low.source(scale), low.optional(zero), low.source(x).type, rank, axis)


def result_grid(low: Lowering, scale: int, zero: int) -> Grid:
    """The grid of the first output, whose scale and zero point are operands."""
    return grid(low, low.source(scale), low.optional(zero), low.type)


# Linear grids ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layout:
    """How a tensor meets its scales: over the domain `shape`, with the grid's parameters aligned to it."""

    shape: tuple[Dim, ...]
    grid: Grid


def _layout(
    low: Lowering, x: Source, scale: Source, zero: Source | None, type: OnnxType, axis: int, block: int
) -> _Layout:
    """The domain of x with its grid: blocks are an axis of their own where they divide x's axis."""
    if not block:
        where = None if all(d == 1 for d in scale.shape) else low.node.axis(axis, x.rank)
        return _Layout(x.shape, grid(low, scale, zero, type, x.rank, where))
    sizes = Tensor(x.type, x.shape), Tensor(scale.type, scale.shape)
    where = block_axis(low.node, *sizes, low.node.axis(axis, x.rank), block)
    size = x.shape[where]
    count = dims.exact_div(size, block)
    zero = None if is_zero(low, zero) else zero
    if count is None:
        return _Layout(x.shape, _shared_grid(low, scale, zero, type, where, block))
    domain = (*x.shape[:where], count, block, *x.shape[where + 1 :])
    wide = (*scale.shape[: where + 1], 1, *scale.shape[where + 1 :])
    scales = low.build.reshape(low.build.stored_constant(scale), wide)
    if zero is not None and zero.shape == scale.shape:
        zero = low.build.reshape(zero, wide)
    return _Layout(domain, Grid(load_number(scales), None if zero is None else load_number(zero), type))


def _shared_grid(low: Lowering, scale: Source, zero: Source | None, type: OnnxType, axis: int, block: int) -> Grid:
    """Blocks of which the last one is short: parameters are read at the block's number."""

    def at(x: Source) -> Load:
        tensor = low.build.tensor(x)

        def load(b: RegionBuilder) -> Scalar:
            places = [b.index(i) for i in range(tensor.rank)]
            places[axis] = b.floordivsi(places[axis], b.const(block, "i64"))
            return b.to_float(b.load_at(tensor, places))

        return load

    return Grid(at(scale), None if zero is None else at(zero), type)


def dequantized(
    low: Lowering, x: TypedValue, scale: Source, zero: Source | None, type: OnnxType, axis: int = 0, block: int = 0
) -> TypedValue:
    """x off its grid, as floats of `type`."""
    layout = _layout(low, x, scale, zero, x.type, axis, block)
    elements = low.build.reshape(x, layout.shape)
    y = low.build.pointwise(type, layout.shape, lambda b: layout.grid.dequantize(b, b.load(elements)))
    return low.build.reshaped(y, x.shape)


@lowering("DequantizeLinear", "com.microsoft.DequantizeLinear", "trt.DequantizeLinear")
def _dequantize_linear(low: Lowering) -> Source:
    return dequantized(low, low.tensor(0), low.source(1), low.optional(2), low.type, _axis(low), _block(low))


def _axis(low: Lowering) -> int:
    axis = low.attr("axis")
    return 1 if axis is None else axis


def _block(low: Lowering) -> int:
    return 0 if low.op.startswith("com.microsoft.") else low.attr("block_size")


@lowering("QuantizeLinear", "com.microsoft.QuantizeLinear", "trt.QuantizeLinear")
def _quantize_linear(low: Lowering) -> Source:
    x = low.source(0)
    saturate = low.op.startswith("com.microsoft.") or low.attr("saturate") != 0
    if not saturate and low.type.name == "float8e5m2":
        raise low.fail("saturate=0 for float8e5m2 is not supported", "export with saturate=1")
    layout = _layout(low, x, low.source(1), low.optional(2), low.type, _axis(low), _block(low))
    elements = low.build.reshape(x, layout.shape)

    def element(b: RegionBuilder) -> Scalar:
        return layout.grid.quantize(b, b.to_float(b.load(elements)), saturate=saturate)

    return low.build.reshape(low.build.stored(low.type, layout.shape, element), low.shape)


@lowering("DynamicQuantizeLinear")
def _dynamic_quantize_linear(low: Lowering) -> list[Source]:
    return list(dynamically_quantized(low, low.tensor(0)))


def dynamically_quantized(low: Lowering, x: TypedValue) -> tuple[Source, Source, Source]:
    """x on the grid of uint8 that just holds it and zero (ONNX, DynamicQuantizeLinear): elements, scale, zero point."""
    axes = list(range(x.rank))

    def extremum(kind: str) -> Source:
        def with_zero(b: RegionBuilder, e: Scalar) -> Scalar:
            return b.maxf(e, b.like(0, e)) if kind == "max" else b.minf(e, b.like(0, e))

        return low.build.reshape(low.build.reduce(x, kind, axes, FLOAT, finish=with_zero), ())

    least, most = extremum("min"), extremum("max")

    def step(b: RegionBuilder) -> Scalar:
        width = b.subf(b.load(most), b.load(least))
        return b.select(b.cmpf_oeq(width, b.like(0, width)), b.like(1, width), b.divf(width, b.like(255, width)))

    scale = low.build.pointwise(FLOAT, (), step)

    def origin(b: RegionBuilder) -> Scalar:
        at = b.divf(b.negf(b.load(least)), b.load(scale))
        return b.cast(b.roundeven(clamp(b, at, 0.0, 255.0)), UINT8)

    zero = low.build.stored(UINT8, (), origin)
    found = Grid(load_number(scale), load_number(zero), UINT8)
    return low.build.stored(UINT8, x.shape, lambda b: found.quantize(b, b.load(x))), scale, zero


# Blocks with scales of few bits (OCP Microscaling Formats 1.0; NVIDIA's NVFP4) -----------------------------------------


def _largest_of_blocks(low: Lowering, x: TypedValue, axis: int) -> tuple[TypedValue, TypedValue]:
    """x with the blocks of `axis` as an axis of their own, and the largest magnitude in each, with size 1 there."""
    block = low.attr("block_size")
    count = low.result(1).shape[axis]
    parted = low.build.reshaped(x, (*x.shape[:axis], count, block, *x.shape[axis + 1 :]))
    return parted, low.build.reduce(parted, "max", [axis + 1], FLOAT, lambda b, e: b.absf(e))


@lowering("trt.TRT_FP4DynamicQuantize")
def _fp4_dynamic_quantize(low: Lowering) -> list[Source]:
    """Blocks on float4e2m1 with scales of float8e4m3fn, which are in units of the operand `scale`."""
    x = low.tensor(0)
    axis = low.node.axis(low.attr("axis"), x.rank)
    parted, largest = _largest_of_blocks(low, x, axis)
    unit = load_number(aligned(low, low.source(1), parted.rank, None))
    type, scale_type = low.result(0).type, low.result(1).type

    def block_scale(b: RegionBuilder) -> Scalar:
        top = b.divf(b.divf(b.load(largest), b.const(_LARGEST[type.name], "f32")), unit(b))
        return b.emit("truncf", (top,), scale_type.storage)

    scales = low.build.stored(scale_type, largest.shape, block_scale)

    def element(b: RegionBuilder) -> Scalar:
        step = b.mulf(b.load(scales), unit(b))
        quotient = b.divf(b.load(parted), step)
        y = b.select(b.cmpf_ogt(step, b.like(0, step)), quotient, b.like(0, step))
        return b.emit("truncf", (y,), type.storage)

    y = low.build.stored(type, parted.shape, element)
    return [low.build.reshape(y, low.shape), low.build.reshape(scales, low.result(1).shape)]


@lowering("trt.TRT_MXFP8DynamicQuantize")
def _mxfp8_dynamic_quantize(low: Lowering) -> list[Source]:
    """Blocks on float8e4m3fn with powers of two as scales: the least with which no element exceeds the largest number."""
    x = low.tensor(0)
    axis = low.node.axis(low.attr("axis"), x.rank)
    parted, largest = _largest_of_blocks(low, x, axis)
    type = low.result(0).type

    def exponent(b: RegionBuilder) -> Scalar:
        # The exponent of a float, rounded up: what the mantissa adds carries over. 2**-127, the least scale, is subnormal.
        top = b.divf(b.load(largest), b.const(_LARGEST[type.name], "f32"))
        bits = b.emit("bitcast", (top,), "i32")
        code = b.shrui(b.addi(bits, b.like(0x7FFFFF, bits)), b.like(23, bits))
        code = b.minsi(b.select(b.cmpi_sle(bits, b.like(0x400000, bits)), b.like(0, bits), code), b.like(254, bits))
        return b.emit("trunci", (code,), "i8", unsigned=True)

    scales = low.build.stored(UINT8, largest.shape, exponent)
    powers = exponents(low, scales)

    def element(b: RegionBuilder) -> Scalar:
        return b.emit("truncf", (b.divf(b.load(parted), b.load(powers)),), type.storage)

    y = low.build.stored(type, parted.shape, element)
    return [low.build.reshape(y, low.shape), low.build.reshape(scales, low.result(1).shape)]


@lowering("trt.TRT_MXFP8DequantizeLinear")
def _mxfp8_dequantize(low: Lowering) -> Source:
    scale = low.source(1)
    if scale.type != EXPONENT8:
        scale = exponents(low, scale)
    return dequantized(low, low.tensor(0), scale, None, low.type, low.attr("axis"), low.attr("block_size"))


def exponents(low: Lowering, x: Source) -> TypedValue:
    """Bytes as the powers of two that they stand for (float8e8m0)."""
    if isinstance(x, Known) or weight_name(x.value) is not None:
        return low.build.reinterpreted(x, EXPONENT8, x.shape)
    return low.build.stored(EXPONENT8, x.shape, lambda b: b.emit("bitcast", (b.load(x),), EXPONENT8.storage))
