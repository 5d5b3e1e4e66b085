"""What CUDA kernels of a dispatch share: parameters by the calling convention of `ingot.kernel_plan`, sizes, addresses,
regions.

A family writes its plan first; a `KernelLaunch` is then the one statement of a kernel's parameters, threads and cluster, and
`dispatch_kernel` opens the kernel that it describes. Positions in an iteration domain are lists of integers, one an axis; where
`lanes` is not 0, the last one is the first of so many neighbouring elements, along the last axis or, where a kernel says so
(`lane_axes`), several.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from ingot import dims
from ingot.compiler.codegen.cuda_prefetch import prefetch_weights
from ingot.compiler.codegen.kernel_builder import KernelModule, Param
from ingot.compiler.codegen.lane_axes import covered_axes, lane_pattern, lane_positions, merged_rows
from ingot.compiler.codegen.scalar_lowering import emit_region
from ingot.compiler.codegen.values import Operand, Val
from ingot.dims import Dim
from ingot.dispatch import Dispatch, ScalarRegion, TensorArg, known_multiple
from ingot.kernel_plan import BufferArg, KernelLaunch, TensorMapArg
from ingot.target import OVERLAP_SM

TYPICAL_SIZE = 1024  # what cost models take for a size that is not constant
NARROW = 1 << 31  # offsets below it are computed in 32 bits


def divides(n: int, d: Dim, dispatch: Dispatch) -> bool:
    """True where `d` is known to be a multiple of `n`."""
    return known_multiple(d, dispatch) % n == 0


def row_alignment(t: TensorArg, dispatch: Dispatch, skip: int = -1) -> int:
    """Bytes that the address of every row is known to be a multiple of; a row runs along axis `skip` (the last by default)."""
    skip %= max(1, t.rank)
    align = t.align
    for axis, (d, stride) in enumerate(zip(t.shape, t.strides, strict=True)):
        if axis != skip and d != 1:
            align = math.gcd(align, known_multiple(stride, dispatch) * t.type.bits // 8)
    return align


def first_alignment(t: TensorArg, dispatch: Dispatch) -> int:
    """Bytes that the address of element 0 is known to be a multiple of; it is not the lowest where an axis runs backwards."""
    align = t.align
    for d, stride in zip(t.shape, t.strides, strict=True):
        if isinstance(stride, int) and stride < 0:
            align = math.gcd(align, known_multiple(stride * (d - 1), dispatch) * t.type.bits // 8)
    return align


def vector_lanes(t: TensorArg, dispatch: Dispatch, limit: int = 16) -> int:
    """Elements of the widest access of at most `limit` bytes that rows of `t` (along its last axis) allow everywhere; at least
    1."""
    if t.rank == 0 or t.strides[-1] != 1 or t.type.bits < 8:
        return 1
    size = t.type.bytes
    lanes = limit // size
    multiple = math.gcd(known_multiple(t.shape[-1], dispatch), row_alignment(t, dispatch) // size)
    return math.gcd(lanes, multiple) if multiple else lanes


def lanes_across(d: Dispatch, tensors: Sequence[TensorArg], domain: Sequence[Dim], widest: int) -> tuple[int, int]:
    """The most lanes, up to `widest`, of vectors over one or several trailing axes of `domain` that lie in `tensors` in one
    piece, and the number of these axes."""
    if any(t.type.bits < 8 for t in (*d.operands, *d.results)):
        return 1, 1
    lanes = widest
    while lanes > 1:
        axes = covered_axes(domain, lanes, d)
        if axes is not None and all(
            merged_rows(t, axes).strides[-1] == 1 and vector_lanes(merged_rows(t, axes), d, lanes * t.type.bytes) == lanes
            for t in tensors
        ):
            return lanes, axes
        lanes //= 2
    return 1, 1


def nibble_lanes(t: TensorArg, dispatch: Dispatch, limit: int = 8) -> int:
    """Elements of 4 bits of the widest access of at most `limit` that rows of `t` (along its last axis) allow everywhere; 1
    where two neighbours may lie in different bytes.
    """
    if t.rank == 0 or t.strides[-1] != 1:
        return 1
    multiple = math.gcd(2 * t.align, known_multiple(t.shape[-1], dispatch))
    for d, stride in zip(t.shape[:-1], t.strides[:-1], strict=True):
        if d != 1:
            multiple = math.gcd(multiple, known_multiple(stride, dispatch))
    return math.gcd(limit, multiple) if multiple else limit


def span(t: TensorArg) -> int | None:
    """One more than the largest distance of an element from the first, in elements; None where it is not constant."""
    total = 1
    for d, s in zip(t.shape, t.strides, strict=True):
        if not isinstance(d, int) or not isinstance(s, int):
            return None
        total += max(d - 1, 0) * abs(s)
    return total


def collapse(shape: Sequence[Dim], strides: Sequence[Dim]) -> Dim | None:
    """The one stride of `shape`'s axes taken as one axis in row-major order, or None where they have none."""
    stride: Dim | None = None
    extent: Dim = 1
    for d, s in zip(reversed(shape), reversed(strides), strict=True):
        if d == 1:
            continue
        if stride is None:
            stride, extent = s, d
        elif s == stride * extent:
            extent = extent * d
        else:
            return None
    return 0 if stride is None else stride


class DispatchKernel:
    """One kernel of a dispatch being written: `k` its builder, `d` the dispatch."""

    def __init__(self, k: Any, dispatch: Dispatch, launch: KernelLaunch, sized: bool) -> None:
        self.k, self.d, self.launch = k, dispatch, launch
        self.begun = False
        self.lane_axes = 1  # trailing axes of the domain over which lanes run
        self.whole_vectors = False  # positions of vectors are multiples of their lanes, and rows are whole vectors
        self._lane_indices: dict[int, tuple[Val, Val, list[int]]] = {}  # by identity: an index in lanes, of the first, steps
        self._pointers: dict[tuple[str, int], Val] = {}
        self.maps: list[Val] = []
        for buffer, arg in zip(launch.buffers, k.args, strict=False):
            if isinstance(buffer, TensorMapArg):
                self.maps.append(arg)
            else:
                self._pointers[buffer.kind, buffer.index] = arg
        self._symbols: dict[str, Val] = {}
        if sized:
            table = k.args[-1]
            for i, name in enumerate(dispatch.symbols):
                self._symbols[name] = k.load(table.at(i, "i64"), "i64", align=8)
        for kind, index, nbytes in dispatch.offsets:
            assert not any((m.kind, m.index) == (kind, index) for m in launch.buffers if isinstance(m, TensorMapArg))
            if (kind, index) in self._pointers:
                self._pointers[kind, index] = self._pointers[kind, index].at(self.size(nbytes), "i8")

    def begin(self) -> None:
        """Wait until the launches before this one have ended, then let those after it start: where this one takes a few
        microseconds, at once, else as its blocks end, for blocks that wait take places on SMs unevenly.

        Every thread comes here once, before its first access to memory that another launch reads or writes. Before it may stand
        what concerns the block alone, and reads of sizes and tensor maps, which do not change while a program runs.
        """
        assert not self.begun, "a kernel begins once"
        self.begun = True
        if self.k.sm >= OVERLAP_SM:
            prefetch_weights(self)
            self.k.grid_dependency_wait()
            if takes_little(self.launch):
                self.k.grid_dependency_launch()

    # --- sizes

    def size(self, d: Dim, type_: str = "i64") -> Val:
        """The value of a shape expression as an integer of `type_` (which must hold it)."""
        if isinstance(d, int):
            return self.k.const(d, type_)
        total: Val | None = None
        for monomial, c in d.terms:
            term: Val | None = None
            for atom in monomial:
                x = self._atom(atom)
                term = x if term is None else term * x
            value = self.k.const(c, "i64") if term is None else term * c
            total = value if total is None else total + value
        assert total is not None
        return self.k.cast(total, type_)

    def _atom(self, atom: dims.Atom) -> Val:
        if atom.function is None:
            return self._symbols[atom.text]
        k = self.k
        a, b, *rest = (self.size(x) for x in atom.args)
        match atom.function:
            case "floordiv":
                return self._floordiv(a, b)
            case "ceildiv":
                return 0 - self._floordiv(0 - a, b)
            case "mod":
                return a - b * self._floordiv(a, b)
            case "min":
                return k.min(a, b)
            case "max":
                return k.max(a, b)
            case "bcast":
                return k.select(a.eq(1), b, a)
            case _:
                return k.select(a.eq(b), rest[0], rest[1])

    def _floordiv(self, a: Val, b: Val) -> Val:
        q, r = a.sdiv(b), a.srem(b)
        return q - self.k.cast(r.ne(0) & (r ^ b).compare("lt", 0), "i64", signed=False)

    # --- addresses

    def pointer(self, kind: str, index: int = 0) -> Val:
        """The address of an operand's or a result's element 0, or of the workspace."""
        return self._pointers[kind, index]

    def index_type(self, *tensors: TensorArg) -> str:
        """i32 where offsets into all of `tensors` are known to fit, else i64."""
        return "i32" if all((span(t) or NARROW) < NARROW for t in tensors) else "i64"

    def offset(self, t: TensorArg, position: Sequence[Operand], domain: Sequence[Dim] | None = None) -> Val:
        """Distance in elements of the element at `position`, right-aligned with t's axes; size-1 axes against others repeat."""
        k = self.k
        wide = self.index_type(t)
        total = k.const(0, wide)
        skip = len(position) - t.rank
        for axis in range(t.rank):
            d, stride, at = t.shape[axis], t.strides[axis], position[skip + axis]
            if d == 1 or stride == 0:
                continue
            at = k.cast(at, wide) if isinstance(at, Val) else k.const(at, wide)
            if domain is not None and not isinstance(d, int) and domain[skip + axis] != d:
                at = k.select(self.size(d, wide).eq(1), 0, at)
            total = total + at * (stride if isinstance(stride, int) else self.size(stride, wide))
        return total

    def address(self, kind: str, index: int, position: Sequence[Operand], domain: Sequence[Dim] | None = None) -> Val:
        """The address of an operand's or result's element; its type must have whole bytes."""
        t = (self.d.operands if kind == "operand" else self.d.results)[index]
        return self.pointer(kind, index).at(self.offset(t, position, domain), memory_type(t.dtype))

    # --- elements

    def load_raw(self, p: Val, dtype: str, lanes: int, align: int) -> Val:
        """`lanes` elements (a scalar for 0) at `p` as scalar regions hold them: small floats as codes, bools as i1."""
        k = self.k
        name = memory_type(dtype)
        x = k.load(p, k.vector_of(name, lanes) if lanes else name, align=align)
        return x.ne(0) if dtype == "i1" else x

    def load(self, operand: int, position: Sequence[Val], domain: Sequence[Dim], lanes: int = 0) -> Val:
        """The operand's element (or `lanes` elements along the last axis) at a position of a domain, as regions hold it."""
        k, t = self.k, self.d.operands[operand]
        if t.type.bits < 8:
            return self._load_nibbles(operand, position, domain, lanes)
        if lanes and self.lane_axes > 1:
            return self._load_across(operand, position, domain, lanes)
        last_repeats = t.rank == 0 or t.shape[-1] == 1 or t.strides[-1] == 0
        if lanes and not last_repeats:
            each = math.gcd(lanes, vector_lanes(t, self.d)) if t.strides[-1] == 1 and t.shape[-1] == domain[-1] else 1
            if each > 1:
                return self._load_run(self.address("operand", operand, position, domain), t, lanes, each)
            parts = [self.load(operand, [*position[:-1], position[-1] + i], domain) for i in range(lanes)]
            return k.vector(parts)
        return self.load_raw(self.address("operand", operand, position, domain), t.dtype, 0, t.type.bytes)

    def _load_across(self, operand: int, position: Sequence[Val], domain: Sequence[Dim], lanes: int) -> Val:
        """`load` of lanes over the last `lane_axes` axes: accesses of whole runs of memory, and a shuffle."""
        k, t = self.k, self.d.operands[operand]
        pattern = lane_pattern(t, domain, lanes, self.lane_axes, self.d)
        if pattern is not None and pattern.width == 1:
            return self.load_raw(self.address("operand", operand, position, domain), t.dtype, 0, t.type.bytes)
        each = 0 if pattern is None else math.gcd(pattern.width, min(16, pattern.align) // t.type.bytes)
        if pattern is None or pattern.width > lanes or pattern.width & (pattern.width - 1) or each * t.type.bytes < 4:
            places = lane_positions(domain, lanes, self.lane_axes)
            return k.vector([self.load(operand, self.lane_position(position, place), domain) for place in places])
        run = self.address("operand", operand, position, domain).at(pattern.first, memory_type(t.dtype))
        x = self._load_run(run, t, pattern.width, each)
        return x if pattern.lanes == tuple(range(lanes)) else k.shuffle(x, x, pattern.lanes)

    def _load_run(self, p: Val, t: TensorArg, count: int, each: int) -> Val:
        """`count` neighbouring elements by accesses of `each`, where `p` is a multiple of these; both are powers of two."""
        k, name = self.k, memory_type(t.dtype)
        parts = [self.load_raw(p.at(i, name), t.dtype, each, each * t.type.bytes) for i in range(0, count, each)]
        while len(parts) > 1:
            parts = [k.concat(a, b) for a, b in zip(parts[::2], parts[1::2], strict=True)]
        return parts[0]

    def lane_position(self, position: Sequence[Val], place: Sequence[int]) -> list[Val]:
        """The position of a lane that lies at `place` along the last axes."""
        lead = len(position) - len(place)
        return [*position[:lead], *(at + step if step else at for at, step in zip(position[lead:], place, strict=True))]

    def _load_nibbles(self, operand: int, position: Sequence[Val], domain: Sequence[Dim], lanes: int) -> Val:
        k, t = self.k, self.d.operands[operand]
        offset = self.offset(t, position, domain)
        if not lanes or t.rank == 0 or t.shape[-1] == 1 or t.strides[-1] == 0:
            byte = k.load(self.pointer("operand", operand).at(offset >> 1, "i8"), "i8")
            return (byte >> k.cast((offset & 1) << 2, "i8")) & 15
        if lanes % 2 or t.shape[-1] != domain[-1] or nibble_lanes(t, self.d) % lanes:
            return k.vector([self.load(operand, [*position[:-1], position[-1] + i], domain) for i in range(lanes)])
        word = k.load(self.pointer("operand", operand).at(offset >> 1, "i8"), f"i{4 * lanes}", align=lanes // 2)
        word = k.cast(word, "i32", signed=False)
        return k.vector([k.cast((word >> (4 * i)) & 15, "i8") for i in range(lanes)])

    def _store_nibbles(self, result: int, x: Val, position: Sequence[Val], lanes: int) -> None:
        """Codes as elements of 4 bits: whole bytes, or, one by one, the first of a byte before the second."""
        k, t = self.k, self.d.results[result]
        offset = self.offset(t, position)
        p = self.pointer("result", result).at(offset >> 1, "i8")
        if lanes:
            word = k.const(0, "i32")
            for i, code in enumerate(k.elements(x)):
                word = word | (k.cast(code, "i32", signed=False) << (4 * i))
            k.store(k.cast(word, f"i{4 * lanes}"), p, align=lanes // 2)
            return
        with k.if_else((offset & 1).eq(0)) as half:
            with half.then:
                k.store(x, p)
            with half.else_:
                k.store(k.load(p, "i8") | (x << 4), p)

    def load_at(self, operand: int, indices: Sequence[Val]) -> Val:
        """The operand's elements at computed indices: scalars, or vectors of them."""
        k, t = self.k, self.d.operands[operand]
        lanes = max((i.t.lanes for i in indices if i.t.kind == "vector"), default=0)
        domain = t.shape
        if not lanes:
            return self.load(operand, indices, domain)
        last = self._lane_indices.get(id(indices[-1]))
        if last is not None and t.strides[-1] == 1 and not any(i.t.kind == "vector" for i in indices[:-1]):
            # The position along an axis of the domain: neighbours lie side by side.
            _, first, steps = last
            width = steps[-1] + 1
            each = math.gcd(width, vector_lanes(t, self.d))
            if self.whole_vectors and each * t.type.bits >= 32:
                run = self._load_run(self.address("operand", operand, [*indices[:-1], first], domain), t, width, each)
                return run if width == lanes else k.shuffle(run, run, steps)
        return k.vector([
            self.load(operand, [k.extract(i, lane) if i.t.kind == "vector" else i for i in indices], domain)
            for lane in range(lanes)
        ])  # fmt: skip

    def store(self, result: int, x: Val, position: Sequence[Val], lanes: int = 0) -> None:
        """Store a region's result (of the result's storage type) at a position of its own axes."""
        k, t = self.k, self.d.results[result]
        if t.type.bits < 8:
            if lanes and (lanes % 2 or (t.rank > 1 and nibble_lanes(t, self.d) % lanes)):
                raise NotImplementedError(f"results of {t.dtype} whose rows are no whole bytes")
            self._store_nibbles(result, x, position, lanes)
            return
        if t.dtype == "i1":
            x = k.cast(x, "i8", signed=False)
        rows = merged_rows(t, self.lane_axes)
        if lanes and not (rows.strides[-1] == 1 and vector_lanes(rows, self.d) % lanes == 0):
            for i, place in enumerate(lane_positions(t.shape, lanes, self.lane_axes)):
                p = self.address("result", result, self.lane_position(position, place))
                k.store(k.extract(x, i), p, align=t.type.bytes)
            return
        k.store(x, self.address("result", result, position), align=t.type.bytes * max(1, lanes))

    # --- regions

    def region(
        self, region: ScalarRegion, args: Sequence[Val], position: Sequence[Val], domain: Sequence[Dim], lanes: int = 0
    ) -> list[Val]:
        """A region's results at `position` of its iteration domain."""
        k = self.k
        lead = len(domain) - self.lane_axes

        def index(axis: int) -> Val:
            at = k.cast(position[axis], "i64")
            if lanes and axis >= lead:
                steps = [place[axis - lead] for place in lane_positions(domain, lanes, self.lane_axes)]
                value = k.broadcast(at, lanes) + k.vector_constant(steps, k.vector_of("i64", lanes))
                if steps == sorted(steps) and steps[-1] & (steps[-1] + 1) == 0:
                    self._lane_indices[id(value)] = value, at, steps
                return value
            return at

        return emit_region(
            k, region, args,
            load=lambda operand: self.load(operand, position, domain, lanes),
            load_at=self.load_at,
            index=index,
            dim=lambda text: self.size(dims.parse(text)),
            lanes=lanes,
        )  # fmt: skip

    def split(self, linear: Val, shape: Sequence[Dim], whole: int = 0) -> list[Val]:
        """The position along `shape`'s axes of a row-major index, which begins the last `whole` axes."""
        k, out = self.k, []
        for number, d in enumerate(reversed(tuple(shape)[1:])):
            if number < whole:
                assert isinstance(d, int), d
                out.append(k.const(0, linear.t))
                linear = linear // d
                continue
            if d == 1:
                out.append(k.const(0, linear.t))
                continue
            size = self.size(d, linear.t.name)
            q = linear // size
            out.append(linear - q * size)
            linear = q
        if shape:
            out.append(linear)
        return out[::-1]

    # --- threads

    @cached_property
    def threads(self) -> int:
        """Threads of a block."""
        return math.prod(self.launch.block)


def memory_type(dtype: str) -> str:
    """The Kernel IR type that memory of a storage type is accessed as: bytes for bools and small floats."""
    return "i8" if dtype == "i1" or dtype.startswith("f8") or dtype in ("i4", "f4E2M1FN") else dtype


@contextmanager
def dispatch_kernel(
    module: KernelModule, dispatch: Dispatch, launch: KernelLaunch, *, min_blocks: int = 0, exact_threads: bool = False,
    prologue: bool = False,
) -> Iterator[DispatchKernel]:
    """Open the kernel that `launch` describes and give its `DispatchKernel`.

    Args:
        module: gets the kernel.
        dispatch: what it does.
        launch: its parameters, threads and cluster.
        min_blocks: blocks that must fit on an SM at once.
        exact_threads: launches have exactly these threads (kernels with roles by warpgroup, which use wgmma). In such kernels
            divisions are approximate (2 ulp): exact ones are calls, and with a call in sight ptxas serializes wgmma (C7509).
        prologue: the kernel has work that may be done before the launches before it have ended, and calls `begin` after it.
    """
    params = []
    for buffer in launch.buffers:
        if isinstance(buffer, TensorMapArg):
            params.append(Param(f"map_{buffer.kind}{buffer.index}", "tensormap"))
        else:
            tensors = {"operand": dispatch.operands, "result": dispatch.results}.get(buffer.kind)
            align = first_alignment(tensors[buffer.index], dispatch) if tensors else 16
            params.append(Param(f"{buffer.kind}{buffer.index}", "ptr<1>", align=align))
    sized = bool(dispatch.symbols)
    if sized:
        params.append(Param("sizes", "ptr<1>", align=8))
    with module.kernel(
        launch.symbol, params, threads=launch.block, cluster=launch.cluster, min_blocks=min_blocks, exact_threads=exact_threads
    ) as k:
        if exact_threads:
            k.contract = {"fastmath": k.attr("#arith.fastmath<contract,afn>")}
        dk = DispatchKernel(k, dispatch, launch, sized)
        if not prologue:
            dk.begin()
        yield dk
        assert dk.begun, f"{launch.symbol} never waits for the launches before it"


class _Typical(dict):
    def __missing__(self, name: str) -> int:
        return TYPICAL_SIZE


def constant(d: Dim) -> int:
    """A value of a dimension for cost models."""
    return d if isinstance(d, int) else dims.evaluate(d, _Typical())


def takes_little(launch: KernelLaunch) -> bool:
    """True for what a large GPU does in a few microseconds. (On an H200, models of larger kernels lose 2 % by early starts.)"""
    return constant(launch.flops) <= 250_000_000 and constant(launch.bytes) <= 1 << 20


def region_operands(regions: Sequence[ScalarRegion]) -> list[int]:
    """Numbers of the operands that regions load, in order of first use."""
    found: dict[int, None] = {}
    for region in regions:
        for inst in region.insts:
            if inst.op in ("load", "load_at"):
                found[inst.attr("operand")] = None
    return list(found)


def region_buffers(dispatch: Dispatch, *, skip: Sequence[int] = ()) -> tuple[BufferArg, ...]:
    """The buffers of the operands that regions load (without `skip`) and of all results, once each."""
    loaded = (BufferArg("operand", i) for i in region_operands(dispatch.regions) if i not in skip)
    return (*loaded, *(BufferArg("result", i) for i in range(len(dispatch.results))))


def symbol_of(dispatch: Dispatch, suffix: str = "") -> str:
    """The name of a kernel of the dispatch: unique to it, and a symbol."""
    return f"{dispatch.root}_{dispatch.key[:12]}{suffix}"
