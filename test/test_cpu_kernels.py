"""CPU kernels against the reference (ingot.compiler.reference), family by family: shapes, strides, dtypes, fusions."""

from __future__ import annotations

import numpy as np
import pytest
from cpu_kernel_harness import CompiledDispatch, place

from ingot import dims
from ingot.compiler.cpu_target import baseline, vector_bits
from ingot.compiler.reference import run_dispatch
from ingot.dispatch import Dispatch, ScalarInst, ScalarRegion, TensorArg, contiguous
from ingot.dtypes import DTYPES
from ingot.errors import DeviceError
from ingot.target import Target

# A region: (result or operation, ...) rows; see `region`.


def region(args: str, *insts: tuple, results: tuple[int, ...] | None = None) -> ScalarRegion:
    """A region from rows (op, args, type, attrs...): `region("f32", ("load", (), "f32", dict(operand=1)), ...)`."""
    types = tuple(args.split())
    rows = tuple(ScalarInst(op, a, t, tuple(sorted((x[0] if x else {}).items()))) for op, a, t, *x in insts)
    return ScalarRegion(types, rows, results if results is not None else (len(types) + len(rows) - 1,))


def identity(dtype: str = "f32") -> ScalarRegion:
    return ScalarRegion((dtype,), (), (0,))


def load(operand: int, dtype: str = "f32") -> tuple:
    return ("load", (), dtype, {"operand": operand})


def symbolic(d: Dispatch) -> Dispatch:
    """The dispatch with the symbols its shapes mention."""
    from dataclasses import replace

    tensors = (*d.operands, *d.results)
    names = sorted(dims.symbols_of(x for t in tensors for x in (*t.shape, *t.strides)))
    return replace(d, symbols=tuple(names), multiples=(1,) * len(names))


def random(arg: TensorArg, sizes: dict[str, int], rng: np.random.Generator) -> np.ndarray:
    shape = [dims.evaluate(x, sizes) for x in arg.shape]
    kind = DTYPES[arg.dtype].kind
    if kind == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if kind == "int":
        return rng.integers(-7, 8, shape).astype(DTYPES[arg.dtype].np)
    return rng.standard_normal(shape).astype(DTYPES[arg.dtype].np)


def check(
    d: Dispatch, *sizes: dict[str, int], tol: float = 2e-6, operands: list | None = None, target: Target | None = None
) -> CompiledDispatch:
    """Compile `d` once and compare it with the reference at each of `sizes` (of symbols)."""
    compiled = CompiledDispatch(d, target)
    for values in sizes or ({},):
        rng = np.random.default_rng(1)
        arrays = operands or [random(t, values, rng) for t in d.operands]
        placed = [place(t, a, values) for t, a in zip(d.operands, arrays, strict=True)]
        into = placed[1] if d.root == "move" and d.attr("offsets") is not None else None
        actual = compiled.run(placed, values, into=into)
        if into is not None:
            expected = [into.copy()]
            o = [dims.evaluate(dims.as_dim(x), values) for x in d.attr("offsets")]
            expected[0][tuple(slice(i, i + n) for i, n in zip(o, placed[0].shape, strict=True))] = placed[0]
        else:
            expected = run_dispatch(d, placed, values, float64=True)
        for got, want, r in zip(actual, expected, d.results, strict=True):
            if DTYPES[r.dtype].kind != "float":
                np.testing.assert_array_equal(got, want)
                continue
            bound = tol + {"f16": 2e-3, "bf16": 1.6e-2}.get(r.dtype, 0)
            got, want = got.astype(np.float64), want.astype(np.float64)
            scale = np.abs(want[np.isfinite(want)]).max(initial=1e-3)
            np.testing.assert_allclose(got, want, rtol=bound, atol=bound * scale)
    return compiled


def strided(dtype: str, shape: tuple, strides: tuple) -> TensorArg:
    return TensorArg(dtype, tuple(map(dims.as_dim, shape)), tuple(map(dims.as_dim, strides)))


ADD = region("", load(0), load(1), ("addf", (0, 1), "f32"))
GELU = (
    ("const", (), "f32", {"value": 0.7071067811865476}), ("mulf", (0, 1), "f32"), ("erf", (2,), "f32"),
    ("const", (), "f32", {"value": 1.0}), ("addf", (3, 4), "f32"), ("mulf", (0, 5), "f32"),
    ("const", (), "f32", {"value": 0.5}), ("mulf", (6, 7), "f32"),
)  # fmt: skip


def pointwise(body: ScalarRegion, operands: list[TensorArg], *results: TensorArg) -> Dispatch:
    return symbolic(Dispatch("pointwise", tuple(operands), results, (), (body,)))


def test_pointwise_contiguous_static_and_dynamic():
    check(pointwise(ADD, [contiguous("f32", 3, 5, 7)] * 2, contiguous("f32", 3, 5, 7)))
    d = pointwise(ADD, [contiguous("f32", "a", "b", 7)] * 2, contiguous("f32", "a", "b", 7))
    check(d, {"a": 3, "b": 11}, {"a": 1, "b": 1}, {"a": 0, "b": 4}, {"a": 50, "b": 130})


def test_pointwise_broadcast_and_strides():
    check(pointwise(ADD, [contiguous("f32", 4, 1, 37), contiguous("f32", 5, 1)], contiguous("f32", 4, 5, 37)))
    check(pointwise(ADD, [strided("f32", (6, 20), (1, 6)), contiguous("f32", 20)], contiguous("f32", 6, 20)))
    check(pointwise(ADD, [strided("f32", (70, 300), (1, 70)), contiguous("f32", 70, 300)], contiguous("f32", 70, 300)))
    check(pointwise(ADD, [strided("f32", (6, 20), (80, -3)), contiguous("f32", 6, 20)], strided("f32", (6, 20), (40, 2))))
    one_or_n = strided("f32", ("n", 9), ("select(n, 1, 0, 9)", 1))
    check(pointwise(ADD, [one_or_n, contiguous("f32", "n", 9)], contiguous("f32", "n", 9)), {"n": 1}, {"n": 5})


def test_pointwise_splits_large_tensors_into_items():
    compiled = check(pointwise(ADD, [contiguous("f32", 3, 40000), contiguous("f32", 40000)], contiguous("f32", 3, 40000)))
    assert compiled.plan.launches[0].grid[0] > 4
    small = check(pointwise(ADD, [contiguous("f32", 30, 40), contiguous("f32", 40)], contiguous("f32", 30, 40)))
    assert small.plan.launches[0].grid[0] == 1


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_pointwise_sixteen_bit(dtype):
    body = region("", load(0, dtype), ("extf", (0,), "f32"), load(1, dtype), ("extf", (2,), "f32"),
                  ("mulf", (1, 3), "f32"), ("truncf", (4,), dtype))  # fmt: skip
    check(pointwise(body, [contiguous(dtype, 9, 50), strided(dtype, (9, 50), (1, 9))], contiguous(dtype, 9, 50)))


def test_pointwise_integers_bools_and_several_results():
    body = region("", load(0, "i64"), load(1, "i64"), ("cmpi_slt", (0, 1), "i1"), ("addi", (0, 1), "i64"),
                  ("select", (2, 0, 3), "i64"), results=(2, 4))  # fmt: skip
    for shape in ((5, 7), (3, 64)):
        args = [contiguous("i64", *shape), contiguous("i64", shape[1])]
        check(pointwise(body, args, contiguous("i1", *shape), contiguous("i64", *shape)))
    body = region("", load(0, "i1"), load(1, "f64"), ("const", (), "f64", {"value": -1.5}), ("select", (0, 1, 2), "f64"))
    check(pointwise(body, [contiguous("i1", 100), contiguous("f64", 100)], contiguous("f64", 100)))
    body = region("", load(0, "i8"), ("const", (), "i8", {"value": 3}), ("muli", (0, 1), "i8"))
    check(pointwise(body, [contiguous("i8", 3, 70)], contiguous("i8", 3, 70)))


def test_pointwise_gathers_at_computed_indices():
    # Rows of a table at indices: contiguous along the last axis.
    body = region("", load(1, "i64"), ("index", (), "i64", {"axis": 2}), ("load_at", (0, 1), "f32", {"operand": 0}))
    rng = np.random.default_rng(0)
    table, at = rng.standard_normal((11, 45)).astype(np.float32), rng.integers(0, 11, (3, 4, 1))
    d = pointwise(body, [contiguous("f32", 11, 45), contiguous("i64", 3, 4, 1)], contiguous("f32", 3, 4, 45))
    check(d, operands=[table, at])
    # Reversed, through a computed step of -1, and a gather of halves along the lanes.
    body = region("", ("const", (), "i64", {"value": 36}), ("index", (), "i64", {"axis": 0}), ("subi", (0, 1), "i64"),
                  ("load_at", (2,), "f32", {"operand": 0}))  # fmt: skip
    check(pointwise(body, [contiguous("f32", 37)], contiguous("f32", 37)))
    body = region("", load(1, "i64"), ("load_at", (0,), "f16", {"operand": 0}))
    d = pointwise(body, [contiguous("f16", 19), contiguous("i64", 53)], contiguous("f16", 53))
    check(d, operands=[rng.standard_normal(19).astype(np.float16), rng.integers(0, 19, 53)])
    # A padded shift: out-of-range lanes are clamped, then replaced.
    body = region("", ("index", (), "i64", {"axis": 1}), ("const", (), "i64", {"value": 2}), ("subi", (0, 1), "i64"),
                  ("const", (), "i64", {"value": 0}), ("maxsi", (2, 3), "i64"), ("index", (), "i64", {"axis": 0}),
                  ("load_at", (5, 4), "f32", {"operand": 0}), ("cmpi_slt", (2, 3), "i1"),
                  ("const", (), "f32", {"value": 0.0}), ("select", (7, 8, 6), "f32"))  # fmt: skip
    check(pointwise(body, [contiguous("f32", "n", 40)], contiguous("f32", "n", 42)), {"n": 3})


def test_pointwise_dim_and_index():
    body = region("", ("dim", (), "i64", {"dim": "2*n - floordiv(n - 5, 2)"}), ("index", (), "i64", {"axis": 1}),
                  ("addi", (0, 1), "i64"))  # fmt: skip
    check(pointwise(body, [], contiguous("i64", "n", 21)), {"n": 2}, {"n": 9})


def move(x: TensorArg, result: TensorArg, body: ScalarRegion | None = None, offsets: tuple | None = None) -> Dispatch:
    operands = (x,) if offsets is None else (x, result)
    attrs = () if offsets is None else (("offsets", offsets),)
    return symbolic(Dispatch("move", operands, (result,), attrs, (body or identity(x.dtype),)))


@pytest.mark.parametrize("dtype", ["f32", "f16", "i8", "i64", "i1"])
def test_move_transposes(dtype):
    check(move(strided(dtype, (75, 300), (1, 75)), contiguous(dtype, 75, 300)))
    check(move(strided(dtype, (2, 33, 3, 50), (4950, 1, 1650, 33)), contiguous(dtype, 2, 33, 3, 50)))
    check(move(strided(dtype, (2, 3, 17, 20), (1020, 20, 60, 1)), contiguous(dtype, 2, 3, 17, 20)))


def test_move_dynamic_and_cast():
    x = strided("f32", ("b", "s", "h", 8), ("s*h*8", 8, "8*s", 1))
    check(move(x, contiguous("f32", "b", "s", "h", 8)), {"b": 2, "s": 5, "h": 3}, {"b": 1, "s": 0, "h": 3})
    x = strided("f32", ("n", "m"), (1, "n"))
    check(move(x, contiguous("f32", "n", "m")), {"n": 33, "m": 47}, {"n": 1, "m": 1}, {"n": 400, "m": 70})
    body = region("f32", ("truncf", (0,), "bf16"))
    check(move(strided("f32", (40, 50), (1, 40)), contiguous("bf16", 40, 50), body))


def test_move_into_a_part():
    check(move(contiguous("f32", 3, 10), contiguous("f32", 7, 25), offsets=("2", "5")))
    check(move(contiguous("f32", "a", 10), contiguous("f32", "a + 4", 10), offsets=("4", "0")), {"a": 3})


def matmul(
    a: TensorArg, b: TensorArg, *results: TensorArg, body: ScalarRegion | None = None, more: tuple = (), acc: str = "f32"
) -> Dispatch:
    return symbolic(Dispatch("matmul", (a, b, *more), results, (("acc", acc),), (body or identity(acc),)))


def transposed(dtype: str, *shape: int | str) -> TensorArg:
    """[..., k, n] stored as [..., n, k]."""
    sizes = tuple(map(dims.as_dim, shape))
    s = dims.row_major((*sizes[:-2], sizes[-1], sizes[-2]))
    return TensorArg(dtype, sizes, (*s[:-2], s[-1], s[-2]))


@pytest.mark.parametrize("m", [1, 3, 8, 9, 40, 197])
@pytest.mark.parametrize(("k", "n"), [(64, 64), (33, 47), (600, 70)])
def test_matmul_static(m, k, n):
    check(matmul(contiguous("f32", m, k), contiguous("f32", k, n), contiguous("f32", m, n)), tol=1e-5)
    check(matmul(contiguous("f32", m, k), transposed("f32", k, n), contiguous("f32", m, n)), tol=1e-5)


def test_matmul_dynamic():
    d = matmul(contiguous("f32", "m", "k"), contiguous("f32", "k", "n"), contiguous("f32", "m", "n"))
    sizes = ((1, 1, 1), (50, 300, 77), (200, 64, 300), (3, 0, 5), (0, 4, 5))
    check(d, *({"m": m, "k": k, "n": n} for m, k, n in sizes), tol=1e-5)
    d = matmul(contiguous("f32", "m", "k"), transposed("f32", "k", "n"), contiguous("f32", "m", "n"))
    check(d, *({"m": m, "k": k, "n": n} for m, k, n in ((1, 1, 1), (50, 300, 77), (14, 64, 33))), tol=1e-5)


@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_matmul_of_rows_that_may_be_one(dtype):
    """One row, as in decoding, takes a way of its own through the kernel."""
    for b in (contiguous(dtype, 301, 1100), transposed(dtype, 301, 1100), strided(dtype, (301, 1100), (3300, 3))):
        d = matmul(contiguous(dtype, "m", 301), b, contiguous("f32", "m", 1100), body=region("f32", *GELU))
        check(d, {"m": 1}, {"m": 2}, tol=1e-5)
    d = matmul(contiguous("f32", "b", "m", 64), contiguous("f32", "b", 64, 90), contiguous("f32", "b", "m", 90))
    check(d, {"b": 3, "m": 1}, {"b": 2, "m": 3}, tol=1e-5)


FEW = tuple({"m": m} for m in (0, 1, 2, 3, 8, 9, 16, 17))  # rows below and above what is streamed


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("dtype", ["f32", "f16", "f64"])
def test_few_rows_of_a_large_weight(dtype, turned):
    """Products cut along k, with an epilogue after the sums of the parts; k and n are multiples of nothing."""
    k, n = 307, 2301
    weight = transposed(dtype, k, n) if turned else contiguous(dtype, k, n)
    acc = "f64" if dtype == "f64" else "f32"
    tol = 1e-12 if acc == "f64" else 1e-5
    body = region(acc, load(2), ("addf", (0, 1), acc), load(3), ("mulf", (2, 3), acc), results=(2, 4))

    def product(m):
        c, more = contiguous(acc, m, n), (contiguous(acc, n), contiguous(acc, m, n))
        return matmul(contiguous(dtype, m, k), weight, c, c, body=body, more=more, acc=acc)

    check(product("m"), *FEW, tol=tol)
    for m in (0, 1, 6):
        check(product(m), tol=tol)
    plan = CompiledDispatch(product("m")).plan
    assert len(plan.launches) == (1 if turned else 2)
    items = [dims.evaluate(launch.grid[0], {"m": 1}) for launch in plan.launches]
    assert all(x > 4 for x in items), items  # threads share one row's product
    assert turned or dims.evaluate(plan.launches[1].grid[0], {"m": 17}) == 0
    assert turned or dims.evaluate(plan.workspace, {"m": 40}) == 0


@pytest.mark.parametrize("rows", [(), ("m",), (1,)])
def test_batches_are_not_cut_along_k(rows):
    a, c = contiguous("f32", 2, *(rows or (3,)), 700), contiguous("f32", 2, *(rows or (3,)), 500)
    d = matmul(a, contiguous("f32", 2, 700, 500), c)
    check(d, *([{"m": 1}, {"m": 5}] if rows == ("m",) else [{}]), tol=1e-5)
    assert CompiledDispatch(d).plan.workspace == 0


@pytest.mark.parametrize("m", [1, 3])
def test_matmul_of_long_rows(m):
    """Rows of B that lie in pages of their own are read in pieces."""
    for n in (1025, 2000):
        check(matmul(contiguous("f32", m, 37), contiguous("f32", 37, n), contiguous("f32", m, n)), tol=1e-5)


def test_matmul_batches():
    check(matmul(contiguous("f32", 2, 3, 20, 16), contiguous("f32", 1, 3, 16, 24), contiguous("f32", 2, 3, 20, 24)), tol=1e-5)
    check(matmul(contiguous("f32", 5, 1, 16), contiguous("f32", 5, 16, 24), contiguous("f32", 5, 1, 24)), tol=1e-5)
    check(matmul(contiguous("f32", 2, 0, 16), contiguous("f32", 2, 16, 24), contiguous("f32", 2, 0, 24)), tol=1e-5)
    d = matmul(contiguous("f32", "b", 4, "s", 8), transposed("f32", "b", 4, 8, "t"), contiguous("f32", "b", 4, "s", "t"))
    check(d, {"b": 2, "s": 5, "t": 19}, tol=1e-5)
    # Batch axes of A merge with m.
    d = matmul(contiguous("f32", 3, 7, 16), contiguous("f32", 16, 20), contiguous("f32", 3, 7, 20))
    from ingot.compiler.codegen.cpu_matmul import problem_of

    assert (problem_of(d).batch, problem_of(d).m) == ((), 21)
    check(d, tol=1e-5)


def test_matmul_strided_operands():
    a, b = strided("f32", (30, 20), (1, 30)), strided("f32", (20, 40), (80, 2))
    check(matmul(a, b, strided("f32", (30, 40), (1, 30))), tol=1e-5)
    check(matmul(strided("f32", (30, 20), (60, 2)), strided("f32", (20, 40), (0, 1)), contiguous("f32", 30, 40)), tol=1e-5)
    check(matmul(strided("f32", (3, 20), (60, 2)), strided("f32", (20, 40), (1, 50)), contiguous("f32", 3, 40)), tol=1e-5)
    check(matmul(strided("f32", (500, 30), (1, 500)), contiguous("f32", 30, 40), contiguous("f32", 500, 40)), tol=1e-5)


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_matmul_sixteen_bit(dtype):
    body = region("f32", ("truncf", (0,), dtype))
    for m in (2, 30):
        a, c = contiguous(dtype, m, 50), contiguous(dtype, m, 70)
        check(matmul(a, contiguous(dtype, 50, 70), c, body=body), tol=1e-5)
        check(matmul(a, transposed(dtype, 50, 70), c, body=body), tol=1e-5)


def test_a_last_vector_of_one_narrow_element():
    """LLVM turns a masked store of one lane into a scalar store, as wide as the value was before truncation."""
    body = region("f32", ("truncf", (0,), "bf16"))
    for n in (1, 33):
        check(matmul(contiguous("bf16", 20, 16), contiguous("bf16", 16, n), contiguous("bf16", 20, n), body=body), tol=1e-5)
    narrow = region("", load(0, "i32"), ("trunci", (0,), "i8"))
    check(pointwise(narrow, [contiguous("i32", 3, 17)], contiguous("i8", 3, 17)))


def test_matmul_other_types():
    check(matmul(*[contiguous("f64", 33, 33)] * 3, acc="f64"), tol=1e-12)
    check(matmul(contiguous("i8", 20, 70), contiguous("i8", 70, 30), contiguous("i32", 20, 30), acc="i32"))
    check(matmul(contiguous("i8", 2, 70), transposed("i8", 70, 30), contiguous("i32", 2, 30), acc="i32"))


@pytest.mark.parametrize("m", [4, 50])
def test_matmul_epilogue_with_several_results(m):
    body = region("f32", load(2), ("addf", (0, 1), "f32"), load(3), ("mulf", (2, 3), "f32"), results=(2, 4))
    more = (contiguous("f32", 75), contiguous("f32", m, 75))
    c = contiguous("f32", m, 75)
    check(matmul(contiguous("f32", m, 600), contiguous("f32", 600, 75), c, c, body=body, more=more), tol=1e-5)
    gelu = region("f32", *GELU)
    d = matmul(contiguous("f32", 2, "m", 32), contiguous("f32", 32, 48), contiguous("f32", 2, "m", 48), body=gelu)
    check(d, {"m": 13}, tol=1e-5)
    causal = region("f32", ("index", (), "i64", {"axis": 1}), ("index", (), "i64", {"axis": 2}), ("cmpi_slt", (1, 2), "i1"),
                    ("const", (), "f32", {"value": -1e30}), ("select", (3, 4, 0), "f32"))  # fmt: skip
    d = matmul(contiguous("f32", 2, 20, 32), contiguous("f32", 32, 48), contiguous("f32", 2, 20, 48), body=causal)
    check(d, tol=1e-5)


def conv(
    x: tuple, w: tuple, out: tuple, *, groups: int = 1, strides: tuple = (1, 1), dilations: tuple = (1, 1),
    pads: tuple = (0, 0, 0, 0), body: ScalarRegion | None = None, more: tuple = (), dtype: str = "f32", **attrs,
) -> Dispatch:  # fmt: skip
    named = dict(acc="f32", groups=groups, strides=strides, dilations=dilations, pads=pads, **attrs)
    operands = (contiguous(dtype, *x), contiguous(dtype, *w), *more)
    d = Dispatch("conv", operands, (contiguous(dtype, *out),), tuple(sorted(named.items())), (body or identity(),))
    return symbolic(d)


PADDED = {"pads": (1, 1, 1, 1)}


def test_conv_2d():
    check(conv((2, 9, 7, 20), (24, 3, 3, 20), (2, 9, 7, 24), **PADDED), tol=1e-5)
    check(conv((1, 23, 23, 3), (40, 7, 7, 3), (1, 12, 12, 40), strides=(2, 2), pads=(3, 3, 3, 3)), tol=1e-5)
    check(conv((1, 9, 9, 64), (33, 3, 3, 64), (1, 4, 4, 33), strides=(2, 2)), tol=1e-5)
    check(conv((1, 9, 9, 5), (6, 3, 3, 5), (1, 9, 9, 6), dilations=(2, 2), pads=(2, 2, 2, 2)), tol=1e-5)
    check(conv((1, 9, 9, 300), (6, 3, 3, 300), (1, 7, 7, 6)), tol=1e-5)


def test_conv_pointwise_and_epilogue():
    body = region("f32", load(2), ("addf", (0, 1), "f32"), load(3), ("addf", (2, 3), "f32"))
    more = (contiguous("f32", 50), contiguous("f32", 2, 5, 6, 50))
    check(conv((2, 5, 6, 40), (50, 1, 1, 40), (2, 5, 6, 50), body=body, more=more), tol=1e-5)
    body = region("f32", ("index", (), "i64", {"axis": 1}), ("sitofp", (1,), "f32"), ("addf", (0, 2), "f32"))
    check(conv((2, 6, 6, 40), (50, 1, 1, 40), (2, 3, 3, 50), strides=(2, 2), body=body), tol=1e-5)


def test_conv_of_few_pixels():
    body = region("f32", load(2), ("addf", (0, 1), "f32"))
    check(conv((2, 1, 1, 70), (50, 1, 1, 70), (2, 1, 1, 50), body=body, more=(contiguous("f32", 50),)), tol=1e-5)
    check(conv((1, 2, 2, 64), (50, 1, 1, 64), (1, 2, 2, 50)), tol=1e-5)


def test_conv_groups_and_ranks():
    check(conv((1, 8, 8, 12), (18, 3, 3, 4), (1, 8, 8, 18), groups=3, **PADDED), tol=1e-5)
    check(conv((1, 8, 8, 6), (12, 3, 3, 1), (1, 8, 8, 12), groups=6, **PADDED), tol=1e-5)
    one = {"strides": (2,), "dilations": (1,), "pads": (1, 1)}
    check(conv((2, 20, 10), (16, 3, 10), (2, 10, 16), **one), tol=1e-5)
    three = {"strides": (1, 1, 1), "dilations": (1, 1, 1), "pads": (1, 0, 1, 1, 0, 1)}
    check(conv((1, 4, 5, 6, 7), (9, 3, 2, 3, 7), (1, 4, 4, 6, 9), **three), tol=1e-5)


def test_conv_dynamic():
    d = conv(("n", "h", "w", 8), (20, 3, 3, 8), ("n", "h", "w", 20), **PADDED)
    check(d, {"n": 1, "h": 5, "w": 5}, {"n": 2, "h": 17, "w": 11}, {"n": 0, "h": 3, "w": 3}, tol=1e-5)


@pytest.mark.parametrize("channels", [7, 16, 90])
def test_conv_depthwise(channels):
    c = channels
    check(conv((2, 9, 8, c), (c, 3, 3, 1), (2, 9, 8, c), groups=c, **PADDED), tol=1e-5)
    check(conv((1, 9, 8, c), (c, 5, 5, 1), (1, 5, 4, c), groups=c, strides=(2, 2), pads=(2, 2, 2, 2)), tol=1e-5)
    d = conv(("n", "h", 8, c), (c, 3, 3, 1), ("n", "h", 8, c), groups=c, dilations=(2, 3), pads=(2, 3, 2, 3))
    check(d, {"n": 2, "h": 6}, {"n": 1, "h": 1}, tol=1e-5)


def test_conv_sixteen_bit():
    body = region("f32", ("truncf", (0,), "f16"))
    check(conv((1, 7, 7, 20), (24, 3, 3, 20), (1, 7, 7, 24), dtype="f16", body=body, **PADDED), tol=1e-5)
    check(conv((1, 7, 7, 20), (20, 3, 3, 1), (1, 7, 7, 20), groups=20, dtype="f16", body=body, **PADDED), tol=1e-5)


def test_conv_transposed():
    up = {"transposed": True, "output_padding": (0, 0)}
    check(conv((1, 5, 6, 8), (8, 2, 2, 12), (1, 10, 12, 12), strides=(2, 2), **up), tol=1e-5)
    check(conv((2, 5, 6, 8), (8, 4, 3, 6), (2, 10, 13, 12), strides=(2, 2), groups=2, pads=(1, 0, 1, 0), **up), tol=1e-5)
    up["output_padding"] = (1, 1)
    check(conv((1, 4, 4, 3), (3, 3, 3, 5), (1, 8, 8, 5), strides=(2, 2), pads=(1, 1, 1, 1), **up), tol=1e-5)


def reduction(root: str, x: TensorArg, results: list[TensorArg], axes: tuple, kind: str, first=None, second=None, more=()):
    attrs = {"axes": axes, "kind": kind} | ({"epsilon": 1e-5} if root == "normalize" else {})
    acc = "f32" if x.dtype in ("f16", "bf16") else x.dtype
    first = first or identity(acc)
    second = second or identity(first.type_of(first.results[0]))
    return symbolic(Dispatch(root, (x, *more), tuple(results), tuple(sorted(attrs.items())), (first, second)))


@pytest.mark.parametrize("kind", ["sum", "max", "min", "prod"])
@pytest.mark.parametrize(
    ("shape", "axes"),
    [((5, 37), (1,)), ((5, 64), (0,)), ((3, 7, 50), (0, 2)), ((4, 6, 3), (1,)), ((40,), (0,)), ((3, 150), (0,))],
)
def test_reduce(kind, shape, axes):
    out = tuple(1 if a in axes else n for a, n in enumerate(shape))
    check(reduction("reduce", contiguous("f32", *shape), [contiguous("f32", *out)], axes, kind), tol=1e-5)
    check(reduction("reduce", contiguous("i64", *shape), [contiguous("i64", *out)], axes, kind), tol=1e-5)


def test_reduce_dynamic_fused_and_strided():
    mean = region("f32", ("dim", (), "i64", {"dim": "s"}), ("sitofp", (1,), "f32"), ("divf", (0, 2), "f32"), load(1),
                  ("addf", (3, 4), "f32"), results=(3, 5))  # fmt: skip
    square = region("f32", ("mulf", (0, 0), "f32"))
    x, y = contiguous("f32", "b", "s", 20), contiguous("f32", "b", 1, 20)
    d = reduction("reduce", x, [y, y], (1,), "sum", square, mean, (contiguous("f32", 20),))
    check(d, {"b": 2, "s": 9}, {"b": 1, "s": 1}, {"b": 0, "s": 3}, tol=1e-5)
    x = strided("f32", (7, 300), (1, 7))
    check(reduction("reduce", x, [contiguous("f32", 7, 1)], (1,), "sum"), tol=1e-5)
    wide = region("f16", ("extf", (0,), "f32"))
    narrow = region("f32", ("truncf", (0,), "f16"))
    check(reduction("reduce", contiguous("f16", 9, 70), [contiguous("f16", 9, 1)], (1,), "max", wide, narrow))
    check(reduction("reduce", contiguous("i1", 9, 70), [contiguous("i1", 9, 1)], (1,), "min"))


def test_reduce_passes_nan_on():
    x = np.ones((3, 40), np.float32)
    x[1, 17] = np.nan
    for kind in ("max", "min"):
        d = reduction("reduce", contiguous("f32", 3, 40), [contiguous("f32", 3, 1)], (1,), kind)
        check(d, operands=[x])


@pytest.mark.parametrize("kind", ["softmax", "log_softmax", "layer", "rms"])
@pytest.mark.parametrize(
    ("shape", "axes"), [((5, 37), (1,)), ((5, 64), (1,)), ((6, 50), (0,)), ((3, 7, 20), (1, 2)), ((3, 7, 150), (1,))]
)
def test_normalize(kind, shape, axes):
    x = contiguous("f32", *shape)
    check(reduction("normalize", x, [x], axes, kind), tol=1e-5)


def test_normalize_dynamic_and_fused():
    scale = region("f32", load(1), ("mulf", (0, 1), "f32"), load(2), ("addf", (2, 3), "f32"))
    x, c = contiguous("f32", "b", "s", 768), contiguous("f32", 768)
    check(reduction("normalize", x, [x], (2,), "layer", None, scale, (c, c)), {"b": 2, "s": 3}, {"b": 0, "s": 1}, tol=1e-5)
    x = contiguous("f32", "n", "t")
    check(reduction("normalize", x, [x], (1,), "softmax"), {"n": 3, "t": 1}, {"n": 2, "t": 100}, {"n": 2, "t": 0}, tol=1e-5)
    wide = region("bf16", ("extf", (0,), "f32"), load(1, "bf16"), ("extf", (2,), "f32"), ("addf", (1, 3), "f32"))
    narrow = region("f32", ("truncf", (0,), "bf16"), results=(1, 0))
    x = contiguous("bf16", 4, 100)
    d = reduction("normalize", x, [x, contiguous("f32", 4, 100)], (1,), "rms", wide, narrow, (contiguous("bf16", 4, 1),))
    check(d, tol=1e-5)


def pool(x: TensorArg, out: TensorArg, kind: str, kernel: tuple, body: ScalarRegion | None = None, **attrs) -> Dispatch:
    ones = (1,) * len(kernel)
    named = {"kind": kind, "kernel": kernel, "strides": ones, "dilations": ones, "pads": (0, 0) * len(kernel)} | attrs
    return symbolic(Dispatch("pool", (x,), (out,), tuple(sorted(named.items())), (body or identity(),)))


@pytest.mark.parametrize("kind", ["max", "sum", "average"])
@pytest.mark.parametrize("channels", [5, 64, 70])
def test_pool(kind, channels):
    c = channels
    x, y = contiguous("f32", 2, 11, 9, c), contiguous("f32", 2, 6, 5, c)
    check(pool(x, y, kind, (3, 3), strides=(2, 2), pads=(1, 1, 1, 1)))
    d = pool(contiguous("f32", "n", "h", 8, c), contiguous("f32", "n", "h - 2", 4, c), kind, (3, 2), dilations=(1, 4))
    check(d, {"n": 1, "h": 5}, {"n": 3, "h": 3})


def test_pool_counts_padding_and_ceil_mode():
    x, y = contiguous("f32", 1, 7, 7, 20), contiguous("f32", 1, 4, 4, 20)
    check(pool(x, y, "average", (3, 3), strides=(2, 2), pads=(0, 1, 1, 1), count_include_pad=True))
    check(pool(x, y, "average", (2, 2), strides=(2, 2), pads=(0, 0, 0, 0), count_include_pad=True))
    check(pool(contiguous("f32", 2, 30, 9), contiguous("f32", 2, 14, 9), "max", (4,), strides=(2,)))
    body = region("f32", ("truncf", (0,), "f16"))
    check(pool(contiguous("f16", 1, 6, 6, 20), contiguous("f16", 1, 3, 3, 20), "average", (2, 2), body, strides=(2, 2)))


def attention(
    q: TensorArg, k: TensorArg, v: TensorArg, out: TensorArg, score: ScalarRegion | None = None,
    body: ScalarRegion | None = None, more: tuple = (), **attrs,
) -> Dispatch:  # fmt: skip
    named = {"scale": 0.25} | attrs
    regions = (score or identity(), body or identity())
    return symbolic(Dispatch("attention", (q, k, v, *more), (out,), tuple(sorted(named.items())), regions))


@pytest.mark.parametrize("queries", [1, 3, 5, 60, 130])
@pytest.mark.parametrize("causal", [False, True])
def test_attention_static(queries, causal):
    s, attrs = queries, {"causal": True} if causal else {}
    for keys, depth, width in ((max(s, 37), 16, 16), (300, 40, 24)):
        q, k, v = (contiguous("f32", 2, 3, n, d) for n, d in ((s, depth), (keys, depth), (keys, width)))
        check(attention(q, k, v, contiguous("f32", 2, 3, s, width), **attrs), tol=1e-5)


@pytest.mark.parametrize("queries", [1, 20])
def test_attention_grouped_masked_and_dynamic(queries):
    s = queries
    masked = region("f32", load(3), ("addf", (0, 1), "f32"))
    bias = region("f32", load(4), ("addf", (0, 1), "f32"))
    q, out = contiguous("f32", "b", 6, s, 32), contiguous("f32", "b", 6, s, 48)
    k, v = contiguous("f32", "b", 2, "t", 32), contiguous("f32", "b", 2, "t", 48)
    d = attention(q, k, v, out, masked, bias, (contiguous("f32", "b", 1, 1, "t"), contiguous("f32", 48)))
    check(d, {"b": 2, "t": 9}, {"b": 1, "t": 520}, {"b": 1, "t": 1}, tol=1e-5)
    # The first block of keys is masked altogether.
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(n).astype(np.float32) for n in ((1, 6, s, 32), (1, 2, 400, 32), (1, 2, 400, 48))]
    mask = np.where(np.arange(400) < 300, -np.inf, 0).astype(np.float32).reshape(1, 1, 1, 400)
    d = d.specialize({"b": 1, "t": 400})
    check(d, tol=1e-5, operands=[*arrays, mask, np.zeros(48, np.float32)])


@pytest.mark.parametrize("queries", [1, 20])
@pytest.mark.parametrize("lengths", ["i32", "i64"])
@pytest.mark.parametrize("causal", [False, True])
def test_attention_of_sequences_of_other_lengths(queries, lengths, causal):
    """Behind a sequence's end lie keys and values that would be seen."""
    q, k = contiguous("f32", "b", 6, queries, 32), contiguous("f32", "b", 2, "t", 32)
    d = attention(q, k, k, q, more=(contiguous(lengths, "b"),), ragged=True, **({"causal": True} if causal else {}))
    rng = np.random.default_rng(0)
    counts = np.array([600, 20, 301, 700], lengths.replace("i", "int"))  # the last one beyond what there is
    arrays = [rng.standard_normal(n).astype(np.float32) for n in ((4, 6, queries, 32), (4, 2, 600, 32), (4, 2, 600, 32))]
    for b, count in enumerate(counts):
        arrays[1][b, :, count:], arrays[2][b, :, count:] = 3, 300
    check(d, {"b": 4, "t": 600}, tol=1e-5, operands=[*arrays, counts])


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_attention_sixteen_bit_and_strided(dtype):
    """q, k and v as [B, S, H, D] in one tensor of three."""
    narrow = region("f32", ("truncf", (0,), dtype))
    for s in (2, 40):
        row = 3 * 2 * 16
        x = strided(dtype, (1, 2, s, 16), (s * row, 16, row, 1))
        out = strided(dtype, (1, 2, s, 16), (s * 32, 16, 32, 1))
        check(attention(x, x, x, out, body=narrow, causal=True), tol=1e-5)


def test_attention_gathers_narrow_queries():
    narrow = region("f32", ("truncf", (0,), "f16"))
    q, k = strided("f16", (1, 2, 1, 20), (40, 1, 1, 2)), contiguous("f16", 1, 2, 33, 20)
    check(attention(q, k, k, contiguous("f16", 1, 2, 1, 20), body=narrow), tol=1e-5)


def test_attention_dynamic_queries():
    q, k = contiguous("f32", 1, 2, "s", 64), contiguous("f32", 1, 2, "p + s", 64)
    d = attention(q, k, k, q, causal=True)
    check(d, {"s": 1, "p": 9}, {"s": 200, "p": 0}, {"s": 7, "p": 300}, tol=1e-5)


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_code_for_avx2(dtype):
    """Vectors of eight, sixteen registers, and no masks for narrow types."""
    avx2 = baseline("x86-64-v3")
    narrow = identity() if dtype == "f32" else region("f32", ("truncf", (0,), dtype))
    wide = None if dtype == "f32" else region(dtype, ("extf", (0,), "f32"))
    a, b = contiguous(dtype, 30, 50), contiguous(dtype, 50, 27)
    check(matmul(a, b, contiguous(dtype, 30, 27), body=narrow), tol=1e-5, target=avx2)
    check(matmul(a, transposed(dtype, 50, 27), contiguous(dtype, 30, 27), body=narrow), tol=1e-5, target=avx2)
    check(matmul(contiguous(dtype, 2, 50), b, contiguous(dtype, 2, 27), body=narrow), tol=1e-5, target=avx2)
    check(conv((1, 7, 7, 20), (24, 3, 3, 20), (1, 7, 7, 24), dtype=dtype, body=narrow, **PADDED), tol=1e-5, target=avx2)
    check(conv((1, 7, 7, 20), (20, 3, 3, 1), (1, 7, 7, 20), groups=20, dtype=dtype, body=narrow, **PADDED), target=avx2)
    for s in (1, 30):
        q, k = contiguous(dtype, 1, 2, s, 20), contiguous(dtype, 1, 2, 37, 20)
        check(attention(q, k, k, q, body=narrow), tol=1e-5, target=avx2)
    x = contiguous(dtype, 3, 7, 21)
    for axes in ((2,), (1,)):
        check(reduction("normalize", x, [x], axes, "softmax", wide, narrow), tol=1e-5, target=avx2)
    check(move(strided(dtype, (40, 50), (1, 40)), contiguous(dtype, 40, 50)), target=avx2)


def test_a_cpu_without_avx2_is_refused():
    with pytest.raises(DeviceError, match="lacks fma"):
        vector_bits("+avx2,-fma,+f16c")


# 4-bit elements and small floats --------------------------------------------------------------------------------------

CODES = [
    ("i4", "sitofp"), ("i4", "uitofp"), ("f4E2M1FN", "extf"), ("f8E4M3FN", "extf"), ("f8E5M2", "extf"), ("f8E8M0FNU", "extf"),
    ("i16", "uitofp"), ("i8", "uitofp"),
]  # fmt: skip


def all_codes(t: TensorArg, rng: np.random.Generator) -> np.ndarray:
    """Any numbers of a storage type, NaN left out."""
    dtype = DTYPES[t.dtype]
    if dtype.kind == "int":
        half = 1 << (dtype.bits - 1)
        return rng.integers(-half, half, t.shape).astype(dtype.np)
    if t.dtype == "f8E8M0FNU":
        return np.exp2(rng.integers(-20, 20, t.shape).astype(np.float32)).astype(dtype.np)
    return (rng.standard_normal(t.shape).astype(np.float32) * 3).astype(dtype.np)


@pytest.mark.parametrize(("dtype", "name"), CODES)
def test_elements_without_arithmetic_are_read(dtype, name):
    """Vectors, tails, rows that begin inside bytes, repeated and strided elements, on every width of vectors."""
    rng = np.random.default_rng(0)
    body = region("", load(0, dtype), (name, (0,), "f32"))
    for t, shape in (
        (contiguous(dtype, 6, 64), (6, 64)), (contiguous(dtype, 5, 37), (5, 37)), (contiguous(dtype, 2, 3, 21), (2, 3, 21)),
        (contiguous(dtype, 5, 1), (5, 40)), (strided(dtype, (6, 20), (1, 6)), (6, 20)),
        (strided(dtype, (4, 9), (40, 3)), (4, 9)),
    ):  # fmt: skip
        for target in (None, baseline("x86-64-v3")):
            check(pointwise(body, [t], contiguous("f32", *shape)), operands=[all_codes(t, rng)], target=target)


@pytest.mark.parametrize("shape", [(6, 64), (5, 37), (3, 2, 21), (40001,), (3, 1)])
@pytest.mark.parametrize("dtype", ["i4", "f4E2M1FN"])
def test_4_bit_results(dtype, shape):
    """Two elements a byte, whatever row, vector or work item they belong to; what repeats along rows keeps axes apart."""
    cast = ("truncf", (2,), dtype) if dtype[0] == "f" else ("fptosi", (2,), dtype)
    scale = TensorArg("f32", (shape[-1],), (1,))
    body = region("", load(0), load(1), ("mulf", (0, 1), "f32"), cast)
    rng = np.random.default_rng(0)
    values = [rng.integers(-7, 8, shape).astype(np.float32), np.ones(shape[-1], np.float32)]
    check(pointwise(body, [contiguous("f32", *shape), scale], contiguous(dtype, *shape)), operands=values)


def test_4_bit_elements_are_gathered_and_copied():
    table, rows = contiguous("i4", 9, 21), TensorArg("i64", (5, 1), (1, 1))
    gather = region(
        "", load(0, "i64"), ("index", (), "i64", {"axis": 1}), ("load_at", (0, 1), "i4", {"operand": 1}),
        ("sitofp", (2,), "f32"),
    )  # fmt: skip
    codes = all_codes(table, np.random.default_rng(0))
    check(pointwise(gather, [rows, table], contiguous("f32", 5, 21)), operands=[np.array([[3], [0], [8], [7], [7]]), codes])
    for shape in ((4, 6), (3, 7)):
        check(Dispatch("move", (contiguous("i4", *shape),), (contiguous("i4", *shape),), (), (identity("i4"),)))


def test_4_bit_parts_are_moved_into_their_place():
    """A part keeps its neighbours, also those in a byte that it shares with them."""
    whole, part = contiguous("i4", 3, 9), contiguous("i4", 3, 4)
    for at in ("0", "2", "3"):
        d = Dispatch("move", (part, whole), (whole,), (("offsets", ("0", at)),), (identity("i4"),))
        rng = np.random.default_rng(0)
        check(d, operands=[all_codes(part, rng), all_codes(whole, rng)])


def test_constants_and_bits_of_small_floats():
    body = region(
        "", ("const", (), "f8E4M3FN", {"value": 1.5}), ("extf", (0,), "f32"), load(0, "i8"),
        ("bitcast", (2,), "f8E8M0FNU"), ("extf", (3,), "f32"), ("mulf", (1, 4), "f32"),
    )  # fmt: skip
    codes = np.arange(100, 150, dtype=np.int8).reshape(1, 50)
    check(pointwise(body, [contiguous("i8", 1, 50)], contiguous("f32", 1, 50)), operands=[codes])
