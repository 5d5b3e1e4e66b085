"""Rules for constants."""

from __future__ import annotations

import numpy as np

from ingot.dtypes import ONNX_TYPE_BY_CODE, ONNX_TYPES, OnnxType, onnx_numpy
from ingot.passes.onnx_inference.rules import Node, rule
from ingot.passes.onnx_inference.tensors import MAX_ELEMENTS, Tensor, constant_elements

_BY_NUMPY = {onnx_numpy(t): t for t in ONNX_TYPES}


def type_of_array(array: np.ndarray) -> OnnxType:
    """The ONNX type of a numpy array's elements. Raises KeyError for strings and complex numbers."""
    return _BY_NUMPY[array.dtype]


def of_array(array: np.ndarray) -> Tensor:
    """What is known of a constant: its elements, where they are few."""
    value = constant_elements(array) if array.size <= MAX_ELEMENTS else None
    return Tensor(type_of_array(array), tuple(array.shape), value)


@rule("Constant")
def _constant(node: Node) -> Tensor:
    for name, dtype in (("value", None), ("value_float", np.float32), ("value_int", np.int64), ("value_floats", np.float32),
                        ("value_ints", np.int64)):  # fmt: skip
        value = node.attr(name)
        if value is not None:
            return of_array(np.asarray(value, dtype))
    raise node.fail("its value is of a kind that Ingot does not support (strings, sparse tensors)", "use a dense number tensor")


@rule("EyeLike")
def _eye_like(node: Node) -> Tensor:
    x = node.input(0)
    code = node.attr("dtype")
    return Tensor(x.type if code is None else ONNX_TYPE_BY_CODE[code], x.shape)
