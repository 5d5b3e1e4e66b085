"""The meaning of every root operation, on numpy: what the interpreter runs and what kernels are tested against.

Roots are plain data here (`ingot.dispatch`), arrays stand for operands, and sizes are numbers. A scalar region is run on
whole arrays at once, with the numpy meanings of `ingot.dialects.scalar_table`. Values of f32 are computed in f32, as the
AOT IR says, or, with `float64=True`, in float64 throughout, which is the reference that kernels are measured against.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ingot import dims
from ingot.dialects.scalar_table import TABLE
from ingot.dispatch import Attr, Dispatch, ScalarRegion
from ingot.dtypes import DTYPES
from ingot.matmul_scales import matmul_scales
from ingot.weight_packing import unpacked

__all__ = ["RootCall", "run_dispatch", "run_region", "run_root"]

Shape = tuple[int, ...]

_BLOCK_ELEMENTS = 1 << 24  # elements of attention scores, or of an im2col matrix, that are held at once


@dataclass(frozen=True)
class RootCall:
    """One execution of a root.

    Attributes:
        root: its name without the dialect's prefix.
        operands: its own operands, then those its regions load, in storage types.
        attrs: its attributes.
        regions: its scalar regions.
        results: storage type and shape of each result.
        symbols: values of the named dimensions, for `dim` instructions.
        float64: compute f32 values in float64.
    """

    root: str
    operands: Sequence[np.ndarray]
    attrs: Mapping[str, Attr]
    regions: Sequence[ScalarRegion]
    results: Sequence[tuple[str, Shape]]
    symbols: Mapping[str, int] = field(default_factory=dict)
    float64: bool = False

    def dtype(self, name: str) -> np.dtype:
        """The numpy dtype in which values of storage type `name` are computed."""
        return np.dtype(np.float64) if self.float64 and name == "f32" else DTYPES[name].np


def run_dispatch(
    dispatch: Dispatch, operands: Sequence[np.ndarray], sizes: Mapping[str, int] | None = None, *, float64: bool = False
) -> list[np.ndarray]:
    """Run a dispatch.

    Args:
        operands: one array for each of `dispatch.operands`, of its storage type and shape (any strides).
        sizes: values of `dispatch.symbols`.
        float64: compute in float64 and round once, to the results' types.

    Returns:
        one contiguous array for each of `dispatch.results`.

    Raises:
        ValueError: an operand's dtype or shape is not the dispatch's.
    """
    symbols = dict(sizes or {})
    for i, (arg, array) in enumerate(zip(dispatch.operands, operands, strict=True)):
        shape = tuple(dims.evaluate(d, symbols) for d in arg.shape)
        if array.shape != shape or array.dtype != arg.type.np:
            raise ValueError(f"operand {i} is {array.dtype}{list(array.shape)}, expected {arg.type.np}{list(shape)}")
    results = [(r.dtype, tuple(dims.evaluate(d, symbols) for d in r.shape)) for r in dispatch.results]
    return run_root(RootCall(dispatch.root, operands, dict(dispatch.attrs), dispatch.regions, results, symbols, float64))


def run_root(call: RootCall) -> list[np.ndarray]:
    """Run a root; one contiguous array of its storage type for each result.

    Raises:
        ValueError: the root is unknown.
        IndexError: a `load_at` is out of range.
    """
    run = _ROOTS.get(call.root)
    if run is None:
        raise ValueError(f"{call.root!r} is not a root operation: {', '.join(sorted(_ROOTS))}")
    with np.errstate(all="ignore"):
        return run(call)


# Regions --------------------------------------------------------------------------------------------------------------


def run_region(
    call: RootCall, region: ScalarRegion, args: Sequence[np.ndarray], domain: Shape, block: Sequence[slice] = ()
) -> list[np.ndarray]:
    """Run a scalar region for every element of `domain`, or of a block of it.

    Args:
        args: values of the region's arguments, broadcastable to the domain (or block).
        block: slices of the leading axes of the domain; none means all of it.

    Returns:
        one array for each yielded value, broadcastable to the domain (or block).
    """
    values: list[Any] = [np.asarray(a).astype(call.dtype(t), copy=False) for a, t in zip(args, region.args, strict=True)]
    for inst in region.insts:
        operands = [values[i] for i in inst.args]
        dtype = call.dtype(inst.type)
        value: Any
        match inst.op:
            case "load":
                value = _aligned_block(call.operands[inst.attr("operand")], domain, block).astype(dtype, copy=False)
            case "load_at":
                value = _load_at(call.operands[inst.attr("operand")], operands).astype(dtype, copy=False)
            case "index":
                axis = inst.attr("axis")
                positions = np.arange(domain[axis], dtype=np.int64)[block[axis] if axis < len(block) else slice(None)]
                value = positions.reshape((-1,) + (1,) * (len(domain) - 1 - axis))
            case "dim":
                value = np.int64(dims.evaluate(dims.parse(inst.attr("dim")), call.symbols))
            case "const":
                value = np.asarray(inst.attr("value")).astype(dtype)
            case "bitcast":
                value = _bitcast(region.type_of(inst.args[0]), inst.type, operands[0]).astype(dtype, copy=False)
            case _:
                row = TABLE[inst.op]
                value = row.numpy(*operands, dtype) if row.result == "cast" else row.numpy(*operands)
        values.append(value)
    return [values[i] for i in region.results]


def _aligned_block(x: np.ndarray, domain: Shape, block: Sequence[slice]) -> np.ndarray:
    """The part of `x`, right-aligned with the domain, that a block of the domain reads."""
    if not block:
        return x
    lead = len(domain) - x.ndim
    picks = tuple(block[lead + i] if lead + i < len(block) and size != 1 else slice(None) for i, size in enumerate(x.shape))
    return x[picks]


def _load_at(x: np.ndarray, indices: Sequence[Any]) -> np.ndarray:
    for axis, (i, size) in enumerate(zip(indices, x.shape, strict=True)):
        i = np.asarray(i)
        if i.size and (i.min() < 0 or i.max() >= size):
            raise IndexError(f"load_at of index {i.min()}..{i.max()} on axis {axis} of a tensor of shape {list(x.shape)}")
    return np.asarray(x[tuple(indices)])


def _bitcast(source: str, target: str, x: Any) -> np.ndarray:
    return np.asarray(x).astype(DTYPES[source].np, copy=False).view(DTYPES[target].np)


def _finish(call: RootCall, region: ScalarRegion, args: Sequence[np.ndarray], domain: Shape) -> list[np.ndarray]:
    """Run a root's last region over `domain` and store its values as the results."""
    values = run_region(call, region, args, domain)
    return [
        np.array(np.broadcast_to(v, shape), DTYPES[dtype].np, order="C")
        for v, (dtype, shape) in zip(values, call.results, strict=True)
    ]


# Roots ----------------------------------------------------------------------------------------------------------------


def _pointwise(call: RootCall) -> list[np.ndarray]:
    return _finish(call, call.regions[0], (), call.results[0][1])


def _move(call: RootCall) -> list[np.ndarray]:
    x = call.operands[0]
    return _finish(call, call.regions[0], (x,), x.shape)


def _product(call: RootCall, a: np.ndarray, b: np.ndarray, acc: str) -> np.ndarray:
    """a @ b in type `acc`; small integers are multiplied in float64, where their sums are exact and BLAS is fast."""
    dtype = call.dtype(acc)
    if dtype.kind == "i" and a.dtype.itemsize == 1 and b.dtype.itemsize == 1:
        return np.matmul(a.astype(np.float64), b.astype(np.float64)).astype(dtype)
    return np.matmul(a.astype(dtype, copy=False), b.astype(dtype, copy=False))


def _dequantized(x: np.ndarray, scale: np.ndarray, zero: np.ndarray | None, block: int, axis: int) -> np.ndarray:
    """(x - zero) * scale in f32, where each scale and zero point serves `block` neighbours along `axis` (0: all of them)."""
    size = x.shape[axis]
    picks = np.arange(size) // (block or max(1, size))
    y = x.astype(np.float32)
    if zero is not None:
        y = y - np.take(zero, picks, axis).astype(np.float32)
    return y * np.take(scale, picks, axis).astype(np.float32)


def _unsigned(x: np.ndarray) -> np.ndarray:
    """Integers of storage types i8 and i4 read as unsigned; floats as they are."""
    if x.dtype not in (DTYPES["i8"].np, DTYPES["i4"].np):
        return x
    return x.astype(np.int8).view(np.uint8) & (15 if x.dtype == DTYPES["i4"].np else 255)


def _matmul_operands(call: RootCall) -> tuple[np.ndarray, np.ndarray]:
    """What the elements of a and b stand for: see `ingot.matmul_scales`."""
    scales = matmul_scales(call.attrs)
    a, b = call.operands[:2]
    if call.attrs.get("b_packed"):
        b = unpacked(b.T, next(t.bits for t in DTYPES.values() if t.np == b.dtype)).T
    zero = None if scales.b_zero is None else call.operands[scales.b_zero]
    narrow = a.dtype if a.dtype in (DTYPES["f16"].np, DTYPES["bf16"].np) else np.dtype(np.float32)
    if call.attrs.get("a_unsigned"):
        a = _unsigned(a)
    if call.attrs.get("b_unsigned"):
        b, zero = _unsigned(b), None if zero is None else _unsigned(zero)
    if scales.a_scale is not None:
        a = _dequantized(a, call.operands[scales.a_scale], None, scales.a_block, -1)
    if scales.b_scale is not None:
        b = _dequantized(b, call.operands[scales.b_scale], zero, scales.b_block, -2).astype(narrow)
    return a, b


def _matmul(call: RootCall) -> list[np.ndarray]:
    product = _product(call, *_matmul_operands(call), str(call.attrs["acc"]))
    return _finish(call, call.regions[0], (product,), call.results[0][1])


@dataclass(frozen=True)
class _Window:
    """A sliding window over the spatial axes of a channels-last tensor."""

    kernel: Shape
    strides: Shape
    dilations: Shape
    pads: Shape
    out: Shape  # spatial sizes of the result

    def pad(self, x: np.ndarray, fill: Any) -> np.ndarray:
        """x with its spatial axes padded so that every window lies inside."""
        widths = [(0, 0)]
        for i, size in enumerate(x.shape[1:-1]):
            reach = (self.out[i] - 1) * self.strides[i] + (self.kernel[i] - 1) * self.dilations[i] + 1
            begin = self.pads[i]
            widths.append((begin, max(0, reach - size - begin, self.pads[i + len(self.kernel)])))
        widths.append((0, 0))
        return np.pad(x, widths, constant_values=fill) if any(map(any, widths)) else x

    def taps(self) -> Iterator[tuple[Shape, tuple[slice, ...]]]:
        """Each position in the kernel with the slices of a padded tensor that it meets, all output positions at once."""
        for tap in np.ndindex(*self.kernel):
            picks = [
                slice(t * d, t * d + (n - 1) * s + 1, s)
                for t, d, n, s in zip(tap, self.dilations, self.out, self.strides, strict=True)
            ]
            yield tap, (slice(None), *picks)


def _ints(value: Any) -> Shape:
    return tuple(int(v) for v in value)


def _conv(call: RootCall) -> list[np.ndarray]:
    x, w = call.operands[:2]
    x, w = (_unsigned(x) if call.attrs.get("a_unsigned") else x), (_unsigned(w) if call.attrs.get("b_unsigned") else w)
    acc = computed = call.dtype(str(call.attrs["acc"]))
    if acc.kind == "i" and x.dtype.itemsize == 1 and w.dtype.itemsize == 1:
        computed = np.dtype(np.float64)  # sums of small integers are exact in it, and BLAS is fast
    x, w = x.astype(computed, copy=False), w.astype(computed, copy=False)
    groups = int(call.attrs["groups"])  # type: ignore[arg-type]
    shape = call.results[0][1]
    strides, dilations, pads = (_ints(call.attrs[n]) for n in ("strides", "dilations", "pads"))
    window = _Window(w.shape[1:-1], strides, dilations, pads, shape[1:-1])
    if call.attrs.get("transposed"):
        y = _conv_transposed(x, w, window, groups, shape)
    elif groups == 1:
        y = _conv_im2col(window.pad(x, 0), w, window, shape)
    else:
        y = _conv_grouped(window.pad(x, 0), w, window, groups, shape)
    return _finish(call, call.regions[0], (y.astype(acc, copy=False),), shape)


def _conv_im2col(x: np.ndarray, w: np.ndarray, window: _Window, shape: Shape) -> np.ndarray:
    """One matmul of the matrix of windows, a few output rows at a time."""
    k = math.prod(w.shape[1:])
    weights = np.ascontiguousarray(w.reshape(w.shape[0], k).T)
    y = np.empty(shape, x.dtype)
    row = max(1, math.prod(window.out[1:]) * k)
    step = max(1, _BLOCK_ELEMENTS // row)
    for n in range(shape[0]):
        for first in range(0, shape[1], step):
            rows = min(step, shape[1] - first)
            part = _Window(window.kernel, window.strides, window.dilations, window.pads, (rows, *window.out[1:]))
            base = x[n : n + 1, first * window.strides[0] :]
            columns = np.stack([base[picks] for _, picks in part.taps()], axis=-2)
            y[n, first : first + rows] = np.matmul(columns.reshape(-1, k), weights).reshape(y[n, first : first + rows].shape)
    return y


def _conv_grouped(x: np.ndarray, w: np.ndarray, window: _Window, groups: int, shape: Shape) -> np.ndarray:
    """The sum over kernel positions of one small matmul for each group; depthwise is a product."""
    y = np.zeros((*shape[:-1], groups, shape[-1] // groups), x.dtype)
    per_group = w.shape[-1]
    for tap, picks in window.taps():
        part = x[picks]
        part = part.reshape(*part.shape[:-1], groups, per_group)
        kernel: Any = (slice(None), *tap)
        weights = w[kernel].reshape(groups, -1, per_group)
        if per_group == 1:
            y += part * weights[..., 0]
        else:
            y += np.matmul(part[..., None, :], np.swapaxes(weights, 1, 2))[..., 0, :]
    return y.reshape(shape)


def _conv_transposed(x: np.ndarray, w: np.ndarray, window: _Window, groups: int, shape: Shape) -> np.ndarray:
    """Scatters each input position over its window of the output, then crops the pads."""
    spatial = x.shape[1:-1]
    forward = _Window(window.kernel, window.strides, window.dilations, window.pads, spatial)
    rank = len(spatial)
    reach = [(n - 1) * s + (k - 1) * d + 1 for n, s, k, d in
             zip(spatial, window.strides, window.kernel, window.dilations, strict=True)]  # fmt: skip
    full = [max(r, window.pads[i] + shape[1 + i]) for i, r in enumerate(reach)]
    y = np.zeros((shape[0], *full, groups, shape[-1] // groups), x.dtype)
    xs = x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)
    ws = w.reshape(groups, w.shape[0] // groups, *w.shape[1:])
    for tap, picks in forward.taps():
        kernel: Any = (slice(None), slice(None), *tap)
        weights = ws[kernel]
        y[picks] += np.matmul(xs[..., None, :], weights)[..., 0, :]
    crop = tuple(slice(window.pads[i], window.pads[i] + shape[1 + i]) for i in range(rank))
    return y[(slice(None), *crop)].reshape(shape)


def _attention(call: RootCall) -> list[np.ndarray]:
    q, k, v = (t.astype(call.dtype("f32"), copy=False) for t in call.operands[:3])
    batch, heads, s, _ = q.shape
    t = k.shape[2]
    group = heads // k.shape[1]
    scale = q.dtype.type(call.attrs["scale"])
    domain = (batch, heads, s, t)
    lengths = np.clip(call.operands[3], 0, t) if call.attrs.get("ragged") else np.full(batch, t)
    y = np.empty((batch, heads, s, v.shape[-1]), q.dtype)
    rows = max(1, _BLOCK_ELEMENTS // max(1, t))
    for b in range(batch):
        for h in range(heads):
            for first in range(0, s, rows):
                block = (slice(b, b + 1), slice(h, h + 1), slice(first, min(s, first + rows)))
                scores = np.matmul(q[block], k[b : b + 1, h // group : h // group + 1].swapaxes(2, 3)) * scale
                scores = run_region(call, call.regions[0], (scores,), domain, block)[0]
                scores = np.broadcast_to(scores, (1, 1, block[2].stop - first, t))
                end = np.full((block[2].stop - first, 1), lengths[b])
                if call.attrs.get("causal"):
                    end = np.minimum(end, np.arange(first, block[2].stop)[:, None] + (lengths[b] - s) + 1)
                scores = np.where(np.arange(t) < end, scores, scores.dtype.type(-np.inf))
                y[block] = np.matmul(_softmax(scores, (3,)), v[b : b + 1, h // group : h // group + 1])
    return _finish(call, call.regions[1], (y,), y.shape)


def _softmax(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    if 0 in x.shape:
        return x
    e = np.exp(x - x.max(axis=axes, keepdims=True))
    return e / e.sum(axis=axes, keepdims=True)


_REDUCERS: dict[str, tuple[np.ufunc, Callable[[np.dtype], Any]]] = {
    "sum": (np.add, lambda t: t.type(0)),
    "prod": (np.multiply, lambda t: t.type(1)),
    "max": (np.maximum, lambda t: t.type(-np.inf) if t.kind not in "iub" else np.iinfo(t).min if t.kind != "b" else False),
    "min": (np.minimum, lambda t: t.type(np.inf) if t.kind not in "iub" else np.iinfo(t).max if t.kind != "b" else True),
}


def _reduce(call: RootCall) -> list[np.ndarray]:
    x = call.operands[0]
    mapped = np.broadcast_to(run_region(call, call.regions[0], (x,), x.shape)[0], x.shape)
    ufunc, initial = _REDUCERS[str(call.attrs["kind"])]
    axes = _ints(call.attrs["axes"])
    y = ufunc.reduce(mapped, axis=axes, keepdims=True, dtype=mapped.dtype, initial=initial(mapped.dtype))
    return _finish(call, call.regions[1], (y,), call.results[0][1])


def _normalize(call: RootCall) -> list[np.ndarray]:
    x = call.operands[0]
    y = np.broadcast_to(run_region(call, call.regions[0], (x,), x.shape)[0], x.shape)
    axes = _ints(call.attrs["axes"])
    epsilon = y.dtype.type(call.attrs["epsilon"])
    statistics: list[np.ndarray] = []
    match call.attrs["kind"]:
        case "softmax":
            y = _softmax(y, axes)
        case "log_softmax":
            shifted = y - y.max(axis=axes, keepdims=True, initial=-np.inf)
            y = shifted - np.log(np.exp(shifted).sum(axis=axes, keepdims=True))
        case "layer":
            mean = y.mean(axis=axes, keepdims=True)
            centered = y - mean
            root = np.sqrt(np.square(centered).mean(axis=axes, keepdims=True) + epsilon)
            y, statistics = centered / root, [mean, 1 / root]
        case "rms":
            root = np.sqrt(np.square(y).mean(axis=axes, keepdims=True) + epsilon)
            y, statistics = y / root, [1 / root]
        case kind:
            raise ValueError(f"normalize of kind {kind!r}: expected softmax, log_softmax, layer or rms")
    epilogue = call.regions[1]
    return _finish(call, epilogue, (y, *statistics)[: len(epilogue.args)], x.shape)


def _pool(call: RootCall) -> list[np.ndarray]:
    x = call.operands[0]
    shape = call.results[0][1]
    kernel, strides, dilations, pads = (_ints(call.attrs[n]) for n in ("kernel", "strides", "dilations", "pads"))
    window = _Window(kernel, strides, dilations, pads, shape[1:-1])
    acc = call.dtype(call.regions[0].args[0])
    x = x.astype(acc, copy=False)
    if call.attrs["kind"] == "max":
        ufunc, initial = _REDUCERS["max"]
        lowest = initial(acc)
        padded = window.pad(x, lowest)
        y = np.full(shape, lowest, acc)
        for _, picks in window.taps():
            ufunc(y, padded[picks], out=y)
    else:
        padded = window.pad(x, 0)
        y = np.zeros(shape, acc)
        for _, picks in window.taps():
            y += padded[picks]
        if call.attrs["kind"] == "average":
            y /= _window_counts(x.shape, window, bool(call.attrs.get("count_include_pad"))).astype(acc)
    return _finish(call, call.regions[0], (y,), shape)


def _window_counts(shape: Shape, window: _Window, include_pad: bool) -> np.ndarray:
    """How many elements each window averages: those of x, and of its declared padding too where that counts."""
    ones = np.ones((1, *shape[1:-1], 1))
    if include_pad:
        rank = len(window.kernel)
        widths = [(0, 0), *((window.pads[i], window.pads[i + rank]) for i in range(rank)), (0, 0)]
        ones = np.pad(ones, widths, constant_values=1)
        window = _Window(window.kernel, window.strides, window.dilations, (0,) * (2 * rank), window.out)
    padded = window.pad(ones, 0)
    return np.sum([padded[picks] for _, picks in window.taps()], axis=0)


def _scatter(call: RootCall) -> list[np.ndarray]:
    x, updates = call.operands[:2]
    place, value = call.regions
    y = np.array(x, call.dtype(call.results[0][0]), order="C")
    at = [np.broadcast_to(i, updates.shape).ravel() for i in run_region(call, place, (), updates.shape)]
    for axis, (i, size) in enumerate(zip(at, x.shape, strict=True)):
        if i.size and (i.min() < 0 or i.max() >= size):
            raise IndexError(f"scatter to {i.min()}..{i.max()} on axis {axis} of a tensor of shape {list(x.shape)}")
    (v,) = run_region(call, value, (), updates.shape)
    v = np.broadcast_to(v, updates.shape).ravel().astype(y.dtype, copy=False)
    if call.attrs["kind"] == "set":
        y[tuple(at)] = v
    else:
        _REDUCERS[str(call.attrs["kind"])][0].at(y, tuple(at), v)
    return [y.astype(DTYPES[call.results[0][0]].np, copy=False)]


def _scan(call: RootCall) -> list[np.ndarray]:
    x = call.operands[0]
    mapped = np.broadcast_to(run_region(call, call.regions[0], (x,), x.shape)[0], x.shape)
    axis = int(call.attrs["axis"])  # type: ignore[arg-type]
    ufunc, initial = _REDUCERS[str(call.attrs["kind"])]
    if call.attrs.get("reverse"):
        mapped = np.flip(mapped, axis)
    y = ufunc.accumulate(mapped, axis, dtype=mapped.dtype)
    if call.attrs.get("exclusive"):
        first = np.full([1 if i == axis else d for i, d in enumerate(x.shape)], initial(mapped.dtype), mapped.dtype)
        y = np.concatenate([first, y], axis).take(range(x.shape[axis]), axis)
    if call.attrs.get("reverse"):
        y = np.flip(y, axis)
    return _finish(call, call.regions[1], (y,), x.shape)


def _topk(call: RootCall) -> list[np.ndarray]:
    x = call.operands[0]
    axis = int(call.attrs["axis"])  # type: ignore[arg-type]
    keys = np.broadcast_to(run_region(call, call.regions[0], (x,), x.shape)[0], x.shape)
    # Ascending from the end, so that of equal elements the first come last; NaN is sorted last.
    order = x.shape[axis] - 1 - np.argsort(np.flip(keys, axis), axis, kind="stable")
    k = call.results[0][1][axis]
    return [np.ascontiguousarray(np.flip(order, axis).take(range(k), axis), np.int64)]


_ROOTS: dict[str, Callable[[RootCall], list[np.ndarray]]] = {
    "pointwise": _pointwise,
    "move": _move,
    "matmul": _matmul,
    "scaled_matmul": _matmul,
    "conv": _conv,
    "attention": _attention,
    "reduce": _reduce,
    "normalize": _normalize,
    "pool": _pool,
    "scatter": _scatter,
    "scan": _scan,
    "topk": _topk,
}
