"""Launch programs: the JIT's other product, flat plain data that runs an engine without MLIR.

A program is a list of steps over numbered buffers. Sizes, offsets and grids are shape expressions over the program's symbols,
which are bound from the inputs' shapes when it runs. It is cached beside the kernels it names.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from ingot import dims, kernel_plan
from ingot.dim_table import DimReader, DimTable
from ingot.dims import Dim
from ingot.kernel_plan import KernelPlan

VERSION = 3


@dataclass(frozen=True)
class Binding:
    """The size of axis `axis` of input `input` is the program's symbol `symbol`."""

    symbol: str
    input: int
    axis: int


@dataclass(frozen=True)
class ValueBinding:
    """Element `element` (row-major) of input `input`, a tensor of integers, is the program's symbol `symbol`. Sizes depend on
    it: it is read before memory is allocated."""

    symbol: str
    input: int
    element: int


@dataclass(frozen=True)
class Definition:
    """`symbol` is the value of a shape expression over bound symbols and those defined before; it is never negative."""

    symbol: str
    value: Dim


@dataclass(frozen=True)
class Buffer:
    """A piece of memory.

    Attributes:
        kind: `input` and `output` are the caller's, by number; `weight` is named, and so is `packed`, a weight that the program
            makes of others when it is loaded; `arena` lies in the execution context's arena at `offset`.
        bytes: size.
        offset: in the arena, a multiple of 256.
        index: number of the input or output.
        name: of the weight.
    """

    kind: Literal["input", "output", "weight", "packed", "arena"]
    bytes: Dim
    offset: Dim = 0
    index: int = 0
    name: str = ""


@dataclass(frozen=True)
class BufferRef:
    """`offset` bytes into a buffer: where element 0 of a view lies."""

    buffer: int
    offset: Dim = 0


@dataclass(frozen=True)
class DispatchStep:
    """Run the kernel plan `kernel` (an index into `LaunchProgram.kernels`).

    Attributes:
        operands, results: addresses of the dispatch's tensors.
        workspace: address of the plan's workspace, if it has one.
        sizes: values of the dispatch's symbols, in order.
        node: the ONNX nodes it implements, for messages and profiles.
    """

    kernel: int
    operands: tuple[BufferRef, ...]
    results: tuple[BufferRef, ...]
    sizes: tuple[Dim, ...]
    workspace: BufferRef | None = None
    node: str = ""


@dataclass(frozen=True)
class GuardStep:
    """Fail with `message` unless `left == right` (`relation` "eq") or `left <= right` ("le")."""

    left: Dim
    right: Dim
    relation: Literal["eq", "le"]
    message: str
    node: str = ""


@dataclass(frozen=True)
class HostReadStep:
    """Wait for the device and bind `symbol` to the scalar of storage type `dtype` (i64 or i32) at `source`."""

    symbol: str
    source: BufferRef
    dtype: str = "i64"


@dataclass(frozen=True)
class IfStep:
    """Run `then` where the i1 at `condition` holds, else `otherwise`."""

    condition: BufferRef
    then: tuple[Step, ...]
    otherwise: tuple[Step, ...]


@dataclass(frozen=True)
class LoopStep:
    """Run `body` while the i1 at `condition` holds, at most `trips` times; `symbol` counts from 0."""

    trips: Dim
    condition: BufferRef | None
    symbol: str
    body: tuple[Step, ...]


Step = DispatchStep | GuardStep | HostReadStep | IfStep | LoopStep


@dataclass(frozen=True)
class KernelEntry:
    """A kernel plan and the key of its code in the runtime cache; equal dispatches share one entry."""

    key: str
    plan: KernelPlan
    dispatch: str = ""  # canonical text, with which the compile server can build it again


@dataclass(frozen=True)
class State:
    """Output `output` is input `input` grown along `axis` (a KV cache), or, where `kept` and `length` are equal, with elements
    replaced: with one donated buffer for both, only the new part is written.

    In memory an axis that grows may have room for more: strides of the axes before it are computed from symbols of their own,
    which a plain run binds to the sizes themselves and a donated buffer to its capacity. Steps named in `copies` copy the old
    part and are skipped where input and output are one buffer.

    Attributes:
        kept, length: old and new size of the axis, as expressions of the program's symbols.
        kept_capacity, capacity: symbols of the axis' size in the input's and the output's memory.
        copies: indices into `LaunchProgram.steps`.
    """

    input: int
    output: int
    axis: int
    kept: Dim
    length: Dim
    kept_capacity: str = ""
    capacity: str = ""
    copies: tuple[int, ...] = ()

    @property
    def grows(self) -> bool:
        """False where elements are replaced."""
        return self.kept != self.length


@dataclass(frozen=True)
class TensorSpec:
    """An input or output: ONNX element type (as `onnx.defs` spells it) and sizes."""

    name: str
    onnx_type: str
    shape: tuple[Dim, ...]


@dataclass(frozen=True)
class LaunchProgram:
    """Everything the runtime needs besides weights and kernels.

    Attributes:
        packing: steps that make `packed` buffers, each of one weight, run once before all others.
    """

    target: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    bindings: tuple[Binding, ...]
    buffers: tuple[Buffer, ...]
    kernels: tuple[KernelEntry, ...]
    steps: tuple[Step, ...]
    arena_bytes: Dim
    states: tuple[State, ...] = ()
    live: tuple[str, ...] = ()
    packing: tuple[DispatchStep, ...] = ()
    values: tuple[ValueBinding, ...] = ()
    definitions: tuple[Definition, ...] = ()
    version: int = VERSION


def all_steps(steps: Iterable[Step]) -> Iterator[Step]:
    """The steps and those inside them, in order."""
    for step in steps:
        yield step
        match step:
            case IfStep():
                yield from all_steps((*step.then, *step.otherwise))
            case LoopStep():
                yield from all_steps(step.body)


def guards(program: LaunchProgram) -> list[GuardStep]:
    """The program's guards in order."""
    return [s for s in all_steps(program.steps) if isinstance(s, GuardStep)]


def bound_names(program: LaunchProgram) -> list[str]:
    """The symbols that inputs give, in order: by their sizes, then by their elements."""
    return [*(b.symbol for b in program.bindings), *(v.symbol for v in program.values)]


def dim_names(program: LaunchProgram) -> list[str]:
    """The symbols a native program takes, in order: those bound from inputs' sizes and elements, those defined by them,
    capacities of states, and for each state whether its input and output are one donated buffer (0 or 1)."""
    names = [*bound_names(program), *(d.symbol for d in program.definitions)]
    for n, state in enumerate(program.states):
        names += [state.kept_capacity, state.capacity, f"donated_{n}"]
    return names


def kernel_symbols(program: LaunchProgram) -> list[tuple[int, str]]:
    """Every launch's function, once: number of the kernel entry and symbol in its code."""
    return list(dict.fromkeys((i, launch.symbol) for i, e in enumerate(program.kernels) for launch in e.plan.launches))


_PARTS = (Binding, ValueBinding, Definition, Buffer, BufferRef, KernelEntry, State, TensorSpec, LaunchProgram)
_CLASSES = {c.__name__: c for c in (*_PARTS, *get_args(Step))}
_DIM_FIELDS = {"bytes", "offset", "left", "right", "trips", "kept", "length", "arena_bytes", "value"}
_DIMS_FIELDS = {"sizes", "shape"}


def dumps(program: LaunchProgram) -> bytes:
    """Canonical JSON text of a program: its version, the common parts of its sizes, and itself."""
    table = DimTable(_symbols(program))
    body = _to(program, table)
    raw = {"version": program.version, "dims": table.definitions, "program": body}
    return json.dumps(raw, sort_keys=True, separators=(",", ":")).encode()


def loads(data: bytes) -> LaunchProgram:
    """The program that `dumps` wrote. Raises ValueError where it is of another version or damaged."""
    try:
        raw = json.loads(data)
        if raw["version"] != VERSION:
            raise ValueError(f"launch program of version {raw['version']}, expected {VERSION}")
        return _from(raw["program"], DimReader(raw["dims"]))
    except (KeyError, TypeError, UnicodeDecodeError, AttributeError) as e:
        raise ValueError(f"damaged launch program: {e!r}") from None


_NAMES = {cls: tuple(f.name for f in fields(cls)) for cls in _CLASSES.values()}  # of their fields


def _symbols(program: LaunchProgram) -> set[str]:
    """The symbols in any part of a program's own sizes; those of kernel plans are not the program's."""
    found: set[dims.Expr] = set()
    left: list[Any] = [program]
    while left:
        x = left.pop()
        if isinstance(x, dims.Expr):
            found.add(x)
        elif isinstance(x, tuple):
            left += x
        elif (names := _NAMES.get(type(x))) is not None:
            left += [getattr(x, name) for name in names]
    return set().union(*map(dims.symbols, found))


def _to(x: Any, table: DimTable) -> Any:
    if isinstance(x, int | str):
        return x
    if isinstance(x, dims.Expr):
        return table.text(x)
    if (names := _NAMES.get(type(x))) is not None:
        return {"@": type(x).__name__, **{name: _to(getattr(x, name), table) for name in names}}
    if isinstance(x, tuple | list):
        return [_to(v, table) for v in x]
    return kernel_plan.to_json(x) if isinstance(x, KernelPlan) else x


def _from(x: Any, reader: DimReader) -> Any:
    if isinstance(x, list):
        return tuple(_from(v, reader) for v in x)
    if not isinstance(x, dict):
        return x

    def dim(d: int | str) -> Dim:
        return reader.dim(d) if isinstance(d, str) else d

    values: dict[str, Any] = {}
    for name, v in x.items():
        if name == "@":
            continue
        if name == "plan":
            values[name] = kernel_plan.from_json(v)
        elif name in _DIM_FIELDS:
            values[name] = dim(v)
        elif name in _DIMS_FIELDS:
            values[name] = tuple(map(dim, v))
        else:
            values[name] = _from(v, reader)
    return _CLASSES[x["@"]](**values)
