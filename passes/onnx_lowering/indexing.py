"""Operators that read at computed positions: `pointwise` with `load_at`."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from fractions import Fraction

from ingot.dims import Dim
from ingot.passes.onnx_lowering.lowering import Lowering, lowering
from ingot.passes.onnx_lowering.region_builder import RegionBuilder, Scalar
from ingot.passes.onnx_lowering.values import Known, Source, TypedValue


@lowering("Gather")
def _gather(low: Lowering) -> Source:
    x, indices = low.tensor(0), low.source(1)
    axis = low.node.axis(low.attr("axis"), x.rank)
    if isinstance(indices, Known) and len(indices.elements) == 1 and isinstance(indices.elements[0], int):
        i = indices.elements[0]
        part = low.build.slice_axis(x, axis, i if i >= 0 else x.shape[axis] + i, 1)
        return low.build.reshape(part, low.shape)
    # With an axis of size 1 for each axis of x that follows, the indices are aligned with the domain.
    aligned = low.build.reshape(indices, (*indices.shape, *(1 for _ in x.shape[axis + 1 :])))

    def body(b: RegionBuilder) -> Scalar:
        at = b.wrapped_index(b.load(aligned), x.shape[axis])
        before = [b.index(i) for i in range(axis)]
        after = [b.index(i + indices.rank - 1) for i in range(axis + 1, x.rank)]
        return b.load_at(x, [*before, at, *after])

    return low.build.pointwise(x.type, low.shape, body)


@lowering("GatherElements")
def _gather_elements(low: Lowering) -> Source:
    x = low.tensor(0)
    axis = low.node.axis(low.attr("axis"), x.rank)

    def body(b: RegionBuilder) -> Scalar:
        at = b.wrapped_index(b.load(low.source(1)), x.shape[axis])
        return b.load_at(x, [at if i == axis else b.index(i) for i in range(x.rank)])

    return low.build.pointwise(x.type, low.shape, body)


@lowering("GatherND")
def _gather_nd(low: Lowering) -> Source:
    x, indices = low.tensor(0), low.tensor(1)
    batch = low.attr("batch_dims")
    depth = indices.shape[-1]
    assert isinstance(depth, int)
    lead = indices.rank - 1

    def body(b: RegionBuilder) -> Scalar:
        position = [b.index(i) for i in range(lead)]
        at = [b.index(i) for i in range(batch)]
        for k in range(depth):
            i = b.load_at(indices, [*position, b.const(k, "i64")])
            at.append(b.wrapped_index(i, x.shape[batch + k]))
        at += [b.index(lead + i) for i in range(x.rank - batch - depth)]
        return b.load_at(x, at)

    return low.build.pointwise(x.type, low.shape, body)


@lowering("ReverseSequence")
def _reverse_sequence(low: Lowering) -> Source:
    """The first `lengths` elements of each sequence of a batch in reverse, the others where they are."""
    x, lengths = low.tensor(0), low.source(1)
    batch, time = (low.node.axis(low.attr(n), x.rank) for n in ("batch_axis", "time_axis"))
    aligned = low.build.reshape(lengths, (*lengths.shape, *(1 for _ in x.shape[batch + 1 :])))

    def body(b: RegionBuilder) -> Scalar:
        length, at = b.to_index(b.load(aligned)), b.index(time)
        back = b.subi(b.subi(length, b.const(1, "i64")), at)
        source = b.clamped_index(b.select(b.cmpi_slt(at, length), back, at), x.shape[time])
        return b.load_at(x, [source if i == time else b.index(i) for i in range(x.rank)])

    return low.build.pointwise(x.type, low.shape, body)


# Resize ---------------------------------------------------------------------------------------------------------------

Position = Callable[[RegionBuilder], tuple[Scalar, Scalar]]
_COORDINATES = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric")
_MOST_TAPS = 64  # elements that one of the result is made of
_NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


@lowering("Resize")
def _resize(low: Lowering) -> Source:
    x = low.tensor(0)
    mode, coordinates, nearest = (low.attr(n) for n in ("mode", "coordinate_transformation_mode", "nearest_mode"))
    if mode not in ("nearest", "linear", "cubic"):
        raise low.fail(f"mode {mode!r} is not supported", "use nearest, linear or cubic")
    if coordinates not in _COORDINATES:
        raise low.fail(f"coordinate_transformation_mode {coordinates!r} is not supported", f"use {', '.join(_COORDINATES)}")
    if nearest not in _NEAREST:
        raise low.fail(f"nearest_mode {nearest!r} is not supported", f"use {', '.join(_NEAREST)}")
    changed = [i for i in range(x.rank) if low.shape[i] != x.shape[i]]
    axes = [i for i in changed if x.shape[i] != 1]  # one element is the same everywhere
    if low.attr("antialias") and any(not _grows(x.shape[i], low.shape[i]) for i in axes):
        raise low.fail("antialias=1 is supported only where sizes grow", "set antialias=0")
    ratios = {axis: _ratio(low, x, axis) for axis in axes}

    def source_position(b: RegionBuilder, axis: int) -> tuple[Scalar, Scalar]:
        """The position in x of the current element as a fraction (numerator, denominator > 0), exact."""
        i, (size, out) = b.index(axis), ratios[axis]
        if coordinates == "align_corners":
            # Over in * scale, which is not the result's size where that was rounded down (as in ONNX's own tests).
            last = x.shape[axis] - 1, x.shape[axis] * out - size
            if (size, out) == (x.shape[axis], low.shape[axis]):
                last = last[0], out - 1
                size = 1
            return b.muli(i, b.dim(last[0] * size)), b.maxsi(b.dim(last[1]), b.const(1, "i64"))
        n, d = b.dim(size), b.dim(out)
        if coordinates == "asymmetric":
            return b.muli(i, n), d
        two = b.const(2, "i64")
        numerator = b.subi(b.muli(b.addi(b.muli(i, two), b.const(1, "i64")), n), d)
        if coordinates == "pytorch_half_pixel":
            single = b.cmpi_eq(b.dim(low.shape[axis]), b.const(1, "i64"))
            numerator = b.select(single, b.const(0, "i64"), numerator)
        if coordinates == "half_pixel_symmetric":
            # The centers of both meet where the result's size was rounded down.
            numerator = b.addi(numerator, b.dim(x.shape[axis] * out - low.shape[axis] * size))
        return numerator, b.muli(d, two)

    def other_index(b: RegionBuilder, axis: int) -> Scalar:
        return b.const(0, "i64") if axis in changed else b.index(axis)

    def nearest_body(b: RegionBuilder) -> Scalar:
        indices = [
            b.clamped_index(_rounded(b, nearest, *source_position(b, i)), x.shape[i]) if i in axes else other_index(b, i)
            for i in range(x.rank)
        ]
        return b.load_at(x, indices)

    taps = (0, 1) if mode == "linear" else (-1, 0, 1, 2)

    def weighted_body(b: RegionBuilder) -> Scalar:
        neighbours: list[list[Scalar]] = []
        weights: list[list[Scalar]] = []
        for axis in axes:
            numerator, denominator = source_position(b, axis)
            below = b.floordivsi(numerator, denominator)
            rest = b.subi(numerator, b.muli(below, denominator))
            f = b.divf(b.to_float(rest), b.to_float(denominator))
            at = [b.addi(below, b.const(tap, "i64")) for tap in taps]
            neighbours.append([b.clamped_index(i, x.shape[axis]) for i in at])
            if mode == "linear":
                weights.append([b.subf(b.const(1, "f32"), f), f])
                continue
            found = _cubic_weights(b, f, low.attr("cubic_coeff_a"))
            if low.attr("exclude_outside"):
                zero = b.const(0, "f32")
                inside = (b.andi(b.cmpi_sge(i, b.const(0, "i64")), b.cmpi_slt(i, b.dim(x.shape[axis]))) for i in at)
                found = [b.select(is_inside, w, zero) for is_inside, w in zip(inside, found, strict=True)]
                whole = functools.reduce(b.addf, found)
                found = [b.divf(w, whole) for w in found]
            weights.append(found)
        total: Scalar | None = None
        for corner in itertools.product(range(len(taps)), repeat=len(axes)):
            at = [neighbours[axes.index(i)][corner[axes.index(i)]] if i in axes else other_index(b, i) for i in range(x.rank)]
            term = b.load_at(x, at)
            for k, side in enumerate(corner):
                term = b.mulf(term, weights[k][side])
            total = term if total is None else b.addf(total, term)
        assert total is not None
        return total

    if not changed:
        return x
    if mode != "nearest" and x.type.storage not in ("f32", "f16", "bf16"):
        raise low.fail(f"mode {mode} of element type {x.type.name} is not supported", "cast to float")
    if len(taps) ** len(axes) > _MOST_TAPS and mode != "nearest":
        raise low.fail(f"mode {mode} over {len(axes)} axes is not supported", "resize fewer axes at a time")
    return low.build.pointwise(x.type, low.shape, nearest_body if mode == "nearest" else weighted_body)


def _cubic_weights(b: RegionBuilder, f: Scalar, a: float) -> list[Scalar]:
    """The weights of the neighbours -1, 0, 1 and 2 of a position that lies `f` past neighbour 0 (Keys, "Cubic Convolution
    Interpolation for Digital Image Processing", 1981, with coefficient `a`)."""

    def polynomial(d: Scalar, *coefficients: float) -> Scalar:
        y = b.const(coefficients[0], "f32")
        for c in coefficients[1:]:
            y = b.addf(b.mulf(y, d), b.const(c, "f32"))
        return y

    one = b.const(1, "f32")
    rest = b.subf(one, f)
    near, far = (a + 2, -(a + 3), 0, 1), (a, -5 * a, 8 * a, -4 * a)
    inner = [polynomial(f, *near), polynomial(rest, *near)]
    return [polynomial(b.addf(one, f), *far), *inner, polynomial(b.addf(one, rest), *far)]


def _grows(size: Dim, out: Dim) -> bool:
    from ingot.passes.onnx_inference.facts import at_most

    return at_most(size, out)


def _ratio(low: Lowering, x: TypedValue, axis: int) -> tuple[Dim, Dim]:
    """Integers whose quotient is the step in x for each element of the result: the given scale's inverse, or in / out."""
    if low.has(3) or not low.has(2):
        return x.shape[axis], low.shape[axis]
    axes = low.attr("axes")
    axes = list(range(x.rank)) if axes is None else [low.node.axis(a, x.rank) for a in axes]
    scale = Fraction(low.node.value(2).ravel().tolist()[axes.index(axis)]).limit_denominator(1 << 16)
    return scale.denominator, scale.numerator


def _rounded(b: RegionBuilder, mode: str, numerator: Scalar, denominator: Scalar) -> Scalar:
    """A fraction rounded to an integer."""
    if mode in ("round_prefer_floor", "round_prefer_ceil"):
        two = b.const(2, "i64")
        # ceil(x - 1/2) and floor(x + 1/2).
        half = b.subi if mode == "round_prefer_floor" else b.addi
        numerator, denominator = half(b.muli(numerator, two), denominator), b.muli(denominator, two)
    if mode in ("floor", "round_prefer_ceil"):
        return b.floordivsi(numerator, denominator)
    zero = b.const(0, "i64")
    return b.subi(zero, b.floordivsi(b.subi(zero, numerator), denominator))
