"""`ingot.backend`: ONNX's own interface to a runtime (`onnx.backend.base`), so that ONNX's test suite runs on Ingot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx.backend.base import Backend as OnnxBackend
from onnx.backend.base import BackendRep, namedtupledict

from ingot.compiler.driver import compile_model
from ingot.runtime.session import Session


class IngotBackendRep(BackendRep):
    """A model compiled and ready to run."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._inputs = [i.name for i in session.get_inputs()]
        self._outputs = [o.name for o in session.get_outputs()]

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Run on a sequence of arrays in the model's order, a dictionary by name, or one array; a named tuple of outputs."""
        if isinstance(inputs, dict):
            feeds = inputs
        else:
            values = inputs if isinstance(inputs, Sequence) and not isinstance(inputs, np.ndarray) else [inputs]
            feeds = dict(zip(self._inputs, values, strict=False))
        results = self._session.run(None, feeds)
        return namedtupledict("Outputs", self._outputs)(*results)


class Backend(OnnxBackend):
    """Compiles with `ingot.compile` and runs with `ingot.Session`, on `CPU` or `CUDA[:N]`."""

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        return cls.supports_device(device)

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> IngotBackendRep:
        """Compile `model` for `device`. Raises `ingot.Error` naming the nodes that are not supported."""
        return IngotBackendRep(Session(compile_model(model), device=_device(device)))

    @classmethod
    def run_model(cls, model: onnx.ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any) -> tuple[Any, ...]:
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls, node: onnx.NodeProto, inputs: Any, device: str = "CPU", outputs_info: Any = None, **kwargs: Any
    ) -> tuple[Any, ...]:
        """Run one node: a model is made around it whose inputs have the given arrays' types and shapes."""
        names = [n for n in node.input if n]
        arrays = [np.asarray(a) for a in inputs]
        infos = [
            onnx.helper.make_tensor_value_info(n, onnx.helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in zip(names, arrays, strict=True)
        ]
        outputs = [onnx.ValueInfoProto(name=n) for n in node.output if n]
        graph = onnx.helper.make_graph([node], "node", infos, outputs)
        opset = kwargs.get("opset_version", onnx.defs.onnx_opset_version())
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
        return cls.run_model(onnx.shape_inference.infer_shapes(model), arrays, device)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """True for `CPU`, and for `CUDA:N` where that GPU exists."""
        kind, _, ordinal = device.partition(":")
        if kind != "CUDA":
            return kind == "CPU"
        from ingot.runtime.cuda_driver import device_count

        return int(ordinal or 0) < device_count()


def _device(device: str) -> str:
    kind, _, ordinal = device.partition(":")
    return "cpu" if kind == "CPU" else f"cuda:{ordinal or 0}"


is_compatible = Backend.is_compatible
prepare = Backend.prepare
run_model = Backend.run_model
run_node = Backend.run_node
supports_device = Backend.supports_device
