"""Writing engine files: a stream of bytes that depends on nothing but the engine.

See `ingot.engine` for the format. Order of the data: the seal, the IR, then weights by name. Hashes of the weights are computed
while their bytes are written, two weights at a time, and entered into the header last.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import BinaryIO

from ingot.container import ALIGNMENT, ELEMENT_TYPES, PADDING, AtomicFile, Part, header_bytes, header_length, layout
from ingot.dtypes import DTYPES
from ingot.engine import IR, KEY, SEAL, Engine, EngineHeader, Weight
from ingot.errors import EngineError

_NO_HASH = "0" * 64
_STEP = 1 << 24


def _part(weight: Weight) -> Part:
    stored_as_bytes = ELEMENT_TYPES[weight.dtype] == "U8" and DTYPES[weight.dtype].bits < 8
    shape = (weight.nbytes,) if stored_as_bytes else weight.shape
    return Part(ELEMENT_TYPES[weight.dtype], shape, weight.nbytes)


def write_engine(engine: Engine, path: str | os.PathLike, *, weights: bool = True) -> EngineHeader:
    """Write `engine` to `path` and return the header that the file has.

    Raises:
        EngineError: a weight has no data, or the file cannot be written.
    """
    kept = sorted(name for name in engine.weights if weights or engine.header.weights[name].made)
    infos = {
        name: replace(w, sha256=w.sha256 or _NO_HASH, stored=name in kept) for name, w in sorted(engine.header.weights.items())
    }
    for name in kept:
        if name.startswith((PADDING, "ingot.", "__")):
            raise EngineError(f"weight {name!r} has a name that the container keeps for itself", cure="rename it")
    if weights and engine.is_stripped:
        missing = next(n for n in sorted(engine.header.weights) if n not in engine.weights)
        raise EngineError(f"weight {missing!r} has no data", cure="refit the engine, or save it with weights=False")
    parts = {SEAL: Part("U8", (32,), 32), IR: Part("U8", (len(engine.ir),), len(engine.ir))}
    parts |= {name: _part(engine.weights[name]) for name in kept}
    entries = layout(parts)
    header = replace(engine.header, ir_sha256=hashlib.sha256(engine.ir).hexdigest(), weights=infos)
    length = header_length(entries, {KEY: header.dumps()})
    with AtomicFile(path) as f:
        f.write(bytes(8 + length + 32))
        _pad(f)
        f.write(engine.ir)
        for name, digest in _write_weights(f, engine, kept):
            infos[name] = replace(infos[name], sha256=digest)
        if not weights:
            for name, w in engine.weights.items():
                if infos[name].sha256 == _NO_HASH:
                    infos[name] = replace(infos[name], sha256=hashlib.sha256(w.bytes_view()).hexdigest())
        header = replace(header, weights=infos)
        text = header_bytes(entries, {KEY: header.dumps()}, length)
        f.seek(0)
        f.write(text)
        f.write(hashlib.sha256(text).digest())
    return header


def _pad(f: BinaryIO) -> None:
    f.write(bytes(-f.tell() % ALIGNMENT))


def _write_weights(f: BinaryIO, engine: Engine, names: list[str]) -> Iterator[tuple[str, str]]:
    """Append the weights; gives each name with its hash, which another thread computes while the next is written."""
    with ThreadPoolExecutor(2) as pool:
        pending: list[tuple[str, Future[str]]] = []
        for name in names:
            view = engine.weights[name].bytes_view()
            if len(view) != engine.weights[name].nbytes:
                raise EngineError(
                    f"weight {name!r} has {len(view)} bytes, and its type {engine.weights[name].nbytes}",
                    cure="report it: the model was compiled wrongly",
                )
            pending.append((name, pool.submit(lambda v: hashlib.sha256(v).hexdigest(), view)))
            _pad(f)
            for start in range(0, len(view), _STEP):
                f.write(view[start : start + _STEP])
            del view
            while len(pending) > 2:
                done, future = pending.pop(0)
                yield done, future.result()
        for done, future in pending:
            yield done, future.result()
