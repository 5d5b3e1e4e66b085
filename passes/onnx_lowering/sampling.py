"""Operators that interpolate at computed coordinates: `pointwise` and `reduce` with `load_at`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

from ingot import dims
from ingot.dims import Dim
from ingot.passes.onnx_inference.linear import window_attributes, window_pads
from ingot.passes.onnx_lowering.lowering import Lowering, lowering
from ingot.passes.onnx_lowering.region_builder import RegionBuilder, Scalar, computing_type
from ingot.passes.onnx_lowering.values import Source

# What an axis gives to an interpolation: an index in range, its weight, and whether it lies in the tensor (None: it does).
Tap = tuple[Scalar, Scalar, Scalar | None]

_FARTHEST = 1e9  # coordinates beyond it are taken for it: they stay integers of 32 bits
_CUBIC = -0.75  # Keys' parameter


def interpolated(b: RegionBuilder, load: Callable[[Sequence[Scalar]], Scalar], axes: Sequence[Sequence[Tap]]) -> Scalar:
    """The sum over one tap of each axis of what `load` gives there, times the taps' weights; taps outside count as 0."""
    total: Scalar | None = None
    for taps in itertools.product(*axes):
        value = load([at for at, _, _ in taps])
        weight = taps[0][1]
        for _, w, _ in taps[1:]:
            weight = b.mulf(weight, w)
        for _, _, inside in taps:
            if inside is not None:
                weight = b.select(inside, weight, b.like(0, weight))
        # Where a weight is 0 an infinity must not become NaN.
        value = b.select(b.cmpf_oeq(weight, b.like(0, weight)), b.like(0, value), value)
        term = b.mulf(value, b.to_float(weight, value.type))
        total = term if total is None else b.addf(total, term)
    assert total is not None
    return total


def linear_taps(b: RegionBuilder, x: Scalar, size: Dim) -> list[Tap]:
    """The two neighbours of a coordinate, which may lie outside."""
    below = b.floor(x)
    f = b.subf(x, below)
    at = whole(b, below)
    above = b.addi(at, b.const(1, "i64"))
    return [_inside(b, at, size, b.subf(b.like(1, f), f)), _inside(b, above, size, f)]


def _inside(b: RegionBuilder, at: Scalar, size: Dim, weight: Scalar) -> Tap:
    inside = b.andi(b.cmpi_sge(at, b.const(0, "i64")), b.cmpi_slt(at, b.dim(size)))
    return b.clamped_index(at, size), weight, inside


def whole(b: RegionBuilder, x: Scalar) -> Scalar:
    """A float without fraction as an index."""
    return b.emit("fptosi", (b.maxf(b.minf(x, b.like(_FARTHEST, x)), b.like(-_FARTHEST, x)),), "i64")


# GridSample -----------------------------------------------------------------------------------------------------------


@lowering("GridSample")
def _grid_sample(low: Lowering) -> Source:
    x, grid = low.tensor(0), low.tensor(1)
    spatial = x.rank - 2
    mode = str(low.attr("mode"))

    def body(b: RegionBuilder) -> Scalar:
        at = [b.index(0), *(b.index(2 + i) for i in range(spatial))]
        axes = []
        for i in range(spatial):
            # The last coordinate belongs to the first axis.
            g = b.load_at(grid, [*at, b.const(spatial - 1 - i, "i64")])
            axes.append(_Axis(low, b, x.shape[2 + i]).taps(b.to_float(g), mode))

        def load(places: Sequence[Scalar]) -> Scalar:
            return b.load_at(x, [b.index(0), b.index(1), *places])

        if mode != "nearest":
            return interpolated(b, load, axes)
        value = load([taps[0][0] for taps in axes])
        for ((_, _, inside),) in axes:
            value = value if inside is None else b.select(inside, value, b.like(0, value))
        return value

    if mode != "nearest" and not low.node.input(0).is_float:
        raise low.fail(f"mode {mode} of element type {x.type.name} is not supported", "cast to float")
    return low.build.pointwise(x.type, low.shape, body)


class _Axis:
    """One axis of a GridSample: coordinates from -1 to 1, and what lies beyond."""

    def __init__(self, low: Lowering, b: RegionBuilder, size: Dim) -> None:
        self.b, self.size = b, size
        self.align, self.padding = bool(low.attr("align_corners")), str(low.attr("padding_mode"))
        self.extent = b.to_float(b.dim(size))
        one = b.const(1, "f32")
        self.last = b.subf(self.extent, one)
        # What reflects: the centers of the outer elements, or their outer edges.
        self.least = b.const(0.0 if self.align else -0.5, "f32")
        self.span = self.last if self.align else self.extent

    def taps(self, g: Scalar, mode: str) -> list[Tap]:
        """What the element at normalized coordinate `g` is interpolated from."""
        b = self.b
        half, one = b.const(0.5, "f32"), b.const(1, "f32")
        if self.align:
            x = b.mulf(b.mulf(b.addf(g, one), half), self.last)
        else:
            x = b.mulf(b.subf(b.mulf(b.addf(g, one), self.extent), one), half)
        if mode == "nearest":
            return [self._tap(whole(b, self._kept(b.roundeven(x))), one)]
        if mode == "linear":  # of a cubic, each neighbour alone, as in PyTorch
            x = self._kept(x)
        below = b.floor(x)
        f, at = b.subf(x, below), whole(b, below)
        weights = {0: b.subf(one, f), 1: f} if mode == "linear" else self._cubic(f)
        return [self._tap(b.addi(at, b.const(step, "i64")), w) for step, w in weights.items()]

    def _kept(self, x: Scalar) -> Scalar:
        """A coordinate moved into the tensor, as far as the padding mode does."""
        b = self.b
        if self.padding == "border":
            return b.minf(b.maxf(x, b.const(0, "f32")), self.last)
        return self._reflected(x) if self.padding == "reflection" else x

    def _reflected(self, x: Scalar) -> Scalar:
        """A coordinate reflected at both ends until it lies between them."""
        b = self.b
        period = b.addf(self.span, self.span)
        distance = b.absf(b.subf(x, self.least))
        safe = b.select(b.cmpf_oeq(period, b.const(0, "f32")), b.const(1, "f32"), period)
        rest = b.subf(distance, b.mulf(b.floor(b.divf(distance, safe)), period))
        back = b.select(b.cmpf_ogt(rest, self.span), b.subf(period, rest), rest)
        return b.select(b.cmpf_oeq(period, b.const(0, "f32")), self.least, b.addf(self.least, back))

    def _tap(self, at: Scalar, weight: Scalar) -> Tap:
        b = self.b
        if self.padding == "zeros":
            return _inside(b, at, self.size, weight)
        if self.padding == "reflection":
            at = whole(b, b.roundeven(self._reflected(b.to_float(at))))
        return b.clamped_index(at, self.size), weight, None

    def _cubic(self, f: Scalar) -> dict[int, Scalar]:
        """Weights of the four neighbours (R. Keys, "Cubic Convolution Interpolation", 1981)."""
        b = self.b

        def near(t: Scalar) -> Scalar:
            inner = b.subf(b.mulf(b.const(_CUBIC + 2, "f32"), t), b.const(_CUBIC + 3, "f32"))
            return b.addf(b.mulf(b.mulf(inner, t), t), b.const(1, "f32"))

        def far(t: Scalar) -> Scalar:
            inner = b.subf(b.mulf(b.const(_CUBIC, "f32"), t), b.const(5 * _CUBIC, "f32"))
            inner = b.addf(b.mulf(inner, t), b.const(8 * _CUBIC, "f32"))
            return b.subf(b.mulf(inner, t), b.const(4 * _CUBIC, "f32"))

        one, two = b.const(1, "f32"), b.const(2, "f32")
        return {-1: far(b.addf(f, one)), 0: near(f), 1: near(b.subf(one, f)), 2: far(b.subf(two, f))}


# RoiAlign -------------------------------------------------------------------------------------------------------------


@lowering("RoiAlign")
def _roi_align(low: Lowering) -> Source:
    """Averages (or maxima) of samples in the cells of regions: a reduction over the samples."""
    x, regions = low.tensor(0), low.source(1)
    samples = low.attr("sampling_ratio")
    if not samples:
        raise low.fail("sampling_ratio=0 is not supported: samples would depend on the regions", "set it, usually to 2")
    averages = str(low.attr("mode")) == "avg"
    compute = computing_type(x.type.storage)
    offset = 0.5 if low.attr("coordinate_transformation_mode") == "half_pixel" else 0.0
    domain = (*low.shape, samples * samples)
    images = low.build.tensor(low.build.reshape(low.source(2), (low.shape[0], 1, 1, 1, 1)))
    over = low.build.tensor(low.build.expand(images, domain))

    def taps(b: RegionBuilder, axis: int, sample: Scalar) -> list[Tap]:
        """The neighbours along axis 2 or 3 of the sample of this number in the cell at hand."""
        first, last = (b.to_float(b.load_at(regions, [b.index(0), b.const(i, "i64")])) for i in (3 - axis, 5 - axis))
        scale = b.const(low.attr("spatial_scale"), "f32")
        start = b.subf(b.mulf(first, scale), b.const(offset, "f32"))
        extent = b.subf(b.subf(b.mulf(last, scale), b.const(offset, "f32")), start)
        if not offset:
            extent = b.maxf(extent, b.const(1, "f32"))
        cell = b.divf(extent, b.to_float(b.dim(low.shape[axis])))
        place = b.addf(start, b.mulf(b.to_float(b.index(axis)), cell))
        within = b.addf(b.to_float(sample), b.const(0.5, "f32"))
        at = b.addf(place, b.divf(b.mulf(within, cell), b.const(samples, "f32")))
        size = b.to_float(b.dim(x.shape[axis]))
        inside = b.andi(b.cmpf_oge(at, b.const(-1, "f32")), b.cmpf_ole(at, size))
        at = b.minf(b.maxf(at, b.const(0, "f32")), b.subf(size, b.const(1, "f32")))
        below = b.floor(at)
        f, i = b.subf(at, below), whole(b, below)
        weights = (b.subf(b.const(1, "f32"), f), f)
        return [(b.clamped_index(b.addi(i, b.const(n, "i64")), x.shape[axis]), w, inside) for n, w in enumerate(weights)]

    def sampled(b: RegionBuilder, image: Scalar) -> Scalar:
        number, count = b.index(4), b.const(samples, "i64")
        row = b.divsi(number, count)
        axes = [taps(b, 2, row), taps(b, 3, b.subi(number, b.muli(row, count)))]
        batch = b.wrapped_index(image, x.shape[0])

        def load(places: Sequence[Scalar]) -> Scalar:
            return b.load_at(x, [batch, b.index(1), *places])

        if averages:
            return interpolated(b, load, axes)
        parts = [interpolated(b, load, [[p] for p in pair]) for pair in itertools.product(*axes)]
        value = parts[0]
        for part in parts[1:]:
            value = b.maxf(value, part)
        return value

    def mean(b: RegionBuilder, total: Scalar) -> Scalar:
        return b.divf(total, b.like(samples * samples, total)) if averages else total

    y = low.build.reduce(over, "sum" if averages else "max", [4], x.type, sampled, mean, acc=compute)
    return low.build.reshape(y, low.shape)


# DeformConv -----------------------------------------------------------------------------------------------------------


@lowering("DeformConv")
def _deform_conv(low: Lowering) -> Source:
    """What each tap samples, as columns, then a product with the weights of each group."""
    x, w, offsets, mask = low.tensor(0), low.tensor(1), low.tensor(2), low.optional(4)
    kernel = [int(k) for k in w.shape[2:]]  # type: ignore[arg-type]
    rank = len(kernel)
    strides, dilations = window_attributes(low.node, kernel)
    pads = window_pads(low.node, x.shape[2:], kernel)
    taps, groups, offset_groups = math.prod(kernel), low.attr("group"), low.attr("offset_group")
    n, m, *out = low.shape
    channels = x.shape[1]
    per_offset_group = low.node.divide_exactly(channels, offset_groups, "channels do not divide by offset_group")

    def column(b: RegionBuilder) -> Scalar:
        channel, tap = b.index(1), b.index(2)
        place = [b.index(3 + i) for i in range(rank)]
        # The number of this channel's and tap's mask; offsets have one for each axis.
        number = b.addi(b.muli(b.divsi(channel, b.dim(per_offset_group)), b.const(taps, "i64")), tap)
        axes: list[list[Tap]] = [[] for _ in kernel]
        rest = tap
        for i in reversed(range(rank)):
            quotient = b.divsi(rest, b.const(kernel[i], "i64"))
            position = b.subi(rest, b.muli(quotient, b.const(kernel[i], "i64")))
            rest = quotient
            origin = b.subi(b.muli(place[i], b.const(strides[i], "i64")), b.dim(pads[i]))
            start = b.addi(origin, b.muli(position, b.const(dilations[i], "i64")))
            which = b.addi(b.muli(number, b.const(rank, "i64")), b.const(i, "i64"))
            moved = b.addf(b.to_float(start), b.to_float(b.load_at(offsets, [b.index(0), which, *place])))
            axes[i] = linear_taps(b, moved, x.shape[2 + i])
        value = interpolated(b, lambda at: b.load_at(x, [b.index(0), channel, *at]), axes)
        return value if mask is None else b.mulf(value, b.load_at(mask, [b.index(0), number, *place]))

    columns = low.build.pointwise(x.type, (n, channels, taps, *out), column)
    depth = low.node.divide_exactly(channels * taps, groups, "channels do not divide by groups")
    rows = low.node.divide_exactly(m, groups, "channels do not divide by groups")
    length = dims.product(out)
    b_ = low.build.reshaped(columns, (n, groups, depth, length))
    a = low.build.reshaped(w, (1, groups, rows, depth))
    bias = None if not low.has(3) else low.build.reshape(low.source(3), (groups, rows, 1))

    def biased(b: RegionBuilder, y: Scalar) -> Scalar:
        return y if bias is None else b.addf(y, b.load(bias))

    return low.build.reshape(low.build.matmul(a, b_, (n, groups, rows, length), low.type, biased), low.shape)
