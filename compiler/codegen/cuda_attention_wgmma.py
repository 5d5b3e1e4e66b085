"""Attention on sm_90a: TMA brings keys and values, warpgroups multiply with wgmma (after Shah et al., FlashAttention-3, 2024).

A block is a few warpgroups with 64 rows of queries each: two where a thread needs up to 255 registers, three where heads are
shallow, so that one warpgroup's exponentials hide behind the others' products. A producer of its own would take registers
away, because code that nvJitLink assembles cannot redistribute them (it ignores `setmaxnreg`). The first thread issues copies,
an iteration ahead. Keys and values have a ring of two stages each, handed over by mbarriers. A
warpgroup issues the product of queries with the next tile of keys before it adds the last tile's probabilities times values,
and scores the one while the other still runs; probabilities are operands in registers.

Tiles of keys are walked from the last to the first, so that those which need a mask (the last keys, and the diagonal) come
first.
"""

from __future__ import annotations

from dataclasses import dataclass

from ingot import dims
from ingot.compiler.codegen.cuda_attention_problem import AttentionProblem
from ingot.compiler.codegen.cuda_attention_softmax import SoftmaxRows
from ingot.compiler.codegen.cuda_kernel import DispatchKernel, dispatch_kernel, region_buffers, symbol_of
from ingot.compiler.codegen.kernel_builder import KernelModule
from ingot.compiler.codegen.mma_table import MmaRow, find_row
from ingot.compiler.codegen.values import Val
from ingot.kernel_plan import BufferArg, KernelLaunch, TensorMapArg
from ingot.target import Target

SWIZZLE = 128
ATOM = 1024
LINE = 64  # 16-bit elements of a swizzled line
STAGES = 2  # of the rings; one where a tile holds all keys


@dataclass(frozen=True)
class WgmmaAttentionSchedule:
    """How the kernel divides an attention.

    Attributes:
        keys: of a tile, a multiple of 16, at most 256.
        groups: warpgroups of a block.
        blocks: of an SM, for which registers are kept.
    """

    keys: int = 128
    groups: int = 2
    blocks: int = 1

    @property
    def rows(self) -> int:
        """Rows of queries of a block."""
        return 64 * self.groups

    @property
    def threads(self) -> int:
        return 128 * self.groups


@dataclass(frozen=True)
class WgmmaAttentionPlan:
    """What the kernel needs beyond its schedule."""

    schedule: WgmmaAttentionSchedule
    row: MmaRow
    launch: KernelLaunch


def _lines(depth: int) -> int:
    """Swizzled lines side by side that a depth takes."""
    return -(-depth // LINE)


def plan_attention_wgmma(p: AttentionProblem, target: Target, s: WgmmaAttentionSchedule) -> WgmmaAttentionPlan | None:
    """The launch of a schedule, or None where the instruction or TMA cannot take the operands."""
    if len({p.q.dtype, p.k.dtype, p.v.dtype}) != 1 or p.q.bits != 16 or p.packed or p.depth % 8 or p.depth_v % 8:
        return None
    row = find_row(target, p.q.dtype, engine="wgmma")
    if row is None or max(p.depth, p.depth_v) > 256 or p.q.major != "col" or p.k.major != "col" or p.v.major != "row":
        return None
    kv_heads = p.dispatch.operands[1].shape[1]
    maps = (
        p.q.tma_map(p.dispatch, (p.batch, p.heads), (LINE, s.rows)),
        p.k.tma_map(p.dispatch, (p.batch, kv_heads), (LINE, s.keys)),
        p.v.tma_map(p.dispatch, (p.batch, kv_heads), (LINE, s.keys)),
    )
    if any(m is None for m in maps):
        return None
    shared = _offsets(p, s)["end"] + ATOM
    if shared > target.shared_bytes:
        return None
    buffers: tuple[TensorMapArg, ...] = tuple(m for m in maps if m is not None)
    lengths = [BufferArg("operand", i) for i in p.own[3:]]
    launch = KernelLaunch(
        symbol_of(p.dispatch), (dims.ceildiv(p.rows, s.rows), p.heads, p.batch),
        (*buffers, *lengths, *region_buffers(p.dispatch, skip=p.own)), (s.threads, 1, 1),
        shared_bytes=shared, flops=p.flops,
    )  # fmt: skip
    return WgmmaAttentionPlan(s, row, launch)


def _stages(p: AttentionProblem, s: WgmmaAttentionSchedule) -> int:
    return 1 if isinstance(p.keys, int) and p.keys <= s.keys else STAGES


def _offsets(p: AttentionProblem, s: WgmmaAttentionSchedule) -> dict[str, int]:
    """Bytes from the start of shared memory: queries, rings of keys and values, barriers."""
    stages = _stages(p, s)
    q = _lines(p.depth) * s.rows * SWIZZLE
    k = _lines(p.depth) * s.keys * SWIZZLE
    v = _lines(p.depth_v) * s.keys * SWIZZLE
    barriers = q + stages * (k + v)
    return {
        "k": q,
        "v": q + stages * k,
        "barriers": barriers,
        "end": barriers + 8 * (1 + 4 * stages),
        "k_bytes": k,
        "v_bytes": v,
    }


def emit_attention_wgmma(module: KernelModule, p: AttentionProblem, plan: WgmmaAttentionPlan) -> None:
    """Write the kernel of `plan` into `module`."""
    with dispatch_kernel(
        module, p.dispatch, plan.launch, exact_threads=True, prologue=True, min_blocks=plan.schedule.blocks
    ) as dk:
        _Attention(dk, p, plan).emit()


class _Attention:
    """The kernel while it is written."""

    def __init__(self, dk: DispatchKernel, p: AttentionProblem, plan: WgmmaAttentionPlan) -> None:
        self.dk, self.k, self.p, self.s, self.row = dk, dk.k, p, plan.schedule, plan.row
        k = self.k
        self.map_q, self.map_k, self.map_v = dk.maps[:3]
        self.shared = k.dynamic_shared(ATOM)
        self.at, self.stages = _offsets(p, self.s), _stages(p, self.s)
        self.n_rows = dk.size(p.rows, "i32")
        self.masks = p.masks(self.s.keys)

    def barrier(self, number: int, stage: Val | int = 0) -> Val:
        """Barrier 0: queries have arrived. 1, 2: keys full, empty; 3, 4: values full, empty; one for each stage."""
        first = 0 if number == 0 else 8 * (1 + (number - 1) * self.stages)
        return self.shared + (self.at["barriers"] + first) + stage * 8

    def emit(self) -> None:
        k, s, p = self.k, self.s, self.p
        thread = k.thread_id()
        self.leads = thread.eq(0)
        with k.if_(self.leads):
            k.mbarrier_init(self.barrier(0), 1)
            for stage in range(self.stages):
                for full, empty in ((1, 2), (3, 4)):
                    k.mbarrier_init(self.barrier(full, stage), 1)
                    k.mbarrier_init(self.barrier(empty, stage), s.groups)
            k.fence_mbarrier_init()
            for tensor_map in self.dk.maps:
                k.tma_prefetch_descriptor(tensor_map)
        k.barrier()
        self.dk.begin()
        # Late rows see the most keys under causality: start with them.
        tile = k.block_id(0)
        if p.causal:
            tile = (k.grid_dim(0) - 1) - tile
        self.m0 = tile * s.rows
        self.head, self.batch = k.block_id(1), k.block_id(2)
        self.n_keys = p.n_keys(self.dk, self.batch)
        tiles = (self.n_keys + (s.keys - 1)) // s.keys
        plain = self.n_keys // s.keys if self.masks else tiles
        if p.causal:
            shift = self.n_keys - self.n_rows
            tiles = k.min(tiles, k.max((self.m0 + (s.rows + s.keys - 1) + shift).sdiv(s.keys), 0))
            plain = k.min(plain, k.max((self.m0 + 1 + shift).sdiv(s.keys), 0))
        self.tiles = k.max(tiles, 1)  # a row without keys still has a result
        self.plain = k.min(plain, self.tiles)
        self.consume(thread, k.warp_id() >> 2)

    # --- copies

    def bring_first(self) -> None:
        """Issue the copies of queries, of the first two tiles of keys, and of the first tile of values."""
        k, p = self.k, self.p
        with k.if_(self.leads):
            k.mbarrier_arrive_expect(self.barrier(0), self.at["k"])
            self.load(self.shared, self.map_q, p.q, p.depth, self.s.rows, self.m0, [self.batch, self.head], self.barrier(0))
            self.bring("k", 0)
            self.bring("v", 0)
            with k.if_(self.tiles > 1):
                self.bring("k", 1)

    def bring_next(self, tile: Val) -> None:
        """In the iteration of a tile: issue the copies of its values, and of the keys of the tile after it."""
        k = self.k
        with k.if_(self.leads):
            with k.if_(tile + 1 < self.tiles):
                self.bring("k", tile + 1)
            self.bring("v", tile)

    def bring(self, name: str, tile: Val | int) -> None:
        """Issue the copies of a tile (counted from the last) into its stage, when all have read what was there."""
        k, p, s = self.k, self.p, self.s
        full, x, tensor_map, depth = (1, p.k, self.map_k, p.depth) if name == "k" else (3, p.v, self.map_v, p.depth_v)
        stage: Val | int = tile % self.stages
        if isinstance(tile, Val):
            # Fill n of a stage waits for the reads of fill n - 1, whose phase has the parity of n - 1; fill 0 passes.
            k.mbarrier_wait(self.barrier(full + 1, stage), (tile // self.stages + 1) & 1)
        bar = self.barrier(full, stage)
        k.mbarrier_arrive_expect(bar, self.at[name + "_bytes"])
        base = self.shared + self.at[name] + stage * self.at[name + "_bytes"]
        first = (self.tiles - 1 - tile) * s.keys
        self.load(base, tensor_map, x, depth, s.keys, first, [self.batch, p.kv_head(self.head)], bar)

    def load(
        self, dst: Val, tensor_map: Val, x: object, depth: int, lines: int, first: Val, batch: list[Val], full: Val
    ) -> None:
        """`lines` rows of a tensor from `first` on: boxes of 64 elements of depth, one behind the other."""
        rest = x.tma_batch(batch)  # type: ignore[attr-defined]
        for i in range(_lines(depth)):
            self.k.tma_load(dst + i * lines * SWIZZLE, tensor_map, [i * LINE, first, *rest], full)

    # --- products

    def consume(self, thread: Val, consumer: Val) -> None:
        k, s, p = self.k, self.s, self.p
        local = thread & 127
        lane = local & 31
        first = self.m0 + (consumer << 6) + ((local >> 5) << 4) + (lane >> 2)
        rows = SoftmaxRows(
            self.dk, p, self.batch, self.head, first, self.n_keys, 1, s.keys // 8, p.depth_v // 8, lane, s.rows
        )
        self.rows, self.local = rows, local
        self.q_descriptor = self.descriptor(self.shared + (consumer << 6) * SWIZZLE, ATOM)
        self.k_descriptor = self.descriptor(self.shared + self.at["k"], ATOM)
        # Values lie with their elements contiguous: lines of 64 elements follow each other, eight keys make an atom.
        self.v_descriptor = k.wgmma_descriptor(
            self.shared + self.at["v"], leading_bytes=s.keys * SWIZZLE, stride_bytes=ATOM, swizzle=SWIZZLE
        )
        self.bring_first()
        k.mbarrier_wait(self.barrier(0), 0)
        zero = k.const(0, "i32")
        maximum, total = rows.start()

        # The last tile, with nothing accumulated yet.
        last = self.tiles - 1
        products = self.issue_scores(zero)
        k.wgmma_wait(0)
        scores = k.elements(k.wgmma_settled(products))
        self.release(2, zero)
        scores = rows.scored(scores, last * s.keys, True) if self.masks else self.scored(scores, last * s.keys)
        maximum, total, _, probabilities = rows.update(scores, maximum, total)
        state = [maximum, total, rows.operand(probabilities, self.row.ptx), k.wgmma_accumulator(p.depth_v)]

        begin = k.const(1, "i32")
        if self.masks:
            masked = self.tiles - k.min(self.plain, last)
            state = self.loop(begin, masked, state, True)
            begin = masked
        maximum, total, operand, acc = self.loop(begin, self.tiles, state, False)
        acc = self.issue_values(acc, operand, last)
        k.wgmma_wait(0)
        rows.store(total, k.elements(k.wgmma_settled(acc)))

    def scored(self, scores: list[Val], first: Val) -> list[Val]:
        """Scores of a tile that needs no mask."""
        return scores if self.p.plain_scores else self.rows.scored(scores, first, False)

    def loop(self, begin: Val, end: Val, state: list, masked: bool) -> list:
        """Tiles begin..end, counted from the last: scores of each, and the values of the one before."""
        k, s, rows = self.k, self.s, self.rows
        with k.for_(begin, end, carry=state) as loop:
            maximum, total, operand, acc = loop.carry
            self.bring_next(loop.iv)
            products = self.issue_scores(loop.iv)
            acc = self.issue_values(acc, operand, loop.iv - 1)
            k.wgmma_wait(1)
            scores = k.elements(k.wgmma_settled(products))
            self.release(2, loop.iv)
            first = (self.tiles - 1 - loop.iv) * s.keys
            scores = rows.scored(scores, first, True) if masked else self.scored(scores, first)
            maximum, total, factors, probabilities = rows.update(scores, maximum, total)
            k.wgmma_wait(0)
            settled = k.wgmma_settled(acc)
            self.release(4, loop.iv - 1)
            acc = self.pack(rows.rescale(k.elements(settled), factors), settled.t)
            loop.yield_([maximum, total, rows.operand(probabilities, self.row.ptx), acc])
        return loop.results

    def pack(self, values: list[Val], t: object) -> Val:
        """A struct of values."""
        k = self.k
        out = k.undef(t)
        for i, x in enumerate(values):
            out = k.insert(x, out, i)
        return out

    def descriptor(self, p: Val, stride: int) -> Val:
        """Of a tile whose lines run along k."""
        return self.k.wgmma_descriptor(p, leading_bytes=16, stride_bytes=stride, swizzle=SWIZZLE)

    def release(self, number: int, tile: Val) -> None:
        """One thread of the warpgroup says that a tile's stage has been read."""
        with self.k.if_(self.local.eq(0)):
            self.k.mbarrier_arrive(self.barrier(number, tile % self.stages))

    def issue_scores(self, tile: Val) -> Val:
        """Start multiplying queries by the keys of a tile, as one group."""
        k, s, p = self.k, self.s, self.p
        stage = tile % self.stages
        k.mbarrier_wait(self.barrier(1, stage), (tile // self.stages) & 1)
        step = k.cast(stage * (self.at["k_bytes"] >> 4), "i64", signed=False)
        keys = self.k_descriptor + step
        acc = k.wgmma_accumulator(s.keys)
        k.wgmma_fence()
        for i in range(-(-p.depth // 16)):
            line, within = divmod(i, LINE // 16)
            a = (line * s.rows * SWIZZLE + within * 32) >> 4
            b = (line * s.keys * SWIZZLE + within * 32) >> 4
            acc = k.wgmma(acc, self.q_descriptor + a, keys + b, (64, s.keys, 16), self.row.ptx, accumulate=i > 0)
        k.wgmma_commit()
        return acc

    def issue_values(self, acc: Val, operand: list[Val], tile: Val) -> Val:
        """Start adding probabilities times the values of a tile, as one group."""
        k, s, p = self.k, self.s, self.p
        stage = tile % self.stages
        k.mbarrier_wait(self.barrier(3, stage), (tile // self.stages) & 1)
        values = self.v_descriptor + k.cast(stage * (self.at["v_bytes"] >> 4), "i64", signed=False)
        k.wgmma_fence()
        for i in range(s.keys // 16):
            acc = k.wgmma_registers(
                acc, operand[4 * i : 4 * i + 4], values + (i * 16 * SWIZZLE >> 4), (64, p.depth_v, 16), self.row.ptx,
                b_transposed=True,
            )  # fmt: skip
        k.wgmma_commit()
        return acc
