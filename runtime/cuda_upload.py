"""Weights from host memory to a GPU while the session goes on: through page-locked chunks, by a thread, on a stream of its own.

From pageable memory the driver stages every copy itself and the caller waits; from two page-locked buffers one copy runs while
the next chunk is read from the mapped file.
"""

from __future__ import annotations

import contextlib
import copy
import ctypes
import threading
from collections.abc import Callable, Sequence

import numpy as np

from ingot.engine import Weight
from ingot.errors import DeviceError
from ingot.runtime.cuda_driver import Cuda

Upload = tuple[str, Weight, int, Callable[[int], None] | None]
CHUNK = 16 << 20  # bytes of a page-locked buffer
_BUFFERS = 2


def _nothing() -> None: ...


class WeightUpload:
    """An upload under way.

    Args:
        cuda: the GPU.
        weights: (name, weight, device address, what to do on the stream once it is there) of each.
        done: called once all of it has ended, by the upload's thread.
        chunk: bytes of a page-locked buffer.
    """

    def __init__(
        self, cuda: Cuda, weights: Sequence[Upload], done: Callable[[], None] = _nothing, chunk: int = CHUNK
    ) -> None:
        self._cuda, self._weights, self._ended = cuda, list(weights), done
        self._chunk = min(chunk, max((w.nbytes for _, w, _, _ in self._weights), default=0))
        self._enqueued = threading.Event()
        self._fault: BaseException | None = None
        self._done = 0
        self._thread: threading.Thread | None = None
        if self._weights:
            self._done = cuda.event()
            self._thread = threading.Thread(target=self._work, name="ingot-upload", daemon=True)
            self._thread.start()

    def before(self, stream: int) -> None:
        """Work put on `stream` from now on finds the weights. Raises what the upload failed with."""
        thread = self._thread
        if thread is None and self._fault is None:
            return
        self._enqueued.wait()
        if self._fault is not None:
            # A copy: whoever keeps it keeps the frames that it went through, and these their arrays.
            raise copy.copy(self._fault) from self._fault
        if thread is not None and thread.is_alive():
            self._cuda.wait(stream, self._done)
        else:
            self._thread = None  # all is there: later calls need no order

    def close(self) -> None:
        """Wait for the upload and free what it used."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._free_event()

    def __del__(self) -> None:
        if getattr(self, "_done", 0):  # the thread has ended: it holds the upload
            with self._cuda.borrowed():
                self._free_event()

    def _free_event(self) -> None:
        if self._done and self._cuda.activate_quietly():
            self._cuda.destroy_event(self._done)
        self._done = 0

    def _work(self) -> None:
        cuda = self._cuda
        stream, slots = 0, list[tuple[int, int]]()
        try:
            cuda.activate()
            stream = cuda.stream()
            for _ in range(_BUFFERS):
                slots.append((cuda.pinned(self._chunk), cuda.event()))
            self._copy(stream, slots)
            cuda.record(self._done, stream)
            self._enqueued.set()
            cuda.synchronize(stream)
        except BaseException as e:  # the thread that calls `before` raises it
            self._fault = e.with_traceback(None)
        finally:
            self._enqueued.set()
            if cuda.activate_quietly():
                if self._fault is not None and stream:
                    with contextlib.suppress(DeviceError):
                        cuda.synchronize(stream)  # copies that the failure left under way read what is freed now
                self._free(stream, slots)
                self._ended()
            # What only the upload needed refers to it: without this, memory would wait for the garbage collector.
            self._weights, self._ended = [], _nothing

    def _copy(self, stream: int, slots: Sequence[tuple[int, int]]) -> None:
        cuda, turn = self._cuda, 0
        for name, weight, address, then in self._weights:
            view = np.frombuffer(weight.bytes_view(), np.uint8)
            if view.nbytes != weight.nbytes:
                raise DeviceError(
                    f"weight {name!r} has {view.nbytes} bytes, not {weight.nbytes}", cure="compile the model again"
                )
            for start in range(0, view.nbytes, max(self._chunk, 1)):
                part = view[start : start + self._chunk]
                pinned, event = slots[turn % _BUFFERS]
                if turn >= _BUFFERS:
                    cuda.wait_event(event)  # its copy before has left the buffer
                ctypes.memmove(pinned, part.ctypes.data, part.nbytes)
                cuda.upload(address + start, pinned, part.nbytes, stream)
                cuda.record(event, stream)
                turn += 1
            if then is not None:
                then(stream)

    def _free(self, stream: int, slots: Sequence[tuple[int, int]]) -> None:
        for pinned, event in slots:
            self._cuda.free_pinned(pinned)
            self._cuda.destroy_event(event)
        if stream:
            self._cuda.destroy_stream(stream)
