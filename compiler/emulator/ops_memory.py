"""Pointers, loads, stores and atomics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ingot.compiler.emulator.group import Group
from ingot.compiler.emulator.memory import GENERIC_SHARED, RANK_SHIFT, SHARED_START
from ingot.compiler.emulator.ops_arith import elementwise, unsigned
from ingot.compiler.emulator.program import Op, Run, handler
from ingot.compiler.emulator.values import Kind, kind_of, spread

_DYNAMIC = -(1 << 31)


@handler("llvm.getelementptr")
def _getelementptr(op: Op) -> Run:
    indices = [int(x) for x in op.attr("rawConstantIndices").split(":")[1].rstrip("> ").split(",")]
    if len(indices) != 1:
        raise NotImplementedError("llvm.getelementptr with more than one index")
    size = kind_of(op.attr("elem_type")).nbytes
    if indices[0] != _DYNAMIC:
        step = indices[0] * size
        return elementwise(op, lambda p: p + step)
    if size == 1:
        return elementwise(op, lambda p, i: p + i)
    return elementwise(op, lambda p, i: p + i.astype(np.int64) * size)


@handler("llvm.ptrtoint")
def _ptrtoint(op: Op) -> Run:
    dtype = op.result_kinds[0].dtype
    return elementwise(op, lambda p: p.astype(dtype))


@handler("llvm.inttoptr")
def _inttoptr(op: Op) -> Run:
    return elementwise(op, lambda x: unsigned(x).astype(np.int64))


@handler("llvm.addrspacecast")
def _addrspacecast(op: Op) -> Run:
    source, target = op.operand_kinds[0].space, op.result_kinds[0].space
    a, r = op.operands[0], op.results[0]

    def run(group: Group) -> None:
        address = group.env[a]
        if source == 3 and target in (0, 7):
            unit = group.unit
            rank = group.blocks % unit.cluster_size
            address = address + (rank << RANK_SHIFT)
        if source in (3, 7) and target == 0:
            address = address + GENERIC_SHARED
        elif source == 0 and target == 7:
            address = address - GENERIC_SHARED
        elif source == 0 and target == 3:
            address = address & ((1 << RANK_SHIFT) - 1)
        group.env[r] = address

    return run


@handler("llvm.mlir.addressof")
def _addressof(op: Op) -> Run:
    name = op.attr("global_name").removeprefix("@")
    where, what = op.program.globals[name]
    r = op.results[0]

    def run(group: Group) -> None:
        if where == "table":
            address = group.unit.memory.add(what)
        else:
            address = SHARED_START + (what if where == "shared" else group.unit.program.dynamic_start)
        group.env[r] = np.array([address])

    return run


@handler("llvm.alloca")
def _alloca(op: Op) -> Run:
    size = kind_of(op.attr("elem_type")).nbytes
    count, r = op.operands[0], op.results[0]

    def run(group: Group) -> None:
        nbytes = -(-int(group.env[count][0]) * size // 64) * 64
        base = group.unit.memory.add(np.zeros(nbytes * group.size, np.uint8), initialized=False)
        group.env[r] = base + nbytes * np.arange(group.size)

    return run


def from_bytes(raw: np.ndarray, kind: Kind) -> np.ndarray:
    """(threads, nbytes) bytes as a value."""
    if kind.dtype.kind == "b":
        return (raw & 1).astype(bool).T.reshape(*kind.shape, -1)
    flat = np.ascontiguousarray(raw).view(kind.dtype)
    return flat.T.reshape(*kind.shape, flat.shape[0])


def to_bytes(value: np.ndarray, threads: int) -> np.ndarray:
    """A value as (threads, nbytes) bytes."""
    flat = spread(value, threads).reshape(-1, threads).T
    return np.ascontiguousarray(flat).view(np.uint8).reshape(threads, -1)


def shared_positions(group: Group, address: np.ndarray, space: int, nbytes: int = 1) -> np.ndarray:
    """Positions in shared memory of `nbytes` at addresses of the group's threads, of space 3 or 7; -1 out of bounds."""
    return group.unit.shared.index(group, spread(address, group.size), space, nbytes)


def read(group: Group, address: np.ndarray, space: int, nbytes: int, align: int, op: Op) -> np.ndarray:
    """(threads or 1, nbytes) bytes at addresses in a space."""
    unit = group.unit
    if space == 0 and int(address[0]) >= GENERIC_SHARED:
        address, space = address - GENERIC_SHARED, 7
    if space in (3, 7):
        where = shared_positions(group, address, space, nbytes)
        return unit.shared.load(group, where, nbytes, align, op)
    return unit.memory.load(unit, group, address, nbytes, align, op)


def write(group: Group, address: np.ndarray, space: int, raw: np.ndarray, align: int, op: Op) -> None:
    """Store (threads, nbytes) bytes at addresses in a space."""
    unit = group.unit
    if space == 0 and int(address[0]) >= GENERIC_SHARED:
        address, space = address - GENERIC_SHARED, 7
    if space in (3, 7):
        unit.shared.store(group, shared_positions(group, address, space, raw.shape[1]), raw, align, op)
    else:
        unit.memory.store(unit, group, spread(address, group.size), raw, align, op)


@handler("llvm.load")
def _load(op: Op) -> Run:
    kind, space = op.result_kinds[0], op.operand_kinds[0].space
    nbytes = kind.nbytes
    align = op.int_attr("alignment", 1)
    if space in (0, 3, 7):
        op.program.note_access(nbytes, align)
    p, r = op.operands[0], op.results[0]

    def run(group: Group) -> None:
        group.env[r] = from_bytes(read(group, group.env[p], space, nbytes, align, op), kind)

    return run


@handler("llvm.store")
def _store(op: Op) -> Run:
    kind, space = op.operand_kinds[0], op.operand_kinds[1].space
    align = op.int_attr("alignment", 1)
    if space in (0, 3, 7):
        op.program.note_access(kind.nbytes, align)
    x, p = op.operands

    def run(group: Group) -> None:
        env = group.env
        write(group, env[p], space, to_bytes(env[x], group.size), align, op)

    return run


# --- lanes of vectors: masked accesses, gathers and scatters; each active lane is an access of its own


def _by_lane(group: Group, address: np.ndarray, mask: np.ndarray, lanes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(active lanes of each thread as (lane, thread) index arrays, their addresses)."""
    threads = group.size
    active = np.broadcast_to(mask, (lanes, threads))
    address = np.broadcast_to(address, (lanes, threads))
    lane, thread = np.nonzero(active)
    return lane, thread, address[lane, thread]


def _masked_read(group: Group, address: np.ndarray, mask: np.ndarray, other: np.ndarray, kind: Kind, space: int, op: Op) -> Any:
    lanes = kind.shape[0]
    lane, thread, where = _by_lane(group, address, mask, lanes)
    out = np.array(np.broadcast_to(other, (lanes, group.size)))
    if where.size:
        part = group.subset(thread)
        raw = read(part, where, space, kind.dtype.itemsize, kind.dtype.itemsize, op)
        out[lane, thread] = from_bytes(raw, Kind(kind.dtype))
    return out


def _masked_write(
    group: Group, value: np.ndarray, address: np.ndarray, mask: np.ndarray, kind: Kind, space: int, op: Op
) -> None:
    lanes = kind.shape[0]
    lane, thread, where = _by_lane(group, address, mask, lanes)
    if where.size:
        part = group.subset(thread)
        raw = to_bytes(np.broadcast_to(value, (lanes, group.size))[lane, thread], where.size)
        write(part, where, space, raw, kind.dtype.itemsize, op)


@handler("llvm.intr.masked.load")
def _masked_load(op: Op) -> Run:
    kind, space = op.result_kinds[0], op.operand_kinds[0].space
    steps = np.arange(kind.shape[0])[:, None] * kind.dtype.itemsize
    op.program.note_access(kind.dtype.itemsize, kind.dtype.itemsize)
    p, mask, other = op.operands
    r = op.results[0]

    def run(group: Group) -> None:
        env = group.env
        env[r] = _masked_read(group, env[p] + steps, env[mask], env[other], kind, space, op)

    return run


@handler("llvm.intr.masked.store")
def _masked_store(op: Op) -> Run:
    kind, space = op.operand_kinds[0], op.operand_kinds[1].space
    steps = np.arange(kind.shape[0])[:, None] * kind.dtype.itemsize
    op.program.note_access(kind.dtype.itemsize, kind.dtype.itemsize)
    x, p, mask = op.operands

    def run(group: Group) -> None:
        env = group.env
        _masked_write(group, env[x], env[p] + steps, env[mask], kind, space, op)

    return run


@handler("llvm.intr.masked.gather")
def _gather(op: Op) -> Run:
    kind, space = op.result_kinds[0], op.operand_kinds[0].space
    op.program.note_access(kind.dtype.itemsize, kind.dtype.itemsize)
    ptrs, mask, other = op.operands
    r = op.results[0]

    def run(group: Group) -> None:
        env = group.env
        env[r] = _masked_read(group, env[ptrs], env[mask], env[other], kind, space, op)

    return run


@handler("llvm.intr.masked.scatter")
def _scatter(op: Op) -> Run:
    kind, space = op.operand_kinds[0], op.operand_kinds[1].space
    op.program.note_access(kind.dtype.itemsize, kind.dtype.itemsize)
    x, ptrs, mask = op.operands

    def run(group: Group) -> None:
        env = group.env
        _masked_write(group, env[x], env[ptrs], env[mask], kind, space, op)

    return run


_ATOMICS: dict[int, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    0: lambda old, x: x,
    1: lambda old, x: old + x,
    2: lambda old, x: old - x,
    3: lambda old, x: old & x,
    5: lambda old, x: old | x,
    6: lambda old, x: old ^ x,
    7: np.maximum,
    8: np.minimum,
    9: lambda old, x: np.maximum(unsigned(old), unsigned(x)).view(old.dtype),
    10: lambda old, x: np.minimum(unsigned(old), unsigned(x)).view(old.dtype),
    11: lambda old, x: old + x,
}


@handler("llvm.atomicrmw")
def _atomicrmw(op: Op) -> Run:
    kind, space = op.operand_kinds[1], op.operand_kinds[0].space
    combine = _ATOMICS[op.int_attr("bin_op")]
    nbytes = kind.nbytes
    if space in (3, 7):
        op.program.note_access(nbytes, nbytes)
    p, x = op.operands
    r = op.results[0]

    def run(group: Group) -> None:
        env, unit = group.env, group.unit
        address, value = spread(env[p], group.size), spread(env[x], group.size)
        old = np.empty_like(value)
        # Lanes that meet at one address go one after the other: each round takes the first lane of every address left.
        left = np.arange(group.size)
        shadow, unit.shared.shadow = unit.shared.shadow, None  # atomics do not race with each other
        try:
            while left.size:
                _, first = np.unique(address[left], return_index=True)
                lanes = left[first]
                part = group.subset(lanes)
                where = address[lanes]
                before = from_bytes(read(part, where, space, nbytes, nbytes, op), kind)
                old[..., lanes] = before
                after = combine(before, value[..., lanes])
                write(part, where, space, to_bytes(after, lanes.size), nbytes, op)
                left = np.delete(left, first)
        finally:
            unit.shared.shadow = shadow
        env[r] = old

    return run


@handler("llvm.intr.prefetch", "nvvm.prefetch", "llvm.fence", "nvvm.memory.barrier", "llvm.intr.assume")
def _nothing(op: Op) -> Run:
    return lambda group: None
