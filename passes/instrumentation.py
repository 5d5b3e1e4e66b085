"""What is observed while a pipeline runs: time, IR after each pass, files in a dump directory, reproducers.

It sees Python passes and MLIR's C++ passes alike, because the pipeline runs both and tells it before and after each.
MLIR's own timing and IR printing are not used: in these bindings the former prints nothing.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO

from ingot.errors import CompileError
from ingot.passes.pass_base import Pass
from ingot.passes.registry import file_to_load

if TYPE_CHECKING:
    from ingot.dialects.mlir import ir

__all__ = ["Instrumentation", "Timing"]


@dataclass(frozen=True)
class Timing:
    """How long one pass ran.

    Args:
        name: the pass's name (several C++ passes that ran together: their names joined by `+`).
        seconds: wall-clock time, verification included.
    """

    name: str
    seconds: float


@dataclass(kw_only=True)
class Instrumentation:
    """How a pipeline run is observed; one object may serve several runs, whose timings and file numbers then go on.

    Args:
        verify_each: verify the module after each pass. Costs about 5 us an operation; release pipelines switch it off.
        time_each: run C++ passes one by one, so that each has its own timing.
        print_ir: print the module after every pass, or after those that changed it.
        print_to: where to.
        dump_dir: a directory, created where missing, that receives `NN_pass-name.mlir` after each pass and `NN_input.mlir`.
        reproducer: where the reproducer of a failing pass is written. None: a new temporary file, and none for
            failures that are the model's (`ingot.Error`) rather than the pass's.
        survive_crash: write the reproducer before each pass, so that it is there when a pass ends the process;
            it is removed when all went well. Needs `reproducer`.
        keep_input: keep the module's bytecode before each pass for the reproducer (about 0.4 us an operation).
        replay_arguments: further arguments of the command that replays a reproducer, such as `--weights=model.onnx`. What
            earlier passes added to the weights is not in that file.
        on_pass: called before each pass with its text, its number from 0, and the number of passes of the pipeline.
    """

    verify_each: bool = True
    time_each: bool = False
    print_ir: Literal["none", "all", "changed"] = "none"
    print_to: TextIO = field(default_factory=lambda: sys.stderr)
    dump_dir: Path | None = None
    reproducer: Path | None = None
    survive_crash: bool = False
    keep_input: bool = True
    replay_arguments: Sequence[str] = ()
    on_pass: Callable[[str, int, int], None] | None = None
    timings: list[Timing] = field(default_factory=list)
    _dumped: int = 0
    _passes_begun: int = 0
    _pass_count: int = 0
    _printed: str = ""
    _input: bytes | None = None
    _context: ir.Context | None = None

    def __post_init__(self) -> None:
        if self.survive_crash and self.reproducer is None:
            raise ValueError("survive_crash needs the path of a reproducer")

    @property
    def observes_each_pass(self) -> bool:
        """Whether C++ passes must run one by one."""
        return (
            self.time_each
            or self.print_ir != "none"
            or self.dump_dir is not None
            or self.on_pass is not None
            or self.survive_crash
        )

    def start(self, module: ir.Module, pass_count: int) -> None:
        """A pipeline of `pass_count` passes begins on `module`."""
        self._context, self._pass_count, self._passes_begun = module.context, pass_count, 0
        if self.print_ir == "changed":
            self._printed = str(module)
        if self.dump_dir is not None:
            try:
                self.dump_dir.mkdir(parents=True, exist_ok=True)
            except OSError as e:
                cure = "name another folder"
                raise CompileError(f"cannot be made: {e.strerror}", node=str(self.dump_dir), cure=cure) from None
            self._dump("input", str(module))

    def before(self, text: str, module: ir.Module) -> None:
        """A pass, or a group of C++ passes, is about to run."""
        if self.on_pass is not None:
            self.on_pass(text, self._passes_begun, self._pass_count)
        self._passes_begun += 1
        if self.keep_input or self.survive_crash:
            buffer = io.BytesIO()
            module.operation.write_bytecode(buffer)
            self._input = buffer.getvalue()
        if self.survive_crash:
            self._write_reproducer(f"builtin.module({text})", "the process ended in this pass", ())

    def after(self, text: str, name: str, module: ir.Module, seconds: float) -> None:
        """The pass has run on `module`."""
        self.timings.append(Timing(name, seconds))
        if self.print_ir == "none" and self.dump_dir is None:
            return
        printed = str(module)
        if self.print_ir == "all" or (self.print_ir == "changed" and printed != self._printed):
            self.print_to.write(f"// -----// IR Dump After {text} //----- //\n{printed}")
        self._printed = printed
        if self.dump_dir is not None:
            self._dump(name, printed)

    def finish(self) -> None:
        """All passes have run."""
        self._input = None
        if self.survive_crash and self.reproducer is not None:
            self.reproducer.unlink(missing_ok=True)

    def restore(self) -> ir.Module | None:
        """The module as it was before the running pass, parsed anew; None where it was not kept, or is not valid."""
        from ingot.dialects.mlir import ir

        if self._input is None:
            return None
        try:
            return ir.Module.parse(self._input, self._context)
        except ir.MLIRError:
            return None

    def failed(self, pipeline: str, passes: Sequence[Pass], error: Exception, *, expected: bool) -> str | None:
        """Write the reproducer of a failed pass.

        Args:
            pipeline: the text that replays it.
            passes: the Python passes in it.
            error: what it raised.
            expected: the model is at fault, not the pass: a reproducer is written only where one was asked for.

        Returns:
            the command that replays it, or None where no reproducer was written.
        """
        if self._input is None or (expected and self.reproducer is None):
            return None
        try:
            return self._write_reproducer(pipeline, f"{type(error).__name__}: {error}", passes)
        except OSError:  # no place for it: the failure itself is what must be said
            return None

    def report(self, changes: Counter[tuple[str, str]] | None = None) -> str:
        """A table of the passes' times in the order in which they ran, with each one's share.

        Args:
            changes: counts of rewrites to print beside the passes (`PassContext.changes`).
        """
        total = sum(t.seconds for t in self.timings)
        lines = [f"{'ms':>10} {'share':>7}  pass"]
        for timing in self.timings:
            share = timing.seconds / total if total else 0.0
            counts = ", ".join(f"{n} {kind}" for (name, kind), n in (changes or {}).items() if name == timing.name)
            row = f"{timing.seconds * 1e3:10.2f} {share:7.1%}  {timing.name}"
            lines.append(f"{row}  ({counts})" if counts else row)
        lines.append(f"{total * 1e3:10.2f} {1:7.1%}  total of {len(self.timings)} passes")
        return "\n".join(lines) + "\n"

    def _dump(self, name: str, printed: str) -> None:
        assert self.dump_dir is not None
        path = self.dump_dir / f"{self._dumped:02d}_{re.sub(r'[^A-Za-z0-9.+-]+', '_', name).strip('_')}.mlir"
        path.write_text(printed, encoding="utf-8")
        self._dumped += 1

    def _write_reproducer(self, pipeline: str, failure: str, passes: Sequence[Pass]) -> str:
        path = self.reproducer
        if path is None:
            handle, name = tempfile.mkstemp(prefix="ingot-reproducer-", suffix=".mlir")
            os.close(handle)
            path = Path(name)
        loads = {file: None for p in passes if (file := file_to_load(type(p))) is not None}
        arguments = [*(f"--load={file}" for file in loads), *self.replay_arguments]
        if self._context is not None and self._context.allow_unregistered_dialects:
            arguments.append("--allow-unregistered-dialect")
        command = shlex.join(["ingot-opt", *arguments, f"--pass-pipeline={pipeline}", str(path)])
        module = self.restore()
        if module is None:
            assert self._input is not None
            path.write_bytes(self._input)  # invalid IR: its bytecode at least shows which operation is
            return command
        note = "".join(f"// {line}\n" for line in [*failure.splitlines(), command])
        path.write_text(f"{note}{module.operation.get_asm(enable_debug_info=True)}", encoding="utf-8")
        return command
