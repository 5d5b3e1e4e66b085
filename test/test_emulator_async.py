"""The emulator's asynchronous engines: cp.async, mbarriers, TMA; and what it says when a wait is missing."""

from __future__ import annotations

import numpy as np
import pytest
from emulator_launch import kinds, launch

from ingot.compiler.emulator import EmulationError, TensorMap, Uninitialized

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
