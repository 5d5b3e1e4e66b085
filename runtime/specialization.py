"""Specialization: a shape runs at once on kernels for any shape, and on kernels of its own when they are ready.

`lazy` (the default): the second call at a shape asks for a program whose kernels have its sizes as constants; it is built in a
background thread by the compile server, and the next call after that uses it. `eager`: the first call at a shape waits for it.
`none`: kernels for any shape only.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Literal, get_args

from ingot.errors import Error
from ingot.runtime.program_loader import LoadedProgram
from ingot.target import Target

_KEPT = 64  # programs, and failures, that are remembered
_WAITING = 16  # programs that wait to be built; the one asked for longest ago gives way

Mode = Literal["lazy", "eager", "none"]
Build = Callable[[Mapping[str, int], frozenset[str]], LoadedProgram]


def check_mode(mode: str) -> Mode:
    """`mode` itself. Raises ValueError where there is no such mode."""
    if mode not in get_args(Mode):
        raise ValueError(f"specialize={mode!r} is none of {', '.join(get_args(Mode))}")
    return mode  # type: ignore[return-value]


def machine_passes(
    target: Target, *, tf32: bool = False, fast_accumulation: bool = False, specialize: Mode = "lazy"
) -> tuple[str, ...]:
    """The passes that a session asks for on its machine: shapes that get kernels of their own may begin with shared ones, and
    weights lie as the target's instructions take them."""
    gpu = target.kind == "cuda"
    chosen = {
        "ingot-allow-tf32": tf32,
        "ingot-allow-fast-accumulation": fast_accumulation,
        f"ingot-pack-weights{{target={target.name}}}": gpu,
        "ingot-share-kernels": gpu and specialize != "none",
    }
    return tuple(name for name, on in chosen.items() if on)


class Specializer:
    """Builds specialized programs, each once, by key, and remembers the last of them. Threads may share it.

    Args:
        build: makes the program for sizes and live names.
        mode: when.

    Attributes:
        failures: what could not be built, by key: such shapes stay on kernels for any shape.
        compiled: kernels compiled for specialized programs.
    """

    def __init__(self, build: Build, mode: Mode = "lazy") -> None:
        self._build, self.mode = build, mode
        self._lock = threading.Lock()
        self._ready: OrderedDict[Hashable, LoadedProgram] = OrderedDict()
        self._asked: set[Hashable] = set()  # those that are ready, failed, wait, or are being built
        self._waiting: OrderedDict[Hashable, tuple[dict[str, int], frozenset[str]]] = OrderedDict()
        self._thread: threading.Thread | None = None
        self.failures: OrderedDict[Hashable, Exception] = OrderedDict()
        self.compiled = 0

    def get(self, key: Hashable, env: Mapping[str, int], live: frozenset[str], calls: int) -> LoadedProgram | None:
        """The program for a key, or None while there is none.

        Args:
            key: distinguishes the sizes that become constants.
            env, live: see `ingot.program_linking.specialize`.
            calls: earlier calls with this key.
        """
        if self.mode == "none":
            return None
        with self._lock:
            found = self._ready.get(key)
            if found is not None or key in self._asked or (self.mode == "lazy" and calls == 0):
                return found
            self._asked.add(key)
            if self.mode == "lazy":
                self._waiting[key] = dict(env), live
                self._forget(self._waiting, _WAITING)
                if self._thread is None:
                    self._thread = threading.Thread(target=self._work, name="ingot-specialize", daemon=True)
                    self._thread.start()
                return None
        try:
            self._make(key, dict(env), live)
        except BaseException:
            with self._lock:
                self._asked.discard(key)
            raise
        with self._lock:
            return self._ready.get(key)

    def close(self) -> None:
        """End the background thread, after the program it is building."""
        with self._lock:
            thread = self._thread
            self._forget(self._waiting, 0)
        if thread is not None:
            thread.join()

    def _forget(self, of: OrderedDict[Hashable, Any], limit: int) -> None:
        """Drop the oldest entries beyond a limit; they may be asked for again. The lock is held."""
        while len(of) > limit:
            self._asked.discard(of.popitem(last=False)[0])

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._thread = None  # a thread that waited would keep the session's memory for good
                    return
                key, job = self._waiting.popitem(last=False)
            try:
                self._make(key, *job)
            except Exception as e:  # a defect of ours must not end the thread: shapes to come get their kernels
                self._fail(key, e)

    def _make(self, key: Hashable, env: dict[str, int], live: frozenset[str]) -> None:
        try:
            program = self._build(env, live)
        except Error as e:
            self._fail(key, e)
            return
        with self._lock:
            self.compiled += program.report.compiled
            self._ready[key] = program
            self._forget(self._ready, _KEPT)

    def _fail(self, key: Hashable, error: Exception) -> None:
        with self._lock:
            self.failures[key] = error.with_traceback(None)
            self._forget(self.failures, _KEPT)
