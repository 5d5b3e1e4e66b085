"""Products of quantized weights by mma.sync, decoded in registers: every type and layout, tiles, sizes, PTX."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import cuda_dispatches as make
import pytest
from cuda_emulation import run_emulated
from exact_products import check_blocks_of_ones, check_every_code, every_code
from ptx_loops import innermost_counts

from ingot.compiler.codegen.cuda_gemm_decoded_registers import DecodedRegistersSchedule, registers_row
from ingot.compiler.codegen.cuda_gemm_mma import MmaSchedule
from ingot.compiler.codegen.cuda_gemm_problem import gemm_problem
from ingot.compiler.codegen.family import emit
from ingot.compiler.reference import run_dispatch
from ingot.compiler.toolchain.stages import compile_kernels
from ingot.cuda_targets import BY_NAME, CUDA_TARGETS
from ingot.dialects.mlir import kernel_context
from ingot.dispatch import Dispatch, TensorArg
from ingot.dtypes import DTYPES

WEIGHTS = ("i8", "i4", "f8E4M3FN", "f8E5M2", "f4E2M1FN")
SMALL = DecodedRegistersSchedule(MmaSchedule(64, 64, 32, 32))
layouts = pytest.mark.parametrize("layout", [True, False], ids=["NT", "NN"])


def check(
    d: Dispatch, target: str = "sm_80", schedule: DecodedRegistersSchedule = SMALL, sizes: dict[str, int] | None = None
) -> None:
    """Run on the emulator and compare with the float64 reference."""
    found = run_emulated(d, target, sizes, schedule)
    (exact,) = run_dispatch(make.unrounded(d), found.operands, sizes, float64=True)
    (peer,) = run_dispatch(d, found.operands, sizes)
    e = make.check_against(found.results[0], exact, peer)
    if d.results[0].dtype == "f32":
        assert e.spread < 1e-6, e  # weights are what they stand for; only sums are rounded


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize(("dtype", "target"), [("f16", "sm_80"), ("bf16", "sm_80"), ("bf16", "sm_89"), ("f16", "sm_120a")])
@layouts
def test_weights(weights: str, dtype: str, target: str, layout: bool) -> None:
    """Per-channel and per-block scales of either type, zero points of integers."""
    zero = weights[0] == "i"
    for options in ({"scale": dtype, "block": 32, "zero": zero}, {"scale": "f32"}):
        check(make.quantized_matmul(66, 96, 192, dtype, weights, b_transposed=layout, **options), target)


@layouts
@pytest.mark.parametrize("tile", [(128, 128, 64, 32), (32, 64, 16, 32, 4), (16, 64, 16, 16, 4), (64, 64, 32, 32, 3, 128, 3)])
def test_tiles(tile: tuple[int, ...], layout: bool) -> None:
    for weights, block in (("i4", 16), ("i8", 128)):
        d = make.quantized_matmul(130, 136, 640, "f16", weights, scale="f16", block=block, b_transposed=layout, out="f16")
        check(d, schedule=DecodedRegistersSchedule(MmaSchedule(*tile)))


@layouts
def test_sizes_that_tiles_do_not_divide(layout: bool) -> None:
    for weights, n, k in (("i4", 40, 96), ("i4", 104, 224), ("i8", 44, 80), ("f8E5M2", 36, 144)):
        check(make.quantized_matmul(33, n, k, "f16", weights, scale="f16", block=16, b_transposed=layout))


def test_any_rows_and_batches() -> None:
    check(make.quantized_matmul("m", 64, 128, "f16", "i4", scale="f16", block=32), sizes={"m": 75})
    check(make.quantized_matmul(20, 72, 64, "f16", "i4", scale="f16", block=32, batch=(3,), zero=True))
    check(make.quantized_matmul(20, 72, 64, "f16", "i8", scale="f16", block=32, batch=(3,), b_transposed=False, zero=True))


def test_rows_that_are_neighbours_and_zero_points_that_are_floats() -> None:
    d = make.quantized_matmul(64, 64, 64, "f16", "i4", scale="f16", block=32, zero=True, unsigned=True, a_transposed=True)
    check(d)
    check(replace(d, operands=(*d.operands[:3], replace(d.operands[3], dtype="f16"))))


def test_what_does_not_suit_is_decoded_otherwise() -> None:
    """Blocks that divide no stage, lines that cp.async cannot read, rows of f32, and a target without it."""
    fits = make.quantized_matmul(200, 160, 192, "f16", "i4", scale="f16", block=32)
    assert registers_row(gemm_problem(fits), BY_NAME["sm_80"], SMALL.mma) is not None
    assert registers_row(gemm_problem(fits), BY_NAME["sm_75"], SMALL.mma) is None
    a = fits.operands[0]
    for d in (
        make.quantized_matmul(200, 160, 192, "f16", "i4", scale="f16", block=24),
        make.quantized_matmul(200, 160, 192, "f16", "i4", scale="f16", block=8),
        make.quantized_matmul(200, 160, 196, "f16", "i4", scale="f16"),
        make.quantized_matmul(200, 132, 192, "f16", "i4", scale="f16", block=32, b_transposed=False),
        make.quantized_matmul(200, 160, 192, "f32", "i4", scale="f32", block=32),
        replace(fits, operands=(TensorArg("f16", a.shape, (193, 1), 2), *fits.operands[1:])),
    ):
        assert registers_row(gemm_problem(d), BY_NAME["sm_80"], SMALL.mma) is None
        with kernel_context(), pytest.raises(NotImplementedError, match="does not suit"):
            emit(d, BY_NAME["sm_80"], SMALL)


@layouts
@pytest.mark.parametrize(("dtype", "target"), [("f16", "sm_80"), ("bf16", "sm_80"), ("f16", "sm_120a")])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_every_code(weights: str, dtype: str, target: str, layout: bool) -> None:
    """All codes of a type, infinities and NaN among them, come out as they are."""
    check_every_code(every_code(dtype, weights, b_transposed=layout), target, SMALL)


@pytest.mark.parametrize("seed", range(3))
@layouts
@pytest.mark.parametrize("weights", ["i4", "i8", "f4E2M1FN"])
def test_blocks_of_ones(weights: str, layout: bool, seed: int) -> None:
    """Zeros with one block of ones in each operand, and scales that are powers of two: sums are exact, wrong places are not."""
    d = make.quantized_matmul(90, 104, 352, "f16", weights, scale="f16", block=32, b_transposed=layout)
    check_blocks_of_ones(d, "sm_80", SMALL, seed)


@pytest.mark.parametrize("target", [t.name for t in CUDA_TARGETS if t.cp_async])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_code(target: str, weights: str) -> None:
    """A stage's instructions in the loop, weights past registers into shared memory, hardware's conversions, machine code."""
    for layout in (True, False):
        options: dict[str, Any] = {"scale": "f16", "block": 128, "b_transposed": layout}
        d = make.quantized_matmul(256, 256, 1024, "f16", weights, **options)
        with kernel_context():
            emitted = emit(d, BY_NAME[target], SMALL)
            text = compile_kernels(emitted.module, target, stop="ptx")
        symbol = emitted.plan.launches[0].symbol
        assert innermost_counts(text, symbol, r"mma\.sync\.aligned\.m16n8k16\.row\.col\.f32\.f16") == [2 * 4 * 4]
        assert innermost_counts(text, symbol, r"cp\.async\.cg\.shared\.global") == [4 + DTYPES[weights].bits // 4]
        assert innermost_counts(text, symbol, r"st\.shared") == []
        hardware = BY_NAME[target].sm >= 89 and weights[:2] == "f8"
        assert bool(re.search(r"cvt\.rn\.f16x2\.e", text)) == hardware
        assert compile_kernels(text, target, start="ptx")[:4] == b"\x7fELF"
