"""Values of a group of threads.

The last axis of every array is the thread: of length T where the value differs between threads, or 1 where it is known
to be the same for all ("uniform"). A scalar is (T,), a vector (lanes, T), a struct of equal members (members, ..., T);
a struct of different members is a tuple. Pointers are int64 addresses (memory.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np

_SCALARS = {
    "i1": np.dtype(bool),
    "i8": np.dtype(np.int8),
    "i16": np.dtype(np.int16),
    "i32": np.dtype(np.int32),
    "i64": np.dtype(np.int64),
    "index": np.dtype(np.int64),
    "f16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
}
UNSIGNED = {np.dtype(f"int{n}"): np.dtype(f"uint{n}") for n in (8, 16, 32, 64)} | {np.dtype(bool): np.dtype(bool)}


@dataclass(frozen=True)
class Kind:
    """A type as the emulator needs it.

    Attributes:
        dtype: numpy type of the elements.
        shape: axes before the thread axis: () for scalars, (lanes,) for vectors, (members, ...) for structs of equal members.
        members: kinds of a struct with different members, else ().
        space: address space where it is a pointer, else -1.
    """

    dtype: np.dtype
    shape: tuple[int, ...] = ()
    members: tuple[Kind, ...] = ()
    space: int = -1

    @property
    def nbytes(self) -> int:
        """Bytes in memory (structs of equal members and no padding included)."""
        count = 1
        for n in self.shape:
            count *= n
        return count * self.dtype.itemsize


@cache
def kind_of(text: str) -> Kind:
    """The kind of an MLIR type given as text."""
    if text in _SCALARS:
        return Kind(_SCALARS[text])
    if m := re.fullmatch(r"!llvm\.ptr(?:<(\d+)>)?|ptr(?:<(\d+)>)?", text):
        return Kind(np.dtype(np.int64), space=int(m[1] or m[2] or 0))
    if m := re.fullmatch(r"vector<(\d+)x(.+)>", text):
        element = kind_of(m[2])
        return Kind(element.dtype, (int(m[1]),), space=element.space)
    if m := re.fullmatch(r'!llvm\.struct<(?:"[^"]*", )?\((.*)\)>', text):
        members = tuple(kind_of(part) for part in _split(m[1]))
        if all(k == members[0] for k in members):
            return Kind(members[0].dtype, (len(members), *members[0].shape))
        return Kind(np.dtype(object), members=members)
    raise NotImplementedError(f"the emulator has no values of type {text}")


def _split(text: str) -> list[str]:
    """Parts of a comma-separated list, brackets respected."""
    parts, depth, start = [], 0, 0
    for i, c in enumerate(text):
        depth += (c in "<(") - (c in ">)")
        if c == "," and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    return [*parts, text[start:].strip()]


class InFlight:
    """Registers of an unfinished wgmma:

    `array` as it will be, and for each thread the number of the wgmma group it belongs to.
    """

    __slots__ = ("array", "group")

    def __init__(self, array: np.ndarray, group: np.ndarray) -> None:
        self.array, self.group = array, group


def transform(value: Any, f: Callable[[np.ndarray], np.ndarray]) -> Any:
    """`f` on every array of a value."""
    if isinstance(value, np.ndarray):
        return f(value)
    if isinstance(value, InFlight):
        return InFlight(f(value.array), f(value.group))
    return tuple(transform(v, f) for v in value)


def take(value: Any, index: np.ndarray) -> Any:
    """The value of some of the threads."""
    if isinstance(value, np.ndarray):
        return value if value.shape[-1] == 1 else value[..., index]
    return transform(value, lambda a: take(a, index))


def spread(array: np.ndarray, threads: int) -> np.ndarray:
    """The array with its last axis of length `threads`."""
    return array if array.shape[-1] == threads else np.broadcast_to(array, (*array.shape[:-1], threads))


def join(parts: list[Any], sizes: list[int], order: np.ndarray) -> Any:
    """One value of several groups' values: concatenated, then reordered; uniform where all parts are and agree."""
    first = parts[0]
    if isinstance(first, tuple):
        return tuple(join([p[i] for p in parts], sizes, order) for i in range(len(first)))
    if any(isinstance(p, InFlight) for p in parts):
        parts = [p if isinstance(p, InFlight) else InFlight(p, np.array([-1])) for p in parts]
        arrays = join([p.array for p in parts], sizes, order)
        return InFlight(arrays, join([p.group for p in parts], sizes, order))
    if all(p.shape[-1] == 1 for p in parts):
        if all(p is first or same(p, first) for p in parts[1:]):
            return first
    return np.concatenate([spread(p, n) for p, n in zip(parts, sizes, strict=True)], axis=-1)[..., order]


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal bits."""
    return a.shape == b.shape and a.tobytes() == b.tobytes()


def blend(index: np.ndarray, value: Any, other_index: np.ndarray, other: Any, threads: int) -> Any:
    """The value of `threads` threads of which those at `index` have `value` and those at `other_index` have `other`."""
    if isinstance(value, tuple):
        return tuple(blend(index, v, other_index, o, threads) for v, o in zip(value, other, strict=True))
    if isinstance(value, InFlight) or isinstance(other, InFlight):
        value, other = (v if isinstance(v, InFlight) else InFlight(v, np.array([-1])) for v in (value, other))
        array = blend(index, value.array, other_index, other.array, threads)
        return InFlight(array, blend(index, value.group, other_index, other.group, threads))
    out = np.empty((*value.shape[:-1], threads), value.dtype)
    out[..., index] = value
    out[..., other_index] = other
    return out
