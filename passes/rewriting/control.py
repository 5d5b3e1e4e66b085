"""Control operations built anew, with other operands and types."""

from __future__ import annotations

from collections.abc import Sequence

from ingot.dialects import ingot as dialect
from ingot.dialects.mlir import ir

__all__ = ["drop_unused_captures", "rebuild"]


def rebuild(op: ir.Operation, operands: Sequence[ir.Value], result_types: Sequence[ir.Type]) -> ir.Operation:
    """A control operation with the attributes and regions of `op`, before it; `op` is left without blocks, but with its uses.

    The regions' arguments are the caller's to adapt.
    """
    attrs = {n: op.attributes[n] for n in op.attributes if not n.endswith("SegmentSizes")}
    name = op.name[len(dialect.NAME) + 1 :]
    new = dialect.create_control(name, operands, result_types, attrs, loc=op.location, ip=ir.InsertionPoint(op))
    for old, region in zip(op.regions, new.regions, strict=True):
        old.blocks[0].append_to(region)
    return new


def drop_unused_captures(op: ir.Operation) -> int:
    """Replace a control operation by one that captures only what its regions use; how many values it captures less."""
    values = dialect.captured(op)
    first = len(op.operands) - len(values)
    unused = [
        number
        for number in range(dialect.carried(op), len(values))
        if not any(True for region in op.regions for _ in region.blocks[0].arguments[number].uses)
    ]
    if not unused:
        return 0
    operands = [v for i, v in enumerate(op.operands) if i - first not in unused]
    new = rebuild(op, operands, [r.type for r in op.results])
    for region in new.regions:
        for number in reversed(unused):
            region.blocks[0].erase_argument(number)
    for old, value in zip(op.results, new.results, strict=True):
        old.replace_all_uses_with(value)
    op.erase()
    return len(unused)
