"""One dispatch to machine code: emit Kernel IR, run the tool chain, pack plan and code.

A failure leaves the dispatch in a file, and names the command that repeats it: `ingot kernel FILE.json`.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ingot.dispatch import Dispatch, from_json
from ingot.errors import CompileError
from ingot.fingerprint import kernel_key
from ingot.kernel_code import KernelCode
from ingot.kernel_plan import KernelPlan
from ingot.target import Target

if TYPE_CHECKING:
    from ingot.compiler.toolchain.stages import Timings


def compile_kernel(
    dispatch: Dispatch,
    target: Target,
    schedule: Any = None,
    *,
    name: str = "",
    dump_dir: str | Path | None = None,
    timings: Timings | None = None,
) -> KernelCode:
    """Compile `dispatch` for `target`.

    Args:
        schedule: the family's, or None for its own choice.
        name: names dumped files; by default `name_of` the dispatch.
        dump_dir: keeps the product of each stage there.
        timings: collects seconds per stage; emitting counts as `kernel-ir`.

    Raises:
        CompileError: naming the root operation, what failed, and the command that repeats it.
    """
    plan, code = compile_stages(dispatch, target, schedule, name=name, dump_dir=dump_dir, timings=timings)
    if target.kind == "cpu":
        return KernelCode(plan, "image", code.data, code.symbols)
    return KernelCode(plan, "cubin", code)


def compile_stages(
    dispatch: Dispatch,
    target: Target,
    schedule: Any = None,
    *,
    name: str = "",
    stop: str = "",
    dump_dir: str | Path | None = None,
    timings: Timings | None = None,
) -> tuple[KernelPlan, Any]:
    """The plan of `dispatch` and the product of stage `stop` of its kernels, by default the target's last.

    Arguments and errors are those of `compile_kernel`.
    """
    from ingot.compiler.codegen.family import emit
    from ingot.compiler.toolchain import stages
    from ingot.compiler.toolchain.host import HostTarget
    from ingot.dialects.mlir import kernel_context

    host = HostTarget(target.cpu, target.features) if target.kind == "cpu" else None
    options = stages.Options(host=host, name=name or name_of(dispatch, target))
    try:
        with kernel_context():
            begin = time.perf_counter()
            emitted = emit(dispatch, target, schedule)
            if timings is not None:
                timings.add("kernel-ir", time.perf_counter() - begin)
            return emitted.plan, stages.compile_kernels(
                emitted.module, target.name, stop=stop, options=options, dump_dir=dump_dir, timings=timings
            )
    except Exception as error:
        raise failure(dispatch, target, error) from error


def name_of(dispatch: Dispatch, target: Target) -> str:
    """What a dispatch's dumped files are named: the root and the key's first digits."""
    return f"{dispatch.root}_{kernel_key(dispatch.text, target.key)[:12]}"


def failure(dispatch: Dispatch, target: Target, error: Exception | str) -> CompileError:
    """The error for a kernel that cannot be compiled; leaves a file with which the failure can be repeated."""
    message = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    if isinstance(error, CompileError):
        message = error.message if error.node is None else f"{error.node}: {error.message}"
    elif isinstance(error, NotImplementedError):
        message = str(error)
    try:
        path = Path(tempfile.gettempdir()) / f"ingot-{name_of(dispatch, target)}.json"
        path.write_text(to_text(dispatch, target))
        cure = f"repeat it with: ingot kernel {path}"
    except OSError:
        cure = f"the dispatch is {dispatch.text}"
    return CompileError(f"no code for {dispatch.root} on {target.name}: {message}", cure=cure)


def to_text(dispatch: Dispatch, target: Target) -> str:
    """A dispatch with its target as JSON, which `from_text` reads."""
    return json.dumps({"dispatch": json.loads(dispatch.text), "target": asdict(target)}, indent=1)


def from_text(text: str) -> tuple[Dispatch, Target]:
    """What `to_text` wrote. Raises ValueError where the text is something else."""
    try:
        data = json.loads(text)
        return from_json(data["dispatch"]), Target.from_json(data["target"])
    except (KeyError, TypeError, AttributeError, AssertionError) as e:
        raise ValueError(f"no dispatch with its target: {e!r}") from None
