"""What inference proves of dimensions, and what it must leave to run-time guards."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

from ingot import dims
from ingot.dims import Dim, Expr


class ShapeConflict(ValueError):
    """Two dimensions that must agree are known to differ."""


@dataclass(frozen=True)
class Guard:
    """A condition that the compiler could not prove: at run time `left` `relation` (eq, le) `right`, or `message`."""

    left: Dim
    relation: str
    right: Dim
    message: str


@dataclass
class Names:
    """Symbols for sizes that depend on numbers read at run time: no such size is spelled out in a shape.

    Attributes:
        sizes: of numbers that are sizes themselves, and guarded not to be negative where they are used as such.
        defined: of sizes computed from such numbers, by what they are.
        taken: all symbols in use.
        iterations: those that count a loop's iterations: what depends on one has no symbol of its own.
    """

    sizes: set[str] = field(default_factory=set)
    defined: dict[Dim, Expr] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    iterations: set[str] = field(default_factory=set)

    def define(self, d: Dim, stem: str) -> Expr:
        """The symbol that stands for `d`."""
        found = self.defined.get(d)
        if found is None:
            name, count = f"{dims.sanitize(stem)}_0", 1
            while name in self.taken:
                name, count = f"{dims.sanitize(stem)}_{count}", count + 1
            self.taken.add(name)
            found = self.defined[d] = dims.symbol(name)
        return found


class Facts:
    """Equalities that guards establish, in the order of the nodes that need them, and how far the iterations of loops count.

    Attributes:
        greatest: the greatest value of an iteration's symbol.
        names: of sizes that depend on numbers read at run time; shared with branches.
    """

    def __init__(self, names: Names | None = None) -> None:
        self.greatest: dict[str, Dim] = {}
        self.names = Names() if names is None else names
        self._equal: dict[str, Dim] = {}  # plain symbols that a guard made equal to something simpler
        self._known: set[tuple[Dim, str, Dim]] = set()
        self._replaced: dict[Dim, Dim] = {}  # the larger sides of equalities

    def branch(self) -> Facts:
        """A copy, to learn in what holds only where a branch is taken."""
        found = Facts(self.names)
        found._equal, found._known, found._replaced = self._equal.copy(), self._known.copy(), self._replaced.copy()
        found.greatest = self.greatest.copy()
        return found

    @property
    def has_equalities(self) -> bool:
        """True where a guard made two different dimensions equal."""
        return bool(self._replaced)

    @property
    def constants(self) -> dict[str, Dim]:
        """The symbols that guards made equal to a constant."""
        return {symbol: d for symbol, d in self._equal.items() if isinstance(d, int)}

    def resolved(self, d: Dim) -> Dim:
        """`d`, or the simpler dimension that a guard made it equal to."""
        while d in self._replaced:
            d = self._replaced[d]
        return d

    def canonical(self, d: Dim) -> Dim:
        """`d` with symbols replaced by what earlier guards made them equal to."""
        return dims.substitute(d, self._equal) if self._equal and isinstance(d, Expr) else d

    def equal(self, a: Dim, b: Dim, message: str) -> tuple[Dim, Guard | None]:
        """The simpler of two dimensions that must be equal, and the guard that makes them so where that is not proven.

        Raises ShapeConflict where they are known to differ.
        """
        if a == b or self.canonical(a) == self.canonical(b):
            return simpler(a, b), None
        difference = self.canonical(a) - self.canonical(b)
        if isinstance(difference, int):
            raise ShapeConflict(f"{a} and {b} differ")
        keep = simpler(a, b)
        drop = b if keep is a or keep == a else a
        if (keep, "eq", drop) in self._known:
            return keep, None
        self._known.add((keep, "eq", drop))
        self._replaced[drop] = keep
        if _is_symbol(drop) and str(drop) not in dims.symbols(self.canonical(keep)):
            self._equal[str(drop)] = self.canonical(keep)
        return keep, Guard(drop, "eq", keep, message)

    def is_at_most(self, a: Dim, b: Dim) -> bool:
        """True where `a` <= `b` is proven, in every iteration."""
        a, b = self.canonical(a), self.canonical(b)
        counted = dims.symbols(a) & self.greatest.keys()
        if counted and all(map(functools.partial(_grows_with, a), counted)) and at_most(dims.substitute(a, self.greatest), b):
            return True
        return at_most(a, b)

    def at_most(self, a: Dim, b: Dim, message: str) -> Guard | None:
        """The guard for `a` <= `b`, or None where it is proven or already guarded."""
        if self.is_at_most(a, b) or (a, "le", b) in self._known:
            return None
        if isinstance(a, int) and isinstance(b, int):
            raise ShapeConflict(f"{a} is greater than {b}")
        self._known.add((a, "le", b))
        return Guard(a, "le", b, message)

    def broadcast(self, a: Dim, b: Dim, message: str) -> tuple[Dim, list[Guard]]:
        """The size of an axis where `a` and `b` meet under multidirectional broadcasting, and the guards it needs.

        Two sizes must be equal where one is 1 exactly if the other is; and, so that shapes stay simple, where both are
        computed or one is computed from the other: no exporter broadcasts `P + S` against 1. Otherwise either may be 1 at
        run time, and the guards say that what is not 1 agrees.

        Raises ShapeConflict where they are known not to broadcast.
        """
        if a == b or a == 1 or b == 1 or self.canonical(a) == self.canonical(b):
            return (simpler(a, b) if a != 1 and b != 1 else dims.bcast(a, b)), []
        if isinstance(a, int) and isinstance(b, int):
            raise ShapeConflict(f"{a} and {b} differ and neither is 1")
        if _one_together(a, b) or _one_together(b, a) or _meant_equal(a, b):
            size, guard = self.equal(a, b, message)
            return size, [guard] if guard else []
        fixed = [d for d in (a, b) if _never_one(d)]
        size = fixed[0] if fixed else dims.bcast(self.canonical(a), self.canonical(b))
        guards = []
        for d in (a, b):
            effective = dims.select(d, 1, size, d)
            if effective != size and (effective, "eq", size) not in self._known:
                self._known.add((effective, "eq", size))
                guards.append(Guard(effective, "eq", size, message))
        return size, guards


def simpler(a: Dim, b: Dim) -> Dim:
    """The one that is cheaper to reason about: a constant, then a symbol, then the shorter expression."""
    return min(a, b, key=_complexity)


def _complexity(d: Dim) -> tuple[int, int, str]:
    if isinstance(d, int):
        return 0, 0, ""
    return (1 if _is_symbol(d) else 2), len(str(d)), str(d)


def _is_symbol(d: Dim) -> bool:
    return isinstance(d, Expr) and str(d).isidentifier()


def _single_atom(d: Dim) -> dims.Atom | None:
    """The atom that `d` is, if it is one."""
    if isinstance(d, Expr) and len(d.terms) == 1:
        monomial, c = d.terms[0]
        if c == 1 and len(monomial) == 1:
            return monomial[0]
    return None


def _one_together(a: Dim, b: Dim) -> bool:
    """True where `a` = min(b, c) with constants c > 1: then `a` is 1 exactly if `b` is."""
    atom = _single_atom(a)
    if atom is None or atom.function != "min":
        return False
    others = [x for x in atom.args if x != b]
    return len(others) < len(atom.args) and all(isinstance(x, int) and x > 1 for x in others)


def _meant_equal(a: Dim, b: Dim) -> bool:
    """True where neither is a constant, and both are computed or one is computed from the other."""
    if isinstance(a, int) or isinstance(b, int):
        return False
    computed = [d for d in (a, b) if not _is_symbol(d)]
    return len(computed) == 2 or bool(computed and dims.symbols(a) & dims.symbols(b))


def _grows_with(d: Dim, name: str) -> bool:
    """True where `d` is at its greatest where the symbol `name` is."""
    terms = d.terms if isinstance(d, Expr) else ()
    inside = [(m, c) for m, c in terms if any(name in dims.symbols_of(a.args) or a.text == name for a in m)]
    return all(c > 0 and all(a.function is None for a in m) for m, c in inside)


def _never_one(d: Dim) -> bool:
    """True where `d` != 1 is proven."""
    return d != 1 if isinstance(d, int) else dims.multiple_of(d) > 1 or dims.is_nonnegative(d - 2)


def at_most(a: Dim, b: Dim) -> bool:
    """True where `a` <= `b` is proven."""
    if dims.is_nonnegative(b - a):
        return True
    low, high = _single_atom(a), _single_atom(b)
    if low is not None and low.function == "min" and any(at_most(x, b) for x in low.args):
        return True
    return high is not None and high.function == "max" and any(at_most(a, x) for x in high.args)
