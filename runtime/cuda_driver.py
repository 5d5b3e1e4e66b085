"""The CUDA driver, in the few calls the runtime needs; every failure is one `DeviceError` that says what to do.

All calls act on the device's primary context, so that memory and streams are shared with other libraries in the process. A
fault of a kernel makes that context useless for good: from then on every call on this GPU fails at once with the same words.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from ingot.errors import DeviceError

_CURES = {
    "CUDA_ERROR_OUT_OF_MEMORY": "close other sessions, use smaller inputs, or compile with --cast fp16",
    "CUDA_ERROR_NO_DEVICE": "use device='cpu'",
    "CUDA_ERROR_INSUFFICIENT_DRIVER": "update the NVIDIA driver",
    "CUDA_ERROR_DEVICE_UNAVAILABLE": "another process holds the GPU exclusively",
}
# After these the context is unusable: every later call on it fails too (CUDA driver API, CUresult: "leaves the process in an
# inconsistent state").
STICKY = (
    "CUDA_ERROR_ILLEGAL_ADDRESS",
    "CUDA_ERROR_LAUNCH_FAILED",
    "CUDA_ERROR_LAUNCH_TIMEOUT",
    "CUDA_ERROR_MISALIGNED_ADDRESS",
    "CUDA_ERROR_ILLEGAL_INSTRUCTION",
    "CUDA_ERROR_ECC_UNCORRECTABLE",
    "CUDA_ERROR_CONTEXT_IS_DESTROYED",
    "CUDA_ERROR_HARDWARE_STACK_ERROR",
    "CUDA_ERROR_INVALID_ADDRESS_SPACE",
    "CUDA_ERROR_INVALID_PC",
    "CUDA_ERROR_ASSERT",
    "CUDA_ERROR_NVLINK_UNCORRECTABLE",
    "CUDA_ERROR_CONTAINED",
    "CUDA_ERROR_TENSOR_MEMORY_LEAK",
    "CUDA_ERROR_EXTERNAL_DEVICE",
    "CUDA_ERROR_MPS_CLIENT_TERMINATED",
)
_PORTABLE_CLUSTER = 8  # blocks that every GPU with clusters takes (CUDA programming guide, "Thread Block Clusters")
_OVERLAP_DRIVER = 12030  # the first driver with programmatic edges in graphs (CUDA 12.3)
_STICKY_CURE = "the GPU's context is lost: start a new process; run once with INGOT_SYNC=1 to name the kernel at fault"


@cache
def driver() -> Any:
    """The `cuda.bindings.driver` module, initialized. Raises DeviceError where it or the driver is missing."""
    try:
        from cuda.bindings import driver as module
    except ImportError as e:
        raise DeviceError(f"CUDA's Python bindings are missing: {e}", cure="pip install 'ingot[gpu]'") from e
    try:
        (status,) = module.cuInit(0)
    except RuntimeError as e:  # libcuda.so.1 is not on this machine
        raise DeviceError(f"no NVIDIA driver: {e}", cure="use device='cpu', or install the NVIDIA driver") from e
    if status != module.CUresult.CUDA_SUCCESS:
        raise DeviceError(f"cuInit failed: {status.name}", cure=_CURES.get(status.name, "use device='cpu'"))
    return module


def check(result: tuple, doing: str) -> Any:
    """The values of a driver call's result tuple. Raises DeviceError with the driver's own words where it failed."""
    status, *values = result
    if int(status) != 0:
        name = status.name
        _, text = driver().cuGetErrorString(status)
        words = text.decode() if isinstance(text, bytes) else name
        if name in STICKY:
            ordinal = getattr(_current, "ordinal", None)
            _lost.setdefault(ordinal, f"{doing}: {words} ({name})")
            raise _lost_error(ordinal)
        raise DeviceError(f"{doing}: {words} ({name})", cure=_CURES.get(name))
    return values[0] if len(values) == 1 else tuple(values)


_current = threading.local()  # `ordinal` of the GPU whose context is current on the thread
_lost: dict[int | None, str] = {}  # what made a GPU's context useless


def _lost_error(ordinal: int | None) -> DeviceError:
    where = "the GPU" if ordinal is None else f"cuda:{ordinal}"
    return DeviceError(f"{where} is lost to this process after {_lost[ordinal]}", cure=_STICKY_CURE)


def device_count() -> int:
    """GPUs that can be used here; 0 where there is no driver."""
    try:
        return int(check(driver().cuDeviceGetCount(), "counting GPUs"))
    except DeviceError:
        return 0


@dataclass(frozen=True)
class DeviceFacts:
    """What scheduling and reports need to know of a GPU."""

    ordinal: int
    name: str
    capability: tuple[int, int]
    multiprocessors: int
    memory_bytes: int


class Cuda:
    """One GPU's primary context. `activate` makes it current on the calling thread.

    Attributes:
        overlaps: kernels that wait by themselves may be launched before those they follow have ended; INGOT_OVERLAP=0 turns
            it off.
    """

    def __init__(self, ordinal: int = 0) -> None:
        d = driver()
        count = device_count()
        if not 0 <= ordinal < count:
            raise DeviceError(f"cuda:{ordinal} does not exist: {count} GPUs found", cure="choose another device")
        self.ordinal = ordinal
        self._device = check(d.cuDeviceGet(ordinal), f"opening cuda:{ordinal}")
        self._context = check(d.cuDevicePrimaryCtxRetain(self._device), f"opening cuda:{ordinal}")
        self.activate()
        wanted = os.environ.get("INGOT_OVERLAP", "") != "0"
        newer = int(check(d.cuDriverGetVersion(), "reading the driver's version")) >= _OVERLAP_DRIVER
        self.overlaps = wanted and newer and self.facts().capability >= (9, 0)

    def activate(self) -> None:
        """Make this GPU's context current on the calling thread. Raises DeviceError once a kernel's fault has spoiled it."""
        if self.ordinal in _lost:
            raise _lost_error(self.ordinal)
        _current.ordinal = self.ordinal
        check(driver().cuCtxSetCurrent(self._context), "making the GPU's context current")

    def activate_quietly(self) -> bool:
        """As `activate`, for clean-up that must not raise: False where the context is spoiled and nothing is left to free."""
        if self.ordinal in _lost:
            return False
        _current.ordinal = self.ordinal
        driver().cuCtxSetCurrent(self._context)
        return True

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[bool]:
        """As `activate_quietly`, for a finalizer, which may run in the middle of work on another GPU: the thread gets back the
        context that it had."""
        d, ordinal = driver(), getattr(_current, "ordinal", None)
        status, before = d.cuCtxGetCurrent()
        usable = self.activate_quietly()
        try:
            yield usable
        finally:
            _current.ordinal = ordinal
            if usable and int(status) == 0 and int(before) != int(self._context):
                d.cuCtxSetCurrent(before)

    def facts(self) -> DeviceFacts:
        """Name, compute capability and sizes."""
        d = driver()
        attribute = d.CUdevice_attribute

        def get(name: str) -> int:
            key = getattr(attribute, f"CU_DEVICE_ATTRIBUTE_{name}")
            return int(check(d.cuDeviceGetAttribute(key, self._device), "reading the GPU's attributes"))

        name = check(d.cuDeviceGetName(128, self._device), "reading the GPU's name")
        capability = get("COMPUTE_CAPABILITY_MAJOR"), get("COMPUTE_CAPABILITY_MINOR")
        memory = int(check(d.cuDeviceTotalMem(self._device), "reading the GPU's memory"))
        return DeviceFacts(self.ordinal, name.decode().rstrip("\0"), capability, get("MULTIPROCESSOR_COUNT"), memory)

    # Memory ---------------------------------------------------------------------------------------------------------

    def allocate(self, nbytes: int) -> int:
        """The address of `nbytes` of device memory, aligned to 256 bytes."""
        return int(check(driver().cuMemAlloc(max(nbytes, 256)), f"allocating {nbytes / 1e6:.1f} MB on cuda:{self.ordinal}"))

    def free(self, address: int) -> None:
        """Give device memory back, once no work in flight uses it."""
        if address:
            driver().cuMemFree(address)

    def allocate_async(self, nbytes: int, stream: int) -> int:
        """As `allocate`, in stream order: only work that follows on `stream` may use it."""
        doing = f"allocating {nbytes / 1e6:.1f} MB on cuda:{self.ordinal}"
        return int(check(driver().cuMemAllocAsync(max(nbytes, 256), stream), doing))

    def free_async(self, address: int, stream: int) -> None:
        """Give back what `allocate_async` gave, once the work on `stream` so far is done."""
        driver().cuMemFreeAsync(address, stream)

    def pinned(self, nbytes: int) -> int:
        """The address of page-locked host memory, from which copies are asynchronous."""
        return int(check(driver().cuMemHostAlloc(max(nbytes, 1), 0), f"allocating {nbytes / 1e6:.1f} MB of pinned memory"))

    def free_pinned(self, address: int) -> None:
        driver().cuMemFreeHost(address)

    def upload(self, device: int, host: int, nbytes: int, stream: int) -> None:
        """Copy host to device in stream order; from pageable memory the call returns once the bytes are staged."""
        if nbytes:
            check(driver().cuMemcpyHtoDAsync(device, host, nbytes, stream), f"copying {nbytes} bytes to the GPU")

    def download(self, host: int, device: int, nbytes: int, stream: int) -> None:
        """Copy device to host in stream order."""
        if nbytes:
            check(driver().cuMemcpyDtoHAsync(host, device, nbytes, stream), f"copying {nbytes} bytes from the GPU")

    def copy_rows(
        self, target: int, target_pitch: int, source: int, source_pitch: int, width: int, rows: int, stream: int
    ) -> None:
        """Copy `rows` rows of `width` bytes within device memory; a pitch is the distance between rows' beginnings."""
        d = driver()
        p = d.CUDA_MEMCPY2D()
        p.srcMemoryType = p.dstMemoryType = d.CUmemorytype.CU_MEMORYTYPE_DEVICE
        p.srcDevice, p.srcPitch, p.dstDevice, p.dstPitch = source, source_pitch, target, target_pitch
        p.WidthInBytes, p.Height = width, rows
        check(d.cuMemcpy2DAsync(p, stream), f"copying {rows} rows of {width} bytes on the GPU")

    # Streams and events ---------------------------------------------------------------------------------------------

    def stream(self, priority: int = 0) -> int:
        """A new non-blocking stream; lower numbers are more urgent."""
        d = driver()
        flags = int(d.CUstream_flags.CU_STREAM_NON_BLOCKING)
        return int(check(d.cuStreamCreateWithPriority(flags, priority), "creating a stream"))

    def destroy_stream(self, stream: int) -> None:
        driver().cuStreamDestroy(stream)

    def synchronize(self, stream: int) -> None:
        """Wait for a stream; a fault of an earlier kernel is raised here."""
        check(driver().cuStreamSynchronize(stream), "running kernels")

    def synchronize_all(self) -> None:
        """Wait for all work on the GPU, other libraries' too."""
        check(driver().cuCtxSynchronize(), "running kernels")

    def event(self, *, timing: bool = False) -> int:
        d = driver()
        flags = 0 if timing else int(d.CUevent_flags.CU_EVENT_DISABLE_TIMING)
        return int(check(d.cuEventCreate(flags), "creating an event"))

    def record(self, event: int, stream: int) -> None:
        check(driver().cuEventRecord(event, stream), "recording an event")

    def wait(self, stream: int, event: int) -> None:
        """Work put on `stream` from now on follows what was before `event`; the caller does not wait."""
        check(driver().cuStreamWaitEvent(stream, event, 0), "ordering streams")

    def order(self, before: int, after: int) -> None:
        """Work put on stream `after` from now on follows what is on stream `before`."""
        event = self.event()
        self.record(event, before)
        self.wait(after, event)
        self.destroy_event(event)  # the driver keeps it until it is past

    def wait_event(self, event: int) -> None:
        """Wait until an event is past."""
        check(driver().cuEventSynchronize(event), "running kernels")

    def is_past(self, event: int) -> bool:
        """True where an event is past."""
        (status,) = driver().cuEventQuery(event)
        if status.name == "CUDA_ERROR_NOT_READY":
            return False
        check((status,), "running kernels")
        return True

    def elapsed_ms(self, start: int, end: int) -> float:
        """Milliseconds between two timing events, both past."""
        d = driver()
        check(d.cuEventSynchronize(end), "waiting for an event")
        return float(check(d.cuEventElapsedTime(start, end), "reading an event"))

    def destroy_event(self, event: int) -> None:
        driver().cuEventDestroy(event)

    # Code -----------------------------------------------------------------------------------------------------------

    def load_module(self, cubin: bytes, what: str) -> Any:
        """Load machine code; `what` names it in errors."""
        return check(driver().cuModuleLoadData(cubin), f"loading {what}")

    def function(self, module: Any, symbol: str, shared_bytes: int) -> Any:
        """A kernel of a loaded module, allowed `shared_bytes` of dynamic shared memory."""
        d = driver()
        function = check(d.cuModuleGetFunction(module, symbol.encode()), f"finding kernel {symbol}")
        if shared_bytes > 48 * 1024:  # beyond it a kernel has to opt in (CUDA programming guide, "Shared memory")
            attribute = d.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            doing = f"giving {symbol} {shared_bytes} bytes of shared memory"
            check(d.cuFuncSetAttribute(function, attribute, shared_bytes), doing)
        width = d.CUfunction_attribute.CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH
        if check(d.cuFuncGetAttribute(width, function), f"reading {symbol}'s cluster") > _PORTABLE_CLUSTER:
            attribute = d.CUfunction_attribute.CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED
            check(d.cuFuncSetAttribute(function, attribute, 1), f"allowing {symbol} its cluster")
        return function

    def unload_module(self, module: Any) -> None:
        driver().cuModuleUnload(module)

    def launch(
        self,
        function: Any,
        grid: Sequence[int],
        block: Sequence[int],
        shared_bytes: int,
        stream: int,
        params: int,
        early: bool = False,
    ) -> None:
        """Launch a kernel; `params` is the address of an array of addresses of its parameters.

        `early`: it may start before the kernel before it on the stream has ended, for which it waits by itself.
        """
        d = driver()
        if not early:
            check(d.cuLaunchKernel(function, *grid, *block, shared_bytes, stream, params, 0), "launching a kernel")
            return
        attribute = d.CUlaunchAttribute()
        attribute.id = d.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
        attribute.value.programmaticStreamSerializationAllowed = 1
        config = d.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = grid
        config.blockDimX, config.blockDimY, config.blockDimZ = block
        config.sharedMemBytes, config.hStream = shared_bytes, stream
        config.attrs, config.numAttrs = [attribute], 1
        check(d.cuLaunchKernelEx(config, function, params, 0), "launching a kernel")


_TENSOR_MAP_TYPES = {
    "f16": "FLOAT16",
    "bf16": "BFLOAT16",
    "f32": "FLOAT32",
    "i8": "UINT8",
    "f8E4M3FN": "UINT8",
    "f8E5M2": "UINT8",
    "i32": "INT32",
}


def tensor_map(
    dtype: str, address: int, shape: Sequence[int], strides: Sequence[int], box: Sequence[int], swizzle: int,
    im2col: tuple = (), steps: Sequence[int] = (),
) -> bytes:
    """The 128 bytes of a CUtensorMap (CUDA driver API, "Tensor Map Object Management").

    `shape` and `box` count elements, innermost first; `strides` are the byte strides of axes 1.., multiples of 16. Elements
    outside the tensor are read as zero. `im2col` and `steps` are those of `ingot.kernel_plan.TensorMapArg`.
    """
    d = driver()
    if im2col:
        lower, upper, channels, pixels = im2col
        encode, window = d.cuTensorMapEncodeIm2col, [list(lower), list(upper), channels, pixels]
    else:
        encode, window = d.cuTensorMapEncodeTiled, [[d.cuuint32_t(n) for n in box]]
    result = encode(
        getattr(d.CUtensorMapDataType, f"CU_TENSOR_MAP_DATA_TYPE_{_TENSOR_MAP_TYPES[dtype]}"),
        len(shape),
        address,
        [d.cuuint64_t(n) for n in shape],
        [d.cuuint64_t(n) for n in strides],
        *window,
        [d.cuuint32_t(n) for n in ((1, *steps, 1) if steps else [1] * len(shape))],
        d.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
        getattr(d.CUtensorMapSwizzle, "CU_TENSOR_MAP_SWIZZLE_" + (f"{swizzle}B" if swizzle else "NONE")),
        d.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
        d.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
    )
    described = f"{dtype}{list(shape)} strides {list(strides)} box {list(im2col or box)} swizzle {swizzle} at {address:#x}"
    encoded = check(result, f"encoding a tensor map of {described}")
    return ctypes.string_at(encoded.getPtr(), 128)
