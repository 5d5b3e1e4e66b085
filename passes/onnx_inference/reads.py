"""Numbers that decide shapes and are read when a model runs: elements of small integer inputs, and of small integer tensors
that are computed from data.

An element is a symbol of its own. It may be negative, `signed(name)`, unless it is used as a size somewhere: then it is `name`,
and guarded. Which inputs are read, and what their elements are called, stands on the graph as `ingot.reads`: for each input an
array of its elements, empty for one that is not read. For the results of an operation it stands on the operation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from ingot import dims
from ingot.dialects import onnx
from ingot.dialects.mlir import ir
from ingot.dims import Dim
from ingot.passes.onnx_inference.tensors import MAX_ELEMENTS, Tensor, object_array

READS = "ingot.reads"
MAX_READ = 64  # elements of an input that is read: more are data
TYPES = ("int32", "int64")


def origins(value: ir.Value, tensors: Mapping[ir.Value, Tensor | None]) -> list[ir.Value]:
    """The inputs of the graph from which `value` is computed through small tensors of unknown elements."""
    found: dict[ir.Value, None] = {}
    seen: set[ir.Value] = set()
    stack = [value]
    while stack:
        v = stack.pop()
        tensor = tensors.get(v)
        owner = v.owner
        is_input = isinstance(owner, ir.Block) and owner.owner.name == onnx.GRAPH
        if v in seen or tensor is None or (tensor.is_known and not _has_symbols(tensor)):
            continue
        if not _is_small(tensor) and not (is_input and tensor.rank <= 1 and tensor.type.name in TYPES):
            continue  # but an array of axes may have an unknown length
        seen.add(v)
        if is_input:
            found[v] = None
        elif not isinstance(owner, ir.Block):
            stack += [operand for operand in owner.operation.operands if operand not in seen]
    return list(found)


def computed(value: ir.Value, tensors: Mapping[ir.Value, Tensor | None]) -> list[ir.Value]:
    """The values of the main graph from which `value` is computed by arithmetic of small integer tensors, and which can be
    read: results of operations that no such tensor goes into."""
    found: dict[ir.Value, None] = {}
    seen: set[ir.Value] = set()
    stack = [value]
    while stack:
        v = stack.pop()
        if v in seen or not _is_unknown(v, tensors):
            continue
        seen.add(v)
        inner = [o for o in v.owner.operation.operands if _is_unknown(o, tensors)]
        if inner:
            stack += inner
        elif is_result(v):
            found[v] = None
    return list(found)


def _is_unknown(value: ir.Value, tensors: Mapping[ir.Value, Tensor | None]) -> bool:
    tensor = tensors.get(value)
    return not isinstance(value.owner, ir.Block) and tensor is not None and is_readable(tensor) and not tensor.is_known


def is_result(value: ir.Value) -> bool:
    """Whether a value is an operator's in the main graph, outside of control."""
    op = value.owner.operation
    return op.parent.name == onnx.GRAPH and not len(op.regions) and onnx.is_onnx(op)


def _has_symbols(tensor: Tensor) -> bool:
    assert tensor.value is not None
    return any(not isinstance(e, bool | int | float) for e in tensor.value.ravel().tolist())


def _is_small(tensor: Tensor) -> bool:
    sizes = [d for d in tensor.shape if isinstance(d, int)]
    return len(sizes) == tensor.rank and math.prod(sizes) <= MAX_ELEMENTS


def is_empty(tensor: Tensor) -> bool:
    """Whether an input of integers has no elements, all of which are therefore known."""
    return tensor.type.name in TYPES and 0 in tensor.shape and _is_small(tensor)


def is_readable(tensor: Tensor) -> bool:
    """Whether an input's elements may be read as numbers."""
    return tensor.type.name in TYPES and _is_small(tensor) and dims.product(tensor.shape) <= MAX_READ  # type: ignore[operator]


def names(name: str, tensor: Tensor, taken: Iterable[str]) -> list[str]:
    """Names for the elements of input `name` that are none of `taken`."""
    stem, used = dims.sanitize(name), set(taken)
    count = int(dims.product(tensor.shape))  # type: ignore[arg-type]
    while True:
        found = [stem] if count == 1 else [f"{stem}_{k}" for k in range(count)]
        if not used & set(found):
            return found
        stem += "_"


def elements(names: Sequence[str], sizes: Iterable[str]) -> list[Dim]:
    """The elements of those names, of which `sizes` are known not to be negative."""
    return [dims.symbol(n) if n in sizes else dims.signed(dims.symbol(n)) for n in names]


def with_elements(tensor: Tensor, found: Sequence[Dim]) -> Tensor:
    """An input with its elements."""
    return Tensor(tensor.type, tensor.shape, object_array(found, [int(d) for d in tensor.shape]))  # type: ignore[arg-type]


def write_reads(op: ir.Operation, reads: Sequence[Sequence[Dim]]) -> None:
    """Record the elements of each input of a graph, or of each result of an operation; none for one that is not read."""
    rows = [ir.ArrayAttr.get([ir.StringAttr.get(str(d)) for d in row]) for row in reads]
    op.attributes[READS] = ir.ArrayAttr.get(rows)


def read_reads(op: ir.Operation) -> list[list[Dim]]:
    """The elements of each input of a graph, or of each result of an operation; none for one that is not read."""
    if READS not in op.attributes:
        return [[] for _ in (op.regions[0].blocks[0].arguments if op.name == onnx.GRAPH else op.results)]
    return [[dims.parse(d.value) for d in row] for row in op.attributes[READS]]
