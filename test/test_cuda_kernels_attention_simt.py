"""Exact float32 attention for NVIDIA GPUs without one: numerics and races on the emulator, instructions in PTX, every target's
assembler."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import cuda_dispatches as make
import numpy as np
import pytest
from cuda_emulation import run_emulated

from ingot.compiler.codegen.cuda_attention_problem import attention_problem
from ingot.compiler.codegen.cuda_attention_simt import SimtAttentionSchedule, choose_simt_attention
from ingot.compiler.codegen.family import emit
from ingot.compiler.reference import run_dispatch
from ingot.compiler.toolchain.cubin_resources import resources
from ingot.compiler.toolchain.stages import compile_kernels
from ingot.cuda_targets import BY_NAME, CUDA_TARGETS
from ingot.dialects.mlir import kernel_context
from ingot.dispatch import Dispatch, TensorArg, contiguous


def check(
    d: Dispatch, sizes: Mapping[str, int] | None = None, target: str = "sm_90a", schedule: Any = None,
    prepare: Callable[[list[np.ndarray]], None] | None = None,
) -> int:
    """Run on the emulator and compare with the float64 reference; the number of launches."""
    found = run_emulated(d, target, sizes, schedule, prepare=prepare)
    (exact,) = run_dispatch(make.unrounded(d), found.operands, sizes, float64=True)
    (peer,) = run_dispatch(d, found.operands, sizes)
    e = make.check_against(found.results[0], exact, peer)
    if d.results[0].dtype == "f32":
        assert e.spread < 2e-6, e  # tf32, or probabilities of 16 bits, would be a hundred times this
    return len(found.plan.launches)


@pytest.mark.parametrize("target", ["sm_75", "sm_90a"])
@pytest.mark.parametrize(
    "d",
    [
        make.attention(1, 2, 64, 64, 64, "f32"),
        make.attention(2, 2, 50, 77, 40, "f32", mask=(2, 1, 1, 77)),
        make.attention(1, 2, 50, 77, 80, "f32", causal=True, interleaved=True),
        make.attention(1, 2, 77, 50, 16, "f32", causal=True, depth_v=24),
        make.attention(1, 4, 33, 65, 32, "f32", kv_heads=2, mask=(33, 65)),
        make.attention(1, 1, 9, 20, 27, "f32", depth_v=33),
        make.attention(1, 1, 5, 130, 256, "f32"),
    ],
    ids=["exact", "mask", "causal interleaved", "more queries than keys", "groups", "odd depths", "deep"],
)
def test_attention(d: Dispatch, target: str) -> None:
    check(d, target=target)


@pytest.mark.parametrize(("dtype", "target"), [("f16", "sm_90a"), ("bf16", "sm_75"), ("f8E4M3FN", "sm_89"), ("i8", "sm_80")])
def test_other_types_are_converted(dtype: str, target: str) -> None:
    """Keys and values of another type than the queries'; queries too where the target has no instruction of the type."""
    d = make.attention(1, 2, 20, 33, 24, "f32", kv_heads=1)
    q, k, v = d.operands
    check(replace(d, operands=(q, replace(k, dtype=dtype), replace(v, dtype=dtype))), target=target)


def test_16_bit_attention_without_an_instruction() -> None:
    check(make.attention(1, 2, 20, 33, 24, "bf16"), target="sm_75")


@pytest.mark.parametrize("target", ["sm_75", "sm_90a"])
def test_decoding(target: str) -> None:
    """A query a head: keys are split over blocks, of a cluster where there are any; groups of query heads are rows."""
    launches = 1 if BY_NAME[target].max_cluster > 1 else 2
    assert check(make.attention(1, 4, 1, 300, 64, "f32"), target=target) == launches
    assert check(make.attention(1, 8, 1, 515, 32, "f32", kv_heads=2, mask=(1, 8, 1, 515)), target=target) == launches


@pytest.mark.parametrize("sizes", [{"b": 2, "s": 33, "t": 70}, {"b": 1, "s": 1, "t": 1}, {"b": 1, "s": 64, "t": 128}])
def test_any_size(sizes: Mapping[str, int]) -> None:
    check(make.attention("b", 2, "s", "t", 36, "f32", causal=True), sizes)


@pytest.mark.parametrize("length", [1, 40, 1100])
def test_decoding_of_any_length(length: int) -> None:
    check(make.attention(1, 4, 1, "t", 32, "f32", kv_heads=2), {"t": length})


@pytest.mark.parametrize("cluster", [2, 3, 8])
def test_blocks_of_a_cluster_share_keys(cluster: int) -> None:
    """Depths that are not whole chunks, keys that some blocks have none of, rows past a block's."""
    s = SimtAttentionSchedule(64, 16, 2, 32, 2, cluster=cluster)
    assert check(make.attention(2, 2, 19, 100, 36, "f32", causal=True, depth_v=21), target="sm_90a", schedule=s) == 1
    assert check(make.attention(1, 8, 1, 70, 64, "f32", kv_heads=2), target="sm_120a", schedule=replace(s, stages=1)) == 1
    with pytest.raises(ValueError, match="in one launch or in a second one"):
        replace(s, splits=2)


def test_boolean_mask_and_any_strides() -> None:
    """Scores selected by a mask of bools; keys and values contiguous along positions; queries broadcast over the batch."""
    q = TensorArg("f32", (2, 2, 40, 20), (0, 800, 20, 1), 64)
    k = TensorArg("f32", (2, 2, 50, 20), (2000, 1000, 1, 50), 64)
    v = TensorArg("f32", (2, 2, 50, 12), (1300, 650, 1, 51), 4)
    scores = make.Region("f32")
    kept = scores.add("load", type="i1", operand=3)
    region = scores.end(scores.add("select", kept, 0, scores.add("const", value=-1e30)))
    d = make.make("attention", [q, k, v, contiguous("i1", 2, 1, 40, 50)], [contiguous("f32", 2, 2, 40, 12)],
                  [region, make.narrow("f32")], {"scale": 0.25})  # fmt: skip
    check(d)
    check(d, target="sm_75")


def test_rows_without_a_key_are_nan() -> None:
    """Softmax over minus infinities alone, as the reference has it."""

    def close(views: list[np.ndarray]) -> None:
        views[3][3, :] = -np.inf
        views[3][7, 5:] = -np.inf

    check(make.attention(1, 2, 20, 40, 16, "f32", mask=(20, 40)), prepare=close)


def test_large_scores_do_not_overflow() -> None:
    def enlarge(views: list[np.ndarray]) -> None:
        views[0] *= 40.0

    d = make.attention(1, 2, 20, 200, 32, "f32")
    found = run_emulated(d, "sm_90a", prepare=enlarge)
    (exact,) = run_dispatch(d, found.operands, float64=True)
    (peer,) = run_dispatch(d, found.operands)
    make.check_against(found.results[0], exact, peer)


@pytest.mark.parametrize("schedule", [
    SimtAttentionSchedule(), SimtAttentionSchedule(stages=1), SimtAttentionSchedule(128, 8, 4, 32),
    SimtAttentionSchedule(32, 8, 1, 8, 1), SimtAttentionSchedule(64, 16, 2, 32, 2, splits=3),
    SimtAttentionSchedule(turn=2), SimtAttentionSchedule(128, 8, 4, 32, turn=4, plain_loop=False),
])  # fmt: skip
def test_schedules(schedule: SimtAttentionSchedule) -> None:
    check(make.attention(1, 2, 40, 100, 36, "f32", causal=True), schedule=schedule)
    check(make.attention(1, 2, 64, 128, 64, "f32"), target="sm_86", schedule=schedule)


def test_kernels_for_any_number_of_rows_have_short_loops() -> None:
    """A session waits for those: they have an eighth of the multiply-adds in their code, and no local memory. Kernels of a
    shape write their loops out."""
    count = {}
    for rows in ("s", 4096):
        d = make.attention(1, 16, rows, "t", 64, "f32", causal=True)
        with kernel_context():
            emitted = emit(d, BY_NAME["sm_90a"])
            ptx = compile_kernels(emitted.module, "sm_90a", stop="ptx")
        count[rows] = ptx.count("fma.rn.f32") + 2 * ptx.count("fma.rn.f32x2")
        assert all(r.local_bytes == 0 for r in resources(compile_kernels(ptx, "sm_90a", start="ptx")).values())
    assert 8 * count["s"] < 1.2 * count[4096], count


def test_schedule_of_typical_shapes() -> None:
    """Large heads take the largest tiles, decoding splits its keys, and what does not fit is refused by name."""
    h200 = BY_NAME["sm_90a"]
    many = attention_problem(make.attention(1, 16, 4096, 4096, 64, "f32"))
    assert choose_simt_attention(many, h200).rows == 64
    one = attention_problem(make.attention(1, 12, 1, 2048, 64, "f32"))
    assert choose_simt_attention(one, h200).splits == 16
    with pytest.raises(NotImplementedError, match="attention of f64"):
        choose_simt_attention(attention_problem(make.attention(1, 1, 8, 8, 8, "f64")), h200)
    with pytest.raises(NotImplementedError, match="depth 4096"):
        choose_simt_attention(attention_problem(make.attention(1, 1, 8, 8, 4096, "f32")), h200)


@pytest.mark.parametrize("target", [t.name for t in CUDA_TARGETS])
def test_machine_code(target: str) -> None:
    """Every target assembles it; inner loops are fused multiply-adds of f32 over 16-byte reads, with no matrix instruction."""
    with kernel_context():
        text = compile_kernels(emit(make.attention(1, 8, 1024, 1024, 64, "f32"), BY_NAME[target]).module, target, stop="ptx")
    fused, reads = len(re.findall(r"fma\.rn\.f32", text)), len(re.findall(r"ld\.shared\.v4", text))
    assert fused > 8 * reads > 0, (fused, reads)
    assert not re.search(r"mma|tf32", text)
    with kernel_context():
        assert compile_kernels(emit(make.attention(1, 1, 64, 64, 512, "f32"), BY_NAME[target]).module, target)[:4] == b"\x7fELF"
