"""ONNX `If`: its branches, inlining the one that is always taken, and one type for what both may give."""

from __future__ import annotations

from dataclasses import replace

from ingot.dialects import onnx
from ingot.dialects.mlir import ir
from ingot.passes.onnx_inference.rules import Unsupported
from ingot.passes.onnx_inference.tensors import Tensor


def branches(op: ir.Operation) -> tuple[ir.Region, ir.Region]:
    """The regions of an `onnx.If` for a condition that holds, and for one that does not."""
    names = onnx.spec_of(op).regions
    return op.regions[names.index("then_branch")], op.regions[names.index("else_branch")]


def outputs(op: ir.Operation, region: ir.Region) -> list[ir.Operation]:
    """The `onnx.Output`s of a region that the results of `op` stand for, in order: an output without a name has no result."""
    present = list(op.attributes["resultSegmentSizes"])
    return [output for output, size in zip(onnx.outputs(region), present, strict=False) if size]


def captured(op: ir.Operation) -> list[ir.Value]:
    """The values from outside of an operation that its regions read, each once, in order."""
    inside: set[ir.Value] = set()
    found: dict[ir.Value, None] = {}

    def visit(block: ir.Block) -> None:
        inside.update(block.arguments)
        for view in block.operations:
            inner = view.operation
            found.update((v, None) for v in inner.operands if v not in inside)
            for region in inner.regions:
                for nested in region.blocks:
                    visit(nested)
            inside.update(inner.results)

    for region in op.regions:
        visit(region.blocks[0])
    return list(found)


def inline(op: ir.Operation, region: ir.Region) -> list[ir.Operation]:
    """Replace an `onnx.If` by the operations of one of its regions, which are returned."""
    for result, output in zip(op.results, outputs(op, region), strict=True):
        result.replace_all_uses_with(output.operands[0])
    moved = [view.operation for view in region.blocks[0].operations if view.operation.name not in (onnx.OUTPUT, onnx.RETURN)]
    for inner in moved:
        inner.move_before(op)
    op.erase()
    return moved


def unified(number: int, a: Tensor, b: Tensor) -> Tensor:
    """What is known of output `number` of an `If` whose branches give `a` and `b`.

    Raises:
        Unsupported: their types or sizes differ.
    """
    texts = [f"{t.type.name}[{', '.join(map(str, t.shape))}]" for t in (a, b)]
    if a.type != b.type or a.shape != b.shape:
        cure = "make both branches give tensors of one shape, or make the condition constant"
        raise Unsupported(f"output {number} is {texts[0]} in one branch and {texts[1]} in the other", cure)
    same = a.value is not None and b.value is not None and a.value.tolist() == b.value.tolist()
    return a if same else replace(a, value=None)
