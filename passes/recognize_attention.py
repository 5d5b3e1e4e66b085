"""Attention from matmul, softmax, matmul.

Runs after fusion, when whatever an exporter wrote between the products stands in their epilogues and in the softmax's element
map: a scale, a mask added or selected, casts. Probabilities that a quantizer rounds to 8-bit floats are not rounded in an
attention (passes/rewriting/probabilities.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ingot import dims
from ingot.dialects import ingot as dialect
from ingot.dialects.mlir import ir
from ingot.dialects.plain import create_root
from ingot.dims import Dim
from ingot.dispatch import ScalarInst, ScalarRegion
from ingot.passes.pass_base import Pass, PassContext
from ingot.passes.patterns import fused_location
from ingot.passes.rewriting import views
from ingot.passes.rewriting.domains import Regrouping, axis_groups, map_region
from ingot.passes.rewriting.ops import (
    Root,
    defining,
    erase_all_dead,
    operand_number,
    readers,
    replace,
    replace_root,
    roots,
    users,
)
from ingot.passes.rewriting.probabilities import Probabilities, read_probabilities
from ingot.passes.rewriting.scalar_regions import RegionBuilder

_MASKED = -1e30  # what exporters add, or select, where a key must not be seen, is at most this


@dataclass(frozen=True, kw_only=True)
class RecognizeAttention(Pass):
    """Make one `attention` of softmax(score(q k^T)) v.

    Scales of q, of k and of the scores join into one; keys and values repeated for grouped heads are read where they are; a
    mask that only hides later positions becomes the attribute `causal`; any other is the `score` region.

    Args:
        max_head: the largest size of a head that the kernels are meant for.
    """

    name: ClassVar[str] = "ingot-recognize-attention"
    max_head: int = 256

    def run(self, module: ir.Module, ctx: PassContext) -> None:
        for block in dialect.blocks(dialect.main_func(module)):
            for op in roots(block):
                if op.name == "ingot.normalize" and _recognize(op, self.max_head, ctx):
                    ctx.changed("attention")
            erase_all_dead(block)


def _recognize(softmax: ir.Operation, max_head: int, ctx: PassContext) -> bool:
    norm = Root.read(softmax)
    rank = len(norm.domain)
    if norm.attr("kind") != "softmax" or norm.attr("axes") != (rank - 1,) or len(softmax.results) != 1 or not 2 <= rank <= 4:
        return False
    product = _sole_product(softmax.operands[0], softmax)
    weights = read_probabilities(norm, ctx.weights)
    if product is None or weights is None or weights.reader.name != "ingot.matmul":
        return False
    second = Root.read(weights.reader)
    if second.op.operands[0] != weights.tensor or second.tensors.count(weights.tensor) != 1:
        return False
    if product.attr("acc") != "f32" or second.attr("acc") != "f32" or second.op.operands[1] == weights.tensor:
        return False
    heads = _Heads.find(product.op, second.op)
    if heads is None or not heads.fits(max_head):
        return False
    at = second.op
    q, q_scale = _without_scale(heads.q, product.op, at)
    k, k_scale = _without_scale(heads.k, product.op, at)
    tensors: list[ir.Value] = [heads.in_four(q, at), *(heads.shared(heads.in_four(t, at), at) for t in (k, heads.v))]
    builder = RegionBuilder(("f32",))
    parts = [(product, product.regions[0]), (norm, norm.regions[0])]
    value = 0
    for root, region in parts:
        mapped = heads.map_region(region, root.tensors, norm.domain, at)
        if mapped is None:
            return False
        region, sources = mapped
        numbers = {i: operand_number(tensors, t) for i, t in enumerate(sources)}
        (value,) = builder.inline(region, [value], operands=numbers)
    if builder.type_of(value) != "f32":
        return False
    score, scale, causal = _split_score(builder.finish([value]), heads)
    epilogue = heads.map_region(second.regions[0], second.tensors, dialect.shape_of(at.results[0]), at)
    if epilogue is None:
        return False
    last, sources = epilogue
    numbers = {i: operand_number(tensors, t) for i, t in enumerate(sources)}
    renumber = RegionBuilder(last.args)
    last = renumber.finish(renumber.inline(last, [_weighted(renumber, weights, tensors)], operands=numbers))
    if weights.rounded:
        ctx.remark(f"probabilities of the attention are not rounded to {weights.rounded}", softmax)
    attrs: dict[str, ir.Attribute] = {"scale": ir.FloatAttr.get(ir.F64Type.get(), scale * q_scale * k_scale)}
    if causal:
        attrs["causal"] = ir.UnitAttr.get()
    types = [dialect.tensor_type(dialect.dtype_of(r), heads.four(dialect.shape_of(r))) for r in at.results]
    loc = fused_location(product.op, softmax, at)
    new = create_root("attention", tensors[:3], types, attrs, [score, last], tensors, loc=loc, ip=ir.InsertionPoint(at))
    replace(at, [views.reshape(n, dialect.shape_of(o), at) for n, o in zip(new.results, at.results, strict=True)])
    return True


def _sole_product(x: ir.Value, user: ir.Operation) -> Root | None:
    """The matmul whose only result is `x`, read by `user` alone."""
    op = defining(x)
    if op is None or op.name != "ingot.matmul" or len(op.results) != 1 or users(x) != [user]:
        return None
    return Root.read(op)


@dataclass(frozen=True)
class _Heads:
    """The operands of an attention, [..., S, D] and [..., T, D], of rank 2 to 4 and of one batch."""

    q: ir.Value
    k: ir.Value
    v: ir.Value

    @classmethod
    def find(cls, first: ir.Operation, second: ir.Operation) -> _Heads | None:
        """The operands of q k^T and of the product with v; None where their batches differ."""
        q, transposed = first.operands
        v = second.operands[1]
        rank = len(dialect.shape_of(q))
        if any(len(dialect.shape_of(t)) != rank for t in (transposed, v)):
            return None
        k = views.transpose(transposed, (*range(rank - 2), rank - 1, rank - 2), second)
        leads = [dialect.shape_of(t)[:-2] for t in (q, k, v)]
        if leads[1] != leads[2] or (leads[0] != leads[1] and not (rank == 4 and _groups(leads[0], leads[1]))):
            return None
        types = {dialect.dtype_of(t) for t in (q, k, v)}
        return cls(q, k, v) if len(types) == 1 else None

    def fits(self, limit: int) -> bool:
        """True where the sizes of a head are constants of at most `limit`."""
        return all(isinstance(d := dialect.shape_of(t)[-1], int) and d <= limit for t in (self.q, self.v))

    @property
    def lengths(self) -> tuple[Dim, Dim]:
        """Numbers of queries and of keys."""
        return dialect.shape_of(self.q)[-2], dialect.shape_of(self.k)[-2]

    @staticmethod
    def four(shape: Sequence[Dim]) -> tuple[Dim, ...]:
        """A shape [..., m, n] as [B, H, m, n]."""
        lead = tuple(shape[:-2])
        return (*((1, 1), (*lead, 1), lead)[len(lead)], *shape[-2:])

    def in_four(self, x: ir.Value, before: ir.Operation) -> ir.Value:
        """A tensor [..., m, n] viewed as [B, H, m, n]."""
        return views.reshape(x, self.four(dialect.shape_of(x)), before)

    def map_region(
        self, region: ScalarRegion, tensors: Sequence[ir.Value], domain: tuple[Dim, ...], before: ir.Operation
    ) -> tuple[ScalarRegion, list[ir.Value]] | None:
        """A region over [..., m, n] as one over [B, H, m, n]."""
        wide = self.four(domain)
        if wide == domain:
            return region, list(tensors)
        groups = axis_groups(domain, wide)
        return None if groups is None else map_region(Regrouping(domain, wide, groups), region, tensors, before)

    @staticmethod
    def shared(x: ir.Value, before: ir.Operation) -> ir.Value:
        """Keys or values [B, H, T, D] without the repetition for grouped heads that made them from [B, H/g, T, D]."""
        merge = defining(x)
        if merge is None or merge.name != "ingot.reshape":
            return x
        repeat = defining(merge.operands[0])
        if repeat is None or repeat.name != "ingot.expand":
            return x
        shape, wide, narrow = (dialect.shape_of(t) for t in (x, repeat.results[0], repeat.operands[0]))
        if len(wide) != 5 or len(narrow) != 5 or (wide[0], wide[1] * wide[2], *wide[3:]) != shape:
            return x
        if narrow != (wide[0], wide[1], 1, *wide[3:]):
            return x
        return views.reshape(repeat.operands[0], (*wide[:2], *wide[3:]), before)


def _groups(lead: Sequence[Dim], shared: Sequence[Dim]) -> bool:
    """True where heads [B, H] may share keys [B, H/g]."""
    return lead[0] == shared[0] and dims.exact_div(lead[1], shared[1]) is not None


def _weighted(builder: RegionBuilder, weights: Probabilities, tensors: list[ir.Value]) -> int:
    """A region's argument, the sum over v, with what is done to each probability done to it: the sum of NaN is NaN, of zeros
    zero."""
    value = 0
    if weights.guarded:
        value = builder.emit("select", builder.emit("cmpf_uno", 0, 0), builder.const(0.0, builder.args[0]), 0)
    for op, scale in weights.scales:
        if isinstance(scale, float):
            factor = builder.const(scale, "f32")
        else:
            number = operand_number(tensors, scale)
            factor = builder.emit("extf", builder.emit("load", type=dialect.dtype_of(scale), operand=number), type="f32")
        value = builder.emit(op, value, factor)
    return value


def _without_scale(x: ir.Value, reader: ir.Operation, before: ir.Operation) -> tuple[ir.Value, float]:
    """What `reader` reads, without the multiplication by a constant that made it, and the constant; 1 where there was none."""
    chain: list[views.View] = []
    value = x
    while (op := defining(value)) is not None and op.name in dialect.VIEWS:
        chain.append(views.read(op))
        value = op.operands[0]
    if op is None or len(op.results) != 1:
        return x, 1.0
    root = Root.read(op) if op.name in ("ingot.pointwise", "ingot.matmul") else None
    if root is not None and root.name == "matmul" and all(user == reader for user in readers(value)):
        source, factor = _unscaled_product(root)
        return _viewed(source, chain, before), factor
    if root is None or root.name != "pointwise":
        return x, 1.0
    builder = RegionBuilder(())
    inst = builder.inst(builder.inline(root.regions[0])[0])
    if inst is not None and inst.op == "truncf":
        inst = builder.inst(inst.args[0])
    if inst is None or inst.op not in ("mulf", "divf") or (factor := builder.constant(inst.args[1])) is None or factor == 0:
        return x, 1.0
    load = builder.inst(inst.args[0])
    if load is not None and load.op == "extf":
        load = builder.inst(load.args[0])
    if load is None or load.op != "load":
        return x, 1.0
    source = root.tensors[load.attr("operand")]
    if source.type != op.results[0].type:
        return x, 1.0
    return _viewed(source, chain, before), factor if inst.op == "mulf" else 1 / factor


def _viewed(x: ir.Value, chain: Sequence[views.View], before: ir.Operation) -> ir.Value:
    """A tensor through a chain of views, last to first."""
    for view in reversed(chain):
        x = views.make(views.View(view.name, x, view.shape, view.attrs), before)
    return x


def _unscaled_product(root: Root) -> tuple[ir.Value, float]:
    """A matmul's result without the multiplication by a constant that its epilogue ends in, and the constant."""
    (region,) = root.regions
    builder = RegionBuilder(region.args)
    (value,) = builder.inline(region, [0])
    outer = builder.inst(value)
    cast = outer is not None and outer.op == "truncf"
    inst = builder.inst(outer.args[0]) if outer is not None and cast else outer
    if inst is None or inst.op not in ("mulf", "divf") or not (factor := builder.constant(inst.args[1])):
        return root.op.results[0], 1.0
    plain = builder.emit("truncf", inst.args[0], type=outer.type) if outer is not None and cast else inst.args[0]
    new = replace_root(root, regions=[builder.finish([plain])])
    return new.results[0], factor if inst.op == "mulf" else 1 / factor


def _split_score(region: ScalarRegion, heads: _Heads) -> tuple[ScalarRegion, float, bool]:
    """A score region without the constant scale it begins with and the causal mask it ends in: (region, scale, causal)."""
    scale, causal = 1.0, False
    builder = RegionBuilder(region.args)
    (value,) = builder.inline(region, [0])
    inst = builder.inst(value)
    unmasked = _without_causal_mask(builder, inst, heads) if inst is not None else None
    if unmasked is not None:
        region, causal = builder.finish([unmasked]), True
    uses = [i for i in region.insts if 0 in i.args]
    if len(uses) == 1 and uses[0].op in ("mulf", "divf") and uses[0].args[0] == 0 and 0 not in region.results:
        outer = RegionBuilder(region.args)
        outer.insts = list(region.insts)
        factor = outer.constant(uses[0].args[1])
        if factor:
            scale = factor if uses[0].op == "mulf" else 1 / factor
            inner = RegionBuilder(region.args)

            def unscaled(inst: ScalarInst, args: tuple[int, ...]) -> int | None:
                return 0 if inst is uses[0] else None

            region = inner.finish(inner.inline(region, [0], replace=unscaled))
    return region, scale, causal


def _without_causal_mask(b: RegionBuilder, inst: ScalarInst, heads: _Heads) -> int | None:
    """The score where an instruction hides exactly the keys t > s + (T - S) of it; None where it does anything else.

    It must leave every query a key (S <= T): hidden by a large negative number instead of minus infinity, a query without keys
    sees all of them.
    """
    queries, keys = heads.lengths
    if not dims.is_nonnegative(keys - queries):
        return None
    if inst.op == "select":
        test, shown, hidden = inst.args
    elif inst.op == "addf":
        choice = next((c for a in inst.args if (c := b.inst(a)) is not None and c.op == "select"), None)
        if choice is None or b.constant(choice.args[1]) != 0.0:
            return None
        test, _, hidden = choice.args
        shown = next(a for a in inst.args if b.inst(a) is not choice)
    else:
        return None
    value = b.constant(hidden)
    if value is None or not value <= _MASKED:
        return None
    condition = b.inst(test)
    if condition is None or condition.op not in ("cmpi_sle", "cmpi_sge"):
        return None
    key, limit = condition.args if condition.op == "cmpi_sle" else condition.args[::-1]
    if _position(b, key) != (3, 0) or _position(b, limit) != (2, keys - queries):
        return None
    return shown


def _position(b: RegionBuilder, value: int) -> tuple[int, Dim] | None:
    """The axis and the offset where a value is `index` along an axis plus a shape expression."""
    offset: Dim = 0
    inst = b.inst(value)
    if inst is not None and inst.op == "addi":
        for a, c in (inst.args, inst.args[::-1]):
            other = b.inst(c)
            if other is not None and other.op == "dim":
                offset, inst = dims.parse(other.attr("dim")), b.inst(a)
                break
            if b.constant(c) is not None:
                offset, inst = b.constant(c), b.inst(a)
                break
    return (inst.attr("axis"), offset) if inst is not None and inst.op == "index" else None
