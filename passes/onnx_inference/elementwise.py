"""Rules for elementwise operators, and their arithmetic on the elements of small tensors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ingot import dims
from ingot.dims import Dim, Expr
from ingot.dtypes import ONNX_TYPE_BY_CODE, OnnxType, onnx_numpy
from ingot.passes.onnx_inference.rules import Node, rule
from ingot.passes.onnx_inference.tensors import BOOL, FLOAT_NAMES, MAX_ELEMENTS, Comparison, Tensor, with_value

Element = Any  # see `Tensor.value`


def _round_to(x: Element, type: OnnxType) -> Element:
    """A computed float in the precision of its type."""
    return float(np.asarray(x, onnx_numpy(type))) if isinstance(x, float) else x


def map_elements(f: Callable[..., Element], type: OnnxType, shape: tuple[Dim, ...], inputs: list[Tensor]) -> Tensor:
    """The tensor of `f` over broadcast elements, with elements where all inputs carry theirs and the shape is constant."""
    sizes = [d for d in shape if isinstance(d, int)]
    if len(sizes) < len(shape) or math.prod(sizes) > MAX_ELEMENTS:
        return Tensor(type, shape)
    arrays = []
    for x in inputs:
        if x.value is None:
            return Tensor(type, shape)
        arrays.append(np.broadcast_to(x.value, sizes))
    out = np.empty(sizes, object)
    for i in itertools.product(*map(range, sizes)):
        elements = [a[i] for a in arrays]
        try:
            out[i] = None if any(e is None for e in elements) else _round_to(f(*elements), type)
        except (ArithmeticError, ValueError):
            out[i] = None
    return with_value(type, out)


def _numeric(type: OnnxType, f: Callable[..., Element]) -> Callable[..., Element]:
    """`f` over numbers of one type: in a floating-point tensor an integral float meets an expression as an integer."""
    if type.name not in FLOAT_NAMES:
        return f

    def g(*elements: Element) -> Element:
        if any(isinstance(e, Expr) for e in elements):
            whole = [int(e) if isinstance(e, float) and e.is_integer() else e for e in elements]
            if any(isinstance(e, float) for e in whole):
                return None
            out = f(*whole)
            return float(out) if isinstance(out, int) else out
        return f(*elements)

    return g


def add(a: Element, b: Element) -> Element:
    return a + b


def subtract(a: Element, b: Element) -> Element:
    return a - b


def multiply(a: Element, b: Element) -> Element:
    return a * b


def divide(a: Element, b: Element) -> Element:
    """The quotient; of integers rounded to zero, as ONNX says."""
    if isinstance(a, float) and isinstance(b, float):
        return a / b if b else None
    if b == 0:
        return None
    exact = dims.exact_div(a, b)
    if exact is not None:
        return exact
    if isinstance(b, int) and b < 0:
        a, b = -a, -b
    if dims.is_nonnegative(a) or isinstance(a, int):
        return dims.floordiv(a, b) if dims.is_nonnegative(a) else -dims.floordiv(-a, b)
    return dims.maximum(0, dims.floordiv(a, b)) + dims.minimum(0, dims.ceildiv(a, b))


def divide_floats(a: Element, b: Element) -> Element:
    """The quotient of floats; of expressions only where it is exact."""
    if isinstance(a, Expr) or isinstance(b, Expr):
        return dims.exact_div(a, b)
    return a / b if b else None


def power(a: Element, b: Element) -> Element:
    if isinstance(a, Expr) and isinstance(b, int) and 0 <= b <= 4:
        return dims.product([a] * b)
    return None if isinstance(a, Expr) or isinstance(b, Expr) else a**b


def equal(a: Element, b: Element) -> Element:
    """Whether two elements are equal: proven, refuted, or a `Comparison`."""
    if isinstance(a, bool) or isinstance(b, bool) or isinstance(a, Comparison) or isinstance(b, Comparison):
        return a == b if isinstance(a, bool) and isinstance(b, bool) else None
    if a == b:
        return True
    if not isinstance(a, Expr) and not isinstance(b, Expr):
        return False
    if isinstance(a, float) or isinstance(b, float):
        return None
    # Different integers, or one that cannot reach the other, as in `N == -1`.
    difference = a - b
    if isinstance(difference, int) or dims.is_nonnegative(difference - 1) or dims.is_nonnegative(-difference - 1):
        return False
    return Comparison(a, b)


def less(a: Element, b: Element) -> Element:
    if not isinstance(a, Expr) and not isinstance(b, Expr):
        return a < b
    if isinstance(a, float) or isinstance(b, float):
        return None
    return True if dims.is_nonnegative(b - a - 1) else False if dims.is_nonnegative(a - b) else None


def negate(a: Element) -> Element:
    if isinstance(a, Comparison):
        return Comparison(a.left, a.right, not a.negated)
    return None if a is None else not a


def choose(condition: Element, a: Element, b: Element) -> Element:
    if isinstance(condition, bool):
        return a if condition else b
    if isinstance(a, int | Expr) and isinstance(b, int | Expr):
        if condition.negated:
            a, b = b, a
        return dims.select(condition.left, condition.right, a, b)
    return a if a == b else None


def _both(a: Element, b: Element) -> Element:
    return False if a is False or b is False else True if a is True and b is True else None


def _either(a: Element, b: Element) -> Element:
    return True if a is True or b is True else False if a is False and b is False else None


def _remainder(a: Element, b: Element) -> Element:
    return None if b == 0 else math.fmod(a, b) if isinstance(a, float) else dims.mod(a, b)


def _smaller(a: Element, b: Element) -> Element:
    return min(a, b) if isinstance(a, float) else dims.minimum(a, b)


def _larger(a: Element, b: Element) -> Element:
    return max(a, b) if isinstance(a, float) else dims.maximum(a, b)


_ARITHMETIC: dict[str, Callable[..., Element]] = {
    "Add": add, "Sub": subtract, "Mul": multiply, "Pow": power, "Min": _smaller, "Max": _larger, "Sum": add,
}  # fmt: skip
_COMPARISONS: dict[str, Callable[..., Element]] = {
    "Equal": equal,
    "Less": less,
    "Greater": lambda a, b: less(b, a),
    "LessOrEqual": lambda a, b: negate(less(b, a)),
    "GreaterOrEqual": lambda a, b: negate(less(a, b)),
    "And": _both,
    "Or": _either,
    "Xor": lambda a, b: a != b if isinstance(a, bool) and isinstance(b, bool) else None,
}


def _same_types(node: Node) -> list[Tensor]:
    """The operands, which must have one element type."""
    inputs = [node.input(i) for i in range(len(node.inputs)) if node.has(i)]
    if not inputs:
        raise node.fail("it has no inputs", "correct the model")
    names = list(dict.fromkeys(t.type.name for t in inputs))
    if len(names) > 1:
        raise node.fail(f"its inputs have different element types: {', '.join(names)}", "insert a Cast")
    return inputs


@rule("Add", "Sub", "Mul", "Min", "Max", "Sum", "Mean", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitShift")
def _arithmetic(node: Node) -> Tensor:
    inputs = _same_types(node)
    type = inputs[0].type
    shape = node.broadcast(*(t.shape for t in inputs))
    f = _ARITHMETIC.get(node.op)
    if f is None:
        return Tensor(type, shape)
    out = inputs[0]
    for x in inputs[1:]:
        out = map_elements(_numeric(type, f), type, node.broadcast(out.shape, x.shape), [out, x])
    return out


@rule("Div")
def _div(node: Node) -> Tensor:
    a, b = _same_types(node)
    f = _numeric(a.type, divide_floats if a.is_float else divide)
    return map_elements(f, a.type, node.broadcast(a.shape, b.shape), [a, b])


@rule("Mod")
def _mod(node: Node) -> Tensor:
    a, b = _same_types(node)
    shape = node.broadcast(a.shape, b.shape)
    if node.attr("fmod") and not a.is_float:
        return Tensor(a.type, shape)
    return map_elements(_remainder, a.type, shape, [a, b])


@rule("Pow")
def _pow(node: Node) -> Tensor:
    a, b = node.input(0), node.input(1)
    shape = node.broadcast(a.shape, b.shape)
    if a.type != b.type:
        return Tensor(a.type, shape)
    return map_elements(_numeric(a.type, power), a.type, shape, [a, b])


@rule("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "And", "Or", "Xor")
def _compare(node: Node) -> Tensor:
    a, b = _same_types(node)
    shape = node.broadcast(a.shape, b.shape)
    return map_elements(_numeric(a.type, _COMPARISONS[node.op]), BOOL, shape, [a, b])


@rule("Not")
def _not(node: Node) -> Tensor:
    x = node.input(0)
    return map_elements(negate, BOOL, x.shape, [x])


@rule("Where")
def _where(node: Node) -> Tensor:
    condition, a, b = node.input(0), node.input(1), node.input(2)
    if a.type != b.type:
        raise node.fail(f"its inputs have different element types: {a.type.name}, {b.type.name}", "insert a Cast")
    return map_elements(choose, a.type, node.broadcast(condition.shape, a.shape, b.shape), [condition, a, b])


def _real(f: Callable[[float], float]) -> Callable[[Element], Element]:
    return lambda a: None if isinstance(a, Expr) else f(a)


_UNARY: dict[str, Callable[[Element], Element]] = {
    "Identity": lambda a: a,
    "Neg": lambda a: -a,
    "Abs": lambda a: (a if dims.is_nonnegative(a) else dims.maximum(a, -a)) if isinstance(a, int | Expr) else abs(a),
    "Sqrt": _real(lambda a: math.sqrt(a)),
    "Reciprocal": _real(lambda a: 1 / a),
    "Floor": lambda a: float(math.floor(a)) if isinstance(a, float) else a,
    "Ceil": lambda a: float(math.ceil(a)) if isinstance(a, float) else a,
    "Round": lambda a: float(round(a)) if isinstance(a, float) else a,
    "Relu": lambda a: _larger(a, 0.0 if isinstance(a, float) else 0),
    "Exp": _real(math.exp),
    "Log": _real(math.log),
}


@rule(
    "Identity", "Neg", "Abs", "Sqrt", "Reciprocal", "Floor", "Ceil", "Round", "Exp", "Log", "Sign", "Sin", "Cos", "Tan", "Sinh",
    "Cosh", "Tanh", "Erf", "Sigmoid", "Relu", "LeakyRelu", "Elu",
    "Celu", "Selu", "ThresholdedRelu", "HardSigmoid", "HardSwish", "Mish", "Softplus", "Softsign", "Shrink", "Gelu", "Swish",
    "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Hardmax", "LRN",
    "Clip", "BitwiseNot", "com.microsoft.QuickGelu", "com.microsoft.Gelu", "Softmax", "LogSoftmax", "LpNormalization",
    "Trilu",
)  # fmt: skip
def _unary(node: Node) -> Tensor:
    x = node.input(0)
    f = _UNARY.get(node.op)
    return map_elements(f, x.type, x.shape, [x]) if f else Tensor(x.type, x.shape)


@rule("PRelu", "com.microsoft.BiasGelu", "com.microsoft.FastGelu", "com.microsoft.BiasAdd")
def _first(node: Node) -> Tensor:
    x = node.input(0)
    for i in range(1, len(node.inputs)):
        if node.has(i):
            shape = node.broadcast(x.shape, node.input(i).shape)
            if shape != x.shape:
                text = ", ".join(map(str, x.shape))
                raise node.fail(f"input {i} does not broadcast to [{text}]", "correct the model's shapes")
    return Tensor(x.type, x.shape)


@rule("IsNaN", "IsInf")
def _is(node: Node) -> Tensor:
    return Tensor(BOOL, node.input(0).shape)


def _cast_element(to: OnnxType) -> Callable[[Element], Element]:
    def cast(a: Element) -> Element:
        if isinstance(a, Comparison):
            if to.name in ("int32", "int64"):
                yes, no = (0, 1) if a.negated else (1, 0)
                return dims.select(a.left, a.right, yes, no)
            return a if to is BOOL else None
        if to is BOOL:
            return equal(a, 0) is False if not isinstance(equal(a, 0), Comparison) else negate(equal(a, 0))
        if isinstance(a, Expr):
            return a if to.name in FLOAT_NAMES or to.name in ("int32", "int64") else None
        if to.name in FLOAT_NAMES:
            return float(a)
        if to.storage[0] == "i" and to.storage not in ("i4",):
            return int(np.asarray(a).astype(onnx_numpy(to)))
        return None

    return cast


@rule("Cast")
def _cast(node: Node) -> Tensor:
    x = node.input(0)
    to = ONNX_TYPE_BY_CODE.get(node.attr("to"))
    if to is None:
        raise node.fail(f"attribute to={node.attr('to')} is no element type that Ingot knows", "cast to another type")
    return map_elements(_cast_element(to), to, x.shape, [x])


@rule("BitCast")
def _bit_cast(node: Node) -> Tensor:
    x, to = node.input(0), ONNX_TYPE_BY_CODE.get(node.attr("to"))
    if to is None:
        raise node.fail(f"attribute to={node.attr('to')} is no element type that Ingot knows", "cast to another type")
    if x.type.narrow or to.narrow:
        raise node.fail(f"reinterpreting {x.type.name} as {to.name} is not supported", "cast to int8 or uint8 before")
    if x.type.bits != to.bits:
        raise node.fail(f"{x.type.name} and {to.name} are not as wide", "correct the attribute to")
    return Tensor(to, x.shape)


@rule("CastLike")
def _cast_like(node: Node) -> Tensor:
    x, to = node.input(0), node.input(1).type
    return map_elements(_cast_element(to), to, x.shape, [x])
