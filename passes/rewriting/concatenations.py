"""Concatenations (chains of `move ... into` an `empty`) read in place, as a pointwise operation that chooses the part.

Parts of one size make the axis two: the part, and the place in it. Every part is then loaded as it lies, and repeats along the
first of these; two parts of one tensor are one view of it, read forwards by one part and backwards by the other:

    (-x[..., D/2:], x[..., :D/2])      rotate-half      part 0: -y, part 1: y, where y = [x[..., D/2:], x[..., :D/2]]
    (-x[..., 1::2], x[..., ::2])       interleaved pairs, likewise
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ingot.dialects import ingot as dialect
from ingot.dialects.mlir import ir
from ingot.dialects.plain import attribute, create_root
from ingot.dims import Dim
from ingot.dispatch import ScalarInst
from ingot.passes.patterns import fused_location
from ingot.passes.rewriting import view_algebra, views
from ingot.passes.rewriting.ops import Root, defining, operand_number, users
from ingot.passes.rewriting.scalar_regions import RegionBuilder

__all__ = ["MAX_PARTS", "Concatenation", "as_pointwise", "concatenation"]

MAX_PARTS = 3  # every element computes all parts
_POSITIONAL = frozenset({"load", "load_at", "index", "dim"})


@dataclass(frozen=True)
class Concatenation:
    """Parts that lie one after the other along `axis`, each with its element map; sizes along it are constants.

    Attributes:
        moves: that write the parts, in order.
        starts: where the parts begin, and the end of the last.
    """

    moves: tuple[Root, ...]
    axis: int
    starts: tuple[int, ...]

    @property
    def size(self) -> int | None:
        """The size of every part along the axis, or None where they differ."""
        sizes = {b - a for a, b in zip(self.starts, self.starts[1:], strict=False)}
        return sizes.pop() if len(sizes) == 1 else None


def concatenation(value: ir.Value) -> Concatenation | None:
    """How a value is put together of a few parts that cover it; None where it is not."""
    moves: list[Root] = []
    at = value
    while (op := defining(at)) is not None and op.name == "ingot.move" and len(op.operands) == 2:
        if len(moves) == MAX_PARTS or len(users(op.operands[1])) != 1:
            return None
        moves.insert(0, Root.read(op))
        at = op.operands[1]
    if op is None or op.name != "ingot.empty" or len(moves) < 2:
        return None
    shape = dialect.shape_of(value)
    shapes = [dialect.shape_of(move.op.operands[0]) for move in moves]
    axes = [a for a, d in enumerate(shape) if any(s[a] != d for s in shapes)]
    if len(axes) != 1:
        return None
    (axis,) = axes
    start: Dim = 0
    starts = [0]
    for move, part in zip(moves, shapes, strict=True):
        offsets = tuple(str(start if a == axis else 0) for a in range(len(shape)))
        if not isinstance(part[axis], int) or attribute(move.op.attributes["offsets"]) != offsets:
            return None
        start = start + part[axis]
        assert isinstance(start, int)
        starts.append(start)
    if start != shape[axis]:
        return None
    found = Concatenation(tuple(moves), axis, tuple(starts))
    read = _OF_UNEQUAL if found.size is None else _OF_EQUAL
    return None if any(inst.op in _POSITIONAL - read for move in moves for inst in move.regions[0].insts) else found


_OF_EQUAL = frozenset({"load", "index", "dim"})  # what element maps of parts may read: all are run over one domain
_OF_UNEQUAL: frozenset[str] = frozenset()


def as_pointwise(parts: Concatenation, before: ir.Operation) -> ir.Value:
    """The concatenation as (a view of the result of) a pointwise operation before `before`."""
    return _of_unequal(parts, before) if parts.size is None else _of_equal(parts, parts.size, before)


def _of_unequal(parts: Concatenation, before: ir.Operation) -> ir.Value:
    """Every element loads from all parts and takes the one in which it lies; in the others its position is moved to their
    ends."""
    last = parts.moves[-1].op
    tensors: list[ir.Value] = []
    builder = RegionBuilder()
    positions = [builder.emit("index", type="i64", axis=a) for a in range(len(dialect.shape_of(last.results[0])))]
    values = [_element(builder, parts, number, positions, tensors) for number in range(len(parts.moves))]
    chosen = _chosen(builder, positions[parts.axis], parts.starts[1:], values)
    return _pointwise(parts, builder, chosen, tensors, dialect.shape_of(last.results[0]), before)


def _chosen(builder: RegionBuilder, position: int, ends: Sequence[int], values: Sequence[int]) -> int:
    """The value whose part `position` lies in."""
    value = values[-1]
    for number in reversed(range(len(values) - 1)):
        inside = builder.emit("cmpi_slt", position, builder.const(ends[number], "i64"))
        value = builder.emit("select", inside, values[number], value)
    return value


def _pointwise(
    parts: Concatenation,
    builder: RegionBuilder,
    value: int,
    tensors: list[ir.Value],
    shape: Sequence[Dim],
    before: ir.Operation,
) -> ir.Value:
    loc = fused_location(*(move.op for move in parts.moves))
    type_ = dialect.tensor_type(dialect.dtype_of(parts.moves[-1].op.results[0]), shape)
    region = builder.finish([value])
    return create_root("pointwise", [], [type_], {}, [region], tensors, loc=loc, ip=ir.InsertionPoint(before)).results[0]


def _element(
    builder: RegionBuilder, parts: Concatenation, number: int, positions: Sequence[int], tensors: list[ir.Value]
) -> int:
    """The element of a part at a position of the whole."""
    move, start, end = parts.moves[number], parts.starts[number], parts.starts[number + 1]
    x = move.op.operands[0]
    at = positions[parts.axis]
    if number + 1 < len(parts.moves):
        at = builder.emit("minsi", at, builder.const(end - 1, "i64"))
    if number:
        at = builder.emit("subi", builder.emit("maxsi", at, builder.const(start, "i64")), builder.const(start, "i64"))
    indices = [at if a == parts.axis else p for a, p in enumerate(positions)]
    element = builder.emit("load_at", *indices, type=dialect.dtype_of(x), operand=operand_number(tensors, x))
    return builder.inline(move.regions[0], [element])[0]


# Parts of one size ----------------------------------------------------------------------------------------------------


def _of_equal(parts: Concatenation, size: int, before: ir.Operation) -> ir.Value:
    shape, axis, count = dialect.shape_of(parts.moves[-1].op.results[0]), parts.axis, len(parts.moves)
    pairs: list[tuple[ir.Value, ir.Value, ir.Value | None]] = []
    loads = [_Loads(parts, number, before, pairs) for number in range(count)]
    tensors: list[ir.Value] = []
    builder = RegionBuilder()
    values = []
    for number, move in enumerate(parts.moves):
        paired = loads[number].paired(loads[1 - number]) if count == 2 else {}
        split = {i: paired[i] if i in paired else loads[number].split(t) for i, t in loads[number].tensors.items()}

        def placed(inst: ScalarInst, args: tuple[int, ...], split: Mapping[int, ir.Value] = split) -> int | None:
            if inst.op == "load":
                x = split[inst.attr("operand")]
                return builder.emit("load", type=inst.type, operand=operand_number(tensors, x))
            if inst.op == "index":
                at = inst.attr("axis")
                if at == axis and size == 1:
                    return builder.const(0, "i64")
                return builder.emit("index", type="i64", axis=at + (size > 1 and at >= axis))
            return None

        x = split[0]
        element = builder.emit("load", type=dialect.dtype_of(x), operand=operand_number(tensors, x))
        values.append(builder.inline(move.regions[0], [element], replace=placed)[0])
    chosen = _chosen(builder, builder.emit("index", type="i64", axis=axis), range(1, count + 1), values)
    domain = (*shape[:axis], count, *(() if size == 1 else (size,)), *shape[axis + 1 :])
    return views.reshape(_pointwise(parts, builder, chosen, tensors, domain, before), shape, before)


@dataclass(frozen=True)
class _Loads:
    """What part `number` reads, in the domain whose concatenated axis is split in two."""

    parts: Concatenation
    number: int
    before: ir.Operation
    known: list[tuple[ir.Value, ir.Value, ir.Value | None]]  # what pairs of tensors make, and tensors with themselves

    @property
    def move(self) -> Root:
        return self.parts.moves[self.number]

    @property
    def tensors(self) -> dict[int, ir.Value]:
        """What the part's map reads, by number; the move's second operand, which is written, is not."""
        return {i: t for i, t in enumerate(self.move.tensors) if i != 1}

    def split(self, x: ir.Value) -> ir.Value:
        """`x`, aligned with the part, in the split domain."""
        known = next((made for a, b, made in self.known if a == x and b == x), None)
        if known is None:
            known = self._placed(self._full(x), (1,))
            self.known.append((x, x, known))
        return known

    def _full(self, x: ir.Value) -> ir.Value:
        part, shape = dialect.shape_of(self.move.op.operands[0]), dialect.shape_of(x)
        return views.reshape(x, (*(1,) * (len(part) - len(shape)), *shape), self.before)

    def _placed(self, x: ir.Value, lead: tuple[int, ...]) -> ir.Value:
        """A tensor of the part's axes, or with axis 0 for the parts before these, in the split domain."""
        axis, shape = self.parts.axis, dialect.shape_of(x)
        if lead != (1,):
            rank = len(shape) - 1
            x = views.transpose(x, (*range(1, axis + 1), 0, *range(axis + 1, rank + 1)), self.before)
            shape = shape[1:]
        inner = () if self.parts.size == 1 else (shape[axis],)
        return views.reshape(x, (*shape[:axis], *lead, *inner, *shape[axis + 1 :]), self.before)

    def paired(self, other: _Loads) -> dict[int, ir.Value]:
        """Of the tensors that this part reads, by number, those that make one view with another that either part reads."""
        found: dict[int, ir.Value] = {}
        for i, x in self.tensors.items():
            for y in (*other.tensors.values(), *self.tensors.values()):
                pair = (x, y) if self.number == 0 else (y, x)
                if x == y:
                    continue
                if dialect.shape_of(x) == dialect.shape_of(y) and (both := self._both(*pair)) is not None:
                    found[i] = both
                    break
        return found

    def _both(self, first: ir.Value, second: ir.Value) -> ir.Value | None:
        for x, y, both in self.known:
            if x == first and y == second:
                return both
        joined = view_algebra.joined(self._full(first), self._full(second), self.before)
        placed = None if joined is None else self._placed(joined, (2,))
        self.known.append((first, second, placed))
        return placed
