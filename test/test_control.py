"""ONNX control flow through the whole CPU path, and on the interpreter, against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import ingot
from ingot.compiler.interpreter import evaluate_weights, interpret
from ingot.dialects.mlir import ir, new_context
from ingot.errors import InputError, ModelError

RNG = np.random.default_rng(7)
WEIGHT = RNG.standard_normal((4, 4), dtype=np.float32)
START = np.array([0.0, 1.0, 2.0, 3.0], np.float32)


def graph(name: str, nodes: Sequence, outputs: Sequence[str], **types: tuple) -> onnx.GraphProto:
    """A subgraph, or with `types` of its inputs a graph; outputs are float tensors of rank 2 unless `types` names them."""
    values = {n: helper.make_tensor_value_info(n, *t) for n, t in types.items()}
    found = [values.pop(n, None) or helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, 4]) for n in outputs]
    return helper.make_graph(list(nodes), name, list(values.values()), found)


def model(nodes: Sequence, outputs: Sequence[str], **types: tuple) -> onnx.ModelProto:
    """A model over x: float[N, 4], the weight w: float[4, 4] and inputs of other types."""
    main = graph("main", nodes, outputs, x=(TensorProto.FLOAT, ["N", 4]), **types)
    main.initializer.append(onnx.numpy_helper.from_array(WEIGHT, "w"))
    made = helper.make_model(main, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return made


def check(made: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> ingot.Engine:
    """Compare all outputs, of a session and of the interpreter, with ONNX Runtime's."""
    expected = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, dict(feeds))
    engine = ingot.compile(made)
    with new_context(), ir.Location.unknown():
        module = ir.Module.parse(engine.ir_text())
        weights = {"w": WEIGHT, "start": START}
        interpreted = list(interpret(module, feeds, weights | dict(evaluate_weights(module, weights))).values())
    session = ingot.Session(engine, "cpu")
    for found in (session.run(None, dict(feeds)), interpreted):
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    session.close()
    return engine


def x(rows: int) -> np.ndarray:
    return RNG.standard_normal((rows, 4), dtype=np.float32)


CONDITION = (TensorProto.BOOL, [])


def branches() -> tuple[onnx.GraphProto, onnx.GraphProto]:
    """`then` gives x w and softmax(h), `else` relu(h) + x and h^T^T; both capture x and h."""
    then = [helper.make_node("MatMul", ["x", "w"], ["t0"]), helper.make_node("Softmax", ["h"], ["t1"])]
    other = [
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Add", ["r", "x"], ["e0"]),
        helper.make_node("Identity", ["h"], ["e1"]),
    ]
    return graph("then", then, ["t0", "t1"]), graph("else", other, ["e0", "e1"])


@pytest.mark.parametrize("taken", [True, False])
@pytest.mark.parametrize("rows", [1, 5])
def test_if_runs_the_branch_that_the_condition_names(taken: bool, rows: int) -> None:
    then, other = branches()
    nodes = [
        helper.make_node("Exp", ["x"], ["h"]),
        helper.make_node("If", ["c"], ["a", "b"], then_branch=then, else_branch=other),
        helper.make_node("Add", ["a", "b"], ["s"]),
        helper.make_node("MatMul", ["s", "w"], ["y"]),
    ]
    engine = check(model(nodes, ["y", "a"], c=CONDITION), {"x": x(rows), "c": np.array(taken)})
    assert engine.ir_text().count('"ingot.if"') == 1


@pytest.mark.parametrize("scale", [1.0, -1.0])
def test_if_on_a_computed_condition(scale: float) -> None:
    then, other = branches()
    nodes = [
        helper.make_node("Transpose", ["x"], ["xt"], perm=[1, 0]),
        helper.make_node("Transpose", ["xt"], ["h"], perm=[1, 0]),
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        helper.make_node("Constant", [], ["zero"], value_float=0.0),
        helper.make_node("Greater", ["total", "zero"], ["c"]),
        helper.make_node("If", ["c"], ["a", "b"], then_branch=then, else_branch=other),
    ]
    check(model(nodes, ["a", "b"]), {"x": np.abs(x(3)) * np.float32(scale)})


@pytest.mark.parametrize("taken", [True, False])
def test_if_on_a_constant_is_inlined(taken: bool) -> None:
    then, other = branches()
    nodes = [
        helper.make_node("Exp", ["x"], ["h"]),
        helper.make_node("Constant", [], ["c"], value=onnx.numpy_helper.from_array(np.array(taken))),
        helper.make_node("If", ["c"], ["a", "b"], then_branch=then, else_branch=other),
    ]
    engine = check(model(nodes, ["a", "b"]), {"x": x(3)})
    assert "ingot.if" not in engine.ir_text()


def test_an_inlined_branch_may_have_another_shape() -> None:
    then = graph("then", [helper.make_node("ReduceSum", ["x"], ["t"], keepdims=0)], ["t"], t=(TensorProto.FLOAT, []))
    other = graph("else", [helper.make_node("Identity", ["x"], ["e"])], ["e"])
    nodes = [
        helper.make_node("Constant", [], ["axes"], value_ints=[1]),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "axes"], ["width"]),
        helper.make_node("Equal", ["width", "axes"], ["c1"]),
        helper.make_node("Squeeze", ["c1"], ["c"]),
        helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other),
    ]
    check(model(nodes, ["y"]), {"x": x(2)})


@pytest.mark.parametrize(("outer", "inner"), [(True, True), (True, False), (False, True)])
def test_nested_if(outer: bool, inner: bool) -> None:
    then, other = branches()
    nested = [
        helper.make_node("Mul", ["h", "x"], ["m"]),
        helper.make_node("If", ["d"], ["n0", "n1"], then_branch=then, else_branch=other),
        helper.make_node("Add", ["n1", "m"], ["n2"]),
    ]
    plain = [helper.make_node("Neg", ["h"], ["p0"]), helper.make_node("Mul", ["p0", "x"], ["p2"])]
    shape = (TensorProto.FLOAT, [None, 4])
    nodes = [
        helper.make_node("Exp", ["x"], ["h"]),
        helper.make_node("If", ["c"], ["a", "b"], then_branch=graph("then", nested, ["n0", "n2"]),
                         else_branch=graph("else", plain, ["p0", "p2"])),
        helper.make_node("Sub", ["a", "b"], ["y"]),
    ]  # fmt: skip
    made = model(nodes, ["y", "b"], c=CONDITION, d=CONDITION, y=shape)
    check(made, {"x": x(3), "c": np.array(outer), "d": np.array(inner)})


def test_branches_of_different_shapes_are_refused() -> None:
    then = graph("then", [helper.make_node("Identity", ["x"], ["t"])], ["t"])
    other = graph("else", [helper.make_node("Identity", ["w"], ["e"])], ["e"])
    node = helper.make_node("If", ["c"], ["y"], name="choice", then_branch=then, else_branch=other)
    with pytest.raises(ModelError, match=r"choice.*output 0 is float\[N, 4\] in one branch and float\[4, 4\] in the other"):
        ingot.compile(model([node], ["y"], c=CONDITION))


def body(nodes: Sequence, outputs: Sequence[str], condition: str = "going", **types: tuple) -> onnx.GraphProto:
    """A loop's body: iteration `i`, condition `going`, and the carried values of `types`; gives `condition` and `outputs`."""
    inputs = [
        helper.make_tensor_value_info("i", TensorProto.INT64, []),
        helper.make_tensor_value_info("going", TensorProto.BOOL, []),
        *(helper.make_tensor_value_info(n, *t) for n, t in types.items()),
    ]
    goes_on = helper.make_node("Identity", [condition], ["goes_on"])
    found = [helper.make_tensor_value_info("goes_on", TensorProto.BOOL, [])]
    found += [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs]
    return helper.make_graph([*nodes, goes_on], "body", inputs, found)


MATRIX = (TensorProto.FLOAT, [None, 4])
COUNT = (TensorProto.INT64, [])


@pytest.mark.parametrize("trips", [0, 1, 4])
def test_loop_with_a_trip_count_input(trips: int) -> None:
    nodes = [
        helper.make_node("MatMul", ["a", "w"], ["p"]),
        helper.make_node("Tanh", ["p"], ["t"]),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["b", "f"], ["bf"]),
        helper.make_node("Add", ["bf", "h"], ["b1"]),
    ]
    loop = body(nodes, ["t", "b1"], a=MATRIX, b=MATRIX)
    main = [
        helper.make_node("Exp", ["x"], ["h"]),
        helper.make_node("Loop", ["m", "", "x", "h"], ["y", "z"], body=loop),
        helper.make_node("Add", ["y", "z"], ["s"]),
    ]
    check(model(main, ["s", "y"], m=COUNT), {"x": x(3), "m": np.array(trips)})


@pytest.mark.parametrize("trips", [1, 2, 5])
def test_loop_carries_values_that_change_places(trips: int) -> None:
    loop = body([helper.make_node("Identity", [n], [f"{n}1"]) for n in "ab"], ["b1", "a1"], a=MATRIX, b=MATRIX)
    main = [helper.make_node("Exp", ["x"], ["h"]), helper.make_node("Loop", ["m", "", "x", "h"], ["y", "z"], body=loop)]
    check(model(main, ["y", "z"], m=COUNT), {"x": x(3), "m": np.array(trips)})


@pytest.mark.parametrize("limit", [-1.0, 5.0, 1e9])
@pytest.mark.parametrize("with_count", [True, False])
def test_loop_that_ends_early(limit: float, with_count: bool) -> None:
    nodes = [
        helper.make_node("Add", ["a", "a"], ["d"]),
        helper.make_node("ReduceSum", ["d"], ["total"], keepdims=0),
        helper.make_node("Less", ["total", "limit"], ["less"]),
    ]
    loop = body(nodes, ["d"], "less", a=MATRIX)
    count = "m" if with_count else ""
    main = [helper.make_node("Exp", ["x"], ["h"]), helper.make_node("Loop", [count, "c", "h"], ["y"], body=loop)]
    types = {"limit": (TensorProto.FLOAT, []), "c": CONDITION} | ({"m": COUNT} if with_count else {})
    feeds = {"x": x(2), "limit": np.array(limit, np.float32), "c": np.array(True)} | ({"m": np.array(6)} if with_count else {})
    check(model(main, ["y"], **types), feeds)
    check(model(main, ["y"], **types), feeds | {"c": np.array(False)})


def test_loop_scans_rows_of_an_input() -> None:
    nodes = [
        helper.make_node("Gather", ["h", "i"], ["row"], axis=0),
        helper.make_node("Add", ["a", "row"], ["sum"]),
        helper.make_node("MatMul", ["sum", "w"], ["out"]),
    ]
    loop = body(nodes, ["sum", "out"], a=(TensorProto.FLOAT, [4]))
    main = [
        helper.make_node("Exp", ["x"], ["h"]),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Constant", [], ["zero"], value_int=0),
        helper.make_node("Gather", ["shape", "zero"], ["m"]),
        helper.make_node("Constant", [], ["start"], value_floats=START.tolist()),
        helper.make_node("Loop", ["m", "", "start"], ["last", "y"], body=loop),
        helper.make_node("Relu", ["y"], ["r"]),
    ]
    check(model(main, ["r", "y"]), {"x": x(5)})


@pytest.mark.parametrize("trips", [3])
def test_if_in_a_loop(trips: int) -> None:
    then = graph("then", [helper.make_node("Mul", ["a", "h"], ["t"])], ["t"])
    other = graph("else", [helper.make_node("Add", ["a", "h"], ["e"])], ["e"])
    nodes = [
        helper.make_node("Mod", ["i", "two"], ["odd"]),
        helper.make_node("Cast", ["odd"], ["is_odd"], to=TensorProto.BOOL),
        helper.make_node("If", ["is_odd"], ["b"], then_branch=then, else_branch=other),
    ]
    main = [
        helper.make_node("Constant", [], ["two"], value_int=2),
        helper.make_node("Exp", ["x"], ["h"]),
        helper.make_node("Loop", ["m", "", "x"], ["y"], body=body(nodes, ["b"], a=MATRIX)),
    ]
    check(model(main, ["y"], m=COUNT), {"x": x(2), "m": np.array(trips)})


def test_loops_that_grow_are_refused() -> None:
    grow = body([helper.make_node("Concat", ["a", "a"], ["b"], axis=0)], ["b"], a=MATRIX)
    scan = body([helper.make_node("Exp", ["a"], ["b"]), helper.make_node("Neg", ["a"], ["s"])], ["b", "s"], a=MATRIX)
    for loop, outputs, message in ((grow, ["y"], "carried value 0 is"), (scan, ["y", "z"], "length of its scan outputs")):
        node = helper.make_node("Loop", ["m", "", "x"], outputs, name="repeat", body=loop)
        with pytest.raises(ModelError, match=f"repeat.*{message}"):
            ingot.compile(model([node], ["y"], m=COUNT))


def test_guards_of_a_branch_count_only_where_it_runs() -> None:
    then = graph("then", [helper.make_node("MatMul", ["x", "v"], ["t"])], ["t"])
    other = graph("else", [helper.make_node("Neg", ["x"], ["e"])], ["e"])
    nodes = [
        helper.make_node("If", ["c"], ["a"], then_branch=then, else_branch=other),
        helper.make_node("Exp", ["a"], ["y"]),
    ]
    made = model(nodes, ["y"], c=CONDITION, v=(TensorProto.FLOAT, ["K", 4]))
    feeds = {"x": x(3), "c": np.array(True), "v": x(4)}
    check(made, feeds)
    check(made, feeds | {"c": np.array(False), "v": x(5)})
    with pytest.raises(InputError, match="K"):
        ingot.Session(ingot.compile(made), "cpu").run(None, feeds | {"v": x(5)})
