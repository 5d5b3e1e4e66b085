"""Quantized elements in f32: 8-bit and 4-bit integers and floats decoded four bytes at a time, and their scales.

Where a target has a conversion (`cvt` from 8-bit floats on sm_89 and later, from 4-bit ones on sm_100 and later), it is used.
Elsewhere:

- an integer's byte becomes the lowest byte of the float 2^23 (of f16's 2^10), from which that and the integer's bias are taken;
- E5M2 is the upper half of an f16; E4M3 is one after its exponent has been moved to the f16's place and the value multiplied by
  2^8, the difference of the biases, which also makes subnormals right;
- an E2M1 code selects the upper byte of its f16 from a table of eight bytes in two registers (`prmt`).

What an element stands for is defined in ingot.matmul_scales. Where that is an f16 (scales of f16, or none), it is computed two
at a time in f16: differences of small integers are exact, and the one rounding is that of the product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ingot.compiler.codegen.cuda_gemm_problem import Matrix, Scales
from ingot.compiler.codegen.cuda_kernel import DispatchKernel, divides, memory_type
from ingot.compiler.codegen.small_floats import SMALL_FLOATS
from ingot.compiler.codegen.values import Val

QUANTIZED = ("i8", "i4", "f8E4M3FN", "f8E5M2", "f4E2M1FN")
INTEGERS = ("i8", "i4")
E2M1_UPPER = (0x3E3C3800, 0x46444240)  # upper bytes of 0, 0.5, 1, 1.5, 2, 3, 4, 6 in f16, lowest first
_TO_UPPER = (0x1404, 0x3424)  # prmt selectors: bytes 0 and 1 (2 and 3) to the upper bytes of two f16, zeros below


def _word(bytes_: Sequence[int]) -> int:
    return int.from_bytes(bytes(bytes_), "little", signed=True)


def decode_words(k: Any, words: Sequence[Val], dtype: str, unsigned: bool) -> list[Val]:
    """The elements of i32 `words`, lowest bits first, as f32."""
    if dtype in INTEGERS:
        return [x for w in words for x in _integers(k, w, dtype, unsigned)]
    return [k.cast(x, "f32") for w in words for pair in float_pairs(k, w, dtype) for x in k.elements(pair)]


def _integers(k: Any, word: Val, dtype: str, unsigned: bool) -> list[Val]:
    bias = 0 if unsigned else 1 << (7 if dtype == "i8" else 3)
    if dtype == "i8":
        groups = [word ^ _word([bias] * 4)]
    else:
        low = _word([0x0F] * 4)
        groups = [(part & low) ^ _word([bias] * 4) for part in (word, word >> 4)]
    offset = float((1 << 23) + bias)
    upper = k.const(0x4B000000, "i32")
    return [k.bitcast(k.prmt(g, upper, 0x7440 + i), "f32") - offset for i in range(4) for g in groups]


def _integer_pairs(k: Any, word: Val, dtype: str, unsigned: bool) -> tuple[list[Val], int]:
    """(integers of a word, each plus an offset, as vectors of two f16; that offset)."""
    half, upper = k.vector_of("f16", 2), k.const(_word([0x64] * 4), "i32")
    bias = 0 if unsigned else 1 << (7 if dtype == "i8" else 3)
    if dtype == "i8":
        biased = word ^ _word([bias] * 4)
        return [k.bitcast(k.prmt(biased, upper, s), half) for s in (0x4140, 0x4342)], 1024 + bias
    low = _word([0x0F] * 4)
    even, odd = ((part & low) ^ _word([bias] * 4) for part in (word, word >> 4))
    words = [k.prmt(even, odd, 4 << 12 | (4 + i) << 8 | 4 << 4 | i) for i in range(4)]
    return [k.bitcast((w & _word([0xFF, 0] * 2)) | _word([0, 0x64] * 2), half) for w in words], 1024 + bias


def float_pairs(k: Any, word: Val, dtype: str) -> list[Val]:
    """The small floats of a word as vectors of two f16."""
    half = k.vector_of("f16", 2)
    if dtype == "f4E2M1FN":
        if k.sm >= 100:
            codes = k.elements(k.bitcast(word, k.vector_of("i8", 4)))
            return [k.emit("nvvm.convert.f4x2.to.f16x2", (c,), half, {"srcType": k.attr(dtype)}) for c in codes]
        table = [k.const(x, "i32") for x in E2M1_UPPER]
        signs = k.const(_word([0x80] * 4), "i32")
        out = []
        for part in (word, word >> 16):
            # A selector's upper bit asks for the sign of the chosen byte in all eight bits: here 0xFF, and else 0x80.
            negative = k.prmt(signs, signs, part & 0x8888) & _word([1] * 4)
            both = k.prmt(*table, part & 0x7777) | (negative << 7)
            out += [k.bitcast(k.prmt(both, k.const(0, "i32"), s), half) for s in _TO_UPPER]
        return out
    if k.sm >= 89:
        codes = k.elements(k.bitcast(word, k.vector_of("i16", 2)))
        source = {"srcType": k.attr(dtype)}
        return [k.emit("nvvm.convert.f8x2.to.f16x2", (k.bitcast(c, k.vector_of("i8", 2)),), half, source) for c in codes]
    zero = k.const(0, "i32")
    if dtype == "f8E5M2":
        return [k.bitcast(k.prmt(word, zero, s), half) for s in _TO_UPPER]
    f = SMALL_FLOATS[dtype]
    factor = 2.0 ** (15 - f.bias)
    # The sum carries into the sign's place where all bits are set: NaN.
    carry = ((word & _word([0x7F] * 4)) + _word([1] * 4)) & _word([0x80] * 4)
    nan = carry - (carry >> 7)
    out = []
    for s in _TO_UPPER:
        bits = k.prmt(word, zero, s)
        moved = (bits & _word([0, 0x80] * 2)) | ((bits & _word([0, 0x7F] * 2)) >> 1)
        value = k.bitcast(k.bitcast(moved, half) * factor, "i32")
        out.append(k.bitcast(value | k.prmt(nan, zero, s), half))
    return out


class QuantizedElements:
    """Elements of an operand that is quantized, or of any type, as f32.

    Args:
        dk: the kernel.
        x: the operand.
        scales: its scales, or None.
        unsigned: its integers are unsigned.
        narrow: f16 or bf16 to which what elements stand for is rounded, or "".
    """

    def __init__(self, dk: DispatchKernel, x: Matrix, scales: Scales | None, unsigned: bool, narrow: str = "") -> None:
        self.dk, self.k, self.x, self.scales, self.unsigned = dk, dk.k, x, scales, unsigned
        self.narrow = narrow if scales is not None else ""
        exact = scales is None or (narrow == "f16" and scales.scale.dtype == "f16")
        whole = scales is None or scales.zero is None or {x.dtype, scales.zero.dtype} <= set(INTEGERS)
        self.in_f16 = x.dtype in QUANTIZED and exact and whole

    def start(self, batch: Sequence[Val]) -> None:
        """Begin with a batch."""
        self.base = self._base(self.x, batch)
        self.start_scales(batch)

    def start_scales(self, batch: Sequence[Val]) -> None:
        """`start`, where elements come from elsewhere than memory."""
        if self.scales is not None:
            self.scale_base = self._base(self.scales.scale, batch)
            if self.scales.zero is not None:
                self.zero_base = self._base(self.scales.zero, batch)

    def _base(self, x: Matrix, batch: Sequence[Val]) -> tuple[Val, Val]:
        """(address of the tensor, elements from there to the batch's first)."""
        k, offset = self.k, self.k.const(0, "i64")
        for b, s in zip(batch, x.batch_strides, strict=True):
            if s != 0:
                offset = offset + k.cast(b, "i64") * self.dk.size(s)
        return self.dk.pointer(x.kind, x.index), offset

    def lanes(self, limit: int) -> int:
        """Neighbours along the contiguous axis that may be read at once: a power of two of at most `limit`."""
        x, lanes = self.x, limit
        extent = x.cols if x.major == "col" else x.rows
        whole = self.scales.block if self.scales is not None and x.major == "col" else 0
        while lanes > 1 and not (
            x.major != "none" and lanes * x.bits >= 8 and x.aligned(lanes * x.bits // 8, self.dk.d)
            and divides(lanes, extent, self.dk.d) and whole % lanes == 0
        ):  # fmt: skip
            lanes //= 2
        return lanes

    def load(self, row: Val, col: Val, lanes: int, valid: Val | None = None) -> list[Val]:
        """Raw i32 words of `lanes` neighbours along the contiguous axis; the operand's first ones where `valid` is false."""
        k, x = self.k, self.x
        base, first = self.base
        offset = self._offset(x, first, row, col, valid)
        bits = lanes * x.bits
        if bits < 8:
            byte = k.load(base.at(offset >> 1, "i8"), "i8", invariant=True)
            nibble = (byte >> k.cast((offset & 1) << 2, "i8")) & 15
            return [k.cast(nibble, "i32", signed=False)]
        p = base.at(offset >> 1 if x.bits == 4 else offset * (x.bits // 8), "i8")
        if bits < 32:
            return [k.cast(k.load(p, f"i{bits}", align=bits // 8, invariant=True), "i32", signed=False)]
        loaded = k.load(p, k.vector_of("i32", bits // 32), align=bits // 8, invariant=True)
        return list(k.elements(loaded))

    def _offset(self, x: Matrix, first: Val, row: Val, col: Val, valid: Val | None) -> Val:
        k, dk = self.k, self.dk
        at = k.cast(row, "i64") * dk.size(x.row_stride) + k.cast(col, "i64") * dk.size(x.col_stride)
        return first + (at if valid is None else k.select(valid, at, 0))

    def decode(self, words: Sequence[Val], row: Val, col: Val, lanes: int, valid: Val | None = None) -> list[Val]:
        """What `lanes` raw elements from (row, col) on stand for, in f32."""
        k = self.k
        if self.in_f16:
            pairs = self.pairs(words, row, col, lanes, valid)
            return [k.cast(x, "f32") for pair in pairs for x in k.elements(pair)][:lanes]
        values = self.raw(words, lanes)
        if self.scales is None:
            return values
        out = []
        for value, (scale, zero) in zip(values, self.scales_of(row, col, lanes, valid), strict=True):
            y = (value if zero is None else value - zero) * scale
            out.append(k.cast(k.cast(y, self.narrow), "f32") if self.narrow else y)
        return out

    def scales_of(self, row: Val, col: Val, lanes: int, valid: Val | None) -> list[tuple[Val, Val | None]]:
        """(scale, zero point or None) of each of `lanes` elements from (row, col) on."""
        if self.x.major == "row" and lanes > 1:
            return [self.scale(row + i, col, valid) for i in range(lanes)]
        return [self.scale(row, col, valid)] * lanes  # `lanes` divides a block

    def pairs(self, words: Sequence[Val], row: Val, col: Val, lanes: int, valid: Val | None = None) -> list[Val]:
        """What raw elements stand for as vectors of two f16, where `in_f16`; of an odd number the last is a pair, too."""
        k, dtype = self.k, self.x.dtype
        count = -(-lanes // 2)
        offset = 0
        if dtype in INTEGERS:
            found = [_integer_pairs(k, w, dtype, self.unsigned) for w in words]
            values, offset = [p for pairs, _ in found for p in pairs][:count], found[0][1]
        else:
            values = [p for w in words for p in float_pairs(k, w, dtype)][:count]
        if self.scales is None:
            return [p - float(offset) if offset else p for p in values]
        scales = self.scales_of(row, col, lanes, valid)
        out = []
        for i, value in enumerate(values):
            two = [scales[min(2 * i + e, lanes - 1)] for e in range(2)]
            zeros = [zero for _, zero in two if zero is not None]
            if zeros:
                value = value - k.vector([k.cast(zero + float(offset), "f16") for zero in zeros])
            elif offset:
                value = value - float(offset)
            out.append(value * k.vector([k.cast(scale, "f16") for scale, _ in two]))
        return out

    def raw(self, words: Sequence[Val], lanes: int) -> list[Val]:
        """`lanes` elements of words as f32, without scales."""
        k, dtype = self.k, self.x.dtype
        if dtype in QUANTIZED:
            return decode_words(k, words, dtype, self.unsigned)[:lanes]
        if dtype == "f32":
            return [k.bitcast(w, "f32") for w in words]
        if self.x.bits == 16:
            halves = [h for w in words for h in k.elements(k.bitcast(w, k.vector_of(dtype, 2)))]
            return [k.cast(h, "f32") for h in halves[:lanes]]
        raise NotImplementedError(f"quantized matmul of {dtype}")

    def scale(self, row: Val, col: Val, valid: Val | None = None) -> tuple[Val, Val | None]:
        """(scale, zero point or None) of the element at (row, col)."""
        assert self.scales is not None
        k, s = self.k, self.scales
        block = col // s.block if s.block else k.const(0, "i32")
        base, first = self.scale_base
        scale = self._element(s.scale, base, self._offset(s.scale, first, row, block, valid))
        if s.zero is None:
            return scale, None
        base, first = self.zero_base
        return scale, self._element(s.zero, base, self._offset(s.zero, first, row, block, valid))

    def _element(self, x: Matrix, base: Val, offset: Val) -> Val:
        """One element as f32."""
        k = self.k
        if x.bits < 8:
            byte = k.load(base.at(offset >> 1, "i8"), "i8", invariant=True)
            code = (byte >> k.cast((offset & 1) << 2, "i8")) & 15
            return decode_words(k, [k.cast(code, "i32", signed=False)], x.dtype, self.unsigned)[0]
        name = memory_type(x.dtype)
        value = k.load(base.at(offset, name), name, invariant=True)
        if x.dtype.startswith("f8"):
            return k.decode_float(value, x.dtype, "f32")
        return k.cast(value, "f32", signed=not (self.unsigned and x.dtype == "i8"))
