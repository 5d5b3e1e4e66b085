"""Rules for attention and its helpers."""

from __future__ import annotations

from collections.abc import Sequence

from ingot.dims import Dim
from ingot.passes.onnx_inference.rules import Node, rule
from ingot.passes.onnx_inference.tensors import Tensor


def is_short(mask: Sequence[Dim], total: Dim) -> bool:
    """True where a mask is known to end before the keys do: those beyond it are masked."""
    return bool(mask) and isinstance(mask[-1], int) and isinstance(total, int) and 1 < mask[-1] < total


@rule("Attention")
def _attention(node: Node) -> list[Tensor]:
    q, k, v = node.input(0), node.input(1), node.input(2)
    four = q.rank == 4
    if four:
        batch, heads, length, size = q.shape
        kv_heads, steps, value_size = k.shape[1], k.shape[2], v.shape[3]
    else:
        q_heads, kv = node.attr("q_num_heads"), node.attr("kv_num_heads")
        if not q_heads or not kv:
            raise node.fail("3-D inputs need q_num_heads and kv_num_heads", "give the attributes")
        batch, length = q.shape[:2]
        heads, kv_heads, steps = q_heads, kv, k.shape[1]
        size = node.divide_exactly(q.shape[2], q_heads, "the query does not divide by the heads")
        value_size = node.divide_exactly(v.shape[2], kv, "the value does not divide by the heads")
    past: Dim = 0
    if node.has(4):
        past = node.input(4).shape[2]
    total = past + steps
    if node.has(6):
        if node.has(4):
            raise node.fail("nonpad_kv_seqlen beside past_key is not supported", "append by TensorScatter, or leave out one")
        node.equal(node.input(6).shape[0], batch, "nonpad_kv_seqlen is not one number a sequence")
    if node.has(3):
        mask = node.input(3).shape
        if is_short(mask, total):
            mask = (*mask[:-1], total)
        node.broadcast((batch, heads, length, total), mask)
    key_size = size
    y = (batch, heads, length, value_size) if four else (batch, length, heads * value_size)
    return [
        Tensor(q.type, y),
        Tensor(k.type, (batch, kv_heads, total, key_size)),
        Tensor(v.type, (batch, kv_heads, total, value_size)),
        Tensor(q.type, (batch, heads, length, total)),
    ]


@rule("RotaryEmbedding")
def _rotary_embedding(node: Node) -> Tensor:
    x = node.input(0)
    if x.rank == 3 and not node.attr("num_heads"):
        raise node.fail("a 3-D input needs num_heads", "give the attribute")
    steps = (x.shape[0], x.shape[2] if x.rank == 4 else x.shape[1])
    caches = [node.input(1), node.input(2)]
    for tensor in [node.input(3)] if node.has(3) else caches:
        for size, step in zip(tensor.shape[:2], steps, strict=True):
            node.equal(size, step, "positions are not those of the input")
    if node.has(3):
        for cache in caches:
            node.reads(cache.shape[0], 1, x.shape, "the cache has no position")
    return Tensor(x.type, x.shape)
