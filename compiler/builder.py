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
from types import EllipsisType
from typing import Any, TypeAlias

import numpy as np

from ingot import dims
from ingot.compiler.aot_pipeline import OPTIMIZE, PLAN
from ingot.compiler.driver import engine_of
from ingot.compiler.weights import WeightStore, onnx_type_of_numpy
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
from ingot.passes.onnx_lowering.values import Known, Source, TypedValue
from ingot.passes.pass_base import Pass, PassContext
from ingot.passes.pipeline import Pipeline
from ingot.passes.registry import PassRegistry

Size: TypeAlias = int | str | dims.Expr
Index: TypeAlias = "int | slice | EllipsisType | None"

_PASSES = (InferShapes, ConvertOnnxToIngot)  # importing them fills the tables of rules
_SMALL = 16  # elements up to which an array is kept as known elements; a larger one becomes a weight
_END = dims.UNBOUNDED  # "to the end" of a slice


class Tensor:
    """A value of a `Builder`. Immutable; operators make new ones.

    Python numbers take the tensor's element type; numpy arrays keep theirs, and must have the tensor's.

    Attributes:
        builder: the builder it belongs to.
    """

    def __init__(self, builder: Builder, source: Source, inferred: Inferred) -> None:
        self.builder, self._source, self._inferred = builder, source, inferred

    @property
    def shape(self) -> tuple[Dim, ...]:
        """Sizes: integers or shape expressions."""
        return self._inferred.shape

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype:
        """The numpy type of its elements (of `ml_dtypes` where numpy has none)."""
        return onnx_numpy(self._inferred.type)

    def __repr__(self) -> str:
        return f"<ingot.Tensor {self._inferred.type.name}[{', '.join(map(str, self.shape))}]>"

    def __bool__(self) -> bool:
        raise TypeError("a tensor has no truth value while a graph is built: use Builder.where")

    __hash__ = object.__hash__
    __array_ufunc__ = None  # numpy leaves `array + tensor` to the tensor

    # Arithmetic and comparisons, with numpy's broadcasting

    def __add__(self, other: Operand) -> Tensor:
        return self.builder._binary("Add", self, other)

    def __radd__(self, other: Operand) -> Tensor:
        return self.builder._binary("Add", other, self)

    def __sub__(self, other: Operand) -> Tensor:
        return self.builder._binary("Sub", self, other)

    def __rsub__(self, other: Operand) -> Tensor:
        return self.builder._binary("Sub", other, self)

    def __mul__(self, other: Operand) -> Tensor:
        return self.builder._binary("Mul", self, other)

    def __rmul__(self, other: Operand) -> Tensor:
        return self.builder._binary("Mul", other, self)

    def __truediv__(self, other: Operand) -> Tensor:
        """The quotient; of integers, rounded towards 0."""
        return self.builder._binary("Div", self, other)

    def __rtruediv__(self, other: Operand) -> Tensor:
        return self.builder._binary("Div", other, self)

    def __mod__(self, other: Operand) -> Tensor:
        """The remainder: of integers with the divisor's sign, of floats with the dividend's."""
        return self.builder._binary("Mod", self, other, fmod=int(self._inferred.is_float))

    def __pow__(self, other: Operand) -> Tensor:
        return self.builder._binary("Pow", self, other)

    def __matmul__(self, other: Operand) -> Tensor:
        return self.builder._binary("MatMul", self, other)

    def __rmatmul__(self, other: Operand) -> Tensor:
        return self.builder._binary("MatMul", other, self)

    def __neg__(self) -> Tensor:
        return self.builder.apply("Neg", self)

    def __invert__(self) -> Tensor:
        """The negation of truth values, or of each bit."""
        return self.builder.apply("Not" if self.dtype == np.bool_ else "BitwiseNot", self)

    def __and__(self, other: Operand) -> Tensor:
        return self.builder._binary("And" if self.dtype == np.bool_ else "BitwiseAnd", self, other)

    def __or__(self, other: Operand) -> Tensor:
        return self.builder._binary("Or" if self.dtype == np.bool_ else "BitwiseOr", self, other)

    def __xor__(self, other: Operand) -> Tensor:
        return self.builder._binary("Xor" if self.dtype == np.bool_ else "BitwiseXor", self, other)

    def __lt__(self, other: Operand) -> Tensor:
        return self.builder._binary("Less", self, other)

    def __le__(self, other: Operand) -> Tensor:
        return self.builder._binary("LessOrEqual", self, other)

    def __gt__(self, other: Operand) -> Tensor:
        return self.builder._binary("Greater", self, other)

    def __ge__(self, other: Operand) -> Tensor:
        return self.builder._binary("GreaterOrEqual", self, other)

    def __eq__(self, other: Operand) -> Tensor:  # type: ignore[override]
        return self.builder._binary("Equal", self, other)

    def __ne__(self, other: Operand) -> Tensor:  # type: ignore[override]
        return ~(self == other)

    # Functions of each element

    def abs(self) -> Tensor:
        return self.builder.apply("Abs", self)

    def ceil(self) -> Tensor:
        return self.builder.apply("Ceil", self)

    def cos(self) -> Tensor:
        return self.builder.apply("Cos", self)

    def erf(self) -> Tensor:
        return self.builder.apply("Erf", self)

    def exp(self) -> Tensor:
        return self.builder.apply("Exp", self)

    def floor(self) -> Tensor:
        return self.builder.apply("Floor", self)

    def gelu(self, approximate: str = "none") -> Tensor:
        """x/2 * (1 + erf(x / sqrt(2))), or its approximation by "tanh"."""
        return self.builder.apply("Gelu", self, approximate=approximate)

    def log(self) -> Tensor:
        return self.builder.apply("Log", self)

    def relu(self) -> Tensor:
        return self.builder.apply("Relu", self)

    def round(self) -> Tensor:
        """The nearest integer, the even one of two."""
        return self.builder.apply("Round", self)

    def sigmoid(self) -> Tensor:
        return self.builder.apply("Sigmoid", self)

    def silu(self) -> Tensor:
        """x * sigmoid(x)."""
        return self * self.sigmoid()

    def sin(self) -> Tensor:
        return self.builder.apply("Sin", self)

    def sqrt(self) -> Tensor:
        return self.builder.apply("Sqrt", self)

    def tanh(self) -> Tensor:
        return self.builder.apply("Tanh", self)

    def clip(self, low: Operand | None = None, high: Operand | None = None) -> Tensor:
        """Elements moved to the nearest in [low, high]."""
        limits = [None if limit is None else self.builder._like(limit, self) for limit in (low, high)]
        return self.builder.apply("Clip", self, *limits)

    def cast(self, dtype: Any) -> Tensor:
        """Elements converted to a numpy type, or to the name of one (`"bfloat16"` too)."""
        return self.builder.apply("Cast", self, to=_onnx_type(dtype).code)

    # Along axes

    def softmax(self, axis: int = -1) -> Tensor:
        return self.builder.apply("Softmax", self, axis=axis)

    def log_softmax(self, axis: int = -1) -> Tensor:
        return self.builder.apply("LogSoftmax", self, axis=axis)

    def layer_norm(self, scale: Tensor, bias: Tensor | None = None, axis: int = -1, epsilon: float = 1e-5) -> Tensor:
        """Normalized over the axes from `axis` on, times `scale`, plus `bias`."""
        inputs = (self, scale) if bias is None else (self, scale, bias)
        return self.builder.apply("LayerNormalization", *inputs, axis=axis, epsilon=epsilon)

    def rms_norm(self, scale: Tensor, axis: int = -1, epsilon: float = 1e-5) -> Tensor:
        """Divided by the root of the mean square over the axes from `axis` on, times `scale`."""
        return self.builder.apply("RMSNormalization", self, scale, axis=axis, epsilon=epsilon)

    def sum(self, axes: int | Sequence[int] | None = None, keepdims: bool = False) -> Tensor:
        return self.builder._reduce("ReduceSum", self, axes, keepdims)

    def mean(self, axes: int | Sequence[int] | None = None, keepdims: bool = False) -> Tensor:
        return self.builder._reduce("ReduceMean", self, axes, keepdims)

    def max(self, axes: int | Sequence[int] | None = None, keepdims: bool = False) -> Tensor:
        return self.builder._reduce("ReduceMax", self, axes, keepdims)

    def min(self, axes: int | Sequence[int] | None = None, keepdims: bool = False) -> Tensor:
        return self.builder._reduce("ReduceMin", self, axes, keepdims)

    def prod(self, axes: int | Sequence[int] | None = None, keepdims: bool = False) -> Tensor:
        return self.builder._reduce("ReduceProd", self, axes, keepdims)

    # Shapes

    def reshape(self, *shape: Size) -> Tensor:
        """The same elements in another shape; one size may be -1: what is left."""
        return self.builder.apply("Reshape", self, self.builder._sizes(shape), allowzero=1)

    def transpose(self, *perm: int) -> Tensor:
        """Axis i of the result is axis perm[i]; without arguments the axes are reversed."""
        order = perm or tuple(range(self.rank))[::-1]
        return self.builder.apply("Transpose", self, perm=[p % self.rank for p in order])

    def expand(self, *shape: Size) -> Tensor:
        """Repeated along axes of size 1 (numpy's broadcast_to)."""
        return self.builder.apply("Expand", self, self.builder._sizes(shape))

    def squeeze(self, *axes: int) -> Tensor:
        """Without the axes, which have size 1."""
        return self.builder.apply("Squeeze", self, self.builder._sizes(axes))

    def unsqueeze(self, *axes: int) -> Tensor:
        """With new axes of size 1, which have these numbers in the result."""
        return self.builder.apply("Unsqueeze", self, self.builder._sizes(axes))

    def __getitem__(self, index: Index | tuple[Index, ...]) -> Tensor:
        """numpy's basic indexing: integers, slices, `...` and None. Bounds may be shape expressions."""
        items = list(index) if isinstance(index, tuple) else [index]
        given = sum(i is not None and i is not Ellipsis for i in items)
        if given > self.rank or items.count(Ellipsis) > 1:
            raise IndexError(f"{given} indices for a tensor of rank {self.rank}")
        at = items.index(Ellipsis) if Ellipsis in items else len(items)
        items[at : at + 1] = [slice(None)] * (self.rank - given)
        bounds: list[tuple[Dim, Dim, int, int]] = []  # start, end, axis, step
        dropped: list[int] = []
        added: list[int] = []
        axis = 0
        for item in items:
            if item is None:
                added.append(axis - len(dropped) + len(added))
                continue
            if isinstance(item, slice):
                step = 1 if item.step is None else item.step
                if (item.start, item.stop, step) != (None, None, 1):
                    start = (0 if step > 0 else _END) if item.start is None else dims.as_dim(item.start)
                    end = (_END if step > 0 else -_END) if item.stop is None else dims.as_dim(item.stop)
                    bounds.append((start, end, axis, step))
            else:
                assert isinstance(item, int)
                bounds.append((item, item + 1 if item != -1 else _END, axis, 1))
                dropped.append(axis)
            axis += 1
        y = self
        if bounds:
            y = self.builder.apply("Slice", y, *(self.builder._sizes(column) for column in zip(*bounds, strict=True)))
        if dropped:
            y = y.squeeze(*dropped)
        return y.unsqueeze(*added) if added else y


Operand: TypeAlias = "Tensor | np.ndarray | np.generic | float"


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
        onnx_type = _onnx_type(dtype)
        sizes = self._dims(shape, name)
        with self._entered(name):
            value = self._block.add_argument(dialect.tensor_type(onnx_type.storage, sizes), self._build.location)
        self._inputs.append((name, onnx_type))
        return Tensor(self, TypedValue(value, onnx_type, sizes), Inferred(onnx_type, sizes))

    def weight(self, name: str, array: np.ndarray) -> Tensor:
        """A weight, which the engine stores under `name` (with a number behind it where that is taken)."""
        array = np.asarray(array)
        onnx_type = _onnx_type(array.dtype)
        with self._entered(name):
            stored = self._weights.add_array(name, array)
            source = self._build.weight(stored, onnx_type, array.shape)
        return Tensor(self, source, Inferred(onnx_type, array.shape))

    def constant(self, value: Any, dtype: Any = None) -> Tensor:
        """An array that is part of the graph: of few elements inside kernels, else a weight without a name of its own."""
        array = np.asarray(value, None if dtype is None else onnx_numpy(_onnx_type(dtype)))
        if array.size > _SMALL:
            return self.weight(self._name("Constant"), array)
        onnx_type = _onnx_type(array.dtype)
        elements = constant_elements(array)
        known = Known(onnx_type, array.shape, tuple(elements.ravel().tolist()))
        return Tensor(self, known, Inferred(onnx_type, array.shape, elements))

    def output(self, name: str, value: Tensor) -> None:
        """State that `value` is the engine's output `name`. Raises ModelError where the name is taken."""
        if name in self._outputs:
            raise ModelError("an output has this name already", node=name, cure="choose another")
        self._check_owner(value, name)
        with self._entered(name):
            tensor = self._build.tensor(value._source)
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

        node = Node(op, name, [None if x is None else x._inferred for x in inputs], 1, attribute, self._facts)
        with self._entered(name):
            try:
                inferred = self._infer(node)
                if inferred.value is not None and inferred.is_known:
                    elements = tuple(inferred.value.ravel().tolist())
                    return Tensor(self, Known(inferred.type, inferred.shape, elements), inferred)
                sources = [None if x is None else x._source for x in inputs]
                found = LOWERING[op](Lowering(node, sources, [inferred], [True], self._build))
            except Unsupported as e:
                raise ModelError(f"{op}: {e.message}", node=name, cure=e.cure) from None
            source = found if isinstance(found, TypedValue | Known) else found[0]
            assert source is not None, op
            return Tensor(self, source, inferred)

    def where(self, condition: Tensor, x: Operand, y: Operand) -> Tensor:
        """x where the condition holds, else y."""
        like = x if isinstance(x, Tensor) else y
        return self.apply("Where", condition, self._like(x, like), self._like(y, like))

    def maximum(self, x: Tensor, y: Operand) -> Tensor:
        """The larger element of each pair."""
        return self._binary("Max", x, y)

    def minimum(self, x: Tensor, y: Operand) -> Tensor:
        """The smaller element of each pair."""
        return self._binary("Min", x, y)

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

    def _sizes(self, values: Sequence[Size]) -> Tensor:
        """An int64 vector of sizes, bounds or axes, known at compile time."""
        elements = tuple(dims.as_dim(v) for v in values)
        array = np.empty(len(elements), object)
        array[:] = elements
        int64 = _onnx_type(np.int64)
        return Tensor(self, Known(int64, array.shape, elements), Inferred(int64, array.shape, array))

    def _like(self, x: Operand, other: Operand) -> Tensor:
        """`x` as a tensor; a Python number takes the element type of `other`."""
        if isinstance(x, Tensor):
            return x
        is_number = isinstance(x, int | float) and not isinstance(x, np.generic)
        return self.constant(x, other.dtype if is_number and isinstance(other, Tensor | np.ndarray) else None)

    def _binary(self, op: str, x: Operand, y: Operand, **attributes: Any) -> Tensor:
        return self.apply(op, self._like(x, y), self._like(y, x), **attributes)

    def _reduce(self, op: str, x: Tensor, axes: int | Sequence[int] | None, keepdims: bool) -> Tensor:
        numbers = range(x.rank) if axes is None else [axes] if isinstance(axes, int) else axes
        return self.apply(op, x, self._sizes(list(numbers)), keepdims=int(keepdims))

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


def _onnx_type(dtype: Any) -> OnnxType:
    """The ONNX type of a numpy type or name. Raises ModelError where there is none."""
    try:
        if isinstance(dtype, str) and not hasattr(np, dtype):
            import ml_dtypes

            dtype = getattr(ml_dtypes, dtype)
        return onnx_type_of_numpy(np.dtype(dtype))
    except (AttributeError, TypeError, ValueError):
        raise ModelError(f"element type {dtype!r} is not supported", cure="use a numeric type of numpy or ml_dtypes") from None


def _each(value: int | Sequence[int], count: int) -> list[int]:
    return [value] * count if isinstance(value, int) else list(value)


def _pads(value: int | Sequence[int], spatial: int) -> list[int]:
    pads = _each(value, spatial)
    return pads * 2 if len(pads) == spatial else pads


def _channels_first(x: Tensor) -> Tensor:
    return x.transpose(0, x.rank - 1, *range(1, x.rank - 1))


def _channels_last(x: Tensor) -> Tensor:
    return x.transpose(0, *range(2, x.rank), 1)
