"""Kernels whose elements depend on each other's order or place: `scatter`, `scan` and `topk`, on the CPU and emulated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import cuda_dispatches as make
import numpy as np
import pytest
from cpu_kernel_harness import CompiledDispatch, place
from cuda_emulation import run_emulated

from ingot.compiler.codegen.cuda_scan import ScanSchedule
from ingot.compiler.codegen.cuda_topk import TopkSchedule
from ingot.compiler.codegen.family import emit
from ingot.compiler.cpu_target import baseline
from ingot.compiler.reference import run_dispatch
from ingot.compiler.toolchain.stages import compile_kernels
from ingot.cuda_targets import BY_NAME
from ingot.dialects.mlir import kernel_context
from ingot.dispatch import Dispatch

Prepare = Callable[[list[np.ndarray]], None]


def compare(found: list[np.ndarray], d: Dispatch, operands: list[np.ndarray], sizes: Mapping[str, int], tol: float) -> None:
    for got, want in zip(found, run_dispatch(d, operands, sizes, float64=True), strict=True):
        if want.dtype.kind in "iub":
            np.testing.assert_array_equal(got, want)
        else:
            got, want = got.astype(np.float64), want.astype(np.float64)
            np.testing.assert_allclose(got, want, rtol=tol, atol=tol * np.abs(want).max(initial=1e-3))


def on_cpu(d: Dispatch, sizes: Mapping[str, int] | None = None, prepare: Prepare | None = None, tol: float = 2e-6) -> None:
    """Run a dispatch with this machine's kernels, in three ranges of work items."""
    values = dict(sizes or {})
    operands = [o.view for o in make.random_operands(d, values)]
    if prepare is not None:
        prepare(operands)
    placed = [place(t, a, values) for t, a in zip(d.operands, operands, strict=True)]
    into = placed[0] if d.attr("in_place", False) else None
    compare(CompiledDispatch(d).run(placed, values, into=into), d, placed, values, tol)


def emulated(
    d: Dispatch, sizes: Mapping[str, int] | None = None, prepare: Prepare | None = None, tol: float = 2e-6,
    schedule: object = None,
) -> None:  # fmt: skip
    found = run_emulated(d, "sm_90a", sizes, schedule, prepare=prepare)
    compare(found.results, d, found.operands, dict(sizes or {}), tol)


def on_both(
    d: Dispatch, sizes: Mapping[str, int] | None = None, prepare: Prepare | None = None, tol: float = 2e-6
) -> None:
    on_cpu(d, sizes, prepare, tol)
    emulated(d, sizes, prepare, tol)


# Scatter --------------------------------------------------------------------------------------------------------------


def indices(size: int, *, axis: int, distinct: bool) -> Prepare:
    """Fill operand 2 with places along an axis of `size`; distinct ones differ along that axis."""

    def prepare(operands: list[np.ndarray]) -> None:
        at = operands[2]
        rng = np.random.default_rng(3)
        at[...] = rng.integers(0, size, at.shape)
        if distinct:
            lines = np.moveaxis(at, axis, -1)
            for line in np.ndindex(lines.shape[:-1]):
                lines[line] = rng.permutation(size)[: lines.shape[-1]]

    return prepare


@pytest.mark.parametrize("dtype", ["f32", "f16", "i64", "i1"])
def test_scatter_replaces(dtype: str) -> None:
    on_both(make.scatter("set", (3, 20, 7), (3, 9, 7), 1, dtype), prepare=indices(20, axis=1, distinct=True))


@pytest.mark.parametrize("kind", ["sum", "prod", "max", "min"])
@pytest.mark.parametrize("dtype", ["f32", "bf16", "i32"])
def test_scatter_combines_in_order(kind: str, dtype: str) -> None:
    # In narrow floats every step is rounded, in the same order as the reference's.
    on_both(make.scatter(kind, (4, 5, 6), (4, 30, 6), 1, dtype, "i32"), prepare=indices(5, axis=1, distinct=False), tol=1e-5)


def test_scatter_where_all_may_meet() -> None:
    on_both(make.scatter("sum", (7,), (300,), 0), prepare=indices(7, axis=0, distinct=False), tol=1e-5)


def test_scatter_of_symbolic_sizes() -> None:
    d = make.scatter("max", ("n", "m"), ("n", 40), 1)
    for n, m in ((1, 3), (270, 11)):
        on_both(d, {"n": n, "m": m}, indices(m, axis=1, distinct=False))
    on_cpu(make.scatter("set", ("n", 4), ("m", 4), 0), {"n": 5, "m": 0})


@pytest.mark.parametrize("kind", ["set", "sum"])
def test_scatter_in_place(kind: str) -> None:
    """No launch copies; a domain without elements leaves all as it is."""
    d = make.scatter(kind, (3, 20, 7), ("n", 9, 7), 1)
    d = replace(d, attrs=tuple(sorted((*d.attrs, ("in_place", True)))))
    for n in (3, 0):
        on_both(d, {"n": n}, indices(20, axis=1, distinct=True))
    with kernel_context():
        for target in (BY_NAME["sm_90a"], baseline("x86-64-v3")):
            assert len(emit(d, target).plan.launches) == 1


def test_scatter_from_a_strided_operand() -> None:
    d = make.scatter("set", (8, 6), (8, 3), 1)
    operands = (make.swapped(d.operands[0]), *d.operands[1:])
    on_both(replace(d, operands=operands), prepare=indices(6, axis=1, distinct=True))


# Scan -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sum", "prod"])
@pytest.mark.parametrize(("exclusive", "reverse"), [(False, False), (True, False), (False, True), (True, True)])
def test_scan_along_the_last_axis(kind: str, exclusive: bool, reverse: bool) -> None:
    on_both(make.scan(kind, (3, 700 if kind == "sum" else 30), 1, exclusive=exclusive, reverse=reverse), tol=2e-5)


@pytest.mark.parametrize("dtype", ["f32", "f16", "i64", "i32"])
@pytest.mark.parametrize("by_block", [False, True], ids=["thread", "block"])
def test_scan_along_another_axis(dtype: str, by_block: bool) -> None:
    d = make.scan("sum", (2, 37, 21), 1, dtype)
    tol = 2e-3 if dtype == "f16" else 1e-5
    on_cpu(d, tol=tol)
    emulated(d, tol=tol, schedule=ScanSchedule(by_block))


def test_scan_of_symbolic_sizes() -> None:
    d = make.scan("sum", ("n", "m", 5), 1, exclusive=True)
    for n, m in ((2, 300), (1, 1), (90, 7)):
        on_both(d, {"n": n, "m": m}, tol=1e-5)
    on_cpu(d, {"n": 2, "m": 0})
    long = make.scan("sum", ("n",), 0, "i64")
    on_both(long, {"n": 2000})


# Top k ----------------------------------------------------------------------------------------------------------------

SELECT = TopkSchedule(512, True)


@pytest.mark.parametrize("dtype", ["f32", "bf16", "i32", "i64", "f64", "i8", "i1"])
def test_topk_of_many_equal_elements(dtype: str) -> None:
    """Random integers and bools repeat: of equal elements the first come first."""
    d = make.topk((2, 600), 1, 40, dtype)
    on_cpu(d)
    emulated(d, schedule=SELECT)
    emulated(d, schedule=TopkSchedule(64, False))


def test_topk_along_another_axis() -> None:
    on_both(make.topk((2, 50, 3), 1, 7))
    emulated(make.topk((2, 50, 3), 1, 7), schedule=SELECT)


@pytest.mark.parametrize("k", [1, 255, 256, 257, 1000])
def test_topk_of_every_size(k: int) -> None:
    d = make.topk((1, 1000), 1, k)
    on_cpu(d)
    on_cpu(d, prepare=lambda o: o[0].sort())  # ascending: every element is better than those before
    emulated(d)


def test_topk_of_special_floats() -> None:
    def spoil(operands: list[np.ndarray]) -> None:
        operands[0][0, :9] = [np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 0.0, np.nan, 1e-42]

    for d in (make.topk((1, 9), 1, 9), make.topk((1, 300), 1, 300), make.topk((1, 9), 1, 9, "f64")):
        on_both(d, prepare=spoil)
        emulated(d, prepare=spoil, schedule=SELECT)


def test_topk_of_symbolic_sizes() -> None:
    d = make.topk(("n", "m"), 1, "k")
    for n, m, k in ((3, 700, 600), (2, 5, 5), (1, 40, 3)):
        on_both(d, {"n": n, "m": m, "k": k})
    on_cpu(d, {"n": 2, "m": 5, "k": 0})


@pytest.mark.parametrize("target", ["sm_75", "sm_90a", "sm_120a"])
def test_machine_code(target: str) -> None:
    for d in (
        make.scatter("sum", (16, 64), (40, 64), 0, "f16"),
        make.scan("sum", (4, "n"), 1, "i64"),
        make.topk((4, "n"), 1, 300, "f16"),
    ):
        with kernel_context():
            assert compile_kernels(emit(d, BY_NAME[target]).module, target)[:4] == b"\x7fELF"
