"""Structured control flow (`scf`) of the emulator: closures where the bodies cannot block, nodes where they can."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ingot.compiler.emulator.group import Frame, Group, Reconvergence, uniform
from ingot.compiler.emulator.program import Body, Op, structure
from ingot.compiler.emulator.unit import SpinWait
from ingot.compiler.emulator.values import blend, spread, take

_POLLING = ("llvm.atomicrmw", "llvm.cmpxchg", "nvvm.mbarrier.test.wait", "nvvm.mbarrier.try_wait")


class _Subset:
    """Runs code for some of a group's threads: the values that it reads are taken for them, and put back after."""

    def __init__(self, body: Body, extra: list[int] = ()) -> None:  # type: ignore[assignment]
        self.slots = sorted(body.reads | set(extra))

    def __call__(self, group: Group, index: np.ndarray, run: Callable[[Group], Any]) -> Any:
        env = group.env
        kept = [(slot, env[slot]) for slot in self.slots if env[slot] is not None]
        for slot, value in kept:
            env[slot] = take(value, index)
        try:
            return run(group.subset(index))
        finally:
            for slot, value in kept:
                env[slot] = value


def _run_steps(body: Body) -> Callable[[Group], list[Any]]:
    steps, yields = body.steps, body.yields

    def run(group: Group) -> list[Any]:
        for step in steps:
            step(group)
        env = group.env
        return [env[y] for y in yields]

    return run


# --- scf.if


@structure("scf.if")
def _make_if(op: Op) -> Any:
    regions = [op.program.block(region.blocks[0]) if len(region.blocks) else None for region in op.operation.regions]
    then, other = regions[0], regions[1] if len(regions) > 1 else None
    assert then is not None
    if then.blocks or (other is not None and other.blocks):
        return IfNode(op, then, other)
    condition, results = op.operands[0], op.results
    run_then = _run_steps(then)
    run_other = _run_steps(other) if other is not None else None
    subset_then = _Subset(then)
    subset_other = _Subset(other) if other is not None else None

    def run(group: Group) -> None:
        env = group.env
        taken = env[condition]
        if taken.all():
            values = run_then(group)
        elif not taken.any():
            if run_other is None:
                return
            values = run_other(group)
        else:
            inside, outside = np.flatnonzero(taken), np.flatnonzero(~taken)
            values = subset_then(group, inside, run_then)
            if run_other is None:
                return
            others = subset_other(group, outside, run_other)  # type: ignore[misc]
            values = [blend(inside, a, outside, b, group.size) for a, b in zip(values, others, strict=True)]
        for slot, value in zip(results, values, strict=True):
            env[slot] = value

    return run


class _Branch:
    """One side of an `IfNode`, as the owner of its frame."""

    def __init__(self, body: Body | None, results: list[int]) -> None:
        self.nodes = body.nodes if body is not None else []
        self.yields = body.yields if body is not None else []
        self.results = results
        self.clear = sorted(body.defines) if body is not None else []

    def leave(self, group: Group) -> bool:
        env = group.env
        for slot, value in zip(self.results, [env[y] for y in self.yields], strict=True):
            env[slot] = value
        for slot in self.clear:
            env[slot] = group.unit.program.template[slot]
        return group.unit.end_frame(group)


class IfNode:
    """scf.if over code that may block."""

    def __init__(self, op: Op, then: Body, other: Body | None) -> None:
        self.condition = op.operands[0]
        self.then, self.other = _Branch(then, op.results), _Branch(other, op.results)

    def enter(self, group: Group) -> bool:
        taken = group.env[self.condition]
        if taken.all() or not taken.any():
            branch = self.then if taken.all() else self.other
            group.frames.append(Frame(branch.nodes, branch))
            return True
        torn = group.torn_lanes(taken)
        join = None
        if torn.size:
            join = Reconvergence()
            join.expect(torn)
        sides = group.part(taken)
        for side, branch in zip(sides, (self.then, self.other), strict=True):
            side.frames.append(Frame(branch.nodes, branch, 0, join))
        group.unit.replace(group, list(sides))
        return False


# --- scf.for


@structure("scf.for")
def _make_for(op: Op) -> Any:
    body = op.program.block(op.operation.regions[0].blocks[0])
    if body.blocks:
        return ForNode(op, body)
    low, high, step, *initial = op.operands
    iv, *carried = body.arguments
    dtype = op.operand_kinds[0].dtype
    once = _run_steps(body)
    subset = _Subset(body, [high, step])
    results = op.results

    def count(group: Group, first: int, last: int, by: int, values: list[Any]) -> list[Any]:
        env = group.env
        for i in range(first, last, by):
            env[iv] = np.array([i], dtype)
            for slot, value in zip(carried, values, strict=True):
                env[slot] = value
            values = once(group)
        return values

    def count_apart(group: Group, i: np.ndarray, values: list[Any]) -> list[Any]:
        """Threads leave the loop at different iterations."""
        env = group.env
        while True:
            active = i < env[high]
            if not active.any():
                return values
            if not active.all():
                index = np.flatnonzero(spread(active, group.size))
                rest = np.flatnonzero(~spread(active, group.size))
                inner = [take(v, index) for v in values]
                start = take(i, index)
                inner = subset(group, index, partial(count_apart, i=start, values=inner))
                outer = [take(v, rest) for v in values]
                return [blend(index, a, rest, b, group.size) for a, b in zip(inner, outer, strict=True)]
            env[iv] = i
            for slot, value in zip(carried, values, strict=True):
                env[slot] = value
            values = once(group)
            i = i + env[step]

    def run(group: Group) -> None:
        env = group.env
        bounds = [uniform(env[s]) for s in (low, high, step)]
        values = [env[s] for s in initial]
        if all(b is not None for b in bounds):
            first, last, by = map(int, bounds)
            values = count(group, first, last, by, values)
        else:
            values = count_apart(group, spread(env[low], group.size), values)
        for slot, value in zip(results, values, strict=True):
            env[slot] = value

    return run


class ForNode:
    """scf.for over a body that may block; the owner of its frame."""

    def __init__(self, op: Op, body: Body) -> None:
        self.low, self.high, self.step, *self.initial = op.operands
        self.iv, *self.carried = body.arguments
        self.nodes, self.yields, self.results = body.nodes, body.yields, op.results
        self.clear = sorted(body.defines)

    def enter(self, group: Group) -> bool:
        env = group.env
        low = uniform(env[self.low])
        env[self.iv] = env[self.low] if low is None else np.array([low])
        values = [env[s] for s in self.initial]
        for slot, value in zip(self.carried, values, strict=True):
            env[slot] = value
        group.frames.append(Frame(self.nodes, self))
        return self._test(group)

    def leave(self, group: Group) -> bool:
        """The end of an iteration."""
        env = group.env
        values = [env[y] for y in self.yields]
        for slot, value in zip(self.carried, values, strict=True):
            env[slot] = value
        step = uniform(env[self.step])
        env[self.iv] = env[self.iv] + (env[self.step] if step is None else step)
        return self._test(group)

    def _test(self, group: Group) -> bool:
        env = group.env
        more = env[self.iv] < env[self.high]
        if more.all():
            group.frames[-1].index = 0
            return True
        if not more.any():
            return self._finish(group)
        torn = group.torn_lanes(more)
        if torn.size:
            frame = group.frames[-1]
            if frame.join is None:
                frame.join = Reconvergence()
            frame.join.expect(torn)
        on, out = group.part(more)
        on.frames[-1].index = 0
        group.unit.replace(group, [on, out])
        self._finish(out)
        return False

    def _finish(self, group: Group) -> bool:
        env = group.env
        for slot, value in zip(self.results, [env[s] for s in self.carried], strict=True):
            env[slot] = value
        for slot in self.clear:
            env[slot] = group.unit.program.template[slot]
        return group.unit.end_frame(group)


# --- scf.while


def _polls(region: Any) -> bool:
    for op in region.blocks[0].operations:
        operation = op.operation
        if operation.name in _POLLING:
            return True
        if operation.name == "llvm.load" and {"ordering", "volatile_"} & set(operation.attributes):
            text = str(operation.attributes["ordering"]) if "ordering" in operation.attributes else "1"
            if "volatile_" in operation.attributes or not text.startswith("0 "):
                return True
    return False


@structure("scf.while")
def _make_while(op: Op) -> Any:
    spins = any(_polls(region) for region in op.operation.regions)
    before = op.program.block(op.operation.regions[0].blocks[0])
    after = op.program.block(op.operation.regions[1].blocks[0])
    if before.blocks:
        raise NotImplementedError("a while loop whose condition waits at a barrier")
    if after.blocks or spins:
        op.program.spins |= spins
        return WhileNode(op, before, after, spins)
    test = _run_steps(before)
    once = _run_steps(after)
    subset_both = _Subset(
        Body([], False, before.reads | after.reads, set(), [], []),
    )
    initial, results = op.operands, op.results

    def loop(group: Group, values: list[Any]) -> list[Any]:
        env = group.env
        while True:
            for slot, value in zip(before.arguments, values, strict=True):
                env[slot] = value
            go, *passed = test(group)
            if not go.any():
                return passed
            if not go.all():
                index, rest = np.flatnonzero(spread(go, group.size)), np.flatnonzero(~spread(go, group.size))
                inner = [take(v, index) for v in passed]
                inner = subset_both(group, index, partial(continue_, passed=inner))
                outer = [take(v, rest) for v in passed]
                return [blend(index, a, rest, b, group.size) for a, b in zip(inner, outer, strict=True)]
            values = body(group, passed)

    def body(group: Group, passed: list[Any]) -> list[Any]:
        for slot, value in zip(after.arguments, passed, strict=True):
            group.env[slot] = value
        return once(group)

    def continue_(group: Group, passed: list[Any]) -> list[Any]:
        return loop(group, body(group, passed))

    def run(group: Group) -> None:
        env = group.env
        values = loop(group, [env[s] for s in initial])
        for slot, value in zip(results, values, strict=True):
            env[slot] = value

    return run


class WhileNode:
    """scf.while over a body that may block, or that polls memory; the owner of its frame."""

    def __init__(self, op: Op, before: Body, after: Body, spins: bool) -> None:
        self.initial, self.results = op.operands, op.results
        self.before, self.after, self.spins = before, after, spins
        self.test = _run_steps(before)
        self.clear = sorted(before.defines | after.defines)
        # A node of its own, so that a group that polls can be resumed before the next test.
        self.nodes = [_WhileTest(self), *after.nodes]

    def enter(self, group: Group) -> bool:
        self._bind(group, self.before.arguments, [group.env[s] for s in self.initial])
        group.frames.append(Frame(self.nodes, self))
        return True

    def leave(self, group: Group) -> bool:
        self._bind(group, self.before.arguments, [group.env[y] for y in self.after.yields])
        group.frames[-1].index = 0
        if self.spins:
            group.wait = SpinWait()
            return False
        return True

    def _bind(self, group: Group, slots: list[int], values: list[Any]) -> None:
        for slot, value in zip(slots, values, strict=True):
            group.env[slot] = value

    def check(self, group: Group) -> bool:
        """Evaluate the condition and go on, leave, or part."""
        go, *passed = self.test(group)
        if go.all():
            self._bind(group, self.after.arguments, passed)
            return True
        if not go.any():
            return self._finish(group, passed)
        go = spread(go, group.size)
        torn = group.torn_lanes(go)
        if torn.size:
            frame = group.frames[-1]
            if frame.join is None:
                frame.join = Reconvergence()
            frame.join.expect(torn)
        on, out = group.part(go)
        self._bind(on, self.after.arguments, [take(v, np.flatnonzero(go)) for v in passed])
        group.unit.replace(group, [on, out])
        self._finish(out, [take(v, np.flatnonzero(~go)) for v in passed])
        return False

    def _finish(self, group: Group, passed: list[Any]) -> bool:
        self._bind(group, self.results, passed)
        for slot in self.clear:
            group.env[slot] = group.unit.program.template[slot]
        return group.unit.end_frame(group)


class _WhileTest:
    """The condition of a `WhileNode`, as the first node of its frame."""

    def __init__(self, loop: WhileNode) -> None:
        self.loop = loop

    def enter(self, group: Group) -> bool:
        return self.loop.check(group)
