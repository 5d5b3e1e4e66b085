"""Weights brought to the L2 cache while the launches before a kernel still run.

What stands before `DispatchKernel.begin` costs nothing where a kernel is launched early, and a prefetch to L2, where all of the
chip meets, is right whatever other launches write: later loads find it there, or the newer data. Only the second operand of a
product is fetched, and only where its size is constant: that is a weight, and comes from memory at each run. Where many rows
are multiplied by it, reading it is not what takes the time, and fetching delays the first tile (by a microsecond on an H200).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ingot import dims
from ingot.compiler.codegen.values import Val
from ingot.dispatch import TensorArg
from ingot.kernel_plan import BufferArg, TensorMapArg

if TYPE_CHECKING:
    from ingot.compiler.codegen.cuda_kernel import DispatchKernel

_ROOTS = frozenset({"matmul", "conv"})
_ROWS = 128  # of the result, at most
_MOST = 16 << 20  # bytes: a kernel that reads more takes long enough by itself
_PIECE = 4096  # bytes that a thread fetches at once
_THREADS = 32  # of a block that fetch


def prefetch_weights(dk: DispatchKernel) -> None:
    """Fetch the weights of a product: the launch's first threads a piece, or a box of the tensor map, each."""
    if dk.d.root not in _ROOTS:
        return
    rows = dims.product(dk.d.results[0].shape[:-1])
    if not isinstance(rows, int) or rows > _ROWS:
        return
    weight = dk.d.operands[1]
    nbytes = _dense_bytes(weight)
    if weight.rank < 2 or (dk.d.root == "matmul" and weight.rank != 2) or not 0 < nbytes <= _MOST:
        return
    for buffer, arg in zip(dk.launch.buffers, dk.k.args, strict=False):
        if (buffer.kind, buffer.index) == ("operand", 1):
            if isinstance(buffer, BufferArg) and weight.align % 16 == 0 and nbytes % 16 == 0:
                _fetch_pieces(dk, arg, nbytes)
            elif isinstance(buffer, TensorMapArg) and not buffer.im2col:
                _fetch_boxes(dk, arg, buffer)
            return


def _dense_bytes(t: TensorArg) -> int:
    """Bytes of a tensor whose sizes are constant and whose elements fill its memory; else 0."""
    axes: list[tuple[int, int]] = []
    for size, stride in zip(t.shape, t.strides, strict=True):
        if not isinstance(size, int) or not isinstance(stride, int):
            return 0
        if size != 1:
            axes.append((stride, size))
    elements = 1
    for stride, size in sorted(axes):
        if stride != elements:
            return 0
        elements *= size
    return elements * t.type.bits // 8


def _first_and_step(dk: DispatchKernel) -> tuple[Val, Val]:
    """The number of this thread among those of all blocks that fetch, and how many these are."""
    k = dk.k
    block, blocks = k.block_id(0), k.grid_dim(0)
    for axis in (1, 2):
        if dk.launch.grid[axis] != 1:
            block, blocks = block + blocks * k.block_id(axis), blocks * k.grid_dim(axis)
    return block * _THREADS + k.thread_id(), blocks * _THREADS


def _fetch_pieces(dk: DispatchKernel, weight: Val, nbytes: int) -> None:
    k = dk.k
    first, step = _first_and_step(dk)
    with k.if_(k.thread_id() < _THREADS), k.for_(first, -(-nbytes // _PIECE), step) as loop:
        at = loop.iv * _PIECE
        k.bulk_prefetch(weight.at(at, "i8"), k.min(nbytes - at, _PIECE))


def _fetch_boxes(dk: DispatchKernel, tensor_map: Val, buffer: TensorMapArg) -> None:
    k = dk.k
    counts = []
    for size, box in zip(buffer.shape, buffer.box, strict=True):
        if not isinstance(size, int):
            return
        counts.append(-(-size // box))
    first, step = _first_and_step(dk)
    with k.if_(k.thread_id() < _THREADS), k.for_(first, math.prod(counts), step) as loop:
        rest, position = loop.iv, []
        for count, box in zip(counts, buffer.box, strict=True):
            position.append(rest % count * box if count > 1 else k.const(0, "i32"))
            rest = rest // count
        k.tma_prefetch(tensor_map, position)
