"""The runtime's end of the compile server: starts it, sends jobs, raises its errors.

Nothing here imports the compiler. The server is started at the first call of `start` or `jobs`, so that it warms up while the
engine is being read; it ends with this process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ingot import errors, framing
from ingot.fingerprint import has_compiler
from ingot.runtime import platform_posix as platform
from ingot.target import Target

Answer = tuple[int, dict[str, Any] | errors.Error, list[bytes]]  # the job's number, and what it gave

_JOB_SECONDS = 300.0  # the slowest kernels take a few seconds of one core


def _number(variable: str) -> float:
    """The number in an environment variable, 0 where there is none. Raises Error for other text."""
    text = os.environ.get(variable) or "0"
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise errors.Error(f"the environment has {variable}={text}", cure="give a number, or unset it")
    return number


@dataclass(frozen=True)
class Job:
    """A request to the compile server; see `ingot.compiler.compile_server`."""

    job: str
    target: Target | None = None
    blobs: tuple[bytes, ...] = ()
    passes: tuple[str, ...] = ()


class CompileClient:
    """A compile server and the socket to it; threads may share one, and their requests take turns.

    Args:
        workers: processes that compile at the same time; the cores by default, or `INGOT_WORKERS`.
        dump_dir: a directory for every stage of every kernel.
        job_seconds: the longest that a job may take before it fails; 300 by default, or `INGOT_JOB_SECONDS`.
    """

    def __init__(self, *, workers: int | None = None, dump_dir: str | None = None, job_seconds: float | None = None) -> None:
        self.workers = workers or int(_number("INGOT_WORKERS")) or platform.cpu_count()
        self.dump_dir = dump_dir if dump_dir is not None else os.environ.get("INGOT_DUMP_DIR")
        self.job_seconds = job_seconds or _number("INGOT_JOB_SECONDS") or _JOB_SECONDS
        self._lock = threading.Lock()  # held while jobs are under way
        self._start_lock = threading.Lock()
        self._process: subprocess.Popen | None = None
        self._sock: socket.socket | None = None

    def start(self) -> None:
        """Start the server if it does not run; returns at once. Raises CompileError where the compiler is not installed."""
        with self._start_lock:
            if not self.running:
                self._start()

    def _start(self) -> None:
        if not has_compiler():
            raise errors.CompileError(
                "a kernel is not in the runtime cache, and the compiler is not installed",
                cure="pip install 'ingot[compile]', or import a cache that has this engine's kernels",
            )
        self.close()
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "ingot.compiler.compile_server", "--socket", str(theirs.fileno()),
                   "--workers", str(self.workers), "--job-seconds", str(self.job_seconds)]  # fmt: skip
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # numpy's threads would do nothing there
        with theirs:
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=environment)
        self._sock = ours

    def close(self) -> None:
        """End the server."""
        if self._sock is not None:
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)  # a thread that is sending holds the socket open otherwise
            self._sock.close()
            self._sock = None
        if self._process is not None:
            if self._exit_code() is None:
                self._process.kill()
                self._process.wait()
            self._process = None

    def _exit_code(self) -> int | None:
        """What the server ended with, once it is about to end; None where it goes on."""
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(2)
        return self._process.poll()

    @property
    def running(self) -> bool:
        """True while there is a server."""
        return self._process is not None and self._process.poll() is None

    def jobs(self, jobs: Sequence[Job]) -> Generator[Answer, None, None]:
        """Send all jobs, and give (number, answer, byte strings) as they are done, in any order.

        An answer is the error itself where a job failed. Raises CompileError where the server cannot be started or dies.
        """
        with self._lock:
            left = dict(enumerate(jobs))
            for last in (False, True):
                try:
                    yield from self._answers(left)
                    return
                except OSError as e:
                    code = self._exit_code() if self._process is not None else None
                    if code == 0 and not last:
                        continue  # it ended for want of work when these jobs were on their way
                    how = f"ended with code {code}" if code else str(e)
                    cure = "run python -m ingot.compiler.compile_server --help to see whether it starts"
                    if code is not None and code < 0:
                        how = f"was ended by {signal.Signals(-code).name}"
                        cure = "try again; where memory ran out, with fewer workers: INGOT_WORKERS=1"
                    raise errors.CompileError(f"the compile server {how}", cure=cure) from e
                finally:
                    if left:
                        self.close()

    def _answers(self, left: dict[int, Job]) -> Iterator[Answer]:
        """Send jobs and give their answers; those that are done leave `left`. Raises OSError where the server is gone."""
        if not left:
            return
        self.start()
        sock = self._sock
        assert sock is not None
        # One thread sends while this one receives: with both in one, two full sockets would wait for each other.
        sender = threading.Thread(target=self._send, args=(sock, dict(left)), daemon=True)
        sender.start()
        try:
            while left:
                received = framing.receive(sock)
                if received is None:
                    raise ConnectionError("closed its socket")
                message, blobs = received
                del left[message["id"]]
                fault = message.get("error")
                yield message["id"], as_error(fault) if fault else message, blobs
        finally:
            if left:  # nobody reads on (an interrupt, say), and answers still to come would reach the next caller
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            sender.join()

    def _send(self, sock: socket.socket, jobs: Mapping[int, Job]) -> None:
        with contextlib.suppress(OSError):
            for number, job in jobs.items():
                message: dict[str, Any] = {"id": number, "job": job.job}
                if job.target is not None:
                    message["target"] = asdict(job.target)
                if job.passes:
                    message["passes"] = list(job.passes)
                if self.dump_dir:
                    message["dump_dir"] = os.path.abspath(self.dump_dir)
                framing.send(sock, message, job.blobs)

    def one(self, job: Job) -> tuple[dict[str, Any], list[bytes]]:
        """Do one job. Raises its error."""
        ((_, answer, blobs),) = self.jobs([job])
        if isinstance(answer, errors.Error):
            raise answer
        return answer, blobs


def as_error(fault: dict[str, Any]) -> errors.Error:
    """The error that an answer describes."""
    kind = getattr(errors, str(fault["type"]), errors.CompileError)
    if not (isinstance(kind, type) and issubclass(kind, errors.Error)):
        kind = errors.CompileError
    return kind(fault["message"], node=fault["node"], cure=fault["cure"])


_shared: dict[int, CompileClient] = {}


def shared_client() -> CompileClient:
    """The process' compile server; a forked child gets one of its own."""
    return _shared.setdefault(os.getpid(), CompileClient())
