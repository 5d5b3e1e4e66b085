"""The family of `move` on the CPU: copies between any two strided views, with transposes through registers."""

from __future__ import annotations

from typing import Any

from ingot import dims
from ingot.compiler.codegen.cpu_elementwise import Elementwise, emit_elementwise
from ingot.compiler.codegen.family import Emitted
from ingot.dispatch import Dispatch
from ingot.target import Target


def emit(dispatch: Dispatch, target: Target, schedule: Any = None) -> Emitted:
    """See `family.emit`; there is one schedule."""
    offsets = tuple(dims.as_dim(d) for d in dispatch.attr("offsets", ()))
    return emit_elementwise(Elementwise(dispatch, dispatch.operands[0].shape, argument=0, start=offsets), target)
