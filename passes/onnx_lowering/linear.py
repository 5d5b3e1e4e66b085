"""Matrix products."""

from __future__ import annotations

from collections.abc import Callable

from ingot import dims
from ingot.dims import Dim
from ingot.passes.onnx_inference.einsum import parse_equation
from ingot.passes.onnx_lowering.elementwise import add, multiply
from ingot.passes.onnx_lowering.lowering import Lowering, lowering
from ingot.passes.onnx_lowering.region_builder import RegionBuilder, Scalar
from ingot.passes.onnx_lowering.values import Source, TypedValue

Epilogue = Callable[[RegionBuilder, Scalar], Scalar]


def matmul(low: Lowering, a: TypedValue, b: TypedValue, shape: tuple[Dim, ...], epilogue: Epilogue | None = None) -> Source:
    """numpy.matmul, whose result has `shape`."""
    left = low.build.reshaped(a, (1, *a.shape)) if a.rank == 1 else a
    right = low.build.reshaped(b, (*b.shape, 1)) if b.rank == 1 else b
    full = shape
    if a.rank == 1 or b.rank == 1:
        lead = shape[: len(shape) - (a.rank > 1) - (b.rank > 1)]
        full = (*lead, left.shape[-2], right.shape[-1])
    return low.build.reshape(low.build.matmul(left, right, full, low.type, epilogue), shape)


@lowering("MatMul")
def _matmul(low: Lowering) -> Source:
    return matmul(low, low.tensor(0), low.tensor(1), low.shape)


def swapped(low: Lowering, x: TypedValue) -> TypedValue:
    """x with its last two axes exchanged."""
    axes = list(range(x.rank))
    return low.build.transpose(x, [*axes[:-2], axes[-1], axes[-2]])


def scaled(factor: float) -> Epilogue | None:
    """An epilogue that multiplies by a constant; None for 1."""
    return None if factor == 1.0 else lambda b, x: multiply(b, x, b.like(factor, x))


@lowering("com.microsoft.FusedMatMul")
def _fused_matmul(low: Lowering) -> Source:
    if low.attr("transBatchA") or low.attr("transBatchB"):
        raise low.fail("transBatchA and transBatchB are not supported", "export without fused transposes")
    a, b = low.tensor(0), low.tensor(1)
    a = swapped(low, a) if low.attr("transA") and a.rank > 1 else a
    b = swapped(low, b) if low.attr("transB") and b.rank > 1 else b
    return matmul(low, a, b, low.shape, scaled(low.attr("alpha")))


@lowering("Gemm")
def _gemm(low: Lowering) -> Source:
    a, b = low.tensor(0), low.tensor(1)
    a = swapped(low, a) if low.attr("transA") else a
    b = swapped(low, b) if low.attr("transB") else b
    alpha, beta = low.attr("alpha"), low.attr("beta")

    def epilogue(r: RegionBuilder, acc: Scalar) -> Scalar:
        y = acc if alpha == 1.0 else multiply(r, acc, r.like(alpha, acc))
        c = low.optional(2)
        if c is None or beta == 0.0:
            return y
        bias = r.load(c)
        return add(r, y, bias if beta == 1.0 else multiply(r, bias, r.like(beta, bias)))

    return matmul(low, a, b, low.shape, epilogue)


@lowering("Einsum")
def _einsum(low: Lowering) -> Source:
    """Operands from left to right: sums over axes that nothing else names, then one matrix product for each further operand."""
    operands = [low.tensor(i) for i in range(len(low.sources))]
    equation = parse_equation(low.attr("equation"), [x.rank for x in operands])
    value, labels = _diagonal_free(low, operands[0], equation.operands[0])
    for i, (x, own) in enumerate(zip(operands[1:], equation.operands[1:], strict=True), 1):
        x, own = _diagonal_free(low, x, own)
        later = set(equation.result).union(*equation.operands[i + 1 :])
        value, labels = _contract(low, value, labels, x, own, later)
    value, labels = _summed(low, value, labels, set(equation.result))
    return low.build.reshape(low.build.transpose(value, [labels.index(c) for c in equation.result]), low.shape)


def _diagonal_free(low: Lowering, x: TypedValue, labels: str) -> tuple[TypedValue, str]:
    """Of axes with one label, the elements whose positions are the same along them, as one axis."""
    once = "".join(dict.fromkeys(labels))
    if once == labels:
        return x, labels

    def diagonal(b: RegionBuilder) -> Scalar:
        return b.load_at(x, [b.index(once.index(c)) for c in labels])

    return low.build.pointwise(x.type, [x.shape[labels.index(c)] for c in once], diagonal), once


def _summed(low: Lowering, x: TypedValue, labels: str, keep: set[str]) -> tuple[TypedValue, str]:
    """x summed over the axes whose labels are not kept."""
    axes = [i for i, c in enumerate(labels) if c not in keep]
    if not axes:
        return x, labels
    y = low.build.reduce(x, "sum", axes, x.type)
    kept = [i for i in range(x.rank) if i not in axes]
    return low.build.reshaped(y, [x.shape[i] for i in kept]), "".join(labels[i] for i in kept)


def _contract(
    low: Lowering, a: TypedValue, a_labels: str, b: TypedValue, b_labels: str, later: set[str]
) -> tuple[TypedValue, str]:
    """The product of two operands, summed over what they share and nothing later names."""
    a, a_labels = _summed(low, a, a_labels, later | set(b_labels))
    b, b_labels = _summed(low, b, b_labels, later | set(a_labels))
    shared = [c for c in a_labels if c in b_labels]
    batch = [c for c in shared if c in later]
    inner = [c for c in shared if c not in later]
    rows = [c for c in a_labels if c not in shared]
    columns = [c for c in b_labels if c not in shared]
    sizes: dict[str, Dim] = dict(zip(b_labels, b.shape, strict=True))
    for c, d in zip(a_labels, a.shape, strict=True):
        sizes[c] = dims.bcast(d, sizes[c]) if c in sizes else d

    def arranged(x: TypedValue, labels: str, groups: tuple[list[str], ...]) -> TypedValue:
        ordered = low.build.transpose(x, [labels.index(c) for g in groups for c in g])
        merged = [dims.product(sizes[c] for c in g) for g in groups[1:]]
        return low.build.reshaped(ordered, [*(sizes[c] for c in batch), *merged])

    left = arranged(a, a_labels, (batch, rows, inner))
    right = arranged(b, b_labels, (batch, inner, columns))
    lead = [sizes[c] for c in batch]
    product = low.build.matmul(left, right, (*lead, left.shape[-2], right.shape[-1]), low.type)
    labels = "".join(batch + rows + columns)
    return low.build.reshaped(product, [sizes[c] for c in labels]), labels
