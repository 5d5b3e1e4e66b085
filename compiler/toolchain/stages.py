"""The stages of kernel compilation as an ordered table: any of them can be dumped, edited and resumed.

    kernel-ir -> llvm-dialect -> llvm-ir -> ptx -> cubin        (sm_XX)
    kernel-ir -> llvm-dialect -> llvm-ir -> object -> image     (cpu)

`compile_kernels(text, "sm_90a")` runs from Kernel IR to the cubin; `start` and `stop` name other ends; `dump_dir` keeps
the product of each stage as `NAME.STAGE_SUFFIX`, and such a file's contents are what `start` takes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ingot.compiler.toolchain import host, image, llvm_ir
from ingot.compiler.toolchain.cubin import assemble
from ingot.compiler.toolchain.image import Image
from ingot.compiler.toolchain.ptx import compile_ptx
from ingot.dialects.mlir import ir, kernel_context
from ingot.errors import CompileError


@dataclass(frozen=True)
class Options:
    """Choices that change the code.

    Attributes:
        level: LLVM's optimization level.
        host: the CPU to generate for; this machine's by default.
        name: names dumped files and error messages.
        reproducer_dir: where a module that the assembler refuses is left.
    """

    level: int = 3
    host: host.HostTarget | None = None
    name: str = "kernels"
    reproducer_dir: str | None = None


@dataclass(frozen=True)
class Stage:
    """A form of the code: `name`, file `suffix`, the kinds of target that have it, and `make`: from the stage before it."""

    name: str
    suffix: str
    targets: tuple[str, ...]
    make: Callable[[Any, str, Options], Any] | None


def _parse(text: Any) -> Any:
    """A module from text, or from bytecode, in a context of its own; modules pass through. Raises CompileError."""
    if not isinstance(text, (str, bytes)):
        return text
    with kernel_context() as context:
        try:
            return ir.Module.parse(text, context)
        except ir.MLIRError as e:
            from ingot.passes.diagnostics import describe

            message, node = describe(e)
            cure = "correct it, or dump the stage again"
            raise CompileError(f"this is no IR of a kernel: {message}", node=node, cure=cure) from None


def _lower_to_llvm_dialect(source: Any, target: str, options: Options) -> Any:
    module = _parse(source)
    llvm_ir.to_llvm_dialect(module, target)
    return module


STAGES = (
    Stage("kernel-ir", ".mlir", ("cpu", "gpu"), None),
    Stage("llvm-dialect", ".llvm.mlir", ("cpu", "gpu"), _lower_to_llvm_dialect),
    Stage("llvm-ir", ".ll", ("cpu", "gpu"), lambda x, target, o: llvm_ir.to_llvm_ir(_parse(x))),
    Stage("ptx", ".ptx", ("gpu",), lambda x, target, o: compile_ptx(x, target, level=o.level)),
    Stage(
        "cubin",
        ".cubin",
        ("gpu",),
        lambda x, target, o: assemble(x, target, name=o.name, reproducer_dir=o.reproducer_dir),
    ),
    Stage("object", ".o", ("cpu",), lambda x, target, o: host.compile_object(x, o.host, level=o.level)),
    Stage("image", ".img", ("cpu",), lambda x, target, o: image.link(x)),
)


def stages_of(target: str) -> list[Stage]:
    """The stages that `target` goes through, in order."""
    kind = "cpu" if target == "cpu" else "gpu"
    return [stage for stage in STAGES if kind in stage.targets]


@dataclass
class Timings:
    """Seconds spent in each stage, by name; adds up over calls that share it."""

    seconds: dict[str, float] = field(default_factory=dict)

    def add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds


def compile_kernels(
    source: Any,
    target: str,
    *,
    start: str = "kernel-ir",
    stop: str = "",
    options: Options | None = None,
    dump_dir: str | Path | None = None,
    timings: Timings | None = None,
) -> Any:
    """Compile a module of kernels for `target`.

    Args:
        source: what stage `start` holds: Kernel IR or llvm dialect as text or `ir.Module` (which is lowered in place),
            LLVM IR or PTX as text, an object as bytes.
        target: `cpu` or `sm_XX`.
        start: the stage of `source`.
        stop: the last stage; by default the target's last.
        options: see `Options`.
        dump_dir: write every stage's product there, `source` included.
        timings: collects seconds per stage.

    Returns:
        bytes of a cubin, an `Image` for the CPU, or what `stop` holds: text (of MLIR stages too), or bytes of an object.

    Raises:
        CompileError: with the kernel, the operation or the assembler's words.
    """
    options = options or Options()
    names = [stage.name for stage in stages_of(target)]
    last = stop or names[-1]
    for name in (start, last):
        if name not in names:
            raise ValueError(f"{name!r} is no stage of {target}; it has {', '.join(names)}")
    todo = stages_of(target)[names.index(start) : names.index(last) + 1]
    product: Any = source
    for i, stage in enumerate(todo):
        if i:
            assert stage.make is not None
            begin = time.perf_counter()
            product = stage.make(product, target, options)
            if timings is not None:
                timings.add(stage.name, time.perf_counter() - begin)
        if dump_dir is not None:
            _dump(product, Path(dump_dir) / (options.name + stage.suffix))
    return product if isinstance(product, (str, bytes, Image)) else str(product)


def _dump(product: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(product, Image):
        path.write_bytes(product.data)
    elif isinstance(product, bytes):
        path.write_bytes(product)
    else:
        path.write_text(str(product))
