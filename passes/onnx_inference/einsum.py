"""Equations of Einsum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Equation:
    """Labels of each operand's axes and of the result's; axes under an ellipsis are labelled `0`, `1`, ... from the left."""

    operands: tuple[str, ...]
    result: str


def parse_equation(text: str, ranks: Sequence[int]) -> Equation:
    """The equation for operands of these ranks (ONNX, Einsum; numpy.einsum). Raises ValueError quoting the text."""
    left, arrow, right = text.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise ValueError(f"equation {text!r} has {len(terms)} terms for {len(ranks)} inputs")
    spread = max(rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True))
    operands = []
    for term, rank in zip(terms, ranks, strict=True):
        count = rank - len(term.replace("...", ""))
        if (count and "..." not in term) or count < 0:
            raise ValueError(f"equation {text!r}: term {term!r} does not fit rank {rank}")
        operands.append(term.replace("...", "".join(str(i) for i in range(spread - count, spread))))
    if not arrow:
        letters = left.replace(",", "").replace("...", "")
        once = sorted(c for c in set(letters) if letters.count(c) == 1)
        right = ("..." if "..." in left else "") + "".join(once)
    result = right.replace("...", "".join(str(i) for i in range(spread)) if "..." in right else "")
    known = set("".join(operands))
    if not set(result) <= known or len(set(result)) < len(result):
        raise ValueError(f"equation {text!r}: the result {right!r} names an unknown axis or one twice")
    return Equation(tuple(operands), result)
