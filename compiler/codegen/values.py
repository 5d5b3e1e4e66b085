"""SSA values of Kernel IR with Python operators, and their types.

`Val` wraps one MLIR value (or a constant that has not been needed as one yet) together with the builder that emits for it.
Python numbers mix freely with values and take the other side's type; a vector's other side is splatted. Integer
arithmetic folds constants and drops neutral elements, so that emitters write index expressions without caring which
parts are known: `k.const(4) * 8 + 0` emits nothing.

Signedness. Integers are signless, as in MLIR; an operator says how it reads them:

- `+ - * & | ^ << ~` do not care;
- `//`, `%` and `>>` read operands as **unsigned** (index arithmetic is never negative, and a division by a power of two is then
  one shift); `sdiv`, `srem` and `sar` are the signed ones, truncating toward zero as in C;
- `< <= > >=` compare **signed**; `ult`, `ule`, `ugt` and `uge` unsigned (`i.ult(n)` is the one-instruction test 0 <= i < n);
- `eq` and `ne` are methods, because `==` keeps Python's meaning of identity (values are dictionary keys).

Floating-point arithmetic carries `fastmath<contract>` (LLVM may form FMAs) and no other relaxation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from ingot.compiler.codegen.kernel_builder import KernelBuilder

Number: TypeAlias = "int | float | bool"
Operand: TypeAlias = "Val | int | float | bool"


@dataclass(frozen=True, eq=False)
class ValueType:
    """A type of Kernel IR; one object per type and module, so that `is` compares.

    Attributes:
        name: short spelling: `i32`, `f32`, `ptr<3>`, `vector<8xf32>`, `struct<f32, f32>`.
        mlir: the `ir.Type`.
        kind: `int`, `float`, `ptr`, `vector` or `struct`.
        bits: size of a scalar or of the whole vector; 0 for structs.
        lanes: elements of a vector, 1 for scalars.
        element: a vector's element type; for scalars the type itself.
        space: address space of a pointer.
        members: a struct's member types.
    """

    name: str
    mlir: Any
    kind: str
    bits: int = 0
    lanes: int = 1
    element: ValueType = None  # type: ignore[assignment]
    space: int = 0
    members: tuple[ValueType, ...] = ()

    def __post_init__(self) -> None:
        if self.element is None:
            object.__setattr__(self, "element", self)

    @property
    def is_float(self) -> bool:
        """True for floats and vectors of floats."""
        return self.element.kind == "float"

    @property
    def is_int(self) -> bool:
        """True for integers and vectors of integers."""
        return self.element.kind == "int"

    @property
    def nbytes(self) -> int:
        """Bytes in memory of a scalar or vector."""
        return (self.bits + 7) // 8

    def __repr__(self) -> str:
        return self.name


class Val:
    """One SSA value: `t` its type, `k` the builder, `const` its Python value where it is a known scalar or splat."""

    __slots__ = ("_v", "const", "k", "t")

    def __init__(self, k: KernelBuilder, t: ValueType, v: Any = None, const: Number | None = None) -> None:
        self.k, self.t, self._v, self.const = k, t, v, const

    @property
    def v(self) -> Any:
        """The MLIR value; a constant is emitted (once a kernel, in its entry block) when first needed."""
        if self._v is None:
            self._v = self.k.constant_value(self.const, self.t)
        return self._v

    @property
    def int_const(self) -> int | None:
        """`const` of an integer."""
        return self.const if isinstance(self.const, int) else None

    def __repr__(self) -> str:
        return f"Val({self.t}{'' if self.const is None else f', {self.const}'})"

    # --- coercion

    def like(self, other: Operand) -> Val:
        """`other` as a value of this value's type: numbers become constants, scalars of the element type are splatted."""
        if isinstance(other, Val):
            if other.t is self.t:
                return other
            if other.t is self.t.element:
                return self.k.broadcast(other, self.t.lanes)
            raise ValueError(f"operands have types {self.t} and {other.t}; convert one with .to()")
        return self.k.const(other, self.t)

    def _pair(self, other: Operand) -> tuple[Val, Val]:
        if isinstance(other, Val) and other.t is self.t:
            return self, other
        if isinstance(other, Val) and other.t.element is self.t:
            return other.like(self), other
        return self, self.like(other)

    def _require(self, kind: str, op: str) -> None:
        if self.t.element.kind != kind:
            raise ValueError(f"{op} needs {kind} operands, not {self.t}")

    # --- arithmetic

    def _arith(self, other: Operand, int_op: str, float_op: str | None, fold: Any, swap: bool = False) -> Val:
        a, b = self._pair(other)
        if swap:
            a, b = b, a
        k, t = self.k, a.t
        if t.is_float:
            if float_op is None:
                raise ValueError(f"{int_op} has no form for {t}")
            return k.emit(float_op, (a, b), t, k.contract)
        if not t.is_int:
            raise ValueError(f"{int_op} needs numbers, not {t}; move pointers by bytes with ptr + n or ptr.at(i, type)")
        if fold is not None and a.const is not None and b.const is not None:
            return k.const(fold(a.const, b.const), t)
        return k.emit(int_op, (a, b), t)

    def __add__(self, other: Operand) -> Val:
        if self.t.kind == "ptr":
            return self.k.ptr_add(self, other)
        if self.t.is_int:
            if other == 0 and isinstance(other, int):
                return self
            if isinstance(other, Val) and other.t is self.t:
                if other.const == 0:
                    return self
                if self.const == 0:
                    return other
        return self._arith(other, "arith.addi", "arith.addf", lambda a, b: a + b)

    __radd__ = __add__

    def __sub__(self, other: Operand) -> Val:
        if self.t.kind == "ptr":
            return self.k.ptr_add(self, -other)
        if self.t.is_int and (other.const if isinstance(other, Val) else other) == 0:
            return self
        return self._arith(other, "arith.subi", "arith.subf", lambda a, b: a - b)

    def __rsub__(self, other: Operand) -> Val:
        return self._arith(other, "arith.subi", "arith.subf", lambda a, b: a - b, swap=True)

    def __mul__(self, other: Operand) -> Val:
        if self.t.is_int:
            a, b = self._pair(other)
            if b.const == 1 or a.const == 0:
                return a
            if a.const == 1 or b.const == 0:
                return b
        return self._arith(other, "arith.muli", "arith.mulf", lambda a, b: a * b)

    __rmul__ = __mul__

    def __truediv__(self, other: Operand) -> Val:
        self._require("float", "/")
        return self._arith(other, "arith.divf", "arith.divf", None)

    def __rtruediv__(self, other: Operand) -> Val:
        self._require("float", "/")
        return self._arith(other, "arith.divf", "arith.divf", None, swap=True)

    def __neg__(self) -> Val:
        if self.t.is_float:
            return self.k.emit("arith.negf", (self,), self.t, self.k.contract)
        return 0 - self

    def __floordiv__(self, other: Operand) -> Val:
        """Unsigned quotient."""
        self._require("int", "//")
        a, b = self._pair(other)
        divisor = b.int_const
        if divisor is not None and a.const is None and divisor > 0 and divisor & (divisor - 1) == 0:
            return a >> (divisor.bit_length() - 1)
        return a._arith(b, "arith.divui", None, lambda x, y: x // y)

    def __rfloordiv__(self, other: Operand) -> Val:
        return self.like(other) // self

    def __mod__(self, other: Operand) -> Val:
        """Unsigned remainder."""
        self._require("int", "%")
        a, b = self._pair(other)
        divisor = b.int_const
        if divisor is not None and a.const is None and divisor > 0 and divisor & (divisor - 1) == 0:
            return a & (divisor - 1)
        return a._arith(b, "arith.remui", None, lambda x, y: x % y)

    def __rmod__(self, other: Operand) -> Val:
        return self.like(other) % self

    def sdiv(self, other: Operand) -> Val:
        """Signed quotient, truncated toward zero."""
        return self._arith(other, "arith.divsi", None, _truncated_quotient)

    def srem(self, other: Operand) -> Val:
        """Signed remainder, with the dividend's sign."""
        return self._arith(other, "arith.remsi", None, lambda a, b: a - b * _truncated_quotient(a, b))

    def ceildiv(self, other: Operand) -> Val:
        """Unsigned quotient rounded up; the sum self + other - 1 must not overflow."""
        return (self + (other - 1)) // other

    # --- bits

    def __and__(self, other: Operand) -> Val:
        self._require("int", "&")
        a, b = self._pair(other)
        if b.const == 0 or a.const == 0:
            return a.k.const(0, a.t)
        if a.t.element.bits == 1:
            if b.const is not None:
                return a
            if a.const is not None:
                return b
        return a._arith(b, "arith.andi", None, lambda x, y: x & y)

    __rand__ = __and__

    def __or__(self, other: Operand) -> Val:
        self._require("int", "|")
        a, b = self._pair(other)
        if b.const == 0:
            return a
        if a.const == 0:
            return b
        return a._arith(b, "arith.ori", None, lambda x, y: x | y)

    __ror__ = __or__

    def __xor__(self, other: Operand) -> Val:
        self._require("int", "^")
        a, b = self._pair(other)
        if b.const == 0:
            return a
        if a.const == 0:
            return b
        return a._arith(b, "arith.xori", None, lambda x, y: x ^ y)

    __rxor__ = __xor__

    def __invert__(self) -> Val:
        return self ^ (1 if self.t.element.bits == 1 else -1)

    def __lshift__(self, other: Operand) -> Val:
        if (other.const if isinstance(other, Val) else other) == 0:
            return self
        return self._arith(other, "arith.shli", None, lambda a, b: a << b)

    def __rshift__(self, other: Operand) -> Val:
        """Logical shift right."""
        if (other.const if isinstance(other, Val) else other) == 0:
            return self
        mask = (1 << self.t.element.bits) - 1
        return self._arith(other, "arith.shrui", None, lambda a, b: (a & mask) >> b)

    def sar(self, other: Operand) -> Val:
        """Arithmetic shift right."""
        return self._arith(other, "arith.shrsi", None, lambda a, b: a >> b)

    # --- comparisons

    def compare(self, predicate: str, other: Operand) -> Val:
        """An i1 (or vector of i1): `predicate` is eq, ne, lt, le, gt, ge, ult, ule, ugt or uge.

        Floats compare ordered (false with a NaN), except `ne`, which is unordered (true with a NaN), as in C.
        """
        a, b = self._pair(other)
        k = self.k
        t = k.vector_of(k.i1, a.t.lanes) if a.t.kind == "vector" else k.i1
        if a.t.is_float:
            return k.emit("arith.cmpf", (a, b), t, k.cmpf_attr(predicate))
        if a.t.kind == "ptr":
            a, b = k.ptr_to_int(a), k.ptr_to_int(b)
        x, y = a.int_const, b.int_const
        if x is not None and y is not None:
            mask = (1 << a.t.element.bits) - 1
            if predicate[0] == "u":
                x, y = x & mask, y & mask
            return k.const(_FOLD_COMPARE[predicate.lstrip("u")](x, y), t)
        return k.emit("arith.cmpi", (a, b), t, k.cmpi_attr(predicate))

    def __lt__(self, other: Operand) -> Val:
        return self.compare("lt", other)

    def __le__(self, other: Operand) -> Val:
        return self.compare("le", other)

    def __gt__(self, other: Operand) -> Val:
        return self.compare("gt", other)

    def __ge__(self, other: Operand) -> Val:
        return self.compare("ge", other)

    def eq(self, other: Operand) -> Val:
        return self.compare("eq", other)

    def ne(self, other: Operand) -> Val:
        return self.compare("ne", other)

    def ult(self, other: Operand) -> Val:
        return self.compare("ult", other)

    def ule(self, other: Operand) -> Val:
        return self.compare("ule", other)

    def ugt(self, other: Operand) -> Val:
        return self.compare("ugt", other)

    def uge(self, other: Operand) -> Val:
        return self.compare("uge", other)

    def select(self, a: Operand, b: Operand) -> Val:
        """`a` where this i1 (or vector of i1) holds, else `b`."""
        return self.k.select(self, a, b)

    def __bool__(self) -> bool:
        if self.const is None:
            raise ValueError(f"the truth of {self!r} is known at run time only: use k.if_ or .select")
        return bool(self.const)

    # --- conversions and pointers

    def to(self, type_: str | ValueType, signed: bool = True) -> Val:
        """This value converted to another number type (see `KernelBuilder.cast`); `signed` reads or makes integers so."""
        return self.k.cast(self, type_, signed=signed)

    def bitcast(self, type_: str | ValueType) -> Val:
        """The same bits as another type of equal size."""
        return self.k.bitcast(self, type_)

    def at(self, index: Operand, type_: str | ValueType) -> Val:
        """Pointer to element `index` of an array of `type_` that starts here."""
        return self.k.ptr_at(self, index, type_)


def _truncated_quotient(a: int, b: int) -> int:
    q = abs(a) // abs(b)
    return q if (a < 0) == (b < 0) else -q


_FOLD_COMPARE = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}


def flatten(tree: Any) -> list[Any]:
    """The leaves of nested lists and tuples, in order."""
    if isinstance(tree, (list, tuple)):
        return [leaf for item in tree for leaf in flatten(item)]
    return [tree]


def unflatten(tree: Any, leaves: list[Any]) -> Any:
    """A structure of nested lists shaped like `tree`, holding `leaves` in order."""
    rest = iter(leaves)

    def build(node: Any) -> Any:
        return [build(item) for item in node] if isinstance(node, (list, tuple)) else next(rest)

    return build(tree)
