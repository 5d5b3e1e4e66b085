"""Views as data: composing one with the view that made its operand, and creating what is left.

`View` describes a view operation that may not exist yet. `compose` applies the identities of views (a reshape of a reshape is a
reshape, ...); `make` creates the composed view before an operation, or gives the value that it equals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ingot import dims
from ingot.dialects import ingot as dialect
from ingot.dialects.mlir import ir
from ingot.dialects.plain import attribute, to_attribute
from ingot.dims import Dim
from ingot.dispatch import Attr
from ingot.passes.rewriting.ops import defining

__all__ = ["View", "atoms", "chain_of", "compose", "expand", "make", "read", "regroup", "reshape", "slice_", "transpose",
           "unit_axes_only"]  # fmt: skip

Shape = tuple[Dim, ...]


@dataclass(frozen=True)
class View:
    """A view operation: `name` without the dialect's prefix, its operand, the sizes of its result, and its attributes."""

    name: str
    x: ir.Value
    shape: Shape
    attrs: tuple[tuple[str, Attr], ...] = ()

    def attr(self, name: str) -> tuple:
        """The value of an array attribute."""
        return dict(self.attrs)[name]  # type: ignore[return-value]


def read(op: ir.Operation) -> View:
    """The view that an operation is."""
    attrs = tuple((n, attribute(op.attributes[n])) for n in dialect.DEFS[op.name].attrs)
    return View(op.name[len(dialect.NAME) + 1 :], op.operands[0], dialect.shape_of(op.results[0]), attrs)


def chain_of(value: ir.Value) -> tuple[ir.Value, list[View]]:
    """What a value is a view of, and the views, first to last."""
    chain: list[View] = []
    while (op := defining(value)) is not None and op.name in dialect.VIEWS:
        chain.append(read(op))
        value = op.operands[0]
    return value, chain[::-1]


def compose(view: View) -> View | ir.Value:
    """An equal view of an earlier value, or the value that the view equals; the view itself where nothing is simpler."""
    while True:
        simpler = _identity(view)
        if simpler is not None:
            return simpler
        producer = defining(view.x)
        inner = read(producer) if producer is not None and producer.name in dialect.VIEWS else None
        rule = _RULES[view.name]
        composed = rule(view, inner)
        if composed is None:
            return view
        view = composed


def make(view: View, before: ir.Operation) -> ir.Value:
    """The value of a view, composed; a new operation before `before` where one is needed."""
    composed = compose(view)
    if not isinstance(composed, View):
        return composed
    shortest = regroup(composed, before)
    return create(composed, before) if shortest is None else shortest


def create(view: View, before: ir.Operation) -> ir.Value:
    """A new view operation before `before`, with its location."""
    return ir.Operation.create(
        f"{dialect.NAME}.{view.name}",
        results=[dialect.tensor_type(dialect.dtype_of(view.x), view.shape)],
        operands=[view.x],
        attributes={n: to_attribute(a) for n, a in view.attrs},
        loc=before.location,
        ip=ir.InsertionPoint(before),
    ).results[0]


def reshape(x: ir.Value, shape: Sequence[Dim], before: ir.Operation) -> ir.Value:
    """`x` under another shape."""
    return make(View("reshape", x, tuple(shape)), before)


def transpose(x: ir.Value, perm: Sequence[int], before: ir.Operation) -> ir.Value:
    """`x` with axis i of the result its axis perm[i]."""
    shape = dialect.shape_of(x)
    return make(View("transpose", x, tuple(shape[p] for p in perm), (("perm", tuple(perm)),)), before)


def expand(x: ir.Value, shape: Sequence[Dim], before: ir.Operation) -> ir.Value:
    """`x` repeated to a shape."""
    return make(View("expand", x, tuple(shape)), before)


def slice_(x: ir.Value, starts: Sequence[Dim], steps: Sequence[int], shape: Sequence[Dim], before: ir.Operation) -> ir.Value:
    """`shape` elements of `x` from `starts`, each axis by its step."""
    return make(View("slice", x, tuple(shape), (("starts", tuple(map(str, starts))), ("steps", tuple(steps)))), before)


def unit_axes_only(shape: Shape, perm: Sequence[int]) -> bool:
    """True where a transpose moves axes of size 1 only, so that it is a reshape."""
    wide = [p for p in perm if shape[p] != 1]
    return wide == sorted(wide)


def _identity(view: View) -> ir.Value | None:
    if view.shape != dialect.shape_of(view.x):
        return None
    match view.name:
        case "transpose":
            return view.x if view.attr("perm") == tuple(range(len(view.shape))) else None
        case "slice":
            return view.x if set(view.attr("starts")) <= {"0"} and set(view.attr("steps")) <= {1} else None
    return view.x


def _reshape_rule(view: View, inner: View | None) -> View | None:
    if inner is not None and inner.name == "reshape":
        return View("reshape", inner.x, view.shape)
    return None


@dataclass
class _Atom:
    """A part of an axis of a chain's base: its size, and its place among the base's atoms in row-major order."""

    size: Dim
    key: tuple[int, ...]


def regroup(view: View, before: ir.Operation) -> ir.Value | None:
    """A chain of reshapes and transposes in its shortest form: one reshape that splits, one transpose, one reshape that merges.

    Of two forms of equal length the one that ends in the transpose is chosen: there it meets a transpose that undoes it.

    Returns:
        the chain's value, made of new views before `before`; None where the chain has that form, or cannot be followed.
    """
    chain = [view]
    while (op := defining(chain[-1].x)) is not None and op.name in ("ingot.reshape", "ingot.transpose"):
        chain.append(read(op))
    base = chain[-1].x
    if len(chain) < 2 or view.name not in ("reshape", "transpose"):
        return None
    axes = _atoms(dialect.shape_of(base), chain[::-1])
    if axes is None:
        return None
    # What the transpose moves: for every axis of the result, its runs of atoms that are neighbours in the base; an axis of size
    # 1 moves with the axis before it.
    ordered = sorted((a for axis in axes for a in axis), key=lambda a: a.key)
    after = {id(a): b for a, b in pairwise(ordered)}
    runs: list[list[_Atom]] = []
    for axis in axes:
        start = len(runs)
        for atom in axis:
            if len(runs) > start and after.get(id(runs[-1][-1])) is atom:
                runs[-1].append(atom)
            else:
                runs.append([atom])
        if not axis:
            runs.append([_Atom(1, (*runs[-1][0].key, 2) if runs else (-1,))])
    sources = sorted(runs, key=lambda run: run[0].key)
    split = tuple(dims.product(a.size for a in run) for run in sources)
    perm = [next(i for i, run in enumerate(sources) if run is wanted) for wanted in runs]
    merged = tuple(split[p] for p in perm)
    needed = (dialect.shape_of(base) != split) + (perm != sorted(perm)) + (merged != view.shape)
    is_last = view.name == "reshape" and perm != sorted(perm) and merged == view.shape
    if needed > len(chain) or (needed == len(chain) and not is_last):
        return None
    value = base
    for step in (View("reshape", base, split), View("transpose", base, merged, (("perm", tuple(perm)),)),
                 View("reshape", base, view.shape)):  # fmt: skip
        step = replace(step, x=value)
        value = step.x if _identity(step) is not None else create(step, before)
    return value


def _atoms(base: Shape, chain: Sequence[View]) -> list[list[_Atom]] | None:
    """The axes of a chain of reshapes and transposes as lists of atoms of its base, which a reshape may split; None where it
    holds another view, or it is not known how axes are split."""
    axes = [[_Atom(d, (i,))] for i, d in enumerate(base)]
    for step in chain:
        if step.name == "transpose":
            axes = [axes[p] for p in step.attr("perm")]
            continue
        regrouped = _regrouped([a for axis in axes for a in axis], step.shape) if step.name == "reshape" else None
        if regrouped is None:
            return None
        axes = regrouped
    return axes


def atoms(base: Shape, chain: Sequence[View]) -> list[list[Dim]] | None:
    """Of every axis of a chain of reshapes and transposes, the sizes of the (parts of) axes of its base that make it up."""
    axes = _atoms(base, chain)
    return None if axes is None else [[atom.size for atom in axis] for axis in axes]


def _regrouped(atoms: list[_Atom], shape: Shape) -> list[list[_Atom]] | None:
    """The atoms, some of them split in two, in lists whose sizes multiply to `shape`; None where that is not known to go."""
    queue = [a for a in atoms if a.size != 1]
    out: list[list[_Atom]] = []
    for wanted in shape:
        group: list[_Atom] = []
        rest = wanted
        while rest != 1:
            if not queue:
                return None
            atom = queue.pop(0)
            quotient = dims.exact_div(rest, atom.size)
            if quotient is not None:
                group.append(atom)
                rest = quotient
                continue
            inner = dims.exact_div(atom.size, rest)
            if inner is None:
                return None
            group.append(_Atom(rest, (*atom.key, 0)))
            queue.insert(0, _Atom(inner, (*atom.key, 1)))
            rest = 1
        out.append(group)
    return out if not queue else None


def _transpose_rule(view: View, inner: View | None) -> View | None:
    perm = view.attr("perm")
    if unit_axes_only(dialect.shape_of(view.x), perm):
        return View("reshape", view.x, view.shape)
    if inner is not None and inner.name == "transpose":
        first = inner.attr("perm")
        return View("transpose", inner.x, view.shape, (("perm", tuple(first[p] for p in perm)),))
    return None


def _slice_rule(view: View, inner: View | None) -> View | None:
    if inner is None or inner.name != "slice":
        return None
    starts, steps = [], []
    for s1, d1, s2, d2 in zip(inner.attr("starts"), inner.attr("steps"), view.attr("starts"), view.attr("steps"), strict=True):
        starts.append(str(dims.parse(s1) + d1 * dims.parse(s2)))
        steps.append(d1 * d2)
    return View("slice", inner.x, view.shape, (("starts", tuple(starts)), ("steps", tuple(steps))))


def _expand_rule(view: View, inner: View | None) -> View | None:
    if inner is None:
        return None
    if inner.name == "expand":
        return View("expand", inner.x, view.shape)
    if inner.name == "reshape":
        # Leading axes of size 1 that a reshape adds are what expand adds by itself.
        source = dialect.shape_of(inner.x)
        lead = len(inner.shape) - len(source)
        if lead > 0 and inner.shape[:lead] == (1,) * lead and inner.shape[lead:] == source:
            return View("expand", inner.x, view.shape)
    return None


_RULES = {"reshape": _reshape_rule, "transpose": _transpose_rule, "slice": _slice_rule, "expand": _expand_rule}
