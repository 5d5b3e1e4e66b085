"""Helpers of the code generation tests: run a CPU image in this process, and a kernel that uses most of what a GPU has."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

from ingot.compiler.codegen.kernel_builder import KernelModule, Param
from ingot.compiler.toolchain.image import Image


class LoadedImage:
    """An image mapped for execution; `call(name, *args)` with numpy arrays (passed by address) and ints."""

    def __init__(self, image: Image) -> None:
        protection = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
        self._memory = mmap.mmap(-1, len(image.data) + Image.ALIGN, prot=protection)
        self._memory[: len(image.data)] = image.data
        self._base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._symbols = image.symbols

    def call(self, name: str, *args: Any) -> None:
        values = [ctypes.c_void_p(a.ctypes.data) if hasattr(a, "ctypes") else ctypes.c_int64(a) for a in args]
        function = ctypes.CFUNCTYPE(None, *[type(v) for v in values])(self._base + self._symbols[name])
        function(*values)


def everything(target: str) -> str:
    """Kernel IR text of kernels that use every GPU operation of the builder that `target` has."""
    with KernelModule(target) as m:
        with m.kernel("portable", [Param("a", "ptr<1>", noalias=True), Param("n", "i32")], threads=128) as k:
            a, n = k.args
            t = k.thread_id()
            shared = k.dynamic_shared()
            x = k.warp_reduce(k.max, k.load(a.at(t, "f32"), "f32"))
            y = k.ex2(x) + k.lg2(x) + k.rcp(x) + k.rsqrt_approx(x) + k.tanh_approx(x)
            y = k.shfl_up(y, 1) + k.shfl_down(y, 2) + k.shfl_index(y, 3)
            y = k.shfl_xor(y.to("f16"), 1).to("f32") + k.shfl_xor(y.to("f64"), 1).to("f32")
            k.store(y, shared.at(t, "f32"))
            k.barrier()
            k.barrier(1, 64)
            k.barrier_arrive(k.warp_id() + 2, 64)
            matrices = k.ldmatrix(shared + (t << 4), 4)
            (turned,) = k.ldmatrix(k.static_shared(1024), 1, transpose=True)
            d = k.mma((16, 8, 8), matrices[:2], [turned], [k.const(0.0)] * 4, "f16")
            i = k.mma((8, 8, 16), matrices[:1], [turned], [k.const(0)] * 2, "s8")
            lanes = k.vote("ballot", y > 0.0)
            k.warp_sync()
            k.store(d[0] + i[0].to("f32"), a)
            k.store(k.encode_float(k.vector([k.decode_float(lanes.to("i8"), "f8E4M3FN"), y]), "f8E5M2"), a + 16)
            k.atomic("fadd", a, y)
            k.atomic("add", a, 1, ordering="acq_rel", element="i32")
            k.memory_fence()
            k.atomic_store(k.atomic_load(a, "i32"), a)
            k.prefetch_l2(a)
            k.store(k.dp4a(lanes, n, lanes) + k.prmt(lanes, n, 0x3210), a + 4)
            k.store(k.load(k.constant_table([1, 2, 3], "i32").at(t, "i32"), "i32"), a + 8)
        if m.sm >= 80:
            with m.kernel("ampere", [Param("a", "ptr<1>")], threads=128) as k:
                (a,) = k.args
                shared, t = k.dynamic_shared(), k.thread_id()
                k.cp_async(shared, a, 16)
                k.cp_async(shared, a, 4, t)
                k.cp_async_commit()
                k.cp_async_wait(1)
                k.mbarrier_init(shared, 1)
                k.cp_async_mbarrier_arrive(shared)
                k.store(k.redux("add", t), a)
                r = k.ldmatrix(shared, 4)
                for i, (kind, depth) in enumerate((("bf16", 16), ("f16", 16), ("s8", 32), ("u8", 32), ("tf32", 8))):
                    zero = k.const(0 if kind in ("s8", "u8") else 0.0)
                    k.store(k.mma((16, 8, depth), r, r[:2], [zero] * 4, kind)[0], a + 16 * i)
                if m.sm == 89:
                    k.store(k.mma((16, 8, 32), r, r[:2], [k.const(0.0)] * 4, "e4m3", "e5m2")[0], a)
        if m.sm >= 90:
            with m.kernel("hopper", [Param("a", "ptr<1>"), Param("d", "tensormap")], threads=128, cluster=2) as k:
                a, d = k.args
                shared, t = k.dynamic_shared(), k.thread_id()
                k.mbarrier_init(shared, 1)
                k.fence_mbarrier_init()
                k.mbarrier_arrive(shared)
                k.mbarrier_arrive_expect(shared, 100)
                k.mbarrier_arrive_remote(shared, 1)
                k.mbarrier_wait(shared, 0)
                with k.if_(k.elect()):
                    k.tma_prefetch_descriptor(d)
                    k.tma_load(shared + 1024, d, [t, 0], shared)
                    k.tma_load(shared + 1024, d, [t, 0], shared, multicast=3)
                    k.tma_load(shared, d, [0, 1, 2, 3], shared, im2col=[1, 2])
                    k.tma_store(d, shared, [0, 0])
                    k.tma_reduce(d, shared, [0, 0])
                    k.bulk_commit()
                    k.bulk_wait(0, read=True)
                    k.bulk_wait(1)
                    k.bulk_load(shared, a, 128, shared)
                    k.bulk_store(a, shared, 128)
                k.cluster_sync()
                k.cluster_sync(aligned=False)
                k.fence_async_shared()
                k.grid_dependency_wait()
                k.grid_dependency_launch()
                k.stmatrix(shared, [t] * 4)
                k.store(k.load(k.cluster_address(shared, 1), "i32"), a)
                k.set_max_registers(40, increase=False)
                k.mbarrier_invalidate(shared)
        if target == "sm_90a":
            with m.kernel("warpgroup", [Param("a", "ptr<1>")], threads=128) as k:
                (a,) = k.args
                tile = k.wgmma_descriptor(k.dynamic_shared(), leading_bytes=16, stride_bytes=1024, swizzle=128)
                acc = k.wgmma_accumulator(64)
                k.wgmma_fence()
                acc = k.wgmma(acc, tile, tile + 2, (64, 64, 16), "bf16", accumulate=False)
                acc = k.wgmma(acc, tile, tile, (64, 64, 16), "f16", a_transposed=True, b_transposed=True)
                acc = k.wgmma(acc, tile, tile, (64, 64, 8), "tf32")
                acc = k.wgmma(acc, tile, tile, (64, 64, 32), "e4m3", "e5m2")
                acc = k.wgmma_registers(acc, [k.const(1)] * 4, tile, (64, 64, 16), "bf16", b_transposed=True)
                k.wgmma_commit()
                k.wgmma_wait()
                k.store(k.extract(acc, 3), a)
                whole = k.wgmma_accumulator(64, "i32")
                k.wgmma_fence()
                whole = k.wgmma(whole, tile, tile, (64, 64, 32), "s8")
                k.wgmma_commit()
                k.wgmma_wait(0)
                k.store(k.extract(whole, 0), a)
        if m.sm >= 120:
            with m.kernel("blackwell", [Param("a", "ptr<1>")], threads=32) as k:
                (a,) = k.args
                r, c = [k.thread_id()] * 4, [k.const(0.0)] * 4
                c = k.mma((16, 8, 32), r, r[:2], c, "e4m3", "e2m1", kind="f8f6f4")
                c = k.mma((16, 8, 32), r, r[:2], c, "e4m3", "e5m2", kind="f8f6f4")
                for kind, depth, vector, scale, x, y in (
                    ("mxf4nvf4", 64, 4, "ue4m3", "e2m1", "e2m1"),
                    ("mxf4", 64, 2, "ue8m0", "e2m1", "e2m1"),
                    ("mxf8f6f4", 32, 1, "ue8m0", "e4m3", "e2m1"),
                ):
                    options = {"kind": kind, "scale_vector": vector, "scale_type": scale, "a_selector": (0, 1)}
                    c = k.mma_block_scale((16, 8, depth), r, r[:2], c, x, y, a_scale=r[0], b_scale=r[0], **options)
                k.store(c[0], a)
                k.store(k.encode_float(k.vector(c), "f4E2M1FN"), a + 16)
                k.store(k.decode_float(r[0].to("i8") & 15, "f4E2M1FN"), a + 32)
        return m.text()
