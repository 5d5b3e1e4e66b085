"""A float model with its large products quantized to 8-bit floats, as TensorRT Model Optimizer's ONNX path writes it.

Every MatMul and Gemm with a weight of at least `LEAST` rows and columns gets QuantizeLinear and DequantizeLinear (e4m3) before
both operands: a scale a tensor for activations, a scale a column for weights, which stay in float behind their
QuantizeLinear for the compiler to fold. Scales of activations are one constant: what 8-bit floats lose is relative, and models
that are timed here have random weights.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LEAST = 512
LARGEST = 448.0  # of e4m3
ACTIVATIONS = 16.0  # what activations are taken to stay below
DEVIATIONS = 6.0  # of a weight's elements, that its scale covers


def quantize(source: Path, target: Path) -> int:
    """Write the quantized model beside `source`, whose external data it shares; how many products were quantized.

    Raises ValueError for an opset before 19, which has no 8-bit floats, or a target in another folder.
    """
    if source.parent.resolve() != target.parent.resolve():
        raise ValueError(f"{target} does not lie beside {source}")
    model = onnx.load(source, load_external_data=False)
    version = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    if version < 19:
        raise ValueError(f"{source} has opset {version}, QuantizeLinear to float8 needs 19")
    weights = {t.name: t for t in model.graph.initializer if len(t.dims) == 2 and t.data_type == TensorProto.FLOAT}
    nodes, done, quantized = [], {}, 0

    def constant(name: str, array: np.ndarray) -> str:
        model.graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    zero = onnx.TensorProto(name="fp8_zero", data_type=TensorProto.FLOAT8E4M3FN, raw_data=b"\0")
    model.graph.initializer.append(zero)
    activation = constant("fp8_scale", np.array(ACTIVATIONS / LARGEST, np.float32))

    def pair(x: str, scale: str, zero_point: str, axis: int | None) -> str:
        """Quantize and dequantize `x`, once."""
        if x not in done:
            attrs = {} if axis is None else {"axis": axis}
            q, done[x] = f"{x}_quantized", f"{x}_dequantized"
            nodes.append(helper.make_node("QuantizeLinear", [x, scale, zero_point], [q], **attrs))
            nodes.append(helper.make_node("DequantizeLinear", [q, scale, zero_point], [done[x]], **attrs))
        return done[x]

    for node in model.graph.node:
        weight = weights.get(node.input[1]) if node.op_type in ("MatMul", "Gemm") else None
        if weight is not None and min(weight.dims) >= LEAST:
            transposed = any(a.name == "transB" and a.i for a in node.attribute)
            columns = 0 if transposed else 1
            size = weight.dims[columns]
            if weight.name not in done:
                zeros = onnx.TensorProto(name=f"{weight.name}_zero", data_type=TensorProto.FLOAT8E4M3FN, raw_data=b"\0" * size)
                zeros.dims.append(size)
                model.graph.initializer.append(zeros)
                deviation = _deviation(weight, source.parent)
                scale = constant(f"{weight.name}_scale", np.full(size, DEVIATIONS * deviation / LARGEST, np.float32))
                pair(weight.name, scale, zeros.name, columns)
            node.input[0] = pair(node.input[0], activation, zero.name, None)
            node.input[1] = done[weight.name]
            quantized += 1
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, target)
    return quantized


def _deviation(weight: onnx.TensorProto, folder: Path) -> float:
    """The standard deviation of a weight's first elements."""
    if weight.data_location == TensorProto.EXTERNAL:
        where = {e.key: e.value for e in weight.external_data}
        array = np.memmap(folder / where["location"], np.float32, "r", int(where.get("offset", 0)), (65536,))
    else:
        array = numpy_helper.to_array(weight).ravel()[:65536]
    return float(array.std())
