"""Kernels whose sums the emulator makes bit by bit as tensor cores do, on the GPU at hand and on the emulator.

    python benchmarks/emulator_against_gpu.py

Products of 8-bit floats on compute capability 9.0, summed by the instruction alone and promoted to f32. Every element of the
f32 results must be equal: what differs is an error of the emulator's model (compiler/emulator/limited_sums.py), or of a kernel.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "test")]

import cuda_dispatches as make  # noqa: E402
from cuda_device import compile_dispatch  # noqa: E402
from cuda_emulation import run_emulated  # noqa: E402
from cuda_kernels import upload  # noqa: E402

from ingot.compiler.codegen.cuda_gemm_cluster import ClusterSchedule  # noqa: E402
from ingot.compiler.codegen.cuda_gemm_decoded_wgmma import DecodedWgmmaSchedule  # noqa: E402
from ingot.compiler.codegen.cuda_gemm_wgmma import WgmmaSchedule  # noqa: E402
from ingot.cuda_targets import target_for  # noqa: E402

SIZE = (72, 80, 1056)
SCHEDULES = (
    (WgmmaSchedule(128, 64, 3), True), (ClusterSchedule(64, 64, 3, 2), True), (DecodedWgmmaSchedule(64, 3), False),
)  # fmt: skip


def main() -> int:
    torch.zeros(1, device="cuda")  # makes the GPU's primary context current, in which modules are loaded
    target = target_for(torch.cuda.get_device_capability())
    if not target.wgmma:
        print(f"{target.name} has no wgmma")
        return 1
    failed = 0
    for dtype in ("f8E4M3FN", "f8E5M2"):
        for schedule, k_major in SCHEDULES:
            for fast in (True, False):
                d = make.matmul(*SIZE, dtype, out="f32", b_transposed=k_major, fast_accumulation=fast)
                emulated = run_emulated(d, target, schedule=schedule)
                operands = make.random_operands(d, {})
                out = torch.full((SIZE[0] * SIZE[1] * 4,), 0xFF, dtype=torch.uint8, device="cuda")
                compile_dispatch(d, target, schedule).bind([upload(o.packed()) for o in operands], [out])()
                torch.cuda.synchronize()
                got = make.result_view(out.cpu().numpy(), d.results[0], {})
                apart = int(np.sum(got != emulated.results[0]))
                failed += apart > 0
                largest = np.abs(got - emulated.results[0]).max() / np.sqrt(np.mean(got.astype(np.float64) ** 2))
                sums = "fast sums" if fast else "promoted sums"
                found = f"{apart} of {got.size} differ, by at most {largest:.1e} of the root mean square"
                print(f"{'FAIL' if apart else 'ok  '}  {dtype} {type(schedule).__name__}, {sums}: {found}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
