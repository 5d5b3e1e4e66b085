"""The blocked matrix product that matmul, conv and attention share on the CPU.

The structure is that of BLIS (Van Zee and van de Geijn, 2015): a block of A (`mc` x `kc`) and one of B (`kc` x `nc`) are made
contiguous in scratch memory, and a micro-kernel multiplies `mr` rows by `nv` vectors of columns with all accumulators in
registers. B is packed in panels of one tile's columns. A is *not* interleaved: the micro-kernel broadcasts its elements from
rows at a fixed distance, so that packing is a copy, and none is made where A already lies so. Packing is also where elements
are decoded: k, and all that counts along it here, are counted in units (cpu_factors.py), of the accumulators' size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ingot import dims
from ingot.compiler.codegen.cpu_factors import Arithmetic, Factor
from ingot.compiler.codegen.cpu_kernel import CpuKernel
from ingot.compiler.codegen.cpu_region import Position
from ingot.compiler.codegen.cpu_space import for_lanes, tail_mask, takes_masks
from ingot.compiler.codegen.cpu_transpose import transpose_registers
from ingot.compiler.codegen.values import Operand, Val
from ingot.dims import Dim


@dataclass(frozen=True)
class GemmSchedule:
    """Sizes of the blocked product: a register tile of `mr` rows by `nv` vectors, blocks of `mc` x `nc` x `kc` elements."""

    mr: int
    nv: int
    mc: int
    nc: int
    kc: int


def _round_up(x: int, multiple: int) -> int:
    return -(-x // multiple) * multiple


def register_tile(m: Dim, n: Dim, lanes: int, registers: int) -> tuple[int, int]:
    """The rows and vectors of the register tile that wastes least on an m x n result.

    The cost of one k step of a tile is bounded by two FMAs, two loads and, through the latency of four, eight accumulators
    a cycle and a half; sizes that are not known count as large.
    """
    rows = m if isinstance(m, int) and m > 0 else 2520
    columns = n if isinstance(n, int) and n > 0 else 48 * lanes
    best, choice = float("inf"), (1, 1)
    for nv in (1, 2, 3, 4):
        for mr in range(1, (registers - nv - 2) // nv + 1):
            tiles = -(-rows // mr) * -(-columns // (nv * lanes))
            cost = tiles * (max(mr * nv / 2, (mr + nv) / 2, 4.0) + 0.25)
            if cost < best:
                best, choice = cost, (mr, nv)
    return choice


@dataclass(frozen=True)
class PackingCost:
    """Cycles to bring one vector of A and of B to the micro-kernel, roughly."""

    a: float
    b: float


ROWS_AHEAD = 8  # rows of B between the one being packed and the one being fetched
A_IN_PLACE, A_COPY, A_IM2COL = 0.5, 2.0, 6.0
B_COPY, B_TRANSPOSE = 3.0, 6.0
_THREADS = ((1, 1.0), (2, 1.0), (4, 0.5), (8, 0.25), (16, 0.1))  # threads that block sizes are weighed for, with weights


def choose_schedule(
    m: Dim, n: Dim, k: Dim, batch: Dim, lanes: int, registers: int, packing: PackingCost
) -> GemmSchedule:
    """Block sizes for a product.

    A panel of B should stay in the first cache, blocks in the second; among blocks that do, the choice minimizes the time of
    the longest thread over several numbers of threads, counting what packing is repeated. Unknown sizes count as large.
    """
    mr, nv = register_tile(m, n, lanes, registers)
    nr = nv * lanes
    kc = 256
    if isinstance(k, int):
        kc = _round_up(max(1, k), lanes) if k <= 512 else _round_up(-(-k // -(-k // 384)), lanes)
    rows = max(1, m) if isinstance(m, int) else 1536
    columns = max(1, n) if isinstance(n, int) else 1536
    batches = max(1, batch) if isinstance(batch, int) else 1
    most = 384 if packing.a == A_IN_PLACE else 192
    best, choice = float("inf"), (mr, nr)
    for m_blocks in range(-(-rows // most), -(-rows // most) + 16):
        mc = _round_up(-(-rows // m_blocks), mr)
        for n_blocks in range(-(-columns // 384), -(-columns // 384) + 16):
            nc = _round_up(-(-columns // n_blocks), nr)
            items = batches * -(-rows // mc) * -(-columns // nc)
            cost = mc * nc / 2 + packing.a * mc + packing.b * nc
            score = sum(weight * -(-items // threads) * threads * cost for threads, weight in _THREADS)
            if score < best * (1 - 1e-9):
                best, choice = score, (mc, nc)
    return GemmSchedule(mr, nv, *choice, kc)


class ASource(Protocol):
    """Where blocks of A come from. Steps are in elements of the accumulator's type, known when the code is written."""

    row_step: int
    k_step: int
    scratch: int  # elements of scratch memory for a block; 0 where tiles are read in place

    def block(self, m0: Val, rows: Val, k0: Val, kc: Val, scratch: Val | None) -> Val:
        """Make rows [m0, m0 + rows) x columns [k0, k0 + kc) readable; the address of the block's first element."""
        ...


class BSource(Protocol):
    """Where panels of B come from."""

    def pack(self, n0: Val, cols: Val, k0: Val, kc: Val, panels: Val) -> None:
        """Write columns [n0, n0 + cols) of rows [k0, k0 + kc) to `panels`: for each nv*lanes columns, kc rows of them."""
        ...


# Takes a row's number, a position of one axis (the columns), and the accumulators there.
Finish = Callable[[Val, Position, Val], None]


class BlockedGemm:
    """Emits one block of a product at a time.

    Attributes:
        ck: the kernel.
        schedule: block sizes.
        arithmetic: what is multiplied and added.
        m, n, k: sizes; constants specialize the code.
        a, b: operands.
        single_pass: whether k is never more than kc; known where k is constant, else to be promised.
    """

    def __init__(
        self, ck: CpuKernel, schedule: GemmSchedule, arithmetic: Arithmetic, m: Val, n: Val, k: Val, a: ASource, b: BSource,
        *, single_pass: bool = False,
    ) -> None:  # fmt: skip
        self.ck, self.schedule, self.arithmetic, self.acc = ck, schedule, arithmetic, arithmetic.acc
        acc = self.acc
        self.m, self.n, self.k, self.a, self.b = m, n, k, a, b
        self.lanes = ck.lanes(acc)
        s = schedule
        size = ck.k.type(acc).bits // 8
        self.nr = s.nv * self.lanes
        self.single_pass = single_pass or (k.const is not None and k.const <= s.kc)
        self._b_scratch = ck.k.alloca(_round_up(s.kc, self.lanes) * s.nc * size)
        self._a_scratch = ck.k.alloca(a.scratch * size) if a.scratch else None
        tiles = 1 if self.single_pass else (s.mc // s.mr) * (s.nc // self.nr)
        self._c_scratch = ck.k.alloca(tiles * s.mr * self.nr * size)

    def block(self, m0: Val, rows: Val, n0: Val, cols: Val, finish: Finish) -> None:
        """Compute rows [m0, m0 + rows) x columns [n0, n0 + cols), at most mc x nc, and hand each vector to `finish`."""
        k, s = self.ck.k, self.schedule
        if self.single_pass:
            self._pass(m0, rows, n0, cols, k.const(0, "i64"), self.k, None, finish)
            return
        # A product over nothing is 0, not undefined: one pass at least.
        with k.for_(0, k.max(self.k, k.const(1, "i64")), s.kc) as loop:
            kc = k.min(k.const(s.kc, "i64"), self.k - loop.iv)
            self._pass(m0, rows, n0, cols, loop.iv, kc, loop.iv + s.kc >= self.k, finish)

    def _pass(
        self, m0: Val, rows: Val, n0: Val, cols: Val, k0: Val, kc: Val, is_last: Val | None, finish: Finish
    ) -> None:
        k, s = self.ck.k, self.schedule
        self.b.pack(n0, cols, k0, kc, self._b_scratch)
        a = self.a.block(m0, rows, k0, kc, self._a_scratch)
        in_place = not self.a.scratch
        with k.for_(0, cols, self.nr) as columns:
            panel = self._b_scratch.at(columns.iv * kc, self.acc)
            with k.for_(0, rows, s.mr) as tiles:
                first = tiles.iv
                if in_place:  # the last tile reads whole rows that exist: it overlaps the one before it
                    first = k.min(first, self.m - m0 - s.mr)
                tile = self._c_scratch
                if is_last is not None:
                    number = columns.iv * (s.mc // s.mr) + tiles.iv // s.mr * self.nr
                    tile = tile.at(number * s.mr, self.acc)
                self._tile(a.at(first * self.a.row_step, self.acc), panel, kc, tile, None if is_last is None else k0)
                with k.if_(True if is_last is None else is_last):
                    count = k.min(rows - first, k.const(s.mr, "i64"))
                    self._finish(tile, m0 + first, tiles.iv - first, count, n0, columns.iv, cols, finish)

    def _tile(self, a: Val, panel: Val, kc: Val, tile: Val, k0: Val | None) -> None:
        """The micro-kernel: tile = (0 in the first pass, else tile) + mr rows of A x one panel of B."""
        k, s = self.ck.k, self.schedule
        vector = k.vector_of(self.acc, self.lanes)
        align = vector.nbytes
        zero = k.const(0, vector)
        with k.for_(0, kc, carry=[[zero] * s.nv for _ in range(s.mr)]) as loop:
            at = panel.at(loop.iv * self.nr, self.acc)
            b = [k.load(at.at(j * self.lanes, self.acc), vector, align=align) for j in range(s.nv)]
            row = a.at(loop.iv * self.a.k_step, self.acc)
            sums = []
            for i in range(s.mr):
                x = k.broadcast(k.load(row.at(i * self.a.row_step, self.acc), self.acc), self.lanes)
                sums.append([self.arithmetic.multiply(self.ck, x, y, c) for y, c in zip(b, loop.carry[i], strict=True)])
            loop.yield_(sums)

        def store(add: bool) -> None:
            for i in range(s.mr):
                for j in range(s.nv):
                    p = tile.at((i * s.nv + j) * self.lanes, self.acc)
                    value = loop.results[i][j]
                    k.store(value + k.load(p, vector, align=align) if add else value, p, align=align)

        if k0 is None:
            store(False)
            return
        with k.if_else(k0.eq(0)) as first:
            with first.then:
                store(False)
            with first.else_:
                store(True)

    def _finish(
        self, tile: Val, m0: Val, skip: Val, count: Val, n0: Val, column: Val, cols: Val, finish: Finish
    ) -> None:
        """Hand rows [skip, count) of a finished tile to the epilogue."""
        ck, k = self.ck, self.ck.k
        dtypes = [t.dtype for t in (*ck.dispatch.results, *ck.dispatch.operands)]
        width = k.min(cols - column, k.const(self.nr, "i64"))
        whole = self.n.const is not None and self.n.const % self.lanes == 0
        with k.for_(skip, count) as rows:
            source = tile.at(rows.iv * self.nr, self.acc)

            def vector(i: Val, lanes: int, mask: Val | None) -> None:
                t = k.vector_of(self.acc, lanes) if lanes else self.acc
                finish(m0 + rows.iv, Position((n0 + column + i,), 0, lanes, mask), k.load(source.at(i, self.acc), t))

            if whole or not takes_masks(ck, dtypes):
                for_lanes(ck, k.const(0, "i64"), width, self.lanes, vector, masked=False, divides=whole)
            else:  # one copy of the epilogue in the code, not two
                with k.for_(0, width, self.lanes) as loop:
                    vector(loop.iv, self.lanes, tail_mask(ck, width - loop.iv, self.lanes))


class MatrixA:
    """Blocks of a strided matrix A [m, k], copied to scratch memory, or in place where its layout allows that."""

    def __init__(self, ck: CpuKernel, factor: Factor, m: Dim, schedule: GemmSchedule) -> None:
        self.ck, self.factor, self.schedule = ck, factor, schedule
        self.acc = factor.arithmetic.acc
        row, column = factor.lines.line, factor.lines.step
        lanes = ck.lanes(self.acc)
        self._by_column = row == 1 and column != 1
        if factor.is_plain and in_place(factor.dtype, row, column, m, self.acc, schedule.mr):
            assert isinstance(row, int)
            assert isinstance(column, int)
            self.row_step, self.k_step, self.scratch = row, column, 0
        elif self._by_column:
            self.row_step, self.k_step = 1, _round_up(schedule.mc, lanes) + lanes
            self.scratch = self.k_step * schedule.kc
        else:
            # One vector more than a row needs: rows of a power of two would fall into the same sets of the cache.
            self.row_step, self.k_step = _round_up(schedule.kc, lanes) + lanes, 1
            self.scratch = self.row_step * schedule.mc

    def block(self, m0: Val, rows: Val, k0: Val, kc: Val, scratch: Val | None) -> Val:
        """See `ASource`."""
        ck, k, factor = self.ck, self.ck.k, self.factor
        if scratch is None:
            return factor.lines.address(m0, k0)
        lanes = ck.lanes(self.acc)
        padded = (rows + (self.schedule.mr - 1)) // self.schedule.mr * self.schedule.mr
        if self._by_column:
            with k.for_(0, kc) as loop:
                target = scratch.at(loop.iv * self.k_step, self.acc)
                with k.for_(0, padded, lanes) as over_rows:
                    i = over_rows.iv
                    mask = tail_mask(ck, k.max(rows - i, k.const(0, "i64")), lanes)
                    value = factor.across(m0 + i, k0 + loop.iv, Position((), 0, lanes, mask))
                    k.store(value, target.at(i, self.acc))
            return scratch
        with k.for_(0, padded) as loop:
            # Rows beyond the last repeat it: what they give is thrown away, but it must not be slow (denormals).
            row = m0 + k.min(loop.iv, rows - 1)
            target = scratch.at(loop.iv * self.row_step, self.acc)

            def copy(i: Val, count: int, mask: Val | None, row: Val = row, target: Val = target) -> None:
                value = factor.along(row, k0 + i, Position((), 0, count, mask))
                if count and value.t.kind != "vector":
                    value = k.broadcast(value, count)
                k.store(value, target.at(i, self.acc))

            pairs = factor.arithmetic.pairs
            whole = whole_units(ck, factor, k0, kc)
            for_lanes(ck, k.const(0, "i64"), whole, lanes, copy, masked=not pairs and takes_masks(ck, [factor.dtype]))
            if whole is not kc:
                with k.for_(whole, kc) as rest:
                    copy(rest.iv, 0, None)
        return scratch


def whole_units(ck: CpuKernel, factor: Factor, k0: Val, kc: Val) -> Val:
    """How many of `kc` units from `k0` on have all their elements."""
    if not factor.arithmetic.pairs or (isinstance(factor.size, int) and factor.size % 2 == 0):
        return kc
    return ck.k.min(kc, ck.dim(factor.size) // 2 - k0)


def in_place(dtype: str, row: Dim, column: Dim, m: Dim, acc: str, mr: int) -> bool:
    """True where the micro-kernel can read a matrix A as it lies: known strides, one of them 1, and a whole tile of rows."""
    if dtype != acc or not isinstance(m, int) or m < mr or not isinstance(row, int) or not isinstance(column, int):
        return False
    return row > 0 and column > 0 and 1 in (row, column) and max(row, column) * mr < 1 << 28


class MatrixB:
    """Panels of a strided matrix B [k, n]."""

    def __init__(self, ck: CpuKernel, factor: Factor, n: Dim, schedule: GemmSchedule) -> None:
        self.ck, self.factor, self.n, self.schedule = ck, factor, n, schedule
        self.acc = factor.arithmetic.acc

    def pack(self, n0: Val, cols: Val, k0: Val, kc: Val, panels: Val) -> None:
        """See `BSource`."""
        k, lines = self.ck.k, self.factor.lines
        nr = self.schedule.nv * self.ck.lanes(self.acc)
        if lines.step != 1 or lines.line == 1:
            self._copy(n0, cols, k0, kc, panels)
            return
        with k.for_(0, cols, nr) as loop:
            self._transpose(n0 + loop.iv, cols - loop.iv, k0, kc, panels.at(loop.iv * kc, self.acc))

    def _copy(self, n0: Val, cols: Val, k0: Val, kc: Val, panels: Val) -> None:
        """All panels from rows of B: row by row, as they lie in memory, with the lines of a later row fetched ahead."""
        ck, k, factor = self.ck, self.ck.k, self.factor
        lanes = ck.lanes(self.acc)
        nv, nr = self.schedule.nv, self.schedule.nv * lanes
        whole = isinstance(self.n, int) and self.n % nr == 0
        zero = k.const(0, "i64")
        ahead = ROWS_AHEAD * factor.arithmetic.unit

        def columns(unit: Val, row: Val, j0: Val, masked: bool) -> None:
            target = panels.at(j0 * kc + row * nr, self.acc)
            for j in range(nv):
                mask = tail_mask(ck, k.max(cols - j0 - j * lanes, zero), lanes) if masked else None
                value = factor.across(n0 + j0 + j * lanes, unit, Position((), 0, lanes, mask))
                k.prefetch_cache(factor.lines.address(n0 + j0 + j * lanes, unit * factor.arithmetic.unit + ahead))
                if value.t.kind != "vector":
                    value = k.broadcast(value, lanes)
                k.store(value, target.at(j * lanes, self.acc), align=value.t.nbytes)

        with k.for_(0, kc) as over_k:
            unit = k0 + over_k.iv
            if whole or takes_masks(ck, [factor.dtype]):
                with k.for_(0, cols, nr) as loop:
                    columns(unit, over_k.iv, loop.iv, not whole)
                return
            # Masks cost a branch an element here: panels that all exist go without.
            main = cols // nr * nr
            with k.for_(0, main, nr) as loop:
                columns(unit, over_k.iv, loop.iv, False)
            with k.if_(main < cols):
                columns(unit, over_k.iv, main, True)

    def _transpose(self, n0: Val, left: Val, k0: Val, kc: Val, target: Val) -> None:
        """One panel from columns of B, contiguous along k: square tiles turned in registers, then what is left, gathered."""
        ck, k, factor = self.ck, self.ck.k, self.factor
        lanes = ck.lanes(self.acc)
        nr = self.schedule.nv * lanes
        last = left - 1
        main = whole_units(ck, factor, k0, kc) // lanes * lanes
        with k.for_(0, main, lanes) as over_k, k.for_(0, nr, lanes) as loop:
            rows = []
            for i in range(lanes):
                column = n0 + k.min(loop.iv + i, last)
                rows.append(factor.along(column, k0 + over_k.iv, Position((), 0, lanes)))
            for i, value in enumerate(transpose_registers(ck, rows)):
                k.store(value, target.at((over_k.iv + i) * nr + loop.iv, self.acc), align=value.t.nbytes)
        whole = lanes * factor.arithmetic.unit
        if isinstance(factor.size, int) and factor.size % whole == 0 and self.schedule.kc % lanes == 0:
            return
        with k.for_(main, kc) as over_k, k.for_(0, nr, lanes) as loop:
            at = Position((), 0, lanes, tail_mask(ck, k.max(left - loop.iv, k.const(0, "i64")), lanes))
            value = factor.across(n0 + loop.iv, k0 + over_k.iv, at)
            to = target.at(over_k.iv * nr + loop.iv, self.acc)
            k.store(value, to, align=k.vector_of(self.acc, lanes).nbytes)


def block_grid(schedule: GemmSchedule, m: Dim, n: Dim) -> tuple[Dim, Dim]:
    """Blocks along n and along m; a work item is one of each."""
    return dims.ceildiv(n, schedule.nc), dims.ceildiv(m, schedule.mc)


def block_range(ck: CpuKernel, number: Operand, step: int, size: Dim) -> tuple[Val, Val]:
    """First element and count of block `number` of an axis."""
    start = ck.k.value(number, "i64") * step
    if isinstance(size, int) and size % step == 0:
        return start, ck.k.const(step, "i64")
    if isinstance(size, int) and size <= step:
        return ck.k.const(0, "i64"), ck.k.const(size, "i64")
    return start, ck.k.min(ck.dim(size) - start, ck.k.const(step, "i64"))
