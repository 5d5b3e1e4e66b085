"""Sequences and optional values: which tensors they hold is known when compiling, so that their operators disappear."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ingot import dims
from ingot.dialects import onnx
from ingot.dialects.mlir import ir
from ingot.dialects.onnx_schema import VARIADIC_SLOTS
from ingot.dialects.onnx_types import unknown_type
from ingot.passes.onnx_inference.rules import Node

_CURE = "let the number of tensors and their positions be known when compiling, and keep sequences out of If, Loop and Scan"


@dataclass(frozen=True)
class Held:
    """What a sequence or an optional value holds.

    Attributes:
        values: the tensors of a sequence; of an optional value what it has, a sequence or a tensor, or nothing.
        is_optional: whether it is an optional value.
    """

    values: tuple[ir.Value, ...]
    is_optional: bool = False


@dataclass
class Sequences:
    """The sequences and optional values of a graph."""

    held: dict[ir.Value, Held | None] = field(default_factory=dict)  # None: the producer failed

    def takes(self, op: ir.Operation) -> bool:
        """Whether an operator has to do with sequences or optional values."""
        return onnx.op_type(op) in _RESOLVERS or (onnx.op_type(op) == "Identity" and op.operands[0] in self.held)

    def resolve(self, op: ir.Operation, node: Node) -> list[ir.Operation]:
        """Note what the result of `op` holds, or erase `op` and let another value take its result's place. The operations that
        were made for it are returned.

        Raises:
            Unsupported: what is held, or where, is not known.
        """
        if any(self.held.get(r) is not None for r in op.results):
            return []  # it was resolved when the graph was inferred before
        work = _Resolution(self.held, op, node, onnx.onnx_operands(op))
        self.held.update(dict.fromkeys(op.results))
        found = (_RESOLVERS.get(onnx.op_type(op)) or _identity)(work)
        if isinstance(found, Held):
            self.held[op.results[0]] = found
            return work.made
        del self.held[op.results[0]]
        op.results[0].replace_all_uses_with(found)
        op.erase()
        return work.made

    def remaining(self, block: ir.Block) -> list[tuple[ir.Operation, str, str]]:
        """The operations of a block and its regions that read a sequence or an optional value, with a message and a cure."""
        found = []
        for view in block.operations:
            op = view.operation
            for region in op.regions:
                for inner in region.blocks:
                    found += self.remaining(inner)
            kind = next((k for v in op.operands if (k := self._kind(v))), None)
            if kind is None or (onnx.is_onnx(op) and self.takes(op)):
                continue
            owner = op.parent
            if op.name != onnx.OUTPUT:
                found.append((op, f"{onnx.op_type(op)}: an operand that is {kind} is not supported", _CURE))
            elif owner.name == onnx.GRAPH:
                found.append((op, f"an output that is {kind} is not supported", "make the tensors it holds outputs"))
            else:
                name = op.attributes["name"].value
                message = f"{onnx.op_type(owner)}: output {name} of its body is {kind}, which is not supported"
                found.append((owner, message, _CURE))
        return found

    def _kind(self, value: ir.Value) -> str | None:
        held = self.held.get(value)
        return None if held is None else "an optional value" if held.is_optional else "a sequence"

    def erase(self, block: ir.Block) -> None:
        """Erase what makes sequences and optional values that nothing reads any more."""
        for view in reversed([*block.operations]):
            op = view.operation
            for region in op.regions:
                for inner in region.blocks:
                    self.erase(inner)
            if len(op.results) and op.results[0] in self.held:
                del self.held[op.results[0]]
                op.erase()


@dataclass
class _Resolution:
    """One operator being resolved; `made` are the operations that take its place."""

    held: Mapping[ir.Value, Held | None]
    op: ir.Operation
    node: Node
    operands: Sequence[ir.Value | None]
    made: list[ir.Operation] = field(default_factory=list)

    def sequence(self) -> tuple[ir.Value, ...]:
        """The tensors of operand 0."""
        value = self.operands[0]
        found = None if value is None else self.held.get(value)
        if found is None or found.is_optional:
            raise self.node.fail("input 0 is no sequence of known tensors", _CURE)
        return found.values

    def position(self, operand: int, count: int, what: str) -> int:
        """Operand `operand` as a position among `count`."""
        at = self.node.element(operand, constant=True)
        if not -count <= at < count:
            raise self.node.fail(f"position {at} is out of range for {what} of {count}", "correct the model")
        return at % count

    def emit(self, op_type: str, operands: Sequence[ir.Value | None], outputs: int = 1, **attributes: Any) -> list[ir.Value]:
        """Append an operator before the one that is resolved."""
        types = [unknown_type()] * outputs
        op = onnx.create(op_type, operands, attributes, types, loc=self.op.location, ip=ir.InsertionPoint(self.op))
        self.made.append(op)
        return list(op.results)

    def constant(self, array: np.ndarray) -> ir.Value:
        value = onnx.constant(array, loc=self.op.location, ip=ir.InsertionPoint(self.op))
        self.made.append(value.owner.operation)
        return value

    def check_count(self, count: int) -> None:
        if not 0 < count <= VARIADIC_SLOTS:
            raise self.node.fail(f"{count} tensors are not supported", f"use 1 to {VARIADIC_SLOTS}")


Resolver = Callable[[_Resolution], "Held | ir.Value"]


def _identity(work: _Resolution) -> Held | ir.Value:
    value = work.operands[0]
    found = None if value is None else work.held.get(value)
    if found is None:
        raise work.node.fail("input 0 is not known", _CURE)
    return found


def _construct(work: _Resolution) -> Held:
    return Held(tuple(v for v in work.operands if v is not None))


def _insert(work: _Resolution) -> Held:
    found, tensor = work.sequence(), work.operands[1]
    assert tensor is not None, "the schema demands it"
    # A position may also be the end, which is where a negative one is counted from.
    at = work.node.element(2, constant=True) if work.node.has(2) else len(found)
    if not -len(found) <= at <= len(found):
        raise work.node.fail(f"position {at} is out of range for a sequence of {len(found)}", "correct the model")
    at += len(found) if at < 0 else 0
    return Held((*found[:at], tensor, *found[at:]))


def _erase(work: _Resolution) -> Held:
    found = work.sequence()
    if not found:
        raise work.node.fail("the sequence is empty", "correct the model")
    at = work.position(1, len(found), "a sequence") if work.node.has(1) else len(found) - 1
    return Held((*found[:at], *found[at + 1 :]))


def _at(work: _Resolution) -> ir.Value:
    found = work.sequence()
    return found[work.position(1, len(found), "a sequence")]


def _length(work: _Resolution) -> ir.Value:
    return work.constant(np.array(len(work.sequence()), np.int64))


def _concat(work: _Resolution) -> ir.Value:
    parts, axis = list(work.sequence()), work.node.attr("axis")
    work.check_count(len(parts))
    if work.node.attr("new_axis"):
        axes = work.constant(np.array([axis], np.int64))
        parts = [work.emit("Unsqueeze", [p, axes])[0] for p in parts]
    return work.emit("Concat", parts, axis=axis)[0]


def _split(work: _Resolution) -> Held:
    node = work.node
    x, axis = node.input(0), node.axis(node.attr("axis"), node.input(0).rank)
    size, split, part = x.shape[axis], None, 1
    if node.has(1) and node.input(1).rank:
        (count,) = node.input(1).shape
        split = work.operands[1]
    else:
        part = node.element(1, constant=True) if node.has(1) else 1
        if part <= 0:
            raise node.fail(f"parts of {part} elements", "correct the model")
        count = dims.ceildiv(size, part)
    if not isinstance(count, int):
        raise node.fail(f"the number of its parts, {count}, is not known when compiling", _CURE)
    work.check_count(count)
    if split is None:
        assert isinstance(size, int), "the number of parts is known"
        split = work.constant(np.array([min(part, size - at) for at in range(0, size, part)], np.int64))
    parts = work.emit("Split", [work.operands[0], split], count, axis=axis)
    if not node.has(1) and not node.attr("keepdims"):
        axes = work.constant(np.array([axis], np.int64))
        parts = [work.emit("Squeeze", [p, axes])[0] for p in parts]
    return Held(tuple(parts))


def _optional(work: _Resolution) -> Held:
    value = work.operands[0] if work.operands else None
    return Held(() if value is None else (value,), is_optional=True)


def _has_element(work: _Resolution) -> ir.Value:
    value = work.operands[0] if work.operands else None
    if value is not None and value in work.held:
        found = work.held[value]
        if found is None:
            raise work.node.fail("input 0 is not known", _CURE)
        return work.constant(np.array(bool(found.values) or not found.is_optional))
    return work.constant(np.array(value is not None))


def _get_element(work: _Resolution) -> Held | ir.Value:
    value = work.operands[0]
    assert value is not None, "the schema demands it"
    if value not in work.held:
        return value
    found = work.held[value]
    if found is None or (found.is_optional and not found.values):
        raise work.node.fail("input 0 has no element", "ask OptionalHasElement before, in the condition of an If")
    if not found.is_optional:
        return found
    (inner,) = found.values
    held = work.held.get(inner)
    return inner if held is None else held


_RESOLVERS: dict[str, Resolver] = {
    "SequenceConstruct": _construct,
    "SequenceEmpty": lambda work: Held(()),
    "SequenceInsert": _insert,
    "SequenceErase": _erase,
    "SequenceAt": _at,
    "SequenceLength": _length,
    "ConcatFromSequence": _concat,
    "SplitToSequence": _split,
    "Optional": _optional,
    "OptionalHasElement": _has_element,
    "OptionalGetElement": _get_element,
}
