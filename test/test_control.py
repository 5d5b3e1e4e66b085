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
from ingot.errors import ModelError

RNG = np.random.default_rng(7)
WEIGHT = RNG.standard_normal((4, 4), dtype=np.float32)


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
        weights = {"w": WEIGHT}
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
    then = graph("then", [helper.make_node("Squeeze", ["x", "axes"], ["t"])], ["t"], t=(TensorProto.FLOAT, None))
    other = graph("else", [helper.make_node("Identity", ["x"], ["e"])], ["e"], e=(TensorProto.FLOAT, None))
    nodes = [
        helper.make_node("Constant", [], ["axes"], value_ints=[1]),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "axes"], ["width"]),
        helper.make_node("Equal", ["width", "axes"], ["c1"]),
        helper.make_node("Squeeze", ["c1"], ["c"]),
        helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other),
    ]
    check(model(nodes, ["y"], y=(TensorProto.FLOAT, None)), {"x": x(2)})


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
