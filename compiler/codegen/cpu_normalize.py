"""The family of `normalize` on the CPU: softmax, log-softmax, layer and RMS normalization over any axes.

Statistics are taken in passes over the input (maximum, then sum of exponentials; mean, then mean square of what is left), and
the region `map` is run again in each pass: a row is in the first cache then, and nothing bounds its length.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ingot import dims
from ingot.compiler.codegen.cpu_kernel import cpu_kernel
from ingot.compiler.codegen.cpu_reduce import ReductionRegions
from ingot.compiler.codegen.cpu_reduction import Instance, for_instances
from ingot.compiler.codegen.cpu_region import Position
from ingot.compiler.codegen.family import Emitted
from ingot.compiler.codegen.scalar_lowering import ScalarEmitter
from ingot.compiler.codegen.values import Val
from ingot.dispatch import Dispatch
from ingot.target import Target

KINDS = ("softmax", "log_softmax", "layer", "rms")


def emit(dispatch: Dispatch, target: Target, schedule: Any = None) -> Emitted:
    """See `family.emit`; there is one schedule."""
    x = dispatch.operands[0]
    axes = tuple(int(a) % max(1, x.rank) for a in dispatch.attr("axes"))
    kind, epsilon = str(dispatch.attr("kind")), float(dispatch.attr("epsilon", 0.0))
    if kind not in KINDS:
        raise ValueError(f"normalize of kind {kind!r}: expected one of {', '.join(KINDS)}")
    mapping, epilogue = dispatch.regions
    dtype = mapping.type_of(mapping.results[0])
    regions = ReductionRegions(dispatch, target, axes, dtype)
    space = regions.space
    with cpu_kernel(dispatch, target, dims.product(space.grid)) as ck:
        k = ck.k
        scalar = ScalarEmitter(k)
        map_emitter = regions.emitter(ck, mapping, space.axes)
        epilogue_emitter = regions.emitter(ck, epilogue, space.axes)
        count = k.cast(ck.dim(space.count), dtype)

        def mapped(at: Position) -> Val:
            return map_emitter([regions.element(ck, at)], at)[0]

        def total(one: Instance, f: Callable[[Val], Val]) -> Val:
            """The sum of f(y)."""

            def step(at: Position, carry: list[Val]) -> list[Val]:
                return [carry[0] + one.keep(at, f(mapped(at)), 0.0)]

            (value,) = one.fold([one.splat(0.0, dtype)], step)
            return one.across(value, Val.__add__)

        def finish(one: Instance, f: Callable[[Val], Val], *statistics: Val) -> None:
            """Store the epilogue of f(y), and of the statistics where it takes them."""

            def store(at: Position) -> None:
                y = mapped(at)
                if at.lanes and y.t.kind != "vector":
                    y = k.broadcast(y, at.lanes)
                regions.store(ck, epilogue_emitter([f(y), *statistics][: len(epilogue.args)], at), at)

            one.each(store, regions.masked(ck))

        def softmax(one: Instance) -> None:
            def step(at: Position, carry: list[Val]) -> list[Val]:
                return [k.maximum(carry[0], one.keep(at, mapped(at), float("-inf")))]

            (value,) = one.fold([one.splat(float("-inf"), dtype)], step)
            largest = one.across(value, k.maximum)
            denominator = total(one, lambda y: scalar.exp(y - largest))
            if kind == "softmax":
                factor = 1.0 / denominator
                finish(one, lambda y: scalar.exp(y - largest) * factor)
            else:
                log = scalar.log(denominator)
                finish(one, lambda y: y - largest - log)

        def layer(one: Instance) -> None:
            mean = total(one, lambda y: y) / count

            def square(y: Val) -> Val:
                centered = y - mean
                return centered * centered

            factor = 1.0 / k.sqrt(total(one, square) / count + epsilon)
            finish(one, lambda y: (y - mean) * factor, mean, factor)

        def rms(one: Instance) -> None:
            factor = 1.0 / k.sqrt(total(one, lambda y: y * y) / count + epsilon)
            finish(one, lambda y: y * factor, factor)

        body = {"softmax": softmax, "log_softmax": softmax, "layer": layer, "rms": rms}[kind]
        for_instances(ck, space, regions.lanes, body, regions.masked(ck))
        return ck.emitted(dims.product(x.shape) * 8)
