"""Groups of threads that are at the same place of the program, and their control flow.

A group runs one instruction for all its threads at once. Where threads part ways over code that may block (a barrier,
an mbarrier wait),
the group is split for good along warps: each part is scheduled on its own, and parts merge again when they stand at the
    same place.
Where that would tear a warp, its lanes wait for each other at the end of the construct, as the hardware's reconvergence
does. Code that cannot block is run for each side in turn by `take`n copies of the values it uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ingot.compiler.emulator.values import InFlight, join, take

if TYPE_CHECKING:
    from ingot.compiler.emulator.unit import Unit


WARPGROUP = 128  # threads


class Reconvergence:
    """Where the lanes of warps that a construct tore apart wait for each other:

    `expected` threads, and the groups that are there.
    """

    def __init__(self) -> None:
        self.expected: np.ndarray = np.zeros(0, np.int64)
        self.arrived: list[Group] = []

    def expect(self, threads: np.ndarray) -> None:
        """Add lanes of torn warps."""
        self.expected = np.union1d(self.expected, threads)


class Frame:
    """A block being run: its `nodes`, the `index` of the next, the construct `owner` it belongs to, and torn-off lanes."""

    __slots__ = ("index", "join", "nodes", "owner")

    def __init__(self, nodes: list[Any], owner: Any, index: int = 0, join: Reconvergence | None = None) -> None:
        self.nodes, self.owner, self.index, self.join = nodes, owner, index, join

    def copy(self) -> Frame:
        return Frame(self.nodes, self.owner, self.index, self.join)


class Group:
    """Threads of one unit at one place of the program.

    Attributes:
        unit: the blocks being run.
        threads: sorted thread numbers in the unit.
        env: value of each slot; None where it has none.
        frames: the stack of blocks being run.
        wait: what the group waits for (an object with `ready(group) -> bool array over threads`), or None.
    """

    __slots__ = (
        "_actors", "_blocks", "_first_lanes", "_warp_numbers", "_warpgroups", "_warps",
        "env", "frames", "threads", "unit", "wait",
    )  # fmt: skip

    def __init__(self, unit: Unit, threads: np.ndarray, env: list[Any], frames: list[Frame]) -> None:
        self.unit, self.threads, self.env, self.frames = unit, threads, env, frames
        self.wait: Any = None
        self._warps: bool | None = None
        self._warpgroups: bool | None = None
        self._blocks: np.ndarray | None = None
        self._warp_numbers: np.ndarray | None = None
        self._actors: np.ndarray | None = None
        self._first_lanes: dict[int, Group] = {}

    @property
    def size(self) -> int:
        return self.threads.size

    @property
    def blocks(self) -> np.ndarray:
        """Each thread's block in the unit."""
        if self._blocks is None:
            self._blocks = self.unit.block_of[self.threads]
        return self._blocks

    @property
    def warp_numbers(self) -> np.ndarray:
        """Each thread's warp in the unit."""
        if self._warp_numbers is None:
            self._warp_numbers = self.unit.warp_of[self.threads]
        return self._warp_numbers

    @property
    def actors(self) -> np.ndarray:
        """The warps of which the group has threads."""
        if self._actors is None:
            self._actors = np.flatnonzero(np.bincount(self.warp_numbers))
        return self._actors

    @property
    def whole_warps(self) -> bool:
        """True if the group consists of complete warps."""
        if self._warps is None:
            t = self.threads
            n = self.unit.warp_size
            self._warps = bool(
                t.size % n == 0 and (t[::n] % n == 0).all() and (t.reshape(-1, n) == t[::n, None] + np.arange(n)).all()
            )
        return self._warps

    @property
    def whole_warpgroups(self) -> bool:
        """True if the group consists of complete warpgroups."""
        if self._warpgroups is None:
            first, last = self.threads[::WARPGROUP], self.threads[WARPGROUP - 1 :: WARPGROUP]
            inside = self.unit.thread_in_block
            self._warpgroups = bool(
                self.whole_warps
                and self.size % WARPGROUP == 0
                and (last - first == WARPGROUP - 1).all()
                and (inside[first] % WARPGROUP == 0).all()
                and (inside[last] - inside[first] == WARPGROUP - 1).all()
            )
        return self._warpgroups

    def subset(self, index: np.ndarray) -> Group:
        """A view of some threads that shares this group's values; for code that cannot block."""
        return Group(self.unit, self.threads[index], self.env, [])

    def first_lanes(self, count: int) -> Group:
        """The first `count` lanes of each warp, for a group of whole warps."""
        found = self._first_lanes.get(count)
        if found is None:
            found = self._first_lanes[count] = self.subset(np.arange(self.size).reshape(-1, 32)[:, :count].reshape(-1))
        return found

    def split(self, index: np.ndarray) -> Group:
        """A group of its own of some threads, at the same place."""
        env = [take(v, index) if self.holds(v) else None for v in self.env]
        return Group(self.unit, self.threads[index], env, [frame.copy() for frame in self.frames])

    def holds(self, value: Any) -> bool:
        """True for a value of all threads; what a subset left behind inside a branch is dead."""
        while isinstance(value, tuple) and value:
            value = value[0]
        array = value.array if isinstance(value, InFlight) else value
        return isinstance(array, np.ndarray) and array.shape[-1] in (1, self.size)

    def part(self, mask: np.ndarray) -> tuple[Group, Group]:
        """Split into the threads where `mask` holds and the others; both sides must be non-empty."""
        return self.split(np.flatnonzero(mask)), self.split(np.flatnonzero(~mask))

    def torn_lanes(self, mask: np.ndarray) -> np.ndarray:
        """Threads of the warps in which `mask` holds for some of the group's lanes and not for others."""
        warp = self.threads // self.unit.warp_size
        taken = np.bincount(warp, mask)
        present = np.bincount(warp)
        return self.threads[((taken > 0) & (taken < present))[warp]]

    def place(self) -> tuple:
        """What is equal for groups that may be merged: where they are, and what their loops count."""
        key: list[Any] = []
        for frame in self.frames:
            key.append((id(frame.nodes), frame.index, id(frame.join)))
            counter = getattr(frame.owner, "iv", None)
            if counter is not None:
                iv = self.env[counter]
                key.append(iv.tobytes() if iv.shape[-1] == 1 else None)
        return tuple(key)


def merge(groups: list[Group]) -> Group:
    """One group of several at the same place; values that not all of them have are dropped, and those that a branch left."""
    first = groups[0]
    threads = np.concatenate([g.threads for g in groups])
    order = np.argsort(threads, kind="stable")
    sizes = [g.size for g in groups]
    env: list[Any] = []
    for values in zip(*(g.env for g in groups), strict=True):
        head = values[0]
        if any(v is None or not g.holds(v) for g, v in zip(groups, values, strict=True)):
            env.append(None)
        elif all(v is head for v in values) and not (isinstance(head, np.ndarray) and head.shape[-1] > 1):
            env.append(head if not isinstance(head, tuple) else join(list(values), sizes, order))
        else:
            env.append(join(list(values), sizes, order))
    return Group(first.unit, threads[order], env, [frame.copy() for frame in first.frames])


def uniform(array: np.ndarray) -> Any:
    """The value that all threads have, or None if they differ."""
    if array.shape[-1] == 1 or (array[0] == array).all():
        return array[0]
    return None
