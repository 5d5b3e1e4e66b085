"""Rules for Fourier transforms and what surrounds them."""

from __future__ import annotations

from dataclasses import dataclass

from ingot import dims
from ingot.dims import Dim
from ingot.dtypes import ONNX_TYPE_BY_CODE
from ingot.passes.onnx_inference.rules import Node, rule
from ingot.passes.onnx_inference.tensors import Tensor

LONGEST = 4096  # transforms are products with a matrix of this many rows at most


@dataclass(frozen=True)
class Transform:
    """A discrete Fourier transform.

    Attributes:
        length: of the transform.
        given: elements that it reads; others are 0.
        made: elements that it gives.
        components: of an element that is read, and of one that is given: 1 (real) or 2.
    """

    length: int
    given: int
    made: int
    components: tuple[int, int]
    inverse: bool

    @classmethod
    def of(cls, node: Node, length: Dim, size: Dim, components: Dim, *, inverse: bool, onesided: bool) -> Transform:
        """Check the sizes: of the transform, of the axis, and of the last axis, which holds real and imaginary parts."""
        if not isinstance(length, int) or not isinstance(size, int):
            raise node.fail(f"a transform of length {length} of {size} elements is not supported", "make both constant")
        if not 0 < length <= LONGEST:
            raise node.fail(f"a transform of length {length} is not supported", f"use at most {LONGEST}")
        if components not in (1, 2):
            raise node.fail(f"the last axis has size {components}", "give real (1) or real and imaginary parts (2)")
        half = length // 2 + 1
        if inverse and onesided:
            return cls(length, min(size, half), length, (components, 1), True)
        return cls(length, min(size, length), half if onesided else length, (components, 2), inverse)


def dft(node: Node) -> tuple[int, Transform]:
    """The axis of a DFT, and what it does along it."""
    x = node.input(0)
    (axis,) = node.ints(2) if node.has(2) else (-2,)
    axis = node.axis(axis, x.rank)
    if axis == x.rank - 1:
        raise node.fail("the last axis holds real and imaginary parts", "correct the input axis")
    inverse, onesided = bool(node.attr("inverse")), bool(node.attr("onesided"))
    length: Dim = 2 * (x.shape[axis] - 1) if inverse and onesided else x.shape[axis]
    if node.has(1):
        (length,) = node.ints(1)
    return axis, Transform.of(node, length, x.shape[axis], x.shape[-1], inverse=inverse, onesided=onesided)


@rule("DFT")
def _dft(node: Node) -> Tensor:
    x = node.input(0)
    axis, transform = dft(node)
    shape = list(x.shape)
    shape[axis], shape[-1] = transform.made, transform.components[1]
    return Tensor(x.type, tuple(shape))


def stft(node: Node) -> tuple[int, Transform, Dim]:
    """The step of an STFT, the transform of each frame, and the number of frames."""
    x = node.input(0)
    (step,) = node.ints(1)
    length: Dim = x.shape[1]
    if node.has(3):
        (length,) = node.ints(3)
    elif node.has(2):
        length = node.input(2).shape[0]
    components = x.shape[2] if x.rank == 3 else 1
    transform = Transform.of(node, length, length, components, inverse=False, onesided=bool(node.attr("onesided")))
    if step < 1:
        raise node.fail(f"frame_step is {step}", "correct the model")
    if node.has(2):
        node.equal(node.input(2).shape[0], transform.length, "the window is not as long as a frame")
    node.at_most(transform.length, x.shape[1], "the signal is shorter than a frame")
    return step, transform, dims.floordiv(x.shape[1] - transform.length, step) + 1


@rule("STFT")
def _stft(node: Node) -> Tensor:
    x = node.input(0)
    _, transform, frames = stft(node)
    return Tensor(x.type, (x.shape[0], frames, transform.made, 2))


@rule("MelWeightMatrix")
def _mel_weight_matrix(node: Node) -> Tensor:
    bins, length, *_ = (node.element(i, constant=True) for i in range(5))
    return Tensor(ONNX_TYPE_BY_CODE[node.attr("output_datatype")], (length // 2 + 1, bins))
