"""ONNX attribute values as MLIR attributes, and back.

| ONNX | Python | MLIR |
| --- | --- | --- |
| INT, FLOAT, STRING | int, float, str | `i64`, `f32` and string attributes |
| INTS, FLOATS, STRINGS | list | `array<i64: ..>`, `array<f32: ..>`, array of strings |
| TENSOR | numpy array | `dense<..>`, or `{bits = dense<..>, element = T}` where the bindings cannot read `T` back |
| TYPE_PROTO | `ir.Type` | type attribute |
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ingot.dialects.mlir import ir
from ingot.dialects.onnx_types import STRING, element_name, onnx_type_of
from ingot.dtypes import ONNX_TYPES, onnx_numpy

# The bindings build DenseElementsAttr of these and return object arrays for them.
UNREADABLE = frozenset(
    {"bf16", "f8E4M3FN", "f8E5M2", "f8E4M3FNUZ", "f8E5M2FNUZ", "f8E8M0FNU", "f4E2M1FN", "i4", "ui4", "i2", "ui2"}
)


def element_of_numpy(dtype: np.dtype) -> str:
    """The element type that an array's dtype stands for. Raises ValueError for a dtype that ONNX does not have."""
    if dtype.kind in "OUS":
        return STRING
    for t in ONNX_TYPES:
        if onnx_numpy(t) == dtype:
            return element_name(t)
    raise ValueError(f"numpy dtype {dtype} has no ONNX element type")


def dense(array: np.ndarray) -> ir.Attribute:
    """The attribute that holds `array`, in the current context."""
    element = element_of_numpy(array.dtype)
    if element == STRING:
        strings = [s.decode("utf-8", "surrogateescape") if isinstance(s, bytes) else str(s) for s in array.ravel()]
        return ir.DictAttr.get(
            {
                "shape": ir.DenseI64ArrayAttr.get(list(array.shape)),
                "strings": ir.ArrayAttr.get([ir.StringAttr.get(s) for s in strings]),
            }
        )
    if element in UNREADABLE:
        bits = array.view(np.uint16 if array.itemsize == 2 else np.uint8)
        return ir.DictAttr.get({"bits": dense(bits), "element": ir.TypeAttr.get(ir.Type.parse(element))})
    t = ir.RankedTensorType.get(list(array.shape), ir.Type.parse(element))
    return ir.DenseElementsAttr.get(np.ascontiguousarray(array).reshape(array.shape), type=t)


def array_of(attribute: ir.Attribute) -> np.ndarray:
    """The array in an attribute that `dense` made, or in any `dense<..>` of a type that the bindings can read."""
    if isinstance(attribute, ir.DictAttr):
        if "strings" in attribute:
            strings = np.array([s.value for s in attribute["strings"]], dtype=object)
            return strings.reshape(list(attribute["shape"]))
        return array_of(attribute["bits"]).view(onnx_numpy(onnx_type_of(str(attribute["element"].value))))
    return np.array(attribute)


def to_mlir(kind: str, value: Any) -> ir.Attribute:
    """The attribute for a Python value of an ONNX attribute kind; an `ir.Attribute` is returned as it is."""
    if isinstance(value, ir.Attribute):
        return value
    match kind:
        case "int":
            return ir.IntegerAttr.get(ir.IntegerType.get_signless(64), value)
        case "float":
            return ir.FloatAttr.get(ir.F32Type.get(), value)
        case "string":
            return ir.StringAttr.get(value)
        case "ints":
            return ir.DenseI64ArrayAttr.get(value)
        case "floats":
            return ir.DenseF32ArrayAttr.get(value)
        case "strings":
            return ir.ArrayAttr.get([ir.StringAttr.get(s) for s in value])
        case "tensor":
            return dense(value)
        case "type_proto":
            return ir.TypeAttr.get(value)
    raise NotImplementedError(f"attributes of ONNX kind {kind!r}")


def to_python(attribute: ir.Attribute) -> Any:
    """The plain Python value of an attribute that `to_mlir` made."""
    match attribute:
        case ir.IntegerAttr() | ir.FloatAttr() | ir.StringAttr() | ir.TypeAttr():
            return attribute.value
        case ir.DenseI64ArrayAttr() | ir.DenseF32ArrayAttr():
            return list(attribute)
        case ir.ArrayAttr():
            return [to_python(a) for a in attribute]
        case ir.DenseElementsAttr() | ir.DictAttr():
            return array_of(attribute)
    raise ValueError(f"{attribute} is not the attribute of an ONNX operation")


_CLASSES: dict[str, tuple[type, ...]] = {
    "int": (ir.IntegerAttr,),
    "float": (ir.FloatAttr,),
    "string": (ir.StringAttr,),
    "ints": (ir.DenseI64ArrayAttr,),
    "floats": (ir.DenseF32ArrayAttr,),
    "strings": (ir.ArrayAttr,),
    "tensor": (ir.DenseElementsAttr, ir.DictAttr),
    "type_proto": (ir.TypeAttr,),
}


def has_kind(attribute: ir.Attribute, kind: str) -> bool:
    """Whether an attribute holds a value of an ONNX attribute kind."""
    return isinstance(attribute, _CLASSES.get(kind, ()))
