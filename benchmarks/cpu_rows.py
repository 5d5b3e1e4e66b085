"""Products of few rows on the CPU against ONNX Runtime: milliseconds of a call, and their ratio.

    python benchmarks/cpu_rows.py [--sizes 2048 8192] [--rows 1 4 16] [--threads 2] [--rounds 25] [--static] [--transposed]

A model of two products, K x N weights and then N x K, whose number of rows is not known when compiling (`--static`: is).
`--transposed` lays both weights the other way round, as linear layers of PyTorch do. Engine and ONNX Runtime take turns, and
the medians count; above 1 ours is faster. With one thread it is that thread's processor time, which other work on the machine
disturbs less. The bandwidth is that of our reads of the weights.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def model_of(k: int, n: int, rows: int | None, transposed: bool) -> onnx.ModelProto:
    """Two products; `rows` None: of any number of rows."""
    rng = np.random.default_rng(0)
    nodes, weights, value = [], [], "x"
    for i, (size, columns) in enumerate(((k, n), (n, k))):
        shape = (columns, size) if transposed else (size, columns)
        w = (rng.standard_normal(shape, dtype=np.float32) * size**-0.5).astype(np.float32)
        weights.append(numpy_helper.from_array(w, f"w{i}"))
        out = f"y{i}"
        nodes.append(helper.make_node("Gemm", [value, f"w{i}"], [out], transB=int(transposed)))
        value = out
    first = "M" if rows is None else rows
    graph = helper.make_graph(
        nodes,
        "rows",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [first, k])],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, [first, k])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def turns(sessions: tuple, feeds: dict[str, np.ndarray], rounds: int, clock: Callable[[], float]) -> list[float]:
    """The median seconds of a call of each session."""
    times: list[list[float]] = [[] for _ in sessions]
    for _ in range(rounds + 2):
        for session, samples in zip(sessions, times, strict=True):
            start = clock()
            session.run(None, feeds)
            samples.append(clock() - start)
    return [statistics.median(samples[2:]) for samples in times]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs=2, type=int, default=[2048, 8192])
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 4, 16])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--static", action="store_true")
    parser.add_argument("--transposed", action="store_true")
    args = parser.parse_args()
    import onnxruntime as ort

    import ingot

    k, n = args.sizes
    options = ort.SessionOptions()
    options.intra_op_num_threads = args.threads
    options.log_severity_level = 3
    print(f"{'rows':>5} {'ms':>9} {'ORT ms':>9} {'ratio':>6} {'GB/s':>6}   ({args.threads} threads)")
    sessions: dict[int | None, tuple] = {}
    for rows in args.rows:
        fixed = rows if args.static else None
        if fixed not in sessions:
            model = model_of(k, n, fixed, args.transposed)
            ours = ingot.Session(ingot.compile(model), device="cpu", threads=args.threads)
            peer = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
            sessions[fixed] = ours, peer
        feeds = {"x": np.random.default_rng(1).standard_normal((rows, k), dtype=np.float32)}
        results = [s.run(None, feeds)[0] for s in sessions[fixed]]
        np.testing.assert_allclose(*results, rtol=1e-3, atol=1e-3)
        mine, theirs = turns(sessions[fixed], feeds, args.rounds, time.thread_time if args.threads == 1 else time.perf_counter)
        bandwidth = 2 * 4 * k * n / mine * 1e-9
        print(f"{rows:5d} {mine * 1e3:9.3f} {theirs * 1e3:9.3f} {theirs / mine:6.2f} {bandwidth:6.1f}", flush=True)


if __name__ == "__main__":
    main()
