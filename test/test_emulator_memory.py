"""What the emulator says about memory: bounds, alignment, uninitialized bytes, races, conflicting writes, bank conflicts."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from ingot.compiler.codegen.kernel_builder import KernelModule, Param
from ingot.compiler.emulator import EmulationError, Uninitialized, emulate


def launch(build, args, *, grid=1, block=64, target="sm_80", check=True, shared=0):
    with KernelModule(target) as m:
        params = [Param(f"p{i}", "i32" if isinstance(a, int) else "ptr<1>") for i, a in enumerate(args)]
        with m.kernel("kernel", params, threads=block) as k:
            build(k, *k.args)
        return emulate(m.module, "kernel", grid, block, args, dynamic_shared_bytes=shared, check=check, count_conflicts=True)


def kinds(report):
    return [f.kind for f in report.findings]


def test_out_of_bounds_accesses_are_named():
    x = np.zeros(60, np.float32)

    def build(k, p):
        t = k.thread_id()
        k.store(k.load(p.at(t, "f32"), "f32") + 1.0, p.at(t, "f32"))

    report = launch(build, [x])
    assert kinds(report) == ["out of bounds", "out of bounds"]
    finding = report.findings[0]
    assert (finding.operation, finding.block, finding.thread) == ("llvm.load", 0, 60)
    assert "byte 240 of buffer 0 (240 bytes)" in finding.detail
    assert (x == 1).all()  # the good lanes went on
    with pytest.raises(EmulationError, match=r"out of bounds: llvm\.load in block 0, thread 60"):
        report.check()


def test_a_pointer_into_nowhere():
    def build(k, p):
        k.store(k.const(1), k.int_to_ptr(k.const(64, "i64"), "ptr<1>"))

    assert kinds(launch(build, [np.zeros(1, np.int32)])) == ["out of bounds"]


def test_misaligned_vectors():
    def build(k, p):
        k.store(k.load(p + 4, "vector<4xf32>", align=16), p, align=16)

    report = launch(build, [np.zeros(16, np.float32)])
    assert kinds(report) == ["misaligned"]
    assert "multiple of 16" in report.findings[0].detail


def test_unwritten_memory_is_poison():
    out = np.zeros(64, np.float32)

    def build(k, p, q):
        t = k.thread_id()
        shared = k.dynamic_shared()
        with k.if_(t < 63):
            k.store(t.to("f32"), shared.at(t, "f32"))
        k.barrier()
        x = k.load(shared.at(t, "f32"), "f32")
        with k.if_(t.eq(0)):
            x = x + k.load(q, "f32")
            k.store(x, q)
            k.store(x, q)
        k.store(k.load(shared.at(t, "f32"), "f32"), p.at(t, "f32"))

    report = launch(build, [out, Uninitialized(np.zeros(1, np.float32))], shared=256)
    assert kinds(report) == ["uninitialized"] * 2
    assert report.findings[0].thread == 63
    assert "shared offset 252" in report.findings[0].detail
    assert "global address" in report.findings[1].detail
    assert np.isnan(out[63])


def test_launches_may_share_a_result():
    """What one launch leaves unwritten stays as the launch before left it."""
    out = np.full(64, 7, np.int32)

    def build(k, p):
        with k.if_(k.thread_id() < 32):
            k.store(k.thread_id(), p.at(k.thread_id(), "i32"))

    launch(build, [Uninitialized(out)]).check()
    assert out.tolist() == [*range(32), *[7] * 32]


@pytest.mark.parametrize("synchronized", [True, False])
def test_races_between_warps(synchronized):
    out = np.zeros(64, np.int32)

    def build(k, p):
        t = k.thread_id()
        shared = k.dynamic_shared()
        with k.for_(0, 3) as loop:
            k.store(t + loop.iv, shared.at(t, "i32"))
            k.barrier()
            x = k.load(shared.at(t ^ 32, "i32"), "i32")
            k.store(x, p.at(t, "i32"))
            if synchronized:
                k.barrier()

    report = launch(build, [out], shared=256)
    assert kinds(report) == ([] if synchronized else ["race"])
    if not synchronized:
        assert "overwrites shared offset 0, what warp 1 reads, with no barrier between" in report.findings[0].detail


def test_a_write_after_a_write_is_a_race():
    def build(k, p):
        k.store(k.warp_id(), k.dynamic_shared().at(k.lane_id(), "i32"))

    report = launch(build, [np.zeros(1, np.int32)], shared=128)
    assert "race" in kinds(report) or "conflict" in kinds(report)


def test_named_barriers_order_only_their_warps():
    def build(k, p):
        t, warp = k.thread_id(), k.warp_id()
        shared = k.dynamic_shared()
        k.store(t, shared.at(t, "i32"))
        k.barrier((warp >> 1) + 1, 64)
        k.store(k.load(shared.at(t ^ k.select(warp < 2, k.const(32), 64), "i32"), "i32"), p.at(t, "i32"))

    report = launch(build, [np.zeros(128, np.int32)], block=128, shared=512)
    assert kinds(report) == ["race"]
    assert report.findings[0].thread == 64  # warps 2 and 3 read what warps 0 and 1 wrote


def test_lanes_that_write_different_values_to_one_place():
    def build(k, p):
        t = k.thread_id()
        k.store(t >> 1, k.dynamic_shared().at(t >> 2, "i32"))

    report = launch(build, [np.zeros(1, np.int32)], block=32, shared=128)
    assert kinds(report) == ["conflict"]

    def harmless(k, p):
        k.store(k.const(3), k.dynamic_shared().at(k.thread_id() >> 2, "i32"))

    assert launch(harmless, [np.zeros(1, np.int32)], block=32, shared=128).ok


@pytest.mark.parametrize(
    ("stride", "width", "conflicts"),
    [(4, 4, 0), (8, 4, 1), (128, 4, 31), (132, 4, 0), (16, 16, 0), (128, 16, 4 * 7), (144, 16, 0), (8, 8, 0), (0, 4, 0)],
)
def test_bank_conflicts(stride, width, conflicts):
    """Rows of `stride` bytes, one access of `width` bytes a lane: 4-byte accesses go by warps, 16-byte ones by quarters."""

    def build(k, p):
        shared = k.dynamic_shared() + k.thread_id() * stride
        k.store(k.const(1, "vector<4xi32>") if width == 16 else k.const(1, f"i{8 * width}"), shared, align=width)

    report = launch(build, [np.zeros(1, np.int32)], block=32, shared=32 * max(stride, 4) + 16)
    assert report.bank_conflicts == conflicts


def test_bank_conflicts_of_ldmatrix_depend_on_the_swizzle():
    def build(swizzle):
        def inner(k, p):
            t = k.thread_id()
            shared = k.dynamic_shared()
            with k.for_(t, 512, 32) as loop:
                k.store(loop.iv, shared.at(loop.iv, "i32"))
            k.warp_sync()
            chunk = (t >> 4) ^ (t & 7) if swizzle else t >> 4
            k.store(k.ldmatrix(shared + ((t & 15) * 128 + chunk * 16), 4)[0], p.at(t, "i32"))

        return inner

    arrays = [np.zeros(32, np.int32)]
    assert launch(build(True), arrays, block=32, shared=2048).bank_conflicts == 0
    assert launch(build(False), arrays, block=32, shared=2048).bank_conflicts == 4 * 7


def test_without_checks_only_bounds_are_looked_at():
    def build(k, p):
        t = k.thread_id()
        shared = k.dynamic_shared()
        k.store(t, shared.at(t, "i32"))
        k.store(k.load(shared.at(t ^ 32, "i32"), "i32"), p.at(t, "i32"))

    report = launch(build, [np.zeros(63, np.int32)], shared=256, check=False)
    assert kinds(report) == ["out of bounds"]


def test_atomics_serialize_lanes():
    total, old = np.zeros(3, np.float32), np.zeros(64, np.int32)
    counter = np.zeros(1, np.int32)

    def build(k, p, q, r):
        t = k.thread_id()
        k.atomic("fadd", p.at(t % 3, "f32"), t.to("f32"))
        k.store(k.atomic("add", q, 1, element="i32"), r.at(t, "i32"))
        shared = k.dynamic_shared()
        with k.if_(t.eq(0)):
            k.store(k.const(-5), shared)
        k.barrier()
        k.atomic("max", shared, t)
        k.barrier()
        with k.if_(t.eq(0)):
            k.atomic("umax", q, k.load(shared, "i32"))

    launch(build, [total, counter, old], shared=4).check()
    assert total.tolist() == [sum(range(i, 64, 3)) for i in range(3)]
    assert sorted(old.tolist()) == list(range(64))
    assert counter[0] == 64


def test_masked_and_gathered_vectors_touch_active_lanes_only():
    x, out = np.arange(6, dtype=np.float32), np.zeros((4, 4), np.float32)

    def build(k, p, q):
        t = k.thread_id()
        lanes = k.iota("vector<4xi32>") + k.broadcast(t * 2, 4)
        v = k.masked_load(p.at(t * 2, "f32"), "vector<4xf32>", lanes < 6, -1.0)
        w = k.gather(p.at(5 - lanes, "f32"), "f32", mask=lanes < 6)
        k.masked_store(v * 10.0 + w, q.at(t * 4, "f32"), lanes.ne(3))

    launch(build, [x, out], block=4).check()
    lanes = np.arange(4)[:, None] * 2 + np.arange(4)
    expected = np.where(lanes < 6, lanes * 10.0 + (5 - lanes), -10)
    assert np.array_equal(out, np.where(lanes == 3, 0, expected).astype(np.float32))


def test_generic_pointers_reach_shared_and_global_memory():
    out = np.zeros(32, np.int32)

    def build(k, p):
        t = k.thread_id()
        shared = k.address_space(k.dynamic_shared(), "ptr")
        k.store(t * 5, shared.at(t, "i32"))
        k.warp_sync()
        k.store(k.load(shared.at(31 - t, "i32"), "i32"), k.address_space(p, "ptr").at(t, "i32"))

    launch(build, [out], block=32, shared=128).check()
    assert out.tolist() == [5 * (31 - t) for t in range(32)]


@pytest.mark.parametrize("target", ["sm_80", "sm_90a"])
@pytest.mark.parametrize(("mlir", "name"), [("f8E4M3FN", "float8_e4m3fn"), ("f8E5M2", "float8_e5m2")])
def test_small_floats_by_instruction_and_by_bits(target, mlir, name):
    dtype = np.dtype(getattr(ml_dtypes, name))
    rng = np.random.default_rng(0)
    x = (rng.standard_normal(64) * np.exp2(rng.integers(-12, 12, 64))).astype(np.float32)
    x[:4] = [0, -0.0, np.inf, 1e9]
    codes, back = np.zeros(64, np.uint8), np.zeros(64, np.float32)

    def build(k, p, q, r):
        t = k.thread_id() * 2
        v = k.load(p.at(t, "f32"), "vector<2xf32>", align=8)
        c = k.encode_float(v, mlir)
        k.store(c, q + t, align=2)
        k.store(k.decode_float(c, mlir), r.at(t, "f32"), align=8)

    launch(build, [x, codes, back], block=32, target=target).check()
    largest = float(ml_dtypes.finfo(dtype).max)
    expected = np.clip(x, -largest, largest).astype(dtype)
    assert np.array_equal(codes, expected.view(np.uint8))
    assert np.array_equal(back, expected.astype(np.float32))


def test_integer_instructions():
    out = np.zeros((2, 32), np.int32)

    def build(k, p):
        t = k.thread_id()
        word = t | (t << 8) | (~t << 24)
        k.store(k.dp4a(word, k.const(0x7F0102FF), k.const(10)), p.at(t, "i32"))
        k.store(k.prmt(word, k.const(0x44332211), 0x7610), p.at(t + 32, "i32"))

    launch(build, [out], block=32).check()
    t = np.arange(32)
    assert np.array_equal(out[0], 10 - t + 2 * t + 0x7F * (~t))
    assert np.array_equal(out[1], (0x44330000 | (t << 8) | t).astype(np.uint32).view(np.int32))


def test_arguments_that_are_parts_of_one_array():
    whole = np.zeros(64, np.int32)
    first, second = whole[:32], whole[32:]

    def build(k, p, q, r):
        t = k.thread_id()
        k.store(t, p.at(t, "i32"))
        k.store(k.load(r.at(t, "i32"), "i32") * 2, q.at(t, "i32"))

    launch(build, [first, second, whole.view(np.uint8)], block=32).check()
    assert whole.tolist() == [*range(32), *range(0, 64, 2)]
    with pytest.raises(ValueError, match="overlap"):
        launch(build, [whole[:40], whole[32:], whole[::2]], block=32)
