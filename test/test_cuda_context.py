"""Calls of the CUDA runtime in their order: streams, uploads, errors. Against a GPU that lies in host memory."""

from __future__ import annotations

import ctypes
import gc
import threading
import traceback
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from fake_cuda import FakeCuda, FakeDriver, install

from ingot import dims
from ingot.dispatch import Dispatch, contiguous
from ingot.dtypes import ONNX_TYPE_BY_NAME
from ingot.engine import Weight
from ingot.errors import DeviceError, InputError
from ingot.kernel_code import KernelCode
from ingot.kernel_plan import BufferArg, KernelLaunch, KernelPlan
from ingot.launch_program import Binding, Buffer, BufferRef, DispatchStep, KernelEntry, LaunchProgram, TensorSpec
from ingot.runtime import cuda_device, cuda_driver, specialization
from ingot.runtime.context_pool import ContextPool
from ingot.runtime.cuda_array import CudaArray, DeviceMemory, as_cuda_array
from ingot.runtime.cuda_device import CudaContext, CudaExecutable, prepare
from ingot.runtime.cuda_stream import CudaStream, as_stream
from ingot.runtime.cuda_upload import WeightUpload
from ingot.runtime.device import Call
from ingot.runtime.program_loader import LoadedProgram
from ingot.runtime.shape_binding import ShapeBinder
from ingot.runtime.specialization import Specializer

N = dims.symbol("N")
WEIGHT = np.arange(8, dtype=np.float32)
F32 = np.dtype(np.float32)


@pytest.fixture(autouse=True)
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    return install(monkeypatch)


def make_program() -> LaunchProgram:
    """y = k2(k1(x)), by two kernels; k1's result lies in the arena; a weight that nothing reads."""
    steps, entries = [], []
    for i, name in enumerate(("k1", "k2")):
        x = contiguous("f32", "d0")
        dispatch = Dispatch("pointwise", (x,), (x,), (("number", i),), symbols=("d0",), multiples=(1,))
        launch = KernelLaunch(name, (1, 1, 1), (BufferArg("operand"), BufferArg("result")), (128, 1, 1))
        entries.append(KernelEntry(f"key{i}", KernelPlan((launch,)), dispatch.text))
        steps.append(DispatchStep(i, (BufferRef(i),), (BufferRef(i + 1),), (N,), node=name))
    buffers = (
        Buffer("input", N * 4),
        Buffer("arena", N * 4, 0),
        Buffer("output", N * 4),
        Buffer("weight", WEIGHT.nbytes, name="w"),
    )
    inputs, outputs = (TensorSpec("x", "float", (N,)),), (TensorSpec("y", "float", (N,)),)
    bindings = (Binding("N", 0, 0),)
    return LaunchProgram("sm_90a", inputs, outputs, bindings, buffers, tuple(entries), tuple(steps), N * 4)


def make(cuda: FakeCuda, module: str = "") -> tuple[CudaExecutable, ShapeBinder]:
    program = make_program()
    codes = tuple(KernelCode(e.plan, "cubin", b"both" if module else e.key.encode(), module=module) for e in program.kernels)
    weights = {"w": Weight("f32", WEIGHT.shape, lambda: WEIGHT)}
    cuda.on_launch = copy_kernel
    (executable,) = prepare(cuda, [LoadedProgram(program, codes)], weights)
    return executable, ShapeBinder(program)


def copy_kernel(name: str, grid: tuple, values: list[int]) -> None:
    """Adds 1 to each element; the size is the first entry of the table."""
    source, target, table = values
    n = ctypes.c_int64.from_address(table).value
    for i in range(n):
        ctypes.c_float.from_address(target + 4 * i).value = ctypes.c_float.from_address(source + 4 * i).value + 1


def call(binder: ShapeBinder, x: Any, stream: CudaStream | None = None) -> Call:
    return Call(binder.bind((tuple(x.shape),)), [x], [None], isinstance(x, CudaArray), stream)


def on_device(cuda: FakeCuda, values: np.ndarray) -> CudaArray:
    array = CudaArray.empty(cuda, values.shape, values.dtype)
    ctypes.memmove(array.address, values.ctypes.data, values.nbytes)
    return array


def test_numpy_in_numpy_out():
    cuda = FakeCuda()
    executable, binder = make(cuda)
    context = executable.new_context()
    x = np.arange(5, dtype=np.float32)
    ((y,), status) = context.run(call(binder, x))
    assert status == 0
    np.testing.assert_array_equal(y, x + 2)
    assert cuda.named("synchronize")[-1] == ("synchronize", context.stream)
    assert {entry[2] for entry in cuda.named("launch", "download")} == {context.stream}


def test_kernels_that_share_a_module_load_it_once():
    cuda = FakeCuda()
    executable, binder = make(cuda, module="hash")
    executable.new_context().run(call(binder, np.zeros(3, np.float32)))
    assert cuda.named("load_module") == [("load_module", b"both")]
    executable.close()
    assert cuda.named("unload_module") == [("unload_module", b"both")]


def test_a_call_on_a_users_stream_does_not_wait():
    cuda = FakeCuda()
    executable, binder = make(cuda)
    executable.weights.wait()
    context = executable.new_context()
    x = on_device(cuda, np.arange(4, dtype=np.float32))
    user = CudaStream(7)
    cuda.log.clear()
    ((y,), _) = context.run(call(binder, x, user))
    assert cuda.named("synchronize", "wait_event", "download") == []
    assert cuda.named("launch") == [("launch", "k1", 7), ("launch", "k2", 7)]
    assert ("allocate_async", 16, 7) in cuda.log
    assert y.ready == 7
    assert y.__cuda_array_interface__["stream"] == 7
    assert context.is_free_for(call(binder, x, user))
    assert not context.is_free_for(call(binder, x, CudaStream(8)))
    assert not context.is_free_for(call(binder, x))
    # Another stream is put behind it, and behind the stream that makes its input.
    cuda.log.clear()
    context.run(call(binder, y, CudaStream(8)))
    (ended,) = [event for _, event, stream in cuda.named("record") if stream == 8]
    assert ("wait", 8, ended) in cuda.log
    assert ("order", 7, 8) in cuda.log
    assert cuda.log.index(("wait", 8, ended)) < cuda.log.index(("record", ended, 8))
    np.testing.assert_array_equal(y.numpy(), np.arange(4) + 2)
    assert cuda.log[-1] == ("synchronize", 7)
    address = y.address
    del y
    context.run(call(binder, x))  # the context holds what an asynchronous call reads until the next
    assert ("free_async", address, 7) in cuda.log
    cuda.past.add(ended)
    context.run(call(binder, x, CudaStream(8)))
    assert context.is_free_for(call(binder, x))


def test_growing_waits_for_the_call_under_way():
    cuda = FakeCuda()
    executable, binder = make(cuda)
    context = executable.new_context()
    context.run(call(binder, on_device(cuda, np.zeros(4, np.float32)), CudaStream(7)))
    cuda.log.clear()
    context.run(call(binder, on_device(cuda, np.zeros(4000, np.float32)), CudaStream(7)))
    freed = next(i for i, entry in enumerate(cuda.log) if entry[0] == "free")
    assert cuda.log.index(cuda.named("wait_event")[0]) < freed


def test_threads_on_two_streams_get_two_contexts():
    cuda = FakeCuda()
    executable, binder = make(cuda)
    pool = ContextPool(executable.new_context, 2)
    x = on_device(cuda, np.zeros(4, np.float32))
    found = []
    for handle in (7, 8, 7, 8, 9):
        wanted = call(binder, x, CudaStream(handle))
        with pool.lease(lambda context, wanted=wanted: context.is_free_for(wanted)) as context:
            context.run(wanted)
            found.append(context)
    assert found[0] is found[2]
    assert found[1] is found[3]
    assert found[0] is not found[1]
    assert pool.made == 2


def test_numpy_outputs_are_waited_for_on_the_users_stream():
    cuda = FakeCuda()
    executable, binder = make(cuda)
    context = executable.new_context()
    ((y,), _) = context.run(call(binder, np.ones(3, np.float32), CudaStream(7)))
    np.testing.assert_array_equal(y, [3, 3, 3])
    assert cuda.named("synchronize")[-1] == ("synchronize", 7)
    assert context.is_free_for(call(binder, y))


def test_out_of_memory_leaves_the_context_usable(driver):
    cuda = FakeCuda()
    executable, binder = make(cuda)
    executable.weights.wait()
    context = executable.new_context()
    small = np.arange(4, dtype=np.float32)
    for _ in range(3):
        context.run(call(binder, small))
    held = set(cuda.memory)
    cuda.limit = 1 << 16
    for _ in range(2):
        with pytest.raises(DeviceError, match="out of memory"):
            context.run(call(binder, np.zeros(1 << 16, np.float32)))
    for _ in range(3):
        ((y,), _) = context.run(call(binder, small))
        np.testing.assert_array_equal(y, small + 2)
    assert len(cuda.memory) <= len(held)
    assert driver.graphs == 1
    driver.refuse = "instantiate"
    context._drop_plans()
    context.run(call(binder, small))
    with pytest.raises(DeviceError, match="instantiating"):
        context.run(call(binder, small))
    assert driver.graphs == 0
    driver.refuse = ""
    for _ in range(3):
        context.run(call(binder, small))
    assert driver.graphs == 1


def test_a_lost_gpu_is_one_error_and_closing_ends():
    cuda = FakeCuda()
    executable, binder = make(cuda)
    context = executable.new_context()
    context.run(call(binder, np.zeros(3, np.float32)))
    cuda.fault = DeviceError("cuda:0 is lost")
    cuda.log.clear()
    for _ in range(2):
        with pytest.raises(DeviceError, match="cuda:0 is lost"):
            context.run(call(binder, np.zeros(3, np.float32)))
    context.close()
    executable.close()
    assert cuda.log == []


class Status(int):
    """A driver's status."""

    name = "CUDA_ERROR_ILLEGAL_ADDRESS"


def test_sticky_errors_end_every_call_on_their_gpu_alone(monkeypatch: pytest.MonkeyPatch):
    calls = []
    fake = SimpleNamespace(
        cuGetErrorString=lambda status: (0, b"an illegal memory access was encountered"),
        cuCtxSetCurrent=lambda context: calls.append(context) or (0,),
        cuStreamSynchronize=lambda stream: (Status(700),),
    )
    monkeypatch.setattr(cuda_driver, "driver", lambda: fake)
    monkeypatch.setattr(cuda_driver, "_lost", {})
    gpus = [cuda_driver.Cuda.__new__(cuda_driver.Cuda) for _ in range(2)]
    for ordinal, gpu in enumerate(gpus):
        gpu.ordinal, gpu._context = ordinal, f"context {ordinal}"
    gpus[1].activate()
    words = r"cuda:1 is lost to this process after running kernels: an illegal memory access .*start a new process"
    with pytest.raises(DeviceError, match=words):
        gpus[1].synchronize(0)
    calls.clear()
    with pytest.raises(DeviceError, match=words):
        gpus[1].activate()
    assert not gpus[1].activate_quietly()
    assert calls == []
    gpus[0].activate()
    assert gpus[0].activate_quietly()
    assert calls == ["context 0", "context 0"]


def test_finalizers_give_a_thread_its_gpu_back(monkeypatch: pytest.MonkeyPatch):
    """The garbage collector may free an array of one GPU in the middle of work on another."""
    calls: list[tuple] = []
    current = [0]

    def set_current(context: int) -> tuple:
        current[0] = context
        return (0,)

    fake = SimpleNamespace(
        cuCtxGetCurrent=lambda: (0, current[0]),
        cuCtxSetCurrent=set_current,
        cuMemFree=lambda address: calls.append((address, current[0])) or (0,),
    )
    monkeypatch.setattr(cuda_driver, "driver", lambda: fake)
    monkeypatch.setattr(cuda_driver, "_lost", {})
    gpus = [cuda_driver.Cuda.__new__(cuda_driver.Cuda) for _ in range(2)]
    for ordinal, gpu in enumerate(gpus):
        gpu.ordinal, gpu._context = ordinal, 100 + ordinal
        gpu.allocate = lambda nbytes: 0x1000
    memory = DeviceMemory(gpus[0], 4)
    gpus[1].activate()
    del memory
    assert calls == [(0x1000, 100)]
    assert current == [101]
    assert cuda_driver._current.ordinal == 1


def test_weights_go_through_pinned_chunks():
    cuda = FakeCuda()
    arrays = [np.random.default_rng(i).integers(0, 255, n, dtype=np.uint8) for i, n in enumerate((1000, 7, 256, 2049))]
    targets = [cuda.allocate(a.nbytes) for a in arrays]
    weights = [
        (str(i), Weight("i8", a.shape, lambda a=a: a), t, None) for i, (a, t) in enumerate(zip(arrays, targets, strict=True))
    ]
    upload = WeightUpload(cuda, weights, chunk=256)
    upload.before(7)
    for array, target in zip(arrays, targets, strict=True):
        assert ctypes.string_at(target, array.nbytes) == array.tobytes()
    upload.close()
    assert cuda.named("pinned") == [("pinned", 256)] * 2
    assert len(cuda.named("free_pinned")) == 2
    (stream,) = {entry[2] for entry in cuda.named("upload")}
    assert ("destroy_stream", stream) in cuda.log
    sizes = [entry[1] for entry in cuda.named("upload")]
    assert sum(sizes) == sum(a.nbytes for a in arrays)
    assert max(sizes) == 256
    # A buffer is written again once its copy before is past, and the last event stands for all.
    writes = cuda.named("upload", "wait_event")
    assert [entry[0] for entry in writes[:4]] == ["upload", "upload", "wait_event", "upload"]


def test_the_first_call_follows_an_upload_under_way():
    cuda = FakeCuda()
    gate = threading.Event()
    synchronize = cuda.synchronize

    def blocked(stream: int) -> None:
        if threading.current_thread().name == "ingot-upload":
            gate.wait(30)
        synchronize(stream)

    cuda.synchronize = blocked
    executable, binder = make(cuda)
    context = executable.new_context()
    context.run(call(binder, np.zeros(3, np.float32)))
    assert [stream for _, stream, _ in cuda.named("wait")] == [context.stream]
    last_upload = max(i for i, e in enumerate(cuda.log) if e[0] == "upload" and e[1] == WEIGHT.nbytes)
    recorded = next(i for i, e in enumerate(cuda.log) if e[0] == "record" and i > last_upload + 1)
    assert cuda.log[recorded][1] == cuda.named("wait")[0][2]
    gate.set()
    executable.weights._upload._thread.join(30)
    cuda.log.clear()
    context.run(call(binder, np.zeros(3, np.float32)))
    assert cuda.named("wait") == []


def test_an_upload_that_fails_is_the_first_calls_error():
    cuda = FakeCuda()
    upload = WeightUpload(cuda, [("w", Weight("f32", (4,), lambda: np.zeros(3, np.float32)), cuda.allocate(16), None)])
    with pytest.raises(DeviceError, match="weight 'w' has 12 bytes, not 16"):
        upload.before(7)
    upload.close()
    assert len(cuda.named("free_pinned")) == 2


def test_streams_of_other_libraries():
    torch_like = SimpleNamespace(cuda_stream=0)
    core_like = SimpleNamespace(__cuda_stream__=lambda: (0, 55))
    assert as_stream(9).handle == 9
    assert as_stream(torch_like) == CudaStream(1, torch_like)
    assert as_stream(core_like) == CudaStream(55, core_like)
    for bad in ("s", -1, True, SimpleNamespace(__cuda_stream__=lambda: (1, 5))):
        with pytest.raises(InputError, match=r"stream"):
            as_stream(bad)


@pytest.mark.parametrize(
    ("version", "stream", "expected"), [(3, None, None), (3, 5, 5), (2, None, 1)]
)  # before version 3 there is no word of streams
def test_arrays_of_other_libraries_tell_their_stream(version, stream, expected):
    interface = {"shape": (4,), "typestr": "<f4", "data": (0x1000, False), "version": version, "stream": stream}
    array = as_cuda_array(SimpleNamespace(__cuda_array_interface__=interface), "x", FakeCuda(), F32)
    assert array.ready == expected
    assert array[1:].ready == expected


def test_priority_reaches_the_streams():
    cuda = FakeCuda()
    executable, _ = make(cuda)
    executable.weights.wait()
    context = CudaContext(executable, -3)
    assert ("stream", context.stream, -3) in cuda.log


def test_an_interrupt_leaves_the_context_usable(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch):
    cuda = FakeCuda()
    driver.on_launch = copy_kernel
    executable, binder = make(cuda)
    context = executable.new_context()
    first, second = (on_device(cuda, np.full(4, n, np.float32)) for n in (1, 2))
    for _ in range(3):
        context.run(call(binder, first))
    assert driver.replays == 2

    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(driver, "cuGraphExecKernelNodeSetParams", interrupted)
        with pytest.raises(KeyboardInterrupt):
            context.run(call(binder, second))
    for _ in range(3):
        ((y,), _) = context.run(call(binder, second))
        np.testing.assert_array_equal(y.numpy(), [4, 4, 4, 4])


@pytest.mark.parametrize("how", ["close", "drop"])
def test_memory_waits_for_no_garbage_collector(how: str, driver: FakeDriver):
    cuda = FakeCuda()
    driver.on_launch = copy_kernel
    executable, binder = make(cuda)
    pool = ContextPool(executable.new_context, 2)
    gc.disable()
    try:
        for _ in range(3):
            with pool.lease() as context:
                context.run(call(binder, np.zeros(3, np.float32)))
        assert cuda.memory
        assert driver.graphs == 1
        executable.weights._upload._thread = None  # it has ended: its event was waited for
        if how == "close":
            pool.close()
            executable.close()
        else:
            del context, pool, executable
        assert cuda.memory == {}
        assert cuda.events == set()
        assert driver.graphs == 0
        assert len(cuda.named("destroy_stream")) == len(cuda.named("stream")) == 2
        assert len(cuda.named("unload_module")) == len(cuda.named("load_module")) == 2
    finally:
        gc.enable()


def test_many_shapes_take_bounded_memory(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch):
    for name in ("_KEPT_PLANS", "_KEPT_VARIANTS", "_KEPT_COUNTS"):
        monkeypatch.setattr(cuda_device, name, 3)
    monkeypatch.setattr(specialization, "_KEPT", 3)
    cuda = FakeCuda()
    driver.on_launch = copy_kernel
    program = make_program()
    codes = tuple(KernelCode(e.plan, "cubin", e.key.encode()) for e in program.kernels)
    cuda.on_launch = copy_kernel
    specializer = Specializer(lambda env, live: LoadedProgram(make_program(), codes), "eager")
    weights = {"w": Weight("f32", WEIGHT.shape, lambda: WEIGHT)}
    (executable,) = prepare(cuda, [LoadedProgram(program, codes)], weights, [specializer])
    context, binder = executable.new_context(), ShapeBinder(program)
    for n in (*range(1, 21), *range(1, 21)):
        for _ in range(2):
            ((y,), _) = context.run(call(binder, np.zeros(n, np.float32)))
            np.testing.assert_array_equal(y, np.full(n, 2))
        assert len(executable._variants) <= 3
        assert len(cuda.named("load_module")) - len(cuda.named("unload_module")) <= 2 * (3 + 3)
        assert driver.graphs <= 3
    assert max(map(len, (context._calls, specializer._ready, specializer._asked))) <= 3


def test_threads_load_a_module_once():
    cuda = FakeCuda()
    executable, _ = make(cuda, module="hash")
    load_module = cuda.load_module

    def slow(cubin: bytes, what: str) -> Any:
        threading.Event().wait(0.05)
        return load_module(cubin, what)

    cuda.load_module = slow
    threads = [threading.Thread(target=executable.kernels.function, args=(n % 2, f"k{n % 2 + 1}", 0)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cuda.named("load_module")) == 1


def test_an_upload_without_pinned_memory_frees_what_it_has():
    cuda = FakeCuda()
    data = np.zeros(2048, np.uint8)
    target = cuda.allocate(data.nbytes)
    cuda.limit = sum(map(ctypes.sizeof, cuda.memory.values())) + 1500
    upload = WeightUpload(cuda, [("w", Weight("i8", data.shape, lambda: data), target, None)], chunk=1024)
    for _ in range(2):
        with pytest.raises(DeviceError, match="out of memory") as caught:
            upload.before(7)
        assert len(traceback.extract_tb(caught.tb)) == 2
    upload.close()
    with pytest.raises(DeviceError, match="out of memory"):
        upload.before(7)  # and not a call on what was never there
    assert list(cuda.memory) == [target]
    assert cuda.events == set()


def test_a_failed_upload_waits_for_its_copies_before_it_frees():
    cuda = FakeCuda()
    good, bad = np.zeros(16, np.uint8), np.zeros(3, np.uint8)
    weights = [(n, Weight("i8", (16,), lambda a=a: a), cuda.allocate(16), None) for n, a in (("good", good), ("bad", bad))]
    upload = WeightUpload(cuda, weights)
    with pytest.raises(DeviceError, match="weight 'bad' has 3 bytes, not 16"):
        upload.before(7)
    upload.close()
    what = [name for name, *_ in cuda.named("upload", "synchronize", "free_pinned")]
    assert what[:3] == ["upload", "synchronize", "free_pinned"]


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_strided_inputs_on_the_device(dtype):
    cuda = FakeCuda()
    executable, _ = make(cuda)
    base = np.arange(60).reshape(3, 4, 5).astype(dtype)
    memory = on_device(cuda, base)
    origin = base.ctypes.data
    views = [
        base,
        base[::-1],
        base[:, ::-1],
        base[:, :, ::-1],
        base[1:, ::2, 1:4],
        base.T,
        base[::-2, 1::2],
        np.broadcast_to(base[0, 0], (6, 5)),
        np.broadcast_to(base[:, :1], (3, 4, 5)),
        np.broadcast_to(base[:, :, :1], (3, 4, 5)),
        np.broadcast_to(base[0, 0, :1], (2, 3)),
        base[:0],
    ]
    for view in views:
        address = memory.address + view.ctypes.data - origin
        array = CudaArray(cuda, memory, address, view.shape, view.dtype, view.strides)
        stored = executable.to_storage(array, ONNX_TYPE_BY_NAME["float" if dtype is np.float32 else "uint8"])
        assert stored.is_contiguous
        np.testing.assert_array_equal(stored.numpy(), view)


@pytest.mark.parametrize("dtype", ["int8", "bool", "float16", "int16"])
def test_types_of_the_same_width_are_not_taken_for_one_another(dtype):
    code = "|u1" if np.dtype(dtype).itemsize == 1 else "<u2"
    interface = {"shape": (4,), "typestr": code, "data": (0x1000, False), "version": 3}
    foreign = SimpleNamespace(__cuda_array_interface__=interface)
    with pytest.raises(InputError, match=f"x: expects {dtype}, got an array of type"):
        as_cuda_array(foreign, "x", FakeCuda(), np.dtype(dtype))
    if code == "<u2":
        assert as_cuda_array(foreign, "x", FakeCuda(), np.dtype(ml_dtypes.bfloat16)).dtype == ml_dtypes.bfloat16


def test_arrays_of_another_gpu_are_refused():
    cuda, other = FakeCuda(), FakeCuda()
    other.ordinal = 1
    with pytest.raises(InputError, match="x: lies on cuda:1, the session runs on cuda:0"):
        as_cuda_array(on_device(other, np.zeros(3, np.float32)), "x", cuda, F32)
    interface = {"shape": (4,), "typestr": "<f4", "data": (0x1000, False), "version": 3}
    foreign = SimpleNamespace(__cuda_array_interface__=interface, __dlpack_device__=lambda: (2, 1))
    with pytest.raises(InputError, match="x: lies on cuda:1"):
        as_cuda_array(foreign, "x", cuda, F32)


@pytest.mark.parametrize(("blocks", "allowed"), [(0, []), (8, []), (16, [(14, 1)])])
def test_wide_clusters_are_allowed(monkeypatch: pytest.MonkeyPatch, blocks: int, allowed: list[tuple[int, int]]) -> None:
    """A kernel whose clusters have more blocks than every GPU takes must say so before its first launch."""
    attributes = SimpleNamespace(
        CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH=11, CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED=14
    )
    set_: list[tuple[int, int]] = []

    def set_attribute(function: str, attribute: int, value: int) -> tuple[int]:
        assert function == "handle"
        set_.append((attribute, value))
        return (0,)

    fake = SimpleNamespace(
        CUfunction_attribute=attributes,
        cuModuleGetFunction=lambda module, name: (0, "handle"),
        cuFuncGetAttribute=lambda attribute, function: (0, {11: blocks}[attribute]),
        cuFuncSetAttribute=set_attribute,
    )
    monkeypatch.setattr(cuda_driver, "driver", lambda: fake)
    cuda = object.__new__(cuda_driver.Cuda)
    assert cuda.function("module", "kernel", 0) == "handle"
    assert set_ == allowed
