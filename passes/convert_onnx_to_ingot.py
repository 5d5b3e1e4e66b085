"""From the `onnx` dialect to the `ingot` dialect: roots, views and scalar regions, one ONNX operation at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar

from ingot import dims
from ingot.dialects import ingot as dialect
from ingot.dialects import onnx
from ingot.dialects.mlir import ir
from ingot.dialects.onnx_types import onnx_type_of, shape_of
from ingot.dialects.plain import to_attribute
from ingot.dims import Dim
from ingot.dtypes import onnx_numpy
from ingot.errors import ModelError
from ingot.passes.infer_shapes import model_error
from ingot.passes.onnx_inference import control, reads
from ingot.passes.onnx_inference.annotations import node_label, read_definitions, read_guards, read_tensor
from ingot.passes.onnx_inference.facts import Facts, Names
from ingot.passes.onnx_inference.rules import Node, Unsupported
from ingot.passes.onnx_inference.tensors import BOOL, MAX_ELEMENTS, Tensor
from ingot.passes.onnx_lowering import (
    elementwise,
    indexing,
    inverse_functions,
    linear,
    losses,
    microsoft_attention,
    ordering,
    quantization,
    quantized_elementwise,
    quantized_products,
    recurrent,
    reductions,
    resize,
    sampling,
    scatter,
    spectral,
    transformers,
    views,
    windows,
)
from ingot.passes.onnx_lowering.graph_builder import GraphBuilder, strings, weight_name
from ingot.passes.onnx_lowering.lowering import RULES, Lowering
from ingot.passes.onnx_lowering.values import Known, Source, TypedValue
from ingot.passes.pass_base import Pass, PassContext

_RULE_FILES = (  # importing them fills RULES
    elementwise, indexing, inverse_functions, linear, losses, microsoft_attention, ordering, quantization,
    quantized_elementwise, quantized_products, recurrent, reductions, resize, sampling, scatter, spectral, transformers, views,
    windows,
)  # fmt: skip
_KNOWN = frozenset({"Constant", "Shape", "Size"})  # always known after inference


@dataclass(frozen=True, kw_only=True)
class ConvertOnnxToIngot(Pass):
    """Lower a typed ONNX graph to one `ingot.func` of views and root operations.

    Needs the types that `ingot-infer-shapes` gives. Values known at compile time disappear, except where they are data.
    """

    name: ClassVar[str] = "ingot-convert-onnx-to-ingot"

    def run(self, module: ir.Module, ctx: PassContext) -> None:
        """Replace the module's `onnx.Graph` by an `ingot.func`; constants join `ctx.weights`.

        Raises:
            ModelError: nodes without a lowering, or with unsupported attributes or element types; all in one error.
        """
        graph = onnx.main_graph(module)
        _Conversion(ctx).run(module, graph)
        graph.erase()


def is_lowered(op_type: str) -> bool:
    """Whether an operator (with its domain unless that is ai.onnx) has a lowering, or disappears in shape inference."""
    return op_type in RULES or op_type in _KNOWN or op_type in ("If", "Loop", "Scan")


def is_weight(source: TypedValue) -> bool:
    """Whether a tensor is read by name."""
    return weight_name(source.value) is not None


@dataclass
class _Conversion:
    ctx: PassContext
    sources: dict[ir.Value, Source | None] = field(default_factory=dict)  # None: the producer failed
    tensors: dict[ir.Value, Tensor] = field(default_factory=dict)
    problems: list[tuple[str, str, str]] = field(default_factory=list)
    names: Names = field(default_factory=Names)
    late: set[str] = field(default_factory=set)  # symbols that have no value before the function runs
    build: GraphBuilder = field(init=False)

    def run(self, module: ir.Module, graph: ir.Operation) -> None:
        block = graph.regions[0].blocks[0]
        body = self._function(module, graph, block)
        self.build = GraphBuilder(body, self.ctx.weights)
        for old, new, elements in zip(block.arguments, body.arguments, reads.read_reads(graph), strict=True):
            tensor = self._tensor(old)
            self.sources[old] = typed = TypedValue(new, tensor.type, tensor.shape)
            if elements:
                self.build.location = old.location
                self._read(old, typed, elements)
            elif reads.is_empty(tensor):
                self.tensors[old] = reads.with_elements(tensor, [])
        self._find_late(block)
        self._definitions([view.operation for view in block.operations])
        self._operations(block)
        for op in onnx.outputs(graph.regions[0]):
            self._output(op)
        if self.problems:
            raise model_error(self.problems)
        self.build.end()

    def _read(self, value: ir.Value, x: TypedValue, elements: Sequence[Dim]) -> None:
        """Have the elements of a value read, those that inference found shapes to depend on."""
        flat = self.build.reshaped(x, (len(elements),))
        for k, element in enumerate(elements):
            (name,) = dims.symbols(element)
            self.build.create("host_read", [self.build.slice(flat, [k], [1]).value], [], {"symbol": ir.StringAttr.get(name)})
        self.tensors[value] = reads.with_elements(self.tensors[value], elements)

    def _operations(self, block: ir.Block) -> None:
        operations = [view.operation for view in block.operations]
        self._guards(operations)
        for op in operations:
            if self.late and op.parent.name == onnx.GRAPH:
                self._definitions([op], late=True)
                self._guards([op], late=True)
            self.build.location, self.build.node = op.location, node_label(op)
            if op.name == onnx.WEIGHT:
                tensor = self._tensor(op.results[0])
                self.sources[op.results[0]] = self.build.weight(op.attributes["name"].value, tensor.type, tensor.shape)
            elif op.name == onnx.CONSTANT:
                self.sources[op.results[0]] = self._constant(op)
            elif op.name == "onnx.If":
                self._if(op)
            elif op.name == "onnx.Loop":
                self._loop(op)
            elif op.name == "onnx.Scan":
                self._scan(op)
            elif onnx.is_onnx(op):
                self._node(op)

    def _if(self, op: ir.Operation) -> None:
        """An `ingot.if` of what both branches read; weights and known elements they read by themselves."""
        condition = self.sources[op.operands[0]]
        outer = {v: self.sources[v] for v in control.captured(op)}
        tensors = [self._tensor(v) for v in op.results]
        known = [self._known(t) for t in tensors]
        self.sources.update(zip(op.results, known, strict=True))
        if condition is None or None in outer.values():
            return
        data = {v: s for v, s in outer.items() if isinstance(s, TypedValue) and not is_weight(s)}
        wanted = [i for i, elements in enumerate(known) if elements is None]
        operands = [self.build.tensor(condition).value, *(s.value for s in data.values())]
        types = [self.build.type(tensors[i].type.storage, tensors[i].shape) for i in wanted]
        try:
            new = self.build.control("if", operands, types)
        except ValueError as e:
            self._problem(op, f"If: {e}", "split the branches")
            return
        for source, target in zip(control.branches(op), new.regions, strict=True):
            results = [control.outputs(op, source)[i].operands[0] for i in wanted]
            self._region(source.blocks[0], target, data, outer, results)
        values = zip(wanted, new.results, strict=True)
        self.sources.update((op.results[i], TypedValue(v, tensors[i].type, tensors[i].shape)) for i, v in values)

    def _loop(self, op: ir.Operation) -> None:
        """An `ingot.loop` that carries the condition where it is not known, the carried values, and the scan outputs."""
        symbol = op.attributes[control.SYMBOL].value
        block = op.regions[0].blocks[0]
        first, ends = control.carried(op), [o.operands[0] for o in onnx.outputs(op.regions[0])]
        operands = onnx.onnx_operands(op)
        outer = {v: self.sources[v] for v in control.captured(op)}
        self.sources.update((r, None) for r in op.results)
        if any(v is not None and self.sources[v] is None for v in operands) or None in outer.values():
            return
        for argument, tensor in zip(block.arguments, control.arguments(symbol, [self._tensor(v) for v in first]), strict=True):
            self.tensors[argument] = tensor
            if (elements := self._known(tensor)) is not None:
                self.sources[argument] = elements
        trips, begins = control.loop_facts(op, {v: self._tensor(v) for v in operands if v is not None})
        is_while = not (begins and control.holds(self._tensor(ends[0])))
        count: Dim | None = control.known_trips(trips)
        if count is None and operands[0] is not None:
            count = dims.symbol(f"trips_{symbol}")
            scalar = self.build.tensor(self.sources[operands[0]])  # type: ignore[arg-type]
            self.build.create("host_read", [scalar.value], [], {"symbol": ir.StringAttr.get(str(count))})
        carried = [self.build.tensor(self.sources[v]) for v in first]  # type: ignore[arg-type]
        if is_while:
            condition = Known(BOOL, (), (True,)) if operands[1] is None else self.sources[operands[1]]
            assert condition is not None
            carried.insert(0, self.build.tensor(self.build.reshape(condition, ())))
        for value in ends[1 + len(first) :]:
            element = self._tensor(value)
            assert count is not None, "inference refuses scan outputs of unknown length"
            carried.append(self.build.empty(element.type, (dims.maximum(count, 0), *element.shape)))
        data = {v: s for v, s in outer.items() if isinstance(s, TypedValue) and not is_weight(s)}
        new = self._create_loop(op, 2**62 if count is None else count, carried, data)
        if new is None:
            return
        if is_while:
            new.attributes["while"] = ir.UnitAttr.get()
        arguments: list[ir.Value | None] = [None] * len(carried)
        arguments[is_while : is_while + len(first)] = list(block.arguments)[2:]
        scans = {n: (s, 0, dims.symbol(symbol)) for n, s in enumerate(carried) if n >= is_while + len(first)}
        taken = list(zip(arguments, carried, strict=True))
        self._region(block, new.regions[0], data, outer, ends if is_while else ends[1:], taken, scans)
        self._loop_results(op, list(zip(new.results, carried, strict=True))[is_while:])

    def _scan(self, op: ir.Operation) -> None:
        """An `ingot.loop` whose body reads views of what is scanned."""
        symbol = op.attributes[control.SYMBOL].value
        block = op.regions[0].blocks[0]
        operands, ends = onnx.onnx_operands(op), [o.operands[0] for o in onnx.outputs(op.regions[0])]
        values = [v for v in operands if v is not None]
        outer = {v: self.sources[v] for v in control.captured(op)}
        self.sources.update((r, None) for r in op.results)
        if any(self.sources[v] is None for v in values) or None in outer.values():
            return
        known = [self._tensor(v) for v in values]
        node = Node("Scan", node_label(op), known, len(op.results), functools.partial(onnx.attr, op), Facts())
        states = len(values) - node.attr("num_scan_inputs")
        length = dims.parse(op.attributes[control.LENGTH].value)
        scan = control.Scan.of(node, [self._tensor(v).rank for v in ends[states:]], length)
        self.tensors.update(zip(block.arguments, scan.elements(known), strict=True))
        wholes = [self.build.tensor(self.sources[v]) for v in values[states:]]  # type: ignore[arg-type]
        outer |= dict(zip(values[states:], wholes, strict=True))
        carried = [self.build.tensor(self.sources[v]) for v in values[:states]]  # type: ignore[arg-type]
        stacked = scan.results([self._tensor(v) for v in ends])[states:]
        carried += [self.build.empty(t.type, t.shape) for t in stacked]
        positions = [(axis, scan.position(symbol, backwards)) for axis, backwards in scan.outputs]
        scans = {states + i: (carried[states + i], *at) for i, at in enumerate(positions)}
        data = {v: s for v, s in outer.items() if isinstance(s, TypedValue) and not is_weight(s)}
        new = self._create_loop(op, scan.length, carried, data)
        if new is None:
            return

        def walk() -> None:
            parts = list(block.arguments)[states:]
            for argument, v, (axis, backwards) in zip(parts, values[states:], scan.inputs, strict=True):
                whole = self.build.tensor(self.sources[v])  # type: ignore[arg-type]
                part = self.build.slice_axis(whole, axis, scan.position(symbol, backwards), 1)
                self.sources[argument] = self.build.reshape(part, self._tensor(argument).shape)

        taken = list(zip([*list(block.arguments)[:states], *[None] * len(stacked)], carried, strict=True))
        self._region(block, new.regions[0], data, outer, ends, taken, scans, walk)
        self._loop_results(op, list(zip(new.results, carried, strict=True)))

    def _create_loop(
        self, op: ir.Operation, trips: Dim, carried: Sequence[TypedValue], data: Mapping[ir.Value, TypedValue]
    ) -> ir.Operation | None:
        """An `ingot.loop` that captures `data`, without its body; None where it takes too many tensors."""
        attrs = {"trips": str(trips), "symbol": op.attributes[control.SYMBOL].value, "carried": len(carried)}
        values = [*(s.value for s in carried), *(s.value for s in data.values())]
        try:
            stored = {n: to_attribute(a) for n, a in attrs.items()}
            return self.build.control("loop", values, [s.value.type for s in carried], stored)
        except ValueError as e:
            self._problem(op, f"{op.name.removeprefix('onnx.')}: {e}", "split the loop")
            return None

    def _loop_results(self, op: ir.Operation, results: Sequence[tuple[ir.Value, TypedValue]]) -> None:
        """Let values, each with one like it, stand for the outputs of a loop that are used."""
        present = [r for r, size in zip(results, op.attributes["resultSegmentSizes"], strict=False) if size]
        for old, (value, like) in zip(op.results, present, strict=True):
            self.sources[old] = TypedValue(value, like.type, like.shape)

    def _region(
        self,
        source: ir.Block,
        target: ir.Region,
        data: Mapping[ir.Value, TypedValue],
        outer: Mapping[ir.Value, Source | None],
        results: Sequence[ir.Value],
        carried: Sequence[tuple[ir.Value | None, TypedValue]] = (),
        scans: Mapping[int, tuple[TypedValue, int, Dim]] = MappingProxyType({}),
        begin: Callable[[], None] = lambda: None,
    ) -> None:
        """Lower a subgraph into a region.

        Args:
            data: its arguments; `outer` is all that it captures.
            results: values of the subgraph that it gives.
            carried: its first arguments: what they are in the subgraph, and what the first iteration takes for them.
            scans: results, by number, that are moved into the argument of their number: what that is like, an axis, and the
                position along it.
            begin: makes what the subgraph's operations read, once `outer` stands for its arguments.
        """
        around, at = self.build, target.owner.location
        types = [*(s.value.type for _, s in carried), *(s.value.type for s in data.values())]
        block = target.blocks.append(*types, arg_locs=[at] * len(types))
        self.build = GraphBuilder(block, self.ctx.weights)
        for value, found in outer.items():
            if isinstance(found, TypedValue) and value not in data:
                self.build.location = found.value.owner.location
                name = found.value.owner.operation.attributes["name"].value
                self.sources[value] = self.build.weight(name, found.type, found.shape)
        for (inner, found), argument in zip([*carried, *data.items()], block.arguments, strict=True):
            if inner is not None:
                self.sources[inner] = TypedValue(argument, found.type, found.shape)
        begin()
        self._operations(source)
        self.build.location = at
        given = []
        for number, value in enumerate(results):
            if (lowered := self.sources[value]) is None:
                continue
            given.append(self.build.tensor(lowered))
            if number in scans:
                like, axis, position = scans[number]
                whole = TypedValue(block.arguments[number], like.type, like.shape)
                element = given[-1].shape
                part = self.build.tensor(self.build.reshape(given[-1], (*element[:axis], 1, *element[axis:])))
                given[-1] = self.build.move_into(part, whole, [position if i == axis else 0 for i in range(len(like.shape))])
            elif carried and given[-1].shape != carried[number][1].shape:  # a condition
                given[-1] = self.build.tensor(self.build.reshape(given[-1], carried[number][1].shape))
        for typed in given:
            self.build.create("result", [typed.value], [])
        self.build.end()
        self.build = around
        self.sources.update(outer)

    def _function(self, module: ir.Module, graph: ir.Operation, block: ir.Block) -> ir.Block:
        types, names = [], []
        for argument in block.arguments:
            shape = shape_of(argument)
            if shape is None:
                message = f"an input has type {argument.type}, which is not inferred"
                raise ModelError(message, cure="run ingot-infer-shapes first")
            onnx_type = onnx_type_of(argument)
            names.append(onnx_type.name)
            types.append(dialect.tensor_type(onnx_type.storage, shape))
        func = ir.Operation.create(
            "ingot.func",
            attributes={
                "sym_name": graph.attributes["sym_name"],
                "inputs": graph.attributes["input_names"],
                "input_types": strings(names),
            },
            regions=1,
            loc=graph.location,
            ip=ir.InsertionPoint(module.body),
        )
        return func.regions[0].blocks.append(*types, arg_locs=[a.location for a in block.arguments])

    def _tensor(self, value: ir.Value) -> Tensor:
        found = self.tensors.get(value)
        if found is None:
            found = self.tensors[value] = read_tensor(value)
        return found

    def _guards(self, operations: Sequence[ir.Operation], late: bool = False) -> None:
        """Guards of operations; of a function's body those that do, or do not, depend on what is read while it runs.

        All others come first: they depend on sizes only, and what they refuse must not run.
        """
        for op in operations:
            for guard in read_guards(op):
                if bool(dims.symbols_of((guard.left, guard.right)) & self.late) is not late and op.parent.name == onnx.GRAPH:
                    continue
                self.build.location = op.location
                fields = ("left", "relation", "right", "message")
                attrs = {name: ir.StringAttr.get(str(getattr(guard, name))) for name in fields}
                self.build.create("guard", [], [], attrs)

    def _find_late(self, block: ir.Block) -> None:
        """Find the symbols that have no value before the function runs."""
        for view in block.operations:
            op = view.operation
            if onnx.is_onnx(op):
                self.late |= set().union(*map(dims.symbols_of, reads.read_reads(op)))
            self.late |= {name for name, d in read_definitions(op).items() if dims.symbols(d) & self.late}
            for region in op.regions:
                self._find_late(region.blocks[0])

    def _definitions(self, operations: Sequence[ir.Operation], late: bool = False) -> None:
        """Define the symbols of sizes that depend on what is read, before or, if `late`, while the function runs; those of
        control operations' regions included."""
        for op in operations:
            for name, d in read_definitions(op).items():
                if d in self.names.defined or (name in self.late) is not late:
                    continue
                self.names.defined[d] = dims.symbol(name)
                self.build.location = op.location
                attrs = {"symbol": ir.StringAttr.get(name), "expression": ir.StringAttr.get(str(d))}
                self.build.create("define", [], [], attrs)
            for region in op.regions:
                self._definitions([inner.operation for inner in region.blocks[0].operations], late)

    def _constant(self, op: ir.Operation) -> Source:
        tensor = self._tensor(op.results[0])
        if tensor.value is not None:
            return Known(tensor.type, tensor.shape, tuple(tensor.value.ravel().tolist()))
        array = onnx.constant_value(op.results[0])
        assert array is not None
        return self.build.array(array.astype(onnx_numpy(tensor.type), copy=False), tensor.type)

    def _node(self, op: ir.Operation) -> None:
        results = onnx.onnx_results(op)
        tensors: list[Tensor | None] = []
        try:
            tensors = [None if v is None else self._tensor(v) for v in results]
        except ValueError as e:
            self._problem(op, str(e), "run ingot-infer-shapes first")
            self.sources.update((v, None) for v in op.results)
            return
        read = dict(zip(op.results, reads.read_reads(op), strict=True))
        known = [None if v is not None and read[v] else self._known(t) for v, t in zip(results, tensors, strict=True)]
        for value, elements in zip(results, known, strict=True):
            if value is not None and elements is not None:
                self.sources[value] = elements
        if all(k is not None or v is None for k, v in zip(known, results, strict=True)):
            return
        lowered = self._lower(op, tensors, [v is not None and next(iter(v.uses), None) is not None for v in results])
        for i, value in enumerate(results):
            if value is not None and known[i] is None:
                self.sources[value] = found = lowered[i] if lowered is not None and i < len(lowered) else None
                if read[value] and found is not None:
                    self._read(value, self.build.tensor(found), read[value])

    @staticmethod
    def _known(tensor: Tensor | None) -> Known | None:
        if tensor is None or tensor.value is None or not tensor.is_known or tensor.value.size > MAX_ELEMENTS:
            return None
        return Known(tensor.type, tensor.shape, tuple(tensor.value.ravel().tolist()))

    def _lower(
        self, op: ir.Operation, results: Sequence[Tensor | None], used: Sequence[bool]
    ) -> Sequence[Source | None] | None:
        kind = onnx.op_type(op)
        operands = onnx.onnx_operands(op)
        rule = RULES.get(kind)
        if rule is None or len(op.regions):
            self._problem(op, f"operator {kind} is not supported", "remove it from the model, or add a lowering")
            return None
        if any(v is not None and self.sources[v] is None for v in operands):
            return None
        inputs = [None if v is None else self._tensor(v) for v in operands]
        sources = [None if v is None else self.sources[v] for v in operands]
        while inputs and inputs[-1] is None:
            inputs.pop()
            sources.pop()
        # Inference has already recorded what must be guarded; the rules' own calls repeat it.
        node = Node(kind, self.build.node, inputs, len(results), functools.partial(onnx.attr, op), Facts(self.names))
        try:
            found = rule(Lowering(node, sources, results, used, self.build))
        except Unsupported as e:
            self._problem(op, f"{kind}: {e.message}", e.cure)
            return None
        return [found] if isinstance(found, TypedValue | Known) else found

    def _output(self, op: ir.Operation) -> None:
        source = self.sources[op.operands[0]]
        if source is None:
            return
        self.build.location, self.build.node = op.location, node_label(op)
        value = self.build.tensor(source)
        attrs = {"name": op.attributes["name"], "type": ir.StringAttr.get(value.type.name)}
        self.build.create("output", [value.value], [], attrs)

    def _problem(self, op: ir.Operation, message: str, cure: str) -> None:
        self.problems.append((node_label(op), message, cure))
