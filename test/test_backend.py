"""`ingot.backend` as ONNX's own test suite uses it."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

import ingot.backend as backend
from ingot.errors import ModelError


def test_a_model_runs_by_position_and_by_name():
    node = helper.make_node("Sub", ["a", "b"], ["c"])
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N"]) for n in "ab"]
    graph = helper.make_graph([node], "g", infos, [helper.make_tensor_value_info("c", TensorProto.FLOAT, ["N"])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    rep = backend.prepare(model, "CPU")
    a, b = np.arange(5, dtype=np.float32), np.ones(5, np.float32)
    assert np.array_equal(rep.run([a, b]).c, a - b)
    assert np.array_equal(rep.run({"a": a, "b": b})[0], a - b)


@pytest.mark.parametrize(
    ("op_type", "inputs", "attributes", "expected"),
    [
        ("Relu", [np.array([-1.0, 2.0], np.float32)], {}, np.array([0.0, 2.0], np.float32)),
        ("Softmax", [np.zeros((2, 4), np.float32)], {"axis": 1}, np.full((2, 4), 0.25, np.float32)),
        ("Transpose", [np.arange(6, dtype=np.int64).reshape(2, 3)], {"perm": [1, 0]}, np.arange(6).reshape(2, 3).T),
    ],
)
def test_a_node_runs(op_type, inputs, attributes, expected):
    names = [f"x{i}" for i in range(len(inputs))]
    (result,) = backend.run_node(helper.make_node(op_type, names, ["y"], **attributes), inputs, opset_version=17)
    assert result.dtype == expected.dtype
    assert np.allclose(result, expected)


def test_devices():
    assert backend.supports_device("CPU")
    assert not backend.supports_device("TPU")
    assert not backend.supports_device("CUDA:99")


def test_what_is_not_supported_names_the_node():
    node = helper.make_node("StringNormalizer", ["x"], ["y"], name="normalizer")
    infos = [helper.make_tensor_value_info("x", TensorProto.STRING, [2])]
    graph = helper.make_graph([node], "g", infos, [helper.make_tensor_value_info("y", TensorProto.STRING, [None])])
    with pytest.raises(ModelError, match="normalizer"):
        backend.prepare(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))


def test_inputs_that_choose_axes_are_compiled_for():
    infos = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3]),
        helper.make_tensor_value_info("axes", TensorProto.INT64, [1]),
        helper.make_tensor_value_info("to", TensorProto.INT64, [2]),
    ]
    nodes = [
        helper.make_node("ReduceSum", ["x", "axes"], ["s"], keepdims=1),
        helper.make_node("Expand", ["s", "to"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", infos, [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None])])
    rep = backend.prepare(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    for axis, to in ((0, [4, 3]), (1, [2, 5]), (1, [2, 1]), (0, [1, 3])):
        expected = np.broadcast_to(x.sum(axis, keepdims=True), to)
        assert np.array_equal(rep.run({"x": x, "axes": np.array([axis]), "to": np.array(to)}).y, expected)
    assert len(rep._sessions) == 2  # one for each axis, none for the sizes


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_onnx_itself_accepts_the_backend():
    from onnx.backend.test import BackendTest

    wanted = ("test_relu_cpu", "test_matmul_2d_cpu")
    suite = BackendTest(backend, __name__)
    cases = [getattr(c(name), name) for c in suite.test_cases.values() for name in wanted if hasattr(c, name)]
    assert len(cases) == len(wanted)
    for case in cases:
        case()
