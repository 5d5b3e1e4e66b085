"""A transformer's layer in the CUDA runtime, on a GPU whose kernels are numpy's: merged projections, heads that are written
merged, kernels that layers share."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from fake_cuda import FakeDriver, install
from numpy_gpu import NumpyGpu
from onnx import TensorProto, helper, numpy_helper

import ingot
from ingot.dispatch import Dispatch

HEADS, DEPTH = 2, 64
WIDTH = HEADS * DEPTH


@pytest.fixture(autouse=True)
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    return install(monkeypatch)


def layer() -> onnx.ModelProto:
    """Self attention with projections, and feed-forward layers: x [B, S, 128]."""
    rng = np.random.default_rng(3)
    weights: dict[str, np.ndarray] = {
        "split": np.array([0, 0, HEADS, DEPTH], np.int64), "merge": np.array([0, 0, WIDTH], np.int64),
        "scale": np.array(DEPTH**-0.5, np.float32),
    }  # fmt: skip
    nodes = []

    def node(op: str, *inputs: str, out: str, **attrs: object) -> str:
        nodes.append(helper.make_node(op, inputs, [out], name=out, **attrs))
        return out

    def linear(x: str, name: str, k: int, n: int) -> str:
        weights[f"{name}.w"] = rng.standard_normal((k, n), dtype=np.float32) * k**-0.5
        weights[f"{name}.b"] = rng.standard_normal(n, dtype=np.float32)
        return node("Add", node("MatMul", x, f"{name}.w", out=f"{name}.product"), f"{name}.b", out=name)

    def heads(x: str, perm: list[int]) -> str:
        return node("Transpose", node("Reshape", x, "split", out=f"{x}.split"), out=f"{x}.heads", perm=perm)

    q = heads(node("Mul", linear("x", "q", WIDTH, WIDTH), "scale", out="scaled"), [0, 2, 1, 3])
    k, v = heads(linear("x", "k", WIDTH, WIDTH), [0, 2, 3, 1]), heads(linear("x", "v", WIDTH, WIDTH), [0, 2, 1, 3])
    p = node("Softmax", node("MatMul", q, k, out="scores"), out="p", axis=-1)
    merged = node("Transpose", node("MatMul", p, v, out="mixed"), out="turned", perm=[0, 2, 1, 3])
    attended = linear(node("Reshape", merged, "merge", out="merged"), "o", WIDTH, WIDTH)
    wide = node("Relu", linear(linear(attended, "mid", WIDTH, 2 * WIDTH), "up", 2 * WIDTH, 2 * WIDTH), out="relu")
    node("Add", linear(wide, "down", 2 * WIDTH, WIDTH), "x", out="y")
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["B", "S", WIDTH]) for n in ("x", "y")]
    tensors = [numpy_helper.from_array(w, n) for n, w in weights.items()]
    graph = helper.make_graph(nodes, "layer", values[:1], values[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def launched(gpu: NumpyGpu) -> list[Dispatch]:
    return list(gpu.dispatches.values())


@pytest.mark.parametrize("mode", ["none", "lazy", "eager"])
def test_a_layer(mode: str, driver: FakeDriver) -> None:
    made = layer()
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    gpu = NumpyGpu(ingot.compile(made), driver, mode)
    roots = [d.root for d in launched(gpu)]
    assert "move" not in roots  # heads are merged where they are written
    # One product makes queries, keys and values; "o" and "mid" differ in sizes alone.
    assert sorted(roots) == ["attention", *["matmul"] * (5 if mode == "none" else 4)]
    rng = np.random.default_rng(4)
    for shape in ((1, 5), (2, 7), (2, 7), (2, 7)):
        x = rng.standard_normal((*shape, WIDTH), dtype=np.float32)
        (y,) = gpu.run({"x": x})
        np.testing.assert_allclose(y, session.run(None, {"x": x})[0], rtol=1e-4, atol=1e-4)
