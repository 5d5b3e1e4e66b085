"""The matmul family for NVIDIA GPUs: which kernel, which schedule, which plan.

`emit` finds the products behind the dispatch (cuda_gemm_problem.py), asks the cost model for a schedule, and writes one of

    cuda_gemm_wgmma.py   TMA and wgmma (sm_90a): operands whose lines TMA can read
    cuda_gemm_mma.py     cp.async, ldmatrix and mma.sync (sm_80 and later; sm_75 through registers): everything else with an instruction row
    cuda_gemm_simt.py    fused multiply-adds: exact float32 and float64, and any type
    cuda_gemv.py         few rows: streams B once, from all SMs

A product of few tiles is split along K; cuda_split_k.py adds the parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from ingot import dims
from ingot.compiler.codegen.cuda_gemm_problem import GemmProblem, gemm_problem
from ingot.compiler.codegen.cuda_gemm_tiles import split_workspace
from ingot.compiler.codegen.cuda_gemm_wgmma import WGMMA_TILES, WgmmaSchedule, emit_wgmma, plan_wgmma, stage_bytes
from ingot.compiler.codegen.cuda_split_k import emit_reduce, reduce_launch
from ingot.compiler.codegen.family import Emitted
from ingot.compiler.codegen.kernel_builder import KernelModule
from ingot.cuda_targets import facts
from ingot.dialects.mlir import ir
from ingot.dims import Dim
from ingot.dispatch import Dispatch
from ingot.kernel_plan import KernelPlan
from ingot.target import Target

TYPICAL_SIZE = 1024  # what the cost model takes for a size that is not constant


@dataclass(frozen=True)
class Estimate:
    """Seconds that a schedule is expected to take; schedules are compared by it."""

    seconds: float
    schedule: Any


def constant(d: Dim) -> int:
    """A value of a dimension for the cost model."""
    return d if isinstance(d, int) else dims.evaluate(d, _Typical())


class _Typical(dict):
    def __missing__(self, name: str) -> int:
        return TYPICAL_SIZE


def tensor_core_seconds(
    p: GemmProblem, target: Target, tile: tuple[int, int], splits: int, blocks: int, efficiency: float
) -> float:
    """Time of a tiled product: waves of tiles at the machine's rate, operands from memory, and the splits' partial sums.

    `blocks` is how many tiles an SM works on at once; `efficiency` the share of the peak rate that the tile reaches by itself.
    """
    f = facts(target)
    m, n, k = (max(1, constant(d)) for d in (p.m, p.n, p.k))
    batch = max(1, constant(dims.product(p.batch)))
    rate = f.tflops * 1e12 * 16 / max(p.a.bits, p.b.bits)
    tiles = math.ceil(m / tile[0]) * math.ceil(n / tile[1]) * batch * splits
    waves = math.ceil(tiles / (f.sms * blocks))
    k_part = math.ceil(k / splits)
    compute = waves * blocks * 2 * tile[0] * tile[1] * k_part / (rate / f.sms * efficiency)
    traffic = batch * (m * k * p.a.bits + n * k * p.b.bits + m * n * 16) / 8
    memory = traffic / f.bandwidth
    extra = 0.0
    if splits > 1:
        # Partials are written once and read once, mostly by way of the second-level cache, and a second launch follows.
        extra = 2e-6 + 8 * splits * batch * m * n / (2 * f.bandwidth)
    return max(compute, memory) + 1e-6 + 0.3e-6 * waves + extra


def wgmma_schedules(p: GemmProblem, target: Target) -> Iterator[Estimate]:
    """Estimates of all wgmma schedules that fit."""
    tile_k = 1024 // p.a.bits
    steps = max(1, constant(p.k) // tile_k)
    for tile_m, tile_n in WGMMA_TILES:
        for splits in (1, 2, 3, 4, 6, 8, 12, 16):
            if splits > max(1, steps // 4) or (splits > 1 and not isinstance(p.k, int)):
                break
            for stages in (8, 6, 5, 4, 3):
                s = WgmmaSchedule(tile_m, tile_n, stages, splits)
                budget = target.shared_bytes if tile_m * tile_n > 128 * 128 else target.shared_bytes // 2
                if stages * stage_bytes(s) + 2048 + 2 * tile_m * 128 * (splits == 1) <= budget and plan_wgmma(p, target, s):
                    blocks = 2 if tile_m * tile_n <= 128 * 128 else 1
                    # Smaller tiles read shared memory more often for each multiplication.
                    efficiency = {128 * 256: 0.85, 128 * 192: 0.8, 128 * 128: 0.72, 64 * 256: 0.72, 128 * 64: 0.55, 64 * 128: 0.55}
                    share = efficiency.get(tile_m * tile_n, 0.4)
                    yield Estimate(tensor_core_seconds(p, target, (tile_m, tile_n), splits, blocks, share), s)
                    break


def choose(p: GemmProblem, target: Target) -> Any:
    """The schedule with the least estimated time."""
    found = list(wgmma_schedules(p, target)) if target.wgmma else []
    if not found:
        raise NotImplementedError(f"matmul of {p.a.dtype} and {p.b.dtype} accumulating in {p.acc} has no kernel on {target.name}")
    return min(found, key=lambda e: e.seconds).schedule


def emit(dispatch: Dispatch, target: Target, schedule: Any = None) -> Emitted:
    """Write the kernels of a `matmul` dispatch. Raises NotImplementedError naming what no kernel can take."""
    p = gemm_problem(dispatch)
    schedule = schedule or choose(p, target)
    module = KernelModule(target.name, context=ir.Context.current)
    with module:
        return _WRITERS[type(schedule)](module, p, target, schedule)


def _write_wgmma(module: KernelModule, p: GemmProblem, target: Target, s: WgmmaSchedule) -> Emitted:
    plan = plan_wgmma(p, target, s)
    if plan is None:
        raise NotImplementedError(f"{s} cannot read {p.a.dtype} operands of strides {p.a.row_stride}, {p.b.row_stride}")
    emit_wgmma(module, p, plan, target)
    return finish_plan(module, p, plan.launch, s.splits, split_workspace(p, s))


def finish_plan(module: KernelModule, p: GemmProblem, launch: Any, splits: int, workspace: Dim) -> Emitted:
    """The plan of a product's launch, with the reduction of its splits where there are several."""
    launches = [launch]
    if splits > 1:
        # The reduction walks the domain; the product's own launch reads neither regions' operands nor results.
        reduce = reduce_launch(p.dispatch, p.domain, "")
        emit_reduce(module, p.dispatch, p.domain, reduce, splits, p.acc)
        launches.append(reduce)
    return Emitted(KernelPlan(tuple(launches), workspace), module.module)


_WRITERS: dict[type, Callable[..., Emitted]] = {WgmmaSchedule: _write_wgmma}
__all__ = ["choose", "emit", "replace"]
