"""Element types: one row per type that tensors of Ingot may have.

Types of the `ingot` dialect are signless, as in MLIR: `i8` stores both int8 and uint8, and the operation says which it
means. Inputs and outputs keep ONNX's type, so that a caller sees the dtype the model declares.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np


@dataclass(frozen=True)
class DType:
    """A storage type: `name` as in MLIR's textual form, `bits` of storage per element, `numpy` name of its array type."""

    name: str
    bits: int
    numpy: str
    kind: str  # "float", "int" or "bool"

    @property
    def bytes(self) -> int:
        """Bytes per element; sub-byte types are counted by `nbytes`."""
        return max(1, self.bits // 8)

    def nbytes(self, elements: int) -> int:
        """Bytes that `elements` elements take, packed low nibble first where an element is smaller than a byte."""
        return (elements * self.bits + 7) // 8

    @property
    def np(self) -> np.dtype:
        return _numpy_dtype(self.numpy)


@cache
def _numpy_dtype(name: str) -> np.dtype:
    if hasattr(np, name) or name == "bool":
        return np.dtype(name)
    import ml_dtypes

    return np.dtype(getattr(ml_dtypes, name))


DTYPES = {
    t.name: t
    for t in (
        DType("f64", 64, "float64", "float"),
        DType("f32", 32, "float32", "float"),
        DType("f16", 16, "float16", "float"),
        DType("bf16", 16, "bfloat16", "float"),
        DType("f8E4M3FN", 8, "float8_e4m3fn", "float"),
        DType("f8E5M2", 8, "float8_e5m2", "float"),
        DType("f8E4M3FNUZ", 8, "float8_e4m3fnuz", "float"),
        DType("f8E5M2FNUZ", 8, "float8_e5m2fnuz", "float"),
        DType("f8E8M0FNU", 8, "float8_e8m0fnu", "float"),
        DType("f4E2M1FN", 4, "float4_e2m1fn", "float"),
        DType("i64", 64, "int64", "int"),
        DType("i32", 32, "int32", "int"),
        DType("i16", 16, "int16", "int"),
        DType("i8", 8, "int8", "int"),
        DType("i4", 4, "int4", "int"),
        DType("i1", 8, "bool", "bool"),
    )
}


@dataclass(frozen=True)
class OnnxType:
    """A row of ONNX's TensorProto.DataType: its code, the spelling in `onnx.defs`, storage type, signedness, numpy name.

    `narrow`: bits of an element where those of the storage type are more. They repeat its sign then, or are 0.
    """

    code: int
    name: str
    storage: str
    signed: bool
    numpy: str
    narrow: int | None = None

    @property
    def bits(self) -> int:
        """Bits of an element, as ONNX packs it."""
        return self.narrow or DTYPES[self.storage].bits


ONNX_TYPES = (
    OnnxType(1, "float", "f32", True, "float32"),
    OnnxType(2, "uint8", "i8", False, "uint8"),
    OnnxType(3, "int8", "i8", True, "int8"),
    OnnxType(4, "uint16", "i16", False, "uint16"),
    OnnxType(5, "int16", "i16", True, "int16"),
    OnnxType(6, "int32", "i32", True, "int32"),
    OnnxType(7, "int64", "i64", True, "int64"),
    OnnxType(9, "bool", "i1", False, "bool"),
    OnnxType(10, "float16", "f16", True, "float16"),
    OnnxType(11, "double", "f64", True, "float64"),
    OnnxType(12, "uint32", "i32", False, "uint32"),
    OnnxType(13, "uint64", "i64", False, "uint64"),
    OnnxType(16, "bfloat16", "bf16", True, "bfloat16"),
    OnnxType(17, "float8e4m3fn", "f8E4M3FN", True, "float8_e4m3fn"),
    OnnxType(18, "float8e4m3fnuz", "f8E4M3FNUZ", True, "float8_e4m3fnuz"),
    OnnxType(19, "float8e5m2", "f8E5M2", True, "float8_e5m2"),
    OnnxType(20, "float8e5m2fnuz", "f8E5M2FNUZ", True, "float8_e5m2fnuz"),
    OnnxType(21, "uint4", "i4", False, "uint4"),
    OnnxType(22, "int4", "i4", True, "int4"),
    OnnxType(23, "float4e2m1", "f4E2M1FN", True, "float4_e2m1fn"),
    OnnxType(24, "float8e8m0", "f8E8M0FNU", True, "float8_e8m0fnu"),
    OnnxType(25, "uint2", "i4", False, "uint2", narrow=2),
    OnnxType(26, "int2", "i4", True, "int2", narrow=2),
)
ONNX_TYPE_BY_CODE = {t.code: t for t in ONNX_TYPES}
ONNX_TYPE_BY_NAME = {t.name: t for t in ONNX_TYPES}


def onnx_numpy(t: OnnxType) -> np.dtype:
    """The numpy dtype of an ONNX type (sub-byte types: ml_dtypes' one-element-a-byte types)."""
    return _numpy_dtype(t.numpy)


def nibbles(array: np.ndarray) -> np.ndarray:
    """The elements of an array of a type that is stored in 4 bits, in C order: uint8 [elements], each below 16."""
    flat = np.ascontiguousarray(array).reshape(-1)
    if flat.dtype.name in ("int2", "uint2"):
        flat = flat.astype(np.int8)
    return flat.view(np.uint8) & 15  # ml_dtypes keeps one element a byte
