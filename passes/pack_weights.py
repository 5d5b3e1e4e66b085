"""Weights in the order in which a target's instructions take them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from ingot import dims
from ingot.cuda_targets import target as cuda_target
from ingot.dialects import ingot as dialect
from ingot.dialects.layout import layout_of
from ingot.dialects.mlir import ir, operation_key
from ingot.dialects.plain import attribute, create_root, to_attribute
from ingot.dims import Dim
from ingot.dispatch import ScalarInst, ScalarRegion
from ingot.dtypes import DTYPES
from ingot.passes.pass_base import Pass, PassContext
from ingot.passes.rewriting import views
from ingot.passes.rewriting.ops import Root, defining, erase_dead, readers, replace_root
from ingot.passes.rewriting.ops import replace as replace_op
from ingot.strided_view import StridedView
from ingot.target import Target
from ingot.weight_packing import AXES, STAGE_K, STEP_K, TILE_COLUMNS, packed_order, split_shape

_LEAST_BLOCK = 2 * STEP_K  # k that share a scale: a lane's two instructions
_TMA_AXES = 5
_ALIGNMENT = 16  # bytes that lines of the other operand are a multiple of: those of a copy, and TMA's


@dataclass(frozen=True, kw_only=True)
class PackWeights(Pass):
    """Pack the quantized weights of products with 16-bit activations as `ingot.weight_packing` says, where the target's tensor
    cores multiply those and its kernels decode such weights in the registers from which mma.sync or wgmma takes them
    (`Target.packs`).

    The function `packing`, which the pass appends to the weights program, computes the packed weights from those that the
    engine has; the device runs it once, when they have been uploaded. The products read what it gives, under names of their
    own, and have the attribute `b_packed`. A weight stays as it is where anything else reads it too, where it has no whole
    tiles, or where lines of the other operand are not of 16 bytes each, as copies (TMA's among them) want them.

    A choice of the machine that runs an engine: the pass belongs to the JIT's pipeline, after buffers were planned.

    Attributes:
        target: name of the GPU's target. DeviceError for one that there is not.
    """

    name: ClassVar[str] = "ingot-pack-weights"
    target: str = "sm_90a"

    def run(self, module: ir.Module, ctx: PassContext) -> None:
        machine = cuda_target(self.target)
        reads: dict[str, list[ir.Operation]] = {}
        for block in dialect.blocks(dialect.main_func(module)):
            for view in block.operations:
                if view.operation.name == "ingot.weight":
                    reads.setdefault(str(attribute(view.operation.attributes["name"])), []).append(view.operation)
        wanted = {name: products for name, ops in reads.items() if (products := _products(ops, machine))}
        if not wanted:
            return
        names = set(reads)
        end = _empty_program(module)
        for name, products in wanted.items():
            new = next(n for i in range(len(names) + 1) if (n := f"{name}#packed{i or ''}") not in names)
            names.add(new)
            weight = reads[name][0].results[0]
            size_k, size_n = dialect.shape_of(products[0].operands[1])
            _append_packing(weight, size_n, size_k, new, end)
            for op in products:
                _read_packed(op, weight.type, new)
                ctx.changed("packed")


def _products(weights: Iterable[ir.Operation], target: Target) -> list[ir.Operation]:
    """The products that read a weight, given by its operations; none where one of its readers does not take it packed."""
    found: dict[int, ir.Operation] = {}
    for weight in weights:
        for op in readers(weight.results[0]):
            if not _takes_packed(op, weight.results[0], target):
                return []
            found[operation_key(op)] = op
    shapes = {dialect.shape_of(op.operands[1]) for op in found.values()}
    return list(found.values()) if len(shapes) == 1 else []


def _takes_packed(op: ir.Operation, weight: ir.Value, target: Target) -> bool:
    """True for a product of 16-bit floats that the target multiplies and the weight, which lies [n, k], whole tiles of it."""
    if op.name != "ingot.matmul" or attribute(op.attributes["acc"]) != "f32":
        return False
    if dialect.dtype_of(op.operands[0]) not in target.halves or dialect.dtype_of(weight) not in target.packs:
        return False
    if sum(v == op.operands[1] for v in Root.read(op).tensors) != 1:
        return False
    shape = dialect.shape_of(op.operands[1])
    if len(shape) != 2 or dims.product(shape) != dims.product(dialect.shape_of(weight)):
        return False
    k, n = shape
    if n % TILE_COLUMNS != 0 or k % STAGE_K != 0 or layout_of(op.operands[1]) != (weight, StridedView((k, n), (1, k))):
        return False
    block = attribute(op.attributes["b_block"]) if "b_block" in op.attributes else 0
    # Blocks and stages divide one another.
    suits = block % _LEAST_BLOCK == 0 and (block % STAGE_K == 0 or STAGE_K % block == 0)
    return suits and _has_lines(op.operands[0])


def _has_lines(a: ir.Value) -> bool:
    """True where lines along k are contiguous and begin at multiples of 16 bytes, whatever the sizes turn out to be, and have
    no more axes than a tensor map."""
    layout = layout_of(a)
    if layout is None or (len(layout[1].shape) > _TMA_AXES - 1 and layout[1] != StridedView.contiguous(layout[1].shape)):
        return False
    strides, offset = layout[1].strides, layout[1].offset
    elements = _ALIGNMENT * 8 // DTYPES[dialect.dtype_of(a)].bits
    return strides[-1] == 1 and all(dims.multiple_of(s) % elements == 0 for s in (*strides[:-1], offset))


def _empty_program(module: ir.Module) -> ir.Operation:
    """The `return` of a new function, before which packings go."""
    none = ir.ArrayAttr.get([])
    attrs = {"sym_name": to_attribute(dialect.PACKING_FUNC), "inputs": none, "input_types": none}
    loc = ir.Location.unknown()
    func = ir.Operation.create("ingot.func", attributes=attrs, regions=1, loc=loc, ip=ir.InsertionPoint(module.body))
    block = func.regions[0].blocks.append()
    return ir.Operation.create("ingot.return", loc=loc, ip=ir.InsertionPoint(block))


def _append_packing(weight: ir.Value, n: Dim, k: Dim, name: str, end: ir.Operation) -> None:
    """Let the program compute the packed bytes of a weight [n, k] as `name`."""
    assert isinstance(n, int), n  # weights have constant sizes
    assert isinstance(k, int), k
    loc, ip = weight.owner.operation.location, ir.InsertionPoint(end)
    bits = DTYPES[dialect.dtype_of(weight)].bits
    shape, order = split_shape(n, k, bits), packed_order(bits)
    stored = dialect.tensor_type("i8", (n, k * bits // 8))  # bytes, whatever the elements are
    attrs = {"name": weight.owner.operation.attributes["name"]}
    source = ir.Operation.create("ingot.weight", results=[stored], attributes=attrs, loc=loc, ip=ip).results[0]
    if bits == 4:
        result = _pack_nibbles(source, shape, order, end)
    else:
        split = views.transpose(views.reshape(source, shape, end), order, end)
        region = ScalarRegion(("i8",), (), (0,))
        kind = dialect.tensor_type("i8", dialect.shape_of(split))
        result = create_root("move", [split], [kind], {}, [region], [split], loc=loc, ip=ip).results[0]
    attrs = {"name": to_attribute(name), "type": to_attribute("int8")}
    ir.Operation.create("ingot.output", operands=[result], attributes=attrs, loc=loc, ip=ip)


def _pack_nibbles(source: ir.Value, shape: tuple[int, ...], order: tuple[int, ...], end: ir.Operation) -> ir.Value:
    """Elements of 4 bits in packed order: a byte of the result has nibbles of two bytes, of both of a lane's columns."""
    column, neighbour = AXES.index("column"), AXES.index("neighbour")
    whole = views.reshape(source, shape[:-1], end)  # bytes hold neighbours
    halves = []
    for i in range(shape[column]):
        starts = [i if axis == column else 0 for axis in range(len(shape) - 1)]
        sizes = tuple(1 if axis == column else d for axis, d in enumerate(shape[:-1]))
        part = views.slice_(whole, starts, [1] * len(sizes), sizes, end)
        part = views.reshape(part, (*sizes[:column], *sizes[column + 1 :], 1), end)
        kept = [axis for axis in range(len(shape)) if axis != column]
        halves.append(views.transpose(part, [kept.index(axis) for axis in order[:-1]], end))
    domain = tuple(shape[axis] for axis in order[:-1])
    region = ScalarRegion((), (
        ScalarInst("load", (), "i8", (("operand", 0),)),
        ScalarInst("load", (), "i8", (("operand", 1),)),
        ScalarInst("index", (), "i64", (("axis", order.index(neighbour)),)),
        ScalarInst("trunci", (2,), "i8"),
        ScalarInst("const", (), "i8", (("value", 4),)),
        ScalarInst("muli", (3, 4), "i8"),  # bits below the neighbour's
        ScalarInst("const", (), "i8", (("value", 15),)),
        ScalarInst("shrui", (0, 5), "i8"),
        ScalarInst("andi", (7, 6), "i8"),
        ScalarInst("shrui", (1, 5), "i8"),
        ScalarInst("shli", (9, 4), "i8"),
        ScalarInst("ori", (8, 10), "i8"),
    ), (11,))  # fmt: skip
    kind = dialect.tensor_type("i8", domain)
    loc, ip = source.owner.operation.location, ir.InsertionPoint(end)
    return create_root("pointwise", [], [kind], {}, [region], halves, loc=loc, ip=ip).results[0]


def _read_packed(op: ir.Operation, kind: ir.Type, name: str) -> None:
    """Let a product read the packed weight `name`."""
    root, ip = Root.read(op), ir.InsertionPoint(op)
    attrs = {"name": to_attribute(name)}
    weight = ir.Operation.create("ingot.weight", results=[kind], attributes=attrs, loc=op.location, ip=ip).results[0]
    k, n = dialect.shape_of(op.operands[1])
    b = views.transpose(views.reshape(weight, (n, k), op), [1, 0], op)
    old = defining(op.operands[1])
    tensors = [root.tensors[0], b, *root.tensors[2:]]
    operands = [op.operands[0], b, *list(op.operands)[2:]]
    kept = {**{a: op.attributes[a] for a in op.attributes}, "b_packed": ir.UnitAttr.get()}
    new = replace_root(root, operands=operands, tensors=tensors, attrs=kept)
    replace_op(op, new.results)
    if old is not None:
        erase_dead(old)
