"""Products of up to 64 rows with quantized weights: each weight passes once from memory into a tensor core's registers.

Weights are the instruction's A operand, decoded in registers (cuda_weight_fragments.py); the rows, its B operand, lie in shared
memory in the order in which lanes take them, written there once: as they are for packed weights, whose k are the instruction's,
so that `ldmatrix` reads them. There is no other traffic and no barrier in the main loop, so that what is in flight is what
registers hold: a warp fetches a batch of steps while it multiplies the one before.

Warps of a block are `across` columns and `along` K; blocks that share K are a cluster, and add their sums through each other's
shared memory; where there are no clusters, cuda_split_k.py adds them in a second launch. Sums are taken in a fixed order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ingot import dims
from ingot.compiler.codegen.cuda_decode import QuantizedElements
from ingot.compiler.codegen.cuda_gemm_decoded import decoded_row, decodes, elements_of, with_scales
from ingot.compiler.codegen.cuda_gemm_mma import mma_registers
from ingot.compiler.codegen.cuda_gemm_problem import GemmProblem
from ingot.compiler.codegen.cuda_gemm_tiles import sink
from ingot.compiler.codegen.cuda_kernel import DispatchKernel, dispatch_kernel, region_buffers, symbol_of
from ingot.compiler.codegen.cuda_weight_fragments import CHUNK, WeightFragments, WeightLanes, weight_lanes
from ingot.compiler.codegen.kernel_builder import KernelModule
from ingot.compiler.codegen.mma_table import MmaRow
from ingot.compiler.codegen.values import Val
from ingot.cuda_targets import facts
from ingot.dims import Dim
from ingot.kernel_plan import BufferArg, KernelLaunch
from ingot.target import Target

MAX_ROWS = 64
WARPS = 8
_SUMS_BYTES = 16 << 10
# Bytes from a row's end to the next: neighbouring rows begin 16 banks apart, of which each lane reads four, or 4 for ldmatrix,
# which reads four of eight rows.
_LINE_PAD, _NATURAL_PAD = 64, 16


@dataclass(frozen=True)
class StreamedSchedule:
    """How the kernel divides a product.

    Attributes:
        rows: all of A's.
        lanes: how a warp's lanes share weights.
        tiles: 16 columns each, of a warp.
        across, along: warps of a block side by side, and those that share K.
        depth: steps in flight for each warp.
        staged: batches of each warp whose rows lie in shared memory at once.
        cluster: blocks that share K and add their sums.
        splits: blocks that share K and leave their sums to a second launch.
    """

    rows: int
    lanes: WeightLanes
    tiles: int
    across: int
    along: int
    depth: int
    staged: int = 1
    cluster: int = 1
    splits: int = 1

    @property
    def tile_m(self) -> int:
        return self.rows

    @property
    def tile_n(self) -> int:
        return 16 * self.tiles * self.across

    @property
    def warps(self) -> int:
        return self.across * self.along

    @property
    def parts(self) -> int:
        """Blocks that share K."""
        return self.cluster * self.splits

    @property
    def batch_k(self) -> int:
        """k of what a warp fetches at once."""
        return self.depth * self.lanes.step_k

    def batches(self, k: int) -> int:
        """Batches of each warp."""
        return -(-k // (self.batch_k * self.along * self.parts))

    @property
    def staged_k(self) -> int:
        """k of a block whose rows lie in shared memory at once."""
        return self.staged * self.batch_k * self.along

    @property
    def line_bytes(self) -> int:
        """Bytes from a row to the next in shared memory."""
        size = 2 * self.staged_k
        if self.lanes.packed:
            return size + (_NATURAL_PAD if size % 32 == 0 else 0)
        return size + (_LINE_PAD if size % 128 == 0 else 0)

    @property
    def sums_pitch(self) -> int:
        """Sums from a row to the next in shared memory: four banks apart from two rows on."""
        return self.tile_n + 4

    @property
    def slabs(self) -> int:
        """Warps along K that leave their sums in shared memory at once; others add theirs to them, one after the other."""
        slabs = self.along
        while slabs > 1 and self._sums(slabs) > max(_SUMS_BYTES, self.rows * self.line_bytes):
            slabs //= 2
        return slabs

    def _sums(self, slabs: int) -> int:
        return 4 * self.rows * self.sums_pitch * (slabs + (self.cluster > 1))

    @property
    def shared_bytes(self) -> int:
        """Bytes of the rows, and later of sums."""
        return max(self.rows * self.line_bytes, self._sums(self.slabs))

    @property
    def blocks(self) -> int:
        """Blocks that an SM is to hold at once."""
        return 2 if self.tiles * -(-self.rows // 8) <= 16 else 1


def streamed_row(p: GemmProblem, target: Target) -> MmaRow | None:
    """The instruction for a product that this kernel takes, or None."""
    if not (decodes(p) and isinstance(p.m, int) and 1 <= p.m <= MAX_ROWS and isinstance(p.k, int)):
        return None
    row = decoded_row(p, target)
    return row if row is not None and row.bits == 16 and p.b.dtype != row.dtype else None


def streamed_schedules(p: GemmProblem, target: Target, columns: int) -> Iterator[StreamedSchedule]:
    """The schedule for a product of about `columns` columns in all batches, if there is one."""
    if streamed_row(p, target) is None:
        return
    assert isinstance(p.m, int), p.m
    assert isinstance(p.k, int), p.k
    k_major = p.b.major == "col"
    wide = 16 if k_major else 8 if p.b.bits == 8 or p.m <= 16 else 4
    lanes = weight_lanes(p, wide)
    if lanes is None:
        return
    blocks_n = -(-p.m // 8)
    tiles = lanes.tiles
    if tiles * blocks_n > 32:
        return
    per_step = lanes.step_bytes
    # Registers hold a batch and the one before it, beside accumulators and, for N-major weights, scales of each column.
    scales = p.b_scales
    many = False
    if scales is not None and 0 < scales.block < 2 * lanes.step_k:
        if lanes.packed:
            many = (scales.zero is not None or scales.scale.bits > 16) and not target.wgmma  # sm_90a's were timed without
        else:
            many = not k_major and scales.zero is not None
    in_flight = 128 if blocks_n == 1 and not many else 64
    depth = max(1, min(in_flight // per_step, p.k // lanes.step_k))
    # Rows are read again by every block: the more there are, the more columns share them.
    across = 1 if not k_major else 1 if p.m <= 2 else 2 if p.m <= 8 else 4
    f = facts(target)
    least = 2 if lanes.packed and depth > 1 else 1  # vectors of a column in flight: two, as without packing
    while depth >= least:
        for parts in (1, 2, 4, 8):
            split = {"cluster": parts} if parts <= target.max_cluster else {"splits": parts}
            s = StreamedSchedule(p.m, lanes, tiles, across, WARPS // across, depth, 1, **split)
            if -(-columns // s.tile_n) * parts >= 1.8 * f.sms or p.k < 2 * parts * s.batch_k * s.along:
                break
        budget = (target.shared_bytes - 4096) // s.blocks
        batches = s.batches(p.k)
        fits = [n for n in range(1, batches + 1) if replace(s, staged=n).shared_bytes <= budget]
        if fits:
            yield replace(s, staged=-(-batches // -(-batches // fits[-1])))  # equal parts
            return
        depth //= 2


def streamed_launch(p: GemmProblem, s: StreamedSchedule) -> KernelLaunch:
    """The launch of a schedule: columns, parts of K, batches."""
    assert isinstance(p.k, int), p.k
    own = (BufferArg("operand", 0), BufferArg("operand", 1))
    rest = (BufferArg("workspace"),) if s.splits > 1 else region_buffers(p.dispatch, skip=(0, 1))
    grid: tuple[Dim, Dim, Dim] = (dims.ceildiv(p.n, s.tile_n), s.parts, dims.product(p.batch))
    return with_scales(p, KernelLaunch(
        symbol_of(p.dispatch), grid, (*own, *rest), (32 * s.warps, 1, 1), cluster=(1, s.cluster, 1),
        shared_bytes=s.shared_bytes, flops=p.flops,
    ))  # fmt: skip


def emit_streamed(module: KernelModule, p: GemmProblem, s: StreamedSchedule, target: Target) -> KernelLaunch:
    """Write the kernel of a schedule into `module`. Raises NotImplementedError where the target has no instruction for it."""
    row = streamed_row(p, target)
    if row is None or s.rows != p.m or weight_lanes(p, s.lanes.nbytes) != s.lanes or s.cluster > target.max_cluster:
        raise NotImplementedError(f"{s} does not suit {p.a.dtype} and {p.b.dtype} on {target.name}")
    launch = streamed_launch(p, s)
    with dispatch_kernel(module, p.dispatch, launch, min_blocks=s.blocks) as dk:
        _StreamedKernel(dk, p, s, row, target).emit()
    return launch


class _StreamedKernel:
    def __init__(self, dk: DispatchKernel, p: GemmProblem, s: StreamedSchedule, row: MmaRow, target: Target) -> None:
        assert isinstance(p.k, int), p.k
        self.dk, self.k, self.p, self.s, self.row, self.size_k = dk, dk.k, p, s, row, p.k
        self.rows, weights = elements_of(dk, p)
        # Wider reads of scales and writes of sums: not on sm_90a, whose kernels were timed without.
        self.wide = s.lanes.packed and not target.wgmma
        self.weights = WeightFragments(dk, weights, s.lanes, row.dtype, s.tiles, s.depth, p.k, self.wide)
        self.blocks_n = -(-s.rows // 8)
        self.shared = dk.k.dynamic_shared(128)
        self.batches = s.batches(p.k)
        self.whole = self.batches * s.batch_k * s.along * s.parts == p.k  # batches end where K does

    def emit(self) -> None:
        k, s, p = self.k, self.s, self.p
        self.lane, warp = k.lane_id(), k.warp_id()
        self.part = k.block_id(1) if s.parts > 1 else k.const(0, "i32")
        batch = self.dk.split(k.block_id(2), p.batch)
        self.col = k.block_id(0) * s.tile_n
        across, self.along = (warp % s.across, warp // s.across) if s.across > 1 else (k.const(0, "i32"), warp)
        self.weights.start(batch, self.col + across * self.weights.columns, self.lane)
        self.block_first = self.part * (self.batches * s.batch_k * s.along)
        self.batch = batch
        fetched = self.fetch(k.const(0, "i32"))
        self.once = s.staged >= self.batches
        if self.once:
            self.stage_rows(k.const(0, "i32"))
            k.barrier()
        group = self.lane >> 2
        if s.lanes.packed:  # for ldmatrix: rows of 8 x 8 matrices, which are neighbours along k
            line, inside = self.lane & 7, (self.lane >> 3) << 4
        else:
            line, inside = group, (self.lane & 3) << 4
        self.lines = [k.min(8 * i + line, s.rows - 1) * s.line_bytes + inside for i in range(self.blocks_n)]
        acc = [k.const(0, self.row.acc)] * (4 * s.tiles * self.blocks_n)
        if self.batches > 1:
            with k.for_(0, self.batches - 1, carry=[fetched, acc]) as loop:
                now, acc = loop.carry
                ahead = self.fetch(loop.iv + 1)
                loop.yield_([ahead, self.multiply(now, loop.iv, acc)])
            fetched, acc = loop.results
        acc = self.multiply(fetched, k.const(self.batches - 1, "i32"), acc)
        self.add(acc, across, batch)

    def place(self, i: Val) -> Val:
        """The first k of this warp's batch `i`, from that of the batches of all warps on: they take turns."""
        return (i * self.s.along + self.along) * self.s.batch_k

    def fetch(self, i: Val) -> Any:
        return list(self.weights.fetch(self.block_first + self.place(i), self.whole))

    # --- rows

    def stage_rows(self, first: Val) -> None:
        """Write what batches from `first` on need of all rows to shared memory, chunks and pairs in the order lanes take them
        (for packed weights in their own).

        There are zeros past the end of K, so that it does not matter what weights are taken for it.
        """
        k, s, lanes = self.k, self.s, self.s.lanes
        x = self.rows
        x.start(self.batch)
        start = self.block_first + first * (s.batch_k * s.along)
        per_line = s.staged_k // CHUNK
        count = s.rows * per_line
        threads = 32 * s.warps
        width = x.lanes(CHUNK)
        with k.for_(k.thread_id(), count, threads) as loop:
            line, chunk = (loop.iv // per_line, loop.iv % per_line) if s.rows > 1 else (k.const(0, "i32"), loop.iv)
            words = self.row_words(x, line, start + chunk * CHUNK, width)
            if lanes.interleaved:
                words = [k.prmt(words[i], words[i + 2], selector) for i in (0, 1) for selector in (0x5410, 0x7632)]
            place = chunk
            if not lanes.packed:
                per_step = 4 * lanes.chunks
                step, inner = chunk // per_step, chunk % per_step
                place = step * per_step + inner // lanes.chunks + 4 * (inner % lanes.chunks)
            address = self.shared + (line * s.line_bytes + (place << 4))
            k.store(k.vector(words), address, align=16)

    def row_words(self, x: QuantizedElements, line: Val, col: Val, width: int) -> list[Val]:
        """Eight neighbours of a row as the instruction's type, two in an i32; zeros past the end of K."""
        k, dtype = self.k, self.row.dtype
        plain = x.x.dtype == dtype and x.scales is None
        parts: list[Val] = []
        for j in range(0, CHUNK, width):
            at = col + j
            valid = None if self.whole and self.batches % self.s.staged == 0 else at < self.size_k
            words = x.load(line, at, width, valid)
            if plain and width > 1:
                found = words
            elif plain:
                found = [k.cast(words[0], "i16")]
            else:
                values = k.cast(k.vector(x.decode(words, line, at, width, valid)), dtype)
                if width == 1:
                    found = [k.bitcast(k.extract(values, 0), "i16")]
                else:
                    found = list(k.elements(k.bitcast(values, k.vector_of("i32", width // 2))))
            parts += found if valid is None else [k.select(valid, w, 0) for w in found]
        return parts if width > 1 else list(k.elements(k.bitcast(k.vector(parts), k.vector_of("i32", CHUNK // 2))))

    # --- products

    def multiply(self, fetched: Any, i: Val, acc: list[Val]) -> list[Val]:
        """Products of a batch of this warp, added to `acc`."""
        k, s = self.k, self.s
        words, read = fetched
        acc = list(acc)
        if not self.once:
            with k.if_((i % s.staged).eq(0)):
                k.barrier()  # the rows before are not read any more
                self.stage_rows(i)
                k.barrier()
            i = i % s.staged
        prepared: dict[int, Any] = {}
        first = self.shared + (self.place(i) << 1)
        starts = [first + line for line in self.lines]
        for step in range(s.depth):
            for chunk in range(s.lanes.chunks):
                offset = 2 * step * s.lanes.step_k + 64 * chunk
                if s.lanes.packed:
                    b = [k.ldmatrix(x + offset, 4) for x in starts]
                else:
                    b = [k.elements(k.load(x + offset, k.vector_of("i32", 4), align=16)) for x in starts]
                group = self.weights.groups()[step, chunk]
                if read and group not in prepared:  # at its use: a scale takes two registers for each column
                    prepared = {group: self.weights.prepared(read, group)}
                registers = self.weights.chunk(words[step], prepared, step, chunk)
                for half in range(2):
                    for t in range(s.tiles):
                        a = registers[half * s.tiles + t]
                        for n in range(self.blocks_n):
                            at = slice(4 * (t * self.blocks_n + n), 4 * (t * self.blocks_n + n) + 4)
                            acc[at] = mma_registers(self.row, self.dk, a, b[n][2 * half : 2 * half + 2], acc[at])
        return acc

    # --- sums

    def add(self, acc: Sequence[Val], across: Val, batch: Sequence[Val]) -> None:
        """Add the warps' and the cluster's sums, and give them to the epilogue."""
        k, s, p = self.k, self.s, self.p
        pitch = s.sums_pitch
        slab = 4 * s.rows * pitch
        group, quad = self.lane >> 2, self.lane & 3
        count = s.slabs
        mine = self.shared + (self.along % count) * slab + ((across * self.weights.columns) << 2)
        for turn in range(s.along // count):
            k.barrier()  # at first: rows are not read any more
            with k.if_((self.along // count).eq(turn) if count < s.along else True):
                for n in range(self.blocks_n):
                    for e in range(2):
                        line = 8 * n + 2 * quad + e
                        with k.if_(True if s.rows % 8 == 0 else line < s.rows):
                            for t in range(s.tiles):
                                two = [acc[4 * (t * self.blocks_n + n) + 2 * half + e] for half in range(2)]
                                if self.wide:  # neighbours
                                    place = mine + ((line * pitch + s.lanes.column(t, 0, group)) << 2)
                                    both = k.vector(two)
                                    k.store(both if turn == 0 else k.load(place, both.t, align=8) + both, place, align=8)
                                    continue
                                for half, x in enumerate(two):
                                    place = mine + ((line * pitch + s.lanes.column(t, half, group)) << 2)
                                    k.store(x if turn == 0 else k.load(place, "f32") + x, place)
        k.barrier()
        slabs = [self.shared + i * slab for i in range(count)]
        pairs = s.tile_n // 2
        count, threads = s.rows * pairs, 32 * s.warps
        thread = k.thread_id()

        def position(i: Val) -> tuple[Val, Val, Val]:
            line, pair = (i // pairs, i % pairs) if s.rows > 1 else (k.const(0, "i32"), i)
            return line, 2 * pair, (line * pitch + 2 * pair) << 2

        def total(addresses: Sequence[Val]) -> list[Val]:
            two = None
            for address in addresses:
                found = k.load(address, k.vector_of("f32", 2), align=8)
                two = found if two is None else two + found
            assert two is not None
            return list(k.elements(two))

        out: Any = sink(self.dk, p, s, self.part)
        if s.cluster == 1:
            with k.for_(thread, count, threads) as loop:
                line, col, offset = position(loop.iv)
                out.pair(out.at_row(batch, line), self.col + col, total([x + offset for x in slabs]))
            return
        with k.for_(thread, count, threads) as loop:
            _, _, offset = position(loop.iv)
            k.store(k.vector(total([x + offset for x in slabs])), self.shared + len(slabs) * slab + offset, align=8)
        k.cluster_sync()
        peers = [k.cluster_address(self.shared + len(slabs) * slab, i) for i in range(s.cluster)]
        with k.for_(self.part * threads + thread, count, threads * s.cluster) as loop:
            line, col, offset = position(loop.iv)
            out.pair(out.at_row(batch, line), self.col + col, total([x + offset for x in peers]))
        k.cluster_sync()  # no block leaves while others read its memory
