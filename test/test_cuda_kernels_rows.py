"""Pointwise and normalization kernels without a GPU: numerics on the emulator, wide accesses in the code, every target assembled."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import cuda_dispatches as make
import numpy as np
import pytest
from cuda_emulation import run_emulated

from ingot.compiler.codegen.cuda_domain import collapse_domain
from ingot.compiler.codegen.cuda_group_normalize import group_problem
from ingot.compiler.codegen.cuda_normalize import NormalizeSchedule
from ingot.compiler.codegen.family import emit
from ingot.compiler.reference import run_dispatch
from ingot.compiler.toolchain.stages import compile_kernels
from ingot.cuda_targets import BY_NAME, CUDA_TARGETS
from ingot.dialects.mlir import ir
from ingot.dispatch import Dispatch, TensorArg, contiguous


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


# Pointwise ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "d",
    [
        make.pointwise_add_gelu(8, 512),
        make.pointwise_add_gelu(3, 77, dtype="f16"),
        make.pointwise_add_relu(5, 7, 40, other=(7, 1)),
        make.pointwise_add_relu(6, 33, dtype="f32", other=(33,)),
        make.pointwise_add_relu(1, 1, 1, dtype="f32"),
    ],
    ids=["aligned", "odd", "repeated last axis", "repeated first axis", "one element"],
)
def test_pointwise(d: Dispatch) -> None:
    check(d)


def test_pointwise_of_any_shape() -> None:
    d = make.pointwise_add_relu("n", 77, dtype="f16")
    for n in (1, 54, 107):
        check(d, sizes={"n": n})
    wide = make.pointwise_add_gelu("a", "b", multiples={"b": 8})
    check(wide, sizes={"a": 5, "b": 520})


def test_pointwise_strides_and_positions() -> None:
    """Every second row, read backwards, plus the column's number; a bool result beside a float one."""
    r = make.Region()
    x = r.load(0, "f32")
    column = r.add("sitofp", r.add("index", type="i64", axis=1))
    y = r.add("addf", x, column)
    region = r.end(y, r.add("cmpf_ogt", y, r.add("const", value=4.0), type="i1"))
    t = TensorArg("f32", (6, 40), (80, 1))
    d = make.make("pointwise", [t], [contiguous("f32", 6, 40), contiguous("i1", 6, 40)], [region])
    check(d)


def test_pointwise_reads_at_computed_indices() -> None:
    """A gather: rows of a table by a vector of positions."""
    r = make.Region()
    row = r.add("load", type="i64", operand=0)
    value = r.add("load_at", row, r.add("index", type="i64", axis=1), type="f16", operand=1)
    region = r.end(value)
    rows = TensorArg("i64", (5, 32), (1, 0))
    d = make.make("pointwise", [rows, contiguous("f16", 12, 32)], [contiguous("f16", 5, 32)], [region])

    def in_range(operands: list[np.ndarray]) -> None:
        operands[0][...] = np.array([3, 0, 11, 7, 7])[:, None]

    found = run_emulated(d, "sm_80", prepare=in_range)
    assert np.array_equal(found.results[0], run_dispatch(d, found.operands)[0])


def test_axes_collapse_where_all_tensors_walk_them_as_one() -> None:
    assert collapse_domain(make.pointwise_add_relu(4, 5, 6)).results[0].shape == (120,)
    assert collapse_domain(make.pointwise_add_relu(4, 5, 6, other=(6,))).results[0].shape == (20, 6)
    assert collapse_domain(make.pointwise_add_relu(4, 5, 6, other=(5, 1))).results[0].shape == (4, 5, 6)


def test_pointwise_accesses_are_16_bytes() -> None:
    ptx = ptx_of(make.pointwise_add_relu(1024, 1024))
    # Two vectors a thread, of two operands and one result.
    assert len(re.findall(r"ld\.global\.v4", ptx)) == 4
    assert len(re.findall(r"st\.global\.v4", ptx)) == 2
    assert not re.search(r"\b(div|rem)\.[us]", ptx)


# Normalizations -------------------------------------------------------------------------------------------------------

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
        make.pointwise_add_gelu(64, 640, dtype="f16"), make.normalize("softmax", 64, 640), make.normalize("layer", 8, 20000),
        make.normalize("layer", 2, 64, 4, 8, axes=(1, 3)),
    ):  # fmt: skip
        with ir.Context():
            assert compile_kernels(emit(d, BY_NAME[target]).module, target)[:4] == b"\x7fELF"
