"""The memory that the CPU's thread pool works in: what the compiler emits code for and the runtime fills in.

Offsets are in bytes. What different threads write often lies in cache lines of its own.
"""

from __future__ import annotations

# Written once by the runtime.
PARALLEL_FOR = 0  # address of parallel_for(pool, kernel, buffers, sizes, items, work)
SYSCALL = 8  # address of libc's `syscall`
FUTEX = 16  # number of the system call `futex`
YIELD = 24  # and of `sched_yield`
SPINS = 32  # turns that a worker waits before it sleeps
THREADS = 40  # workers and the caller
STOP = 48  # workers return once this is not 0

EPOCH = 128  # i32: odd while a job is open
SLEEPERS = 192  # i32: workers that sleep, or are about to
LOCK = 256  # i32: 1 while a caller has the pool
NEXT = 320  # i64: first work item that nobody has taken
INSIDE = 384  # i32: workers that look at the job
JOB = 448  # kernel, buffers, sizes, items, chunk: 8 bytes each
BYTES = 512

WORKER, PARALLEL_FOR_SYMBOL = "worker", "parallel_for"
MIN_WORK = 1 << 17  # flops and bytes below which a launch stays on the caller's thread
CHUNK_WORK = 1 << 14  # and of a chunk, at least
CHUNKS_PER_THREAD = 4
