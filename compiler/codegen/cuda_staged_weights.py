"""Tiles of quantized weights in shared memory as they lie in memory, decoded into registers on their way to an instruction.

A tile holds the weights of 64 k, in bytes (`raw_matrix`, `raw_shape`) and in the swizzled lines of cuda_shared_tile.py, which
are TMA's as well. A lane holds its columns (lane / 4 of an instruction) at the k that an instruction of 16 k takes from it: two
neighbours of the first eight, two of the others, by lane % 4. The order of k is that of the other operand:

- K-major weights of 4 bits: the lanes of a quad read the same eight bytes of a column, and each takes one byte of each word;
- K-major weights of 8 bits: a lane reads two bytes for each half of an instruction's k;
- N-major weights: a lane reads neighbouring columns at each of its four k;
- packed weights (ingot.weight_packing): a lane reads 16 bytes of two columns, of all of the tile's k or half of it, and needs
  no shuffles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ingot import dims
from ingot.compiler.codegen.cuda_decode import QuantizedElements
from ingot.compiler.codegen.cuda_gemm_problem import Matrix, Scales
from ingot.compiler.codegen.cuda_kernel import DispatchKernel
from ingot.compiler.codegen.cuda_shared_tile import TileShape, swizzle
from ingot.compiler.codegen.cuda_weight_decoder import WeightDecoder
from ingot.compiler.codegen.values import Val
from ingot.weight_packing import LANE_BYTES, TILE_BYTES, TILE_COLUMNS, tile_k

TILE_K = 64  # k of a tile: 128 bytes of the other operand
STEP_K = 16  # of an instruction
STEPS = TILE_K // STEP_K


def raw_matrix(x: Matrix) -> Matrix:
    """Weights as bytes: those of 4 bits have half as many, along the axis where they are neighbours."""
    if x.bits == 8:
        return replace(x, dtype="i8")

    def half(d: dims.Dim) -> dims.Dim:
        return dims.floordiv(d, 2)

    batch = tuple(half(s) for s in x.batch_strides)
    if x.major == "col":
        return replace(x, dtype="i8", bits=8, cols=half(x.cols + 1), row_stride=half(x.row_stride), batch_strides=batch)
    return replace(x, dtype="i8", bits=8, rows=half(x.rows + 1), col_stride=half(x.col_stride), batch_strides=batch)


def raw_shape(x: Matrix, columns: int) -> TileShape:
    """The tile of `columns` columns in bytes, as an operand whose rows they are."""
    if x.major == "col":
        return TileShape(columns, TILE_K * x.bits // 8, 8, True)
    return TileShape(columns * x.bits // 8, TILE_K, 8, False)


def packed_matrix(x: Matrix) -> Matrix:
    """Packed weights as bytes: a line is 16 columns, whose tiles follow one another along k."""
    assert not any(x.batch_strides), x
    line = x.cols * (TILE_COLUMNS * x.bits // 8)
    return replace(x, dtype="i8", bits=8, rows=dims.floordiv(x.rows, TILE_COLUMNS), cols=line, row_stride=line)


def packed_shape(x: Matrix, columns: int) -> TileShape:
    """The tile of `columns` columns of packed weights in bytes, as an operand whose rows are lines of `packed_matrix`."""
    return TileShape(columns // TILE_COLUMNS, TILE_K * TILE_COLUMNS * x.bits // 8, 8, True)


def suits_stages(scales: Scales | None) -> bool:
    """True where an instruction's k share their scales, and a tile's are whole blocks, or part of one."""
    block = scales.block if scales is not None else 0
    return block % TILE_K == 0 or (TILE_K % block == 0 and block >= STEP_K)


class _TileDecoder(WeightDecoder):
    """A lane's columns of tiles, and their scales.

    Args:
        dk: the kernel.
        elements: the weights.
        dtype: the 16-bit type to decode to.
        columns: of this lane, in the tile: the first of each `count` neighbours.
        count: neighbours, whose scales are read together.
    """

    def __init__(
        self, dk: DispatchKernel, elements: QuantizedElements, dtype: str, columns: Sequence[Val], count: int
    ) -> None:
        super().__init__(dk, elements, dtype, count)
        self.columns = columns

    def read_runs(self) -> None:
        """Let scales of a tile's blocks that are neighbours in memory be read at once."""
        if self.scales is not None:
            self.run = self.longest_run(self.blocks)

    def begin(self, batch: Sequence[Val], first: Val) -> None:
        """Begin with tiles whose first column is `first`, of a batch."""
        self.elements.start_scales(batch)
        n = self.dk.size(self.x.rows, "i32")
        self.lines = [self.k.min(first + c, n - self.count) for c in self.columns]

    @property
    def blocks(self) -> int:
        """Blocks of k with scales of their own in a tile."""
        block = self.scales.block if self.scales is not None else 0
        return TILE_K // block if block and block < TILE_K else 1

    def fetch_scales(self, step: Val) -> list[Any]:
        """What `prepare` takes of a tile; of the last k for what lies beyond."""
        if self.scales is None:
            return []
        each = TILE_K // self.blocks
        last = self.dk.size(self.x.cols, "i32") - 1
        if self.run > 1:
            last = (self.dk.size(self.scales.scale.cols, "i32") - self.run) * each
        return [self.read_scales(self.k.min(step * TILE_K + i * each, last)) for i in range(0, self.blocks, self.run)]

    def of_step(self, step: int, prepared: Sequence[Any]) -> Any:
        """What `prepare` gave for an instruction's k, or None."""
        return prepared[step * STEP_K * self.blocks // TILE_K] if prepared else None


def packed_bytes(bits: int) -> int:
    """Bytes of a stage's packed weights of 16 columns."""
    return TILE_BYTES * TILE_K // tile_k(bits)


class PackedWeights(_TileDecoder):
    """A lane's packed weights of stages in shared memory, where the tiles of 16 columns follow one another along k.

    Args:
        dk: the kernel.
        elements: the weights.
        dtype: the 16-bit type to decode to.
        columns: the first of the lane's two, of each 16 of the warp.
        starts: where the lane's bytes of their first tiles lie in a stage.
    """

    def __init__(
        self, dk: DispatchKernel, elements: QuantizedElements, dtype: str, columns: Sequence[Val], starts: Sequence[Val]
    ) -> None:
        super().__init__(dk, elements, dtype, columns, 2)
        self.starts = starts
        self.steps = tile_k(elements.x.bits) // STEP_K  # of a packed tile
        self.words: list[list[Val]] = []

    def registers(self, tile: Val, step: int, prepared: Sequence[Any]) -> list[Val]:
        """See `StagedWeights.registers`; of the first 16 columns."""
        return self._registers(tile, step, prepared)[0]

    def pairs_of(self, tile: Val, step: int, prepared: Sequence[Any]) -> list[tuple[Val, Val]]:
        """See `StagedWeights.pairs_of`."""
        return [(x[c], x[2 + c]) for x in self._registers(tile, step, prepared) for c in range(2)]

    def _registers(self, tile: Val, step: int, prepared: Sequence[Any]) -> list[list[Val]]:
        """For each 16 columns the pairs of an instruction's k: of both columns for its first half, then for the other."""
        k = self.k
        if step % self.steps == 0:
            places = [tile + (start + step // self.steps * TILE_BYTES) for start in self.starts]
            kind = k.vector_of("i32", LANE_BYTES // 4)
            self.words = [k.elements(k.load(at, kind, align=LANE_BYTES)) for at in places]
        each = LANE_BYTES // (4 * self.steps)
        of = self.of_step(step, prepared)
        out = []
        for i, words in enumerate(self.words):
            scales = list(of[i]) if of else [None, None]
            mine = words[step % self.steps * each :][:each]
            out.append([pair for word in mine for pair in self.pairs(word, scales * (2 // each))])
        return out


class StagedWeights(_TileDecoder):
    """A lane's weights of a tile.

    Args:
        dk: the kernel.
        elements: the weights.
        dtype: the 16-bit type to decode to.
        shape: of the tile.
        columns: of this lane, in the tile; of N-major weights neighbours, a power of two of at least 2.
        quad: lane % 4.
    """

    def __init__(
        self, dk: DispatchKernel, elements: QuantizedElements, dtype: str, shape: TileShape, columns: Sequence[Val], quad: Val
    ) -> None:
        self.k_major = elements.x.major == "col"
        if self.k_major:
            super().__init__(dk, elements, dtype, columns, 1)
        else:
            super().__init__(dk, elements, dtype, columns[:1], len(columns))
        self.shape = shape
        k, bits = self.k, elements.x.bits
        if self.k_major:
            inside = 2 * quad if bits == 8 else 0
            self.starts = [[swizzle(shape, c, k.const(i, "i32")) + inside for i in range(shape.chunks)] for c in columns]
            self.selector = quad * 0x1111
            return
        at = columns[0] * bits // 8
        self.starts = [[swizzle(shape, 2 * quad + odd, at >> 4) + (at & 15)] for odd in range(2)]
        self.kind = k.type(f"i{self.count * bits}")

    def registers(self, tile: Val, step: int, prepared: Sequence[Any]) -> list[Val]:
        """The four registers of an instruction whose rows lane / 4 and 8 more are this lane's two columns."""
        lower, upper = self.pairs_of(tile, step, prepared)
        return [lower[0], upper[0], lower[1], upper[1]]

    def pairs_of(self, tile: Val, step: int, prepared: Sequence[Any]) -> list[tuple[Val, Val]]:
        """For each column the two pairs of k that an instruction takes, of the tile at a shared address."""
        of = self.of_step(step, prepared)
        if not self.k_major:
            low, high = (self._neighbours(tile, step, half, of[0] if of else None) for half in range(2))
            return list(zip(low, high, strict=True))
        k, out = self.k, []
        for i, starts in enumerate(self.starts):
            scale = of[i][0] if of else None
            if self.x.bits == 8:
                words = [self._word(tile + (starts[step] + 8 * half), k.i16) for half in range(2)]
                pair = self.pairs(k.prmt(words[0], words[1], 0x5410), [scale] * 2)
            else:
                at = tile + (starts[step // 2] + 8 * (step % 2))
                words = k.elements(k.load(at, k.vector_of("i32", 2), align=8))
                pair = [self.byte_pair(k.prmt(w, w, self.selector), scale) for w in words]
            out.append((pair[0], pair[1]))
        return out

    def _neighbours(self, tile: Val, step: int, half: int, scales: Sequence[Any] | None) -> list[Val]:
        """The pairs of neighbouring columns for one half of an instruction's k."""
        line = (STEP_K * step + 8 * half) * self.shape.line_bytes
        even, odd = (self._word(tile + (starts[0] + line), self.kind) for starts in self.starts)
        return self.across([even], [odd], scales)

    def _word(self, p: Val, kind: Any) -> Val:
        return self.k.cast(self.k.load(p, kind, align=kind.bits // 8), "i32", signed=False)


class TransposedBytes:
    """N-major weights of 8 bits that an instruction takes as they are, four neighbours along k in a register.

    A tile holds 128 k. The interface is that of `StagedWeights`; there are no scales.

    Args:
        k: the builder.
        shape: of the tile.
        column: the first of this lane's two neighbouring columns.
        quad: lane % 4.
    """

    def __init__(self, k: Any, shape: TileShape, column: Val, quad: Val) -> None:
        self.k, self.shape = k, shape
        self.starts = [swizzle(shape, 4 * quad + j, column >> 4) + (column & 15) for j in range(4)]

    def begin(self, batch: Sequence[Val], first: Val) -> None:
        """Begin with tiles whose first column is `first`, of a batch."""

    def fetch_scales(self, step: Val) -> list[Any]:
        """There are none."""
        return []

    def prepare(self, read: Sequence[Any]) -> list[Any]:
        """There are none."""
        return []

    def registers(self, tile: Val, step: int, prepared: Sequence[Any]) -> list[Val]:
        """The four registers of an instruction of 32 k whose rows lane / 4 and 8 more are this lane's two columns."""
        k, out = self.k, []
        for half in range(2):
            line = (32 * step + 16 * half) * self.shape.line_bytes
            words = [k.cast(k.load(tile + (s + line), "i16", align=2), "i32", signed=False) for s in self.starts]
            even, odd = k.prmt(words[0], words[1], 0x5140), k.prmt(words[2], words[3], 0x5140)
            out += [k.prmt(even, odd, 0x5410), k.prmt(even, odd, 0x7632)]
        return out
