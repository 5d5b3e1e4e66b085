"""Asynchronous copies and what they report to: cp.async, mbarriers, TMA, proxy fences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ingot.compiler.emulator.group import Group
from ingot.compiler.emulator.memory import RANK_SHIFT, SHARED_START
from ingot.compiler.emulator.ops_memory import shared_positions
from ingot.compiler.emulator.program import Op, Run, blocking, handler
from ingot.compiler.emulator.report import EmulationError
from ingot.compiler.emulator.shadow import Cells
from ingot.compiler.emulator.tensor_map import TensorMap
from ingot.compiler.emulator.unit import MbarrierState, MbarrierWait, Unit
from ingot.compiler.emulator.values import spread

# --- cp.async


@dataclass
class _Copy:
    """Unfinished cp.async copies of some threads: their group numbers, destinations and the bytes that will be there."""

    threads: np.ndarray
    group: np.ndarray
    where: np.ndarray
    raw: np.ndarray

    def take(self, some: np.ndarray) -> _Copy:
        return _Copy(self.threads[some], self.group[some], self.where[some], self.raw[some])


@handler("nvvm.cp.async.shared.global")
def _cp_async(op: Op) -> Run:
    nbytes = op.int_attr("size")
    op.program.note_access(nbytes, nbytes)
    dst, src, *src_bytes = op.operands

    def run(group: Group) -> None:
        env, unit = group.env, group.unit
        shared = unit.shared
        where = shared.settle(group, shared_positions(group, env[dst], 3, nbytes), nbytes, nbytes, op)
        address = spread(env[src], group.size)
        if src_bytes:
            count = spread(env[src_bytes[0]], group.size)
            raw = np.zeros((group.size, nbytes), np.uint8)
            for size in np.unique(count):  # zfill: only the bytes asked for are read
                lanes = np.flatnonzero(count == size)
                if size:
                    part = group.subset(lanes)
                    align = nbytes if size == nbytes else 1
                    raw[lanes, :size] = unit.memory.load(unit, part, address[lanes], int(size), align, op)
        else:
            raw = unit.memory.load(unit, group, address, nbytes, nbytes, op)
        if shared.shadow is not None:
            shared.shadow.begin_copies(shared.shadow.write(group, where, nbytes, op, record=False))
            unit.count_conflicts(where, nbytes)
        unit.copies.append(_Copy(group.threads, unit.copy_groups[group.threads], where, raw))

    return run


def _land(unit: Unit, copy: _Copy) -> None:
    """Copies have finished."""
    shared = unit.shared
    shared.copy_in(copy.where, copy.raw)
    if shared.shadow is not None:
        actor = unit.warp_of[copy.threads]
        local = unit.local_warp[actor]
        shared.shadow.end_write(shared.shadow.cells(copy.where, copy.raw.shape[1]), local, unit.clocks[actor, local])


def _finish_copies(unit: Unit, threads: np.ndarray, pending: int) -> None:
    """Land all copies of these threads but those of their last `pending` committed groups and those not committed."""
    mine = np.zeros(unit.block_of.size, bool)
    mine[threads] = True
    kept: list[_Copy] = []
    for copy in unit.copies:
        done = mine[copy.threads] & (copy.group < unit.copy_groups[copy.threads] - pending)
        if done.all():
            _land(unit, copy)
        elif done.any():
            _land(unit, copy.take(done))
            kept.append(copy.take(~done))
        else:
            kept.append(copy)
    unit.copies = kept


@handler("nvvm.cp.async.commit.group")
def _cp_async_commit(op: Op) -> Run:
    def run(group: Group) -> None:
        group.unit.copy_groups[group.threads] += 1

    return run


@handler("nvvm.cp.async.wait.group")
def _cp_async_wait(op: Op) -> Run:
    pending = op.int_attr("n")

    def run(group: Group) -> None:
        _finish_copies(group.unit, group.threads, pending)

    return run


@handler("nvvm.cp.async.mbarrier.arrive")
def _cp_async_mbarrier_arrive(op: Op) -> Run:
    noinc = op.attr("noinc") == "true"
    bar = op.operands[0]

    def run(group: Group) -> None:
        unit = group.unit
        threads = group.threads
        where = shared_positions(group, group.env[bar], 3)
        # The copies count as committed: nothing else will wait for them.
        unit.copy_groups[threads] += 1
        if not noinc:
            for lane, at in enumerate(where):
                unit.mbarrier(int(at), op, group, lane).pending += 1

        def complete() -> None:
            _finish_copies(unit, threads, 0)
            _arrive(unit, group, where, op)

        unit.events.append(complete)

    return run


# --- mbarrier


def _arrive(unit: Unit, group: Group, where: np.ndarray, op: Op) -> None:
    """Each thread of the group arrives once on the mbarrier at its position."""
    actors = group.warp_numbers
    for at in np.unique(where):
        lanes = np.flatnonzero(where == at)
        state = unit.mbarrier(int(at), op, group, int(lanes[0]))
        np.maximum(state.gathering, unit.clocks[actors[lanes]].max(axis=0), out=state.gathering)
        state.pending -= lanes.size
        if state.pending < 0:
            expected = state.expected
            unit.find("mbarrier", op, group, int(lanes[0]), f"more than the {expected} arrivals that the phase expects")
            state.pending = 0
        state.settle()
    unit.release(group.actors)


@handler("nvvm.mbarrier.init")
def _mbarrier_init(op: Op) -> Run:
    bar, count = op.operands[:2]

    def run(group: Group) -> None:
        env, unit = group.env, group.unit
        where = shared_positions(group, env[bar], 3)
        counts = spread(env[count], group.size)
        for lane, at in enumerate(where):
            if at < 0 or at % 8:
                unit.find("out of bounds", op, group, lane, f"there is no mbarrier at shared address {int(env[bar][-1]):#x}")
            unit.mbarriers[int(at)] = MbarrierState(int(counts[lane]), unit.clocks.shape[1])

    return run


@handler("nvvm.mbarrier.inval")
def _mbarrier_inval(op: Op) -> Run:
    bar = op.operands[0]

    def run(group: Group) -> None:
        unit = group.unit
        for at in np.unique(shared_positions(group, group.env[bar], 3)):
            unit.mbarriers.pop(int(at), None)

    return run


@handler("nvvm.mbarrier.arrive")
def _mbarrier_arrive(op: Op) -> Run:
    bar = op.operands[0]
    space = op.operand_kinds[0].space

    def run(group: Group) -> None:
        where = shared_positions(group, group.env[bar], space)
        _arrive(group.unit, group, where, op)
        if op.results:
            group.env[op.results[0]] = np.zeros(1, np.int64)

    return run


@handler("nvvm.mbarrier.arrive.expect_tx", "nvvm.mbarrier.expect_tx")
def _mbarrier_expect(op: Op) -> Run:
    bar, count = op.operands[:2]
    arrives = "arrive" in op.name

    def run(group: Group) -> None:
        env, unit = group.env, group.unit
        where = shared_positions(group, env[bar], 3)
        for lane, (at, nbytes) in enumerate(zip(where, spread(env[count], group.size), strict=True)):
            unit.mbarrier(int(at), op, group, lane).bytes += int(nbytes)
        if arrives:
            _arrive(unit, group, where, op)

    return run


@blocking("nvvm.mbarrier.try_wait.parity")
def _mbarrier_wait(op: Op) -> Callable[[Group], Any]:
    bar, parity, _ = op.operands

    def run(group: Group) -> Any:
        env, unit = group.env, group.unit
        where = shared_positions(group, env[bar], 3)
        for at in np.unique(where):
            unit.mbarrier(int(at), op, group, int(np.flatnonzero(where == at)[0]))
        wait = MbarrierWait(unit, where, spread(env[parity], group.size) & 1)
        if not wait.ready(group).all():
            return wait
        wait.acquire(group)
        return None

    return run


@handler("nvvm.mapa")
def _mapa(op: Op) -> Run:
    p, rank = op.operands
    r = op.results[0]

    def run(group: Group) -> None:
        env = group.env
        env[r] = env[p] + (env[rank].astype(np.int64) << RANK_SHIFT)

    return run


@handler("nvvm.fence.mbarrier.init")
def _fence_mbarrier_init(op: Op) -> Run:
    return lambda group: None


@handler("nvvm.fence.proxy")
def _fence_proxy(op: Op) -> Run:
    def run(group: Group) -> None:
        unit = group.unit
        actors = group.actors
        unit.fenced[actors] = unit.clocks[actors]
        unit.release(actors)

    return run


# --- TMA


def tensor_map_at(unit: Unit, address: int) -> TensorMap:
    """The tensor map a `tensormap` parameter stands for."""
    maps = unit.program.tensor_maps
    number = address - TENSOR_MAPS
    if not 0 <= number < len(maps):
        raise EmulationError(f"{unit.program.name}: {address:#x} is not the address of a tensor map")
    return maps[number]


TENSOR_MAPS = 1 << 60  # "addresses" of the tensor maps among a launch's arguments


def _complete_bytes(unit: Unit, group: Group, lane: int, at: int, nbytes: int, known: np.ndarray, clock: int, op: Op) -> None:
    """A copy's bytes are counted on an mbarrier; its waiters know the copy, and what its issuer knew."""
    state = unit.mbarrier(at, op, group, lane)
    np.maximum(state.gathering, known, out=state.gathering)
    state.gathering[unit.engine] = max(int(state.gathering[unit.engine]), clock)
    state.bytes -= nbytes
    if state.bytes < 0:
        unit.find("mbarrier", op, group, lane, f"{-state.bytes} more bytes arrive than the phase expects")
        state.bytes = 0
    state.settle()


def _start_load(
    group: Group, lane: int, op: Op, targets: list[tuple[int, int]], read: Callable[[], np.ndarray], offsets: np.ndarray
) -> None:
    """Copy chunks (n, bytes) from `read` to shared offsets of each target (block, mbarrier position), later.

    `offsets` are byte offsets of the chunks in a block's window, all of equal size.
    """
    unit = group.unit
    shared = unit.shared
    known = unit.clocks[group.warp_numbers[lane]].copy()
    raw = read()
    chunk = raw.shape[1]
    places = []
    for block, at in targets:
        if offsets.min() < 0 or offsets.max() + chunk > shared.limit:
            unit.find("out of bounds", op, group, lane, "the copy reaches beyond the block's shared memory")
            return
        where = block * shared.size + offsets
        cells = None
        if shared.shadow is not None:
            cells = shared.shadow.cells(where, chunk)
            shared.shadow.begin_write(group, lane, cells, op)
        places.append((where, cells, at))

    def complete() -> None:
        cluster = int(group.blocks[lane]) // unit.cluster_size
        unit.engine_clock[cluster] += 1
        clock = int(unit.engine_clock[cluster])
        for where, cells, at in places:
            shared.copy_in(where, raw)
            if cells is not None:
                assert shared.shadow is not None
                shared.shadow.end_write(cells, unit.engine, clock)
            _complete_bytes(unit, group, lane, at, raw.size, known, clock, op)

    unit.events.append(complete)


@handler("nvvm.cp.async.bulk.tensor.shared.cluster.global")
def _tma_load(op: Op) -> Run:
    (dst,), (tensor_map,), coordinates, (bar,), im2col, multicast, _, _ = op.segments()
    dst_space = op.operand_kinds[0].space
    bar_space = op.operand_kinds[op.operands.index(bar)].space

    def run(group: Group) -> None:
        env, unit = group.env, group.unit
        n = group.size
        where = shared_positions(group, env[dst], dst_space)
        bars = shared_positions(group, env[bar], bar_space)
        size = unit.shared.size
        for lane in range(n):
            descriptor = tensor_map_at(unit, int(spread(env[tensor_map], n)[lane]))
            start = [int(spread(env[c], n)[lane]) for c in coordinates]
            offsets = [int(spread(env[c], n)[lane]) for c in im2col]
            block, offset = divmod(int(where[lane]), size)
            if where[lane] < 0 or offset % 128:
                unit.find("misaligned", op, group, lane, f"the destination at shared offset {offset} is not 128-byte aligned")
                continue
            first = block // unit.cluster_size * unit.cluster_size
            if multicast:
                mask = int(spread(env[multicast[0]], n)[lane]) & 0xFFFF
                blocks = [first + r for r in range(unit.cluster_size) if mask >> r & 1]
            else:
                blocks = [block]
            bar_offset = int(bars[lane]) % size
            targets = [(b, b * size + bar_offset) for b in blocks]
            chunks = descriptor.shared_offsets(SHARED_START + offset) - SHARED_START

            def read(d: TensorMap = descriptor, s: list[int] = start, o: list[int] = offsets, lane: int = lane) -> np.ndarray:
                return _read_box(group, lane, d, s, o, op)

            _start_load(group, lane, op, targets, read, chunks)

    return run


def _read_box(group: Group, lane: int, descriptor: TensorMap, start: list[int], offsets: list[int], op: Op) -> np.ndarray:
    """A box's bytes as 16-byte chunks."""
    unit = group.unit
    where, good = descriptor.elements(start, offsets)
    size = descriptor.element_bytes
    buffer, _ = unit.memory.locate(unit.memory.add(descriptor.array))
    assert buffer is not None
    inside = np.where(good, where, 0)
    if good.any() and int(inside[good].max()) + size > buffer.size:
        unit.find("out of bounds", op, group, lane, "the tensor map reaches beyond its buffer")
        good = good & (where + size <= buffer.size)
        inside = np.where(good, where, 0)
    elements = buffer.data.view(f"u{size}").take(inside // size)
    elements[~good] = 0
    return elements.view(np.uint8).reshape(-1, 16)


@handler("nvvm.cp.async.bulk.tensor.global.shared.cta")
def _tma_store(op: Op) -> Run:
    (tensor_map,), (src,), coordinates, _, _ = op.segments()
    return _make_tensor_store(op, tensor_map, src, coordinates, "")


def _make_tensor_store(op: Op, tensor_map: int, src: int, coordinates: list[int], reduction: str) -> Run:
    def run(group: Group) -> None:
        env, n = group.env, group.size
        for lane in range(n):
            address = int(spread(env[tensor_map], n)[lane])
            start = [int(spread(env[c], n)[lane]) for c in coordinates]
            tensor_store(group, lane, op, address, int(spread(env[src], n)[lane]), start, reduction)

    return run


def tensor_store(group: Group, lane: int, op: Op, address: int, src: int, start: list[int], reduction: str) -> None:
    """Copy a box from shared memory to global memory (combined with what is there where `reduction` says), later."""
    unit = group.unit
    shared = unit.shared
    descriptor = tensor_map_at(unit, address)
    part = group.subset(np.array([lane]))
    base = int(shared_positions(part, np.array([src]), 3)[0])
    block, offset = divmod(base, shared.size)
    where = block * shared.size + descriptor.shared_offsets(SHARED_START + offset) - SHARED_START
    if base < 0 or offset % 128 or int(where.max()) + 16 > block * shared.size + shared.limit:
        unit.find("out of bounds", op, group, lane, f"the box at shared offset {offset} is misaligned or leaves shared memory")
        return
    cells = _begin_read(group, lane, where, op)

    def complete() -> None:
        raw = shared.copy_out(where, 16).reshape(-1, descriptor.element_bytes)
        places, good = descriptor.elements(start)
        buffer, _ = unit.memory.locate(unit.memory.add(descriptor.array))
        assert buffer is not None
        places, good = places.reshape(-1), good.reshape(-1)
        if (places[good] + descriptor.element_bytes > buffer.size).any():
            unit.find("out of bounds", op, group, lane, "the tensor map reaches beyond its buffer")
            good = good & (places + descriptor.element_bytes <= buffer.size)
        index = places[good][:, None] + np.arange(descriptor.element_bytes)
        new = raw[good]
        if reduction:
            from ingot.dtypes import DTYPES

            dtype = DTYPES[descriptor.dtype].np
            combine = {"add": np.add, "min": np.minimum, "max": np.maximum}[reduction]
            old = np.ascontiguousarray(buffer.data[index]).view(dtype)
            new = combine(old, np.ascontiguousarray(new).view(dtype)).view(np.uint8)
        buffer.data[index] = new
        if buffer.valid is not None:
            buffer.valid[index] = True
        buffer.written = True

    _queue_store(group, lane, complete, cells)


@dataclass
class _Store:
    """An unfinished bulk store: its thread, group number, and what performs it."""

    thread: int
    group: int
    complete: Callable[[], None]
    cells: Cells | None


def _begin_read(group: Group, lane: int, where: np.ndarray, op: Op) -> Cells | None:
    """Note that the thread's store reads chunks of 16 bytes of shared memory."""
    shadow = group.unit.shared.shadow
    if shadow is None:
        return None
    cells = shadow.cells(where, 16)
    shadow.begin_read(group, lane, cells, op)
    return cells


def _queue_store(group: Group, lane: int, complete: Callable[[], None], cells: Cells | None) -> None:
    unit = group.unit
    thread = int(group.threads[lane])
    unit.stores.append(_Store(thread, int(unit.store_groups[thread]), complete, cells))


@handler("nvvm.cp.async.bulk.commit.group")
def _bulk_commit(op: Op) -> Run:
    def run(group: Group) -> None:
        group.unit.store_groups[group.threads] += 1

    return run


@handler("nvvm.cp.async.bulk.wait_group")
def _bulk_wait(op: Op) -> Run:
    pending = op.int_attr("group")

    def run(group: Group) -> None:
        finish_stores(group.unit, group.threads, pending)

    return run


def finish_stores(unit: Unit, threads: np.ndarray, pending: int) -> None:
    """Perform these threads' stores, but those of the last `pending` groups and those not committed."""
    mine = set(threads.tolist())
    kept: list[_Store] = []
    for store in unit.stores:
        if store.thread in mine and store.group < unit.store_groups[store.thread] - pending:
            store.complete()
            if store.cells is not None:
                assert unit.shared.shadow is not None
                unit.shared.shadow.end_read(store.cells, [int(unit.warp_of[store.thread])])
        else:
            kept.append(store)
    unit.stores = kept


@handler("nvvm.cp.async.bulk.shared.cluster.global")
def _bulk_load(op: Op) -> Run:
    (dst,), (src,), (bar,), (count,), _, _ = op.segments()
    dst_space, bar_space = op.operand_kinds[0].space, op.operand_kinds[2].space

    def run(group: Group) -> None:
        env, unit, n = group.env, group.unit, group.size
        where = shared_positions(group, env[dst], dst_space)
        bars = shared_positions(group, env[bar], bar_space)
        for lane in range(n):
            nbytes = int(spread(env[count], n)[lane])
            address = int(spread(env[src], n)[lane])
            block, offset = divmod(int(where[lane]), unit.shared.size)
            if nbytes % 16 or offset % 16 or address % 16 or where[lane] < 0:
                unit.find("misaligned", op, group, lane, f"{nbytes} bytes to shared offset {offset}: not multiples of 16")
                continue
            part = group.subset(np.full(nbytes // 16, lane))
            chunks = np.arange(nbytes // 16) * 16

            def read(part: Group = part, chunks: np.ndarray = address + chunks) -> np.ndarray:
                return unit.memory.load(unit, part, chunks, 16, 16, op)

            _start_load(group, lane, op, [(block, int(bars[lane]))], read, offset + chunks)

    return run


@handler("nvvm.cp.async.bulk.global.shared.cta")
def _bulk_store(op: Op) -> Run:
    (dst,), (src,), (count,), _, _ = op.segments()

    def run(group: Group) -> None:
        env, unit, n = group.env, group.unit, group.size
        shared = unit.shared
        where = shared_positions(group, env[src], 3)
        for lane in range(n):
            nbytes = int(spread(env[count], n)[lane])
            address = int(spread(env[dst], n)[lane])
            if nbytes % 16 or where[lane] % 16 or address % 16 or where[lane] < 0:
                unit.find("misaligned", op, group, lane, f"{nbytes} bytes to {address:#x}: not multiples of 16")
                continue
            chunks = np.arange(nbytes // 16) * 16
            places = int(where[lane]) + chunks
            cells = _begin_read(group, lane, places, op)

            def complete(places: np.ndarray = places, target: np.ndarray = address + chunks, lane: int = lane) -> None:
                raw = shared.copy_out(places, 16)
                unit.memory.store(unit, group.subset(np.full(len(target), lane)), target, raw, 16, op)

            _queue_store(group, lane, complete, cells)

    return run


@handler("nvvm.cp.async.bulk.prefetch", "nvvm.cp.async.bulk.tensor.prefetch")
def _prefetch(op: Op) -> Run:
    return lambda group: None


def remote_arrive(group: Group, address: np.ndarray, op: Op) -> None:
    """Arrive on the mbarrier at a cluster address (`mbarrier.arrive.shared::cluster`)."""
    _arrive(group.unit, group, shared_positions(group, address.astype(np.int64), 7), op)
