"""Normalization kernels without a GPU: numerics on the emulator, every target assembled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cuda_dispatches as make
import numpy as np
import pytest
from cuda_emulation import run_emulated

from ingot.compiler.codegen.cuda_group_normalize import group_problem
from ingot.compiler.codegen.cuda_normalize import NormalizeSchedule
from ingot.compiler.codegen.family import emit
from ingot.compiler.reference import run_dispatch
from ingot.compiler.toolchain.stages import compile_kernels
from ingot.cuda_targets import BY_NAME, CUDA_TARGETS
from ingot.dialects.mlir import ir
from ingot.dispatch import Dispatch


def check(d: Dispatch, target: str = "sm_80", schedule: Any = None, sizes: Mapping[str, int] | None = None) -> int:
    """Run on the emulator and compare with the float64 reference; the number of launches."""
    found = run_emulated(d, target, sizes, schedule)
    exact = run_dispatch(make.unrounded(d), found.operands, sizes, float64=True)
    peers = run_dispatch(d, found.operands, sizes)
    for got, reference, peer in zip(found.results, exact, peers, strict=True):
        if got.dtype.kind in "iub":
            assert np.array_equal(got, peer)
        else:
            make.check_against(got, reference, peer)
    return len(found.plan.launches)


def ptx_of(d: Dispatch, target: str = "sm_90a") -> str:
    with ir.Context():
        return compile_kernels(emit(d, BY_NAME[target]).module, target, stop="ptx")


KINDS = ("softmax", "log_softmax", "layer", "rms")


@pytest.mark.parametrize("kind", KINDS)
def test_a_warp_a_row(kind: str) -> None:
    check(make.normalize(kind, 9, 96, dtype="f16", affine=kind in ("layer", "rms")))
    check(make.normalize(kind, 5, 77, dtype="f32"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_a_row(kind: str) -> None:
    assert check(make.normalize(kind, 3, 1536, dtype="bf16")) == 1
    assert check(make.normalize(kind, 2, 1100, dtype="f32")) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_rows_in_chunks(kind: str) -> None:
    d = make.normalize(kind, "r", "c", dtype="f32")
    assert check(d, sizes={"r": 2, "c": 1300}, schedule=NormalizeSchedule(256, 1, 2, chunked=True)) == 2
    assert check(d, sizes={"r": 3, "c": 5}) == 2


def test_softmax_of_minus_infinity() -> None:
    """Masked elements get probability 0."""
    d = make.normalize("softmax", 4, 64, dtype="f32")

    def mask(operands: list[np.ndarray]) -> None:
        operands[0][:, 10:] = -np.inf
        operands[0][1, 3] = 1e30

    found = run_emulated(d, "sm_80", prepare=mask)
    make.check_against(found.results[0], run_dispatch(d, found.operands, float64=True)[0], run_dispatch(d, found.operands)[0])
    assert np.all(found.results[0][:, 10:] == 0)


def test_layer_norm_of_a_large_mean() -> None:
    """Deviations are small beside the mean: sums of squares would cancel."""

    def shift(operands: list[np.ndarray]) -> None:
        operands[0][...] += 1000

    for d in (make.normalize("layer", 4, 640, dtype="f32"), make.normalize("layer", 1, 64, 2, 8, axes=(1, 3), dtype="f32")):
        found = run_emulated(d, "sm_80", prepare=shift)
        assert make.errors(found.results[0], run_dispatch(d, found.operands, float64=True)[0]).spread < 2e-4


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_groups(kind: str) -> None:
    d = make.normalize(kind, 2, 6, 5, 4, 10, axes=(1, 2, 4), dtype="f16")
    assert group_problem(d) is not None
    check(d)
    check(make.normalize(kind, 2, "s", 4, 8, axes=(1, 3), dtype="f32"), sizes={"s": 37})
    ptx = ptx_of(make.normalize(kind, 2, 9216, 32, 10, axes=(1, 3)))
    assert "ld.global.v4" in ptx


@pytest.mark.parametrize("target", [t.name for t in CUDA_TARGETS])
def test_assembles_for_every_target(target: str) -> None:
    for d in (
        make.normalize("softmax", 64, 640),
        make.normalize("layer", 8, 20000),
        make.normalize("layer", 2, 64, 4, 8, axes=(1, 3)),
    ):
        with ir.Context():
            assert compile_kernels(emit(d, BY_NAME[target]).module, target)[:4] == b"\x7fELF"
