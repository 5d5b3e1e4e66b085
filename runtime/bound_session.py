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
from ingot.launch_program import LaunchProgram
from ingot.runtime.arrays import aligned_copy, as_array
from ingot.runtime.device import Resident, Sizes
from ingot.runtime.shape_binding import Shapes

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


class _Settled:
    """States whose buffers stay where they are: what calls need not find out again.

    Args:
        program: the session's.
        states: all that are donated; their buffers have room.

    Attributes:
        resident: the buffers.
    """

    def __init__(self, program: LaunchProgram, states: Sequence[_Grown]) -> None:
        of = [program.states[s.number] for s in states]
        buffers = {state.input: s.buffer for s, state in zip(states, of, strict=True)}
        outputs = {state.output: s.buffer for s, state in zip(states, of, strict=True)}
        self.resident = Resident(buffers, outputs, {s.number: s.capacity for s in states})
        # States of one shape, as those of equal layers, have one length at every call.
        self._alike: dict[tuple, list[int]] = {}
        self._first: dict[tuple, _Grown] = {}
        self._rooms: dict[int, int] = {}
        for s, state in zip(states, of, strict=True):
            declared = program.inputs[state.input].shape
            key = declared, state.kept, state.length, state.axis, s.buffer.shape
            self._alike.setdefault(key, []).append(state.input)
            if self._first.setdefault(key, s) is s and state.grows:
                self._rooms[s.number] = s.capacity
        self._grows = {key: key[1] != key[2] for key in self._alike}

    def shapes(self, arrays: Sequence[Any]) -> Shapes | None:
        """The inputs' shapes; None where a state is given, or begins and may have other sizes."""
        shapes = [() if a is None else tuple(a.shape) for a in arrays]
        for key, numbers in self._alike.items():
            length, axis, shape = self._first[key].length, key[3], key[4]
            if not length:
                return None
            if self._grows[key]:
                shape = (*shape[:axis], length, *shape[axis + 1 :])
            for number in numbers:
                if arrays[number] is not None:
                    return None
                shapes[number] = shape
        return tuple(shapes)

    def has_room(self, lengths: Sequence[int]) -> bool:
        """Whether states of these lengths, by number, fit."""
        return all(lengths[number] <= room for number, room in self._rooms.items())


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
        self._by_output = {program.states[s.number].output: s for s in self._states.values()}
        self._beginnings = [name for name in inputs if name in self._states]
        self._settled: _Settled | None = None
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
        growing = self._growing
        for name, s in growing.items():
            if not 0 <= length <= s.length:
                raise ValueError(f"{name} has length {s.length}; it cannot be reset to {length}")
        for s in growing.values():
            s.length = length

    def run(self, output_names: Sequence[str] | None = None, input_feed: Mapping[str, Any] | None = None) -> list[Any]:
        """Run with the bound arrays and those given here. Outputs of donated states are views of their buffers.

        Raises InputError and DeviceError as `Session.run` does.
        """
        session = self._session
        wanted = session._wanted(output_names)
        feed = {**self._fixed, **(input_feed or {})}
        session._check_names(feed, self._states)
        given = [name for name in input_feed or () if name in self._states]
        for name in given:
            s = self._states[name]
            if s.length and session.program.states[s.number].grows:
                cure = "leave it out, or begin a new sequence by reset()"
                raise InputError(f"this state is the session's, and holds {s.length} already", node=name, cure=cure)
        for name in self._beginnings:
            if name not in given and self._states[name].begun:
                feed.pop(name, None)  # what `bind` gave was its beginning
        arrays: list[Any] = [None] * len(session._types)
        for i in sorted([session._inputs[name] for name in feed]):
            name = session._names[i]
            arrays[i] = session._executable.as_input(feed[name], name, session._types[i])
        results = self._run_settled(arrays) if not given else None
        if results is None:
            results = self._run_states(arrays)
        for number in wanted:
            if number in self._by_output:
                s = self._by_output[number]
                results[number] = self._view(s, s.length)
        return [results[i] for i in wanted]

    def _run_states(self, arrays: Sequence[Any]) -> list[Any]:
        """A call before which states may get their buffers, larger ones, or what they begin with."""
        session, program = self._session, self._session.program
        self._settled = None
        shapes = self._shapes(arrays)
        lengths = session._binder.state_lengths(shapes) if self._states else ()
        before = {name: s.length for name, s in self._states.items()}
        try:
            for s in self._states.values():
                number = program.states[s.number].input
                self._make_room(s, shapes[number], lengths[s.number], arrays[number])
            settled = _Settled(program, list(self._states.values()))
            results = self._call(arrays, shapes, settled.resident)
            for s in self._states.values():
                s.length, s.begun = lengths[s.number], True
        except BaseException:
            for name, length in before.items():
                self._states[name].length = length
            raise
        self._settled = settled if self._states else None
        return results

    def _run_settled(self, arrays: Sequence[Any]) -> list[Any] | None:
        """A call that finds all states in buffers with room for them; None where this is not known."""
        settled = self._settled
        if settled is None:
            return None
        shapes = settled.shapes(arrays)
        if shapes is None:
            return None
        session = self._session
        inputs = [a if a is None else self._stored(a, i) for i, a in enumerate(arrays)]
        sizes = session._stages[0].sizes(inputs, shapes, settled.resident.capacities)
        if not settled.has_room(sizes.lengths):
            return None
        before = [s.length for s in self._states.values()]
        try:
            results = self._call(inputs, shapes, settled.resident, sizes)
            for s in self._states.values():
                s.length = sizes.lengths[s.number]
        except BaseException:
            for s, length in zip(self._states.values(), before, strict=True):
                s.length = length
            raise
        return results

    def _call(self, arrays: Sequence[Any], shapes: Shapes, resident: Resident, sizes: Sizes | None = None) -> list[Any]:
        """The outputs; `arrays` are stored as kernels read them where `sizes` are known."""
        inputs = list(arrays) if sizes else [a if a is None else self._stored(a, i) for i, a in enumerate(arrays)]
        for number, buffer in resident.inputs.items():
            inputs[number] = buffer
        session = self._session
        return session._call(inputs, shapes, self._outputs, resident=resident, sizes=sizes, stream=session._stream)

    def _stored(self, array: Any, index: int) -> Any:
        """An input as kernels read it, copied where a bound output would be written over it while it is read."""
        array = self._session._stored(array, index)
        if isinstance(array, np.ndarray) and any(np.may_share_memory(array, o) for o in self._outputs.values()):
            self._session.counters.copied_inputs += 1
            return aligned_copy(array)
        return array

    def _shapes(self, arrays: Sequence[Any]) -> Shapes:
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
