"""The machine's choice that products of different sizes may share kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ingot.dialects import ingot as dialect
from ingot.dialects.mlir import ir
from ingot.passes.pass_base import Pass, PassContext
from ingot.passes.rewriting.ops import roots

GENERAL = "ingot.general"
_SHARED = frozenset({"ingot.matmul", "ingot.conv", "ingot.attention"})


@dataclass(frozen=True, kw_only=True)
class ShareKernels(Pass):
    """Let the products and attentions whose shapes are dynamic have kernels for any number of columns, any k and any number of
    heads, besides any of their dynamic sizes: a model's first result comes sooner. It leaves the attribute `ingot.general` on
    them (`ingot.compiler.general_dispatch`).

    A choice of the machine that runs an engine, for sessions that give every shape kernels of its own later.
    """

    name: ClassVar[str] = "ingot-share-kernels"

    def run(self, module: ir.Module, ctx: PassContext) -> None:
        for block in dialect.blocks(dialect.main_func(module)):
            for op in roots(block):
                tensors = [*op.operands, *op.results]
                if op.name in _SHARED and any(not isinstance(d, int) for t in tensors for d in dialect.shape_of(t)):
                    op.attributes[GENERAL] = ir.UnitAttr.get()
                    ctx.changed("shared")
