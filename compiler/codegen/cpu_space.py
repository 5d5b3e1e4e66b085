"""Iteration spaces of CPU kernels: axes merged where every tensor allows it, and loops over lanes, rows and work items."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ingot import dims
from ingot.compiler.codegen.cpu_kernel import CpuKernel
from ingot.compiler.codegen.values import Operand, Val
from ingot.dims import Dim
from ingot.dispatch import Dispatch, known_multiple
from ingot.dtypes import DTYPES
from ingot.target import Target

ITEM_ELEMENTS = 16384  # elements of one work item of an elementwise kernel


@dataclass(frozen=True)
class Space:
    """A domain with axes of size 1 dropped, others reordered and merged.

    Attributes:
        sizes: of the axes that are left; at least one.
        axes: which of them an original axis became, where it was not merged into another or dropped.
        strides: for each access, its element strides along them.
    """

    sizes: tuple[Dim, ...]
    axes: dict[int, int]
    strides: tuple[tuple[Dim, ...], ...]


def collapse(
    shape: Sequence[Dim],
    accesses: Sequence[Sequence[Dim]],
    fixed: Iterable[int] = (),
    order: Sequence[int] | None = None,
) -> Space:
    """The space of a domain.

    Args:
        shape: its sizes.
        accesses: for each tensor, its strides over the domain's axes.
        fixed: axes that must not be merged with others.
        order: the axes, outermost first; as they stand by default.
    """
    fixed = set(fixed)
    groups: list[list[int]] = []
    for axis in order if order is not None else range(len(shape)):
        if shape[axis] == 1:
            continue
        last = groups[-1][-1] if groups else -1
        if groups and not {axis, last} & fixed and all(s[last] == s[axis] * shape[axis] for s in accesses):
            groups[-1].append(axis)
        else:
            groups.append([axis])
    if not groups:
        return Space((1,), {}, tuple((1,) for _ in accesses))
    return Space(
        tuple(dims.product(shape[a] for a in g) for g in groups),
        {g[0]: i for i, g in enumerate(groups) if len(g) == 1},
        tuple(tuple(s[g[-1]] for g in groups) for s in accesses),
    )


def inner_axis(
    sizes: Sequence[Dim], contiguous: Sequence[Sequence[Dim]], dtypes: Iterable[str], lanes: int, dispatch: Dispatch
) -> int:
    """The size of the last of `sizes` where vectors of `lanes` should run over the last two axes, else 1: where it is less than
    a vector, and all of `contiguous` (strides) walk both axes as one."""
    if len(sizes) < 2 or any(DTYPES[t].bits < 8 for t in dtypes):
        return 1
    size = sizes[-1]
    if not isinstance(size, int) or size < 2 or size >= lanes or lanes % size:
        return 1
    if known_multiple(sizes[-2], dispatch) * size < lanes and isinstance(sizes[-2], int):
        return 1
    return size if all(s[-1] == 1 and s[-2] == size for s in contiguous) else 1


def order_by_result(shape: Sequence[Dim], strides: Sequence[Dim]) -> list[int]:
    """The axes of a domain with the one that is contiguous in the result last."""
    rank = len(shape)
    contiguous = [a for a in range(rank) if strides[a] == 1 and shape[a] != 1]
    last = contiguous[-1] if contiguous else rank - 1
    return [*(a for a in range(rank) if a != last), last] if rank else []


@dataclass(frozen=True)
class Chunks:
    """How a space is cut into work items: blocks of `rows` of the axis before the last times `lanes` of the last one.

    `grid` lists the counts of the item's coordinates: outer axes, row blocks (where there are two axes), lane blocks.
    """

    grid: tuple[Dim, ...]
    rows: Dim
    lanes: Dim


def chunks(sizes: Sequence[Dim], rows: Dim | None = None, lanes: int = ITEM_ELEMENTS) -> Chunks:
    """Work items of about `ITEM_ELEMENTS`, or of blocks of the given sizes."""
    *outer, length = sizes
    lane_blocks = dims.ceildiv(length, lanes)
    if not outer:
        return Chunks((lane_blocks,), 1, lanes)
    if rows is None:
        rows = dims.maximum(1, dims.floordiv(ITEM_ELEMENTS, dims.maximum(length, 1)))
    return Chunks((*outer[:-1], dims.ceildiv(outer[-1], rows), lane_blocks), rows, lanes)


def clipped(ck: CpuKernel, block: Val, step: Dim, size: Dim) -> tuple[Val, Val]:
    """The range [start, stop) of block number `block` of an axis of `size` cut into blocks of `step`."""
    if isinstance(step, int) and isinstance(size, int) and step >= size:
        return ck.k.const(0, "i64"), ck.k.const(size, "i64")
    start = block * ck.dim(step)
    if isinstance(size, int) and isinstance(step, int) and size % step == 0:
        return start, start + step
    return start, ck.k.min(start + ck.dim(step), ck.dim(size))


LaneBody = Callable[[Val, int, "Val | None"], None]


def tail_mask(ck: CpuKernel, count: Operand, lanes: int) -> Val:
    """The vector of i1 whose first `count` lanes are set.

    LLVM must not learn that the mask is a constant: it turns a masked store of one lane into a scalar store, and where the
    value was just truncated it stores the untruncated one, over its neighbours (x86, seen in LLVM 22.1). An empty inline
    assembly hides the count.
    """
    k = ck.k
    number = k.cast(k.value(count, "i64"), "i32")
    attributes = {
        "asm_string": k.attr('""'),
        "constraints": k.attr('"=r,0"'),
        "asm_dialect": k.attr("0 : i64"),
        "tail_call_kind": k.attr("#llvm.tailcallkind<none>"),
    }
    number = k.emit("llvm.inline_asm", (number,), k.i32, attributes)
    return k.iota(f"vector<{lanes}xi32>") < k.broadcast(number, lanes)


def for_lanes(ck: CpuKernel, start: Val, stop: Val, lanes: int, body: LaneBody, *, masked: bool, divides: bool = False) -> None:
    """Emit `body(position, lanes, mask)` over [start, stop): vectors, then what is left of one.

    Args:
        masked: the rest is one masked vector; else single elements (lanes 0).
        divides: the length is known to be a multiple of `lanes`.
    """
    k = ck.k
    length = stop - start
    if length.const is not None and length.const % lanes == 0:
        divides = True
    if length.const == lanes:
        body(start, lanes, None)
        return
    main = stop if divides else start + ((length // lanes) * lanes)
    if length.const is None or length.const > lanes:
        with k.for_(start, main, lanes) as loop:
            body(loop.iv, lanes, None)
    if divides:
        return
    if masked:
        with k.if_(main < stop):
            body(main, lanes, tail_mask(ck, stop - main, lanes))
    else:
        with k.for_(main, stop) as loop:
            body(loop.iv, 0, None)


def vector_lanes(target: Target, dtypes: Iterable[str]) -> int:
    """Elements of a vector for values of `dtypes`: a register of the widest, counting 64-bit values as 32-bit ones."""
    widest = max((DTYPES[t].bits for t in dtypes), default=32)
    return target.vector_bits // min(32, max(8, widest))


def takes_masks(ck: CpuKernel, dtypes: Iterable[str]) -> bool:
    """True where masked loads and stores of all `dtypes` are single instructions."""
    return ck.has_masks or all(DTYPES[t].bits >= 32 for t in dtypes)
