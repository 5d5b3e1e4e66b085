"""Depthwise convolutions: every channel has its own window, so a thread owns a vector of channels and sums its taps.

The weights of a block's channels lie in shared memory in f32, a tap after the other, so that 16-byte reads of neighbouring
threads are neighbours. A thread computes a patch of outputs, `rows` by `pixels` along the last two spatial axes, and loads each
input vector that their windows share once; the wider a patch, the fewer reads of inputs and weights for each of its products.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ingot import dims
from ingot.compiler.codegen.cuda_gemm_simt import as_accumulator
from ingot.compiler.codegen.cuda_kernel import (
    DispatchKernel,
    collapse,
    dispatch_kernel,
    memory_type,
    region_buffers,
    symbol_of,
    vector_lanes,
)
from ingot.compiler.codegen.cuda_window import Window, WindowReader, WindowRow
from ingot.compiler.codegen.kernel_builder import KernelModule
from ingot.compiler.codegen.values import Operand, Val
from ingot.cuda_targets import facts
from ingot.dispatch import Dispatch
from ingot.kernel_plan import BufferArg, KernelLaunch
from ingot.target import Target

THREADS = 256  # of a block, at most
BLOCKS = 2  # on an SM, at least: loads in flight hide latency better than more registers do
UNROLLED_TAPS = 9  # windows up to this many taps are written out; larger ones loop over all axes but the last
HELD_VALUES = 80  # registers of accumulators and inputs beyond which a patch of several rows spills
LATENCY = 2.5  # cycles between the instructions of a warp that is alone
UNROLLED_PRODUCTS = 400  # vectors of products up to which a patch of several rows is written out
UNROLLED_ROW = 16  # taps along the last axis up to which they are written out; more are looped over one by one
WEIGHT_BYTES = 48 << 10  # shared memory for a block's weights, which several blocks of an SM leave each other
FILL_AHEAD = 16  # weights that a thread reads before it stores the first
BANKS, SKEW = 32, 4  # banks of 4 bytes; a tap begins so many after the one before it


@dataclass(frozen=True)
class DepthwiseSchedule:
    """How a depthwise convolution is divided.

    Attributes:
        lanes: channels of a vector.
        across: threads along channels.
        pixels: neighbouring outputs of a thread along the last axis.
        strips: patches of outputs that a thread computes one after the other, with the same weights.
        rows: neighbouring outputs of a thread along the last axis but one.
    """

    lanes: int
    across: int
    pixels: int
    strips: int = 1
    rows: int = 1

    @property
    def channels(self) -> int:
        """Channels of a block."""
        return self.lanes * self.across

    @property
    def down(self) -> int:
        """Threads of a block along patches."""
        return THREADS // self.across

    @property
    def threads(self) -> int:
        """Threads of a block: whole warps, of which the last threads may have no patch."""
        return -(-self.across * self.down // 32) * 32


def is_depthwise(dispatch: Dispatch, window: Window) -> bool:
    """True for a convolution with as many groups as channels in and out."""
    groups = int(dispatch.attr("groups"))
    x, y = dispatch.operands[0], dispatch.results[0]
    return groups > 1 and x.shape[-1] == groups == y.shape[-1] and not window.transposed and x.type.bits >= 8


def acc_bytes(dispatch: Dispatch) -> int:
    """Bytes of an accumulator, and of a weight in shared memory."""
    return 8 if dispatch.attr("acc") in ("f64", "i64") else 4


def tap_bytes(dispatch: Dispatch, s: DepthwiseSchedule) -> int:
    """Shared memory from a tap's weights to the next one's: a warp that fills in the taps of a channel reaches many banks."""
    size = acc_bytes(dispatch)
    words = s.channels * size // 4
    return 4 * words + 4 * ((SKEW - words) % BANKS if words >= BANKS else 0)


def weight_bytes(dispatch: Dispatch, window: Window, s: DepthwiseSchedule) -> int:
    """Shared memory of a block: its channels' weights in the accumulator's type."""
    return window.taps * tap_bytes(dispatch, s)


def depthwise_schedules(dispatch: Dispatch, window: Window, target: Target) -> list[DepthwiseSchedule]:
    """All sensible divisions, the one with the least estimated time first; none where the weights of one vector of channels do
    not fit into shared memory.

    Wide patches read inputs and weights least often; of a small output they leave SMs without work. As many blocks as run at
    once share the patches, so that weights are brought once to each.
    """
    x, result = dispatch.operands[0], dispatch.results[0]
    widest = 16 // min(x.type.bytes, *(t.type.bytes for t in dispatch.results))
    for t in (x, *dispatch.results):
        widest = math.gcd(widest, vector_lanes(t, dispatch, limit=widest * t.type.bytes))
    row = result.shape[-2]
    pixels = 4 if not isinstance(row, int) or row >= 16 else 2 if row >= 4 else 1
    if window.kernel[-1] == 1:
        pixels = 1
    found: dict[DepthwiseSchedule, None] = {}
    for rows, lanes, wide in itertools.product((2, 1, 4), (4, widest), (pixels, 2, 1)):
        # Long vectors of several rows spill.
        if wide > pixels or (rows > 1 and (lanes != 4 or not _shares_rows(dispatch, window, rows, rows * wide))):
            continue
        s = _divide(dispatch, window, target, DepthwiseSchedule(min(lanes, widest), 1, wide, rows=rows))
        if s is not None and (rows == 1 or _values(window, s) <= HELD_VALUES):
            found[s] = None
    return sorted(found, key=lambda s: _cycles(dispatch, window, s, target))


def _extent(window: Window, axis: int, outputs: int) -> int:
    """Inputs along an axis that the windows of neighbouring outputs have."""
    stride, dilation = window.strides[axis], window.dilations[axis]
    return len({p * stride + t * dilation for p in range(outputs) for t in range(window.kernel[axis])})


def _values(window: Window, s: DepthwiseSchedule) -> int:
    """Registers of a thread's accumulators and of a line of inputs."""
    return s.lanes * (s.rows * s.pixels + _extent(window, -1, s.pixels))


def _cycles(dispatch: Dispatch, window: Window, s: DepthwiseSchedule, target: Target) -> float:
    """An estimate: instructions of the patches of an SM's quarter, or of one patch alone, whose latencies nothing hides."""
    outer = math.prod(window.kernel[:-2]) if window.rank > 1 else 1
    lines = outer * (_extent(window, -2, s.rows) if window.rank > 1 else 1)
    loads = lines * _extent(window, -1, s.pixels) * (1.5 * s.lanes + 10)
    outputs = s.rows * s.pixels
    products = outputs * window.taps * s.lanes + window.taps * s.lanes / 4
    each = products + loads + outputs * (s.lanes / 2 + 6) + 30
    patches = dims.product(_patches(dispatch, s))
    vectors = -(-int(dispatch.attr("groups")) // s.lanes)
    warps = math.ceil((patches if isinstance(patches, int) else 1 << 14) * vectors / 32) / (4 * facts(target).sms)
    # Of equal ones, two rows were the fastest on an H200.
    each *= 1.0 if s.rows == 2 else 1.03
    # So many cycles pass between a warp's instructions; up to four warps of a quarter run at once.
    return each * max(LATENCY, warps * max(1.0, LATENCY / min(4.0, max(1.0, warps))))


def _shares_rows(dispatch: Dispatch, window: Window, rows: int, outputs: int) -> bool:
    """True where windows of neighbouring rows overlap, there are such rows, and a patch's products can be written out."""
    if window.rank < 2 or window.strides[-2] >= window.kernel[-2] * window.dilations[-2]:
        return False
    down = dispatch.results[0].shape[-3]
    taps = window.kernel[-1] * window.kernel[-2]
    return taps * outputs <= UNROLLED_PRODUCTS and (not isinstance(down, int) or down >= 4 * rows)


def _divide(dispatch: Dispatch, window: Window, target: Target, s: DepthwiseSchedule) -> DepthwiseSchedule | None:
    """The schedule with threads along channels and patches; None where weights do not fit."""
    vectors = -(-int(dispatch.attr("groups")) // s.lanes)
    parts = -(-vectors // 64)
    s = replace(s, across=-(-vectors // parts))
    while weight_bytes(dispatch, window, s) > WEIGHT_BYTES:
        if s.across == 1:
            return None
        s = replace(s, across=-(-s.across // 2))
    patches = dims.product(_patches(dispatch, s))
    strips = 4
    if isinstance(patches, int):
        blocks = BLOCKS * facts(target).sms
        strips = max(1, -(-patches * -(-vectors // s.across) // (s.down * blocks)))
    return replace(s, strips=strips)


def choose_depthwise(dispatch: Dispatch, window: Window, target: Target) -> DepthwiseSchedule | None:
    """The division to take, or None where the weights of one vector of channels do not fit into shared memory."""
    return next(iter(depthwise_schedules(dispatch, window, target)), None)


def _patches(dispatch: Dispatch, s: DepthwiseSchedule) -> tuple[dims.Dim, ...]:
    """Sizes of the patches' axes: the output positions', the last two in patches."""
    shape = dispatch.results[0].shape[:-1]
    *outer, last = shape
    if s.rows > 1:
        outer[-1] = dims.ceildiv(outer[-1], s.rows)
    return (*outer, dims.ceildiv(last, s.pixels))


def emit_depthwise(module: KernelModule, dispatch: Dispatch, window: Window, s: DepthwiseSchedule) -> KernelLaunch:
    """Write the kernel into `module`; its launch."""
    shape = dispatch.results[0].shape
    patches = dims.product(_patches(dispatch, s))
    x = dispatch.operands[0]
    launch = KernelLaunch(
        symbol_of(dispatch),
        (dims.ceildiv(patches, s.down * s.strips), dims.ceildiv(shape[-1], s.channels), 1),
        (BufferArg("operand", 0), BufferArg("operand", 1), *region_buffers(dispatch, skip=(0, 1))),
        (s.threads, 1, 1),
        shared_bytes=weight_bytes(dispatch, window, s),
        flops=2 * window.taps * dims.product(shape),
        bytes=sum((dims.product(t.shape) * t.type.bytes for t in (x, *dispatch.results)), start=0),
    )
    with dispatch_kernel(module, dispatch, launch, min_blocks=BLOCKS) as dk:
        _Depthwise(dk, window, s).emit()
    return launch


class _Depthwise:
    """The kernel while it is written."""

    def __init__(self, dk: DispatchKernel, window: Window, s: DepthwiseSchedule) -> None:
        self.dk, self.k, self.window, self.s, self.d = dk, dk.k, window, s, dk.d
        self.acc = str(self.d.attr("acc"))
        self.type = self.k.vector_of(self.acc, s.lanes)
        # 16 bytes of a vector's weights are read at once; those of all threads follow each other.
        self.part = min(s.lanes, 16 // acc_bytes(self.d))
        self.shared = self.k.dynamic_shared(128)
        self.channel0 = self.k.block_id(1) * s.channels
        self.thread = self.k.thread_id()
        self.vector = self.thread % s.across if s.down > 1 else self.thread
        self.channel = self.channel0 + self.vector * s.lanes
        self.channels = int(self.d.attr("groups"))
        self.reader = WindowReader(dk, self.d.operands[0], window, overhanging=True)

    def emit(self) -> None:
        k, s = self.k, self.s
        self.load_weights()
        k.barrier()
        shape = _patches(self.d, s)
        count = self.dk.size(dims.product(shape), "i32")
        first = k.block_id(0) * (s.down * s.strips) + self.thread // s.across
        with k.for_(0, s.strips) as loop:
            patch = first + loop.iv * s.down
            inside = patch < count
            if s.threads != s.across * s.down:
                inside = inside & (self.thread < s.across * s.down)
            if self.channels % s.channels:
                inside = inside & (self.channel < self.channels)
            with k.if_(inside):
                position = self.dk.split(patch, shape)
                position[-1] = position[-1] * s.pixels
                if s.rows > 1:
                    position[-2] = position[-2] * s.rows
                self.store(position, self.sums(position))

    def load_weights(self) -> None:
        """The weights of the block's channels, in the accumulator's type, a tap after the other."""
        k, s, w, taps = self.k, self.s, self.d.operands[1], self.window.taps
        total = taps * s.channels
        stride, tap_stride = self.dk.size(w.strides[0]), self.dk.size(_tap_stride(self.d))
        name = memory_type(w.dtype)

        def some(first: Val, count: int) -> None:
            """`count` weights of a thread: all are read before the first is stored."""
            found = []
            for i in range(count):
                at = k.min(first + i * s.threads, total - 1)
                channel = at // taps
                tap = at - channel * taps
                place = k.cast(k.min(self.channel0 + channel, self.channels - 1), "i64") * stride
                raw = k.load(self.dk.pointer("operand", 1).at(place + k.cast(tap, "i64") * tap_stride, name), name)
                found.append((channel, tap, raw))
            for channel, tap, raw in found:
                x = as_accumulator(self.dk, raw, w.dtype, self.acc, bool(self.d.attr("b_unsigned", False)))
                vector, lane = channel // s.lanes, channel % s.lanes
                within = (lane // self.part) * (s.across * self.part) + vector * self.part + lane % self.part
                k.store(x, (self.shared + tap * tap_bytes(self.d, s)).at(within, self.acc))

        rounds = -(-total // s.threads)
        whole = rounds // FILL_AHEAD
        if whole:
            with k.for_(0, whole) as loop:
                some(self.thread + loop.iv * (FILL_AHEAD * s.threads), FILL_AHEAD)
        if rounds % FILL_AHEAD:
            some(self.thread + whole * FILL_AHEAD * s.threads, rounds % FILL_AHEAD)

    def sums(self, position: list[Val]) -> list[Val]:
        """Accumulators of the patch that begins at an output position, row by row."""
        k, s, w = self.k, self.s, self.window
        origin = self.reader.row(position, channel=self.channel)
        zero = [k.const(0, self.type)] * (s.rows * s.pixels)
        outer = math.prod(w.kernel[:-1])
        if s.rows > 1:
            return self.rows(origin, zero)
        if w.kernel[-1] > UNROLLED_ROW:
            with k.for_(0, w.taps, carry=zero) as loop:
                loop.yield_(self.tap(origin, loop.iv, loop.carry))
            return list(loop.results)
        if w.taps <= UNROLLED_TAPS or outer == 1:
            acc = zero
            for line in range(outer):
                acc = self.kernel_line(origin, k.const(line, "i32"), acc)
            return acc
        with k.for_(0, outer, carry=zero) as loop:
            loop.yield_(self.kernel_line(origin, loop.iv, loop.carry))
        return list(loop.results)

    def rows(self, origin: WindowRow, acc: list[Val]) -> list[Val]:
        """`acc` and all taps: each line of inputs serves the rows whose windows have it."""
        k, s, w = self.k, self.s, self.window
        stride, dilation, taps = w.strides[-2], w.dilations[-2], w.kernel[-2]

        def plane(number: Val | int, acc: list[Val]) -> list[Val]:
            outer = self.dk.split(k.value(number, "i32"), w.kernel[:-2]) if w.rank > 2 else []
            steps: list[Operand] = [at * w.dilations[a] for a, at in enumerate(outer)]
            for y in sorted({r * stride + t * dilation for r in range(s.rows) for t in range(taps)}):
                uses = [
                    (r, (number * taps + t) * w.kernel[-1])
                    for r in range(s.rows) for t in range(taps) if r * stride + t * dilation == y
                ]  # fmt: skip
                acc = self.line(origin, [*steps, y], uses, acc)
            return acc

        planes = math.prod(w.kernel[:-2])
        if planes == 1:
            return plane(0, acc)
        with k.for_(0, planes, carry=acc) as loop:
            loop.yield_(plane(loop.iv, list(loop.carry)))
        return list(loop.results)

    def tap(self, origin: WindowRow, tap: Val, acc: list[Val]) -> list[Val]:
        """`acc` and one tap."""
        s, w = self.s, self.window
        steps = [at * d for at, d in zip(self.dk.split(tap, w.kernel), w.dilations, strict=True)]
        weight = self.weight(tap)
        loaded = [self.load(origin, [*steps[:-1], steps[-1] + p * w.strides[-1]]) for p in range(s.pixels)]
        return [self.k.fma(x, weight, total) for x, total in zip(loaded, acc, strict=True)]

    def weight(self, tap: Operand) -> Val:
        """The weights of this thread's channels at a tap."""
        k, s = self.k, self.s
        t = k.vector_of(self.acc, self.part)
        start = self.shared + tap * tap_bytes(self.d, s)
        found = [
            k.load(start.at((self.vector + i * s.across) * self.part, self.acc), t, align=t.nbytes)
            for i in range(s.lanes // self.part)
        ]
        return found[0] if len(found) == 1 else k.vector([x for part in found for x in k.elements(part)])

    def kernel_line(self, origin: WindowRow, line: Val, acc: list[Val]) -> list[Val]:
        """`acc` and the taps of one position of all kernel axes but the last."""
        w = self.window
        outer = self.dk.split(line, w.kernel[:-1]) if w.rank > 1 else []
        steps: list[Operand] = [at * w.dilations[a] for a, at in enumerate(outer)]
        return self.line(origin, steps, [(0, line * w.kernel[-1])], acc)

    def line(
        self, origin: WindowRow, steps: Sequence[Operand], uses: Sequence[tuple[int, Operand]], acc: Sequence[Val]
    ) -> list[Val]:
        """`acc` and the taps along one line of inputs: of each (row of the patch, number of its first tap) that has it."""
        k, s, w = self.k, self.s, self.window
        acc = list(acc)
        stride, dilation = w.strides[-1], w.dilations[-1]
        columns = sorted({p * stride + t * dilation for p in range(s.pixels) for t in range(w.kernel[-1])})
        loaded = {c: self.load(origin, [*steps, c]) for c in columns}
        for t in range(w.kernel[-1]):
            for row, first in uses:
                weight = self.weight(first + t)
                for p in range(s.pixels):
                    at = row * s.pixels + p
                    acc[at] = k.fma(loaded[p * stride + t * dilation], weight, acc[at])
        return acc

    def load(self, row: WindowRow, steps: Sequence[Operand]) -> Val:
        """The vector of channels that lies `steps` from a window's origin; zeros outside."""
        k, x = self.k, self.d.operands[0]
        offset, valid = self.reader.element(row, self.reader.at(steps))
        assert valid is not None
        name = memory_type(x.dtype)
        t = k.vector_of(name, self.s.lanes)
        p = self.dk.pointer("operand", 0).at(k.select(valid, offset, 0), name)
        # Zeros are chosen by words: by elements they would be chosen after the conversion, one by one.
        words = k.vector_of("i32", t.nbytes // 4) if t.nbytes % 4 == 0 else t
        raw = k.load(p, words, align=self.s.lanes * x.type.bytes)
        raw = k.bitcast(k.select(valid, raw, k.const(0, words)), t)
        return as_accumulator(self.dk, raw, x.dtype, self.acc, bool(self.d.attr("a_unsigned", False)))

    def store(self, position: list[Val], acc: list[Val]) -> None:
        """Run the epilogue on each output of a patch, and store its results."""
        k, d, s, lanes = self.k, self.d, self.s, self.s.lanes
        shape = d.results[0].shape
        wide = lanes if lanes > 1 else 0
        for number, x in enumerate(acc):
            place = list(position)
            inside: Val | bool = True
            for axis, tile, step in ((-1, s.pixels, number % s.pixels), (-2, s.rows, number // s.pixels)):
                if tile > 1:
                    place[axis] = place[axis] + step
                    size = shape[axis - 1]
                    if step and not (isinstance(size, int) and size % tile == 0):
                        within = place[axis] < self.dk.size(size, "i32")
                        inside = within if inside is True else inside & within
            with k.if_(inside):
                at = [*place, self.channel]
                value = x if wide else k.extract(x, 0)
                for i, y in enumerate(self.dk.region(d.regions[0], [value], at, shape, wide)):
                    self.dk.store(i, y, at, wide)


def _tap_stride(dispatch: Dispatch) -> dims.Dim:
    """Elements of w from a tap to the next. Raises NotImplementedError where there is no one distance."""
    w = dispatch.operands[1]
    stride = collapse(w.shape[1:-1], w.strides[1:-1])
    if stride is None:
        raise NotImplementedError(f"conv of weights with strides {[str(s) for s in w.strides]}: taps must have one stride")
    return stride
