"""Attention by tensor cores without a GPU: numerics and races on the emulator, instructions in the code, every target
assembled."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import cuda_dispatches as make
import numpy as np
import pytest
from cuda_emulation import run_emulated

from ingot.compiler.codegen.cuda_attention import choose
from ingot.compiler.codegen.cuda_attention_mma import MmaAttentionSchedule
from ingot.compiler.codegen.cuda_attention_problem import attention_problem
from ingot.compiler.codegen.cuda_attention_wgmma import WgmmaAttentionSchedule
from ingot.compiler.codegen.family import emit
from ingot.compiler.reference import run_dispatch
from ingot.compiler.toolchain.stages import compile_kernels
from ingot.cuda_targets import BY_NAME, CUDA_TARGETS
from ingot.dialects.mlir import ir
from ingot.dispatch import Dispatch

MMA, WGMMA = MmaAttentionSchedule(2, 16, 32), WgmmaAttentionSchedule(32)


def check(d: Dispatch, target: str, schedule: Any, sizes: Mapping[str, int] | None = None) -> dict[str, int]:
    """Run on the emulator, which reports races, and compare with the float64 reference; matrix instructions executed."""
    found = run_emulated(d, target, sizes, schedule)
    (exact,) = run_dispatch(make.unrounded(d), found.operands, sizes, float64=True)
    # One pass rounds probabilities before they are divided by their sum, relative to a maximum that is still growing; the
    # peer rounds them relative to the row's. Hence a little more spread than elsewhere.
    got, peer = make.errors(found.results[0], exact), make.errors(make.peers(d, found.operands, dict(sizes or {}))[0], exact)
    assert abs(got.bias) <= 1e-5 + 0.2 * got.spread, got
    assert got.spread <= 1e-5 + 1.3 * peer.spread, (got, peer)
    return found.executed


CASES = {
    "exact": make.attention(1, 2, 64, 64, 64),
    "tails": make.attention(1, 2, 50, 77, 64),
    "causal": make.attention(1, 1, 70, 90, 64, causal=True),
    "more queries than keys": make.attention(1, 1, 40, 40, 64, "bf16", causal=True),
    "mask": make.attention(2, 2, 40, 50, 64, mask=(2, 1, 1, 50)),
    "groups": make.attention(1, 4, 33, 48, 32, kv_heads=2),
    "interleaved": make.attention(1, 2, 33, 48, 80, interleaved=True, mask=(33, 48)),
    "depths": make.attention(1, 1, 20, 40, 64, depth_v=96),
    "deep": make.attention(1, 1, 20, 40, 256),
}


@pytest.mark.parametrize("name", CASES)
def test_mma(name: str) -> None:
    check(CASES[name], "sm_80", MmaAttentionSchedule(1, 16, 16) if name == "deep" else MMA)


def test_mma_of_turing_goes_through_registers() -> None:
    executed = check(make.attention(1, 1, 33, 50, 40), "sm_75", MMA)
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


@pytest.mark.parametrize("name", CASES)
def test_wgmma(name: str) -> None:
    d = CASES[name]
    executed = check(d, "sm_90a", WGMMA)
    assert any(k.startswith("wgmma") for k in executed)


def test_wgmma_any_shape() -> None:
    d = make.attention("b", 2, "s", "t", 64, causal=True)
    for sizes in ({"b": 2, "s": 40, "t": 100}, {"b": 1, "s": 130, "t": 130}):
        check(d, "sm_90a", WgmmaAttentionSchedule(64), sizes)


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
    with ir.Context():
        emitted = emit(d, BY_NAME[target])
        ptx = compile_kernels(emitted.module, target, stop="ptx")
        assert compile_kernels(ptx, target, start="ptx")[:4] == b"\x7fELF"
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


def test_nothing_keeps_wgmma_from_overlapping() -> None:
    """No call in the kernel (exact division is one): with a call in sight the assembler serializes wgmma."""
    with ir.Context():
        ptx = compile_kernels(emit(CASES["mask"], BY_NAME["sm_90a"], WGMMA).module, "sm_90a", stop="ptx")
    assert not re.search(r"\b(div|rcp|sqrt)\.rn\.f32", ptx)


def test_operands_of_other_types_are_not_for_tensor_cores() -> None:
    d = make.attention(1, 1, 16, 16, 32)
    q, k, v = d.operands
    mixed = replace(d, operands=(q, replace(k, dtype="bf16"), v))
    with ir.Context(), pytest.raises(NotImplementedError, match=r"mma\.sync"):
        emit(mixed, BY_NAME["sm_80"], MMA)
