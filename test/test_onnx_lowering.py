"""From ONNX to the `ingot` dialect: single operators against ONNX Runtime, and the small models of the zoo.

The lowered module runs in the interpreter, so that what is tested is shape inference and lowering, and no kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import zoo
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from ingot.compiler.importer import import_model
from ingot.compiler.interpreter import interpret
from ingot.dialects import ingot as dialect
from ingot.dialects.mlir import ir, new_context
from ingot.errors import InputError, ModelError
from ingot.passes import PassContext
from ingot.passes.convert_onnx_to_ingot import ConvertOnnxToIngot, is_lowered
from ingot.passes.infer_shapes import InferShapes

ort = pytest.importorskip("onnxruntime")

ORT_OPSET = 22  # the newest opset whose operators ONNX Runtime 1.20 has

_ELEMENTS = {
    "f": TensorProto.FLOAT, "e": TensorProto.FLOAT16, "d": TensorProto.DOUBLE, "l": TensorProto.INT64, "i": TensorProto.INT32,
    "B": TensorProto.UINT8, "b": TensorProto.INT8, "?": TensorProto.BOOL,
}  # fmt: skip


@dataclass
class Case:
    """A small model: nodes in ONNX's textual syntax, inputs as `name: (numpy type code, sizes)`, constants, and feeds.

    `feeds` gives, for each run, the sizes of the symbolic dimensions, or arrays for inputs that must not be random.
    """

    nodes: str
    inputs: Mapping[str, tuple[str, Sequence[str | int]]]
    feeds: Sequence[Mapping[str, Any]]
    constants: Mapping[str, Any] = field(default_factory=dict)
    outputs: Sequence[str] = ("y",)
    opset: int = 20
    tolerance: float = 2e-6
    domain: str = ""

    def model(self) -> onnx.ModelProto:
        nodes = [onnx.parser.parse_node(line.strip()) for line in self.nodes.strip().splitlines()]
        for i, node in enumerate(nodes):
            node.name = f"node_{i}_{node.op_type}"
            node.domain = node.domain or self.domain
        inputs = [helper.make_tensor_value_info(n, _ELEMENTS[t], list(s)) for n, (t, s) in self.inputs.items()]
        outputs = [onnx.ValueInfoProto(name=n) for n in self.outputs]
        constants = [numpy_helper.from_array(np.asarray(a), n) for n, a in self.constants.items()]
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def arrays(self, feed: Mapping[str, Any], seed: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        out = {}
        for name, (code, sizes) in self.inputs.items():
            if name in feed:
                out[name] = np.asarray(feed[name], np.dtype(code))
                continue
            shape = tuple(feed[s] if isinstance(s, str) else s for s in sizes)
            if code in "fed":
                out[name] = rng.standard_normal(shape).astype(code)
            elif code == "?":
                out[name] = rng.integers(0, 2, shape).astype(bool)
            else:
                low = 0 if code in "B" else -5
                out[name] = rng.integers(low, 6, shape).astype(code)
        return out


class Lowered:
    """A model lowered to the `ingot` dialect, and its context."""

    def __init__(self, model: Any) -> None:
        self.context = new_context(onnx=True)
        with self.context, ir.Location.unknown(self.context):
            imported = import_model(model, context=self.context, decompose=lambda op_type: not is_lowered(op_type))
            self.module, self.weights = imported.module, imported.weights
            self.passes = PassContext(weights=self.weights)
            InferShapes().run(self.module, self.passes)
            ConvertOnnxToIngot().run(self.module, self.passes)
            assert self.module.operation.verify()

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with self.context, ir.Location.unknown(self.context):
            return interpret(self.module, feed, self.weights)

    def ops(self) -> list[str]:
        """Names of the function's operations, without the dialect's prefix."""
        block = dialect.main_func(self.module).regions[0].blocks[0]
        return [op.operation.name.removeprefix("ingot.") for op in block.operations]


@cache
def session_options() -> Any:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return options


def reference(model: onnx.ModelProto) -> Any:
    """What runs the model by ONNX's word: ONNX Runtime, or ONNX's own evaluator for operators that are newer."""
    if model.opset_import[0].version > ORT_OPSET:
        return ReferenceEvaluator(model)
    return ort.InferenceSession(model.SerializeToString(), session_options(), providers=["CPUExecutionProvider"])


def relative_error(a: np.ndarray, b: np.ndarray) -> float:
    """Root mean square of the difference over that of the reference."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(np.sqrt(np.mean((a - b) ** 2)) / max(np.sqrt(np.mean(b**2)), 1e-30)) if b.size else 0.0


def check(case: Case) -> Lowered:
    """Compare a case with ONNX Runtime at all its feeds."""
    model = case.model()
    lowered = Lowered(model)
    oracle = reference(model)
    for seed, feed in enumerate(case.feeds):
        arrays = case.arrays(feed, seed)
        expected = oracle.run(list(case.outputs), arrays)
        actual = lowered.run(arrays)
        for name, want in zip(case.outputs, expected, strict=True):
            got = actual[name]
            assert got.dtype == want.dtype
            assert got.shape == want.shape
            if want.dtype.kind == "f":
                assert np.array_equal(np.isnan(got), np.isnan(want))
                finite = np.isfinite(want)
                assert np.array_equal(got[~finite], want[~finite], equal_nan=True)
                assert relative_error(got[finite], want[finite]) <= case.tolerance
            else:
                assert np.array_equal(got, want)
    return lowered


X = {"x": ("f", ["N", 3, "H", "W"])}
NHW = [{"N": 2, "H": 9, "W": 7}, {"N": 1, "H": 6, "W": 12}]
MATRIX = {"x": ("f", ["N", 5])}
ROWS = [{"N": 3}, {"N": 1}]
RNG = np.random.default_rng(7)


def weights(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


UNARY = """Neg Abs Sign Relu Floor Ceil Round Exp Sin Cos Tan Tanh Sinh Cosh Erf Sigmoid HardSwish Softplus Softsign Mish
LeakyRelu HardSigmoid Elu Selu Celu ThresholdedRelu Gelu Softmax LogSoftmax Identity Atan Asinh Hardmax""".split()


@pytest.mark.parametrize("op", UNARY)
def test_unary(op: str) -> None:
    check(Case(f"y = {op} (x)", MATRIX, ROWS))


@pytest.mark.parametrize("op", ["Sqrt", "Log", "Reciprocal"])
def test_unary_of_positive(op: str) -> None:
    check(Case(f"""a = Abs (x)\n y = {op} (a)""", MATRIX, ROWS))


@pytest.mark.parametrize("op", ["Asin", "Acos", "Atanh", "Acosh", "Asinh", "Atan"])
def test_inverse_functions_at_their_ends(op: str) -> None:
    values = [0.0, -0.0, 1e-6, -1e-4, 0.5, -0.5, 0.999999, -0.999999, 1.0, -1.0, 1.0000001, 1.5, -2.0, 1e5, -1e30, np.inf]
    check(Case(f"y = {op} (x)", {"x": ("f", ["N"])}, [{"x": values}]))
    for value in (1e-6, 1e-3, 0.3, 0.99, 1.0001, 1.01, 300.0):  # each alone: errors are relative
        check(Case(f"y = {op} (x)", {"x": ("f", ["N"])}, [{"x": [value]}], tolerance=1e-6))


def test_special_floats() -> None:
    values = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.5, 2.5, -2.5]
    for op in ("IsNaN", "IsInf", "Relu", "Sqrt", "Round", "Neg", "Sign"):
        check(Case(f"y = {op} (x)", {"x": ("f", ["N"])}, [{"x": values}]))
    check(Case("y = IsInf <detect_negative = 0> (x)", {"x": ("f", ["N"])}, [{"x": values}]))


ELEMENTWISE = {
    "gelu_tanh": Case('y = Gelu <approximate = "tanh"> (x)', MATRIX, ROWS),
    "clip": Case("y = Clip (x, a, b)", MATRIX, ROWS, {"a": np.float32(-0.5), "b": np.float32(0.25)}),
    "clip_min": Case("y = Clip (x, a)", MATRIX, ROWS, {"a": np.float32(-0.5)}),
    "where": Case("y = Where (c, x, z)", {"c": ("?", ["N", 1]), "x": ("f", [5]), "z": ("f", ["N", 5])}, ROWS),
    "prelu": Case("y = PRelu (x, s)", MATRIX, ROWS, {"s": weights(5)}),
    "pow_tensor": Case("a = Abs (x)\n y = Pow (a, z)", {"x": ("f", ["N", 5]), "z": ("f", ["N", 5])}, ROWS, tolerance=1e-5),
    "pow_square": Case("y = Pow (x, e)", MATRIX, ROWS, {"e": np.float32(2)}),
    "pow_cube": Case("y = Pow (x, e)", MATRIX, ROWS, {"e": np.float32(3)}),
    "pow_int_exponent": Case("y = Pow (x, e)", MATRIX, ROWS, {"e": np.int64(2)}),
    "pow_root": Case("a = Abs (x)\n y = Pow (a, e)", MATRIX, ROWS, {"e": np.float32(0.5)}),
    "pow_int": Case("y = Pow (x, e)", {"x": ("l", ["N"])}, ROWS, {"e": np.int64(3)}),
    "pow_int_tensor": Case("y = Pow (x, z)", {"x": ("l", ["N"]), "z": ("l", ["N"])},
                           [{"x": [3, -3, 0, 0, 1, -1, -1, 7], "z": [13, 3, 0, 64, 70, 71, 72, 9]}]),
    "pow_int_float": Case("y = Pow (x, z)", {"x": ("i", ["N"]), "z": ("f", ["N"])},
                          [{"x": [3, -3, 2, 10, 5, 7], "z": [13, 3, 0.5, 2.25, 0, 6]}]),
    "bit_cast": Case("y = BitCast <to = 6> (x)", MATRIX, ROWS, opset=26),
    "bit_cast_half": Case("y = BitCast <to = 4> (x)", {"x": ("e", ["N"])}, [{"N": 6}], opset=26),
    "bit_cast_bool": Case("y = BitCast <to = 2> (x)", {"x": ("?", ["N"])}, [{"N": 6}], opset=26),
    "variadic": Case("y = Max (x, z, w)", {"x": ("f", ["N", 5]), "z": ("f", [5]), "w": ("f", ["N", 1])}, ROWS),
    "mean": Case("y = Mean (x, z)", {"x": ("f", ["N", 5]), "z": ("f", ["N", 5])}, ROWS),
    "logic": Case("a = And (p, q)\n b = Xor (a, p)\n c = Or (b, q)\n y = Not (c)",
                  {"p": ("?", ["N"]), "q": ("?", ["N"])}, [{"N": 16}]),
    "mod_int": Case("y = Mod (x, z)", {"x": ("l", ["N"]), "z": ("l", ["N"])},
                    [{"x": [7, -7, 7, -7, 6], "z": [3, 3, -3, -3, 3]}]),
    "mod_c": Case("y = Mod <fmod = 1> (x, z)", {"x": ("l", ["N"]), "z": ("l", ["N"])},
                  [{"x": [7, -7, 7, -7, 6], "z": [3, 3, -3, -3, 3]}]),
    "mod_float": Case("y = Mod <fmod = 1> (x, z)", {"x": ("f", ["N"]), "z": ("f", ["N"])},
                      [{"x": [5.3, -5.3, 5.3, 9.0, 0.1], "z": [2.0, 2.0, -2.0, 3.0, 7.0]}]),
    "mod_float_python": Case("y = Mod <fmod = 0> (x, z)", {"x": ("f", ["N"]), "z": ("f", ["N"])},
                             [{"x": [5.3, -5.3, 5.3, -5.3, 3.0], "z": [2.0, 2.0, -2.0, -2.0, np.inf]}], opset=28),
    "bit_shift": Case('y = BitShift <direction = "RIGHT"> (x, z)', {"x": ("i", ["N"]), "z": ("i", ["N"])},
                      [{"x": [-8, 8, -8, 8], "z": [1, 1, 40, -1]}], opset=28),
    "div_int": Case("y = Div (x, z)", {"x": ("l", ["N"]), "z": ("l", ["N"])},
                    [{"x": [7, -7, 7, -7, 6], "z": [3, 3, -3, -3, 3]}]),
    "div_uint8": Case("y = Div (x, z)", {"x": ("B", ["N"]), "z": ("B", ["N"])}, [{"x": [200, 255, 7], "z": [3, 16, 8]}]),
    "max_uint8": Case("y = Max (x, z)", {"x": ("B", ["N"]), "z": ("B", ["N"])}, [{"x": [200, 3, 7], "z": [100, 160, 7]}]),
    "less_uint8": Case("y = Less (x, z)", {"x": ("B", ["N"]), "z": ("B", ["N"])}, [{"x": [200, 3, 7], "z": [100, 160, 7]}]),
    "compare": Case("a = GreaterOrEqual (x, z)\n b = LessOrEqual (x, z)\n c = Greater (x, z)\n d = Equal (x, z)\n"
                    "e = And (a, b)\n f = Or (c, d)\n y = Xor (e, f)", {"x": ("l", ["N", 1]), "z": ("l", [4])}, [{"N": 9}]),
    "half": Case("a = Mul (x, x)\n b = Exp (x)\n y = Add (a, b)", {"x": ("e", ["N"])}, [{"N": 64}], tolerance=1e-3),
    "double": Case("a = Mul (x, x)\n y = Sub (a, x)", {"x": ("d", ["N"])}, ROWS, tolerance=1e-15),
    "same_operand": Case("y = Mul (x, x)", MATRIX, ROWS),
}  # fmt: skip


@pytest.mark.parametrize("case", ELEMENTWISE.values(), ids=ELEMENTWISE)
def test_elementwise(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("source", "fedliBb?")
@pytest.mark.parametrize("target", "fedliBb?")
def test_cast(source: str, target: str) -> None:
    values = [0, 1, 3, 100] if "b" in (source, target) else [0, 1, 3, 200]
    check(Case(f"y = Cast <to = {_ELEMENTS[target]}> (x)", {"x": (source, ["N"])}, [{"x": values}]))


def test_cast_truncates() -> None:
    check(Case("y = Cast <to = 7> (x)", {"x": ("f", ["N"])}, [{"x": [1.9, -1.9, 0.5, -0.5]}]))


VIEWS = {
    "transpose": Case("y = Transpose <perm = [0, 2, 3, 1]> (x)", X, NHW),
    "transpose_default": Case("y = Transpose (x)", X, NHW),
    "reshape_zero": Case("y = Reshape (x, s)", X, NHW, {"s": np.array([0, -1])}),
    "reshape_merge": Case("y = Reshape (x, s)", {"x": ("f", ["N", 4, "H"])}, NHW, {"s": np.array([-1, 2, 2])}),
    "flatten": Case("y = Flatten <axis = 2> (x)", X, NHW),
    "flatten_all": Case("y = Flatten <axis = 0> (x)", X, NHW),
    "squeeze": Case("y = Squeeze (x, a)", {"x": ("f", ["N", 1, 3, 1])}, ROWS, {"a": np.array([1, -1])}),
    "unsqueeze": Case("y = Unsqueeze (x, a)", MATRIX, ROWS, {"a": np.array([0, -1])}),
    "slice_clamped": Case("y = Slice (x, s, e, a)", X, NHW,
                          {"s": np.array([-100, 1]), "e": np.array([4, 2**63 - 1]), "a": np.array([2, 3])}),
    "slice_negative": Case("y = Slice (x, s, e, a)", X, NHW,
                           {"s": np.array([-3, 0]), "e": np.array([100, -2]), "a": np.array([2, 3])}),
    "slice_steps": Case("y = Slice (x, s, e, a, t)", X, NHW,
                        {"s": np.array([1, -1]), "e": np.array([2**31 - 1, -(2**63)]), "a": np.array([2, 3]),
                         "t": np.array([2, -1])}),
    "slice_down": Case("y = Slice (x, s, e, a, t)", X, [*NHW, {"N": 2, "H": 0, "W": 7}],
                       {"s": np.array([-2, 4]), "e": np.array([1, 1]), "a": np.array([2, 3]), "t": np.array([-2, -1])}),
    "slice_empty": Case("y = Slice (x, s, e, a)", X, NHW, {"s": np.array([5]), "e": np.array([2]), "a": np.array([2])}),
    "split_equal": Case("y, z = Split <axis = 1, num_outputs = 2> (x)", {"x": ("f", ["N", 6])}, ROWS, outputs=["y", "z"]),
    "split_uneven": Case("y, z = Split <axis = 1, num_outputs = 2> (x)", {"x": ("f", ["N", 7])}, ROWS, outputs=["y", "z"]),
    "split_sizes": Case("y, z, w = Split <axis = -1> (x, s)", {"x": ("f", ["N", 7])}, ROWS, {"s": np.array([1, 4, 2])},
                        ["y", "z", "w"]),
    "concat": Case("y = Concat <axis = 1> (x, x, z)", {"x": ("f", ["N", "H"]), "z": ("f", ["N", "W"])}, NHW),
    "concat_one": Case("a = Concat <axis = 1> (x)\n y = Neg (a)", MATRIX, ROWS),
    "expand": Case("y = Expand (x, s)", {"x": ("f", ["N", 1, 3])}, ROWS, {"s": np.array([2, 1, 4, 1])}),
    "tile": Case("y = Tile (x, r)", MATRIX, ROWS, {"r": np.array([2, 3])}),
    "depth_to_space": Case("y = DepthToSpace <blocksize = 2> (x)", {"x": ("f", ["N", 8, "H", "W"])}, NHW),
    "depth_to_space_crd": Case('y = DepthToSpace <blocksize = 2, mode = "CRD"> (x)', {"x": ("f", ["N", 8, "H", "W"])}, NHW),
    "space_to_depth": Case("y = SpaceToDepth <blocksize = 2> (x)", {"x": ("f", ["N", 3, 4, 6])}, ROWS),
    "constant_of_shape": Case("s = Shape (x)\n y = ConstantOfShape <value = float[1] {2.5}> (s)", X, NHW),
    "range": Case("s = Shape <start = 2, end = 3> (x)\n e = Squeeze (s)\n y = Range (a, e, d)", X, NHW,
                  {"a": np.int64(1), "d": np.int64(3)}),
    "range_float": Case("y = Range (a, e, d)", {}, [{}], {"a": np.float32(0.5), "e": np.float32(4), "d": np.float32(0.75)}),
    "shape_as_data": Case("y = Shape (x)", X, NHW),
    "size_as_data": Case("y = Size (x)", X, NHW),
    "shape_in_float": Case("s = Shape (x)\n f = Cast <to = 1> (s)\n y = Mul (f, h)", X, NHW, {"h": np.float32(0.5)}),
    "eye": Case("y = EyeLike <k = 1> (x)", {"x": ("f", ["N", "H"])}, NHW),
    "triu": Case("y = Trilu (x, k)", {"x": ("f", ["N", 5, "H"])}, NHW, {"k": np.int64(1)}),
    "tril": Case("y = Trilu <upper = 0> (x)", {"x": ("f", ["N", 5, "H"])}, NHW),
    "one_hot": Case("y = OneHot <axis = 1> (i, d, v)", {"i": ("l", ["N", 2])}, [{"i": [[0, 3], [-1, 2]]}],
                    {"d": np.int64(4), "v": np.array([-1.0, 2.0], np.float32)}),
    "pad_constant": Case("y = Pad (x, p, v)", X, NHW, {"p": np.array([0, 1, 2, 0, 1, 0, 0, 3]), "v": np.float32(1.5)}),
    "pad_axes": Case("y = Pad (x, p, , a)", X, NHW, {"p": np.array([1, 2]), "a": np.array([-1])}),
    "pad_crop": Case("y = Pad (x, p)", X, NHW, {"p": np.array([0, 0, -1, -2, 0, -1, 0, 0])}),
    "pad_mixed": Case("y = Pad (x, p)", X, NHW, {"p": np.array([0, 0, -1, 2, 0, 0, 1, -1])}),
    "pad_reflect": Case('y = Pad <mode = "reflect"> (x, p)', X, NHW, {"p": np.array([0, 0, 2, 1, 0, 0, 3, 4])}),
    "pad_edge": Case('y = Pad <mode = "edge"> (x, p)', X, NHW, {"p": np.array([0, 0, 2, 1, 0, 0, 3, 4])}),
    "pad_wrap": Case('y = Pad <mode = "wrap"> (x, p)', X, NHW, {"p": np.array([0, 0, 2, 1, 0, 0, 3, 4])}),
}  # fmt: skip


@pytest.mark.parametrize("case", VIEWS.values(), ids=VIEWS)
def test_views(case: Case) -> None:
    check(case)


INDEXING = {
    "gather_rows": Case("y = Gather (t, i)", {"i": ("l", ["N", "H"])}, [{"i": [[0, 3], [-1, -6]]}], {"t": weights(6, 4)}),
    "gather_last": Case("y = Gather <axis = -1> (x, i)", X, NHW, {"i": np.array([[0, -1], [2, 1]])}),
    "gather_middle": Case("y = Gather <axis = 1> (x, i)", {**X, "i": ("i", ["K"])}, [{"N": 2, "H": 3, "W": 2, "i": [2, -3]}]),
    "gather_scalar": Case("y = Gather <axis = 1> (x, i)", X, NHW, {"i": np.int64(-1)}),
    "gather_elements": Case("y = GatherElements <axis = 1> (x, i)", {"x": ("f", [2, 5]), "i": ("l", ["N", 3])},
                            [{"i": [[0, -1, 4], [2, 2, -5]]}]),
    "gather_nd": Case("y = GatherND (x, i)", {"x": ("f", ["A", 4, 3]), "i": ("l", ["N", 2])},
                      [{"A": 2, "i": [[0, 3], [-1, -4]]}]),
    "gather_nd_batch": Case("y = GatherND <batch_dims = 1> (x, i)", {"x": ("f", [2, 4, 3]), "i": ("l", [2, "K", 1])},
                            [{"i": [[[0], [3]], [[-1], [2]]]}]),
    "argmax": Case("y = ArgMax <axis = 1, keepdims = 0> (x)", {"x": ("l", ["N", 9])}, ROWS),
    "argmax_uint8": Case("y = ArgMax <axis = 1> (x)", {"x": ("B", ["N", 4])}, [{"x": [[3, 200, 200, 7], [255, 0, 1, 2]]}]),
    "hardmax_middle": Case("y = Hardmax <axis = 1> (x)", {"x": ("f", ["N", 3, 2])}, ROWS),
    "reverse_sequence": Case("y = ReverseSequence <batch_axis = 1, time_axis = 0> (x, n)",
                             {"x": ("f", [4, "N", 2]), "n": ("l", ["N"])}, [{"N": 3, "n": [4, 1, 2]}]),
    "argmin_last": Case("y = ArgMin <axis = 0, select_last_index = 1> (x)", {"x": ("l", ["N", 9])}, [{"N": 6}]),
    "cumsum": Case("y = CumSum (x, a)", {"x": ("l", ["N", 5, 2])}, ROWS, {"a": np.int64(1)}),
    "cumsum_exclusive": Case("y = CumSum <exclusive = 1, reverse = 1> (x, a)", MATRIX, ROWS, {"a": np.int64(-1)}),
}  # fmt: skip


@pytest.mark.parametrize("case", INDEXING.values(), ids=INDEXING)
def test_indexing(case: Case) -> None:
    check(case)


TWO = {"a": ("f", ["B", "M", 4]), "b": ("f", ["B", 4, "K"])}
TWO_FEEDS = [{"B": 2, "M": 3, "K": 5}, {"B": 1, "M": 1, "K": 1}]
IMAGE = {"x": ("f", ["N", 4, "H", "W"])}
LINEAR = {
    "matmul": Case("y = MatMul (a, b)", TWO, TWO_FEEDS),
    "matmul_broadcast": Case("y = MatMul (a, b)", {"a": ("f", ["B", 1, "M", 4]), "b": ("f", [3, 4, 5])}, TWO_FEEDS),
    "matmul_vector_left": Case("y = MatMul (a, b)", {"a": ("f", [4]), "b": ("f", ["B", 4, "K"])}, TWO_FEEDS),
    "matmul_vector_right": Case("y = MatMul (a, b)", {"a": ("f", ["B", "M", 4]), "b": ("f", [4])}, TWO_FEEDS),
    "matmul_vectors": Case("y = MatMul (a, a)", {"a": ("f", [4])}, [{}]),
    "matmul_half": Case("y = MatMul (a, b)", {"a": ("e", ["M", 4]), "b": ("e", [4, "K"])}, TWO_FEEDS, tolerance=1e-3),
    "gemm": Case("y = Gemm <alpha = 0.5, beta = 2.0, transB = 1> (x, w, c)", MATRIX, ROWS,
                 {"w": weights(6, 5), "c": weights(6)}),
    "gemm_trans_a": Case("y = Gemm <transA = 1> (a, b)", {"a": ("f", [4, "M"]), "b": ("f", [4, 3])}, TWO_FEEDS),
    "einsum": Case('y = Einsum <equation = "bmk,bkn->bmn"> (a, b)', TWO, TWO_FEEDS),
    "einsum_outer": Case('y = Einsum <equation = "i,j->ij"> (a, b)', {"a": ("f", ["M"]), "b": ("f", ["K"])}, TWO_FEEDS),
    "einsum_permute": Case('y = Einsum <equation = "nhwpqc->nchpwq"> (x)', {"x": ("f", ["N", 2, 3, 2, 2, 4])}, ROWS),
    "einsum_sum": Case('y = Einsum <equation = "bij,jk->ki"> (a, b)', {"a": ("f", ["B", "M", 4]), "b": ("f", [4, "K"])},
                       TWO_FEEDS),
    "einsum_ellipsis": Case('y = Einsum <equation = "...ij,...jk->...ik"> (a, b)', TWO, TWO_FEEDS),
    "conv": Case("y = Conv <kernel_shape = [3, 3], pads = [1, 0, 2, 1], strides = [2, 1]> (x, w, b)", IMAGE, NHW,
                 {"w": weights(6, 4, 3, 3), "b": weights(6)}),
    "conv_groups": Case("y = Conv <group = 2, dilations = [2, 1]> (x, w)", IMAGE, NHW, {"w": weights(6, 2, 3, 2)}),
    "conv_depthwise": Case("y = Conv <group = 4, pads = [1, 1, 1, 1]> (x, w)", IMAGE, NHW, {"w": weights(4, 1, 3, 3)}),
    "conv_1d": Case("y = Conv <pads = [1, 1]> (x, w)", {"x": ("f", ["N", 4, "H"])}, NHW, {"w": weights(3, 4, 3)}),
    "conv_3d": Case("y = Conv (x, w)", {"x": ("f", ["N", 2, 3, "H", "W"])}, NHW, {"w": weights(3, 2, 2, 2, 2)}),
    "conv_same": Case('y = Conv <auto_pad = "SAME_UPPER"> (x, w)', IMAGE, NHW, {"w": weights(3, 4, 2, 3)}),
    "conv_same_strided": Case('y = Conv <auto_pad = "SAME_LOWER", strides = [2, 2]> (x, w)', IMAGE, NHW,
                              {"w": weights(3, 4, 3, 3)}),
    "conv_transpose": Case("y = ConvTranspose <strides = [2, 2], pads = [1, 0, 0, 1], output_padding = [1, 0]> (x, w, b)",
                           IMAGE,
                           NHW, {"w": weights(4, 3, 3, 3), "b": weights(3)}),
    "conv_transpose_groups": Case("y = ConvTranspose <group = 2, dilations = [2, 1]> (x, w)", IMAGE, NHW,
                                  {"w": weights(4, 3, 2, 3)}),
    "max_pool": Case("y = MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (x)", IMAGE, NHW),
    "max_pool_ceil": Case("y = MaxPool <kernel_shape = [2, 3], strides = [2, 2], ceil_mode = 1> (x)", IMAGE, NHW),
    "average_pool": Case("y = AveragePool <kernel_shape = [3, 2], pads = [1, 0, 1, 1]> (x)", IMAGE, NHW),
    "average_pool_padded": Case("y = AveragePool <kernel_shape = [3, 2], pads = [1, 0, 1, 1], count_include_pad = 1> (x)",
                                IMAGE, NHW),
    "average_pool_ceil": Case("y = AveragePool <kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1> (x)", IMAGE, NHW),
    "average_pool_ceil_padded": Case("y = AveragePool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 0, 1, 1], "
                                     "ceil_mode = 1, count_include_pad = 1> (x)", IMAGE, NHW),
    "max_pool_uint8": Case("y = MaxPool <kernel_shape = [2, 2], pads = [1, 0, 0, 1]> (x)", {"x": ("B", ["N", 2, 5, 4])},
                           [{"x": np.arange(0, 240, 6).reshape(1, 2, 5, 4)}]),
    "lp_pool": Case("y = LpPool <kernel_shape = [2, 3], strides = [1, 2], pads = [1, 0, 1, 1]> (x)", IMAGE, NHW),
    "lp_pool_three": Case("y = LpPool <kernel_shape = [2, 2], p = 3> (x)", IMAGE, NHW),
    "lrn": Case("y = LRN <size = 3, alpha = 0.1, bias = 2.0> (x)", IMAGE, NHW),
    "lrn_even": Case("y = LRN <size = 4, beta = 0.5> (x)", {"x": ("f", ["N", 7, 3, 1])}, [{"N": 7}],
                     opset=24),  # ONNX's evaluator counts channels by N
    "global_average_pool": Case("y = GlobalAveragePool (x)", IMAGE, NHW),
    "global_max_pool": Case("y = GlobalMaxPool (x)", IMAGE, NHW),
}  # fmt: skip


@pytest.mark.parametrize("case", LINEAR.values(), ids=LINEAR)
def test_linear(case: Case) -> None:
    check(case)


AXES = {"a": np.array([1, -1])}
NORMALIZATIONS = {
    **{op: Case(f"y = {op} (x, a)", X, NHW, AXES) for op in (
        "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare",
        "ReduceLogSumExp")},
    "reduce_max_uint8": Case("y = ReduceMax (x, a)", {"x": ("B", ["N", 3])}, [{"x": [[3, 200, 7], [1, 0, 130]]}],
                             {"a": np.array([1])}),
    "reduce_l2_int": Case("y = ReduceL2 (x, a)", {"x": ("i", ["N", 3])}, [{"x": [[3, 4, 0], [5, 12, 84]]}],
                          {"a": np.array([1])}),
    "reduce_all": Case("y = ReduceMean <keepdims = 0> (x)", X, NHW),
    "reduce_noop": Case("y = ReduceSum <noop_with_empty_axes = 1> (x)", X, NHW),
    "reduce_int": Case("y = ReduceSum <keepdims = 0> (x, a)", {"x": ("l", ["N", 5, 3])}, ROWS, AXES),
    "reduce_opset_13": Case("y = ReduceMean <axes = [1], keepdims = 0> (x)", X, NHW, opset=13),
    "softmax_middle": Case("y = Softmax <axis = 1> (x)", X, NHW),
    "softmax_opset_11": Case("y = Softmax <axis = 1> (x)", X, NHW, opset=11),
    "layer": Case("y = LayerNormalization <axis = -1, epsilon = 0.01> (x, s, b)", MATRIX, ROWS,
                  {"s": weights(5), "b": weights(5)}),
    "layer_two_axes": Case("y = LayerNormalization <axis = 1> (x, s)", {"x": ("f", ["N", 3, 4])}, ROWS, {"s": weights(3, 4)}),
    "layer_statistics": Case("y, m, v = LayerNormalization (x, s)", MATRIX, ROWS, {"s": weights(5)}, ["y", "m", "v"]),
    "simplified_layer": Case("y = SimplifiedLayerNormalization (x, s)", MATRIX, ROWS, {"s": weights(5)}),
    "instance": Case("y = InstanceNormalization <epsilon = 0.1> (x, s, b)", X, NHW, {"s": weights(3), "b": weights(3)}),
    "batch": Case("y = BatchNormalization (x, s, b, m, v)", X, NHW,
                  {"s": weights(3), "b": weights(3), "m": weights(3), "v": np.abs(weights(3)) + 0.1}),
    "group": Case("y = GroupNormalization <num_groups = 2> (x, s, b)", {"x": ("f", ["N", 4, "H", "W"])}, NHW,
                  {"s": weights(4), "b": weights(4)}, opset=21),
    "lp": Case("y = LpNormalization <axis = 1> (x)", MATRIX, ROWS),
    "lp_one": Case("y = LpNormalization <axis = 1, p = 1> (x)", MATRIX, ROWS),
}  # fmt: skip


@pytest.mark.parametrize("case", NORMALIZATIONS.values(), ids=NORMALIZATIONS)
def test_reductions_and_normalizations(case: Case) -> None:
    check(case)


def caches(rows: int, half: int) -> dict[str, np.ndarray]:
    angles = RNG.uniform(0, 6, (rows, half)).astype(np.float32)
    return {"c": np.cos(angles), "s": np.sin(angles)}


QKV = {"q": ("f", ["B", 4, "S", 8]), "k": ("f", ["B", 2, "T", 8]), "v": ("f", ["B", 2, "T", 6])}
QKV_FEEDS = [{"B": 2, "S": 3, "T": 3}, {"B": 1, "S": 5, "T": 5}]
FLAT = {"q": ("f", ["B", "S", 32]), "k": ("f", ["B", "T", 16]), "v": ("f", ["B", "T", 12])}
PAST = {"pk": ("f", ["B", 2, "P", 8]), "pv": ("f", ["B", 2, "P", 6])}
HEADS = "q_num_heads = 4, kv_num_heads = 2"
ATTENTION = {
    "grouped": Case("y = Attention (q, k, v)", QKV, [{"B": 2, "S": 3, "T": 7}], opset=23),
    "flat_causal": Case(f"y = Attention <{HEADS}, is_causal = 1> (q, k, v)", FLAT, QKV_FEEDS, opset=23),
    "cross_causal": Case(f"y = Attention <{HEADS}, is_causal = 1> (q, k, v)", FLAT, [{"B": 2, "S": 3, "T": 7}], opset=23),
    "mask": Case("y = Attention <scale = 0.3> (q, k, v, m)", {**QKV, "m": ("f", ["S", "T"])}, [{"B": 2, "S": 3, "T": 7}],
                 opset=23),
    "truth_mask": Case("y = Attention (q, k, v, m)", {**QKV, "m": ("?", ["B", 1, "S", "T"])},
                       [{"B": 1, "S": 2, "T": 3, "m": [[[[1, 0, 1], [0, 1, 1]]]]}], opset=23),
    "past": Case("y, pk2, pv2 = Attention <is_causal = 1> (q, k, v, , pk, pv)", {**QKV, **PAST},
                 [{"B": 2, "S": 3, "T": 3, "P": 4}], outputs=["y", "pk2", "pv2"], opset=24),
    "valid_keys": Case("y = Attention <is_causal = 1> (q, k, v, , , , n)", {**QKV, "n": ("l", ["B"])},
                       [{"B": 2, "S": 2, "T": 5, "n": [5, 1]}], opset=24),
    "window": Case("y = Attention <left_window_size = 1, right_window_size = 1> (q, k, v)", QKV, [{"B": 1, "S": 4, "T": 6}],
                   opset=25),
    "rotary": Case("y = RotaryEmbedding (x, c, s, p)", {"x": ("f", ["B", 2, "S", 8]), "p": ("l", ["B", "S"])},
                   [{"B": 1, "S": 3, "p": [[4, 0, 9]]}], caches(10, 4), opset=23),
    "rotary_flat": Case("y = RotaryEmbedding <num_heads = 2, interleaved = 1> (x, c, s, p)",
                        {"x": ("f", ["B", "S", 16]), "p": ("l", ["B", "S"])}, [{"B": 1, "S": 3, "p": [[4, 0, 9]]}],
                        caches(10, 4), opset=23),
    "rotary_partial": Case("y = RotaryEmbedding <rotary_embedding_dim = 4> (x, c, s)",
                           {"x": ("f", ["B", 2, "S", 8]), "c": ("f", ["B", "S", 2]), "s": ("f", ["B", "S", 2])},
                           [{"B": 2, "S": 3}], opset=23),
}  # fmt: skip


@pytest.mark.parametrize("case", ATTENTION.values(), ids=ATTENTION)
def test_attention(case: Case) -> None:
    check(case)


FUNCTIONS = {
    "MeanVarianceNormalization": Case("y = MeanVarianceNormalization (x)", X, NHW, tolerance=1e-5),
    "mean_variance_axes": Case("y = MeanVarianceNormalization <axes = [1, 2]> (x)", X, NHW, tolerance=1e-5),
    "HannWindow": Case("y = HannWindow <periodic = 0> (n)", {}, [{}], {"n": np.int64(10)}),
}


@pytest.mark.parametrize("case", FUNCTIONS.values(), ids=FUNCTIONS)
def test_function_bodies(case: Case) -> None:
    check(case)


CONTRIBUTED = {
    "bias_gelu": Case("y = BiasGelu (x, b)", MATRIX, ROWS, {"b": weights(5)}, domain="com.microsoft"),
    "fast_gelu": Case("y = FastGelu (x, b)", MATRIX, ROWS, {"b": weights(5)}, domain="com.microsoft"),
    "quick_gelu": Case("y = QuickGelu (x)", MATRIX, ROWS, domain="com.microsoft"),
    "gelu": Case("y = Gelu (x)", MATRIX, ROWS, domain="com.microsoft"),
    "fused_matmul": Case("y = FusedMatMul <alpha = 0.25, transB = 1> (a, a)", {"a": ("f", ["B", "M", 4])}, TWO_FEEDS,
                         domain="com.microsoft"),
    "skip_layer": Case("y, , , z = SkipLayerNormalization (x, k, s, t, b)",
                       {"x": ("f", ["N", 2, 5]), "k": ("f", ["N", 2, 5])}, ROWS,
                       {"s": weights(5), "t": weights(5), "b": weights(5)}, ["y", "z"], domain="com.microsoft"),
    "skip_rms": Case("y = SkipSimplifiedLayerNormalization (x, k, s)", {"x": ("f", ["N", 2, 5]), "k": ("f", ["N", 2, 5])}, ROWS,
                     {"s": weights(5)}, domain="com.microsoft"),
}  # fmt: skip


@pytest.mark.parametrize("case", CONTRIBUTED.values(), ids=CONTRIBUTED)
def test_contributed(case: Case) -> None:
    check(case)


# Shapes ---------------------------------------------------------------------------------------------------------------


def test_shape_arithmetic_leaves_no_operation() -> None:
    case = Case(
        """s = Shape (x)
        n = Gather (s, zero)
        h = Gather (s, two)
        m = Mul (h, three)
        n1 = Unsqueeze (n, axis)
        m1 = Unsqueeze (m, axis)
        t = Concat <axis = 0> (n1, m1, minus)
        y = Reshape (x, t)""",
        X, NHW, {"zero": np.int64(0), "two": np.int64(2), "three": np.int64(3), "axis": np.array([0]), "minus": np.array([-1])},
    )  # fmt: skip
    lowered = check(case)
    assert lowered.ops() == ["reshape", "output", "return"]
    view = dialect.main_func(lowered.module).regions[0].blocks[0].operations[0]
    assert dialect.shape_of(view.results[0]) == tuple(map(dialect.dims.as_dim, ("N", "3*H", "W")))


def test_guard_of_equal_sizes() -> None:
    inputs = {"a": ("f", ["N", "S"]), "b": ("f", ["T", 4])}
    lowered = check(Case("y = MatMul (a, b)", inputs, [{"N": 2, "S": 3, "T": 3}]))
    assert lowered.ops()[0] == "guard"
    with pytest.raises(InputError, match=r"node_0_MatMul.*3 eq 5|node_0_MatMul.*5 eq 3"):
        lowered.run({"a": np.ones((2, 3), np.float32), "b": np.ones((5, 4), np.float32)})


def test_sizes_that_may_be_one_or_equal() -> None:
    inputs = {"a": ("f", ["N", "S"]), "b": ("f", ["N", "T"])}
    feeds = [{"N": 2, "S": 3, "T": 3}, {"N": 2, "S": 1, "T": 4}, {"N": 2, "S": 4, "T": 1}, {"N": 1, "S": 1, "T": 1}]
    lowered = check(Case("y = Add (a, b)", inputs, feeds))
    with pytest.raises(InputError, match="node_0_Add"):
        lowered.run({"a": np.ones((2, 3), np.float32), "b": np.ones((2, 5), np.float32)})


def test_computed_sizes_that_meet_are_equal() -> None:
    case = Case("a = Concat <axis = 0> (x, z)\n y = Add (a, w)", {"x": ("f", ["S"]), "z": ("f", ["T"]), "w": ("f", ["S"])}, [])
    lowered = Lowered(case.model())
    main = dialect.main_func(lowered.module).regions[0].blocks[0]
    assert {dialect.shape_of(op.operands[0]) for op in main.operations if op.operation.name == "ingot.output"} == {
        (dialect.dims.as_dim("S"),)
    }
    guard = next(op.operation for op in main.operations if op.operation.name == "ingot.guard")
    assert (guard.attributes["left"].value, guard.attributes["right"].value) == ("S + T", "S")


def test_size_that_is_never_one() -> None:
    inputs = {"x": ("f", ["S", 2]), "z": ("f", ["T"])}
    case = Case("f = Reshape (x, m)\n y = Add (f, z)", inputs, [{"S": 3, "T": 6}], {"m": np.array([-1])})
    lowered = check(case)
    with pytest.raises(InputError, match="node_1_Add"):
        lowered.run({"x": np.ones((3, 2), np.float32), "z": np.ones(5, np.float32)})
    assert lowered.run({"x": np.ones((3, 2), np.float32), "z": np.ones(1, np.float32)})["y"].shape == (6,)


def test_constant_against_symbol() -> None:
    inputs = {"a": ("f", [4]), "b": ("f", ["S"])}
    lowered = check(Case("y = Add (a, b)", inputs, [{"S": 4}, {"S": 1}]))
    with pytest.raises(InputError, match="node_0_Add"):
        lowered.run({"a": np.ones(4, np.float32), "b": np.ones(3, np.float32)})


def test_reshape_that_does_not_divide_is_guarded() -> None:
    case = Case("y = Reshape (x, s)", {"x": ("f", ["N", "K"])}, [{"N": 2, "K": 6}], {"s": np.array([-1, 4])})
    lowered = check(case)
    with pytest.raises(InputError, match="cannot be reshaped"):
        lowered.run({"x": np.ones((3, 3), np.float32)})


@pytest.mark.parametrize(
    ("case", "good", "bad"),
    [
        (Case("y = Gather <axis = 1> (x, i)", {"x": ("f", ["N", "S"]), "i": ("l", ["K"])}, []),
         [{"N": 2, "S": 3, "i": [1, -2]}, {"N": 2, "S": 0, "i": np.zeros(0)}], {"N": 2, "S": 0, "i": [0]}),
        (Case("y = Gather <axis = 1> (x, i)", {"x": ("f", ["N", "S"])}, [], {"i": np.int64(2)}),
         [{"N": 2, "S": 3}], {"N": 1, "S": 2}),
        (Case("y = Gather <axis = 1> (x, i)", {"x": ("f", ["N", "S"])}, [], {"i": np.array([0, -3])}),
         [{"N": 2, "S": 3}], {"N": 1, "S": 2}),
        (Case("y = GatherElements (x, i)", {"x": ("f", ["S", "W"]), "i": ("l", ["K", "V"])}, []),
         [{"S": 3, "W": 2, "i": [[2]]}], {"S": 0, "W": 2, "i": [[0]]}),
        (Case("y = GatherElements (x, i)", {"x": ("f", ["S", "W"]), "i": ("l", ["K", "V"])}, []),
         [{"S": 3, "W": 2, "i": [[2, 0]]}], {"S": 3, "W": 1, "i": [[0, 0]]}),
        (Case("y = GatherND (x, i)", {"x": ("f", ["S", "W"]), "i": ("l", ["K", 1])}, []),
         [{"S": 3, "W": 2, "i": [[2], [-1]]}, {"S": 0, "W": 2, "i": np.zeros((0, 1))}], {"S": 0, "W": 2, "i": [[0]]}),
        (Case("y = Resize (x, , , s)", {"x": ("f", ["N", "S"])}, [], {"s": np.array([1, 4])}),
         [{"N": 1, "S": 2}], {"N": 1, "S": 0}),
        (Case("y = Pad <mode = \"edge\"> (x, p)", {"x": ("f", ["N", "S"])}, [], {"p": np.array([0, 1, 0, 0])}),
         [{"N": 2, "S": 2}], {"N": 2, "S": 0}),
    ],
)  # fmt: skip
def test_nothing_is_read_from_an_axis_that_is_too_short(case: Case, good: list, bad: dict) -> None:
    """Indices are kept in range, which an empty axis does not have; what reads nothing is no error."""
    lowered = Lowered(case.model())
    runner = reference(case.model())
    for seed, feed in enumerate(good):
        arrays = case.arrays(feed, seed)
        (expected,) = runner.run(None, arrays)
        np.testing.assert_array_equal(lowered.run(arrays)["y"], expected)
    with pytest.raises(InputError, match=rf"node_0_{case.model().graph.node[0].op_type}"):
        lowered.run(case.arrays(bad, 0))


def test_an_index_out_of_range_of_a_constant_axis_is_an_error_of_the_model() -> None:
    with pytest.raises(ModelError, match="index 4 is out of range for axis 1 of size 4"):
        Lowered(Case("y = Gather <axis = 1> (x, i)", {"x": ("f", ["N", 4])}, [], {"i": np.array([0, 4])}).model())


def test_empty_tensors() -> None:
    check(Case("a = Mul (x, x)\n y = ReduceSum (a, ax)", MATRIX, [{"N": 0}], {"ax": np.array([0])}))


# Errors ---------------------------------------------------------------------------------------------------------------


def test_all_problems_at_once() -> None:
    inputs = {"x": ("f", ["N", 5]), "z": ("f", [3, 3]), "w": ("f", [4])}
    case = Case("a = Multinomial (x)\n b = RandomNormalLike (z)\n y = Add (x, w)", inputs, [])
    with pytest.raises(ModelError) as caught:
        Lowered(case.model())
    for text in ("node_0_Multinomial", "operator RandomNormalLike", "node_2_Add", "do not broadcast"):
        assert text in str(caught.value)


def test_data_dependent_shape() -> None:
    inputs = {"x": ("f", ["N", 5]), "d": ("f", [3, "M"])}
    case = Case("s = ArgMax <axis = 0, keepdims = 0> (d)\n y = Reshape (x, s)", inputs, [])
    with pytest.raises(ModelError, match=r"node_1_Reshape: Reshape: input 1 is computed from data.*shapes"):
        Lowered(case.model())


def test_element_type_without_meaning() -> None:
    for op in ("Sigmoid", "Softmax", "Sqrt"):
        with pytest.raises(ModelError, match=rf"node_0_{op}: {op}: element type \w+ is not supported"):
            Lowered(Case(f"y = {op} (x)", {"x": ("l", ["N"])}, []).model())


def test_operands_that_do_not_fit() -> None:
    case = Case("y = DepthToSpace <blocksize = 2> (x)", {"x": ("f", [4])}, [])
    with pytest.raises(ModelError, match=r"node_0_DepthToSpace: .*float\[4\].* do not fit"):
        Lowered(case.model())


def test_contradicting_shapes() -> None:
    case = Case("y = MatMul (a, b)", {"a": ("f", [2, 3]), "b": ("f", [4, 5])}, [])
    with pytest.raises(ModelError, match="inner sizes 3 and 4 differ"):
        Lowered(case.model())


# Models ---------------------------------------------------------------------------------------------------------------

ZOO = ["resnet50", "mobilenetv3_large_100", "bert", "vit", "gpt2", "llama_kv", "whisper_encoder", "sd21_unet", "vae_decoder"]


@pytest.mark.parametrize("name", [*ZOO, "bert_fp16", "resnet50_fp16", "vit_bf16"])
def test_zoo(name: str, zoo_model: Callable[[str], Path]) -> None:
    folder = zoo_model(name)
    lowered = Lowered(folder / "model.onnx")
    tolerance = zoo.tolerance(name)
    for feeds, references in zoo.input_sets(folder):
        outputs = lowered.run(feeds)
        for output, reference in references.items():
            assert zoo.relative_error(outputs[output], reference) <= tolerance, output
