"""Rules for quantization: grids, and products of quantized operands."""

from __future__ import annotations

from dataclasses import replace

from ingot import dims
from ingot.dims import Dim
from ingot.dtypes import ONNX_TYPE_BY_CODE, ONNX_TYPE_BY_NAME, OnnxType
from ingot.passes.onnx_inference.linear import conv_shape, matmul_shape, window_sizes
from ingot.passes.onnx_inference.rules import Node, rule
from ingot.passes.onnx_inference.tensors import FLOAT, FLOAT_NAMES, Tensor

UINT8 = ONNX_TYPE_BY_NAME["uint8"]
INT32 = ONNX_TYPE_BY_NAME["int32"]
FLOAT8 = ONNX_TYPE_BY_NAME["float8e4m3fn"]
FLOAT4 = ONNX_TYPE_BY_NAME["float4e2m1"]
EXPONENT8 = ONNX_TYPE_BY_NAME["float8e8m0"]

QUANTIZED = frozenset({
    "int2", "uint2", "int4", "uint4", "int8", "uint8", "int16", "uint16", "float8e4m3fn", "float8e5m2", "float4e2m1",
})  # fmt: skip
DEQUANTIZED = QUANTIZED | {"int32"}
SCALES = FLOAT_NAMES | {"float8e8m0", "float8e4m3fn"}


def _type_of_code(node: Node, name: str) -> OnnxType | None:
    """The element type that an attribute names by its code; None for 0."""
    code = node.attr(name)
    if not code:
        return None
    found = ONNX_TYPE_BY_CODE.get(code)
    if found is None:
        raise node.fail(f"attribute {name}={code} is no element type that Ingot knows", "export with another type")
    return found


def check_type(node: Node, i: int, types: frozenset[str], what: str) -> Tensor:
    """Operand `i`, whose element type is one of `types`."""
    x = node.input(i)
    if x.type.name not in types:
        raise node.fail(f"{what} of type {x.type.name} is not supported", f"use {', '.join(sorted(types))}")
    return x


def per_tensor(x: Tensor) -> bool:
    """True where a scale or zero point is one element."""
    return all(d == 1 for d in x.shape)


def block_axis(node: Node, x: Tensor, scale: Tensor, axis: int, block: int) -> int:
    """The axis along which each scale serves `block` neighbours.

    `axis` where the scale's sizes say so, else the one axis for which they do: TensorRT Model Optimizer leaves the attribute as
    it is where it transposes the weight of a Gemm.
    """
    if scale.rank != x.rank:
        raise node.fail(f"a scale of rank {scale.rank} for blocks of a tensor of rank {x.rank}", "correct the scale's shape")

    def fits(a: int) -> bool:
        blocks = dims.ceildiv(x.shape[a], block)
        return all(s == (blocks if i == a else d) for i, (s, d) in enumerate(zip(scale.shape, x.shape, strict=True)))

    found = [a for a in range(x.rank) if fits(a)]
    if axis in found or not found:
        for i, (s, d) in enumerate(zip(scale.shape, x.shape, strict=True)):
            wanted = dims.ceildiv(d, block) if i == axis else d
            node.equal(s, wanted, f"scales of axis {i} are {s}, not {wanted}")
        return axis
    if len(found) > 1:
        raise node.fail(f"scales fit blocks of axes {found}, not of axis {axis}", "correct the attribute axis")
    return found[0]


def _check_grid(node: Node, x: Tensor) -> None:
    """Sizes of operands 1 and 2, scales and zero points of x."""
    scale = node.input(1)
    if node.op in _BLOCKED and node.attr("block_size"):
        block_axis(node, x, scale, node.axis(node.attr("axis"), x.rank), node.attr("block_size"))
    elif not per_tensor(scale):
        if scale.rank != 1:
            raise node.fail(f"a scale of rank {scale.rank} without block_size", "give one scale, one an axis, or block_size")
        axis = node.axis(1 if node.attr("axis") is None else node.attr("axis"), x.rank)
        node.equal(scale.shape[0], x.shape[axis], f"scales are not one for each element of axis {axis}")
    if node.has(2) and not per_tensor(node.input(2)):
        for a, b in zip(node.input(2).shape, scale.shape, strict=True):
            node.equal(a, b, "scales and zero points have different shapes")


# Operators with the attributes block_size and output_dtype; com.microsoft's are of ONNX's opset 13.
_BLOCKED = frozenset({"QuantizeLinear", "DequantizeLinear", "trt.QuantizeLinear", "trt.DequantizeLinear"})


@rule("DequantizeLinear", "com.microsoft.DequantizeLinear", "trt.DequantizeLinear")
def _dequantize(node: Node) -> Tensor:
    x, scale = check_type(node, 0, DEQUANTIZED, "an operand"), check_type(node, 1, SCALES, "a scale")
    _check_grid(node, x)
    to = _type_of_code(node, "output_dtype") if node.op in _BLOCKED else None
    to = to or scale.type
    if to.name not in FLOAT_NAMES:
        raise node.fail(f"results of type {to.name} are not supported", "give the attribute output_dtype")
    return Tensor(to, x.shape)


@rule("QuantizeLinear", "com.microsoft.QuantizeLinear", "trt.QuantizeLinear")
def _quantize(node: Node) -> Tensor:
    x = check_type(node, 0, FLOAT_NAMES | {"int32"}, "an operand")
    check_type(node, 1, SCALES, "a scale")
    _check_grid(node, x)
    to = _type_of_code(node, "output_dtype") if node.op in _BLOCKED else None
    if node.has(2):
        if to is not None and to != node.input(2).type:
            raise node.fail(f"output_dtype is {to.name}, the zero point {node.input(2).type.name}", "correct the model")
        to = node.input(2).type
    if to is None and node.op.startswith("trt."):
        raise node.fail("the type of the result is not stated", "give a zero point or output_dtype")
    to = to or UINT8
    if to.name not in QUANTIZED:
        raise node.fail(f"quantizing to {to.name} is not supported", f"use {', '.join(sorted(QUANTIZED))}")
    return Tensor(to, x.shape)


@rule("DynamicQuantizeLinear")
def _dynamic_quantize(node: Node) -> list[Tensor]:
    x = node.input(0)
    return [Tensor(UINT8, x.shape), Tensor(FLOAT, ()), Tensor(UINT8, ())]


def blocks_of_axis(node: Node, x: Tensor) -> tuple[int, tuple[Dim, ...]]:
    """The axis of attribute `axis`, and the shape of what holds one element for each of its blocks."""
    axis = node.axis(node.attr("axis"), x.rank)
    block = node.attr("block_size")
    count = node.divide_exactly(x.shape[axis], block, f"axis {axis} of size {x.shape[axis]} has no whole blocks of {block}")
    return axis, tuple(count if i == axis else d for i, d in enumerate(x.shape))


def _block_quantize(node: Node, code: str, elements: OnnxType, scales: OnnxType) -> list[Tensor]:
    """The results of an operator that finds a scale for each block, and whose attribute `code` can only be one type's."""
    x = check_type(node, 0, FLOAT_NAMES, "an operand")
    if _type_of_code(node, code) is not FLOAT8:
        raise node.fail(f"{code}={node.attr(code)} is not supported", "use float8e4m3fn (17)")
    _, blocks = blocks_of_axis(node, x)
    return [Tensor(elements, x.shape), Tensor(scales, blocks)]


@rule("trt.TRT_FP4DynamicQuantize")
def _fp4_dynamic_quantize(node: Node) -> list[Tensor]:
    return _block_quantize(node, "scale_type", FLOAT4, FLOAT8)


@rule("trt.TRT_MXFP8DynamicQuantize")
def _mxfp8_dynamic_quantize(node: Node) -> list[Tensor]:
    return _block_quantize(node, "output_dtype", FLOAT8, UINT8)


@rule("trt.TRT_MXFP8DequantizeLinear")
def _mxfp8_dequantize(node: Node) -> Tensor:
    x = check_type(node, 0, frozenset({"float8e4m3fn", "float8e5m2"}), "an operand")
    scale = check_type(node, 1, frozenset({"uint8", "float8e8m0"}), "a scale")
    block_axis(node, x, scale, node.axis(node.attr("axis"), x.rank), node.attr("block_size"))
    to = _type_of_code(node, "output_dtype")
    assert to is not None, "the schema has a default"
    return Tensor(to, x.shape)


# Products -------------------------------------------------------------------------------------------------------------

_BYTES = frozenset({"int8", "uint8"})


@rule("MatMulInteger")
def _matmul_integer(node: Node) -> Tensor:
    a, b = (check_type(node, i, _BYTES, "an operand") for i in (0, 1))
    return Tensor(INT32, matmul_shape(node, a.shape, b.shape))


@rule("QLinearMatMul")
def _qlinear_matmul(node: Node) -> Tensor:
    a, b = (check_type(node, i, _BYTES, "an operand") for i in (0, 3))
    return Tensor(check_type(node, 7, _BYTES, "a zero point").type, matmul_shape(node, a.shape, b.shape))


@rule("com.microsoft.MatMulIntegerToFloat")
def _matmul_integer_to_float(node: Node) -> Tensor:
    a, b = (check_type(node, i, _BYTES, "an operand") for i in (0, 1))
    return Tensor(node.input(2).type, matmul_shape(node, a.shape, b.shape))


@rule("com.microsoft.DynamicQuantizeMatMul")
def _dynamic_quantize_matmul(node: Node) -> Tensor:
    a, b = node.input(0), check_type(node, 1, _BYTES, "an operand")
    return Tensor(a.type, matmul_shape(node, a.shape, b.shape))


@rule("com.microsoft.QGemm")
def _qgemm(node: Node) -> Tensor:
    a, b = (check_type(node, i, _BYTES, "an operand") for i in (0, 3))
    m, k = a.shape[::-1] if node.attr("transA") else a.shape
    l, n = b.shape[::-1] if node.attr("transB") else b.shape  # noqa: E741
    node.equal(k, l, f"inner sizes {k} and {l} differ")
    return Tensor(check_type(node, 8, _BYTES, "a zero point").type if node.has(8) else FLOAT, (m, n))


@rule("ConvInteger")
def _conv_integer(node: Node) -> Tensor:
    x, w = (check_type(node, i, _BYTES, "an operand") for i in (0, 1))
    return Tensor(INT32, conv_shape(node, x, w))


@rule("QLinearConv")
def _qlinear_conv(node: Node) -> Tensor:
    x, w = (check_type(node, i, _BYTES, "an operand") for i in (0, 3))
    return Tensor(check_type(node, 7, _BYTES, "a zero point").type, conv_shape(node, x, w))


@rule("com.microsoft.MatMulNBits")
def _matmul_nbits(node: Node) -> Tensor:
    a = check_type(node, 0, FLOAT_NAMES, "an operand")
    if node.attr("bits") not in (2, 4, 8):
        raise node.fail(f"bits={node.attr('bits')} is not supported", "quantize to 2, 4 or 8 bits")
    if node.attr("weight_prepacked"):
        raise node.fail("weights packed for another runtime are not supported", "export with weight_prepacked=0")
    node.equal(a.shape[-1], node.attr("K"), "the operand's last size is not K")
    return Tensor(a.type, (*a.shape[:-1], node.attr("N")))


@rule("com.microsoft.GatherBlockQuantized")
def _gather_block_quantized(node: Node) -> Tensor:
    x = check_type(node, 0, frozenset({"int4", "uint4", "uint8"}), "an operand")
    indices, scale = node.input(1), check_type(node, 2, FLOAT_NAMES, "a scale")
    shape = unpacked_shape(node, x)
    axis = node.axis(node.attr("gather_axis"), x.rank)
    block_axis(node, Tensor(x.type, shape), scale, node.axis(node.attr("quantize_axis"), x.rank), node.attr("block_size"))
    result = (*shape[:axis], *indices.shape, *shape[axis + 1 :])
    node.reads(shape[axis], 1, result, f"an index into axis {axis}")
    return Tensor(scale.type, result)


def unpacked_shape(node: Node, x: Tensor) -> tuple[Dim, ...]:
    """The sizes of a tensor whose bytes may hold two elements each along the last axis."""
    packed = x.type.name == "uint8" and node.attr("bits") == 4
    return (*x.shape[:-1], x.shape[-1] * 2) if packed else x.shape


# Elementwise, pools and reductions on grids ---------------------------------------------------------------------------


@rule("com.microsoft.QLinearAdd", "com.microsoft.QLinearMul")
def _qlinear_binary(node: Node) -> Tensor:
    a, b = (check_type(node, i, _BYTES, "an operand") for i in (0, 3))
    return Tensor(a.type, node.broadcast(a.shape, b.shape))


@rule("com.microsoft.QLinearSigmoid", "com.microsoft.QLinearLeakyRelu", "com.microsoft.QLinearSoftmax")
def _qlinear_unary(node: Node) -> Tensor:
    x = check_type(node, 0, _BYTES, "an operand")
    return Tensor(x.type, x.shape)


@rule("com.microsoft.QLinearWhere")
def _qlinear_where(node: Node) -> Tensor:
    x, y = (check_type(node, i, _BYTES, "an operand") for i in (1, 4))
    return Tensor(x.type, node.broadcast(node.input(0).shape, x.shape, y.shape))


@rule("com.microsoft.QLinearConcat")
def _qlinear_concat(node: Node) -> Tensor:
    parts = [check_type(node, i, _BYTES, "an operand") for i in range(2, len(node.inputs), 3)]
    if not parts:
        raise node.fail("nothing to concatenate", "correct the model")
    axis = node.axis(node.attr("axis"), parts[0].rank)
    total: Dim = 0
    for part in parts:
        for i, (a, b) in enumerate(zip(parts[0].shape, part.shape, strict=True)):
            if i != axis:
                node.equal(a, b, f"sizes of axis {i} differ")
        total = total + part.shape[axis]
    return Tensor(node.input(1).type, tuple(total if i == axis else d for i, d in enumerate(parts[0].shape)))


@rule("com.microsoft.QLinearGlobalAveragePool")
def _qlinear_global_pool(node: Node) -> Tensor:
    x = check_type(node, 0, _BYTES, "an operand")
    spatial = range(1, x.rank - 1) if node.attr("channels_last") else range(2, x.rank)
    return Tensor(x.type, tuple(1 if i in spatial else d for i, d in enumerate(x.shape)))


@rule("com.microsoft.QLinearAveragePool")
def _qlinear_pool(node: Node) -> Tensor:
    x = check_type(node, 0, _BYTES, "an operand")
    if node.attr("channels_last"):
        raise node.fail("channels_last=1 is not supported", "export in ONNX's order of axes")
    return Tensor(x.type, (*x.shape[:2], *window_sizes(undilated(node), x.shape[2:], list(node.attr("kernel_shape")))))


def undilated(node: Node) -> Node:
    """The node with an attribute `dilations`, not given, for rules of windows: QLinearAveragePool has none."""
    return replace(node, attribute=lambda name: None if name == "dilations" else node.attribute(name))


@rule("com.microsoft.QLinearReduceMean")
def _qlinear_reduce_mean(node: Node) -> Tensor:
    x = check_type(node, 0, _BYTES, "an operand")
    axes = {node.axis(a, x.rank) for a in node.attr("axes") or range(x.rank)}
    keep = node.attr("keepdims")
    return Tensor(x.type, tuple(1 if i in axes else d for i, d in enumerate(x.shape) if keep or i not in axes))
