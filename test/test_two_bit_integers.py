"""2-bit integers, which an engine holds in 4: as inputs and outputs, as weights of products, in files, and in a refit."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import ingot
from ingot.compiler.exporter import save_model
from ingot.compiler.importer import import_model
from ingot.compiler.weights import WeightSource, from_onnx_bytes, to_onnx_bytes
from ingot.dialects.mlir import new_context

TYPES = {"int2": (TensorProto.INT2, ml_dtypes.int2, -2), "uint2": (TensorProto.UINT2, ml_dtypes.uint2, 0)}


def codes(name: str, *shape: int) -> np.ndarray:
    _, dtype, least = TYPES[name]
    return np.random.default_rng(sum(shape)).integers(least, least + 4, shape).astype(np.int8).astype(dtype)


def info(name: str, code: int, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, code, shape)


def modelled(graph: onnx.GraphProto) -> onnx.ModelProto:
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 26)], ir_version=12)


def product(name: str, k: int = 37, n: int = 23) -> tuple[onnx.ModelProto, np.ndarray]:
    """y = x @ dequantized w, and w's codes [k, n]."""
    w = codes(name, k, n)
    values = {"w": w, "scale": np.float32(0.25), "zero": np.array(1, w.dtype)}
    nodes = [helper.make_node("DequantizeLinear", list(values), ["d"]), helper.make_node("MatMul", ["x", "d"], ["y"])]
    infos = [info("x", TensorProto.FLOAT, "N", k), info("y", TensorProto.FLOAT, "N", n)]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], [numpy_helper.from_array(a, v) for v, a in values.items()])
    return modelled(graph), w


def expected(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    return x @ ((w.astype(np.float32) - 1) * np.float32(0.25))


X = np.random.default_rng(1).standard_normal((5, 37)).astype(np.float32)


@pytest.mark.parametrize("name", TYPES)
def test_a_product_with_a_weight(name: str, tmp_path: Path) -> None:
    model, w = product(name)
    engine = ingot.compile(model)
    assert ("i4", (37, 23)) in {(x.dtype, x.shape) for x in engine.weights.values()}
    (y,) = ingot.Session(engine, device="cpu").run(None, {"x": X})
    np.testing.assert_allclose(y, expected(X, w), rtol=1e-5, atol=1e-5)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0)
    (z,) = ingot.Session(ingot.compile(tmp_path / "m.onnx"), device="cpu").run(None, {"x": X})
    assert np.array_equal(y, z)


@pytest.mark.parametrize("name", TYPES)
def test_a_refit(name: str, tmp_path: Path) -> None:
    model, w = product(name)
    ingot.compile(model).save(tmp_path / "m.ingot", weights=False)
    onnx.save(model, tmp_path / "m.onnx")
    other = w.astype(np.int8)[::-1].astype(w.dtype)
    arrays = {"w": other, "scale": np.array(0.25, np.float32), "zero": np.array(1, w.dtype)}
    for sources, weight in ((tmp_path / "m.onnx", w), (arrays, other)):
        engine = ingot.Engine.load(tmp_path / "m.ingot").refit(sources)
        (y,) = ingot.Session(engine, device="cpu").run(None, {"x": X})
        np.testing.assert_allclose(y, expected(X, weight), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", TYPES)
def test_casts(name: str) -> None:
    """To 2 bits the lowest remain; from them, numbers keep their sign."""
    code, dtype, _ = TYPES[name]
    casts = {"q": ("x", code), "y": ("q", TensorProto.FLOAT), "r": ("i", code), "z": ("r", TensorProto.INT64)}
    nodes = [helper.make_node("Cast", [x], [y], to=to) for y, (x, to) in casts.items()]
    inputs = [info("x", TensorProto.FLOAT, "N"), info("i", TensorProto.INT32, "N")]
    graph = helper.make_graph(nodes, "g", inputs, [info(y, casts[y][1], "N") for y in ("q", "y", "z")])
    x, i = np.arange(-3, 4).astype(np.float32), np.arange(-7, 7, 2).astype(np.int32)
    q, y, z = ingot.Session(ingot.compile(modelled(graph)), device="cpu").run(None, {"x": x, "i": i})
    assert q.dtype == dtype
    assert np.array_equal(q.astype(np.int8), x.astype(dtype).astype(np.int8))
    assert np.array_equal(y, q.astype(np.float32))
    assert np.array_equal(z, i.astype(np.int8).astype(dtype).astype(np.int64))


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_bytes_of_onnx(name: str, count: int) -> None:
    array = codes(name, count)
    tensor = numpy_helper.from_array(array)
    source = WeightSource.from_array(array)
    assert to_onnx_bytes(source).tobytes() == tensor.raw_data
    data = from_onnx_bytes(np.frombuffer(tensor.raw_data, np.uint8), source.onnx_type, count)
    assert np.array_equal(data, source.bytes())
    assert np.array_equal(WeightSource(source.onnx_type, (count,), lambda: data).array(), array)


def test_a_model_is_exported_as_it_was(tmp_path: Path) -> None:
    model, w = product("int2")
    imported = import_model(model, context=new_context(onnx=True))
    save_model(imported.module, imported.weights, tmp_path / "m.onnx")
    (tensor,) = [t for t in onnx.load(tmp_path / "m.onnx").graph.initializer if t.name == "w"]
    assert np.array_equal(numpy_helper.to_array(tensor), w)


def test_another_reading_of_the_bits_is_refused() -> None:
    node = helper.make_node("BitCast", ["x"], ["y"], to=TensorProto.INT2, name="b")
    graph = helper.make_graph([node], "g", [info("x", TensorProto.UINT2, 4)], [info("y", TensorProto.INT2, 4)])
    with pytest.raises(ingot.errors.ModelError, match="b: BitCast: reinterpreting uint2 as int2 is not supported"):
        ingot.compile(modelled(graph))
