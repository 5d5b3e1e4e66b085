"""From a planned module of AOT IR to a launch program, and the distinct dispatches that it launches.

The program that `build_program` gives is a draft: its kernels have dispatches but neither keys nor plans yet, since kernels
compile elsewhere and in parallel; `ingot.program_linking.link` completes it. See `ingot-plan-buffers` for the attributes
that say where results lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ingot import dims
from ingot.compiler.dispatch_builder import BuiltDispatch, Place, PlaceResolver, build_dispatch
from ingot.dialects import ingot as dialect
from ingot.dialects.mlir import ir
from ingot.dialects.plain import attribute
from ingot.dims import Dim
from ingot.dispatch import Dispatch
from ingot.dtypes import DTYPES
from ingot.errors import CompileError
from ingot.kernel_plan import KernelPlan
from ingot.launch_program import (
    Binding,
    Buffer,
    BufferRef,
    Definition,
    DispatchStep,
    GuardStep,
    HostReadStep,
    IfStep,
    KernelEntry,
    LaunchProgram,
    LoopStep,
    State,
    Step,
    TensorSpec,
    ValueBinding,
)
from ingot.passes.diagnostics import node_name
from ingot.strided_view import StridedView
from ingot.target import Target


@dataclass(frozen=True)
class DraftProgram:
    """A launch program whose kernels have no keys and plans yet, and their dispatches, in the same order."""

    program: LaunchProgram
    dispatches: tuple[Dispatch, ...]


def build_program(module: ir.Module, target: Target) -> DraftProgram:
    """The draft of the module's launch program for `target`.

    Raises:
        CompileError: the module was not planned, or holds what a launch program cannot.
    """
    func = dialect.main_func(module)
    packing = dialect.find_func(module, dialect.PACKING_FUNC)
    states = _states(func)
    try:
        return _Builder(func, packing, target, states).build()
    except CompileError:
        if not states:
            raise
        # A grown state has gaps in memory, and some view of it needs it whole: without donation it has none.
        return _Builder(func, packing, target, ()).build()


def _states(func: ir.Operation) -> tuple[State, ...]:
    if "ingot.states" not in func.attributes:
        return ()
    rows: Any = attribute(func.attributes["ingot.states"])
    return tuple(
        State(i, o, axis, dims.as_dim(kept), dims.as_dim(length), f"kept_capacity_{n}", f"capacity_{n}")
        for n, (i, o, axis, kept, length) in enumerate(rows)
    )


@dataclass
class _Builder:
    func: ir.Operation
    packing: ir.Operation | None
    target: Target
    states: tuple[State, ...]
    buffers: list[Buffer] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    entries: list[KernelEntry] = field(default_factory=list)
    dispatches: list[Dispatch] = field(default_factory=list)
    definitions: list[Definition] = field(default_factory=list)
    shaping: set[str] = field(default_factory=set)  # symbols on which shapes of tensors depend

    def build(self) -> DraftProgram:
        block = self.func.regions[0].blocks[0]
        operations = [op.operation for op in block.operations]
        self.block = block
        self.kernel_numbers: dict[str, int] = {}
        self.weights: dict[str, int] = {}
        self.bases: dict[ir.Value, int] = {}
        outputs = [op for op in operations if op.name == "ingot.output"]
        inputs, bindings = self._inputs()
        self._memory(outputs)
        packing = self._packing()
        live = frozenset(s for state in self.states if state.grows for s in dims.symbols(state.kept))
        self.live = live
        self.moving = live  # and what the program finds on its way: iterations, and what the host reads
        self.copies: dict[int, list[int]] = {}
        self._steps(block)
        arena_bytes = dims.as_dim(attribute(self._planned(self.func, "ingot.arena_bytes")))
        values = self._values((arena_bytes, *(d for op in outputs for d in dialect.shape_of(op.operands[0]))))
        copies = self.copies
        states = tuple(
            State(s.input, s.output, s.axis, s.kept, s.length, s.kept_capacity, s.capacity, tuple(copies.get(n, ())))
            for n, s in enumerate(self.states)
        )
        program = LaunchProgram(
            self.target.name,
            inputs,
            tuple(_output(op) for op in outputs),
            bindings,
            tuple(self.buffers),
            tuple(self.entries),
            tuple(self.steps),
            arena_bytes,
            states,
            tuple(sorted(live)),
            packing,
            values,
            tuple(self.definitions),
        )
        return DraftProgram(program, tuple(self.dispatches))

    def _packing(self) -> tuple[DispatchStep, ...]:
        """The steps of the function that packs weights, each a root operation on views of one weight, and their buffers."""
        steps: list[DispatchStep] = []
        for view in self.packing.regions[0].blocks[0].operations if self.packing is not None else ():
            op = view.operation
            if op.name != "ingot.output":
                continue
            (value, name) = op.operands[0], str(attribute(op.attributes["name"]))
            self.bases[value] = self.weights[name] = len(self.buffers)
            size = _nbytes(dialect.dtype_of(value), dialect.shape_of(value))
            self.buffers.append(Buffer("packed", size, name=name))
            steps.append(self._step(build_dispatch(value.owner.operation, self.places)))
        return tuple(steps)

    def _steps(self, block: ir.Block) -> None:
        """Append the steps of a block."""
        for view in block.operations:
            op = view.operation
            if op.name in dialect.ROOTS:
                if "ingot.state_copy" in op.attributes and self.states:
                    self.copies.setdefault(attribute(op.attributes["ingot.state_copy"]), []).append(len(self.steps))
                self.steps.append(self._step(self._build(op)))
            elif op.name == "ingot.guard":
                self.steps.append(_guard(op))
            elif op.name == "ingot.if":
                then, otherwise = (self._region(op, region) for region in op.regions)
                self.steps.append(IfStep(self._reference(self.places.place(op.operands[0])), then, otherwise))

            elif op.name == "ingot.loop":
                condition = self._reference(self.places.place(op.operands[0])) if "while" in op.attributes else None
                trips, symbol = (str(attribute(op.attributes[a])) for a in ("trips", "symbol"))
                self.moving |= {symbol}
                self.steps.append(LoopStep(dims.as_dim(trips), condition, symbol, self._region(op, op.regions[0])))
            elif op.name == "ingot.host_read":
                place = self.places.place(op.operands[0])
                symbol = str(attribute(op.attributes["symbol"]))
                self.moving |= {symbol}
                self.steps.append(HostReadStep(symbol, self._reference(place), place.dtype))
            elif op.name == "ingot.define":
                symbol, expression = (str(attribute(op.attributes[a])) for a in ("symbol", "expression"))
                self.definitions.append(Definition(symbol, dims.as_dim(expression)))

    def _build(self, op: ir.Operation) -> BuiltDispatch:
        # A CPU's program evaluates offsets as it goes.
        moving = self.moving if self.target.kind == "cuda" else frozenset[str]()
        return build_dispatch(op, self.places, live=self.live, is_callers=self._is_callers, moving=moving)

    def _values(self, sizes: Sequence[Dim]) -> tuple[ValueBinding, ...]:
        """The elements of inputs on which memory or any tensor's shape depends, `sizes` among these: they are read before
        anything runs, not by steps of the program."""
        needed = self.shaping | dims.symbols_of([*sizes, *(d.value for d in self.definitions)])
        values: list[ValueBinding] = []
        numbers: dict[int, int] = {}  # of the steps that stay
        kept: list[Step] = []
        for number, step in enumerate(self.steps):
            if isinstance(step, HostReadStep) and step.symbol in needed:
                buffer, offset = self.buffers[step.source.buffer], step.source.offset
                if buffer.kind != "input" or not isinstance(offset, int):
                    raise CompileError(f"sizes depend on {step.symbol}, which is computed at run time")
                values.append(ValueBinding(step.symbol, buffer.index, offset * 8 // DTYPES[step.dtype].bits))
                continue
            numbers[number] = len(kept)
            kept.append(step)
        self.steps = kept
        self.copies = {n: [numbers[i] for i in steps] for n, steps in self.copies.items()}
        return tuple(values)

    def _region(self, op: ir.Operation, region: ir.Region) -> tuple[Step, ...]:
        """The steps of a region of a control operation."""
        block = region.blocks[0]
        for argument, value in zip(block.arguments, dialect.captured(op), strict=True):
            self.places.bind(argument, value)
        around, self.steps = self.steps, []
        self._steps(block)
        steps, self.steps = tuple(self.steps), around
        return steps

    @staticmethod
    def _planned(op: ir.Operation, name: str) -> ir.Attribute:
        if name not in op.attributes:
            raise CompileError(f"{op.name} has no {name}", node=node_name(op), cure="run ingot-plan-buffers first")
        return op.attributes[name]

    def _inputs(self) -> tuple[tuple[TensorSpec, ...], tuple[Binding, ...]]:
        names, types = (attribute(self.func.attributes[a]) for a in ("inputs", "input_types"))
        specs: list[TensorSpec] = []
        bindings: dict[str, Binding] = {}
        for i, (value, name, onnx_type) in enumerate(zip(self.block.arguments, names, types, strict=True)):
            shape = dialect.shape_of(value)
            specs.append(TensorSpec(name, onnx_type, shape))
            for axis, d in enumerate(shape):
                if not isinstance(d, int) and dims.symbols(d) == {str(d)}:
                    bindings.setdefault(str(d), Binding(str(d), i, axis))
        return tuple(specs), tuple(bindings.values())

    def _memory(self, outputs: Sequence[ir.Operation]) -> None:
        """Number the buffers of inputs, outputs and slots; views of states that grow."""
        views: dict[ir.Value, StridedView] = {}
        self.arguments = list(self.block.arguments)
        by_input = {s.input: s for s in self.states}
        by_output = {s.output: s for s in self.states}

        def buffer(kind: str, index: int, value: ir.Value, state: State | None, capacity: str) -> None:
            shape = dialect.shape_of(value)
            if state is not None and state.grows:
                room = tuple(dims.symbol(capacity) if a == state.axis else d for a, d in enumerate(shape))
                views[value] = StridedView(shape, dims.row_major(room))
                shape = room
            self.buffers.append(Buffer(kind, _nbytes(dialect.dtype_of(value), shape), index=index))  # type: ignore[arg-type]

        for i, value in enumerate(self.arguments):
            state = by_input.get(i)
            self.bases[value] = len(self.buffers)
            buffer("input", i, value, state, state.kept_capacity if state else "")
        resolver = PlaceResolver()
        self.output_buffers = {}
        for k, op in enumerate(outputs):
            base = resolver.place(op.operands[0]).base
            self.output_buffers[k] = len(self.buffers)
            state = by_output.get(k)
            buffer("output", k, base, state, state.capacity if state else "")
        slots, offsets = (attribute(self._planned(self.func, a)) for a in ("ingot.slots", "ingot.offsets"))
        self.first_slot = len(self.buffers)
        for size, offset in zip(slots, offsets, strict=True):
            self.buffers.append(Buffer("arena", dims.as_dim(size), dims.as_dim(offset)))
        self.places = PlaceResolver(views)

    def _is_callers(self, base: ir.Value) -> bool:
        return self.buffers[self._buffer_of(base)].kind in ("input", "output")

    def _buffer_of(self, base: ir.Value) -> int:
        found = self.bases.get(base)
        if found is None:
            found = self.bases[base] = self._find_buffer(base)
        return found

    def _find_buffer(self, base: ir.Value) -> int:
        op = base.owner.operation
        if op.name == "ingot.weight":
            name = str(attribute(op.attributes["name"]))
            if name not in self.weights:
                self.weights[name] = len(self.buffers)
                size = _nbytes(dialect.dtype_of(base), dialect.shape_of(base))
                self.buffers.append(Buffer("weight", size, name=name))
            return self.weights[name]
        planned = attribute(self._planned(op, "ingot.buffers"))
        kind, _, number = planned[list(op.results).index(base)].partition(":")
        return self.first_slot + int(number) if kind == "arena" else self.output_buffers[int(number)]

    def _step(self, built: BuiltDispatch) -> DispatchStep:
        text = built.dispatch.text
        number = self.kernel_numbers.get(text)
        if number is None:
            number = self.kernel_numbers[text] = len(self.entries)
            self.entries.append(KernelEntry("", KernelPlan(()), text))
            self.dispatches.append(built.dispatch)
        operands, results = (tuple(map(self._reference, places)) for places in (built.operands, built.results))
        sizes = dict(zip(built.dispatch.symbols, built.sizes, strict=True))
        arguments = (*built.dispatch.operands, *built.dispatch.results)
        shaping = dims.symbols_of([d for t in arguments for d in (*t.shape, *t.strides)])
        self.shaping |= dims.symbols_of(sizes[name] for name in shaping)
        return DispatchStep(number, operands, results, built.sizes, node=built.node)

    def _reference(self, place: Place) -> BufferRef:
        return BufferRef(self._buffer_of(place.base), place.byte_offset)


def _nbytes(dtype: str, shape: Sequence[Dim]) -> Dim:
    bits = DTYPES[dtype].bits
    elements = dims.product(shape)
    return elements * (bits // 8) if bits >= 8 else dims.ceildiv(elements * bits, 8)


def _guard(op: ir.Operation) -> GuardStep:
    left, right, relation, message = (str(attribute(op.attributes[a])) for a in ("left", "right", "relation", "message"))
    if relation not in ("eq", "le"):
        raise CompileError(f"a guard with relation {relation!r}", node=node_name(op))
    return GuardStep(dims.as_dim(left), dims.as_dim(right), relation, message, node_name(op) or "")  # type: ignore[arg-type]


def _output(op: ir.Operation) -> TensorSpec:
    name, onnx_type = (str(attribute(op.attributes[a])) for a in ("name", "type"))
    return TensorSpec(name, onnx_type, dialect.shape_of(op.operands[0]))
