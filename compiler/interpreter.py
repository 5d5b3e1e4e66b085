"""Executes the `ingot` dialect on numpy: the oracle of passes and kernels, and the evaluator of the weights program.

`interpret` runs a module's main function. `evaluate_weights` runs the weights program: the function `weights`, whose outputs
are the derived weights, one at a time and each from its sources alone, so that memory stays bounded by the largest.
`run_dispatch` (from `ingot.compiler.reference`) runs one dispatch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ingot import dims
from ingot.compiler.reference import RootCall, run_dispatch, run_root
from ingot.compiler.weights import read_as
from ingot.dialects import ingot as dialect
from ingot.dialects.mlir import ir, operation_key
from ingot.dialects.plain import attribute, attributes, read_regions
from ingot.dims import Dim
from ingot.dtypes import DTYPES, ONNX_TYPE_BY_NAME, OnnxType, onnx_numpy
from ingot.errors import InputError

__all__ = ["Weights", "bind_symbols", "evaluate_weights", "interpret", "run_dispatch"]


class Weights(Protocol):
    """Where weights come from: a `WeightStore`, or a dict of arrays."""

    def __contains__(self, name: object, /) -> bool: ...

    def __getitem__(self, name: str, /) -> Any: ...


def interpret(
    module: ir.Module, inputs: Mapping[str, np.ndarray], weights: Weights | None = None, *, float64: bool = False
) -> dict[str, np.ndarray]:
    """Run the module's main function, and the stages after it.

    Args:
        inputs: one array for each input, of the shape and (ONNX's) dtype that the function declares.
        weights: the module's weights.
        float64: compute f32 values in float64.

    Returns:
        the outputs by name, in the model's order, with ONNX's dtypes.

    Raises:
        InputError: an input is missing, or its dtype or shape does not fit; a guard fails.
    """
    run = _Run(weights or {}, float64=float64)
    given = dict(inputs)
    stages = dialect.stages(module)
    for func in stages:
        given |= _run_function(run, func, given)
    if len(stages) == 1:
        return run.outputs
    names: Any = attribute(stages[0].attributes["ingot.outputs"])
    return {name: run.outputs[name] for name in names}


def _run_function(run: _Run, func: ir.Operation, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    block = func.regions[0].blocks[0]
    names = attribute(func.attributes["inputs"])
    types = attribute(func.attributes["input_types"])
    assert isinstance(names, tuple)
    assert isinstance(types, tuple)
    shapes = {}
    for name, onnx_type, argument in zip(names, types, block.arguments, strict=True):
        if name not in inputs:
            raise InputError(f"input {name!r} is missing", cure=f"give arrays for {', '.join(map(str, names))}")
        array = np.asarray(inputs[name])
        expected = onnx_numpy(ONNX_TYPE_BY_NAME[onnx_type])
        if array.dtype != expected:
            raise InputError(f"input has dtype {array.dtype}, expected {expected}", node=name, cure=f"cast it to {expected}")
        run.values[argument] = _as_storage(array, dialect.dtype_of(argument))
        shapes[name] = (array.shape, dialect.shape_of(argument))
    run.symbols = bind_symbols(shapes)
    return run.run(block)


def bind_symbols(shapes: Mapping[str, tuple[tuple[int, ...], tuple[Dim, ...]]]) -> dict[str, int]:
    """The values of the named dimensions.

    Args:
        shapes: for each input, its actual sizes and its declared ones.

    Raises:
        InputError: ranks or sizes contradict the declaration, or each other.
    """
    symbols: dict[str, int] = {}
    for name, (actual, declared) in shapes.items():
        if len(actual) != len(declared):
            raise InputError(f"input has shape {list(actual)}, expected rank {len(declared)}", node=name, cure="reshape it")
        for size, d in zip(actual, declared, strict=True):
            if isinstance(d, dims.Expr) and dims.symbols(d) == {d.text}:
                symbols.setdefault(d.text, size)
    for name, (actual, declared) in shapes.items():
        for axis, (size, d) in enumerate(zip(actual, declared, strict=True)):
            expected = dims.evaluate(d, symbols)
            if size != expected:
                message = f"input has size {size} on axis {axis}, expected {expected} ({d})"
                raise InputError(message, node=name, cure="give the declared shape")
    return symbols


def evaluate_weights(
    module: ir.Module, sources: Weights, names: Iterable[str] | None = None
) -> Iterator[tuple[str, np.ndarray]]:
    """The derived weights of a module's weights program, one at a time, in its order.

    Args:
        sources: the model's own weights.
        names: derived weights to evaluate (a slice of the program, for refit); all where None.

    Yields:
        name and contiguous array, in its storage type.
    """
    func = dialect.find_func(module, dialect.WEIGHTS_FUNC)
    if func is None:
        return
    wanted = None if names is None else set(names)
    for op in func.regions[0].blocks[0].operations:
        if op.operation.name != "ingot.output":
            continue
        name = attribute(op.operation.attributes["name"])
        if wanted is not None and name not in wanted:
            continue
        assert isinstance(name, str)
        yield name, np.asarray(evaluate_value(op.operation.operands[0], sources), order="C")


def evaluate_value(value: ir.Value, sources: Weights) -> np.ndarray:
    """The value of a tensor that depends on weights and constants only."""
    run = _Run(sources)
    order: dict[int, ir.Operation] = {}
    stack = [(value.owner.operation, False)]
    while stack:
        op, expanded = stack.pop()
        key = operation_key(op)
        if key in order:
            continue
        if expanded:
            order[key] = op
        else:
            stack.append((op, True))
            stack += [(x.owner.operation, False) for x in dialect.inputs(op)]
    for op in order.values():
        run.step(op)
    return run.values[value]


@dataclass
class _Run:
    """The state of one execution."""

    weights: Weights
    symbols: dict[str, int] = field(default_factory=dict)
    values: dict[ir.Value, np.ndarray] = field(default_factory=dict)
    outputs: dict[str, np.ndarray] = field(default_factory=dict)
    float64: bool = False
    given: list[np.ndarray] = field(default_factory=list)  # results of the region that runs

    def run(self, block: ir.Block) -> dict[str, np.ndarray]:
        """Run a block in order; values are dropped after their last use."""
        operations = [op.operation for op in block.operations]
        last_use: dict[ir.Value, int] = {}
        for i, op in enumerate(operations):
            for value in dialect.inputs(op):
                last_use[value] = i
        dying: dict[int, list[ir.Value]] = {}
        for value, i in last_use.items():
            dying.setdefault(i, []).append(value)
        for i, op in enumerate(operations):
            self.step(op)
            for value in dying.get(i, ()):
                self.values.pop(value, None)
        return self.outputs

    def step(self, op: ir.Operation) -> None:
        """Execute one operation."""
        name = op.name.removeprefix("ingot.")
        if (kind := dialect.DEFS[op.name].kind) == "root":
            self._root(op, name)
        elif kind == "view":
            self.values[op.results[0]] = self._view(op, name)
        elif name == "weight":
            stored = attribute(op.attributes["name"])
            assert isinstance(stored, str)
            if stored not in self.weights:
                raise InputError(f"weight {stored!r} is missing", cure="give the weights of this model")
            result = op.results[0]
            dtype, shape = self._type(result)
            array = read_as(self.weights[stored], dtype, shape)
            if array is None:
                raise InputError(f"weight {stored!r} does not fit {result.type}", cure="give the weights of this model")
            self.values[result] = array
        elif name == "empty":
            dtype, shape = self._type(op.results[0])
            self.values[op.results[0]] = np.zeros(shape, DTYPES[dtype].np)
        elif name == "if":
            condition, *captured = (self.values[v] for v in op.operands)
            region = op.regions[0 if condition.item() else 1]
            self.values.update(zip(op.results, self._region(region, captured), strict=True))
        elif name == "loop":
            self._loop(op)
        elif name == "host_read":
            self.symbols[op.attributes["symbol"].value] = self.values[op.operands[0]].item()
        elif name == "define":
            expression = dims.parse(op.attributes["expression"].value)
            self.symbols[op.attributes["symbol"].value] = dims.evaluate(expression, self.symbols)
        elif name == "result":
            self.given.append(self.values[op.operands[0]])
        elif name == "guard":
            self._guard(op)
        elif name == "output":
            array = np.asarray(self.values[op.operands[0]], order="C")
            onnx_type = ONNX_TYPE_BY_NAME[op.attributes["type"].value]
            self.outputs[op.attributes["name"].value] = _as_onnx(array, onnx_type)

    def _loop(self, op: ir.Operation) -> None:
        count = op.attributes["carried"].value
        values = [self.values[v] for v in op.operands]
        carried, captured = values[:count], values[count:]
        for i in range(dims.evaluate(dims.parse(op.attributes["trips"].value), self.symbols)):
            if "while" in op.attributes and not carried[0].item():
                break
            self.symbols[op.attributes["symbol"].value] = i
            carried = self._region(op.regions[0], [*carried, *captured])
        self.values.update(zip(op.results, carried, strict=True))

    def _region(self, region: ir.Region, arguments: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Run a region of a control operation; its results."""
        block = region.blocks[0]
        self.values.update(zip(block.arguments, arguments, strict=True))
        around, self.given = self.given, []
        self.run(block)
        results, self.given = self.given, around
        return results

    def _type(self, value: ir.Value) -> tuple[str, tuple[int, ...]]:
        shape = tuple(dims.evaluate(d, self.symbols) for d in dialect.shape_of(value))
        return dialect.dtype_of(value), shape

    def _root(self, op: ir.Operation, name: str) -> None:
        tensors, regions = read_regions(op)
        arrays = [self.values[t] for t in tensors]
        if name == "move" and len(op.operands) == 2:
            self._move_into(op, regions, arrays)
            return
        results = [self._type(r) for r in op.results]
        call = RootCall(name, arrays, attributes(op), regions, results, self.symbols, self.float64)
        for value, array in zip(op.results, run_root(call), strict=True):
            self.values[value] = array

    def _move_into(self, op: ir.Operation, regions: tuple, arrays: list[np.ndarray]) -> None:
        x, into = arrays[:2]
        dtype, _ = self._type(op.results[0])
        call = RootCall("move", arrays, attributes(op), regions, [(dtype, x.shape)], self.symbols, self.float64)
        (part,) = run_root(call)
        # The result takes the memory of `into`, which has no other use; only what this run allocated may be overwritten.
        target = into if _is_private(op.operands[1]) else into.copy()
        offsets = [dims.evaluate(dims.parse(o), self.symbols) for o in attribute(op.attributes["offsets"])]
        target[tuple(slice(o, o + n) for o, n in zip(offsets, x.shape, strict=True))] = part
        self.values[op.results[0]] = target

    def _view(self, op: ir.Operation, name: str) -> np.ndarray:
        x = self.values[op.operands[0]]
        _, shape = self._type(op.results[0])
        match name:
            case "reshape":
                return x.reshape(shape)
            case "transpose":
                return x.transpose(attribute(op.attributes["perm"]))
            case "expand":
                return np.broadcast_to(x, shape)
        if 0 in shape:
            return np.empty(shape, x.dtype)
        starts = [dims.evaluate(dims.parse(s), self.symbols) for s in attribute(op.attributes["starts"])]
        picks = []
        for start, step, n, size in zip(starts, attribute(op.attributes["steps"]), shape, x.shape, strict=True):
            stop = start + step * n
            assert all(0 <= i < size for i in (start, stop - step)), f"{op} reads {start} to {stop - step} of {size}"
            picks.append(slice(start, stop if stop >= 0 else None, step))
        return x[tuple(picks)]

    def _guard(self, op: ir.Operation) -> None:
        left, right = (dims.evaluate(dims.parse(op.attributes[n].value), self.symbols) for n in ("left", "right"))
        relation = op.attributes["relation"].value
        if not (left == right if relation == "eq" else left <= right):
            raise InputError(f"{op.attributes['message'].value}: {left} {relation} {right} does not hold")


def _is_private(value: ir.Value) -> bool:
    """True where the value's memory was allocated by the run and nothing else reads it."""
    owner = value.owner
    return isinstance(owner, ir.OpView | ir.Operation) and owner.operation.name in ("ingot.empty", "ingot.move")


def _as_storage(array: np.ndarray, dtype: str) -> np.ndarray:
    """An array of an ONNX type as its storage type: unsigned integers become signless."""
    storage = DTYPES[dtype].np
    if array.dtype == storage:
        return array
    if array.dtype.name in ("int2", "uint2"):
        return array.astype(storage)
    if array.dtype.itemsize == storage.itemsize:
        return array.view(storage)
    raise InputError(f"array has dtype {array.dtype}, expected {storage}", cure=f"cast it to {storage}")


def _as_onnx(array: np.ndarray, onnx_type: OnnxType) -> np.ndarray:
    """An array of a storage type as an ONNX type that is stored so."""
    dtype = onnx_numpy(onnx_type)
    return array.astype(dtype) if onnx_type.narrow else array.view(dtype)
