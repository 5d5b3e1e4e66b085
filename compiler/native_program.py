"""A launch program as machine code: one straight-line function that evaluates sizes, fills in addresses, and launches kernels.

    void run(ptr kernels, ptr buffers, ptr arena, ptr dims, ptr pool, ptr status)

`kernels` holds the address of every launch's function, in the order of `kernel_symbols`; `buffers` one address for each buffer
of the program (entries of arena buffers are not read); `dims` the values of `ingot.launch_program.dim_names`; `pool` is a
thread pool (`ingot.thread_pool_layout`). `status` receives 0, or 1 + the number of the guard that failed, in the order in
which guards stand in the program.

Guards whose sizes are known at entry come first, so that nothing is computed for a call that fails.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from ingot import dims, thread_pool_layout
from ingot.compiler.codegen.kernel_builder import KernelBuilder, KernelModule, Param, Val
from ingot.compiler.thread_pool_code import call
from ingot.compiler.toolchain import stages
from ingot.compiler.toolchain.host import HostTarget
from ingot.dims import Dim
from ingot.dispatch import from_json
from ingot.errors import CompileError
from ingot.kernel_code import KernelCode
from ingot.kernel_plan import BufferArg, KernelPlan
from ingot.launch_program import (
    BufferRef,
    DispatchStep,
    GuardStep,
    HostReadStep,
    IfStep,
    LaunchProgram,
    LoopStep,
    Step,
    all_steps,
    dim_names,
    guards,
    kernel_symbols,
)
from ingot.target import Target

SYMBOL = "run"


def compile_program(program: LaunchProgram, target: Target, *, dump_dir: str | Path | None = None) -> KernelCode:
    """The machine code of `program`, whose kernels must have their plans."""
    with KernelModule("cpu") as m:
        params = [Param(n, "ptr") for n in ("kernels", "buffers", "arena", "dims", "pool", "status")]
        with m.kernel(SYMBOL, params) as k:
            _Emitter(k, program).emit()
        # The code runs once a call: what matters is that it compiles fast.
        options = stages.Options(level=0, host=HostTarget(target.cpu, target.features), name="program")
        image = stages.compile_kernels(m.module, "cpu", options=options, dump_dir=dump_dir)
    return KernelCode(KernelPlan(()), "image", image.data, image.symbols)


class _Emitter:
    def __init__(self, k: KernelBuilder, program: LaunchProgram) -> None:
        self.k, self.program = k, program
        self.kernels, self.buffers, self.arena, self.dims, self.pool, self.status = k.args
        self.symbols: dict[str, Val] = {}
        self.values: list[dict[Dim, Val]] = [{}]  # by block, outermost first
        self.bases: list[dict[int, Val]] = [{}]
        self.kernel_numbers = {key: i for i, key in enumerate(kernel_symbols(program))}
        self.dispatch_symbols = [self._symbols_of(e.dispatch) for e in program.kernels]
        most = max((len(ln.buffers) for e in program.kernels for ln in e.plan.launches), default=1)
        sizes = max((len(s) for s in self.dispatch_symbols), default=1)
        self.addresses = k.alloca(8 * max(most, 1), 16)
        self.sizes = k.alloca(8 * max(sizes, 1), 16)
        self.guard_numbers = {guard: i for i, guard in reversed(list(enumerate(guards(program))))}

    @staticmethod
    def _symbols_of(dispatch: str) -> tuple[str, ...]:
        import json

        return from_json(json.loads(dispatch)).symbols

    def emit(self) -> None:
        k, program = self.k, self.program
        names = dim_names(program)
        for i, name in enumerate(names):
            self.symbols[name] = k.load(self.dims + 8 * i, "i64")
        self.parallel_for = k.load(self.pool + thread_pool_layout.PARALLEL_FOR, "ptr")
        known = set(names)
        # A guard inside a branch or loop counts only where that runs.
        outermost = {step for step in program.steps if isinstance(step, GuardStep)}
        self.early = {g for g in outermost if dims.symbols_of((g.left, g.right)) <= known}
        failed = k.const(0, "i64")
        for guard in sorted(self.early, key=self.guard_numbers.__getitem__, reverse=True):
            failed = k.select(self._holds(guard), failed, k.const(self.guard_numbers[guard] + 1, "i64"))
        k.store(failed, self.status)
        donated = {index: f"donated_{n}" for n, state in enumerate(program.states) for index in state.copies}
        with k.if_(failed.eq(0)):
            self._push()
            self._steps(program.steps, donated)

    # Blocks: what is computed inside one is not seen after it.

    def _push(self) -> None:
        self.values.append({})
        self.bases.append({})

    def _pop(self) -> None:
        self.values.pop()
        self.bases.pop()

    def _steps(self, steps: Sequence[Step], copies: Mapping[int, str] | None = None) -> None:
        """Emit steps; those after a guard stand in a block that runs where it holds."""
        k = self.k
        with ExitStack() as nested:
            depth = 0
            for position, step in enumerate(steps):
                match step:
                    case DispatchStep():
                        flag = (copies or {}).get(position)
                        if flag is None:
                            self._dispatch(step)
                        else:
                            with k.if_(self.symbols[flag].eq(0)):
                                self._push()
                                self._dispatch(step)
                                self._pop()
                    case GuardStep() if step not in self.early:
                        holds = self._holds(step)
                        with k.if_(holds.eq(0)):
                            k.store(k.const(self.guard_numbers[step] + 1, "i64"), self.status)
                        nested.enter_context(k.if_(holds))
                        self._push()
                        depth += 1
                    case HostReadStep():
                        self.symbols[step.symbol] = k.cast(k.load(self._address(step.source), step.dtype), "i64")
                    case IfStep():
                        condition = k.load(self._address(step.condition), "i8").ne(0)
                        with k.if_else(condition) as branch:
                            for side, body in ((branch.then, step.then), (branch.else_, step.otherwise)):
                                with side:
                                    self._push()
                                    self._steps(body)
                                    self._pop()
                    case LoopStep():
                        self._loop(step)
                if isinstance(step, IfStep | LoopStep) and any(isinstance(s, GuardStep) for s in all_steps((step,))):
                    nested.enter_context(k.if_(k.load(self.status, "i64").eq(0)))
                    self._push()
                    depth += 1
            for _ in range(depth):
                self._pop()

    def _loop(self, step: LoopStep) -> None:
        k = self.k
        trips = self._value(step.trips)
        condition = step.condition

        def goes_on(carry: list[Val]) -> Val:
            more = carry[0] < trips
            if any(isinstance(s, GuardStep) for s in all_steps(step.body)):
                more = more & k.load(self.status, "i64").eq(0)
            return more if condition is None else more & k.load(self._address(condition), "i8").ne(0)

        with k.while_([k.const(0, "i64")], goes_on) as loop:
            (counter,) = loop.carry
            self._push()
            self.symbols[step.symbol] = counter
            self._steps(step.body)
            self._pop()
            loop.yield_([counter + 1])

    # Sizes and addresses

    def _value(self, d: Dim) -> Val:
        """The value of a shape expression over the program's symbols."""
        if isinstance(d, int):
            return self.k.const(d, "i64")
        for block in reversed(self.values):
            if d in block:
                return block[d]
        total: Val | None = None
        for monomial, c in d.terms:
            term = self.k.const(c, "i64")
            for atom in monomial:
                term = term * self._atom(atom)
            total = term if total is None else total + term
        assert total is not None
        self.values[-1][d] = total
        return total

    def _atom(self, atom: dims.Atom) -> Val:
        k = self.k
        if atom.function is None:
            return self.symbols[atom.text]
        expression = dims.Expr((((atom,), 1),))
        for block in reversed(self.values):
            if expression in block:
                return block[expression]
        if atom.function == "signed":
            return self._value(atom.args[0])
        a, b, *rest = map(self._value, atom.args)
        match atom.function:
            case "min":
                value = k.min(a, b)
            case "max":
                value = k.max(a, b)
            case "bcast":
                value = k.select(a.eq(1), b, a)
            case "select":
                value = k.select(a.eq(b), *rest)
            case "floordiv":
                value = self._floordiv(a, b)
            case "ceildiv":
                value = 0 - self._floordiv(0 - a, b)
            case "mod":
                value = a - b * self._floordiv(a, b)
            case name:
                raise CompileError(f"shape function {name} has no machine code")
        self.values[-1][expression] = value
        return value

    def _floordiv(self, a: Val, b: Val) -> Val:
        """Rounded to minus infinity; division by a size that is 0 gives a number that nothing is computed with."""
        k = self.k
        b = k.select(b.eq(0), k.const(1, "i64"), b)
        quotient = a.sdiv(b)
        inexact = (quotient * b).ne(a)
        return k.select(inexact & ((a ^ b) < 0), quotient - 1, quotient)

    def _holds(self, guard: GuardStep) -> Val:
        left, right = self._value(guard.left), self._value(guard.right)
        return left.eq(right) if guard.relation == "eq" else left <= right

    def _base(self, number: int) -> Val:
        for block in reversed(self.bases):
            if number in block:
                return block[number]
        buffer = self.program.buffers[number]
        if buffer.kind == "arena":
            base = self.arena + self._value(buffer.offset)
        else:
            base = self.k.load(self.buffers + 8 * number, "ptr")
        self.bases[-1][number] = base
        return base

    def _address(self, ref: BufferRef) -> Val:
        return self._base(ref.buffer) + self._value(ref.offset)

    # Launches

    def _dispatch(self, step: DispatchStep) -> None:
        k = self.k
        env = dict(zip(self.dispatch_symbols[step.kernel], step.sizes, strict=True))

        def local(d: Dim) -> Val:
            return self._value(dims.substitute(d, env))

        for i, size in enumerate(step.sizes):
            k.store(self._value(size), self.sizes + 8 * i)
        for launch in self.program.kernels[step.kernel].plan.launches:
            for i, arg in enumerate(launch.buffers):
                if not isinstance(arg, BufferArg):
                    raise CompileError(f"{launch.symbol} takes a tensor map, which a CPU has not")
                if arg.kind == "workspace":
                    assert step.workspace is not None, launch.symbol
                    ref = step.workspace
                else:
                    ref = (step.operands if arg.kind == "operand" else step.results)[arg.index]
                k.store(self._address(ref) + local(arg.offset), self.addresses + 8 * i)
            number = self.kernel_numbers[step.kernel, launch.symbol]
            function = k.load(self.kernels + 8 * number, "ptr")
            work = local(launch.flops + launch.bytes)
            call(k, self.parallel_for, [self.pool, function, self.addresses, self.sizes, local(launch.grid[0]), work])
