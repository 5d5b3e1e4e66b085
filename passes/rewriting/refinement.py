"""Finer iteration domains: axes split where what a computation reads was made over more of them."""

from __future__ import annotations

from collections.abc import Sequence

from ingot.dialects import ingot as dialect
from ingot.dialects.mlir import ir
from ingot.dialects.plain import attribute, to_attribute
from ingot.dims import Dim
from ingot.passes.rewriting import domains, views
from ingot.passes.rewriting.ops import Root, replace_root

__all__ = ["finer_domain", "split"]

Shape = tuple[Dim, ...]


def finer_domain(domain: Shape, producer: Shape, chain: Sequence[views.View]) -> Shape | None:
    """`domain`, with axes split so that a chain of views of a computation over `producer`, read in it, merges none of its axes.

    None where no splitting does that, or `domain` has that form.
    """
    axes = views.atoms(producer, chain)
    if axes is None or len(axes) > len(domain):
        return None
    lead = len(domain) - len(axes)
    finer = list(domain[:lead])
    for size, parts, shape in zip(domain[lead:], axes, chain[-1].shape if chain else producer, strict=True):
        finer += [size] if shape != size or not parts else parts
    return None if tuple(finer) == domain else tuple(finer)


def split(root: Root, shape: Shape) -> ir.Operation | None:
    """A pointwise or normalize root over the finer domain `shape`, before `root`, which stays; None where regions read what has
    no counterpart there."""
    groups = domains.axis_groups(root.domain, shape)
    if groups is None or any(sum(root.domain[a] != 1 for a in old) > 1 for old, _ in groups):
        return None
    change = domains.Regrouping(root.domain, shape, groups)
    tensors = list(root.tensors)
    regions = []
    for region in root.regions:
        mapped = domains.map_region(change, region, tensors, root.op)
        if mapped is None:
            return None
        region, tensors = mapped
        regions.append(region)
    own = len(root.op.operands)
    operands = [views.reshape(x, shape, root.op) for x in root.op.operands]
    attrs = {n: root.op.attributes[n] for n in root.op.attributes}
    if "axes" in attrs:
        axes = set(attribute(attrs["axes"]))
        if any(root.domain[a] == 1 for a in axes):
            return None
        attrs["axes"] = to_attribute(tuple(a for old, new in groups for a in new if axes & set(old)))
    types = [dialect.tensor_type(dialect.dtype_of(r), shape) for r in root.op.results]
    tensors = [*operands, *tensors[own:]]
    return replace_root(root, operands=operands, result_types=types, attrs=attrs, regions=regions, tensors=tensors)
