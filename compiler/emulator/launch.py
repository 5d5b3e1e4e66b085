"""`emulate`: run a kernel of a module of Kernel IR on numpy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ingot.compiler.emulator import control, ops_arith, ops_async, ops_matrix, ops_memory, ops_warp
from ingot.compiler.emulator.memory import GlobalMemory
from ingot.compiler.emulator.ops_async import TENSOR_MAPS
from ingot.compiler.emulator.program import Program
from ingot.compiler.emulator.report import EmulationError, Report
from ingot.compiler.emulator.tensor_map import TensorMap
from ingot.compiler.emulator.unit import Unit
from ingot.compiler.emulator.values import Kind
from ingot.dialects.mlir import ir, kernel_context

_OPERATIONS = (control, ops_arith, ops_async, ops_matrix, ops_memory, ops_warp)  # importing them registers their handlers

# Blocks that run together: enough threads to outweigh Python's cost an operation, little enough memory.
_UNIT_THREADS = 4096
_UNIT_SHARED = 1 << 22


@dataclass
class Uninitialized:
    """A buffer argument whose contents count as unwritten: reading it before writing is reported."""

    array: np.ndarray


@dataclass
class Within:
    """A buffer argument that points `offset` bytes beyond the beginning of its buffer."""

    array: np.ndarray | Uninitialized
    offset: int


@dataclass
class Addresses:
    """An argument that points to an array of the addresses of these buffers (the CPU's calling convention)."""

    arrays: Sequence[np.ndarray | Uninitialized]


def _three(dims: int | Sequence[int]) -> tuple[int, int, int]:
    values = (dims,) if isinstance(dims, int) else tuple(dims)
    return (*values, 1, 1, 1)[:3]  # type: ignore[return-value]


def emulate(
    module: Any,
    kernel_name: str,
    grid: int | Sequence[int],
    block: int | Sequence[int],
    args: Sequence[Any],
    *,
    cluster: int | Sequence[int] = 1,
    dynamic_shared_bytes: int = 0,
    check: bool = True,
    count_conflicts: bool = False,
) -> Report:
    """Run one launch of a kernel; arrays among the arguments are read and written in place.

    Args:
        module: a module of Kernel IR, as text or `ir.Module`; or the `Program` of a kernel that is to run several times.
        kernel_name: the kernel's symbol.
        grid: blocks along x, y, z.
        block: threads of a block along x, y, z (CPU kernels: 1).
        args: one for each parameter: a numpy array, `Uninitialized`, `Within`, `Addresses` or None (a null pointer) for a
            pointer; a `TensorMap` for a tensor map; a number otherwise. Arrays that are the same memory, or dense parts of one
            another, are so in the kernel too.
        cluster: blocks of a cluster along x, y, z, which divide the grid.
        dynamic_shared_bytes: dynamic shared memory of a block.
        check: look for races, uninitialized reads and missing fences too; bounds and alignment are always checked.
        count_conflicts: count bank conflicts of shared memory.

    Returns:
        What was found and counted; `report.check()` raises if anything was found.

    Raises:
        EmulationError: a deadlock, an unknown operation, or a warp-wide operation executed by a part of a warp.
        ValueError: arguments that do not fit the kernel.
    """
    if isinstance(module, str):
        module = ir.Module.parse(module, kernel_context())
    program = module if isinstance(module, Program) else Program(module, kernel_name)
    grids, blocks, clusters = _three(grid), _three(block), _three(cluster)
    if any(g % c for g, c in zip(grids, clusters, strict=True)):
        raise ValueError(f"a grid of {grids} blocks does not consist of clusters of {clusters}")
    if len(args) != len(program.parameters):
        raise ValueError(f"{kernel_name} takes {len(program.parameters)} arguments, not {len(args)}")
    memory, report = GlobalMemory(), Report(bank_conflicts=0 if count_conflicts else None)
    program.tensor_maps = [a for a in args if isinstance(a, TensorMap)]
    # Arrays may be parts of others: the largest first.
    whole = [a.array if isinstance(a, Within) else a for a in args]
    arrays = [a.array for a in program.tensor_maps] + [a for a in whole if isinstance(a, np.ndarray)]
    for array in sorted(arrays, key=lambda a: -a.nbytes):
        memory.add(array)
    for (slot, kind), argument in zip(program.parameters, args, strict=True):
        program.template[slot] = _argument(argument, kind, memory, program)
    shared_bytes = program.dynamic_start + dynamic_shared_bytes
    order = _block_order(grids, clusters)
    size = clusters[0] * clusters[1] * clusters[2]
    threads = blocks[0] * blocks[1] * blocks[2]
    together = min(_UNIT_THREADS // threads, _UNIT_SHARED // max(1, shared_bytes)) // size * size
    together = len(order) if program.spins else max(size, together)
    conflicts: dict[Any, int] | None = {} if count_conflicts else None
    with np.errstate(all="ignore"):
        for first in range(0, len(order), together):
            part = order[first : first + together]
            unit = Unit(program, part, first, grids, blocks, clusters, shared_bytes, memory, report, check, conflicts)
            try:
                unit.run()
            except EmulationError as error:
                raise EmulationError("\n".join([str(error), *map(str, report.findings)])) from error
    report.blocks = len(order)
    for buffer in memory.buffers:
        buffer.finish()
    return report


def _argument(argument: Any, kind: Kind, memory: GlobalMemory, program: Program) -> np.ndarray:
    if kind.space < 0:
        return np.array([argument]).astype(kind.dtype)
    if isinstance(argument, np.ndarray):
        return np.array([memory.add(argument)])
    if isinstance(argument, Within):
        return _argument(argument.array, kind, memory, program) + argument.offset
    if isinstance(argument, Uninitialized):
        return np.array([memory.add(argument.array, initialized=False)])
    if isinstance(argument, TensorMap):
        memory.add(argument.array)
        return np.array([TENSOR_MAPS + next(i for i, m in enumerate(program.tensor_maps) if m is argument)])
    if isinstance(argument, Addresses):
        pointers = [
            memory.add(a.array, initialized=False) if isinstance(a, Uninitialized) else memory.add(a) for a in argument.arrays
        ]
        return np.array([memory.add(np.array(pointers, np.int64))])
    if argument is None:
        return np.array([0])
    raise ValueError(f"{type(argument).__name__} is no argument for a pointer")


def _block_order(grid: tuple[int, int, int], cluster: tuple[int, int, int]) -> np.ndarray:
    """(blocks, 3) coordinates: clusters one after the other, x fastest, and within each its blocks by rank."""
    gx, gy, gz = (g // c for g, c in zip(grid, cluster, strict=True))
    outer = np.stack(np.unravel_index(np.arange(gx * gy * gz), (gz, gy, gx))[::-1], axis=-1)
    cx, cy, cz = cluster
    inner = np.stack(np.unravel_index(np.arange(cx * cy * cz), (cz, cy, cx))[::-1], axis=-1)
    return (outer[:, None] * np.array(cluster) + inner[None]).reshape(-1, 3)
