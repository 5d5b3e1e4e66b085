"""Channels-last layout, by letting transposes sink through what does not care until they meet their inverses.

Convolutions and poolings are channels-last already and stand between transposes that restore the model's layout. An elementwise
operation over transposed tensors is the transpose of that operation over the tensors themselves; the same holds for reductions
and normalizations, whose axes are renamed, and for slices, expansions and concatenations. No transpose is added: one that
enters an operation leaves it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

from ingot.dialects import ingot as dialect
from ingot.dialects.mlir import ir
from ingot.dialects.plain import attribute, to_attribute
from ingot.dispatch import ScalarRegion
from ingot.passes.pass_base import Pass, PassContext
from ingot.passes.rewriting import views
from ingot.passes.rewriting.domains import Permutation, map_region
from ingot.passes.rewriting.ops import Root, defining, erase_all_dead, replace, replace_root, users

_INDIFFERENT = frozenset({"pointwise", "reduce", "normalize"})
_CHANNELS_LAST = frozenset({"ingot.conv", "ingot.pool"})


@dataclass(frozen=True, kw_only=True)
class Layout(Pass):
    """Sink transposes through pointwise operations, reductions, normalizations, concatenations and views, so that those around
    convolutions cancel.

    An operation takes the layout of most of its full-sized operands; where there are as many of another, that of convolutions.
    """

    name: ClassVar[str] = "ingot-layout"

    def run(self, module: ir.Module, ctx: PassContext) -> None:
        for block in dialect.blocks(dialect.main_func(module)):
            for view in list(block.operations):
                op = view.operation
                if op.name in dialect.VIEWS:
                    if _sink_through_view(op):
                        ctx.changed("views")
                elif op.name == "ingot.move" and len(op.operands) == 2:
                    if (moves := _concatenation(op)) and _sink_through_concatenation(moves):
                        ctx.changed("concatenations")
                elif op.name in dialect.ROOTS and op.name[6:] in _INDIFFERENT:
                    root = Root.read(op)
                    perm = _wanted(root)
                    if perm is not None and _sink_through_root(root, perm):
                        ctx.changed(root.name)
            erase_all_dead(block)


def _transposed(value: ir.Value) -> tuple[int, ...] | None:
    """The permutation of the transpose that made a value; None where none did."""
    op = defining(value)
    return attribute(op.attributes["perm"]) if op is not None and op.name == "ingot.transpose" else None


def _inverted(perm: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(perm.index(i) for i in range(len(perm)))


def _sink_through_view(op: ir.Operation) -> bool:
    """Let a view of a transposed tensor be a transposed view."""
    view = views.read(op)
    perm = _transposed(view.x)
    if perm is None:
        return False
    inner = defining(view.x).operands[0]  # type: ignore[union-attr]
    back = _inverted(perm)
    shape = [view.shape[i] for i in back] if len(view.shape) == len(perm) else []
    if view.name == "slice":
        starts, steps = view.attr("starts"), view.attr("steps")
        attrs = (("starts", tuple(starts[i] for i in back)), ("steps", tuple(steps[i] for i in back)))
        value = views.make(views.View("slice", inner, tuple(shape), attrs), op)
    elif view.name == "expand" and shape:
        value = views.expand(inner, shape, op)
    else:
        regrouped = views.regroup(view, op)
        if regrouped is None:
            return False
        replace(op, [regrouped])
        return True
    replace(op, [views.transpose(value, perm, op)])
    return True


def _wanted(root: Root) -> tuple[int, ...] | None:
    """The permutation that most full-sized tensors of a root have been through, or None."""
    domain = dialect.shape_of(root.op.operands[0]) if root.name in ("reduce", "normalize") else root.domain
    votes: Counter[tuple[int, ...]] = Counter()
    convolved: set[tuple[int, ...]] = set()
    plain = tuple(range(len(domain)))
    for number, tensor in enumerate(root.tensors):
        indexed = len(dialect.shape_of(tensor)) == len(domain) and _is_indexed(root, number)
        if dialect.shape_of(tensor) != domain and not indexed:
            continue
        perm = _transposed(tensor)
        votes[perm or plain] += 1
        if perm is not None:
            source = defining(defining(tensor).operands[0])  # type: ignore[union-attr]
            if source is not None and source.name in _CHANNELS_LAST:
                convolved.add(perm)
    if not votes:
        return None
    best = max(votes.values())
    leaders = [p for p, n in votes.items() if n == best]
    for perm in leaders:
        if perm in convolved:
            return perm
    return None if plain in leaders else leaders[0]


def _is_indexed(root: Root, number: int) -> bool:
    return any(i.op == "load_at" and i.attr("operand") == number for r in root.regions for i in r.insts)


def _sink_through_root(root: Root, perm: tuple[int, ...]) -> bool:
    """Run a root over the layout from which `perm` made the one it has, and transpose its results instead."""
    op = root.op
    back = _inverted(perm)
    own = len(op.operands)
    tensors = list(root.tensors)
    regions: list[ScalarRegion] = []
    for number, region in enumerate(root.regions):
        over_operand = root.name in ("reduce", "normalize") and number == 0
        old = dialect.shape_of(op.operands[0] if over_operand else op.results[0])
        mapped = map_region(Permutation(old, back), region, tensors, op)
        if mapped is None:
            return False
        region, tensors = mapped
        regions.append(region)
    operands = [views.transpose(x, back, op) for x in op.operands]
    tensors = [*operands, *tensors[own:]]
    attrs = {n: op.attributes[n] for n in op.attributes}
    if "axes" in attrs:
        axes = attribute(attrs["axes"])
        attrs["axes"] = to_attribute(tuple(sorted(back.index(a) for a in axes)))
    types = []
    for r in op.results:
        shape = dialect.shape_of(r)
        types.append(dialect.tensor_type(dialect.dtype_of(r), [shape[i] for i in back]))
    new = replace_root(root, operands=operands, result_types=types, attrs=attrs, regions=regions, tensors=tensors)
    replace(op, [views.transpose(r, perm, op) for r in new.results])
    return True


def _concatenation(last: ir.Operation) -> list[ir.Operation]:
    """The chain of moves into one `empty` that ends in `last`; none where it goes on."""
    if any(
        u.name == "ingot.move" and len(u.operands) == 2 and u.operands[1] == last.results[0] for u in users(last.results[0])
    ):
        return []
    chain = [last]
    while (op := defining(chain[-1].operands[1])) is not None and op.name == "ingot.move" and len(op.operands) == 2:
        chain.append(op)
    return chain[::-1] if op is not None and op.name == "ingot.empty" else []


def _sink_through_concatenation(moves: list[ir.Operation]) -> bool:
    """Concatenate what was transposed, and transpose the result, where all parts were transposed alike."""
    perms = {_transposed(m.operands[0]) for m in moves}
    if len(perms) != 1 or None in perms:
        return False
    (perm,) = perms
    assert perm is not None
    back = _inverted(perm)
    rebuilt = []
    for move in moves:
        root = Root.read(move)
        shape = dialect.shape_of(move.operands[0])
        mapped = map_region(Permutation(shape, back), root.regions[0], root.tensors, move)
        if mapped is None:
            return False
        rebuilt.append((root, *mapped))
    empty = defining(moves[0].operands[1])
    assert empty is not None
    shape = dialect.shape_of(empty.results[0])
    type_ = dialect.tensor_type(dialect.dtype_of(empty.results[0]), [shape[i] for i in back])
    into = ir.Operation.create(empty.name, results=[type_], loc=empty.location, ip=ir.InsertionPoint(empty)).results[0]
    for root, region, tensors in rebuilt:
        x = views.transpose(root.op.operands[0], back, root.op)
        offsets = attribute(root.op.attributes["offsets"])
        attrs = {"offsets": tuple(offsets[i] for i in back)}
        new = replace_root(root, operands=[x, into], result_types=[type_], attrs=attrs, regions=[region],
                           tensors=[x, into, *tensors[2:]])  # fmt: skip
        into = new.results[0]
    replace(moves[-1], [views.transpose(into, perm, moves[-1])])
    for move in reversed(moves[:-1]):
        move.erase()
    empty.erase()
    return True
