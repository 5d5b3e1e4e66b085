"""A float model computed in a narrower type, where that is safe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from ingot.dialects import ingot as dialect
from ingot.dialects.layout import base_of
from ingot.dialects.mlir import ir
from ingot.dialects.plain import create_root
from ingot.dispatch import ScalarInst, ScalarRegion
from ingot.errors import CompileError
from ingot.passes.diagnostics import node_name
from ingot.passes.pass_base import Pass, PassContext
from ingot.passes.patterns import fused_location
from ingot.passes.rewriting import views
from ingot.passes.rewriting.ops import Root, body, defining, erase_all_dead
from ingot.passes.rewriting.scalar_regions import RegionBuilder

# Storage type and largest finite value.
_TYPES: dict[str, tuple[str, float]] = {"fp16": ("f16", 65504.0), "bf16": ("bf16", 3.3895313892515355e38)}
# How many of a root's own operands its kernels multiply, so that both must have the narrow type.
_PRODUCTS = {"ingot.matmul": 2, "ingot.conv": 2, "ingot.attention": 3}


@dataclass(frozen=True, kw_only=True)
class Cast(Pass):
    """Store activations, and the operands of products, in fp16 or bf16.

    Arithmetic stays in f32: what is accumulated, reduced, normalized, exponentiated, and every scalar region. Kept in f32 in
    memory, each with a remark, are inputs and outputs, results of reductions, numbers beyond the narrow type's range, tables
    and masks that are no activations, and attention over keys and values that are inputs or outputs. Casts of weights are part
    of the weights program.

    Args:
        to: the type.
    """

    name: ClassVar[str] = "ingot-cast"
    to: Literal["fp16", "bf16"]

    def run(self, module: ir.Module, ctx: PassContext) -> None:
        block = body(dialect.main_func(module))
        narrow, limit = _TYPES[self.to]
        for view in block.operations:
            op = view.operation
            if op.name in dialect.CONTROL:
                cure = "compile without cast, or convert the model to the narrow type"
                raise CompileError(f"{self.name} does not cast the regions of {op.name}", node=node_name(op), cure=cure)
        choice = _Choice(block, limit)
        for op, reason in choice.kept:
            ctx.remark(f"kept in f32: {reason}", op)
        rewrite = _Rewrite(block, narrow, choice.narrow, choice.wide_attention)
        rewrite.run()
        ctx.changes.update({(self.name, kind): n for kind, n in rewrite.counts.items()})


class _Choice:
    """Which tensors are stored in the narrow type."""

    def __init__(self, block: ir.Block, limit: float) -> None:
        self.narrow: set[ir.Value] = set()  # bases: see `base_of`
        self.wide_attention: set[ir.Value] = set()  # first results of attentions that stay in f32
        self.kept: list[tuple[ir.Operation, str]] = []
        operations = [op.operation for op in block.operations]
        outputs = {base_of(op.operands[0]) for op in operations if op.name == "ingot.output"}
        active = {a for a in block.arguments if dialect.dtype_of(a) == "f32"}
        for op in operations:
            if op.name in dialect.VIEWS:
                continue
            if op.name in dialect.ROOTS and (op.name in _PRODUCTS or _reads_activation(op, active)):
                active.update(base_of(r) for r in op.results)
        wide: set[ir.Value] = set()
        for op in operations:
            if op.name not in dialect.ROOTS:
                continue
            floats = [base_of(r) for r in op.results if dialect.dtype_of(r) == "f32"]
            found = (reason for base in floats if (reason := _reason(op, base, active, outputs, limit)) is not None)
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

    def _choose_attention(self, op: ir.Operation) -> None:
        shared = [base_of(v) for v in list(op.operands)[1:]]
        if all(b in self.narrow or _is_weight(b) for b in shared):
            return
        self.wide_attention.add(op.results[0])
        self.kept.append((op, "attention over keys and values that are not stored in the narrow type"))
        self.narrow.discard(base_of(op.operands[0]))


def _is_weight(value: ir.Value) -> bool:
    op = defining(value)
    return op is not None and op.name == "ingot.weight"


def _reads_activation(op: ir.Operation, active: set[ir.Value]) -> bool:
    """True where a root reads an activation, or rows of a table of weights, which become one."""
    root = Root.read(op)
    if any(base_of(t) in active for t in root.tensors):
        return True
    indexed = {i.attr("operand") for r in root.regions for i in r.insts if i.op == "load_at"}
    return any(_is_weight(base_of(root.tensors[n])) and dialect.dtype_of(root.tensors[n]) == "f32" for n in indexed)


def _reason(op: ir.Operation, base: ir.Value, active: set[ir.Value], outputs: set[ir.Value], limit: float) -> str | None:
    """Why a root's result stays in f32; None where it does not."""
    if base in outputs:
        return "an output of the model"
    if op.name == "ingot.reduce":
        return "the result of a reduction"
    if base not in active:
        return "a table or mask, computed from no activation"
    region = Root.read(op).regions[-1]
    large = [
        v for i in region.insts if i.op == "const" and i.type == "f32" and limit < abs(v := i.attr("value")) < float("inf")
    ]
    return f"computed with {large[0]:g}, beyond the narrow type's range" if large else None


@dataclass
class _Rewrite:
    """Builds every operation anew beside the old one, with the chosen types; the old ones are erased in the end."""

    block: ir.Block
    narrow: str
    chosen: set[ir.Value]
    wide_attention: set[ir.Value]
    values: dict[ir.Value, ir.Value] = field(default_factory=dict)  # of bases, as they are stored
    cached: dict[tuple[ir.Value, str], ir.Value] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def run(self) -> None:
        """Rewrite the block."""
        operations = [op.operation for op in self.block.operations]
        for op in operations:
            kind = dialect.DEFS[op.name].kind
            if kind == "root":
                self._root(op)
            elif op.name == "ingot.empty":
                self._empty(op)
            elif op.name == "ingot.output":
                op.operands[0] = self._get(op.operands[0], dialect.dtype_of(op.operands[0]), op)
        erase_all_dead(self.block)

    def _stored(self, value: ir.Value) -> str:
        """The storage type of a value's base."""
        dtype = dialect.dtype_of(value)
        return self.narrow if dtype == "f32" and base_of(value) in self.chosen else dtype

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
        if op.name == "ingot.attention" and op.results[0] in self.wide_attention:
            multiplied = 0
            wanted = [dialect.dtype_of(t) for t in root.tensors]
            wanted[own:] = [self._stored(t) for t in root.tensors[own:]]
        else:
            wanted = [self._stored(t) for t in root.tensors]
        for i in range(multiplied):
            if dialect.dtype_of(root.tensors[i]) == "f32":
                wanted[i] = self.narrow
        tensors = [self._get(t, dtype, op) for t, dtype in zip(root.tensors, wanted, strict=True)]
        if len(op.operands) == 2 and op.name == "ingot.move":
            tensors[1] = self.values.get(op.operands[1], op.operands[1])
        stored = [self._stored(r) for r in op.results]
        if tensors == root.tensors and stored == [dialect.dtype_of(r) for r in op.results]:
            return
        last = len(root.regions) - 1
        first = wanted[0] if root.name in ("move", "reduce", "normalize") else None
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
