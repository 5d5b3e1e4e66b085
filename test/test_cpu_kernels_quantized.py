"""CPU kernels of quantized operands against the reference: products of 8-bit integers, small floats, scales, 4-bit elements."""

from __future__ import annotations

import cuda_dispatches as make
import numpy as np
import pytest
from cpu_kernel_harness import CompiledDispatch
from test_cpu_kernels import check, identity, load, matmul, move, pointwise, region, strided, symbolic, transposed

from ingot.compiler.codegen import cpu_vector_product
from ingot.compiler.codegen.family import emit
from ingot.compiler.cpu_target import baseline
from ingot.compiler.reference import run_dispatch
from ingot.dialects.mlir import context
from ingot.dispatch import Dispatch, TensorArg, contiguous
from ingot.dtypes import DTYPES

SCALED = region("i32", ("sitofp", (0,), "f32"), load(2), ("mulf", (1, 2), "f32"))


def whole_range(d: Dispatch, seed: int = 0) -> list[np.ndarray]:
    """Operands with every value of 8-bit integers, so that sums in 16 bits would overflow."""
    rng = np.random.default_rng(seed)

    def array(t: TensorArg) -> np.ndarray:
        if DTYPES[t.dtype].kind == "int":
            return rng.integers(-128, 128, t.shape).astype(np.int8)
        return rng.uniform(0.1, 1, t.shape).astype(np.float32)

    return [array(t) for t in d.operands]


@pytest.mark.parametrize("k", [1, 16, 301, 1000])
@pytest.mark.parametrize("layout", ["nn", "nt", "tn", "tt"])
@pytest.mark.parametrize("m", [3, 50])
def test_products_of_bytes(m: int, layout: str, k: int) -> None:
    n = 70 if m > 8 else 75
    a = transposed("i8", m, k) if layout[0] == "t" else contiguous("i8", m, k)
    b = transposed("i8", k, n) if layout[1] == "t" else contiguous("i8", k, n)
    d = matmul(a, b, contiguous("f32", m, n), body=SCALED, more=(contiguous("f32", n),), acc="i32")
    check(d, operands=whole_range(d))


@pytest.mark.parametrize("signs", [("a_unsigned",), ("b_unsigned",), ("a_unsigned", "b_unsigned")])
@pytest.mark.parametrize("m", [2, 40])
def test_signedness_of_bytes(m: int, signs: tuple[str, ...]) -> None:
    d = matmul(contiguous("i8", m, 130), contiguous("i8", 130, 40), contiguous("i32", m, 40), acc="i32")
    d = Dispatch(d.root, d.operands, d.results, (*d.attrs, *((s, True) for s in signs)), d.regions)
    check(d, operands=whole_range(d))


def test_largest_sums_of_bytes_are_exact() -> None:
    """Where pairs of products are added in 16 bits, they saturate: 2 * 255 * 127 is more than 32767."""
    d = matmul(contiguous("i8", 20, 512), transposed("i8", 512, 24), contiguous("i32", 20, 24), acc="i32")
    low = np.full((20, 512), -128, np.int8), np.full((512, 24), -128, np.int8)
    check(d, operands=list(low))
    d = Dispatch(d.root, d.operands, d.results, (*d.attrs, ("a_unsigned", True)), d.regions)
    check(d, operands=[np.full((20, 512), -1, np.int8), np.full((512, 24), 127, np.int8)])


def test_products_of_bytes_of_any_shape() -> None:
    a, b = contiguous("i8", "b", "m", "k"), contiguous("i8", "b", "k", "n")
    d = matmul(a, b, contiguous("i32", "b", "m", "n"), acc="i32")
    check(d, {"b": 2, "m": 5, "k": 37, "n": 9}, {"b": 1, "m": 70, "k": 600, "n": 33}, {"b": 1, "m": 1, "k": 1, "n": 1})


@pytest.mark.parametrize("level", ["x86-64-v3", "x86-64-v4"])
@pytest.mark.parametrize("m", [1, 64])
def test_code_for_every_level(level: str, m: int) -> None:
    """Pairs of bytes are one instruction; wider registers than this machine's are compiled at least."""
    target = baseline(level)
    d = matmul(contiguous("i8", m, 64), transposed("i8", 64, 64), contiguous("i32", m, 64), acc="i32")
    with context():
        text = str(emit(d, target).module)
    assert ("avx512.pmaddw.d.512" if level.endswith("4") else "avx2.pmadd.wd") in text
    CompiledDispatch(d, target)
    CompiledDispatch(conv("i8", (1, 9, 9, 20), (30, 3, 3, 20), (1, 7, 7, 30)), target)
    for dtype, acc in (("f32", "f32"), ("i8", "i32")):  # large weights, with any number of rows
        d = matmul(contiguous(dtype, "m", 1030), contiguous(dtype, 1030, 1030), contiguous(acc, "m", 1030), acc=acc)
        assert len(CompiledDispatch(d, target).plan.launches) == 2
    for weights in ("i4", "f4E2M1FN", "f8E4M3FN"):
        for turned in (False, True):
            d = make.quantized_matmul(m, 64, 96, "f16", weights, scale="f16", block=32, b_transposed=turned)
            CompiledDispatch(d, target)


@pytest.mark.parametrize("dtype", ["f8E4M3FN", "f8E5M2"])
@pytest.mark.parametrize("m", [3, 40])
def test_products_of_small_floats(m: int, dtype: str) -> None:
    check(matmul(contiguous(dtype, m, 100), contiguous(dtype, 100, 60), contiguous("f32", m, 60)), tol=1e-5)
    check(matmul(contiguous(dtype, m, 100), transposed(dtype, 100, 60), contiguous("f32", m, 60)), tol=1e-5)


@pytest.mark.parametrize("b", ["i8", "i4", "f8E4M3FN", "f4E2M1FN"])
@pytest.mark.parametrize("a", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("m", [1, 20])
def test_products_with_a_quantized_weight(m: int, a: str, b: str) -> None:
    for straight in (contiguous(b, 96, 48), transposed(b, 96, 48)):
        check(matmul(contiguous(a, m, 96), straight, contiguous("f32", m, 48)), tol=1e-5)


@pytest.mark.parametrize(("b", "zero"), [("i8", False), ("i8", True), ("i4", False), ("i4", True), ("f4E2M1FN", False)])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("m", [2, 20])
def test_scales_of_blocks(m: int, turned: bool, b: str, zero: bool) -> None:
    cases = (
        ("f32", "f32", 16, 64), ("f16", "f16", 32, 96), ("bf16", "f32", 0, 40), ("f32", "f8E4M3FN", 12, 48),
        ("f32", "f32", 16, 40),
    )  # fmt: skip
    for a, scale, block, k in cases:
        d = make.quantized_matmul(m, 48, k, a, b, scale=scale, block=block, zero=zero, b_transposed=turned, unsigned=zero)
        check_scaled(d, tol=1e-5 if a == "f32" else 2e-3)


def check_scaled(d: Dispatch, tol: float, sizes: dict[str, int] | None = None) -> None:
    operands = [o.view for o in make.random_operands(d, sizes or {})]
    (found,) = CompiledDispatch(d).run(operands, sizes)
    (expected,) = run_dispatch(d, operands, sizes, float64=True)
    expected = expected.astype(np.float64)
    np.testing.assert_allclose(found.astype(np.float64), expected, rtol=tol, atol=tol * np.abs(expected).max())


@pytest.mark.parametrize("m", [3, 40])
@pytest.mark.parametrize(
    ("dtype", "scale", "block"), [("f4E2M1FN", "f8E4M3FN", 16), ("f8E4M3FN", "f8E8M0FNU", 32), ("i8", "f32", 8)]
)
def test_scales_of_both_operands(dtype: str, scale: str, block: int, m: int) -> None:
    d = make.quantized_matmul(m, 30, 96, dtype, dtype, scale=scale, a_scale=scale, block=block)
    check_scaled(d, 1e-5)
    check_scaled(make.quantized_matmul(m, 30, 96, dtype, dtype, scale=scale, a_scale=scale, block=block, batch=(2,)), 1e-5)


def test_scaled_products_of_any_shape() -> None:
    d = make.quantized_matmul("m", 48, "k", "f32", "i4", scale="f32", block=16, multiples={"k": 16})
    for sizes in ({"m": 1, "k": 32}, {"m": 33, "k": 160}):
        check_scaled(d, 1e-5, sizes)


def conv(dtype: str, x: tuple, w: tuple, out: tuple, **attrs) -> Dispatch:
    """A convolution of `dtype` whose results are its accumulators."""
    acc = "i32" if dtype == "i8" else "f32"
    rank = len(x) - 2
    named = dict(acc=acc, groups=1, strides=(1,) * rank, dilations=(1,) * rank, pads=(0,) * (2 * rank)) | attrs
    operands = (contiguous(dtype, *x), contiguous(dtype, *w))
    return symbolic(Dispatch("conv", operands, (contiguous(acc, *out),), tuple(sorted(named.items())), (identity(acc),)))


@pytest.mark.parametrize("dtype", ["i8", "f8E4M3FN"])
@pytest.mark.parametrize("channels", [3, 16, 33])
def test_convolutions(dtype: str, channels: int) -> None:
    x = (2, 9, 11, channels)
    d = conv(dtype, x, (20, 3, 3, channels), (2, 5, 11, 20), strides=(2, 1), dilations=(1, 2), pads=(1, 2, 1, 2))
    check(d, tol=1e-5)
    check(conv(dtype, x, (20, 3, 3, channels), (2, 9, 11, 20), pads=(1, 1, 1, 1)), tol=1e-5)
    check(conv(dtype, x, (20, 1, 1, channels), (2, 9, 11, 20)), tol=1e-5)
    check(conv(dtype, (1, 2, 2, channels), (20, 1, 1, channels), (1, 2, 2, 20)), tol=1e-5)
    check(conv(dtype, ("n", 9, 11, channels), (20, 3, 3, channels), ("n", 7, 9, 20)), {"n": 1}, {"n": 3}, tol=1e-5)


@pytest.mark.parametrize("dtype", ["i8", "f8E4M3FN"])
def test_convolutions_in_groups(dtype: str) -> None:
    check(conv(dtype, (2, 9, 6), (4, 3, 3), (2, 9, 4), pads=(1, 1), groups=2), tol=1e-5)
    check(conv(dtype, (2, 9, 6), (6, 3, 1), (2, 9, 6), pads=(1, 1), groups=6), tol=1e-5)
    check(conv(dtype, (2, 9, 6), (6, 3, 5), (2, 11, 5), transposed=True, output_padding=(0,)), tol=1e-5)


def test_signedness_of_convolutions() -> None:
    for x, w, out, groups in (((1, 6, 4), (8, 3, 4), (1, 4, 8), 1), ((1, 6, 4), (4, 3, 1), (1, 4, 4), 4)):
        d = conv("i8", x, w, out, groups=groups, a_unsigned=True)
        check(d, operands=whole_range(d))


def test_pointwise_of_packed_elements() -> None:
    body = region("", load(0, "i4"), ("sitofp", (0,), "f32"), load(1), ("mulf", (1, 2), "f32"))
    check(pointwise(body, [contiguous("i4", 7, 33), contiguous("f32", 33)], contiguous("f32", 7, 33)))
    check(pointwise(body, [strided("i4", (12, 33), (1, 12)), contiguous("f32", 33)], contiguous("f32", 12, 33)))
    body = region("", load(0), ("truncf", (0,), "f4E2M1FN"))
    for shape in ((7, 34), (5, 7), (40000,)):
        check(pointwise(body, [contiguous("f32", *shape)], contiguous("f4E2M1FN", *shape)))
    body = region("", load(0), ("fptosi", (0,), "i4"))
    check(pointwise(body, [contiguous("f32", "n", 6)], contiguous("i4", "n", 6)), {"n": 3}, {"n": 20})
    check(move(strided("i4", (40, 6), (1, 40)), contiguous("i4", 40, 6)))


def test_gathers_of_packed_elements() -> None:
    body = region("", load(1, "i64"), ("index", (), "i64", {"axis": 1}), ("load_at", (0, 1), "i4", {"operand": 0}),
                  ("uitofp", (2,), "f32"))  # fmt: skip
    rng = np.random.default_rng(0)
    d = pointwise(body, [contiguous("i4", 11, 45), contiguous("i64", 5, 1)], contiguous("f32", 5, 45))
    check(d, operands=[rng.integers(-8, 8, (11, 45)).astype(DTYPES["i4"].np), rng.integers(0, 11, (5, 1))])


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("b", ["i8", "i4", "f4E2M1FN"])
def test_rows_that_may_be_one(b: str, turned: bool) -> None:
    d = make.quantized_matmul("m", 150, 96, "f32", b, scale="f32", block=32, zero=b[0] == "i", b_transposed=turned)
    for m in (1, 5):
        check_scaled(d, 1e-5, {"m": m})
    d = matmul(contiguous("i8", "m", 301), contiguous("i8", 301, 75), contiguous("i32", "m", 75), acc="i32")
    check(d, {"m": 1})


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("b", ["i8", "i4", "f8E4M3FN"])
def test_few_rows_of_a_large_quantized_weight(b: str, turned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Products cut along k, whose parts and pieces are decoded as they are read."""
    monkeypatch.setattr(cpu_vector_product, "_LARGE", 1)
    zero = b[0] == "i"
    for m in ("m", 1, 3):
        d = make.quantized_matmul(m, 150, 288, "f32", b, scale="f32", block=32, zero=zero, b_transposed=turned)
        for rows in (1, 2, 3, 4, 7, 8, 9) if m == "m" else (m,):
            check_scaled(d, 1e-5, {"m": rows})
    weight = transposed(b, 301, 75) if turned else contiguous(b, 301, 75)
    if b == "i8":
        d = matmul(contiguous("i8", "m", 301), weight, contiguous("i32", "m", 75), acc="i32")
        for rows in (1, 5, 8, 9):
            check(d, {"m": rows})
