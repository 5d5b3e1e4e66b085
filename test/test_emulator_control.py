"""The emulator's threads: divergence, loops left at different times, barriers, reconvergence, clusters, spinning."""

from __future__ import annotations

import numpy as np
import pytest
from kernel_testing import everything

from ingot.compiler.codegen.kernel_builder import KernelModule, Param
from ingot.compiler.emulator import Addresses, EmulationError, Uninitialized, emulate
from ingot.compiler.emulator.program import Program
from ingot.cuda_targets import CUDA_TARGETS
from ingot.dialects.mlir import ir, kernel_context

POINTER = "ptr<1>"


def launch(build, args, *, grid=1, block=64, target="sm_90a", **options):
    """Emulate a kernel whose parameters are pointers to arrays, or i32 for ints."""
    with KernelModule(target) as m:
        params = [Param(f"p{i}", "i32" if isinstance(a, int) else POINTER) for i, a in enumerate(args)]
        with m.kernel("kernel", params, threads=block, cluster=options.get("cluster", 1)) as k:
            build(k, *k.args)
        return emulate(m.module, "kernel", grid, block, args, **options)


def test_lanes_that_diverge_meet_again():
    out = np.zeros(64, np.float32)

    def build(k, p):
        t = k.thread_id()
        with k.if_else(t % 3 < 1, results=["f32", "i32"]) as outer:
            with outer.then:
                with k.if_else(t < 32, results=["f32"]) as inner:
                    with inner.then:
                        inner.yield_([t.to("f32") * 2.0])
                    with inner.else_:
                        inner.yield_([-1.0])
                outer.yield_([*inner.results, 7])
            with outer.else_:
                outer.yield_([0.5, t])
        with k.if_(t > 60):
            k.store(k.const(100.0), p.at(t, "f32"))
        with k.if_(t <= 60):
            k.store(outer.results[0] + outer.results[1].to("f32"), p.at(t, "f32"))

    report = launch(build, [out])
    t = np.arange(64)
    expected = np.where(t % 3 == 0, np.where(t < 32, t * 2.0, -1) + 7, 0.5 + t)
    expected[61:] = 100
    assert np.array_equal(out, expected.astype(np.float32))
    assert report.ok


def test_each_thread_has_its_own_trip_count():
    out = np.zeros(64, np.int32)
    bits = np.zeros(64, np.int32)

    def build(k, p, q):
        t = k.thread_id()
        with k.for_(0, t % 7, carry=[k.const(0)]) as loop:
            with k.for_(loop.iv, t, 5, carry=[loop.carry[0]]) as inner:
                inner.yield_([inner.carry[0] + inner.iv])
            loop.yield_(inner.results)
        k.store(loop.results[0], p.at(t, "i32"))
        with k.while_([t, k.const(0)], lambda c: c[0] > 0) as halving:
            n, count = halving.carry
            halving.yield_([n >> 1, count + 1])
        k.store(halving.results[1], q.at(t, "i32"))

    launch(build, [out, bits]).check()
    assert out.tolist() == [sum(sum(range(i, t, 5)) for i in range(t % 7)) for t in range(64)]
    assert bits.tolist() == [t.bit_length() for t in range(64)]


def test_warps_at_different_places_meet_at_barriers():
    out = np.zeros(128, np.int32)

    def build(k, p):
        t, warp = k.thread_id(), k.warp_id()
        shared = k.dynamic_shared()
        k.store(t, shared.at(t, "i32"))
        with k.if_else(warp < 2) as branch:
            with branch.then:  # two warps exchange through a named barrier, twice
                with k.for_(0, 2):
                    k.barrier(1, 64)
                    x = k.load(shared.at(t ^ 32, "i32"), "i32")
                    k.barrier(1, 64)
                    k.store(x + 1000, shared.at(t, "i32"))
            with branch.else_:
                k.barrier(2, 64)
                x = k.load(shared.at(t ^ 32, "i32"), "i32")
                k.barrier(2, 64)
                k.store(x, shared.at(t, "i32"))
        k.barrier()
        k.store(k.load(shared.at(127 - t, "i32"), "i32"), p.at(t, "i32"))

    launch(build, [out], block=128, dynamic_shared_bytes=512).check()
    expected = np.concatenate([np.arange(64) + 2000, np.arange(64, 128) ^ 32])[::-1]
    assert np.array_equal(out, expected)


def test_barrier_that_only_arrives_lets_a_producer_run_ahead():
    out = np.zeros(32, np.int32)

    def build(k, p):
        t = k.thread_id()
        shared = k.dynamic_shared()
        with k.if_else(k.warp_id().eq(0)) as branch:
            with branch.then:
                k.store(t * 3, shared.at(t, "i32"))
                k.barrier_arrive(3, 64)
            with branch.else_:
                k.barrier(3, 64)
                k.store(k.load(shared.at(t - 32, "i32"), "i32"), p.at(t - 32, "i32"))

    launch(build, [out], dynamic_shared_bytes=128).check()
    assert out.tolist() == [t * 3 for t in range(32)]


def test_a_torn_warp_reconverges():
    out = np.zeros(64, np.int32)

    def build(k, p):
        t = k.thread_id()
        bar = k.dynamic_shared()
        with k.if_(t.eq(0)):
            k.mbarrier_init(bar, 1)
        k.barrier()
        with k.if_else(t.eq(5), results=["i32"]) as branch:  # one lane waits for what another warp does
            with branch.then:
                k.mbarrier_wait(bar, 0)
                branch.yield_([10])
            with branch.else_:
                with k.if_(t.eq(40)):
                    k.mbarrier_arrive(bar)
                branch.yield_([1])
        total = k.redux("add", branch.results[0])
        k.store(total, p.at(t, "i32"))

    launch(build, [out], dynamic_shared_bytes=16).check()
    assert out.tolist() == [41] * 32 + [32] * 32


def test_deadlocks_name_the_barrier():
    def build(k, p):
        with k.if_(k.thread_id() < 32):
            k.barrier()

    with pytest.raises(EmulationError, match=r"deadlock: 32 threads wait for bar.sync 0 of block 0, where 32 threads"):
        launch(build, [np.zeros(1, np.int32)])


def test_warp_wide_operations_need_whole_warps():
    def build(k, p):
        with k.if_(k.thread_id() < 5):
            k.store(k.shfl_xor(k.thread_id(), 1), p)

    with pytest.raises(EmulationError, match="part of a warp"):
        launch(build, [np.zeros(1, np.int32)])


def test_blocks_of_a_grid_and_special_registers():
    out = np.zeros((2, 3, 4, 64), np.int32)

    def build(k, p):
        linear = (k.block_id(2) * k.grid_dim(1) + k.block_id(1)) * k.grid_dim(0) + k.block_id(0)
        tid = (k.thread_id(2) * k.block_dim(1) + k.thread_id(1)) * k.block_dim(0) + k.thread_id(0)
        with k.if_(k.block_id(1) < 2):  # blocks that have nothing to do
            k.barrier()
            k.store(linear * 100 + tid, p.at(linear * 64 + tid, "i32"))

    report = launch(build, [out], grid=(4, 3, 2), block=(8, 4, 2))
    expected = np.arange(24)[:, None] * 100 + np.arange(64)
    expected = expected.reshape(2, 3, 4, 64)
    expected[:, 2] = 0
    assert np.array_equal(out, expected)
    assert report.blocks == 24


def test_blocks_of_a_cluster_read_each_other():
    out = np.zeros((4, 64), np.int32)

    def build(k, p):
        t, rank = k.thread_id(), k.cluster_rank()
        shared = k.dynamic_shared()
        k.store(k.block_id() * 1000 + t, shared.at(t, "i32"))
        k.cluster_sync()
        other = k.cluster_address(shared.at(t, "i32"), rank ^ 1)
        k.store(k.load(other, "i32"), p.at(k.block_id() * 64 + t, "i32"))
        k.cluster_sync()

    launch(build, [out], grid=4, cluster=2, dynamic_shared_bytes=256).check()
    assert np.array_equal(out, np.array([1, 0, 3, 2])[:, None] * 1000 + np.arange(64))


def test_blocks_may_wait_for_flags_of_other_blocks():
    flags, out = np.zeros(4, np.int32), np.zeros(4, np.int32)

    def build(k, p, q):
        block, t = k.block_id(), k.thread_id()
        with k.if_(t.eq(0)):
            with k.if_(block < 3):  # each waits for its right neighbour: the last block goes first
                with k.while_([k.const(0)], lambda c: k.atomic_load(p.at(block + 1, "i32"), "i32").eq(0)) as loop:
                    loop.yield_([loop.carry[0]])
            k.store(k.load(q.at(k.min(block + 1, 3), "i32"), "i32", volatile=True) + 1, q.at(block, "i32"))
            k.atomic_store(k.const(1), p.at(block, "i32"))

    launch(build, [flags, out], grid=4)
    assert out.tolist() == [4, 3, 2, 1]


def test_a_flag_that_nobody_sets_is_a_deadlock():
    def build(k, p):
        with k.while_([k.const(0)], lambda c: k.atomic_load(p, "i32").eq(0)) as loop:
            loop.yield_([loop.carry[0]])

    with pytest.raises(EmulationError, match="deadlock: 64 threads wait for a value in memory"):
        launch(build, [np.zeros(1, np.int32)])


def test_warp_shuffles_and_votes():
    out = np.zeros((6, 64), np.int32)

    def build(k, p):
        t = k.thread_id()
        rows = (
            k.shfl_xor(t, 3),
            k.shfl_up(t, 4),
            k.shfl_down(t, 4, width=8),
            k.shfl_index(t, 2, width=16),
            k.vote("ballot", (t & 1).eq(1)),
            k.select(k.elect(), 1, k.const(0)),
        )
        for i, row in enumerate(rows):
            k.store(row, p.at(t + 64 * i, "i32"))

    launch(build, [out]).check()
    t = np.arange(64)
    lane = t % 32
    assert np.array_equal(out[0], t ^ 3)
    assert np.array_equal(out[1], np.where(lane >= 4, t - 4, t))
    assert np.array_equal(out[2], np.where(lane % 8 < 4, t + 4, t))
    assert np.array_equal(out[3], t // 16 * 16 + 2)
    assert (out[4].view(np.uint32) == 0xAAAAAAAA).all()
    assert np.array_equal(out[5], lane == 0)


def test_values_wider_and_narrower_than_a_register_are_shuffled():
    out64, out16 = np.zeros(32, np.float64), np.zeros(32, np.float16)

    def build(k, p, q):
        t = k.thread_id()
        k.store(k.shfl_xor(t.to("f64") / 3.0, 1), p.at(t, "f64"))
        k.store(k.warp_reduce(lambda a, b: a + b, t.to("f16")), q.at(t, "f16"))

    launch(build, [out64, out16], block=32).check()
    assert np.array_equal(out64, (np.arange(32) ^ 1) / 3)
    assert (out16 == 496).all()


def test_kernels_for_the_cpu_run_too():
    x, y = np.arange(20, dtype=np.float32), np.zeros(20, np.float32)
    with KernelModule("cpu") as m:
        with m.kernel("kernel", [Param("buffers", "ptr"), Param("n", "i64")]) as k:
            buffers, n = k.args
            a, b = (k.load(buffers.at(i, "ptr"), "ptr") for i in range(2))
            scratch = k.alloca(64)
            with k.for_(0, n, 8) as loop:
                mask = k.iota("vector<8xi64>") + k.broadcast(loop.iv, 8) < n
                v = k.masked_load(a.at(loop.iv, "f32"), "vector<8xf32>", mask)
                k.store(v * v, scratch, align=4)
                k.masked_store(k.load(scratch, "vector<8xf32>", align=4), b.at(loop.iv, "f32"), mask)
        report = emulate(m.text(), "kernel", 1, 1, [Addresses([x, Uninitialized(y)]), 20])
    report.check()
    assert np.array_equal(y, x * x)


@pytest.mark.parametrize("target", [t.name for t in CUDA_TARGETS])
def test_every_operation_of_the_builder_is_known(target):
    text = everything(target)
    with kernel_context():
        module = ir.Module.parse(text)
        names = [
            ir.StringAttr(op.operation.attributes["sym_name"]).value
            for op in module.body.operations
            if op.operation.name == "llvm.func"
        ]
        assert names
        for name in names:
            Program(module, name)  # raises NotImplementedError for an operation it does not know


def test_arguments_must_fit():
    def build(k, p):
        k.store(k.thread_id(), p.at(k.thread_id(), "i32"))

    with KernelModule("sm_90a") as m:
        with m.kernel("kernel", [Param("p", POINTER)], threads=32) as k:
            build(k, *k.args)
        with pytest.raises(ValueError, match="takes 1 arguments, not 2"):
            emulate(m.module, "kernel", 1, 32, [np.zeros(32, np.int32), 3])
        with pytest.raises(ValueError, match="no argument for a pointer"):
            emulate(m.module, "kernel", 1, 32, ["x"])
        with pytest.raises(ValueError, match="clusters"):
            emulate(m.module, "kernel", 3, 32, [np.zeros(32, np.int32)], cluster=2)
        with pytest.raises(ValueError, match="no kernel 'other'"):
            emulate(m.module, "other", 1, 32, [])
