"""What depends on weights alone moves into the weights program."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ingot import dims
from ingot.dialects import ingot as dialect
from ingot.dialects.mlir import ir
from ingot.dialects.plain import create_root, to_attribute
from ingot.dialects.scalar_table import TABLE
from ingot.dtypes import DTYPES, ONNX_TYPES
from ingot.passes.pass_base import Pass, PassContext
from ingot.passes.rewriting.ops import Root, body, defining, erase_all_dead

_TYPE_OF_STORAGE = {t.storage: t.name for t in reversed(ONNX_TYPES) if t.signed or t.storage == "i1"}
_GROWTH = 4  # a derived weight may take so many times the memory of its sources
_SMALL = 4096  # bytes that a derived weight may always take


@dataclass(frozen=True, kw_only=True)
class FoldConstants(Pass):
    """Move computations over weights and constants into the weights program, whose outputs the main function reads by name, and
    so do the regions of control operations.

    Folded are pointwise operations, moves, maxima, minima, and sums of integers, where every scalar operation gives the same
    bits on every machine (`exact` in the scalar table), and where the result is not much larger than its sources. Views are
    not: they are strides of whoever reads them.
    """

    name: ClassVar[str] = "ingot-fold-constants"

    def run(self, module: ir.Module, ctx: PassContext) -> None:
        blocks = dialect.blocks(dialect.main_func(module))
        program = dialect.find_func(module, dialect.WEIGHTS_FUNC)
        builder: _Program | None = None
        kept = {"ingot.weight", *dialect.VIEWS}
        for block in reversed(blocks):  # outer ones first: what is constant there, their regions read by name
            folded = {v for v in constant_values(block) if v.owner.operation.name not in kept}
            frontier = _frontier(block, folded)
            if frontier and builder is None:
                builder = _Program(module, program or _empty_program(module), ctx.weights or ())
            for value in frontier:
                assert builder is not None
                builder.derive(value)
            ctx.changed("derived weights", len(frontier))
            for view in list(block.operations):
                if view.operation.name in dialect.CONTROL:
                    ctx.changed("read by name", _read_weights_inside(view.operation))
        for block in blocks:
            erase_all_dead(block)
        if program is not None or builder is not None:
            _drop_unused(module)


# What is constant -----------------------------------------------------------------------------------------------------


def constant_values(block: ir.Block) -> set[ir.Value]:
    """Weights, and what the weights program can compute of them: results of roots, `empty`s, and views."""
    constant: set[ir.Value] = set()

    for view in block.operations:
        op = view.operation
        if op.name in ("ingot.weight", "ingot.empty") or (op.name in dialect.VIEWS and op.operands[0] in constant):
            if all(isinstance(d, int) for d in dialect.shape_of(op.results[0])):
                constant.add(op.results[0])
        elif op.name in dialect.ROOTS:
            if all(v in constant for v in dialect.inputs(op)) and _is_foldable(op):
                constant.update(op.results)
            elif op.name == "ingot.move" and len(op.operands) == 2:
                _forget_chain(op, constant)
    return constant


def _forget_chain(move: ir.Operation, constant: set[ir.Value]) -> None:
    """A concatenation with a part that is not constant is not constant from its beginning."""
    value = move.operands[1]
    while (op := defining(value)) is not None and value in constant:
        constant.discard(value)
        if op.name != "ingot.move":
            return
        value = op.operands[1]


def _is_foldable(op: ir.Operation) -> bool:
    root = Root.read(op)
    if root.name == "reduce":
        mapped = root.regions[0].type_of(root.regions[0].results[0])
        if root.attr("kind") not in ("max", "min") and DTYPES[mapped].kind != "int":  # sums of floats depend on the order
            return False
    elif root.name not in ("pointwise", "move"):
        return False
    if any(not isinstance(d, int) for r in op.results for d in dialect.shape_of(r)):
        return False
    for region in root.regions:
        for inst in region.insts:
            if inst.op == "dim":
                if not isinstance(dims.parse(inst.attr("dim")), int):
                    return False
            elif inst.op in TABLE and not TABLE[inst.op].exact:
                return False
    sources = sum(_nbytes(_source(v)) for v in root.tensors)
    return sum(map(_nbytes, op.results)) <= max(_SMALL, _GROWTH * sources)


def _source(value: ir.Value) -> ir.Value:
    while (op := defining(value)) is not None and op.name in dialect.VIEWS:
        value = op.operands[0]
    return value


def _nbytes(value: ir.Value) -> int:
    elements = dims.product(dialect.shape_of(value))
    assert isinstance(elements, int)
    return DTYPES[dialect.dtype_of(value)].nbytes(elements)


def _frontier(block: ir.Block, folded: set[ir.Value]) -> list[ir.Value]:
    """The folded values that something not folded reads, in order."""
    found: dict[ir.Value, None] = {}
    for view in block.operations:
        op = view.operation
        if op.name in dialect.VIEWS or (op.results and op.results[0] in folded):
            continue
        for value in dialect.inputs(op):
            source = _source(value)
            if source in folded:
                found[source] = None
    return list(found)


def _read_weights_inside(op: ir.Operation) -> int:
    """Let the regions of a control operation read the weights that it captures by name, through the same views; how many."""
    count = 0
    values = dialect.captured(op)
    for number in range(dialect.carried(op), len(values)):
        arguments = [region.blocks[0].arguments[number] for region in op.regions]
        if not _is_view_of_weight(values[number]) or not any(True for a in arguments for _ in a.uses):
            continue
        for argument in arguments:
            argument.replace_all_uses_with(_copied(values[number], ir.InsertionPoint.at_block_begin(argument.owner)))
        count += 1
    return count


def _is_view_of_weight(value: ir.Value) -> bool:
    source = defining(_source(value))
    return source is not None and source.name == "ingot.weight"


def _copied(value: ir.Value, ip: ir.InsertionPoint) -> ir.Value:
    """A weight, or views of one, again."""
    op = value.owner.operation
    operands = [_copied(v, ip) for v in op.operands]
    attrs = {n: op.attributes[n] for n in op.attributes}
    return ir.Operation.create(op.name, [value.type], operands, attrs, loc=op.location, ip=ip).results[0]


# The weights program --------------------------------------------------------------------------------------------------


def _empty_program(module: ir.Module) -> ir.Operation:
    attrs: dict[str, Any] = {"sym_name": dialect.WEIGHTS_FUNC}
    attributes = {n: to_attribute(a) for n, a in attrs.items()}
    attributes |= {"inputs": ir.ArrayAttr.get([]), "input_types": ir.ArrayAttr.get([])}
    loc = ir.Location.unknown()
    func = ir.Operation.create("ingot.func", attributes=attributes, regions=1, loc=loc, ip=ir.InsertionPoint(module.body))
    block = func.regions[0].blocks.append()
    ir.Operation.create("ingot.return", loc=loc, ip=ir.InsertionPoint(block))
    return func


@dataclass
class _Program:
    """The weights program while it grows."""

    module: ir.Module
    func: ir.Operation
    stored: Iterable[str]
    values: dict[ir.Value, ir.Value] = field(default_factory=dict)  # of the main function -> of the program
    named: dict[str, ir.Value] = field(default_factory=dict)  # sources and derived weights by name
    names: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.names.update(self.stored)
        main = dialect.blocks(dialect.main_func(self.module))
        for block in (*main, body(self.func)):
            for view in block.operations:
                op = view.operation
                if op.name == "ingot.weight" or op.name == "ingot.output":
                    self.names.add(op.attributes["name"].value)
        for view in body(self.func).operations:
            op = view.operation
            if op.name == "ingot.weight":
                self.named[op.attributes["name"].value] = op.results[0]
            elif op.name == "ingot.output":
                self.named[op.attributes["name"].value] = op.operands[0]

    def derive(self, value: ir.Value) -> None:
        """Let the program compute `value`, and the main function read it by name."""
        source = self._largest_source(value)
        name = next(n for i in range(1, len(self.names) + 2) if (n := f"{source}#{i}") not in self.names)
        self.names.add(name)
        op = value.owner.operation
        dtype = dialect.dtype_of(value)
        result = self._clone(value)
        attrs = {"name": to_attribute(name), "type": to_attribute(_TYPE_OF_STORAGE[dtype])}
        end = ir.InsertionPoint(self._end)
        ir.Operation.create("ingot.output", operands=[result], attributes=attrs, loc=op.location, ip=end)
        weight = ir.Operation.create(
            "ingot.weight", results=[value.type], attributes={"name": attrs["name"]}, loc=op.location, ip=ir.InsertionPoint(op)
        )
        self.named[name] = result
        value.replace_all_uses_with(weight.results[0])
        self.values[weight.results[0]] = result

    @property
    def _end(self) -> ir.Operation:
        return list(body(self.func).operations)[-1].operation

    def _largest_source(self, value: ir.Value) -> str:
        """The name of the largest weight that a value is computed from, the first among equals; a derived weight counts as
        the source it is named after.
        """
        best, size = "constant", -1
        work, seen = [value], {value}
        while work:
            v = work.pop()
            op = v.owner.operation
            if op.name == "ingot.weight" and _nbytes(v) > size:
                best, size = op.attributes["name"].value.rpartition("#")[0] or op.attributes["name"].value, _nbytes(v)
            sources = [x for x in dialect.inputs(op) if x not in seen]
            seen.update(sources)
            work += reversed(sources)
        return best

    def _clone(self, value: ir.Value) -> ir.Value:
        """The value in the program, made of copies of the operations that compute it."""
        order: dict[ir.Value, None] = {}
        stack = [(value, False)]
        while stack:
            v, ready = stack.pop()
            if v in self.values or v in order:
                continue
            if ready:
                order[v] = None
            else:
                stack.append((v, True))
                stack += [(x, False) for x in dialect.inputs(v.owner.operation)]
        for v in order:
            if v not in self.values:
                self._copy(v.owner.operation)
        return self.values[value]

    def _copy(self, op: ir.Operation) -> None:
        ip, loc = ir.InsertionPoint(self._end), op.location
        attrs = {n: op.attributes[n] for n in op.attributes}
        if op.name == "ingot.weight":
            name = attrs["name"].value
            if name not in self.named:
                copy = ir.Operation.create(op.name, results=[op.results[0].type], attributes=attrs, loc=loc, ip=ip)
                self.named[name] = copy.results[0]
            self.values[op.results[0]] = self.named[name]
            return
        types = [r.type for r in op.results]
        if op.name in dialect.ROOTS:
            root = Root.read(op)
            tensors = [self.values[t] for t in root.tensors]
            copy = create_root(root.name, tensors[: len(op.operands)], types, attrs, root.regions, tensors, loc=loc, ip=ip)
        else:
            operands = [self.values[v] for v in op.operands]
            copy = ir.Operation.create(op.name, results=types, operands=operands, attributes=attrs, loc=loc, ip=ip)
        for old, new in zip(op.results, copy.results, strict=True):
            self.values[old] = new


def _drop_unused(module: ir.Module) -> None:
    """Remove derived weights that the main function no longer reads."""
    operations = (op.operation for block in dialect.blocks(dialect.main_func(module)) for op in block.operations)
    read = {op.attributes["name"].value for op in operations if op.name == "ingot.weight"}
    program = dialect.find_func(module, dialect.WEIGHTS_FUNC)
    assert program is not None
    block = body(program)
    for view in list(block.operations):
        op = view.operation
        if op.name == "ingot.output" and op.attributes["name"].value not in read:
            op.erase()
    erase_all_dead(block)
    if len(block.operations) == 1:
        program.erase()
