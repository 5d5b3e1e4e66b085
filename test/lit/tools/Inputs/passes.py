"""Passes that the tests of ingot-opt load."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import ClassVar, Literal

from ingot.dialects.mlir import ir
from ingot.errors import ModelError
from ingot.passes import Pass, PassContext
from ingot.passes.diagnostics import node_name
from ingot.passes.patterns import operations


@dataclass(frozen=True, kw_only=True)
class Tag(Pass):
    """Put a unit attribute on operations of one name.

    This paragraph is not in the listing.
    """

    name: ClassVar[str] = "test-tag"
    op: str
    tag: str = "tag"
    limit: int | None = None
    order: Literal["forward", "backward"] = "forward"
    scales: tuple[float, ...] = ()
    quiet: bool = False

    def run(self, module: ir.Module, ctx: PassContext) -> None:
        found = operations(module, self.op)
        for op in (found if self.order == "forward" else found[::-1])[: self.limit]:
            op.attributes[self.tag] = ir.UnitAttr.get()
            ctx.changed("tagged")
            if not self.quiet:
                ctx.remark(f"tagged {op.name}", op)


@dataclass(frozen=True, kw_only=True)
class Fail(Pass):
    """Fail in one of the ways in which a pass can."""

    name: ClassVar[str] = "test-fail"
    how: Literal["defect", "model", "invalid", "crash"] = "defect"

    def run(self, module: ir.Module, ctx: PassContext) -> None:
        ops = operations(module, "arith.addi")
        if not ops:
            return
        if self.how == "model":
            raise ModelError("addition is not supported", node=node_name(ops[0]), cure="subtract the negative")
        if self.how == "defect":
            raise KeyError("missing")
        if self.how == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        ops[0].operands[1] = ops[0].result  # its own operand
