"""Reads the textual IR that onnx-mlir emits with `--EmitONNXIR` (https://onnx.ai/onnx-mlir/Dialects/onnx.html).

That dialect has our dialect's name and another form: absent values are `onnx.NoValue`, constants and terminators have a syntax
of their own, superseded versions of operators are operators (`onnx.SqueezeV11`), and the graph is a `func.func`. The text is
parsed in a context that knows none of its operations, turned into an ONNX model, and imported like any other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

import numpy as np
import onnx

from ingot.compiler.exporter import fill_type
from ingot.compiler.importer import ImportedModel, import_model
from ingot.compiler.weights import WeightSource, to_onnx_bytes
from ingot.dialects.mlir import ir
from ingot.dialects.onnx import location_name
from ingot.dialects.onnx_types import onnx_type_of
from ingot.dtypes import onnx_numpy
from ingot.errors import ModelError

# `onnx.Constant dense<..> : T`, and `onnx.Return %a, %b : T, U`, alone on their lines; MLIR prints them so.
_CONSTANT = re.compile(
    r"= onnx\.Constant (?P<value>(?:dense|sparse|dense_resource)<.*?>) : (?P<type>[^:]*?)(?P<loc> loc\(.*\))?$", re.M
)
_TERMINATOR = re.compile(r"^(\s*)onnx\.(Return|Yield)(?: (?P<values>%[^:]*?) : (?P<types>.*?))?(?P<loc> loc\(.*\))?$", re.M)
# The suffix of an operator of a superseded version.
_VERSIONED = re.compile(r"(?P<op_type>\w+?)V(?P<opset>\d+)")
# Operators that onnx-mlir renames, and what they are in ONNX.
_RENAMED = {"MaxPoolSingleOut": "MaxPool", "BatchNormalizationInferenceMode": "BatchNormalization"}
_DIM = "Dim"  # onnx.Dim(x) {axis}: the size of one axis
_CUSTOM = "Custom"  # onnx.Custom(..) {function_name, domain_name}: an operator of another domain
_CUSTOM_OWN = frozenset({"function_name", "domain_name", "inputs_for_infer", "shape_infer_pattern", "output_element_type"})
_TERMINATORS = ("onnx.Return", "onnx.Yield", "func.return")


def read_onnx_mlir(text: str, context: ir.Context) -> ImportedModel:
    """Import onnx-mlir's IR.

    Args:
        text: a module with one graph; the function that `onnx.EntryPoint` names, or the first.
        context: has the `onnx` and `ingot` dialects loaded.

    Raises ModelError for text that does not parse, for elided constants, and for what the importer refuses.
    """
    foreign = ir.Context()
    foreign.enable_multithreading(False)
    foreign.allow_unregistered_dialects = True
    with foreign, ir.Location.unknown(foreign):
        try:
            module = ir.Module.parse(_generic(text))
        except ir.MLIRError as e:
            raise ModelError(f"is not IR of onnx-mlir: {e}", cure="emit it again with onnx-mlir --EmitONNXIR") from None
        model = _Converter().model(module)
    return import_model(model, context=context)


def _generic(text: str) -> str:
    """The text with onnx-mlir's own syntax in MLIR's generic form."""

    def terminator(m: re.Match[str]) -> str:
        return f'{m[1]}"onnx.{m[2]}"({m["values"] or ""}) : ({m["types"] or ""}) -> (){m["loc"] or ""}'

    text = _CONSTANT.sub(
        lambda m: f'= "onnx.Constant"() {{value = {m["value"]} : {m["type"]}}} : () -> {m["type"]}{m["loc"] or ""}', text
    )
    return _TERMINATOR.sub(terminator, text)


class _Converter:
    """Builds a ModelProto from a parsed module."""

    def __init__(self) -> None:
        self.names: dict[ir.Value, str] = {}
        self.functions: list[onnx.FunctionProto] = []
        self.domains = {""}

    def model(self, module: ir.Module) -> onnx.ModelProto:
        function = _main_function(module)
        attributes = function.attributes
        block = function.regions[0].blocks[0]
        graph = onnx.GraphProto(name=attributes["sym_name"].value)
        for i, (argument, name, params) in enumerate(
            zip(block.arguments, *_names(attributes, "arg_attrs", "input_names", len(block.arguments)), strict=True)
        ):
            self.names[argument] = name or f"input_{i}"
            declared = graph.input.add(name=self.names[argument])
            fill_type(declared.type, argument.type)
            for axis, dim in params.items():
                declared.type.tensor_type.shape.dim[axis].dim_param = dim
        results = list(_terminator(block).operands)
        outputs = [n or f"output_{i}" for i, n in enumerate(_names(attributes, "res_attrs", "output_names", len(results))[0])]
        self.fill(graph, block, outputs)
        newest = onnx.defs.onnx_opset_version()
        opsets = [onnx.helper.make_opsetid(d, newest if not d else 1) for d in sorted(self.domains)]
        return onnx.helper.make_model(graph, opset_imports=opsets, functions=self.functions)

    def fill(self, graph: onnx.GraphProto, block: ir.Block, outputs: list[str]) -> None:
        """Add a block's operations to a graph whose outputs are to have those names."""
        results = list(_terminator(block).operands)
        copied = []
        for name, value in zip(outputs, results, strict=True):
            owner = value.owner
            if value in self.names or isinstance(owner, ir.Block) or owner.operation.block != block:
                copied.append((name, value))
            else:
                self.names[value] = name
            fill_type(graph.output.add(name=name).type, value.type)
        for op in block.operations:
            if op.operation.name not in _TERMINATORS:
                self.operation(op.operation, graph)
        for name, value in copied:
            graph.node.add(op_type="Identity", input=[self.names[value]], output=[name])

    def operation(self, op: ir.Operation, graph: onnx.GraphProto) -> None:
        """Add an operation's node."""
        op_type = op.name.removeprefix("onnx.")
        if op_type == op.name:
            raise ModelError(f"{op.name} is not an operation of the onnx dialect", node=_node_name(op))
        if op_type == "NoValue":
            self.names[op.result] = ""
            return
        for result in op.results:
            if isinstance(result.type, ir.NoneType):
                self.names[result] = ""
            elif result not in self.names:
                self.names[result] = f"value_{len(self.names)}"
        node = onnx.NodeProto(op_type=_RENAMED.get(op_type, op_type), name=_node_name(op))
        node.input.extend(self.names[v] for v in op.operands)
        node.output.extend(self.names[v] for v in op.results)
        versioned = _VERSIONED.fullmatch(op_type)
        if versioned and onnx.defs.has(versioned["op_type"]):
            node.op_type = versioned["op_type"]
        if op_type == _CUSTOM:
            node.op_type = op.attributes["function_name"].value
            node.domain = op.attributes["domain_name"].value if "domain_name" in op.attributes else "com.microsoft"
            self.domains.add(node.domain)
        if op_type == _DIM:
            node.op_type = "Shape"
            axis = op.attributes["axis"].value
            node.attribute.append(onnx.helper.make_attribute("start", axis))
            node.attribute.append(onnx.helper.make_attribute("end", axis + 1))
        else:
            self.attributes(op, node)
        self.regions(op, node)
        if versioned:
            node = self.as_function(node, int(versioned["opset"]))
        graph.node.append(node)
        for result in op.results:
            if self.names[result] and isinstance(result.type, ir.RankedTensorType):
                fill_type(graph.value_info.add(name=self.names[result]).type, result.type)

    def attributes(self, op: ir.Operation, node: onnx.NodeProto) -> None:
        """Add an operation's attributes to its node, properties among them."""
        own = _CUSTOM_OWN if op.name == f"onnx.{_CUSTOM}" else frozenset()
        stored = op.attributes
        # An unregistered operation finds its properties by name and does not list them.
        names = [*dict(stored.items()), *(n for n in _attribute_names(node.op_type) if n in stored)]
        for name in dict.fromkeys(names):
            if name != "onnx_node_name" and name not in own and "." not in name:
                node.attribute.append(_attribute(name, stored[name], node.name))

    def regions(self, op: ir.Operation, node: onnx.NodeProto) -> None:
        """Add an operation's regions as subgraphs."""
        spec_regions = {"If": ("then_branch", "else_branch")}.get(node.op_type, ("body",))
        for name, region in zip(spec_regions, op.regions, strict=False):
            block = region.blocks[0]
            graph = onnx.GraphProto(name=f"{node.name}.{name}")
            for argument in block.arguments:
                self.names[argument] = f"value_{len(self.names)}"
                fill_type(graph.input.add(name=self.names[argument]).type, argument.type)
            outputs = [f"value_{len(self.names)}_{i}" for i in range(len(_terminator(block).operands))]
            self.fill(graph, block, outputs)
            node.attribute.append(onnx.helper.make_attribute(name, graph))

    def as_function(self, node: onnx.NodeProto, opset: int) -> onnx.NodeProto:
        """A call of a local function that holds the node at its own opset: a model has one opset for all of its nodes."""
        name = f"{node.op_type}_{len(self.functions)}"
        domain = f"onnx-mlir.v{opset}"
        inner = onnx.NodeProto()
        inner.CopyFrom(node)
        inner.name = f"v{opset}"
        inner.input[:] = [f"i{i}" if v else "" for i, v in enumerate(node.input)]
        inner.output[:] = [f"o{i}" if v else "" for i, v in enumerate(node.output)]
        formals = [f"i{i}" for i in range(len(node.input))], [f"o{i}" for i in range(len(node.output))]
        self.functions.append(onnx.helper.make_function(domain, name, *formals, [inner], [onnx.helper.make_opsetid("", opset)]))
        self.domains.add(domain)
        return onnx.NodeProto(op_type=name, domain=domain, name=node.name, input=node.input, output=node.output)


def _main_function(module: ir.Module) -> ir.Operation:
    functions = {}
    entry = None
    for op in module.body.operations:
        if op.operation.name == "func.func":
            functions[op.operation.attributes["sym_name"].value] = op.operation
        elif op.operation.name == "onnx.EntryPoint":
            entry = op.operation.attributes["func"].value
    if not functions:
        raise ModelError("the module has no function", cure="emit it again with onnx-mlir --EmitONNXIR")
    return functions.get(entry) or next(iter(functions.values()))


def _names(
    attributes: ir.OpAttributeMap, dictionaries: str, names: str, count: int
) -> tuple[list[str | None], list[dict[int, str]]]:
    """Names of a function's arguments or results, and names of their dimensions by axis."""
    found: list[str | None] = [None] * count
    params: list[dict[int, str]] = [{} for _ in range(count)]
    if names in attributes:
        found = [n.value for n in attributes[names]]
    if dictionaries in attributes:
        for i, dictionary in enumerate(attributes[dictionaries]):
            if "onnx.name" in dictionary:
                found[i] = dictionary["onnx.name"].value
            if "onnx.dim_params" in dictionary:
                for item in filter(None, dictionary["onnx.dim_params"].value.split(",")):
                    axis, _, name = item.partition(":")
                    params[i][int(axis)] = name
    return found, params


def _terminator(block: ir.Block) -> ir.Operation:
    last = list(block.operations)[-1].operation
    if last.name not in _TERMINATORS:
        raise ModelError(f"a graph ends in {last.name}", cure="emit the IR again with onnx-mlir --EmitONNXIR")
    return last


def _node_name(op: ir.Operation) -> str:
    if "onnx_node_name" in op.attributes:
        return op.attributes["onnx_node_name"].value
    return location_name(op.location) or ""


@cache
def _attribute_names(op_type: str) -> tuple[str, ...]:
    """The attributes that any version of an operator has."""
    schemas = [s for s in onnx.defs.get_all_schemas_with_history() if s.name == op_type and not s.domain]
    return tuple(sorted({name for s in schemas for name in s.attributes}))


def _attribute(name: str, value: ir.Attribute, node: str) -> onnx.AttributeProto:
    """An attribute as onnx-mlir spells it: `1 : si64`, `[1, 2]`, `dense<..>`, a type where ONNX has a type's number."""
    match value:
        case ir.IntegerAttr() | ir.FloatAttr() | ir.StringAttr():
            return onnx.helper.make_attribute(name, value.value)
        case ir.DenseI64ArrayAttr() | ir.DenseF32ArrayAttr():
            return onnx.helper.make_attribute(name, list(value), attr_type=_list_kind(value))
        case ir.ArrayAttr():
            return onnx.helper.make_attribute(name, [v.value for v in value], attr_type=_list_kind(value))
        case ir.TypeAttr():
            return onnx.helper.make_attribute(name, onnx_type_of(str(value.value)).code)
        case ir.DenseElementsAttr():
            return onnx.helper.make_attribute(name, _tensor(value))
    if str(value).startswith("dense_resource"):
        raise ModelError(
            f"attribute {name!r} is a resource, or elided",
            node=node,
            cure="emit the IR with all constants in it: onnx-mlir --EmitONNXIR --mlir-elide-elementsattrs-if-larger=<large>",
        )
    raise ModelError(f"attribute {name!r} is {value}, which has no equivalent in ONNX", node=node)


def _list_kind(values: Iterable) -> int:
    kinds = {int: onnx.AttributeProto.INTS, float: onnx.AttributeProto.FLOATS, str: onnx.AttributeProto.STRINGS}
    first = next(iter(values), 0)
    return kinds[type(getattr(first, "value", first))]


def _tensor(value: ir.DenseElementsAttr) -> onnx.TensorProto:
    t = ir.RankedTensorType(value.type)
    onnx_type = onnx_type_of(t)
    try:
        array = np.array(value)
        readable = array.dtype == onnx_numpy(onnx_type)
    except (TypeError, ValueError):
        readable = False
    if not readable:
        # The bindings do not give bf16, float8 and 4-bit elements; their decimals are exact in wider types.
        wide = "i8" if onnx_type.storage == "i4" else "f32"
        text = str(value).replace(f"x{t.element_type}>", f"x{wide}>").replace(f"tensor<{t.element_type}>", f"tensor<{wide}>")
        array = np.array(ir.Attribute.parse(text)).astype(onnx_numpy(onnx_type))
    source = WeightSource.from_array(array)
    return onnx.TensorProto(data_type=onnx_type.code, dims=t.shape, raw_data=to_onnx_bytes(source).tobytes())
