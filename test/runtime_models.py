"""Small ONNX models for the tests of sessions."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def model(nodes: list, inputs: dict, outputs: dict, weights: dict[str, np.ndarray] | None = None) -> onnx.ModelProto:
    """A model; inputs and outputs are {name: (element type, shape)}."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(n, t, s) for n, (t, s) in inputs.items()],
        [helper.make_tensor_value_info(n, t, s) for n, (t, s) in outputs.items()],
        [numpy_helper.from_array(a, n) for n, a in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


F = TensorProto.FLOAT
WEIGHT = np.random.default_rng(0).standard_normal((16, 24), dtype=np.float32)
BIAS = np.random.default_rng(1).standard_normal(24, dtype=np.float32)


def perceptron() -> onnx.ModelProto:
    """y = relu(x @ WEIGHT + BIAS), s = the sum of x along its last axis; x is [N, S, 16]."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("Add", ["p", "b"], ["q"]),
        helper.make_node("Relu", ["q"], ["y"]),
        helper.make_node("ReduceSum", ["x", "last"], ["s"], keepdims=0),
    ]
    weights = {"w": WEIGHT, "b": BIAS, "last": np.array([-1], np.int64)}
    return model(nodes, {"x": (F, ["N", "S", 16])}, {"y": (F, ["N", "S", 24]), "s": (F, ["N", "S"])}, weights)


def perceptron_reference(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What `perceptron` computes."""
    return np.maximum(x @ WEIGHT + BIAS, 0), x.sum(-1)


def accumulator() -> onnx.ModelProto:
    """A state that grows: present = concat(past, new) along axis 2, mean = the mean of present along it."""
    nodes = [
        helper.make_node("Concat", ["past", "new"], ["present"], axis=2),
        helper.make_node("ReduceMean", ["present", "axes"], ["mean"], keepdims=0),
    ]
    shapes = {"past": (F, ["B", 2, "P", 4]), "new": (F, ["B", 2, "S", 4])}
    return model(nodes, shapes, {"present": (F, ["B", 2, "T", 4]), "mean": (F, ["B", 2, 4])}, {"axes": np.array([2], np.int64)})


def sum_of_two() -> onnx.ModelProto:
    """z = x + y with sizes that only have to broadcast: [N, 3] and [M, 3]."""
    nodes = [helper.make_node("Add", ["x", "y"], ["z"])]
    return model(nodes, {"x": (F, ["N", 3]), "y": (F, ["M", 3])}, {"z": (F, [None, 3])})


def outer() -> onnx.ModelProto:
    """z[i, j] = x[i] * y[j]: its size is the product of the inputs' sizes."""
    nodes = [helper.make_node("Unsqueeze", ["x", "one"], ["c"]), helper.make_node("Mul", ["c", "y"], ["z"])]
    return model(nodes, {"x": (F, ["N"]), "y": (F, ["M"])}, {"z": (F, ["N", "M"])}, {"one": np.array([1], np.int64)})
