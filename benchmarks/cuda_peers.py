"""Full-size models against PyTorch: latency of `--cast fp16` engines beside eager fp16, JIT times, decoding of tokens.

    python benchmarks/cuda_peers.py                                       # everything
    python benchmarks/cuda_peers.py --only bert_full --only llama_kv_full --json out.json
    python benchmarks/cuda_peers.py --profile 10                          # also each model's slowest kernels

Engine and PyTorch run in one process, in turns, with the zoo's first inputs in the GPU's memory; a time is the median of calls
that are each waited for. `eager` is the faster of the memory layouts that a user would try; `graph` is the same work captured
in a CUDA graph, for information. `error` compares the fp16 engine with the fp32 engine on the GPU: rms of the difference over
rms. JIT is the making of a session in a fresh process from an empty cache: reading the engine, opening the device, compiling
kernels for any shape, uploading weights; then the kernels for one shape, which lazy specialization compiles in the background.
Models are filled and compiled to engines in the background, at low priority; JIT times with two cores are taken at the end,
when nothing else runs. `--device cpu` checks the program itself.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import decoding
import numpy as np
import torch
from engine_jobs import engine_path
from peer_models import PEERS, EagerModel, captured, eager_models

import ingot
from ingot.runtime.cache import RuntimeCache

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "test" / "zoo"))
import zoo  # noqa: E402

LLAMA = "llama_kv_full"
MODELS = (*PEERS, LLAMA)
CASTS = ("fp32", "fp16")
QUANTIZED = {"ltx_video_full": "fp8", LLAMA: "int4"}  # models whose large products are also quantized
MOST_JIT_S, LEAST_RATIO, MOST_GRAPHS = 10.0, 1.0, 10  # what is asked for
ERROR = zoo.TOLERANCE["fp16"]
SECONDS, ROUNDS = 1.5, 5  # of timing each function, in so many turns

Row = dict[str, Any]


class Job:
    """A run of `engine_jobs.py` in the background. Its standard error is ours."""

    def __init__(self, *arguments: Any) -> None:
        self.command = [sys.executable, str(HERE / "engine_jobs.py"), *map(str, arguments)]
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)

    def result(self) -> dict[str, Any]:
        """What it printed. Raises RuntimeError where it failed."""
        out, _ = self.process.communicate()
        if self.process.returncode:
            raise RuntimeError(f"{' '.join(self.command)} ended with {self.process.returncode}")
        return json.loads(out.splitlines()[-1])


# Timing ------------------------------------------------------------------------------------------------------------------


def synchronize() -> None:
    """Wait for all work that PyTorch has queued."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def medians(functions: Mapping[str, Callable[[], Any]], seconds: float = SECONDS) -> dict[str, float]:
    """Median ms of a call of each function, the functions taking turns of many calls; every call is waited for."""
    calls = {}
    for name, function in functions.items():
        for _ in range(3):
            function()
        synchronize()
        begin = time.perf_counter()
        function()
        synchronize()
        once = time.perf_counter() - begin
        calls[name] = min(max(int(seconds / ROUNDS / max(once, 1e-6)), 3), 300)
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(ROUNDS):
        for name, function in functions.items():
            for _ in range(calls[name]):
                begin = time.perf_counter()
                function()
                synchronize()
                times[name].append((time.perf_counter() - begin) * 1e3)
    return {name: float(np.median(t)) for name, t in times.items()}


def queued(function: Callable[[], Any], seconds: float = SECONDS / 2) -> float:
    """Mean ms of a call where calls are queued without waiting for each."""
    begin = time.perf_counter()
    function()
    synchronize()
    calls = min(max(int(seconds / max(time.perf_counter() - begin, 1e-6)), 3), 300)
    begin = time.perf_counter()
    for _ in range(calls):
        function()
    synchronize()
    return (time.perf_counter() - begin) / calls * 1e3


def with_graphs(models: Sequence[EagerModel]) -> dict[str, Callable[[], Any]]:
    """The models' calls as CUDA graphs, by layout; those that cannot be captured are left out, with a message."""
    found: dict[str, Callable[[], Any]] = {}
    for model in models:
        try:
            found[f"graph {model.layout}".strip()] = captured(model.run)
        except Exception as error:
            first = str(error).splitlines()[0] if str(error) else ""
            print(f"    eager {model.layout} is not captured: {type(error).__name__}: {first}", flush=True)
            synchronize()
    return found


# Rows --------------------------------------------------------------------------------------------------------------------


def measure(name: str, folder: Path, options: argparse.Namespace, cache: Path) -> Row:
    """The row of one model against its peer."""
    row, sessions = load_sessions(name, folder, options, cache)
    session = sessions["fp16"]
    device, dtype = torch_device(options)
    feeds = zoo.input_sets(folder)[0][0]
    row["error"] = compare(sessions, feeds)
    sessions.pop("fp32").close()
    resident = {n: torch.from_numpy(a).to(device) for n, a in feeds.items()} if device.type == "cuda" else feeds
    functions: dict[str, Callable[[], Any]] = {"ingot": lambda: session.run(None, resident)}
    if "fp8" in sessions:
        functions["fp8"] = lambda: sessions["fp8"].run(None, resident)
    models: list[EagerModel] = []
    try:
        models = eager_models(name, feeds, device, dtype)
    except ImportError as error:
        print(f"    no peer: {error}", flush=True)
    functions |= {f"eager {m.layout}".strip(): m.run for m in models}
    times = medians(functions, options.seconds)
    if device.type == "cuda":
        graphs = with_graphs(models)
        functions |= graphs
        times |= medians(graphs, options.seconds)
    row |= {"ingot_ms": times["ingot"], "times": times, "library": PEERS[name].library}
    for kind in ("eager", "graph"):
        best = min((n for n in times if n.startswith(kind)), key=times.__getitem__, default=None)
        if best is not None:
            row |= {f"{kind}_ms": times[best], f"{kind}_layout": best.partition(" ")[2]}
            row[f"{kind}_queued_ms"] = queued(functions[best], options.seconds / 2)
    if "fp8" in times:
        row |= {"fp8_ms": times["fp8"], "fp8_ratio": times["ingot"] / times["fp8"]}
    if models:
        row["ratio"] = row["eager_ms"] / row["ingot_ms"]
        row["parameters"] = models[0].parameters, zoo.read(name).meta["params"]
    row |= {"graphs": session.stats().get("graphs", 0), "copied_inputs": session.stats()["copied_inputs"]}
    try:
        profile = session.profile(feeds)
    except ingot.Error as error:
        print(f"    no profile: {error}", flush=True)
    else:
        row |= {"kernels_ms": sum(r["ms"] * r["runs"] for r in profile), "launches": sum(r["runs"] for r in profile)}
        print_profile(profile, options.profile)
    for opened in sessions.values():
        opened.close()
    return row


def load_sessions(name: str, folder: Path, options: argparse.Namespace, cache: Path) -> tuple[Row, dict[str, ingot.Session]]:
    """JIT of the fp16 engine in a process of its own, then sessions of both engines here.

    The fp16 engine specializes as `--specialize` says; the fp32 engine of the comparison runs on kernels for any shape.
    """
    row: Row = {"model": name, "folder": str(folder)}
    sessions = {}
    if engine_path(folder, "fp16").exists():
        row["jit"] = Job("load", engine_path(folder, "fp16"), "--device", options.device, "--cache", cache).result()
    store = RuntimeCache(cache)
    for cast in (*CASTS, "fp8", "int4"):
        path = engine_path(folder, cast)
        if path.exists():
            mode = options.specialize if cast != "fp32" or name == LLAMA else "none"
            sessions[cast] = ingot.Session(
                path, options.device, cache=store, specialize=mode, fast_accumulation=options.fast_accumulation
            )
            row[f"{cast}_load"] = sessions[cast].load_report()
    return row, sessions


def compare(sessions: Mapping[str, ingot.Session], feeds: Mapping[str, np.ndarray]) -> float:
    """The worst relative error of an output of the fp16 engine against the fp32 engine."""
    wide, narrow = ([np.asarray(r) for r in sessions[cast].run(None, feeds)] for cast in CASTS)
    return max(zoo.relative_error(n.astype(np.float64), w.astype(np.float64)) for n, w in zip(narrow, wide, strict=True))


def measure_llama(name: str, folder: Path, options: argparse.Namespace, cache: Path) -> Row:
    """The row of decoding."""
    row, sessions = load_sessions(name, folder, options, cache)
    device, dtype = torch_device(options)
    if set(CASTS) <= set(sessions):
        row["error"] = compare(sessions, zoo.input_sets(folder)[0][0])
    vocabulary = next(o.shape[-1] for o in next(iter(sessions.values())).get_outputs() if o.name == "logits")
    first = decoding.prompt(int(vocabulary))
    for cast, session in sessions.items():
        decoded, facts = decoding.decode_with_session(session, first, options.tokens)
        row[f"ingot_{cast}"] = {"tokens_per_s": decoded.tokens_per_second, "ms": decoded.ms, **facts}
        if options.profile:
            print_profile(session.profile(zoo.input_sets(folder)[1][0]), options.profile)
        session.close()
    try:
        model = decoding.llama(device, dtype)
    except ImportError as error:
        print(f"    no peer: {error}", flush=True)
        return row
    row["parameters"] = sum(p.numel() for p in model.parameters()), zoo.read(name).meta["params"]
    peers: dict[str, Callable[[], decoding.Decoded]] = {
        "eager_dynamic": lambda: decoding.decode_dynamic(model, first, device, options.tokens),
        "eager_static": lambda: decoding.decode_static(model, first, device, options.tokens),
    }
    if device.type == "cuda":
        peers["graph_static"] = lambda: decoding.decode_static(model, first, device, options.tokens, graph=True)
    for kind, run in peers.items():
        try:
            decoded = run()
        except Exception as error:
            print(f"    {kind}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", flush=True)
            synchronize()
            continue
        row[kind] = {"tokens_per_s": decoded.tokens_per_second, "ms": decoded.ms}
    return row


def torch_device(options: argparse.Namespace) -> tuple[torch.device, torch.dtype]:
    """Where and in which type PyTorch computes: fp16 on a GPU."""
    device = torch.device(options.device)
    return device, torch.float16 if device.type == "cuda" else torch.float32


def print_profile(profile: Sequence[Mapping[str, Any]], count: int) -> None:
    """The slowest kernels, with their rates."""
    for r in sorted(profile, key=lambda r: -r["ms"])[:count]:
        ms = max(r["ms"], 1e-9)
        rates = f"{r['flops'] / ms / 1e9:8.1f} TFLOP/s {r['bytes'] / ms / 1e6:8.1f} GB/s"
        print(f"    {r['ms']:8.4f} ms {rates}  {r['kernel']} {r['node'][:100]}", flush=True)


def jit_with_two_cores(rows: Sequence[Row], options: argparse.Namespace) -> None:
    """Add `jit_2_cores` to the rows: as many at a time as there are pairs of cores."""
    cores = sorted(os.sched_getaffinity(0))
    pairs = [cores[i : i + 2] for i in range(0, len(cores) - 1, 2)] or [cores]
    waiting = [r for r in rows if "jit" in r]
    while waiting:
        batch, waiting = waiting[: len(pairs)], waiting[len(pairs) :]
        jobs = [
            Job("load", engine_path(Path(r["folder"]), "fp16"), "--device", options.device, "--cores", ",".join(map(str, pair)))
            for r, pair in zip(batch, pairs, strict=False)
        ]
        for r, job in zip(batch, jobs, strict=True):
            try:
                r["jit_2_cores"] = job.result()
            except RuntimeError as error:
                print(f"FAIL  {r['model']}: {error}", flush=True)


# Report ------------------------------------------------------------------------------------------------------------------


def number(value: Any, digits: int) -> str:
    """Text of a number that may be missing."""
    return "-" if value is None else f"{value:.{digits}f}"


def shares(seconds: Mapping[str, float]) -> str:
    """`draft 4 %, kernel-ir 31 %, ...`"""
    total = sum(seconds.values()) or 1.0
    return ", ".join(f"{name} {value / total:.0%}" for name, value in seconds.items())


def jit_seconds(jit: Mapping[str, Any]) -> float:
    """Seconds of JIT until calls run at their final speed."""
    return jit["jit_s"] + (jit["specialize_s"] or 0.0)


def problems(row: Row) -> list[str]:
    """What of the row is not as it is asked for."""
    found = []
    if "ratio" in row and row["ratio"] < LEAST_RATIO:
        found.append(f"{row['ratio']:.2f} of eager")
    if "jit" in row and row["model"] != LLAMA:
        if row["jit"]["specialize_s"] is None:
            found.append("no specialized program")
        elif jit_seconds(row["jit"]) > MOST_JIT_S:
            found.append(f"JIT {row['jit']['jit_s']:.1f} s for any shape and {row['jit']['specialize_s']:.1f} s for one")
    if not row.get("error", 0.0) <= ERROR:
        found.append(f"error {row['error']:.1e}")
    for cast in CASTS:
        facts = row.get(f"ingot_{cast}")
        if facts and (facts["graphs"] > MOST_GRAPHS or facts["compiled_late"] or facts["state_copies"]):
            found.append(f"{cast}: {facts['graphs']} graphs, {facts['compiled_late']} late kernels, "
                         f"{facts['state_copies']} copies of states")  # fmt: skip
        if facts and not facts["same"]:
            found.append(f"{cast}: the second sequence has other tokens")
    return found


def summary(row: Row) -> str:
    """One line for a person who watches."""
    text = f"{'BELOW' if problems(row) else 'ok   '} {row['model']:16s}"
    if "ingot_ms" in row:
        text += f" Ingot {row['ingot_ms']:.3f} ms (kernels {number(row.get('kernels_ms'), 3)}), "
        text += f"eager {number(row.get('eager_ms'), 3)}, ratio {number(row.get('ratio'), 2)}, "
        text += f"eager+graph {number(row.get('graph_ms'), 3)}, "
        if "fp8_ms" in row:
            text += f"with fp8 products {row['fp8_ms']:.3f} ms, {row['fp8_ratio']:.2f} times as fast, "
    for cast in (*CASTS, "int4"):
        if f"ingot_{cast}" in row:
            text += f" {cast} {row[f'ingot_{cast}']['tokens_per_s']:.0f} tokens/s,"
    if "jit" in row:
        text += f" JIT {row['jit']['jit_s']:.2f} s of {row['jit']['compiled']} kernels, "
        text += f"specialized in {number(row['jit']['specialize_s'], 2)} s ({row['jit']['specialized']} kernels)"
    if "error" in row:
        text += f", error {row['error']:.1e}"
    return text + "".join(f"; {p}" for p in problems(row))


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *lines])


LATENCY = (
    "model", "Ingot fp16, ms", "eager fp16, ms", "ratio", "eager + CUDA graph, ms", "Ingot's kernels, ms", "launches",
    "error against fp32",
)  # fmt: skip
JIT = (
    "model", "kernels", "JIT, s", "first call, s", "specialized kernels", "specialized, s", "with 2 cores, s",
    "from the cache, s", "steps (wall clock)", "stages (in the workers)",
)  # fmt: skip
DECODING = ("decoding", "tokens/s", "ms a token", "graphs", "kernels after token 2", "copies of the cache")
DECODERS = ("ingot_fp16", "ingot_fp32", "eager_dynamic", "eager_static", "graph_static")


def latency_cells(row: Row) -> list[str]:
    """The line of a model in the first table."""
    eager = f"{number(row.get('eager_ms'), 3)} ({', '.join(filter(None, [row['library'], row.get('eager_layout')]))})"
    times = [number(row.get(key), 3) for key in ("graph_ms", "kernels_ms")]
    ratio, launches = number(row.get("ratio"), 2), str(row.get("launches", "-"))
    return [row["model"], number(row["ingot_ms"], 3), eager, ratio, *times, launches, f"{row['error']:.1e}"]


def jit_cells(row: Row) -> list[str]:
    """The line of a model in the second table."""
    jit = row["jit"]
    two = row.get("jit_2_cores")
    two_cores = f"{number(two['jit_s'], 2)} + {number(two['specialize_s'], 2)}" if two else "-"
    return [
        row["model"], str(jit["compiled"]), number(jit["jit_s"], 2), number(jit["first_call_s"], 2), str(jit["specialized"]),
        number(jit["specialize_s"], 2), two_cores, f"{number(jit['cached']['seconds'], 2)} ({shares(jit['cached']['steps'])})",
        shares(jit["steps"]), shares(jit["stages"]),
    ]  # fmt: skip


def decoding_cells(row: Row, kind: str) -> list[str]:
    """The line of one way of decoding."""
    facts = row[kind]
    counts = [str(facts.get(key, "-")) for key in ("graphs", "compiled_late", "state_copies")]
    return [kind.replace("_", ", "), number(facts["tokens_per_s"], 1), number(facts["ms"], 3), *counts]


def markdown(rows: Sequence[Row]) -> str:
    """The tables of docs/measurements.md."""
    tables = {
        LATENCY: [latency_cells(r) for r in rows if "ingot_ms" in r],
        JIT: [jit_cells(r) for r in rows if "jit" in r],
        DECODING: [decoding_cells(r, kind) for r in rows for kind in DECODERS if kind in r],
    }
    return "\n\n".join(table(head, lines) for head, lines in tables.items() if lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=MODELS, help="a model; may be repeated")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()) / "ingot-zoo", help="filled models stay here"
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of timing each implementation of a model")
    parser.add_argument("--tokens", type=int, default=decoding.TOKENS, help="to decode")
    parser.add_argument("--specialize", choices=["eager", "lazy", "none"], default="eager", help="as of ingot.Session")
    parser.add_argument("--fast-accumulation", action="store_true", help="as of ingot.Session: of the fp8 engines")
    parser.add_argument("--profile", type=int, default=0, metavar="N", help="print the N slowest kernels of each model")
    parser.add_argument("--keep-engines", action="store_true", help="use the engines that an earlier run left")
    parser.add_argument("--no-two-cores", action="store_true", help="leave out the JIT with two cores")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    names = [n for n in MODELS if not options.only or n in options.only]
    print(f"{torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU'}, PyTorch {torch.__version__}, "
          f"{len(os.sched_getaffinity(0))} cores")  # fmt: skip
    casts = [word for cast in reversed(CASTS) for word in ("--cast", cast)]
    preparing = {}
    if not options.keep_engines:
        more = {n: ("--cast", cast) for n, cast in QUANTIZED.items()}
        preparing = {n: Job("prepare", n, "--folder", options.folder, "--nice", 10, *casts, *more.get(n, ())) for n in names}
    rows: list[Row] = []
    failed = 0
    with tempfile.TemporaryDirectory() as directory:
        for name in names:
            try:
                begin = time.perf_counter()
                aot = preparing[name].result() if name in preparing else {"folder": str(options.folder / name)}
                for cast, error in aot.get("errors", {}).items():
                    print(f"FAIL  {name} in {cast}: {error[:700]}", flush=True)
                waited = time.perf_counter() - begin
                run = measure_llama if name == LLAMA else measure
                row = run(name, Path(aot["folder"]), options, Path(directory) / f"{name}.sqlite")
                row |= {"aot": aot, "waited_s": waited, "took_s": time.perf_counter() - begin - waited}
            except Exception as error:
                failed += 1
                print(f"FAIL  {name}: {type(error).__name__}: {str(error)[:700]}", flush=True)
                if not isinstance(error, ingot.Error):
                    traceback.print_exc()
                continue
            rows.append(row)
            print(summary(row), flush=True)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
    if not options.no_two_cores:
        jit_with_two_cores(rows, options)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    print("\n" + markdown(rows))
    missed = [(r["model"], p) for r in rows for p in problems(r)]
    for model, problem in missed:
        print(f"BELOW {model}: {problem}")
    return 1 if failed or missed else 0


if __name__ == "__main__":
    sys.exit(main())
