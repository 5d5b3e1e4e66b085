"""A launch program's steps for one set of sizes, cut into segments: what a GPU runs between two decisions of the host.

A program without control is one segment. A loop whose trip count the sizes give, and that holds nothing else for the host to
decide, is written out where it is small, so that it is part of the segment around it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ingot import dims
from ingot.dims import Dim
from ingot.dispatch import from_json
from ingot.launch_program import (
    BufferRef,
    DispatchStep,
    GuardStep,
    HostReadStep,
    IfStep,
    LaunchProgram,
    LoopStep,
    Step,
    all_steps,
    guards,
)
from ingot.runtime.cuda_plan import dispatch_symbols

MAX_UNROLLED = 256  # launches of a loop that is written out


@dataclass(frozen=True)
class Segment:
    """Dispatch steps that follow one another.

    Attributes:
        number: its own.
        symbols: those on which its launches depend and that a run finds: iterations of loops, and scalars read by the host.
        sized: those of `symbols` on which grids depend, or where in a workspace something lies.
    """

    number: int
    steps: tuple[DispatchStep, ...]
    symbols: frozenset[str]
    sized: frozenset[str]


@dataclass(frozen=True)
class Check:
    """The call ends with `status` unless the guard holds."""

    guard: GuardStep
    status: int


@dataclass(frozen=True)
class Branch:
    """`then` where the i1 at `condition` holds, else `otherwise`."""

    condition: BufferRef
    then: tuple[Node, ...]
    otherwise: tuple[Node, ...]


@dataclass(frozen=True)
class Repeat:
    """As `LoopStep`."""

    trips: Dim
    condition: BufferRef | None
    symbol: str
    body: tuple[Node, ...]


Node = Segment | Check | HostReadStep | Branch | Repeat


def entry_guards(program: LaunchProgram, symbols: Iterable[str]) -> list[Check]:
    """The guards that are checked before anything runs: those outside of control whose sizes `symbols` give."""
    known = set(symbols)
    outermost = {s for s in program.steps if isinstance(s, GuardStep) and dims.symbols_of((s.left, s.right)) <= known}
    return [Check(g, number + 1) for number, g in enumerate(guards(program)) if g in outermost]


def positions(program: LaunchProgram) -> frozenset[str]:
    """The elements of inputs, among the program's `values`, that only say where something lies or are data: neither memory, nor
    the shape of a tensor, nor a grid depends on them, so that one plan serves all of their values."""
    if not program.values:
        return frozenset()
    fixed = [d for spec in program.outputs for d in spec.shape] + [program.arena_bytes]
    fixed += [d for buffer in program.buffers for d in (buffer.bytes, buffer.offset)]
    for step in all_steps(program.steps):
        if isinstance(step, DispatchStep):
            entry = program.kernels[step.kernel]
            dispatch = from_json(json.loads(entry.dispatch))
            sizes = dict(zip(dispatch.symbols, step.sizes, strict=True))
            needed = [d for t in (*dispatch.operands, *dispatch.results) for d in (*t.shape, *t.strides)]
            needed += [d for x in entry.plan.launches for d in (*x.grid, *(arg.offset for arg in x.buffers))]
            fixed += [sizes[name] for name in dims.symbols_of(needed)]
    return frozenset(v.symbol for v in program.values) - dims.symbols_of(fixed)


def read_by_host(program: LaunchProgram) -> frozenset[int]:
    """The buffers in which the host looks on its way through a program."""
    found: set[int] = set()
    for step in all_steps(program.steps):
        match step:
            case HostReadStep():
                found.add(step.source.buffer)
            case IfStep():
                found.add(step.condition.buffer)
            case LoopStep() if step.condition is not None:
                found.add(step.condition.buffer)
    return frozenset(found)


def holds(guard: GuardStep, env: Mapping[str, int]) -> bool:
    """Whether a guard holds for values of its symbols."""
    left, right = dims.evaluate(guard.left, env), dims.evaluate(guard.right, env)
    return left == right if guard.relation == "eq" else left <= right


def segments(
    program: LaunchProgram, env: Mapping[str, int], live: frozenset[str] = frozenset(), skipped: Iterable[int] = ()
) -> tuple[Node, ...]:
    """A program's steps but for `entry_guards`.

    Args:
        env: values of the symbols that are known when a call begins.
        live: those of them that may change from call to call.
        skipped: outermost steps, by number, to leave out.
    """
    cutter = _Cutter(program, {name: v for name, v in env.items() if name not in live}, frozenset(env))
    left_out = set(skipped)
    return cutter.block([s for i, s in enumerate(program.steps) if i not in left_out], {})


@dataclass
class _Cutter:
    program: LaunchProgram
    fixed: Mapping[str, int]
    known: frozenset[str]
    count: int = 0
    statuses: dict[GuardStep, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.statuses = {g: i + 1 for i, g in reversed(list(enumerate(guards(self.program))))}
        self.early = {check.guard for check in entry_guards(self.program, self.known)}

    def block(self, steps: Sequence[Step], values: Mapping[str, Dim]) -> tuple[Node, ...]:
        """The nodes of steps, with `values` for the iterations of loops that are written out."""
        nodes: list[Node] = []
        run: list[DispatchStep] = []
        for item in self._items(steps, values):
            if isinstance(item, DispatchStep):
                run.append(item)
                continue
            if isinstance(item, HostReadStep) and self.program.buffers[item.source.buffer].kind == "input":
                nodes.append(item)  # nothing writes it: what comes before it need not end a segment
                continue
            nodes += self._segment(run)
            run = []
            nodes.append(item)
        return (*nodes, *self._segment(run))

    def _segment(self, run: Sequence[DispatchStep]) -> list[Node]:
        if not run:
            return []
        self.count += 1
        symbols = frozenset().union(*(_symbols(step) for step in run)) - self.known
        sized = frozenset().union(*(self._sized(step) for step in run)) & symbols
        return [Segment(self.count, tuple(run), symbols, sized)]

    def _sized(self, step: DispatchStep) -> frozenset[str]:
        entry = self.program.kernels[step.kernel]
        sizes = dict(zip(dispatch_symbols(entry.dispatch), step.sizes, strict=True))
        launches = entry.plan.launches
        fixed = [d for launch in launches for d in (*launch.grid, *(arg.offset for arg in launch.buffers))]
        return dims.symbols_of([sizes[name] for name in dims.symbols_of(fixed)])

    def _items(self, steps: Sequence[Step], values: Mapping[str, Dim]) -> Iterator[DispatchStep | Node]:
        for step in steps:
            match step:
                case DispatchStep():
                    yield _substituted(step, values)
                case HostReadStep():
                    yield replace(step, source=_placed(step.source, values))
                case GuardStep() if step not in self.early:
                    left, right = (dims.substitute(d, values) for d in (step.left, step.right))
                    guard = replace(step, left=left, right=right)
                    if not self._is_known_to_hold(guard):
                        yield Check(guard, self.statuses[step])
                case IfStep():
                    then, otherwise = (self.block(side, values) for side in (step.then, step.otherwise))
                    yield Branch(_placed(step.condition, values), then, otherwise)
                case LoopStep():
                    yield from self._loop(step, values)

    def _loop(self, step: LoopStep, values: Mapping[str, Dim]) -> Iterator[DispatchStep | Node]:
        trips = dims.substitute(step.trips, values)
        launches = self._launches((replace(step, trips=trips),))
        if launches is not None and launches <= MAX_UNROLLED:
            for i in range(dims.evaluate(trips, self.fixed)):
                yield from self._items(step.body, {**values, step.symbol: i})
            return
        condition = None if step.condition is None else _placed(step.condition, values)
        yield Repeat(trips, condition, step.symbol, self.block(step.body, values))

    def _is_known_to_hold(self, guard: GuardStep) -> bool:
        return dims.symbols_of((guard.left, guard.right)) <= self.fixed.keys() and holds(guard, self.fixed)

    def _launches(self, steps: Sequence[Step]) -> int | None:
        """How many kernels steps launch; None where that, or whether they run, is not known from sizes."""
        total = 0
        for step in steps:
            match step:
                case DispatchStep():
                    total += len(self.program.kernels[step.kernel].plan.launches)
                case LoopStep() if step.condition is None and dims.symbols_of((step.trips,)) <= self.fixed.keys():
                    inner = self._launches(step.body)
                    if inner is None:
                        return None
                    total += inner * max(dims.evaluate(step.trips, self.fixed), 0)
                case GuardStep() if self._is_known_to_hold(step):
                    pass
                case _:
                    return None
        return total


def _symbols(step: DispatchStep) -> frozenset[str]:
    references = [*step.operands, *step.results, *([step.workspace] if step.workspace is not None else [])]
    return dims.symbols_of([*step.sizes, *(r.offset for r in references)])


def _placed(reference: BufferRef, values: Mapping[str, Dim]) -> BufferRef:
    return replace(reference, offset=dims.substitute(reference.offset, values)) if values else reference


def _substituted(step: DispatchStep, values: Mapping[str, Dim]) -> DispatchStep:
    """A step with values for symbols."""
    if not values:
        return step
    return replace(
        step,
        operands=tuple(_placed(r, values) for r in step.operands),
        results=tuple(_placed(r, values) for r in step.results),
        workspace=None if step.workspace is None else _placed(step.workspace, values),
        sizes=tuple(dims.substitute(d, values) for d in step.sizes),
    )
