"""A GPU that lies in host memory and keeps a log: what the CUDA runtime asks of the driver can be tested without one."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from ingot.errors import DeviceError
from ingot.runtime import cuda_plan

OK = 0


class FakeDriver:
    """The driver's graph calls; a graph node is a function, a grid, and the parameters that it was last given.

    Attributes:
        on_launch: called with each node's (name, grid, parameters) when its graph is launched.
    """

    class CUDA_KERNEL_NODE_PARAMS(SimpleNamespace):
        pass

    class CUgraphEdgeData:
        type, from_port, to_port = "default", 0, 0

    CUgraphDependencyType = SimpleNamespace(CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC="programmatic")
    CU_GRAPH_KERNEL_NODE_PORT_PROGRAMMATIC = 1

    def __init__(self) -> None:
        self.updates: list[Any] = []
        self.edges: list[tuple[int, int, bool]] = []  # (from, to, programmatic)
        self.replays = 0
        self._graphs: dict[int, list] = {}
        self.refuse = ""
        self.on_launch: Callable[[str, tuple, list[int]], None] = lambda name, grid, values: None

    @property
    def graphs(self) -> int:
        """Graphs that were made here, and not destroyed."""
        return len(self._graphs)

    def cuGraphCreate(self, flags: int) -> tuple:
        graph: list[Any] = []
        self._graphs[id(graph)] = graph
        return OK, graph

    def cuGraphAddKernelNode(self, graph: list, previous: Any, count: int, params: Any) -> tuple:
        assert count == len(previous or [])
        graph.append(_node(params))
        return OK, len(graph) - 1

    def cuGraphAddDependencies(self, graph: list, sources: list, nodes: list, edges: list, count: int) -> tuple:
        assert count == len(sources) == len(nodes) == len(edges) == 1
        self.edges.append((sources[0], nodes[0], edges[0].type == "programmatic" and edges[0].from_port == 1))
        return (OK,)

    def cuGraphInstantiate(self, graph: list, flags: int) -> tuple:
        if self.refuse == "instantiate":
            raise DeviceError("instantiating a CUDA graph: out of memory")
        return OK, graph

    def cuGraphExecKernelNodeSetParams(self, executable: list, node: int, params: Any) -> tuple:
        self.updates.append(node)
        executable[node] = _node(params)
        return (OK,)

    def cuGraphLaunch(self, executable: list, stream: int) -> tuple:
        self.replays += 1
        for node in executable:
            self.on_launch(*node)
        return (OK,)

    def cuGraphExecDestroy(self, executable: list) -> tuple:
        return (OK,)

    def cuGraphDestroy(self, graph: list) -> tuple:
        self._graphs.pop(id(graph), None)  # those of tests before may go only now
        return (OK,)


def _node(params: Any) -> tuple[str, tuple, list[int]]:
    """A node as the driver keeps it: it copies parameters when it is given them."""
    return params.func["name"], (params.gridDimX, params.gridDimY, params.gridDimZ), _values(params.func, params.kernelParams)


def _values(function: Any, params: int) -> list[int]:
    addresses = ctypes.cast(params, ctypes.POINTER(ctypes.c_void_p))
    return [ctypes.c_uint64.from_address(addresses[i]).value for i in range(function["params"])]


def install(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    """Let plans find a fake driver."""
    fake = FakeDriver()
    monkeypatch.setattr(cuda_plan, "driver", lambda: fake)
    monkeypatch.setattr(cuda_plan, "check", lambda result, doing: result[1] if len(result) == 2 else None)
    return fake


class FakeCuda:
    """As `ingot.runtime.cuda_driver.Cuda`. Copies happen at once; every call is an entry of `log`.

    Attributes:
        log: (what, ...) with handles of streams and events.
        memory: device and pinned memory that is allocated, by address.
        limit: bytes that may be allocated.
        on_launch: called with each launch's (name, grid, parameters).
        early: of each launch, whether it may start before the kernel before it has ended.
        events: those that exist.
        fault: an error that waiting raises from now on.
    """

    ordinal = 0
    overlaps = True

    def __init__(self) -> None:
        self.log: list[tuple] = []
        self.memory: dict[int, Any] = {}
        self.limit = 1 << 30
        self.on_launch: Callable[[str, tuple, list[int]], None] = lambda name, grid, values: None
        self.fault: DeviceError | None = None
        self.past: set[int] = set()
        self.early: list[bool] = []
        self.events: set[int] = set()
        self._handles = 100

    def named(self, *names: str) -> list[tuple]:
        """The log's entries of these names."""
        return [entry for entry in self.log if entry[0] in names]

    def _handle(self) -> int:
        self._handles += 1
        return self._handles

    def activate(self) -> None:
        if self.fault is not None:
            raise self.fault

    def activate_quietly(self) -> bool:
        return self.fault is None

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[bool]:
        yield self.activate_quietly()

    def _allocate(self, nbytes: int) -> int:
        if nbytes + sum(map(ctypes.sizeof, list(self.memory.values()))) > self.limit:
            raise DeviceError(f"allocating {nbytes} bytes: out of memory", cure="use smaller inputs")
        raw = (ctypes.c_uint8 * (max(nbytes, 256) + 256))()
        address = -(-ctypes.addressof(raw) // 256) * 256
        self.memory[address] = raw
        return address

    def allocate(self, nbytes: int) -> int:
        self.log.append(("allocate", nbytes))
        return self._allocate(nbytes)

    def allocate_async(self, nbytes: int, stream: int) -> int:
        self.log.append(("allocate_async", nbytes, stream))
        return self._allocate(nbytes)

    def free(self, address: int) -> None:
        if address:
            self.log.append(("free", address))
            del self.memory[address]

    def free_async(self, address: int, stream: int) -> None:
        self.log.append(("free_async", address, stream))
        del self.memory[address]

    def pinned(self, nbytes: int) -> int:
        self.log.append(("pinned", nbytes))
        return self._allocate(nbytes)

    def free_pinned(self, address: int) -> None:
        self.log.append(("free_pinned", address))
        del self.memory[address]

    def upload(self, device: int, host: int, nbytes: int, stream: int) -> None:
        self.log.append(("upload", nbytes, stream))
        ctypes.memmove(device, host, nbytes)

    def download(self, host: int, device: int, nbytes: int, stream: int) -> None:
        self.log.append(("download", nbytes, stream))
        ctypes.memmove(host, device, nbytes)

    def copy_rows(
        self, target: int, target_pitch: int, source: int, source_pitch: int, width: int, rows: int, stream: int
    ) -> None:
        assert rows == 1 or min(target_pitch, source_pitch) >= width
        self.log.append(("copy_rows", width * rows, stream))
        for i in range(rows):
            ctypes.memmove(target + i * target_pitch, source + i * source_pitch, width)

    def stream(self, priority: int = 0) -> int:
        handle = self._handle()
        self.log.append(("stream", handle, priority))
        return handle

    def destroy_stream(self, stream: int) -> None:
        self.log.append(("destroy_stream", stream))

    def synchronize(self, stream: int) -> None:
        self.log.append(("synchronize", stream))
        self.activate()

    def synchronize_all(self) -> None:
        self.log.append(("synchronize_all",))
        self.activate()

    def event(self, *, timing: bool = False) -> int:
        handle = self._handle()
        self.events.add(handle)
        return handle

    def destroy_event(self, event: int) -> None:
        self.events.remove(event)

    def elapsed_ms(self, start: int, end: int) -> float:
        return 0.5

    def record(self, event: int, stream: int) -> None:
        self.log.append(("record", event, stream))

    def wait(self, stream: int, event: int) -> None:
        self.log.append(("wait", stream, event))

    def order(self, before: int, after: int) -> None:
        self.log.append(("order", before, after))

    def wait_event(self, event: int) -> None:
        self.log.append(("wait_event", event))
        self.activate()

    def is_past(self, event: int) -> bool:
        return event in self.past

    def load_module(self, cubin: bytes, what: str) -> Any:
        self.log.append(("load_module", cubin))
        return cubin

    def unload_module(self, module: Any) -> None:
        self.log.append(("unload_module", module))

    def function(self, module: Any, symbol: str, shared_bytes: int) -> Any:
        return {"name": symbol, "params": 3}

    def launch(
        self, function: Any, grid: tuple, block: tuple, shared: int, stream: int, params: int, early: bool = False
    ) -> None:
        values = _values(function, params)
        self.log.append(("launch", function["name"], stream))
        self.early.append(early)
        self.on_launch(function["name"], grid, values)
