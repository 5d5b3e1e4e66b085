"""Elements that repeat along an axis are computed once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ingot.dialects import ingot as dialect
from ingot.dialects.mlir import ir
from ingot.passes.pass_base import Pass, PassContext
from ingot.passes.rewriting.ops import Root, erase_all_dead, replace, roots
from ingot.passes.rewriting.repeats import sunk


@dataclass(frozen=True, kw_only=True)
class SinkRepeats(Pass):
    """Let a pointwise operation over repeated elements (an expanded axis merged with its neighbours) compute each of them once,
    and its result repeat; padding by whole repeats among it.

    The tables of rotary embeddings hold every cosine and sine twice. What reads them splits the axis in two (`ingot-fuse`) and
    reads the elements as they are, at stride 0. Runs before `ingot-fuse`.
    """

    name: ClassVar[str] = "ingot-sink-repeats"

    def run(self, module: ir.Module, ctx: PassContext) -> None:
        for block in dialect.blocks(dialect.main_func(module)):
            for op in roots(block):
                if op.name == "ingot.pointwise" and (values := sunk(Root.read(op))) is not None:
                    replace(op, values)
                    ctx.changed("computations")
            erase_all_dead(block)
