"""Parts of an attention whose keys several warps or blocks share, combined within one launch.

Every warp leaves the sums of its keys, with each row's maximum and weight, in its block's shared memory. Warps' parts are
combined first, then, where the block belongs to a cluster (sm_90 and later), those of its blocks: each finishes a share of the
results through distributed shared memory. Parts are combined in a fixed order, and neither a workspace nor a second launch is
needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ingot.compiler.codegen.cuda_attention_problem import AttentionProblem
from ingot.compiler.codegen.cuda_attention_softmax import SoftmaxRows, rescaling, store_pair
from ingot.compiler.codegen.cuda_kernel import DispatchKernel, divides
from ingot.compiler.codegen.values import Val

_ALIGN = 128


@dataclass(frozen=True)
class PartShape:
    """A part in shared memory: sums of each row, f32, then (maximum, weight) of each.

    Attributes:
        rows: of queries that a block may have.
        width: sums of a row that are stored: the depth of values or more.
    """

    rows: int
    width: int

    @property
    def pitch(self) -> int:
        """Sums from a row to the next: four rows of pairs reach all banks."""
        return -(-self.width // 32) * 32 + 8

    @property
    def nbytes(self) -> int:
        return -(-self.rows * (self.pitch + 2) * 4 // _ALIGN) * _ALIGN

    def sums(self, part: Val, row: Val) -> Val:
        """The address of a row's first sum."""
        return part.at(row * self.pitch, "f32")

    def weight(self, part: Val, row: Val) -> Val:
        """The address of a row's maximum, which its weight follows."""
        return part.at(row * 2 + self.rows * self.pitch, "f32")


def part_shape(p: AttentionProblem, rows: int, width: int) -> PartShape:
    """Parts of a block of `rows` rows, of which the attention may have less."""
    return PartShape(min(rows, p.rows) if isinstance(p.rows, int) else rows, width)


def part_bytes(shape: PartShape, tiles: int, along: int, cluster: int) -> int:
    """Bytes of shared memory for each of a block's parts: its tiles, over which it lies later, and room for what several are
    combined to."""
    if along * cluster == 1:
        return tiles
    return -(-max(tiles, shape.nbytes * (2 if along > 1 and cluster > 1 else 1)) // _ALIGN) * _ALIGN


def leave_fragments(
    rows: SoftmaxRows, shape: PartShape, part: Val, first: Val, maximum: Sequence[Val], total: Sequence[Val], acc: Sequence[Val]
) -> None:
    """Write a thread's rows, of which `first` is the first one's place, to a part in shared memory."""
    k = rows.k
    for r in range(len(rows.rows)):
        i, half = divmod(r, 2)
        row = first + 8 * r
        weight = k.warp_reduce(lambda x, y: x + y, total[r], 4)
        with k.if_(True if rows.tile == shape.rows else row < shape.rows):
            with k.if_((rows.lane & 3).eq(0)):
                k.store(k.vector([maximum[r], weight]), shape.weight(part, row), align=8)
            line = shape.sums(part, row)
            for j in range(rows.columns_v):
                at = 4 * (i * rows.columns_v + j) + 2 * half
                k.store(k.vector(list(acc[at : at + 2])), line.at(((rows.lane & 3) << 1) + 8 * j, "f32"), align=8)


class AttentionParts:
    """Combines parts while a kernel is written.

    Args:
        dk: the kernel.
        p: the attention.
        shape: of a part.
        shared: where the block's first part lies, alike in all blocks.
        step: bytes from a part of the block to the next.
        along: parts of the block.
        cluster: blocks that share keys.
    """

    def __init__(
        self, dk: DispatchKernel, p: AttentionProblem, shape: PartShape, shared: Val, step: int, along: int, cluster: int
    ) -> None:
        self.dk, self.k, self.p, self.shape = dk, dk.k, p, shape
        self.along, self.cluster = along, cluster
        self.parts = [shared + i * step for i in range(along)]
        # Past the first part, inside what that warp has (`part_bytes`).
        self.whole = shared + shape.nbytes if along > 1 else shared

    def finish(self, batch: Val, head: Val, m0: Val, rank: Val) -> None:
        """Combine what all have left, and store the block's share of the results. All threads of the block come here, after
        their stores; the block may end afterwards."""
        k, shape, dk = self.k, self.shape, self.dk
        thread, pairs = k.thread_id(), -(-self.p.depth_v // 2)
        if self.along > 1:
            k.barrier()
            if self.cluster > 1:
                self._each(thread, shape.rows * pairs, lambda i: self._join(i // pairs, i % pairs))
        parts = self.parts
        if self.cluster > 1:
            k.cluster_sync()
            parts = [k.cluster_address(self.whole, i) for i in range(self.cluster)]
        share = -(-shape.rows * pairs // self.cluster)
        exact = share * self.cluster == shape.rows * pairs
        n_rows = dk.size(self.p.rows, "i32")

        def store(i: Val) -> None:
            number = rank * share + i if self.cluster > 1 else i
            row, col = number // pairs, (number % pairs) << 1
            at = m0 + row
            inside = None if divides(shape.rows, self.p.rows, self.p.dispatch) else at < n_rows
            if not exact:
                within = number < shape.rows * pairs
                inside = within if inside is None else inside & within
            with k.if_(True if inside is None else inside):
                sums, _, weight = self._combine(parts, row, col)
                scale = 1.0 / weight
                position = self.p.position(k, batch, head, at)
                even = self.p.depth_v % 2 == 0
                store_pair(dk, self.p, position, col, [x * scale for x in sums], 2 if even else 0, exact=even)

        self._each(thread, share, store)
        if self.cluster > 1:
            k.cluster_sync()  # a block's shared memory ends with it

    def _each(self, thread: Val, count: int, body: Callable[[Val], None]) -> None:
        """Run `body` for each of `count` numbers, a thread a number at a time."""
        k, threads = self.k, self.dk.threads
        if count <= threads:
            with k.if_(True if count == threads else thread < count):
                body(thread)
            return
        with k.for_(thread, count, threads) as loop:
            body(loop.iv)

    def _combine(self, parts: Sequence[Val], row: Val, col: Val) -> tuple[list[Val], Val, Val]:
        """(two neighbouring sums of a row, its maximum, its weight) of all parts."""
        k, two = self.k, self.k.vector_of("f32", 2)
        found = [k.elements(k.load(self.shape.weight(part, row), two, align=8)) for part in parts]
        read = [k.elements(k.load(self.shape.sums(part, row).at(col, "f32"), two, align=8)) for part in parts]
        maximum = found[0][0]
        for m, _ in found[1:]:
            maximum = k.max(maximum, m)
        shift = k.select(maximum.eq(float("-inf")), 0.0, maximum)
        weight, sums = k.const(0.0, "f32"), [k.const(0.0, "f32")] * 2
        for (m, w), pair in zip(found, read, strict=True):
            factor = rescaling(k, self.p, m, shift)
            weight = k.fma(factor, w, weight)
            sums = [k.fma(factor, x, y) for x, y in zip(pair, sums, strict=True)]
        return sums, maximum, weight

    def _join(self, row: Val, pair: Val) -> None:
        """Leave what the block's parts combine to for the cluster."""
        k = self.k
        sums, maximum, weight = self._combine(self.parts, row, pair << 1)
        k.store(k.vector(sums), self.shape.sums(self.whole, row).at(pair << 1, "f32"), align=8)
        with k.if_(pair.eq(0)):
            k.store(k.vector([maximum, weight]), self.shape.weight(self.whole, row), align=8)
