"""From the inputs' shapes to every size a call needs, checked: what a program's symbols are, and whether all shapes agree."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from ingot import dims
from ingot.dims import Dim
from ingot.errors import InputError
from ingot.launch_program import LaunchProgram, TensorSpec, dim_names
from ingot.runtime.device import Sizes

MAX_BYTES = 1 << 46  # no buffer of a call is larger: what a 47-bit address space cannot hold
_KEPT = 256  # shapes whose sizes are remembered

Shapes = tuple[tuple[int, ...], ...]


def shape_text(shape: Sequence[Dim | None]) -> str:
    """`[N, 3, 224]`."""
    return "[" + ", ".join(map(str, shape)) + "]"


class ShapeBinder:
    """Binds shapes to a program's symbols; remembers what it found. Threads may share it."""

    def __init__(self, program: LaunchProgram) -> None:
        self.program = program
        self._names = dim_names(program)
        self._lock = threading.Lock()
        self._found: OrderedDict[tuple, Sizes] = OrderedDict()

    def bind(self, shapes: Shapes, capacities: Mapping[int, int] | None = None) -> Sizes:
        """The sizes for inputs of `shapes`; `capacities` has those of donated states, by number.

        Raises:
            InputError: a shape contradicts the engine or another input, or leads to sizes that are impossible.
        """
        key = shapes, tuple(sorted(capacities.items())) if capacities else ()
        with self._lock:
            found = self._found.get(key)
            if found is not None:
                self._found.move_to_end(key)
                return found
        found = self._bind(shapes, capacities or {})
        with self._lock:
            self._found[key] = found
            if len(self._found) > _KEPT:
                self._found.popitem(last=False)
        return found

    def _bind(self, shapes: Shapes, capacities: Mapping[int, int]) -> Sizes:
        program = self.program
        for spec, shape in zip(program.inputs, shapes, strict=True):
            if len(shape) != len(spec.shape):
                raise InputError(
                    f"expects {len(spec.shape)} axes {shape_text(spec.shape)}, got {shape_text(shape)}",
                    node=spec.name,
                    cure="reshape the array",
                )
        env = {b.symbol: shapes[b.input][b.axis] for b in program.bindings}
        for spec, shape in zip(program.inputs, shapes, strict=True):
            self._agree(spec, shape, env)
        for n, state in enumerate(program.states):
            capacity = capacities.get(n)
            env[state.kept_capacity] = self._size(state.kept, env) if capacity is None else capacity
            env[state.capacity] = self._size(state.length, env) if capacity is None else capacity
            env[f"donated_{n}"] = int(capacity is not None)
        outputs = tuple(tuple(self._size(d, env, spec.name) for d in spec.shape) for spec in program.outputs)
        buffers = tuple(self._size(b.bytes, env) for b in program.buffers)
        arena = self._size(program.arena_bytes, env)
        largest = max((arena, *buffers))
        if largest > MAX_BYTES:
            text = "; ".join(f"{s.name} {shape_text(shape)}" for s, shape in zip(program.inputs, shapes, strict=True))
            raise InputError(f"these sizes need a buffer of {largest} bytes: {text}", cure="use smaller inputs")
        return Sizes(env, tuple(env[n] for n in self._names), arena, outputs, buffers)

    def _agree(self, spec: TensorSpec, shape: tuple[int, ...], env: Mapping[str, int]) -> None:
        for axis, (expected, actual) in enumerate(zip(spec.shape, shape, strict=True)):
            value = self._size(expected, env, spec.name)
            if value == actual:
                continue
            if isinstance(expected, int):
                message = f"axis {axis} is {expected}, got {shape_text(shape)}"
            else:
                where = next((b for b in self.program.bindings if b.symbol in dims.symbols(expected)), None)
                giver = f", which input {self.program.inputs[where.input].name!r} gives" if where is not None else ""
                message = f"axis {axis} is {expected} = {value}{giver}; got {shape_text(shape)}"
            raise InputError(message, node=spec.name, cure=f"its shape must be {shape_text(spec.shape)}")

    def _size(self, d: Dim, env: Mapping[str, int], name: str | None = None) -> int:
        try:
            value = dims.evaluate(d, env)
        except ZeroDivisionError:
            raise InputError(f"the size {d} divides by 0 at these shapes", node=name, cure="use larger inputs") from None
        if value < 0:
            raise InputError(f"the size {d} is {value} at these shapes", node=name, cure="use larger inputs")
        return value
