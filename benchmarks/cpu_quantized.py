"""Kernels of quantized products on one core against the same product in f32: milliseconds, and how many times as fast they are.

    python benchmarks/cpu_quantized.py [NAME ...]     rows whose names contain a NAME; all without

Kernels of a row take turns, and the best time of each counts, processor time of the thread. NN: B lies [K, N]; NT: [N, K].
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from ingot.dispatch import Dispatch, TensorArg

sys.path.insert(0, str(Path(__file__).parent.parent / "test"))

import cuda_dispatches as make
from cpu_kernel_harness import CompiledDispatch

Row = tuple[str, Dispatch, dict[str, Dispatch]]
TYPES: dict[str, dict[str, Any]] = {
    "i8": {"dtype": "i8", "acc": "i32", "out": "i32"},
    "f8E4M3FN": {"dtype": "f8E4M3FN", "out": "f32"},
}


def products(m: int, k: int, n: int, nt: bool) -> Row:
    """A product of two matrices: of 8-bit types, and with weights in blocks of 32."""
    plain = make.matmul(m, n, k, "f32", b_transposed=nt)
    others = {name: make.matmul(m, n, k, t["dtype"], acc=t.get("acc", "f32"), out=t["out"], b_transposed=nt)
              for name, t in TYPES.items()}  # fmt: skip
    for b, zero in (("i4", False), ("i4", True), ("i8", False)):
        d = make.quantized_matmul(m, n, k, "f32", b, scale="f32", block=32, zero=zero, b_transposed=nt)
        others[f"f32 x {b}{' zero' if zero else ''}"] = d
    return f"matmul {m}x{k}x{n} {'NT' if nt else 'NN'}", plain, others


def windows(size: int, channels: int, outputs: int, kernel: int, stride: int = 1) -> Row:
    """A convolution of one image."""

    def conv(**types: Any) -> Dispatch:
        pads = (kernel // 2,) * 4
        return make.conv(1, (size, size), channels, outputs, (kernel, kernel), strides=(stride, stride), pads=pads, **types)

    name = f"conv {kernel}x{kernel}/{stride} {size}x{size}x{channels}-{outputs}"
    return name, conv(dtype="f32"), {name: conv(**t) for name, t in TYPES.items()}


def rows() -> list[Row]:
    sizes = ((1, 4096, 4096), (4, 4096, 4096), (64, 4096, 4096), (384, 768, 3072), (197, 768, 768))
    return [
        *(products(*s, nt) for s in sizes for nt in (False, True)),
        windows(56, 64, 64, 3), windows(14, 256, 256, 3), windows(56, 64, 256, 1), windows(224, 3, 64, 7, 2),
    ]  # fmt: skip


def memory(t: TensorArg, rng: np.random.Generator) -> np.ndarray:
    """Bytes of an operand: small numbers, whatever the type."""
    elements = int(np.prod(np.array(t.shape, np.int64)))
    if t.type.bits >= 16:
        return rng.standard_normal(elements).astype(t.type.np)
    return rng.integers(0, 100, t.type.nbytes(elements)).astype(np.uint8)


def measure(row: Row, seconds: float = 1.0) -> None:
    """Print one row."""
    name, plain, others = row
    runs, compiled = [], []  # code lives as long as what compiled it
    for d in (plain, *others.values()):
        rng = np.random.default_rng(0)
        operands = [memory(t, rng) for t in d.operands]
        results = [memory(t, rng) for t in d.results]
        compiled.append(CompiledDispatch(d))
        runs.append(compiled[-1].bind(operands, results))
    best = [float("inf")] * len(runs)
    stop = time.perf_counter() + seconds
    while time.perf_counter() < stop or best[-1] == float("inf"):
        for i, run in enumerate(runs):
            begin = time.thread_time()
            run()
            best[i] = min(best[i], time.thread_time() - begin)
    cells = [f"{other} {t * 1e3:.2f} ({best[0] / t:.2f})" for other, t in zip(others, best[1:], strict=True)]
    print(f"{name:>28}: f32 {best[0] * 1e3:.2f} | {' | '.join(cells)}", flush=True)


def main() -> None:
    """Measure the rows named on the command line, or all."""
    for row in rows():
        if len(sys.argv) < 2 or any(name in row[0] for name in sys.argv[1:]):
            measure(row)


if __name__ == "__main__":
    main()
