"""`KernelModule` and `KernelBuilder`: the one way kernels are emitted from Python, for the CPU and for NVIDIA GPUs.

A module holds one or several kernels (`llvm.func` with bodies in `scf`, `arith`, `vector`, `llvm` and, on GPUs, `nvvm`):

    with KernelModule("cpu") as m:
        with m.kernel("axpy", [Param("x", "ptr", noalias=True), Param("y", "ptr", noalias=True), Param("n", "i64")]) as k:
            x, y, n = k.args
            with k.for_(0, n, 8) as loop:
                v = k.load(x.at(loop.iv, "f32"), "vector<8xf32>", align=4)
                w = k.load(y.at(loop.iv, "f32"), "vector<8xf32>", align=4)
                k.store(v * 2.0 + w, y.at(loop.iv, "f32"), align=4)
        text = m.text()                       # Kernel IR
    image = toolchain.compile_cpu(text)       # see compiler/toolchain

On a GPU target (`KernelModule("sm_90a")`) `m.kernel` gives an `NvvmBuilder`, which adds NVIDIA's operations.

Rules of the house:

- Values are `Val` (values.py): operators, Python numbers on either side, constants folded. Pointers are untyped; `ptr +
  n` moves by bytes, `ptr.at(i, "f32")` by elements. Types are named by strings ("f32", "vector<8xbf16>", "ptr<3>").
- Everything static is unrolled by Python's own loops; `for_`, `while_`, `if_` and `if_else` emit structured control
  flow, with carried values given as any nesting of lists, returned in the same nesting.
- Constants are emitted once, in the entry block. Building costs 1-2 us an operation.
- 8-bit and 4-bit floats have no arithmetic type: they are `i8` bytes (two 4-bit values a byte), moved to and from real
  floats by `decode_float` and `encode_float` (small_floats.py). `i1` is a value of comparisons; in memory a bool is a
  byte.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ingot.compiler.codegen.memory_ops import MemoryOps
from ingot.compiler.codegen.values import Operand, Val, ValueType, flatten, unflatten
from ingot.dialects.mlir import ir, kernel_context

__all__ = ["If", "KernelBuilder", "KernelModule", "Loop", "Param", "Val", "ValueType"]

GLOBAL, SHARED, CLUSTER = 1, 3, 7  # NVPTX address spaces: global memory, this block's shared memory, the cluster's

_SCALARS = {
    **{f"i{n}": ("int", n) for n in (1, 4, 8, 16, 32, 64)},
    **{"f16": ("float", 16), "bf16": ("float", 16), "f32": ("float", 32), "f64": ("float", 64)},
}


@dataclass(frozen=True)
class Param:
    """A kernel parameter.

    Attributes:
        name: for people; becomes a comment-like attribute, not a symbol.
        type: a `ValueType` name, or `tensormap`: a 128-byte TMA descriptor passed by value (`__grid_constant__`).
        noalias: a pointer whose memory no other parameter reaches.
        align: alignment of a pointer in bytes that callers guarantee.
        readonly: the kernel does not write through this pointer.
    """

    name: str
    type: str
    noalias: bool = False
    align: int = 0
    readonly: bool = False

    def _attributes(self) -> str:
        if self.type == "tensormap":
            return "{llvm.byval = !llvm.array<128 x i8>, nvvm.grid_constant, llvm.align = 64 : i64}"
        attrs = []
        if self.noalias:
            attrs.append("llvm.noalias")
        if self.readonly:
            attrs.append("llvm.readonly")
        if self.align:
            attrs.append(f"llvm.align = {self.align} : i64")
        return "{" + ", ".join(attrs) + "}"


class KernelModule:
    """A builtin module of kernels for one target: `cpu`, or `sm_75` ... `sm_121a`.

    Use as a context manager: it enters an MLIR context (its own, or `context`) and leaves it again. Types and attributes are
    cached here, shared by the module's kernels. `module` is one that holds kernels already, for more of them.
    """

    def __init__(self, target: str = "cpu", *, context: Any = None, module: ir.Module | None = None) -> None:
        if target != "cpu" and not re.fullmatch(r"sm_\d+a?", target):
            raise ValueError(f"target {target!r} is neither cpu nor sm_XX")
        self.target = target
        self.context = context or kernel_context()
        self._types: dict[str, ValueType] = {}
        self._attrs: dict[str, Any] = {}
        self._globals: dict[str, int] = {}
        with self.context, ir.Location.unknown(self.context):
            self.module = module or ir.Module.create()
            attributes = self.module.operation.attributes
            attributes["ingot.target"] = ir.StringAttr.get(target)

    @property
    def is_gpu(self) -> bool:
        return self.target != "cpu"

    @property
    def sm(self) -> int:
        """Compute capability times ten (90 for sm_90a); 0 on the CPU."""
        return int(self.target[3:].rstrip("a")) if self.is_gpu else 0

    def __enter__(self) -> KernelModule:
        self.context.__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        self.context.__exit__(*exc)

    def text(self) -> str:
        """The module as Kernel IR text."""
        return str(self.module)

    def attr(self, text: str) -> Any:
        """A parsed attribute, cached."""
        found = self._attrs.get(text)
        if found is None:
            found = self._attrs[text] = ir.Attribute.parse(text, self.context)
        return found

    def type(self, name: str | ValueType) -> ValueType:
        """The type spelled `name`; a `ValueType` passes through. Raises ValueError for a name that is no type."""
        if isinstance(name, ValueType):
            return name
        found = self._types.get(name)
        if found is None:
            found = self._types[name] = self._make_type(name.strip())
        return found

    def _make_type(self, name: str) -> ValueType:
        ctx = self.context
        if name in _SCALARS:
            kind, bits = _SCALARS[name]
            return ValueType(name, ir.Type.parse(name, ctx), kind, bits)
        if m := re.fullmatch(r"ptr(?:<(\d+)>)?", name):
            space = int(m[1] or 0)
            if space == 0 and m[1]:
                return self.type("ptr")
            # Shared-memory pointers of NVPTX are 32 bits wide, all others 64.
            return ValueType(name, ir.Type.parse(f"!llvm.{name}", ctx), "ptr", 32 if space in (3, 5, 7) else 64, space=space)
        if m := re.fullmatch(r"vector<(\d+)x(.+)>", name):
            lanes, element = int(m[1]), self.type(m[2])
            mlir = ir.Type.parse(f"vector<{lanes}x{element.mlir}>", ctx)
            return ValueType(name, mlir, "vector", lanes * element.bits, lanes, element)
        if m := re.fullmatch(r"struct<(.+)>", name):
            members = tuple(self.type(part.strip()) for part in m[1].split(","))
            canonical = f"struct<{', '.join(t.name for t in members)}>"
            if canonical != name:
                return self.type(canonical)
            # LLVM IR spells a type without a name wherever it occurs: 100 members for each access to one of them.
            named = f'"{members[0].name}_{len(members)}", ' if len(members) >= 8 and len(set(members)) == 1 else ""
            text = f"!llvm.struct<{named}({', '.join(str(t.mlir) for t in members)})>"
            return ValueType(name, ir.Type.parse(text, ctx), "struct", members=members)
        raise ValueError(f"{name!r} is not a type of Kernel IR")

    @contextmanager
    def kernel(
        self,
        name: str,
        params: Sequence[Param],
        *,
        threads: int | tuple[int, ...] = 0,
        cluster: int | tuple[int, ...] = 1,
        min_blocks: int = 0,
        max_registers: int = 0,
        exact_threads: bool = False,
    ) -> Iterator[Any]:
        """Add a kernel and give its builder: a `KernelBuilder` on the CPU, an `NvvmBuilder` on a GPU.

        Args:
            name: symbol of the kernel, unique in the module.
            params: its parameters; `k.args` holds their values in order.
            threads: threads per block that launches use, at most (`.maxntid`), or exactly (`.reqntid`) with `exact_threads`
                or a cluster; required on GPUs.
            cluster: blocks per cluster (sm_90 and later).
            min_blocks: blocks that must fit on an SM at once (`.minnctapersm`), which bounds registers.
            max_registers: registers a thread (`.maxnreg`).
        """
        attributes: dict[str, Any] = {}
        if self.is_gpu:
            from ingot.compiler.codegen.nvvm_builder import NvvmBuilder

            builder: type[KernelBuilder] = NvvmBuilder
            shape, clusters = _three(threads), _three(cluster)
            if shape[0] * shape[1] * shape[2] < 1:
                raise ValueError(f"kernel {name}: threads={threads} must say how many threads a block has")
            clustered = clusters != (1, 1, 1)
            bound = "reqntid" if exact_threads or clustered else "maxntid"
            attributes["nvvm.kernel"] = ir.UnitAttr.get(self.context)
            attributes[f"nvvm.{bound}"] = self.attr(f"array<i32: {', '.join(map(str, shape))}>")
            if clustered:
                attributes["nvvm.cluster_dim"] = self.attr(f"array<i32: {', '.join(map(str, clusters))}>")
            if min_blocks:
                attributes["nvvm.minctasm"] = self.attr(f"{min_blocks} : i32")
            if max_registers:
                attributes["nvvm.maxnreg"] = self.attr(f"{max_registers} : i32")
        else:
            builder = KernelBuilder
        k = builder(self, name, params, attributes)
        yield k
        k.finish()


def _three(dims: int | tuple[int, ...]) -> tuple[int, int, int]:
    dims = (dims,) if isinstance(dims, int) else tuple(dims)
    return (*dims, 1, 1, 1)[:3]  # type: ignore[return-value]


class Loop:
    """A loop being built: `iv` its induction variable, `carry` the carried values, `results` their values after it."""

    def __init__(self, k: KernelBuilder, carry: Any) -> None:
        self._k, self._carry_tree, self._yielded = k, carry, False
        self.iv: Val = None  # type: ignore[assignment]
        self.carry: Any = None
        self.results: Any = None

    def yield_(self, values: Any) -> None:
        """End the body: `values` (nested as `carry`) are carried to the next iteration."""
        if self._yielded:
            raise ValueError("a loop's body yields once, at its end")
        like = [leaf.t for leaf in flatten(self.carry)]
        leaves = flatten(values)
        if len(leaves) != len(like):
            raise ValueError(f"the loop carries {len(like)} values, yield_ got {len(leaves)}")
        self._k.op("scf.yield", [self._k.value(leaf, t) for leaf, t in zip(leaves, like, strict=True)])
        self._yielded = True


class If:
    """A conditional with two branches being built; `results` are its values after it."""

    def __init__(self, k: KernelBuilder, operation: Any, types: list[ValueType], tree: Any) -> None:
        self._k, self._op, self._types, self._tree = k, operation, types, tree
        self._yielded = [False, False]
        self._branch = -1
        self.results: Any = None

    @property
    def then(self) -> Any:
        """Context manager that emits into the branch taken when the condition holds."""
        return self._scope(0)

    @property
    def else_(self) -> Any:
        """Context manager that emits into the other branch."""
        return self._scope(1)

    @contextmanager
    def _scope(self, branch: int) -> Iterator[None]:
        with self._k.insert_into(self._op.regions[branch].blocks[0]):
            outer, self._branch = self._branch, branch
            yield
            self._branch = outer
            if not self._yielded[branch]:
                if self._types:
                    raise ValueError("each branch of an if_else with results must call yield_")
                self._k.op("scf.yield", [])
                self._yielded[branch] = True

    def yield_(self, values: Any) -> None:
        """End the current branch with the conditional's results (nested as `results`)."""
        leaves = flatten(values)
        if len(leaves) != len(self._types):
            raise ValueError(f"the if_else has {len(self._types)} results, yield_ got {len(leaves)}")
        self._k.op("scf.yield", [self._k.value(leaf, t) for leaf, t in zip(leaves, self._types, strict=True)])
        self._yielded[self._branch] = True


class KernelBuilder(MemoryOps):
    """Emits one kernel; see the module's docstring. Made by `KernelModule.kernel`."""

    def __init__(self, module: KernelModule, name: str, params: Sequence[Param], attributes: dict[str, Any]) -> None:
        self.module, self.name, self.params = module, name, tuple(params)
        context = module.context
        self.loc = ir.Location.name(name, context=context)
        for short in ("i1", "i8", "i16", "i32", "i64", "f16", "bf16", "f32", "f64", "ptr"):
            setattr(self, short, module.type(short))
        # The default type of Python ints in loops: addresses are 64 bits; on a GPU, 32-bit registers are half the cost.
        self.index_type: ValueType = module.type("i32" if module.is_gpu else "i64")
        self.contract = {"fastmath": module.attr("#arith.fastmath<contract>")}
        self._constants: dict[tuple[str, str], Any] = {}
        types = [module.type("ptr" if p.type == "tensormap" else p.type) for p in params]
        signature = ", ".join(str(t.mlir).removeprefix("!llvm.") for t in types)
        self.function = ir.Operation.create(
            "llvm.func",
            regions=1,
            attributes={
                "sym_name": ir.StringAttr.get(name, context),
                "function_type": ir.TypeAttr.get(ir.Type.parse(f"!llvm.func<void ({signature})>", context)),
                "linkage": module.attr("#llvm.linkage<external>"),
                "CConv": module.attr("#llvm.cconv<ccc>"),
                "arg_attrs": module.attr("[" + ", ".join(p._attributes() for p in params) + "]"),
                **attributes,
            },
            loc=self.loc,
            ip=ir.InsertionPoint(module.module.body),
        )
        with self.loc:
            entry = self.function.regions[0].blocks.append(*[t.mlir for t in types])
        self.args = [Val(self, t, v) for t, v in zip(types, entry.arguments, strict=True)]
        end = ir.Operation.create("llvm.return", loc=self.loc, ip=ir.InsertionPoint(entry))
        # Constants go before the first operation of the entry block, hence one that is always there.
        anchor = ir.Operation.create(
            "arith.constant",
            [self.i32.mlir],
            attributes={"value": module.attr("0 : i32")},
            loc=self.loc,
            ip=ir.InsertionPoint(end),
        )
        self._constants["i32", "0"] = anchor.result
        self._constant_ip = ir.InsertionPoint(anchor)
        self.ip = ir.InsertionPoint(end)

    def finish(self) -> None:
        """Verify the kernel; called at the end of `KernelModule.kernel`. Raises MLIRError with the operation at fault."""
        self.function.verify()

    # --- control flow

    def _carry_leaves(self, carry: Any) -> list[Val]:
        return [self.value(leaf) for leaf in flatten(carry)]

    @contextmanager
    def for_(
        self, start: Operand, stop: Operand, step: Operand = 1, carry: Any = None, *, rolled: bool = False
    ) -> Iterator[Loop]:
        """`for iv in range(start, stop, step)` (signed, step positive), with carried values.

        All three bounds have one integer type: that of the first `Val` among them, else the index type. `rolled` keeps LLVM
        from unrolling and peeling the loop: one whose body waits for tensor cores gains nothing by it, and compiles longer.

            with k.for_(0, n, carry=[acc, best]) as loop:
                acc, best = loop.carry
                loop.yield_([acc + 1.0, best])
            acc, best = loop.results
        """
        t = next((x.t for x in (start, stop, step) if isinstance(x, Val)), self.index_type)
        bounds = [self.value(x, t) for x in (start, stop, step)]
        leaves = self._carry_leaves([] if carry is None else carry)
        types = [leaf.t for leaf in leaves]
        attributes = {"loop_annotation": self.attr("#llvm.loop_annotation<unroll = <disable = true>>")} if rolled else None
        created = self.op("scf.for", [*bounds, *leaves], types, attributes, regions=1)
        with self.loc:
            block = created.regions[0].blocks.append(t.mlir, *[x.mlir for x in types])
        tree = [] if carry is None else carry
        loop = Loop(self, tree)
        arguments = list(block.arguments)
        loop.iv = Val(self, t, arguments[0])
        loop.carry = unflatten(tree, [Val(self, x, v) for x, v in zip(types, arguments[1:], strict=True)])
        with self.insert_into(block):
            yield loop
            if not loop._yielded:
                if leaves:
                    raise ValueError("a loop with carried values must end with yield_")
                self.op("scf.yield", [])
        results = list(created.results)
        loop.results = unflatten(tree, [Val(self, x, v) for x, v in zip(types, results, strict=True)])

    @contextmanager
    def while_(self, carry: Any, condition: Any) -> Iterator[Loop]:
        """`while condition(carry)`: `condition` is a Python function from the carried values (nested as given) to an i1."""
        leaves = self._carry_leaves(carry)
        types = [leaf.t for leaf in leaves]
        created = self.op("scf.while", leaves, types, regions=2)
        with self.loc:
            before = created.regions[0].blocks.append(*[t.mlir for t in types])
            after = created.regions[1].blocks.append(*[t.mlir for t in types])
        with self.insert_into(before):
            seen = [Val(self, t, v) for t, v in zip(types, before.arguments, strict=True)]
            go = self.value(condition(unflatten(carry, seen)), self.i1)
            self.op("scf.condition", [go, *seen])
        loop = Loop(self, carry)
        loop.carry = unflatten(carry, [Val(self, t, v) for t, v in zip(types, after.arguments, strict=True)])
        with self.insert_into(after):
            yield loop
            if not loop._yielded:
                raise ValueError("the body of while_ must end with yield_")
        results = list(created.results)
        loop.results = unflatten(carry, [Val(self, t, v) for t, v in zip(types, results, strict=True)])

    @contextmanager
    def if_(self, condition: Val | bool) -> Iterator[None]:
        """Emit the body where `condition` (i1) holds. Python's True emits the body unconditionally."""
        if condition is True or (isinstance(condition, Val) and condition.const):
            yield
            return
        created = self.op("scf.if", [self.value(condition, self.i1)], regions=2)
        with self.insert_into(created.regions[0].blocks.append()):
            yield
            self.op("scf.yield", [])

    @contextmanager
    def if_else(self, condition: Val, results: Any = ()) -> Iterator[If]:
        """A two-armed conditional; `results` nests type names, types, or values whose types are meant.

        with k.if_else(i < n, results=["f32"]) as branch:
            with branch.then:
                branch.yield_([k.load(p, "f32")])
            with branch.else_:
                branch.yield_([0.0])
        (x,) = branch.results
        """
        types = [leaf.t if isinstance(leaf, Val) else self.type(leaf) for leaf in flatten(results)]
        created = self.op("scf.if", [self.value(condition, self.i1)], types, regions=2)
        created.regions[0].blocks.append()
        created.regions[1].blocks.append()
        branch = If(self, created, types, results)
        yield branch
        for side in (0, 1):
            if not branch._yielded[side]:
                with branch._scope(side):
                    pass
        values = [Val(self, t, v) for t, v in zip(types, created.results, strict=True)]
        branch.results = unflatten(results, values)

    def for_unrolled(self, start: Operand, stop: Operand, factor: int, body: Any, carry: Any = ()) -> Any:
        """`carry = body(i, carry)` for i in range(start, stop), `factor` copies of the body an iteration, then a
        remainder loop.

        Returns the carried values after the loop. `body` is a Python function called at build time.
        """
        t = next((x.t for x in (start, stop) if isinstance(x, Val)), self.index_type)
        low, high = self.value(start, t), self.value(stop, t)
        if factor == 1:
            return self._rolled(low, high, body, carry)
        main = low + (high - low) // factor * factor
        with self.for_(low, main, factor, carry=carry) as loop:
            state = loop.carry
            for i in range(factor):
                state = body(loop.iv + i, state)
            loop.yield_(state if flatten(carry) else [])
        if low.const is not None and high.const is not None and (high.const - low.const) % factor == 0:
            return loop.results
        return self._rolled(main, high, body, loop.results)

    def _rolled(self, low: Val, high: Val, body: Any, carry: Any) -> Any:
        with self.for_(low, high, carry=carry) as loop:
            state = body(loop.iv, loop.carry)
            loop.yield_(state if flatten(carry) else [])
        return loop.results
