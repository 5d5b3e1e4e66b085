"""Pipelines: their text, and running Ingot's Python passes and MLIR's C++ passes in one order.

The text is MLIR's: `builtin.module(ingot-fold-constants,ingot-fuse{max-ops=32},cse,func.func(canonicalize))`. The
bindings cannot name a Python pass in text, so this module owns the parser; elements that name no Python pass go to
MLIR as they are. Options are separated by blanks, lists by commas; a string with other than word characters is written
as a JSON string.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ingot.errors import CompileError, Error
from ingot.passes.instrumentation import Instrumentation
from ingot.passes.option_text import format_value, parse_value, split, type_name
from ingot.passes.pass_base import Pass, PassContext, options_of
from ingot.passes.registry import PassRegistry

if TYPE_CHECKING:
    from ingot.dialects.mlir import ir

__all__ = ["CppStep", "Pipeline", "PythonStep"]

_ANCHOR = "builtin.module"


@dataclass(frozen=True)
class PythonStep:
    """A Python pass in a pipeline.

    Args:
        pass_: the pass with its options.
        given: text names of the options to print even where they equal their defaults, in order (those that the
            parsed text spelled); None prints those that differ from their defaults.
    """

    pass_: Pass
    given: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        """The pass's name."""
        return self.pass_.name

    def __str__(self) -> str:
        options = options_of(type(self.pass_))
        names = self.given
        if names is None:
            names = tuple(t for t, o in options.items() if getattr(self.pass_, o.field) != o.default)
        text = " ".join(f"{n}={format_value(getattr(self.pass_, options[n].field))}" for n in names)
        return f"{self.name}{{{text}}}" if text else self.name


@dataclass(frozen=True)
class CppStep:
    """A pass of MLIR's, or a nested pipeline of such (`func.func(cse)`), as text."""

    text: str

    @property
    def name(self) -> str:
        """The text without its options."""
        return self.text.partition("{")[0]

    def __str__(self) -> str:
        return self.text


class Pipeline:
    """An ordered list of passes over a `builtin.module`.

    Args:
        steps: passes, parsed steps, or pipeline text of C++ passes (`"cse"`).
    """

    def __init__(self, steps: Iterable[Pass | PythonStep | CppStep | str] = ()) -> None:
        self.steps: list[PythonStep | CppStep] = []
        for step in steps:
            if isinstance(step, Pass):
                step = PythonStep(step)
            elif isinstance(step, str):
                step = CppStep(step)
                _check_cpp(step.text, None)
            self.steps.append(step)

    @classmethod
    def parse(cls, text: str, registry: PassRegistry | None = None) -> Pipeline:
        """Parse pipeline text; the enclosing `builtin.module(...)` may be left out.

        Raises:
            CompileError: unbalanced text, an unknown pass or option, a value of the wrong type; names the nearest
                known spelling.
        """
        registry = registry or PassRegistry()
        body = text.strip()
        if match := re.fullmatch(rf"{re.escape(_ANCHOR)}\s*\((.*)\)", body, re.DOTALL):
            body = match[1]
        return cls([_parse_step(element, registry) for element in split(body, ",") if element or body.strip()])

    def __str__(self) -> str:
        return f"{_ANCHOR}({','.join(map(str, self.steps))})"

    def __add__(self, other: Pipeline) -> Pipeline:
        return Pipeline([*self.steps, *other.steps])

    def run(
        self, module: ir.Module, ctx: PassContext | None = None, instrumentation: Instrumentation | None = None
    ) -> PassContext:
        """Run the passes in order on `module`, in place.

        Operation handles taken before the run must not be used after it: a C++ pass may have erased the operation.

        Returns:
            the context, with remarks, counts of rewrites and analyses.

        Raises:
            ingot.errors.Error: from a pass, as it is.
            CompileError: any other failure of a pass; names the pass, and the file that replays it. The module is
                then in an unspecified state.
        """
        ctx = ctx or PassContext()
        watch = instrumentation or Instrumentation()
        watch.start(module, len(self.steps))
        for group in self._groups(singly=watch.observes_each_pass):
            text = ",".join(map(str, group))
            watch.before(text, module)
            started = time.perf_counter()
            try:
                _run_group(group, module, ctx, watch.verify_each)
            except Exception as error:
                seconds = time.perf_counter() - started
                if len(group) > 1 and (replay := watch.restore()) is not None:
                    group, error = _first_failure(group, replay, error, watch)
                raise self._failure(group, error, watch, seconds) from error
            watch.after(text, "+".join(step.name for step in group), module, time.perf_counter() - started)
        watch.finish()
        return ctx

    def _groups(self, *, singly: bool) -> list[list[PythonStep | CppStep]]:
        """Python passes one by one; consecutive C++ passes together, for they share one pass manager."""
        groups: list[list[PythonStep | CppStep]] = []
        for step in self.steps:
            if groups and not singly and isinstance(step, CppStep) and isinstance(groups[-1][-1], CppStep):
                groups[-1].append(step)
            else:
                groups.append([step])
        return groups

    def _failure(
        self, group: Sequence[PythonStep | CppStep], error: Exception, watch: Instrumentation, seconds: float
    ) -> Error:
        """The error that users see for an exception of a pass: Ingot's own as it is, others named and replayable."""
        text = f"{_ANCHOR}({','.join(map(str, group))})"
        expected = isinstance(error, Error)
        replay = watch.failed(text, [s.pass_ for s in group if isinstance(s, PythonStep)], error, expected=expected)
        if isinstance(error, Error):
            if replay:
                error.add_note(f"replay with: {replay}")
            return error
        from ingot.dialects.mlir import ir
        from ingot.passes.diagnostics import describe

        name = ",".join(step.name for step in group)
        if isinstance(error, ir.MLIRError):
            message, node = describe(error)
        else:
            message, node = f"{type(error).__name__}: {error}", None
        return CompileError(f"pass {name} failed: {message}", node=node, cure=f"replay with: {replay}" if replay else None)


def _run_group(group: Sequence[PythonStep | CppStep], module: ir.Module, ctx: PassContext, verify_each: bool) -> None:
    """Run one Python pass, or C++ passes in one pass manager, and verify the module after each where asked."""
    from ingot.dialects.mlir import PassManager, ir

    first = group[0]
    if isinstance(first, PythonStep):
        ctx.pass_name = first.name
        with module.context as context, ir.Location.unknown(context):
            first.pass_.run(module, ctx)
        if verify_each:
            module.operation.verify()
        return
    manager = PassManager(_ANCHOR, module.context)
    for step in group:
        manager.add(str(step))
    manager.enable_verifier(verify_each)
    manager.run(module.operation)


def _first_failure(
    group: list[PythonStep | CppStep], module: ir.Module, error: Exception, watch: Instrumentation
) -> tuple[list[PythonStep | CppStep], Exception]:
    """Which of a group of C++ passes fails, by running them one by one from the group's input.

    Where none fails alone, the whole group and its error.
    """
    for step in group:
        watch.before(str(step), module)
        try:
            _run_group([step], module, PassContext(), verify_each=True)
        except Exception as alone:
            return [step], alone
    return group, error


def _parse_step(text: str, registry: PassRegistry) -> PythonStep | CppStep:
    match = re.fullmatch(r"([\w.-]+)\s*(?:\{(.*)\})?", text, re.DOTALL)
    cls = registry.find(match[1]) if match else None
    if match is None or cls is None:
        if nested := re.fullmatch(r"([\w.-]+)\s*\((.*)\)", text, re.DOTALL):
            for element in split(nested[2], ","):
                name = re.split(r"[\s({]", element, maxsplit=1)[0]
                if registry.find(name) is not None:
                    raise CompileError(
                        f"pass {name} cannot be nested in {nested[1]}(...)",
                        cure=f"name it at the top level: Python passes run on {_ANCHOR}",
                    )
        _check_cpp(text, registry)
        return CppStep(text)
    options = options_of(cls)
    values: dict[str, Any] = {}
    given = []
    for item in split(match[2] or "", " "):
        name, equals, value = item.partition("=")
        if name not in options:
            near = difflib.get_close_matches(name, options, n=1)
            known = f"its options: {', '.join(options)}" if options else "it has no options"
            raise CompileError(f"pass {cls.name} has no option {name!r}", cure=f"did you mean {near[0]!r}?" if near else known)
        if name in given:
            raise CompileError(f"option {name!r} of pass {cls.name} is given twice", cure="remove one")
        option = options[name]
        if not equals and option.type is bool:
            value = "true"
        elif not equals:
            raise CompileError(f"option {name!r} of pass {cls.name} has no value", cure=f"write {name}=VALUE")
        try:
            values[option.field] = parse_value(value, option.type)
        except ValueError:
            raise CompileError(
                f"option {name!r} of pass {cls.name} expects {type_name(option.type)}, got {value!r}",
                cure=f"its default is {format_value(option.default)}"
                if option.default is not dataclasses.MISSING
                else f"write {name}=VALUE",
            ) from None
        given.append(name)
    for option in options.values():
        if option.default is dataclasses.MISSING and option.field not in values:
            raise CompileError(
                f"pass {cls.name} needs its option {option.text!r}",
                cure=f"write {cls.name}{{{option.text}=VALUE}}, VALUE being {type_name(option.type)}",
            )
    try:
        return PythonStep(cls(**values), tuple(given))
    except ValueError as error:
        raise CompileError(f"pass {cls.name}: {error}", cure="correct its options") from error


def _check_cpp(text: str, registry: PassRegistry | None) -> None:
    """Let MLIR parse the text of a C++ pass or nested pipeline.

    Raises:
        CompileError: MLIR does not know it.
    """
    if not text:
        raise CompileError("a pipeline has an empty element", cure="remove the extra comma")
    from ingot.dialects.mlir import PassManager, ir

    with ir.Context(load_on_create_dialects=[]) as context:
        context.enable_multithreading(False)
        try:
            PassManager.parse(f"{_ANCHOR}({text})")
            return
        except ValueError as error:
            message = str(error)
    unknown = re.search(r"'([^']*)' does not refer to a registered pass", message)
    if unknown:
        near = (registry or PassRegistry()).suggest(unknown[1])
        cure = f"did you mean {near!r}?" if near else "see ingot-opt --list-passes"
        raise CompileError(f"no pass is named {unknown[1]!r}", cure=cure)
    detail = "; ".join(line.strip() for line in message.splitlines() if line.strip())
    raise CompileError(f"MLIR cannot parse {text!r} in the pipeline: {detail}", cure="correct the text")
