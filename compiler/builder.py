"""`ingot.Builder`: engines written in Python, without an ONNX model.

    b = ingot.Builder()
    x = b.input("x", ("N", 784))
    h = (x @ b.weight("w1", w1) + b.weight("b1", b1)).relu()
    b.output("y", (h @ b.weight("w2", w2)).softmax())
    b.compile().save("mlp.ingot")

A builder writes the `ingot` dialect operation by operation. Operators mean what ONNX's operators of the same name mean: each
method applies the inference rule of one and then its lowering rule, the same that a model's nodes go through. Sizes are
integers or shape expressions over named dimensions (`"N"`, `"2*N + 1"`); shapes are known at once, and what cannot be proven of
them becomes a guard that fails at run time with the operator's name.
"""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ingot import dims
from ingot.compiler.aot_pipeline import OPTIMIZE, PLAN
from ingot.compiler.driver import engine_of
from ingot.compiler.tensor import Operand, Size, Tensor, binary, element_type, like
from ingot.compiler.weights import WeightStore
from ingot.dialects import ingot as dialect
from ingot.dialects import onnx_schema
from ingot.dialects.mlir import ir, new_context
from ingot.dims import Dim
from ingot.dtypes import OnnxType, onnx_numpy
from ingot.engine import Engine
from ingot.errors import ModelError
from ingot.passes.convert_onnx_to_ingot import ConvertOnnxToIngot
from ingot.passes.infer_shapes import InferShapes
from ingot.passes.instrumentation import Instrumentation
from ingot.passes.onnx_inference.facts import Facts
from ingot.passes.onnx_inference.rules import RULES as INFERENCE
from ingot.passes.onnx_inference.rules import Node, Unsupported
from ingot.passes.onnx_inference.tensors import Tensor as Inferred
from ingot.passes.onnx_inference.tensors import constant_elements
from ingot.passes.onnx_lowering.graph_builder import GraphBuilder, strings
from ingot.passes.onnx_lowering.lowering import RULES as LOWERING
from ingot.passes.onnx_lowering.lowering import Lowering
from ingot.passes.onnx_lowering.values import Known, TypedValue
from ingot.passes.pass_base import Pass, PassContext
from ingot.passes.pipeline import Pipeline
from ingot.passes.registry import PassRegistry

_PASSES = (InferShapes, ConvertOnnxToIngot)  # importing them fills the tables of rules
_SMALL = 16  # elements up to which an array is kept as known elements; a larger one becomes a weight


class Builder:
    """Builds one graph; see the module's docstring. Names are given to operators by kind and number (`MatMul_2`), which errors
    and profiles quote; `with builder.scope("encoder"):` prefixes them."""

    def __init__(self) -> None:
        self._context = new_context()
        self._weights = WeightStore()
        self._facts = Facts()
        self._names: Counter[str] = Counter()
        self._scopes: list[str] = []
        self._inputs: list[tuple[str, OnnxType]] = []
        self._outputs: set[str] = set()
        with self._context, ir.Location.unknown(self._context):
            self._module = ir.Module.create()
            empty = strings([])
            self._func = ir.Operation.create(
                "ingot.func",
                attributes={"sym_name": ir.StringAttr.get("main"), "inputs": empty, "input_types": empty},
                regions=1,
                ip=ir.InsertionPoint(self._module.body),
            )
            self._block = self._func.regions[0].blocks.append()
            self._build = GraphBuilder(self._block, self._weights)

    # Sources and results

    def input(self, name: str, shape: Sequence[Size], dtype: Any = np.float32) -> Tensor:
        """An input of the engine.

        Args:
            name: what callers feed it by.
            shape: integers, or names of dimensions that calls may choose.
            dtype: a numpy type, or the name of one (`"bfloat16"` too).

        Raises:
            ModelError: the name is taken, or a size is no integer, name or shape expression.
        """
        if any(name == taken for taken, _ in self._inputs):
            raise ModelError("an input has this name already", node=name, cure="choose another")
        onnx_type = element_type(dtype)
        sizes = self._dims(shape, name)
        with self._entered(name):
            value = self._block.add_argument(dialect.tensor_type(onnx_type.storage, sizes), self._build.location)
        self._inputs.append((name, onnx_type))
        return Tensor(self, TypedValue(value, onnx_type, sizes), Inferred(onnx_type, sizes))

    def weight(self, name: str, array: np.ndarray) -> Tensor:
        """A weight, which the engine stores under `name` (with a number behind it where that is taken)."""
        array = np.asarray(array)
        onnx_type = element_type(array.dtype)
        with self._entered(name):
            stored = self._weights.add_array(name, array)
            source = self._build.weight(stored, onnx_type, array.shape)
        return Tensor(self, source, Inferred(onnx_type, array.shape))

    def constant(self, value: Any, dtype: Any = None) -> Tensor:
        """An array that is part of the graph: of few elements inside kernels, else a weight without a name of its own."""
        array = np.asarray(value, None if dtype is None else onnx_numpy(element_type(dtype)))
        if array.size > _SMALL:
            return self.weight(self._name("Constant"), array)
        onnx_type = element_type(array.dtype)
        elements = constant_elements(array)
        known = Known(onnx_type, array.shape, tuple(elements.ravel().tolist()))
        return Tensor(self, known, Inferred(onnx_type, array.shape, elements))

    def output(self, name: str, value: Tensor) -> None:
        """State that `value` is the engine's output `name`. Raises ModelError where the name is taken."""
        if name in self._outputs:
            raise ModelError("an output has this name already", node=name, cure="choose another")
        self._check_owner(value, name)
        with self._entered(name):
            tensor = self._build.tensor(value.source)
            attrs = {"name": ir.StringAttr.get(name), "type": ir.StringAttr.get(tensor.type.name)}
            self._build.create("output", [tensor.value], [], attrs)
        self._outputs.add(name)

    # Operators

    def apply(self, op: str, *inputs: Tensor | None, **attributes: Any) -> Tensor:
        """Any ONNX operator that Ingot lowers, at its newest version: `b.apply("HardSwish", x)`.

        Args:
            op: its name, with the domain where that is not ONNX's own (`"com.microsoft.FusedMatMul"`).
            inputs: its inputs in order; None where an optional one is left out.
            attributes: its attributes; the schema's defaults where they are not given.

        Returns:
            the first output.

        Raises:
            ModelError: no such operator, or inputs or attributes that it does not take.
        """
        name = self._name(op)
        schema = onnx_schema.operators().get(op)
        if schema is None or op not in INFERENCE or op not in LOWERING:
            raise ModelError(f"operator {op} is not supported", node=name, cure="build it from others")
        fault = schema.find_fault(len(inputs), max(1, schema.min_outputs), attributes)
        if fault is not None:
            raise ModelError(fault, node=name, cure="see the operator's definition in ONNX")
        for x in inputs:
            if x is not None:
                self._check_owner(x, name)

        def attribute(key: str) -> Any:
            return attributes[key] if key in attributes else schema.attributes[key].default

        node = Node(op, name, [None if x is None else x.inferred for x in inputs], 1, attribute, self._facts)
        with self._entered(name):
            try:
                inferred = self._infer(node)
                if inferred.value is not None and inferred.is_known:
                    elements = tuple(inferred.value.ravel().tolist())
                    return Tensor(self, Known(inferred.type, inferred.shape, elements), inferred)
                sources = [None if x is None else x.source for x in inputs]
                found = LOWERING[op](Lowering(node, sources, [inferred], [True], self._build))
            except Unsupported as e:
                raise ModelError(f"{op}: {e.message}", node=name, cure=e.cure) from None
            source = found if isinstance(found, TypedValue | Known) else found[0]
            assert source is not None, op
            return Tensor(self, source, inferred)

    def where(self, condition: Tensor, x: Operand, y: Operand) -> Tensor:
        """x where the condition holds, else y."""
        return self.apply("Where", condition, like(self, x, y), like(self, y, x))

    def maximum(self, x: Tensor, y: Operand) -> Tensor:
        """The larger element of each pair."""
        return binary(self, "Max", x, y)

    def minimum(self, x: Tensor, y: Operand) -> Tensor:
        """The smaller element of each pair."""
        return binary(self, "Min", x, y)

    def concat(self, tensors: Sequence[Tensor], axis: int) -> Tensor:
        """Tensors one after the other along an axis."""
        return self.apply("Concat", *tensors, axis=axis)

    def gather(self, x: Tensor, indices: Tensor, axis: int = 0) -> Tensor:
        """Slices of x along an axis, at integer indices (numpy's take)."""
        return self.apply("Gather", x, indices, axis=axis)

    def conv(
        self,
        x: Tensor,
        w: Tensor,
        bias: Tensor | None = None,
        *,
        strides: int | Sequence[int] = 1,
        pads: int | Sequence[int] = 0,
        dilations: int | Sequence[int] = 1,
        groups: int = 1,
        channels_last: bool = False,
    ) -> Tensor:
        """Convolution over any number of spatial axes.

        Args:
            x: [N, C, spatial...], or [N, spatial..., C] with `channels_last`.
            w: [M, C / groups, kernel...], or [M, kernel..., C / groups] with `channels_last`.
            bias: [M].
            strides, dilations: one for all spatial axes, or one each.
            pads: one for all sides, one for both sides of each axis, or all beginnings and then all ends.
        """
        if channels_last:
            x, w = _channels_first(x), _channels_first(w)
        spatial = w.rank - 2
        attributes = {
            "strides": _each(strides, spatial),
            "dilations": _each(dilations, spatial),
            "pads": _pads(pads, spatial),
            "group": groups,
        }
        y = self.apply("Conv", *((x, w) if bias is None else (x, w, bias)), **attributes)
        return _channels_last(y) if channels_last else y

    def max_pool(
        self,
        x: Tensor,
        kernel: int | Sequence[int],
        *,
        strides: int | Sequence[int] | None = None,
        pads: int | Sequence[int] = 0,
        channels_last: bool = False,
    ) -> Tensor:
        """The maximum over windows; strides are the kernel's sizes where they are not given."""
        return self._pool("MaxPool", x, kernel, strides, pads, channels_last)

    def average_pool(
        self,
        x: Tensor,
        kernel: int | Sequence[int],
        *,
        strides: int | Sequence[int] | None = None,
        pads: int | Sequence[int] = 0,
        channels_last: bool = False,
    ) -> Tensor:
        """The mean over windows, without padding; strides are the kernel's sizes where they are not given."""
        return self._pool("AveragePool", x, kernel, strides, pads, channels_last)

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Prefix the names of the operators made inside with `name/`."""
        self._scopes.append(name)
        try:
            yield
        finally:
            self._scopes.pop()

    # Results

    def compile(
        self,
        *,
        passes: Sequence[Pass | str] = (),
        progress: Callable[[str, int, int], None] | None = None,
        dump_dir: str | os.PathLike | None = None,
    ) -> Engine:
        """The engine of what was built so far; building may go on.

        Args:
            passes: further passes, objects or pipeline text, which run after Ingot's own optimizations.
            progress: called with (pass, done, of how many).
            dump_dir: receives the IR after each pass.

        Raises:
            ModelError: there is no output.
            CompileError: a pass failed.
        """
        if not self._outputs:
            raise ModelError("the graph has no output", cure="state one with Builder.output")
        registry = PassRegistry()
        extra: list[Any] = []
        for p in passes:
            extra += Pipeline.parse(p, registry).steps if isinstance(p, str) else [p]
        steps = [*Pipeline.parse(",".join(OPTIMIZE)).steps, *extra, *Pipeline.parse(",".join(PLAN)).steps]
        watch = Instrumentation(
            verify_each=bool(extra) or dump_dir is not None,
            dump_dir=None if dump_dir is None else Path(dump_dir),
            on_pass=progress,
        )
        with self._context, ir.Location.unknown(self._context):
            module = ir.Module.parse(self._bytecode())
            found = Pipeline(steps).run(module, PassContext(weights=self._weights), watch)
            engine = engine_of(module, self._weights)
        engine.notes = tuple(map(str, found.remarks))
        return engine

    def ir_text(self) -> str:
        """The unoptimized IR of what was built so far, as `ingot-opt` reads it."""
        with self._context:
            return str(ir.Module.parse(self._bytecode()))

    # Parts

    def _bytecode(self) -> bytes:
        """The module, complete: with its inputs' names and a terminator, which the graph being built has not."""
        names, types = zip(*((n, t.name) for n, t in self._inputs), strict=True) if self._inputs else ((), ())
        with self._context, ir.Location.unknown(self._context):
            self._func.attributes["inputs"], self._func.attributes["input_types"] = strings(names), strings(types)
            end = ir.Operation.create("ingot.return", ip=ir.InsertionPoint(self._block))
            buffer = io.BytesIO()
            self._module.operation.write_bytecode(buffer)
            end.erase()
        return buffer.getvalue()

    def _name(self, op: str) -> str:
        name = "/".join([*self._scopes, op])
        self._names[name] += 1
        return f"{name}_{self._names[name]}"

    @contextmanager
    def _entered(self, name: str) -> Iterator[None]:
        """The builder's context, with locations that name an operator."""
        with self._context, ir.Location.name(name, context=self._context) as location:
            self._build.location, self._build.node = location, name
            yield

    def _infer(self, node: Node) -> Inferred:
        found = INFERENCE[node.op](node)
        inferred = found if isinstance(found, Inferred) else found[0]
        for guard in node.guards:
            fields = ("left", "relation", "right", "message")
            self._build.create("guard", [], [], {f: ir.StringAttr.get(str(getattr(guard, f))) for f in fields})
        return replace(inferred, shape=tuple(map(self._facts.resolved, inferred.shape)))

    def _check_owner(self, x: Tensor, name: str) -> None:
        if x.builder is not self:
            raise ModelError(f"{x} belongs to another builder", node=name, cure="build one graph with one builder")

    def _dims(self, shape: Sequence[Size], name: str) -> tuple[Dim, ...]:
        try:
            sizes = tuple(map(dims.as_dim, shape))
        except ValueError as e:
            raise ModelError(str(e), node=name, cure="give integers, names, or expressions of names") from None
        if any(isinstance(d, int) and d < 0 for d in sizes):
            raise ModelError(f"sizes {shape} are negative", node=name, cure="give integers of at least 0, or names")
        return sizes

    def _pool(
        self,
        op: str,
        x: Tensor,
        kernel: int | Sequence[int],
        strides: int | Sequence[int] | None,
        pads: int | Sequence[int],
        channels_last: bool,
    ) -> Tensor:
        spatial = x.rank - 2
        sizes = _each(kernel, spatial)
        steps = sizes if strides is None else _each(strides, spatial)
        y = _channels_first(x) if channels_last else x
        y = self.apply(op, y, kernel_shape=sizes, strides=steps, pads=_pads(pads, spatial))
        return _channels_last(y) if channels_last else y


def _each(value: int | Sequence[int], count: int) -> list[int]:
    return [value] * count if isinstance(value, int) else list(value)


def _pads(value: int | Sequence[int], spatial: int) -> list[int]:
    pads = _each(value, spatial)
    return pads * 2 if len(pads) == spatial else pads


def _channels_first(x: Tensor) -> Tensor:
    return x.transpose(0, x.rank - 1, *range(1, x.rank - 1))


def _channels_last(x: Tensor) -> Tensor:
    return x.transpose(0, *range(2, x.rank), 1)
