"""Convolutions in the kernel benchmark: every kernel against float64, and their times against cuDNN's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import cuda_dispatches as make
import torch
from cuda_cases import Check, Speed

from ingot.compiler.codegen.cuda_conv_depthwise import DepthwiseSchedule
from ingot.compiler.codegen.cuda_conv_im2col import Im2colClusterSchedule, Im2colSchedule
from ingot.compiler.codegen.cuda_gemm_wgmma import WgmmaSchedule
from ingot.dispatch import Dispatch


def conv_checks() -> list[Check]:
    """Convolutions by every kernel; code of sm_80 runs on every later GPU."""
    same = (1, 1, 1, 1)
    odd = make.conv(2, (25, 19), 24, 40, (3, 2), strides=(2, 1), dilations=(1, 2), pads=(1, 0, 2, 1))
    any_size = {"n": 2, "h": 15, "w": 21}

    def wgmma(name: str, d: Dispatch, *tile: int, sizes: Mapping[str, int] | None = None) -> Check:
        return Check(f"conv wgmma {name}", d, sizes or {}, schedule=WgmmaSchedule(*tile))

    return [
        Check("conv f16 3x3", make.conv(2, (24, 20), 64, 72, (3, 3), pads=same)),
        Check("conv bf16 3x3", make.conv(2, (24, 20), 64, 72, (3, 3), pads=same, dtype="bf16")),
        wgmma("channels 72", make.conv(2, (24, 20), 72, 136, (3, 3), pads=same), 128, 128, 5),
        wgmma("several tiles a block", make.conv(8, (40, 40), 64, 320, (3, 3), pads=same, dtype="bf16"), 128, 160, 5),
        wgmma("stored by TMA", make.conv(4, (40, 40), 64, 256, (3, 3), pads=same), 128, 256, 4),
        wgmma("one consumer", make.conv(1, (14, 14), 64, 64, (3, 3), pads=same), 64, 64, 6),
        wgmma("odd window", odd, 128, 64, 5),
        wgmma("groups", make.conv(1, (20, 20), 64, 128, (3, 3), pads=same, groups=2, bias=True), 128, 64, 5),
        wgmma("split", make.conv(1, (7, 7), 512, 512, (3, 3), pads=same), 64, 128, 6, 8),
        wgmma("any", make.conv("n", ("h", "w"), 64, 64, (3, 3), pads=same), 128, 64, 5, sizes=any_size),
        Check("conv mma 3x3", make.conv(2, (24, 20), 64, 72, (3, 3), pads=same, dtype="bf16"), target="sm_80"),
        Check("conv mma odd window", odd, target="sm_80"),
        *(Check(f"conv im2col {name}", d, schedule=Im2colSchedule(*tile)) for name, d, tile in (
            ("3x3", make.conv(2, (40, 40), 64, 128, (3, 3), pads=same), (128, 128, 6)),
            ("3x3 of 128 channels, stream-K", make.conv(2, (24, 20), 128, 256, (3, 3), pads=same), (128, 128, 6, 1, 7)),
            ("stride 2", make.conv(2, (25, 29), 64, 72, (3, 3), strides=(2, 2), pads=same, bias=True), (64, 64, 8)),
            ("odd window", make.conv(2, (25, 19), 64, 40, (3, 2), strides=(2, 1), dilations=(1, 2), pads=(1, 0, 2, 1)),
             (128, 64, 5)),
            ("uneven padding", make.conv(1, (20, 26), 64, 64, (2, 5), pads=(1, 3, 0, 1)), (192, 64, 5)),
            ("1x1 stride 2", make.conv(2, (28, 28), 64, 256, (1, 1), strides=(2, 2)), (128, 256, 4)),
            ("groups", make.conv(1, (20, 20), 128, 128, (3, 3), pads=same, groups=2), (128, 64, 5)),
            ("1d stride 2", make.conv(1, (300,), 128, 384, (3,), strides=(2,), pads=(1, 1), bias=True), (128, 192, 4)),
            ("3d", make.conv(1, (6, 10, 10), 64, 32, (3, 3, 3), pads=(1,) * 6), (64, 32, 8)),
        )),
        *(Check(f"conv im2col cluster {name}", d, schedule=Im2colClusterSchedule(*tile)) for name, d, tile in (
            ("3x3", make.conv(2, (14, 14), 256, 256, (3, 3), pads=same, bias=True), (64, 64, 12, 3)),
            ("stride 2", make.conv(2, (14, 14), 512, 512, (3, 3), strides=(2, 2), pads=same), (64, 64, 12, 6)),
            ("128 x 128", make.conv(2, (28, 28), 128, 128, (3, 3), pads=same), (128, 128, 4, 8)),
        )),
        Check("conv stem", make.conv(2, (65, 65), 3, 64, (7, 7), strides=(2, 2), pads=(3,) * 4, bias=True)),
        Check("conv 4 channels", make.conv(2, (32, 32), 4, 320, (3, 3), pads=same)),
        wgmma("4 channels", make.conv(2, (32, 32), 4, 320, (3, 3), pads=same), 128, 160, 5),
        wgmma("12 channels", make.conv(2, (32, 32), 12, 72, (3, 3), pads=same, dtype="bf16"), 128, 72, 5),
        Check("conv to 4 channels", make.conv(2, (32, 32), 320, 4, (3, 3), pads=same)),
        Check("conv patches", make.conv(2, (64, 64), 3, 192, (16, 16), strides=(16, 16), bias=True)),
        Check("conv 1x1", make.conv(2, (28, 28), 64, 256, (1, 1), bias=True)),
        Check("conv 1x1 stride 2", make.conv(2, (28, 28), 64, 256, (1, 1), strides=(2, 2))),
        Check("conv 1d stride 2", make.conv(1, (300,), 80, 384, (3,), strides=(2,), pads=(1, 1), bias=True)),
        Check("conv 3d", make.conv(1, (6, 10, 10), 16, 32, (3, 3, 3), pads=(1,) * 6)),
        Check("conv groups 32", make.conv(2, (14, 14), 128, 128, (3, 3), pads=same, groups=32)),
        Check("conv transposed", make.conv(2, (16, 16), 64, 32, (4, 4), strides=(2, 2), pads=same, transposed=True)),
        Check("conv transposed f32 groups",
              make.conv(1, (9, 9), 12, 20, (3, 3), strides=(2, 2), groups=2, dtype="f32", transposed=True)),
        Check("conv f32 3x3", make.conv(2, (28, 28), 32, 48, (3, 3), pads=same, dtype="f32", bias=True)),
        Check("conv f32 odd", make.conv(1, (17, 13), 5, 7, (3, 3), pads=same, dtype="f32")),
        Check("conv depthwise f16", make.conv(2, (28, 28), 96, 96, (3, 3), pads=same, groups=96, bias=True)),
        Check("conv depthwise 5x5 stride 2 f32",
              make.conv(2, (29, 29), 40, 40, (5, 5), strides=(2, 2), pads=(2,) * 4, groups=40, dtype="f32")),
        Check("conv depthwise 7x7", make.conv(1, (30, 30), 33, 33, (7, 7), pads=(3,) * 4, groups=33, dtype="f32")),
        *(Check(f"conv depthwise 5x5 by {s.rows} x {s.pixels} x {s.lanes}",
                make.conv(2, (29, 30), 120, 120, (5, 5), pads=(2,) * 4, groups=120, bias=True), schedule=s)
          for s in (DepthwiseSchedule(4, 30, 4, 3, 2), DepthwiseSchedule(8, 15, 4, 1), DepthwiseSchedule(4, 15, 2, 2, 4))),
        Check("conv depthwise any", make.conv("n", ("h", "w"), 64, 64, (3, 3), pads=same, groups=64), any_size),
    ]  # fmt: skip


def torch_conv(*, strides: tuple[int, ...], pads: int, groups: int) -> Callable[..., Callable[[], Any]]:
    """PyTorch's convolution (cuDNN, its best algorithm) of channels-last tensors."""

    def bound(operands: list[torch.Tensor], result: torch.Tensor) -> Callable[[], Any]:
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = False
        x, w = (t.permute(0, 3, 1, 2) for t in operands[:2])
        return lambda: torch.nn.functional.conv2d(x, w, None, strides, pads, 1, groups).permute(0, 2, 3, 1)

    return bound


def torch_half_conv(*, strides: tuple[int, ...], pads: int) -> Callable[..., Callable[[], Any]]:
    """PyTorch's convolution of f16 tensors of the same shapes; its values are others, hence no result is given to compare."""

    def bound(operands: list[torch.Tensor], result: torch.Tensor) -> Callable[[], Any]:
        torch.backends.cudnn.benchmark = True
        x, w = (torch.randn(t.shape, device="cuda", dtype=torch.float16).permute(0, 3, 1, 2) for t in operands[:2])

        def call() -> None:
            torch.nn.functional.conv2d(x, w, None, strides, pads)

        return call

    return bound


def conv_speed(
    n: int,
    size: int,
    channels: int,
    outputs: int,
    kernel: int,
    *,
    stride: int = 1,
    groups: int = 1,
    dtype: str = "f16",
    floor: float = 0.0,
    target: str = "",
    pad: int = -1,
) -> Speed:
    """A square convolution against cuDNN; `pad` keeps the size by default."""
    pad = kernel // 2 if pad < 0 else pad
    d = make.conv(n, (size, size), channels, outputs, (kernel, kernel), strides=(stride, stride), pads=(pad,) * 4,
                  groups=groups, dtype=dtype)  # fmt: skip
    name = f"conv {dtype} {kernel}x{kernel}{f'/{stride}' if stride > 1 else ''} {n}x{size}x{size}x{channels}-{outputs}"
    name += (f" groups {groups}" if groups > 1 else "") + (f" {target}" if target else "")
    return Speed(name, d, floor, torch_conv(strides=(stride, stride), pads=pad, groups=groups), target)


def conv_speeds() -> list[Speed]:
    return [
        conv_speed(2, 96, 320, 320, 3, floor=0.6),
        conv_speed(2, 96, 320, 320, 3, dtype="bf16", floor=0.6),
        conv_speed(2, 48, 640, 640, 3),
        conv_speed(2, 24, 1280, 1280, 3),
        conv_speed(2, 12, 1280, 1280, 3),
        conv_speed(2, 96, 320, 320, 3, stride=2),
        conv_speed(2, 96, 4, 320, 3),
        conv_speed(2, 96, 320, 4, 3),
        conv_speed(1, 256, 512, 512, 3),
        conv_speed(1, 512, 128, 128, 3),
        conv_speed(32, 224, 3, 64, 7, stride=2),
        conv_speed(32, 56, 64, 64, 3),
        conv_speed(32, 28, 128, 128, 3),
        conv_speed(32, 14, 256, 256, 3),
        conv_speed(32, 7, 512, 512, 3),
        conv_speed(1, 56, 64, 64, 3),
        conv_speed(1, 14, 256, 256, 3),
        conv_speed(1, 7, 512, 512, 3),
        conv_speed(32, 56, 64, 256, 1),
        conv_speed(32, 56, 256, 512, 1, stride=2),
        conv_speed(32, 224, 3, 768, 16, stride=16, pad=0),
        conv_speed(32, 56, 96, 96, 3, groups=96),
        conv_speed(32, 28, 240, 240, 5, groups=240),
        conv_speed(32, 56, 96, 96, 7, groups=96, dtype="f32"),
        conv_speed(8, 56, 64, 64, 3, dtype="f32"),
        conv_speed(8, 14, 256, 256, 3, dtype="f32"),
        conv_speed(2, 96, 320, 320, 3, target="sm_80"),
    ]


def eight_bit_speed(
    n: int, size: int, channels: int, outputs: int, kernel: int, dtype: str, stride: int = 1, out: str = "i8"
) -> Speed:
    """A square convolution of 8-bit integers or floats against the same convolution of f16."""
    pad, acc = kernel // 2, "i32" if dtype == "i8" else "f32"
    d = make.conv(n, (size, size), channels, outputs, (kernel, kernel), strides=(stride, stride), pads=(pad,) * 4,
                  dtype=dtype, acc=acc, out="f32")  # fmt: skip
    name = f"conv {dtype} {kernel}x{kernel}/{stride} {n}x{size}x{size}x{channels}-{outputs} to {out}"
    return Speed(name, make.quantized_in_epilogue(d, out), 0.0, torch_half_conv(strides=(stride, stride), pads=pad))


def eight_bit_speeds() -> list[Speed]:
    """Convolutions of 8-bit integers and floats."""
    sizes = ((32, 56, 64, 64, 3), (32, 28, 128, 128, 3), (32, 14, 256, 256, 3), (32, 56, 64, 256, 1), (32, 224, 3, 64, 7, 2))
    return [
        *(eight_bit_speed(*s[:5], dtype, *s[5:]) for dtype in ("i8", "f8E4M3FN") for s in sizes),
        *(eight_bit_speed(*s[:5], "i8", out="f16") for s in sizes[:4]),
    ]
