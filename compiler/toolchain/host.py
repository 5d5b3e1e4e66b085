"""LLVM IR to x86-64 object code with llvmlite, for this machine's CPU or another's features."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cache
from typing import Any

from ingot.errors import CompileError


@dataclass(frozen=True)
class HostTarget:
    """A CPU to generate code for: LLVM's name of it (`znver3`, `x86-64-v3`), and features as `+avx2,-avx512f`."""

    cpu: str
    features: str = ""


@cache
def host_target() -> HostTarget:
    """This machine's CPU. Features are listed in a fixed order, so that the value can be part of a cache key."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    return HostTarget(llvm.get_host_cpu_name(), ",".join(("+" if on else "-") + f for f, on in sorted(features.items())))


_initialized = threading.Lock()
_machines: dict[tuple[HostTarget, int], Any] = {}


def _machine(target: HostTarget, level: int) -> Any:
    import llvmlite.binding as llvm

    with _initialized:
        found = _machines.get((target, level))
        if found is None:
            llvm.initialize_native_target()
            llvm.initialize_native_asmprinter()
            llvm.initialize_native_asmparser()
            found = _machines[target, level] = llvm.Target.from_triple("x86_64-unknown-linux-gnu").create_target_machine(
                cpu=target.cpu, features=target.features, opt=level, reloc="pic", codemodel="small"
            )
        return found


def compile_object(text: str, target: HostTarget | None = None, *, level: int = 3, assembly: bool = False) -> Any:
    """An ELF relocatable object (bytes) of LLVM IR `text`, position-independent; or its assembly (str).

    Args:
        text: LLVM IR as `to_llvm_ir` gives it.
        target: the CPU; this machine's by default.
        level: optimization level, 0 to 3.
        assembly: return x86 assembly text instead, for people.
    """
    import llvmlite.binding as llvm

    machine = _machine(target or host_target(), level)
    try:
        module = llvm.parse_assembly(text, llvm.create_context())
    except RuntimeError as error:
        raise CompileError(f"LLVM refused the kernel's IR: {error}") from error
    module.triple = "x86_64-unknown-linux-gnu"
    module.data_layout = str(machine.target_data)
    module.verify()
    if level:
        options = llvm.create_pipeline_tuning_options(speed_level=level)
        builder = llvm.create_pass_builder(machine, options)
        builder.getModulePassManager().run(module, builder)
    return machine.emit_assembly(module) if assembly else machine.emit_object(module)
