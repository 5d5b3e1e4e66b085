"""Tiles of matrix operands in shared memory: copied in chunks of 16 bytes, read as fragments of tensor-core instructions.

A tile has `lines` of `line_bytes` along which elements are contiguous in memory: lines of k (K-major) or of rows (row-major,
when rows of the operand are neighbours). Chunk c of line l lies at chunk c ^ s(l), so that the eight chunks that `ldmatrix`
reads together, of eight neighbouring lines, fall into different banks.

Fragments are asked for 16 rows and 32 bytes of k at a time, as four registers:

    register r: rows 8 * (r % 2) + lane / 4, bytes of k 16 * (r / 2) + 4 * (lane % 4) ...

which is what an m16n8 instruction with 32 bytes of k takes for A; smaller instructions take some of the registers, and B's 8
columns are half of the rows. `ldmatrix` gives them directly for K-major tiles, transposing for row-major tiles of 16-bit
elements; other elements of row-major tiles are gathered one by one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ingot.compiler.codegen.cuda_gemm_problem import Matrix
from ingot.compiler.codegen.cuda_kernel import DispatchKernel, divides, known_multiple
from ingot.compiler.codegen.values import Val

CHUNK = 16  # bytes of a copy, and of a row of an 8x8 matrix of ldmatrix
K_STEP = 32  # bytes of k that fragments are read for at a time


@dataclass(frozen=True)
class TileShape:
    """A tile of `rows` x `k_bytes` bytes of k of an operand whose elements have `bits` bits."""

    rows: int
    k_bytes: int
    bits: int
    k_major: bool

    @property
    def tile_k(self) -> int:
        """Elements of k."""
        return self.k_bytes * 8 // self.bits

    @property
    def lines(self) -> int:
        return self.rows if self.k_major else self.tile_k

    @property
    def chunks(self) -> int:
        """Chunks of a line."""
        return (self.k_bytes if self.k_major else self.rows * self.bits // 8) // CHUNK

    @property
    def line_bytes(self) -> int:
        """Bytes from a line to the next: its chunks, and as many more as the swizzle needs (a power of two, or a multiple of
        8)."""
        slots = 2
        while slots < min(8, self.chunks):
            slots *= 2
        return CHUNK * max(slots, -(-self.chunks // 8) * 8 if self.chunks > 8 else 0)

    @property
    def nbytes(self) -> int:
        """Bytes of the tile."""
        return self.lines * self.line_bytes


def swizzle(shape: TileShape, line: Val, chunk: Val) -> Val:
    """Byte offset of a chunk of a line."""
    if shape.line_bytes >= 128:
        return line * shape.line_bytes + ((chunk ^ (line & 7)) << 4)
    # Lines shorter than 128 bytes: neighbours share the banks of one row.
    slots = shape.line_bytes // CHUNK
    shift = {4: 1, 2: 2}[slots]
    return line * shape.line_bytes + ((chunk ^ ((line >> shift) & (slots - 1))) << 4)


class TileReader:
    """Reads fragments of a tile; `first` is the warp's first row in it, a multiple of 16 (or of 8 where it reads halves).

    A fragment is four registers of 8 x 8 parts (16-bit elements): rows 0-7 and 8-15 of the first half of k, then of the second;
    or, with `columns`, both halves of k of rows 0-7, then of 8-15. Instructions take neighbouring registers: A's operand is the
    first form, B's are the halves of the second, and in the other form each would have to be moved.
    """

    def __init__(
        self, dk: DispatchKernel, shape: TileShape, first: Val, lane: Val, rows: int, *, columns: bool = False
    ) -> None:
        self.k, self.shape, self.first, self.lane, self.columns = dk.k, shape, first, lane, columns
        self.gathers = not shape.k_major and shape.bits != 16
        self.offsets: list[Val] = []
        if self.gathers:
            return
        # A quarter of the lanes addresses one 8 x 8 part: which half of the rows, and which of k.
        lower, upper = (lane >> 3) & 1, lane >> 4
        half_rows, half_k = (upper, lower) if columns else (lower, upper)
        if shape.k_major:
            line = first + (lane & 7) + (half_rows << 3)
            self.offsets = [swizzle(shape, line, half_k + 2 * i) for i in range(shape.k_bytes // K_STEP)]
        else:  # lines are of k, and the parts are transposed
            line = (lane & 7) + (half_k << 3)
            chunk = (first >> 3) + half_rows
            self.offsets = [swizzle(shape, line, chunk + 2 * i) for i in range(rows // 16)]

    def read(self, stage: Val, block: int, step: int) -> list[Val]:
        """Registers of rows [16 * block, 16 * block + 16) and bytes of k [32 * step, 32 * step + 32) of the tile at `stage`."""
        shape = self.shape
        if self.gathers:
            return self._gather(stage, block, step)
        if shape.k_major:
            return self.k.ldmatrix(stage + self.offsets[step] + block * 16 * shape.line_bytes, 4)
        return self.k.ldmatrix(stage + self.offsets[block] + step * 16 * shape.line_bytes, 4, transpose=True)

    def _gather(self, stage: Val, block: int, step: int) -> list[Val]:
        """Registers from single elements: element (row, k) lies in line k."""
        k, shape, size = self.k, self.shape, self.shape.bits // 8
        per_chunk, per_register = CHUNK // size, 4 // size
        out = []
        for r in range(4):
            half_rows, half_k = (r // 2, r % 2) if self.columns else (r % 2, r // 2)
            row = self.first + (block * 16 + 8 * half_rows) + (self.lane >> 2)
            parts = []
            for i in range(per_register):
                at = (self.lane & 3) * per_register + (step * K_STEP + 16 * half_k) // size + i
                offset = swizzle(shape, at, row // per_chunk) + (row % per_chunk) * size
                parts.append(k.load(stage + offset, f"i{shape.bits}"))
            out.append(parts[0] if per_register == 1 else k.bitcast(k.vector(parts), "i32"))
        return out


class TileCopy:
    """Copies an operand's tiles from global memory into stages of shared memory, zeros where the operand ends.

    Args:
        dk: the kernel.
        x: the operand.
        shape: of its tile.
        threads, thread: threads that copy, and this one's number.
        asynchronous: the target has cp.async.

    Where lines are not aligned to 4 bytes, or without cp.async, a stage is read into registers (`fetch`) and stored later
    (`put`).
    """

    def __init__(
        self, dk: DispatchKernel, x: Matrix, shape: TileShape, threads: int, thread: Val, asynchronous: bool
    ) -> None:
        self.dk, self.k, self.x, self.shape = dk, dk.k, x, shape
        self.contiguous = x.major == ("col" if shape.k_major else "row")
        self.width = self._width(16)
        self.asynchronous = asynchronous and self.width >= 4
        if not self.asynchronous:
            # What is read into registers is whole or absent: pieces must not straddle the operand's end.
            end = (x.cols if shape.k_major else x.rows) * (x.bits // 8)
            self.width = self._width(math.gcd(16, known_multiple(end, dk.d)) or 16)
        self.count = -(-shape.lines * shape.chunks // threads)
        self.threads, self.thread = threads, thread
        self.size = x.bits // 8
        self.k_size = dk.size(x.cols, "i32")
        self.rows_exact = divides(shape.rows, x.rows, dk.d)
        self.k_exact = divides(shape.tile_k, x.cols, dk.d)
        self.chunk_places = [self._place(i) for i in range(self.count)]

    def _width(self, limit: int) -> int:
        """Bytes of the widest access, at most `limit`, to which the operand's lines are aligned."""
        size = self.x.bits // 8
        wide = (w for w in (16, 8, 4, 2) if size < w <= limit and self.contiguous and self.x.aligned(w, self.dk.d))
        return next(wide, size)

    def _place(self, i: int) -> tuple[Val, Val]:
        """(line, chunk) of this thread's chunk `i`."""
        at, chunks = self.thread, self.shape.chunks
        if self.threads % chunks == 0:
            return at // chunks + i * (self.threads // chunks), at % chunks
        at = at + i * self.threads
        return at // chunks, at % chunks

    @property
    def exact(self) -> bool:
        """True where every thread has `count` chunks."""
        return self.shape.lines * self.shape.chunks % self.threads == 0

    def start(self, row: Val, batch: Sequence[Val]) -> None:
        """Begin with the tiles of rows from `row` on, of a batch."""
        k, x, dk = self.k, self.x, self.dk
        base = dk.pointer(x.kind, x.index)
        offset = k.const(0, "i64")
        for b, s in zip(batch, x.batch_strides, strict=True):
            if s != 0:
                offset = offset + k.cast(b, "i64") * dk.size(s)
        base = base + offset * self.size
        row_step, k_step = dk.size(x.row_stride) * self.size, dk.size(x.col_stride) * self.size
        rows = dk.size(x.rows, "i32")
        self.safe = base
        self.k_step = k_step * self.shape.tile_k
        self.pointers: list[Val] = []
        self.row_bytes: list[Val | None] = []
        # Chunks of a thread lie equally far apart: where no row has to be clamped, one address serves for all, and what comes
        # on top is known when the code is assembled or kept once, instead of a pair of registers for each chunk.
        if self.threads % self.shape.chunks == 0 and (self.rows_exact or not self.shape.k_major):
            line, chunk = self.chunk_places[0]
            step = self.threads // self.shape.chunks
            along = chunk * (CHUNK // self.size)
            first, depth = (row + line, along) if self.shape.k_major else (row + along, line)
            p = base + k.cast(first, "i64") * row_step + k.cast(depth, "i64") * k_step
            between = (row_step if self.shape.k_major else k_step) * step
            left = None if self.rows_exact else (rows - first) * self.size
            self.pointers = [p + between * i for i in range(self.count)]
            self.row_bytes = [left] * self.count
            return
        for line, chunk in self.chunk_places:
            along = chunk * (CHUNK // self.size)
            if self.shape.k_major:
                at = row + line
                valid = None if self.rows_exact else k.select(at < rows, k.const(CHUNK, "i32"), 0)
                at = at if self.rows_exact else k.min(at, rows - 1)
                p = base + k.cast(at, "i64") * row_step + k.cast(along, "i64") * k_step
            else:
                at = row + along
                valid = None if self.rows_exact else (rows - at) * self.size
                p = base + k.cast(at, "i64") * row_step + k.cast(line, "i64") * k_step
            self.pointers.append(p)
            self.row_bytes.append(valid)

    def _source(self, i: int, step: Val) -> Val:
        """The address of chunk `i` in the tile of a step."""
        return self.pointers[i] + self.k.cast(step, "i64") * self.k_step

    def _valid(self, i: int, step: Val) -> Val | None:
        """Bytes of chunk `i` that exist in the tile of a step, at most 16 and maybe negative; None where all do."""
        k, (line, chunk) = self.k, self.chunk_places[i]
        have = self.row_bytes[i]
        if self.k_exact:
            return have
        if self.shape.k_major:
            left = (self.k_size - step * self.shape.tile_k - chunk * (CHUNK // self.size)) * self.size
            return left if have is None else k.min(left, have)
        inside = line + step * self.shape.tile_k < self.k_size
        return k.select(inside, k.const(CHUNK, "i32") if have is None else have, 0)

    def copy(self, stage: Val, step: Val) -> None:
        """Issue the asynchronous copies of a step's tile to the tile at `stage`."""
        k = self.k
        assert self.asynchronous, "a tile that is not aligned is fetched and put"
        for i, (line, chunk) in enumerate(self.chunk_places):
            with self._guard(i):
                dst = stage + swizzle(self.shape, line, chunk)
                src, valid = self._source(i, step), self._valid(i, step)
                for j in range(CHUNK // self.width):
                    part = None if valid is None else k.max(k.min(valid - j * self.width, self.width), 0)
                    k.cp_async(dst + j * self.width, src + self._piece(j), self.width, part)

    def fetch(self, step: Val) -> list[Val]:
        """A step's chunks in registers, four i32 each."""
        k = self.k
        out = []
        element = k.type(f"i{8 * self.width}") if self.width <= 8 else k.vector_of("i32", 4)
        for i in range(self.count):
            src, valid = self._source(i, step), self._valid(i, step)
            pieces = []
            for j in range(CHUNK // self.width):
                p = src + self._piece(j)
                ok = None if valid is None else valid > j * self.width
                if not self.exact:
                    inside = self._inside(i)
                    ok = inside if ok is None else ok & inside
                if ok is not None:
                    p = k.select(ok, p, self.safe)
                x = k.load(p, element, align=self.width)
                pieces.append(x if ok is None else k.select(ok, x, k.const(0, element)))
            whole = pieces[0] if len(pieces) == 1 else k.vector(pieces)
            out += k.elements(k.bitcast(whole, k.vector_of("i32", 4)))
        return out

    def _piece(self, j: int) -> Val | int:
        """Distance in bytes of a chunk's piece `j` from its first."""
        if self.contiguous:
            return j * self.width
        return self.dk.size(self.x.col_stride if self.shape.k_major else self.x.row_stride) * (j * self.size)

    def put(self, stage: Val, registers: Sequence[Val]) -> None:
        """Store what `fetch` gave to the tile at `stage`."""
        k = self.k
        for i, (line, chunk) in enumerate(self.chunk_places):
            with self._guard(i):
                k.store(k.vector(list(registers[4 * i : 4 * i + 4])), stage + swizzle(self.shape, line, chunk), align=CHUNK)

    def _inside(self, i: int) -> Val:
        line, _ = self.chunk_places[i]
        return line < self.shape.lines

    def _guard(self, i: int):
        return self.k.if_(True if self.exact else self._inside(i))
