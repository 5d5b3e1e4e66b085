"""What control costs: a network's step that a model repeats written out, in loops of every kind, and in a scan.

    python benchmarks/control.py                             # on the GPU, against the steps written out
    python benchmarks/control.py --device cpu --width 256

`written out` has no control. `sized` loops a number of times that the inputs' sizes give, `counted` a number that is an input,
`on the device` as long as a condition holds that a step computes. A `scan` steps through the rows of its input.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import onnx
from onnx import TensorProto, helper

import ingot

LAYERS = 4


def step(x: str, y: str, prefix: str = "") -> list[onnx.NodeProto]:
    """`LAYERS` products, each with an activation, from value `x` to `y`."""
    nodes, value = [], x
    for layer in range(LAYERS):
        result = y if layer == LAYERS - 1 else f"{prefix}{y}_{layer}"
        nodes.append(helper.make_node("MatMul", [value, f"w{layer}"], [f"{prefix}{y}_{layer}_p"]))
        nodes.append(helper.make_node("Tanh", [f"{prefix}{y}_{layer}_p"], [result]))
        value = result
    return nodes


def loop(while_node: onnx.NodeProto | None) -> onnx.GraphProto:
    """A body that takes `h` and gives `h1`; `while_node` computes `goes`, by default it goes on."""
    condition = while_node or helper.make_node("Identity", ["going"], ["goes"])
    inputs = [("i", TensorProto.INT64, []), ("going", TensorProto.BOOL, []), ("h", TensorProto.FLOAT, [None, None])]
    outputs = [("goes", TensorProto.BOOL, []), ("h1", TensorProto.FLOAT, None)]
    nodes = [*step("h", "h1"), condition]
    return helper.make_graph(nodes, "body", *([helper.make_tensor_value_info(*v) for v in vs] for vs in (inputs, outputs)))


def models(width: int, steps: int) -> dict[str, onnx.ModelProto]:
    """The models, over x: float[N, width], s: float[T] (T gives a number of steps) and m: int64."""
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((width, width), dtype=np.float32) / np.float32(np.sqrt(width)) for _ in range(LAYERS)]
    written, value = [], "x"
    for i in range(steps):
        written += step(value, "y" if i == steps - 1 else f"x{i}", f"s{i}_")
        value = f"x{i}"
    less = helper.make_node("Less", ["i", "last"], ["goes"])
    row = step("row", "out")
    takes = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, None]) for n in ("h", "row")]
    gives = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("h1", "o")]
    cell = [*row, helper.make_node("Add", ["h", "out"], ["h1"]), helper.make_node("Neg", ["h1"], ["o"])]
    graphs = {
        "written out": written,
        "sized": [helper.make_node("Shape", ["s"], ["t"]), helper.make_node("Squeeze", ["t"], ["count"]),
                  helper.make_node("Loop", ["count", "", "x"], ["y"], body=loop(None))],
        "counted": [helper.make_node("Loop", ["m", "", "x"], ["y"], body=loop(None))],
        "on the device": [helper.make_node("Abs", ["m"], ["n"]), helper.make_node("Constant", [], ["one"], value_int=1),
                          helper.make_node("Sub", ["n", "one"], ["last"]),
                          helper.make_node("Loop", ["", "", "x"], ["y"], body=loop(less))],
        "scan": [helper.make_node("Scan", ["x", "xs"], ["last", "y"], num_scan_inputs=1,
                                  body=helper.make_graph(cell, "body", takes, gives))],
    }  # fmt: skip
    sizes = {"x": ["N", width], "s": ["T"], "m": [], "xs": [steps, "N", width]}
    types = {"m": TensorProto.INT64}
    found = {}
    for name, nodes in graphs.items():
        inner = [n for node in nodes for a in node.attribute if a.type == onnx.AttributeProto.GRAPH for n in a.g.node]
        read = {n for node in (*nodes, *inner) for n in node.input}
        inputs = [helper.make_tensor_value_info(n, types.get(n, TensorProto.FLOAT), s) for n, s in sizes.items() if n in read]
        graph = helper.make_graph(nodes, "main", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
        graph.initializer.extend(onnx.numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights))
        found[name] = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return found


def main() -> None:
    """Print one line for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default=None)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--calls", type=int, default=30)
    options = parser.parse_args()
    rng = np.random.default_rng(1)
    x = rng.standard_normal((options.rows, options.width), dtype=np.float32)
    feeds = {"x": x, "s": np.zeros(options.steps, np.float32), "m": np.array(options.steps),
             "xs": np.broadcast_to(x, (options.steps, *x.shape)).copy()}  # fmt: skip
    first, expected = 0.0, None
    print(f"{'':14} {'ms a call':>10} {'us a step':>10} {'ratio':>6} {'graphs':>7}")
    for name, model in models(options.width, options.steps).items():
        session = ingot.Session(ingot.compile(model), device=options.device, specialize="eager")
        own = {spec.name: feeds[spec.name] for spec in session.get_inputs()}
        times = []
        for _ in range(options.calls + 3):
            begin = time.perf_counter()
            (y,) = session.run(["y"], own)
            times.append((time.perf_counter() - begin) * 1e3)
        if name != "scan":
            expected = y if expected is None else expected
            assert np.abs(y - expected).max() <= 1e-3 * np.abs(expected).max(), name
        ms = float(np.median(times[3:]))
        first = first or ms
        graphs = session.stats().get("graphs", 0)
        print(f"{name:14} {ms:10.3f} {ms * 1e3 / options.steps:10.2f} {ms / first:6.2f} {graphs:7}", flush=True)
        session.close()


if __name__ == "__main__":
    main()
