"""Convolutions by mma.sync: the main loop of matmul over tiles gathered from windows, any instruction row or alignment."""

from __future__ import annotations

from ingot.compiler.codegen.cuda_conv_problem import ConvProblem
from ingot.compiler.codegen.cuda_conv_tiles import TransposedWeightTile, WindowTile
from ingot.compiler.codegen.cuda_gemm_mma import MmaLoop, MmaSchedule, mma_row, tile_shape
from ingot.compiler.codegen.cuda_gemm_problem import promotes
from ingot.compiler.codegen.cuda_kernel import dispatch_kernel
from ingot.compiler.codegen.cuda_shared_tile import TileCopy
from ingot.compiler.codegen.cuda_stream_k import tile_order
from ingot.compiler.codegen.kernel_builder import KernelModule
from ingot.kernel_plan import KernelLaunch
from ingot.target import Target


def emit_conv_mma(module: KernelModule, c: ConvProblem, s: MmaSchedule, target: Target, launch: KernelLaunch) -> None:
    """Write the kernel of a schedule into `module`; `launch` is `mma_launch` of the convolution's products."""
    p = c.gemm
    row = mma_row(p, target)
    assert row is not None, (p.a.dtype, target.name)
    with dispatch_kernel(module, p.dispatch, launch, min_blocks=1) as dk:
        shapes = [tile_shape(x, rows, s.k_bytes) for x, rows in ((p.a, s.tile_m), (p.b, s.tile_n))]
        order = tile_order(dk, p, s, shapes[0].tile_k)
        threads, thread = 32 * s.warps, dk.k.thread_id()
        windows = WindowTile(dk, c, shapes[0], threads, thread, target.cp_async)
        if c.window.transposed:
            weights: TileCopy = TransposedWeightTile(dk, c, shapes[1], threads, thread, target.cp_async)
        else:
            weights = TileCopy(dk, p.b, shapes[1], threads, thread, target.cp_async)
        copies = [windows, weights]
        MmaLoop(dk, row, s, shapes, copies, promotes(p, target)).work(order, copies)
