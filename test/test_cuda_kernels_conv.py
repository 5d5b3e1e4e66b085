"""Convolutions for NVIDIA GPUs without one: numerics and races on the emulator, instructions in PTX, code for every target."""

from __future__ import annotations

import re
from typing import Any

import cuda_dispatches as make
import numpy as np
import pytest
from cuda_emulation import check as check_quantized
from cuda_emulation import run_emulated
from target_limits import check_limits

from ingot.compiler.codegen.cuda_conv import choose, schedules
from ingot.compiler.codegen.cuda_conv_depthwise import DepthwiseSchedule, choose_depthwise, depthwise_schedules
from ingot.compiler.codegen.cuda_conv_im2col import Im2colClusterSchedule, Im2colSchedule, plan_conv_im2col
from ingot.compiler.codegen.cuda_conv_padding import pad_operands
from ingot.compiler.codegen.cuda_conv_problem import conv_problem
from ingot.compiler.codegen.cuda_gemm_mma import MmaSchedule
from ingot.compiler.codegen.cuda_gemm_simt import SimtSchedule
from ingot.compiler.codegen.cuda_gemm_wgmma import WgmmaSchedule
from ingot.compiler.codegen.cuda_window import window_of
from ingot.compiler.codegen.family import emit
from ingot.compiler.reference import run_dispatch
from ingot.compiler.toolchain.stages import compile_kernels
from ingot.cuda_targets import BY_NAME
from ingot.dialects.mlir import kernel_context
from ingot.dispatch import Dispatch, ScalarRegion
from ingot.kernel_plan import TensorMapArg

SAME = (1, 1, 1, 1)
WGMMA, MMA, SIMT = WgmmaSchedule(128, 64, 4), MmaSchedule(64, 64, 32, 32), SimtSchedule(32, 32, 32)


def channel_number() -> ScalarRegion:
    """An epilogue region that adds the position along channels."""
    r = make.Region("f32")
    return r.end(r.narrow(r.add("addf", 0, r.add("sitofp", r.add("index", type="i64", axis=3))), "f16"))


def check(d: Dispatch, target: str, schedule: Any = None, sizes: dict[str, int] | None = None) -> dict[str, int]:
    """Run on the emulator and compare with the float64 reference; the matrix instructions executed."""
    found = run_emulated(d, target, sizes, schedule)
    exact = run_dispatch(make.unrounded(d), found.operands, sizes, float64=True)
    peers = run_dispatch(d, found.operands, sizes)
    for got, reference, peer in zip(found.results, exact, peers, strict=True):
        if got.dtype.kind in "iub":
            assert np.array_equal(got, peer)
        else:
            make.check_against(got, reference, peer)
    return found.executed


@pytest.mark.parametrize(
    ("target", "schedule", "instruction"),
    [
        ("sm_90a", WGMMA, "wgmma.m64n64k16.f16.f16"),
        ("sm_90a", WgmmaSchedule(64, 72, 4), "wgmma.m64n72k16.f16.f16"),
        ("sm_80", MMA, "mma.m16n8k16.f16.f16"),
        ("sm_75", None, "mma.m16n8k8.f16.f16"),
        ("sm_120a", None, "mma.m16n8k16.f16.f16"),
        ("sm_86", SIMT, ""),
    ],
)
def test_every_kernel(target: str, schedule: Any, instruction: str) -> None:
    d = make.conv(1, (9, 11), 64, 72, (3, 3), pads=SAME, bias=True)
    executed = check(d, target, schedule)
    assert not instruction or executed.get(instruction), executed


@pytest.mark.parametrize("schedule", [WGMMA, MMA, SIMT], ids=["wgmma", "mma", "simt"])
@pytest.mark.parametrize(
    "d",
    [
        make.conv(2, (13, 9), 24, 40, (3, 2), strides=(2, 1), dilations=(1, 2), pads=(1, 0, 2, 1)),
        make.conv(1, (50,), 80, 40, (3,), strides=(2,), pads=(1, 1), bias=True),
        make.conv(1, (3, 5, 6), 16, 16, (3, 3, 3), pads=(1,) * 6),
        make.conv(1, (9, 9), 32, 128, (3, 3), pads=SAME, groups=2, bias=True),
        make.conv(1, (6, 6), 16, 32, (3, 3), groups=2, region=channel_number()),
    ],
    ids=["odd window", "1d", "3d", "groups", "index of a grouped channel"],
)
def test_windows(d: Dispatch, schedule: Any) -> None:
    check(d, "sm_90a", schedule)


@pytest.mark.parametrize("schedule", [WGMMA, MMA, SIMT, None], ids=["wgmma", "mma", "simt", "chosen"])
def test_any_shape(schedule: Any) -> None:
    d = make.conv("n", ("h", "w"), 16, 24, (3, 3), strides=(2, 1), pads=SAME)
    for n, h, w in ((2, 5, 7), (1, 16, 9)):
        check(d, "sm_90a", schedule, {"n": n, "h": h, "w": w})


@pytest.mark.parametrize("schedule", [WgmmaSchedule(64, 64, 4, 3), MmaSchedule(64, 64, 32, 32, splits=3)], ids=["wgmma", "mma"])
def test_splits_of_k(schedule: Any) -> None:
    check(make.conv(1, (5, 5), 64, 48, (3, 3), pads=SAME, bias=True), "sm_90a", schedule)


@pytest.mark.parametrize("schedule", [WgmmaSchedule(64, 64, 4, stream=3), MmaSchedule(64, 64, 32, 32, stream=3)])
@pytest.mark.parametrize(
    "d",
    [
        make.conv(2, (12, 11), 64, 72, (3, 3), pads=SAME, bias=True),
        make.conv(1, (9, 9), 32, 128, (3, 3), pads=SAME, groups=2, region=channel_number()),
        make.conv(1, (10, 11), 3, 72, (7, 7), strides=(2, 2), pads=(3,) * 4),
    ],
    ids=["3x3", "groups", "padded"],
)
def test_shares_of_steps(d: Dispatch, schedule: Any) -> None:
    check(d, "sm_90a", schedule)


def test_shares_are_for_constant_sizes() -> None:
    """Tiles that leave half a wave idle are shared; of sizes known at run time nobody knows how many there are."""
    target = BY_NAME["sm_80"]
    assert choose(conv_problem(make.conv(2, (24, 24), 1280, 1280, (3, 3), pads=SAME)), target).stream
    assert not choose(conv_problem(make.conv("n", (24, 24), 1280, 1280, (3, 3), pads=SAME)), target).stream


@pytest.mark.parametrize("channels", [1, 3, 4, 6, 12])
def test_few_channels(channels: int) -> None:
    check(make.conv(1, (10, 11), channels, 20, (5, 5), strides=(2, 2), pads=(2,) * 4, dtype="bf16"), "sm_90a")


@pytest.mark.parametrize(
    "s", [Im2colSchedule(192, 64, 4), Im2colSchedule(64, 128, 5, stream=3), Im2colSchedule(128, 32, 4, 2)],
    ids=["tiles", "stream-K", "splits"],
)  # fmt: skip
@pytest.mark.parametrize(
    "d",
    [
        make.conv(2, (14, 13), 64, 72, (3, 3), pads=SAME, bias=True),
        make.conv(2, (13, 9), 128, 40, (3, 2), strides=(2, 1), dilations=(1, 2), pads=(1, 0, 2, 1)),
        make.conv(2, (7, 9), 40, 72, (1, 1), strides=(2, 2)),
        make.conv(1, (9, 9), 128, 128, (3, 3), pads=SAME, groups=2, bias=True),
        make.conv(1, (50,), 64, 40, (3,), strides=(2,), pads=(1, 1)),
        make.conv(1, (3, 5, 6), 64, 16, (3, 3, 3), pads=(1,) * 6),
        make.conv(1, (9, 11), 128, 64, (3, 3), pads=SAME, dtype="i8", acc="i32", out="i32"),
    ],
    ids=["3x3", "odd window", "one tap", "groups", "1d", "3d", "i8"],
)
def test_windows_by_the_copy_engine(d: Dispatch, s: Im2colSchedule) -> None:
    assert any(name.startswith("wgmma") for name in check(d, "sm_90a", s))


@pytest.mark.parametrize("s", [Im2colSchedule(128, 64, 4), Im2colClusterSchedule(64, 32, 4, 2)], ids=["tiles", "cluster"])
def test_windows_of_any_shape_by_the_copy_engine(s: Any) -> None:
    d = make.conv("n", ("h", "w"), 64, 24, (3, 3), strides=(2, 1), pads=SAME)
    check(d, "sm_90a", s, {"n": 2, "h": 9, "w": 7})


@pytest.mark.parametrize("s", [Im2colClusterSchedule(64, 64, 4, 4), Im2colClusterSchedule(128, 32, 4, 3)])
@pytest.mark.parametrize(
    "d",
    [
        make.conv(2, (7, 6), 256, 72, (3, 3), pads=SAME, bias=True),
        make.conv(1, (9, 9), 256, 128, (3, 3), strides=(2, 2), pads=SAME, groups=2, region=channel_number()),
        make.conv(1, (9, 11), 256, 64, (3, 3), pads=SAME, dtype="i8", acc="i32", out="i32"),
    ],
    ids=["3x3", "groups", "i8"],
)
def test_clusters_share_windows(d: Dispatch, s: Im2colClusterSchedule) -> None:
    found = run_emulated(d, "sm_90a", schedule=s)
    assert len(found.plan.launches) == 1
    assert found.plan.launches[0].cluster == (s.cluster, 1, 1)
    check(d, "sm_90a", s)


def test_few_pixels_take_clusters() -> None:
    """Twenty-eight tiles of 36 steps: clusters sum K without a second launch."""
    d = make.conv(2, (14, 14), 256, 256, (3, 3), pads=SAME)
    assert isinstance(choose(conv_problem(d), BY_NAME["sm_90a"]), Im2colClusterSchedule)
    with pytest.raises(ValueError, match="rows"):
        Im2colClusterSchedule(64, 64, 4, 2, swapped=True)


@pytest.mark.parametrize(
    "d",
    [
        make.conv(2, (14, 13), 96, 72, (3, 3), pads=SAME),
        make.conv(1, (40, 40), 64, 64, (3, 3), dilations=(128, 1), pads=(128, 1, 128, 1)),
        make.conv(1, (40, 40), 64, 64, (9, 9), strides=(9, 9)),
        make.conv(1, (5, 6), 64, 64, (4, 4), strides=(2, 2), pads=SAME, transposed=True),
        make.conv(1, (12, 12), 64, 64, (3, 3), dtype="f32"),
    ],
    ids=["a step of two taps", "far taps", "far windows", "transposed", "no instruction"],
)
def test_windows_that_the_copy_engine_cannot_read(d: Dispatch) -> None:
    target, schedule = BY_NAME["sm_90a"], Im2colSchedule(128, 64, 4)
    assert plan_conv_im2col(conv_problem(d), target, schedule) is None
    with kernel_context(), pytest.raises(NotImplementedError, match="cannot read windows"):
        emit(d, target, schedule)


@pytest.mark.parametrize("schedule", [WGMMA, WgmmaSchedule(64, 72, 4), None], ids=["by TMA", "from registers", "chosen"])
@pytest.mark.parametrize(
    "d",
    [
        make.conv(2, (14, 13), 4, 72, (3, 3), pads=SAME, bias=True),
        make.conv(1, (9, 10), 12, 40, (3, 3), pads=SAME, dtype="bf16"),
        make.conv(1, (9, 9), 8, 64, (3, 3), pads=SAME, groups=2),
    ],
    ids=["4", "12", "groups of 4"],
)
def test_pieces_of_eight_bytes(d: Dispatch, schedule: Any) -> None:
    """Producers gather pixels and weights, whose rows TMA cannot read, in half chunks."""
    assert any(name.startswith("wgmma") for name in check(d, "sm_90a", schedule)) or schedule is None


def test_patches_read_rows_of_pixels() -> None:
    d = make.conv(1, (32, 32), 3, 48, (16, 16), strides=(16, 16))
    c = conv_problem(d)
    assert (c.window.kernel, c.channels) == ((16, 1), 48)
    assert c.aligned_elements(8) == 8
    check(d, "sm_80")


@pytest.mark.parametrize("target", ["sm_75", "sm_80", "sm_90a"])
@pytest.mark.parametrize("stride", [1, 2])
def test_one_tap(target: str, stride: int) -> None:
    d = make.conv(2, (7, 9), 32, 40, (1, 1), strides=(stride, stride), bias=True)
    check(d, target)
    with kernel_context():
        launch = emit(d, BY_NAME[target]).plan.launches[0]
    assert launch.symbol.startswith("matmul" if stride == 1 else "conv")


@pytest.mark.parametrize("target", ["sm_75", "sm_80", "sm_90a"])
@pytest.mark.parametrize(
    "d",
    [
        make.conv(1, (5, 6), 16, 24, (4, 4), strides=(2, 2), pads=SAME, transposed=True),
        make.conv(1, (5, 6), 16, 20, (3, 3), strides=(3, 2), dilations=(2, 1), pads=(1, 0, 0, 1), groups=2, transposed=True),
        make.conv(1, (5, 6), 6, 10, (3, 3), strides=(2, 2), pads=SAME, dtype="f32", transposed=True, bias=True),
        make.conv(1, (9,), 8, 8, (4,), strides=(4,), groups=8, transposed=True),
        make.conv(1, (3, 3), 8, 1, (2, 2), strides=(2, 2), transposed=True),
    ],
    ids=["4x4", "groups", "f32", "depthwise 1d", "one output"],
)
def test_transposed(d: Dispatch, target: str) -> None:
    check(d, target)


@pytest.mark.parametrize(
    "d",
    [
        make.conv(2, (9, 11), 24, 24, (3, 3), strides=(2, 1), pads=SAME, groups=24, bias=True),
        make.conv(1, (9, 17), 12, 12, (5, 5), pads=(2,) * 4, groups=12, dtype="f32"),
        make.conv(1, (9, 19), 7, 7, (7, 7), pads=(3,) * 4, groups=7, dtype="f32"),
        make.conv(1, (40,), 16, 16, (4,), pads=(3, 0), groups=16),
        make.conv(1, (6, 20), 300, 300, (3, 3), dilations=(1, 2), pads=(1, 2, 1, 2), groups=300),
        make.conv(1, (9, 9), 6, 12, (3, 3), pads=SAME, groups=6, dtype="f32"),
        make.conv(1, (70,), 64, 64, (65,), strides=(2,), pads=(32, 32), groups=64),
        make.conv(1, (12, 20), 8, 8, (21, 31), pads=(10, 15, 10, 15), groups=8, dtype="f32"),
    ],
    ids=[
        "3x3", "5x5 f32", "7x7 odd channels", "causal 1d", "dilated, two blocks of channels", "two outputs a channel",
        "long 1d", "large",
    ],
)
def test_depthwise(d: Dispatch) -> None:
    check(d, "sm_90a")


@pytest.mark.parametrize(
    "s",
    [
        DepthwiseSchedule(4, 6, 4, 2, rows=2), DepthwiseSchedule(8, 3, 2, 1, rows=3), DepthwiseSchedule(2, 5, 3, 3, rows=4),
        DepthwiseSchedule(8, 2, 1, 2),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "d",
    [
        make.conv(1, (11, 10), 24, 24, (5, 5), pads=(2,) * 4, groups=24, bias=True),
        make.conv(1, (12, 13), 24, 24, (3, 3), strides=(2, 2), dilations=(2, 1), pads=SAME, groups=24),
        make.conv(1, (4, 7, 9), 24, 24, (2, 3, 3), pads=(1,) * 6, groups=24, dtype="bf16"),
    ],
    ids=["5x5", "strided, dilated", "3d"],
)
def test_depthwise_patches(d: Dispatch, s: DepthwiseSchedule) -> None:
    """Patches of rows and pixels that do not divide the output, warps that are not full, weights of 8, 16 and 4 bytes."""
    check(d, "sm_90a", s)


def test_depthwise_schedules_fit_and_fill_the_gpu() -> None:
    d = make.conv(32, (28, 28), 240, 240, (5, 5), pads=(2,) * 4, groups=240)
    target = BY_NAME["sm_90a"]
    found = depthwise_schedules(d, window_of(d, (5, 5), (28, 28)), target)
    assert len(set(found)) == len(found) > 3
    assert found[0] == choose_depthwise(d, window_of(d, (5, 5), (28, 28)), target)
    assert (found[0].rows, found[0].pixels, found[0].lanes) == (2, 4, 4)  # the fastest on an H200
    for s in found[:3]:
        with kernel_context():
            launch = emit(d, target, s).plan.launches[0]
        assert launch.shared_bytes <= 48 << 10
        assert 132 < launch.grid[0] * launch.grid[1] <= 2 * 132 < launch.grid[0] * launch.grid[1] * s.strips


def test_small_depthwise_outputs_have_small_patches() -> None:
    """Two images: patches that leave no SM without work."""
    large, small = (make.conv(n, (14, 14), 240, 240, (5, 5), pads=(2,) * 4, groups=240) for n in (256, 2))
    found = [choose_depthwise(d, window_of(d, (5, 5), (14, 14)), BY_NAME["sm_90a"]) for d in (large, small)]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0].rows * found[0].pixels > found[1].rows * found[1].pixels


def test_ptx_of_depthwise_reads() -> None:
    """A patch of 2 x 4 outputs of a 5 x 5 window: 6 x 8 vectors of inputs, and each tap's weights once."""
    d = make.conv(32, (28, 28), 240, 240, (5, 5), pads=(2,) * 4, groups=240)
    ptx = ptx_of(d, "sm_90a", DepthwiseSchedule(4, 60, 4, 3, 2))
    assert len(re.findall(r"ld\.global\S*v2\.b32|ld\.global\S*v4\.b16", ptx)) == 6 * 8
    assert len(re.findall(r"ld\.shared\S*v4\.[bf]32", ptx)) <= 2 * 25


def test_depthwise_weights_beyond_shared_memory() -> None:
    d = make.conv(1, (13000,), 2, 2, (12900,), groups=2, dtype="f32")
    assert choose_depthwise(d, window_of(d, (12900,), (13000,)), BY_NAME["sm_86"]) is None
    with kernel_context():
        assert emit(d, BY_NAME["sm_86"]).plan.launches[0].shared_bytes <= BY_NAME["sm_86"].shared_bytes


def test_depthwise_any_shape() -> None:
    check(make.conv("n", ("h", "w"), 16, 16, (3, 3), pads=SAME, groups=16), "sm_90a", None, {"n": 2, "h": 5, "w": 7})


@pytest.mark.parametrize(
    "d",
    [
        make.conv(1, (5, 5), 16, 8, (3, 3), pads=SAME, dtype="i8", acc="i32", out="i32"),
        make.conv(1, (5, 5), 4, 8, (3, 3), pads=SAME, dtype="f64", acc="f64"),
        make.conv(1, (7, 7), 8, 20, (3, 3), pads=SAME, dtype="f32", bias=True),
        make.conv(1, (7, 7), 5, 9, (3, 3), pads=SAME, dtype="f32"),
    ],
    ids=["i8", "f64", "f32", "f32 odd"],
)
def test_types(d: Dispatch) -> None:
    check(d, "sm_86")


def test_float32_uses_tensor_cores_only_where_allowed() -> None:
    exact, rounded = (make.conv(1, (7, 7), 16, 16, (3, 3), pads=SAME, dtype="f32", tf32=t) for t in (False, True))
    assert not run_emulated(exact, "sm_80").executed
    assert run_emulated(rounded, "sm_80").executed.get("mma.m16n8k8.tf32.tf32")


def ptx_of(d: Dispatch, target: str, schedule: Any = None) -> str:
    with kernel_context():
        return compile_kernels(emit(d, BY_NAME[target], schedule).module, target, stop="ptx")


def test_ptx_of_the_wgmma_loop() -> None:
    ptx = ptx_of(make.conv(2, (96, 96), 320, 320, (3, 3), pads=SAME), "sm_90a", WgmmaSchedule(128, 160, 5))
    # 64 of k; LLVM peels the first step, whose accumulators are zero.
    assert len(re.findall(r"wgmma\.mma_async\.\S*m64n160k16", ptx)) in (4, 8)
    assert len(re.findall(r"cp\.async\.cg\.shared\.global", ptx)) == 8  # 128 pixels of 8 chunks by 128 threads
    assert len(re.findall(r"cp\.async\.bulk\.tensor\.2d\.shared", ptx)) == 1  # the weights
    assert "ld.local" not in ptx


def test_ptx_of_the_mma_loop() -> None:
    s = MmaSchedule(128, 128, 64, 64)
    ptx = ptx_of(make.conv(2, (96, 96), 320, 320, (3, 3), pads=SAME), "sm_80", s)
    # 4 steps of 16 k, each 4 x 8 instructions; 3 + 1 reads of fragments in the loop and one before it.
    assert len(re.findall(r"mma\.sync\.\S*m16n8k16", ptx)) == 4 * 4 * 8
    assert len(re.findall(r"ldmatrix", ptx)) == 5 * (4 + 4)
    assert "ld.local" not in ptx


@pytest.mark.parametrize("target", ["sm_75", "sm_80", "sm_86", "sm_89", "sm_90a", "sm_120a"])
@pytest.mark.parametrize(
    "d",
    [
        make.conv(1, (28, 28), 64, 64, (3, 3), pads=SAME, bias=True),
        make.conv(1, (28, 28), 3, 32, (3, 3), strides=(2, 2), pads=SAME),
        make.conv(1, (28, 28), 32, 32, (3, 3), pads=SAME, groups=32),
    ],
    ids=["3x3", "stem", "depthwise"],
)
def test_machine_code(d: Dispatch, target: str) -> None:
    with kernel_context():
        emitted = emit(d, BY_NAME[target])
        assert compile_kernels(emitted.module, target)[:4] == b"\x7fELF"
    assert all(launch.shared_bytes <= BY_NAME[target].shared_bytes for launch in emitted.plan.launches)


@pytest.mark.parametrize(("target", "dtype"), [("sm_75", "i8"), ("sm_86", "f16"), ("sm_120a", "f16")])
def test_code_for_any_shape_does_not_spill(target: str, dtype: str) -> None:
    """Positions of windows beside accumulators, and on sm_75 beside what passes through registers."""
    acc = "i32" if dtype == "i8" else "f32"
    d = make.conv("n", ("h", "w"), 64, 64, (3, 3), pads=SAME, dtype=dtype, acc=acc, out="f16")
    with kernel_context():
        emitted = emit(d, BY_NAME[target])
        check_limits(emitted.plan, compile_kernels(emitted.module, target), BY_NAME[target])


def test_what_no_kernel_takes_is_named() -> None:
    d = make.conv(1, (9, 9), 16, 16, (3, 3))
    w = make.swapped(d.operands[1])
    with kernel_context(), pytest.raises(NotImplementedError, match="dense"):
        emit(Dispatch(d.root, (d.operands[0], w), d.results, d.attrs, d.regions), BY_NAME["sm_80"])


@pytest.mark.parametrize(
    ("d", "kind"),
    [
        (make.conv(2, (96, 96), 320, 320, (3, 3), pads=SAME), WgmmaSchedule),
        (make.conv("n", ("h", "w"), 320, 320, (3, 3), pads=SAME), WgmmaSchedule),
        (make.conv(1, (14, 14), 64, 64, (3, 3), pads=SAME), MmaSchedule),
        (make.conv(2, (96, 96), 3, 64, (3, 3), pads=SAME), MmaSchedule),
        (make.conv(2, (96, 96), 64, 64, (3, 3), pads=SAME, dtype="f32"), SimtSchedule),
    ],
    ids=["large", "any size", "few pixels", "few channels", "float32"],
)
def test_choice_on_hopper(d: Dispatch, kind: type) -> None:
    assert isinstance(choose(conv_problem(d), BY_NAME["sm_90a"]), kind)


@pytest.mark.parametrize(
    "d",
    [
        make.conv(32, (56, 56), 64, 256, (1, 1)),
        make.quantized_in_epilogue(make.conv(32, (56, 56), 64, 256, (1, 1), dtype="i8", acc="i32", out="f32")),
        make.conv(32, (56, 56), 256, 512, (1, 1), strides=(2, 2)),
        make.conv(2, (96, 96), 4, 320, (3, 3), pads=SAME),
    ],
    ids=["1x1", "1x1 i8", "1x1 stride 2", "4 channels"],
)
def test_few_steps_take_persistent_blocks(d: Dispatch) -> None:
    """Bound by memory: the producer fetches the next tile's operands, and the copy engine stores the last one's results."""
    target = BY_NAME["sm_90a"]
    found = schedules(d, target)
    with kernel_context():
        launch = emit(d, target).plan.launches[0]
    assert isinstance(min(found, key=lambda e: e.seconds).schedule, WgmmaSchedule)
    assert launch.grid[0] <= 2 * 132
    assert any(isinstance(b, TensorMapArg) and b.kind == "result" for b in launch.buffers)


def test_columns_divide_tiles() -> None:
    """320 channels are two tiles of 160, not two of 256."""
    c = conv_problem(make.conv(2, (96, 96), 320, 320, (3, 3), pads=SAME))
    assert choose(c, BY_NAME["sm_90a"]).tile_n == 160


def test_images_are_padded_once() -> None:
    """Three channels: x and w are copied with four, rows of the kernel become runs of 8 x 4 channels."""
    d = make.conv(1, (33, 35), 3, 24, (7, 7), strides=(2, 2), pads=(3, 3, 3, 3))
    target = BY_NAME["sm_90a"]
    padded = pad_operands(d, window_of(d, (7, 7), (33, 35)), target)
    assert padded is not None
    c = conv_problem(padded.dispatch)
    assert (c.window.kernel, c.channels, c.aligned_elements(8)) == ((7, 1), 32, 8)
    found = run_emulated(d, "sm_90a")
    assert len(found.plan.launches) >= 3
    for schedule in (WGMMA, MMA, MmaSchedule(64, 64, 32, 32, splits=2), None):
        check(d, "sm_90a", schedule)
    any_size = make.conv("n", ("h", "w"), 3, 24, (7, 7), strides=(2, 2), pads=(3, 3, 3, 3))
    check(any_size, "sm_80", None, {"n": 2, "h": 20, "w": 17})


@pytest.mark.parametrize("channels", [1, 5, 11])
def test_odd_channels_are_padded_to_chunks(channels: int) -> None:
    d = make.conv(1, (9, 10), channels, 16, (3, 3), pads=SAME)
    padded = pad_operands(d, window_of(d, (3, 3), (9, 10)), BY_NAME["sm_90a"])
    assert padded is not None
    assert padded.dispatch.operands[0].shape[-1] % 8 == 0
    check(d, "sm_90a", WGMMA)


@pytest.mark.parametrize("out", ["i8", "f16", "f8E4M3FN"])
@pytest.mark.parametrize("tile_n", [32, 128, 80])
def test_narrow_results_leave_through_shared_memory(tile_n: int, out: str) -> None:
    """Boxes of 64 or 32 columns of one or two bytes; 80 columns are no boxes."""
    d = make.conv(1, (9, 11), 64, 112, (1, 1), dtype="i8", acc="i32", out="f32")
    found = check_quantized(make.quantized_in_epilogue(d, out), "sm_90a", WgmmaSchedule(128, tile_n, 4))
    stored = found.plan.launches[0].buffers
    assert any(isinstance(b, TensorMapArg) and b.kind == "result" for b in stored) == (tile_n != 80)


@pytest.mark.parametrize("tile_n", [32, 96, 128, 72])
def test_results_leave_through_shared_memory(tile_n: int) -> None:
    """Boxes of 64 or 32 columns, or registers; tiles beyond the last pixel and channel."""
    check(make.conv(3, (9, 11), 64, 104, (3, 3), pads=SAME, bias=True), "sm_90a", WgmmaSchedule(128, tile_n, 4))
