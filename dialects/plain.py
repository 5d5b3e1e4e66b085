"""Between the IR and plain data: attributes as Python values, scalar regions as `ingot.dispatch.ScalarRegion`.

Code that takes regions apart or joins them (fusion, the interpreter, dispatch extraction) reads them into plain data, works
there, and writes them back; nothing else needs to know how a region is spelled in MLIR.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ingot.dialects.ingot import NAME
from ingot.dialects.mlir import ir, type_text
from ingot.dispatch import Attr, ScalarInst, ScalarRegion

__all__ = ["attribute", "attributes", "create_root", "read_regions", "to_attribute", "write_region"]

_PREFIX = len(NAME) + 1
_INST_ATTRS = {"index": "axis", "dim": "dim", "const": "value"}


def attribute(attr: ir.Attribute) -> Any:
    """The Python value of an attribute: bool, int, float, str (also for types), or a tuple of these; a unit is True.

    Raises:
        ValueError: the attribute is of another kind.
    """
    reader = _READERS.get(type(attr))
    if reader is None:
        raise ValueError(f"attribute {attr} is not plain data")
    return reader(attr)


_READERS: dict[type, Callable[[Any], Any]] = {
    **dict.fromkeys((ir.BoolAttr, ir.IntegerAttr, ir.FloatAttr, ir.StringAttr), lambda attr: attr.value),
    ir.UnitAttr: lambda attr: True,
    ir.TypeAttr: lambda attr: type_text(attr.value),
    ir.ArrayAttr: lambda attr: tuple(map(attribute, attr)),
    **dict.fromkeys((ir.DenseI64ArrayAttr, ir.DenseI32ArrayAttr, ir.DenseBoolArrayAttr), tuple),
}


def attributes(op: ir.Operation) -> dict[str, Any]:
    """The attributes of an operation as Python values, sorted by name."""
    found = op.attributes
    return {name: attribute(found[name]) for name in sorted(found)}


def to_attribute(value: Attr) -> ir.Attribute:
    """The attribute of a Python value: bool, int (i64), float (f64), str, or a tuple or list of these.

    Integers become a dense array, so that equal lists have one spelling.
    """
    if isinstance(value, bool):
        return ir.BoolAttr.get(value)
    if isinstance(value, int):
        return ir.IntegerAttr.get(ir.IntegerType.get_signless(64), value)
    if isinstance(value, float):
        return ir.FloatAttr.get(ir.F64Type.get(), value)
    if isinstance(value, str):
        return ir.StringAttr.get(value)
    if all(type(v) is int for v in value):
        return ir.DenseI64ArrayAttr.get(list(value))
    return ir.ArrayAttr.get([to_attribute(v) for v in value])


def read_regions(op: ir.Operation) -> tuple[list[ir.Value], tuple[ScalarRegion, ...]]:
    """The tensors that a root reads, its own operands first and then those its regions load, and its regions.

    `operand` attributes of `load` and `load_at` instructions number that list. An operand that occurs twice among the root's
    own keeps both places.
    """
    tensors = list(op.operands)
    numbers: dict[ir.Value, int] = {}
    for i, tensor in enumerate(tensors):
        numbers.setdefault(tensor, i)
    return tensors, tuple(_read_region(r, tensors, numbers) for r in op.regions)


def _read_region(region: ir.Region, tensors: list[ir.Value], numbers: dict[ir.Value, int]) -> ScalarRegion:
    block = region.blocks[0]
    values: dict[ir.Value, int] = {a: i for i, a in enumerate(block.arguments)}
    args = tuple(type_text(a.type) for a in block.arguments)
    insts: list[ScalarInst] = []
    results: tuple[int, ...] = ()
    for view in block.operations:
        op = view.operation
        name = op.name[_PREFIX:]
        operands = list(op.operands)
        if name == "yield":
            results = tuple(values[v] for v in operands)
            break
        attrs: tuple[tuple[str, Attr], ...] = ()
        if name in ("load", "load_at"):
            tensor = operands.pop(0)
            number = numbers.get(tensor)
            if number is None:
                number = numbers[tensor] = len(tensors)
                tensors.append(tensor)
            attrs = (("operand", number),)
        elif name in _INST_ATTRS:
            key = _INST_ATTRS[name]
            attrs = ((key, attribute(op.attributes[key])),)
        result = op.results[0]
        values[result] = len(args) + len(insts)
        insts.append(ScalarInst(name, tuple(values[v] for v in operands), type_text(result.type), attrs))
    return ScalarRegion(args, tuple(insts), results)


def write_region(target: ir.Region, region: ScalarRegion, tensors: Sequence[ir.Value], loc: ir.Location) -> None:
    """Give the empty region `target` one block that holds `region`, whose loads read `tensors`."""
    types: dict[str, ir.Type] = {}

    def type_of(name: str) -> ir.Type:
        found = types.get(name)
        if found is None:
            found = types[name] = ir.Type.parse(name)
        return found

    block = target.blocks.append(*(type_of(a) for a in region.args), arg_locs=[loc] * len(region.args))
    values: list[ir.Value] = list(block.arguments)
    create = ir.Operation.create
    with ir.InsertionPoint(block):
        for inst in region.insts:
            result = type_of(inst.type)
            operands = [values[a] for a in inst.args]
            attrs: dict[str, ir.Attribute] | None = None
            if inst.op in ("load", "load_at"):
                operands.insert(0, tensors[inst.attr("operand")])
            elif inst.op == "const":
                attrs = {"value": _const(inst.attr("value"), inst.type, result)}
            elif inst.op in _INST_ATTRS:
                key = _INST_ATTRS[inst.op]
                attrs = {key: to_attribute(inst.attr(key))}
            op = create(f"{NAME}.{inst.op}", results=[result], operands=operands, attributes=attrs, loc=loc)
            values.append(op.results[0])
        create(f"{NAME}.yield", operands=[values[r] for r in region.results], loc=loc)


def _const(value: Any, name: str, type_: ir.Type) -> ir.Attribute:
    if name.startswith("i"):
        return ir.BoolAttr.get(bool(value)) if name == "i1" else ir.IntegerAttr.get(type_, int(value))
    return ir.FloatAttr.get(type_, float(value))


def create_root(
    name: str,
    operands: Sequence[ir.Value],
    result_types: Sequence[ir.Type],
    attrs: Mapping[str, ir.Attribute],
    regions: Sequence[ScalarRegion],
    tensors: Sequence[ir.Value],
    *,
    loc: ir.Location,
    ip: ir.InsertionPoint,
) -> ir.Operation:
    """Create the root `name` (without the dialect's prefix) with `regions`, whose loads number `tensors`, at `ip`."""
    op = ir.Operation.create(
        f"{NAME}.{name}",
        results=list(result_types),
        operands=list(operands),
        attributes=dict(attrs),
        regions=len(regions),
        loc=loc,
        ip=ip,
    )
    for target, region in zip(op.regions, regions, strict=True):
        write_region(target, region, tensors, loc)
    return op
