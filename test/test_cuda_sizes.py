"""Sizes that inputs give, or that are computed, in the CUDA runtime, on a GPU whose kernels are numpy's."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import test_sizes_from_inputs
import test_stages
from control_models import Feeds, reference
from fake_cuda import FakeDriver, install
from numpy_gpu import NumpyGpu

import ingot
from ingot.runtime.cuda_segments import positions


@pytest.fixture(autouse=True)
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    return install(monkeypatch)


def compare(found: list, expected: list) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["none", "eager"])
@pytest.mark.parametrize("name", test_sizes_from_inputs.CASES)
def test_one_program_serves_all_values(name: str, mode: str, driver: FakeDriver) -> None:
    case = test_sizes_from_inputs.CASES[name]
    made = case.model()
    gpu = NumpyGpu(ingot.compile(made), driver, mode)
    for _ in range(3):  # kernel by kernel, then captured, then replayed
        for feed in case.feeds:
            feeds = test_sizes_from_inputs.arrays(made, feed)
            compare(gpu.run(feeds), reference(made, feeds))
    gpu.close()
    gc.collect()
    assert gpu.cuda.memory == {}


@pytest.mark.parametrize("name", test_stages.CASES)
def test_every_stage_in_its_turn(name: str, driver: FakeDriver) -> None:
    case = test_stages.CASES[name]
    made = case.model()
    engine = ingot.compile(made)
    stages = [NumpyGpu(engine, driver, stage=number) for number in range(engine.header.stages)]
    for _ in range(3):
        for feed in case.feeds:
            given: Feeds = test_sizes_from_inputs.arrays(made, feed)
            expected = reference(made, given)
            for gpu in stages:
                outputs = zip(gpu.program.outputs, gpu.run(given), strict=True)
                given = {**given, **{spec.name: array for spec, array in outputs}}
            compare([given[o.name] for o in made.graph.output], expected)


@pytest.mark.parametrize("mode", ["none", "eager"])
def test_one_graph_serves_all_positions(mode: str, driver: FakeDriver) -> None:
    made = test_sizes_from_inputs.Case("""g (float[N, 9] x, int64[1] from) => (float[N] y) {
        axis = Constant <value_ints = [1]> ()
        three = Constant <value_ints = [3]> ()
        end = Add(from, three)
        e = Exp(x)
        part = Slice(e, from, end, axis)
        only = ReduceSum <keepdims = 0> (part, axis)
        y = Neg(only) }""", []).model()  # fmt: skip
    gpu = NumpyGpu(ingot.compile(made), driver, mode)
    assert [v.symbol for v in gpu.program.values] == ["_from"]  # -1 to 2 is empty, so that it must be known
    assert positions(gpu.program) == {"_from"}
    for position in (0, 5, 3, 6, 2, 4):
        feeds = test_sizes_from_inputs.arrays(made, {"N": 3, "from": [position]})
        compare(gpu.run(feeds), reference(made, feeds))
    assert gpu.executable.counters()["graphs"] == 1
    assert gpu.executable.counters()["specialized_programs"] == (mode == "eager")
    for position in (7, -1, -3, 100):  # other lengths
        feeds = test_sizes_from_inputs.arrays(made, {"N": 3, "from": [position]})
        compare(gpu.run(feeds), reference(made, feeds))
