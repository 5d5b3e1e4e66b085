"""Stripped engines and refit: new weights, and what the weights program derives from them, with the same bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from runtime_models import F, model, perceptron, perceptron_reference, sum_of_two

import ingot
from ingot.errors import EngineError


def normalized(scale: float = 1.0) -> onnx.ModelProto:
    """A convolution with a weight that is scaled in the graph, so that its product is derived."""
    rng = np.random.default_rng(3)
    weights = {
        "w": (scale * rng.standard_normal((32, 3, 3, 3))).astype(np.float32),
        "s": rng.standard_normal((32, 1, 1, 1)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Mul", ["w", "s"], ["ws"]),
        helper.make_node("Conv", ["x", "ws"], ["y"], pads=[1, 1, 1, 1]),
    ]
    return model(nodes, {"x": (F, ["N", 3, 8, 8])}, {"y": (F, ["N", 32, 8, 8])}, weights)


def test_refit_from_a_model_gives_the_same_file(tmp_path: Path) -> None:
    file = tmp_path / "m.onnx"
    onnx.save(normalized(), file)
    engine = ingot.compile(file)
    engine.save(tmp_path / "full.ingot")
    engine.save(tmp_path / "bare.ingot", weights=False)
    bare = ingot.Engine.load(tmp_path / "bare.ingot")
    assert bare.is_stripped
    refitted = bare.refit(file)
    assert not refitted.is_stripped
    refitted.save(tmp_path / "again.ingot")
    assert (tmp_path / "again.ingot").read_bytes() == (tmp_path / "full.ingot").read_bytes()


def test_refit_with_other_weights_is_the_engine_of_the_other_model(tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    onnx.save(normalized(2.0), other)
    x = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)
    refitted = ingot.Session(ingot.compile(normalized()).refit(other), "cpu")
    direct = ingot.Session(ingot.compile(other), "cpu")
    np.testing.assert_array_equal(refitted.run(None, {"x": x})[0], direct.run(None, {"x": x})[0])
    assert refitted.stats()["compiled_kernels"] + direct.stats()["compiled_kernels"] <= len(direct.program.kernels)


def quantized(seed: int) -> onnx.ModelProto:
    """A weight of two elements a byte, and one of a scale that is a single number."""
    rng = np.random.default_rng(seed)
    weights = {
        "w": rng.integers(0, 256, (16, 2, 16)).astype(np.uint8),
        "s": rng.random((16, 2)).astype(np.float32),
        "v": rng.integers(-128, 128, (16, 4000)).astype(np.int8),
        "t": np.float32(rng.random()),
    }
    nodes = [
        helper.make_node("MatMulNBits", ["x", "w", "s"], ["h"], domain="com.microsoft", K=64, N=16, block_size=32),
        helper.make_node("DequantizeLinear", ["v", "t"], ["d"]),
        helper.make_node("MatMul", ["h", "d"], ["y"]),
    ]
    made = model(nodes, {"x": (F, ["N", 64])}, {"y": (F, ["N", 4000])}, weights)
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return made


def test_packed_weights_and_scales_are_refitted_by_their_names(tmp_path: Path) -> None:
    file, other = tmp_path / "m.onnx", tmp_path / "other.onnx"
    onnx.save(quantized(1), file)
    onnx.save(quantized(2), other)
    ingot.compile(file).save(tmp_path / "bare.ingot", weights=False)
    x = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    for source, seed in ((file, 1), (other, 2)):
        bare = ingot.Engine.load(tmp_path / "bare.ingot")
        (expected,) = ingot.Session(ingot.compile(quantized(seed)), "cpu").run(None, {"x": x})
        np.testing.assert_array_equal(ingot.Session(bare.refit(source), "cpu").run(None, {"x": x})[0], expected)
    with pytest.raises(ingot.Error, match="weight 'w' does not fit tensor<16x64xi4>"):
        ingot.Session(ingot.compile(file).refit({"w": np.zeros((16, 2, 8), np.uint8)}), "cpu")


def test_single_weights_and_mistakes(tmp_path: Path) -> None:
    engine = ingot.compile(perceptron())
    engine.save(tmp_path / "m.ingot")
    engine = ingot.Engine.load(tmp_path / "m.ingot")
    b = np.full(24, 5, np.float32)
    (y,) = ingot.Session(engine.refit({"b": b}), "cpu").run(["y"], {"x": np.zeros((1, 1, 16), np.float32)})
    np.testing.assert_array_equal(y, b[None, None])
    x = np.random.default_rng(0).standard_normal((2, 2, 16)).astype(np.float32)
    (y,) = ingot.Session(engine, "cpu").run(["y"], {"x": x})  # the engine itself is as it was
    np.testing.assert_allclose(y, perceptron_reference(x)[0], rtol=1e-5, atol=1e-5)
    with pytest.raises(EngineError, match="no weight is named 'nope'"):
        engine.refit({"nope": b})
    with pytest.raises(EngineError, match=r"'b' is f32\[24\], got f64\[24\]"):
        engine.refit({"b": b.astype(np.float64)})
    with pytest.raises(EngineError, match=r"'b' is f32\[24\], got f32\[23\]"):
        engine.refit({"b": b[:23]})
    derived = ingot.compile(normalized())
    with pytest.raises(EngineError, match="also depends on"):
        derived.refit({"s": np.ones((32, 1, 1, 1), np.float32)})


def with_constants(zero: int = 3, factor: float = 2.0, bias: float = 1.0) -> onnx.ModelProto:
    """A quantized product whose zero point, and a factor, are parts of the IR; its bias and scales are weights."""
    rng = np.random.default_rng(5)
    weights = {
        "q": rng.integers(-128, 128, (8, 4)).astype(np.int8),
        "s": np.float32(0.5), "z": np.int8(zero), "sw": np.ones(4, np.float32), "zw": np.zeros(4, np.int8),
        "c": np.float32(factor), "b": np.full(4, bias, np.float32),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["q", "sw", "zw"], ["w"], axis=1),
        helper.make_node("MatMul", ["xd", "w"], ["h"]),
        helper.make_node("Mul", ["h", "c"], ["m"]),
        helper.make_node("Add", ["m", "b"], ["y"]),
    ]
    return model(nodes, {"x": (F, ["N", 8])}, {"y": (F, ["N", 4])}, weights)


@pytest.mark.parametrize(("change", "name"), [({"zero": 4}, "z"), ({"zero": 0}, "z"), ({"factor": 3.0}, "c")], ids=str)
def test_what_was_folded_into_the_ir_cannot_be_refitted(change: dict, name: str, tmp_path: Path) -> None:
    ingot.compile(with_constants()).save(tmp_path / "m.ingot")
    engine = ingot.Engine.load(tmp_path / "m.ingot")
    onnx.save(with_constants(**change), tmp_path / "other.onnx")
    message = f"'{name}' was compiled into the engine and has other values now .*compile the model again"
    with pytest.raises(EngineError, match=message):
        engine.refit(tmp_path / "other.onnx")
    with pytest.raises(EngineError, match=message):
        engine.refit({name: np.float32(7) if name == "c" else np.int8(7)})


def test_zero_points_that_were_left_out_cannot_be_refitted() -> None:
    engine = ingot.compile(with_constants())
    assert "zw" not in engine.header.weights
    with pytest.raises(EngineError, match="'zw' was compiled into the engine"):
        engine.refit({"zw": np.ones(4, np.int8)})


def test_what_was_folded_may_be_given_as_it_was(tmp_path: Path) -> None:
    """A checkpoint that changes weights alone, small ones among them, fits; so do arrays of folded tensors that equal them."""
    onnx.save(with_constants(bias=5.0), tmp_path / "other.onnx")
    x = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    (expected,) = ingot.Session(ingot.compile(with_constants(bias=5.0)), "cpu").run(None, {"x": x})
    engine = ingot.compile(with_constants())
    given = {"b": np.full(4, 5, np.float32), "z": np.int8(3), "c": np.float32(2)}
    for sources in (tmp_path / "other.onnx", given):
        np.testing.assert_array_equal(ingot.Session(engine.refit(sources), "cpu").run(None, {"x": x})[0], expected)


def test_a_constant_may_be_a_source_of_a_derived_weight(tmp_path: Path) -> None:
    """A table that is gathered at positions which the IR holds."""
    rng = np.random.default_rng(7)
    weights = {"table": rng.standard_normal((400, 24)).astype(np.float32), "positions": np.arange(300)}
    nodes = [helper.make_node("Gather", ["table", "positions"], ["g"]), helper.make_node("Add", ["x", "g"], ["y"])]
    file = tmp_path / "m.onnx"
    onnx.save(model(nodes, {"x": (F, ["N", 300, 24])}, {"y": (F, ["N", 300, 24])}, weights), file)
    ingot.compile(file).save(tmp_path / "full.ingot")
    ingot.compile(file).save(tmp_path / "bare.ingot", weights=False)
    ingot.Engine.load(tmp_path / "bare.ingot").refit(file).save(tmp_path / "again.ingot")
    assert (tmp_path / "again.ingot").read_bytes() == (tmp_path / "full.ingot").read_bytes()


def test_a_model_of_another_graph_is_refused(tmp_path: Path) -> None:
    """It has none of the engine's weights: nothing would be refitted, and nobody told."""
    onnx.save(sum_of_two(), tmp_path / "other.onnx")
    with pytest.raises(EngineError, match=r"other.onnx has nothing for weight '.*' \(give the model that"):
        ingot.compile(perceptron()).refit(tmp_path / "other.onnx")


def test_what_the_compiler_made_stays_in_an_engine_without_weights(tmp_path: Path) -> None:
    """A table of positions is a constant of the model's, and a weight of the engine's: a refit cannot bring it back."""
    file = tmp_path / "model.onnx"
    positions = onnx.numpy_helper.from_array(np.arange(512)[::-1].reshape(1, 512).copy())
    nodes = [
        helper.make_node("Constant", [], ["positions"], name="Constant_1", value=positions),
        helper.make_node("Shape", ["x"], ["length"], start=1, end=2),
        helper.make_node("Slice", ["positions", "zero", "length", "one"], ["used"]),
        helper.make_node("Gather", ["table", "used"], ["embedded"]),
        helper.make_node("Add", ["x", "embedded"], ["y"]),
    ]
    rng = np.random.default_rng(0)
    table = rng.standard_normal((512, 8)).astype(np.float32)
    weights = {"table": table, "zero": np.array([0]), "one": np.array([1])}
    onnx.save(model(nodes, {"x": (F, ["N", "S", 8])}, {"y": (F, ["N", "S", 8])}, weights), file)
    engine = ingot.compile(file)
    x = rng.standard_normal((2, 30, 8)).astype(np.float32)
    (expected,) = ingot.Session(engine, "cpu").run(None, {"x": x})
    np.testing.assert_array_equal(expected, x + table[511:481:-1])
    engine.save(tmp_path / "bare.ingot", weights=False)
    bare = ingot.Engine.load(tmp_path / "bare.ingot")
    assert bare.is_stripped
    bare.save(tmp_path / "again.ingot", weights=False)
    refitted = ingot.Engine.load(tmp_path / "again.ingot").refit(file)
    assert not refitted.is_stripped
    np.testing.assert_array_equal(ingot.Session(refitted, "cpu").run(None, {"x": x})[0], expected)


def gathered(scale: float = 1.0) -> onnx.ModelProto:
    """Elements at constant positions, and a product with some of a weight: neither positions nor steps are weights."""
    weights = {
        "at": np.array([2, 0, 2]),
        "to": np.array([1, 4, 9]),
        "w": (scale * np.random.default_rng(3).standard_normal((3, 4000))).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["x", "at"], ["g"], axis=1),
        helper.make_node("Cast", ["to"], ["steps"], to=F),
        helper.make_node("Unsqueeze", ["steps", "one"], ["column"]),
        helper.make_node("Mul", ["w", "column"], ["v"]),
        helper.make_node("MatMul", ["g", "v"], ["y"]),
    ]
    weights["one"] = np.array([1])
    return model(nodes, {"x": (F, ["N", 4])}, {"y": (F, ["N", 4000])}, weights)


def test_what_is_no_weight_stays_in_a_stripped_engine(tmp_path: Path) -> None:
    files = tmp_path / "m.onnx", tmp_path / "other.onnx"
    for file, scale in zip(files, (1.0, 2.0), strict=True):
        onnx.save(gathered(scale), file)
    ingot.compile(files[0]).save(tmp_path / "full.ingot")
    ingot.compile(files[0]).save(tmp_path / "bare.ingot", weights=False)
    ingot.Engine.load(tmp_path / "bare.ingot").refit(files[0]).save(tmp_path / "again.ingot")
    assert (tmp_path / "again.ingot").read_bytes() == (tmp_path / "full.ingot").read_bytes()
    ingot.Engine.load(tmp_path / "full.ingot").save(tmp_path / "stripped.ingot", weights=False)
    assert (tmp_path / "stripped.ingot").read_bytes() == (tmp_path / "bare.ingot").read_bytes()
    assert (tmp_path / "bare.ingot").stat().st_size < 4000 * 3 * 4
    x = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)
    w = onnx.numpy_helper.to_array(next(t for t in gathered(2.0).graph.initializer if t.name == "w"))
    for given in (files[1], {"w": w}):
        session = ingot.Session(ingot.Engine.load(tmp_path / "stripped.ingot").refit(given), "cpu")
        expected = x[:, [2, 0, 2]] @ (w * np.array([[1], [4], [9]], np.float32))
        np.testing.assert_allclose(session.run(None, {"x": x})[0], expected, rtol=1e-5)
