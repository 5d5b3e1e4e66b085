"""LLVM IR to PTX with llvmlite's NVPTX backend."""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Sequence
from typing import Any

from ingot.cuda_targets import CUDA_TARGETS
from ingot.errors import CompileError


def ptx_version(target: str) -> int:
    """The PTX ISA version times ten to write for a target of `ingot.cuda_targets`, or for one without its suffix `a`.

    A version below the target's minimum would make LLVM end the process; llvmlite 0.50 knows versions up to 9.0.
    """
    for row in CUDA_TARGETS:
        if target in (row.name, row.name.rstrip("a")):
            return row.ptx
    raise ValueError(f"no PTX version is known for {target!r}; targets are {', '.join(t.name for t in CUDA_TARGETS)}")


_lock = threading.Lock()
_machines: dict[tuple[str, int], Any] = {}


def _machine(target: str, level: int) -> Any:
    import llvmlite.binding as llvm

    with _lock:
        found = _machines.get((target, level))
        if found is None:
            features = f"+ptx{ptx_version(target)}"
            llvm.initialize_all_targets()
            llvm.initialize_all_asmprinters()
            found = _machines[target, level] = llvm.Target.from_triple("nvptx64-nvidia-cuda").create_target_machine(
                cpu=target, features=features, opt=level
            )
        return found


def compile_ptx(text: str, target: str, *, level: int = 3) -> str:
    """PTX of LLVM IR `text` (as `to_llvm_ir` gives it) for `target`.

    `level` is LLVM's optimization level, 0 to 3; 3 is taken for 2. All that differs is that LLVM unrolls and peels loops more,
    which the emitters do where it is of use, and which costs a sixth of the time that a kernel compiles. At 0 the assembler
    still optimizes.
    """
    import llvmlite.binding as llvm

    level = min(level, 2)
    machine = _machine(target, level)
    try:
        module = llvm.parse_assembly(text, llvm.create_context())
    except RuntimeError as error:
        raise CompileError(f"LLVM refused the kernel's IR: {error}") from error
    module.triple = "nvptx64-nvidia-cuda"
    module.data_layout = str(machine.target_data)
    module.verify()
    if level:
        options = llvm.create_pipeline_tuning_options(speed_level=level)
        options.loop_vectorization = False
        options.slp_vectorization = False
        builder = llvm.create_pass_builder(machine, options)
        builder.getModulePassManager().run(module, builder)
    ptx = machine.emit_assembly(module)
    if unknown := _UNKNOWN_INTRINSIC.search(ptx):
        raise CompileError(f"LLVM 22 does not know the intrinsic {unknown[1]}", cure="emit it as inline PTX")
    return ptx


_UNKNOWN_INTRINSIC = re.compile(r"^\.extern \.func .*?(llvm\.[\w.]+)", re.MULTILINE)
_HEADER = re.compile(r"^\s*\.(version|target|address_size)\b.*$", re.MULTILINE)
_EXTERN_SHARED = re.compile(r"^\s*\.extern \.shared .*$", re.MULTILINE)


# Variables and functions of a module, other than entries; those within functions are indented and local.
_MODULE_SYMBOL = re.compile(
    r"^(?:\.(?:weak|visible)\s+)?(?:\.(?:global|const|shared)\b[^;={\[]*?|\.func\s+(?:\([^)]*\)\s*)?)([\w$]+)\s*[\[;=(]",
    re.MULTILINE,
)


def merge_ptx(modules: Sequence[str]) -> str:
    """One PTX module of several for the same target: assembling small kernels together costs less than apart.

    Declarations of dynamic shared memory are shared; other variables and functions of a module are renamed.
    Raises ValueError where headers differ, or two kernels have one name.
    """
    headers = {tuple(m.group(0).split()[1] for m in _HEADER.finditer(text)) for text in modules}
    if len(headers) != 1:
        raise ValueError(f"PTX modules for different targets cannot be merged: {sorted(headers)}")
    names = [name for text in modules for name in entries(text)]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"kernels of one name cannot be merged: {sorted(twice)}")
    header = "\n".join(m.group(0).strip() for m in _HEADER.finditer(modules[0]))
    shared: dict[str, None] = {}
    bodies = []
    for number, text in enumerate(modules):
        shared.update((m.group(0).strip(), None) for m in _EXTERN_SHARED.finditer(text))
        body = _EXTERN_SHARED.sub("", _HEADER.sub("", text))
        bodies.append(_rename(body, {m[1] for m in _MODULE_SYMBOL.finditer(body)}, f"_m{number}"))
    return "\n".join((header, *shared, *bodies))


def _rename(ptx: str, names: Collection[str], suffix: str) -> str:
    if not names:
        return ptx
    words = "|".join(re.escape(name) for name in sorted(names))
    return re.sub(rf"(?<![\w$%.])(?:{words})(?![\w$])", lambda m: m[0] + suffix, ptx)


def entries(ptx: str) -> list[str]:
    """Names of the kernels in a PTX module, in order."""
    return re.findall(r"^\s*(?:\.visible\s+)?\.entry\s+([\w$]+)", ptx, re.MULTILINE)
