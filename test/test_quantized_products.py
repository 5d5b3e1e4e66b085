"""Quantized products from graph to kernel: which forms real models take, and what CUDA kernels of each form compute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zoo
from cuda_emulation import check
from test_cuda_kernels_quantized import positive_scales
from test_pass_numerics import SIZES, sections

from ingot import dims
from ingot.compiler.aot_pipeline import FROM_ONNX, OPTIMIZE, PLAN
from ingot.compiler.dispatch_builder import BuiltDispatch, PlaceResolver, build_dispatch
from ingot.compiler.importer import import_model
from ingot.compiler.interpreter import interpret
from ingot.compiler.weights import WeightStore
from ingot.dialects import ingot as dialect
from ingot.dialects.mlir import context, ir, new_context
from ingot.dtypes import DTYPES
from ingot.passes import Pipeline
from ingot.passes.convert_onnx_to_ingot import is_lowered
from ingot.passes.pass_base import PassContext

NAME = "ingot-quantize-products"
PRODUCTS = ("ingot.matmul", "ingot.scaled_matmul", "ingot.conv")
FORMS = sections("quantize_products")


def products_of(module: ir.Module) -> list[ir.Operation]:
    found = []
    for block in dialect.blocks(dialect.main_func(module)):
        found += [op.operation for op in block.operations if op.operation.name in PRODUCTS]
    return found


def dispatches_of(text: str) -> list[BuiltDispatch]:
    """The products of a module, as the whole pipeline leaves them."""
    with context():
        module = ir.Module.parse(text)
        Pipeline.parse(",".join(OPTIMIZE + PLAN)).run(module)
        places = PlaceResolver()
        return [build_dispatch(op, places) for op in products_of(module)]


@pytest.mark.parametrize("target", ["sm_75", "sm_80", "sm_89", "sm_90a", "sm_120a"])
@pytest.mark.parametrize("number", range(len(FORMS)))
def test_cuda_kernels_of_every_form(number: int, target: str) -> None:
    built = dispatches_of(FORMS[number])
    assert built
    for b in built:
        sizes = {name: dims.evaluate(d, SIZES) for name, d in zip(b.dispatch.symbols, b.sizes, strict=True)}
        check(b.dispatch, target, sizes=sizes, prepare=positive_scales(b.dispatch))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet50.mo_int8", {"integers": 29}),
        ("resnet50.ort_static_qdq", {"integers": 29}),
        ("resnet50.mo_fp8", {"8-bit floats": 22}),
        ("bert.mt_int8_smoothquant", {"integers": 19}),
        ("bert.mt_int4_awq", {"weights": 18}),
        ("vit.mo_fp8", {"8-bit floats": 19}),  # and six that are attentions' own by then
        ("llama.mo_int4_awq_clip", {"weights": 22}),
        ("llama.ort_nbits4", {"weights": 22}),
        ("vit.mt_nvfp4", {"scaled": 19}),
        ("vit.mt_mxfp8", {"scaled": 19}),
    ],
)
def test_products_of_real_models(name: str, expected: dict[str, int], tmp_path: Path) -> None:
    """Every product that a tool quantized becomes one of quantized operands."""
    folder = zoo.fill(name, tmp_path, with_reference=False)
    own = new_context(onnx=True)
    with own:
        model = import_model(folder / "model.onnx", context=own, decompose=lambda op_type: not is_lowered(op_type))
        ctx = PassContext(weights=model.weights)
        steps = FROM_ONNX + OPTIMIZE[: OPTIMIZE.index(NAME) + 1]
        Pipeline.parse(",".join(steps)).run(model.module, ctx)
    assert {kind: count for (pass_name, kind), count in ctx.changes.items() if pass_name == NAME} == expected


@pytest.mark.parametrize(("byte", "is_none"), [(0x22, False), (0x88, True), (0x12, False)])
def test_zero_points_in_packed_bytes(byte: int, is_none: bool) -> None:
    """Bytes of 0x22 are zero points of 2, not of 34; those of 0x88, half the range, are none of signed elements."""
    text = next(t for t in FORMS if "b_zero" in t)
    rng = np.random.default_rng(0)
    store = WeightStore()
    store.add_array("w", rng.integers(-8, 8, (6, 32)).astype(DTYPES["i4"].np))
    store.add_array("s", rng.uniform(0.1, 1, (6, 2)).astype(np.float16))
    store.add_array("z", np.full(6, byte, np.uint8))
    x = rng.standard_normal((6, 5, 32)).astype(np.float16)
    with context():
        module = ir.Module.parse(text)
        (before,) = interpret(module, {"x": x}, store).values()
        Pipeline.parse(NAME).run(module, PassContext(weights=store))
        assert ("b_zero" not in products_of(module)[0].attributes) == is_none
        (after,) = interpret(module, {"x": x}, store).values()
    np.testing.assert_allclose(after.astype(np.float32), before.astype(np.float32), rtol=2e-3, atol=1e-2)
