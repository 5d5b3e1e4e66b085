"""ONNX `If`, `Loop` and `Scan`: their regions. Of an `If` the one that is always taken, and one type for what both may give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ingot import dims
from ingot.dialects import onnx
from ingot.dialects.mlir import ir
from ingot.dialects.onnx_types import shape_of
from ingot.dims import Dim
from ingot.passes.onnx_inference.rules import Node, Unsupported
from ingot.passes.onnx_inference.tensors import BOOL, INT64, Tensor, object_array, with_value

LENGTH = "ingot.length"  # on an `onnx.Scan`: how often it runs, as a shape expression
SYMBOL = "ingot.symbol"  # on an `onnx.Loop` or `onnx.Scan`: the name that its iteration has in shape expressions


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


def loop_facts(op: ir.Operation, tensors: Mapping[ir.Value, Tensor | None]) -> tuple[Tensor | None, bool]:
    """The trip count of an `onnx.Loop` (None where it is not given), and whether its first condition is known to hold."""
    trips, condition = onnx.onnx_operands(op)[:2]
    first = None if condition is None else tensors[condition]
    known = None if first is None or first.value is None or first.value.size != 1 else first.value.item()
    return None if trips is None else tensors[trips], condition is None or known is True


def known_trips(trips: Tensor | None) -> Dim | None:
    """The trip count as a size, or None where it depends on data or is not given."""
    return trips.value.item() if trips is not None and trips.is_known and trips.value is not None else None


def carried(op: ir.Operation) -> list[ir.Value]:
    """What the first iteration of an `onnx.Loop` takes."""
    return [v for v in onnx.onnx_operands(op)[2:] if v is not None]


def holds(tensor: Tensor | None) -> bool:
    """Whether a condition is known to hold."""
    return tensor is not None and tensor.value is not None and tensor.value.size == 1 and tensor.value.item() is True


def arguments(symbol: str, first: Sequence[Tensor]) -> list[Tensor]:
    """What is known of the arguments of a loop's body: iteration, condition (which holds), and what is carried."""
    iteration = with_value(INT64, object_array([dims.symbol(symbol)], ()))
    return [iteration, with_value(BOOL, object_array([True], ())), *(replace(t, value=None) for t in first)]


def depends(region: ir.Region, symbol: str) -> bool:
    """Whether a size in a region depends on `symbol`."""
    for view in region.blocks[0].operations:
        op = view.operation
        if any(symbol in dims.symbols_of(shape_of(r) or ()) for r in op.results if onnx.is_onnx(op)):
            return True
        if any(depends(inner, symbol) for inner in op.regions):
            return True
    return False


def loop_results(
    op: ir.Operation, trips: Dim | None, begins: bool, first: Sequence[Tensor], given: Sequence[Tensor]
) -> list[Tensor]:
    """What is known of the outputs of an `onnx.Loop` whose body gives a condition, what is carried, and scanned elements.

    Raises:
        Unsupported: a carried tensor changes its type or shape; a scan output's length, or a size in the body, depends on data.
    """
    check_body(op, first, given[1:])
    scans = given[1 + len(first) :]
    if scans and (trips is None or not (begins and holds(given[0]))):
        cure = "make the trip count a constant or a size, and the condition true"
        raise Unsupported("the length of its scan outputs is known only at run time", cure)
    stacked = [Tensor(t.type, (dims.maximum(trips, 0), *t.shape)) for t in scans if trips is not None]
    return [*(replace(t, value=None) for t in first), *stacked]


def check_body(op: ir.Operation, first: Sequence[Tensor], given: Sequence[Tensor]) -> None:
    """Check that what an iteration gives is what the next one takes.

    Raises:
        Unsupported: a carried tensor changes its type or shape, or a size in the body depends on the iteration.
    """
    for i, (a, b) in enumerate(zip(first, given, strict=False)):
        if a.type != b.type or a.shape != b.shape:
            before, after = (f"{t.type.name}[{', '.join(map(str, t.shape))}]" for t in (a, b))
            cure = "carry a tensor of constant shape"
            raise Unsupported(f"carried value {i} is {before} before an iteration and {after} after it", cure)
    if depends(op.regions[0], op.attributes[SYMBOL].value):
        raise Unsupported("a size in its body depends on the iteration", "make sizes the same in every iteration")


@dataclass(frozen=True)
class Scan:
    """An `onnx.Scan`: its first `states` operands are carried, the others it walks along an axis.

    Attributes:
        inputs: axis of each operand that it walks along, and whether backwards.
        outputs: axis along which each output that is no state is stacked, and whether backwards.
        length: iterations.
    """

    states: int
    inputs: tuple[tuple[int, bool], ...]
    outputs: tuple[tuple[int, bool], ...]
    length: Dim

    @classmethod
    def of(cls, node: Node, ranks: Sequence[int] | None = None, length: Dim | None = None) -> Scan:
        """Read a node.

        Args:
            ranks: of what its body gives beside states, where they are known already; else `outputs` is empty.
            length: where it is known already.

        Raises:
            Unsupported: an axis or direction is wrong, or operands have no common length.
        """
        states = len(node.inputs) - node.attr("num_scan_inputs")
        scanned = [node.input(i) for i in range(states, len(node.inputs))]
        if states < 0 or not scanned:
            raise node.fail(f"num_scan_inputs is {node.attr('num_scan_inputs')}", "correct the model")
        inputs = _directed(node, "scan_input", [t.rank for t in scanned])
        if length is None:
            length, *others = (t.shape[axis] for t, (axis, _) in zip(scanned, inputs, strict=True))
            for other in others:
                length = node.equal(length, other, "operands are scanned to different lengths")
        outputs = () if ranks is None else _directed(node, "scan_output", [rank + 1 for rank in ranks])
        return cls(states, inputs, outputs, length)

    def elements(self, operands: Sequence[Tensor]) -> list[Tensor]:
        """What is known of the arguments of the body."""
        walked = zip(operands[self.states :], self.inputs, strict=True)
        parts = [Tensor(t.type, (*t.shape[:axis], *t.shape[axis + 1 :])) for t, (axis, _) in walked]
        return [*(replace(t, value=None) for t in operands[: self.states]), *parts]

    def results(self, given: Sequence[Tensor]) -> list[Tensor]:
        """What is known of the outputs, where the body gives `given`."""
        stacked = zip(given[self.states :], self.outputs, strict=True)
        wholes = [Tensor(t.type, (*t.shape[:axis], self.length, *t.shape[axis:])) for t, (axis, _) in stacked]
        return [*(replace(t, value=None) for t in given[: self.states]), *wholes]

    def position(self, symbol: str, backwards: bool) -> Dim:
        """Where along an axis iteration `symbol` stands."""
        return self.length - 1 - dims.symbol(symbol) if backwards else dims.symbol(symbol)


def _directed(node: Node, name: str, ranks: Sequence[int]) -> tuple[tuple[int, bool], ...]:
    axes, directions = (node.attr(f"{name}_{part}") or [0] * len(ranks) for part in ("axes", "directions"))
    if len(axes) != len(ranks) or len(directions) != len(ranks) or not set(directions) <= {0, 1}:
        found = f"{name}_axes is {axes} and {name}_directions {directions}"
        raise node.fail(f"{found} for {len(ranks)} tensors", "correct the model")
    return tuple((node.axis(axis, rank), bool(way)) for axis, rank, way in zip(axes, ranks, directions, strict=True))
