"""Rules for matrix products, convolutions, pools, normalizations and reductions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ingot import dims
from ingot.dims import Dim
from ingot.dtypes import ONNX_TYPE_BY_CODE, OnnxType
from ingot.passes.onnx_inference import elementwise
from ingot.passes.onnx_inference.rules import Node, rule
from ingot.passes.onnx_inference.tensors import FLOAT, INT64, Tensor, with_value


def matmul_shape(node: Node, a: tuple[Dim, ...], b: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """numpy.matmul's result shape."""
    if not a or not b:
        raise node.fail("a scalar has no matrix product", "correct the model")
    left = (1, *a) if len(a) == 1 else a
    right = (*b, 1) if len(b) == 1 else b
    node.equal(left[-1], right[-2], f"inner sizes {left[-1]} and {right[-2]} differ")
    lead = node.broadcast(left[:-2], right[:-2])
    rows = () if len(a) == 1 else (left[-2],)
    columns = () if len(b) == 1 else (right[-1],)
    return (*lead, *rows, *columns)


@rule("MatMul")
def _matmul(node: Node) -> Tensor:
    a, b = node.input(0), node.input(1)
    if a.type != b.type:
        raise node.fail(f"its inputs have different element types: {a.type.name}, {b.type.name}", "insert a Cast")
    return Tensor(a.type, matmul_shape(node, a.shape, b.shape))


@rule("com.microsoft.FusedMatMul")
def _fused_matmul(node: Node) -> Tensor:
    a, b = node.input(0), node.input(1)
    shapes = []
    for x, flag in ((a, node.attr("transA")), (b, node.attr("transB"))):
        shapes.append((*x.shape[:-2], x.shape[-1], x.shape[-2]) if flag and x.rank > 1 else x.shape)
    return Tensor(a.type, matmul_shape(node, *shapes))


@rule("Gemm")
def _gemm(node: Node) -> Tensor:
    a, b = node.input(0), node.input(1)
    if a.rank != 2 or b.rank != 2:
        raise node.fail(f"operands of rank {a.rank} and {b.rank} are no matrices", "correct the model")
    m, k = a.shape[::-1] if node.attr("transA") else a.shape
    l, n = b.shape[::-1] if node.attr("transB") else b.shape  # noqa: E741
    node.equal(k, l, f"inner sizes {k} and {l} differ")
    if node.has(2):
        node.broadcast((m, n), node.input(2).shape)
    return Tensor(a.type, (m, n))


@rule("Einsum")
def _einsum(node: Node) -> Tensor:
    from ingot.passes.onnx_inference.einsum import parse_equation

    inputs = [node.input(i) for i in range(len(node.inputs))]
    try:
        equation = parse_equation(node.attr("equation"), [x.rank for x in inputs])
    except ValueError as e:
        raise node.fail(str(e), "correct the attribute equation") from None
    sizes: dict[str, Dim] = {}
    for x, labels in zip(inputs, equation.operands, strict=True):
        for label, d in zip(labels, x.shape, strict=True):
            sizes[label] = node.broadcast((sizes[label],), (d,))[0] if label in sizes else d
    return Tensor(inputs[0].type, tuple(sizes[label] for label in equation.result))


# Windows --------------------------------------------------------------------------------------------------------------


def window_attributes(node: Node, kernel: list[int]) -> tuple[list[int], list[int]]:
    """(strides, dilations) with their defaults."""
    n = len(kernel)
    strides, dilations = node.attr("strides"), node.attr("dilations")
    return (list(strides) if strides is not None else [1] * n), (list(dilations) if dilations is not None else [1] * n)


def window_pads(node: Node, spatial: tuple[Dim, ...], kernel: list[int]) -> list[Dim]:
    """All beginnings, then all ends; of `auto_pad` as shape expressions."""
    n = len(kernel)
    strides, dilations = window_attributes(node, kernel)
    mode = _auto_pad(node)
    if mode in ("NOTSET", "VALID"):
        pads = node.attr("pads") if mode == "NOTSET" else None
        return list(pads) if pads is not None else [0] * (2 * n)
    begin: list[Dim] = []
    end: list[Dim] = []
    for d, k, s, l in zip(spatial, kernel, strides, dilations, strict=True):  # noqa: E741
        need = (dims.ceildiv(d, s) - 1) * s + l * (k - 1) + 1 - d
        total = need if dims.is_nonnegative(need) else dims.maximum(need, 0)
        small = dims.floordiv(total, 2)
        begin.append(total - small if mode == "SAME_LOWER" else small)
        end.append(small if mode == "SAME_LOWER" else total - small)
    return begin + end


def _auto_pad(node: Node) -> str:
    return "NOTSET" if node.op == "DeformConv" else node.attr("auto_pad") or "NOTSET"


def window_sizes(node: Node, spatial: tuple[Dim, ...], kernel: list[int]) -> tuple[Dim, ...]:
    """The spatial sizes of a convolution's or pool's result (ONNX, Conv and MaxPool)."""
    strides, dilations = window_attributes(node, kernel)
    pads = window_pads(node, spatial, kernel)
    n = len(kernel)
    if not len(spatial) == len(strides) == len(dilations) == n or len(pads) != 2 * n:
        message = f"kernel_shape, strides, dilations or pads do not fit {len(spatial)} spatial axes"
        raise node.fail(message, "correct the attributes")
    if _auto_pad(node) in ("SAME_UPPER", "SAME_LOWER"):
        return tuple(dims.ceildiv(d, s) for d, s in zip(spatial, strides, strict=True))
    ceil = node.op in _POOLS and node.attr("ceil_mode")
    out: list[Dim] = []
    for i, (d, k, s, l) in enumerate(zip(spatial, kernel, strides, dilations, strict=True)):  # noqa: E741
        room = d + pads[i] + pads[i + n] - l * (k - 1) - 1
        if isinstance(room, int) and room < 0:
            raise node.fail(f"a window of {l * (k - 1) + 1} does not fit size {d} with its padding", "enlarge the input")
        if ceil:
            # A last window must start inside the input or its padding at the beginning.
            out.append(dims.minimum(dims.ceildiv(room, s) + 1, dims.floordiv(d + pads[i] - 1, s) + 1))
        else:
            out.append(dims.floordiv(room, s) + 1)
    return tuple(out)


_POOLS = frozenset({"MaxPool", "AveragePool", "LpPool", "com.microsoft.QLinearAveragePool"})


def conv_shape(node: Node, x: Tensor, w: Tensor) -> tuple[Dim, ...]:
    """The sizes of the convolution of x [N, C, spatial...] with w [M, C / groups, kernel...]."""
    kernel = [k for k in w.shape[2:] if isinstance(k, int)]
    if len(kernel) != w.rank - 2 or x.rank != w.rank or x.rank < 3:
        raise node.fail(f"operands of shapes [{', '.join(map(str, x.shape))}] and [{', '.join(map(str, w.shape))}] do not fit",
                        "correct the model; kernels must have constant sizes")  # fmt: skip
    node.equal(x.shape[1], w.shape[1] * node.attr("group"), "channels differ from the weight's times groups")
    return (x.shape[0], w.shape[0], *window_sizes(node, x.shape[2:], kernel))


@rule("Conv")
def _conv(node: Node) -> Tensor:
    x = node.input(0)
    return Tensor(x.type, conv_shape(node, x, node.input(1)))


@rule("ConvTranspose")
def _conv_transpose(node: Node) -> Tensor:
    x, w = node.input(0), node.input(1)
    kernel = [k for k in w.shape[2:] if isinstance(k, int)]
    if len(kernel) != w.rank - 2 or x.rank != w.rank:
        raise node.fail("kernels must have constant sizes and the input's rank", "correct the model")
    sizes, _ = transposed_window(node, x.shape[2:], kernel)
    return Tensor(x.type, (x.shape[0], w.shape[1] * node.attr("group"), *sizes))


def transposed_window(node: Node, spatial: tuple[Dim, ...], kernel: list[int]) -> tuple[tuple[Dim, ...], list[int]]:
    """The spatial sizes of a transposed convolution's result, and its pads: all beginnings, then all ends."""
    n = len(kernel)
    strides, dilations = window_attributes(node, kernel)
    extra = list(node.attr("output_padding") or [0] * n)
    pads = list(node.attr("pads") or [0] * (2 * n))
    mode = node.attr("auto_pad") or "NOTSET"
    wanted = node.attr("output_shape")
    if wanted is None and mode.startswith("SAME"):
        wanted = [d * s for d, s in zip(spatial, strides, strict=True)]
    if mode == "VALID":
        pads = [0] * (2 * n)
    out: list[Dim] = []
    for i, (d, k, s, l) in enumerate(zip(spatial, kernel, strides, dilations, strict=True)):  # noqa: E741
        full = s * (d - 1) + extra[i] + (k - 1) * l + 1
        if wanted is None:
            out.append(full - pads[i] - pads[i + n])
            continue
        total = full - wanted[i]
        if not isinstance(total, int):
            raise node.fail(f"output_shape {wanted} for a size {d} that is not constant", "give pads instead")
        total = max(total, 0)
        small = total // 2
        pads[i], pads[i + n] = (small, total - small) if mode == "SAME_UPPER" else (total - small, small)
        out.append(wanted[i])
    return tuple(out), pads


@rule("MaxPool")
def _max_pool(node: Node) -> list[Tensor]:
    x = node.input(0)
    shape = (*x.shape[:2], *window_sizes(node, x.shape[2:], list(node.attr("kernel_shape"))))
    return [Tensor(x.type, shape), Tensor(INT64, shape)]


@rule("AveragePool", "LpPool")
def _pool(node: Node) -> Tensor:
    x = node.input(0)
    return Tensor(x.type, (*x.shape[:2], *window_sizes(node, x.shape[2:], list(node.attr("kernel_shape")))))


@rule("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(node: Node) -> Tensor:
    x = node.input(0)
    return Tensor(x.type, (*x.shape[:2], *(1 for _ in x.shape[2:])))


# Normalizations -------------------------------------------------------------------------------------------------------


@rule("LayerNormalization", "SimplifiedLayerNormalization")
def _layer_normalization(node: Node) -> list[Tensor]:
    x = node.input(0)
    axis = node.axis(node.attr("axis"), x.rank)
    for i in (1, 2):
        if node.has(i):
            node.broadcast(x.shape, node.input(i).shape)
    statistics = Tensor(ONNX_TYPE_BY_CODE[node.attr("stash_type")], (*x.shape[:axis], *(1 for _ in x.shape[axis:])))
    return [Tensor(x.type, x.shape), statistics, statistics]


@rule("RMSNormalization")
def _rms_normalization(node: Node) -> Tensor:
    x = node.input(0)
    node.axis(node.attr("axis"), x.rank)
    node.broadcast(x.shape, node.input(1).shape)
    return Tensor(x.type, x.shape)


@rule("InstanceNormalization", "GroupNormalization")
def _channel_normalization(node: Node) -> Tensor:
    x = node.input(0)
    for i in (1, 2):
        node.equal(node.input(i).shape[0], x.shape[1], f"input {i} does not have one element a channel")
    return Tensor(x.type, x.shape)


@rule("BatchNormalization")
def _batch_normalization(node: Node) -> list[Tensor]:
    x = node.input(0)
    if node.attr("training_mode"):
        raise node.fail("training_mode=1 is not supported", "export the model for inference")
    for i in (1, 2, 3, 4):
        node.equal(node.input(i).shape[0], x.shape[1], f"input {i} does not have one element a channel")
    return [Tensor(x.type, x.shape)]


@rule("Dropout")
def _dropout(node: Node) -> list[Tensor]:
    x = node.input(0)
    if node.has(2) and node.element(2, constant=True) is not False:
        raise node.fail("training_mode=1 is not supported", "export the model for inference")
    mask = Tensor(ONNX_TYPE_BY_CODE[9], x.shape)
    return [x, mask]


@rule("com.microsoft.SkipLayerNormalization", "com.microsoft.SkipSimplifiedLayerNormalization")
def _skip_normalization(node: Node) -> list[Tensor]:
    x = node.input(0)
    node.broadcast(x.shape, node.input(1).shape)
    statistics = Tensor(FLOAT, (*x.shape[:-1], 1))
    y = Tensor(x.type, x.shape)
    return [y, statistics, statistics, y]


# Reductions -----------------------------------------------------------------------------------------------------------

_FOLDS: dict[str, Callable[[Any, Any], Any]] = {
    "ReduceSum": elementwise.add,
    "ReduceProd": elementwise.multiply,
    "ReduceMax": lambda a, b: max(a, b) if isinstance(a, float) else dims.maximum(a, b),
    "ReduceMin": lambda a, b: min(a, b) if isinstance(a, float) else dims.minimum(a, b),
}


def reduced_axes(node: Node, rank: int) -> list[int]:
    """The axes that a Reduce* node reduces, in order; none where it does nothing."""
    axes = node.axes(1, rank)
    if not axes:
        return [] if node.attr("noop_with_empty_axes") else list(range(rank))
    return sorted(set(axes))


@rule(
    "ReduceSum", "ReduceProd", "ReduceMax", "ReduceMin", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare",
    "ReduceLogSum", "ReduceLogSumExp",
)  # fmt: skip
def _reduce(node: Node) -> Tensor:
    x = node.input(0)
    axes = reduced_axes(node, x.rank)
    keep = bool(node.attr("keepdims"))
    shape = tuple(1 if i in axes else d for i, d in enumerate(x.shape) if keep or i not in axes)
    fold = _FOLDS.get(node.op)
    if fold is None or x.value is None or not x.value.size:
        return Tensor(x.type, shape)
    value = _folded(x.value, axes, fold, x.type)
    return with_value(x.type, value.reshape([d for d in shape if isinstance(d, int)]))


def _folded(value: np.ndarray, axes: list[int], fold: Callable[[Any, Any], Any], type: OnnxType) -> np.ndarray:
    kept = [i for i in range(value.ndim) if i not in axes]
    rows = value.transpose([*kept, *axes]).reshape(math.prod(value.shape[i] for i in kept), -1)
    out = np.empty(len(rows), object)
    for i, row in enumerate(rows.tolist()):
        total = row[0]
        for e in row[1:]:
            total = None if total is None or e is None or isinstance(total, float) != isinstance(e, float) else fold(total, e)
        out[i] = total
    return out
