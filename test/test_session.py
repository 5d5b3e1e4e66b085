"""Sessions on the CPU, called as a user calls them."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runtime_models import accumulator, perceptron, perceptron_reference, sum_of_two

import ingot
from ingot.runtime import device
from ingot.runtime.cache import RuntimeCache
from ingot.runtime.compile_client import CompileClient
from ingot.runtime.session import Session


def feed(*shape: int, seed: int = 0) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("engine") / "perceptron.ingot"
    ingot.compile(perceptron()).save(file)
    return file


@pytest.fixture(scope="module")
def session(path: Path) -> Session:
    return ingot.Session(path, "cpu")


def test_calling_convention(session: Session) -> None:
    assert [(i.name, i.shape, i.type) for i in session.get_inputs()] == [("x", ["N", "S", 16], "tensor(float)")]
    assert [o.name for o in session.get_outputs()] == ["y", "s"]
    f = feed(2, 3, 16)
    y, s = session.run(None, f)
    expected = perceptron_reference(f["x"])
    np.testing.assert_allclose(y, expected[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(s, expected[1], rtol=1e-5, atol=1e-5)
    again = session.run(["s", "y", "s"], f)
    np.testing.assert_array_equal(again[0], s)
    np.testing.assert_array_equal(again[1], y)
    assert session.device_name == "cpu"


def test_load_report_tells_where_the_time_went(path: Path, tmp_path: Path) -> None:
    for expected in (True, False):  # compiled, then found in the cache
        cache = RuntimeCache(tmp_path / "cache.sqlite")
        session = ingot.Session(path, "cpu", cache=cache)
        report = session.load_report()
        session.close()
        cache.close()
        assert report["kernels"] >= 2
        assert report["compiled"] == (report["kernels"] if expected else 0)
        stages = {"draft", "verify", "kernel-ir", "llvm-dialect", "llvm-ir", "object", "image"}
        assert set(report["stages"]) == (stages if expected else set())
        assert all(seconds > 0 for seconds in report["stages"].values())
        steps = report["steps"]
        assert {"engine", "device", "cached", "kernels", "prepare"} <= set(steps)
        assert ("draft" in steps) == expected
        assert report["seconds"] == pytest.approx(sum(steps.values()))


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (1, 200), (64, 33), (0, 3), (4, 0)])
def test_every_shape_from_one_engine(session: Session, shape: tuple[int, int]) -> None:
    f = feed(*shape, 16)
    y, s = session.run(None, f)
    expected = perceptron_reference(f["x"])
    assert y.shape == (*shape, 24)
    np.testing.assert_allclose(y, expected[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(s, expected[1], rtol=1e-4, atol=1e-5)


def test_inputs_of_any_layout_and_kind(session: Session) -> None:
    f = feed(4, 6, 16)
    expected = session.run(None, f)
    x = f["x"]

    class Foreign:
        def __dlpack__(self, **options: object) -> object:
            return x.__dlpack__()

        def __dlpack_device__(self) -> tuple[int, int]:
            return x.__dlpack_device__()

    unaligned = np.empty(x.nbytes + 4, np.uint8)[4:].view(np.float32).reshape(x.shape)
    unaligned[...] = x
    strided = np.empty((4, 6, 32), np.float32)[..., ::2]
    strided[...] = x
    before = session.stats()["copied_inputs"]
    for value in (Foreign(), unaligned, strided, np.asfortranarray(x), x.astype(">f4"), memoryview(x)):
        for got, wanted in zip(session.run(None, {"x": value}), expected, strict=True):
            np.testing.assert_array_equal(got, wanted)
    assert session.stats()["copied_inputs"] > before


def test_server_starts_before_the_device_for_unknown_engines(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []

    class Client(CompileClient):
        def start(self) -> None:
            events.append("server")
            super().start()

    def open_device(*args: Any, **options: Any) -> Any:
        events.append("device")
        return device.open_device(*args, **options)

    monkeypatch.setattr("ingot.runtime.session.open_device", open_device)
    for expected in ("server", "device"):  # compiled, then found in the cache
        cache, client = RuntimeCache(tmp_path / "cache.sqlite"), Client(workers=2)
        ingot.Session(path, "cpu", cache=cache, client=client).close()
        client.close()
        cache.close()
        assert events[0] == expected
        events.clear()


def test_threads_share_a_session(path: Path) -> None:
    session = ingot.Session(path, "cpu", max_contexts=2, threads=2)
    feeds = [feed(3, n, 16, seed=n) for n in range(1, 9)]
    expected = [perceptron_reference(f["x"])[0] for f in feeds]
    failures = []

    def work(i: int) -> None:
        for _ in range(50):
            (y,) = session.run(["y"], feeds[i])
            if not np.allclose(y, expected[i], rtol=1e-4, atol=1e-5):
                failures.append(i)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert not failures
    assert session.stats()["runs"] == 400
    assert 1 <= session.stats()["contexts"] <= 2


def test_number_of_threads_does_not_change_results(path: Path) -> None:
    f = feed(40, 40, 16)
    one, three = (ingot.Session(path, "cpu", threads=n).run(None, f) for n in (1, 3))
    for a, b in zip(one, three, strict=True):
        np.testing.assert_array_equal(a, b)


def test_bound_outputs_are_written(session: Session) -> None:
    f = feed(2, 3, 16)
    y = np.empty((2, 3, 24), np.float32)
    bound = session.bind(inputs=f, outputs={"y": y})
    (result,) = bound.run(["y"])
    assert result is y
    np.testing.assert_allclose(y, perceptron_reference(f["x"])[0], rtol=1e-5, atol=1e-5)
    other = feed(2, 3, 16, seed=5)
    bound.run(None, other)
    np.testing.assert_allclose(y, perceptron_reference(other["x"])[0], rtol=1e-5, atol=1e-5)
    with pytest.raises(ingot.Error, match=r"the bound array is \[2, 3, 24\], the output \[1, 3, 24\]"):
        bound.run(None, feed(1, 3, 16))


def test_an_output_that_lies_on_an_input() -> None:
    """The input is read as it was."""
    both = ingot.Session(ingot.compile(sum_of_two()), "cpu")
    memory = np.empty(64, np.float32)
    for out in (memory[:12], memory[4:16], memory[16:28]):
        y, z = memory[:3].reshape(1, 3), out.reshape(4, 3)
        y[...] = [[1, 2, 3]]
        x = np.arange(12, dtype=np.float32).reshape(4, 3)
        before = both.stats()["copied_inputs"]
        both.bind(outputs={both.get_outputs()[0].name: z}).run(None, {"x": x, "y": y})
        np.testing.assert_array_equal(z, x + np.float32([1, 2, 3]))
        assert both.stats()["copied_inputs"] - before == (out.ctypes.data == memory.ctypes.data)


def test_outputs_that_cannot_be_bound(session: Session) -> None:
    memory = np.zeros((2, 3, 24), np.float32)
    with pytest.raises(ingot.Error, match="s: shares memory with another output"):
        session.bind(outputs={"y": memory, "s": memory.reshape(-1)[:8].reshape(2, 4)})
    with pytest.raises(ingot.Error, match="y: has another byte order than the machine"):
        session.bind(outputs={"y": memory.astype(">f4")})
    with pytest.raises(ingot.Error, match="y: list cannot be written to"):
        session.bind(outputs={"y": [np.float32(0)]})


@pytest.fixture(scope="module")
def growing() -> Session:
    return ingot.Session(ingot.compile(accumulator()), "cpu")


class TestStates:
    def test_plain_calls_copy(self, growing: Session) -> None:
        rng = np.random.default_rng(0)
        past, new = (rng.standard_normal((3, 2, n, 4), dtype=np.float32) for n in (5, 2))
        present, mean = growing.run(None, {"past": past, "new": new})
        whole = np.concatenate([past, new], 2)
        np.testing.assert_array_equal(present, whole)
        np.testing.assert_allclose(mean, whole.mean(2), rtol=1e-5, atol=1e-6)

    def test_donated_state_grows_in_place(self, growing: Session) -> None:
        rng = np.random.default_rng(1)
        bound = growing.bind(donate=True, capacity=100)
        parts = [rng.standard_normal((3, 2, n, 4), dtype=np.float32) for n in (4, 1, 1, 3, 50)]
        before = growing.stats()["state_copies"]
        addresses = set()
        for i, part in enumerate(parts):
            present, mean = bound.run(None, {"new": part})
            whole = np.concatenate(parts[: i + 1], 2)
            np.testing.assert_array_equal(present, whole)
            np.testing.assert_allclose(mean, whole.mean(2), rtol=1e-5, atol=1e-6)
            addresses.add(present.ctypes.data)
        assert len(addresses) == 1
        assert growing.stats()["state_copies"] == before
        assert bound.lengths == {"past": 59}
        bound.reset(4)
        present, _ = bound.run(None, {"new": parts[1]})
        np.testing.assert_array_equal(present, np.concatenate(parts[:2], 2))

    def test_growth_beyond_capacity_is_counted(self, growing: Session) -> None:
        bound = growing.bind(donate=["past"], capacity=1)
        before = growing.stats()["state_copies"]
        parts = [np.full((1, 2, 40, 4), i, np.float32) for i in range(5)]
        for part in parts:
            present, _ = bound.run(None, {"new": part})
        np.testing.assert_array_equal(present, np.concatenate(parts, 2))
        assert growing.stats()["state_copies"] - before == 2  # 64, 128, 256

    def test_state_begins_with_what_is_given(self, growing: Session) -> None:
        past, new = np.ones((1, 2, 3, 4), np.float32), np.zeros((1, 2, 1, 4), np.float32)
        bound = growing.bind(inputs={"past": past}, donate=True)
        bound.run(None, {"new": new})
        present, _ = bound.run(None, {"new": new})
        np.testing.assert_array_equal(present, np.concatenate([past, new, new], 2))
        np.testing.assert_array_equal(past, 1)

    def test_a_state_is_given_at_the_beginning_alone(self, growing: Session) -> None:
        ones, new = np.ones((1, 2, 3, 4), np.float32), np.zeros((1, 2, 1, 4), np.float32)
        bound = growing.bind(donate=True)
        with pytest.raises(ingot.Error):
            bound.run(None, {"new": np.zeros((2, 2, 1, 4), np.float32), "past": ones})
        assert bound.lengths == {"past": 0}
        bound.run(None, {"new": new, "past": ones})
        with pytest.raises(ingot.Error, match=r"past: this state is the session's, and holds 4 already .*reset"):
            bound.run(None, {"new": new, "past": ones})
        bound.reset()
        present, _ = bound.run(None, {"new": new, "past": 2 * ones})
        np.testing.assert_array_equal(present, np.concatenate([2 * ones, new], 2))
        bound.reset()
        other = np.full((3, 2, 5, 4), 7, np.float32)  # a new sequence, of another batch
        present, _ = bound.run(None, {"new": other})
        np.testing.assert_array_equal(present, other)

    def test_only_states_can_be_donated(self, growing: Session) -> None:
        with pytest.raises(ingot.Error, match=r"new: this input cannot be donated.*donatable are: past"):
            growing.bind(donate=["new"])


CACHED_RUN = """
import sys, time, numpy as np
start = time.perf_counter()
import ingot
assert time.perf_counter() - start < 0.15, time.perf_counter() - start
session = ingot.Session(sys.argv[1], "cpu")
session.run(None, {"x": np.zeros((2, 3, 16), np.float32)})
heavy = [m for m in sys.modules if m.split(".")[0] in ("torch_mlir", "llvmlite", "onnx", "rich", "click")]
heavy += [m for m in sys.modules if m.startswith(("ingot.compiler.", "ingot.dialects", "ingot.passes"))]
print(heavy, session.stats()["compiled_kernels"])
"""


def test_cached_engine_runs_without_the_compiler(path: Path, session: Session) -> None:
    assert session.stats()["contexts"] >= 0
    run = subprocess.run([sys.executable, "-c", CACHED_RUN, str(path)], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[] 0"


def test_missing_kernels_are_compiled_again(path: Path, tmp_path: Path) -> None:
    from ingot.runtime.cache import RuntimeCache

    cache = RuntimeCache(tmp_path / "c" / "cache.sqlite")
    first = ingot.Session(path, "cpu", cache=cache)
    assert first.stats()["compiled_kernels"] > 0
    assert ingot.Session(path, "cpu", cache=cache).stats()["compiled_kernels"] == 0
    cache._db.execute("DELETE FROM entries WHERE kind = 'kernel'")
    again = ingot.Session(path, "cpu", cache=cache)
    assert again.stats()["compiled_kernels"] == first.stats()["compiled_kernels"]
    f = feed(2, 3, 16)
    np.testing.assert_array_equal(again.run(["y"], f)[0], first.run(["y"], f)[0])
