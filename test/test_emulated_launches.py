"""Kernels of ONNX operators on the emulator, on the operands that models give them: as they are, and for any shape."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from emulated_launches import Launches, check_elements, compare, recorded, with_named_sizes
from onnx import helper

from ingot import backend

RNG = np.random.default_rng(0)


def floats(*shape: int, dtype: str = "float32") -> np.ndarray:
    return RNG.standard_normal(shape).astype(dtype)


# An operator, inputs (weights too), attributes: sizes of 1, 2 and 3, types that kernels seldom meet, elements that are indices.
CASES = {
    "averagepool": ("AveragePool", [floats(1, 1, 4, 4)], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    "maxpool": ("MaxPool", [floats(2, 3, 5, 7)], {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "softmax of f64": ("Softmax", [floats(2, 3, 5, dtype="float64")], {"axis": 1}),
    "log_softmax": ("LogSoftmax", [floats(2, 33, dtype="float16")], {}),
    "layer": ("LayerNormalization", [floats(3, 2, 5), floats(5), floats(5)], {}),
    "instance": ("InstanceNormalization", [floats(2, 3, 3, 5), floats(3), floats(3)], {}),
    "conv": ("Conv", [floats(1, 3, 5, 5), floats(2, 3, 3, 3), floats(2)], {"strides": [2, 2]}),
    "depthwise": ("Conv", [floats(1, 3, 5, 5, dtype="float16"), floats(3, 1, 3, 3, dtype="float16")], {"group": 3}),
    "transposed": ("ConvTranspose", [floats(1, 2, 3, 3), floats(2, 3, 2, 2)], {"strides": [2, 2]}),
    "matmul": ("MatMul", [floats(2, 3, 1), floats(1, 5)], {}),
    "matmul of f16": ("MatMul", [floats(3, 17, 8, dtype="float16"), floats(3, 8, 24, dtype="float16")], {}),
    "gather": ("GatherElements", [floats(3, 4), np.array([[2, -1, 0], [0, 3, 1], [-4, 1, 1]])], {"axis": 1}),
    "scatter": ("ScatterElements", [floats(5, 3), np.array([[4, 0, -5]]), floats(1, 3)], {"axis": 0}),
    "scatter with sums": ("ScatterND", [floats(4, 2), np.array([[1], [1], [3]]), floats(3, 2)], {"reduction": "add"}),
    "topk": ("TopK", [floats(2, 7), np.array([3])], {"axis": 1}),
    "cumsum": ("CumSum", [floats(2, 5, dtype="float64"), np.array(1)], {"exclusive": 1, "reverse": 1}),
    "reduce of i64": ("ReduceMax", [RNG.integers(-9, 9, (3, 1, 5)), np.array([0, 2])], {"keepdims": 0}),
    "argmax": ("ArgMax", [floats(2, 3, 4)], {"axis": 1, "select_last_index": 1}),
    "where of bool": ("Where", [floats(3, 1) > 0, floats(1, 5, dtype="float64"), floats(1, dtype="float64")], {}),
    "cast": ("Cast", [floats(3, 7)], {"to": onnx.TensorProto.UINT8, "saturate": 1}),
    "quantize": ("QuantizeLinear", [floats(3, 5), np.float32(0.05).reshape(()), np.array(3, np.uint8)], {}),
    "resize": ("Resize", [floats(1, 1, 3, 5), np.array([]), np.array([1, 1, 2, 1.5], np.float32)], {"mode": "linear"}),
    "slice": ("Slice", [floats(5, 7), np.array([4, 6]), np.array([-9, 0]), np.array([0, 1]), np.array([-1, -2])], {}),
}
# Inputs that are weights.
CONSTANT = {
    "conv": [1, 2], "depthwise": [1], "transposed": [1], "topk": [1], "cumsum": [1], "reduce of i64": [1],
    "resize": [2], "slice": [1, 2, 3, 4], "quantize": [1, 2],
}  # fmt: skip


def model_of(name: str) -> tuple[onnx.ModelProto, list[np.ndarray]]:
    """A model of one operator, and its inputs."""
    op, arrays, attributes = CASES[name]
    names = [f"x{i}" if a.size or op != "Resize" else "" for i, a in enumerate(arrays)]
    weights = [onnx.numpy_helper.from_array(arrays[i], names[i]) for i in CONSTANT.get(name, [])]
    given = [i for i, n in enumerate(names) if n and i not in CONSTANT.get(name, [])]
    types = [helper.np_dtype_to_tensor_dtype(a.dtype) for a in arrays]
    infos = [helper.make_tensor_value_info(names[i], types[i], arrays[i].shape) for i in given]
    outputs = ["y", "z"] if op == "TopK" else ["y"]
    node = helper.make_node(op, names, outputs, **attributes)
    graph = helper.make_graph([node], op, infos, [onnx.ValueInfoProto(name=n) for n in outputs], weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return onnx.shape_inference.infer_shapes(made), [arrays[i] for i in given]


@pytest.fixture(scope="module", params=["sm_90a", "sm_75"])
def launches(request: pytest.FixtureRequest) -> Iterator[tuple[str, Launches]]:
    with recorded(request.param) as found:
        yield request.param, found


@pytest.mark.parametrize("name", CASES)
def test_an_operator(name: str, launches: tuple[str, Launches]) -> None:
    target, found = launches
    model, inputs = model_of(name)
    for made in (model, with_named_sizes(model)):
        backend.prepare(made, "CUDA:0").run(inputs)
        for launch in found.take():
            compare(launch, target)


def test_what_differs_is_found() -> None:
    x = floats(3, 5)
    check_elements(x, x, x)
    for at, value in (((2, 3), x[2, 3] + 1e-4), ((0, 0), np.nan)):
        y = x.copy()
        y[at] = value
        with pytest.raises(AssertionError, match="1 of 15"):
            check_elements(y, x, x)
    whole = np.arange(6)
    with pytest.raises(AssertionError, match="1 of 6 integers"):
        check_elements(np.array([0, 1, 2, 3, 4, 6]), whole, whole)
    check_elements(np.array([0, 1, 2, 3, 4, 6]), whole, whole, rounds=True)
