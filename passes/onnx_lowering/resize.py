"""Resize: elements interpolated at positions that are exact fractions of integers, or floats where a region is cropped.

One `pointwise` root reads the neighbours along all axes; where there are too many of them, or as many as sizes say, each axis
is a `reduce` of its own.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from fractions import Fraction

from ingot import dims
from ingot.dims import Dim
from ingot.dtypes import OnnxType
from ingot.passes.onnx_inference.facts import at_most
from ingot.passes.onnx_lowering.graph_builder import FLOAT
from ingot.passes.onnx_lowering.lowering import Lowering, lowering
from ingot.passes.onnx_lowering.region_builder import RegionBuilder, Scalar
from ingot.passes.onnx_lowering.sampling import whole
from ingot.passes.onnx_lowering.values import Known, Source, TypedValue

_COORDINATES = (
    "half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric", "tf_crop_and_resize",
)  # fmt: skip
_NEAREST = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
_REACH = {"linear": 1, "cubic": 2}  # how far an element's weight reaches, in elements of x
_MOST_TAPS = 64  # elements that one of the result is made of in one root


@lowering("Resize")
def _resize(low: Lowering) -> Source:
    x = low.tensor(0)
    mode, coordinates, nearest = (low.attr(n) for n in ("mode", "coordinate_transformation_mode", "nearest_mode"))
    if mode != "nearest" and mode not in _REACH:
        raise low.fail(f"mode {mode!r} is not supported", "use nearest, linear or cubic")
    if coordinates not in _COORDINATES:
        raise low.fail(f"coordinate_transformation_mode {coordinates!r} is not supported", f"use {', '.join(_COORDINATES)}")
    if nearest not in _NEAREST:
        raise low.fail(f"nearest_mode {nearest!r} is not supported", f"use {', '.join(_NEAREST)}")
    # One element is the same everywhere.
    axes = [a for a in (_Axis(low, i) for i in range(x.rank)) if a.size != 1 and not a.is_identity]
    if not axes:
        return low.build.expand(x, low.shape)
    if mode == "nearest":
        return _nearest(low, axes)
    if x.type.storage not in ("f32", "f16", "bf16"):
        raise low.fail(f"mode {mode} of element type {x.type.name} is not supported", "cast to float")
    shrinks = low.attr("antialias") and not all(a.grows for a in axes)
    if shrinks or (2 * _REACH[mode]) ** len(axes) > _MOST_TAPS:
        return _by_axis(low, axes)
    return _at_once(low, axes)


class _Axis:
    """One axis of a Resize, and where along it an element of the result lies in x.

    Attributes:
        size, out: sizes of x and of the result.
        step: integers whose quotient is the step in x for each element of the result.
    """

    def __init__(self, low: Lowering, axis: int) -> None:
        x = low.tensor(0)
        self.low, self.axis = low, axis
        self.size, self.out = x.shape[axis], low.shape[axis]
        named = low.attr("axes")
        self._axes = list(range(x.rank)) if named is None else [low.node.axis(a, x.rank) for a in named]
        self._coordinates = low.attr("coordinate_transformation_mode")
        self._crops = self._coordinates == "tf_crop_and_resize" and axis in self._axes
        self.step = self._step() if axis in self._axes else (self.size, self.out)

    def _step(self) -> tuple[Dim, Dim]:
        """The given scale's inverse, or size / out; where the aspect ratio is kept, that of the axis that decides."""
        low, number = self.low, self._axes.index(self.axis)
        if not low.has(3):
            scale = Fraction(low.node.value(2).ravel().tolist()[number]).limit_denominator(1 << 16)
            return scale.denominator, scale.numerator
        policy = low.attr("keep_aspect_ratio_policy")
        if policy in (None, "stretch"):
            return self.size, self.out
        pick = dims.minimum if policy == "not_larger" else dims.maximum
        steps = [(low.tensor(0).shape[a], s) for a, s in zip(self._axes, low.node.sizes(3), strict=True)]
        size, wanted = steps[0]
        for other_size, other in steps[1:]:
            mine, others = wanted * other_size, other * size
            chosen = pick(mine, others)
            size, wanted = dims.select(chosen, mine, size, other_size), dims.select(chosen, mine, wanted, other)
        return size, wanted

    @property
    def grows(self) -> bool:
        """Whether the result is known to have no fewer elements."""
        return at_most(self.size, self.out)

    @property
    def is_identity(self) -> bool:
        """Whether an element of the result is the one of x at the same place."""
        if self.size != self.out:
            return False
        if not self._crops:
            return self.step[0] == self.step[1]  # a scale may move elements and still round to the same size
        region = self.low.source(1)
        number = self._axes.index(self.axis)
        return isinstance(region, Known) and region.elements[number] == 0 and region.elements[number + len(self._axes)] == 1

    def neighbour(self, b: RegionBuilder) -> tuple[Scalar, Scalar]:
        """The index in x at or before the current element, and how far, from 0 to 1, the element lies past it."""
        if self._crops:
            x = self._cropped(b)
            below = b.floor(x)
            return whole(b, below), b.subf(x, below)
        numerator, denominator = self._position(b)
        below = b.floordivsi(numerator, denominator)
        rest = b.subi(numerator, b.muli(below, denominator))
        return below, b.divf(b.to_float(rest), b.to_float(denominator))

    def nearest(self, b: RegionBuilder) -> Scalar:
        """The index in x that is nearest to the current element."""
        mode = self.low.attr("nearest_mode")
        at = _rounded_float(b, mode, self._cropped(b)) if self._crops else _rounded(b, mode, *self._position(b))
        return b.clamped_index(at, self.size)

    def filled(self, b: RegionBuilder, y: Scalar) -> Scalar:
        """`y`, or the extrapolation value where the current element lies outside of x."""
        if not self._crops:
            return y
        x = self._cropped(b)
        last = b.to_float(b.dim(self.size - 1))
        outside = b.ori(b.cmpf_olt(x, b.like(0, x)), b.cmpf_ogt(x, last))
        return b.select(outside, b.like(self.low.attr("extrapolation_value"), y), y)

    def _position(self, b: RegionBuilder) -> tuple[Scalar, Scalar]:
        """The position in x of the current element as a fraction (numerator, denominator > 0), exact."""
        i, (size, out) = b.index(self.axis), self.step
        coordinates = self._coordinates
        if coordinates == "align_corners":
            # Over in * scale, which is not the result's size where that was rounded down (as in ONNX's own tests).
            last, span = (self.size - 1) * size, self.size * out - size
            if (size, out) == (self.size, self.out):
                last, span = self.size - 1, self.out - 1
            return b.muli(i, b.dim(last)), b.maxsi(b.dim(span), b.const(1, "i64"))
        n, d = b.dim(size), b.dim(out)
        if coordinates == "asymmetric":
            return b.muli(i, n), d
        two = b.const(2, "i64")
        numerator = b.subi(b.muli(b.addi(b.muli(i, two), b.const(1, "i64")), n), d)
        if coordinates == "pytorch_half_pixel":
            single = b.cmpi_eq(b.dim(self.out), b.const(1, "i64"))
            numerator = b.select(single, b.const(0, "i64"), numerator)
        if coordinates == "half_pixel_symmetric":
            # The centers of both meet where the result's size was rounded down.
            numerator = b.addi(numerator, b.dim(self.size * out - self.out * size))
        return numerator, b.muli(d, two)

    def _cropped(self, b: RegionBuilder) -> Scalar:
        """The position in x of the current element, of those that span the region."""
        number = self._axes.index(self.axis)
        regions = self.low.source(1)
        start, end = (b.to_float(b.load_at(regions, [b.const(i, "i64")])) for i in (number, number + len(self._axes)))
        last = b.to_float(b.dim(self.size - 1))
        extent = b.subf(end, start)
        if self.out == 1:
            along = b.mulf(b.mulf(extent, last), b.const(0.5, "f32"))
        else:
            spread = b.divf(b.mulf(b.mulf(b.to_float(b.index(self.axis)), extent), last), b.to_float(b.dim(self.out - 1)))
            along = spread
            if not isinstance(self.out, int):
                single = b.cmpi_eq(b.dim(self.out), b.const(1, "i64"))
                along = b.select(single, b.mulf(b.mulf(extent, last), b.const(0.5, "f32")), spread)
        return b.addf(along, b.mulf(start, last))


def _places(low: Lowering, b: RegionBuilder, along: dict[int, Scalar]) -> list[Scalar]:
    """Indices into x: those given by axis, and else the current element's, or 0 where x has one element."""
    x = low.tensor(0)
    return [
        along[i] if i in along else b.const(0, "i64") if x.shape[i] != low.shape[i] else b.index(i) for i in range(x.rank)
    ]


def _nearest(low: Lowering, axes: Sequence[_Axis]) -> TypedValue:
    x = low.tensor(0)

    def body(b: RegionBuilder) -> Scalar:
        y = b.load_at(x, _places(low, b, {a.axis: a.nearest(b) for a in axes}))
        for a in axes:
            y = a.filled(b, y)
        return y

    return low.build.pointwise(x.type, low.shape, body)


def _at_once(low: Lowering, axes: Sequence[_Axis]) -> TypedValue:
    """The weighted sum over the neighbours along all axes."""
    x, mode = low.tensor(0), low.attr("mode")
    taps = range(1 - _REACH[mode], 1 + _REACH[mode])

    def body(b: RegionBuilder) -> Scalar:
        neighbours: list[list[Scalar]] = []
        weights: list[list[Scalar]] = []
        for a in axes:
            below, f = a.neighbour(b)
            at = [b.addi(below, b.const(tap, "i64")) for tap in taps]
            neighbours.append([b.clamped_index(i, a.size) for i in at])
            if mode == "linear":
                found = [b.subf(b.const(1, "f32"), f), f]
            else:
                found = _cubic_weights(b, f, low.attr("cubic_coeff_a"))
            if low.attr("exclude_outside"):
                found = [b.select(_is_inside(b, i, a.size), w, b.const(0, "f32")) for i, w in zip(at, found, strict=True)]
                total = functools.reduce(b.addf, found)
                found = [b.divf(w, total) for w in found]
            weights.append(found)
        y: Scalar | None = None
        for corner in itertools.product(range(len(taps)), repeat=len(axes)):
            term = b.load_at(x, _places(low, b, {a.axis: neighbours[k][corner[k]] for k, a in enumerate(axes)}))
            for k, side in enumerate(corner):
                term = b.mulf(term, weights[k][side])
            y = term if y is None else b.addf(y, term)
        assert y is not None
        for a in axes:
            y = a.filled(b, y)
        return y

    return low.build.pointwise(x.type, low.shape, body)


def _by_axis(low: Lowering, axes: Sequence[_Axis]) -> Source:
    """One axis after the other; between them elements are float32."""
    y = low.tensor(0)
    for a in axes:
        y = _filtered(low, y, a, low.type if a is axes[-1] else FLOAT)
    return low.build.expand(y, low.shape)


def _filtered(low: Lowering, x: TypedValue, a: _Axis, type: OnnxType) -> TypedValue:
    """x resized along one axis. With antialias=1 the weights reach as much farther as the step in x is above 1."""
    mode, (size, out) = low.attr("mode"), a.step
    reach: Dim = _REACH[mode]
    shrinks = bool(low.attr("antialias")) and not a.grows
    if shrinks:
        reach = dims.ceildiv(reach * dims.maximum(size, out), dims.maximum(out, 1))

    def tap(b: RegionBuilder, number: Scalar) -> tuple[Scalar, Scalar]:
        """The index in x of a tap, which may be outside, and its weight before all are divided by their sum."""
        below, f = a.neighbour(b)
        step = b.subi(number, b.dim(reach - 1))
        distance = b.absf(b.subf(b.to_float(step), f))
        if shrinks:
            distance = b.mulf(distance, b.divf(b.to_float(b.dim(out)), b.to_float(b.dim(dims.maximum(size, out)))))
        at = b.addi(below, step)
        if mode == "linear":
            weight = b.maxf(b.subf(b.const(1, "f32"), distance), b.const(0, "f32"))
        else:
            weight = _cubic_weight(b, distance, low.attr("cubic_coeff_a"))
        if low.attr("exclude_outside"):
            weight = b.select(_is_inside(b, at, a.size), weight, b.const(0, "f32"))
        return at, weight

    shape = tuple(a.out if i == a.axis else d for i, d in enumerate(x.shape))
    row = tuple(a.out if i == a.axis else 1 for i in range(x.rank))
    taps = low.build.pointwise(FLOAT, (*row, 2 * reach), lambda b: tap(b, b.index(x.rank))[1])
    total = low.build.reduce(taps, "sum", [x.rank], FLOAT)
    over = low.build.tensor(low.build.expand(taps, (*shape, 2 * reach)))

    def term(b: RegionBuilder, weight: Scalar) -> Scalar:
        at = b.clamped_index(tap(b, b.index(x.rank))[0], a.size)
        return b.mulf(weight, b.load_at(x, [at if i == a.axis else b.index(i) for i in range(x.rank)]))

    def mean(b: RegionBuilder, y: Scalar) -> Scalar:
        return a.filled(b, b.divf(y, b.load(total)))

    return low.build.reshaped(low.build.reduce(over, "sum", [x.rank], type, term, mean), shape)


def _is_inside(b: RegionBuilder, at: Scalar, size: Dim) -> Scalar:
    return b.andi(b.cmpi_sge(at, b.const(0, "i64")), b.cmpi_slt(at, b.dim(size)))


# Weights by the distance from an element (Keys, "Cubic Convolution Interpolation for Digital Image Processing", 1981, with
# coefficient `a`): coefficients of a polynomial up to a distance of 1, and of one up to 2.


def _near(a: float) -> tuple[float, ...]:
    return a + 2, -(a + 3), 0, 1


def _far(a: float) -> tuple[float, ...]:
    return a, -5 * a, 8 * a, -4 * a


def _polynomial(b: RegionBuilder, d: Scalar, coefficients: Sequence[float]) -> Scalar:
    y = b.const(coefficients[0], "f32")
    for c in coefficients[1:]:
        y = b.addf(b.mulf(y, d), b.const(c, "f32"))
    return y


def _cubic_weights(b: RegionBuilder, f: Scalar, a: float) -> list[Scalar]:
    """The weights of the neighbours -1, 0, 1 and 2 of a position that lies `f` past neighbour 0."""
    one = b.const(1, "f32")
    rest = b.subf(one, f)
    inner = [_polynomial(b, f, _near(a)), _polynomial(b, rest, _near(a))]
    return [_polynomial(b, b.addf(one, f), _far(a)), *inner, _polynomial(b, b.addf(one, rest), _far(a))]


def _cubic_weight(b: RegionBuilder, d: Scalar, a: float) -> Scalar:
    """The weight at any distance."""
    far = b.select(b.cmpf_olt(d, b.const(2, "f32")), _polynomial(b, d, _far(a)), b.const(0, "f32"))
    return b.select(b.cmpf_ole(d, b.const(1, "f32")), _polynomial(b, d, _near(a)), far)


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


def _rounded_float(b: RegionBuilder, mode: str, x: Scalar) -> Scalar:
    """A position rounded to an integer."""
    half = b.const(0.5, "f32")
    match mode:
        case "round_prefer_floor":
            x = b.ceil(b.subf(x, half))
        case "round_prefer_ceil":
            x = b.floor(b.addf(x, half))
        case "floor":
            x = b.floor(x)
        case _:
            x = b.ceil(x)
    return whole(b, x)
