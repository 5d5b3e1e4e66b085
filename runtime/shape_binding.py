"""From the inputs' shapes to every size a call needs, checked: what a program's symbols are, and whether all shapes agree."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from operator import itemgetter
from typing import Any

from ingot import dims
from ingot.dim_table import DimTable
from ingot.dims import Dim
from ingot.dtypes import DTYPES, ONNX_TYPE_BY_NAME
from ingot.errors import InputError
from ingot.launch_program import Definition, GuardStep, LaunchProgram, bound_names, dim_names, guards
from ingot.runtime.device import Sizes

MAX_BYTES = 1 << 46  # no buffer of a call is larger: what a 47-bit address space cannot hold
_KEPT = 256  # shapes whose sizes are remembered

Shapes = tuple[tuple[int, ...], ...]


def values_of(keys: Sequence[Any]) -> Callable[[Any], tuple[int, ...]]:
    """A function that gives what a mapping or a list has at `keys`."""
    if len(keys) > 1:
        return itemgetter(*keys)
    return lambda found: tuple([found[key] for key in keys])


def shape_text(shape: Sequence[Dim | None]) -> str:
    """`[N, 3, 224]`."""
    return "[" + ", ".join(map(str, shape)) + "]"


def compile_sizes(names: Sequence[str], sizes: Sequence[Dim]) -> Callable[..., tuple[int, ...]]:
    """A function of the values of `names` that gives the values of `sizes`: ten times as fast as `dims.evaluate`.

    What is compiled is the normal form of shape expressions, which holds numbers, our own names and the functions above.
    """
    unknown = dims.symbols_of(sizes) - set(names)
    if unknown:
        raise ValueError(f"sizes depend on {', '.join(sorted(unknown))}, which nothing binds")
    # Names of dimensions may be Python's keywords: give them numbers.
    arguments = {name: f"v{i}" for i, name in enumerate(names)}
    table = DimTable(arguments.values(), arguments)
    results = "".join(f"{table.text(d)}, " for d in sizes)
    body = "".join(f"  {name} = {text}\n" for name, text in table.definitions)
    namespace: dict[str, Any] = {"__builtins__": {}, **dims.VALUES}
    exec(f"def evaluate({', '.join(arguments.values())}):\n{body}  return ({results})", namespace)
    return namespace["evaluate"]


def _spelled_out(definitions: Sequence[Definition]) -> list[Dim]:
    """What each definition is, in terms of what none defines."""
    env: dict[str, Dim] = {}
    for d in definitions:
        env[d.symbol] = dims.substitute(d.value, env)
    return list(env.values())


def guard_error(program: LaunchProgram, guard: GuardStep, env: Mapping[str, int]) -> InputError:
    """The error for a guard that failed where symbols have the values of `env`."""

    def value(d: Dim) -> int | str:
        try:
            return dims.evaluate(d, env)
        except (KeyError, ZeroDivisionError):  # it depends on data
            return "?"

    values = f"{guard.left} = {value(guard.left)}, {guard.right} = {value(guard.right)}"
    given = {v.symbol for v in program.values} | {d.symbol for d in program.definitions}
    cure = "change the inputs' shapes"
    if dims.symbols_of((guard.left, guard.right)) & given:
        cure = "change the inputs' shapes, or the sizes that inputs give"
    return InputError(f"{guard.message} ({values})", node=guard.node or None, cure=cure)


class _Distinct:
    """Shapes of which many are equal (a state for every layer), each computed once.

    Attributes:
        sizes: of the distinct ones, one after the other.
        numbers: for each shape, which of the distinct ones it is.
    """

    def __init__(self, shapes: Sequence[tuple[Dim, ...]]) -> None:
        found: dict[tuple[Dim, ...], int] = {}
        self.numbers = [found.setdefault(shape, len(found)) for shape in shapes]
        self.sizes = [d for shape in found for d in shape]
        ends = list(accumulate(map(len, found)))
        self._parts = [slice(begin, end) for begin, end in zip([0, *ends], ends, strict=False)]

    def split(self, values: tuple[int, ...]) -> list[tuple[int, ...]]:
        """The distinct shapes, of what their sizes are; more values may follow."""
        return [values[part] for part in self._parts]


class ShapeBinder:
    """Binds shapes to a program's symbols; remembers what it found. Threads may share it."""

    def __init__(self, program: LaunchProgram) -> None:
        self.program = program
        self._names = names = dim_names(program)
        self._bound = [b.symbol for b in program.bindings]
        self._places = [(b.input, b.axis) for b in program.bindings]
        self._ranks = [len(spec.shape) for spec in program.inputs]
        self._known = bound_names(program)
        self._defined = _spelled_out(program.definitions)
        self._declared = _Distinct([spec.shape for spec in program.inputs])
        lengths = _Distinct([(state.kept, state.length) for state in program.states])
        self._lengths, self._state_sizes = lengths, lengths.sizes
        self._results = _Distinct([spec.shape for spec in program.outputs])
        self._first_sizes = [*self._declared.sizes, *self._state_sizes]
        self._second_sizes = [*self._results.sizes, program.arena_bytes]
        self._first = compile_sizes(self._bound, self._first_sizes)
        self._define = compile_sizes(self._known, self._defined)
        self._second = compile_sizes(names, self._second_sizes)
        bits = [DTYPES[ONNX_TYPE_BY_NAME[s.onnx_type].storage].bits for s in program.outputs]
        self._output_bits = list(dict.fromkeys(zip(self._results.numbers, bits, strict=True)))
        self._all_donated: tuple[Mapping[int, int] | None, list[int]] = None, []  # capacities of the last call that gave all
        self._lock = threading.Lock()
        self._found: OrderedDict[tuple, Sizes] = OrderedDict()

    def bind(self, shapes: Shapes, capacities: Mapping[int, int] | None = None, elements: Sequence[int] = ()) -> Sizes:
        """The sizes for inputs of `shapes`.

        Args:
            capacities: of donated states, by number.
            elements: of inputs, one for each of the program's `values`.

        Raises:
            InputError: a shape contradicts the engine or another input, or leads to sizes that are impossible.
        """
        key = shapes, tuple(capacities.items()) if capacities else (), tuple(elements)
        with self._lock:
            found = self._found.get(key)
            if found is not None:
                self._found.move_to_end(key)
                return found
        found = self._bind(shapes, capacities or {}, elements)
        with self._lock:
            self._found[key] = found
            if len(self._found) > _KEPT:
                self._found.popitem(last=False)
        return found

    def check(self, shapes: Shapes) -> None:
        """Raise InputError as `bind` does where shapes contradict the engine or each other."""
        self._bind_inputs(shapes)

    def state_lengths(self, shapes: Shapes) -> tuple[int, ...]:
        """The length of every state after a call with inputs of `shapes`. Raises InputError as `bind` does."""
        return tuple(length for _, length in self._bind_inputs(shapes)[1])

    def _bind_inputs(self, shapes: Shapes) -> tuple[list[int], list[tuple[int, ...]]]:
        """The values of the symbols that inputs bind, and old and new length of each state."""
        if list(map(len, shapes)) != self._ranks:
            for spec, shape in zip(self.program.inputs, shapes, strict=True):
                if len(shape) != len(spec.shape):
                    raise InputError(
                        f"expects {len(spec.shape)} axes {shape_text(spec.shape)}, got {shape_text(shape)}",
                        node=spec.name,
                        cure="reshape the array",
                    )
        values = [shapes[number][axis] for number, axis in self._places]
        found = self._evaluate(self._first, values, self._bound, self._first_sizes)
        declared = self._declared.split(found)
        expected = [declared[number] for number in self._declared.numbers]
        if tuple(expected) != shapes:
            self._disagree(shapes, expected)
        lengths = self._lengths.split(self._nonnegative(found[len(self._declared.sizes) :], self._state_sizes))
        return values, [lengths[number] for number in self._lengths.numbers]

    def _bind(self, shapes: Shapes, capacities: Mapping[int, int], elements: Sequence[int]) -> Sizes:
        program = self.program
        values, lengths = self._bind_inputs(shapes)
        values += elements
        values += self._evaluate(self._define, values, self._known, self._defined)
        values += self._state_values(lengths, capacities)
        try:
            sizes = self._nonnegative(self._evaluate(self._second, values, self._names, self._second_sizes), self._second_sizes)
        except InputError:
            self._check_guards(dict(zip(self._names, values, strict=True)))
            raise
        results = self._results.split(sizes)
        largest = max([sizes[-1], *(math.prod(results[number]) * bits // 8 for number, bits in self._output_bits)])
        if largest > MAX_BYTES:
            text = "; ".join(f"{s.name} {shape_text(shape)}" for s, shape in zip(program.inputs, shapes, strict=True))
            raise InputError(f"these sizes need a buffer of {largest} bytes: {text}", cure="use smaller inputs")
        outputs = tuple([results[number] for number in self._results.numbers])
        env = dict(zip(self._names, values, strict=True))
        return Sizes(env, tuple(values), sizes[-1], outputs, tuple([length for _, length in lengths]))

    def _state_values(self, lengths: Sequence[tuple[int, ...]], capacities: Mapping[int, int]) -> list[int]:
        """The values of the symbols that states have (`dim_names`)."""
        last, found = self._all_donated
        if last is not capacities:
            found = []
            for n, (kept, length) in enumerate(lengths):
                capacity = capacities.get(n)
                found += (kept, length, 0) if capacity is None else (capacity, capacity, 1)
            if lengths and len(capacities) == len(lengths):  # lengths do not matter: calls of a bound session share them
                self._all_donated = capacities, found
        return found

    def _check_guards(self, env: Mapping[str, int]) -> None:
        """Raise the error of the first guard that fails, of those whose sizes are known when a call begins."""
        for guard in guards(self.program):
            if dims.symbols_of((guard.left, guard.right)) <= env.keys():
                try:
                    left, right = dims.evaluate(guard.left, env), dims.evaluate(guard.right, env)
                except ZeroDivisionError:
                    continue
                if left > right or (guard.relation == "eq" and left != right):
                    raise guard_error(self.program, guard, env)

    def _disagree(self, shapes: Shapes, expected: Sequence[tuple[int, ...]]) -> None:
        """Raise the error for the first axis that is not as expected."""
        for spec, shape, wanted in zip(self.program.inputs, shapes, expected, strict=True):
            for axis, (d, actual, value) in enumerate(zip(spec.shape, shape, wanted, strict=True)):
                if value == actual:
                    continue
                if isinstance(d, int):
                    message = f"axis {axis} is {d}, got {shape_text(shape)}"
                else:
                    where = next((b for b in self.program.bindings if b.symbol in dims.symbols(d)), None)
                    giver = f", which input {self.program.inputs[where.input].name!r} gives" if where is not None else ""
                    message = f"axis {axis} is {d} = {value}{giver}; got {shape_text(shape)}"
                raise InputError(message, node=spec.name, cure=f"its shape must be {shape_text(spec.shape)}")

    @staticmethod
    def _evaluate(
        function: Callable[..., tuple[int, ...]], values: Sequence[int], names: Sequence[str], sizes: Sequence[Dim]
    ) -> tuple[int, ...]:
        try:
            return function(*values)
        except ZeroDivisionError:
            env = dict(zip(names, values, strict=True))
            for d in sizes:
                try:
                    dims.evaluate(d, env)
                except ZeroDivisionError:
                    cure = "use larger inputs"
                    raise InputError(f"the size {d} divides by 0 at these shapes", cure=cure) from None
            raise

    @staticmethod
    def _nonnegative(values: tuple[int, ...], sizes: Sequence[Dim]) -> tuple[int, ...]:
        if values and min(values) < 0:
            d, value = next((d, v) for d, v in zip(sizes, values, strict=True) if v < 0)
            raise InputError(f"the size {d} is {value} at these shapes", cure="use larger inputs")
        return values
