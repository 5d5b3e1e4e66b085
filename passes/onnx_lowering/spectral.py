"""Fourier transforms: products with the matrix of the transform, and convolutions where they slide along a signal."""

from __future__ import annotations

import numpy as np

from ingot import dims
from ingot.dtypes import onnx_numpy
from ingot.passes.onnx_inference.spectral import Transform, dft, stft
from ingot.passes.onnx_lowering.lowering import Lowering, lowering
from ingot.passes.onnx_lowering.region_builder import computing_type
from ingot.passes.onnx_lowering.values import Source
from ingot.passes.onnx_lowering.windows import convolution_attributes


def transform_matrix(t: Transform) -> np.ndarray:
    """M [given, components, made, components] of a transform: y[k, d] is the sum over l and c of x[l, c] * M[l, c, k, d]."""
    l, k = np.arange(t.given)[:, None], np.arange(t.made)[None, :]  # noqa: E741
    angle = 2 * np.pi * ((l * k) % t.length) / t.length  # reduced as integers
    sign = 1.0 if t.inverse else -1.0
    real, imaginary = np.cos(angle), sign * np.sin(angle)
    if t.inverse:
        real, imaginary = real / t.length, imaginary / t.length
    if t.components[1] == 1:
        # What is left out is the conjugate of what is there, but for the ends.
        weight = np.where((l == 0) | (2 * l == t.length), 1.0, 2.0)
        real, imaginary = real * weight, imaginary * weight
    of_real = np.stack([real, imaginary], -1)
    of_imaginary = np.stack([-imaginary, real], -1)
    return np.stack([of_real, of_imaginary][: t.components[0]], 1)[..., : t.components[1]]


@lowering("DFT")
def _dft(low: Lowering) -> Source:
    x = low.tensor(0)
    axis, t = dft(low.node)
    rest = [i for i in range(x.rank - 1) if i != axis]
    read = low.build.slice_axis(x, axis, 0, t.given)
    rows = low.build.transpose(read, [*rest, axis, x.rank - 1])
    lead = rows.shape[:-2]
    flat = low.build.reshaped(rows, (dims.product(lead), t.given * t.components[0]))
    matrix = transform_matrix(t).reshape(t.given * t.components[0], -1)
    weights = low.build.array(matrix.astype(onnx_numpy(x.type)), x.type)
    y = low.build.matmul(flat, weights, (flat.shape[0], matrix.shape[1]), x.type)
    y = low.build.reshaped(y, (*lead, t.made, t.components[1]))
    order = [*rest, axis, x.rank - 1]
    return low.build.transpose(y, [order.index(i) for i in range(x.rank)])


@lowering("STFT")
def _stft(low: Lowering) -> Source:
    """A convolution of the signal [B, L, 1 or 2], channels last, with the windowed rows of the transform."""
    x, window = low.tensor(0), low.optional(2)
    if x.rank == 2:
        x = low.build.reshaped(x, (*x.shape, 1))
    step, t, frames = stft(low.node)
    matrix = transform_matrix(t).transpose(2, 3, 0, 1).reshape(-1, t.length, t.components[0])
    filters = low.build.array(matrix.astype(onnx_numpy(x.type)), x.type)
    if window is not None:
        plain = filters
        aligned = low.build.reshape(window, (t.length, 1))
        filters = low.build.pointwise(x.type, plain.shape, lambda b: b.mulf(b.load(plain), b.load(aligned)))
    tensors = [x.value, filters.value]
    acc = computing_type(x.type.storage)
    region = low.build.region(tensors, [acc])
    regions = [region.finish(region.store(region.arg(), x.type))]
    attrs = convolution_attributes(acc, [step], [1], [0, 0], 1)
    y = low.build.root("conv", tensors[:2], x.type, (x.shape[0], frames, filters.shape[0]), attrs, regions, tensors)
    return low.build.reshape(y, low.shape)


@lowering("MelWeightMatrix")
def _mel_weight_matrix(low: Lowering) -> Source:
    """Triangles over the bins of a transform, at equal distances in mels."""
    count, length, rate, lowest, highest = (low.node.element(i, constant=True) for i in range(5))
    ends = [2595 * np.log10(1 + hertz / 700) for hertz in (lowest, highest)]
    mels = ends[0] + np.arange(count + 2) * (ends[1] - ends[0]) / (count + 2)
    edges = (((length + 1) * 700 * (10 ** (mels / 2595) - 1)) // rate).astype(int)
    matrix = np.zeros((length // 2 + 1, count))
    for i in range(count):
        left, center, right = edges[i : i + 3]
        matrix[left : center + 1, i] = np.arange(center + 1 - left) / (center - left) if center > left else 1.0
        if right > center:
            matrix[center:right, i] = (right - np.arange(center, right)) / (right - center)
    return low.build.array(matrix.astype(onnx_numpy(low.type)), low.type)
