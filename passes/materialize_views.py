"""Copies the few views that cannot be read in place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ingot.dialects import ingot as dialect
from ingot.dialects.layout import layout_of
from ingot.dialects.mlir import ir
from ingot.dialects.plain import create_root, to_attribute
from ingot.dtypes import DTYPES
from ingot.passes.fold_constants import constant_values
from ingot.passes.pass_base import Pass, PassContext
from ingot.passes.rewriting import repeats, views
from ingot.passes.rewriting.ops import Root, erase_all_dead, replace, users
from ingot.passes.rewriting.scalar_regions import identity
from ingot.strided_view import StridedView

# For each root, which of its own operands must have an axis of stride 1 among their last `n`: (operand, n). Their kernels read
# whole vectors or rows along such an axis; every other operand, and every tensor that a region loads, is read at any strides.
_CONTIGUOUS_AXES: dict[str, tuple[tuple[int, int], ...]] = {
    "ingot.matmul": ((0, 2), (1, 2)),
    "ingot.scaled_matmul": ((0, 2), (1, 2)),
    "ingot.conv": ((0, 1), (1, 1)),
    "ingot.attention": ((0, 1), (1, 1), (2, 1)),
    "ingot.pool": ((0, 1),),
}
# Products whose second operand runs along k in memory where it is a weight of small elements: instructions take four or more
# neighbouring k of it in a register, and wgmma can transpose nothing narrower than 16 bits.
_K_MAJOR = frozenset({"ingot.matmul", "ingot.scaled_matmul"})
_K_MAJOR_BITS = 8


@dataclass(frozen=True, kw_only=True)
class MaterializeViews(Pass):
    """Let pointwise operations read repeats in place, where splitting their domain's axis does it. Insert a move where a
    reshape's elements cannot be reached by strides all the same, and where a matmul, convolution, attention or pooling would
    read an operand without a contiguous axis, or a region of a control operation a tensor with gaps. Weights of at most 8 bits
    are copied, too, where a matmul reads them across k: `ingot-fold-constants` makes derived weights of these.

    Every other view stays what it is: strides of the operands of the dispatches that read it.
    """

    name: ClassVar[str] = "ingot-materialize-views"

    def run(self, module: ir.Module, ctx: PassContext) -> None:
        for block in dialect.blocks(dialect.main_func(module)):
            _read_repeats_in_place(block, ctx)
            _materialize(block, ctx)


def _materialize(block: ir.Block, ctx: PassContext) -> None:
    copies: dict[ir.Value, ir.Value] = {}
    turned: dict[ir.Value, ir.Value] = {}  # weights -> the same along k
    constant = constant_values(block)

    def copy_of(value: ir.Value, kind: str) -> ir.Value:
        found = copies.get(value)
        if found is None:
            found = copies[value] = _move(value)
            ctx.changed(kind)
        return found

    for view in list(block.operations):
        op = view.operation
        if op.name == "ingot.reshape" and layout_of(op.results[0]) is None:
            op.operands[0] = copy_of(op.operands[0], "reshapes")
        for number, axes in _CONTIGUOUS_AXES.get(op.name, ()):
            value = op.operands[number]
            found = layout_of(value)
            assert found is not None, "an earlier reshape was made readable"
            if not _has_unit_stride(found[1], axes):
                op.operands[number] = copy_of(value, "operands")
        if op.name in _K_MAJOR and op.operands[1] in constant and _is_narrow_across_k(op.operands[1]):
            value = op.operands[1]
            if value not in turned:
                turned[value] = _transposed(copy_of(_transposed(value), "weights"))
            op.operands[1] = turned[value]
        if op.name in dialect.CONTROL:
            # A region takes its arguments for contiguous.
            for number, value in enumerate(op.operands):
                found = layout_of(value)
                assert found is not None, "an earlier reshape was made readable"
                if not found[1].is_contiguous:
                    op.operands[number] = copy_of(value, "captured")


def _read_repeats_in_place(block: ir.Block, ctx: PassContext) -> None:
    """Let pointwise operations that read repeats run over domains in which strides express these."""
    for view in [v for v in block.operations if v.operation.name == "ingot.reshape"]:
        repeat = view.operation.results[0]
        if layout_of(repeat) is not None:
            continue
        for reader in users(repeat):
            new = repeats.read_once(repeat, Root.read(reader)) if reader.name == "ingot.pointwise" else None
            if new is not None:
                values = [
                    views.reshape(r, dialect.shape_of(old), reader) for r, old in zip(new.results, reader.results, strict=True)
                ]
                replace(reader, values)
                ctx.changed("readers")
    erase_all_dead(block)


def _has_unit_stride(layout: StridedView, axes: int) -> bool:
    """True where one of the last `axes` axes is contiguous, or all of them have size 1."""
    sizes, strides = layout.shape[-axes:], layout.strides[-axes:]
    wide = [s for d, s in zip(sizes, strides, strict=True) if d != 1]
    return not wide or 1 in wide


def _is_narrow_across_k(value: ir.Value) -> bool:
    """True for a constant [..., k, n] of small elements that is not contiguous along k, and whose columns are whole bytes."""
    dtype = DTYPES[dialect.dtype_of(value)]
    found = layout_of(value)
    assert found is not None, "an earlier copy made it readable"
    _, layout = found
    k = layout.shape[-2]
    assert isinstance(k, int), "constants have constant sizes"
    return dtype.bits <= _K_MAJOR_BITS and k != 1 and k * dtype.bits % 8 == 0 and layout.strides[-2] != 1


def _transposed(value: ir.Value) -> ir.Value:
    """A view of `value` with its last two axes exchanged, right after it."""
    shape = dialect.shape_of(value)
    *lead, rows, cols = range(len(shape))
    perm = (*lead, cols, rows)
    owner = value.owner.operation
    return ir.Operation.create(
        "ingot.transpose", operands=[value], results=[dialect.tensor_type(dialect.dtype_of(value), [shape[p] for p in perm])],
        attributes={"perm": to_attribute(perm)}, loc=owner.location, ip=ir.InsertionPoint.after(owner),
    ).results[0]  # fmt: skip


def _move(value: ir.Value) -> ir.Value:
    """A contiguous copy of a view, made right after it so that every user of it may read the copy."""
    owner = value.owner.operation
    region = identity(dialect.dtype_of(value))
    return create_root(
        "move", [value], [value.type], {}, [region], [value], loc=owner.location, ip=ir.InsertionPoint.after(owner)
    ).results[0]
