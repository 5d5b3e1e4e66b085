"""The table of lowering rules, and what a rule sees of its node."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ingot.dims import Dim
from ingot.dtypes import OnnxType
from ingot.passes.onnx_inference.rules import Node, Unsupported
from ingot.passes.onnx_inference.tensors import Tensor
from ingot.passes.onnx_lowering.graph_builder import GraphBuilder
from ingot.passes.onnx_lowering.values import Source, TypedValue


@dataclass
class Lowering:
    """An ONNX node being lowered.

    Attributes:
        node: the node with what inference knows of its operands.
        sources: the lowered operands, None where an optional one is left out.
        results: what inference knows of its outputs, None where one is left out.
        used: whether each output has a use.
        build: where operations are appended.
    """

    node: Node
    sources: Sequence[Source | None]
    results: Sequence[Tensor | None]
    used: Sequence[bool]
    build: GraphBuilder

    @property
    def op(self) -> str:
        return self.node.op

    @property
    def type(self) -> OnnxType:
        """Element type of the first output."""
        return self.result(0).type

    @property
    def shape(self) -> tuple[Dim, ...]:
        """Sizes of the first output."""
        return self.result(0).shape

    def result(self, i: int) -> Tensor:
        """What inference knows of output `i`, which must be there."""
        found = self.results[i]
        assert found is not None, (self.node.name, i)
        return found

    def attr(self, name: str) -> Any:
        """The attribute's value, ONNX's default, or None."""
        return self.node.attr(name)

    def has(self, i: int) -> bool:
        """True where operand `i` is given."""
        return i < len(self.sources) and self.sources[i] is not None

    def source(self, i: int) -> Source:
        """Operand `i`, as a tensor or as known elements."""
        found = self.sources[i] if i < len(self.sources) else None
        if found is None:
            raise self.fail(f"input {i} is missing", "correct the model")
        return found

    def optional(self, i: int) -> Source | None:
        """Operand `i`, or None where it is left out."""
        return self.sources[i] if self.has(i) else None

    def tensor(self, i: int) -> TypedValue:
        """Operand `i` as a tensor."""
        return self.build.tensor(self.source(i))

    def fail(self, message: str, cure: str) -> Unsupported:
        """An error to raise about this node."""
        return Unsupported(message, cure)

    def only_first_output(self) -> None:
        """Raise Unsupported where an output besides the first is used."""
        for i, used in enumerate(self.used[1:], 1):
            if used:
                raise self.fail(f"output {i} is not supported", "export the model without it")


Rule = Callable[[Lowering], "Source | Sequence[Source | None]"]
RULES: dict[str, Rule] = {}


def lowering(*ops: str) -> Callable[[Rule], Rule]:
    """Register a rule for operators; an operator has one rule."""

    def register(f: Rule) -> Rule:
        for op in ops:
            assert op not in RULES, op
            RULES[op] = f
        return f

    return register
