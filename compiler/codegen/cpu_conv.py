"""The family of `conv` on the CPU: an implicit matrix product over windows, or for depthwise ones a sum over taps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ingot import dims
from ingot.compiler.codegen.cpu_depthwise import emit_depthwise
from ingot.compiler.codegen.cpu_factors import Factor, Lines, arithmetic_of
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
from ingot.compiler.codegen.cpu_matmul import Operands, Problem
from ingot.compiler.codegen.cpu_nibbles import shares_bytes
from ingot.compiler.codegen.cpu_region import (
    Position,
    RegionEmitter,
    domain_strides,
    indexed_axes,
    loaded_operands,
    store_elements,
)
from ingot.compiler.codegen.cpu_space import collapse
from ingot.compiler.codegen.cpu_vector_product import FewRows, emit_vector_product, vector_product_suits
from ingot.compiler.codegen.cpu_window import Window, window_of
from ingot.compiler.codegen.family import Emitted
from ingot.compiler.codegen.values import Operand, Val
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
            store_elements(ck, x, ck.result(number), index, self.results[number], result.dtype, at)


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


class _TransposedLines(Lines):
    """The weights of a transposed convolution, [C, kernel..., M/groups]: k runs over (kernel, channel)."""

    channels = 1
    tap: Dim = 0
    channel: Dim = 0

    def place(self, line: Operand, k: Operand) -> Val:
        """See `Lines`."""
        ck = self.ck
        number = ck.k.value(k, "i64")
        return (
            ck.k.value(line, "i64") * ck.dim(self.line)
            + number // self.channels * ck.dim(self.tap)
            + number % self.channels * ck.dim(self.channel)
        )


def _merged_stride(shape: Sequence[Dim], strides: Sequence[Dim]) -> Dim | None:
    """The stride of axes as one, or None where they do not lie one after the other."""
    space = collapse(shape, [strides])
    return space.strides[0][0] if len(space.sizes) == 1 else None


def emit(dispatch: Dispatch, target: Target, schedule: Any = None) -> Emitted:
    """See `family.emit`; `schedule` is a `GemmSchedule`. Weights must be dense along (kernel, channel)."""
    x, w = dispatch.operands[:2]
    groups, arithmetic = int(dispatch.attr("groups")), arithmetic_of(dispatch)
    acc = arithmetic.acc
    if shares_bytes(x.dtype) or shares_bytes(w.dtype):
        raise NotImplementedError(f"conv of {x.dtype} and {w.dtype} on cpu: elements share bytes")
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
    unsigned = [bool(dispatch.attr(name)) for name in ("a_unsigned", "b_unsigned")]
    if schedule is None and dense is not None and groups == len(epilogue.pixels) == 1 and vector_product_suits(m):
        a, b = (dense, x.strides[-1]), (row, column)
        product = Problem(dispatch, (), m, outputs, depth, a, b, epilogue.results, epilogue.loads, epilogue.axes)
        return emit_vector_product(FewRows(product, arithmetic, target), Operands)
    units = arithmetic.units(depth)
    if schedule is None:
        packing = PackingCost(A_IM2COL if dense is None else A_IN_PLACE, B_TRANSPOSE if column != 1 else B_COPY)
        schedule = choose_schedule(m, out_group, units, groups, lanes, registers, packing)
    assert isinstance(schedule, GemmSchedule)
    blocks = block_grid(schedule, m, out_group)
    grid = (groups, *blocks)
    with cpu_kernel(dispatch, target, dims.product(grid)) as ck:
        pixels_of = Lines(ck, x, 0 if dense is None else dense, x.strides[-1], unsigned[0])
        source_a: MatrixA | WindowsA
        if dense is not None:
            source_a = MatrixA(ck, Factor(ck, arithmetic, pixels_of, depth), m, schedule)
        else:
            source_a = WindowsA(ck, pixels_of, window, per_group, pixels, arithmetic, schedule)
        weights: Lines
        if window.transposed:
            weights = turned = _TransposedLines(ck, w, column, 0, unsigned[1])
            turned.channels, turned.tap, turned.channel = per_group, row, w.strides[0]
        else:
            weights = Lines(ck, w, column, row, unsigned[1])
        source_b = MatrixB(ck, Factor(ck, arithmetic, weights, depth), out_group, schedule)
        gemm = BlockedGemm(ck, schedule, arithmetic, ck.dim(m), ck.dim(out_group), ck.dim(units), source_a, source_b)
        emitter = epilogue.emitter(ck)
        with ck.items() as item:
            group, n_block, m_block = ck.split(item, grid)
            pixels_of.begin(ck.operand(0), group * per_group * ck.dim(x.strides[-1]))
            group_weights = group * per_group if window.transposed else group * out_group
            weights.begin(ck.operand(1), group_weights * ck.dim(w.strides[0]))

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
