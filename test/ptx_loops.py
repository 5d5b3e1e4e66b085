"""Loops of PTX code: how often an instruction occurs in the innermost loops that have it.

Basic blocks and their edges are read from labels and branches; a loop is a strongly connected part of that graph, and the loops
inside it are those of the part without its entry. Text between the marks of inline assembly is straight code: the waits that
spin there are no loops of the kernel.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_LABEL = re.compile(r"^(\$\w+):")
_BRANCH = re.compile(r"^(@!?%\w+\s+)?bra(?:\.uni)?\s+(\$\w+);")
_LEAVES = re.compile(r"^(@!?%\w+\s+)?(?:ret|exit|trap)\b")


@dataclass
class Block:
    """A basic block: its instructions, and the numbers of the blocks that may follow it."""

    lines: list[str] = field(default_factory=list)
    next: list[int] = field(default_factory=list)


def blocks_of(ptx: str, kernel: str) -> list[Block]:
    """Basic blocks of a kernel, its entry first. Raises ValueError where the text has no such kernel."""
    found = re.search(rf"\.entry {re.escape(kernel)}\(.*?^{{(.*?)(?=\.entry |\Z)", ptx, re.DOTALL | re.MULTILINE)
    if found is None:
        raise ValueError(f"no kernel {kernel!r} among {re.findall(r'[.]entry (.+?)[(]', ptx)}")
    blocks, labels, jumps = [Block()], {}, []
    falls, inline = True, False
    for raw in found[1].splitlines():
        line = raw.strip()
        if line.startswith("// begin inline asm") or line.startswith("// end inline asm"):
            inline = "begin" in line
        if inline:
            blocks[-1].lines.append(line)
            continue
        if label := _LABEL.match(line):
            blocks.append(Block())
            if falls:
                blocks[-2].next.append(len(blocks) - 1)
            labels[label[1]], falls = len(blocks) - 1, True
        elif branch := _BRANCH.match(line):
            jumps.append((len(blocks) - 1, branch[2]))
            falls = branch[1] is not None
            _start(blocks, falls)
        elif leaves := _LEAVES.match(line):
            falls = leaves[1] is not None
            _start(blocks, falls)
        else:
            blocks[-1].lines.append(line)
    for number, name in jumps:
        blocks[number].next.append(labels[name])
    return blocks


def _start(blocks: list[Block], falls: bool) -> None:
    """A block after a branch."""
    blocks.append(Block())
    if falls:
        blocks[-2].next.append(len(blocks) - 1)


def innermost_counts(ptx: str, kernel: str, instruction: str) -> list[int]:
    """For each innermost loop with matches of the pattern `instruction`, how many it has, sorted."""
    loops = innermost_loops(ptx, kernel, instruction)
    return sorted(sum(len(re.findall(instruction, line)) for line in lines) for lines in loops)


def innermost_loops(ptx: str, kernel: str, instruction: str) -> list[list[str]]:
    """The lines of each innermost loop with matches of the pattern `instruction`."""
    blocks = blocks_of(ptx, kernel)
    counts = [sum(len(re.findall(instruction, line)) for line in b.lines) for b in blocks]
    loops = _innermost(blocks, counts, set(range(len(blocks))))
    return [[line for i in sorted(loop) for line in blocks[i].lines] for loop in loops]


def _innermost(blocks: list[Block], counts: list[int], inside: set[int]) -> list[set[int]]:
    out = []
    for loop in _loops(blocks, inside):
        if sum(counts[i] for i in loop):
            entry = min(loop, key=lambda i: (not _entered(blocks, loop, i), i))
            out += _innermost(blocks, counts, loop - {entry}) or [loop]
    return out


def _entered(blocks: list[Block], loop: set[int], i: int) -> bool:
    """True where a block outside the loop leads to block `i`."""
    return any(i in b.next for j, b in enumerate(blocks) if j not in loop)


def _loops(blocks: list[Block], inside: set[int]) -> list[set[int]]:
    """Strongly connected parts of `inside` that have a cycle."""
    reach = {i: _reached(blocks, i, inside) for i in inside}
    out, seen = [], set[int]()
    for i in sorted(inside):
        if i in seen or i not in reach[i]:
            continue
        loop = {j for j in reach[i] if i in reach[j]}
        seen |= loop
        out.append(loop)
    return out


def _reached(blocks: list[Block], start: int, inside: set[int]) -> set[int]:
    """Blocks of `inside` that paths of at least one edge lead to."""
    found, todo = set[int](), [start]
    while todo:
        for i in blocks[todo.pop()].next:
            if i in inside and i not in found:
                found.add(i)
                todo.append(i)
    return found
