"""All kernels of models of the zoo compiled for GPUs that need not be here, and what each asks of its GPU.

    python benchmarks/cross_compile.py resnet50_full:fp16 bert.mo_int8 [--target sm_86 ...] [--json FILE]
    python benchmarks/cross_compile.py                                  # MODELS, every target

Kernels are those that a session begins with, which serve any shape, and those of the first shape (and of the second, where a
model keeps states: a token). Dispatches that are equal are compiled once for a target. For each target a line: kernels,
processor seconds, the most registers of a thread and bytes of shared memory of a block, how many kernels spill, how many
have which tensor-core instruction. Below it, what should not be: kernels that fail to compile, that no SM of the target can
hold, that spill, and products without a tensor core although the target's table has a row for them.

Weights of full-size models are holes in a file: kernels depend on types and sizes alone. A name may be followed by the type to
cast to (`:fp16`, `:bf16`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "test" / "zoo"))

import onnx  # noqa: E402
import zoo  # noqa: E402

from ingot.compiler.codegen.mma_table import rows_for  # noqa: E402
from ingot.compiler.compile_kernel import compile_stages  # noqa: E402
from ingot.compiler.driver import compile_model  # noqa: E402
from ingot.compiler.jit import draft_program  # noqa: E402
from ingot.compiler.toolchain.cubin_resources import resources  # noqa: E402
from ingot.compiler.toolchain.stages import compile_kernels  # noqa: E402
from ingot.cuda_targets import BY_NAME  # noqa: E402
from ingot.dispatch import Dispatch, from_json  # noqa: E402
from ingot.engine import Engine  # noqa: E402
from ingot.program_linking import specialize  # noqa: E402
from ingot.runtime.shape_binding import ShapeBinder  # noqa: E402
from ingot.runtime.specialization import machine_passes  # noqa: E402
from ingot.target import Target  # noqa: E402

MODELS = (
    "resnet50_full:fp16", "mobilenetv3_large_100:fp16", "bert_full:fp16", "vit_full:bf16", "gpt2", "llama_kv_full:fp16",
    "whisper_encoder:fp16", "vae_decoder:fp16", "ltx_video_full:fp16", "sd21_unet_full:fp16",
    "resnet50.mo_int8", "resnet50.mo_fp8", "vit.mt_mxfp8", "vit.mt_nvfp4", "flux_transformer.mt_nvfp4",
    "sd3_transformer.mt_fp8", "gpt2.mo_int4_rtn", "llama_kv.genai_int4_cuda", "bert.mt_int8_smoothquant",
)  # fmt: skip
PRODUCTS = ("matmul", "conv", "attention")
FEW_ROWS = 8  # of a product up to which weights are streamed once, and a tensor core would wait for them
_TENSOR = re.compile(r"\b(wgmma\.mma_async|mma)\.sync\.aligned\.(\S+)")
_LOCAL = re.compile(r"\.local\s+\.align\s+\d+\s+\.b8\s+\w+\[(\d+)\]")
MAX_GRID = (2**31 - 1, 65535, 65535)


@dataclass
class Kernel:
    """A launch of a dispatch on a target.

    Attributes:
        symbol, threads, shared: name, threads of a block, static and dynamic shared bytes.
        registers, local: of a thread; bytes.
        arrays: bytes of local memory that the kernel's code asks for; the rest is spilled.
        blocks: that an SM holds; 0: none.
        tensor: tensor-core instructions, as PTX names their types.
        grid: blocks along each axis, where they are constants.
    """

    symbol: str
    threads: int
    shared: int
    registers: int
    local: int
    arrays: int
    blocks: int
    tensor: list[str]
    grid: list[int]


@dataclass
class Report:
    """A dispatch on a target: its launches, or why there are none; `digest` is its PTX's."""

    target: str
    dispatch: str
    origin: str
    kernels: list[Kernel] = field(default_factory=list)
    seconds: float = 0.0
    error: str = ""
    digest: str = ""


def engine_of(name: str, folder: Path) -> tuple[Engine, list[dict[str, Any]]]:
    """The engine of `MODEL[:CAST]`, and the model's input sets."""
    model, _, cast = name.partition(":")
    full = model.endswith("_full")
    path = (zoo.outline(model, folder) if full else zoo.fill(model, folder, with_reference=False)) / "model.onnx"
    recipe = zoo.read(model)
    sets = zoo.draw_inputs(recipe, onnx.ModelProto.FromString(recipe.graph))
    return compile_model(path, cast=cast or None), sets


def dispatches_of(engine: Engine, sets: Sequence[dict[str, Any]], target: Target) -> Iterator[tuple[str, Dispatch]]:
    """What a session compiles on `target`, each with a word for what it is for."""
    for number in range(engine.header.stages):
        passes = machine_passes(target)
        if engine.header.stages > 1:
            passes = (f"ingot-select-stage{{number={number}}}", *passes)
        draft = draft_program(engine.ir, target, passes=passes)
        yield from (("any", d) for d in draft.dispatches)
        program = draft.program
        if number:  # sizes of later stages are found by running those before
            continue
        for feeds in sets[: 2 if program.states else 1]:
            arrays = [feeds[spec.name] for spec in program.inputs]
            elements = [int(arrays[v.input].reshape(-1)[v.element]) for v in program.values]
            sizes = ShapeBinder(program).bind(tuple(a.shape for a in arrays), elements=elements)
            own = specialize(program, sizes.env, frozenset(program.live))
            yield from (("own", from_json(json.loads(k.dispatch))) for k in own.kernels)


def examine(dispatch: str, target_name: str, origin: str) -> Report:
    """Compile a dispatch and read what its kernels ask for."""
    target, d = BY_NAME[target_name], from_json(json.loads(dispatch))
    report = Report(target_name, dispatch, origin)
    begin = time.process_time()
    try:
        plan, ptx = compile_stages(d, target, stop="ptx")
        used = resources(compile_kernels(ptx, target_name, start="ptx"))
    except Exception as error:
        report.error = f"{type(error).__name__}: {error}"
        return report
    report.seconds, report.digest = time.process_time() - begin, hashlib.sha256(ptx.encode()).hexdigest()
    texts = dict(zip(re.findall(r"\.entry (\w+)\(", ptx), ptx.split(".entry ")[1:], strict=True))
    for launch in plan.launches:
        r, text = used[launch.symbol], texts[launch.symbol]
        threads = launch.block[0] * launch.block[1] * launch.block[2]
        shared = r.shared_bytes + launch.shared_bytes
        report.kernels.append(Kernel(
            launch.symbol, threads, shared, r.registers, r.local_bytes, sum(map(int, _LOCAL.findall(text))),
            target.resident_blocks(threads, r.registers, shared), sorted({m[1] for m in _TENSOR.findall(text)}),
            [n if isinstance(n, int) else 0 for n in launch.grid],
        ))  # fmt: skip
    return report


def faults(report: Report) -> list[str]:
    """What should not be, of a dispatch on a target."""
    d, target = from_json(json.loads(report.dispatch)), BY_NAME[report.target]
    if report.error:
        return [report.error]
    found = []
    for k in report.kernels:
        if k.blocks == 0:
            asks = f"{k.threads} threads of {k.registers} registers, {k.shared} B shared"
            found.append(f"{k.symbol}: no SM holds a block of {asks}")
        if k.local > k.arrays:
            found.append(f"{k.symbol}: {k.local - k.arrays} B spilled beside {k.registers} registers")
        found += [f"{k.symbol}: a grid of {k.grid}" for n, most in zip(k.grid, MAX_GRID, strict=True) if n > most]
    if d.root in PRODUCTS and not any(k.tensor for k in report.kernels) and (reason := slow_product(d, target)):
        found.append(f"no tensor core: {reason}")
    return found


def slow_product(d: Dispatch, target: Target) -> str:
    """What a product without tensor cores multiplies, where the target has an instruction for its type, or for what it decodes
    to; "" where none fits, or where the product reads its weights once and no instruction would make that faster."""
    a, b = d.operands[:2]
    rows = [r for r in rows_for(target) if r.ptx != "tf32"]
    types = {r.dtype for r in rows}
    if not ({a.dtype, b.dtype} <= types or (a.dtype in types and a.dtype in ("f16", "bf16"))):
        return ""
    if d.root == "conv" and d.attr("groups") != 1:
        return ""
    m = [n for n in d.results[0].shape[:-1]]
    if all(isinstance(n, int) for n in m) and zoo.np.prod(m) <= FEW_ROWS:
        return ""
    return f"{d.root} {a.dtype}{list(map(str, a.shape))} x {b.dtype}{list(map(str, b.shape))}"


def examine_all(tasks: Sequence[tuple[str, str, str]], workers: int) -> Iterator[Report]:
    """Reports of (dispatch, target, origin), in any order; a process that dies is the error of one of them."""
    left = list(tasks)
    while left:
        with ProcessPoolExecutor(workers) as pool:
            running = {pool.submit(examine, *task): task for task in left}
            left = []
            for future in as_completed(running):
                try:
                    yield future.result()
                except BrokenProcessPool:
                    left.append(running[future])
        suspects, left = left[:workers], left[workers:]  # one of those that ran together ended its process
        for task in suspects:
            with ProcessPoolExecutor(1) as pool:
                try:
                    yield pool.submit(examine, *task).result()
                except BrokenProcessPool:
                    yield Report(task[1], task[0], task[2], error="the process died")


def table(reports: Sequence[Report]) -> None:
    """Print a line for each target."""
    print("| target | kernels | failed | s | registers | shared, KB | spill | one block an SM | instructions of products |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    by_target: dict[str, list[Report]] = defaultdict(list)
    for r in reports:
        by_target[r.target].append(r)
    for name in [n for n in BY_NAME if n in by_target]:
        found = by_target[name]
        kernels = [k for r in found for k in r.kernels]
        counts = Counter(t for k in kernels for t in k.tensor)
        tensor = ", ".join(f"{t} {n}" for t, n in sorted(counts.items()))
        spilled = sum(k.local > k.arrays for k in kernels)
        print(
            f"| {name} | {len(kernels)} | {sum(bool(r.error) for r in found)} | {sum(r.seconds for r in found):.0f} "
            f"| {max((k.registers for k in kernels), default=0)} "
            f"| {max((k.shared for k in kernels), default=0) / 1024:.0f} of {BY_NAME[name].shared_bytes // 1024} "
            f"| {spilled} | {sum(k.blocks == 1 for k in kernels)} | {tensor} |"
        )


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--target", dest="targets", action="append", choices=BY_NAME)
    parser.add_argument("--recipes", type=Path, help="a folder of further recipes")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "ingot-zoo", help="for models")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path, help="write all reports there")
    parser.add_argument("--known", type=Path, action="append", default=[], help="reports of --json: compile the others")
    parser.add_argument("--compare", type=Path, help="reports of --json: which kernels have changed since")
    options = parser.parse_args()
    if options.recipes:
        zoo.RECIPES = options.recipes
    targets = [BY_NAME[n] for n in options.targets or BY_NAME]
    reports = [load_report(r) for path in options.known for r in json.loads(path.read_text())]
    known = {(r.dispatch, r.target) for r in reports}
    tasks: dict[tuple[str, str], tuple[str, str, str]] = {}
    for name in options.models:
        begin = time.process_time()
        engine, sets = engine_of(name, options.folder)
        for target in targets:
            for origin, d in dispatches_of(engine, sets, target):
                if (d.text, target.name) not in known:
                    tasks.setdefault((d.text, target.name), (d.text, target.name, f"{name} {origin}"))
        print(f"{name}: {time.process_time() - begin:.1f} s; {len(tasks)} kernels to compile", flush=True)
    try:
        for report in examine_all(list(tasks.values()), options.workers):
            reports.append(report)
            for text in faults(report):
                print(f"{report.target} {report.origin}: {text}", flush=True)
    finally:
        if options.json:
            options.json.write_text(json.dumps([asdict(r) for r in reports]))
        table(reports)
    if options.compare:
        earlier = {(r["target"], r["dispatch"]): r["digest"] for r in json.loads(options.compare.read_text())}
        both = [r for r in reports if (r.target, r.dispatch) in earlier]
        changed = [r for r in both if r.digest != earlier[r.target, r.dispatch]]
        print(f"{len(changed)} of {len(both)} kernels have other PTX than before")
        for r in changed:
            print(f"{r.target} {r.origin}: {from_json(json.loads(r.dispatch)).root} {[k.symbol for k in r.kernels]}")


def load_report(data: dict[str, Any]) -> Report:
    """The report that `dataclasses.asdict` gave."""
    return Report(**{**data, "kernels": [Kernel(**k) for k in data["kernels"]]})


if __name__ == "__main__":
    main()
