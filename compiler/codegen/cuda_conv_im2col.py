"""Convolutions on sm_90a whose windows the copy engine reads: the wgmma kernels of matmul with an im2col tensor map for A.

One thread asks for a column of output positions at a time, 128 bytes of channels of one tap (PTX ISA, "Tensor copy modes",
im2col mode): the map knows strides and padding, and continues in the next line and image. What that takes is channels that
fill whole steps of K, so that no step meets two taps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ingot import dims
from ingot.compiler.codegen.cuda_conv_problem import ConvProblem
from ingot.compiler.codegen.cuda_gemm_cluster import ClusterKernel, ClusterSchedule, plan_cluster
from ingot.compiler.codegen.cuda_gemm_tiles import Work
from ingot.compiler.codegen.cuda_gemm_wgmma import (
    SWIZZLE,
    WgmmaKernel,
    WgmmaPlan,
    WgmmaSchedule,
    WgmmaTile,
    blocks_per_sm,
    plan_wgmma,
)
from ingot.compiler.codegen.cuda_kernel import DispatchKernel, dispatch_kernel, divides
from ingot.compiler.codegen.kernel_builder import KernelModule
from ingot.compiler.codegen.values import Val
from ingot.kernel_plan import TensorMapArg
from ingot.target import Target

# Of a tensor map with so many spatial axes: the least and the largest corner, and the farthest tap (driver API,
# cuTensorMapEncodeIm2col; PTX ISA, im2col offsets).
_LIMITS = {1: (-32768, 32767, 65535), 2: (-128, 127, 255), 3: (-16, 15, 31)}
_FARTHEST_STEP = 8

# From convolutions on an H200; two blocks on an SM, with few stages each, wait for their columns.
IM2COL_TILES: tuple[WgmmaTile, ...] = (
    WgmmaTile(128, 256, 0.78), WgmmaTile(128, 192, 0.79), WgmmaTile(192, 128, 0.77), WgmmaTile(128, 160, 0.85),
    WgmmaTile(128, 128, 0.76), WgmmaTile(128, 96, 0.57), WgmmaTile(128, 64, 0.66), WgmmaTile(64, 256, 0.73),
    WgmmaTile(64, 128, 0.78), WgmmaTile(64, 64, 0.6),
)  # fmt: skip
IM2COL_BESIDE = 0.62


@dataclass(frozen=True)
class Im2colSchedule(WgmmaSchedule):
    """A division for the kernel whose windows the copy engine reads."""


@dataclass(frozen=True)
class Im2colClusterSchedule(ClusterSchedule):
    """A division among the blocks of clusters, each of which sums a part of K."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.swapped:
            raise ValueError("windows are the instruction's rows")


def windows_map(c: ConvProblem, pixels: int) -> TensorMapArg | None:
    """The map whose boxes are columns of `pixels` output positions, or None where there is none."""
    x, w, d = c.x, c.window, c.gemm.dispatch
    size = x.type.bytes
    tile_k = SWIZZLE // size
    groups = dims.product(c.gemm.batch)
    if w.transposed or w.rank not in _LIMITS or x.strides[-1] != 1 or x.align % 16 or c.channels * groups != x.shape[-1]:
        return None
    if not (divides(tile_k, c.channels, d) or (w.taps == 1 and groups == 1)):
        return None
    if any(not divides(16, s * size, d) for s in x.strides[:-1]):
        return None
    lower = tuple(-p for p in w.pads[: w.rank])
    reach = [(n - 1) * step for n, step in zip(w.kernel, w.dilations, strict=True)]
    upper = tuple(p - r for p, r in zip(w.pads[w.rank :], reach, strict=True))
    least, most, farthest = _LIMITS[w.rank]
    if any(not least <= corner <= most for corner in (*lower, *upper)) or max(reach) > farthest:
        return None
    if max(w.strides) > _FARTHEST_STEP:
        return None
    return TensorMapArg(
        "operand", 0, x.dtype, x.shape[::-1], tuple(s * size for s in x.strides[-2::-1]), (), SWIZZLE,
        (lower[::-1], upper[::-1], tile_k, pixels), steps=w.strides[::-1],
    )  # fmt: skip


def plan_conv_im2col(c: ConvProblem, target: Target, s: Im2colSchedule) -> WgmmaPlan | None:
    """The launch of a schedule, or None where the instruction or the copy engine cannot take the operands."""
    windows = windows_map(c, s.tile_m) if target.wgmma else None
    return None if windows is None else plan_wgmma(c.gemm, target, s, windows=windows)


def emit_conv_im2col(module: KernelModule, c: ConvProblem, plan: WgmmaPlan, target: Target) -> None:
    """Write the kernel of `plan` into `module`."""
    p = c.gemm
    blocks = blocks_per_sm(p, plan.schedule, target)
    with dispatch_kernel(module, p.dispatch, plan.launch, exact_threads=True, prologue=True, min_blocks=blocks) as dk:
        _Im2col(dk, c, plan, blocks).emit()


def plan_im2col_cluster(c: ConvProblem, target: Target, s: Im2colClusterSchedule) -> WgmmaPlan | None:
    """The launch of a schedule of clusters, or None where the instruction or the copy engine cannot take the operands."""
    windows = windows_map(c, s.tile_m) if target.wgmma else None
    return None if windows is None else plan_cluster(c.gemm, target, s, windows)


def emit_im2col_cluster(module: KernelModule, c: ConvProblem, s: Im2colClusterSchedule, plan: WgmmaPlan) -> None:
    """Write the kernel of `plan` into `module`."""
    with dispatch_kernel(module, c.gemm.dispatch, plan.launch, exact_threads=True, prologue=True, min_blocks=1) as dk:
        _Im2colCluster(dk, c, s, plan).emit()


class _Windows(WgmmaKernel):
    """A kernel of matmul whose A is read by windows."""

    c: ConvProblem

    def rows_loader(self, work: Work) -> Callable[[Val, Val, Val], None]:
        k, c, w, dk = self.k, self.c, self.c.window, self.dk
        image, *out = dk.split(work.row, c.pixels)
        first = [at * w.strides[a] - w.pads[a] for a, at in enumerate(out)]
        channels = dk.size(c.channels, "i32")
        start = work.batch[0] * channels if work.batch else k.const(0, "i32")
        per_tap = dk.size(dims.floordiv(c.channels, self.tile_k), "i32")
        assert self.map_a is not None

        def load(dst: Val, step: Val, full: Val) -> None:
            tap = step // per_tap if w.taps > 1 else k.const(0, "i32")
            channel = start + (step - tap * per_tap) * self.tile_k
            offsets = [k.cast(at * w.dilations[a], "i16") for a, at in enumerate(dk.split(tap, w.kernel))]
            k.tma_load(dst, self.map_a, [channel, *first[::-1], image], full, im2col=offsets[::-1])

        return load


class _Im2col(_Windows):
    """The kernel of whole tiles while it is written."""

    def __init__(self, dk: DispatchKernel, c: ConvProblem, plan: WgmmaPlan, blocks: int) -> None:
        super().__init__(dk, c.gemm, plan, blocks)
        self.c = c


class _Im2colCluster(_Windows, ClusterKernel):
    """The kernel of clusters while it is written."""

    def __init__(self, dk: DispatchKernel, c: ConvProblem, s: Im2colClusterSchedule, plan: WgmmaPlan) -> None:
        ClusterKernel.__init__(self, dk, c.gemm, s, plan)
        self.c = c
