"""Run an engine in a process of its own on every input set of a filled model, and report what was imported.

    python test/run_engine.py ENGINE FOLDER DEVICE
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(engine: str, folder: str, device: str) -> None:
    import numpy as np

    from ingot.runtime.session import Session

    session = Session(engine, device=device)
    names = [o.name for o in session.get_outputs()]
    for k in range(len(list(Path(folder).glob("feeds_*.npz")))):
        with np.load(Path(folder) / f"feeds_{k}.npz") as data:
            feeds = {n: a.view("bfloat16") if a.dtype.kind == "V" else a for n, a in data.items()}
        results = session.run(None, feeds)
        widened = {n: r.astype(np.float32) if r.dtype.kind == "V" else r for n, r in zip(names, results, strict=True)}
        np.savez(Path(folder) / f"results_{k}.npz", **widened)
    heavy = ("torch_mlir", "llvmlite", "onnx")
    print(json.dumps({"imported": [m for m in heavy if m in sys.modules]}))


if __name__ == "__main__":
    import ml_dtypes  # noqa: F401  numpy finds bfloat16 by it

    main(*sys.argv[1:])
