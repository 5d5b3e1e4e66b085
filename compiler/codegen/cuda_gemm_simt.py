"""Matrix products by fused multiply-adds: exact float32 and float64, and any pair of types that has no instruction row.

Elements are converted to the accumulator's type on their way into shared memory, where both operands lie with k outermost. A
thread holds `per_m` x `per_n` accumulators, in groups of four neighbouring rows and columns, and reads the next tile from
memory while it multiplies this one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ingot.compiler.codegen.cuda_gemm_problem import GemmProblem, Matrix
from ingot.compiler.codegen.cuda_gemm_tiles import TileOrder, sink, tile_count
from ingot.compiler.codegen.cuda_kernel import (
    DispatchKernel,
    dispatch_kernel,
    known_multiple,
    memory_type,
    region_buffers,
    symbol_of,
)
from ingot.compiler.codegen.kernel_builder import KernelModule
from ingot.compiler.codegen.values import Val
from ingot.kernel_plan import BufferArg, KernelLaunch

GROUP = 4  # neighbouring rows (columns) that a thread reads from shared memory at once
PADDING = 4  # elements added to a line of shared memory, so that transposing stores meet fewer bank conflicts


@dataclass(frozen=True)
class SimtSchedule:
    """`tile_m` x `tile_n` of a block, `tile_k` of a step; `splits` blocks share a tile.

    A thread has `each` rows and columns; 0: of 16 x 16 threads, but at least 4. Eight read shared memory half as often as four.
    """

    tile_m: int = 128
    tile_n: int = 128
    tile_k: int = 8
    splits: int = 1
    each: int = 0

    @property
    def threads(self) -> int:
        return self.tile_m // self.per_m * (self.tile_n // self.per_n)

    @property
    def per_m(self) -> int:
        return self.each or max(GROUP, self.tile_m // 16)

    @property
    def per_n(self) -> int:
        return self.each or max(GROUP, self.tile_n // 16)


SIMT_TILES: tuple[SimtSchedule, ...] = (
    SimtSchedule(), SimtSchedule(128, 64, 8, each=8), SimtSchedule(64, 64, 8, each=8), SimtSchedule(64, 64, 16),
    SimtSchedule(32, 32, 32),
)  # fmt: skip


def simt_launch(p: GemmProblem, s: SimtSchedule, suffix: str = "") -> KernelLaunch:
    """The launch of a schedule."""
    own = (BufferArg("operand", 0), BufferArg("operand", 1))
    rest = (BufferArg("workspace"),) if s.splits > 1 else region_buffers(p.dispatch, skip=(0, 1))
    size = 8 if p.acc in ("f64", "i64") else 4
    shared = 2 * s.tile_k * (s.tile_m + s.tile_n + 2 * PADDING) * size
    return KernelLaunch(
        symbol_of(p.dispatch, suffix), (tile_count(p, s), 1, 1), (*own, *rest), (s.threads, 1, 1),
        shared_bytes=shared, flops=p.flops,
    )  # fmt: skip


def emit_simt(module: KernelModule, p: GemmProblem, s: SimtSchedule, launch: KernelLaunch) -> None:
    """Write the kernel of a schedule into `module`."""
    with dispatch_kernel(module, p.dispatch, launch, min_blocks=max(2, 384 // s.threads) if p.acc != "f64" else 1) as dk:
        SimtKernel(dk, p, s).emit()


def as_accumulator(dk: DispatchKernel, x: Val, dtype: str, acc: str, unsigned: bool) -> Val:
    """Elements of a storage type (small floats as codes) in the accumulator's type."""
    k = dk.k
    if dtype.startswith(("f8", "f4")):
        return k.decode_float(x, dtype, acc)
    return k.cast(x, acc, signed=not unsigned)


class SimtLoader:
    """Brings tiles of one operand: `lanes` neighbours along its contiguous axis at a time."""

    def __init__(self, dk: DispatchKernel, p: GemmProblem, x: Matrix, rows: int, s: SimtSchedule, unsigned: bool) -> None:
        self.dk, self.k, self.p, self.x, self.rows, self.s, self.unsigned = dk, dk.k, p, x, rows, s, unsigned
        self.along_k = x.major != "row"
        inner = s.tile_k if self.along_k else rows
        self.lanes = math.gcd(self.widest(), inner)
        self.count = -(-rows * s.tile_k // (s.threads * self.lanes))
        self.exact = rows * s.tile_k % (s.threads * self.lanes) == 0
        self.per_line = inner // self.lanes
        self.line_elements = rows + PADDING

    def widest(self) -> int:
        """Neighbouring elements that may be read at once, at most 4."""
        x, lanes = self.x, 4
        extent = x.cols if self.along_k else x.rows
        while lanes > 1 and not (
            x.major != "none" and x.bits >= 8 and x.aligned(lanes * x.bits // 8, self.dk.d)
            and known_multiple(extent, self.dk.d) % lanes == 0
        ):  # fmt: skip
            lanes //= 2
        return lanes

    def start(self, row: Val, batch: Sequence[Val]) -> None:
        """Begin with rows from `row` on, of a batch."""
        k, dk, x = self.k, self.dk, self.x
        offset = k.const(0, "i64")
        for b, s in zip(batch, x.batch_strides, strict=True):
            if s != 0:
                offset = offset + k.cast(b, "i64") * dk.size(s)
        self.base = dk.pointer(x.kind, x.index).at(offset, memory_type(x.dtype))
        self.row = row
        self.row_count, self.k_count = dk.size(x.rows, "i32"), dk.size(x.cols, "i32")
        self.row_step, self.k_step = dk.size(x.row_stride), dk.size(x.col_stride)

    def place(self, i: int) -> tuple[Val, Val, Val]:
        """(row in the tile, k in the tile, whether the tile has it) of this thread's vector `i`."""
        at = self.k.thread_id() + i * self.s.threads
        line, vector = at // self.per_line, at % self.per_line
        inside = line < (self.rows if self.along_k else self.s.tile_k)
        return (line, vector * self.lanes, inside) if self.along_k else (vector * self.lanes, line, inside)

    def element(self, i: int, row: Val, depth: Val) -> tuple[Val, Val]:
        """(offset from the base, whether it exists) of the first element of this thread's vector `i`, at a row and k."""
        k = self.k
        offset = k.cast(row, "i64") * self.row_step + k.cast(depth, "i64") * self.k_step
        return offset, (row < self.row_count) & (depth < self.k_count)

    def fetch(self, step: Val) -> list[Val]:
        """This thread's elements of a step, converted."""
        k, out = self.k, []
        name = memory_type(self.x.dtype)
        t = k.vector_of(name, self.lanes)
        for i in range(self.count):
            row, depth, inside = self.place(i)
            offset, valid = self.element(i, self.row + row, step * self.s.tile_k + depth)
            if not self.exact:
                valid = valid & inside
            p = self.base.at(k.select(valid, offset, 0), name)
            x = k.load(p, t, align=self.lanes * self.x.bits // 8)
            x = k.select(valid, x, k.const(0, t))
            out += k.elements(as_accumulator(self.dk, x, self.x.dtype, self.p.acc, self.unsigned))
        return out

    def put(self, shared: Val, elements: Sequence[Val]) -> None:
        """Store what `fetch` gave, k outermost."""
        k, acc = self.k, self.p.acc
        for i in range(self.count):
            row, depth, inside = self.place(i)
            with k.if_(True if self.exact else inside):
                for j in range(self.lanes):
                    r, d = (row, depth + j) if self.along_k else (row + j, depth)
                    k.store(elements[i * self.lanes + j], shared.at(d * self.line_elements + r, acc))


class SimtKernel:
    """The kernel while it is written."""

    def __init__(self, dk: DispatchKernel, p: GemmProblem, s: SimtSchedule) -> None:
        self.dk, self.k, self.p, self.s = dk, dk.k, p, s
        self.size = 8 if p.acc in ("f64", "i64") else 4
        k = self.k
        across = s.tile_m // s.per_m
        thread = k.thread_id()
        self.thread_m, self.thread_n = thread % across, thread // across
        self.groups_m, self.groups_n = s.per_m // GROUP, s.per_n // GROUP

    def loaders(self) -> tuple[SimtLoader, SimtLoader]:
        """What brings tiles of A and of B."""
        dk, p, s = self.dk, self.p, self.s
        return SimtLoader(dk, p, p.a, s.tile_m, s, p.unsigned[0]), SimtLoader(dk, p, p.b, s.tile_n, s, p.unsigned[1])

    def emit(self) -> None:
        k, p, s, dk = self.k, self.p, self.s, self.dk
        order = TileOrder(dk, p, s, s.tile_k)
        m0, n0, batch, split = order.tile(k.block_id())
        a, b = self.loaders()
        a.start(m0, batch)
        b.start(n0, batch)
        shared = k.dynamic_shared(128)
        bytes_a = s.tile_k * a.line_elements * self.size
        stage = bytes_a + s.tile_k * b.line_elements * self.size
        first, last = order.k_range(split)
        with k.if_(first < last):
            a.put(shared, a.fetch(first))
            b.put(shared + bytes_a, b.fetch(first))
        k.barrier()
        zero = k.const(0, p.acc)
        with k.for_(first, last, carry=[k.const(0, "i32"), [zero] * (s.per_m * s.per_n)]) as loop:
            at, acc = loop.carry
            other = stage - at
            coming = loop.iv + 1
            next_a, next_b = a.fetch(coming), b.fetch(coming)
            acc = self.multiply(shared + at, shared + (at + bytes_a), a, b, acc)
            a.put(shared + other, next_a)
            b.put(shared + (other + bytes_a), next_b)
            k.barrier()
            loop.yield_([other, acc])
        self.store(loop.results[1], sink(dk, p, s, split), batch, m0, n0)

    def _position(self, thread: Val, group: int, groups: int, tile: int) -> Val:
        """First of the four rows (columns) of a group: groups are spread over the tile, neighbours to neighbouring threads."""
        return thread * GROUP + group * (tile // groups)

    def multiply(self, a: Val, b: Val, la: SimtLoader, lb: SimtLoader, acc: list[Val]) -> list[Val]:
        k, s = self.k, self.s
        acc = list(acc)
        four = k.vector_of(self.p.acc, GROUP)
        for depth in range(s.tile_k):
            rows, cols = [], []
            for g in range(self.groups_m):
                p = a.at(self._position(self.thread_m, g, self.groups_m, s.tile_m) + depth * la.line_elements, self.p.acc)
                rows += k.elements(k.load(p, four, align=16))
            for g in range(self.groups_n):
                p = b.at(self._position(self.thread_n, g, self.groups_n, s.tile_n) + depth * lb.line_elements, self.p.acc)
                cols += k.elements(k.load(p, four, align=16))
            for i, x in enumerate(rows):
                for j, y in enumerate(cols):
                    acc[i * s.per_n + j] = k.fma(x, y, acc[i * s.per_n + j])
        return acc

    def store(self, acc: list[Val], out: object, batch: Sequence[Val], m0: Val, n0: Val) -> None:
        s = self.s
        for i in range(s.per_m):
            row = self._position(self.thread_m, i // GROUP, self.groups_m, s.tile_m) + i % GROUP
            line = out.at_row(batch, m0 + row)  # type: ignore[attr-defined]
            for j in range(0, s.per_n, 2):
                col = self._position(self.thread_n, j // GROUP, self.groups_n, s.tile_n) + j % GROUP
                out.pair(line, n0 + col, acc[i * s.per_n + j : i * s.per_n + j + 2])  # type: ignore[attr-defined]
