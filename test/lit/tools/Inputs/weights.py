"""A pass that looks into the weight store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ingot.dialects.mlir import ir
from ingot.passes import Pass, PassContext


@dataclass(frozen=True, kw_only=True)
class Weights(Pass):
    """Remark on the first weight."""

    name: ClassVar[str] = "test-weights"

    def run(self, module: ir.Module, ctx: PassContext) -> None:
        name = next(iter(ctx.weights))
        weight = ctx.weights[name]
        ctx.remark(f"{name} is {weight.dtype} {list(weight.shape)}")
