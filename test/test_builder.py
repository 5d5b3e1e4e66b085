"""`ingot.Builder` against numpy, through engines that run on the CPU."""

from __future__ import annotations

import math

import numpy as np
import pytest

import ingot
from ingot.compiler.builder import Builder, Tensor
from ingot.errors import InputError, ModelError

RNG = np.random.default_rng(7)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, dtype=np.float32)


def run(builder: Builder, **feeds: np.ndarray) -> list[np.ndarray]:
    return ingot.Session(builder.compile(), device="cpu").run(None, feeds)


def check(graph, reference, *arrays: np.ndarray, rtol: float = 2e-5, atol: float = 1e-6) -> None:
    """Compare a function of tensors with one of arrays; the tensors' first axis is a named dimension."""
    b = Builder()
    names = [f"x{i}" for i in range(len(arrays))]
    shapes = [(f"N{len(a)}", *a.shape[1:]) for a in arrays]
    inputs = [b.input(n, s, a.dtype) for n, s, a in zip(names, shapes, arrays, strict=True)]
    b.output("y", graph(*inputs))
    (y,) = run(b, **dict(zip(names, arrays, strict=True)))
    expected = reference(*arrays)
    assert y.dtype == expected.dtype
    assert y.shape == expected.shape
    np.testing.assert_allclose(y, expected, rtol=rtol, atol=atol)


def softmax(x: np.ndarray, axis: int = -1) -> np.ndarray:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def test_perceptron_with_a_named_batch():
    w1, b1, w2 = normal(20, 33), normal(33), normal(33, 5)
    b = ingot.Builder()
    x = b.input("x", ("N", 20))
    h = (x @ b.weight("w1", w1) + b.weight("b1", b1)).relu()
    y = (h @ b.weight("w2", w2)).softmax()
    assert [str(d) for d in y.shape] == ["N", "5"]
    assert y.dtype == np.float32
    b.output("y", y)
    session = ingot.Session(b.compile(), device="cpu")
    assert session.get_inputs()[0].shape == ["N", 20]
    for n in (1, 2, 17):
        data = normal(n, 20)
        (found,) = session.run(None, {"x": data})
        np.testing.assert_allclose(found, softmax(np.maximum(data @ w1 + b1, 0) @ w2), rtol=1e-4, atol=1e-6)


def test_saved_engines_run(tmp_path):
    b = Builder()
    x = b.input("x", (3,))
    b.output("y", x * b.weight("w", np.array([1, 2, 3], np.float32)))
    b.compile().save(tmp_path / "m.ingot")
    engine = ingot.Engine.load(tmp_path / "m.ingot")
    assert list(engine.weights) == ["w"]
    (y,) = ingot.Session(engine, device="cpu").run(None, {"x": np.full(3, 2, np.float32)})
    assert y.tolist() == [2, 4, 6]


ARITHMETIC = {
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: x - y,
    "multiply": lambda x, y: x * y,
    "divide": lambda x, y: x / y,
    "numbers": lambda x, y: 2 * x + 1 - y / 4,
    "reversed": lambda x, y: (1 - x) * (2 / (y * y + 1)),
    "negate": lambda x, y: -x + y,
    "power": lambda x, y: x**2 + (y * y) ** 0.5,
}


@pytest.mark.parametrize("name", ARITHMETIC)
def test_arithmetic(name):
    f = ARITHMETIC[name]
    check(f, f, normal(4, 5), normal(4, 5))


def test_broadcasting_of_arrays_and_tensors():
    row = normal(5)
    check(lambda x, y: x + y * row, lambda x, y: x + y * row, normal(4, 5), normal(4, 1))
    check(lambda x, y: row - x + (row < y).cast("float32"), lambda x, y: row - x + (row < y), normal(4, 5), normal(4, 1))


COMPARISONS = {
    "less": lambda x, y: x < y,
    "at most": lambda x, y: x <= y,
    "greater": lambda x, y: x > y,
    "at least": lambda x, y: x >= y,
    "equal": lambda x, y: x == y,
    "not equal": lambda x, y: x != y,
    "logic": lambda x, y: ((x < y) & (x > 1)) | ~(y == 2) ^ (x == 3),
}


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons(name):
    f = COMPARISONS[name]
    check(f, f, RNG.integers(0, 5, (6, 7)).astype(np.int32), RNG.integers(0, 5, (6, 7)).astype(np.int32))


def test_integers():
    f = lambda x, y: ((x + 3) * y - 7) & 255 | (x ^ y)  # noqa: E731
    check(f, f, RNG.integers(-99, 99, (3, 4)), RNG.integers(-99, 99, (3, 4)))
    check(lambda x: x % 5, lambda x: x % 5, RNG.integers(-9, 9, (4, 4)))
    check(lambda x: x / 4, lambda x: np.trunc(x / 4).astype(np.int32), RNG.integers(-9, 9, (4, 4)).astype(np.int32))


erf = np.vectorize(math.erf, otypes=[np.float32])
FUNCTIONS = {
    "abs": np.abs,
    "ceil": np.ceil,
    "cos": np.cos,
    "erf": erf,
    "exp": np.exp,
    "floor": np.floor,
    "gelu": lambda x: x / 2 * (1 + erf(x / np.float32(2**0.5))),
    "relu": lambda x: np.maximum(x, 0),
    "round": np.rint,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "sin": np.sin,
    "tanh": np.tanh,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_elements(name):
    check(lambda x: getattr(x, name)(), FUNCTIONS[name], normal(5, 33) * 2)


def test_functions_of_positive_elements():
    check(lambda x: x.log() + x.sqrt(), lambda x: np.log(x) + np.sqrt(x), np.abs(normal(5, 33)) + 0.1)


def test_clip_where_and_extrema():
    check(lambda x: x.clip(-0.5, 0.5), lambda x: np.clip(x, -0.5, 0.5), normal(4, 9))
    check(lambda x: x.clip(high=0), lambda x: np.minimum(x, 0), normal(4, 9))
    check(lambda x, y: x.builder.where(x > y, x, 0), lambda x, y: np.where(x > y, x, np.float32(0)), normal(4, 9), normal(4, 9))
    check(lambda x, y: x.builder.maximum(x, y), np.maximum, normal(4, 9), normal(4, 9))
    check(lambda x: x.builder.minimum(x, 0), lambda x: np.minimum(x, 0), normal(4, 9))


def test_casts():
    check(lambda x: x.cast(np.int32), lambda x: x.astype(np.int32), normal(4, 9) * 10)
    check(lambda x: x.cast("float16"), lambda x: x.astype(np.float16), normal(4, 9))
    check(lambda x: (x.cast("bfloat16") * 1).cast("float32"), lambda x: x, np.float32([[0.5, 2.0]]))


@pytest.mark.parametrize("axes", [None, 0, 1, -1, (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "prod"])
def test_reductions(name, axes, keepdims):
    check(
        lambda x: getattr(x, name)(axes, keepdims),
        lambda x: np.asarray(getattr(np, name)(x, axes, keepdims=keepdims), np.float32),
        normal(3, 4, 5),
        rtol=1e-4,
    )


def test_normalizations():
    scale, bias = normal(33), normal(33)

    def layer(x):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * scale + bias

    def rms(x):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(1e-5)) * scale

    weights = lambda x: (x.builder.weight("s", scale), x.builder.weight("b", bias))  # noqa: E731
    check(lambda x: x.layer_norm(*weights(x)), layer, normal(4, 33), rtol=1e-4, atol=1e-5)
    check(lambda x: x.rms_norm(weights(x)[0]), rms, normal(4, 33), rtol=1e-4, atol=1e-5)
    check(lambda x: x.softmax(1), lambda x: softmax(x, 1), normal(4, 9, 5))
    check(lambda x: x.log_softmax(), lambda x: np.log(softmax(x)), normal(4, 9), atol=1e-5)


def test_shapes():
    check(lambda x: x.reshape(-1, 2, 3), lambda x: x.reshape(-1, 2, 3), normal(4, 6))
    check(lambda x: x.reshape("N4*6"), lambda x: x.reshape(-1), normal(4, 6))
    check(lambda x: x.transpose(), lambda x: x.T, normal(4, 6))
    check(lambda x: x.transpose(1, -1, 0), lambda x: x.transpose(1, 2, 0), normal(4, 6, 2))
    check(lambda x: x.unsqueeze(1).expand("N4", 3, 6), lambda x: np.repeat(x[:, None], 3, 1), normal(4, 6))
    check(lambda x: x.unsqueeze(0, 3).squeeze(0), lambda x: x[..., None], normal(4, 6))


INDICES = {
    "slice": lambda x: x[1:3],
    "step": lambda x: x[::2, 1:-1:3],
    "from the end": lambda x: x[-2:, :-1],
    "backwards": lambda x: x[:, ::-1],
    "integer": lambda x: x[1],
    "last": lambda x: x[:, -1],
    "ellipsis": lambda x: x[..., 2],
    "new axes": lambda x: x[None, 1:, None, 3],
}


@pytest.mark.parametrize("name", INDICES)
def test_indexing(name):
    check(lambda x: INDICES[name](x) * 1, INDICES[name], normal(4, 6, 5))


def test_concat_and_gather():
    check(lambda x, y: x.builder.concat([x, y, x], 0), lambda x, y: np.concatenate([x, y, x]), normal(4, 6), normal(2, 6))
    check(lambda x, y: x.builder.concat([x, y], 1), lambda x, y: np.concatenate([x, y], 1), normal(4, 6), normal(4, 3))
    table, ids = normal(10, 6), RNG.integers(0, 10, (3, 4))
    check(lambda i: i.builder.gather(i.builder.weight("t", table), i), lambda i: table[i], ids)


def test_matmul_of_batches():
    check(lambda x, y: x @ y, np.matmul, normal(3, 4, 5), normal(3, 5, 6), rtol=1e-4, atol=1e-5)
    check(lambda x, y: x @ y.transpose(0, 2, 1), lambda x, y: x @ y.swapaxes(1, 2), normal(3, 4, 5), normal(3, 6, 5), rtol=1e-4,
          atol=1e-5)  # fmt: skip
    vector = normal(5)
    check(lambda x: x @ vector, lambda x: x @ vector, normal(4, 5), rtol=1e-4, atol=1e-5)


def convolution(x: np.ndarray, w: np.ndarray, stride: int, pad: int) -> np.ndarray:
    """A convolution of [N, C, H, W] by its definition."""
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], (2, 3))[:, :, ::stride, ::stride]
    return np.einsum("nchwij,mcij->nmhw", windows, w).astype(np.float32)


@pytest.mark.parametrize("channels_last", [False, True])
def test_convolution_and_pools(channels_last):
    x, w, bias = normal(2, 3, 9, 8), normal(4, 3, 3, 3), normal(4)
    expected = convolution(x, w, 2, 1) + bias[:, None, None]
    pooled = np.lib.stride_tricks.sliding_window_view(expected, (2, 2), (2, 3))[:, :, ::2, ::2]
    results = [expected, pooled.max((-1, -2)), pooled.mean((-1, -2))]
    if channels_last:
        x, w = x.transpose(0, 2, 3, 1), w.transpose(0, 2, 3, 1)
        results = [r.transpose(0, 2, 3, 1) for r in results]
    b = Builder()
    tensor = b.input("x", ("N", *x.shape[1:]))
    y = b.conv(tensor, b.weight("w", w), b.weight("b", bias), strides=2, pads=1, channels_last=channels_last)
    b.output("y", y)
    b.output("max", b.max_pool(y, 2, channels_last=channels_last))
    b.output("mean", b.average_pool(y, 2, channels_last=channels_last))
    for found, wanted in zip(run(b, x=x), results, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_attention_written_out():
    q, k, v = normal(2, 4, 6, 8), normal(2, 4, 6, 8), normal(2, 4, 6, 8)

    def attention(q, k, v, transposed, soft):
        return soft(q @ transposed(k) / 8**0.5) @ v

    check(
        lambda q, k, v: attention(q, k, v, lambda t: t.transpose(0, 1, 3, 2), lambda s: s.softmax()),
        lambda q, k, v: attention(q, k, v, lambda t: t.swapaxes(2, 3), softmax).astype(np.float32),
        q, k, v, rtol=1e-4, atol=1e-5,
    )  # fmt: skip


def test_any_operator_by_its_name():
    check(lambda x: x.builder.apply("HardSwish", x), lambda x: x * np.clip(x / 6 + 0.5, 0, 1), normal(4, 9))
    check(lambda x: x.builder.apply("Elu", x, alpha=2.0), lambda x: np.where(x > 0, x, 2 * (np.exp(x) - 1)), normal(4, 9))


def test_building_goes_on_after_compiling():
    b = Builder()
    x = b.input("x", ("N",))
    b.output("y", x + 1)
    assert len(b.compile().outputs) == 1
    b.output("z", x * 2)
    y, z = run(b, x=np.float32([1, 2]))
    assert y.tolist() == [2, 3]
    assert z.tolist() == [2, 4]


def test_ir_text_is_read_by_the_tools():
    from ingot.dialects.mlir import context, ir

    b = Builder()
    with b.scope("head"):
        b.output("y", b.input("x", ("N", 3)).exp())
    text = b.ir_text()
    assert '"ingot.pointwise"' in text
    with context():
        assert str(ir.Module.parse(text)) == text


def test_named_nodes_reach_profiles():
    b = Builder()
    with b.scope("head"):
        b.output("y", b.input("x", ("N", 3)).exp())
    rows = ingot.Session(b.compile(), device="cpu").profile({"x": normal(2, 3)})
    assert [r["node"] for r in rows] == ["head/Exp_1"]


# What goes wrong ----------------------------------------------------------------------------------------------------------


def test_sizes_that_are_not_proven_equal_are_guarded():
    b = Builder()
    x, y = b.input("x", ("N", 3)), b.input("y", ("M", 3))
    b.output("z", x @ y.transpose())
    b.output("s", x.reshape("N*3") @ y.reshape("M*3"))
    session = ingot.Session(b.compile(), device="cpu")
    z, s = session.run(None, {"x": np.ones((2, 3), np.float32), "y": np.ones((2, 3), np.float32)})
    assert s == 6
    assert (z == 3).all()
    with pytest.raises(InputError, match="MatMul_2"):
        session.run(None, {"x": np.ones((2, 3), np.float32), "y": np.ones((4, 3), np.float32)})


def _two() -> tuple[Builder, Tensor]:
    b = Builder()
    return b, b.input("x", ("N", 3))


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda b, x: x + np.zeros((2, 4), np.float32), "Add_1: .*do not broadcast"),
        (lambda b, x: x @ np.zeros((4, 2), np.float32), "MatMul_1: .*inner sizes 3 and 4"),
        (lambda b, x: x + np.zeros(3), "Add_1"),
        (lambda b, x: x.softmax(2), "axis 2"),
        (lambda b, x: x.squeeze(1), "Squeeze_1"),
        (lambda b, x: b.apply("None", x), "operator None is not supported"),
        (lambda b, x: b.apply("Elu", x, beta=1.0), "unrecognized attribute: beta"),
        (lambda b, x: b.apply("Elu"), "has 0 inputs"),
        (lambda b, x: b.input("x", (1,)), "x: an input has this name"),
        (lambda b, x: b.input("z", (-1,)), "negative"),
        (lambda b, x: b.input("z", ("N N",)), "not a shape expression"),
        (lambda b, x: b.input("z", (1,), "string"), "element type 'string' is not supported"),
        (lambda b, x: x + _two()[1], "belongs to another builder"),
        (lambda b, x: b.compile(), "no output"),
    ],
)
def test_mistakes_name_the_operator(mistake, message):
    with pytest.raises(ModelError, match=message):
        mistake(*_two())


def test_tensors_have_no_truth_value():
    _, x = _two()
    with pytest.raises(TypeError, match=r"use Builder\.where"):
        bool(x > 0)
    with pytest.raises(IndexError, match="3 indices for a tensor of rank 2"):
        x[1, 2, 3]
