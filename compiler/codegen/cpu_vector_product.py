"""Matmuls with few rows on the CPU: every element of B is read once, straight into registers, and nothing is packed.

Such a product is bound by the bandwidth of B. Where B is contiguous along n, vectors of columns are accumulated over k;
where it is contiguous along k, vectors along k are, and their lanes summed at the end. If accumulators stayed in registers,
rows of narrow elements would be read a line of the cache at a time, and long rows a few lines of a page: of these longer
pieces of a few rows are taken at once, and accumulators are kept in cache. Of a large B, pieces are as long as the caches let
them be, and so that several threads have some, items are parts of k; a second launch adds their sums. That takes less time
than to read B packed in panels, as memory gives what lies one after the other anyway, and no memory for a copy of it.

A vector of B is used for the rows of a tile at once, and what was read from memory for one tile of rows after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ingot import dims
from ingot.compiler.codegen.cpu_factors import Arithmetic
from ingot.compiler.codegen.cpu_gemm import block_range, whole_units
from ingot.compiler.codegen.cpu_kernel import CpuKernel, cpu_kernel
from ingot.compiler.codegen.cpu_region import Position, RegionEmitter
from ingot.compiler.codegen.cpu_space import tail_mask
from ingot.compiler.codegen.family import Emitted
from ingot.compiler.codegen.values import Operand, Val
from ingot.dims import Dim
from ingot.target import Target

if TYPE_CHECKING:
    from ingot.compiler.codegen.cpu_matmul import Operands, Problem

MAX_ROWS = 8
_MAX_PLAIN_ROWS = 16  # where elements of a large B are not decoded
_TILE_ROWS = 4
_LARGE = 1 << 20  # bytes of a B that the second cache does not hold
_PAGE = 4096  # bytes
_STREAM_COLUMNS = (128, 512)  # least and most columns of a work item of narrow elements
_DOT_COLUMNS = 64  # columns of a work item where B is contiguous along k
_SPLIT_COLUMNS, _SPLIT_ITEMS, _SPLIT_UNITS = 2048, 16, 64  # of items that are parts of k: most columns, number, least units
_SUM_COLUMNS = 512  # columns of a work item that adds sums of parts

# Takes a row, a column, a mask, and the accumulators of columns from that one on.
Finish = Callable[[Operand, Val, "Val | None", Val], None]


def vector_product_suits(m: Dim) -> bool:
    """True where a product of `m` rows is better streamed than blocked, whatever it multiplies."""
    return isinstance(m, int) and m <= MAX_ROWS


@dataclass(frozen=True)
class _Split:
    """A product cut into `parts` along k, each of `span` units, and into `blocks` of `width` columns; the sums of a part's row
    are `stride` elements apart."""

    parts: int
    blocks: int
    width: int
    span: int
    stride: int


class FewRows:
    """A product while it has few rows: its work items, and their code.

    Attributes:
        most: the most rows with which it is better streamed than blocked.
        is_large: one product with a B of known size that comes from memory.
        grid: batch axes and what one of them is cut into.
        workspace: bytes.
    """

    def __init__(self, problem: Problem, arithmetic: Arithmetic, target: Target) -> None:
        self.problem, self.arithmetic, self.target = problem, arithmetic, target
        acc, b = arithmetic.acc, problem.dispatch.operands[1].type
        self._size = 8 if acc in ("f64", "i64") else 4
        self._lanes = target.vector_bits // (8 * self._size)
        self._registers = 32 if target.vector_bits >= 512 else 16
        self._plain = not problem.scales and problem.dispatch.operands[1].dtype == acc
        self._along_k = problem.b[-2] == 1 and problem.b[-1] != 1
        m, n, k = problem.m, problem.n, problem.k
        self.is_large = False
        if isinstance(n, int) and isinstance(k, int) and m != 0 and all(d == 1 for d in problem.batch):
            self.is_large = n * k * b.bits // 8 >= _LARGE
        self.most = (_MAX_PLAIN_ROWS if self._plain else MAX_ROWS) if self.is_large else 1
        # Units of k that a piece has: more load accumulators less often, and fewer keep fewer lines of wide elements under way.
        self._tile, self._group = _TILE_ROWS, 4
        if isinstance(m, int):
            self.most = max(self.most, MAX_ROWS)
            if not self._plain:  # or each tile would decode B again
                self._tile = max(1, min(m, MAX_ROWS))
                self._group = max(1, min(8 if b.bits <= 8 else 4, 8 // self._tile))
        # Rows are read in long pieces where they are narrow, or each lies in pages of its own.
        self._streamed = True
        if isinstance(n, int) and isinstance(m, int):
            self._streamed = b.bits <= 8 or n * b.bits // 8 > _PAGE
        self._split: _Split | None = None
        self.workspace: Dim = 0
        blocks: Dim
        if self._along_k:
            self._width = _DOT_COLUMNS
            blocks = dims.ceildiv(n, self._width)
        elif self.is_large:
            split = self._split = self._split_of(n, arithmetic.units(k))
            self._width, blocks = split.width, split.blocks * split.parts
            self.workspace = problem.m * split.parts * split.stride * self._size * self.share
        else:
            self._width = _stream_columns(n) if self._streamed else self._outer_group() * self._lanes
            blocks = dims.ceildiv(n, self._width)
        self.grid: tuple[Dim, ...] = (*problem.batch, blocks if problem.m else 0)

    @property
    def share(self) -> Dim:
        """1 with at most `most` rows, else 0."""
        m = self.problem.m
        return int(m <= self.most) if isinstance(m, int) else 1 - dims.minimum(1, dims.floordiv(m, self.most + 1))

    def _split_of(self, n: Dim, units: Dim) -> _Split:
        assert isinstance(n, int)
        assert isinstance(units, int)
        lanes, group = self._lanes, self._group
        blocks = -(-n // _SPLIT_COLUMNS)
        width = -(-n // (blocks * lanes)) * lanes
        blocks = -(-n // width)
        parts = max(1, min(_SPLIT_ITEMS // blocks, units // _SPLIT_UNITS))
        span = -(-units // (parts * group)) * group
        return _Split(-(-units // span), blocks, width, span, -(-n // lanes) * lanes)

    def _outer_group(self) -> int:
        """Vectors of columns that are accumulated in registers."""
        assert isinstance(self.problem.m, int)
        n, lanes = self.problem.n, self._lanes
        group = min(8, (self._registers - 2) // (max(1, self.problem.m) + 1))
        return max(1, min(group, max(4, n // (16 * lanes)), -(-n // lanes))) if isinstance(n, int) else group

    def item(self, ck: CpuKernel, operands: Operands, emitter: RegionEmitter, at: Sequence[Val]) -> None:
        """Write the work item at a position of the grid; the operands have begun."""
        problem, k = self.problem, ck.k
        *batch, block = at
        if self._split is not None:
            self._part(ck, operands, self._split, block)
            return
        n0, cols = block_range(ck, block, self._width, problem.n)

        def finish(m: Operand, column: Val, mask: Val | None, value: Val) -> None:
            _store(ck, problem, emitter, batch, m, column, mask, value)

        if self._along_k:
            self._dots(ck, operands, problem.m, n0, cols, finish)
        elif self._streamed:
            assert isinstance(problem.m, int)
            sums = k.alloca(problem.m * self._width * self._size)
            self._stream(ck, operands, problem.m, self._width, sums, n0, cols, finish)
        else:
            assert isinstance(problem.m, int)
            _outer(ck, problem, operands, max(1, problem.m), self._lanes, self._width // self._lanes, n0, cols, finish)

    def one_row(self, ck: CpuKernel, operands: Operands, width: int, n0: Val, cols: Val, finish: Finish) -> None:
        """Write the product of one row with columns [n0, n0 + cols), at most `width`, for a kernel whose rows are not known."""
        if self._along_k:
            self._dots(ck, operands, 1, n0, cols, finish)
        else:
            self._stream(ck, operands, 1, width, ck.k.alloca(width * self._size), n0, cols, finish)

    def finished(self, emitted: Emitted) -> Emitted:
        """The plan whose launch does the items, with what must follow."""
        split, problem = self._split, self.problem
        if split is None:
            return emitted
        grid = dims.ceildiv(problem.n, _SUM_COLUMNS) * self.share
        with cpu_kernel(problem.dispatch, self.target, grid, after=emitted) as ck:
            k, acc = ck.k, self.arithmetic.acc
            vector = k.vector_of(acc, self._lanes)
            emitter = problem.emitter(ck)
            rows = ck.dim(problem.m)
            with ck.items() as item:
                n0, cols = block_range(ck, item, _SUM_COLUMNS, problem.n)
                with k.for_(0, rows, rolled=True) as over_rows, k.for_(0, cols, self._lanes, rolled=True) as loop:
                    m, column = over_rows.iv, n0 + loop.iv
                    total = k.const(0, vector)
                    for part in range(split.parts):
                        place = ck.workspace().at((rows * part + m) * split.stride + column, acc)
                        total = total + k.load(place, vector, align=vector.nbytes)
                    whole = problem.n == split.stride
                    mask = None if whole else tail_mask(ck, cols - loop.iv, self._lanes)
                    _store(ck, problem, emitter, [k.const(0, "i64")] * len(problem.batch), m, column, mask, total)
            return ck.emitted(0, self.workspace, self.workspace)

    def _part(self, ck: CpuKernel, operands: Operands, split: _Split, number: Val) -> None:
        """The sums of a part of k for a block of columns, which go to the workspace."""
        part, block = ck.split(number, (split.parts, split.blocks))
        n0, cols = block_range(ck, block, split.width, self.problem.n)
        start, units = block_range(ck, part, split.span, self.arithmetic.units(self.problem.k))
        sums = ck.workspace().at(part * ck.dim(self.problem.m) * split.stride + n0, self.arithmetic.acc)
        self._accumulate(ck, operands, self.problem.m, split.stride, sums, n0, cols, start, units)

    def _stream(
        self, ck: CpuKernel, operands: Operands, m: int, width: int, sums: Val, n0: Val, cols: Val, finish: Finish
    ) -> None:
        """All columns of an item, at most `width`, for which `sums` has room."""
        k, acc, lanes = ck.k, self.arithmetic.acc, self._lanes
        zero = k.const(0, "i64")
        vector = k.vector_of(acc, lanes)
        self._accumulate(ck, operands, m, width, sums, n0, cols, zero, ck.dim(self.arithmetic.units(self.problem.k)))
        for row in range(m):
            with k.for_(0, cols, lanes) as loop:
                mask = tail_mask(ck, k.max(cols - loop.iv, zero), lanes)
                value = k.load(sums.at(loop.iv + row * width, acc), vector, align=vector.nbytes)
                finish(row, n0 + loop.iv, mask, value)

    def _accumulate(
        self, ck: CpuKernel, operands: Operands, m: Dim, stride: int, sums: Val, n0: Val, cols: Val, start: Val, units: Val
    ) -> None:
        """Set rows of `sums`, `stride` elements apart, to what `units` units from `start` on give to columns [n0, n0 + cols),
        whole vectors of them."""
        k, a, lanes = ck.k, operands.a, self._lanes
        acc, vector = self.arithmetic.acc, k.vector_of(self.arithmetic.acc, self._lanes)
        whole = cols // lanes * lanes
        with k.for_(0, ck.dim(m), rolled=True) as rows, k.for_(0, cols, lanes, rolled=True) as loop:
            k.store(k.const(0, vector), sums.at(rows.iv * stride + loop.iv, acc), align=vector.nbytes)

        def step(unit: Val, count: int) -> None:
            def tile(first: Val, rows: int) -> None:
                places = [sums.at((first + i) * stride, acc) for i in range(rows)]
                xs = [
                    [k.broadcast(a.along(first + i, unit + u, Position(())), lanes) for i in range(rows)] for u in range(count)
                ]

                def columns(j: Val, mask: Val | None) -> None:
                    totals = [k.load(p.at(j, acc), vector, align=vector.nbytes) for p in places]
                    for u, x in enumerate(xs):
                        totals = _multiply(ck, operands, x, n0 + j, unit + u, Position((), 0, lanes, mask), totals)
                    for p, total in zip(places, totals, strict=True):
                        k.store(total, p.at(j, acc), align=vector.nbytes)

                with k.for_(0, whole, lanes, rolled=True) as loop:
                    columns(loop.iv, None)
                if whole.const is None or whole.const != cols.const:
                    with k.if_(whole < cols):
                        columns(whole, tail_mask(ck, cols - whole, lanes))

            _row_tiles(ck, m, self._tile, tile)

        main = units // self._group * self._group
        with k.for_(0, main, self._group, rolled=True) as loop:
            step(start + loop.iv, self._group)
        if units.const is None or units.const % self._group:
            with k.for_(main, units, rolled=True) as rest:
                step(start + rest.iv, 1)

    def _dots(self, ck: CpuKernel, operands: Operands, m: Dim, n0: Val, cols: Val, finish: Finish) -> None:
        """Columns [n0, n0 + cols), each the sum of a vector accumulated along k."""
        if isinstance(m, int):
            self._dot(ck, operands, m, min(max(1, m), self._tile), n0, cols, finish)
            return
        with ck.k.if_else(ck.dim(m).eq(1)) as one:
            with one.then:
                self._dot(ck, operands, 1, 1, n0, cols, finish)
            with one.else_:
                self._dot(ck, operands, m, self._tile, n0, cols, finish)

    def _dot(self, ck: CpuKernel, operands: Operands, m: Dim, most: int, n0: Val, cols: Val, finish: Finish) -> None:
        """A few columns at a time with tiles of `most` rows."""
        k, a, b, lanes = ck.k, operands.a, operands.b, self._lanes
        arithmetic = self.arithmetic
        group = _power_of_two(min(8, (self._registers - 4) // (most + 1)))
        size = ck.dim(arithmetic.units(self.problem.k))
        main = whole_units(ck, b, k.const(0, "i64"), size) // lanes * lanes

        scratch = k.alloca(most * group * self._size)

        def tile(first: Val, rows: int, n: Val, lines: list[Val]) -> None:
            def step(unit: Val, mask: Val | None, sums: list, count: int = lanes) -> list:
                at = Position((), 0, count, mask) if count else Position(())

                def vector(x: Val) -> Val:
                    if not count:  # one unit: in the first lane
                        return k.insert(x, k.const(0, k.vector_of(x.t, lanes)), 0)
                    return x if x.t.kind == "vector" else k.broadcast(x, lanes)

                ys = [vector(b.along(line, unit, at)) for line in lines]
                xs = [vector(a.along(first + i, unit, at)) for i in range(rows)]
                return [[arithmetic.multiply(ck, x, y, c) for y, c in zip(ys, sums[i], strict=True)] for i, x in enumerate(xs)]

            zero = [[k.const(0, k.vector_of(arithmetic.acc, lanes))] * group for _ in range(rows)]
            with k.for_(0, main, lanes, carry=zero) as loop:
                loop.yield_(step(loop.iv, None, loop.carry))
            sums = loop.results
            if size.const is None or size.const % lanes or main.const != size.const:
                if arithmetic.pairs:
                    with k.for_(main, size, carry=sums) as rest:
                        rest.yield_(step(rest.iv, None, rest.carry, 0))
                    sums = rest.results
                else:
                    with k.if_else(main < size, results=sums) as tail:
                        with tail.then:
                            tail.yield_(step(main, tail_mask(ck, size - main, lanes), sums))
                        with tail.else_:
                            tail.yield_(sums)
                    sums = tail.results
            mask = tail_mask(ck, cols - n, group)
            totals = [k.vector([k.reduce("add", x) for x in row]) for row in sums]
            if rows == 1:
                finish(first, n0 + n, mask, totals[0])
                return
            for i, total in enumerate(totals):  # and one copy of the epilogue, not one a row
                k.store(total, scratch.at(i * group, arithmetic.acc), align=self._size)
            with k.for_(0, rows, rolled=True) as loop:
                total = k.load(scratch.at(loop.iv * group, arithmetic.acc), totals[0].t, align=self._size)
                finish(first + loop.iv, n0 + n, mask, total)

        with k.for_(0, cols, group, rolled=True) as columns:
            last = ck.dim(self.problem.n) - 1
            lines = [k.min(n0 + columns.iv + j, last) for j in range(group)]
            _row_tiles(ck, m, most, lambda first, rows: tile(first, rows, columns.iv, lines))


def emit_vector_product(few: FewRows, operands_of: Callable[[CpuKernel, Problem], Operands]) -> Emitted:
    """Write the kernels of a product that has few rows, whose operands `operands_of` gives."""
    problem = few.problem
    with cpu_kernel(problem.dispatch, few.target, dims.product(few.grid)) as ck:
        operands, emitter = operands_of(ck, problem), problem.emitter(ck)
        with ck.items() as item:
            at = ck.split(item, few.grid)
            operands.begin(at[:-1])
            few.item(ck, operands, emitter, at)
        emitted = ck.emitted(problem.flops, few.workspace)
    return few.finished(emitted)


def _store(
    ck: CpuKernel, problem: Problem, emitter: RegionEmitter, batch: Sequence[Val], m: Operand, column: Val, mask: Val | None,
    value: Val,
) -> None:  # fmt: skip
    index = (*batch, ck.k.value(m, "i64"), column)
    problem.store(ck, emitter, Position(index, len(index) - 1, value.t.lanes, mask), value)


def _row_tiles(ck: CpuKernel, m: Dim, most: int, body: Callable[[Val, int], None]) -> None:
    """Emit `body(first row, rows)` for tiles of `most` rows, and for smaller ones of what is left of `m`."""
    k, size = ck.k, ck.dim(m)
    if isinstance(m, int) and m <= most:
        body(k.const(0, "i64"), max(1, m))
        return
    with k.for_(0, size // most * most, most, rolled=True) as loop:
        body(loop.iv, most)
    if isinstance(m, int):
        if m % most:
            body(k.const(m // most * most, "i64"), m % most)
        return
    rows = most // 2
    assert most == 2 * rows == _power_of_two(most), most
    while rows:
        with k.if_((size & rows).ne(0)):
            body(size // (2 * rows) * (2 * rows), rows)
        rows //= 2


def _stream_columns(n: Dim) -> int:
    """Columns of a work item: an eighth of all, so that several threads have some."""
    least, most = _STREAM_COLUMNS
    return min(most, max(least, -(-n // (8 * least)) * least)) if isinstance(n, int) else most


def _power_of_two(x: int) -> int:
    return 1 << max(0, x.bit_length() - 1)


def _multiply(
    ck: CpuKernel, operands: Operands, xs: list[Val], column: Val, unit: Val, at: Position, totals: list[Val]
) -> list[Val]:
    """Totals of rows plus `xs`, a vector a row, times unit `unit` of the vector of columns from `column` on."""
    y = operands.b.across(column, unit, at)
    if y.t.kind != "vector":
        y = ck.k.broadcast(y, at.lanes)
    return [operands.a.arithmetic.multiply(ck, x, y, total) for x, total in zip(xs, totals, strict=True)]


def _outer(
    ck: CpuKernel, problem: Problem, operands: Operands, rows: int, lanes: int, group: int, n0: Val, cols: Val, finish: Finish
) -> None:
    """`group` vectors of columns, accumulated over k."""
    k, a = ck.k, operands.a
    arithmetic = a.arithmetic
    zero = k.const(0, "i64")
    whole = isinstance(problem.n, int) and problem.n % (group * lanes) == 0
    masks = [None if whole else tail_mask(ck, k.max(cols - j * lanes, zero), lanes) for j in range(group)]
    start = [[k.const(0, k.vector_of(arithmetic.acc, lanes))] * group for _ in range(rows)]
    with k.for_(0, ck.dim(arithmetic.units(problem.k)), carry=start) as loop:
        xs = [k.broadcast(a.along(m, loop.iv, Position(())), lanes) for m in range(rows)]
        sums = [list(row) for row in loop.carry]
        for j, mask in enumerate(masks):
            at = Position((), 0, lanes, mask)
            totals = _multiply(ck, operands, xs, n0 + j * lanes, loop.iv, at, [row[j] for row in sums])
            for row, total in zip(sums, totals, strict=True):
                row[j] = total
        loop.yield_(sums)
    for m in range(rows):
        for j, mask in enumerate(masks):
            finish(m, n0 + j * lanes, mask, loop.results[m][j])
