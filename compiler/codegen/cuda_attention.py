"""The attention family for NVIDIA GPUs: which kernel, which schedule, which plan.

cuda_attention_wgmma.py  16-bit types on sm_90a, by TMA and wgmma
cuda_attention_mma.py    16-bit types, by mma.sync: other targets, and decoding
cuda_attention_simt.py   float32, exactly, by fused multiply-adds; and types without an instruction row

Where warps or blocks of a cluster share keys, cuda_attention_parts.py combines what each has.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ingot.compiler.codegen.cuda_attention_mma import (
    MmaAttentionSchedule,
    attention_launch,
    attention_tiles,
    combine_launch,
    emit_attention_mma,
    emit_combine,
    warp_bytes,
)
from ingot.compiler.codegen.cuda_attention_problem import AttentionProblem, attention_problem
from ingot.compiler.codegen.cuda_attention_simt import (
    SimtAttentionSchedule,
    choose_simt_attention,
    emit_attention_simt,
    simt_attention_launch,
)
from ingot.compiler.codegen.cuda_attention_softmax import split_workspace
from ingot.compiler.codegen.cuda_attention_wgmma import WgmmaAttentionSchedule, emit_attention_wgmma, plan_attention_wgmma
from ingot.compiler.codegen.cuda_kernel import constant
from ingot.compiler.codegen.family import Emitted
from ingot.compiler.codegen.kernel_builder import KernelModule
from ingot.compiler.codegen.mma_table import MmaRow, find_row
from ingot.cuda_targets import WHOLE_SM_TFLOPS, facts
from ingot.dialects.mlir import ir
from ingot.dispatch import Dispatch
from ingot.kernel_plan import KernelPlan
from ingot.target import MAX_REGISTERS, Target

# From the fastest where it fits to the smallest: rows and keys of a tile shrink as heads grow deeper.
MMA_SCHEDULES: tuple[MmaAttentionSchedule, ...] = (
    MmaAttentionSchedule(4, 32, 64),
    MmaAttentionSchedule(4, 16, 64),
    MmaAttentionSchedule(4, 16, 32),
    MmaAttentionSchedule(2, 16, 32),
    MmaAttentionSchedule(1, 16, 32),
    MmaAttentionSchedule(1, 16, 16),
)
# For SMs whose tensor cores are slow beside shared memory (WHOLE_SM_TFLOPS): warps of 16 rows read each key and value twice as
# often as those of 32, which costs nothing there, and twice as many of them hide one another's exponentials and waits.
EIGHT_WARPS: tuple[MmaAttentionSchedule, ...] = (MmaAttentionSchedule(8, 16, 64), MmaAttentionSchedule(8, 16, 32))


MOST_ALONG = 8  # warps of a block that share keys: on an H200 as fast as 4 at 4096 keys, a quarter faster at 32768


@dataclass(frozen=True)
class _Rated:
    """A wgmma schedule, the depth of heads up to which its registers do not spill, and the share of the peak rate that it
    reaches over many keys."""

    schedule: WgmmaAttentionSchedule
    depth: int
    share: float


# Shares are an H200's, f16: heads of 64 over 6144 keys, of 128 over 4096 (benchmarks/cuda_kernels.py).
_RATED = (
    _Rated(WgmmaAttentionSchedule(128, groups=3), 64, 0.48),
    _Rated(WgmmaAttentionSchedule(64, groups=2, blocks=2), 64, 0.44),
    _Rated(WgmmaAttentionSchedule(128), 128, 0.38),
    _Rated(WgmmaAttentionSchedule(64), 256, 0.3),
    _Rated(WgmmaAttentionSchedule(32), 256, 0.2),
)
SHORT_KEYS = 128  # that a tile holds
WGMMA_SCHEDULES: tuple[WgmmaAttentionSchedule, ...] = tuple(r.schedule for r in _RATED)


def attention_row(p: AttentionProblem, target: Target) -> MmaRow | None:
    """The instruction for an attention, or None: 16-bit types, of which probabilities are operands too."""
    if len({p.q.dtype, p.k.dtype, p.v.dtype}) != 1 or p.q.dtype not in ("f16", "bf16"):
        return None
    return find_row(target, p.q.dtype)


def fitting_mma(p: AttentionProblem, target: Target) -> list[MmaAttentionSchedule]:
    """Schedules that fit the target, the best one first."""
    slow = facts(target).sm_tflops < WHOLE_SM_TFLOPS
    fitting: list[MmaAttentionSchedule] = []
    waiting: list[MmaAttentionSchedule] = []
    for s in (*(EIGHT_WARPS if slow else ()), *MMA_SCHEDULES):
        # Accumulators, scores and operands of a thread: beyond this they spill.
        registers = s.warp_rows // 16 * (p.depth_v // 2 + s.keys // 2) + 64
        shared = attention_tiles(p, s).nbytes(s.stages)
        if shared <= target.shared_bytes and (registers <= 260 or s.warp_rows == 16):
            blocks = target.resident_blocks(32 * s.warps, min(registers, MAX_REGISTERS), shared)
            (waiting if slow and blocks * s.warps < 8 else fitting).append(s)
    return fitting + waiting


def choose_mma(p: AttentionProblem, target: Target) -> MmaAttentionSchedule:
    """The largest tile that fits and leaves no SM idle; keys are split where rows alone cannot fill the SMs."""
    sms = facts(target).sms
    heads = constant(p.batch * p.heads)
    rows = constant(p.rows)
    fitting = fitting_mma(p, target)
    if not fitting:
        raise NotImplementedError(f"attention over heads of depth {p.depth} and {p.depth_v} on {target.name}")
    enough = [s for s in fitting if s.rows <= max(16, rows) and -(-rows // s.rows) * heads >= sms]
    chosen = enough[0] if enough else min(fitting, key=lambda s: (abs(s.rows - min(max(16, rows), 64)), -s.keys))
    # Scores that need nothing but their scale, of constant sizes, leave enough registers for a second block of eight warps.
    if chosen in EIGHT_WARPS and p.plain_scores and not p.dispatch.symbols and max(p.depth, p.depth_v) <= 64:
        fits = target.resident_blocks(32 * chosen.warps, 128, attention_tiles(p, chosen).nbytes(chosen.stages))
        chosen = replace(chosen, blocks=min(2, fits))
    blocks = -(-rows // chosen.rows) * heads
    tiles = constant(p.keys) // chosen.keys
    if rows > 64:
        return chosen
    if target.max_cluster > 1:
        return _shared_keys(p, chosen, target, blocks, tiles)
    splits = 1
    while splits < 32 and 2 * splits * blocks <= 2 * sms and tiles >= 4 * splits:
        splits *= 2
    return replace(chosen, splits=splits)


def _shared_keys(
    p: AttentionProblem, s: MmaAttentionSchedule, target: Target, blocks: int, tiles: int
) -> MmaAttentionSchedule:
    """The schedule with the keys of its `blocks` blocks, so many tiles, shared by clusters where SMs are idle, and by warps
    where an SM has few to hide one another's waits."""
    sms = facts(target).sms
    while s.cluster < target.max_cluster and 2 * s.cluster * blocks <= 2 * sms and tiles >= 4 * s.cluster:
        s = replace(s, cluster=2 * s.cluster)
    if s.warps == 1 and s.warp_rows == 16:
        while s.along < MOST_ALONG and blocks * s.parts < 2 * sms and tiles >= 2 * s.parts:
            wider = replace(s, along=2 * s.along)
            if wider.along * warp_bytes(p, wider) > target.shared_bytes:
                break
            s = wider
    return s


def choose_wgmma(p: AttentionProblem, target: Target) -> WgmmaAttentionSchedule | None:
    """The schedule with the least estimated time, where there are rows enough for its tiles."""
    if not target.wgmma or constant(p.rows) < 64:
        return None
    rows, keys, heads, sms = constant(p.rows), constant(p.keys), constant(p.batch * p.heads), facts(target).sms
    if isinstance(p.rows, int) and -(-rows // 128) * heads * 2 < sms and keys < 1024:
        return None
    if isinstance(p.keys, int) and keys <= SHORT_KEYS and max(p.depth, p.depth_v) <= 64:
        # A block's work is a chain of waits: four small ones on an SM overlap theirs (1x32x6144x64 over 128 keys on an H200:
        # 0.027 ms; two of twice the rows 0.037, one of three times the rows 0.046, two with tiles of 64 keys 0.032).
        return WgmmaAttentionSchedule(-(-keys // 16) * 16, groups=1, blocks=4)
    found = []
    for r in _RATED:
        s = r.schedule
        if max(p.depth, p.depth_v) > r.depth or plan_attention_wgmma(p, target, s) is None:
            continue
        blocks = -(-rows // s.rows) * heads
        waves = -(-blocks // (sms * s.blocks))
        # Whole tiles are multiplied; a tile of keys more is what filling and draining the pipeline costs.
        found.append((waves * s.blocks * s.rows * (-(-keys // s.keys) + 1) * s.keys / r.share, s))
    return min(found, key=lambda f: f[0])[1] if found else None


def choose(p: AttentionProblem, target: Target) -> Any:
    """The schedule of the best kernel that takes the operands."""
    if attention_row(p, target) is None:
        return choose_simt_attention(p, target)
    return choose_wgmma(p, target) or choose_mma(p, target)


def emit(dispatch: Dispatch, target: Target, schedule: Any = None) -> Emitted:
    """Write the kernels of an `attention` dispatch. Raises NotImplementedError naming what no kernel can take."""
    p = attention_problem(dispatch)
    if min(p.q.bits, p.k.bits, p.v.bits) < 8 or "f64" in (p.q.dtype, p.k.dtype, p.v.dtype):
        raise NotImplementedError(f"attention of {p.q.dtype}, {p.k.dtype} and {p.v.dtype} on {target.name}")
    s = schedule or choose(p, target)
    module = KernelModule(target.name, context=ir.Context.current)
    with module:
        if isinstance(s, WgmmaAttentionSchedule):
            plan = plan_attention_wgmma(p, target, s)
            if plan is None:
                raise NotImplementedError(f"{s} cannot read {p.q.dtype} operands of depth {p.depth} on {target.name}")
            emit_attention_wgmma(module, p, plan)
            return Emitted(KernelPlan((plan.launch,)), module.module)
        if isinstance(s, SimtAttentionSchedule):
            launch = simt_attention_launch(p, s)
            emit_attention_simt(module, p, s, launch)
        else:
            row = attention_row(p, target)
            if row is None:
                raise NotImplementedError(f"attention of {p.q.dtype}, {p.k.dtype} and {p.v.dtype} by mma.sync on {target.name}")
            launch = attention_launch(p, s)
            emit_attention_mma(module, p, row, s, target, launch)
        launches = [launch]
        if s.splits > 1:
            combine = combine_launch(p)
            emit_combine(module, p, s.splits, combine)
            launches.append(combine)
    return Emitted(KernelPlan(tuple(launches), split_workspace(p, s.splits)), module.module)
