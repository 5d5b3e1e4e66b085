"""What a case of the kernel benchmark is: a dispatch whose results are checked, or whose time is compared."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ingot.dispatch import Dispatch


@dataclass(frozen=True)
class Check:
    """A dispatch whose results are compared with the float64 reference, at given sizes.

    Attributes:
        target: whose code runs, assembled for the GPU at hand; "" for that GPU's.
        row: the only tensor-core instruction to use, by its name in `mma_table`; "" for all of the target's.
        prepare: changes views of the operands, which are random.
    """

    name: str
    dispatch: Dispatch
    sizes: Mapping[str, int] = field(default_factory=dict)
    target: str = ""
    schedule: Any = None
    row: str = ""
    prepare: Callable[[list[np.ndarray]], None] = lambda views: None


@dataclass(frozen=True)
class Speed:
    """A dispatch whose time is compared.

    Attributes:
        floor: least acceptable ratio of the other's time to ours; 0 for rows without one.
        other: from the operands and result (PyTorch tensors of the dispatch's shapes) to a function that does the same, or
            None for a copy of as many bytes.
        same: operands that lie in the memory of an earlier one, by number.
        cold: calls take turns with copies of the operands that together exceed the second-level cache, as the layers of a model
            do; without it, what fits there stays there from call to call.
    """

    name: str
    dispatch: Dispatch
    floor: float = 0.0
    other: Callable[[list[torch.Tensor], torch.Tensor], Callable[[], Any]] | None = None
    target: str = ""
    schedule: Any = None
    same: Mapping[int, int] = field(default_factory=dict)
    cold: bool = False


COLD_BYTES = 160 << 20


def in_turns(functions: list[Callable[[], Any]]) -> Callable[[], Any]:
    """A function whose calls call the given ones in turns."""
    turn = itertools.cycle(functions)
    return lambda: next(turn)()
