"""ONNX Runtime's attention operators (docs/ContribOperators.md) and their helpers.

Padding is hidden as ONNX Runtime does it, by adding `mask_filter_value` to scores; later positions by minus infinity.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from ingot import dims
from ingot.dims import Dim
from ingot.passes.onnx_inference.microsoft_attention import group_query_sizes, qkv_sizes
from ingot.passes.onnx_lowering.graph_builder import INT64
from ingot.passes.onnx_lowering.linear import matmul
from ingot.passes.onnx_lowering.lowering import Lowering, lowering
from ingot.passes.onnx_lowering.reductions import affine
from ingot.passes.onnx_lowering.region_builder import RegionBuilder, Scalar
from ingot.passes.onnx_lowering.transformers import appended, attention, capped, merge_heads, rotary, split_heads
from ingot.passes.onnx_lowering.values import Source, TypedValue

Condition = Callable[[RegionBuilder], Scalar]


@dataclass
class _Score:
    """What becomes of the scores of one attention, over [B, H, S, T].

    Attributes:
        bias: is added.
        mask: holds for keys that count; others get `filter` added.
        causal: later positions than the query's own are not seen.
        window: nor are those this many and more before it; none where None.
        past: keys before the first query's own, where `lengths` does not say.
        lengths: [B], how many keys of each batch count, of which the queries' own are the last; all where None.
        queries: how many there are, where `lengths` are given.
    """

    low: Lowering
    softcap: float | None = None
    bias: Source | None = None
    mask: list[Condition] = field(default_factory=list)
    filter: float = -10000.0
    causal: bool = False
    window: int | None = None
    past: Dim = 0
    lengths: TypedValue | None = None
    queries: Dim = 0

    def __call__(self, b: RegionBuilder, s: Scalar) -> Scalar:
        s = capped(b, s, self.softcap)
        if self.bias is not None:
            s = b.addf(s, b.to_float(b.load(self.bias)))
        for counts in self.mask:
            s = b.select(counts(b), s, b.addf(s, b.like(self.filter, s)))
        if self.causal or self.window is not None:
            own = b.addi(b.index(2), first_position(b, self.past, self.lengths, self.queries))
            ahead = b.subi(b.index(3), own)
            if self.causal:
                s = b.select(b.cmpi_sle(ahead, b.const(0, "i64")), s, b.like(-math.inf, s))
            if self.window is not None:
                s = b.select(b.cmpi_sgt(ahead, b.const(-self.window, "i64")), s, b.like(-math.inf, s))
        return s

    def attend(
        self, q: TypedValue, k: TypedValue, v: TypedValue, finish: Callable[[RegionBuilder, Scalar], Scalar] | None = None
    ) -> TypedValue:
        """The attention of [B, H, S, D], scaled by the attribute `scale`."""
        scale, size = self.low.attr("scale"), q.shape[3]
        if not scale:
            if not isinstance(size, int):
                raise self.low.fail(f"a head of {size} elements needs the attribute scale", "give the attribute")
            scale = 1 / math.sqrt(size)
        at_end = self.causal and self.past == k.shape[2] - q.shape[2]
        self.causal = self.causal and not at_end
        return attention(self.low, q, k, v, scale, self, causal=at_end, lengths=self.lengths, finish=finish)


def first_position(b: RegionBuilder, past: Dim, lengths: TypedValue | None, length: Dim) -> Scalar:
    """Where a batch's (axis 0 of the domain) first of `length` queries stands among its keys; see `_Score`."""
    return b.dim(past) if lengths is None else b.subi(b.load_at(lengths, [b.index(0)]), b.dim(length))


def _padding(low: Lowering, i: int, batch: Dim) -> list[Condition]:
    """The conditions that a mask, operand `i`, states; see `onnx_inference.microsoft_attention`."""
    mask = low.optional(i)
    if mask is None:
        return []
    if mask.rank == 1:
        parts = [mask]
        if mask.shape[0] == 2 * batch and mask.shape[0] != batch:
            whole = low.build.tensor(mask)
            parts = [low.build.slice_axis(whole, 0, 0, batch), low.build.slice_axis(whole, 0, batch, batch)]
        ends, *begins = (low.build.reshape(p, (batch, 1, 1, 1)) for p in parts)
        found: list[Condition] = [lambda b: b.cmpi_slt(b.index(3), b.to_index(b.load(ends)))]
        return [*found, *map(_from, begins)]
    wide = (mask.shape[0], 1, 1, mask.shape[1]) if mask.rank == 2 else (mask.shape[0], 1, *mask.shape[1:])
    aligned = low.build.reshape(mask, wide)

    def counts(b: RegionBuilder) -> Scalar:
        m = b.load(aligned)
        return b.cmpi_sgt(m, b.like(0, m))

    return [counts]


def _from(begins: Source) -> Condition:
    """True of keys from the loaded position on."""
    return lambda b: b.cmpi_sge(b.index(3), b.to_index(b.load(begins)))


def _plus(low: Lowering, x: TypedValue, bias: Source | None, start: Dim) -> TypedValue:
    """x [..., N] plus N elements of a bias from `start` on."""
    if bias is None:
        return x
    part = low.build.slice_axis(low.build.tensor(bias), 0, start, x.shape[-1])
    return low.build.pointwise(x.type, x.shape, lambda b: b.addf(b.load(x), b.load(part)))


@lowering("com.microsoft.Attention")
def _attention(low: Lowering) -> list[Source | None]:
    x, w, bias = low.tensor(0), low.tensor(1), low.optional(2)
    heads, sizes = low.attr("num_heads"), qkv_sizes(low.node)
    batch = x.shape[0]
    add_bias = None if bias is None else lambda b, acc: b.addf(acc, b.load(bias))
    together = low.build.tensor(matmul(low, x, w, (*x.shape[:2], w.shape[1]), add_bias))
    starts: list[Dim] = [0, sizes[0], sizes[0] + sizes[1]]
    parts = [low.build.slice_axis(together, 2, s, n) for s, n in zip(starts, sizes, strict=True)]
    q, k, v = (split_heads(low, p, heads) for p in parts)
    past: Dim = 0
    present: TypedValue | None = None
    if low.has(4) or (len(low.used) > 1 and low.used[1]):
        new = [low.build.reshaped(t, (1, *t.shape)) for t in (k, v)]
        present = low.build.concat(new, 0, (2, *k.shape))
        if low.has(4):
            before = low.tensor(4)
            past = before.shape[3]
            grown = (*before.shape[:3], past + k.shape[2], before.shape[4])
            present = low.build.concat([before, present], 3, grown)
        k, v = (low.build.reshaped(low.build.slice_axis(present, 0, i, 1), present.shape[1:]) for i in (0, 1))
    score = _Score(
        low, bias=low.optional(5), mask=_padding(low, 3, batch), filter=low.attr("mask_filter_value"),
        causal=bool(low.attr("unidirectional")), past=past,
    )  # fmt: skip
    return [merge_heads(low, score.attend(q, k, v)), present]


@lowering("com.microsoft.MultiHeadAttention")
def _multi_head_attention(low: Lowering) -> list[Source | None]:
    if len(low.used) > 3 and low.used[3]:
        raise low.fail("output qk is not supported", "export the model without it")
    heads, bias = low.attr("num_heads"), low.optional(3)
    query = low.tensor(0)
    parts = [query]
    if query.rank == 5:
        parts = _unpacked(low, query, 3)
    else:
        key = low.tensor(1)
        parts += _unpacked(low, key, 2) if key.rank == 5 else [key, low.tensor(2)]
    starts: list[Dim] = [0, parts[0].shape[-1], 2 * parts[0].shape[-1]]
    split = []
    for x, start in zip(parts, starts, strict=True):
        if x.rank == 4:  # heads are apart already, and the bias is in
            split.append(x)
        else:
            split.append(split_heads(low, _plus(low, x, bias, start), heads))
    q, k, v = split
    past: Dim = 0
    if low.has(6):
        past = low.tensor(6).shape[2]
        k, v = appended(low, low.tensor(6), k), appended(low, low.tensor(7), v)
    score = _Score(
        low, bias=low.optional(5), mask=_padding(low, 4, q.shape[0]), filter=low.attr("mask_filter_value"),
        causal=bool(low.attr("unidirectional")), past=past,
    )  # fmt: skip
    return [merge_heads(low, score.attend(q, k, v)), k, v]


def _unpacked(low: Lowering, x: TypedValue, count: int) -> list[TypedValue]:
    """[B, S, heads, count, D] as `count` tensors [B, S, heads * D]."""
    batch, length, heads, _, size = x.shape
    parts = (low.build.slice_axis(x, 3, i, 1) for i in range(count))
    return [low.build.reshaped(p, (batch, length, heads * size)) for p in parts]


@lowering("com.microsoft.GroupQueryAttention")
def _group_query_attention(low: Lowering) -> list[Source | None]:
    """The new positions of sequence b are those from seqlens_k[b] + 1 - S on, or from 0 where that is negative: a first call,
    in which causality hides the padding of shorter sequences (gqa_attention_base.h of ONNX Runtime, ConcatStateChunkGQA).

    All are appended behind the cache first, where most belong, and where a cache that grows in place has them at no cost. In a
    batch of several sequences they are then copied to where each ends; what stays behind a sequence's end is copies of its new
    positions, which nothing reads (ONNX Runtime leaves zeros there). A length that does not fit the cache, or one that is
    shorter than it in a batch of one, gives NaN.
    """
    if len(low.used) > 3 and low.used[3]:
        raise low.fail("output output_qk is not supported", "export the model without it")
    heads, kv_heads = low.attr("num_heads"), low.attr("kv_num_heads")
    size, past = group_query_sizes(low.node)
    q = low.tensor(0)
    parts = [q]
    if low.has(1):
        parts += [low.tensor(1), low.tensor(2)]
    else:
        counts: list[Dim] = [heads * size, kv_heads * size, kv_heads * size]
        starts: list[Dim] = [0, counts[0], counts[0] + counts[1]]
        parts = [low.build.slice_axis(q, 2, s, n) for s, n in zip(starts, counts, strict=True)]
    q, k, v = (split_heads(low, x, h) for x, h in zip(parts, (heads, kv_heads, kv_heads), strict=True))
    batch, length = q.shape[0], q.shape[2]
    stated = low.tensor(5)
    lengths = None if past == 0 or batch == 1 else _lengths_within(low, stated, length, past + length)
    if low.attr("do_rotary"):
        cos, sin = low.tensor(7), low.tensor(8)
        ids = low.source(9) if low.has(9) else None

        def place(b: RegionBuilder) -> list[Scalar]:
            if ids is None:
                at = b.addi(b.index(2), first_position(b, past, lengths, length))
            else:
                at = b.load_at(ids, [b.index(0), b.index(2)])
            return [b.wrapped_index(at, cos.shape[0])]

        turned = _rotated_elements(low, cos)
        interleaved = bool(low.attr("rotary_interleaved"))
        q, k = (rotary(low, x, cos, sin, turned, place, interleaved=interleaved) for x in (q, k))
    if low.has(3):
        k, v = appended(low, low.tensor(3), k), appended(low, low.tensor(4), v)
    if lengths is not None:
        k, v = _at_their_ends(low, k, past, lengths), _at_their_ends(low, v, past, lengths)
    window = low.attr("local_window_size")
    score = _Score(
        low, softcap=low.attr("softcap"), bias=low.optional(10), causal=True,
        window=window if window > 0 else None, past=past, lengths=lengths, queries=length,
    )  # fmt: skip
    ends = low.build.reshape(stated, (batch, 1, 1, 1))

    def finish(b: RegionBuilder, y: Scalar) -> Scalar:
        end, stored = b.addi(b.to_index(b.load(ends)), b.const(1, "i64")), b.dim(k.shape[2])
        fits = b.ori(b.cmpi_eq(end, stored), b.cmpi_eq(b.dim(past), b.const(0, "i64")))
        if batch != 1:
            fits = b.ori(fits, b.andi(b.cmpi_slt(end, stored), b.cmpi_ne(b.dim(batch), b.const(1, "i64"))))
        return b.select(fits, y, b.like(math.nan, y))

    return [merge_heads(low, score.attend(q, k, v, None if past == 0 else finish)), k, v]


def _lengths_within(low: Lowering, stated: TypedValue, least: Dim, most: Dim) -> TypedValue:
    """The lengths [B] of sequences, new positions included, of `seqlens_k`, which is one less; at least the new positions, and
    at most what is stored."""
    ends = low.build.reshaped(stated, (stated.shape[0],))

    def body(b: RegionBuilder) -> Scalar:
        end = b.addi(b.to_index(b.load(ends)), b.const(1, "i64"))
        return b.maxsi(b.minsi(end, b.dim(most)), b.dim(least))

    return low.build.pointwise(INT64, ends.shape, body)


def _at_their_ends(low: Lowering, cache: TypedValue, past: Dim, lengths: TypedValue) -> TypedValue:
    """A cache [B, H, T, D] whose positions from `past` on are copied to each sequence's last ones, where there are several.

    (In a batch of one they lie there: the copy has no elements then, and is not launched.)
    """
    batch, heads, stored, size = cache.shape
    steps = stored - past
    new = low.build.slice(cache, [0, 0, past, 0], (dims.select(batch, 1, 0, batch), heads, steps, size))

    def place(b: RegionBuilder) -> list[Scalar]:
        at = b.addi(first_position(b, past, lengths, steps), b.index(2))
        return [b.index(0), b.index(1), at, b.index(3)]

    return low.build.scatter(cache, new, "set", [2], place)


def _rotated_elements(low: Lowering, cos: TypedValue) -> int:
    half = cos.shape[1]
    if not isinstance(half, int):
        raise low.fail(f"a rotary cache of {half} columns is not supported", "make its size constant")
    return 2 * half


@lowering("com.microsoft.RotaryEmbedding")
def _rotary_embedding(low: Lowering) -> Source:
    x, ids, cos, sin = low.tensor(0), low.source(1), low.tensor(2), low.tensor(3)
    turned = low.attr("rotary_embedding_dim") or _rotated_elements(low, cos)
    three = x.rank == 3
    if three:
        heads = low.attr("num_heads")
        x = split_heads(low, x, heads or low.node.divide_exactly(x.shape[2], turned, "the last axis has no whole heads"))

    def place(b: RegionBuilder) -> list[Scalar]:
        if ids.rank == 1:  # one position, that of the first element
            at = b.addi(b.to_index(b.load(ids)), b.index(2))
        else:
            at = b.to_index(b.load_at(ids, [b.index(0), b.index(2)]))
        return [b.wrapped_index(at, cos.shape[0])]

    y = rotary(low, x, cos, sin, turned, place, interleaved=bool(low.attr("interleaved")))
    return merge_heads(low, y) if three else y


@lowering("com.microsoft.EmbedLayerNormalization")
def _embed_layer_normalization(low: Lowering) -> list[Source | None]:
    ids, segments, positions = low.source(0), low.optional(1), low.optional(8)
    words, places, kinds = low.tensor(2), low.tensor(3), low.optional(4)

    def row(b: RegionBuilder, table: TypedValue, at: Scalar) -> Scalar:
        return b.load_at(table, [b.wrapped_index(at, table.shape[0]), b.index(2)])

    def number(x: Source) -> Source:
        return low.build.reshape(x, (*x.shape, 1))

    def total(b: RegionBuilder) -> Scalar:
        y = row(b, words, b.load(number(ids)))
        y = b.addf(y, row(b, places, b.index(1) if positions is None else b.load(number(positions))))
        if segments is None or kinds is None:
            return y
        return b.addf(y, row(b, low.build.tensor(kinds), b.load(number(segments))))

    x = low.build.pointwise(low.type, low.shape, total)
    y = low.build.normalize(x, "layer", [2], low.attr("epsilon"), affine(low.source(5), low.source(6)))
    return [y, _lengths(low) if len(low.used) > 1 and low.used[1] else None, x]


def _lengths(low: Lowering) -> Source:
    """How many elements of each row of the mask are not 0; none where there is no mask."""
    type, shape = low.result(1).type, low.result(1).shape
    if not low.has(7):
        return low.build.pointwise(type, shape, lambda b: b.const(0, type.storage))
    mask = low.tensor(7)

    def counts(b: RegionBuilder, m: Scalar) -> Scalar:
        return b.emit("extui", (b.cmpi_ne(m, b.like(0, m)),), type.storage)

    return low.build.reshape(low.build.reduce(mask, "sum", [1], type, counts, acc=type.storage), shape)
