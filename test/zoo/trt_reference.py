"""The `trt` domain's quantization operators for `onnx.reference`, as TensorRT Model Optimizer's exports mean them.

No runtime at hand has them, so these few lines of numpy are what models that use them are compared with. They are written from
the operators' published semantics and share no code with the compiler.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from onnx.reference.op_run import OpRun

E4M3, E2M1 = ml_dtypes.float8_e4m3fn, ml_dtypes.float4_e2m1fn
E4M3_MAX, E2M1_MAX = 448, 6


def operators() -> list[type[OpRun]]:
    """Classes for `ReferenceEvaluator(model, new_ops=...)`."""
    return [
        _operator("QuantizeLinear", _quantize),
        _operator("DequantizeLinear", _dequantize),
        _operator("TRT_FP4DynamicQuantize", _fp4_dynamic_quantize),
        _operator("TRT_MXFP8DynamicQuantize", _mxfp8_dynamic_quantize),
        _operator("TRT_MXFP8DequantizeLinear", _mxfp8_dequantize),
    ]


def _operator(name: str, run: Any) -> type[OpRun]:
    # The evaluator passes an operator's attributes, those left out too, to parameters of their names.
    return type(name, (OpRun,), {"op_domain": "trt", "_run": run})


def _blocks(x: np.ndarray, block: int) -> np.ndarray:
    """x in float32 with its last axis in blocks."""
    return x.astype(np.float32).reshape(*x.shape[:-1], -1, block)


def _quantize(
    self: OpRun, x: Any, scale: Any, zero: Any = None, axis: Any = None, saturate: Any = None, block_size: Any = None,
    output_dtype: Any = None, precision: Any = None,
) -> tuple:  # fmt: skip
    y = x.astype(np.float32) / scale.astype(np.float32)
    return (np.clip(y, -E4M3_MAX, E4M3_MAX).astype(E4M3),)


def _dequantize(
    self: OpRun, x: Any, scale: Any, zero: Any = None, axis: Any = None, block_size: Any = None, output_dtype: Any = None
) -> tuple:
    scale = scale.astype(np.float32)
    if block_size:
        scale = np.repeat(scale, block_size, axis=axis)
    elif scale.size == 1:
        scale = scale.reshape(())
    else:
        scale = scale.reshape([-1 if i == (axis or 0) % x.ndim else 1 for i in range(x.ndim)])
    return (x.astype(np.float32) * scale,)


def _fp4_dynamic_quantize(
    self: OpRun, x: Any, scale: Any, axis: Any = None, block_size: Any = None, scale_type: Any = None
) -> tuple:
    blocks, unit = _blocks(x, block_size), np.float32(scale)
    scales = np.minimum(np.abs(blocks).max(-1) / E2M1_MAX / unit, E4M3_MAX).astype(E4M3)
    step = (scales.astype(np.float32) * unit)[..., None]
    codes = np.where(step > 0, blocks / np.where(step > 0, step, 1), 0)
    return np.clip(codes, -E2M1_MAX, E2M1_MAX).reshape(x.shape).astype(E2M1), scales


def _mxfp8_dynamic_quantize(self: OpRun, x: Any, axis: Any = None, block_size: Any = None, output_dtype: Any = None) -> tuple:
    blocks = _blocks(x, block_size)
    exponents = np.ceil(np.log2(np.maximum(np.abs(blocks).max(-1) / E4M3_MAX, 2.0**-127)))
    codes = np.clip(blocks / np.exp2(exponents)[..., None], -E4M3_MAX, E4M3_MAX)
    return codes.reshape(x.shape).astype(E4M3), (exponents + 127).astype(np.uint8)


def _mxfp8_dequantize(
    self: OpRun, x: Any, scale: Any, axis: Any = None, block_size: Any = None, output_dtype: Any = None
) -> tuple:
    powers = np.exp2(scale.astype(np.float32) - 127)
    return ((x.astype(np.float32) * np.repeat(powers, block_size, axis=-1 if axis is None else axis)).astype(np.float32),)
