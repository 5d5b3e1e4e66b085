"""Writes views, roots and sources of the `ingot` dialect; views that change nothing are not written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ingot import dims
from ingot.dialects import ingot as dialect
from ingot.dialects.mlir import ir
from ingot.dialects.plain import create_root
from ingot.dims import Dim
from ingot.dispatch import ScalarRegion
from ingot.dtypes import ONNX_TYPE_BY_NAME, OnnxType, onnx_numpy
from ingot.errors import CompileError
from ingot.passes.onnx_inference.rules import Unsupported
from ingot.passes.onnx_lowering.region_builder import RegionBuilder, Scalar, computing_type
from ingot.passes.onnx_lowering.values import Known, Source, TypedValue

INT64 = ONNX_TYPE_BY_NAME["int64"]
BOOL = ONNX_TYPE_BY_NAME["bool"]
FLOAT = ONNX_TYPE_BY_NAME["float"]

Body = Callable[[RegionBuilder], Scalar]


class GraphBuilder:
    """Appends operations to a block.

    Args:
        block: the function's body.
        weights: a weight store (`add_array(name, array, made=True) -> name`), or None where there is none.
    """

    def __init__(self, block: ir.Block, weights: Any) -> None:
        self.location = ir.Location.unknown()
        self.node = ""
        self.created: list[ir.Operation] = []
        self._ip = ir.InsertionPoint(block)
        self._weights = weights
        self._types: dict[tuple[str, tuple[Dim, ...]], ir.Type] = {}
        self._materialized: dict[Known, TypedValue] = {}
        self._stored: dict[Known, TypedValue] = {}

    # Plumbing

    def type(self, storage: str, shape: tuple[Dim, ...]) -> ir.Type:
        """The tensor type of a storage type and sizes."""
        found = self._types.get((storage, shape))
        if found is None:
            found = self._types[storage, shape] = dialect.tensor_type(storage, shape)
        return found

    def create(
        self,
        name: str,
        operands: Sequence[ir.Value],
        types: Sequence[ir.Type],
        attrs: dict[str, ir.Attribute] | None = None,
    ) -> ir.Operation:
        """Append an operation without regions."""
        op = ir.Operation.create(
            f"ingot.{name}", results=types, operands=operands, attributes=attrs, loc=self.location, ip=self._ip
        )
        self.created.append(op)
        return op

    def control(
        self, name: str, operands: Sequence[ir.Value], types: Sequence[ir.Type], attrs: dict[str, ir.Attribute] | None = None
    ) -> ir.Operation:
        """Append a control operation with empty regions. Raises ValueError where it has more values than slots."""
        op = dialect.create_control(name, operands, types, attrs, loc=self.location, ip=self._ip)
        self.created.append(op)
        return op

    def end(self) -> None:
        """Terminate the block, and drop operations whose results nothing reads; effects stay."""
        self.location = ir.Location.unknown()
        self.create("return", [], [])
        for op in reversed(self.created):
            if dialect.DEFS[op.name].kind in ("effect", "structure"):
                continue
            if all(next(iter(r.uses), None) is None for r in op.results):
                op.erase()

    def loop(
        self,
        symbol: str,
        trips: Dim,
        carried: Sequence[TypedValue],
        captured: Sequence[TypedValue],
        body: Callable[[GraphBuilder, Sequence[TypedValue], Sequence[TypedValue]], Sequence[TypedValue]],
    ) -> list[TypedValue]:
        """An `ingot.loop`: what `carried` has become after `trips` iterations, counted by `symbol`.

        `body` writes an iteration with a builder of its own; it gets what the iteration takes, and `captured` as it is inside:
        weights are read by name there.
        """
        data = [x for x in captured if weight_name(x.value) is None]
        values = [*carried, *data]
        attrs = {"trips": ir.StringAttr.get(str(trips)), "symbol": ir.StringAttr.get(symbol), "carried": _integer(len(carried))}
        op = self.control("loop", [x.value for x in values], [x.value.type for x in carried], attrs)
        block = op.regions[0].blocks.append(*(x.value.type for x in values), arg_locs=[self.location] * len(values))
        inner = GraphBuilder(block, self._weights)
        inner.location, inner.node = self.location, self.node
        arguments = [TypedValue(a, x.type, x.shape) for a, x in zip(block.arguments, values, strict=True)]
        rest = iter(arguments[len(carried) :])
        inside = []
        for x in captured:
            name = weight_name(x.value)
            inside.append(next(rest) if name is None else inner.weight(name, x.type, x.shape))
        for x in body(inner, arguments[: len(carried)], inside):
            inner.create("result", [x.value], [])
        inner.end()
        return [TypedValue(r, x.type, x.shape) for r, x in zip(op.results, carried, strict=True)]

    def root(
        self,
        name: str,
        operands: Sequence[ir.Value],
        type: OnnxType,
        shape: Sequence[Dim],
        attrs: dict[str, ir.Attribute],
        regions: Sequence[ScalarRegion],
        tensors: Sequence[ir.Value],
    ) -> TypedValue:
        """Append a root with one result; `tensors` are its operands, then what its regions load."""
        shape = tuple(shape)
        op = create_root(
            name, operands, [self.type(type.storage, shape)], attrs, regions, tensors, loc=self.location, ip=self._ip
        )
        self.created.append(op)
        return TypedValue(op.results[0], type, shape)

    def region(self, tensors: list[ir.Value], args: Sequence[str] = ()) -> RegionBuilder:
        """A builder of a region that reads `tensors` and more."""
        return RegionBuilder(args, tensors, self.tensor)

    # Sources

    def weight(self, name: str, type: OnnxType, shape: Sequence[Dim]) -> TypedValue:
        """The weight stored under `name`."""
        shape = tuple(shape)
        op = self.create("weight", [], [self.type(type.storage, shape)], {"name": ir.StringAttr.get(name)})
        return TypedValue(op.results[0], type, shape)

    def array(self, array: np.ndarray, type: OnnxType) -> TypedValue:
        """A constant array, added to the weight store under the node's name."""
        if self._weights is None:
            raise CompileError("a constant tensor needs a weight store", node=self.node, cure="compile from an ONNX model")
        name = self._weights.add_array(self.node or "constant", array, made=True)
        return self.weight(name, type, array.shape)

    def reinterpreted(self, x: Source, type: OnnxType, shape: Sequence[Dim]) -> TypedValue:
        """The bytes of a constant tensor as elements of another type: no copy is made of a weight.

        Raises Unsupported where x is computed at run time.
        """
        shape = tuple(shape)
        x = self.stored_constant(x)
        name = weight_name(x.value)
        if name is None:
            raise Unsupported("a tensor of packed elements is computed at run time", "make it an initializer")
        return self.weight(name, type, shape)

    def constant_array(self, x: Source) -> np.ndarray | None:
        """The elements of x where they are known at compile time (of ml_dtypes where numpy lacks the type), else None."""
        if isinstance(x, Known):
            return np.array(x.elements, object).astype(onnx_numpy(x.type)) if x.is_constant else None
        name = weight_name(x.value)
        return None if name is None or self._weights is None else self._weights.elements(name)

    def tensor(self, x: Source) -> TypedValue:
        """A tensor that holds known elements: a weight where they are constant, else computed from shapes."""
        if isinstance(x, TypedValue):
            return x
        found = self._materialized.get(x)
        if found is None:
            found = self._materialized[x] = self._materialize(x)
        return found

    def stored_constant(self, x: Source) -> TypedValue:
        """A tensor that holds known elements: a weight where they are constant, be they but one."""
        if isinstance(x, TypedValue) or not x.is_constant or self._weights is None:
            return self.tensor(x)
        found = self._stored.get(x)
        if found is None:
            array = np.array(x.elements, object).astype(onnx_numpy(x.type))
            found = self._stored[x] = self.array(array.reshape(x.shape), x.type)  # type: ignore[arg-type]
        return found

    def _materialize(self, x: Known) -> TypedValue:
        if x.scalar is not None:
            return self.pointwise(x.type, x.shape, lambda b: b.known(x.scalar, x.type))
        if x.is_constant and self._weights is not None:
            return self.stored_constant(x)

        def body(b: RegionBuilder) -> Scalar:
            at: Scalar | None = None
            for axis, stride in enumerate(dims.row_major(x.shape)):
                step = b.muli(b.index(axis), b.dim(stride))
                at = step if at is None else b.addi(at, step)
            assert at is not None
            y = b.known(x.elements[-1], x.type)
            for i in range(len(x.elements) - 2, -1, -1):
                y = b.select(b.cmpi_eq(at, b.const(i, "i64")), b.known(x.elements[i], x.type), y)
            return y

        return self.pointwise(x.type, x.shape, body)

    # Views

    def _view(
        self, name: str, x: TypedValue, shape: tuple[Dim, ...], attrs: dict[str, ir.Attribute] | None = None
    ) -> TypedValue:
        op = self.create(name, [x.value], [self.type(x.type.storage, shape)], attrs)
        return TypedValue(op.results[0], x.type, shape)

    def reshape(self, x: Source, shape: Sequence[Dim]) -> Source:
        """The same elements under another shape."""
        shape = tuple(shape)
        if isinstance(x, Known):
            return Known(x.type, shape, x.elements)
        if shape == x.shape:
            return x
        return self._view("reshape", x, shape)

    def reshaped(self, x: TypedValue, shape: Sequence[Dim]) -> TypedValue:
        """`reshape` of a tensor."""
        y = self.reshape(x, shape)
        assert isinstance(y, TypedValue)
        return y

    def transpose(self, x: Source, perm: Sequence[int]) -> TypedValue:
        """Axis i of the result is axis perm[i] of x."""
        x = self.tensor(x)
        if list(perm) == list(range(x.rank)):
            return x
        shape = tuple(x.shape[p] for p in perm)
        attrs = {"perm": ir.DenseI64ArrayAttr.get(list(perm))}
        return self._view("transpose", x, shape, attrs)

    def slice(self, x: Source, starts: Sequence[Dim], sizes: Sequence[Dim], steps: Sequence[int] | None = None) -> TypedValue:
        """result[i...] = x[starts + i * steps...]."""
        x = self.tensor(x)
        steps = list(steps) if steps is not None else [1] * x.rank
        shape = tuple(sizes)
        if shape == x.shape and all(s == 0 for s in starts) and all(s == 1 for s in steps):
            return x
        attrs = {"starts": strings(map(str, starts)), "steps": ir.DenseI64ArrayAttr.get(steps)}
        return self._view("slice", x, shape, attrs)

    def slice_axis(self, x: TypedValue, axis: int, start: Dim, size: Dim) -> TypedValue:
        """The part [start, start + size) of one axis."""
        starts = [start if i == axis else 0 for i in range(x.rank)]
        return self.slice(x, starts, [size if i == axis else d for i, d in enumerate(x.shape)])

    def expand(self, x: Source, shape: Sequence[Dim]) -> Source:
        """x, right-aligned, repeated along axes where it has size 1 or none."""
        shape = tuple(shape)
        if shape == x.shape:
            return x
        if isinstance(x, Known) and x.scalar is not None and all(isinstance(d, int) for d in shape):
            return Known(x.type, shape, (x.scalar,) * int(dims.product(shape)))  # type: ignore[arg-type]
        x = self.tensor(x)
        return self._view("expand", x, shape)

    # Roots

    def pointwise(self, type: OnnxType, shape: Sequence[Dim], body: Body) -> TypedValue:
        """A pointwise root; `body` gives a value of `type`'s computing type."""
        tensors: list[ir.Value] = []
        b = self.region(tensors)
        region = b.finish(b.store(body(b), type))
        return self.root("pointwise", [], type, shape, {}, [region], tensors)

    def stored(self, type: OnnxType, shape: Sequence[Dim], body: Body) -> TypedValue:
        """A pointwise root; `body` gives a value of `type`'s storage type."""
        tensors: list[ir.Value] = []
        b = self.region(tensors)
        return self.root("pointwise", [], type, shape, {}, [b.finish(body(b))], tensors)

    def concat(self, parts: Sequence[Source], axis: int, shape: Sequence[Dim]) -> TypedValue:
        """The parts one after the other along `axis`."""
        if len(parts) == 1:
            return self.tensor(parts[0])
        tensors = [self.tensor(p) for p in parts]
        type, shape = tensors[0].type, tuple(shape)
        into = self.empty(type, shape)
        at: Dim = 0
        for x in tensors:
            into = self.move_into(x, into, [at if i == axis else 0 for i in range(len(shape))])
            at = at + x.shape[axis]
        return into

    def empty(self, type: OnnxType, shape: Sequence[Dim]) -> TypedValue:
        """Memory to move into."""
        shape = tuple(shape)
        return TypedValue(self.create("empty", [], [self.type(type.storage, shape)]).results[0], type, shape)

    def move_into(self, x: TypedValue, into: TypedValue, offsets: Sequence[Dim]) -> TypedValue:
        """`into` with the part at `offsets` replaced by `x`."""
        attrs: dict[str, ir.Attribute] = {"offsets": strings(map(str, offsets))}
        identity = ScalarRegion((x.type.storage,), (), (0,))
        operands = [x.value, into.value]
        return self.root("move", operands, into.type, into.shape, attrs, [identity], operands)

    def reduce(
        self,
        x: TypedValue,
        kind: str,
        axes: Sequence[int],
        type: OnnxType,
        map: Callable[[RegionBuilder, Scalar], Scalar] | None = None,
        finish: Callable[[RegionBuilder, Scalar], Scalar] | None = None,
        acc: str | None = None,
    ) -> TypedValue:
        """`kind` over `axes`, which keep size 1; `map` and `finish` are over computing types, the latter giving `type`'s.

        `acc` is the type that `map` gives, x's computing type by default.
        """
        tensors = [x.value]
        unsigned = not x.type.signed
        first = self.region(tensors, [x.type.storage])
        mapped = first.arg(0, unsigned)
        if map is not None:
            mapped = map(first, mapped)
        last = self.region(tensors, [acc or mapped.type])
        done = last.arg(0, mapped.unsigned)
        if finish is not None:
            done = finish(last, done)
        regions = [first.finish(mapped), last.finish(last.store(done, type))]
        shape = tuple(1 if i in axes else d for i, d in enumerate(x.shape))
        attrs = {"axes": ir.DenseI64ArrayAttr.get(sorted(axes)), "kind": ir.StringAttr.get(kind)}
        return self.root("reduce", [x.value], type, shape, attrs, regions, tensors)

    def normalize(
        self,
        x: TypedValue,
        kind: str,
        axes: Sequence[int],
        epsilon: float = 0.0,
        epilogue: Callable[[RegionBuilder, Scalar], Scalar] | None = None,
        map: Callable[[RegionBuilder, Scalar], Scalar] | None = None,
        type: OnnxType | None = None,
    ) -> TypedValue:
        """x normalized over `axes`; `map` precedes, `epilogue` follows, both over computing types."""
        type = type or x.type
        tensors = [x.value]
        first = self.region(tensors, [x.type.storage])
        mapped = first.arg()
        if not mapped.is_float:
            raise Unsupported(f"element type {x.type.name} is not supported", "insert a Cast")
        if map is not None:
            mapped = map(first, mapped)
        last = self.region(tensors, [mapped.type])
        done = last.arg()
        if epilogue is not None:
            done = epilogue(last, done)
        regions = [first.finish(mapped), last.finish(last.store(done, type))]
        attrs = {
            "axes": ir.DenseI64ArrayAttr.get(list(axes)),
            "kind": ir.StringAttr.get(kind),
            "epsilon": ir.FloatAttr.get(ir.F64Type.get(), epsilon),
        }
        return self.root("normalize", [x.value], type, x.shape, attrs, regions, tensors)

    def scatter(
        self,
        x: TypedValue,
        updates: TypedValue,
        kind: str,
        axes: Sequence[int],
        place: Callable[[RegionBuilder], Sequence[Scalar]],
        value: Body | None = None,
    ) -> TypedValue:
        """x with elements replaced or combined: over the domain of `updates`, `value` (its element by default) at `place`.

        Only values whose positions differ along `axes` may have one place.
        """
        tensors = [x.value, updates.value]
        where, what = self.region(tensors), self.region(tensors)
        regions = [
            where.finish(*place(where)),
            what.finish(what.store(what.load(updates) if value is None else value(what), x.type)),
        ]
        attrs = {"kind": ir.StringAttr.get(kind), "axes": ir.DenseI64ArrayAttr.get(sorted(axes))}
        return self.root("scatter", tensors[:2], x.type, x.shape, attrs, regions, tensors)

    def scan(self, x: TypedValue, kind: str, axis: int, *, exclusive: bool = False, reverse: bool = False) -> TypedValue:
        """`kind` of all elements along `axis` up to each, computed in the computing type."""
        tensors = [x.value]
        first = self.region(tensors, [x.type.storage])
        mapped = first.arg(0, not x.type.signed)
        last = self.region(tensors, [mapped.type])
        regions = [first.finish(mapped), last.finish(last.store(last.arg(0, mapped.unsigned), x.type))]
        attrs: dict[str, ir.Attribute] = {"axis": _integer(axis), "kind": ir.StringAttr.get(kind)}
        attrs |= {n: ir.UnitAttr.get() for n, given in (("exclusive", exclusive), ("reverse", reverse)) if given}
        return self.root("scan", [x.value], x.type, x.shape, attrs, regions, tensors)

    def topk(self, x: TypedValue, axis: int, k: Dim, map: Callable[[RegionBuilder, Scalar], Scalar]) -> TypedValue:
        """The positions along `axis` of the k elements for which `map` is largest, in descending order."""
        tensors = [x.value]
        region = self.region(tensors, [x.type.storage])
        regions = [region.finish(map(region, region.arg(0, not x.type.signed)))]
        shape = tuple(k if i == axis else d for i, d in enumerate(x.shape))
        return self.root("topk", [x.value], INT64, shape, {"axis": _integer(axis)}, regions, tensors)

    def matmul(
        self,
        a: TypedValue,
        b: TypedValue,
        shape: Sequence[Dim],
        type: OnnxType,
        epilogue: Callable[[RegionBuilder, Scalar], Scalar] | None = None,
        acc: str | None = None,
    ) -> TypedValue:
        """a @ b over the last two axes, accumulated in the computing type or `acc`; `epilogue` gives `type`'s own."""
        acc = acc or computing_type(a.type.storage)
        tensors = [a.value, b.value]
        region = self.region(tensors, [acc])
        done = region.arg(0, not a.type.signed)
        if epilogue is not None:
            done = epilogue(region, done)
        attrs = {"acc": ir.StringAttr.get(acc)}
        return self.root("matmul", [a.value, b.value], type, shape, attrs, [region.finish(region.store(done, type))], tensors)


def _integer(value: int) -> ir.Attribute:
    return ir.IntegerAttr.get(ir.IntegerType.get_signless(64), value)


def weight_name(value: ir.Value) -> str | None:
    """The name under which a tensor is stored, or None for what is computed."""
    owner = value.owner
    is_weight = not isinstance(owner, ir.Block) and owner.operation.name == "ingot.weight"
    return owner.operation.attributes["name"].value if is_weight else None


def strings(texts: Any) -> ir.Attribute:
    """An array attribute of strings."""
    return ir.ArrayAttr.get([ir.StringAttr.get(t) for t in texts])
