"""A pass in a file of its own: `ingot-opt --load fold_double_transpose.py -p my-fold-double-transpose model.mlir`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ingot.dialects.mlir import ir
from ingot.passes import Pass, PassContext
from ingot.passes.patterns import Rewriter, is_op, rewrite


@dataclass(frozen=True, kw_only=True)
class FoldDoubleTranspose(Pass):
    """Replace two transposes that undo each other by what they transpose."""

    name: ClassVar[str] = "my-fold-double-transpose"
    max_rank: int = 8

    def run(self, module: ir.Module, ctx: PassContext) -> None:
        count = rewrite(module, {"ingot.transpose": self._fold})
        ctx.changed("folded", count)

    def _fold(self, op: ir.Operation, rewriter: Rewriter) -> bool:
        inner = op.operands[0].owner
        if not is_op(inner, "ingot.transpose"):
            return False
        first, second = ([int(axis) for axis in t.attributes["perm"]] for t in (inner.operation, op))
        if len(first) > self.max_rank or [first[axis] for axis in second] != sorted(first):
            return False
        rewriter.replace_op(op, [inner.operands[0]])
        rewriter.erase_if_unused(inner.operation)
        return True
