"""CPU targets: this machine, and the baseline levels of x86-64 that code can be generated for anywhere.

Levels are those of the x86-64 psABI, section "Micro-Architecture Levels". The least is x86-64-v3 (AVX2, FMA and F16C, in every
x86 processor since 2015): below it, LLVM would call library functions for fused multiplications and 16-bit floats.
"""

from __future__ import annotations

from functools import cache

from ingot.errors import DeviceError
from ingot.target import Target

BASELINES: tuple[Target, ...] = (
    Target("cpu", "cpu", cpu="x86-64-v3", vector_bits=256),
    Target("cpu", "cpu", cpu="x86-64-v4", vector_bits=512),
)

# What kernels assume of a vector width; the widest that the CPU has all of is taken.
_NEEDED = {
    512: ("avx512f", "avx512bw", "avx512dq", "avx512vl"),
    256: ("avx2", "fma", "f16c"),
}


def vector_bits(features: str) -> int:
    """The width of the vector registers that kernels use, in bits, from LLVM's feature string (`+avx2,-avx512f,...`).

    Raises DeviceError where AVX2, FMA or F16C is missing.
    """
    present = set(features.split(","))
    for bits, needed in _NEEDED.items():
        if all(f"+{feature}" in present for feature in needed):
            return bits
    missing = [feature for feature in _NEEDED[256] if f"+{feature}" not in present]
    raise DeviceError(f"this CPU lacks {', '.join(missing)}", cure="run on an x86-64-v3 processor (Haswell, Zen or later)")


@cache
def host_target() -> Target:
    """The CPU that this process runs on."""
    from ingot.compiler.toolchain.host import host_target as llvm_host

    host = llvm_host()
    return Target("cpu", "cpu", features=host.features, cpu=host.cpu, vector_bits=vector_bits(host.features))


def baseline(level: str) -> Target:
    """The target of a micro-architecture level (`x86-64-v3`). Raises ValueError for one that is not in `BASELINES`."""
    for target in BASELINES:
        if target.cpu == level:
            return target
    raise ValueError(f"no CPU level {level!r}; there are {', '.join(t.cpu for t in BASELINES)}")
