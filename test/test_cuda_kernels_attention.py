"""Attention by tensor cores without a GPU: numerics and races on the emulator, instructions in the code, every target
assembled."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import cuda_dispatches as make
import ml_dtypes
import numpy as np
import pytest
from cuda_emulation import check, run_emulated
from target_limits import check_limits

from ingot.compiler.codegen.cuda_attention import EIGHT_WARPS, MMA_SCHEDULES, WGMMA_SCHEDULES, choose
from ingot.compiler.codegen.cuda_attention_mma import MmaAttentionSchedule
from ingot.compiler.codegen.cuda_attention_problem import attention_problem
from ingot.compiler.codegen.cuda_attention_wgmma import WgmmaAttentionSchedule
from ingot.compiler.codegen.family import emit
from ingot.compiler.reference import run_dispatch
from ingot.compiler.toolchain.cubin_resources import resources
from ingot.compiler.toolchain.stages import compile_kernels
from ingot.cuda_targets import BY_NAME, CUDA_TARGETS
from ingot.dialects.mlir import kernel_context
from ingot.dispatch import Dispatch, ScalarRegion, contiguous

MMA, WGMMA = MmaAttentionSchedule(2, 16, 32), WgmmaAttentionSchedule(32)


CASES = {
    "exact": make.attention(1, 2, 64, 64, 64),
    "tails": make.attention(1, 2, 50, 77, 64),
    "causal": make.attention(1, 1, 70, 90, 64, causal=True),
    "causal square": make.attention(1, 1, 40, 40, 64, "bf16", causal=True),
    "mask": make.attention(2, 2, 40, 50, 64, mask=(2, 1, 1, 50)),
    "mask of odd keys": make.attention(1, 2, 33, 75, 64, "bf16", mask=(1, 2, 33, 75)),
    "boolean mask": make.attention(2, 2, 33, 64, 64, mask=(2, 1, 33, 64), boolean=True),
    "boolean mask of odd keys": make.attention(1, 2, 33, 51, 64, "bf16", mask=(51,), boolean=True),
    "causal and mask": make.attention(1, 2, 33, 70, 64, causal=True, mask=(33, 70)),
    "groups": make.attention(1, 4, 33, 48, 32, kv_heads=2),
    "one key head": make.attention(2, 3, 33, 48, 64, kv_heads=1, causal=True),
    "interleaved": make.attention(1, 2, 33, 48, 80, interleaved=True, mask=(33, 48)),
    "depths": make.attention(1, 1, 20, 40, 64, depth_v=96),
    "deep": make.attention(1, 1, 20, 40, 256),
}


@pytest.mark.parametrize("name", CASES)
def test_mma(name: str) -> None:
    check(CASES[name], "sm_80", MmaAttentionSchedule(1, 16, 16) if name == "deep" else MMA)


@pytest.mark.parametrize("depth", [8, 32, 40, 64, 72, 80, 96, 128, 160, 192, 256])
def test_depths(depth: int) -> None:
    """What is chosen on each generation; odd multiples of eight are padded in shared memory."""
    d = make.attention(1, 2, 20, 40, depth, causal=True)
    for target in ("sm_75", "sm_80", "sm_120a"):
        assert any(name.startswith("mma") for name in check(d, target).executed)
    check(d, "sm_90a", WgmmaAttentionSchedule(16))


@pytest.mark.parametrize("schedule", [*MMA_SCHEDULES, *EIGHT_WARPS], ids=str)
def test_mma_schedules(schedule: MmaAttentionSchedule) -> None:
    check(make.attention(1, 1, schedule.rows + 1, 2 * schedule.keys + 3, 64, causal=True), "sm_80", schedule)


@pytest.mark.parametrize("schedule", [*WGMMA_SCHEDULES, WgmmaAttentionSchedule(16)], ids=str)
def test_wgmma_schedules(schedule: WgmmaAttentionSchedule) -> None:
    """Three tiles of keys: rings of two stages are filled again."""
    check(make.attention(1, 1, 130, 2 * schedule.keys + 8, 64), "sm_90a", schedule)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("ragged", ["", "i32"], ids=["all", "lengths"])
def test_one_tile_holds_all_keys(groups: int, ragged: str) -> None:
    d = make.attention(2, 2, 70, 29, 64, ragged=ragged)
    check(d, "sm_90a", WgmmaAttentionSchedule(32, groups, 2), prepare=filled([29, 29]) if ragged else None)


KERNELS = {
    "mma": ("sm_80", "bf16", MMA), "registers": ("sm_75", "f16", MMA), "wgmma": ("sm_90a", "bf16", WGMMA),
    "splits": ("sm_80", "bf16", MmaAttentionSchedule(1, 16, 16, splits=4)), "float32": ("sm_80", "f32", None),
}  # fmt: skip
every_kernel = pytest.mark.parametrize(("target", "dtype", "schedule"), KERNELS.values(), ids=KERNELS)


@every_kernel
@pytest.mark.parametrize("hidden", ["right", "left", "a query"])
def test_masks_of_the_lowest_number(target: str, dtype: str, schedule: Any, hidden: str) -> None:
    """Padding as exporters write it: the lowest finite number hides keys, and counts alike where a row has no other."""

    def hide(views: list[np.ndarray]) -> None:
        views[3][...] = 0
        where: Any = {"right": np.s_[:, 40:], "left": np.s_[:, :40], "a query": np.s_[5, :]}[hidden]
        views[3][where] = ml_dtypes.finfo(views[3].dtype).min

    check(make.attention(1, 2, 33, 80, 64, dtype, mask=(33, 80)), target, schedule, prepare=hide)


@every_kernel
def test_scores_of_negative_products(target: str, dtype: str, schedule: Any) -> None:
    """A negative scale: the largest score is the smallest product."""
    d = make.attention(1, 2, 33, 80, 64, dtype)
    check(replace(d, attrs=tuple(sorted({**dict(d.attrs), "scale": -0.3}.items()))), target, schedule)


@every_kernel
@pytest.mark.parametrize(
    "d",
    [
        make.attention(1, 2, 20, 100, 48),
        make.attention(2, 4, 33, 77, 64, kv_heads=2),
        make.attention(2, 2, 20, 64, 80, interleaved=True),
        make.attention(1, 8, 1, 100, 64, kv_heads=2),
    ],
    ids=["tails", "groups", "interleaved", "decoding"],
)
@pytest.mark.parametrize("seed", range(2))
def test_blocks_of_ones(d: Dispatch, target: str, dtype: str, schedule: Any, seed: int) -> None:
    """Queries meet 16 keys of each head and no other, so that results are sixteenths: compared exactly (in f32 but for the
    approximate reciprocal of their sum)."""
    if isinstance(schedule, WgmmaAttentionSchedule) and d.operands[0].shape[2] == 1:
        pytest.skip("heads of one query each are packed into rows, which TMA does not bring")
    operands, results = (tuple(replace(t, dtype=dtype) for t in tensors) for tensors in (d.operands, d.results))
    d = replace(d, operands=operands, results=results, regions=(d.regions[0], make.narrow(dtype)))
    rng = np.random.default_rng(seed)

    def ones(views: list[np.ndarray]) -> None:
        q, k, v = views
        depth = q.shape[3]
        for x in views:
            x[...] = 0
        first, last = (int(i) for i in rng.integers(0, depth // 2, 2))
        q[..., first : first + depth // 2 + 1] = 1
        for head in np.ndindex(k.shape[:2]):
            start = int(rng.integers(0, k.shape[2] - 15))
            k[head][start : start + 16, last : last + depth // 2 + 1] = 512
            start, element = int(rng.integers(0, k.shape[2] // 2)), int(rng.integers(0, v.shape[3] // 2))
            v[head][start : start + k.shape[2] // 2, element : element + v.shape[3] // 2] = 1

    found = run_emulated(d, target, None, schedule, prepare=ones)
    (exact,) = run_dispatch(d, found.operands, float64=True)
    assert exact.any()
    np.testing.assert_allclose(found.results[0].astype(float), exact.astype(float), rtol=2**-22 if dtype == "f32" else 0)


# Of as many whole tiles of 32 keys, and of other numbers of them.
LENGTHS = {"one way": [80, 70, 65], "several": [95, 33, 20]}


def filled(lengths: list[int]) -> Any:
    """Lengths, and behind them keys and values that would be seen."""

    def prepare(views: list[np.ndarray]) -> None:
        _, k, v, given = views[:4]
        given[...] = lengths
        for b, length in enumerate(lengths):
            k[b, :, length:], v[b, :, length:] = 3, 300

    return prepare


@every_kernel
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_every_batch_has_its_own_length(target: str, dtype: str, schedule: Any, causal: bool, lengths: list[int]) -> None:
    d = make.attention(3, 1, 20, 80, 64, dtype, causal=causal, ragged="i64")
    check(d, target, schedule, prepare=filled(lengths))


@every_kernel
def test_lengths_beside_masks(target: str, dtype: str, schedule: Any) -> None:
    """Odd numbers of keys: masks are read in pairs."""
    d = make.attention(2, 2, 20, 80, 64, dtype, causal=True, ragged="i32", mask=(20, 80), kv_heads=1)
    check(d, target, schedule, prepare=filled([79, 67]))


@pytest.mark.parametrize(("target", "schedule"), [("sm_80", None), ("sm_80", KERNELS["splits"][2]), ("sm_90a", None)])
@pytest.mark.parametrize("dtype", ["f16", "f32"])
def test_decoding_of_sequences_of_other_lengths(target: str, schedule: Any, dtype: str) -> None:
    """Splits that have no keys, and sequences of one."""
    d = make.attention("b", 8, 1, "t", 32, dtype, kv_heads=2, causal=True, ragged="i64")
    schedule = None if dtype == "f32" else schedule
    check(d, target, schedule, {"b": 3, "t": 200}, prepare=filled([200, 1, 66]))


@pytest.mark.parametrize("causal", [False, True])
def test_a_sequence_without_keys_is_nan(causal: bool) -> None:
    d = make.attention(2, 1, 20, 80, 64, causal=causal, ragged="i32")
    for target, schedule in (("sm_80", MMA), ("sm_90a", WGMMA)):
        found = run_emulated(d, target, None, schedule, prepare=filled([7, 0]))
        want = run_dispatch(d, found.operands)[0]
        assert np.array_equal(np.isnan(found.results[0]), np.isnan(want))
        assert np.isnan(want[1]).all()


def test_mma_of_turing_goes_through_registers() -> None:
    executed = check(make.attention(1, 1, 33, 50, 40), "sm_75", MMA).executed
    assert executed["mma.m16n8k8.f16.f16"] > 0


def test_mma_rows_of_a_warp() -> None:
    check(make.attention(1, 1, 80, 70, 32), "sm_80", MmaAttentionSchedule(1, 32, 32))


def test_splits_of_decoding() -> None:
    """Query heads of a key head are rows of one product; blocks share the keys."""
    d = make.attention(2, 8, 1, "t", 32, kv_heads=2)
    check(d, "sm_80", MmaAttentionSchedule(1, 16, 16, splits=4), {"t": 130})
    check(d, "sm_80", MmaAttentionSchedule(1, 16, 16, splits=4), {"t": 3})
    p = attention_problem(d)
    assert (p.packed, p.rows, p.heads) == (True, 4, 2)


@pytest.mark.parametrize(("along", "cluster"), [(1, 2), (1, 8), (2, 1), (4, 1), (4, 4), (8, 2)])
def test_parts_of_decoding_in_one_launch(along: int, cluster: int) -> None:
    """Warps and blocks of a cluster share the keys, of which some have none."""
    s = MmaAttentionSchedule(1, 16, 16, along=along, cluster=cluster)
    d = make.attention(2, 8, 1, "t", 32, kv_heads=2)
    for t in (130, 3):
        found = check(d, "sm_90a", s, {"t": t})
        assert len(found.plan.launches) == 1
        assert found.plan.workspace == 0
    check(make.attention(1, 2, 19, 150, 40, "bf16", causal=True, depth_v=24), "sm_90a", s)
    check(make.attention(2, 8, 1, "t", 64, ragged="i32", kv_heads=4), "sm_120a", s, {"t": 100})
    check(make.attention(1, 2, 1, 70, 32, mask=(1, 70), interleaved=True), "sm_100a", s)


def test_parts_of_rows_that_warps_share() -> None:
    check(make.attention(1, 2, 37, 100, 64), "sm_90a", MmaAttentionSchedule(2, 16, 16, cluster=2))
    check(make.attention(1, 1, 80, 70, 32), "sm_90a", MmaAttentionSchedule(1, 32, 32, cluster=4))
    with pytest.raises(ValueError, match="rows of their own or share keys"):
        MmaAttentionSchedule(2, 16, 16, along=2)
    with pytest.raises(ValueError, match="in one launch or in a second one"):
        MmaAttentionSchedule(1, 16, 16, splits=2, cluster=2)


@pytest.mark.parametrize("target", [t.name for t in CUDA_TARGETS])
@pytest.mark.parametrize("depth", [64, 128])
def test_decoding_is_one_launch_where_there_are_clusters(target: str, depth: int) -> None:
    d, t = make.attention(1, 32, 1, "t", depth, kv_heads=8), BY_NAME[target]
    with kernel_context():
        emitted = emit(d, t)
        assert len(emitted.plan.launches) == (1 if t.max_cluster > 1 else 2)
        check_limits(emitted.plan, compile_kernels(emitted.module, target), t)


def test_warps_share_keys_where_they_are_few() -> None:
    """SMs that have warps enough keep blocks of one each."""
    h200 = BY_NAME["sm_90a"]
    one, many = (choose(attention_problem(make.attention(b, 32, 1, 4096, 64, kv_heads=8)), h200) for b in (1, 64))
    assert (one.cluster, one.along) == (8, 8)
    assert (many.cluster, many.along) == (1, 1)


@pytest.mark.parametrize("name", CASES)
def test_wgmma(name: str) -> None:
    d = CASES[name]
    executed = check(d, "sm_90a", WGMMA).executed
    assert any(k.startswith("wgmma") for k in executed)


def test_causal_blocks_of_wgmma_have_other_numbers_of_tiles() -> None:
    """Two and four: a warp that waits for room for keys is late, in one block and not in the other."""
    check(make.attention(1, 1, 200, 200, 64, causal=True), "sm_90a", WgmmaAttentionSchedule(64))


ANY_SIZES = ({"b": 2, "s": 40, "t": 100}, {"b": 1, "s": 130, "t": 130}, {"b": 1, "s": 1, "t": 1}, {"b": 1, "s": 32, "t": 64})


@pytest.mark.parametrize("sizes", ANY_SIZES, ids=lambda x: "{b}x{s}x{t}".format(**x))
@pytest.mark.parametrize(
    ("target", "schedule"), [("sm_75", MMA), ("sm_80", MMA), ("sm_90a", WgmmaAttentionSchedule(64)), ("sm_90a", None)]
)
def test_any_shape(target: str, schedule: Any, sizes: Mapping[str, int]) -> None:
    check(make.attention("b", 2, "s", "t", 64, causal=True), target, schedule, sizes)
    check(make.attention("b", 2, "s", "t", 64, mask=("b", 1, 1, "t")), target, schedule, sizes)


def test_decoding_into_a_cache_with_room() -> None:
    """Keys and values of length t in a buffer of a larger capacity: strides are sizes of their own."""
    q = contiguous("f16", 1, 4, 1, 64)
    cache = contiguous("f16", 1, 2, "c", 64)
    cache = replace(cache, shape=(1, 2, contiguous("f16", "t").shape[0], 64))
    d = make.make("attention", [q, cache, cache], [contiguous("f16", 1, 4, 1, 64)],
                  [ScalarRegion(("f32",), (), (0,)), make.narrow("f16")], {"scale": 0.125})  # fmt: skip
    for target in ("sm_75", "sm_80", "sm_90a"):
        check(d, target, None, {"t": 70, "c": 96})


def test_no_keys_for_a_query_is_nan() -> None:
    """softmax of nothing but minus infinity: 0 / 0, as the reference has it."""
    d = make.attention(1, 1, 48, 16, 32, causal=True)
    for target, schedule in (("sm_80", MMA), ("sm_90a", WGMMA)):
        found = run_emulated(d, target, None, schedule)
        want = run_dispatch(d, found.operands)[0]
        assert np.array_equal(np.isnan(found.results[0]), np.isnan(want))
        assert np.isnan(want).any()


@pytest.mark.parametrize("target", [t.name for t in CUDA_TARGETS])
def test_assembles_for_every_target(target: str) -> None:
    d = make.attention(1, 16, 4096, 4096, 64, causal=True)
    with kernel_context():
        emitted = emit(d, BY_NAME[target])
        ptx = compile_kernels(emitted.module, target, stop="ptx")
    check_limits(emitted.plan, compile_kernels(ptx, target, start="ptx"), BY_NAME[target])
    schedule = choose(attention_problem(d), BY_NAME[target])
    if target == "sm_90a":
        assert isinstance(schedule, WgmmaAttentionSchedule)
        # A tile of keys: 64 / 16 products for the scores, keys / 16 for the values, in each copy of the loop.
        assert len(re.findall(r"wgmma\.mma_async\.sync\.aligned\.m64n128k16\.f32\.f16\.f16", ptx)) % 4 == 0
        assert len(re.findall(r"wgmma\.mma_async\.sync\.aligned\.m64n64k16\.f32\.f16\.f16", ptx)) % (schedule.keys // 16) == 0
    else:
        assert isinstance(schedule, MmaAttentionSchedule)
        k = 8 if target == "sm_75" else 16
        per_tile = schedule.warp_rows // 16 * (schedule.keys // 8) * (64 // k) + schedule.warp_rows // 16 * 8 * (
            schedule.keys // k
        )
        found = len(re.findall(rf"mma\.sync\.aligned\.m16n8k{k}\.row\.col\.f32\.f16", ptx))
        assert found
        assert found % per_tile == 0


@pytest.mark.parametrize(
    ("target", "depth", "warps"),
    [*((t, depth, 8) for t in ("sm_75", "sm_86", "sm_89", "sm_120a") for depth in (64, 128)), ("sm_86", 0, 16)],
)
def test_warps_that_an_sm_of_a_geforce_card_holds(target: str, depth: int, warps: int) -> None:
    """Of any shape, with a mask: four warps of 32 rows each would spill. Of a constant shape (0): twice as many."""
    d = make.attention("b", 16, "q", "k", depth, mask=("b", 1, "q", "k")) if depth else make.attention(1, 16, 4096, 4096, 64)
    with kernel_context():
        emitted = emit(d, BY_NAME[target])
        cubin = compile_kernels(emitted.module, target)
    check_limits(emitted.plan, cubin, BY_NAME[target])
    launch = emitted.plan.launches[0]
    found = resources(cubin)[launch.symbol]
    blocks = BY_NAME[target].resident_blocks(launch.block[0], found.registers, launch.shared_bytes + found.shared_bytes)
    assert blocks * launch.block[0] >= 32 * warps


def test_nothing_keeps_wgmma_from_overlapping() -> None:
    """No call in the kernel (exact division is one): with a call in sight the assembler serializes wgmma."""
    with kernel_context():
        ptx = compile_kernels(emit(CASES["mask"], BY_NAME["sm_90a"], WGMMA).module, "sm_90a", stop="ptx")
    assert not re.search(r"\b(div|rcp|sqrt)\.rn\.f32", ptx)


def test_operands_of_other_types_are_not_for_tensor_cores() -> None:
    d = make.attention(1, 1, 16, 16, 32)
    q, k, v = d.operands
    mixed = replace(d, operands=(q, replace(k, dtype="bf16"), v))
    with kernel_context(), pytest.raises(NotImplementedError, match=r"mma\.sync"):
        emit(mixed, BY_NAME["sm_80"], MMA)
