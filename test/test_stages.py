"""Models whose sizes depend on what they compute: programs that follow one another, each with the numbers it reads among its
inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_sizes_from_inputs import Case, arrays, check

import ingot
from ingot.errors import EngineError, InputError, ModelError

CASES = {
    "range": Case("""g (float[N, 12] x, int64[N] lengths) => (float[N, A] y, int64[A] r) {
        longest = ReduceMax <keepdims = 0> (lengths)
        zero = Constant <value_int = 0> ()
        one = Constant <value_int = 1> ()
        r = Range(zero, longest, one)
        z = Relu(x)
        axes = Constant <value_ints = [1]> ()
        sums = ReduceSum(z, axes)
        rf = Cast <to = 1> (r)
        y = Mul(sums, rf) }""", [{"N": 2, "lengths": [3, 5]}, {"N": 1, "lengths": [0]}, {"N": 3, "lengths": [7, 7, 1]}]),
    "products_before_and_after": Case("""g (float[N, 8] x, int64[N] keep) => (float[A, 4] y, float[N, 8] h)
        <float[8, 8] w = {1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0,
                          0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 1, 1, 1, 1, 1, 1, 1, 8}> {
        h0 = MatMul(x, w)
        h = Sigmoid(h0)
        count = ReduceSum <keepdims = 1> (keep)
        zero = Constant <value_ints = [0]> ()
        part = Slice(h, zero, count)
        four = Constant <value_ints = [4]> ()
        one = Constant <value_ints = [1]> ()
        cut = Slice(w, zero, four, one)
        y = MatMul(part, cut) }""", [
        {"N": 3, "keep": [1, 0, 1]}, {"N": 3, "keep": [1, 1, 1]}, {"N": 4, "keep": [0, 0, 0, -1]}]),
    "one_read_after_another": Case("""g (float[N] x, int64[2] a) => (float[A, B] y, int64 n, int64 m) {
        first = Constant <value_int = 0> ()
        big = CumSum <exclusive = 1> (a, first)
        n = ReduceMax <keepdims = 0> (big)
        zero = Constant <value_int = 0> ()
        one = Constant <value_int = 1> ()
        rows = Range(zero, n, one)
        twice = Add(rows, rows)
        odd = Add(twice, one)
        m = ReduceMax <keepdims = 0> (odd)
        axes = Constant <value_ints = [0]> ()
        n_1 = Unsqueeze(n, axes)
        m_1 = Unsqueeze(m, axes)
        to = Concat <axis = 0> (n_1, m_1)
        total = ReduceSum <keepdims = 0> (x)
        y = Expand(total, to) }""", [{"N": 2, "a": [3, 9]}, {"N": 5, "a": [1, 1]}]),
    "parts_of_one_tensor": Case("""g (float[N] x, float[M] z) => (float[A] y) {
        k = ArgMax <axis = 0> (z)
        zero = Constant <value_ints = [0]> ()
        front = Exp(x)
        part = Slice(z, zero, k)
        back = Neg(part)
        y = Concat <axis = 0> (front, back, front) }""", [{"N": 3, "M": 9}, {"N": 1, "M": 4}]),
    "control_after_it": Case("""g (float[N, 3] x, bool flip) => (float[A, 3] y, float[3] last) {
        axes = Constant <value_ints = [1]> ()
        scores = ReduceSum <keepdims = 0> (x, axes)
        k = ArgMax <axis = 0> (scores)
        zero = Constant <value_ints = [0]> ()
        one = Constant <value_ints = [1]> ()
        end = Add(k, one)
        part = Slice(x, zero, end)
        y = If (flip) <then_branch = then () => (float[B, 3] a) { a = Neg(part) },
                       else_branch = other () => (float[C, 3] b) { b = Exp(part) }>
        times = Constant <value_int = 3> ()
        yes = Constant <value = bool {1}> ()
        sum = ReduceSum <keepdims = 0> (part, zero)
        last = Loop(times, yes, sum) <body = body (int64 i, bool going, float[3] carried) => (bool goes_on, float[3] next) {
            goes_on = Identity(going)
            next = Add(carried, sum) }> }""", [{"N": 4, "flip": True}, {"N": 2, "flip": False}]),
    "scan_outputs": Case("""g (float[2] x, float[N] z) => (float[2] last, float[A, 2] all) {
        count = ArgMax <axis = 0, keepdims = 0> (z)
        yes = Constant <value = bool {1}> ()
        last, all = Loop(count, yes, x) <body = body (int64 i, bool going, float[2] carried)
            => (bool goes_on, float[2] next, float[2] out) {
                goes_on = Identity(going)
                next = Add(carried, carried)
                out = Neg(carried) }> }""", [{"N": 8}, {"N": 5}, {"N": 1}]),
    "an_input_gives_a_size_too": Case("""g (float[N, M] x, int64[1] rows) => (float[A, B] y) {
        rows_1 = Identity(rows)
        flat = Constant <value_ints = [-1]> ()
        zero = Constant <value_ints = [0]> ()
        line = Reshape(x, flat)
        k = ArgMax <axis = 0> (line)
        m = Constant <value_ints = [4]> ()
        k_4 = Mod(k, m)
        one = Constant <value_ints = [1]> ()
        columns = Add(k_4, one)
        to = Concat <axis = 0> (rows_1, columns)
        least = ReduceMin <keepdims = 0> (x)
        half = Exp(least)
        y = Expand(half, to) }""", [{"N": 2, "M": 3, "rows": [3]}, {"N": 4, "M": 4, "rows": [1]}]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_every_stage_in_its_turn(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    path = tmp_path / "model.ingot"
    ingot.compile(case.model()).save(path)
    engine = ingot.Engine.load(path)
    assert engine.header.stages > 1
    session = ingot.Session(engine, "cpu")
    check(engine, session, case)
    assert session.stats()["runs"] == len(case.feeds)
    assert [o.name for o in session.get_outputs()] == [o.name for o in case.model().graph.output]
    session.close()


def test_outputs_are_chosen_and_launches_measured() -> None:
    made = CASES["range"].model()
    session = ingot.Session(ingot.compile(made), "cpu")
    feeds = arrays(made, {"N": 2, "lengths": [3, 5]})
    (r,) = session.run(["r"], feeds)
    np.testing.assert_array_equal(r, range(5))
    assert {"longest"} < {row["node"] for row in session.profile(feeds, repeats=1)}


def test_outputs_are_written_where_the_caller_has_room() -> None:
    """By whichever stage computes them; a call that turns out to need another shape says so."""
    made = CASES["products_before_and_after"].model()
    session = ingot.Session(ingot.compile(made), "cpu")
    feeds = arrays(made, {"N": 3, "keep": [1, 0, 1]})
    y, h = np.zeros((2, 4), np.float32), np.zeros((3, 8), np.float32)
    bound = session.bind({"x": feeds["x"]}, {"y": y, "h": h})
    results = bound.run(None, {"keep": feeds["keep"]})
    assert results[0] is y
    assert results[1] is h
    for found, expected in zip((y, h), session.run(None, feeds), strict=True):
        np.testing.assert_array_equal(found, expected)
    with pytest.raises(InputError, match=r"y: the bound array is \[2, 4\], the output \[3, 4\] \(bind an array"):
        bound.run(None, {"keep": np.array([1, 1, 1])})
    with pytest.raises(InputError, match=r"x: this input cannot be donated.*donatable are: none"):
        session.bind(donate=["x"])


def test_what_is_computed_may_be_impossible() -> None:
    made = Case("""g (float[1] x, int64[N] a) => (float[A] y) {
        k = ReduceMin(a)
        y = Expand(x, k) }""", []).model()  # fmt: skip
    session = ingot.Session(ingot.compile(made), "cpu")
    x = np.ones(1, np.float32)
    assert session.run(None, {"x": x, "a": np.array([4, 2])})[0].shape == (2,)
    with pytest.raises(InputError, match="y: y: element 0 of input 1 is negative"):
        session.run(None, {"x": x, "a": np.array([4, -2])})


def test_a_branch_cannot_decide_a_size() -> None:
    made = Case("""g (float[N] x, bool c) => (float[A] y) {
        y = If (c) <then_branch = then () => (float[B] a) {
            k = ArgMax <axis = 0> (x)
            zero = Constant <value_ints = [0]> ()
            a = Slice(x, zero, k) }, else_branch = other () => (float[C] b) { b = Neg(x) }> }""", []).model()  # fmt: skip
    with pytest.raises(ModelError, match=r"Slice: input 2 is computed from data"):
        ingot.compile(made)


def test_an_older_runtime_refuses_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "model.ingot"
    ingot.compile(CASES["range"].model()).save(path)
    monkeypatch.setattr("ingot.engine.NEEDS", frozenset())
    with pytest.raises(EngineError, match="needs stages"):
        ingot.Engine.load(path)
