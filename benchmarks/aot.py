"""AOT compilation of models: time from ONNX file to engine file, against copying the weights on the same disk, and memory.

    python benchmarks/aot.py MODEL.onnx ...     # for instance build/zoo/{resnet50_full,bert_full}/model.onnx

Each model is compiled in a process of its own. Prints a row each: seconds from the start of `ingot.compile` to the end of
`Engine.save`, seconds of a plain copy of as many bytes (written and flushed to the same folder in the same run), their
difference, and the peak of anonymous memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

_BLOCK = 1 << 24


def copy_seconds(source: Path, folder: Path) -> float:
    """Seconds that a plain copy of a file takes, until it is on the disk."""
    start = time.perf_counter()
    with source.open("rb") as a, (folder / "copy").open("wb") as b:
        while block := a.read(_BLOCK):
            b.write(block)
        b.flush()
        os.fsync(b.fileno())
    (folder / "copy").unlink()
    return time.perf_counter() - start


class PeakMemory:
    """The peak of this process' anonymous memory in bytes (RssAnon of proc(5)), looked at every few milliseconds."""

    def __init__(self) -> None:
        self.peak, self._stop = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    self.peak = max(self.peak, int(line.split()[1]) * 1024)


def measure(model: Path) -> dict[str, float]:
    """Compile and save one model in this process."""
    import ingot

    with tempfile.TemporaryDirectory(dir=model.parent) as folder:
        engine = Path(folder) / "model.ingot"
        with PeakMemory() as memory:
            start = time.perf_counter()
            compiled = ingot.compile(model)
            done = time.perf_counter()
            compiled.save(engine)
            with engine.open("rb") as f:
                os.fsync(f.fileno())
            saved = time.perf_counter()
        copied = copy_seconds(engine, Path(folder))
        return {"compile": done - start, "total": saved - start, "copy": copied, "MB": engine.stat().st_size / 1e6,
                "peak anonymous MB": memory.peak / 1e6}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--one", action="store_true", help="measure one model in this process, and print JSON")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.models[0])))
        return
    print(f"{'model':24s} {'engine MB':>9} {'passes s':>9} {'total s':>8} {'copy s':>7} {'total-copy':>10} {'RssAnon MB':>10}")
    for model in args.models:
        command = [sys.executable, __file__, "--one", str(model)]
        row = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        rest = row["total"] - row["copy"]
        print(f"{model.parent.name:24s} {row['MB']:9.1f} {row['compile']:9.2f} {row['total']:8.2f} {row['copy']:7.2f} "
              f"{rest:10.2f} {row['peak anonymous MB']:10.0f}")  # fmt: skip


if __name__ == "__main__":
    main()
