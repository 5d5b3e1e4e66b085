"""A launch program ready to run: an engine's only one, or one of those that follow one another where sizes depend on data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ingot.dtypes import ONNX_TYPE_BY_NAME
from ingot.errors import InputError
from ingot.launch_program import guards
from ingot.runtime.device import NOTHING_RESIDENT, Call, Executable, ExecutionContext, Resident, Sizes
from ingot.runtime.program_loader import LoadedProgram
from ingot.runtime.shape_binding import ShapeBinder, Shapes, guard_error, shape_text

INNER = "~"  # begins the names of what stages give to later ones (`ingot-split-stages`)


class Stage:
    """A program on a device. Threads may share it.

    Attributes:
        program: what runs.
        executable: the same on the device.
        binder: binds shapes to the program's symbols.
        types, output_types: ONNX's element types of inputs and outputs.
        input_names, output_names: in order.
        kept: numbers of the outputs that only later stages read.
    """

    def __init__(self, loaded: LoadedProgram, executable: Executable) -> None:
        self.program, self.executable = loaded.program, executable
        self.binder = ShapeBinder(self.program)
        self.types = [ONNX_TYPE_BY_NAME[spec.onnx_type] for spec in self.program.inputs]
        self.output_types = [ONNX_TYPE_BY_NAME[spec.onnx_type] for spec in self.program.outputs]
        self.input_names = [spec.name for spec in self.program.inputs]
        self.output_names = [spec.name for spec in self.program.outputs]
        self._output_numbers = {name: i for i, name in enumerate(self.output_names)}
        self.kept = frozenset(i for i, name in enumerate(self.output_names) if name.startswith(INNER))

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

    def sizes(self, stored: Sequence[Any], shapes: Shapes, capacities: Mapping[int, int]) -> Sizes:
        """What inputs of these shapes, and the elements on which sizes depend, give; see `ShapeBinder.bind`."""
        return self.binder.bind(shapes, capacities, self.elements(stored, shapes))

    def call_for(
        self,
        stored: Sequence[Any],
        shapes: Shapes,
        outputs: Mapping[str, Any],
        *,
        resident: Resident = NOTHING_RESIDENT,
        sizes: Sizes | None = None,
        placed: Mapping[int, int] | None = None,
        on_device: bool = False,
        stream: Any = None,
    ) -> Call:
        """A call with these inputs, as kernels read them.

        Args:
            outputs: arrays to write to, by name, of the outputs' shapes.
            resident: donated states, which are among `stored`.
            sizes: what the shapes give, where that is known already.
            placed, on_device, stream: see `Call`.

        Raises InputError where shapes are impossible, or an array is not of its output's shape.
        """
        if sizes is None:
            sizes = self.sizes(stored, shapes, resident.capacities)
        given: list[Any] = [None] * len(self.output_names)
        for i, array in resident.outputs.items():
            given[i] = array
        for name, array in outputs.items():
            number = self._output_numbers.get(name)
            if number is None or number in resident.outputs:
                continue
            given[number], shape = array, sizes.output_shapes[number]
            if array.shape != shape:
                message = f"the bound array is {shape_text(array.shape)}, the output {shape_text(shape)}"
                raise InputError(message, node=name, cure=f"bind an array of shape {shape_text(shape)}")
        return Call(sizes, stored, given, on_device, stream, self.kept, placed or {}, resident)

    def run(self, call: Call, context: ExecutionContext) -> list[Any]:
        """The outputs of a call. Raises InputError where a guard fails, DeviceError where memory is missing."""
        results, status = context.run(call)
        if status:
            raise guard_error(self.program, guards(self.program)[status - 1], call.sizes.env)
        return results
