"""The operands of matrix products on the CPU, as the micro-kernel multiplies them.

A *unit* is what one lane of the micro-kernel takes of an operand at a step: one element, converted to the accumulators' type,
or two neighbours along k of 8-bit integers as a pair of i16 in 32 bits, whose products one instruction adds (vpmaddwd: sums of
two products of 8-bit numbers fit 32 bits, where vpmaddubsw, which adds them in 16 bits, saturates). A line is a row of A or a
column of B.
"""

from __future__ import annotations

from dataclasses import dataclass

from ingot import dims
from ingot.compiler.codegen.cpu_kernel import CpuKernel
from ingot.compiler.codegen.cpu_nibbles import load_nibbles, load_wide_nibbles, shares_bytes
from ingot.compiler.codegen.cpu_region import Position, load_lanes, storage_type
from ingot.compiler.codegen.values import Operand, Val
from ingot.dims import Dim
from ingot.dispatch import Dispatch, TensorArg
from ingot.matmul_scales import matmul_scales


@dataclass(frozen=True)
class Arithmetic:
    """What is multiplied and added.

    Attributes:
        acc: type of the accumulators, 32 bits wide or 64.
        pairs: units are pairs of 8-bit integers, accumulated in i32.
    """

    acc: str
    pairs: bool = False

    @property
    def unit(self) -> int:
        """Elements along k of a unit."""
        return 2 if self.pairs else 1

    @property
    def element(self) -> str:
        """The type of an element in a unit."""
        return "i16" if self.pairs else self.acc

    def units(self, size: Dim) -> Dim:
        """Units of so many elements."""
        return dims.ceildiv(size, 2) if self.pairs else size

    def multiply(self, ck: CpuKernel, x: Val, y: Val, total: Val) -> Val:
        """`total` plus the products of two vectors of units."""
        k = ck.k
        if not self.pairs:
            return k.fma(x, y, total)
        lanes = total.t.lanes
        wide = k.vector_of("i16", 2 * lanes)
        name = {8: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.avx512.pmaddw.d.512"}[lanes]
        attributes = {
            "intrin": k.attr(f'"{name}"'),
            "operandSegmentSizes": k.attr("array<i32: 2, 0>"),
            "op_bundle_sizes": k.attr("array<i32>"),
        }
        operands = (k.bitcast(x, wide), k.bitcast(y, wide))
        return total + k.emit("llvm.call_intrinsic", operands, total.t, attributes)


def arithmetic_of(dispatch: Dispatch) -> Arithmetic:
    """How the products of a matmul or conv are computed."""
    acc = str(dispatch.attr("acc"))
    bytes_ = all(t.dtype == "i8" for t in dispatch.operands[:2])
    return Arithmetic(acc, bytes_ and acc == "i32")


def as_number(ck: CpuKernel, raw: Val, dtype: str, unsigned: bool, number: str) -> Val:
    """Elements in storage form (`load_lanes`, `load_nibbles`) as numbers of a computed type."""
    k = ck.k
    if dtype.startswith(("f8", "f4")):
        return k.decode_float(raw, dtype, number)
    if dtype == "i4" and not unsigned:
        raw = (raw ^ 8) - 8
    return k.cast(raw, number, signed=not unsigned)


@dataclass
class Lines:
    """A tensor over lines and k: where its elements lie.

    Attributes:
        tensor: the operand.
        line, step: element strides from a line to the next and along k.
        unsigned: its integers are.
        even: each line's first element, and every second one, begins a byte, where elements share bytes.
        base, start: address of the tensor, and the elements before the first, set for each work item.
    """

    ck: CpuKernel
    tensor: TensorArg
    line: Dim
    step: Dim
    unsigned: bool = False
    even: bool = False
    base: Val | None = None
    start: Val | None = None

    def begin(self, base: Val, start: Operand = 0) -> None:
        """Set where the elements lie: `start` elements from `base`."""
        place = self.ck.k.value(start, "i64")
        dtype = self.tensor.dtype
        if shares_bytes(dtype):
            self.base, self.start = base, place
        else:
            self.base, self.start = base.at(place, storage_type(dtype)), self.ck.k.const(0, "i64")

    def place(self, line: Operand, k: Operand) -> Val:
        """The number of an element, from the first."""
        ck = self.ck
        return ck.k.value(line, "i64") * ck.dim(self.line) + ck.k.value(k, "i64") * ck.dim(self.step)

    def address(self, line: Operand, k: Operand) -> Val:
        """About where an element lies, for prefetching."""
        assert self.base is not None
        assert self.start is not None
        place = self.place(line, k)
        if shares_bytes(self.tensor.dtype):
            return self.base.at((self.start + place) >> 1, "i8")
        return self.base.at(place, storage_type(self.tensor.dtype))

    def load(self, number: str, line: Operand, k: Operand, step: Dim, at: Position) -> Val:
        """Elements from one on, `step` apart from lane to lane, as numbers."""
        ck, dtype = self.ck, self.tensor.dtype
        assert self.base is not None
        assert self.start is not None
        place, distance = self.place(line, k), ck.dim(step) if at.lanes else ck.k.const(0, "i64")
        if shares_bytes(dtype) and self.even and distance.const == 1 and at.mask is None and at.lanes and at.lanes % 8 == 0:
            raw = load_wide_nibbles(ck, self.base, self.start + place, at.lanes)
        elif shares_bytes(dtype):
            raw = load_nibbles(ck, self.base, self.start + place, distance, at, begins=self.even)
        else:
            raw = load_lanes(ck, self.base.at(place, storage_type(dtype)), dtype, distance, at)
        return as_number(ck, raw, dtype, self.unsigned, number)


@dataclass
class BlockScales:
    """Scales of an operand, and its zero points.

    Attributes:
        scale, zero: over lines and blocks.
        block: how many k share one; 0: all.
        blocks: how many there are.
        narrow: the 16-bit type that elements are rounded to once scaled, or "".
    """

    scale: Lines
    zero: Lines | None
    block: int
    blocks: Dim
    narrow: str = ""

    def number(self, ck: CpuKernel, k: Operand) -> Val:
        """The block of an element."""
        return ck.k.value(k, "i64") // self.block if self.block else ck.k.const(0, "i64")

    def apply(self, ck: CpuKernel, x: Val, scale: Val, zero: Val | None) -> Val:
        """(x - zero) * scale."""
        k = ck.k
        lanes = x.t.lanes if x.t.kind == "vector" else 0

        def alike(y: Val) -> Val:
            return k.broadcast(y, lanes) if lanes and y.t.kind != "vector" else y

        x = x if zero is None else x - alike(zero)
        x = x * alike(scale)
        return k.cast(k.cast(x, self.narrow), x.t.element.name) if self.narrow else x


class Factor:
    """An operand of a product.

    Attributes:
        arithmetic: what units are.
        lines: its elements.
        size: elements along k.
        scales: or None.
    """

    def __init__(
        self, ck: CpuKernel, arithmetic: Arithmetic, lines: Lines, size: Dim, scales: BlockScales | None = None
    ) -> None:
        self.ck, self.arithmetic, self.lines, self.size, self.scales = ck, arithmetic, lines, size, scales

    @property
    def dtype(self) -> str:
        return self.lines.tensor.dtype

    @property
    def is_plain(self) -> bool:
        """Elements are units as they lie."""
        return self.scales is None and self.dtype == self.arithmetic.acc

    def along(self, line: Operand, unit: Operand, at: Position) -> Val:
        """Units of a line, neighbours along k, from one on. Pairs are never masked, and all of their elements must exist."""
        k, lines = self.ck.k, self.lines
        unit = k.value(unit, "i64")
        if self.arithmetic.pairs:
            assert at.mask is None
            if not at.lanes:
                return self._pair(line, unit, at, 0)
            pairs = lines.load("i16", line, unit * 2, lines.step, Position((), 0, 2 * at.lanes))
            return k.bitcast(pairs, k.vector_of("i32", at.lanes))
        x = lines.load(self.arithmetic.acc, line, unit, lines.step, at)
        return x if self.scales is None else self._scaled_along(self.scales, x, line, unit, at)

    def across(self, line: Operand, unit: Operand, at: Position) -> Val:
        """The unit of neighbouring lines."""
        if self.arithmetic.pairs:
            return self._pair(line, self.ck.k.value(unit, "i64"), at, self.lines.line)
        x = self.lines.load(self.arithmetic.acc, line, unit, self.lines.line, at)
        s = self.scales
        if s is None:
            return x
        block = s.number(self.ck, unit)
        acc = self.arithmetic.acc
        scale = s.scale.load(acc, line, block, s.scale.line, at)
        zero = None if s.zero is None else s.zero.load(acc, line, block, s.zero.line, at)
        return s.apply(self.ck, x, scale, zero)

    def _pair(self, line: Operand, unit: Val, at: Position, step: Dim) -> Val:
        """A pair, of one line or of neighbouring ones; the second element is 0 where there is none."""
        ck, k = self.ck, self.ck.k
        first, second = unit * 2, unit * 2 + 1
        exists = None
        if not isinstance(self.size, int) or self.size % 2:
            last = ck.dim(self.size) - 1
            exists, second = second <= last, k.min(second, last)
        low, high = (self.lines.load("i32", line, x, step, at) for x in (first, second))
        if exists is not None:
            high = k.select(exists, high, k.const(0, high.t))
        return (low & 0xFFFF) | (high << 16)

    def _scaled_along(self, s: BlockScales, x: Val, line: Operand, unit: Val, at: Position) -> Val:
        """Where lanes lie along k, they share a scale if no vector crosses blocks."""
        ck, k, acc = self.ck, self.ck.k, self.arithmetic.acc
        one, both = Position(()), (s.scale, s.zero)
        if not at.lanes or not s.block or s.block % at.lanes == 0:
            block = s.number(ck, unit)
            scale, zero = (None if p is None else p.load(acc, line, block, 0, one) for p in both)
            assert scale is not None
            return s.apply(ck, x, scale, zero)
        last = ck.dim(s.blocks) - 1
        blocks = [k.min(s.number(ck, unit + i), last) for i in range(at.lanes)]
        scale, zero = (None if p is None else k.vector([p.load(acc, line, b, 0, one) for b in blocks]) for p in both)
        assert scale is not None
        return s.apply(ck, x, scale, zero)


def scales_of(dispatch: Dispatch) -> tuple[list[int], list[int]]:
    """Numbers of the operands that hold scales and zero points, of a and of b."""
    found = matmul_scales(dict(dispatch.attrs))
    of_a = [] if found.a_scale is None else [found.a_scale]
    return of_a, [i for i in (found.b_scale, found.b_zero) if i is not None]
