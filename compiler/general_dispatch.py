"""One dispatch for products of many sizes: constants of their shapes become sizes that kernels read at run time.

Layers of a model differ in channels, and each channel count is a kernel of its own. Fewer kernels that serve several layers are
there sooner, and serve until those for the sizes at hand are there (`ingot.runtime.specialization`, which makes these sizes
constants again).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ingot import dims
from ingot.dims import Dim
from ingot.dispatch import Dispatch, TensorArg

_LEAST = 64  # smaller sizes stay constants: kernels are chosen by them
_MULTIPLE = 64  # at most so much of a size's divisors is part of the dispatch: a tile's step along k


def generalize(dispatch: Dispatch, sizes: tuple[Dim, ...]) -> tuple[Dispatch, tuple[Dim, ...]]:
    """A matmul or convolution for any columns and any k that have the same powers of two as divisors, an attention for any
    number of heads; and the values of the dispatch's symbols.

    Strides that are constants become sizes too, where the tensor is not contiguous. Any other dispatch stays what it is, and so
    do those of groups, of quantized operands, and of constant shape, which need no other kernel later.

    Args:
        sizes: the values of the dispatch's symbols.
    """
    rule = _RULES.get(dispatch.root)
    if rule is None or not dispatch.symbols:
        return dispatch, sizes
    names = _Names(len(dispatch.symbols))
    shapes = rule(dispatch, names)
    if shapes is None:
        return dispatch, sizes
    tensors = [_with_shape(t, shape, names) for t, shape in zip((*dispatch.operands, *dispatch.results), shapes, strict=True)]
    count = len(dispatch.operands)
    general = replace(
        dispatch,
        operands=tuple(tensors[:count]),
        results=tuple(tensors[count:]),
        symbols=(*dispatch.symbols, *names.names),
        multiples=(*dispatch.multiples, *names.multiples),
    )
    return general, (*sizes, *names.values)


@dataclass
class _Names:
    """New symbols, their values, and what divides them."""

    first: int
    names: list[str] = field(default_factory=list)
    values: list[int] = field(default_factory=list)
    multiples: list[int] = field(default_factory=list)

    def size(self, d: Dim) -> Dim:
        """A symbol for a constant that need not be one."""
        if not isinstance(d, int) or d < _LEAST or d % 8:
            return d
        return self.add(d, math.gcd(d, _MULTIPLE))

    def add(self, value: int, multiple: int) -> dims.Expr:
        """A symbol for a constant."""
        self.names.append(f"d{self.first + len(self.names)}")
        self.values.append(value)
        self.multiples.append(multiple)
        return dims.symbol(self.names[-1])


def _product(d: Dispatch, names: _Names) -> list[tuple[Dim, ...]] | None:
    """New shapes of the tensors of a matmul or a convolution, results last; None where it stays what it is."""
    a, b, result = d.operands[0], d.operands[1], d.results[0]
    if d.attr("groups", 1) != 1 or any(d.attr(n, False) for n in ("transposed", "a_block", "b_block")):
        return None
    if min(a.rank, b.rank, result.rank) < 2:
        return None
    k, n = names.size(a.shape[-1]), names.size(result.shape[-1])
    shapes = [(*a.shape[:-1], k), (n, *b.shape[1:-1], k) if d.root == "conv" else (*b.shape[:-2], k, n)]
    columns = result.shape[-1]
    for t in (*d.operands[2:], *d.results):
        shapes.append((*t.shape[:-1], n) if t.rank and t.shape[-1] == columns else t.shape)
    return shapes


def _attention(d: Dispatch, names: _Names) -> list[tuple[Dim, ...]] | None:
    """As `_product`, of an attention in which each head has keys of its own."""
    heads = d.operands[0].shape[1]
    if not isinstance(heads, int) or heads < 2 or any(t.shape[1] != heads for t in d.operands[1:3]):
        return None
    h = names.add(heads, 1)
    own = (*d.operands[:3], *d.results)
    return [(t.shape[0], h, *t.shape[2:]) if t in own else t.shape for t in (*d.operands, *d.results)]


_RULES = {"matmul": _product, "conv": _product, "attention": _attention}


def _with_shape(t: TensorArg, shape: Sequence[Dim], names: _Names) -> TensorArg:
    """A tensor of another shape, its strides in the symbols of that shape, or in some of their own."""
    shape = tuple(shape)
    if t.strides == dims.row_major(t.shape):
        return replace(t, shape=shape, strides=dims.row_major(shape))
    if t.rank >= 2 and t.strides == _column_major(t.shape):
        return replace(t, shape=shape, strides=_column_major(shape))
    strides: list[Dim] = [0] * t.rank
    known: list[tuple[int, Dim]] = []  # constants that became symbols
    for axis in reversed(range(t.rank)):
        stride = t.strides[axis]
        if t.shape[axis] == 1:
            strides[axis] = strides[axis + 1] * shape[axis + 1] if axis + 1 < t.rank else 1
            continue
        strides[axis] = stride
        for value, symbol in sorted(known, key=lambda entry: -entry[0]):
            quotient = dims.exact_div(stride, value)
            if quotient is not None:
                strides[axis] = quotient * symbol
                break
        else:
            if isinstance(stride, int):
                strides[axis] = names.size(stride)
                if strides[axis] != stride:
                    known.append((stride, strides[axis]))
    return replace(t, shape=shape, strides=tuple(strides))


def _column_major(shape: Sequence[Dim]) -> tuple[Dim, ...]:
    """The strides of a contiguous tensor whose last two axes are swapped in memory."""
    *lead, rows, columns = shape
    strides = dims.row_major((*lead, columns, rows))
    return (*strides[:-2], strides[-1], strides[-2])
