"""Progress bars: shown on a terminal for work that takes over a second, silent elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SHOW_AFTER = 1.0  # seconds


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """Give a function (stage, done, total) that draws a bar on standard error where a person watches."""
    if not sys.stderr.isatty():
        yield lambda stage, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    text = (TextColumn("{task.description:24}"), TextColumn("{task.completed}/{task.total}"))
    bars = Progress(text[0], BarColumn(), text[1], TimeElapsedColumn(), console=Console(stderr=True), transient=True)
    tasks: dict[str, Any] = {}
    start = time.monotonic()
    shown = False

    def update(stage: str, done: int, total: int) -> None:
        nonlocal shown
        if stage not in tasks:
            tasks[stage] = bars.add_task(stage, total=total)
        bars.update(tasks[stage], completed=done, total=total)
        if not shown and time.monotonic() - start > SHOW_AFTER:
            bars.start()
            shown = True

    try:
        yield update
    finally:
        if shown:
            bars.stop()
