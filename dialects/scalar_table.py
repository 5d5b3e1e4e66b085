"""The scalar table: every operation that a scalar region may contain, in one row each.

A row says what an operation is called, which types it takes, what it means (a numpy function), how it is lowered and how far
its lowered form may be from the exact result. Constant folding, the verifier, the CPU, the GPU and the emulator all read this
table; nothing else knows a scalar operation.

A row lowers either to one MLIR operation (`mlir`), or by an expansion: a function over a `ScalarBuilder`, which offers every
row as a method. Where a GPU has an instruction for it, `expand_cuda` replaces `expand`. Mathematical functions never call a
library: neither libm nor libdevice is linked.

Floating-point regions compute in f32 (or f64): loads of narrower types are followed by `extf`, stores preceded by `truncf`.
Expansions are for f32; coefficients are those of the Cephes library (S. Moshier) and of the rational minimax approximations
used by Eigen for tanh and erf.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

V = Any  # a value of the builder at hand: an MLIR value, a numpy array, ...


class ScalarBuilder(Protocol):
    """What expansions are written against: constants, and each row of the table as a method of its name.

    Casts take the result type as a keyword: `b.bitcast(x, type="i32")`.
    """

    def const(self, value: float, type: str) -> V: ...

    def const_like(self, value: float, like: V) -> V: ...

    def __getattr__(self, name: str) -> Callable[..., V]: ...


@dataclass(frozen=True)
class ScalarOp:
    """A row of the table.

    Attributes:
        name: operation name in the `ingot` dialect without the prefix.
        params: one letter per operand: `f` float, `i` integer (i1 included), `b` i1, `x` any.
        result: `same` (type of the last operand), `i1`, or `cast` (given by the operation's result).
        numpy: its meaning on numpy arrays of its operands' types; casts get the result's numpy dtype as a second argument.
        mlir: the operation it lowers to, with `predicate` where that takes one.
        expand, expand_cuda: expansions over a `ScalarBuilder`.
        exact: True where every implementation gives the same bits (IEEE-exact or integer), so that folding is allowed.
        bound: largest relative error of the lowered form against the exact result, in units of 2**-24, over its usual range.
        cuda_only: True for instructions that only expansions for CUDA use.
    """

    name: str
    params: str
    result: str
    numpy: Callable[..., Any]
    mlir: str = ""
    predicate: str = ""
    expand: Callable[..., V] | None = None
    expand_cuda: Callable[..., V] | None = None
    exact: bool = True
    bound: float = 0.0
    cuda_only: bool = False


def _poly(b: ScalarBuilder, x: V, coefficients: tuple[float, ...]) -> V:
    """Horner's rule, highest degree first."""
    r = b.const(coefficients[0], "f32")
    for c in coefficients[1:]:
        r = b.fma(r, x, b.const(c, "f32"))
    return r


def _clamp(b: ScalarBuilder, x: V, low: float, high: float) -> V:
    """x within [low, high]; NaN stays NaN."""
    return b.minf(b.maxf(x, b.const(low, "f32")), b.const(high, "f32"))


_LOG2E, _LN2_HI, _LN2_LO = 1.44269504088896341, 0.693359375, -2.12194440e-4
_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
_ROUND = 12582912.0  # 1.5 * 2**23: adding it leaves the nearest integer in the low bits


def _exp(b: ScalarBuilder, x: V) -> V:
    """e**x: x = n*ln2 + r, e**r by a polynomial, 2**n in two halves so that neither over- nor underflows early."""
    x = _clamp(b, x, -104.0, 89.0)
    shifted = b.fma(x, b.const(_LOG2E, "f32"), b.const(_ROUND, "f32"))
    n = b.subf(shifted, b.const(_ROUND, "f32"))
    r = b.fma(n, b.const(-_LN2_HI, "f32"), x)
    r = b.fma(n, b.const(-_LN2_LO, "f32"), r)
    p = b.fma(_poly(b, r, _EXP), b.mulf(r, r), b.addf(r, b.const(1.0, "f32")))
    k = b.subi(b.bitcast(shifted, type="i32"), b.const(0x4B400000, "i32"))
    half = b.shrsi(k, b.const(1, "i32"))
    return b.mulf(b.mulf(p, _exp2_integer(b, half)), _exp2_integer(b, b.subi(k, half)))


def _exp2_integer(b: ScalarBuilder, k: V) -> V:
    """2**k for an i32 k in [-126, 127]."""
    return b.bitcast(b.shli(b.addi(k, b.const(127, "i32")), b.const(23, "i32")), type="f32")


def _exp_cuda(b: ScalarBuilder, x: V) -> V:
    """ex2.approx of the rounded product x*log2(e), corrected by the product's rounding error."""
    x = _clamp(b, x, -104.0, 128.0)
    log2e = b.const(_LOG2E, "f32")
    t = b.mulf(x, log2e)
    e = b.fma(x, b.const(1.925963033500e-8, "f32"), b.fma(x, log2e, b.negf(t)))
    return b.mulf(b.ex2_approx(t), b.fma(e, b.const(0.69314718056, "f32"), b.const(1.0, "f32")))


_LOG = (7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
        2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1)  # fmt: skip


def _log(b: ScalarBuilder, x: V) -> V:
    """ln x: x = m * 2**e with m in [sqrt(1/2), sqrt(2)); denormals are scaled up first."""
    zero, one, inf = b.const(0.0, "f32"), b.const(1.0, "f32"), b.const(float("inf"), "f32")
    small = b.cmpf_olt(x, b.const(1.17549435e-38, "f32"))
    scaled = b.select(small, b.mulf(x, b.const(8388608.0, "f32")), x)
    bits = b.bitcast(scaled, type="i32")
    # Subtracting the bits of sqrt(1/2) makes the exponent field count from there.
    above = b.subi(bits, b.const(0x3F3504F3, "i32"))
    e = b.sitofp(b.shrsi(above, b.const(23, "i32")), type="f32")
    e = b.subf(e, b.select(small, b.const(23.0, "f32"), zero))
    m = b.bitcast(b.addi(b.andi(above, b.const(0x007FFFFF, "i32")), b.const(0x3F3504F3, "i32")), type="f32")
    f = b.subf(m, one)
    f2 = b.mulf(f, f)
    y = b.mulf(b.mulf(_poly(b, f, _LOG), f), f2)
    y = b.fma(e, b.const(_LN2_LO, "f32"), y)
    y = b.fma(f2, b.const(-0.5, "f32"), y)
    y = b.fma(e, b.const(_LN2_HI, "f32"), b.addf(f, y))
    y = b.select(b.cmpf_oeq(x, zero), b.const(float("-inf"), "f32"), y)
    y = b.select(b.cmpf_olt(x, zero), b.const(float("nan"), "f32"), y)
    return b.select(b.cmpf_oeq(x, inf), inf, b.select(b.cmpf_uno(x, x), x, y))


_TANH_P = (-2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08,
           1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03)  # fmt: skip
_TANH_Q = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)
_ERF_P = (-2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05,
          -7.34990630326855e-04, -2.95459980854025e-03, -1.60960333262415e-02)  # fmt: skip
_ERF_Q = (-1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03, -1.42647390514189e-02)


Expansion = Callable[..., V]


def _rational(limit: float, p: tuple[float, ...], q: tuple[float, ...]) -> tuple[Expansion, Expansion]:
    """An odd rational approximation x*P(x^2)/Q(x^2), constant beyond +-limit: by division, and by CUDA's reciprocal."""

    def expand(b: ScalarBuilder, x: V) -> V:
        x = _clamp(b, x, -limit, limit)
        x2 = b.mulf(x, x)
        return b.divf(b.mulf(x, _poly(b, x2, p)), _poly(b, x2, q))

    def expand_cuda(b: ScalarBuilder, x: V) -> V:
        x = _clamp(b, x, -limit, limit)
        x2 = b.mulf(x, x)
        return b.mulf(b.mulf(x, _poly(b, x2, p)), b.rcp_approx(_poly(b, x2, q)))

    return expand, expand_cuda


_TANH, _TANH_CUDA = _rational(7.90531110763549805, _TANH_P, _TANH_Q)
_ERF, _ERF_CUDA = _rational(3.832506856900711, _ERF_P, _ERF_Q)


def _sigmoid(b: ScalarBuilder, x: V) -> V:
    one = b.const(1.0, "f32")
    return b.divf(one, b.addf(one, b.exp(b.negf(x))))


def _sigmoid_cuda(b: ScalarBuilder, x: V) -> V:
    return b.rcp_approx(b.addf(b.const(1.0, "f32"), b.ex2_approx_ftz(b.mulf(x, b.const(-_LOG2E, "f32")))))


_PI2 = (1.5703125, 4.837512969970703125e-4, 7.54978995489188216e-8)  # pi/2 in three parts, for |x| up to about 2**16
_SIN = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
_COS = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)


def _sin_cos(quadrant_offset: int) -> Callable[[ScalarBuilder, V], V]:
    """sin(x + quadrant_offset*pi/2) by reduction to [-pi/4, pi/4] (Cody and Waite, 1980)."""

    def expand(b: ScalarBuilder, x: V) -> V:
        shifted = b.fma(x, b.const(0.63661977236758134, "f32"), b.const(_ROUND, "f32"))
        n = b.subf(shifted, b.const(_ROUND, "f32"))
        r = x
        for part in _PI2:
            r = b.fma(n, b.const(-part, "f32"), r)
        r2 = b.mulf(r, r)
        sine = b.fma(b.mulf(_poly(b, r2, _SIN), r2), r, r)
        cosine = b.fma(b.mulf(_poly(b, r2, _COS), r2), r2, b.fma(r2, b.const(-0.5, "f32"), b.const(1.0, "f32")))
        q = b.addi(b.bitcast(shifted, type="i32"), b.const(quadrant_offset, "i32"))
        zero = b.const(0, "i32")
        odd = b.cmpi_ne(b.andi(q, b.const(1, "i32")), zero)
        negative = b.cmpi_ne(b.andi(q, b.const(2, "i32")), zero)
        y = b.select(odd, cosine, sine)
        return b.select(negative, b.negf(y), y)

    return expand


_ATAN = (8.05374449538e-2, -1.38776856032e-1, 1.99777106478e-1, -3.33329491539e-1)


def _atan(b: ScalarBuilder, x: V) -> V:
    """atan x: |x| beyond tan(3*pi/8) and tan(pi/8) is turned by pi/2 and pi/4, with one division; x's sign is put back."""
    a, one, zero = b.absf(x), b.const(1.0, "f32"), b.const(0.0, "f32")
    far = b.cmpf_ogt(a, b.const(2.414213562373095, "f32"))
    near = b.cmpf_ole(a, b.const(0.4142135623730950, "f32"))
    numerator = b.select(far, b.const(-1.0, "f32"), b.select(near, a, b.subf(a, one)))
    r = b.divf(numerator, b.select(far, a, b.select(near, one, b.addf(a, one))))
    turn = b.select(far, b.const(1.5707963267948966, "f32"), b.select(near, zero, b.const(0.7853981633974483, "f32")))
    r2 = b.mulf(r, r)
    y = b.addf(turn, b.fma(b.mulf(_poly(b, r2, _ATAN), r2), r, r))
    sign = b.andi(b.bitcast(x, type="i32"), b.const(-(2**31), "i32"))
    return b.bitcast(b.ori(b.bitcast(y, type="i32"), sign), type="f32")


def _pow(b: ScalarBuilder, x: V, y: V) -> V:
    """x**y as exp(y*ln|x|), with the sign of an odd integer power of a negative base."""
    zero, one = b.const(0.0, "f32"), b.const(1.0, "f32")
    magnitude = b.exp(b.mulf(y, b.log(b.absf(x))))
    whole = b.floor(y)
    is_integer = b.cmpf_oeq(whole, y)
    half = b.mulf(whole, b.const(0.5, "f32"))
    is_odd = b.cmpf_one(b.floor(half), half)
    negative = b.select(is_odd, b.negf(magnitude), magnitude)
    negative = b.select(is_integer, negative, b.const(float("nan"), "f32"))
    result = b.select(b.cmpf_olt(x, zero), negative, magnitude)
    return b.select(b.cmpf_oeq(y, zero), one, b.select(b.cmpf_oeq(x, one), one, result))


def _rsqrt(b: ScalarBuilder, x: V) -> V:
    return b.divf(b.const(1.0, "f32"), b.sqrt(x))


def _guarded_division(name: str) -> Callable[..., V]:
    """Integer division that never traps: dividing by 0 divides by 1, by -1 negates (both undefined in ONNX's terms)."""

    def expand(b: ScalarBuilder, x: V, y: V) -> V:
        zero, one = b.const_like(0, y), b.const_like(1, y)
        minus = b.const_like(-1, y)
        safe = b.select(b.cmpi_eq(y, zero), one, y)
        if name.endswith("ui_raw"):
            return getattr(b, name)(x, safe)
        is_minus = b.cmpi_eq(safe, minus)
        quotient = getattr(b, name)(x, b.select(is_minus, one, safe))
        return b.select(is_minus, b.subi(zero, x) if name.startswith("div") else zero, quotient)

    return expand


def _floordivsi(b: ScalarBuilder, x: V, y: V) -> V:
    q = b.divsi(x, y)
    zero = b.const_like(0, y)
    inexact = b.cmpi_ne(b.muli(q, y), x)
    opposite = b.cmpi_slt(b.xori(x, y), zero)
    return b.select(b.andi(inexact, opposite), b.subi(q, b.const_like(1, y)), q)


def _np_div_trunc(x: Any, y: Any) -> Any:
    y = np.where(y == 0, 1, y).astype(np.asarray(x).dtype)
    q = x // y
    return np.where((q < 0) & (q * y != x), q + 1, q).astype(np.asarray(x).dtype)


def _unsigned(a: Any) -> np.ndarray:
    a = np.asarray(a)
    if a.dtype.name == "int4":  # one a byte here, sign-extended
        return a.view(np.uint8) & 15
    return a.view(f"u{a.dtype.itemsize}") if a.dtype.kind == "i" else a


def _as_unsigned(f: Callable[..., Any]) -> Callable[..., Any]:
    def g(x: Any, y: Any) -> Any:
        r = np.asarray(f(_unsigned(x), _unsigned(y)))
        return r.view(np.asarray(x).dtype) if r.dtype.kind == "u" else r

    return g


def _np_erf(x: Any) -> Any:
    import math

    x = np.asarray(x)
    return np.array([math.erf(v) for v in x.ravel().tolist()], np.float64).reshape(x.shape).astype(x.dtype)


def _quiet(f: Callable[..., Any]) -> Callable[..., Any]:
    def g(*args: Any) -> Any:
        with np.errstate(all="ignore"):
            return f(*args)

    return g


def _cast(x: Any, dtype: Any) -> Any:
    return np.asarray(x).astype(dtype)


def _fptoui(x: Any, dtype: Any) -> Any:
    dtype = np.dtype(dtype)
    y = np.asarray(x).astype(f"u{dtype.itemsize}")
    return y.astype(dtype) if dtype.name == "int4" else y.view(dtype)  # int4 keeps the low bits


def _truncf(x: Any, dtype: Any) -> Any:
    """A narrower float; of 8 and 4 bits the largest finite one stands for all that exceed it (ONNX's Cast, `saturate`)."""
    x, dtype = np.asarray(x), np.dtype(dtype)
    if dtype.itemsize == 1:
        import ml_dtypes

        largest = float(ml_dtypes.finfo(dtype).max)
        x = np.clip(x, -largest, largest)
    return x.astype(dtype)


def _fma(x: Any, y: Any, z: Any) -> Any:
    dtype = np.asarray(x).dtype
    return (np.asarray(x, np.float64) * np.asarray(y, np.float64) + np.asarray(z, np.float64)).astype(dtype)


_FLOAT_COMPARE = {
    "oeq": lambda x, y: x == y,
    "one": lambda x, y: (x < y) | (x > y),
    "olt": lambda x, y: x < y,
    "ole": lambda x, y: x <= y,
    "ogt": lambda x, y: x > y,
    "oge": lambda x, y: x >= y,
    "une": lambda x, y: x != y,
    "uno": lambda x, y: np.isnan(x) | np.isnan(y),
}
_INT_COMPARE = {
    "eq": lambda x, y: x == y,
    "ne": lambda x, y: x != y,
    "slt": lambda x, y: x < y,
    "sle": lambda x, y: x <= y,
    "sgt": lambda x, y: x > y,
    "sge": lambda x, y: x >= y,
    "ult": _as_unsigned(lambda x, y: x < y),
    "ule": _as_unsigned(lambda x, y: x <= y),
    "ugt": _as_unsigned(lambda x, y: x > y),
    "uge": _as_unsigned(lambda x, y: x >= y),
}

ROWS: tuple[ScalarOp, ...] = (
    # Floating point: IEEE-exact.
    ScalarOp("addf", "ff", "same", np.add, "arith.addf"),
    ScalarOp("subf", "ff", "same", np.subtract, "arith.subf"),
    ScalarOp("mulf", "ff", "same", np.multiply, "arith.mulf"),
    ScalarOp("divf", "ff", "same", _quiet(np.divide), "arith.divf"),
    ScalarOp("fma", "fff", "same", _fma, "math.fma", exact=False),
    ScalarOp("negf", "f", "same", np.negative, "arith.negf"),
    ScalarOp("absf", "f", "same", np.abs, "math.absf"),
    ScalarOp("maxf", "ff", "same", np.maximum, "arith.maximumf"),
    ScalarOp("minf", "ff", "same", np.minimum, "arith.minimumf"),
    ScalarOp("sqrt", "f", "same", _quiet(np.sqrt), "math.sqrt"),
    ScalarOp("floor", "f", "same", np.floor, "math.floor"),
    ScalarOp("ceil", "f", "same", np.ceil, "math.ceil"),
    ScalarOp("trunc", "f", "same", np.trunc, "math.trunc"),
    ScalarOp("roundeven", "f", "same", np.rint, "math.roundeven"),
    # Floating point: within a bound.
    ScalarOp("exp", "f", "same", _quiet(np.exp), expand=_exp, expand_cuda=_exp_cuda, exact=False, bound=4),
    ScalarOp("log", "f", "same", _quiet(np.log), expand=_log, exact=False, bound=4),
    ScalarOp("tanh", "f", "same", np.tanh, expand=_TANH, expand_cuda=_TANH_CUDA, exact=False, bound=8),
    ScalarOp("erf", "f", "same", _np_erf, expand=_ERF, expand_cuda=_ERF_CUDA, exact=False, bound=8),
    ScalarOp("sigmoid", "f", "same", _quiet(lambda x: (1 / (1 + np.exp(-x))).astype(np.asarray(x).dtype)),
             expand=_sigmoid, expand_cuda=_sigmoid_cuda, exact=False, bound=32),
    ScalarOp("sin", "f", "same", np.sin, expand=_sin_cos(0), exact=False, bound=8),
    ScalarOp("cos", "f", "same", np.cos, expand=_sin_cos(1), exact=False, bound=8),
    ScalarOp("atan", "f", "same", np.arctan, expand=_atan, exact=False, bound=8),
    ScalarOp("pow", "ff", "same", _quiet(np.power), expand=_pow, exact=False, bound=256),
    ScalarOp("rsqrt", "f", "same", _quiet(lambda x: (1 / np.sqrt(x)).astype(np.asarray(x).dtype)), expand=_rsqrt,
             exact=False, bound=4),
    # Integers; signedness lies in the operation.
    ScalarOp("addi", "ii", "same", np.add, "arith.addi"),
    ScalarOp("subi", "ii", "same", np.subtract, "arith.subi"),
    ScalarOp("muli", "ii", "same", np.multiply, "arith.muli"),
    ScalarOp("divsi_raw", "ii", "same", _np_div_trunc, "arith.divsi"),
    ScalarOp("divui_raw", "ii", "same", _as_unsigned(np.floor_divide), "arith.divui"),
    ScalarOp("remsi_raw", "ii", "same", np.fmod, "arith.remsi"),
    ScalarOp("remui_raw", "ii", "same", _as_unsigned(np.mod), "arith.remui"),
    ScalarOp("divsi", "ii", "same", _np_div_trunc, expand=_guarded_division("divsi_raw")),
    ScalarOp("divui", "ii", "same", _as_unsigned(_np_div_trunc), expand=_guarded_division("divui_raw")),
    ScalarOp("remsi", "ii", "same", _quiet(np.fmod), expand=_guarded_division("remsi_raw")),
    ScalarOp("remui", "ii", "same", _as_unsigned(_quiet(np.mod)), expand=_guarded_division("remui_raw")),
    ScalarOp("floordivsi", "ii", "same", _quiet(np.floor_divide), expand=_floordivsi),
    ScalarOp("maxsi", "ii", "same", np.maximum, "arith.maxsi"),
    ScalarOp("minsi", "ii", "same", np.minimum, "arith.minsi"),
    ScalarOp("maxui", "ii", "same", _as_unsigned(np.maximum), "arith.maxui"),
    ScalarOp("minui", "ii", "same", _as_unsigned(np.minimum), "arith.minui"),
    ScalarOp("andi", "ii", "same", np.bitwise_and, "arith.andi"),
    ScalarOp("ori", "ii", "same", np.bitwise_or, "arith.ori"),
    ScalarOp("xori", "ii", "same", np.bitwise_xor, "arith.xori"),
    ScalarOp("shli", "ii", "same", np.left_shift, "arith.shli"),
    ScalarOp("shrsi", "ii", "same", np.right_shift, "arith.shrsi"),
    ScalarOp("shrui", "ii", "same", _as_unsigned(np.right_shift), "arith.shrui"),
    # Comparisons and choice.
    *(ScalarOp(f"cmpf_{p}", "ff", "i1", f, "arith.cmpf", p) for p, f in _FLOAT_COMPARE.items()),
    *(ScalarOp(f"cmpi_{p}", "ii", "i1", f, "arith.cmpi", p) for p, f in _INT_COMPARE.items()),
    ScalarOp("select", "bxx", "same", np.where, "arith.select"),
    # Casts.
    ScalarOp("extf", "f", "cast", _cast, "arith.extf"),
    ScalarOp("truncf", "f", "cast", _quiet(_truncf), "arith.truncf"),
    ScalarOp("extsi", "i", "cast", _cast, "arith.extsi"),
    ScalarOp("extui", "i", "cast", lambda x, t: _unsigned(x).astype(t), "arith.extui"),
    ScalarOp("trunci", "i", "cast", _cast, "arith.trunci"),
    ScalarOp("sitofp", "i", "cast", _cast, "arith.sitofp"),
    ScalarOp("uitofp", "i", "cast", lambda x, t: _unsigned(x).astype(t), "arith.uitofp"),
    ScalarOp("fptosi", "f", "cast", _quiet(_cast), "arith.fptosi"),
    ScalarOp("fptoui", "f", "cast", _quiet(_fptoui), "arith.fptoui"),
    ScalarOp("bitcast", "x", "cast", lambda x, t: np.asarray(x).view(t), "arith.bitcast"),
    # Instructions of NVIDIA GPUs, for expansions (PTX ISA, "Floating Point Instructions").
    ScalarOp("ex2_approx", "f", "same", np.exp2, "nvvm.ex2", exact=False, bound=4, cuda_only=True),
    ScalarOp("ex2_approx_ftz", "f", "same", np.exp2, "nvvm.ex2", exact=False, bound=4, cuda_only=True),
    ScalarOp("rcp_approx", "f", "same", np.reciprocal, "nvvm.rcp.approx.ftz.f", exact=False, bound=4, cuda_only=True),
)  # fmt: skip

TABLE: dict[str, ScalarOp] = {row.name: row for row in ROWS}
