"""A kernel built and run on the emulator, for tests of the emulator itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ingot.compiler.codegen.kernel_builder import KernelModule, Param
from ingot.compiler.emulator import Report, TensorMap, emulate


def launch(
    build: Callable[..., None], args: Sequence[Any], *, grid: int | Sequence[int] = 1, block: int = 32, cluster: int = 1,
    shared: int = 4096, target: str = "sm_90a",
) -> Report:  # fmt: skip
    """Emulate the kernel that `build(builder, *parameters)` makes: i32 for ints, else tensor maps or pointers to arrays."""

    def param(i: int, a: Any) -> Param:
        if isinstance(a, TensorMap):
            return Param(f"p{i}", "tensormap")
        return Param(f"p{i}", "i32" if isinstance(a, int) else "ptr<1>")

    with KernelModule(target) as m:
        with m.kernel("kernel", [param(i, a) for i, a in enumerate(args)], threads=block, cluster=cluster) as k:
            build(k, *k.args)
        return emulate(
            m.module, "kernel", grid, block, args, cluster=cluster, dynamic_shared_bytes=shared, count_conflicts=True
        )


def kinds(report: Report) -> list[str]:
    """What kinds of defects were found, in order."""
    return [f.kind for f in report.findings]
