"""Casts to 8-bit floats beyond their range, and to powers of two, on the CPU, against ml_dtypes and ONNX's own function."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx.numpy_helper import to_float8e8m0

import ingot

LARGEST = {
    TensorProto.FLOAT8E4M3FN: (448.0, 464.0), TensorProto.FLOAT8E5M2: (57344.0, 61440.0),
    TensorProto.FLOAT8E4M3FNUZ: (240.0, 248.0), TensorProto.FLOAT8E5M2FNUZ: (57344.0, 61440.0),
}  # fmt: skip
NUMPY = {
    TensorProto.FLOAT8E4M3FN: ml_dtypes.float8_e4m3fn, TensorProto.FLOAT8E5M2: ml_dtypes.float8_e5m2,
    TensorProto.FLOAT8E4M3FNUZ: ml_dtypes.float8_e4m3fnuz, TensorProto.FLOAT8E5M2FNUZ: ml_dtypes.float8_e5m2fnuz,
}  # fmt: skip


@pytest.mark.parametrize("saturate", [0, 1])
@pytest.mark.parametrize("to", list(LARGEST))
def test_overflow(to: int, saturate: int) -> None:
    node = helper.make_node("Cast", ["x"], ["y"], to=to, saturate=saturate)
    infos = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N"]), helper.make_tensor_value_info("y", to, ["N"])]
    model = helper.make_model(helper.make_graph([node], "g", infos[:1], infos[1:]), opset_imports=[helper.make_opsetid("", 21)])
    largest, tie = (np.float32(v) for v in LARGEST[to])
    edges = [largest, np.nextafter(tie, np.float32(0)), tie, np.nextafter(tie, np.float32(np.inf)), 2 * tie, np.float32(np.inf)]
    x = np.array([0.3, 0.0, -0.0, *edges, *(-e for e in edges), np.nan], np.float32)
    (y,) = ingot.Session(ingot.compile(model), device="cpu").run(None, {"x": x})
    with np.errstate(over="ignore", invalid="ignore"):
        expected = (np.clip(x, -largest, largest) if saturate else x).astype(NUMPY[to])
    np.testing.assert_array_equal(y.astype(np.float32), expected.astype(np.float32))


@pytest.mark.parametrize("saturate", [0, 1])
@pytest.mark.parametrize("round_mode", ["up", "down", "nearest"])
def test_exponents(round_mode: str, saturate: int) -> None:
    to = TensorProto.FLOAT8E8M0
    node = helper.make_node("Cast", ["x"], ["y"], to=to, saturate=saturate, round_mode=round_mode)
    infos = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N"]), helper.make_tensor_value_info("y", to, ["N"])]
    model = helper.make_model(helper.make_graph([node], "g", infos[:1], infos[1:]), opset_imports=[helper.make_opsetid("", 25)])
    least = [0.0, 2.0**-126, 2.0**-127, 1.5 * 2.0**-126, 1e-40]
    some = 2.0 ** np.arange(-20, 20) * 1.25
    x = np.array([*least, 1.0, 1.1, 1.5, 1.9, 3.0, 2.0**127, 3e38, np.inf, np.nan, *some], np.float32)
    (y,) = ingot.Session(ingot.compile(model), device="cpu").run(None, {"x": x})
    expected = to_float8e8m0(x, saturate=bool(saturate), round_mode=round_mode)
    assert np.array_equal(y.view(np.uint8), expected.view(np.uint8))
