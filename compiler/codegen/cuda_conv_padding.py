"""Convolutions of few or odd channels: both operands are first copied with more channels, so that 16-byte chunks of k exist.

Tensor-core kernels gather k in aligned pieces. Where the channels of a pixel are no multiple of 8 bytes (an image's three),
elements would have to be gathered one by one for every window that meets them; copying x and w once with zeros added, into
the workspace, is cheaper. With an even stride along the last axis even the pixels of a kernel's row become one run: channels
are padded to 4, pixels at both ends of a row by the convolution's own padding, the kernel's row to an even length, and the
row is then read as channels (see `conv_problem`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ingot import dims
from ingot.compiler.codegen.cuda_kernel import DispatchKernel, dispatch_kernel, memory_type, symbol_of
from ingot.compiler.codegen.cuda_window import Window
from ingot.compiler.codegen.kernel_builder import KernelModule
from ingot.compiler.codegen.mma_table import find_row
from ingot.dims import Dim
from ingot.dispatch import Dispatch, TensorArg, contiguous
from ingot.kernel_plan import BufferArg, KernelLaunch, TensorMapArg
from ingot.target import Target

THREADS = 256
ALIGNMENT = 256  # bytes, of each copy in the workspace


@dataclass(frozen=True)
class PaddedConv:
    """A convolution over padded copies of its operands.

    Attributes:
        source: the convolution as it was.
        dispatch: the same over the copies.
        left: pixels added before each row of x.
    """

    source: Dispatch
    dispatch: Dispatch
    left: int

    def offsets(self, first: Dim) -> tuple[Dim, Dim]:
        """Bytes into the workspace of the copies of x and w, after `first` bytes of another's."""
        x = _aligned(first)
        return x, _aligned(x + _nbytes(self.dispatch.operands[0]))

    def workspace(self, first: Dim) -> Dim:
        """Bytes of workspace, `first` bytes of another's included."""
        return self.offsets(first)[1] + _nbytes(self.dispatch.operands[1])

    def redirect(self, launch: KernelLaunch, first: Dim) -> KernelLaunch:
        """The launch of a kernel of `dispatch`, reading operands 0 and 1 from the workspace."""
        offsets = self.offsets(first)

        def moved(b: BufferArg | TensorMapArg) -> BufferArg | TensorMapArg:
            if b.kind == "operand" and b.index < 2:
                return replace(b, kind="workspace", index=0, offset=offsets[b.index])
            return b

        return replace(launch, buffers=tuple(map(moved, launch.buffers)))


def _nbytes(t: TensorArg) -> Dim:
    return dims.product(t.shape) * t.type.bytes


def _aligned(d: Dim) -> Dim:
    return dims.ceildiv(d, ALIGNMENT) * ALIGNMENT


def pad_operands(dispatch: Dispatch, window: Window, target: Target) -> PaddedConv | None:
    """The convolution over padded operands, or None where they are to be read as they are."""
    x, w = dispatch.operands[:2]
    channels, groups = x.shape[-1], int(dispatch.attr("groups"))
    loaded = {i.attr("operand") for r in dispatch.regions for i in r.insts if i.op in ("load", "load_at")}
    if not isinstance(channels, int) or channels % 4 == 0 or groups > 1 or window.transposed or loaded & {0, 1}:
        return None
    if x.dtype != w.dtype or x.type.bits != 16 or find_row(target, x.dtype) is None:
        return None
    last = window.rank - 1
    stride, taps = window.strides[last], window.kernel[last]
    pads = list(window.pads)
    left = 0
    row, kernel_row = x.shape[-2], taps
    if channels <= 4 and stride % 2 == 0 and window.dilations[last] == 1 and taps > 1:
        padded, left = 4, pads[last]
        kernel_row = taps + taps % 2
        row = (dispatch.results[0].shape[-2] - 1) * stride + kernel_row
        pads[last] = pads[last + window.rank] = 0
    else:
        padded = -(-channels // 8) * 8
    # The name keeps the kernel apart from that of a convolution which has these operands by itself.
    attrs = {**dict(dispatch.attrs), "pads": tuple(pads), "padded": True}
    operands = (
        contiguous(x.dtype, *x.shape[:-2], row, padded, align=ALIGNMENT),
        contiguous(w.dtype, *w.shape[:-2], kernel_row, padded, align=ALIGNMENT),
        *dispatch.operands[2:],
    )
    return PaddedConv(dispatch, replace(dispatch, operands=operands, attrs=tuple(sorted(attrs.items()))), left)


def emit_padding(module: KernelModule, p: PaddedConv, first: Dim) -> list[KernelLaunch]:
    """Write the kernels that copy x and w; their launches."""
    launches = []
    for index, (offset, name, left) in enumerate(zip(p.offsets(first), ("_x", "_w"), (p.left, 0), strict=True)):
        t = p.dispatch.operands[index]
        pixels = dims.product(t.shape[:-1])
        launch = KernelLaunch(
            symbol_of(p.source, name), (dims.ceildiv(pixels, THREADS), 1, 1),
            (BufferArg("operand", index), BufferArg("workspace", 0, offset)), (THREADS, 1, 1), bytes=2 * _nbytes(t),
        )  # fmt: skip
        with dispatch_kernel(module, p.source, launch) as dk:
            _copy(dk, index, t.shape, left)
        launches.append(launch)
    return launches


def _copy(dk: DispatchKernel, index: int, shape: Sequence[Dim], left: int) -> None:
    """A thread copies one pixel of operand `index` to a contiguous tensor of `shape`; rows begin `left` pixels earlier."""
    k, t = dk.k, dk.d.operands[index]
    wide = "i64" if dk.index_type(t) == "i64" else "i32"
    pixel = k.cast(k.block_id(), wide) * THREADS + k.cast(k.thread_id(), wide)
    with k.if_(pixel < dk.size(dims.product(shape[:-1]), wide)):
        position = dk.split(pixel, shape[:-1])
        column = position[-1] - left
        inside = (column >= 0) & (column < dk.size(t.shape[-2], wide))
        place = [*position[:-1], k.select(inside, column, 0)]
        name = memory_type(t.dtype)
        zero = k.const(0, name)
        channels, padded = t.shape[-1], shape[-1]
        assert isinstance(channels, int), t
        assert isinstance(padded, int), shape
        values = []
        for c in range(padded):
            if c < channels:
                x = k.load(dk.address("operand", index, [*place, k.const(c, wide)]), name)
                values.append(k.select(inside, x, zero))
            else:
                values.append(zero)
        line = dk.pointer("workspace").at(pixel * padded, name)
        step = min(padded, 16 // t.type.bytes)
        for c in range(0, padded, step):
            k.store(k.vector(values[c : c + step]), line.at(c, name), align=step * t.type.bytes)
