"""What a process imports and builds before it compiles, so that workers forked from it need not.

Much of it is built at first use only: tables of LLVM's and MLIR's, the assembler's library. A small kernel builds it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

from ingot.dispatch import Dispatch, ScalarInst, ScalarRegion, contiguous
from ingot.target import Target

Step = Callable[[], Any]

# What the draft of a launch program needs.
DRAFT = (
    "ingot.compiler.jit",
    "ingot.compiler.compile_kernel",
    "ingot.passes.instrumentation",
    "ingot.passes.pipeline",
    "ingot.passes.registry",
    "ingot.passes.pack_weights",
    "ingot.passes.share_kernels",
)
# What compiling needs besides, for any target.
_COMPILE = (
    "llvmlite.binding",
    "ingot.compiler.compile_batch",
    "ingot.compiler.native_program",
    "ingot.compiler.toolchain.stages",
    "ingot.compiler.codegen.family",
    "ingot.passes.materialize_views",
    "ingot.passes.plan_buffers",
)
_BODY = (ScalarInst("load", (), "f32", (("operand", 0),)), ScalarInst("negf", (0,), "f32"))
_X = contiguous("f32", "d0", 64)
TRIAL = Dispatch("pointwise", (_X,), (_X,), (), (ScalarRegion((), _BODY, (1,)),), ("d0",), (1,))


def general_steps() -> list[Step]:
    """Short steps after which a process of ours is ready to compile, but for what a target needs."""
    from ingot.dialects.mlir import leave_out_classes

    return [leave_out_classes, *(partial(importlib.import_module, name) for name in _COMPILE)]


def target_steps(target: Target) -> list[Step]:
    """Short steps after which the process is ready to compile kernels of `target`; the general ones come first."""
    from ingot.compiler.codegen.family import FAMILIES
    from ingot.dialects.mlir import translator

    modules = [family.module for family in FAMILIES if family.kind == target.kind]
    return [*(partial(importlib.import_module, name) for name in modules), translator, partial(_trial, target)]


def _trial(target: Target) -> None:
    """Compile a small kernel and throw it away.

    LLVM could end the process for a target that it does not know; hence only for those that it is tested with, and this
    machine's CPU. No thread is left behind: the process may fork.
    """
    from ingot.compiler.compile_kernel import compile_stages
    from ingot.compiler.cpu_target import host_target
    from ingot.cuda_targets import BY_NAME
    from ingot.errors import Error

    known = host_target() if target.kind == "cpu" else BY_NAME.get(target.name)
    if target != known:
        return
    try:
        compile_stages(TRIAL, target)
    except Error:  # without an assembler, say: the jobs will tell
        pass
