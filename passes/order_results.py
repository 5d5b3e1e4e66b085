"""In which order of their axes results lie in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ingot.dialects import ingot as dialect
from ingot.dialects.layout import ORDER
from ingot.dialects.mlir import ir
from ingot.dialects.plain import attribute, to_attribute
from ingot.passes.pass_base import Pass, PassContext
from ingot.passes.rewriting.ops import roots, users

# Roots whose kernels write rows along the last axis wherever they lie.
_ORDERED = frozenset({"ingot.attention"})


@dataclass(frozen=True, kw_only=True)
class OrderResults(Pass):
    """Let an attention write its result in the order of axes in which it is read, where every reader transposes it alike and
    keeps the last axis last: heads are merged without a copy.

    It leaves the attribute `ingot.order` on the operation (`ingot.dialects.layout`).
    """

    name: ClassVar[str] = "ingot-order-results"

    def run(self, module: ir.Module, ctx: PassContext) -> None:
        for block in dialect.blocks(dialect.main_func(module)):
            for op in roots(block):
                if op.name in _ORDERED and ORDER not in op.attributes and (order := _order(op)) is not None:
                    op.attributes[ORDER] = to_attribute(order)
                    ctx.changed("ordered")


def _order(op: ir.Operation) -> tuple[int, ...] | None:
    """The permutation by which everything reads the results of `op`; None where there is no such."""
    readers = [user for r in op.results for user in users(r)]
    if not readers or any(user.name != "ingot.transpose" for user in readers):
        return None
    found: set[tuple[int, ...]] = {attribute(user.attributes["perm"]) for user in readers}
    order = found.pop()
    return order if not found and order[-1] == len(order) - 1 else None
