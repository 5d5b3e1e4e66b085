"""Normalizations from the arithmetic that exporters write them in.

Patterns are found in dataflow: the scalar program that leads from a sum over axes to the last elementwise operation is put
together from however many operations it was exported as, simplified, and then compared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from ingot import dims
from ingot.dialects import ingot as dialect
from ingot.dialects.mlir import ir
from ingot.dialects.plain import attribute, create_root
from ingot.dispatch import ScalarInst
from ingot.passes.pass_base import Pass, PassContext
from ingot.passes.patterns import fused_location
from ingot.passes.rewriting import views
from ingot.passes.rewriting.domains import Regrouping, axis_groups, map_region
from ingot.passes.rewriting.ops import Root, defining, erase_all_dead, operand_number, replace, replace_root, roots
from ingot.passes.rewriting.scalar_regions import RegionBuilder, identity

_LIMIT = 16  # operations between the sum and the elementwise operation that uses it


@dataclass(frozen=True, kw_only=True)
class RecognizeNorms(Pass):
    """Make one `normalize` of root mean square and layer normalization written out in arithmetic, and run group normalization
    over the axes of the tensor that it groups rather than over a reshaped copy.
    """

    name: ClassVar[str] = "ingot-recognize-norms"

    def run(self, module: ir.Module, ctx: PassContext) -> None:
        for block in dialect.blocks(dialect.main_func(module)):
            for op in roots(block):
                if op.name == "ingot.pointwise":
                    if (new := _recognize_rms(op)) is not None:
                        ctx.changed("rms")
                        if _recognize_layer(new):
                            ctx.changed("layer")
                elif op.name == "ingot.normalize" and _ungroup(op):
                    ctx.changed("group")
            erase_all_dead(block)


# Root mean square ---------------------------------------------------------------------------------------------------------


def _recognize_rms(op: ir.Operation) -> ir.Operation | None:
    """Replace a pointwise operation that divides x by the root of its mean square by a `normalize`; the new root, or None.

    Spellings: any of x / sqrt(m + e), x * (1 / sqrt(m + e)), x * rsqrt(m + e), x * pow(m + e, -1/2), where m is a sum of
    squares over axes divided by their size or multiplied by its reciprocal.
    """
    root = Root.read(op)
    if len(op.results) != 1:
        return None
    reduce_ = _sum_behind(root)
    if reduce_ is None or reduce_.regions[1].args[0] != "f32":  # what a normalization sums in
        return None
    x = _squared_operand(reduce_)
    if x is None or dialect.shape_of(x) != root.domain:
        return None
    axes = reduce_.attr("axes")
    size = dims.product(root.domain[a] for a in axes)
    program = _Program(root, reduce_)
    match = program.find_normalized(x, size)
    if match is None:
        return None
    at, epsilon = match
    builder = RegionBuilder(("f32",))
    region = program.region()
    tensors = list(program.tensors)

    def normalized(inst: ScalarInst, args: tuple[int, ...]) -> int | None:
        return 0 if inst is region.insts[at] else None

    # The sum is the program's first argument; only the normalized element may depend on it.
    values = _inline_without_argument(builder, region, normalized)
    if values is None:
        return None
    numbers: list[ir.Value] = [x]
    renumbered = {i: operand_number(numbers, t) for i, t in enumerate(tensors)}
    final = RegionBuilder(("f32",))
    epilogue = final.finish(final.inline(builder.finish(values), [0], operands=renumbered))
    element = dialect.dtype_of(x)
    new = create_root(
        "normalize",
        [x],
        [op.results[0].type],
        {"axes": reduce_.op.attributes["axes"], "kind": ir.StringAttr.get("rms"), "epsilon": _f64(epsilon)},
        [_widened(element), epilogue],
        numbers,
        loc=fused_location(reduce_.op, op),
        ip=ir.InsertionPoint(op),
    )
    replace(op, new.results)
    return new


def _f64(value: float) -> ir.Attribute:
    return ir.FloatAttr.get(ir.F64Type.get(), value)


def _widened(element: str) -> Any:
    """The region that gives an element as f32."""
    if element == "f32":
        return identity("f32")
    builder = RegionBuilder((element,))
    return builder.finish([builder.emit("extf", 0, type="f32")])


def _inline_without_argument(builder: RegionBuilder, region: Any, replace_: Any) -> list[int] | None:
    """Inline a region whose argument stands for nothing; None where a value that depends on it is left."""
    unknown = builder.emit("dim", type="i64", dim="_unknown")

    values = builder.inline(region, [unknown], replace=replace_)
    finished = builder.finish(values)
    if any(i.op == "dim" and i.attr("dim") == "_unknown" for i in finished.insts):
        return None
    return values


def _sum_behind(root: Root) -> Root | None:
    """The sum over axes that a pointwise operation reads through other pointwise operations, if there is exactly one."""
    found: list[ir.Operation] = []
    work = [t for t in root.tensors if dialect.shape_of(t) != root.domain and _is_kept(t, root)]
    steps = 0
    while work and steps < _LIMIT:
        steps += 1
        op = defining(work.pop())
        if op is None:
            continue
        if op.name == "ingot.reduce" and attribute(op.attributes["kind"]) == "sum" and len(op.results) == 1:
            if op not in found:
                found.append(op)
        elif op.name == "ingot.pointwise":
            work += [t for t in dialect.inputs(op) if dialect.shape_of(t) == dialect.shape_of(op.results[0])]
    return Root.read(found[0]) if len(found) == 1 else None


def _is_kept(tensor: ir.Value, root: Root) -> bool:
    """True where a tensor has the domain's rank and size 1 on some axes: what a reduction that keeps axes leaves."""
    shape = dialect.shape_of(tensor)
    return len(shape) == len(root.domain) and all(a in (1, b) for a, b in zip(shape, root.domain, strict=True))


def _squared_operand(reduce_: Root) -> ir.Value | None:
    """The tensor x where a sum is one of x*x, computed in f32; else None."""
    builder = RegionBuilder((dialect.dtype_of(reduce_.op.operands[0]),))
    source = defining(reduce_.op.operands[0])
    region = reduce_.regions[0]
    if source is not None and source.name == "ingot.pointwise" and region.is_identity:
        producer = Root.read(source)
        region, tensors = producer.regions[0], producer.tensors
        builder = RegionBuilder(())
        (value,) = builder.inline(region)[:1]
        inst = builder.inst(value)
        if inst is None or inst.op != "mulf" or inst.args[0] != inst.args[1]:
            return None
        return _loaded_f32(builder, inst.args[0], tensors)
    (value,) = builder.inline(region, [0])
    inst = builder.inst(value)
    if inst is not None and inst.op == "mulf" and inst.args[0] == inst.args[1]:
        inner = builder.inst(inst.args[0])
        if inst.args[0] == 0 or (inner is not None and inner.op == "extf" and inner.args == (0,)):
            return reduce_.op.operands[0]
    return None


def _loaded_f32(builder: RegionBuilder, value: int, tensors: list[ir.Value]) -> ir.Value | None:
    """The tensor whose element a value is, widened or not."""
    inst = builder.inst(value)
    if inst is not None and inst.op == "extf":
        inst = builder.inst(inst.args[0])
    return tensors[inst.attr("operand")] if inst is not None and inst.op == "load" else None


class _Program:
    """The scalar program of a pointwise operation, with what leads from a reduction to it put in line.

    Its argument is the reduction's accumulated value.
    """

    def __init__(self, root: Root, reduce_: Root) -> None:
        self.tensors: list[ir.Value] = []
        self._reduce = reduce_
        self._builder = RegionBuilder((reduce_.regions[1].args[0],))
        self._values = self._expanded(root)

    def region(self) -> Any:
        """The program."""
        return self._builder.finish(self._values)

    def _expanded(self, root: Root) -> list[int]:
        def computed(inst: ScalarInst, args: tuple[int, ...]) -> int | None:
            if inst.op != "load":
                return None
            tensor = root.tensors[inst.attr("operand")]
            op = defining(tensor)
            if op is not None and op == self._reduce.op:
                return self._builder.inline(self._reduce.regions[1], [0])[0]
            if op is not None and op.name == "ingot.pointwise" and self._leads_to_sum(op):
                return self._expanded(Root.read(op))[0]
            return self._builder.emit("load", type=inst.type, operand=operand_number(self.tensors, tensor))

        return self._builder.inline(root.regions[0], replace=computed)

    def _leads_to_sum(self, op: ir.Operation) -> bool:
        """True where a pointwise operation reads the reduction, directly or through others of its shape."""
        if len(op.results) != 1 or dialect.shape_of(op.results[0]) != dialect.shape_of(self._reduce.op.results[0]):
            return False
        sources = [defining(t) for t in dialect.inputs(op)]
        return any(
            s is not None and (s == self._reduce.op or (s.name == "ingot.pointwise" and self._leads_to_sum(s))) for s in sources
        )

    def find_normalized(self, x: ir.Value, size: dims.Dim) -> tuple[int, float] | None:
        """The instruction that computes x over the root of its mean square, and the epsilon; None where there is none."""
        region = self.region()
        builder = RegionBuilder(region.args)
        builder.insts = list(region.insts)
        for at, inst in enumerate(region.insts):
            for value, other in (inst.args, inst.args[::-1]) if inst.op in ("mulf", "divf") and len(inst.args) == 2 else ():
                if inst.op == "divf" and value != inst.args[0]:
                    continue
                loaded = _loaded_f32(builder, value, self.tensors)
                if loaded is None or loaded != x:
                    continue
                epsilon = _reciprocal_root(builder, other, size) if inst.op == "mulf" else _root(builder, other, size)
                if epsilon is not None:
                    return at, epsilon
        return None


def _reciprocal_root(b: RegionBuilder, value: int, size: dims.Dim) -> float | None:
    """The epsilon e where a value is (mean + e) ** -1/2."""
    inst = b.inst(value)
    if inst is None:
        return None
    if inst.op == "divf" and b.constant(inst.args[0]) == 1.0:
        return _root(b, inst.args[1], size)
    if inst.op == "rsqrt":
        return _mean_and_epsilon(b, inst.args[0], size)
    if inst.op == "pow" and b.constant(inst.args[1]) == -0.5:
        return _mean_and_epsilon(b, inst.args[0], size)
    return None


def _root(b: RegionBuilder, value: int, size: dims.Dim) -> float | None:
    """The epsilon e where a value is sqrt(mean + e)."""
    inst = b.inst(value)
    if inst is None:
        return None
    if inst.op == "sqrt" or (inst.op == "pow" and b.constant(inst.args[1]) == 0.5):
        return _mean_and_epsilon(b, inst.args[0], size)
    return None


def _mean_and_epsilon(b: RegionBuilder, value: int, size: dims.Dim) -> float | None:
    inst = b.inst(value)
    if inst is not None and inst.op == "addf":
        for mean, epsilon in (inst.args, inst.args[::-1]):
            if b.constant(epsilon) is not None and _is_mean(b, mean, size):
                return float(b.constant(epsilon))
        return None
    return 0.0 if _is_mean(b, value, size) else None


def _is_mean(b: RegionBuilder, value: int, size: dims.Dim) -> bool:
    """True where a value is the region's argument divided by `size`."""
    inst = b.inst(value)
    if inst is None or inst.op not in ("divf", "mulf") or inst.args[0] != 0:
        return False
    constant = b.constant(inst.args[1])
    if constant is not None:
        if not isinstance(size, int) or size == 0:
            return False
        return math.isclose(constant, size if inst.op == "divf" else 1 / size, rel_tol=1e-6)
    count = b.inst(inst.args[1])
    if inst.op == "divf" and count is not None and count.op in ("sitofp", "uitofp"):
        count = b.inst(count.args[0])
        return count is not None and count.op == "dim" and dims.parse(count.attr("dim")) == size
    return False


# Layer normalization ------------------------------------------------------------------------------------------------------


def _recognize_layer(op: ir.Operation) -> bool:
    """Make a root-mean-square normalization of x minus its own mean one layer normalization of x; whether it did."""
    root = Root.read(op)
    centered = defining(op.operands[0])
    if centered is None or centered.name != "ingot.pointwise":
        return False
    if any(t == op.operands[0] for t in root.tensors[1:]) or _loads_operand(root):
        return False
    inner = Root.read(centered)
    builder = RegionBuilder(())
    inst = builder.inst(builder.inline(inner.regions[0])[0])
    if inst is None or inst.op != "subf":
        return False
    x = _loaded_f32(builder, inst.args[0], inner.tensors)
    reduce_ = _sum_behind(inner)
    if x is None or reduce_ is None or not reduce_.regions[0].is_identity:
        return False
    if reduce_.op.operands[0] != x or reduce_.attr("axes") != root.attr("axes"):
        return False
    program = _Program(inner, reduce_)
    region = program.region()
    known = RegionBuilder(region.args)
    known.insts = list(region.insts)
    last = known.inst(region.results[0])
    size = dims.product(root.domain[a] for a in root.attr("axes"))
    if last is None or last.op != "subf" or not _is_mean(known, last.args[1], size):
        return False
    attrs = {n: op.attributes[n] for n in op.attributes} | {"kind": ir.StringAttr.get("layer")}
    regions = [_widened(dialect.dtype_of(x)), *root.regions[1:]]
    new = replace_root(root, operands=[x], attrs=attrs, regions=regions, tensors=[x, *root.tensors[1:]],
                       loc=fused_location(centered, op))  # fmt: skip
    replace(op, new.results)
    return True


def _loads_operand(root: Root) -> bool:
    return any(i.op in ("load", "load_at") and i.attr("operand") == 0 for r in root.regions for i in r.insts)


# Group normalization ------------------------------------------------------------------------------------------------------


def _ungroup(op: ir.Operation) -> bool:
    """Normalize over [N, G, C/G, spatial...] instead of [N, G, C/G * spatial]; whether it did.

    The shorter form needs a tensor whose channels and positions lie together; the longer one is a view in any layout.
    """
    root = Root.read(op)
    source = defining(op.operands[0])
    if source is None or source.name != "ingot.reshape" or root.attr("axes") != (2,):
        return False
    x = source.operands[0]
    shape, flat = dialect.shape_of(x), dialect.shape_of(op.operands[0])
    if len(shape) < 3 or len(flat) != 3 or shape[0] != flat[0]:
        return False
    group = dims.exact_div(shape[1], flat[1])
    if group is None or dims.product((group, *shape[2:])) != flat[2]:
        return False
    grouped = (*flat[:2], group, *shape[2:])
    groups = axis_groups(flat, grouped)
    if groups is None:
        return False
    change = Regrouping(flat, grouped, groups)
    operand = views.reshape(x, grouped, op)
    tensors = list(root.tensors)
    regions = []
    for region in root.regions:
        mapped = map_region(change, region, tensors, op)
        if mapped is None:
            return False
        region, tensors = mapped
        regions.append(region)
    attrs: dict[str, Any] = {n: op.attributes[n] for n in op.attributes}
    attrs["axes"] = tuple(range(2, len(grouped)))
    types = [dialect.tensor_type(dialect.dtype_of(r), grouped) for r in op.results]
    new = replace_root(root, operands=[operand], result_types=types, attrs=attrs, regions=regions,
                       tensors=[operand, *tensors[1:]])  # fmt: skip
    replace(op, [views.reshape(r, flat, op) for r in new.results])
    return True
