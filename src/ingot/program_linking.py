"""Completing a launch program: kernels get their keys and plans, and plans their workspace in the arena. Also the way back: a
complete program made a draft again, with kernels for the sizes at hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
    assert all(plans[step.kernel].workspace == 0 for step in draft.packing), "packing has no arena"
    if not sizes:
        return replace(draft, kernels=kernels)
    size = reduce(dims.maximum, sizes)
    start = dims.ceildiv(draft.arena_bytes, _ALIGNMENT) * _ALIGNMENT
    buffers = (*draft.buffers, Buffer("arena", size, start))
    return replace(draft, kernels=kernels, steps=steps, buffers=buffers, arena_bytes=start + size)


def specialize(program: LaunchProgram, env: Mapping[str, int], live: frozenset[str] = frozenset()) -> LaunchProgram:
    """The draft of a program whose dispatches have constants for every size that `env` gives.

    Sizes that depend on `live` names, or on what is read from the device, stay in the size table, and so do all sizes of a
    dispatch that has nothing to do (a size of 0). Known offsets of tensors become parts of addresses. Buffers keep their
    numbers; the workspace, behind them, is gone until `link`.
    What `program` packed is there.
    """
    dispatches = [from_json(json.loads(e.dispatch)) for e in program.kernels]
    entries: dict[str, int] = {}
    known_names = frozenset(env) - live
    workspaces: set[int] = set()

    def fix(step: Step) -> Step:
        match step:
            case DispatchStep():
                if step.workspace is not None:
                    workspaces.add(step.workspace.buffer)
                dispatch = dispatches[step.kernel]
                sizes = dict(zip(dispatch.symbols, step.sizes, strict=True))
                known = {name: dims.evaluate(d, env) for name, d in sizes.items() if dims.symbols(d) <= known_names}
                moved: dict[tuple[str, int], int] = {}
                if 0 not in {value for name, value in known.items() if name not in dispatch.placing}:
                    dispatch, moved = dispatch.specialize(known).without_known_offsets()
                number = entries.setdefault(dispatch.text, len(entries))
                kept = tuple(sizes[name] for name in dispatch.symbols)
                operands, results = (
                    tuple(BufferRef(r.buffer, r.offset + moved.get((kind, i), 0)) for i, r in enumerate(references))
                    for kind, references in (("operand", step.operands), ("result", step.results))
                )
                return replace(step, kernel=number, sizes=kept, operands=operands, results=results, workspace=None)
            case IfStep():
                return replace(step, then=tuple(map(fix, step.then)), otherwise=tuple(map(fix, step.otherwise)))
            case LoopStep():
                return replace(step, body=tuple(map(fix, step.body)))
        return step

    steps = tuple(map(fix, program.steps))
    kernels = tuple(KernelEntry("", KernelPlan(()), text) for text in entries)
    buffers, arena_bytes = program.buffers, program.arena_bytes
    if workspaces:
        (last,) = workspaces
        assert last == len(buffers) - 1, "the workspace lies behind all other buffers"
        buffers, arena_bytes = buffers[:-1], buffers[-1].offset
    return replace(program, kernels=kernels, steps=steps, packing=(), buffers=buffers, arena_bytes=arena_bytes)
