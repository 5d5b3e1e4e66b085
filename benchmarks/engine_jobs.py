"""The two compilers timed in processes of their own, as a user meets them; `cuda_peers.py` is made of these.

    python benchmarks/engine_jobs.py prepare bert_full --folder build/zoo --cast fp32 --cast fp16    # fill, AOT, save
    python benchmarks/engine_jobs.py load build/zoo/bert_full/fp16.ingot --device cuda:0             # JIT from an empty cache
    python benchmarks/engine_jobs.py load build/zoo/bert_full/fp16.ingot --cores 0,1                 # the same with two cores

Each prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "test" / "zoo"))
if TYPE_CHECKING:
    import ingot

PATIENCE_S = 90.0


def prepare(name: str, folder: Path, casts: Sequence[str]) -> dict[str, Any]:
    """Fill a model of the zoo and compile it to engines `fp32.ingot`, `fp16.ingot`; seconds, or the error of a cast.

    `fp8` and `int4` quantize the model's large products first (fp8_model.py, int4_model.py), and cast the rest to fp16.
    """
    import fp8_model
    import int4_model
    import zoo

    import ingot

    begin = time.perf_counter()
    filled = zoo.fill(name, folder, with_reference=False)
    report: dict[str, Any] = {"folder": str(filled), "fill_s": time.perf_counter() - begin, "aot_s": {}, "errors": {}}
    for cast in casts:
        begin = time.perf_counter()
        engine_path(filled, cast).unlink(missing_ok=True)  # whatever happens, no older one is measured
        try:
            model = filled / "model.onnx"
            quantizer = {"fp8": fp8_model, "int4": int4_model}.get(cast)
            if quantizer is not None:
                model = filled / f"model_{cast}.onnx"
                quantizer.quantize(filled / "model.onnx", model)
            engine = ingot.compile(model, cast={"fp32": None, "fp8": "fp16", "int4": "fp16"}.get(cast, cast))
            compiled = time.perf_counter() - begin
            engine.save(engine_path(filled, cast))
        except Exception as error:
            report["errors"][cast] = f"{type(error).__name__}: {error}"
            continue
        report["aot_s"][cast] = {"compile": compiled, "save": time.perf_counter() - begin - compiled}
    return report


def engine_path(filled: Path, cast: str) -> Path:
    """Where `prepare` leaves an engine."""
    return filled / f"{cast}.ingot"


def load(engine: Path, device: str, cache: Path | None, cores: Sequence[int]) -> dict[str, Any]:
    """Make a session from an empty cache, and call it once.

    Args:
        engine: made by `prepare`, beside its model's inputs.
        device: `cpu` or `cuda:N`.
        cache: the runtime cache's file, for who wants to use it afterwards.
        cores: the only ones to use, by this process and the compile server.

    Returns:
        what `Session.load_report` says (of kernels for any shape), and `jit_s`: seconds of making the session; `first_call_s`;
        `specialize_s`: further seconds until a second call's shape has kernels of its own (0 where the device makes none, None
        where they were not ready in time), `specialized`: how many were compiled; `cached`: the report of a second session,
        from the cache.
    """
    if cores:
        os.sched_setaffinity(0, cores)
    import zoo

    import ingot
    from ingot.runtime.cache import RuntimeCache
    from ingot.runtime.compile_client import CompileClient

    feeds = zoo.input_sets(engine.parent)[0][0]
    with tempfile.TemporaryDirectory() as directory:
        store = RuntimeCache(cache or Path(directory) / "cache.sqlite")
        client = CompileClient(workers=len(cores) or None)
        begin = time.perf_counter()
        session = ingot.Session(engine, device, cache=store, client=client)
        ready = time.perf_counter()
        session.run(None, feeds)
        called = time.perf_counter()
        specialized = wait_until_specialized(session, feeds)
        report = {**session.load_report(), "jit_s": ready - begin, "first_call_s": called - ready}
        report |= {"specialize_s": specialized, "specialized": session.stats().get("specialized_kernels", 0)}
        session.close()
        # In this process, where no other session's weights are being uploaded.
        again = ingot.Session(engine, device, cache=store, client=client)
        report["cached"] = again.load_report()
        again.close()
        client.close()
        store.close()
    return report


def wait_until_specialized(session: ingot.Session, feeds: Mapping[str, Any]) -> float | None:
    """Call a session until its program for these shapes is used; the seconds it took, None beyond `PATIENCE_S`."""
    begin = time.perf_counter()
    while session.stats().get("specialized_programs", 1) == 0:
        session.run(None, feeds)
        time.sleep(0.01)
        if time.perf_counter() - begin > PATIENCE_S:
            return None
    return time.perf_counter() - begin


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = parser.add_subparsers(dest="job", required=True)
    p = sub.add_parser("prepare")
    p.add_argument("name")
    p.add_argument("--folder", type=Path, required=True)
    p.add_argument("--cast", dest="casts", action="append", choices=["fp32", "fp16", "bf16", "fp8", "int4"], required=True)
    p.add_argument("--nice", type=int, default=0, help="run at a lower priority")
    p = sub.add_parser("load")
    p.add_argument("engine", type=Path)
    p.add_argument("--device", default="cuda:0")
    p.add_argument("--cache", type=Path)
    p.add_argument("--cores", type=lambda text: [int(n) for n in text.split(",")], default=[])
    options = parser.parse_args()
    if options.job == "prepare":
        os.nice(options.nice)
        report = prepare(options.name, options.folder, options.casts)
    else:
        report = load(options.engine, options.device, options.cache, options.cores)
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
