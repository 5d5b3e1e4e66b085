"""The family of `matmul` on the CPU: the blocked product, or for few rows a product that streams B once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ingot import dims
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
from ingot.compiler.codegen.cpu_region import (
    Position,
    RegionEmitter,
    domain_strides,
    indexed_axes,
    loaded_operands,
    storage_type,
    store_lanes,
)
from ingot.compiler.codegen.cpu_space import collapse
from ingot.compiler.codegen.cpu_vector_product import emit_vector_product, vector_product_suits
from ingot.compiler.codegen.family import Emitted
from ingot.compiler.codegen.values import Val
from ingot.dims import Dim
from ingot.dispatch import Dispatch
from ingot.matmul_scales import matmul_scales
from ingot.target import Target


@dataclass(frozen=True)
class Problem:
    """A matmul over a collapsed domain: batch axes, then m and n (both kept even where they are 1).

    Attributes:
        batch: sizes of the batch axes that are left.
        m, n, k: sizes.
        a, b: element strides over (batch..., row, column) of the operands.
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
            strides = self.results[number]
            storage = storage_type(result.dtype)
            to = ck.result(number).at(ck.offset(at.index, strides), storage)
            store_lanes(ck, x, to, result.dtype, ck.dim(strides[at.lane_axis]), at)


def problem_of(dispatch: Dispatch) -> Problem:
    """The matmul of a dispatch; batch axes are merged into m where B does not depend on them."""
    a, b = dispatch.operands[:2]
    shape = dispatch.results[0].shape
    rank = len(shape)
    region = dispatch.regions[0]
    operands = loaded_operands(region)
    over_a = (*_batch_strides(a.shape[:-2], a.strides[:-2], rank - 2), a.strides[-2], 0)
    over_b = (*_batch_strides(b.shape[:-2], b.strides[:-2], rank - 2), 0, b.strides[-1])
    accesses = [over_a, over_b, *(r.strides for r in dispatch.results)]
    accesses += [domain_strides(dispatch.operands[n], rank) for n in operands]
    # Only axes before n may merge, and those of size 1 among them go.
    space = collapse(shape[:-1], [s[:-1] for s in accesses], indexed_axes(region))
    sizes, merged = space.sizes, space.strides
    if merged[1][-1] != 0:  # the last axis that is left is a batch of B: m is 1
        sizes, merged = (*sizes, 1), tuple((*s, 0) for s in merged)
    strides = [(*outer, s[-1]) for outer, s in zip(merged, accesses, strict=True)]
    axes = {**space.axes, rank - 1: len(sizes)}
    first = 2 + len(dispatch.results)
    return Problem(
        dispatch,
        sizes[:-1],
        sizes[-1],
        shape[-1],
        a.shape[-1],
        (*strides[0][:-1], a.strides[-1]),
        (*strides[1][:-2], b.strides[-2], b.strides[-1]),
        tuple(strides[2:first]),
        dict(zip(operands, strides[first:], strict=True)),
        axes,
    )


def _batch_strides(shape: Sequence[Dim], strides: Sequence[Dim], rank: int) -> tuple[Dim, ...]:
    own = tuple(0 if d == 1 else s for d, s in zip(shape, strides, strict=True))
    return (0,) * (rank - len(own)) + own


def emit(dispatch: Dispatch, target: Target, schedule: Any = None) -> Emitted:
    """See `family.emit`; `schedule` is a `GemmSchedule`."""
    if matmul_scales(dict(dispatch.attrs)).count:
        raise NotImplementedError(f"matmul of {dispatch.operands[0].dtype} and {dispatch.operands[1].dtype} with scales")
    problem = problem_of(dispatch)
    acc = str(dispatch.attr("acc"))
    if schedule is None and vector_product_suits(problem.m):
        return emit_vector_product(problem, acc, target)
    lanes = target.vector_bits // (64 if acc in ("f64", "i64") else 32)
    registers = 32 if target.vector_bits >= 512 else 16
    a, b = dispatch.operands[:2]
    if schedule is None:
        mr, _ = register_tile(problem.m, problem.n, lanes, registers)
        direct = in_place(a.dtype, problem.a[-2], problem.a[-1], problem.m, acc, mr)
        turned = problem.b[-2] == 1 and problem.b[-1] != 1
        packing = PackingCost(A_IN_PLACE if direct else A_COPY, B_TRANSPOSE if turned else B_COPY)
        batch = dims.product(problem.batch)
        schedule = choose_schedule(problem.m, problem.n, problem.k, batch, lanes, registers, packing)
    assert isinstance(schedule, GemmSchedule)
    blocks = block_grid(schedule, problem.m, problem.n)
    grid = (*problem.batch, *blocks)
    with cpu_kernel(dispatch, target, dims.product(grid)) as ck:
        source_a = MatrixA(ck, a, problem.a[-2], problem.a[-1], problem.m, acc, schedule)
        source_b = MatrixB(ck, b, problem.b[-2], problem.b[-1], problem.k, problem.n, acc, schedule)
        sizes = (ck.dim(problem.m), ck.dim(problem.n), ck.dim(problem.k))
        gemm = BlockedGemm(ck, schedule, acc, *sizes, source_a, source_b)
        emitter = problem.emitter(ck)
        with ck.items() as item:
            *at_batch, n_block, m_block = ck.split(item, grid)
            source_a.base = ck.operand(0).at(ck.offset(at_batch, problem.a[:-2]), a.dtype)
            source_b.base = ck.operand(1).at(ck.offset(at_batch, problem.b[:-2]), b.dtype)

            def finish(row: Val, at: Position, value: Val) -> None:
                index = (*at_batch, row, at.index[0])
                lane_axis = len(index) - 1 if at.lanes else -1
                problem.store(ck, emitter, Position(index, lane_axis, at.lanes, at.mask), value)

            m0, rows = block_range(ck, m_block, schedule.mc, problem.m)
            n0, cols = block_range(ck, n_block, schedule.nc, problem.n)
            gemm.block(m0, rows, n0, cols, finish)
        return ck.emitted(problem.flops)
