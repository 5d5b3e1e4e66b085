"""Every CUDA kernel family on the GPU at hand: correctness against float64, and speed against PyTorch's libraries.

    python benchmarks/cuda_kernels.py                  # all
    python benchmarks/cuda_kernels.py --check          # correctness only
    python benchmarks/cuda_kernels.py --only matmul    # cases whose name contains a word
    python benchmarks/cuda_kernels.py --json out.json
    python benchmarks/cuda_kernels.py --tune 16x4096x4096,conv2x96x320x320   # products by all schedules: see cuda_tune.py

Each speed row prints our time, the other's, their ratio (above 1: ours is faster) and the floor that the project holds itself
to. Both run in CUDA graphs, in turns, in one process; the ratio of medians is what counts. Memory-bound rows are measured
against a copy of the same number of bytes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable, Container
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "test")]

import cuda_dispatches as make  # noqa: E402
from cuda_cases import COLD_BYTES, Check, Speed, in_turns  # noqa: E402
from cuda_conv_cases import conv_checks, conv_speeds, eight_bit_speeds  # noqa: E402
from cuda_decoding_cases import decoding_checks, decoding_speeds  # noqa: E402
from cuda_device import Kernel, compile_dispatch, milliseconds  # noqa: E402
from cuda_quantized_cases import fp8_checks, fp8_speeds, quantized_checks, quantized_speeds  # noqa: E402

from ingot import dims  # noqa: E402
from ingot.compiler.codegen.cuda_attention_mma import MmaAttentionSchedule  # noqa: E402
from ingot.compiler.codegen.cuda_attention_wgmma import WgmmaAttentionSchedule  # noqa: E402
from ingot.compiler.codegen.cuda_gemm_cluster import ClusterSchedule  # noqa: E402
from ingot.compiler.codegen.cuda_gemm_mma import MmaSchedule  # noqa: E402
from ingot.compiler.codegen.cuda_gemm_simt import SimtSchedule  # noqa: E402
from ingot.compiler.codegen.cuda_gemm_wgmma import WgmmaSchedule  # noqa: E402
from ingot.compiler.codegen.cuda_group_cluster import ClusterSchedule as GroupCluster  # noqa: E402
from ingot.compiler.codegen.cuda_group_normalize import GroupSchedule  # noqa: E402
from ingot.compiler.codegen.mma_table import MMA_ROWS, find_row  # noqa: E402
from ingot.compiler.reference import run_dispatch  # noqa: E402
from ingot.cuda_targets import BY_NAME, CUDA_TARGETS, target_for  # noqa: E402
from ingot.dispatch import Dispatch  # noqa: E402
from ingot.target import Target  # noqa: E402

TORCH = {
    "f64": torch.float64, "f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16, "i64": torch.int64,
    "i32": torch.int32, "i16": torch.int16, "i8": torch.int8, "i1": torch.bool,
    "f8E4M3FN": torch.float8_e4m3fn, "f8E5M2": torch.float8_e5m2,
}  # fmt: skip


def as_older(name: str, default: Target) -> Target:
    """The instructions of an older target, assembled for the GPU at hand: an older GPU's machine code would not load here."""
    return replace(BY_NAME[name], name=default.name, ptx=default.ptx) if name else default


def upload(memory: np.ndarray) -> torch.Tensor:
    """An array's bytes on the device."""
    return torch.from_numpy(np.ascontiguousarray(memory).view(np.uint8).copy()).cuda()


def run_check(case: Check, default: Target) -> str:
    """Compile, run and compare; the error's statistics. Raises AssertionError where they are not good enough."""
    d = case.dispatch
    operands = make.random_operands(d, case.sizes)
    case.prepare([o.view for o in operands])
    target = as_older(case.target, default)
    if case.row:
        target = replace(target, mma=(case.row,))
    kernel = compile_dispatch(d, target, case.schedule)
    nbytes = [make.extent(r, case.sizes)[2] * r.type.bytes for r in d.results]
    out = [torch.full((n,), 0xFF, dtype=torch.uint8, device="cuda") for n in nbytes]
    kernel.bind([upload(o.packed())[o.start * o.memory.itemsize :] for o in operands], out, case.sizes)()
    torch.cuda.synchronize()
    views = [o.view for o in operands]
    if d.results[0].type.kind == "int" and d.attr("acc", "") == "f32":
        (exact,) = run_dispatch(make.before_rounding(d), views, case.sizes, float64=True)
        got = make.result_view(out[0].cpu().numpy(), d.results[0], case.sizes)
        make.check_rounded(got, exact, sum_bits(d, target))
        return f"{np.mean(got != np.clip(np.rint(exact), -128, 127)):.1e} of the integers are another than the nearest"
    reference = run_dispatch(make.unrounded(d), views, case.sizes, float64=True)
    worst = ""
    for t, r, ref, p in zip(out, d.results, reference, make.peers(d, views, case.sizes), strict=True):
        got = make.result_view(t.cpu().numpy(), r, case.sizes)
        if r.type.kind != "float":
            assert np.array_equal(got, p), f"{np.sum(got != p)} of {got.size} values differ"
            continue
        e = make.check_against(got, ref, p, sum_bits(d, target))
        worst = f"bias {e.bias:+.1e} spread {e.spread:.1e} worst {e.worst:.1e}"
    return worst


def sum_bits(d: Dispatch, target: Target) -> int:
    """Fraction bits of the target's sums of the operands' type, where they are less than an f32's; else 0."""
    row = find_row(target, d.operands[0].dtype, engine="wgmma" if target.wgmma else "mma")
    return 0 if row is None else row.sum_bits


def random_operands(case: Speed) -> list[torch.Tensor]:
    """Random tensors for a case's operands; of those in the memory of another, flat memory from element 0 on."""
    found: list[torch.Tensor] = []
    for i, t in enumerate(case.dispatch.operands):
        if i not in case.same:
            found.append(random_tensor(t))
            continue
        start = sum(-s * (n - 1) for n, s in zip(t.shape, t.strides, strict=True) if s < 0)
        memory = found[case.same[i]]
        found.append(torch.as_strided(memory, (memory.numel() - start,), (1,), start))
    return found


def random_tensor(t: Any) -> torch.Tensor:
    """Normally distributed values with the strides of a TensorArg of constant sizes."""
    extent = 1 + sum((n - 1) * s for n, s in zip(t.shape, t.strides, strict=True))
    if t.dtype not in TORCH:  # 4-bit elements and scales that are powers of two: random bytes, as no peer reads them
        return torch.randint(100, 120, (t.type.nbytes(extent),), dtype=torch.uint8, device="cuda")
    x = torch.randn(extent, device="cuda", dtype=torch.float32)
    x = (x * 10).to(torch.int8) if t.type.kind == "int" else x.to(TORCH[t.dtype])
    return torch.as_strided(x, t.shape, t.strides)


def run_speed(case: Speed, default: Target) -> dict[str, Any]:
    """Times of ours and of the other, in milliseconds."""
    d = case.dispatch
    kernel = compile_dispatch(d, as_older(case.target, default), case.schedule)
    turns = min(20, -(-COLD_BYTES // copied_bytes(d, case.same))) if case.cold else 1
    sets = [random_operands(case) for _ in range(turns)]
    operands = sets[0]
    result = torch.empty(d.results[0].shape, dtype=TORCH[d.results[0].dtype], device="cuda")
    ours = in_turns([kernel.bind(x, [result]) for x in sets])
    if case.other is None:
        nbytes = copied_bytes(d, case.same) // 2
        pairs = [[torch.empty(nbytes, dtype=torch.uint8, device="cuda") for _ in range(2)] for _ in range(turns)]
        other: Callable[[], Any] = in_turns([lambda x=x, y=y: y.copy_(x) for x, y in pairs])
    else:
        other = case.other(operands, result)
        ours()
        expected = other()
        if isinstance(expected, torch.Tensor) and expected.is_floating_point():
            error = (result.float() - expected.float()).abs().max().item() / max(1e-30, expected.float().abs().max().item())
            if not error < 0.05:
                raise AssertionError(f"differs from the other implementation by {error:.2g} of the largest value")
    t = milliseconds({"ours": ours, "other": other})
    flops = sum(dims.evaluate(x.flops, {}) for x in kernel.plan.launches)
    return {
        "name": case.name, "ours_ms": t["ours"], "other_ms": t["other"], "ratio": t["other"] / t["ours"], "floor": case.floor,
        "tflops": flops / t["ours"] / 1e9 if flops else None,
        "tb_s": copied_bytes(d, case.same) / t["ours"] / 1e9,
        "compile_ms": 1e3 * sum(kernel.seconds.values()), "schedule": describe(kernel),
    }  # fmt: skip


def copied_bytes(d: Dispatch, same: Container[int] = ()) -> int:
    """Bytes of all operands and results, without the operands `same`, which lie in the memory of others."""
    return sum(
        int(np.prod([n for n, s in zip(t.shape, t.strides, strict=True) if s != 0])) * t.type.bits // 8
        for t in (*(x for i, x in enumerate(d.operands) if i not in same), *d.results)
    )


def describe(kernel: Kernel) -> str:
    """Grid, block and shared memory of the launches."""
    return "; ".join(
        f"{x.grid[0]}x{x.grid[1]}x{x.grid[2]} x {x.block[0]} threads, {x.shared_bytes} B" for x in kernel.plan.launches
    )


# Cases ----------------------------------------------------------------------------------------------------------------


def matmul_checks() -> list[Check]:
    cases = []
    for dtype in ("bf16", "f16"):
        for at in (False, True):
            for bt in (False, True):
                cases.append(Check(f"matmul {dtype} 256x384x192 {'T' if at else 'N'}{'T' if bt else 'N'}",
                                   make.matmul(256, 384, 192, dtype, a_transposed=at, b_transposed=bt)))  # fmt: skip
    cases += [
        Check("matmul bf16 tails 200x328x136", make.matmul(200, 328, 136)),
        Check("matmul bf16 K tail 128x256x72 NT", make.matmul(128, 256, 72, b_transposed=True)),
        Check("matmul bf16 bias gelu 300x512x256", make.matmul(300, 512, 256, bias=True)),
        Check("matmul bf16 batch 3 x 130x192x64", make.matmul(130, 192, 64, batch=(3,), b_transposed=True)),
        Check("matmul bf16 folded batch 3x70x256x128", make.matmul(70, 256, 128, batch=(3,), b_batch=False)),
        Check("matmul bf16 split 64x256x4096", make.matmul(64, 256, 4096)),
        Check("matmul bf16 f32 result", make.matmul(256, 256, 256, out="f32")),
        Check("matmul fp8 256x384x256", make.matmul(256, 384, 256, "f8E4M3FN", b_transposed=True)),
        Check("matmul bf16 any rows 77", make.matmul("m", 512, 256), {"m": 77}),
        Check(
            "matmul bf16 any m, n, k", make.matmul("m", "n", "k", multiples={"n": 8, "k": 8}), {"m": 333, "n": 264, "k": 136}
        ),
    ]
    return cases


def mma_checks() -> list[Check]:
    """The mma.sync kernel on this GPU: code of sm_80 runs on every later one, of sm_89 too."""
    mma = MmaSchedule(128, 128, 64, 64)
    cases = [
        Check(f"matmul mma {t} 256x384x192 {'T' if at else 'N'}{'T' if bt else 'N'}",
              make.matmul(256, 384, 192, t, a_transposed=at, b_transposed=bt, tf32=t == "f32"), target="sm_80", schedule=mma)
        for t in ("bf16", "f32") for at in (False, True) for bt in (False, True)
    ]  # fmt: skip
    cases += [
        Check("matmul mma f16 odd 77x99x45", make.matmul(77, 99, 45, "f16"), target="sm_80", schedule=mma),
        Check("matmul mma f16 K tail 130x256x100 NT", make.matmul(130, 256, 100, "f16", b_transposed=True), target="sm_80"),
        Check("matmul mma int8 256x384x192 NT", make.matmul(256, 384, 192, "i8", acc="i32", b_transposed=True), target="sm_80"),
        Check("matmul mma int8 200x96x64 NN", make.matmul(200, 96, 64, "i8", acc="i32"), target="sm_80"),
        Check(
            "matmul mma bf16 split", make.matmul(64, 128, 4096), target="sm_80", schedule=MmaSchedule(64, 64, 32, 32, splits=4)
        ),
        Check("matmul mma any", make.matmul("m", "n", "k", "f16"), {"m": 91, "n": 75, "k": 201}, target="sm_80"),
        Check("matmul int8 wgmma 256x384x256 NT", make.matmul(256, 384, 256, "i8", acc="i32", b_transposed=True)),
        Check("matmul f32 exact 130x140x150", make.matmul(130, 140, 150, "f32"), schedule=SimtSchedule()),
        Check("matmul f32 exact 256x384x192 NT", make.matmul(256, 384, 192, "f32", b_transposed=True, a_transposed=True)),
        Check("matmul f32 exact any", make.matmul("m", "n", "k", "f32"), {"m": 91, "n": 75, "k": 201}),
        Check("matmul f32 exact split", make.matmul(64, 64, 2048, "f32")),
        Check("matmul f64", make.matmul(65, 70, 75, "f64", acc="f64", out="f64")),
        Check("gemv bf16 1x4096x4096", make.matmul(1, 4096, 4096)),
        Check("gemv bf16 3x1000x512 NT", make.matmul(3, 1000, 512, b_transposed=True)),
        Check("gemv f16 1x4100x4100 NN", make.matmul(1, 4100, 4100, "f16")),
        Check("gemv f32 5x77x333 NN", make.matmul(5, 77, 333, "f32")),
        Check("gemv f32 5x77x333 NT", make.matmul(5, 77, 333, "f32", b_transposed=True)),
        Check("matmul f16 16x4096x4096", make.matmul(16, 4096, 4096, "f16")),
        *(Check(f"matmul cluster {s.cluster}, {'swapped ' * s.swapped}f16 {m}x328x1096 {'NT' if nt else 'NN'}",
                make.matmul(m, 328, 1096, "f16", b_transposed=nt, bias=True), schedule=s)
          for m, s in ((13, ClusterSchedule(64, 16, 8, 2, True)), (13, ClusterSchedule(128, 16, 6, 3, True)),
                       (60, ClusterSchedule(128, 64, 4, 8, True)), (5, ClusterSchedule(64, 8, 8, 1, True)),
                       (200, ClusterSchedule(128, 128, 4, 4)), (200, ClusterSchedule(128, 256, 4, 2)))
          for nt in (False, True)),
        *(Check(f"matmul stream-K {type(s).__name__} 300x424x1096", make.matmul(300, 424, 1096, "f16", bias=True), schedule=s)
          for s in (WgmmaSchedule(128, 128, 4, stream=5), WgmmaSchedule(128, 256, 4, stream=132),
                    MmaSchedule(128, 64, 64, 32, stream=7))),
        Check("matmul wgmma 192x128 400x520x328", make.matmul(400, 520, 328, "f16"), schedule=WgmmaSchedule(192, 128, 4)),
        Check("matmul wgmma 128x160 400x520x328", make.matmul(400, 520, 328, "f16"), schedule=WgmmaSchedule(128, 160, 4)),
    ]
    return cases


def row_checks() -> list[Check]:
    """Every instruction that a GPU of compute capability 9.0 runs, alone, by the oldest target that has it."""
    checks = []
    for row in MMA_ROWS:
        older = next(t for t in CUDA_TARGETS if row.name in t.mma)
        if older.sm > 90:
            continue
        d = make.matmul(100, 136, 272, row.dtype, acc=row.acc, out=row.acc, b_transposed=True, tf32=row.ptx == "tf32")
        if row.ptx == "u8":
            d = replace(d, attrs=tuple(sorted({**dict(d.attrs), "a_unsigned": True, "b_unsigned": True}.items())))
        checks.append(Check(f"matmul by {row.name} of {older.name}", d, target=older.name, row=row.name))
    return checks


def different_lengths(views: list[np.ndarray]) -> None:
    """Of the sequences of a ragged attention: all keys, the queries' own, and half of them and one."""
    queries, keys = views[0].shape[2], views[1].shape[2]
    views[3][...] = keys, queries, keys // 2 + 1


def attention_checks() -> list[Check]:
    return [
        Check("attention f16 2x4x256x256x64", make.attention(2, 4, 256, 256, 64)),
        Check("attention bf16 1x2x200x333x128 causal", make.attention(1, 2, 200, 333, 128, "bf16", causal=True)),
        Check("attention f16 gqa 1x8x64x100x64", make.attention(1, 8, 64, 100, 64, kv_heads=2)),
        Check("attention f16 mask 2x2x77x77x40", make.attention(2, 2, 77, 77, 40, mask=(2, 1, 1, 77))),
        Check(
            "attention f16 mask 2x2x64x128x80 interleaved", make.attention(2, 2, 64, 128, 80, mask=(64, 128), interleaved=True)
        ),
        Check("attention f16 depth 256", make.attention(1, 2, 100, 100, 256)),
        Check("attention f16 depth 64, 96", make.attention(1, 2, 100, 100, 64, depth_v=96)),
        Check("attention f16 decode gqa 1x32x1x1000x64", make.attention(1, 32, 1, 1000, 64, kv_heads=8)),
        Check("attention f16 decode 2x4x1x515x128", make.attention(2, 4, 1, 515, 128)),
        Check("attention mma eight warps f16 1x2x200x333x64 causal", make.attention(1, 2, 200, 333, 64, causal=True),
              schedule=MmaAttentionSchedule(8, 16, 64, blocks=2)),
        Check("attention mma eight warps bf16 1x2x200x333x160", make.attention(1, 2, 200, 333, 160, "bf16"),
              schedule=MmaAttentionSchedule(8, 16, 32)),
        Check("attention wgmma f16 1x2x200x333x64", make.attention(1, 2, 200, 333, 64), schedule=WgmmaAttentionSchedule()),
        Check(
            "attention wgmma f16 1x2x200x333x128 causal",
            make.attention(1, 2, 200, 333, 128, causal=True),
            schedule=WgmmaAttentionSchedule(),
        ),
        Check(
            "attention wgmma bf16 gqa 2x4x130x300x64",
            make.attention(2, 4, 130, 300, 64, "bf16", kv_heads=2),
            schedule=WgmmaAttentionSchedule(64),
        ),
        Check(
            "attention wgmma f16 mask interleaved 1x2x77x154x80",
            make.attention(1, 2, 77, 154, 80, mask=(77, 154), interleaved=True),
            schedule=WgmmaAttentionSchedule(),
        ),
        Check("attention wgmma f16 depth 256", make.attention(1, 2, 150, 300, 256), schedule=WgmmaAttentionSchedule(64)),
        Check("attention f32 2x3x100x130x64", make.attention(2, 3, 100, 130, 64, "f32")),
        Check("attention f32 mask causal 1x2x70x90x40", make.attention(1, 2, 70, 90, 40, "f32", causal=True, mask=(70, 90))),
        Check("attention f32 depth 128", make.attention(1, 2, 64, 300, 128, "f32")),
        Check("attention f32 decode", make.attention(1, 8, 1, 1000, 64, "f32", kv_heads=2)),
        Check("attention f16 any", make.attention("b", 4, "s", "t", 64, causal=True), {"b": 2, "s": 90, "t": 150}),
        Check("attention f16 decode any", make.attention(1, 8, 1, "t", 64, kv_heads=2), {"t": 2049}),
        *(
            Check(f"attention {dtype} ragged any {s}x{t}", make.attention("b", 8, "s", "t", 64, dtype, causal=True,
                  ragged="i64", kv_heads=2), {"b": 3, "s": s, "t": t}, prepare=different_lengths)
            for dtype in ("f16", "f32") for s, t in ((200, 1000), (1, 2049))
        ),
        Check("attention f16 ragged decode 3x32x1x2049x64", make.attention(3, 32, 1, 2049, 64, ragged="i32", kv_heads=8),
              prepare=different_lengths),
        Check("attention f32 2x4x256x256x64", make.attention(2, 4, 256, 256, 64, "f32")),
        Check("attention f32 mask 2x2x77x77x40", make.attention(2, 2, 77, 77, 40, "f32", mask=(2, 1, 1, 77))),
        Check(
            "attention f32 causal 1x2x200x333x80 interleaved",
            make.attention(1, 2, 200, 333, 80, "f32", causal=True, interleaved=True),
        ),
        Check("attention f32 depth 512", make.attention(1, 1, 300, 300, 512, "f32")),
        Check("attention f32 decode gqa 1x32x1x1000x64", make.attention(1, 32, 1, 1000, 64, "f32", kv_heads=8)),
        Check("attention f32 any", make.attention("b", 4, "s", "t", 64, "f32", causal=True), {"b": 2, "s": 90, "t": 150}),
    ]


def other_checks() -> list[Check]:
    return [
        Check("pointwise add gelu", make.pointwise_add_gelu(37, 1000)),
        Check("pointwise add relu broadcast", make.pointwise_add_relu(33, 7, 40, other=(7, 1))),
        Check("pointwise odd f32", make.pointwise_add_relu(33, 77, dtype="f32", other=(77,))),
        Check("pointwise any", make.pointwise_add_relu("n", 77, dtype="f16"), {"n": 1001}),
        *(Check(f"pointwise {name} {source} to {result}", make.pointwise_cast(name, source, result, 37, 1001))
          for name, source, result in (
              ("sitofp", "i4", "f32"), ("uitofp", "i4", "f32"), ("extf", "f4E2M1FN", "f32"), ("extf", "f8E8M0FNU", "f32"),
              ("truncf", "f32", "f4E2M1FN"), ("truncf", "f32", "f8E4M3FN"), ("fptosi", "f32", "i4"))),
        Check("pointwise requantize f4E2M1FN", make.pointwise_requantize(37, 1000)),
        *(Check(f"rotary of {'pairs' if i else 'halves'} 2x75x{c} {t}{' after rms' if n else ''}",
                make.rotary(2, 75, c, interleaved=i, norm=n, dtype=t))
          for i in (False, True) for n in (False, True) for t in ("f16", "bf16", "f32") for c in (64, 2048)),
        *(Check(f"rotary of {'pairs' if i else 'halves'} 2x75x{c} {t} after rms, one angle a pair",
                make.rotary(2, 75, c, interleaved=i, norm=True, dtype=t, shared=True))
          for i in (False, True) for t in ("f16", "f32") for c in (64, 2048)),
        Check("rotary of pairs after rms, any rows",
              make.rotary("n", "s", 2048, interleaved=True, norm=True, angles="f32"), {"n": 2, "s": 75}),
        *(Check(f"normalize {k} 300x{c} {t}", make.normalize(k, 300, c, dtype=t, affine=k in ("layer", "rms")))
          for k in ("softmax", "log_softmax", "layer", "rms")
          for c, t in ((768, "bf16"), (4096, "f16"), (77, "f32"), (40000, "f32"))),
        Check("move transpose 2x300x77", make.move((2, 300, 77), (0, 2, 1))),
        Check("move heads 2x128x12x64", make.move((2, 128, 12, 64), (0, 2, 1, 3))),
        Check("move NCHW to NHWC 2x40x24x24 f32", make.move((2, 40, 24, 24), (0, 2, 3, 1), "f32")),
        Check("move transpose any", make.move(("a", "b"), (1, 0), "f32"), {"a": 130, "b": 203}),
        Check("move append 8x1x64 at 37", make.append(8, 1, 64, 512), {"offset": 37 * 128}),
        Check("reduce sum 300x777 f32", make.reduce("sum", (300, 777), (1,))),
        Check("reduce max 64x4096 f16", make.reduce("max", (64, 4096), (1,), "f16")),
        Check("reduce sum 4x100000 f32", make.reduce("sum", (4, 100000), (1,))),
        Check("reduce sum channels last 2x49x512 f16", make.reduce("sum", (2, 49, 512), (1,), "f16")),
        Check("reduce min across 5000x33 i32", make.reduce("min", (5000, 33), (0,), "i32")),
        Check("reduce all 123x45x6 f32", make.reduce("sum", (123, 45, 6), (0, 1, 2))),
        Check("reduce any", make.reduce("sum", ("a", "b", 64), (1,)), {"a": 3, "b": 1000}),
        Check("scatter sum 50x256 f16", make.scatter("sum", (50, 256), (3000, 256), 0, "f16")),
        Check("scan sum 3x100000 f32", make.scan("sum", (3, 100000), 1)),
        Check("scan sum across 8x500x300 i64", make.scan("sum", (8, 500, 300), 1, "i64", exclusive=True)),
        Check("topk 300 of 2x24000 f32", make.topk((2, 24000), 1, 300)),
        Check("topk of short rows bf16", make.topk((1000, 64), 1, 8, "bf16")),
        Check("topk any", make.topk(("n", "m"), 1, "k"), {"n": 3, "m": 9000, "k": 9000}),
        Check("pool max 2x56x56x64", make.pool("max", (2, 56, 56, 64), (2, 28, 28, 64), (3, 3), (2, 2), (1, 1, 1, 1))),
        Check("pool average 2x15x15x30 f32", make.pool("average", (2, 15, 15, 30), (2, 8, 8, 30), (3, 3), (2, 2), (1,) * 4,
                                                       "f32")),
        Check("pool average with padding", make.pool("average", (1, 9, 9, 16), (1, 5, 5, 16), (3, 3), (2, 2), (1,) * 4, "f32",
                                                     include_pad=True)),
        Check("normalize layer any", make.normalize("layer", "r", "c", dtype="f32"), {"r": 9, "c": 3001}),
        Check("normalize softmax any", make.normalize("softmax", "r", "c", dtype="f32"), {"r": 9, "c": 3001}),
        Check("normalize group", make.normalize("layer", 2, 24, 24, 32, 10, axes=(1, 2, 4))),
        Check("normalize group of eight blocks", make.normalize("layer", 2, 9216, 32, 10, axes=(1, 3), dtype="f16")),
        Check("normalize group of eight blocks, in shared memory",
              make.normalize("layer", 2, 9216, 32, 10, axes=(1, 3), dtype="f16"), schedule=GroupCluster(4, 8, 8, 96)),
        Check("normalize group of eight blocks, silu", make.group_norm_silu(2, 2304, 32, 10),
              schedule=GroupCluster(8, 8, 8, 48)),
        Check("normalize group of one block", make.normalize("rms", 2, 144, 32, 40, axes=(1, 3), dtype="f16")),
        Check("normalize group in two launches", make.normalize("layer", 2, 24, 24, 32, 10, axes=(1, 2, 4)),
              schedule=GroupSchedule(8, 12, 48)),
    ]  # fmt: skip


def all_checks() -> list[Check]:
    return [
        *matmul_checks(), *mma_checks(), *row_checks(), *fp8_checks(), *quantized_checks(), *eight_bit_checks(),
        *attention_checks(), *decoding_checks(), *conv_checks(), *other_checks(),
    ]  # fmt: skip


def eight_bit_checks() -> list[Check]:
    """Products and convolutions of 8-bit integers and floats whose epilogue rescales, as quantized models have them."""
    same = (1, 1, 1, 1)
    cases = []
    for dtype, acc in (("i8", "i32"), ("f8E4M3FN", "f32")):
        types: dict[str, Any] = {"dtype": dtype, "acc": acc, "out": "f32"}
        windows = {
            "3x3": make.conv(2, (28, 28), 64, 96, (3, 3), pads=same, **types),
            "stem": make.conv(2, (65, 65), 3, 64, (7, 7), strides=(2, 2), pads=(3,) * 4, **types),
            "1x1": make.conv(2, (28, 28), 64, 256, (1, 1), **types),
            "depthwise": make.conv(2, (28, 28), 96, 96, (3, 3), pads=same, groups=96, **types),
            "groups": make.conv(2, (14, 14), 64, 128, (3, 3), pads=same, groups=2, **types),
        }
        for out in ("i8", "f16"):
            cases += [Check(f"conv {dtype} {n} to {out}", make.quantized_in_epilogue(d, out)) for n, d in windows.items()]
            for nt in (True, False):
                d = make.matmul(200, 384, 512, dtype, acc=acc, out="f32", b_transposed=nt)
                name = f"matmul {dtype} 200x384x512 {'NT' if nt else 'NN'} to {out}"
                cases.append(Check(name, make.quantized_in_epilogue(d, out)))
    return cases


def torch_matmul(operands: list[torch.Tensor], result: torch.Tensor) -> Callable[[], Any]:
    a, b = operands[:2]
    return lambda: torch.matmul(a, b)


def torch_attention(causal: bool = False, gqa: bool = False) -> Callable[[list[torch.Tensor], torch.Tensor], Callable[[], Any]]:
    """The fastest of PyTorch's attention backends for the operands."""

    def build(operands: list[torch.Tensor], result: torch.Tensor) -> Callable[[], Any]:
        from torch.nn.attention import SDPBackend, sdpa_kernel

        q, k, v = operands[:3]
        best: tuple[float, Callable[[], Any]] | None = None
        for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION):

            def call(backend: Any = backend) -> Any:
                with sdpa_kernel(backend):
                    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=gqa)

            try:
                t = milliseconds({"x": call}, 5, 3)["x"]
            except RuntimeError:
                continue
            if best is None or t < best[0]:
                best = t, call
        assert best is not None
        return best[1]

    return build


def short_attention_speed(b: int, h: int, n: int, keys: int, schedule: Any = None) -> Speed:
    """Attention over few keys, of heads of 64: a text that an image looks at."""
    how = f", {schedule.keys} at once, {schedule.groups} groups, {schedule.blocks} blocks" if schedule else ""
    d = make.attention(b, h, n, keys, 64)
    return Speed(f"attention f16 {b}x{h}x{n}x64 over {keys} keys{how}", d, 0.0, torch_attention(), schedule=schedule)


def group_speed(
    n: int, positions: int, groups: int, per_group: int, dtype: str = "f16", schedule: Any = None, silu: bool = False
) -> Speed:
    """A group normalization of channels-last images, followed by a scale, a shift and SiLU or not, against a copy."""
    if silu:
        d = make.group_norm_silu(n, positions, groups, per_group, dtype)
    else:
        d = make.normalize("layer", n, positions, groups, per_group, axes=(1, 3), dtype=dtype)
    name = f"group norm{' silu' if silu else ''} {n}x{positions}x{groups}x{per_group} {dtype}"
    return Speed(name, d, 0.0, schedule=schedule)


def speeds() -> list[Speed]:
    return [
        Speed("matmul bf16 4096^3", make.matmul(4096, 4096, 4096), 0.95, torch_matmul),
        Speed("matmul bf16 4096^3, B K-major", make.matmul(4096, 4096, 4096, b_transposed=True), 0.95, torch_matmul),
        Speed("matmul bf16 8192^3", make.matmul(8192, 8192, 8192), 0.0, torch_matmul),
        Speed("matmul bf16 4096^3 by mma.sync of sm_80", make.matmul(4096, 4096, 4096), 0.55, torch_matmul, target="sm_80",
              schedule=MmaSchedule(128, 256, 64, 64)),
        Speed("matmul bf16 4096^3 by mma.sync, B K-major", make.matmul(4096, 4096, 4096, b_transposed=True), 0.55, torch_matmul,
              target="sm_80", schedule=MmaSchedule(128, 256, 64, 64)),
        Speed("matmul bf16 4096^3 by mma.sync 128x128", make.matmul(4096, 4096, 4096), 0.0, torch_matmul, target="sm_80",
              schedule=MmaSchedule(128, 128, 64, 64)),
        Speed("matmul bf16 4096^3 by mma.sync 128x128, eight warps", make.matmul(4096, 4096, 4096), 0.0, torch_matmul,
              target="sm_80", schedule=MmaSchedule(128, 128, 64, 32)),
        Speed("matmul f32 4096^3", make.matmul(4096, 4096, 4096, "f32"), 0.0, torch_matmul),
        Speed("matmul f32 1024x768x768", make.matmul(1024, 768, 768, "f32"), 0.0, torch_matmul),
        Speed("matmul f16 1x4096x4096", make.matmul(1, 4096, 4096, "f16"), 0.0, torch_matmul),
        Speed("matmul f16 1x4096x4096 NT", make.matmul(1, 4096, 4096, "f16", b_transposed=True), 0.0, torch_matmul),
        Speed("matmul f16 16x4096x4096", make.matmul(16, 4096, 4096, "f16"), 0.0, torch_matmul),
        *quantized_speeds(),
        *eight_bit_speeds(),
        *fp8_speeds(),
        *decoding_speeds(torch_matmul, torch_attention),
        *(Speed(f"matmul f16 {m}x{n}x{k}", make.matmul(m, n, k, "f16"), 0.0, torch_matmul)
          for m, n, k in ((512, 2048, 2048), (512, 8192, 2048), (128, 768, 768), (3072, 768, 768), (4608, 12288, 3072),
                          (256, 4096, 4096), (32, 4096, 4096), (64, 4096, 11008), (4608, 640, 640), (616, 3072, 768),
                          (1536, 1536, 8192))),
        Speed("matmul bf16 1536x1280x1280", make.matmul(1536, 1280, 1280), 0.0, torch_matmul),
        Speed("matmul f16 16x4096x4096 NT", make.matmul(16, 4096, 4096, "f16", b_transposed=True), 0.0, torch_matmul),
        Speed("matmul f16 16x4096x4096 by mma.sync of sm_80", make.matmul(16, 4096, 4096, "f16"), 0.0, torch_matmul,
              target="sm_80"),
        Speed("attention f16 1x16x4096x128", make.attention(1, 16, 4096, 4096, 128), 0.5, torch_attention()),
        Speed("attention f16 1x16x4096x128, 64 keys", make.attention(1, 16, 4096, 4096, 128), 0.0, torch_attention(),
              schedule=WgmmaAttentionSchedule(64)),
        Speed("attention f16 1x16x4096x128 by mma.sync", make.attention(1, 16, 4096, 4096, 128), 0.0, torch_attention(),
              schedule=MmaAttentionSchedule(4, 32, 64)),
        Speed("attention f16 1x16x4096x128 by mma.sync, eight warps", make.attention(1, 16, 4096, 4096, 128), 0.0,
              torch_attention(), schedule=MmaAttentionSchedule(8, 16, 64)),
        Speed("attention f16 2x10x9216x64 by mma.sync, eight warps", make.attention(2, 10, 9216, 9216, 64), 0.0,
              torch_attention(), schedule=MmaAttentionSchedule(8, 16, 64, blocks=2)),
        Speed("attention f16 1x16x4096x128 causal", make.attention(1, 16, 4096, 4096, 128, causal=True), 0.0,
              torch_attention(True)),
        Speed("attention f32 8x12x384x64", make.attention(8, 12, 384, 384, 64, "f32"), 0.0, torch_attention()),
        Speed("attention bf16 8x12x384x64", make.attention(8, 12, 384, 384, 64, "bf16"), 0.0, torch_attention()),
        Speed("attention f16 2x10x9216x64", make.attention(2, 10, 9216, 9216, 64), 0.0, torch_attention()),
        Speed("attention f16 1x32x6144x64", make.attention(1, 32, 6144, 6144, 64), 0.0, torch_attention()),
        *(short_attention_speed(b, h, n, keys, s)
          for b, h, n, keys in ((1, 32, 6144, 128), (2, 10, 9216, 77))
          for s in (None, WgmmaAttentionSchedule(64, 2, 2), WgmmaAttentionSchedule(64, 1, 4),
                    *(WgmmaAttentionSchedule(-(-keys // 16) * 16, groups, blocks) for groups, blocks in ((2, 2), (3, 1))))),
        Speed("attention f16 decode 1x32x1x2048x64, 8 key heads", make.attention(1, 32, 1, 2048, 64, kv_heads=8), 0.0,
              torch_attention(gqa=True)),
        Speed("attention f32 1x16x4096x64", make.attention(1, 16, 4096, 4096, 64, "f32"), 0.0, torch_attention()),
        Speed("attention f32 8x12x197x64", make.attention(8, 12, 197, 197, 64, "f32"), 0.0, torch_attention()),
        Speed("attention f32 decode 1x12x1x2048x64", make.attention(1, 12, 1, 2048, 64, "f32"), 0.0, torch_attention()),
        Speed("pointwise add gelu 16384x4096 bf16", make.pointwise_add_gelu(16384, 4096), 0.85),
        Speed("pointwise add relu 16384x4096 bf16", make.pointwise_add_relu(16384, 4096), 0.85),
        Speed("layer norm 16384x4096 bf16", make.normalize("layer", 16384, 4096, affine=True), 0.85),
        Speed("layer norm 16384x4096 f16", make.normalize("layer", 16384, 4096, dtype="f16", affine=True), 0.85),
        Speed("layer norm 65536x768 bf16", make.normalize("layer", 65536, 768, affine=True), 0.85),
        Speed("rms norm 16384x4096 bf16", make.normalize("rms", 16384, 4096), 0.85),
        *(Speed(f"{'rms norm and ' if n else ''}rotary of {'pairs' if i else 'halves'} 6144x2048 f16",
                make.rotary(1, 6144, 2048, interleaved=i, norm=n), 0.85, same={1: 0, 5: 4} if n else {1: 0})
          for i in (False, True) for n in (False, True)),
        *(Speed(f"{'rms norm and ' if n else ''}rotary of pairs 6144x2048 f16, one angle a pair",
                make.rotary(1, 6144, 2048, interleaved=True, norm=n, shared=True), 0.85, same={1: 0, 5: 4} if n else {1: 0})
          for n in (False, True)),
        Speed("softmax 16384x4096 bf16", make.normalize("softmax", 16384, 4096), 0.0),
        Speed("softmax 98304x384 f16", make.normalize("softmax", 98304, 384, dtype="f16"), 0.0),
        Speed("transpose 16384x4096 f16", make.move((16384, 4096), (1, 0)), 0.0),
        Speed("NCHW to NHWC 32x256x56x56 f16", make.move((32, 256, 56, 56), (0, 2, 3, 1)), 0.0),
        Speed("reduce sum 16384x4096 bf16", make.reduce("sum", (16384, 4096), (1,), "bf16"), 0.0),
        Speed("reduce sum across 16384x4096 bf16", make.reduce("sum", (16384, 4096), (0,), "bf16"), 0.0),
        Speed("global average 32x3136x256 f16", make.reduce("sum", (32, 3136, 256), (1,), "f16"), 0.0),
        Speed("scan sum 4096x4096 f32", make.scan("sum", (4096, 4096), 1)),
        Speed("topk 50 of 1x128256 f32", make.topk((1, 128256), 1, 50)),
        Speed("topk 8 of 16384x64 f32", make.topk((16384, 64), 1, 8)),
        Speed("pool max 32x112x112x64 f16", make.pool("max", (32, 112, 112, 64), (32, 56, 56, 64), (3, 3), (2, 2), (1,) * 4)),
        group_speed(16, 9216, 32, 10, "bf16"),
        *(group_speed(2, *x, silu=silu) for silu in (False, True)
          for x in ((9216, 32, 10), (9216, 32, 20), (9216, 32, 30), (2304, 32, 20), (576, 32, 40), (144, 32, 80))),
    ]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="correctness only")
    parser.add_argument("--speed", action="store_true", help="speed only")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--json", default="", help="write the rows there")
    parser.add_argument("--tune", default="", help="shapes, or `all`: time schedules and nothing else (cuda_tune.py)")
    parser.add_argument("--without", default="", help="with --tune: no schedules whose kind begins so")
    options = parser.parse_args()
    torch.zeros(1, device="cuda")  # makes the GPU's primary context current, in which modules are loaded
    target = target_for(torch.cuda.get_device_capability())
    print(f"{torch.cuda.get_device_name()}: {target.name}, PyTorch {torch.__version__}")
    if options.tune:
        from cuda_tune import tune

        tune(options.tune, target, options.without)
        return 0
    failed, rows = 0, []
    for check in [] if options.speed else all_checks():
        if options.only in check.name:
            begin = time.perf_counter()
            try:
                print(f"ok    {check.name}: {run_check(check, target)} ({time.perf_counter() - begin:.2f} s)", flush=True)
            except Exception as error:  # one line a case; the rest still runs
                failed += 1
                print(f"FAIL  {check.name}: {type(error).__name__}: {str(error)[:600]}", flush=True)
                if "CUDA_ERROR" in str(error) or "CUDA error" in str(error):
                    traceback.print_exc()
                    return 2
    for speed in [] if options.check else [*speeds(), *conv_speeds()]:
        if options.only in speed.name:
            try:
                row = run_speed(speed, target)
            except Exception as error:
                failed += 1
                print(f"FAIL  {speed.name}: {type(error).__name__}: {str(error)[:600]}", flush=True)
                continue
            rows.append(row)
            rate = f"{row['tflops']:7.1f} TFLOP/s" if row["tflops"] else f"{row['tb_s']:7.2f} TB/s   "
            verdict = "" if row["ratio"] >= row["floor"] else f"  BELOW {row['floor']}"
            print(f"{row['name']:44s} {row['ours_ms']:9.4f} ms  other {row['other_ms']:9.4f}  ratio {row['ratio']:5.3f}  {rate}"
                  f"  compile {row['compile_ms']:4.0f} ms  [{row['schedule']}]{verdict}", flush=True)  # fmt: skip
            failed += bool(verdict)
            torch.cuda.empty_cache()
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1))
    print(f"{failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
