"""ldmatrix, stmatrix, mma.sync and wgmma; and the inline PTX that stands for them where MLIR has no operation.

Products are exact in float64 and summed there; the sum with the accumulator is rounded to float32 once an instruction, but
for those of 8-bit floats that keep fewer bits (limited_sums.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ingot.compiler.emulator.formats import CONTAINER_BITS, INTEGERS, decode, split_words
from ingot.compiler.emulator.fragments import Index, mma_fragments, scale_lanes, wgmma_accumulator, wgmma_registers
from ingot.compiler.emulator.group import WARPGROUP, Group
from ingot.compiler.emulator.limited_sums import is_limited, limited_sum
from ingot.compiler.emulator.memory import SHARED_START
from ingot.compiler.emulator.ops_arith import finished, reinterpret
from ingot.compiler.emulator.ops_async import remote_arrive, tensor_store
from ingot.compiler.emulator.ops_memory import shared_positions
from ingot.compiler.emulator.ops_warp import whole_warps
from ingot.compiler.emulator.program import Node, Op, Run, handler
from ingot.compiler.emulator.report import EmulationError
from ingot.compiler.emulator.tensor_map import swizzled
from ingot.compiler.emulator.values import InFlight, spread
from ingot.compiler.emulator.warpgroups import WarpgroupInstruction

_I32, _F32 = np.dtype(np.int32), np.dtype(np.float32)

# --- ldmatrix and stmatrix


def _matrix_rows(group: Group, address: np.ndarray, count: int, op: Op) -> np.ndarray:
    """(warps * count * 8) positions of matrix rows: lane 8 * i + r gives row r of matrix i."""
    warps = whole_warps(group, op)
    return shared_positions(group, address, 3, 16).reshape(warps, 32)[:, : 8 * count].reshape(-1)


@handler("nvvm.ldmatrix")
def _ldmatrix(op: Op) -> Run:
    count = op.int_attr("num")
    transpose = op.keyword("layout") == "col"
    if "b16" not in op.attr("eltType"):
        raise NotImplementedError("ldmatrix of other than 16-bit elements")
    p, r = op.operands[0], op.results[0]

    def run(group: Group) -> None:
        rows = _matrix_rows(group, group.env[p], count, op)
        warps = group.size // 32
        raw = group.unit.shared.load(group.first_lanes(8 * count), rows, 16, 16, op)
        matrices = np.ascontiguousarray(raw).view(np.int16).reshape(warps, count, 8, 8)
        if transpose:
            matrices = np.ascontiguousarray(matrices.swapaxes(2, 3))
        # Lane l of a warp gets elements 2 * (l % 4) and the next of row l / 4, as the row lies in memory.
        words = matrices.view(np.int32).reshape(warps, count, 32).swapaxes(0, 1).reshape(count, -1)
        group.env[r] = words[0] if count == 1 else words
        group.unit.report.count(op.name, warps)

    return run


@handler("nvvm.stmatrix")
def _stmatrix(op: Op) -> Run:
    transpose = op.keyword("layout") == "col"
    p, *sources = op.operands
    count = len(sources)

    def run(group: Group) -> None:
        env = group.env
        rows = _matrix_rows(group, env[p], count, op)
        warps = group.size // 32
        words = np.stack([spread(env[s], group.size).reshape(warps, 32) for s in sources], axis=1)
        matrices = np.ascontiguousarray(words).view(np.int16).reshape(warps, count, 8, 8)
        if transpose:
            matrices = np.ascontiguousarray(matrices.swapaxes(2, 3))
        raw = np.ascontiguousarray(matrices).view(np.uint8).reshape(-1, 16)
        group.unit.shared.store(group.first_lanes(8 * count), rows, raw, 16, op)

    return run


# --- mma.sync


def _registers(group: Group, slots: list[int]) -> np.ndarray:
    """(registers, threads) 32-bit words of operand slots."""
    return np.stack([reinterpret(spread(group.env[s], group.size), _I32, ()).reshape(-1) for s in slots])


class _Fragment:
    """Where a matrix lies in registers: as index arrays for groups of so many warps.

    Attributes:
        index: the lane and the register element of each of the matrix's elements.
        per: elements of a register.
        registers: registers of a lane.
        lanes: lanes that hold one matrix.
    """

    def __init__(self, index: Index, per: int, lanes: int = 32) -> None:
        self.index, self.per, self.lanes = index, per, lanes
        self.registers = (int(index.element.max()) + per) // per
        self._places: dict[int, np.ndarray] = {}
        self._inverses: dict[int, np.ndarray] = {}

    def places(self, count: int) -> np.ndarray:
        """(count, rows, columns) of `count` matrices: places of their elements among (registers, threads, per)."""
        found = self._places.get(count)
        if found is None:
            register, part = np.divmod(self.index.element, self.per)
            thread = np.arange(count)[:, None, None] * self.lanes + self.index.lane
            found = self._places[count] = (register * (count * self.lanes) + thread) * self.per + part
        return found

    def to_registers(self, matrices: np.ndarray) -> np.ndarray:
        """(registers, threads) of matrices (count, rows, columns) whose elements take a register each."""
        count = len(matrices)
        found = self._inverses.get(count)
        if found is None:
            found = self._inverses[count] = np.argsort(self.places(count), axis=None).reshape(self.registers, -1)
        return matrices.reshape(-1).take(found)


_fragment = cache(_Fragment)


class _Operand:
    """An operand in registers as float64 matrices: decoded once where several products read the same registers."""

    def __init__(self, slots: list[int], index: Index, bits: int, type_: str, padded: bool, lanes: int = 32) -> None:
        self.slots, self.bits, self.type, self.padded = slots, bits, type_, padded
        self.fragment = _fragment(index, 32 // bits, lanes)
        self._read: list[np.ndarray] = []
        self._matrices = np.zeros((0, 0, 0))

    @classmethod
    def of(
        cls, op: Op, slots: list[int], index: Index, bits: int, type_: str, padded: bool = True, lanes: int = 32
    ) -> _Operand:
        """The operand of these slots, shared by all products of the kernel that read it so."""
        key = (*slots, index, bits, type_, padded, lanes)
        found = op.program.shared.get(key)
        if found is None:
            found = op.program.shared[key] = cls(slots, index, bits, type_, padded, lanes)
        return found

    def matrices(self, group: Group) -> np.ndarray:
        """(matrices, rows, columns)."""
        env, count = group.env, group.size // self.fragment.lanes
        values = [env[s] for s in self.slots]
        same = len(self._matrices) == count and all(x is y for x, y in zip(values, self._read, strict=True))
        if not same:
            elements = decode(split_words(_registers(group, self.slots), self.bits), self.type, self.padded)
            self._matrices = elements.reshape(-1).take(self.fragment.places(count))
            self._read = values
        return self._matrices


class _Mma:
    """A product of mma.sync, of one shape and pair of types: operands to matrices, and the product back to registers."""

    def __init__(
        self, op: Op, shape: tuple[int, int, int], types: tuple[str, str], slots: tuple[list[int], list[int], list[int]],
        packed4: bool = False,
    ) -> None:  # fmt: skip
        bits = [4 if packed4 else CONTAINER_BITS[t] for t in types]
        a, _, c = mma_fragments(shape, bits[0])
        b = mma_fragments(shape, bits[1])[1]
        self.types, self.integer = types, types[0] in INTEGERS
        self.a = _Operand.of(op, slots[0], a, bits[0], types[0], not packed4)
        self.b = _Operand.of(op, slots[1], b, bits[1], types[1], not packed4)
        self.c, self.slots = _fragment(c, 1), slots[2]

    def accumulator(self, group: Group) -> np.ndarray:
        """(warps, m, n) matrices of C, in their own type."""
        values = np.stack([spread(group.env[s], group.size) for s in self.slots])
        return values.reshape(-1).take(self.c.places(group.size // 32))

    def finish(self, group: Group, product: np.ndarray, saturate: bool = False) -> np.ndarray:
        """(registers, threads) of D."""
        return self.c.to_registers(add_product(product, self.accumulator(group), self.integer, saturate))


def add_product(product: np.ndarray, c: np.ndarray, integer: bool, saturate: bool = False) -> np.ndarray:
    """product + c, rounded once to c's type; integers wrap or saturate at 32 bits."""
    if not integer:
        return (product + c.astype(np.float64)).astype(c.dtype)
    total = product.astype(np.int64) + c
    if saturate:
        total = np.clip(total, -(2**31), 2**31 - 1)
    return total.astype(np.int32)


def _mma_shape(op: Op) -> tuple[int, int, int]:
    m, n, k = (int(x) for x in re.findall(r"= (\d+)", op.attr("shape")))
    return m, n, k


def _mma_run(op: Op, mma: _Mma, saturate: bool, name: str, limited: bool = False) -> Run:
    r = op.results[0]

    def run(group: Group) -> None:
        warps = whole_warps(group, op)
        left, right, old = mma.a.matrices(group), mma.b.matrices(group), mma.accumulator(group)
        if limited:
            total = limited_sum(left, right, old, mma.types, "mma")
        else:
            total = add_product(left @ right, old, mma.integer, saturate)
        group.env[r] = mma.c.to_registers(total)
        group.unit.report.count(name, warps)

    return run


@handler("nvvm.mma.sync")
def _mma_sync(op: Op) -> Run:
    a, b, c = op.segments()
    types = op.keyword("multiplicandAPtxType"), op.keyword("multiplicandBPtxType")
    shape = _mma_shape(op)
    saturate = op.keyword("intOverflowBehavior") == "satfinite"
    m, n, k = shape
    name = f"mma.m{m}n{n}k{k}.{types[0]}.{types[1]}"
    limited = not op.attr("kind") and is_limited(*types)
    return _mma_run(op, _Mma(op, shape, types, (a, b, c)), saturate, name, limited)


@handler("nvvm.mma.block_scale")
def _mma_block_scale(op: Op) -> Run:
    a, b, c, (a_scale,), (a_byte,), (a_thread,), (b_scale,), (b_byte,), (b_thread,) = op.segments()
    a_type, b_type = op.keyword("multiplicandAPtxType"), op.keyword("multiplicandBPtxType")
    kind = op.keyword("kind")
    vector = int(op.keyword("scaleVecSize").removeprefix("x"))
    scale_type = op.keyword("blockScaleFormat")
    shape = _mma_shape(op)
    m, n, k = shape
    mma = _Mma(op, shape, (a_type, b_type), (a, b, c), packed4=kind != "mxf8f6f4")
    r = op.results[0]

    def scales(group: Group, slot: int, byte: int, lanes: np.ndarray) -> np.ndarray:
        """(warps, rows, vector) scale factors."""
        words = np.ascontiguousarray(spread(group.env[slot], group.size).reshape(-1, 32)[:, lanes])
        octets = words.view(np.uint8).reshape(len(words), len(lanes), 4)
        return decode(octets[..., byte : byte + vector], scale_type)

    def run(group: Group) -> None:
        env = group.env
        warps = whole_warps(group, op)
        bytes_, threads = [int(env[s][0]) for s in (a_byte, b_byte)], [int(env[s][0]) for s in (a_thread, b_thread)]
        lanes_a, lanes_b = scale_lanes(*threads)
        left, right = mma.a.matrices(group), mma.b.matrices(group)
        left = left * np.repeat(scales(group, a_scale, bytes_[0], lanes_a), k // vector, axis=2)
        right = right * np.repeat(scales(group, b_scale, bytes_[1], lanes_b), k // vector, axis=2).swapaxes(1, 2)
        env[r] = mma.finish(group, left @ right)
        group.unit.report.count(f"mma.{kind}.m{m}n{n}k{k}.{a_type}.{b_type}.{scale_type}", warps)

    return run


# --- wgmma

_SWIZZLES = {0: 0, 1: 128, 2: 64, 3: 32}


class _Descriptor:
    """A matrix descriptor ("Matrix-descriptor Format"): start address, byte offsets, swizzle."""

    def __init__(self, bits: int) -> None:
        self.start = (bits & 0x3FFF) << 4
        self.leading = ((bits >> 16) & 0x3FFF) << 4
        self.stride = ((bits >> 32) & 0x3FFF) << 4
        if (bits >> 49) & 7:
            raise NotImplementedError("wgmma descriptors with a base offset")
        self.swizzle = _SWIZZLES[(bits >> 62) & 3]

    def rows_of_16_bytes(self, rows: int, chunks: int) -> np.ndarray:
        """Shared addresses of a K-major tile: (rows, chunks) of 16 bytes along K.

        "Canonical layouts" of the ISA: groups of 8 rows lie `stride` apart; within one, rows follow each other by the swizzle's
        width (16 bytes without), and chunks along K by 16 bytes (by `leading` without a swizzle).
        """
        row = np.arange(rows)[:, None]
        chunk = np.arange(chunks)[None, :]
        width = self.swizzle or 16
        step = 16 if self.swizzle else self.leading
        return swizzled(self.start + row % 8 * width + row // 8 * self.stride + chunk * step, self.swizzle)

    def columns_of_16_bytes(self, chunks: int, depth: int) -> np.ndarray:
        """Shared addresses of an M- or N-major tile of 16-bit elements: (depth along K, chunks of 8 elements along M or N)."""
        k = np.arange(depth)[:, None]
        chunk = np.arange(chunks)[None, :]
        if not self.swizzle:
            return self.start + chunk * self.stride + k % 8 * 16 + k // 8 * self.leading
        per = self.swizzle // 16
        inside = chunk % per * 16 + k % 8 * self.swizzle
        return swizzled(self.start + inside + chunk // per * self.leading + k // 8 * self.stride, self.swizzle)


def _tile(group: Group, lane: int, descriptor: int, rows: int, k: int, type_: str, major_k: bool, op: Op) -> np.ndarray:
    """(rows, k) float64 operand read through a descriptor by the warpgroup whose first thread is number `lane` of the group."""
    unit = group.unit
    shared = unit.shared
    d = _Descriptor(descriptor & (1 << 64) - 1)
    size = CONTAINER_BITS[type_] // 8
    address = d.rows_of_16_bytes(rows, k * size // 16) if major_k else d.columns_of_16_bytes(rows // 8, k)
    offset = address - SHARED_START
    if offset.min() < 0 or offset.max() + 16 > shared.limit:
        unit.find("out of bounds", op, group, lane, f"the operand at shared address {d.start} leaves shared memory")
        return np.full((rows, k), np.nan)
    where = int(group.blocks[lane]) * shared.size + offset
    if shared.shadow is not None:
        cells = shared.shadow.cells(where.reshape(-1), 16)
        shared.shadow.begin_read(group, lane, cells, op)
        thread = int(group.threads[lane])
        unit.wgmma_reads.append((thread, int(unit.wgmma_groups[thread]), cells))
    raw = shared.copy_out(where.reshape(-1), 16)
    containers = raw.reshape(len(where), -1).view({1: np.uint8, 2: np.uint16, 4: np.uint32}[size])
    values = decode(containers, type_)
    return values if major_k else values.T


def _wgmma_run(
    op: Op,
    accumulator: Callable[[Group], Any],
    a: Callable[[Group, int], np.ndarray],
    b: int,
    shape: tuple[int, int, int],
    types: tuple[str, str],
    b_major_k: bool,
    accumulate: bool,
    registers: bool,
) -> Node:
    """A node for wgmma: `a` gives A's matrix; `registers` says that it comes from registers."""
    m, n, k = shape
    fragment = _fragment(wgmma_accumulator(n), 1, WARPGROUP)
    integer = types[0] in INTEGERS
    r = op.results[0]

    def run(group: Group) -> None:
        unit = group.unit
        count = group.size // WARPGROUP
        value = accumulator(group)
        if (registers or not isinstance(value, InFlight)) and not (fenced := unit.wgmma_fenced[group.threads]).all():
            lane = int(np.flatnonzero(~fenced)[0])
            unit.find("async", op, group, lane, "uses registers that were written since the last wgmma.fence")
        old = value.array if isinstance(value, InFlight) else value
        dtype = _I32 if integer else _F32
        old = np.zeros((n // 2, 1), dtype) if not accumulate else old
        current = spread(old, group.size).reshape(-1).take(fragment.places(count))
        totals = np.empty((count, m, n), dtype)
        descriptors = spread(group.env[b], group.size)
        for i in range(count):
            lane = i * WARPGROUP
            if (descriptors[lane : lane + WARPGROUP] != descriptors[lane]).any():
                unit.find("conflict", op, group, lane, "the threads of a warpgroup give different descriptors")
            right = _tile(group, lane, int(descriptors[lane]), n, k, types[1], b_major_k, op)
            left, old = a(group, lane), current[i]
            limited = is_limited(*types)
            total = limited_sum(left, right.T, old, types, "wgmma") if limited else add_product(left @ right.T, old, integer)
            totals[i] = total
        group.env[r] = InFlight(fragment.to_registers(totals), unit.wgmma_groups[group.threads].copy())
        unit.report.count(f"wgmma.m{m}n{n}k{k}.{types[0]}.{types[1]}", count)

    return WarpgroupInstruction(op, run)


@handler("nvvm.wgmma.mma_async")
def _wgmma(op: Op) -> Node:
    accumulator, a, b = op.operands
    shape = _mma_shape(op)
    m, _, k = shape
    types = (op.keyword("typeA"), op.keyword("typeB"))
    a_major_k, b_major_k = op.keyword("layoutA") == "row", op.keyword("layoutB") == "col"

    def left(group: Group, lane: int) -> np.ndarray:
        descriptors = spread(group.env[a], group.size)
        if (descriptors[lane : lane + WARPGROUP] != descriptors[lane]).any():
            group.unit.find("conflict", op, group, lane, "the threads of a warpgroup give different descriptors")
        return _tile(group, lane, int(descriptors[lane]), m, k, types[0], a_major_k, op)

    accumulate = op.keyword("scaleD") == "one"
    return _wgmma_run(op, lambda group: group.env[accumulator], left, b, shape, types, b_major_k, accumulate, False)


@handler("nvvm.wgmma.fence.aligned")
def _wgmma_fence(op: Op) -> Node:
    def run(group: Group) -> None:
        group.unit.wgmma_fenced[group.threads] = True

    return WarpgroupInstruction(op, run)


@handler("nvvm.wgmma.commit.group.sync.aligned")
def _wgmma_commit(op: Op) -> Node:
    def run(group: Group) -> None:
        group.unit.wgmma_groups[group.threads] += 1

    return WarpgroupInstruction(op, run)


@handler("nvvm.wgmma.wait.group.sync.aligned")
def _wgmma_wait(op: Op) -> Node:
    pending = op.int_attr("group")

    def run(group: Group) -> None:
        unit = group.unit
        done = unit.wgmma_done
        done[group.threads] = np.maximum(done[group.threads], unit.wgmma_groups[group.threads] - pending)
        unit.wgmma_fenced[group.threads] = False
        leaders = set(group.threads[::WARPGROUP].tolist())
        kept = []
        for thread, number, cells in unit.wgmma_reads:
            if thread in leaders and number < done[thread]:
                assert unit.shared.shadow is not None
                unit.shared.shadow.end_read(cells, [int(unit.warp_of[thread])])
            else:
                kept.append((thread, number, cells))
        unit.wgmma_reads = kept
        # The reads count as the first warp's, and every warp of the warpgroup knows now that they are over.
        for thread in leaders:
            first = int(unit.warp_of[thread])
            local = int(unit.local_warp[first])
            unit.clocks[first : first + 4, local] = unit.clocks[first, local]
            unit.release(np.array([first]))

    return WarpgroupInstruction(op, run)


# --- inline PTX, by its instruction


def _ptx_mbarrier_arrive(op: Op, match: re.Match[str]) -> Run:
    address = op.operands[0]
    return lambda group: remote_arrive(group, group.env[address], op)


def _ptx_mma(op: Op, match: re.Match[str]) -> Run:
    a, b, c = op.operands[:4], op.operands[4:6], op.operands[6:]
    a_type, b_type = match[1], match[2]
    return _mma_run(op, _Mma(op, (16, 8, 32), (a_type, b_type), (a, b, c)), False, f"mma.m16n8k32.{a_type}.{b_type}")


def _ptx_wgmma(op: Op, match: re.Match[str]) -> Node:
    m, n, k = (int(match[i]) for i in (1, 2, 3))
    types = (match[4], match[5])
    a, b, c = op.operands[:4], op.operands[4], op.operands[5:]
    immediates = [int(x) for x in match[6].split(",")]
    transposed = types[0] in ("f16", "bf16") and immediates[-1] == 1
    bits = CONTAINER_BITS[types[0]]
    operand = _Operand.of(op, a, wgmma_registers(k, bits), bits, types[0], lanes=WARPGROUP)

    def left(group: Group, lane: int) -> np.ndarray:
        return operand.matrices(group)[lane // WARPGROUP]

    def accumulator(group: Group) -> np.ndarray | InFlight:
        values = [group.env[s] for s in c]
        if isinstance(values[0], InFlight):
            return InFlight(np.stack([spread(v.array, group.size) for v in values]), values[0].group)
        return np.stack([spread(v, group.size) for v in values])

    return _wgmma_run(op, accumulator, left, b, (m, n, k), types, not transposed, immediates[0] == 1, True)


def _ptx_tensor_reduce(op: Op, match: re.Match[str]) -> Run:
    tensor_map, *coordinates, src = op.operands
    reduction = match[1]

    def run(group: Group) -> None:
        env, n = group.env, group.size
        for lane in range(n):
            start = [int(spread(env[c], n)[lane]) for c in coordinates]
            address, source = int(spread(env[tensor_map], n)[lane]), int(spread(env[src], n)[lane])
            tensor_store(group, lane, op, address, source, start, reduction)

    return run


def _ptx_same(op: Op, match: re.Match[str]) -> Run:
    """No instruction: the results are the operands, which the compiler may not read earlier."""
    operands, r = op.operands, op.results[0]

    def run(group: Group) -> None:
        values = [spread(group.env[x], group.size) for x in operands]
        group.env[r] = np.stack(values) if len(values) > 1 else values[0]

    return run


def _ptx_nothing(op: Op, match: re.Match[str]) -> Run:
    return lambda group: None


def _ptx_tanh(op: Op, match: re.Match[str]) -> Run:
    x, r = op.operands[0], op.results[0]

    def run(group: Group) -> None:
        group.env[r] = np.tanh(group.env[x].astype(np.float64)).astype(np.float32)

    return run


def _ptx_lop3(op: Op, match: re.Match[str]) -> Run:
    """A result's bit i is bit (a_i, b_i, c_i) of the table, a_i the highest (PTX ISA, "Logic and Shift Instructions: lop3")."""
    table = int(match[1], 16)

    def run(group: Group) -> None:
        a, b, c = (group.env[x] for x in op.operands)
        out = np.zeros(np.broadcast_shapes(a.shape, b.shape, c.shape), np.int32)
        for row in range(4):  # of b and c
            for_a = table >> row & 0x11
            if for_a:
                both = (b if row & 2 else ~b) & (c if row & 1 else ~c)
                out |= both if for_a == 0x11 else both & (a if for_a == 0x10 else ~a)
        group.env[op.results[0]] = out

    return run


def _ptx_round_to_byte(op: Op, match: re.Match[str]) -> Run:
    low, high = (-128, 127) if match[1] == "s" else (0, 255)
    x, r = op.operands[0], op.results[0]

    def run(group: Group) -> None:
        rounded = np.rint(group.env[x])
        group.env[r] = np.clip(np.where(np.isnan(rounded), 0, rounded), low, high).astype(np.int32)

    return run


_PTX: tuple[tuple[str, Callable[[Op, re.Match[str]], Run | Node]], ...] = (
    (r"mbarrier\.arrive\.shared::cluster\.b64 _, \[\$0\];", _ptx_mbarrier_arrive),
    (r"mma\.sync\.aligned\.m16n8k32\.row\.col\.kind::f8f6f4\.f32\.(\w+)\.(\w+)\.f32 .*", _ptx_mma),
    (
        r"wgmma\.mma_async\.sync\.aligned\.m(\d+)n(\d+)k(\d+)\.\w+\.(\w+)\.(\w+) \{.*?\}, \{.*?\}, \$\d+, (.*);",
        _ptx_wgmma,
    ),
    (r"cp\.reduce\.async\.bulk\.tensor\.\dd\.global\.shared::cta\.(\w+)\.tile\.bulk_group .*", _ptx_tensor_reduce),
    (r"", _ptx_same),
    (r"prefetch\.global\.L2 .*", _ptx_nothing),
    (r"tanh\.approx\.f32 .*", _ptx_tanh),
    (r"cvt\.rni\.sat\.([su])8\.f32 \$0, \$1;", _ptx_round_to_byte),
    (r"lop3\.b32 \$0, \$1, \$2, \$3, (0x[0-9a-f]+);", _ptx_lop3),
)


@handler("llvm.inline_asm", "nvvm.inline_ptx")
def _inline_ptx(op: Op) -> Run | Node:
    text = (op.attr("asm_string") or op.attr("ptxCode")).strip('"')
    for pattern, make in _PTX:
        if match := re.fullmatch(pattern, text):
            return make(op, match)
    raise EmulationError(f"the emulator does not know the inline PTX {text!r}")


__all__ = ["add_product", "finished"]
