"""Where the elements of a value lie: the `ingot` dialect's views as strided views of memory.

A value is a *base* (a function's argument, a weight, an `empty`, a dispatch's result), which is contiguous and row-major, or a
view of one. The attribute `ingot.order` of a dispatch says in which other order the axes of its results lie, outermost first.
A view whose elements strides cannot reach (a reshape that merges axes of a transposed tensor) has no layout:
`ingot-materialize-views` copies its operand first.
"""

from __future__ import annotations

from ingot import dims
from ingot.dialects.ingot import VIEWS, shape_of
from ingot.dialects.mlir import ir
from ingot.dialects.plain import attribute
from ingot.strided_view import StridedView

__all__ = ["IN_PLACE", "ORDER", "base_layout", "base_of", "layout_of", "target_of", "view_layout"]

ORDER = "ingot.order"
IN_PLACE = "in_place"  # unit attribute of a scatter


def base_of(value: ir.Value) -> ir.Value:
    """The value whose memory a value lies in: itself, or what a chain of views, of `move ... into`, or of scatters in place
    starts from."""
    while True:
        owner = value.owner
        if isinstance(owner, ir.Block):
            return value
        op = owner.operation
        if op.name in VIEWS:
            value = op.operands[0]
        elif (target := target_of(op)) is not None:
            value = target
        else:
            return value


def target_of(op: ir.Operation) -> ir.Value | None:
    """The operand in whose memory a root writes, with parts replaced: what a `move` writes into, what a scatter in place
    changes. None for a root whose results have memory of their own."""
    if op.name == "ingot.move" and len(op.operands) == 2:
        return op.operands[1]
    return op.operands[0] if op.name == "ingot.scatter" and IN_PLACE in op.attributes else None


def base_layout(base: ir.Value) -> StridedView:
    """Where the elements of a base lie in its memory."""
    shape, owner = shape_of(base), base.owner
    if isinstance(owner, ir.Block) or ORDER not in owner.operation.attributes:
        return StridedView.contiguous(shape)
    order = attribute(owner.operation.attributes[ORDER])
    return StridedView.contiguous([shape[a] for a in order]).transpose([order.index(a) for a in range(len(order))])


def layout_of(value: ir.Value) -> tuple[ir.Value, StridedView] | None:
    """The nearest value that is no view, and the strided view of it that `value` is; None where strides cannot express it."""
    chain: list[ir.Operation] = []
    while not isinstance(value.owner, ir.Block) and value.owner.operation.name in VIEWS:
        chain.append(value.owner.operation)
        value = chain[-1].operands[0]
    layout: StridedView | None = base_layout(value)
    for op in reversed(chain):
        assert layout is not None
        layout = view_layout(op, layout)
        if layout is None:
            return None
    assert layout is not None
    return value, layout


def view_layout(op: ir.Operation, x: StridedView) -> StridedView | None:
    """The layout of a view operation's result where its operand has layout `x`; None where strides cannot express it.

    Raises:
        ValueError: the operation is not a view.
    """
    shape = shape_of(op.results[0])
    match op.name:
        case "ingot.transpose":
            return x.transpose(attribute(op.attributes["perm"]))
        case "ingot.slice":
            starts = [dims.parse(s) for s in attribute(op.attributes["starts"])]
            return x.slice(starts, attribute(op.attributes["steps"]), shape)
        case "ingot.expand":
            return x.expand(shape)
        case "ingot.reshape":
            return x.reshape(shape)
    raise ValueError(f"{op.name} is not a view")
