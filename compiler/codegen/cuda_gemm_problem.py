"""A matmul dispatch as a batch of plain matrix products: which axes are rows, which are batch, and how each tensor strides.

Leading axes that the right operand does not have fold into the rows, and batch axes that all tensors walk as one merge, so that
most matmuls reach the kernels as one product or one batch axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ingot import dims
from ingot.compiler.codegen.cuda_domain import expand, groups_of, merge, uses_index
from ingot.compiler.codegen.cuda_kernel import DispatchKernel, collapse, divides
from ingot.compiler.codegen.mma_table import PROMOTION_K, find_row
from ingot.compiler.codegen.values import Val
from ingot.dims import Dim
from ingot.dispatch import Dispatch, TensorArg
from ingot.kernel_plan import TensorMapArg
from ingot.matmul_scales import matmul_scales
from ingot.target import Target


@dataclass(frozen=True)
class Matrix:
    """A tensor as a batch of matrices.

    Attributes:
        kind, index: which buffer of the dispatch.
        dtype: storage type.
        rows, cols: sizes of one matrix; of operands, `cols` is K.
        row_stride, col_stride: in elements.
        batch_strides: of the problem's batch axes, 0 where the tensor repeats.
        align: bytes that the address of element 0 is a multiple of.
    """

    kind: Literal["operand", "result"]
    index: int
    dtype: str
    rows: Dim
    cols: Dim
    row_stride: Dim
    col_stride: Dim
    batch_strides: tuple[Dim, ...]
    align: int
    bits: int

    @property
    def major(self) -> str:
        """`col` where columns are neighbours in memory (K-major operands), `row` where rows are, `none` otherwise."""
        if self.col_stride == 1:
            return "col"
        return "row" if self.row_stride == 1 else "none"

    def aligned(self, nbytes: int, dispatch: Dispatch) -> bool:
        """True where every line along the contiguous axis is known to start at a multiple of `nbytes`."""
        if self.major == "none" or self.align % nbytes:
            return False
        across = self.row_stride if self.major == "col" else self.col_stride
        lines = self.rows if self.major == "col" else self.cols
        steps = [s for s in self.batch_strides if s != 0] + ([across] if lines != 1 else [])
        return all(divides(nbytes * 8, s * self.bits, dispatch) for s in steps)

    def tma_map(
        self, dispatch: Dispatch, batch: Sequence[Dim], box: tuple[int, int], swizzle: int = 128
    ) -> TensorMapArg | None:
        """The tensor map with boxes of `box` (along the contiguous axis, across it), or None where TMA cannot read the tensor.

        Axes: contiguous, across, then the batch axes that the tensor has. TMA wants 16-byte strides and addresses, at most 5
        axes.
        """
        if not self.aligned(16, dispatch):
            return None
        inner, outer, step = (
            (self.cols, self.rows, self.row_stride) if self.major == "col" else (self.rows, self.cols, self.col_stride)
        )
        if outer == 1 and (step == 0 or not divides(128, step * self.bits, dispatch)):
            step = dims.ceildiv(inner * self.bits, 128) * (128 // self.bits)
        own = [(d, s) for d, s in zip(batch, self.batch_strides, strict=True) if s != 0]
        if step == 0 or len(own) > 3:
            return None
        strides = tuple(dims.floordiv(s * self.bits, 8) for s in (step, *(s for _, s in own)))
        shape = (inner, outer, *(d for d, _ in own))
        return TensorMapArg(
            self.kind, self.index, self.dtype, shape, strides, (*box, *(1 for _ in own)), swizzle
        )

    def tma_batch(self, batch: Sequence[Val]) -> list[Val]:
        """Coordinates of the batch axes that the tensor's map has."""
        return [b for b, s in zip(batch, self.batch_strides, strict=True) if s != 0]


@dataclass(frozen=True)
class Scales:
    """Scales of a quantized operand: an element stands for (element - zero) * scale (ingot.matmul_scales).

    Attributes:
        scale: rows are the operand's, columns blocks of k.
        zero: zero points, laid out alike, or None.
        block: how many k share a scale; 0: all.
    """

    scale: Matrix
    zero: Matrix | None
    block: int


@dataclass(frozen=True)
class GemmProblem:
    """A batch of products acc[m, n] = sum over k of a[m, k] * b[n, k], and what becomes of acc.

    Attributes:
        dispatch: the matmul, over merged axes where possible.
        batch: sizes of the batch axes.
        m, n, k: sizes.
        a: rows are m, columns k.
        b: rows are n, columns k.
        results: rows are m, columns n; None where the rows have no single stride.
        row_axes: sizes of the domain's axes that make up the rows.
        acc: accumulator type.
        tf32: f32 operands may be rounded to tf32.
        unsigned: signedness of 8-bit integers of a and b: True means uint8.
        a_elements: elements of memory that a is gathered from; None where they are its own, m * k.
        a_scales, b_scales: scales of quantized operands.
        fast_accumulation: sums may have as few bits as the instruction keeps.
    """

    dispatch: Dispatch
    batch: tuple[Dim, ...]
    m: Dim
    n: Dim
    k: Dim
    a: Matrix
    b: Matrix
    results: tuple[Matrix | None, ...]
    row_axes: tuple[Dim, ...]
    acc: str
    tf32: bool
    unsigned: tuple[bool, bool]
    a_elements: Dim | None = None
    a_scales: Scales | None = None
    b_scales: Scales | None = None
    fast_accumulation: bool = False

    @property
    def quantized(self) -> bool:
        """True where operands must be decoded before they are multiplied: they have scales, less than 8 bits, or two types."""
        return bool(self.a_scales or self.b_scales) or self.a.dtype != self.b.dtype or self.a.bits < 8

    @property
    def packed(self) -> bool:
        """True where b lies in the order of ingot.weight_packing."""
        return bool(self.dispatch.attr("b_packed", False))

    @property
    def domain(self) -> tuple[Dim, ...]:
        """Sizes of the iteration domain of the epilogue."""
        return (*self.batch, *self.row_axes, self.n)

    def position(self, dk: DispatchKernel, batch: Sequence[Val], row: Val) -> list[Val]:
        """The domain's position, but for the column, of a row of a batch."""
        rows = [row] if len(self.row_axes) == 1 else dk.split(row, self.row_axes)
        return [*batch, *rows]

    @property
    def flops(self) -> Dim:
        """Multiplications and additions."""
        return 2 * self.m * self.n * self.k * dims.product(self.batch)


def promotes(p: GemmProblem, target: Target) -> bool:
    """True where the target's instruction sums in less than f32, and the product asks for f32: its kernels then add the
    accumulators to others of f32 every `PROMOTION_K` k."""
    if p.fast_accumulation or p.a.dtype != p.b.dtype or (isinstance(p.k, int) and p.k <= PROMOTION_K):
        return False
    row = find_row(target, p.a.dtype, engine="wgmma" if target.wgmma else "mma")
    return row is not None and row.sum_bits > 0


def _matrix(
    kind: Literal["operand", "result"], index: int, t: TensorArg, batch: int, rows: Sequence[int], col: int
) -> Matrix | None:
    """Tensor `t`, whose first `batch` axes are batch axes, `rows` rows and `col` columns; None where rows have no one
    stride."""
    stride = collapse([t.shape[r] for r in rows], [t.strides[r] for r in rows])
    if stride is None:
        return None
    strides = tuple(0 if d == 1 else s for d, s in zip(t.shape[:batch], t.strides[:batch], strict=True))
    size = dims.product(t.shape[r] for r in rows)
    return Matrix(kind, index, t.dtype, size, t.shape[col], stride, t.strides[col], strides, t.align, t.type.bits)


def gemm_problem(dispatch: Dispatch) -> GemmProblem:
    """The products that a `matmul` dispatch asks for.

    Raises NotImplementedError where an operand's leading axis may be 1 or the result's size, at run time.
    """
    a, b, result = dispatch.operands[0], dispatch.operands[1], dispatch.results[0]
    if a.rank < 2 or b.rank < 2:
        raise NotImplementedError(f"matmul of operands of rank {a.rank} and {b.rank}: reshape vectors to matrices")
    domain = result.shape
    rank = len(domain)
    lead = rank - 2
    try:
        # Rows and columns are the result's, whose sizes may have other names where only a guard knows that they are equal.
        wide_a = replace(_lead(a, domain), shape=(*domain[:-1], a.shape[-1]))
        wide_b = replace(_lead(b, domain), shape=(*domain[:-2], b.shape[-2], domain[-1]))
        wide = {i: expand(dispatch.operands[i], domain) for i in _loaded(dispatch)}
        scales = matmul_scales(dict(dispatch.attrs))
        of_a = [] if scales.a_scale is None else [scales.a_scale]
        of_b = [i for i in (scales.b_scale, scales.b_zero) if i is not None]
        beside = {i: _lead(dispatch.operands[i], domain) for i in (*of_a, *of_b)}
    except ValueError as error:
        raise NotImplementedError(f"matmul: {error}") from None

    # Step 1. Rows take all leading axes if b repeats along them and a walks them with its rows as one.
    once, rowwise = (wide_b, *(beside[i] for i in of_b)), (wide_a, *(beside[i] for i in of_a))
    alone = all(d == 1 or s == 0 for t in once for d, s in zip(domain[:lead], t.strides[:lead], strict=True))
    fold = alone and all(collapse(t.shape[:-1], t.strides[:-1]) is not None for t in rowwise)
    row_axes = list(range(lead + 1)) if fold else [lead]
    fixed = set().union(*(uses_index(r) for r in dispatch.regions)) if dispatch.regions else set()
    batch_axes = [] if fold else [i for i in range(lead) if domain[i] != 1 or i in fixed]

    # Step 2. Merge axes of the domain that every tensor of it walks as one, rows and batch apart.
    walked = [*wide.values(), *dispatch.results]
    inputs = [wide_a, _without(wide_b, lead), *(_without(t, lead) for t in beside.values())] if not fold else []
    batch_groups = _groups(batch_axes, domain, [*walked, *inputs], fixed)
    row_groups = _groups(row_axes, domain, walked, fixed)
    groups = [*batch_groups, *row_groups, [rank - 1]]
    number = {axis: g for g, group in enumerate(groups) for axis in group}

    regions = tuple(
        replace(r, insts=tuple(
            replace(i, attrs=(("axis", number[i.attr("axis")]),)) if i.op == "index" else i for i in r.insts
        ))
        for r in dispatch.regions
    )  # fmt: skip
    at = {i.attr("operand") for r in dispatch.regions for i in r.insts if i.op == "load_at"}
    folded = replace(
        dispatch,
        operands=tuple(merge(wide[i], groups) if i in wide and i not in at else t for i, t in enumerate(dispatch.operands)),
        results=tuple(merge(t, groups) for t in dispatch.results),
        regions=regions,
    )
    count = len(batch_groups)
    batch = tuple(dims.product(domain[i] for i in group) for group in batch_groups)
    rows_a = row_axes if fold else [lead]
    strides_a = tuple(wide_a.strides[g[-1]] for g in batch_groups)
    strides_b = tuple(wide_b.strides[g[-1]] for g in batch_groups)
    row_stride = collapse([wide_a.shape[r] for r in rows_a], [wide_a.strides[r] for r in rows_a])
    assert row_stride is not None
    m = dims.product(domain[r] for r in row_axes)
    k, n = a.shape[-1], domain[-1]
    matrix_a = Matrix("operand", 0, a.dtype, m, k, row_stride, a.strides[-1], strides_a, a.align, a.type.bits)
    matrix_b = Matrix("operand", 1, b.dtype, n, k, b.strides[-1], b.strides[-2], strides_b, b.align, b.type.bits)

    def blocks(i: int, size: Dim, row: int) -> Matrix:
        """The scales or zero points in operand `i`, whose axis `row` (-2 or -1) is the operand's rows."""
        t = beside[i]
        stride = t.strides[-1] if row == -1 else collapse([t.shape[r] for r in rows_a], [t.strides[r] for r in rows_a])
        assert stride is not None
        steps = tuple(t.strides[g[-1]] for g in batch_groups)
        other = -1 if row == -2 else -2
        return Matrix("operand", i, t.dtype, size, t.shape[other], stride, t.strides[other], steps, t.align, t.type.bits)

    a_scales = Scales(blocks(scales.a_scale, m, -2), None, scales.a_block) if scales.a_scale is not None else None
    zero = blocks(scales.b_zero, n, -1) if scales.b_zero is not None else None
    b_scales = Scales(blocks(scales.b_scale, n, -1), zero, scales.b_block) if scales.b_scale is not None else None
    rows = range(count, len(groups) - 1)
    results = tuple(_matrix("result", i, t, count, list(rows), len(groups) - 1) for i, t in enumerate(folded.results))
    return GemmProblem(
        folded, batch, m, n, k, matrix_a, matrix_b, results,
        tuple(dims.product(domain[i] for i in group) for group in row_groups),
        str(dispatch.attr("acc", "f32")), bool(dispatch.attr("tf32", False)),
        (bool(dispatch.attr("a_unsigned", False)), bool(dispatch.attr("b_unsigned", False))),
        a_scales=a_scales, b_scales=b_scales, fast_accumulation=bool(dispatch.attr("fast_accumulation", False)),
    )  # fmt: skip


def _loaded(dispatch: Dispatch) -> list[int]:
    return sorted({i.attr("operand") for r in dispatch.regions for i in r.insts if i.op == "load"})


def _lead(t: TensorArg, domain: Sequence[Dim]) -> TensorArg:
    """`t` over the domain's leading axes and its own last two."""
    return expand(t, (*domain[:-2], *t.shape[-2:]))


def _without(t: TensorArg, lead: int) -> TensorArg:
    """`t` with only its leading axes meaning anything: the others stride 0."""
    return replace(t, strides=(*t.strides[:lead], *(0 for _ in t.strides[lead:])))


def _groups(axes: Sequence[int], domain: Sequence[Dim], tensors: Sequence[TensorArg], fixed: set[int]) -> list[list[int]]:
    """`groups_of` over some axes; one group at least where there are axes."""
    if not axes:
        return []
    local = [replace(t, shape=tuple(t.shape[i] for i in axes), strides=tuple(t.strides[i] for i in axes)) for t in tensors]
    groups = groups_of([domain[i] for i in axes], local, [axes.index(i) for i in fixed if i in axes])
    return [[axes[i] for i in group] for group in groups]
