"""The plans of one shape: a plan, with a CUDA graph, for each segment between decisions of the host; and how a call walks them.

What a call finds on its way, iterations of loops and scalars that the host reads, are live sizes of the segments that depend on
them: one graph serves every iteration. A condition, or a trip count, that is an input of the caller's in host memory is read
there; any other is copied to pinned memory, and the host waits for an event behind the copy.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ingot import dims
from ingot.dtypes import DTYPES
from ingot.launch_program import BufferRef, HostReadStep, LaunchProgram
from ingot.runtime.cuda_driver import Cuda
from ingot.runtime.cuda_plan import Plan, bucket
from ingot.runtime.cuda_segments import Branch, Check, Node, Repeat, Segment, holds, segments


class HostReader:
    """Reads scalars from the device's memory, one at a time."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._slot = self._copied = 0

    def read(self, address: int, nbytes: int, stream: int) -> bytes:
        """The bytes at `address` (8 at most) after the work on `stream` so far."""
        if not self._slot:
            self._slot, self._copied = self._cuda.pinned(8), self._cuda.event()
        self._cuda.download(self._slot, address, nbytes, stream)
        self._cuda.record(self._copied, stream)
        self._cuda.wait_event(self._copied)
        return ctypes.string_at(self._slot, nbytes)

    def close(self) -> None:
        """Free the pinned memory; the GPU's context must be current."""
        if self._slot:
            self._cuda.free_pinned(self._slot)
            self._cuda.destroy_event(self._copied)
        self._slot = 0


@dataclass(frozen=True)
class Memory:
    """Where a call's buffers lie.

    Attributes:
        addresses: of every buffer that is not the arena's, by number.
        arena: base address.
        host: contents of inputs that the caller has in host memory, by number of the buffer.
    """

    addresses: list[int]
    arena: int
    host: Mapping[int, np.ndarray] = field(default_factory=dict)


class CallPlan:
    """Everything that calls of one shape launch.

    Args:
        functions: (kernel index, symbol, shared bytes) -> loaded function.
        env: values of the program's symbols when a call begins.
        live: those that may change without a new plan.
        skipped: outermost steps, by number, to leave out.

    Attributes:
        arena_bytes: what the arena must have.
        graphs: CUDA graphs made.
    """

    def __init__(
        self,
        cuda: Cuda,
        program: LaunchProgram,
        functions: Callable[[int, str, int], Any],
        env: Mapping[str, int],
        live: frozenset[str] = frozenset(),
        skipped: Iterable[int] = (),
    ) -> None:
        self.cuda, self.program, self._functions, self._live = cuda, program, functions, live
        self._planned = {name: bucket(v) if name in live else v for name, v in env.items()}
        self.arena_bytes = dims.evaluate(program.arena_bytes, self._planned)
        self.names = frozenset(env)
        self._nodes = segments(program, env, live, skipped)
        self._plans: dict[tuple, Plan] = {}
        self._runs: Counter[tuple] = Counter()  # of each plan, in the call before
        self.graphs = 0

    def run(self, memory: Memory, env: Mapping[str, int], stream: int, reader: HostReader, *, checked: bool = False) -> int:
        """Launch a call on `stream`; 0, or 1 + the number of the guard that failed on the way.

        Args:
            checked: wait after each kernel, so that a fault names its kernel and ONNX node.
        """
        self._runs.clear()
        if len(self._nodes) == 1 and isinstance(self._nodes[0], Segment):  # the host has nothing to find out on its way
            self.launch(self._nodes[0], memory, env, stream, checked)
            return 0
        return _Walk(self, memory, dict(env), stream, reader, checked).block(self._nodes)

    def launch(self, segment: Segment, memory: Memory, env: Mapping[str, int], stream: int, checked: bool) -> None:
        """Run a segment: kernel by kernel the first time, as a graph from the second on."""
        plan = self.plan(segment, env)
        changed = plan.bind(memory.addresses, memory.arena, env, stream)
        if checked:
            plan.run_checked(stream)
        elif plan.captured:
            plan.replay(changed, stream)
        elif plan.calls:
            plan.capture()
            self.graphs += 1
            plan.replay((), stream)
        else:
            plan.run(stream)
        plan.calls += 1

    def plan(self, segment: Segment, env: Mapping[str, int]) -> Plan:
        """The plan of a segment, to run once."""
        key = (segment.number, *(bucket(env[name]) for name in sorted(segment.sized)))
        self._runs[key] += 1
        found = self._plans.get(key)
        if found is None:
            live = self._live | segment.symbols
            found = self._plans[key] = Plan(self.cuda, self.program, segment.steps, self._functions, env, live)
        return found

    def base(self, number: int, memory: Memory) -> int:
        """The address of a buffer."""
        buffer = self.program.buffers[number]
        if buffer.kind == "arena":
            return memory.arena + dims.evaluate(buffer.offset, self._planned)
        return memory.addresses[number]

    def profile(self, stream: int, repeats: int = 10) -> list[dict[str, Any]]:
        """Median time of each launch of the segments that the call before ran, and how often; see `Plan.profile`."""
        rows = [(runs, self._plans[key].profile(stream, repeats)) for key, runs in sorted(self._runs.items())]
        return [{**row, "runs": runs} for runs, found in rows for row in found]

    def close(self) -> None:
        """Free all plans; no call may be in flight."""
        for plan in self._plans.values():
            plan.close()
        self._plans = {}


@dataclass
class _Walk:
    """One call."""

    plans: CallPlan
    memory: Memory
    env: dict[str, int]
    stream: int
    reader: HostReader
    checked: bool

    def block(self, nodes: Sequence[Node]) -> int:
        """Run nodes in order; the status of the guard that ended the call, or 0."""
        for node in nodes:
            status = 0
            match node:
                case Segment():
                    self._segment(node)
                case Check():
                    status = 0 if holds(node.guard, self.env) else node.status
                case HostReadStep():
                    self.env[node.symbol] = self._scalar(node.source, DTYPES[node.dtype].np)
                case Branch():
                    status = self.block(node.then if self._scalar(node.condition, np.dtype(np.bool_)) else node.otherwise)
                case Repeat():
                    status = self._repeat(node)
            if status:
                return status
        return 0

    def _repeat(self, node: Repeat) -> int:
        trips = dims.evaluate(node.trips, self.env)
        iteration = 0
        while iteration < trips and (node.condition is None or self._scalar(node.condition, np.dtype(np.bool_))):
            self.env[node.symbol] = iteration
            if status := self.block(node.body):
                return status
            iteration += 1
        return 0

    def _segment(self, segment: Segment) -> None:
        env = {name: v for name, v in self.env.items() if name in self.plans.names or name in segment.symbols}
        self.plans.launch(segment, self.memory, env, self.stream, self.checked)

    def _scalar(self, source: BufferRef, dtype: np.dtype) -> int:
        offset = dims.evaluate(source.offset, self.env)
        array = self.memory.host.get(source.buffer)
        if array is not None:
            data = array.reshape(-1).view(np.uint8)[offset : offset + dtype.itemsize].tobytes()
        else:
            data = self.reader.read(self.plans.base(source.buffer, self.memory) + offset, dtype.itemsize, self.stream)
        return int(np.frombuffer(data, dtype)[0])
