"""Verification of `ingot` operations: attributes, types of regions, and shapes as far as they can be proven wrong.

Sizes that are not known to be different may be equal: a rule fails only where the difference of two sizes is a constant other
than zero.
"""

from __future__ import annotations

from collections.abc import Callable

from ingot import dims
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
    from ingot.dialects import ingot as dialect
    from ingot.dialects import verifier_rules as rules

    name = op.name
    definition = dialect.DEFS[name]
    if definition.kind == "scalar":
        rule: Callable[[ir.Operation], str | None] = rules.SCALAR_RULES.get(name, rules.row)
    else:
        rule = rules.RULES.get(name, _nothing)
    attributes = op.attributes
    for attribute in definition.attrs:
        if attribute not in attributes:
            return f"requires attribute '{attribute}'"
        if (fault := rules.attribute_fault(attribute, attributes[attribute])) is not None:
            return fault
    try:
        return rule(op)
    except ValueError as e:  # a type without sizes, a shape expression that cannot be read
        return str(e)


def _nothing(op: ir.Operation) -> str | None:
    return None


def differ(a: dims.Dim, b: dims.Dim) -> bool:
    """True where two sizes are known to be different."""
    if a is b:
        return False
    difference = a - b
    return isinstance(difference, int) and difference != 0
