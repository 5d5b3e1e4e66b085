"""Quantized weights from memory to fragments of a tensor-core instruction, decoded in registers.

The instruction's rows are the weights' columns n, so that its A operand holds weights: C^T = B^T A^T. A lane of a warp reads
vectors of neighbours and keeps all of them: which n are the instruction's rows, and in which order it takes k, is free as long
as the other operand follows.

- K-major weights: a lane reads neighbouring k of two rows of each 16 (lane / 4 and 8 more). Its quad reads four such vectors.
- Packed weights (ingot.weight_packing): a lane reads what it takes of a tile at once, in the order in which it takes it.
- N-major weights: a lane reads neighbouring n at eight k. Two words of neighbouring k are shuffled into pairs first.

Elements come out in pairs, of k that an instruction multiplies together:

- 4-bit words give the pairs of nibbles (j, j + 4), j = 0..3, which lie 16 bits apart. An integer becomes the lowest mantissa
  bits of 2^10 (bf16: 2^7), from which that and its zero point are taken. A byte's upper nibble becomes 16 times the integer,
  which the subtraction's multiplication undoes. An E2M1's code selects the upper byte of its f16; for bf16 its bits become the
  lowest of the exponent and the highest of the mantissa, of a number that is too small by the difference of the biases.
- 8-bit words give pairs of neighbours, as in cuda_decode.py.

All of these are exact. A scale is multiplied once, in the 16-bit type where it is of that type or a small float, and else in
f32: a weight is rounded once, to the activations' type, as ingot.matmul_scales defines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ingot import dims
from ingot.compiler.codegen.cuda_decode import E2M1_UPPER, INTEGERS, QuantizedElements, float_pairs
from ingot.compiler.codegen.cuda_gemm_problem import GemmProblem, Matrix, Scales
from ingot.compiler.codegen.cuda_kernel import DispatchKernel, divides, memory_type
from ingot.compiler.codegen.values import Val
from ingot.weight_packing import LANE_BYTES, STEP_K, TILE_BYTES, TILE_COLUMNS

CHUNK = 8  # k of a lane that two instructions of 16 k take together
_SMALL_SCALES = {"f16": ("f8E4M3FN", "f8E5M2"), "bf16": ("f8E4M3FN", "f8E5M2", "f8E8M0FNU")}  # exact in that type
_INFINITE = ("f8E5M2",)
_ONE = {"f16": 0x6400, "bf16": 0x4300}  # 2^10 and 2^7, whose last bit counts 1


@dataclass(frozen=True)
class WeightLanes:
    """How the lanes of a warp share weights.

    Attributes:
        k_major: vectors run along k.
        nbytes: of a vector.
        bits: of an element.
        packed: a vector is a lane's part of a packed tile.
    """

    k_major: bool
    nbytes: int
    bits: int
    packed: bool = False

    @property
    def count(self) -> int:
        """Elements of a vector."""
        return self.nbytes * 8 // self.bits

    @property
    def lane_k(self) -> int:
        """The k of a lane in a step; neighbours, but of packed weights."""
        if self.packed:
            return self.count // 2
        return self.count if self.k_major else CHUNK

    @property
    def quad_k(self) -> int:
        """From a lane's first k to that of the next lane of its quad, where each has neighbours."""
        return 0 if self.packed else self.lane_k

    @property
    def chunk_k(self) -> int:
        """From a chunk's first k to that of the lane's next."""
        return 2 * STEP_K if self.packed else CHUNK

    @property
    def span_k(self) -> int:
        """The k from a lane's first in a step to its last."""
        return self.step_k if self.packed else self.lane_k

    @property
    def together(self) -> int:
        """Neighbouring columns of a vector."""
        return 2 if self.packed else 1 if self.k_major else self.count

    @property
    def step_bytes(self) -> int:
        """Bytes of a lane for a step, of the columns of a vector of each lane."""
        return self.nbytes * (1 if self.packed else 2 if self.k_major else CHUNK)

    @property
    def step_k(self) -> int:
        """k of a warp's step."""
        return 4 * self.lane_k

    @property
    def chunks(self) -> int:
        return self.lane_k // CHUNK

    @property
    def interleaved(self) -> bool:
        """True where a chunk's pairs are (j, j + 4), not neighbours."""
        return self.k_major and self.bits == 4 and not self.packed

    @property
    def tiles(self) -> int:
        """Instructions' rows of 16 that a vector of each lane covers."""
        return 1 if self.k_major else self.count // 2

    def column(self, tile: int, half: int, group: Val) -> Val:
        """The weights' column, from the warp's first, in row `group` + 8 * `half` of an instruction's tile."""
        if self.packed:
            return 2 * group + (16 * tile + half)
        if self.k_major:
            return group + (16 * tile + 8 * half)
        return group * self.count + (2 * tile + half)


def weight_lanes(p: GemmProblem, nbytes: int) -> WeightLanes | None:
    """The widest vectors of at most `nbytes` that the weights allow; None where their lines do not suit."""
    x, s = p.b, p.b_scales
    if x.major == "none" or not isinstance(p.k, int) or x.bits > 8:
        return None
    if p.packed:
        lanes = WeightLanes(True, LANE_BYTES, x.bits, packed=True)
        return lanes if s is None or s.block % lanes.chunk_k == 0 else None
    k_major = x.major == "col"
    while nbytes * 8 >= x.bits:
        lanes = WeightLanes(k_major, nbytes, x.bits)
        block = s.block if s is not None else 0
        # A chunk's k share a scale, and those of a vector have scales at constant distances.
        suits = block % CHUNK == 0 and (not k_major or block % lanes.lane_k == 0 or lanes.lane_k % block == 0)
        whole = divides(lanes.count, p.n, p.dispatch) and lanes.count >= 2
        if x.aligned(nbytes, p.dispatch) and p.k % lanes.lane_k == 0 and suits and (lanes.chunks if k_major else whole):
            return lanes
        nbytes //= 2
    return None


class WeightDecoder:
    """Decodes words of weights, with their scales.

    Args:
        dk: the kernel.
        elements: the weights.
        dtype: the 16-bit type to decode to.
        count: neighbouring columns that scales are read for together.
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

    # --- scales

    def read_scales(self, col: Val) -> list[list[list[Val]]]:
        """Scales, and zero points where there are any, of each line for the block of k = `col`, as they lie in memory."""
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
        bits = together * x.bits
        out: list[Val] = []
        for i in range(0, self.count, together):
            place = offset + dk.size(x.row_stride) * i if i else offset
            at = base.at(place >> 1 if x.bits == 4 else place * (x.bits // 8), "i8")
            if together == 1 and x.bits == 4:
                byte = k.load(at, "i8", invariant=True)
                out.append(k.cast(byte, "i32", signed=False) >> k.cast((place & 1) << 2, "i32"))
            elif together == 1:
                out.append(k.load(at, memory_type(x.dtype), invariant=True))
            elif bits >= 32:
                out += k.elements(k.load(at, k.vector_of("i32", bits // 32), align=bits // 8, invariant=True))
            else:
                out.append(k.cast(k.load(at, f"i{bits}", align=bits // 8, invariant=True), "i32", signed=False))
        return out

    def _unpack(self, x: Matrix, raw: Sequence[Val]) -> list[Val]:
        """Each column's scale (or zero point): codes of 4 bits as i32, with others above them, others as they lie."""
        k, together = self.k, self._together(x)
        if together == 1:
            return list(raw)
        out: list[Val] = []
        for word in raw:
            count = min(together, 32 // x.bits)
            if x.bits == 32:
                out.append(k.bitcast(word, x.dtype))
            elif x.bits == 16:
                out += k.elements(k.bitcast(word, k.vector_of(x.dtype, 2)))
            else:
                parts = [word >> (x.bits * j) for j in range(count)]
                out += parts if x.bits == 4 else [k.cast(part, "i8") for part in parts]
        return out

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
        """(scale, zero point or None) by group, line and element, of what `fetch` read."""
        if self.scales is None:
            return []
        s: Scales = self.scales
        out: list[list[list[tuple[Val, Val | None]]]] = []
        for sides in read:
            lines = []
            for i, packed in enumerate(sides[0]):
                scales = self._unpack(s.scale, packed)
                zeros: list[Val | None] = [None] * len(scales)
                if s.zero is not None:
                    found = self._unpack(s.zero, sides[1][i])
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


class WeightFragments(WeightDecoder):
    """Fetches and decodes a warp's weights.

    Args:
        dk: the kernel.
        elements: the weights.
        lanes: how lanes share them.
        dtype: the 16-bit type to decode to.
        tiles: 16 columns each, of a warp; a multiple of `lanes.tiles`.
        depth: steps that are fetched together.
        size_k: k.
    """

    def __init__(
        self, dk: DispatchKernel, elements: QuantizedElements, lanes: WeightLanes, dtype: str, tiles: int, depth: int,
        size_k: int,
    ) -> None:
        assert tiles % lanes.tiles == 0, (tiles, lanes)
        super().__init__(dk, elements, dtype, lanes.together)
        self.lanes, self.tiles, self.depth, self.size_k = lanes, tiles, depth, size_k

    @property
    def columns(self) -> int:
        """Columns of a warp."""
        return 16 * self.tiles

    @property
    def batch_k(self) -> int:
        """k of what is fetched together."""
        return self.depth * self.lanes.step_k

    # --- memory

    def start(self, batch: Sequence[Val], first: Val, lane: Val) -> None:
        """Begin with the columns from `first` on, of a batch."""
        k, dk, x, lanes = self.k, self.dk, self.x, self.lanes
        self.elements.start(batch)
        n = dk.size(x.rows, "i32")
        self.quad, group = lane & 3, lane >> 2
        if lanes.packed:
            self.lines = [k.min(first + lanes.column(t, 0, group), n - 2) for t in range(self.tiles)]
            line = dk.size(dims.floordiv(x.cols, lanes.step_k) * TILE_BYTES)  # bytes of 16 columns
            tiles = [k.min(first + TILE_COLUMNS * t, n - TILE_COLUMNS) // TILE_COLUMNS for t in range(self.tiles)]
            base, _ = self.elements.base
            self.starts = [base.at(k.cast(t, "i64") * line + k.cast(lane * LANE_BYTES, "i64"), "i8") for t in tiles]
            return
        if lanes.k_major:
            self.lines = [k.min(first + lanes.column(t, h, group), n - 1) for t in range(self.tiles) for h in range(2)]
        else:
            step = 8 * lanes.count
            self.lines = [
                k.min(first + (t * step + group * lanes.count), n - lanes.count) for t in range(self.tiles // lanes.tiles)
            ]
        base, offset = self.elements.base
        along = dk.size(x.row_stride)
        self.starts = [self._byte(base, offset + k.cast(line, "i64") * along, x.bits) for line in self.lines]

    def _byte(self, base: Val, elements: Val, bits: int) -> Val:
        """The address of an element that begins a byte."""
        return base.at(elements >> 1 if bits == 4 else elements * (bits // 8), "i8")

    def _k(self, at: Val) -> Val:
        """This lane's first k of a step, the last ones' past the end."""
        return self.k.min(self._lane_k(at), self.size_k - self.lanes.span_k)

    def _lane_k(self, at: Val) -> Val:
        return at + self.quad * self.lanes.quad_k if self.lanes.quad_k else at

    def fetch(self, at: Val, whole: bool) -> tuple[list[list[Val]], list[Any]]:
        """(words of each step, what was read of scales) of the steps from k = `at`, a multiple of `batch_k`, on.

        Where they may go past the end of K (not `whole`), the last k's weights are read for those past it, to be multiplied by
        zeros; infinities, whose product with them is none, are left out.
        """
        k, lanes, x = self.k, self.lanes, self.x
        words: list[list[Val]] = []
        kind = k.vector_of("i32", lanes.nbytes // 4) if lanes.nbytes >= 4 else k.type(f"i{8 * lanes.nbytes}")
        stride = k.const(1, "i64") if lanes.k_major else self.dk.size(x.col_stride)
        places = [self._k(at + s * lanes.step_k) for s in range(self.depth)]
        for place in places:
            found: list[Val] = []
            for start in self.starts:
                if lanes.packed:
                    first = start.at(k.cast(place // lanes.step_k, "i64") * TILE_BYTES, "i8")
                else:
                    first = self._byte(start, k.cast(place, "i64") * stride, x.bits)
                for j in range(1 if lanes.k_major else CHUNK):
                    address = first if j == 0 else self._byte(first, stride * j, x.bits)
                    loaded = k.load(address, kind, align=lanes.nbytes, invariant=True)
                    found += k.elements(loaded) if lanes.nbytes >= 4 else [k.cast(loaded, "i32", signed=False)]
            words.append(found)
        if x.dtype in _INFINITE and not whole:
            for s in range(self.depth):
                valid = self._lane_k(at + s * lanes.step_k) < self.size_k
                words[s] = [k.select(valid, w, 0) for w in words[s]]
        return words, self._fetch_scales(at, places)

    def groups(self) -> dict[tuple[int, int], int]:
        """For each (step, chunk) of a batch, the number of the group of k that its scale is read for."""
        lanes = self.lanes
        block = self.scales.block if self.scales is not None else 0
        numbers: dict[tuple[int, int], int] = {}
        seen: dict[Any, int] = {}
        for s in range(self.depth):
            for c in range(lanes.chunks):
                key: Any = (s, lanes.chunk_k * c // block) if block and block < lanes.span_k else s
                if not block or block % self.batch_k == 0:
                    key = 0
                elif block % lanes.step_k == 0:
                    key = s * lanes.step_k // block if self.batch_k % block == 0 else s
                numbers[s, c] = seen.setdefault(key, len(seen))
        return numbers

    def _fetch_scales(self, at: Val, places: Sequence[Val]) -> list[Any]:
        """Scales and zero points as they lie in memory, by group and line."""
        if self.scales is None:
            return []
        out, known = [], set()
        for (step, chunk), group in self.groups().items():
            if group in known:
                continue
            known.add(group)
            out.append(self.read_scales(places[step] + self.lanes.chunk_k * chunk))
        return out

    # --- fragments

    def chunk(self, words: Sequence[Val], prepared: Mapping[int, Any], step: int, chunk: int) -> list[list[Val]]:
        """For both instructions of a chunk and each of their tiles, the four registers of A.

        Args:
            words: of the step.
            prepared: scales, by group.
            step, chunk: which.
        """
        lanes = self.lanes
        of = prepared[self.groups()[step, chunk]] if prepared else None
        if lanes.packed:
            return self._packed_chunk(words, of, chunk)
        per = max(1, lanes.nbytes // 4)
        # pairs[row of this lane][pair of k]
        pairs: list[list[Val]] = []
        if lanes.k_major:
            each = CHUNK * lanes.bits // 32
            for i in range(len(self.lines)):
                mine = words[i * per + chunk * each :][:each]
                scale = of[i][0] if of else None
                pairs.append([x for w in mine for x in self.pairs(w, [scale] * (16 // lanes.bits))])
        else:
            for i in range(len(self.lines)):
                mine = words[i * per * CHUNK :][: per * CHUNK]
                rows: list[list[Val]] = [[] for _ in range(lanes.count)]
                for j in range(0, CHUNK, 2):
                    even, odd = mine[j * per :][:per], mine[(j + 1) * per :][:per]
                    for row, x in zip(rows, self.across(even, odd, of[i] if of else None), strict=True):
                        row.append(x)
                pairs += rows
        out = []
        for half in range(2):
            for t in range(self.tiles):
                low, high = pairs[2 * t], pairs[2 * t + 1]
                out.append([low[2 * half], high[2 * half], low[2 * half + 1], high[2 * half + 1]])
        return out

    def _packed_chunk(self, words: Sequence[Val], of: Any, chunk: int) -> list[list[Val]]:
        each = self.lanes.bits // 4  # words of an instruction
        out: list[list[Val]] = []
        for half in range(2):
            for t in range(self.tiles):
                mine = words[LANE_BYTES // 4 * t + (2 * chunk + half) * each :][:each]
                scales = list(of[t]) if of else [None, None]
                out.append([pair for w in mine for pair in self.pairs(w, scales * (2 // each))])
        return out
