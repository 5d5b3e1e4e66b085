"""Scalar regions as values: building, joining and simplifying them without touching MLIR.

`RegionBuilder` numbers instructions as they come, folds constants, drops identities and finds repeated instructions; what a
region does not need is left out by `finish`. Fusion is `inline` of one region into another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ingot import dims
from ingot.dialects.scalar_table import TABLE
from ingot.dispatch import Attr, ScalarInst, ScalarRegion
from ingot.dtypes import DTYPES

__all__ = ["RegionBuilder", "cost", "identity", "loaded", "simplify"]

# Relative cost of scalar operations in units of an addition; operations that the table does not name cost 1.
_COSTS = {"divf": 4, "sqrt": 4, "rsqrt": 4, "exp": 10, "log": 12, "tanh": 12, "erf": 12, "sigmoid": 12, "sin": 12, "cos": 12,
          "pow": 24, "divsi": 8, "divui": 8, "remsi": 8, "remui": 8, "floordivsi": 8, "load_at": 4}  # fmt: skip
_FREE = frozenset({"load", "const", "dim", "index", "extf", "truncf", "extsi", "extui", "trunci", "bitcast"})
# Not maxf and minf: of 0.0 and -0.0 numpy gives whichever comes first.
_COMMUTATIVE = frozenset({"addf", "mulf", "addi", "muli", "andi", "ori", "xori", "maxsi", "minsi", "maxui",
                          "minui", "cmpf_oeq", "cmpf_one", "cmpf_une", "cmpi_eq", "cmpi_ne"})  # fmt: skip
_OWN = frozenset({"load", "load_at", "index", "dim", "const"})  # operations that the scalar table does not hold
_WIDENING = {"extf": "truncf", "extsi": "trunci", "extui": "trunci"}  # cast -> the cast that undoes it


def identity(dtype: str) -> ScalarRegion:
    """The region that yields its only argument."""
    return ScalarRegion((dtype,), (), (0,))


def cost(region: ScalarRegion) -> int:
    """The work of one run of a region, in units of an addition; loads, constants and widening casts count nothing."""
    return sum(0 if i.op in _FREE else _COSTS.get(i.op, 1) for i in region.insts)


def loaded(region: ScalarRegion) -> dict[int, set[str]]:
    """The numbers of the operands that a region reads, each with the instructions (`load`, `load_at`) that read it."""
    found: dict[int, set[str]] = {}
    for inst in region.insts:
        if inst.op in ("load", "load_at"):
            found.setdefault(inst.attr("operand"), set()).add(inst.op)
    return found


class RegionBuilder:
    """Builds a scalar region; values are numbers, the arguments' first.

    Args:
        args: types of the region's arguments.
    """

    def __init__(self, args: Sequence[str] = ()) -> None:
        self.args = tuple(args)
        self.insts: list[ScalarInst] = []
        self._known: dict[ScalarInst, int] = {}

    def type_of(self, value: int) -> str:
        """The type of a value."""
        return self.args[value] if value < len(self.args) else self.insts[value - len(self.args)].type

    def inst(self, value: int) -> ScalarInst | None:
        """The instruction that makes a value; None for an argument."""
        return None if value < len(self.args) else self.insts[value - len(self.args)]

    def constant(self, value: int) -> Any:
        """The Python number of a constant value; None for others."""
        inst = self.inst(value)
        return inst.attr("value") if inst is not None and inst.op == "const" else None

    def const(self, value: Any, dtype: str) -> int:
        """A constant."""
        kind = DTYPES[dtype].kind
        number = bool(value) if kind == "bool" else int(value) if kind == "int" else float(value)
        return self._append(ScalarInst("const", (), dtype, (("value", number),)))

    def emit(self, op: str, *args: int, type: str | None = None, **attrs: Attr) -> int:
        """An instruction, or the value that it is known to equal.

        Args:
            op: a row of the scalar table, `load`, `load_at`, `index` or `dim`.
            type: of the result; may be left out where the row implies it.
        """
        if type is None:
            type = "i1" if TABLE[op].result == "i1" else self.type_of(args[-1])
        if op in _COMMUTATIVE and self.constant(args[0]) is not None and self.constant(args[1]) is None:
            args = (args[1], args[0])
        inst = ScalarInst(op, tuple(args), type, tuple(sorted(attrs.items())))
        simpler = self._simplified(inst)
        return self._append(inst) if simpler is None else simpler

    def inline(
        self,
        region: ScalarRegion,
        args: Sequence[int] = (),
        *,
        operands: Mapping[int, int] | None = None,
        replace: Callable[[ScalarInst, tuple[int, ...]], int | None] | None = None,
    ) -> list[int]:
        """Append a region's instructions.

        Args:
            args: values for its arguments.
            operands: new numbers of the operands it loads; those not named keep theirs.
            replace: asked for every instruction, with its arguments as values of this builder; what it returns, unless None,
                stands for the instruction.

        Returns:
            the values that the region yields.
        """
        values = list(args)
        for inst in region.insts:
            mapped = tuple(values[a] for a in inst.args)
            if replace is not None and (value := replace(inst, mapped)) is not None:
                values.append(value)
                continue
            attrs = dict(inst.attrs)
            if operands is not None and "operand" in attrs:
                attrs["operand"] = operands.get(attrs["operand"], attrs["operand"])  # type: ignore[arg-type]
            values.append(
                self.const(attrs["value"], inst.type)
                if inst.op == "const"
                else self.emit(inst.op, *mapped, type=inst.type, **attrs)
            )
        return [values[r] for r in region.results]

    def finish(self, results: Sequence[int]) -> ScalarRegion:
        """The region that yields `results`, without instructions that they do not need."""
        base = len(self.args)
        needed: set[int] = set()
        work = list(results)
        while work:
            value = work.pop()
            if value >= base and value not in needed:
                needed.add(value)
                work += self.insts[value - base].args
        numbers = {i: i for i in range(base)}
        insts: list[ScalarInst] = []
        for value in sorted(needed):
            inst = self.insts[value - base]
            numbers[value] = base + len(insts)
            insts.append(ScalarInst(inst.op, tuple(numbers[a] for a in inst.args), inst.type, inst.attrs))
        return ScalarRegion(self.args, tuple(insts), tuple(numbers[r] for r in results))

    def _append(self, inst: ScalarInst) -> int:
        key = inst
        if inst.op == "const":  # 0.0 equals -0.0 and 1 equals True, but they are other constants; NaN equals nothing
            key = ScalarInst("const", (), inst.type, (("value", repr(inst.attr("value"))),))
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = len(self.args) + len(self.insts)
            self.insts.append(inst)
        return found

    def _simplified(self, inst: ScalarInst) -> int | None:
        """A value that an instruction equals, or None: bit for bit, but for functions that are approximated anyway."""
        op, args = inst.op, inst.args
        if op == "dim":
            d = dims.parse(inst.attr("dim"))
            return self.const(d, inst.type) if isinstance(d, int) else None
        if op in _OWN:
            return None
        constants = [self.constant(a) for a in args]
        if TABLE[op].exact and all(c is not None for c in constants):
            return self._folded(inst, constants)
        if op == "select":
            if args[1] == args[2]:
                return args[1]
            return None if constants[0] is None else args[1] if constants[0] else args[2]
        if TABLE[op].result == "cast":
            return self._simplified_cast(inst)
        if op == "negf" and (inner := self.inst(args[0])) is not None and inner.op == "negf":
            return inner.args[0]
        if op == "pow":
            return self._simplified_power(args[0], constants[1])
        if len(args) == 2:
            return self._simplified_binary(inst, constants[1])
        return None

    def _folded(self, inst: ScalarInst, constants: Sequence[Any]) -> int | None:
        row = TABLE[inst.op]
        arrays = [np.asarray(c).astype(DTYPES[self.type_of(a)].np) for c, a in zip(constants, inst.args, strict=True)]
        dtype = DTYPES[inst.type].np
        with np.errstate(all="ignore"):
            value = np.asarray(row.numpy(*arrays, dtype) if row.result == "cast" else row.numpy(*arrays))
        number = value.astype(np.float64) if DTYPES[inst.type].kind == "float" else value
        return self.const(number.item(), inst.type)

    def _simplified_cast(self, inst: ScalarInst) -> int | None:
        (x,) = inst.args
        if self.type_of(x) == inst.type and inst.op not in ("sitofp", "uitofp", "fptosi", "fptoui"):
            return x
        inner = self.inst(x)
        if inner is None or inst.op == "bitcast":
            return None
        if _WIDENING.get(inner.op) == inst.op and self.type_of(inner.args[0]) == inst.type:
            return inner.args[0]
        if inst.op == inner.op and inst.op in _WIDENING:
            return self.emit(inst.op, inner.args[0], type=inst.type)
        return None

    def _simplified_power(self, x: int, exponent: Any) -> int | None:
        match exponent:
            case 1.0:
                return x
            case 2.0:
                return self.emit("mulf", x, x)
            case 3.0:
                return self.emit("mulf", self.emit("mulf", x, x), x)
            case -1.0:
                return self.emit("divf", self.const(1.0, self.type_of(x)), x)
        return None

    def _simplified_tanh(self, x: int, y: int) -> int | None:
        """The product of x and y where one is a half, or something halved, and the other 1 + tanh(u), as exporters write out a
        GELU: (1 + tanh(u)) / 2 = sigmoid(2*u), which takes a third of the instructions and loses no digits for u < 0."""
        for half, other in ((x, y), (y, x)):
            total = self.inst(other)
            if total is None or total.op != "addf" or self.constant(total.args[1]) != 1.0:
                continue
            tanh, product = self.inst(total.args[0]), self.inst(half)
            if tanh is None or tanh.op != "tanh":
                continue
            halved = product is not None and product.op == "mulf" and self.constant(product.args[1]) == 0.5
            if halved or self.constant(half) == 0.5:
                u = tanh.args[0]
                logistic = self.emit("sigmoid", self.emit("mulf", u, self.const(2.0, self.type_of(u))))
                return self.emit("mulf", product.args[0], logistic) if halved and product is not None else logistic
        return None

    def _simplified_binary(self, inst: ScalarInst, right: Any) -> int | None:
        op, (x, y) = inst.op, inst.args
        if op == "mulf" and (logistic := self._simplified_tanh(x, y)) is not None:
            return logistic
        if op in ("maxf", "minf", "maxsi", "minsi", "maxui", "minui", "andi", "ori") and x == y:
            return x
        if right is None:
            return None
        neutral = _NEUTRAL.get(op)
        if neutral is not None and right == neutral and (op not in ("addf", "subf") or _signed_zero(right, op)):
            return x
        if op in ("muli", "andi") and right == 0:
            return y
        if op in ("remsi", "remui") and right == 1:
            return self.const(0, inst.type)
        if op in ("andi", "ori") and inst.type == "i1":
            return x if bool(right) == (op == "andi") else y
        if op in ("addi", "muli") and (inner := self.inst(x)) is not None and inner.op == op:
            # (a + c) + d = a + (c + d): index arithmetic of views of views.
            c = self.constant(inner.args[1])
            if c is not None:
                return self.emit(op, inner.args[0], self.emit(op, inner.args[1], y))
        return None


_NEUTRAL = {"addf": 0.0, "subf": 0.0, "mulf": 1.0, "divf": 1.0, "addi": 0, "subi": 0, "muli": 1, "divsi": 1, "divui": 1,
            "floordivsi": 1, "ori": 0, "xori": 0, "shli": 0, "shrsi": 0, "shrui": 0}  # fmt: skip


def _signed_zero(value: float, op: str) -> bool:
    """x + -0.0 and x - 0.0 equal x for every x; x + 0.0 turns -0.0 into 0.0."""
    negative = np.signbit(value)
    return bool(negative) if op == "addf" else not negative


def simplify(region: ScalarRegion) -> ScalarRegion:
    """An equal region with constants folded, identities dropped, and no instruction that is repeated or not needed."""
    builder = RegionBuilder(region.args)
    return builder.finish(builder.inline(region, range(len(region.args))))
