"""One of the functions that follow one another, by itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ingot.dialects import ingot as dialect
from ingot.dialects.mlir import ir
from ingot.errors import CompileError
from ingot.passes.diagnostics import node_name
from ingot.passes.pass_base import Pass, PassContext


@dataclass(frozen=True, kw_only=True)
class SelectStage(Pass):
    """Keep one stage (`ingot-split-stages`), of which a launch program is built, as the main function, and the weights program.

    Part of the JIT's pipeline.

    Attributes:
        number: of the stage, from 0.
    """

    name: ClassVar[str] = "ingot-select-stage"
    number: int = 0

    def run(self, module: ir.Module, ctx: PassContext) -> None:
        stages = dialect.stages(module)
        if not 0 <= self.number < len(stages):
            raise CompileError(f"there is no stage {self.number} of {len(stages)}", node=node_name(stages[0]))
        for number, func in enumerate(stages):
            if number != self.number:
                func.erase()
                ctx.changed("erased")
