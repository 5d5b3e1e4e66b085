"""Models of the zoo on a GPU: results against their references, JIT times, latencies, graphs.

    python benchmarks/cuda_models.py bert resnet50                # check every input set, one engine a model
    python benchmarks/cuda_models.py bert_full --cast fp16        # full-size models too; --no-check skips references
    python benchmarks/cuda_models.py --json out.json bert

Each model is compiled from an empty runtime cache in a directory of its own. Latencies are medians of whole calls with numpy
inputs; `kernels` is the sum of the kernels' own times, by events.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "test" / "zoo"))
import zoo  # noqa: E402

import ingot  # noqa: E402
from ingot.runtime.cache import RuntimeCache  # noqa: E402


def run_model(name: str, options: argparse.Namespace, folder: Path, cache: RuntimeCache) -> dict[str, Any]:
    """Compile and run one model; the row of the report."""
    filled = zoo.fill(name, folder, with_reference=not options.no_check)
    begin = time.perf_counter()
    engine = ingot.compile(filled / "model.onnx", cast=options.cast)
    path = filled / f"model-{options.cast}.ingot"
    engine.save(path)
    row: dict[str, Any] = {"model": name, "cast": options.cast, "aot_s": time.perf_counter() - begin}
    begin = time.perf_counter()
    session = ingot.Session(path, device=options.device, cache=cache, specialize=options.specialize)
    row["jit_s"] = time.perf_counter() - begin
    row["load"] = session.load_report()
    row["kernels"] = session.stats()["compiled_kernels"]
    dtype = {"fp16": "fp16", "bf16": "bf16"}.get(options.cast, zoo.read(name).meta["dtype"])
    worst, sets = 0.0, zoo.input_sets(filled)
    names = [o.name for o in session.get_outputs()]
    row["ms"], row["first_s"] = [], []
    for feeds, reference in sets[: options.sets]:
        begin = time.perf_counter()
        results = dict(zip(names, session.run(None, feeds), strict=True))
        row["first_s"].append(time.perf_counter() - begin)
        for output, expected in reference.items():
            worst = max(worst, zoo.relative_error(np.asarray(results[output], np.float64), expected))
        times = []
        for _ in range(options.runs):
            start = time.perf_counter()
            session.run(None, feeds)
            times.append((time.perf_counter() - start) * 1e3)
        row["ms"].append(float(np.median(times)))
    row["error"], row["tolerance"] = worst, zoo.TOLERANCE.get(dtype) or zoo.tolerance(name)
    if options.profile:
        rows = session.profile(sets[0][0])
        row["kernel_ms"] = sum(r["ms"] * r["runs"] for r in rows)
        for r in sorted(rows, key=lambda r: -r["ms"])[: options.profile]:
            rate = f"{r['flops'] / max(r['ms'], 1e-9) / 1e9:8.1f} TFLOP/s {r['bytes'] / max(r['ms'], 1e-9) / 1e6:8.1f} GB/s"
            print(f"    {r['ms']:8.4f} ms {rate}  {r['kernel']} {r['node']}")
    session.close()
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--cast", choices=["fp16", "bf16"])
    parser.add_argument("--specialize", choices=["lazy", "eager", "none"], default="eager")
    parser.add_argument("--no-check", action="store_true", help="make no references (full-size models)")
    parser.add_argument("--sets", type=int, default=100, help="input sets of each model")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--profile", type=int, default=0, metavar="N", help="print the N slowest kernels")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "ingot-zoo")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows, failed = [], 0
    for name in options.models:
        with tempfile.TemporaryDirectory() as directory:
            try:
                row = run_model(name, options, options.folder, RuntimeCache(Path(directory) / "cache.sqlite"))
            except Exception as error:
                failed += 1
                print(f"FAIL  {name}: {type(error).__name__}: {str(error)[:700]}", flush=True)
                if not isinstance(error, ingot.Error):
                    traceback.print_exc()
                continue
        rows.append(row)
        verdict = "ok  " if row["error"] <= row["tolerance"] else "OFF "
        failed += verdict == "OFF "
        times = " ".join(f"{t:.2f}" for t in row["ms"])
        first = " ".join(f"{t:.2f}" for t in row["first_s"])
        more = f", kernels alone {row['kernel_ms']:.2f} ms" if "kernel_ms" in row else ""
        print(f"{verdict}  {name}: error {row['error']:.1e} (at most {row['tolerance']:.0e}), AOT {row['aot_s']:.2f} s, JIT "
              f"{row['jit_s']:.2f} s of {row['kernels']} kernels, first calls {first} s, then {times} ms{more}",
              flush=True)  # fmt: skip
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
