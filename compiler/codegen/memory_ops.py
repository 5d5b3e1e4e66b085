"""Pointers, loads and stores of Kernel IR: a layer of `KernelBuilder`.

Alignments are in bytes. Where none is given, the element's natural alignment is promised (not the vector's: pass
`align=16` or more where the address is known to be so aligned, or the access is split). Masked accesses do not touch
memory where the mask is false.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ingot.compiler.codegen.small_floats import SmallFloatOps
from ingot.compiler.codegen.values import Operand, Val, ValueType
from ingot.dialects.mlir import ir

_DYNAMIC = -(1 << 31)  # marks a run-time index in llvm.getelementptr


class MemoryOps(SmallFloatOps):
    """See the module's docstring."""

    # --- pointers

    def ptr_at(self, base: Val, index: Operand, type_: str | ValueType) -> Val:
        """Address of element `index` of an array of `type_` at `base`; either may be a vector, giving a vector of pointers."""
        t = self.type(type_)
        if isinstance(index, Val):
            constant = index.int_const if index.t.kind == "int" else None
        else:
            constant = int(index)
        if constant == 0:
            return base
        result = base.t
        if isinstance(index, Val) and index.t.kind == "vector" and base.t.kind != "vector":
            result = self.vector_of(base.t, index.t.lanes)
        elif base.t.element.kind != "ptr":
            raise ValueError(f"{base.t} is not a pointer")
        fits = constant is not None and -(1 << 31) < constant < 1 << 31
        attributes = {
            "rawConstantIndices": self.attr(f"array<i32: {constant if fits else _DYNAMIC}>"),
            "elem_type": self._type_attr(t),
        }
        operands = (base,) if fits else (base, self.value(index if constant is None else constant, "i64" if constant else None))
        return self.emit("llvm.getelementptr", operands, result, attributes)

    def ptr_add(self, base: Val, offset: Operand) -> Val:
        """`base` moved by `offset` bytes."""
        return self.ptr_at(base, offset, self.i8)

    def _type_attr(self, t: ValueType) -> Any:
        cache = self.module._attrs
        found = cache.get("type " + t.name)
        if found is None:
            found = cache["type " + t.name] = ir.TypeAttr.get(t.mlir)
        return found

    def ptr_to_int(self, p: Val, type_: str | ValueType | None = None) -> Val:
        """The address as an integer: i32 for shared memory, i64 elsewhere, unless a type is given."""
        return self.emit("llvm.ptrtoint", (p,), self.type(type_ or f"i{p.t.bits}"))

    def int_to_ptr(self, x: Val, type_: str | ValueType = "ptr") -> Val:
        """A pointer from an address."""
        return self.emit("llvm.inttoptr", (x,), self.type(type_))

    def address_space(self, p: Val, type_: str | ValueType) -> Val:
        """The pointer in another address space (shared `ptr<3>` to cluster `ptr<7>`, any to generic `ptr`)."""
        t = self.type(type_)
        return p if p.t is t else self.emit("llvm.addrspacecast", (p,), t)

    # --- loads and stores

    def _access(self, t: ValueType, align: int | None, flags: dict[str, bool]) -> dict[str, Any]:
        alignment = align or max(1, t.element.bits // 8)
        attributes = {"alignment": self.attr(f"{alignment} : i64")}
        for flag, on in flags.items():
            if on:
                attributes[flag] = self.attr("unit")
        return attributes

    def load(
        self,
        p: Val,
        type_: str | ValueType,
        *,
        align: int | None = None,
        volatile: bool = False,
        nontemporal: bool = False,
        invariant: bool = False,
    ) -> Val:
        """Load a scalar or vector. `invariant`: nothing writes this memory while the kernel runs (`ld.global.nc` on GPUs)."""
        t = self.type(type_)
        flags = {"volatile_": volatile, "nontemporal": nontemporal, "invariant": invariant}
        return self.emit("llvm.load", (p,), t, self._access(t, align, flags))

    def store(self, x: Operand, p: Val, *, align: int | None = None, volatile: bool = False, nontemporal: bool = False) -> None:
        """Store a scalar or vector; a Python number is stored as the index type or f32 (give a `Val` for any other)."""
        x = self.value(x)
        flags = {"volatile_": volatile, "nontemporal": nontemporal}
        self.op("llvm.store", (x, p), (), self._access(x.t, align, flags))

    def load_as(self, p: Val, dtype: str, lanes: int = 0, *, align: int | None = None, invariant: bool = False) -> Val:
        """Load storage dtype `dtype` (src/ingot/dtypes.py) as its compute value: bool bytes as i1, 8-bit floats as f32,
        others as is.

        `lanes` elements as a vector, or a scalar for 0. Sub-byte types are refused: load bytes and split them.
        """
        if dtype == "i1":
            return self.load(p, self._lanes("i8", lanes), align=align, invariant=invariant).ne(0)
        if dtype in ("i4", "f4E2M1FN"):
            raise ValueError(f"{dtype} elements are smaller than a byte: load i8 bytes and split them")
        if dtype.startswith("f8"):
            raw = self.load(p, self._lanes("i8", lanes), align=align, invariant=invariant)
            return self.decode_float(raw, dtype)
        return self.load(p, self._lanes(dtype, lanes), align=align, invariant=invariant)

    def store_as(self, x: Val, p: Val, dtype: str, *, align: int | None = None) -> None:
        """Store a compute value (see `load_as`) as storage dtype `dtype`; number types are converted."""
        lanes = x.t.lanes if x.t.kind == "vector" else 0
        if dtype == "i1":
            self.store(self.cast(x, self._lanes("i8", lanes), signed=False), p, align=align)
        elif dtype.startswith("f8"):
            self.store(self.encode_float(x, dtype), p, align=align)
        else:
            self.store(self.cast(x, self._lanes(dtype, lanes)), p, align=align)

    def _lanes(self, element: str, lanes: int) -> ValueType:
        return self.vector_of(element, lanes) if lanes else self.type(element)

    def masked_load(self, p: Val, type_: str | ValueType, mask: Val, other: Operand = 0, *, align: int | None = None) -> Val:
        """The contiguous vector at `p` where `mask` (vector of i1), `other` elsewhere, where memory is not read."""
        t = self.type(type_)
        attributes = {"alignment": self.attr(f"{align or max(1, t.element.bits // 8)} : i32")}
        return self.emit("llvm.intr.masked.load", (p, mask, self._splat(other, t)), t, attributes)

    def masked_store(self, x: Val, p: Val, mask: Val, *, align: int | None = None) -> None:
        """Store the lanes of vector `x` where `mask`."""
        attributes = {"alignment": self.attr(f"{align or max(1, x.t.element.bits // 8)} : i32")}
        self.op("llvm.intr.masked.store", (x, p, mask), (), attributes)

    def gather(self, ptrs: Val, element: str | ValueType, mask: Val | None = None, other: Operand = 0) -> Val:
        """The elements at a vector of pointers (`base.at(index_vector, element)`), `other` where `mask` is false."""
        t = self.vector_of(element, ptrs.t.lanes)
        if mask is None:
            mask = self.const(1, self.vector_of("i1", t.lanes))
        attributes = {"alignment": self.attr(f"{max(1, t.element.bits // 8)} : i32")}
        return self.emit("llvm.intr.masked.gather", (ptrs, mask, self._splat(other, t)), t, attributes)

    def scatter(self, x: Val, ptrs: Val, mask: Val | None = None) -> None:
        """Store vector `x` to a vector of pointers where `mask`; of equal addresses the highest lane wins."""
        if mask is None:
            mask = self.const(1, self.vector_of("i1", x.t.lanes))
        attributes = {"alignment": self.attr(f"{max(1, x.t.element.bits // 8)} : i32")}
        self.op("llvm.intr.masked.scatter", (x, ptrs, mask), (), attributes)

    def _splat(self, x: Operand, t: ValueType) -> Val:
        if isinstance(x, Val):
            return x if x.t is t else self.broadcast(x, t.lanes)
        return self.const(x, t)

    def prefetch_cache(self, p: Val, *, write: bool = False, locality: int = 3) -> None:
        """Hint that the line at `p` is used soon (CPU); `locality` 0 (once) to 3 (keep)."""
        attributes = {
            "rw": self.attr(f"{int(write)} : i32"),
            "hint": self.attr(f"{locality} : i32"),
            "cache": self.attr("1 : i32"),
        }
        self.op("llvm.intr.prefetch", (p,), (), attributes)

    # --- memory of the kernel's own

    def alloca(self, nbytes: int, align: int = 64) -> Val:
        """`nbytes` on the stack for the whole kernel (allocated once, in the entry block)."""
        count = self.const(nbytes, "i64")
        count.v  # noqa: B018  the constant must precede the allocation
        with self.at_entry():
            attributes = {"elem_type": self._type_attr(self.i8), "alignment": self.attr(f"{align} : i64")}
            return self.emit("llvm.alloca", (count,), self.ptr, attributes)

    def constant_table(self, values: Any, type_: str) -> Val:
        """Pointer to a read-only array of `type_` with the given Python numbers, stored in the module."""
        element = self.type(type_)
        numbers = ", ".join(str(x) if element.kind == "int" else repr(float(x)) for x in values)
        count = len(values)
        key = f"table {type_} {numbers}"
        index = self.module._globals.setdefault(key, len(self.module._globals))
        symbol = f"table_{index}"
        if key not in self.module._attrs:
            text = f"dense<[{numbers}]> : tensor<{count}x{element.mlir}>"
            self._global(symbol, f"!llvm.array<{count} x {element.mlir}>", "internal", 64, value=text, space=4)
            self.module._attrs[key] = ir.FlatSymbolRefAttr.get(symbol, self.module.context)
        space = 4 if self.module.is_gpu else 0
        pointer = self.type(f"ptr<{space}>")
        address = self.emit("llvm.mlir.addressof", (), pointer, {"global_name": self.module._attrs[key]})
        return self.address_space(address, self.ptr) if space else address

    def _global(self, symbol: str, type_: str, linkage: str, align: int, *, value: str = "", space: int = 0) -> None:
        """Define `llvm.mlir.global` in the module; address spaces exist on GPUs only."""
        attributes = {
            "sym_name": ir.StringAttr.get(symbol, self.module.context),
            "global_type": ir.TypeAttr.get(ir.Type.parse(type_, self.module.context)),
            "linkage": self.attr(f"#llvm.linkage<{linkage}>"),
            "alignment": self.attr(f"{align} : i64"),
            "addr_space": self.attr(f"{space if self.module.is_gpu else 0} : i32"),
        }
        if value:
            attributes["value"] = ir.Attribute.parse(value, self.module.context)
            attributes["constant"] = self.attr("unit")
        where = ir.InsertionPoint.at_block_begin(self.module.module.body)
        ir.Operation.create("llvm.mlir.global", attributes=attributes, regions=1, loc=self.loc, ip=where)

    @contextmanager
    def at_entry(self) -> Iterator[None]:
        """Emit at the start of the kernel, after what was emitted there before: for values that every block may use."""
        outer, self.ip = self.ip, self._constant_ip
        try:
            yield
        finally:
            self.ip = outer
