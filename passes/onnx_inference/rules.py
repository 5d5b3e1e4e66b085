"""The table of inference rules, and what a rule sees of its node."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ingot import dims
from ingot.dims import Dim, Expr
from ingot.passes.onnx_inference.facts import Facts, Guard, ShapeConflict, at_most
from ingot.passes.onnx_inference.tensors import Tensor

_SIGNED = re.compile(r"signed\((\w+)\)")


class Unsupported(Exception):
    """A node cannot be typed: the message and the cure for `ingot.errors.ModelError`, without the node's name."""

    def __init__(self, message: str, cure: str) -> None:
        super().__init__(message)
        self.message, self.cure = message, cure


class UnknownElements(Unsupported):
    """A node needs to know elements of an operand.

    Attributes:
        operand: its number.
        constant: whether numbers are needed, as for axes: expressions over sizes, or numbers read at run time, do not do.
    """

    def __init__(self, operand: int, constant: bool, message: str, cure: str) -> None:
        super().__init__(message, cure)
        self.operand, self.constant = operand, constant


@dataclass
class Node:
    """An ONNX node under inference.

    Attributes:
        op: operator, with the domain where it is not ONNX's own (`com.microsoft.BiasGelu`).
        name: the node's name, for messages.
        inputs: what is known of the operands; None where an optional one is left out.
        outputs: number of outputs, those left out included.
        attribute: an attribute by name as a Python value (int, float, str, list of these, numpy array), ONNX's default where it
            is not given, or None.
        facts: what is known of dimensions.
        guards: conditions that the rule leaves to run time.
        definitions: symbols of sizes, and what they are.
    """

    op: str
    name: str
    inputs: Sequence[Tensor | None]
    outputs: int
    attribute: Callable[[str], Any]
    facts: Facts
    guards: list[Guard] = field(default_factory=list)
    definitions: dict[str, Dim] = field(default_factory=dict)

    def attr(self, name: str) -> Any:
        """The attribute's value, ONNX's default, or None."""
        return self.attribute(name)

    def has(self, i: int) -> bool:
        """True where operand `i` is given."""
        return i < len(self.inputs) and self.inputs[i] is not None

    def input(self, i: int) -> Tensor:
        """Operand `i`. Raises Unsupported where it is missing."""
        tensor = self.inputs[i] if i < len(self.inputs) else None
        if tensor is None:
            raise self.fail(f"input {i} is missing", "correct the model")
        return tensor

    def fail(self, message: str, cure: str) -> Unsupported:
        """An error to raise about this node."""
        return Unsupported(message, cure)

    def axis(self, value: int, rank: int) -> int:
        """A normalized axis. Raises Unsupported where it is out of range."""
        if not -rank <= value < rank:
            raise self.fail(f"axis {value} is out of range for rank {rank}", "correct the attribute axis")
        return value % rank

    def value(self, i: int, *, constant: bool = False) -> np.ndarray:
        """The elements of operand `i`, some maybe None; of an integer operand that is an input of the model they are numbers
        that are read at run time, unless `constant`. Raises Unsupported where nothing is known of them."""
        value = self.input(i).value
        if value is None:
            raise self._unknown(i, constant)
        return value

    def element(self, i: int, *, constant: bool = False) -> Any:
        """The element of operand `i`, which has one. Raises Unsupported where it is not known."""
        element = self.value(i, constant=constant).item()
        if element is None or (constant and not isinstance(element, bool | int | float)):
            raise self._unknown(i, constant)
        return element

    def _unknown(self, i: int, constant: bool) -> UnknownElements:
        if constant:
            message = f"input {i}, which decides what is computed, is not constant"
            return UnknownElements(i, constant, message, "make it a constant")
        message = f"input {i} is computed from data at run time, but shapes depend on it"
        cure = "make it a constant or compute it from shapes; data-dependent shapes are not supported"
        return UnknownElements(i, constant, message, cure)

    def dims(self, i: int) -> list[Dim]:
        """The elements of an integer operand, each of which must be known. They may be negative (`dims.has_signed`)."""
        elements = self.value(i).ravel().tolist()
        for e in elements:
            if isinstance(e, bool) or not isinstance(e, int | Expr):
                raise self._unknown(i, constant=False)
        return elements

    def sizes(self, i: int) -> list[Dim]:
        """The elements of an integer operand that are sizes or counts, and guarded to be none less than 0."""
        return [self.size(d, f"element {k} of input {i}") for k, d in enumerate(self.dims(i))]

    def size(self, d: Dim, what: str) -> Dim:
        """`d` as a size. Where it depends on numbers read at run time it gets a symbol, and is guarded not to be negative."""
        name = dims.symbol_of_signed(d)
        if name is not None:
            self.facts.names.sizes.add(str(name))
            d = name
        if isinstance(d, Expr) and str(d) in self.facts.names.sizes:
            self.at_most(0, dims.signed(d), f"{what} is negative")
            return d
        if not dims.has_signed(d):
            return d
        self.at_most(0, d, f"{what} is negative")
        return self.defined(dims.maximum(d, 0))

    def defined(self, d: Dim) -> Dim:
        """A size that is known not to be negative, as a symbol of its own where it depends on numbers read at run time."""
        if not dims.has_signed(d) or dims.symbols(d) & self.facts.names.iterations:
            return d
        assert dims.is_nonnegative(d), d
        symbol = self.facts.names.define(d, self.op)
        self.definitions[str(symbol)] = d
        return symbol

    def ints(self, i: int) -> list[int]:
        """The elements of an integer operand that must be constant."""
        elements = self.value(i, constant=True).ravel().tolist()
        if any(isinstance(e, bool) or not isinstance(e, int) for e in elements):
            raise self._unknown(i, constant=True)
        return elements

    def axes(self, i: int, rank: int) -> list[int] | None:
        """Normalized axes from operand `i`; None where it is not given."""
        return [self.axis(a, rank) for a in self.ints(i)] if self.has(i) else None

    def equal(self, a: Dim, b: Dim, what: str) -> Dim:
        """The size that `a` and `b`, which must be equal, have; guarded where that is not proven."""
        try:
            size, guard = self.facts.equal(a, b, self._message(what))
        except ShapeConflict as e:
            text = what if str(e) in what else f"{what}: {e}"
            raise self.fail(text, "correct the model's shapes") from None
        self.guards += [guard] if guard else []
        return size

    def _message(self, what: str) -> str:
        return self.name + ": " + _SIGNED.sub(r"\1", what)

    def at_most(self, a: Dim, b: Dim, what: str) -> None:
        """State that `a` <= `b`; guarded where that is not proven."""
        try:
            guard = self.facts.at_most(a, b, self._message(what))
        except ShapeConflict as e:
            text = what if str(e) in what else f"{what}: {e}"
            raise self.fail(text, "correct the model's shapes") from None
        self.guards += [guard] if guard else []

    def reads(self, size: Dim, count: int, result: Sequence[Dim], what: str) -> None:
        """State that an axis of `size` has at least `count` elements, unless the result of sizes `result` is empty and nothing
        is read; guarded where that is not proven."""
        if at_most(count, self.facts.canonical(size)):
            return
        if isinstance(size, int) and size > 0:
            raise self.fail(f"{what} of size {size}", "correct the model")
        # Constants other than 0 do not decide whether there are elements.
        elements = dims.product(d for d in result if not isinstance(d, int) or d <= 0)
        self.at_most(dims.minimum(count, count * elements), size, what)

    def broadcast(self, *shapes: Sequence[Dim]) -> tuple[Dim, ...]:
        """The shape that `shapes` broadcast to (ONNX, "Multidirectional Broadcasting"); guarded where needed."""
        rank = max(map(len, shapes))
        out: list[Dim] = [1] * rank
        for shape in shapes:
            for axis, d in enumerate(shape, rank - len(shape)):
                message = f"{self.name}: sizes {out[axis]} and {d} of axis {axis} do not broadcast"
                try:
                    out[axis], guards = self.facts.broadcast(out[axis], d, message)
                except ShapeConflict as e:
                    text = " and ".join(f"[{', '.join(map(str, s))}]" for s in shapes)
                    raise self.fail(f"shapes {text} do not broadcast: {e}", "correct the model's shapes") from None
                self.guards += guards
        return tuple(out)

    def divide_exactly(self, total: Dim, by: Dim, what: str) -> Dim:
        """`total / by`, which must have no remainder; guarded where that is not proven."""
        if by == 0:
            raise self.fail(f"{what}: {total} elements cannot be divided into parts of 0", "correct the model's shapes")
        quotient = dims.exact_div(total, by)
        if quotient is None:
            quotient = dims.exact_div(self.facts.canonical(total), self.facts.canonical(by))
        if quotient is None:
            quotient = dims.floordiv(total, by)
            self.equal(total, quotient * by, what)
        return quotient


Rule = Callable[[Node], "Tensor | Sequence[Tensor]"]
RULES: dict[str, Rule] = {}


def rule(*ops: str) -> Callable[[Rule], Rule]:
    """Register a rule for operators; an operator has one rule."""

    def register(f: Rule) -> Rule:
        for op in ops:
            assert op not in RULES, op
            RULES[op] = f
        return f

    return register
