"""What becomes of a softmax's probabilities before they weigh values: casts, NaN made 0, a rounding to 8-bit floats and back.

An attention of one pass over memory has no normalized probabilities: it weighs values by exponentials, and divides their sum.
What is linear may as well be done to the sum. A rounding is not linear; that of a quantizer to 8-bit floats is left out, so
that the result is what it approximates, where its grid holds probabilities well: its numbers reach at least `_LEAST_RANGE`,
and what it makes 0 is less than `_MOST_LOST`. Values beyond the range, which such a quantizer clips, stay what they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from ingot.dialects import ingot as dialect
from ingot.dialects.mlir import ir
from ingot.passes.rewriting import views
from ingot.passes.rewriting.ops import Root, defining, operand_number, users
from ingot.passes.rewriting.scalar_regions import RegionBuilder

__all__ = ["Probabilities", "read_probabilities"]

_LEAST_RANGE = 0.5
_MOST_LOST = 2.0**-14  # below it float16, too, has less precision
_FLOATS = ("f32", "f16", "bf16")
_GRIDS = {"f8E4M3FN": ml_dtypes.finfo(ml_dtypes.float8_e4m3fn), "f8E5M2": ml_dtypes.finfo(ml_dtypes.float8_e5m2)}


@dataclass(frozen=True)
class Probabilities:
    """Probabilities between a softmax and the product that reads them.

    Attributes:
        tensor: the tensor that is read.
        reader: the operation that reads it.
        guarded: NaN, where every key is masked by minus infinity, is made 0.
        scales: what they are multiplied (`mulf`) or divided by (`divf`): numbers, or tensors of one element.
        rounded: the 8-bit type that they are rounded to, and back, or "".
    """

    tensor: ir.Value
    reader: ir.Operation
    guarded: bool
    scales: tuple[tuple[str, float | ir.Value], ...]
    rounded: str


def read_probabilities(softmax: Root, weights: Any = None) -> Probabilities | None:
    """What is done to the only result of a softmax, by its own epilogue and by pointwise operations after it.

    None where that is not linear but for a rounding that may be left out.

    Args:
        weights: the model's weights, which tell the scales of a quantizer; or None.
    """
    builder, tensors = RegionBuilder(("f32",)), []  # type: tuple[RegionBuilder, list[ir.Value]]
    value, root, tensor = 0, softmax, softmax.op.results[0]
    while True:
        region = root.regions[-1]
        if len(region.results) != 1 or len(root.op.results) != 1:
            return None
        last = value
        own = None if root is softmax else next(i for i, t in enumerate(root.tensors) if t == tensor)
        numbers = {i: operand_number(tensors, t) for i, t in enumerate(root.tensors) if t != tensor}

        def before(inst: Any, args: tuple[int, ...], own: int | None = own, last: int = last) -> int | None:
            return last if inst.op == "load" and own is not None and inst.attr("operand") == own else None

        arguments = [last] if root is softmax else []
        (value,) = builder.inline(region, arguments, operands=numbers, replace=before)
        tensor = root.op.results[0]
        readers = users(tensor)
        if len(readers) != 1:
            return None
        (reader,) = readers
        if reader.name != "ingot.pointwise":
            break
        following = Root.read(reader)
        if following.tensors.count(tensor) != 1 or following.domain != dialect.shape_of(tensor):
            return None
        root = following
    found = _linear(builder, value, tensors, weights)
    return None if found is None else Probabilities(tensor, reader, *found)


_Found = tuple[bool, tuple[tuple[str, "float | ir.Value"], ...], str]


def _linear(b: RegionBuilder, value: int, tensors: list[ir.Value], weights: Any) -> _Found | None:
    """(guarded, scales, rounded) of a value of the argument."""
    if b.type_of(value) not in _FLOATS:
        return None
    scales: list[tuple[str, float | ir.Value]] = []
    guarded, rounded, rounded_at = False, "", 0
    while value != 0:
        inst = b.inst(value)
        assert inst is not None, value
        if inst.op in ("truncf", "extf"):
            if inst.type not in _FLOATS:
                if inst.type not in _GRIDS or rounded:
                    return None
                rounded, rounded_at = inst.type, len(scales)
            value = inst.args[0]
        elif inst.op in ("mulf", "divf"):
            scale = _scale(b, inst.args[1], tensors)
            if scale is None:
                return None
            scales.append((inst.op, scale))
            value = inst.args[0]
        elif inst.op == "select" and b.constant(inst.args[1]) == 0.0 and _is_nan(b, inst.args[0], inst.args[2]):
            guarded, value = True, inst.args[2]
        else:
            return None
    if rounded and not _holds_probabilities(rounded, scales[rounded_at:], weights):
        return None
    return guarded, tuple(reversed(scales)), rounded


def _is_nan(b: RegionBuilder, test: int, value: int) -> bool:
    inst = b.inst(test)
    return inst is not None and inst.op in ("cmpf_uno", "cmpf_une") and inst.args == (value, value)


def _scale(b: RegionBuilder, value: int, tensors: list[ir.Value]) -> float | ir.Value | None:
    """A number, or a tensor of one element."""
    number = b.constant(value)
    if number is not None:
        return number
    inst = b.inst(value)
    if inst is not None and inst.op == "extf":
        inst = b.inst(inst.args[0])
    if inst is None or inst.op != "load":
        return None
    tensor = tensors[inst.attr("operand")]
    return tensor if all(d == 1 for d in dialect.shape_of(tensor)) else None


def _holds_probabilities(dtype: str, scales: list[tuple[str, float | ir.Value]], weights: Any) -> bool:
    """True where probabilities, times these scales, lie well on the grid of a type."""
    factor = 1.0
    for op, scale in scales:
        number = _number(scale, weights) if isinstance(scale, ir.Value) else scale
        if not number or not np.isfinite(number) or number < 0:
            return False
        factor = factor * number if op == "mulf" else factor / number
    grid = _GRIDS[dtype]
    return float(grid.max) >= _LEAST_RANGE * factor and float(grid.smallest_subnormal) / 2 <= _MOST_LOST * factor


def _number(tensor: ir.Value, weights: Any) -> float | None:
    """The number that a weight of one element is, where its value is at hand."""
    while (op := defining(tensor)) is not None and op.name in dialect.VIEWS:
        tensor = views.read(op).x
    if op is None or op.name != "ingot.weight" or weights is None:
        return None
    name = op.attributes["name"].value
    return float(weights[name].array().astype(np.float64).flat[0]) if name in weights and weights[name].elements == 1 else None
