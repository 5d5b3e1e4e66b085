"""Sessions with caller-owned outputs and with states that stay where they are, and grow or are changed in place.

bound = session.bind(donate=True, capacity=512)      # past.* / present.* pairs become the session's
for token in tokens:
    logits, = bound.run(["logits"], {"input_ids": token})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ingot import dims
from ingot.dtypes import DTYPES, ONNX_TYPE_BY_NAME, onnx_numpy
from ingot.errors import InputError
from ingot.runtime.arrays import aligned_copy, as_array

if TYPE_CHECKING:
    from ingot.runtime.session import Session

_GRAIN = 64  # capacities are multiples of it


@dataclass
class _Grown:
    """A donated state: its buffer with room for `capacity` along the axis, of which `length` are in use, all where its size is
    fixed; `begun` once a call has ended."""

    number: int
    buffer: Any = None
    length: int = 0
    capacity: int = 0
    begun: bool = False


class BoundSession:
    """Made by `Session.bind`, which explains its arguments. One thread at a time may call it."""

    def __init__(
        self, session: Session, inputs: dict[str, Any], outputs: dict[str, Any], donate: bool | Sequence[str], capacity: int
    ) -> None:
        self._session, self._fixed, self._capacity = session, inputs, capacity
        program = session.program
        names = {program.inputs[s.input].name: n for n, s in enumerate(program.states)}
        donated = list(names) if donate is True else list(donate or ())
        for name in donated:
            if name not in names:
                known = ", ".join(names) or "none"
                raise InputError("this input cannot be donated: no output is it, grown along one axis or changed", node=name,
                                 cure=f"donatable are: {known}")  # fmt: skip
        self._states = {name: _Grown(names[name]) for name in donated}
        for name in inputs:
            if name not in session._inputs:
                raise InputError(f"no input is named {name!r}", cure=f"inputs are {', '.join(session._inputs)}")
        self._outputs: dict[str, Any] = {}
        for name, array in outputs.items():
            session._wanted([name])
            onnx_type = ONNX_TYPE_BY_NAME[session._specs[name].onnx_type]
            if DTYPES[onnx_type.storage].bits < 8:
                raise InputError("an output of 4-bit elements cannot be bound", node=name, cure="leave it to the session")
            checked = as_array(array, name, onnx_type)
            if isinstance(array, np.ndarray) and checked is not array:
                cure = f"give an array of {checked.dtype} in the machine's byte order"
                raise InputError("has another byte order than the machine", node=name, cure=cure)
            if not isinstance(array, np.ndarray) and not hasattr(array, "__dlpack__"):
                raise InputError(f"{type(array).__name__} cannot be written to", node=name, cure="give a numpy array")
            if not checked.flags.c_contiguous or not checked.flags.writeable or checked.ctypes.data % 16:
                raise InputError("must be contiguous, writable, and aligned to 16 bytes", node=name, cure="copy it")
            if any(np.may_share_memory(checked, other) for other in self._outputs.values()):
                raise InputError("shares memory with another output", node=name, cure="give each output its own array")
            self._outputs[name] = checked

    @property
    def lengths(self) -> dict[str, int]:
        """Length in use of every donated state that grows, by input name."""
        return {name: s.length for name, s in self._growing.items()}

    @property
    def _growing(self) -> dict[str, _Grown]:
        states = self._session.program.states
        return {name: s for name, s in self._states.items() if states[s.number].grows}

    def reset(self, length: int = 0) -> None:
        """Forget what donated states that grow hold beyond `length` (to start a new sequence, or go back in one)."""
        for name, s in self._growing.items():
            if not 0 <= length <= s.length:
                raise ValueError(f"{name} has length {s.length}; it cannot be reset to {length}")
            s.length = length

    def run(self, output_names: Sequence[str] | None = None, input_feed: Mapping[str, Any] | None = None) -> list[Any]:
        """Run with the bound arrays and those given here. Outputs of donated states are views of their buffers.

        Raises InputError and DeviceError as `Session.run` does.
        """
        session, program = self._session, self._session.program
        wanted = session._wanted(output_names)
        feed = {**self._fixed, **(input_feed or {})}
        session._check_names(feed, list(self._states))
        for name, s in self._states.items():
            if name not in (input_feed or {}):
                if s.begun:
                    feed.pop(name, None)  # what `bind` gave was its beginning
            elif s.length and program.states[s.number].grows:
                cure = "leave it out, or begin a new sequence by reset()"
                raise InputError(f"this state is the session's, and holds {s.length} already", node=name, cure=cure)
        arrays: list[Any] = []
        for i, spec in enumerate(program.inputs):
            convert = session._executable.as_input
            arrays.append(convert(feed[spec.name], spec.name, session._types[i]) if spec.name in feed else None)
        shapes = self._shapes(arrays)
        lengths = session._binder.state_lengths(shapes) if self._states else ()
        before = {name: s.length for name, s in self._states.items()}
        try:
            for s in self._states.values():
                number = program.states[s.number].input
                self._make_room(s, shapes[number], lengths[s.number], arrays[number])
            return self._run(wanted, arrays, shapes, lengths)
        except BaseException:
            for name, length in before.items():
                self._states[name].length = length
            raise

    def _run(
        self, wanted: Sequence[int], arrays: Sequence[Any], shapes: tuple[tuple[int, ...], ...], lengths: Sequence[int]
    ) -> list[Any]:
        session, program = self._session, self._session.program
        inputs = [a if a is None else self._apart(session._stored(a, i)) for i, a in enumerate(arrays)]
        capacities = {s.number: s.capacity for s in self._states.values()}
        outputs = dict(self._outputs)
        for s in self._states.values():
            state = program.states[s.number]
            inputs[state.input] = outputs[program.outputs[state.output].name] = s.buffer
        results = session._call(inputs, shapes, outputs, capacities=capacities, stream=session._stream)
        for s in self._states.values():
            s.length, s.begun = lengths[s.number], True
            output = program.states[s.number].output
            if output in wanted:
                results[output] = self._view(s, s.length)
        return [results[i] for i in wanted]

    def _apart(self, array: Any) -> Any:
        """An input, copied where a bound output would be written over it while it is read."""
        if isinstance(array, np.ndarray) and any(np.may_share_memory(array, o) for o in self._outputs.values()):
            self._session.counters.copied_inputs += 1
            return aligned_copy(array)
        return array

    def _shapes(self, arrays: Sequence[Any]) -> tuple[tuple[int, ...], ...]:
        """The inputs' shapes; those of donated states follow from their lengths and the other inputs."""
        program = self._session.program
        env: dict[str, int] = {}
        for spec, array in zip(program.inputs, arrays, strict=True):
            if array is not None and len(array.shape) == len(spec.shape):
                env |= {str(d): n for d, n in zip(spec.shape, array.shape, strict=True) if not isinstance(d, int)}
        shapes = [() if a is None else tuple(a.shape) for a in arrays]
        for name, s in self._states.items():
            state = program.states[s.number]
            if arrays[state.input] is not None:
                continue
            spec = program.inputs[state.input]
            shape = None if s.buffer is None else list(s.buffer.shape)
            if not s.length:  # a new sequence may have other sizes, as of the batch
                try:
                    empty = state.axis if state.grows else -1
                    shape = [0 if a == empty else dims.evaluate(d, env) for a, d in enumerate(spec.shape)]
                except KeyError as e:
                    if shape is None:
                        cure = "give an array of the right shape with the first call"
                        raise InputError(f"the size {e.args[0]} is not known", node=name, cure=cure) from None
            assert shape is not None, "a state in use has a buffer"
            if state.grows:
                shape[state.axis] = s.length
            shapes[state.input] = tuple(shape)
        return tuple(shapes)

    def _make_room(self, s: _Grown, shape: tuple[int, ...], length: int, first: Any) -> None:
        """A buffer for at least `length`, holding what the state has, or what it begins with."""
        if first is None and s.length and length <= s.capacity:
            return  # as in most calls: its shape is the buffer's
        state = self._session.program.states[s.number]
        spec = self._session.program.inputs[state.input]
        varies = state.axis if state.grows else -1
        sizes = zip(s.buffer.shape, shape, strict=True) if s.buffer is not None else ()
        if any(has != wanted for axis, (has, wanted) in enumerate(sizes) if axis != varies):
            s.buffer, s.capacity = None, 0  # of a sequence before
        is_new = s.buffer is None
        if is_new or length > s.capacity:
            capacity = length
            if state.grows:
                capacity = -(-max(length, self._capacity, 2 * s.capacity) // _GRAIN) * _GRAIN
            room = tuple(capacity if a == state.axis else d for a, d in enumerate(shape))
            dtype = onnx_numpy(ONNX_TYPE_BY_NAME[spec.onnx_type])
            old, s.buffer = s.buffer, self._session._executable.allocate_state(room, dtype)
            s.capacity = capacity
            if old is not None and s.length:
                self._session._executable.copy(self._view(s, s.length), old[self._part(s, s.length)])
                self._session.counters.state_copies += 1
            if is_new and not state.grows and first is None:
                self._session._executable.copy(s.buffer, np.zeros(room, dtype))
        if first is not None:
            s.length = shape[state.axis]
            if s.length:
                self._session._executable.copy(self._view(s, s.length), first)

    def _part(self, s: _Grown, length: int) -> tuple[slice, ...]:
        axis = self._session.program.states[s.number].axis
        return (*[slice(None)] * axis, slice(0, length))

    def _view(self, s: _Grown, length: int) -> Any:
        return s.buffer[self._part(s, length)]
