"""Operators that depend on the order of elements, or on which of them is largest."""

from __future__ import annotations

from ingot.passes.onnx_lowering.graph_builder import INT64
from ingot.passes.onnx_lowering.lowering import Lowering, lowering
from ingot.passes.onnx_lowering.reductions import is_unsigned, ordered_as_signed
from ingot.passes.onnx_lowering.region_builder import RegionBuilder, Scalar
from ingot.passes.onnx_lowering.values import Source, TypedValue


@lowering("ArgMax", "ArgMin")
def _arg(low: Lowering) -> Source:
    x = low.tensor(0)
    axis = low.node.axis(low.attr("axis"), x.rank)
    found = position_of(low, x, "max" if low.op == "ArgMax" else "min", axis, last=bool(low.attr("select_last_index")))
    return low.build.reshape(found, low.shape)


def position_of(low: Lowering, x: TypedValue, kind: str, axis: int, *, last: bool = False) -> TypedValue:
    """The first (or last) position of the extremum along an axis, which keeps size 1: the extremum, then where it is."""
    ordered = ordered_as_signed if is_unsigned(x.type) else lambda b, e: e
    extremum = low.build.reduce(x, kind, [axis], x.type, map=ordered, finish=ordered)

    def position(b: RegionBuilder, e: Scalar) -> Scalar:
        m = b.load(extremum)
        hit = b.cmpf_oeq(e, m) if e.is_float else b.cmpi_eq(e, m)
        return b.select(hit, b.index(axis), b.dim(-1 if last else x.shape[axis]))

    return low.build.reduce(x, "max" if last else "min", [axis], INT64, map=position, acc="i64")


@lowering("Hardmax")
def _hardmax(low: Lowering) -> Source:
    x = low.tensor(0)
    axis = low.node.axis(low.attr("axis"), x.rank)
    place = position_of(low, x, "max", axis)

    def body(b: RegionBuilder) -> Scalar:
        one = b.known(1.0, low.type)
        return b.select(b.cmpi_eq(b.index(axis), b.load(place)), one, b.like(0, one))

    return low.build.pointwise(low.type, low.shape, body)


@lowering("TopK")
def _topk(low: Lowering) -> list[Source]:
    """The positions first, then the elements there."""
    x = low.tensor(0)
    axis = low.node.axis(low.attr("axis"), x.rank)

    def key(b: RegionBuilder, e: Scalar) -> Scalar:
        if is_unsigned(x.type):
            e = ordered_as_signed(b, e)
        if low.attr("largest"):
            return e
        return b.negf(e) if e.is_float else b.xori(e, b.like(True if e.type == "i1" else -1, e))

    places = low.build.topk(x, axis, low.shape[axis], key)

    def element(b: RegionBuilder) -> Scalar:
        return b.load_at(x, [b.load(places) if i == axis else b.index(i) for i in range(x.rank)])

    return [low.build.pointwise(x.type, low.shape, element), places]


@lowering("CumSum", "CumProd")
def _cumulative(low: Lowering) -> Source:
    x = low.tensor(0)
    axis = low.node.axis(low.node.ints(1)[0], x.rank)
    kind = "sum" if low.op == "CumSum" else "prod"
    return low.build.scan(x, kind, axis, exclusive=bool(low.attr("exclusive")), reverse=bool(low.attr("reverse")))
