"""Quantized products in the kernel benchmark: decoded operands, and those of 8 bits that instructions take."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import cuda_dispatches as make
import torch
from cuda_cases import COLD_BYTES, Check, Speed, in_turns

from ingot.compiler.codegen.cuda_gemm_cluster import ClusterSchedule
from ingot.compiler.codegen.cuda_gemm_decoded_registers import DecodedRegistersSchedule
from ingot.compiler.codegen.cuda_gemm_decoded_wgmma import DecodedWgmmaSchedule
from ingot.compiler.codegen.cuda_gemm_mma import MmaSchedule
from ingot.compiler.codegen.cuda_gemm_wgmma import WgmmaSchedule


def fp8_checks() -> list[Check]:
    """Sums of many products of 8-bit floats, promoted to f32 by every kernel."""

    def case(name: str, m: Any, n: int, k: Any, layout: str, schedule: Any = None, sizes: Any = None) -> Check:
        d = make.matmul(m, n, k, "f8E4M3FN", b_transposed=layout == "NT", out="f16", multiples={"k": 16})
        return Check(f"matmul fp8 promoted {name} {m}x{n}x{k} {layout} to f16", d, sizes or {}, schedule=schedule)

    return [
        case("wgmma", 300, 400, 4096, "NT", WgmmaSchedule(128, 128, 4)),
        case("split", 64, 256, 8192, "NT", WgmmaSchedule(64, 128, 5, 4)),
        case("stream-K", 300, 424, 4096, "NT", WgmmaSchedule(128, 128, 4, stream=5)),
        case("cluster", 60, 328, 4096, "NT", ClusterSchedule(128, 64, 4, 4, True)),
        case("columns", 300, 400, 4096, "NN", DecodedWgmmaSchedule(96, 4)),
        case("any", "m", 264, "k", "NT", sizes={"m": 333, "k": 2064}),
    ]


def quantized_checks() -> list[Check]:
    """Decoded operands: weights of 4 and 8 bits, and block-scaled operands where no instruction takes them."""
    cases = []
    for weights in ("i8", "i4", "f8E4M3FN", "f8E5M2", "f4E2M1FN"):
        options: dict[str, Any] = {"scale": "f16", "block": 64, "zero": weights[0] == "i"}
        for m in (1, 3, 40, 200):
            for nt in (True, False):
                d = make.quantized_matmul(m, 336, 512, "f16", weights, b_transposed=nt, **options)
                cases.append(Check(f"quantized {weights} {m}x336x512 {'NT' if nt else 'NN'}", d))
    for dtype, scale, block in (("f4E2M1FN", "f8E4M3FN", 16), ("f4E2M1FN", "f8E8M0FNU", 32), ("f8E4M3FN", "f8E8M0FNU", 32)):
        d = make.quantized_matmul(200, 336, 512, dtype, dtype, scale=scale, a_scale=scale, block=block)
        cases.append(Check(f"quantized {dtype} with {scale} scales", d))
    for m, k in ((1, 4096), (8, 2080), (64, 4096)):  # sums over blocks, and batches that do not divide K
        for nt in (True, False):
            for a, scale in (("f16", "f16"), ("bf16", "f32")):
                d = make.quantized_matmul(m, 520, k, a, "i4", scale=scale, block=32, zero=True, b_transposed=nt, out=a)
                cases.append(Check(f"quantized i4 {m}x520x{k} {a} {'NT' if nt else 'NN'}", d))
    for dtype, acc in (("i8", "i32"), ("f8E4M3FN", "f32"), ("f8E5M2", "f32")):  # both operands, columns neighbours in memory
        cases.append(Check(f"quantized both {dtype} 300x400x528 NN", make.matmul(300, 400, 528, dtype, acc=acc),
                           schedule=DecodedWgmmaSchedule(96, 4)))  # fmt: skip
    for weights in ("i8", "i4", "f8E4M3FN", "f4E2M1FN"):
        for nt in (True, False):
            d = make.quantized_matmul(200, 336, 512, "bf16", weights, scale="bf16", block=64, b_transposed=nt, out="bf16")
            schedule = DecodedRegistersSchedule(MmaSchedule(64, 64, 32, 32))
            cases.append(Check(f"quantized {weights} by mma.sync {'NT' if nt else 'NN'}", d, target="sm_80", schedule=schedule))
    for weights in ("i8", "i4", "f8E4M3FN", "f8E5M2", "f4E2M1FN"):
        for m in (1, 40, 200):
            d = make.quantized_matmul(m, 336, 512, "f16", weights, scale="f16", block=64, zero=weights[0] == "i")
            cases.append(Check(f"quantized {weights} {m}x336x512 packed", make.packed(d)))
            cases.append(Check(f"quantized {weights} {m}x336x512 packed by mma.sync", make.packed(d), target="sm_80"))
    any_size = make.quantized_matmul("m", 336, "k", "bf16", "i4", scale="bf16", block=32, multiples={"k": 32})
    return [*cases, Check("quantized i4 any", any_size, {"m": 77, "k": 480})]


def torch_scaled_mm(fast: bool) -> Callable[[list[torch.Tensor], torch.Tensor], Callable[[], Any]]:
    """PyTorch's product of 8-bit floats (cuBLAS), whose sums are promoted to f32, or not where they may be `fast`."""

    def build(operands: list[torch.Tensor], result: torch.Tensor) -> Callable[[], Any]:
        a, b = operands
        one = torch.ones((), device="cuda")
        return lambda: torch._scaled_mm(a, b, scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=fast)

    return build


def fp8_speeds() -> list[Speed]:
    """Products of 8-bit floats with promoted sums, and with fast ones, each against the same of cuBLAS."""
    cases = []
    for m, n, k in ((4096, 4096, 4096), (8192, 8192, 8192), (2048, 4096, 4096), (256, 4096, 4096), (4608, 12288, 3072)):
        size = f"{m}x{n}x{k}"
        for fast in (False, True):
            d = make.matmul(m, n, k, "f8E4M3FN", b_transposed=True, fast_accumulation=fast)
            name = f"matmul fp8 {size}{', fast sums' if fast else ''}"
            cases.append(Speed(name, d, 0.95 if (m, n, k) == (4096, 4096, 4096) else 0.0, torch_scaled_mm(fast)))
    return cases


def torch_half_matmul(operands: list[torch.Tensor], result: torch.Tensor) -> Callable[[], Any]:
    """A product with weights that are of 16 bits already; its values are others, hence no result is given to compare."""
    a = operands[0]
    count = max(1, COLD_BYTES // (2 * result.shape[1] * a.shape[1])) if a.shape[0] <= 64 else 1
    weights = [torch.randn(result.shape[1], a.shape[1], device="cuda", dtype=a.dtype).T for _ in range(count)]
    out = torch.empty_like(result)

    def call(b: torch.Tensor) -> None:
        torch.matmul(a, b, out=out)

    return in_turns([functools.partial(call, b) for b in weights])


def torch_as_half(operands: list[torch.Tensor], result: torch.Tensor) -> Callable[[], Any]:
    """A product of the same size of f16 operands; its values are others, hence no result is given to compare."""
    (m, k), n = operands[0].shape, operands[1].shape[1]
    a, b, out = (torch.randn(size, device="cuda", dtype=torch.float16) for size in ((m, k), (n, k), (m, n)))

    def call() -> None:
        torch.matmul(a, b.T, out=out)

    return call


def quantized_speeds() -> list[Speed]:
    """Weights as language models have them, from memory: rows of one token and of a few, against a copy of as many bytes as all
    operands have; more rows against a product with f16 weights.

    NT: weights lie [N, K], as MatMulNBits has them; NN: [K, N], as DequantizeLinear along axis 0 has them; packed: in a warp's
    order (ingot.weight_packing).
    """

    def case(
        weights: str, m: int, n: int, k: int, layout: str = "NT", a: str = "f16", other: Any = None, target: str = "",
        **options: Any,
    ) -> Speed:
        options = {"scale": a, "block": 128, **options}
        d = make.quantized_matmul(m, n, k, a, weights, b_transposed=layout != "NN", out=a, **options)
        if layout == "packed":
            d = make.packed(d)
        scale = f"{options['scale']}/{options['block']}" + (" zero" if options.get("zero") else "")
        against = (" to f16" if other else "") + (f" by mma.sync of {target}" if target else "")
        return Speed(f"quantized {weights} {layout} {m}x{n}x{k} {a} {scale}{against}", d, 0.0, other, target, cold=m <= 64)

    def both(dtype: str, acc: str, m: int, layout: str) -> Speed:
        d = make.matmul(m, 4096, 4096, dtype, acc=acc, b_transposed=layout == "NT")
        return Speed(f"quantized both {dtype} {layout} {m}x4096x4096 to f16", d, 0.0, torch_as_half)

    sizes = ((4096, 4096), (11008, 4096), (14336, 4096), (4096, 14336))
    nvfp4 = {"scale": "f8E4M3FN", "block": 16}
    return [
        *(case("i4", 1, n, k, layout) for layout in ("NT", "NN") for n, k in sizes),
        *(case("i4", 1, 4096, 4096, layout, block=32, zero=zero) for layout in ("NT", "NN") for zero in (False, True)),
        *(case(w, 1, n, k, layout, block=0)
          for w in ("i8", "f8E4M3FN") for layout in ("NT", "NN") for n, k in (sizes[0], sizes[3])),
        case("f4E2M1FN", 1, 4096, 4096, **nvfp4), case("f4E2M1FN", 1, 14336, 4096, **nvfp4),
        *(case(w, 1, 4096, 4096, a="bf16") for w in ("i4", "i8", "f8E4M3FN", "f4E2M1FN")),
        *(case(w, m, 4096, 4096, layout) for m in (4, 8, 16, 64) for w in ("i4", "i8") for layout in ("NT", "NN")),
        *(case("i4", 1, n, k, "packed") for n, k in sizes), case("i8", 1, 4096, 4096, "packed", block=0),
        *(case(w, m, 4096, 4096, "packed") for m in (4, 8, 16, 32, 64) for w in ("i4", "i8")),
        *(case(w, m, 4096, 4096, "packed", other=torch_half_matmul) for m in (16, 64, 128, 512, 2048)
          for w in ("i4", "i8", "f8E4M3FN")),
        *(case("i4", m, 4096, 4096, layout, other=torch_half_matmul) for m in (1, 16, 64) for layout in ("NT", "NN")),
        *(case(w, 2048, 4096, 4096, layout, other=torch_half_matmul)
          for w in ("i4", "i8", "f8E4M3FN") for layout in ("NT", "NN")),
        case("f4E2M1FN", 2048, 4096, 4096, other=torch_half_matmul, **nvfp4),
        *(case("i4", m, 4096, 4096, layout, other=torch_half_matmul) for m in (128, 256, 512) for layout in ("NT", "NN")),
        *(case(w, 2048, 4096, 4096, layout, other=torch_half_matmul, target="sm_80")
          for w in ("i4", "i8", "f8E4M3FN") for layout in ("NT", "NN", "packed")),
        # Kernels of GPUs without wgmma, packed and not.
        *(case(w, m, 4096, 4096, layout, target="sm_80") for w in ("i4", "i8", "f8E4M3FN")
          for m in (1, 8, 16, 64) for layout in ("NT", "packed")),
        *(case("i4", 1, n, k, layout, target="sm_80") for n, k in sizes[1:] for layout in ("NT", "packed")),
        *(case(w, m, 4096, 4096, layout, other=torch_half_matmul, target="sm_80") for w in ("i4", "i8", "f8E4M3FN")
          for m in (128, 512) for layout in ("NT", "packed")),
        *(both(dtype, acc, m, layout) for dtype, acc in (("i8", "i32"), ("f8E4M3FN", "f32"))
          for m in (256, 2048) for layout in ("NT", "NN")),
    ]  # fmt: skip
