"""The CPU runtime's parts: images, the thread pool, and launch programs as native functions."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from ingot import dims
from ingot.compiler.compile_kernel import compile_kernel
from ingot.compiler.cpu_target import host_target
from ingot.compiler.native_program import compile_program
from ingot.compiler.thread_pool_code import compile_thread_pool
from ingot.dispatch import Dispatch, ScalarInst, ScalarRegion, contiguous
from ingot.errors import DeviceError
from ingot.kernel_code import KernelCode
from ingot.kernel_plan import BufferArg, KernelLaunch, KernelPlan
from ingot.launch_program import (
    Binding,
    Buffer,
    BufferRef,
    DispatchStep,
    GuardStep,
    HostReadStep,
    IfStep,
    KernelEntry,
    LaunchProgram,
    LoopStep,
    TensorSpec,
    dim_names,
    dumps,
    loads,
)
from ingot.program_linking import link
from ingot.runtime.arrays import allocate, from_storage, to_storage
from ingot.runtime.cpu_device import CpuDevice
from ingot.runtime.cpu_image import CpuImages
from ingot.runtime.device import Call
from ingot.runtime.program_loader import LoadedProgram
from ingot.runtime.shape_binding import ShapeBinder, compile_sizes
from ingot.runtime.thread_pool import ThreadPool

N = dims.symbol("N")
X = contiguous("f32", "d0", align=16)


def unary(op: str) -> Dispatch:
    insts = (ScalarInst("load", (), "f32", (("operand", 0),)), ScalarInst(op, (0,), "f32"))
    return Dispatch("pointwise", (X,), (X,), (), (ScalarRegion((), insts, (1,)),), ("d0",), (1,))


@pytest.fixture(scope="module")
def codes() -> dict[str, KernelCode]:
    return {op: compile_kernel(unary(op), host_target()) for op in ("negf", "exp")}


@pytest.fixture(scope="module")
def pool_code() -> KernelCode:
    return compile_thread_pool(host_target())


@pytest.fixture(params=[1, 2, 5])
def pool(pool_code: KernelCode, request: pytest.FixtureRequest) -> Iterator[ThreadPool]:
    p = ThreadPool(pool_code, request.param, spins=200)
    yield p
    p.close()


def test_image_survives_packing(codes: dict[str, KernelCode]) -> None:
    assert KernelCode.loads(codes["exp"].dumps()) == codes["exp"]
    with pytest.raises(ValueError, match="damaged kernel"):
        KernelCode.loads(b"\x02\0\0\0{}")
    with pytest.raises(DeviceError, match="'cubin' does not run on a CPU"):
        CpuImages([KernelCode(KernelPlan(()), "cubin", b"")])


def test_every_item_is_done_once(pool: ThreadPool, codes: dict[str, KernelCode]) -> None:
    images = CpuImages([codes["negf"]])
    launch = codes["negf"].plan.launches[0]
    kernel = images.address(0, launch.symbol)

    def negate(n: int, failures: list[int]) -> None:
        x, y = np.arange(n, dtype=np.float32), np.full(n, np.nan, np.float32)
        buffers, sizes = np.array([x.ctypes.data, y.ctypes.data]), np.array([n])
        items = dims.evaluate(launch.grid[0], {"d0": n})
        for _ in range(30):
            y[:] = np.nan
            pool.parallel_for(kernel, buffers.ctypes.data, sizes.ctypes.data, items, 0)
            if not np.array_equal(y, -x):
                failures.append(n)

    failures: list[int] = []
    for n in (0, 1, 17, 16384, 300_001):
        negate(n, failures)
    callers = [threading.Thread(target=negate, args=(200_000 + i, failures)) for i in range(4)]
    for c in callers:
        c.start()
    for c in callers:
        c.join()
    assert failures == []


def step(kernel: int, source: int, to: int, size: dims.Dim = N, node: str = "") -> DispatchStep:
    return DispatchStep(kernel, (BufferRef(source),), (BufferRef(to),), (size,), node=node)


def program(codes: dict[str, KernelCode], steps: tuple, *, inputs: int = 1, arena: dims.Dim = 0) -> LaunchProgram:
    """Buffers: 0 the input x, 1 the output y, 2 arena of N floats, 3 arena of N floats, then further inputs."""
    slot = dims.ceildiv(N * 4, 256) * 256
    entries = tuple(KernelEntry(op, codes[op].plan, unary(op).text) for op in ("negf", "exp"))
    more = tuple(TensorSpec(f"i{k}", "int64", (1,)) for k in range(1, inputs))
    buffers = (Buffer("input", N * 4), Buffer("output", N * 4), Buffer("arena", N * 4, 0), Buffer("arena", N * 4, slot),
               *(Buffer("input", 8, index=k) for k in range(1, inputs)))  # fmt: skip
    x, y = TensorSpec("x", "float", (N,)), TensorSpec("y", "float", (N,))
    p = LaunchProgram("cpu", (x, *more), (y,), (Binding("N", 0, 0),), buffers, entries, steps, slot * 2)
    assert loads(dumps(p)) == p
    return p


class Runner:
    """A program on the CPU, called with arrays."""

    def __init__(self, p: LaunchProgram, codes: dict[str, KernelCode], pool_code: KernelCode) -> None:
        target = host_target()
        native = compile_program(p, target)
        loaded = LoadedProgram(p, (codes["negf"], codes["exp"]), native, pool_code)
        self.context = CpuDevice(target, 2).prepare([loaded], {})[0].new_context()
        self.binder = ShapeBinder(p)

    def __call__(self, *arrays: np.ndarray) -> tuple[np.ndarray, int]:
        sizes = self.binder.bind(tuple(a.shape for a in arrays))
        (y,), status = self.context.run(Call(sizes, arrays, [None]))
        return y, status


x = np.linspace(-1, 1, 1000, dtype=np.float32)


def test_steps_follow_each_other(codes: dict[str, KernelCode], pool_code: KernelCode) -> None:
    run = Runner(program(codes, (step(0, 0, 2), step(1, 2, 3), step(0, 3, 1))), codes, pool_code)
    for n in (1000, 1, 999, 0, 500):
        y, status = run(x[:n].copy())
        assert status == 0
        np.testing.assert_allclose(y, -np.exp(-x[:n]), rtol=1e-6)


def test_first_failing_guard_is_reported_and_nothing_runs(codes: dict[str, KernelCode], pool_code: KernelCode) -> None:
    guards = (
        GuardStep(N, 500, "le", "too long"),
        GuardStep(dims.mod(N, 3), 0, "eq", "no multiple of 3"),
        GuardStep(dims.floordiv(100, N - 7) * (N - 7), 100, "le", "never fails"),
    )
    run = Runner(program(codes, (step(0, 0, 1), *guards)), codes, pool_code)
    assert [run(x[:n].copy())[1] for n in (300, 600, 601, 301, 7)] == [0, 1, 1, 2, 2]


@pytest.mark.parametrize("n", [6, 7, 8, 100])
def test_shape_functions_agree_with_their_definition(codes: dict[str, KernelCode], pool_code: KernelCode, n: int) -> None:
    texts = ["floordiv(N - 50, 7)", "ceildiv(N - 50, 7)", "mod(N - 50, 7)", "min(N, 20) + max(N, 9)", "bcast(N, 7)",
             "select(N, 7, 5, 2*N*N + 1)", "floordiv(N, N - 200)", "ceildiv(3 - N, N - 300)"]  # fmt: skip
    values = [dims.parse(t) for t in texts]
    env = {"N": n}
    guards = tuple(GuardStep(d, dims.evaluate(d, env), "eq", str(d)) for d in values)
    assert compile_sizes(["N"], values)(n) == tuple(dims.evaluate(d, env) for d in values)
    assert Runner(program(codes, (step(0, 0, 1), *guards)), codes, pool_code)(x[:n].copy())[1] == 0


def test_control_flow_and_reads(codes: dict[str, KernelCode], pool_code: KernelCode) -> None:
    m, i = dims.symbol("m"), dims.symbol("i")
    steps = (
        HostReadStep("m", BufferRef(4)),
        GuardStep(m, N, "le", "m is too large"),
        step(0, 0, 1),
        IfStep(BufferRef(5), (step(1, 0, 1, m),), (LoopStep(m, None, "i", (step(1, 0, 1, i + 1),)),)),
    )
    run = Runner(program(codes, steps, inputs=3), codes, pool_code)

    def call(m: int, condition: int) -> tuple[np.ndarray, int]:
        return run(x, np.array([m]), np.array([condition]))

    for m_value in (0, 1, 5):
        for condition in (0, 1):
            expected = -x
            expected[:m_value] = np.exp(x[:m_value])
            y, status = call(m_value, condition)
            assert status == 0
            np.testing.assert_allclose(y, expected, rtol=1e-6)
    assert call(1001, 0)[1] == 1


def test_workspaces_are_shared_and_behind_the_arena(codes: dict[str, KernelCode]) -> None:
    draft = program(codes, (step(0, 0, 2), step(1, 2, 1, N + 1)))
    d0 = dims.symbol("d0")
    launch = KernelLaunch("k", (1, 1, 1), (BufferArg("workspace"),))
    plans = [KernelPlan((launch,), d0 * 8), KernelPlan((launch,), d0 * 4)]
    linked = link(draft, ["a", "b"], plans)
    assert [e.key for e in linked.kernels] == ["a", "b"]
    workspace = linked.buffers[-1]
    for n in (1, 5, 300):
        env = {"N": n}
        assert dims.evaluate(workspace.bytes, env) == max(8 * n, 4 * (n + 1))
        assert dims.evaluate(workspace.offset, env) >= dims.evaluate(draft.arena_bytes, env)
        assert dims.evaluate(linked.arena_bytes, env) == dims.evaluate(workspace.offset + workspace.bytes, env)
    assert all(s.workspace == BufferRef(4) for s in linked.steps if isinstance(s, DispatchStep))


def test_symbols_of_dispatches_come_from_their_text() -> None:
    assert json.loads(unary("exp").text)["symbols"] == ["d0"]
    assert dim_names(LaunchProgram("cpu", (), (), (), (), (), (), 0)) == []


def test_four_bit_arrays_round_trip() -> None:
    import ml_dtypes

    from ingot.dtypes import ONNX_TYPE_BY_NAME

    for name, dtype in (("int4", ml_dtypes.int4), ("uint4", ml_dtypes.uint4), ("float4e2m1", ml_dtypes.float4_e2m1fn)):
        onnx_type = ONNX_TYPE_BY_NAME[name]
        array = np.arange(5).astype(dtype)
        packed = to_storage(array, onnx_type)
        assert packed.nbytes == 3
        np.testing.assert_array_equal(from_storage(packed, onnx_type, (5,)), array)


def test_memory_is_aligned() -> None:
    for n in (1, 100, 1 << 20):
        a = allocate(n)
        assert a.nbytes == n
        assert a.ctypes.data % 64 == 0
    with pytest.raises(DeviceError, match="cannot be allocated"):
        allocate(1 << 60)
