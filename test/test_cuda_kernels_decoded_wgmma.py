"""Products of many rows with quantized weights by wgmma, decoded in registers: every type and layout, divisions, PTX."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cuda_dispatches as make
import pytest
from cuda_emulation import check as check_emulated
from cuda_emulation import run_emulated
from exact_products import check_blocks_of_ones, check_every_code, every_code
from ptx_loops import innermost_counts

from ingot.compiler.codegen.cuda_gemm_decoded_wgmma import PROMOTED_ROWS, DecodedWgmmaSchedule, plan_decoded_wgmma
from ingot.compiler.codegen.cuda_gemm_problem import gemm_problem
from ingot.compiler.codegen.cuda_matmul import choose, decoded_wgmma_schedules
from ingot.compiler.codegen.family import emit
from ingot.compiler.reference import run_dispatch
from ingot.compiler.toolchain.stages import compile_kernels
from ingot.cuda_targets import BY_NAME
from ingot.dialects.mlir import kernel_context
from ingot.dispatch import Dispatch, TensorArg

WEIGHTS = ("i8", "i4", "f8E4M3FN", "f8E5M2", "f4E2M1FN")
SMALL = DecodedWgmmaSchedule(64, 3)
HOPPER = BY_NAME["sm_90a"]
layouts = pytest.mark.parametrize("layout", [True, False], ids=["NT", "NN"])


def check(d: Dispatch, schedule: DecodedWgmmaSchedule = SMALL, sizes: dict[str, int] | None = None) -> None:
    """Run on the emulator and compare with the float64 reference."""
    found = run_emulated(d, HOPPER, sizes, schedule)
    assert set(found.executed) == {f"wgmma.m64n{schedule.tile_m}k16.{d.operands[0].dtype}.{d.operands[0].dtype}"}
    (exact,) = run_dispatch(make.unrounded(d), found.operands, sizes, float64=True)
    (peer,) = run_dispatch(d, found.operands, sizes)
    e = make.check_against(found.results[0], exact, peer)
    if d.results[0].dtype == "f32":
        assert e.spread < 1e-6, e  # weights are what they stand for; only sums are rounded


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@layouts
def test_weights(weights: str, dtype: str, layout: bool) -> None:
    """Per-channel and per-block scales of either type, zero points of integers."""
    zero = weights[0] == "i"
    for options in ({"scale": dtype, "block": 32, "zero": zero}, {"scale": "f32"}, {}):
        check(make.quantized_matmul(66, 160, 192, dtype, weights, b_transposed=layout, **options))


@layouts
@pytest.mark.parametrize("block", [16, 64, 128, 256])
def test_blocks(block: int, layout: bool) -> None:
    """Several of a stage, and several stages of one."""
    check(make.quantized_matmul(20, 128, 512, "f16", "i4", scale="f16", block=block, zero=True, b_transposed=layout, out="f16"))


@layouts
@pytest.mark.parametrize("tile", [(96, 3), (176, 3), (192, 2)], ids=str)
def test_tiles(tile: tuple[int, ...], layout: bool) -> None:
    for weights in ("i4", "i8"):
        d = make.quantized_matmul(190, 288, 128, "f16", weights, scale="f16", block=32, b_transposed=layout, out="f16")
        check(d, DecodedWgmmaSchedule(*tile))


@layouts
def test_sums_over_blocks(layout: bool) -> None:
    """Tiles whose K is split, tiles whose steps are shared, and one block that works on several tiles."""
    d = make.quantized_matmul(130, 416, 768, "bf16", "i4", scale="bf16", block=64, zero=True, b_transposed=layout, out="bf16")
    check(d, replace(SMALL, splits=3))
    check(d, replace(SMALL, stream=7))
    check(d, replace(SMALL, stream=2))


@layouts
def test_sizes_that_tiles_do_not_divide(layout: bool) -> None:
    """K past the last stage's middle, columns past the last box, rows past the last tile."""
    for weights, n, k in (("i4", 96, 96), ("i4", 160, 224), ("i8", 144, 80), ("f8E5M2", 80, 144)):
        check(make.quantized_matmul(33, n, k, "f16", weights, scale="f16", block=16, b_transposed=layout))


def test_any_rows_columns_and_batches() -> None:
    d = make.quantized_matmul("m", "n", 128, "f16", "i4", scale="f16", block=32)
    check(d, sizes={"m": 75, "n": 131})
    d = make.quantized_matmul("m", 64, "k", "f16", "i4", scale="f16", block=32, multiples={"k": 32})
    check(d, sizes={"m": 9, "k": 224})
    check(make.quantized_matmul(20, 160, 64, "f16", "i4", scale="f16", block=32, batch=(3,), zero=True))
    check(make.quantized_matmul(20, 160, 64, "f16", "i8", scale="f16", block=32, batch=(3,), b_transposed=False, zero=True))


@layouts
def test_zero_points_that_are_floats_or_unsigned(layout: bool) -> None:
    for weights in ("i8", "i4"):
        options: dict[str, Any] = {"scale": "f16", "block": 32, "zero": True, "unsigned": True}
        d = make.quantized_matmul(24, 64, 64, "f16", weights, b_transposed=layout, **options)
        check(d)
        check(replace(d, operands=(*d.operands[:3], replace(d.operands[3], dtype="f16"))))


EIGHT_BITS = [("i8", "i32", False), ("i8", "i32", True), ("f8E4M3FN", "f32", False), ("f8E5M2", "f32", False)]


@pytest.mark.parametrize(("dtype", "acc", "unsigned"), EIGHT_BITS)
def test_eight_bits_as_they_are(dtype: str, acc: str, unsigned: bool) -> None:
    """Both operands of 8 bits, columns neighbours in memory: transposed on their way to the instruction, integers exactly."""
    ptx = {"i8": "u8" if unsigned else "s8", "f8E4M3FN": "e4m3", "f8E5M2": "e5m2"}[dtype]
    large = DecodedWgmmaSchedule(176 if acc == "i32" else PROMOTED_ROWS, 2)
    for size, schedule in (
        ((70, 160, 192), SMALL), ((200, 272, 400), large),
        ((70, 144, 1024), replace(SMALL, splits=2)), ((70, 144, 640), replace(SMALL, stream=3)),
    ):  # fmt: skip
        d = make.matmul(*size, dtype, acc=acc)
        if unsigned:
            d = replace(d, attrs=(*d.attrs, ("a_unsigned", True), ("b_unsigned", True)))
        found = check_emulated(d, HOPPER, schedule)
        assert set(found.executed) == {f"wgmma.m64n{schedule.tile_m}k32.{ptx}.{ptx}"}
    assert plan_decoded_wgmma(gemm_problem(make.matmul(70, 160, 192, dtype, acc=acc, b_transposed=True)), HOPPER, SMALL) is None
    for m, kind in ((2048, DecodedWgmmaSchedule), (256, DecodedWgmmaSchedule)):
        assert isinstance(choose(gemm_problem(make.matmul(m, 4096, 4096, dtype, acc=acc)), HOPPER), kind)


def test_what_does_not_suit_is_decoded_otherwise() -> None:
    """Blocks that divide no stage, lines that TMA cannot read, rows that are neighbours, no constant type of rows."""
    fits = make.quantized_matmul(200, 160, 192, "f16", "i4", scale="f16", block=32)
    assert plan_decoded_wgmma(gemm_problem(fits), HOPPER, SMALL) is not None
    assert list(decoded_wgmma_schedules(gemm_problem(fits), HOPPER))
    a = fits.operands[0]
    for d in (
        make.quantized_matmul(200, 160, 192, "f16", "i4", scale="f16", block=24),
        make.quantized_matmul(200, 160, 192, "f16", "i4", scale="f16", block=8),
        make.quantized_matmul(200, 160, 200, "f16", "i4", scale="f16", block=200),
        make.quantized_matmul(200, 136, 192, "f16", "i4", scale="f16", block=32, b_transposed=False),
        make.quantized_matmul(200, 160, 192, "f16", "i4", scale="f16", block=32, a_transposed=True),
        make.quantized_matmul(200, 160, 192, "f32", "i4", scale="f32", block=32),
        replace(fits, operands=(TensorArg("f16", a.shape, (193, 1), 2), *fits.operands[1:])),
    ):
        assert plan_decoded_wgmma(gemm_problem(d), HOPPER, SMALL) is None
        assert not list(decoded_wgmma_schedules(gemm_problem(d), HOPPER))
        with kernel_context(), pytest.raises(NotImplementedError, match="does not suit"):
            emit(d, HOPPER, SMALL)


@layouts
@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_every_code(weights: str, dtype: str, layout: bool) -> None:
    """All codes of a type, infinities and NaN among them, come out as they are."""
    check_every_code(every_code(dtype, weights, b_transposed=layout), HOPPER, SMALL)


@pytest.mark.parametrize("seed", range(3))
@layouts
@pytest.mark.parametrize("weights", ["i4", "i8", "f4E2M1FN"])
def test_blocks_of_ones(weights: str, layout: bool, seed: int) -> None:
    """Zeros with one block of ones in each operand, and scales that are powers of two: sums are exact, wrong places are not."""
    d = make.quantized_matmul(90, 224, 352, "f16", weights, scale="f16", block=32, b_transposed=layout)
    check_blocks_of_ones(d, HOPPER, replace(SMALL, stream=seed * 3), seed)


@pytest.mark.parametrize("weights", WEIGHTS)
@layouts
def test_code(weights: str, layout: bool) -> None:
    """A stage's instructions in the loop, each with its operand A in registers, two groups in flight, and machine code."""
    d = make.quantized_matmul(2048, 4096, 4096, "f16", weights, scale="f16", block=128, b_transposed=layout, out="f16")
    best = min(decoded_wgmma_schedules(gemm_problem(d), HOPPER), key=lambda e: e.seconds).schedule
    with kernel_context():
        emitted = emit(d, HOPPER, best)
        text = compile_kernels(emitted.module, "sm_90a", stop="ptx")
    symbol = emitted.plan.launches[0].symbol
    name = rf"wgmma\.mma_async\.sync\.aligned\.m64n{best.tile_m}k16\.f32\.f16\.f16"
    assert innermost_counts(text, symbol, name) == [4]
    assert innermost_counts(text, symbol, r"wgmma\.commit_group") == [2]
    assert innermost_counts(text, symbol, r"wgmma\.wait_group\.sync\.aligned\s+1;") == [2]
    assert compile_kernels(text, "sm_90a", start="ptx")[:4] == b"\x7fELF"
