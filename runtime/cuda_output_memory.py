"""Memory of outputs that callers let go, kept for outputs of calls to come: getting memory from the driver, and giving it back,
takes as long as a small model runs.

Work of other libraries may still read what the last reference in Python went from. `cuMemFree` waits for it, and so does
whoever gets memory again.
"""

from __future__ import annotations

from ingot.errors import DeviceError
from ingot.runtime.cuda_driver import Cuda

_KEPT_BYTES = 64 << 20  # that nobody uses, of a session
_KEPT_PIECES = 4  # of a size


class OutputMemory:
    """A piece of device memory, its pool's again when nothing refers to it any more."""

    def __init__(self, pool: OutputPool, address: int, nbytes: int) -> None:
        self._pool, self.address, self.nbytes = pool, address, nbytes

    def __del__(self) -> None:
        self._pool._give(self.address, self.nbytes)


class OutputPool:
    """Pieces of memory by size. Threads may share it, and finalizers may interrupt it: there is no lock, and each operation on
    its lists is one of the interpreter's."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._free: dict[int, list[int]] = {}
        self._open = True

    def take(self, nbytes: int) -> OutputMemory:
        """At least `nbytes`, with undefined contents; the GPU's context must be current. Raises DeviceError where there is no
        memory."""
        try:
            address = self._free.get(nbytes, []).pop()
        except IndexError:
            try:
                address = self._cuda.allocate(nbytes)
            except DeviceError:
                if not any(self._free.values()):
                    raise
                self.release()
                address = self._cuda.allocate(nbytes)
            return OutputMemory(self, address, nbytes)
        memory = OutputMemory(self, address, nbytes)
        self._cuda.synchronize_all()
        return memory

    def _give(self, address: int, nbytes: int) -> None:
        held = sum(size * len(pieces) for size, pieces in list(self._free.items()))
        pieces = self._free.setdefault(nbytes, [])
        if self._open and held + nbytes <= _KEPT_BYTES and len(pieces) < _KEPT_PIECES:
            pieces.append(address)
            return
        with self._cuda.borrowed() as usable:
            if usable:
                self._cuda.free(address)

    def release(self) -> None:
        """Give back what nobody uses; the GPU's context must be current."""
        for pieces in list(self._free.values()):
            while pieces:
                try:
                    address = pieces.pop()
                except IndexError:  # another thread was faster
                    break
                self._cuda.free(address)

    def close(self) -> None:
        """As `release`; from now on memory goes back at once."""
        self._open = False
        self.release()

    def __del__(self) -> None:
        if any(self._free.values()):
            with self._cuda.borrowed() as usable:
                if usable:
                    self.release()
