"""The CPU's threads: Python threads that live in native code, without the interpreter's lock.

See `ingot.compiler.thread_pool_code` for how they share work.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading

import numpy as np

from ingot import thread_pool_layout as layout
from ingot.kernel_code import KernelCode
from ingot.runtime import platform_posix as platform
from ingot.runtime.cpu_image import CpuImages

DEFAULT_SPINS = 2000  # about 50 us with a `pause` of 40 cycles: longer than the gap between two launches


class ThreadPool:
    """Threads that run chunks of launches.

    Args:
        code: the pool's machine code.
        threads: those that work at the same time, the caller among them; the cores by default.
        spins: turns that an idle thread waits before it sleeps.

    Attributes:
        address: of the pool's memory, which launch programs take.
    """

    def __init__(self, code: KernelCode, threads: int | None = None, *, spins: int = DEFAULT_SPINS) -> None:
        if threads is not None and threads < 1:
            raise ValueError(f"threads={threads}: at least the caller's works")
        self.threads = threads or platform.cpu_count()
        syscall = platform.syscall_address()
        if not syscall:
            self.threads = 1
        self._images = CpuImages([code])
        self._memory = np.zeros(layout.BYTES + 64, np.uint8)
        self.address = -(-self._memory.ctypes.data // 64) * 64
        self._put(layout.PARALLEL_FOR, self._images.address(0, layout.PARALLEL_FOR_SYMBOL))
        self._put(layout.SYSCALL, syscall)
        if syscall:
            futex, sched_yield = platform.syscall_numbers()
            self._put(layout.FUTEX, futex)
            self._put(layout.YIELD, sched_yield)
        self._put(layout.SPINS, spins)
        self._put(layout.THREADS, self.threads)
        self._parallel_for = self._images.function(0, layout.PARALLEL_FOR_SYMBOL, 6)
        worker = self._images.function(0, layout.WORKER, 1)
        self._threads = [
            threading.Thread(target=worker, args=(self.address,), daemon=True, name=f"ingot-{i}")
            for i in range(1, self.threads)
        ]
        for thread in self._threads:
            thread.start()
        atexit.register(self.close)

    def _put(self, offset: int, value: int) -> None:
        ctypes.c_int64.from_address(self.address + offset).value = value

    def parallel_for(self, kernel: int, buffers: int, sizes: int, items: int, work: int = 0) -> None:
        """Run the kernel at address `kernel` over [0, items); see `ingot.kernel_plan` for its arguments."""
        self._parallel_for(self.address, kernel, buffers, sizes, items, work)

    def close(self) -> None:
        """End the threads; nothing may be running on them."""
        atexit.unregister(self.close)
        if not self._threads:
            return
        self._put(layout.STOP, 1)
        epoch = ctypes.c_int32.from_address(self.address + layout.EPOCH)
        epoch.value += 2  # still even: no job, but another value than sleepers wait on
        function = ctypes.CFUNCTYPE(ctypes.c_long, *[ctypes.c_long] * 4)(platform.syscall_address())
        while any(t.is_alive() for t in self._threads):
            function(platform.syscall_numbers()[0], self.address + layout.EPOCH, 129, 1 << 30)  # FUTEX_WAKE_PRIVATE
            for thread in self._threads:
                thread.join(0.05)
        self._threads = []


_pools: dict[tuple[int, int], ThreadPool] = {}
_lock = threading.Lock()


def shared_pool(code: KernelCode, threads: int | None = None) -> ThreadPool:
    """The process' pool of so many threads; a forked child, which inherits no threads, gets its own."""
    key = os.getpid(), platform.cpu_count() if threads is None else threads
    with _lock:
        if key not in _pools:
            _pools[key] = ThreadPool(code, key[1])
        return _pools[key]
