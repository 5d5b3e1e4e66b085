"""A launch program ready to run: an engine's only one, or one of those that follow one another where sizes depend on data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ingot.dtypes import ONNX_TYPE_BY_NAME, onnx_numpy
from ingot.engine import Engine
from ingot.launch_program import guards
from ingot.runtime.context_pool import ContextPool
from ingot.runtime.device import Call, Device
from ingot.runtime.program_loader import LoadedProgram, ProgramLoader
from ingot.runtime.shape_binding import ShapeBinder, Shapes, guard_error
from ingot.runtime.specialization import Mode, Specializer

INNER = "~"  # begins the names of what stages give to later ones (`ingot-split-stages`)


class Stage:
    """A program on a device, with its contexts. Threads may share it.

    Attributes:
        program: what runs.
        executable: the same on the device.
        contexts: of the calls that are under way.
        binder: binds shapes to the program's symbols.
        types: ONNX's element types of the inputs.
    """

    def __init__(
        self, loaded: LoadedProgram, loader: ProgramLoader, device: Device, engine: Engine, mode: Mode, max_contexts: int
    ) -> None:
        self.program = loaded.program
        program, target, self._target = loaded.program, device.own_target, device.target

        # It refers to no stage: memory goes with the last reference to a session, and waits for no garbage collector.
        def specialize(env: Mapping[str, int], live: frozenset[str]) -> LoadedProgram:
            return loader.specialize(program, env, live, target)

        self.executable = device.prepare(loaded, engine.weights, Specializer(specialize, mode))
        self.contexts = ContextPool(self.executable.new_context, max_contexts)
        self.binder = ShapeBinder(self.program)
        self.types = [ONNX_TYPE_BY_NAME[spec.onnx_type] for spec in self.program.inputs]

    def elements(self, stored: Sequence[Any], shapes: Shapes) -> list[int]:
        """The elements of inputs of these shapes on which sizes depend; what lies in the GPU's memory is waited for.

        Raises InputError where a shape is wrong.
        """
        values = self.program.values
        if not values:
            return []
        self.binder.check(shapes)
        arrays = {i: self.executable.to_host(stored[i]).reshape(-1) for i in {v.input for v in values}}
        return [int(arrays[v.input][v.element]) for v in values]

    def call_for(self, stored: Sequence[Any], shapes: Shapes, on_device: bool = False, stream: Any = None) -> Call:
        """A call with these inputs, as kernels read them; what later stages read stays on the device. Raises InputError."""
        sizes = self.binder.bind(shapes, elements=self.elements(stored, shapes))
        outputs: list[Any] = [None] * len(self.program.outputs)
        for i, spec in enumerate(self.program.outputs):
            if spec.name.startswith(INNER) and self._target.kind == "cuda":
                dtype = onnx_numpy(ONNX_TYPE_BY_NAME[spec.onnx_type])
                outputs[i] = self.executable.allocate_state(sizes.output_shapes[i], dtype)
        return Call(sizes, stored, outputs, on_device, stream)

    def run(self, call: Call) -> list[Any]:
        """The outputs of a call. Raises InputError where a guard fails, DeviceError where memory is missing."""
        with self.contexts.lease(lambda context: context.is_free_for(call)) as context:
            results, status = context.run(call)
        if status:
            raise guard_error(self.program, guards(self.program)[status - 1], call.sizes.env)
        return results

    def close(self) -> None:
        """Free contexts and kernels; no call may be running."""
        self.contexts.close()
        self.executable.close()
