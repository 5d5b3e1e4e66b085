"""Execution contexts of a session, leased for each call."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, Protocol, TypeVar


class _Closable(Protocol):
    def close(self) -> None: ...


Context = TypeVar("Context", bound=_Closable)


class ContextPool(Generic[Context]):
    """At most `limit` contexts, made when needed; a caller that finds none waits for one.

    The context used last is given first, since its arena is warm.
    """

    def __init__(self, make: Callable[[], Context], limit: int) -> None:
        if limit < 1:
            raise ValueError(f"a session needs at least one execution context, not {limit}")
        self._make, self.limit = make, limit
        self._free: list[Context] = []
        self._made = 0
        self._changed = threading.Condition()

    @property
    def made(self) -> int:
        """Contexts made so far."""
        return self._made

    @contextmanager
    def lease(self, fits: Callable[[Context], bool] = lambda context: True) -> Iterator[Context]:
        """A context for one call: one that `fits` where there is such, or can be made, else any."""
        with self._changed:
            while not self._free and self._made == self.limit:
                self._changed.wait()
            context = self._take(fits)
            if context is None:
                self._made += 1
        try:
            if context is None:
                context = self._make()
        except BaseException:
            with self._changed:
                self._made -= 1
                self._changed.notify()
            raise
        try:
            yield context
        finally:
            with self._changed:
                self._free.append(context)
                self._changed.notify()

    def _take(self, fits: Callable[[Context], bool]) -> Context | None:
        """A free context; None where a new one is better."""
        for n, context in reversed(list(enumerate(self._free))):
            if fits(context):
                return self._free.pop(n)
        return self._free.pop() if self._free and self._made == self.limit else None

    def close(self) -> None:
        """Close the contexts that are free."""
        with self._changed:
            while self._free:
                self._free.pop().close()
                self._made -= 1
