"""The AOT pipeline: the passes that take an imported model to the IR that an engine holds, in order, as data."""

from __future__ import annotations

__all__ = ["FROM_ONNX", "OPTIMIZE", "PLAN", "pipeline_text"]

# From the `onnx` dialect to unoptimized `ingot` IR.
FROM_ONNX: tuple[str, ...] = ("ingot-infer-shapes", "ingot-convert-onnx-to-ingot")

OPTIMIZE: tuple[str, ...] = (
    "ingot-canonicalize",
    "cse",
    "ingot-recognize-norms",
    "ingot-canonicalize",
    "ingot-layout",
    "ingot-canonicalize",
    "cse",
    # Channels are last by now, and dequantized weights are not folded yet.
    "ingot-quantize-products",
    "ingot-fold-batch-norm",
    "ingot-fold-constants",
    "ingot-sink-repeats",
    "ingot-fuse",
    # What stands between the products of an attention is in their epilogues by now.
    "ingot-recognize-attention",
    "ingot-canonicalize",
    "cse",
)

# What the launch program needs; nothing may change the IR after it.
PLAN: tuple[str, ...] = (
    "ingot-fold-affine",
    "ingot-merge-products",
    "ingot-order-results",
    "ingot-materialize-views",
    # Copies and concatenations of weights join the weights program.
    "ingot-fold-constants",
    "ingot-split-stages",
    "ingot-plan-buffers",
)


def pipeline_text(*, from_onnx: bool = True) -> str:
    """The text of the whole pipeline, for `ingot.passes.Pipeline.parse`.

    Args:
        from_onnx: start at the `onnx` dialect; else at `ingot` IR, as `ingot.Builder` makes it.
    """
    passes = (FROM_ONNX if from_onnx else ()) + OPTIMIZE + PLAN
    return f"builtin.module({','.join(passes)})"
