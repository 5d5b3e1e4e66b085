"""Types of values in the `onnx` dialect.

- `tensor<?x64xf32, #ingot.dims<["N"]>>`: a tensor of known rank; the encoding spells its dynamic dimensions, in order. A
  dynamic dimension without an encoding is one that nobody has inferred yet.
- `tensor<*xf32>`: a tensor of unknown rank.
- `!onnx.Unknown`: a value of which nothing is known; shape inference replaces it.
- `!onnx.Seq<T>`, `!onnx.Opt<T>`: ONNX's sequence and optional.

Element types keep ONNX's signedness: int8 is `i8`, uint8 is `ui8`; bool is `i1`, string is `!onnx.String`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from ingot.dialects import ingot as ingot_dialect
from ingot.dialects.mlir import ir
from ingot.dims import Dim
from ingot.dtypes import ONNX_TYPE_BY_CODE, ONNX_TYPES, OnnxType

STRING_CODE = 8  # TensorProto.STRING, which no storage type of Ingot holds
STRING = "!onnx.String"
UNKNOWN = "!onnx.Unknown"


@cache
def element_name(onnx_type: OnnxType) -> str:
    """The spelling of an ONNX type as element type: `ui8` for uint8."""
    spelled = f"i{onnx_type.narrow}" if onnx_type.narrow else onnx_type.storage
    return f"u{spelled}" if not onnx_type.signed and spelled != "i1" else spelled


_BY_ELEMENT = {element_name(t): t for t in ONNX_TYPES}


def element_name_of_code(code: int) -> str:
    """The element type of a TensorProto.DataType. Raises ValueError for one that Ingot does not know."""
    if code == STRING_CODE:
        return STRING
    if code not in ONNX_TYPE_BY_CODE:
        raise ValueError(f"element type {code}")
    return element_name(ONNX_TYPE_BY_CODE[code])


def onnx_type_of(value: ir.Value | ir.Type | str) -> OnnxType:
    """The ONNX type of a tensor value's or type's elements, or of a spelled element type; ValueError where there is none."""
    name = value if isinstance(value, str) else element_of(value)
    if name not in _BY_ELEMENT:
        raise ValueError(f"{value} has no numeric element type")
    return _BY_ELEMENT[name]


def element_of(value: ir.Value | ir.Type) -> str:
    """The element type's spelling of a tensor value or type. Raises ValueError for other types."""
    t = value if isinstance(value, ir.Type) else value.type
    if not isinstance(t, ir.RankedTensorType | ir.UnrankedTensorType):
        raise ValueError(f"{t} is not a tensor type")
    return str(t.element_type)


def tensor_type(element: str, shape: Sequence[Dim | None] | None) -> ir.Type:
    """The tensor type with that element type, in the current context; no shape is unknown rank.

    A dimension is an integer, a shape expression, or None where nothing is known of it. One None leaves the whole type without
    an encoding: an encoding covers every dynamic dimension.
    """
    if shape is None:
        return ir.Type.parse(f"tensor<*x{element}>")
    if None in shape:
        return ir.Type.parse(f"tensor<{''.join(f'{d}x' if isinstance(d, int) else '?x' for d in shape)}{element}>")
    return ingot_dialect.tensor_type(element, [d for d in shape if d is not None])


def shape_of(value: ir.Value | ir.Type) -> tuple[Dim, ...] | None:
    """The sizes of a tensor value or type, or None while its rank or one of its dimensions is not inferred."""
    t = value if isinstance(value, ir.Type) else value.type
    if not isinstance(t, ir.RankedTensorType):
        return None
    if not t.has_static_shape and t.encoding is None:
        return None
    if t.has_static_shape:
        return tuple(t.shape)
    if str(t.element_type) == STRING:  # the shape is all that is asked for, and ingot has no strings
        t = ir.Type.parse(str(t).replace(STRING, "i1"))
    return ingot_dialect.shape_of(t)


def unknown_type() -> ir.Type:
    """The type of a value of which nothing is known."""
    return ir.Type.parse(UNKNOWN)


def is_unknown(value: ir.Value | ir.Type) -> bool:
    """Whether nothing is known of a value or type, not even that it is a tensor."""
    return str(value if isinstance(value, ir.Type) else value.type) == UNKNOWN


def sequence_type(element: ir.Type) -> ir.Type:
    """`!onnx.Seq<element>`."""
    return ir.Type.parse(f"!onnx.Seq<{element}>")


def optional_type(element: ir.Type) -> ir.Type:
    """`!onnx.Opt<element>`."""
    return ir.Type.parse(f"!onnx.Opt<{element}>")
