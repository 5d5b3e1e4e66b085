"""The copy that precedes a scatter: its result begins as its first operand."""

from __future__ import annotations

from dataclasses import replace

from ingot.dispatch import Dispatch, ScalarInst, ScalarRegion


def copy_of_operand(d: Dispatch) -> Dispatch:
    """A pointwise dispatch that writes operand 0 of `d` to its result 0, by these numbers and with the same symbols.

    An attribute ties its key, and so the kernel's name, to `d`: other plans may hold an equal copy in the same module.
    """
    x = d.operands[0]
    load = ScalarInst("load", (), x.dtype, (("operand", 0),))
    region = ScalarRegion((), (load,), (0,))
    return replace(d, root="pointwise", operands=(x,), results=d.results[:1], attrs=(("before", d.key),), regions=(region,))
