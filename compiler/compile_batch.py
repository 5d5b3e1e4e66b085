"""Several small kernels in one module: each goes through the tool chain to PTX by itself, and they are assembled together.

Assembling and loading have a cost for each module that small kernels do not repay alone. A kernel that fails costs itself only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ingot.compiler.compile_kernel import compile_stages, failure, name_of
from ingot.compiler.toolchain.ptx import merge_ptx
from ingot.compiler.toolchain.stages import Options, Timings, compile_kernels
from ingot.dispatch import Dispatch
from ingot.errors import CompileError
from ingot.kernel_code import KernelCode
from ingot.kernel_plan import KernelPlan
from ingot.target import Target


@dataclass(frozen=True)
class Batch:
    """What `compile_batch` made.

    Attributes:
        module: the cubin that the kernels with a `module` key share; empty where none do.
        kernels: for each dispatch its code, or why it has none.
    """

    module: bytes
    kernels: tuple[KernelCode | CompileError, ...]


def compile_batch(
    dispatches: Sequence[Dispatch], target: Target, *, dump_dir: str | Path | None = None, timings: Timings | None = None
) -> Batch:
    """Compile different dispatches for a GPU into one module; where the assembler refuses them together, each alone.

    Args:
        dump_dir: keeps the product of each stage there; the common one as `batch_NAME`, after the first kernel.
        timings: collects seconds per stage.
    """
    found: dict[int, KernelCode | CompileError] = {}
    written: dict[int, tuple[KernelPlan, str]] = {}
    for number, dispatch in enumerate(dispatches):
        try:
            written[number] = compile_stages(dispatch, target, stop="ptx", dump_dir=dump_dir, timings=timings)
        except CompileError as error:
            found[number] = error

    def assemble(ptx: str, name: str) -> bytes:
        options = Options(name=name)
        return compile_kernels(ptx, target.name, start="ptx", options=options, dump_dir=dump_dir, timings=timings)

    module = b""
    if len(written) > 1:
        try:
            module = assemble(merge_ptx([ptx for _, ptx in written.values()]), "batch_" + name_of(dispatches[0], target))
        except (CompileError, ValueError):
            pass  # which kernel is at fault shows when each is assembled alone
    key = hashlib.sha256(module).hexdigest() if module else ""
    for number, (plan, ptx) in written.items():
        dispatch = dispatches[number]
        try:
            code = module or assemble(ptx, name_of(dispatch, target))
            found[number] = KernelCode(plan, "cubin", code, module=key)
        except CompileError as error:
            found[number] = failure(dispatch, target, error)
    return Batch(module, tuple(found[n] for n in range(len(dispatches))))
