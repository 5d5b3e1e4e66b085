"""Types for every value of an ONNX graph, with symbolic dimensions, and shape arithmetic done at compile time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from ingot import dims
from ingot.dialects import onnx
from ingot.dialects.mlir import ir
from ingot.dialects.onnx_types import element_name, onnx_type_of, shape_of, tensor_type
from ingot.dims import Dim, Expr
from ingot.errors import ModelError
from ingot.passes.onnx_inference import (
    constants,
    control,
    elementwise,
    indexing,
    linear,
    losses,
    microsoft_attention,
    quantization,
    reads,
    recurrent,
    sampling,
    scatter,
    spectral,
    transformers,
    views,
)
from ingot.passes.onnx_inference.annotations import (
    forget_guards,
    node_label,
    read_guards,
    write_definitions,
    write_guards,
    write_values,
)
from ingot.passes.onnx_inference.facts import Facts
from ingot.passes.onnx_inference.rules import RULES, Node, UnknownElements, Unsupported
from ingot.passes.onnx_inference.sequences import Sequences
from ingot.passes.onnx_inference.tensors import Comparison, Tensor, constant_elements
from ingot.passes.pass_base import Pass, PassContext

_RULE_FILES = (  # importing them fills RULES
    constants, elementwise, indexing, linear, losses, microsoft_attention, quantization, recurrent, sampling, scatter,
    spectral, transformers, views,
)  # fmt: skip
_WEIGHT_ELEMENTS = 16  # weights up to this size may be scales or sizes
_SHOWN = 20  # problems that an error spells out
# Inputs that are no tensors of numbers: what stands in their type, what they are called, and the cure.
_INPUTS = (
    ("!onnx.Seq", "a sequence", "make each of its tensors an input of its own"),
    ("!onnx.Opt", "an optional value", "make it a tensor"),
    ("!onnx.String", "of strings", "let the program around the model work on text, and give the model numbers"),
)


@dataclass(frozen=True, kw_only=True)
class InferShapes(Pass):
    """Give every value of an ONNX graph its element type and its sizes, as shape expressions over the inputs' dimensions.

    Small integer tensors carry their elements as shape expressions, so that computed shapes cost nothing at run time. What
    must hold but cannot be proven becomes a guard. Elements and guards are left on operations as `ingot.values` and
    `ingot.guards`.
    """

    name: ClassVar[str] = "ingot-infer-shapes"

    def run(self, module: ir.Module, ctx: PassContext) -> None:
        """Infer in place.

        Raises:
            ModelError: nodes without a rule, with unsupported attributes, contradicting shapes or shapes that depend on data;
                all of them in one error.
        """
        _Inference(ctx).run(onnx.main_graph(module))


@dataclass
class _Inference:
    ctx: PassContext
    facts: Facts = field(default_factory=Facts)
    tensors: dict[ir.Value, Tensor | None] = field(default_factory=dict)  # None: the producer failed
    problems: list[tuple[str, str, str]] = field(default_factory=list)  # node, message, cure
    names: dict[ir.Value, str] = field(default_factory=dict)  # of the graph's inputs
    reads: dict[ir.Value, list[str]] = field(default_factory=dict)  # inputs whose elements are read, and their names
    constants: dict[str, None] = field(default_factory=dict)  # inputs that would have to be constants
    mendable: int = 0  # problems that these would mend
    types: dict[tuple[str, tuple[Dim, ...]], ir.Type] = field(default_factory=dict)
    loops: int = 0
    sequences: Sequences = field(default_factory=Sequences)

    def run(self, graph: ir.Operation) -> None:
        block = graph.regions[0].blocks[0]
        self.names = dict(zip(block.arguments, (name.value for name in graph.attributes["input_names"]), strict=True))
        self._infer(block)
        if not self.problems and self._constant_inputs(block):
            self._nodes(block)
        if not self.problems and self.facts.has_equalities:
            # Once more, so that values before a guard's node get the simpler of two equal sizes too.
            self._nodes(block)
        if not self.problems:
            for op, message, cure in self.sequences.remaining(block):
                self._problem(op, message, cure)
        if self.problems:
            raise model_error(self.problems, self.constants if self.mendable == len(self.problems) else ())
        self.sequences.erase(block)
        if self.reads:
            reads.write_reads(graph, [reads.elements(self.reads.get(a, []), self.facts.names.sizes) for a in block.arguments])
        for view in block.operations:
            if view.operation.name == onnx.OUTPUT:
                self._check_output(view.operation)

    def _infer(self, block: ir.Block) -> None:
        """Infer all nodes; again where shapes turn out to depend on elements of inputs, until no further input does."""
        while True:
            before = len(self.reads), len(self.facts.names.sizes)
            self.tensors = {a: self._input(a, name) for a, name in self.names.items()}
            self.facts.names.taken |= set().union(*(dims.symbols_of(t.shape) for t in self.tensors.values() if t is not None))
            self._nodes(block)
            if before == (len(self.reads), len(self.facts.names.sizes)):
                return
            self.problems, self.constants, self.mendable, self.loops = [], {}, 0, 0
            self.facts = Facts(self.facts.names)
            forget_guards(block)

    def _constant_inputs(self, block: ir.Block) -> bool:
        """Give inputs the constant sizes that guards want of them; True where that changes a type, and all is to be inferred
        again: the inputs' types state then what the guards did.
        """
        constants = self.facts.constants
        changed = False
        for argument in block.arguments:
            tensor = self.tensors[argument]
            assert tensor is not None, "there is no problem"
            shape = tuple(dims.substitute(d, constants) if isinstance(d, Expr) else d for d in tensor.shape)
            if shape != tensor.shape:
                self.tensors[argument] = tensor = replace(tensor, shape=shape)
                argument.set_type(self._type(tensor))
                changed = True
        if changed:
            self.facts = Facts(self.facts.names)
            forget_guards(block)
        return changed

    def _input(self, argument: ir.Value, name: str) -> Tensor | None:
        try:
            shape, onnx_type = shape_of(argument), onnx_type_of(argument)
        except ValueError:
            what, cure = next(((w, c) for t, w, c in _INPUTS if t in str(argument.type)), (str(argument.type), "use numbers"))
            self.problems.append((name, f"an input that is {what} is not supported", cure))
            return None
        if shape is None:
            self.problems.append((name, f"the input's type {argument.type} has no shape", "declare the input's shape"))
            return None
        tensor = Tensor(onnx_type, shape)
        if argument in self.reads:
            return reads.with_elements(tensor, reads.elements(self.reads[argument], self.facts.names.sizes))
        return reads.with_elements(tensor, []) if reads.is_empty(tensor) else tensor

    def _nodes(self, block: ir.Block) -> None:
        self._operations([view.operation for view in block.operations])

    def _operations(self, operations: Sequence[ir.Operation]) -> None:
        for op in operations:
            if op.name == onnx.WEIGHT:
                self.tensors[op.results[0]] = self._weight(op)
            elif op.name == "onnx.If":
                self._if(op)
            elif op.name == "onnx.Loop":
                self._loop(op)
            elif op.name == "onnx.Scan":
                self._scan(op)
            elif onnx.is_onnx(op) and self.sequences.takes(op):
                self._sequence(op)
            elif onnx.is_onnx(op):
                self._node(op)

    def _sequence(self, op: ir.Operation) -> None:
        """Resolve an operator of sequences or optional values."""
        kind, held = onnx.op_type(op), self.sequences.held
        operands = onnx.onnx_operands(op)
        self.tensors.update((r, None) for r in op.results)
        if any(v is not None and (held[v] if v in held else self.tensors[v]) is None for v in operands):
            held.update(dict.fromkeys(op.results))
            return
        inputs = [None if v is None or v in held else self.tensors[v] for v in operands]
        node = Node(kind, node_label(op), inputs, len(op.results), functools.partial(onnx.attr, op), self.facts)
        try:
            self._operations(self.sequences.resolve(op, node))
        except UnknownElements as e:
            self._unknown(op, kind, e)
        except Unsupported as e:
            self._problem(op, f"{kind}: {e.message}", e.cure)

    def _loop(self, op: ir.Operation) -> None:
        """Infer the body once: what a loop carries keeps its type."""
        trips, begins = control.loop_facts(op, self.tensors)
        first = [self.tensors[v] for v in control.carried(op)]
        self.tensors.update((r, None) for r in op.results)
        known = [t for t in first if t is not None]
        if len(known) != len(first):
            return
        given = self._iteration(op, control.arguments(self._symbol(op), known), control.known_trips(trips))
        if given is None:
            return
        try:
            found = control.loop_results(op, control.known_trips(trips), begins, known, given)
        except Unsupported as e:
            deciding = [v for v in onnx.onnx_operands(op)[:2] if v is not None]
            found = list(dict.fromkeys(a for v in deciding for a in reads.origins(v, self.tensors)))
            unknown = deciding if control.known_trips(trips) is None else []
            if not unknown or not (self._read(found) or self._read_results(unknown[0])):
                self._refuse(op, f"Loop: {e.message}", e.cure, found)
            return
        self._give(op, found)

    def _scan(self, op: ir.Operation) -> None:
        """As `_loop`; what is scanned gives the number of iterations."""
        operands = [None if v is None else self.tensors[v] for v in onnx.onnx_operands(op)]
        self.tensors.update((r, None) for r in op.results)
        known = [t for t in operands if t is not None]
        if len(known) != len(operands):
            return
        self._symbol(op)
        node = Node("Scan", node_label(op), known, len(op.results), functools.partial(onnx.attr, op), self.facts)
        try:
            scan = control.Scan.of(node)
            given = self._iteration(op, scan.elements(known), scan.length)
            if given is None:
                return
            control.check_body(op, known[: scan.states], given)
            found = control.Scan.of(node, [t.rank for t in given[scan.states :]], scan.length).results(given)
        except Unsupported as e:
            self._problem(op, f"Scan: {e.message}", e.cure)
            return
        if node.guards:
            write_guards(op, dict.fromkeys([*read_guards(op), *node.guards]))
        op.attributes[control.LENGTH] = ir.StringAttr.get(str(scan.length))
        self._give(op, found)

    def _symbol(self, op: ir.Operation) -> str:
        """The name of a loop's iteration."""
        symbol = op.attributes[control.SYMBOL].value if control.SYMBOL in op.attributes else f"iteration_{self.loops}"
        self.loops += 1
        self.facts.names.iterations.add(symbol)
        op.attributes[control.SYMBOL] = ir.StringAttr.get(symbol)
        return symbol

    def _iteration(self, op: ir.Operation, arguments: Sequence[Tensor], trips: Dim | None) -> list[Tensor] | None:
        """Infer a loop's body for its arguments: what it gives, or None where something failed. `trips`: where it is known."""
        block = op.regions[0].blocks[0]
        for argument, tensor in zip(block.arguments, arguments, strict=True):
            self.tensors[argument] = tensor
            argument.set_type(self._type(tensor))
        facts, self.facts = self.facts, self.facts.branch()
        if trips is not None:
            self.facts.greatest[op.attributes[control.SYMBOL].value] = trips - 1
        self._nodes(block)
        self.facts = facts
        given = [self.tensors[o.operands[0]] for o in onnx.outputs(op.regions[0])]
        found = [t for t in given if t is not None]
        return found if len(found) == len(given) else None

    def _give(self, op: ir.Operation, found: Sequence[Tensor]) -> None:
        """Type the outputs of a loop that are used."""
        present = [t for t, size in zip(found, op.attributes["resultSegmentSizes"], strict=False) if size]
        for value, tensor in zip(op.results, present, strict=True):
            self.tensors[value] = tensor
            value.set_type(self._type(tensor))

    def _if(self, op: ir.Operation) -> None:
        """Inline the branch that is always taken, else give both branches' results one type."""
        condition = self.tensors[op.operands[0]]
        if condition is not None and condition.value is not None and condition.value.size == 1:
            taken = condition.value.item()
            if isinstance(taken, bool):
                self._operations(control.inline(op, control.branches(op)[0 if taken else 1]))
                return
        facts, found = self.facts, []
        for region in control.branches(op):
            self.facts = facts.branch()
            self._nodes(region.blocks[0])
            found.append([self.tensors[o.operands[0]] for o in control.outputs(op, region)])
        self.facts = facts
        tensors: list[Tensor | None] = []
        for i, (a, b) in enumerate(zip(*found, strict=True)):
            try:
                tensors.append(None if a is None or b is None or condition is None else control.unified(i, a, b))
            except Unsupported as e:
                self._refuse(op, f"If: {e.message}", e.cure, self._givers((condition, a, b)))
                tensors.append(None)
        self.tensors.update(zip(op.results, tensors, strict=True))
        present = [t for t in tensors if t is not None]
        if len(present) == len(tensors):
            for value, tensor in zip(op.results, present, strict=True):
                value.set_type(self._type(tensor))
            write_values(op, present)

    def _weight(self, op: ir.Operation) -> Tensor:
        value = op.results[0]
        shape = shape_of(value)
        assert shape is not None, value.type
        elements = None
        name = op.attributes["name"].value
        if self.ctx.weights is not None and name in self.ctx.weights:
            if self.ctx.weights[name].elements <= _WEIGHT_ELEMENTS:
                elements = constant_elements(self.ctx.weights.elements(name))
        tensor = Tensor(onnx_type_of(value), shape, elements)
        write_values(op, [tensor])
        return tensor

    def _node(self, op: ir.Operation) -> None:
        kind = onnx.op_type(op)
        operands = onnx.onnx_operands(op)
        results = onnx.onnx_results(op)
        inferred: Sequence[Tensor] | None = None
        rule = RULES.get(kind)
        if rule is None or len(op.regions):
            self._problem(op, f"operator {kind} is not supported", "remove it from the model, or add a rule and a lowering")
        elif not any(v is not None and self.tensors[v] is None for v in operands):
            inputs = [None if v is None else self.tensors[v] for v in operands]
            while inputs and inputs[-1] is None:
                inputs.pop()
            node = Node(kind, node_label(op), inputs, len(results), functools.partial(onnx.attr, op), self.facts)
            try:
                inferred = _call(rule, node)
            except UnknownElements as e:
                self._unknown(op, kind, e)
            except Unsupported as e:
                self._refuse(op, f"{kind}: {e.message}", e.cure, self._givers(inputs))
            except (ArithmeticError, LookupError, TypeError, ValueError) as e:
                # Rules trust that operands have the ranks and counts that ONNX demands.
                shapes = ", ".join(f"{t.type.name}[{', '.join(map(str, t.shape))}]" for t in inputs if t is not None)
                self._problem(op, f"{kind}: operands {shapes} do not fit: {e}", "check the model with onnx.checker")
            if node.guards:
                write_guards(op, dict.fromkeys([*read_guards(op), *node.guards]))
            if node.definitions:
                write_definitions(op, node.definitions)
        if inferred is None:
            self.tensors.update((v, None) for v in results if v is not None)
            return
        present = [(v, t) for v, t in zip(results, inferred, strict=False) if v is not None]
        if len(present) != len(op.results):
            self._problem(op, f"{kind}: output {len(inferred)} is not supported", "export the model without it")
            self.tensors.update((v, None) for v in op.results)
            return
        tensors = [self._resolved(t) for _, t in present]
        for (value, _), tensor in zip(present, tensors, strict=True):
            self.tensors[value] = tensor
            value.set_type(self._type(tensor))
        if op.name != onnx.CONSTANT:
            write_values(op, tensors)
        if any(value in self.reads for value, _ in present):
            self._write_reads(op, dict(zip((value for value, _ in present), tensors, strict=True)))

    def _unknown(self, op: ir.Operation, kind: str, e: UnknownElements) -> None:
        """A node needs elements of an operand: have the inputs they are computed from read, or refuse."""
        value = onnx.onnx_operands(op)[e.operand]
        assert value is not None, "an operand that is left out has no elements"
        found = reads.origins(value, self.tensors)
        if not e.constant and (self._read(found) or self._read_results(value)):
            return
        self._refuse(op, f"{kind}: {e.message}", e.cure, found)

    def _refuse(self, op: ir.Operation, message: str, cure: str, inputs: Sequence[ir.Value]) -> None:
        """Note a problem that constants for inputs, if any, would mend."""
        names = [self.names[a] for a in inputs]
        if names:
            self.constants.update(dict.fromkeys(names))
            self.mendable += 1
            given, options = ", ".join(f"{n!r}: ..." for n in names), " ".join(f"--constant {n}=..." for n in names)
            cure += f"; or give the value of {' and '.join(names)} when compiling: constants={{{given}}}, {options}"
        self._problem(op, message, cure)

    def _givers(self, tensors: Iterable[Tensor | None]) -> list[ir.Value]:
        """The inputs that are read and on whose elements sizes or elements of `tensors` depend."""
        names: set[str] = set()
        for t in tensors:
            if t is not None:
                found = [] if t.value is None else t.value.ravel().tolist()
                sides = [d for e in found if isinstance(e, Comparison) for d in (e.left, e.right)]
                names |= dims.symbols_of((*t.shape, *sides, *(e for e in found if isinstance(e, Expr))))
        defined = {str(symbol): d for d, symbol in self.facts.names.defined.items()}
        while more := names & defined.keys():
            names = names - more | dims.symbols_of(defined[name] for name in more)
        return [a for a, elements in self.reads.items() if a in self.names and names & {*elements}]

    def _read(self, inputs: Sequence[ir.Value]) -> bool:
        """Have the elements of inputs read, of those where that is possible; True where any is."""
        tensors = {a: self.tensors[a] for a in inputs if a not in self.reads}
        readable = {a: t for a, t in tensors.items() if t is not None and reads.is_readable(t)}
        taken = self.facts.names.taken
        for argument, tensor in readable.items():
            self.reads[argument] = reads.names(self.names[argument], tensor, taken)
            taken |= {*self.reads[argument]}
        return bool(readable)

    def _read_results(self, value: ir.Value) -> bool:
        """Have the elements of what `value` is computed from read once they are computed, or its own; True where any can be."""
        found = [v for v in reads.computed(value, self.tensors) if v not in self.reads]
        if not found and value not in self.reads and self._may_be_read(value):
            found = [value]
        for v in found:
            tensor = self.tensors[v]
            assert tensor is not None, "it was inferred"
            self.reads[v] = reads.names(onnx.op_type(v.owner.operation), tensor, self.facts.names.taken)
            self.facts.names.taken |= {*self.reads[v]}
        return bool(found)

    def _write_reads(self, op: ir.Operation, results: Mapping[ir.Value, Tensor]) -> None:
        """Let the elements of results that are read be symbols."""
        found = {v: reads.elements(self.reads.get(v, []), self.facts.names.sizes) for v, t in results.items() if not t.is_known}
        reads.write_reads(op, [found.get(v, []) for v in op.results])
        self.tensors |= {v: reads.with_elements(results[v], elements) for v, elements in found.items() if elements}

    def _may_be_read(self, value: ir.Value) -> bool:
        tensor = self.tensors[value]
        computed = not isinstance(value.owner, ir.Block) and reads.is_result(value)
        return computed and tensor is not None and reads.is_readable(tensor)

    def _resolved(self, tensor: Tensor) -> Tensor:
        """The tensor with its sizes replaced by the simpler ones that guards made them equal to."""
        if not self.facts.has_equalities:
            return tensor
        return replace(tensor, shape=tuple(map(self.facts.resolved, tensor.shape)))

    def _type(self, tensor: Tensor) -> ir.Type:
        key = element_name(tensor.type), tensor.shape
        found = self.types.get(key)
        if found is None:
            found = self.types[key] = tensor_type(*key)
        return found

    def _check_output(self, op: ir.Operation) -> None:
        """Compare an output with its declaration: element types must agree, sizes that contradict are remarked on."""
        inferred = self.tensors[op.operands[0]]
        if inferred is None or "type" not in op.attributes:
            return
        declared = op.attributes["type"].value
        name = op.attributes["name"].value
        if not isinstance(declared, ir.RankedTensorType):
            return
        if onnx_type_of(declared) != inferred.type:
            message = f"the output is declared {onnx_type_of(declared).name}, but is {inferred.type.name}"
            self.problems.append((name, message, "correct the output's declared type"))
            return
        sizes = shape_of(declared)
        if sizes is None:
            return
        differ = len(sizes) != inferred.rank or any(
            isinstance(d, int) and isinstance(i, int) and d != i for d, i in zip(sizes, inferred.shape, strict=True)
        )
        if differ:
            text = ", ".join(map(str, inferred.shape))
            self.ctx.remark(f"output {name} is declared {declared}, but has shape [{text}]", op)

    def _problem(self, op: ir.Operation, message: str, cure: str) -> None:
        self.problems.append((node_label(op), message, cure))


def _call(rule: Callable[[Node], Any], node: Node) -> Sequence[Tensor]:
    found = rule(node)
    return [found] if isinstance(found, Tensor) else found


def model_error(problems: Sequence[tuple[str, str, str]], constants: Iterable[str] = ()) -> ModelError:
    """One error for all problems, each with its node and cure; `constants` are inputs whose values would mend them."""
    node, message, cure = problems[0]
    if len(problems) == 1:
        return ModelError(message, node=node, cure=cure, constants=constants)
    lines = [f"{n}: {m} ({c})" for n, m, c in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        lines.append(f"and {len(problems) - _SHOWN} more")
    return ModelError(f"{len(problems)} nodes are not supported:\n  " + "\n  ".join(lines), constants=constants)
