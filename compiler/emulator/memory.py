"""Memory of an emulated launch: addresses, global buffers and shared memory.

Addresses are 64-bit integers:

- global (and constant and generic): buffer b of the launch lies at (b + 1) << 40; what is outside a buffer is out of bounds;
- shared (`ptr<3>`): offset in the block's own window, from `SHARED_START`;
- cluster (`ptr<7>`): block rank in the cluster << 24, plus that offset;
- a shared address cast to generic: `GENERIC_SHARED` plus the cluster address.

Bytes that nothing has written read as 0xFF (NaN in every float format), as do bytes out of bounds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ingot.compiler.emulator.shadow import Shadow

if TYPE_CHECKING:
    from ingot.compiler.emulator.group import Group
    from ingot.compiler.emulator.unit import Unit

SHARED_START = 1024  # the address of a block's first shared byte, as on sm_90 (0 is never a valid address)
RANK_SHIFT = 24
GENERIC_SHARED = 1 << 56
_BUFFER_SHIFT = 40
_POISON = 0xFF


class Buffer:
    """A global buffer: bytes copied from the caller's array, and written back by `finish` if the kernel wrote any."""

    def __init__(self, array: np.ndarray, initialized: bool = True) -> None:
        self.array = array
        self.size = array.nbytes
        self.data = np.full((self.size + 31) // 16 * 16, _POISON, np.uint8)
        if initialized:
            self.data[: self.size] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self.valid = None if initialized else np.zeros(self.data.size, bool)
        self.written = False

    def finish(self) -> None:
        """Copy what the kernel wrote to the caller's array; unwritten bytes stay as an earlier launch left them."""
        if self.written:
            flat = self.data[: self.size]
            if self.valid is not None:
                before = np.ascontiguousarray(self.array).reshape(-1).view(np.uint8)
                flat = np.where(self.valid[: self.size], flat, before)
            self.array[...] = flat.view(self.array.dtype).reshape(self.array.shape)


class GlobalMemory:
    """All buffers of a launch."""

    def __init__(self) -> None:
        self.buffers: list[Buffer] = []

    def add(self, array: np.ndarray, initialized: bool = True) -> int:
        """Add a buffer and return its address; an array that lies inside one that is there gets an address in that.

        Raises ValueError for an array that overlaps another without lying inside it: add the larger one first.
        """
        for i, buffer in enumerate(self.buffers):
            if buffer.array is array:
                return (i + 1) << _BUFFER_SHIFT
            offset = _offset_inside(array, buffer.array)
            if offset is not None:
                return ((i + 1) << _BUFFER_SHIFT) + offset
        self.buffers.append(Buffer(array, initialized))
        return len(self.buffers) << _BUFFER_SHIFT

    def locate(self, address: int) -> tuple[Buffer | None, int]:
        """The buffer at an address, and the offset into it."""
        number = (address >> _BUFFER_SHIFT) - 1
        if 0 <= number < len(self.buffers):
            return self.buffers[number], address & ((1 << _BUFFER_SHIFT) - 1)
        return None, address

    def load(self, unit: Unit, group: Group, address: np.ndarray, nbytes: int, align: int, op: Any) -> np.ndarray:
        """(threads, nbytes) bytes at an address per thread."""
        out = None
        for buffer, lanes, offset in self._split(unit, group, address, nbytes, align, op):
            got = _gather(buffer.data, offset, nbytes, align)
            if buffer.valid is not None:
                unread = ~_gather(buffer.valid.view(np.uint8), offset, nbytes, align).astype(bool).all(axis=1)
                if unread.any():
                    at = int(np.flatnonzero(unread)[0])
                    lane = at if lanes is None else int(lanes[at])
                    unit.find("uninitialized", op, group, lane, f"global address {int(address[lane]):#x} was never written")
            if lanes is None:
                return got
            if out is None:
                out = np.full((address.size, nbytes), _POISON, np.uint8)
            out[lanes] = got
        return np.full((address.size, nbytes), _POISON, np.uint8) if out is None else out

    def store(self, unit: Unit, group: Group, address: np.ndarray, raw: np.ndarray, align: int, op: Any) -> None:
        """Write (threads, nbytes) bytes to an address per thread."""
        nbytes = raw.shape[1]
        for buffer, lanes, offset in self._split(unit, group, address, nbytes, align, op):
            _scatter(buffer.data, offset, raw if lanes is None else raw[lanes], align)
            buffer.written = True
            if buffer.valid is not None:
                _scatter(buffer.valid.view(np.uint8), offset, np.ones((offset.size, nbytes), np.uint8), align)

    def _split(
        self, unit: Unit, group: Group, address: np.ndarray, nbytes: int, align: int, op: Any
    ) -> list[tuple[Buffer, np.ndarray | None, np.ndarray]]:
        """Accesses by buffer: (buffer, lanes or None for all, offsets); bad lanes are reported and left out."""
        if align > 1 and (bad := address & (align - 1)).any():
            lane = int(np.flatnonzero(bad)[0])
            unit.find("misaligned", op, group, lane, f"address {int(address[lane]):#x} is not a multiple of {align}")
            address = address & ~np.int64(align - 1)
        buffer, _ = self.locate(int(address[0]))
        if buffer is not None and buffer.size >= nbytes:  # nearly always all lanes access one buffer
            offset = address - (int(address[0]) >> _BUFFER_SHIFT << _BUFFER_SHIFT)
            if (offset.view(np.uint64) <= np.uint64(buffer.size - nbytes)).all():
                return [(buffer, None, offset)]
        numbers = (address >> _BUFFER_SHIFT) - 1
        offset = address & ((1 << _BUFFER_SHIFT) - 1)
        sizes = np.array([b.size for b in self.buffers] + [-1])
        known = (numbers >= 0) & (numbers < len(self.buffers))
        good = offset + nbytes <= sizes[np.where(known, numbers, -1)]
        if not good.all():
            lane = int(np.flatnonzero(~good)[0])
            found, at = self.locate(int(address[lane]))
            where = f"byte {at} of buffer {int(numbers[lane])} ({found.size} bytes)" if found else f"address {at:#x}"
            unit.find("out of bounds", op, group, lane, f"{nbytes} bytes at {where}")
        parts: list[tuple[Buffer, np.ndarray | None, np.ndarray]] = []
        for number in np.unique(numbers[good]):
            lanes = np.flatnonzero(good & (numbers == number))
            parts.append((self.buffers[number], lanes, offset[lanes]))
        return parts


def _offset_inside(array: np.ndarray, other: np.ndarray) -> int | None:
    """The byte offset of an array in another that contains it; None if they share no memory."""
    if not array.size or not other.size or not np.may_share_memory(array, other):
        return None
    offset = array.ctypes.data - other.ctypes.data
    both_dense = array.flags.c_contiguous and other.flags.c_contiguous
    if not both_dense or offset < 0 or offset + array.nbytes > other.nbytes:
        raise ValueError(f"arrays of shapes {other.shape} and {array.shape} overlap, and the one is no dense part of the other")
    return offset


def _unit_of(nbytes: int, align: int) -> int:
    """The largest word (1 to 8 bytes) by which an access of that size and alignment can be made."""
    word = 8
    while word > 1 and (nbytes % word or align % word):
        word //= 2
    return word


def _gather(data: np.ndarray, offset: np.ndarray, nbytes: int, align: int) -> np.ndarray:
    """(n, nbytes) bytes of `data` at n offsets, all multiples of `align`."""
    if nbytes == 16 and align >= 16:
        return data.view(np.uint64).reshape(-1, 2).take(offset >> 4, axis=0).view(np.uint8)
    word = _unit_of(nbytes, align)
    words = data.view(f"u{word}")
    first = offset >> (word.bit_length() - 1)
    count = nbytes // word
    if count == 1:
        return words.take(first).reshape(-1, 1).view(np.uint8)
    return words.take(first[:, None] + np.arange(count)).view(np.uint8)


def _scatter(data: np.ndarray, offset: np.ndarray, raw: np.ndarray, align: int) -> None:
    """Write rows of bytes at offsets that are multiples of `align`."""
    nbytes = raw.shape[1]
    if nbytes == 16 and align >= 16:
        data.view(np.uint64).reshape(-1, 2)[offset >> 4] = np.ascontiguousarray(raw).view(np.uint64)
        return
    word = _unit_of(nbytes, align)
    words = data.view(f"u{word}")
    values = np.ascontiguousarray(raw).view(f"u{word}")
    first = offset >> (word.bit_length() - 1)
    count = nbytes // word
    if count == 1:
        words[first] = values[:, 0]
    else:
        words[first[:, None] + np.arange(count)] = values


class SharedMemory:
    """Shared memory of all blocks of a unit, block after block.

    Attributes:
        data: bytes; block b's window starts at b * size.
        size: bytes from one block's window to the next's; `limit` of them exist.
        shadow: who touched what; None where that is not checked.
    """

    def __init__(self, unit: Unit, size: int, granule: int, check: bool) -> None:
        self.unit = unit
        self.limit, self.size = size, (size + 1023) // 1024 * 1024
        self.data = np.full(self.size * unit.blocks + 16, _POISON, np.uint8)
        self.shadow = Shadow(unit, self.size * unit.blocks, self.size, granule) if check else None

    # --- addresses

    def index(self, group: Group, address: np.ndarray, space: int, nbytes: int = 1) -> np.ndarray:
        """Positions in `data` of `nbytes` at addresses of space 3 or 7, for each thread of the group; -1 out of bounds."""
        block = group.blocks
        if space == 7:
            size = self.unit.cluster_size
            block = block // size * size + (address >> RANK_SHIFT)
            address = address & ((1 << RANK_SHIFT) - 1)
        offset = address - SHARED_START
        where = block * self.size + offset
        if nbytes <= self.limit and (good := offset.view(np.uint64) <= np.uint64(self.limit - nbytes)).all():
            return where
        return np.where(good, where, -1) if nbytes <= self.limit else np.full_like(where, -1)

    def settle(self, group: Group, where: np.ndarray, nbytes: int, align: int, op: Any) -> np.ndarray:
        """The positions with bad ones reported and moved to a place where they do no harm."""
        unit = self.unit
        if (outside := where < 0).any():
            lane = int(np.flatnonzero(outside)[0])
            unit.find("out of bounds", op, group, lane, f"{nbytes} bytes beyond the {self.limit} bytes of shared memory")
            where = np.where(outside, 0, where)
        if align > 1 and (bad := where & (align - 1)).any():
            lane = int(np.flatnonzero(bad)[0])
            unit.find("misaligned", op, group, lane, f"shared offset {int(where[lane]) % self.size} is no multiple of {align}")
            where = where & ~np.int64(align - 1)
        return where

    # --- accesses by threads

    def load(self, group: Group, where: np.ndarray, nbytes: int, align: int, op: Any) -> np.ndarray:
        """(threads, nbytes) bytes at positions `where`."""
        where = self.settle(group, where, nbytes, align, op)
        if self.shadow is not None:
            self.shadow.read(group, where, nbytes, op)
            self.unit.count_conflicts(where, nbytes)
        return _gather(self.data, where, nbytes, align)

    def store(self, group: Group, where: np.ndarray, raw: np.ndarray, align: int, op: Any) -> None:
        """Write (threads, nbytes) bytes at positions `where`."""
        nbytes = raw.shape[1]
        where = self.settle(group, where, nbytes, align, op)
        if self.shadow is not None:
            self.shadow.write(group, where, nbytes, op)
            self.unit.count_conflicts(where, nbytes)
        _scatter(self.data, where, raw, align)
        if self.shadow is not None:
            kept = _gather(self.data, where, nbytes, align) == raw
            if not kept.all():
                lane = int(np.flatnonzero(~kept.all(axis=1))[0])
                at = int(where[lane]) % self.size
                self.unit.find("conflict", op, group, lane, f"another lane writes another value to shared offset {at}")

    # --- accesses by asynchronous engines

    def copy_out(self, where: np.ndarray, nbytes: int) -> np.ndarray:
        """(spans, nbytes) bytes at positions that are multiples of `nbytes`, a power of two of at most 16."""
        return _gather(self.data, where, nbytes, nbytes)

    def copy_in(self, where: np.ndarray, raw: np.ndarray) -> None:
        """Write spans of bytes at positions that are multiples of their size."""
        _scatter(self.data, where, raw, raw.shape[1])
