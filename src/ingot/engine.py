"""Engines: compiled models, in memory or in a file, which run on any target.

An engine file is a safetensors container (`ingot.container`) of

- `ingot.seal`: the SHA-256 of the header, so that a flipped bit anywhere in it is found;
- `ingot.ir`: the AOT IR, MLIR bytecode of the `ingot` dialect;
- the weights, each at a multiple of 4096 bytes, so that they are used where the file is mapped;

and one metadata key, `ingot`: canonical JSON of an `EngineHeader`. The header alone says whether an engine is valid here.
The hashes of the header and the IR are checked when it is loaded, those of the weights by `Engine.verify_hashes`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ingot import dims
from ingot.container import ELEMENT_TYPES, Container
from ingot.dtypes import DTYPES, ONNX_TYPE_BY_NAME
from ingot.errors import EngineError
from ingot.launch_program import TensorSpec

FORMAT = 1
KEY, SEAL, IR = "ingot", "ingot.seal", "ingot.ir"
STAGES = "stages"
MAX_STAGES = 10_000
MADE = "made"
NEEDS: frozenset[str] = frozenset({STAGES})  # features that an engine may ask for and this version has


@dataclass(frozen=True)
class WeightInfo:
    """A stored tensor of an engine: storage type, sizes, SHA-256 of its bytes, whether this file holds it, and whether the
    compiler made it: then no model has it, and files without weights hold it, too."""

    dtype: str
    shape: tuple[int, ...]
    sha256: str
    stored: bool = True
    made: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes, packed low nibble first where elements are smaller than a byte."""
        elements = 1
        for d in self.shape:
            elements *= d
        return DTYPES[self.dtype].nbytes(elements)


@dataclass(frozen=True)
class EngineHeader:
    """What an engine file says about itself.

    Attributes:
        producer: name and version of the program that wrote it.
        inputs, outputs: names, ONNX types, and sizes.
        ir_sha256: hash of the AOT IR; with the target it identifies the launch program.
        weights: its tensors by name.
        needs: features a runtime must have.
        format_version: version of this description.
        folded: digests of the model's tensors that are parts of the IR, by name: a refit cannot change them.
        stages: programs that follow one another, where sizes depend on what is computed; more than one is a need.
    """

    producer: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    ir_sha256: str
    weights: Mapping[str, WeightInfo] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    format_version: int = FORMAT
    folded: Mapping[str, str] = field(default_factory=dict)
    stages: int = 1

    def dumps(self) -> str:
        """Canonical JSON text."""

        def spec(t: TensorSpec) -> dict[str, Any]:
            return {"name": t.name, "type": t.onnx_type, "shape": [d if isinstance(d, int) else str(d) for d in t.shape]}

        def weight(w: WeightInfo) -> dict[str, Any]:
            described = {"dtype": w.dtype, "shape": list(w.shape), "sha256": w.sha256, "stored": w.stored}
            return {**described, MADE: True} if w.made else described

        data = {
            "format": self.format_version,
            "producer": self.producer,
            "inputs": [spec(t) for t in self.inputs],
            "outputs": [spec(t) for t in self.outputs],
            "ir_sha256": self.ir_sha256,
            "weights": {name: weight(w) for name, w in self.weights.items()},
            "needs": list(self.needs),
            "folded": dict(self.folded),
        }
        if self.stages > 1:
            data[STAGES] = self.stages
        return json.dumps(data, sort_keys=True, separators=(",", ":"))

    @staticmethod
    def loads(text: str) -> EngineHeader:
        """The header that `dumps` wrote. Raises ValueError where it is damaged or newer than this program."""
        try:
            raw = json.loads(text)
            version = raw["format"]
            if version != FORMAT:
                raise ValueError(f"its format is version {version}, and this program reads up to {FORMAT}")
            missing = set(raw["needs"]) - NEEDS
            if missing:
                raise ValueError(f"it needs {', '.join(sorted(missing))}")

            def spec(t: dict[str, Any]) -> TensorSpec:
                if t["type"] not in ONNX_TYPE_BY_NAME or not isinstance(t["name"], str):
                    raise ValueError(f"type {t['type']!r} of {t['name']!r} is unknown")
                return TensorSpec(t["name"], t["type"], tuple(map(_size, t["shape"])))

            def weight(w: dict[str, Any]) -> WeightInfo:
                if w["dtype"] not in DTYPES or not all(type(d) is int and d >= 0 for d in w["shape"]):
                    raise ValueError(f"a weight of type {w['dtype']!r} and shape {w['shape']!r}")
                made = bool(w.get(MADE, False))
                return WeightInfo(w["dtype"], tuple(w["shape"]), str(w["sha256"]), bool(w["stored"]), made)

            stages = raw.get(STAGES, 1)
            if type(stages) is not int or not 0 < stages <= MAX_STAGES:
                raise ValueError(f"it has {stages!r} stages")
            return EngineHeader(
                str(raw["producer"]),
                tuple(map(spec, raw["inputs"])),
                tuple(map(spec, raw["outputs"])),
                str(raw["ir_sha256"]),
                {str(name): weight(w) for name, w in raw["weights"].items()},
                tuple(raw["needs"]),
                version,
                {str(name): str(digest) for name, digest in raw.get("folded", {}).items()},
                stages,
            )
        except (KeyError, TypeError, AttributeError, RecursionError) as e:
            raise ValueError(f"its description is damaged: {e!r}") from None


def _size(d: Any) -> dims.Dim:
    if isinstance(d, str) and len(d) < 4000:  # so that no number in it has more digits than Python prints
        d = dims.parse(d)
    if isinstance(d, dims.Expr) or (type(d) is int and 0 <= d < 1 << 63):
        return d
    raise ValueError(f"{str(d)[:40]!r} is not a size")


@dataclass(frozen=True)
class Weight:
    """A tensor that is read when it is needed: `read()` gives its bytes, contiguous, packed where sub-byte."""

    dtype: str
    shape: tuple[int, ...]
    read: Callable[[], Any]

    @property
    def nbytes(self) -> int:
        return WeightInfo(self.dtype, self.shape, "").nbytes

    def bytes_view(self) -> memoryview:
        """Its bytes as a flat view; not copied where it lies in memory or in a mapped file."""
        data = self.read()
        if isinstance(data, np.ndarray):
            return np.ascontiguousarray(data).reshape(-1).view(np.uint8).data
        return memoryview(data).cast("B") if not isinstance(data, memoryview) else data


class Engine:
    """A compiled model. Made by `ingot.compile` or `Engine.load`; `ingot.Session` runs it.

    Attributes:
        header: inputs, outputs, weights; hashes are empty for an engine that was not read from a file.
        ir: the AOT IR, MLIR bytecode.
        weights: tensors by name, read when needed.
        path: of the file it was loaded from, or "".
        container: the file it was loaded from, mapped, or None.
        notes: what passes had to say when it was compiled.
    """

    def __init__(
        self, header: EngineHeader, ir: bytes, weights: Mapping[str, Weight], path: str = "", container: Container | None = None
    ) -> None:
        self.header, self.ir, self.weights, self.path = header, ir, weights, path
        self.container = container
        self.notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        def text(specs: tuple[TensorSpec, ...]) -> str:
            return ", ".join(f"{t.name}: {t.onnx_type}[{', '.join(map(str, t.shape))}]" for t in specs)

        return f"<ingot.Engine ({text(self.header.inputs)}) -> ({text(self.header.outputs)})>"

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Names, ONNX types and sizes of the inputs."""
        return self.header.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Names, ONNX types and sizes of the outputs."""
        return self.header.outputs

    @classmethod
    def load(cls, path: str | os.PathLike | bytes) -> Engine:
        """Open an engine file (or its bytes) and check its header and IR; weights stay in the file until they are used.

        Raises:
            EngineError: it is damaged, foreign, or of a newer format.
        """
        if not isinstance(path, bytes) and os.fspath(path).endswith(".onnx"):
            cure = "compile it first: ingot.compile(path).save('model.ingot'), or ingot compile"
            raise EngineError("an ONNX model, not an engine", node=os.fspath(path), cure=cure)
        container = Container(path)
        try:
            return cls._from(container)
        except BaseException:
            container.close()
            raise

    @classmethod
    def _from(cls, container: Container) -> Engine:
        def fail(message: str, cure: str = "compile the model again") -> EngineError:
            return EngineError(f"damaged or no engine: {message}", node=container.path, cure=cure)

        if KEY not in container.metadata or not {SEAL, IR} <= container.entries.keys():
            raise fail("a safetensors file without Ingot's metadata", "ingot compile makes engines of ONNX models")
        if bytes(container.read(SEAL)) != hashlib.sha256(container.header).digest():
            raise fail("its header is not what was written")
        try:
            header = EngineHeader.loads(container.metadata[KEY])
        except ValueError as e:
            cure = "update Ingot, or compile the model again"
            raise EngineError(f"cannot be used: {e}", node=container.path, cure=cure) from None
        ir = bytes(container.read(IR))
        if hashlib.sha256(ir).hexdigest() != header.ir_sha256:
            raise fail("its IR is not what was written")
        weights = {}
        for name, info in header.weights.items():
            entry = container.entries.get(name)
            if not info.stored:
                continue
            if entry is None or entry.nbytes != info.nbytes or entry.dtype != ELEMENT_TYPES[info.dtype]:
                raise fail(f"weight {name!r} is missing or of another size")
            weights[name] = Weight(info.dtype, info.shape, _reader(container, name))
        return cls(header, ir, weights, "" if container.path == "<bytes>" else container.path, container)

    def save(self, path: str | os.PathLike, *, weights: bool = True) -> None:
        """Write the engine file: the same bytes for the same engine on every machine.

        Args:
            path: file to write; it appears when it is complete.
            weights: False leaves the weights out; `refit` puts them back.
        """
        from ingot.compiler.engine_file import write_engine

        write_engine(self, path, weights=weights)

    @property
    def is_stripped(self) -> bool:
        """True where weights are missing, so that it cannot run before `refit`."""
        return any(name not in self.weights for name in self.header.weights)

    def verify_hashes(self) -> None:
        """Compare every weight with its hash. Raises EngineError naming the first that differs."""
        for name, info in self.header.weights.items():
            if not info.sha256 or name not in self.weights:
                continue
            if sha256(self.weights[name]) != info.sha256:
                cure = "copy the file again, or compile the model again"
                raise EngineError(f"weight {name!r} is not what was written", node=self.path or None, cure=cure)

    def refit(self, sources: Mapping[str, Any] | str | os.PathLike) -> Engine:
        """An engine with other weights: those given, and all that this engine derives from them.

        Args:
            sources: numpy arrays by the names of the model's weights, or the path of an ONNX model of the same graph.

        Raises:
            EngineError: an unknown name, another shape or type, or sources that are missing.
        """
        from ingot.compiler.weights_program import refit

        return refit(self, sources)

    def inspect(self) -> dict[str, Any]:
        """Plain data about the engine: what its header says, and sizes in bytes."""
        data = json.loads(self.header.dumps())
        weights = self.header.weights
        return {
            "path": self.path,
            "format": data["format"],
            "producer": data["producer"],
            "inputs": data["inputs"],
            "outputs": data["outputs"],
            "needs": data["needs"],
            "stripped": self.is_stripped,
            "ir_bytes": len(self.ir),
            "ir_sha256": data["ir_sha256"],
            "weights": [{"name": n, "bytes": weights[n].nbytes, **w} for n, w in sorted(data["weights"].items())],
        }

    def ir_text(self) -> str:
        """The AOT IR as text; needs the compiler. Raises EngineError where it cannot be read: it is read by the compile server,
        since bytecode that is written to harm may end the process that reads it."""
        from ingot.runtime.compile_client import Job, shared_client

        _, (text,) = shared_client().one(Job("print", None, (self.ir,)))
        return text.decode()


def _reader(container: Container, name: str) -> Callable[[], memoryview]:
    return lambda: container.read(name)


def sha256(weight: Weight) -> str:
    """Hash of a weight's bytes, in hexadecimal."""
    return hashlib.sha256(weight.bytes_view()).hexdigest()
