"""ONNX control flow through the whole CPU path, and on the interpreter, against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from control_models import (
    CONDITION,
    COUNT,
    MATRIX,
    MODELS,
    WEIGHTS,
    Feeds,
    body,
    branches,
    graph,
    guard_in_a_branch,
    model,
    reference,
    scan,
    x,
)
from onnx import TensorProto, helper

import ingot
from ingot.compiler.interpreter import evaluate_weights, interpret
from ingot.dialects.mlir import ir, new_context
from ingot.errors import InputError, ModelError


def check(made: onnx.ModelProto, feeds: Feeds) -> ingot.Engine:
    """Compare all outputs, of a session and of the interpreter, with ONNX Runtime's."""
    expected = reference(made, feeds)
    engine = ingot.compile(made)
    with new_context(), ir.Location.unknown():
        module = ir.Module.parse(engine.ir_text())
        interpreted = list(interpret(module, feeds, WEIGHTS | dict(evaluate_weights(module, WEIGHTS))).values())
    session = ingot.Session(engine, "cpu")
    for found in (session.run(None, dict(feeds)), interpreted):
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    session.close()
    return engine


@pytest.mark.parametrize("name", MODELS)
def test_model_on_every_way_through_it(name: str) -> None:
    made, feeds = MODELS[name]()
    for feed in feeds:
        engine = check(made, feed)
    assert "ingot.if" in engine.ir_text() or "ingot.loop" in engine.ir_text()


def test_passes_run_in_regions() -> None:
    text = ingot.compile(MODELS["networks_in_regions"]()[0]).ir_text()
    loop, _, branch = text.partition('"ingot.if"')
    assert 'kind = "rms"' in loop
    assert '"ingot.attention"' in loop
    assert loop.count('"ingot.matmul"') == 1
    assert '{name = "kernel#1"}' in branch  # scaled by the batch normalization
    assert "ingot.sqrt" not in branch.partition('sym_name = "main"')[0]


@pytest.mark.parametrize("seed", range(12))
def test_random_loops(seed: int) -> None:
    """What is carried is read, replaced and passed on in any order: no value is overwritten before its last reader."""
    rng = np.random.default_rng(seed)
    values, nodes = ["a", "b", "c"], []
    for i in range(rng.integers(1, 7)):
        first, second = rng.choice(values, 2)
        kind = rng.choice(["Add", "Max", "Neg", "MatMul", "Transpose", "Softmax"])
        if kind == "Transpose":
            nodes.append(helper.make_node("Transpose", [first], [f"t{i}"], perm=[1, 0]))
            nodes.append(helper.make_node("Sub", [f"t{i}", second], [f"v{i}"]))
        else:
            inputs = {"Neg": [first], "Softmax": [first], "MatMul": [first, "w"]}.get(kind, [first, second])
            nodes.append(helper.make_node(kind, inputs, [f"v{i}"]))
        values.append(f"v{i}")
    given = [f"r{i}" for i in range(3)]
    nodes += [helper.make_node("Identity", [str(v)], [r]) for v, r in zip(rng.choice(values, 3), given, strict=True)]
    loop = body(nodes, given, **{n: (TensorProto.FLOAT, [4, 4]) for n in "abc"})
    main = [
        helper.make_node("MatMul", ["w", "w"], ["ww"]),
        helper.make_node("Loop", ["m", "", "w", "ww", "w"], ["y0", "y1", "y2"], body=loop),
        helper.make_node("MatMul", ["x", "y0"], ["y"]),
    ]
    made = model(main, ["y", "y1", "y2"], m=COUNT)
    for trips in (1, 2, 3):
        check(made, {"x": x(2), "m": np.array(trips)})


def test_profiles_count_the_runs_of_a_loop() -> None:
    made, feeds = MODELS["loop_with_a_trip_count_input"]()
    session = ingot.Session(ingot.compile(made), "cpu")
    for trips in (0, 4):
        feed = feeds[0] | {"m": np.array(trips)}
        expected = session.run(None, feed)
        rows = {row["node"]: row for row in session.profile(feed)}
        assert rows["Add_2"]["runs"] == 1
        assert ("MatMul_0+Tanh_1" in rows) == (trips > 0)
        assert trips == 0 or rows["MatMul_0+Tanh_1"]["runs"] == trips
        assert all(row["ms"] > 0 for row in rows.values())
        np.testing.assert_array_equal(session.run(None, feed)[0], expected[0])
    session.close()


TOLERANCES = {"fp16": 2e-3, "bf16": 2e-2}


@pytest.mark.parametrize("cast", TOLERANCES)
@pytest.mark.parametrize("name", MODELS)
def test_cast_models(name: str, cast: str) -> None:
    made, feeds = MODELS[name]()
    session = ingot.Session(ingot.compile(made, cast=cast), "cpu")
    for feed in feeds:
        for found, expected in zip(session.run(None, dict(feed)), reference(made, feed), strict=True):
            assert found.dtype == expected.dtype
            assert np.abs(found - expected).max() <= TOLERANCES[cast] * np.abs(expected).max()
    session.close()


def test_what_a_loop_carries_is_not_rounded_in_every_iteration() -> None:
    """A sum of ones stands still at 2048 in fp16, at 256 in bf16."""
    loop = body([helper.make_node("Add", ["a", "one"], ["b"])], ["b"], a=MATRIX)
    main = [
        helper.make_node("Constant", [], ["one"], value_float=1.0),
        helper.make_node("Loop", ["m", "", "x"], ["y"], body=loop),
        helper.make_node("Exp", ["x"], ["z"]),
    ]
    session = ingot.Session(ingot.compile(model(main, ["y", "z"], m=COUNT), cast="bf16"), "cpu")
    y, _ = session.run(None, {"x": np.zeros((1, 4), np.float32), "m": np.array(3000)})
    assert np.all(y == 3000)


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


def test_branches_of_different_shapes_are_refused() -> None:
    then = graph("then", [helper.make_node("Identity", ["x"], ["t"])], ["t"])
    other = graph("else", [helper.make_node("Identity", ["w"], ["e"])], ["e"])
    node = helper.make_node("If", ["c"], ["y"], name="choice", then_branch=then, else_branch=other)
    with pytest.raises(ModelError, match=r"choice.*output 0 is float\[N, 4\] in one branch and float\[4, 4\] in the other"):
        ingot.compile(model([node], ["y"], c=CONDITION))


def test_loops_that_grow_are_refused() -> None:
    grow = body([helper.make_node("Concat", ["a", "a"], ["b"], axis=0)], ["b"], a=MATRIX)
    scan = body([helper.make_node("Exp", ["a"], ["b"]), helper.make_node("Neg", ["a"], ["s"])], ["b", "s"], a=MATRIX)
    for loop, outputs, message in ((grow, ["y"], "carried value 0 is"), (scan, ["y", "z"], "length of its scan outputs")):
        node = helper.make_node("Loop", ["m", "c", "x"], outputs, name="repeat", body=loop)
        with pytest.raises(ModelError, match=f"repeat.*{message}"):
            ingot.compile(model([node], ["y"], m=COUNT, c=CONDITION))


def test_scans_that_are_refused() -> None:
    concat = [helper.make_node("Concat", ["s", "s"], ["s1"], axis=0)]
    negated = [helper.make_node("Neg", ["s"], ["s1"])]
    takes = {"s": MATRIX, "row": (TensorProto.FLOAT, [4])}
    cases = [
        (scan(1, ["x", "x"], ["y"], concat, ["s1"], takes), "carried value 0 is"),
        (scan(1, ["x", "x"], ["y"], negated, ["s1"], takes, scan_input_axes=[2]), "axis 2 is out"),
        (scan(1, ["x", "x"], ["y"], [helper.make_node("NonZero", ["s"], ["s1"])], ["s1"], takes), "NonZero"),
    ]
    for node, message in cases:
        node.name = "walk"
        with pytest.raises(ModelError, match=message):
            ingot.compile(model([node], ["y"]))


def test_scan_of_opset_8_is_refused() -> None:
    inner = helper.make_graph(
        [helper.make_node("Add", ["s", "row"], ["s1"]), helper.make_node("Neg", ["s1"], ["o"])],
        "body",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [4]) for n in ("s", "row")],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [4]) for n in ("s1", "o")],
    )
    node = helper.make_node("Scan", ["", "a", "b"], ["y", "z"], name="walk", num_scan_inputs=1, body=inner)
    values = {n: helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in "yz"}
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("a", [1, 4]), ("b", [1, 3, 4]))]
    main = helper.make_graph([node], "main", inputs, list(values.values()))
    made = helper.make_model(main, opset_imports=[helper.make_opsetid("", 8)], ir_version=4)
    with pytest.raises(ModelError, match=r"walk.*version 8 has a batch axis.*export with opset 9"):
        ingot.compile(made)


def test_guards_of_a_branch_count_only_where_it_runs() -> None:
    made, feeds = guard_in_a_branch()
    with pytest.raises(InputError, match="K"):
        ingot.Session(ingot.compile(made), "cpu").run(None, feeds[0] | {"v": x(5)})
