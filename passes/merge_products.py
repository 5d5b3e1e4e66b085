"""Products of one tensor with several weights as one product."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from ingot import dims
from ingot.dialects import ingot as dialect
from ingot.dialects.layout import layout_of
from ingot.dialects.mlir import ir
from ingot.dialects.plain import attributes, create_root, to_attribute
from ingot.dispatch import ScalarRegion
from ingot.dtypes import DTYPES
from ingot.passes.fold_constants import constant_values
from ingot.passes.pass_base import Pass, PassContext
from ingot.passes.patterns import fused_location
from ingot.passes.rewriting import views
from ingot.passes.rewriting.ops import Root, defining, erase_all_dead, operand_number, readers, roots
from ingot.passes.rewriting.ops import replace as replace_op
from ingot.passes.rewriting.scalar_regions import identity

_ALIGNMENT = 16  # bytes: columns of a part begin where kernels can copy whole vectors


@dataclass(frozen=True, kw_only=True)
class MergeProducts(Pass):
    """Make one matmul of those that multiply the same tensor by weights, quantized or not, with epilogues that differ only in
    the weights they load: weights, scales and zero points are concatenated (by the weights program), results are slices of the
    merged one.

    Queries, keys and values of a layer become one product; so do the projections of one embedding or of one encoder's states
    in every layer.

    Args:
        max_columns: of a merged product: its result stays in memory until the last part is read.
    """

    name: ClassVar[str] = "ingot-merge-products"
    max_columns: int = 16384

    def run(self, module: ir.Module, ctx: PassContext) -> None:
        for block in dialect.blocks(dialect.main_func(module)):
            constant = constant_values(block)
            groups: dict[Hashable, list[Root]] = {}
            for op in roots(block):
                if op.name == "ingot.matmul" and (key := _key(root := Root.read(op), constant)) is not None:
                    groups.setdefault((op.operands[0], *key), []).append(root)
            for group in groups.values():
                for parts in self._fitting(group):
                    _merge(parts)
                    ctx.changed("products", len(parts))
            erase_all_dead(block)

    def _fitting(self, group: Sequence[Root]) -> list[list[Root]]:
        """Runs of at least two products whose columns are few enough together."""
        runs: list[list[Root]] = [[]]
        total = 0
        for root in group:
            if total + _columns(root) > self.max_columns:
                runs.append([])
                total = 0
            runs[-1].append(root)
            total += _columns(root)
        return [run for run in runs if len(run) > 1]


def _columns(root: Root) -> int:
    n = dialect.shape_of(root.op.results[0])[-1]
    assert isinstance(n, int)
    return n


def _is_column_major(weight: ir.Value) -> bool:
    found = layout_of(weight)
    return found is not None and found[1].strides[0] == 1


def _key(root: Root, constant: set[ir.Value]) -> tuple[Hashable, ...] | None:
    """What products that may become one have in common, besides what they multiply; None for a product that stays alone."""
    op = root.op
    x, weight, *scales = op.operands
    if len(op.results) != 1 or x in constant or any(v not in constant for v in (weight, *scales)):
        return None
    (result,) = op.results
    shape, dtype = dialect.shape_of(weight), dialect.dtype_of(result)
    if len(shape) != 2 or not all(map(_lies_in_vectors, (weight, *scales, result))):
        return None
    if any(user.name in ("ingot.output", "ingot.result", *dialect.CONTROL) for user in readers(result)):
        return None  # it has to be a whole piece of memory
    (region,) = root.regions
    loads: list[str] = []
    insts = []
    for inst in region.insts:
        if inst.op in ("load_at", "index"):
            return None
        if inst.op == "load":
            tensor = root.tensors[inst.attr("operand")]
            if tensor not in constant or not _is_row(tensor, shape[1]):
                return None
            inst = replace(inst, attrs=())
            loads.append(dialect.dtype_of(tensor))
        insts.append(inst)
    same = ScalarRegion(region.args, tuple(insts), region.results)
    attrs = tuple(sorted(attributes(op).items()))
    stored = tuple((dialect.dtype_of(v), _is_column_major(v)) for v in (weight, *scales))
    return stored, dtype, dialect.shape_of(result)[:-1], same, tuple(loads), attrs


def _lies_in_vectors(tensor: ir.Value) -> bool:
    """True where each column, or each row of columns, is whole vectors: parts that lie beside others begin with one."""
    shape = dialect.shape_of(tensor)
    run = shape[0 if len(shape) == 2 and _is_column_major(tensor) else -1]
    return isinstance(run, int) and run * DTYPES[dialect.dtype_of(tensor)].bits % (8 * _ALIGNMENT) == 0


def _is_row(tensor: ir.Value, columns: dims.Dim) -> bool:
    """True for one value a column, or one for all of them."""
    shape = dialect.shape_of(tensor)
    return not shape or (shape[-1] in (1, columns) and all(d == 1 for d in shape[:-1]))


def _merge(parts: Sequence[Root]) -> None:
    first = parts[0].op
    for part in parts:
        for value in part.tensors[1:]:
            _hoist(value, first)
    columns = [_columns(part) for part in parts]
    total = sum(columns)
    count = len(first.operands)
    sides = ([part.op.operands[i] for part in parts] for i in range(1, count))
    tensors = [first.operands[0], *(_side_by_side(matrices, columns, first) for matrices in sides)]
    merged: dict[tuple[ir.Value, ...], int] = {}
    loads = [[i for i in part.regions[0].insts if i.op == "load"] for part in parts]
    numbers = []
    for same in zip(*loads, strict=True):
        vectors = tuple(part.tensors[inst.attr("operand")] for part, inst in zip(parts, same, strict=True))
        if vectors not in merged:
            flat = [views.reshape(v, _row_shape(v), first) for v in vectors]
            wide = [views.expand(v, (n,), first) for v, n in zip(flat, columns, strict=True)]
            merged[vectors] = operand_number(tensors, _concat(wide, 0, columns, first))
        numbers.append(merged[vectors])
    rest = iter(numbers)
    (region,) = parts[0].regions
    insts = tuple(replace(i, attrs=(("operand", next(rest)),)) if i.op == "load" else i for i in region.insts)
    result = first.results[0]
    shape = dialect.shape_of(result)[:-1]
    new = create_root(
        "matmul",
        tensors[:count],
        [dialect.tensor_type(dialect.dtype_of(result), (*shape, total))],
        {n: first.attributes[n] for n in first.attributes},
        [replace(region, insts=insts)],
        tensors,
        loc=fused_location(*(part.op for part in parts)),
        ip=ir.InsertionPoint(first),
    ).results[0]
    starts = [sum(columns[:i]) for i in range(len(columns))]
    slices = [
        views.slice_(new, (*(0,) * len(shape), start), (1,) * (len(shape) + 1), (*shape, n), first)
        for start, n in zip(starts, columns, strict=True)
    ]
    for part, value in zip(parts, slices, strict=True):
        replace_op(part.op, [value])


def _side_by_side(matrices: Sequence[ir.Value], columns: Sequence[int], before: ir.Operation) -> ir.Value:
    """Weights, or their scales, with the columns of all of them; in the order in which the first one's elements lie."""
    if not _is_column_major(matrices[0]):
        return _concat(matrices, 1, columns, before)
    rows = [views.transpose(m, (1, 0), before) for m in matrices]
    return views.transpose(_concat(rows, 0, columns, before), (1, 0), before)


def _row_shape(tensor: ir.Value) -> tuple[dims.Dim, ...]:
    shape = dialect.shape_of(tensor)
    return (shape[-1] if shape else 1,)


def _hoist(value: ir.Value, before: ir.Operation) -> None:
    """Move what computes a constant in front of an operation."""
    op = defining(value)
    assert op is not None, "a constant is computed"
    if op.is_before_in_block(before):
        return
    for source in dialect.inputs(op):
        _hoist(source, before)
    op.move_before(before)


def _concat(parts: Sequence[ir.Value], axis: int, sizes: Sequence[int], before: ir.Operation) -> ir.Value:
    """The parts one after the other along an axis, in memory of their own."""
    shape = list(dialect.shape_of(parts[0]))
    shape[axis] = sum(sizes)
    type_ = dialect.tensor_type(dialect.dtype_of(parts[0]), tuple(shape))
    ip = ir.InsertionPoint(before)
    into = ir.Operation.create("ingot.empty", results=[type_], loc=before.location, ip=ip).results[0]
    start = 0
    for part, size in zip(parts, sizes, strict=True):
        offsets = tuple(str(start if a == axis else 0) for a in range(len(shape)))
        into = create_root("move", [part, into], [type_], {"offsets": to_attribute(offsets)},
                           [identity(dialect.dtype_of(part))], [part, into], loc=before.location, ip=ip).results[0]  # fmt: skip
        start += size
    return into
