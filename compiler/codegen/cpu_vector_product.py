"""Matmuls with few rows on the CPU: every element of B is read once, straight into registers, and nothing is packed.

Such a product is bound by the bandwidth of B. Where B is contiguous along n, vectors of columns are accumulated over k;
where it is contiguous along k, vectors along k are, and their lanes summed at the end. If accumulators stayed in registers,
rows of narrow elements would be read a line of the cache at a time, and long rows a few lines of a page: of these longer
pieces of a few rows are taken at once, and accumulators are kept in the first cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ingot import dims
from ingot.compiler.codegen.cpu_factors import Arithmetic
from ingot.compiler.codegen.cpu_gemm import block_range, whole_units
from ingot.compiler.codegen.cpu_kernel import CpuKernel, cpu_kernel
from ingot.compiler.codegen.cpu_region import Position
from ingot.compiler.codegen.cpu_space import tail_mask
from ingot.compiler.codegen.family import Emitted
from ingot.compiler.codegen.values import Val
from ingot.dims import Dim
from ingot.target import Target

if TYPE_CHECKING:
    from ingot.compiler.codegen.cpu_matmul import Operands, Problem

MAX_ROWS = 8
PAGE = 4096  # bytes
_STREAM_COLUMNS = (128, 512)  # least and most columns of a work item of narrow elements
_DOT_COLUMNS = 64  # columns of a work item where B is contiguous along k


def vector_product_suits(m: Dim) -> bool:
    """True where a product of `m` rows is better streamed than blocked."""
    return isinstance(m, int) and m <= MAX_ROWS


def emit_vector_product(
    problem: Problem, arithmetic: Arithmetic, operands_of: Callable[[CpuKernel, Problem], Operands], target: Target
) -> Emitted:
    """Write the kernel of a product with at most `MAX_ROWS` rows, whose operands `operands_of` gives."""
    dispatch = problem.dispatch
    acc = arithmetic.acc
    along_k = problem.b[-2] == 1 and problem.b[-1] != 1
    lanes = target.vector_bits // (64 if acc in ("f64", "i64") else 32)
    registers = 32 if target.vector_bits >= 512 else 16
    assert isinstance(problem.m, int)
    rows = max(1, problem.m)
    streamed = not along_k and _is_streamed(problem)
    if along_k:
        group, width = _dot_group(rows, registers), _DOT_COLUMNS
    elif streamed:
        group, width = _stream_group(problem, rows), _stream_columns(problem.n)
    else:
        group = min(8, (registers - 2) // (rows + 1))
        if isinstance(problem.n, int):
            group = max(1, min(group, max(4, problem.n // (16 * lanes)), -(-problem.n // lanes)))
        width = group * lanes
    grid = (*problem.batch, dims.ceildiv(problem.n, width) if problem.m else 0)
    with cpu_kernel(dispatch, target, dims.product(grid)) as ck:
        operands = operands_of(ck, problem)
        emitter = problem.emitter(ck)
        with ck.items() as item:
            *batch, block = ck.split(item, grid)
            n0, cols = block_range(ck, block, width, problem.n)
            operands.begin(batch)

            def finish(m: int, column: Val, mask: Val | None, value: Val) -> None:
                index = (*batch, ck.k.const(m, "i64"), column)
                at = Position(index, len(index) - 1, value.t.lanes, mask)
                problem.store(ck, emitter, at, value)

            if along_k:
                _dot(ck, problem, operands, rows, lanes, group, n0, cols, finish)
            elif streamed:
                _streamed(ck, problem, operands, rows, lanes, group, width, n0, cols, finish)
            else:
                _outer(ck, problem, operands, rows, lanes, group, n0, cols, finish)
        return ck.emitted(problem.flops)


def emit_one_row(
    ck: CpuKernel, problem: Problem, operands: Operands, lanes: int, registers: int, width: int, n0: Val, cols: Val,
    finish: Finish,
) -> None:  # fmt: skip
    """Write the product of one row with columns [n0, n0 + cols), at most `width`, into a kernel whose rows are not known."""
    if problem.b[-2] == 1 and problem.b[-1] != 1:
        _dot(ck, problem, operands, 1, lanes, _dot_group(1, registers), n0, cols, finish)
    else:
        _streamed(ck, problem, operands, 1, lanes, _stream_group(problem, 1), width, n0, cols, finish)


def _is_streamed(problem: Problem) -> bool:
    """Whether B's rows are read in long pieces: they are narrow, or each lies in pages of its own."""
    b = problem.dispatch.operands[1].type
    return b.bits <= 8 or not isinstance(problem.n, int) or problem.n * b.bits // 8 > PAGE


def _dot_group(rows: int, registers: int) -> int:
    return _power_of_two(min(8, (registers - 4) // (rows + 1)))


def _stream_group(problem: Problem, rows: int) -> int:
    """Units of k at a time: more load accumulators less often, and fewer keep fewer lines of wide elements under way."""
    return max(1, min(8 if problem.dispatch.operands[1].type.bits <= 8 else 4, 8 // rows))


Finish = Callable[[int, Val, "Val | None", Val], None]


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


def _stream_columns(n: Dim) -> int:
    """Columns of a work item: an eighth of all, so that several threads have some."""
    least, most = _STREAM_COLUMNS
    return min(most, max(least, -(-n // (8 * least)) * least)) if isinstance(n, int) else most


def _streamed(
    ck: CpuKernel, problem: Problem, operands: Operands, rows: int, lanes: int, group: int, width: int, n0: Val, cols: Val,
    finish: Finish,
) -> None:  # fmt: skip
    """All columns of the item, at most `width`, `group` units of k at a time."""
    k, a, b = ck.k, operands.a, operands.b
    arithmetic = a.arithmetic
    acc, vector = arithmetic.acc, k.vector_of(arithmetic.acc, lanes)
    sums = k.alloca(rows * width * (vector.nbytes // lanes))
    units = ck.dim(arithmetic.units(problem.k))
    zero = k.const(0, "i64")
    whole = cols // lanes * lanes
    with k.for_(0, rows * width, lanes) as loop:
        k.store(k.const(0, vector), sums.at(loop.iv, acc), align=vector.nbytes)

    def columns(j: Val, unit: Val, xs: list[list[Val]], mask: Val | None) -> None:
        places = [sums.at(j + m * width, acc) for m in range(rows)]
        totals = [k.load(p, vector, align=vector.nbytes) for p in places]
        for u, x in enumerate(xs):
            totals = _multiply(ck, operands, x, n0 + j, unit + u, Position((), 0, lanes, mask), totals)
        for p, total in zip(places, totals, strict=True):
            k.store(total, p, align=vector.nbytes)

    def step(unit: Val, count: int) -> None:
        xs = [[k.broadcast(a.along(m, unit + u, Position(())), lanes) for m in range(rows)] for u in range(count)]
        with k.for_(0, whole, lanes) as over_columns:
            j = over_columns.iv
            for u in range(count):
                k.prefetch_cache(b.lines.address(n0 + j, (unit + count + u) * arithmetic.unit))
            columns(j, unit, xs, None)
        with k.if_(whole < cols):
            columns(whole, unit, xs, tail_mask(ck, cols - whole, lanes))

    main = units // group * group
    with k.for_(0, main, group) as loop:
        step(loop.iv, group)
    if units.const is None or units.const % group:
        with k.for_(main, units) as rest:
            step(rest.iv, 1)
    for m in range(rows):
        with k.for_(0, cols, lanes) as loop:
            mask = tail_mask(ck, k.max(cols - loop.iv, zero), lanes)
            value = k.load(sums.at(loop.iv + m * width, acc), vector, align=vector.nbytes)
            finish(m, n0 + loop.iv, mask, value)


def _dot(
    ck: CpuKernel, problem: Problem, operands: Operands, rows: int, lanes: int, group: int, n0: Val, cols: Val, finish: Finish
) -> None:
    """`group` columns at a time, each the sum of a vector accumulated along k."""
    k, a, b = ck.k, operands.a, operands.b
    arithmetic = a.arithmetic
    size = ck.dim(arithmetic.units(problem.k))
    with k.for_(0, cols, group) as columns:
        last = ck.dim(problem.n) - 1
        lines = [k.min(n0 + columns.iv + j, last) for j in range(group)]

        def step(unit: Val, mask: Val | None, sums: list, count: int = lanes) -> list:
            at = Position((), 0, count, mask) if count else Position(())

            def vector(x: Val) -> Val:
                if not count:  # one unit: in the first lane
                    return k.insert(x, k.const(0, k.vector_of(x.t, lanes)), 0)
                return x if x.t.kind == "vector" else k.broadcast(x, lanes)

            ys = [vector(b.along(line, unit, at)) for line in lines]
            xs = [vector(a.along(m, unit, at)) for m in range(rows)]
            return [
                [arithmetic.multiply(ck, x, y, c) for y, c in zip(ys, sums[m], strict=True)] for m, x in enumerate(xs)
            ]

        zero = [[k.const(0, k.vector_of(arithmetic.acc, lanes))] * group for _ in range(rows)]
        main = whole_units(ck, b, k.const(0, "i64"), size) // lanes * lanes
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
        mask = tail_mask(ck, cols - columns.iv, group)
        for m in range(rows):
            finish(m, n0 + columns.iv, mask, k.vector([k.reduce("add", x) for x in sums[m]]))
