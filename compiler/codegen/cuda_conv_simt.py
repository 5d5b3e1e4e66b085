"""Convolutions by fused multiply-adds: exact float32 and float64, integers, and whatever else has no instruction row."""

from __future__ import annotations

from collections.abc import Sequence

from ingot.compiler.codegen.cuda_conv_problem import ConvProblem
from ingot.compiler.codegen.cuda_gemm_simt import SimtKernel, SimtLoader, SimtSchedule
from ingot.compiler.codegen.cuda_kernel import DispatchKernel, dispatch_kernel
from ingot.compiler.codegen.cuda_window import WindowReader
from ingot.compiler.codegen.kernel_builder import KernelModule
from ingot.compiler.codegen.values import Val
from ingot.kernel_plan import KernelLaunch


def emit_conv_simt(module: KernelModule, c: ConvProblem, s: SimtSchedule, launch: KernelLaunch) -> None:
    """Write the kernel of a schedule into `module`; `launch` is `simt_launch` of the convolution's products."""
    wide = c.gemm.acc in ("f64", "i64")
    with dispatch_kernel(module, c.gemm.dispatch, launch, min_blocks=1 if wide else 2) as dk:
        _ConvSimt(dk, c, s).emit()


class _WindowLoader(SimtLoader):
    """Brings tiles of A: vectors of channels of a tap."""

    def __init__(self, dk: DispatchKernel, c: ConvProblem, s: SimtSchedule) -> None:
        self.c = c
        super().__init__(dk, c.gemm, c.gemm.a, s.tile_m, s, c.gemm.unsigned[0])
        self.reader = WindowReader(dk, c.x, c.window, partial_rows=True)

    def widest(self) -> int:
        return self.c.aligned_elements(4)

    def start(self, row: Val, batch: Sequence[Val]) -> None:
        super().start(row, batch)
        k, dk, c = self.k, self.dk, self.c
        self.base = dk.pointer("operand", 0)
        channel = batch[0] * dk.size(c.channels, "i32") if batch else k.const(0, "i32")
        self.windows = []
        for i in range(self.count):
            at = row + self.place(i)[0]
            position = dk.split(k.min(at, self.row_count - 1), c.pixels)
            self.windows.append(self.reader.row(position, at < self.row_count, channel))

    def element(self, i: int, row: Val, depth: Val) -> tuple[Val, Val]:
        k, c = self.k, self.c
        channels = self.dk.size(c.channels, "i32")
        tap = depth // channels if c.window.taps > 1 else k.const(0, "i32")
        reach = self.reader.reach(tap, depth - tap * channels, depth < self.k_count)
        offset, valid = self.reader.element(self.windows[i], reach)
        assert valid is not None
        return k.cast(offset, "i64"), valid


class _TransposedWeightLoader(SimtLoader):
    """Brings tiles of the weights [C, kernel..., M/groups] of a transposed convolution."""

    def __init__(self, dk: DispatchKernel, c: ConvProblem, s: SimtSchedule) -> None:
        self.c = c
        super().__init__(dk, c.gemm, c.gemm.b, s.tile_n, s, c.gemm.unsigned[1])

    def widest(self) -> int:
        # Vectors along k would straddle taps.
        return 1 if self.along_k else super().widest()

    def element(self, i: int, row: Val, depth: Val) -> tuple[Val, Val]:
        k, dk, c = self.k, self.dk, self.c
        channels = dk.size(c.channels, "i32")
        tap = depth // channels
        offset = k.cast(row, "i64") * self.row_step + k.cast(tap, "i64") * dk.size(c.tap_stride)
        offset = offset + k.cast(depth - tap * channels, "i64") * dk.size(c.w.strides[0])
        return offset, (row < self.row_count) & (depth < self.k_count)


class _ConvSimt(SimtKernel):
    """The kernel while it is written."""

    def __init__(self, dk: DispatchKernel, c: ConvProblem, s: SimtSchedule) -> None:
        super().__init__(dk, c.gemm, s)
        self.c = c

    def loaders(self) -> tuple[SimtLoader, SimtLoader]:
        dk, c, s = self.dk, self.c, self.s
        windows = _WindowLoader(dk, c, s)
        if c.window.transposed:
            return windows, _TransposedWeightLoader(dk, c, s)
        return windows, SimtLoader(dk, c.gemm, c.gemm.b, s.tile_n, s, c.gemm.unsigned[1])
