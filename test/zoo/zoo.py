"""Real exported graphs with seeded weights and inputs, made from small recipes.

    python test/zoo/zoo.py list
    python test/zoo/zoo.py fill OUT [NAME ...]   # OUT/NAME/{model.onnx[, model.onnx.data], inputs_k.npz, ref_k.npz, meta.json}
    python test/zoo/zoo.py fill OUT NAME ... --no-reference

A recipe holds a graph as its exporter wrote it; every large weight is replaced by (shape, dtype, mean, standard deviation) and
drawn again from a seed, so that no trained weight is in here: what is tested is arithmetic, shapes and coverage. Inputs are
seeded in the same way; integer and boolean inputs are kept as they are. All input sets of a model have different shapes and
belong to one compiled engine.

References come from ONNX Runtime on the CPU without graph optimizations; for fp16 and bf16 models it runs the float32 twin of
the same graph with the same rounded weights and inputs, so that a reference is the exact model's answer.

Weights of 8 and 4 bits of quantized models (recipes-quantized, named MODEL.TOOL_MODE) are drawn byte by byte from the histogram
of the real ones. Models that ONNX Runtime cannot run run in onnx.reference, with the operators of trt_reference.py.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import helper, numpy_helper

HERE = Path(__file__).parent
RECIPES = HERE / "recipes"
QUANTIZED = HERE / "recipes-quantized"
SEED = 1234
FLOATS = {1: np.dtype(np.float32), 10: np.dtype(np.float16), 16: np.dtype(ml_dtypes.bfloat16)}
LOW = (10, 16)  # TensorProto codes of float16 and bfloat16
CODES = (2, 3, 17, 19, 21, 22, 23, 24)  # of integers and floats of 8 and 4 bits: uint8 to float8e8m0
TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 4e-2}
EXTERNAL_ABOVE = 1 << 30  # bytes of weights beyond which they are stored beside the model


@dataclass(frozen=True)
class Recipe:
    """A parsed recipe: `meta` describes the model, `weights` and `inputs` how to draw its tensors, `graph` is the model."""

    meta: dict[str, Any]
    weights: list[list[Any]]
    inputs: list[dict[str, Any]]
    graph: bytes


def names(folder: Path = RECIPES) -> list[str]:
    """Names of all recipes in a folder: RECIPES or QUANTIZED."""
    return sorted(p.name.removesuffix(".gz") for p in folder.glob("*.gz"))


def read(name: str) -> Recipe:
    """The recipe `name`. Raises ValueError with the known names where there is none."""
    path = next((p for f in (RECIPES, QUANTIZED) if (p := f / f"{name}.gz").exists()), None)
    if path is None:
        raise ValueError(f"no model {name!r}; there are {', '.join((*names(), *names(QUANTIZED)))}")
    head, graph = gzip.decompress(path.read_bytes()).split(b"\n", 1)
    data = json.loads(head)
    return Recipe(data["meta"], data["weights"], data["inputs"], graph)


def tolerance(name: str) -> float:
    """The largest relative error of an output of the model.

    For a quantized model twice the error of quantization itself, within [0.02, 0.5]: on a coarse grid a difference of one bit
    before it becomes a whole step after it.
    """
    meta = read(name).meta
    if meta["dtype"] in TOLERANCE:
        return TOLERANCE[meta["dtype"]]
    quantization = 10 ** (-meta["snr_db_vs_base"] / 20) if "snr_db_vs_base" in meta else 0.0
    return min(0.5, max(2e-2, 2 * quantization))


def relative_error(out: np.ndarray, reference: np.ndarray) -> float:
    """rms(out - reference) / rms(reference); infinite where shapes differ, integers differ or a value is NaN."""
    out = np.asarray(out)
    if out.shape != reference.shape:
        return float("inf")
    if reference.dtype.kind in "iub":
        return 0.0 if np.array_equal(out, reference) else float("inf")
    difference = out.astype(np.float64) - reference
    if not np.isfinite(difference).all():
        return float("inf")
    scale = np.sqrt(np.mean(np.square(reference, dtype=np.float64))) if reference.size else 1.0
    return float(np.sqrt(np.mean(difference**2)) / max(scale, 1e-30)) if reference.size else 0.0


def _weight_bytes(entry: list[Any], seed: int) -> bytes:
    _, shape, code, mean, deviation, index = entry
    rng = np.random.default_rng([seed, index])
    if code in CODES:  # their number, and how often each occurs
        shares = np.asarray(deviation, np.float64)
        return rng.choice(256, int(mean), p=shares / shares.sum()).astype(np.uint8).tobytes()
    values = rng.standard_normal(int(np.prod(shape)), dtype=np.float32) * np.float32(abs(deviation)) + np.float32(mean)
    if deviation < 0:  # scales stay positive
        values = np.abs(values) + np.float32(1e-6)
    return values.astype(FLOATS[code]).tobytes()


def _fill_weights(recipe: Recipe, model: onnx.ModelProto, out: Path, seed: int) -> None:
    entries = {w[0]: w for w in recipe.weights}
    external = sum(int(np.prod(w[1])) * 4 for w in recipe.weights) > EXTERNAL_ABOVE
    data = (out / "model.onnx.data").open("wb") if external else None
    offset = 0
    for tensor in model.graph.initializer:
        if tensor.name not in entries:
            continue
        raw = _weight_bytes(entries[tensor.name], seed)
        del tensor.external_data[:]
        if data is None:
            tensor.data_location = onnx.TensorProto.DEFAULT
            tensor.raw_data = raw
            continue
        padding = -offset % 4096
        data.write(b"\0" * padding + raw)
        location = {"location": "model.onnx.data", "offset": offset + padding, "length": len(raw)}
        for key, value in location.items():
            tensor.external_data.add(key=key, value=str(value))
        offset += padding + len(raw)
    if data is not None:
        data.close()


def outline(name: str, out: Path) -> Path:
    """Write model `name` to `out`/`name` with a file of holes for its weights: enough for what types and shapes decide."""
    folder = Path(out) / name
    folder.mkdir(parents=True, exist_ok=True)
    recipe = read(name)
    model = onnx.ModelProto.FromString(recipe.graph)
    listed, offset = {w[0] for w in recipe.weights}, 0
    for tensor in model.graph.initializer:
        if tensor.name not in listed:
            continue
        length = int(np.prod(tensor.dims)) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        del tensor.external_data[:]
        for key, value in {"location": "model.onnx.data", "offset": offset, "length": length}.items():
            tensor.external_data.add(key=key, value=str(value))
        offset += -(-length // 4096) * 4096
    with (folder / "model.onnx.data").open("wb") as data:
        data.truncate(offset)
    onnx.save(model, folder / "model.onnx")
    return folder


def draw_inputs(recipe: Recipe, model: onnx.ModelProto, seed: int = SEED) -> list[dict[str, np.ndarray]]:
    """The input sets of a recipe, by name. Those of fp16 and bf16 models are f32, rounded to the model's type."""
    codes = {v.name: v.type.tensor_type.elem_type for v in model.graph.input}
    sets = []
    for k, entries in enumerate(recipe.inputs):
        rng, feeds = np.random.default_rng([seed, 7, k]), {}
        for name, d in entries.items():
            if "npy" in d:
                feeds[name] = np.load(io.BytesIO(gzip.decompress(base64.b64decode(d["npy"]))))
            else:
                drawn = rng.standard_normal(d["shape"], dtype=np.float32) * d["std"] + d["mean"]
                feeds[name] = drawn.astype(d["dtype"])
            if recipe.meta.get("dtype") != "fp32" and codes.get(name) in LOW:
                # Stored in float32, as numpy's files have no bfloat16, but rounded to the model's type.
                feeds[name] = feeds[name].astype(FLOATS[codes[name]]).astype(np.float32)
        sets.append(feeds)
    return sets


def _float32_twin(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with every fp16 or bf16 tensor, type and Cast made float32, values unchanged."""
    twin = onnx.ModelProto()
    twin.CopyFrom(model)

    def tensor(t: onnx.TensorProto) -> None:
        if t.data_type in LOW:
            t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(t).astype(np.float32), t.name))

    def graph(g: onnx.GraphProto) -> None:
        del g.value_info[:]  # exporters leave wrong ones behind
        for v in (*g.input, *g.output):
            if v.type.tensor_type.elem_type in LOW:
                v.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        for t in g.initializer:
            tensor(t)
        for node in g.node:
            for a in node.attribute:
                if a.HasField("t"):
                    tensor(a.t)
                if a.HasField("g"):
                    graph(a.g)
                if a.name in ("to", "dtype", "stash_type", "output_dtype") and a.i in LOW:
                    a.i = onnx.TensorProto.FLOAT

    graph(twin.graph)
    return twin


Runner = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


def reference(path: Path, *, quantized: bool = False) -> Runner:
    """A function from inputs to outputs that computes what the model at `path` says, in float32."""
    if not quantized:
        source = path if path.with_name("model.onnx.data").exists() else _float32_twin(onnx.load(path))
        return _onnx_runtime(source)
    model = onnx.load(path)
    codes = {t.data_type for t in model.graph.initializer}
    codes |= {v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output)}
    if codes & set(LOW):
        model = _float32_twin(model)
    for node in model.graph.node:
        for a in node.attribute:
            if node.op_type == "MatMulNBits" and a.name == "accuracy_level":
                a.i = 1  # products of floats, and not of activations that are quantized too
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    try:
        return _onnx_runtime(model)
    except (errors.Fail, errors.NotImplemented, errors.InvalidGraph):
        from onnx.reference import ReferenceEvaluator
        from trt_reference import operators

    evaluator = ReferenceEvaluator(model, new_ops=operators())
    outputs = [o.name for o in model.graph.output]
    return lambda feeds: dict(zip(outputs, evaluator.run(None, feeds), strict=True))


def _onnx_runtime(model: Path | onnx.ModelProto) -> Runner:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    inputs = {i.name for i in session.get_inputs()}
    outputs = [o.name for o in session.get_outputs()]

    def run(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(outputs, session.run(None, {k: v for k, v in feeds.items() if k in inputs}), strict=True))

    return run


def fill(name: str, out: Path, *, with_reference: bool = True, seed: int = SEED) -> Path:
    """Write model `name`, its inputs and references to `out`/`name`, once; the folder."""
    folder = Path(out) / name
    done = folder / ("complete" if with_reference else "complete-without-reference")
    if done.exists() or (folder / "complete").exists():
        return folder
    recipe = read(name)
    folder.mkdir(parents=True, exist_ok=True)
    model = onnx.ModelProto.FromString(recipe.graph)
    _fill_weights(recipe, model, folder, seed)
    onnx.save(model, folder / "model.onnx")
    (folder / "meta.json").write_text(json.dumps(recipe.meta, indent=1))
    sets = draw_inputs(recipe, model, seed)
    for k, feeds in enumerate(sets):
        np.savez(folder / f"inputs_{k}.npz", **feeds)
    if with_reference:
        run = reference(folder / "model.onnx", quantized=recipe.meta["dtype"] == "quant")
        for k, feeds in enumerate(sets):
            np.savez(folder / f"ref_{k}.npz", **run(feeds))
    done.touch()
    return folder


def input_sets(folder: Path) -> list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """(inputs, reference outputs) for each input set of a filled model; inputs in the model's own types."""
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    types = {v.name: FLOATS.get(v.type.tensor_type.elem_type) for v in model.graph.input}
    sets = []
    for k in range(len(list(folder.glob("inputs_*.npz")))):
        feeds = dict(np.load(folder / f"inputs_{k}.npz"))
        feeds = {n: a.astype(types[n]) if types.get(n) is not None else a for n, a in feeds.items() if n in types}
        ref = folder / f"ref_{k}.npz"
        sets.append((feeds, dict(np.load(ref)) if ref.exists() else {}))
    return sets


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = parser.add_subparsers(dest="what", required=True)
    sub.add_parser("list")
    filling = sub.add_parser("fill")
    filling.add_argument("out", type=Path)
    filling.add_argument("names", nargs="*")
    filling.add_argument("--no-reference", action="store_true")
    args = parser.parse_args(argv)
    if args.what == "list":
        for name in (*names(), *names(QUANTIZED)):
            meta = read(name).meta
            millions = meta.get("params", 0) / 1e6
            print(f"{name:28s} {meta['dtype']:5s} {meta.get('exporter', ''):7s} {millions:8.2f} M parameters")
        return 0
    for name in args.names or [n for n in (*names(), *names(QUANTIZED)) if not n.endswith("_full")]:
        fill(name, args.out, with_reference=not args.no_reference)
        print(name, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
