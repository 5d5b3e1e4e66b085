"""Rules for ONNX Runtime's attention operators (docs/ContribOperators.md) and their helpers."""

from __future__ import annotations

from ingot.dims import Dim
from ingot.dtypes import ONNX_TYPE_BY_NAME
from ingot.passes.onnx_inference.rules import Node, rule
from ingot.passes.onnx_inference.tensors import Tensor

INT32 = ONNX_TYPE_BY_NAME["int32"]


def refuse_given(node: Node, *numbers: int) -> None:
    """Raise Unsupported where an operand that changes the operator's meaning is given."""
    for i in numbers:
        if node.has(i):
            raise node.fail(f"input {i} is not supported", "export the model without it")


def refuse_set(node: Node, **plain: object) -> None:
    """Raise Unsupported where an attribute has another value than the one that is named, or none."""
    for name, value in plain.items():
        found = node.attr(name)
        if found is not None and found != value:
            raise node.fail(f"{name}={found} is not supported", f"export the model with {name}={value}")


def qkv_sizes(node: Node) -> tuple[Dim, Dim, Dim]:
    """The sizes of queries, keys and values among the columns of the weights of com.microsoft.Attention."""
    columns = node.input(1).shape[1]
    given = node.attr("qkv_hidden_sizes")
    if given:
        if len(given) != 3 or given[0] != given[1]:
            raise node.fail(f"qkv_hidden_sizes={given} is not supported", "give queries and keys one size")
        return given[0], given[1], given[2]
    third = node.divide_exactly(columns, 3, "the weights are not those of queries, keys and values")
    return third, third, third


@rule("com.microsoft.Attention")
def _attention(node: Node) -> list[Tensor]:
    refuse_given(node, 6)
    refuse_set(node, do_rotary=0, past_present_share_buffer=0)
    x, w = node.input(0), node.input(1)
    batch, length, size = x.shape
    node.equal(size, w.shape[0], "the input's last size is not the weights' first")
    _, _, values = qkv_sizes(node)
    heads = node.attr("num_heads")
    head = node.divide_exactly(values, heads, "the values do not divide by the heads")
    total = length
    if node.has(4):
        past = node.input(4).shape[3]
        total = past + length
        for found, wanted in zip(node.input(4).shape, (2, batch, heads, past, head), strict=True):
            node.equal(found, wanted, "the cache is not that of the query")
    _check_mask(node, 3, batch, length, total)
    if node.has(5):
        node.broadcast((batch, heads, length, total), node.input(5).shape)
    return [Tensor(x.type, (batch, length, values)), Tensor(x.type, (2, batch, heads, total, head))]


def _check_mask(node: Node, i: int, batch: Dim, length: Dim, total: Dim) -> None:
    """Sizes of a mask: [B] (how many keys count), [2 B] (ends, then beginnings), [B, T] or [B, S, T]."""
    if not node.has(i):
        return
    shape = node.input(i).shape
    if len(shape) == 1:
        if shape[0] != 2 * batch:
            node.equal(shape[0], batch, "the mask is not one number a sequence")
    elif len(shape) in (2, 3):
        for found, wanted in zip(shape, (batch, total) if len(shape) == 2 else (batch, length, total), strict=True):
            node.equal(found, wanted, "the mask is not that of the keys")
    else:
        raise node.fail(f"a mask of {len(shape)} axes is not supported", "export with a mask [batch, keys]")


@rule("com.microsoft.MultiHeadAttention")
def _multi_head_attention(node: Node) -> list[Tensor]:
    refuse_given(node, 8, 9)
    heads = node.attr("num_heads")
    q = node.input(0)
    if q.rank not in (3, 5) or (q.rank == 5 and node.has(1)):
        raise node.fail(f"a query of {q.rank} axes is not supported", "give [batch, length, size]")
    if q.rank == 5:  # [B, S, heads, 3, D]
        batch, length, _, _, head = q.shape
        size = values = heads * head
        keys: Dim = length
    else:
        batch, length, size = q.shape
        if not node.has(1) or (node.input(1).rank != 5 and not node.has(2)):
            raise node.fail("a query without keys or values is not supported", "give them")
        k = node.input(1)
        if k.rank == 5:  # [B, T, heads, 2, D]
            keys, values = k.shape[1], heads * k.shape[4]
        else:
            v = node.input(2)
            keys, values = (k.shape[1], v.shape[2]) if k.rank == 3 else (k.shape[2], heads * v.shape[3])
    total = keys
    if node.has(6):
        past = node.input(6).shape[2]
        total = past + keys
        for i, columns in ((6, size), (7, values)):
            head = node.divide_exactly(columns, heads, "the query does not divide by the heads")
            for found, wanted in zip(node.input(i).shape, (batch, heads, past, head), strict=True):
                node.equal(found, wanted, "the cache is not that of the query")
    _check_mask(node, 4, batch, length, total)
    if node.has(5):
        node.broadcast((batch, heads, length, total), node.input(5).shape)
    head = node.divide_exactly(size, heads, "the query does not divide by the heads")
    value_head = node.divide_exactly(values, heads, "the values do not divide by the heads")
    return [
        Tensor(q.type, (batch, length, values)),
        Tensor(q.type, (batch, heads, total, head)),
        Tensor(q.type, (batch, heads, total, value_head)),
    ]


def group_query_sizes(node: Node) -> tuple[Dim, Dim]:
    """The size of a head, and how many positions the cache has before this call."""
    q, heads, kv_heads = node.input(0), node.attr("num_heads"), node.attr("kv_num_heads")
    all_heads = heads if node.has(1) else heads + 2 * kv_heads
    head = node.divide_exactly(q.shape[2], all_heads, "the query does not divide by the heads")
    return head, node.input(3).shape[2] if node.has(3) else 0


@rule("com.microsoft.GroupQueryAttention")
def _group_query_attention(node: Node) -> list[Tensor]:
    refuse_given(node, 11, 12, 13, 14, 15, 16)
    refuse_set(node, causal=1, qk_output=0, sliding_window_cache=0)
    refuse_set(node, k_quant_type="NONE", v_quant_type="NONE", kv_cache_bit_width=0)
    if node.attr("smooth_softmax") == 1:
        raise node.fail("smooth_softmax=1 is not supported", "export without it")
    q, heads, kv_heads = node.input(0), node.attr("num_heads"), node.attr("kv_num_heads")
    head, past = group_query_sizes(node)
    batch, length = q.shape[:2]
    total = past + length
    if node.has(3):
        for i in (3, 4):
            for found, wanted in zip(node.input(i).shape, (batch, kv_heads, past, head), strict=True):
                node.equal(found, wanted, "the cache is not that of the query")
    node.equal(node.input(5).shape[0], batch, "seqlens_k is not one number a sequence")
    stated = node.input(6).value
    if stated is not None and stated.size == 1 and stated.item() is not None:
        node.equal(total, stated.item(), "past and new positions are not total_sequence_length")
    if node.attr("do_rotary"):
        for i in (7, 8):
            node.at_most(total, node.input(i).shape[0], "the rotary cache has fewer positions than the sequence")
    if node.has(10):
        node.broadcast((batch, heads, length, total), node.input(10).shape)
    present = Tensor(q.type, (batch, kv_heads, total, head))
    return [Tensor(q.type, (batch, length, heads * head)), present, present]


@rule("com.microsoft.RotaryEmbedding")
def _rotary_embedding(node: Node) -> Tensor:
    refuse_set(node, is_packed_batching=0, scale=1.0)
    x, ids = node.input(0), node.input(1)
    length = x.shape[2] if x.rank == 4 else x.shape[1]
    if ids.rank == 2:
        node.equal(ids.shape[0], x.shape[0], "positions are not those of the input")
        node.equal(ids.shape[1], length, "positions are not those of the input")
    for i in (2, 3):
        node.reads(node.input(i).shape[0], 1, x.shape, "the cache has no position")
    return Tensor(x.type, x.shape)


@rule("com.microsoft.EmbedLayerNormalization")
def _embed_layer_normalization(node: Node) -> list[Tensor]:
    refuse_set(node, mask_index_type=0)
    ids, words = node.input(0), node.input(2)
    batch, length = ids.shape
    type, size = words.type, words.shape[1]
    for i in (2, 3, 4):
        if node.has(i):
            node.equal(node.input(i).shape[1], size, "embeddings have different sizes")
            node.reads(node.input(i).shape[0], 1, (batch, length, size), "an index into embeddings")
    if not node.has(8):
        node.at_most(length, node.input(3).shape[0], "there are fewer position embeddings than positions")
    y = Tensor(type, (batch, length, size))
    return [y, Tensor(INT32, (batch,)), y]
