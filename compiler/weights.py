"""Weights beside the IR: tensors by name, mapped from the model's files where possible and never copied into the IR."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
from math import prod

import numpy as np

from ingot.dtypes import DTYPES, ONNX_TYPES, OnnxType, nibbles, onnx_numpy


@dataclass(frozen=True)
class FileRegion:
    """Where a tensor's packed little-endian bytes lie in a file."""

    path: str
    offset: int
    length: int


@dataclass
class WeightSource:
    """One tensor.

    Attributes:
        onnx_type: element type with signedness.
        shape: sizes.
        read: gives the packed little-endian bytes as a one-dimensional uint8 array: a view of the mapped file, of the protobuf
            message or of an array wherever the data is stored packed.
        region: the bytes' place in a file, where they have one, for writers that copy file to file.
    """

    onnx_type: OnnxType
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray] = field(repr=False)
    region: FileRegion | None = None

    @property
    def dtype(self) -> str:
        """Name of the storage type (`ingot.dtypes.DTYPES`)."""
        return self.onnx_type.storage

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Packed bytes."""
        return DTYPES[self.onnx_type.storage].nbytes(self.elements)

    def bytes(self) -> np.ndarray:
        """The packed little-endian bytes, uint8 [nbytes]: 4-bit elements two a byte, low nibble first."""
        data = self.read()
        if data.size != self.nbytes:
            raise ValueError(
                f"{data.size} bytes of data for {self.onnx_type.name}{list(self.shape)}, which takes {self.nbytes}"
            )
        return data

    def array(self) -> np.ndarray:
        """The tensor in its numpy dtype, of ml_dtypes where numpy has none; a view, except that 4-bit data is unpacked."""
        data = self.bytes()
        dtype = onnx_numpy(self.onnx_type)
        if DTYPES[self.onnx_type.storage].bits != 4:
            return data.view(dtype).reshape(self.shape)
        codes = np.empty(data.size * 2, np.uint8)
        np.bitwise_and(data, 15, out=codes[0::2])
        np.right_shift(data, 4, out=codes[1::2])
        codes = codes[: self.elements].reshape(self.shape)
        if self.onnx_type.storage == "i4":
            if self.onnx_type.signed:  # sign-extend
                return ((codes.view(np.int8) ^ 8) - 8).astype(dtype)
            return codes.astype(dtype)
        return codes.view(dtype)

    def digest(self) -> str:
        """A hash (of SHA-256 the first 64 bits) of its type, sizes and bytes."""
        found = hashlib.sha256(f"{self.onnx_type.name}{list(self.shape)}".encode())
        found.update(np.ascontiguousarray(self.bytes()).data)
        return found.hexdigest()[:16]

    @staticmethod
    def from_array(array: np.ndarray) -> WeightSource:
        """A source over an array (shared, not copied, if it is contiguous). Raises ValueError for a dtype that ONNX lacks."""
        onnx_type = onnx_type_of_numpy(array.dtype)
        shape = array.shape
        if DTYPES[onnx_type.storage].bits == 4:
            packed = pack_nibbles(array)
        else:
            packed = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        return WeightSource(onnx_type, shape, lambda: packed)


def read_as(source: WeightSource | np.ndarray, dtype: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """A weight as an array of a storage type and sizes: its own, or bytes that stand for packed elements of another type.

    The bytes of the one must be those of the other: None where they are not. Nothing is copied, except that 4-bit data is
    unpacked.
    """
    found = WeightSource.from_array(source) if isinstance(source, np.ndarray) else source
    if not reads_as((found.dtype, found.shape), dtype, shape):
        return None
    if isinstance(source, np.ndarray) and found.dtype == dtype and not found.onnx_type.narrow:
        return source.view(DTYPES[dtype].np)
    return WeightSource(type_of_storage(dtype), shape, found.bytes).array().view(DTYPES[dtype].np)


def reads_as(stored: tuple[str, tuple[int, ...]], dtype: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor of a storage type and sizes can be read as another: it is the same, or holds its packed bytes as i8."""
    if stored == (dtype, shape):
        return True
    bits = DTYPES[dtype].bits
    return stored[0] == "i8" and dtype != "i8" and bits <= 8 and prod(stored[1]) == DTYPES[dtype].nbytes(prod(shape))


def type_of_storage(dtype: str) -> OnnxType:
    """The ONNX type whose elements are stored as `dtype`: of integers the signed one."""
    return next(t for t in ONNX_TYPES if t.storage == dtype and (t.signed or dtype == "i1"))


def onnx_type_of_numpy(dtype: np.dtype) -> OnnxType:
    """The ONNX type of a numpy dtype. Raises ValueError for one that ONNX lacks."""
    for t in ONNX_TYPES:
        if onnx_numpy(t) == dtype:
            return t
    raise ValueError(f"numpy dtype {dtype} has no ONNX type")


def pack_nibbles(array: np.ndarray) -> np.ndarray:
    """The elements of a 4-bit array in C order, two a byte, low nibble first: uint8 [ceil(elements / 2)]."""
    codes = nibbles(array)
    if codes.size % 2:
        codes = np.append(codes, np.uint8(0))
    return codes[0::2] | (codes[1::2] << 4)


def from_onnx_bytes(data: np.ndarray, onnx_type: OnnxType, elements: int) -> np.ndarray:
    """The bytes of a tensor of ONNX as those of its storage type: of 2-bit elements, which ONNX packs four a byte, nibbles."""
    if onnx_type.narrow is None:
        return data
    codes = np.stack([(data >> shift) & 3 for shift in range(0, 8, 2)], -1).reshape(-1)[:elements]
    return pack_nibbles(codes.view(onnx_numpy(onnx_type)))


def to_onnx_bytes(source: WeightSource) -> np.ndarray:
    """The bytes of a tensor as ONNX packs them, low bits first."""
    if source.onnx_type.narrow is None:
        return source.bytes()
    codes = source.array().reshape(-1).astype(np.int8).view(np.uint8) & 3
    quarters = np.append(codes, np.zeros(-codes.size % 4, np.uint8)).reshape(-1, 4) << np.arange(0, 8, 2, dtype=np.uint8)
    return np.bitwise_or.reduce(quarters, axis=1, dtype=np.uint8)


class WeightStore:
    """Weights by name, in the order in which they were added.

    Attributes:
        constants: small tensors of the model that are not weights but parts of the IR, by name.
        made: names of those that passes made, which no model has.
    """

    def __init__(self) -> None:
        self._sources: dict[str, WeightSource] = {}
        self._examined: set[str] = set()
        self.constants: dict[str, WeightSource] = {}
        self.made: set[str] = set()

    def __getitem__(self, name: str) -> WeightSource:
        return self._sources[name]

    def __contains__(self, name: object) -> bool:
        return name in self._sources

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)

    def __delitem__(self, name: str) -> None:
        del self._sources[name]

    def add(self, name: str, source: WeightSource) -> str:
        """Store `source` under `name`, or under a name made from it where that is taken; returns the name."""
        name = self.unique_name(name)
        self._sources[name] = source
        return name

    def add_array(self, name: str, array: np.ndarray, *, made: bool = False) -> str:
        """Store an array, of the model or `made` by a pass; see `add`."""
        name = self.add(name, WeightSource.from_array(array))
        if made:
            self.made.add(name)
        return name

    def elements(self, name: str) -> np.ndarray:
        """The elements of a weight, for a decision that the IR keeps: a refit with others is refused (`folded`), unless the IR
        reads the weight, too."""
        self._examined.add(name)
        return self._sources[name].array()

    def folded(self, read: Container[str]) -> dict[str, str]:
        """Digests of what has become a part of the IR, by name; `read`: names of the weights that the IR reads."""
        examined = {name: self._sources[name] for name in self._examined if name in self._sources and name not in read}
        return {name: source.digest() for name, source in sorted((examined | self.constants).items())}

    def unique_name(self, name: str) -> str:
        """`name`, or `name_1`, `name_2`, .. where it is taken."""
        if name not in self._sources:
            return name
        return next(n for i in range(1, len(self._sources) + 2) if (n := f"{name}_{i}") not in self._sources)

    @property
    def nbytes(self) -> int:
        """Packed bytes of all weights."""
        return sum(s.nbytes for s in self._sources.values())
