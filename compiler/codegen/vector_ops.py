"""Vectors, conversions and elementary functions of Kernel IR: a layer of `KernelBuilder`.

Everything here takes scalars and vectors alike unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ingot.compiler.codegen.op_emitter import OpEmitter
from ingot.compiler.codegen.values import Operand, Val, ValueType
from ingot.dialects.mlir import ir

_REDUCTIONS = {"add": "add", "mul": "mul", "min": "minsi", "max": "maxsi", "umin": "minui", "umax": "maxui"} | {
    op: op for op in ("and", "or", "xor")
}


class VectorOps(OpEmitter):
    """See the module's docstring."""

    # --- vectors

    def broadcast(self, x: Val, lanes: int) -> Val:
        """A vector with `x` in every lane."""
        t = self.vector_of(x.t, lanes)
        if x.const is not None:
            return self.const(x.const, t)
        return self.emit("vector.broadcast", (x,), t)

    def vector(self, values: Sequence[Operand], element: str | ValueType | None = None) -> Val:
        """A vector from its elements; `element` types Python numbers where no element is a `Val`."""
        t = element or next((x.t for x in values if isinstance(x, Val)), None)
        scalars = [self.value(x, t) for x in values]
        return self.emit("vector.from_elements", scalars, self.vector_of(scalars[0].t, len(scalars)))

    def iota(self, type_: str | ValueType) -> Val:
        """The integer vector 0, 1, 2, ..."""
        t = self.type(type_)
        numbers = ", ".join(str(i) for i in range(t.lanes))
        return self.emit("arith.constant", (), t, {"value": self.attr(f"dense<[{numbers}]> : {t.mlir}")})

    def vector_constant(self, values: Sequence[int | float], type_: str | ValueType) -> Val:
        """A vector constant with the given lanes."""
        t = self.type(type_)
        element: Any = (
            (lambda x: ir.IntegerAttr.get(t.element.mlir, int(x)))
            if t.is_int
            else (lambda x: ir.FloatAttr.get(t.element.mlir, float(x), loc=self.loc))
        )
        attribute = ir.DenseElementsAttr.get([element(x) for x in values], t.mlir)
        return self.emit("arith.constant", (), t, {"value": attribute})

    def extract(self, x: Val, index: int | Val) -> Val:
        """Lane `index` of a vector, or member `index` (a Python int) of a struct."""
        if x.t.kind == "struct":
            assert isinstance(index, int), "members have constant numbers"
            return self.emit("llvm.extractvalue", (x,), x.t.members[index], {"position": self.attr(f"array<i64: {index}>")})
        position = index.int_const if isinstance(index, Val) else index
        if position is None:
            return self.emit("llvm.extractelement", (x, self.value(index)), x.t.element)
        return self.emit("vector.extract", (x,), x.t.element, {"static_position": self.attr(f"array<i64: {position}>")})

    def insert(self, x: Operand, into: Val, index: int | Val) -> Val:
        """`into` (a vector or struct) with lane or member `index` replaced by `x`."""
        if into.t.kind == "struct":
            assert isinstance(index, int), "members have constant numbers"
            member = self.value(x, into.t.members[index])
            return self.emit("llvm.insertvalue", (into, member), into.t, {"position": self.attr(f"array<i64: {index}>")})
        x = self.value(x, into.t.element)
        position = index.int_const if isinstance(index, Val) else index
        if position is None:
            return self.emit("llvm.insertelement", (into, x, self.value(index)), into.t)
        return self.emit("vector.insert", (x, into), into.t, {"static_position": self.attr(f"array<i64: {position}>")})

    def elements(self, x: Val) -> list[Val]:
        """All lanes of a vector, or members of a struct."""
        count = len(x.t.members) if x.t.kind == "struct" else x.t.lanes
        return [self.extract(x, i) for i in range(count)]

    def shuffle(self, a: Val, b: Val, lanes: Sequence[int]) -> Val:
        """The vector of the given lanes of `a` followed by `b`."""
        t = self.vector_of(a.t.element, len(lanes))
        return self.emit("vector.shuffle", (a, b), t, {"mask": self.attr(f"array<i64: {', '.join(map(str, lanes))}>")})

    def slice(self, x: Val, offset: int, lanes: int) -> Val:
        """`lanes` neighbouring lanes from `offset`."""
        return self.shuffle(x, x, range(offset, offset + lanes))

    def concat(self, a: Val, b: Val) -> Val:
        """The lanes of `a`, then those of `b` (equal types)."""
        return self.shuffle(a, b, range(2 * a.t.lanes))

    def reduce(self, kind: str, x: Val) -> Val:
        """A vector folded to one element by `add`, `mul`, `min`, `max`, `umin`, `umax`, `and`, `or` or `xor`.

        Float sums and products are taken pairwise, halves against halves, an order fixed by the vector's length (a
        power of two).
        """
        if not x.t.is_float:
            attribute = {"kind": self.attr(f"#vector.kind<{_REDUCTIONS[kind]}>")}
            return self.emit("vector.reduction", (x,), x.t.element, attribute)
        combine = {"add": Val.__add__, "mul": Val.__mul__, "min": self.min, "max": self.max}[kind]
        while x.t.lanes > 1:
            half = x.t.lanes // 2
            if half * 2 != x.t.lanes:
                raise ValueError(f"a float reduction needs a power of two of lanes, not {x.t}")
            x = combine(self.slice(x, 0, half), self.slice(x, half, half))
        return self.extract(x, 0)

    # --- arithmetic that has no operator

    def fma(self, a: Val, b: Operand, c: Operand) -> Val:
        """a * b + c, rounded once; for integers a * b + c."""
        b, c = a.like(b), a.like(c)
        return self.emit("llvm.intr.fma", (a, b, c), a.t) if a.t.is_float else a * b + c

    def _extremum(self, a: Operand, b: Operand, int_op: str, float_op: str, pick: Any) -> Val:
        if not isinstance(a, Val):
            a, b = b, a
        assert isinstance(a, Val)
        a, b = a._pair(b)
        if a.t.is_float:
            return self.emit(float_op, (a, b), a.t)
        if a.const is not None and b.const is not None:
            return self.const(pick(a.const, b.const), a.t)
        return self.emit(int_op, (a, b), a.t)

    def min(self, a: Operand, b: Operand) -> Val:
        """Signed minimum; of floats the number where one is NaN (`min.f32`)."""
        return self._extremum(a, b, "arith.minsi", "arith.minnumf", min)

    def max(self, a: Operand, b: Operand) -> Val:
        """Signed maximum; of floats the number where one is NaN."""
        return self._extremum(a, b, "arith.maxsi", "arith.maxnumf", max)

    def umin(self, a: Operand, b: Operand) -> Val:
        """Unsigned minimum."""
        return self._extremum(a, b, "arith.minui", "arith.minnumf", min)

    def umax(self, a: Operand, b: Operand) -> Val:
        """Unsigned maximum."""
        return self._extremum(a, b, "arith.maxui", "arith.maxnumf", max)

    def minimum(self, a: Val, b: Operand) -> Val:
        """Minimum of floats; NaN where either is (numpy's and ONNX's Min). -0 < +0 is not promised below sm_80."""
        return self._nan_extremum(a, b, "min")

    def maximum(self, a: Val, b: Operand) -> Val:
        """Maximum of floats; NaN where either is."""
        return self._nan_extremum(a, b, "max")

    def _nan_extremum(self, a: Val, b: Operand, kind: str) -> Val:
        a, b = a._pair(b)
        if self.module.is_gpu and self.module.sm >= 80 and a.t.element.bits == 32:
            return self.emit(f"arith.{kind}imumf", (a, b), a.t)
        # x86's instruction gives its second operand where either is NaN, and a comparison with a select becomes it. That is all
        # for a constant, which is no NaN; else a select of the other operand follows. sm_75 has no such instruction either.
        predicate = "gt" if kind == "max" else "lt"
        if b.const is not None and b.const == b.const:
            return self.select(b.compare(predicate, a), b, a)
        return self.select(self.is_nan(a), a, self.select(a.compare(predicate, b), a, b))

    def mask_type(self, t: ValueType) -> ValueType:
        """The type of a comparison of values of type `t`: i1, or a vector of it."""
        return self.vector_of("i1", t.lanes) if t.kind == "vector" else self.i1

    def is_nan(self, x: Val) -> Val:
        """True where `x` is NaN."""
        return self.emit("arith.cmpf", (x, x), self.mask_type(x.t), self.cmpf_attr("uno"))

    def select(self, condition: Val, a: Operand, b: Operand) -> Val:
        """`a` where `condition` holds, else `b`; one of them may be a number."""
        if isinstance(a, Val):
            a, b = a._pair(b)
        elif isinstance(b, Val):
            b, a = b._pair(a)
        else:
            raise ValueError("select between two Python numbers: make one a k.const of the type meant")
        if condition.const is not None:
            return a if condition.const else b
        if condition.t.kind == "vector" and a.t.kind != "vector":
            a, b = self.broadcast(a, condition.t.lanes), self.broadcast(b, condition.t.lanes)
        return self.emit("arith.select", (condition, a, b), a.t)

    def abs(self, x: Val) -> Val:
        """Absolute value (of the most negative integer, itself)."""
        return self.emit("llvm.intr.fabs", (x,), x.t) if x.t.is_float else self.max(x, 0 - x)

    @property
    def approximates(self) -> bool:
        """True where the kernel's divisions and square roots are approximate (`contract` with afn)."""
        return "afn" in str(self.contract["fastmath"])

    def sqrt(self, x: Val) -> Val:
        """Square root, correctly rounded; approximate where the kernel's are."""
        flags = {"fastmathFlags": self.attr("#llvm.fastmath<afn>")} if self.approximates else None
        return self.emit("llvm.intr.sqrt", (x,), x.t, flags)

    def floor(self, x: Val) -> Val:
        """Largest integer not above."""
        return self.emit("llvm.intr.floor", (x,), x.t)

    def ceil(self, x: Val) -> Val:
        """Smallest integer not below."""
        return self.emit("llvm.intr.ceil", (x,), x.t)

    def trunc(self, x: Val) -> Val:
        """Rounded toward zero to an integer."""
        return self.emit("llvm.intr.trunc", (x,), x.t)

    def round_even(self, x: Val) -> Val:
        """Rounded to the nearest integer, halves to even (ONNX Round)."""
        return self.emit("llvm.intr.roundeven", (x,), x.t)

    def copysign(self, magnitude: Val, sign: Operand) -> Val:
        """`magnitude` with the sign of `sign`."""
        return self.emit("llvm.intr.copysign", (magnitude, magnitude.like(sign)), magnitude.t)

    # --- conversions

    def bitcast(self, x: Val, type_: str | ValueType) -> Val:
        """The same bits as another type of equal size."""
        t = self.type(type_)
        if t is x.t:
            return x
        if t.bits != x.t.bits:
            raise ValueError(f"bitcast from {x.t} ({x.t.bits} bits) to {t} ({t.bits} bits)")
        same_lanes = t.lanes == x.t.lanes and (t.kind == "vector") == (x.t.kind == "vector")
        return self.emit("arith.bitcast" if same_lanes else "llvm.bitcast", (x,), t)

    def cast(self, x: Val, type_: str | ValueType, signed: bool = True) -> Val:
        """Convert between number types, element by element; a scalar name converts a vector's elements.

        Integers widen by sign unless `signed` is False (i1 always by zero), narrow by dropping bits. Float to integer
        truncates toward zero and is undefined out of range. Float to float rounds to nearest even. Anything to i1 is `x
        != 0`.
        """
        t = self.type(type_)
        if x.t.kind == "vector" and t.kind != "vector":
            t = self.vector_of(t, x.t.lanes)
        if t is x.t:
            return x
        source, target = x.t.element, t.element
        if x.const is not None and target.kind in ("int", "float") and not (source.is_float and target.is_int):
            value = x.const
            if source.is_int and not signed and source.bits > 1:
                value = int(value) & ((1 << source.bits) - 1)
            if target.bits == 1 and target.is_int:
                value = int(value != 0)
            return self.const(value, t)
        if target.kind == "int" and target.bits == 1:
            return x.compare("ne", 0)
        if source.is_int and target.is_int:
            if target.bits < source.bits:
                return self.emit("arith.trunci", (x,), t)
            return self.emit("arith.extsi" if signed and source.bits > 1 else "arith.extui", (x,), t)
        if source.is_int and target.is_float:
            if target.bits == 16:
                return self._narrow(self.cast(x, self._shaped(x.t, "f32"), signed), t)
            return self.emit("arith.sitofp" if signed and source.bits > 1 else "arith.uitofp", (x,), t)
        if source.is_float and target.is_int:
            if source.bits == 16:
                x = self._widen(x, self._shaped(x.t, "f32"))
            return self.emit("arith.fptosi" if signed else "arith.fptoui", (x,), t)
        if source.bits == target.bits:  # f16 and bf16
            return self._narrow(self._widen(x, self._shaped(x.t, "f32")), t)
        return self._widen(x, t) if source.bits < target.bits else self._narrow(x, t)

    def _shaped(self, like: ValueType, element: str) -> ValueType:
        return self.vector_of(element, like.lanes) if like.kind == "vector" else self.type(element)

    def _widen(self, x: Val, t: ValueType) -> Val:
        if x.t.element.name == "bf16" and t.element.bits == 64:
            x = self._widen(x, self._shaped(t, "f32"))
        if x.t.element.name == "bf16" and not self.module.is_gpu:
            # The upper half of an f32. LLVM would move other operations before an extension, and then call a library for them.
            bits = self.cast(self.bitcast(x, self._shaped(t, "i16")), self._shaped(t, "i32"), signed=False)
            return self.bitcast(bits << 16, t)
        return self.emit("arith.extf", (x,), t)

    def _narrow(self, x: Val, t: ValueType) -> Val:
        """Float to narrower float, rounded to nearest even, without the library calls that LLVM would make on CPUs."""
        if x.t.element.bits == 64 and t.element.bits == 16:
            # Round to odd in f32 first, so that the second rounding sees a sticky bit: bits below f32's last are folded
            # into it.
            wide = self._shaped(t, "i64")
            bits = self.bitcast(x, wide)
            low = bits & ((1 << 29) - 1)
            kept = bits ^ low
            x = self.bitcast(self.select(low.eq(0), kept, kept | (1 << 29)), x.t)
            x = self.emit("arith.truncf", (x,), self._shaped(t, "f32"))
        if t.element.name == "bf16" and (not self.module.is_gpu or self.module.sm < 80):
            bits = self.bitcast(x, self._shaped(t, "i32"))
            rounded = (bits + (((bits >> 16) & 1) + 0x7FFF)) >> 16
            # A NaN must stay one: rounding could carry its payload away.
            rounded = self.select(self.is_nan(x), (bits >> 16) | 0x40, rounded)
            return self.bitcast(self.cast(rounded, self._shaped(t, "i16")), t)
        return self.emit("arith.truncf", (x,), t)
