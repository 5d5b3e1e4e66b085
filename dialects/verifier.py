"""Verification of `ingot` operations: attributes, types of regions, and shapes that can be checked without execution."""

from __future__ import annotations

from ingot.dialects.mlir import ir


class _Invariants(ir.DynamicOpTrait):
    """Checks an operation against its row of the dialect's table; MLIR runs it when parsing and verifying."""

    @staticmethod
    def verify_invariants(op: ir.OpView) -> bool:
        message = find_fault(op.operation)
        if message is None:
            return True
        op.operation.location.emit_error(f"'{op.operation.name}' op {message}")
        return False


def attach(name: str) -> None:
    """Attach the verifier to operation `name` in the current context."""
    _Invariants.attach(name)


def find_fault(op: ir.Operation) -> str | None:
    """What is wrong with `op`, or None."""
    from ingot.dialects.ingot import DEFS

    definition = DEFS[op.name]
    attributes = op.attributes
    for name in definition.attrs:
        if name not in attributes:
            return f"requires attribute '{name}'"
    return None
