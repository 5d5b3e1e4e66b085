"""Shadow memory: who touched which bytes of shared memory, and which accesses race.

FastTrack (Flanagan and Freund, 2009) over warps: a cell, which stands for a granule of bytes, remembers its last writer's
clock and every reader's; an access races with one that does not happen before it by the warps' vector clocks, which barriers
join. Asynchronous engines count the cells that they have in hand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ingot.compiler.emulator.group import Group
    from ingot.compiler.emulator.unit import Unit


class Cells:
    """The shadow cells of accesses of one size.

    Attributes:
        rows: which rows of the shadow are touched, where its cells stand in rows of `per`.
        per: cells of a row.
        parts: rows of one access, which follow each other in `rows`; 1 where accesses lie at multiples of their size.
    """

    __slots__ = ("parts", "per", "rows")

    def __init__(self, rows: np.ndarray, per: int, parts: int = 1) -> None:
        self.rows, self.per, self.parts = rows, per, parts

    def of(self, shadow: np.ndarray) -> np.ndarray:
        """(rows, per, ...): the cells' values."""
        return shadow.reshape(-1, self.per, *shadow.shape[1:]).take(self.rows, axis=0)

    def put(self, shadow: np.ndarray, values: np.ndarray | int) -> None:
        """Set the cells: to one value, or to a value for each access."""
        shadow.reshape(-1, self.per)[self.rows] = values if isinstance(values, int) else self.by_row(values)[:, None]

    def add(self, shadow: np.ndarray, value: int) -> None:
        """Add to each cell, once."""
        shadow.reshape(-1, self.per)[self.rows] += value

    def by_row(self, values: np.ndarray) -> np.ndarray:
        """Values of accesses as values of rows."""
        return values if self.parts == 1 else np.repeat(values, self.parts, axis=0)


class Shadow:
    """The cells of a unit's shared memory.

    Attributes:
        granule: bytes of a cell.
        writer, write_clock: the last writer's column in the clocks, and its clock then.
        read_clock: (cells, warps of a cluster) the clocks of last reads.
    """

    def __init__(self, unit: Unit, nbytes: int, window: int, granule: int) -> None:
        self.unit, self.granule, self.window = unit, granule, window
        count = nbytes // granule
        self.writer = np.full(count, unit.nobody, np.int16)
        self.write_clock = np.zeros(count, np.int32)
        self.read_clock = np.zeros((count, unit.local_warps), np.int32)
        self._written = np.zeros(count, np.int16)  # by asynchronous operations that are unfinished
        self._read = np.zeros(count, np.int16)
        self._writing = self._reading = 0  # rows of cells for which these are not 0

    def cells(self, where: np.ndarray, nbytes: int) -> Cells:
        """The cells of accesses of `nbytes` at positions `where`."""
        granule = self.granule
        if nbytes <= granule:
            return Cells(where // granule, 1)
        if not nbytes & (nbytes - 1) and not (where & (nbytes - 1)).any():
            return Cells(where // nbytes, nbytes // granule)
        parts = -(-nbytes // granule)
        return Cells(((where // granule)[:, None] + np.arange(parts)).reshape(-1), 1, parts)

    # --- accesses by threads

    def read(self, group: Group, where: np.ndarray, nbytes: int, op: Any) -> None:
        """Check and record reads by the group's threads."""
        unit, cells = self.unit, self.cells(where, nbytes)
        writer = cells.of(self.writer)
        if (late := self._late_write(group, cells, writer)) is not None:
            self._race(group, cells, late, "reads", f"what {unit.name(int(writer[late]))} wrote", op)
        self._check_written(group, cells, writer, op)
        actor = cells.by_row(group.warp_numbers)
        local = unit.local_warp[actor]
        self.read_clock.reshape(-1, cells.per, unit.local_warps)[cells.rows, :, local] = unit.clocks[actor, local][:, None]

    def write(self, group: Group, where: np.ndarray, nbytes: int, op: Any, record: bool = True) -> Cells:
        """Check writes by the group's threads, and record them unless they only happen later; returns their cells."""
        unit, cells = self.unit, self.cells(where, nbytes)
        writer = cells.of(self.writer)
        if (late := self._late_write(group, cells, writer)) is not None:
            self._race(group, cells, late, "overwrites", f"what {unit.name(int(writer[late]))} wrote", op)
        reads, known = cells.of(self.read_clock), unit.clocks[:, : unit.local_warps]
        if (reads > known[group.actors].min(axis=0)).any():
            behind = reads > known[cells.by_row(group.warp_numbers)][:, None]
            if behind.any():
                row, i, reader = map(int, np.argwhere(behind)[0])
                self._race(group, cells, (row, i), "overwrites", f"what {unit.name(reader)} reads", op)
        self._check_free(group, cells, op)
        if record:
            local = unit.local_warp[group.warp_numbers]
            cells.put(self.writer, local)
            cells.put(self.write_clock, unit.clocks[group.warp_numbers, local])
        return cells

    def _late_write(self, group: Group, cells: Cells, writer: np.ndarray) -> tuple[int, int] | None:
        """(row, cell in it) of the first cell whose last write the accessing warp does not know of."""
        clocks, written = self.unit.clocks, cells.of(self.write_clock)
        # What all of the group's warps know is enough as a rule, and cheaper to look up than what each knows.
        if (written <= clocks[group.actors].min(axis=0).take(writer)).all():
            return None
        late = written > clocks[cells.by_row(group.warp_numbers)[:, None], writer]
        return _first(late)

    # --- accesses by asynchronous engines, for thread number `lane` of the group

    def begin_copies(self, cells: Cells) -> None:
        """Copies have begun whose writes were checked."""
        cells.add(self._written, 1)
        self._writing += cells.rows.size

    def begin_write(self, group: Group, lane: int, cells: Cells, op: Any) -> None:
        """The thread starts a copy into these cells."""
        unit = self.unit
        known = unit.clocks[group.warp_numbers[lane]]
        writer = cells.of(self.writer)
        if (late := _first(cells.of(self.write_clock) > known[writer])) is not None:
            self._race(group, cells, late, "overwrites", f"what {unit.name(int(writer[late]))} wrote", op, lane)
        behind = cells.of(self.read_clock) > known[: unit.local_warps]
        if behind.any():
            row, i, reader = map(int, np.argwhere(behind)[0])
            self._race(group, cells, (row, i), "overwrites", f"what {unit.name(reader)} reads", op, lane)
        self._check_free(group, cells, op, lane)
        self.begin_copies(cells)

    def end_write(self, cells: Cells, writer: int | np.ndarray, clock: int | np.ndarray) -> None:
        """The copy has landed, as a write of local warp `writer` at `clock`."""
        cells.add(self._written, -1)
        self._writing -= cells.rows.size
        cells.put(self.writer, writer)
        cells.put(self.write_clock, clock)

    def begin_read(self, group: Group, lane: int, cells: Cells, op: Any) -> None:
        """The thread starts an operation of the async proxy (TMA store, wgmma) that reads these cells."""
        unit = self.unit
        actor = int(group.warp_numbers[lane])
        writer, written, known = cells.of(self.writer), cells.of(self.write_clock), unit.clocks[actor]
        if (late := _first(written > known[writer])) is not None:
            self._race(group, cells, late, "reads", f"what {unit.name(int(writer[late]))} wrote", op, lane)
        self._check_written(group, cells, writer, op, lane)
        # Ordinary writes need a proxy fence between: by the writer after them, or by the reader once it has seen them.
        ordinary = writer < unit.local_warps
        first = actor - int(unit.local_warp[actor])
        local = np.where(ordinary, writer, 0)
        unfenced = ordinary & (unit.fenced[first + local, local] < written) & (unit.fenced[actor][writer] < written)
        if (found := _first(unfenced)) is not None:
            at = self._offset(cells, found)
            detail = f"no fence.proxy.async between the ordinary write of shared offset {at} and this read"
            unit.find("proxy", op, group, lane, detail)
        cells.add(self._read, 1)
        self._reading += cells.rows.size

    def end_read(self, cells: Cells, actors: list[int]) -> None:
        """The operation has read its operands; warps `actors` know that."""
        cells.add(self._read, -1)
        self._reading -= cells.rows.size
        for actor in actors:
            local = int(self.unit.local_warp[actor])
            self.read_clock.reshape(-1, cells.per, self.unit.local_warps)[cells.rows, :, local] = self.unit.clocks[actor, local]

    # --- findings; those of accesses by threads are of the row's thread, others of thread `lane`

    def _check_written(self, group: Group, cells: Cells, writer: np.ndarray, op: Any, lane: int = -1) -> None:
        if (fresh := _first(writer == self.unit.nobody)) is not None:
            detail = f"shared offset {self._offset(cells, fresh)} was never written"
            self.unit.find("uninitialized", op, group, _lane(cells, fresh, lane), detail)
        if self._writing and (found := _first(cells.of(self._written) != 0)) is not None:
            detail = f"an asynchronous copy into shared offset {self._offset(cells, found)} has not been waited for"
            self.unit.find("async", op, group, _lane(cells, found, lane), detail)

    def _check_free(self, group: Group, cells: Cells, op: Any, lane: int = -1) -> None:
        for busy, shadow in ((self._writing, self._written), (self._reading, self._read)):
            if busy and (found := _first(cells.of(shadow) != 0)) is not None:
                detail = f"shared offset {self._offset(cells, found)} is in use by an unfinished asynchronous operation"
                self.unit.find("async", op, group, _lane(cells, found, lane), detail)

    def _race(self, group: Group, cells: Cells, found: tuple[int, int], verb: str, what: str, op: Any, lane: int = -1) -> None:
        detail = f"{verb} shared offset {self._offset(cells, found)}, {what}, with no barrier between"
        self.unit.find("race", op, group, _lane(cells, found, lane), detail)

    def _offset(self, cells: Cells, found: tuple[int, int]) -> int:
        row, i = found
        return (int(cells.rows[row]) * cells.per + i) * self.granule % self.window


def _first(bad: np.ndarray) -> tuple[int, int] | None:
    """(row, cell in it) of the first cell that is bad."""
    if not bad.any():
        return None
    row, i = map(int, np.argwhere(bad)[0])
    return row, i


def _lane(cells: Cells, found: tuple[int, int], lane: int) -> int:
    return found[0] // cells.parts if lane < 0 else lane
