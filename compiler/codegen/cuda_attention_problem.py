"""An attention dispatch as kernels see it: heads, rows of queries, keys, and how each tensor strides.

Query heads that share a key head become rows of one product where each has a single query (decoding), so that keys and values
are read once for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ingot import dims
from ingot.compiler.codegen.cuda_gemm_problem import Matrix
from ingot.compiler.codegen.cuda_kernel import DispatchKernel, divides, region_buffers, region_operands, symbol_of
from ingot.compiler.codegen.values import Val
from ingot.dims import Dim
from ingot.dispatch import Dispatch
from ingot.kernel_plan import BufferArg, KernelLaunch


@dataclass(frozen=True)
class AttentionProblem:
    """Softmax over keys of scores of queries, times values, for each batch and head.

    Attributes:
        dispatch: the attention.
        batch, heads: sizes; `heads` counts those that are separate products.
        rows: queries of a head.
        keys: keys of a head.
        depth: elements of a query and a key; `depth_v` of a value.
        q, k: rows are queries (keys), columns depth.
        v: rows are elements of a value, columns keys: the second product's right operand.
        group: query heads that share a key head.
        packed: the rows are `group` heads of one query each.
        scale: factor of the products.
        causal: keys beyond the query's own position, counted from the end, do not take part.
        ragged: each batch has a number of keys of its own, operand 3.
    """

    dispatch: Dispatch
    batch: Dim
    heads: Dim
    rows: Dim
    keys: Dim
    depth: int
    depth_v: int
    q: Matrix
    k: Matrix
    v: Matrix
    group: int
    packed: bool
    scale: float
    causal: bool
    ragged: bool

    @property
    def own(self) -> tuple[int, ...]:
        """Numbers of the operands that the kernel reads whatever its regions load."""
        return (0, 1, 2, 3) if self.ragged else (0, 1, 2)

    def masks(self, keys: int) -> bool:
        """True where tiles of `keys` keys may hold some that take no part."""
        return self.causal or self.ragged or not divides(keys, self.keys, self.dispatch)

    def n_keys(self, dk: DispatchKernel, batch: Val) -> Val:
        """How many keys of a batch take part, in i32."""
        k, stored = dk.k, dk.size(self.keys, "i32")
        if not self.ragged:
            return stored
        t = self.dispatch.operands[3]
        length = dk.load_raw(dk.address("operand", 3, [batch]), t.dtype, 0, t.type.bytes)
        return k.max(k.cast(k.min(length, k.cast(stored, t.dtype)), "i32"), 0)

    @property
    def domain(self) -> tuple[Dim, ...]:
        """Sizes of the domain of scores: batch, query heads, queries, keys."""
        return (*self.dispatch.operands[0].shape[:3], self.keys)

    @property
    def out_domain(self) -> tuple[Dim, ...]:
        """Sizes of the results' domain."""
        return (*self.dispatch.operands[0].shape[:3], self.depth_v)

    def position(self, k: object, batch: Val, head: Val, row: Val) -> list[Val]:
        """(batch, query head, query) of a row."""
        if self.packed:
            return [batch, head * self.group + row, k.const(0, row.t)]  # type: ignore[attr-defined]
        return [batch, head, row]

    def kv_head(self, head: Val) -> Val:
        """The key head of a product."""
        return head if self.packed or self.group == 1 else head // self.group

    @property
    def plain_scores(self) -> bool:
        """True where scores are the products times a positive factor, whose maxima are the products'."""
        return self.dispatch.regions[0].is_identity and self.scale > 0

    @property
    def flops(self) -> Dim:
        """Multiplications and additions, all keys counted."""
        return 2 * self.batch * self.heads * self.rows * self.keys * (self.depth + self.depth_v)


def attention_problem(dispatch: Dispatch) -> AttentionProblem:
    """The products that an `attention` dispatch asks for. Raises NotImplementedError where depths, or the heads that share a
    key head, are not constant in number."""
    q, k, v = dispatch.operands[:3]
    heads, kv_heads, depth, depth_v = q.shape[1], k.shape[1], q.shape[3], v.shape[3]
    group = dims.exact_div(heads, kv_heads)
    if not (isinstance(group, int) and isinstance(depth, int) and isinstance(depth_v, int)):
        sizes = f"{heads} heads, {kv_heads} key heads, depth {depth} and {depth_v}"
        raise NotImplementedError(f"attention with {sizes}: depths and heads that share a key head must be constant")
    packed = q.shape[2] == 1 and group > 1
    keys = k.shape[2]

    def matrix(index: int, rows: Dim, cols: Dim, row_stride: Dim, col_stride: Dim, batch: Sequence[Dim]) -> Matrix:
        t = dispatch.operands[index]
        return Matrix("operand", index, t.dtype, rows, cols, row_stride, col_stride, tuple(batch), t.align, t.type.bits)

    rows = group if packed else q.shape[2]
    q_batch = (q.strides[0], q.strides[1] * group if packed else q.strides[1])
    return AttentionProblem(
        dispatch, q.shape[0], kv_heads if packed else heads, rows, keys, depth, depth_v,
        matrix(0, rows, depth, q.strides[1] if packed else q.strides[2], q.strides[3], q_batch),
        matrix(1, keys, depth, k.strides[2], k.strides[3], k.strides[:2]),
        matrix(2, depth_v, keys, v.strides[3], v.strides[2], v.strides[:2]),
        group, packed, float(dispatch.attr("scale")), bool(dispatch.attr("causal", False)) and not packed,
        bool(dispatch.attr("ragged", False)),
    )  # fmt: skip


def score(
    dk: DispatchKernel, p: AttentionProblem, product: Val, position: Sequence[Val], col: Val, lanes: int
) -> Val:
    """The score of products (f32, `lanes` neighbouring keys or a scalar) at a position, by the dispatch's region."""
    scaled = product * p.scale
    if p.plain_scores:
        return scaled
    (value,) = dk.region(p.dispatch.regions[0], [scaled], [*position, col], p.domain, lanes)
    return value


def tiled_launch(
    p: AttentionProblem, rows: int, splits: int, threads: int, shared_bytes: int, cluster: int = 1
) -> KernelLaunch:
    """The launch of a kernel whose blocks take tiles of `rows` rows, heads, and batches times splits, or times the blocks of a
    cluster."""
    own = tuple(BufferArg("operand", i) for i in p.own)
    if splits > 1:
        loaded = (BufferArg("operand", i) for i in region_operands(p.dispatch.regions[:1]) if i not in p.own)
        rest: tuple[BufferArg, ...] = (*loaded, BufferArg("workspace"))
    else:
        rest = region_buffers(p.dispatch, skip=p.own)
    return KernelLaunch(
        symbol_of(p.dispatch),
        (dims.ceildiv(p.rows, rows), p.heads, p.batch * splits * cluster),
        (*own, *rest),
        (threads, 1, 1),
        cluster=(1, 1, cluster),
        shared_bytes=shared_bytes,
        flops=p.flops,
    )
