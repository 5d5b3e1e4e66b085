"""Every family of kernels with every instruction of the table, for every target that lists it, without a GPU.

Each combination runs on the emulator, is counted there and in the innermost loop of its PTX, and is assembled. The rows
whose operands have scales or less than a byte are tested with the kernels that decode them (test_cuda_kernels_quantized.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import cuda_dispatches as make
import numpy as np
import pytest
from cuda_emulation import check, run_emulated
from exact_products import check_exactly
from ptx_loops import innermost_counts

from ingot.compiler.codegen.cuda_attention_mma import MmaAttentionSchedule
from ingot.compiler.codegen.cuda_attention_wgmma import WgmmaAttentionSchedule
from ingot.compiler.codegen.cuda_gemm_cluster import ClusterSchedule
from ingot.compiler.codegen.cuda_gemm_mma import MmaSchedule
from ingot.compiler.codegen.cuda_gemm_wgmma import WgmmaSchedule
from ingot.compiler.codegen.family import emit
from ingot.compiler.codegen.mma_table import MMA_BY_NAME, MmaRow, rows_for
from ingot.compiler.reference import run_dispatch
from ingot.compiler.toolchain.stages import compile_kernels
from ingot.cuda_targets import BY_NAME, CUDA_TARGETS
from ingot.dialects.mlir import kernel_context
from ingot.dispatch import Dispatch
from ingot.dtypes import DTYPES
from ingot.target import Target

SAME = (1, 1, 1, 1)


@dataclass(frozen=True)
class Family:
    """A family of kernels.

    Attributes:
        dispatch: of a row, at a small padded shape.
        sizes: values of its sizes.
        schedule: small tiles for a row.
        in_loop: instructions of a row in the innermost loop of the schedule, for a warp (wgmma: a warpgroup).
        executed: by the emulator, over the whole dispatch, of a schedule.
        ones: turns random operands into zeros with a block of ones each.
        takes: whether the family has a use for a row.
        code: a dispatch with so many steps that the compiler keeps them as a loop; by default `dispatch`.
    """

    name: str
    dispatch: Callable[[MmaRow], Dispatch]
    sizes: dict[str, int]
    schedule: Callable[[MmaRow, Target], Any]
    in_loop: Callable[[MmaRow, Any], int]
    executed: Callable[[MmaRow, Any], int]
    ones: Callable[[np.random.Generator, list[np.ndarray]], None]
    takes: Callable[[MmaRow], bool] = lambda row: True
    code: Callable[[MmaRow], Dispatch] | None = None


def unsigned(d: Dispatch, row: MmaRow) -> Dispatch:
    """The dispatch with the signedness of a row's bytes."""
    on = {"a_unsigned": True, "b_unsigned": True} if row.ptx == "u8" else {}
    return replace(d, attrs=tuple(sorted({**dict(d.attrs), **on}.items())))


def product_schedule(row: MmaRow, target: Target) -> MmaSchedule | WgmmaSchedule:
    if row.engine == "wgmma":
        return WgmmaSchedule(128, 24, 3)
    return MmaSchedule(32, 32, 16, 32, stages=3 if target.cp_async else 2, k_bytes=64)


def product_in_loop(row: MmaRow, s: Any) -> int:
    if row.engine == "wgmma":
        return 128 // row.k_bytes
    return s.k_bytes // row.k_bytes * (s.warp_m // row.m) * (s.warp_n // row.n)


def product_executed(row: MmaRow, s: Any, m: int, n: int, k: int) -> int:
    """Of a product m x n x k: full tiles, whatever lies outside is multiplied as zeros."""
    workers = s.tile_m // 64 if row.engine == "wgmma" else s.warps
    step = (128 if row.engine == "wgmma" else s.k_bytes) * 8 // row.bits
    return product_in_loop(row, s) * workers * -(-m // s.tile_m) * -(-n // s.tile_n) * -(-k // step)


M, N, K = 45, 40, 144


def matmul(row: MmaRow) -> Dispatch:
    """Any m and k; operands K-major, which every row takes."""
    out = "i32" if row.acc == "i32" else "f32"
    tf32, many = row.ptx == "tf32", {"k": 16}
    d = make.matmul("m", N, "k", row.dtype, out=out, acc=row.acc, b_transposed=True, tf32=tf32, multiples=many)
    return unsigned(d, row)


LONG = 528


def long_matmul(row: MmaRow) -> Dispatch:
    """Constant sizes, which stream-K asks for, and steps enough for several shares."""
    out = "i32" if row.acc == "i32" else "f32"
    d = make.matmul(M, N, LONG, row.dtype, out=out, acc=row.acc, b_transposed=True, tf32=row.ptx == "tf32")
    return unsigned(d, row)


def stream_schedule(row: MmaRow, target: Target) -> MmaSchedule | WgmmaSchedule:
    return replace(product_schedule(row, target), stream=3)


def cluster_schedule(row: MmaRow, target: Target) -> ClusterSchedule:
    return ClusterSchedule(64, 24, 3, 3, swapped=True)


CHANNELS, OUTPUTS, PIXELS = 32, 40, 7 * 9


def conv(row: MmaRow, channels: int = CHANNELS) -> Dispatch:
    out = "i32" if row.acc == "i32" else "f32"
    tf32 = row.ptx == "tf32"
    d = make.conv("n", (7, 9), channels, OUTPUTS, (3, 3), pads=SAME, dtype=row.dtype, acc=row.acc, out=out, tf32=tf32)
    return unsigned(d, row)


DEPTH, QUERIES, KEYS = 48, 37, 75


def attention_in_loop(row: MmaRow, s: Any) -> int:
    if row.engine == "wgmma":
        return -(-DEPTH // 16) + s.keys // 16
    scores = DEPTH // row.k * (s.keys // row.n)
    values = s.keys // row.k * (DEPTH // row.n)
    return s.warp_rows // row.m * (scores + values)


def attention_executed(row: MmaRow, s: Any) -> int:
    workers, rows = (2, 128) if row.engine == "wgmma" else (s.warps, s.rows)
    return 2 * -(-QUERIES // rows) * workers * -(-KEYS // s.keys) * attention_in_loop(row, s)


def attention_schedule(row: MmaRow, target: Target) -> MmaAttentionSchedule | WgmmaAttentionSchedule:
    return WgmmaAttentionSchedule(32) if row.engine == "wgmma" else MmaAttentionSchedule(2, 16, 32)


def block(rng: np.random.Generator, x: np.ndarray, value: float = 1, wide: tuple[int, ...] = ()) -> None:
    """Zeros with one block of `value` at a random offset, in axes `wide` longer than half: two such blocks overlap."""
    where = []
    for axis, n in enumerate(x.shape):
        length = int(rng.integers(n // 2 + 1, n + 1) if axis in wide else rng.integers(1, n + 1))
        start = int(rng.integers(0, n - length + 1))
        where.append(slice(start, start + length))
    x[...] = 0
    x[tuple(where)] = value


def product_ones(rng: np.random.Generator, operands: list[np.ndarray]) -> None:
    block(rng, operands[0], wide=(1,))
    block(rng, operands[1], wide=(0,))


def conv_ones(rng: np.random.Generator, operands: list[np.ndarray]) -> None:
    block(rng, operands[0], wide=(3,))
    block(rng, operands[1], wide=(3,))


def attention_ones(rng: np.random.Generator, operands: list[np.ndarray]) -> None:
    """Keys are so large that only theirs of the block take part where the query's meet them."""
    block(rng, operands[0], wide=(0, 1, 3))
    block(rng, operands[1], 512, wide=(0, 1, 2, 3))
    block(rng, operands[2], wide=(0, 1, 2))


FAMILIES = (
    Family(
        "matmul", matmul, {"m": M, "k": K}, product_schedule, product_in_loop,
        lambda row, s: product_executed(row, s, M, N, K), product_ones,
    ),
    Family(
        "stream", long_matmul, {}, stream_schedule, product_in_loop,
        lambda row, s: product_executed(row, s, M, N, LONG), product_ones,
    ),
    Family(
        "cluster", matmul, {"m": M, "k": LONG}, cluster_schedule, product_in_loop,
        lambda row, s: product_executed(row, s, N, M, LONG), product_ones, lambda row: row.engine == "wgmma",
    ),
    Family(
        "conv", conv, {"n": 1}, product_schedule, product_in_loop,
        lambda row, s: product_executed(row, s, PIXELS, OUTPUTS, 9 * CHANNELS), conv_ones,
        code=lambda row: conv(row, 256),
    ),
    Family(
        "attention", lambda row: make.attention(1, 2, "s", "t", DEPTH, row.dtype), {"s": QUERIES, "t": KEYS},
        attention_schedule, attention_in_loop, attention_executed, attention_ones, lambda row: row.dtype in ("f16", "bf16"),
    ),
)  # fmt: skip
PLAIN = {t.name: [r for r in rows_for(t) if r.scale is None and r.bits == DTYPES[r.dtype].bits] for t in CUDA_TARGETS}
CASES = [
    pytest.param(family, row, target, id=f"{family.name}-{row.name}-{target.name}")
    for family in FAMILIES for target in CUDA_TARGETS for row in PLAIN[target.name] if family.takes(row)
]  # fmt: skip


def only(target: Target, row: MmaRow) -> Target:
    """The target as if it had no other instruction."""
    return replace(target, mma=(row.name,))


def ptx_name(row: MmaRow) -> str:
    """A pattern of the instruction in PTX."""
    name = "wgmma.mma_async.sync.aligned" if row.engine == "wgmma" else "mma.sync.aligned"
    columns = r"\d+" if row.engine == "wgmma" else row.n
    return rf"\b{re.escape(name)}\S*\.m{row.m}n{columns}k{row.k}\.\S*{row.ptx}\.{row.ptx}"


def check_numbers(family: Family, row: MmaRow, target: Target) -> None:
    s = family.schedule(row, target)
    found = check(family.dispatch(row), only(target, row), s, family.sizes)
    matched = {name: n for name, n in found.executed.items() if name.startswith(row.engine)}
    assert sum(matched.values()) == family.executed(row, s), matched
    assert all(f"k{row.k}.{row.ptx}.{row.ptx}" in name for name in matched), matched


def check_code(family: Family, row: MmaRow, target: Target) -> None:
    s = family.schedule(row, target)
    with kernel_context():
        emitted = emit((family.code or family.dispatch)(row), only(target, row), s)
        ptx = compile_kernels(emitted.module, target.name, stop="ptx")
    assert compile_kernels(ptx, target.name, start="ptx")[:4] == b"\x7fELF"
    (launch,) = (x for x in emitted.plan.launches if x.flops != 0)
    assert launch.shared_bytes <= target.shared_bytes
    counts = innermost_counts(ptx, launch.symbol, r"\b(?:wgmma\.mma_async|mma)\.sync\.aligned\.")
    named = innermost_counts(ptx, launch.symbol, ptx_name(row))
    assert counts == named
    assert set(counts) == {family.in_loop(row, s)}


def check_blocks(family: Family, row: MmaRow, target: Target, seed: int) -> None:
    rng = np.random.default_rng(seed)
    schedule = family.schedule(row, target)
    check_exactly(family.dispatch(row), only(target, row), schedule, family.sizes, prepare=lambda x: family.ones(rng, x))


@pytest.mark.parametrize(("family", "row", "target"), CASES)
def test_numbers(family: Family, row: MmaRow, target: Target) -> None:
    """By the statistical rule, with exactly the instructions that tiles and warps ask for."""
    check_numbers(family, row, target)


@pytest.mark.parametrize(("family", "row", "target"), CASES)
def test_code(family: Family, row: MmaRow, target: Target) -> None:
    """The innermost loop of the PTX has the instruction as often as the schedule says, and the assembler takes it."""
    check_code(family, row, target)


FIRST = {
    (family.name, row.name): pytest.param(family, row, target, id=f"{family.name}-{row.name}")
    for family in FAMILIES for target in reversed(CUDA_TARGETS) for row in PLAIN[target.name] if family.takes(row)
}  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("family", "row", "target"), FIRST.values())
def test_blocks_of_ones(family: Family, row: MmaRow, target: Target, seed: int) -> None:
    """Zeros with a block of ones at a random offset, compared exactly: an element out of place shows, however small."""
    check_blocks(family, row, target, seed)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    "d",
    [
        make.conv(1, (9, 11), 6, 10, (3, 3), strides=(2, 1), pads=SAME, dtype="f32"),
        make.conv(1, (9, 11), 16, 16, (3, 3), pads=SAME, groups=16),
        make.conv(1, (9, 11), 32, 48, (3, 3), dilations=(1, 2), pads=SAME, groups=2),
        make.conv(1, (5, 6), 16, 24, (4, 4), strides=(2, 2), pads=SAME, transposed=True),
        make.conv(1, (20, 20), 3, 32, (7, 7), strides=(2, 2), pads=(3,) * 4),
        make.conv(1, (3, 5, 6), 16, 24, (3, 3, 3), pads=(1,) * 6),
    ],
    ids=["float32", "depthwise", "groups", "transposed", "stem", "3d"],
)
def test_blocks_of_ones_in_other_convolutions(d: Dispatch, seed: int) -> None:
    for target in ("sm_75", "sm_80", "sm_90a"):
        rng = np.random.default_rng(seed)
        axes = tuple(range(1, d.operands[0].rank))

        def ones(views: list[np.ndarray], rng: np.random.Generator = rng, axes: tuple[int, ...] = axes) -> None:
            block(rng, views[0], wide=axes)
            block(rng, views[1], wide=(0, *axes))

        found = run_emulated(d, target, prepare=ones)
        (exact,) = run_dispatch(d, found.operands, float64=True)
        assert exact.any()
        assert np.array_equal(found.results[0], exact)


ADDED = (
    MmaRow("mma.m16n8k8.bf16", "mma", 16, 8, 8, "bf16", "bf16", "f32", 80, 16),
    MmaRow("mma.m16n8k4.tf32", "mma", 16, 8, 4, "f32", "tf32", "f32", 80, 32),
    MmaRow("mma.m16n8k16.s8", "mma", 16, 8, 16, "i8", "s8", "i32", 80, 8),
)


@pytest.mark.parametrize(
    ("family", "row"),
    [pytest.param(f, r, id=f"{f.name}-{r.name}") for f in FAMILIES for r in ADDED if f.takes(r)],
)
def test_a_row_that_is_added(family: Family, row: MmaRow, monkeypatch: pytest.MonkeyPatch) -> None:
    """An instruction that no target lists needs nothing but its row."""
    assert row.name not in MMA_BY_NAME
    monkeypatch.setitem(MMA_BY_NAME, row.name, row)
    target = BY_NAME["sm_80"]
    check_numbers(family, row, target)
    check_blocks(family, row, target, 0)
    check_code(family, row, target)


def test_every_row_is_listed_by_a_target() -> None:
    assert {name for t in CUDA_TARGETS for name in t.mma} == set(MMA_BY_NAME)
    assert all(t.sm >= MMA_BY_NAME[name].min_sm for t in CUDA_TARGETS for name in t.mma)
