"""Instructions of whole warpgroups: warps that arrive apart wait for the others of their warpgroup.

PTX ISA, "Asynchronous Warpgroup Level Matrix Instructions": wgmma's instructions are `.sync.aligned`: all threads of a
warpgroup (four warps of a block, the first with a number that four divides) execute the same one. Its warps may come there
one after the other: where one lane of one of them waits for room before it starts a copy, only that warp is late.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ingot.compiler.emulator.group import WARPGROUP, Group, merge
from ingot.compiler.emulator.program import Op, Run
from ingot.compiler.emulator.report import EmulationError

if TYPE_CHECKING:
    from ingot.compiler.emulator.unit import Unit


class WarpgroupWait:
    """Waiting at an instruction for the rest of warpgroups, of which the first is at hand: the last to arrive ends it."""

    def __init__(self, instruction: WarpgroupInstruction, unit: Unit, warpgroup: int) -> None:
        self.instruction, self.unit, self.warpgroup = instruction, unit, warpgroup

    def ready(self, group: Group) -> np.ndarray:
        return np.zeros(group.size, bool)

    def __str__(self) -> str:
        unit = self.unit
        threads = np.concatenate([g.threads for g in self.instruction.held(unit)])
        threads = threads[unit.warpgroup_of[threads] == self.warpgroup]
        block = unit.first_block + int(unit.block_of[threads[0]])
        warps = ", ".join(map(str, np.unique(unit.thread_in_block[threads] // 32)))
        return f"the rest of a warpgroup at {self.instruction.name} of block {block}, where its warps {warps} are"


class WarpgroupInstruction:
    """A node that runs a closure where all warps of a warpgroup have come, for the warpgroups that are complete."""

    def __init__(self, op: Op, run: Run) -> None:
        self.name, self.run = op.name, run

    def enter(self, group: Group) -> bool:
        if group.whole_warpgroups:
            self.run(group)
            return True
        unit = group.unit
        if not group.whole_warps or (unit.thread_in_block[group.threads] // WARPGROUP >= unit.block_threads // WARPGROUP).any():
            raise EmulationError(f"{self.name} is executed by a part of a warpgroup")
        group.frames[-1].index -= 1  # this node is still to run
        self._hold(group)
        held = self.held(unit)
        present = np.bincount(np.concatenate([unit.warpgroup_of[g.threads] for g in held]))
        complete: list[Group] = []
        for g in held:
            mask = present[unit.warpgroup_of[g.threads]] == WARPGROUP
            if mask.all():
                complete.append(g)
                unit.replace(g, [])
            elif mask.any():
                there, rest = g.part(mask)
                complete.append(there)
                self._hold(rest)
                unit.replace(g, [rest])
        if complete:
            gathered = merge(complete)
            for frame in gathered.frames:
                frame.join = None  # it is for lanes of torn warps, and all lanes of these are here
            unit.groups.append(gathered)
        return False

    def held(self, unit: Unit) -> list[Group]:
        """The unit's groups that wait here."""
        return [g for g in unit.groups if isinstance(g.wait, WarpgroupWait) and g.wait.instruction is self]

    def _hold(self, group: Group) -> None:
        group.wait = WarpgroupWait(self, group.unit, int(group.unit.warpgroup_of[group.threads[0]]))
