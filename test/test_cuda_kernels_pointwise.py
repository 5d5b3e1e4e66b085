"""Pointwise kernels without a GPU: numerics on the emulator, wide accesses in the code, every target assembled."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import cuda_dispatches as make
import numpy as np
import pytest
from cuda_emulation import run_emulated

from ingot.compiler.codegen.cuda_domain import collapse_domain
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


@pytest.mark.parametrize("target", [t.name for t in CUDA_TARGETS])
def test_assembles_for_every_target(target: str) -> None:
    with ir.Context():
        assert (
            compile_kernels(emit(make.pointwise_add_gelu(64, 640, dtype="f16"), BY_NAME[target]).module, target)[:4]
            == b"\x7fELF"
        )
