"""Operators that read at computed positions: `pointwise` with `load_at`."""

from __future__ import annotations

from ingot.passes.onnx_lowering.lowering import Lowering, lowering
from ingot.passes.onnx_lowering.region_builder import RegionBuilder, Scalar
from ingot.passes.onnx_lowering.values import Known, Source


@lowering("Gather")
def _gather(low: Lowering) -> Source:
    x, indices = low.tensor(0), low.source(1)
    axis = low.node.axis(low.attr("axis"), x.rank)
    if isinstance(indices, Known) and len(indices.elements) == 1 and isinstance(indices.elements[0], int):
        i = indices.elements[0]
        part = low.build.slice_axis(x, axis, i if i >= 0 else x.shape[axis] + i, 1)
        return low.build.reshape(part, low.shape)
    # With an axis of size 1 for each axis of x that follows, the indices are aligned with the domain.
    aligned = low.build.reshape(indices, (*indices.shape, *(1 for _ in x.shape[axis + 1 :])))

    def body(b: RegionBuilder) -> Scalar:
        at = b.wrapped_index(b.load(aligned), x.shape[axis])
        before = [b.index(i) for i in range(axis)]
        after = [b.index(i + indices.rank - 1) for i in range(axis + 1, x.rank)]
        return b.load_at(x, [*before, at, *after])

    return low.build.pointwise(x.type, low.shape, body)


@lowering("GatherElements")
def _gather_elements(low: Lowering) -> Source:
    x = low.tensor(0)
    axis = low.node.axis(low.attr("axis"), x.rank)

    def body(b: RegionBuilder) -> Scalar:
        at = b.wrapped_index(b.load(low.source(1)), x.shape[axis])
        return b.load_at(x, [at if i == axis else b.index(i) for i in range(x.rank)])

    return low.build.pointwise(x.type, low.shape, body)


@lowering("GatherND")
def _gather_nd(low: Lowering) -> Source:
    x, indices = low.tensor(0), low.tensor(1)
    batch = low.attr("batch_dims")
    depth = indices.shape[-1]
    assert isinstance(depth, int)
    lead = indices.rank - 1

    def body(b: RegionBuilder) -> Scalar:
        position = [b.index(i) for i in range(lead)]
        at = [b.index(i) for i in range(batch)]
        for k in range(depth):
            i = b.load_at(indices, [*position, b.const(k, "i64")])
            at.append(b.wrapped_index(i, x.shape[batch + k]))
        at += [b.index(lead + i) for i in range(x.rank - batch - depth)]
        return b.load_at(x, at)

    return low.build.pointwise(x.type, low.shape, body)


@lowering("ReverseSequence")
def _reverse_sequence(low: Lowering) -> Source:
    """The first `lengths` elements of each sequence of a batch in reverse, the others where they are."""
    x, lengths = low.tensor(0), low.source(1)
    batch, time = (low.node.axis(low.attr(n), x.rank) for n in ("batch_axis", "time_axis"))
    aligned = low.build.reshape(lengths, (*lengths.shape, *(1 for _ in x.shape[batch + 1 :])))

    def body(b: RegionBuilder) -> Scalar:
        length, at = b.to_index(b.load(aligned)), b.index(time)
        back = b.subi(b.subi(length, b.const(1, "i64")), at)
        source = b.clamped_index(b.select(b.cmpi_slt(at, length), back, at), x.shape[time])
        return b.load_at(x, [source if i == time else b.index(i) for i in range(x.rank)])

    return low.build.pointwise(x.type, low.shape, body)
