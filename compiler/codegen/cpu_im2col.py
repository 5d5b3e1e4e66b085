"""Blocks of the matrix of windows of a convolution, made on the fly: rows are output pixels, columns are (kernel, channel).

Where the taps along the last spatial axis are neighbours in memory together with their channels, a whole row of the kernel is
one contiguous run, of which padding hides a part at either end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ingot import dims
from ingot.compiler.codegen.cpu_factors import Arithmetic, Lines, as_number
from ingot.compiler.codegen.cpu_gemm import GemmSchedule
from ingot.compiler.codegen.cpu_kernel import CpuKernel
from ingot.compiler.codegen.cpu_region import Position, load_lanes, storage_type
from ingot.compiler.codegen.cpu_space import takes_masks
from ingot.compiler.codegen.cpu_window import Window
from ingot.compiler.codegen.values import Val
from ingot.dims import Dim


class WindowsA:
    """An `ASource` over windows of x [N, spatial..., C], whose `lines` begin at the first channel of the group.

    Attributes:
        channels: channels of a group.
        out: N and the output's spatial sizes; their product is the number of rows.
    """

    def __init__(
        self, ck: CpuKernel, lines: Lines, window: Window, channels: int, out: Sequence[Dim], arithmetic: Arithmetic,
        s: GemmSchedule,
    ) -> None:  # fmt: skip
        self.ck, self.lines, self.window, self.channels, self.out = ck, lines, window, channels, tuple(out)
        self.arithmetic, self.schedule = arithmetic, s
        x = lines.tensor
        lanes = ck.lanes(arithmetic.acc)
        self.row_step, self.k_step = -(-s.kc // lanes) * lanes + lanes, 1
        self.scratch = self.row_step * s.mc
        fused = not window.transposed and window.dilations[-1] == 1 and x.strides[-2] == channels and x.strides[-1] == 1
        self._taps = window.kernel[-1] if fused else 1  # taps of a contiguous run

    def block(self, m0: Val, rows: Val, k0: Val, kc: Val, scratch: Val | None) -> Val:
        """See `cpu_gemm.ASource`."""
        ck, k, element, unit = self.ck, self.ck.k, self.arithmetic.element, self.arithmetic.unit
        assert scratch is not None
        assert self.lines.base is not None
        k0, kc = k0 * unit, kc * unit  # from here on, in elements
        if unit > 1:
            kc = k.min(kc, k.const(self.columns(self.window, self.channels), "i64") - k0)
        x, mr = self.lines.tensor, self.schedule.mr
        run = self._taps * self.channels
        runs = math.prod(self.window.kernel) // self._taps
        with k.for_(0, (rows + (mr - 1)) // mr * mr) as loop:
            pixel = m0 + k.min(loop.iv, rows - 1)
            image, *out = ck.split(pixel, self.out)
            first = [self.window.first(ck, axis, o) for axis, o in enumerate(out)]
            origin = self.lines.base.at(image * ck.dim(x.strides[0]), storage_type(x.dtype))
            target = scratch.at(loop.iv * (self.row_step * unit), element)
            if runs == 1:
                self._run(origin, first, k.const(0, "i64"), k0, k0 + kc, target)
            else:
                with k.for_(k0 // run, (k0 + kc + (run - 1)) // run) as over_runs:
                    t = over_runs.iv
                    start = k.max(k0 - t * run, k.const(0, "i64"))
                    stop = k.min(k0 + kc - t * run, k.const(run, "i64"))
                    self._run(origin, first, t, start, stop, target.at(t * run - k0 + start, element))
        return scratch

    def _run(self, origin: Val, first: Sequence[Val], t: Val, start: Val, stop: Val, target: Val) -> None:
        """Copy elements [start, stop) of run `t` of a row; what lies in the padding is 0."""
        ck, k, x, window = self.ck, self.ck.k, self.lines.tensor, self.window
        storage = storage_type(x.dtype)
        rank = window.rank
        outer = rank if self._taps == 1 else rank - 1
        taps = ck.split(t, window.kernel[:outer]) if outer else []
        inside = k.const(1, "i1")
        source = origin
        for axis, tap in enumerate(taps):
            at, exists = window.source(ck, axis, first[axis], tap)
            inside = inside & exists
            source = source.at(at * ck.dim(x.strides[1 + axis]), storage)
        zero = k.const(0, "i64")
        low, high = zero, stop
        if self._taps > 1:
            column = first[-1]
            source = source.at(column * self.channels, storage)
            low = k.max(zero, (0 - column) * self.channels)
            high = k.min(stop, (ck.dim(window.size[-1]) - column) * self.channels)
        high = k.select(inside, high, zero) if inside.const is None else high
        number = self.arithmetic.element
        lanes = ck.lanes(self.arithmetic.acc) * self.arithmetic.unit
        step = ck.dim(x.strides[-1])

        def copy(element: Val, at: Position) -> None:
            value = load_lanes(ck, source.at(element * step, storage), x.dtype, step, at)
            k.store(as_number(ck, value, x.dtype, self.lines.unsigned, number), target.at(element - start, number))

        if not takes_masks(ck, [x.dtype]) and step.const == 1:
            self._run_unmasked(copy, start, stop, k.max(low, start), k.min(high, stop), target, lanes)
            return
        numbers = k.iota(f"vector<{lanes}xi32>")

        def bound(value: Val, element: Val) -> Val:
            return k.broadcast(k.cast(value - element, "i32"), lanes)

        with k.for_(start, stop, lanes) as loop:
            element = loop.iv
            mask = numbers < bound(high, element)
            if self._taps > 1:
                mask = mask & (numbers >= bound(low, element))
            # A vector may reach into the next run, which is written after it, or into the row's margin.
            copy(element, Position((), 0, lanes, mask))

    def _run_unmasked(
        self, copy: Callable[[Val, Position], None], start: Val, stop: Val, low: Val, high: Val, target: Val, lanes: int
    ) -> None:
        """A run where masks cost a branch an element: zeros before `low` and from `high` on, between them whole vectors, of
        which the last overlaps the one before it."""
        k = self.ck.k
        number = self.arithmetic.element
        zeros = k.const(0, k.vector_of(number, lanes))
        high = k.max(high, low)
        if self._taps > 1:
            with k.for_(start, k.min(low, stop), lanes) as before:
                k.store(zeros, target.at(before.iv - start, number))
        with k.if_else(high - low >= lanes) as size:
            with size.then, k.for_(low, high, lanes) as loop:
                copy(k.min(loop.iv, high - lanes), Position((), 0, lanes))
            with size.else_, k.for_(low, high) as loop:
                copy(loop.iv, Position(()))
        with k.for_(high, stop, lanes) as after:
            k.store(zeros, target.at(after.iv - start, number))

    @staticmethod
    def columns(window: Window, channels: int) -> int:
        """Columns of the matrix: the depth of the product."""
        return dims.product(window.kernel) * channels  # type: ignore[return-value]
