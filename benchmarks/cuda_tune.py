"""What the constants of the matmul and convolution cost models are set by: times of their schedules beside their estimates.

    python benchmarks/cuda_kernels.py --tune 16x4096x4096,32x4096x4096NT   # M x N x K, f16; NT: B lies K-major
    python benchmarks/cuda_kernels.py --tune f8:4096x4096x4096NT           # e4m3, sums promoted to f32; f8fast: not promoted
    python benchmarks/cuda_kernels.py --tune conv2x96x320x320              # 3x3: images x size x channels in x out
    python benchmarks/cuda_kernels.py --tune conv32x56x256x512k1s2         # 1x1 with stride 2; i8: of integers, to f16
    python benchmarks/cuda_kernels.py --tune depthwise32x28x240k5,group2x9216x32x10   # images x positions x groups x channels
    python benchmarks/cuda_kernels.py --tune groups      # GROUPS; with `silu` at its end: a scale, a shift and SiLU follow
    python benchmarks/cuda_kernels.py --tune all                           # SHAPES
    python benchmarks/cuda_kernels.py --tune convs                         # CONVS; resnet: RESNET

Of each kind of schedule the best few by their estimates are timed, so that one kind's wrong constants do not hide the others.
The last lines say for each shape how the schedule with the least estimate ranks, and for each kind what was measured over what
was estimated: a median far from 1 asks for another constant in cuda_matmul.py. These are, for

    cluster, swapped           `adding` and efficiencies in cluster_schedules; UNEVEN, where fewer clusters run at once
    splits and stream-K        the seconds of a second launch in tensor_core_seconds and stream_k_estimate
    wgmma                      efficiencies of WGMMA_TILES (cuda_gemm_wgmma.py)
    few steps, few rows        STEP_SECONDS; gemv_schedules against `swapped` for 1 to 8 rows
    GemvSchedule               LOAD_SECONDS, NARROW_SHARE; `cluster` against `splits`

All cores make code at once, so that the GPU is not kept waiting: about two seconds a shape.
"""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import cuda_dispatches as make
import numpy as np
import torch
from cuda.bindings import driver as cu
from cuda_conv_cases import conv_speed, eight_bit_speed
from cuda_device import build, check, load, milliseconds
from cuda_kernels import (
    TORCH,
    Speed,
    copied_bytes,
    group_speed,
    random_tensor,
    torch_matmul,
)
from cuda_quantized_cases import torch_scaled_mm

from ingot.compiler.codegen import cuda_conv, cuda_matmul, cuda_normalize
from ingot.compiler.codegen.cuda_gemm_cluster import ClusterSchedule
from ingot.compiler.codegen.cuda_gemv import GemvSchedule
from ingot.compiler.codegen.cuda_group_normalize import group_problem
from ingot.compiler.codegen.cuda_matmul import Estimate
from ingot.cuda_targets import facts
from ingot.target import Target

TUNED = 8  # schedules of each kind
SHAPES = (
    "1x4096x4096", "4x4096x4096", "8x4096x4096", "16x4096x4096", "16x4096x4096NT", "32x4096x4096", "64x4096x11008",
    "128x4096x4096", "256x4096x4096", "32x768x768", "32x768x3072", "394x768x768", "394x768x3072", "616x3072x768",
    "1536x1280x1280", "3072x768x768", "4608x640x640", "1536x1536x8192", "4096x4096x4096", "18432x320x320", "18432x2560x320",
    "18432x320x1280", "4608x5120x640", "1152x1280x5120", "288x1280x1280", "154x1280x1024", "394x3072x768", "128x768x768",
    "conv2x96x320x320", "conv2x48x640x640", "conv2x24x1280x1280", "conv2x12x1280x1280",
)  # fmt: skip

CONVS = (
    "conv32x56x64x256k1", "conv32x56x256x64k1", "conv32x56x256x512k1s2", "conv2x56x64x256k1", "conv2x56x256x512k1s2",
    "conv32x56x64x256k1i8", "conv32x56x64x256k1i8to8", "conv2x96x4x320", "conv2x96x320x320", "conv1x256x512x512",
    "conv1x512x128x128", "conv32x56x64x64", "conv32x7x512x512", "depthwise32x28x240k5",
    "depthwise32x56x96k3", "depthwise32x28x240k5s2", "depthwise2x28x240k5", "depthwise2x14x672k5", "group16x9216x32x10",
    "group2x9216x32x10", "group2x9216x32x30", "group2x2304x32x20", "group2x576x32x40",
)  # fmt: skip
# Of Stable Diffusion 2.1's UNet, two images of 96 x 96.
GROUPS = (
    "group2x9216x32x10silu", "group2x9216x32x20silu", "group2x9216x32x30silu", "group2x2304x32x10silu", "group2x2304x32x20silu",
    "group2x2304x32x40silu", "group2x2304x32x60silu", "group2x576x32x20silu", "group2x576x32x40silu", "group2x576x32x80silu",
    "group2x144x32x40silu", "group2x144x32x80silu", "group2x9216x32x10", "group2x2304x32x20", "group2x576x32x40",
)  # fmt: skip
# Of resnet50, two images.
RESNET = (
    "conv2x56x64x64", "conv2x56x128x128s2", "conv2x28x128x128", "conv2x28x256x256s2", "conv2x14x256x256", "conv2x14x512x512s2",
    "conv2x7x512x512", "conv2x56x64x64k1", "conv2x56x64x256k1", "conv2x56x256x64k1", "conv2x56x256x512k1s2",
    "conv2x28x512x128k1", "conv2x28x512x1024k1s2", "conv2x14x1024x256k1", "conv2x14x1024x2048k1s2", "conv2x7x512x2048k1",
    "conv2x7x2048x512k1",
)  # fmt: skip
SETS = {"all": SHAPES, "convs": CONVS, "groups": GROUPS, "resnet": RESNET}
_CONV = re.compile(r"(conv|depthwise)(\d+)x(\d+)x(\d+)(?:x(\d+))?(?:k(\d+))?(?:s(\d+))?(i8to8|i8)?")


def problem(shape: str, target: Target) -> tuple[Speed, list[Estimate]]:
    """What a shape's text describes, and its schedules; an estimate of 0 seconds is none."""
    if found := _CONV.fullmatch(shape):
        kind, *sizes, kernel, stride, eight = found.groups()
        n, size, channels, out = (int(x or 0) for x in sizes)
        k, s = int(kernel or 3), int(stride or 1)
        if eight:
            case = eight_bit_speed(n, size, channels, out, k, "i8", s, "i8" if eight == "i8to8" else "f16")
        elif kind == "depthwise":
            case = conv_speed(n, size, channels, channels, k, stride=s, groups=channels)
        else:
            case = conv_speed(n, size, channels, out, k, stride=s)
        return case, cuda_conv.schedules(case.dispatch, target)
    if shape.startswith("group"):
        silu = shape.endswith("silu")
        case = group_speed(*map(int, shape.removeprefix("group").removesuffix("silu").split("x")), silu=silu)
        groups = group_problem(case.dispatch)
        assert groups is not None, shape
        return case, [Estimate(*x) for x in cuda_normalize.group_schedules(groups, target, waves=16, wide=True)]
    kind, size = shape.split(":") if ":" in shape else ("f16", shape)
    m, n, k = map(int, size.removesuffix("NT").split("x"))
    fast = kind == "f8fast"
    d = make.matmul(
        m, n, k, "f16" if kind == "f16" else "f8E4M3FN", b_transposed=size.endswith("NT"), fast_accumulation=fast
    )  # fmt: skip
    peer = torch_matmul if kind == "f16" else torch_scaled_mm(fast)
    return Speed(shape, d, 0.0, peer), cuda_matmul.estimates(cuda_matmul.gemm_problem(d), target)


def print_clusters(target: Target) -> None:
    """Clusters of each size that run at once here, of blocks that take an SM each, beside what the cost model takes."""
    d = make.matmul(256, 4096, 4096, "f16")
    for size in (2, 3, 4, 6, 8):
        kernel = load(d, *build(d, target, ClusterSchedule(128, 128, 6, size)))
        launch = kernel.plan.launches[0]
        attribute = cu.CUlaunchAttribute()
        attribute.id = cu.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
        attribute.value.clusterDim.x, attribute.value.clusterDim.y, attribute.value.clusterDim.z = launch.cluster
        config = cu.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = launch.grid
        config.blockDimX, config.blockDimY, config.blockDimZ = launch.block
        config.sharedMemBytes, config.attrs, config.numAttrs = launch.shared_bytes, [attribute], 1
        found = check(cu.cuOccupancyMaxActiveClusters(kernel.functions[0], config))
        taken = cuda_matmul.clustered_blocks(facts(target).sms, size, 1) // size
        print(f"clusters of {size}: {found} at once, the cost model takes {taken}")


def schedule_kind(s: Any) -> str:
    """What a schedule is, without its sizes."""
    kinds = [type(s).__name__, *(x for x in ("swapped", "stream", "is_wide", "alone") if getattr(s, x, False))]
    if isinstance(s, GemvSchedule) and s.parts > 1:
        kinds.append("splits" if s.splits > 1 else "cluster")
    return " ".join(kinds)


def tune(shapes: str, target: Target, without: str = "") -> None:
    """Time f16 products and convolutions, in shapes separated by commas (or `all`), by the schedules that the cost model thinks
    best, beside its estimates; no schedules whose kind begins with `without`."""
    if target.max_cluster > 1:
        print_clusters(target)
    problems: list[tuple[Speed, list[Estimate]]] = []
    errors: dict[str, list[float]] = {}
    summary: list[str] = []
    for shape in SETS.get(shapes) or shapes.split(","):
        case, found = problem(shape, target)
        found = [e for e in found if not (without and schedule_kind(e.schedule).startswith(without))]
        found.sort(key=lambda e: e.seconds)
        # The best of each kind by its estimate, so that one kind's wrong constants do not hide the others.
        kinds: dict[str, list[Estimate]] = {}
        for e in found:
            kinds.setdefault(schedule_kind(e.schedule), []).append(e)
        problems.append((case, [e for kind in kinds.values() for e in kind[:TUNED]]))
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("fork")) as pool:
        building = [[(e, pool.submit(build, case.dispatch, target, e.schedule)) for e in found] for case, found in problems]
        for (case, _), builds in zip(problems, building, strict=True):
            shape, d = case.name, case.dispatch
            operands = [random_tensor(t) for t in d.operands]
            result = torch.empty(d.results[0].shape, dtype=TORCH[d.results[0].dtype], device="cuda")
            if case.other is None:
                copies = [torch.empty(copied_bytes(d) // 2, dtype=torch.uint8, device="cuda") for _ in range(2)]
                other: Callable[[], Any] = lambda copies=copies: copies[1].copy_(copies[0])  # noqa: E731
                expected = None
            else:
                other = case.other(operands, result)
                expected = other()
            rows = []
            for e, future in builds:
                try:
                    kernel = load(d, *future.result()).bind(operands, [result])
                    result.zero_()
                    kernel()
                    if expected is None:  # nobody else's values: those of the first schedule
                        expected = result.clone()
                    error = ((result.float() - expected.float()).abs().max() / expected.float().abs().max()).item()
                    times = milliseconds({"ours": kernel, "other": other}, rounds=5)
                except Exception as failure:  # one line a schedule; the rest is still timed
                    print(f"{shape:18s} FAIL {e.schedule}: {failure}", flush=True)
                    torch.cuda.synchronize()  # a fault ends it all
                    continue
                note = "" if error < 0.01 else f"  WRONG by {error:.2g}"
                first = e is builds[0][0]  # what the cost model chooses
                row = times["ours"], times["other"], 1e3 * e.seconds, schedule_kind(e.schedule), f"{e.schedule}{note}", first
                rows.append(row)
            rows.sort(key=lambda r: r[0])
            for ours, peer, estimate, name, schedule, _ in rows:
                print(f"{shape:18s} {ours:8.4f} ms  estimated {estimate:8.4f}  other {peer:8.4f}  {schedule}", flush=True)
                if estimate:
                    errors.setdefault(name, []).append(ours / estimate)
            if rows:
                # By the model alone: few rows take the kernel that streams B without being estimated.
                rank, (ours, peer, _, _, schedule, _) = max(enumerate(rows), key=lambda r: r[1][-1])
                summary.append(f"{shape:18s} by estimate {ours:8.4f} ms, rank {rank + 1} of {len(rows)}, best {rows[0][0]:8.4f}"
                               f"  other {peer:8.4f}  {schedule}")  # fmt: skip
    print(*summary, sep="\n")
    for name, ratios in errors.items():
        print(f"{name}: measured over estimated {np.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}")
