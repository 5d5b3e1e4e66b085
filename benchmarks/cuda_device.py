"""Run kernel plans on a GPU through the driver: what the kernel benchmark needs of a runtime, and no more.

Needs `cuda-bindings` and a GPU; memory and streams are PyTorch's.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from cuda.bindings import driver as cu

from ingot import dims
from ingot.compiler.codegen.family import emit
from ingot.compiler.toolchain.stages import Timings, compile_kernels
from ingot.dialects.mlir import kernel_context
from ingot.dispatch import Dispatch
from ingot.kernel_plan import BufferArg, KernelPlan, TensorMapArg
from ingot.target import Target

_MAP_TYPES = {
    "f16": "FLOAT16", "bf16": "BFLOAT16", "f32": "FLOAT32", "f64": "FLOAT64", "i32": "INT32", "i64": "INT64", "i16": "UINT16",
}  # fmt: skip


def check(result: tuple) -> Any:
    """The values of a driver call. Raises RuntimeError with the driver's words."""
    if result[0] != cu.CUresult.CUDA_SUCCESS:
        raise RuntimeError(f"{result[0].name}: {cu.cuGetErrorString(result[0])[1].decode()}")
    return result[1] if len(result) == 2 else result[1:]


@dataclass
class Kernel:
    """A dispatch compiled for the GPU at hand.

    Attributes:
        dispatch, plan: what was compiled.
        functions: the launches' functions, in order.
        seconds: of each stage of compilation.
    """

    dispatch: Dispatch
    plan: KernelPlan
    functions: list[Any]
    seconds: dict[str, float] = field(default_factory=dict)

    def bind(
        self, operands: Sequence[torch.Tensor], results: Sequence[torch.Tensor], sizes: Mapping[str, int] | None = None
    ) -> Callable[[], None]:
        """A function that launches the plan on PyTorch's current stream. Tensors are flat memory; element 0 is their first."""
        sizes = dict(sizes or {})
        memory = {("operand", i): t.data_ptr() for i, t in enumerate(operands)}
        memory |= {("result", i): t.data_ptr() for i, t in enumerate(results)}
        for kind, i, offset in self.dispatch.offsets:
            memory[kind, i] -= dims.evaluate(offset, sizes)
        nbytes = dims.evaluate(self.plan.workspace, sizes)
        keep: list[Any] = [*operands, *results]
        if nbytes:
            workspace = torch.empty(nbytes, dtype=torch.uint8, device="cuda")
            memory["workspace", 0] = workspace.data_ptr()
            keep.append(workspace)
        table = None
        if self.dispatch.symbols:
            table = torch.tensor([sizes[s] for s in self.dispatch.symbols], dtype=torch.int64, device="cuda")
            keep.append(table)
        calls = []
        for launch, function in zip(self.plan.launches, self.functions, strict=True):
            values: list[Any] = []
            for b in launch.buffers:
                address = memory[b.kind, b.index] + dims.evaluate(b.offset, sizes)
                values.append(ctypes.c_uint64(address) if isinstance(b, BufferArg) else _tensor_map(b, address, sizes))
            if table is not None:
                values.append(ctypes.c_uint64(table.data_ptr()))
            array = (ctypes.c_void_p * len(values))(*(ctypes.addressof(v) for v in values))
            grid = [dims.evaluate(d, sizes) for d in launch.grid]
            keep += [values, array]
            if all(grid):
                calls.append((function, grid, launch.block, launch.shared_bytes, ctypes.addressof(array)))

        def run() -> None:
            stream = torch.cuda.current_stream().cuda_stream
            for function, grid, block, shared, arguments in calls:
                check(cu.cuLaunchKernel(function, *grid, *block, shared, stream, arguments, 0))

        run.keep = keep  # type: ignore[attr-defined]
        return run


def _tensor_map(arg: TensorMapArg, address: int, sizes: Mapping[str, int]) -> Any:
    name = _MAP_TYPES.get(arg.dtype, "UINT8")
    shape = [dims.evaluate(d, sizes) for d in arg.shape]
    strides = [dims.evaluate(d, sizes) for d in arg.strides]
    swizzle = f"{arg.swizzle}B" if arg.swizzle else "NONE"
    if arg.im2col:
        lower, upper, channels, pixels = arg.im2col
        encode, window = cu.cuTensorMapEncodeIm2col, [list(lower), list(upper), channels, pixels]
    else:
        encode, window = cu.cuTensorMapEncodeTiled, [[cu.cuuint32_t(b) for b in arg.box]]
    tensor_map = check(encode(
        getattr(cu.CUtensorMapDataType, f"CU_TENSOR_MAP_DATA_TYPE_{name}"), len(shape), address,
        [cu.cuuint64_t(d) for d in shape], [cu.cuuint64_t(s) for s in strides],
        *window, [cu.cuuint32_t(n) for n in ((1, *arg.steps, 1) if arg.steps else [1] * len(shape))],
        cu.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
        getattr(cu.CUtensorMapSwizzle, f"CU_TENSOR_MAP_SWIZZLE_{swizzle}"),
        cu.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
        cu.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
    ))  # fmt: skip
    buffer = ctypes.create_string_buffer(128 + 64)
    aligned = (ctypes.addressof(buffer) + 63) // 64 * 64
    ctypes.memmove(aligned, tensor_map.getPtr(), 128)
    value = (ctypes.c_char * 128).from_address(aligned)
    value.owner = buffer
    return value


def build(dispatch: Dispatch, target: Target, schedule: Any = None) -> tuple[KernelPlan, bytes, dict[str, float]]:
    """The plan and machine code of a dispatch, and the seconds of each stage. It uses no GPU: other processes may do it."""
    timings = Timings()
    with kernel_context():
        emitted = emit(dispatch, target, schedule)
        cubin = compile_kernels(emitted.module, target.name, timings=timings)
    return emitted.plan, cubin, timings.seconds


def load(dispatch: Dispatch, plan: KernelPlan, cubin: bytes, seconds: dict[str, float]) -> Kernel:
    """What `build` made, ready to launch."""
    torch.cuda.current_device()
    module = check(cu.cuModuleLoadData(cubin))
    functions = []
    for launch in plan.launches:
        function = check(cu.cuModuleGetFunction(module, launch.symbol.encode()))
        if launch.shared_bytes > 48 << 10:
            attribute = cu.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
            check(cu.cuFuncSetAttribute(function, attribute, launch.shared_bytes))
        if math.prod(launch.cluster) > 8:
            attribute = cu.CUfunction_attribute.CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED
            check(cu.cuFuncSetAttribute(function, attribute, 1))
        functions.append(function)
    return Kernel(dispatch, plan, functions, seconds)


def compile_dispatch(dispatch: Dispatch, target: Target, schedule: Any = None) -> Kernel:
    """Compile and load a dispatch."""
    return load(dispatch, *build(dispatch, target, schedule))


def milliseconds(functions: Mapping[str, Callable[[], Any]], calls: int = 20, rounds: int = 7) -> dict[str, float]:
    """Median time of a call of each function, by CUDA graphs of `calls` calls, the functions taking turns."""
    stream = torch.cuda.Stream()
    graphs = {}
    for name, function in functions.items():
        with torch.cuda.stream(stream):
            for _ in range(3):
                function()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            for _ in range(calls):
                function()
        graphs[name] = graph
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, graph in graphs.items():
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            graph.replay()
            begin.record()
            graph.replay()
            end.record()
            end.synchronize()
            times[name].append(begin.elapsed_time(end) / calls)
    return {name: sorted(t)[len(t) // 2] for name, t in times.items()}
