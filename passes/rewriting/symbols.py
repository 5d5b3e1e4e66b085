"""Symbols that a function binds while it runs, and the operations that use them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ingot import dims
from ingot.dialects import ingot as dialect
from ingot.dialects.mlir import ir
from ingot.dialects.plain import attribute

__all__ = ["BINDERS", "all_operations", "bound_symbol", "drop_unused_symbols", "is_tensor", "used_symbols"]

BINDERS = ("ingot.host_read", "ingot.define")
_EXPRESSIONS = ("left", "right", "trips", "expression", "dim", "starts", "offsets")  # attributes that hold shape expressions


def all_operations(block: ir.Block) -> Iterator[ir.Operation]:
    """The operations of a block and those inside them."""
    for view in block.operations:
        yield view.operation
        for region in view.operation.regions:
            for inner in region.blocks:
                yield from all_operations(inner)


def is_tensor(value: ir.Value) -> bool:
    """True for a tensor, False for a scalar of a region."""
    return str(value.type).startswith("tensor<")


def used_symbols(op: ir.Operation) -> set[str]:
    """The symbols in an operation's types and shape expressions, without those inside it."""
    found = {s for v in (*op.operands, *op.results) if is_tensor(v) for s in dims.symbols_of(dialect.shape_of(v))}
    for name in _EXPRESSIONS:
        if name in op.attributes:
            texts: Any = attribute(op.attributes[name])
            found |= dims.symbols_of(map(dims.as_dim, (texts,) if isinstance(texts, str) else texts))
    return found


def bound_symbol(op: ir.Operation) -> str:
    """The symbol that a `host_read` or `define` binds."""
    return str(attribute(op.attributes["symbol"]))


def drop_unused_symbols(func: ir.Operation) -> int:
    """Erase reads and definitions of symbols that nothing uses; how many."""
    block = func.regions[0].blocks[0]
    binders = [view.operation for view in block.operations if view.operation.name in BINDERS]
    if not binders:
        return 0
    kept = {s for op in all_operations(block) if op.name not in BINDERS for s in used_symbols(op)}
    count = 0
    for op in reversed(binders):
        if bound_symbol(op) in kept:
            kept |= used_symbols(op)
        else:
            op.erase()
            count += 1
    return count
