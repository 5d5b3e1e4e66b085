"""An ONNX model as plain nodes in one form: newest operator versions, local functions inlined, nodes in order, all checked.

This is the importer's first half and needs no MLIR. Whatever makes a model unusable is collected over all of its nodes, so that
one error names them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from ingot.compiler.onnx_file import ModelFile
from ingot.compiler.onnx_functions import dependent_body, function_body
from ingot.compiler.own_functions import own_function
from ingot.compiler.weights import WeightSource
from ingot.dialects.onnx_schema import Operator, lookup
from ingot.dtypes import ONNX_TYPE_BY_CODE, OnnxType
from ingot.errors import ModelError

OLDEST_OPSET = 7
_MAX_FUNCTION_DEPTH = 64
# How many problems an error spells out.
_SHOWN_PROBLEMS = 20

_KIND = onnx.AttributeProto


@dataclass(slots=True)
class Node:
    """A node whose attribute values are plain Python, `WeightSource` (tensors), `Graph` (subgraphs) or `onnx.TypeProto`.

    Attributes:
        inputs, outputs: value names, "" for absent ones.
    """

    op_type: str
    domain: str
    name: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]
    spec: Operator = field(default=None)  # type: ignore[assignment]


@dataclass
class Graph:
    """A graph or subgraph.

    Attributes:
        proto: for declared types.
        inputs: name and declaration of each input that is not an initializer.
        outputs: names of the values that are its outputs.
        initializers: tensors by name; arrays of objects where they hold strings.
        nodes: in an order in which they can run.
    """

    proto: onnx.GraphProto
    inputs: dict[str, onnx.ValueInfoProto]
    outputs: list[str]
    initializers: dict[str, WeightSource | np.ndarray]
    nodes: list[Node] = field(default_factory=list)


class UpgradeError(Exception):
    """A node of an old opset that has no equivalent among the newest operators. The message says why."""


class Normalizer:
    """Turns the graph of a model file into `Graph`, collecting problems.

    Args:
        file: the model.
        decompose: whether an operator of ai.onnx that ONNX defines by a function is to be replaced by the function's body.
        constants: values of inputs of the main graph, which become initializers.
    """

    def __init__(
        self,
        file: ModelFile,
        decompose: Callable[[str], bool] = lambda op_type: False,
        constants: Mapping[str, WeightSource] = MappingProxyType({}),
    ) -> None:
        self.file = file
        self.decompose = decompose
        self.constants = constants
        self.functions = {(f.domain, f.name, f.overload): f for f in file.model.functions}
        self.problems: list[str] = []
        self._names = 0
        self._element_types: dict[str, OnnxType] = {}
        self._producers: dict[str, Node] = {}

    def run(self) -> Graph:
        """The model's main graph. Raises ModelError naming every node that cannot be imported."""
        where = self.file.path.name if self.file.path else "model"
        if any(o.domain in ("", "ai.onnx") and o.version < OLDEST_OPSET for o in self.file.model.opset_import):
            self.file = self._converted(where)
        model = self.file.model
        opsets = self._opsets(model.opset_import, where)
        graph = self.graph(model.graph, opsets, lambda name: name, frozenset(), self.constants)
        if self.problems:
            shown = self.problems[:_SHOWN_PROBLEMS]
            if len(self.problems) > len(shown):
                shown.append(f"and {len(self.problems) - len(shown)} more")
            raise ModelError(
                f"{len(self.problems)} of the model's nodes cannot be imported:\n  " + "\n  ".join(shown),
                cure="re-export the model with standard ONNX operators, or correct the nodes",
            )
        return graph

    def _converted(self, where: str) -> ModelFile:
        """The model at OLDEST_OPSET, by ONNX's own converter: opset 7 is where broadcasting became numpy's."""
        file = self.file
        try:
            model = file.model if file.data is None else onnx.ModelProto.FromString(file.data.tobytes())
            converted = onnx.version_converter.convert_version(model, OLDEST_OPSET)
            _align_slopes(converted.graph)
            return ModelFile(converted, file.path)
        except (onnx.version_converter.ConvertError, DecodeError, RuntimeError) as e:
            reason = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
            raise ModelError(
                f"the model is older than opset {OLDEST_OPSET}, and onnx.version_converter cannot convert it: {reason}",
                node=where,
                cure=f"export it again with opset {OLDEST_OPSET} or newer",
            ) from None

    def _opsets(self, imports: Iterable[onnx.OperatorSetIdProto], where: str) -> dict[str, int]:
        opsets = {("" if o.domain == "ai.onnx" else o.domain): o.version for o in imports}
        version = opsets.setdefault("", 1 if not opsets else onnx.defs.onnx_opset_version())
        newest = onnx.defs.onnx_opset_version()
        if version < OLDEST_OPSET:
            raise ModelError(
                f"the model uses opset {version}; Ingot reads {OLDEST_OPSET} to {newest}",
                node=where,
                cure=f"convert it: onnx.version_converter.convert_version(model, {newest})",
            )
        if version > newest:
            raise ModelError(
                f"the model uses opset {version}; the installed onnx package knows {newest}",
                node=where,
                cure="update the onnx package, or export with an older opset",
            )
        return opsets

    def fresh(self, stem: str) -> str:
        """A value name that no model uses: exporters do not write tildes."""
        self._names += 1
        return f"{stem}~{self._names}"

    def element_type(self, value: str) -> OnnxType | None:
        """A value's element type: as declared, inferred by ONNX, or passed on by operators that keep their input's type."""
        start = value
        while value not in self._element_types:
            node = self._producers.get(value)
            if node is None or not node.inputs or not node.spec.keeps_type or value != node.outputs[0]:
                inferred = self._inferred.get(start)
                return ONNX_TYPE_BY_CODE.get(inferred.elem_type) if inferred else None
            value = node.inputs[0]
        self._element_types[start] = self._element_types[value]
        return self._element_types[value]

    def rank(self, value: str) -> int | None:
        """The rank of a value as ONNX's own shape inference finds it, or None."""
        inferred = self._inferred.get(value)
        return len(inferred.shape.dim) if inferred is not None and inferred.HasField("shape") else None

    @cached_property
    def _inferred(self) -> Mapping[str, onnx.TypeProto.Tensor]:
        """Tensor types from ONNX's shape inference over the main graph; only upgrades of old nodes ask for them."""
        try:
            graph = onnx.shape_inference.infer_shapes(self.file.model).graph
        except (onnx.shape_inference.InferenceError, ValueError):  # types are then as declared
            graph = self.file.model.graph
        values = (*graph.input, *graph.value_info, *graph.output)
        return {v.name: v.type.tensor_type for v in values if v.type.HasField("tensor_type")}

    # Graphs

    def graph(
        self,
        proto: onnx.GraphProto,
        opsets: Mapping[str, int],
        rename: Callable[[str], str],
        outer: frozenset[str],
        constants: Mapping[str, WeightSource] = MappingProxyType({}),
    ) -> Graph:
        """A graph or subgraph. `rename` maps its names (inlined functions), `outer` are the names it may capture, `constants`
        further initializers."""
        initializers = {rename(t.name): self._tensor(t) for t in proto.initializer} | dict(constants)
        for sparse in proto.sparse_initializer:
            initializers[rename(sparse.values.name)] = self.densify(sparse)
        graph = Graph(
            proto,
            {name: v for v in proto.input if (name := rename(v.name)) not in initializers},
            [rename(o.name) for o in proto.output],
            initializers,
        )
        known = {*initializers, *graph.inputs}
        for name, tensor in initializers.items():
            if isinstance(tensor, WeightSource):
                self._element_types[name] = tensor.onnx_type
        for v in (*proto.input, *proto.value_info):
            onnx_type = ONNX_TYPE_BY_CODE.get(v.type.tensor_type.elem_type)
            if onnx_type is not None:
                self._element_types[rename(v.name)] = onnx_type
        self._add_nodes(graph, proto.node, opsets, rename, {}, outer, known)
        for name in graph.outputs:
            if name not in known and name not in outer:
                self.problems.append(f"output {name!r} of graph {proto.name!r} is not computed by any node")
        return graph

    def _add_nodes(
        self,
        graph: Graph,
        protos: Sequence[onnx.NodeProto],
        opsets: Mapping[str, int],
        rename: Callable[[str], str],
        arguments: Mapping[str, onnx.AttributeProto],
        outer: frozenset[str],
        known: set[str],
        prefix: str = "",
        depth: int = 0,
    ) -> None:
        """Append nodes to `graph`. `known` are the names defined in it so far; `arguments` a function call's attributes."""
        for index, proto in self._in_order(protos, rename, known, outer, graph.proto.name):
            name = prefix + (proto.name or f"{proto.op_type}_{index}")
            domain = "" if proto.domain == "ai.onnx" else proto.domain
            node = Node(
                proto.op_type,
                domain,
                name,
                [rename(i) if i else "" for i in proto.input],
                [rename(o) if o else "" for o in proto.output],
                {},
            )
            for output in node.outputs:
                if output and (output in known or output in outer):
                    self.problems.append(f"{name}: value {output!r} is defined a second time")
            function = self.functions.get((proto.domain, proto.op_type, proto.overload))
            if function is None and self.decompose(f"{domain}.{proto.op_type}" if domain else proto.op_type):
                function = self._defined(proto, node, opsets)
            if function is not None:
                self._inline(graph, proto, node, function, arguments, outer, known, depth)
                known.update(filter(None, node.outputs))
                continue
            inner = outer | known if any(a.type == _KIND.GRAPH for a in proto.attribute) else outer
            for a in proto.attribute:
                value = arguments.get(a.ref_attr_name) if a.ref_attr_name else a
                if value is not None:
                    node.attributes[a.name] = self._value(value, opsets, rename, inner, name)
            known.update(filter(None, node.outputs))
            graph.nodes += self._normalized(node, opsets)

    def _defined(self, proto: onnx.NodeProto, node: Node, opsets: Mapping[str, int]) -> onnx.FunctionProto | None:
        """The function by which ONNX defines a node, or Ingot computes it; or None."""
        if node.domain not in opsets:
            return None
        if not node.domain and (own := own_function(proto)) is not None:
            return own
        if not node.domain and (body := function_body(proto.op_type, opsets[""])) is not None:
            return body
        types = []
        for name in node.inputs:
            types.append(onnx.TypeProto())
            if name and (inferred := self._inferred.get(name)) is not None:
                types[-1].tensor_type.CopyFrom(inferred)
            elif name and (element := self.element_type(name)) is not None:
                types[-1].tensor_type.elem_type = element.code
            elif name:
                return None  # a sequence, whose bodies ONNX writes only from whole types: it crashes without
        body = dependent_body(proto, node.domain, opsets[node.domain], types)
        if body is not None and not any(i.domain == "" for i in body.opset_import) and "" in opsets:
            body.opset_import.append(onnx.OperatorSetIdProto(domain="", version=opsets[""]))
        return body

    def _normalized(self, node: Node, opsets: Mapping[str, int]) -> list[Node]:
        """The node at the newest version, checked; nothing where it has a problem."""
        from ingot.compiler.onnx_upgrade import upgrade

        if node.domain not in opsets:
            self.problems.append(f"{node.name}: domain {node.domain!r} is not among the model's opset imports")
            return []
        if lookup(node.domain, node.op_type) is None:
            where = f"of domain {node.domain!r}" if node.domain else f"of ONNX opset {opsets['']}"
            self.problems.append(f"{node.name}: {node.op_type} {where} is not an operator that Ingot knows")
            return []
        try:
            nodes = upgrade(node, opsets[node.domain], self)
        except UpgradeError as e:
            self.problems.append(f"{node.name}: {node.op_type} of opset {opsets[node.domain]}: {e}")
            return []
        kept = []
        for n in nodes:
            spec = lookup(n.domain, n.op_type)
            assert spec is not None, f"{node.op_type} was upgraded to {n.op_type}, which has no schema"
            n.spec = spec
            while n.inputs and not n.inputs[-1]:
                n.inputs.pop()
            while n.outputs and not n.outputs[-1]:
                n.outputs.pop()
            kept += self._nested(n) if len(n.inputs) > spec.max_inputs else [n]
            self._producers.update(dict.fromkeys(n.outputs, n))
            if spec.deprecated and not n.domain:
                self.problems.append(f"{n.name}: {n.op_type} was withdrawn in opset {spec.version}")
                continue
            fault = spec.find_fault(len(n.inputs), len(n.outputs), n.attributes) or self._kind_fault(n)
            if fault:
                self.problems.append(f"{n.name}: {fault}")
        return kept

    def _kind_fault(self, node: Node) -> str | None:
        for name, value in node.attributes.items():
            attribute = node.spec.attributes.get(name)
            if attribute is not None and not _has_kind(value, attribute.kind):
                return f"attribute '{name}' is expected to have field of kind {attribute.kind.upper()}, but is {value!r}"
        for formal, value in zip(node.spec.inputs, node.inputs, strict=False):
            if formal.kind == "single" and not value:
                return f"input '{formal.name}' is marked single but has an empty string in the graph"
        return None

    def _nested(self, node: Node) -> list[Node]:
        """An associative operator with more inputs than slots as a tree; the caller reports what cannot be nested."""
        slots = node.spec.max_inputs
        if node.op_type not in ("Concat", "Max", "Min", "Sum") or node.domain:
            return [node]
        parts = []
        while len(node.inputs) > slots:
            chunks = [node.inputs[i : i + slots] for i in range(0, len(node.inputs), slots)]
            names = [self.fresh(node.outputs[0]) for _ in chunks]
            parts += [
                replace(node, inputs=chunk, outputs=[name], attributes=dict(node.attributes), name=f"{node.name}.{i}")
                for i, (chunk, name) in enumerate(zip(chunks, names, strict=True))
            ]
            node.inputs = names
        return [*parts, node]

    def _in_order(
        self, protos: Sequence[onnx.NodeProto], rename: Callable[[str], str], known: set[str], outer: frozenset[str], where: str
    ) -> Iterator[tuple[int, onnx.NodeProto]]:
        """The nodes, each after those it reads from; ONNX demands that order of files, and not every exporter keeps it."""
        produced = {rename(o) for p in protos for o in p.output if o}
        waiting = list(enumerate(protos))
        while waiting:
            later = []
            for index, proto in waiting:
                missing = [n for n in map(rename, _reads(proto)) if n not in known and n not in outer]
                if not missing:
                    yield index, proto
                    continue
                undefined = [n for n in missing if n not in produced]
                if undefined:
                    self.problems.append(
                        f"{proto.name or f'{proto.op_type}_{index}'}: input {undefined[0]!r} is neither an input of the graph, "
                        "nor an initializer, nor the output of a node"
                    )
                    known.update(filter(None, map(rename, proto.output)))
                else:
                    later.append((index, proto))
            if len(later) == len(waiting):
                names = [p.name or f"{p.op_type}_{i}" for i, p in later]
                self.problems.append(f"graph {where!r} has a cycle through {', '.join(names[:5])}")
                return
            waiting = later

    # Attributes

    def _value(
        self,
        a: onnx.AttributeProto,
        opsets: Mapping[str, int],
        rename: Callable[[str], str],
        outer: frozenset[str],
        node: str,
    ) -> Any:
        match a.type:
            case _KIND.INT:
                return a.i
            case _KIND.FLOAT:
                return a.f
            case _KIND.STRING:
                return a.s.decode("utf-8", "surrogateescape")
            case _KIND.INTS:
                return list(a.ints)
            case _KIND.FLOATS:
                return list(a.floats)
            case _KIND.STRINGS:
                return [s.decode("utf-8", "surrogateescape") for s in a.strings]
            case _KIND.TENSOR:
                return self._tensor(a.t, node)
            case _KIND.SPARSE_TENSOR:
                return self.densify(a.sparse_tensor)
            case _KIND.GRAPH:
                return self.graph(a.g, opsets, rename, outer)
            case _KIND.TYPE_PROTO:
                return a.tp
        kind = _KIND.AttributeType.Name(a.type) if a.type in _KIND.AttributeType.values() else a.type
        raise ModelError(f"attribute {a.name!r} is of kind {kind}", node=node, cure="re-export the model")

    def _tensor(self, tensor: onnx.TensorProto, node: str | None = None) -> WeightSource | np.ndarray:
        if tensor.data_type == onnx.TensorProto.STRING:
            return np.array(list(tensor.string_data), dtype=object).reshape(list(tensor.dims))
        return self.file.source(tensor, node)

    def densify(self, sparse: onnx.SparseTensorProto) -> WeightSource:
        """A sparse tensor's dense equivalent."""
        values, indices = self.file.source(sparse.values), self.file.source(sparse.indices).array()
        dense = np.zeros(list(sparse.dims), values.array().dtype)
        if indices.ndim == 1:
            dense.reshape(-1)[indices] = values.array()
        else:
            dense[tuple(indices.T)] = values.array()
        return WeightSource.from_array(dense)

    # Functions

    def _inline(
        self,
        graph: Graph,
        call: onnx.NodeProto,
        node: Node,
        function: onnx.FunctionProto,
        arguments: Mapping[str, onnx.AttributeProto],
        outer: frozenset[str],
        known: set[str],
        depth: int,
    ) -> None:
        """Append the function's body, with its inputs, outputs and attributes bound to the call's."""
        if depth >= _MAX_FUNCTION_DEPTH:
            raise ModelError(f"function {function.name!r} calls itself", node=node.name, cure="re-export the model")
        if len(node.inputs) > len(function.input) or len(node.outputs) > len(function.output):
            self.problems.append(
                f"{node.name}: has {len(node.inputs)} inputs and {len(node.outputs)} outputs, but function {function.name} has "
                f"{len(function.input)} and {len(function.output)}"
            )
            return
        bound = {"": ""}
        bound.update(dict.fromkeys(function.input, ""))
        bound.update(zip(function.input, node.inputs, strict=False))
        bound.update((f, o) for f, o in zip(function.output, node.outputs, strict=False) if o and f not in bound)
        bound_attributes = {a.name: a for a in function.attribute_proto}
        for a in call.attribute:
            value = arguments.get(a.ref_attr_name) if a.ref_attr_name else a
            if value is not None:
                bound_attributes[a.name] = value

        def rename(name: str) -> str:
            if name not in bound:
                bound[name] = self.fresh(f"{node.name}/{name}")
            return bound[name]

        opsets = self._opsets(function.opset_import, node.name)
        # An output that is an input of the function, passed through: the names are bound to different values.
        passed = [(f, o) for f, o in zip(function.output, node.outputs, strict=False) if o and bound[f] != o]
        self._add_nodes(graph, function.node, opsets, rename, bound_attributes, outer, known, f"{node.name}/", depth + 1)
        for formal, output in passed:
            graph.nodes += self._normalized(Node("Identity", "", node.name, [bound[formal]], [output], {}), opsets)


def _align_slopes(graph: onnx.GraphProto) -> None:
    """Let the slopes of each PRelu be aligned with axis 1, as before opset 7: the converter leaves them as they are."""
    sizes = {t.name: tuple(t.dims) for t in graph.initializer}
    shapes = {v.name: v.type.tensor_type.shape.dim for v in (*graph.input, *graph.value_info, *graph.output)}
    sizes |= {n: tuple(d.dim_value for d in dim) for n, dim in shapes.items() if n not in sizes}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        rank = len(sizes.get(node.input[0], ())) if node.input else 0
        slope = sizes.get(node.input[1], ()) if len(node.input) > 1 else ()
        if node.op_type == "PRelu" and len(slope) == 1 and slope != (1,) and rank > 2:
            aligned = f"{node.input[1]}~{len(nodes)}"
            nodes.append(onnx.helper.make_node("Unsqueeze", [node.input[1]], [aligned], axes=list(range(1, rank - 1))))
            node.input[1] = aligned
        nodes.append(node)
    if len(nodes) > len(graph.node):
        copied = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
        del graph.node[:]
        graph.node.extend(copied)


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Names that a node reads, its subgraphs' captures included."""
    yield from filter(None, node.input)
    for a in node.attribute:
        if a.type == _KIND.GRAPH:
            yield from _captures(a.g)


def _captures(graph: onnx.GraphProto) -> set[str]:
    own = {v.name for v in graph.input} | {t.name for t in graph.initializer}
    own |= {s.values.name for s in graph.sparse_initializer} | {o for n in graph.node for o in n.output}
    read = {name for n in graph.node for name in _reads(n)} | {o.name for o in graph.output}
    return read - own


_PYTHON: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (float,),
    "string": (str,),
    "ints": (list,),
    "floats": (list,),
    "strings": (list,),
    "tensor": (WeightSource, np.ndarray),
    "sparse_tensor": (WeightSource,),
    "type_proto": (onnx.TypeProto,),
}


def _has_kind(value: Any, kind: str) -> bool:
    return isinstance(value, _PYTHON.get(kind, ()))
