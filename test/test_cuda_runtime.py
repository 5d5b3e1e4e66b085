"""Engines on a real GPU. Skipped where there is none; the kernels themselves are tested everywhere by emulation."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import test_ragged_caches
import test_sizes_from_inputs
import test_stages
import zoo
from control_models import MODELS, guard_in_a_branch, loop_that_ends_early, loop_with_a_trip_count_input, reference, x
from decode_check import check_decoding
from test_zoo import LOW_PRECISION, SPINE

import ingot
from ingot.errors import DeviceError, InputError
from ingot.runtime.cuda_driver import device_count

pytestmark = pytest.mark.skipif(device_count() == 0, reason="needs an NVIDIA GPU")
DEVICE = "cuda:0"


@pytest.fixture(scope="module")
def bert(zoo_model):
    folder = zoo_model("bert")
    return ingot.Session(ingot.compile(folder / "model.onnx"), device=DEVICE), zoo.input_sets(folder)


def check(session, sets, tolerance=1e-4):
    names = [o.name for o in session.get_outputs()]
    for feeds, outputs in sets:
        results = dict(zip(names, session.run(None, feeds), strict=True))
        for name, expected in outputs.items():
            assert zoo.relative_error(np.asarray(results[name], np.float64), expected) <= tolerance, name


@pytest.mark.parametrize("name", [*SPINE, *LOW_PRECISION])
def test_model_matches_its_reference_at_every_shape(name, zoo_model):
    folder = zoo_model(name)
    session = ingot.Session(ingot.compile(folder / "model.onnx"), device=DEVICE)
    sets = zoo.input_sets(folder)
    tolerance = zoo.tolerance(name)
    for _ in range(3):  # kernel by kernel, then captured, then replayed
        check(session, sets, tolerance)
    session.close()


SIZES = {**test_sizes_from_inputs.CASES, **{f"stages_{name}": case for name, case in test_stages.CASES.items()}}


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("where", ["host", "device", "stream"])
def test_sizes_that_depend_on_elements(name, where):
    torch = None if where == "host" else pytest.importorskip("torch")
    case = SIZES[name]
    made = case.model()
    stream = torch.cuda.Stream(device=DEVICE) if where == "stream" else None
    session = ingot.Session(ingot.compile(made), device=DEVICE, stream=stream)
    for _ in range(3):  # kernel by kernel, then captured, then replayed
        for feed in case.feeds:
            feeds = test_sizes_from_inputs.arrays(made, feed)
            expected = reference(made, feeds)
            given = feeds if torch is None else {n: torch.from_numpy(a).to(DEVICE) for n, a in feeds.items()}
            if torch is not None:
                torch.cuda.synchronize()
            for found, wanted in zip(session.run(None, given), expected, strict=True):
                result = np.asarray(found)
                assert result.dtype == wanted.dtype
                assert result.shape == wanted.shape, feed
                np.testing.assert_allclose(result, wanted, rtol=1e-5, atol=1e-5)
    session.close()


@pytest.mark.parametrize("name", test_ragged_caches.VARIANTS)
def test_sequences_of_different_lengths_in_one_cache(name):
    variant = test_ragged_caches.VARIANTS[name]
    session = ingot.Session(ingot.compile(variant.model()), device=DEVICE)
    test_ragged_caches.check_donated(session, variant)
    session.close()


@pytest.mark.parametrize("given", [True, False])
def test_caches_of_a_fixed_size(given):
    made = test_ragged_caches.fixed(test_ragged_caches.ATTENTIONS["causal"]).model()
    session = ingot.Session(ingot.compile(made), device=DEVICE)
    test_ragged_caches.check_donated_of_a_fixed_size(session, given)
    session.close()


def test_outputs_of_stages_are_bound():
    made = test_stages.CASES["products_before_and_after"].model()
    session = ingot.Session(ingot.compile(made), device=DEVICE)
    feeds = test_sizes_from_inputs.arrays(made, {"N": 3, "keep": [1, 0, 1]})
    y, h = np.zeros((2, 4), np.float32), np.zeros((3, 8), np.float32)
    bound = session.bind({"x": feeds["x"]}, {"y": y, "h": h})
    for _ in range(3):
        y[...] = h[...] = 0
        bound.run([], {"keep": feeds["keep"]})
        for found, wanted in zip((y, h), reference(made, feeds), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    session.close()


def test_arrays_of_other_libraries_are_read_in_place(bert):
    torch = pytest.importorskip("torch")
    session, sets = bert
    feeds, reference = sets[0]
    on_device = {k: torch.from_numpy(v).to(DEVICE) for k, v in feeds.items()}
    before = session.stats()["copied_inputs"]
    for _ in range(3):
        results = session.run(None, on_device)
        for spec, result in zip(session.get_outputs(), results, strict=True):
            assert zoo.relative_error(torch.as_tensor(result, device=DEVICE).cpu().numpy(), reference[spec.name]) <= 1e-4
    assert session.stats()["copied_inputs"] == before


def test_calls_on_a_users_stream(bert):
    torch = pytest.importorskip("torch")
    session, sets = bert
    feeds, reference = sets[0]
    stream = torch.cuda.Stream(device=DEVICE, priority=-1)
    for _ in range(3):
        with torch.cuda.stream(stream):
            on_device = {k: torch.from_numpy(v).to(DEVICE) for k, v in feeds.items()}
            results = session.run(None, on_device, stream=stream)
            copies = [torch.from_dlpack(r).clone() for r in results]
        stream.synchronize()
        for spec, found, result in zip(session.get_outputs(), copies, results, strict=True):
            assert result.ready == stream.cuda_stream
            assert zoo.relative_error(found.cpu().numpy(), reference[spec.name]) <= 1e-4
            assert zoo.relative_error(result.numpy(), reference[spec.name]) <= 1e-4
    # PyTorch's default stream waits for results of another, by DLPack.
    again = [torch.from_dlpack(r) for r in session.run(None, on_device, stream=stream)]
    for spec, found in zip(session.get_outputs(), again, strict=True):
        assert zoo.relative_error((found * 1).cpu().numpy(), reference[spec.name]) <= 1e-4


def test_a_session_on_a_stream_and_with_a_priority(zoo_model):
    torch = pytest.importorskip("torch")
    folder = zoo_model("bert")
    engine = ingot.compile(folder / "model.onnx")
    stream = torch.cuda.Stream(device=DEVICE)
    with contextlib.closing(ingot.Session(engine, device=DEVICE, stream=stream, priority=-1)) as session:
        for _ in range(3):
            check(session, zoo.input_sets(folder))


def test_a_kernels_fault_is_one_error_and_nothing_hangs():
    program = Path(__file__).parent / "fault_kernel.py"
    run = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.endswith("done\n")


def test_threads_share_a_session(bert):
    session, sets = bert
    failures = []

    def work() -> None:
        try:
            for _ in range(5):
                check(session, sets)
        except BaseException as e:
            failures.append(e)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(120)
    assert failures == []


def test_a_donated_cache_decodes_with_few_graphs(zoo_model):
    """Specialized at the second token, which knows what grows; `lazy` would compile the same kernels in the background."""
    session = ingot.Session(ingot.compile(zoo_model("llama_kv") / "model.onnx"), device=DEVICE, specialize="eager")
    check_decoding(session)
    assert session.stats()["specialized_kernels"] > 0


@pytest.mark.parametrize("mode", ["none", "eager"])
@pytest.mark.parametrize("name", MODELS)
def test_control_flow_on_every_way_through_it(name, mode):
    made, feeds = MODELS[name]()
    with contextlib.closing(ingot.Session(ingot.compile(made), device=DEVICE, specialize=mode)) as session:
        for _ in range(3):  # kernel by kernel, then captured, then replayed
            for feed in feeds:
                compare(session.run(None, dict(feed)), reference(made, feed))
        assert session.profile(dict(feeds[0]))


def compare(found, expected):
    for a, b in zip(found, expected, strict=True):
        a = np.asarray(a) if isinstance(a, np.ndarray) else a.numpy()
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert zoo.relative_error(a.astype(np.float64), b) <= 1e-4


def test_control_flow_on_arrays_of_the_device_and_a_users_stream():
    """Conditions and trip counts are read from the device, on the stream of the call."""
    torch = pytest.importorskip("torch")
    stream = torch.cuda.Stream(device=DEVICE)
    for made, feeds in (loop_that_ends_early(True), loop_with_a_trip_count_input()):
        with contextlib.closing(ingot.Session(ingot.compile(made), device=DEVICE)) as session:
            for _ in range(3):
                for feed in feeds:
                    with torch.cuda.stream(stream):
                        on_device = {k: torch.from_numpy(np.asarray(v)).to(DEVICE) for k, v in feed.items()}
                        results = session.run(None, on_device, stream=stream)
                    compare(results, reference(made, feed))


def test_a_loop_has_one_graph_for_all_iterations():
    made, (feed, *_) = loop_with_a_trip_count_input()
    with contextlib.closing(ingot.Session(ingot.compile(made), device=DEVICE, specialize="none")) as session:
        for trips in (5, 9, 20):
            trial = feed | {"m": np.array(trips)}
            compare(session.run(None, trial), reference(made, trial))
        assert session.stats()["graphs"] == 3


def test_a_guard_on_the_way_names_its_node():
    made, feeds = guard_in_a_branch()
    with contextlib.closing(ingot.Session(ingot.compile(made), device=DEVICE)) as session:
        for _ in range(2):
            with pytest.raises(InputError, match="K"):
                session.run(None, dict(feeds[0]) | {"v": x(5)})
            compare(session.run(None, dict(feeds[0])), reference(made, feeds[0]))


def test_too_little_memory_is_one_error_and_other_calls_go_on(bert):
    session, sets = bert
    huge = {"input_ids": np.zeros((1 << 17, 511), np.int64)}
    huge |= {k: np.ones_like(huge["input_ids"]) for k in ("attention_mask", "token_type_ids")}
    with pytest.raises((DeviceError, InputError), match=r"memory|bytes"):
        session.run(None, huge)
    check(session, sets)


def test_a_device_that_does_not_exist_is_named():
    with pytest.raises(DeviceError, match="cuda:99 does not exist"):
        ingot.Session(ingot.compile("examples/digits.onnx"), device="cuda:99")
