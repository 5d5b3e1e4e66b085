"""A unit: the blocks that are emulated together, their scheduler, barriers and clocks.

A unit is one or several whole clusters (blocks, where there are no clusters). Its threads are numbered block after
block; groups of them (group.py) run as far as they can, and wait at barriers. Asynchronous copies are performed as late
as possible, when no group can
go on: a kernel that forgets to wait reads what was there before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ingot.compiler.emulator.group import WARPGROUP, Frame, Group, merge
from ingot.compiler.emulator.memory import SHARED_START, GlobalMemory, SharedMemory
from ingot.compiler.emulator.report import EmulationError, Finding, Report

if TYPE_CHECKING:
    from ingot.compiler.emulator.program import Program

_FAR = 1 << 30  # the clock of "nobody" wrote this: everyone knows of it
_NAMED_BARRIERS = 16
_SPINS = 100  # rounds in which every group only polls memory, after which nothing will change any more


class BarrierState:
    """A `bar` barrier of one block: threads that are there, warps among them, and how often it has completed."""

    def __init__(self) -> None:
        self.count = 0
        self.actors: list[int] = []
        self.generation = 0


class MbarrierState:
    """An mbarrier: `expected` arrivals a phase, `pending` ones, bytes awaited, phases completed, and what they release."""

    def __init__(self, expected: int, clocks: int) -> None:
        self.expected = self.pending = expected
        self.bytes = 0
        self.phase = 0
        self.gathering = np.zeros(clocks, np.int32)
        self.released = np.zeros(clocks, np.int32)

    def settle(self) -> None:
        """Complete the phase if nothing is awaited any more."""
        if self.pending == 0 and self.bytes == 0:
            self.phase += 1
            self.pending = self.expected
            np.maximum(self.released, self.gathering, out=self.released)


class BarrierWait:
    """Waiting for barriers: `keys` (block * 16 + barrier) and the generation awaited, per thread."""

    def __init__(self, unit: Unit, keys: np.ndarray, generation: np.ndarray) -> None:
        self.unit, self.keys, self.generation = unit, keys, generation

    def ready(self, group: Group) -> np.ndarray:
        done = {int(k): self.unit.barriers[int(k)].generation for k in np.unique(self.keys)}
        return np.array([done[int(k)] for k in self.keys]) >= self.generation

    def take(self, index: np.ndarray) -> BarrierWait:
        return BarrierWait(self.unit, self.keys[index], self.generation[index])

    def acquire(self, group: Group) -> None:
        """Nothing: the barrier joined the clocks of all its warps when it completed."""

    def __str__(self) -> str:
        key = int(self.keys[0])
        state = self.unit.barriers[key]
        return f"bar.sync {key % _NAMED_BARRIERS} of block {key // _NAMED_BARRIERS}, where {state.count} threads have arrived"


class MbarrierWait:
    """Waiting for phases of mbarriers: their positions and parities, per thread."""

    def __init__(self, unit: Unit, where: np.ndarray, parity: np.ndarray) -> None:
        self.unit, self.where, self.parity = unit, where, parity

    def ready(self, group: Group) -> np.ndarray:
        phases = {int(w): self.unit.mbarriers[int(w)].phase for w in np.unique(self.where)}
        return np.array([phases[int(w)] for w in self.where]) & 1 != self.parity

    def take(self, index: np.ndarray) -> MbarrierWait:
        return MbarrierWait(self.unit, self.where[index], self.parity[index])

    def acquire(self, group: Group) -> None:
        """The waiting warps know what happened before the completed phases."""
        clocks = self.unit.clocks
        actors = group.warp_numbers
        for where, actor in {(int(w), int(a)) for w, a in zip(self.where, actors, strict=True)}:
            np.maximum(clocks[actor], self.unit.mbarriers[where].released, out=clocks[actor])

    def __str__(self) -> str:
        where = int(self.where[0])
        state = self.unit.mbarriers[where]
        return (
            f"the mbarrier at shared offset {where % self.unit.shared.size}, parity {int(self.parity[0])}: phase {state.phase} "
            f"awaits {state.pending} arrivals and {state.bytes} bytes"
        )


class ClusterWait:
    """Waiting at `barrier.cluster`: the cluster's generation awaited, per thread."""

    def __init__(self, unit: Unit, cluster: np.ndarray, generation: np.ndarray) -> None:
        self.unit, self.cluster, self.generation = unit, cluster, generation

    def ready(self, group: Group) -> np.ndarray:
        return self.unit.cluster_generation[self.cluster] >= self.generation

    def take(self, index: np.ndarray) -> ClusterWait:
        return ClusterWait(self.unit, self.cluster[index], self.generation[index])

    def acquire(self, group: Group) -> None:
        """The cluster's clocks were joined when the last thread arrived; wait only passes them on."""
        unit = self.unit
        for cluster in np.unique(self.cluster):
            actors = np.unique(unit.warp_of[group.threads[self.cluster == cluster]])
            unit.clocks[actors] = np.maximum(unit.clocks[actors], unit.cluster_clock[cluster])

    def __str__(self) -> str:
        cluster = int(self.cluster[0])
        return f"barrier.cluster of cluster {cluster}, where {self.unit.cluster_arrived[cluster]} threads have arrived"


class SpinWait:
    """A loop that polls memory: ready at once, but it is no progress."""

    def ready(self, group: Group) -> np.ndarray:
        return np.ones(group.size, bool)

    def take(self, index: np.ndarray) -> SpinWait:
        return self

    def acquire(self, group: Group) -> None:
        """Nothing to learn."""

    def __str__(self) -> str:
        return "a value in memory that nothing writes any more"


class Unit:
    """Blocks emulated together.

    Attributes:
        program: the kernel.
        blocks: number of blocks; `first_block` is the linear number of the first in the launch's (cluster-major) order.
        coordinates: (blocks, 3) block indices.
        block_of, warp_of, warpgroup_of: per thread: its block, warp and warpgroup in the unit.
        local_warps: warps of a cluster; `local_warp` gives a warp's number in its cluster.
        clocks: vector clocks: row per warp of the unit, column per warp of its cluster, then the async engines', then nobody's.
        fenced: what each warp knew at its last fence.proxy.async.
    """

    def __init__(
        self,
        program: Program,
        coordinates: np.ndarray,
        first_block: int,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        cluster: tuple[int, int, int],
        shared_bytes: int,
        memory: GlobalMemory,
        report: Report,
        check: bool,
        conflict_cache: dict[Any, int] | None,
    ) -> None:
        self.program, self.memory, self.report = program, memory, report
        self.coordinates, self.first_block = coordinates, first_block
        self.grid, self.block, self.cluster = grid, block, cluster
        self.blocks = len(coordinates)
        self.block_threads = block[0] * block[1] * block[2]
        self.warp_size = min(32, self.block_threads)
        self.cluster_size = cluster[0] * cluster[1] * cluster[2]
        self.shared_bytes = shared_bytes
        threads = np.arange(self.blocks * self.block_threads)
        warps = -(-self.block_threads // 32)
        self.block_of = threads // self.block_threads
        self.thread_in_block = threads % self.block_threads
        self.warp_of = self.block_of * warps + self.thread_in_block // 32
        self.warpgroup_of = self.block_of * -(-self.block_threads // WARPGROUP) + self.thread_in_block // WARPGROUP
        self.block_warps = warps
        self.local_warps = warps * self.cluster_size
        self.local_warp = np.arange(self.blocks * warps) % self.local_warps
        self.engine, self.nobody = self.local_warps, self.local_warps + 1
        actors = self.blocks * warps
        self.clocks = np.zeros((actors, self.local_warps + 2), np.int32)
        self.clocks[np.arange(actors), self.local_warp] = 1
        self.clocks[:, self.nobody] = _FAR
        self.fenced = np.zeros_like(self.clocks)
        self.engine_clock = np.zeros(self.blocks // self.cluster_size, np.int32)
        self.shared = SharedMemory(self, shared_bytes, program.granule, check)
        self.barriers: dict[int, BarrierState] = {}
        self.mbarriers: dict[int, MbarrierState] = {}
        clusters = self.blocks // self.cluster_size
        self.cluster_arrived = np.zeros(clusters, np.int64)
        self.cluster_generation = np.zeros(clusters, np.int64)
        self.cluster_joining = np.zeros((clusters, self.local_warps + 2), np.int32)
        self.cluster_clock = np.zeros((clusters, self.local_warps + 2), np.int32)
        self.cluster_target = np.zeros(threads.size, np.int64)  # the generation each thread's next wait is for
        self.events: list[Callable[[], None]] = []
        # cp.async, bulk stores and wgmma: unfinished operations, and how many groups each thread has committed.
        self.copies: list[Any] = []
        self.copy_groups = np.zeros(threads.size, np.int64)
        self.stores: list[Any] = []
        self.store_groups = np.zeros(threads.size, np.int64)
        self.wgmma_groups = np.zeros(threads.size, np.int64)
        self.wgmma_done = np.zeros(threads.size, np.int64)
        self.wgmma_reads: list[Any] = []
        self.wgmma_fenced = np.zeros(threads.size, bool)  # since the thread's last wait
        self.registers: dict[str, np.ndarray] = {}
        self.conflict_cache = conflict_cache
        self.groups: list[Group] = []

    # --- reporting

    def name(self, local: int) -> str:
        """What a column of the clocks stands for, in words."""
        if local == self.engine:
            return "an asynchronous copy"
        rank, warp = divmod(local, self.block_warps)
        return f"warp {warp}" + (f" of block {rank} of the cluster" if self.cluster_size > 1 else "")

    def find(self, kind: str, op: Any, group: Group, lane: int, detail: str) -> None:
        """Report a defect of thread number `lane` of the group."""
        thread = int(group.threads[lane])
        block = self.first_block + int(self.block_of[thread])
        self.report.add(op.key, Finding(kind, op.name, block, int(self.thread_in_block[thread]), detail))

    def count_conflicts(self, where: np.ndarray, nbytes: int) -> None:
        """Add the bank conflicts of one access by all threads:

        32 banks of 4 bytes; wide accesses go by half or quarter warps. Nothing if they are not to be counted.
        """
        if self.conflict_cache is None:
            return
        key = ((where - (where[0] & ~127)).tobytes(), nbytes)
        extra = self.conflict_cache.get(key)
        if extra is None:
            lanes = {8: 16, 16: 8}.get(nbytes, 32)
            padded = np.concatenate([where, np.full(-where.size % lanes, where[-1])])
            words = (padded[:, None] // 4 + np.arange(max(1, nbytes // 4))).reshape(padded.size // lanes, -1)
            words = np.sort(words, axis=1)
            new = np.ones(words.shape, bool)
            new[:, 1:] = words[:, 1:] != words[:, :-1]
            phase = np.broadcast_to(np.arange(len(words))[:, None], words.shape)
            per_bank = np.bincount((phase * 32 + words % 32)[new], minlength=32 * len(words)).reshape(-1, 32)
            extra = self.conflict_cache[key] = int(per_bank.max(axis=1).sum()) - len(words)
        self.report.bank_conflicts = (self.report.bank_conflicts or 0) + extra

    # --- special registers

    def register(self, name: str, group: Group) -> np.ndarray:
        """A special register of the group's threads, as i32 (uniform where it cannot differ)."""
        found = self.registers.get(name)
        if found is None:
            found = self.registers[name] = np.asarray(self._register(name), np.int32).reshape(-1)
        return found if found.size == 1 else found[group.threads]

    def _register(self, name: str) -> Any:
        axis = "xyz".find(name[-1])
        head = name[:-2]
        t = self.thread_in_block
        shape, cluster = self.block, self.cluster
        if head == "tid":
            return (t % shape[0], t // shape[0] % shape[1], t // (shape[0] * shape[1]))[axis]
        if head == "ntid":
            return shape[axis]
        if head == "nctaid":
            return self.grid[axis]
        if name in ("laneid", "warpid"):
            return t % 32 if name == "laneid" else t // 32
        if name == "warpsize":
            return 32
        if name in ("clock", "clock64", "globaltimer"):
            return 0
        if head == "cluster.nctaid":
            return cluster[axis]
        if name == "cluster.nctarank":
            return self.cluster_size
        if head == "nclusterid":
            return self.grid[axis] // cluster[axis]
        per_block = {
            "ctaid": lambda: self.coordinates[:, axis],
            "clusterid": lambda: self.coordinates[:, axis] // cluster[axis],
            "cluster.ctaid": lambda: self.coordinates[:, axis] % cluster[axis],
        }.get(head)
        if per_block is None and name == "cluster.ctarank":
            inside = self.coordinates % np.array(cluster)
            ranks = inside[:, 0] + cluster[0] * (inside[:, 1] + cluster[1] * inside[:, 2])
        elif per_block is None:
            raise NotImplementedError(f"the emulator has no special register {name}")
        else:
            ranks = per_block()
        return ranks if (ranks == ranks[0]).all() and ranks.size == 1 else ranks[self.block_of]

    # --- clocks

    def release(self, actors: np.ndarray) -> None:
        """What these warps do from here on happens after what others learn now."""
        self.clocks[actors, self.local_warp[actors]] += 1

    def join_clocks(self, actors: np.ndarray) -> None:
        """These warps meet: each knows what all of them did."""
        self.clocks[actors] = self.clocks[actors].max(axis=0)
        self.release(actors)

    # --- barriers

    def arrive_barrier(self, group: Group, number: np.ndarray, count: np.ndarray | None, op: Any, wait: bool) -> Any:
        """Threads of the group arrive at named barriers; returns what to wait for, or None."""
        if not group.whole_warps:
            raise EmulationError(f"{op.name} is executed by a part of a warp's threads")
        blocks = group.blocks
        if count is None and number.size == 1:
            per_block = np.bincount(blocks, minlength=self.blocks)
            if ((per_block == 0) | (per_block == self.block_threads)).all() and not self._pending(blocks, int(number[0])):
                self._join_blocks(np.flatnonzero(per_block))
                return None
        keys = blocks * _NAMED_BARRIERS + number
        keys = np.broadcast_to(keys, blocks.shape)
        counts = np.broadcast_to(np.array([self.block_threads]) if count is None else count, blocks.shape)
        target = np.zeros(group.size, np.int64)
        for key in np.unique(keys):
            lanes = np.flatnonzero(keys == key)
            state = self.barriers.setdefault(int(key), BarrierState())
            target[lanes] = state.generation + 1
            state.count += lanes.size
            state.actors += np.unique(self.warp_of[group.threads[lanes]]).tolist()
            needed = int(counts[lanes[0]])
            if state.count > needed:
                self.find("barrier", op, group, int(lanes[0]), f"{state.count} threads arrive at a barrier of {needed}")
            if state.count >= needed:
                self.join_clocks(np.unique(state.actors))
                state.count, state.actors = 0, []
                state.generation += 1
        if not wait:
            return None
        waiting = BarrierWait(self, keys, target)
        return None if waiting.ready(group).all() else waiting

    def _pending(self, blocks: np.ndarray, number: int) -> bool:
        states = (self.barriers.get(int(b) * _NAMED_BARRIERS + number) for b in np.unique(blocks))
        return any(state is not None and state.count for state in states)

    def _join_blocks(self, blocks: np.ndarray) -> None:
        shape = (self.blocks, self.block_warps, self.clocks.shape[1])
        clocks = self.clocks.reshape(shape)
        clocks[blocks] = clocks[blocks].max(axis=1, keepdims=True)
        actors = (blocks[:, None] * self.block_warps + np.arange(self.block_warps)).reshape(-1)
        self.release(actors)

    def arrive_cluster(self, group: Group) -> None:
        """Threads of the group arrive at their cluster's barrier."""
        cluster = group.blocks // self.cluster_size
        self.cluster_target[group.threads] = self.cluster_generation[cluster] + 1
        for c in np.unique(cluster):
            lanes = cluster == c
            actors = np.unique(self.warp_of[group.threads[lanes]])
            np.maximum(self.cluster_joining[c], self.clocks[actors].max(axis=0), out=self.cluster_joining[c])
            self.release(actors)
            self.cluster_arrived[c] += int(lanes.sum())
            if self.cluster_arrived[c] == self.block_threads * self.cluster_size:
                self.cluster_arrived[c] = 0
                self.cluster_generation[c] += 1
                self.cluster_clock[c] = self.cluster_joining[c]

    def mbarrier(self, where: int, op: Any, group: Group, lane: int) -> MbarrierState:
        """The mbarrier at a position of shared memory; a missing one is reported and made up."""
        state = self.mbarriers.get(where)
        if state is None:
            self.find("mbarrier", op, group, lane, f"no mbarrier was initialized at shared offset {where % self.shared.size}")
            state = self.mbarriers[where] = MbarrierState(1, self.clocks.shape[1])
        return state

    # --- scheduling

    def run(self) -> None:
        """Run all threads to the end of the kernel."""
        threads = np.arange(self.blocks * self.block_threads)
        group = Group(self, threads, list(self.program.template), [Frame(self.program.body, self.program)])
        self.groups = [group]
        idle = 0
        while self.groups:
            runnable = [g for g in self.groups if g.wait is None or g.wait.ready(g).all()]
            if runnable:
                spinning = all(isinstance(g.wait, SpinWait) for g in runnable)
                idle = idle + 1 if spinning and not self.events else 0
                if spinning and self.events:
                    self._drain()
                if idle > _SPINS and not self._split_partly_ready():
                    self._deadlock(runnable)
                self._advance(runnable)
            elif self.events:
                self._drain()
            elif not self._split_partly_ready():
                self._deadlock(self.groups)
        while self.events:
            self._drain()
        for store in self.stores:
            thread = store.thread
            block = self.first_block + int(self.block_of[thread])
            detail = "the kernel ends before this store was waited for (bulk_wait)"
            self.report.add(-1, Finding("async", "cp.async.bulk", block, int(self.thread_in_block[thread]), detail))
            store.complete()

    def _deadlock(self, groups: list[Group]) -> None:
        where = "; ".join(str(g.wait) for g in groups[:4])
        held = sum(g.size for g in groups)
        raise EmulationError(f"{self.program.name}: deadlock: {held} threads wait for {where}")

    def _drain(self) -> None:
        events, self.events = self.events, []
        for event in events:
            event()

    def _advance(self, runnable: list[Group]) -> None:
        for g in runnable:
            if g.wait is not None:
                g.wait.acquire(g)
                g.wait = None
        places: dict[tuple, list[Group]] = {}
        for g in runnable:
            places.setdefault(g.place(), []).append(g)
        for groups in places.values():
            group = groups[0]
            if len(groups) > 1:
                group = merge(groups)
                self.groups = [g for g in self.groups if g not in groups]
                self.groups.append(group)
            self.advance(group)

    def _split_partly_ready(self) -> bool:
        """Let those warps go on whose wait is over though their group's is not; False if there are none."""
        found = False
        for group in list(self.groups):
            ready = np.zeros(group.size, bool) if group.wait is None else group.wait.ready(group)
            if ready.all():
                continue
            warp = group.threads // self.warp_size
            ready = (np.bincount(warp, ~ready) == 0)[warp]
            if ready.any():
                found = True
                self.groups.remove(group)
                for part, mask in zip(group.part(ready), (ready, ~ready), strict=True):
                    part.wait = group.wait.take(np.flatnonzero(mask))
                    self.groups.append(part)
        return found

    def replace(self, group: Group, parts: list[Group]) -> None:
        """The group has become these groups (none if it is held for others)."""
        self.groups.remove(group)
        self.groups += parts

    def advance(self, group: Group) -> None:
        """Run a group until it waits, ends, or is split."""
        while group.frames:
            frame = group.frames[-1]
            if frame.index == len(frame.nodes):
                if not frame.owner.leave(group):
                    return
                continue
            node = frame.nodes[frame.index]
            frame.index += 1
            if not node.enter(group):
                return
        self.groups.remove(group)

    def end_frame(self, group: Group) -> bool:
        """Pop the group's innermost frame; lanes of torn warps wait for the others. False if the group itself is gone."""
        frame = group.frames.pop()
        if frame.join is None:
            return True
        held = np.isin(group.threads, frame.join.expected)
        if not held.any():
            return True
        parts: list[Group] = []
        if held.all():
            waiting = group
        else:
            waiting, free = group.part(held)
            parts.append(free)
        frame.join.arrived.append(waiting)
        arrived = np.concatenate([g.threads for g in frame.join.arrived])
        if arrived.size == frame.join.expected.size:
            parts.append(merge(frame.join.arrived))
            frame.join.arrived = []
        self.replace(group, parts)
        return False


def shared_address(offset: int) -> int:
    """The address (`ptr<3>`) of an offset into a block's shared memory."""
    return SHARED_START + offset
