"""Shape expressions written down with their common parts named once.

The sizes of a deep network are nested functions of the inputs' sizes (a floor division for every convolution), and an arena's
offsets are sums of many such: spelled out, a program's sizes repeat the same text thousands of times.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ingot import dims
from ingot.dims import Dim


class DimTable:
    """Collects definitions `(name, text)`, each over symbols and the names before it.

    Args:
        taken: names that definitions must not have.
        renamed: other names for symbols.
    """

    def __init__(self, taken: Iterable[str] = (), renamed: Mapping[str, str] | None = None) -> None:
        self._renamed = renamed or {}
        prefix = "t"
        taken = set(taken)
        while any(name.startswith(prefix) for name in taken):
            prefix += "_"
        self._prefix = prefix
        self._names: dict[dims.Atom, str] = {}
        self._texts: dict[Dim, str] = {}
        self.definitions: list[tuple[str, str]] = []

    def text(self, d: Dim) -> str:
        """The text of `d` over symbols and defined names."""
        if isinstance(d, int):
            return str(d)
        found = self._texts.get(d)
        if found is None:
            found = self._texts[d] = dims.format_terms(d, self._factor)
        return found

    def _factor(self, atom: dims.Atom) -> str:
        if atom.function is None:
            return self._renamed.get(atom.text, atom.text)
        name = self._names.get(atom)
        if name is None:
            text = f"{atom.function}({', '.join(map(self.text, atom.args))})"
            name = self._names[atom] = f"{self._prefix}{len(self._names)}"
            self.definitions.append((name, text))
        return name


class DimReader:
    """Reads texts over symbols and a table's definitions. Raises ValueError for a text that spells no dimension."""

    def __init__(self, definitions: Sequence[Sequence[str]]) -> None:
        self._env: dict[str, Dim] = {}
        self._read: dict[str, Dim] = {}
        for name, text in definitions:
            self._env[name] = self.dim(text)

    def dim(self, text: str) -> Dim:
        """The dimension that `text` spells."""
        found = self._read.get(text)
        if found is None:
            found = self._read[text] = dims.parse_over(text, self._env)
        return found
