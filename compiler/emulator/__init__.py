"""The emulator: executes Kernel IR on numpy, for tests and for people who write kernels, without a GPU.

It knows operations, not kernel families: `arith`, `scf`, `vector`, `llvm` and `nvvm` as the kernel builder emits them.

    from ingot.compiler.emulator import emulate

    report = emulate(module, "kernel", grid=(4, 1, 1), block=128, args=[x, y, n], dynamic_shared_bytes=4096)
    report.check()              # raises on races, out-of-bounds or uninitialized reads, missing fences, ...
    report.bank_conflicts       # cycles lost to them, with count_conflicts=True
    report.executed             # {"mma.m16n8k16.bf16.bf16": 64, ...}

How it works: values.py (values of many threads at once), program.py and control.py (operations as closures, control
flow), group.py and unit.py (threads that diverge, meet at barriers and merge again), warpgroups.py (warps that gather for
wgmma), memory.py (bounds, uninitialized bytes), shadow.py (races), ops_*.py (what each operation means), fragments.py (the
PTX ISA's register layouts).
"""

from __future__ import annotations

from ingot.compiler.emulator.launch import Addresses, Uninitialized, Within, emulate
from ingot.compiler.emulator.report import EmulationError, Finding, Report
from ingot.compiler.emulator.tensor_map import TensorMap

__all__ = ["Addresses", "EmulationError", "Finding", "Report", "TensorMap", "Uninitialized", "Within", "emulate"]
