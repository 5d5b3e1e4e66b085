"""Which operands of a quantized `matmul` are scales and zero points: the reading of its attributes that everyone shares.

Attributes:
    a_block, b_block: a (b) is quantized, with a scale for each so many neighbours along k; 0: one for all of k.
    b_zero: b has zero points.
    a_unsigned, b_unsigned: the operand's integers are unsigned, its zero points too where they are integers.

The operands that hold them follow a and b in the order a's scales, b's scales, b's zero points. Scales of a have the shape
[..., m, blocks], those of b and its zero points (of b's type, or floats) [..., blocks, n], where blocks = ceil(k / block). An
element then stands for (element - zero) * scale, computed in f32; elements of b are rounded to a's type where that is f16 or
bf16, which is what ONNX's DequantizeLinear to that type gives.

The forms, by what a, b and their scales are:

    weight-only     f32, f16, bf16 x i8, i4, f8, f4     b_block, perhaps b_zero   scales f32, f16, bf16, f8E4M3FN, f8E8M0FNU
    NVFP4           f4E2M1FN x f4E2M1FN                 a_block = b_block = 16    f8E4M3FN; the scales' own scales: epilogue
    MXFP4, MXFP8    f4E2M1FN, f8 x f4E2M1FN, f8         a_block = b_block = 32    f8E8M0FNU
    W8A8, FP8       i8 x i8 in i32, f8 x f8 in f32      none: scales are the epilogue's

The operations: `matmul` has the scales and zero points of b, which are of one type and shape, because IRDL lets a variadic have
no other; integer zero points become floats, which hold them exactly. `scaled_matmul` has the scales of both. Dispatches are
`matmul` either way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class MatmulScales:
    """Numbers of the operands that hold scales and zero points (None: there are none), and how many k share a scale."""

    a_scale: int | None = None
    b_scale: int | None = None
    b_zero: int | None = None
    a_block: int = 0
    b_block: int = 0

    @property
    def count(self) -> int:
        """How many operands these are."""
        return sum(x is not None for x in (self.a_scale, self.b_scale, self.b_zero))


def matmul_scales(attrs: Mapping[str, Any]) -> MatmulScales:
    """The scales of a matmul with these attributes. Raises ValueError for zero points without scales, or a negative block."""
    following = iter(range(2, 5))
    a_block, b_block = attrs.get("a_block"), attrs.get("b_block")
    for name, block in (("a_block", a_block), ("b_block", b_block)):
        if block is not None and block < 0:
            raise ValueError(f"{name} is {block}: it counts neighbours along k")
    if attrs.get("b_zero") and b_block is None:
        raise ValueError("a matmul with zero points of b has no scales of b")
    a_scale = next(following) if a_block is not None else None
    b_scale = next(following) if b_block is not None else None
    b_zero = next(following) if attrs.get("b_zero") else None
    return MatmulScales(a_scale, b_scale, b_zero, a_block or 0, b_block or 0)
