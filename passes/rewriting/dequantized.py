"""Dequantized tensors as data: what a tensor of quantized numbers stands for, read from the pointwise operation that says it.

A dequantization is one pointwise operation: q is loaded and converted (`sitofp`, `uitofp`: this is where signedness is said;
`extf` of 8- and 4-bit floats), a zero point converted alike may be subtracted, the difference is multiplied by a scale, and the
product may be rounded to a narrower float. Scales that serve blocks of neighbours are loaded over an axis split in two. Views
and casts of floats that stand between the operation and its reader are followed: q and its parameters are given in the reader's
axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ingot import dims
from ingot.dialects import ingot as dialect
from ingot.dialects.mlir import ir
from ingot.dialects.plain import create_root
from ingot.dims import Dim
from ingot.dispatch import ScalarInst, ScalarRegion
from ingot.passes.rewriting import views
from ingot.passes.rewriting.domains import axis_groups
from ingot.passes.rewriting.ops import Root, defining
from ingot.passes.rewriting.scalar_regions import RegionBuilder

__all__ = ["Dequantized", "Parameter", "ZeroPoint", "read_dequantized"]

INTEGERS = frozenset({"i8", "i4"})
FLOATS = frozenset({"f8E4M3FN", "f8E5M2", "f4E2M1FN"})
_COMPUTED = frozenset({"f32", "f16", "bf16"})
_CONVERSIONS = {"sitofp": INTEGERS, "uitofp": INTEGERS, "extf": FLOATS}
_READ_ELEMENTS = 1 << 16  # of a zero point that is read to see whether it is one number


@dataclass(frozen=True)
class Parameter:
    """Scales or zero points of a tensor.

    Attributes:
        tensor: of the tensor's rank; its size along an axis is the tensor's divided by the block.
        blocks: for each axis, how many neighbours share an element; 0: all of them.
    """

    tensor: ir.Value
    blocks: tuple[int, ...]

    @property
    def is_uniform(self) -> bool:
        """One number for the whole tensor."""
        return not any(self.blocks)


@dataclass(frozen=True)
class ZeroPoint:
    """A zero point: `offset`, plus the elements of `parameter` (unsigned where `unsigned`) where there is one."""

    parameter: Parameter | None = None
    unsigned: bool = False
    offset: int = 0

    @property
    def is_zero(self) -> bool:
        return self.parameter is None and self.offset == 0

    def blocks(self, axis: int) -> int:
        """How many neighbours along an axis share an element; 0: all."""
        return self.parameter.blocks[axis] if self.parameter else 0


@dataclass(frozen=True)
class Dequantized:
    """What a tensor is: (q - zero) * scale * outer.

    Attributes:
        q: quantized numbers, of the tensor's shape.
        unsigned: they are unsigned integers.
        scale: of type f32, f16, bf16, f8E4M3FN or f8E8M0FNU.
        zero: zero points; none where they are known to be 0.
        outer: one scale of the scales, or None.
    """

    q: ir.Value
    unsigned: bool
    scale: Parameter
    zero: ZeroPoint
    outer: Parameter | None = None

    @property
    def dtype(self) -> str:
        """The storage type of q."""
        return dialect.dtype_of(self.q)

    def blocks(self, axis: int) -> int:
        """How many neighbours along an axis share a scale; 0: all."""
        return self.scale.blocks[axis]


def read_dequantized(value: ir.Value, before: ir.Operation, weights: Any = None) -> Dequantized | None:
    """What `value` is, where a dequantization made it; views that this needs are created before `before`.

    Args:
        weights: the model's weights, which tell zero points that are 0; or None.
    """
    chain: list[views.View] = []
    tensor = value
    while (op := defining(tensor)) is not None:
        if op.name in dialect.VIEWS:
            chain.insert(0, views.read(op))
            tensor = op.operands[0]
        elif (source := _cast_from(op)) is not None:
            tensor = source
        else:
            break
    if op is None or op.name != "ingot.pointwise" or len(op.results) != 1:
        return None
    root = Root.read(op)
    found = _matched(root)
    if found is None:
        return None
    q = root.tensors[found.q]
    if dialect.shape_of(q) != root.domain:
        return None
    for view in chain:
        q = views.make(replace(view, x=q), before)
    axes = _Axes.of(chain, root.domain)
    scales = _scale_tensor(root, found, before)
    scale = None if scales is None else axes.parameter(scales, before)
    if scale is None:
        return None
    zero = ZeroPoint(offset=found.offset)
    if found.zero is not None:
        read = _zero_point(root.tensors[found.zero], found.unsigned, axes, before, weights)
        if read is None:
            return None
        zero = read
    if dialect.dtype_of(q) in FLOATS and not zero.is_zero:
        return None
    outer = None
    inner = read_dequantized(scale.tensor, before, weights)
    if inner is not None and inner.dtype == "f8E4M3FN" and inner.scale.is_uniform and inner.outer is None:
        outer = inner.scale
        scale = Parameter(inner.q, scale.blocks)
    if dialect.dtype_of(scale.tensor) not in ("f32", "f16", "bf16", "f8E4M3FN", "f8E8M0FNU"):
        return None
    return Dequantized(q, found.unsigned, scale, zero, outer)


def _cast_from(op: ir.Operation) -> ir.Value | None:
    """The tensor that a pointwise operation does nothing to but cast from f32 to f16 or bf16, or back."""
    if op.name != "ingot.pointwise" or len(op.results) != 1:
        return None
    root = Root.read(op)
    (region,) = root.regions
    cast = _inst(region, region.results[0])
    if cast is None or cast.op not in ("truncf", "extf") or not {cast.type, region.type_of(cast.args[0])} <= _COMPUTED:
        return None
    operand = _loaded(region, cast.args[0])
    source = None if operand is None else root.tensors[operand]
    return source if source is not None and dialect.shape_of(source) == root.domain else None


# The region -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Match:
    """Numbers of the operands that a dequantization loads, the value that is its scale, and its constant zero point."""

    q: int
    unsigned: bool
    scale: int
    zero: int | None
    offset: int


def _matched(root: Root) -> _Match | None:
    (region,) = root.regions
    result = _inst(region, region.results[0])
    if result is not None and result.op == "truncf" and result.type in ("f16", "bf16"):
        result = _inst(region, result.args[0])
    if result is None or result.op != "mulf" or result.type != "f32":
        return None
    for element, scale in (result.args, result.args[::-1]):
        inst = _inst(region, element)
        zero, offset = None, 0
        if inst is not None and inst.op in ("subf", "addf"):
            right = _inst(region, inst.args[1])
            inst = _inst(region, inst.args[0])
            if right is None or inst is None:
                continue
            if right.op == "const":
                number = right.attr("value") if _subtracts(region, element) else -right.attr("value")
                if number != int(number):
                    continue
                offset = int(number)
            elif right.op == inst.op and _subtracts(region, element):
                zero = _loaded(region, right.args[0])
                if zero is None:
                    continue
            else:
                continue
        if inst is None or inst.op not in _CONVERSIONS or inst.type != "f32":
            continue
        q = _loaded(region, inst.args[0])
        if q is None or dialect.dtype_of(root.tensors[q]) not in _CONVERSIONS[inst.op]:
            continue
        if zero is not None and dialect.dtype_of(root.tensors[zero]) != dialect.dtype_of(root.tensors[q]):
            continue
        return _Match(q, inst.op == "uitofp", scale, zero, offset)
    return None


def _subtracts(region: ScalarRegion, value: int) -> bool:
    """True where the instruction that makes a value subtracts."""
    inst = _inst(region, value)
    return inst is not None and inst.op == "subf"


def _inst(region: ScalarRegion, value: int) -> ScalarInst | None:
    return None if value < len(region.args) else region.insts[value - len(region.args)]


def _loaded(region: ScalarRegion, value: int) -> int | None:
    """The operand that a value is an element of, or None."""
    inst = _inst(region, value)
    return inst.attr("operand") if inst is not None and inst.op == "load" else None


def _scale_tensor(root: Root, match: _Match, before: ir.Operation) -> ir.Value | None:
    """The scales as a tensor: what is loaded, or loaded and read as another type of its size."""
    (region,) = root.regions
    value = match.scale
    inst = _inst(region, value)
    if inst is not None and inst.op == "extf":
        value = inst.args[0]
        inst = _inst(region, value)
    cast = inst if inst is not None and inst.op == "bitcast" else None
    if cast is not None:
        value = cast.args[0]
    operand = _loaded(region, value)
    if operand is None:
        return None
    tensor = root.tensors[operand]
    if cast is None:
        return tensor
    builder = RegionBuilder()
    element = builder.emit("load", type=dialect.dtype_of(tensor), operand=0)
    read = builder.finish([builder.emit("bitcast", element, type=cast.type)])
    type_ = dialect.tensor_type(cast.type, dialect.shape_of(tensor))
    ip = ir.InsertionPoint(root.op)
    return create_root("pointwise", [], [type_], {}, [read], [tensor], loc=root.op.location, ip=ip).results[0]


def _zero_point(tensor: ir.Value, unsigned: bool, axes: _Axes, before: ir.Operation, weights: Any) -> ZeroPoint | None:
    number = _one_number(tensor, weights)
    if number is not None:
        return ZeroPoint(offset=number)
    parameter = axes.parameter(tensor, before)
    return None if parameter is None else ZeroPoint(parameter, unsigned)


def _one_number(tensor: ir.Value, weights: Any) -> int | None:
    """The number that all elements of a weight are, where its values are at hand and it is small."""
    while (op := defining(tensor)) is not None and op.name in dialect.VIEWS:
        tensor = op.operands[0]
    if op is None or op.name != "ingot.weight" or weights is None:
        return None
    name = op.attributes["name"].value
    if name not in weights:
        return None
    source = weights[name]
    if not 0 < source.elements <= _READ_ELEMENTS:
        return None
    array = source.array().astype(np.float32)
    first = float(array.flat[0])
    return int(first) if first == int(first) and bool((array == first).all()) else None


# The axes -------------------------------------------------------------------------------------------------------------


@dataclass
class _Axes:
    """The axes of a tensor that views made of a computation's result.

    Attributes:
        domain: the computation's domain.
        axes: for each axis of the tensor, the domain's axes that it runs over, outermost first, without those of size 1.
        lost: axes of the domain that no whole axes of the tensor run over.
    """

    domain: tuple[Dim, ...]
    axes: list[tuple[int, ...]]
    lost: set[int]

    @classmethod
    def of(cls, chain: Sequence[views.View], domain: tuple[Dim, ...]) -> _Axes:
        """The axes after a chain of views, first to last."""
        found = cls(domain, [(i,) if d != 1 else () for i, d in enumerate(domain)], set())
        shape = domain
        for view in chain:
            found._view(view, shape)
            shape = view.shape
        return found

    def _view(self, view: views.View, old: tuple[Dim, ...]) -> None:
        axes = self.axes
        match view.name:
            case "transpose":
                self.axes = [axes[p] for p in view.attr("perm")]
            case "reshape":
                self._regroup(old, view.shape)
            case "expand":
                lead = len(view.shape) - len(old)
                self.axes = [()] * lead + axes
            case _:
                whole = zip(old, view.shape, view.attr("steps"), strict=True)
                self.axes = [self._kept(axes[i], a == b and s == 1) for i, (a, b, s) in enumerate(whole)]

    def _kept(self, axis: tuple[int, ...], is_whole: bool) -> tuple[int, ...]:
        if is_whole:
            return axis
        self.lost.update(axis)
        return ()

    def _regroup(self, old: Sequence[Dim], new: Sequence[Dim]) -> None:
        groups = axis_groups(old, new)
        if groups is None:
            self.lost.update(i for axis in self.axes for i in axis)
            self.axes = [()] * len(new)
            return
        axes: list[tuple[int, ...]] = [()] * len(new)
        for before, after in groups:
            merged = tuple(i for a in before for i in self.axes[a])
            wide = [a for a in after if new[a] != 1]
            if len(wide) == 1:
                axes[wide[0]] = merged
            else:
                self.lost.update(merged)
        self.axes = axes

    def parameter(self, tensor: ir.Value, before: ir.Operation) -> Parameter | None:
        """A tensor that the computation loads, along the axes; None where it varies along what they do not follow."""
        sizes = dialect.shape_of(tensor)
        sizes = (*(1,) * (len(self.domain) - len(sizes)), *sizes)
        if any(d not in (1, whole) for d, whole in zip(sizes, self.domain, strict=True)):
            return None
        varying = {i for i, d in enumerate(sizes) if d != 1}
        if varying & self.lost:
            return None
        order: list[int] = []
        shape: list[Dim] = []
        blocks: list[int] = []
        for axis in self.axes:
            own = [i for i in axis if i in varying]
            if list(axis[: len(own)]) != own:
                return None
            block = dims.product(self.domain[i] for i in axis[len(own) :])
            if not isinstance(block, int) and own:
                return None
            blocks.append(int(block) if own else 0)
            shape.append(dims.product(sizes[i] for i in own))
            order += own
        if len(order) != len(varying):
            return None  # repeated along an axis that is gone
        rest = [i for i in range(len(sizes)) if i not in varying]
        full = views.reshape(tensor, sizes, before)
        return Parameter(views.reshape(views.transpose(full, [*rest, *order], before), shape, before), tuple(blocks))

