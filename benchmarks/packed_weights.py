"""Instructions of products with quantized weights by mma.sync, packed (ingot.weight_packing) and as a model has them.

    python benchmarks/packed_weights.py [--target sm_86] [--rows 1 --rows 4096] [--weights i4] [--block 32]

For GPUs that are not here: counts of the innermost loop, each for one instruction of the tensor cores, in PTX and in machine
code, and of its reads of weights and their scales; registers of a thread, bytes that spill, cycles that bank conflicts of a
small product cost on the emulator. Weights lie [N, K], scales [N, blocks] (`--columns`: [blocks, N]).
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent / "test")]

import cuda_dispatches as make  # noqa: E402
from cubin_loops import innermost_opcodes  # noqa: E402
from cuda_emulation import run_emulated  # noqa: E402
from ptx_loops import innermost_loops  # noqa: E402

from ingot.compiler.codegen.family import emit  # noqa: E402
from ingot.compiler.toolchain.cubin_resources import resources  # noqa: E402
from ingot.compiler.toolchain.stages import compile_kernels  # noqa: E402
from ingot.cuda_targets import BY_NAME  # noqa: E402
from ingot.dialects.mlir import kernel_context  # noqa: E402
from ingot.dispatch import Dispatch  # noqa: E402

_MMA = r"\bmma\.sync"
_INSTRUCTION = re.compile(r"^(@!?%\w+\s+)?[a-z]\w*[.\s]")
_COLUMNS = ("PTX", "machine code", "ld.shared", "ld.global", "prmt", "shared bytes", "registers", "local bytes", "conflicts")


def counts(d: Dispatch, target: str, smaller: Dispatch) -> list[str]:
    """The columns of a row; bank conflicts of the same product with other sizes."""
    row = BY_NAME[target]
    with kernel_context():
        emitted = emit(d, row)
        text = compile_kernels(emitted.module, target, stop="ptx")
    launch = emitted.plan.launches[0]
    cubin = compile_kernels(text, target, start="ptx")
    (loop,) = innermost_loops(text, launch.symbol, _MMA)
    loop = [line for line in loop if _INSTRUCTION.match(line)]

    def of(pattern: str) -> int:
        return sum(bool(re.search(pattern, line)) for line in loop)

    mma = of(_MMA)
    widths = {"u8": 1, "s8": 1, "b8": 1, "u16": 2, "b16": 2, "b32": 4, "u32": 4, "f32": 4, "b64": 8}
    shared = 0
    for line in loop:
        if found := re.search(r"\bld\.shared(?:\.v(\d))?\.(\w+)", line):
            shared += int(found[1] or 1) * widths[found[2]]
    facts = resources(cubin)[launch.symbol]
    machine = innermost_opcodes(cubin, launch.symbol, row.sm)
    conflicts = run_emulated(smaller, target, count_conflicts=True).bank_conflicts
    each = [len(loop), len(machine), of(r"\bld\.shared"), of(r"\bld\.global"), of(r"\bprmt"), shared]
    return [*(f"{x / mma:.2f}" for x in each), str(facts.registers), str(facts.local_bytes), str(conflicts)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", action="append", default=[], choices=BY_NAME)
    parser.add_argument("--rows", action="append", default=[], type=int)
    parser.add_argument("--weights", action="append", default=[], choices=("i4", "i8", "f8E4M3FN", "f8E5M2", "f4E2M1FN"))
    parser.add_argument("--block", action="append", default=[], type=int)
    parser.add_argument("--scale", default="f16", choices=("f16", "f32", "f8E4M3FN", "f8E8M0FNU"))
    parser.add_argument("--zero", action="store_true", help="integers have zero points")
    parser.add_argument("--columns", action="store_true", help="scales of neighbouring columns are neighbours")
    options = parser.parse_args()
    print(f"| target | rows | weights | block | | {' | '.join(_COLUMNS)} |")
    print("| --- " * (5 + len(_COLUMNS)) + "|")
    for target in options.target or ["sm_80"]:
        for rows in options.rows or [1, 64, 4096]:
            for weights in options.weights or ["i4", "i8", "f8E4M3FN"]:
                for block in options.block or [128]:
                    for name in ("[N, K]", "packed") if block % 32 == 0 else ("[N, K]",):
                        sizes = ((rows, 8192, 12288), (min(rows, 128), 64, 512))
                        found = [product(*size, weights, block, options, name == "packed") for size in sizes]
                        values = " | ".join(counts(found[0], target, found[1]))
                        print(f"| {target} | {rows} | {weights} | {block} | {name} | {values} |", flush=True)


def product(m: int, n: int, k: int, weights: str, block: int, options: argparse.Namespace, packs: bool) -> Dispatch:
    """A product with weights [N, K]."""
    zero = options.zero and weights[0] == "i"
    d = make.quantized_matmul(m, n, k, "f16", weights, scale=options.scale, block=block, zero=zero, out="f16")
    if options.columns:
        d = make.scales_by_columns(d)
    return make.packed(d) if packs else d


if __name__ == "__main__":
    main()
