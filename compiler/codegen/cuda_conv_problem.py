"""A conv dispatch as a batch of matrix products over windows: rows are output positions, columns output channels.

K runs over taps and the channels of a tap; groups are the batch. The products are a `GemmProblem`, so that the epilogues,
tile orders, split reductions and cost model of matmul serve convolutions too; only A differs, which is never stored: each
kernel gathers its tiles from x (cuda_conv_tiles.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ingot import dims
from ingot.compiler.codegen.cuda_domain import parted_domain, uses_index
from ingot.compiler.codegen.cuda_gemm_problem import GemmProblem, Matrix
from ingot.compiler.codegen.cuda_kernel import collapse, known_multiple
from ingot.compiler.codegen.cuda_window import Window, window_of
from ingot.dims import Dim
from ingot.dispatch import Dispatch, ScalarInst, ScalarRegion, TensorArg


@dataclass(frozen=True)
class ConvProblem:
    """A convolution.

    Attributes:
        gemm: m output positions, n channels of a group, k taps times channels of a group; the batch are the groups. Its `a`
            has sizes and types only; its `b` has rows n and columns k, but of a transposed convolution, whose k has no one
            stride, the stride of channels alone.
        window: of x.
        x, w: the operands.
        channels: of x in a group, times the taps along the last axis where these are folded into them: the inner part of k.
        pixels: sizes of the output positions' axes [N, spatial...].
    """

    gemm: GemmProblem
    window: Window
    x: TensorArg
    w: TensorArg
    channels: Dim
    pixels: tuple[Dim, ...]

    @property
    def tap_stride(self) -> Dim:
        """Elements of w from a tap to the next."""
        stride = collapse(self.w.shape[1:-1], self.w.strides[1:-1])
        assert stride is not None, self.w
        return stride

    def aligned_elements(self, limit: int) -> int:
        """Neighbouring elements of K, a power of two up to `limit`, that always are aligned neighbours of one tap of x."""
        x, w, d = self.x, self.window, self.gemm.dispatch
        if x.strides[-1] != 1:
            return 1
        steps = [known_multiple(self.channels, d)]
        if x.shape[0] != 1:
            steps.append(known_multiple(x.strides[0], d))
        for a in range(w.rank):
            moves = 1 if w.transposed else math.gcd(w.strides[a], w.pads[a], w.dilations[a] if w.kernel[a] > 1 else 0)
            steps.append(known_multiple(x.strides[a + 1], d) * moves)
        found = limit
        while found > 1 and (any(s % found for s in steps) or x.align % (found * x.type.bytes)):
            found //= 2
        return found


def conv_problem(dispatch: Dispatch) -> ConvProblem:
    """The products that a `conv` dispatch asks for.

    Raises NotImplementedError for weights whose taps have no one stride, and for regions that cannot be walked over merged
    axes.
    """
    x, w, result = dispatch.operands[0], dispatch.operands[1], dispatch.results[0]
    window = window_of(dispatch, w.shape[1:-1], x.shape[1:-1])
    groups = int(dispatch.attr("groups"))
    outputs, channels = result.shape[-1], x.shape[-1]
    if groups > 1:
        outputs, channels = dims.floordiv(outputs, groups), dims.floordiv(channels, groups)
    if window.transposed:
        dense = collapse(w.shape[1:-1], w.strides[1:-1]) is not None
    else:
        dense = collapse(w.shape[1:], w.strides[1:]) is not None
    if not dense:
        strides = [str(s) for s in w.strides]
        raise NotImplementedError(f"conv of weights with strides {strides}: they must be dense within a row")

    split = _split_channels(dispatch, groups, outputs) if groups > 1 else dispatch
    pixels = result.shape[:-1]
    rank = len(pixels)
    rows = tuple(range(rank))
    parts = ((rank,), rows, (rank + 1,)) if groups > 1 else ((), rows, (rank,))
    parted = parted_domain(split, split.results[0].shape, parts, streamed=())
    batch_sizes, row_axes, column_axes = parted.shapes
    assert column_axes == (outputs,), (column_axes, outputs)

    batch = len(batch_sizes)
    m, k = dims.product(pixels), window.taps * channels
    a = Matrix("operand", 0, x.dtype, m, k, k, 1, (channels,) * batch, x.align, x.type.bits)
    if window.transposed:
        line, element = w.strides[-1], w.strides[0]
        step = channels * w.strides[0]
    else:
        line, element = w.strides[0], collapse(w.shape[1:], w.strides[1:]) or 1
        step = outputs * w.strides[0]
    b = Matrix("operand", 1, w.dtype, outputs, k, line, element, (step,) * batch, w.align, w.type.bits)
    results = tuple(_matrix(i, t, batch) for i, t in enumerate(parted.dispatch.results))
    gemm = GemmProblem(
        parted.dispatch, batch_sizes, m, outputs, k, a, b, results, row_axes,
        str(dispatch.attr("acc", "f32")), bool(dispatch.attr("tf32", False)),
        (bool(dispatch.attr("a_unsigned", False)), bool(dispatch.attr("b_unsigned", False))),
        a_elements=dims.minimum(dims.product(x.shape[:-1]), m * window.taps) * channels,
        fast_accumulation=bool(dispatch.attr("fast_accumulation", False)),
    )  # fmt: skip
    window, channels = _fold_last_axis(x, window, channels, groups)
    return ConvProblem(gemm, window, x, w, channels, pixels)


def _matrix(index: int, t: TensorArg, batch: int) -> Matrix | None:
    """Result `index` as matrices behind `batch` axes, or None where its rows have no one stride."""
    stride = collapse(t.shape[batch:-1], t.strides[batch:-1])
    if stride is None:
        return None
    rows = dims.product(t.shape[batch:-1])
    return Matrix("result", index, t.dtype, rows, t.shape[-1], stride, t.strides[-1], t.strides[:batch], t.align, t.type.bits)


def _fold_last_axis(x: TensorArg, window: Window, channels: Dim, groups: int) -> tuple[Window, Dim]:
    """Window and channels with the kernel's last axis read as more channels, where that makes wider runs of memory.

    Neighbouring taps along the last axis are neighbours in memory if pixels are dense and no tap falls into padding: the
    patches of a vision transformer.
    """
    last = window.rank - 1
    foldable = (
        groups == 1 and isinstance(channels, int) and channels % 8 and window.kernel[last] > 1 and window.dilations[last] == 1
        and window.always_inside(last) and x.strides[-2] == channels and x.strides[-1] == 1
    )  # fmt: skip
    if not foldable:
        return window, channels
    return replace(window, kernel=(*window.kernel[:-1], 1)), window.kernel[last] * channels


def _split_channels(dispatch: Dispatch, groups: int, per_group: Dim) -> Dispatch:
    """The dispatch with the channel axis of its results, and of what its region loads, split by groups."""
    axis = dispatch.results[0].rank - 1

    def split(t: TensorArg) -> TensorArg:
        d, s = t.shape[-1], t.strides[-1]
        shape, strides = ((1, 1), (0, 0)) if d == 1 else ((groups, per_group), (s * per_group, s))
        return replace(t, shape=(*t.shape[:-1], *shape), strides=(*t.strides[:-1], *strides))

    loaded = {i.attr("operand") for r in dispatch.regions for i in r.insts if i.op == "load"}
    return replace(
        dispatch,
        operands=tuple(split(t) if i in loaded and t.rank else t for i, t in enumerate(dispatch.operands)),
        results=tuple(map(split, dispatch.results)),
        regions=tuple(_split_index(r, axis, per_group) if axis in uses_index(r) else r for r in dispatch.regions),
    )


def _split_index(region: ScalarRegion, axis: int, per_group: Dim) -> ScalarRegion:
    """The region with `index` of the channel axis computed from those of its two parts."""
    count = len(region.args)
    number = list(range(count))
    insts: list[ScalarInst] = []

    def add(inst: ScalarInst) -> int:
        insts.append(inst)
        return count + len(insts) - 1

    for inst in region.insts:
        if inst.op == "index" and inst.attr("axis") == axis:
            group = add(ScalarInst("index", (), "i64", (("axis", axis),)))
            if isinstance(per_group, int):
                size = add(ScalarInst("const", (), "i64", (("value", per_group),)))
            else:
                size = add(ScalarInst("dim", (), "i64", (("dim", str(per_group)),)))
            first = add(ScalarInst("muli", (group, size), "i64"))
            inner = add(ScalarInst("index", (), "i64", (("axis", axis + 1),)))
            number.append(add(ScalarInst("addi", (first, inner), "i64")))
        else:
            number.append(add(replace(inst, args=tuple(number[a] for a in inst.args))))
    return ScalarRegion(region.args, tuple(insts), tuple(number[r] for r in region.results))
