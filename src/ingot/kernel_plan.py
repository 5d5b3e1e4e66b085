"""Kernel plans: what code generation makes of one dispatch for one target.

A plan is one to n launches and a workspace whose size is an expression of the dispatch's symbols (split-K, split-KV and
scans need several launches). It is plain data; the code itself is bytes beside it.

Calling conventions
    CPU: `void kernel(ptr buffers, ptr sizes, i64 begin, i64 end)`. `buffers` is an array of addresses, one for each entry of
    `KernelLaunch.buffers`; `sizes` an array of i64, one for each symbol of the dispatch; the kernel does the work items
    [begin, end) of [0, grid[0]), and other threads do the others at the same time.

    CUDA: parameters are, in order, one 64-bit global address for each `BufferArg` and one 128-byte `CUtensorMap` by value
    (`grid_constant`) for each `TensorMapArg` of `KernelLaunch.buffers`, and, where the dispatch has symbols, one global address
    of its size table (i64 each). Kernels read sizes from that table, so that one captured launch serves sizes that change
    from call to call; `grid` is evaluated by the host, and blocks beyond the work exit. What `Dispatch.offsets` names begins so
    many bytes behind its address.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from ingot import dims
from ingot.dims import Dim


@dataclass(frozen=True)
class BufferArg:
    """The address of an operand, a result or the workspace.

    `index` numbers the dispatch's operands or results; for the workspace `offset` is the byte offset into it.
    """

    kind: Literal["operand", "result", "workspace"]
    index: int = 0
    offset: Dim = 0


@dataclass(frozen=True)
class TensorMapArg:
    """A tensor map (PTX ISA, "Tensor-map") over an operand or result, encoded by the runtime when addresses are known.

    Attributes:
        kind, index: as in `BufferArg`.
        dtype: storage type of `ingot.dtypes`.
        shape: sizes, innermost first.
        strides: byte strides of axes 1.., innermost first (the innermost axis is contiguous).
        box: elements of a tile, innermost first.
        swizzle: bytes of the swizzle pattern: 0, 32, 64 or 128.
        im2col: for convolutions, (lower corner, upper corner, channels per pixel, pixels per column), else (); corners are
            innermost first.
        offset: as in `BufferArg`.
        steps: for convolutions, their strides, innermost first; () for 1.
    """

    kind: Literal["operand", "result", "workspace"]
    index: int
    dtype: str
    shape: tuple[Dim, ...]
    strides: tuple[Dim, ...]
    box: tuple[int, ...]
    swizzle: int = 128
    im2col: tuple = ()
    offset: Dim = 0
    steps: tuple[int, ...] = ()


@dataclass(frozen=True)
class KernelLaunch:
    """One launch: `symbol` names the function in the plan's code.

    Attributes:
        grid: CPU: (work items, 1, 1); CUDA: blocks along x, y, z, as expressions of the dispatch's symbols.
        block: CUDA: threads along x, y, z.
        cluster: CUDA: blocks of a cluster along x, y, z.
        shared_bytes: CUDA: dynamic shared memory.
        buffers: addresses and tensor maps, in the order of the kernel's parameters.
        overlaps: CUDA: the kernel waits by itself for the launches before it (`griddepcontrol.wait`) before it touches what
            they may touch, so that it may be launched before they have ended.
        flops, bytes: work and traffic, for `--profile` and the CPU's chunking; 0 where not counted.
    """

    symbol: str
    grid: tuple[Dim, Dim, Dim]
    buffers: tuple[BufferArg | TensorMapArg, ...]
    block: tuple[int, int, int] = (1, 1, 1)
    cluster: tuple[int, int, int] = (1, 1, 1)
    shared_bytes: int = 0
    overlaps: bool = False
    flops: Dim = 0
    bytes: Dim = 0


@dataclass(frozen=True)
class KernelPlan:
    """The launches of one dispatch, in order, and the bytes of workspace they share."""

    launches: tuple[KernelLaunch, ...]
    workspace: Dim = 0


def to_json(plan: KernelPlan) -> dict[str, Any]:
    """Plain JSON data; `from_json` inverts it."""
    return _plain(asdict(plan))


def _plain(x: Any) -> Any:
    if isinstance(x, dict):
        return {k: _plain(v) for k, v in x.items()}
    if isinstance(x, list | tuple):
        return [_plain(v) for v in x]
    return str(x) if isinstance(x, dims.Expr) else x


def from_json(data: dict[str, Any]) -> KernelPlan:
    """The plan that `to_json` wrote."""

    def ds(values: list) -> tuple:
        return tuple(map(dims.as_dim, values))

    def buffer(b: dict) -> BufferArg | TensorMapArg:
        if "box" not in b:
            return BufferArg(b["kind"], b["index"], dims.as_dim(b["offset"]))
        im2col = tuple(tuple(x) if isinstance(x, list) else x for x in b["im2col"])
        return TensorMapArg(b["kind"], b["index"], b["dtype"], ds(b["shape"]), ds(b["strides"]), tuple(b["box"]),
                            b["swizzle"], im2col, dims.as_dim(b["offset"]), tuple(b["steps"]))  # fmt: skip

    def launch(x: dict) -> KernelLaunch:
        work = dims.as_dim(x["flops"]), dims.as_dim(x["bytes"])
        return KernelLaunch(x["symbol"], ds(x["grid"]), tuple(map(buffer, x["buffers"])), tuple(x["block"]),
                            tuple(x["cluster"]), x["shared_bytes"], x["overlaps"], *work)  # fmt: skip

    return KernelPlan(tuple(map(launch, data["launches"])), dims.as_dim(data["workspace"]))
