"""Where passes are found by name, without importing those that nobody asked for.

Three sources, in this order; two passes of one name are an error:

1. Ingot's own: `ingot-fold-constants` is the class of that name in `passes/fold_constants.py`.
2. A file of the user's: `ingot-opt --load my_passes.py` (`PassRegistry.load_file`). Defining the class is enough.
3. Installed packages: the entry point group `ingot.passes`, where the entry point's name is the pass's name and its
   value the class (`my-pass = "my_package.passes:MyPass"`).
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import importlib.util
import pkgutil
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from ingot.errors import CompileError
from ingot.passes.pass_base import Pass, options_of

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["CPP_PASSES", "PassRegistry", "file_to_load", "own_pass"]

# MLIR's passes that graph pipelines use, for suggestions only: the bindings cannot list what is registered, and any
# other registered pass is accepted too.
CPP_PASSES = (
    "canonicalize", "cse", "inline", "loop-invariant-code-motion", "mem2reg", "remove-dead-values", "sccp",
    "strip-debuginfo", "symbol-dce", "symbol-privatize", "topological-sort", "trivial-dce", "convert-scf-to-cf",
    "lower-affine", "reconcile-unrealized-casts",
)  # fmt: skip

_USER_MODULE = "ingot_user_passes"


class PassRegistry:
    """The passes that one pipeline may name."""

    def __init__(self) -> None:
        self._loaded: dict[str, type[Pass]] = {}

    def find(self, name: str) -> type[Pass] | None:
        """The class of a pass, or None where no Python pass has that name.

        Raises:
            CompileError: two sources define the name, or an installed package's entry point is broken.
        """
        sources = {
            "ingot.passes": functools.partial(own_pass, name),
            "a loaded file": functools.partial(self._loaded.get, name),
            "an installed package": functools.partial(_installed_pass, name),
        }
        found = {source: cls for source, get in sources.items() if (cls := get()) is not None}
        if len(found) > 1:
            raise CompileError(f"pass {name!r} is defined by {' and by '.join(found)}", cure="rename one of them")
        return next(iter(found.values()), None)

    def load_file(self, path: str | Path) -> list[type[Pass]]:
        """Run a Python file and register the passes that it defines.

        Raises:
            CompileError: the file cannot be read or run, defines no pass, or a name that another pass has.
        """
        path = Path(path).resolve()
        if not path.is_file():
            raise CompileError("no such file", node=str(path), cure="give --load the path of a Python file")
        name = f"{_USER_MODULE}.{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise CompileError("not a Python file", node=str(path), cure="its name must end in .py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses resolve annotations through it
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            raise CompileError(f"{type(error).__name__}: {error}", node=str(path), cure="correct the file") from error
        classes = passes_in(module)
        if not classes:
            raise CompileError("defines no pass", node=str(path), cure="derive a class from ingot.passes.Pass and name it")
        for cls in classes:
            if cls.name in self._loaded and file_to_load(self._loaded[cls.name]) != path:
                other = file_to_load(self._loaded[cls.name])
                raise CompileError(f"pass {cls.name!r} is also defined in {other}", node=str(path), cure="rename one")
            if _is_cpp_pass(cls.name):
                raise CompileError(f"pass {cls.name!r} has the name of one of MLIR's passes", node=str(path), cure="rename it")
            self._loaded[cls.name] = cls
            self.find(cls.name)  # reports a clash with the other sources
        return classes

    def names(self) -> list[str]:
        """The names of all passes of the three sources, sorted; only the loaded files have been imported."""
        own = [f"ingot-{m.name.replace('_', '-')}" for m in _own_modules() if m.name not in _INFRASTRUCTURE]
        return sorted({*own, *self._loaded, *(e.name for e in _entry_points())})

    def all(self) -> list[type[Pass]]:
        """Every pass of the three sources, sorted by name; imports all of them."""
        return [cls for name in self.names() if (cls := self.find(name)) is not None]

    def suggest(self, name: str) -> str | None:
        """The known pass whose name is nearest to a misspelt one, if any is near."""
        near = difflib.get_close_matches(name, [*self.names(), *CPP_PASSES], n=1)
        return near[0] if near else None


class OwnPasses(PassRegistry):
    """Ingot's own passes alone: looking for installed packages takes longer than a JIT's passes do."""

    def find(self, name: str) -> type[Pass] | None:
        """See `PassRegistry.find`."""
        return own_pass(name)


def passes_in(module: ModuleType) -> list[type[Pass]]:
    """The named passes that a module itself defines, in its order.

    Raises:
        CompileError: an option of a pass is annotated without the dataclass decorator.
    """
    classes = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Pass) and value.name and value.__module__ == module.__name__
    ]
    for cls in classes:
        try:
            options_of(cls)
        except (TypeError, NameError) as error:
            raise CompileError(str(error), node=str(module.__file__), cure="correct the class") from error
    return classes


def file_to_load(cls: type[Pass]) -> Path | None:
    """The file that `--load` must name for this pass; None for Ingot's own and for installed packages."""
    if not cls.__module__.startswith(f"{_USER_MODULE}."):
        return None
    file = sys.modules[cls.__module__].__file__
    assert file is not None
    return Path(file)


# Files of this package that define no pass.
_INFRASTRUCTURE = frozenset({"diagnostics", "instrumentation", "option_text", "pass_base", "patterns", "pipeline", "registry"})


@functools.cache
def _own_modules() -> tuple[pkgutil.ModuleInfo, ...]:
    import ingot.passes

    return tuple(m for m in pkgutil.iter_modules(ingot.passes.__path__) if not (m.ispkg or m.name.startswith("_")))


@functools.cache
def _entry_points() -> tuple[EntryPoint, ...]:
    import importlib.metadata  # 30 ms, which the draft of a launch program does without

    return tuple(importlib.metadata.entry_points(group="ingot.passes"))


def own_pass(name: str) -> type[Pass] | None:
    """The class of a pass of Ingot's own, or None. Unlike `PassRegistry.find` it does not look into installed packages."""
    stem = name.removeprefix("ingot-").replace("-", "_")
    if not name.startswith("ingot-") or stem in _INFRASTRUCTURE or all(m.name != stem for m in _own_modules()):
        return None
    module = importlib.import_module(f"ingot.passes.{stem}")
    return next((cls for cls in passes_in(module) if cls.name == name), None)


def _is_cpp_pass(name: str) -> bool:
    from ingot.dialects.mlir import PassManager, ir

    with ir.Context(load_on_create_dialects=[]):
        try:
            PassManager.parse(f"any({name})")
        except ValueError:
            return False
    return True


def _installed_pass(name: str) -> type[Pass] | None:
    found = [e for e in _entry_points() if e.name == name]
    if len(found) > 1:
        raise CompileError(
            f"pass {name!r} is defined by {' and by '.join(e.value for e in found)}", cure="uninstall one of the packages"
        )
    if not found:
        return None
    try:
        cls = found[0].load()
    except Exception as error:
        raise CompileError(
            f"{type(error).__name__}: {error}", node=f"entry point {name} = {found[0].value}", cure="reinstall its package"
        ) from error
    if not (isinstance(cls, type) and issubclass(cls, Pass) and cls.name == name):
        raise CompileError(
            f"is not a pass named {name!r}", node=f"entry point {name} = {found[0].value}", cure="correct its package"
        )
    return cls
