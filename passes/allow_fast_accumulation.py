"""The user's choice that products of 8-bit floats may be summed in what a tensor core keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ingot.dialects import ingot as dialect
from ingot.dialects.mlir import ir
from ingot.passes.pass_base import Pass, PassContext

_PRODUCTS = ("ingot.matmul", "ingot.conv")
_TYPES = ("f8E4M3FN", "f8E5M2")


@dataclass(frozen=True, kw_only=True)
class AllowFastAccumulation(Pass):
    """Let products of 8-bit floats sum all of k in a tensor core, which on Ada and Hopper keeps 14 bits of them.

    By default kernels add such sums in f32 every 128 k. A choice of the machine that runs an engine, not of the engine: the
    pass belongs to the JIT's pipeline.
    """

    name: ClassVar[str] = "ingot-allow-fast-accumulation"

    def run(self, module: ir.Module, ctx: PassContext) -> None:
        for op in [view.operation for block in dialect.blocks(dialect.main_func(module)) for view in block.operations]:
            if op.name in _PRODUCTS and all(dialect.dtype_of(v) in _TYPES for v in list(op.operands)[:2]):
                op.attributes["fast_accumulation"] = ir.UnitAttr.get()
                ctx.changed("fast accumulation")
