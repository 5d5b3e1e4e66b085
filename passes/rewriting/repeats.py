"""Elements that stand several times along an axis of a tensor, and computation that takes each of them once.

An interleaved repeat (a, a, b, b) or a tile (a, b, a, b) is an `expand` of an axis of size 1 that a `reshape` merges with its
neighbours, which no strides express. A pointwise operation over it computes everything `times` times; over the elements as they
are, its result repeats instead. Positions that such an operation computes, to pad what it reads, become quotients by `times`:
floor(x / r) goes before differences by multiples of r, minima and maxima, as the division is monotonic.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ingot import dims
from ingot.dialects import ingot as dialect
from ingot.dialects.layout import ORDER
from ingot.dialects.mlir import ir
from ingot.dims import Dim
from ingot.dispatch import ScalarInst
from ingot.dtypes import DTYPES
from ingot.passes.rewriting import refinement, views
from ingot.passes.rewriting.domains import axis_groups
from ingot.passes.rewriting.ops import Root, defining, operand_number, replace_root
from ingot.passes.rewriting.scalar_regions import RegionBuilder

__all__ = ["Repeat", "Repeated", "read_once", "repeat_of", "sunk"]

Shape = tuple[Dim, ...]
_LANES = 8  # that vectors have at most


@dataclass(frozen=True)
class Repeat:
    """How elements repeat along an axis: it is [outer, times, inner] merged, values are the same along the second."""

    times: int
    inner: Dim

    def over(self, shape: Shape, axis: int) -> Shape | None:
        """`shape` with each of an axis's elements once; None where it is not known to consist of such repeats."""
        size = dims.exact_div(shape[axis], self.times)
        if size is None or dims.exact_div(size, self.inner) is None:
            return None
        return (*shape[:axis], size, *shape[axis + 1 :])

    def of(self, x: ir.Value, axis: int, before: ir.Operation) -> ir.Value:
        """`x` with the elements along an axis repeated, as a view before `before`."""
        shape = dialect.shape_of(x)
        outer = dims.exact_div(shape[axis], self.inner)
        assert outer is not None, "the size was a multiple of the repeat's"
        lead = (*shape[:axis], *(() if outer == 1 else (outer,)))
        rest = (*(() if self.inner == 1 else (self.inner,)), *shape[axis + 1 :])
        x = views.expand(views.reshape(x, (*lead, 1, *rest), before), (*lead, self.times, *rest), before)
        return views.reshape(x, (*shape[:axis], shape[axis] * self.times, *shape[axis + 1 :]), before)


@dataclass(frozen=True)
class Repeated:
    """A tensor that repeats `once` along `axis`: a view that gives each element once, to be reshaped to `shape`."""

    once: ir.Value
    shape: Shape
    axis: int
    how: Repeat


def repeat_of(x: ir.Value) -> Repeated | None:
    """How a tensor is an expanded axis merged with its neighbours; None where it is not."""
    op = defining(x)
    inner = defining(op.operands[0]) if op is not None and op.name == "ingot.reshape" else None
    if inner is None or inner.name != "ingot.expand":
        return None
    source = inner.operands[0]
    shape, wide, narrow = dialect.shape_of(x), dialect.shape_of(inner.results[0]), dialect.shape_of(source)
    narrow = (*(1,) * (len(wide) - len(narrow)), *narrow)
    repeated = [i for i, (a, b) in enumerate(zip(narrow, wide, strict=True)) if a != b]
    groups = axis_groups(wide, shape)
    if len(repeated) != 1 or groups is None:
        return None
    (at,) = repeated
    times = wide[at]
    old, new = next(g for g in groups if at in g[0])
    merged = [a for a in new if shape[a] != 1]
    if not isinstance(times, int) or len(merged) != 1 or all(wide[a] == 1 for a in old if a != at):
        return None
    how = Repeat(times, dims.product(wide[a] for a in old if a > at))
    once = how.over(shape, merged[0])
    return None if once is None else Repeated(source, once, merged[0], how)


def read_once(x: ir.Value, reader: Root) -> ir.Operation | None:
    """A pointwise root that reads `x`, over a domain of which the axis of the repeat that `x` is is split, before the root;
    None where there is none, or vectors could not run along the axes."""
    found = repeat_of(x)
    if found is None or reader.name != "pointwise" or ORDER in reader.op.attributes or _shares_bytes(x, *reader.op.results):
        return None
    domain, how = reader.domain, found.how
    axis = found.axis + len(domain) - len(found.shape)
    outer = dims.exact_div(found.shape[found.axis], how.inner)
    if not isinstance(how.inner, int) or outer is None or domain[axis] != dialect.shape_of(x)[found.axis]:
        return None
    if how.inner % _LANES and _LANES % (how.times * how.inner):
        return None
    parts = (outer, how.times, how.inner) if how.inner != 1 else (outer, how.times)
    return refinement.split(reader, (*domain[:axis], *(d for d in parts if d != 1), *domain[axis + 1 :]))


def sunk(root: Root) -> list[ir.Value] | None:
    """The results of a pointwise operation over repeated tensors as repeats of those of an operation, made before it, that
    takes each element once; None where elements that stand several times do not give the same each time."""
    if _shares_bytes(*root.op.results):
        return None
    for axis, how in _candidates(root):
        new = _Once(root, axis, how).create()
        if new is not None:
            return [how.of(r, axis, root.op) for r in new.results]
    return None


def _shares_bytes(*values: ir.Value) -> bool:
    """True where elements of one of `values` are smaller than a byte: such are written and read in whole rows."""
    return any(DTYPES[dialect.dtype_of(v)].bits < 8 for v in values)


def _candidates(root: Root) -> Iterator[tuple[int, Repeat]]:
    """Axes of a root's domain, and repeats along them that some of what it reads has."""
    seen: set[tuple[int, Repeat]] = set()
    rank = len(root.domain)
    for inst in root.regions[0].insts:
        if inst.op not in ("load", "load_at"):
            continue
        found = repeat_of(root.tensors[inst.attr("operand")])
        if found is None:
            continue
        is_aligned = inst.op == "load"
        axis = found.axis + rank - len(found.shape)
        for a in [axis] if is_aligned else range(rank) if found.how.inner == 1 else ():
            if (a, found.how) not in seen:
                seen.add((a, found.how))
                yield a, found.how


class _Once:
    """A pointwise root over a domain of which one axis holds each element once, while it is written."""

    def __init__(self, root: Root, axis: int, how: Repeat) -> None:
        self.root, self.axis, self.how = root, axis, how
        self.builder = RegionBuilder()
        self.tensors = list(root.tensors)
        self.quotients: set[int] = set()  # values that are floor(x / times), where x is what the region had
        self.found = False

    def create(self) -> ir.Operation | None:
        domain = self.how.over(self.root.domain, self.axis)
        if domain is None:
            return None
        (region,) = self.root.regions
        try:
            results = self.builder.inline(region, replace=self._counterpart)
        except _DependsOnTurnError:
            return None
        if not self.found or self.quotients & set(results):
            return None
        types = [dialect.tensor_type(dialect.dtype_of(r), domain) for r in self.root.op.results]
        finished = self.builder.finish(results)
        return replace_root(self.root, result_types=types, regions=[finished], tensors=self.tensors)

    def _counterpart(self, inst: ScalarInst, args: tuple[int, ...]) -> int | None:
        if inst.op == "load":
            return self._load(inst)
        if inst.op == "load_at":
            return self._load_at(inst, args)
        if inst.op == "index" and inst.attr("axis") == self.axis:
            if self.how.inner != 1:
                raise _DependsOnTurnError
            return self._quotient(self.builder.emit("index", type=inst.type, axis=self.axis))
        return self._arithmetic(inst, args) if self.quotients & set(args) else None

    def _quotient(self, value: int) -> int:
        self.quotients.add(value)
        return value

    def _once(self, x: ir.Value, axis: int) -> int | None:
        """The number of the tensor that holds each element of `x` along its axis once; None where `x` does not repeat so."""
        known = repeat_of(x)
        if known is None or known.axis != axis or known.how != self.how:
            return None
        self.found = True
        return operand_number(self.tensors, views.reshape(known.once, known.shape, self.root.op))

    def _load(self, inst: ScalarInst) -> int | None:
        x = self.root.tensors[inst.attr("operand")]
        shape = dialect.shape_of(x)
        axis = self.axis + len(shape) - len(self.root.domain)
        if axis < 0 or shape[axis] == 1:
            return None
        number = self._once(x, axis)
        if number is None:
            raise _DependsOnTurnError
        return self.builder.emit("load", type=inst.type, operand=number)

    def _load_at(self, inst: ScalarInst, args: tuple[int, ...]) -> int | None:
        along = [i for i, a in enumerate(args) if a in self.quotients]
        if not along:
            return None
        number = self._once(self.root.tensors[inst.attr("operand")], along[0])
        if number is None or len(along) > 1:
            raise _DependsOnTurnError
        return self.builder.emit("load_at", *args, type=inst.type, operand=number)

    def _arithmetic(self, inst: ScalarInst, args: tuple[int, ...]) -> int:
        """An instruction that takes quotients, and the constants beside them divided likewise."""
        times, op = self.how.times, inst.op
        constants = [self.builder.constant(a) for a in args]
        # What the remainder of a constant by `times` must be, so that the instruction's value follows from quotients.
        wanted = {"addi": 0, "subi": 0, "cmpi_slt": 0, "cmpi_sge": 0, "cmpi_sle": times - 1, "cmpi_sgt": times - 1}.get(op)
        if len(args) != 2 or args[0] not in self.quotients or (wanted is None and op not in ("minsi", "maxsi")):
            raise _DependsOnTurnError
        y = args[1]
        if constants[1] is not None:
            if wanted is not None and constants[1] % times != wanted:
                raise _DependsOnTurnError
            y = self.builder.const(constants[1] // times, self.builder.type_of(y))
        elif y not in self.quotients or op not in ("minsi", "maxsi"):
            raise _DependsOnTurnError
        value = self.builder.emit(op, args[0], y, type=inst.type)
        return value if inst.type == "i1" else self._quotient(value)


class _DependsOnTurnError(Exception):
    """A value differs between the turns of a repeat, or is not known not to."""
