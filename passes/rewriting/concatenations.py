"""Concatenations (chains of `move ... into` an `empty`) read in place, as a pointwise operation that chooses the part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ingot import dims
from ingot.dialects import ingot as dialect
from ingot.dialects.mlir import ir
from ingot.dialects.plain import attribute, create_root
from ingot.passes.patterns import fused_location
from ingot.passes.rewriting.ops import Root, defining, operand_number, users
from ingot.passes.rewriting.scalar_regions import RegionBuilder

__all__ = ["MAX_PARTS", "Concatenation", "as_pointwise", "concatenation"]

MAX_PARTS = 3  # every element computes the indices of all parts
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
    if any(inst.op in _POSITIONAL for move in moves for inst in move.regions[0].insts):
        return None
    shape = dialect.shape_of(value)
    shapes = [dialect.shape_of(move.op.operands[0]) for move in moves]
    axes = [a for a, d in enumerate(shape) if any(s[a] != d for s in shapes)]
    if len(axes) != 1:
        return None
    (axis,) = axes
    start: dims.Dim = 0
    starts = [0]
    for move, part in zip(moves, shapes, strict=True):
        offsets = tuple(str(start if a == axis else 0) for a in range(len(shape)))
        if not isinstance(part[axis], int) or attribute(move.op.attributes["offsets"]) != offsets:
            return None
        start = start + part[axis]
        assert isinstance(start, int)
        starts.append(start)
    return Concatenation(tuple(moves), axis, tuple(starts)) if start == shape[axis] else None


def as_pointwise(parts: Concatenation, before: ir.Operation) -> ir.Operation:
    """The concatenation as a pointwise operation before `before`.

    Every element loads from all parts and takes the one in which it lies; in the others its position is moved to their ends.
    """
    last = parts.moves[-1].op
    tensors: list[ir.Value] = []
    builder = RegionBuilder()
    positions = [builder.emit("index", type="i64", axis=a) for a in range(len(dialect.shape_of(last.results[0])))]
    values = [_element(builder, parts, number, positions, tensors) for number in range(len(parts.moves))]
    value = values[-1]
    for number in reversed(range(len(values) - 1)):
        end = builder.const(parts.starts[number + 1], "i64")
        inside = builder.emit("cmpi_slt", positions[parts.axis], end)
        value = builder.emit("select", inside, values[number], value)
    loc = fused_location(*(move.op for move in parts.moves))
    ip = ir.InsertionPoint(before)
    return create_root("pointwise", [], [last.results[0].type], {}, [builder.finish([value])], tensors, loc=loc, ip=ip)


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
