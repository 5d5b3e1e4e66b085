"""Where the time of loading an engine went: step by step, and stage by stage of the kernels' compilation."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class LoadReport:
    """What `Session.load_report` returns, as a dictionary.

    Attributes:
        kernels: different kernels of the program.
        compiled: those of them that the cache lacked.
        workers: processes that could compile at the same time; 0 where nothing was compiled.
        steps: seconds of the wall clock by step, in order: `engine` (reading the file), `device` (opening it), `cached`
            (looking into the cache), `draft` (the compile server's start and the launch program), `kernels`, `link`, `native`
            (CPU: the program as machine code), `prepare` (memory and weights).
        stages: seconds that the workers spent on each stage (see `ingot.compiler.toolchain.stages`), summed over all of them:
            `draft`, `verify` (the engine's IR), and for kernels `kernel-ir` (emitting) to `cubin` or `image`.
    """

    kernels: int = 0
    compiled: int = 0
    workers: int = 0
    steps: dict[str, float] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Count the time until the end of the block as step `name`."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.steps[name] = self.steps.get(name, 0.0) + time.perf_counter() - begin

    def add_stages(self, answer: Mapping[str, Any]) -> None:
        """Add the `timings` of the compile server's answer to a job."""
        for name, seconds in answer.get("timings", {}).items():
            self.stages[name] = self.stages.get(name, 0.0) + seconds

    def as_dict(self) -> dict[str, Any]:
        """The attributes, and `seconds`: the sum of all steps."""
        return {**asdict(self), "seconds": sum(self.steps.values())}
