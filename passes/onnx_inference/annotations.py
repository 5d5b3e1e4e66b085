"""What inference leaves on operations for later passes: known elements, and guards.

- `ingot.values`: for each result its elements in row-major order, or a unit where they are not known. Shape expressions are
  strings, floats and bools are attributes of their kind.
- `ingot.guards`: conditions to check at run time, each `[left, relation, right, message]`.
- `ingot.definitions`: symbols of sizes that depend on numbers read at run time, each `[symbol, size]`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ingot import dims
from ingot.dialects.mlir import ir
from ingot.dims import Dim
from ingot.passes.onnx_inference.facts import Guard
from ingot.passes.onnx_inference.tensors import Tensor, object_array

VALUES, GUARDS, DEFINITIONS = "ingot.values", "ingot.guards", "ingot.definitions"


def write_values(op: ir.Operation, tensors: Sequence[Tensor]) -> None:
    """Record the elements of the results, where any are known."""
    if any(t.is_known for t in tensors):
        op.attributes[VALUES] = ir.ArrayAttr.get([_elements(t) if t.is_known else ir.UnitAttr.get() for t in tensors])


def _elements(tensor: Tensor) -> ir.Attribute:
    assert tensor.value is not None
    return ir.ArrayAttr.get([_element(e) for e in tensor.value.ravel().tolist()])


def _element(e: Any) -> ir.Attribute:
    if isinstance(e, bool):
        return ir.BoolAttr.get(e)
    if isinstance(e, float):
        return ir.FloatAttr.get(ir.F64Type.get(), e)
    return ir.StringAttr.get(str(e))


def read_values(op: ir.Operation) -> list[list[Any] | None]:
    """The elements of each result, or None."""
    if VALUES not in op.attributes:
        return [None] * len(op.results)
    return [None if isinstance(a, ir.UnitAttr) else [_read_element(e) for e in a] for a in op.attributes[VALUES]]


def _read_element(a: ir.Attribute) -> Any:
    return dims.parse(a.value) if isinstance(a, ir.StringAttr) else a.value


def write_guards(op: ir.Operation, guards: Iterable[Guard]) -> None:
    """Record guards."""
    rows = [[str(g.left), g.relation, str(g.right), g.message] for g in guards]
    op.attributes[GUARDS] = ir.ArrayAttr.get([ir.ArrayAttr.get([ir.StringAttr.get(t) for t in row]) for row in rows])


def read_guards(op: ir.Operation) -> list[Guard]:
    """The guards of an operation."""
    if GUARDS not in op.attributes:
        return []
    rows = [[a.value for a in row] for row in op.attributes[GUARDS]]
    return [Guard(dims.parse(left), relation, dims.parse(right), message) for left, relation, right, message in rows]


def write_definitions(op: ir.Operation, definitions: Mapping[str, Dim]) -> None:
    """Record what symbols stand for."""
    rows = [[name, str(d)] for name, d in definitions.items()]
    op.attributes[DEFINITIONS] = ir.ArrayAttr.get([ir.ArrayAttr.get([ir.StringAttr.get(t) for t in row]) for row in rows])


def read_definitions(op: ir.Operation) -> dict[str, Dim]:
    """The symbols that an operation defines, and what they stand for."""
    if DEFINITIONS not in op.attributes:
        return {}
    rows = [[a.value for a in row] for row in op.attributes[DEFINITIONS]]
    return {name: dims.parse(d) for name, d in rows}


def forget_guards(block: ir.Block) -> None:
    """Remove the guards and definitions of a block's operations, those of their regions included."""
    for view in block.operations:
        op = view.operation
        for name in (GUARDS, DEFINITIONS):
            if name in op.attributes:
                del op.attributes[name]
        for region in op.regions:
            for inner in region.blocks:
                forget_guards(inner)


def read_tensor(value: ir.Value) -> Tensor:
    """What inference recorded of a value. Raises ValueError where its type is not inferred."""
    from ingot.dialects import onnx
    from ingot.dialects.onnx_types import onnx_type_of, shape_of
    from ingot.passes.onnx_inference import reads
    from ingot.passes.onnx_inference.constants import of_array

    owner = value.owner
    if not isinstance(owner, ir.Block) and owner.operation.name == onnx.CONSTANT:
        array = onnx.constant_value(value)
        if array is not None:
            return of_array(array)
    shape = shape_of(value)
    if shape is None:
        raise ValueError(f"{value.type} is not an inferred tensor type: run ingot-infer-shapes first")
    elements = None
    if not isinstance(owner, ir.Block):
        read = reads.read_reads(owner.operation)[ir.OpResult(value).result_number]
        if read:
            return reads.with_elements(Tensor(onnx_type_of(value), shape), read)
        found = read_values(owner.operation)[ir.OpResult(value).result_number]
        if found is not None:
            elements = object_array(found, [int(d) for d in shape])  # type: ignore[arg-type]
    return Tensor(onnx_type_of(value), shape, elements)


def node_label(op: ir.Operation) -> str:
    """The name of the ONNX node, or the place of the operation in its file, or its own name."""
    from ingot.dialects import onnx
    from ingot.passes.diagnostics import node_name

    name = onnx.node_name(op)
    return name if name != op.name else node_name(op) or name
