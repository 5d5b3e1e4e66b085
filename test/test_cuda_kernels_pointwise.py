"""Pointwise kernels without a GPU: numerics on the emulator, wide accesses in the code, every target assembled."""

from __future__ import annotations

import re

import cuda_dispatches as make
import numpy as np
import pytest
from cuda_emulation import check, run_emulated

from ingot.compiler.codegen.cuda_domain import collapse_domain
from ingot.compiler.codegen.family import emit
from ingot.compiler.reference import run_dispatch
from ingot.compiler.toolchain.stages import compile_kernels
from ingot.cuda_targets import BY_NAME, CUDA_TARGETS
from ingot.dialects.mlir import kernel_context
from ingot.dialects.scalar_table import ROWS, ScalarOp
from ingot.dispatch import Dispatch, ScalarRegion, TensorArg, contiguous
from ingot.dtypes import DTYPES


def ptx_of(d: Dispatch, target: str = "sm_90a") -> str:
    with kernel_context():
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
    check(d, "sm_80")


def test_pointwise_of_any_shape() -> None:
    d = make.pointwise_add_relu("n", 77, dtype="f16")
    for n in (1, 54, 107):
        check(d, "sm_80", sizes={"n": n})
    wide = make.pointwise_add_gelu("a", "b", multiples={"b": 8})
    check(wide, "sm_80", sizes={"a": 5, "b": 520})


def test_pointwise_strides_and_positions() -> None:
    """Every second row, read backwards, plus the column's number; a bool result beside a float one."""
    r = make.Region()
    x = r.load(0, "f32")
    column = r.add("sitofp", r.add("index", type="i64", axis=1))
    y = r.add("addf", x, column)
    region = r.end(y, r.add("cmpf_ogt", y, r.add("const", value=4.0), type="i1"))
    t = TensorArg("f32", (6, 40), (80, 1))
    d = make.make("pointwise", [t], [contiguous("f32", 6, 40), contiguous("i1", 6, 40)], [region])
    check(d, "sm_80")


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


OPERATIONS = [row for row in ROWS if row.result != "cast" and not row.cuda_only]
POSITIVE = ("log", "sqrt", "rsqrt", "pow")


def operation(row: ScalarOp) -> Dispatch:
    """A row of the scalar table over its operands."""
    types = [{"f": "f32", "b": "i1", "x": "f32", "i": "i32"}[c] for c in row.params]
    r = make.Region()
    result = "i1" if row.result == "i1" else types[-1]
    region = r.end(r.add(row.name, *[r.add("load", type=t, operand=i) for i, t in enumerate(types)], type=result))
    return make.make("pointwise", [contiguous(t, 5, 64) for t in types], [contiguous(result, 5, 64)], [region])


@pytest.mark.parametrize("row", OPERATIONS, ids=lambda r: r.name)
def test_every_scalar_operation(row: ScalarOp) -> None:
    """As the table means it: equal bits where it says so, within its bound elsewhere; zeros, infinities and NaN included."""

    def spread(views: list[np.ndarray]) -> None:
        for i, x in enumerate(views):
            if x.dtype == np.float32:
                x *= 4
                if row.name in POSITIVE and i == 0:
                    np.abs(x, out=x)
                elif row.exact:
                    x.flat[:6] = [0, -0.0, np.inf, -np.inf, np.nan, 1e-40]
            elif x.dtype == np.int32:
                x[...] *= 7
                if i == 1:
                    x[x == 0] = 3
                    if row.name.startswith("sh"):
                        x[...] = np.abs(x) % 31

    found = run_emulated(operation(row), "sm_80", prepare=spread)
    with np.errstate(all="ignore"):
        if row.exact:
            assert np.array_equal(found.results[0], row.numpy(*found.operands), equal_nan=True)
        else:
            exact = row.numpy(*(x.astype(np.float64) for x in found.operands))
            assert np.max(np.abs(found.results[0] - exact) / np.abs(exact)) <= max(row.bound, 1.01) * 2.0**-24


CASTS = [
    *(("extf", t, "f32") for t in ("f16", "bf16", "f8E4M3FN", "f8E5M2")), ("extf", "f32", "f64"),
    *(("truncf", "f32", t) for t in ("f16", "bf16", "f8E4M3FN", "f8E5M2")), ("truncf", "f64", "f32"),
    ("sitofp", "i8", "f32"), ("sitofp", "i64", "f32"), ("uitofp", "i8", "f32"), ("uitofp", "i16", "f32"),
    *(("fptosi", "f32", t) for t in ("i8", "i32", "i64")), ("extsi", "i8", "i32"), ("extsi", "i32", "i64"),
    ("extui", "i8", "i32"), ("extui", "i1", "i32"), ("trunci", "i32", "i8"), ("trunci", "i64", "i32"),
    ("bitcast", "f32", "i32"), ("bitcast", "i8", "f8E8M0FNU"),
    *(("extf", t, "f32") for t in ("f4E2M1FN", "f8E8M0FNU")), ("sitofp", "i4", "f32"), ("uitofp", "i4", "f32"),
    ("truncf", "f32", "f4E2M1FN"), ("fptosi", "f32", "i4"), ("trunci", "i8", "i4"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "source", "result"), CASTS, ids=lambda x: x)
@pytest.mark.parametrize("target", ["sm_75", "sm_90a"])
def test_every_cast(name: str, source: str, result: str, target: str) -> None:
    """All kinds of storage, in vectors and one by one; floats that are no numbers, too large, or subnormal where they go."""

    def special(views: list[np.ndarray]) -> None:
        if name == "truncf":
            views[0].flat[:8] = np.array([0, -0.0, np.inf, np.nan, 1e-6, 3e-8, 500, -70000]).astype(views[0].dtype)
            if result == "f4E2M1FN":
                views[0].flat[3] = 2.5  # it has no NaN
        if result == "i4":
            np.clip(views[0], -8, 7, out=views[0])

    for shape in ((4, 64), (3, 7), (2, 2053)):
        found = run_emulated(make.pointwise_cast(name, source, result, *shape), target, prepare=special)
        with np.errstate(all="ignore"):
            (expected,) = run_dispatch(make.pointwise_cast(name, source, result, *shape), found.operands)
        got = found.results[0]
        if DTYPES[result].kind == "float":
            got, expected = got.astype(np.float64), expected.astype(np.float64)
        assert np.array_equal(got, expected, equal_nan=got.dtype.kind == "f")


def test_4_bit_elements_in_rows() -> None:
    """What repeats along rows keeps axes apart: vectors of a row's elements, as wide as whole bytes allow."""
    for columns in (64, 36, 6):
        check(make.pointwise_requantize(5, columns), "sm_80")
    with pytest.raises(NotImplementedError, match="f4E2M1FN whose rows are no whole bytes"):
        emit(make.pointwise_requantize(5, 7), BY_NAME["sm_80"])


def test_4_bit_loads_take_all_elements_of_a_vector() -> None:
    """Two vectors a thread, of four elements each, as the result's 16 bytes are."""
    ptx = ptx_of(make.pointwise_cast("sitofp", "i4", "f32", 1024, 1024))
    assert len(re.findall(r"ld\.global\.(b|u)16", ptx)) == 2
    assert not re.search(r"ld\.global\.[a-z]+8", ptx)


def test_more_elements_than_a_block() -> None:
    """Full blocks without predicates, and a last one with them; one axis, whose end is cut within a vector."""
    for shape in ((5, 2048), (4099,), (17, 264)):
        for dtype in ("f16", "f32", "i8"):
            r = make.Region()
            if dtype == "i8":
                value = r.add("addi", *(r.add("load", type="i8", operand=i) for i in range(2)), type="i8")
            else:
                value = r.narrow(r.add("addf", r.load(0, dtype), r.load(1, dtype)), dtype)
            region, t = r.end(value), contiguous(dtype, *shape)
            check(make.make("pointwise", [t, t], [t], [region]), "sm_80")


@pytest.mark.parametrize("target", [t.name for t in CUDA_TARGETS])
def test_assembles_for_every_target(target: str) -> None:
    """One kernel of vectors and tails, and one with every function of the scalar table and casts to and from small floats."""
    r = make.Region()
    total = r.load(0, "f8E4M3FN")
    for row in OPERATIONS:
        if set(row.params) == {"f"} and row.result == "same":
            total = r.add("addf", total, r.add(row.name, *[total] * len(row.params)))
    region: ScalarRegion = r.end(r.add("truncf", total, type="f8E5M2"))
    functions = make.make("pointwise", [contiguous("f8E4M3FN", 64, 640)], [contiguous("f8E5M2", 64, 640)], [region])
    for d in (make.pointwise_add_gelu("n", 640, dtype="f16"), functions):
        with kernel_context():
            assert compile_kernels(emit(d, BY_NAME[target]).module, target)[:4] == b"\x7fELF"


def quantize(signed: bool, shift: float | None = None, limit: float = 0.0, swapped: bool = False) -> Dispatch:
    """f32 rounded to 8-bit integers, plus `shift` after rounding; `limit` replaces the largest one."""
    r = make.Region()
    x = r.add("roundeven", r.load(0, "f32"))
    if shift is not None:
        x = r.add("addf", x, r.add("const", value=shift))
    bounds = [("maxf", -128.0 if signed else 0.0), ("minf", limit or (127.0 if signed else 255.0))]
    for op, bound in bounds[::-1] if swapped else bounds:
        x = r.add(op, x, r.add("const", value=bound))
    region = r.end(r.add("fptosi" if signed else "fptoui", x, type="i8"))
    return make.make("pointwise", [contiguous("f32", 4, 64)], [contiguous("i8", 4, 64)], [region])


@pytest.mark.parametrize(
    ("d", "fused"),
    [
        (quantize(True), True), (quantize(False), True), (quantize(True, swapped=True), True),
        (quantize(True, shift=3.0), False), (quantize(False, limit=15.0), False),
    ],
    ids=["signed", "unsigned", "other order", "zero point", "other bounds"],
)  # fmt: skip
def test_rounding_to_bytes(d: Dispatch, fused: bool) -> None:
    """One instruction rounds, saturates, and makes 0 of NaN, as clamping before the cast does."""

    def edges(operands: list[np.ndarray]) -> None:
        special = [np.inf, -np.inf, np.nan, 0.5, 1.5, -0.5, -1.5, 126.5, 127.5, -128.5, 254.5, 255.5, 1e9, -1e9]
        operands[0][...] = np.resize(np.array(special, np.float32), operands[0].shape)
        operands[0][2:] = np.linspace(-300, 300, operands[0][2:].size, dtype=np.float32).reshape(operands[0][2:].shape)

    found = run_emulated(d, "sm_80", prepare=edges)
    with np.errstate(invalid="ignore"):
        expected = run_dispatch(d, found.operands)[0]
    known = ~np.isnan(found.operands[0])
    assert np.array_equal(found.results[0][known], expected[known])
    assert not found.results[0][~known].any()
    assert ("cvt.rni.sat" in ptx_of(d)) == fused
