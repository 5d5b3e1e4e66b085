"""`ingot.compile`: from an ONNX model to an engine, on any machine."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ingot import __version__
from ingot.compiler.aot_pipeline import FROM_ONNX, OPTIMIZE, PLAN
from ingot.compiler.importer import import_model
from ingot.compiler.weights import WeightStore
from ingot.compiler.weights_program import Sources, WeightsProgram, weights_of
from ingot.dialects import ingot as dialect
from ingot.dialects.mlir import ir, new_context
from ingot.dialects.plain import attribute
from ingot.engine import STAGES, Engine, EngineHeader, WeightInfo
from ingot.errors import CompileError, ModelError
from ingot.launch_program import TensorSpec
from ingot.passes.convert_onnx_to_ingot import is_lowered
from ingot.passes.instrumentation import Instrumentation
from ingot.passes.pass_base import Pass, PassContext
from ingot.passes.pipeline import Pipeline
from ingot.passes.registry import PassRegistry

PRODUCER = f"ingot {__version__}"


def compile_model(
    model: Any,
    *,
    constants: Mapping[str, Any] | None = None,
    cast: str | None = None,
    passes: Sequence[Pass | str] = (),
    load: Sequence[str | os.PathLike] = (),
    progress: Callable[[str, int, int], None] | None = None,
    time_passes: bool = False,
    dump_dir: str | os.PathLike | None = None,
) -> Engine:
    """Compile a model to an engine.

    Args:
        model: path of an ONNX file, a serialized model, or an `onnx.ModelProto`.
        constants: values (arrays, numbers or lists), by name, of inputs that the engine shall not have: what they decide is
            constant. Needed for inputs that choose axes; an engine for other values is another engine.
        cast: `fp16` or `bf16`: compute a float model in this type where that is safe.
        passes: further passes, objects or pipeline text, which run after Ingot's own optimizations.
        load: Python files that define passes.
        progress: called with (pass, done, of how many).
        time_passes: print the time of each pass on standard error.
        dump_dir: receives the IR after each pass.

    Returns:
        the engine. Weights stay in the model's files until it is saved or run: keep the files until then.

    Raises:
        ModelError: the model is invalid, or uses what is not supported; names the nodes.
        InputError: a constant's name is no input's, or its type or shape not that of its input.
        CompileError: a pass failed.
    """
    if cast not in (None, "fp16", "bf16"):
        raise CompileError(f"cast={cast!r}", cure="use fp16, bf16, or None")
    registry = PassRegistry()
    for file in load:
        registry.load_file(Path(file))
    extra: list[Any] = []
    if cast is not None:
        extra += Pipeline.parse(f"ingot-cast{{to={cast}}}", registry).steps
    for p in passes:
        extra += Pipeline.parse(p, registry).steps if isinstance(p, str) else [p]
    pipeline = Pipeline([*_parse(FROM_ONNX + OPTIMIZE), *extra, *_parse(PLAN)])
    ctx = new_context(onnx=True)
    imported = import_model(
        model, context=ctx, decompose=lambda op_type: not is_lowered(op_type), constants=constants or {}
    )
    watch = Instrumentation(
        verify_each=bool(extra) or dump_dir is not None,
        time_each=time_passes,
        dump_dir=None if dump_dir is None else Path(dump_dir),
        on_pass=progress,
    )
    with ctx, ir.Location.unknown():
        found = pipeline.run(imported.module, PassContext(weights=imported.weights), watch)
        engine = engine_of(imported.module, imported.weights)
    if time_passes:
        total = sum(t.seconds for t in watch.timings) or 1.0
        for t in watch.timings:
            print(f"{t.seconds * 1e3:9.1f} ms {t.seconds / total:6.1%}  {t.name}", file=sys.stderr)
    engine.notes = tuple(map(str, found.remarks))
    return engine


compile = compile_model  # the public name, `ingot.compile`


def _parse(names: Sequence[str]) -> list[Any]:
    return Pipeline.parse(",".join(names)).steps


def engine_of(module: ir.Module, sources: Sources) -> Engine:
    """The engine of a module of `ingot` IR and the weights of its model."""
    stages = dialect.stages(module)
    func = stages[0]
    blocks = [block for stage in stages for block in dialect.blocks(stage)]
    used: dict[str, tuple[str, tuple[int, ...]]] = {}
    for op in [op.operation for block in blocks for op in block.operations]:
        if op.name == "ingot.weight":
            result, name = op.results[0], _text(op, "name")
            read = dialect.dtype_of(result), tuple(int(str(d)) for d in dialect.shape_of(result))
            if used.setdefault(name, read) != read:
                raise ModelError(f"weight {name!r} is read both as {used[name][0]} and as {read[0]}", cure="store it twice")
    buffer = io.BytesIO()
    module.operation.write_bytecode(buffer)
    program = WeightsProgram(buffer.getvalue())
    made = frozenset(sources.made) if isinstance(sources, WeightStore) else frozenset()
    # A refit derives others from them, and the model's arrays.
    used |= {name: (sources[name].dtype, sources[name].shape) for name in made & _read_weights(module)}
    weights = weights_of(program, used, sources)
    names: Any = attribute(func.attributes["inputs"])
    types: Any = attribute(func.attributes["input_types"])
    arguments = func.regions[0].blocks[0].arguments
    inputs = tuple(TensorSpec(n, t, dialect.shape_of(v)) for n, t, v in zip(names, types, arguments, strict=True))
    found = {
        _text(op, "name"): TensorSpec(_text(op, "name"), _text(op, "type"), dialect.shape_of(op.operands[0]))
        for op in [view.operation for stage in stages for view in stage.regions[0].blocks[0].operations]
        if op.name == "ingot.output"
    }
    order: Any = attribute(func.attributes["ingot.outputs"]) if len(stages) > 1 else tuple(found)

    def is_made(name: str) -> bool:
        return made.issuperset(program.sources_of(name) if name in program.outputs else [name])

    infos = {name: WeightInfo(w.dtype, w.shape, "", made=is_made(name)) for name, w in weights.items()}
    needs = (STAGES,) if len(stages) > 1 else ()
    folded = sources.folded(_read_weights(module)) if isinstance(sources, WeightStore) else {}
    outputs = tuple(found[n] for n in order)
    header = EngineHeader(PRODUCER, inputs, outputs, "", infos, needs, folded=folded, stages=len(stages))
    return Engine(header, buffer.getvalue(), weights)


def _read_weights(module: ir.Module) -> set[str]:
    """Names of the weights that any function of a module reads."""
    funcs = [view.operation for view in module.body.operations]
    blocks = [block for func in funcs for block in dialect.blocks(func)]
    operations = [view.operation for block in blocks for view in block.operations]
    return {_text(op, "name") for op in operations if op.name == "ingot.weight"}


def _text(op: ir.Operation, name: str) -> str:
    return str(attribute(op.attributes[name]))
