"""Scales and shifts by weights that follow each other, as one of each."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import ClassVar

from ingot.dialects import ingot as dialect
from ingot.dialects.mlir import ir
from ingot.dialects.plain import create_root
from ingot.dialects.scalar_table import TABLE
from ingot.dispatch import ScalarInst, ScalarRegion
from ingot.passes.fold_constants import constant_values
from ingot.passes.pass_base import Pass, PassContext
from ingot.passes.rewriting.ops import Root, erase_all_dead, operand_number, replace, replace_root, roots
from ingot.passes.rewriting.scalar_regions import RegionBuilder


@dataclass(frozen=True, kw_only=True)
class FoldAffine(Pass):
    """Where what a normalization gives is scaled, or shifted, by weights more than once, let one derived scale and one derived
    shift do it.

    Exporters write a group normalization as an instance normalization over groups, with a scale and a shift of each group, and
    a scale and a shift of each channel. Runs after `ingot-fuse`; the derived weights are pointwise operations over weights,
    which `ingot-fold-constants` moves into the weights program.
    """

    name: ClassVar[str] = "ingot-fold-affine"

    def run(self, module: ir.Module, ctx: PassContext) -> None:
        for block in dialect.blocks(dialect.main_func(module)):
            constant = constant_values(block)
            for op in roots(block):
                if op.name == "ingot.normalize" and _fold(Root.read(op), constant):
                    ctx.changed("folded")
            erase_all_dead(block)


@dataclass(frozen=True)
class _Affine:
    """scale * x + shift, where x is what the root gives (None: 1, and 0); `steps` multiplications and additions made it."""

    scale: int | None = None
    shift: int | None = None
    steps: int = 0


class _Chain:
    """The values of a region that are made of weights alone, or are affine in its argument with coefficients that are.

    Attributes:
        values: of each value of the region, the coefficient (a value of `builder`), or the affine function, or None.
        tensors: what the coefficients load.
    """

    def __init__(self, region: ScalarRegion, tensors: list[ir.Value], constant: Set[ir.Value]) -> None:
        self.builder = RegionBuilder()
        self.tensors: list[ir.Value] = []
        self.values: list[int | _Affine | None] = [_Affine()]
        for inst in region.insts:
            self.values.append(self._value(inst, tensors, constant))

    def _value(self, inst: ScalarInst, tensors: list[ir.Value], constant: Set[ir.Value]) -> int | _Affine | None:
        emit = self.builder.emit
        if inst.op == "const":
            return self.builder.const(inst.attr("value"), inst.type)
        if inst.op == "load":
            tensor = tensors[inst.attr("operand")]
            if tensor not in constant:
                return None
            return emit("load", type=inst.type, operand=operand_number(self.tensors, tensor))
        if inst.op not in TABLE or not TABLE[inst.op].exact:
            return None
        args = [self.values[a] for a in inst.args]
        if all(isinstance(a, int) for a in args):
            return emit(inst.op, *(a for a in args if isinstance(a, int)), type=inst.type)
        if inst.op not in ("mulf", "addf", "subf") or inst.type != "f32":
            return None
        x, y = args if inst.op == "subf" or isinstance(args[0], _Affine) else reversed(args)
        if not isinstance(x, _Affine) or not isinstance(y, int):
            return None
        if inst.op == "mulf":
            scale, shift = (y if x.scale is None else emit("mulf", x.scale, y)), x.shift
            return _Affine(scale, None if shift is None else emit("mulf", shift, y), x.steps + 1)
        if x.shift is None:
            return _Affine(x.scale, emit("negf", y) if inst.op == "subf" else y, x.steps + 1)
        return _Affine(x.scale, emit(inst.op, x.shift, y), x.steps + 1)


def _fold(root: Root, constant: Set[ir.Value]) -> bool:
    """Fold the affine chain that a root's last region begins with; whether there is one of more than two steps."""
    region = root.regions[-1]
    if region.args != ("f32",):
        return False
    chain = _Chain(region, root.tensors, constant)
    ends = {
        a
        for inst, value in zip(region.insts, chain.values[1:], strict=True)
        for a in inst.args
        if isinstance(chain.values[a], _Affine) and not isinstance(value, _Affine)
    }
    ends |= {r for r in region.results if isinstance(chain.values[r], _Affine)}
    if len(ends) != 1:
        return False
    (end,) = ends
    last = chain.values[end]
    assert isinstance(last, _Affine)
    if last.steps <= 2 or not chain.tensors:
        return False
    shape = _joint_shape(chain.tensors)
    ip = ir.InsertionPoint(root.op)
    tensors = list(root.tensors)
    builder = RegionBuilder(region.args)
    value = 0
    for op, coefficient in (("mulf", last.scale), ("addf", last.shift)):
        if coefficient is None:
            continue
        derived = create_root(
            "pointwise", [], [dialect.tensor_type("f32", shape)], {}, [chain.builder.finish([coefficient])], chain.tensors,
            loc=root.op.location, ip=ip,
        ).results[0]  # fmt: skip
        load = builder.emit("load", type="f32", operand=operand_number(tensors, derived))
        value = builder.emit(op, value, load)
    target = region.insts[end - 1]
    results = builder.inline(region, [0], replace=lambda inst, args: value if inst is target else None)
    new = replace_root(root, regions=[*root.regions[:-1], builder.finish(results)], tensors=tensors)
    replace(root.op, new.results)
    return True


def _joint_shape(tensors: list[ir.Value]) -> tuple[int, ...]:
    """The shape that constant tensors, aligned at their last axes, broadcast to."""
    shapes = [dialect.shape_of(t) for t in tensors]
    rank = max(map(len, shapes))
    wide = [(1,) * (rank - len(s)) + tuple(d for d in s if isinstance(d, int)) for s in shapes]
    return tuple(max(sizes) for sizes in zip(*wide, strict=True))
