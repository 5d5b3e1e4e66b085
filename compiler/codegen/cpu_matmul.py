"""The family of `matmul` on the CPU: the blocked product, or for few rows a product that streams B once.

Where the number of rows is not known, a kernel has both and chooses when it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ingot import dims
from ingot.compiler.codegen.cpu_factors import BlockScales, Factor, Lines, arithmetic_of, scales_of
from ingot.compiler.codegen.cpu_gemm import (
    A_COPY,
    A_IN_PLACE,
    B_COPY,
    B_TRANSPOSE,
    BlockedGemm,
    GemmSchedule,
    MatrixA,
    MatrixB,
    PackingCost,
    block_grid,
    block_range,
    choose_schedule,
    in_place,
    register_tile,
)
from ingot.compiler.codegen.cpu_kernel import CpuKernel, cpu_kernel
from ingot.compiler.codegen.cpu_nibbles import begin_bytes
from ingot.compiler.codegen.cpu_region import (
    Position,
    RegionEmitter,
    domain_strides,
    indexed_axes,
    loaded_operands,
    store_elements,
)
from ingot.compiler.codegen.cpu_space import collapse
from ingot.compiler.codegen.cpu_vector_product import FewRows, emit_vector_product
from ingot.compiler.codegen.family import Emitted
from ingot.compiler.codegen.values import Operand, Val
from ingot.dims import Dim
from ingot.dispatch import Dispatch, TensorArg
from ingot.matmul_scales import matmul_scales
from ingot.target import Target


@dataclass(frozen=True)
class Problem:
    """A matmul over a collapsed domain: batch axes, then m and n (both kept even where they are 1).

    Attributes:
        batch: sizes of the batch axes that are left.
        m, n, k: sizes.
        a, b: element strides over (batch..., row, column) of the operands.
        scales: for each operand that holds scales or zero points, its strides over (batch..., line, block), where lines are
            rows of a or columns of b.
        results: for each result, its strides over (batch..., m, n).
        loads: for each operand that the epilogue loads, its strides over the same.
        axes: which axis of the collapsed domain an original one became, for `index`.
    """

    dispatch: Dispatch
    batch: tuple[Dim, ...]
    m: Dim
    n: Dim
    k: Dim
    a: tuple[Dim, ...]
    b: tuple[Dim, ...]
    results: tuple[tuple[Dim, ...], ...]
    loads: dict[int, tuple[Dim, ...]]
    axes: dict[int, int]
    scales: dict[int, tuple[Dim, ...]] = field(default_factory=dict)

    @property
    def flops(self) -> Dim:
        return dims.product((*self.batch, self.m, self.n, self.k)) * 2

    def emitter(self, ck: CpuKernel) -> RegionEmitter:
        """The epilogue over the collapsed domain."""
        return RegionEmitter(ck, self.dispatch.regions[0], len(self.batch) + 2, self.loads, self.axes)

    def store(self, ck: CpuKernel, emitter: RegionEmitter, at: Position, value: Val) -> None:
        """Run the epilogue on accumulators and store the results."""
        for number, x in enumerate(emitter([value], at)):
            result = ck.dispatch.results[number]
            store_elements(ck, x, ck.result(number), at.index, self.results[number], result.dtype, at)


def problem_of(dispatch: Dispatch) -> Problem:
    """The matmul of a dispatch; batch axes are merged into m where B does not depend on them."""
    a, b = dispatch.operands[:2]
    shape = dispatch.results[0].shape
    rank = len(shape)
    region = dispatch.regions[0]
    operands = loaded_operands(region)
    of_a, of_b = scales_of(dispatch)

    def over(t: TensorArg, row: Dim, column: Dim) -> tuple[Dim, ...]:
        return (*_batch_strides(t.shape[:-2], t.strides[:-2], rank - 2), row, column)

    accesses = [over(a, a.strides[-2], 0), over(b, 0, b.strides[-1])]
    for i in (*of_a, *of_b):
        t = dispatch.operands[i]
        accesses.append(over(t, t.strides[-2], 0) if i in of_a else over(t, 0, t.strides[-1]))
    scales = range(2, len(accesses))
    accesses += [r.strides for r in dispatch.results]
    accesses += [domain_strides(dispatch.operands[n], rank) for n in operands]
    # Only axes before n may merge, and those of size 1 among them go.
    space = collapse(shape[:-1], [s[:-1] for s in accesses], indexed_axes(region))
    sizes, merged = space.sizes, space.strides
    if any(merged[i][-1] != 0 for i in (1, *scales[len(of_a) :])):  # the last axis that is left is a batch of B: m is 1
        sizes, merged = (*sizes, 1), tuple((*s, 0) for s in merged)
    strides = [(*outer, s[-1]) for outer, s in zip(merged, accesses, strict=True)]
    axes = {**space.axes, rank - 1: len(sizes)}
    first = 2 + len(scales) + len(dispatch.results)
    found: dict[int, tuple[Dim, ...]] = {}
    for i, number in zip(scales, (*of_a, *of_b), strict=True):
        t = dispatch.operands[number]
        line, block = (strides[i][-2], t.strides[-1]) if number in of_a else (strides[i][-1], t.strides[-2])
        found[number] = (*strides[i][:-2], line, block)
    return Problem(
        dispatch,
        sizes[:-1],
        sizes[-1],
        shape[-1],
        a.shape[-1],
        (*strides[0][:-1], a.strides[-1]),
        (*strides[1][:-2], b.strides[-2], b.strides[-1]),
        tuple(strides[2 + len(scales) : first]),
        dict(zip(operands, strides[first:], strict=True)),
        axes,
        found,
    )


def _batch_strides(shape: Sequence[Dim], strides: Sequence[Dim], rank: int) -> tuple[Dim, ...]:
    own = tuple(0 if d == 1 else s for d, s in zip(shape, strides, strict=True))
    return (0,) * (rank - len(own)) + own


class Operands:
    """The operands of a problem while its kernel is written: `a` and `b`, whose lines begin where `begin` says."""

    def __init__(self, ck: CpuKernel, problem: Problem) -> None:
        self.ck, self.problem = ck, problem
        dispatch = problem.dispatch
        arithmetic = arithmetic_of(dispatch)
        scales = matmul_scales(dict(dispatch.attrs))
        narrow = dispatch.operands[0].dtype if dispatch.operands[0].dtype in ("f16", "bf16") else ""
        self._lines: list[tuple[int, Lines, tuple[Dim, ...]]] = []
        a, b = problem.a, problem.b
        self.a = Factor(
            ck, arithmetic, self._of(0, (*a[:-2], a[-2], a[-1]), bool(dispatch.attr("a_unsigned"))), problem.k,
            self._scales(scales.a_scale, None, scales.a_block, ""),
        )  # fmt: skip
        self.b = Factor(
            ck, arithmetic, self._of(1, (*b[:-2], b[-1], b[-2]), bool(dispatch.attr("b_unsigned"))), problem.k,
            self._scales(scales.b_scale, scales.b_zero, scales.b_block, narrow),
        )  # fmt: skip

    def _of(self, number: int, strides: tuple[Dim, ...], unsigned: bool) -> Lines:
        """An operand with strides over (batch..., line, k)."""
        *others, line, step = strides
        strides = (*(0 if d == 1 else s for d, s in zip(self.problem.batch, others, strict=True)), line, step)
        axis = -1 if step == 1 else -2
        begins = begin_bytes(strides, axis, self.ck.dispatch)
        lines = Lines(self.ck, self.ck.dispatch.operands[number], line, step, unsigned, begins)
        self._lines.append((number, lines, tuple(others)))
        return lines

    def _scales(self, scale: int | None, zero: int | None, block: int, narrow: str) -> BlockScales | None:
        if scale is None:
            return None
        dispatch = self.problem.dispatch
        blocks = dims.ceildiv(self.problem.k, block) if block else 1
        unsigned = bool(dispatch.attr("b_unsigned"))
        zeros = None if zero is None else self._of(zero, self.problem.scales[zero], unsigned)
        return BlockScales(self._of(scale, self.problem.scales[scale], False), zeros, block, blocks, narrow)

    def begin(self, batch: Sequence[Val]) -> None:
        """Set a batch's operands."""
        for number, lines, strides in self._lines:
            lines.begin(self.ck.operand(number), self.ck.offset(batch, strides))


def emit(dispatch: Dispatch, target: Target, schedule: Any = None) -> Emitted:
    """See `family.emit`; `schedule` is a `GemmSchedule`."""
    problem = problem_of(dispatch)
    arithmetic = arithmetic_of(dispatch)
    acc = arithmetic.acc
    few = FewRows(problem, arithmetic, target)
    if schedule is None and isinstance(problem.m, int) and problem.m <= few.most:
        return emit_vector_product(few, Operands)
    lanes = target.vector_bits // (64 if acc in ("f64", "i64") else 32)
    registers = 32 if target.vector_bits >= 512 else 16
    depth = arithmetic.units(problem.k)
    if schedule is None:
        mr, _ = register_tile(problem.m, problem.n, lanes, registers)
        plain = not problem.scales
        direct = plain and in_place(dispatch.operands[0].dtype, problem.a[-2], problem.a[-1], problem.m, acc, mr)
        turned = problem.b[-2] == 1 and problem.b[-1] != 1
        packing = PackingCost(A_IN_PLACE if direct else A_COPY, B_TRANSPOSE if turned else B_COPY)
        batch = dims.product(problem.batch)
        schedule = choose_schedule(problem.m, problem.n, depth, batch, lanes, registers, packing)
    assert isinstance(schedule, GemmSchedule)
    blocks = block_grid(schedule, problem.m, problem.n)
    grid = (*problem.batch, *blocks)
    turns = not isinstance(problem.m, int) and few.is_large  # into the product of few rows, with its own work items
    items = dims.product(grid)
    if turns:
        items = few.share * dims.product(few.grid) + (1 - few.share) * items
    with cpu_kernel(dispatch, target, items) as ck:
        operands = Operands(ck, problem)
        source_a = MatrixA(ck, operands.a, problem.m, schedule)
        source_b = MatrixB(ck, operands.b, problem.n, schedule)
        sizes = (ck.dim(problem.m), ck.dim(problem.n), ck.dim(depth))
        gemm = BlockedGemm(ck, schedule, arithmetic, *sizes, source_a, source_b)
        emitter = problem.emitter(ck)

        def block(item: Val) -> None:
            *at_batch, n_block, m_block = ck.split(item, grid)
            operands.begin(at_batch)

            def finish(row: Val, at: Position, value: Val) -> None:
                index = (*at_batch, row, at.index[0])
                lane_axis = len(index) - 1 if at.lanes else -1
                problem.store(ck, emitter, Position(index, lane_axis, at.lanes, at.mask), value)

            def finish_row(m: Operand, column: Val, mask: Val | None, value: Val) -> None:
                finish(ck.k.value(m, "i64"), Position((column,), 0, value.t.lanes, mask), value)

            m0, rows = block_range(ck, m_block, schedule.mc, problem.m)
            n0, cols = block_range(ck, n_block, schedule.nc, problem.n)
            if turns or isinstance(problem.m, int):
                gemm.block(m0, rows, n0, cols, finish)
                return
            with ck.k.if_else(ck.dim(problem.m).eq(1)) as one:  # decoding has one row
                with one.then:
                    few.one_row(ck, operands, schedule.nc, n0, cols, finish_row)
                with one.else_:
                    gemm.block(m0, rows, n0, cols, finish)

        with ck.items() as item:
            if turns:
                with ck.k.if_else(ck.dim(problem.m) <= few.most) as branch:
                    with branch.then:
                        first = [ck.k.const(0, "i64")] * len(problem.batch)
                        operands.begin(first)
                        few.item(ck, operands, emitter, [*first, item])
                    with branch.else_:
                        block(item)
            else:
                block(item)
        emitted = ck.emitted(problem.flops, few.workspace if turns else 0)
    return few.finished(emitted) if turns else emitted
