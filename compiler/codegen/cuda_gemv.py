"""Products of few rows (token-by-token decoding): B is streamed once, by all SMs, in accesses of 16 bytes.

Where B's columns are neighbours in memory (N-major), a thread owns `lanes` columns over a part of K; where its k are (K-major),
a warp owns a column and its lanes parts of K. Parts of a block are added through shuffles and shared memory. Blocks that share
K are a cluster, and add their sums as in cuda_cluster_sums.py; where there are no clusters, blocks of fewer columns each take
longer parts of K, or cuda_split_k.py adds the sums in a second launch. Sums are taken in a fixed order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ingot import dims
from ingot.compiler.codegen.cuda_cluster_sums import ClusterSums
from ingot.compiler.codegen.cuda_decode import QuantizedElements
from ingot.compiler.codegen.cuda_gemm_decoded import decodes, elements_of, with_scales
from ingot.compiler.codegen.cuda_gemm_epilogue import FragmentEpilogue
from ingot.compiler.codegen.cuda_gemm_problem import GemmProblem, Matrix
from ingot.compiler.codegen.cuda_gemm_simt import as_accumulator
from ingot.compiler.codegen.cuda_gemm_tiles import PartialSums
from ingot.compiler.codegen.cuda_kernel import (
    DispatchKernel,
    dispatch_kernel,
    divides,
    memory_type,
    region_buffers,
    symbol_of,
)
from ingot.compiler.codegen.kernel_builder import KernelModule
from ingot.compiler.codegen.values import Val
from ingot.dims import Dim
from ingot.kernel_plan import BufferArg, KernelLaunch

WARPS = 8
MAX_ROWS = 8
BLOCKS = 4  # that an SM holds at once, of up to WIDE_ROWS rows
UNROLL = 4  # vectors of B in flight for each thread
DEPTHS = (8, 4)  # the same where B is N-major, of which a thread has one column for a K-major B's two
WIDE_ROWS = 2  # rows up to which registers hold the most of these
_SUMS_BYTES = 16 << 10  # of sums in shared memory at once


@dataclass(frozen=True)
class GemvSchedule:
    """How the kernel divides a product.

    Attributes:
        rows: of A, all of them.
        lanes: elements of B's vectors.
        k_major: B's k are neighbours in memory.
        splits: blocks that share K and leave their sums to a second launch.
        cluster: blocks that share K and add their sums through each other's shared memory.
        across: lanes of a warp side by side where B is N-major: a power of two; the others take other k.
    """

    rows: int
    lanes: int
    k_major: bool
    splits: int = 1
    cluster: int = 1
    across: int = 32

    def __post_init__(self) -> None:
        if self.splits > 1 and self.cluster > 1:
            raise ValueError(f"blocks that share K are one cluster or add in a second launch: {self}")

    @property
    def tile_m(self) -> int:
        return self.rows

    @property
    def tile_n(self) -> int:
        """Columns of a block."""
        return 2 * WARPS if self.k_major else self.across * self.lanes

    @property
    def parts(self) -> int:
        """Blocks that share K."""
        return self.splits * self.cluster

    @property
    def step(self) -> int:
        """k that a block takes at once, a vector for each of its threads."""
        return 32 * self.lanes if self.k_major else WARPS * (32 // self.across)


def gemv_depth(p: GemmProblem, s: GemvSchedule) -> int:
    """Vectors of B that each thread has in flight: where B is N-major, as many as divide its part of a constant K, if
    registers hold them, else the most that do."""
    if s.k_major or not isinstance(p.k, int):
        return UNROLL
    fits = DEPTHS if s.rows <= WIDE_ROWS and not decodes(p) else DEPTHS[1:]
    most = fits[0] if p.k >= s.parts * s.step * fits[0] else fits[-1]
    return next((d for d in fits if p.k % (s.parts * s.step * d) == 0), most)


def gemv_lanes(p: GemmProblem) -> int:
    """Elements of B's widest vectors along its contiguous axis; 0 where B has none."""
    x = p.b
    if x.major == "none" or (p.quantized and not decodes(p)):
        return 0
    lanes = 16 * 8 // x.bits
    extent = x.cols if x.major == "col" else x.rows
    # Neighbours along k share a scale.
    block = p.b_scales.block if p.b_scales is not None and x.major == "col" else 0
    while lanes > 1 and not (
        x.aligned(lanes * x.bits // 8, p.dispatch) and divides(lanes, extent, p.dispatch) and block % lanes == 0
    ):
        lanes //= 2
    return lanes if lanes * x.bits >= 8 else 0


def gemv_launch(p: GemmProblem, s: GemvSchedule, suffix: str = "") -> KernelLaunch:
    """The launch of a schedule: columns, splits, batches."""
    own = (BufferArg("operand", 0), BufferArg("operand", 1))
    rest = (BufferArg("workspace"),) if s.splits > 1 else region_buffers(p.dispatch, skip=(0, 1))
    grid: tuple[Dim, Dim, Dim] = (dims.ceildiv(p.n, s.tile_n), s.parts, dims.product(p.batch))
    return with_scales(p, KernelLaunch(
        symbol_of(p.dispatch, suffix), grid, (*own, *rest), (32 * WARPS, 1, 1), cluster=(1, s.cluster, 1), flops=p.flops,
    ))  # fmt: skip


def emit_gemv(module: KernelModule, p: GemmProblem, s: GemvSchedule, launch: KernelLaunch) -> None:
    """Write the kernel of a schedule into `module`."""
    with dispatch_kernel(module, p.dispatch, launch, min_blocks=BLOCKS if s.rows <= WIDE_ROWS and not decodes(p) else 0) as dk:
        k = dk.k
        batch = dk.split(k.block_id(2), p.batch)
        products = _rows_of_columns if s.k_major else _columns
        if s.cluster == 1:
            one = s.splits == 1
            products(dk, p, s, batch, FragmentEpilogue(dk, p, (1, s.tile_n)) if one else PartialSums(dk, p, k.block_id(1)))
            return
        out = _SharedSums(dk, p, s)
        products(dk, p, s, batch, out)
        sums = ClusterSums(dk, p, s.rows, s.tile_n, s.tile_n, s.cluster, out.shared)
        sums.synchronize()
        sums.finish(k.thread_id(), k.block_id(1), batch, k.const(0, "i32"), out.first)


class _SharedSums:
    """Stores pairs of a block's sums to shared memory, rows of its columns: a stand-in for `FragmentEpilogue`."""

    def __init__(self, dk: DispatchKernel, p: GemmProblem, s: GemvSchedule) -> None:
        self.k, self.acc, self.tile_n = dk.k, p.acc, s.tile_n
        self.shared = dk.k.static_shared(s.rows * s.tile_n * _sum_bytes(p), name="sums")
        self.first = dk.k.block_id(0) * s.tile_n

    def at_row(self, batch: Sequence[Val], row: Val) -> Val:
        """The address of a row's first sum."""
        return self.shared.at(row * self.tile_n, self.acc)

    def pair(self, row: Val, col: Val, acc: Sequence[Val]) -> None:
        """Store sums of two neighbouring columns."""
        self.k.store(self.k.vector(list(acc)), row.at(col - self.first, self.acc), align=8)


def _sum_bytes(p: GemmProblem) -> int:
    return 8 if p.acc in ("f64", "i64") else 4


class _Operand:
    """One matrix of an operand: elements by (row, k)."""

    def __init__(self, dk: DispatchKernel, x: Matrix, batch: Sequence[Val], acc: str, unsigned: bool) -> None:
        self.dk, self.k, self.x, self.acc, self.unsigned = dk, dk.k, x, acc, unsigned
        offset = self.k.const(0, "i64")
        for b, s in zip(batch, x.batch_strides, strict=True):
            if s != 0:
                offset = offset + self.k.cast(b, "i64") * dk.size(s)
        self.base = dk.pointer(x.kind, x.index).at(offset, memory_type(x.dtype))
        self.row_step, self.k_step = dk.size(x.row_stride), dk.size(x.col_stride)

    def raw(self, row: Val | int, at: Val, lanes: int) -> Val:
        """`lanes` elements along the contiguous axis."""
        k = self.k
        name = memory_type(self.x.dtype)
        row = k.cast(row, "i64") if isinstance(row, Val) else k.const(row, "i64")
        p = self.base.at(row * self.row_step + k.cast(at, "i64") * self.k_step, name)
        return k.load(p, k.vector_of(name, lanes), align=lanes * self.x.bits // 8, invariant=True)

    def wide(self, x: Val, row: Val | int, at: Val) -> Val:
        """Raw elements at (row, k) in the accumulator's type."""
        return as_accumulator(self.dk, x, self.x.dtype, self.acc, self.unsigned)


class _QuantizedOperand:
    """An `_Operand` that is decoded; raw elements are lists of words."""

    def __init__(self, dk: DispatchKernel, elements: QuantizedElements, batch: Sequence[Val]) -> None:
        self.k, self.elements = dk.k, elements
        elements.start(batch)

    def raw(self, row: Val | int, at: Val, lanes: int) -> tuple[list[Val], int]:
        """`lanes` elements along the contiguous axis, and their number."""
        place = row if isinstance(row, Val) else self.k.const(row, "i32")
        return self.elements.load(place, at, lanes), lanes

    def wide(self, x: tuple[list[Val], int], row: Val | int, at: Val) -> Val:
        """What raw elements at (row, k) stand for, in f32."""
        place = row if isinstance(row, Val) else self.k.const(row, "i32")
        return self.k.vector(self.elements.decode(x[0], place, at, x[1]))


def _operands(dk: DispatchKernel, p: GemmProblem, batch: Sequence[Val]) -> tuple[Any, Any]:
    """A and B."""
    if decodes(p):
        a, b = elements_of(dk, p)
        return _QuantizedOperand(dk, a, batch), _QuantizedOperand(dk, b, batch)
    return _Operand(dk, p.a, batch, p.acc, p.unsigned[0]), _Operand(dk, p.b, batch, p.acc, p.unsigned[1])


def _range(dk: DispatchKernel, p: GemmProblem, s: GemvSchedule, unit: int) -> tuple[Val, Val]:
    """K of this block, in multiples of `unit`."""
    k = dk.k
    size = dk.size(p.k, "i32")
    if s.parts == 1:
        return k.const(0, "i32"), size
    per = ((size + (s.parts * unit - 1)) // (s.parts * unit)) * unit
    first = k.min(k.block_id(1) * per, size)
    return first, k.min(first + per, size)


def _rows_of_columns(dk: DispatchKernel, p: GemmProblem, s: GemvSchedule, batch: Sequence[Val], out: object) -> None:
    """B is K-major: a warp takes two neighbouring columns, its lanes neighbouring vectors of k."""
    k = dk.k
    a, b = _operands(dk, p, batch)
    lane = k.lane_id()
    n = dk.size(p.n, "i32")
    col = (k.block_id(0) * WARPS + k.warp_id()) * 2
    cols = [k.min(col + i, n - 1) for i in range(2)]
    first, last = _range(dk, p, s, s.step)
    # A may be aligned less than B: its elements are read one by one then.
    whole = p.a.major == "col" and p.a.aligned(s.lanes * p.a.bits // 8, p.dispatch)
    whole = whole and (p.a_scales is None or p.a_scales.block % s.lanes == 0)
    zero = k.const(0, p.acc)
    step = s.step

    def load(at: Val) -> list[Any]:
        return [b.raw(c, at, s.lanes) for c in cols]

    def multiply(raw: Sequence[Any], at: Val, acc: list[Val]) -> list[Val]:
        acc = list(acc)
        columns = [k.elements(b.wide(x, c, at)) for x, c in zip(raw, cols, strict=True)]
        for r in range(s.rows):
            x = (
                a.wide(a.raw(r, at, s.lanes), r, at)
                if whole
                else k.vector([k.extract(a.wide(a.raw(r, at + j, 1), r, at + j), 0) for j in range(s.lanes)])
            )
            values = k.elements(x)
            for c, column in enumerate(columns):
                for j in range(s.lanes):
                    acc[2 * r + c] = k.fma(values[j], column[j], acc[2 * r + c])
        return acc

    begin = first + lane * s.lanes
    wide_last = last - (UNROLL - 1) * step
    with k.for_(begin, k.max(wide_last, begin), step * UNROLL, carry=[zero] * (2 * s.rows)) as loop:
        at = [loop.iv + i * step for i in range(UNROLL)]
        raw = [load(x) for x in at]
        acc = list(loop.carry)
        for i in range(UNROLL):
            acc = multiply(raw[i], at[i], acc)
        loop.yield_(acc)
    done = begin + (k.max(wide_last - begin, 0) + (step * UNROLL - 1)) // (step * UNROLL) * (step * UNROLL)
    with k.for_(done, k.max(last, done), step, carry=list(loop.results)) as tail:
        tail.yield_(multiply(load(tail.iv), tail.iv, list(tail.carry)))
    sums = [k.warp_reduce(lambda x, y: x + y, x) for x in tail.results]
    with k.if_(lane.eq(0) if s.cluster > 1 else lane.eq(0) & (col < n)):
        for r in range(s.rows):
            out.pair(out.at_row(batch, k.const(r, "i32")), col, sums[2 * r : 2 * r + 2])  # type: ignore[attr-defined]


def _columns(dk: DispatchKernel, p: GemmProblem, s: GemvSchedule, batch: Sequence[Val], out: object) -> None:
    """B is N-major: a thread takes `lanes` columns; the warps, and the parts of a warp, take turns along k."""
    k = dk.k
    a, b = _operands(dk, p, batch)
    lane, warp = k.lane_id(), k.warp_id()
    n = dk.size(p.n, "i32")
    part, place = (warp, lane) if s.across == 32 else (warp * (32 // s.across) + lane // s.across, lane % s.across)
    col = k.block_id(0) * s.tile_n + place * s.lanes
    at_col = k.min(col, n - s.lanes)
    depth, step = gemv_depth(p, s), s.step
    span = step * depth
    first, last = _range(dk, p, s, step)
    zero = k.const(0, p.acc)

    def multiply(raw: Any, at: Val, acc: list[Val]) -> list[Val]:
        column = b.wide(raw, at_col, at)
        out_acc = []
        for r in range(s.rows):
            x = k.extract(a.wide(a.raw(r, at, 1), r, at), 0)
            out_acc.append(k.fma(k.broadcast(x, s.lanes), column, acc[r]))
        return out_acc

    def several(first: Val, acc: list[Val], end: Val | None = None) -> list[Val]:
        """Products of `depth` k from `first` on, of those below `end`, added to `acc`."""
        at = [first + i * step for i in range(depth)]
        valid = [None if end is None else x < end for x in at]
        if end is not None:
            at = [k.min(x, end - 1) for x in at]
        raw = [b.raw(at_col, x, s.lanes) for x in at]
        for x, y, inside in zip(raw, at, valid, strict=True):
            sums = multiply(x, y, acc)
            acc = sums if inside is None else [k.select(inside, new, old) for new, old in zip(sums, acc, strict=True)]
        return acc

    begin = first + part
    acc = [k.broadcast(zero, s.lanes)] * s.rows
    if isinstance(p.k, int) and p.k % (s.parts * span) == 0:
        with k.for_(0, p.k // (s.parts * span), carry=acc) as loop:
            loop.yield_(several(begin + loop.iv * span, list(loop.carry)))
        acc = list(loop.results)
    else:
        wide_last = last - (depth - 1) * step
        with k.for_(begin, k.max(wide_last, begin), span, carry=acc) as loop:
            loop.yield_(several(loop.iv, list(loop.carry)))
        done = begin + (k.max(wide_last - begin, 0) + (span - 1)) // span * span
        with k.for_(done, k.max(last, done), span, carry=list(loop.results)) as tail:  # once at most
            tail.yield_(several(tail.iv, list(tail.carry), last))
        acc = list(tail.results)
    apart = s.across
    while apart < 32:
        acc = [x + k.shfl_xor(x, apart) for x in acc]
        apart *= 2
    _add_warps(dk, p, s, acc, batch, out)


def _add_warps(
    dk: DispatchKernel, p: GemmProblem, s: GemvSchedule, acc: Sequence[Val], batch: Sequence[Val], out: object
) -> None:
    """Add the warps' vectors of a row each, in order, and give the sums to `out`; the first `across` lanes have them."""
    k = dk.k
    lane, warp, thread = k.lane_id(), k.warp_id(), k.thread_id()
    size, pairs = _sum_bytes(p), s.tile_n // 2
    at_once = max(1, min(s.rows, _SUMS_BYTES // (WARPS * s.tile_n * size)))
    shared = k.static_shared(at_once * WARPS * s.tile_n * size)
    n = dk.size(p.n, "i32")
    for start in range(0, s.rows, at_once):
        rows = min(at_once, s.rows - start)
        if start:
            k.barrier()
        with k.if_(True if s.across == 32 else lane < s.across):
            for r in range(rows):
                place = shared.at((warp + r * WARPS) * s.tile_n + lane * s.lanes, p.acc)
                k.store(acc[start + r], place, align=min(16, s.lanes * size))
        k.barrier()

        def add(number: Val, start: int = start, rows: int = rows) -> None:
            row, pair = (number // pairs, number % pairs) if rows > 1 else (k.const(0, "i32"), number)
            two = [k.const(0, p.acc)] * 2
            for w in range(WARPS):
                place = shared.at((row * WARPS + w) * s.tile_n + pair * 2, p.acc)
                part = k.load(place, k.vector_of(p.acc, 2), align=2 * size)
                two = [x + y for x, y in zip(two, k.elements(part), strict=True)]
            col = k.block_id(0) * s.tile_n + pair * 2
            with k.if_(True if s.cluster > 1 else col < n):
                out.pair(out.at_row(batch, row + start), col, two)  # type: ignore[attr-defined]

        if rows * pairs <= 32 * WARPS:
            with k.if_(True if rows * pairs == 32 * WARPS else thread < rows * pairs):
                add(thread)
        else:
            with k.for_(thread, rows * pairs, 32 * WARPS) as loop:
                add(loop.iv)
