"""Packed weights for the targets that multiply by mma.sync: every type, division and size, choices, PTX and machine code."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import cuda_dispatches as make
import numpy as np
import pytest
from cubin_loops import HMMA, innermost_opcodes
from cuda_emulation import run_emulated
from exact_products import check_every_code, check_exactly, every_code, fill_blocks_of_ones
from packed_products import check_packed, packing
from ptx_loops import innermost_counts

from ingot.compiler.codegen.cuda_gemm_decoded import DecodedMmaSchedule
from ingot.compiler.codegen.cuda_gemm_decoded_registers import DecodedRegistersSchedule, registers_row
from ingot.compiler.codegen.cuda_gemm_mma import MmaSchedule
from ingot.compiler.codegen.cuda_gemm_problem import gemm_problem
from ingot.compiler.codegen.cuda_gemm_streamed import StreamedSchedule, streamed_schedules
from ingot.compiler.codegen.cuda_matmul import choose
from ingot.compiler.codegen.family import emit
from ingot.compiler.reference import run_dispatch
from ingot.compiler.toolchain.cubin_resources import Resources, resources
from ingot.compiler.toolchain.stages import compile_kernels
from ingot.cuda_targets import BY_NAME, CUDA_TARGETS
from ingot.dialects.mlir import kernel_context
from ingot.dispatch import Dispatch, TensorArg
from ingot.dtypes import DTYPES
from ingot.kernel_plan import KernelLaunch
from ingot.weight_packing import tile_k

WEIGHTS = ("i8", "i4", "f8E4M3FN", "f8E5M2", "f4E2M1FN")
SMALL = MmaSchedule(64, 64, 32, 32)
TARGETS = [t.name for t in CUDA_TARGETS if not t.wgmma]
# Every target with one type; every type with a target of each kind.
PACKED = [(t, w) for t in TARGETS for w in BY_NAME[t].packs if w == "i4" or t in ("sm_75", "sm_86", "sm_89", "sm_120a")]
pairs = pytest.mark.parametrize(("dtype", "target"), [
    ("f16", "sm_75"), ("f16", "sm_80"), ("bf16", "sm_80"), ("bf16", "sm_89"), ("f16", "sm_120a"),
])  # fmt: skip


def check(d: Dispatch, target: str = "sm_80", tile: MmaSchedule = SMALL, sizes: dict[str, int] | None = None) -> None:
    """See `check_packed`; where the kernel takes packed weights alone, against what decodes on the way to shared memory."""
    if not BY_NAME[target].cp_async:
        tile = replace(tile, stages=2)
    suits = registers_row(gemm_problem(d), BY_NAME[target], tile) is not None
    plain = DecodedRegistersSchedule(tile) if suits else DecodedMmaSchedule(tile)
    check_packed(d, target, DecodedRegistersSchedule(tile), plain, sizes)


# More rows ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", WEIGHTS)
@pairs
def test_weights(weights: str, dtype: str, target: str) -> None:
    """Scales of each column and of blocks, of either type, zero points of integers; columns that tiles do not divide."""
    zero = weights[0] == "i"
    for options in ({"scale": dtype, "block": 32, "zero": zero}, {"scale": "f32"}, {}):
        check(make.quantized_matmul(66, 112, 192, dtype, weights, **options), target)


@pytest.mark.parametrize("target", ["sm_75", "sm_86"])
@pytest.mark.parametrize("tile", [(128, 128, 64, 32), (32, 64, 16, 32, 4), (16, 64, 16, 16, 4), (64, 64, 32, 32, 3, 128, 3)])
def test_divisions(tile: tuple[int, ...], target: str) -> None:
    """Several warps of rows and columns, blocks of scales of less than a stage and more, parts of K that blocks share."""
    for weights, block in (("i4", 32), ("i8", 128)):
        d = make.quantized_matmul(130, 144, 640, "f16", weights, scale="f16", block=block, out="f16")
        check(d, target, MmaSchedule(*tile))


@pytest.mark.parametrize("target", ["sm_75", "sm_89"])
def test_sizes_at_run_time(target: str) -> None:
    """Rows of a call, and columns and K of kernels that products share."""
    check(make.quantized_matmul("m", 64, 128, "f16", "i4", scale="f16", block=32), target, sizes={"m": 75})
    for weights in ("i4", "i8"):
        d = make.quantized_matmul("m", "n", "k", "f16", weights, multiples={"n": 16, "k": 64})
        check(d, target, sizes={"m": 70, "n": 144, "k": 256})


@pytest.mark.parametrize("target", ["sm_75", "sm_80"])
def test_rows_of_other_layouts(target: str) -> None:
    """Neighbours in memory, lines that cp.async cannot read, and batches that do not fold into rows."""
    d = make.quantized_matmul(64, 64, 64, "f16", "i4", scale="f16", block=32, a_transposed=True)
    check(d, target)
    d = make.quantized_matmul(40, 64, 192, "f16", "i8", scale="f16", block=64)
    check(replace(d, operands=(TensorArg("f16", (40, 192), (193, 1), 2), *d.operands[1:])), target)
    batches = TensorArg("f16", (3, 40, 192), (50 * 192, 192, 1))
    results = (make.contiguous("f32", 3, 40, 64),)
    check(replace(d, operands=(batches, *d.operands[1:]), results=results), target)


def test_zero_points_that_are_floats_or_unsigned() -> None:
    for weights in ("i8", "i4"):
        d = make.quantized_matmul(24, 64, 64, "f16", weights, scale="f16", block=32, zero=True, unsigned=True)
        check(d)
        check(replace(d, operands=(*d.operands[:3], replace(d.operands[3], dtype="f16"))))


@pytest.mark.parametrize("target", ["sm_75", "sm_80"])
@pytest.mark.parametrize("weights", ["i4", "i8", "f4E2M1FN"])
def test_blocks_of_ones(weights: str, target: str) -> None:
    """Zeros with one block of ones in each operand, and scales that are powers of two: sums are exact, wrong places are not."""
    s = DecodedRegistersSchedule(replace(SMALL, stages=3 if target == "sm_80" else 2))
    d = make.quantized_matmul(90, 112, 384, "f16", weights, scale="f16", block=32)
    for seed in range(2):
        rng = np.random.default_rng(seed)

        def prepare(views: list[np.ndarray], rng: np.random.Generator = rng) -> None:
            fill_blocks_of_ones(rng, views)
            packing(d)(views)

        check_exactly(make.packed(d), target, s, prepare=prepare)


@pytest.mark.parametrize("weights", ["i4", "i8"])
@pytest.mark.parametrize("target", ["sm_75", "sm_80"])
def test_no_bank_conflicts(weights: str, target: str) -> None:
    """Reads of 16 bytes, each quarter of a warp's of all banks; of few rows, sums in pairs."""
    few = make.packed(make.quantized_matmul(16, 64, 512, "f16", weights, scale="f16", block=128))
    assert isinstance(choose(gemm_problem(few), BY_NAME[target]), StreamedSchedule)
    assert run_emulated(few, target, count_conflicts=True).bank_conflicts == 0
    s = DecodedRegistersSchedule(MmaSchedule(128, 64, 64, 32, 2 if target == "sm_75" else 3))
    d = make.packed(make.quantized_matmul(128, 64, 256, "f16", weights, scale="f16", block=128, out="f16"))
    assert run_emulated(d, target, schedule=s, count_conflicts=True).bank_conflicts == 0


# Few rows -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", WEIGHTS)
@pairs
def test_streamed(weights: str, dtype: str, target: str) -> None:
    for rows, n, k, options in (
        (1, 96, 2048, {"scale": dtype, "block": 32, "zero": weights[0] == "i"}),
        (5, 48, 1152, {"scale": "f32", "block": 128}),
        (2, 48, 1152, {"scale": dtype, "block": 32, "zero": weights[0] == "i"}),  # batches do not divide K
        (24, 80, 576, {}),
    ):
        d = make.quantized_matmul(rows, n, k, dtype, weights, out=dtype, **options)
        row = BY_NAME[target]
        s = choose(gemm_problem(make.packed(d)), row)
        assert isinstance(s, StreamedSchedule)
        assert s.lanes.packed
        (plain,) = streamed_schedules(gemm_problem(d), row, n)
        expected = run_emulated(d, target, schedule=plain)
        got = run_emulated(make.packed(d), target, schedule=s, prepare=packing(d))
        (exact,) = run_dispatch(make.unrounded(d), expected.operands, float64=True)
        make.check_against(got.results[0], exact, expected.results[0])


@pytest.mark.parametrize("target", ["sm_75", "sm_86"])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_every_code(weights: str, target: str) -> None:
    """All codes of a type, infinities and NaN among them, come out as they are, of few rows and of more."""
    stages = 3 if BY_NAME[target].cp_async else 2
    d = every_code("f16", weights)
    for s in (choose(gemm_problem(make.packed(d)), BY_NAME[target]), DecodedRegistersSchedule(replace(SMALL, stages=stages))):
        check_every_code(d, target, s, packs=True)


# Choice and code ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
def test_choice(target: str) -> None:
    """Whatever the rows, there is a kernel for packed weights, the same as for others but where those are decoded earlier."""
    row = BY_NAME[target]
    for m in (1, 16, 64, 65, 4096, "m"):
        d = make.quantized_matmul(m, 4096, 4096, "f16", "i4", scale="f16", block=128)
        other, found = choose(gemm_problem(d), row), choose(gemm_problem(make.packed(d)), row)
        assert type(found) is (StreamedSchedule if type(other) is StreamedSchedule else DecodedRegistersSchedule), found
        if row.cp_async:
            assert type(found) is type(other), other
    any_size = make.quantized_matmul("m", "n", "k", "f16", "i8", multiples={"n": 16, "k": 64})
    assert isinstance(choose(gemm_problem(make.packed(any_size)), row), DecodedRegistersSchedule)


def test_no_instruction() -> None:
    d = make.packed(make.quantized_matmul(64, 64, 64, "bf16", "i4", scale="bf16", block=32))
    with kernel_context(), pytest.raises(NotImplementedError, match="no kernel for packed i4 and bf16"):
        emit(d, BY_NAME["sm_75"])


def code(d: Dispatch, target: str, s: object) -> tuple[KernelLaunch, str, Resources, list[int]]:
    """A kernel's launch, PTX, facts of its machine code, and opcodes of the main loop there."""
    with kernel_context():
        emitted = emit(d, BY_NAME[target], s)
        text = compile_kernels(emitted.module, target, stop="ptx")
    launch, cubin = emitted.plan.launches[0], compile_kernels(text, target, start="ptx")
    return launch, text, resources(cubin)[launch.symbol], innermost_opcodes(cubin, launch.symbol, BY_NAME[target].sm)


@pytest.mark.parametrize(("target", "weights"), PACKED)
def test_code(target: str, weights: str) -> None:
    """A stage's instructions in the loop, one read of weights for each tile of 16 columns, as many blocks for an SM's registers
    as of weights that are not packed, and fewer instructions; where those are decoded once a block, a twentieth more."""
    row, bits = BY_NAME[target], DTYPES[weights].bits
    plain = make.quantized_matmul(4096, 4096, 4096, "f16", weights, scale="f16", block=128, out="f16")
    d = make.packed(plain)
    s = choose(gemm_problem(d), row)
    launch, text, facts, machine = code(d, target, s)
    shape, halves = ("m16n8k8", 2) if target == "sm_75" else ("m16n8k16", 1)
    count = 4 * s.mma.warp_m // 16 * s.mma.warp_n // 8 * halves
    assert innermost_counts(text, launch.symbol, rf"mma\.sync\.aligned\.{shape}\.row\.col\.f32\.f16") == [count]
    assert innermost_counts(text, launch.symbol, r"ld\.shared") == [s.mma.warp_n // 16 * 64 // tile_k(bits)]
    assert innermost_counts(text, launch.symbol, r"ld\.shared\.v4\.b32") == [s.mma.warp_n // 16 * 64 // tile_k(bits)]
    assert bool(innermost_counts(text, launch.symbol, r"st\.shared")) == (not row.cp_async)
    if weights == "i4":
        assert not innermost_counts(text, launch.symbol, r"\bprmt\b")
    hardware = row.sm >= 89 and weights[:2] == "f8"
    assert bool(re.search(r"cvt\.rn\.f16x2\.e", text)) == hardware
    assert machine.count(HMMA) == count
    assert facts.local_bytes == 0
    _, _, before, others = code(plain, target, s if row.cp_async else DecodedMmaSchedule(s.mma))
    assert row.registers // (facts.registers * launch.block[0]) >= row.registers // (before.registers * launch.block[0]) >= 1
    assert len(machine) < len(others) * (1 if row.cp_async else 1.06)


@pytest.mark.parametrize(("target", "weights"), PACKED)
def test_code_of_few_rows(target: str, weights: str) -> None:
    """A batch's instructions in the loop, whole vectors of weights, and registers for the blocks that an SM is to hold."""
    row = BY_NAME[target]
    for rows in (1, 64 if row.cp_async else 32):
        d = make.packed(make.quantized_matmul(rows, 8192, 12288, "f16", weights, scale="f16", block=128, out="f16"))
        s = choose(gemm_problem(d), row)
        assert isinstance(s, StreamedSchedule)
        launch, text, facts, machine = code(d, target, s)
        shape, halves = ("m16n8k8", 2) if target == "sm_75" else ("m16n8k16", 1)
        count = s.depth * s.lanes.step_k // 16 * s.tiles * -(-rows // 8) * halves
        assert innermost_counts(text, launch.symbol, rf"mma\.sync\.aligned\.{shape}\.row\.col\.f32\.f16") == [count]
        if rows == 1:  # with more, rows come to shared memory in loops inside this one
            assert s.depth * s.tiles in innermost_counts(text, launch.symbol, r"ld\.global(?:\.nc)?\.v4\.b32")
            assert machine.count(HMMA) == count
        assert facts.local_bytes == 0
        assert facts.registers * 32 * s.warps * s.blocks <= row.registers, (facts, s)


@pytest.mark.parametrize("options", [
    {"block": 32}, {"block": 32, "zero": True}, {"block": 64, "zero": True}, {"block": 32, "scale": "f32", "zero": True},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("columns", [True, False])
def test_scales_that_wait_in_registers(options: dict[str, Any], columns: bool) -> None:
    """Many scales of few rows: none spill, wherever they lie; those of a column's neighbouring blocks are read together."""
    for weights in ("i4", "i8"):
        wanted = {"scale": "f16", **options}
        d = make.packed(make.quantized_matmul(1, 8192, 12288, "f16", weights, out="f16", **wanted))
        if columns:
            d = make.scales_by_columns(d)
        s = choose(gemm_problem(d), BY_NAME["sm_86"])
        launch, text, facts, _ = code(d, "sm_86", s)
        assert facts.local_bytes == 0, facts
        blocks = s.batch_k // wanted["block"]
        # Both columns of a block, or 16 bytes of a column's blocks.
        each = blocks if columns else 2 * -(-blocks * DTYPES[wanted["scale"]].bytes // 16)
        beside = each * (2 if "zero" in wanted else 1)
        assert max(innermost_counts(text, launch.symbol, r"ld\.global")) <= s.depth + beside
