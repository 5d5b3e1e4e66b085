"""Packed weights: their order, kernels of sm_90a that read them, and the packing that a launch program runs once.

Those of the targets that multiply by mma.sync: test_cuda_kernels_packed.py.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cuda_dispatches as make
import numpy as np
import onnx
import pytest
from cuda_emulation import check as check_emulated
from cuda_emulation import run_emulated
from fake_cuda import FakeDriver, install
from numpy_gpu import NumpyGpu
from onnx import TensorProto, helper
from packed_products import check_packed, packing
from runtime_models import model

import ingot
from ingot.compiler.codegen.cuda_gemm_decoded_wgmma import DecodedWgmmaSchedule
from ingot.compiler.codegen.cuda_gemm_mma import MmaSchedule
from ingot.compiler.codegen.cuda_gemm_problem import gemm_problem
from ingot.compiler.codegen.cuda_gemm_streamed import StreamedSchedule, streamed_schedules
from ingot.compiler.codegen.cuda_matmul import choose
from ingot.compiler.codegen.family import emit
from ingot.compiler.reference import run_dispatch
from ingot.cuda_targets import BY_NAME
from ingot.dialects.mlir import context, ir, kernel_context
from ingot.dispatch import Dispatch
from ingot.errors import DeviceError
from ingot.passes.pipeline import Pipeline
from ingot.weight_packing import packed, split_shape, tile_k, unpacked

HOPPER = BY_NAME["sm_90a"]
WEIGHTS = ("i8", "i4", "f8E4M3FN", "f8E5M2", "f4E2M1FN")
SMALL = DecodedWgmmaSchedule(64, 3)


def check(d: Dispatch, schedule: Any = None, sizes: dict[str, int] | None = None) -> None:
    """See `check_packed`."""
    check_packed(d, HOPPER, schedule, sizes=sizes)


@pytest.mark.parametrize("bits", [4, 8])
def test_order(bits: int) -> None:
    """Lane 4 g + q of a tile has the columns and k that the fragments of m16n8k16's A give its two rows."""
    n, k = 32, 128
    columns, ks = np.divmod(packed(np.arange(n * k).reshape(n, k), bits), k)
    each = 16 * 8 // bits
    for tile in range(n * k * bits // 8 // 512):
        for lane in range(32):
            at = (tile * 32 + lane) * each
            group, quad = divmod(lane, 4)
            first_n, first_k = tile // (k // tile_k(bits)) * 16, tile % (k // tile_k(bits)) * tile_k(bits)
            mine = set(zip(columns.ravel()[at : at + each], ks.ravel()[at : at + each], strict=True))
            assert mine == {
                (first_n + 2 * group + c, first_k + 16 * step + 2 * quad + x)
                for c in range(2) for step in range(tile_k(bits) // 16) for x in (0, 1, 8, 9)
            }  # fmt: skip
    assert np.array_equal(unpacked(packed(np.arange(n * k).reshape(n, k), bits), bits).ravel(), np.arange(n * k))


def test_whole_tiles_only() -> None:
    for n, k, bits in ((24, 64, 4), (16, 96, 4), (16, 64, 16)):
        with pytest.raises(ValueError, match=rf"\[{n}, {k}\] of {bits} bits"):
            split_shape(n, k, bits)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_wgmma(weights: str, dtype: str) -> None:
    zero = weights[0] == "i"
    for options in ({"scale": dtype, "block": 32, "zero": zero}, {"scale": "f32"}, {}):
        check(make.quantized_matmul(66, 160, 192, dtype, weights, **options), SMALL)


@pytest.mark.parametrize("weights", ["i4", "i8"])
def test_wgmma_divisions(weights: str) -> None:
    """Blocks of scales of less than a stage and more, other tiles, sums over blocks, sizes at run time."""
    d = make.quantized_matmul(130, 208, 512, "f16", weights, scale="f16", block=16, out="f16")
    check(d, DecodedWgmmaSchedule(96, 3, 2))
    check(make.quantized_matmul(130, 208, 512, "f16", weights, scale="f16", block=256), replace(SMALL, stream=5))
    d = make.quantized_matmul("m", "n", "k", "f16", weights, multiples={"n": 16, "k": 64})
    check(d, SMALL, {"m": 70, "n": 144, "k": 128})


@pytest.mark.parametrize("weights", ["i4", "f8E4M3FN"])
def test_clusters(weights: str) -> None:
    """Blocks that add their parts of K through shared memory: rows and columns that tiles do not divide."""
    small, large = DecodedWgmmaSchedule(16, 8, cluster=4), DecodedWgmmaSchedule(64, 5, cluster=3)
    for m, n, schedule in ((13, 160, small), (70, 128, large)):
        check(make.quantized_matmul(m, n, 576, "f16", weights, scale="f16", block=64, out="f16"), schedule)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("rows", [1, 5, 24])
def test_streamed(weights: str, rows: int) -> None:
    for n, k, options in (
        (96, 2048, {"scale": "f16", "block": 32, "zero": weights[0] == "i"}),
        (48, 1152, {"scale": "f32", "block": 128}),
        (80, 576, {}),
    ):
        d = make.quantized_matmul(rows, n, k, "f16", weights, out="f16", **options)
        p = gemm_problem(make.packed(d))
        (s,) = streamed_schedules(p, HOPPER, n)
        assert isinstance(choose(p, HOPPER), StreamedSchedule if rows <= 8 else DecodedWgmmaSchedule)
        (plain,) = streamed_schedules(gemm_problem(d), HOPPER, n)
        found = check_emulated(d, HOPPER, plain)
        got = run_emulated(make.packed(d), HOPPER, None, s, prepare=packing(d))
        (exact,) = run_dispatch(make.unrounded(d), found.operands, float64=True)
        make.check_against(got.results[0], exact, found.results[0])


def quantized_model(seed: int) -> onnx.ModelProto:
    """Two products of packed weights, of 4 and 8 bits, and one whose weight another node reads too."""
    rng = np.random.default_rng(seed)
    weights = {
        "w": rng.integers(0, 256, (32, 4, 16)).astype(np.uint8),
        "s": (rng.random((32, 4)) / 16).astype(np.float16),
        "v": rng.integers(-128, 128, (64, 32)).astype(np.int8),
        "t": (rng.random(32) / 512).astype(np.float16),
    }
    attributes = {"domain": "com.microsoft", "K": 128, "N": 32, "block_size": 32}
    nodes = [
        helper.make_node("MatMulNBits", ["x", "w", "s"], ["h"], **attributes),
        helper.make_node("Concat", ["h", "h"], ["h2"], axis=1),
        helper.make_node("DequantizeLinear", ["v", "t"], ["d"], axis=1),
        helper.make_node("MatMul", ["h2", "d"], ["y"]),
    ]
    made = model(nodes, {"x": (TensorProto.FLOAT16, ["N", 128])}, {"y": (TensorProto.FLOAT16, ["N", 32])}, weights)
    made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return made


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    return install(monkeypatch)


@pytest.mark.parametrize(("mode", "machine"), [("none", "sm_90a"), ("eager", "sm_90a"), ("eager", "sm_75"), ("eager", "sm_89")])
def test_a_program_packs_once(mode: str, machine: str, driver: FakeDriver) -> None:
    """Weights are packed when they are there, through one piece of memory; programs for a shape find them packed."""
    gpu = NumpyGpu(ingot.compile(quantized_model(0)), driver, mode, machine=machine)
    assert len(gpu.program.packing) == 2
    assert sorted(b.name for b in gpu.program.buffers if b.kind == "packed") == ["v#1#packed", "w#1#packed"]
    sources = [step.operands[0].buffer for step in gpu.program.packing]
    assert len({gpu.executable.addresses[n] for n in sources}) == 1
    expected = ingot.Session(ingot.compile(quantized_model(0)), "cpu")
    for rows in (3, 70, 3, 3):
        x = np.random.default_rng(rows).standard_normal((rows, 128)).astype(np.float16)
        (y,) = gpu.run({"x": x})
        np.testing.assert_allclose(y, expected.run(None, {"x": x})[0], rtol=2e-3, atol=2e-3)
    packing = [e.dispatch for e in gpu.program.kernels if '"b_packed"' in e.dispatch]
    assert len(packing) == 2
    gpu.close()


def test_kernels_that_know_no_packing() -> None:
    d = make.packed(make.quantized_matmul(64, 64, 64, "f16", "i4", scale="f16", block=32))
    with kernel_context(), pytest.raises(NotImplementedError, match="no packed weights"):
        emit(d, HOPPER, MmaSchedule(64, 64, 32, 32))


def test_a_target_that_there_is_not() -> None:
    with context():
        module = ir.Module.parse("")
        with pytest.raises(DeviceError, match="no target 'sm_99'"):
            Pipeline.parse("ingot-pack-weights{target=sm_99}").run(module)
