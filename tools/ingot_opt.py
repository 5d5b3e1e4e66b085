"""`ingot-opt`: read IR, verify it, run passes, print IR.

It reads MLIR text and bytecode (the `onnx` and `ingot` dialects are loaded), the textual IR that onnx-mlir emits with
`--EmitONNXIR`, and `.onnx` files. Nothing of MLIR is imported before there is IR to read, so that `--help` is quick.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ingot.errors import Error, ModelError
from ingot.passes import Instrumentation, PassContext, PassRegistry, Pipeline

if TYPE_CHECKING:
    from ingot.compiler.weights import WeightStore
    from ingot.dialects.mlir import ir
    from ingot.tools.expected_diagnostics import Diagnostic

_SPLIT = re.compile(r"^[ \t]*// -----[ \t]*$", re.MULTILINE)
_MODEL_SUFFIXES = (".onnx", ".onnxtxt", ".textproto")
_BYTECODE = b"ML\xefR"  # https://mlir.llvm.org/docs/BytecodeFormat/, "Magic Number"
_ONNX_MLIR = re.compile(rb'"onnx\.(EntryPoint|NoValue)"|\bonnx_node_name\s*=|\bonnx\.Constant dense')
_LINE = re.compile(r"-:(\d+):(\d+)$")  # the location of text parsed from memory


def main(
    argv: Sequence[str] | None = None,
    stdin: TextIO | None = None,
    stdout: TextIO | None = None,
    stderr: TextIO | None = None,
    *,
    new_context: Callable[[], ir.Context] | None = None,
) -> int:
    """Run `ingot-opt`.

    Args:
        argv: the arguments after the program's name; None: the process's.
        stdin, stdout, stderr: the streams; None: the process's. Bytecode uses their `buffer`.
        new_context: makes the context of each input (the test runner passes contexts that it made ahead).

    Returns:
        0 where all went well, 1 where the input or a pass failed, 2 for wrong usage.
    """
    out, err = stdout or sys.stdout, stderr or sys.stderr
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            args = _parser().parse_args(argv)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    try:
        return _Run(args, stdin or sys.stdin, out, err, new_context or default_context).run()
    except Error as error:
        err.write(f"ingot-opt: error: {error}\n")
        for note in getattr(error, "__notes__", []):
            err.write(f"{note}\n")
        return 1
    except OSError as error:
        err.write(f"ingot-opt: error: {f'{error.filename}: ' if error.filename else ''}{error.strerror or error}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ingot-opt",
        description="Read IR, run passes on it, print it.",
        epilog="Write your own pass: docs/write-a-pass.md.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("input", nargs="?", default="-", help=".mlir text or bytecode, onnx-mlir's text, or an .onnx file; - is stdin")
    add("-o", "--output", default="-", metavar="FILE", help="where the result is written; - is stdout")
    passes = parser.add_argument_group("passes")
    pipeline = passes.add_mutually_exclusive_group()
    pipeline.add_argument("--pass-pipeline", metavar="TEXT", help="passes to run: 'builtin.module(ingot-fuse{max-ops=32},cse)'")
    pipeline.add_argument("-p", dest="passes", metavar="TEXT", help="the same without builtin.module(...)")
    passes.add_argument("--load", action="append", default=[], metavar="FILE.py", help="a Python file that defines passes")
    passes.add_argument("--list-passes", action="store_true", help="print the passes with their options, and end")
    passes.add_argument("--verify-each", choices=("0", "1"), default="1", help="verify the IR after each pass (default 1)")
    watch = parser.add_argument_group("observation")
    watch.add_argument("--print-ir-after-all", action="store_true", help="print the IR to stderr after each pass")
    watch.add_argument("--print-ir-after-change", action="store_true", help="the same after passes that changed it")
    watch.add_argument("--dump-dir", type=Path, metavar="DIR", help="write NN_pass.mlir there after each pass")
    watch.add_argument("--time-passes", action="store_true", help="print each pass's time and rewrites to stderr")
    watch.add_argument("--remarks", action="store_true", help="print the passes' remarks to stderr")
    watch.add_argument(
        "--reproducer", type=Path, metavar="FILE", help="keep the failing pass's input there, even if it crashes"
    )
    form = parser.add_argument_group("input and output")
    form.add_argument("--weights", metavar="FILE", help="what onnx.Weight and ingot.weight name: an .npz file, or a model")
    form.add_argument("--split-input-file", action="store_true", help="treat parts between lines '// -----' separately")
    form.add_argument("--verify-diagnostics", action="store_true", help="check comments '// expected-error @+1 {{text}}'")
    form.add_argument("--allow-unregistered-dialect", action="store_true", help="accept operations of unknown dialects")
    form.add_argument("--emit-bytecode", action="store_true", help="write bytecode instead of text")
    form.add_argument("--mlir-print-debuginfo", action="store_true", help="print locations")
    form.add_argument("--mlir-print-op-generic", action="store_true", help="print every operation in its generic form")
    form.add_argument("--mlir-print-local-scope", action="store_true", help="print no aliases of types and attributes")
    form.add_argument("--mlir-use-nameloc-as-prefix", action="store_true", help="name values after their locations")
    return parser


def default_context() -> ir.Context:
    """A context with the dialects that `ingot-opt` reads."""
    from ingot.dialects.mlir import new_context

    return new_context(onnx=True)


@dataclass
class _Run:
    """One invocation."""

    args: argparse.Namespace
    stdin: TextIO
    stdout: TextIO
    stderr: TextIO
    new_context: Callable[[], ir.Context]
    registry: PassRegistry = field(default_factory=PassRegistry)

    def run(self) -> int:
        args = self.args
        for file in args.load:
            self.registry.load_file(file)
        if args.list_passes:
            self.stdout.write(_listing(self.registry))
            return 0
        pipeline = Pipeline.parse(args.pass_pipeline or args.passes or "", self.registry)
        watch = Instrumentation(
            verify_each=args.verify_each == "1",
            time_each=args.time_passes,
            print_ir="all" if args.print_ir_after_all else "changed" if args.print_ir_after_change else "none",
            print_to=self.stderr,
            dump_dir=args.dump_dir,
            reproducer=args.reproducer,
            survive_crash=args.reproducer is not None,
            replay_arguments=self._replay_arguments(),
        )
        results, failed, total = [], False, PassContext()
        for source, first_line in self._sources():
            produced: list[Diagnostic] = []
            result = self._process(source, first_line, pipeline, watch, produced, total)
            if result is not None:
                results.append(result)
            if args.verify_diagnostics:
                failed |= self._check_diagnostics(source, first_line, produced)
            else:
                failed |= any(d.kind == "error" for d in produced)
                for diagnostic in produced:
                    self._report(diagnostic)
        self._write(results)
        if args.time_passes:
            self.stderr.write(watch.report(total.changes))
        return int(failed)

    def _replay_arguments(self) -> tuple[str, ...]:
        """What a reproducer's command needs beside IR and pipeline."""
        weights = self.args.weights or (self.args.input if self.args.input.endswith(_MODEL_SUFFIXES) else None)
        return (f"--weights={weights}",) if weights else ()

    def _sources(self) -> list[tuple[bytes, int]]:
        """The parts of the input, each with the number of lines before it."""
        if self.args.input.endswith(_MODEL_SUFFIXES):
            return [(b"", 0)]  # the importer maps the file
        if self.args.input == "-":
            data = self.stdin.buffer.read() if hasattr(self.stdin, "buffer") else self.stdin.read().encode()
        else:
            try:
                data = Path(self.args.input).read_bytes()
            except OSError as error:
                raise ModelError(f"cannot read: {error.strerror}", node=self.args.input, cure="give a readable file") from error
        if not self.args.split_input_file or data.startswith(_BYTECODE):
            return [(data, 0)]
        text = data.decode("utf-8", errors="replace")
        parts, lines = [], 0
        for part in _SPLIT.split(text):
            parts.append((part.encode(), lines))
            lines += part.count("\n")
        return parts

    def _process(
        self,
        source: bytes,
        first_line: int,
        pipeline: Pipeline,
        watch: Instrumentation,
        produced: list[Diagnostic],
        total: PassContext,
    ) -> bytes | None:
        """Parse one part, run the passes and print the result; None, and diagnostics, where that failed."""
        from ingot.dialects.mlir import ir

        with self.new_context() as context, ir.Location.unknown(context):
            context.allow_unregistered_dialects = self.args.allow_unregistered_dialect
            handler = context.attach_diagnostic_handler(lambda d: _collect(d, produced))
            pass_context = PassContext(changes=total.changes)
            try:
                if self.args.weights:
                    pass_context.weights = _read_weights(self.args.weights, context)
                module = self._read(source, first_line, context, pass_context)
                pipeline.run(module, pass_context, watch)
                return self._print(module)
            except (ir.MLIRError, Error) as error:
                produced += _diagnostics_of(error)
                for note in getattr(error, "__notes__", []):
                    self.stderr.write(f"{note}\n")
                return None
            finally:
                handler.detach()
                if self.args.remarks:
                    produced += [_diagnostic("remark", f"{r.message} [{r.pass_name}]", r.node) for r in pass_context.remarks]

    def _read(self, source: bytes, first_line: int, context: ir.Context, pass_context: PassContext) -> ir.Module:
        from ingot.dialects.mlir import ir

        if source.startswith(_BYTECODE):
            return ir.Module.parse(source, context)
        if self.args.input.endswith(_MODEL_SUFFIXES):
            from ingot.compiler.importer import import_model

            imported = import_model(self.args.input, context=context)
            pass_context.weights = imported.weights
            return imported.module
        try:
            text = source.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ModelError(
                "is neither text nor bytecode",
                node=self.args.input,
                cure="give an .mlir file; `ingot inspect --ir` prints an engine's",
            ) from error
        if _ONNX_MLIR.search(source):
            from ingot.compiler.onnx_mlir_reader import read_onnx_mlir

            imported = read_onnx_mlir(text, context)
            pass_context.weights = imported.weights
            return imported.module
        return ir.Module.parse("\n" * first_line + text, context)

    def _print(self, module: ir.Module) -> bytes:
        buffer = io.BytesIO()
        if self.args.emit_bytecode:
            module.operation.write_bytecode(buffer)
        else:
            module.operation.print(
                file=buffer,
                binary=True,
                enable_debug_info=self.args.mlir_print_debuginfo,
                print_generic_op_form=self.args.mlir_print_op_generic,
                use_local_scope=self.args.mlir_print_local_scope,
                use_name_loc_as_prefix=self.args.mlir_use_nameloc_as_prefix,
            )
        return buffer.getvalue()

    def _write(self, results: list[bytes]) -> None:
        data = (b"" if self.args.emit_bytecode else b"// -----\n").join(results)
        if self.args.output != "-":
            try:
                Path(self.args.output).write_bytes(data)
            except OSError as error:
                raise Error(f"cannot write: {error.strerror}", node=self.args.output, cure="give a writable path") from error
        elif self.args.emit_bytecode:
            self.stdout.buffer.write(data)
        else:
            self.stdout.write(data.decode())

    def _report(self, diagnostic: Diagnostic) -> None:
        name = "<stdin>" if self.args.input == "-" else self.args.input
        where = f"{name}:{diagnostic.line}:{diagnostic.column}: " if diagnostic.line else ""
        self.stderr.write(f"{where}{diagnostic}\n")

    def _check_diagnostics(self, source: bytes, first_line: int, produced: list[Diagnostic]) -> bool:
        """Report where the produced diagnostics differ from the expected ones; whether they do."""
        from ingot.tools.expected_diagnostics import Diagnostic, expectations_in, mismatches

        try:
            expected = expectations_in("\n" * first_line + source.decode("utf-8", errors="replace"))
        except ValueError as error:
            raise ModelError(str(error), node=self.args.input, cure="correct the comment") from error
        faults = mismatches(expected, produced)
        for line, message in faults:
            self._report(Diagnostic("error", message, line=line))
        return bool(faults)


def _read_weights(path: str, context: ir.Context) -> WeightStore:
    """The weight store of a model, or of the arrays of an .npz file.

    Raises:
        ModelError: the file cannot be read.
    """
    if not path.endswith(".npz"):
        from ingot.compiler.importer import import_model

        return import_model(path, context=context).weights
    import zipfile

    import numpy as np

    from ingot.compiler.weights import WeightStore

    store = WeightStore()
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for name in arrays.files:
                store.add_array(name, arrays[name])
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ModelError(f"cannot read weights: {error}", node=path, cure="give an .npz file of arrays, or a model") from error
    return store


def _collect(info: Any, produced: list[Diagnostic]) -> bool:
    """Take what MLIR emits outside of an exception."""
    from ingot.passes.diagnostics import node_name

    kind = str(info.severity).rpartition(".")[2].lower()
    produced.append(_diagnostic(kind, info.message, node_name(info.location)))
    return True


def _diagnostics_of(error: Exception) -> list[Diagnostic]:
    """The diagnostics of a failure: MLIR's own where it has some, else the error's line."""
    from ingot.dialects.mlir import ir
    from ingot.passes.diagnostics import node_name

    if isinstance(error, Error):
        cure = f" ({error.cure})" if error.cure else ""
        return [_diagnostic("error", f"{error.message}{cure}", error.node)]
    assert isinstance(error, ir.MLIRError)
    found = []
    for info in error.error_diagnostics:
        found.append(_diagnostic("error", info.message, node_name(info.location)))
        for note in info.notes:
            found.append(_diagnostic("note", note.message, node_name(note.location)))
    return found or [_diagnostic("error", str(error), None)]


def _diagnostic(kind: str, message: str, node: str | None) -> Diagnostic:
    """A diagnostic whose line is taken from a node of the form `-:LINE:COLUMN`."""
    from ingot.tools.expected_diagnostics import Diagnostic

    place = _LINE.match(node) if node else None
    if place is None:
        return Diagnostic(kind, message, node)
    return Diagnostic(kind, message, None, int(place[1]), int(place[2]))


def _listing(registry: PassRegistry) -> str:
    """Every Python pass with its docstring's first paragraph and its options."""
    import dataclasses

    from ingot.passes.option_text import format_value, type_name
    from ingot.passes.pass_base import options_of, summary_of

    lines = []
    for cls in registry.all():
        lines += [cls.name, f"    {summary_of(cls)}"]
        for option in options_of(cls).values():
            default = "required" if option.default is dataclasses.MISSING else f"default {format_value(option.default)}"
            lines.append(f"    {option.text}: {type_name(option.type)}, {default}")
    lines.append("Any pass registered in MLIR (canonicalize, cse, symbol-dce, ...) can be named beside these.")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
