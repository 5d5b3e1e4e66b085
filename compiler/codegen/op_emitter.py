"""Emission of single operations, types and constants: the ground that `KernelBuilder` stands on.

The builder is a chain of classes, each of which uses those before it: `OpEmitter`, `VectorOps`, `SmallFloatOps`, `MemoryOps`,
`KernelBuilder` (control flow), and on GPUs `MatrixOps` and `NvvmBuilder`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ingot.compiler.codegen.values import Number, Operand, Val, ValueType
from ingot.dialects.mlir import ir

if TYPE_CHECKING:
    from ingot.compiler.codegen.kernel_builder import KernelModule


class OpEmitter:
    """Emits operations at an insertion point.

    Attributes:
        module: the module being built.
        loc: location of everything that is emitted.
        ip: where operations go.
        index_type: type of Python's integers.
        contract: attributes of float arithmetic.
        i1 ... ptr: the types of these names.
    """

    module: KernelModule
    loc: Any
    ip: Any
    index_type: ValueType
    contract: dict[str, Any]
    _constants: dict[tuple[str, str], Any]
    _constant_ip: Any
    i1: ValueType
    i8: ValueType
    i16: ValueType
    i32: ValueType
    i64: ValueType
    f16: ValueType
    bf16: ValueType
    f32: ValueType
    f64: ValueType
    ptr: ValueType

    # --- emission

    def op(
        self,
        name: str,
        operands: Sequence[Val] = (),
        results: Sequence[ValueType] = (),
        attributes: dict[str, Any] | None = None,
        regions: int = 0,
    ) -> Any:
        """Emit an operation of any dialect and return it."""
        return ir.Operation.create(
            name, [t.mlir for t in results], [x.v for x in operands], attributes, None, regions, self.loc, self.ip
        )

    def emit(self, name: str, operands: Sequence[Val], result: ValueType, attributes: dict[str, Any] | None = None) -> Val:
        """Emit an operation with one result of type `result`."""
        created = ir.Operation.create(name, [result.mlir], [x.v for x in operands], attributes, None, 0, self.loc, self.ip)
        return Val(self, result, created.result)  # type: ignore[arg-type]  # always a KernelBuilder

    def type(self, name: str | ValueType) -> ValueType:
        """See `KernelModule.type`."""
        return name if isinstance(name, ValueType) else self.module.type(name)

    def vector_of(self, element: str | ValueType, lanes: int) -> ValueType:
        """vector<lanes x element>; the element itself for one lane given as 1 is *not* assumed: a vector of one is a vector."""
        element = self.type(element)
        return self.module.type(f"vector<{lanes}x{element.name}>")

    def attr(self, text: str) -> Any:
        """See `KernelModule.attr`."""
        return self.module.attr(text)

    def cmpi_attr(self, predicate: str) -> dict[str, Any]:
        """Attribute of arith.cmpi for a predicate of `Val.compare`."""
        code = ("eq", "ne", "lt", "le", "gt", "ge", "ult", "ule", "ugt", "uge").index(predicate)
        return {"predicate": self.attr(f"{code} : i64")}

    def cmpf_attr(self, predicate: str) -> dict[str, Any]:
        """Attribute of arith.cmpf: ordered predicates, `ne` unordered, and `uno` / `ord` for NaN tests."""
        code = {"eq": 1, "gt": 2, "ge": 3, "lt": 4, "le": 5, "ord": 7, "ne": 13, "uno": 14}[predicate]
        return {"predicate": self.attr(f"{code} : i64")}

    # --- constants

    def const(self, value: Number, type_: str | ValueType | None = None) -> Val:
        """A constant; a vector type gives a splat. Without a type, ints are of the index type and floats f32."""
        if type_ is None:
            t = self.i1 if isinstance(value, bool) else self.index_type if isinstance(value, int) else self.f32
        else:
            t = self.type(type_)
        if t.is_int:
            if isinstance(value, float) and not value.is_integer():
                raise ValueError(f"{value} is not a constant of type {t}")
            bits = t.element.bits
            value = int(value) & ((1 << bits) - 1)
            if bits > 1 and value >> (bits - 1):
                value -= 1 << bits
        elif t.is_float:
            value = float(value)
        else:
            raise ValueError(f"there are no constants of type {t}")
        return Val(self, t, None, value)  # type: ignore[arg-type]  # always a KernelBuilder

    def constant_value(self, value: Number | None, t: ValueType) -> Any:
        """The MLIR value of a constant, emitted on first use."""
        key = t.name, repr(value)
        found = self._constants.get(key)
        if found is None:
            element = t.element
            if element.kind == "int":
                attribute = ir.IntegerAttr.get(element.mlir, int(value))  # type: ignore[arg-type]
            else:
                attribute = ir.FloatAttr.get(element.mlir, value, loc=self.loc)
            if t.kind == "vector":
                attribute = ir.DenseElementsAttr.get_splat(t.mlir, attribute)
            created = ir.Operation.create(
                "arith.constant", [t.mlir], [], {"value": attribute}, None, 0, self.loc, self._constant_ip
            )
            found = self._constants[key] = created.result
        return found

    def undef(self, type_: str | ValueType) -> Val:
        """A value whose bits do not matter (all zero)."""
        t = self.type(type_)
        return self.emit("llvm.mlir.zero", (), t) if t.kind in ("struct", "ptr") else self.const(0, t)

    def value(self, x: Operand, type_: str | ValueType | None = None) -> Val:
        """`x` as a value: a `Val` (checked against `type_` where given), or a number made a constant of `type_`."""
        if not isinstance(x, Val):
            return self.const(x, type_)
        if type_ is not None and x.t is not self.type(type_):
            raise ValueError(f"expected a value of type {type_}, not {x.t}")
        return x

    @contextmanager
    def insert_into(self, block: Any) -> Iterator[None]:
        """Emit at the end of `block` inside the `with`."""
        outer, self.ip = self.ip, ir.InsertionPoint(block)
        try:
            yield
        finally:
            self.ip = outer
