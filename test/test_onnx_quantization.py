"""Quantized operators, and those of ONNX Runtime's transformers: single nodes against ONNX Runtime or onnx.reference.

As in test_onnx_lowering.py the lowered module runs in the interpreter: inference and lowering are tested, and no kernel.
"""

from __future__ import annotations

import importlib
import re
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
import trt_reference
import zoo
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from test_onnx_lowering import Case, Lowered, check, relative_error, weights

import ingot.backend as backend
from ingot.dialects import ingot as dialect
from ingot.errors import InputError, ModelError

RNG = np.random.default_rng(11)
E4M3, E5M2, INT4, UINT4 = ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, ml_dtypes.int4, ml_dtypes.uint4
ROWS = [{"N": 3}, {"N": 1}]
MATRIX = {"x": ("f", ["N", 12])}
IMAGES = [{"N": 2, "H": 9, "W": 7}, {"N": 1, "H": 6, "W": 12}]


def scales(*shape: int) -> np.ndarray:
    return (0.02 + RNG.random(shape) / 20).astype(np.float32)


def codes(dtype: Any, *shape: int) -> np.ndarray:
    """Any integers of a type."""
    name = np.dtype(dtype).name
    bits = 4 if name.endswith("int4") else np.dtype(dtype).itemsize * 8
    low = 0 if name[0] == "u" else -(1 << (bits - 1))
    return RNG.integers(low, low + (1 << bits), shape).astype(dtype)


def floats(dtype: Any, *shape: int) -> np.ndarray:
    return (RNG.standard_normal(shape) * 2).astype(np.float32).astype(dtype)


def dequantize(q: np.ndarray, attributes: str = "", opset: int = 21, **constants: np.ndarray) -> Case:
    """A dequantization of a constant, added to an input."""
    names = ", ".join(["q", *constants])
    nodes = f"d = DequantizeLinear {attributes} ({names})\n y = Add (d, x)"
    shape: list[str | int] = ["N", *q.shape]
    return Case(nodes, {"x": ("f", shape)}, ROWS, {"q": q, **constants}, opset=opset)


def quantize(result: Any, attributes: str = "", opset: int = 21, shape: tuple = ("N", 12), **constants: np.ndarray) -> Case:
    """A quantization of an input, cast to float: ONNX Runtime gives no arrays of small types."""
    nodes = f"q = QuantizeLinear {attributes} (x, {', '.join(constants)})\n y = Cast <to = 1> (q)"
    return Case(nodes, {"x": ("f", shape)}, [{s: 3 for s in shape if isinstance(s, str)}], constants, opset=opset)


ONE = np.float32(0.05)
GRIDS: dict[str, Case] = {
    "dq_int8": dequantize(codes(np.int8, 5, 12), s=ONE),
    "dq_uint8_zero": dequantize(codes(np.uint8, 5, 12), s=ONE, z=np.uint8(131)),
    "dq_int16": dequantize(codes(np.int16, 5, 12), s=ONE, z=np.int16(-7)),
    "dq_uint16": dequantize(codes(np.uint16, 5, 12), s=ONE, z=np.uint16(40000)),
    "dq_int32": dequantize(RNG.integers(-9999, 9999, (5, 12)).astype(np.int32), s=ONE),
    "dq_axis": dequantize(codes(np.int8, 5, 12), "<axis = 0>", s=scales(5), z=codes(np.int8, 5)),
    "dq_axis_negative": dequantize(codes(np.uint8, 5, 12), "<axis = -1>", s=scales(12), z=codes(np.uint8, 12)),
    "dq_axis_default": dequantize(codes(np.int8, 5, 12, 3), s=scales(12)),
    "dq_one_element": dequantize(codes(np.int8, 5, 12), s=scales(1), z=codes(np.int8, 1)),
    "dq_int4_blocks": dequantize(codes(INT4, 64, 6), "<axis = 0, block_size = 16>", s=scales(4, 6)),
    "dq_uint4_blocks_zero": dequantize(
        codes(UINT4, 6, 64), "<axis = 1, block_size = 16>", s=scales(6, 4), z=codes(UINT4, 6, 4)
    ),
    "dq_short_block": dequantize(codes(np.int8, 50, 6), "<axis = 0, block_size = 16>", s=scales(4, 6), z=codes(np.int8, 4, 6)),
    "dq_e4m3": dequantize(floats(E4M3, 5, 12), s=ONE),
    "dq_e5m2": dequantize(floats(E5M2, 5, 12), s=ONE),
    "q_uint8_default": quantize(np.uint8, s=ONE),
    "q_int8": quantize(np.int8, s=np.float32(0.004), z=np.int8(3)),
    "q_uint8_axis": quantize(np.uint8, "<axis = 1>", s=scales(12), z=codes(np.uint8, 12)),
    "q_int16": quantize(np.int16, s=np.float32(1e-4), z=np.int16(-9)),
    "q_uint16": quantize(np.uint16, s=np.float32(1e-4), z=np.uint16(30000)),
    "q_int4": quantize(INT4, s=np.float32(0.2), z=np.array(1, INT4)),
    "q_uint4_blocks": quantize(UINT4, "<axis = 1, block_size = 4>", s=scales(3, 3) * 5, z=codes(UINT4, 3, 3), shape=(3, 12)),
    "q_short_block": quantize(np.int8, "<axis = 1, block_size = 5>", s=scales(3, 3), z=codes(np.int8, 3, 3), shape=(3, 12)),
    "q_e4m3": quantize(E4M3, s=np.float32(0.003), z=np.array(0, E4M3)),
    "q_e5m2": quantize(E5M2, s=np.float32(1e-5), z=np.array(0, E5M2)),
    "q_e4m3_unsaturated": quantize(E4M3, "<saturate = 0>", s=np.float32(0.003), z=np.array(0, E4M3)),
    "q_output_dtype": quantize(np.int8, "<output_dtype = 3>", s=ONE),
    "half": Case(
        "q = QuantizeLinear (x, s, z)\n d = DequantizeLinear (q, s, z)\n y = Add (d, x)", {"x": ("e", ["N", 12])}, ROWS,
        {"s": np.float16(0.05), "z": np.int8(0)}, opset=19, tolerance=1e-3,
    ),
    "com_microsoft": Case(
        "q = QuantizeLinear (x, s, z)\n y = DequantizeLinear (q, s, z)", MATRIX, ROWS, {"s": ONE, "z": np.uint16(30000)},
        domain="com.microsoft",
    ),
    "com_microsoft_axis_default": Case(
        "q = QuantizeLinear (x, s, z)\n y = DequantizeLinear (q, s, z)", MATRIX, ROWS,
        {"s": scales(12), "z": codes(np.uint8, 12)}, domain="com.microsoft",
    ),
    "dynamic": Case("y, s, z = DynamicQuantizeLinear (x)", MATRIX, ROWS, outputs=["y", "s", "z"]),
    "dynamic_of_zeros": Case(
        "y, s, z = DynamicQuantizeLinear (x)", MATRIX, [{"x": np.zeros((2, 12))}], outputs=["y", "z"]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GRIDS)
def test_grid(name: str) -> None:
    check(GRIDS[name])


def test_a_value_on_the_edge_rounds_to_even() -> None:
    case = quantize(np.int8, s=np.float32(1), z=np.int8(0))
    case.feeds = [{"x": [[0.5, 1.5, 2.5, -0.5, -1.5, 126.5, 127.5, 1e9, -1e9, 0, -0.0, 3]]}]
    check(case)


# Products -------------------------------------------------------------------------------------------------------------

BYTES = {"x": ("B", ["N", 12])}
BATCH = {"x": ("B", ["N", 3, 12])}
PIXELS = {"x": ("B", ["N", 3, "H", "W"])}
KERNELS = codes(np.int8, 8, 3, 3, 3)


def microsoft(nodes: str, inputs: dict, feeds: list, **constants: np.ndarray) -> Case:
    return Case(nodes, inputs, feeds, constants, domain="com.microsoft")


def qlinear(*operands: str, result: str = "sy, zy") -> str:
    return ", ".join([*(f"{o}, s{o}, z{o}" for o in operands), result])


PRODUCTS: dict[str, Case] = {
    "matmul_integer": Case("y = MatMulInteger (x, w)", BYTES, ROWS, {"w": codes(np.int8, 12, 7)}),
    "matmul_integer_zeros": Case(
        "y = MatMulInteger (x, w, a, b)", BATCH, ROWS, {"w": codes(np.uint8, 12, 7), "a": np.uint8(9), "b": codes(np.uint8, 7)}
    ),
    "matmul_integer_dynamic": Case(
        "q, s, z = DynamicQuantizeLinear (x)\n y = MatMulInteger (q, w, z, b)", MATRIX, ROWS,
        {"w": codes(np.int8, 12, 7) // 2, "b": np.int8(-3)},  # ONNX Runtime adds pairs of products in 16 bits on some CPUs
    ),
    "matmul_integer_of_vectors": Case("y = MatMulInteger (x, w, a, b)", {"x": ("B", [12])}, [{}],
                                      {"w": codes(np.uint8, 12), "a": np.uint8(9), "b": np.uint8(200)}),
    "qlinear_matmul": Case(
        f"y = QLinearMatMul ({qlinear('x', 'w')})", BATCH, ROWS,
        {"sx": ONE, "zx": np.uint8(100), "w": codes(np.uint8, 12, 7), "sw": scales(1)[0], "zw": np.uint8(90),
         "sy": np.float32(1.1), "zy": np.uint8(128)},
    ),
    "qlinear_matmul_columns": Case(
        f"y = QLinearMatMul ({qlinear('x', 'w')})", {"x": ("b", ["N", 12])}, ROWS,
        {"sx": ONE, "zx": np.int8(0), "w": codes(np.int8, 12, 7), "sw": scales(7), "zw": np.zeros(7, np.int8),
         "sy": np.float32(0.3), "zy": np.int8(5)},
    ),
    "matmul_integer_to_float": microsoft(
        "y = MatMulIntegerToFloat (x, w, sx, sw, zx, zw, b)", BATCH, ROWS, w=codes(np.int8, 12, 7), sx=ONE, sw=scales(7),
        zx=np.uint8(100), zw=codes(np.int8, 7), b=weights(7),
    ),
    "dynamic_quantize_matmul": microsoft(
        "y = DynamicQuantizeMatMul (x, w, s, z, b)", MATRIX, ROWS, w=codes(np.uint8, 12, 7), s=scales(7), z=codes(np.uint8, 7),
        b=weights(7),
    ),
    "qgemm": microsoft(
        f"y = QGemm <transB = 1, alpha = 0.5> ({qlinear('x', 'w', result='c, sy, zy')})", BYTES, ROWS, sx=ONE, zx=np.uint8(3),
        w=codes(np.int8, 7, 12), sw=scales(7), zw=np.zeros(7, np.int8), c=codes(np.int16, 7).astype(np.int32), sy=np.float32(2),
        zy=np.uint8(120),
    ),
    "qgemm_to_float": microsoft(
        f"y = QGemm ({qlinear('x', 'w', result='c')})", BYTES, ROWS, sx=ONE, zx=np.uint8(3), w=codes(np.int8, 12, 7),
        sw=ONE, zw=np.int8(4), c=codes(np.int16, 7).astype(np.int32),
    ),
    "conv_integer": Case("y = ConvInteger <pads = [1, 1, 1, 1]> (x, w)", PIXELS, IMAGES, {"w": KERNELS.view(np.uint8)}),
    "conv_integer_zeros": Case(
        "y = ConvInteger <pads = [1, 0, 2, 1], strides = [2, 1]> (x, w, a, b)", PIXELS, IMAGES,
        {"w": KERNELS.view(np.uint8), "a": np.uint8(77), "b": np.uint8(120)},
    ),
    "qlinear_conv": Case(
        f"y = QLinearConv <pads = [1, 1, 1, 1]> ({qlinear('x', 'w')}, b)", PIXELS, IMAGES,
        {"sx": ONE, "zx": np.uint8(77), "w": KERNELS, "sw": scales(8), "zw": np.zeros(8, np.int8), "sy": np.float32(2),
         "zy": np.uint8(100), "b": codes(np.int16, 8).astype(np.int32)},
    ),
    "qlinear_conv_groups": Case(
        f"y = QLinearConv <group = 3, dilations = [2, 1]> ({qlinear('x', 'w')})", PIXELS, IMAGES,
        {"sx": ONE, "zx": np.uint8(128), "w": codes(np.uint8, 6, 1, 3, 3), "sw": ONE, "zw": np.uint8(99), "sy": np.float32(0.2),
         "zy": np.uint8(100)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PRODUCTS)
def test_product(name: str) -> None:
    check(PRODUCTS[name])


def test_sums_are_exact_beyond_the_integers_of_a_float() -> None:
    """An odd sum above 2**25: the next floats are four apart. (ONNX Runtime adds pairs in 16 bits on some CPUs.)"""
    x, w = np.full((1, 1041), 255, np.uint8), np.full((1041, 1), 127, np.int8)
    case = Case("y = MatMulInteger (x, w, a, b)", {"x": ("B", [1, 1041])}, [], {"w": w, "a": np.uint8(0), "b": np.int8(0)})
    found = Lowered(case.model()).run({"x": x})["y"]
    assert found.item() == 1041 * 255 * 127 != int(np.float32(1041 * 255 * 127))


def packed(n: int, blocks: int, block: int, bits: int) -> np.ndarray:
    return codes(np.uint8, n, blocks, block * bits // 8)


def nbits(k: int, block: int, bits: int = 4, *extra: str, code: str = "f", **constants: np.ndarray) -> Case:
    """A MatMulNBits of 7 columns."""
    count = -(-k // block)
    inputs = ", ".join(["x", "w", "s", *extra])
    attributes = f"K = {k}, N = 7, bits = {bits}, block_size = {block}"
    given = {"w": packed(7, count, block, bits), "s": scales(7, count), **constants}
    dtype = np.dtype(code)
    given = {n: a.astype(dtype) if a.dtype == np.float32 else a for n, a in given.items()}
    case = microsoft(f"y = MatMulNBits <{attributes}> ({inputs})", {"x": (code, ["N", 2, k])}, ROWS, **given)
    case.tolerance = 2e-3 if code == "e" else 2e-6
    return case


WEIGHTS: dict[str, Case] = {
    "nbits": nbits(64, 16),
    "nbits_zeros": nbits(96, 32, 4, "z", z=codes(np.uint8, 7, 2)),
    "nbits_flat": nbits(64, 16, 4, "z", s=scales(28), z=codes(np.uint8, 14)),
    "nbits_float_zeros": nbits(64, 32, 4, "z", z=weights(7, 2) + 8),
    "nbits_8": nbits(64, 32, 8),
    "nbits_8_zeros": nbits(64, 32, 8, "z", z=codes(np.uint8, 7, 2)),
    "nbits_cut_block": nbits(88, 32),
    "nbits_bias": nbits(64, 32, 4, "", "", "b", b=weights(7)),
    "nbits_half": nbits(64, 32, code="e"),
    "nbits_2": nbits(64, 32, 2),
    "nbits_2_zeros": nbits(96, 16, 2, "z", z=codes(np.uint8, 7, 2)),
    "nbits_2_cut_block": nbits(88, 32, 2, "", "", "b", b=weights(7)),
    "nbits_groups": nbits(64, 16, 4, "", "g", g=RNG.permutation(64).astype(np.int32) // 16),
    "nbits_groups_of_blocks": nbits(64, 16, 4, "", "g", g=np.arange(64, dtype=np.int32) // 16),
    "gather_block": microsoft(
        "y = GatherBlockQuantized <block_size = 16, quantize_axis = 1> (w, i, s, z)", {"i": ("l", ["N", 2])}, ROWS,
        w=codes(UINT4, 7, 40), s=scales(7, 3), z=codes(UINT4, 7, 3),
    ),
    "gather_block_signed": microsoft(
        "y = GatherBlockQuantized <block_size = 16, gather_axis = 1, quantize_axis = 0> (w, i, s)", {"i": ("l", ["N"])}, ROWS,
        w=codes(INT4, 40, 7), s=scales(3, 7),
    ),
    "gather_block_bytes": microsoft(
        "y = GatherBlockQuantized <block_size = 16> (w, i, s, z)", {"i": ("l", ["N", 2])}, ROWS, w=codes(np.uint8, 7, 24),
        s=scales(7, 3), z=codes(np.uint8, 7, 2),
    ),
    "gather_block_bytes_half_range": microsoft(
        "y = GatherBlockQuantized <block_size = 16> (w, i, s)", {"i": ("l", ["N", 2])}, ROWS, w=codes(np.uint8, 7, 24),
        s=scales(7, 3),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_of_few_bits(name: str) -> None:
    check(WEIGHTS[name])


def test_a_packed_weight_is_read_as_it_lies() -> None:
    """The engine's weight is the model's bytes: no operation of the weights program stands between."""
    lowered = Lowered(nbits(64, 16).model())
    block = dialect.main_func(lowered.module).regions[0].blocks[0]
    read = [op.operation for op in block.operations if op.operation.name == "ingot.weight"]
    found = {op.attributes["name"].value: dialect.dtype_of(op.results[0]) for op in read}
    assert found["w"] == "i4"
    assert dialect.shape_of(next(op for op in read if op.attributes["name"].value == "w").results[0]) == (7, 64)


def test_groups_with_zero_points() -> None:
    """g_idx names the zero points' group too, as the operator's description says; ONNX Runtime 1.32 takes 8 for all of them."""
    groups = RNG.permutation(64).astype(np.int32) // 16
    case = nbits(64, 16, 4, "z", "g", z=codes(np.uint8, 7, 2), g=groups)
    x = RNG.standard_normal((3, 2, 64)).astype(np.float32)
    given = {t.name: numpy_helper.to_array(t) for t in case.model().graph.initializer}
    q, zeros = (np.stack([a & 15, a >> 4], -1).reshape(7, -1).astype(np.float32) for a in (given["w"], given["z"]))
    expected = x @ ((q - zeros[:, groups]) * given["s"][:, groups]).T
    assert relative_error(Lowered(case.model()).run({"x": x})["y"], expected) <= 2e-6


# Elementwise ----------------------------------------------------------------------------------------------------------

XS = {"sx": ONE, "zx": np.uint8(100)}
YS = {"sy": np.float32(0.07), "zy": np.uint8(121)}
BS = {"b": codes(np.uint8, 12), "sb": np.float32(0.03), "zb": np.uint8(40)}
IMAGE = {"x": ("B", ["N", 3, "H", "W"])}

ELEMENTWISE: dict[str, Case] = {
    "add": microsoft(f"y = QLinearAdd ({qlinear('x', 'b')})", BATCH, ROWS, **XS, **BS, **YS),
    "mul": microsoft(f"y = QLinearMul ({qlinear('x', 'b')})", BATCH, ROWS, **XS, **BS, **YS),
    "sigmoid": microsoft(f"y = QLinearSigmoid ({qlinear('x')})", BATCH, ROWS, **XS, sy=np.float32(1 / 256), zy=np.uint8(0)),
    "leaky_relu": microsoft(f"y = QLinearLeakyRelu <alpha = 0.2> ({qlinear('x')})", BATCH, ROWS, **XS, **YS),
    "where": microsoft(
        f"y = QLinearWhere (c, {qlinear('x', 'b')})", {"c": ("?", ["N", 1, 12]), **BATCH}, ROWS, **XS, **BS, **YS
    ),
    "concat": microsoft(f"y = QLinearConcat <axis = 1> (sy, zy, {qlinear('x', 'v', result='')[:-2]})",
                        {**BATCH, "v": ("B", ["N", 2, 12])}, ROWS, **XS, sv=np.float32(0.03), zv=np.uint8(40), **YS),
    "global_average_pool": microsoft(f"y = QLinearGlobalAveragePool ({qlinear('x')})", IMAGE, IMAGES, **XS, **YS),
    "average_pool": microsoft(
        f"y = QLinearAveragePool <kernel_shape = [3, 2], strides = [2, 1], pads = [1, 0, 1, 1]> ({qlinear('x')})",
        IMAGE, IMAGES, **XS, **YS,
    ),
    "softmax": microsoft(
        f"y = QLinearSoftmax <axis = -1, opset = 13> ({qlinear('x')})", BATCH, ROWS, **XS, sy=np.float32(1 / 256),
        zy=np.uint8(0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise(name: str) -> None:
    """A result that lies between two codes may be the other one: ONNX Runtime rounds scales and tables in between."""
    case = ELEMENTWISE[name]
    lowered, oracle = Lowered(case.model()), onnx_runtime(case)
    for seed, feed in enumerate(case.feeds):
        arrays = case.arrays(feed, seed)
        arrays = {n: RNG.integers(0, 256, a.shape).astype(a.dtype) if a.dtype == np.uint8 else a for n, a in arrays.items()}
        (expected,) = oracle.run(None, arrays)
        got = lowered.run(arrays)["y"]
        assert got.dtype == expected.dtype
        difference = np.abs(got.astype(int) - expected.astype(int))
        assert difference.max() <= 1
        assert np.mean(difference > 0) <= 0.05


def onnx_runtime(case: Case) -> Any:
    from test_onnx_lowering import reference

    return reference(case.model())


def test_mean_on_a_grid() -> None:
    """ONNX Runtime's CPU has no kernel of QLinearReduceMean."""
    nodes = f"y = QLinearReduceMean <axes = [1, -1], keepdims = 0> ({qlinear('x')})"
    case = microsoft(nodes, {"x": ("B", ["N", 3, 4])}, [], **XS, **YS)
    x = codes(np.uint8, 5, 3, 4)
    mean = ((x.astype(np.float64) - 100) * ONE).mean((1, 2))
    expected = np.clip(np.rint(mean / YS["sy"]) + 121, 0, 255)
    np.testing.assert_array_equal(Lowered(case.model()).run({"x": x})["y"], expected)


# TensorRT's operators -------------------------------------------------------------------------------------------------


def trt_model(nodes: list[onnx.NodeProto], x: Any, result: int, **constants: np.ndarray) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info("x", x, ["N", 64])]
    tensors = [numpy_helper.from_array(a, n) for n, a in constants.items()]
    outputs = [helper.make_tensor_value_info("y", result, None)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("trt", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=11)


def trt(name: str, inputs: list[str], outputs: list[str], **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(name, inputs, outputs, f"node_{name}", domain="trt", **attributes)


def standard(name: str, inputs: list[str], outputs: list[str], **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(name, inputs, outputs, f"node_{name}_{outputs[0]}", **attributes)


F32, F16 = TensorProto.FLOAT, TensorProto.FLOAT16
TRT: dict[str, onnx.ModelProto] = {
    "fp8": trt_model(
        [trt("QuantizeLinear", ["x", "s", "z"], ["q"], saturate=1), trt("DequantizeLinear", ["q", "s"], ["y"])],
        F32, F32, s=ONE, z=np.zeros(1, E4M3),
    ),
    "int4": trt_model(
        [trt("DequantizeLinear", ["w", "s"], ["d"], axis=0, block_size=16), standard("MatMul", ["x", "d"], ["y"])], F32, F32,
        w=codes(INT4, 64, 8), s=scales(4, 8),
    ),
    "nvfp4": trt_model(
        [
            trt("TRT_FP4DynamicQuantize", ["x", "u"], ["q", "b"], axis=-1, block_size=16, scale_type=17),
            standard("DequantizeLinear", ["b", "u"], ["s"]),
            standard("DequantizeLinear", ["q", "s"], ["y"], axis=-1, block_size=16),
        ],
        F32, F32, u=np.float32(0.003),
    ),
    "mxfp8": trt_model(
        [
            trt("TRT_MXFP8DynamicQuantize", ["x"], ["q", "b"], axis=-1, block_size=32, output_dtype=17),
            trt("TRT_MXFP8DequantizeLinear", ["q", "b"], ["y"], axis=-1, block_size=32, output_dtype=1),
        ],
        F32, F32,
    ),
    "mxfp8_scales": trt_model(
        [trt("TRT_MXFP8DynamicQuantize", ["x"], ["q", "y"], axis=-1, block_size=32, output_dtype=17)], F32, TensorProto.UINT8
    ),
    "mxfp8_weight": trt_model(
        [
            trt("TRT_MXFP8DequantizeLinear", ["w", "b"], ["d"], axis=-1, block_size=32, output_dtype=1),
            standard("Transpose", ["d"], ["t"], perm=[1, 0]), standard("MatMul", ["x", "t"], ["y"]),
        ],
        F32, F32, w=floats(E4M3, 8, 64), b=RNG.integers(120, 130, (8, 2)).astype(np.uint8),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TRT)
def test_trt(name: str) -> None:
    model = TRT[name]
    lowered, oracle = Lowered(model), ReferenceEvaluator(model, new_ops=trt_reference.operators())
    for rows in (3, 1):
        # Blocks of zeros, of a power of two times the largest number, and of subnormal scales.
        x = RNG.standard_normal((rows, 64)).astype(np.float32)
        x[0, :32] = 0
        x[-1, 32:] *= np.float32(448 * 2.0**-131 if name.startswith("mxfp8") else 1)
        (expected,) = oracle.run(None, {"x": x})
        got = lowered.run({"x": x})["y"]
        if expected.dtype.kind == "f":
            assert relative_error(got, expected) <= 1e-6
        else:
            np.testing.assert_array_equal(got, expected)


def test_exponents_as_scales() -> None:
    """Scales of type float8e8m0, of which ONNX's own evaluator has no kernel either."""
    w, e = floats(E4M3, 8, 64), np.exp2(RNG.integers(-9, 9, (8, 2))).astype(ml_dtypes.float8_e8m0fnu)
    nodes = [
        standard("DequantizeLinear", ["w", "e"], ["d"], axis=-1, block_size=32, output_dtype=F32),
        standard("Transpose", ["d"], ["t"], perm=[1, 0]), standard("MatMul", ["x", "t"], ["y"]),
    ]  # fmt: skip
    model = trt_model(nodes, F32, F32, w=w, e=e)
    model.opset_import[0].version = 24
    x = RNG.standard_normal((3, 64)).astype(np.float32)
    expected = x @ (w.astype(np.float32) * np.repeat(e.astype(np.float32), 32, 1)).T
    assert relative_error(Lowered(model).run({"x": x})["y"], expected) <= 1e-6


# Transformers ---------------------------------------------------------------------------------------------------------

SEQUENCE = {"x": ("f", ["B", "S", 24])}
LENGTHS = [{"B": 2, "S": 5}, {"B": 1, "S": 1}]
QKV = {"w": weights(24, 48), "b": weights(48)}  # four heads of four
THREE = {name: ("f", ["B", "S", 16]) for name in "qkv"}
CACHE = {name: ("f", ["B", 2, "P", "D"]) for name in ("pk", "pv")}
ROTARY = {"c": np.cos(RNG.random((32, 8))).astype(np.float32), "n": np.sin(RNG.random((32, 8))).astype(np.float32)}
GROUPED = {
    "q": ("f", ["B", "S", 64]), "k": ("f", ["B", "S", 32]), "v": ("f", ["B", "S", 32]), "l": ("i", ["B"]), "t": ("i", []),
}  # fmt: skip


def grouped(nodes: str, *sizes: tuple[int, int, int], **constants: np.ndarray) -> Case:
    """GroupQueryAttention of four heads of 16 over two, with a cache, at (B, S, P)."""
    feeds = [{"B": b, "S": s, "P": p, "D": 16, "l": np.full(b, s + p - 1), "t": s + p} for b, s, p in sizes]
    case = microsoft(nodes, {**GROUPED, **CACHE}, feeds, **constants)
    case.outputs = ["y", "nk", "nv"]
    return case


HEADS = "num_heads = 4, kv_num_heads = 2"
TRANSFORMERS: dict[str, Case] = {
    "attention": microsoft("y = Attention <num_heads = 4> (x, w, b)", SEQUENCE, LENGTHS, **QKV),
    "attention_causal": microsoft("y = Attention <num_heads = 4, unidirectional = 1> (x, w, b)", SEQUENCE, LENGTHS, **QKV),
    "attention_mask": microsoft(
        "y = Attention <num_heads = 4> (x, w, b, m)", {**SEQUENCE, "m": ("i", ["B", "S"])},
        [{"B": 2, "S": 3, "m": [[1, 1, 0], [1, 0, 0]]}], **QKV,
    ),
    "attention_lengths": microsoft(
        "y = Attention <num_heads = 4> (x, w, b, m)", {**SEQUENCE, "m": ("i", ["B"])}, [{"B": 2, "S": 3, "m": [3, 1]}], **QKV
    ),
    "attention_ends_and_beginnings": microsoft(
        "y = Attention <num_heads = 4> (x, w, b, m)", {"x": ("f", [2, "S", 24]), "m": ("i", [4])},
        [{"S": 5, "m": [5, 4, 1, 2]}], **QKV,
    ),
    "attention_bias": microsoft(
        "y = Attention <num_heads = 4, scale = 0.3> (x, w, b, , , a)", {**SEQUENCE, "a": ("f", ["B", 4, "S", "S"])},
        LENGTHS, **QKV,
    ),
    "attention_sizes": microsoft(
        "y = Attention <num_heads = 4, qkv_hidden_sizes = [16, 16, 8]> (x, w, b)", SEQUENCE, LENGTHS, w=weights(24, 40),
        b=weights(40),
    ),
    "attention_past": microsoft(
        "y, p = Attention <num_heads = 4, unidirectional = 1> (x, w, b, , past)",
        {**SEQUENCE, "past": ("f", [2, "B", 4, "P", 4])}, [{"B": 2, "S": 1, "P": 3}, {"B": 1, "S": 2, "P": 2}], **QKV,
    ),
    "multi_head": microsoft("y = MultiHeadAttention <num_heads = 4> (q, k, v)", THREE, LENGTHS),
    "multi_head_bias": microsoft("y = MultiHeadAttention <num_heads = 4> (q, k, v, b)", THREE, LENGTHS, b=weights(48)),
    "multi_head_cross": microsoft(
        "y = MultiHeadAttention <num_heads = 4> (q, k, v, , m)",
        {"q": THREE["q"], **{n: ("f", ["B", "T", 16]) for n in "kv"}, "m": ("i", ["B", "T"])},
        [{"B": 2, "S": 3, "T": 4, "m": [[1, 1, 1, 0], [1, 0, 0, 0]]}],
    ),
    "multi_head_causal": microsoft("y = MultiHeadAttention <num_heads = 4, unidirectional = 1> (q, k, v)", THREE, LENGTHS),
    "multi_head_past": microsoft(
        "y, nk, nv = MultiHeadAttention <num_heads = 4> (q, k, v, , , , pk, pv)",
        {**THREE, **{n: ("f", ["B", 4, "P", 4]) for n in ("pk", "pv")}}, [{"B": 2, "S": 1, "P": 3}],
    ),
    "group_query": grouped(f"y, nk, nv = GroupQueryAttention <{HEADS}> (q, k, v, pk, pv, l, t)", (2, 1, 3), (1, 4, 0)),
    "group_query_rotary": grouped(
        f"y, nk, nv = GroupQueryAttention <{HEADS}, do_rotary = 1> (q, k, v, pk, pv, l, t, c, n)", (2, 1, 3), (1, 4, 0),
        **ROTARY,
    ),
    "group_query_interleaved": grouped(
        f"y, nk, nv = GroupQueryAttention <{HEADS}, do_rotary = 1, rotary_interleaved = 1> (q, k, v, pk, pv, l, t, c, n)",
        (2, 1, 3), **ROTARY,
    ),
    "group_query_window": grouped(
        f"y, nk, nv = GroupQueryAttention <{HEADS}, local_window_size = 3> (q, k, v, pk, pv, l, t)", (2, 1, 5), (1, 6, 0)
    ),
    "group_query_softcap": grouped(
        f"y, nk, nv = GroupQueryAttention <{HEADS}, softcap = 2.0, scale = 0.7> (q, k, v, pk, pv, l, t)", (2, 1, 3)
    ),
    "rotary": microsoft(
        "y = RotaryEmbedding <num_heads = 2> (x, i, c, n)", {"x": ("f", ["B", "S", 32]), "i": ("l", ["B", "S"])},
        [{"B": 2, "S": 3, "i": [[0, 1, 2], [7, 31, 4]]}], **ROTARY,
    ),
    "rotary_offset": microsoft(
        "y = RotaryEmbedding <interleaved = 1> (x, i, c, n)", {"x": ("f", ["B", 2, "S", 16])}, LENGTHS, i=np.array([5]),
        **ROTARY,
    ),
    "embed": microsoft(
        "y, m, s = EmbedLayerNormalization (i, g, w, p, k, a, b, f)",
        {"i": ("i", ["B", "S"]), "g": ("i", ["B", "S"]), "f": ("i", ["B", "S"])},
        [{"B": 2, "S": 3, "i": [[1, 2, 3], [4, 5, 6]], "g": [[0, 1, 1], [1, 1, 0]], "f": [[1, 1, 0], [1, 0, 0]]}],
        w=weights(9, 8), p=weights(5, 8), k=weights(2, 8), a=weights(8), b=weights(8),
    ),
}  # fmt: skip
TRANSFORMERS["attention_past"].outputs = ["y", "p"]
TRANSFORMERS["multi_head_past"].outputs = ["y", "nk", "nv"]
TRANSFORMERS["embed"].outputs = ["y", "m", "s"]


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformer(name: str) -> None:
    case = TRANSFORMERS[name]
    case.tolerance = 5e-6
    check(case)


def test_packed_heads() -> None:
    """ONNX Runtime has them on GPUs only."""
    x = RNG.standard_normal((2, 5, 4, 3, 4)).astype(np.float32)
    packed_ = Lowered(microsoft("y = MultiHeadAttention <num_heads = 4> (x)", {"x": ("f", ["B", "S", 4, 3, 4])}, []).model())
    apart = Lowered(TRANSFORMERS["multi_head"].model())
    q, k, v = (x[:, :, :, i].reshape(2, 5, 16) for i in range(3))
    np.testing.assert_allclose(packed_.run({"x": x})["y"], apart.run({"q": q, "k": k, "v": v})["y"], rtol=1e-6, atol=1e-6)


def test_positions_that_do_not_add_up_are_refused() -> None:
    nodes = f"y, nk, nv = GroupQueryAttention <{HEADS}, do_rotary = 1> (q, k, v, pk, pv, l, t, c, n)"
    lowered = Lowered(grouped(nodes, **ROTARY).model())
    arrays = TRANSFORMERS["group_query"].arrays({"B": 1, "S": 1, "P": 32, "D": 16, "l": [32], "t": 33}, 0)
    with pytest.raises(InputError, match="the rotary cache has fewer positions"):
        lowered.run(arrays)


# Errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (nbits(64, 32, 4, "", "g", g=np.zeros(64, np.int32)), "g_idx with groups of other than 32 rows is not supported"),
        (nbits(64, 32, 3), "bits=3 is not supported"),
        (microsoft("y = MatMulNBits <K = 64, N = 7, block_size = 32> (x, w, s)",
                   {"x": ("f", ["N", 64]), "w": ("B", [7, 2, 16])}, [], s=scales(7, 2)),
         "packed elements is computed at run time"),
        (quantize(E5M2, "<saturate = 0>", s=ONE, z=np.array(0, E5M2)), "saturate=0 for float8e5m2 is not supported"),
        (dequantize(codes(np.int8, 5, 12), s=scales(5)), "scales are not one for each element of axis 1"),
        (Case("y = DequantizeLinear <block_size = 16> (x, s)", {"x": ("b", ["N", 32])}, [], {"s": scales(2)}, opset=21),
         "a scale of rank 1 for blocks of a tensor of rank 2"),
        (Case("y = DequantizeLinear (x, s)", {"x": ("b", ["N"])}, [], {"s": np.float64(2)}), "a scale of type double"),
        (Case("y = MatMulInteger (x, w)", {"x": ("i", ["N", 4])}, [], {"w": codes(np.int8, 4, 3)}),
         "of type int32 is not supported"),
        (grouped(f"y, nk, nv = GroupQueryAttention <{HEADS}, smooth_softmax = 1> (q, k, v, pk, pv, l, t)"), "smooth_softmax=1"),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_said(case: Case, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Lowered(case.model())


# ONNX's own tests, which run compiled kernels -------------------------------------------------------------------------

OPERATORS = (
    "quantizelinear", "dequantizelinear", "dynamicquantizelinear", "matmulinteger", "convinteger", "qlinearmatmul",
    "qlinearconv",
)  # fmt: skip


def conformance() -> dict[str, Any]:
    """The cases of ONNX's suite by name; elements of two bits are a type that Ingot lacks.

    Importing an operator's module makes its cases: the suite's own loader would make those of all operators, which takes long.
    """
    node = importlib.import_module("onnx.backend.test.case.node")
    for name in OPERATORS:
        importlib.import_module(f"{node.__name__}.{name}")
    named = re.compile(f"test_({'|'.join(OPERATORS)})(_.*)?")
    return {c.name: c for c in node._NodeTestCases if named.fullmatch(c.name) and "int2" not in c.name}


CONFORMANCE = conformance()


@pytest.mark.parametrize("name", CONFORMANCE)
def test_conformance(name: str) -> None:
    case = CONFORMANCE[name]
    for data in case.data_sets:
        inputs, outputs = ([numpy_helper.to_array(x) if isinstance(x, TensorProto) else x for x in part] for part in data)
        results = backend.prepare(case.model).run(inputs)
        for found, expected in zip(results, outputs, strict=True):
            assert found.dtype == expected.dtype
            tolerance = case.rtol if expected.dtype.name in ("float16", "float32") else 0.0
            np.testing.assert_allclose(found.astype(np.float32), expected.astype(np.float32), tolerance)


# Models ---------------------------------------------------------------------------------------------------------------


ZOO = ["gpt2.mo_int4_rtn", "sd3_transformer.mt_fp8", "llama_kv.genai_int4_cuda", "llama_kv.ort_nbits4_qdq"]


@pytest.mark.parametrize("name", ZOO)
def test_zoo(name: str, zoo_model: Any) -> None:
    folder = zoo_model(name)
    lowered = Lowered(folder / "model.onnx")
    for feeds, references in zoo.input_sets(folder):
        outputs = lowered.run(feeds)
        for output, expected in references.items():
            assert relative_error(outputs[output], expected) <= zoo.tolerance(name), output
