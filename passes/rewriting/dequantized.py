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
    lead = len(root.domain) - len(dialect.shape_of(q))
    if (*(1,) * lead, *dialect.shape_of(q)) != root.domain:
        return None
    q = views.reshape(q, root.domain, before)
    for view in chain:
        q = views.make(replace(view, x=q), before)
    axes = _Axes.of(chain, root.domain)
    scale = axes.parameter(_scale_tensor(root, found), found.scale.blocks, before)
    if scale is None:
        return None
    zero = ZeroPoint(offset=found.offset)
    if found.zero is not None:
        read = _zero_point(root.tensors[found.zero.operand], found.zero.blocks, found.unsigned, axes, before, weights)
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
class _Read:
    """An operand that a region reads, and the axes of the domain along which it does so by blocks, with their sizes."""

    operand: int
    blocks: tuple[tuple[int, int], ...] = ()
    cast: str = ""  # the type as which it is read


@dataclass(frozen=True)
class _Match:
    """The operands that a dequantization reads, and its constant zero point."""

    q: int
    unsigned: bool
    scale: _Read
    zero: _Read | None
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
                zero = _parameter_read(root, right.args[0])
                if zero is None:
                    continue
            else:
                continue
        if inst is None or inst.op not in _CONVERSIONS or inst.type != "f32":
            continue
        q = _loaded(region, inst.args[0])
        if q is None or dialect.dtype_of(root.tensors[q]) not in _CONVERSIONS[inst.op]:
            continue
        if zero is not None and dialect.dtype_of(root.tensors[zero.operand]) != dialect.dtype_of(root.tensors[q]):
            continue
        scales = _scale_read(root, scale)
        if scales is None:
            continue
        return _Match(q, inst.op == "uitofp", scales, zero, offset)
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


def _scale_read(root: Root, value: int) -> _Read | None:
    """Scales: what is read, widened, perhaps as another type of its size."""
    (region,) = root.regions
    inst = _inst(region, value)
    if inst is not None and inst.op == "extf":
        value = inst.args[0]
        inst = _inst(region, value)
    if inst is None or inst.op != "bitcast":
        return _parameter_read(root, value)
    found = _parameter_read(root, inst.args[0])
    return None if found is None else replace(found, cast=inst.type)


def _parameter_read(root: Root, value: int) -> _Read | None:
    """A load, or a load at positions of which each is one along an axis of the domain, divided by a block size or not."""
    (region,) = root.regions
    inst = _inst(region, value)
    if inst is None or inst.op not in ("load", "load_at"):
        return None
    operand = inst.attr("operand")
    if inst.op == "load":
        return _Read(operand)
    if len(inst.args) != len(root.domain):
        return None
    blocks: list[tuple[int, int]] = []
    for axis, position in enumerate(inst.args):
        at = _inst(region, position)
        if at is not None and at.op == "floordivsi" and (size := _inst(region, at.args[1])) is not None and size.op == "const":
            blocks.append((axis, size.attr("value")))
            at = _inst(region, at.args[0])
        if at is None or at.op != "index" or at.attr("axis") != axis:
            return None
    return _Read(operand, tuple(blocks))


def _scale_tensor(root: Root, match: _Match) -> ir.Value:
    """The scales as a tensor of their type."""
    tensor, cast = root.tensors[match.scale.operand], match.scale.cast
    if not cast:
        return tensor
    builder = RegionBuilder()
    element = builder.emit("load", type=dialect.dtype_of(tensor), operand=0)
    read = builder.finish([builder.emit("bitcast", element, type=cast)])
    type_ = dialect.tensor_type(cast, dialect.shape_of(tensor))
    ip = ir.InsertionPoint(root.op)
    return create_root("pointwise", [], [type_], {}, [read], [tensor], loc=root.op.location, ip=ip).results[0]


def _zero_point(
    tensor: ir.Value, blocks: Sequence[tuple[int, int]], unsigned: bool, axes: _Axes, before: ir.Operation, weights: Any
) -> ZeroPoint | None:
    number = _one_number(tensor, unsigned, weights)
    if number is not None:
        return ZeroPoint(offset=number)
    parameter = axes.parameter(tensor, blocks, before)
    return None if parameter is None else ZeroPoint(parameter, unsigned)


def _one_number(tensor: ir.Value, unsigned: bool, weights: Any) -> int | None:
    """The number that all elements of a weight are, where its values are at hand and it is small."""
    while (op := defining(tensor)) is not None and op.name in dialect.VIEWS:
        tensor = op.operands[0]
    if op is None or op.name != "ingot.weight" or weights is None:
        return None
    name, dtype = op.attributes["name"].value, dialect.dtype_of(tensor)
    if name not in weights:
        return None
    source = weights[name]
    if not 0 < source.elements <= _READ_ELEMENTS:
        return None
    array = weights.elements(name)
    if source.dtype != dtype:  # bytes that are read as packed elements
        codes = set(np.concatenate([source.bytes() & 15, source.bytes() >> 4]).tolist()) if dtype == "i4" else set()
        if len(codes) != 1:
            return None
        (code,) = codes
        return code - 16 if code > 7 and not unsigned else code
    array = array.astype(np.float32)
    first = float(array.flat[0])
    return int(first) if first == int(first) and bool((array == first).all()) else None


# The axes -------------------------------------------------------------------------------------------------------------


@dataclass
class _Axes:
    """The axes of a tensor that views made of a computation's result.

    Attributes:
        domain: the computation's domain.
        axes: for each axis of the tensor, the domain's axes that it runs over, outermost first, without those of size 1.
        sizes: of the tensor's axes, which may be cut at their ends.
        lost: axes of the domain that no whole axes of the tensor run over.
    """

    domain: tuple[Dim, ...]
    axes: list[tuple[int, ...]]
    sizes: tuple[Dim, ...]
    lost: set[int]

    @classmethod
    def of(cls, chain: Sequence[views.View], domain: tuple[Dim, ...]) -> _Axes:
        """The axes after a chain of views, first to last."""
        found = cls(domain, [(i,) if d != 1 else () for i, d in enumerate(domain)], domain, set())
        for view in chain:
            found._view(view)
            found.sizes = view.shape
        return found

    def _view(self, view: views.View) -> None:
        axes, old = self.axes, self.sizes
        match view.name:
            case "transpose":
                self.axes = [axes[p] for p in view.attr("perm")]
            case "reshape":
                self._regroup(old, view.shape)
            case "expand":
                self.axes = [()] * (len(view.shape) - len(old)) + axes
            case _:
                starts, steps = view.attr("starts"), view.attr("steps")
                for i, axis in enumerate(axes):
                    if starts[i] != "0" or steps[i] != 1:
                        self.lost.update(axis)
                        axes[i] = ()

    def _is_cut(self, axis: int) -> bool:
        return dims.product(self.domain[i] for i in self.axes[axis]) != self.sizes[axis]

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
            same = sum(old[a] != 1 for a in before) == 1
            if len(wide) == 1 and (same or not any(self.axes[a] and self._is_cut(a) for a in before)):
                axes[wide[0]] = merged
            else:
                self.lost.update(merged)
        self.axes = axes

    def parameter(
        self, tensor: ir.Value, blocks: Sequence[tuple[int, int]], before: ir.Operation
    ) -> Parameter | None:
        """A tensor that the computation reads, along the axes; None where it varies along what they do not follow.

        Args:
            blocks: axes of the domain along which an element is read by so many neighbours.
        """
        sizes = dialect.shape_of(tensor)
        sizes = (*(1,) * (len(self.domain) - len(sizes)), *sizes)
        shared = dict(blocks)
        for i, (d, whole) in enumerate(zip(sizes, self.domain, strict=True)):
            if d != 1 and d != (dims.ceildiv(whole, shared[i]) if i in shared else whole):
                return None
        varying = {i for i, d in enumerate(sizes) if d != 1}
        if varying & self.lost:
            return None
        order: list[int] = []
        shape: list[Dim] = []
        found: list[int] = []
        for number, axis in enumerate(self.axes):
            own = [i for i in axis if i in varying]
            if list(axis[: len(own)]) != own or any(i in shared for i in own[:-1]):
                return None
            count = dims.product(sizes[i] for i in own)
            block = shared.get(own[-1], 1) * dims.product(self.domain[i] for i in axis[len(own) :]) if own else 0
            if not isinstance(block, int):
                return None
            if own and dims.ceildiv(self.sizes[number], block) != count:
                return None  # cut by more than a part of the last block
            found.append(block)
            shape.append(count)
            order += own
        if len(order) != len(varying):
            return None  # repeated along an axis that is gone
        rest = [i for i in range(len(sizes)) if i not in varying]
        full = views.reshape(tensor, sizes, before)
        return Parameter(views.reshape(views.transpose(full, [*rest, *order], before), shape, before), tuple(found))
