"""Quantized weights decoded in registers to 16-bit floats, with their scales.

Elements come out in pairs, of k that an instruction multiplies together:

- 4-bit words give the pairs of nibbles (j, j + 4), j = 0..3, which lie 16 bits apart. An integer becomes the lowest mantissa
  bits of 2^10 (bf16: 2^7), from which that and its zero point are taken. A byte's upper nibble becomes 16 times the integer,
  which the subtraction's multiplication undoes. An E2M1's code selects the upper byte of its f16; for bf16 its bits become the
  lowest of the exponent and the highest of the mantissa, of a number that is too small by the difference of the biases.
- 8-bit words give pairs of neighbours, as in cuda_decode.py.

Scales of neighbouring columns, or of a column's neighbouring blocks of k, are read at once where they are neighbours in memory.

All of these are exact. A scale is multiplied once, in the 16-bit type where it is of that type or a small float, and else in
f32: a weight is rounded once, to the activations' type, as ingot.matmul_scales defines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ingot.compiler.codegen.cuda_decode import E2M1_UPPER, INTEGERS, QuantizedElements, float_pairs
from ingot.compiler.codegen.cuda_gemm_problem import Matrix, Scales
from ingot.compiler.codegen.cuda_kernel import DispatchKernel, divides, memory_type
from ingot.compiler.codegen.values import Val

_SMALL_SCALES = {"f16": ("f8E4M3FN", "f8E5M2"), "bf16": ("f8E4M3FN", "f8E5M2", "f8E8M0FNU")}  # exact in that type
_ONE = {"f16": 0x6400, "bf16": 0x4300}  # 2^10 and 2^7, whose last bit counts 1


class WeightDecoder:
    """Decodes words of weights, with their scales.

    Args:
        dk: the kernel.
        elements: the weights.
        dtype: the 16-bit type to decode to.
        count: neighbouring columns that scales are read for together.

    Attributes:
        run: neighbouring blocks of k whose scales are read at once.
    """

    def __init__(self, dk: DispatchKernel, elements: QuantizedElements, dtype: str, count: int) -> None:
        self.dk, self.k, self.dtype, self.count = dk, dk.k, dtype, count
        self.elements = elements
        self.x, self.scales, self.unsigned = elements.x, elements.scales, elements.unsigned
        s = self.scales
        whole = s is None or s.zero is None or {self.x.dtype, s.zero.dtype} <= set(INTEGERS)
        plain = s is None or s.scale.dtype == dtype or s.scale.dtype in _SMALL_SCALES[dtype]
        self.narrow = whole and plain and (dtype == "f16" or self.x.bits == 4)  # scales are multiplied in `dtype`
        self.raw = dtype if self.narrow else "f16"
        self.pair = self.k.vector_of(self.raw, 2)
        self.folds = s is not None and s.zero is not None and whole  # zero points are taken with the bias
        self.lines: list[Val] = []  # the first columns of this lane's
        self.run = 1

    # --- scales

    def longest_run(self, blocks: int) -> int:
        """How many of `blocks` neighbouring blocks of k, which begin at a multiple of that, `run` may be."""
        assert self.scales is not None
        run, sides = 1, [x for x in (self.scales.scale, self.scales.zero) if x is not None]
        while blocks % (2 * run) == 0 and all(self._has_run(x, 2 * run) for x in sides):
            run *= 2
        return run

    def _has_run(self, x: Matrix, run: int) -> bool:
        """True where every so many neighbours along k can be read at once."""
        whole = x.col_stride == 1 and run * x.bits <= 128 and divides(run, x.cols, self.dk.d)
        return whole and self._together(x) == 1 and x.aligned(run * x.bits // 8, self.dk.d)

    def read_scales(self, col: Val) -> list[list[list[Val]]]:
        """Scales, and zero points where there are any, of each line for the block of k = `col` and the rest of its run, as they
        lie in memory."""
        assert self.scales is not None
        block = col // self.scales.block if self.scales.block else self.k.const(0, "i32")
        return [[self._read(x, base, line, block) for line in self.lines] for x, base in self._sides()]

    def _sides(self) -> list[tuple[Matrix, tuple[Val, Val]]]:
        assert self.scales is not None
        sides = [(self.scales.scale, self.elements.scale_base)]
        if self.scales.zero is not None:
            sides.append((self.scales.zero, self.elements.zero_base))
        return sides

    def _together(self, x: Matrix) -> int:
        """Neighbouring columns whose scales (or zero points) are read at once."""
        together = self.count
        while together > 1 and not (
            x.row_stride == 1 and together * x.bits >= 8 and together * x.bits <= 128
            and x.aligned(together * x.bits // 8, self.dk.d) and divides(together, x.rows, self.dk.d)
        ):  # fmt: skip
            together //= 2
        return together

    def _read(self, x: Matrix, where: tuple[Val, Val], line: Val, block: Val) -> list[Val]:
        """The scales (or zero points) of a line's columns as `_unpack` takes them: packed, as they may wait for long."""
        k, dk = self.k, self.dk
        base, first = where
        offset = first + k.cast(line, "i64") * dk.size(x.row_stride) + k.cast(block, "i64") * dk.size(x.col_stride)
        together = self._together(x)
        bits = together * self.run * x.bits
        out: list[Val] = []
        for i in range(0, self.count, together):
            place = offset + dk.size(x.row_stride) * i if i else offset
            at = base.at(place >> 1 if x.bits == 4 else place * (x.bits // 8), "i8")
            if bits == 4:
                byte = k.load(at, "i8", invariant=True)
                out.append(k.cast(byte, "i32", signed=False) >> k.cast((place & 1) << 2, "i32"))
            elif bits == x.bits:
                out.append(k.load(at, memory_type(x.dtype), invariant=True))
            elif bits >= 32:
                out += k.elements(k.load(at, k.vector_of("i32", bits // 32), align=bits // 8, invariant=True))
            else:
                out.append(k.cast(k.load(at, f"i{bits}", align=bits // 8, invariant=True), "i32", signed=False))
        return out

    def _unpack(self, x: Matrix, raw: Sequence[Val], block: int = 0) -> list[Val]:
        """Each column's scale (or zero point) of a run's block: codes of 4 bits as i32, with others above them, others as they
        lie."""
        k, neighbours = self.k, self._together(x) * self.run
        if neighbours == 1:
            return list(raw)
        out: list[Val] = []
        for word in raw:
            count = min(neighbours, 32 // x.bits)
            if x.bits == 32:
                out.append(k.bitcast(word, x.dtype))
            elif x.bits == 16:
                out += k.elements(k.bitcast(word, k.vector_of(x.dtype, 2)))
            else:
                parts = [word >> (x.bits * j) for j in range(count)]
                out += parts if x.bits == 4 else [k.cast(part, "i8") for part in parts]
        return out[block :: self.run]

    def _scale(self, x: Matrix, raw: Val) -> Val:
        """A scale (or a zero point that is a float) in the type it is multiplied in."""
        k = self.k
        kind = self.dtype if self.narrow else "f32"
        if x.dtype.startswith("f8"):
            return k.broadcast(k.decode_float(raw, x.dtype, kind), 2)
        return k.broadcast(k.cast(raw, kind), 2)

    def _zero(self, raw: Val) -> Val:
        """An integer zero point, and the bias of integers as they are decoded, as a pair."""
        k, x = self.k, self.x
        code = (raw & 15) if x.bits == 4 else k.cast(raw, "i32", signed=False)
        sign = 0 if self.unsigned else 1 << (x.bits - 1)
        one = (code ^ sign) | _ONE[self.raw]
        return k.bitcast(k.prmt(one, one, 0x1010), self.pair)

    def prepare(self, read: Sequence[Any]) -> list[list[list[tuple[Val, Val | None]]]]:
        """(scale, zero point or None) by group, line and element, of what was read, each a run of groups."""
        if self.scales is None:
            return []
        s: Scales = self.scales
        out: list[list[list[tuple[Val, Val | None]]]] = []
        for sides, block in ((sides, block) for sides in read for block in range(self.run)):
            lines = []
            for i, packed in enumerate(sides[0]):
                scales = self._unpack(s.scale, packed, block)
                zeros: list[Val | None] = [None] * len(scales)
                if s.zero is not None:
                    found = self._unpack(s.zero, sides[1][i], block)
                    zeros = [self._zero(z) if self.folds else self._scale(s.zero, z) for z in found]
                lines.append([(self._scale(s.scale, x), z) for x, z in zip(scales, zeros, strict=True)])
            out.append(lines)
        return out

    # --- decoding

    def pairs(self, word: Val, scales: Sequence[tuple[Val, Val | None] | None]) -> list[Val]:
        """The pairs of a word, each with its scale (or None), as i32."""
        found = self.exact(word, [s[1] if s and self.folds else None for s in scales])
        return [self._scaled(value, scale) for value, scale in zip(found, scales, strict=True)]

    def _scaled(self, value: Val, scale: tuple[Val, Val | None] | None) -> Val:
        """What a pair of numbers of `raw` stands for, rounded once, as i32."""
        k = self.k
        if scale is None:
            return k.bitcast(value if self.raw == self.dtype else k.cast(k.cast(value, "f32"), self.dtype), "i32")
        if self.narrow:
            return k.bitcast(self.mul(value, scale[0]), "i32")
        wide = k.cast(value, "f32")
        if scale[1] is not None and not self.folds:
            wide = wide - scale[1]
        return k.bitcast(k.cast(wide * scale[0], self.dtype), "i32")

    def across(self, even: Sequence[Val], odd: Sequence[Val], scales: Sequence[Any] | None) -> list[Val]:
        """Pairs of neighbouring k of each n of a vector."""
        k, out = self.k, list[Val]()
        selectors = (0x5410, 0x7632) if self.x.bits == 4 else (0x5140, 0x7362)
        each = 16 // self.x.bits  # pairs of a shuffled word
        for a, b in zip(even, odd, strict=True):
            for selector in selectors:
                if len(out) < self.count:
                    mine = [scales[min(len(out) + j, self.count - 1)] if scales else None for j in range(each)]
                    out += self.pairs(k.prmt(a, b, selector), mine)
        return out[: self.count]

    def byte_pair(self, byte: Val, scale: tuple[Val, Val | None] | None) -> Val:
        """The pair of a byte's two elements of 4 bits, as i32; `byte` holds it four times."""
        k, sign, one = self.k, 0 if self.unsigned else 8, _ONE[self.raw]
        zero = scale[1] if scale and self.folds else None
        if self.x.dtype == "f4E2M1FN":
            place, bias = {"f16": (9, 15), "bf16": (6, 127)}[self.raw]
            low, high = (byte << place) & (7 << place), (byte << (place - 4)) & (7 << (16 + place))
            bits = low | high | ((byte << 12) & 0x8000) | (byte & 0x80000000)
            return self._scaled(self.mul(k.bitcast(bits, self.pair), k.const(2.0 ** (bias - 1), self.pair)), scale)
        if self.raw == "bf16":
            bits = k.and_xor(byte, 0x0000000F, (one ^ sign) * 0x10001) ^ ((byte >> 4) & 0x000F0000)
            return self._scaled(self.sub(k.bitcast(bits, self.pair), 128.0 + sign if zero is None else zero), scale)
        value = k.bitcast(k.and_xor(byte, 0x00F0000F, (one ^ sign) | (one ^ sign << 4) << 16), self.pair)
        less = k.vector([-1024.0 - sign, -64.0 - sign], "f16") if zero is None else k.vector([0.0, 960.0], "f16") - zero
        return self._scaled(k.fma(value, k.vector([1.0, 0.0625], "f16"), less), scale)

    def exact(self, word: Val, zeros: Sequence[Val | None]) -> list[Val]:
        """The pairs of a word as numbers of `raw`, less zero points (see `_zero`)."""
        k, dtype = self.k, self.x.dtype
        if dtype == "i4":
            return self._nibbles(word, zeros)
        if dtype == "f4E2M1FN":
            return self._e2m1(word)
        if dtype == "i8":
            biased = word if self.unsigned else word ^ 0x80808080
            upper = k.const(0x64646464, "i32")
            found = [k.bitcast(k.prmt(biased, upper, s), self.pair) for s in (0x4140, 0x4342)]
            bias = 1024.0 + (0 if self.unsigned else 128)
            return [x - (bias if z is None else z) for x, z in zip(found, zeros, strict=True)]
        return float_pairs(k, word, dtype)

    def _nibbles(self, word: Val, zeros: Sequence[Val | None]) -> list[Val]:
        k, out = self.k, []
        sign, one = 0 if self.unsigned else 8, _ONE[self.raw]
        bias = {"f16": 1024.0, "bf16": 128.0}[self.raw] + sign
        if self.raw == "bf16":  # whose mantissa holds no more than the lower nibble of a byte
            for j, zero in enumerate(zeros):
                bits = k.and_xor(word >> (4 * j), 0x000F000F, (one ^ sign) * 0x10001)
                out.append(self.sub(k.bitcast(bits, self.pair), bias if zero is None else zero))
            return out
        for j, zero in enumerate(zeros):
            shifted = word >> 8 if j >= 2 else word
            up = 4 * (j % 2)
            bits = k.and_xor(shifted, 0x000F000F << up, (one ^ (sign << up)) * 0x10001)
            value = k.bitcast(bits, self.pair)
            if not up:
                out.append(value - (bias if zero is None else zero))
                continue
            # 1024 + 16 q: a sixteenth of it is 64 + q.
            less = k.const(960.0 - bias, self.pair) if zero is None else 960.0 - zero
            out.append(k.fma(value, 0.0625, less))
        return out

    def _e2m1(self, word: Val) -> list[Val]:
        k, out = self.k, []
        if self.raw == "f16":
            # Three bits select the upper byte, whose sign is 0; eight times that sign is the lower byte.
            codes = word & 0x77777777
            table = [k.const(x, "i32") for x in E2M1_UPPER]
            low, high = k.prmt(*table, codes), k.prmt(*table, codes >> 16)
            found = [k.prmt(low, high, (4 + j) << 12 | (12 + j) << 8 | j << 4 | (8 + j)) for j in range(4)]
        else:
            # Exponent and mantissa go to where the mantissa is the highest bit of the type's.
            moved = [word << (6 - 4 * j) if j < 2 else word >> (4 * j - 6) for j in range(4)]
            found = [x & 0x01C001C0 for x in moved]
        for j, bits in enumerate(found):
            value = k.bitcast(bits | ((word << (12 - 4 * j)) & 0x80008000), self.pair)
            out.append(value if self.raw == "f16" else self.mul(value, k.const(2.0**126, self.pair)))
        return out

    # bf16 has these operations from sm_90 on, and fused multiply-adds from sm_80 on.

    def sub(self, a: Val, b: Val | float) -> Val:
        """a - b of pairs."""
        if self.raw != "bf16" or self.k.sm >= 90:
            return a - b
        less = self.k.const(-b, a.t) if isinstance(b, float) else -b
        return self.k.fma(a, 1.0, less)

    def mul(self, a: Val, b: Val) -> Val:
        """a * b of pairs."""
        return a * b if self.raw != "bf16" or self.k.sm >= 90 else self.k.fma(a, b, -0.0)
