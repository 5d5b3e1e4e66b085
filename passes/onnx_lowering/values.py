"""What an ONNX value has become: a tensor of the `ingot` dialect, or elements known at compile time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ingot.dialects.mlir import ir
from ingot.dims import Dim, Expr
from ingot.dtypes import OnnxType


@dataclass(frozen=True, slots=True)
class TypedValue:
    """A tensor with what its signless type does not say.

    Attributes:
        value: of the `ingot` dialect.
        type: ONNX's element type.
        shape: sizes.
    """

    value: ir.Value
    type: OnnxType
    shape: tuple[Dim, ...]

    @property
    def rank(self) -> int:
        return len(self.shape)


@dataclass(frozen=True, slots=True)
class Known:
    """Elements known at compile time, as constants or shape expressions; a tensor only where something reads them as data.

    Attributes:
        type: ONNX's element type.
        shape: sizes.
        elements: in row-major order: bool, int, float or `Expr`.
    """

    type: OnnxType
    shape: tuple[Dim, ...]
    elements: tuple[Any, ...]

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def scalar(self) -> Any:
        """The element that all elements are equal to, or None."""
        first = self.elements[0] if self.elements else None
        return first if all(_same(e, first) for e in self.elements) else None

    @property
    def is_constant(self) -> bool:
        """True where no element is a shape expression."""
        return not any(isinstance(e, Expr) for e in self.elements)


def _same(a: Any, b: Any) -> bool:
    # Zeros of different signs are equal and not the same.
    return a == b and (a != 0 or str(a) == str(b))


Source = TypedValue | Known
