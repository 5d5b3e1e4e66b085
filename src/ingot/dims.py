"""Shape expressions: integer expressions over named dimensions, in a normal form that makes equality a proof.

A dimension is a Python `int` or an `Expr`. An `Expr` is a polynomial with integer coefficients over atoms; an atom is a
named dimension or one of the functions `floordiv`, `ceildiv`, `mod`, `min`, `max`, `bcast`, `select` and `signed` of other
dimensions. Two dimensions are known to be equal exactly if their normal forms are the same object, and only then do they
unify. Named dimensions are non-negative, as ONNX's are; a number that is read at run time and may be negative is spelled
`signed(name)`.

The text form (`str(d)`, `parse(text)`) is what types, engine files and launch programs store: `"2*batch + seq"`,
`"floordiv(H - 1, 2) + 1"`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from keyword import iskeyword
from typing import Union

Dim = Union[int, "Expr"]
Monomial = tuple["Atom", ...]

UNBOUNDED = 2**31 - 1  # ONNX exporters write "to the end" as any constant at least this large


class Atom:
    """A named dimension, or a function of dimensions; interned, ordered by its text."""

    __slots__ = ("args", "function", "text")
    _interned: dict[str, Atom] = {}
    function: str | None
    args: tuple[Dim, ...]
    text: str

    def __new__(cls, function: str | None, args: tuple[Dim, ...], name: str = "") -> Atom:
        text = name if function is None else f"{function}({', '.join(map(str, args))})"
        found = cls._interned.get(text)
        if found is None:
            found = super().__new__(cls)
            found.function, found.args, found.text = function, args, text
            cls._interned[text] = found
        return found

    def __lt__(self, other: Atom) -> bool:
        return self.text < other.text

    def __reduce__(self) -> tuple:
        return Atom, (self.function, self.args, self.text if self.function is None else "")


class Expr:
    """A non-constant polynomial; interned, so that `is` and `==` agree. Build it with operators or `parse`."""

    __slots__ = ("terms", "text")
    _interned: dict[tuple, Expr] = {}
    terms: tuple[tuple[Monomial, int], ...]  # sorted: highest degree first, then by text
    text: str

    def __new__(cls, terms: tuple[tuple[Monomial, int], ...]) -> Expr:
        found = cls._interned.get(terms)
        if found is None:
            found = super().__new__(cls)
            found.terms = terms
            found.text = _format(terms)
            cls._interned[terms] = found
        return found

    def __reduce__(self) -> tuple:
        return parse, (self.text,)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"dims.parse({self.text!r})"

    def __add__(self, other: Dim) -> Dim:
        return _combine(self, other, 1)

    __radd__ = __add__

    def __sub__(self, other: Dim) -> Dim:
        return _combine(self, other, -1)

    def __rsub__(self, other: Dim) -> Dim:
        return _combine(other, self, -1)

    def __neg__(self) -> Dim:
        return _combine(0, self, -1)

    def __mul__(self, other: Dim) -> Dim:
        return _multiply(self, other)

    __rmul__ = __mul__

    def __floordiv__(self, other: Dim) -> Dim:
        return floordiv(self, other)

    def __rfloordiv__(self, other: Dim) -> Dim:
        return floordiv(other, self)

    def __mod__(self, other: Dim) -> Dim:
        return mod(self, other)


def _order(monomial: Monomial) -> tuple:
    return -len(monomial), tuple(a.text for a in monomial)


def _terms(d: Dim) -> tuple[tuple[Monomial, int], ...]:
    if isinstance(d, Expr):
        return d.terms
    return (((), int(d)),) if d else ()


def _make(terms: Mapping[Monomial, int]) -> Dim:
    kept = [(m, c) for m, c in terms.items() if c]
    if not kept:
        return 0
    if len(kept) == 1 and not kept[0][0]:
        return kept[0][1]
    return Expr(tuple(sorted(kept, key=lambda t: _order(t[0]))))


def _format(terms: tuple[tuple[Monomial, int], ...], factor: Callable[[Atom], str] = lambda a: a.text) -> str:
    out = ""
    for monomial, c in terms:
        factors = [factor(a) for a in monomial]
        if abs(c) != 1 or not factors:
            factors.insert(0, str(abs(c)))
        term = "*".join(factors)
        out += (f" {'-' if c < 0 else '+'} " if out else ("-" if c < 0 else "")) + term
    return out


def format_terms(d: Expr, factor: Callable[[Atom], str]) -> str:
    """The text of `d` with every atom spelled by `factor`."""
    return _format(d.terms, factor)


@lru_cache(maxsize=65536)
def _combine(a: Dim, b: Dim, sign: int) -> Dim:
    terms = dict(_terms(a))
    for monomial, c in _terms(b):
        terms[monomial] = terms.get(monomial, 0) + sign * c
    return _make(terms)


_MOST_PRODUCTS = 1 << 16  # of terms: expressions of no model, but a text may spell such
_MOST_FACTORS = 256  # of a term


@lru_cache(maxsize=65536)
def _multiply(a: Dim, b: Dim) -> Dim:
    terms: dict[Monomial, int] = {}
    if len(_terms(a)) * len(_terms(b)) > _MOST_PRODUCTS:
        raise ValueError(f"a product of {len(_terms(a))} by {len(_terms(b))} terms")
    for ma, ca in _terms(a):
        for mb, cb in _terms(b):
            if len(ma) + len(mb) > _MOST_FACTORS:
                raise ValueError(f"a term of {len(ma) + len(mb)} factors")
            monomial = tuple(sorted(ma + mb))
            terms[monomial] = terms.get(monomial, 0) + ca * cb
    return _make(terms)


_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def symbol(name: str) -> Expr:
    """The named dimension `name`, which must be an identifier (`sanitize` makes one)."""
    if not _NAME.match(name) or name in FUNCTIONS:
        raise ValueError(f"{name!r} is not a dimension name: letters, digits and _ only, and no function's name")
    return Expr((((Atom(None, (), name),), 1),))


def sanitize(name: str) -> str:
    """An identifier for an exporter's dimension name (`"batch-size.1"` becomes `"batch_size_1"`)."""
    name = re.sub(r"\W", "_", name, flags=re.ASCII)
    return f"_{name}" if not name or name[0].isdigit() or name in FUNCTIONS or iskeyword(name) else name


def _atom(function: str, *args: Dim) -> Dim:
    return Expr((((Atom(function, args),), 1),))


def is_nonnegative(d: Dim) -> bool:
    """True where `d` >= 0 is proven: no negative coefficient, over atoms that are themselves non-negative."""
    if isinstance(d, int):
        return d >= 0
    return all(c >= 0 and all(_atom_nonnegative(a) for a in m) for m, c in d.terms)


def _atom_nonnegative(a: Atom) -> bool:
    match a.function:
        case None:
            return True
        case "floordiv" | "ceildiv":
            return all(is_nonnegative(x) for x in a.args)
        case "mod":
            return is_nonnegative(a.args[1])
        case "max":
            return any(is_nonnegative(x) for x in a.args)
        case "select":
            return all(is_nonnegative(x) for x in a.args[2:])
        case "signed":
            return False
        case _:
            return all(is_nonnegative(x) for x in a.args)


def exact_div(a: Dim, b: Dim) -> Dim | None:
    """`a / b` where the polynomial `b` divides `a` exactly, else None."""
    if b == 0:
        return None
    if isinstance(a, int) and isinstance(b, int):
        return a // b if a % b == 0 else None
    # Polynomial long division by the leading term; exact or refused.
    quotient: Dim = 0
    rest = a
    lead, lead_c = _terms(b)[0]
    for _ in range(64):
        if rest == 0:
            return quotient
        monomial, c = _terms(rest)[0]
        left = list(monomial)
        for atom in lead:
            if atom not in left:
                return None
            left.remove(atom)
        if c % lead_c:
            return None
        term = _make({tuple(left): c // lead_c})
        quotient = quotient + term
        rest = rest - term * b
    return None


@lru_cache(maxsize=65536)
def floordiv(a: Dim, b: Dim) -> Dim:
    """`a // b` rounded to minus infinity. Raises ValueError where `b` is 0."""
    if b == 0:
        raise ValueError(f"division of dimension {a} by zero")
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    exact = exact_div(a, b)
    if exact is not None:
        return exact
    if isinstance(b, int) and b > 0:
        # (b*q + r) // b == q + r // b for any integer r.
        whole = _make({m: c // b for m, c in _terms(a) if c % b == 0})
        if whole != 0:
            return whole + floordiv(a - whole * b, b)
        # x // k + r == (x + k*r) // k, so that nested divisions become one.
        for monomial, c in _terms(a):
            if c == 1 and len(monomial) == 1 and monomial[0].function == "floordiv":
                x, k = monomial[0].args
                if isinstance(k, int) and k > 0:
                    return floordiv(x + k * (a - _make({monomial: 1})), k * b)
    common = math.gcd(multiple_of(a), multiple_of(b)) if isinstance(b, Expr) else 1
    if common > 1:
        return floordiv(_divide(a, common), _divide(b, common))
    return _atom("floordiv", a, b)


def _divide(d: Dim, by: int) -> Dim:
    """`d / by` for a constant that divides every coefficient."""
    return _make({m: c // by for m, c in _terms(d)})


@lru_cache(maxsize=65536)
def ceildiv(a: Dim, b: Dim) -> Dim:
    """`a / b` rounded to plus infinity. Raises ValueError where `b` is 0."""
    if b == 0:
        raise ValueError(f"division of dimension {a} by zero")
    if isinstance(a, int) and isinstance(b, int):
        return -(-a // b)
    exact = exact_div(a, b)
    return _atom("ceildiv", a, b) if exact is None else exact


@lru_cache(maxsize=65536)
def mod(a: Dim, b: Dim) -> Dim:
    """`a - b * floordiv(a, b)`."""
    if isinstance(a, int) and isinstance(b, int):
        return a % b
    if exact_div(a, b) is not None:
        return 0
    if isinstance(b, int):
        a = _make({m: c % b for m, c in _terms(a)})
        if isinstance(a, int):
            return a % b
    return _atom("mod", a, b)


def _extremum(name: str, a: Dim, b: Dim) -> Dim:
    pick = min if name == "min" else max
    if isinstance(a, int) and isinstance(b, int):
        return pick(a, b)
    for x, y in ((a, b), (b, a)):
        if isinstance(x, int) and x >= UNBOUNDED:
            return y if name == "min" else x
    if is_nonnegative(a - b):
        return b if name == "min" else a
    if is_nonnegative(b - a):
        return a if name == "min" else b
    return _atom(name, *sorted((a, b), key=str))


@lru_cache(maxsize=65536)
def minimum(a: Dim, b: Dim) -> Dim:
    """The smaller of two dimensions; a constant of at least `UNBOUNDED` never wins."""
    return _extremum("min", a, b)


@lru_cache(maxsize=65536)
def maximum(a: Dim, b: Dim) -> Dim:
    """The larger of two dimensions."""
    return _extremum("max", a, b)


@lru_cache(maxsize=65536)
def bcast(a: Dim, b: Dim) -> Dim:
    """The size of an axis where sizes `a` and `b` meet under ONNX's multidirectional broadcasting.

    Where neither is known to be 1 and they are not known to be equal, the result is an atom that evaluates to the one
    that is not 1; the compiler adds a guard that they agree. Raises ValueError for constants that do not broadcast.
    """
    if a == b or b == 1:
        return a
    if a == 1:
        return b
    if isinstance(a, int) and isinstance(b, int):
        raise ValueError(f"dimensions {a} and {b} do not broadcast: they differ and neither is 1")
    if isinstance(a, int):  # a > 1 or 0: the other must be 1 or a, and either way the result is a
        return a
    if isinstance(b, int):
        return b
    return _atom("bcast", *sorted((a, b), key=str))


@lru_cache(maxsize=65536)
def select(a: Dim, b: Dim, if_equal: Dim, otherwise: Dim) -> Dim:
    """`if_equal` where `a == b`, else `otherwise`."""
    if a == b or if_equal == otherwise:
        return if_equal
    if isinstance(a, int) and isinstance(b, int):
        return otherwise
    return _atom("select", a, b, if_equal, otherwise)


def signed(a: Dim) -> Dim:
    """`a`, a named dimension of which nothing is known: it may be negative."""
    return a if isinstance(a, int) else _atom("signed", a)


def symbol_of_signed(d: Dim) -> Expr | None:
    """The named dimension that `d` is under `signed`, or None where it is anything else."""
    if isinstance(d, Expr) and len(d.terms) == 1:
        (monomial, c) = d.terms[0]
        if c == 1 and len(monomial) == 1 and monomial[0].function == "signed":
            (of,) = monomial[0].args
            return of if isinstance(of, Expr) and str(of).isidentifier() else None
    return None


def has_signed(d: Dim) -> bool:
    """True where `d` depends on a number that may be negative."""
    return isinstance(d, Expr) and any(
        a.function == "signed" or any(map(has_signed, a.args)) for monomial, _ in d.terms for a in monomial
    )


FUNCTIONS: dict[str, Callable[..., Dim]] = {
    "floordiv": floordiv,
    "ceildiv": ceildiv,
    "mod": mod,
    "min": minimum,
    "max": maximum,
    "bcast": bcast,
    "select": select,
    "signed": signed,
}


@lru_cache(maxsize=65536)
def parse(text: str) -> Dim:
    """The dimension that `text` spells. Raises ValueError quoting the text where it spells none."""
    return parse_over(text, {})


def parse_over(text: str, env: Mapping[str, Dim]) -> Dim:
    """`parse` of a text in which some names stand for dimensions, which unlike a name of its own may be negative."""
    try:
        tokens = _TOKEN.findall(text)
        return _Reader(tokens, _groups(tokens), env, 0, len(tokens)).whole()
    except (ValueError, TypeError, RecursionError, ZeroDivisionError) as e:
        raise ValueError(f"{text[:200]!r} is not a shape expression: {e}") from None


_TOKEN = re.compile(r"[A-Za-z0-9_]+|//|\S")


def _groups(tokens: Sequence[str]) -> dict[int, list[int]]:
    """For each opening parenthesis the positions of the commas between it and its closing one, and of that."""
    groups: dict[int, list[int]] = {}
    open_: list[list[int]] = []
    for at, token in enumerate(tokens):
        if token == "(":
            open_.append([at])
        elif token == "," and open_:
            open_[-1].append(at)
        elif token == ")" and open_:
            first, *commas = open_.pop()
            groups[first] = [*commas, at]
    return groups


_KEPT = 65536
_grouped: dict[str, Dim] = {}  # what stood in parentheses, by its tokens


class _Reader:
    """Reads tokens from `begin` to `end` by recursive descent, with Python's precedences.

    A long sum costs no more than its terms. What stands in parentheses is parsed by itself, so that texts which occur in many
    sizes of a network are read once, and depth costs nothing.
    """

    def __init__(
        self, tokens: list[str], groups: Mapping[int, list[int]], env: Mapping[str, Dim], begin: int, end: int
    ) -> None:
        self._tokens, self._groups, self._env, self.at, self._end = tokens, groups, env, begin, end

    def _next(self) -> str:
        return self._tokens[self.at] if self.at < self._end else ""

    def whole(self) -> Dim:
        """The dimension that all tokens spell."""
        d = self.sum()
        if self.at < self._end:
            raise ValueError(f"unexpected {self._tokens[self.at]!r}")
        return d

    def sum(self) -> Dim:
        first = self._product()
        if self._next() not in ("+", "-"):
            return first
        terms = dict(_terms(first))
        while (sign := self._next()) in ("+", "-"):
            self.at += 1
            for monomial, c in _terms(self._product()):
                terms[monomial] = terms.get(monomial, 0) + (c if sign == "+" else -c)
        return _make(terms)

    def _product(self) -> Dim:
        d = self._factor()
        while (operator := self._next()) in _PRODUCTS:
            self.at += 1
            d = _PRODUCTS[operator](d, self._factor())
        return d

    def _factor(self) -> Dim:
        token = self._next()
        self.at += 1
        if token == "-":
            return -self._factor()
        if token == "(":
            (d,) = self._arguments()
            return d
        if token[:1].isdigit():
            return int(token)
        if self._next() == "(" and token in FUNCTIONS:
            self.at += 1
            return FUNCTIONS[token](*self._arguments())
        if iskeyword(token):
            raise ValueError(f"unexpected {token!r}")
        return self._env[token] if token in self._env else symbol(token)

    def _arguments(self) -> list[Dim]:
        """The expressions between an opening parenthesis, which was read, and its closing one."""
        ends = self._groups.get(self.at - 1)
        if ends is None:
            raise ValueError("'(' was never closed")
        found = []
        for end in ends:
            text = "".join(self._tokens[self.at : end])
            d = None if self._env else _grouped.get(text)
            if d is None:
                d = _Reader(self._tokens, self._groups, self._env, self.at, end).whole()
                if not self._env:
                    if len(_grouped) >= _KEPT:
                        _grouped.clear()
                    _grouped[text] = d
            found.append(d)
            self.at = end + 1
        return found


_PRODUCTS: dict[str, Callable[[Dim, Dim], Dim]] = {"*": _multiply, "//": floordiv, "%": mod}


def as_dim(d: int | str | Expr) -> Dim:
    """`d` itself, or the dimension a text spells."""
    return parse(d) if isinstance(d, str) else d


def product(ds: Iterable[Dim]) -> Dim:
    """The product of dimensions; 1 for none."""
    out: Dim = 1
    for d in ds:
        out = out * d
    return out


def symbols(d: Dim) -> frozenset[str]:
    """The names of the dimensions that `d` depends on."""
    return frozenset() if isinstance(d, int) else _symbols(d)


@lru_cache(maxsize=65536)
def _symbols(d: Expr) -> frozenset[str]:
    atoms = {a for monomial, _ in d.terms for a in monomial}
    return frozenset(a.text for a in atoms if a.function is None) | symbols_of(x for a in atoms for x in a.args)


def symbols_of(ds: Iterable[Dim]) -> frozenset[str]:
    """The names of the dimensions that any of `ds` depends on."""
    return frozenset().union(*map(symbols, ds))


def multiple_of(d: Dim) -> int:
    """The greatest constant that is known to divide `d` (0 for the constant 0)."""
    return math.gcd(*(c for _, c in _terms(d))) if d != 0 else 0


def substitute(d: Dim, env: Mapping[str, Dim]) -> Dim:
    """`d` with named dimensions replaced; names that `env` lacks stay."""
    if isinstance(d, int):
        return d
    out: Dim = 0
    for monomial, c in d.terms:
        term: Dim = c
        for a in monomial:
            if a.function is None:
                term = term * env.get(a.text, symbol(a.text))
            else:
                term = term * FUNCTIONS[a.function](*(substitute(x, env) for x in a.args))
        out = out + term
    return out


def evaluate(d: Dim, env: Mapping[str, int]) -> int:
    """The value of `d`. Raises KeyError naming the dimension that `env` lacks."""
    if isinstance(d, int):
        return d
    total = 0
    for monomial, c in d.terms:
        for a in monomial:
            if a.function is None:
                c *= env[a.text]
            else:
                c *= VALUES[a.function](*(evaluate(x, env) for x in a.args))
        total += c
    return total


VALUES: dict[str, Callable[..., int]] = {  # `FUNCTIONS` of numbers
    "floordiv": lambda a, b: a // b,
    "ceildiv": lambda a, b: -(-a // b),
    "mod": lambda a, b: a % b,
    "min": min,
    "max": max,
    "bcast": lambda a, b: b if a == 1 else a,
    "select": lambda a, b, x, y: x if a == b else y,
    "signed": lambda a: a,
}


def row_major(shape: Iterable[Dim]) -> tuple[Dim, ...]:
    """The strides, in elements, of a contiguous row-major tensor."""
    out: list[Dim] = []
    step: Dim = 1
    for d in reversed(tuple(shape)):
        out.append(step)
        step = step * d
    return tuple(reversed(out))
