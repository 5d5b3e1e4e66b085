"""What the CUDA runtime costs the host: processor time of a call, with a driver that does nothing. No GPU is needed.

    python benchmarks/host_time.py
    python benchmarks/host_time.py --layers 16 --calls 400 --profile

`decoded token`: a decoder whose caches are donated, one token a call; inputs and logits are numpy's. `arrays on the GPU`: an
encoder whose inputs lie there already, as the outputs do; with `stream`, on the user's stream. `numpy`: the same by numpy's
arrays. Driver calls cost nothing here; how many a call makes is printed beside its time, and nodes of graphs that were updated.
"""

from __future__ import annotations

import argparse
import cProfile
import ctypes
import gc
import pstats
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).parent.parent / "test"))
from fake_cuda import FakeDriver
from numpy_gpu import NumpyKernels, numpy_session

import ingot
from ingot.runtime import cuda_driver, cuda_plan
from ingot.runtime.cuda_array import CudaArray

HEADS, SIZE = 2, 8  # of an attention
WIDTH = HEADS * SIZE
PROMPT = 8


class _Success(int):
    name = "CUDA_SUCCESS"


_SUCCESS = _Success(0)


class IdleDriver:
    """The driver's calls, each of which succeeds at once; `calls` counts them by name."""

    CUDA_KERNEL_NODE_PARAMS, CUgraphEdgeData = SimpleNamespace, SimpleNamespace
    CUgraphDependencyType = SimpleNamespace(CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC=1)
    CUevent_flags = SimpleNamespace(CU_EVENT_DISABLE_TIMING=2)
    CUstream_flags = SimpleNamespace(CU_STREAM_NON_BLOCKING=1)
    CU_GRAPH_KERNEL_NODE_PORT_PROGRAMMATIC = 1
    CUresult = SimpleNamespace(CUDA_SUCCESS=0)

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self._next = 1 << 40
        self._pinned: list[Any] = []

    def __getattr__(self, name: str) -> Callable[..., tuple]:
        assert name.startswith("cu"), name

        def call(*args: Any) -> tuple:
            self.calls[name] += 1
            return self._answer(name, args)

        setattr(self, name, call)
        return call

    def _answer(self, name: str, args: tuple) -> tuple:
        if name == "cuMemHostAlloc":  # what host memory holds is written
            self._pinned.append((ctypes.c_uint8 * args[0])())
            return 0, ctypes.addressof(self._pinned[-1])
        if name in ("cuMemAlloc", "cuMemAllocAsync"):
            self._next += -(-args[0] // 256) * 256
            return 0, self._next
        if name in ("cuEventCreate", "cuStreamCreateWithPriority", "cuGraphCreate", "cuGraphAddKernelNode",
                    "cuGraphInstantiate", "cuCtxGetCurrent"):  # fmt: skip
            self._next += 256
            return 0, self._next
        if name == "cuEventQuery":
            return (_SUCCESS,)
        return (0,)


class IdleCuda(cuda_driver.Cuda):
    """A GPU of that driver's."""

    def __init__(self, functions: Callable[[Any, str, int], Any]) -> None:
        self.ordinal, self.overlaps, self._context = 0, True, 1
        self.function = functions  # type: ignore[method-assign]

    def load_module(self, cubin: bytes, what: str) -> Any:
        return cubin


def decoder(layers: int) -> onnx.ModelProto:
    """A decoder's graph: grouped caches that grow, a mask, an attention and a feed-forward network a layer."""
    rng = np.random.default_rng(0)
    f, weights, nodes = TensorProto.FLOAT, {}, []
    inputs: dict[str, tuple[int, list]] = {
        "input_ids": (TensorProto.INT64, ["B", "S"]),
        "attention_mask": (TensorProto.INT64, ["B", "T"]),
        "position_ids": (TensorProto.INT64, ["B", "S"]),
    }
    outputs: dict[str, tuple[int, list]] = {"logits": (f, ["B", "S", 32])}

    def node(op: str, ins: list[str], out: str, **attrs: Any) -> str:
        nodes.append(helper.make_node(op, ins, [out], **attrs))
        return out

    def weight(name: str, *shape: int) -> str:
        weights[name] = rng.standard_normal(shape, dtype=np.float32) / np.float32(np.sqrt(shape[0]))
        return name

    weights["split"] = np.array([0, 0, HEADS, SIZE], np.int64)
    weights["merge"] = np.array([0, 0, WIDTH], np.int64)
    weights["heads"] = np.array([1, 2], np.int64)
    x = node("Gather", [weight("embedding", 32, WIDTH), "input_ids"], "x")
    at = node("Cast", ["position_ids"], "at", to=f)
    x = node("Add", [x, node("Unsqueeze", [at, node("Constant", [], "last", value_ints=[-1])], "where")], "x_at")
    mask = node("Log", [node("Cast", ["attention_mask"], "mask_f", to=f)], "mask_log")
    mask = node("Unsqueeze", [mask, "heads"], "mask")
    for n in range(layers):
        q, k, v = (
            node("Reshape", [node("MatMul", [x, weight(f"w{c}{n}", WIDTH, WIDTH)], f"{c}{n}"), "split"], f"{c}h{n}")
            for c in "qkv"
        )
        q, k, v = (node("Transpose", [t], f"{t}t", perm=[0, 2, 1, 3]) for t in (q, k, v))
        for c, t in (("key", k), ("value", v)):
            inputs[f"past.{n}.{c}"] = (f, ["B", HEADS, "P", SIZE])
            outputs[f"present.{n}.{c}"] = (f, ["B", HEADS, "T", SIZE])
            node("Concat", [f"past.{n}.{c}", t], f"present.{n}.{c}", axis=2)
        scores = node("MatMul", [q, node("Transpose", [f"present.{n}.key"], f"kt{n}", perm=[0, 1, 3, 2])], f"s{n}")
        p = node("Softmax", [node("Add", [scores, mask], f"m{n}")], f"p{n}", axis=-1)
        o = node("Transpose", [node("MatMul", [p, f"present.{n}.value"], f"o{n}")], f"ot{n}", perm=[0, 2, 1, 3])
        x = node("Add", [x, node("MatMul", [node("Reshape", [o, "merge"], f"om{n}"), weight(f"wo{n}", WIDTH, WIDTH)], f"a{n}")],
                 f"xa{n}")  # fmt: skip
        h = node("Relu", [node("MatMul", [x, weight(f"up{n}", WIDTH, 32)], f"u{n}")], f"h{n}")
        x = node("Add", [x, node("MatMul", [h, weight(f"down{n}", 32, WIDTH)], f"d{n}")], f"x{n}")
    node("MatMul", [x, weight("head", WIDTH, 32)], "logits")
    return _model(nodes, inputs, outputs, weights)


def encoder(layers: int) -> onnx.ModelProto:
    """A network without states, with two inputs and two outputs."""
    rng = np.random.default_rng(0)
    nodes, weights, x = [], {}, "x"
    for n in range(layers):
        for c, (rows, columns) in (("u", (WIDTH, 32)), ("d", (32, WIDTH))):
            weights[f"{c}{n}"] = rng.standard_normal((rows, columns), dtype=np.float32)
            nodes.append(helper.make_node("MatMul", [x, f"{c}{n}"], [f"{c}p{n}"]))
            x = f"{c}t{n}"
            nodes.append(helper.make_node("Tanh", [f"{c}p{n}"], [x]))
        nodes.append(helper.make_node("Softmax", [x], [f"x{n}"], axis=-1))
        x = f"x{n}"
    nodes.append(helper.make_node("Mul", [x, "scale"], ["y"]))
    nodes.append(helper.make_node("ReduceSum", ["y"], ["sum"], keepdims=0))
    f = TensorProto.FLOAT
    shape = ["B", "S", WIDTH]
    return _model(nodes, {"x": (f, shape), "scale": (f, shape)}, {"y": (f, shape), "sum": (f, [])}, weights)


def _model(nodes: list, inputs: dict, outputs: dict, weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    infos = ([helper.make_tensor_value_info(n, t, s) for n, (t, s) in them.items()] for them in (inputs, outputs))
    graph = helper.make_graph(nodes, "host", *infos, [numpy_helper.from_array(a, n) for n, a in weights.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def idle_session(model: onnx.ModelProto, patch: pytest.MonkeyPatch, driver: IdleDriver) -> tuple[ingot.Session, IdleCuda]:
    """A session whose kernels and driver do nothing."""
    for module in (cuda_driver, cuda_plan):
        patch.setattr(module, "driver", lambda: driver)
    made: list[NumpyKernels] = []
    begin = NumpyKernels.__init__

    def idle(self: NumpyKernels, *args: Any) -> None:
        begin(self, *args)
        self.cuda = IdleCuda(lambda module, symbol, shared: symbol)  # type: ignore[assignment]
        made.append(self)

    patch.setattr(NumpyKernels, "__init__", idle)
    session, _ = numpy_session(ingot.compile(model), FakeDriver(), patch, specialize="eager")
    patch.setattr(NumpyKernels, "__init__", begin)
    return session, made[0].cuda  # type: ignore[return-value]


def tokens(session: ingot.Session) -> Callable[[], None]:
    """A function that decodes one more token."""
    bound = session.bind(donate=True, capacity=4096)

    def step(count: int = 1) -> None:
        position = step.position  # type: ignore[attr-defined]
        step.position = position + count  # type: ignore[attr-defined]
        bound.run(["logits"], {
            "input_ids": np.zeros((1, count), np.int64),
            "attention_mask": np.ones((1, position + count), np.int64),
            "position_ids": np.arange(position, position + count)[None],
        })  # fmt: skip

    step.position = 0  # type: ignore[attr-defined]
    step(PROMPT)
    return step


def calls(session: ingot.Session, cuda: IdleCuda, where: str) -> Callable[[], None]:
    """A function that calls an encoder."""
    x = np.zeros((4, 128, WIDTH), np.float32)
    feeds: dict[str, Any] = {"x": x, "scale": x}
    if where != "numpy":
        feeds = {name: CudaArray.empty(cuda, x.shape, x.dtype) for name in feeds}  # type: ignore[arg-type]
    stream = 1 if where == "stream" else None
    return lambda: session.run(None, feeds, stream=stream) and None


def measure(name: str, call: Callable[[], None], driver: IdleDriver, count: int, profile: bool) -> None:
    """Print the median of calls in the steady state."""
    for _ in range(8):
        call()
    driver.calls.clear()
    seconds = []
    for _ in range(count):
        begin = time.process_time_ns()
        call()
        seconds.append(time.process_time_ns() - begin)
    total = sum(driver.calls.values()) / count
    updates = driver.calls["cuGraphExecKernelNodeSetParams"] / count
    tenth, median = (float(np.quantile(seconds, q)) / 1e3 for q in (0.1, 0.5))
    counts = f"{total:6.1f} driver calls, {updates:.1f} of them update nodes"
    print(f"{name:20} {median:8.1f} us (best tenth {tenth:.1f})   {counts}")
    if profile:
        profiler = cProfile.Profile()
        profiler.enable()
        for _ in range(count):
            call()
        profiler.disable()
        pstats.Stats(profiler).sort_stats("tottime").print_stats(25)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    args = parser.parse_args()
    driver = IdleDriver()
    with pytest.MonkeyPatch.context() as patch:
        session, _ = idle_session(decoder(args.layers), patch, driver)
        measure("decoded token", tokens(session), driver, args.calls, args.profile)
        session.close()
        session, cuda = idle_session(encoder(args.layers), patch, driver)
        for where in ("arrays on the GPU", "stream", "numpy"):
            measure(where, calls(session, cuda, where), driver, args.calls, args.profile)
        session.close()
        del session, cuda
        gc.collect()  # while the driver is there


if __name__ == "__main__":
    main()
