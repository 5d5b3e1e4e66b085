"""Operators whose results have sizes that depend on data: on the CPU, at several inputs, against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest

import ingot
from ingot.compiler.interpreter import interpret
from ingot.dialects.mlir import ir, new_context

ort = pytest.importorskip("onnxruntime")


def check(graph: str, feeds: Sequence[dict[str, np.ndarray]]) -> None:
    """Run a graph in ONNX's textual syntax on the CPU; one engine serves all feeds."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]> {graph}')
    reference = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    session = ingot.Session(ingot.compile(model), device="cpu")
    for feed in feeds:
        for got, want in zip(session.run(None, feed), reference.run(None, feed), strict=True):
            assert got.dtype == want.dtype
            assert np.array_equal(got, want), (got, want)


def sparse(*shape: int, share: float = 0.5, dtype: str = "float32") -> np.ndarray:
    """A random tensor of which a share is not zero."""
    rng = np.random.default_rng(sum(shape))
    return np.where(rng.random(shape) < share, rng.integers(1, 100, shape), 0).astype(dtype)


def test_non_zero() -> None:
    check("g (float[N, M, 3] x) => (int64[3, K] y) { y = NonZero (x) }", [
        {"x": sparse(2, 5, 3)}, {"x": sparse(1, 1, 3, share=0)}, {"x": sparse(4, 2, 3, share=1)}, {"x": sparse(0, 2, 3)},
        {"x": sparse(3, 1000, 3)},
    ])  # fmt: skip


def test_non_zero_of_a_mask_that_is_computed() -> None:
    check("""g (float[N] x, float least) => (float[K] y) {
        mask = Greater (x, least)
        places = NonZero (mask)
        rows = Transpose (places)
        y = GatherND (x, rows) }""", [
        {"x": np.arange(9, dtype=np.float32), "least": np.array(4.5, np.float32)},
        {"x": -np.arange(70, dtype=np.float32), "least": np.array(-3, np.float32)},
        {"x": np.arange(3, dtype=np.float32), "least": np.array(7, np.float32)},
    ])  # fmt: skip


def test_compress() -> None:
    feeds = [{"x": sparse(4, 6), "c": sparse(5, dtype="bool")}, {"x": sparse(2, 6), "c": sparse(6, share=0, dtype="bool")}]
    check("g (float[N, 6] x, bool[C] c) => (float[N, K] y) { y = Compress <axis = 1> (x, c) }", feeds)
    check("g (float[N, 6] x, bool[C] c) => (float[K] y) { y = Compress (x, c) }", feeds)


UNIQUE = "(float[N] x) => (float[A] y, int64[A] i, int64[N] j, int64[A] c)"


@pytest.mark.parametrize("is_sorted", [0, 1], ids=["unsorted", "sorted"])
def test_unique(is_sorted: int) -> None:
    check(f"g {UNIQUE} {{ y, i, j, c = Unique <sorted = {is_sorted}> (x) }}", [
        {"x": np.float32([2, 1, 1, 3, 4, 3])}, {"x": np.float32([7])}, {"x": sparse(300, share=0.3)},
        {"x": np.zeros(5, np.float32)}, {"x": np.arange(9, 0, -1).astype(np.float32)},
    ])  # fmt: skip


def test_unique_of_several_axes_and_integers() -> None:
    check("g (int64[N, 3] x) => (int64[A] y, int64[B] j) { y, z, j = Unique (x) }", [
        {"x": sparse(4, 3, dtype="int64") - 50}, {"x": sparse(1, 3, dtype="int64")},
    ])  # fmt: skip


@pytest.mark.parametrize("axis", [0, 1, -1, -2])
@pytest.mark.parametrize("is_sorted", [0, 1], ids=["unsorted", "sorted"])
def test_unique_along_an_axis(axis: int, is_sorted: int) -> None:
    feeds = [{"x": np.sign(sparse(n, m, 2, share=0.3))} for n, m in ((5, 7), (3, 1), (1, 6))]
    check(f"""g (float[N, M, 2] x) => (float[A, B, C] y, int64[U] i, int64[V] j, int64[U] c) {{
        y, i, j, c = Unique <axis = {axis}, sorted = {is_sorted}> (x) }}""", feeds)  # fmt: skip


def boxes(batch: int, count: int, classes: int, *, centers: bool) -> dict[str, np.ndarray]:
    """Random boxes, as opposite corners in any order or as centers and sizes, and their scores."""
    rng = np.random.default_rng(count)
    b = rng.uniform(0, 4, (batch, count, 4)).astype(np.float32)
    if centers:
        b[..., 2:] = rng.uniform(0.1, 3, (batch, count, 2))
    return {"b": b, "s": rng.permutation(batch * count * classes).reshape(batch, classes, count).astype(np.float32)}


@pytest.mark.parametrize("centers", [False, True], ids=["corners", "centers"])
def test_non_max_suppression(centers: bool) -> None:
    graph = f"""g (float[B, N, 4] b, float[B, C, N] s, int64[1] most, float[1] overlap, float[1] least) => (int64[K, 3] y) {{
        y = NonMaxSuppression <center_point_box = {int(centers)}> (b, s, most, overlap, least) }}"""
    feeds = []
    for shape, most, overlap, least in (((1, 40, 1), 10, 0.3, 5), ((2, 9, 3), 100, 0.5, 20), ((1, 5, 2), 3, 0.1, 1000)):
        limits = {"most": np.array([most]), "overlap": np.float32([overlap]), "least": np.float32([least])}
        feeds.append(boxes(*shape, centers=centers) | limits)
    check(graph, feeds)


def test_non_max_suppression_without_limits() -> None:
    check("g (float[1, N, 4] b, float[1, 1, N] s, int64[1] m) => (int64[K, 3] y) { y = NonMaxSuppression (b, s, m) }", [
        boxes(1, 12, 1, centers=False) | {"m": np.array([4])},
    ])  # fmt: skip


def test_the_interpreter_runs_them_too() -> None:
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 20]>
        g (float[N, 4] x) => (int64[2, K] y) { y = NonZero (x) }""")
    engine = ingot.compile(model)
    x = sparse(3, 4)
    with new_context() as context, ir.Location.unknown(context):
        outputs = interpret(ir.Module.parse(engine.ir), {"x": x}, {n: w.array() for n, w in engine.weights.items()})
    assert np.array_equal(outputs["y"], np.stack(np.nonzero(x)))
