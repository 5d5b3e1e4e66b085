"""Processor seconds of a model's kernels by root and stage, for a GPU that need not be here.

    python benchmarks/jit_stages.py MODEL.onnx -d N=2 -d H=96 -d W=96 [--cast fp16] [--target sm_90a]
    python benchmarks/jit_stages.py MODEL.onnx --workers 16 --workers 2 [--cast fp16] [--target sm_90a]

Three sets of kernels, each compiled in this process alone: those for any shape, those that a session begins with
(`ingot-share-kernels`), and, where sizes are given, those of them. Below each set stand its slowest kernels, for which a
session waits however many cores there are. `--set shared` leaves out the others. MODEL may also be a name of the zoo
(`bert_full`), whose weights are holes in a file then. Or, with `--workers`, what a session begins with, from an empty cache by
a compile server with so many workers: its processor seconds and theirs. Sources must have been compiled to bytecode before
(`python -m compileall`, and no `PYTHONDONTWRITEBYTECODE`), or each process compiles those that it imports.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "test" / "zoo"))

import zoo

from ingot.compiler.compile_kernel import compile_stages
from ingot.compiler.driver import compile_model
from ingot.compiler.jit import draft_program
from ingot.compiler.toolchain.stages import Timings
from ingot.cuda_targets import BY_NAME
from ingot.dispatch import Dispatch, from_json
from ingot.engine import Engine
from ingot.program_linking import specialize
from ingot.runtime.cache import RuntimeCache
from ingot.runtime.compile_client import CompileClient
from ingot.runtime.load_report import LoadReport
from ingot.runtime.program_loader import ProgramLoader
from ingot.runtime.specialization import machine_passes
from ingot.target import Target

SLOWEST = 5  # kernels of a set that are named
SETS = ("any", "shared", "own")
STAGES = ("kernel-ir", "llvm-dialect", "llvm-ir", "ptx", "cubin")


def measure(name: str, dispatches: Sequence[Dispatch], target: Target) -> None:
    """Compile the dispatches one after the other and print a line for each root."""
    seconds: dict[str, Timings] = defaultdict(Timings)
    counts: dict[str, int] = defaultdict(int)
    sizes: dict[str, int] = defaultdict(int)
    each = []
    for d in dispatches:
        timings = Timings()
        _, code = compile_stages(d, target, timings=timings)
        for stage, spent in timings.seconds.items():
            seconds[d.root].add(stage, spent)
        counts[d.root] += 1
        sizes[d.root] += len(code)
        each.append((d, timings, len(code)))
    total = sum(sum(t.seconds.values()) for t in seconds.values())
    print(f"{name}: {len(dispatches)} kernels, {total:.1f} s")
    for root, timings in sorted(seconds.items()):
        spent = sum(timings.seconds.values())
        print(f"  {root:10s} {counts[root]:3d} kernels {spent:6.2f} s {sizes[root]:8d} B  {_stages(timings)}", flush=True)
    for d, timings, size in sorted(each, key=lambda x: sum(x[1].seconds.values()), reverse=True)[:SLOWEST]:
        spent = sum(timings.seconds.values())
        operands = " ".join(f"{t.dtype}[{','.join(map(str, t.shape))}]" for t in d.operands)[:80]
        print(f"    {d.root:9s} {spent:6.2f} s {size:8d} B  {_stages(timings)}  {operands}", flush=True)


def _stages(timings: Timings) -> str:
    return " ".join(f"{stage} {timings.seconds.get(stage, 0):6.2f}" for stage in STAGES)


def serve(engine: Engine, target: Target, workers: int) -> None:
    """Load an engine's program from an empty cache and print the processor seconds of the compile server and its workers."""

    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before, report = spent(), LoadReport()
    with tempfile.TemporaryDirectory() as directory:
        cache, client = RuntimeCache(Path(directory) / "cache.sqlite"), CompileClient(workers=workers)
        loader = ProgramLoader(cache, client, passes=machine_passes(target))
        loader.load(engine, target, report)
        client.close()
        cache.close()
    print(f"{workers} workers: {report.compiled} kernels, {spent() - before:.1f} s", flush=True)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("-d", "--dim", action="append", default=[], metavar="NAME=SIZE", help="a size of the inputs")
    parser.add_argument("--cast", choices=["fp16", "bf16"])
    parser.add_argument("--target", default="sm_90a", choices=BY_NAME)
    parser.add_argument("--set", choices=SETS, action="append", help="of kernels; all by default")
    parser.add_argument("--workers", action="append", type=int, default=[], help="measure a compile server of so many workers")
    options = parser.parse_args()
    target = BY_NAME[options.target]
    sizes = {name: int(size) for name, _, size in (d.partition("=") for d in options.dim)}
    with tempfile.TemporaryDirectory() as folder:
        named = not Path(options.model).exists()
        model = zoo.outline(options.model, Path(folder)) / "model.onnx" if named else Path(options.model)
        engine = compile_model(model, cast=options.cast)
    for workers in options.workers:
        serve(engine, target, workers)
    if options.workers:
        return
    ir = engine.ir
    time.perf_counter = time.process_time  # other work on the machine does not count
    begin = time.process_time()
    draft = draft_program(ir, target, verify=False)
    print(f"draft of {len(draft.program.steps)} steps: {time.process_time() - begin:.2f} s")
    sets = options.set or SETS
    if "any" in sets:
        measure("any shape", draft.dispatches, target)
    if "shared" in sets:
        measure("shared", draft_program(ir, target, passes=machine_passes(target)).dispatches, target)
    if "own" in sets and sizes:
        own = [from_json(json.loads(k.dispatch)) for k in specialize(draft.program, sizes).kernels]
        measure("of these sizes", own, target)


if __name__ == "__main__":
    main()
