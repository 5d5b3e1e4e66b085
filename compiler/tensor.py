"""Tensors of an `ingot.Builder`: numpy's operators, written as ONNX's."""

from __future__ import annotations

from collections.abc import Sequence
from types import EllipsisType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ingot import dims
from ingot.compiler.weights import onnx_type_of_numpy
from ingot.dims import Dim
from ingot.dtypes import OnnxType, onnx_numpy
from ingot.errors import ModelError
from ingot.passes.onnx_inference.tensors import Tensor as Inferred
from ingot.passes.onnx_lowering.values import Known, Source

if TYPE_CHECKING:
    from ingot.compiler.builder import Builder

Size: TypeAlias = int | str | dims.Expr
Index: TypeAlias = "int | slice | EllipsisType | None"
Operand: TypeAlias = "Tensor | np.ndarray | np.generic | float"

_END = dims.UNBOUNDED  # "to the end" of a slice


class Tensor:
    """A value of a `Builder`. Immutable; operators make new ones.

    Python numbers take the tensor's element type; numpy arrays keep theirs, and must have the tensor's.

    Attributes:
        builder: the builder it belongs to.
        source: what holds its elements in the IR.
        inferred: what is known of it: type, sizes, elements.
    """

    def __init__(self, builder: Builder, source: Source, inferred: Inferred) -> None:
        self.builder, self.source, self.inferred = builder, source, inferred

    @property
    def shape(self) -> tuple[Dim, ...]:
        """Sizes: integers or shape expressions."""
        return self.inferred.shape

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype:
        """The numpy type of its elements (of `ml_dtypes` where numpy has none)."""
        return onnx_numpy(self.inferred.type)

    def __repr__(self) -> str:
        return f"<ingot.Tensor {self.inferred.type.name}[{', '.join(map(str, self.shape))}]>"

    def __bool__(self) -> bool:
        raise TypeError("a tensor has no truth value while a graph is built: use Builder.where")

    __hash__ = object.__hash__
    __array_ufunc__ = None  # numpy leaves `array + tensor` to the tensor

    # Arithmetic and comparisons, with numpy's broadcasting

    def __add__(self, other: Operand) -> Tensor:
        return binary(self.builder, "Add", self, other)

    def __radd__(self, other: Operand) -> Tensor:
        return binary(self.builder, "Add", other, self)

    def __sub__(self, other: Operand) -> Tensor:
        return binary(self.builder, "Sub", self, other)

    def __rsub__(self, other: Operand) -> Tensor:
        return binary(self.builder, "Sub", other, self)

    def __mul__(self, other: Operand) -> Tensor:
        return binary(self.builder, "Mul", self, other)

    def __rmul__(self, other: Operand) -> Tensor:
        return binary(self.builder, "Mul", other, self)

    def __truediv__(self, other: Operand) -> Tensor:
        """The quotient; of integers, rounded towards 0."""
        return binary(self.builder, "Div", self, other)

    def __rtruediv__(self, other: Operand) -> Tensor:
        return binary(self.builder, "Div", other, self)

    def __mod__(self, other: Operand) -> Tensor:
        """The remainder: of integers with the divisor's sign, of floats with the dividend's."""
        return binary(self.builder, "Mod", self, other, fmod=int(self.inferred.is_float))

    def __pow__(self, other: Operand) -> Tensor:
        return binary(self.builder, "Pow", self, other)

    def __matmul__(self, other: Operand) -> Tensor:
        return binary(self.builder, "MatMul", self, other)

    def __rmatmul__(self, other: Operand) -> Tensor:
        return binary(self.builder, "MatMul", other, self)

    def __neg__(self) -> Tensor:
        return self.builder.apply("Neg", self)

    def __invert__(self) -> Tensor:
        """The negation of truth values, or of each bit."""
        return self.builder.apply("Not" if self.dtype == np.bool_ else "BitwiseNot", self)

    def __and__(self, other: Operand) -> Tensor:
        return binary(self.builder, "And" if self.dtype == np.bool_ else "BitwiseAnd", self, other)

    def __or__(self, other: Operand) -> Tensor:
        return binary(self.builder, "Or" if self.dtype == np.bool_ else "BitwiseOr", self, other)

    def __xor__(self, other: Operand) -> Tensor:
        return binary(self.builder, "Xor" if self.dtype == np.bool_ else "BitwiseXor", self, other)

    def __lt__(self, other: Operand) -> Tensor:
        return binary(self.builder, "Less", self, other)

    def __le__(self, other: Operand) -> Tensor:
        return binary(self.builder, "LessOrEqual", self, other)

    def __gt__(self, other: Operand) -> Tensor:
        return binary(self.builder, "Greater", self, other)

    def __ge__(self, other: Operand) -> Tensor:
        return binary(self.builder, "GreaterOrEqual", self, other)

    def __eq__(self, other: Operand) -> Tensor:  # type: ignore[override]
        return binary(self.builder, "Equal", self, other)

    def __ne__(self, other: Operand) -> Tensor:  # type: ignore[override]
        return ~(self == other)

    # Functions of each element

    def abs(self) -> Tensor:
        return self.builder.apply("Abs", self)

    def ceil(self) -> Tensor:
        return self.builder.apply("Ceil", self)

    def cos(self) -> Tensor:
        return self.builder.apply("Cos", self)

    def erf(self) -> Tensor:
        return self.builder.apply("Erf", self)

    def exp(self) -> Tensor:
        return self.builder.apply("Exp", self)

    def floor(self) -> Tensor:
        return self.builder.apply("Floor", self)

    def gelu(self, approximate: str = "none") -> Tensor:
        """x/2 * (1 + erf(x / sqrt(2))), or its approximation by "tanh"."""
        return self.builder.apply("Gelu", self, approximate=approximate)

    def log(self) -> Tensor:
        return self.builder.apply("Log", self)

    def relu(self) -> Tensor:
        return self.builder.apply("Relu", self)

    def round(self) -> Tensor:
        """The nearest integer, the even one of two."""
        return self.builder.apply("Round", self)

    def sigmoid(self) -> Tensor:
        return self.builder.apply("Sigmoid", self)

    def silu(self) -> Tensor:
        """x * sigmoid(x)."""
        return self * self.sigmoid()

    def sin(self) -> Tensor:
        return self.builder.apply("Sin", self)

    def sqrt(self) -> Tensor:
        return self.builder.apply("Sqrt", self)

    def tanh(self) -> Tensor:
        return self.builder.apply("Tanh", self)

    def clip(self, low: Operand | None = None, high: Operand | None = None) -> Tensor:
        """Elements moved to the nearest in [low, high]."""
        limits = [None if limit is None else like(self.builder, limit, self) for limit in (low, high)]
        return self.builder.apply("Clip", self, *limits)

    def cast(self, dtype: Any) -> Tensor:
        """Elements converted to a numpy type, or to the name of one (`"bfloat16"` too)."""
        return self.builder.apply("Cast", self, to=element_type(dtype).code)

    # Along axes

    def softmax(self, axis: int = -1) -> Tensor:
        return self.builder.apply("Softmax", self, axis=axis)

    def log_softmax(self, axis: int = -1) -> Tensor:
        return self.builder.apply("LogSoftmax", self, axis=axis)

    def layer_norm(self, scale: Tensor, bias: Tensor | None = None, axis: int = -1, epsilon: float = 1e-5) -> Tensor:
        """Normalized over the axes from `axis` on, times `scale`, plus `bias`."""
        inputs = (self, scale) if bias is None else (self, scale, bias)
        return self.builder.apply("LayerNormalization", *inputs, axis=axis, epsilon=epsilon)

    def rms_norm(self, scale: Tensor, axis: int = -1, epsilon: float = 1e-5) -> Tensor:
        """Divided by the root of the mean square over the axes from `axis` on, times `scale`."""
        return self.builder.apply("RMSNormalization", self, scale, axis=axis, epsilon=epsilon)

    def sum(self, axes: int | Sequence[int] | None = None, keepdims: bool = False) -> Tensor:
        return _reduce("ReduceSum", self, axes, keepdims)

    def mean(self, axes: int | Sequence[int] | None = None, keepdims: bool = False) -> Tensor:
        return _reduce("ReduceMean", self, axes, keepdims)

    def max(self, axes: int | Sequence[int] | None = None, keepdims: bool = False) -> Tensor:
        return _reduce("ReduceMax", self, axes, keepdims)

    def min(self, axes: int | Sequence[int] | None = None, keepdims: bool = False) -> Tensor:
        return _reduce("ReduceMin", self, axes, keepdims)

    def prod(self, axes: int | Sequence[int] | None = None, keepdims: bool = False) -> Tensor:
        return _reduce("ReduceProd", self, axes, keepdims)

    # Shapes

    def reshape(self, *shape: Size) -> Tensor:
        """The same elements in another shape; one size may be -1: what is left."""
        return self.builder.apply("Reshape", self, sizes(self.builder, shape), allowzero=1)

    def transpose(self, *perm: int) -> Tensor:
        """Axis i of the result is axis perm[i]; without arguments the axes are reversed."""
        order = perm or tuple(range(self.rank))[::-1]
        return self.builder.apply("Transpose", self, perm=[p % self.rank for p in order])

    def expand(self, *shape: Size) -> Tensor:
        """Repeated along axes of size 1 (numpy's broadcast_to)."""
        return self.builder.apply("Expand", self, sizes(self.builder, shape))

    def squeeze(self, *axes: int) -> Tensor:
        """Without the axes, which have size 1."""
        return self.builder.apply("Squeeze", self, sizes(self.builder, axes))

    def unsqueeze(self, *axes: int) -> Tensor:
        """With new axes of size 1, which have these numbers in the result."""
        return self.builder.apply("Unsqueeze", self, sizes(self.builder, axes))

    def __getitem__(self, index: Index | tuple[Index, ...]) -> Tensor:
        """numpy's basic indexing: integers, slices, `...` and None. Bounds may be shape expressions."""
        items = list(index) if isinstance(index, tuple) else [index]
        given = sum(i is not None and i is not Ellipsis for i in items)
        if given > self.rank or items.count(Ellipsis) > 1:
            raise IndexError(f"{given} indices for a tensor of rank {self.rank}")
        at = items.index(Ellipsis) if Ellipsis in items else len(items)
        items[at : at + 1] = [slice(None)] * (self.rank - given)
        bounds: list[tuple[Dim, Dim, int, int]] = []  # start, end, axis, step
        dropped: list[int] = []
        added: list[int] = []
        axis = 0
        for item in items:
            if item is None:
                added.append(axis - len(dropped) + len(added))
                continue
            if isinstance(item, slice):
                step = 1 if item.step is None else item.step
                if (item.start, item.stop, step) != (None, None, 1):
                    start = (0 if step > 0 else _END) if item.start is None else dims.as_dim(item.start)
                    end = (_END if step > 0 else -_END) if item.stop is None else dims.as_dim(item.stop)
                    bounds.append((start, end, axis, step))
            else:
                assert isinstance(item, int)
                bounds.append((item, item + 1 if item != -1 else _END, axis, 1))
                dropped.append(axis)
            axis += 1
        y = self
        if bounds:
            y = self.builder.apply("Slice", y, *(sizes(self.builder, column) for column in zip(*bounds, strict=True)))
        if dropped:
            y = y.squeeze(*dropped)
        return y.unsqueeze(*added) if added else y


def binary(builder: Builder, op: str, x: Operand, y: Operand, **attributes: Any) -> Tensor:
    """An operator of two operands, of which one may be a number or an array."""
    return builder.apply(op, like(builder, x, y), like(builder, y, x), **attributes)


def like(builder: Builder, x: Operand, other: Operand) -> Tensor:
    """`x` as a tensor; a Python number takes the element type of `other`."""
    if isinstance(x, Tensor):
        return x
    is_number = isinstance(x, int | float) and not isinstance(x, np.generic)
    return builder.constant(x, other.dtype if is_number and isinstance(other, Tensor | np.ndarray) else None)


def sizes(builder: Builder, values: Sequence[Size]) -> Tensor:
    """An int64 vector of sizes, bounds or axes, known at compile time."""
    elements = tuple(dims.as_dim(v) for v in values)
    array = np.empty(len(elements), object)
    array[:] = elements
    int64 = element_type(np.int64)
    return Tensor(builder, Known(int64, array.shape, elements), Inferred(int64, array.shape, array))


def element_type(dtype: Any) -> OnnxType:
    """The ONNX type of a numpy type or of its name. Raises ModelError where there is none."""
    try:
        if isinstance(dtype, str) and not hasattr(np, dtype):
            import ml_dtypes

            dtype = getattr(ml_dtypes, dtype)
        return onnx_type_of_numpy(np.dtype(dtype))
    except (AttributeError, TypeError, ValueError):
        raise ModelError(f"element type {dtype!r} is not supported", cure="use a numeric type of numpy or ml_dtypes") from None


def _reduce(op: str, x: Tensor, axes: int | Sequence[int] | None, keepdims: bool) -> Tensor:
    numbers = range(x.rank) if axes is None else [axes] if isinstance(axes, int) else axes
    return x.builder.apply(op, x, sizes(x.builder, list(numbers)), keepdims=int(keepdims))
