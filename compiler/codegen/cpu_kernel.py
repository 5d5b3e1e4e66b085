"""`CpuKernel`: what every CPU kernel starts from, the addresses, sizes and work items of one dispatch.

A kernel follows the calling convention of `ingot.kernel_plan`: it reads the addresses of its buffers and the values of its
symbols from two arrays, then does the work items [begin, end). Families write the body of one item:

    with cpu_kernel(dispatch, target, grid) as ck:
        with ck.items() as item:
            ...
    return ck.emitted(flops)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ingot import dims
from ingot.compiler.codegen.family import Emitted
from ingot.compiler.codegen.kernel_builder import KernelBuilder, KernelModule, Param
from ingot.compiler.codegen.values import Operand, Val
from ingot.dialects.mlir import ir
from ingot.dims import Dim
from ingot.dispatch import Dispatch, TensorArg
from ingot.kernel_plan import BufferArg, KernelLaunch, KernelPlan
from ingot.target import Target

_PARAMS = (Param("buffers", "ptr"), Param("sizes", "ptr"), Param("begin", "i64"), Param("end", "i64"))


# Roots by how many of their first operands, and whether their results, must have elements of whole bytes. Whatever regions load
# may be smaller.
_WHOLE_BYTES = {
    "matmul": (0, True), "conv": (2, True), "attention": (3, True), "pool": (1, True), "reduce": (0, True),
    "normalize": (0, True), "scatter": (0, True), "scan": (0, True), "topk": (0, True),
}  # fmt: skip


class CpuKernel:
    """One kernel being written.

    Attributes:
        k: the builder.
        dispatch, target: what it is for.
        grid: number of work items.
    """

    def __init__(
        self, module: KernelModule, k: KernelBuilder, dispatch: Dispatch, target: Target, grid: Dim,
        before: tuple[KernelLaunch, ...],
    ) -> None:  # fmt: skip
        self.k, self.dispatch, self.target, self.grid = k, dispatch, target, grid
        self._module, self._before = module, before
        self._buffers, self._sizes, self._begin, self._end = k.args
        self._pointers: dict[int, Val] = {}
        self._dims: dict[Dim, Val] = {}

    def lanes(self, dtype: str = "f32") -> int:
        """Elements of `dtype` in a vector register."""
        return self.target.vector_bits // self.k.type("i8" if dtype == "i1" else dtype).bits

    @property
    def has_masks(self) -> bool:
        """True where masked loads and stores of every type are one instruction (AVX-512)."""
        return self.target.vector_bits >= 512

    @property
    def registers(self) -> int:
        """Vector registers."""
        return 32 if self.target.vector_bits >= 512 else 16

    # --- the dispatch's data

    def _pointer(self, number: int) -> Val:
        found = self._pointers.get(number)
        if found is None:
            with self.k.at_entry():
                found = self._pointers[number] = self.k.load(self._buffers.at(number, "ptr"), "ptr", align=8)
        return found

    def operand(self, number: int) -> Val:
        """Address of element 0 of an operand."""
        return self._pointer(number)

    def result(self, number: int) -> Val:
        """Address of element 0 of a result."""
        return self._pointer(len(self.dispatch.operands) + number)

    def dim(self, d: Dim) -> Val:
        """The i64 value of a dimension, computed once at the kernel's start."""
        if isinstance(d, int):
            return self.k.const(d, "i64")
        found = self._dims.get(d)
        if found is None:
            with self.k.at_entry():
                found = self._dims[d] = self._evaluate(d)
                if found.const is None:
                    found.v  # noqa: B018  emitted here, where every block may use it
        return found

    def _evaluate(self, d: Dim) -> Val:
        if isinstance(d, int):
            return self.k.const(d, "i64")
        total = self.k.const(0, "i64")
        for monomial, coefficient in d.terms:
            term = self.k.const(coefficient, "i64")
            for atom in monomial:
                term = term * self._atom(atom)
            total = total + term
        return total

    def _atom(self, atom: dims.Atom) -> Val:
        k = self.k
        if atom.function is None:
            number = self.dispatch.symbols.index(atom.text)
            return k.load(self._sizes.at(number, "i64"), "i64")
        args = [self.dim(x) for x in atom.args]
        a, b = args[0], args[1]
        nonnegative = all(dims.is_nonnegative(x) for x in atom.args)
        match atom.function:
            case "floordiv":
                return a // b if nonnegative else self._floordiv(a, b)
            case "ceildiv":
                return (a + (b - 1)) // b if nonnegative else 0 - self._floordiv(0 - a, b)
            case "mod":
                return a % b if nonnegative else a - self._floordiv(a, b) * b
            case "min":
                return k.min(a, b)
            case "max":
                return k.max(a, b)
            case "bcast":
                return k.select(a.eq(1), b, a)
            case "select":
                return k.select(a.eq(b), args[2], args[3])
        raise ValueError(f"no code for the shape function {atom.function!r}")

    def _floordiv(self, a: Val, b: Val) -> Val:
        quotient, rest = a.sdiv(b), a.srem(b)
        return self.k.select(rest.ne(0) & (rest ^ b).compare("lt", 0), quotient - 1, quotient)

    def offset(self, index: Sequence[Operand], strides: Sequence[Dim]) -> Val:
        """The element offset of a position: the sum of index times stride."""
        total = self.k.const(0, "i64")
        for i, stride in zip(index, strides, strict=True):
            if stride != 0:
                total = total + self.k.value(i, "i64") * self.dim(stride)
        return total

    # --- work items

    @contextmanager
    def items(self) -> Iterator[Val]:
        """Emit the body of one work item; gives its number."""
        with self.k.for_(self._begin, self._end) as loop:
            yield loop.iv

    def split(self, number: Val, sizes: Sequence[Dim]) -> list[Val]:
        """The position, row-major, of element `number` of a grid of `sizes`."""
        out: list[Val] = []
        for position, size in reversed(list(enumerate(sizes))):
            if size == 1:
                out.append(self.k.const(0, "i64"))
            elif all(s == 1 for s in sizes[:position]):
                out.append(number)
                number = self.k.const(0, "i64")
            else:
                out.append(number % self.dim(size))
                number = number // self.dim(size)
        return out[::-1]

    def workspace(self) -> Val:
        """Address of the workspace."""
        return self._pointer(len(self.dispatch.operands) + len(self.dispatch.results))

    def emitted(self, flops: Dim = 0, workspace: Dim = 0, traffic: Dim | None = None) -> Emitted:
        """The finished kernel as a plan of one launch, after those of the plan that it follows.

        Args:
            flops: its operations.
            workspace: bytes of the plan's.
            traffic: bytes it moves, where they are not those of all operands and results.
        """
        buffers = [BufferArg("operand", i) for i in range(len(self.dispatch.operands))]
        buffers += [BufferArg("result", i) for i in range(len(self.dispatch.results))]
        buffers += [BufferArg("workspace")] if workspace != 0 else []
        if traffic is None:
            traffic = sum((touched_bytes(t) for t in (*self.dispatch.operands, *self.dispatch.results)), start=0)
        launch = KernelLaunch(self.k.name, (self.grid, 1, 1), tuple(buffers), flops=flops, bytes=traffic)
        return Emitted(KernelPlan((*self._before, launch), workspace), self._module.module)


def touched_bytes(t: TensorArg) -> Dim:
    """Bytes of the distinct elements of a view (axes of stride 0 repeat them)."""
    elements = dims.product(d for d, s in zip(t.shape, t.strides, strict=True) if s != 0)
    return elements * t.type.bytes if t.type.bits >= 8 else dims.ceildiv(elements * t.type.bits, 8)


@contextmanager
def cpu_kernel(dispatch: Dispatch, target: Target, grid: Dim, after: Emitted | None = None) -> Iterator[CpuKernel]:
    """Begin the kernel of a dispatch, in the current MLIR context: in a module of its own, or, with `after`, in the module of
    kernels that run before it."""
    own, results = _WHOLE_BYTES.get(dispatch.root, (0, False))
    for t in (*dispatch.operands[:own], *(dispatch.results if results else ())):
        if t.type.bits < 8:
            raise NotImplementedError(f"{dispatch.root} on cpu has no code for tensors of {t.dtype}: convert them first")
    module = KernelModule("cpu", context=ir.Context.current, module=None if after is None else after.module)
    before = () if after is None else after.plan.launches
    name = f"{dispatch.root}_{dispatch.key[:16]}" + (f"_{len(before)}" if before else "")
    with module.kernel(name, _PARAMS) as k:
        yield CpuKernel(module, k, dispatch, target, grid, before)
