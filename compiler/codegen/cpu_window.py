"""Sliding windows over channels-last tensors: the geometry that conv and pool share on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ingot.compiler.codegen.cpu_kernel import CpuKernel
from ingot.compiler.codegen.values import Val
from ingot.dims import Dim
from ingot.dispatch import Dispatch


@dataclass(frozen=True)
class Window:
    """The window of a conv or pool over spatial axes.

    Attributes:
        kernel: positions along each spatial axis.
        strides, dilations, pads: as in ONNX; of `pads` the beginnings only (the ends follow from the output's sizes).
        size: spatial sizes of the tensor read.
        transposed: True where output position o reads (o + pad - tap * dilation) / stride, where that is whole.
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

    def first(self, ck: CpuKernel, axis: int, out: Val) -> Val:
        """Where the window of output position `out` begins along an axis; before 0 inside the padding."""
        if self.transposed:
            return out + self.pads[axis]
        return out * self.strides[axis] - self.pads[axis]

    def source(self, ck: CpuKernel, axis: int, first: Val, tap: Val | int) -> tuple[Val, Val]:
        """The position that a tap reads along an axis, and whether it exists (i1)."""
        k = ck.k
        reach = k.value(tap, "i64") * self.dilations[axis]
        size = ck.dim(self.size[axis])
        if not self.transposed:
            at = first + reach
            return at, at.ult(size)
        at, stride = first - reach, self.strides[axis]
        if stride == 1:
            return at, at.ult(size)
        position = at.sdiv(stride)
        return position, (position * stride).eq(at) & position.ult(size)

    def is_pointwise(self) -> bool:
        """True where every output position reads the one input position of the same number."""
        ones = (1,) * self.rank
        return not self.transposed and self.kernel == ones and self.strides == ones and not any(self.pads)


def window_of(dispatch: Dispatch, kernel: Sequence[Dim], size: Sequence[Dim]) -> Window:
    """The window of a dispatch's attributes. Raises NotImplementedError for a kernel whose size is not constant."""
    fixed = tuple(k for k in kernel if isinstance(k, int))
    if len(fixed) != len(kernel):
        raise NotImplementedError(f"{dispatch.root} on cpu needs a kernel of constant size, not {[str(k) for k in kernel]}")
    rank = len(fixed)

    def numbers(name: str) -> tuple[int, ...]:
        return tuple(int(x) for x in dispatch.attr(name))

    return Window(fixed, numbers("strides"), numbers("dilations"), numbers("pads")[:rank], tuple(size),
                  bool(dispatch.attr("transposed", False)))  # fmt: skip
