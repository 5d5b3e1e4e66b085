"""A program's weights in a GPU's memory: one piece of memory for all, filled and packed while the session goes on.

Weights that the program only packs pass through a piece of memory that they share: copies and packings follow one another on
the upload's stream, so that each is packed before the next one overwrites it, and memory never holds more than one of them
twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ingot import dims
from ingot.engine import Weight
from ingot.errors import DeviceError
from ingot.launch_program import DispatchStep, HostReadStep, IfStep, LaunchProgram, LoopStep, all_steps
from ingot.runtime.cuda_array import DeviceMemory
from ingot.runtime.cuda_driver import Cuda
from ingot.runtime.cuda_plan import Plan
from ingot.runtime.cuda_upload import WeightUpload

_ALIGNMENT = 256


class CudaWeights:
    """Weights on their way to the GPU, or there.

    Args:
        cuda: the GPU, whose context is current.
        program: what reads them.
        weights: the engine's, by name.
        functions: (kernel index, symbol, shared bytes) -> loaded function, for what packs them.

    Attributes:
        addresses: base address of every buffer of the program, 0 for those of a call.

    Raises DeviceError where weights are missing, of another size, or memory is.
    """

    def __init__(
        self, cuda: Cuda, program: LaunchProgram, weights: Mapping[str, Weight], functions: Callable[[int, str, int], Any]
    ) -> None:
        self._cuda, self._program = cuda, program
        passing = {step.operands[0].buffer for step in program.packing} - _read(program)
        offsets, total, largest = dict[int, int](), 0, 0
        for number, buffer in enumerate(program.buffers):
            if buffer.kind not in ("weight", "packed"):
                continue
            if buffer.kind == "weight":
                self._check(buffer.name, buffer.bytes, weights)
            size = -(-dims.evaluate(buffer.bytes, {}) // _ALIGNMENT) * _ALIGNMENT
            if number in passing:
                largest = max(largest, size)
            else:
                offsets[number] = total
                total += size
        self._memory: DeviceMemory | None = DeviceMemory(cuda, total)
        self._passage: DeviceMemory | None = DeviceMemory(cuda, largest) if passing else None
        self.addresses = [0] * len(program.buffers)
        for number, offset in offsets.items():
            self.addresses[number] = self._memory.address + offset
        for number in passing:
            assert self._passage is not None
            self.addresses[number] = self._passage.address
        bare = _without_arena(program)
        self._plans = [Plan(cuda, bare, [step], functions, {}) for step in program.packing]
        packings = {step.operands[0].buffer: plan for step, plan in zip(program.packing, self._plans, strict=True)}
        work: list[tuple[str, Weight, int, Callable[[int], None] | None]] = []
        for number, buffer in enumerate(program.buffers):
            if buffer.kind == "weight":
                then = self._packing(packings[number]) if number in packings else None
                work.append((buffer.name, weights[buffer.name], self.addresses[number], then))
        self._upload = WeightUpload(cuda, work, self._uploaded)

    @staticmethod
    def _check(name: str, nbytes: dims.Dim, weights: Mapping[str, Weight]) -> None:
        if name not in weights:
            raise DeviceError(f"weight {name!r} has no data", cure="refit the engine: it was saved without weights")
        if weights[name].nbytes != nbytes:
            raise DeviceError(f"weight {name!r} has {weights[name].nbytes} bytes, the program expects {nbytes}")

    def _packing(self, plan: Plan) -> Callable[[int], None]:
        def run(stream: int) -> None:
            plan.bind(self.addresses, 0, {}, stream)
            plan.run(stream)

        return run

    def _uploaded(self) -> None:
        """Free what only the upload needed; nothing of it is under way."""
        plans, self._plans, self._passage = self._plans, [], None
        for plan in plans:
            plan.close()

    def before(self, stream: int) -> None:
        """Work put on `stream` from now on finds the weights. Raises what the upload failed with."""
        self._upload.before(stream)

    def wait(self) -> None:
        """Until they are there, or the upload has failed."""
        self._upload.close()

    def close(self) -> None:
        """Free them, once they are there."""
        self.wait()
        self._memory = None


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
