"""Matmul kernels on one core against numpy: GFLOP/s, their ratio, and the time to compile.

    python benchmarks/cpu_gemm.py [MxKxN ...]

A shape that ends in `t` has B stored transposed, as weights of linear layers often are. Kernel and numpy alternate, and the
best time of each counts, processor time of the thread; numpy's BLAS is held to one.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np

from ingot import dims
from ingot.dispatch import Dispatch, ScalarRegion, TensorArg, contiguous

SHAPES = (
    "512x512x512", "1024x1024x1024", "128x768x768", "128x768x3072", "128x3072x768", "384x768x768", "384x768x3072",
    "197x768x2304", "50x768x768", "128x768x768t", "384x768x3072t", "1x768x3072", "1x768x3072t", "4x768x3072", "3136x64x256",
    "784x1152x128t", "49x4608x512t",
)  # fmt: skip


def parse(text: str) -> tuple[int, int, int, bool]:
    """`MxKxN`, or `MxKxNt`."""
    m, k, n = map(int, text.removesuffix("t").split("x"))
    return m, k, n, text.endswith("t")


def dispatch_of(m: int, k: int, n: int, transposed: bool) -> Dispatch:
    """The matmul of a shape."""
    b = contiguous("f32", k, n)
    if transposed:
        b = TensorArg("f32", (k, n), (1, k))
    identity = ScalarRegion(("f32",), (), (0,))
    return Dispatch("matmul", (contiguous("f32", m, k), b), (contiguous("f32", m, n),), (("acc", "f32"),), (identity,))


def measure(text: str, seconds: float = 0.4) -> None:
    """Print one row."""
    from cpu_kernel_harness import CompiledDispatch, place

    m, k, n, transposed = parse(text)
    d = dispatch_of(m, k, n, transposed)
    compiled = CompiledDispatch(d)
    rng = np.random.default_rng(0)
    a, b = (place(t, rng.standard_normal(t.shape, dtype=np.float32)) for t in d.operands)
    c, reference = np.empty((m, n), np.float32), np.empty((m, n), np.float32)
    run = compiled.bind([a, b], [c])
    times: tuple[list[float], list[float]] = ([], [])
    stop = time.perf_counter() + seconds
    while time.perf_counter() < stop or len(times[0]) < 5:
        for side, call in enumerate((run, lambda: np.matmul(a, b, out=reference))):
            begin = time.thread_time()
            call()
            times[side].append(time.thread_time() - begin)
    error = np.abs(c - reference).max() / np.abs(reference).max()
    assert error < 1e-4, error
    ours, numpys = (2e-9 * m * k * n / min(t) for t in times)
    items = dims.evaluate(compiled.plan.launches[0].grid[0], {})
    costs = f"{compiled.emit_ms:8.1f} {compiled.compile_ms:8.1f}"
    print(f"{text:>16} {ours:8.1f} {numpys:8.1f} {ours / numpys:6.2f} {items:6d} {costs}", flush=True)


def main() -> None:
    """Measure the shapes named on the command line, or `SHAPES`."""
    if os.environ.get("OPENBLAS_NUM_THREADS") != "1":  # read when numpy is loaded: start again
        os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
        os.execv(sys.executable, [sys.executable, *sys.argv])
    sys.path.insert(0, str(Path(__file__).parent.parent / "test"))
    print(f"{'shape':>16} {'GFLOP/s':>8} {'numpy':>8} {'ratio':>6} {'items':>6} {'emit ms':>8} {'LLVM ms':>8}")
    for text in sys.argv[1:] or SHAPES:
        measure(text)


if __name__ == "__main__":
    main()
