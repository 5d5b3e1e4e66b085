"""Rules for losses."""

from __future__ import annotations

from ingot.passes.onnx_inference.rules import Node, rule
from ingot.passes.onnx_inference.tensors import Tensor


def _checked(node: Node) -> Tensor:
    """The loss of scores [N, C, d...] and labels [N, d...], reduced as the node says."""
    x, labels = node.input(0), node.input(1)
    if x.rank != labels.rank + 1 or x.rank < 2:
        raise node.fail(f"labels of rank {labels.rank} for scores of rank {x.rank}", "correct the model's shapes")
    sizes = (x.shape[0], *x.shape[2:])
    shape = tuple(node.equal(a, b, "scores and labels differ in size") for a, b in zip(sizes, labels.shape, strict=True))
    if node.has(2):
        node.equal(node.input(2).shape[0], x.shape[1], "there is not one weight a class")
    node.reads(x.shape[1], 1, shape, "there is no class")
    return Tensor(x.type, shape if node.attr("reduction") == "none" else ())


@rule("NegativeLogLikelihoodLoss")
def _negative_log_likelihood(node: Node) -> Tensor:
    return _checked(node)


@rule("SoftmaxCrossEntropyLoss")
def _cross_entropy(node: Node) -> list[Tensor]:
    x = node.input(0)
    return [_checked(node), Tensor(x.type, x.shape)]
