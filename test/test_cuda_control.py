"""Control flow in the CUDA runtime, on a GPU whose kernels are numpy's: results, graphs, and what the host waits for."""

from __future__ import annotations

import ctypes
import gc
from dataclasses import replace

import numpy as np
import pytest
from control_models import (
    MATRIX,
    MODELS,
    body,
    guard_in_a_branch,
    if_in_a_loop,
    if_on_a_computed_condition,
    if_on_an_input,
    loop_over_rows,
    loop_that_ends_early,
    loop_with_a_trip_count_input,
    model,
    reference,
    x,
)
from fake_cuda import FakeCuda, FakeDriver, install
from numpy_gpu import NumpyGpu
from onnx import TensorProto, helper
from test_cuda_plan import make_program

import ingot
from ingot import dims
from ingot.launch_program import Buffer, BufferRef, DispatchStep, HostReadStep, IfStep, all_steps
from ingot.runtime.cuda_call_plan import CallPlan, HostReader, Memory
from ingot.runtime.cuda_segments import MAX_UNROLLED, Branch, Repeat, Segment, segments


@pytest.fixture(autouse=True)
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    return install(monkeypatch)


def compare(found: list, expected: list) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["none", "eager"])
@pytest.mark.parametrize("name", MODELS)
def test_model_on_every_way_through_it(name: str, mode: str, driver: FakeDriver) -> None:
    made, feeds = MODELS[name]()
    gpu = NumpyGpu(ingot.compile(made), driver, mode)
    for _ in range(3):  # kernel by kernel, then captured, then replayed
        for feed in feeds:
            compare(gpu.run(feed), reference(made, feed))
    gpu.close()
    gc.collect()
    assert gpu.cuda.memory == {}
    assert driver.graphs == 0


def test_conditions_in_host_memory_are_read_there(driver: FakeDriver) -> None:
    made, feeds = if_on_an_input()
    gpu = NumpyGpu(ingot.compile(made), driver)
    gpu.cuda.log.clear()
    gpu.run(feeds[0])
    assert gpu.cuda.named("wait_event") == []
    assert ("pinned", 8) not in gpu.cuda.log  # where a scalar of the GPU's would be read
    computed, feeds = if_on_a_computed_condition()
    gpu = NumpyGpu(ingot.compile(computed), driver)
    gpu.cuda.log.clear()
    for _ in range(2):
        gpu.run(feeds[0])
    assert len(gpu.cuda.named("wait_event")) == 2
    assert gpu.cuda.named("pinned").count(("pinned", 8)) == 1
    # The copy stands between the launches before and behind the decision, and the host waits for it.
    names = [entry[0] for entry in gpu.cuda.log]
    at = names.index("wait_event")
    assert names[at - 2 : at] == ["download", "record"]
    assert "launch" in names[:at]
    assert "launch" in names[at:]


def test_a_loop_has_one_graph_for_all_iterations(driver: FakeDriver) -> None:
    made, (feed, *_) = loop_with_a_trip_count_input()
    gpu = NumpyGpu(ingot.compile(made), driver)
    for trips in (5, 9, 200):
        feed = feed | {"m": np.array(trips)}
        compare(gpu.run(feed), reference(made, feed))
    # Before the loop, its body, behind it.
    assert gpu.executable.counters()["graphs"] == 3
    assert driver.graphs == 3


def test_loops_over_sizes_are_written_out_where_they_are_small(driver: FakeDriver) -> None:
    made, feeds = loop_over_rows()
    gpu = NumpyGpu(ingot.compile(made), driver)
    short = segments(gpu.program, {"N": 5})
    (node,) = short
    assert isinstance(node, Segment)
    assert node.symbols == frozenset()
    long = segments(gpu.program, {"N": MAX_UNROLLED})
    assert [type(n) for n in long] == [Segment, Repeat, Segment]
    assert [type(n) for n in segments(gpu.program, {"N": 5}, frozenset({"N"}))] == [Segment, Repeat, Segment]
    repeat = long[1]
    assert isinstance(repeat, Repeat)
    (inner,) = repeat.body
    assert isinstance(inner, Segment)
    assert inner.symbols == {repeat.symbol}
    assert inner.sized == frozenset()
    for _ in range(3):
        compare(gpu.run(feeds[0]), reference(made, feeds[0]))
    assert driver.replays == 2
    assert gpu.executable.counters()["graphs"] == 1


def test_loops_that_ask_the_host_are_not_written_out(driver: FakeDriver) -> None:
    made, _ = loop_that_ends_early(True)
    nodes = segments(NumpyGpu(ingot.compile(made), driver).program, {"N": 5})
    assert sum(isinstance(n, Repeat) for n in nodes) == 1
    made, _ = if_in_a_loop()
    nodes = segments(NumpyGpu(ingot.compile(made), driver).program, {"N": 5})
    (repeat,) = [n for n in nodes if isinstance(n, Repeat)]
    assert any(isinstance(n, Branch) for n in repeat.body)


def test_nested_loops_are_written_out_with_both_iterations(driver: FakeDriver) -> None:
    steps = [
        helper.make_node("Cast", ["i2"], ["f2"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["b", "f"], ["s"]),
        helper.make_node("Mul", ["s", "f2"], ["b1"]),
    ]
    inner = body(steps, ["b1"], inner="2", b=MATRIX)
    outer = body(
        [
            helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("Loop", ["three", "", "a"], ["a1"], body=inner),
        ],
        ["a1"],
        a=MATRIX,
    )
    main = [
        helper.make_node("Constant", [], ["three"], value_int=3),
        helper.make_node("Loop", ["three", "", "x"], ["y"], body=outer),
    ]
    made = model(main, ["y"])
    gpu = NumpyGpu(ingot.compile(made), driver)
    feed = {"x": x(2)}
    assert [type(n) for n in segments(gpu.program, {"N": 2})] == [Segment]
    for _ in range(3):
        compare(gpu.run(feed), reference(made, feed))


def test_a_guard_on_the_way_ends_the_call_with_its_number(driver: FakeDriver) -> None:
    made, feeds = guard_in_a_branch()
    gpu = NumpyGpu(ingot.compile(made), driver)
    wrong = feeds[0] | {"v": x(5)}
    assert gpu.run(wrong, status=1) == [None]
    compare(gpu.run(feeds[0]), reference(made, feeds[0]))
    assert gpu.run(wrong, status=1) == [None]
    assert gpu.cuda.log[-1] == ("synchronize", gpu.stream)


def test_profiles_have_the_launches_that_ran(driver: FakeDriver) -> None:
    made, feeds = if_on_an_input()
    gpu = NumpyGpu(ingot.compile(made), driver)
    dispatches = sum(isinstance(s, DispatchStep) for s in all_steps(gpu.program.steps))
    rows = gpu.profile(feeds[0])
    (branch,) = [s for s in gpu.program.steps if isinstance(s, IfStep)]
    assert len(rows) == dispatches - len(branch.otherwise)
    assert {(row["runs"], row["ms"]) for row in rows} == {(1, 0.5)}
    made, feeds = loop_with_a_trip_count_input()
    gpu = NumpyGpu(ingot.compile(made), driver)
    for trips in (3, 5):
        runs = {row["node"]: row["runs"] for row in gpu.profile(feeds[0] | {"m": np.array(trips)})}
        assert runs["MatMul_0+Tanh_1"] == trips
        assert runs["Add_2"] == 1


def test_sizes_that_the_host_reads_are_planned_for_buckets(driver: FakeDriver) -> None:
    """Grids depend on M, which a call finds: one plan serves all values of a bucket, and the size table has the true one."""
    plain = make_program()
    m = dims.symbol("M")
    read = HostReadStep("M", BufferRef(3))
    program = replace(
        plain,
        buffers=(*plain.buffers, Buffer("input", 8, index=1)),
        steps=(plain.steps[0], read, replace(plain.steps[1], sizes=(m,))),
    )
    # Nothing before the read writes what it reads: it comes first.
    (first, segment) = segments(program, {"N": 1000})
    assert first == read
    assert isinstance(segment, Segment)
    assert segment.symbols == segment.sized == {"M"}
    cuda = FakeCuda()
    seen: list[tuple] = []
    cuda.on_launch = lambda name, grid, values: seen.append((grid, ctypes.c_int64.from_address(values[-1]).value))
    driver.on_launch = cuda.on_launch
    plan = CallPlan(cuda, program, lambda kernel, name, shared: {"name": name, "params": 3}, {"N": 1000})  # type: ignore[arg-type]
    reader = HostReader(cuda)  # type: ignore[arg-type]
    for value in (10, 100, 1000, 90, 0):
        memory = Memory([0xA0000, 0, 0xB0000, 0], 0xC0000, {3: np.array(value)})
        assert plan.run(memory, {"N": 1000}, 0, reader) == 0
    assert [grid[0] for grid, _ in seen] == [8, 1, 8, 1, 8, 8, 8, 1, 8, 1]
    assert [size for _, size in seen[1::2]] == [10, 100, 1000, 90, 0]
    assert len(plan._plans) == 3
