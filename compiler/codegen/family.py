"""Kernel families: from a dispatch to a kernel plan and its Kernel IR.

A family is a function `emit(dispatch, target, schedule=None) -> Emitted` that writes a dispatch's kernels for one kind of
target. Families are found by the table below; each stands in a file of its own and is imported when first used.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from typing import Any

from ingot.dialects.mlir import ir
from ingot.dispatch import Dispatch
from ingot.kernel_plan import KernelPlan
from ingot.target import Target


@dataclass(frozen=True)
class Emitted:
    """A kernel plan and the module of Kernel IR that holds the functions its launches name."""

    plan: KernelPlan
    module: ir.Module


@dataclass(frozen=True)
class Family:
    """Where the emitter of a root operation for a kind of target stands."""

    kind: str
    root: str
    module: str


_ROOTS = (
    "pointwise", "move", "matmul", "conv", "attention", "reduce", "normalize", "pool", "scatter", "scan", "topk",
)  # fmt: skip
FAMILIES: tuple[Family, ...] = (
    *(Family("cpu", root, f"ingot.compiler.codegen.cpu_{root}") for root in _ROOTS),
    *(Family("cuda", root, f"ingot.compiler.codegen.cuda_{root}") for root in _ROOTS),
)

_BY_KEY = {(f.kind, f.root): f for f in FAMILIES}


def emit(dispatch: Dispatch, target: Target, schedule: Any = None) -> Emitted:
    """Write the kernels of `dispatch` for `target`, in the current MLIR context.

    `schedule` is the family's own frozen dataclass, or None for the choice of its cost model. Raises NotImplementedError for
    what the family cannot do yet, naming the attribute or type at fault.
    """
    family = _BY_KEY.get((target.kind, dispatch.root))
    if family is None:
        raise NotImplementedError(f"no kernel family for {dispatch.root!r} on {target.name}")
    assert not dispatch.offsets or target.kind == "cuda", "CPU kernels get the addresses of tensors"
    emitted = importlib.import_module(family.module).emit(dispatch, target, schedule)
    if not target.overlaps_launches:
        return emitted
    launches = tuple(replace(launch, overlaps=True) for launch in emitted.plan.launches)  # `dispatch_kernel` sees to it
    return replace(emitted, plan=replace(emitted.plan, launches=launches))
