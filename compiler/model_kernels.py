"""The kernels of a model on a target, as dispatches: what there is to compile, before anything is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ingot.compiler.jit import draft_program
from ingot.dispatch import Dispatch, from_json
from ingot.launch_program import DispatchStep, all_steps
from ingot.program_linking import specialize
from ingot.target import Target


@dataclass(frozen=True)
class ModelKernel:
    """A kernel of a model.

    Attributes:
        dispatch: what it computes.
        nodes: the ONNX nodes that it computes, launch by launch; equal layers share it.
    """

    dispatch: Dispatch
    nodes: tuple[str, ...]


def model_kernels(
    ir: bytes,
    target: Target,
    *,
    passes: Sequence[str] = (),
    sizes: Mapping[str, int] | None = None,
    dump_dir: str | Path | None = None,
) -> list[ModelKernel]:
    """The distinct kernels of an engine's IR (bytecode or text) on `target`, in the order of their first launches.

    Args:
        passes: those that a session asks for there (`ingot.runtime.specialization.machine_passes`).
        sizes: values of named dimensions; then the kernels are those that a session specializes for them.
        dump_dir: receives the IR that dispatches are made of.

    Raises:
        EngineError, CompileError: as `ingot.compiler.jit.draft_program`.
    """
    program = draft_program(ir, target, passes=passes, dump_dir=dump_dir).program
    if sizes:
        program = specialize(program, sizes)
    nodes: dict[int, list[str]] = {}
    for step in all_steps((*program.packing, *program.steps)):
        if isinstance(step, DispatchStep):
            nodes.setdefault(step.kernel, []).append(step.node)
    return [ModelKernel(from_json(json.loads(program.kernels[k].dispatch)), tuple(names)) for k, names in nodes.items()]
