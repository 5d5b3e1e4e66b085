"""Safetensors containers: one header of JSON, then tensors, read through a memory map and written as a stream.

Format: https://huggingface.co/docs/safetensors (8 bytes of header length, little endian; the header, a JSON object of tensors
and `__metadata__`; the data, in which tensors follow each other without gaps). The official reader refuses gaps, so that
alignment is made by padding tensors whose names begin with `PADDING`.

Reading trusts nothing: every number is checked against the file's size before it is used, and no memory is allocated in
proportion to a number that the file claims.
"""

from __future__ import annotations

import json
import mmap
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ingot.errors import EngineError

ALIGNMENT = 4096
MAX_HEADER = 100_000_000  # as the official reader's
MAX_RANK = 64
PADDING = "ingot.padding."
METADATA = "__metadata__"

# Bytes per element of the container's own element types.
ELEMENT_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip

# The container's element type of each storage type; bytes where it has none that every reader knows.
ELEMENT_TYPES = {
    "f64": "F64", "f32": "F32", "f16": "F16", "bf16": "BF16", "f8E4M3FN": "F8_E4M3", "f8E5M2": "F8_E5M2",
    "f8E4M3FNUZ": "U8", "f8E5M2FNUZ": "U8", "f8E8M0FNU": "U8", "f4E2M1FN": "U8", "i64": "I64", "i32": "I32", "i16": "I16",
    "i8": "I8", "i4": "U8", "i1": "BOOL",
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A tensor in a container: element type, sizes, and where its bytes lie in the file."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


class Container:
    """A container opened for reading; `close` it, or use it as a context manager.

    Attributes:
        path: of the file, for messages.
        metadata: its texts by key.
        entries: its tensors by name, without padding.
        header: the bytes before the data: length and JSON.
    """

    def __init__(self, source: str | os.PathLike | bytes) -> None:
        """Open a file, or bytes in memory. Raises EngineError where it is no valid container."""
        self._map: mmap.mmap | None = None
        if isinstance(source, bytes):
            self.path, data = "<bytes>", memoryview(source)
        else:
            self.path = os.fspath(source)
            data = self._open()
        self._data: memoryview | None = data
        try:
            self.header, self.metadata, self.entries = _parse(data, self.path)
        except BaseException:
            self.close()
            raise

    def _open(self) -> memoryview:
        try:
            with open(self.path, "rb") as f:
                size = os.fstat(f.fileno()).st_size
                if not size:
                    raise EngineError("the file is empty", node=self.path, cure="compile the model again")
                self._map = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as e:
            reason = getattr(e, "strerror", None) or str(e)
            raise EngineError(f"cannot be opened: {reason}", node=self.path, cure="check the path") from None
        return memoryview(self._map)

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *exc: Any) -> None:
        self.close()

    def close(self) -> None:
        """Unmap the file. Views that `read` gave keep it mapped until they are gone."""
        data, self._data = getattr(self, "_data", None), None
        try:
            if data is not None:
                data.release()
            if self._map is not None:
                self._map.close()
        except BufferError:  # views are alive; the map closes with the last of them
            pass

    def read(self, name: str) -> memoryview:
        """A tensor's bytes, not copied. Raises KeyError for an unknown name."""
        if self._data is None:
            raise ValueError(f"{self.path} has been closed")
        e = self.entries[name]
        return self._data[e.offset : e.offset + e.nbytes]


def _parse(data: memoryview, path: str) -> tuple[bytes, dict[str, str], dict[str, Entry]]:
    def fail(message: str) -> EngineError:
        return EngineError(f"damaged or no engine: {message}", node=path, cure="compile the model again")

    if len(data) < 8:
        raise fail(f"it has {len(data)} bytes")
    length = int.from_bytes(data[:8], "little")
    if length > MAX_HEADER or length > len(data) - 8:
        raise fail(f"it claims a header of {length} bytes, in a file of {len(data)}")
    header = bytes(data[: 8 + length])
    try:
        raw = json.loads(header[8:].decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as e:
        raise fail(f"its header is not JSON: {str(e)[:200]}") from None
    if not isinstance(raw, dict):
        raise fail("its header is not a JSON object")
    metadata = raw.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise fail("its metadata are not texts")
    base, size = 8 + length, len(data) - 8 - length
    entries: dict[str, Entry] = {}
    spans: list[tuple[int, int]] = []
    for name, item in raw.items():
        entry = _entry(name, item, base, size, fail)
        spans.append((entry.offset, entry.nbytes))
        if not name.startswith(PADDING):
            entries[name] = entry
    end = base
    for offset, nbytes in sorted(spans):
        if offset != end:
            raise fail(f"its tensors overlap or leave a gap at byte {min(offset, end)}")
        end = offset + nbytes
    if end != len(data):
        raise fail(f"its tensors end at byte {end}, the file at {len(data)}")
    return header, metadata, entries


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a key is given twice")
    return out


def _entry(name: str, item: Any, base: int, size: int, fail: Any) -> Entry:
    if not isinstance(item, dict) or set(item) != {"dtype", "shape", "data_offsets"}:
        raise fail(f"tensor {name[:100]!r} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = item["dtype"], item["shape"], item["data_offsets"]
    if dtype not in ELEMENT_BYTES if isinstance(dtype, str) else True:
        raise fail(f"tensor {name[:100]!r} has unknown element type {str(dtype)[:40]!r}")

    def sizes(values: Any, count: int | None) -> bool:
        if not isinstance(values, list) or (len(values) > MAX_RANK if count is None else len(values) != count):
            return False
        return all(type(v) is int and 0 <= v < 1 << 63 for v in values)

    if not sizes(shape, None) or not sizes(offsets, 2):
        raise fail(f"tensor {name[:100]!r} has an impossible shape or offsets")
    begin, end = offsets
    nbytes = ELEMENT_BYTES[dtype]
    for d in shape:
        nbytes *= d
        if nbytes >= 1 << 63:
            raise fail(f"tensor {name[:100]!r} has more than 2^63 bytes")
    if not begin <= end <= size or end - begin != nbytes:
        raise fail(f"tensor {name[:100]!r} of {nbytes} bytes lies at [{begin}, {end}) of {size} bytes")
    return Entry(dtype, tuple(shape), base + begin, nbytes)


@dataclass(frozen=True)
class Part:
    """A tensor to write: element type, sizes, and its length in bytes."""

    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    aligned: bool = True


def layout(parts: Mapping[str, Part]) -> dict[str, Any]:
    """The header's tensor entries for `parts` in their order, with padding before each part that is aligned."""
    entries: dict[str, Any] = {}
    offset = 0
    for name, part in parts.items():
        gap = -offset % ALIGNMENT if part.aligned else 0
        if gap:
            entries[f"{PADDING}{len(entries)}"] = {"data_offsets": [offset, offset + gap], "dtype": "U8", "shape": [gap]}
            offset += gap
        entries[name] = {"data_offsets": [offset, offset + part.nbytes], "dtype": part.dtype, "shape": list(part.shape)}
        offset += part.nbytes
    return entries


def header_length(entries: Mapping[str, Any], metadata: Mapping[str, str]) -> int:
    """Bytes of the header's JSON, padded so that the data begins at a multiple of `ALIGNMENT`."""
    return -(-(8 + len(_header_text(entries, metadata))) // ALIGNMENT) * ALIGNMENT - 8


def _header_text(entries: Mapping[str, Any], metadata: Mapping[str, str]) -> bytes:
    return json.dumps({METADATA: dict(metadata), **entries}, sort_keys=True, separators=(",", ":")).encode()


def header_bytes(entries: Mapping[str, Any], metadata: Mapping[str, str], length: int) -> bytes:
    """The length and the JSON, padded with blanks to `length`. Raises ValueError where it does not fit."""
    text = _header_text(entries, metadata)
    if len(text) > length or length > MAX_HEADER:
        raise ValueError(f"a header of {len(text)} bytes does not fit into {min(length, MAX_HEADER)}")
    return length.to_bytes(8, "little") + text.ljust(length)


class AtomicFile:
    """A file that appears under its name only when it is complete: written beside it, then renamed. A link stays one: what it
    leads to is replaced. Raises EngineError where it cannot be written, or is something else than a file."""

    def __init__(self, path: str | os.PathLike) -> None:
        self._named, self.path = os.fspath(path), Path(os.path.realpath(path))
        self._file: BinaryIO | None = None

    def _fail(self, reason: str) -> EngineError:
        return EngineError(f"cannot be written: {reason}", node=str(self._named), cure="check the path")

    def __enter__(self) -> BinaryIO:
        if self.path.exists() and not self.path.is_file():
            raise self._fail("it is a directory" if self.path.is_dir() else "it is no file")  # a device's would be replaced
        self._temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
        try:
            self._file = open(self._temporary, "w+b")
        except OSError as e:
            raise self._fail(e.strerror or str(e)) from None
        return self._file

    def __exit__(self, kind: Any, error: BaseException | None, *exc: Any) -> None:
        assert self._file is not None
        try:
            self._file.close()
            if kind is None:
                os.replace(self._temporary, self.path)
                return
        except OSError as e:  # no room for the last bytes, say
            error = error or e
        self._temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise self._fail(error.strerror or str(error)) from None
