"""An engine's weights in a GPU's memory: one piece of memory for all, filled and packed while the session goes on.

The programs of an engine share them: each weight lies there once, whichever of them read it, and so does each that they pack.
Weights that the programs only pack pass through a piece of memory that they share: copies and packings follow one another on
the upload's stream, so that each is packed before the next one overwrites it, and memory never holds more than one of them
twice.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ingot import dims
from ingot.engine import Weight
from ingot.errors import DeviceError
from ingot.launch_program import DispatchStep, HostReadStep, IfStep, LaunchProgram, LoopStep, all_steps
from ingot.runtime.cuda_array import DeviceMemory
from ingot.runtime.cuda_driver import Cuda
from ingot.runtime.cuda_plan import Plan
from ingot.runtime.cuda_upload import Upload, WeightUpload

_ALIGNMENT = 256

Functions = Callable[[int, str, int], Any]  # (kernel index, symbol, shared bytes) -> loaded function


@dataclass
class _Packing:
    """A packing on its way.

    Attributes:
        plan: its launch.
        addresses: of the buffers of the program whose step it is.
    """

    plan: Plan
    addresses: list[int]

    def run(self, stream: int) -> None:
        self.plan.bind(self.addresses, 0, {}, stream)
        self.plan.run(stream)


@dataclass
class _Placement:
    """Where weights are to lie, by key (see `_keys`).

    Attributes:
        sizes: bytes of each.
        passing: those that are only packed.
        offsets: of all others.
        total: bytes of all others.
    """

    sizes: dict[Hashable, int]
    passing: set[Hashable]
    offsets: dict[Hashable, int] = field(default_factory=dict)
    total: int = 0

    def __post_init__(self) -> None:
        for key, size in self.sizes.items():
            if key not in self.passing:
                self.offsets[key] = self.total
                self.total += size

    @property
    def passage(self) -> int:
        """Bytes that passing ones need, one after the other."""
        return max((self.sizes[key] for key in self.passing), default=0)


class CudaWeights:
    """Weights on their way to the GPU, or there.

    Args:
        cuda: the GPU, whose context is current.
        programs: what reads them, each with its kernels, for those that pack.
        weights: the engine's, by name.

    Attributes:
        addresses: for each program, the base address of every buffer, 0 for those of a call.

    Raises DeviceError where weights are missing, of another size, or memory is.
    """

    def __init__(
        self, cuda: Cuda, programs: Sequence[tuple[LaunchProgram, Functions]], weights: Mapping[str, Weight]
    ) -> None:
        self._cuda = cuda
        keys = [_keys(program) for program, _ in programs]
        sizes: dict[Hashable, int] = {}
        packed: set[Hashable] = set()
        read: set[Hashable] = set()
        for (program, _), own in zip(programs, keys, strict=True):
            for number, key in own.items():
                buffer = program.buffers[number]
                if buffer.kind == "weight":
                    self._check(buffer.name, buffer.bytes, weights)
                sizes[key] = -(-dims.evaluate(buffer.bytes, {}) // _ALIGNMENT) * _ALIGNMENT
            packed |= {own[step.operands[0].buffer] for step in program.packing}
            read |= {own[number] for number in _read(program) if number in own}
        placement = _Placement(sizes, packed - read)
        self._memory: DeviceMemory | None = DeviceMemory(cuda, placement.total)
        self._passage: DeviceMemory | None = DeviceMemory(cuda, placement.passage) if placement.passing else None
        self.addresses: list[list[int]] = []
        for (program, _), own in zip(programs, keys, strict=True):
            addresses = [0] * len(program.buffers)
            for number, key in own.items():
                if key in placement.passing:
                    assert self._passage is not None
                    addresses[number] = self._passage.address
                else:
                    addresses[number] = self._memory.address + placement.offsets[key]
            self.addresses.append(addresses)
        self._packings: dict[Hashable, dict[Hashable, _Packing]] = {}  # by what they read, then by what they write
        for (program, functions), own, addresses in zip(programs, keys, self.addresses, strict=True):
            bare = _without_arena(program)
            for step in program.packing:
                source, result = own[step.operands[0].buffer], own[step.results[0].buffer]
                of_source = self._packings.setdefault(source, {})
                if result not in of_source:
                    of_source[result] = _Packing(Plan(cuda, bare, [step], functions, {}), addresses)
        work: list[Upload] = []
        begun: set[Hashable] = set()
        for (program, _), own, addresses in zip(programs, keys, self.addresses, strict=True):
            for number, key in own.items():
                name = program.buffers[number].name
                if program.buffers[number].kind == "weight" and key not in begun:
                    begun.add(key)
                    work.append((name, weights[name], addresses[number], self._then(key)))
        self._upload = WeightUpload(cuda, work, self._uploaded)

    @staticmethod
    def _check(name: str, nbytes: dims.Dim, weights: Mapping[str, Weight]) -> None:
        if name not in weights:
            raise DeviceError(f"weight {name!r} has no data", cure="refit the engine: it was saved without weights")
        if weights[name].nbytes != nbytes:
            raise DeviceError(f"weight {name!r} has {weights[name].nbytes} bytes, the program expects {nbytes}")

    def _then(self, key: Hashable) -> Callable[[int], None] | None:
        """What is to be done on a stream once a weight is there."""
        packings = list(self._packings.get(key, {}).values())

        def run(stream: int) -> None:
            for packing in packings:
                packing.run(stream)

        return run if packings else None

    def _uploaded(self) -> None:
        """Free what only the upload needed; nothing of it is under way."""
        packings, self._packings, self._passage = self._packings, {}, None
        for of_source in packings.values():
            for packing in of_source.values():
                packing.plan.close()

    def before(self, stream: int) -> None:
        """Work put on `stream` from now on finds the weights. Raises what the upload failed with."""
        self._upload.before(stream)

    def wait(self) -> None:
        """Until they are there, or the upload has failed."""
        self._upload.close()

    def close(self) -> None:
        """Free them, once they are there; for all programs."""
        self.wait()
        self._memory = None


def _keys(program: LaunchProgram) -> dict[int, Hashable]:
    """The buffers that hold weights, by number; equal keys, in whichever program, are one weight.

    What is packed is known by its name and by how it is made.
    """
    packings = {step.results[0].buffer: step for step in program.packing}
    found: dict[int, Hashable] = {}
    for number, buffer in enumerate(program.buffers):
        if buffer.kind == "weight":
            found[number] = buffer.name
        elif buffer.kind == "packed":
            step = packings[number]
            source = step.operands[0]
            dispatch = program.kernels[step.kernel].dispatch
            found[number] = buffer.name, program.buffers[source.buffer].name, source.offset, dispatch, step.sizes
    return found


def _without_arena(program: LaunchProgram) -> LaunchProgram:
    """A program that has no sizes: packing has constant ones, and uses no arena."""
    buffers = tuple(replace(b, offset=0) if b.kind == "arena" else b for b in program.buffers)
    return replace(program, buffers=buffers, arena_bytes=0)


def _read(program: LaunchProgram) -> set[int]:
    """The buffers that steps use, but for those that pack."""
    found: set[int] = set()
    for step in all_steps(program.steps):
        match step:
            case DispatchStep():
                found.update(reference.buffer for reference in (*step.operands, *step.results))
            case HostReadStep():
                found.add(step.source.buffer)
            case IfStep() | LoopStep():
                found.update({step.condition.buffer} if step.condition is not None else ())
    return found
