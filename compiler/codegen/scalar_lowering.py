"""Scalar regions in Kernel IR: every row of the scalar table on a `KernelBuilder`, for scalars and vectors, CPU and GPU.

`emit_region(k, region, args, ...)` runs a region's instructions at build time; where its values come from is given by loaders:

    results = emit_region(
        k, dispatch.regions[0], [acc],
        load=lambda operand: k.load_as(pointers[operand].at(offset(operand), dtype), dtype, lanes),
        index=lambda axis: positions[axis],
        dim=lambda text: sizes[text],
    )

Values of the storage types without arithmetic are held as their codes: 8-bit floats as i8, and 4-bit integers and
floats as an i8 with the code in its low four bits (a loader must clear the others). `extf`, `extsi` and `extui` decode
them, `truncf` and `trunci` encode. So a loader for `extf`'s operand gives the *raw* byte: `k.load(p, "i8")`, not
`k.load_as`. Values of type i1 are i1.

Constants and loads may be scalars among vectors: they are splatted where they meet one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ingot.compiler.codegen.constant_division import reciprocal_parts
from ingot.compiler.codegen.kernel_builder import KernelBuilder
from ingot.compiler.codegen.values import Val
from ingot.dialects.scalar_table import TABLE, ScalarOp
from ingot.dispatch import ScalarInst, ScalarRegion
from ingot.dtypes import DTYPES

_CMPF = {"oeq": 1, "ogt": 2, "oge": 3, "olt": 4, "ole": 5, "one": 6, "une": 13, "uno": 14}
_CMPI = {"slt": "lt", "sle": "le", "sgt": "gt", "sge": "ge"}

# Rows that are one operation, by name; comparisons and casts are below.
_DIRECT: dict[str, Callable[..., Val]] = {
    "addf": lambda k, x, y: x + y,
    "subf": lambda k, x, y: x - y,
    "mulf": lambda k, x, y: x * y,
    "divf": lambda k, x, y: x / y,
    "fma": lambda k, x, y, z: k.fma(x, y, z),
    "negf": lambda k, x: -x,
    "absf": lambda k, x: k.abs(x),
    "maxf": lambda k, x, y: k.maximum(x, y),
    "minf": lambda k, x, y: k.minimum(x, y),
    "sqrt": lambda k, x: k.sqrt(x),
    "floor": lambda k, x: k.floor(x),
    "ceil": lambda k, x: k.ceil(x),
    "trunc": lambda k, x: k.trunc(x),
    "roundeven": lambda k, x: k.round_even(x),
    "addi": lambda k, x, y: x + y,
    "subi": lambda k, x, y: x - y,
    "muli": lambda k, x, y: x * y,
    "divsi_raw": lambda k, x, y: x.sdiv(y),
    "divui_raw": lambda k, x, y: x // y,
    "remsi_raw": lambda k, x, y: x.srem(y),
    "remui_raw": lambda k, x, y: x % y,
    "maxsi": lambda k, x, y: k.max(x, y),
    "minsi": lambda k, x, y: k.min(x, y),
    "maxui": lambda k, x, y: k.umax(x, y),
    "minui": lambda k, x, y: k.umin(x, y),
    "andi": lambda k, x, y: x & y,
    "ori": lambda k, x, y: x | y,
    "xori": lambda k, x, y: x ^ y,
    "shli": lambda k, x, y: x << y,
    "shrsi": lambda k, x, y: x.sar(y),
    "shrui": lambda k, x, y: x >> y,
    "select": lambda k, c, x, y: k.select(c, x, y),
    "ex2_approx": lambda k, x: k.ex2(x),
    "ex2_approx_ftz": lambda k, x: k.ex2(x, ftz=True),
    "rcp_approx": lambda k, x: k.rcp(x),
}


# Of the storage types without arithmetic, the bits that a code occupies.
CODE_MASK = {t.name: (1 << t.bits) - 1 for t in DTYPES.values() if t.bits < 8 or (t.kind == "float" and t.bits == 8)}


def is_code(dtype: str) -> bool:
    """True where values of a type are held as their codes."""
    return dtype in CODE_MASK


class ScalarEmitter:
    """The scalar table's `ScalarBuilder` over a `KernelBuilder`:

    `const`, `const_like`, and every row as a method of its name.
    """

    def __init__(self, k: KernelBuilder) -> None:
        self.k = k

    def const(self, value: float, type: str) -> Val:
        """A constant of a type of the table; of a type without arithmetic its code."""
        if is_code(type):
            return self.k.const(int(np.asarray(value).astype(DTYPES[type].np).view(np.uint8)) & CODE_MASK[type], "i8")
        return self.k.const(value, type)

    def const_like(self, value: float, like: Val) -> Val:
        """A constant of the type of `like`."""
        return self.k.const(value, like.t)

    def __getattr__(self, name: str) -> Callable[..., Val]:
        row = TABLE.get(name)
        if row is None:
            raise AttributeError(f"the scalar table has no row {name!r}")

        def call(*args: Val, type: str = "", source: str = "") -> Val:
            return self.apply(row, args, type, source)

        return call

    def apply(self, row: ScalarOp, args: Sequence[Val], type_: str = "", source: str = "") -> Val:
        """Emit one row. `type_` is a cast's result type; `source` its operand's where the code's i8 does not tell."""
        k = self.k
        if row.result == "cast":
            return self._cast(row.name, args[0], type_, source or args[0].t.element.name)
        args = self._splat_together(args)
        if row.name.startswith("cmpf_"):
            x, y = args
            attribute = {"predicate": k.attr(f"{_CMPF[row.name[5:]]} : i64")}
            return k.emit("arith.cmpf", (x, y), k.mask_type(x.t), attribute)
        if row.name.startswith("cmpi_"):
            return args[0].compare(_CMPI.get(row.name[5:], row.name[5:]), args[1])
        if row.name in _DIRECT:
            return _DIRECT[row.name](k, *args)
        expand = row.expand_cuda if k.module.is_gpu and row.expand_cuda else row.expand
        assert expand is not None, row.name
        if args[0].t.element.name == "f64":  # expansions are for f32: see the table
            return k.cast(expand(self, *(k.cast(x, "f32") for x in args)), "f64")
        return expand(self, *args)

    def _splat_together(self, args: Sequence[Val]) -> Sequence[Val]:
        lanes = max((x.t.lanes for x in args if x.t.kind == "vector"), default=0)
        return [x if not lanes or x.t.kind == "vector" else self.k.broadcast(x, lanes) for x in args]

    def _cast(self, name: str, x: Val, type_: str, source: str) -> Val:
        k = self.k
        if name == "bitcast" and is_code(type_):
            type_ = "i8"
        if name == "bitcast":
            return k.bitcast(x, k.vector_of(type_, x.t.lanes) if x.t.kind == "vector" else type_)
        if name == "extf" and source.startswith(("f8", "f4")):
            return k.decode_float(x, source, type_)
        if name == "truncf" and type_.startswith(("f8", "f4")):
            return k.encode_float(x, type_)
        if source == "i4" and name in ("extsi", "sitofp"):
            return k.cast((x << 4).sar(4), type_, signed=True)
        if type_ == "i4":
            return k.cast(x, "i8") & 15
        if name == "trunci" and type_ == "i1":  # the lowest bit, where cast to i1 would test against zero
            return k.emit("arith.trunci", (x,), k.mask_type(x.t))
        return k.cast(x, type_, signed=name not in ("extui", "uitofp", "fptoui"))


def rounded_bytes(region: ScalarRegion) -> dict[int, tuple[int, bool]]:
    """Values that are 8-bit integers, rounded to even and saturated, of an f32: (number of the f32, signed) of each."""
    first = len(region.args)

    def made_by(value: int, op: str) -> ScalarInst | None:
        inst = region.insts[value - first] if value >= first else None
        return inst if inst is not None and inst.op == op else None

    def bounded(value: int, op: str, bound: float) -> int | None:
        """What `value` is the `op` of, besides `bound`."""
        inst = made_by(value, op)
        for a, b in itertools.permutations(inst.args) if inst else ():
            limit = made_by(b, "const")
            if limit is not None and limit.attr("value") == bound:
                return a
        return None

    found = {}
    for number, inst in enumerate(region.insts, first):
        if inst.op in ("fptosi", "fptoui") and inst.type == "i8":
            signed = inst.op == "fptosi"
            bounds = (("maxf", -128.0), ("minf", 127.0)) if signed else (("maxf", 0.0), ("minf", 255.0))
            for order in (bounds, bounds[::-1]):
                inner = bounded(inst.args[0], *order[0])
                inner = None if inner is None else bounded(inner, *order[1])
                rounded = None if inner is None else made_by(inner, "roundeven")
                if rounded is not None and region.type_of(rounded.args[0]) == "f32":
                    found[number] = (rounded.args[0], signed)
    return found


def constant_divisors(region: ScalarRegion) -> dict[int, tuple[float, float]]:
    """Values that are quotients of an f32 by a constant: the parts of the constant's reciprocal, where it has such
    (`reciprocal_parts`)."""
    first = len(region.args)
    found = {}
    for number, inst in enumerate(region.insts, first):
        if inst.op == "divf" and inst.type == "f32" and inst.args[1] >= first:
            divisor = region.insts[inst.args[1] - first]
            parts = reciprocal_parts(divisor.attr("value")) if divisor.op == "const" else None
            if parts is not None:
                found[number] = parts
    return found


def emit_region(
    k: KernelBuilder,
    region: ScalarRegion,
    args: Sequence[Val] = (),
    *,
    load: Callable[[int], Val] | None = None,
    load_at: Callable[[int, Sequence[Val]], Val] | None = None,
    index: Callable[[int], Val] | None = None,
    dim: Callable[[str], Val] | None = None,
    lanes: int = 0,
) -> list[Val]:
    """Emit a region once and return its results.

    Args:
        k: the builder.
        region: the program.
        args: values of the region's arguments.
        load: value of an operand's element at the current index, by operand number; called once for each.
        load_at: value of an operand's element at computed i64 indices.
        index: i64 position along an axis of the iteration domain.
        dim: i64 value of a shape expression, by its text.
        lanes: vectors of this many lanes are returned, results that turned out uniform splatted; 0 returns values as they come.
    """
    if len(args) != len(region.args):
        raise ValueError(f"the region takes {len(region.args)} arguments ({', '.join(region.args)}), not {len(args)}")
    emitter = ScalarEmitter(k)
    values: list[Val] = list(args)
    loaded: dict[Any, Val] = {}

    def source(kind: str, loader: Callable[..., Val] | None, *key: Any) -> Val:
        if loader is None:
            raise NotImplementedError(f"this kernel's region has no {kind}")
        if (kind, *key) not in loaded:
            loaded[kind, *key] = loader(*key)
        return loaded[kind, *key]

    bytes_ = rounded_bytes(region) if k.module.is_gpu else {}
    divisors = constant_divisors(region) if k.module.is_gpu and not k.approximates else {}
    for inst in region.insts:
        if len(values) in bytes_:
            x, signed = bytes_[len(values)]
            value = k.round_to_byte(values[x], signed)  # type: ignore[attr-defined]
        elif len(values) in divisors:
            x = values[inst.args[0]]
            high, low = (k.const(part, x.t) for part in divisors[len(values)])
            value = k.fma(x, high, x * low)
        elif inst.op == "load":
            value = source("load", load, inst.attr("operand"))
        elif inst.op == "load_at":
            if load_at is None:
                raise NotImplementedError("this kernel's region has no load_at")
            value = load_at(inst.attr("operand"), [values[i] for i in inst.args])
        elif inst.op == "index":
            value = source("index", index, inst.attr("axis"))
        elif inst.op == "dim":
            value = source("dim", dim, inst.attr("dim"))
        elif inst.op == "const":
            value = emitter.const(inst.attr("value"), inst.type)
        else:
            operands = [values[i] for i in inst.args]
            operand_type = region.type_of(inst.args[0]) if inst.args else ""
            value = emitter.apply(TABLE[inst.op], operands, inst.type, operand_type)
        values.append(value)
    results = [values[i] for i in region.results]
    if lanes:
        results = [x if x.t.kind == "vector" else k.broadcast(x, lanes) for x in results]
    return results
