"""The table of tensor-core instructions against the PTX ISA's fragment layouts, written here as the ISA writes them."""

from __future__ import annotations

import dataclasses

import pytest

from ingot.compiler.codegen.mma_table import MMA_BY_NAME, MMA_ROWS, BlockScale, find_row, rows_for
from ingot.cuda_targets import BY_NAME, CUDA_TARGETS, target, target_for
from ingot.errors import DeviceError

WARP_ROWS = [row for row in MMA_ROWS if row.engine == "mma"]


def isa_a(name: str, lane: int, i: int) -> tuple[int, int]:
    """(row, col) of element a_i: PTX ISA 9.7.14.5, "Matrix Fragments for mma.m16n8k..." by shape and element size."""
    group, thread = lane >> 2, lane % 4
    row = MMA_BY_NAME[name]
    match row.m, row.k, row.bits:
        case 16, 8, 16:
            return (group if i < 2 else group + 8), thread * 2 + (i & 1)
        case 16, 16, 16:
            upper = i < 2 or 4 <= i < 6
            return (group if upper else group + 8), thread * 2 + (i & 1) + (0 if i < 4 else 8)
        case 16, 8, 32:
            return (group if i in (0, 2) else group + 8), thread + (0 if i < 2 else 4)
        case 8, 16, 8:
            return group, thread * 4 + (i & 3)
        case 16, 32, 8:
            upper = i < 4 or 8 <= i < 12
            return (group if upper else group + 8), thread * 4 + (i & 3) + (0 if i < 8 else 16)
        case 16, 64, 4:
            upper = i < 8 or 16 <= i < 24
            return (group if upper else group + 8), thread * 8 + (i & 7) + (0 if i < 16 else 32)
    raise AssertionError(name)


def isa_b(name: str, lane: int, i: int) -> tuple[int, int]:
    """(row, col) of element b_i."""
    group, thread = lane >> 2, lane % 4
    row = MMA_BY_NAME[name]
    per = 32 // row.bits
    half = 0 if i < per else 4 * per
    return thread * per + i % per + half, group


def isa_c(name: str, lane: int, i: int) -> tuple[int, int]:
    """(row, col) of element c_i."""
    group, thread = lane >> 2, lane % 4
    return (group if i < 2 else group + 8), thread * 2 + (i & 1)


@pytest.mark.parametrize("row", WARP_ROWS, ids=lambda r: r.name)
def test_fragments_are_those_of_the_isa(row):
    for lane in range(32):
        for i in range(row.a.elements):
            assert row.a.position(lane, i) == isa_a(row.name, lane, i)
        for i in range(row.b.elements):
            n, k = row.b.position(lane, i)
            assert (k, n) == isa_b(row.name, lane, i)
        for i in range(row.c.elements):
            assert row.c.position(lane, i) == isa_c(row.name, lane, i)


@pytest.mark.parametrize("row", MMA_ROWS, ids=lambda r: r.name)
def test_every_element_has_one_place(row):
    fragments = [row.a, row.c] if row.engine == "wgmma" else [row.a, row.b, row.c]
    for f in fragments:
        places = {f.position(lane, i) for lane in range(32) for i in range(f.elements)}
        assert len(places) == f.rows * f.cols == 32 * f.elements
        assert places == {(r, c) for r in range(f.rows) for c in range(f.cols)}


def test_registers_of_the_isa():
    # "A vector expression containing four .b32 registers" and so on, in the tables of the ISA.
    expected = {"mma.m16n8k16.f16": (4, 2, 4), "mma.m16n8k8.f16": (2, 1, 4), "mma.m16n8k8.tf32": (4, 2, 4),
                "mma.m8n8k16.s8": (1, 1, 2), "mma.m16n8k32.e4m3": (4, 2, 4), "mma.m16n8k64.mxf4nvf4": (4, 2, 4)}  # fmt: skip
    for name, counts in expected.items():
        row = MMA_BY_NAME[name]
        assert (row.a.registers, row.b.registers, row.c.registers) == counts


@pytest.mark.parametrize("row", [r for r in MMA_ROWS if r.scale], ids=lambda r: r.name)
def test_scales_cover_rows_and_columns_once(row):
    # PTX ISA, "Block Scaling": with thread-id-a 0, lanes 0 and 1 of a quad hold rows r and r + 8; with thread-id-b 0, lane 0
    # holds a column.
    assert [row.scale_lane_a(r) for r in range(16)] == [4 * (r % 8) + r // 8 for r in range(16)]
    assert [row.scale_lane_b(c) for c in range(8)] == [4 * c for c in range(8)]
    assert row.scale.vector * row.scale.size == row.k


def test_impossible_rows_are_refused():
    row = MMA_BY_NAME["mma.m16n8k16.f16"]
    with pytest.raises(AssertionError, match="no fragment rule"):
        dataclasses.replace(row, m=32)
    with pytest.raises(AssertionError, match="scales do not cover"):
        dataclasses.replace(row, scale=BlockScale("mxf4", "f8E8M0FNU", 32, 1))
    with pytest.raises(ValueError, match="outside"):
        row.a.position(32, 0)


def test_targets_have_the_rows_of_the_design():
    """DESIGN.md, "Code generation for GPUs": the rows that each target must use."""
    must = {
        "sm_75": {"f16", "s8"},
        **{f"sm_{n}": {"f16", "bf16", "tf32", "s8"} for n in (80, 86, 87, 88)},
        "sm_89": {"f16", "bf16", "tf32", "s8", "e4m3", "e5m2"},
        "sm_90a": {"f16", "bf16", "tf32", "s8", "e4m3", "e5m2"},
        "sm_120a": {"f16", "bf16", "tf32", "s8", "e4m3", "e5m2", "e2m1"},
        "sm_121a": {"f16", "bf16", "tf32", "s8", "e4m3", "e5m2", "e2m1"},
    }
    for name, types in must.items():
        assert types <= {row.ptx for row in rows_for(BY_NAME[name])}, name
    assert {"f16", "bf16", "tf32", "s8", "e4m3", "e5m2"} <= {r.ptx for r in rows_for(BY_NAME["sm_90a"]) if r.engine == "wgmma"}
    for kind in ("mxf8f6f4", "mxf4", "mxf4nvf4"):
        assert any(r.scale and r.scale.kind == kind for r in rows_for(BY_NAME["sm_120a"]))
    for t in CUDA_TARGETS:
        assert all(row.min_sm <= t.sm for row in rows_for(t))


def test_rows_are_found_by_what_a_dispatch_allows():
    ampere = BY_NAME["sm_80"]
    assert find_row(ampere, "f32") is None  # exact unless tf32 is allowed
    assert find_row(ampere, "f32", tf32=True).name == "mma.m16n8k8.tf32"
    assert find_row(ampere, "i8", unsigned=True).ptx == "u8"
    assert find_row(ampere, "f8E4M3FN") is None
    assert find_row(BY_NAME["sm_120a"], "f8E4M3FN").scale is None
    assert find_row(BY_NAME["sm_120a"], "f4E2M1FN", scale="mxf4nvf4").k == 64


def test_targets_of_gpus():
    assert target_for((9, 0)) is BY_NAME["sm_90a"]
    assert target_for((8, 9)) is BY_NAME["sm_89"]
    newer = target_for((12, 3))  # no row: the portable part of the nearest older one
    assert newer.name == "sm_121"
    assert not any("mxf" in m or "f8f6f4" in m for m in newer.mma)
    assert target(newer.name) == newer
    for capability in ((7, 0), (13, 0), (6, 1)):
        with pytest.raises(DeviceError, match=r"is not supported"):
            target_for(capability)
    with pytest.raises(DeviceError, match="no target 'sm_70'"):
        target("sm_70")
