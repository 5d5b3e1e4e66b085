"""Dispatches as plain data: what the AOT IR hands to code generation, and what keys a kernel.

A `Dispatch` is one root operation of the `ingot` dialect with everything that decides its code and nothing else: no
location, no value names, no weights. Dimensions that are not constant are renumbered `d0, d1, ...` in order of appearance,
so that equal dispatches of different models are equal objects with equal keys.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from ingot import dims
from ingot.dims import Dim
from ingot.dtypes import DTYPES, DType

Attr = bool | int | float | str | tuple["Attr", ...]


@dataclass(frozen=True)
class TensorArg:
    """A tensor as a kernel sees it: a strided view of memory.

    Attributes:
        dtype: storage type, a key of `ingot.dtypes.DTYPES`.
        shape: sizes; constants or expressions over the dispatch's symbols.
        strides: in elements; 0 repeats an element along the axis (broadcast).
        align: bytes that the lowest address of an element is known to be a multiple of: that of element 0 where no stride is
            negative.
    """

    dtype: str
    shape: tuple[Dim, ...]
    strides: tuple[Dim, ...]
    align: int = 64

    def __post_init__(self) -> None:
        assert self.dtype in DTYPES, self.dtype
        assert len(self.shape) == len(self.strides), (self.shape, self.strides)

    @property
    def type(self) -> DType:
        return DTYPES[self.dtype]

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def is_contiguous(self) -> bool:
        """True where the view is known to be row-major without gaps (axes of size 1 may have any stride)."""
        expected = dims.row_major(self.shape)
        return all(s == e or d == 1 for d, s, e in zip(self.shape, self.strides, expected, strict=True))


def contiguous(dtype: str, *shape: int | str | Dim, align: int = 64) -> TensorArg:
    """A row-major tensor; dimensions may be given as text."""
    sizes = tuple(dims.as_dim(d) for d in shape)
    return TensorArg(dtype, sizes, dims.row_major(sizes), align)


@dataclass(frozen=True)
class ScalarInst:
    """One instruction of a scalar region; its value is numbered after the region's arguments and earlier instructions.

    `op` is a row of `ingot.dialects.scalar_table`, or one of the region's own:

    - `load` (attrs: `operand`): the element of an operand at the current index. The operand's shape is right-aligned with the
      iteration domain; an axis of size 1 against a larger one repeats.
    - `load_at` (attrs: `operand`; args: one i64 per axis of the operand): the element at computed indices, all in range.
    - `index` (attrs: `axis`): the i64 position along an axis of the iteration domain.
    - `dim` (attrs: `dim`, a shape expression's text): its i64 value.
    - `const` (attrs: `value`, a Python number).
    """

    op: str
    args: tuple[int, ...]
    type: str
    attrs: tuple[tuple[str, Attr], ...] = ()

    def attr(self, name: str) -> Any:
        return dict(self.attrs)[name]


@dataclass(frozen=True)
class ScalarRegion:
    """A scalar program run for every element of an iteration domain.

    Attributes:
        args: types of the region's arguments (the root's own values: an accumulator, a normalized element, ...).
        insts: instructions in order.
        results: numbers of the values it yields.
    """

    args: tuple[str, ...]
    insts: tuple[ScalarInst, ...]
    results: tuple[int, ...]

    def type_of(self, value: int) -> str:
        return self.args[value] if value < len(self.args) else self.insts[value - len(self.args)].type

    @property
    def is_identity(self) -> bool:
        """True where it yields its only argument unchanged."""
        return not self.insts and self.results == (0,)


@dataclass(frozen=True)
class Dispatch:
    """One root operation, canonical.

    Attributes:
        root: name in the `ingot` dialect without the prefix: `matmul`, `conv`, `pointwise`, ...
        operands: tensors read, in the order of the root's own operands, then those its regions load.
        results: tensors written.
        attrs: the root's attributes, sorted by name.
        regions: the root's scalar regions, in the operation's order.
        symbols: names of the run-time sizes, in the order in which kernels find them in their size table.
        multiples: for each symbol, a constant known to divide it.
        live: symbols whose values change while the kernel's launch stays as it is (a growing KV cache's length).
        offsets: (`operand` or `result`, number, bytes) of tensors that begin so many bytes behind the address that launches
            pass. Kernels compute it from their size table, so that a launch stays as it is where only a view's beginning
            changes (the part of a KV cache that is appended to).
    """

    root: str
    operands: tuple[TensorArg, ...]
    results: tuple[TensorArg, ...]
    attrs: tuple[tuple[str, Attr], ...] = ()
    regions: tuple[ScalarRegion, ...] = ()
    symbols: tuple[str, ...] = ()
    multiples: tuple[int, ...] = ()
    live: tuple[str, ...] = field(default=())
    offsets: tuple[tuple[str, int, Dim], ...] = ()

    def attr(self, name: str, default: Any = None) -> Any:
        return dict(self.attrs).get(name, default)

    @cached_property
    def text(self) -> str:
        """Canonical text: equal dispatches have equal text in every process."""
        return json.dumps(to_json(self), sort_keys=True, separators=(",", ":"))

    @cached_property
    def key(self) -> str:
        """Hash of the canonical text, in hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def specialize(self, values: dict[str, int]) -> Dispatch:
        """The dispatch with some symbols made constants."""

        def fix(d: Dim) -> Dim:
            return dims.substitute(d, values)

        def tensor(t: TensorArg) -> TensorArg:
            return replace(t, shape=tuple(map(fix, t.shape)), strides=tuple(map(fix, t.strides)))

        def inst(i: ScalarInst) -> ScalarInst:
            if i.op != "dim":
                return i
            d = fix(dims.parse(i.attr("dim")))
            if isinstance(d, int):
                return ScalarInst("const", (), i.type, (("value", d),))
            return replace(i, attrs=(("dim", str(d)),))

        kept = [(s, m) for s, m in zip(self.symbols, self.multiples, strict=True) if s not in values]
        return replace(
            self,
            operands=tuple(map(tensor, self.operands)),
            results=tuple(map(tensor, self.results)),
            regions=tuple(replace(r, insts=tuple(map(inst, r.insts))) for r in self.regions),
            symbols=tuple(s for s, _ in kept),
            multiples=tuple(m for _, m in kept),
            live=tuple(s for s in self.live if s not in values),
            offsets=tuple((kind, index, fix(nbytes)) for kind, index, nbytes in self.offsets),
        )

    @property
    def placing(self) -> frozenset[str]:
        """The symbols that say where tensors begin, and nothing else."""
        used = [d for t in (*self.operands, *self.results) for d in (*t.shape, *t.strides)]
        used += [dims.parse(i.attr("dim")) for r in self.regions for i in r.insts if i.op == "dim"]
        return dims.symbols_of(nbytes for _, _, nbytes in self.offsets) - dims.symbols_of(used)

    def without_known_offsets(self) -> tuple[Dispatch, dict[tuple[str, int], int]]:
        """The dispatch without the offsets that are constants, and these: a launch's addresses can hold them."""
        known = {(kind, index): nbytes for kind, index, nbytes in self.offsets if isinstance(nbytes, int)}
        return replace(self, offsets=tuple(o for o in self.offsets if o[:2] not in known)), known


def to_json(d: Dispatch) -> dict[str, Any]:
    """Plain JSON data; `from_json` inverts it."""

    def tensor(t: TensorArg) -> list:
        return [t.dtype, [_dim(x) for x in t.shape], [_dim(x) for x in t.strides], t.align]

    def region(r: ScalarRegion) -> list:
        return [list(r.args), [[i.op, list(i.args), i.type, dict(i.attrs)] for i in r.insts], list(r.results)]

    return {
        "root": d.root,
        "operands": [tensor(t) for t in d.operands],
        "results": [tensor(t) for t in d.results],
        "attrs": dict(d.attrs),
        "regions": [region(r) for r in d.regions],
        "symbols": list(d.symbols),
        "multiples": list(d.multiples),
        "live": list(d.live),
        "offsets": [[kind, index, _dim(nbytes)] for kind, index, nbytes in d.offsets],
    }


def from_json(data: dict[str, Any]) -> Dispatch:
    """The dispatch that `to_json` wrote."""

    def tensor(t: list) -> TensorArg:
        return TensorArg(t[0], tuple(map(dims.as_dim, t[1])), tuple(map(dims.as_dim, t[2])), t[3])

    def attrs(a: dict[str, Any]) -> tuple:
        return tuple((k, _freeze(a[k])) for k in sorted(a))

    def region(r: list) -> ScalarRegion:
        insts = tuple(ScalarInst(op, tuple(args), ty, attrs(at)) for op, args, ty, at in r[1])
        return ScalarRegion(tuple(r[0]), insts, tuple(r[2]))

    return Dispatch(
        data["root"],
        tuple(map(tensor, data["operands"])),
        tuple(map(tensor, data["results"])),
        attrs(data["attrs"]),
        tuple(map(region, data["regions"])),
        tuple(data["symbols"]),
        tuple(data["multiples"]),
        tuple(data["live"]),
        tuple((kind, index, dims.as_dim(nbytes)) for kind, index, nbytes in data["offsets"]),
    )


def _dim(d: Dim) -> int | str:
    return d if isinstance(d, int) else str(d)


def _freeze(x: Any) -> Attr:
    return tuple(map(_freeze, x)) if isinstance(x, list) else x


def known_multiple(d: Dim, dispatch: Dispatch) -> int:
    """The largest constant known to divide `d` (0 for 0), counting what the dispatch says about its symbols."""
    if isinstance(d, int):
        return abs(d)
    of = dict(zip(dispatch.symbols, dispatch.multiples, strict=True))
    parts = []
    for monomial, c in d.terms:
        for atom in monomial:
            c *= of.get(atom.text, 1) if atom.function is None else 1
        parts.append(c)
    return math.gcd(*parts)
