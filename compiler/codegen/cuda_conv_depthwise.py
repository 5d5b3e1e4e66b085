"""Depthwise convolutions: every channel has its own window, so a thread owns a vector of channels and sums its taps.

The weights of a block's channels lie in shared memory in f32, a tap after the other. A thread computes `pixels`
neighbouring outputs along the last spatial axis and loads each input vector that their windows share once.
"""

from __future__ import annotations

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
from ingot.dispatch import Dispatch
from ingot.kernel_plan import BufferArg, KernelLaunch

THREADS = 256
UNROLLED_TAPS = 9  # windows up to this many taps are written out; larger ones loop over all axes but the last
UNROLLED_ROW = 16  # taps along the last axis up to which they are written out; more are looped over one by one
WEIGHT_BYTES = 48 << 10  # shared memory for a block's weights, which several blocks of an SM leave each other


@dataclass(frozen=True)
class DepthwiseSchedule:
    """How a depthwise convolution is divided.

    Attributes:
        lanes: channels of a vector.
        across: threads along channels.
        pixels: neighbouring outputs of a thread.
        strips: runs of `pixels` outputs that a thread computes one after the other, with the same weights.
    """

    lanes: int
    across: int
    pixels: int
    strips: int = 1

    @property
    def channels(self) -> int:
        """Channels of a block."""
        return self.lanes * self.across

    @property
    def down(self) -> int:
        """Threads of a block along strips."""
        return THREADS // self.across


def is_depthwise(dispatch: Dispatch, window: Window) -> bool:
    """True for a convolution with as many groups as channels in and out."""
    groups = int(dispatch.attr("groups"))
    x, y = dispatch.operands[0], dispatch.results[0]
    return groups > 1 and x.shape[-1] == groups == y.shape[-1] and not window.transposed and x.type.bits >= 8


def weight_bytes(dispatch: Dispatch, window: Window, s: DepthwiseSchedule) -> int:
    """Shared memory of a block: its channels' weights in the accumulator's type."""
    return window.taps * s.channels * (8 if dispatch.attr("acc") in ("f64", "i64") else 4)


def choose_depthwise(dispatch: Dispatch, window: Window) -> DepthwiseSchedule | None:
    """Vectors as wide as all tensors allow, a warp's worth of channels, four outputs a thread where rows are long.

    None where the weights of one vector of channels do not fit into shared memory.
    """
    x = dispatch.operands[0]
    lanes = 16 // min(x.type.bytes, *(t.type.bytes for t in dispatch.results))
    for t in (x, *dispatch.results):
        lanes = math.gcd(lanes, vector_lanes(t, dispatch, limit=lanes * t.type.bytes))
    channels = int(dispatch.attr("groups"))
    across = 1
    while across < 32 and across * lanes < channels:
        across *= 2
    row = dispatch.results[0].shape[-2]
    pixels = 4 if not isinstance(row, int) or row >= 16 else 2 if row >= 4 else 1
    if window.kernel[-1] == 1:
        pixels = 1
    elements = dims.product(dispatch.results[0].shape)
    large = not isinstance(elements, int) or elements > 1 << 24
    s = DepthwiseSchedule(lanes, across, pixels, 4 if large else 1)
    while weight_bytes(dispatch, window, s) > WEIGHT_BYTES:
        if s.across == 1:
            return None
        s = replace(s, across=s.across // 2)
    return s


def _strip_shape(dispatch: Dispatch, s: DepthwiseSchedule) -> tuple[dims.Dim, ...]:
    """Sizes of the strips' axes: the output positions', the last one in strips."""
    shape = dispatch.results[0].shape
    return (*shape[:-2], dims.ceildiv(shape[-2], s.pixels))


def emit_depthwise(module: KernelModule, dispatch: Dispatch, window: Window, s: DepthwiseSchedule) -> KernelLaunch:
    """Write the kernel into `module`; its launch."""
    shape = dispatch.results[0].shape
    strips = dims.product(_strip_shape(dispatch, s))
    x = dispatch.operands[0]
    launch = KernelLaunch(
        symbol_of(dispatch),
        (dims.ceildiv(strips, s.down * s.strips), dims.ceildiv(shape[-1], s.channels), 1),
        (BufferArg("operand", 0), BufferArg("operand", 1), *region_buffers(dispatch, skip=(0, 1))),
        (s.across, s.down, 1),
        shared_bytes=weight_bytes(dispatch, window, s),
        flops=2 * window.taps * dims.product(shape),
        bytes=sum((dims.product(t.shape) * t.type.bytes for t in (x, *dispatch.results)), start=0),
    )
    # Two blocks an SM: loads in flight hide latency better than more registers do.
    with dispatch_kernel(module, dispatch, launch, min_blocks=2) as dk:
        _Depthwise(dk, window, s).emit()
    return launch


class _Depthwise:
    """The kernel while it is written."""

    def __init__(self, dk: DispatchKernel, window: Window, s: DepthwiseSchedule) -> None:
        self.dk, self.k, self.window, self.s, self.d = dk, dk.k, window, s, dk.d
        self.acc = str(self.d.attr("acc"))
        self.type = self.k.vector_of(self.acc, s.lanes)
        self.shared = self.k.dynamic_shared(128)
        self.channel0 = self.k.block_id(1) * s.channels
        self.channel = self.channel0 + self.k.thread_id(0) * s.lanes
        self.channels = int(self.d.attr("groups"))
        self.reader = WindowReader(dk, self.d.operands[0], window, overhanging=True)

    def emit(self) -> None:
        k, s = self.k, self.s
        self.load_weights()
        k.barrier()
        shape = _strip_shape(self.d, s)
        count = self.dk.size(dims.product(shape), "i32")
        first = k.block_id(0) * (s.down * s.strips) + k.thread_id(1)
        with k.for_(0, s.strips) as loop:
            strip = first + loop.iv * s.down
            inside = strip < count
            if self.channels % s.channels:
                inside = inside & (self.channel < self.channels)
            with k.if_(inside):
                position = self.dk.split(strip, shape)
                position[-1] = position[-1] * s.pixels
                self.store(position, self.sums(position))

    def load_weights(self) -> None:
        """The weights of the block's channels, in the accumulator's type, a tap after the other."""
        k, s, w, taps = self.k, self.s, self.d.operands[1], self.window.taps
        thread = k.thread_id(1) * s.across + k.thread_id(0)
        stride = self.dk.size(w.strides[0])
        with k.for_(thread, taps * s.channels, THREADS) as loop:
            channel = loop.iv // taps
            tap = loop.iv - channel * taps
            at = k.min(self.channel0 + channel, self.channels - 1)
            offset = k.cast(at, "i64") * stride + k.cast(tap, "i64") * self.dk.size(_tap_stride(self.d))
            raw = k.load(self.dk.pointer("operand", 1).at(offset, memory_type(w.dtype)), memory_type(w.dtype))
            x = as_accumulator(self.dk, raw, w.dtype, self.acc, bool(self.d.attr("b_unsigned", False)))
            k.store(x, self.shared.at(tap * s.channels + channel, self.acc))

    def sums(self, position: list[Val]) -> list[Val]:
        """Accumulators of the strip that begins at an output position."""
        k, s, w = self.k, self.s, self.window
        row = self.reader.row(position, channel=self.channel)
        zero = [k.const(0, self.type)] * s.pixels
        outer = math.prod(w.kernel[:-1])
        if w.kernel[-1] > UNROLLED_ROW:
            with k.for_(0, w.taps, carry=zero) as loop:
                loop.yield_(self.tap(row, loop.iv, loop.carry))
            return list(loop.results)
        if w.taps <= UNROLLED_TAPS or outer == 1:
            acc = zero
            for line in range(outer):
                acc = self.line(row, k.const(line, "i32"), acc)
            return acc
        with k.for_(0, outer, carry=zero) as loop:
            loop.yield_(self.line(row, loop.iv, loop.carry))
        return list(loop.results)

    def tap(self, row: WindowRow, tap: Val, acc: list[Val]) -> list[Val]:
        """`acc` and one tap."""
        s, w = self.s, self.window
        steps = [at * d for at, d in zip(self.dk.split(tap, w.kernel), w.dilations, strict=True)]
        weight = self.weight(tap)
        loaded = [self.load(row, [*steps[:-1], steps[-1] + p * w.strides[-1]]) for p in range(s.pixels)]
        return [self.k.fma(x, weight, total) for x, total in zip(loaded, acc, strict=True)]

    def weight(self, tap: Val) -> Val:
        """The weights of this thread's channels at a tap."""
        k, s = self.k, self.s
        at = self.shared.at(tap * s.channels + k.thread_id(0) * s.lanes, self.acc)
        return k.load(at, self.type, align=min(16, s.lanes * self.type.element.nbytes))

    def line(self, row: WindowRow, line: Val, acc: list[Val]) -> list[Val]:
        """`acc` and the taps of one position of all kernel axes but the last."""
        k, s, w = self.k, self.s, self.window
        acc = list(acc)
        outer = self.dk.split(line, w.kernel[:-1]) if w.rank > 1 else []
        steps = [at * w.dilations[a] for a, at in enumerate(outer)]
        stride, dilation = w.strides[-1], w.dilations[-1]
        columns = sorted({p * stride + t * dilation for p in range(s.pixels) for t in range(w.kernel[-1])})
        loaded = {c: self.load(row, [*steps, c]) for c in columns}
        for t in range(w.kernel[-1]):
            weight = self.weight(line * w.kernel[-1] + t)
            for p in range(s.pixels):
                acc[p] = k.fma(loaded[p * stride + t * dilation], weight, acc[p])
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
        """Run the epilogue on each output of a strip, and store its results."""
        k, d, lanes = self.k, self.d, self.s.lanes
        shape = d.results[0].shape
        size = self.dk.size(shape[-2], "i32")
        exact = isinstance(shape[-2], int) and shape[-2] % self.s.pixels == 0
        wide = lanes if lanes > 1 else 0
        for p, x in enumerate(acc):
            with k.if_(True if exact or self.s.pixels == 1 else position[-1] + p < size):
                at = [*position[:-1], position[-1] + p, self.channel]
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
