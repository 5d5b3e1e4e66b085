"""Pooling on NVIDIA GPUs, channels last: a thread computes `lanes` neighbouring channels of one output position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ingot import dims
from ingot.compiler.codegen.cuda_kernel import DispatchKernel
from ingot.compiler.codegen.cuda_pointwise import choose, emit_domain
from ingot.compiler.codegen.cuda_reduce import combiner, identity
from ingot.compiler.codegen.family import Emitted
from ingot.compiler.codegen.values import Val
from ingot.dispatch import Dispatch
from ingot.kernel_plan import BufferArg
from ingot.target import Target

UNROLLED_WINDOW = 64  # positions of a window up to which they are unrolled


def emit(dispatch: Dispatch, target: Target, schedule: Any = None) -> Emitted:
    """Write the kernel of a `pool` dispatch."""
    kind = str(dispatch.attr("kind"))
    if kind not in ("max", "sum", "average"):
        raise NotImplementedError(f"pool of kind {kind!r}")
    # Lanes are channels alone: neighbouring windows do not lie as neighbouring results do.
    s = schedule or choose(dispatch, across=False)
    body = _Window(dispatch, kind).value
    return emit_domain(dispatch, dispatch, target, s, body, (BufferArg("operand", 0),))


class _Window:
    """A window's value at an output position."""

    def __init__(self, d: Dispatch, kind: str) -> None:
        self.d, self.kind = d, kind
        self.kernel, self.strides, self.dilations, self.pads = (
            tuple(int(x) for x in d.attr(n)) for n in ("kernel", "strides", "dilations", "pads")
        )
        self.acc = d.regions[0].args[0]

    def value(self, dk: DispatchKernel, position: list[Val], lanes: int) -> list[Val]:
        """Results at a position of the output, over `lanes` channels."""
        k, d = dk.k, self.d
        combine = combiner(k, "max" if self.kind == "max" else "sum", self.acc)
        neutral = identity("max" if self.kind == "max" else "sum", self.acc)
        t = k.vector_of(self.acc, lanes) if lanes else k.type(self.acc)
        total, count = k.const(neutral, t), k.const(0, "i32")
        sizes = [dk.size(n, "i32") for n in d.operands[0].shape[1:-1]]
        starts = [
            k.cast(at, "i32") * s - p
            for at, s, p in zip(position[1:-1], self.strides, self.pads[: len(self.kernel)], strict=True)
        ]

        def tap(offsets: Sequence[Val | int], total: Val, count: Val) -> tuple[Val, Val]:
            where = [start + o for start, o in zip(starts, offsets, strict=True)]
            inside = k.const(True, "i1")
            for at, n in zip(where, sizes, strict=True):
                inside = inside & at.ult(n)
            safe = [k.select(inside, at, 0) for at in where]
            x = dk.load(0, [position[0], *safe, position[-1]], d.operands[0].shape, lanes)
            if lanes and x.t.kind != "vector":  # one element repeats over all channels
                x = k.broadcast(x, lanes)
            x = k.cast(x, t) if x.t.element is not t.element else x
            x = k.select(inside, x, k.const(neutral, t))
            return combine(total, x), count + k.cast(inside, "i32", signed=False)

        window = [[o * step for o in range(n)] for n, step in zip(self.kernel, self.dilations, strict=True)]
        size = int(dims.product(self.kernel))  # type: ignore[arg-type]
        if size <= UNROLLED_WINDOW:
            for linear in range(size):
                total, count = tap(_unravel(linear, window), total, count)
        else:
            with k.for_(0, size, carry=[total, count]) as loop:
                at = dk.split(loop.iv, self.kernel)
                loop.yield_(list(tap([x * step for x, step in zip(at, self.dilations, strict=True)], *loop.carry)))
            total, count = loop.results
        if self.kind == "average":
            total = self._average(dk, total, count, starts, sizes)
        return dk.region(d.regions[0], [total], position, d.results[0].shape, lanes)

    def _average(self, dk: DispatchKernel, total: Val, count: Val, starts: list[Val], sizes: list[Val]) -> Val:
        """The sum divided by the elements averaged: those of the operand, and of its declared padding where that counts."""
        k = dk.k
        if self.d.attr("count_include_pad", False):
            count = k.const(1, "i32")
            ends = self.pads[len(self.kernel) :]
            for start, n, size, step, end in zip(starts, self.kernel, sizes, self.dilations, ends, strict=True):
                # Positions of the window below the end of the padded operand.
                left = k.max(size + end - start, 0)
                count = count * k.min((left + (step - 1)) // step, n)
        divisor = k.cast(count, total.t.element)
        return total / (k.broadcast(divisor, total.t.lanes) if total.t.kind == "vector" else divisor)


def _unravel(linear: int, window: Sequence[Sequence[int]]) -> list[int]:
    out = []
    for offsets in reversed(window):
        out.append(offsets[linear % len(offsets)])
        linear //= len(offsets)
    return out[::-1]
