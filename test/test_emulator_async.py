"""The emulator's asynchronous engines: cp.async, mbarriers, TMA, wgmma; and what it says when a wait is missing."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from tensor_core_sums import LEAST_EXPONENT, instruction

from ingot.compiler.codegen.kernel_builder import KernelModule, Param
from ingot.compiler.emulator import EmulationError, TensorMap, Uninitialized, emulate


def launch(build, args, *, grid=1, block=32, cluster=1, shared=4096, target="sm_90a"):
    def param(i, a):
        if isinstance(a, TensorMap):
            return Param(f"p{i}", "tensormap")
        return Param(f"p{i}", "i32" if isinstance(a, int) else "ptr<1>")

    with KernelModule(target) as m:
        with m.kernel("kernel", [param(i, a) for i, a in enumerate(args)], threads=block, cluster=cluster) as k:
            build(k, *k.args)
        return emulate(
            m.module, "kernel", grid, block, args, cluster=cluster, dynamic_shared_bytes=shared, count_conflicts=True
        )


def kinds(report):
    return [f.kind for f in report.findings]


# --- cp.async


@pytest.mark.parametrize("pending", [0, 1])
def test_cp_async_lands_at_the_wait(pending):
    x, out = np.arange(256, dtype=np.float32), np.zeros(128, np.float32)

    def build(k, p, q):
        t = k.thread_id()
        shared = k.dynamic_shared()
        for group in range(2):
            k.cp_async(shared + (t * 16 + group * 512), p + (t * 16 + group * 512), 16)
            k.cp_async_commit()
        k.cp_async_wait(pending)
        k.warp_sync()
        k.store(k.load(shared + (t * 16 + 512), "vector<4xf32>", align=16), q + t * 16, align=16)

    report = launch(build, [x, out])
    if pending:  # the second group is still under way
        assert kinds(report) == ["uninitialized", "async"]
        assert np.isnan(out).all()
    else:
        assert report.ok
        assert np.array_equal(out, x[128:])


def test_cp_async_fills_with_zeros_and_reads_only_what_it_must():
    x, out = np.arange(30, dtype=np.float32), np.zeros(32, np.float32)

    def build(k, p, q):
        t = k.thread_id()
        shared = k.dynamic_shared()
        left = k.min(k.max(120 - t * 16, 0), 16)
        with k.if_(t < 8):
            k.cp_async(shared + t * 16, p + t * 16, 16, left)
        k.cp_async_commit()
        k.cp_async_wait(0)
        k.warp_sync()
        k.store(k.load(shared.at(t, "f32"), "f32"), q.at(t, "f32"))

    launch(build, [x, out]).check()
    assert np.array_equal(out, np.concatenate([x, [0, 0]]).astype(np.float32))


def test_cp_async_into_memory_in_use_is_reported():
    def build(k, p):
        t = k.thread_id()
        shared = k.dynamic_shared()
        k.cp_async(shared + t * 16, p, 16)
        k.store(k.const(0), shared)
        k.cp_async_commit()
        k.cp_async_wait(0)

    assert "async" in kinds(launch(build, [np.zeros(4, np.int32)]))


def test_cp_async_arrives_on_an_mbarrier():
    x, out = np.arange(128, dtype=np.int32), np.zeros(32, np.int32)

    def build(k, p, q):
        t = k.thread_id()
        shared = k.dynamic_shared()
        bar = shared + 1024
        with k.if_(t.eq(0)):
            k.mbarrier_init(bar, 32)
        k.barrier()
        with k.if_else(k.warp_id().eq(0)) as branch:
            with branch.then:
                k.cp_async(shared + t * 16, p + t * 16, 16)
                k.cp_async_mbarrier_arrive(bar)
            with branch.else_:
                k.mbarrier_wait(bar, 0)
                k.store(k.load(shared.at(127 - t, "i32"), "i32"), q.at(t - 32, "i32"))

    launch(build, [x, out], block=64).check()
    assert out.tolist() == [127 - t for t in range(32, 64)]


# --- mbarriers


def test_mbarrier_phases_and_parities():
    out = np.zeros(4, np.int32)

    def build(k, p):
        t, warp = k.thread_id(), k.warp_id()
        shared = k.dynamic_shared()
        full, empty = shared + 512, shared + 520
        with k.if_(t.eq(0)):
            k.mbarrier_init(full, 32)
            k.mbarrier_init(empty, 32)
        k.barrier()
        with k.if_else(warp.eq(0)) as branch:
            with branch.then:
                with k.for_(0, 4) as loop:
                    k.mbarrier_wait(empty, (loop.iv & 1) ^ 1)  # passes at once in the first round
                    k.store(loop.iv * 100 + t, shared.at(t, "i32"))
                    k.mbarrier_arrive(full)
            with branch.else_:
                with k.for_(0, 4) as loop:
                    k.mbarrier_wait(full, loop.iv & 1)
                    x = k.load(shared.at(63 - t, "i32"), "i32")
                    k.mbarrier_arrive(empty)
                    with k.if_(t.eq(40)):
                        k.store(x, p.at(loop.iv, "i32"))

    launch(build, [out], block=64).check()
    assert out.tolist() == [23, 123, 223, 323]


def test_misused_mbarriers():
    def too_many(k, p):
        bar = k.dynamic_shared()
        k.mbarrier_init(bar, 31)
        k.mbarrier_arrive(bar)

    report = launch(too_many, [np.zeros(1, np.int32)])
    assert kinds(report) == ["mbarrier"]
    assert "more than the 31 arrivals" in report.findings[0].detail

    def missing(k, p):
        k.mbarrier_arrive(k.dynamic_shared() + 8)

    assert "no mbarrier was initialized at shared offset 8" in str(launch(missing, [np.zeros(1, np.int32)]).findings[0])

    def forgotten(k, p):
        bar = k.dynamic_shared()
        k.mbarrier_init(bar, 33)
        k.mbarrier_arrive(bar)
        k.mbarrier_wait(bar, 0)

    with pytest.raises(EmulationError, match="phase 0 awaits 1 arrivals and 0 bytes"):
        launch(forgotten, [np.zeros(1, np.int32)])


# --- TMA


def tile_of(x, start, box):
    """numpy's idea of a box (innermost first) with zeros outside."""
    out = np.zeros(box[::-1], x.dtype)
    index = [np.arange(s, s + b) for s, b in zip(start, box, strict=True)][::-1]
    inside = [(i >= 0) & (i < n) for i, n in zip(index, x.shape, strict=True)]
    out[np.ix_(*inside)] = x[np.ix_(*[i[g] for i, g in zip(index, inside, strict=True)])]
    return out


def copy_box(k, descriptor, coordinates, size, out, **options):
    """Load a box to shared memory by one thread, and copy its bytes to `out`."""
    t = k.thread_id()
    shared = k.dynamic_shared()
    bar = shared + size
    with k.if_(t.eq(0)):
        k.mbarrier_init(bar, 1)
        k.fence_mbarrier_init()
    k.barrier()
    with k.if_(t.eq(0)):
        k.mbarrier_arrive_expect(bar, size)
        k.tma_load(shared, descriptor, coordinates, bar, **options)
    k.mbarrier_wait(bar, 0)
    with k.for_(t * 16, size, 512) as loop:
        k.store(k.load(shared + loop.iv, "vector<4xi32>", align=16), out + loop.iv, align=16)


def unswizzle(data, swizzle):
    """Undo the swizzle chunk by chunk, by the ISA's pictures: chunk c of row r (of 128 bytes) goes to c ^ (r % n) and so on."""
    chunks = data.reshape(-1, 8, 16).copy()
    out = np.empty_like(chunks)
    for r in range(len(chunks)):
        for c in range(8):
            to = {0: c, 32: c ^ (r & 1), 64: c ^ (r & 3), 128: c ^ (r & 7)}[swizzle]
            out[r, c] = chunks[r, to]
    return out.reshape(-1)


@pytest.mark.parametrize("start", [(0, 0), (-3, 5), (40, -2), (1000, 0)])
@pytest.mark.parametrize("swizzle", [0, 32, 64, 128])
def test_tma_tiles(swizzle, start):
    rng = np.random.default_rng(0)
    x = rng.integers(-1000, 1000, (19, 56)).astype(np.int16)
    box = (max(16, swizzle // 2) if swizzle else 8, 16)
    size = box[0] * box[1] * 2
    out = np.zeros(size, np.uint8)
    tensor = TensorMap(x, "i16", (56, 19), (112,), box, swizzle=swizzle)
    launch(lambda k, d, p: copy_box(k, d, start, size, p), [tensor, out]).check()
    assert np.array_equal(unswizzle(out, swizzle).view(np.int16).reshape(box[::-1]), tile_of(x, start, box))


def test_tma_tiles_of_more_axes_and_types():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 4, 6, 8)).astype(np.float32)
    strides = tuple(s for s in x.strides[::-1][1:])
    box = (4, 3, 2, 2)
    out = np.zeros(4 * 3 * 2 * 2 * 4, np.uint8)
    tensor = TensorMap(x, "f32", x.shape[::-1], strides, box, swizzle=0)
    launch(lambda k, d, p: copy_box(k, d, [4, 4, 3, -1], out.size, p), [tensor, out]).check()
    assert np.array_equal(out.view(np.float32).reshape(box[::-1]), tile_of(x, (4, 4, 3, -1), box))


def pixel_column(start, offsets, size):
    return lambda k, d, p: copy_box(k, d, start, size, p, im2col=offsets)


@pytest.mark.parametrize(("pad", "filter_", "stride"), [(1, 3, 1), (0, 3, 1), (2, 5, 1), (1, 3, 2)])
def test_tma_im2col_feeds_a_convolution(pad, filter_, stride):
    """Every filter position's column of pixels, as an implicit GEMM reads them, against padding and slicing in numpy."""
    n, h, w, c = 2, 6, 7, 16
    rng = np.random.default_rng(0)
    x = rng.integers(-99, 99, (n, h, w, c)).astype(np.int16)
    oh, ow = (h + 2 * pad - filter_) // stride + 1, (w + 2 * pad - filter_) // stride + 1
    pixels = 32
    lower, upper = (-pad, -pad), (pad - (filter_ - 1), pad - (filter_ - 1))
    tensor = TensorMap(
        x, "i16", (c, w, h, n), (c * 2, w * c * 2, h * w * c * 2), (), swizzle=32,
        im2col=(lower, upper, c, pixels), element_strides=(stride, stride),
    )  # fmt: skip
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    for first in (0, 17):
        image, row, column = np.unravel_index(first, (n, oh, ow))
        for fy, fx in ((0, 0), (filter_ - 1, 1)):
            out = np.zeros(pixels * c * 2, np.uint8)

            start = [0, int(column) * stride - pad, int(row) * stride - pad, int(image)]
            launch(pixel_column(start, [fx, fy], pixels * c * 2), [tensor, out]).check()
            window = padded[:, fy : fy + stride * oh : stride, fx : fx + stride * ow : stride][:, :oh, :ow]
            expected = np.zeros((pixels, c), np.int16)
            rows = window.reshape(-1, c)[first : first + pixels]
            expected[: len(rows)] = rows
            got = unswizzle(out, 32).view(np.int16).reshape(pixels, c)
            assert np.array_equal(got, expected), (first, fy, fx)


def test_tma_multicast_reaches_the_cluster():
    x = np.arange(1024, dtype=np.int32).reshape(32, 32)
    out = np.zeros((2, 2, 16, 32), np.int32)
    tensor = TensorMap(x, "i32", (32, 32), (128,), (32, 16))

    def build(k, d, p):
        t, rank = k.thread_id(), k.cluster_rank()
        shared = k.dynamic_shared()
        bar = shared + 4096
        with k.if_(t.eq(0)):
            k.mbarrier_init(bar, 1)
            k.fence_mbarrier_init()
        k.cluster_sync()
        with k.if_(t.eq(0)):
            k.mbarrier_arrive_expect(bar, 4096)
            k.tma_load(shared + rank * 2048, d, [0, rank * 16], bar, multicast=3)  # each block loads half, for both
        k.mbarrier_wait(bar, 0)
        for i in range(0, 4096, 512):
            offset = t * 16 + i
            x = k.load(shared + ((offset) ^ (((offset >> 7) & 7) << 4)), "vector<4xi32>", align=16)
            k.store(x, p + (rank * 4096 + offset), align=16)
        k.cluster_sync()

    launch(build, [tensor, out], grid=2, cluster=2, shared=4104).check()
    assert np.array_equal(out, np.broadcast_to(x.reshape(2, 16, 32), (2, 2, 16, 32)))


@pytest.mark.parametrize("reduction", ["", "add"])
def test_tma_stores_leave_out_what_is_outside(reduction):
    x = np.full((10, 20), 5, np.float32)
    tensor = TensorMap(x, "f32", (20, 10), (80,), (16, 8), swizzle=64)

    def build(k, d):
        t = k.thread_id()
        shared = k.dynamic_shared()
        with k.for_(t * 4, 512, 128) as loop:
            offset = loop.iv
            k.store(offset.to("f32"), shared + (offset ^ (((offset >> 7) & 3) << 4)))
        k.fence_async_shared()
        k.barrier()
        with k.if_(t.eq(0)):
            if reduction:
                k.tma_reduce(d, shared, [8, -4], reduction)
            else:
                k.tma_store(d, shared, [8, -4])
            k.bulk_commit()
            k.bulk_wait(0)

    launch(build, [tensor]).check()
    expected = np.full((10, 20), 5.0, np.float32)
    box = np.arange(0, 512, 4, dtype=np.float32).reshape(8, 16)
    expected[:4, 8:20] = box[4:, :12] + (5 if reduction else 0)
    assert np.array_equal(x, expected)


def test_bulk_copies():
    x, out = np.arange(256, dtype=np.int32), np.zeros(256, np.int32)

    def build(k, p, q):
        t = k.thread_id()
        shared = k.dynamic_shared()
        bar = shared + 1024
        with k.if_(t.eq(0)):
            k.mbarrier_init(bar, 1)
            k.mbarrier_arrive_expect(bar, 1024)
            k.bulk_load(shared, p, 1024, bar)
            k.mbarrier_wait(bar, 0)
            k.bulk_store(q, shared, 1024)
            k.bulk_commit()
            k.bulk_wait(0, read=True)

    launch(build, [x, Uninitialized(out)], shared=1032).check()
    assert np.array_equal(out, x)


def store_kernel(fence=True, wait=True, overwrite=False):
    def build(k, d):
        t = k.thread_id()
        shared = k.dynamic_shared()
        k.store(k.const(1.0, "vector<4xf32>"), shared + t * 16, align=16)
        if fence:
            k.fence_async_shared()
        k.barrier()
        with k.if_(t.eq(0)):
            k.tma_store(d, shared, [0, 0])
            k.bulk_commit()
            if overwrite:
                k.store(k.const(2.0), shared)
            if wait:
                k.bulk_wait(0)

    return build


def test_stores_need_a_proxy_fence_a_wait_and_their_source_left_alone():
    def run(**options):
        x = np.zeros((4, 32), np.float32)
        return kinds(launch(store_kernel(**options), [TensorMap(x, "f32", (32, 4), (128,), (32, 4))]))

    assert run() == []
    assert run(fence=False) == ["proxy"]
    assert run(wait=False) == ["async"]
    assert run(overwrite=True) == ["async"]


def test_bad_tensor_maps_are_refused():
    x = np.zeros((8, 20), np.int16)
    with pytest.raises(ValueError, match="multiples of 16"):
        TensorMap(x, "i16", (20, 8), (40,), (8, 8), swizzle=0)
    with pytest.raises(ValueError, match="128-byte swizzle"):
        TensorMap(x, "i16", (16, 8), (32,), (128, 8))
    with pytest.raises(ValueError, match="multiple of 16"):
        TensorMap(x, "i16", (16, 8), (32,), (4, 8))
    with pytest.raises(ValueError, match="1 to 256"):
        TensorMap(x, "i16", (16, 8), (32,), (8, 257), swizzle=0)


# --- wgmma


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
