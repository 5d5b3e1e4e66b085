"""Passes keep what a module computes: the IR of each pass's lit test gives the same results before and after, on numpy."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from ingot import dims
from ingot.compiler.aot_pipeline import OPTIMIZE, PLAN
from ingot.compiler.interpreter import evaluate_weights, interpret
from ingot.dialects import ingot as dialect
from ingot.dialects.mlir import context, ir
from ingot.dialects.plain import attribute
from ingot.dtypes import DTYPES, ONNX_TYPE_BY_NAME, onnx_numpy
from ingot.passes import Pipeline

LIT = Path(__file__).parent / "lit" / "passes"
PASSES = ("canonicalize", "fold_affine", "fold_batch_norm", "fold_constants", "fuse", "layout", "materialize_views",
          "merge_products", "order_results", "plan_buffers", "quantize_products", "recognize_attention", "recognize_norms",
          "sink_repeats", "split_stages")  # fmt: skip
_INTEGERS = {"int8": (-128, 127), "uint8": (0, 255), "int4": (-8, 7), "uint4": (0, 15)}  # what quantized tensors hold
SIZES = {"N": 6, "M": 1, "K": 5, "P": 4, "S": 4, "T": 7, "B": 2, "H": 5, "C": 9}


P_SCALE = "0.002232143"  # of probabilities, where a pass leaves out that they are rounded


def sections(stem: str) -> list[str]:
    """The modules of a lit test; those that are refused, or read far outside of a tensor on purpose, are left out."""
    texts = re.split(r"^// -----$", (LIT / f"{stem}.mlir").read_text(), flags=re.MULTILINE)
    texts = [t for t in texts if "expected-error" not in t and P_SCALE not in t]
    return [t for t in texts if "load_at" not in t or stem == "sink_repeats"]


CASES = [pytest.param(stem, text, id=f"{stem}-{i}") for stem in PASSES for i, text in enumerate(sections(stem))]


def random(shape: tuple[int, ...], onnx_type: str, rng: np.random.Generator) -> np.ndarray:
    return random_array(shape, onnx_numpy(ONNX_TYPE_BY_NAME[onnx_type]), rng)


def random_array(shape: tuple[int, ...], dtype: np.dtype, rng: np.random.Generator) -> np.ndarray:
    if dtype.name in _INTEGERS:
        return rng.integers(*_INTEGERS[dtype.name], shape, endpoint=True).astype(dtype)
    if dtype.name == "float8_e8m0fnu":
        return (2.0 ** rng.integers(-2, 3, shape)).astype(dtype)
    if dtype.itemsize == 1 and dtype.kind in "fV":
        return rng.uniform(-4, 4, shape).astype(dtype)
    return rng.uniform(0.1, 2.0, shape).astype(dtype) if dtype.kind in "fV" else rng.integers(0, 2, shape).astype(dtype)


def inputs_and_weights(module: ir.Module) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    func = dialect.main_func(module)
    block = func.regions[0].blocks[0]
    names, types = (attribute(func.attributes[a]) for a in ("inputs", "input_types"))
    inputs = {}
    for name, type_, argument in zip(names, types, block.arguments, strict=True):
        shape = tuple(dims.evaluate(d, SIZES) for d in dialect.shape_of(argument))
        inputs[name] = random(shape, type_, rng)
    weights = {}
    for op in [op for inner in dialect.blocks(func) for op in inner.operations]:
        if op.operation.name == "ingot.weight":
            shape = tuple(int(d) for d in dialect.shape_of(op.operation.results[0]))
            dtype = DTYPES[dialect.dtype_of(op.operation.results[0])].np
            weights[op.operation.attributes["name"].value] = random_array(shape, dtype, rng)
    return inputs, weights


@pytest.mark.parametrize(("stem", "text"), CASES)
def test_pass_keeps_results(stem: str, text: str) -> None:
    own = f"ingot-{stem.replace('_', '-')}"
    for pipeline in (own, ",".join(OPTIMIZE + PLAN)):
        with context():
            module = ir.Module.parse(text)
            inputs, weights = inputs_and_weights(module)
            before = interpret(module, inputs, weights)
            Pipeline.parse(pipeline).run(module)
            after = interpret(module, inputs, weights | dict(evaluate_weights(module, weights)))
        assert list(after) == list(before)
        for name, expected in before.items():
            assert after[name].dtype == expected.dtype
            rtol, atol = 1e-5, 1e-6
            if stem == "quantize_products":
                # Sums in another order, next to 0 too; and dequantized tensors of f16 are rounded no more.
                rtol = 1e-5 if expected.dtype == np.float32 else 2e-3
                atol = rtol * float(np.abs(expected.astype(np.float64)).max())
            np.testing.assert_allclose(after[name], expected, rtol=rtol, atol=atol, err_msg=f"{name} after {pipeline}")


@pytest.mark.parametrize("stem", ["recognize_attention", "quantize_products"])
def test_probabilities_of_an_attention_are_not_rounded(stem: str) -> None:
    """The one thing that passes do not keep: an attention gives what its model's rounded probabilities approximate."""
    (text,) = [t for t in re.split(r"^// -----$", (LIT / f"{stem}.mlir").read_text(), flags=re.MULTILINE) if P_SCALE in t]
    with context():
        module = ir.Module.parse(text)
        inputs, weights = inputs_and_weights(module)
        rounded = interpret(module, inputs, weights)["y"]
        Pipeline.parse(",".join(OPTIMIZE + PLAN)).run(module)
        assert "ingot.attention" in str(module)
        found = interpret(module, inputs, weights | dict(evaluate_weights(module, weights)))["y"]
    scale = float(weights["c"]) if weights else 1.0
    q, k, v = (inputs[n].astype(np.float64) * scale for n in "qkv")
    p = np.exp(q @ k - np.max(q @ k, axis=-1, keepdims=True))
    factor = scale / float(P_SCALE) if weights else 1.0
    exact = p / p.sum(-1, keepdims=True) @ v * factor
    size = np.abs(exact).max()
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-5 * size)
    assert 1e-4 < np.abs(rounded - exact).max() / size < 0.1


@pytest.mark.parametrize("seed", range(8))
def test_chains_of_views(seed: int) -> None:
    """Random chains of reshapes and transposes read the same elements in their canonical form, which is no longer."""
    rng = np.random.default_rng(seed)
    factors = [2, 2, 2, 3, 5]

    def shape() -> list[int]:
        sizes = [1] * rng.integers(1, 6)
        for f in factors:
            sizes[rng.integers(len(sizes))] *= f
        return sizes

    def type_(sizes: list[int]) -> str:
        return f"tensor<{'x'.join(map(str, sizes))}xf32>"

    with context():
        for _ in range(20):
            first = current = shape()
            value, lines = "%x", []
            for i in range(rng.integers(1, 7)):
                if rng.random() < 0.5:
                    new, op, attrs = shape(), "reshape", ""
                else:
                    perm = rng.permutation(len(current)).tolist()
                    new, op, attrs = [current[p] for p in perm], "transpose", f" {{perm = array<i64: {str(perm)[1:-1]}>}}"
                lines.append(f'%v{i} = "ingot.{op}"({value}){attrs} : ({type_(current)}) -> {type_(new)}')
                value, current = f"%v{i}", new
            output = f'"ingot.output"({value}) {{name = "y", type = "float"}} : ({type_(current)}) -> ()'
            body = "\n".join([f"^bb0(%x: {type_(first)}):", *lines, output, '"ingot.return"() : () -> ()'])
            module = ir.Module.parse(
                f'"ingot.func"() ({{\n{body}\n}}) {{sym_name = "main", inputs = ["x"], input_types = ["float"]}} : () -> ()'
            )
            x = np.arange(120, dtype=np.float32).reshape(first)
            expected = interpret(module, {"x": x})["y"]
            Pipeline.parse("ingot-canonicalize").run(module)
            np.testing.assert_array_equal(interpret(module, {"x": x})["y"], expected)
            text = str(module)
            assert text.count("ingot.reshape") + text.count("ingot.transpose") <= len(lines)
