"""Products of few rows with quantized weights that are decoded in registers: every type and layout, sums over blocks, PTX."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import cuda_dispatches as make
import pytest
from cuda_emulation import run_emulated
from exact_products import check_blocks_of_ones, check_every_code, every_code
from ptx_loops import innermost_counts

from ingot.compiler.codegen.cuda_gemm_problem import gemm_problem
from ingot.compiler.codegen.cuda_gemm_streamed import StreamedSchedule, streamed_schedules
from ingot.compiler.codegen.cuda_matmul import choose
from ingot.compiler.codegen.cuda_weight_fragments import WeightLanes, weight_lanes
from ingot.compiler.codegen.family import emit
from ingot.compiler.reference import run_dispatch
from ingot.compiler.toolchain.stages import compile_kernels
from ingot.cuda_targets import BY_NAME, CUDA_TARGETS
from ingot.dialects.mlir import kernel_context
from ingot.dispatch import Dispatch, TensorArg

WEIGHTS = ("i8", "i4", "f8E4M3FN", "f8E5M2", "f4E2M1FN")
layouts = pytest.mark.parametrize("layout", [True, False], ids=["NT", "NN"])


def streamed(d: Dispatch, target: str = "sm_90a", **changes: Any) -> StreamedSchedule:
    """The schedule that is chosen for a dispatch, with changes."""
    found = choose(gemm_problem(d), BY_NAME[target])
    assert isinstance(found, StreamedSchedule), found
    return replace(found, **changes)


def check(d: Dispatch, target: str = "sm_90a", **changes: Any) -> dict[str, int]:
    """Run on the emulator and compare with the float64 reference; the matrix instructions that were executed."""
    found = run_emulated(d, target, schedule=streamed(d, target, **changes))
    (exact,) = run_dispatch(make.unrounded(d), found.operands, float64=True)
    (peer,) = run_dispatch(d, found.operands)
    e = make.check_against(found.results[0], exact, peer)
    if d.results[0].dtype == "f32":
        assert e.spread < 1e-6, e  # weights are what they stand for; only sums are rounded
    return found.executed


@pytest.mark.parametrize("weights", WEIGHTS)
@layouts
@pytest.mark.parametrize(("dtype", "target"), [
    ("f16", "sm_75"), ("f16", "sm_80"), ("bf16", "sm_80"), ("f16", "sm_89"), ("bf16", "sm_90a"), ("f16", "sm_120a"),
])  # fmt: skip
def test_weights(weights: str, layout: bool, dtype: str, target: str) -> None:
    """Per-channel and per-block scales of either type, zero points of integers, rows in one or several instructions."""
    zero = weights[0] == "i"
    shape = "m16n8k8" if target == "sm_75" else "m16n8k16"
    for m, options in (
        (1, {"scale": dtype, "block": 32, "zero": zero}), (5, {"scale": dtype, "block": 16}), (12, {"scale": "f32"}),
        (2, {"scale": {"f16": "bf16", "bf16": "f16"}[dtype], "block": 128, "zero": zero}), (1, {}),
    ):  # fmt: skip
        executed = check(make.quantized_matmul(m, 160, 384, dtype, weights, b_transposed=layout, **options), target)
        assert any(shape in name for name in executed), executed


@layouts
@pytest.mark.parametrize("m", [9, 31, 64])
def test_many_rows(m: int, layout: bool) -> None:
    for weights in ("i4", "i8"):
        check(make.quantized_matmul(m, 136, 512, "f16", weights, scale="f16", block=128, b_transposed=layout, out="f16"))


@layouts
def test_sums_of_a_cluster(layout: bool) -> None:
    """Blocks that share K add their sums in one launch; where there are no clusters, in a second one."""
    d = make.quantized_matmul(3, 192, 4096, "f16", "i4", scale="f16", block=128, zero=True, b_transposed=layout, out="f16")
    schedule = streamed(d)
    assert (schedule.cluster > 1, schedule.splits) == (True, 1), schedule
    with kernel_context():
        assert len(emit(d, BY_NAME["sm_90a"], schedule).plan.launches) == 1
    check(d)
    older = streamed(d, "sm_80")
    assert (older.cluster, older.splits > 1) == (1, True), older
    check(d, "sm_80")


@layouts
@pytest.mark.parametrize("k", [416, 1056, 2080])
def test_sums_that_batches_do_not_divide(k: int, layout: bool) -> None:
    """Past the end of K, rows are zeros, and weights those of the last k."""
    for weights in ("i4", "f8E4M3FN"):
        d = make.quantized_matmul(2, 80, k, "f16", weights, scale="f16", block=32, b_transposed=layout)
        check(d)
        check(d, cluster=4)


def test_columns_and_alignments_that_narrow_vectors() -> None:
    for n, k, layout in ((33, 96, True), (77, 72, True), (40, 88, False), (36, 40, False), (24, 48, True)):
        for weights in ("i4", "i8"):
            d = make.quantized_matmul(3, n, k, "f16", weights, scale="f16", block=8, b_transposed=layout)
            if weight_lanes(gemm_problem(d), 16) is not None:
                check(d)
    wide = make.quantized_matmul(3, 64, 256, "f16", "i4", scale="f16", block=32)
    assert gemm_problem(wide).b.align >= 16
    for align in (8, 4):
        d = replace(wide, operands=(wide.operands[0], replace(wide.operands[1], align=align), *wide.operands[2:]))
        assert streamed(d).lanes.nbytes == align
        check(d)
    # Rows that begin anywhere are read element by element.
    a = TensorArg("f16", (3, 256), (257, 1), 2)
    check(replace(wide, operands=(a, *wide.operands[1:])))


def test_weights_that_do_not_suit_are_streamed_otherwise() -> None:
    """Blocks that no chunk of k lies in, k below a chunk, sizes that are not constants, rows of f32."""
    for d in (
        make.quantized_matmul(2, 64, 96, "f16", "i4", scale="f16", block=12),
        make.quantized_matmul(2, 64, 4, "f16", "i4", scale="f16"),
        make.quantized_matmul(2, 64, "k", "f16", "i4", scale="f16", block=32, multiples={"k": 32}),
        make.quantized_matmul(2, 64, 64, "f32", "i4", scale="f32"),
        make.quantized_matmul(65, 64, 64, "f16", "i4", scale="f16"),
    ):
        assert not list(streamed_schedules(gemm_problem(d), BY_NAME["sm_90a"], 64))


def test_any_columns_and_batches() -> None:
    d = make.quantized_matmul(2, "n", 128, "f16", "i4", scale="f16", block=32)
    found = run_emulated(d, "sm_90a", {"n": 45}, streamed(d))
    (exact,) = run_dispatch(d, found.operands, {"n": 45}, float64=True)
    assert make.errors(found.results[0], exact).spread < 1e-6
    check(make.quantized_matmul(2, 40, 64, "f16", "i4", scale="f16", block=32, batch=(3,), zero=True))
    check(make.quantized_matmul(2, 40, 64, "f16", "i8", scale="f16", block=32, batch=(3,), b_transposed=False, zero=True))


@layouts
def test_zero_points_that_are_floats_or_unsigned(layout: bool) -> None:
    for weights in ("i8", "i4"):
        options: dict[str, Any] = {"scale": "f16", "block": 32, "zero": True, "unsigned": True}
        d = make.quantized_matmul(4, 48, 64, "f16", weights, b_transposed=layout, **options)
        check(d)
        check(replace(d, operands=(*d.operands[:3], replace(d.operands[3], dtype="f16"))))


def test_zero_points_of_neighbours() -> None:
    """Columns that are neighbours in memory have zero points that are, which are read together where they are aligned."""
    for n in (48, 72, 80):
        check(make.quantized_matmul(4, n, 128, "bf16", "i4", scale="bf16", block=64, zero=True, b_transposed=False))
        check(make.quantized_matmul(4, n, 128, "f16", "i4", scale="f16", block=64, zero=True, b_transposed=False))


def test_rows_that_are_quantized_too() -> None:
    """NVFP4 and MXFP8 where no instruction takes them: rows are decoded on their way into shared memory."""
    for dtype, scale, block in (("f4E2M1FN", "f8E4M3FN", 16), ("f4E2M1FN", "f8E8M0FNU", 32), ("f8E4M3FN", "f8E8M0FNU", 32)):
        d = make.quantized_matmul(3, 72, 256, dtype, dtype, scale=scale, a_scale=scale, block=block)
        check(d)


@layouts
@pytest.mark.parametrize("target", ["sm_75", "sm_80", "sm_90a", "sm_120a"])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_every_code(weights: str, target: str, layout: bool) -> None:
    """All codes of a type, infinities and NaN among them, come out as they are."""
    d = every_code("f16", weights, 32, 16, b_transposed=layout)
    check_every_code(d, target, streamed(d, target))


@pytest.mark.parametrize("seed", range(4))
@layouts
@pytest.mark.parametrize("weights", ["i4", "i8", "f4E2M1FN"])
def test_blocks_of_ones(weights: str, layout: bool, seed: int) -> None:
    """Zeros with one block of ones in each operand, and scales that are powers of two: sums are exact, wrong places are not."""
    d = make.quantized_matmul(1 + 3 * seed, 120, 1056, "f16", weights, scale="f16", block=32, b_transposed=layout)
    check_blocks_of_ones(d, "sm_90a", streamed(d), seed)


@pytest.mark.parametrize("target", [t.name for t in CUDA_TARGETS])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_code(target: str, weights: str) -> None:
    """Exactly the instructions of a batch in the loop, loads of whole vectors, hardware's conversions, and machine code."""
    hopper = BY_NAME[target].sm >= 90
    for layout in (True, False):
        d = make.quantized_matmul(1, 8192, 12288, "f16", weights, scale="f16", block=128, b_transposed=layout)
        s = streamed(d, target)
        assert s.staged == s.batches(12288) > 2
        with kernel_context():
            emitted = emit(d, BY_NAME[target], s)
            text = compile_kernels(emitted.module, target, stop="ptx")
        shape, per_chunk = ("m16n8k8", 4) if target == "sm_75" else ("m16n8k16", 2)
        name = rf"mma\.sync\.aligned\.{shape}\.row\.col\.f32\.f16"
        symbol = emitted.plan.launches[0].symbol
        assert innermost_counts(text, symbol, name) == [s.depth * s.lanes.chunks * per_chunk * s.tiles]
        lines = 2 * s.tiles if layout else 8 * s.tiles // s.lanes.tiles
        words = s.lanes.nbytes // 4
        vectors = innermost_counts(text, symbol, rf"ld\.global(?:\.nc)?\.v{words}\.b32")
        assert s.depth * lines in vectors, (vectors, s)
        assert len(emitted.plan.launches) == (1 if hopper else 1 + (s.splits > 1))
        hardware = BY_NAME[target].sm >= 89 and weights[:2] == "f8"
        assert bool(re.search(r"cvt\.rn\.f16x2\.e", text)) == hardware
        assert compile_kernels(text, target, start="ptx")[:4] == b"\x7fELF"


def test_a_schedule_that_does_not_suit_is_named() -> None:
    d = make.quantized_matmul(2, 64, 64, "f16", "i4", scale="f16", block=32)
    other = StreamedSchedule(2, WeightLanes(False, 8, 4), 8, 1, 8, 1)
    with kernel_context(), pytest.raises(NotImplementedError, match="does not suit f16 and i4"):
        emit(d, BY_NAME["sm_90a"], other)
