"""Models of the zoo on the CPU against ONNX Runtime: milliseconds of a call, and their ratio.

    python benchmarks/cpu_models.py build/zoo/bert_full build/zoo/resnet50_full ...

Takes each folder's first input set. Engine and ONNX Runtime use the same number of threads (the cores that this process may
use) and take turns; the medians count. ONNX Runtime runs with all its graph optimizations. Above 1 ours is faster.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "test" / "zoo"))


def turns(calls: list[Callable[[], object]], rounds: int) -> list[float]:
    """The median seconds of each of several functions, which are called in turns."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds + 1):
        for call, samples in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            samples.append(time.perf_counter() - start)
    return [statistics.median(samples[1:]) for samples in times]  # the first call of each warms up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    import onnxruntime as ort
    import zoo

    import ingot
    from ingot.runtime.platform_posix import cpu_count

    options = ort.SessionOptions()
    options.intra_op_num_threads = cpu_count()
    options.log_severity_level = 3
    print(f"{'model':24s} {'inputs':40s} {'ms':>9} {'ORT ms':>9} {'ratio':>6}   ({cpu_count()} threads)")
    for folder in args.folders:
        feeds, _ = zoo.input_sets(folder)[0]
        session = ingot.Session(ingot.compile(folder / "model.onnx"), device="cpu")
        peer = ort.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
        ours, theirs = turns([functools.partial(s.run, None, feeds) for s in (session, peer)], args.rounds)
        shapes = " ".join("x".join(map(str, a.shape)) for a in feeds.values())
        print(f"{folder.name:24s} {shapes[:40]:40s} {ours * 1e3:9.3f} {theirs * 1e3:9.3f} {theirs / ours:6.2f}", flush=True)


if __name__ == "__main__":
    main()
