"""8-bit and 4-bit floats by bit arithmetic: a layer of `KernelBuilder`.

The formats are OCP's (OFP8 E4M3 and E5M2; MX E2M1 and E8M0) and the two of ONNX named FNUZ (Noune et al., "8-bit Numerical
Formats for Deep Neural Networks", 2022), stored in the low bits of an i8. The tricks:

- decode: place exponent and mantissa in a float's fields and multiply by 2^(127 - bias); subnormals come out right
  because the product of a subnormal f32 is exact (this needs denormals not to be flushed, which neither target does);
- encode: normal numbers are rounded to nearest even by an integer add at the last kept bit; subnormals by adding 2^p,
  whose unit in the last place is the format's smallest subnormal, which lets the float adder do the rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

from ingot.compiler.codegen.values import Val
from ingot.compiler.codegen.vector_ops import VectorOps


@dataclass(frozen=True)
class SmallFloat:
    """A float format below 16 bits: field widths, exponent bias, the largest finite code, the code of NaN (None: has none).

    With `has_negative_zero` false, what would be -0 is NaN.
    """

    name: str
    exponent: int
    mantissa: int
    bias: int
    max_code: int
    nan_code: int | None
    has_inf: bool = False
    has_negative_zero: bool = True

    @property
    def max_value(self) -> float:
        """The largest finite number."""
        e, m = divmod(self.max_code, 1 << self.mantissa)
        return (1 + m / (1 << self.mantissa)) * 2.0 ** (e - self.bias)


SMALL_FLOATS = {
    f.name: f
    for f in (
        SmallFloat("f8E4M3FN", 4, 3, 7, 0x7E, 0x7F),
        SmallFloat("f8E5M2", 5, 2, 15, 0x7B, 0x7E, has_inf=True),
        SmallFloat("f8E4M3FNUZ", 4, 3, 8, 0x7F, 0x80, has_negative_zero=False),
        SmallFloat("f8E5M2FNUZ", 5, 2, 16, 0x7F, 0x80, has_negative_zero=False),
        SmallFloat("f4E2M1FN", 2, 1, 1, 0x7, None),
    )
}


class SmallFloatOps(VectorOps):
    """See the module's docstring."""

    def decode_float(self, x: Val, dtype: str, result: str = "f32") -> Val:
        """i8 codes (scalar or vector) of `dtype` as f32, or another float type; exact. Bits above the format's must be 0."""
        return self.cast(self._decode_f32(x, dtype), result)

    def _decode_f32(self, x: Val, dtype: str) -> Val:
        wide = self._shaped(x.t, "i32")
        f32 = self._shaped(x.t, "f32")
        code = self.cast(x, wide, signed=False)
        if dtype == "f8E8M0FNU":
            # A power of two; 2^-127 is a subnormal f32, and 255 is NaN.
            bits = self.select(code.eq(0), 0x00400000, code << 23)
            return self.bitcast(self.select(code.eq(255), 0x7FC00000, bits), f32)
        f = SMALL_FLOATS[dtype]
        width = f.exponent + f.mantissa
        magnitude = code & ((1 << width) - 1)
        sign = (code >> width) << 31
        value = self.bitcast(magnitude << (23 - f.mantissa), f32) * 2.0 ** (127 - f.bias)
        bits = self.bitcast(value, wide)
        if f.has_inf:
            special = magnitude >= ((1 << f.exponent) - 1) << f.mantissa
            payload = magnitude & ((1 << f.mantissa) - 1)
            bits = self.select(special, (payload << (23 - f.mantissa)) | 0x7F800000, bits)
        elif f.nan_code is not None:
            bits = self.select((magnitude if f.has_negative_zero else code).eq(f.nan_code), 0x7FC00000, bits)
        return self.bitcast(bits | sign, f32)

    def encode_float(self, x: Val, dtype: str, saturate: bool = True) -> Val:
        """Floats (any type, scalar or vector) as i8 codes of `dtype`, rounded to nearest even.

        With `saturate`, what exceeds the largest finite number (infinities too) becomes that number, as ONNX's Cast and
        `cvt.satfinite` do; without, infinity (E5M2) or NaN (the others). E2M1 always saturates, and its NaN becomes the
        largest number. E8M0 takes the exponent of a positive number, rounded up to the next power of two (`cvt.rp`).
        """
        wide = self._shaped(x.t, "i32")
        x = self.cast(x, self._shaped(x.t, "f32"))
        bits = self.bitcast(x, wide)
        if dtype == "f8E8M0FNU":
            magnitude = bits & 0x7FFFFFFF
            code = self.umin((magnitude + 0x7FFFFF) >> 23, 254)
            # Below and at 2^-127 (subnormal f32) the code is 0; above it, the sum above gives 1 already.
            code = self.select(magnitude <= 0x00400000, 0, code)
            return self.cast(self.select(magnitude > 0x7F800000, 255, code), self._shaped(x.t, "i8"))
        f = SMALL_FLOATS[dtype]
        shift = 23 - f.mantissa
        sign = (bits >> 31) << (f.exponent + f.mantissa)
        magnitude = bits & 0x7FFFFFFF
        smallest_normal = (127 + 1 - f.bias) << 23
        # 2^p with ulp equal to the smallest subnormal 2^(1 - bias - mantissa).
        adder = (127 + 1 - f.bias - f.mantissa + 23) << 23
        magic = self.bitcast(self.const(adder, wide), self._shaped(x.t, "f32"))
        small = self.bitcast(self.bitcast(magnitude, magic.t) + magic, wide) - adder
        odd = (magnitude >> shift) & 1
        normal = (magnitude + odd + ((1 << (shift - 1)) - 1 - ((127 - f.bias) << 23))) >> shift
        code = self.select(magnitude < smallest_normal, small, normal)
        nan = magnitude > 0x7F800000
        if saturate or f.nan_code is None:
            code = self.select(magnitude >= 0x7F800000, f.max_code, self.min(code, f.max_code))
        else:
            overflow = f.max_code + 1  # infinity of E5M2, else NaN
            code = self.select(magnitude >= 0x7F800000, overflow, self.min(code, overflow))
        if f.nan_code is not None:
            code = self.select(nan, f.nan_code, code)
        if not f.has_negative_zero:
            sign = self.select(code.eq(0), 0, sign)
        return self.cast(code | sign, self._shaped(x.t, "i8"))
