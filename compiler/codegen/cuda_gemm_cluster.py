"""Matrix products of few tiles on sm_90a, in one launch: the blocks of a cluster share a tile, each with a part of K.

The main loop is that of cuda_gemm_wgmma.py, one tile a block. Accumulators lie over stages that are no longer needed, and are
added as in cuda_cluster_sums.py.

Since accumulators pass through shared memory anyway, the product may be computed transposed (`swapped`): B's columns are then
the 64 rows of the instruction, and A's rows its columns, of which 8 are enough. Few rows of A waste no instruction and no
shared memory, and the ring of stages holds nothing but what has to be streamed: B.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ingot.compiler.codegen.cuda_cluster_sums import ClusterSums
from ingot.compiler.codegen.cuda_gemm_problem import GemmProblem
from ingot.compiler.codegen.cuda_gemm_tiles import Work, tile_count
from ingot.compiler.codegen.cuda_gemm_wgmma import ATOM, WgmmaKernel, WgmmaPlan, WgmmaSchedule, plan_wgmma, stage_bytes
from ingot.compiler.codegen.cuda_kernel import DispatchKernel, dispatch_kernel
from ingot.compiler.codegen.kernel_builder import KernelModule
from ingot.compiler.codegen.values import Val
from ingot.kernel_plan import TensorMapArg
from ingot.target import Target


@dataclass(frozen=True)
class ClusterSchedule:
    """How the cluster kernel divides a product.

    Attributes:
        tile_m, tile_n: of a tile as the instruction sees it: multiples of 64 and of 8.
        stages: tiles of A and B in flight.
        cluster: blocks that share a tile, each a part of K.
        swapped: the instruction's rows are B's columns, its columns A's rows.
    """

    tile_m: int
    tile_n: int
    stages: int
    cluster: int = 1
    swapped: bool = False
    splits: ClassVar[int] = 1  # launches that follow add nothing

    def __post_init__(self) -> None:
        if not 1 <= self.cluster <= 8:
            raise ValueError(f"a portable cluster has at most 8 blocks, not {self.cluster}")
        WgmmaSchedule(self.tile_m, self.tile_n)

    @property
    def rows(self) -> int:
        """Rows of the result in a tile."""
        return self.tile_n if self.swapped else self.tile_m

    @property
    def cols(self) -> int:
        """Columns of the result in a tile."""
        return self.tile_m if self.swapped else self.tile_n

    @property
    def pitch(self) -> int:
        """Accumulators from row to row in shared memory: a warp's stores reach every bank equally often."""
        return self.cols + (4 if self.swapped else 8)


def _seen(p: GemmProblem, s: ClusterSchedule) -> GemmProblem:
    """The product as the instruction sees it; only its operands and sizes mean anything."""
    results = (None,) * len(p.results)
    if not s.swapped:
        return replace(p, results=results)
    return replace(p, m=p.n, n=p.m, a=p.b, b=p.a, unsigned=p.unsigned[::-1], results=results)


def plan_cluster(
    p: GemmProblem, target: Target, s: ClusterSchedule, windows: TensorMapArg | None = None
) -> WgmmaPlan | None:
    """The launch of a schedule, or None where the instruction or TMA cannot take the operands.

    `windows`: the map of A, where it is no matrix; not `swapped` then.
    """
    if s.cluster > target.max_cluster:
        return None
    q = _seen(p, s)
    plan = plan_wgmma(q, target, WgmmaSchedule(s.tile_m, s.tile_n, s.stages), windows=windows)
    if plan is None:
        return None
    stages = max(s.stages * stage_bytes(q, plan.schedule), -(-s.rows * s.pitch * 4 // ATOM) * ATOM)
    shared = stages + 16 * s.stages + ATOM
    if shared > target.shared_bytes:
        return None
    grid = (tile_count(q, s) * s.cluster, 1, 1)
    launch = replace(plan.launch, grid=grid, cluster=(s.cluster, 1, 1), shared_bytes=shared)
    return replace(plan, launch=launch)


def emit_cluster(module: KernelModule, p: GemmProblem, s: ClusterSchedule, plan: WgmmaPlan) -> None:
    """Write the kernel of `plan` into `module`."""
    with dispatch_kernel(module, p.dispatch, plan.launch, exact_threads=True, min_blocks=1, prologue=True) as dk:
        ClusterKernel(dk, p, s, plan).emit()


class ClusterKernel(WgmmaKernel):
    """The kernel while it is written: `p` is the product as the instruction sees it, `result` as the epilogue does."""

    def __init__(self, dk: DispatchKernel, p: GemmProblem, s: ClusterSchedule, plan: WgmmaPlan) -> None:
        super().__init__(dk, _seen(p, s), plan, 1)
        self.result, self.division = p, s
        self.registers = None  # all threads finish the tile: they need as many
        self.barriers = max(self.staging, -(-s.rows * s.pitch * 4 // ATOM) * ATOM)

    def emit(self) -> None:
        k, s = self.k, self.division
        thread = k.thread_id()
        group = k.warp_id() >> 2
        self.initialize(thread)
        block = k.block_id()
        row, col, batch, _ = self.order.tile(block // s.cluster if s.cluster > 1 else block)
        rank = k.cluster_rank() if s.cluster > 1 else k.const(0, "i32")
        work = Work(row, col, batch, *self.order.k_range(rank, s.cluster), rank)
        state = [k.const(0, "i32"), k.const(0, "i32")]
        with k.if_else(group.eq(0)) as role:
            with role.then, k.if_(thread.eq(0)):
                self.fill(work, state)
            with role.else_:
                consumer = group - 1
                acc, _ = self.multiplier(thread & 127, consumer)(work, state)
                # The accumulators lie over the stages, which the other consumers may still read.
                if self.consumers > 1:
                    k.barrier(1, 128 * self.consumers)
                self.leave(acc, thread & 127, consumer)
        sums = ClusterSums(self.dk, self.result, s.rows, s.cols, s.pitch, s.cluster, self.shared)
        sums.synchronize()
        m0, n0 = (col, row) if s.swapped else (row, col)
        sums.finish(thread, rank, batch, m0, n0)

    def leave(self, acc: list[Val], local: Val, consumer: Val) -> None:
        """Write a thread's accumulators to shared memory as rows of the result."""
        k, s = self.k, self.division
        row, col = self.lane_position(local, consumer)
        down, right = (1, s.pitch) if s.swapped else (s.pitch, 1)
        start = self.shared.at(row * down + col * right, self.row.acc)
        for j in range(self.s.tile_n // 8):
            for h in range(2):
                pair = acc[4 * j + 2 * h : 4 * j + 2 * h + 2]
                at = 8 * h * down + 8 * j * right
                if s.swapped:
                    for i, x in enumerate(pair):
                        k.store(x, start.at(at + i * right, self.row.acc), align=4)
                else:
                    k.store(k.vector(pair), start.at(at, self.row.acc), align=8)
