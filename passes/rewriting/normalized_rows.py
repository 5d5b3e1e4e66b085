"""Other elements of a row that a normalization has normalized, computed once more from its statistics.

A consumer that reads the result of a layer or RMS normalization both where it is and elsewhere in the same row (the partner of
a rotary embedding's pair) becomes part of its epilogue: what it reads elsewhere is the operand read there, mapped, normalized
by the row's statistics, and put through the epilogue as it was.
"""

from __future__ import annotations

from collections.abc import Sequence

from ingot import dims
from ingot.dialects import ingot as dialect
from ingot.dialects.mlir import ir
from ingot.dims import Dim
from ingot.dispatch import ScalarRegion
from ingot.passes.rewriting import domains, views
from ingot.passes.rewriting.ops import Root
from ingot.passes.rewriting.scalar_regions import RegionBuilder

__all__ = ["recomputed", "statistics", "within_rows"]


def statistics(root: Root) -> tuple[str, ...]:
    """The statistics that a root's epilogue may take, in order; none where it is no normalization that has such."""
    return dialect.STATISTICS.get(root.attr("kind"), ()) if root.name == "normalize" else ()


def within_rows(root: Root, chain: Sequence[views.View]) -> bool:
    """True where a chain of views of a normalization's result reads, at every position, elements of the row that the position
    lies in: slices along the normalized axes."""
    normalized = set(root.attr("axes"))
    for view in chain:
        if view.name != "slice":
            return False
        old = dialect.shape_of(view.x)
        for axis, (start, step) in enumerate(zip(view.attr("starts"), view.attr("steps"), strict=True)):
            whole = dims.parse(start) == 0 and step == 1 and old[axis] == view.shape[axis]
            if axis not in normalized and not whole:
                return False
            if view.shape[axis] not in (1, root.domain[axis]):
                return False
    return True


def recomputed(
    root: Root, result: int, chain: Sequence[views.View], before: ir.Operation
) -> tuple[ScalarRegion, list[ir.Value]] | None:
    """A region over the domain of a normalization, of its row's statistics, that yields what a chain of views of one of its
    results holds, and what it reads; None where there is none. The views must lie `within_rows`."""
    first, last = root.regions
    dtype = last.args[0]
    names = statistics(root)
    builder = RegionBuilder((dtype,) * len(names))
    element = builder.emit("load", type=first.args[0], operand=0)
    y = builder.inline(first, [element])[0]
    for number, name in enumerate(names):
        y = builder.emit("subf" if name == "mean" else "mulf", y, number)
    value = builder.inline(last, [y, *range(len(names))][: len(last.args)])[result]
    region, tensors = builder.finish([value]), list(root.tensors)
    shape: tuple[Dim, ...] = root.domain
    changes: list[domains.DomainMap] = []
    for view in chain:
        change = domains.of_view(view)
        if change is None:
            return None
        changes.append(change)
        shape = view.shape
    changes.append(domains.Repetition(shape, root.domain))
    return domains.map_through(changes, region, tensors, before)
