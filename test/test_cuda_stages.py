"""Engines of several stages in the CUDA runtime, on a GPU whose kernels are numpy's: what they share, and what they copy."""

from __future__ import annotations

import gc
from collections import Counter

import numpy as np
import pytest
import test_stages
from control_models import reference
from fake_cuda import FakeCuda, FakeDriver, install
from numpy_gpu import numpy_session
from onnx import TensorProto, helper
from runtime_models import F, model
from test_sizes_from_inputs import arrays

import ingot
from ingot.errors import InputError
from ingot.runtime.cuda_array import CudaArray


@pytest.fixture(autouse=True)
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    return install(monkeypatch)


def copies(cuda: FakeCuda, what: str) -> Counter[int]:
    """How often so many bytes were copied since the log was cleared."""
    return Counter(entry[1] for entry in cuda.named(what))


@pytest.mark.parametrize("name", test_stages.CASES)
def test_a_session_runs_all_stages(name: str, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    case = test_stages.CASES[name]
    made = case.model()
    session, cuda = numpy_session(ingot.compile(made), driver, monkeypatch, specialize="none")
    for _ in range(3):
        for feed in case.feeds:
            feeds = arrays(made, feed)
            for found, expected in zip(session.run(None, feeds), reference(made, feeds), strict=True):
                np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    session.close()
    del session
    gc.collect()
    assert cuda.memory == {}


CASE = test_stages.CASES["products_before_and_after"]
Y, H = 2 * 4 * 4, 3 * 8 * 4  # bytes


def test_weights_are_uploaded_once_and_lie_in_memory_once(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A weight that two stages read, and one that only the second does."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Sigmoid", ["h"], ["a"]),
        helper.make_node("ReduceSum", ["keep"], ["count"], keepdims=1),
        helper.make_node("Slice", ["a", "zero", "count"], ["part"]),
        helper.make_node("MatMul", ["part", "w"], ["p"]), helper.make_node("Add", ["p", "b"], ["y"]),
    ]  # fmt: skip
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((40, 40), np.float32), "b": rng.standard_normal((40,), np.float32)}
    made = model(nodes, {"x": (F, ["N", 40]), "keep": (TensorProto.INT64, ["N"])}, {"y": (F, ["A", 40])},
                 {**weights, "zero": np.array([0], np.int64)})  # fmt: skip
    engine = ingot.compile(made)
    assert engine.header.stages == 2
    session, cuda = numpy_session(engine, driver, monkeypatch, specialize="none")
    first, second = session._stages
    first.executable.weights.wait()
    sizes = [w.nbytes for w in engine.weights.values()]
    assert copies(cuda, "upload") == Counter(sizes)
    total = sum(-(-n // 256) * 256 for n in sizes)
    assert copies(cuda, "allocate")[total] == 1
    assert max(copies(cuda, "allocate")) == total
    shared = {b.name: first.executable.addresses[i] for i, b in enumerate(first.program.buffers) if b.kind == "weight"}
    again = {b.name: second.executable.addresses[i] for i, b in enumerate(second.program.buffers) if b.kind == "weight"}
    assert shared.items() <= again.items()
    assert shared
    feeds = {"x": rng.standard_normal((5, 40), np.float32), "keep": np.array([1, 0, 1, 1, 0])}
    np.testing.assert_allclose(session.run(None, feeds)[0], reference(made, feeds)[0], rtol=1e-4, atol=1e-5)
    session.close()


def test_inputs_are_uploaded_once_and_what_stages_give_stays(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """`x` and `keep` are both stages' inputs, `h` goes from one to the other; a call that comes again allocates nothing."""
    made = CASE.model()
    session, cuda = numpy_session(ingot.compile(made), driver, monkeypatch, specialize="none")
    feeds = arrays(made, {"N": 3, "keep": [1, 0, 1]})
    for _ in range(3):
        session.run(None, feeds)
    cuda.log.clear()
    session.run(None, feeds)
    assert len(cuda.named("upload")) == 1  # of both together
    assert copies(cuda, "download") == Counter([8, Y, H])  # the number that the host reads, and the outputs
    assert cuda.named("allocate", "allocate_async", "pinned") == []
    assert session.stats()["contexts"] == 1
    session.close()


def test_on_a_users_stream_the_host_waits_for_the_number_alone(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    made = CASE.model()
    session, cuda = numpy_session(ingot.compile(made), driver, monkeypatch, specialize="none")
    feeds = arrays(made, {"N": 3, "keep": [1, 0, 1]})
    expected = session.run(None, feeds)
    cuda_array = {name: CudaArray.empty(cuda, a.shape, a.dtype) for name, a in feeds.items()}  # type: ignore[arg-type]
    for name, a in feeds.items():
        cuda.upload(cuda_array[name].address, a.ctypes.data, a.nbytes, 0)
    cuda.log.clear()
    results = session.run(None, cuda_array, stream=7)
    assert copies(cuda, "download") == Counter([8])
    assert {entry[2] for entry in cuda.named("launch")} <= {7}
    for found, wanted in zip(results, expected, strict=True):
        np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-6)
    session.close()


def test_a_call_elsewhere_waits_for_what_later_stages_read(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """One context, two streams: the second stage of the first call may still read what the first stage left."""
    made = CASE.model()
    session, cuda = numpy_session(ingot.compile(made), driver, monkeypatch, specialize="none", max_contexts=1)
    feeds = arrays(made, {"N": 3, "keep": [1, 0, 1]})
    on_device = {name: CudaArray.empty(cuda, a.shape, a.dtype) for name, a in feeds.items()}  # type: ignore[arg-type]
    for name, a in feeds.items():
        cuda.upload(on_device[name].address, a.ctypes.data, a.nbytes, 0)
    replay = driver.cuGraphLaunch

    def logged(executable: list, stream: int) -> tuple:
        cuda.log.append(("replay", stream))
        return replay(executable, stream)

    monkeypatch.setattr(driver, "cuGraphLaunch", logged)
    for _ in range(2):
        session.run(None, on_device, stream=7)
    cuda.log.clear()
    session.run(None, on_device, stream=7)
    assert cuda.named("wait_event") == []
    cuda.log.clear()
    session.run(None, on_device, stream=9)
    assert [entry[0] for entry in cuda.named("wait_event", "replay")] == ["wait_event", "replay", "replay"]
    session.close()


def test_outputs_of_callers_are_bound(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    made = CASE.model()
    session, _ = numpy_session(ingot.compile(made), driver, monkeypatch, specialize="none")
    feeds = arrays(made, {"N": 3, "keep": [1, 0, 1]})
    y, h = np.zeros((2, 4), np.float32), np.zeros((3, 8), np.float32)
    bound = session.bind({"x": feeds["x"]}, {"y": y, "h": h})
    bound.run([], {"keep": feeds["keep"]})
    for found, expected in zip((y, h), reference(made, feeds), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match=r"y: the bound array is \[2, 4\], the output \[1, 4\]"):
        bound.run([], {"keep": np.array([1, 0, 0])})
    session.close()


def test_weights_are_packed_once(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both stages read one packed weight, and neither the weight that it is made of, which only passes through."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.integers(0, 256, (32, 4, 16)).astype(np.uint8), "s": (rng.random((32, 4)) / 16).astype(np.float16),
        "zero": np.array([0]),
    }  # fmt: skip
    attributes = {"domain": "com.microsoft", "K": 128, "N": 32, "block_size": 32}
    nodes = [
        helper.make_node("MatMulNBits", ["x", "w", "s"], ["h"], **attributes),
        helper.make_node("Concat", ["h", "h", "h", "h"], ["h4"], axis=1),
        helper.make_node("ReduceSum", ["keep"], ["count"], keepdims=1),
        helper.make_node("Slice", ["h4", "zero", "count"], ["part"]),
        helper.make_node("MatMulNBits", ["part", "w", "s"], ["y"], **attributes),
    ]  # fmt: skip
    half = TensorProto.FLOAT16
    made = model(nodes, {"x": (half, ["N", 128]), "keep": (TensorProto.INT64, ["N"])}, {"y": (half, ["A", 32])}, weights)
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    engine = ingot.compile(made)
    feeds = {"x": rng.standard_normal((5, 128)).astype(np.float16), "keep": np.array([1, 0, 1, 1, 0])}
    expected = ingot.Session(engine, "cpu").run(None, feeds)
    session, cuda = numpy_session(engine, driver, monkeypatch, specialize="none")
    stages = session._stages
    assert [len(stage.program.packing) for stage in stages] == [1, 1]
    stages[0].executable.weights.wait()
    assert len(cuda.named("launch")) == 1
    assert copies(cuda, "upload")[weights["w"].nbytes] == 1
    places = [
        {b.name: stage.executable.addresses[i] for i, b in enumerate(stage.program.buffers) if b.kind == "packed"}
        for stage in stages
    ]
    assert places[0] == places[1]
    assert len(places[0]) == 1
    for _ in range(3):
        np.testing.assert_allclose(session.run(None, feeds)[0], expected[0], rtol=4e-3, atol=4e-3)
    session.close()
