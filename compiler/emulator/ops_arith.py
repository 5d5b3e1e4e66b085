"""arith, vector and arithmetic intrinsics of the llvm dialect, on numpy."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from ingot.compiler.emulator.group import Group
from ingot.compiler.emulator.program import Op, Run, handler
from ingot.compiler.emulator.report import EmulationError
from ingot.compiler.emulator.values import UNSIGNED, InFlight, spread


def unsigned(array: np.ndarray) -> np.ndarray:
    """The same bits as unsigned integers."""
    return array.view(UNSIGNED[array.dtype])


def _truncated_quotient(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    quotient = a // b
    return quotient + ((quotient * b != a) & ((a < 0) != (b < 0))).astype(a.dtype)


def _on_unsigned(f: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    def g(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return f(unsigned(a), unsigned(b)).view(a.dtype)

    return g


def _in_float64(f: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """`f` computed in float64 and rounded once to the operands' type."""

    def g(*args: np.ndarray) -> np.ndarray:
        return f(*(a.astype(np.float64) for a in args)).astype(args[0].dtype)

    return g


_BINARY: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "arith.addi": operator.add,
    "arith.subi": operator.sub,
    "arith.muli": operator.mul,
    "arith.divsi": _truncated_quotient,
    "arith.divui": _on_unsigned(np.floor_divide),
    "arith.remsi": np.fmod,
    "arith.remui": _on_unsigned(np.mod),
    "arith.andi": operator.and_,
    "arith.ori": operator.or_,
    "arith.xori": operator.xor,
    "arith.shli": operator.lshift,
    "arith.shrsi": operator.rshift,
    "arith.shrui": _on_unsigned(np.right_shift),
    "arith.minsi": np.minimum,
    "arith.maxsi": np.maximum,
    "arith.minui": _on_unsigned(np.minimum),
    "arith.maxui": _on_unsigned(np.maximum),
    "arith.addf": operator.add,
    "arith.subf": operator.sub,
    "arith.mulf": operator.mul,
    "arith.divf": operator.truediv,
    "arith.remf": np.fmod,
    "arith.minnumf": np.fmin,
    "arith.maxnumf": np.fmax,
    "arith.minimumf": np.minimum,
    "arith.maximumf": np.maximum,
    "llvm.intr.copysign": np.copysign,
}

_UNARY: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "arith.negf": np.negative,
    "llvm.intr.fabs": np.abs,
    "llvm.intr.sqrt": np.sqrt,
    "llvm.intr.floor": np.floor,
    "llvm.intr.ceil": np.ceil,
    "llvm.intr.trunc": np.trunc,
    "llvm.intr.roundeven": np.rint,
    "llvm.intr.exp2": _in_float64(np.exp2),
    "nvvm.ex2": _in_float64(np.exp2),
    "nvvm.log2": _in_float64(np.log2),
    "nvvm.rsqrt": _in_float64(lambda x: 1 / np.sqrt(x)),
    "nvvm.sqrt.approx": np.sqrt,
    "nvvm.sin": _in_float64(np.sin),
    "nvvm.cos": _in_float64(np.cos),
    "nvvm.rcp.approx.ftz.f": lambda x: _flush(1 / _flush(x)),
}


def _flush(x: np.ndarray) -> np.ndarray:
    """Subnormals as zeros of their sign."""
    return np.where(np.abs(x) < np.float32(2.0**-126), np.copysign(np.float32(0), x), x)


def elementwise(op: Op, f: Callable[..., Any]) -> Run:
    """A closure that applies `f` to the operands' arrays."""
    operands, r = op.operands, op.results[0]
    if len(operands) == 1:
        (a,) = operands

        def run_unary(group: Group) -> None:
            env = group.env
            env[r] = f(env[a])

        return run_unary

    def run(group: Group) -> None:
        env = group.env
        env[r] = f(*[env[s] for s in operands])

    return run


@handler(*_BINARY)
def _binary(op: Op) -> Run:
    f = _BINARY[op.name]
    a, b = op.operands
    r = op.results[0]

    def run(group: Group) -> None:
        env = group.env
        env[r] = f(env[a], env[b])

    return run


@handler(*_UNARY)
def _unary(op: Op) -> Run:
    return elementwise(op, _UNARY[op.name])


@handler("llvm.intr.fma")
def _fma(op: Op) -> Run:
    def fma(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
        # A product of floats is exact in float64; adding rounds to float64 first, which is 29 bits below f32's last.
        return (a.astype(np.float64) * b + c).astype(a.dtype)

    return elementwise(op, fma)


_CMPI = {
    0: np.equal,
    1: np.not_equal,
    2: np.less,
    3: np.less_equal,
    4: np.greater,
    5: np.greater_equal,
    6: np.less,
    7: np.less_equal,
    8: np.greater,
    9: np.greater_equal,
}


@handler("arith.cmpi")
def _cmpi(op: Op) -> Run:
    code = op.int_attr("predicate")
    f = _CMPI[code]
    return elementwise(op, (lambda a, b: f(unsigned(a), unsigned(b))) if code >= 6 else f)


def _unordered(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.isnan(a) | np.isnan(b)


_CMPF: dict[int, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    1: np.equal,
    2: np.greater,
    3: np.greater_equal,
    4: np.less,
    5: np.less_equal,
    6: lambda a, b: (a < b) | (a > b),
    7: lambda a, b: ~_unordered(a, b),
    8: lambda a, b: (a == b) | _unordered(a, b),
    9: lambda a, b: ~(a <= b),
    10: lambda a, b: ~(a < b),
    11: lambda a, b: ~(a >= b),
    12: lambda a, b: ~(a > b),
    13: np.not_equal,
    14: _unordered,
}


@handler("arith.cmpf")
def _cmpf(op: Op) -> Run:
    return elementwise(op, _CMPF[op.int_attr("predicate")])


@handler("arith.select", "llvm.select")
def _select(op: Op) -> Run:
    def select(c: np.ndarray, a: Any, b: Any) -> Any:
        if isinstance(a, tuple):
            return tuple(select(c, x, y) for x, y in zip(a, b, strict=True))
        if isinstance(a, InFlight) or isinstance(b, InFlight):
            raise EmulationError("arith.select on the registers of an unfinished wgmma")
        return np.where(c, a, b)

    return elementwise(op, select)


# --- conversions


@handler("arith.extf", "arith.truncf", "arith.sitofp", "arith.extsi", "llvm.sext", "llvm.fpext", "llvm.fptrunc")
def _astype(op: Op) -> Run:
    dtype = op.result_kinds[0].dtype
    return elementwise(op, lambda a: a.astype(dtype))


@handler("arith.trunci", "llvm.trunc")
def _trunci(op: Op) -> Run:
    dtype = op.result_kinds[0].dtype
    if dtype.kind == "b":
        return elementwise(op, lambda a: (a & 1).astype(bool))
    return elementwise(op, lambda a: a.astype(dtype))


@handler("arith.extui", "arith.uitofp", "llvm.zext", "arith.index_castui")
def _from_unsigned(op: Op) -> Run:
    dtype = op.result_kinds[0].dtype
    return elementwise(op, lambda a: unsigned(a).astype(dtype))


@handler("arith.index_cast")
def _index_cast(op: Op) -> Run:
    dtype = op.result_kinds[0].dtype
    return elementwise(op, lambda a: a.astype(dtype))


@handler("arith.fptosi")
def _fptosi(op: Op) -> Run:
    dtype = op.result_kinds[0].dtype
    return elementwise(op, lambda a: np.trunc(a.astype(np.float64)).astype(np.int64).astype(dtype))


@handler("arith.fptoui")
def _fptoui(op: Op) -> Run:
    dtype = op.result_kinds[0].dtype

    def convert(a: np.ndarray) -> np.ndarray:
        x = np.trunc(a.astype(np.float64))
        wide = np.where(x >= 2.0**63, (x - 2.0**63).astype(np.int64) ^ np.int64(-(2**63)), x.astype(np.int64))
        return wide.astype(dtype)

    return elementwise(op, convert)


def reinterpret(array: np.ndarray, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """The bits of a scalar or vector value as another dtype with the given shape before the thread axis."""
    if dtype.itemsize == array.dtype.itemsize:
        return array.view(dtype)
    by_thread = np.ascontiguousarray(array.reshape(-1, array.shape[-1]).T)
    return by_thread.view(dtype).T.reshape(*shape, array.shape[-1])


@handler("arith.bitcast", "llvm.bitcast", "vector.bitcast")
def _bitcast(op: Op) -> Run:
    kind = op.result_kinds[0]
    return elementwise(op, lambda a: reinterpret(a, kind.dtype, kind.shape))


# --- vectors and structs


@handler("vector.broadcast")
def _broadcast(op: Op) -> Run:
    lanes = op.result_kinds[0].shape[0]
    return elementwise(op, lambda a: np.broadcast_to(a, (lanes, a.shape[-1])))


@handler("vector.from_elements")
def _from_elements(op: Op) -> Run:
    return elementwise(op, lambda *xs: np.stack(np.broadcast_arrays(*xs)))


@handler("vector.extract")
def _extract(op: Op) -> Run:
    position = _positions(op.attr("static_position"))[0]
    return elementwise(op, lambda a: a[position])


@handler("vector.insert")
def _insert(op: Op) -> Run:
    position = _positions(op.attr("static_position"))[0]

    def insert(x: np.ndarray, into: np.ndarray) -> np.ndarray:
        out = np.array(spread(into, max(x.shape[-1], into.shape[-1])))
        out[position] = x
        return out

    return elementwise(op, insert)


@handler("llvm.extractelement")
def _extractelement(op: Op) -> Run:
    def extract(vector: np.ndarray, index: np.ndarray) -> np.ndarray:
        threads = max(vector.shape[-1], index.shape[-1])
        return np.take_along_axis(spread(vector, threads), spread(index, threads)[None].astype(np.int64), axis=0)[0]

    return elementwise(op, extract)


@handler("llvm.insertelement")
def _insertelement(op: Op) -> Run:
    def insert(vector: np.ndarray, x: np.ndarray, index: np.ndarray) -> np.ndarray:
        threads = max(vector.shape[-1], x.shape[-1], index.shape[-1])
        out = np.array(spread(vector, threads))
        np.put_along_axis(out, spread(index, threads)[None].astype(np.int64), spread(x, threads)[None], axis=0)
        return out

    return elementwise(op, insert)


@handler("vector.shuffle")
def _shuffle(op: Op) -> Run:
    mask = np.array(_positions(op.attr("mask")))

    def shuffle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        if a is b or mask.max() < len(a):
            return a[mask]
        threads = max(a.shape[-1], b.shape[-1])
        return np.concatenate([spread(a, threads), spread(b, threads)])[mask]

    return elementwise(op, shuffle)


_REDUCE: dict[str, Any] = {  # ufuncs, whose types differ between versions of numpy
    "add": np.add, "mul": np.multiply, "minsi": np.minimum, "maxsi": np.maximum, "minui": np.minimum, "maxui": np.maximum,
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
}  # fmt: skip


@handler("vector.reduction")
def _reduction(op: Op) -> Run:
    kind = op.keyword("kind")
    f = _REDUCE[kind]
    dtype = op.result_kinds[0].dtype
    if kind in ("minui", "maxui"):
        return elementwise(op, lambda a: f.reduce(unsigned(a), axis=0).view(dtype))
    return elementwise(op, lambda a: f.reduce(a, axis=0, dtype=dtype))


def _positions(text: str) -> list[int]:
    """The numbers of `array<i64: 1, 2>`."""
    return [int(x) for x in text.split(":")[1].rstrip("> ").split(",")]


@handler("llvm.extractvalue")
def _extractvalue(op: Op) -> Run:
    position = _positions(op.attr("position"))[0]
    a, r = op.operands[0], op.results[0]
    # A register that only goes on into the next wgmma is not read here.
    passes = all(
        use.owner.name == "llvm.inline_asm" and "wgmma.mma_async" in str(use.owner.attributes["asm_string"])
        for use in op.operation.results[0].uses
    )

    def run(group: Group) -> None:
        value = group.env[a]
        if isinstance(value, InFlight):
            if passes:
                group.env[r] = InFlight(value.array[position], value.group)
                return
            value = finished(value, group, op)
        group.env[r] = value[position]

    return run


def finished(value: InFlight, group: Group, op: Op) -> np.ndarray:
    """The registers of a wgmma; reading them before its group has been waited for is reported."""
    done = group.unit.wgmma_done[group.threads]
    early = spread(value.group, group.size) >= done
    if early.any():
        group.unit.find("async", op, group, int(np.flatnonzero(early)[0]), "reads registers of a wgmma before wgmma.wait_group")
    return value.array


@handler("llvm.insertvalue")
def _insertvalue(op: Op) -> Run:
    position = _positions(op.attr("position"))[0]

    def insert(struct: Any, x: np.ndarray) -> Any:
        if isinstance(struct, tuple):
            return (*struct[:position], x, *struct[position + 1 :])
        out = np.array(spread(struct, max(struct.shape[-1], x.shape[-1])))
        out[position] = x
        return out

    return elementwise(op, insert)


@handler("llvm.mlir.zero")
def _zero(op: Op) -> Run:
    kind = op.result_kinds[0]
    zero = np.zeros((*kind.shape, 1), kind.dtype)
    return elementwise(op, lambda: zero)


# --- conversions of small floats in hardware; the first operand is the upper half


def _small(name: str) -> Any:
    import ml_dtypes

    return {
        "f8E4M3FN": ml_dtypes.float8_e4m3fn,
        "f8E5M2": ml_dtypes.float8_e5m2,
        "f4E2M1FN": ml_dtypes.float4_e2m1fn,
        "f8E8M0FNU": ml_dtypes.float8_e8m0fnu,
    }[name]


def encode_saturated(x: np.ndarray, name: str) -> np.ndarray:
    """uint8 codes of f32 values, rounded to nearest even, saturated to the largest finite number; NaN stays NaN."""
    import ml_dtypes

    dtype = np.dtype(_small(name))
    largest = float(ml_dtypes.finfo(dtype).max)
    codes = np.clip(x, -largest, largest).astype(dtype).view(np.uint8)
    if name == "f4E2M1FN":
        return np.where(np.isnan(x), np.uint8(7), codes & 15)
    return np.where(np.isnan(x), np.uint8(0x7F), codes)


@handler("nvvm.convert.f32x2.to.f8x2")
def _to_f8x2(op: Op) -> Run:
    name = op.attr("dstTy")

    def convert(hi: np.ndarray, lo: np.ndarray) -> np.ndarray:
        low, high = encode_saturated(lo, name).astype(np.uint16), encode_saturated(hi, name).astype(np.uint16)
        return (low | high << 8).view(np.int16)

    return elementwise(op, convert)


@handler("nvvm.convert.f32x2.to.f4x2")
def _to_f4x2(op: Op) -> Run:
    name = op.attr("dstTy")
    return elementwise(op, lambda hi, lo: (encode_saturated(lo, name) | encode_saturated(hi, name) << 4).view(np.int8))


@handler("nvvm.convert.f8x2.to.f16x2")
def _from_f8x2(op: Op) -> Run:
    dtype = _small(op.attr("srcType"))
    return elementwise(op, lambda a: np.ascontiguousarray(a).view(dtype).astype(np.float16))


@handler("nvvm.convert.f4x2.to.f16x2")
def _from_f4x2(op: Op) -> Run:
    dtype = _small(op.attr("srcType"))

    def convert(a: np.ndarray) -> np.ndarray:
        codes = unsigned(a)
        return np.stack([codes & 15, codes >> 4]).view(dtype).astype(np.float16)

    return elementwise(op, convert)


@handler("nvvm.convert.float.to.tf32")
def _to_tf32(op: Op) -> Run:
    def convert(a: np.ndarray) -> np.ndarray:
        bits = a.view(np.uint32)  # round to nearest, ties away from zero
        return ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.int32)

    return elementwise(op, convert)


@handler("nvvm.dot.accumulate.4way")
def _dp4a(op: Op) -> Run:
    kinds = [np.int8 if "<signed" in op.attr(name) else np.uint8 for name in ("a_type", "b_type")]

    def dot(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
        x, y = (np.ascontiguousarray(v).view(kind).astype(np.int64) for v, kind in zip((a, b), kinds, strict=True))
        return ((x * y).sum(axis=0) + c).astype(np.int32)

    return elementwise(op, dot)


@handler("nvvm.prmt")
def _prmt(op: Op) -> Run:
    if op.keyword("mode") != "default":
        raise NotImplementedError(f"nvvm.prmt with mode {op.attr('mode')}")

    def permute(lo: np.ndarray, hi: np.ndarray, selector: np.ndarray) -> np.ndarray:
        threads = max(lo.size, hi.size, selector.size)
        octets = np.stack([spread(lo, threads), spread(hi, threads)], axis=-1).view(np.uint8)  # (threads, 8)
        nibble = selector[:, None] >> np.arange(0, 16, 4) & 15
        if len(nibble) == 1:
            out = octets[:, nibble[0] & 7]
        else:
            out = np.take_along_axis(octets, (nibble & 7).astype(np.int64), axis=1)
        if (signs := nibble & 8).any():
            out = np.where(signs, np.where(out & 0x80, np.uint8(0xFF), np.uint8(0)), out)
        return np.ascontiguousarray(out).view(np.int32)[:, 0]

    return elementwise(op, permute)
