"""A float model with its large weights quantized to 4 bits, as ONNX Runtime's MatMulNBits quantizer writes it.

Every MatMul with a weight of at least `LEAST` rows and columns becomes a MatMulNBits of symmetric blocks of `BLOCK` k.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import load_external_data_for_tensor

LEAST, BLOCK = 512, 128


def quantize(source: Path, target: Path) -> int:
    """Write the quantized model beside `source`, whose other external data it shares; how many products were quantized.

    Raises ValueError for a target in another folder.
    """
    if source.parent.resolve() != target.parent.resolve():
        raise ValueError(f"{target} does not lie beside {source}")
    model = onnx.load(source, load_external_data=False)
    weights = {t.name: t for t in model.graph.initializer if len(t.dims) == 2 and t.data_type == TensorProto.FLOAT}
    data, offset = target.with_suffix(".data"), 0
    done: dict[str, tuple[str, str]] = {}
    count = 0
    with data.open("wb") as file:

        def external(name: str, array: np.ndarray) -> str:
            nonlocal offset
            tensor = onnx.TensorProto(name=name, dims=array.shape, data_location=TensorProto.EXTERNAL)
            tensor.data_type = helper.np_dtype_to_tensor_dtype(array.dtype)
            places = {"location": data.name, "offset": str(offset), "length": str(array.nbytes)}
            for key, value in places.items():
                tensor.external_data.add(key=key, value=value)
            model.graph.initializer.append(tensor)
            file.write(array.tobytes())
            offset += array.nbytes
            return name

        for node in model.graph.node:
            weight = weights.get(node.input[1]) if node.op_type == "MatMul" else None
            if weight is None or min(weight.dims) < LEAST or weight.dims[0] % BLOCK:
                continue
            k, n = weight.dims
            if weight.name not in done:
                codes, scales = _blocks(_array(weight, source.parent))
                done[weight.name] = external(f"{weight.name}_codes", codes), external(f"{weight.name}_scales", scales)
            node.op_type, node.domain = "MatMulNBits", "com.microsoft"
            node.input[1:] = done[weight.name]
            attributes = {"K": k, "N": n, "bits": 4, "block_size": BLOCK}
            node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
            count += 1
    used = {name for node in model.graph.node for name in node.input}
    kept = [t for t in model.graph.initializer if t.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    if all(o.domain != "com.microsoft" for o in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, target)
    return count


def _array(weight: onnx.TensorProto, folder: Path) -> np.ndarray:
    copy = onnx.TensorProto()
    copy.CopyFrom(weight)
    if copy.data_location == TensorProto.EXTERNAL:
        load_external_data_for_tensor(copy, str(folder))
    return numpy_helper.to_array(copy)


def _blocks(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes [n, blocks, BLOCK / 2], lower k in the lower nibble, and scales [n, blocks] of a weight [k, n]."""
    k, n = weight.shape
    blocks = np.ascontiguousarray(weight.T).reshape(n, k // BLOCK, BLOCK)
    scales = np.abs(blocks).max(-1) / 7 + 1e-9
    codes = (np.rint(blocks / scales[..., None]) + 8).astype(np.uint8)
    return codes[..., ::2] | codes[..., 1::2] << 4, scales.astype(np.float32)
