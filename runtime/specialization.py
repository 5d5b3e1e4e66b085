"""Specialization: a shape runs at once on kernels for any shape, and on kernels of its own when they are ready.

`lazy` (the default): the second call at a shape asks for a program whose kernels have its sizes as constants; it is built in a
background thread by the compile server, and the next call after that uses it. `eager`: the first call at a shape waits for it.
`none`: kernels for any shape only.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Hashable, Mapping
from typing import Literal, get_args

from ingot.errors import Error
from ingot.runtime.program_loader import LoadedProgram
from ingot.target import Target

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
    """Builds specialized programs, each once, by key. Threads may share it.

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
        self._ready: dict[Hashable, LoadedProgram] = {}
        self._asked: set[Hashable] = set()
        self._jobs: queue.SimpleQueue[tuple[Hashable, dict[str, int], frozenset[str]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self.failures: dict[Hashable, Error] = {}
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
        found = self._ready.get(key)
        if found is not None:
            return found
        wanted = self.mode == "eager" or calls > 0
        with self._lock:
            if not wanted or key in self._asked:
                return self._ready.get(key)
            self._asked.add(key)
        if self.mode == "eager":
            self._make(key, dict(env), live)
            return self._ready.get(key)
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="ingot-specialize", daemon=True)
                self._thread.start()
        self._jobs.put((key, dict(env), live))
        return None

    def close(self) -> None:
        """End the background thread, after the program it is building."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._make(*job)

    def _make(self, key: Hashable, env: dict[str, int], live: frozenset[str]) -> None:
        try:
            program = self._build(env, live)
        except Error as e:
            self.failures[key] = e
            return
        self.compiled += program.report.compiled
        self._ready[key] = program
