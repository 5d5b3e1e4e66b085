"""The weights of an engine: sources of the model, and what the engine's weights program derives from them.

A derived weight is evaluated when it is read, alone, from its own sources, so that memory holds one at a time. The same
evaluator serves a fresh engine and a refit, so that both give the same bits.
"""

from __future__ import annotations

import os
import threading
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import numpy as np

from ingot.compiler.interpreter import evaluate_value
from ingot.compiler.weights import WeightSource, WeightStore, reads_as, type_of_storage
from ingot.dialects import ingot as dialect
from ingot.dialects.mlir import ir, new_context, operation_key
from ingot.engine import Engine, Weight
from ingot.errors import EngineError


class Sources(Protocol):
    """Weights of a model by name: a `WeightStore`, or a dictionary of arrays or `WeightSource`s."""

    def __contains__(self, name: object, /) -> bool: ...

    def __getitem__(self, name: str, /) -> Any: ...


class WeightsProgram:
    """The weights program of an engine's IR, ready to evaluate. Threads may share it.

    Attributes:
        outputs: names of the derived weights.
    """

    def __init__(self, bytecode: bytes) -> None:
        self._lock = threading.Lock()
        self._context = new_context()
        with self._context, ir.Location.unknown():
            self._module = ir.Module.parse(bytecode)
            func = dialect.find_func(self._module, dialect.WEIGHTS_FUNC)
            self._values: dict[str, ir.Value] = {}
            if func is not None:
                for view in func.regions[0].blocks[0].operations:
                    op = view.operation
                    if op.name == "ingot.output":
                        self._values[op.attributes["name"].value] = op.operands[0]
        self.outputs = frozenset(self._values)

    def sources_of(self, name: str) -> list[str]:
        """Names of the model's weights that a derived weight depends on, in no particular order."""
        found: dict[str, None] = {}
        seen = set()
        stack = [self._values[name].owner.operation]
        while stack:
            op = stack.pop()
            key = operation_key(op)
            if key in seen:
                continue
            seen.add(key)
            if op.name == "ingot.weight":
                found[op.attributes["name"].value] = None
            stack += [v.owner.operation for v in dialect.inputs(op)]
        return list(found)

    def evaluate(self, name: str, sources: Sources) -> np.ndarray:
        """The packed bytes of a derived weight, uint8."""
        with self._lock, self._context, ir.Location.unknown():
            array = evaluate_value(self._values[name], sources)
        return WeightSource.from_array(np.asarray(array, order="C")).bytes()


def weights_of(
    program: WeightsProgram, wanted: Mapping[str, tuple[str, tuple[int, ...]]], sources: Sources
) -> dict[str, Weight]:
    """The weights that an engine's IR reads.

    Args:
        program: the IR's.
        wanted: storage type and sizes by name.
        sources: the model's weights.
    """
    return {name: Weight(dtype, shape, _reader(program, name, sources)) for name, (dtype, shape) in sorted(wanted.items())}


def _reader(program: WeightsProgram, name: str, sources: Sources) -> Any:
    return partial(program.evaluate, name, sources) if name in program.outputs else partial(_read, sources, name)


def _source(weight: Weight) -> WeightSource:
    return WeightSource(type_of_storage(weight.dtype), weight.shape, lambda: np.frombuffer(weight.bytes_view(), np.uint8))


def _read(sources: Sources, name: str) -> np.ndarray:
    source = sources[name]
    return (WeightSource.from_array(source) if isinstance(source, np.ndarray) else source).bytes()


def refit(engine: Engine, sources: Sources | str | os.PathLike) -> Engine:
    """The engine with the weights that `sources` has, and with all that is derived from them.

    Args:
        sources: arrays by the names of the model's weights or of the engine's own, or the ONNX model's path: one of the
            same graph.

    Raises:
        EngineError: a name, type or shape is not the engine's, a derived weight needs more sources than are given, the model
            lacks a weight, or a tensor that was compiled into the IR has other values.
        ModelError: the model cannot be read.
    """
    path = engine.path or None
    program = WeightsProgram(engine.ir)
    from_model = isinstance(sources, str | os.PathLike)
    store: Sources = _model_weights(sources) if isinstance(sources, str | os.PathLike) else sources
    weights = dict(engine.weights)
    infos = dict(engine.header.weights)
    used = _unchanged(engine, store, path)
    made = {n: _source(w) for n, w in engine.weights.items() if infos[n].made}
    known = ChainMap(made, store)  # type: ignore[arg-type]
    absent: list[str] = []
    for name, info in engine.header.weights.items():
        if name in made:
            continue
        if name in store and name not in program.outputs:
            needed = [name]
        elif name in program.outputs:
            needed = program.sources_of(name)
            given = [n for n in needed if n in store]
            if not given:
                absent += [name] if needed else []
                continue
            if missing := [n for n in needed if n not in known]:
                cure = "give these arrays too, or refit from the model's file"
                raise EngineError(f"weight {name!r} also depends on {', '.join(missing)}", node=path, cure=cure)
        else:
            absent.append(name)
            continue
        used.update(needed)
        fresh = Weight(info.dtype, info.shape, _reader(program, name, known))
        _check(name, fresh, store, path)
        weights[name] = fresh
        infos[name] = replace(info, sha256="", stored=True)
    if from_model and absent:
        cure = "give the model that the engine was compiled from, or one of the same graph"
        raise EngineError(f"{sources} has nothing for weight {absent[0]!r}", node=path, cure=cure)
    if not from_model and isinstance(sources, Mapping) and (unknown := [n for n in sources if n not in used]):
        raise EngineError(f"no weight is named {unknown[0]!r}", node=path, cure="see Engine.inspect()")
    return Engine(replace(engine.header, weights=infos), engine.ir, weights, "", engine.container)


def _unchanged(engine: Engine, store: Sources, path: str | None) -> set[str]:
    """Names of given tensors that are parts of the engine's IR. Raises EngineError where one is not what it was."""
    found = set()
    for name, digest in engine.header.folded.items():
        if name not in store:
            continue
        given = store[name]
        if not isinstance(given, WeightSource):
            given = WeightSource.from_array(np.asarray(given))
        if given.digest() != digest:
            raise EngineError(
                f"{name!r} was compiled into the engine and has other values now", node=path, cure="compile the model again"
            )
        found.add(name)
    return found


def _check(name: str, weight: Weight, store: Sources, path: str | None) -> None:
    """Raise EngineError where an array given for a stored weight is of another type or shape."""
    if name not in store:
        return
    source = store[name]
    found = WeightSource.from_array(source) if isinstance(source, np.ndarray) else source
    if not reads_as((found.dtype, tuple(found.shape)), weight.dtype, weight.shape):
        raise EngineError(
            f"weight {name!r} is {weight.dtype}{list(weight.shape)}, got {found.dtype}{list(found.shape)}",
            node=path,
            cure="convert the array",
        )


def _model_weights(model: str | os.PathLike) -> WeightStore:
    from ingot.compiler.importer import import_model
    from ingot.passes.convert_onnx_to_ingot import is_lowered

    context = new_context(onnx=True)
    store = import_model(model, context=context, decompose=lambda op_type: not is_lowered(op_type)).weights
    # What the IR holds may be a source of derived weights, too: a table of positions that is gathered.
    for name, source in store.constants.items():
        if name not in store:
            store.add(name, source)
    return store
