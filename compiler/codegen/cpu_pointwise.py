"""The family of `pointwise` on the CPU."""

from __future__ import annotations

from typing import Any

from ingot.compiler.codegen.cpu_elementwise import Elementwise, emit_elementwise
from ingot.compiler.codegen.family import Emitted
from ingot.dispatch import Dispatch
from ingot.target import Target


def emit(dispatch: Dispatch, target: Target, schedule: Any = None) -> Emitted:
    """See `family.emit`; there is one schedule."""
    return emit_elementwise(Elementwise(dispatch, dispatch.results[0].shape), target)
