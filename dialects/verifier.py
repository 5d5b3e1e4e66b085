"""Verification of `ingot` operations: attributes, types of regions, and shapes as far as they can be proven wrong.

Sizes that are not known to be different may be equal: a rule fails only where the difference of two sizes is a constant other
than zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

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
    required, attribute_fault, rule = _checks(op.name)
    attributes = op.attributes
    for name in required:
        if name not in attributes:
            return f"requires attribute '{name}'"
        if (fault := attribute_fault(name, attributes[name])) is not None:
            return fault
    try:
        return rule(op)
    except ValueError as e:  # a type without sizes, a shape expression that cannot be read
        return str(e)


@cache
def _checks(name: str) -> tuple[Sequence[str], Callable[[str, ir.Attribute], str | None], Callable[[ir.Operation], str | None]]:
    """The required attributes of operation `name`, what finds the fault of one, and the operation's rule."""
    from ingot.dialects import ingot as dialect
    from ingot.dialects import verifier_rules as rules

    definition = dialect.DEFS[name]
    if definition.kind == "scalar":
        return definition.attrs, rules.attribute_fault, rules.SCALAR_RULES.get(name, rules.row)
    return definition.attrs, rules.attribute_fault, rules.RULES.get(name, _nothing)


def _nothing(op: ir.Operation) -> str | None:
    return None


def differ(a: dims.Dim, b: dims.Dim) -> bool:
    """True where two sizes are known to be different."""
    if a is b:
        return False
    difference = a - b
    return isinstance(difference, int) and difference != 0
