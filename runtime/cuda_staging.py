"""Device memory that a context keeps for inputs and outputs of callers whose arrays are numpy's."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ingot.errors import DeviceError
from ingot.runtime.cuda_array import DeviceMemory
from ingot.runtime.cuda_driver import Cuda

SMALL = 1 << 14  # bytes of an array that is uploaded together with others: what such copies cost is the driver's call
LARGE = 1 << 20  # bytes of an array that is not downloaded through page-locked memory
_LANDING = 4 << 20  # bytes of all such of a call
_ALIGNMENT = 256


class Staging:
    """Memory for one input or output, or for an arena."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._memory: DeviceMemory | None = None

    def address(self, nbytes: int, settle: Callable[[], None]) -> int:
        """Memory of at least `nbytes`; its contents do not survive growing, before which `settle` waits for the call that is
        under way. Raises DeviceError where there is too little; a later call may ask for less."""
        if self._memory is None or self._memory.nbytes < nbytes:
            settle()
            self._memory = None  # the old one first goes
            # What grows a little with each call (a mask) stays where it is.
            self._memory = DeviceMemory(self._cuda, nbytes + min(max(nbytes >> 3, 1 << 12), 1 << 20))
        return self._memory.address

    def free(self) -> None:
        """Give the memory back; no call is under way."""
        self._memory = None


class SmallInputs:
    """Small inputs side by side: one copy brings them all. Each has room to grow, so that it stays where it is."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda, self._staging = cuda, Staging(cuda)
        self._places: dict[int, tuple[int, int]] = {}  # by number of the input: offset and room
        self._host: Any = (ctypes.c_uint8 * 0)()

    def upload(self, arrays: Mapping[int, np.ndarray], stream: int, settle: Callable[[], None]) -> dict[int, int]:
        """Bring arrays, by number of the input, to the GPU; where each lies there."""
        places = self._places
        if any(i not in places or places[i][1] < array.nbytes for i, array in arrays.items()):
            places = self._lay_out(arrays)
        base = self._staging.address(ctypes.sizeof(self._host), settle)
        host, end = ctypes.addressof(self._host), 0
        for i, array in arrays.items():
            offset = places[i][0]
            ctypes.memmove(host + offset, array.ctypes.data, array.nbytes)
            end = max(end, offset + array.nbytes)
        self._cuda.upload(base, host, end, stream)  # from pageable memory: it may be written again when this returns
        return {i: base + places[i][0] for i in arrays}

    def _lay_out(self, arrays: Mapping[int, np.ndarray]) -> dict[int, tuple[int, int]]:
        rooms = {i: room for i, (_, room) in self._places.items()}
        for i, array in arrays.items():
            if rooms.get(i, -1) < array.nbytes:
                rooms[i] = min(array.nbytes + max(array.nbytes >> 1, 1 << 10), SMALL)
        places, total = {}, 0
        for i, room in sorted(rooms.items()):
            places[i] = total, room
            total += -(-room // _ALIGNMENT) * _ALIGNMENT
        self._places, self._host = places, (ctypes.c_uint8 * total)()
        return places

    def free(self) -> None:
        """Give the memory back; no call is under way."""
        self._staging.free()


class Landing:
    """Page-locked memory through which outputs reach numpy's arrays, as far as they are not large: from it the GPU copies
    itself, where the driver would have to bring pageable memory's bytes piece by piece."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._address = self._room = 0

    def download(self, arrays: Sequence[tuple[np.ndarray, int]], stream: int) -> list[tuple[np.ndarray, int]]:
        """Copy from addresses on the GPU, in the stream's order; the arrays that lie here once the stream was waited for, and
        where. All that this gave before must have been taken."""
        total, places = 0, dict[int, int]()
        for n, (array, _) in enumerate(arrays):
            if array.nbytes <= LARGE and total + array.nbytes <= _LANDING:
                places[n] = total
                total += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
        if not self._has_room(total):
            places = {}
        for n, (array, source) in enumerate(arrays):
            target = self._address + places[n] if n in places else array.ctypes.data
            self._cuda.download(target, source, array.nbytes, stream)
        return [(arrays[n][0], self._address + offset) for n, offset in places.items()]

    def _has_room(self, nbytes: int) -> bool:
        if self._room < nbytes:
            self.free()
            try:
                self._address = self._cuda.pinned(2 * nbytes)
            except DeviceError:  # there are other ways
                return False
            self._room = 2 * nbytes
        return True

    def free(self) -> None:
        """Give the memory back; no call is under way."""
        if self._address:
            self._cuda.free_pinned(self._address)
        self._address = self._room = 0
