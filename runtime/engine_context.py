"""What one call at a time of an engine needs: an execution context for each of its stages, and what they give to each other.

Stages run one after the other, all of a call's under one lease. So what one leaves in its context's memory stays there until
the last has run: inputs that were copied to the device, and what later stages read of its results.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ingot.runtime.device import Call, ExecutionContext
from ingot.runtime.shape_binding import Shapes
from ingot.runtime.stage import Stage

Launch = Callable[[Stage, Call, ExecutionContext], list[Any]]


@dataclass
class _Tensor:
    """An input of stages.

    Attributes:
        array: as `Call.inputs`.
        shape: its sizes, which are not the array's where a byte holds several elements.
        address: where it was copied to on the device; 0 where it lies where it is read.
    """

    array: Any
    shape: tuple[int, ...]
    address: int = 0


class EngineContext:
    """The contexts of an engine's stages."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._stages = stages
        self._contexts = [stage.executable.new_context() for stage in stages]

    def is_free_for(self, call: Call) -> bool:
        """See `ingot.runtime.device.ExecutionContext`."""
        return all(context.is_free_for(call) for context in self._contexts)

    def run(self, call: Call, shapes: Shapes, outputs: Mapping[str, Any], launch: Launch = Stage.run) -> dict[str, Any]:
        """Run the first stage's call, and those of the others that follow from it.

        Args:
            shapes: of the call's inputs.
            outputs: arrays to write outputs to, by name, as the caller gave them.
            launch: runs a stage.

        Returns:
            the outputs by name, those of stages for each other among them.

        Raises InputError and DeviceError as `Stage.run` does.
        """
        stage, context = self._stages[0], self._contexts[0]
        for later in self._contexts[1:]:
            later.wait_for(call)  # it may read the first one's memory
        found = dict(zip(stage.output_names, launch(stage, call, context), strict=True))
        if len(self._stages) == 1:
            return found
        tensors = {name: _Tensor(a, s) for name, a, s in zip(stage.input_names, call.inputs, shapes, strict=True)}
        for number, following in enumerate(self._stages[1:], 1):
            stage, context = self._stages[number - 1], self._contexts[number - 1]
            for i, name in enumerate(stage.input_names):
                tensors[name].address = tensors[name].address or context.uploaded(i)
            for i, name in enumerate(stage.output_names):
                if i in stage.kept:
                    array = stage.executable.to_storage(found[name], stage.output_types[i])
                    tensors[name] = _Tensor(array, call.sizes.output_shapes[i])
            given = [tensors[name] for name in following.input_names]
            placed = {i: t.address for i, t in enumerate(given) if t.address}
            call = following.call_for(
                [t.array for t in given], tuple(t.shape for t in given), outputs, placed=placed, on_device=call.on_device,
                stream=call.stream,
            )  # fmt: skip
            results = launch(following, call, self._contexts[number])
            found.update(zip(following.output_names, results, strict=True))
        return found

    def close(self) -> None:
        """Free what the contexts hold."""
        for context in self._contexts:
            context.close()
