"""Exports `onnx`-dialect modules as ONNX models: to look at in Netron, and to compare a pass's result in ONNX Runtime."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ingot.compiler import onnx_versions
from ingot.compiler.weights import WeightSource, WeightStore, to_onnx_bytes
from ingot.dialects import onnx as dialect
from ingot.dialects import onnx_types as types
from ingot.dialects.mlir import ir
from ingot.dtypes import ONNX_TYPE_BY_CODE, OnnxType
from ingot.errors import ModelError

# protobuf serializes no message of 2 GB or more; the rest of a model takes some of it.
INLINE_LIMIT = 2_000_000_000
# Offsets of external tensors are multiples of this, so that they can be mapped.
_ALIGNMENT = 4096
_CONTRIB_VERSION = 1


def export_model(module: ir.Module, weights: WeightStore) -> onnx.ModelProto:
    """The module as a message with its weights inside, at the oldest opset that has what its nodes need.

    Run shape inference first: ONNX's checker wants the rank of every output, and types decide about the opset.

    Raises ModelError where the weights do not fit into a message, ValueError where the module has no `onnx.Graph`.
    """
    if weights.nbytes > INLINE_LIMIT:
        raise ModelError(
            f"the model has {weights.nbytes / 1e9:.1f} GB of weights, more than an ONNX message holds",
            cure="save it to a file with save_model, which writes them beside it",
        )
    return _Exporter(weights).model(module)


def save_model(module: ir.Module, weights: WeightStore, path: str | os.PathLike, *, external_bytes: int | None = None) -> None:
    """Write the module to `path`.

    Weights of at least `external_bytes` bytes each go, one after the other, into `<path>.data`. By default all stay inside as
    long as they fit; else those of 1024 bytes and more move out.
    """
    path = Path(path)
    if external_bytes is None:
        external_bytes = 1024 if weights.nbytes > INLINE_LIMIT else INLINE_LIMIT
    exporter = _Exporter(weights, external_bytes, f"{path.name}.data")
    model = exporter.model(module)
    if exporter.external:
        with open(path.parent / exporter.location, "wb") as f:
            for offset, source in exporter.external:
                f.seek(offset)
                f.write(to_onnx_bytes(source).data)
    path.write_bytes(model.SerializeToString())


class _Exporter:
    """Builds a message; collects the weights that are to be external."""

    def __init__(self, weights: WeightStore, external_bytes: int | None = None, location: str = "") -> None:
        self.weights = weights
        self.external_bytes = external_bytes
        self.location = location
        self.external: list[tuple[int, WeightSource]] = []
        self._end = 0
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.domains = {""}
        self.opset = onnx_versions.FLOOR
        self.names: dict[ir.Value, str] = {}
        self.taken: set[str] = set()
        self.node_names: set[str] = set()

    def model(self, module: ir.Module) -> onnx.ModelProto:
        """The whole message."""
        with module.context, ir.Location.unknown(module.context):
            return self._model(module)

    def _model(self, module: ir.Module) -> onnx.ModelProto:
        graph_op = dialect.main_graph(module)
        attributes = graph_op.attributes
        region = graph_op.regions[0]
        input_names = [n.value for n in attributes["input_names"]]
        # Names that callers see come first, so that no other value takes them.
        self.taken.update(input_names, (op.attributes["name"].value for op in dialect.outputs(region)))
        for name, argument in zip(input_names, region.blocks[0].arguments, strict=True):
            self.names[argument] = name
        graph = self.graph(
            region, attributes["sym_name"].value, [op.attributes["name"].value for op in dialect.outputs(region)]
        )
        for value, op in zip(graph.output, dialect.outputs(region), strict=True):
            self.declare(value, op.operands[0].type)
            if "type" in op.attributes and not value.type.tensor_type.HasField("shape"):
                self.declare(value, op.attributes["type"].value)
        graph.initializer.extend(self.initializers.values())
        versions = {"": self.opset, onnx.defs.ONNX_ML_DOMAIN: onnx.defs.onnx_ml_opset_version()}
        return onnx.helper.make_model(
            graph,
            producer_name="ingot",
            opset_imports=[onnx.helper.make_opsetid(d, versions.get(d, _CONTRIB_VERSION)) for d in sorted(self.domains)],
        )

    def graph(self, region: ir.Region, name: str, output_names: list[str]) -> onnx.GraphProto:
        """A region's graph; its arguments have names, and its outputs get `output_names`."""
        proto = onnx.GraphProto(name=name)
        block = region.blocks[0]
        outputs = dialect.outputs(region)
        for argument in block.arguments:
            self.declare(proto.input.add(name=self.names[argument]), argument.type)
        renamed = []
        for output, output_name in zip(outputs, output_names, strict=True):
            value = output.operands[0]
            owner = value.owner
            here = not isinstance(owner, ir.Block) and owner.operation.block == block
            if here and owner.name not in (dialect.WEIGHT, dialect.CONSTANT) and value not in self.names:
                self.names[value] = output_name
            else:
                renamed.append((value, output_name))
            proto.output.add(name=output_name)
        for op in block.operations:
            self.node(op.operation, proto)
        for value, output_name in renamed:
            proto.node.add(
                op_type="Identity", name=_unique(output_name, self.node_names), input=[self.names[value]], output=[output_name]
            )
        return proto

    def node(self, op: ir.Operation, graph: onnx.GraphProto) -> None:
        """Add an operation's node or initializer."""
        match op.name:
            case dialect.OUTPUT | dialect.RETURN:
                return
            case dialect.WEIGHT:
                name = op.attributes["name"].value
                if name not in self.weights:
                    raise ModelError("the weight store has no such weight", node=name)
                self.names[op.result] = self.initializer(name, self.weights[name])
                return
            case dialect.CONSTANT:
                self.names[op.result] = self.constant(dialect.node_name(op), dialect.constant_value(op.result))
                return
        spec = dialect.spec_of(op)
        self.domains.add(spec.domain)
        node = graph.node.add(op_type=spec.op_type, domain=spec.domain, name=_unique(dialect.node_name(op), self.node_names))
        node.input.extend(_stripped(["" if v is None else self.names[v] for v in dialect.onnx_operands(op)]))
        for name in spec.attributes:
            if name in op.attributes:
                node.attribute.append(self.attribute(spec.attributes[name].kind, name, dialect.attr(op, name)))
        for name, region in zip(spec.regions, op.regions, strict=True):
            if not len(region.blocks):
                continue
            for i, argument in enumerate(region.blocks[0].arguments):
                self.names[argument] = self.unique(f"{node.name}.{name}.in{i}")
            outputs = [self.unique(f"{node.name}.{name}.out{i}") for i in range(len(dialect.outputs(region)))]
            body = self.graph(region, f"{node.name}.{name}", outputs)
            node.attribute.add(name=name, type=onnx.AttributeProto.GRAPH, g=body)
        results = dialect.onnx_results(op)
        for i, value in enumerate(results):
            if value is not None and value not in self.names:
                self.names[value] = self.unique(node.name if len(results) == 1 else f"{node.name}.{i}")
        node.output.extend(_stripped(["" if v is None else self.names[v] for v in results]))
        if not spec.domain:
            inputs = [_element(v) for v in dialect.onnx_operands(op)][: len(node.input)]
            elements = [_element(v) for v in results][: len(node.output)]
            stated = {a.name: a for a in node.attribute}
            for name in ("to", "dtype", "output_dtype"):  # says the type where inference has not run
                if name in stated:
                    elements[0] = ONNX_TYPE_BY_CODE.get(stated[name].i, elements[0])
            self.opset = max(self.opset, onnx_versions.required_opset(spec.op_type, stated, inputs, elements))
        for value in results:
            if value is not None and isinstance(value.type, ir.RankedTensorType):
                self.declare(graph.value_info.add(name=self.names[value]), value.type)

    def unique(self, name: str) -> str:
        """`name`, or one made from it that no value has."""
        return _unique(name, self.taken)

    # Tensors

    def initializer(self, name: str, source: WeightSource) -> str:
        """The name of the initializer of that weight; the first use adds it."""
        if name not in self.initializers:
            if name in self.taken:
                return self.constant(name, source)
            self.taken.add(name)
            self.initializers[name] = self.tensor(source, name)
        return name

    def constant(self, name: str, value: WeightSource | np.ndarray | None) -> str:
        assert value is not None, f"{name} is a constant without a value"
        name = self.unique(name)
        self.initializers[name] = self.tensor(value, name)
        return name

    def tensor(self, value: WeightSource | np.ndarray, name: str = "") -> onnx.TensorProto:
        """A tensor with its data, or, where it is large and belongs to a file, with a place in the data file."""
        if isinstance(value, np.ndarray) and value.dtype == object:
            strings = [s.encode("utf-8", "surrogateescape") if isinstance(s, str) else s for s in value.ravel()]
            return onnx.TensorProto(name=name, data_type=types.STRING_CODE, dims=value.shape, string_data=strings)
        source = value if isinstance(value, WeightSource) else WeightSource.from_array(value)
        proto = onnx.TensorProto(name=name, data_type=source.onnx_type.code, dims=source.shape)
        if self.external_bytes is None or source.nbytes < self.external_bytes or source.onnx_type.narrow:
            proto.raw_data = to_onnx_bytes(source).tobytes()
            return proto
        offset = -(-self._end // _ALIGNMENT) * _ALIGNMENT
        self._end = offset + source.nbytes
        self.external.append((offset, source))
        proto.data_location = onnx.TensorProto.EXTERNAL
        for key, text in (("location", self.location), ("offset", str(offset)), ("length", str(source.nbytes))):
            proto.external_data.add(key=key, value=text)
        return proto

    def attribute(self, kind: str, name: str, value: object) -> onnx.AttributeProto:
        """An attribute of an ONNX kind from its plain Python value."""
        if kind == "tensor":
            return onnx.AttributeProto(name=name, type=onnx.AttributeProto.TENSOR, t=self.tensor(value))  # type: ignore[arg-type]
        if kind == "type_proto":
            proto = onnx.AttributeProto(name=name, type=onnx.AttributeProto.TYPE_PROTO)
            fill_type(proto.tp, value)
            return proto
        return onnx.helper.make_attribute(name, value, attr_type=getattr(onnx.AttributeProto, kind.upper()))

    def declare(self, proto: onnx.ValueInfoProto, t: ir.Type) -> None:
        """Write a value's type into its declaration; nothing where nothing is known."""
        proto.ClearField("type")
        if not types.is_unknown(t):
            fill_type(proto.type, t)


def _unique(name: str, taken: set[str]) -> str:
    """`name`, or one made from it that is not among `taken`, which gains it."""
    stem, count = name, 1
    while name in taken:
        name = f"{stem}_{count}"
        count += 1
    taken.add(name)
    return name


def _stripped(slots: list[Any]) -> list[Any]:
    """Without the empty slots at the end, which ONNX does not write."""
    while slots and not slots[-1]:
        slots = slots[:-1]
    return slots


def _element(value: ir.Value | None) -> OnnxType | None:
    try:
        return None if value is None else types.onnx_type_of(value)
    except ValueError:  # not a tensor, or not known
        return None


def fill_type(proto: onnx.TypeProto, t: ir.Type) -> None:
    """Write an `onnx`-dialect type into a TypeProto. Raises ValueError for a type that ONNX lacks."""
    text = str(t)
    for prefix, field in (("!onnx.Seq<", proto.sequence_type), ("!onnx.Opt<", proto.optional_type)):
        if text.startswith(prefix):
            inner = ir.Type.parse(text[len(prefix) : -1])
            field.SetInParent()
            if not types.is_unknown(inner):
                fill_type(field.elem_type, inner)
            return
    element = types.element_of(t)
    tensor = proto.tensor_type
    tensor.elem_type = types.STRING_CODE if element == types.STRING else types.onnx_type_of(element).code
    if not isinstance(t, ir.RankedTensorType):
        return
    tensor.shape.SetInParent()
    sizes = types.shape_of(t)
    for axis in range(t.rank):
        size = sizes[axis] if sizes is not None else None if t.is_dynamic_dim(axis) else t.get_dim_size(axis)
        dim = tensor.shape.dim.add()
        if isinstance(size, int):
            dim.dim_value = size
        elif size is not None:
            dim.dim_param = str(size)
