"""Fusion of pointwise computation into the dispatches around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from ingot.dialects import ingot as dialect
from ingot.dialects.mlir import ir, operation_key
from ingot.dims import Dim
from ingot.dispatch import ScalarInst, ScalarRegion
from ingot.dtypes import DTYPES
from ingot.passes.canonicalize import domain_of
from ingot.passes.pass_base import Pass, PassContext
from ingot.passes.patterns import fused_location
from ingot.passes.rewriting import concatenations, domains, normalized_rows, refinement, view_algebra, views
from ingot.passes.rewriting.ops import (
    Root,
    defining,
    erase_all_dead,
    operand_number,
    readers,
    replace_root,
    roots,
    users,
)
from ingot.passes.rewriting.scalar_regions import RegionBuilder, cost, loaded

# Roots whose last region may take further computation and results.
_EPILOGUES = frozenset({"matmul", "scaled_matmul", "conv", "attention", "reduce", "normalize", "pool", "scan"})
# Of those, roots whose first result may be of another type than the rest.
_OF_TWO_TYPES = frozenset(d.name for d in dialect.OPS if d.kind == "root" and d.results == ("result", "*more"))
# Roots that read their first operand through a region which may take its producer's computation.
_PROLOGUES = frozenset({"reduce", "normalize", "move", "scan"})
_CHEAP_COST = 4  # of a computation that reads nothing, that it may be repeated
_Computed = tuple[ScalarRegion, list[ir.Value]]  # a region, and the tensors that it reads
_NORMALIZE_COST = 24  # of an element map: normalizations may run it once for every pass over a row


@dataclass(frozen=True, kw_only=True)
class Fuse(Pass):
    """Fuse pointwise operations into the epilogues of their producers, into each other, and into the element maps of
    reductions, normalizations and moves. Views between are carried over to what the pointwise operation reads.

    What is computed once stays computed once: a result with several readers is recomputed only where that is no more than a
    cast or a few integer operations on one tensor. Nothing is computed in the loads of matmul, conv and attention.
    A concatenation of a few parts that pointwise operations alone read is computed by them, and where what they read is the
    result of a normalization, in its epilogue: rotary embeddings.

    Args:
        max_ops: the largest cost of a region, in additions (`ingot.passes.rewriting.scalar_regions.cost`).
    """

    name: ClassVar[str] = "ingot-fuse"
    max_ops: int = 96

    def run(self, module: ir.Module, ctx: PassContext) -> None:
        for block in dialect.blocks(dialect.main_func(module)):
            erase_all_dead(block)
            fuser = _Fuser(self.max_ops, ctx)
            for op in roots(block):
                fuser.visit(op)
            fuser.finish()
            erase_all_dead(block)


@dataclass
class _Fuser:
    max_ops: int
    ctx: PassContext
    _cache: dict[int, Root] = field(default_factory=dict)
    _waiting: dict[int, ir.Operation] = field(default_factory=dict)  # for their readers to take them

    def read(self, op: ir.Operation) -> Root:
        """The root `op`, read once."""
        key = operation_key(op)
        found = self._cache.get(key)
        if found is None:
            found = self._cache[key] = Root.read(op)
        return found

    def replace_uses(self, old: ir.Value, new: ir.Value) -> None:
        """Let `new` stand for `old`; what was read of the roots that use it is forgotten."""
        for user in users(old):
            self._cache.pop(operation_key(user), None)
        old.replace_all_uses_with(new)

    def erase(self, op: ir.Operation) -> None:
        """Erase a root that nothing but unused views uses, and these."""
        self._cache.pop(operation_key(op), None)
        self._waiting.pop(operation_key(op), None)
        for r in op.results:
            for user in users(r):
                _erase_views(user)
        op.erase()  # and not what it used: callers may hold that

    def visit(self, op: ir.Operation) -> None:
        """Fuse what can be fused into `op`, then `op` into its producer's epilogue."""
        while (new := self._absorb(op)) is not None:
            op = new
        if op.name == "ingot.pointwise":
            self._join_epilogue(op, may_wait=True)

    def finish(self) -> None:
        """Let what still waits for its reader join its producer."""
        for op in list(self._waiting.values()):
            self._join_epilogue(op, may_wait=False)

    # Producers into consumers --------------------------------------------------------------------------------------

    def _absorb(self, op: ir.Operation) -> ir.Operation | None:
        """Take one pointwise producer into `op`; the operation that replaces it, or None."""
        if op.name == "ingot.pointwise":
            self._open_concatenations(op)
        root = self.read(op)
        if root.name in _PROLOGUES and (new := self._absorb_operand(root)) is not None:
            return new
        own = len(op.operands)
        for number, region in enumerate(root.regions):
            reads = loaded(region)
            for operand, how in reads.items():
                if how == {"load"} and operand >= own:
                    new = self._inline_load(root, number, operand)
                    if new is not None:
                        return new
        return None

    def _open_concatenations(self, op: ir.Operation) -> None:
        """Make pointwise operations of concatenations that only such read, and `op` is the first to."""
        for tensor in self.read(op).tensors:
            while (owner := defining(tensor)) is not None and owner.name in dialect.VIEWS:
                tensor = owner.operands[0]
            if owner is None or any(user.name != "ingot.pointwise" for user in readers(tensor)):
                continue
            parts = concatenations.concatenation(tensor)
            if parts is None:
                continue
            new = concatenations.as_pointwise(parts, owner)
            for reader in readers(tensor):
                self._cache.pop(operation_key(reader), None)
            self.replace_uses(tensor, new)
            for move in reversed(parts.moves):
                self._cache.pop(operation_key(move.op), None)
                move.op.erase()
            self._count("concatenations")

    def _inline_load(self, root: Root, number: int, operand: int) -> ir.Operation | None:
        """Replace a region's loads of a pointwise result by the computation."""
        tensor = root.tensors[operand]
        found = self._producer(tensor)
        if found is None:
            return None
        producer, result, chain = found
        region = root.regions[number]
        target = domain_of(root, number)
        last = dialect.shape_of(tensor)
        repeated = _without_leading_ones(last) != _without_leading_ones(target)
        once = _only_user(producer.op, root.op) and self._reads_of(root, producer.op) == 1
        if (repeated or not once) and not self._is_cheap(producer, result, repeated):
            return None
        if cost(region) + cost(producer.regions[0]) > self.max_ops:
            return None
        mapped = self._through(producer, chain, target, root.op)
        if mapped is None:
            if root.name == "pointwise" and (finer := self._refine(root, producer, chain)) is not None:
                return finer
            mapped = self._through(producer, chain, target, root.op, computed=True)
        if mapped is None:
            return None
        body_, sources = mapped
        tensors = list(root.tensors)
        numbers = {i: operand_number(tensors, t) for i, t in enumerate(sources)}
        builder = RegionBuilder(region.args)
        value: list[int] = []

        def computed(inst: ScalarInst, args: tuple[int, ...]) -> int | None:
            if inst.op != "load" or inst.attr("operand") != operand:
                return None
            if not value:
                value.extend(builder.inline(body_, operands=numbers))
            return value[result]

        results = builder.inline(region, range(len(region.args)), replace=computed)
        regions = [builder.finish(results) if i == number else r for i, r in enumerate(root.regions)]
        new = replace_root(root, regions=regions, tensors=tensors, loc=fused_location(producer.op, root.op))
        self._count("pointwise" if root.name == "pointwise" else f"{root.name} loads")
        return self._finish(root, new, producer)

    def _absorb_operand(self, root: Root) -> ir.Operation | None:
        """Take the pointwise producer of a reduce's, normalize's or move's operand into its element map."""
        x = root.op.operands[0]
        found = self._producer(x)
        if found is None:
            return None
        producer, result, chain = found
        region = root.regions[0]
        if not _only_user(producer.op, root.op) or self._reads_of(root, producer.op) != 1:
            return None
        if _shares_bytes(root.op.results[0]):
            return None
        limit = min(self.max_ops, _NORMALIZE_COST) if root.name == "normalize" else self.max_ops
        if cost(region) + cost(producer.regions[0]) > limit:
            return None
        mapped = self._through(producer, chain, dialect.shape_of(x), root.op)
        mapped = mapped or self._through(producer, chain, dialect.shape_of(x), root.op, computed=True)
        if mapped is None:
            return None
        body_, sources = mapped
        main = _main_operand(body_, sources, dialect.shape_of(x))
        if main is None:
            return None
        element = dialect.dtype_of(sources[main])
        own = [sources[main], *list(root.op.operands)[1:]]
        tensors = list(own)
        renumbered = {i: operand_number(tensors, t) for i, t in enumerate(root.tensors) if i >= len(own)}
        numbers = {i: operand_number(tensors, t) for i, t in enumerate(sources)}
        builder = RegionBuilder((element,))

        def is_main(inst: ScalarInst, args: tuple[int, ...]) -> int | None:
            return 0 if inst.op == "load" and inst.attr("operand") == main else None

        value = builder.inline(body_, operands=numbers, replace=is_main)[result]
        first = builder.finish(builder.inline(region, [value], operands=renumbered))
        rest = [_renumbered(r, renumbered) for r in root.regions[1:]]
        new = replace_root(
            root, operands=own, regions=[first, *rest], tensors=tensors, loc=fused_location(producer.op, root.op)
        )
        self._count(f"{root.name} map")
        return self._finish(root, new, producer)

    def _refine(self, root: Root, producer: Root, chain: Sequence[views.View]) -> ir.Operation | None:
        """Split axes of a pointwise root that stand for several of a producer's; the operation that replaces it, or None."""
        finer = refinement.finer_domain(root.domain, producer.domain, chain)
        new = None if finer is None else refinement.split(root, finer)
        if new is None:
            return None
        self._replace_by_views(root.op, new)
        return new

    def _replace_by_views(self, old: ir.Operation, new: ir.Operation) -> None:
        """Let a root over a finer domain, right before it, stand for one; what reads it is read through one reshape."""
        for was, now in zip(old.results, new.results, strict=True):
            for user in users(was):
                if user.name == "ingot.reshape":
                    value = views.reshape(now, dialect.shape_of(user.results[0]), user)
                    for reader in readers(user.results[0]):
                        self._cache.pop(operation_key(reader), None)
                    user.results[0].replace_all_uses_with(value)
                else:
                    for reader in readers(was):
                        self._cache.pop(operation_key(reader), None)
            was.replace_all_uses_with(views.reshape(now, dialect.shape_of(was), old))
        self.erase(old)

    def _finish(self, old: Root, new: ir.Operation, producer: Root) -> ir.Operation:
        for was, now in zip(old.op.results, new.results, strict=True):
            self.replace_uses(was, now)
        self.erase(old.op)
        if not users_beyond_views(producer.op):
            self.erase(producer.op)
        return new

    def _producer(self, tensor: ir.Value) -> tuple[Root, int, list[views.View]] | None:
        """The pointwise operation that a value is a view of: the root, the result's number, and the views, first to last."""
        tensor, chain = views.chain_of(tensor)
        op = defining(tensor)
        if op is None or op.name != "ingot.pointwise":
            return None
        return self.read(op), _result_number(op, tensor), chain

    def _through(
        self, producer: Root, chain: Sequence[views.View], target: tuple[Dim, ...], before: ir.Operation, computed: bool = False
    ) -> tuple[ScalarRegion, list[ir.Value]] | None:
        """The producer's region over the domain `target`, into which a chain of views of its result is loaded.

        `computed`: see `domains.Regrouping`.
        """
        shape = producer.domain
        changes = []
        for view in chain:
            change = domains.of_view(view, computed)
            if change is None:
                return None
            changes.append(change)
            shape = view.shape
        if shape != target:
            aligned = zip(reversed(shape), reversed(target), strict=False)
            if len(shape) > len(target) or not all(a in (1, b) for a, b in aligned):
                return None
            changes.append(domains.Repetition(shape, target))
        return domains.map_through(changes, producer.regions[0], producer.tensors, before)

    def _reads_of(self, root: Root, producer: ir.Operation) -> int:
        """How many different views of a producer's results a root reads; those of several results of it count once."""
        seen: dict[int, int] = {}
        for tensor in root.tensors:
            while (op := defining(tensor)) is not None and op.name in dialect.VIEWS:
                tensor = op.operands[0]
            if op is not None and op == producer:
                number = _result_number(op, tensor)
                seen[number] = seen.get(number, 0) + 1
        return max(seen.values(), default=0)

    def _is_cheap(self, producer: Root, result: int, repeated: bool) -> bool:
        """Whether recomputing a result costs next to nothing: a cast or integer operations, of at most one tensor; or one
        operation on one of the same type that is `repeated` over a larger domain (1 + scale of an adaptive normalization).

        No more than that: the domain may be an attention's scores.
        """
        region = producer.regions[0]
        reads = loaded(region)
        if len(reads) > 1 or any("load_at" in how for how in reads.values()):
            return False
        types = {dialect.dtype_of(producer.tensors[i]) for i in reads}
        same = types == {dialect.dtype_of(producer.op.results[result])}
        limit = (1 if repeated and same else 0) if reads else _CHEAP_COST
        return cost(ScalarRegion(region.args, region.insts, (region.results[result],))) <= limit

    # Consumers into producers' epilogues -----------------------------------------------------------------------------

    def _join_epilogue(self, op: ir.Operation, may_wait: bool) -> None:
        """Make a pointwise operation part of the epilogue of the root that makes what it reads, where that can be.

        Where that root's result has other readers, so that it would be written besides the operation's, and another pointwise
        operation alone reads the latter, it waits: that one may read all there is to read of the former.
        """
        root = self.read(op)
        candidates: dict[int, tuple[ir.Operation, list[int]]] = {}
        for operand, how in loaded(root.regions[0]).items():
            tensor = root.tensors[operand]
            while (owner := defining(tensor)) is not None and owner.name in dialect.VIEWS:
                tensor = owner.operands[0]
            if owner is not None and owner.name[6:] in _EPILOGUES:
                entry = candidates.setdefault(operation_key(owner), (owner, []))
                entry[1].append(operand if how == {"load"} else -1)
        # The last producer in order has the most operands at hand, and moves least.
        ordered = sorted(candidates.values(), key=lambda c: _Order(c[0]), reverse=True)
        if may_wait and [u.name for u in users_beyond_views(op)] == ["ingot.pointwise"]:
            if any(len(users_beyond_views(producer)) > 1 for producer, _ in ordered):
                self._waiting[operation_key(op)] = op
                return
        for producer, operands in ordered:
            if -1 in operands:
                continue
            if self._fuse_epilogue(self.read(producer), root, operands) or self._fuse_row(self.read(producer), root, operands):
                return

    def _fuse_row(self, normalize: Root, root: Root, operands: Sequence[int]) -> bool:
        """Make the pointwise `root` part of the epilogue of a normalization of which it reads other elements of the same row
        (`normalized_rows`); whether it was done."""
        is_cut = any(view.name == "slice" for i in operands for view in views.chain_of(root.tensors[i])[1])
        if not is_cut or not normalized_rows.statistics(normalize):
            return False
        if root.domain != normalize.domain:
            finer = refinement.split(normalize, root.domain)
            if finer is None:
                return False
            self._replace_by_views(normalize.op, finer)
            normalize, root = self.read(finer), self.read(root.op)
        elsewhere: dict[int, _Computed] = {}
        for operand in operands:
            tensor, chain = views.chain_of(view_algebra.slices_last(root.tensors[operand], root.op))
            if not chain:
                continue
            again = None
            if normalized_rows.within_rows(normalize, chain):
                number = _result_number(normalize.op, tensor)
                again = normalized_rows.recomputed(normalize, number, chain, normalize.op)
            if again is None:
                return False
            elsewhere[operand] = again
        return self._fuse_epilogue(normalize, root, operands, elsewhere)

    def _fuse_epilogue(
        self, producer: Root, root: Root, operands: Sequence[int], elsewhere: Mapping[int, _Computed] | None = None
    ) -> bool:
        """Make the pointwise `root`, which loads results of `producer`, part of its epilogue; whether it was done.

        `elsewhere`: of the operands, those whose elements are computed from a normalization's statistics.
        """
        again = elsewhere or {}
        views_ = self._common_views(root, [i for i in operands if i not in again])
        if views_ is None or _shares_bytes(root.op.results[0]):
            return False
        last = producer.regions[-1]
        if cost(last) + cost(root.regions[0]) + sum(cost(r) for r, _ in again.values()) > self.max_ops:
            return False
        others = [u for r in producer.op.results for u in readers(r) if u != root.op]
        position = root.op
        region, tensors = root.regions[0], list(root.tensors)
        if others:
            position = producer.op
            for i, tensor in enumerate(tensors):
                if i not in operands:
                    if not _is_before(views.chain_of(tensor)[0], producer.op):
                        return False
                    tensors[i] = _view_before(tensor, producer.op)
        domain = root.domain
        for view in reversed(views_):
            change = domains.inverse(view)
            if change is None or view.shape != domain:
                return False
            # What the producer wrote is viewed back to its own shape by the same map.
            mapped = domains.map_region(change, region, tensors, position if others else root.op)
            if mapped is None:
                return False
            region, tensors = mapped
            domain = change.shape
        if domain != dialect.shape_of(producer.op.results[0]):
            return False
        kept = [i for i, r in enumerate(producer.op.results) if any(u != root.op for u in readers(r))]
        types = [producer.op.results[i].type for i in kept]
        types += [dialect.tensor_type(dialect.dtype_of(r), domain) for r in root.op.results]
        if len(set(types[1 if producer.name in _OF_TWO_TYPES else 0 :])) > 1:
            return False
        sources = {i: n for i, t in enumerate(tensors) if (n := _result_of(producer.op, t)) is not None}
        if any(i not in sources and i not in again and _is_view_of(tensors[i], producer.op) for i in loaded(region)):
            return False
        all_tensors = list(producer.tensors)
        numbers = {
            i: operand_number(all_tensors, t) for i, t in enumerate(tensors) if i not in sources and i not in again
        }
        statistics = normalized_rows.statistics(producer) if again else ()
        builder = RegionBuilder(last.args if len(last.args) > 1 else last.args + last.args * len(statistics))
        arguments = range(len(builder.args))
        yielded = builder.inline(last, arguments[: len(last.args)])

        def produced(inst: ScalarInst, args: tuple[int, ...]) -> int | None:
            if inst.op != "load":
                return None
            operand: int = inst.attr("operand")
            if operand in again:
                body_, read = again[operand]
                own = {i: operand_number(all_tensors, t) for i, t in enumerate(read)}
                return builder.inline(body_, arguments[1:], operands=own)[0]
            return yielded[sources[operand]] if operand in sources else None

        values = builder.inline(region, operands=numbers, replace=produced)
        results = [yielded[i] for i in kept] + values
        new = replace_root(
            producer,
            result_types=types,
            regions=[*producer.regions[:-1], builder.finish(results)],
            tensors=all_tensors,
            loc=fused_location(producer.op, root.op),
            before=position,
        )
        outputs = list(new.results)[len(kept) :]
        for old, value in zip(root.op.results, outputs, strict=True):
            for view in views_:
                value = views.make(views.View(view.name, value, view.shape, view.attrs), root.op)
            self.replace_uses(old, value)
        self.erase(root.op)
        for i, number in enumerate(kept):
            self.replace_uses(producer.op.results[number], new.results[i])
        self.erase(producer.op)
        self._count(f"{producer.name} epilogue")
        return True

    def _common_views(self, root: Root, operands: Sequence[int]) -> list[views.View] | None:
        """The chain of views through which all the operands are read, first to last; None where they differ."""
        common: list[views.View] | None = None
        for operand in operands:
            _, chain = views.chain_of(root.tensors[operand])
            if dialect.shape_of(root.tensors[operand]) != root.domain:
                return None
            if common is not None and [(v.name, v.shape, v.attrs) for v in chain] != [
                (v.name, v.shape, v.attrs) for v in common
            ]:
                return None
            common = chain
        return common

    def _count(self, kind: str) -> None:
        self.ctx.changed(kind)


class _Order:
    """Sorts operations of one block by position."""

    def __init__(self, op: ir.Operation) -> None:
        self.op = op

    def __lt__(self, other: _Order) -> bool:
        return self.op.is_before_in_block(other.op)


def _is_before(value: ir.Value, op: ir.Operation) -> bool:
    owner = defining(value)
    return owner is None or owner.is_before_in_block(op)


def _view_before(value: ir.Value, op: ir.Operation) -> ir.Value:
    """`value`, a view of what is there before `op`, as a value that is there too."""
    if _is_before(value, op):
        return value
    value, chain = views.chain_of(value)
    for view in chain:
        value = views.make(replace(view, x=value), op)
    return value


def _result_number(op: ir.Operation, value: ir.Value) -> int:
    return next(i for i, r in enumerate(op.results) if r == value)


def _result_of(op: ir.Operation, value: ir.Value) -> int | None:
    """The number of the result of `op` that `value` is, or None."""
    owner = defining(value)
    return _result_number(op, value) if owner is not None and owner == op else None


def _renumbered(region: ScalarRegion, numbers: dict[int, int]) -> ScalarRegion:
    builder = RegionBuilder(region.args)
    return builder.finish(builder.inline(region, range(len(region.args)), operands=numbers))


def users_beyond_views(op: ir.Operation) -> list[ir.Operation]:
    """The operations that read a root's results, directly or through views."""
    return [u for r in op.results for u in readers(r)]


def _only_user(op: ir.Operation, user: ir.Operation) -> bool:
    return all(u == user for u in users_beyond_views(op))


def _erase_views(op: ir.Operation) -> None:
    assert op.name in dialect.VIEWS, op.name
    for user in users(op.results[0]):
        _erase_views(user)
    op.erase()


def _is_view_of(value: ir.Value, op: ir.Operation) -> bool:
    while (owner := defining(value)) is not None and owner.name in dialect.VIEWS:
        value = owner.operands[0]
    return owner is not None and owner == op


def _main_operand(region: ScalarRegion, sources: Sequence[ir.Value], domain: tuple[Dim, ...]) -> int | None:
    """The tensor that a root may read as its operand: one that the region loads for every element of the domain."""
    for operand, how in loaded(region).items():
        if how == {"load"} and dialect.shape_of(sources[operand]) == domain and not _shares_bytes(sources[operand]):
            return operand
    return None


def _shares_bytes(value: ir.Value) -> bool:
    """True where elements are smaller than a byte: only pointwise operations and copies write such, or stream them."""
    return DTYPES[dialect.dtype_of(value)].bits < 8


def _without_leading_ones(shape: tuple[Dim, ...]) -> tuple[Dim, ...]:
    lead = 0
    while lead < len(shape) and shape[lead] == 1:
        lead += 1
    return shape[lead:]
