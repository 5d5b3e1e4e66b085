"""The matmul family for NVIDIA GPUs: which kernel, which schedule, which plan.

`emit` finds the products behind the dispatch (cuda_gemm_problem.py), asks the cost model for a schedule, and writes one of

    cuda_gemm_wgmma.py        TMA and wgmma (sm_90a): operands whose lines TMA can read
    cuda_gemm_cluster.py      the same for few tiles or few rows: clusters of blocks share tiles, sums through shared memory
    cuda_gemm_mma.py          cp.async, ldmatrix and mma.sync (sm_80 and later; sm_75 through registers): everything else with
                              an instruction row
    cuda_gemm_block_scale.py  mma.sync with block scales (sm_120a): NVFP4, MXFP4, MXFP8
    cuda_gemm_decoded.py      quantized operands without an instruction, decoded to 16 bits or f32
    cuda_gemm_decoded_registers.py, cuda_gemm_decoded_wgmma.py
                              the same for quantized weights that registers decode, for mma.sync (sm_80 and later; sm_75 where
                              they are packed) and wgmma (sm_90a)
    cuda_gemm_streamed.py     few rows and quantized weights: decoded in registers, streamed once
    cuda_gemm_simt.py         fused multiply-adds: exact float32 and float64, and any type
    cuda_gemv.py              few rows: streams B once, from all SMs

A product of few tiles is split along K; cuda_split_k.py adds the parts. Where tiles leave a part of the last wave idle, their
steps are shared instead (cuda_stream_k.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ingot import dims
from ingot.compiler.codegen.cuda_gemm_block_scale import BlockScaleSchedule, block_scale_schedules, emit_block_scale
from ingot.compiler.codegen.cuda_gemm_cluster import ClusterSchedule, emit_cluster, plan_cluster
from ingot.compiler.codegen.cuda_gemm_decoded import (
    DecodedMmaSchedule,
    DecodedSimtSchedule,
    decoded_row,
    decodes,
    emit_decoded_mma,
    emit_decoded_simt,
)
from ingot.compiler.codegen.cuda_gemm_decoded_registers import (
    DecodedRegistersSchedule,
    emit_decoded_registers,
    registers_tiles,
)
from ingot.compiler.codegen.cuda_gemm_decoded_wgmma import (
    TILE_ROWS,
    DecodedWgmmaSchedule,
    decoded_stages,
    emit_decoded_wgmma,
    plan_decoded_wgmma,
)
from ingot.compiler.codegen.cuda_gemm_mma import MMA_TILES, MmaSchedule, emit_mma, mma_launch, mma_row
from ingot.compiler.codegen.cuda_gemm_problem import GemmProblem, gemm_problem, promotes
from ingot.compiler.codegen.cuda_gemm_simt import SIMT_TILES, SimtSchedule, emit_simt, simt_launch
from ingot.compiler.codegen.cuda_gemm_streamed import StreamedSchedule, emit_streamed, streamed_schedules
from ingot.compiler.codegen.cuda_gemm_wgmma import (
    WGMMA_TILES,
    WgmmaSchedule,
    WgmmaTile,
    emit_wgmma,
    plan_wgmma,
    shared_sm_area,
    stage_bytes,
)
from ingot.compiler.codegen.cuda_gemv import (
    BLOCKS,
    MAX_ROWS,
    WARPS,
    GemvSchedule,
    emit_gemv,
    gemv_depth,
    gemv_lanes,
    gemv_launch,
)
from ingot.compiler.codegen.cuda_kernel import constant
from ingot.compiler.codegen.cuda_stream_k import emit_finish, stream_of, stream_workspace
from ingot.compiler.codegen.family import Emitted
from ingot.compiler.codegen.kernel_builder import KernelModule
from ingot.cuda_targets import WHOLE_SM_TFLOPS, facts
from ingot.dialects.mlir import ir
from ingot.dispatch import Dispatch
from ingot.kernel_plan import KernelLaunch, KernelPlan
from ingot.target import Target

SPLITS = (1, 2, 3, 4, 6, 8, 12, 16)
# Set by an H200: products of one wave, tiles from 128 x 64 to 128 x 256 (cuda_tune.py).
LAUNCH_SECONDS = 1.7e-6  # of a launch until its first instruction has operands, and after its last
SECOND_LAUNCH_SECONDS = 1.8e-6
WAVE_SECONDS, RESULT_SECONDS = 3e-7, 2.5e-11  # a tile's end, and each of its results, while nothing is multiplied
STEP_SECONDS = 1.2e-7  # latency of a step along K: copies, barriers and the first instructions' results
DECODE_SECONDS = 5e-7  # latency of a step that waits for what it decodes
# Of kernels for any shape: a thread's accumulators times the instructions and results of the epilogue, which is written out for
# each. An assembler takes many seconds for more, and it spills.
EPILOGUE = 3000
# A cluster lies in one of the GPU's groups of SMs (GPCs). How many pairs of SMs a group has differs from chip to chip: so many
# groups may have one less than the others of an even division, and as many one more.
GPCS, UNEVEN = 8, 3
CLUSTERS = (1, 2, 3, 4, 6, 8)
SWAPPED_COLUMNS = (8, 16, 24, 32, 48, 64, 96, 128)  # of the instruction, where A's rows are its columns
# Of products of few rows, by an H200 (benchmarks/cuda_decoding_cases.py).
ACROSS = (4, 8, 16, 32)  # lanes of a warp side by side
LOAD_SECONDS = 1.1e-6  # latency of loads while memory is busy
NARROW_SHARE = 0.76  # of the rate, where a block's columns take less than 128 bytes of a row
PROMOTED_SHARE = 0.9  # of the rate of a tile's instructions where their sums are promoted to f32: not measured yet


@dataclass(frozen=True)
class Estimate:
    """Seconds that a schedule is expected to take; schedules are compared by it."""

    seconds: float
    schedule: Any


def tensor_core_seconds(
    p: GemmProblem,
    target: Target,
    tile: tuple[int, int],
    splits: int,
    blocks: int,
    efficiency: float,
    adding: float | None = None,
    turns: float = 0.0,
    reach: float = 0.85,
) -> float:
    """Time of a tiled product: waves of tiles at the machine's rate, operands from memory, and the splits' partial sums.

    `blocks` is how many tiles an SM works on at once; `efficiency` the share of the peak rate that the tile reaches by itself;
    `adding` the seconds it takes to add the splits' parts, by default by a second launch; `turns` the tiles that an SM works on
    one after the other, by default all SMs in step; `reach` the share of the memory's rate that the kernel's copies reach.
    """
    f = facts(target)
    m, n, k = (max(1, constant(d)) for d in (p.m, p.n, p.k))
    batch = max(1, constant(dims.product(p.batch)))
    rate = tensor_core_rate(p, target) * (PROMOTED_SHARE if promotes(p, target) else 1.0)
    tiles = math.ceil(m / tile[0]) * math.ceil(n / tile[1]) * batch * splits
    # Tiles of one SM at once share its rate; a lone one does not fill it.
    rounds = turns or math.ceil(tiles / f.sms)
    waves = math.ceil(tiles / (f.sms * blocks))
    tile_k = 1024 // p.a.bits
    steps = math.ceil(k / (splits * tile_k))
    step = 2 * tile[0] * tile[1] * tile_k / (rate / f.sms * efficiency)
    compute = rounds * steps * max(step, STEP_SECONDS)
    a_elements = m * k if p.a_elements is None else constant(p.a_elements)
    traffic = batch * (a_elements * p.a.bits + n * k * p.b.bits + m * n * 16) / 8
    # An SM can take more than its part of the memory's rate.
    memory = traffic / (reach * f.bandwidth * min(1.0, 2.5 * tiles / f.sms))
    extra = adding or 0.0
    if splits > 1 and adding is None:
        # Partials are written once and read once, and a second launch follows.
        extra = SECOND_LAUNCH_SECONDS + 8 * splits * batch * m * n / f.bandwidth
    # While a tile ends nothing is multiplied, but the next one's operands come and the last one's results leave.
    end = WAVE_SECONDS + RESULT_SECONDS * tile[0] * tile[1]
    busy = compute + (waves - 1) * end
    # What does not take the time still costs some: of two tiles that wait for memory, the smaller does it better.
    return max(busy, memory) + 0.1 * min(compute, memory) + LAUNCH_SECONDS + end + extra


def tensor_core_rate(p: GemmProblem, target: Target) -> float:
    """Operations per second that a GPU's tensor cores do of a product's."""
    f, bits = facts(target), max(p.a.bits, p.b.bits)
    if p.acc == "i32":
        return f.peak("i8")
    return f.peak("4") if bits == 4 else f.tflops * 1e12 * 16 / bits


def stream_k_estimate(p: GemmProblem, target: Target, s: Any, blocks: int, efficiency: float) -> Estimate | None:
    """The estimate of a schedule as stream-K with `blocks` on each SM; None where tiles fill whole waves, nearly, or sizes are
    not constant."""
    f = facts(target)
    s = replace(s, stream=f.sms * blocks)
    if not all(isinstance(d, int) for d in (p.m, p.n, p.k, *p.batch)):
        return None
    stream = stream_of(p, s)
    if stream is None or stream.share > 0.9 * stream.steps:
        return None
    adding = SECOND_LAUNCH_SECONDS + 3 * stream_workspace(p, s, stream) / f.bandwidth
    turns = blocks * (stream.waves + stream.share / stream.steps)
    return Estimate(tensor_core_seconds(p, target, (s.tile_m, s.tile_n), 1, blocks, efficiency, adding, turns), s)


def wgmma_schedules(
    p: GemmProblem,
    target: Target,
    tiles: Sequence[WgmmaTile] = WGMMA_TILES,
    kind: type[WgmmaSchedule] = WgmmaSchedule,
    plan: Callable[[Any], Any] | None = None,
    beside: float = 0.82,
) -> Iterator[Estimate]:
    """Estimates of all wgmma schedules of a kind that fit.

    `plan` gives None for what a kernel cannot take; `beside` is the share of its rate that a tile reaches beside another one.
    """
    plan = plan or (lambda s: plan_wgmma(p, target, s))
    tile_k = 1024 // p.a.bits
    steps = max(1, constant(p.k) // tile_k)
    for tile in tiles:
        for splits in SPLITS:
            if splits > max(1, steps // 4) or (splits > 1 and not isinstance(p.k, int)):
                break
            for stages in (8, 6, 5, 4, 3):
                s = kind(tile.m, tile.n, stages, splits)
                # Tiles that leave SMs without a second block may as well have the memory of both.
                count = math.ceil(constant(p.m) / tile.m) * math.ceil(constant(p.n) / tile.n) * splits
                count *= max(1, constant(dims.product(p.batch)))
                alone = tile.m * tile.n > shared_sm_area(p, target) or count <= facts(target).sms
                budget = target.shared_bytes if alone else target.shared_bytes // 2
                if stages * stage_bytes(p, s) + 2048 + 2 * tile.m * 128 * (splits == 1) <= budget and plan(s):
                    blocks, share = (1, tile.efficiency) if alone else (2, beside * tile.efficiency)
                    share *= _filled(p, tile)
                    yield Estimate(tensor_core_seconds(p, target, (tile.m, tile.n), splits, blocks, share), s)
                    if splits == 1 and (shared := stream_k_estimate(p, target, s, blocks, share)):
                        yield shared
                    break


def _filled(p: GemmProblem, tile: WgmmaTile) -> float:
    """The share of its rate that a tile keeps whose last columns the product lacks: the copy engine fills zeros slowly."""
    n = max(1, constant(p.n))
    columns = -(-n // tile.n) * tile.n
    return 1 / (1 + 1.2 * (columns - n) / columns)


def clustered_blocks(sms: int, cluster: int, each: int) -> int:
    """Blocks that run at once in clusters on any chip, where an SM holds `each`.

    One too many is dear: its cluster runs alone when all others have ended. Larger clusters do not find all places that there
    are (H200: not 42 clusters of three, nor 32 of four).
    """
    pairs, more = divmod(sms // 2, GPCS)
    found = []
    for moved in range(min(UNEVEN, (GPCS - more) // 2) + 1):
        sizes = [pairs + 1] * (more + moved) + [pairs] * (GPCS - more - 2 * moved) + [pairs - 1] * moved
        found.append(sum(2 * size * each // cluster for size in sizes))
    return max(1, min(found) if cluster <= 2 else int(0.9 * min(found))) * cluster


def cluster_seconds(cluster: int, rows: int, cols: int) -> float:
    """Time that a cluster takes to add the parts of a tile.

    They go through shared memory of all blocks, at about 36 bytes a nanosecond and SM (an H200).
    """
    return 0.3e-6 + 0.1e-6 * cluster + rows * cols * 4 / 36e9 if cluster > 1 else 0.2e-6


def cluster_schedules(
    p: GemmProblem,
    target: Target,
    tiles: Sequence[WgmmaTile] = WGMMA_TILES,
    kind: type[ClusterSchedule] = ClusterSchedule,
    plan_of: Callable[[Any], Any] | None = None,
) -> Iterator[Estimate]:
    """Estimates of schedules whose clusters share tiles: products of few tiles, as they are and, of few rows, swapped.

    `plan_of` gives None for what a kernel cannot take; where it is given nothing is swapped.
    """
    m, n = max(1, constant(p.m)), max(1, constant(p.n))
    batch = max(1, constant(dims.product(p.batch)))
    sms = facts(target).sms
    tile_k = 1024 // p.a.bits
    steps = max(1, -(-constant(p.k) // tile_k))
    columns = next((c for c in SWAPPED_COLUMNS if c >= m), 0)
    swapped = [WgmmaTile(rows, columns, min(0.75, columns / 40)) for rows in (64, 128) if columns]
    either = [(tile, True) for tile in swapped if plan_of is None] + [(tile, False) for tile in tiles if m > 32]
    for tile, swap in either:
        rows, cols = (tile.n, tile.m) if swap else (tile.m, tile.n)
        count = -(-m // rows) * -(-n // cols) * batch
        for cluster in CLUSTERS:
            blocks = count * cluster
            if cluster > max(1, steps // 2) or (cluster == 1 and not swap) or blocks > 4 * sms:
                continue
            alone = tile.m * tile.n > shared_sm_area(p, target) or blocks <= sms
            budget = (target.shared_bytes if alone else target.shared_bytes // 2) - 4096
            lines = tile.m + (-(-tile.n // 64) * 64 if (p.a if swap else p.b).major == "row" else tile.n)
            stages = min(budget // (lines * 128 + 16), max(3, -(-steps // cluster)))
            s = kind(tile.m, tile.n, stages, cluster, swap)
            plan = None if stages < 3 else plan_cluster(p, target, s) if plan_of is None else plan_of(s)
            if plan is not None:
                adding = cluster_seconds(cluster, rows, cols)
                fits = target.shared_bytes // (plan.launch.shared_bytes + 1024)
                each = 2 if fits >= 2 and tile.m * tile.n <= shared_sm_area(p, target) else 1
                waves = -(-blocks // clustered_blocks(sms, cluster, each))
                turns = 1 if blocks <= sms and waves == 1 else each * waves
                # A later wave fills its stages from the start.
                adding = adding * turns + (waves - 1) * LAUNCH_SECONDS
                seconds = tensor_core_seconds(p, target, (rows, cols), cluster, each, tile.efficiency, adding, turns, 1.0)
                yield Estimate(seconds, s)


def mma_tiles(target: Target) -> Iterator[MmaSchedule]:
    """Divisions of a product for mma.sync whose stages fit the target's shared memory."""
    for tile in MMA_TILES:
        stages = tile.stages if target.cp_async else 2
        for k_bytes in (128, 64):
            s = replace(tile, stages=stages, k_bytes=k_bytes)
            if s.stages * s.stage_bytes <= target.shared_bytes:
                yield s
                break


def mma_schedules(p: GemmProblem, target: Target, streams: bool = True) -> Iterator[Estimate]:
    """Estimates of all mma.sync schedules that fit, of those of cuda_stream_k.py too where `streams`."""
    if mma_row(p, target) is not None:
        # Promoted sums take the registers of accumulators twice.
        area = 64 * 32 if promotes(p, target) else 64 * 64
        if not (isinstance(p.m, int) and isinstance(p.n, int)):
            work = sum(len(region.insts) for region in p.dispatch.regions) + len(p.dispatch.results)
            area = min(area, max(32 * EPILOGUE // work, 16 * 16))
        tiles = [s for s in mma_tiles(target) if s.warp_m * s.warp_n <= area]
        yield from mma_estimates(p, target, p.a.bits, tiles, streams)


def mma_estimates(
    p: GemmProblem, target: Target, bits: int, tiles: Iterable[MmaSchedule], streams: bool = False
) -> Iterator[Estimate]:
    """Estimates of schedules, each with all splits of K (and as stream-K), for operands of `bits` bits in shared memory."""
    steps = max(1, constant(p.k) * bits // 1024)
    # Small tiles need more bytes for each product: the slower an SM's tensor cores are, the less they wait for them.
    need = tensor_core_rate(p, target) / facts(target).sms * bits / 16
    loss = 0.3 if target.wgmma else 0.3 * min(1.0, max(2 / 3, need / (WHOLE_SM_TFLOPS * 1e12)))
    for s in tiles:
        blocks = min(
            target.shared_bytes // (s.stages * s.stage_bytes),
            target.max_threads // (32 * s.warps),
            4 if s.warps <= 4 else 2,
        )
        area = s.tile_m * s.tile_n
        share = 0.75 * min(1.0, (area / (128 * 256)) ** loss) * (1.0 if s.k_bytes == 128 else 0.9)
        if target.wgmma:
            share *= 0.65  # beside instructions that read shared memory by themselves
        else:
            clamped = not (isinstance(p.m, int) and isinstance(p.n, int))
            registers = s.registers(clamped=clamped, fetched=not target.cp_async)
            blocks = target.resident_blocks(32 * s.warps, registers, s.stages * s.stage_bytes)
            if blocks == 0:  # its registers would spill
                continue
            # A warp to each quarter of an SM waits at every barrier.
            share *= min(1.0, s.warps * blocks / 8) ** 0.1
        for splits in SPLITS:
            if splits > max(1, steps // 4) or (splits > 1 and not isinstance(p.k, int)):
                break
            count = -(-constant(p.k) * bits // (8 * s.k_bytes * splits))
            # A block that waits for its first step multiplies nothing, and has few others beside it.
            reach = 0.85 * count / (count + 1)
            seconds = tensor_core_seconds(p, target, (s.tile_m, s.tile_n), splits, blocks, share, reach=reach)
            yield Estimate(seconds, replace(s, splits=splits))
        if streams and (shared := stream_k_estimate(p, target, s, blocks, share)):
            yield shared


def quantized_schedules(p: GemmProblem, target: Target) -> list[Estimate]:
    """Estimates for operands that are decoded, or that an instruction takes with their scales."""
    found = list(mma_estimates(p, target, p.a.bits, block_scale_schedules(p, target)))
    if not found and decoded_row(p, target) is not None:
        tiles = list(_decoded_tiles(target))
        found += registers_schedules(p, target, tiles)
        for e in mma_estimates(p, target, 16, tiles):
            s = e.schedule
            latency = constant(p.k) * 16 / (8 * s.k_bytes * s.splits) * DECODE_SECONDS + (4e-6 if s.splits > 1 else 1e-6)
            found.append(Estimate(max(e.seconds, latency), DecodedMmaSchedule(s)))
        if target.wgmma:
            found += decoded_wgmma_schedules(p, target)
    return found or [replace(e, schedule=DecodedSimtSchedule(e.schedule)) for e in simt_schedules(p, target)]


def _decoded_tiles(target: Target) -> Iterator[MmaSchedule]:
    """Tiles that leave registers to decode in: beside 64 x 64 accumulators they spill."""
    return (s for s in mma_tiles(target) if s.warp_m * s.warp_n <= 64 * 32)


def registers_schedules(p: GemmProblem, target: Target, tiles: Iterable[MmaSchedule]) -> Iterator[Estimate]:
    """Estimates of schedules of mma.sync whose weights are decoded in registers."""
    for e in mma_estimates(p, target, 16, registers_tiles(p, target, tiles)):
        yield replace(e, schedule=DecodedRegistersSchedule(e.schedule))


def packed_schedules(p: GemmProblem, target: Target) -> Iterator[Estimate]:
    """Estimates for packed weights, of the one kernel of the target that takes them beside any number of rows."""
    if target.wgmma:
        yield from decoded_wgmma_schedules(p, target)
    else:
        yield from registers_schedules(p, target, _decoded_tiles(target))


def decoded_wgmma_schedules(p: GemmProblem, target: Target) -> Iterator[Estimate]:
    """Estimates of schedules of wgmma whose weights come from registers: decoded, or of 8 bits and N-major."""
    steps = max(1, constant(p.k) * p.a.bits // 1024)
    m, n, batch = (max(1, constant(d)) for d in (p.m, p.n, dims.product(p.batch)))
    sms = facts(target).sms
    for rows in TILE_ROWS:
        share = 0.7 * (rows / TILE_ROWS[0]) ** 0.4
        for cluster in CLUSTERS[1:]:
            s = DecodedWgmmaSchedule(rows, decoded_stages(p, target, rows), cluster=cluster)
            blocks = -(-m // rows) * -(-n // s.tile_n) * batch * cluster
            if cluster > max(1, steps // 2) or blocks > 2 * sms or plan_decoded_wgmma(p, target, s) is None:
                break
            waves = -(-blocks // clustered_blocks(sms, cluster, 1))
            adding = cluster_seconds(cluster, rows, s.tile_n) * waves + (waves - 1) * LAUNCH_SECONDS
            yield Estimate(tensor_core_seconds(p, target, (rows, s.tile_n), cluster, 1, share, adding, waves, 1.0), s)
        for splits in SPLITS:
            if splits > max(1, steps // 4) or (splits > 1 and not isinstance(p.k, int)):
                break
            s = DecodedWgmmaSchedule(rows, decoded_stages(p, target, rows), splits)
            if plan_decoded_wgmma(p, target, s) is None:
                break
            yield Estimate(tensor_core_seconds(p, target, (rows, s.tile_n), splits, 1, share), s)
            if splits == 1 and (shared := stream_k_estimate(p, target, s, 1, share)):
                yield shared


def gemv_schedules(p: GemmProblem, target: Target) -> Iterator[Estimate]:
    """Estimates of schedules for few rows, which read B at the memory's rate."""
    lanes = gemv_lanes(p)
    if not (isinstance(p.m, int) and 1 <= p.m <= MAX_ROWS and lanes and p.acc in ("f32", "f64", "i32")):
        return
    k_major = p.b.major == "col"
    if not k_major and lanes < 2:
        return
    k = constant(p.k)
    for across in (32,) if k_major else ACROSS:
        whole = GemvSchedule(p.m, lanes, k_major, across=across)
        yield Estimate(gemv_seconds(p, target, whole), whole)
        parts = 2
        # Each with enough of K to stream.
        while parts <= 32 and k >= parts * (1024 if k_major else 2 * whole.step) and isinstance(p.k, int):
            shared = [replace(whole, cluster=parts)] if parts <= target.max_cluster else []
            if across == 32:
                shared.append(replace(whole, splits=parts))
            for s in shared:
                yield Estimate(gemv_seconds(p, target, s), s)
            parts *= 2


def gemv_seconds(p: GemmProblem, target: Target, s: GemvSchedule) -> float:
    """Time of a schedule for few rows: the memory's, as far as what is in flight keeps it busy, or that of arithmetic, and that
    of adding what blocks share."""
    f = facts(target)
    n, k, batch = constant(p.n), constant(p.k), max(1, constant(dims.product(p.batch)))
    blocks = -(-n // s.tile_n) * batch * s.parts
    vectors = min(gemv_depth(p, s), max(1, -(-k // (s.parts * s.step)))) * (2 if s.k_major else 1)
    in_flight = min(blocks, BLOCKS * f.sms) * 32 * WARPS * vectors * s.lanes * p.b.bits / 8
    # An SM can take more than its part of the memory's rate.
    busy = min(1.0, 2.5 * blocks / f.sms, in_flight / (f.bandwidth * LOAD_SECONDS))
    line = s.across * s.lanes * p.b.bits // 8
    share = busy * s.lanes * p.b.bits / 128 * (NARROW_SHARE if line < 128 else 1.0)
    # Decoded elements take about six instructions more, and one more for each row of A; others are loaded and widened.
    each = 6 + 2 * s.rows if decodes(p) else 4 * s.rows
    arithmetic = batch * n * k * each / (min(blocks, f.sms) * 128 * 1.5e9)
    adding = 2e-6 if s.splits > 1 else cluster_seconds(s.cluster, s.rows, s.tile_n)
    return max(batch * n * k * p.b.bits / 8 / (f.bandwidth * 0.85 * share), arithmetic) + LAUNCH_SECONDS + adding


def simt_schedules(p: GemmProblem, target: Target) -> Iterator[Estimate]:
    """Estimates of schedules without tensor cores."""
    f = facts(target)
    lanes = 128 if target.sm in (86, 87, 88, 89, 90, 100, 103, 120, 121) else 64
    peak = f.sms * lanes * 2 * 1.6e9
    for s in SIMT_TILES:
        for splits in SPLITS:
            if splits > max(1, constant(p.k) // 256) or (splits > 1 and not isinstance(p.k, int)):
                break
            share = 0.78 if s.per_m == 8 else 0.52 if s.tile_m == 64 else 0.35
            batch = max(1, constant(dims.product(p.batch)))
            tiles = math.ceil(constant(p.m) / s.tile_m) * math.ceil(constant(p.n) / s.tile_n) * batch * splits
            work = 2 * s.tile_m * s.tile_n * constant(p.k) / splits
            # An SM with less than eight warps waits as long as with eight.
            rounds = max(math.ceil(tiles / f.sms), 256 // s.threads)
            extra = 2e-6 + 8 * splits * batch * constant(p.m) * constant(p.n) / f.bandwidth if splits > 1 else 0.0
            yield Estimate(rounds * work / (peak / f.sms * share) + LAUNCH_SECONDS + extra, replace(s, splits=splits))


def estimates(p: GemmProblem, target: Target) -> list[Estimate]:
    """Estimates of the schedules of a product that is not decoded, but for those without tensor cores."""
    found: list[Estimate] = [*gemv_schedules(p, target), *mma_schedules(p, target)]
    if target.wgmma:
        found += [*wgmma_schedules(p, target), *cluster_schedules(p, target), *decoded_wgmma_schedules(p, target)]
    return found


def choose(p: GemmProblem, target: Target) -> Any:
    """The schedule with the least estimated time, tensor cores first where they give what the dispatch asks for."""
    columns = constant(p.n) * max(1, constant(dims.product(p.batch)))
    few = isinstance(p.m, int) and p.m <= MAX_ROWS
    for streamed in streamed_schedules(p, target, columns) if few or not (p.packed and target.wgmma) else ():
        if few or not list(block_scale_schedules(p, target)):
            return streamed
    if p.packed:
        packed = list(packed_schedules(p, target))
        if not packed:
            raise NotImplementedError(f"{target.name} has no kernel for packed {p.b.dtype} and {p.a.dtype} of these strides")
        return min(packed, key=lambda e: e.seconds).schedule
    found = [*gemv_schedules(p, target)]
    if found and p.m == 1:
        return min(found, key=lambda e: e.seconds).schedule
    if decodes(p):
        return min([*found, *quantized_schedules(p, target)], key=lambda e: e.seconds).schedule
    found = estimates(p, target)
    if all(isinstance(e.schedule, GemvSchedule) for e in found):
        if found and p.m in (2, 3, 4):
            return min(found, key=lambda e: e.seconds).schedule
        found += simt_schedules(p, target)
    return min(found, key=lambda e: e.seconds).schedule


def emit(dispatch: Dispatch, target: Target, schedule: Any = None) -> Emitted:
    """Write the kernels of a `matmul` dispatch. Raises NotImplementedError naming what no kernel can take."""
    p = gemm_problem(dispatch)
    if not decodes(p) and (p.a_scales or p.b_scales or min(p.a.bits, p.b.bits) < 8):
        raise NotImplementedError(f"matmul of {p.a.dtype} and {p.b.dtype} on {target.name}")
    schedule = schedule or choose(p, target)
    if p.packed and not isinstance(schedule, StreamedSchedule | DecodedRegistersSchedule | DecodedWgmmaSchedule):
        raise NotImplementedError(f"{schedule} reads no packed weights")
    module = KernelModule(target.name, context=ir.Context.current)
    with module:
        launch = _WRITERS[type(schedule)](module, p, target, schedule)
        finish, workspace = emit_finish(module, p, schedule)
        return Emitted(KernelPlan((launch, *finish), workspace), module.module)


def _write_wgmma(module: KernelModule, p: GemmProblem, target: Target, s: WgmmaSchedule) -> KernelLaunch:
    plan = plan_wgmma(p, target, s)
    if plan is None:
        raise NotImplementedError(f"{s} cannot read {p.a.dtype} operands of strides {p.a.row_stride}, {p.b.row_stride}")
    emit_wgmma(module, p, plan, target)
    return plan.launch


def _write_cluster(module: KernelModule, p: GemmProblem, target: Target, s: ClusterSchedule) -> KernelLaunch:
    plan = plan_cluster(p, target, s)
    if plan is None:
        raise NotImplementedError(f"{s} cannot read {p.a.dtype} operands of strides {p.a.row_stride}, {p.b.row_stride}")
    emit_cluster(module, p, s, plan)
    return plan.launch


def _write_mma(module: KernelModule, p: GemmProblem, target: Target, s: MmaSchedule) -> KernelLaunch:
    if mma_row(p, target) is None:
        raise NotImplementedError(f"{target.name} has no mma.sync of {p.a.dtype} accumulating in {p.acc}")
    launch = mma_launch(p, s)
    emit_mma(module, p, s, target, launch)
    return launch


def _write_simt(module: KernelModule, p: GemmProblem, target: Target, s: SimtSchedule) -> KernelLaunch:
    launch = simt_launch(p, s)
    emit_simt(module, p, s, launch)
    return launch


def _write_gemv(module: KernelModule, p: GemmProblem, target: Target, s: GemvSchedule) -> KernelLaunch:
    launch = gemv_launch(p, s)
    emit_gemv(module, p, s, launch)
    return launch


def _write_block_scale(module: KernelModule, p: GemmProblem, target: Target, s: BlockScaleSchedule) -> KernelLaunch:
    return emit_block_scale(module, p, s, target)


def _write_decoded_mma(module: KernelModule, p: GemmProblem, target: Target, s: DecodedMmaSchedule) -> KernelLaunch:
    return emit_decoded_mma(module, p, s, target)


def _write_decoded_simt(module: KernelModule, p: GemmProblem, target: Target, s: DecodedSimtSchedule) -> KernelLaunch:
    return emit_decoded_simt(module, p, s, target)


def _write_decoded_registers(module: KernelModule, p: GemmProblem, target: Target, s: DecodedRegistersSchedule) -> KernelLaunch:
    return emit_decoded_registers(module, p, s, target)


def _write_decoded_wgmma(module: KernelModule, p: GemmProblem, target: Target, s: DecodedWgmmaSchedule) -> KernelLaunch:
    return emit_decoded_wgmma(module, p, s, target)


def _write_streamed(module: KernelModule, p: GemmProblem, target: Target, s: StreamedSchedule) -> KernelLaunch:
    return emit_streamed(module, p, s, target)


_WRITERS: dict[type, Callable[..., KernelLaunch]] = {
    WgmmaSchedule: _write_wgmma, ClusterSchedule: _write_cluster, MmaSchedule: _write_mma, SimtSchedule: _write_simt,
    GemvSchedule: _write_gemv,
    BlockScaleSchedule: _write_block_scale, DecodedMmaSchedule: _write_decoded_mma, DecodedSimtSchedule: _write_decoded_simt,
    StreamedSchedule: _write_streamed, DecodedWgmmaSchedule: _write_decoded_wgmma,
    DecodedRegistersSchedule: _write_decoded_registers,
}  # fmt: skip
