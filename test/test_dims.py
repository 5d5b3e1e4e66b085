"""Shape expressions: the normal form proves equality, and evaluation agrees with plain arithmetic."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot import dims

NAMES = ("a", "b", "c")
ENVS = st.fixed_dictionaries({n: st.integers(0, 40) for n in NAMES})


def _combine(children: st.SearchStrategy) -> st.SearchStrategy:
    pair = st.tuples(children, children)
    return st.one_of(
        pair.map(lambda p: (f"({p[0][0]} + {p[1][0]})", lambda e: p[0][1](e) + p[1][1](e))),
        pair.map(lambda p: (f"({p[0][0]} - {p[1][0]})", lambda e: p[0][1](e) - p[1][1](e))),
        pair.map(lambda p: (f"({p[0][0]} * {p[1][0]})", lambda e: p[0][1](e) * p[1][1](e))),
        st.tuples(children, st.integers(1, 9)).map(lambda p: (f"floordiv({p[0][0]}, {p[1]})", lambda e: p[0][1](e) // p[1])),
        st.tuples(children, st.integers(1, 9)).map(lambda p: (f"ceildiv({p[0][0]}, {p[1]})", lambda e: -(-p[0][1](e) // p[1]))),
        st.tuples(children, st.integers(1, 9)).map(lambda p: (f"mod({p[0][0]}, {p[1]})", lambda e: p[0][1](e) % p[1])),
        pair.map(lambda p: (f"min({p[0][0]}, {p[1][0]})", lambda e: min(p[0][1](e), p[1][1](e)))),
        pair.map(lambda p: (f"max({p[0][0]}, {p[1][0]})", lambda e: max(p[0][1](e), p[1][1](e)))),
    )


LEAVES = st.one_of(
    st.integers(0, 9).map(lambda n: (str(n), lambda e: n)),
    st.sampled_from(NAMES).map(lambda n: (n, lambda e: e[n])),
)
EXPRESSIONS = st.recursive(LEAVES, _combine, max_leaves=8)


@given(EXPRESSIONS, ENVS)
def test_parsing_and_simplifying_keep_the_value(expression, env):
    text, value = expression
    d = dims.parse(text)
    assert dims.evaluate(d, env) == value(env)
    assert dims.parse(str(d)) is d or dims.parse(str(d)) == d


@given(EXPRESSIONS, EXPRESSIONS, ENVS)
def test_exact_division_inverts_multiplication(x, y, env):
    a, b = dims.parse(x[0]), dims.parse(y[0])
    if b != 0:
        q = dims.exact_div(a * b, b)
        assert q is not None
        assert dims.evaluate(q * b, env) == x[1](env) * y[1](env)


@given(EXPRESSIONS, ENVS)
def test_what_is_proven_nonnegative_is(x, env):
    if dims.is_nonnegative(dims.parse(x[0])):
        assert x[1](env) >= 0


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("s50 + s2", "s2 + s50"),
        ("(a*b*64 + b*c*64)", "64*a*b + 64*b*c"),
        ("floordiv(4*a + b, 4)", "a + floordiv(b, 4)"),
        ("floordiv(64*a*b, 64*b)", "a"),
        ("floordiv(12*a, 8*b)", "floordiv(3*a, 2*b)"),
        ("floordiv(floordiv(a - 1, 2) + 1, 2)", "floordiv(a + 1, 4)"),
        ("min(9223372036854775807, S)", "S"),
        ("max(a + 1, a)", "a + 1"),
        ("mod(8*a + 3, 4)", "3"),
        ("bcast(1, a)", "a"),
        ("bcast(7, a)", "7"),
        ("select(a, a, 1, 2)", "1"),
        ("-a + a", "0"),
    ],
)
def test_normal_form(text, normal):
    assert str(dims.parse(text)) == normal


@pytest.mark.parametrize("text", ["", "a +", "a.b", "f(a)", "a if b else c", "1.5", "floordiv(a, 0)", "'a'", "True", "a**2"])
def test_what_is_no_expression_is_refused(text):
    with pytest.raises(ValueError, match="is not a shape expression"):
        dims.parse(text)


def test_constants_that_do_not_broadcast_are_refused():
    with pytest.raises(ValueError, match="dimensions 3 and 4 do not broadcast"):
        dims.bcast(3, 4)


@pytest.mark.parametrize(("a", "b", "expected"), [(1, 5, 5), (5, 1, 5), (5, 5, 5), (1, 0, 0), (0, 1, 0)])
def test_broadcast_evaluates_as_onnx(a, b, expected):
    assert dims.evaluate(dims.bcast(dims.symbol("a"), dims.symbol("b")), {"a": a, "b": b}) == expected


def test_expressions_are_interned_across_pickling():
    d = dims.parse("a*floordiv(b - 1, 2) + 3")
    assert pickle.loads(pickle.dumps(d)) is d


def test_multiples_and_substitution():
    assert dims.multiple_of(dims.parse("64*a + 32*b")) == 32
    assert dims.substitute(dims.parse("floordiv(a, 4) + b"), {"a": 8}) == dims.parse("b + 2")
    assert dims.row_major(tuple(map(dims.as_dim, ("a", 3, 4)))) == (12, 4, 1)


def test_exporters_names_become_identifiers():
    for name in ("batch-size.1", "0dim", "min", "", "größe"):
        assert dims.symbols(dims.symbol(dims.sanitize(name))) == {dims.sanitize(name)}


def test_numbers_that_may_be_negative() -> None:
    n = dims.signed(dims.symbol("n"))
    assert dims.parse("signed(n)") is n
    assert dims.has_signed(dims.floordiv(n + 3, dims.symbol("m")))
    assert not dims.has_signed(dims.symbol("n"))
    assert dims.symbol_of_signed(n) is dims.symbol("n")
    assert dims.symbol_of_signed(n + 1) is None
    assert not dims.is_nonnegative(n)
    assert dims.maximum(n, 0) is not n
    assert dims.evaluate(dims.maximum(n, 0), {"n": -3}) == 0
    assert dims.substitute(n, {"n": -3}) == -3


def test_names_that_python_keeps() -> None:
    name = dims.sanitize("from")
    assert dims.parse(str(dims.symbol(name) + 1)) is dims.symbol(name) + 1
