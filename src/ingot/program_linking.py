"""Completing a launch program: kernels get their keys and plans, and plans their workspace in the arena."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

from ingot import dims
from ingot.dims import Dim
from ingot.dispatch import from_json
from ingot.kernel_plan import KernelPlan
from ingot.launch_program import Buffer, BufferRef, DispatchStep, IfStep, KernelEntry, LaunchProgram, LoopStep, Step

_ALIGNMENT = 256


def link(draft: LaunchProgram, keys: Sequence[str], plans: Sequence[KernelPlan]) -> LaunchProgram:
    """The program of `draft` with its kernels' keys and plans, in the order of `draft.kernels`.

    Launches of a program follow one another, so that all plans share one workspace, behind the arena's other buffers.
    """
    import json

    if len(keys) != len(draft.kernels) or len(plans) != len(draft.kernels):
        raise ValueError(f"{len(draft.kernels)} kernels, {len(keys)} keys and {len(plans)} plans")
    kernels = tuple(KernelEntry(k, p, e.dispatch) for e, k, p in zip(draft.kernels, keys, plans, strict=True))
    symbols = [from_json(json.loads(e.dispatch)).symbols for e in draft.kernels]
    workspace = BufferRef(len(draft.buffers))
    sizes: dict[Dim, None] = {}

    def complete(step: Step) -> Step:
        match step:
            case DispatchStep():
                plan = plans[step.kernel]
                if plan.workspace == 0:
                    return step
                env = dict(zip(symbols[step.kernel], step.sizes, strict=True))
                sizes[dims.substitute(plan.workspace, env)] = None
                return replace(step, workspace=workspace)
            case IfStep():
                return replace(step, then=tuple(map(complete, step.then)), otherwise=tuple(map(complete, step.otherwise)))
            case LoopStep():
                return replace(step, body=tuple(map(complete, step.body)))
        return step

    steps = tuple(map(complete, draft.steps))
    if not sizes:
        return replace(draft, kernels=kernels)
    size = reduce(dims.maximum, sizes)
    start = dims.ceildiv(draft.arena_bytes, _ALIGNMENT) * _ALIGNMENT
    buffers = (*draft.buffers, Buffer("arena", size, start))
    return replace(draft, kernels=kernels, steps=steps, buffers=buffers, arena_bytes=start + size)
