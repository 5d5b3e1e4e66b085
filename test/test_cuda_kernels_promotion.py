"""Sums of 8-bit floats: what tensor cores keep of them, and their promotion to f32, on the emulator and in machine code."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cuda_dispatches as make
import ml_dtypes
import numpy as np
import pytest
from cuda_emulation import check, run_emulated
from ptx_loops import innermost_counts
from tensor_core_sums import instruction

from ingot.compiler.codegen.cuda_gemm_cluster import ClusterSchedule
from ingot.compiler.codegen.cuda_gemm_decoded_wgmma import PROMOTED_ROWS, DecodedWgmmaSchedule
from ingot.compiler.codegen.cuda_gemm_mma import MmaSchedule
from ingot.compiler.codegen.cuda_gemm_problem import gemm_problem
from ingot.compiler.codegen.cuda_gemm_wgmma import PROMOTED_TILE, WgmmaSchedule
from ingot.compiler.codegen.cuda_matmul import choose, estimates
from ingot.compiler.codegen.family import emit
from ingot.compiler.codegen.mma_table import MMA_ROWS, PROMOTION_K
from ingot.compiler.emulator.limited_sums import FRACTION_BITS, is_limited, limited_sum
from ingot.compiler.reference import run_dispatch
from ingot.compiler.toolchain.stages import compile_kernels
from ingot.cuda_targets import BY_NAME
from ingot.dialects.mlir import kernel_context
from ingot.dispatch import Dispatch
from ingot.runtime.specialization import machine_passes

HOPPER = BY_NAME["sm_90a"]
TYPES = {"e4m3": ml_dtypes.float8_e4m3fn, "e5m2": ml_dtypes.float8_e5m2}
KERNELS: dict[str, tuple[str, Any, bool]] = {
    "wgmma": ("sm_90a", WgmmaSchedule(128, 64, 3), True),
    "stream": ("sm_90a", WgmmaSchedule(64, 64, 3, stream=3), True),
    "split": ("sm_90a", WgmmaSchedule(64, 64, 3, splits=2), True),
    "cluster": ("sm_90a", ClusterSchedule(64, 64, 3, 2), True),
    "swapped": ("sm_90a", ClusterSchedule(64, 64, 3, 2, swapped=True), True),
    "registers": ("sm_90a", DecodedWgmmaSchedule(64, 3), False),
    "mma": ("sm_89", MmaSchedule(32, 64, 16, 32), True),
    "mma of short steps": ("sm_89", MmaSchedule(32, 64, 16, 32, k_bytes=64), False),
}
every_kernel = pytest.mark.parametrize(("target", "schedule", "k_major"), KERNELS.values(), ids=KERNELS)


def fast(d: Dispatch) -> Dispatch:
    """The dispatch as `ingot-allow-fast-accumulation` leaves it."""
    return replace(d, attrs=tuple(sorted((*d.attrs, ("fast_accumulation", True)))))


# The model ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["mma", "wgmma"])
@pytest.mark.parametrize("types", [("e4m3", "e4m3"), ("e5m2", "e4m3"), ("e5m2", "e5m2")], ids="-".join)
def test_sums_are_cut_off_as_the_model_says(types: tuple[str, str], engine: str) -> None:
    """Normal and subnormal numbers, zeros, and accumulators far larger and smaller than the products."""
    rng = np.random.default_rng(0)
    codes = [rng.integers(0, 256, size).astype(np.uint8) for size in ((6, 32), (32, 5))]
    a, b = (x.view(TYPES[t]).astype(np.float64) for x, t in zip(codes, types, strict=True))
    a, b = (np.where(np.isfinite(x) & (rng.random(x.shape) < 0.8), x, 0) for x in (a, b))
    a[0], a[1] = 0, np.abs(a[1]) * 2.0**-6  # nothing but the accumulator; small products
    c = (rng.standard_normal((6, 5)) * np.exp2(rng.integers(-20, 20, (6, 5)))).astype(np.float32)
    c[0, 0] = 0
    a[1] = a[1].astype(TYPES[types[0]]).astype(np.float64)
    got = limited_sum(a, b, c, types, engine)
    assert np.array_equal(got, instruction(a, b, c, types, engine))
    exact = a @ b + c
    assert (got != exact.astype(np.float32)).any()


def test_infinities_and_nan_pass_through() -> None:
    a, b = np.ones((2, 32)), np.ones((32, 2))
    a[0, 3], b[5, 1] = np.inf, np.nan
    got = limited_sum(a, b, np.zeros((2, 2), np.float32), ("e5m2", "e5m2"), "wgmma")
    assert np.array_equal(got, np.array([[np.inf, np.nan], [32, np.nan]], np.float32), equal_nan=True)


def test_the_table_says_what_the_emulator_does() -> None:
    for row in MMA_ROWS:
        unscaled = row.scale is None and not row.kind
        assert row.sum_bits == (FRACTION_BITS if unscaled and is_limited(row.ptx, row.ptx) else 0), row.name


# Kernels --------------------------------------------------------------------------------------------------------------


@every_kernel
def test_promoted_sums_are_sums_in_float32(target: str, schedule: Any, k_major: bool) -> None:
    """By default every kernel keeps the statistical rule, for any k; fast sums of the same product do not."""
    d = make.matmul(72, 80, 1056, "f8E4M3FN", out="f32", b_transposed=k_major)
    check(d, target, schedule)
    with pytest.raises(AssertionError, match="spread"):
        check(fast(d), target, schedule)


@every_kernel
def test_any_k_is_promoted(target: str, schedule: Any, k_major: bool) -> None:
    """Sizes that are known at run time only, less than one step among them."""
    if getattr(schedule, "stream", 0) or getattr(schedule, "splits", 1) > 1:
        pytest.skip("shares of unknown sizes")
    d = make.matmul("m", 64, "k", "f8E4M3FN", out="f32", b_transposed=k_major, multiples={"k": 32})
    for k in (32, 512):
        check(d, target, schedule, {"m": 40, "k": k})


@pytest.mark.parametrize("out", ["i8", "f16"])
@pytest.mark.parametrize("target", ["sm_89", "sm_90a"])
def test_quantized_results(target: str, out: str) -> None:
    same = (1, 1, 1, 1)
    window = make.conv(1, (7, 6), 64, 32, (3, 3), pads=same, dtype="f8E4M3FN", out="f32")
    for d in (window, make.matmul(72, 64, 512, "f8E4M3FN", out="f32", b_transposed=True)):
        check(make.quantized_in_epilogue(d, out), target)


def test_few_k_need_no_promotion() -> None:
    """One step's sums are what a promoted kernel would add to zero: the two give the same bits."""
    d = make.matmul(72, 80, PROMOTION_K, "f8E4M3FN", out="f32", b_transposed=True)
    plain, chosen = (run_emulated(x, HOPPER, schedule=WgmmaSchedule(64, 64, 3)) for x in (d, fast(d)))
    assert np.array_equal(plain.results[0], chosen.results[0])


def test_blocks_of_ones_are_exact() -> None:
    """Sums that 14 bits hold are exact, promoted or not."""

    def ones(views: list[np.ndarray]) -> None:
        for view in views:
            view[...] = np.zeros(1, view.dtype)
            view[3 : view.shape[0] // 2 + 3, 5 : view.shape[1] // 2 + 5] = np.ones(1).astype(view.dtype)

    for target, schedule, k_major in KERNELS.values():
        d = make.matmul(72, 80, 528, "f8E4M3FN", out="f32", b_transposed=k_major)
        found = run_emulated(d, target, schedule=schedule, prepare=ones)
        assert np.array_equal(found.results[0], run_dispatch(d, found.operands, float64=True)[0])


# Choice and code --------------------------------------------------------------------------------------------------------


def test_tiles_leave_registers_for_promoted_sums() -> None:
    accurate = gemm_problem(make.matmul(4096, 4096, 4096, "f8E4M3FN", b_transposed=True))
    tiles = {(e.schedule.tile_m, e.schedule.tile_n) for e in estimates(accurate, HOPPER) if type(e.schedule) is WgmmaSchedule}
    assert max(m for m, _ in tiles) <= PROMOTED_TILE[0]
    assert max(n for _, n in tiles) <= PROMOTED_TILE[1]
    loose = gemm_problem(fast(make.matmul(4096, 4096, 4096, "f8E4M3FN", b_transposed=True)))
    assert (choose(loose, HOPPER).tile_m, choose(loose, HOPPER).tile_n) == (128, 256)
    columns = gemm_problem(make.matmul(4096, 4096, 4096, "f8E4M3FN"))
    assert choose(columns, HOPPER).tile_m <= PROMOTED_ROWS
    with kernel_context(), pytest.raises(NotImplementedError):
        emit(make.matmul(256, 256, 512, "f8E4M3FN", b_transposed=True), HOPPER, WgmmaSchedule(128, 256, 3))
    half = [gemm_problem(x) for x in (make.matmul(4096, 4096, 4096, "f16"), fast(make.matmul(4096, 4096, 4096, "f16")))]
    assert choose(half[0], HOPPER) == choose(half[1], HOPPER)


def test_code_of_promoted_sums() -> None:
    """A step's four instructions, the wait for them, and an addition for each accumulator; nothing spills."""
    d = make.matmul(4096, 4096, 4096, "f8E4M3FN", b_transposed=True)
    with kernel_context():
        emitted = emit(d, HOPPER, WgmmaSchedule(*PROMOTED_TILE, 4))
        text = compile_kernels(emitted.module, "sm_90a", stop="ptx")
    symbol = emitted.plan.launches[0].symbol
    assert innermost_counts(text, symbol, r"wgmma\.mma_async") == [4]
    assert innermost_counts(text, symbol, r"wgmma\.wait_group\.sync\.aligned\s+0;") == [1]
    assert innermost_counts(text, symbol, r"add(\.rn)?\.f32") == [PROMOTED_TILE[1] // 2]
    assert "ld.local" not in text
    assert compile_kernels(text, "sm_90a", start="ptx")[:4] == b"\x7fELF"


def test_a_session_asks_for_fast_sums_by_a_pass() -> None:
    assert "ingot-allow-fast-accumulation" in machine_passes(HOPPER, fast_accumulation=True)
    assert "ingot-allow-fast-accumulation" not in machine_passes(HOPPER)
