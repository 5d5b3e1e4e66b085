"""Products whose weights lie in packed order, on the emulator: against the same kernel's product of weights that do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import cuda_dispatches as make
import numpy as np
from cuda_emulation import Emulated, run_emulated

from ingot.compiler.reference import run_dispatch
from ingot.dispatch import Dispatch
from ingot.dtypes import DTYPES
from ingot.target import Target
from ingot.weight_packing import packed


def packing(d: Dispatch) -> Callable[[list[np.ndarray]], None]:
    """What puts a product's weights, in their own order, into packed order: `prepare` of `run_emulated`."""
    bits = DTYPES[d.operands[1].dtype].bits

    def prepare(views: list[np.ndarray]) -> None:
        views[1][...] = packed(np.ascontiguousarray(views[1].T), bits).T

    return prepare


def check_packed(
    d: Dispatch, target: str | Target, schedule: Any, plain: Any = None, sizes: Mapping[str, int] | None = None
) -> Emulated:
    """The same bits as of weights in their own order, and those right by the statistical rule.

    `plain` is the schedule for those, where it is another one.
    """
    expected = run_emulated(d, target, sizes, plain or schedule)
    (exact,) = run_dispatch(make.unrounded(d), expected.operands, sizes, float64=True)
    (same,) = run_dispatch(d, expected.operands, sizes)
    make.check_against(expected.results[0], exact, same)
    found = run_emulated(make.packed(d), target, sizes, schedule, prepare=packing(d))
    assert np.array_equal(found.results[0].view(np.uint8), expected.results[0].view(np.uint8))
    (peer,) = run_dispatch(make.packed(d), found.operands, sizes)
    assert np.array_equal(peer, same)
    return found
