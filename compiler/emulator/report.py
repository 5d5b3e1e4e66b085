"""What an emulated launch found wrong, and what it counted."""

from __future__ import annotations

from dataclasses import dataclass, field


class EmulationError(Exception):
    """The emulation cannot go on: a deadlock, an operation it does not know, or a warp-wide operation in divergent code."""


@dataclass(frozen=True)
class Finding:
    """One defect.

    Attributes:
        kind: `race`, `out of bounds`, `uninitialized`, `misaligned`, `conflict` (lanes of one instruction write
            different values to one place), `proxy` (no fence between ordinary writes and an asynchronous read), `async`
            (memory or registers of an unfinished asynchronous operation were touched) or `mbarrier`.
        operation: name of the operation at fault.
        block, thread: linear block of the grid and thread of the block, of the first lane at fault.
        detail: what was found, in words.
    """

    kind: str
    operation: str
    block: int
    thread: int
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.operation} in block {self.block}, thread {self.thread}: {self.detail}"


@dataclass
class Report:
    """Findings and counts of one launch.

    Attributes:
        findings: defects, one for each operation and kind (the first place it happened); at most `LIMIT`.
        bank_conflicts: cycles that shared-memory accesses of warps took beyond the least possible for their size; None where
            they were not counted.
        executed: how often each matrix operation was executed, by warps (wgmma: by warpgroups).
        blocks: number of blocks run.
    """

    LIMIT = 100

    findings: list[Finding] = field(default_factory=list)
    bank_conflicts: int | None = None
    executed: dict[str, int] = field(default_factory=dict)
    blocks: int = 0
    _seen: set[tuple] = field(default_factory=set, repr=False)

    @property
    def ok(self) -> bool:
        """True if nothing was found."""
        return not self.findings

    def add(self, key: int, finding: Finding) -> None:
        """Record a finding unless the operation (identified by `key`) has one of its kind, or one says the same."""
        seen = {(finding.kind, key), (finding.kind, finding.operation, finding.detail)}
        if not seen & self._seen and len(self.findings) < self.LIMIT:
            self.findings.append(finding)
        self._seen |= seen

    def count(self, operation: str, times: int) -> None:
        """Count executions of an operation."""
        self.executed[operation] = self.executed.get(operation, 0) + times

    def check(self) -> Report:
        """Raise EmulationError with all findings if there are any; else return the report."""
        if self.findings:
            raise EmulationError("\n".join(map(str, self.findings)))
        return self
