"""The compile server: a process of its own that compiles for a process that only runs engines.

It is started by a command line, `python -m ingot.compiler.compile_server --socket FD`, and never by forking the user's process,
which may hold a GPU, threads and locks. It imports MLIR and LLVM once and forks single-threaded workers, one for each job that
waits, up to a number. LLVM ends its process on a fatal error: then one job has failed, with the words that LLVM left, and
another worker takes its place. So it is with a worker that takes longer than a limit. The server ends when its client does, or
when it has been idle for long.

What workers have in memory when they are forked they need not load. While the first worker drafts a launch program, the server
warms up: it imports what kernels of the target need, and compiles one itself. Jobs that compile wait for that, and a worker
from before gives its place to a new one.

Requests, in the form of `ingot.framing` (every one has an `id`, which its answer repeats):

    {"job": "target"}                                   -> {"target": {...}}             this machine's CPU
    {"job": "print"} + [AOT IR]                         -> [text]                        a file's IR may end who reads it
    {"job": "draft", "target": {...}} + [AOT IR]        -> [draft of the launch program, dispatch, ...]
    {"job": "verify"} + [AOT IR]                        -> []                            what `draft` leaves out
    {"job": "kernel", "target": {...}} + [dispatch]     -> [KernelCode]
    {"job": "batch", "target": {...}} + [dispatch, ...] -> [cubin, KernelCode, ...]      small kernels that share a module
    {"job": "native", "target": {...}} + [program]      -> [KernelCode]                  a launch program as machine code

An answer with `error` is a failure: `{"error": {"type", "message", "node", "cure"}}`. A request may name a `dump_dir`.
A draft's dispatches are those of its kernels, in order. An engine's IR must pass `verify` before its draft is used: that takes
longer, and needs not be done before kernels are compiled. Answers to `draft`, `verify`, `kernel` and `batch` have `timings`:
seconds of each stage. A batch's answer has `faults`: failures of single kernels, by number; those have no bytes.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import math
import os
import selectors
import signal
import socket
import sys
import tempfile
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import IO, Any

from ingot import errors, framing
from ingot.compiler import warm_up
from ingot.target import Target

IDLE_SECONDS = 60.0
_COMPILING_JOBS = frozenset(("kernel", "batch", "native", "thread-pool"))


def run_job(message: dict[str, Any], blobs: list[bytes]) -> tuple[dict[str, Any], list[bytes]]:
    """Do one job. Raises ingot.errors.Error."""
    from ingot.compiler.compile_kernel import compile_kernel
    from ingot.dispatch import from_json

    dump_dir = message.get("dump_dir")
    if message["job"] == "target":
        from ingot.compiler.cpu_target import host_target

        return {"target": asdict(host_target())}, []
    if message["job"] == "print":
        from ingot.compiler.jit import parse
        from ingot.dialects.mlir import context

        try:
            with context():
                return {}, [str(parse(blobs[0])).encode()]
        except (RuntimeError, LookupError, ValueError) as e:
            raise _unreadable(str(e)) from None
    if message["job"] == "verify":
        from ingot.compiler.jit import verify_ir

        begin = time.perf_counter()
        verify_ir(blobs[0])
        return {"timings": {"verify": time.perf_counter() - begin}}, []
    target = Target.from_json(message["target"])
    match message["job"]:
        case "draft":
            from ingot import launch_program
            from ingot.compiler.jit import draft_program

            begin = time.perf_counter()
            draft = draft_program(blobs[0], target, passes=message.get("passes", ()), dump_dir=dump_dir, verify=False)
            data = launch_program.dumps(draft.program)
            texts = [entry.dispatch.encode() for entry in draft.program.kernels]
            return {"timings": {"draft": time.perf_counter() - begin}}, [data, *texts]
        case "kernel":
            from ingot.compiler.toolchain.stages import Timings

            timings = Timings()
            code = compile_kernel(from_json(json.loads(blobs[0])), target, dump_dir=dump_dir, timings=timings)
            return {"timings": timings.seconds}, [code.dumps()]
        case "batch":
            from ingot.compiler.compile_batch import compile_batch
            from ingot.compiler.toolchain.stages import Timings

            timings = Timings()
            dispatches = [from_json(json.loads(blob)) for blob in blobs]
            batch = compile_batch(dispatches, target, dump_dir=dump_dir, timings=timings)
            faults = {str(n): _describe(k) for n, k in enumerate(batch.kernels) if isinstance(k, errors.Error)}
            codes = [b"" if isinstance(k, errors.Error) else k.dumps() for k in batch.kernels]
            return {"timings": timings.seconds, "faults": faults}, [batch.module, *codes]
        case "native":
            from ingot import launch_program
            from ingot.compiler.native_program import compile_program

            return {}, [compile_program(launch_program.loads(blobs[0]), target, dump_dir=dump_dir).dumps()]
        case "thread-pool":
            from ingot.compiler.thread_pool_code import compile_thread_pool

            return {}, [compile_thread_pool(target).dumps()]
        case job:
            raise errors.CompileError(f"the compile server knows no job {job!r}", cure="report it")


def _unreadable(text: str) -> errors.EngineError:
    return errors.EngineError(f"the engine's IR cannot be read: {text}", cure="compile the model again")


def _describe(error: Exception) -> dict[str, Any]:
    if isinstance(error, errors.Error):
        return {"type": type(error).__name__, "message": error.message, "node": error.node, "cure": error.cure}
    if isinstance(error, OSError):
        message, cure = error.strerror or str(error), "check INGOT_DUMP_DIR, and whether the disk is full"
        return {"type": "CompileError", "message": f"the compiler: {message}", "node": error.filename, "cure": cure}
    return {"type": "CompileError", "message": f"{type(error).__name__}: {error}", "node": None, "cure": "report it"}


def _work(sock: socket.socket) -> None:
    """A worker's life: one job after the other until the server closes the socket."""
    while (received := framing.receive(sock)) is not None:
        message, blobs = received
        try:
            answer, out = run_job(message, blobs)
        except Exception as e:
            answer, out = {"error": _describe(e)}, []
        framing.send(sock, {**answer, "id": message["id"]}, out)


@dataclass
class _Worker:
    """A forked worker: its process, socket, the file its standard error goes to, what it does and until when it may."""

    pid: int
    sock: socket.socket
    words: IO[bytes]
    warmth: int = 0  # how many steps of warming up were done when it was forked
    job: tuple[dict[str, Any], list[bytes]] | None = None
    deadline: float = math.inf


@dataclass
class Server:
    """Takes requests from `client` and spreads them over at most `limit` workers; a job may take `job_seconds`."""

    client: socket.socket
    limit: int
    job_seconds: float = math.inf
    warming: deque[warm_up.Step] = field(default_factory=deque)  # steps to do between messages
    warmth: int = 0  # steps done
    targets: set[Target] = field(default_factory=set)  # those that steps were planned for
    waiting: deque[tuple[dict[str, Any], list[bytes]]] = field(default_factory=deque)
    workers: list[_Worker] = field(default_factory=list)
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)

    def serve(self) -> None:
        """Until the client is gone, or nothing was asked for `IDLE_SECONDS`."""
        self.selector.register(self.client, selectors.EVENT_READ, None)
        self.warming += warm_up.general_steps()
        while True:
            events = self.selector.select(self._patience())
            if not events and self.warming:
                self._warm_up()
            elif not events and not any(w.job for w in self.workers):
                break
            for key, _ in events:
                if key.data is None:
                    received = framing.receive(self.client)
                    if received is None:
                        return
                    self.waiting.append(received)
                    self._expect(received[0])
                else:
                    self._finish(key.data)
            for worker in [w for w in self.workers if w.job and w.deadline <= time.monotonic()]:
                self._expire(worker)
            self._assign()

    def _patience(self) -> float | None:
        """How long to wait for messages, in seconds; None: for ever."""
        if self.warming:
            return 0.0
        deadline = min((w.deadline for w in self.workers if w.job), default=None)
        if deadline is None:
            return IDLE_SECONDS
        return None if deadline == math.inf else max(0.0, deadline - time.monotonic())

    def stop(self) -> None:
        """End the workers."""
        for worker in self.workers:
            worker.sock.close()
            os.kill(worker.pid, signal.SIGKILL)
            os.waitpid(worker.pid, 0)

    def _assign(self) -> None:
        """Give jobs to workers, in order."""
        while self.waiting:
            compiles = self.waiting[0][0]["job"] in _COMPILING_JOBS
            if compiles and self.warming:
                return
            idle = [w for w in self.workers if w.job is None]
            if compiles:
                for worker in [w for w in idle if w.warmth < self.warmth]:
                    idle.remove(worker)
                    self._remove(worker)
            if not idle and len(self.workers) >= self.limit:
                return
            worker = idle.pop() if idle else self._fork()
            worker.job, worker.deadline = self.waiting.popleft(), time.monotonic() + self.job_seconds
            try:
                framing.send(worker.sock, *worker.job)
            except OSError:  # it died between two jobs
                self.waiting.appendleft(worker.job)
                worker.job = None
                self._remove(worker)

    def _expect(self, message: dict[str, Any]) -> None:
        """Plan to warm up for a request's target, where it is the first that names it."""
        if "target" not in message:
            return
        target = Target.from_json(message["target"])
        if target not in self.targets:
            self.targets.add(target)
            self.warming += warm_up.target_steps(target)

    def _warm_up(self) -> None:
        """Do the next step."""
        self.warming.popleft()()
        self.warmth += 1
        if not self.warming:
            gc.freeze()  # workers' collections leave these objects, and the memory they share, alone

    def _fork(self) -> _Worker:
        ours, theirs = socket.socketpair()
        # In memory: a container may have no place for temporary files.
        words = open(os.memfd_create("ingot-worker"), "w+b") if hasattr(os, "memfd_create") else tempfile.TemporaryFile()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                ours.close()
                self.client.close()
                for other in self.workers:
                    other.sock.close()
                os.dup2(words.fileno(), 2)
                _work(theirs)
                status = 0
            finally:
                os._exit(status)
        theirs.close()
        worker = _Worker(pid, ours, words, self.warmth)
        self.workers.append(worker)
        self.selector.register(ours, selectors.EVENT_READ, worker)
        return worker

    def _finish(self, worker: _Worker) -> None:
        try:
            received = framing.receive(worker.sock)
        except OSError:
            received = None
        job, worker.job = worker.job, None
        if received is not None:
            framing.send(self.client, *received)
            return
        status = self._remove(worker)
        if job is not None:
            self._fail(job, _last_words(status, worker.words))

    def _expire(self, worker: _Worker) -> None:
        """End a worker that took too long."""
        assert worker.job is not None
        os.kill(worker.pid, signal.SIGKILL)
        self._remove(worker)
        self._fail(worker.job, f"the compiler's worker did not end within {self.job_seconds:g} s (INGOT_JOB_SECONDS)")

    def _fail(self, job: tuple[dict[str, Any], list[bytes]], text: str) -> None:
        message, blobs = job
        framing.send(self.client, {"id": message["id"], "error": _describe(_lost(message, blobs, text))})

    def _remove(self, worker: _Worker) -> int:
        """Forget a dead worker; its wait status."""
        self.selector.unregister(worker.sock)
        worker.sock.close()
        self.workers.remove(worker)
        return os.waitpid(worker.pid, 0)[1]


def _last_words(status: int, words: IO[bytes]) -> str:
    """How a worker died, and the last line that LLVM wrote."""
    code = os.waitstatus_to_exitcode(status)
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    words.seek(0, os.SEEK_END)
    words.seek(max(0, words.tell() - 20000))
    lines = [x.strip() for x in words.read().decode(errors="replace").splitlines() if x.strip()]
    said = next((x for x in lines if "LLVM ERROR" in x or "error" in x.lower()), lines[-1] if lines else "")
    return f"the compiler's worker ended with {how}" + (f": {said[:500]}" if said else "")


def _lost(message: dict[str, Any], blobs: list[bytes], text: str) -> errors.Error:
    """The error for a job whose worker is gone."""
    if message["job"] == "kernel":
        from ingot.compiler.compile_kernel import failure
        from ingot.dispatch import from_json

        return failure(from_json(json.loads(blobs[0])), Target.from_json(message["target"]), text)
    if message["job"] == "print":
        return _unreadable(text)
    return errors.CompileError(f"{text} (job {message['job']})", cure="report it with the model")


def main(arguments: list[str] | None = None) -> int:
    """Entry point of `python -m ingot.compiler.compile_server`."""
    parser = argparse.ArgumentParser(prog="python -m ingot.compiler.compile_server", description=__doc__)
    parser.add_argument("--socket", type=int, required=True, help="file descriptor of a connected stream socket")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="most workers at a time")
    parser.add_argument("--job-seconds", type=float, default=math.inf, help="longest time for a job")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the client; its end is ours
    client = socket.socket(fileno=options.socket)
    for module in warm_up.DRAFT:
        importlib.import_module(module)
    server = Server(client, max(1, options.workers), options.job_seconds)
    try:
        server.serve()
    except OSError:  # the client went away
        pass
    finally:
        server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
