"""Scalar regions on CPU vectors: a region at one position of its iteration domain, for one element or for a vector of them.

A `Position` is an index per axis; along its `lane_axis` it stands for `lanes` neighbouring elements, of which `mask` may
switch off the last ones. Values stay scalars while they are the same in all lanes, and i64 values that step evenly from lane
to lane stay a base and a step, so that `load_at` sees which computed addresses are contiguous.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ingot import dims
from ingot.compiler.codegen.cpu_kernel import CpuKernel
from ingot.compiler.codegen.cpu_nibbles import begin_bytes, load_nibbles, shares_bytes, store_nibbles
from ingot.compiler.codegen.scalar_lowering import ScalarEmitter
from ingot.compiler.codegen.values import Val
from ingot.dialects.scalar_table import TABLE
from ingot.dims import Dim
from ingot.dispatch import ScalarInst, ScalarRegion, TensorArg


@dataclass(frozen=True)
class Position:
    """Where in its domain a region is evaluated.

    Attributes:
        index: i64 position along each axis; along `lane_axis` that of the first lane.
        lane_axis: the axis along which lanes lie, or -1 for a single element.
        lanes: elements; 0 for a scalar.
        mask: vector of i1: which lanes exist; None for all.
        inner: size of `lane_axis` where lanes run over it and the axis before it, along which a vector begins at any place; 1
            where they run along `lane_axis` alone. It divides `lanes`.
    """

    index: tuple[Val, ...]
    lane_axis: int = -1
    lanes: int = 0
    mask: Val | None = None
    inner: int = 1

    def offsets(self, strides: Sequence[Dim]) -> list[Dim]:
        """Distances of the lanes of a position with `inner` from its own place, where a tensor has these strides."""
        outer, inner = strides[self.lane_axis - 1], strides[self.lane_axis]
        return [lane // self.inner * outer + lane % self.inner * inner for lane in range(self.lanes)]


@dataclass(frozen=True)
class _Stepped:
    """The vector `base`, `base + step`, `base + 2*step`, ... of i64."""

    base: Val
    step: Val


def domain_strides(tensor: TensorArg, rank: int) -> tuple[Dim, ...]:
    """The strides of a tensor that is right-aligned with a domain of `rank` axes; 0 along axes that it repeats."""
    own = tuple(0 if d == 1 else s for d, s in zip(tensor.shape, tensor.strides, strict=True))
    return (0,) * (rank - len(own)) + own


def storage_type(dtype: str) -> str:
    """The Kernel IR type of an element in memory, or of the code that stands for one that shares its byte."""
    return "i8" if dtype == "i1" or dtype.startswith("f8") or shares_bytes(dtype) else dtype


def load_elements(
    ck: CpuKernel, base: Val, index: Sequence[Val], strides: Sequence[Dim], dtype: str, at: Position
) -> Val:
    """`load_lanes` of the tensor at `base` at a position, whose lane axis is its strides'."""
    place = ck.offset(index, strides)
    if at.lanes and at.inner > 1 and not shares_bytes(dtype):
        return _load_across(ck, base, place, at.offsets(strides), dtype, at)
    step = ck.dim(strides[at.lane_axis]) if at.lanes else ck.k.const(0, "i64")
    if shares_bytes(dtype):
        return load_nibbles(ck, base, place, step, at, begins=begin_bytes(strides, at.lane_axis, ck.dispatch))
    return load_lanes(ck, base.at(place, storage_type(dtype)), dtype, step, at)


def _load_across(ck: CpuKernel, base: Val, place: Val, offsets: list[Dim], dtype: str, at: Position) -> Val:
    """Elements at `offsets` from a place, one a lane: a run of memory and a shuffle within it where that is what they are."""
    k, storage = ck.k, storage_type(dtype)
    known = [d for d in offsets if isinstance(d, int)]
    if len(known) == len(offsets):
        first = min(known)
        order = [d - first for d in known]
        if not any(order):
            return load_lanes(ck, base.at(place, storage), dtype, k.const(0, "i64"), at)
        # Lanes that a mask switches off are whole groups of `inner`.
        if sorted(order) == list(range(at.lanes)) and all(a // at.inner == i // at.inner for i, a in enumerate(order)):
            run = load_lanes(ck, base.at(place + first, storage), dtype, k.const(1, "i64"), at)
            return run if order == sorted(order) else k.shuffle(run, run, order)
    value = _gather(ck, base.at(place, storage), _offset_vector(ck, offsets), storage, at.mask)
    return value.ne(0) if dtype == "i1" else value


def _offset_vector(ck: CpuKernel, offsets: list[Dim]) -> Val:
    if all(isinstance(d, int) for d in offsets):
        return ck.k.vector_constant([d for d in offsets if isinstance(d, int)], f"vector<{len(offsets)}xi64>")
    return ck.k.vector([ck.dim(d) for d in offsets])


def store_elements(
    ck: CpuKernel, x: Val, base: Val, index: Sequence[Val], strides: Sequence[Dim], dtype: str, at: Position,
    start: Val | None = None,
) -> None:  # fmt: skip
    """`store_lanes` to the tensor at `base` at a position, `start` elements further."""
    place = ck.offset(index, strides) if start is None else ck.offset(index, strides) + start
    if at.lanes and at.inner > 1 and at.offsets(strides) != list(range(at.lanes)):
        raise NotImplementedError(f"results of strides {strides} whose lanes run over two axes")
    if at.lanes and at.inner > 1:
        store_lanes(ck, x, base.at(place, storage_type(dtype)), dtype, ck.k.const(1, "i64"), at)
        return
    step = ck.dim(strides[at.lane_axis]) if at.lanes else ck.k.const(0, "i64")
    if shares_bytes(dtype):
        begins = start is None or (start.const is not None and start.const % 2 == 0)
        axis = at.lane_axis if at.lanes else -1
        store_nibbles(ck, x, base, place, step, at, begins=begins and begin_bytes(strides, axis, ck.dispatch))
    else:
        store_lanes(ck, x, base.at(place, storage_type(dtype)), dtype, step, at)


def load_lanes(ck: CpuKernel, base: Val, dtype: str, step: Val, at: Position) -> Val:
    """Elements at `base`, `step` elements apart from lane to lane, in storage form: a scalar where `step` is 0.

    Lanes that the position's mask switches off are 0 and their memory is not read. bool is i1; 8-bit floats are codes (i8).
    """
    k = ck.k
    storage = storage_type(dtype)
    if not at.lanes or step.const == 0:
        value = k.load(base, storage)
    elif step.const == 1 and at.mask is None:
        value = k.load(base, k.vector_of(storage, at.lanes))
    elif step.const == 1 and at.mask is not None:
        # As integers: where LLVM has to split a masked load, it converts bf16 element by element, through library calls.
        bits = k.type(storage).bits
        value = k.masked_load(base, k.vector_of(f"i{bits}" if bits == 16 else storage, at.lanes), at.mask)
        value = k.bitcast(value, k.vector_of(storage, at.lanes))
    else:
        offsets = k.iota(f"vector<{at.lanes}xi64>") * step
        value = _gather(ck, base, offsets, storage, at.mask)
    return value.ne(0) if dtype == "i1" else value


def _gather(ck: CpuKernel, base: Val, offsets: Val, storage: str, mask: Val | None) -> Val:
    """Elements at a vector of element offsets from `base`."""
    k = ck.k
    if k.type(storage).bits >= 32 and ck.target.vector_bits >= 256:
        return k.gather(base.at(offsets, storage), storage, mask)
    # No instruction gathers narrow elements: load them one by one, masked ones from the address of lane 0, which exists.
    if mask is not None:
        offsets = k.select(mask, offsets, k.broadcast(k.extract(offsets, 0), offsets.t.lanes))
    bits = f"i{k.type(storage).bits}"
    elements = [k.load(base.at(k.extract(offsets, i), bits), bits) for i in range(offsets.t.lanes)]
    value = k.vector(elements)
    if mask is not None:
        value = k.select(mask, value, 0)
    return k.bitcast(value, k.vector_of(storage, offsets.t.lanes))


def store_lanes(ck: CpuKernel, x: Val, base: Val, dtype: str, step: Val, at: Position) -> None:
    """Store a value of a region (scalar or vector) as elements of `dtype`, `step` elements apart from lane to lane."""
    k = ck.k
    if dtype == "i1":
        x = k.cast(x, "i8", signed=False)
    if not at.lanes:
        k.store(x, base)
        return
    if x.t.kind != "vector":
        x = k.broadcast(x, at.lanes)
    if x.t.element.bits == 16:
        x = k.bitcast(x, k.vector_of("i16", at.lanes))
    if step.const == 1:
        if at.mask is None:
            k.store(x, base)
        else:
            k.masked_store(x, base, at.mask)
        return
    offsets = k.iota(f"vector<{at.lanes}xi64>") * step
    k.scatter(x, base.at(offsets, x.t.element), at.mask)


class RegionEmitter:
    """Evaluates one region of a kernel at positions of a domain.

    Attributes:
        ck, region: the kernel and the program.
        strides: for each operand that the region loads, its strides over the domain's axes.
        axes: the domain's axis for each axis that `index` names; the identity by default.
    """

    def __init__(
        self,
        ck: CpuKernel,
        region: ScalarRegion,
        rank: int,
        strides: dict[int, tuple[Dim, ...]] | None = None,
        axes: dict[int, int] | None = None,
    ) -> None:
        self.ck, self.region = ck, region
        self.axes = axes if axes is not None else {i: i for i in range(rank)}
        if strides is None:
            strides = {n: domain_strides(ck.dispatch.operands[n], rank) for n in loaded_operands(region)}
        self.strides = strides

    def __call__(self, args: Sequence[Val], at: Position) -> list[Val]:
        """The region's results: scalars where they are the same in all lanes."""
        values: list[Val | _Stepped] = list(args)
        loaded: dict[int, Val] = {}
        for inst in self.region.insts:
            if inst.op == "load" and inst.attr("operand") in loaded:
                value: Val | _Stepped = loaded[inst.attr("operand")]
            else:
                value = self._inst(inst, [values[i] for i in inst.args], at)
                if inst.op == "load" and isinstance(value, Val):
                    loaded[inst.attr("operand")] = value
            values.append(value)
        return [self._plain(values[i], at) for i in self.region.results]

    def _inst(self, inst: ScalarInst, args: list[Val | _Stepped], at: Position) -> Val | _Stepped:
        ck, k = self.ck, self.ck.k
        match inst.op:
            case "load":
                return self._load(inst.attr("operand"), at)
            case "load_at":
                return self._load_at(inst.attr("operand"), args, at)
            case "index":
                axis = self.axes.get(inst.attr("axis"))
                if axis is None:
                    return k.const(0, "i64")
                if at.lanes and at.inner > 1 and at.lane_axis - axis in (0, 1):
                    strides = [int(i == axis) for i in range(len(at.index))]
                    return k.broadcast(at.index[axis], at.lanes) + _offset_vector(ck, at.offsets(strides))
                stepped = at.lanes and axis == at.lane_axis
                return _Stepped(at.index[axis], k.const(1, "i64")) if stepped else at.index[axis]
            case "dim":
                return ck.dim(dims.parse(inst.attr("dim")))
            case "const":
                return ScalarEmitter(k).const(inst.attr("value"), inst.type)
        stepped_result = self._stepped(inst, args)
        if stepped_result is not None:
            return stepped_result
        source = self._type_of_first(inst)
        plain = [self._plain(a, at) for a in args]
        return ScalarEmitter(k).apply(TABLE[inst.op], plain, inst.type, source)

    def _type_of_first(self, inst: ScalarInst) -> str:
        return self.region.type_of(inst.args[0]) if inst.args else ""

    def _stepped(self, inst: ScalarInst, args: list[Val | _Stepped]) -> _Stepped | None:
        """Sums and uniform multiples of evenly stepping values step evenly."""
        if not any(isinstance(a, _Stepped) for a in args) or inst.op not in ("addi", "subi", "muli"):
            return None
        if any(isinstance(a, Val) and a.t.kind == "vector" for a in args):
            return None
        zero = self.ck.k.const(0, "i64")
        x, y = (a if isinstance(a, _Stepped) else _Stepped(a, zero) for a in args)
        if inst.op == "addi":
            return _Stepped(x.base + y.base, x.step + y.step)
        if inst.op == "subi":
            return _Stepped(x.base - y.base, x.step - y.step)
        if isinstance(args[0], Val):
            x, y = y, x
        elif isinstance(args[1], _Stepped):
            return None
        return _Stepped(x.base * y.base, x.step * y.base)

    def _plain(self, value: Val | _Stepped, at: Position) -> Val:
        if isinstance(value, Val):
            return value
        k = self.ck.k
        if value.step.const == 0:
            return value.base
        return k.iota(f"vector<{at.lanes}xi64>") * value.step + k.broadcast(value.base, at.lanes)

    def _load(self, operand: int, at: Position) -> Val:
        ck = self.ck
        dtype = ck.dispatch.operands[operand].dtype
        return load_elements(ck, ck.operand(operand), at.index, self.strides[operand], dtype, at)

    def _load_at(self, operand: int, index: Sequence[Val | _Stepped], at: Position) -> Val:
        ck, k = self.ck, self.ck.k
        tensor = ck.dispatch.operands[operand]
        base = ck.operand(operand)
        uniform, step = k.const(0, "i64"), k.const(0, "i64")
        vector: Val | None = None
        for i, stride, size in zip(index, tensor.strides, tensor.shape, strict=True):
            if stride == 0 or size == 1:
                continue
            distance = ck.dim(stride)
            if isinstance(i, _Stepped):
                uniform, step = uniform + i.base * distance, step + i.step * distance
            elif i.t.kind == "vector":
                vector = i * distance if vector is None else vector + i * distance
            else:
                uniform = uniform + i * distance
        storage = storage_type(tensor.dtype)
        if shares_bytes(tensor.dtype):
            if vector is not None:
                vector = vector + k.iota(vector.t) * step if step.const != 0 else vector
                if at.mask is not None:
                    vector = k.select(at.mask, vector, k.broadcast(k.extract(vector, 0), at.lanes))
                one = Position(())
                zero = k.const(0, "i64")
                places = [uniform + k.extract(vector, i) for i in range(at.lanes)]
                return k.vector([load_nibbles(ck, base, p, zero, one, begins=False) for p in places])
            return load_nibbles(ck, base, uniform, step, at, begins=False)
        base = base.at(uniform, storage)
        if vector is None:
            return load_lanes(ck, base, tensor.dtype, step, at)
        if step.const != 0:
            vector = vector + k.iota(vector.t) * step
        value = _gather(ck, base, vector, storage, at.mask)
        return value.ne(0) if tensor.dtype == "i1" else value


def loaded_operands(region: ScalarRegion) -> list[int]:
    """Numbers of the operands that a region reads with `load`, each once."""
    return list(dict.fromkeys(i.attr("operand") for i in region.insts if i.op == "load"))


def indexed_axes(region: ScalarRegion) -> set[int]:
    """Axes of the domain that a region names with `index`."""
    return {i.attr("axis") for i in region.insts if i.op == "index"}
