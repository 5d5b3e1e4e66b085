"""Sliding windows over channels-last tensors on NVIDIA GPUs: where taps read, and whether they exist.

Positions along the spatial axes are i32; offsets are elements from the tensor's first, i32 where its span allows. A window
is read in two parts, so that a kernel can keep one part while the other changes: a `WindowRow` belongs to an output
position, a `Reach` to a tap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ingot.compiler.codegen.cuda_kernel import DispatchKernel
from ingot.compiler.codegen.values import Operand, Val
from ingot.dims import Dim
from ingot.dispatch import Dispatch, TensorArg

ABSENT = 1 << 29  # a position that no tensor has, and that stays out of range when a tap moves it


@dataclass(frozen=True)
class Window:
    """The window of a conv or pool.

    Attributes:
        kernel: taps along each spatial axis.
        strides, dilations: as in ONNX.
        pads: all beginnings, then all ends.
        size: spatial sizes of the tensor read.
        transposed: output position o reads (o + pad - tap * dilation) / stride, where that is whole.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    size: tuple[Dim, ...]
    transposed: bool = False

    @property
    def rank(self) -> int:
        return len(self.kernel)

    @property
    def taps(self) -> int:
        """Taps of the whole window."""
        count = 1
        for n in self.kernel:
            count *= n
        return count

    def always_inside(self, axis: int) -> bool:
        """True where every tap of every window of a convolution lies in the tensor along an axis."""
        return not self.transposed and self.pads[axis] == 0 and self.pads[axis + self.rank] == 0

    @property
    def is_pointwise(self) -> bool:
        """True where every output position reads the one input position of the same number."""
        return not self.transposed and self.taps == 1 and set(self.strides) <= {1} and not any(self.pads)


def window_of(dispatch: Dispatch, kernel: Sequence[Dim], size: Sequence[Dim]) -> Window:
    """The window that a dispatch's attributes describe. Raises NotImplementedError for a kernel whose size is not constant."""
    fixed = tuple(n for n in kernel if isinstance(n, int))
    if len(fixed) != len(kernel):
        raise NotImplementedError(f"{dispatch.root} with a kernel of sizes {[str(n) for n in kernel]}: they must be constant")

    def numbers(name: str) -> tuple[int, ...]:
        return tuple(int(x) for x in dispatch.attr(name))

    strides, dilations, pads = numbers("strides"), numbers("dilations"), numbers("pads")
    if not len(fixed) == len(strides) == len(dilations) == len(pads) // 2:
        raise ValueError(f"{dispatch.root} over {len(fixed)} axes has strides {strides}, dilations {dilations}, pads {pads}")
    return Window(fixed, strides, dilations, pads, tuple(size), bool(dispatch.attr("transposed", False)))


@dataclass(frozen=True)
class WindowRow:
    """An output position: the offset of its window's origin (of a transposed one, of its image), and the origin's positions."""

    offset: Val
    first: tuple[Val, ...]


@dataclass(frozen=True)
class Reach:
    """A tap and channel: how far it lies from the window's origin; `valid` is None where it certainly exists."""

    offset: Val
    steps: tuple[Val, ...]
    valid: Val | None


class WindowReader:
    """Finds what taps read.

    Args:
        dk: the kernel.
        x: the tensor [N, spatial..., C].
        window: the window.
        partial_rows: rows may be absent.
        overhanging: positions beyond the output's end are asked for, so that no axis is safe.
    """

    def __init__(
        self, dk: DispatchKernel, x: TensorArg, window: Window, partial_rows: bool = False, overhanging: bool = False
    ) -> None:
        self.dk, self.k, self.x, self.window = dk, dk.k, x, window
        self.wide = dk.index_type(x)
        self.checked = [a for a in range(window.rank) if overhanging or not window.always_inside(a)]
        if partial_rows and 0 not in self.checked:
            self.checked.insert(0, 0)

    def _stride(self, axis: int) -> Val:
        return self.dk.size(self.x.strides[axis], self.wide)

    def row(self, position: Sequence[Operand], valid: Val | None = None, channel: Operand = 0) -> WindowRow:
        """The window of output position [n, spatial...]; `channel` is added to every tap's. Absent where not `valid`."""
        k, w = self.k, self.window
        n, *out = (k.value(p, "i32") for p in position)
        if w.transposed:
            first = [o + w.pads[a] for a, o in enumerate(out)]
        else:
            first = [o * w.strides[a] - w.pads[a] for a, o in enumerate(out)]
        offset = k.cast(n, self.wide) * self._stride(0)
        offset = offset + k.cast(k.value(channel, "i32"), self.wide) * self._stride(self.x.rank - 1)
        if not w.transposed:
            for a, p in enumerate(first):
                offset = offset + k.cast(p, self.wide) * self._stride(a + 1)
        if valid is not None:
            first[0] = k.select(valid, first[0], -ABSENT if w.transposed else ABSENT)
        return WindowRow(offset, tuple(first))

    def reach(self, tap: Operand, channel: Operand, valid: Val | None = None) -> Reach:
        """A tap by its row-major number, and a channel of it; absent where not `valid`."""
        k, w = self.k, self.window
        rest, steps = k.value(tap, "i32"), []
        for a in reversed(range(w.rank)):
            if a:
                quotient = rest // w.kernel[a]
                rest, at = quotient, rest - quotient * w.kernel[a]
            else:
                at = rest
            steps.append(at * w.dilations[a])
        return self.at(steps[::-1], channel, valid)

    def at(self, steps: Sequence[Operand], channel: Operand = 0, valid: Val | None = None) -> Reach:
        """What lies `steps` from a window's origin along the spatial axes."""
        k, w = self.k, self.window
        moves = tuple(k.value(s, "i32") for s in steps)
        offset = k.cast(k.value(channel, "i32"), self.wide) * self._stride(self.x.rank - 1)
        if not w.transposed:
            for a, s in enumerate(moves):
                offset = offset + k.cast(s, self.wide) * self._stride(a + 1)
        return Reach(offset, moves, valid)

    def element(self, row: WindowRow, reach: Reach) -> tuple[Val, Val | None]:
        """(offset, whether it exists or None for always) of a tap of a row. The offset of what does not exist is arbitrary."""
        k, w = self.k, self.window
        offset, valid = row.offset + reach.offset, reach.valid
        for a, (first, step) in enumerate(zip(row.first, reach.steps, strict=True)):
            size = self.dk.size(w.size[a], "i32")
            if not w.transposed:
                ok = (first + step).ult(size) if a in self.checked else None
            else:
                at = first - step
                position = at.sdiv(w.strides[a]) if w.strides[a] > 1 else at
                ok = (at >= 0) & (position < size)
                if w.strides[a] > 1:
                    ok = ok & (position * w.strides[a]).eq(at)
                offset = offset + k.cast(position, self.wide) * self._stride(a + 1)
            if ok is not None:
                valid = ok if valid is None else valid & ok
        return offset, valid
