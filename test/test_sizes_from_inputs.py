"""Models whose shapes depend on the elements of their inputs: sizes, positions and counts that a call brings.

Each runs on the CPU, and in the interpreter, at several values, which one engine serves; ONNX Runtime says what is right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from control_models import reference

import ingot
from ingot.compiler.interpreter import evaluate_weights, interpret
from ingot.dialects.mlir import ir, new_context
from ingot.dtypes import DTYPES
from ingot.errors import InputError, ModelError

LOWEST, HIGHEST = -(2**63), 2**63 - 1


@dataclass
class Case:
    """`graph`: inputs, outputs and nodes in ONNX's textual syntax; `feeds`: sizes of named dimensions, and integer inputs."""

    graph: str
    feeds: Sequence[Mapping[str, Any]]

    def model(self) -> onnx.ModelProto:
        made = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]> {self.graph}')
        for node in made.graph.node:
            node.name = node.output[0]
        return made


CASES = {
    "reshape": Case("g (float[N, 12] x, int64[3] to) => (float[A, B, C] y) { y = Reshape(x, to) }", [
        {"N": 3, "to": [3, 4, 3]}, {"N": 3, "to": [0, -1, 2]}, {"N": 2, "to": [-1, 1, 4]}, {"N": 5, "to": [12, 5, -1]},
        {"N": 0, "to": [0, 4, 3]}]),
    "reshape_allowzero": Case("g (float[N, 2] x, int64[2] to) => (float[A, B] y) { y = Reshape <allowzero = 1> (x, to) }", [
        {"N": 0, "to": [0, 7]}, {"N": 0, "to": [3, 0]}, {"N": 3, "to": [2, 3]}, {"N": 3, "to": [-1, 1]}]),
    "reshape_of_part": Case("""g (float[N, S, 8] x, int64[1] heads) => (float[A, B, C, D] y) {
        n = Shape <end = 2> (x)
        rest = Constant <value_ints = [-1]> ()
        to = Concat <axis = 0> (n, heads, rest)
        y = Reshape(x, to) }""", [{"N": 2, "S": 3, "heads": [4]}, {"N": 2, "S": 1, "heads": [8]}]),
    "expand": Case("g (float[3, 1] x, int64[3] to) => (float[A, B, C] y) { y = Expand(x, to) }", [
        {"to": [2, 3, 4]}, {"to": [1, 1, 1]}, {"to": [5, 1, 0]}]),
    "expand_of_unknown": Case("g (float[N, M] x, int64[2] to) => (float[A, B] y) { y = Expand(x, to) }", [
        {"N": 1, "M": 4, "to": [3, 1]}, {"N": 3, "M": 4, "to": [1, 4]}, {"N": 1, "M": 1, "to": [2, 5]}]),
    "slice": Case("""g (float[N, 9] x, int64[2] from, int64[2] to) => (float[A, B] y) {
        y = Slice(x, from, to) }""", [
        {"N": 5, "from": [1, 2], "to": [4, 7]}, {"N": 5, "from": [-2, -9], "to": [HIGHEST, -1]},
        {"N": 4, "from": [3, 8], "to": [1, 3]}, {"N": 4, "from": [-100, LOWEST], "to": [100, HIGHEST]},
        {"N": 2, "from": [7, 0], "to": [9, -100]}, {"N": 0, "from": [-1, -1], "to": [1, 9]}]),
    "slice_backwards": Case("""g (float[N, 9] x, int64[2] from, int64[2] to) => (float[A, B] y) {
        axes = Constant <value_ints = [1, 0]> ()
        steps = Constant <value_ints = [-2, -1]> ()
        y = Slice(x, from, to, axes, steps) }""", [
        {"N": 5, "from": [7, 4], "to": [1, 0]}, {"N": 5, "from": [-1, -1], "to": [LOWEST, LOWEST]},
        {"N": 5, "from": [HIGHEST, 100], "to": [-100, -4]}, {"N": 4, "from": [2, 1], "to": [6, 3]},
        {"N": 0, "from": [-1, -1], "to": [LOWEST, LOWEST]}]),
    "slice_in_int32": Case("""g (float[N, 9] x, int32[1] from, int32[1] to) => (float[A, 9] y) {
        y = Slice(x, from, to) }""", [{"N": 5, "from": [-3], "to": [-1]}, {"N": 5, "from": [-9], "to": [9]}]),
    "slice_by_length": Case("""g (float[N, 9] x, int64 from) => (float[N, 2] y) {
        two = Constant <value_int = 2> ()
        end = Add(from, two)
        axes = Constant <value_ints = [0]> ()
        start_1 = Unsqueeze(from, axes)
        end_1 = Unsqueeze(end, axes)
        axis = Constant <value_ints = [1]> ()
        y = Slice(x, start_1, end_1, axis) }""", [{"N": 2, "from": 0}, {"N": 2, "from": 7}, {"N": 3, "from": 3}]),
    "split": Case("g (float[N, 7] x, int64[3] parts) => (float[N, A] a, float[N, B] b, float[N, C] c) "
                  "{ a, b, c = Split <axis = 1> (x, parts) }", [{"N": 2, "parts": [1, 4, 2]}, {"N": 3, "parts": [0, 7, 0]}]),
    "tile": Case("g (float[N, 2] x, int64[2] times) => (float[A, B] y) { y = Tile(x, times) }", [
        {"N": 2, "times": [3, 1]}, {"N": 1, "times": [1, 4]}, {"N": 3, "times": [0, 2]}]),
    "pad": Case("""g (float[N, 6] x, int64[4] by, float fill) => (float[A, B] y) { y = Pad(x, by, fill) }""", [
        {"N": 2, "by": [1, 2, 0, 3]}, {"N": 3, "by": [-1, -2, 1, -3]}, {"N": 3, "by": [0, 0, 0, 0]},
        {"N": 4, "by": [-2, 4, -2, -5]}]),
    "pad_reflect": Case("""g (float[N, 6] x, int64[2] by) => (float[N, B] y) {
        axis = Constant <value_ints = [-1]> ()
        fill = Constant <value_float = 0.0> ()
        y = Pad <mode = "reflect"> (x, by, fill, axis) }""", [{"N": 2, "by": [3, 5]}, {"N": 3, "by": [0, 1]}]),
    "constant_of_shape": Case("g (int64[2] to) => (float[A, B] y) { y = ConstantOfShape(to) }", [
        {"to": [2, 3]}, {"to": [0, 3]}]),
    "range": Case("g (int64 from, int64 to, int64 by) => (int64[A] y) { y = Range(from, to, by) }", [
        {"from": 0, "to": 5, "by": 1}, {"from": 3, "to": -8, "by": -2}, {"from": 3, "to": -8, "by": 2},
        {"from": -7, "to": 7, "by": 3}]),
    "range_of_floats": Case("""g (int64 to) => (float[A] y) {
        zero = Constant <value_float = 0.0> ()
        one = Constant <value_float = 1.0> ()
        end = Cast <to = 1> (to)
        y = Range(zero, end, one) }""", [{"to": 5}, {"to": 0}, {"to": -3}]),
    "one_hot": Case("""g (int64[N] x, int64 depth) => (float[N, A] y) {
        values = Constant <value_floats = [0.0, 1.0]> ()
        y = OneHot(x, depth, values) }""", [{"N": 4, "depth": 7}, {"N": 2, "depth": 6}]),
    "resize": Case("""g (float[N, 2, H, W] x, int64[2] to) => (float[N, 2, A, B] y) {
        n = Shape <end = 2> (x)
        sizes = Concat <axis = 0> (n, to)
        y = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel"> (x, , , sizes) }""", [
        {"N": 1, "H": 4, "W": 5, "to": [8, 7]}, {"N": 2, "H": 6, "W": 3, "to": [3, 3]}]),
    "resize_every_axis": Case("""g (float[1, 1, H, W] x, int64[4] to) => (float[D, C, A, B] y) {
        y = Resize <mode = "cubic"> (x, , , to) }""", [
        {"H": 4, "W": 5, "to": [1, 1, 8, 7]}, {"H": 6, "W": 3, "to": [1, 1, 3, 3]}]),
    "resize_keeping_the_aspect_ratio": Case("""g (float[1, 1, H, W] x, int64[2] to) => (float[1, 1, A, B] y) {
        y = Resize <mode = "nearest", keep_aspect_ratio_policy = "not_larger", axes = [2, 3]> (x, , , to) }""", [
        {"H": 4, "W": 5, "to": [8, 20]}, {"H": 6, "W": 3, "to": [3, 3]}]),
    "computed_sizes": Case("""g (float[N, 16, 4] x, int64[2] grid) => (float[N, A, B, 4] y, float[C, 4] z) {
        zero = Constant <value_int = 0> ()
        one = Constant <value_int = 1> ()
        h = Gather(grid, zero)
        w = Gather(grid, one)
        area = Mul(h, w)
        axes = Constant <value_ints = [0]> ()
        h_1 = Unsqueeze(h, axes)
        w_1 = Unsqueeze(w, axes)
        area_1 = Unsqueeze(area, axes)
        n = Shape <end = 1> (x)
        c = Constant <value_ints = [4]> ()
        to = Concat <axis = 0> (n, h_1, w_1, c)
        y = Reshape(x, to)
        flat_shape = Concat <axis = 0> (area_1, c)
        row = Reshape(x, flat_shape)
        z = Relu(row) }""", [{"N": 1, "grid": [4, 4]}, {"N": 1, "grid": [2, 8]}]),
    "an_input_that_is_data_too": Case("""g (float[N, 3] x, int64[1] count) => (float[N, A, 3] y, int64[N, A] z) {
        n = Shape <end = 1> (x)
        c = Constant <value_ints = [3]> ()
        one = Constant <value_ints = [1]> ()
        to = Concat <axis = 0> (n, count, c)
        wide = Unsqueeze(x, one)
        y = Expand(wide, to)
        rows = Concat <axis = 0> (n, count)
        z = Expand(count, rows) }""", [{"N": 2, "count": [3]}, {"N": 1, "count": [1]}]),
    "products_of_sizes_from_inputs": Case("""g (float[N, 8] x, float[8, 4] w, int64[1] rows) => (float[A, 4] y) {
        zero = Constant <value_ints = [0]> ()
        part = Slice(x, zero, rows)
        h = MatMul(part, w)
        g = Sigmoid(h)
        y = Softmax <axis = 0> (g) }""", [{"N": 6, "rows": [4]}, {"N": 6, "rows": [-1]}, {"N": 3, "rows": [HIGHEST]}]),
    "in_a_branch": Case("""g (float[N, 8] x, bool cut, int64[1] rows) => (float[N, 8] y) {
        y = If (cut) <then_branch = then () => (float[A, B] a) {
            zero = Constant <value_ints = [0]> ()
            one = Constant <value_ints = [1]> ()
            part = Slice(x, zero, rows)
            sum = ReduceSum(part, zero)
            a = Add(x, sum) }, else_branch = other () => (float[C, D] b) { b = Neg(x) }> }""", [
        {"N": 6, "cut": True, "rows": [4]}, {"N": 6, "cut": False, "rows": [-3]}, {"N": 6, "cut": True, "rows": [-3]}]),
    "scan_outputs": Case("""g (float[2] x, int64 count) => (float[2] last, float[A, 2] all) {
        yes = Constant <value = bool {1}> ()
        last, all = Loop(count, yes, x) <body = body (int64 i, bool going, float[2] carried)
            => (bool goes_on, float[2] next, float[2] out) {
                goes_on = Identity(going)
                next = Add(carried, carried)
                out = Neg(carried) }> }""", [{"count": 3}, {"count": 0}, {"count": 1}]),
}  # fmt: skip


def arrays(made: onnx.ModelProto, feed: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The feed's inputs, and random floats or small integers for those that it only gives the sizes of."""
    rng = np.random.default_rng(0)
    found = {}
    for v in made.graph.input:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type)
        shape = [d.dim_value if d.HasField("dim_value") else feed[d.dim_param] for d in v.type.tensor_type.shape.dim]
        drawn = rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 5, shape)
        found[v.name] = np.asarray(feed.get(v.name, drawn), dtype)
    return found


def check(engine: ingot.Engine, session: ingot.Session, case: Case) -> None:
    """An engine's session and its interpreted IR against the reference, for every feed: types, shapes and values."""
    made = case.model()
    with new_context(), ir.Location.unknown():
        module = ir.Module.parse(engine.ir_text())
        stored = {n: np.frombuffer(w.bytes_view(), DTYPES[w.dtype].np).reshape(w.shape) for n, w in engine.weights.items()}
        weights = stored | dict(evaluate_weights(module, stored))
        for feed in case.feeds:
            feeds = arrays(made, feed)
            expected = reference(made, feeds)
            interpreted = list(interpret(module, feeds, weights).values())
            for found in (session.run(None, feeds), interpreted):
                for a, b in zip(found, expected, strict=True):
                    assert a.dtype == b.dtype
                    assert a.shape == b.shape, feed
                    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_one_engine_serves_all_values(name: str) -> None:
    engine = ingot.compile(CASES[name].model())
    session = ingot.Session(engine, "cpu")
    check(engine, session, CASES[name])
    session.close()


def test_sizes_are_symbols_of_their_own() -> None:
    engine = ingot.compile(CASES["products_of_sizes_from_inputs"].model())
    assert str(engine.header.outputs[0].shape) == "(dims.parse('Slice_0'), 4)"
    assert "signed" not in engine.ir_text().replace('expression = "', "\n").partition("ingot.matmul")[2]


@pytest.mark.parametrize(("name", "feed", "message"), [
    ("reshape", {"N": 3, "to": [3, 4, 4]}, r"y: \[N, 12\] cannot be reshaped to \[to_0, to_1, to_2\].*sizes that inputs give"),
    ("reshape", {"N": 3, "to": [-2, 4, 4]}, "cannot be reshaped"),
    ("reshape", {"N": 3, "to": [-1, -1, 4]}, "cannot be reshaped"),
    ("expand", {"to": [2, 2, 4]}, "do not broadcast"),
    ("split", {"N": 2, "parts": [1, 4, 1]}, "do not add up"),
    ("split", {"N": 2, "parts": [9, -4, 2]}, "element 1 of input 1 is negative"),
    ("constant_of_shape", {"to": [2, -3]}, "element 1 of input 0 is negative"),
    ("constant_of_shape", {"to": [2**40, 2**40]}, "bytes"),
    ("tile", {"N": 2, "times": [-1, -1]}, "element 0 of input 1 is negative"),
    ("pad", {"N": 2, "by": [-1, 0, -2, 0]}, "axis 0 of the padded tensor is negative"),
    ("pad_reflect", {"N": 2, "by": [-3, -5]}, "negative"),
    ("range", {"from": 0, "to": 5, "by": 0}, "by 0"),
])  # fmt: skip
def test_values_that_are_impossible(name: str, feed: Mapping[str, Any], message: str) -> None:
    made = CASES[name].model()
    session = ingot.Session(ingot.compile(made), "cpu")
    with pytest.raises(InputError, match=message):
        session.run(None, arrays(made, feed))
    session.close()


def test_an_input_of_another_length() -> None:
    made = CASES["reshape"].model()
    session = ingot.Session(ingot.compile(made), "cpu")
    with pytest.raises(InputError, match="axis 0 is 3"):
        session.run(None, {**arrays(made, {"N": 3, "to": [3, 4, 3]}), "to": np.array([6, 6])})


def test_a_state_that_grows_beside_it() -> None:
    made = Case("""g (float[B, S, 8] x, float[B, P, 8] past, int64 keep) => (float[B, T, 8] present, float[B, K, 8] last) {
        present = Concat <axis = 1> (past, x)
        axes = Constant <value_ints = [0]> ()
        h = Softmax <axis = -1> (present)
        back = Neg(keep)
        from = Unsqueeze(back, axes)
        to = Constant <value_ints = [9223372036854775807]> ()
        axis = Constant <value_ints = [1]> ()
        last = Slice(h, from, to, axis) }""", []).model()  # fmt: skip
    session = ingot.Session(ingot.compile(made), "cpu")
    bound = session.bind(donate=True, capacity=64)
    rng, past = np.random.default_rng(0), np.zeros((2, 0, 8), np.float32)
    for t in range(5):
        x, keep = rng.standard_normal((2, 3 if t == 0 else 1, 8)).astype(np.float32), np.array(1 + t % 3)
        (last,) = bound.run(["last"], {"x": x, "keep": keep})
        past = np.concatenate([past, x], 1)
        expected = np.exp(past) / np.exp(past).sum(-1, keepdims=True)
        np.testing.assert_allclose(last, expected[:, -int(keep) :], rtol=1e-5)
    assert session.stats()["state_copies"] == 0
    assert session.get_size_elements() == {"keep": {0: "keep"}}


# Constants ------------------------------------------------------------------------------------------------------------

REDUCE = Case("g (float[N, 3, 4] x, int64[1] axes) => (float y) { y = ReduceSum <keepdims = 0> (x, axes) }", [])


def test_axes_need_a_value_when_compiling() -> None:
    with pytest.raises(ModelError, match=r"y: ReduceSum: input 1, which decides.*constants={'axes': ...}.*--constant axes="
                       ) as caught:  # fmt: skip
        ingot.compile(REDUCE.model())
    assert caught.value.constants == ("axes",)
    x = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    for axis in (0, 1, -1):
        engine = ingot.compile(REDUCE.model(), constants={"axes": [axis]})
        assert [i.name for i in engine.header.inputs] == ["x"]
        (y,) = ingot.Session(engine, "cpu").run(None, {"x": x})
        np.testing.assert_allclose(y, x.sum(axis), rtol=1e-5)


def test_constants_cannot_mend_everything() -> None:
    made = Case("""g (float[N, 3, 4] x, int64[1] axes, float[2, 2] z) => (float y, int32[2, 1] d) {
        y = ReduceSum <keepdims = 0> (x, axes)
        d = Multinomial(z) }""", []).model()  # fmt: skip
    with pytest.raises(ModelError, match=r"operator Multinomial is not supported") as caught:
        ingot.compile(made)
    assert caught.value.constants == ()


def test_an_array_of_axes_of_unknown_length() -> None:
    made = Case("g (float[N, 3] x, int64[K] axes) => (float y) { y = ReduceSum <keepdims = 0> (x, axes) }", []).model()
    with pytest.raises(ModelError) as caught:
        ingot.compile(made)
    assert caught.value.constants == ("axes",)
    (y,) = ingot.Session(ingot.compile(made, constants={"axes": [0, 1]}), "cpu").run(None, {"x": np.ones((2, 3), np.float32)})
    assert y == 6


@pytest.mark.parametrize(("constants", "message"), [
    ({"axis": [0]}, "axis: no input has this name.*x, axes"),
    ({"axes": 0}, r"axes: has shape \[\], expects \[1\]"),
    ({"axes": [0.5]}, r"axes: \[0.5\] is no int64"),
])  # fmt: skip
def test_constants_that_do_not_fit(constants: Mapping[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ingot.compile(REDUCE.model(), constants=constants)


def test_what_is_computed_from_data_is_refused() -> None:
    made = Case("""g (float[N] x, int64[4] s) => (float[A] y) {
        big = CumSum(s, s)
        y = Expand(x, big) }""", []).model()
    with pytest.raises(ModelError, match="CumSum"):
        ingot.compile(made)
