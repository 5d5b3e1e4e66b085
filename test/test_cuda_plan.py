"""Plans of the CUDA runtime against a driver that records calls: no GPU is needed to test what is launched with what."""

from __future__ import annotations

import ctypes
import json
from dataclasses import replace

import pytest
from fake_cuda import FakeCuda, install

from ingot import dims
from ingot.dispatch import Dispatch, contiguous
from ingot.errors import DeviceError
from ingot.kernel_plan import BufferArg, KernelLaunch, KernelPlan
from ingot.launch_program import Buffer, BufferRef, DispatchStep, KernelEntry, LaunchProgram
from ingot.runtime import cuda_driver, cuda_plan

N = dims.symbol("N")
D0 = dims.symbol("d0")


@pytest.fixture
def driver(monkeypatch):
    fake = install(monkeypatch)
    monkeypatch.setattr(cuda_driver, "driver", lambda: fake)
    return fake


def make_program(symbol: str = "k") -> LaunchProgram:
    """x (input) -> arena -> y (output) by two steps of one kernel; the second writes at an offset that depends on N."""
    dispatch = Dispatch("pointwise", (contiguous("f32", "d0"),), (contiguous("f32", "d0"),), symbols=("d0",), multiples=(1,))
    launch = KernelLaunch(symbol, (dims.ceildiv(D0, 128), 1, 1), (BufferArg("operand"), BufferArg("result")), (128, 1, 1))
    buffers = (Buffer("input", N * 4), Buffer("arena", N * 4, 256), Buffer("output", N * 8))
    steps = (
        DispatchStep(0, (BufferRef(0),), (BufferRef(1),), (N,), node="first"),
        DispatchStep(0, (BufferRef(1),), (BufferRef(2, N * 4),), (N + 1,), node="second"),
    )
    entry = KernelEntry("key", KernelPlan((launch,)), dispatch.text)
    assert json.loads(entry.dispatch)["symbols"] == ["d0"]
    return LaunchProgram("sm_90a", (), (), (), buffers, (entry,), steps, N * 4 + 256)


def make_plan(cuda: FakeCuda, n: int, live: frozenset[str] = frozenset(), symbol: str = "k") -> cuda_plan.Plan:
    program = make_program(symbol)
    functions = lambda kernel, name, shared: {"name": name, "params": 3}  # noqa: E731
    return cuda_plan.Plan(cuda, program, program.steps, functions, {"N": n}, live)


def size_table(plan: cuda_plan.Plan) -> list[int]:
    return list((ctypes.c_int64 * len(plan.sizes)).from_address(plan._size_table))


def test_parameters_grids_and_sizes(driver):
    cuda = FakeCuda()
    launched = []
    cuda.on_launch = lambda *launch: launched.append(launch)
    plan = make_plan(cuda, 1000)
    plan.bind([0xA0000, 0, 0xB0000], 0xC0000, {"N": 1000}, 0)
    plan.run(0)
    table = plan._size_table
    assert launched == [
        ("k", (8, 1, 1), [0xA0000, 0xC0000 + 256, table]),
        ("k", (8, 1, 1), [0xC0000 + 256, 0xB0000 + 4000, table + 8]),
    ]
    assert size_table(plan) == [1000, 1001]
    assert plan.arena_bytes == 4256


def test_workspaces_behind_the_buffers_that_a_call_places(driver):
    """A specialized program has its own: calls place the buffers that all programs of a stage have."""
    program = make_program()
    buffers = tuple(map(BufferArg, ("operand", "result", "workspace")))
    launch = replace(program.kernels[0].plan.launches[0], buffers=buffers)
    kernel = replace(program.kernels[0], plan=KernelPlan((launch,), 64))
    steps = tuple(replace(step, workspace=BufferRef(3)) for step in program.steps)
    program = replace(
        program, kernels=(kernel,), steps=steps, buffers=(*program.buffers, Buffer("arena", 64, 512)), arena_bytes=N * 4 + 1024
    )
    functions = lambda kernel, name, shared: {"name": name, "params": 4}  # noqa: E731
    plan = cuda_plan.Plan(FakeCuda(), program, program.steps, functions, {"N": 10}, frozenset())
    plan.bind([0xA0000, 0, 0xB0000], 0xC0000, {"N": 10}, 0)
    assert [record.storage[2][0].value for record in plan.launches] == [0xC0000 + 512] * 2


def test_steady_state_updates_nothing_and_new_addresses_update_only_what_uses_them(driver):
    cuda = FakeCuda()
    plan = make_plan(cuda, 1000)
    addresses = [0xA0000, 0, 0xB0000]
    plan.bind(addresses, 0xC0000, {"N": 1000}, 0)
    plan.capture()
    plan.replay(plan.bind(addresses, 0xC0000, {"N": 1000}, 0), 0)
    assert driver.updates == []
    plan.replay(plan.bind([0xA0000, 0, 0xD0000], 0xC0000, {"N": 1000}, 0), 0)
    assert driver.updates == [1]  # the other one touches what stayed
    assert plan.launches[1].storage[1][0].value == 0xD0000 + 4000
    assert driver.replays == 2


def test_live_sizes_keep_grid_and_arena_and_change_the_table(driver):
    cuda = FakeCuda()
    plan = make_plan(cuda, 100, frozenset({"N"}))
    assert plan.launches[0].grid == (1, 1, 1)  # a bucket of 128 elements
    assert plan.arena_bytes == 128 * 4 + 256
    for n in (100, 101, 128):
        plan.bind([0xA0000, 0, 0xB0000], 0xC0000, {"N": n}, 0)
        assert size_table(plan) == [n, n + 1]
        assert plan.launches[1].storage[1][0].value == 0xB0000 + 4 * n


def test_what_did_not_change_is_not_written_again(driver):
    """Iterations of a loop differ in live sizes alone; calls with other arrays in addresses alone."""
    plan = make_plan(FakeCuda(), 100, frozenset({"N"}))
    addresses = [0xA0000, 0, 0xB0000]
    expected = [
        (addresses, 100, ["first", "second"]),
        (addresses, 100, []),
        (addresses, 101, ["second"]),  # its offset depends on N
        ([0xA0000, 0, 0xB0000], 101, []),
        ([0xC0000, 0, 0xB0000], 101, ["first", "second"]),
    ]
    for where, n, nodes in expected:
        for record in plan.launches:
            for storage, _ in record.storage[:2]:
                storage.value += 1 << 48  # what is not written again stays wrong
        changed = plan.bind(where, 0xD0000, {"N": n}, 0)
        assert [r.step.node for r in changed] == nodes
        first, second = ([storage.value for storage, _ in record.storage[:2]] for record in plan.launches)
        assert first == [where[0] + ("first" not in nodes) * (1 << 48), 0xD0100 + ("first" not in nodes) * (1 << 48)]
        assert second == [0xD0100 + (len(nodes) < 2) * (1 << 48), where[2] + 4 * n + (not nodes) * (1 << 48)]
        plan.bind([0, 0, 0], 0, {"N": n}, 0)  # all right again
        plan.bind(where, 0xD0000, {"N": n}, 0)
        assert size_table(plan) == [n, n + 1]


def test_empty_launches_are_dropped(driver):
    plan = make_plan(FakeCuda(), 0)
    assert [record.step.node for record in plan.launches] == ["second"]


@pytest.mark.parametrize(("kernels", "gpu", "expected"), [(True, True, True), (False, True, False), (True, False, False)])
def test_kernels_that_wait_by_themselves_start_early(driver, monkeypatch, kernels, gpu, expected):
    monkeypatch.setattr(FakeCuda, "overlaps", gpu)
    cuda = FakeCuda()
    program = make_program()
    entry = program.kernels[0]
    launches = tuple(replace(x, overlaps=kernels) for x in entry.plan.launches)
    program = replace(program, kernels=(replace(entry, plan=KernelPlan(launches)),))
    plan = cuda_plan.Plan(cuda, program, program.steps, lambda *key: {"name": key[1], "params": 3}, {"N": 4})
    plan.bind([0xA0000, 0, 0xB0000], 0xC0000, {"N": 4}, 0)
    plan.run(0)
    assert cuda.early == [False, expected]  # the first follows copies and the call before
    plan.capture()
    assert driver.edges == [(0, 1, expected)]
    plan.run_checked(0)
    plan.profile(0, 1)
    assert not any(cuda.early[2:])  # each is waited for


def test_a_fault_names_its_kernel_and_node(driver):
    cuda = FakeCuda()

    def fault(name: str, grid: tuple, values: list[int]) -> None:
        cuda.fault = DeviceError("an illegal memory access was encountered")

    cuda.on_launch = fault
    plan = make_plan(cuda, 4, symbol="faulty")
    plan.bind([0xA0000, 0, 0xB0000], 0xC0000, {"N": 4}, 0)
    with pytest.raises(DeviceError, match=r"^first: kernel faulty failed: an illegal memory access"):
        plan.run_checked(0)


def test_closing_frees_the_size_table(driver):
    cuda = FakeCuda()
    plan = make_plan(cuda, 4)
    table = plan._size_table
    plan.capture()
    plan.close()
    assert cuda.named("free") == [("free", table)]
    assert cuda.memory == {}
    assert not plan.captured


@pytest.mark.parametrize(
    ("root", "dtypes", "attrs", "expected"),
    [
        ("pointwise", ("f16", "f16"), (), "f32"), ("matmul", ("f32", "f32"), (), "f32"),
        ("matmul", ("f32", "f32"), (("tf32", True),), "tf32"), ("conv", ("f16", "f16"), (), "16"),
        ("matmul", ("bf16", "i8"), (), "16"), ("matmul", ("f8E4M3FN", "f8E4M3FN"), (), "8"),
        ("matmul", ("f64", "f64"), (), "f64"), ("conv", ("i8", "i8"), (), "i8"),
    ],
)  # fmt: skip
def test_profiles_say_in_which_arithmetic(driver, root, dtypes, attrs, expected):
    cuda = FakeCuda()
    plan = make_plan(cuda, 4)
    plan.bind([0xA0000, 0, 0xB0000], 0xC0000, {"N": 4}, 0)
    operands = tuple(contiguous(t, 4, 4) for t in dtypes)
    text = Dispatch(root, operands, operands[:1], attrs, symbols=("d0",), multiples=(1,)).text
    plan.program = replace(plan.program, kernels=(replace(plan.program.kernels[0], dispatch=text),))
    rows = plan.profile(0, 2)
    assert [(r["ms"], r["arithmetic"]) for r in rows] == [(0.5, expected)] * 2


@pytest.mark.parametrize(("value", "expected"), [(0, 64), (1, 64), (64, 64), (65, 128), (1000, 1024), (1024, 1024)])
def test_buckets(value, expected):
    assert cuda_plan.bucket(value) == expected
