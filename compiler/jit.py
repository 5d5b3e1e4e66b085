"""The second compiler: from an engine's AOT IR to the draft of its launch program on one target."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from ingot.compiler.launch_builder import DraftProgram, build_program
from ingot.dialects import ingot as dialect
from ingot.dialects.mlir import context, ir
from ingot.errors import EngineError
from ingot.target import Target

# For IR that was not planned yet: text of a person's, or of `ingot.Builder`'s.
PIPELINE = "builtin.module(ingot-order-results,ingot-materialize-views,cse,ingot-split-stages,ingot-plan-buffers)"


def draft_program(
    bytecode: bytes,
    target: Target,
    *,
    passes: Sequence[str] = (),
    dump_dir: str | Path | None = None,
    verify: bool = True,
) -> DraftProgram:
    """The draft of the launch program of `bytecode` (an engine's IR, or its text) on `target`.

    Args:
        passes: passes of Ingot's that the machine at hand asks for (`ingot-allow-tf32`).
        dump_dir: receives the IR that the program is built from.
        verify: False leaves the rules of the dialect's verifier, which take longer than the draft, to a call of `verify_ir`
            that runs meanwhile; without its consent the draft must not be used.

    Raises:
        EngineError: the IR cannot be read.
        CompileError: a pass failed, or the program cannot be built.
    """
    try:
        return _draft(bytecode, target, passes, dump_dir, verify)
    except Exception:
        if not verify:
            verify_ir(bytecode)  # it may say what is wrong
        raise


def verify_ir(bytecode: bytes) -> None:
    """Verify an engine's IR. Raises EngineError, as `draft_program` does."""
    with context(upstream=()):
        parse(bytecode)


def _draft(
    bytecode: bytes, target: Target, passes: Sequence[str], dump_dir: str | Path | None, verify: bool
) -> DraftProgram:
    from ingot.passes.instrumentation import Instrumentation
    from ingot.passes.pipeline import Pipeline
    from ingot.passes.registry import OwnPasses

    with context(upstream=(), verify=verify):
        module = parse(bytecode)
        if "ingot.arena_bytes" not in dialect.main_func(module).attributes:
            Pipeline.parse(PIPELINE).run(module)
        if passes:
            # The IR was verified when it was parsed, or is being verified, and a user waits.
            unwatched = Instrumentation(verify_each=False, keep_input=False)
            Pipeline.parse(",".join(passes), OwnPasses()).run(module, instrumentation=unwatched)
        if dump_dir is not None:
            Path(dump_dir).mkdir(parents=True, exist_ok=True)
            Path(dump_dir, f"planned_{hashlib.sha256(bytecode).hexdigest()[:12]}.mlir").write_text(
                module.operation.get_asm(enable_debug_info=True)  # locations name ONNX nodes
            )
        return build_program(module, target)


def parse(bytecode: bytes | str) -> ir.Module:
    """The module of an engine's IR, verified, in the current context. Raises EngineError."""
    try:
        return ir.Module.parse(bytecode)
    except ir.MLIRError as e:
        from ingot.passes.diagnostics import describe

        message, node = describe(e)
        raise EngineError(f"the engine's IR is invalid: {message}", node=node, cure="compile the model again") from None
