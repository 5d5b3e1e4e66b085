"""Functions that follow one another where sizes depend on numbers that the first ones compute."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from ingot import dims
from ingot.dialects import ingot as dialect
from ingot.dialects.layout import base_of
from ingot.dialects.mlir import ir, operation_key
from ingot.dialects.plain import attribute, create_root, to_attribute
from ingot.dtypes import ONNX_TYPES
from ingot.errors import CompileError
from ingot.passes.diagnostics import node_name
from ingot.passes.pass_base import Pass, PassContext
from ingot.passes.rewriting.ops import body, defining
from ingot.passes.rewriting.scalar_regions import identity
from ingot.passes.rewriting.symbols import BINDERS, all_operations, bound_symbol, is_tensor, used_symbols

_ONNX_TYPE = {t.storage: t.name for t in reversed(ONNX_TYPES)}


@dataclass(frozen=True, kw_only=True)
class SplitStages(Pass):
    """Cut the main function where a number is read that is computed, and on which memory depends: what follows becomes a
    function of its own, a *stage*, with its own arena, whose inputs are the model's and what earlier stages give it. So what a
    stage reads lies in its inputs, and is known before it runs.

    The main function keeps the model's inputs, and is the first stage. A stage's outputs are the model's as soon as they are
    computed, and others, whose names begin with `~`. Weights, views and definitions of symbols are repeated where they are
    used. The attribute `ingot.stage` on a further function is its number, `ingot.outputs` on the first lists the model's
    outputs in order.
    """

    name: ClassVar[str] = "ingot-split-stages"

    def run(self, module: ir.Module, ctx: PassContext) -> None:
        func = dialect.main_func(module)
        numbers = _stages(body(func))
        count = max(numbers.values(), default=0)
        if count:
            _Split(func, numbers).run(count)
            ctx.changed("stages", count)


def _stages(block: ir.Block) -> dict[Any, int]:
    """The stage of each operation of a function's body, by its key; empty where nothing is read."""
    if not any(view.operation.name == "ingot.host_read" for view in block.operations):
        return {}
    shaping = {
        s for op in all_operations(block) for r in op.results if is_tensor(r) for s in dims.symbols_of(dialect.shape_of(r))
    }
    shaping |= {s for op in all_operations(block) if op.name == "ingot.define" for s in used_symbols(op)}
    numbers: dict[Any, int] = {}
    stage, has_dispatch = 0, False
    for view in block.operations:
        op = view.operation
        if op.name == "ingot.host_read" and attribute(op.attributes["symbol"]) in shaping:
            if has_dispatch and not isinstance(base_of(op.operands[0]).owner, ir.Block):
                stage, has_dispatch = stage + 1, False
        elif dialect.DEFS[op.name].kind in ("root", "control"):
            has_dispatch = True
        numbers[operation_key(op)] = stage
        if op.name == "ingot.output":  # it stands at the end, but belongs to the stage that computes it
            source = defining(op.operands[0])
            numbers[operation_key(op)] = 0 if source is None else numbers[operation_key(source)]
    return numbers


@dataclass
class _Stage:
    """A function under construction: what values of the main function are in it."""

    func: ir.Operation
    inputs: list[tuple[str, str]] = field(default_factory=list)  # names and ONNX types
    values: dict[ir.Value, ir.Value] = field(default_factory=dict)
    anchor: ir.Operation | None = None  # what is repeated stands before it

    def __post_init__(self) -> None:
        self.block = body(self.func)
        self.end = list(self.block.operations)[-1].operation  # its return


class _Split:
    def __init__(self, func: ir.Operation, numbers: dict[Any, int]) -> None:
        self.func, self.numbers = func, numbers
        self.previous = func  # the stage before, while functions are made
        self.block = body(func)
        self.operations = [view.operation for view in self.block.operations]
        names, types = (attribute(func.attributes[a]) for a in ("inputs", "input_types"))
        self.inputs = dict(zip(self.block.arguments, zip(names, types, strict=True), strict=True))
        self.exported: dict[ir.Value, str] = {}
        self.bindings = {  # symbols of the sizes of inputs
            str(d): a for a in reversed(list(self.block.arguments)) for d in dialect.shape_of(a)
        }
        self.definers = {bound_symbol(op): op for op in self.operations if op.name in BINDERS}

    def run(self, count: int) -> None:
        outputs = [str(attribute(op.attributes["name"])) for op in self.operations if op.name == "ingot.output"]
        self.func.attributes["ingot.outputs"] = to_attribute(tuple(outputs))
        self.stages = [_Stage(self.func), *(_Stage(self._function(n)) for n in range(1, count + 1))]
        for op in self.operations:
            stage = self.stages[self.numbers[operation_key(op)]]
            if op.name != "ingot.return":
                op.move_before(stage.end)
                stage.anchor = stage.anchor or op
        # The last comes first: what it repeats of earlier stages still reads the main function's values then.
        for number, stage in reversed(list(enumerate(self.stages))[1:]):
            for view in list(stage.block.operations):
                self._localize(view.operation, number)
            self._define(number)
            names, types = zip(*stage.inputs, strict=True) if stage.inputs else ((), ())
            stage.func.attributes["inputs"] = to_attribute(names)
            stage.func.attributes["input_types"] = to_attribute(types)

    def _function(self, number: int) -> ir.Operation:
        attributes = {
            "sym_name": ir.StringAttr.get(f"stage_{number}"),
            "inputs": to_attribute(()),
            "input_types": to_attribute(()),
            "ingot.stage": to_attribute(number),
        }
        func = ir.Operation.create(
            "ingot.func", attributes=attributes, regions=1, loc=self.func.location, ip=ir.InsertionPoint.after(self.previous)
        )
        self.previous = func
        block = func.regions[0].blocks.append()
        ir.Operation.create("ingot.return", loc=func.location, ip=ir.InsertionPoint(block))
        return func

    def _localize(self, op: ir.Operation, number: int) -> None:
        """Let an operation of a stage, and what its scalar regions load, read the stage's own values."""
        for i, value in enumerate(op.operands):
            local = self._value(value, number)
            if op.name == "ingot.move" and i == 1 and isinstance(local.owner, ir.Block):
                local = self._copy(local, op)  # an input must not be written
            op.operands[i] = local
        if op.name in dialect.CONTROL:
            return  # its regions read what it captures
        for region in op.regions:
            for inner in region.blocks[0].operations:
                for i, value in enumerate(inner.operation.operands):
                    if is_tensor(value):
                        inner.operation.operands[i] = self._value(value, number)

    @staticmethod
    def _copy(value: ir.Value, before: ir.Operation) -> ir.Value:
        region = identity(dialect.dtype_of(value))
        return create_root(
            "move", [value], [value.type], {}, [region], [value], loc=before.location, ip=ir.InsertionPoint(before)
        ).results[0]

    def _value(self, value: ir.Value, number: int) -> ir.Value:
        """What stands for a value of the main function in a stage."""
        stage = self.stages[number]
        op = defining(value)
        if op is not None and self.numbers.get(operation_key(op), number) == number:
            return value
        found = stage.values.get(value)
        if found is not None:
            return found
        if op is None:
            found = self._argument(stage, value, *self.inputs[value])
        elif op.name in dialect.VIEWS or op.name in ("ingot.weight", "ingot.empty"):
            sources = [self._value(v, number) for v in op.operands]
            clone = op.clone(ip=ir.InsertionPoint(stage.anchor))
            for i, source in enumerate(sources):
                clone.operands[i] = source
            found = clone.results[0]
        else:
            found = self._argument(stage, value, self._exported(value, op), _ONNX_TYPE[dialect.dtype_of(value)])
        stage.values[value] = found
        return found

    @staticmethod
    def _argument(stage: _Stage, value: ir.Value, name: str, onnx_type: str) -> ir.Value:
        stage.inputs.append((name, onnx_type))
        return stage.block.add_argument(value.type, value.location)

    def _exported(self, value: ir.Value, op: ir.Operation) -> str:
        """The name under which the stage that computes a value gives it to later ones."""
        if value not in self.exported:
            name = self.exported[value] = f"~{len(self.exported)}"
            end = self.stages[self.numbers[operation_key(op)]].end
            attributes = {"name": ir.StringAttr.get(name), "type": ir.StringAttr.get(_ONNX_TYPE[dialect.dtype_of(value)])}
            ir.Operation.create(
                "ingot.output", operands=[value], attributes=attributes, loc=op.location, ip=ir.InsertionPoint(end)
            )
        return self.exported[value]

    def _define(self, number: int) -> None:
        """Bind the symbols that a stage uses: by inputs of the model, and by what earlier stages read and defined."""
        stage = self.stages[number]
        stage.anchor = next(iter(stage.block.operations)).operation
        bound: set[str] = set()
        while missing := sorted(self._used(stage) - bound):
            for name in missing:
                self._bind(name, number, bound)

    def _used(self, stage: _Stage) -> set[str]:
        """The symbols that a stage uses and neither its operations nor its inputs bind."""
        used = {s for op in all_operations(stage.block) for s in used_symbols(op)}
        used |= {s for a in stage.block.arguments for s in dims.symbols_of(dialect.shape_of(a))}
        own = {str(attribute(op.attributes["symbol"])) for op in all_operations(stage.block) if "symbol" in op.attributes}
        return used - own - {str(d) for a in stage.block.arguments for d in dialect.shape_of(a)}

    def _bind(self, name: str, number: int, bound: set[str]) -> None:
        if name in bound:
            return
        bound.add(name)
        definer = self.definers.get(name)
        if definer is None:
            if name not in self.bindings:
                raise CompileError(f"nothing binds {name} in stage {number}", node=node_name(self.stages[number].func))
            self._value(self.bindings[name], number)
            return
        if self.numbers[operation_key(definer)] >= number:
            message = f"{name} is used before it is read"
            raise CompileError(message, node=node_name(definer), cure="report the model: a pass moved an operation")
        for needed in sorted(used_symbols(definer)):
            self._bind(needed, number, bound)
        sources = [self._value(v, number) for v in definer.operands]
        clone = definer.clone(ip=ir.InsertionPoint(self.stages[number].anchor))
        for i, source in enumerate(sources):
            clone.operands[i] = source
