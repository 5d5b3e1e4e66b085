"""Which memory every dispatch writes, as attributes on the IR that the launch program is built from; each stage by itself
(`ingot-split-stages`).

Attributes it leaves
    on every root operation, every control operation and every `empty`
        `ingot.buffers`: one string for each result, the memory it is written to, without gaps: `arena:SLOT` or `output:K`, K
        numbering the function's `output` operations. A `move ... into` repeats the buffer of `into`.
    on the function
        `ingot.slots`: the size of each slot in bytes, as shape expressions (strings);
        `ingot.offsets`: each slot's offset in the arena, multiples of 256;
        `ingot.arena_bytes`: the size of the arena;
        `ingot.states`: where there are any, one array `[input, output, axis, kept, length]` for each output that is an input
        grown along an axis, or with elements replaced (`ingot.launch_program.State`); sizes are strings.
    on a scatter
        `in_place`: where nothing reads the memory of its first operand afterwards, which its result then takes over. What it
        stores is copied first where it lies there too.
    on the `move` that copies such an input, or the old part of the output
        `ingot.state_copy`: the number of its state: with one donated buffer for both, this dispatch is skipped.

Views take no memory: a value lies in its base's buffer (`ingot.dialects.layout`). After the pass every `output` reads the whole
of a buffer that is that output's; where it did not, a `move` was added. So does every result of a region, and a control
operation's result is the buffer that its regions write.

The plan: buffers live from the first write to the last read; a pointwise result takes over the memory of an operand that dies
there where both have one element for each other and lie alike; then slots are filled in order of decreasing size, each buffer
in the first slot that is free throughout its life, if possible in one that is known to be large enough ("greedy by size":
Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020). Sizes that depend on dimensions are
compared by proof; a slot whose buffers do not compare is as large as the larger one turns out to be.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from ingot import dims
from ingot.dialects import ingot as dialect
from ingot.dialects.layout import IN_PLACE, base_of, layout_of, target_of
from ingot.dialects.mlir import ir
from ingot.dialects.plain import attribute, create_root, read_regions, to_attribute
from ingot.dims import Dim
from ingot.dtypes import DTYPES
from ingot.passes.pass_base import Pass, PassContext
from ingot.passes.rewriting.ops import body, defining
from ingot.passes.rewriting.scalar_regions import identity, loaded

ALIGNMENT = 256  # bytes: what every target's copies and loads are content with
_MAX_TERMS = 8  # of `max` in a slot's size: the host evaluates it for every new shape
_NEVER = 2**62  # a position after all
_TYPICAL = 64  # stands for every dimension where sizes are only put in an order


@dataclass(frozen=True, kw_only=True)
class PlanBuffers(Pass):
    """Assign every result to an output or to a slot of one arena, by liveness, in place where an operand dies.

    Args:
        in_place: let pointwise results take over the memory of dying operands.
    """

    name: ClassVar[str] = "ingot-plan-buffers"
    in_place: bool = True

    def run(self, module: ir.Module, ctx: PassContext) -> None:
        functions = dialect.stages(module)
        for func in functions:
            self._plan(func, ctx, has_states=len(functions) == 1)

    def _plan(self, func: ir.Operation, ctx: PassContext, has_states: bool) -> None:
        block = body(func)
        if has_states:
            _copy_replaced_inputs(block)
        ctx.changed("scatters in place", sum(map(_scatter_in_place, dialect.blocks(func))))
        for loop in [op.operation for b in dialect.blocks(func) for op in b.operations if op.operation.name == "ingot.loop"]:
            _carry_in_place(loop)
        ctx.changed("outputs copied", sum(map(_own_outputs, dialect.blocks(func))))
        plan = _Plan(block)
        states = _states(block, plan) if has_states else []
        if self.in_place:
            ctx.changed("in place", plan.merge_in_place())
        slots = plan.assign_slots()
        offsets: list[Dim] = []
        end: Dim = 0
        for size in slots:
            offsets.append(end)
            end = end + dims.ceildiv(size, ALIGNMENT) * ALIGNMENT
        plan.annotate()
        attrs = func.attributes
        attrs["ingot.slots"] = to_attribute(tuple(map(str, slots)))
        attrs["ingot.offsets"] = to_attribute(tuple(map(str, offsets)))
        attrs["ingot.arena_bytes"] = to_attribute(str(end))
        if states:
            attrs["ingot.states"] = to_attribute(tuple(states))
        ctx.changed("slots", len(slots))


def _carry_in_place(loop: ir.Operation) -> None:
    """Let the tensors that a loop carries lie in memory of their own. What an iteration gives is written there where nothing
    reads it any more, and else moved there.

    All of it is computed before any is moved; a result that is another's argument, or a view of one, is copied before.
    """
    block = loop.regions[0].blocks[0]
    results = dialect.region_results(loop.regions[0])
    for number in range(len(results)):
        value = loop.operands[number]
        source = defining(value)
        if source is None or source.name != "ingot.empty" or len(list(value.uses)) > 1:
            loop.operands[number] = _copy(value, loop)
    carried = list(block.arguments)[: len(results)]
    written: set[ir.Value] = set()
    moved = []
    for n, op in enumerate(results):
        base = _whole_base(op.operands[0])
        if base is not None and base not in written and _may_be_written(carried[n], base):
            written.add(base)
        elif not _is_moved_into(op.operands[0], carried[n]):
            moved.append(n)
    given = {n: results[n].operands[0] for n in moved}
    values = {n: _copy(value, results[0]) if base_of(value) in carried else value for n, value in given.items()}
    for n, copy in values.items():
        offsets = {"offsets": to_attribute(("0",) * len(dialect.shape_of(copy)))}
        tensors = [copy, block.arguments[n]]
        move = create_root("move", tensors, [copy.type], offsets, [identity(dialect.dtype_of(copy))], tensors,
                           loc=loop.location, ip=ir.InsertionPoint(results[0]))  # fmt: skip
        results[n].operands[0] = move.results[0]


def _scatter_in_place(block: ir.Block) -> int:
    """Let scatters replace elements of memory that nothing reads afterwards, rather than of a copy; how many do."""
    operations = [view.operation for view in block.operations]
    count = 0
    for position, op in enumerate(operations):
        if op.name != "ingot.scatter":
            continue
        x, updates = op.operands
        base = _whole_base(x)
        writer = None if base is None else defining(base)
        if writer is None or writer.name not in (*dialect.ROOTS, "ingot.empty") or writer.block != block:
            continue
        others = [t for t in dialect.inputs(op)[1:] if t != updates]
        later = (t for after in operations[position + 1 :] for t in dialect.inputs(after))
        if _loads_of(op, x) or base in map(base_of, (*others, *later)):
            continue
        if base_of(updates) == base:
            _let_read(op, updates, _copy(updates, op))
        op.attributes[IN_PLACE] = ir.UnitAttr.get()
        count += 1
    return count


def _copy_replaced_inputs(block: ir.Block) -> None:
    """Let a scatter that makes an output of an input, which nothing reads afterwards, be in place in a copy of the input: where
    the caller donates its memory, the copy is skipped."""
    operations = [view.operation for view in block.operations]
    for position, op in enumerate(operations):
        if op.name != "ingot.scatter" or op.operands[0].owner != block or op.operands[0].type != op.results[0].type:
            continue
        x = op.operands[0]
        is_output = any(use.owner.operation.name == "ingot.output" for use in op.results[0].uses)
        later = (t for after in operations[position + 1 :] for t in dialect.inputs(after))
        if is_output and x not in map(base_of, (*dialect.inputs(op)[1:], *later)) and not _loads_of(op, x):
            op.operands[0] = _copy(x, op)


def _loads_of(op: ir.Operation, x: ir.Value) -> bool:
    return any(inner.operands[0] == x for inner in dialect.loads(op))


def _let_read(op: ir.Operation, old: ir.Value, new: ir.Value) -> None:
    """Let a root and what its regions load read `new` for `old`."""
    for reader in (op, *dialect.loads(op)):
        for i, value in enumerate(reader.operands):
            if value == old:
                reader.operands[i] = new


def _may_be_written(argument: ir.Value, base: ir.Value) -> bool:
    """True where the dispatch that computes `base` may write it to the memory of its block's argument: what follows does not
    read that, nor does the dispatch, unless it replaces element by element."""
    writer = defining(base)
    if writer is None or writer.name not in dialect.ROOTS:
        return False
    after = False
    for view in argument.owner.operations:
        op = view.operation
        if op == writer:
            after = True
            if argument in map(base_of, dialect.inputs(op)) and argument not in _replaceable(op, base_of):
                return False
        elif after and argument in map(base_of, dialect.inputs(op)):
            return False
    return after


def _replaceable(op: ir.Operation, base_of: Callable[[ir.Value], ir.Value]) -> list[ir.Value]:
    """The memory whose elements a pointwise operation reads where its results have theirs, and nowhere else."""
    if op.name != "ingot.pointwise":
        return []
    tensors, regions = read_regions(op)
    reads = loaded(regions[0])
    readers = Counter(map(base_of, tensors))
    domain = dialect.shape_of(op.results[0])
    return [
        base
        for number, tensor in enumerate(tensors)
        if readers[base := base_of(tensor)] == 1
        and reads[number] == {"load"}
        and dialect.shape_of(tensor) == domain
        and _is_whole(tensor, base)
    ]


def _copy(value: ir.Value, before: ir.Operation) -> ir.Value:
    move = create_root("move", [value], [value.type], {}, [identity(dialect.dtype_of(value))], [value], loc=before.location,
                       ip=ir.InsertionPoint(before))  # fmt: skip
    return move.results[0]


def _is_moved_into(value: ir.Value, memory: ir.Value) -> bool:
    """True where a value is `memory`, as it was or with parts replaced by a chain of `move ... into`."""
    while (op := defining(value)) is not None and op.name == "ingot.move" and len(op.operands) == 2:
        value = op.operands[1]
    return value == memory


def _own_outputs(block: ir.Block) -> int:
    """Make every output of a function or result of a region the whole of what a dispatch of its own writes; the number of moves
    added."""
    taken: set[ir.Value] = set()
    count = 0
    for view in list(block.operations):
        op = view.operation
        if op.name not in ("ingot.output", "ingot.result") or block.owner.operation.name == "ingot.loop":
            continue
        value = op.operands[0]
        base = _whole_base(value)
        if base is None or base in taken:
            base = op.operands[0] = _copy(value, op)
            count += 1
        taken.add(base)
    return count


def _whole_base(value: ir.Value) -> ir.Value | None:
    """The memory that a value is the whole of, in order, if a dispatch writes it; else None."""
    base = base_of(value)
    op = defining(base)
    return base if op is not None and op.name != "ingot.weight" and _is_whole(value, base) else None


@dataclass
class _Buffer:
    """A piece of memory from its first write to its last read, as positions in the function.

    Attributes:
        is_joined: the regions of a control operation write it, each in its own way.
    """

    size: Dim
    start: int
    end: int
    output: int | None = None
    slot: int = -1
    is_joined: bool = False

    @property
    def text(self) -> str:
        return f"arena:{self.slot}" if self.output is None else f"output:{self.output}"


@dataclass
class _Plan:
    """Liveness of the memory of one function."""

    block: ir.Block
    operations: list[ir.Operation] = field(default_factory=list)
    base: dict[ir.Value, ir.Value] = field(default_factory=dict)
    buffers: dict[ir.Value, _Buffer] = field(default_factory=dict)  # by base; in-place results share one object

    def __post_init__(self) -> None:
        self.outputs = 0
        self._visit(self.block)

    def _visit(self, block: ir.Block) -> None:
        """Enter the operations of a block; a control operation stands after those of its regions."""
        for view in block.operations:
            op = view.operation
            entry = len(self.operations)
            if op.name in dialect.CONTROL:
                for region in op.regions:
                    inner = region.blocks[0]
                    for argument, value in zip(inner.arguments, dialect.captured(op), strict=True):
                        self.base[argument] = self.base.get(value, value)
                    self._visit(inner)
            i = len(self.operations)
            self.operations.append(op)
            for value in dialect.inputs(op):
                buffer = self.buffers.get(self.base.get(value, value))
                if buffer is not None:
                    buffer.start, buffer.end = min(buffer.start, i), i
            kind = dialect.DEFS[op.name].kind
            source = op.operands[0] if kind == "view" else target_of(op)
            if source is not None:
                self.base[op.results[0]] = self.base.get(source, source)
            elif kind == "root" or op.name == "ingot.empty":
                for r in op.results:
                    start = _NEVER if op.name == "ingot.empty" else i
                    self.buffers[r] = _Buffer(_nbytes(r), start, i)
            elif op.name == "ingot.if":
                self._join(op, i)
            elif op.name == "ingot.loop":
                for value, r in zip(op.operands, op.results, strict=False):
                    self.base[r] = self.base.get(value, value)
                    buffer = self.buffer(value)
                    buffer.start, buffer.is_joined = min(buffer.start, entry), True
                for value, given in zip(op.operands, dialect.region_results(op.regions[0]), strict=False):
                    self._replace([self.buffer(given.operands[0])], self.buffer(value))
            elif op.name == "ingot.output":
                self.buffer(op.operands[0]).output = self.outputs
                self.outputs += 1

    def _join(self, op: ir.Operation, position: int) -> None:
        """Let the results of a control operation be the memory that its regions write."""
        for result, *given in zip(op.results, *map(dialect.region_results, op.regions), strict=True):
            parts = [self.buffer(g.operands[0]) for g in given]
            self.buffers[result] = _Buffer(_nbytes(result), min(b.start for b in parts), position, is_joined=True)
            self._replace(parts, self.buffers[result])

    def _replace(self, parts: Sequence[_Buffer], joined: _Buffer) -> None:
        """Let `joined` be the memory of all that lies in `parts`."""
        numbers = set(map(id, parts))
        for value, buffer in self.buffers.items():
            if id(buffer) in numbers:
                self.buffers[value] = joined

    def buffer(self, value: ir.Value) -> _Buffer:
        """The memory of a value that a dispatch writes."""
        return self.buffers[self.base.get(value, value)]

    def merge_in_place(self) -> int:
        """Let pointwise results share the buffers of operands that die; the number of results that do."""
        count = 0
        for i, op in enumerate(self.operations):
            found = map(self.buffers.get, _replaceable(op, lambda v: self.base.get(v, v)))
            dying = [b for b in found if b is not None and b.output is None and b.end == i]
            for r in op.results if dying else ():
                own = self.buffers[r]
                for position, buffer in enumerate(dying):
                    if own.output is None and not own.is_joined and buffer.size == own.size:
                        del dying[position]
                        buffer.end = own.end
                        self.buffers[r] = buffer
                        count += 1
                        break
        return count

    def assign_slots(self) -> list[Dim]:
        """Give every buffer that is no output's a slot; the sizes of the slots."""
        sizes: list[Dim] = []
        lives: list[list[tuple[int, int]]] = []
        unique = {id(b): b for b in self.buffers.values() if b.output is None}
        for buffer in sorted(unique.values(), key=lambda b: (-_estimate(b.size), b.start)):
            span = (min(buffer.start, buffer.end), buffer.end)
            free = [slot for slot in range(len(sizes)) if _is_free(lives[slot], span)]
            known = (s for s in free if sizes[s] == buffer.size or dims.is_nonnegative(sizes[s] - buffer.size))
            slot = next(known, None)
            if slot is None:
                slot = next((s for s in free if str(sizes[s]).count("max(") < _MAX_TERMS), None)
            if slot is None:
                slot = len(sizes)
                sizes.append(buffer.size)
                lives.append([])
            sizes[slot] = dims.maximum(sizes[slot], buffer.size)
            buffer.slot = slot
            lives[slot].insert(bisect_left(lives[slot], span), span)
        return sizes

    def annotate(self) -> None:
        """Write `ingot.buffers`."""
        for op in self.operations:
            if dialect.DEFS[op.name].kind in ("root", "control") or op.name == "ingot.empty":
                op.attributes["ingot.buffers"] = to_attribute(tuple(self.buffer(r).text for r in op.results))


def _is_free(lives: list[tuple[int, int]], span: tuple[int, int]) -> bool:
    """True where `span` meets none of the sorted, disjoint spans `lives`."""
    i = bisect_left(lives, span)
    return (i == len(lives) or lives[i][0] > span[1]) and (i == 0 or lives[i - 1][1] < span[0])


def _is_whole(value: ir.Value, base: ir.Value) -> bool:
    """True where `value` is all of `base`'s memory in row-major order."""
    found = layout_of(value)
    if found is None or not found[1].is_contiguous or found[1].offset != 0:
        return False
    return dims.product(dialect.shape_of(value)) == dims.product(dialect.shape_of(base))


def _nbytes(value: ir.Value) -> Dim:
    elements = dims.product(dialect.shape_of(value))
    bits = DTYPES[dialect.dtype_of(value)].bits
    return dims.ceildiv(elements * bits, 8) if bits % 8 else elements * (bits // 8)


def _estimate(size: Dim) -> int:
    return dims.evaluate(size, dict.fromkeys(dims.symbols(size), _TYPICAL))


def _states(block: ir.Block, plan: _Plan) -> list[tuple]:
    """The outputs that are an input grown along one axis: an `empty`, the input copied to its beginning, and the rest; or what
    scatters made in place of that, or of a copy of an input."""
    numbers = {a: i for i, a in enumerate(block.arguments)}
    claimed: set[int] = set()
    states: list[tuple] = []
    for op in plan.operations:
        if op.name != "ingot.output":
            continue
        replaced = defining(_unscattered(op.operands[0]))
        if replaced is not None and replaced.name == "ingot.move" and len(replaced.operands) == 1:
            number = numbers.get(replaced.operands[0])
            _, (region,) = read_regions(replaced)
            whole = replaced.operands[0].type == op.operands[0].type and region.is_identity
            if number is not None and number not in claimed and whole and replaced.results[0] != op.operands[0]:
                size = str(dialect.shape_of(op.operands[0])[0])
                replaced.attributes["ingot.state_copy"] = to_attribute(len(states))
                states.append((number, _output_number(plan, op), 0, size, size))
                claimed.add(number)
            continue
        chain = _moves_into(op.operands[0])
        if len(chain) != 2:
            continue
        shape = dialect.shape_of(op.operands[0])
        for copy, rest in (chain, chain[::-1]):
            number = numbers.get(copy.operands[0])
            if number is None or number in claimed or not _copies_to(copy, ("0",) * len(shape)):
                continue
            old = dialect.shape_of(copy.operands[0])
            axes = [i for i, (a, b) in enumerate(zip(old, shape, strict=True)) if a != b]
            if len(axes) != 1:
                continue
            kept = old[axes[0]]
            added = dialect.shape_of(rest.operands[0])
            offsets = tuple(str(kept) if i == axes[0] else "0" for i in range(len(shape)))
            complete = all(n == (shape[i] - kept if i == axes[0] else shape[i]) for i, n in enumerate(added))
            if complete and attribute(rest.attributes["offsets"]) == offsets:
                copy.attributes["ingot.state_copy"] = to_attribute(len(states))
                states.append((number, _output_number(plan, op), axes[0], str(kept), str(shape[axes[0]])))
                claimed.add(number)
                break
    return states


def _output_number(plan: _Plan, op: ir.Operation) -> int:
    number = plan.buffer(op.operands[0]).output
    assert number is not None
    return number


def _unscattered(value: ir.Value) -> ir.Value:
    """What scatters changed in place."""
    while (op := defining(value)) is not None and op.name == "ingot.scatter" and IN_PLACE in op.attributes:
        value = op.operands[0]
    return value


def _moves_into(value: ir.Value) -> list[ir.Operation]:
    """The chain of `move ... into` that makes exactly `value`, first to last; scatters may have changed it since."""
    chain: list[ir.Operation] = []
    value = _unscattered(value)
    while (op := defining(value)) is not None and op.name == "ingot.move" and len(op.operands) == 2:
        chain.append(op)
        value = op.operands[1]
    return chain[::-1] if op is not None and op.name == "ingot.empty" else []


def _copies_to(op: ir.Operation, offsets: tuple[str, ...]) -> bool:
    _, (region,) = read_regions(op)
    return region.is_identity and attribute(op.attributes["offsets"]) == offsets
