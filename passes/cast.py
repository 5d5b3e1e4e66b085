"""A float model computed in a narrower type, where that is safe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from ingot.dialects import ingot as dialect
from ingot.dialects.layout import base_of
from ingot.dialects.mlir import ir
from ingot.dialects.plain import create_root
from ingot.dispatch import ScalarInst, ScalarRegion
from ingot.passes.diagnostics import node_name
from ingot.passes.pass_base import Pass, PassContext
from ingot.passes.patterns import fused_location
from ingot.passes.rewriting import views
from ingot.passes.rewriting.angles import find_angles
from ingot.passes.rewriting.control import rebuild
from ingot.passes.rewriting.ops import Root, body, defining, erase_all_dead
from ingot.passes.rewriting.scalar_regions import RegionBuilder

# Storage type and largest finite value.
_TYPES: dict[str, tuple[str, float]] = {"fp16": ("f16", 65504.0), "bf16": ("bf16", 3.3895313892515355e38)}
# How many of a root's own operands its kernels multiply, so that both must have the narrow type.
_PRODUCTS = {"ingot.matmul": 2, "ingot.scaled_matmul": 2, "ingot.conv": 2, "ingot.attention": 3}

_ELEMENT_MAPS = ("move", "reduce", "normalize", "scan", "topk")  # roots whose first region takes an element of their operand


@dataclass(frozen=True, kw_only=True)
class Cast(Pass):
    """Store activations, and the operands of products, in fp16 or bf16.

    Arithmetic stays in f32: what is accumulated, reduced, normalized, exponentiated, and every scalar region. Kept in f32 in
    memory, each with a remark, are inputs and outputs, results of reductions, what loops carry from one iteration to the next,
    numbers beyond the narrow type's range, tables and masks that are no activations, and attention over keys and values that
    are inputs or outputs. What branches give has one type, and so have a loop's scan outputs. Casts of weights are part of the
    weights program.

    Args:
        to: the type.
    """

    name: ClassVar[str] = "ingot-cast"
    to: Literal["fp16", "bf16"]

    def run(self, module: ir.Module, ctx: PassContext) -> None:
        func = dialect.main_func(module)
        narrow, limit = _TYPES[self.to]
        choice = _Choice(func, limit)
        for op, reason in choice.kept:
            ctx.remark(f"kept in f32: {reason}", op)
        rewrite = _Rewrite(narrow, choice)
        rewrite.block(body(func))
        ctx.changes.update({(self.name, kind): n for kind, n in rewrite.counts.items()})


class _Choice:
    """Which tensors are stored in the narrow type.

    Attributes:
        narrow: their memory; see `memory_of`.
        wide_products: first results of attentions, and of products that make angles, which stay in f32.
        kept: what stays in f32, and why.
    """

    def __init__(self, func: ir.Operation, limit: float) -> None:
        self._limit = limit
        self._same: dict[ir.Value, ir.Value] = {}  # bases that are one memory, or whose types must agree: towards one of them
        self._carried: dict[ir.Value, ir.Operation] = {}
        self.narrow: set[ir.Value] = set()
        self.wide_products: set[ir.Value] = set()
        self.kept: list[tuple[ir.Operation, str]] = []
        blocks = dialect.blocks(func)[::-1]
        for op in [op.operation for block in blocks for op in block.operations]:
            if op.name in dialect.CONTROL:
                self._join(op)
        entry = body(func)
        self._outputs = {self.memory_of(o.operands[0]) for o in entry.operations if o.operation.name == "ingot.output"}
        self._carries = {self.memory_of(v): op for v, op in self._carried.items()}
        self._active = {a for a in entry.arguments if dialect.dtype_of(a) == "f32"} | set(self._carries)
        operations = list(_in_order(entry))
        for op in operations:
            if op.name in dialect.ROOTS and (op.name in _PRODUCTS or self._reads_activation(op)):
                self._active.update(self.memory_of(r) for r in op.results)
        self._angles = find_angles(operations, self.memory_of)
        self.wide_products |= self._angles.products
        wide: set[ir.Value] = set()
        for op in operations:
            if op.name not in dialect.ROOTS:
                continue
            floats = [self.memory_of(r) for r in op.results if dialect.dtype_of(r) == "f32"]
            found = (reason for memory in floats if (reason := self._reason(op, memory)) is not None)
            reason = next(found, None)  # results of one root have one type
            if reason is None:
                self.narrow.update(floats)
            else:
                wide.update(floats)
                self.kept += [(op, reason)] if floats else []
        self.narrow -= wide  # a concatenation is one piece of memory
        for op in operations:
            if op.name == "ingot.attention" and dialect.dtype_of(op.operands[0]) == "f32":
                self._choose_attention(op)

    def memory_of(self, value: ir.Value) -> ir.Value:
        """One of the values that lie in the memory of a value's base, or in memory that must have the same type."""
        value = base_of(value)
        while value in self._same:
            value = self._same[value]
        return value

    def _unite(self, a: ir.Value, b: ir.Value) -> None:
        a, b = self.memory_of(a), self.memory_of(b)
        if a != b:
            self._same[b] = a

    def _join(self, op: ir.Operation) -> None:
        """Join what a control operation makes one: results, what its regions compute for them, and what they capture."""
        own = dialect.carried(op)
        for region in op.regions:
            block = region.blocks[0]
            given = [r.operands[0] for r in dialect.region_results(region)]
            for number, (argument, value) in enumerate(zip(block.arguments, dialect.captured(op), strict=True)):
                if number >= own:
                    self._unite(value, argument)
                    continue
                self._unite(op.results[number], argument)
                if base_of(given[number]) == argument and given[number] != argument:
                    self._unite(value, argument)  # its parts are moved in, one an iteration
                elif dialect.dtype_of(argument) == "f32":
                    self._carried[argument] = op
            for result, value in zip(op.results, given, strict=True):
                source = defining(base_of(value))
                if source is not None and source.name != "ingot.weight":
                    self._unite(result, value)

    def _reads_activation(self, op: ir.Operation) -> bool:
        """True where a root reads an activation, or rows of a table of weights, which become one."""
        root = Root.read(op)
        if any(self.memory_of(t) in self._active for t in root.tensors):
            return True
        indexed = {i.attr("operand") for r in root.regions for i in r.insts if i.op == "load_at"}
        return any(_is_weight(base_of(root.tensors[n])) and dialect.dtype_of(root.tensors[n]) == "f32" for n in indexed)

    def _reason(self, op: ir.Operation, memory: ir.Value) -> str | None:
        """Why a root's result stays in f32; None where it does not."""
        if memory in self._outputs:
            return "an output of the model"
        if memory in self._carries:
            return f"carried by the loop {node_name(self._carries[memory]) or ''}".rstrip()
        if op.name == "ingot.reduce":
            return "the result of a reduction"
        if memory in self._angles.memory:
            return "an angle, of which a sine or cosine is taken"
        if memory not in self._active:
            return "a table or mask, computed from no activation"
        constants = (i.attr("value") for i in Root.read(op).regions[-1].insts if i.op == "const" and i.type == "f32")
        large = [v for v in constants if self._limit < abs(v) < float("inf")]
        return f"computed with {large[0]:g}, beyond the narrow type's range" if large else None

    def _choose_attention(self, op: ir.Operation) -> None:
        shared = list(op.operands)[1:3]
        if all(self.memory_of(v) in self.narrow or _is_weight(base_of(v)) for v in shared):
            return
        self.wide_products.add(op.results[0])
        self.kept.append((op, "attention over keys and values that are not stored in the narrow type"))
        self.narrow.discard(self.memory_of(op.operands[0]))


def _in_order(block: ir.Block) -> Iterator[ir.Operation]:
    """The operations of a block, those of regions of control operations before these."""
    for view in block.operations:
        op = view.operation
        if op.name in dialect.CONTROL:
            for region in op.regions:
                yield from _in_order(region.blocks[0])
        yield op


def _is_weight(value: ir.Value) -> bool:
    op = defining(value)
    return op is not None and op.name == "ingot.weight"


@dataclass
class _Rewrite:
    """Builds every operation anew beside the old one, with the chosen types; the old ones are erased in the end."""

    narrow: str
    choice: _Choice
    values: dict[ir.Value, ir.Value] = field(default_factory=dict)  # of bases, as they are stored
    cached: dict[tuple[ir.Value, str], ir.Value] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def block(self, block: ir.Block, results: Sequence[str] = ()) -> None:
        """Rewrite a block, whose `result`s get the types `results`."""
        given = iter(results)
        for op in [op.operation for op in block.operations]:
            if op.name in dialect.ROOTS:
                self._root(op)
            elif op.name in dialect.CONTROL:
                self._control(op)
            elif op.name == "ingot.empty":
                self._empty(op)
            elif op.name == "ingot.result":
                op.operands[0] = self._get(op.operands[0], next(given), op)
            elif op.name in ("ingot.output", "ingot.host_read"):
                op.operands[0] = self._get(op.operands[0], dialect.dtype_of(op.operands[0]), op)
        erase_all_dead(block)

    def _control(self, op: ir.Operation) -> None:
        first = len(op.operands) - len(dialect.captured(op))
        arguments = list(op.regions[0].blocks[0].arguments)
        wanted = [*(dialect.dtype_of(v) for v in list(op.operands)[:first]), *map(self._stored, arguments)]
        operands = [self._get(v, dtype, op) for v, dtype in zip(op.operands, wanted, strict=True)]
        stored = [self._stored(r) for r in op.results]
        types = [dialect.tensor_type(d, dialect.shape_of(r)) for d, r in zip(stored, op.results, strict=True)]
        new = rebuild(op, operands, types)
        for region in new.regions:
            block = region.blocks[0]
            old = list(block.arguments)
            for argument, operand in zip(old, operands[first:], strict=True):
                self.values[argument] = block.add_argument(operand.type, argument.location)
            self.block(block, stored)
            for _ in old:
                block.erase_argument(0)
        self.values.update(zip(op.results, new.results, strict=True))

    def _stored(self, value: ir.Value) -> str:
        """The storage type of a value's base."""
        dtype = dialect.dtype_of(value)
        return self.narrow if dtype == "f32" and self.choice.memory_of(value) in self.choice.narrow else dtype

    def _get(self, value: ir.Value, dtype: str, before: ir.Operation) -> ir.Value:
        """A value in a type: the new value, or a cast of it that all who want it share."""
        found = self.cached.get((value, dtype))
        if found is not None:
            return found
        op = defining(value)
        if op is not None and op.name in dialect.VIEWS:
            view = views.read(op)
            x = self._get(view.x, dtype, before)
            new = value if x == view.x else views.create(views.View(view.name, x, view.shape, view.attrs), before)
        else:
            new = self.values.get(value, value)
            if dialect.dtype_of(new) != dtype:
                new = self._cast(new, dtype, before)
        self.cached[value, dtype] = new
        return new

    def _cast(self, x: ir.Value, dtype: str, before: ir.Operation) -> ir.Value:
        source = dialect.dtype_of(x)
        builder = RegionBuilder()
        element = builder.emit("load", type=source, operand=0)
        region = builder.finish([builder.emit("truncf" if dtype == self.narrow else "extf", element, type=dtype)])
        op = defining(x)
        loc = before.location if op is None else op.location
        self.counts["casts of weights" if _is_weight(x) else "casts"] += 1
        shape = dialect.tensor_type(dtype, dialect.shape_of(x))
        return create_root("pointwise", [], [shape], {}, [region], [x], loc=loc, ip=ir.InsertionPoint(before)).results[0]

    def _empty(self, op: ir.Operation) -> None:
        dtype = self._stored(op.results[0])
        if dtype != dialect.dtype_of(op.results[0]):
            type_ = dialect.tensor_type(dtype, dialect.shape_of(op.results[0]))
            new = ir.Operation.create(op.name, results=[type_], loc=op.location, ip=ir.InsertionPoint(op))
            self.values[op.results[0]] = new.results[0]

    def _root(self, op: ir.Operation) -> None:
        root = Root.read(op)
        own = len(op.operands)
        multiplied = _PRODUCTS.get(op.name, 0)
        if op.results[0] in self.choice.wide_products:
            multiplied = 0
            wanted = [dialect.dtype_of(t) for t in root.tensors]
            wanted[own:] = [self._stored(t) for t in root.tensors[own:]]
        else:
            wanted = [self._stored(t) for t in root.tensors]
        for i in range(multiplied):
            if dialect.dtype_of(root.tensors[i]) == "f32":
                wanted[i] = self.narrow
        if root.name == "scatter":  # replaces elements of its operand
            wanted[0] = self._stored(op.results[0])
        tensors = [self._get(t, dtype, op) for t, dtype in zip(root.tensors, wanted, strict=True)]
        if len(op.operands) == 2 and op.name == "ingot.move":
            tensors[1] = self.values.get(op.operands[1], op.operands[1])
        stored = [self._stored(r) for r in op.results]
        if tensors == root.tensors and stored == [dialect.dtype_of(r) for r in op.results]:
            return
        last = len(root.regions) - 1
        first = wanted[0] if root.name in _ELEMENT_MAPS else None
        regions = [
            self._region(r, wanted, first if i == 0 else None, stored if i == last else None)
            for i, r in enumerate(root.regions)
        ]
        types = [dialect.tensor_type(d, dialect.shape_of(r)) for d, r in zip(stored, op.results, strict=True)]
        attrs = {n: op.attributes[n] for n in op.attributes}
        new = create_root(root.name, tensors[:own], types, attrs, regions, tensors, loc=fused_location(op),
                          ip=ir.InsertionPoint(op))  # fmt: skip
        self.counts["dispatches"] += 1
        for old, value in zip(op.results, new.results, strict=True):
            self.values[old] = value

    def _region(
        self, region: ScalarRegion, stored: Sequence[str], first: str | None, results: Sequence[str] | None
    ) -> ScalarRegion:
        """A region that widens what it reads, and narrows what it yields, where that is stored in the narrow type."""
        args = (first, *region.args[1:]) if first is not None else region.args
        builder = RegionBuilder(args)
        values = list(range(len(args)))
        if first == self.narrow and region.args[0] == "f32":
            values[0] = builder.emit("extf", 0, type="f32")

        def widened(inst: ScalarInst, operands: tuple[int, ...]) -> int | None:
            if inst.op not in ("load", "load_at") or inst.type != "f32" or stored[inst.attr("operand")] == "f32":
                return None
            element = builder.emit(inst.op, *operands, type=self.narrow, operand=inst.attr("operand"))
            return builder.emit("extf", element, type="f32")

        yielded = builder.inline(region, values, replace=widened)
        if results is not None:
            yielded = [
                builder.emit("truncf", v, type=d) if builder.type_of(v) == "f32" and d == self.narrow else v
                for v, d in zip(yielded, results, strict=True)
            ]
        return builder.finish(yielded)
