"""The family of `conv` on the CPU: an implicit matrix product over windows, or for depthwise ones a sum over taps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ingot import dims
from ingot.compiler.codegen.cpu_depthwise import emit_depthwise
from ingot.compiler.codegen.cpu_gemm import (
    A_IM2COL,
    A_IN_PLACE,
    B_COPY,
    B_TRANSPOSE,
    BlockedGemm,
    GemmSchedule,
    MatrixA,
    MatrixB,
    PackingCost,
    block_grid,
    block_range,
    choose_schedule,
)
from ingot.compiler.codegen.cpu_im2col import WindowsA
from ingot.compiler.codegen.cpu_kernel import CpuKernel, cpu_kernel
from ingot.compiler.codegen.cpu_matmul import Problem
from ingot.compiler.codegen.cpu_region import (
    Position,
    RegionEmitter,
    domain_strides,
    indexed_axes,
    loaded_operands,
    storage_type,
    store_lanes,
)
from ingot.compiler.codegen.cpu_space import collapse
from ingot.compiler.codegen.cpu_vector_product import emit_vector_product, vector_product_suits
from ingot.compiler.codegen.cpu_window import Window, window_of
from ingot.compiler.codegen.family import Emitted
from ingot.compiler.codegen.values import Val
from ingot.dims import Dim
from ingot.dispatch import Dispatch, TensorArg
from ingot.target import Target


@dataclass(frozen=True)
class PixelEpilogue:
    """The epilogue of a channels-last dispatch over pixels, numbered row-major, and channels.

    Attributes:
        pixels: the axes that the pixels' axes [N, spatial...] were merged into.
        results: strides of each result over (pixels..., channel).
        loads: of each operand that the region loads, over the same.
        axes: which of these axes an original one became.
    """

    dispatch: Dispatch
    pixels: tuple[Dim, ...]
    results: tuple[tuple[Dim, ...], ...]
    loads: dict[int, tuple[Dim, ...]]
    axes: dict[int, int]

    def emitter(self, ck: CpuKernel) -> RegionEmitter:
        """The region over the merged domain."""
        return RegionEmitter(ck, self.dispatch.regions[0], len(self.pixels) + 1, self.loads, self.axes)

    def store(self, ck: CpuKernel, emitter: RegionEmitter, pixel: Val, channel: Position, value: Val) -> None:
        """Run the region on `value` at a pixel and a vector of channels and store the results."""
        index = (*ck.split(pixel, self.pixels), channel.index[0])
        at = Position(index, len(index) - 1 if channel.lanes else -1, channel.lanes, channel.mask)
        for number, x in enumerate(emitter([value], at)):
            result = ck.dispatch.results[number]
            strides = self.results[number]
            storage = storage_type(result.dtype)
            to = ck.result(number).at(ck.offset(index, strides), storage)
            store_lanes(ck, x, to, result.dtype, ck.dim(strides[-1]), at)


def pixel_epilogue(dispatch: Dispatch) -> PixelEpilogue:
    """The epilogue of a conv or pool."""
    region = dispatch.regions[0]
    shape = dispatch.results[0].shape
    operands = loaded_operands(region)
    accesses = [r.strides for r in dispatch.results]
    accesses += [domain_strides(dispatch.operands[n], len(shape)) for n in operands]
    space = collapse(shape[:-1], [s[:-1] for s in accesses], indexed_axes(region))
    strides = [(*outer, s[-1]) for outer, s in zip(space.strides, accesses, strict=True)]
    count = len(dispatch.results)
    axes = {**space.axes, len(shape) - 1: len(space.sizes)}
    return PixelEpilogue(
        dispatch, space.sizes, tuple(strides[:count]), dict(zip(operands, strides[count:], strict=True)), axes
    )


class _TransposedB(MatrixB):
    """B of a transposed convolution: w [C, kernel..., M/groups], whose rows are (kernel, channel)."""

    channels = 1
    tap: Dim = 0
    channel: Dim = 0

    def row_offset(self, number: Val) -> Val:
        return number // self.channels * self.ck.dim(self.tap) + number % self.channels * self.ck.dim(self.channel)


def _merged_stride(shape: Sequence[Dim], strides: Sequence[Dim]) -> Dim | None:
    """The stride of axes as one, or None where they do not lie one after the other."""
    space = collapse(shape, [strides])
    return space.strides[0][0] if len(space.sizes) == 1 else None


def emit(dispatch: Dispatch, target: Target, schedule: Any = None) -> Emitted:
    """See `family.emit`; `schedule` is a `GemmSchedule`. Weights must be dense along (kernel, channel)."""
    x, w = dispatch.operands[:2]
    groups, acc = int(dispatch.attr("groups")), str(dispatch.attr("acc"))
    window = window_of(dispatch, w.shape[1:-1], x.shape[1:-1])
    channels, outputs = x.shape[-1], dispatch.results[0].shape[-1]
    if not isinstance(channels, int) or not isinstance(outputs, int):
        raise NotImplementedError(f"conv on cpu needs constant channels, not {channels} to {outputs}")
    if groups == channels == outputs and not window.transposed and groups > 1:
        return emit_depthwise(dispatch, window, pixel_epilogue(dispatch), acc, target)
    per_group, out_group = channels // groups, outputs // groups
    pixels = dispatch.results[0].shape[:-1]
    m, depth = dims.product(pixels), WindowsA.columns(window, per_group)
    lanes = target.vector_bits // (64 if acc in ("f64", "i64") else 32)
    registers = 32 if target.vector_bits >= 512 else 16
    dense = _merged_stride(x.shape[:-1], x.strides[:-1]) if window.is_pointwise() else None
    row, column = _weight_strides(w, window)
    epilogue = pixel_epilogue(dispatch)
    if schedule is None and dense is not None and groups == len(epilogue.pixels) == 1 and vector_product_suits(m):
        a, b = (dense, x.strides[-1]), (row, column)
        product = Problem(dispatch, (), m, outputs, depth, a, b, epilogue.results, epilogue.loads, epilogue.axes)
        return emit_vector_product(product, acc, target)
    if schedule is None:
        packing = PackingCost(A_IM2COL if dense is None else A_IN_PLACE, B_TRANSPOSE if column != 1 else B_COPY)
        schedule = choose_schedule(m, out_group, depth, groups, lanes, registers, packing)
    assert isinstance(schedule, GemmSchedule)
    blocks = block_grid(schedule, m, out_group)
    grid = (groups, *blocks)
    with cpu_kernel(dispatch, target, dims.product(grid)) as ck:
        source_a: MatrixA | WindowsA
        if dense is not None:
            source_a = MatrixA(ck, x, dense, x.strides[-1], m, acc, schedule)
        else:
            source_a = WindowsA(ck, x, window, per_group, pixels, acc, schedule)
        source_b = (_TransposedB if window.transposed else MatrixB)(ck, w, row, column, depth, out_group, acc, schedule)
        if isinstance(source_b, _TransposedB):
            source_b.channels, source_b.tap, source_b.channel = per_group, row, w.strides[0]
        gemm = BlockedGemm(ck, schedule, acc, ck.dim(m), ck.dim(out_group), ck.dim(depth), source_a, source_b)
        emitter = epilogue.emitter(ck)
        with ck.items() as item:
            group, n_block, m_block = ck.split(item, grid)
            source_a.base = ck.operand(0).at(group * per_group * ck.dim(x.strides[-1]), x.dtype)
            group_weights = group * per_group if window.transposed else group * out_group
            source_b.base = ck.operand(1).at(group_weights * ck.dim(w.strides[0]), w.dtype)

            def finish(pixel: Val, at: Position, value: Val) -> None:
                channel = Position((at.index[0] + group * out_group,), 0, at.lanes, at.mask)
                epilogue.store(ck, emitter, pixel, channel, value)

            m0, rows = block_range(ck, m_block, schedule.mc, m)
            n0, cols = block_range(ck, n_block, schedule.nc, out_group)
            gemm.block(m0, rows, n0, cols, finish)
        return ck.emitted(m * outputs * depth * 2)


def _weight_strides(w: TensorArg, window: Window) -> tuple[Dim, Dim]:
    """Strides of the weights as B [(kernel, channel), out]; of a transposed convolution, of a tap instead of a row."""
    if window.transposed:
        tap = _merged_stride(w.shape[1:-1], w.strides[1:-1])
        row, column = tap, w.strides[-1]
    else:
        row, column = _merged_stride(w.shape[1:], w.strides[1:]), w.strides[0]
    if row is None:
        raise NotImplementedError(f"conv on cpu needs weights dense along kernel and channels, not strides {w.strides}")
    return row, column
