"""What a quantized matmul means: its attributes, and the reference against DequantizeLinear as ONNX defines it."""

from __future__ import annotations

import cuda_dispatches as make
import numpy as np
import pytest
from cuda_emulation import run_emulated
from test_dispatch_builder import build

from ingot.compiler.reference import run_dispatch
from ingot.dtypes import DTYPES
from ingot.matmul_scales import MatmulScales, matmul_scales


def test_operands_that_attributes_ask_for() -> None:
    assert matmul_scales({}) == MatmulScales()
    assert matmul_scales({"b_block": 0}) == MatmulScales(b_scale=2)
    found = matmul_scales({"a_block": 16, "b_block": 32, "b_zero": True})
    assert (found.a_scale, found.b_scale, found.b_zero, found.a_block, found.b_block, found.count) == (2, 3, 4, 16, 32, 3)
    with pytest.raises(ValueError, match="has no scales of b"):
        matmul_scales({"a_block": 16, "b_zero": True})
    with pytest.raises(ValueError, match="b_block is -1"):
        matmul_scales({"b_block": -1})


@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize("dtype", ["i8", "i4"])
def test_weights_are_dequantized_as_onnx_does(dtype: str, unsigned: bool) -> None:
    """(x - x_zero_point) * x_scale in the scale's type, for blocks of 16 along k, then an exact product."""
    d = make.quantized_matmul(3, 5, 40, "f16", dtype, scale="f16", block=16, zero=True, unsigned=unsigned)
    a, b, scale, zero = (o.view for o in make.random_operands(d, {}))
    (found,) = run_dispatch(d, [a, b, scale, zero], float64=True)
    mask = (15 if dtype == "i4" else 255) if unsigned else -1
    whole = [x.astype(np.int64) & mask for x in (b, zero)]
    expected = np.empty((40, 5), np.float16)
    for k in range(40):
        for n in range(5):
            expected[k, n] = np.float16(whole[0][k, n] - whole[1][k // 16, n]) * scale[k // 16, n]
    np.testing.assert_allclose(found, a.astype(np.float64) @ expected.astype(np.float64), rtol=1e-6)


def test_block_scaled_operands_are_not_rounded() -> None:
    four = DTYPES["f4E2M1FN"].np
    d = make.quantized_matmul(1, 1, 32, "f4E2M1FN", "f4E2M1FN", scale="f8E8M0FNU", a_scale="f8E8M0FNU", block=32)
    a, b = np.full((1, 32), 1.5, four), np.full((32, 1), 3, four)
    scales = [np.full((1, 1), 2.0**-100, DTYPES["f8E8M0FNU"].np), np.full((1, 1), 2.0**99, DTYPES["f8E8M0FNU"].np)]
    assert run_dispatch(d, [a, b, *scales])[0] == 32 * 4.5 / 2


def test_dispatches_of_the_operation() -> None:
    """Weights [n, k] with scales [n, blocks], as models store them, transposed by views."""
    (built,) = build(
        {},
        """%x = "ingot.weight"() {name = "x"} : () -> tensor<3x64xf16>
        %w = "ingot.weight"() {name = "w"} : () -> tensor<8x64xi4>
        %s = "ingot.weight"() {name = "s"} : () -> tensor<8x2xf16>
        %z = "ingot.weight"() {name = "z"} : () -> tensor<8x2xf16>
        %wt = "ingot.transpose"(%w) {perm = array<i64: 1, 0>} : (tensor<8x64xi4>) -> tensor<64x8xi4>
        %st = "ingot.transpose"(%s) {perm = array<i64: 1, 0>} : (tensor<8x2xf16>) -> tensor<2x8xf16>
        %zt = "ingot.transpose"(%z) {perm = array<i64: 1, 0>} : (tensor<8x2xf16>) -> tensor<2x8xf16>
        %y = "ingot.matmul"(%x, %wt, %st, %zt) ({ ^bb0(%e: f32): "ingot.yield"(%e) : (f32) -> () })
          {acc = "f32", b_block = 32, b_zero, b_unsigned}
          : (tensor<3x64xf16>, tensor<64x8xi4>, tensor<2x8xf16>, tensor<2x8xf16>) -> tensor<3x8xf32>""",
    )
    d = built.dispatch
    assert matmul_scales(dict(d.attrs)) == MatmulScales(b_scale=2, b_zero=3, b_block=32)
    assert [t.strides for t in d.operands] == [(64, 1), (1, 64), (1, 2), (1, 2)]
    found = run_emulated(d, "sm_80")
    np.testing.assert_allclose(found.results[0], run_dispatch(d, found.operands, float64=True)[0], rtol=1e-5, atol=1e-5)
