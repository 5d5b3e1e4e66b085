"""The first result from a warm runtime cache, in a fresh process, against reading the engine's bytes once.

    python benchmarks/first_result.py MODEL.onnx [--device cpu] [-d NAME=SIZE ...]

Compiles the model and fills a cache of its own, then measures in new processes, alternating: seconds from before `import ingot`
to the first result, and seconds of a plain read of the engine file. Prints the medians and what was imported.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

_RUN = """
import json, sys, time
start = time.perf_counter()
import numpy as np
import ingot
from ingot.tools.commands.feeds import random_feeds
imported = time.perf_counter()
session = ingot.Session(sys.argv[1], device=sys.argv[2])
ready = time.perf_counter()
feeds = random_feeds(session, json.loads(sys.argv[3]))
begin = time.perf_counter()
session.run(None, feeds)
first = time.perf_counter()
session.run(None, feeds)
second = time.perf_counter()
heavy = [m for m in ("torch_mlir", "llvmlite", "onnx") if m in sys.modules]
print(json.dumps({"import": imported - start, "session": ready - imported, "first call": first - begin,
                  "first result": ready - start + first - begin, "second call": second - first, "heavy": heavy}))
"""
_READ = """
import sys, time
start = time.perf_counter()
with open(sys.argv[1], "rb", buffering=0) as f:
    buffer = bytearray(1 << 24)
    while f.readinto(buffer):
        pass
print(time.perf_counter() - start)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("-d", "--dim", action="append", default=[], metavar="NAME=SIZE")
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    import ingot

    dims = {name: int(size) for name, size in (d.split("=") for d in args.dim)}
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "INGOT_CACHE_DIR": str(Path(folder) / "cache")}
        engine = str(Path(folder) / "model.ingot")
        ingot.compile(args.model).save(engine)

        def process(script: str, *arguments: str) -> str:
            command = [sys.executable, "-c", script, engine, *arguments]
            return subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True).stdout

        process(_RUN, args.device, json.dumps(dims))
        runs, reads = [], []
        for _ in range(args.runs):
            runs.append(json.loads(process(_RUN, args.device, json.dumps(dims))))
            reads.append(float(process(_READ)))
        for key in ("import", "session", "first call", "first result", "second call"):
            print(f"{key:20s} {statistics.median(r[key] for r in runs):8.3f} s")
        print(f"{'reading the engine':20s} {statistics.median(reads):8.3f} s  ({Path(engine).stat().st_size / 1e6:.1f} MB)")
        print(f"imported of MLIR, LLVM, onnx: {', '.join(runs[-1]['heavy']) or 'none'}")


if __name__ == "__main__":
    main()
