"""Elementwise operators: one `pointwise` each."""

from __future__ import annotations

import math
from collections.abc import Callable

from ingot.dtypes import DTYPES
from ingot.passes.onnx_lowering.lowering import Lowering, lowering
from ingot.passes.onnx_lowering.region_builder import RegionBuilder, Scalar
from ingot.passes.onnx_lowering.values import Known, Source, TypedValue

Unary = Callable[[RegionBuilder, Scalar], Scalar]
Binary = Callable[[RegionBuilder, Scalar, Scalar], Scalar]


def _by_kind(floating: str, signed: str, unsigned: str = "") -> Binary:
    """The row of the scalar table for the operands' kind."""

    def f(b: RegionBuilder, x: Scalar, y: Scalar) -> Scalar:
        row = floating if x.is_float else unsigned if unsigned and x.unsigned else signed
        return getattr(b, row)(x, y)

    return f


add = _by_kind("addf", "addi")
subtract = _by_kind("subf", "subi")
multiply = _by_kind("mulf", "muli")
divide = _by_kind("divf", "divsi", "divui")
larger = _by_kind("maxf", "maxsi", "maxui")
smaller = _by_kind("minf", "minsi", "minui")
less = _by_kind("cmpf_olt", "cmpi_slt", "cmpi_ult")
less_or_equal = _by_kind("cmpf_ole", "cmpi_sle", "cmpi_ule")
equal = _by_kind("cmpf_oeq", "cmpi_eq")

_BINARY: dict[str, Binary] = {
    "Add": add,
    "Sub": subtract,
    "Mul": multiply,
    "Div": divide,
    "Equal": equal,
    "Less": less,
    "LessOrEqual": less_or_equal,
    "Greater": lambda b, x, y: less(b, y, x),
    "GreaterOrEqual": lambda b, x, y: less_or_equal(b, y, x),
    "And": lambda b, x, y: b.andi(x, y),
    "Or": lambda b, x, y: b.ori(x, y),
    "Xor": lambda b, x, y: b.xori(x, y),
    "BitwiseAnd": lambda b, x, y: b.andi(x, y),
    "BitwiseOr": lambda b, x, y: b.ori(x, y),
    "BitwiseXor": lambda b, x, y: b.xori(x, y),
    "PRelu": lambda b, x, y: b.select(less(b, x, b.like(0, x)), multiply(b, x, y), x),
    "com.microsoft.BiasAdd": add,
}


@lowering(*_BINARY)
def _binary(low: Lowering) -> Source:
    f = _BINARY[low.op]
    return low.build.pointwise(low.type, low.shape, lambda b: f(b, b.load(low.source(0)), b.load(low.source(1))))


@lowering("BitShift")
def _bit_shift(low: Lowering) -> Source:
    """A shift by a negative amount, or by the width or more, leaves nothing, or the sign of a signed number to the right."""
    left = low.attr("direction") == "LEFT"

    def body(b: RegionBuilder) -> Scalar:
        x, amount = b.load(low.source(0)), b.load(low.source(1))
        bits = DTYPES[x.type].bits
        if not left and not x.unsigned:
            return b.shrsi(x, b.minui(amount, b.like(bits - 1, amount)))
        zero = b.like(0, x)
        inside = b.cmpi_ult(amount, b.like(bits, amount))
        amount = b.select(inside, amount, b.like(0, amount))
        return b.select(inside, b.shli(x, amount) if left else b.shrui(x, amount), zero)

    return low.build.pointwise(low.type, low.shape, body)


_VARIADIC: dict[str, Binary] = {"Max": larger, "Min": smaller, "Sum": add, "Mean": add}


@lowering(*_VARIADIC)
def _variadic(low: Lowering) -> Source:
    def body(b: RegionBuilder) -> Scalar:
        y = b.load(low.source(0))
        for i in range(1, len(low.sources)):
            y = _VARIADIC[low.op](b, y, b.load(low.source(i)))
        return b.divf(y, b.like(len(low.sources), y)) if low.op == "Mean" else y

    return low.build.pointwise(low.type, low.shape, body)


@lowering("Where")
def _where(low: Lowering) -> Source:
    return low.build.pointwise(low.type, low.shape, lambda b: b.select(*(b.load(low.source(i)) for i in range(3))))


@lowering("Mod")
def _mod(low: Lowering) -> Source:
    c_sign = bool(low.attr("fmod"))

    def body(b: RegionBuilder) -> Scalar:
        x, y = b.load(low.source(0)), b.load(low.source(1))
        if x.is_float:
            r = float_remainder(b, x, y)
            return r if c_sign else _with_sign_of_divisor(b, r, y)
        if x.unsigned:
            return b.remui(x, y)
        # The remainder has the sign of the dividend (fmod=1, as in C) or of the divisor (as in Python).
        return b.remsi(x, y) if c_sign else b.subi(x, b.muli(b.floordivsi(x, y), y))

    return low.build.pointwise(low.type, low.shape, body)


def float_remainder(b: RegionBuilder, x: Scalar, y: Scalar) -> Scalar:
    """x - trunc(x / y) * y; where rounding took the quotient past an integer, one divisor is given back."""
    size, divisor = b.absf(x), b.absf(y)
    quotient = b.floor(b.divf(size, divisor))
    r = b.fma(b.negf(quotient), divisor, size)
    r = b.select(b.cmpf_olt(r, b.like(0, r)), b.addf(r, divisor), r)
    r = b.select(b.cmpf_oge(r, divisor), b.subf(r, divisor), r)
    infinity = b.like(math.inf, x)
    r = b.select(b.andi(b.cmpf_oeq(divisor, infinity), b.cmpf_olt(size, infinity)), size, r)
    return b.select(b.cmpf_olt(x, b.like(0, x)), b.negf(r), r)


def _with_sign_of_divisor(b: RegionBuilder, r: Scalar, y: Scalar) -> Scalar:
    """A remainder as in Python: zero or of the divisor's sign."""
    zero = b.like(0, r)
    negative = b.cmpf_olt(y, zero)
    moved = b.select(b.xori(b.cmpf_olt(r, zero), negative), b.addf(r, y), r)
    return b.select(b.cmpf_oeq(r, zero), b.select(negative, b.like(-0.0, r), zero), moved)


_MAX_UNROLLED_POWER = 8


@lowering("Pow")
def _pow(low: Lowering) -> Source:
    exponent = low.source(1)
    constant = exponent.scalar if isinstance(exponent, Known) else None

    def body(b: RegionBuilder) -> Scalar:
        x = b.load(low.source(0))
        if isinstance(constant, int | float):
            y = _constant_power(b, x, constant)
            if y is not None:
                return y
        e = b.load(exponent)
        return b.pow(x, b.to_float(e, x.type)) if x.is_float else _integer_power(b, x, e)

    return low.build.pointwise(low.type, low.shape, body)


_EXPONENT_BITS = 6  # of integer powers: beyond 2**6, all but those of 0, 1 and -1 overflow


def _integer_power(b: RegionBuilder, x: Scalar, exponent: Scalar) -> Scalar:
    """An integer to the power of a number, by squares; powers that are no integers are cut off, as numpy's cast does."""
    if exponent.is_float:
        whole = b.floor(exponent)
        i = b.emit("fptosi", (whole,), "i64")
        exact = _integer_power(b, x, i)
        # The powers of exponents that are not whole are rarely near an integer, where an error of the function would show.
        rough = b.emit("fptosi", (b.pow(b.to_float(x, exponent.type), exponent),), x.type, unsigned=x.unsigned)
        return b.select(b.cmpf_oeq(whole, exponent), exact, rough)
    zero, one = b.const(0, "i64"), b.const(1, "i64")
    e = b.to_index(exponent)
    odd = b.andi(e, one)
    limit = b.const(1 << _EXPONENT_BITS, "i64")
    beyond = b.addi(b.const((1 << _EXPONENT_BITS) - 2, "i64"), odd)  # has the sign of the powers of -1
    n = b.select(b.cmpi_slt(e, zero), odd, b.select(b.cmpi_slt(e, limit), e, beyond))
    y, square = b.like(1, x), x
    for bit in range(_EXPONENT_BITS):
        taken = b.cmpi_ne(b.andi(n, b.const(1 << bit, "i64")), zero)
        y = b.select(taken, b.muli(y, square), y)
        square = b.muli(square, square)
    is_unit = b.ori(b.cmpi_eq(x, b.like(1, x)), b.cmpi_eq(x, b.like(-1, x)))
    return b.select(b.andi(b.cmpi_slt(e, zero), b.xori(is_unit, b.const(True, "i1"))), b.like(0, x), y)


def _constant_power(b: RegionBuilder, x: Scalar, exponent: float) -> Scalar | None:
    """x ** exponent by products and roots, or None."""
    if float(exponent).is_integer() and 0 <= exponent <= _MAX_UNROLLED_POWER:
        n = int(exponent)
        if n == 0:
            return b.like(1, x)
        # Squares in turn, as in binary exponentiation.
        y: Scalar | None = None
        square = x
        while n:
            if n & 1:
                y = square if y is None else multiply(b, y, square)
            n >>= 1
            if n:
                square = multiply(b, square, square)
        return y
    if x.is_float and exponent == 0.5:
        return b.sqrt(x)
    if x.is_float and exponent == -1:
        return b.divf(b.like(1, x), x)
    if x.is_float and exponent == -0.5:
        return b.divf(b.like(1, x), b.sqrt(x))
    return None


def power(b: RegionBuilder, x: Scalar, exponent: float) -> Scalar:
    """x ** exponent of a float."""
    y = _constant_power(b, x, exponent)
    return b.pow(x, b.like(exponent, x)) if y is None else y


# Functions of one argument --------------------------------------------------------------------------------------------


def softplus(b: RegionBuilder, x: Scalar) -> Scalar:
    """log(1 + exp(x)), without overflow."""
    tail = b.log(b.addf(b.like(1, x), b.exp(b.negf(b.absf(x)))))
    return b.addf(b.maxf(x, b.like(0, x)), tail)


def gelu(b: RegionBuilder, x: Scalar) -> Scalar:
    """x/2 * (1 + erf(x / sqrt(2)))."""
    inner = b.erf(b.mulf(x, b.like(math.sqrt(0.5), x)))
    return b.mulf(b.mulf(x, b.like(0.5, x)), b.addf(inner, b.like(1, x)))


def tanh_gelu(b: RegionBuilder, x: Scalar) -> Scalar:
    """x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 * x^3))), as (1 + tanh(u)) / 2 = sigmoid(2*u)."""
    factor = 2 * math.sqrt(2 / math.pi)
    slope = b.addf(b.mulf(b.mulf(x, x), b.like(0.044715 * factor, x)), b.like(factor, x))
    return b.mulf(x, b.sigmoid(b.mulf(x, slope)))


def clamp(b: RegionBuilder, x: Scalar, low: float, high: float) -> Scalar:
    """x within [low, high]."""
    return b.minf(b.maxf(x, b.like(low, x)), b.like(high, x))


def _abs(b: RegionBuilder, x: Scalar) -> Scalar:
    return b.absf(x) if x.is_float else x if x.unsigned else b.maxsi(x, b.subi(b.like(0, x), x))


def _negate(b: RegionBuilder, x: Scalar) -> Scalar:
    return b.negf(x) if x.is_float else b.subi(b.like(0, x), x)


def _sign(b: RegionBuilder, x: Scalar) -> Scalar:
    zero = b.like(0, x)
    minus = x if x.unsigned else b.select(less(b, x, zero), b.like(-1, x), x)
    return b.select(less(b, zero, x), b.like(1, x), minus)


def _cosh(b: RegionBuilder, x: Scalar) -> Scalar:
    e = b.exp(b.subf(b.absf(x), b.like(math.log(2), x)))
    return b.addf(e, b.divf(b.like(0.25, x), e))


def _invert(b: RegionBuilder, x: Scalar) -> Scalar:
    return b.xori(x, b.like(True if x.type == "i1" else -1, x))


_UNARY: dict[str, Unary] = {
    "Neg": _negate,
    "Abs": _abs,
    "Sign": _sign,
    "Relu": lambda b, x: larger(b, x, b.like(0, x)),
    "Sqrt": lambda b, x: b.sqrt(x),
    "Reciprocal": lambda b, x: b.divf(b.like(1, x), x),
    "Floor": lambda b, x: b.floor(x),
    "Ceil": lambda b, x: b.ceil(x),
    "Round": lambda b, x: b.roundeven(x),
    "Exp": lambda b, x: b.exp(x),
    "Log": lambda b, x: b.log(x),
    "Sin": lambda b, x: b.sin(x),
    "Cos": lambda b, x: b.cos(x),
    "Tan": lambda b, x: b.divf(b.sin(x), b.cos(x)),
    "Tanh": lambda b, x: b.tanh(x),
    "Cosh": _cosh,
    "Sinh": lambda b, x: b.mulf(b.tanh(x), _cosh(b, x)),
    "Erf": lambda b, x: b.erf(x),
    "Sigmoid": lambda b, x: b.sigmoid(x),
    "HardSwish": lambda b, x: b.mulf(x, clamp(b, b.fma(x, b.like(1 / 6, x), b.like(0.5, x)), 0.0, 1.0)),
    "Softplus": softplus,
    "Softsign": lambda b, x: b.divf(x, b.addf(b.like(1, x), b.absf(x))),
    "Mish": lambda b, x: b.mulf(x, b.tanh(softplus(b, x))),
    "Not": _invert,
    "BitwiseNot": _invert,
    "IsNaN": lambda b, x: b.cmpf_uno(x, x),
    "com.microsoft.Gelu": gelu,
}


@lowering(*_UNARY)
def _unary(low: Lowering) -> Source:
    f = _UNARY[low.op]
    return low.build.pointwise(low.type, low.shape, lambda b: f(b, b.load(low.source(0))))


@lowering("Identity")
def _identity(low: Lowering) -> Source:
    return low.source(0)


@lowering("Dropout")
def _dropout(low: Lowering) -> list[Source | None]:
    """Nothing is dropped outside training."""
    keeps = low.build.pointwise(low.result(1).type, low.shape, lambda b: b.const(True, "i1")) if low.used[1] else None
    return [low.source(0), keeps]


@lowering("IsInf")
def _is_inf(low: Lowering) -> Source:
    def body(b: RegionBuilder) -> Scalar:
        x = b.load(low.source(0))
        positive = b.cmpf_oeq(x, b.like(math.inf, x))
        negative = b.cmpf_oeq(x, b.like(-math.inf, x))
        wanted = [c for c, name in ((positive, "detect_positive"), (negative, "detect_negative")) if low.attr(name)]
        if not wanted:
            return b.const(False, "i1")
        return wanted[0] if len(wanted) == 1 else b.ori(*wanted)

    return low.build.pointwise(low.type, low.shape, body)


def _exponential(b: RegionBuilder, x: Scalar, alpha: float, gamma: float = 1.0, divisor: float = 1.0) -> Scalar:
    """gamma * x where x > 0, else gamma * alpha * (exp(x / divisor) - 1)."""
    zero = b.like(0, x)
    y = b.minf(x, zero)
    if divisor != 1.0:
        y = b.divf(y, b.like(divisor, x))
    negative = b.mulf(b.like(gamma * alpha, x), b.subf(b.exp(y), b.like(1, x)))
    return b.select(b.cmpf_olt(zero, x), x if gamma == 1.0 else b.mulf(b.like(gamma, x), x), negative)


def _shrink(low: Lowering, b: RegionBuilder, x: Scalar) -> Scalar:
    bias, limit, zero = b.like(low.attr("bias"), x), low.attr("lambd"), b.like(0, x)
    above = b.select(b.cmpf_olt(b.like(limit, x), x), b.subf(x, bias), zero)
    return b.select(b.cmpf_olt(x, b.like(-limit, x)), b.addf(x, bias), above)


Parameterized = Callable[[Lowering, RegionBuilder, Scalar], Scalar]

_PARAMETERIZED: dict[str, Parameterized] = {
    "LeakyRelu": lambda low, b, x: b.select(b.cmpf_olt(x, b.like(0, x)), b.mulf(x, b.like(low.attr("alpha"), x)), x),
    "HardSigmoid": lambda low, b, x: clamp(b, b.fma(x, b.like(low.attr("alpha"), x), b.like(low.attr("beta"), x)), 0.0, 1.0),
    "Elu": lambda low, b, x: _exponential(b, x, low.attr("alpha")),
    "Selu": lambda low, b, x: _exponential(b, x, low.attr("alpha"), low.attr("gamma")),
    "Celu": lambda low, b, x: _exponential(b, x, low.attr("alpha"), 1.0, low.attr("alpha")),
    "ThresholdedRelu": lambda low, b, x: b.select(b.cmpf_olt(b.like(low.attr("alpha"), x), x), x, b.like(0, x)),
    "Shrink": _shrink,
    "Swish": lambda low, b, x: b.mulf(x, b.sigmoid(b.mulf(x, b.like(low.attr("alpha"), x)))),
    "com.microsoft.QuickGelu": lambda low, b, x: b.mulf(x, b.sigmoid(b.mulf(x, b.like(low.attr("alpha"), x)))),
    "Gelu": lambda low, b, x: tanh_gelu(b, x) if low.attr("approximate") == "tanh" else gelu(b, x),
}


@lowering(*_PARAMETERIZED)
def _parameterized(low: Lowering) -> Source:
    f = _PARAMETERIZED[low.op]
    return low.build.pointwise(low.type, low.shape, lambda b: f(low, b, b.load(low.source(0))))


@lowering("com.microsoft.BiasGelu", "com.microsoft.FastGelu")
def _bias_gelu(low: Lowering) -> Source:
    f = gelu if low.op == "com.microsoft.BiasGelu" else tanh_gelu

    def body(b: RegionBuilder) -> Scalar:
        x = b.load(low.source(0))
        return f(b, b.addf(x, b.load(low.source(1))) if low.has(1) else x)

    return low.build.pointwise(low.type, low.shape, body)


@lowering("Clip")
def _clip(low: Lowering) -> Source:
    def body(b: RegionBuilder) -> Scalar:
        x = b.load(low.source(0))
        if low.has(1):
            x = larger(b, x, b.load(low.source(1)))
        return smaller(b, x, b.load(low.source(2))) if low.has(2) else x

    return low.build.pointwise(low.type, low.shape, body)


@lowering("BitCast")
def _bit_cast(low: Lowering) -> Source:
    source = low.source(0)
    if source.type.storage == low.type.storage:  # of another sign at most
        x = low.build.tensor(source)
        return TypedValue(x.value, low.type, x.shape)
    if "i1" in (source.type.storage, low.type.storage):  # a byte that is 0 or 1
        return low.build.stored(low.type, low.shape, lambda b: b.cast(b.load(source), low.type))
    return low.build.stored(low.type, low.shape, lambda b: b.emit("bitcast", (b.load_stored(source),), low.type.storage))


@lowering("Cast", "CastLike")
def _cast(low: Lowering) -> Source:
    source = low.source(0)
    if source.type == low.type:
        return source
    saturate, round_mode = low.attr("saturate") != 0, low.attr("round_mode")
    if round_mode not in ("up", "down", "nearest"):
        raise low.fail(f"round_mode {round_mode!r} is not supported", "use up, down or nearest")

    def body(b: RegionBuilder) -> Scalar:
        return b.cast(b.load(source), low.type, saturate=saturate, round_mode=round_mode)

    return low.build.stored(low.type, low.shape, body)
