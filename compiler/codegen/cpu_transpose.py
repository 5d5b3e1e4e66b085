"""Transposes in vector registers, and of blocks of memory."""

from __future__ import annotations

from collections.abc import Sequence

from ingot.compiler.codegen.cpu_kernel import CpuKernel
from ingot.compiler.codegen.cpu_space import tail_mask
from ingot.compiler.codegen.values import Val


def transpose_registers(ck: CpuKernel, rows: Sequence[Val]) -> list[Val]:
    """The transpose of a square tile held as one vector per row, by log2(n) stages of two-input shuffles.

    Stage s exchanges bit s of the row number with bit s of the lane number (Eklundh, 1972).
    """
    k = ck.k
    tile = list(rows)
    n = len(tile)
    distance = 1
    while distance < n:
        for i in range(n):
            if i & distance:
                continue
            a, b = tile[i], tile[i + distance]
            low = [lane if not lane & distance else n + lane - distance for lane in range(n)]
            high = [lane + distance if not lane & distance else n + lane for lane in range(n)]
            tile[i], tile[i + distance] = k.shuffle(a, b, low), k.shuffle(a, b, high)
        distance *= 2
    return tile


def transpose_block(
    ck: CpuKernel,
    storage: str,
    source: Val,
    source_row: Val,
    source_lane: Val,
    target: Val,
    target_row: Val,
    target_lane: Val,
    rows: tuple[Val, Val],
    lanes: tuple[Val, Val],
) -> None:
    """Copy rows x lanes of `source` to `target`, where `source` is contiguous along rows and `target` along lanes.

    `source_row`, `source_lane`, `target_row` and `target_lane` are element strides; the ranges are [start, stop). Full
    square tiles go through registers; what is left at the edges is copied row by row.
    """
    k = ck.k
    assert source_row.const == 1, source_row
    assert target_lane.const == 1, target_lane
    n = min(16, ck.target.vector_bits // k.type(storage).bits)
    vector = k.vector_of(storage, n)
    row_main = rows[0] + (rows[1] - rows[0]) // n * n
    lane_main = lanes[0] + (lanes[1] - lanes[0]) // n * n

    def at(base: Val, row: Val, row_step: Val, lane: Val, lane_step: Val) -> Val:
        return base.at(lane * lane_step + row * row_step, storage)

    with k.for_(lanes[0], lane_main, n) as over_lanes, k.for_(rows[0], row_main, n) as over_rows:
        j, i = over_lanes.iv, over_rows.iv
        tile = [k.load(at(source, i, source_row, j + lane, source_lane), vector) for lane in range(n)]
        for row, value in enumerate(transpose_registers(ck, tile)):
            k.store(value, at(target, i + row, target_row, j, target_lane))

    def edge(row_range: tuple[Val, Val], lane_range: tuple[Val, Val]) -> None:
        with k.for_(*row_range) as over_rows, k.for_(*lane_range) as over_lanes:
            i, j = over_rows.iv, over_lanes.iv
            k.store(k.load(at(source, i, source_row, j, source_lane), storage), at(target, i, target_row, j, target_lane))

    edge((row_main, rows[1]), (lanes[0], lane_main))
    edge(rows, (lane_main, lanes[1]))


def load_tile(
    ck: CpuKernel, base: Val, storage: str, step: Val, rows: Val, columns: Val, n: int
) -> list[Val]:
    """An n x n tile of rows `step` elements apart, of which `rows` rows and `columns` columns exist: other columns are 0,
    rows beyond the last repeat it."""
    k = ck.k
    vector = k.vector_of(storage, n)
    mask = None if columns.const == n else tail_mask(ck, columns, n)
    out = []
    for i in range(n):
        row = k.min(k.const(i, "i64"), rows - 1)
        p = base.at(row * step, storage)
        out.append(k.load(p, vector) if mask is None else k.masked_load(p, vector, mask))
    return out
