"""Matmuls with few rows on the CPU: every element of B is read once, straight into registers, and nothing is packed.

Such a product is bound by the bandwidth of B. Where B is contiguous along n, vectors of columns are accumulated over k;
where it is contiguous along k, vectors along k are, and their lanes summed at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ingot import dims
from ingot.compiler.codegen.cpu_gemm import block_range
from ingot.compiler.codegen.cpu_kernel import CpuKernel, cpu_kernel
from ingot.compiler.codegen.cpu_region import Position, load_lanes
from ingot.compiler.codegen.cpu_space import tail_mask
from ingot.compiler.codegen.family import Emitted
from ingot.compiler.codegen.values import Val
from ingot.dims import Dim
from ingot.target import Target

if TYPE_CHECKING:
    from ingot.compiler.codegen.cpu_matmul import Problem

MAX_ROWS = 8
_DOT_COLUMNS = 64  # columns of a work item where B is contiguous along k


def vector_product_suits(m: Dim) -> bool:
    """True where a product of `m` rows is better streamed than blocked."""
    return isinstance(m, int) and m <= MAX_ROWS


def emit_vector_product(problem: Problem, acc: str, target: Target) -> Emitted:
    """Write the kernel of a matmul with at most `MAX_ROWS` rows."""
    dispatch = problem.dispatch
    along_k = problem.b[-2] == 1 and problem.b[-1] != 1
    lanes = target.vector_bits // (64 if acc in ("f64", "i64") else 32)
    registers = 32 if target.vector_bits >= 512 else 16
    assert isinstance(problem.m, int)
    rows = max(1, problem.m)
    if along_k:
        group = _power_of_two(min(8, (registers - 4) // (rows + 1)))
        width = _DOT_COLUMNS
    else:
        group = min(8, (registers - 2) // (rows + 1))
        if isinstance(problem.n, int):
            group = max(1, min(group, max(4, problem.n // (16 * lanes)), -(-problem.n // lanes)))
        width = group * lanes
    grid = (*problem.batch, dims.ceildiv(problem.n, width) if problem.m else 0)
    with cpu_kernel(dispatch, target, dims.product(grid)) as ck:
        emitter = problem.emitter(ck)
        with ck.items() as item:
            *batch, block = ck.split(item, grid)
            n0, cols = block_range(ck, block, width, problem.n)
            a = ck.operand(0).at(ck.offset(batch, problem.a[:-2]), dispatch.operands[0].dtype)
            b = ck.operand(1).at(ck.offset(batch, problem.b[:-2]), dispatch.operands[1].dtype)

            def finish(m: int, column: Val, mask: Val | None, value: Val) -> None:
                index = (*batch, ck.k.const(m, "i64"), column)
                at = Position(index, len(index) - 1, value.t.lanes, mask)
                problem.store(ck, emitter, at, value)

            step = _dot if along_k else _outer
            step(ck, problem, acc, lanes, group, a, b, n0, cols, finish)
        return ck.emitted(problem.flops)


Finish = Callable[[int, Val, "Val | None", Val], None]


def _power_of_two(x: int) -> int:
    return 1 << max(0, x.bit_length() - 1)


def _outer(
    ck: CpuKernel, problem: Problem, acc: str, lanes: int, group: int, a: Val, b: Val, n0: Val, cols: Val, finish: Finish
) -> None:
    """`group` vectors of columns, accumulated over k."""
    k = ck.k
    a_type, b_type = (t.dtype for t in ck.dispatch.operands[:2])
    rows = problem.m
    assert isinstance(rows, int)
    a_row, a_column, b_row, b_column = (ck.dim(d) for d in (*problem.a[-2:], *problem.b[-2:]))
    zero = k.const(0, "i64")
    whole = isinstance(problem.n, int) and problem.n % (group * lanes) == 0
    masks = [None if whole else tail_mask(ck, k.max(cols - j * lanes, zero), lanes) for j in range(group)]
    start = [[k.const(0, k.vector_of(acc, lanes))] * group for _ in range(rows)]
    with k.for_(0, ck.dim(problem.k), carry=start) as loop:
        source = b.at(n0 * b_column + loop.iv * b_row, b_type)
        xs = []
        for m in range(rows):
            x = k.load(a.at(a_row * m + loop.iv * a_column, a_type), a_type)
            xs.append(k.broadcast(k.cast(x, acc), lanes))
        sums = [list(row) for row in loop.carry]
        for j, mask in enumerate(masks):
            at = Position((), 0, lanes, mask)
            y = k.cast(load_lanes(ck, source.at(b_column * (j * lanes), b_type), b_type, b_column, at), acc)
            if y.t.kind != "vector":
                y = k.broadcast(y, lanes)
            for m in range(rows):
                sums[m][j] = k.fma(xs[m], y, sums[m][j])
        loop.yield_(sums)
    for m in range(rows):
        for j, mask in enumerate(masks):
            finish(m, n0 + j * lanes, mask, loop.results[m][j])


def _dot(
    ck: CpuKernel, problem: Problem, acc: str, lanes: int, group: int, a: Val, b: Val, n0: Val, cols: Val, finish: Finish
) -> None:
    """`group` columns at a time, each the sum of a vector accumulated along k."""
    k = ck.k
    a_type, b_type = (t.dtype for t in ck.dispatch.operands[:2])
    rows = problem.m
    assert isinstance(rows, int)
    a_row, a_column, b_column = (ck.dim(d) for d in (*problem.a[-2:], problem.b[-1]))
    size = ck.dim(problem.k)
    with k.for_(0, cols, group) as columns:
        last = ck.dim(problem.n) - 1
        n = [k.min(n0 + columns.iv + j, last) for j in range(group)]
        starts = [b.at(x * b_column, b_type) for x in n]

        def step(kk: Val, mask: Val | None, sums: list) -> list:
            at = Position((), 0, lanes, mask)
            one = k.const(1, "i64")
            ys = [k.cast(load_lanes(ck, p.at(kk, b_type), b_type, one, at), acc) for p in starts]
            out = []
            for m in range(rows):
                x = load_lanes(ck, a.at(a_row * m + kk * a_column, a_type), a_type, a_column, at)
                x = k.cast(x if x.t.kind == "vector" else k.broadcast(x, lanes), acc)
                out.append([k.fma(x, y, c) for y, c in zip(ys, sums[m], strict=True)])
            return out

        zero = [[k.const(0, k.vector_of(acc, lanes))] * group for _ in range(rows)]
        main = size // lanes * lanes
        with k.for_(0, main, lanes, carry=zero) as loop:
            loop.yield_(step(loop.iv, None, loop.carry))
        sums = loop.results
        if size.const is None or size.const % lanes:
            with k.if_else(main < size, results=sums) as tail:
                with tail.then:
                    tail.yield_(step(main, tail_mask(ck, size - main, lanes), sums))
                with tail.else_:
                    tail.yield_(sums)
            sums = tail.results
        mask = tail_mask(ck, cols - columns.iv, group)
        for m in range(rows):
            finish(m, n0 + columns.iv, mask, k.vector([k.reduce("add", x) for x in sums[m]]))
