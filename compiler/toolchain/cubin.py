"""PTX to cubin with nvJitLink, in process:

no GPU, driver or CUDA toolkit is needed (package `nvidia-nvjitlink`, extra `gpu`).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ingot.errors import CompileError


def _nvjitlink() -> Any:
    try:
        from cuda.bindings import nvjitlink
    except ImportError as error:
        raise CompileError(
            "the assembler nvJitLink is not installed", cure="pip install 'ingot[gpu]', or give --target cpu"
        ) from error
    return nvjitlink


def assemble(
    ptx: str, target: str, *, level: int = 3, name: str = "kernels", reproducer_dir: str | Path | None = None
) -> bytes:
    """The cubin of a PTX module for `target`.

    Args:
        ptx: PTX text of one or several kernels.
        target: `sm_XX`.
        level: 0 or 3, the assembler's optimization level.
        name: what error messages and the reproducer's file are named after.
        reproducer_dir: where a failing module is written; a temporary directory by default.

    Raises:
        CompileError: the assembler refused it; the message quotes its log, and the command that repeats the failure.
    """
    nvjitlink = _nvjitlink()
    # -no-cache: with a driver present nvJitLink keeps a cache of its own, which ours replaces.
    options = [f"-arch={target}", f"-O{level}", "-no-cache"]
    handle = nvjitlink.create(len(options), options)
    try:
        source = ptx.encode()
        try:
            nvjitlink.add_data(handle, nvjitlink.InputType.PTX, source, len(source), name)
            nvjitlink.complete(handle)
        except nvjitlink.nvJitLinkError as error:
            log = bytearray(nvjitlink.get_error_log_size(handle))
            nvjitlink.get_error_log(handle, log)
            text = log.rstrip(b"\0").decode(errors="replace").strip() or str(error)
            try:
                path = _leave_reproducer(ptx, name, reproducer_dir)
                cure = f"repeat with: ptxas -arch={target} -O{level} {path} -o /dev/null"
            except OSError as e:  # no place for it
                cure = f"report it; the PTX could not be kept: {e.strerror}"
            raise CompileError(f"nvJitLink refused the PTX: {text}", node=name, cure=cure) from error
        cubin = bytearray(nvjitlink.get_linked_cubin_size(handle))
        nvjitlink.get_linked_cubin(handle, cubin)
        return bytes(cubin)
    finally:
        nvjitlink.destroy(handle)


def _leave_reproducer(ptx: str, name: str, directory: str | Path | None) -> Path:
    folder = Path(directory) if directory else Path(tempfile.mkdtemp(prefix="ingot-reproducer-"))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.ptx"
    path.write_text(ptx)
    return path
