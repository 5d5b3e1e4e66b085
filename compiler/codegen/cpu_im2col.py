"""Blocks of the matrix of windows of a convolution, made on the fly: rows are output pixels, columns are (kernel, channel).

Where the taps along the last spatial axis are neighbours in memory together with their channels, a whole row of the kernel is
one contiguous run, of which padding hides a part at either end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ingot import dims
from ingot.compiler.codegen.cpu_gemm import GemmSchedule
from ingot.compiler.codegen.cpu_kernel import CpuKernel
from ingot.compiler.codegen.cpu_region import Position, load_lanes
from ingot.compiler.codegen.cpu_window import Window
from ingot.compiler.codegen.values import Val
from ingot.dims import Dim
from ingot.dispatch import TensorArg


class WindowsA:
    """An `ASource` over windows of x [N, spatial..., C]; `base` is the address of the first channel of the group.

    Attributes:
        channels: channels of a group.
        out: N and the output's spatial sizes; their product is the number of rows.
    """

    def __init__(
        self, ck: CpuKernel, x: TensorArg, window: Window, channels: int, out: Sequence[Dim], acc: str, s: GemmSchedule
    ) -> None:
        self.ck, self.x, self.window, self.channels, self.out, self.acc = ck, x, window, channels, tuple(out), acc
        self.schedule = s
        self.base: Val = ck.k.const(0, "i64")  # set for each work item
        lanes = ck.lanes(acc)
        self.row_step, self.k_step = -(-s.kc // lanes) * lanes + lanes, 1
        self.scratch = self.row_step * s.mc
        fused = not window.transposed and window.dilations[-1] == 1 and x.strides[-2] == channels and x.strides[-1] == 1
        self._taps = window.kernel[-1] if fused else 1  # taps of a contiguous run

    def block(self, m0: Val, rows: Val, k0: Val, kc: Val, scratch: Val | None) -> Val:
        """See `cpu_gemm.ASource`."""
        ck, k = self.ck, self.ck.k
        assert scratch is not None
        mr = self.schedule.mr
        run = self._taps * self.channels
        runs = math.prod(self.window.kernel) // self._taps
        with k.for_(0, (rows + (mr - 1)) // mr * mr) as loop:
            pixel = m0 + k.min(loop.iv, rows - 1)
            image, *out = ck.split(pixel, self.out)
            first = [self.window.first(ck, axis, o) for axis, o in enumerate(out)]
            origin = self.base.at(image * ck.dim(self.x.strides[0]), self.x.dtype)
            target = scratch.at(loop.iv * self.row_step, self.acc)
            if runs == 1:
                self._run(origin, first, k.const(0, "i64"), k0, k0 + kc, target)
            else:
                with k.for_(k0 // run, (k0 + kc + (run - 1)) // run) as over_runs:
                    t = over_runs.iv
                    start = k.max(k0 - t * run, k.const(0, "i64"))
                    stop = k.min(k0 + kc - t * run, k.const(run, "i64"))
                    self._run(origin, first, t, start, stop, target.at(t * run - k0 + start, self.acc))
        return scratch

    def _run(self, origin: Val, first: Sequence[Val], t: Val, start: Val, stop: Val, target: Val) -> None:
        """Copy elements [start, stop) of run `t` of a row; what lies in the padding is 0."""
        ck, k, x, window = self.ck, self.ck.k, self.x, self.window
        rank = window.rank
        outer = rank if self._taps == 1 else rank - 1
        taps = ck.split(t, window.kernel[:outer]) if outer else []
        inside = k.const(1, "i1")
        source = origin
        for axis, tap in enumerate(taps):
            at, exists = window.source(ck, axis, first[axis], tap)
            inside = inside & exists
            source = source.at(at * ck.dim(x.strides[1 + axis]), x.dtype)
        zero = k.const(0, "i64")
        low, high = zero, stop
        if self._taps > 1:
            column = first[-1]
            source = source.at(column * self.channels, x.dtype)
            low = k.max(zero, (0 - column) * self.channels)
            high = k.min(stop, (ck.dim(window.size[-1]) - column) * self.channels)
        high = k.select(inside, high, zero) if inside.const is None else high
        lanes = ck.lanes(self.acc)
        step = ck.dim(x.strides[-1])
        numbers = k.iota(f"vector<{lanes}xi32>")

        def bound(value: Val, element: Val) -> Val:
            return k.broadcast(k.cast(value - element, "i32"), lanes)

        with k.for_(start, stop, lanes) as loop:
            element = loop.iv
            mask = numbers < bound(high, element)
            if self._taps > 1:
                mask = mask & (numbers >= bound(low, element))
            value = load_lanes(ck, source.at(element * step, x.dtype), x.dtype, step, Position((), 0, lanes, mask))
            # A vector may reach into the next run, which is written after it, or into the row's margin.
            k.store(k.cast(value, self.acc), target.at(element - start, self.acc))

    @staticmethod
    def columns(window: Window, channels: int) -> int:
        """Columns of the matrix: the depth of the product."""
        return dims.product(window.kernel) * channels  # type: ignore[return-value]
