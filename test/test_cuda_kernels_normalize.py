"""Normalization kernels without a GPU: numerics on the emulator, every target assembled."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import cuda_dispatches as make
import numpy as np
import pytest
from cuda_emulation import check as emulated_check
from cuda_emulation import run_emulated

from ingot.compiler.codegen.cuda_group_cluster import ClusterSchedule
from ingot.compiler.codegen.cuda_group_normalize import GroupSchedule, group_problem
from ingot.compiler.codegen.cuda_normalize import NormalizeSchedule, group_schedules
from ingot.compiler.codegen.family import emit
from ingot.compiler.reference import run_dispatch
from ingot.compiler.toolchain.stages import compile_kernels
from ingot.cuda_targets import BY_NAME, CUDA_TARGETS, with_sms
from ingot.dialects.mlir import kernel_context
from ingot.dispatch import Dispatch, TensorArg, contiguous
from ingot.target import Target


def check(d: Dispatch, target: str = "sm_80", schedule: Any = None, sizes: Mapping[str, int] | None = None) -> int:
    """Run on the emulator and compare with the float64 reference; the number of launches."""
    return len(emulated_check(d, target, schedule, sizes).plan.launches)


def ptx_of(d: Dispatch, schedule: Any = None, target: str = "sm_90a") -> str:
    with kernel_context():
        return compile_kernels(emit(d, BY_NAME[target], schedule).module, target, stop="ptx")


KINDS = ("softmax", "log_softmax", "layer", "rms")


@pytest.mark.parametrize("kind", KINDS)
def test_a_warp_a_row(kind: str) -> None:
    check(make.normalize(kind, 9, 96, dtype="f16", affine=kind in ("layer", "rms")))
    check(make.normalize(kind, 5, 77, dtype="f32"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_a_row(kind: str) -> None:
    assert check(make.normalize(kind, 3, 1536, dtype="bf16")) == 1
    assert check(make.normalize(kind, 2, 1100, dtype="f32")) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_rows_in_chunks(kind: str) -> None:
    d = make.normalize(kind, "r", "c", dtype="f32")
    assert check(d, sizes={"r": 2, "c": 1300}, schedule=NormalizeSchedule(256, 1, 2, chunked=True)) == 2
    assert check(d, sizes={"r": 3, "c": 5}) == 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["f16", "bf16", "f32"])
@pytest.mark.parametrize("cols", [31, 32, 33, 255, 1023, 1025])
def test_lengths_of_rows(kind: str, dtype: str, cols: int) -> None:
    """Around a warp and around what a warp holds, a thousand elements and more, so that the statistics say something."""
    rows = max(3, 1 + 1000 // cols)
    target = "sm_75" if dtype == "f16" else "sm_90a"
    check(make.normalize(kind, rows, cols, dtype=dtype, affine=kind in ("layer", "rms")), target)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_one_and_of_two(kind: str) -> None:
    for cols in (1, 2):
        check(make.normalize(kind, 501, cols, dtype="f32", affine=True))


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_f64(kind: str) -> None:
    check(make.normalize(kind, 5, 77, dtype="f64"))
    check(make.normalize(kind, 2, 1100, dtype="f64"))
    check(make.normalize(kind, "r", "c", dtype="f64"), sizes={"r": 3, "c": 300})
    if kind in ("layer", "rms"):
        check(make.normalize(kind, 2, 16, 4, 6, axes=(1, 3), dtype="f64"))  # groups of channels


def test_log_softmax_of_large_numbers() -> None:
    """What is subtracted from them must not be rounded as they are."""

    def far(operands: list[np.ndarray]) -> None:
        operands[0] += 10_000

    for cols in (40, 2000):
        emulated_check(make.normalize("log_softmax", 20, cols, dtype="f32"), "sm_80", prepare=far)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axes", [(1,), (0,), (1, 2), (0, 2)], ids=str)
def test_axes_that_are_not_the_last(kind: str, axes: tuple[int, ...]) -> None:
    check(make.normalize(kind, 5, 37, 12, axes=axes, dtype="f32"))
    check(make.normalize(kind, "a", "b", 12, axes=axes, dtype="f32"), sizes={"a": 3, "b": 41})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(4, 96), (2, 1536), ("r", "c")], ids=["warp", "block", "chunks"])
def test_rows_with_nan_and_infinities(kind: str, shape: tuple[Any, ...]) -> None:
    """They spoil their own row and no other."""

    def spoil(views: list[np.ndarray]) -> None:
        views[0][0, 5], views[0][1, 7] = np.nan, np.inf

    d = make.normalize(kind, *shape, dtype="f32")
    sizes = {"r": 3, "c": 700} if "r" in shape else None
    found = run_emulated(d, "sm_80", sizes, prepare=spoil)
    (exact,) = run_dispatch(d, found.operands, sizes, float64=True)
    make.errors(found.results[0], exact)
    assert np.isnan(exact).any()


def test_map_and_result_of_other_types() -> None:
    """The region before adds a bias to f16 elements, the region after rounds to bf16 and keeps f32 beside it."""
    before, after = make.Region("f16"), make.Region("f32")
    start = before.end(before.add("addf", before.wide(0, "f16"), before.load(1, "f32")))
    finish = after.end(after.narrow(0, "bf16"), 0)
    operands = [contiguous("f16", 5, 200), contiguous("f32", 200)]
    results = [contiguous("bf16", 5, 200), contiguous("f32", 5, 200)]
    for kind in KINDS:
        attrs = {"kind": kind, "axes": (1,), "epsilon": 1e-5}
        check(make.make("normalize", operands, results, [start, finish], attrs))


def test_a_strided_operand() -> None:
    """Rows that lie apart, and rows that are columns of their tensor."""
    for t in (TensorArg("f32", (6, 96), (100, 1), 16), TensorArg("f32", (40, 96), (1, 40), 64)):
        d = make.normalize("softmax", *t.shape, dtype="f32")
        check(replace(d, operands=(t,)))


def test_softmax_of_minus_infinity() -> None:
    """Masked elements get probability 0."""
    d = make.normalize("softmax", 4, 64, dtype="f32")

    def mask(operands: list[np.ndarray]) -> None:
        operands[0][:, 10:] = -np.inf
        operands[0][1, 3] = 1e30

    found = run_emulated(d, "sm_80", prepare=mask)
    make.check_against(found.results[0], run_dispatch(d, found.operands, float64=True)[0], run_dispatch(d, found.operands)[0])
    assert np.all(found.results[0][:, 10:] == 0)


def test_layer_norm_of_a_large_mean() -> None:
    """Deviations are small beside the mean: sums of squares would cancel."""

    def shift(operands: list[np.ndarray]) -> None:
        operands[0][...] += 1000

    for d in (make.normalize("layer", 4, 640, dtype="f32"), make.normalize("layer", 1, 64, 2, 8, axes=(1, 3), dtype="f32")):
        found = run_emulated(d, "sm_80", prepare=shift)
        assert make.errors(found.results[0], run_dispatch(d, found.operands, float64=True)[0]).spread < 2e-4


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_groups(kind: str) -> None:
    d = make.normalize(kind, 2, 6, 5, 4, 10, axes=(1, 2, 4), dtype="f16")
    assert group_problem(d) is not None
    assert check(d, schedule=GroupSchedule(8, 6, 12)) == 2
    check(make.normalize(kind, 2, "s", 4, 8, axes=(1, 3), dtype="f32"), sizes={"s": 37})
    ptx = ptx_of(make.normalize(kind, 2, "s", 32, 10, axes=(1, 3)))
    assert "ld.global.v4" in ptx


def test_where_groups_are_held() -> None:
    """In a cluster elements are read once, to registers or to shared memory."""
    d = make.normalize("rms", 2, 9216, 32, 10, axes=(1, 3))
    held, copied = (ClusterSchedule(4, 8, 8, 96, registers) for registers in (True, False))
    assert len(re.findall(r"ld\.global\S*v4", ptx_of(d, held))) == 12  # 1152 positions of a block, 96 at a time
    assert "cp.async" not in ptx_of(d, held)
    assert "cp.async.cg.shared.global" in ptx_of(d, copied)
    assert "ld.global" not in ptx_of(d, copied)


CLUSTERS: dict[str, tuple[tuple[int, ...], ClusterSchedule]] = {
    "vectors that meet two groups": ((2, 30, 4, 10), ClusterSchedule(2, 4, 4, 8)),
    "one block": ((2, 30, 4, 10), ClusterSchedule(4, 1, 8, 6)),
    "eight blocks, the last one shorter": ((1, 36, 4, 8), ClusterSchedule(2, 8, 8, 3)),
    "sixteen blocks": ((1, 68, 4, 8), ClusterSchedule(2, 16, 8, 3)),
    "each block alone on an SM": ((2, 30, 4, 10), ClusterSchedule(2, 4, 4, 8, alone=True)),
    "groups narrower than a vector": ((1, 17, 6, 3), ClusterSchedule(6, 2, 2, 5)),
    "groups of several vectors": ((1, 19, 2, 16), ClusterSchedule(1, 2, 8, 4)),
}


@pytest.mark.parametrize("registers", [False, True], ids=["shared", "registers"])
@pytest.mark.parametrize("kind", ["layer", "rms"])
@pytest.mark.parametrize("name", CLUSTERS)
def test_groups_in_a_cluster(kind: str, name: str, registers: bool) -> None:
    shape, schedule = CLUSTERS[name]
    schedule = replace(schedule, registers=registers)
    assert check(make.normalize(kind, *shape, axes=(1, 3), dtype="f16"), "sm_90a", schedule) == 1


def test_groups_in_a_cluster_with_regions() -> None:
    """An element map and an epilogue that load, and a result of another type."""
    start, after = make.Region("f16"), make.Region("f32")
    mapped = start.end(start.add("mulf", start.wide(0, "f16"), start.load(1, "f32")))
    finish = after.end(after.narrow(after.add("addf", 0, after.load(2, "f32")), "bf16"))
    vector = contiguous("f32", 4, 8)
    operands, results = [contiguous("f16", 2, 5, 4, 4, 8), vector, vector], [contiguous("bf16", 2, 5, 4, 4, 8)]
    d = make.make("normalize", operands, results, [mapped, finish], {"kind": "layer", "axes": (1, 2, 4), "epsilon": 1e-5})
    assert check(d, "sm_90a", ClusterSchedule(2, 2, 8, 5)) == 1


def test_groups_of_a_unet() -> None:
    d = make.group_norm_silu(2, 60, 4, 10)
    check(d, "sm_90a", ClusterSchedule(2, 16, 4, 4))
    check(d, "sm_90a", GroupSchedule(8, 6, 12))


def test_wide_clusters_are_schedules_to_time() -> None:
    """Clusters of 16 blocks, and blocks alone on an SM, are listed where asked for, on whole GPUs alone."""
    p = group_problem(make.normalize("layer", 2, 9216, 32, 10, axes=(1, 3), dtype="f16"))
    assert p is not None

    def of(target: Target, **options: Any) -> list[ClusterSchedule]:
        return [s for _, s in group_schedules(p, target, **options) if isinstance(s, ClusterSchedule)]

    hopper = BY_NAME["sm_90a"]
    listed = of(hopper, waves=16, wide=True)
    assert ClusterSchedule(8, 16, 8, 48) in listed
    assert ClusterSchedule(8, 16, 8, 48, alone=True) in listed
    assert not any(s.is_wide or s.alone for s in of(hopper, waves=16, wide=False))
    assert not any(s.is_wide for s in of(with_sms(hopper, 60), waves=16, wide=True))
    assert not any(s.is_wide for s in of(BY_NAME["sm_120a"], waves=16, wide=True))
    with kernel_context():
        d = make.normalize("layer", 2, 9216, 32, 10, axes=(1, 3), dtype="f16")
        (launch,) = emit(d, hopper, ClusterSchedule(8, 16, 8, 48, alone=True)).plan.launches
        assert hopper.resident_blocks(480, 32, launch.shared_bytes) == 1
        assert launch.cluster == (16, 1, 1)
        module = emit(d, hopper, ClusterSchedule(8, 16, 8, 48)).module
        assert compile_kernels(module, "sm_90a")[:4] == b"\x7fELF"


def test_special_functions_take_all_sms() -> None:
    """A sigmoid on half of the SMs would take longer than reading twice does."""
    hopper = BY_NAME["sm_90a"]
    plain = group_problem(make.normalize("layer", 2, 9216, 32, 10, axes=(1, 3), dtype="f16"))
    silu = group_problem(make.group_norm_silu(2, 9216, 32, 10))
    assert plain is not None
    assert silu is not None
    assert isinstance(group_schedules(plain, hopper, wide=False)[0][1], ClusterSchedule)  # 64 blocks
    assert isinstance(group_schedules(silu, hopper, wide=False)[0][1], GroupSchedule)


def test_choice_of_clusters() -> None:
    """One launch where a cluster of the target holds a group of every position and reads whole lines of memory, else two."""

    def launches(target: str, *shape: Any, dtype: str = "f16") -> tuple[int, int]:
        with kernel_context():
            plan = emit(make.normalize("layer", *shape, axes=(1, 3), dtype=dtype), BY_NAME[target]).plan
        return len(plan.launches), plan.launches[0].cluster[0]

    assert launches("sm_90a", 2, 9216, 32, 10) == (1, 8)
    assert launches("sm_90a", 2, 144, 32, 40) == (1, 1)
    assert launches("sm_80", 2, 9216, 32, 10) == (2, 1)
    assert launches("sm_80", 2, 144, 32, 40) == (1, 1)
    assert launches("sm_75", 2, 144, 32, 40) == (1, 1)  # in registers: it has no cp.async
    assert launches("sm_75", 2, 9216, 32, 10) == (2, 1)
    assert launches("sm_90a", 2, 9216, 32, 30) == (2, 1)
    assert launches("sm_90a", 1, 1 << 18, 32, 4) == (2, 1)
    assert launches("sm_90a", 1, "s", 32, 10) == (2, 1)
    assert launches("sm_90a", 2, 576, 32, 1) == (1, 2)


@pytest.mark.parametrize("target", [t.name for t in CUDA_TARGETS])
def test_assembles_for_every_target(target: str) -> None:
    for d in (
        make.normalize("softmax", 64, 640),
        make.normalize("layer", 8, 20000),
        make.normalize("layer", 2, 64, 4, 8, axes=(1, 3)),
    ):
        with kernel_context():
            assert compile_kernels(emit(d, BY_NAME[target]).module, target)[:4] == b"\x7fELF"
