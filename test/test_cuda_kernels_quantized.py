"""Quantized products for NVIDIA GPUs without one: block scales, decoded weights, every code of a type, instructions in PTX."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import cuda_dispatches as make
import numpy as np
import pytest
from cuda_emulation import check as check_emulated
from cuda_emulation import run_emulated
from exact_products import check_blocks_of_ones
from ptx_loops import innermost_counts

from ingot.compiler.codegen import mma_table
from ingot.compiler.codegen.cuda_gemm_block_scale import BlockScaleSchedule
from ingot.compiler.codegen.cuda_gemm_decoded import DecodedMmaSchedule, DecodedSimtSchedule
from ingot.compiler.codegen.cuda_gemm_decoded_registers import DecodedRegistersSchedule
from ingot.compiler.codegen.cuda_gemm_decoded_wgmma import DecodedWgmmaSchedule
from ingot.compiler.codegen.cuda_gemm_mma import MmaSchedule
from ingot.compiler.codegen.cuda_gemm_problem import gemm_problem
from ingot.compiler.codegen.cuda_gemm_simt import SimtSchedule
from ingot.compiler.codegen.cuda_gemm_streamed import StreamedSchedule
from ingot.compiler.codegen.cuda_gemv import GemvSchedule
from ingot.compiler.codegen.cuda_matmul import choose, gemv_schedules
from ingot.compiler.codegen.family import emit
from ingot.compiler.codegen.mma_table import MMA_ROWS, MmaRow
from ingot.compiler.reference import run_dispatch
from ingot.compiler.toolchain.stages import compile_kernels
from ingot.cuda_targets import BY_NAME, CUDA_TARGETS
from ingot.dialects.mlir import kernel_context
from ingot.dispatch import Dispatch, TensorArg
from ingot.dtypes import DTYPES
from ingot.target import Target

WEIGHTS = ("i8", "i4", "f8E4M3FN", "f8E5M2", "f4E2M1FN")
MMA = DecodedMmaSchedule(MmaSchedule(64, 64, 32, 32))
SIMT = DecodedSimtSchedule(SimtSchedule(32, 32, 32))
SCALED_ROWS = [r for r in MMA_ROWS if r.scale is not None and r.bits == DTYPES[r.dtype].bits]
scaled_rows = pytest.mark.parametrize("row", SCALED_ROWS, ids=lambda r: r.name)


def positive_scales(d: Dispatch) -> Any:
    """Makes scales positive, as unsigned formats of instructions read them."""

    def prepare(views: list[np.ndarray]) -> None:
        for view in views[2:]:
            if DTYPES["f8E8M0FNU"].np != view.dtype and view.dtype.kind in "fV":
                view[...] = np.abs(view.astype(np.float32)).astype(view.dtype)

    return prepare


def check(
    d: Dispatch, target: str | Target = "sm_90a", schedule: Any = None, sizes: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Run on the emulator and compare with the float64 reference; the matrix instructions that were executed."""
    found = run_emulated(d, target, sizes, schedule, prepare=positive_scales(d))
    (exact,) = run_dispatch(make.unrounded(d), found.operands, sizes, float64=True)
    (peer,) = run_dispatch(d, found.operands, sizes)
    e = make.check_against(found.results[0], exact, peer)
    if d.results[0].dtype == "f32":
        assert e.spread < 1e-6, e  # what elements stand for is exact; only sums are rounded
    return found.executed


def scaled(row: MmaRow, m: Any, n: Any, k: Any, **options: Any) -> Dispatch:
    """A product of two operands that `row` takes."""
    assert row.scale is not None
    s = row.scale
    return make.quantized_matmul(m, n, k, row.dtype, row.dtype, scale=s.dtype, a_scale=s.dtype, block=s.vector, **options)


def name_of(row: MmaRow) -> str:
    """As the emulator counts the instruction."""
    assert row.scale is not None
    scale = {"f8E8M0FNU": "ue8m0", "f8E4M3FN": "ue4m3"}[row.scale.dtype]
    return f"mma.{row.scale.kind}.m{row.m}n{row.n}k{row.k}.{row.ptx}.{row.ptx}.{scale}"


# Block scales -----------------------------------------------------------------------------------------------------------


@scaled_rows
@pytest.mark.parametrize("target", ["sm_120a", "sm_121a"])
@pytest.mark.parametrize("size", [(64, 64, 256), (70, 88, 160), (16, 8, 32), (33, 130, 96)], ids=str)
def test_block_scales(row: MmaRow, target: str, size: tuple[int, int, int]) -> None:
    assert set(check(scaled(row, *size), target)) >= {name_of(row)}


@scaled_rows
@pytest.mark.parametrize("tile", [(128, 128, 64, 32, 2, 128), (16, 64, 16, 16, 4, 128), (64, 64, 32, 32, 2, 64)], ids=str)
def test_block_scales_of_tiles(row: MmaRow, tile: tuple[int, ...]) -> None:
    assert row.scale is not None
    width = tile[-1] * 8 // row.bits // row.scale.vector
    for splits in (1, 3):
        check(scaled(row, 130, 72, 512), "sm_120a", BlockScaleSchedule(*tile, splits=splits, scale_bytes=width))


@scaled_rows
def test_block_scales_of_batches_and_any_size(row: MmaRow) -> None:
    check(scaled(row, 40, 24, 96, batch=(3,)), "sm_120a")
    check(scaled(row, "m", "n", 96), "sm_120a", sizes={"m": 41, "n": 23})
    check(scaled(row, "m", 64, "k", multiples={"k": 32}), "sm_120a", sizes={"m": 20, "k": 224})


@pytest.mark.parametrize(("a", "b"), [("f8E4M3FN", "f4E2M1FN"), ("f4E2M1FN", "f8E5M2"), ("f8E5M2", "f8E4M3FN")])
@pytest.mark.parametrize("layout", [True, False], ids=["NT", "NN"])
def test_block_scales_of_two_types(a: str, b: str, layout: bool) -> None:
    """One instruction takes them; 4-bit elements lie in bytes of their own."""
    for size in ((64, 64, 128), (33, 24, 96), (20, 21, 65)):
        d = make.quantized_matmul(
            *size, a, b, scale="f8E8M0FNU", a_scale="f8E8M0FNU", block=32, b_transposed=layout, a_transposed=not layout
        )
        ptx = {r.dtype: r.ptx for r in MMA_ROWS}
        assert f"mma.mxf8f6f4.m16n8k32.{ptx[a]}.{ptx[b]}.ue8m0" in check(d, "sm_120a")


def test_four_bits_in_bytes_where_no_instruction_takes_pairs() -> None:
    target = replace(BY_NAME["sm_120a"], mma=("mma.m16n8k32.mxf8f6f4.e2m1",))
    row = mma_table.MMA_BY_NAME["mma.m16n8k32.mxf8f6f4.e2m1"]
    for size in ((64, 64, 128), (33, 24, 96), (20, 21, 65)):
        assert name_of(row) in check(scaled(row, *size), target)


def test_block_scales_of_operands_that_lie_the_other_way() -> None:
    row = SCALED_ROWS[0]
    check(scaled(row, 48, 80, 96, a_transposed=True, b_transposed=False), "sm_120a")


@scaled_rows
@pytest.mark.parametrize("target", ["sm_75", "sm_89", "sm_90a", "sm_100a"])
def test_block_scales_without_an_instruction_are_decoded(row: MmaRow, target: str) -> None:
    """Through 16 bits where they hold element times scale: on sm_75, that is so of NVFP4 alone."""
    executed = check(scaled(row, 70, 88, 160), target)
    assert bool(executed) == (target != "sm_75" or row.scale == SCALED_ROWS[-1].scale), executed
    check(scaled(row, 2, 88, 160), target)


def test_four_bit_rows_that_begin_within_a_byte_are_decoded() -> None:
    d = scaled(SCALED_ROWS[-1], 20, 24, 33)
    assert not any("block" in x or "mxf4" in x for x in check(d, "sm_120a"))


# Weights ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize(("dtype", "target"), [
    ("f16", "sm_75"), ("bf16", "sm_75"), ("f16", "sm_80"), ("bf16", "sm_89"), ("bf16", "sm_120a"),
])  # fmt: skip
def test_weights(weights: str, dtype: str, target: str) -> None:
    """Per-channel and per-block scales, zero points of integers, both layouts, sizes that fill tiles and sizes that do not."""
    zero = weights[0] == "i"
    per_block = make.quantized_matmul(70, 40, 96, dtype, weights, scale=dtype, block=32, zero=zero)
    executed = check(per_block, target)
    assert bool(executed) == (dtype == "f16" or target != "sm_75")
    check(make.quantized_matmul(64, 32, 64, dtype, weights, scale="f32", b_transposed=False), target)
    check(make.quantized_matmul(33, 33, 50, dtype, weights, scale="f32", zero=zero, b_transposed=False), target)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("layout", [True, False], ids=["NT", "NN"])
@pytest.mark.parametrize("target", ["sm_75", "sm_90a"])
def test_weights_of_few_rows(weights: str, rows: int, layout: bool, target: str) -> None:
    zero = weights[0] == "i"
    d = make.quantized_matmul(rows, 96, 256, "f16", weights, scale="f16", block=64, zero=zero, b_transposed=layout)
    assert not check(d, target, streamed(d, target))


def streamed(d: Dispatch, target: str) -> GemvSchedule:
    """The schedule that reads B once."""
    return min(gemv_schedules(gemm_problem(d), BY_NAME[target]), key=lambda e: e.seconds).schedule


@pytest.mark.parametrize("layout", [True, False], ids=["NT", "NN"])
def test_weights_of_few_rows_and_long_sums(layout: bool) -> None:
    """Blocks share the sums, a part of K each."""
    d = make.quantized_matmul(2, 200, 4096, "f16", "i4", scale="f16", block=128, b_transposed=layout, out="f16")
    schedule = streamed(d, "sm_90a")
    assert schedule.cluster > 1
    check(d, schedule=schedule)
    check(d, schedule=GemvSchedule(2, schedule.lanes, layout, splits=2))


def test_weights_of_one_type_without_scales() -> None:
    check(make.quantized_matmul(40, 48, 64, "bf16", "i8"))
    check(make.quantized_matmul(40, 48, 64, "f16", "f8E4M3FN", b_transposed=False), "sm_80")
    check(make.quantized_matmul(40, 48, 64, "f4E2M1FN", "f4E2M1FN"))
    for size, layout in (((40, 48, 64), True), ((17, 33, 65), True), ((64, 64, 64), False)):
        d = make.quantized_matmul(*size, "f4E2M1FN", "f4E2M1FN", b_transposed=layout)
        assert "mma.m16n8k32.e2m1.e2m1" in check(d, "sm_120a")
    check(make.quantized_matmul(40, 48, 64, "f32", "i4", scale="f32", block=16))


def test_zero_points_that_are_floats() -> None:
    """Between integers, as calibration may leave them, and with unsigned weights."""
    for schedule in (MMA, SIMT):
        d = make.quantized_matmul(40, 48, 64, "f16", "i4", scale="f16", block=32, zero=True, unsigned=True)
        check(replace(d, operands=(*d.operands[:3], replace(d.operands[3], dtype="f16"))), schedule=schedule)


def test_unsigned_weights() -> None:
    for weights in ("i8", "i4"):
        d = make.quantized_matmul(40, 48, 64, "f16", weights, scale="f16", block=32, zero=True, unsigned=True)
        check(d)
        check(replace(d, operands=(replace(d.operands[0], dtype="f32"), *d.operands[1:])), schedule=SIMT)


def test_weights_of_any_size_and_of_batches() -> None:
    d = make.quantized_matmul("m", 72, "k", "f16", "i4", scale="f16", block=32, multiples={"k": 32})
    check(d, sizes={"m": 19, "k": 160})
    check(make.quantized_matmul(20, 40, 64, "f16", "i4", scale="f16", block=32, batch=(2,)))
    check(make.quantized_matmul(20, 40, 60, "f16", "i4", scale="f16", block=12, zero=True), schedule=MMA)


def test_strided_scales() -> None:
    """Scales as a model stores them: [blocks, n] beside weights [n, k]."""
    d = make.quantized_matmul(40, 48, 64, "f16", "i4", scale="f16", block=16)
    a, b, s = d.operands
    d = replace(d, operands=(a, b, TensorArg(s.dtype, s.shape, (50, 1), 2)))
    check(d)
    check(replace(d, operands=(TensorArg("f16", (2, 64), (64, 1)), *d.operands[1:]),
                  results=(TensorArg("f32", (2, 48), (48, 1)),)))  # fmt: skip


ROUTES = {
    "mma sm_75": ("sm_75", DecodedMmaSchedule(MmaSchedule(16, 64, 16, 16, 2))),
    "mma sm_90a": ("sm_90a", DecodedMmaSchedule(MmaSchedule(16, 64, 16, 16))),
    "mma sm_120a": ("sm_120a", DecodedMmaSchedule(MmaSchedule(16, 64, 16, 16))),
    "simt": ("sm_80", SIMT),
    "few rows": ("sm_80", None),
}


@pytest.mark.parametrize(("target", "schedule"), ROUTES.values(), ids=ROUTES)
@pytest.mark.parametrize("weights", WEIGHTS)
def test_every_code(weights: str, target: str, schedule: Any) -> None:
    """All codes of a type, infinities and NaN among them, come out as they are."""
    t = DTYPES[weights]
    count = 1 << t.bits
    d = make.quantized_matmul(1, count, 1, "f16", weights, b_transposed=False)

    def fill(views: list[np.ndarray]) -> None:
        views[0][...] = 1
        codes = np.arange(count, dtype=np.uint8)
        if weights == "i4":
            codes = (codes ^ 8) - 8
        views[1][0, :] = codes.view(t.np)

    found = run_emulated(d, target, schedule=schedule, prepare=fill)
    assert np.array_equal(found.results[0], found.operands[1].astype(np.float32), equal_nan=True)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", ["sm_120a", "sm_90a", "weights", "few rows"])
def test_blocks_of_ones(case: str, seed: int) -> None:
    """Zeros with one block of ones in each operand, and scales that are powers of two: sums are exact, wrong places are not."""
    if case.startswith("sm"):
        d, target, schedule = scaled(SCALED_ROWS[-1], 40, 56, 160), case, None
    else:
        m, schedule = (40, MMA) if case == "weights" else (2, None)
        d, target = make.quantized_matmul(m, 56, 160, "f16", "i4", scale="f16", block=32), "sm_80"
    check_blocks_of_ones(d, target, schedule, seed)


# The table and the code -------------------------------------------------------------------------------------------------


def test_a_row_added_to_the_table_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """An instruction that no target lists (mma.m16n8k16 of int8, sm_80) needs its row and nothing else."""
    row = MmaRow("mma.m16n8k16.s8", "mma", 16, 8, 16, "i8", "s8", "i32", 80, 8, tag="IMMA")
    monkeypatch.setitem(mma_table.MMA_BY_NAME, row.name, row)
    target = replace(BY_NAME["sm_80"], mma=(row.name,))
    for size in ((64, 64, 64), (70, 88, 48)):
        d = make.matmul(*size, "i8", acc="i32", b_transposed=True)
        found = run_emulated(d, target)
        assert np.array_equal(found.results[0], run_dispatch(d, found.operands)[0])
        assert {name for name in found.executed if name.startswith("mma")} == {"mma.m16n8k16.s8.s8"}


def test_a_block_scaled_row_added_to_the_table_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The instruction of NVFP4 in its other form, with an E8M0 scale for 32 elements (`scale_vec::2X`)."""
    known = SCALED_ROWS[-1]
    assert known.scale is not None
    row = replace(known, name="mma.m16n8k64.test", scale=replace(known.scale, dtype="f8E8M0FNU", vector=32, size=2))
    monkeypatch.setitem(mma_table.MMA_BY_NAME, row.name, row)
    assert set(check(scaled(row, 48, 40, 192), replace(BY_NAME["sm_120a"], mma=(row.name,)))) >= {name_of(row)}


@pytest.mark.parametrize("row", [r for r in MMA_ROWS if r.scale is not None], ids=lambda r: r.name)
@pytest.mark.parametrize("target", [t.name for t in CUDA_TARGETS if t.sm >= 120])
def test_code_of_block_scales(row: MmaRow, target: str) -> None:
    """Exactly the instructions of a warp's tile in the innermost loop, and machine code."""
    assert row.scale is not None
    only = replace(BY_NAME[target], mma=(row.name,))
    d = scaled(row, 256, 256, 1024)
    schedule = BlockScaleSchedule(128, 128, 64, 32, 2, 128, 1, 128 * 8 // row.bits // row.scale.vector)
    with kernel_context():
        emitted = emit(d, only, schedule)
        text = compile_kernels(emitted.module, target, stop="ptx")
    shape = rf"mma\.sync\.aligned\.m{row.m}n{row.n}k{row.k}\.row\.col"
    name = rf"{shape}\.kind::{row.scale.kind}\.block_scale\.\S*{row.ptx}\.{row.ptx}"
    # 16 x 8 blocks of a warp, and steps of 32 bytes of 128.
    assert innermost_counts(text, emitted.plan.launches[0].symbol, name) == [4 * 4 * 4]
    assert compile_kernels(text, target, start="ptx")[:4] == b"\x7fELF"


@pytest.mark.parametrize("target", [t.name for t in CUDA_TARGETS if t.sm >= 120])
def test_code_of_four_bit_floats(target: str) -> None:
    """Without scales, 4-bit floats take the instruction that reads them from bytes."""
    d = make.quantized_matmul(256, 256, 1024, "f4E2M1FN", "f4E2M1FN")
    schedule = DecodedMmaSchedule(MmaSchedule(64, 64, 32, 32, 2))
    with kernel_context():
        emitted = emit(d, BY_NAME[target], schedule)
        text = compile_kernels(emitted.module, target, stop="ptx")
    name = r"mma\.sync\.aligned\.m16n8k32\.row\.col\.kind::f8f6f4\.f32\.e2m1\.e2m1"
    assert innermost_counts(text, emitted.plan.launches[0].symbol, name) == [2 * 4 * 4]
    assert compile_kernels(text, target, start="ptx")[:4] == b"\x7fELF"


@pytest.mark.parametrize("target", [t.name for t in CUDA_TARGETS])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_code_of_weights(target: str, weights: str) -> None:
    """The instruction of a's type in the loop, conversions by hardware where there are any, and machine code."""
    d = make.quantized_matmul(256, 256, 1024, "f16", weights, scale="f16", block=128)
    schedule = DecodedMmaSchedule(MmaSchedule(64, 64, 32, 32, 2))
    with kernel_context():
        emitted = emit(d, BY_NAME[target], schedule)
        text = compile_kernels(emitted.module, target, stop="ptx")
    shape, steps = ("m16n8k8", 8) if target == "sm_75" else ("m16n8k16", 4)
    name = rf"mma\.sync\.aligned\.{shape}\.row\.col\.f32\.f16"
    assert innermost_counts(text, emitted.plan.launches[0].symbol, name) == [2 * 4 * steps]
    sm = BY_NAME[target].sm
    hardware = {"f8E4M3FN": sm >= 89, "f8E5M2": sm >= 89, "f4E2M1FN": sm >= 100}.get(weights, False)
    assert bool(re.search(r"cvt\.rn\.f16x2\.e", text)) == hardware
    with kernel_context():
        d = make.quantized_matmul(1, 256, 1024, "f16", weights, scale="f16", block=128)
        module = emit(d, BY_NAME[target]).module
        assert compile_kernels(module, target)[:4] == b"\x7fELF"


def test_choices() -> None:
    """Few rows are streamed; more take the block-scaled instruction, or 16 bits, or f32."""
    h200, consumer, a100 = BY_NAME["sm_90a"], BY_NAME["sm_120a"], BY_NAME["sm_80"]
    for d, target, kind in (
        (make.quantized_matmul(1, 4096, 4096, "f16", "i4", scale="f16", block=128), h200, StreamedSchedule),
        (make.quantized_matmul(1, 4096, 4096, "f32", "i4", scale="f32", block=128), h200, GemvSchedule),
        (make.quantized_matmul(512, 4096, 4096, "f16", "i4", scale="f16", block=128), h200, DecodedWgmmaSchedule),
        (make.quantized_matmul(512, 4096, 4096, "f16", "i4", scale="f16", block=128), a100, DecodedRegistersSchedule),
        (make.quantized_matmul(512, 4096, 4096, "f16", "i4", scale="f16", block=128), BY_NAME["sm_75"], DecodedMmaSchedule),
        (make.quantized_matmul(512, 512, 512, "f32", "i4", scale="f32", block=128), h200, DecodedSimtSchedule),
        (scaled(SCALED_ROWS[-1], 512, 512, 512), consumer, BlockScaleSchedule),
        (scaled(SCALED_ROWS[-1], 512, 512, 512), h200, DecodedMmaSchedule),
    ):
        assert type(choose(gemm_problem(d), target)) is kind


@pytest.mark.parametrize(("d", "target", "schedule", "names"), [
    (make.quantized_matmul(16, 16, 16, "f64", "i4"), "sm_90a", None, "f64 and i4"),
    (scaled(SCALED_ROWS[0], 64, 64, 64), "sm_90a", BlockScaleSchedule(64, 64, 32, 32), "block-scaled instruction for f8E4M3FN"),
    (make.quantized_matmul(64, 64, 64, "bf16", "i4"), "sm_75", MMA, "decoded operands of bf16 and i4"),
], ids=["f64", "block scales", "bf16"])  # fmt: skip
def test_what_a_target_lacks_is_named(d: Dispatch, target: str, schedule: Any, names: str) -> None:
    with kernel_context(), pytest.raises(NotImplementedError, match=names):
        emit(d, BY_NAME[target], schedule)


# Scales in the epilogue ---------------------------------------------------------------------------------------------------

BYTES = {"dtype": "i8", "acc": "i32", "out": "i32"}
EIGHT = {"dtype": "f8E4M3FN", "out": "f32"}
SAME = (1, 1, 1, 1)


@pytest.mark.parametrize("target", ["sm_75", "sm_80", "sm_89", "sm_90a", "sm_120a"])
@pytest.mark.parametrize("out", ["i8", "f16"])
@pytest.mark.parametrize("types", [BYTES, EIGHT], ids=["i8", "f8"])
@pytest.mark.parametrize(
    "window",
    [
        make.conv(1, (7, 6), 32, 24, (3, 3), pads=SAME),
        make.conv(1, (9, 9), 3, 16, (7, 7), strides=(2, 2), pads=(3,) * 4),
        make.conv(2, (5, 5), 16, 40, (1, 1)),
        make.conv(1, (6, 6), 16, 16, (3, 3), pads=SAME, groups=16),
        make.conv(1, (6, 6), 16, 32, (3, 3), pads=SAME, groups=2),
    ],
    ids=["3x3", "stem", "1x1", "depthwise", "groups"],
)
def test_convolutions_of_eight_bits(window: Dispatch, types: dict[str, str], out: str, target: str) -> None:
    dtype, acc = types["dtype"], types.get("acc", "f32")
    attrs = {**dict(window.attrs), "acc": acc}
    operands = tuple(replace(t, dtype=dtype) for t in window.operands)
    d = replace(window, operands=operands, attrs=tuple(sorted(attrs.items())))
    check_emulated(make.quantized_in_epilogue(d, out), target)


@pytest.mark.parametrize("target", ["sm_75", "sm_80", "sm_89", "sm_90a", "sm_120a"])
@pytest.mark.parametrize("out", ["i8", "f16"])
@pytest.mark.parametrize(("dtype", "acc"), [("i8", "i32"), ("f8E4M3FN", "f32")])
@pytest.mark.parametrize("m", [1, 40])
def test_products_of_eight_bits(m: int, dtype: str, acc: str, out: str, target: str) -> None:
    for transposed in (False, True):
        d = make.matmul(m, 48 if m > 1 else 480, 96, dtype, acc=acc, out="f32", b_transposed=transposed)
        check_emulated(make.quantized_in_epilogue(d, out), target)


def test_rounded_results_are_judged_by_their_column() -> None:
    """A column of large values may round to the other integer near the middle, where one of small values may not."""
    reference = np.array([[1.49, 21.4775], [-1.0, 100.0], [1.25, -75.0]])
    nearest = np.rint(reference).astype(np.int8)
    make.check_rounded(nearest, reference, 13)
    other = nearest + np.array([[0, 1], [0, 0], [0, 0]], np.int8)  # 22 for 21.4775: 0.5225
    make.check_rounded(other, reference, 13)
    with pytest.raises(AssertionError, match=r"0\.51 from the unrounded result"):
        make.check_rounded(nearest + np.array([[1, 0], [0, 0], [0, 0]], np.int8), reference, 13)  # 2 for 1.49
