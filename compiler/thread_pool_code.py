"""The CPU's thread pool as machine code: the workers' loop and `parallel_for`.

Threads are the runtime's: Python threads that enter `worker` and stay there without the interpreter's lock. A job is open while
the epoch is odd. A worker counts itself in (`INSIDE`), looks again whether the job is still open, takes chunks of items from
a shared counter, and counts itself out; the caller takes chunks too, closes the job, and waits until nobody is inside. Since
the worker's count and its second look, and the caller's closing and its look at the count, are sequentially consistent, either
the worker sees the job closed or the caller sees the worker (Dekker's argument). Idle workers spin, then sleep in the
kernel on the epoch (futex(2)). A second caller that finds the pool taken does its work alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ingot import thread_pool_layout as layout
from ingot.compiler.codegen.kernel_builder import KernelBuilder, KernelModule, Param, Val
from ingot.compiler.toolchain import stages
from ingot.compiler.toolchain.host import HostTarget
from ingot.kernel_code import KernelCode
from ingot.kernel_plan import KernelPlan
from ingot.target import Target

_ADD, _XCHG = 1, 0  # llvm::AtomicRMWInst::BinOp
_SEQ_CST = 7  # llvm::AtomicOrdering
_WAIT, _WAKE = 128, 129  # FUTEX_WAIT_PRIVATE, FUTEX_WAKE_PRIVATE
_YIELD_EVERY = 64


def compile_thread_pool(target: Target, *, dump_dir: str | Path | None = None) -> KernelCode:
    """The pool's code for `target`: functions `worker(pool)` and `parallel_for(pool, kernel, buffers, sizes, items, work)`."""
    with KernelModule("cpu") as m:
        with m.kernel(layout.WORKER, [Param("pool", "ptr")]) as k:
            _worker(k, *k.args)
        params = [Param(n, "ptr") for n in ("pool", "kernel", "buffers", "sizes")]
        with m.kernel(layout.PARALLEL_FOR_SYMBOL, [*params, Param("items", "i64"), Param("work", "i64")]) as k:
            _parallel_for(k, *k.args)
        options = stages.Options(host=HostTarget(target.cpu, target.features), name="thread_pool")
        image = stages.compile_kernels(m.module, "cpu", options=options, dump_dir=dump_dir)
    return KernelCode(KernelPlan(()), "image", image.data, image.symbols)


def call(k: KernelBuilder, function: Val, arguments: list[Val], result: str = "") -> Val | None:
    """Call the function at address `function` by the C calling convention."""
    attributes = {
        "operandSegmentSizes": k.attr(f"array<i32: {1 + len(arguments)}, 0>"),
        "op_bundle_sizes": k.attr("array<i32>"),
    }
    if result:
        return k.emit("llvm.call", [function, *arguments], k.type(result), attributes)
    k.op("llvm.call", [function, *arguments], (), attributes)
    return None


def _atomic(k: KernelBuilder, operation: int, p: Val, value: Val) -> Val:
    """The old value at `p`, which becomes the sum with, or is exchanged for, `value`."""
    attributes = {"bin_op": k.attr(f"{operation} : i64"), "ordering": k.attr(f"{_SEQ_CST} : i64")}
    return k.emit("llvm.atomicrmw", (p, value), value.t, attributes)


def _load(k: KernelBuilder, p: Val, type_: str) -> Val:
    t = k.type(type_)
    attributes = {"ordering": k.attr(f"{_SEQ_CST} : i64"), "alignment": k.attr(f"{t.nbytes} : i64")}
    return k.emit("llvm.load", (p,), t, attributes)


def _pause(k: KernelBuilder) -> None:
    attributes: dict[str, Any] = {
        "asm_string": k.attr('"pause"'),
        "constraints": k.attr('"~{memory},~{dirflag},~{fpsr},~{flags}"'),
        "has_side_effects": k.attr("unit"),
    }
    k.op("llvm.inline_asm", [], (), attributes)


def _system_call(k: KernelBuilder, pool: Val, number: int, arguments: list[Val]) -> None:
    which = k.load(pool + number, "i64")
    call(k, k.load(pool + layout.SYSCALL, "ptr"), [which, *arguments], "i64")


def _take_chunks(k: KernelBuilder, pool: Val) -> None:
    """Do chunks of the open job until all its items are taken."""
    kernel, buffers, sizes = (k.load(pool + layout.JOB + 8 * i, "ptr") for i in range(3))
    items, chunk = (k.load(pool + layout.JOB + 8 * i, "i64") for i in (3, 4))
    first = _atomic(k, _ADD, pool + layout.NEXT, chunk)
    with k.while_([first], lambda c: c[0] < items) as loop:
        (begin,) = loop.carry
        call(k, kernel, [buffers, sizes, begin, k.min(begin + chunk, items)])
        loop.yield_([_atomic(k, _ADD, pool + layout.NEXT, chunk)])


def _worker(k: KernelBuilder, pool: Val) -> None:
    epoch, inside, sleepers = pool + layout.EPOCH, pool + layout.INSIDE, pool + layout.SLEEPERS
    limit = k.load(pool + layout.SPINS, "i64")
    one, minus = k.const(1, "i32"), k.const(-1, "i32")

    def goes_on(carry: list[Val]) -> Val:
        return _load(k, pool + layout.STOP, "i64").eq(0)

    with k.while_([k.const(0, "i32"), k.const(0, "i64")], goes_on) as loop:
        done, spins = loop.carry
        now = _load(k, epoch, "i32")
        with k.if_else((now & 1).ne(0) & now.ne(done), results=["i32", "i64"]) as branch:
            with branch.then:
                _atomic(k, _ADD, inside, one)
                with k.if_(_load(k, epoch, "i32").eq(now)):
                    _take_chunks(k, pool)
                _atomic(k, _ADD, inside, minus)
                branch.yield_([now, k.const(0, "i64")])
            with branch.else_:
                with k.if_else(spins < limit, results=["i64"]) as waiting:
                    with waiting.then:
                        _pause(k)
                        waiting.yield_([spins + 1])
                    with waiting.else_:
                        _atomic(k, _ADD, sleepers, one)
                        zero = k.const(0, "i64")
                        _system_call(k, pool, layout.FUTEX, [epoch, k.const(_WAIT, "i64"), now.to("i64"), zero])
                        _atomic(k, _ADD, sleepers, minus)
                        waiting.yield_([zero])
                branch.yield_([done, waiting.results[0]])
        loop.yield_(branch.results)


def _parallel_for(k: KernelBuilder, pool: Val, kernel: Val, buffers: Val, sizes: Val, items: Val, work: Val) -> None:
    """kernel(buffers, sizes, begin, end) over [0, items). `work` counts its flops and bytes, 0 where that is not known."""
    threads = k.load(pool + layout.THREADS, "i64")
    small = (work > 0) & (work < layout.MIN_WORK)
    alone = (items < 2) | (threads < 2) | small
    with k.if_else(alone, results=["i32"]) as lock:
        with lock.then:
            lock.yield_([k.const(1, "i32")])
        with lock.else_:
            lock.yield_([_atomic(k, _XCHG, pool + layout.LOCK, k.const(1, "i32"))])
    with k.if_else(lock.results[0].ne(0)) as taken:
        with taken.then, k.if_(items > 0):
            call(k, kernel, [buffers, sizes, k.const(0, "i64"), items])
        with taken.else_:
            most = threads * layout.CHUNKS_PER_THREAD
            worth = k.max(work // layout.CHUNK_WORK, 2)
            chunks = k.select(work.eq(0), most, k.min(most, worth))
            chunk = (items + chunks - 1) // chunks
            for i, value in enumerate((kernel, buffers, sizes, items, chunk)):
                k.store(value, pool + layout.JOB + 8 * i)
            k.store(k.const(0, "i64"), pool + layout.NEXT)
            epoch, one = pool + layout.EPOCH, k.const(1, "i32")
            _atomic(k, _ADD, epoch, one)
            with k.if_(_load(k, pool + layout.SLEEPERS, "i32") > 0):
                _system_call(k, pool, layout.FUTEX, [epoch, k.const(_WAKE, "i64"), threads - 1])
            _take_chunks(k, pool)
            _atomic(k, _ADD, epoch, one)

            def occupied(carry: list[Val]) -> Val:
                return _load(k, pool + layout.INSIDE, "i32").ne(0)

            with k.while_([k.const(1, "i64")], occupied) as loop:
                (turn,) = loop.carry
                with k.if_else((turn % _YIELD_EVERY).eq(0)) as rest:
                    with rest.then:
                        _system_call(k, pool, layout.YIELD, [])
                    with rest.else_:
                        _pause(k)
                loop.yield_([turn + 1])
            _atomic(k, _XCHG, pool + layout.LOCK, k.const(0, "i32"))
