"""What a pass is: a frozen dataclass with a name, whose fields are its options, and a `run` over a module.

A pass in full::

    @dataclass(frozen=True, kw_only=True)
    class DropIdentity(Pass):
        \"\"\"Replace every identity by its operand.\"\"\"

        name: ClassVar[str] = "ingot-drop-identity"
        max_ops: int = 1000

        def run(self, module: ir.Module, ctx: PassContext) -> None: ...

The docstring is the help that `ingot-opt --list-passes` prints, and the option is spelled `{max-ops=1000}` in a
pipeline. Nothing here imports MLIR, so that a command line can name passes without it.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from ingot.dialects.mlir import ir

__all__ = ["Option", "Pass", "PassContext", "Remark", "options_of", "summary_of"]


@dataclass(frozen=True)
class Remark:
    """What a pass tells the person who asked why something was, or was not, rewritten.

    Args:
        pass_name: the pass that speaks.
        node: name of the node, or `file:line:column`, or None where it is unknown.
        message: one line.
    """

    pass_name: str
    node: str | None
    message: str

    def __str__(self) -> str:
        return f"{self.node or 'unknown'}: remark: {self.message} [{self.pass_name}]"


@dataclass
class PassContext:
    """What the passes of one pipeline run share beside the module.

    Args:
        weights: the model's weight store (`ingot.compiler.weights`), or None where the IR stands alone.
        slots: analyses and facts that one pass leaves for later ones, keyed by their class or by a name. A pass
            that invalidates a fact removes it.
        remarks: what passes had to say, in order.
        changes: how many rewrites of each kind a pass made, keyed by (pass name, kind).
        pass_name: the pass that is running; the pipeline sets it.
    """

    weights: Any = None
    slots: dict[Any, Any] = field(default_factory=dict)
    remarks: list[Remark] = field(default_factory=list)
    changes: Counter[tuple[str, str]] = field(default_factory=Counter)
    pass_name: str = ""

    def remark(self, message: str, at: ir.Operation | ir.OpView | ir.Location | None = None) -> None:
        """Record a remark of the running pass about an operation or a location."""
        node = None
        if at is not None:
            from ingot.passes.diagnostics import node_name

            node = node_name(at)
        self.remarks.append(Remark(self.pass_name, node, message))

    def changed(self, kind: str, count: int = 1) -> None:
        """Count rewrites of the running pass: `ctx.changed("folded", 3)`."""
        self.changes[self.pass_name, kind] += count


@dataclass(frozen=True, kw_only=True)
class Pass:
    """The base of every pass; a subclass is decorated with `@dataclass(frozen=True, kw_only=True)`."""

    name: ClassVar[str] = ""

    def run(self, module: ir.Module, ctx: PassContext) -> None:
        """Transform `module` in place.

        Raises:
            ingot.errors.Error: the model cannot be compiled; names the node and the cure. Any other exception is
                reported as a defect of the pass, with a reproducer.
        """
        raise NotImplementedError(f"pass {self.name!r} has no run()")


@dataclass(frozen=True)
class Option:
    """One option of a pass: its name in pipeline text, its Python field, type, and default.

    `default` is `dataclasses.MISSING` where the option must be given.
    """

    text: str
    field: str
    type: Any
    default: Any


def options_of(cls: type[Pass]) -> dict[str, Option]:
    """The options of a pass by their spelling in pipeline text (`max_ops` is `max-ops`), in the fields' order.

    Raises:
        TypeError: the class annotates fields without being decorated as a dataclass.
    """
    hints = typing.get_type_hints(cls)
    own = {n for n in inspect.get_annotations(cls) if typing.get_origin(hints[n]) is not ClassVar and hints[n] is not ClassVar}
    fields = {f.name: f for f in dataclasses.fields(cls)}
    if missing := own - fields.keys():
        raise TypeError(
            f"pass class {cls.__name__} annotates {', '.join(sorted(missing))} but is not decorated with"
            " @dataclass(frozen=True, kw_only=True)"
        )
    result = {}
    for f in fields.values():
        default = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
        text = f.name.replace("_", "-")
        result[text] = Option(text, f.name, hints[f.name], default)
    return result


def summary_of(cls: type[Pass]) -> str:
    """The first paragraph of the pass's docstring on one line; empty where the author wrote none."""
    doc = cls.__dict__.get("__doc__") or ""
    if doc.startswith(f"{cls.__name__}("):  # the signature that dataclass() puts where there is no docstring
        return ""
    return " ".join(inspect.cleandoc(doc).split("\n\n")[0].split())
