"""The conv family for NVIDIA GPUs: which kernel, which schedule, which plan.

Convolutions are channels last. `emit` writes one of

    cuda_matmul.py           kernels of one tap that read every pixel once are matrix products as they are
    cuda_conv_depthwise.py   a group for each channel: sums over taps, bound by memory
    cuda_conv_im2col.py      wgmma, A read by the copy engine (sm_90a): channels that fill steps of K
    cuda_conv_wgmma.py       wgmma, A gathered by a producer warpgroup (sm_90a)
    cuda_conv_mma.py         mma.sync, A gathered by cp.async or through registers: any alignment, transposed ones too
    cuda_conv_simt.py        fused multiply-adds: exact float32, float64, and any type

Channels that are no multiple of 4 are first padded in the workspace (cuda_conv_padding.py). A convolution of few tiles is
split along K; cuda_split_k.py adds the parts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ingot.compiler.codegen import cuda_matmul
from ingot.compiler.codegen.cuda_conv_depthwise import (
    DepthwiseSchedule,
    choose_depthwise,
    depthwise_schedules,
    emit_depthwise,
    is_depthwise,
)
from ingot.compiler.codegen.cuda_conv_im2col import (
    IM2COL_BESIDE,
    IM2COL_TILES,
    Im2colClusterSchedule,
    Im2colSchedule,
    emit_conv_im2col,
    emit_im2col_cluster,
    plan_conv_im2col,
    plan_im2col_cluster,
    windows_map,
)
from ingot.compiler.codegen.cuda_conv_mma import emit_conv_mma
from ingot.compiler.codegen.cuda_conv_padding import emit_padding, pad_operands
from ingot.compiler.codegen.cuda_conv_problem import ConvProblem, conv_problem
from ingot.compiler.codegen.cuda_conv_simt import emit_conv_simt
from ingot.compiler.codegen.cuda_conv_wgmma import emit_conv_wgmma, piece_bytes, plan_conv_wgmma
from ingot.compiler.codegen.cuda_gemm_mma import MmaSchedule, mma_launch, mma_row
from ingot.compiler.codegen.cuda_gemm_problem import GemmProblem, gemm_problem
from ingot.compiler.codegen.cuda_gemm_simt import SimtSchedule, simt_launch
from ingot.compiler.codegen.cuda_gemm_wgmma import WgmmaSchedule, WgmmaTile
from ingot.compiler.codegen.cuda_matmul import (
    SPLITS,
    Estimate,
    constant,
    mma_schedules,
    simt_schedules,
    stream_k_estimate,
    tensor_core_seconds,
)
from ingot.compiler.codegen.cuda_shared_tile import CHUNK
from ingot.compiler.codegen.cuda_stream_k import emit_finish
from ingot.compiler.codegen.cuda_window import Window, window_of
from ingot.compiler.codegen.family import Emitted
from ingot.compiler.codegen.kernel_builder import KernelModule
from ingot.cuda_targets import facts
from ingot.dialects.mlir import ir
from ingot.dispatch import Dispatch, TensorArg
from ingot.kernel_plan import KernelLaunch, KernelPlan
from ingot.target import Target

MANY_WEIGHTS = 20 << 20  # bytes
TYPICAL_PIXELS = 2 * 64 * 64  # output positions that the cost model takes where they are not constant

WGMMA_TILES: tuple[WgmmaTile, ...] = (
    WgmmaTile(128, 256, 0.75), WgmmaTile(128, 224, 0.73), WgmmaTile(128, 192, 0.71), WgmmaTile(128, 160, 0.68),
    WgmmaTile(128, 128, 0.62), WgmmaTile(128, 96, 0.5), WgmmaTile(128, 64, 0.4), WgmmaTile(128, 32, 0.22),
    WgmmaTile(64, 256, 0.55), WgmmaTile(64, 128, 0.4), WgmmaTile(64, 64, 0.25),
)  # fmt: skip


def as_matmul(dispatch: Dispatch) -> Dispatch:
    """The matmul that a convolution of one tap without padding, strides or groups is: [N, spatial..., C] times [C, M]."""
    x, w = dispatch.operands[:2]
    weights = TensorArg(w.dtype, (w.shape[-1], w.shape[0]), (w.strides[-1], w.strides[0]), w.align)
    # The attributes that a matmul does not read keep its kernels' names apart from those of the model's own products.
    return replace(dispatch, root="matmul", operands=(x, weights, *dispatch.operands[2:]))


def _is_matmul(dispatch: Dispatch, window: Window) -> bool:
    return window.is_pointwise and int(dispatch.attr("groups")) == 1 and not _regions_read(dispatch, 1)


def _regions_read(dispatch: Dispatch, operand: int) -> bool:
    return any(i.op in ("load", "load_at") and i.attr("operand") == operand for r in dispatch.regions for i in r.insts)


def typical(p: GemmProblem) -> GemmProblem:
    """The products for the cost model: with a typical number of output positions where it is not constant."""
    return p if isinstance(p.m, int) else replace(p, m=TYPICAL_PIXELS, a_elements=TYPICAL_PIXELS * constant(p.k) // 9)


def wgmma_schedules(c: ConvProblem, target: Target) -> Iterator[Estimate]:
    """Estimates of all wgmma schedules that fit."""
    p = typical(c.gemm)
    steps = max(1, constant(p.k) * p.a.bits // 1024)
    share = piece_bytes(c) / CHUNK  # narrow pieces are more copies
    for tile in WGMMA_TILES:
        for splits in SPLITS:
            if splits > max(1, steps // 4) or (splits > 1 and not isinstance(p.k, int)):
                break
            for stages in (8, 7, 6, 5, 4):
                s = WgmmaSchedule(tile.m, tile.n, stages, splits)
                if plan_conv_wgmma(c, target, s) is not None:
                    efficiency = share * tile.efficiency
                    yield Estimate(tensor_core_seconds(p, target, (tile.m, tile.n), splits, 1, efficiency), s)
                    if splits == 1 and (shared := stream_k_estimate(c.gemm, target, s, 1, efficiency)):
                        yield shared
                    break


def im2col_schedules(c: ConvProblem, target: Target) -> Iterator[Estimate]:
    """Estimates of all schedules whose windows the copy engine reads."""
    if not target.wgmma or windows_map(c, 64) is None:
        return
    # Shares of steps are for sizes that are constant, not for typical ones.
    streams = isinstance(c.gemm.m, int)
    for e in cuda_matmul.wgmma_schedules(
        typical(c.gemm), target, IM2COL_TILES, Im2colSchedule, lambda s: plan_conv_im2col(c, target, s), IM2COL_BESIDE
    ):
        if streams or not e.schedule.stream:
            yield _fetching(c, target, e)
    for e in cuda_matmul.cluster_schedules(
        typical(c.gemm), target, IM2COL_TILES, Im2colClusterSchedule, lambda s: plan_im2col_cluster(c, target, s)
    ):
        yield _fetching(c, target, e)


def _fetching(c: ConvProblem, target: Target, e: Estimate) -> Estimate:
    """The estimate, or what all tiles take to fetch many weights from the second-level cache, where that is more.

    Small tiles of convolutions of 1280 channels fetched at 1.75 times the memory's rate on an H200.
    """
    p, s = typical(c.gemm), e.schedule
    m, n, k = (max(1, constant(d)) for d in (p.m, p.n, p.k))
    if n * k * p.b.bits // 8 < MANY_WEIGHTS:
        return e
    nbytes = k * (math.ceil(n / s.tile_n) * m * p.a.bits + math.ceil(m / s.tile_m) * n * p.b.bits) // 8
    return replace(e, seconds=max(e.seconds, cuda_matmul.LAUNCH_SECONDS + nbytes / (1.75 * facts(target).bandwidth)))


def _has_registers(s: MmaSchedule, target: Target) -> bool:
    """Whether the positions of the windows that a thread gathers fit beside its accumulators: four where a warp has 64 x 64, or
    where what is gathered passes through registers."""
    few = s.tile_m <= 16 * s.warps
    return s.tile_m <= 128 and (few or (target.cp_async and s.warp_m * s.warp_n < 64 * 64))


def estimates(c: ConvProblem, target: Target) -> list[Estimate]:
    """Estimates of all schedules with tensor cores that fit."""
    streams = isinstance(c.gemm.m, int)
    mma = (e for e in mma_schedules(typical(c.gemm), target, streams) if _has_registers(e.schedule, target))
    return [*im2col_schedules(c, target), *wgmma_schedules(c, target), *mma]


def schedules(dispatch: Dispatch, target: Target) -> list[Estimate]:
    """All schedules of a `conv` dispatch, for measuring; an estimate of 0 seconds is none."""
    x, w = dispatch.operands[:2]
    window = window_of(dispatch, w.shape[1:-1], x.shape[1:-1])
    if _is_matmul(dispatch, window):
        return cuda_matmul.estimates(gemm_problem(as_matmul(dispatch)), target)
    if is_depthwise(dispatch, window):
        return [Estimate(0.0, s) for s in depthwise_schedules(dispatch, window, target)]
    padded = pad_operands(dispatch, window, target)
    return estimates(conv_problem(dispatch if padded is None else padded.dispatch), target)


def choose(c: ConvProblem, target: Target) -> Any:
    """The schedule with the least estimated time, tensor cores first where they give what the dispatch asks for."""
    found = estimates(c, target)
    if not found or (c.window.transposed and c.gemm.b.major != "row"):
        found = list(simt_schedules(typical(c.gemm), target))
    return min(found, key=lambda e: e.seconds).schedule


def emit(dispatch: Dispatch, target: Target, schedule: Any = None) -> Emitted:
    """Write the kernels of a `conv` dispatch; `schedule` is one of the kernels' own.

    Raises NotImplementedError naming what no kernel can take.
    """
    x, w = dispatch.operands[:2]
    if min(x.type.bits, w.type.bits) < 8:
        raise NotImplementedError(f"conv of {x.dtype} and {w.dtype} on {target.name}: elements share bytes")
    window = window_of(dispatch, w.shape[1:-1], x.shape[1:-1])
    if _is_matmul(dispatch, window):
        return cuda_matmul.emit(as_matmul(dispatch), target, schedule)
    module = KernelModule(target.name, context=ir.Context.current)
    with module:
        if schedule is None and is_depthwise(dispatch, window):
            schedule = choose_depthwise(dispatch, window, target)
        if isinstance(schedule, DepthwiseSchedule):
            launch = emit_depthwise(module, dispatch, window, schedule)
            return Emitted(KernelPlan((launch,)), module.module)
        padded = None if isinstance(schedule, SimtSchedule) else pad_operands(dispatch, window, target)
        c = conv_problem(dispatch if padded is None else padded.dispatch)
        schedule = schedule or choose(c, target)
        launches = [_write(module, c, target, schedule)]
        p = c.gemm
        finish, workspace = emit_finish(module, p, schedule)
        launches += finish
        if padded is not None:
            copies = emit_padding(module, padded, workspace)
            launches = [*copies, padded.redirect(launches[0], workspace), *launches[1:]]
            workspace = padded.workspace(workspace)
        return Emitted(KernelPlan(tuple(launches), workspace), module.module)


def _write(module: KernelModule, c: ConvProblem, target: Target, s: Any) -> KernelLaunch:
    """Write the kernel that takes schedule `s`; its launch."""
    if isinstance(s, Im2colSchedule):
        plan = plan_conv_im2col(c, target, s)
        if plan is None:
            raise NotImplementedError(f"{s} cannot read windows of {c.x.dtype} of {c.channels} channels on {target.name}")
        emit_conv_im2col(module, c, plan, target)
        return plan.launch
    if isinstance(s, Im2colClusterSchedule):
        plan = plan_im2col_cluster(c, target, s)
        if plan is None:
            raise NotImplementedError(f"{s} cannot read windows of {c.x.dtype} of {c.channels} channels on {target.name}")
        emit_im2col_cluster(module, c, s, plan)
        return plan.launch
    if isinstance(s, WgmmaSchedule):
        plan = plan_conv_wgmma(c, target, s)
        if plan is None:
            raise NotImplementedError(f"{s} cannot gather {c.x.dtype} of {c.channels} channels on {target.name}")
        emit_conv_wgmma(module, c, plan)
        return plan.launch
    if isinstance(s, MmaSchedule):
        if mma_row(c.gemm, target) is None:
            raise NotImplementedError(f"{target.name} has no mma.sync of {c.x.dtype} accumulating in {c.gemm.acc}")
        launch = mma_launch(c.gemm, s)
        emit_conv_mma(module, c, s, target, launch)
        return launch
    if isinstance(s, SimtSchedule):
        launch = simt_launch(c.gemm, s)
        emit_conv_simt(module, c, s, launch)
        return launch
    raise ValueError(f"{s} is no schedule of a convolution")
