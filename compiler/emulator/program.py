"""A kernel compiled for emulation: operations become Python closures, control flow becomes nodes that groups walk through.

The values of a kernel are numbered ("slots"). An operation that cannot block is a closure over slots, called with the
group; runs of them make a `Straight` node. Control flow whose body can block is a node of its own (control.py);
otherwise it is a closure too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ingot.compiler.emulator.group import Group
from ingot.compiler.emulator.report import EmulationError
from ingot.compiler.emulator.tensor_map import TensorMap
from ingot.compiler.emulator.values import Kind, kind_of
from ingot.dialects.mlir import ir

Run = Callable[[Group], None]


class Node(Protocol):
    """What groups walk through."""

    def enter(self, group: Group) -> bool:
        """Begin; False if the group cannot go on now, or is no more."""
        ...


@dataclass(slots=True)
class Op:
    """An operation being compiled:

    its name, slots of operands and results with their kinds, and the MLIR operation for attributes.
    """

    name: str
    operands: list[int]
    results: list[int]
    operand_kinds: list[Kind]
    result_kinds: list[Kind]
    operation: Any
    key: int
    program: Program

    def attr(self, name: str) -> str:
        """An attribute as text; "" if it is absent."""
        attributes = self.operation.attributes
        return str(attributes[name]) if name in attributes else ""

    def int_attr(self, name: str, default: int = 0) -> int:
        """An integer attribute."""
        text = self.attr(name)
        return int(text.split(":")[0]) if text else default

    def keyword(self, name: str) -> str:
        """The word inside an enum attribute: `add` of `#nvvm<reduction_kind add>`, `row` of `#nvvm.mma_layout<row>`."""
        text = self.attr(name)
        return text[text.index("<") + 1 : -1].split()[-1] if "<" in text else text

    def segments(self) -> list[list[int]]:
        """Operand slots by segment (attribute `operandSegmentSizes`)."""
        sizes = [int(x) for x in self.attr("operandSegmentSizes").split(":")[1].rstrip(">").split(",")]
        parts, start = [], 0
        for size in sizes:
            parts.append(self.operands[start : start + size])
            start += size
        return parts


# Makers of closures by operation name: `HANDLERS` for those that cannot block, or of a node that can; those in `BLOCKING`
# return what to wait for, or None; those in `STRUCTURES` return a closure, or a node where the operation's regions can block.
HANDLERS: dict[str, Callable[[Op], Run | Node]] = {}
BLOCKING: dict[str, Callable[[Op], Callable[[Group], Any]]] = {}
STRUCTURES: dict[str, Callable[[Op], Any]] = {}


def handler(*names: str) -> Callable[[Any], Any]:
    """Register a maker of closures (or nodes) for operations of these names."""

    def register(make: Callable[[Op], Run | Node]) -> Callable[[Op], Run | Node]:
        for name in names:
            HANDLERS[name] = make
        return make

    return register


def blocking(*names: str) -> Callable[[Any], Any]:
    """Register a maker for operations that may make a group wait."""

    def register(make: Callable[[Op], Callable[[Group], Any]]) -> Callable[[Op], Callable[[Group], Any]]:
        for name in names:
            BLOCKING[name] = make
        return make

    return register


def structure(name: str) -> Callable[[Any], Any]:
    """Register a maker for an operation with regions."""

    def register(make: Callable[[Op], Any]) -> Callable[[Op], Any]:
        STRUCTURES[name] = make
        return make

    return register


class Straight:
    """Operations that cannot block."""

    def __init__(self) -> None:
        self.steps: list[Run] = []

    def enter(self, group: Group) -> bool:
        for step in self.steps:
            step(group)
        return True


class Blocking:
    """One operation that may block."""

    def __init__(self, run: Callable[[Group], Any]) -> None:
        self.run = run

    def enter(self, group: Group) -> bool:
        group.wait = self.run(group)
        return group.wait is None


@dataclass
class Body:
    """A compiled block: nodes, whether any can block, slots it reads from outside, and slots it defines."""

    nodes: list[Any]
    blocks: bool
    reads: set[int]
    defines: set[int]
    arguments: list[int]
    yields: list[int]

    @property
    def steps(self) -> list[Run]:
        """The closures of a block that cannot block."""
        assert not self.blocks
        return self.nodes[0].steps if self.nodes else []


@dataclass
class _Scope:
    reads: set[int] = field(default_factory=set)
    defines: set[int] = field(default_factory=set)


class Program:
    """A kernel ready for emulation.

    Attributes:
        name: the kernel's symbol.
        body: nodes of its outermost block.
        template: initial values of all slots: constants.
        parameters: slots and kinds of the kernel's parameters.
        static_shared: bytes of static shared arrays; dynamic shared memory starts after them.
        granule: bytes a shadow cell of shared memory covers: the size of the smallest access.
        spins: whether a loop polls memory that other blocks write.
        tensor_maps: those among the launch's arguments.
        shared: what closures of several operations share, by keys of theirs.
    """

    def __init__(self, module: Any, name: str) -> None:
        self.name = name
        self.template: list[Any] = []
        self.globals: dict[str, Any] = {}
        self.static_shared = 0
        self.dynamic_alignment = 16
        self.granule = 16
        self.spins = False
        self.tensor_maps: list[TensorMap] = []
        self.shared: dict[Any, Any] = {}
        self._slots: dict[Any, int] = {}
        self._kinds: list[Kind] = []  # by slot
        self._kind_of_type: dict[Any, Kind] = {}  # printing a type costs more than all else about an operation
        self._scopes: list[_Scope] = []
        self._count = 0
        function = None
        for op in module.body.operations:
            operation = op.operation
            if operation.name == "llvm.mlir.global":
                self._global(operation)
            elif operation.name == "llvm.func" and ir.StringAttr(operation.attributes["sym_name"]).value == name:
                function = operation
        if function is None:
            raise ValueError(f"the module has no kernel {name!r}")
        entry = function.regions[0].blocks[0]
        self.parameters = [(slot, self._kinds[slot]) for slot in map(self.slot, entry.arguments)]
        body = self.block(entry, bind_arguments=False)
        self.body = body.nodes

    def leave(self, group: Group) -> bool:
        """The end of the kernel for a group."""
        group.frames.pop()
        return True

    # --- slots

    def slot(self, value: Any) -> int:
        """The slot of an MLIR value."""
        found = self._slots.get(value)
        if found is None:
            found = self._slots[value] = len(self.template)
            self.template.append(None)
            self._kinds.append(self._kind(value.type))
        return found

    def _kind(self, type_: Any) -> Kind:
        found = self._kind_of_type.get(type_)
        if found is None:
            found = self._kind_of_type[type_] = kind_of(str(type_))
        return found

    def note_access(self, nbytes: int, align: int) -> None:
        """Let shadow cells of shared memory be no larger than this access."""
        self.granule = min(self.granule, nbytes & -nbytes, max(1, align))

    # --- compilation

    def _global(self, operation: Any) -> None:
        attributes = operation.attributes
        name = ir.StringAttr(attributes["sym_name"]).value
        type_ = str(attributes["global_type"])  # !llvm.array<N x T>
        count, element = type_[type_.index("<") + 1 : -1].split(" x ", 1)
        kind = kind_of(element)
        align = int(str(attributes["alignment"]).split(":")[0]) if "alignment" in attributes else 16
        if "addr_space" in attributes and int(str(attributes["addr_space"]).split(":")[0]) == 3:
            nbytes = int(count) * kind.nbytes
            if nbytes == 0:
                self.dynamic_alignment = max(self.dynamic_alignment, align)
                self.globals[name] = ("dynamic", 0)
            else:
                self.static_shared = -(-self.static_shared // align) * align
                self.globals[name] = ("shared", self.static_shared)
                self.static_shared += nbytes
            return
        dense = ir.Attribute(attributes["value"])
        if kind.dtype.kind == "f" or kind.dtype.name == "bfloat16":
            values = [ir.FloatAttr(x).value if isinstance(x, ir.Attribute) else float(x) for x in ir.DenseFPElementsAttr(dense)]
        else:
            values = [int(x) for x in ir.DenseIntElementsAttr(dense)]
        self.globals[name] = ("table", np.array(values, kind.dtype))

    @property
    def dynamic_start(self) -> int:
        """Offset of dynamic shared memory."""
        return -(-self.static_shared // self.dynamic_alignment) * self.dynamic_alignment

    def block(self, block: Any, bind_arguments: bool = True) -> Body:
        """Compile a block; its terminator's operands are the body's `yields`."""
        scope = _Scope()
        self._scopes.append(scope)
        arguments = [self.slot(a) for a in block.arguments] if bind_arguments else []
        scope.defines.update(arguments)
        nodes: list[Any] = []
        blocks = False
        yields: list[int] = []
        for op in block.operations:
            operation = op.operation
            name = operation.name
            if name in ("scf.yield", "scf.condition", "llvm.return"):
                yields = [self.slot(x) for x in operation.operands]
                scope.reads.update(yields)
                continue
            node = self._operation(operation, name, scope)
            if node is None:
                continue
            if callable(node):
                if not nodes or not isinstance(nodes[-1], Straight):
                    nodes.append(Straight())
                nodes[-1].steps.append(node)
            else:
                blocks = True
                nodes.append(node)
        self._scopes.pop()
        reads = scope.reads - scope.defines
        if self._scopes:
            self._scopes[-1].reads |= reads
            self._scopes[-1].defines |= scope.defines
        return Body(nodes, blocks, {s for s in reads if self.template[s] is None}, scope.defines, arguments, yields)

    def _operation(self, operation: Any, name: str, scope: _Scope) -> Any:
        operands = [self.slot(x) for x in operation.operands]
        results = [self.slot(x) for x in operation.results]
        scope.reads.update(operands)
        scope.defines.update(results)
        self._count += 1
        kinds = self._kinds
        if name == "arith.constant":
            self.template[results[0]] = _constant(operation, kinds[results[0]])
            return None
        op = Op(
            name, operands, results, [kinds[s] for s in operands], [kinds[s] for s in results], operation, self._count, self
        )  # fmt: skip
        if name in HANDLERS:
            return HANDLERS[name](op)
        if name in STRUCTURES:
            return STRUCTURES[name](op)
        if name in BLOCKING:
            return Blocking(BLOCKING[name](op))
        raise EmulationError(f"the emulator does not know {name}")


def _constant(operation: Any, kind: Kind) -> np.ndarray:
    attribute = operation.attributes["value"]
    if not kind.shape:
        if kind.dtype.kind in "ib":
            return np.array([int(ir.IntegerAttr(attribute).value)]).astype(kind.dtype)
        return np.array([ir.FloatAttr(attribute).value]).astype(kind.dtype)
    dense = (ir.DenseIntElementsAttr if kind.dtype.kind in "ib" else ir.DenseFPElementsAttr)(attribute)
    if dense.is_splat:
        splat = dense.get_splat_value()
        value = ir.IntegerAttr(splat).value if kind.dtype.kind in "ib" else ir.FloatAttr(splat).value
        values = [value] * kind.shape[0]
    else:
        values = [int(x) if kind.dtype.kind in "ib" else float(x) for x in dense]
    return np.array(values).astype(kind.dtype).reshape(*kind.shape, 1)
