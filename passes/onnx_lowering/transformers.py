"""Attention and rotary embeddings."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

from ingot import dims
from ingot.dialects.mlir import ir
from ingot.dims import Dim
from ingot.passes.onnx_inference.transformers import is_short
from ingot.passes.onnx_lowering.elementwise import add
from ingot.passes.onnx_lowering.graph_builder import FLOAT
from ingot.passes.onnx_lowering.lowering import Lowering, lowering
from ingot.passes.onnx_lowering.region_builder import RegionBuilder, Scalar
from ingot.passes.onnx_lowering.values import Source, TypedValue


def split_heads(low: Lowering, x: TypedValue, heads: Dim) -> TypedValue:
    """[B, S, heads * D] as [B, heads, S, D]."""
    size = low.node.divide_exactly(x.shape[2], heads, "the last axis does not divide by the heads")
    return low.build.transpose(low.build.reshape(x, (*x.shape[:2], heads, size)), (0, 2, 1, 3))


def merge_heads(low: Lowering, x: TypedValue) -> TypedValue:
    """[B, heads, S, D] as [B, S, heads * D]."""
    batch, heads, length, size = x.shape
    return low.build.reshaped(low.build.transpose(x, (0, 2, 1, 3)), (batch, length, heads * size))


@lowering("Attention")
def _attention(low: Lowering) -> list[Source | None]:
    q, k, v = (low.tensor(i) for i in range(3))
    three = q.rank == 3
    if three:
        q_heads, kv_heads = low.attr("q_num_heads"), low.attr("kv_num_heads")
        q, k, v = (split_heads(low, x, h) for x, h in ((q, q_heads), (k, kv_heads), (v, kv_heads)))
    new = k.shape[2]
    if low.has(4):
        k, v = (appended(low, low.tensor(i), x) for i, x in ((4, k), (5, v)))
    length, size = q.shape[2:]
    total = k.shape[2]
    scale = low.attr("scale")
    if scale is None:
        if not isinstance(size, int):
            raise low.fail(f"a head of {size} elements needs the attribute scale", "give the attribute")
        scale = 1 / math.sqrt(size)
    lengths = low.tensor(6) if low.has(6) else None
    bounds = _Bounds(low, length, total - new if low.has(4) else 0, lengths)
    causal_at_end = low.attr("is_causal") and (lengths is not None or bounds.past == total - length)

    mask = low.optional(3)

    def scored(b: RegionBuilder, s: Scalar, *, causal: bool, counted: bool) -> Scalar:
        s = capped(b, s, low.attr("softcap"))
        s = bounds.apply(b, s, causal=causal, counted=counted)
        return s if mask is None else _masked(low, b, s, mask, total)

    def score(b: RegionBuilder, s: Scalar) -> Scalar:
        return scored(b, s, causal=bool(low.attr("is_causal")) and not causal_at_end, counted=True)

    excludes = mask is not None or bounds.may_exclude_all
    finish = zero_where_empty if excludes else None
    out = attention(low, q, k, v, scale, score, causal=causal_at_end, lengths=lengths, finish=finish)
    scores: Source | None = None
    if len(low.used) > 3 and low.used[3]:
        full = functools.partial(scored, causal=bool(low.attr("is_causal")), counted=False)
        scores = _exposed_scores(low, q, k, scale, full, zero_rows=excludes)
    return [merge_heads(low, out) if three else out, k, v, scores]


def _exposed_scores(
    low: Lowering, q: TypedValue, k: TypedValue, scale: float, score: Function, *, zero_rows: bool
) -> TypedValue:
    """The output qk_matmul_output [B, H, S, T]: products, capped or masked, or their softmax, as the attribute says. They are
    computed again, for themselves."""
    (batch, heads, length, size), (kv_heads, total) = q.shape, k.shape[1:3]
    group = low.node.divide_exactly(heads, kv_heads, "the heads of queries do not divide by those of keys")
    grouped = low.build.reshaped(q, (batch, kv_heads, group, length, size))
    keys = low.build.transpose(low.build.reshaped(k, (batch, kv_heads, 1, total, size)), (0, 1, 2, 4, 3))
    shape = (batch, kv_heads, group, length, total)
    products = low.build.matmul(grouped, keys, shape, FLOAT, lambda b, s: b.mulf(s, b.like(scale, s)))
    products = low.build.reshaped(products, (batch, heads, length, total))
    mode = low.attr("qk_matmul_output_mode")
    if mode == 3:
        finish = zero_where_empty if zero_rows else None
        return low.build.normalize(products, "softmax", [3], map=score, epilogue=finish, type=low.type)

    def body(b: RegionBuilder) -> Scalar:
        s = b.load(products)
        return s if mode == 0 else capped(b, s, low.attr("softcap")) if mode == 1 else score(b, s)

    return low.build.pointwise(low.type, products.shape, body)


Function = Callable[[RegionBuilder, Scalar], Scalar]


def attention(
    low: Lowering,
    q: TypedValue,
    k: TypedValue,
    v: TypedValue,
    scale: float,
    score: Function,
    *,
    causal: bool = False,
    lengths: TypedValue | None = None,
    finish: Function | None = None,
) -> TypedValue:
    """An `attention` of [B, heads, S, D] over [B, heads or a divisor, T, D], for the first output's type.

    Args:
        score: of a scaled product, over [B, H, S, T].
        causal: it is minus infinity for every t > s + (T - S), whatever `score` gives.
        lengths: [B], instead of T what counts of the keys of each batch.
        finish: of an element of the result, in f32.
    """
    operands = [q.value, k.value, v.value] if lengths is None else [q.value, k.value, v.value, lengths.value]
    tensors = list(operands)
    first = low.build.region(tensors, ["f32"])
    scored = first.finish(score(first, first.arg()))
    last = low.build.region(tensors, ["f32"])
    y = last.arg() if finish is None else finish(last, last.arg())
    attrs: dict[str, ir.Attribute] = {"scale": ir.FloatAttr.get(ir.F64Type.get(), scale)}
    if causal:
        attrs["causal"] = ir.UnitAttr.get()
    if lengths is not None:
        attrs["ragged"] = ir.UnitAttr.get()
    shape = (*q.shape[:3], v.shape[3])
    regions = [scored, last.finish(last.store(y, low.type))]
    return low.build.root("attention", operands, low.type, shape, attrs, regions, tensors)


def capped(b: RegionBuilder, s: Scalar, cap: float | None) -> Scalar:
    """A score softly capped at +-cap; as it is for 0 or None."""
    return b.mulf(b.tanh(b.divf(s, b.like(cap, s))), b.like(cap, s)) if cap else s


def zero_where_empty(b: RegionBuilder, y: Scalar) -> Scalar:
    """A row that attends to nothing is 0 / 0, and zero by ONNX's convention."""
    return b.select(b.cmpf_uno(y, y), b.like(0, y), y)


def appended(low: Lowering, past: TypedValue, x: TypedValue) -> TypedValue:
    batch, heads, steps, size = past.shape
    return low.build.concat([past, x], 2, (batch, heads, steps + x.shape[2], size))


def _masked(low: Lowering, b: RegionBuilder, s: Scalar, mask: Source, total: Dim) -> Scalar:
    """The score plus a floating-point mask, or minus infinity where a truth mask is false."""
    if is_short(mask.shape, total):
        axes = range(4 - mask.rank, 4)
        at = [b.clamped_index(b.index(axis), d) for axis, d in zip(axes, mask.shape, strict=True)]
        m = b.load_at(mask, at)
        masked = b.select(m, s, b.like(-math.inf, s)) if not m.is_float else add(b, s, b.to_float(m))
        return b.select(b.cmpi_slt(b.index(3), b.dim(mask.shape[-1])), masked, b.like(-math.inf, s))
    if mask.shape[-1] != total:
        raise low.fail(f"a mask of {mask.shape[-1]} keys for {total} is not supported", "make the mask as long as the keys")
    m = b.load(mask)
    return add(b, s, b.to_float(m)) if m.is_float else b.select(m, s, b.like(-math.inf, s))


class _Bounds:
    """Which keys a query may attend to, by position.

    Args:
        length: number of queries.
        past: keys before the first query's own, where `lengths` does not say.
        lengths: [B], how many keys of each batch count, of which the queries are the last; all where None.
    """

    def __init__(self, low: Lowering, length: Dim, past: Dim, lengths: TypedValue | None) -> None:
        self.past = past
        self._length = length
        self._left = low.attr("left_window_size")
        self._right = low.attr("right_window_size")
        self._valid = None if lengths is None else low.build.reshape(lengths, (*lengths.shape, 1, 1, 1))

    @property
    def may_exclude_all(self) -> bool:
        """True where a query may have no key at all."""
        return self._valid is not None or self._left >= 0 or self._right >= 0

    def apply(self, b: RegionBuilder, s: Scalar, *, causal: bool, counted: bool) -> Scalar:
        """The score of query axis 2 and key axis 3, minus infinity where the query may not see the key; `counted`: keys beyond
        the lengths have been left out."""
        allowed: list[Scalar] = []
        valid = None
        if self._valid is not None and (causal or not counted or self._left >= 0 or self._right >= 0):
            valid = b.to_index(b.load(self._valid))
        if valid is not None and not counted:
            allowed.append(b.cmpi_slt(b.index(3), valid))
        if causal or self._left >= 0 or self._right >= 0:
            offset = b.dim(self.past) if valid is None else b.subi(valid, b.dim(self._length))
            ahead = b.subi(b.index(3), b.addi(b.index(2), offset))
            if causal:
                allowed.append(b.cmpi_sle(ahead, b.const(0, "i64")))
            if self._left >= 0:
                allowed.append(b.cmpi_sge(ahead, b.const(-self._left, "i64")))
            if self._right >= 0:
                allowed.append(b.cmpi_sle(ahead, b.const(self._right, "i64")))
        for condition in allowed:
            s = b.select(condition, s, b.like(-math.inf, s))
        return s


@lowering("RotaryEmbedding")
def _rotary_embedding(low: Lowering) -> Source:
    x = low.tensor(0)
    three = x.rank == 3
    if three:
        x = split_heads(low, x, low.attr("num_heads"))
    size = x.shape[3]
    if not isinstance(size, int):
        raise low.fail(f"a head of {size} elements is not supported", "make its size constant")
    rotated = low.attr("rotary_embedding_dim") or size
    interleaved = bool(low.attr("interleaved"))
    caches = [low.tensor(1), low.tensor(2)]
    positions = low.tensor(3) if low.has(3) else None

    def place(b: RegionBuilder) -> list[Scalar]:
        at = [b.index(0), b.index(2)]
        return at if positions is None else [b.wrapped_index(b.load_at(positions, at), caches[0].shape[0])]

    y = rotary(low, x, caches[0], caches[1], rotated, place, interleaved=interleaved)
    return merge_heads(low, y) if three else y


def rotary(
    low: Lowering,
    x: TypedValue,
    cos: TypedValue,
    sin: TypedValue,
    rotated: int,
    place: Callable[[RegionBuilder], list[Scalar]],
    *,
    interleaved: bool,
) -> TypedValue:
    """x [B, H, S, D] with pairs among the first `rotated` elements turned (ONNX, RotaryEmbedding), in x's type.

    `place` gives the indices into the caches [..., rotated / 2], all but the last, at a position of x.
    """
    size, half = x.shape[3], rotated // 2
    if rotated == size:
        return _rotary_of_pairs(low, x, cos, sin, place, interleaved=interleaved)

    def body(b: RegionBuilder) -> Scalar:
        d = b.index(3)
        if interleaved:
            partner, k = b.xori(d, b.const(1, "i64")), b.shrsi(d, b.const(1, "i64"))
            is_first = b.cmpi_eq(b.andi(d, b.const(1, "i64")), b.const(0, "i64"))
        else:
            is_first = b.cmpi_slt(d, b.const(half, "i64"))
            shift = b.select(is_first, b.const(half, "i64"), b.const(-half, "i64"))
            partner, k = b.addi(d, shift), b.select(is_first, d, b.subi(d, b.const(half, "i64")))
        # Elements that stay read something in range.
        partner, k = b.clamped_index(partner, size), b.clamped_index(k, half)
        at = [*place(b), k]
        cosine, sine = b.load_at(cos, at), b.load_at(sin, at)
        value = b.load(x)
        other = b.load_at(x, [b.index(0), b.index(1), b.index(2), partner])
        y = b.addf(b.mulf(value, cosine), b.mulf(b.select(is_first, b.negf(other), other), sine))
        return b.select(b.cmpi_slt(d, b.const(rotated, "i64")), y, value)

    return low.build.pointwise(x.type, x.shape, body)


def _rotary_of_pairs(
    low: Lowering,
    x: TypedValue,
    cos: TypedValue,
    sin: TypedValue,
    place: Callable[[RegionBuilder], list[Scalar]],
    *,
    interleaved: bool,
) -> TypedValue:
    """`rotary` of all elements, over x whose last axis is split in two: partners are x with the pairs' axis backwards."""
    half = dims.exact_div(x.shape[3], 2)
    assert half is not None
    pair = 4 if interleaved else 3
    domain = (*x.shape[:3], *((half, 2) if interleaved else (2, half)))
    pairs = low.build.reshaped(x, domain)
    backwards = [-1 if i == pair else 1 for i in range(5)]
    partners = low.build.slice(pairs, [int(i == pair) for i in range(5)], domain, backwards)

    def body(b: RegionBuilder) -> Scalar:
        at = [*place(b), b.index(7 - pair)]
        other = b.load(partners)
        turned = b.select(b.cmpi_eq(b.index(pair), b.const(0, "i64")), b.negf(other), other)
        return b.addf(b.mulf(b.load(pairs), b.load_at(cos, at)), b.mulf(turned, b.load_at(sin, at)))

    return low.build.reshaped(low.build.pointwise(x.type, domain, body), x.shape)
