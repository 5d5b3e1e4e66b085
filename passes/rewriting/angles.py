"""Which values are angles: what sine and cosine are taken of, and what that is computed from.

An angle of many turns must be known to a small part of one: its absolute error counts, not its relative one. Positions of
rotary embeddings times their highest frequency, and the time steps of diffusion, are thousands of turns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ingot.dialects import ingot as dialect
from ingot.dialects.mlir import ir
from ingot.dispatch import ScalarRegion
from ingot.passes.rewriting.ops import Root

__all__ = ["Angles", "find_angles"]

_PERIODIC = ("sin", "cos")
# Roots that hand elements on; what others give (a convolution, a normalization) is an activation of moderate size.
_ELEMENTWISE = ("pointwise", "move", "reduce")


@dataclass
class Angles:
    """The memory of angles, and the first results of the outer products (of frequencies and positions) that make some."""

    memory: set[ir.Value] = field(default_factory=set)
    products: set[ir.Value] = field(default_factory=set)


def find_angles(operations: Sequence[ir.Operation], memory_of: Callable[[ir.Value], ir.Value]) -> Angles:
    """The angles among the results of `operations` (in order); `memory_of` gives a value that stands for a value's memory."""
    found = Angles()
    for op in reversed(operations):
        if op.name not in dialect.ROOTS:
            continue
        root = Root.read(op)
        outer = root.name == "matmul" and dialect.shape_of(op.operands[0])[-1] == 1
        if root.name not in _ELEMENTWISE and not outer:
            found.memory -= {memory_of(r) for r in op.results}
        asked = [i for i, r in enumerate(op.results) if memory_of(r) in found.memory]
        reaches = [_sources(region, asked if region is root.regions[-1] else []) for region in root.regions]
        tensors = {n for operands, _ in reaches for n in operands}
        if any(own for _, own in reaches):
            if root.name in _ELEMENTWISE:
                tensors |= {0, *_sources(root.regions[0], range(len(root.regions[0].results)))[0]}
            elif outer:
                found.products.add(op.results[0])
                tensors |= {0, 1}
        found.memory |= {memory_of(root.tensors[n]) for n in tensors if dialect.dtype_of(root.tensors[n]) == "f32"}
    return found


def _sources(region: ScalarRegion, results: Sequence[int]) -> tuple[set[int], bool]:
    """What sines and cosines in a region, and some of its results, are computed from: the numbers of the tensors that it
    loads, and whether the root's own value is among it."""
    base = len(region.args)
    work = [region.results[i] for i in results] + [i.args[0] for i in region.insts if i.op in _PERIODIC]
    operands, own, seen = set(), False, set(work)
    while work:
        value = work.pop()
        if value < base:
            own = True
            continue
        inst = region.insts[value - base]
        if inst.op in ("load", "load_at"):
            operands.add(inst.attr("operand"))
            continue
        new = [a for a in inst.args if a not in seen]
        seen.update(new)
        work += new
    return operands, own
