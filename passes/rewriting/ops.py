"""Uses of values, and replacing of operations, at the level of a function's body.

A tensor may be used by a `load` inside a root's region; passes mean the root then. Operations are replaced, never mutated:
a root with new operands or regions is created before the old one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ingot.dialects import ingot as dialect
from ingot.dialects.mlir import ir, operation_key
from ingot.dialects.plain import attribute, create_root, read_regions, to_attribute
from ingot.dims import Dim
from ingot.dispatch import Attr, ScalarRegion

__all__ = ["Root", "body", "defining", "erase_all_dead", "erase_dead", "functions", "is_unused", "operand_number", "readers",
           "replace", "replace_root", "roots", "users"]  # fmt: skip

_LOADS = ("ingot.load", "ingot.load_at")


def body(func: ir.Operation) -> ir.Block:
    """The block of an `ingot.func`."""
    return func.regions[0].blocks[0]


def functions(module: ir.Module) -> list[ir.Operation]:
    """The module's `ingot.func`s, the main one first."""
    return [op.operation for op in module.body.operations if op.operation.name == "ingot.func"]


def defining(value: ir.Value) -> ir.Operation | None:
    """The operation whose result a value is; None for a block's argument."""
    owner = value.owner
    return None if isinstance(owner, ir.Block) else owner.operation


def users(value: ir.Value) -> list[ir.Operation]:
    """The operations of the function's body that use a value, each once; a region's load counts as its root."""
    found: dict[int, ir.Operation] = {}
    for use in value.uses:
        op = use.owner.operation
        if op.name in _LOADS:
            op = op.parent.operation
        found[operation_key(op)] = op
    return list(found.values())


def operand_number(tensors: list[ir.Value], tensor: ir.Value) -> int:
    """The number of a tensor in a list, which it joins where it is new."""
    for i, known in enumerate(tensors):
        if known == tensor:
            return i
    tensors.append(tensor)
    return len(tensors) - 1


def readers(value: ir.Value) -> list[ir.Operation]:
    """The operations that use a value, directly or through views."""
    found: list[ir.Operation] = []
    work = users(value)
    while work:
        op = work.pop()
        if op.name in dialect.VIEWS:
            work += users(op.results[0])
        else:
            found.append(op)
    return found


@dataclass
class Root:
    """A root operation read into plain data; `tensors` number its operands and those its regions load."""

    op: ir.Operation
    name: str  # without the dialect's prefix
    tensors: list[ir.Value]
    regions: tuple[ScalarRegion, ...]

    @classmethod
    def read(cls, op: ir.Operation) -> Root:
        """Read a root."""
        return cls(op, op.name[len(dialect.NAME) + 1 :], *read_regions(op))

    @property
    def domain(self) -> tuple[Dim, ...]:
        """The sizes of what its last region runs over."""
        return dialect.shape_of(self.op.operands[0] if self.name == "move" else self.op.results[0])

    def attr(self, name: str, default: Attr | None = None) -> Any:
        """The Python value of an attribute, or the default."""
        return attribute(self.op.attributes[name]) if name in self.op.attributes else default


def roots(block: ir.Block) -> Iterator[ir.Operation]:
    """The root operations of a function's body; it may be changed while they are visited."""
    for op in list(block.operations):
        if op.operation.name in dialect.ROOTS:
            yield op.operation


def replace_root(
    root: Root,
    *,
    name: str | None = None,
    operands: Sequence[ir.Value] | None = None,
    result_types: Sequence[ir.Type] | None = None,
    attrs: Mapping[str, ir.Attribute | Attr] | None = None,
    regions: Sequence[ScalarRegion] | None = None,
    tensors: Sequence[ir.Value] | None = None,
    loc: ir.Location | None = None,
    before: ir.Operation | None = None,
) -> ir.Operation:
    """Create a root like `root`, with what is given changed, before it (or before `before`); the old one stays, unused or not.

    Attributes given replace all of the old ones.
    """
    op = root.op
    kept = {n: op.attributes[n] for n in op.attributes} if attrs is None else _to_attributes(attrs)
    return create_root(
        name or root.name,
        list(op.operands) if operands is None else operands,
        [r.type for r in op.results] if result_types is None else result_types,
        kept,
        root.regions if regions is None else regions,
        root.tensors if tensors is None else tensors,
        loc=loc or op.location,
        ip=ir.InsertionPoint(before or op),
    )


def _to_attributes(attrs: Mapping[str, ir.Attribute | Attr]) -> dict[str, ir.Attribute]:
    return {n: a if isinstance(a, ir.Attribute) else to_attribute(a) for n, a in attrs.items()}


def replace(op: ir.Operation, values: Iterable[ir.Value]) -> None:
    """Let `values` stand for the results of `op`, and erase it."""
    for old, new in zip(op.results, values, strict=True):
        old.replace_all_uses_with(new)
    op.erase()


def is_unused(op: ir.Operation) -> bool:
    """True where no result has a use."""
    return not any(True for r in op.results for _ in r.uses)


def erase_dead(op: ir.Operation) -> int:
    """Erase a pure operation without uses, and then what only it used; the number of operations erased."""
    count = 0
    work = [op]
    while work:
        op = work.pop()
        if dialect.DEFS[op.name].kind not in ("root", "view", "source", "control") or not is_unused(op):
            continue
        sources = {operation_key(d): d for v in dialect.inputs(op) if (d := defining(v)) is not None}
        op.erase()
        count += 1
        work += [source for source in sources.values() if is_unused(source)]
    return count


def erase_all_dead(block: ir.Block) -> int:
    """Erase every pure operation of a function's body that nothing uses; the number of operations erased."""
    count = 0
    for view in reversed(list(block.operations)):
        op = view.operation
        if dialect.DEFS[op.name].kind in ("root", "view", "source", "control") and is_unused(op):
            op.erase()
            count += 1
    return count
