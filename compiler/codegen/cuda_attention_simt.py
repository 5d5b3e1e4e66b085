"""Attention by fused multiply-adds, in float32 throughout: no operand is rounded, other types are converted as they are loaded.

The pass over keys is FlashAttention's (Dao, 2023). Queries, keys, values and the probabilities of a tile lie in shared memory
in lines of 16-byte chunks (cuda_shared_tile.py). `across` neighbouring threads share `thread_rows` rows: a thread multiplies
those rows by every `across`-th key of a tile, and adds all of its rows' probabilities times every `across`-th chunk of the
values. What passes from one product to the other goes through shared memory, but only between those threads, of one warp.

With few rows and many keys (decoding), blocks share the keys of a head, as in cuda_attention_mma.py: those of a cluster, or,
where one is too small, those of a launch that another one follows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ingot.compiler.codegen.cuda_attention_parts import AttentionParts, PartShape, part_bytes, part_shape
from ingot.compiler.codegen.cuda_attention_problem import AttentionProblem, score, tiled_launch
from ingot.compiler.codegen.cuda_attention_softmax import SplitLayout, exponentials, rescaling
from ingot.compiler.codegen.cuda_gemm_problem import Matrix
from ingot.compiler.codegen.cuda_gemm_simt import as_accumulator
from ingot.compiler.codegen.cuda_kernel import (
    DispatchKernel,
    constant,
    dispatch_kernel,
    divides,
    memory_type,
)
from ingot.compiler.codegen.cuda_shared_tile import CHUNK, TileCopy, TileShape, swizzle
from ingot.compiler.codegen.kernel_builder import KernelModule
from ingot.compiler.codegen.values import Val
from ingot.cuda_targets import facts
from ingot.kernel_plan import KernelLaunch
from ingot.target import Target

WIDE = 4  # f32 elements of a chunk
TURN = 8  # chunks after which the swizzle repeats
REGISTERS = 160  # accumulators and scores of a thread: beyond this they spill
CONVERTED = ("f16", "bf16", "f8E4M3FN", "f8E5M2", "i8")


@dataclass(frozen=True)
class SimtAttentionSchedule:
    """How the kernel divides a head.

    Attributes:
        threads: of a block.
        across: threads that share rows: 8 or 16.
        thread_rows: rows of a thread.
        keys: of a tile, a multiple of `across` and of 4.
        stages: tiles of keys and values in shared memory, 1 or 2.
        splits: blocks that share a head's keys and leave their parts to a second launch.
        cluster: blocks that share a head's keys and combine their parts.
        turn: chunks of the inner loops that are written out, a divisor of `TURN` and a multiple of 2.
        plain_loop: tiles in which all keys take part have a loop of their own, without masks.
    """

    threads: int = 128
    across: int = 16
    thread_rows: int = 8
    keys: int = 64
    stages: int = 2
    splits: int = 1
    cluster: int = 1
    turn: int = TURN
    plain_loop: bool = True

    def __post_init__(self) -> None:
        if self.splits > 1 and self.cluster > 1:
            raise ValueError(f"parts are combined in one launch or in a second one: {self}")

    @property
    def groups(self) -> int:
        """Groups of threads that share rows."""
        return self.threads // self.across

    @property
    def rows(self) -> int:
        """Rows of a block."""
        return self.groups * self.thread_rows


# Of kernels for any number of rows, which a session waits for: an eighth of the multiply-adds in the code. Two instructions of
# addresses for 128 of them are little, and so is a mask beside the products of a score.
COMPACT: dict[str, Any] = {"turn": 2, "plain_loop": False}

# From the largest tile to the smallest.
SIMT_SCHEDULES: tuple[SimtAttentionSchedule, ...] = (
    SimtAttentionSchedule(),
    SimtAttentionSchedule(stages=1),
    SimtAttentionSchedule(thread_rows=4),
    SimtAttentionSchedule(thread_rows=4, keys=32, stages=1),
    SimtAttentionSchedule(thread_rows=2),
    SimtAttentionSchedule(thread_rows=2, keys=16, stages=1),
    SimtAttentionSchedule(64, thread_rows=2),
    SimtAttentionSchedule(64, thread_rows=1),
    SimtAttentionSchedule(64, thread_rows=1, keys=16, stages=1),
    SimtAttentionSchedule(32, thread_rows=1),
    SimtAttentionSchedule(32, thread_rows=1, keys=16, stages=1),
    SimtAttentionSchedule(32, thread_rows=1, keys=8, stages=1),
)


@dataclass(frozen=True)
class SimtAttentionTiles:
    """The shared tiles of a schedule, all of f32: queries, keys, values (lines of a key's values) and probabilities."""

    q: TileShape
    k: TileShape
    v: TileShape
    p: TileShape

    def nbytes(self, stages: int) -> int:
        """Bytes of shared memory."""
        return self.q.nbytes + self.p.nbytes + stages * (self.k.nbytes + self.v.nbytes)


def simt_attention_tiles(p: AttentionProblem, s: SimtAttentionSchedule) -> SimtAttentionTiles:
    """Tiles with depths rounded up to whole chunks."""
    depth, depth_v = (-(-d // WIDE) * WIDE for d in (p.depth, p.depth_v))
    return SimtAttentionTiles(
        TileShape(s.rows, 4 * depth, 32, k_major=True),
        TileShape(s.keys, 4 * depth, 32, k_major=True),
        TileShape(depth_v, 4 * s.keys, 32, k_major=False),
        TileShape(s.rows, 4 * s.keys, 32, k_major=True),
    )


def thread_registers(p: AttentionProblem, s: SimtAttentionSchedule) -> int:
    """Accumulators and scores of a thread."""
    chunks = -(-p.depth_v // (WIDE * s.across))
    return s.thread_rows * (s.keys // s.across + WIDE * chunks)


def choose_simt_attention(p: AttentionProblem, target: Target) -> SimtAttentionSchedule:
    """The largest tile that fits and leaves no SM idle; keys are split where rows alone cannot fill the SMs.

    Raises NotImplementedError for types without an exact conversion to f32, and for heads too deep for shared memory.
    """
    for x in (p.q, p.k, p.v):
        if x.dtype not in ("f32", *CONVERTED):
            raise NotImplementedError(f"attention of {x.dtype} on {target.name}")
    sms, rows, heads = facts(target).sms, constant(p.rows), constant(p.batch * p.heads)
    chunks = -(-p.depth_v // WIDE)
    across = min((16, 8), key=lambda n: -(-chunks // n) * n)
    fitting = []
    for s in SIMT_SCHEDULES:
        shared = min(across, s.keys)
        s = replace(s, across=shared, thread_rows=max(1, s.rows * shared // s.threads))
        if simt_attention_tiles(p, s).nbytes(s.stages) <= target.shared_bytes and thread_registers(p, s) <= REGISTERS:
            fitting.append(s)
    if not fitting:
        raise NotImplementedError(f"attention over heads of depth {p.depth} and {p.depth_v} in f32 on {target.name}")
    enough = [s for s in fitting if s.rows <= max(2, rows) and -(-rows // s.rows) * heads >= sms]
    chosen = enough[0] if enough else min(fitting, key=lambda s: (abs(s.rows - min(rows, 32)), -s.keys * s.stages))
    blocks = -(-rows // chosen.rows) * heads
    tiles, splits = constant(p.keys) // chosen.keys, 1
    # Small blocks of few rows: several of them share an SM.
    while splits < 32 and splits * blocks < 2 * sms and tiles >= 4 * splits and rows <= 64:
        splits *= 2
    chosen = replace(chosen, cluster=splits) if splits <= target.max_cluster else replace(chosen, splits=splits)
    return chosen if isinstance(p.rows, int) else replace(chosen, **COMPACT)


def simt_attention_launch(p: AttentionProblem, s: SimtAttentionSchedule) -> KernelLaunch:
    """The launch of a schedule."""
    tiles = simt_attention_tiles(p, s).nbytes(s.stages)
    return tiled_launch(p, s.rows, s.splits, s.threads, part_bytes(_part(p, s), tiles, 1, s.cluster), s.cluster)


def _part(p: AttentionProblem, s: SimtAttentionSchedule) -> PartShape:
    """A part of a block's rows, where several are combined."""
    return part_shape(p, s.rows, -(-p.depth_v // WIDE) * WIDE)


def emit_attention_simt(module: KernelModule, p: AttentionProblem, s: SimtAttentionSchedule, launch: KernelLaunch) -> None:
    """Write the kernel of a schedule into `module`."""
    with dispatch_kernel(module, p.dispatch, launch, min_blocks=1) as dk:
        _Attention(dk, p, s).emit()


class ConvertingCopy(TileCopy):
    """Copies tiles of an operand of any type into tiles of f32, through registers."""

    def __init__(self, dk: DispatchKernel, x: Matrix, shape: TileShape, threads: int, thread: Val) -> None:
        super().__init__(dk, x, shape, threads, thread, asynchronous=False)

    def start(self, row: Val, batch: Sequence[Val]) -> None:
        """Begin with the tiles of rows from `row` on, of a batch."""
        k, x, dk = self.k, self.x, self.dk
        offset = k.const(0, "i64")
        for b, s in zip(batch, x.batch_strides, strict=True):
            if s != 0:
                offset = offset + k.cast(b, "i64") * dk.size(s)
        self.base = dk.pointer(x.kind, x.index).at(offset, memory_type(x.dtype))
        self.row, self.row_size = row, dk.size(x.rows, "i32")

    def fetch(self, step: Val) -> list[Val]:
        """A step's chunks in registers, four i32 each: the bits of the converted elements."""
        k, dk, x = self.k, self.dk, self.x
        name = memory_type(x.dtype)
        out = []
        for i, (line, chunk) in enumerate(self.chunk_places):
            for e in range(WIDE):
                inner = chunk * WIDE + e
                row, col = (line, inner) if self.shape.k_major else (inner, line)
                row, col = self.row + row, step * self.shape.tile_k + col
                valid = (row < self.row_size) & (col < self.k_size)
                if not self.exact:
                    valid = valid & self._inside(i)
                offset = k.cast(row, "i64") * dk.size(x.row_stride) + k.cast(col, "i64") * dk.size(x.col_stride)
                value = k.load(self.base.at(k.select(valid, offset, 0), name), name)
                value = as_accumulator(dk, value, x.dtype, "f32", unsigned=False)
                out.append(k.bitcast(k.select(valid, value, 0.0), "i32"))
        return out


class Lines:
    """Addresses of chunks of `count` lines of a tile, `step` lines apart from the thread's `first`."""

    def __init__(self, shape: TileShape, first: Val, step: int, count: int) -> None:
        self.shape, self.first, self.step, self.count = shape, first, step, count

    def offsets(self, chunk: Val | int) -> list[Val]:
        """Byte offsets of a chunk of each line."""
        shape = self.shape
        at = chunk if isinstance(chunk, Val) else self.first.k.const(chunk, "i32")
        if self.step % TURN == 0:
            # The swizzle of all lines is the first one's.
            start = swizzle(shape, self.first, at)
            return [start + i * self.step * shape.line_bytes for i in range(self.count)]
        return [swizzle(shape, self.first + i * self.step, at) for i in range(self.count)]


class _Attention:
    """The kernel while it is written."""

    def __init__(self, dk: DispatchKernel, p: AttentionProblem, s: SimtAttentionSchedule) -> None:
        self.dk, self.k, self.p, self.s = dk, dk.k, p, s
        k = self.k
        self.asynchronous = k.sm >= 80
        self.tiles = simt_attention_tiles(p, s)
        self.shared = k.dynamic_shared(1024)
        self.probabilities = self.shared + self.tiles.q.nbytes
        thread = k.thread_id()
        self.group, self.lane = thread // s.across, thread % s.across
        self.copy_q = self._copy(p.q, self.tiles.q, thread)
        self.copy_k = self._copy(p.k, self.tiles.k, thread)
        self.copy_v = self._copy(p.v, self.tiles.v, thread)
        self.thread_keys = s.keys // s.across
        self.q_lines = Lines(self.tiles.q, self.group, s.groups, s.thread_rows)
        self.p_lines = Lines(self.tiles.p, self.group, s.groups, s.thread_rows)
        self.k_lines = Lines(self.tiles.k, self.lane, s.across, self.thread_keys)
        self.chunks_v = self.tiles.v.chunks
        self.thread_chunks = -(-self.chunks_v // s.across)
        self.n_rows = dk.size(p.rows, "i32")
        self.folded = p.plain_scores

    def _copy(self, x: Matrix, shape: TileShape, thread: Val) -> TileCopy:
        if x.dtype == "f32":
            return TileCopy(self.dk, x, shape, self.s.threads, thread, self.asynchronous)
        return ConvertingCopy(self.dk, x, shape, self.s.threads, thread)

    def emit(self) -> None:
        """Write the body."""
        k, s, p = self.k, self.s, self.p
        m0 = k.block_id(0) * s.rows
        self.head, z = k.block_id(1), k.block_id(2)
        parts = s.splits * s.cluster
        self.batch = z // parts if parts > 1 else z
        part = z % parts if parts > 1 else k.const(0, "i32")
        self.n_keys = p.n_keys(self.dk, self.batch)
        self.rows = [m0 + self.group + i * s.groups for i in range(s.thread_rows)]
        self.positions = [p.position(k, self.batch, self.head, k.min(r, self.n_rows - 1)) for r in self.rows]
        self.kv_position = [self.batch, p.kv_head(self.head)]
        self.copy_q.start(m0, [self.batch, self.head])
        self.copy_v.start(k.const(0, "i32"), self.kv_position)

        # Tiles of keys: those of this split, up to what causality leaves for the block's last row; the first ones need no mask.
        tiles = (self.n_keys + (s.keys - 1)) // s.keys
        plain = self.n_keys // s.keys if p.masks(s.keys) else tiles
        if p.causal:
            shift = self.n_keys - self.n_rows
            tiles = k.min(tiles, k.max((m0 + (s.rows + s.keys - 1) + shift).sdiv(s.keys), 0))
            plain = k.min(plain, k.max((m0 + 1 + shift).sdiv(s.keys), 0))
        begin = k.const(0, "i32")
        if parts > 1:
            per = (tiles + (parts - 1)) // parts
            begin = k.min(part * per, tiles)
            tiles = k.min(begin + per, tiles)
        plain = k.max(k.min(plain, tiles), begin)

        self.bring(self.copy_q, self.shared, k.const(0, "i32"))
        if s.stages > 1:
            with k.if_(begin < tiles):
                self.bring_tile(begin, k.const(0, "i32"))
        self.commit()
        low, zero = k.const(float("-inf"), "f32"), k.const(0.0, "f32")
        state: list = [
            k.const(0, "i32"), [low] * s.thread_rows, [zero] * s.thread_rows,
            [zero] * (s.thread_rows * self.thread_chunks * WIDE),
        ]  # fmt: skip
        masks = p.masks(s.keys)
        if s.plain_loop or not masks:
            state = self.loop(begin, plain, tiles, state, masked=False)
        if masks:
            state = self.loop(plain if s.plain_loop else begin, tiles, tiles, state, masked=True)
        _, maximum, total, acc = state
        total = [k.warp_reduce(lambda x, y: x + y, t, s.across) for t in total]
        if s.splits > 1:
            self.store_partial(part, maximum, total, acc)
        elif s.cluster > 1:
            self.arrive()  # tiles are not read any more, and none is on its way
            shape = _part(p, s)
            self.leave(shape, maximum, total, acc)
            AttentionParts(self.dk, p, shape, self.shared, 0, 1, s.cluster).finish(self.batch, self.head, m0, part)
        else:
            self.store(total, acc)

    # --- copies

    def bring(self, copy: TileCopy, stage: Val, step: Val) -> None:
        """Copy the tile of a step; asynchronous copies are committed by `commit`."""
        if copy.asynchronous:
            copy.copy(stage, step)
        else:
            copy.put(stage, copy.fetch(step))

    def commit(self) -> None:
        """End a group of asynchronous copies."""
        if self.asynchronous:
            self.k.cp_async_commit()

    def arrive(self) -> None:
        """Wait for this thread's copies, then for all threads."""
        if self.asynchronous:
            self.k.cp_async_wait(0)
        self.k.barrier()

    def stage(self, number: Val) -> Val:
        """Start of a stage: its keys, then its values."""
        first = self.tiles.q.nbytes + self.tiles.p.nbytes
        return self.shared + first + number * (self.tiles.k.nbytes + self.tiles.v.nbytes)

    def bring_tile(self, tile: Val, number: Val) -> None:
        """Copy a tile of keys and its values into a stage."""
        stage = self.stage(number)
        self.copy_k.start(tile * self.s.keys, self.kv_position)
        self.bring(self.copy_k, stage, self.k.const(0, "i32"))
        self.bring(self.copy_v, stage + self.tiles.k.nbytes, tile)

    def loop(self, begin: Val, end: Val, tiles: Val, state: list, *, masked: bool) -> list:
        """The state after tiles from `begin` to `end`; of two stages, one is filled up to tile `tiles` meanwhile."""
        k, s = self.k, self.s
        with k.for_(begin, end, carry=state) as loop:
            number, maximum, total, acc = loop.carry
            other = number
            if s.stages > 1:
                self.arrive()
                other = 1 - number
                with k.if_(loop.iv + 1 < tiles):
                    self.bring_tile(loop.iv + 1, other)
                self.commit()
            else:
                k.barrier()
                self.bring_tile(loop.iv, number)
                self.commit()
                self.arrive()
            stage = self.stage(number)
            scores = self.scores(stage, loop.iv * s.keys, masked)
            maximum, total, acc = self.softmax(scores, maximum, total, acc)
            acc = self.add_values(stage + self.tiles.k.nbytes, acc)
            loop.yield_([other, maximum, total, acc])
        return loop.results

    # --- a tile

    def turns(self, chunks: int, acc: list[Val], body: Callable[[Val, range, list[Val]], list[Val]]) -> list[Val]:
        """Run `body` over chunks: (number of the turn, chunks of this turn, accumulators); whole turns are a loop."""
        k, size = self.k, self.s.turn
        whole, rest = divmod(chunks, size)
        if whole > 1:
            with k.for_(k.const(0, "i32"), whole, carry=acc, rolled=size < TURN) as loop:
                loop.yield_(body(loop.iv, range(size), loop.carry))
            acc = loop.results
        elif whole:
            acc = body(k.const(0, "i32"), range(size), acc)
        return body(k.const(whole, "i32"), range(rest), acc) if rest else acc

    def reader(self, base: Val, lines: Lines, number: Val) -> Callable[[int], list[list[Val]]]:
        """A function that reads a chunk of turn `number` from each line of a tile at `base`: its elements."""
        k, size = self.k, self.s.turn
        four = k.vector_of("f32", WIDE)
        start = base + number * (TURN * CHUNK) if size == TURN else base

        def read(chunk: int) -> list[list[Val]]:
            offsets = lines.offsets(chunk if size == TURN else number * size + chunk)
            return [k.elements(k.load(start + at, four, align=CHUNK)) for at in offsets]

        return read

    def scores(self, stage: Val, first: Val, masked: bool) -> list[Val]:
        """Scores of the thread's rows and its keys of the tile that begins with key `first`; -inf where one takes no part."""
        k, s = self.k, self.s
        count = self.thread_keys

        def turn(number: Val, chunks: range, acc: list[Val]) -> list[Val]:
            acc = list(acc)
            queries, keys = self.reader(self.shared, self.q_lines, number), self.reader(stage, self.k_lines, number)
            for chunk in chunks:
                x, y = queries(chunk), keys(chunk)
                for e in range(WIDE):
                    for i in range(s.thread_rows):
                        for j in range(count):
                            acc[i * count + j] = k.fma(x[i][e], y[j][e], acc[i * count + j])
            return acc

        acc = self.turns(self.tiles.q.chunks, [k.const(0.0, "f32")] * (s.thread_rows * count), turn)
        if self.folded and not masked:
            return acc
        return self.scored(acc, first, masked)

    def scored(self, acc: list[Val], first: Val, masked: bool) -> list[Val]:
        """The dispatch's score of products, and minus infinity where a key does not take part."""
        k, p, count = self.k, self.p, self.thread_keys
        low = k.const(float("-inf"), "f32")
        shift, stored = self.n_keys - self.n_rows, self.dk.size(p.keys, "i32")
        out = []
        for i, (row, position) in enumerate(zip(self.rows, self.positions, strict=True)):
            last = k.min(self.n_keys - 1, row + shift) if p.causal else self.n_keys - 1
            for j in range(count):
                col = first + self.lane + j * self.s.across
                x = acc[i * count + j]
                if not self.folded:
                    x = score(self.dk, p, x, position, k.min(col, stored - 1) if masked else col, 0)
                out.append(k.select(col <= last, x, low) if masked else x)
        return out

    def softmax(
        self, scores: list[Val], maximum: list[Val], total: list[Val], acc: list[Val]
    ) -> tuple[list[Val], list[Val], list[Val]]:
        """(maxima, the thread's part of the sums, accumulators rescaled) with a tile's scores.

        Leaves probabilities in shared memory, for the threads that share the rows.
        """
        k, s, count = self.k, self.s, self.thread_keys
        maximum, total, acc = list(maximum), list(total), list(acc)
        wide = self.thread_chunks * WIDE
        # Key lane + j * across lies in chunk (lane + j * across) / 4 of its row's line.
        places = [self.lane + j * s.across for j in range(count)]
        lines = [self.p_lines.offsets(key >> 2) for key in places]
        for i in range(s.thread_rows):
            row = scores[i * count : (i + 1) * count]
            m = row[0]
            for x in row[1:]:
                m = k.max(m, x)
            m = k.max(maximum[i], k.warp_reduce(k.max, m, s.across))
            shift = k.select(m.eq(float("-inf")), 0.0, m)
            rescale = rescaling(k, self.p, maximum[i], shift)
            total[i] = total[i] * rescale
            for j, y in enumerate(exponentials(k, self.p, row, shift)):
                total[i] = total[i] + y
                k.store(y, self.probabilities + lines[j][i] + ((places[j] & 3) << 2), align=4)
            maximum[i] = m
            acc[i * wide : (i + 1) * wide] = [x * rescale for x in acc[i * wide : (i + 1) * wide]]
        k.warp_sync()
        return maximum, total, acc

    def add_values(self, stage: Val, acc: list[Val]) -> list[Val]:
        """Accumulators with probabilities times the values of the tile at `stage` added."""
        k, s, shape = self.k, self.s, self.tiles.v
        wide = self.thread_chunks * WIDE
        four = k.vector_of("f32", WIDE)
        columns = [k.min(self.lane + j * s.across, self.chunks_v - 1) for j in range(self.thread_chunks)]

        def turn(number: Val, chunks: range, acc: list[Val]) -> list[Val]:
            acc = list(acc)
            probabilities = self.reader(self.probabilities, self.p_lines, number)
            values = stage + number * (s.turn * WIDE * shape.line_bytes)
            for chunk in chunks:
                x = probabilities(chunk)
                for e in range(WIDE):
                    line = k.const(WIDE * chunk + e, "i32")
                    for j, column in enumerate(columns):
                        y = k.elements(k.load(values + swizzle(shape, line, column), four, align=CHUNK))
                        for i in range(s.thread_rows):
                            for c in range(WIDE):
                                at = i * wide + j * WIDE + c
                                acc[at] = k.fma(x[i][e], y[c], acc[at])
            return acc

        return self.turns(s.keys // WIDE, acc, turn)

    # --- results

    def columns(self) -> list[tuple[int, Val, bool]]:
        """(number, first column, whether all threads have it) of the thread's chunks of a row of results."""
        n = self.s.across
        return [
            (j, (self.lane + j * n) * WIDE, WIDE * (j + 1) * n <= self.p.depth_v) for j in range(self.thread_chunks)
        ]

    def store(self, total: Sequence[Val], acc: Sequence[Val]) -> None:
        """Divide by the sums, run the epilogue and store."""
        k, p, dk = self.k, self.p, self.dk
        wide = self.thread_chunks * WIDE
        together = math.gcd(WIDE, p.depth_v)
        lanes = together if together > 1 else 0
        for i, row in enumerate(self.rows):
            with k.if_(True if divides(self.s.rows, p.rows, p.dispatch) else row < self.n_rows):
                scale = 1.0 / total[i]
                for j, first, whole in self.columns():
                    x = [y * scale for y in acc[i * wide + j * WIDE :][:WIDE]]
                    for e in range(0, WIDE, together):
                        place = [*self.positions[i], first + e]
                        with k.if_(True if whole else first + e < p.depth_v):
                            value = k.vector(x[e : e + lanes]) if lanes else x[e]
                            for r, y in enumerate(dk.region(p.dispatch.regions[1], [value], place, p.out_domain, lanes)):
                                dk.store(r, y, place, lanes)

    def leave(self, shape: PartShape, maximum: Sequence[Val], total: Sequence[Val], acc: Sequence[Val]) -> None:
        """Write sums, maxima and weights to the block's part in shared memory."""
        k, wide = self.k, self.thread_chunks * WIDE
        for i in range(self.s.thread_rows):
            row = self.group + i * self.s.groups
            with k.if_(True if self.s.rows == shape.rows else row < shape.rows):
                with k.if_(self.lane.eq(0)):
                    k.store(k.vector([maximum[i], total[i]]), shape.weight(self.shared, row), align=8)
                line = shape.sums(self.shared, row)
                for j, first, _ in self.columns():
                    with k.if_(True if (j + 1) * self.s.across * WIDE <= shape.width else first < shape.width):
                        k.store(k.vector(list(acc[i * wide + j * WIDE :][:WIDE])), line.at(first, "f32"), align=CHUNK)

    def store_partial(self, split: Val, maximum: Sequence[Val], total: Sequence[Val], acc: Sequence[Val]) -> None:
        """Leave sums, maxima and weights of a split in the workspace."""
        k, p = self.k, self.p
        wide = self.thread_chunks * WIDE
        layout = SplitLayout(self.dk, p, self.s.splits)
        for i, row in enumerate(self.rows):
            with k.if_(row < self.n_rows):
                sums, weights = layout.row(split, self.batch, self.head, row)
                with k.if_(self.lane.eq(0)):
                    k.store(maximum[i], weights)
                    k.store(total[i], weights.at(1, "f32"))
                for j, first, whole in self.columns():
                    for e in range(WIDE):
                        with k.if_(True if whole else first + e < p.depth_v):
                            k.store(acc[i * wide + j * WIDE + e], sums.at(first + e, "f32"))
