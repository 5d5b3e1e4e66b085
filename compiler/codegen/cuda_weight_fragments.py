"""Quantized weights from memory to fragments of a tensor-core instruction, decoded in registers (cuda_weight_decoder.py).

The instruction's rows are the weights' columns n, so that its A operand holds weights: C^T = B^T A^T. A lane of a warp reads
vectors of neighbours and keeps all of them: which n are the instruction's rows, and in which order it takes k, is free as long
as the other operand follows.

- K-major weights: a lane reads neighbouring k of two rows of each 16 (lane / 4 and 8 more). Its quad reads four such vectors.
- Packed weights (ingot.weight_packing): a lane reads what it takes of a tile at once, in the order in which it takes it.
- N-major weights: a lane reads neighbouring n at eight k. Two words of neighbouring k are shuffled into pairs first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ingot import dims
from ingot.compiler.codegen.cuda_decode import QuantizedElements
from ingot.compiler.codegen.cuda_gemm_problem import GemmProblem
from ingot.compiler.codegen.cuda_kernel import DispatchKernel, divides
from ingot.compiler.codegen.cuda_weight_decoder import WeightDecoder
from ingot.compiler.codegen.values import Val
from ingot.weight_packing import LANE_BYTES, STEP_K, TILE_BYTES, TILE_COLUMNS

CHUNK = 8  # k of a lane that two instructions of 16 k take together
_INFINITE = ("f8E5M2",)


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
        reads_runs: scales of neighbouring blocks may be read at once.
    """

    def __init__(
        self, dk: DispatchKernel, elements: QuantizedElements, lanes: WeightLanes, dtype: str, tiles: int, depth: int,
        size_k: int, reads_runs: bool = False,
    ) -> None:
        assert tiles % lanes.tiles == 0, (tiles, lanes)
        super().__init__(dk, elements, dtype, lanes.together)
        self.lanes, self.tiles, self.depth, self.size_k = lanes, tiles, depth, size_k
        if self.scales is not None and reads_runs and self._consecutive():
            self.run = self.longest_run(len(set(self.groups().values())))

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

    def _consecutive(self) -> bool:
        """True where the groups of a batch are blocks that follow one another, the first at a multiple of their number."""
        assert self.scales is not None
        block = self.scales.block
        return self.lanes.packed and 0 < block < self.batch_k and self.batch_k % block == 0

    def _fetch_scales(self, at: Val, places: Sequence[Val]) -> list[Any]:
        """Scales and zero points as they lie in memory, by run of groups and line."""
        if self.scales is None:
            return []
        if self.run > 1:
            block = self.scales.block
            last = (self.dk.size(self.scales.scale.cols, "i32") - self.run) * block
            return [self.read_scales(self.k.min(at + i, last)) for i in range(0, self.batch_k, self.run * block)]
        out, known = [], set()
        for (step, chunk), group in self.groups().items():
            if group in known:
                continue
            known.add(group)
            out.append(self.read_scales(places[step] + self.lanes.chunk_k * chunk))
        return out

    def prepared(self, read: Sequence[Any], group: int) -> Any:
        """What `prepare` gives for a group, of what `fetch` read."""
        return self.prepare([read[group // self.run]])[group % self.run]

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
