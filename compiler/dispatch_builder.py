"""From a root operation of the AOT IR to a canonical `Dispatch`, and the values that its symbols have in the program.

Operands are resolved through chains of views to the memory they lie in: a base (an input, a weight, memory that another
operation made), an offset in bytes, and strides. What is canonical:

- every distinct size that is not constant is one symbol, `d0, d1, ...` in order of appearance in operands, results, regions;
- a stride is a constant, a product of a constant and symbols where it is one of the tensor's own sizes, else a symbol too;
- `offsets` of a `move ... into` are part of the result's address, not of the dispatch, and so is where any view begins; but
  where that changes while launches should stay as they are, it is a size of the dispatch (`Dispatch.offsets`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import gcd

from ingot import dims
from ingot.compiler.general_dispatch import generalize
from ingot.dialects import ingot as dialect
from ingot.dialects.layout import base_layout, target_of, view_layout
from ingot.dialects.mlir import ir
from ingot.dialects.plain import attribute, read_regions
from ingot.dims import Dim
from ingot.dispatch import Dispatch, ScalarInst, ScalarRegion, TensorArg
from ingot.dtypes import DTYPES
from ingot.errors import CompileError
from ingot.passes.diagnostics import node_name
from ingot.passes.share_kernels import GENERAL
from ingot.strided_view import StridedView

KERNEL_ALIGNMENT = 64  # of weights and of the arena's buffers
CALLER_ALIGNMENT = 16  # of inputs and outputs: what allocators give

# Attributes of a root that say where memory lies or where it comes from, not what the kernel does.
_NOT_SEMANTIC = frozenset(("offsets",))
# Their kernels may read operands by tensor maps, or copies of operands: addresses that the host knows.
_ADDRESSED = frozenset(("matmul", "conv", "attention"))
# Operations whose dispatches have another root's name: what tells them apart is in the attributes.
_ROOT_OF = {"scaled_matmul": "matmul"}


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: the value whose memory it is, and the view of that memory, in elements."""

    base: ir.Value
    view: StridedView
    dtype: str

    @property
    def byte_offset(self) -> Dim:
        """Bytes from the beginning of the base to element 0. Sub-byte views begin at a byte."""
        bits = DTYPES[self.dtype].bits
        if bits >= 8:
            return self.view.offset * (bits // 8)
        exact = dims.exact_div(self.view.offset * bits, 8)
        if exact is None:
            raise CompileError(f"a view of {self.dtype} begins inside a byte, at element {self.view.offset}")
        return exact


    @property
    def lowest_byte(self) -> Dim:
        """Bytes from the beginning of the base to the element with the lowest address; axes of negative strides end there."""
        axes = zip(self.view.shape, self.view.strides, strict=True)
        backwards = sum((s * (d - 1) for d, s in axes if isinstance(s, int) and s < 0), start=0)
        return self.byte_offset + backwards * (DTYPES[self.dtype].bits // 8)


@dataclass(frozen=True)
class BuiltDispatch:
    """A dispatch, where its tensors lie, and what its symbols are in the program.

    Attributes:
        operands, results: as `dispatch.operands` and `dispatch.results`; of those in `dispatch.offsets`, their memory's
            beginning.
        sizes: expressions over the program's symbols, one for each of `dispatch.symbols`.
        node: the ONNX nodes it implements.
    """

    dispatch: Dispatch
    operands: tuple[Place, ...]
    results: tuple[Place, ...]
    sizes: tuple[Dim, ...]
    node: str


class PlaceResolver:
    """Resolves values to places, once each.

    Args:
        memory: strides of values whose memory is larger than they are (growing states), by value.
    """

    def __init__(self, memory: Mapping[ir.Value, StridedView] | None = None) -> None:
        self._memory = dict(memory or {})
        self._places: dict[ir.Value, Place] = {}

    def place(self, value: ir.Value) -> Place:
        """Where `value` lies. Raises CompileError for a reshape that no strides give."""
        found = self._places.get(value)
        if found is None:
            found = self._places[value] = self._resolve(value)
        return found

    def bind(self, argument: ir.Value, value: ir.Value) -> None:
        """Let a region's argument lie where `value` does."""
        self._places[argument] = self.place(value)

    def _resolve(self, value: ir.Value) -> Place:
        owner = value.owner
        if not isinstance(owner, ir.Block):
            op = owner.operation
            if op.name in dialect.VIEWS:
                return self._view(op)
            if (target := target_of(op)) is not None:
                return self.place(target)
        view = self._memory.get(value) or base_layout(value)
        return Place(value, view, dialect.dtype_of(value))

    def _view(self, op: ir.Operation) -> Place:
        of = self.place(op.operands[0])
        view = view_layout(op, of.view)
        if view is None:
            raise CompileError(
                f"a reshape from {_text(of.view.shape)} to {_text(dialect.shape_of(op.results[0]))} has to copy",
                node=node_name(op),
                cure="run ingot-materialize-views first",
            )
        return Place(of.base, view, of.dtype)

    def written(self, op: ir.Operation) -> list[Place]:
        """Where a root's results are written: for a `move ... into`, the part that it replaces."""
        if op.name == "ingot.move" and len(op.operands) == 2:
            into = self.place(op.operands[1])
            starts = tuple(map(dims.as_dim, attribute(op.attributes["offsets"])))
            shape = dialect.shape_of(op.operands[0])
            part = into.view.slice(starts, [1] * len(shape), shape)
            return [Place(into.base, part, into.dtype)]
        return [self.place(r) for r in op.results]


def _text(shape: Sequence[Dim]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"


class _Symbols:
    """Gives sizes of the program names in the dispatch."""

    def __init__(self) -> None:
        self.sizes: dict[Dim, dims.Expr] = {}

    def size(self, d: Dim) -> Dim:
        """The symbol of a size; constants stay."""
        if isinstance(d, int):
            return d
        found = self.sizes.get(d)
        if found is None:
            found = self.sizes[d] = dims.symbol(f"d{len(self.sizes)}")
        return found

    def stride(self, stride: Dim, shape: Sequence[Dim]) -> Dim:
        """A stride of a tensor of sizes `shape`, as a product of their symbols where it is one."""
        if isinstance(stride, int):
            return stride
        rest: Dim = stride
        out: Dim = 1
        sizes = sorted({d for d in shape if not isinstance(d, int)}, key=lambda d: (-len(str(d)), str(d)))
        for d in sizes:
            while not isinstance(rest, int) and (quotient := dims.exact_div(rest, d)) is not None:
                rest, out = quotient, out * self.size(d)
        if isinstance(rest, int):
            return rest * out
        return self.size(stride)


def build_dispatch(
    op: ir.Operation,
    places: PlaceResolver,
    *,
    is_callers: Callable[[ir.Value], bool] = lambda base: isinstance(base.owner, ir.Block),
    live: frozenset[str] = frozenset(),
    moving: frozenset[str] = frozenset(),
) -> BuiltDispatch:
    """The dispatch of root operation `op`.

    Args:
        places: resolves its tensors.
        is_callers: whether a base is memory of the caller, which is aligned less than ours.
        live: symbols of the program that grow from call to call.
        moving: symbols of the program whose values change while launches stay as they are: what begins where they say is placed
            by `Dispatch.offsets`.
    """
    if op.name not in dialect.ROOTS:
        raise ValueError(f"{op.name} is no root operation")
    tensors, read_from = read_regions(op)
    if op.name == "ingot.move" and len(op.operands) == 2:  # `into` is written, not read
        del tensors[1]
        read_from = tuple(_renumbered(r, lambda n: n - 1 if n else n) for r in read_from)
    operands = [places.place(v) for v in tensors]
    results = places.written(op)
    for index, domain in _domains(op, read_from):
        operands[index] = _repeated(operands[index], domain)
    symbols = _Symbols()

    def tensor(p: Place) -> TensorArg:
        limit = CALLER_ALIGNMENT if is_callers(p.base) else KERNEL_ALIGNMENT
        shape = tuple(map(symbols.size, p.view.shape))
        strides = tuple(symbols.stride(s, p.view.shape) for s in p.view.strides)
        return TensorArg(p.dtype, shape, strides, gcd(limit, dims.multiple_of(p.lowest_byte)))

    operand_args = tuple(map(tensor, operands))
    result_args = tuple(map(tensor, results))
    regions = tuple(_named(region, symbols) for region in read_from)
    attrs = {name: attribute(op.attributes[name]) for name in op.attributes if name not in _NOT_SEMANTIC and "." not in name}
    root = op.name.removeprefix("ingot.")
    root = _ROOT_OF.get(root, root)
    offsets: list[tuple[str, int, Dim]] = []
    for kind, tensors_of in (("operand", operands), ("result", results)) if root not in _ADDRESSED else ():
        for i, p in enumerate(tensors_of):
            if dims.symbols(p.byte_offset) & moving:
                offsets.append((kind, i, symbols.size(p.byte_offset)))
                tensors_of[i] = Place(p.base, replace(p.view, offset=0), p.dtype)
    sizes: tuple[Dim, ...] = tuple(symbols.sizes)
    names = tuple(str(s) for s in symbols.sizes.values())
    dispatch = Dispatch(
        root,
        operand_args,
        result_args,
        tuple(sorted(attrs.items())),
        regions,
        names,
        tuple(dims.multiple_of(d) for d in sizes),
        tuple(n for n, d in zip(names, sizes, strict=True) if dims.symbols(d) & live),
        tuple(offsets),
    )
    if GENERAL in op.attributes:
        dispatch, sizes = generalize(dispatch, sizes)
    return BuiltDispatch(dispatch, tuple(operands), tuple(results), sizes, node_name(op) or "")


def _domains(op: ir.Operation, regions: Sequence[ScalarRegion]) -> list[tuple[int, tuple[Dim, ...]]]:
    """The operands that are broadcast, by number, each with the sizes it meets: what regions load, a matmul's leading axes."""
    own = [dialect.shape_of(v) for v in op.operands]
    result = dialect.shape_of(op.results[0])
    match op.name.removeprefix("ingot."):
        case "move":
            domains: tuple[tuple[Dim, ...], ...] = (own[0],)
        case "attention":
            domains = ((*own[0][:3], own[1][2]), result)
        case "reduce":
            domains = (own[0], result)
        case "normalize":
            domains = (own[0], own[0])
        case "scatter":
            domains = (own[1], own[1])
        case "topk":
            domains = (own[0],)
        case _:
            domains = (result,) * len(regions)
    out = []
    if op.name in ("ingot.matmul", "ingot.scaled_matmul"):
        out = [(i, (*result[:-2], *shape[-2:])) for i, shape in enumerate(own) if len(shape) >= 2]
    for region, domain in zip(regions, domains, strict=True):
        out += [(inst.attr("operand"), domain) for inst in region.insts if inst.op == "load"]
    return out


def _repeated(place: Place, domain: Sequence[Dim]) -> Place:
    """`place` with strides that repeat it over `domain` where an axis may turn out to have size 1 only at run time."""
    view = place.view
    shape, strides = list(view.shape), list(view.strides)
    missing = len(domain) - len(shape)
    for axis, size in enumerate(view.shape):
        wanted = domain[axis + missing]
        if size not in (1, wanted):
            shape[axis] = wanted
            strides[axis] = dims.select(size, 1, 0, strides[axis])
    if shape == list(view.shape):
        return place
    return Place(place.base, StridedView(tuple(shape), tuple(strides), view.offset), place.dtype)


def _renumbered(region: ScalarRegion, number: Callable[[int], int]) -> ScalarRegion:
    """The region with its loads' operands renumbered."""

    def inst(i: ScalarInst) -> ScalarInst:
        return replace(i, attrs=(("operand", number(i.attr("operand"))),)) if i.op in ("load", "load_at") else i

    return replace(region, insts=tuple(map(inst, region.insts)))


def _named(region: ScalarRegion, symbols: _Symbols) -> ScalarRegion:
    """The region with its `dim` instructions in the dispatch's symbols; those of a constant size become `const`."""

    def inst(i: ScalarInst) -> ScalarInst:
        if i.op != "dim":
            return i
        d = symbols.size(dims.parse(i.attr("dim")))
        return ScalarInst("const", (), i.type, (("value", d),)) if isinstance(d, int) else replace(i, attrs=(("dim", str(d)),))

    return replace(region, insts=tuple(map(inst, region.insts)))
