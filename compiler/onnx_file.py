"""Reads ONNX model files without reading their weights.

A binary model is mapped, its protobuf wire format is walked (https://protobuf.dev/programming-guides/encoding/), and every
large `TensorProto.raw_data` is replaced by an external-data entry that points back into the same file. What is left is small,
parses fast whatever the model's size, and no weight is copied: 2 GB, protobuf's limit, does not apply to it.
"""

from __future__ import annotations

import math
import mmap
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from google.protobuf import text_format
from google.protobuf.message import DecodeError

from ingot.compiler.weights import FileRegion, WeightSource, from_onnx_bytes
from ingot.dtypes import DTYPES, ONNX_TYPE_BY_CODE, onnx_numpy
from ingot.errors import ModelError

# Tensors with fewer bytes stay in the message: they become constants of the IR, or are not worth an indirection.
INLINE_BYTES = 1024

# `location` of an external-data entry that points into the model file itself; no path ends in a slash.
_SELF = "self/"

_MAX_DEPTH = 100  # protobuf's own limit

# Field numbers of onnx.proto that lead to tensors: message -> field -> message. "tensor" ends the walk.
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "function": {7: "node", 11: "attribute"},
}
_RAW_DATA = 9  # TensorProto.raw_data
_TEXT_SUFFIXES = (".onnxtxt", ".onnxtext", ".txt", ".textproto", ".pbtxt", ".prototxt")


@dataclass
class ModelFile:
    """A parsed model whose large tensors may be external, and what their data is read from.

    Attributes:
        model: the message; its `raw_data` is absent where the data lies in `data`.
        path: the file, or None for a model given as bytes or message.
        data: the whole file or bytes, uint8, or None.
    """

    model: onnx.ModelProto
    path: Path | None = None
    data: np.ndarray | None = None
    _mapped: dict[Path, np.ndarray] = field(default_factory=dict)

    def source(self, tensor: onnx.TensorProto, node: str | None = None) -> WeightSource:
        """The tensor's data without a copy where it is packed. Raises ModelError naming `node` or the tensor."""
        name = node or tensor.name or "tensor"
        onnx_type = ONNX_TYPE_BY_CODE.get(tensor.data_type)
        if onnx_type is None:
            raise ModelError(
                f"tensor {tensor.name!r} has element type {type_name(tensor.data_type)}, which Ingot does not support",
                node=name,
                cure="convert the tensor to a supported type, or remove it from the model",
            )
        shape = tuple(tensor.dims)
        if any(d < 0 for d in shape):
            raise ModelError(f"tensor {tensor.name!r} has shape {list(shape)}", node=name, cure="re-export the model")
        elements = math.prod(shape)
        nbytes = (elements * onnx_type.bits + 7) // 8
        data, region = None, None
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            data, region = self._external(tensor, name, nbytes)
        elif (size := _inline_size(tensor)) != (
            expected := nbytes if tensor.HasField("raw_data") or onnx_type.bits < 8 else elements
        ):
            raise ModelError(
                f"tensor {tensor.name!r} holds {size} {'bytes' if tensor.HasField('raw_data') else 'values'}, but "
                f"{onnx_type.name}{list(shape)} takes {expected}",
                node=name,
                cure="the file is damaged or was written wrongly: export it again",
            )

        def read() -> np.ndarray:
            return from_onnx_bytes(_inline_bytes(tensor) if data is None else data, onnx_type, elements)

        return WeightSource(onnx_type, shape, read, None if onnx_type.narrow else region)

    def _external(self, tensor: onnx.TensorProto, name: str, nbytes: int) -> tuple[np.ndarray, FileRegion | None]:
        entries = {e.key: e.value for e in tensor.external_data}
        location = entries.get("location", "")
        try:
            offset, length = int(entries.get("offset", 0)), int(entries.get("length", nbytes))
        except ValueError:
            raise ModelError(f"external data of tensor {tensor.name!r} has entries {entries}", node=name) from None
        if location == _SELF and self.data is not None:
            data, path = self.data, self.path
        else:
            path = self._external_path(location, tensor.name, name)
            if path not in self._mapped:
                self._mapped[path] = map_file(path)
            data = self._mapped[path]
        if length != nbytes or offset < 0 or offset + length > data.size:
            where = f"bytes {offset} to {offset + length} of {location if location != _SELF else 'the model'!r}"
            raise ModelError(
                f"the data of tensor {tensor.name!r} is {where}, but it takes {nbytes} bytes and the file has {data.size}",
                node=name,
                cure="the data file is damaged, truncated or of another model: copy or export it again",
            )
        return data[offset : offset + length], FileRegion(str(path), offset, length) if path else None

    def _external_path(self, location: str, tensor: str, node: str) -> Path:
        if self.path is None:
            raise ModelError(
                f"the data of tensor {tensor!r} is in an external file, {location!r}",
                node=node,
                cure="import the model by its path, so that the file can be found",
            )
        folder = self.path.parent.resolve()
        path = (folder / location).resolve()
        # An absolute path or one with .. would read any file of the user's (CVE-2024-27318).
        if not location or not path.is_relative_to(folder):
            raise ModelError(
                f"the data of tensor {tensor!r} is at {location!r}, outside the model's folder",
                node=node,
                cure="put the data file beside the model and save the model with a relative path",
            )
        if not path.is_file():
            raise ModelError(
                f"the data of tensor {tensor!r} is in {location!r}, which does not exist",
                node=node,
                cure=f"copy {location!r} into the folder of {self.path.name}",
            )
        return path


def map_file(path: Path) -> np.ndarray:
    """The file's bytes as a read-only uint8 array over a mapping. Raises OSError as `open` does."""
    with open(path, "rb") as f:
        if os.fstat(f.fileno()).st_size == 0:
            return np.empty(0, np.uint8)
        return np.frombuffer(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def read_model(model: str | os.PathLike | bytes | onnx.ModelProto) -> ModelFile:
    """Open a model: a path to a binary or textual file, a serialized model, or a message.

    Raises ModelError for a file that is missing, truncated, or not a model.
    """
    if isinstance(model, onnx.ModelProto):
        return ModelFile(model)
    if isinstance(model, bytes | bytearray | memoryview):
        data = np.frombuffer(model, np.uint8)
        return ModelFile(_parse(data, "model"), None, data)
    path = Path(model)
    try:
        data = map_file(path)
    except OSError as e:
        raise ModelError(f"cannot be read: {e.strerror}", node=str(path), cure="check the path") from None
    if path.suffix in _TEXT_SUFFIXES:
        return ModelFile(_parse_text(data.tobytes(), str(path)), path)
    return ModelFile(_parse(data, str(path)), path, data)


def type_name(code: int) -> str:
    """ONNX's name of a TensorProto.DataType."""
    names = onnx.TensorProto.DataType
    return names.Name(code) if code in names.values() else str(code)


def _parse(data: np.ndarray, name: str) -> onnx.ModelProto:
    model = onnx.ModelProto()
    try:
        stripped = _Walker(data.data).strip("model", 0, data.size)
        model.ParseFromString(stripped)
    except (DecodeError, _WireError) as e:
        raise ModelError(
            f"is not an ONNX model, or is truncated: {e}",
            node=name,
            cure="download or export the file again; a git-lfs pointer must be fetched with `git lfs pull`",
        ) from None
    if not model.HasField("graph"):
        raise ModelError("holds no graph", node=name, cure="pass a complete ONNX model")
    return model


def _parse_text(text: bytes, name: str) -> onnx.ModelProto:
    """A model in ONNX's own textual syntax (`< ir_version: 8, .. > agraph (..) => (..) {..}`) or in protobuf's text format."""
    try:
        source = text.decode()
        if source.lstrip().startswith("<"):
            return onnx.parser.parse_model(source)
        return text_format.Parse(source, onnx.ModelProto())
    except (UnicodeDecodeError, onnx.parser.ParseError, text_format.ParseError) as e:
        raise ModelError(f"is not an ONNX model in textual form: {e}", node=name, cure="correct the text") from None


class _WireError(Exception):
    """Bytes that are not a message."""


class _Walker:
    """Copies a message, with large raw data replaced by its place."""

    def __init__(self, data: memoryview) -> None:
        self.data = data

    def strip(self, message: str, start: int, end: int, depth: int = 0) -> bytes:
        """The serialized message in [start, end) without the raw data of large tensors."""
        if depth > _MAX_DEPTH:
            raise _WireError(f"messages are nested more than {_MAX_DEPTH} deep")
        if end - start < INLINE_BYTES:
            return bytes(self.data[start:end])
        children = _CHILDREN.get(message, {})
        out: list[bytes | memoryview] = []
        tail = b""
        kept = position = start  # bytes in [kept, position) are copied as they are
        while position < end:
            field_start = position
            tag, position = self._varint(position, end)
            number, wire = tag >> 3, tag & 7
            if wire == 2:
                length, position = self._varint(position, end)
                body, position = position, position + length
                if position > end:
                    raise _WireError(f"a field at byte {field_start} ends at {position}, past byte {end}")
                child = children.get(number)
                replaced = None
                if child is not None and length >= INLINE_BYTES:
                    replaced = self.strip(child, body, position, depth + 1)
                    replaced = _field(number, replaced) if len(replaced) != length else None
                elif message == "tensor" and number == _RAW_DATA and length >= INLINE_BYTES:
                    # At the end of the tensor, where it wins over a data_location that the file spells out.
                    replaced, tail = b"", _self_reference(body, length)
                if replaced is not None:
                    out += (self.data[kept:field_start], replaced)
                    kept = position
            elif wire == 0:
                _, position = self._varint(position, end)
            elif wire in (1, 5):
                position += 8 if wire == 1 else 4
            else:
                raise _WireError(f"wire type {wire} at byte {field_start}")
        if position != end:
            raise _WireError(f"a field at byte {field_start} ends at {position}, past byte {end}")
        out += (self.data[kept:end], tail)
        return b"".join(out)

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        value = shift = 0
        while position < end and shift < 70:
            byte = self.data[position]
            position += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value, position
            shift += 7
        raise _WireError(f"the data ends, or is no number, at byte {position}")


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, body: bytes) -> bytes:
    return _encode_varint(number << 3 | 2) + _encode_varint(len(body)) + body


def _self_reference(offset: int, length: int) -> bytes:
    reference = onnx.TensorProto(data_location=onnx.TensorProto.EXTERNAL)
    for key, value in (("location", _SELF), ("offset", offset), ("length", length)):
        reference.external_data.add(key=key, value=str(value))
    return reference.SerializeToString()


# Data inside the message ----------------------------------------------------------------------------------------------

# TensorProto's typed fields for each element type; the rest is in int32_data, with two 4-bit elements a value.
_FIELDS = {"f32": "float_data", "f64": "double_data", "i64": "int64_data"}
_UNSIGNED_FIELDS = {"uint32": "uint64_data", "uint64": "uint64_data"}


def _typed_field(tensor: onnx.TensorProto) -> str:
    onnx_type = ONNX_TYPE_BY_CODE[tensor.data_type]
    return _UNSIGNED_FIELDS.get(onnx_type.name) or _FIELDS.get(onnx_type.storage, "int32_data")


def _inline_size(tensor: onnx.TensorProto) -> int:
    if tensor.HasField("raw_data"):
        return len(tensor.raw_data)
    return len(getattr(tensor, _typed_field(tensor)))


def _inline_bytes(tensor: onnx.TensorProto) -> np.ndarray:
    if tensor.HasField("raw_data"):
        return np.frombuffer(tensor.raw_data, np.uint8)
    onnx_type = ONNX_TYPE_BY_CODE[tensor.data_type]
    values = np.array(getattr(tensor, _typed_field(tensor)))
    bits = DTYPES[onnx_type.storage].bits
    if onnx_type.storage in ("f32", "f64"):
        return values.astype(onnx_numpy(onnx_type)).view(np.uint8)
    # int32_data and uint64_data hold bit patterns: float16 as its bits, int8 sign-extended.
    return values.astype(np.int64).astype(f"u{max(bits, 8) // 8}").view(np.uint8)
