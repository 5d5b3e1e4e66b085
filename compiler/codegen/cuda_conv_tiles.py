"""Tiles of a convolution's operands on their way into shared memory: A is gathered from the windows of x, never stored.

The tiles stand in for `TileCopy` in the kernels of matmul: same places, same swizzle, other sources.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ingot.compiler.codegen.cuda_conv_problem import ConvProblem
from ingot.compiler.codegen.cuda_kernel import DispatchKernel, known_multiple
from ingot.compiler.codegen.cuda_shared_tile import CHUNK, TileCopy, TileShape, swizzle
from ingot.compiler.codegen.cuda_window import Reach, WindowReader
from ingot.compiler.codegen.values import Val


class WindowTile(TileCopy):
    """Copies tiles of A: rows are output positions, k runs over the channels of a tap, then over taps.

    A chunk of 16 bytes is copied in pieces that never straddle taps and are aligned in x: one where channels allow it.
    """

    def __init__(
        self, dk: DispatchKernel, p: ConvProblem, shape: TileShape, threads: int, thread: Val, asynchronous: bool
    ) -> None:
        super().__init__(dk, p.gemm.a, shape, threads, thread, asynchronous)
        assert shape.k_major, shape
        assert threads % shape.chunks == 0, (shape, threads)
        self.p = p
        self.width = p.aligned_elements(CHUNK // self.size) * self.size
        self.asynchronous = asynchronous and self.width >= 4
        self.reader = WindowReader(dk, p.x, p.window, partial_rows=not self.rows_exact)

    def start(self, row: Val, batch: Sequence[Val]) -> None:
        k, dk, p = self.k, self.dk, self.p
        m = dk.size(p.gemm.m, "i32")
        channel = batch[0] * dk.size(p.channels, "i32") if batch else k.const(0, "i32")
        self.base = dk.pointer("operand", 0)
        self.rows = []
        for line, _ in self.chunk_places:
            at = row + line
            valid = None
            if not self.rows_exact:
                valid, at = at < m, k.min(at, m - 1)
            self.rows.append(self.reader.row(dk.split(at, p.pixels), valid, channel))

    def _reach(self, step: Val, piece: int) -> Reach:
        """The tap and first channel of a piece of this thread's chunks in a step."""
        p = self.p
        _, chunk = self.chunk_places[0]
        at = step * self.shape.tile_k + chunk * (CHUNK // self.size) + piece * (self.width // self.size)
        valid = None if self.k_exact else at < self.k_size
        if p.window.taps == 1:
            return self.reader.reach(0, at, valid)
        channels = self.dk.size(p.channels, "i32")
        tap = at // channels
        return self.reader.reach(tap, at - tap * channels, valid)

    def _pieces(self, step: Val) -> list[Reach]:
        return [self._reach(step, j) for j in range(CHUNK // self.width)]

    def copy(self, stage: Val, step: Val) -> None:
        k = self.k
        assert self.asynchronous, "a tile that is not aligned is fetched and put"
        pieces = self._pieces(step)
        for i, (line, chunk) in enumerate(self.chunk_places):
            with self._guard(i):
                dst = stage + swizzle(self.shape, line, chunk)
                for j, reach in enumerate(pieces):
                    offset, valid = self.reader.element(self.rows[i], reach)
                    nbytes = None
                    if valid is not None:
                        offset = k.select(valid, offset, 0)
                        nbytes = k.select(valid, k.const(self.width, "i32"), 0)
                    k.cp_async(dst + j * self.width, self.base + k.cast(offset, "i64") * self.size, self.width, nbytes)

    def fetch(self, step: Val) -> list[Val]:
        k = self.k
        element = k.type(f"i{8 * self.width}") if self.width <= 8 else k.vector_of("i32", 4)
        pieces, out = self._pieces(step), []
        for i in range(self.count):
            found = []
            for reach in pieces:
                offset, valid = self.reader.element(self.rows[i], reach)
                if not self.exact:
                    valid = self._inside(i) if valid is None else valid & self._inside(i)
                if valid is not None:
                    offset = k.select(valid, offset, 0)
                x = k.load(self.base + k.cast(offset, "i64") * self.size, element, align=self.width)
                found.append(x if valid is None else k.select(valid, x, k.const(0, element)))
            whole = found[0] if len(found) == 1 else k.vector(found)
            out += k.elements(k.bitcast(whole, k.vector_of("i32", 4)))
        return out


class TransposedWeightTile(TileCopy):
    """Copies tiles of B of a transposed convolution: w [C, kernel..., M/groups], whose k is (tap, channel)."""

    def __init__(
        self, dk: DispatchKernel, p: ConvProblem, shape: TileShape, threads: int, thread: Val, asynchronous: bool
    ) -> None:
        self.p = p
        super().__init__(dk, p.gemm.b, shape, threads, thread, asynchronous)

    def _width(self, limit: int) -> int:
        size = self.x.bits // 8
        between = known_multiple(self.p.tap_stride, self.dk.d) * size if self.p.window.taps > 1 else limit
        return super()._width(math.gcd(limit, between) or limit)

    def _source(self, i: int, step: Val) -> Val:
        k, dk, p = self.k, self.dk, self.p
        line, chunk = self.chunk_places[i]
        within = chunk * (CHUNK // self.size) if self.shape.k_major else line
        at = within + step * self.shape.tile_k
        channels = dk.size(p.channels, "i32")
        tap = at // channels
        offset = k.cast(tap, "i64") * dk.size(p.tap_stride) + k.cast(at - tap * channels, "i64") * dk.size(p.w.strides[0])
        # `start` moved the pointer by this thread's first k, counted in channels.
        return self.pointers[i] + (offset - k.cast(within, "i64") * dk.size(self.x.col_stride)) * self.size

    def _piece(self, j: int) -> Val | int:
        if self.shape.k_major and j:
            raise NotImplementedError("a transposed convolution of few output channels, in chunks of k")
        return super()._piece(j)
