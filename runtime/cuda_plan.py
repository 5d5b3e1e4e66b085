"""A launch program made concrete for one set of sizes on one GPU: every launch with its grid and parameters, and a CUDA graph.

A plan is immutable but for three things that change from call to call: the addresses of the caller's inputs and outputs, the
values of live dimensions, and with them the size table. Launches that depend on any of these are *volatile*: their parameters
are rewritten in place, and in the graph's kernel nodes, instead of capturing the graph again.

Live dimensions (a KV cache's length) are rounded up to a bucket for everything that is fixed in a plan (grids, arena offsets);
kernels read the true values from the size table.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from ingot import dims
from ingot.dims import Dim
from ingot.dispatch import from_json
from ingot.errors import DeviceError
from ingot.kernel_plan import BufferArg, KernelLaunch, TensorMapArg
from ingot.launch_program import BufferRef, DispatchStep, LaunchProgram
from ingot.runtime.cuda_driver import Cuda, check, driver, tensor_map
from ingot.runtime.shape_binding import compile_sizes, values_of

MIN_BUCKET = 64  # the smallest bucket of a live dimension


def bucket(value: int) -> int:
    """The size that a live dimension of `value` is planned for: the next power of two, at least `MIN_BUCKET`."""
    return max(MIN_BUCKET, 1 << (value - 1).bit_length()) if value > 0 else MIN_BUCKET


@dataclass
class _Launch:
    """One kernel launch: its constant part, its parameters' storage, and what they are made from."""

    function: Any
    launch: KernelLaunch
    step: DispatchStep
    symbols: tuple[str, ...]
    grid: tuple[int, int, int]
    storage: list[Any] = field(default_factory=list)
    params: Any = None
    volatile: bool = False  # its parameters change with the caller's memory
    live: bool = False  # and with live sizes
    tensor_maps: bool = False  # some of them are tensor maps
    pointers: list[tuple[Any, int, int]] | None = None  # storage, buffer, offset, where nothing of these is live
    early: bool = False
    node: Any = None
    node_params: Any = None
    name: str = ""

    def launch_on(self, cuda: Cuda, stream: int, early: bool = False) -> None:
        params = ctypes.addressof(self.params)
        cuda.launch(self.function, self.grid, self.launch.block, self.launch.shared_bytes, stream, params, early)


class Plan:
    """A segment of dispatch steps at fixed sizes.

    Args:
        cuda: the GPU.
        program: the launch program.
        steps: its dispatch steps to run, in order.
        functions: (kernel index, symbol) -> loaded function.
        env: values of the program's symbols.
        live: symbols that may change without a new plan.

    Attributes:
        arena_bytes: what the arena must have.
        calls: calls that used this plan; the user's to count.
    """

    def __init__(
        self,
        cuda: Cuda,
        program: LaunchProgram,
        steps: Sequence[DispatchStep],
        functions: Callable[[int, str, int], Any],
        env: Mapping[str, int],
        live: frozenset[str] = frozenset(),
    ) -> None:
        self.calls = 0
        self.cuda, self.program, self.live = cuda, program, live
        self.planned = {name: bucket(v) if name in live else v for name, v in env.items()}
        self.arena_bytes = dims.evaluate(program.arena_bytes, self.planned)
        kinds = [(number, b.kind) for number, b in enumerate(program.buffers)]
        self._offsets = [(n, dims.evaluate(program.buffers[n].offset, self.planned)) for n, kind in kinds if kind == "arena"]
        self._callers = [n for n, kind in kinds if kind in ("input", "output")]
        self._fixed_addresses = values_of([n for n, kind in kinds if kind in ("weight", "packed")])
        self._live_names = sorted(live & self.planned.keys())
        self._live_values = values_of(self._live_names)
        self._values: tuple[int, ...] | None = None  # of live symbols, at the call before
        self._given: tuple[list[int], int] = [], 0  # addresses and the arena's, likewise
        self.sizes: list[Dim] = []
        self._size_table = 0
        self._addresses: list[int] = []
        self._graph: Any = None
        self._executable: Any = None
        self.launches: list[_Launch] = []
        table: list[tuple[_Launch, int]] = []
        for step in steps:
            entry = program.kernels[step.kernel]
            first = len(self.sizes)
            self.sizes += step.sizes
            for launch in entry.plan.launches:
                grid = self._grid(launch, step)
                if 0 in grid:
                    continue  # nothing to do at these sizes
                record = _Launch(functions(step.kernel, launch.symbol, launch.shared_bytes), launch, step,
                                 dispatch_symbols(entry.dispatch), grid, name=f"{launch.symbol} {step.node}")  # fmt: skip
                record.volatile, record.live = self._is_volatile(record), self._is_live(record)
                record.tensor_maps = any(isinstance(arg, TensorMapArg) for arg in launch.buffers)
                # The first waits for what is not a kernel: copies, and the plan's last call.
                record.early = launch.overlaps and cuda.overlaps and bool(self.launches)
                self.launches.append(record)
                table.append((record, first))
        self._changing = [record for record in self.launches if record.volatile or record.live]
        self._growth: _Growth | None = None
        self._table = (ctypes.c_int64 * len(self.sizes))()
        if self.sizes:
            self._size_table = cuda.allocate(8 * len(self.sizes))
        for record, first in table:
            self._make_storage(record, self._size_table + 8 * first)

    def close(self) -> None:
        """Free the graph and the size table; no call may be in flight."""
        d = driver()
        if self._executable is not None:
            d.cuGraphExecDestroy(self._executable)
            d.cuGraphDestroy(self._graph)
            self._executable = self._graph = None
        self.cuda.free(self._size_table)
        self._size_table = 0

    @property
    def captured(self) -> bool:
        """True once the launches stand in a CUDA graph."""
        return self._executable is not None

    # Construction ---------------------------------------------------------------------------------------------------

    def local(self, step: DispatchStep, symbols: Sequence[str], env: Mapping[str, int]) -> dict[str, int]:
        """The values of a step's kernel's symbols."""
        return {name: dims.evaluate(value, env) for name, value in zip(symbols, step.sizes, strict=True)}

    def _grid(self, launch: KernelLaunch, step: DispatchStep) -> tuple[int, int, int]:
        local = self.local(step, dispatch_symbols(self.program.kernels[step.kernel].dispatch), self.planned)
        x, y, z = (dims.evaluate(n, local) for n in launch.grid)
        return x, y, z

    def reference(self, record: _Launch, arg: BufferArg | TensorMapArg) -> BufferRef:
        """Where an argument of a launch lies."""
        step = record.step
        if arg.kind == "workspace":
            assert step.workspace is not None, f"{record.launch.symbol} needs a workspace"
            return step.workspace
        return (step.operands if arg.kind == "operand" else step.results)[arg.index]

    def _is_volatile(self, record: _Launch) -> bool:
        for arg in record.launch.buffers:
            reference = self.reference(record, arg)
            if self.program.buffers[reference.buffer].kind in ("input", "output"):
                return True
        return False

    def _is_live(self, record: _Launch) -> bool:
        for arg in record.launch.buffers:
            reference = self.reference(record, arg)
            if dims.symbols(reference.offset) & self.live:
                return True
            if isinstance(arg, TensorMapArg) and dims.symbols_of(record.step.sizes) & self.live:
                return True
        return False

    def _make_storage(self, record: _Launch, size_table: int) -> None:
        for arg in record.launch.buffers:
            if isinstance(arg, TensorMapArg):
                # cuLaunchKernel copies 128 bytes from an address that should be aligned to 64.
                raw = (ctypes.c_uint8 * 192)()
                offset = -ctypes.addressof(raw) % 64
                record.storage.append((raw, ctypes.addressof(raw) + offset))
            else:
                value = ctypes.c_uint64()
                record.storage.append((value, ctypes.addressof(value)))
        if record.symbols:
            value = ctypes.c_uint64(size_table)
            record.storage.append((value, ctypes.addressof(value)))
        record.params = (ctypes.c_void_p * max(len(record.storage), 1))(*(address for _, address in record.storage))

    # Calls ----------------------------------------------------------------------------------------------------------

    def bind(self, addresses: list[int], arena: int, env: Mapping[str, int], stream: int) -> list[_Launch]:
        """Write parameters for this call; the launches whose parameters changed.

        Args:
            addresses: base address of every buffer that is not the arena's, by number.
            env: values of the live symbols, at least; all others have those that were planned for.
        """
        values = self._live_values(env)
        first, grown = self._values is None, values != self._values
        same = not first and arena == self._given[1] and (addresses is self._given[0] or addresses == self._given[0])
        if same and not grown:
            return []
        changed: list[_Launch] = []
        if same:  # an iteration of a loop, or a state that grew
            changed = self._grows().write(self._addresses, values)
        else:
            fixed = self._fixed_addresses(addresses)
            moved = first or arena != self._given[1] or fixed != self._fixed_addresses(self._given[0])
            if moved:
                # A specialized program has other workspaces, behind the buffers that its calls place.
                resolved = addresses + [0] * (len(self.program.buffers) - len(addresses))
                for number, offset in self._offsets:
                    resolved[number] = arena + offset
            else:
                resolved = self._addresses.copy()
                for number in self._callers:
                    resolved[number] = addresses[number]
            self._addresses = resolved
            live_env: Mapping[str, int] | None = None
            for record in self.launches if moved else self._changing:
                if not (moved or record.volatile or grown):
                    continue
                if record.live or record.tensor_maps:
                    live_env = live_env or self._complete(values)
                    self.write(record, resolved, live_env)
                    changed.append(record)
                elif self._point(record, resolved):
                    changed.append(record)
        if self.sizes and (first or (grown and self.live)):
            self._write_sizes(values, stream)
        self._values, self._given = values, (addresses, arena)
        return changed

    def _complete(self, values: tuple[int, ...]) -> dict[str, int]:
        """The values of all symbols, from those of the live ones."""
        return {**self.planned, **dict(zip(self._live_names, values, strict=True))}

    def _write_sizes(self, values: tuple[int, ...], stream: int) -> None:
        """Bring the size table to the GPU, or the part of it that live sizes change."""
        table, begin, end = self._table, 0, len(self._table)
        if self._values is None:
            env = self._complete(values)
            for number, d in enumerate(self.sizes):
                table[number] = dims.evaluate(d, env)
        else:
            begin, end = self._grows().write_sizes(table, values)
        if begin < end:
            address = ctypes.addressof(table) + 8 * begin
            self.cuda.upload(self._size_table + 8 * begin, address, 8 * (end - begin), stream)

    def _grows(self) -> _Growth:
        if self._growth is None:  # not before it is needed: compiling takes as long as many calls
            self._growth = _Growth(self, self._live_names)
        return self._growth

    def _point(self, record: _Launch, addresses: Sequence[int]) -> bool:
        """Write the parameters of a launch whose pointers lie at known distances from buffers; whether one of them changed."""
        if record.pointers is None:
            local = self.local(record.step, record.symbols, self.planned)
            record.pointers = []
            for arg, (storage, _) in zip(record.launch.buffers, record.storage, strict=False):
                reference = self.reference(record, arg)
                offset = dims.evaluate(reference.offset, self.planned) + dims.evaluate(arg.offset, local)
                record.pointers.append((storage, reference.buffer, offset))
        changed = False
        for storage, number, offset in record.pointers:
            address = addresses[number] + offset
            if storage.value != address:
                storage.value, changed = address, True
        return changed

    def write(self, record: _Launch, addresses: Sequence[int], env: Mapping[str, int]) -> None:
        """Write a launch's parameters."""
        local: dict[str, int] | None = None
        planned_local: dict[str, int] | None = None
        for arg, (storage, address) in zip(record.launch.buffers, record.storage, strict=False):
            reference = self.reference(record, arg)
            base = addresses[reference.buffer] + dims.evaluate(reference.offset, env)
            if arg.offset:
                if planned_local is None:
                    planned_local = self.local(record.step, record.symbols, self.planned)
                base += dims.evaluate(arg.offset, planned_local)
            if isinstance(arg, BufferArg):
                storage.value = base
                continue
            if local is None:
                local = self.local(record.step, record.symbols, env)
            shape = [dims.evaluate(n, local) for n in arg.shape]
            strides = [dims.evaluate(n, local) for n in arg.strides]
            encoded = tensor_map(arg.dtype, base, shape, strides, arg.box, arg.swizzle, arg.im2col, arg.steps)
            ctypes.memmove(address, encoded, 128)

    def run(self, stream: int) -> None:
        """Launch everything on `stream`, kernel by kernel."""
        for record in self.launches:
            record.launch_on(self.cuda, stream, record.early)

    def run_checked(self, stream: int) -> None:
        """As `run`, waiting after each kernel, so that a fault names its kernel and ONNX node."""
        for record in self.launches:
            try:
                record.launch_on(self.cuda, stream)
                self.cuda.synchronize(stream)
            except DeviceError as e:
                raise DeviceError(f"kernel {record.launch.symbol} failed: {e}", node=record.step.node or None) from e

    def capture(self) -> None:
        """Make a CUDA graph of the launches with their current parameters: a chain of kernel nodes."""
        d = driver()
        graph = check(d.cuGraphCreate(0), "creating a CUDA graph")
        previous: Any = None
        try:
            for record in self.launches:
                doing = f"adding {record.name} to a CUDA graph"
                node = check(d.cuGraphAddKernelNode(graph, None, 0, self._node_params(record)), doing)
                if previous is not None:
                    check(d.cuGraphAddDependencies(graph, [previous], [node], [_edge(record.early)], 1), doing)
                record.node = previous = node
            self._executable = check(d.cuGraphInstantiate(graph, 0), "instantiating a CUDA graph")
        except DeviceError:  # memory may be there at the next call
            d.cuGraphDestroy(graph)
            raise
        self._graph = graph

    def _node_params(self, record: _Launch) -> Any:
        """How a launch stands in the graph; its parameters are where they always are, and the driver copies them."""
        if record.node_params is not None:
            return record.node_params
        p = driver().CUDA_KERNEL_NODE_PARAMS()
        p.func = record.function
        p.gridDimX, p.gridDimY, p.gridDimZ = record.grid
        p.blockDimX, p.blockDimY, p.blockDimZ = record.launch.block
        p.sharedMemBytes = record.launch.shared_bytes
        p.kernelParams = ctypes.addressof(record.params)
        record.node_params = p
        return p

    def replay(self, changed: Sequence[_Launch], stream: int) -> None:
        """Launch the graph, after giving `changed` launches their new parameters."""
        d = driver()
        for record in changed:
            check(d.cuGraphExecKernelNodeSetParams(self._executable, record.node, self._node_params(record)),
                  f"updating {record.name} in a CUDA graph")  # fmt: skip
        check(d.cuGraphLaunch(self._executable, stream), "launching a CUDA graph")

    def _traffic(self, record: _Launch, local: Mapping[str, int]) -> int:
        """Bytes that a product moves at least: each element of its tensors once. 0 for launches that multiply nothing."""
        if record.launch.flops == 0:
            return 0
        dispatch = from_json(json.loads(self.program.kernels[record.step.kernel].dispatch))
        total = 0
        for t in (*dispatch.operands, *dispatch.results):
            elements = dims.product(d for d, s in zip(t.shape, t.strides, strict=True) if s != 0)
            total += -(-dims.evaluate(elements, local) * t.type.bits // 8)
        return total

    def profile(self, stream: int, repeats: int = 10) -> list[dict[str, Any]]:
        """Median time of each launch, in ms, with the flops and bytes its plan counts, and in which arithmetic (see
        `ingot.cuda_targets.DeviceFacts.peak`); `runs` is 1."""
        rows = []
        cuda = self.cuda
        events = [(cuda.event(timing=True), cuda.event(timing=True)) for _ in self.launches]
        times: list[list[float]] = [[] for _ in self.launches]
        for _ in range(repeats):
            for record, (start, end) in zip(self.launches, events, strict=True):
                cuda.record(start, stream)
                record.launch_on(cuda, stream)
                cuda.record(end, stream)
            for samples, (start, end) in zip(times, events, strict=True):
                samples.append(cuda.elapsed_ms(start, end))
        for record, samples, pair in zip(self.launches, times, events, strict=True):
            local = self.local(record.step, record.symbols, self._complete(self._values or self._live_values(self.planned)))
            rows.append({
                "kernel": record.launch.symbol,
                "node": record.step.node,
                "runs": 1,
                "ms": sorted(samples)[len(samples) // 2],
                "flops": dims.evaluate(record.launch.flops, local),
                "bytes": dims.evaluate(record.launch.bytes, local) or self._traffic(record, local),
                "arithmetic": _arithmetic(self.program.kernels[record.step.kernel].dispatch),
            })  # fmt: skip
            for event in pair:
                cuda.destroy_event(event)
        return rows


class _Growth:
    """What a plan rewrites when nothing but live sizes has changed since the call before, which is what most calls find: the
    entries of the size table that depend on them, and of launches whose views begin where they say, and that do not find it out
    by themselves (`ingot.dispatch.Dispatch.offsets`), addresses and tensor maps; by functions compiled once.

    Args:
        plan: whose launches are complete.
        names: of the live symbols.
    """

    def __init__(self, plan: Plan, names: Sequence[str]) -> None:
        self._plan = plan
        self._records = [record for record in plan.launches if record.live]
        fixed = {name: value for name, value in plan.planned.items() if name not in plan.live}
        # Launches with tensor maps that depend on live sizes are written whole.
        self._mapped, offsets = list[_Launch](), list[Dim]()
        self._moving: list[tuple[Any, int, int]] = []
        for record in self._records:
            if record.tensor_maps:
                self._mapped.append(record)
                continue
            local = plan.local(record.step, record.symbols, plan.planned)
            for arg, (storage, _) in zip(record.launch.buffers, record.storage, strict=False):
                reference = plan.reference(record, arg)
                if dims.symbols(reference.offset) & plan.live:
                    self._moving.append((storage, reference.buffer, dims.evaluate(arg.offset, local)))
                    offsets.append(dims.substitute(reference.offset, fixed))
        self._offsets = compile_sizes(names, offsets)
        self._numbers = [i for i, d in enumerate(plan.sizes) if dims.symbols(d) & plan.live]
        self._values = compile_sizes(names, [dims.substitute(plan.sizes[i], fixed) for i in self._numbers])

    def write(self, addresses: Sequence[int], values: tuple[int, ...]) -> list[_Launch]:
        """Write parameters for values of the live symbols; the launches whose parameters changed."""
        if not self._records:
            return []
        for (storage, number, inside), offset in zip(self._moving, self._offsets(*values), strict=True):
            storage.value = addresses[number] + inside + offset
        for record in self._mapped:
            self._plan.write(record, addresses, self._plan._complete(values))
        return self._records

    def write_sizes(self, table: Any, values: tuple[int, ...]) -> tuple[int, int]:
        """Write the size table's entries; where those that may have changed begin and end."""
        for number, value in zip(self._numbers, self._values(*values), strict=True):
            table[number] = value
        return (self._numbers[0], self._numbers[-1] + 1) if self._numbers else (0, 0)


def _edge(early: bool) -> Any:
    """How a kernel node depends on the one before it. `early`: it starts when all blocks there have let it (PTX ISA,
    "griddepcontrol"), as kernels on a stream do with CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION."""
    d = driver()
    edge = d.CUgraphEdgeData()
    if early:
        edge.type = d.CUgraphDependencyType.CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC
        edge.from_port = d.CU_GRAPH_KERNEL_NODE_PORT_PROGRAMMATIC
    return edge


def _arithmetic(dispatch_text: str) -> str:
    """What a dispatch's flops are: `f32`, `tf32`, `f64`, `i8`, or the bits of a tensor core's floats."""
    dispatch = from_json(json.loads(dispatch_text))
    if dispatch.root not in ("matmul", "conv", "attention"):
        return "f32"
    bits = max(x.type.bits for x in dispatch.operands[:2])
    if {x.dtype for x in dispatch.operands[:2]} == {"i8"}:
        return "i8"
    if bits == 32:
        return "tf32" if dispatch.attr("tf32", False) else "f32"
    return "f64" if bits == 64 else str(bits)


@lru_cache(maxsize=4096)
def dispatch_symbols(dispatch_text: str) -> tuple[str, ...]:
    """The symbols of a kernel's dispatch, in size-table order."""
    return tuple(json.loads(dispatch_text)["symbols"]) if dispatch_text else ()
