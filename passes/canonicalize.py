"""One spelling for equal computations: views, regions and roots in their simplest form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ingot.dialects import ingot as dialect
from ingot.dialects.mlir import ir
from ingot.dialects.plain import attribute
from ingot.dims import Dim
from ingot.dispatch import ScalarInst, ScalarRegion
from ingot.passes.pass_base import Pass, PassContext
from ingot.passes.rewriting import views
from ingot.passes.rewriting.control import drop_unused_captures
from ingot.passes.rewriting.ops import Root, defining, erase_all_dead, functions, operand_number, replace, replace_root
from ingot.passes.rewriting.scalar_regions import RegionBuilder
from ingot.passes.rewriting.symbols import drop_unused_symbols


@dataclass(frozen=True, kw_only=True)
class Canonicalize(Pass):
    """Compose views of views, drop views, moves and pointwise operations that change nothing, simplify scalar regions, let
    regions load what views only repeat, and erase what nothing uses, captured values and symbols among it.
    """

    name: ClassVar[str] = "ingot-canonicalize"

    def run(self, module: ir.Module, ctx: PassContext) -> None:
        ctx.changed("symbols", sum(map(drop_unused_symbols, functions(module))))
        for block in [block for func in functions(module) for block in dialect.blocks(func)]:
            # In order, so that every operation sees operands that are canonical already.
            for view in list(block.operations):
                op = view.operation
                if op.name in dialect.VIEWS:
                    ctx.changed("views", _canonicalize_view(op))
                elif op.name in dialect.ROOTS:
                    op = _canonicalize_regions(op, ctx)
                    if (value := _equal_value(op)) is not None:
                        replace(op, [value])
                        ctx.changed("roots")
                elif op.name in dialect.CONTROL:
                    ctx.changed("captured", drop_unused_captures(op))
            ctx.changed("erased", erase_all_dead(block))


def _canonicalize_view(op: ir.Operation) -> int:
    view = views.read(op)
    composed = views.compose(view)
    if isinstance(composed, views.View):
        value = views.regroup(composed, op)
        if value is None and composed is view:
            return 0
        composed = views.create(composed, op) if value is None else value
    replace(op, [composed])
    return 1


def _canonicalize_regions(op: ir.Operation, ctx: PassContext) -> ir.Operation:
    """The root, or one with simpler regions in its place."""
    root = Root.read(op)
    regions = []
    tensors = list(root.tensors)
    for number, region in enumerate(root.regions):
        builder = RegionBuilder(region.args)
        domain = domain_of(root, number)

        def simpler(
            inst: ScalarInst, args: tuple[int, ...], builder: RegionBuilder = builder, domain: tuple[Dim, ...] = domain
        ) -> int | None:
            if inst.op == "index" and domain[inst.attr("axis")] == 1:
                return builder.const(0, "i64")
            if inst.op == "load":
                tensor = tensors[inst.attr("operand")]
                source = _without_repetition(tensor)
                if source != tensor:
                    return builder.emit("load", type=inst.type, operand=operand_number(tensors, source))
            return None

        regions.append(builder.finish(builder.inline(region, range(len(region.args)), replace=simpler)))
    if tuple(regions) == root.regions:
        return op
    new = replace_root(root, regions=regions, tensors=tensors)
    replace(op, new.results)
    ctx.changed("regions")
    return new


def domain_of(root: Root, region: int) -> tuple[Dim, ...]:
    """The sizes of what a root's region runs over."""
    op = root.op
    match root.name, region:
        case ("attention", 0):
            q, k = dialect.shape_of(op.operands[0]), dialect.shape_of(op.operands[1])
            return (*q[:3], k[2])
        case ("reduce" | "normalize" | "move" | "topk", 0):
            return dialect.shape_of(op.operands[0])
        case ("scatter", _):
            return dialect.shape_of(op.operands[1])
    return dialect.shape_of(op.results[0])


def _without_repetition(tensor: ir.Value) -> ir.Value:
    """The tensor that a `load` may read instead: without expansions, which loads do themselves, and leading axes of size 1."""
    while (op := defining(tensor)) is not None:
        source = op.operands[0] if op.name in ("ingot.expand", "ingot.reshape") else None
        if source is None:
            break
        shape, wide = dialect.shape_of(source), dialect.shape_of(tensor)
        if op.name == "ingot.expand":
            aligned = zip(reversed(shape), reversed(wide), strict=False)
            if not all(a in (1, b) for a, b in aligned):
                break
        elif len(shape) > len(wide) or _strip(shape) != _strip(wide):
            break
        tensor = source
    return tensor


def _strip(shape: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """A shape without its leading axes of size 1."""
    lead = 0
    while lead < len(shape) and shape[lead] == 1:
        lead += 1
    return shape[lead:]


def _equal_value(op: ir.Operation) -> ir.Value | None:
    """The value that a root's only result equals without computing anything, or None."""
    if len(op.results) != 1 or op.name not in ("ingot.pointwise", "ingot.move"):
        return None
    root = Root.read(op)
    (region,) = root.regions
    result = op.results[0]
    if root.name == "move":
        if not region.is_identity:
            return None
        x = op.operands[0]
        if len(op.operands) == 1:
            return x
        # Over all of `into`.
        whole = x.type == result.type and all(o == "0" for o in attribute(op.attributes["offsets"]))
        return x if whole else None
    if not _yields_load(region):
        return None
    x = root.tensors[region.insts[0].attr("operand")]
    shape = dialect.shape_of(result)
    return x if dialect.shape_of(x) == shape else views.expand(x, shape, op)


def _yields_load(region: ScalarRegion) -> bool:
    return len(region.insts) == 1 and region.insts[0].op == "load" and region.results == (0,)
