"""wgmma on the emulator: tiles, fragments, what it needs around it, warps that arrive apart, and a whole GEMM."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from emulator_launch import kinds, launch
from tensor_core_sums import LEAST_EXPONENT, instruction

from ingot.compiler.emulator import EmulationError, TensorMap

TYPES = {
    "f16": np.float16, "bf16": ml_dtypes.bfloat16, "tf32": np.float32, "e4m3": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2, "s8": np.int8, "u8": np.uint8,
}  # fmt: skip


def sample(rng, shape, kind):
    if kind in ("s8", "u8"):
        info = np.iinfo(TYPES[kind])
        return rng.integers(info.min, info.max + 1, shape).astype(TYPES[kind])
    x = rng.standard_normal(shape).astype(TYPES[kind])
    if kind == "tf32":
        x = (x.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)
    return x


def store_accumulator(k, acc, out, n, element):
    """D by the ISA: d_i in row 16 * warp + lane / 4 + 8 * (i % 4 >= 2), column 8 * (i / 4) + 2 * (lane % 4) + i % 2."""
    t = k.thread_id()
    row = (t >> 5) * 16 + ((t & 31) >> 2)
    for i, d in enumerate(k.elements(acc)):
        place = (row + (8 if i % 4 >= 2 else 0)) * n + (i // 4 * 8 + i % 2) + (t & 3) * 2
        k.store(d, out.at(place, element))


def fill_shared(k, source, base, nbytes, place):
    """Copy `nbytes` of a global array to shared memory, 16-byte chunk i to `base + place(i)`."""
    with k.for_(k.thread_id(), nbytes // 16, 128) as loop:
        chunk = k.load(source + loop.iv * 16, "vector<4xi32>", align=16)
        k.store(chunk, base + place(loop.iv), align=16)


@pytest.mark.parametrize("swizzle", [0, 32, 64, 128])
@pytest.mark.parametrize("kind", list(TYPES))
def test_wgmma_reads_k_major_tiles(kind, swizzle):
    """A tile of one swizzle atom along K (32 bytes without a swizzle); the instruction's 32 bytes are the last of it."""
    rng = np.random.default_rng(0)
    n, size = 24, np.dtype(TYPES[kind]).itemsize
    k_all, k_step = (swizzle or 32) // size, 32 // size
    a, b = sample(rng, (64, k_all), kind), sample(rng, (n, k_all), kind)
    integer = kind in ("s8", "u8")
    out = np.zeros((64, n), np.int32 if integer else np.float32)
    width = swizzle or 32
    rows_of = {0: 16, 32: 32, 64: 64, 128: 128}[swizzle]

    def build(k, p, q, r):
        shared = k.dynamic_shared()
        bits = {0: 0, 32: 1, 64: 3, 128: 7}[swizzle]

        def place(i):
            per = width // 16
            row, chunk = i // per, i % per
            if not swizzle:  # 8 rows x 16 bytes are contiguous; the second chunk of K follows after 128 bytes
                return (row >> 3) * 256 + chunk * 128 + (row & 7) * 16
            linear = row * width + chunk * 16
            return linear ^ (((linear >> 7) & bits) << 4)

        fill_shared(k, p, shared, a.nbytes, place)
        fill_shared(k, q, shared + 8192, b.nbytes, place)
        k.fence_async_shared()
        k.barrier()
        stride = 8 * rows_of if swizzle else 256
        last = width - 32
        da, db = (
            k.wgmma_descriptor(shared + base, leading_bytes=128, stride_bytes=stride, swizzle=swizzle) + (last >> 4)
            for base in (0, 8192)
        )
        acc = k.wgmma_accumulator(n, "i32" if integer else "f32")
        k.wgmma_fence()
        for _ in range(2):
            acc = k.wgmma(acc, da, db, (64, n, k_step), kind)
        k.wgmma_commit()
        k.wgmma_wait(0)
        store_accumulator(k, acc, r, n, "i32" if integer else "f32")

    report = launch(build, [a, b, out], block=128, shared=8192 + 4096)
    report.check()
    left, right = (x[:, -k_step:].astype(np.float64) for x in (a, b))
    product = left @ right.T
    expected = (product.astype(np.float32) + product).astype(np.float32) if not integer else (2 * product).astype(np.int32)
    if kind in LEAST_EXPONENT:
        once = instruction(left, right.T, np.zeros((64, n)), (kind, kind), "wgmma")
        expected = instruction(left, right.T, once, (kind, kind), "wgmma")
    assert np.array_equal(out, expected)
    assert report.executed == {f"wgmma.m64n{n}k{k_step}.{kind}.{kind}": 2}


@pytest.mark.parametrize("swizzle", [64, 128])
def test_wgmma_reads_transposed_tiles(swizzle):
    """A and B of bf16 stored with M (N) innermost, in atoms of `swizzle` bytes by 8 rows of K."""
    rng = np.random.default_rng(0)
    n, depth, per = 64, 16, swizzle // 2
    a, b = sample(rng, (depth, 64), "bf16"), sample(rng, (depth, n), "bf16")
    out = np.zeros((64, n), np.float32)
    atom = 8 * swizzle  # 8 rows of K; the next atom along M follows, then the next 8 rows

    def build(k, p, q, r):
        shared = k.dynamic_shared()

        def place(i):
            row, chunk = i // 8, i % 8  # 128 bytes a row of K
            part, inside = chunk // (per // 8), chunk % (per // 8)
            linear = (row >> 3) * (atom * (64 // per)) + part * atom + (row & 7) * swizzle + inside * 16
            return linear ^ (((linear >> 7) & (7 if swizzle == 128 else 3)) << 4)

        fill_shared(k, p, shared, a.nbytes, place)
        fill_shared(k, q, shared + 2048, b.nbytes, place)
        k.fence_async_shared()
        k.barrier()
        da, db = (
            k.wgmma_descriptor(shared + base, leading_bytes=atom, stride_bytes=atom * (64 // per), swizzle=swizzle)
            for base in (0, 2048)
        )
        k.wgmma_fence()
        acc = k.wgmma(
            k.wgmma_accumulator(n), da, db, (64, n, 16), "bf16", a_transposed=True, b_transposed=True, accumulate=False
        )
        k.wgmma_commit()
        k.wgmma_wait(0)
        store_accumulator(k, acc, r, n, "f32")

    launch(build, [a, b, out], block=128, shared=4096).check()
    assert np.array_equal(out, (a.astype(np.float64).T @ b.astype(np.float64)).astype(np.float32))


@pytest.mark.parametrize("kind", ["f16", "e4m3"])
def test_wgmma_takes_a_from_registers(kind):
    rng = np.random.default_rng(0)
    n, size = 16, np.dtype(TYPES[kind]).itemsize
    depth = 32 // size
    a, b = sample(rng, (64, depth), kind), sample(rng, (n, depth), kind)
    out = np.zeros((64, n), np.float32)

    def build(k, p, q, r):
        t = k.thread_id()
        lane, warp = t & 31, t >> 5
        shared = k.dynamic_shared()
        fill_shared(k, p, shared + 1024, a.nbytes, lambda i: i * 16)
        fill_shared(k, q, shared, b.nbytes, lambda i: (i >> 4) * 256 + (i & 1) * 128 + ((i >> 1) & 7) * 16)
        k.fence_async_shared()
        k.barrier()
        fragment = k.ldmatrix(shared + 1024 + (warp * 512 + (lane & 15) * 32 + (lane >> 4) * 16), 4)
        db = k.wgmma_descriptor(shared, leading_bytes=128, stride_bytes=256, swizzle=0)
        k.wgmma_fence()
        acc = k.wgmma_registers(k.wgmma_accumulator(n), fragment, db, (64, n, depth), kind)
        k.wgmma_commit()
        k.wgmma_wait(0)
        store_accumulator(k, acc, r, n, "f32")

    launch(build, [a, b, out], block=128).check()
    left, right = (x.astype(np.float64) for x in (a, b))
    expected = (left @ right.T).astype(np.float32)
    if kind in LEAST_EXPONENT:
        expected = instruction(left, right.T, np.zeros((64, n)), (kind, kind), "wgmma")
    assert np.array_equal(out, expected)


@pytest.mark.parametrize(
    ("missing", "kind", "words"),
    [
        ("", "", ""),
        ("fence", "async", "since the last wgmma.fence"),
        ("wait", "async", "before wgmma.wait_group"),
        ("proxy", "proxy", "no fence.proxy.async"),
        ("barrier", "race", "with no barrier between"),
        ("reuse", "async", "in use by an unfinished asynchronous operation"),
    ],
)
def test_what_a_wgmma_needs_around_it(missing, kind, words):
    def build(k, p, q):
        shared = k.dynamic_shared()
        fill_shared(k, p, shared, 4096, lambda i: i * 16)
        if missing != "proxy":
            k.fence_async_shared()
        if missing != "barrier":
            k.barrier()
        d = k.wgmma_descriptor(shared, leading_bytes=128, stride_bytes=256, swizzle=0)
        if missing != "fence":
            k.wgmma_fence()
        acc = k.wgmma(k.wgmma_accumulator(8), d, d, (64, 8, 16), "f16")
        k.wgmma_commit()
        if missing == "reuse":
            k.store(k.const(0), shared.at(k.thread_id(), "i32"))
        if missing != "wait":
            k.wgmma_wait(0)
        store_accumulator(k, acc, q, 8, "f32")

    report = launch(build, [np.zeros(2048, np.float16), np.zeros((64, 8), np.float32)], block=128, shared=4096)
    if not missing:
        assert report.ok
    else:
        assert kind in kinds(report)
        assert any(words in f.detail for f in report.findings)


# --- warps of a warpgroup that arrive apart


def test_warps_that_arrive_apart_wait_for_their_warpgroup():
    """In every block another warp is late in every iteration, for a copy one lane of it waits for; blocks have 1 to 3."""
    rng = np.random.default_rng(0)
    a, out = sample(rng, (64, 16), "f16"), np.zeros((3, 2, 64, 8), np.float32)

    def build(k, p, q):
        t, warp, block = k.thread_id(), k.warp_id(), k.block_id()
        shared = k.dynamic_shared()
        bar = shared + 3072
        with k.if_(t.eq(0)):
            k.mbarrier_init(bar, 1)
        fill_shared(k, p, shared, a.nbytes, lambda i: (i >> 4) * 256 + (i & 1) * 128 + ((i >> 1) & 7) * 16)
        k.fence_async_shared()
        k.barrier()
        d = k.wgmma_descriptor(shared, leading_bytes=128, stride_bytes=256, swizzle=0)
        with k.for_(0, block + 1, carry=[k.wgmma_accumulator(8)]) as loop:
            with k.if_(warp.eq(block + 3)), k.if_((t & 31).eq(0)):
                k.mbarrier_arrive_expect(bar, 16)
                k.bulk_load(shared + 2048, p, 16, bar)
                k.mbarrier_wait(bar, loop.iv & 1)
            k.wgmma_fence()
            acc = k.wgmma(loop.carry[0], d, d, (64, 8, 16), "f16")
            k.wgmma_commit()
            k.wgmma_wait(0)
            loop.yield_([acc])
        store_accumulator(k, loop.results[0], q + block * out[0].nbytes, 8, "f32")

    report = launch(build, [a, out], grid=3, block=256)
    report.check()
    product = a.astype(np.float64) @ a[:8].astype(np.float64).T
    expected = [product.astype(np.float32)]
    for _ in range(2):
        expected.append((expected[-1] + product).astype(np.float32))
    assert all(np.array_equal(out[i, j], x) for i, x in enumerate(expected) for j in range(2))
    assert report.executed == {"wgmma.m64n8k16.f16.f16": 12}


@pytest.mark.parametrize(
    ("who", "block", "words"),
    [
        (lambda k, block, warp: block.ne(1) | warp.ne(2), 128, r"deadlock: 96 .* of block 1, where its warps 0, 1, 3 are$"),
        (lambda k, block, warp: block.eq(0) | (warp < 2), 128, r"^(?=.* where its warps 0, 1 are).*its warps 2, 3 are"),
        (lambda k, block, warp: (k.thread_id() & 31) < 5, 128, "by a part of a warpgroup"),
        (lambda k, block, warp: warp.eq(4), 160, "by a part of a warpgroup"),
        # Threads in a row, but of two blocks.
        (lambda k, block, warp: (block.eq(0) & warp.eq(4)) | (block.eq(1) & (warp < 3)), 160, "by a part of a warpgroup"),
    ],
    ids=["a warp never comes", "another instruction", "a part of a warp", "a short warpgroup", "of two blocks"],
)
def test_parts_of_a_warpgroup_are_errors(who, block, words):
    def build(k, p):
        with k.if_else(who(k, k.block_id(), k.warp_id())) as branch:
            with branch.then:
                k.wgmma_fence()
            with branch.else_:
                if "2, 3 are" in words:  # a second instruction
                    k.wgmma_fence()

    with pytest.raises(EmulationError, match=words):
        launch(build, [np.zeros(1, np.int32)], grid=2, block=block)


# --- the whole: a warp-specialized GEMM with TMA, mbarriers, clusters and wgmma


def pipelined_gemm(k, a_map, b_map, c_map, *, depth, stages, cluster, kind, element_bytes, without=""):
    """C = A * B^T in 64 x 64 tiles: a producer feeds a ring of stages, a warpgroup multiplies; the cluster shares B."""
    tile, step = 64 * 128, 128 // element_bytes
    t, warp = k.thread_id(), k.warp_id()
    rank = k.cluster_rank()
    shared = k.dynamic_shared()
    staging = stages * 2 * tile
    bars = shared + staging + tile

    def full(stage):
        return bars + k.value(stage) * 8

    def empty(stage):
        return bars + (k.value(stage) * 8 + 8 * stages)

    m0, n0 = k.block_id(0) * 64, k.block_id(1) * 64
    with k.if_(t.eq(0)):
        for s in range(stages):
            k.mbarrier_init(full(s), 1)
            k.mbarrier_init(empty(s), cluster)
        k.fence_mbarrier_init()
    k.cluster_sync()

    def advance(stage, phase):
        following = stage + 1
        wrapped = following.eq(stages)
        return [k.select(wrapped, 0, following), k.select(wrapped, phase ^ 1, phase)]

    zero = k.const(0)
    with k.if_else((warp >> 2).eq(0)) as role:
        with role.then:
            with k.if_(t.eq(0)), k.for_(0, depth // step, carry=[zero, zero]) as loop:
                stage, phase = loop.carry
                if without != "empty":
                    k.mbarrier_wait(empty(stage), phase ^ 1)
                k.mbarrier_arrive_expect(full(stage), 2 * tile)
                where = shared + stage * (2 * tile)
                k.tma_load(where, a_map, [loop.iv * step, m0], full(stage))
                half = tile // cluster
                k.tma_load(
                    where + tile + rank * half, b_map, [loop.iv * step, n0 + rank * (64 // cluster)], full(stage),
                    multicast=(1 << cluster) - 1,
                )  # fmt: skip
                loop.yield_(advance(stage, phase))
        with role.else_:
            inside = t & 127
            with k.for_(0, depth // step, carry=[zero, zero, k.wgmma_accumulator(64)]) as loop:
                stage, phase, acc = loop.carry
                k.mbarrier_wait(full(stage), phase)
                where = shared + stage * (2 * tile)
                da, db = (
                    k.wgmma_descriptor(where + i * tile, leading_bytes=16, stride_bytes=1024, swizzle=128) for i in range(2)
                )
                k.wgmma_fence()
                for i in range(4):
                    acc = k.wgmma(acc, da + 2 * i, db + 2 * i, (64, 64, 32 // element_bytes), kind)
                k.wgmma_commit()
                k.wgmma_wait(0)
                with k.if_(inside < cluster):
                    k.mbarrier_arrive_remote(empty(stage), inside)
                loop.yield_([*advance(stage, phase), acc])
            d = k.elements(loop.results[2])
            lane = t & 31
            row = (((warp & 3) * 16 + (lane & 15)) << 7) + staging
            for j in range(4):
                words = [k.vector(d[8 * j + 2 * i : 8 * j + 2 * i + 2]).to("bf16") for i in range(4)]
                k.stmatrix(shared + (row + ((((lane >> 4) + 2 * j) ^ (lane & 7)) << 4)), words)
            k.fence_async_shared()
            k.barrier(1, 128)
            with k.if_(inside.eq(0)):
                k.tma_store(c_map, shared + staging, [n0, m0])
                k.bulk_commit()
                k.bulk_wait(0)
    k.cluster_sync(aligned=False)


@pytest.mark.parametrize("cluster", [1, 2])
@pytest.mark.parametrize("kind", ["bf16", "e4m3"])
def test_a_warp_specialized_gemm(kind, cluster):
    rng = np.random.default_rng(0)
    m, n, depth, stages = 128, 128, 512, 3
    a, b = sample(rng, (m, depth), kind), sample(rng, (n, depth), kind)
    c = np.zeros((m, n), ml_dtypes.bfloat16)
    size = a.itemsize
    name = {"bf16": "bf16", "e4m3": "f8E4M3FN"}[kind]

    def tensor(x, dtype, rows):
        return TensorMap(x, dtype, x.shape[::-1], (x.shape[1] * x.itemsize,), (128 // x.itemsize, rows))

    def build(k, pa, pb, pc, without=""):
        pipelined_gemm(
            k, pa, pb, pc, depth=depth, stages=stages, cluster=cluster, kind=kind, element_bytes=size, without=without
        )

    maps = [tensor(a, name, 64), tensor(b, name, 64 // cluster), tensor(c, "bf16", 64)]
    options = {"grid": (2, 2), "block": 256, "cluster": cluster, "shared": (2 * stages + 1) * 8192 + 16 * stages}
    report = launch(build, maps, **options)
    report.check()
    exact = a.astype(np.float64) @ b.astype(np.float64).T
    assert np.abs(c.astype(np.float64) - exact).max() <= np.abs(exact).max() * 2**-8
    assert report.bank_conflicts == 0
    assert report.executed[f"wgmma.m64n64k{32 // size}.{kind}.{kind}"] == 4 * 4 * (depth * size // 128)
    with pytest.raises(EmulationError, match="in use by an unfinished asynchronous operation"):
        launch(lambda *args: build(*args, without="empty"), maps, **options).check()
