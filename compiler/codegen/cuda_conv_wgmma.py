"""Convolutions on sm_90a: the persistent wgmma kernel of matmul, whose producer warpgroup gathers A from the windows of x.

All 128 threads of the producer copy pieces of pixels, of 16 bytes where channels allow it and else of 8, into the swizzled
rows of a stage with cp.async, zeros for padding, while one of them fetches the weights by TMA; weights whose rows TMA cannot
read (no multiple of 16 bytes) are copied like the pixels. Each thread's copies arrive on the stage's mbarrier when they are
done, so that the producer never waits for memory. Shared memory written by cp.async belongs to the generic proxy and wgmma
reads through the async proxy (PTX ISA, "Async proxy"): consumers pass a proxy fence after they have waited for a stage.
"""

from __future__ import annotations

from ingot.compiler.codegen.cuda_conv_problem import ConvProblem
from ingot.compiler.codegen.cuda_conv_tiles import WindowTile
from ingot.compiler.codegen.cuda_gemm_wgmma import SWIZZLE, WgmmaKernel, WgmmaPlan, WgmmaSchedule, plan_wgmma
from ingot.compiler.codegen.cuda_kernel import DispatchKernel, dispatch_kernel
from ingot.compiler.codegen.cuda_shared_tile import CHUNK, TileCopy, TileShape
from ingot.compiler.codegen.kernel_builder import KernelModule
from ingot.compiler.codegen.values import Val
from ingot.target import Target

PRODUCERS = 128
PIECES = (16, 8)  # bytes of a copy
# Registers of a producer's and of a consumer's thread: three warpgroups share 3 * 168. The producer holds positions.
REGISTERS = (88, 208)


def plan_conv_wgmma(c: ConvProblem, target: Target, s: WgmmaSchedule) -> WgmmaPlan | None:
    """The launch of a schedule, or None where x or w cannot be copied in aligned pieces of at least 8 bytes."""
    if not target.wgmma or c.window.transposed or piece_bytes(c) not in PIECES:
        return None
    plan = plan_wgmma(c.gemm, target, s, gathered=True)
    if plan is not None and plan.map_b is None and not c.gemm.b.aligned(min(PIECES), c.gemm.dispatch):
        return None
    return plan


def piece_bytes(c: ConvProblem) -> int:
    """Bytes of the widest copies of pixels."""
    size = c.x.type.bytes
    return c.aligned_elements(CHUNK // size) * size


def emit_conv_wgmma(module: KernelModule, c: ConvProblem, plan: WgmmaPlan) -> None:
    """Write the kernel of `plan` into `module`."""
    with dispatch_kernel(module, c.gemm.dispatch, plan.launch, exact_threads=True, prologue=True, min_blocks=1) as dk:
        _ConvWgmma(dk, c, plan).emit()


class _ConvWgmma(WgmmaKernel):
    """The kernel while it is written. A stage is full when each producer has copied its part, and the weights have arrived."""

    def __init__(self, dk: DispatchKernel, c: ConvProblem, plan: WgmmaPlan) -> None:
        super().__init__(dk, c.gemm, plan, 1)
        self.c = c
        self.arrivals = PRODUCERS + (self.map_b is not None)
        if self.registers:
            self.registers = REGISTERS

    def ready(self) -> None:
        self.k.fence_async_shared()

    def producer(self, thread: Val) -> None:
        k, s = self.k, self.s
        rows = WindowTile(self.dk, self.c, TileShape(s.tile_m, SWIZZLE, self.row.bits, True), PRODUCERS, thread, True)
        weights = None
        if self.map_b is None:
            weights = TileCopy(self.dk, self.p.b, TileShape(s.tile_n, SWIZZLE, self.row.bits, True), PRODUCERS, thread, True)
        zero = k.const(0, "i32")
        with k.for_(*self.order.span(), carry=[zero, zero]) as tiles:
            work = self.order.work(tiles.iv)
            rows.start(work.row, work.batch)
            if weights is not None:
                weights.start(work.col, work.batch)
            with k.for_(work.first, work.last, carry=tiles.carry, rolled=True) as steps:
                stage, parity = steps.carry
                k.mbarrier_wait(self.empty(stage), parity ^ 1)
                base, full = self.shared + stage * self.stage_bytes, self.full(stage)
                if weights is not None:
                    weights.copy(base + self.bytes_a, steps.iv)
                elif self.map_b is not None:
                    with k.if_(thread.eq(0)):
                        k.mbarrier_arrive_expect(full, self.lines_b * SWIZZLE)
                        at = steps.iv * self.tile_k
                        self.load(base + self.bytes_a, self.p.b, self.map_b, self.lines_b, work.col, at, work.batch, full)
                rows.copy(base, steps.iv)
                k.cp_async_mbarrier_arrive(full)
                steps.yield_(list(self.next_stage(stage, parity)))
            tiles.yield_(steps.results)
        # A thread must not leave while it has copies under way.
        k.cp_async_commit()
        k.cp_async_wait(0)
