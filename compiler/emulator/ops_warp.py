"""Special registers, operations across the lanes of a warp, and barriers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ingot.compiler.emulator.group import Group
from ingot.compiler.emulator.ops_arith import unsigned
from ingot.compiler.emulator.program import HANDLERS, Op, Run, blocking, handler
from ingot.compiler.emulator.report import EmulationError
from ingot.compiler.emulator.unit import ClusterWait
from ingot.compiler.emulator.values import spread

_SPECIAL_REGISTERS = [
    *(f"{name}.{axis}" for name in ("tid", "ntid", "ctaid", "nctaid", "clusterid", "nclusterid") for axis in "xyz"),
    *(f"cluster.{name}.{axis}" for name in ("ctaid", "nctaid") for axis in "xyz"),
    "cluster.ctarank", "cluster.nctarank", "laneid", "warpid", "warpsize", "clock", "clock64", "globaltimer",
]  # fmt: skip


def _special_register(op: Op) -> Run:
    name = op.name.removeprefix("nvvm.read.ptx.sreg.")
    r, dtype = op.results[0], op.result_kinds[0].dtype

    def run(group: Group) -> None:
        group.env[r] = group.unit.register(name, group).astype(dtype, copy=False)

    return run


for _name in _SPECIAL_REGISTERS:
    HANDLERS[f"nvvm.read.ptx.sreg.{_name}"] = _special_register


def whole_warps(group: Group, op: Op) -> int:
    """The number of warps of a group that executes a warp-wide operation; raises where lanes are missing."""
    if not group.whole_warps:
        raise EmulationError(f"{op.name} is executed by a part of a warp's lanes (threads {group.threads[:4]}...)")
    return group.size // group.unit.warp_size


@handler("nvvm.shfl.sync")
def _shfl(op: Op) -> Run:
    kind = op.keyword("kind")
    _, x, offset, clamp = op.operands
    r = op.results[0]
    lane = np.arange(32)

    def source(b: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """PTX ISA, shfl.sync: the lane read from, and whether it is in range."""
        bound, segment = c & 31, (c >> 8) & 31
        top = (lane & segment) | (bound & ~segment)
        if kind == "idx":
            j = (lane & segment) | (b & 31 & ~segment)
            return j, j <= top
        if kind == "bfly":
            j = lane ^ (b & 31)
            return j, j <= top
        if kind == "up":
            j = lane - (b & 31)
            return j, j >= top
        j = lane + (b & 31)
        return j, j <= top

    def run(group: Group) -> None:
        env = group.env
        warps = whole_warps(group, op)
        value = env[x]
        if value.shape[-1] == 1:
            env[r] = value
            return
        b = env[offset].astype(np.int64)
        c = env[clamp].astype(np.int64)
        b = b.reshape(-1, 32) if b.size > 1 else b
        c = c.reshape(-1, 32) if c.size > 1 else c
        j, good = source(b, c)
        j = np.where(good, j, lane)
        rows = value.reshape(warps, 32)
        moved = rows[:, j] if j.ndim == 1 else np.take_along_axis(rows, j, axis=1)
        env[r] = moved.reshape(-1)

    return run


def _folded(ufunc: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Each warp's values folded by a ufunc."""
    return lambda a: ufunc.reduce(a, axis=1)


_REDUX: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "add": lambda a: a.sum(axis=1, dtype=a.dtype),
    "min": lambda a: a.min(axis=1),
    "max": lambda a: a.max(axis=1),
    "umin": lambda a: unsigned(a).min(axis=1).view(a.dtype),
    "umax": lambda a: unsigned(a).max(axis=1).view(a.dtype),
    "fmin": _folded(np.fmin),
    "fmax": _folded(np.fmax),
    "and": _folded(np.bitwise_and),
    "or": _folded(np.bitwise_or),
    "xor": _folded(np.bitwise_xor),
}


@handler("nvvm.redux.sync")
def _redux(op: Op) -> Run:
    f = _REDUX[op.keyword("kind")]
    x, r = op.operands[0], op.results[0]

    def run(group: Group) -> None:
        warps = whole_warps(group, op)
        value = spread(group.env[x], group.size).reshape(warps, 32)
        group.env[r] = np.repeat(f(value), 32)

    return run


@handler("nvvm.vote.sync")
def _vote(op: Op) -> Run:
    kind = op.keyword("kind")
    x, r = op.operands[1], op.results[0]

    def run(group: Group) -> None:
        warps = whole_warps(group, op)
        value = spread(group.env[x], group.size).reshape(warps, 32)
        if kind == "ballot":
            bits = (value.astype(np.uint64) << np.arange(32, dtype=np.uint64)).sum(axis=1).astype(np.uint32)
            group.env[r] = np.repeat(bits.view(np.int32), 32)
            return
        answer = {"any": value.any, "all": value.all}.get(kind, lambda axis: value.all(axis) | ~value.any(axis))(axis=1)
        group.env[r] = np.repeat(answer, 32)

    return run


@handler("nvvm.elect.sync")
def _elect(op: Op) -> Run:
    r = op.results[0]

    def run(group: Group) -> None:
        whole_warps(group, op)
        group.env[r] = group.threads % 32 == 0

    return run


@handler("nvvm.bar.warp.sync")
def _bar_warp_sync(op: Op) -> Run:
    return lambda group: None


# --- barriers


@blocking("nvvm.barrier")
def _barrier(op: Op) -> Callable[[Group], Any]:
    number, count = op.segments()

    def run(group: Group) -> Any:
        env = group.env
        which = env[number[0]].astype(np.int64) if number else np.zeros(1, np.int64)
        threads = env[count[0]].astype(np.int64) if count else None
        return group.unit.arrive_barrier(group, which, threads, op, wait=True)

    return run


@handler("nvvm.barrier.arrive")
def _barrier_arrive(op: Op) -> Run:
    number, count = op.operands if len(op.operands) == 2 else (None, op.operands[0])

    def run(group: Group) -> None:
        env = group.env
        which = np.zeros(1, np.int64) if number is None else env[number].astype(np.int64)
        group.unit.arrive_barrier(group, which, env[count].astype(np.int64), op, wait=False)

    return run


@handler("nvvm.cluster.arrive", "nvvm.cluster.arrive.relaxed")
def _cluster_arrive(op: Op) -> Run:
    return lambda group: group.unit.arrive_cluster(group)


@blocking("nvvm.cluster.wait")
def _cluster_wait(op: Op) -> Callable[[Group], Any]:
    def run(group: Group) -> Any:
        unit = group.unit
        cluster = unit.block_of[group.threads] // unit.cluster_size
        wait = ClusterWait(unit, cluster, unit.cluster_target[group.threads])
        if not wait.ready(group).all():
            return wait
        wait.acquire(group)
        return None

    return run


@handler("nvvm.griddepcontrol", "nvvm.setmaxregister", "nvvm.nanosleep")
def _nothing(op: Op) -> Run:
    return lambda group: None
