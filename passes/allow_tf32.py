"""The user's choice that products of f32 may be computed in tf32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ingot.dialects import ingot as dialect
from ingot.dialects.mlir import ir
from ingot.passes.pass_base import Pass, PassContext

_PRODUCTS = ("ingot.matmul", "ingot.conv", "ingot.attention")


@dataclass(frozen=True, kw_only=True)
class AllowTf32(Pass):
    """Let f32 products round their operands to tf32 (10 bits of mantissa), where the target has instructions for it.

    A choice of the machine that runs an engine, not of the engine: the pass belongs to the JIT's pipeline.
    """

    name: ClassVar[str] = "ingot-allow-tf32"

    def run(self, module: ir.Module, ctx: PassContext) -> None:
        for op in [view.operation for block in dialect.blocks(dialect.main_func(module)) for view in block.operations]:
            if op.name in _PRODUCTS and all(dialect.dtype_of(v) == "f32" for v in op.operands):
                op.attributes["tf32"] = ir.UnitAttr.get()
                ctx.changed("tf32")
