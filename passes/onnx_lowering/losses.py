"""Losses: what classes lose against labels, each weighted, summed up by one reduction over the labels."""

from __future__ import annotations

from ingot.passes.onnx_lowering.lowering import Lowering, lowering
from ingot.passes.onnx_lowering.region_builder import RegionBuilder, Scalar, computing_type
from ingot.passes.onnx_lowering.values import Source, TypedValue


@lowering("NegativeLogLikelihoodLoss")
def _negative_log_likelihood(low: Lowering) -> Source:
    return _loss(low, low.tensor(0))


@lowering("SoftmaxCrossEntropyLoss")
def _cross_entropy(low: Lowering) -> list[Source]:
    logarithms = low.build.normalize(low.tensor(0), "log_softmax", [1])
    return [_loss(low, logarithms), logarithms]


def _loss(low: Lowering, logarithms: TypedValue) -> Source:
    """The loss of logarithms of probabilities [N, C, d...] against the labels [N, d...] that are operand 1.

    A label that is `ignore_index` neither loses nor counts in a mean. Labels may count from the end.
    """
    labels, weights, ignored = low.tensor(1), low.optional(2), low.attr("ignore_index")
    compute = computing_type(logarithms.type.storage)

    def weight(b: RegionBuilder, label: Scalar) -> Scalar:
        """The weight of a label's class."""
        one = b.const(1, compute)
        w = one if weights is None else b.load_at(weights, [b.wrapped_index(label, logarithms.shape[1])])
        return w if ignored is None else b.select(b.cmpi_eq(label, b.like(ignored, label)), b.like(0, w), w)

    def loss(b: RegionBuilder, label: Scalar) -> Scalar:
        n, *rest = (b.index(i) for i in range(labels.rank))
        lost = b.negf(b.load_at(logarithms, [n, b.wrapped_index(label, logarithms.shape[1]), *rest]))
        if weights is None and ignored is None:
            return lost
        w = weight(b, label)
        # An infinite logarithm that does not count must not become NaN.
        return b.select(b.cmpf_oeq(w, b.like(0, w)), b.like(0, w), b.mulf(lost, w))

    if low.attr("reduction") == "none":
        return low.build.pointwise(low.type, low.shape, lambda b: loss(b, b.load(labels)))
    axes = list(range(labels.rank))
    if low.attr("reduction") == "sum":
        return low.build.reshape(low.build.reduce(labels, "sum", axes, low.type, loss, acc=compute), ())
    if weights is None and ignored is None:

        def count(b: RegionBuilder) -> Scalar:
            return b.to_float(b.product(labels.shape), compute)

    else:
        counted = low.build.reduce(labels, "sum", axes, low.type, weight, acc=compute)

        def count(b: RegionBuilder) -> Scalar:
            return b.load(counted)

    mean = low.build.reduce(labels, "sum", axes, low.type, loss, lambda b, total: b.divf(total, count(b)), acc=compute)
    return low.build.reshape(mean, ())
