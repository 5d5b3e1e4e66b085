"""`ingot.backend`: ONNX's own interface to a runtime (`onnx.backend.base`), so that ONNX's test suite runs on Ingot."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx.backend.base import Backend as OnnxBackend
from onnx.backend.base import BackendRep, namedtupledict

from ingot.compiler.driver import compile_model
from ingot.errors import ModelError
from ingot.runtime.session import Session

_KEPT = 8  # sessions of a model for different constants


class IngotBackendRep(BackendRep):
    """A model compiled and ready to run.

    This interface knows no constants, but where inputs decide what is computed (axes), a model must be compiled for their
    values: then it is compiled at the first run with such values, as `ingot.compile(..., constants=...)` does. The sessions for
    the values used last are kept.
    """

    def __init__(self, model: onnx.ModelProto, device: str) -> None:
        self._model, self._device = model, device
        self._inputs = [i.name for i in model.graph.input if i.name not in {t.name for t in model.graph.initializer}]
        self._outputs = [o.name for o in model.graph.output]
        self._constants: tuple[str, ...] = ()  # inputs that are compiled for
        self._sessions: OrderedDict[tuple[bytes, ...], Session] = OrderedDict()
        try:
            self._session({})
        except ModelError as e:
            if not e.constants:
                raise
            self._constants = e.constants

    def _session(self, feeds: Mapping[str, Any]) -> Session:
        """The session for these values of the inputs that are compiled for."""
        key = tuple(repr(np.asarray(feeds[name]).tolist()).encode() for name in self._constants)
        found = self._sessions.get(key)
        if found is None:
            constants = {name: np.asarray(feeds[name]) for name in self._constants}
            found = self._sessions[key] = Session(compile_model(self._model, constants=constants), device=self._device)
            if len(self._sessions) > _KEPT:
                self._sessions.popitem(last=False)[1].close()
        self._sessions.move_to_end(key)
        return found

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Run on a sequence of arrays in the model's order, a dictionary by name, or one array; a named tuple of outputs."""
        if isinstance(inputs, dict):
            feeds = inputs
        else:
            values = inputs if isinstance(inputs, Sequence) and not isinstance(inputs, np.ndarray) else [inputs]
            feeds = dict(zip(self._inputs, values, strict=False))
        while True:
            try:
                session = self._session(feeds)
                break
            except ModelError as e:
                further = tuple(name for name in e.constants if name not in self._constants and name in feeds)
                if not further:
                    raise
                self._constants += further
                self._sessions.clear()
        results = session.run(None, {name: value for name, value in feeds.items() if name not in self._constants})
        return namedtupledict("Outputs", self._outputs)(*results)


class Backend(OnnxBackend):
    """Compiles with `ingot.compile` and runs with `ingot.Session`, on `CPU` or `CUDA[:N]`."""

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        return cls.supports_device(device)

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> IngotBackendRep:
        """Compile `model` for `device`; see `IngotBackendRep` for inputs that must be constants. Raises `ingot.Error` naming
        the nodes that are not supported."""
        return IngotBackendRep(model, _device(device))

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
