"""The interpreter: every root against an independent computation, views, moves, guards, and the weights program."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from ingot.compiler.interpreter import evaluate_weights, interpret, run_dispatch
from ingot.dialects.mlir import context, ir
from ingot.dispatch import Dispatch, ScalarInst, ScalarRegion, contiguous
from ingot.errors import InputError

RNG = np.random.default_rng(0)
IDENTITY = ScalarRegion(("f32",), (), (0,))


def normal(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return RNG.standard_normal(shape).astype(dtype)


def oracle(op: str, inputs: dict[str, np.ndarray], **attrs: object) -> np.ndarray:
    """ONNX Runtime's answer for one node of one output."""
    node = helper.make_node(op, list(inputs), ["y"], **attrs)
    types = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.int64): TensorProto.INT64}
    values = [helper.make_tensor_value_info(n, types[a.dtype], a.shape) for n, a in inputs.items()]
    graph = helper.make_graph([node], "g", values, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def channels_last(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


def channels_first(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, -1, 1)


def close(actual: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-5)


CONVS = [
    pytest.param((2, 6, 9, 8), (8, 6, 3, 3), {}, id="valid"),
    pytest.param((1, 6, 9, 8), (8, 6, 3, 3), {"pads": [1, 0, 2, 1], "strides": [2, 1]}, id="asymmetric-pads"),
    pytest.param((1, 4, 12, 12), (6, 4, 3, 3), {"dilations": [2, 3], "pads": [2, 2, 2, 2]}, id="dilated"),
    pytest.param((2, 6, 7, 7), (9, 2, 3, 3), {"group": 3, "pads": [1, 1, 1, 1]}, id="grouped"),
    pytest.param((2, 6, 7, 7), (6, 1, 5, 5), {"group": 6, "strides": [2, 2]}, id="depthwise"),
    pytest.param((2, 5, 11), (7, 5, 3), {"pads": [1, 1]}, id="1d"),
    pytest.param((1, 3, 5, 6, 7), (4, 3, 2, 3, 2), {}, id="3d"),
]


@pytest.mark.parametrize(("x_shape", "w_shape", "attrs"), CONVS)
def test_conv(x_shape: tuple, w_shape: tuple, attrs: dict) -> None:
    x, w = normal(*x_shape), normal(*w_shape)
    expected = channels_last(oracle("Conv", {"x": x, "w": w}, **attrs))
    rank = len(x_shape) - 2
    dispatch = Dispatch(
        "conv",
        (contiguous("f32", *channels_last(x).shape), contiguous("f32", *channels_last(w).shape)),
        (contiguous("f32", *expected.shape),),
        (("acc", "f32"), ("dilations", tuple(attrs.get("dilations", [1] * rank))), ("groups", attrs.get("group", 1)),
         ("pads", tuple(attrs.get("pads", [0] * 2 * rank))), ("strides", tuple(attrs.get("strides", [1] * rank)))),
        (IDENTITY,),
    )  # fmt: skip
    close(run_dispatch(dispatch, [channels_last(x), channels_last(w)])[0], expected)


@pytest.mark.parametrize(
    ("group", "attrs"),
    [(1, {"strides": [2, 3], "pads": [1, 0, 1, 2], "output_padding": [1, 0]}), (2, {"dilations": [2, 1]})],
)
def test_conv_transposed(group: int, attrs: dict) -> None:
    x, w = normal(2, 4, 5, 6), normal(4, 3, 3, 3)
    expected = channels_last(oracle("ConvTranspose", {"x": x, "w": w}, group=group, **attrs))
    dispatch = Dispatch(
        "conv",
        (contiguous("f32", 2, 5, 6, 4), contiguous("f32", 4, 3, 3, 3)),
        (contiguous("f32", *expected.shape),),
        (("acc", "f32"), ("dilations", tuple(attrs.get("dilations", (1, 1)))), ("groups", group),
         ("output_padding", tuple(attrs.get("output_padding", (0, 0)))), ("pads", tuple(attrs.get("pads", (0,) * 4))),
         ("strides", tuple(attrs.get("strides", (1, 1)))), ("transposed", True)),
        (IDENTITY,),
    )  # fmt: skip
    close(run_dispatch(dispatch, [channels_last(x), channels_last(w)])[0], expected)


@pytest.mark.parametrize(
    ("kind", "op", "attrs"),
    [
        ("max", "MaxPool", {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1], "ceil_mode": 1}),
        ("max", "MaxPool", {"kernel_shape": [2, 2], "dilations": [2, 3]}),
        ("average", "AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
        ("average", "AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 0, 0], "count_include_pad": 1}),
        ("average", "AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    ],
)
def test_pool(kind: str, op: str, attrs: dict) -> None:
    x = normal(2, 3, 10, 9)
    expected = channels_last(oracle(op, {"x": x}, **attrs))
    extra = (("count_include_pad", True),) if attrs.get("count_include_pad") else ()
    dispatch = Dispatch(
        "pool",
        (contiguous("f32", 2, 10, 9, 3),),
        (contiguous("f32", *expected.shape),),
        (*extra, ("dilations", tuple(attrs.get("dilations", (1, 1)))), ("kernel", tuple(attrs["kernel_shape"])), ("kind", kind),
         ("pads", tuple(attrs.get("pads", (0,) * 4))), ("strides", tuple(attrs.get("strides", (1, 1))))),
        (IDENTITY,),
    )  # fmt: skip
    close(run_dispatch(dispatch, [channels_last(x)])[0], expected)


@pytest.mark.parametrize("float64", [False, True])
def test_matmul_epilogue_and_precision(float64: bool) -> None:
    """bf16 operands are widened, multiplied in `acc`, biased, and rounded once."""
    a, b, bias = (normal(*s).astype(ml_dtypes.bfloat16) for s in ((4, 1, 5, 8), (3, 8, 6), (6,)))
    region = ScalarRegion(
        ("f32",),
        (ScalarInst("load", (), "bf16", (("operand", 2),)), ScalarInst("extf", (1,), "f32"), ScalarInst("addf", (0, 2), "f32"),
         ScalarInst("truncf", (3,), "bf16")),
        (4,),
    )  # fmt: skip
    dispatch = Dispatch(
        "matmul",
        (contiguous("bf16", 4, 1, 5, "k"), contiguous("bf16", 3, "k", 6), contiguous("bf16", 6)),
        (contiguous("bf16", 4, 3, 5, 6),),
        (("acc", "f32"),),
        (region,),
        ("k",),
    )
    (y,) = run_dispatch(dispatch, [a, b, bias], {"k": 8}, float64=float64)
    expected = (a.astype(np.float64) @ b.astype(np.float64) + bias.astype(np.float64)).astype(ml_dtypes.bfloat16)
    assert y.dtype == ml_dtypes.bfloat16
    if float64:
        np.testing.assert_array_equal(y, expected)
    else:
        np.testing.assert_allclose(y.astype(np.float32), expected.astype(np.float32), rtol=1e-2)


def test_matmul_of_integers_is_exact() -> None:
    a, b = (RNG.integers(-128, 128, s, dtype=np.int8) for s in ((7, 300), (300, 5)))
    dispatch = Dispatch(
        "matmul", (contiguous("i8", 7, 300), contiguous("i8", 300, 5)), (contiguous("i32", 7, 5),), (("acc", "i32"),),
        (ScalarRegion(("i32",), (), (0,)),),
    )  # fmt: skip
    np.testing.assert_array_equal(run_dispatch(dispatch, [a, b])[0], a.astype(np.int32) @ b.astype(np.int32))


@pytest.mark.parametrize("causal", [False, True])
def test_attention(causal: bool) -> None:
    """Grouped heads, an additive mask read by the score region, and more keys than queries."""
    q, k, v, mask = normal(2, 4, 3, 8), normal(2, 2, 5, 8), normal(2, 2, 5, 6), normal(2, 1, 3, 5)
    score = ScalarRegion(("f32",), (ScalarInst("load", (), "f32", (("operand", 3),)), ScalarInst("addf", (0, 1), "f32")), (2,))
    dispatch = Dispatch(
        "attention",
        tuple(contiguous("f32", *t.shape) for t in (q, k, v, mask)),
        (contiguous("f32", 2, 4, 3, 6),),
        ((("causal", True),) if causal else ()) + (("scale", 0.25),),
        (score, IDENTITY),
    )
    (y,) = run_dispatch(dispatch, [q, k, v, mask])
    s = np.einsum("bhsd,bhtd->bhst", q, k.repeat(2, axis=1)) * 0.25 + mask
    if causal:
        s = np.where(np.tri(3, 5, 2, dtype=bool), s, -np.inf)
    e = np.exp(s - s.max(-1, keepdims=True))
    close(y, np.einsum("bhst,bhtd->bhsd", e / e.sum(-1, keepdims=True), v.repeat(2, axis=1)))


@pytest.mark.parametrize("kind", ["softmax", "log_softmax", "layer", "rms"])
def test_normalize(kind: str) -> None:
    x = normal(3, 5, 8)
    dispatch = Dispatch(
        "normalize", (contiguous("f32", 3, 5, 8),), (contiguous("f32", 3, 5, 8),),
        (("axes", (1, 2)), ("epsilon", 1e-3), ("kind", kind)), (IDENTITY, IDENTITY),
    )  # fmt: skip
    y = x.reshape(3, 40).astype(np.float64)
    expected = {
        "softmax": lambda: np.exp(y) / np.exp(y).sum(1, keepdims=True),
        "log_softmax": lambda: y - np.log(np.exp(y).sum(1, keepdims=True)),
        "layer": lambda: (y - y.mean(1, keepdims=True)) / np.sqrt(y.var(1, keepdims=True) + 1e-3),
        "rms": lambda: y / np.sqrt((y * y).mean(1, keepdims=True) + 1e-3),
    }[kind]()
    close(run_dispatch(dispatch, [x])[0], expected.reshape(x.shape).astype(np.float32))


@pytest.mark.parametrize(("kind", "f"), [("sum", np.sum), ("prod", np.prod), ("max", np.max), ("min", np.min)])
def test_reduce(kind: str, f: object) -> None:
    x = RNG.integers(-9, 9, (3, 4, 5))
    dispatch = Dispatch(
        "reduce", (contiguous("i64", 3, 4, 5),), (contiguous("i64", 3, 1, 1),), (("axes", (1, 2)), ("kind", kind)),
        (ScalarRegion(("i64",), (), (0,)), ScalarRegion(("i64",), (), (0,))),
    )  # fmt: skip
    np.testing.assert_array_equal(run_dispatch(dispatch, [x])[0], f(x, axis=(1, 2), keepdims=True))  # type: ignore[operator]


def test_load_at_out_of_range_is_an_error() -> None:
    region = ScalarRegion(
        (), (ScalarInst("index", (), "i64", (("axis", 0),)), ScalarInst("load_at", (0,), "f32", (("operand", 0),))), (1,)
    )
    dispatch = Dispatch("pointwise", (contiguous("f32", 3),), (contiguous("f32", 4),), (), (region,))
    with pytest.raises(IndexError, match=r"index 0\.\.3 on axis 0"):
        run_dispatch(dispatch, [normal(3)])


def test_wrong_operand_is_an_error() -> None:
    dispatch = Dispatch("move", (contiguous("f32", 3),), (contiguous("f32", 3),), (), (IDENTITY,))
    with pytest.raises(ValueError, match=r"operand 0 is float32\[4\], expected float32\[3\]"):
        run_dispatch(dispatch, [normal(4)])


MODULE = """
"ingot.func"() ({
^bb0(%x: tensor<?x4xf32, #ingot.dims<["N"]>>, %past: tensor<2x?xi8, #ingot.dims<["P"]>>):
  "ingot.guard"() {left = "N", right = "8", relation = "le", message = "too many rows"} : () -> ()
  %w = "ingot.weight"() {name = "w"} : () -> tensor<1x4xf32>
  %wide = "ingot.expand"(%w) : (tensor<1x4xf32>) -> tensor<?x4xf32, #ingot.dims<["N"]>>
  %t = "ingot.transpose"(%wide) {perm = [1, 0]} : (tensor<?x4xf32, #ingot.dims<["N"]>>) -> tensor<4x?xf32, #ingot.dims<["N"]>>
  %s = "ingot.slice"(%x) {starts = ["N - 1", "0"], steps = [-1, 2]} : (tensor<?x4xf32, #ingot.dims<["N"]>>)
     -> tensor<?x2xf32, #ingot.dims<["N"]>>
  %st = "ingot.transpose"(%s) {perm = [1, 0]} : (tensor<?x2xf32, #ingot.dims<["N"]>>) -> tensor<2x?xf32, #ingot.dims<["N"]>>
  %e = "ingot.empty"() : () -> tensor<6x?xf32, #ingot.dims<["N"]>>
  %m0 = "ingot.move"(%t, %e) ({
  ^bb0(%a: f32):
    "ingot.yield"(%a) : (f32) -> ()
  }) {offsets = ["0", "0"]} : (tensor<4x?xf32, #ingot.dims<["N"]>>, tensor<6x?xf32, #ingot.dims<["N"]>>)
     -> tensor<6x?xf32, #ingot.dims<["N"]>>
  %m1 = "ingot.move"(%st, %m0) ({
  ^bb0(%a: f32):
    %n = "ingot.negf"(%a) : (f32) -> f32
    "ingot.yield"(%n) : (f32) -> ()
  }) {offsets = ["4", "0"]} : (tensor<2x?xf32, #ingot.dims<["N"]>>, tensor<6x?xf32, #ingot.dims<["N"]>>)
     -> tensor<6x?xf32, #ingot.dims<["N"]>>
  %flat = "ingot.reshape"(%m1) : (tensor<6x?xf32, #ingot.dims<["N"]>>) -> tensor<?xf32, #ingot.dims<["6*N"]>>
  "ingot.output"(%flat) {name = "y", type = "float"} : (tensor<?xf32, #ingot.dims<["6*N"]>>) -> ()
  %grown, %same = "ingot.pointwise"() ({
    %p = "ingot.load"(%past) : (tensor<2x?xi8, #ingot.dims<["P"]>>) -> i8
    %d = "ingot.dim"() {dim = "P"} : () -> i64
    %i = "ingot.index"() {axis = 1 : i64} : () -> i64
    %sum = "ingot.addi"(%d, %i) : (i64, i64) -> i64
    %c = "ingot.trunci"(%sum) : (i64) -> i8
    %r = "ingot.addi"(%p, %c) : (i8, i8) -> i8
    "ingot.yield"(%r, %p) : (i8, i8) -> ()
  }) : () -> (tensor<2x?xi8, #ingot.dims<["P"]>>, tensor<2x?xi8, #ingot.dims<["P"]>>)
  "ingot.output"(%grown) {name = "grown", type = "uint8"} : (tensor<2x?xi8, #ingot.dims<["P"]>>) -> ()
  "ingot.output"(%same) {name = "same", type = "uint8"} : (tensor<2x?xi8, #ingot.dims<["P"]>>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "main", inputs = ["x", "past"], input_types = ["float", "uint8"]} : () -> ()
"ingot.func"() ({
  %v = "ingot.weight"() {name = "v"} : () -> tensor<2x3xf32>
  %t = "ingot.transpose"(%v) {perm = [1, 0]} : (tensor<2x3xf32>) -> tensor<3x2xf32>
  %half = "ingot.pointwise"() ({
    %a = "ingot.load"(%t) : (tensor<3x2xf32>) -> f32
    %b = "ingot.truncf"(%a) : (f32) -> bf16
    "ingot.yield"(%b) : (bf16) -> ()
  }) : () -> tensor<3x2xbf16>
  "ingot.output"(%t) {name = "v_t", type = "float"} : (tensor<3x2xf32>) -> ()
  "ingot.output"(%half) {name = "v_half", type = "bfloat16"} : (tensor<3x2xbf16>) -> ()
  "ingot.return"() : () -> ()
}) {sym_name = "weights", inputs = [], input_types = []} : () -> ()
"""


def test_module() -> None:
    """Views, moves into shared memory, unsigned inputs, symbols, and several results."""
    x, past, w = normal(5, 4), RNG.integers(0, 256, (2, 3), dtype=np.uint8), normal(1, 4)
    with context():
        module = ir.Module.parse(MODULE)
        out = interpret(module, {"x": x, "past": past}, {"w": w})
        expected = np.concatenate([np.broadcast_to(w, (5, 4)).T, -x[::-1, ::2].T])
        np.testing.assert_array_equal(out["y"], expected.ravel())
        np.testing.assert_array_equal(out["grown"], past + np.arange(3, 6).astype(np.uint8))
        assert out["same"].dtype == np.uint8
        np.testing.assert_array_equal(out["same"], past)
        with pytest.raises(InputError, match="too many rows: 9 le 8"):
            interpret(module, {"x": normal(9, 4), "past": past}, {"w": w})
        with pytest.raises(InputError, match="past: input has shape"):
            interpret(module, {"x": x, "past": past[0]}, {"w": w})
        with pytest.raises(InputError, match="x: input has size 3 on axis 1, expected 4"):
            interpret(module, {"x": normal(5, 3), "past": past}, {"w": w})
        with pytest.raises(InputError, match="weight 'w' is missing"):
            interpret(module, {"x": x, "past": past}, {})


def test_weights_program() -> None:
    v = normal(2, 3)
    with context():
        module = ir.Module.parse(MODULE)
        derived = dict(evaluate_weights(module, {"v": v}))
        np.testing.assert_array_equal(derived["v_t"], v.T)
        np.testing.assert_array_equal(derived["v_half"], v.T.astype(ml_dtypes.bfloat16))
        assert [n for n, _ in evaluate_weights(module, {"v": v}, ["v_half"])] == ["v_half"]
