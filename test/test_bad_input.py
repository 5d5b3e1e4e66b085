"""What users do wrong: every mistake is one clear `ingot.Error` with the input's name and the cure."""

from __future__ import annotations

import numpy as np
import pytest
from runtime_models import outer, perceptron, sum_of_two

import ingot
from ingot.errors import DeviceError, EngineError, InputError
from ingot.runtime.session import Session

GOOD = np.zeros((2, 3, 16), np.float32)


@pytest.fixture(scope="module")
def session() -> Session:
    return ingot.Session(ingot.compile(perceptron()), "cpu")


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, r"x: no array was given for this input \(needed are x\)"),
        ({"x": GOOD, "z": GOOD}, r"no input is named 'z' \(inputs are x\)"),
        ({"x": GOOD.astype(np.float64)}, r"x: expects tensor\(float\), got float64 \(convert it: x.astype\('float32'\)\)"),
        ({"x": GOOD[0]}, r"x: expects 3 axes \[N, S, 16\], got \[3, 16\]"),
        ({"x": GOOD[..., :15].copy()}, r"x: axis 2 is 16, got \[2, 3, 15\] \(its shape must be \[N, S, 16\]\)"),
        ({"x": object()}, "x: "),
        ({"x": "text"}, r"x: expects tensor\(float\)"),
        ({"x": None}, r"x: expects tensor\(float\), got object"),
    ],
)
def test_wrong_inputs(session: Session, feeds: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        session.run(None, feeds)


def test_wrong_outputs(session: Session) -> None:
    with pytest.raises(InputError, match=r"no output is named 'nope' \(outputs are y, s\)"):
        session.run(["nope"], {"x": GOOD})
    with pytest.raises(InputError, match=r"'y' is one name, not a list of names \(give \['y'\]\)"):
        session.run("y", {"x": GOOD})
    with pytest.raises(InputError, match="y: must be contiguous"):
        session.bind(outputs={"y": np.zeros((3, 2, 24), np.float32).T})
    with pytest.raises(InputError, match=r"y: expects tensor\(float\), got int32"):
        session.bind(outputs={"y": np.zeros((2, 3, 24), np.int32)})


@pytest.mark.parametrize("feeds", [GOOD, None, [GOOD]])
def test_inputs_that_have_no_names(session: Session, feeds: object) -> None:
    with pytest.raises(InputError, match=r"the inputs are a \w+ \(give a dictionary: {'x': array}\)"):
        session.run(None, feeds)


def test_session_is_usable_after_an_error(session: Session) -> None:
    with pytest.raises(InputError):
        session.run(None, {"x": GOOD[0]})
    assert session.run(["y"], {"x": GOOD})[0].shape == (2, 3, 24)


def test_sizes_that_do_not_broadcast_fail_by_a_guard() -> None:
    session = ingot.Session(ingot.compile(sum_of_two()), "cpu")
    x, y = (np.random.default_rng(0).standard_normal((n, 3), dtype=np.float32) for n in (4, 1))
    np.testing.assert_array_equal(session.run(None, {"x": x, "y": y})[0], x + y)
    np.testing.assert_array_equal(session.run(None, {"x": y, "y": x})[0], x + y)
    np.testing.assert_array_equal(session.run(None, {"x": x, "y": x})[0], x + x)
    with pytest.raises(InputError, match=r"4.*3|3.*4"):
        session.run(None, {"x": x, "y": x[:3].copy()})


def test_sizes_whose_product_is_impossible() -> None:
    session = ingot.Session(ingot.compile(outer()), "cpu")
    x, y = np.arange(3, dtype=np.float32), np.arange(5, dtype=np.float32)
    np.testing.assert_array_equal(session.run(None, {"x": x, "y": y})[0], np.outer(x, y))
    huge = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (1 << 40,), (0,))
    with pytest.raises(InputError, match=r"need a buffer of \d+ bytes: x \[1099511627776\]; y \[1099511627776\]"):
        session.run(None, {"x": huge, "y": huge})
    large = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), (1 << 22,), (0,))
    with pytest.raises(DeviceError, match="bytes of memory cannot be allocated"):
        session.run(None, {"x": large, "y": large})


def test_devices_and_engines_that_are_not_there(tmp_path) -> None:
    engine = ingot.compile(perceptron())
    with pytest.raises(DeviceError, match="no device is named 'tpu'"):
        ingot.Session(engine, "tpu")
    with pytest.raises(EngineError, match="No such file"):
        ingot.Session(tmp_path / "absent.ingot")
    with pytest.raises(EngineError, match=r"an ONNX model, not an engine \(compile it first"):
        ingot.Session(tmp_path / "model.onnx")
    with pytest.raises(DeviceError, match="no device is named 0"):
        ingot.Session(engine, 0)
    engine.save(tmp_path / "bare.ingot", weights=False)
    with pytest.raises(EngineError, match=r"bare.ingot: the engine was saved without weights \(refit it first"):
        ingot.Session(tmp_path / "bare.ingot", "cpu")
    with pytest.raises(ValueError, match="at least one execution context"):
        ingot.Session(engine, "cpu", max_contexts=0)
    with pytest.raises(ValueError, match="threads=0"):
        ingot.Session(engine, "cpu", threads=0)
