"""`--verify-diagnostics`: comments that state which diagnostics a test input must produce, as in MLIR's own tools.

    // expected-error @+1 {{expects 2 operands}}
    %0 = "ingot.matmul"(%a) ...

The kind is error, warning, remark or note; `-re` after it makes the text a regular expression; the place is `@+N`, `@-N`,
`@above`, `@below` (the nearest line without a comment of this sort), `@unknown` (no line is known, as for a node's name), or
the comment's own line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Diagnostic", "Expectation", "expectations_in", "mismatches"]

_COMMENT = re.compile(
    r"expected-(?P<kind>error|warning|remark|note)(?P<regex>-re)?"
    r"[ ]*(?:@(?P<place>[+-]\d+|above|below|unknown))?[ ]*\{\{(?P<text>.*?)\}\}[ ]*$"
)


@dataclass(frozen=True)
class Diagnostic:
    """One message about the input.

    Args:
        kind: error, warning, remark or note.
        message: without location.
        node: a name, or None.
        line: from 1, or None where the location is no line of the input.
        column: from 1.
    """

    kind: str
    message: str
    node: str | None = None
    line: int | None = None
    column: int = 1

    def __str__(self) -> str:
        where = f"{self.node}: " if self.node else ""
        return f"{where}{self.kind}: {self.message}"


@dataclass(frozen=True)
class Expectation:
    """A comment of the input.

    Args:
        kind: error, warning, remark or note.
        text: part of the message, or a regular expression to search for in it.
        is_regex: which of the two.
        line: where the diagnostic must be, from 1; None for a location that is no line.
        stated_at: the comment's own line.
    """

    kind: str
    text: str
    is_regex: bool
    line: int | None
    stated_at: int

    def matches(self, diagnostic: Diagnostic) -> bool:
        """Whether the diagnostic is the expected one."""
        if (self.kind, self.line) != (diagnostic.kind, diagnostic.line):
            return False
        if self.is_regex:
            return re.search(self.text, diagnostic.message) is not None
        return self.text in diagnostic.message


def expectations_in(text: str) -> list[Expectation]:
    """The expectations that the comments of an input state.

    Raises:
        ValueError: a comment starts like one but cannot be read, or points outside of the text.
    """
    lines = text.split("\n")
    found = []
    for number, line in enumerate(lines, 1):
        if not re.search(r"//.*\bexpected-(error|warning|remark|note)", line):
            continue
        match = _COMMENT.search(line)
        if match is None:
            raise ValueError(f"line {number}: cannot read {line.strip()!r}: write // expected-error @+1 {{{{text}}}}")
        found.append(
            Expectation(match["kind"], match["text"], bool(match["regex"]), _target(match["place"], number, lines), number)
        )
    return found


def _target(place: str | None, number: int, lines: Sequence[str]) -> int | None:
    if place is None:
        return number
    if place == "unknown":
        return None
    if place in ("above", "below"):
        step = -1 if place == "above" else 1
        target = number + step
        while 1 <= target <= len(lines) and _COMMENT.search(lines[target - 1]):
            target += step
    else:
        target = number + int(place)
    if not 1 <= target <= len(lines):
        raise ValueError(f"line {number}: @{place} is outside of the file")
    return target


def mismatches(expected: Sequence[Expectation], produced: Sequence[Diagnostic]) -> list[tuple[int | None, str]]:
    """What differs between expected and produced diagnostics, as (line, message); each is used once."""
    open_ = list(expected)
    faults: list[tuple[int | None, str]] = []
    for diagnostic in produced:
        match = next((e for e in open_ if e.matches(diagnostic)), None)
        if match is not None:
            open_.remove(match)
        elif diagnostic.kind != "note":  # notes need not be expected, as in MLIR
            faults.append((diagnostic.line, f"unexpected {diagnostic}"))
    faults += [(e.stated_at, f'expected {e.kind} "{e.text}" was not produced') for e in open_]
    return faults
