"""Inputs that a compilation turns into constants: what they decide (axes, ranks, modes) is then known to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from ingot.compiler.weights import WeightSource
from ingot.dtypes import ONNX_TYPE_BY_CODE, onnx_numpy
from ingot.errors import InputError


def constant_inputs(graph: onnx.GraphProto, constants: Mapping[str, Any]) -> dict[str, WeightSource]:
    """The tensors of `constants` (arrays, numbers or nested lists by input name) in the types that the graph declares.

    Raises:
        InputError: no input has the name, or the value does not fit its type or shape.
    """
    declared = {v.name: v.type.tensor_type for v in graph.input}
    found = {}
    for name, value in constants.items():
        if name not in declared:
            raise InputError("no input has this name", node=name, cure=f"inputs are {', '.join(declared)}")
        onnx_type = ONNX_TYPE_BY_CODE.get(declared[name].elem_type)
        if onnx_type is None:
            raise InputError("is not a tensor of numbers", node=name, cure="leave it an input")
        array = np.asarray(value)
        converted = array.astype(onnx_numpy(onnx_type))
        if array.dtype != converted.dtype and not np.array_equal(converted.astype(array.dtype), array):
            raise InputError(f"{value} is no {onnx_type.name}", node=name, cure="give it in the input's type")
        if declared[name].HasField("shape"):
            wanted = [d.dim_value if d.HasField("dim_value") else None for d in declared[name].shape.dim]
            if len(wanted) != array.ndim or any(w not in (None, d) for w, d in zip(wanted, array.shape, strict=True)):
                text = ", ".join("?" if w is None else str(w) for w in wanted)
                raise InputError(f"has shape {list(array.shape)}, expects [{text}]", node=name, cure="reshape it")
        found[name] = WeightSource.from_array(converted)
    return found
