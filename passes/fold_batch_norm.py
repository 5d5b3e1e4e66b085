"""Batch normalization, and any other affine map of channels, folded into the weights that come before it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Set
from dataclasses import dataclass, field
from typing import ClassVar

from ingot.dialects import ingot as dialect
from ingot.dialects.mlir import ir
from ingot.dialects.plain import create_root
from ingot.dialects.scalar_table import TABLE
from ingot.dims import Dim
from ingot.dispatch import ScalarInst
from ingot.passes.pass_base import Pass, PassContext
from ingot.passes.rewriting import views
from ingot.passes.rewriting.ops import (
    Root,
    defining,
    erase_all_dead,
    operand_number,
    readers,
    replace,
    replace_root,
    roots,
    users,
)
from ingot.passes.rewriting.scalar_regions import RegionBuilder


@dataclass(frozen=True, kw_only=True)
class FoldBatchNorm(Pass):
    """Where a convolution or product with a weight is scaled and shifted channel by channel, by weights, scale the weight
    instead: what is left is the addition of one derived bias.

    Runs after `ingot-layout`, when channels are last. The scaled weight and the bias are pointwise operations over weights,
    which `ingot-fold-constants` moves into the weights program.
    """

    name: ClassVar[str] = "ingot-fold-batch-norm"

    def run(self, module: ir.Module, ctx: PassContext) -> None:
        blocks = dialect.blocks(dialect.main_func(module))
        # A weight that another block reads too would stay in memory unscaled.
        counts = Counter(name for block in blocks for name in _weights_read(block))
        shared = {name for name, count in counts.items() if count > 1}
        for block in blocks:
            for op in roots(block):
                if op.name == "ingot.pointwise" and len(op.results) == 1 and _fold(op, shared):
                    ctx.changed("folded")
            erase_all_dead(block)


def _weights_read(block: ir.Block) -> set[str]:
    """The names of the weights that a block reads by itself."""
    return {op.operation.attributes["name"].value for op in block.operations if op.operation.name == "ingot.weight"}


@dataclass(frozen=True)
class _Value:
    """scale * x + shift, where x is the product's element; without `scale` it does not depend on x.

    Both are values of the coefficients' builder.
    """

    shift: int
    scale: int | None = None


class _NotAffine(Exception):
    """A value is no affine function of the product's element with coefficients made of weights."""


@dataclass
class _Decomposition:
    """A pointwise operation as scale * x + shift; coefficients are programs over one axis, the channels."""

    channels: Dim
    before: ir.Operation
    builder: RegionBuilder = field(default_factory=RegionBuilder)
    tensors: list[ir.Value] = field(default_factory=list)
    product: ir.Operation | None = None

    def value_of(self, op: ir.Operation) -> _Value:
        """What a pointwise operation yields. Raises _NotAffine."""
        root = Root.read(op)
        (region,) = root.regions
        values: list[_Value] = []
        for inst in region.insts:
            if inst.type != "f32":
                raise _NotAffine
            if inst.op == "load":
                values.append(self._load(root, root.tensors[inst.attr("operand")]))
            elif inst.op == "const":
                values.append(_Value(self.builder.const(inst.attr("value"), "f32")))
            else:
                values.append(self._combined(inst, [values[a] for a in inst.args]))
        return values[region.results[0]]

    def _load(self, root: Root, tensor: ir.Value) -> _Value:
        shape = dialect.shape_of(tensor)
        owner = defining(tensor)
        if owner is not None and shape == root.domain and owner.name in ("ingot.conv", "ingot.matmul", "ingot.pointwise"):
            if len(owner.results) != 1 or users(tensor) != [root.op]:
                raise _NotAffine
            if owner.name == "ingot.pointwise":
                return self.value_of(owner)
            if not Root.read(owner).regions[0].is_identity or (self.product is not None and self.product != owner):
                raise _NotAffine
            self.product = owner
            return _Value(self.builder.const(0.0, "f32"), self.builder.const(1.0, "f32"))
        wide = [d for d in shape if d != 1]
        if _weight(tensor) is None or wide not in ([], [self.channels]) or (wide and shape[-1] == 1):
            raise _NotAffine
        flat = views.reshape(tensor, (self.channels,) if wide else (1,), self.before)
        return _Value(self.builder.emit("load", type="f32", operand=operand_number(self.tensors, flat)))

    def _combined(self, inst: ScalarInst, args: list[_Value]) -> _Value:
        emit = self.builder.emit
        if inst.op not in TABLE or not TABLE[inst.op].exact:
            raise _NotAffine
        if all(a.scale is None for a in args):
            return _Value(emit(inst.op, *(a.shift for a in args), type="f32"))
        if inst.op == "negf":
            return self._scaled(args[0], lambda v: emit("negf", v))
        x, y = args if len(args) == 2 else (None, None)
        if x is None or y is None or (x.scale is not None and y.scale is not None):
            raise _NotAffine
        match inst.op:
            case "addf" | "subf" if y.scale is None:
                return _Value(emit(inst.op, x.shift, y.shift), x.scale)
            case "addf":
                return _Value(emit("addf", x.shift, y.shift), y.scale)
            case "subf":
                assert y.scale is not None
                return _Value(emit("subf", x.shift, y.shift), emit("negf", y.scale))
            case "mulf":
                factor, scaled = (y.shift, x) if y.scale is None else (x.shift, y)
                return self._scaled(scaled, lambda v: emit("mulf", v, factor))
            case "divf" if y.scale is None:
                return self._scaled(x, lambda v: emit("divf", v, y.shift))
        raise _NotAffine

    @staticmethod
    def _scaled(x: _Value, f: Callable[[int], int]) -> _Value:
        assert x.scale is not None
        return _Value(f(x.shift), f(x.scale))


def _weight(tensor: ir.Value) -> ir.Operation | None:
    """The weight that a tensor is a view of."""
    op = defining(tensor)
    while op is not None and op.name in dialect.VIEWS:
        op = defining(op.operands[0])
    return op if op is not None and op.name == "ingot.weight" else None


def _fold(op: ir.Operation, shared: Set[str]) -> bool:
    """Fold a pointwise operation into the product before it, unless its weight is one of the names `shared`; whether it did."""
    domain = dialect.shape_of(op.results[0])
    if not domain or dialect.dtype_of(op.results[0]) != "f32":
        return False
    parts = _Decomposition(domain[-1], op)
    try:
        value = parts.value_of(op)
    except _NotAffine:
        return False
    if parts.product is None or value.scale is None:
        return False
    product = Root.read(parts.product)
    weight = product.op.operands[1]
    scale = parts.builder.finish([value.scale])
    source = _weight(weight)
    if not any(i.op == "load" for i in scale.insts) or source is None or dialect.dtype_of(weight) != "f32":
        return False
    if readers(source.results[0]) != [product.op] or source.attributes["name"].value in shared:
        return False  # another reader would keep the unscaled weight in memory
    # Which axis of the weight is the channels': the last of a product's and of a transposed convolution's, else the first.
    shape = dialect.shape_of(weight)
    transposed = "transposed" in product.op.attributes
    if transposed and product.attr("groups") != 1:
        return False
    last = product.name == "matmul" or transposed
    aligned = [weight]
    for tensor in parts.tensors:
        (size,) = dialect.shape_of(tensor)
        aligned.append(views.reshape(tensor, (size,) if last else (size, *(1,) * (len(shape) - 1)), op))
    builder = RegionBuilder()
    element = builder.emit("load", type="f32", operand=0)
    (factor,) = builder.inline(scale, operands={i: i + 1 for i in range(len(parts.tensors))})
    region = builder.finish([builder.emit("mulf", element, factor)])
    ip = ir.InsertionPoint(op)
    scaled = create_root("pointwise", [], [weight.type], {}, [region], aligned, loc=op.location, ip=ip).results[0]
    tensors = [product.op.operands[0], scaled, *product.tensors[2:]]
    new = replace_root(product, operands=tensors[:2], tensors=tensors, before=op).results[0]
    if parts.builder.constant(value.shift) == 0.0:
        replace(op, [new])
        return True
    size = domain[-1]
    bias = create_root("pointwise", [], [dialect.tensor_type("f32", (size,))], {}, [parts.builder.finish([value.shift])],
                       parts.tensors, loc=op.location, ip=ip).results[0]  # fmt: skip
    sum_ = RegionBuilder()
    loads = [sum_.emit("load", type="f32", operand=i) for i in range(2)]
    region = sum_.finish([sum_.emit("addf", *loads)])
    replace(op, create_root("pointwise", [], [op.results[0].type], {}, [region], [new, bias], loc=op.location, ip=ip).results)
    return True
