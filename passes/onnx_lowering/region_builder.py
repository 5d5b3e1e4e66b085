"""Writes scalar regions: arithmetic in computing types, loads and stores in storage types."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ingot import dims
from ingot.dialects.mlir import ir
from ingot.dialects.scalar_table import TABLE
from ingot.dims import Dim, Expr
from ingot.dispatch import Attr, ScalarInst, ScalarRegion
from ingot.dtypes import DTYPES, OnnxType
from ingot.passes.onnx_inference.rules import Unsupported
from ingot.passes.onnx_lowering.values import Known, Source, TypedValue


def computing_type(storage: str) -> str:
    """The type in which values of a storage type are computed: f32 for narrower floats, else itself."""
    row = DTYPES[storage]
    return "f32" if row.kind == "float" and row.bits < 32 else storage


@dataclass(frozen=True, slots=True)
class Scalar:
    """A value of a region: its number, its type, and whether an integer is unsigned."""

    number: int
    type: str
    unsigned: bool = False

    @property
    def is_float(self) -> bool:
        return self.type[0] in "fb"


# What is half a step above the largest finite number of a type, whether that itself overflows (a tie goes to even), and what
# overflow becomes where a cast does not saturate (ONNX's Cast, table of "Float 8 types").
_OVERFLOWS = {
    "f8E4M3FN": (464.0, False, float("nan")),
    "f8E5M2": (61440.0, True, float("inf")),
    "f8E4M3FNUZ": (248.0, True, float("nan")),
    "f8E5M2FNUZ": (61440.0, True, float("nan")),
}
# What is added to the bits of an f32 whose exponent is wanted (ONNX's Cast, `round_mode`).
_ROUNDED_UP = {"up": 0x7FFFFF, "nearest": 0x400000, "down": 0}


class RegionBuilder:
    """Builds one scalar region.

    Every row of the scalar table that is no cast is a method: `b.addf(x, y)`.

    Args:
        args: types of the region's arguments.
        tensors: values that the root and its regions read; loads append to it.
        materialize: makes a tensor of known elements.
    """

    def __init__(self, args: Sequence[str], tensors: list[ir.Value], materialize: Callable[[Known], TypedValue]) -> None:
        self.args = tuple(args)
        self._tensors = tensors
        self._materialize = materialize
        self._insts: list[ScalarInst] = []
        self._numbers: dict[str, int] = {}

    def finish(self, *results: Scalar) -> ScalarRegion:
        """The region that yields `results`."""
        return ScalarRegion(self.args, tuple(self._insts), tuple(r.number for r in results))

    def arg(self, i: int = 0, unsigned: bool = False) -> Scalar:
        """Argument `i` in its computing type."""
        return self._widened(Scalar(i, self.args[i], unsigned))

    def emit(self, op: str, args: Sequence[Scalar], type: str, *attrs: tuple[str, Attr], unsigned: bool = False) -> Scalar:
        """Append an instruction, or find the equal one."""
        inst = ScalarInst(op, tuple(a.number for a in args), type, attrs)
        # The text tells 0.0 from -0.0 and True from 1, which compare as equal.
        number = self._numbers.setdefault(repr(inst), len(self.args) + len(self._insts))
        if number == len(self.args) + len(self._insts):
            self._insts.append(inst)
        return Scalar(number, type, unsigned)

    def __getattr__(self, name: str) -> Callable[..., Scalar]:
        row = TABLE.get(name)
        if row is None or row.result == "cast":
            raise AttributeError(name)
        return functools.partial(self._apply, name, row.result)

    def _apply(self, name: str, result: str, *args: Scalar) -> Scalar:
        last = args[-1]
        for kind, x in zip(TABLE[name].params, args, strict=True):
            if (kind == "f" and not x.is_float) or (kind == "i" and x.is_float):
                raise Unsupported(f"element type {x.type} is not supported", "insert a Cast")
        return self.emit(name, args, "i1" if result == "i1" else last.type, unsigned=result != "i1" and last.unsigned)

    # Leaves

    def const(self, value: Any, type: str, unsigned: bool = False) -> Scalar:
        """A constant of a computing type; integers are wrapped to their width."""
        if DTYPES[type].kind == "int":
            bits = DTYPES[type].bits
            value = (int(value) + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))
        elif type == "i1":
            value = bool(value)
        else:
            value = float(value)
        return self.emit("const", (), type, ("value", value), unsigned=unsigned)

    def like(self, value: Any, x: Scalar) -> Scalar:
        """A constant of another scalar's type."""
        return self.const(value, x.type, x.unsigned)

    def dim(self, d: Dim) -> Scalar:
        """A shape expression, i64."""
        return self.const(d, "i64") if isinstance(d, int) else self.emit("dim", (), "i64", ("dim", str(d)))

    def index(self, axis: int) -> Scalar:
        """The position along an axis of the domain, i64."""
        return self.emit("index", (), "i64", ("axis", axis))

    def load(self, x: Source) -> Scalar:
        """The element at the current index, in its computing type; known equal elements become constants."""
        if isinstance(x, Known) and x.scalar is not None:
            return self.known(x.scalar, x.type)
        return self._widened(self.load_stored(x))

    def load_stored(self, x: Source) -> Scalar:
        """The element at the current index, in its storage type."""
        if isinstance(x, Known):
            x = self._materialize(x)
        operand = ("operand", self._operand(x.value))
        return self.emit("load", (), x.type.storage, operand, unsigned=not x.type.signed)

    def load_at(self, x: Source, indices: Sequence[Scalar]) -> Scalar:
        """The element at i64 `indices`, one an axis, all in range, in its computing type."""
        if isinstance(x, Known):
            if x.scalar is not None:
                return self.known(x.scalar, x.type)
            x = self._materialize(x)
        operand = ("operand", self._operand(x.value))
        return self._widened(self.emit("load_at", indices, x.type.storage, operand, unsigned=not x.type.signed))

    def known(self, element: Any, type: OnnxType) -> Scalar:
        """A known element of a tensor of `type`, in its computing type."""
        compute = computing_type(type.storage)
        if not isinstance(element, Expr):
            return self.const(element, compute, not type.signed)
        d = self.dim(element)
        if compute[0] in "fb":
            return self.emit("sitofp", (d,), compute)
        return self.narrowed(d, Scalar(-1, compute, not type.signed))

    def _operand(self, value: ir.Value) -> int:
        for i, tensor in enumerate(self._tensors):
            if tensor == value:
                return i
        self._tensors.append(value)
        return len(self._tensors) - 1

    def _widened(self, x: Scalar) -> Scalar:
        compute = computing_type(x.type)
        return x if compute == x.type else self.emit("extf", (x,), compute)

    # Conversions

    def store(self, x: Scalar, type: OnnxType) -> Scalar:
        """A value of `type`'s computing type, rounded to its storage type."""
        assert x.type == computing_type(type.storage), (x, type)
        return x if x.type == type.storage else self.emit("truncf", (x,), type.storage)

    def to_float(self, x: Scalar, compute: str = "f32") -> Scalar:
        """An integer, i1 or float as a float of a computing type."""
        if x.is_float:
            if x.type == compute:
                return x
            return self.emit("extf" if DTYPES[compute].bits > DTYPES[x.type].bits else "truncf", (x,), compute)
        return self.emit("uitofp" if x.unsigned or x.type == "i1" else "sitofp", (x,), compute)

    def to_index(self, x: Scalar) -> Scalar:
        """An integer as i64."""
        return x if x.type == "i64" else self.emit("extui" if x.unsigned else "extsi", (x,), "i64")

    def narrowed(self, x: Scalar, like: Scalar) -> Scalar:
        """An i64 as an integer of another scalar's type."""
        return x if like.type == "i64" else self.emit("trunci", (x,), like.type, unsigned=like.unsigned)

    def cast(self, x: Scalar, to: OnnxType, *, saturate: bool = True, round_mode: str = "up") -> Scalar:
        """A value of a computing type as a value of `to`'s storage type, as ONNX's Cast says; `round_mode` is that of E8M0."""
        storage, unsigned = to.storage, not to.signed
        if storage == "f8E8M0FNU":
            return self._exponent(self.to_float(x), round_mode, saturate=saturate)
        if storage == "i1":
            zero = self.like(0, x)
            return self.cmpf_une(x, zero) if x.is_float else x if x.type == "i1" else self.cmpi_ne(x, zero)
        if DTYPES[storage].kind == "float":
            y = self.to_float(x, "f64" if storage == "f64" or x.type == "f64" else "f32")
            if y.type == storage:
                return y
            if storage == "f4E2M1FN":  # which has no NaN: ONNX's tests want the code of -0, as ml_dtypes gives it
                y = self.select(self.cmpf_uno(y, y), self.like(-0.0, y), y)
            narrow = self.emit("truncf", (y,), storage)
            return narrow if saturate or storage not in _OVERFLOWS else self._unsaturated(y, narrow)
        if to.narrow:
            return self._lowest_bits(x, to)
        if x.is_float:
            return self.emit("fptoui" if unsigned else "fptosi", (x,), storage, unsigned=unsigned)
        have, want = DTYPES[x.type].bits if x.type != "i1" else 1, DTYPES[storage].bits
        if have == want:
            return Scalar(x.number, x.type, unsigned)
        op = "trunci" if have > want else "extui" if x.unsigned or x.type == "i1" else "extsi"
        return self.emit(op, (x,), storage, unsigned=unsigned)

    def _exponent(self, x: Scalar, round_mode: str, *, saturate: bool) -> Scalar:
        """The power of two next to the magnitude of an f32, as the f32's exponent field; NaN for infinities, too."""
        magnitude = self.andi(self.emit("bitcast", (x,), "i32"), self.const(0x7FFFFFFF, "i32"))
        code = self.shrui(self.addi(magnitude, self.const(_ROUNDED_UP[round_mode], "i32")), self.const(23, "i32"))
        if saturate:
            code = self.minsi(code, self.const(254, "i32"))
        if round_mode == "nearest":  # 2^-127, a subnormal f32, is the only tie that is not rounded up
            code = self.select(self.cmpi_eq(magnitude, self.const(0x400000, "i32")), self.const(0, "i32"), code)
        special = self.cmpi_sge(magnitude, self.const(0x7F800000, "i32"))
        code = self.select(special, self.const(255, "i32"), code)
        return self.emit("bitcast", (self.emit("trunci", (code,), "i8"),), "f8E8M0FNU")

    def _lowest_bits(self, x: Scalar, to: OnnxType) -> Scalar:
        """A value as an element of a type that is narrower than its storage type."""
        assert to.narrow is not None
        if x.is_float:
            x = self.emit("fptosi", (x,), "i8")
        elif x.type == "i1" or DTYPES[x.type].bits < 8:
            x = self.emit("extui" if x.unsigned or x.type == "i1" else "extsi", (x,), "i8")
        unused = self.const(DTYPES[x.type].bits - to.narrow, x.type)
        x = self.shli(x, unused)
        x = self.shrsi(x, unused) if to.signed else self.shrui(x, unused)
        return self.emit("trunci", (x,), to.storage, unsigned=not to.signed)

    def _unsaturated(self, x: Scalar, narrow: Scalar) -> Scalar:
        """`x` as an 8-bit float that overflows; `narrow` is the one that saturates."""
        limit, included, beyond = _OVERFLOWS[narrow.type]
        overflow = self.const(beyond, narrow.type)
        if beyond == float("inf"):
            overflow = self.select(self.cmpf_olt(x, self.like(0, x)), self.const(-beyond, narrow.type), overflow)
        above = self.cmpf_ole if included else self.cmpf_olt
        return self.select(above(self.like(limit, x), self.absf(x)), overflow, narrow)

    # Index arithmetic

    def wrapped_index(self, i: Scalar, size: Dim) -> Scalar:
        """An index that counts from the end where it is negative, kept in range."""
        i = self.to_index(i)
        n = self.dim(size)
        wrapped = self.select(self.cmpi_slt(i, self.const(0, "i64")), self.addi(i, n), i)
        return self.clamped_index(wrapped, size)

    def clamped_index(self, i: Scalar, size: Dim) -> Scalar:
        """An index moved to the nearest in [0, size)."""
        last = self.dim(size - 1)
        return self.maxsi(self.minsi(i, last), self.const(0, "i64"))

    def product(self, sizes: Sequence[Dim]) -> Scalar:
        """The product of sizes, i64."""
        return self.dim(dims.product(sizes))
