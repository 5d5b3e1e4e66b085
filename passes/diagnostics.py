"""From MLIR's locations and diagnostics to names and lines that people can act on."""

from __future__ import annotations

from ingot.dialects.mlir import ir

__all__ = ["describe", "node_name"]


def node_name(at: ir.Operation | ir.OpView | ir.Location) -> str | None:
    """The name of the node that an operation came from.

    A named location gives its name, a fused one its parts' names joined by `+`, a call site its callee, and a
    file location `file:line:column`. None where nothing is known.
    """
    loc = at if isinstance(at, ir.Location) else at.location
    if type(loc) is ir.Location:  # diagnostics hold their location as the base class
        loc = ir.Location.from_attr(loc.attr)
    if isinstance(loc, ir.NameLoc):
        return loc.name_str
    if isinstance(loc, ir.FusedLoc):
        names = dict.fromkeys(name for part in loc.locations if (name := node_name(part)))
        return "+".join(names) or None
    if isinstance(loc, ir.CallSiteLoc):
        return node_name(loc.callee)
    if isinstance(loc, ir.FileLineColLoc):
        return f"{loc.filename}:{loc.start_line}:{loc.start_col}" if loc.start_line else None
    return None


def describe(error: ir.MLIRError) -> tuple[str, str | None]:
    """The message of an MLIR error and the node at fault: all its diagnostics and their notes, joined by `; `.

    Notes that only print the operation again are left out.
    """
    parts, node = [], None
    for diagnostic in error.error_diagnostics:
        node = node or node_name(diagnostic.location)
        parts += [diagnostic.message, *(note.message for note in diagnostic.notes)]
    text = "; ".join(" ".join(part.split()) for part in parts if not part.startswith("see current operation"))
    return text or " ".join(str(error).split()), node
