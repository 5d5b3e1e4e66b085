"""What a plan's kernels ask for against what an SM of a target has."""

from __future__ import annotations

from ingot.compiler.toolchain.cubin_resources import resources
from ingot.kernel_plan import KernelPlan
from ingot.target import Target


def check_limits(plan: KernelPlan, cubin: bytes, target: Target, *, spilled: int = 0) -> None:
    """Fail unless an SM of `target` holds a block of every launch, and threads keep at most `spilled` bytes in local memory."""
    found = resources(cubin)
    for launch in plan.launches:
        asked, threads = found[launch.symbol], launch.block[0] * launch.block[1] * launch.block[2]
        shared = launch.shared_bytes + asked.shared_bytes
        assert target.resident_blocks(threads, asked.registers, shared) >= 1, (target.name, launch, asked)
        assert asked.local_bytes <= spilled, (target.name, launch.symbol, asked)
