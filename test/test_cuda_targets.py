"""What is known of GPUs: of a typical one of each target, and of those with more or fewer multiprocessors."""

from __future__ import annotations

from typing import Any

import cuda_dispatches as make
import numpy as np
import pytest
from fake_cuda import install
from numpy_gpu import numpy_session

import ingot
from ingot.compiler.codegen.cuda_gemm_problem import gemm_problem
from ingot.compiler.codegen.cuda_matmul import choose
from ingot.cuda_targets import BY_NAME, facts, target_for, with_sms


def test_targets_of_gpus_that_are_not_typical() -> None:
    """Their kernels have keys of their own, and schedules for as many SMs as there are."""
    ada = BY_NAME["sm_89"]
    assert with_sms(ada, 128) is ada
    small = with_sms(ada, 24)
    assert (ada.key, small.key, small.name) == ("sm_89", "sm_89:24", "sm_89")
    assert (facts(small).sms, facts(small).sm_tflops) == (24, pytest.approx(facts(ada).sm_tflops))
    assert facts(small).bandwidth / facts(ada).bandwidth == pytest.approx(24 / 128)
    d = gemm_problem(make.matmul(384, 768, 3072, "f16"))
    chosen, few = choose(d, ada), choose(d, small)
    assert chosen != few
    # 24 SMs have enough tiles; for 128 they are split, or small.
    assert few.splits <= chosen.splits
    assert few.tile_m * few.tile_n >= chosen.tile_m * chosen.tile_n
    assert target_for((9, 0)) is with_sms(target_for((9, 0)), 132)


def test_rates_of_arithmetic() -> None:
    """Tensor cores of GeForce cards add products of floats in f32 at half of their rate, integers at the whole of it."""
    ada, hopper = facts(BY_NAME["sm_89"]), facts(BY_NAME["sm_90a"])
    assert ada.peak("i8") == 2 * ada.peak("8") == 4 * ada.peak("16") == 8 * ada.peak("tf32")
    assert hopper.peak("i8") == hopper.peak("8") == 2 * hopper.peak("16")
    assert facts(BY_NAME["sm_120a"]).peak("4") == 8 * facts(BY_NAME["sm_120a"]).peak("16")
    with pytest.raises(KeyError):
        ada.peak("f64")


def test_kernels_of_one_shape_are_for_the_gpu_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those for any shape are for its target: what was compiled elsewhere serves."""
    b = ingot.Builder()
    b.output("y", b.input("x", ("N", 4)).relu())
    session, _ = numpy_session(b.compile(), install(monkeypatch), monkeypatch, specialize="eager")
    x = np.array([[1, -1, 2, -2]], np.float32)
    assert np.array_equal(session.run(None, {"x": x})[0], np.maximum(x, 0))
    loader: Any = session._loader
    assert loader.loaded == [session.device.target]
    assert loader.specialized == [with_sms(session.device.target, 24)]
    session.close()
