"""The `onnx` dialect: one operation an ONNX operator, named as ONNX does, generated from schemas at load time.

`onnx.Conv`, `onnx.com.microsoft.QuickGelu`: newest signature each; `ingot.dialects.onnx_schema` holds the rows. Besides them:

- `onnx.Graph`: isolated; the main graph. Block arguments are the inputs; attributes `sym_name`, `input_names`.
- `onnx.Output`(value) {name, type}: an output of a graph or of a subgraph, in order, before the terminator. In the main graph
  it has ONNX's name and the declared type.
- `onnx.Return`: terminator of graphs and of the regions of If, Loop, Scan and SequenceMap, which capture outer values.
- `onnx.Weight`() {name}: a tensor of the weight store beside the module. Small tensors are `onnx.Constant`.

Absent optional inputs and outputs take no operand or result: an operation with two slots or more that may be empty says in
`operandSegmentSizes` (`resultSegmentSizes`) which are filled, and a variadic is 64 such slots (128 for control flow), because
IRDL gives all operands of a variadic one type. `create` fills them in, `operands` and `results` read them.

There are no Python classes for operations: match by name, build with `create`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ingot.dialects import onnx_attributes as attributes
from ingot.dialects.mlir import ext, ir, irdl, reserve_dialect_module
from ingot.dialects.onnx_schema import Operator, operators

NAME = "onnx"
GRAPH, OUTPUT, RETURN, WEIGHT, CONSTANT = "onnx.Graph", "onnx.Output", "onnx.Return", "onnx.Weight", "onnx.Constant"

_PREFIX = len(NAME) + 1
_SEGMENTS = frozenset({"operandSegmentSizes", "resultSegmentSizes"})
# Attributes that the dialect's own operations must have, and the classes of their values.
_STRUCTURE: Mapping[str, Mapping[str, type]] = {
    GRAPH: {"sym_name": ir.StringAttr, "input_names": ir.ArrayAttr},
    OUTPUT: {},
    RETURN: {},
    WEIGHT: {"name": ir.StringAttr},
}


# Loading --------------------------------------------------------------------------------------------------------------


def load() -> None:
    """Load the dialect into the current context, once."""
    if ir.Context.current.is_dialect_loaded(NAME):
        return
    reserve_dialect_module(NAME)
    table = operators()
    with ir.Location.unknown():
        # Built, not parsed: parsing verifies, and IRDL's verifier refuses the upper case and the dots that loading accepts.
        irdl.load_dialects(_irdl_module(table.values()))
    for op in table.values():
        name = f"{NAME}.{op.name}"
        if not op.random:
            ext.Pure.attach(name)
        _Invariants.attach(name)
    for name in _STRUCTURE:
        _Invariants.attach(name)
    ext.Pure.attach(WEIGHT)
    ir.IsTerminatorTrait.attach(RETURN)
    ir.IsIsolatedFromAboveTrait.attach(GRAPH)


def _irdl_module(table: Iterable[Operator]) -> ir.Module:
    module = ir.Module.create()
    with ir.InsertionPoint(module.body):
        dialect = irdl.dialect(NAME)
    with ir.InsertionPoint(dialect.body):
        for name, parameters in (("String", 0), ("Unknown", 0), ("Seq", 1), ("Opt", 1)):
            with ir.InsertionPoint(irdl.type_(name).body):
                irdl.parameters([irdl.any() for _ in range(parameters)], ["element"] * parameters)
        for op in table:
            _declare(
                op.name,
                _slot_names([f.name for f in op.inputs], op.operand_slots),
                _slot_names([f.name for f in op.outputs], op.result_slots),
                op.regions,
            )
        _declare("Graph", {}, {}, ("body",))
        _declare("Output", {"value": False}, {}, ())
        _declare("Return", {}, {}, ())
        _declare("Weight", {}, {"output": False}, ())
    return module


def _slot_names(formals: Sequence[str], slots: Sequence[bool]) -> dict[str, bool]:
    """Slot names to whether the slot may be empty; the slots of a variadic are numbered."""
    single = formals if len(formals) == len(slots) else formals[:-1]
    names = [*single, *(f"{formals[-1]}_{i}" for i in range(len(slots) - len(single)))]
    return dict(zip(names, slots, strict=True))


def _declare(name: str, operands: Mapping[str, bool], results: Mapping[str, bool], regions: Sequence[str]) -> None:
    with ir.InsertionPoint(irdl.operation_(name).body):
        for declare, slots in ((irdl.operands_, operands), (irdl.results_, results)):
            if slots:
                # A constraint of its own for each: one constraint is one type.
                kinds = [irdl.Variadicity.optional if empty else irdl.Variadicity.single for empty in slots.values()]
                declare([irdl.any() for _ in slots], list(slots), kinds)
        if regions:
            irdl.regions_([irdl.region([]) for _ in regions], list(regions))


# Verification ---------------------------------------------------------------------------------------------------------


class _Invariants(ir.DynamicOpTrait):
    """Checks attributes against the operator's schema; MLIR runs it when parsing and verifying."""

    @staticmethod
    def verify_invariants(op: ir.OpView) -> bool:
        operation = op.operation
        message = find_fault(operation)
        if message is None:
            return True
        operation.location.emit_error(f"{operation.name[_PREFIX:]} {node_name(operation)!r}: {message}")
        return False


def find_fault(op: ir.Operation) -> str | None:
    """What is wrong with the attributes of `op`, in ONNX's words, or None."""
    name = op.name
    if name in _STRUCTURE:
        for attribute, cls in _STRUCTURE[name].items():
            if attribute not in op.attributes or not isinstance(op.attributes[attribute], cls):
                return f"required attribute '{attribute}' is missing or has another type"
        return None
    spec = spec_of(op)
    present = set()
    for attribute, value in op.attributes.items():
        formal = spec.attributes.get(attribute)
        if formal is None:
            if attribute in _SEGMENTS or "." in attribute:
                continue
            return f"unrecognized attribute: {attribute} for operator {spec.op_type}"
        if not attributes.has_kind(value, formal.kind):
            return f"attribute '{attribute}' is expected to have field of kind {formal.kind.upper()}, but is {value}"
        present.add(attribute)
    for attribute in spec.required_attributes:
        if attribute not in present:
            return f"required attribute '{attribute}' is missing"
    return None


# Building -------------------------------------------------------------------------------------------------------------


def create(
    op_type: str,
    operands: Sequence[ir.Value | None],
    values: Mapping[str, Any],
    result_types: Sequence[ir.Type | None],
    *,
    loc: ir.Location | None = None,
    ip: ir.InsertionPoint | None = None,
) -> ir.Operation:
    """Build `onnx.<op_type>`, at the current insertion point unless `ip` is given.

    Args:
        op_type: operator name, with its domain unless that is ai.onnx: `Conv`, `com.microsoft.QuickGelu`.
        operands: in the schema's order, None for an absent one; trailing ones may be left out.
        values: attributes as plain Python values (numpy arrays for tensors) or MLIR attributes; None leaves one out.
        result_types: in the schema's order, None for an absent one; trailing ones may be left out.
    Raises ValueError for an unknown operator and for attributes or counts that its schema refuses.
    """
    spec = operators().get(op_type)
    if spec is None:
        raise ValueError(f"{op_type!r} is not an operator of the onnx dialect")
    stated = {name: v for name, v in values.items() if v is not None}
    fault = spec.find_fault(_count(operands), _count(result_types), {**stated, **dict.fromkeys(spec.regions)})
    if fault:
        raise ValueError(f"{op_type} {fault}")
    return build(spec, operands, stated, result_types, loc=loc, ip=ip)


def build(
    spec: Operator,
    operands: Sequence[ir.Value | None],
    values: Mapping[str, Any],
    result_types: Sequence[ir.Type | None],
    *,
    loc: ir.Location | None = None,
    ip: ir.InsertionPoint | None = None,
) -> ir.Operation:
    """`create` without its checks, for callers that have made them."""
    attrs = {name: attributes.to_mlir(spec.attributes[name].kind, v) for name, v in values.items()}
    if spec.operand_segments:
        attrs["operandSegmentSizes"] = _segments(operands, spec.max_inputs)
    if spec.result_segments:
        attrs["resultSegmentSizes"] = _segments(result_types, spec.max_outputs)
    return ir.Operation.create(
        f"{NAME}.{spec.name}",
        [t for t in result_types if t is not None],
        [v for v in operands if v is not None],
        attrs,
        regions=len(spec.regions),
        loc=loc,
        ip=ip,
    )


def _count(slots: Sequence[Any]) -> int:
    """The number of parameters that ONNX counts: up to the last one present."""
    return max((i + 1 for i, s in enumerate(slots) if s is not None), default=0)


def _segments(present: Sequence[Any], slots: int) -> ir.Attribute:
    sizes = [0 if p is None else 1 for p in present]
    return ir.DenseI32ArrayAttr.get(sizes + [0] * (slots - len(sizes)))


def weight(name: str, result_type: ir.Type, *, loc: ir.Location | None = None, ip: ir.InsertionPoint | None = None) -> ir.Value:
    """Build `onnx.Weight`: the tensor `name` of the weight store."""
    return ir.Operation.create(WEIGHT, [result_type], [], {"name": ir.StringAttr.get(name)}, loc=loc, ip=ip).result


def constant(array: np.ndarray, *, loc: ir.Location | None = None, ip: ir.InsertionPoint | None = None) -> ir.Value:
    """Build `onnx.Constant` for a small array of a type that the bindings can read back (not bf16, float8, 4-bit)."""
    value = attributes.dense(array)
    element = ir.Type.parse(attributes.element_of_numpy(array.dtype))
    t = ir.RankedTensorType.get(list(array.shape), element)
    return ir.Operation.create(CONSTANT, [t], [], {"value": value}, loc=loc, ip=ip).result


# Reading --------------------------------------------------------------------------------------------------------------


def is_onnx(op: ir.Operation) -> bool:
    """Whether `op` is an operator of ONNX: not another dialect's operation, nor Graph, Output, Return or Weight."""
    name = op.name
    return name.startswith("onnx.") and name not in _STRUCTURE


def op_type(op: ir.Operation) -> str:
    """The operator's name, with its domain unless that is ai.onnx: `Conv`, `com.microsoft.QuickGelu`."""
    return op.name[_PREFIX:]


def spec_of(op: ir.Operation) -> Operator:
    """The schema of an operator. Raises KeyError for other operations."""
    return operators()[op.name[_PREFIX:]]


def onnx_operands(op: ir.Operation) -> list[ir.Value | None]:
    """The inputs in the schema's order, None for an absent one, a variadic's flattened at the end.

    The list is as long as the schema's list of inputs, except that a variadic adds what it holds.
    """
    return _by_slot(op, list(op.operands), "operand")


def onnx_results(op: ir.Operation) -> list[ir.Value | None]:
    """The outputs in the schema's order, None for an absent one, a variadic's flattened at the end."""
    return _by_slot(op, list(op.results), "result")


def _by_slot(op: ir.Operation, present: list[ir.Value], kind: str) -> list[ir.Value | None]:
    spec = spec_of(op)
    segmented, formals = (spec.operand_segments, spec.inputs) if kind == "operand" else (spec.result_segments, spec.outputs)
    if not segmented:
        return [*present, *[None] * (len(formals) - len(present))]
    if len(formals) == 1:
        return list(present)
    fixed = len(formals) - (formals[-1].kind == "variadic")
    sizes = list(op.attributes[f"{kind}SegmentSizes"])[:fixed]
    values = iter(present)
    return [*(next(values) if size else None for size in sizes), *values]


def op_input(op: ir.Operation, name: str) -> ir.Value | None:
    """The input of that formal name, or None where it is absent. Raises KeyError for a name the schema lacks."""
    index = spec_of(op).input_index[name]
    return onnx_operands(op)[index]


def attr(op: ir.Operation, name: str) -> Any:
    """An attribute as a plain Python value: the schema's default where it is absent, None where there is none.

    Tensors are numpy arrays. Raises KeyError for a name that the schema lacks.
    """
    stored = op.attributes
    if name in stored:
        return attributes.to_python(stored[name])
    return spec_of(op).attributes[name].default


def constant_value(value: ir.Value) -> np.ndarray | None:
    """The array of a value that an `onnx.Constant` defines, else None; weights are read from the weight store."""
    owner = value.owner
    if isinstance(owner, ir.Block) or owner.name != CONSTANT:
        return None
    return attributes.to_python(owner.attributes["value"])


def weight_name(value: ir.Value) -> str | None:
    """The name of the weight that an `onnx.Weight` reads, else None."""
    owner = value.owner
    if isinstance(owner, ir.Block) or owner.name != WEIGHT:
        return None
    return owner.attributes["name"].value


def main_graph(module: ir.Module | ir.Operation) -> ir.Operation:
    """The module's `onnx.Graph`. Raises ValueError where there is none."""
    body = module.body if isinstance(module, ir.Module) else module.regions[0].blocks[0]
    for op in body.operations:
        if op.operation.name == GRAPH:
            return op.operation
    raise ValueError("the module has no onnx.Graph")


def outputs(region: ir.Region) -> list[ir.Operation]:
    """The `onnx.Output` operations of a graph's or subgraph's region, in order."""
    return [op.operation for op in region.blocks[0].operations if op.operation.name == OUTPUT]


def node_name(op: ir.Operation) -> str:
    """The ONNX node's name from the operation's location, or the operation's name where the location has none."""
    return location_name(op.location) or op.name


def location_name(loc: ir.Location) -> str | None:
    """The node's name in a location, or None; of fused locations the first that has one."""
    if isinstance(loc, ir.NameLoc):
        return location_name(loc.child_loc) or loc.name_str
    if isinstance(loc, ir.FusedLoc):
        return next(filter(None, map(location_name, loc.locations)), None)
    if isinstance(loc, ir.CallSiteLoc):
        return location_name(loc.callee)
    return None
