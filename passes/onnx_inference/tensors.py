"""What inference knows of a value: element type, shape, and, for small tensors, the elements themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ingot.dims import Dim, Expr
from ingot.dtypes import ONNX_TYPE_BY_NAME, OnnxType

MAX_ELEMENTS = 128  # tensors up to this size carry their elements: shapes, axes, pads, scalars

BOOL = ONNX_TYPE_BY_NAME["bool"]
FLOAT = ONNX_TYPE_BY_NAME["float"]
INT64 = ONNX_TYPE_BY_NAME["int64"]
FLOAT_NAMES = frozenset({"float", "float16", "bfloat16", "double"})


@dataclass(frozen=True, slots=True)
class Comparison:
    """A truth value that is known only at run time: `left` == `right`, or its negation."""

    left: Dim
    right: Dim
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Tensor:
    """A typed value.

    Attributes:
        type: ONNX's element type.
        shape: sizes.
        value: None, or the elements as an object array of that shape. An element is a `bool` or a `Comparison` (bool tensors),
            a dimension (integer tensors), a `float` or an `Expr` with integral value (floating-point tensors), or None where
            it is not known.
    """

    type: OnnxType
    shape: tuple[Dim, ...]
    value: np.ndarray | None = None

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def is_float(self) -> bool:
        return self.type.name in FLOAT_NAMES

    @property
    def is_known(self) -> bool:
        """True where every element is known, as a constant or as a shape expression."""
        return self.value is not None and all(isinstance(e, bool | int | float | Expr) for e in self.value.ravel().tolist())


def with_value(type: OnnxType, elements: np.ndarray) -> Tensor:
    """A tensor of known elements; the value is dropped where it is large or wholly unknown."""
    shape = tuple(elements.shape)
    if elements.size > MAX_ELEMENTS or (elements.size and all(e is None for e in elements.ravel().tolist())):
        return Tensor(type, shape)
    return Tensor(type, shape, elements)


def object_array(elements: Sequence[Any], shape: Sequence[int] | None = None) -> np.ndarray:
    """An object array of `elements`, 1-D or of `shape`; never interprets the elements as sequences."""
    out = np.empty(len(elements), object)
    for i, e in enumerate(elements):
        out[i] = e
    return out if shape is None else out.reshape(tuple(shape))


def constant_elements(array: np.ndarray) -> np.ndarray:
    """The elements of a constant as Python numbers in an object array."""
    convert: Any = bool if array.dtype.kind == "b" else int if array.dtype.kind in "iu" else float
    return object_array([convert(e) for e in array.ravel()], array.shape)
