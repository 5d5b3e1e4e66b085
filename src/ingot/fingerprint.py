"""What compiled code depends on besides its source: our own emitters and passes, and the tools' versions.

Keys of the runtime cache contain these hashes, so that a changed emitter or another LLVM never meets old code. Nothing of the
compiler is imported for it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
from functools import cache
from pathlib import Path

TOOLS = ("torch-mlir", "llvmlite", "nvidia-nvjitlink")

# Files below the package `ingot` that decide the code of a kernel, and those that decide a launch program besides.
KERNEL_SOURCES = ("compiler/codegen", "compiler/toolchain", "compiler/compile_kernel.py", "compiler/compile_batch.py",
                  "compiler/thread_pool_code.py", "thread_pool_layout.py", "dialects/scalar_table.py",
                  "kernel_plan.py", "kernel_code.py", "cuda_targets.py", "dispatch.py", "target.py")  # fmt: skip
PROGRAM_SOURCES = (
    "passes", "dialects", "compiler/dispatch_builder.py", "compiler/launch_builder.py", "compiler/jit.py",
    "compiler/native_program.py", "launch_program.py", "program_linking.py", "strided_view.py", "dims.py",
)  # fmt: skip


def _files(source: str) -> list[Path]:
    package = source.rpartition("/")[0]
    top = package.split("/")[0] if package else ("" if source.endswith(".py") else source)
    spec = importlib.util.find_spec(f"ingot.{top}" if top else "ingot")
    if spec is None or not spec.submodule_search_locations:
        return []
    out: list[Path] = []
    for location in spec.submodule_search_locations:
        path = Path(location, *source.split("/")[1 if top else 0 :])
        out += [path] if path.is_file() else sorted(path.rglob("*.py"))
    return out


def _hash(sources: tuple[str, ...], *more: str) -> str:
    h = hashlib.sha256("\n".join(more).encode())
    for source in sources:
        for path in _files(source):
            h.update(path.name.encode() + b"\0" + path.read_bytes())
    return h.hexdigest()


def _version(tool: str) -> str:
    try:
        return f"{tool} {importlib.metadata.version(tool)}"
    except importlib.metadata.PackageNotFoundError:
        return f"{tool} absent"


@cache
def kernel_fingerprint() -> str:
    """Hash of what decides a kernel's code, given its dispatch, target and schedule."""
    return _hash(KERNEL_SOURCES, *map(_version, TOOLS))


@cache
def program_fingerprint() -> str:
    """Hash of what decides a launch program, given its IR and target."""
    return _hash(PROGRAM_SOURCES, kernel_fingerprint())


def has_compiler() -> bool:
    """True where the compiler is installed with what it needs."""
    return all(importlib.util.find_spec(name) is not None for name in ("ingot.compiler", "torch_mlir", "llvmlite"))


def kernel_key(dispatch: str, target_key: str, schedule: str = "") -> str:
    """The cache key of a dispatch's kernels: `dispatch` is its canonical text."""
    return hashlib.sha256("\0".join((dispatch, target_key, schedule, kernel_fingerprint())).encode()).hexdigest()


def program_key(ir_sha256: str, target_key: str, passes: tuple[str, ...] = ()) -> str:
    """The cache key of an engine's launch program, built with further `passes`."""
    return hashlib.sha256("\0".join((ir_sha256, target_key, program_fingerprint(), *passes)).encode()).hexdigest()
