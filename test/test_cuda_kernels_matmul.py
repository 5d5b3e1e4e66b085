"""Matrix products for NVIDIA GPUs without one: shapes, strides, batches, splits and types of every kernel, on the emulator.

Each instruction row with each target is in test_cuda_kernels_rows.py.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cuda_dispatches as make
import numpy as np
import pytest
from cuda_emulation import Emulated, check, run_emulated
from exact_products import check_blocks_of_ones
from ptx_loops import innermost_counts
from target_limits import check_limits

from ingot.compiler.codegen.cuda_gemm_cluster import ClusterSchedule
from ingot.compiler.codegen.cuda_gemm_decoded_wgmma import DecodedWgmmaSchedule
from ingot.compiler.codegen.cuda_gemm_mma import MMA_TILES, MmaSchedule
from ingot.compiler.codegen.cuda_gemm_problem import gemm_problem
from ingot.compiler.codegen.cuda_gemm_simt import SIMT_TILES, SimtSchedule
from ingot.compiler.codegen.cuda_gemm_wgmma import WGMMA_TILES, WgmmaSchedule, WgmmaTile
from ingot.compiler.codegen.cuda_gemv import BLOCKS, GemvSchedule
from ingot.compiler.codegen.cuda_matmul import choose, clustered_blocks
from ingot.compiler.codegen.cuda_stream_k import StreamK, stream_of
from ingot.compiler.codegen.family import emit
from ingot.compiler.reference import run_dispatch
from ingot.compiler.toolchain.cubin_resources import resources
from ingot.compiler.toolchain.stages import compile_kernels
from ingot.cuda_targets import BY_NAME, CUDA_TARGETS
from ingot.dialects.mlir import kernel_context
from ingot.dispatch import Dispatch, ScalarRegion, TensorArg, contiguous

WGMMA, MMA, SIMT = WgmmaSchedule(64, 64, 3), MmaSchedule(32, 64, 16, 32, k_bytes=64), SimtSchedule(32, 32, 32)
TURING = replace(MMA, stages=2)
CLUSTER, SWAPPED = ClusterSchedule(64, 64, 3, 2), ClusterSchedule(64, 64, 3, 2, swapped=True)
KERNELS = {
    "wgmma": ("sm_90a", WGMMA), "cluster": ("sm_90a", CLUSTER), "swapped": ("sm_90a", SWAPPED), "mma": ("sm_80", MMA),
    "registers": ("sm_75", TURING), "simt": ("sm_86", SIMT),
}  # fmt: skip
every_kernel = pytest.mark.parametrize(("target", "schedule"), KERNELS.values(), ids=KERNELS)
LAYOUTS = ("NN", "NT", "TN", "TT")


def split(schedule: Any, parts: int) -> Any:
    """The schedule with K in so many parts."""
    return replace(schedule, **{"cluster" if isinstance(schedule, ClusterSchedule) else "splits": parts})


def product(m: Any, n: Any, k: Any, dtype: str = "f16", layout: str = "NN", **options: Any) -> Dispatch:
    """A product whose operands lie as `layout` says (as in BLAS: A is M-major for T; B is K-major for T)."""
    return make.matmul(m, n, k, dtype, a_transposed=layout[0] == "T", b_transposed=layout[1] == "T", **options)


# Operands -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_wgmma_reads_operands_either_way(dtype: str, layout: str) -> None:
    found = check(product(136, 72, 136, dtype, layout, out="f32"), "sm_90a", WgmmaSchedule(128, 64, 3))
    assert found.executed[f"wgmma.m64n64k16.{dtype}.{dtype}"] == 2 * 2 * 2 * 3 * 4


@pytest.mark.parametrize(("dtype", "small", "large"), [
    ("f8E4M3FN", DecodedWgmmaSchedule, DecodedWgmmaSchedule), ("i8", MmaSchedule, DecodedWgmmaSchedule),
    ("f32", MmaSchedule, MmaSchedule),
])  # fmt: skip
def test_wgmma_of_other_types_is_k_major(dtype: str, small: type, large: type) -> None:
    """The instruction has no transposed form of them: other layouts go to the kernel that turns bytes in registers, or to
    mma.sync."""
    options = {"acc": "i32" if dtype == "i8" else "f32", "tf32": True, "out": "i32" if dtype == "i8" else "f32"}
    check(product(72, 80, 144, dtype, "NT", **options), "sm_90a", WGMMA)
    with kernel_context(), pytest.raises(NotImplementedError, match="cannot read"):
        emit(product(72, 80, 144, dtype, "NN", **options), BY_NAME["sm_90a"], WGMMA)
    d = product(72, 80, 144, dtype, "NN", **options)
    for case, kind in ((d, small), (product(2048, 4096, 4096, dtype, "NN", **options), large)):
        assert type(choose(gemm_problem(case), BY_NAME["sm_90a"])) is kind
    engines = {name.split(".")[0] for name in check(d, "sm_90a").executed if "mma" in name}
    assert engines == {"wgmma" if small is DecodedWgmmaSchedule else "mma"}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("dtype", "target"), [
    ("f16", "sm_75"), ("bf16", "sm_80"), ("f32", "sm_80"), ("i8", "sm_80"), ("i8", "sm_75"), ("f8E4M3FN", "sm_89"),
    ("f8E5M2", "sm_120a"),
])  # fmt: skip
def test_mma_reads_operands_either_way(dtype: str, target: str, layout: str) -> None:
    """Aligned, and with lines of odd lengths, which are read element by element."""
    options = {"acc": "i32" if dtype == "i8" else "f32", "tf32": True, "out": "i32" if dtype == "i8" else "f32"}
    s = TURING if target == "sm_75" else MMA
    for m, n, k in ((48, 80, 144), (33, 65, 35)):
        assert any(name.startswith("mma.") for name in check(product(m, n, k, dtype, layout, **options), target, s).executed)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["f32", "f64", "f16"])
def test_simt_reads_operands_either_way(dtype: str, layout: str) -> None:
    options: dict[str, Any] = {"acc": dtype, "out": dtype} if dtype == "f64" else {"out": "f32"}
    for m, n, k in ((32, 64, 64), (33, 35, 37)):
        check(product(m, n, k, dtype, layout, **options), "sm_75", SIMT)


@every_kernel
@pytest.mark.parametrize("step", [-8, 8], ids=["smaller", "larger"])
def test_sizes_around_a_tile(target: str, schedule: Any, step: int) -> None:
    for size in ((64 + step, 64, 64), (64, 64 + step, 64), (64, 64, 64 + step)):
        check(product(*size, "f16", "NT", out="f32"), target, schedule)


@pytest.mark.parametrize("size", [(1, 1, 1), (1, 9, 3), (9, 1, 9), (16, 7, 1), (31, 33, 63)], ids=str)
def test_odd_sizes(size: tuple[int, int, int]) -> None:
    for target in ("sm_75", "sm_80", "sm_90a"):
        check(product(*size, "f16", out="f32"), target)
        check(product(*size, "bf16", "TT", out="f32"), target)


@every_kernel
def test_operands_with_gaps(target: str, schedule: Any) -> None:
    """Parts of larger tensors: lines lie further apart than they are long."""
    a, b = TensorArg("f16", (40, 64), (72, 1), 64), TensorArg("f16", (64, 48), (1, 80), 16)
    d = make.make("matmul", [a, b], [TensorArg("f32", (40, 48), (50, 1), 8)], [make.narrow("f32")], {"acc": "f32"})
    check(d, target, schedule)


# Batches --------------------------------------------------------------------------------------------------------------


def batched(a: tuple[int, ...], b: tuple[int, ...], out: tuple[int, ...]) -> Dispatch:
    operands = [contiguous("f16", *a), contiguous("f16", *b)]
    return make.make("matmul", operands, [contiguous("f32", *out)], [make.narrow("f32")], {"acc": "f32"})


@every_kernel
@pytest.mark.parametrize(
    "d",
    [
        product(40, 72, 64, layout="NT", batch=(3,), out="f32"),
        product(21, 72, 64, batch=(2, 3), b_batch=False, out="f32"),
        batched((2, 1, 40, 64), (1, 3, 64, 48), (2, 3, 40, 48)),
        batched((40, 64), (3, 64, 48), (3, 40, 48)),
        batched((3, 40, 64), (1, 64, 48), (3, 40, 48)),
    ],
    ids=["batch", "one b", "broadcast both", "one a", "broadcast b"],
)
def test_batches(d: Dispatch, target: str, schedule: Any) -> None:
    check(d, target, schedule)


def test_batch_of_transposed_heads() -> None:
    """[batch, positions, heads, depth] as batch and heads of matrices, as attention has it where it is not fused."""
    t = contiguous("f16", 2, 40, 3, 64)
    heads = TensorArg("f16", (2, 3, 40, 64), (t.strides[0], t.strides[2], t.strides[1], 1), 64)
    keys = TensorArg("f16", (2, 3, 64, 40), (t.strides[0], t.strides[2], 1, t.strides[1]), 64)
    d = make.make("matmul", [heads, keys], [contiguous("f16", 2, 3, 40, 40)], [make.narrow("f16")], {"acc": "f32"})
    for target, schedule in KERNELS.values():
        check(d, target, schedule)


# Sizes at run time, splits --------------------------------------------------------------------------------------------


@every_kernel
@pytest.mark.parametrize("size", [(1, 8, 8), (70, 72, 40), (64, 64, 128), (9, 136, 0)], ids=str)
def test_any_shape(target: str, schedule: Any, size: tuple[int, int, int]) -> None:
    d = product("m", "n", "k", "bf16" if target != "sm_75" else "f16", out="f32", multiples={"n": 8, "k": 8})
    check(d, target, schedule, dict(zip("mnk", size, strict=True)))


@pytest.mark.parametrize("target", ["sm_75", "sm_80", "sm_90a"])
def test_any_shape_without_alignment(target: str) -> None:
    d = make.matmul("m", "n", "k", "f16", batch=("b",), out="f32")
    for m, n, k, b in ((35, 66, 71, 1), (1, 1, 1, 2), (33, 9, 128, 1), (0, 5, 5, 1)):
        check(d, target, None, {"m": m, "n": n, "k": k, "b": b})


@pytest.mark.parametrize("k", [64, 200, 512])
@every_kernel
def test_splits_of_k(target: str, schedule: Any, k: int) -> None:
    """Splits of unequal and of no steps; the second launch runs the epilogue."""
    found = check(product(40, 72, k, "f16", bias=True), target, split(schedule, 3))
    assert len(found.plan.launches) == (1 if isinstance(schedule, ClusterSchedule) else 2)


@every_kernel
def test_splits_give_the_same_sum_each_time(target: str, schedule: Any) -> None:
    d = product(40, 72, 512, "f16", out="f32")
    first, second = (run_emulated(d, target, None, split(schedule, 3)).results[0] for _ in range(2))
    assert first.tobytes() == second.tobytes()


STREAMED = {name: KERNELS[name] for name in ("wgmma", "mma", "registers")}
every_streamed = pytest.mark.parametrize(("target", "schedule"), STREAMED.values(), ids=STREAMED)


@every_streamed
@pytest.mark.parametrize("blocks", [1, 5, 7, 9, 40])
def test_shares_of_steps(target: str, schedule: Any, blocks: int) -> None:
    """Whole waves and shares, shares alone, tiles of one share and of several, more blocks than there are shares; and whole
    waves alone, of which nothing is shared."""
    d = product(136, 200, 392, bias=True)
    s = replace(schedule, stream=blocks)
    found = check(d, target, s)
    stream = stream_of(gemm_problem(d), s)
    if stream is None:
        assert -(-136 // s.tile_m) * -(-200 // s.tile_n) % blocks == 0
        assert len(found.plan.launches) == 1
        assert found.plan.workspace == 0
        assert not any(b.kind == "workspace" for b in found.plan.launches[0].buffers)
        return
    assert found.plan.launches[0].grid[0] <= blocks
    assert len(found.plan.launches) == 2
    assert found.plan.workspace == stream.slots * s.tile_m * s.tile_n * 4


@every_streamed
def test_shares_of_steps_of_any_dispatch(target: str, schedule: Any) -> None:
    """Batches, odd sizes, layouts, regions with positions and two results; the same sums each time."""
    s = replace(schedule, stream=3)
    check(product(40, 72, 328, batch=(3,), out="f32"), target, s)
    check(product(72, 136, 264, layout="TT"), target, s)
    check(index_and_two_results(), target, s)
    if target != "sm_90a":
        check(product(35, 67, 301, out="f32"), target, s)
    d = product(72, 72, 520, out="f32")
    first, second = (run_emulated(d, target, None, s).results[0] for _ in range(2))
    assert first.tobytes() == second.tobytes()
    with kernel_context(), pytest.raises(NotImplementedError, match="known at run time"):
        emit(product("m", 72, 64, multiples={"m": 8}), BY_NAME[target], s)


@pytest.mark.parametrize("blocks", [1, 3, 8, 108, 132, 264])
@pytest.mark.parametrize(("tiles", "steps"), [(1, 1), (3, 7), (132, 20), (144, 128), (1024, 64), (400, 3)])
def test_shares_cover_all_steps_once(tiles: int, steps: int, blocks: int) -> None:
    """What blocks and the second launch take for granted: shares follow each other, and every part has a slot of its own."""
    stream = StreamK(tiles, steps, blocks)
    assert stream.whole + stream.divided == tiles
    assert stream.divided < blocks
    seen, slots = [], []
    for block in range(stream.shares):
        begin, end = block * stream.share, min((block + 1) * stream.share, stream.divided * steps)
        assert begin < end
        seen += range(begin, end)
        slots += [block + tile for tile in range(begin // steps, (end - 1) // steps + 1)]
    assert seen == list(range(stream.divided * steps))
    assert len(set(slots)) == len(slots)
    assert all(slot < stream.slots for slot in slots)
    assert stream.shares <= stream.blocks


# Schedules ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tile", WGMMA_TILES, ids=str)
def test_wgmma_tiles(tile: WgmmaTile) -> None:
    check(product(tile.m + 8, tile.n + 8, 72, bias=True), "sm_90a", WgmmaSchedule(tile.m, tile.n, 3))


def test_wgmma_blocks_walk_many_tiles() -> None:
    """More tiles than SMs: stages and parities carry over from tile to tile."""
    found = check(product(64 * 10, 8 * 30, 72, layout="NT", out="f32"), "sm_90a", WgmmaSchedule(64, 8, 3))
    assert found.plan.launches[0].grid[0] < 10 * 30


@pytest.mark.parametrize("cluster", [1, 3, 8])
@pytest.mark.parametrize("columns", [8, 16, 24, 64])
def test_few_rows_as_columns_of_the_instruction(columns: int, cluster: int) -> None:
    """A's rows are wgmma's columns; B lies either way."""
    for layout, rows in (("NN", 64), ("NT", 128)):
        found = check(product(columns - 3, 200, 520, layout=layout, bias=True), "sm_90a",
                      ClusterSchedule(rows, columns, 3, cluster, swapped=True))  # fmt: skip
        assert found.executed[f"wgmma.m64n{columns}k16.f16.f16"] == -(-200 // rows) * (rows // 64) * 9 * 4
    check(product(columns, 200, 264, layout="TN"), "sm_90a", ClusterSchedule(64, columns, 3, cluster, swapped=True))
    odd = product(columns + 5, 72, 136, "f16", "NT", out="f32", batch=(2,))
    check(odd, "sm_90a", ClusterSchedule(64, columns, 4, cluster, swapped=True))


@pytest.mark.parametrize("tile", [(128, 64), (64, 128), (128, 128), (128, 192)], ids=str)
def test_clusters_share_tiles(tile: tuple[int, int]) -> None:
    found = check(product(tile[0] + 8, tile[1] + 8, 456, bias=True), "sm_90a", ClusterSchedule(*tile, 3, 4))
    assert found.plan.launches[0].cluster == (4, 1, 1)
    assert found.plan.workspace == 0


@pytest.mark.parametrize("dtype", ["f8E4M3FN", "i8", "f32"])
def test_clusters_of_other_types(dtype: str) -> None:
    acc = "i32" if dtype == "i8" else "f32"
    for s in (CLUSTER, SWAPPED):
        check(product(40, 80, 528, dtype, "NT", acc=acc, out=acc, tf32=True), "sm_90a", s)


@pytest.mark.parametrize("s", MMA_TILES, ids=lambda s: f"{s.tile_m}x{s.tile_n}")
def test_mma_tiles(s: MmaSchedule) -> None:
    check(product(s.tile_m + 1, s.tile_n + 2, 72, bias=True), "sm_80", s)


@pytest.mark.parametrize("s", SIMT_TILES, ids=lambda s: f"{s.tile_m}x{s.tile_n}")
def test_simt_tiles(s: SimtSchedule) -> None:
    check(product(s.tile_m + 1, s.tile_n + 2, 19, "f32", bias=True), "sm_80", s)


@pytest.mark.parametrize("m", [1, 2, 3, 8])
@pytest.mark.parametrize("layout", ["NN", "NT"])
def test_few_rows(m: int, layout: str) -> None:
    k_major = layout == "NT"
    check(product(m, 200, 264, "f16", layout, bias=True), "sm_80", GemvSchedule(m, 8, k_major))
    check(product(m, 72, 520, "f32", layout), "sm_90a", GemvSchedule(m, 4, k_major, splits=2))
    check(product(m, 77, 99, "f32", layout), "sm_75")
    check(product(m, 64, 48, "f16", layout, batch=(3,), out="f32"), "sm_80", GemvSchedule(m, 8, k_major))


@pytest.mark.parametrize("across", [4, 8, 16])
@pytest.mark.parametrize("cluster", [1, 2, 8])
@pytest.mark.parametrize("m", [1, 3, 8])
def test_few_rows_whose_warps_share_columns(m: int, across: int, cluster: int) -> None:
    """Of a K that threads divide evenly and of one that they do not; columns end within a block."""
    s = GemvSchedule(m, 8, False, cluster=cluster, across=across)
    check(product(m, 72, 512 * cluster // across, "f16", "NN", bias=True), "sm_90a", s)
    found = check(product(m, 200, 531, "f16", "NN", bias=True), "sm_90a", s)
    assert len(found.plan.launches) == 1
    assert found.plan.workspace == 0


@pytest.mark.parametrize(("dtype", "acc", "lanes"), [("f16", "f32", 8), ("i8", "i32", 16), ("f64", "f64", 2)])
@pytest.mark.parametrize("layout", ["NN", "NT"])
def test_few_rows_in_clusters(dtype: str, acc: str, lanes: int, layout: str) -> None:
    """Blocks add their sums in one launch, for several batches and columns that end within a block."""
    for m in (1, 5):
        s = GemvSchedule(m, lanes, layout == "NT", cluster=4, across=32 if layout == "NT" else 8)
        check(product(m, 80, 2048, dtype, layout, acc=acc, out=acc, bias=acc == "f32"), "sm_100a", s)
        check(product(m, 48, 1040, dtype, layout, batch=(2,), acc=acc, out=acc), "sm_120a", s)


def test_blocks_of_few_rows_add_in_one_way() -> None:
    with pytest.raises(ValueError, match="one cluster or"):
        GemvSchedule(1, 8, False, splits=2, cluster=2)


@pytest.mark.parametrize("target", [t.name for t in CUDA_TARGETS])
@pytest.mark.parametrize(("n", "k"), [(3072, 2048), (2048, 8192), (128256, 2048)])
def test_one_row_is_one_launch(target: str, n: int, k: int) -> None:
    """Where there are clusters, no second launch adds sums; an SM holds the blocks that estimates count on."""
    d, t = make.matmul(1, n, k, "f16"), BY_NAME[target]
    chosen = choose(gemm_problem(d), t)
    assert isinstance(chosen, GemvSchedule)
    assert chosen.splits == 1 or t.max_cluster == 1, chosen
    with kernel_context():
        emitted = emit(d, t)
        cubin = compile_kernels(emitted.module, target)
        check_limits(emitted.plan, cubin, t)
        launch = emitted.plan.launches[0]
        assert len(emitted.plan.launches) == (1 if chosen.splits == 1 else 2)
        asked = resources(cubin)[launch.symbol]
        assert t.resident_blocks(launch.block[0], asked.registers, asked.shared_bytes) >= BLOCKS, asked


@pytest.mark.parametrize(("dtype", "acc"), [("i8", "i32"), ("f64", "f64"), ("bf16", "f32"), ("f8E4M3FN", "f32")])
@pytest.mark.parametrize("layout", ["NN", "NT"])
def test_few_rows_of_any_type(dtype: str, acc: str, layout: str) -> None:
    check(product(3, 96, 256, dtype, layout, acc=acc, out=acc), "sm_89")


# Types and regions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("a", "b"), [(False, False), (True, True), (True, False), (False, True)])
@pytest.mark.parametrize("size", [(40, 48, 64), (5, 48, 64)], ids=["tile", "few rows"])
def test_signedness_of_bytes(a: bool, b: bool, size: tuple[int, int, int]) -> None:
    """The full range of bytes; of unlike signedness there is no row, and fused multiply-adds take it."""

    def fill(views: list[np.ndarray]) -> None:
        rng = np.random.default_rng(1)
        for x in views:
            x[...] = rng.integers(-128, 128, x.shape)

    d = product(*size, "i8", "NT", acc="i32", out="i32")
    attrs = {**dict(d.attrs), **({"a_unsigned": True} if a else {}), **({"b_unsigned": True} if b else {})}
    d = replace(d, attrs=tuple(sorted(attrs.items())))
    for target in ("sm_75", "sm_80", "sm_90a"):
        found = check(d, target, prepare=fill)
        if size[0] > 8:
            assert any("mma" in name for name in found.executed) == (a == b), found.executed


@pytest.mark.parametrize(("left", "right"), [("f16", "f32"), ("bf16", "f16"), ("f8E4M3FN", "f8E5M2"), ("f32", "i8")])
def test_types_that_no_row_has(left: str, right: str) -> None:
    operands = [contiguous(left, 33, 40), contiguous(right, 40, 48)]
    check(make.make("matmul", operands, [contiguous("f32", 33, 48)], [make.narrow("f32")], {"acc": "f32"}), "sm_90a")


def test_float32_is_exact_unless_told_otherwise() -> None:
    exact, rounded = (product(64, 64, 64, "f32", tf32=t) for t in (False, True))
    found = check(exact, "sm_80")
    assert not any("mma" in name for name in found.executed)
    assert spread(exact, found) < 1e-6
    found = check(rounded, "sm_80", MMA)
    assert found.executed["mma.m16n8k8.tf32.tf32"]
    assert 1e-4 < spread(rounded, found) < 2e-3


def spread(d: Dispatch, found: Emulated) -> float:
    return make.errors(found.results[0], run_dispatch(d, found.operands, float64=True)[0]).spread


def index_and_two_results() -> Dispatch:
    """acc + position along each axis, in f16 and in f32."""
    r = make.Region("f32")
    value = 0
    for axis in range(3):
        value = r.add("addf", value, r.add("sitofp", r.add("index", type="i64", axis=axis)))
    operands = [contiguous("f16", 2, 40, 64), contiguous("f16", 2, 64, 72)]
    results = [contiguous("f16", 2, 40, 72), contiguous("f32", 2, 40, 72)]
    region: ScalarRegion = r.end(r.narrow(value, "f16"), value)
    return make.make("matmul", operands, results, [region], {"acc": "f32"})


@every_kernel
def test_regions(target: str, schedule: Any) -> None:
    """Positions, two results of different types, and operands of the region that repeat along rows or columns."""
    check(index_and_two_results(), target, schedule)
    check(index_and_two_results(), target, split(schedule, 2))
    r = make.Region("f32")
    region = r.end(r.narrow(r.add("addf", r.add("mulf", 0, r.load(2, "f16")), r.load(3, "f16")), "f16"))
    operands = [contiguous("f16", 2, 40, 64), contiguous("f16", 64, 72), contiguous("f16", 40, 1), contiguous("f16", 2, 40, 72)]
    check(make.make("matmul", operands, [contiguous("f16", 2, 40, 72)], [region], {"acc": "f32"}), target, schedule)


@every_kernel
def test_infinities_and_nan_stay_in_their_rows(target: str, schedule: Any) -> None:
    def spoil(views: list[np.ndarray]) -> None:
        views[0][3, 5], views[0][20, 63], views[1][7, 11] = np.nan, np.inf, -np.inf

    d = product(40, 48, 64, "f16", "NT", out="f32")
    found = run_emulated(d, target, None, schedule, prepare=spoil)
    (reference,) = run_dispatch(d, found.operands, float64=True)
    make.errors(found.results[0], reference)
    assert np.isnan(reference).any()


@pytest.mark.parametrize(
    "schedule", [SIMT, GemvSchedule(4, 8, False), GemvSchedule(4, 8, True)], ids=["simt", "columns", "rows"]
)
@pytest.mark.parametrize("seed", range(3))
def test_blocks_of_ones_without_tensor_cores(schedule: Any, seed: int) -> None:
    """What test_cuda_kernels_rows.py does with every instruction, for the kernels that have none."""
    k_major = isinstance(schedule, GemvSchedule) and schedule.k_major
    check_blocks_of_ones(product(4, 72, 136, "f16", "NT" if k_major else "NN", out="f32"), "sm_80", schedule, seed)


# Code -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [t.name for t in CUDA_TARGETS])
def test_code_without_tensor_cores(target: str) -> None:
    """Fused multiply-adds in the inner loop, a thread's accumulators times a tile's depth; every target assembles."""
    s = SimtSchedule(64, 64, 16)
    with kernel_context():
        emitted = emit(product("m", "n", "k", "f32"), BY_NAME[target], s)
        ptx = compile_kernels(emitted.module, target, stop="ptx")
    assert innermost_counts(ptx, emitted.plan.launches[0].symbol, r"\bfma\.rn\.f32\b") == [s.per_m * s.per_n * s.tile_k]
    assert not innermost_counts(ptx, emitted.plan.launches[0].symbol, r"mma\.sync|tf32")
    assert compile_kernels(ptx, target, start="ptx")[:4] == b"\x7fELF"
    for d in (product(1, 512, 512, "f16"), product(1, 512, 512, "f32", "NT"), product(4, 512, 4096, "f16", bias=True)):
        with kernel_context():
            assert compile_kernels(emit(d, BY_NAME[target]).module, target)[:4] == b"\x7fELF"


@pytest.mark.parametrize("s", [ClusterSchedule(128, 16, 12, 4, swapped=True), ClusterSchedule(128, 256, 4, 2)], ids=str)
def test_code_of_clusters(s: ClusterSchedule) -> None:
    """The inner loop holds a stage's instructions and nothing spills; parts are read from the other blocks' shared memory."""
    d = product(16 if s.swapped else 256, 4096, 4096, bias=True)
    with kernel_context():
        emitted = emit(d, BY_NAME["sm_90a"], s)
        ptx = compile_kernels(emitted.module, "sm_90a", stop="ptx")
    assert innermost_counts(ptx, emitted.plan.launches[0].symbol, r"wgmma\.mma_async") == [4]
    assert "ld.local" not in ptx
    assert "ld.shared::cluster.v2" in ptx
    assert f".reqnctapercluster {s.cluster}" in ptx
    assert compile_kernels(ptx, "sm_90a", start="ptx")[:4] == b"\x7fELF"


@pytest.mark.parametrize("tile", WGMMA_TILES, ids=str)
def test_code_of_wgmma_tiles_with_few_stages(tile: WgmmaTile) -> None:
    """Two blocks would fit an SM's shared memory; whether they do its registers depends on the tile."""
    with kernel_context():
        emitted = emit(product(4096, 4096, 4096, bias=True), BY_NAME["sm_90a"], WgmmaSchedule(tile.m, tile.n, 3))
        assert compile_kernels(emitted.module, "sm_90a")[:4] == b"\x7fELF"


@pytest.mark.parametrize("target", [t.name for t in CUDA_TARGETS])
def test_code_of_shares(target: str) -> None:
    """A large product as stream-K: both launches assemble, and nothing spills."""
    row = BY_NAME[target]
    if row.wgmma:
        s: Any = WgmmaSchedule(128, 256, 4, stream=132)
    else:
        s = MmaSchedule(128, 128, 64, 64, stages=3 if row.cp_async else 2, k_bytes=128 if row.cp_async else 64, stream=108)
    with kernel_context():
        emitted = emit(product(1536, 1536, 8192, bias=True), row, s)
        ptx = compile_kernels(emitted.module, target, stop="ptx")
    first, second = emitted.plan.launches
    wanted = r"wgmma\.mma_async" if row.wgmma else r"\bmma\.sync"
    assert set(innermost_counts(ptx, first.symbol, wanted)) == {4 if row.wgmma else 128}
    assert not innermost_counts(ptx, second.symbol, wanted)
    assert "ld.local" not in ptx
    assert compile_kernels(ptx, target, start="ptx")[:4] == b"\x7fELF"


@pytest.mark.parametrize("target", [t.name for t in CUDA_TARGETS])
@pytest.mark.parametrize("dtype", ["f16", "f32"])
def test_code_of_what_is_chosen(target: str, dtype: str) -> None:
    """The schedules that the cost model takes for large products fit the target, and nothing spills into local memory."""
    with kernel_context():
        emitted = emit(product(4096, 4096, 4096, dtype, bias=True), BY_NAME[target])
        # Two blocks of fused multiply-adds share an SM's registers: for sm_100a, six addresses find no place among the 128.
        spilled = 24 if dtype == "f32" and target in ("sm_100a", "sm_103a") else 0
        check_limits(emitted.plan, compile_kernels(emitted.module, target), BY_NAME[target], spilled=spilled)


@pytest.mark.parametrize("target", ["sm_75", "sm_80", "sm_86", "sm_89", "sm_100a", "sm_120a"])
def test_code_for_any_shape_does_not_spill(target: str) -> None:
    """Addresses of many rows, each of them clamped, beside accumulators: eight warps share a tile of 128 x 128."""
    d = product("m", "n", "k", "f16", multiples={"n": 8, "k": 8})
    with kernel_context():
        emitted = emit(d, BY_NAME[target])
        check_limits(emitted.plan, compile_kernels(emitted.module, target), BY_NAME[target])


def test_schedules_follow_the_shape() -> None:
    """Large products take large tiles; one row streams; few tiles split K or shrink."""
    hopper, ampere = BY_NAME["sm_90a"], BY_NAME["sm_80"]
    assert choose(gemm_problem(make.matmul(4096, 4096, 4096)), hopper) == WgmmaSchedule(128, 256, 4)
    assert isinstance(choose(gemm_problem(make.matmul(1, 4096, 4096)), hopper), GemvSchedule)
    small = choose(gemm_problem(make.matmul(256, 4096, 4096)), hopper)
    assert small.tile_m * small.tile_n < 128 * 256 or isinstance(small, ClusterSchedule)
    few = choose(gemm_problem(make.matmul(16, 4096, 4096)), hopper)
    assert isinstance(few, ClusterSchedule)
    assert (few.swapped, few.tile_n) == (True, 16)
    assert isinstance(choose(gemm_problem(make.matmul(4096, 4096, 4096)), ampere), MmaSchedule)
    assert isinstance(choose(gemm_problem(make.matmul(333, 77, 45)), hopper), MmaSchedule)  # TMA cannot read such rows


@pytest.mark.parametrize("cluster", range(1, 9))
def test_clusters_lie_in_groups_of_sms(cluster: int) -> None:
    """Of 132 SMs in groups of 14 to 18; beyond pairs not every place is found."""
    blocks = clustered_blocks(132, cluster, 1)
    assert blocks % cluster == 0
    assert clustered_blocks(132, cluster, 2) >= 2 * blocks
    assert blocks == {1: 132, 2: 132, 3: 111, 4: 104, 5: 90, 6: 96, 7: 98, 8: 88}[cluster]


def test_what_no_kernel_takes_is_named() -> None:
    vector, square = contiguous("f16", 8), contiguous("f16", 8, 8)
    d = make.make("matmul", [vector, square], [vector], [make.narrow("f16")], {"acc": "f32"})
    with kernel_context(), pytest.raises(NotImplementedError, match="rank 1 and 2"):
        emit(d, BY_NAME["sm_80"])
    with kernel_context(), pytest.raises(NotImplementedError, match=r"no mma\.sync of bf16"):
        emit(product(64, 64, 64, "bf16"), BY_NAME["sm_75"], MMA)
    with pytest.raises(ValueError, match="do not divide"):
        MmaSchedule(64, 64, 48, 32)
    with pytest.raises(ValueError, match="64, 128 or 192 rows"):
        WgmmaSchedule(96, 64)
    with pytest.raises(ValueError, match="at most 8 blocks"):
        ClusterSchedule(64, 64, 3, 16)


def sums_with_vectors(rows: int | str, count: int, k: int | str = 64, columns: int | str = 64) -> Dispatch:
    """A product to which each of `count` results adds a vector of its own."""
    d = make.matmul(rows, columns, k, "f16", multiples={name: 8 for name in (k, columns) if isinstance(name, str)})
    r = make.Region("f32")
    region = r.end(*(r.narrow(r.add("addf", 0, r.load(2 + i, "f32")), "f16") for i in range(count)))
    vectors = [contiguous("f32", columns)] * count
    return replace(d, operands=(*d.operands, *vectors), results=d.results * count, regions=(region,))


@pytest.mark.parametrize("target", ["sm_75", "sm_86", "sm_120a"])
def test_long_epilogues_of_any_shape_have_small_tiles(target: str) -> None:
    """An epilogue is written out for each accumulator of a thread: with 28 results, large tiles take an assembler ten seconds,
    and spill. A GELU has the same tile as no epilogue."""
    long = choose(gemm_problem(sums_with_vectors("m", 28, "k", "n")), BY_NAME[target])
    assert isinstance(long, MmaSchedule)
    assert long.warp_m * long.warp_n <= 16 * 32
    multiples = {"k": 8, "n": 8}
    plain, gelu = (choose(gemm_problem(make.matmul("m", "n", "k", "f16", bias=b, multiples=multiples)), BY_NAME[target])
                   for b in (False, True))  # fmt: skip
    assert plain == gelu
    fixed = choose(gemm_problem(sums_with_vectors(4096, 28, 4096, 4096)), BY_NAME[target])
    assert fixed.warp_m * fixed.warp_n > long.warp_m * long.warp_n


def test_many_results_of_any_shape() -> None:
    check(sums_with_vectors("m", 28, "k", "n"), "sm_86", sizes={"m": 3, "k": 72, "n": 40})


def test_rows_that_a_guard_knows_to_be_the_results() -> None:
    """A result whose sizes have the names of what is added to it, not those of the operands."""
    a, b, c = contiguous("f32", "d0", 4, "d1", 1), contiguous("f32", "d0", 4, 1, "d3"), contiguous("f32", "d0", 4, "d2", "d2")
    r = make.Region("f32")
    d = make.make("matmul", [a, b, c], [c], [r.end(r.add("addf", r.load(2, "f32"), 0))], {"acc": "f32"})
    for target in ("sm_75", "sm_90a"):
        check(d, target, sizes={"d0": 2, "d1": 8, "d2": 8, "d3": 8})
