"""Imports ONNX models into the `onnx` dialect.

`onnx_file` opens the file without reading its weights, `onnx_graph` brings its nodes into one form, and this module builds the
IR: one operation a node, whose location is named after the node, with weights left in a `WeightStore`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx

from ingot import dims
from ingot.compiler.constant_inputs import constant_inputs
from ingot.compiler.onnx_file import ModelFile, read_model, type_name
from ingot.compiler.onnx_graph import Graph, Node, Normalizer
from ingot.compiler.weights import WeightSource, WeightStore
from ingot.dialects import onnx as dialect
from ingot.dialects import onnx_types as types
from ingot.dialects.mlir import ir
from ingot.dialects.onnx_attributes import UNREADABLE
from ingot.dims import Dim
from ingot.errors import ModelError

# Tensors up to these sizes are `onnx.Constant`: shapes, axes, tables of indices and single numbers, which passes fold. Vectors
# of floats are parameters, however short: by their names a refit replaces them. So are quantized tensors and their scales.
CONSTANT_INTEGERS = 1024
CONSTANT_FLOATS = 1

# Names that exporters give to every dimension they know nothing about: equal names mean nothing then.
_ANONYMOUS = frozenset({"", "?", "None", "none", "-1", "unk", "unknown"})


@dataclass
class ImportedModel:
    """A module with one `onnx.Graph`, and the weights that its `onnx.Weight` operations name."""

    module: ir.Module
    weights: WeightStore


def import_model(
    model: str | os.PathLike | bytes | onnx.ModelProto,
    *,
    context: ir.Context,
    decompose: Callable[[str], bool] = lambda op_type: False,
    constants: Mapping[str, Any] = MappingProxyType({}),
) -> ImportedModel:
    """Import a model.

    Args:
        model: path of a `.onnx` or textual (`.onnxtxt`, `.textproto`) file, a serialized model, or a message. External data is
            found beside a file.
        context: has the `onnx` and `ingot` dialects loaded (`new_context(onnx=True)`).
        decompose: whether an operator of ai.onnx that ONNX defines by a function is to be replaced by the function's body.
        constants: arrays, by name, for inputs that become constants.

    Files are mapped, not read. Raises ModelError where the model is damaged, or holds nodes that Ingot cannot import, and
    InputError where a constant does not fit its input.
    """
    file = read_model(model)
    graph = Normalizer(file, decompose, constant_inputs(file.model.graph, constants)).run()
    with context, ir.Location.unknown(context):
        return _Builder(file, graph).run()


def location(name: str) -> ir.Location:
    """The location of an operation of node `name`: outside, a spelling that can be printed as SSA name; inside, the name."""
    printable = re.sub(r"[^\w.$-]+", ".", name, flags=re.ASCII).strip(".") or "node"
    return ir.Location.name(printable, ir.Location.name(name))


class _Builder:
    """Builds the module for a normalized graph, in the current context."""

    def __init__(self, file: ModelFile, graph: Graph) -> None:
        self.file = file
        self.graph = graph
        self.weights = WeightStore()
        self.unknown = types.unknown_type()
        self.symbols = _Symbols(graph.inputs.values())
        self.tensor_types: dict[tuple, ir.Type] = {}
        self.parameters: set[str] = set()  # quantized tensors and scales

    def run(self) -> ImportedModel:
        module = ir.Module.create()
        graph = self.graph
        arguments = [self.input_type(name, v.type) for name, v in graph.inputs.items()]
        with ir.InsertionPoint(module.body):
            op = ir.Operation.create(
                dialect.GRAPH,
                attributes={
                    "sym_name": ir.StringAttr.get(graph.proto.name or "main_graph"),
                    "input_names": ir.ArrayAttr.get([ir.StringAttr.get(name) for name in graph.inputs]),
                },
                regions=1,
            )
        block = op.regions[0].blocks.append(*arguments, arg_locs=[location(name) for name in graph.inputs])
        with ir.InsertionPoint(block):
            values = self.fill(graph, dict(zip(graph.inputs, block.arguments, strict=True)))
            for name, output in zip(graph.outputs, graph.proto.output, strict=True):
                declared = self.output_type(output.name, output.type)
                attributes = {"name": ir.StringAttr.get(output.name), "type": ir.TypeAttr.get(declared)}
                ir.Operation.create(dialect.OUTPUT, [], [values[name]], attributes, loc=location(output.name))
            ir.Operation.create(dialect.RETURN)
        return ImportedModel(module, self.weights)

    def fill(self, graph: Graph, values: dict[str, ir.Value]) -> dict[str, ir.Value]:
        """Build a graph's initializers and nodes at the insertion point; `values` gains its values by name."""
        used = {name for node in graph.nodes for name in _reads(node)} | set(graph.outputs)
        self.parameters.update(name for node in graph.nodes for name in _quantized(node))
        for name, tensor in graph.initializers.items():
            if name in used:
                values[name] = self.tensor(name, tensor, refits=True)
        hints = {v.name: v.type for v in graph.proto.value_info}
        hints |= {v.name: v.type for v in graph.proto.output}
        for node in graph.nodes:
            self.node(node, values, hints)
        return values

    def node(self, node: Node, values: dict[str, ir.Value], hints: Mapping[str, onnx.TypeProto]) -> None:
        """Build one node; `values` gains its outputs."""
        if node.op_type == "Constant" and not node.domain:
            values[node.outputs[0]] = self.tensor(node.outputs[0], node.attributes["value"], location(node.name))
            return
        attributes = {}
        for name, value in node.attributes.items():
            if isinstance(value, WeightSource):
                value = value.array()
            elif isinstance(value, onnx.TypeProto):
                value = self.declared_type(value)
            elif isinstance(value, Graph):
                continue
            attributes[name] = value
        # An output that always exists has a result even where the model gives it no name.
        formals = node.spec.outputs
        present = [bool(o) or (i < len(formals) and formals[i].kind == "single") for i, o in enumerate(node.outputs)]
        result_types = [self.hint(hints.get(o)) if p else None for o, p in zip(node.outputs, present, strict=True)]
        operands = [values[i] if i else None for i in node.inputs]
        op = dialect.build(node.spec, operands, attributes, result_types, loc=location(node.name))
        for region, name in zip(op.regions, node.spec.regions, strict=True):
            if name in node.attributes:
                self.subgraph(node.attributes[name], region, values)
        values.update(zip((o for o, p in zip(node.outputs, present, strict=True) if p), op.results, strict=True))

    def subgraph(self, graph: Graph, region: ir.Region, outer: Mapping[str, ir.Value]) -> None:
        """Build a subgraph into a region; it captures values of `outer`."""
        arguments = [self.hint(v.type) for v in graph.inputs.values()]
        block = region.blocks.append(*arguments, arg_locs=[location(name) for name in graph.inputs])
        with ir.InsertionPoint(block):
            values = self.fill(graph, {**outer, **dict(zip(graph.inputs, block.arguments, strict=True))})
            for name, output in zip(graph.outputs, graph.proto.output, strict=True):
                attributes = {"name": ir.StringAttr.get(output.name)}
                ir.Operation.create(dialect.OUTPUT, [], [values[name]], attributes, loc=location(output.name))
            ir.Operation.create(dialect.RETURN)

    def tensor(
        self, name: str, tensor: WeightSource | np.ndarray, loc: ir.Location | None = None, refits: bool = False
    ) -> ir.Value:
        """A constant for a small tensor, else a weight; `refits`: of the model's parameters, which a refit may give anew."""
        loc = loc or location(name)
        if isinstance(tensor, np.ndarray) and tensor.dtype == object:
            value = dialect.attributes.dense(tensor)
            t = types.tensor_type(types.STRING, tensor.shape)
            return ir.Operation.create(dialect.CONSTANT, [t], [], {"value": value}, loc=loc).result
        source = WeightSource.from_array(tensor) if isinstance(tensor, np.ndarray) else tensor
        element = types.element_name(source.onnx_type)
        floating = source.onnx_type.storage.startswith(("f", "bf"))
        small = source.elements <= (CONSTANT_FLOATS if floating else CONSTANT_INTEGERS)
        if element not in UNREADABLE and small and name not in self.parameters:
            if refits:
                self.weights.constants[name] = source
            return dialect.constant(source.array(), loc=loc)
        return dialect.weight(self.weights.add(name, source), self.tensor_type(element, source.shape), loc=loc)

    # Types

    def tensor_type(self, element: str, shape: tuple[Dim | None, ...] | None) -> ir.Type:
        key = element, shape
        if key not in self.tensor_types:
            self.tensor_types[key] = types.tensor_type(element, shape)
        return self.tensor_types[key]

    def input_type(self, name: str, proto: onnx.TypeProto) -> ir.Type:
        """The type of an input of the main graph: its dynamic dimensions get names where the model gives none."""
        if not proto.HasField("tensor_type"):
            return self.declared_type(proto, name)
        element = self.element(proto.tensor_type.elem_type, name)
        if not proto.tensor_type.HasField("shape"):
            return self.tensor_type(element, None)
        shape = (self.symbols.dim(d, fresh=f"{name}_{axis}") for axis, d in enumerate(proto.tensor_type.shape.dim))
        return self.tensor_type(element, tuple(shape))

    def output_type(self, name: str, proto: onnx.TypeProto) -> ir.Type:
        """The declared type of an output of the main graph, with the names of its dimensions."""
        if not proto.HasField("tensor_type") or not proto.tensor_type.HasField("shape"):
            return self.declared_type(proto, name)
        element = self.element(proto.tensor_type.elem_type, name) if proto.tensor_type.elem_type else types.UNKNOWN
        return self.tensor_type(element, tuple(self.symbols.dim(d) for d in proto.tensor_type.shape.dim))

    def hint(self, proto: onnx.TypeProto | None) -> ir.Type:
        """What a declaration says of a value inside the graph, without its dimensions' names: exporters make those up."""
        return self.unknown if proto is None else self.declared_type(proto)

    def declared_type(self, proto: onnx.TypeProto, name: str = "value") -> ir.Type:
        """The type of a declaration, without the names of its dimensions."""
        match proto.WhichOneof("value"):
            case "tensor_type":
                tensor = proto.tensor_type
                if not tensor.elem_type:
                    return self.unknown
                element = self.element(tensor.elem_type, name)
                if not tensor.HasField("shape"):
                    return self.tensor_type(element, None)
                shape = (d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else None for d in tensor.shape.dim)
                return self.tensor_type(element, tuple(shape))
            case "sequence_type":
                return types.sequence_type(self.declared_type(proto.sequence_type.elem_type, name))
            case "optional_type":
                return types.optional_type(self.declared_type(proto.optional_type.elem_type, name))
            case None:
                return self.unknown
            case kind:
                raise ModelError(f"has a type of kind {kind}, which Ingot does not support", node=name)

    def element(self, code: int, name: str) -> str:
        """The element type's spelling. Raises ModelError naming the value for a type that Ingot does not support."""
        try:
            return types.element_name_of_code(code)
        except ValueError:
            raise ModelError(
                f"has element type {type_name(code)}, which Ingot does not support",
                node=name,
                cure="cast the value to a supported type in the model",
            ) from None


class _Symbols:
    """Shape expressions for the dimension names of a model."""

    def __init__(self, inputs: Iterable[onnx.ValueInfoProto]) -> None:
        self.names: dict[str, dims.Dim] = {}
        self.taken: set[str] = set()
        texts = {d.dim_param for v in inputs for d in v.type.tensor_type.shape.dim} - _ANONYMOUS
        compound = []
        for text in sorted(texts):
            # A name such as "batch-size" spells a difference only if both of its parts are names of their own.
            if text.isidentifier() and text.isascii():
                self.symbol(text)
            else:
                compound.append(text)
        self.declared = frozenset(self.taken)
        for text in compound:
            self.expression(text)

    def dim(self, proto: onnx.TensorShapeProto.Dimension, fresh: str | None = None) -> Dim | None:
        """The size that a declaration gives: an anonymous one is a new symbol named after `fresh`, or None."""
        if proto.HasField("dim_value") and proto.dim_value >= 0:
            return proto.dim_value
        if proto.dim_param not in _ANONYMOUS:
            return self.expression(proto.dim_param)
        return self.unique(fresh) if fresh else None

    def expression(self, text: str) -> Dim:
        if text not in self.names:
            try:
                parsed: Dim | None = dims.parse(text)
            except ValueError:
                parsed = None
            if parsed is None or not dims.symbols(parsed) <= self.declared:
                parsed = self.unique(text)
            self.names[text] = parsed
        return self.names[text]

    def symbol(self, text: str) -> None:
        self.names[text] = self.unique(text)

    def unique(self, text: str) -> Dim:
        stem = name = dims.sanitize(text)
        count = 1
        while name in self.taken:
            name = f"{stem}_{count}"
            count += 1
        self.taken.add(name)
        return dims.symbol(name)


def _quantized(node: Node) -> list[str]:
    """Names of the quantized tensors and the scales that a node reads; zero points are not among them."""
    formals = [(f.name.lower(), name) for f, name in zip(node.spec.inputs, node.inputs, strict=False) if f.kind != "variadic"]
    ends = ("_scale", "scale", "scales") if node.domain else ("_scale",)
    single = {f.name.lower() for f in node.spec.inputs if f.kind == "single"}
    if node.op_type not in ("MatMulInteger", "ConvInteger") and not any(n.endswith(ends) for n in single):
        return []
    return [name for formal, name in formals if name and "zero_point" not in formal and formal != "indices"]


def _reads(node: Node) -> set[str]:
    """Names that a node reads, its subgraphs included; names that those define are among them."""
    names = set(node.inputs)
    for value in node.attributes.values():
        if isinstance(value, Graph):
            names |= {name for inner in value.nodes for name in _reads(inner)} | set(value.outputs)
    return names
