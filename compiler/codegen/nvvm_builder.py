"""`NvvmBuilder`: NVIDIA's operations on top of `KernelBuilder` (special registers, synchronization, copies, math).

Tensor-core and matrix operations are in nvvm_matrix.py. Section names in the docstrings refer to the PTX ISA.

Shared memory is `ptr<3>`: `k.dynamic_shared()` is the start of the launch's dynamic shared memory, `k.static_shared(n)`
a static array. Barriers and mbarriers take run-time values or Python ints. Everything a warp must execute together says
so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ingot.compiler.codegen.nvvm_matrix import MatrixOps
from ingot.compiler.codegen.values import Operand, Val, ValueType
from ingot.dialects.mlir import ir

_AXES = "xyz"
_FULL_WARP = -1
# How long mbarrier.try_wait may suspend a thread before it looks again, in nanoseconds; any value is correct.
_SUSPEND_NS = 10_000_000
_ATOMICS = {
    "xchg": 0, "add": 1, "sub": 2, "and": 3, "or": 5, "xor": 6, "max": 7, "min": 8, "umax": 9, "umin": 10, "fadd": 11,
}  # fmt: skip
_ORDERINGS = {"relaxed": 2, "acquire": 4, "release": 5, "acq_rel": 6, "seq_cst": 7}


class NvvmBuilder(MatrixOps):
    """Emits one GPU kernel; see the module's docstring. Made by `KernelModule.kernel` for `sm_XX` targets."""

    @property
    def sm(self) -> int:
        """Compute capability times ten."""
        return self.module.sm

    # --- special registers ("Special Registers")

    def sreg(self, name: str) -> Val:
        """A special register as i32, by MLIR's name: `tid.x`, `cluster.ctarank`, ..."""
        return self.emit(f"nvvm.read.ptx.sreg.{name}", (), self.i32)

    def thread_id(self, axis: int = 0) -> Val:
        """Position of this thread in its block."""
        return self.sreg(f"tid.{_AXES[axis]}")

    def block_id(self, axis: int = 0) -> Val:
        """Position of this block in the grid."""
        return self.sreg(f"ctaid.{_AXES[axis]}")

    def block_dim(self, axis: int = 0) -> Val:
        """Threads of a block along an axis."""
        return self.sreg(f"ntid.{_AXES[axis]}")

    def grid_dim(self, axis: int = 0) -> Val:
        """Blocks of the grid along an axis."""
        return self.sreg(f"nctaid.{_AXES[axis]}")

    def cluster_rank(self) -> Val:
        """Rank of this block in its cluster."""
        return self.sreg("cluster.ctarank")

    def lane_id(self) -> Val:
        """Lane in the warp (of a one-dimensional block)."""
        return self.thread_id() & 31

    def warp_id(self) -> Val:
        """Warp in the block, broadcast from lane 0 so that the compiler knows it to be the same for the whole warp."""
        return self.shfl_index(self.thread_id() >> 5, 0)

    # --- shared memory

    def dynamic_shared(self, align: int = 1024) -> Val:
        """Start of dynamic shared memory, aligned to `align` bytes (the first call in a module decides)."""
        return self._shared_array("dynamic_shared", 0, align, "external")

    def static_shared(self, nbytes: int, align: int = 128, name: str = "shared") -> Val:
        """A static shared array of this kernel; each call with another `name` is another array."""
        return self._shared_array(f"{self.name}_{name}", nbytes, align, "internal")

    def _shared_array(self, symbol: str, nbytes: int, align: int, linkage: str) -> Val:
        key = f"shared {symbol}"
        if key not in self.module._attrs:
            self._global(symbol, f"!llvm.array<{nbytes} x i8>", linkage, align, space=3)
            self.module._attrs[key] = ir.FlatSymbolRefAttr.get(symbol, self.module.context)
        return self.emit("llvm.mlir.addressof", (), self.type("ptr<3>"), {"global_name": self.module._attrs[key]})

    def cluster_address(self, p: Val, rank: Operand) -> Val:
        """The address of `p` (shared) in the block of the cluster with that rank (`mapa`)."""
        return self.emit("nvvm.mapa", (p, self.value(rank, self.i32)), self.type("ptr<7>"))

    # --- barriers ("Parallel Synchronization and Communication Instructions")

    def barrier(self, barrier_id: Operand = 0, threads: Operand | None = None) -> None:
        """`bar.sync`: all threads of the block, or `threads` of them (a multiple of 32) at named barrier 0 to 15."""
        if threads is None and not isinstance(barrier_id, Val) and barrier_id == 0:
            self.op("nvvm.barrier", [], (), {"operandSegmentSizes": self.attr("array<i32: 0, 0>")})
            return
        operands = [self.value(barrier_id, self.i32)]
        if threads is not None:
            operands.append(self.value(threads, self.i32))
        sizes = self.attr(f"array<i32: 1, {len(operands) - 1}>")
        self.op("nvvm.barrier", operands, (), {"operandSegmentSizes": sizes})

    def barrier_arrive(self, barrier_id: Operand, threads: Operand) -> None:
        """`bar.arrive`: count this warp at a named barrier of `threads` threads without waiting."""
        operands = [self.value(threads, self.i32), self.value(barrier_id, self.i32)]
        self.op("nvvm.barrier.arrive", operands[::-1])

    def warp_sync(self, mask: Operand = _FULL_WARP) -> None:
        """`bar.warp.sync`: the lanes of `mask`; orders their memory accesses."""
        self.op("nvvm.bar.warp.sync", [self.value(mask, self.i32)])

    def cluster_arrive(self, aligned: bool = True, relaxed: bool = False) -> None:
        """`barrier.cluster.arrive`; `aligned`: all threads of the warp execute it together."""
        name = "nvvm.cluster.arrive.relaxed" if relaxed else "nvvm.cluster.arrive"
        self.op(name, [], (), {"aligned": self.attr("unit")} if aligned else None)

    def cluster_wait(self, aligned: bool = True) -> None:
        """`barrier.cluster.wait`."""
        self.op("nvvm.cluster.wait", [], (), {"aligned": self.attr("unit")} if aligned else None)

    def cluster_sync(self, aligned: bool = True) -> None:
        """Wait for all threads of the cluster."""
        self.cluster_arrive(aligned)
        self.cluster_wait(aligned)

    def grid_dependency_wait(self) -> None:
        """`griddepcontrol.wait`: until the kernels this one depends on have finished (programmatic dependent launch, sm_90)."""
        self.op("nvvm.griddepcontrol", [], (), {"kind": self.attr("#nvvm<grid_dep_action wait>")})

    def grid_dependency_launch(self) -> None:
        """`griddepcontrol.launch_dependents`."""
        self.op("nvvm.griddepcontrol", [], (), {"kind": self.attr("#nvvm<grid_dep_action launch_dependents>")})

    def set_max_registers(self, count: int, increase: bool) -> None:
        """`setmaxnreg`: registers of each thread of the warpgroup, a multiple of 8 from 24 to 256 (`a` targets only)."""
        action = self.attr(f"#nvvm<action {'increase' if increase else 'decrease'}>")
        self.op("nvvm.setmaxregister", [], (), {"regCount": self.attr(f"{count} : i32"), "action": action})

    # --- warps

    def _in_words(self, x: Val, move: Callable[[Val], Val]) -> Val:
        """Apply `move`, which takes an i32 or f32, to a value of another size by way of 32-bit words."""
        if x.t is self.i32 or x.t is self.f32:
            return move(x)
        bits = x.t.bits
        if bits == 32:
            return self.bitcast(move(self.bitcast(x, "i32")), x.t)
        if bits < 32:
            narrow = self.bitcast(x, f"i{bits}") if x.t.kind != "int" else x
            moved = self.cast(move(self.cast(narrow, "i32", signed=False)), f"i{bits}")
            return self.bitcast(moved, x.t)
        words = self.vector_of("i32", bits // 32)
        parts = [move(part) for part in self.elements(self.bitcast(x, words))]
        return self.bitcast(self.vector(parts), x.t)

    def _shfl(self, kind: str, x: Val, lane: Operand, clamp: int, mask: Operand) -> Val:
        threads, source, limits = self.value(mask, self.i32), self.value(lane, self.i32), self.const(clamp, self.i32)
        attributes = {"kind": self.attr(f"#nvvm<shfl_kind {kind}>")}

        def move(word: Val) -> Val:
            return self.emit("nvvm.shfl.sync", [threads, word, source, limits], word.t, attributes)

        return self._in_words(x, move)

    def shfl_xor(self, x: Val, lane_mask: Operand, width: int = 32, mask: Operand = _FULL_WARP) -> Val:
        """The value of lane `lane ^ lane_mask`, in segments of `width` lanes."""
        return self._shfl("bfly", x, lane_mask, (32 - width) << 8 | 31, mask)

    def shfl_index(self, x: Val, lane: Operand, width: int = 32, mask: Operand = _FULL_WARP) -> Val:
        """The value of lane `lane` of the segment."""
        return self._shfl("idx", x, lane, (32 - width) << 8 | 31, mask)

    def shfl_up(self, x: Val, delta: Operand, width: int = 32, mask: Operand = _FULL_WARP) -> Val:
        """The value of lane `lane - delta`; a lane without such a source keeps its own."""
        return self._shfl("up", x, delta, (32 - width) << 8, mask)

    def shfl_down(self, x: Val, delta: Operand, width: int = 32, mask: Operand = _FULL_WARP) -> Val:
        """The value of lane `lane + delta`; a lane without such a source keeps its own."""
        return self._shfl("down", x, delta, (32 - width) << 8 | 31, mask)

    def warp_reduce(self, combine: Callable[[Val, Val], Val], x: Val, width: int = 32) -> Val:
        """`x` combined over segments of `width` lanes by a butterfly; every lane gets the result."""
        step = width // 2
        while step:
            x = combine(x, self.shfl_xor(x, step))
            step //= 2
        return x

    def redux(self, kind: str, x: Val, mask: Operand = _FULL_WARP) -> Val:
        """`redux.sync` of an i32 (sm_80): `add`, `min`, `max`, `umin`, `umax`, `and`, `or` or `xor` over the warp."""
        attributes = {"kind": self.attr(f"#nvvm<reduction_kind {kind}>")}
        return self.emit("nvvm.redux.sync", (x, self.value(mask, self.i32)), x.t, attributes)

    def vote(self, kind: str, predicate: Val, mask: Operand = _FULL_WARP) -> Val:
        """`vote.sync`: `any`, `all` and `uni` give an i1, `ballot` the i32 mask of lanes whose predicate holds."""
        attributes = {"kind": self.attr(f"#nvvm<vote_sync_kind {kind}>")}
        return self.emit(
            "nvvm.vote.sync", (self.value(mask, self.i32), predicate), self.i32 if kind == "ballot" else self.i1, attributes
        )

    def elect(self) -> Val:
        """`elect.sync` (sm_90): true in one lane of the warp."""
        return self.emit("nvvm.elect.sync", (), self.i1)

    # --- atomics and fences

    def atomic(
        self, kind: str, p: Val, x: Operand, *, ordering: str = "relaxed", scope: str = "device", element: str = ""
    ) -> Val:
        """Atomic read-modify-write, giving the old value.

        Args:
            kind: `add`, `fadd` (also of vector<2xbf16>, vector<2xf16>), `min`, `max`, `umin`, `umax`, `and`, `or`,
                `xor` or `xchg`.
            p: address in any space.
            x: the operand; a Python number is of type `element`.
            ordering: `relaxed`, `acquire`, `release`, `acq_rel` or `seq_cst`.
            scope: `block`, `cluster`, `device` or "" (system).
        """
        x = self.value(x, element or None)
        attributes = {
            "bin_op": self.attr(f"{_ATOMICS[kind]} : i64"),
            "ordering": self.attr(f"{_ORDERINGS[ordering]} : i64"),
            "syncscope": self.attr(f'"{scope}"'),
        }
        return self.emit("llvm.atomicrmw", (p, x), x.t, attributes)

    def atomic_load(self, p: Val, type_: str, *, ordering: str = "acquire", scope: str = "device") -> Val:
        """A load ordered as told (`ld.acquire`), for flags that other blocks set."""
        t = self.type(type_)
        return self.emit("llvm.load", (p,), t, self._ordered(t, ordering, scope))

    def atomic_store(self, x: Val, p: Val, *, ordering: str = "release", scope: str = "device") -> None:
        """A store ordered as told (`st.release`)."""
        self.op("llvm.store", (x, p), (), self._ordered(x.t, ordering, scope))

    def _ordered(self, t: ValueType, ordering: str, scope: str) -> dict[str, Any]:
        return {
            "alignment": self.attr(f"{t.nbytes} : i64"),
            "ordering": self.attr(f"{_ORDERINGS[ordering]} : i64"),
            "syncscope": self.attr(f'"{scope}"'),
        }

    def memory_fence(self, scope: str = "gpu") -> None:
        """`fence.acq_rel` (membar) at scope `cta`, `cluster`, `gpu` or `sys`."""
        self.op("nvvm.memory.barrier", [], (), {"scope": self.attr(f"#nvvm.mem_scope<{scope}>")})

    def fence_async_shared(self) -> None:
        """`fence.proxy.async.shared::cta`: ordinary writes to shared memory become visible to TMA and wgmma."""
        attributes = {
            "kind": self.attr("#nvvm.proxy_kind<async.shared>"),
            "space": self.attr("#nvvm.shared_space<cta>"),
        }
        self.op("nvvm.fence.proxy", [], (), attributes)

    def fence_mbarrier_init(self) -> None:
        """`fence.mbarrier_init.release.cluster`: initialized mbarriers become visible to the cluster and the async proxy."""
        self.op("nvvm.fence.mbarrier.init")

    # --- cp.async (sm_80)

    def cp_async(self, dst: Val, src: Val, nbytes: int, src_bytes: Val | None = None) -> None:
        """`cp.async` of 4, 8 or 16 bytes from global to shared memory; of 16, past the L1 cache.

        `src_bytes` (i32, at most `nbytes`): bytes actually read, the rest is filled with zeros; 0 reads nothing.
        """
        attributes = {
            "size": self.attr(f"{nbytes} : i32"),
            "modifier": self.attr(f"#nvvm<load_cache_modifier {'cg' if nbytes == 16 else 'ca'}>"),
        }
        self.op("nvvm.cp.async.shared.global", (dst, src) if src_bytes is None else (dst, src, src_bytes), (), attributes)

    def cp_async_commit(self) -> None:
        """Make a group of this thread's uncommitted cp.async copies."""
        self.op("nvvm.cp.async.commit.group")

    def cp_async_wait(self, pending: int = 0) -> None:
        """Wait until at most `pending` of this thread's groups are unfinished."""
        self.op("nvvm.cp.async.wait.group", [], (), {"n": self.attr(f"{pending} : i32")})

    def cp_async_mbarrier_arrive(self, mbarrier: Val, noinc: bool = True) -> None:
        """Arrive on `mbarrier` when this thread's earlier cp.async copies are done.

        `noinc`: the arrival is one of the mbarrier's expected count; otherwise the count is raised by one first.
        """
        attributes = {"noinc": self.attr("true")} if noinc else None
        self.op("nvvm.cp.async.mbarrier.arrive", [mbarrier], (), attributes)

    # --- mbarrier (sm_80; transaction counts sm_90)

    def mbarrier_init(self, mbarrier: Val, count: Operand) -> None:
        """Initialize the 8 bytes at `mbarrier` for `count` arrivals a phase."""
        self.op("nvvm.mbarrier.init", [mbarrier, self.value(count, self.i32)])

    def mbarrier_invalidate(self, mbarrier: Val) -> None:
        """`mbarrier.inval`: the memory may be used for something else."""
        self.op("nvvm.mbarrier.inval", [mbarrier])

    def mbarrier_arrive(self, mbarrier: Val) -> None:
        """Arrive once."""
        self.emit("nvvm.mbarrier.arrive", [mbarrier], self.i64)

    def mbarrier_arrive_expect(self, mbarrier: Val, nbytes: Operand) -> None:
        """Arrive once, and expect `nbytes` more bytes from asynchronous copies in this phase."""
        self.op("nvvm.mbarrier.arrive.expect_tx", [mbarrier, self.value(nbytes, self.i32)])

    def mbarrier_arrive_remote(self, mbarrier: Val, rank: Operand) -> None:
        """Arrive once on the same mbarrier of another block of the cluster."""
        # The nvvm operation releases at cluster scope, which costs a full memory barrier; what is released here (reads of a
        # pipeline stage) needs none.
        address = self.ptr_to_int(self.cluster_address(mbarrier, rank), "i32")
        self.inline_asm("mbarrier.arrive.shared::cluster.b64 _, [$0];", "r,~{memory}", [address])

    def mbarrier_wait(self, mbarrier: Val, parity: Operand) -> None:
        """Wait until the phase of the given parity (0 for the first) has completed."""
        operands = [mbarrier, self.value(parity, self.i32), self.const(_SUSPEND_NS, self.i32)]
        self.op("nvvm.mbarrier.try_wait.parity", operands)

    # --- TMA ("cp.async.bulk", sm_90)

    def tma_load(
        self,
        dst: Val,
        tensor_map: Val,
        coordinates: Sequence[Operand],
        mbarrier: Val,
        *,
        multicast: Operand | None = None,
        cache_hint: Val | None = None,
        im2col: Sequence[Operand] | None = None,
    ) -> None:
        """`cp.async.bulk.tensor` from global to shared memory, counted in bytes on `mbarrier`. One thread issues it.

        Args:
            dst: shared address, 128-byte aligned (1024 for the 128-byte swizzle).
            tensor_map: a `tensormap` parameter.
            coordinates: i32 position of the box, innermost axis first; may be negative or beyond the end (filled with zeros).
            mbarrier: shared address.
            multicast: i16 mask of the cluster's blocks that receive the box, at the same offset.
            cache_hint: i64 cache policy.
            im2col: i16 filter offsets, innermost first, for an im2col tensor map (3 to 5 axes: 1 to 3 offsets).
        """
        position = [self.value(c, self.i32) for c in coordinates]
        offsets = [self.value(c, self.i16) for c in im2col or ()]
        mask = [] if multicast is None else [self.value(multicast, self.i16)]
        hint = [] if cache_hint is None else [cache_hint]
        sizes = [1, 1, len(position), 1, len(offsets), len(mask), len(hint), 0]
        attributes = {"operandSegmentSizes": self.attr(f"array<i32: {', '.join(map(str, sizes))}>")}
        if im2col is not None:
            attributes["mode"] = self.attr("#nvvm.tma_load_mode<im2col>")
        destination = self.address_space(dst, "ptr<7>")
        operands = [destination, tensor_map, *position, mbarrier, *offsets, *mask, *hint]
        self.op("nvvm.cp.async.bulk.tensor.shared.cluster.global", operands, (), attributes)

    def tma_store(self, tensor_map: Val, src: Val, coordinates: Sequence[Operand]) -> None:
        """`cp.async.bulk.tensor` from shared to global memory; finish with `bulk_commit` and `bulk_wait`."""
        position = [self.value(c, self.i32) for c in coordinates]
        attributes = {"operandSegmentSizes": self.attr(f"array<i32: 1, 1, {len(position)}, 0, 0>")}
        self.op("nvvm.cp.async.bulk.tensor.global.shared.cta", [tensor_map, src, *position], (), attributes)

    def tma_reduce(self, tensor_map: Val, src: Val, coordinates: Sequence[Operand], kind: str = "add") -> None:
        """`cp.reduce.async.bulk.tensor`: combine the box with global memory by `add`, `min`, `max`, `and`, `or` or `xor`."""
        # LLVM 22 does not know the intrinsic that MLIR's operation becomes.
        position = [self.value(c, self.i32) for c in coordinates]
        rank = len(position)
        places = ", ".join(f"${i + 1}" for i in range(rank))
        text = (
            f"cp.reduce.async.bulk.tensor.{rank}d.global.shared::cta.{kind}.tile.bulk_group [$0, {{{places}}}], [${rank + 1}];"
        )
        operands = [self.ptr_to_int(tensor_map), *position, self.ptr_to_int(src)]
        self.inline_asm(text, ",".join(["l", *["r"] * (rank + 1), "~{memory}"]), operands)

    def tma_prefetch_descriptor(self, tensor_map: Val) -> None:
        """`prefetch.tensormap`."""
        self.op("nvvm.prefetch", [tensor_map], (), {"tensormap": self.attr("unit")})

    def tma_prefetch(self, tensor_map: Val, coordinates: Sequence[Operand]) -> None:
        """`cp.async.bulk.prefetch.tensor`: bring a box of global memory to L2."""
        position = [self.value(c, self.i32) for c in coordinates]
        attributes = {"operandSegmentSizes": self.attr(f"array<i32: 1, {len(position)}, 0, 0>")}
        self.op("nvvm.cp.async.bulk.tensor.prefetch", [tensor_map, *position], (), attributes)

    def bulk_prefetch(self, src: Val, nbytes: Operand) -> None:
        """`cp.async.bulk.prefetch.L2` of `nbytes` (a multiple of 16, the address 16-aligned) of global memory."""
        self.op("nvvm.cp.async.bulk.prefetch", [src, self.value(nbytes, self.i32)])

    def bulk_load(self, dst: Val, src: Val, nbytes: Operand, mbarrier: Val) -> None:
        """`cp.async.bulk` of `nbytes` (a multiple of 16, both addresses 16-aligned) from global to shared memory."""
        operands = [self.address_space(dst, "ptr<7>"), src, mbarrier, self.value(nbytes, self.i32)]
        attributes = {"operandSegmentSizes": self.attr("array<i32: 1, 1, 1, 1, 0, 0>")}
        self.op("nvvm.cp.async.bulk.shared.cluster.global", operands, (), attributes)

    def bulk_store(self, dst: Val, src: Val, nbytes: Operand) -> None:
        """`cp.async.bulk` of `nbytes` from shared to global memory; finish with `bulk_commit` and `bulk_wait`."""
        attributes = {"operandSegmentSizes": self.attr("array<i32: 1, 1, 1, 0, 0>")}
        self.op("nvvm.cp.async.bulk.global.shared.cta", [dst, src, self.value(nbytes, self.i32)], (), attributes)

    def bulk_commit(self) -> None:
        """Make a group of this thread's uncommitted bulk stores."""
        self.op("nvvm.cp.async.bulk.commit.group")

    def bulk_wait(self, pending: int = 0, read: bool = False) -> None:
        """Wait until at most `pending` groups are unfinished; `read`: only until their shared memory may be overwritten."""
        attributes = {"group": self.attr(f"{pending} : i32")}
        if read:
            attributes["read"] = self.attr("unit")
        self.op("nvvm.cp.async.bulk.wait_group", [], (), attributes)

    def prefetch_l2(self, p: Val) -> None:
        """`prefetch.global.L2` of the line at global address `p`."""
        if self.sm >= 90:
            self.op("nvvm.prefetch", [p], (), {"cacheLevel": self.attr("#nvvm<prefetch_cache_level L2>")})
        else:  # LLVM cannot select the operation below sm_90
            self.inline_asm("prefetch.global.L2 [$0];", "l", [self.ptr_to_int(p)])

    # --- approximate math ("Floating Point Instructions"); scalars, and vectors lane by lane

    def _by_lane(self, x: Val, scalar: Callable[[Val], Val]) -> Val:
        if x.t.kind != "vector":
            return scalar(x)
        return self.vector([scalar(lane) for lane in self.elements(x)])

    def ex2(self, x: Val, ftz: bool = False) -> Val:
        """`ex2.approx.f32`: 2**x within 2 ulp; `ftz` flushes subnormal results, which takes one instruction instead of four."""
        attributes = {"ftz": self.attr("true")} if ftz else {}
        return self._by_lane(x, lambda y: self.emit("nvvm.ex2", (y,), y.t, attributes))

    def lg2(self, x: Val) -> Val:
        """`lg2.approx.f32`; the relative error is large near 1."""
        return self._by_lane(x, lambda y: self.emit("nvvm.log2", (y,), y.t))

    def rcp(self, x: Val) -> Val:
        """`rcp.approx.ftz.f32`: 1/x within 1 ulp; subnormals are flushed."""
        return self._by_lane(x, lambda y: self.emit("nvvm.rcp.approx.ftz.f", (y,), y.t))

    def rsqrt_approx(self, x: Val) -> Val:
        """`rsqrt.approx.f32`: 1/sqrt(x), relative error 2**-22.9."""
        return self._by_lane(x, lambda y: self.emit("nvvm.rsqrt", (y,), y.t))

    def tanh_approx(self, x: Val) -> Val:
        """`tanh.approx.f32` (sm_75), relative error 2**-11: for results of 16 bits."""
        attributes = {
            "ptxCode": self.attr('"tanh.approx.f32 {$w0}, {$r0};"'),
            "operandSegmentSizes": self.attr("array<i32: 1, 0, 0>"),
        }
        return self._by_lane(x, lambda y: self.emit("nvvm.inline_ptx", (y,), y.t, attributes))

    def dp4a(self, a: Val, b: Val, c: Val, signed: bool = True) -> Val:
        """`dp4a`: c + the dot product of four 8-bit integers packed in i32 `a` and `b`."""
        quad = self.vector_of("i8", 4)
        kind = self.attr(f"#nvvm.dot_accumulate_type<{'signed' if signed else 'unsigned'}>")
        operands = (self.bitcast(a, quad), self.bitcast(b, quad), c)
        return self.emit("nvvm.dot.accumulate.4way", operands, c.t, {"a_type": kind, "b_type": kind})

    def prmt(self, lo: Val, hi: Val, selector: Operand) -> Val:
        """`prmt.b32`: four bytes chosen from the eight of `hi:lo` by the selector's nibbles."""
        mode = {"mode": self.attr("#nvvm.permute_mode<default>")}
        return self.emit("nvvm.prmt", (lo, hi, self.value(selector, self.i32)), self.i32, mode)

    def and_xor(self, x: Val, mask: int, flip: int) -> Val:
        """(x & mask) ^ flip of an i32 as one instruction: `lop3.b32` with the table 0x6A.

        The table of a function f is f(0xF0, 0xCC, 0xAA). From separate operations with two constants ptxas makes two.
        """
        constants = [self.const(mask, self.i32), self.const(flip, self.i32)]
        text = "lop3.b32 $0, $1, $2, $3, 0x6a;"
        found = self.inline_asm(text, "=r,r,r,r", [x, *constants], self.i32, pure=True)
        assert found is not None
        return found

    # --- small floats in hardware ("cvt", sm_89: 8 bits; sm_100a and sm_120a: 4 bits)

    def _has_cvt(self, dtype: str) -> bool:
        return self.sm >= 89 if dtype in ("f8E4M3FN", "f8E5M2") else self.sm >= 100 and dtype == "f4E2M1FN"

    def decode_float(self, x: Val, dtype: str, result: str = "f32") -> Val:
        """See `SmallFloatOps.decode_float`; by `cvt` where the target has it (two values an instruction)."""
        if not self._has_cvt(dtype):
            return super().decode_float(x, dtype, result)
        lanes = self.elements(x) if x.t.kind == "vector" else [x]
        halves: list[Val] = []
        source = {"srcType": self.attr(dtype)}
        pair_type = self.vector_of("f16", 2)
        for lo, hi in zip(lanes[::2], lanes[1::2] + lanes[-1:] * (len(lanes) % 2), strict=True):
            if dtype == "f4E2M1FN":
                pair = self.emit("nvvm.convert.f4x2.to.f16x2", (lo | (hi << 4),), pair_type, source)
            else:
                pair = self.emit("nvvm.convert.f8x2.to.f16x2", (self.vector([lo, hi]),), pair_type, source)
            halves += self.elements(pair)
        if x.t.kind != "vector":
            return self.cast(halves[0], result)
        return self.cast(self.vector(halves[: len(lanes)]), result)

    def encode_float(self, x: Val, dtype: str, saturate: bool = True) -> Val:
        """See `SmallFloatOps.encode_float`; by `cvt.satfinite` where the target has it.

        The instruction keeps NaN in 8-bit formats and turns an infinity into the largest finite number.
        """
        if not saturate or not self._has_cvt(dtype):
            return super().encode_float(x, dtype, saturate)
        x = self.cast(x, "f32")
        lanes = self.elements(x) if x.t.kind == "vector" else [x]
        codes: list[Val] = []
        attributes = {"dstTy": self.attr(dtype)}
        if dtype != "f4E2M1FN":
            attributes |= {"rnd": self.attr("#nvvm.fp_rnd_mode<rn>"), "sat": self.attr("#nvvm.sat_mode<satfinite>")}
        for lo, hi in zip(lanes[::2], lanes[1::2] + lanes[-1:] * (len(lanes) % 2), strict=True):
            # The first operand is the upper half of the result.
            if dtype == "f4E2M1FN":
                both = self.emit("nvvm.convert.f32x2.to.f4x2", (hi, lo), self.i8, attributes)
                codes += [both & 15, both >> 4]
            else:
                both = self.emit("nvvm.convert.f32x2.to.f8x2", (hi, lo), self.i16, attributes)
                codes += self.elements(self.bitcast(both, self.vector_of("i8", 2)))
        return self.vector(codes[: len(lanes)]) if x.t.kind == "vector" else codes[0]

    def round_to_byte(self, x: Val, signed: bool) -> Val:
        """`cvt.rni.sat`: f32 to the nearest 8-bit integer, ties to even, within its range; NaN to 0."""
        text = f"cvt.rni.sat.{'s' if signed else 'u'}8.f32 $0, $1;"

        def convert(y: Val) -> Val:
            word = self.inline_asm(text, "=r,f", [y], self.i32, pure=True)
            assert word is not None
            return self.cast(word, "i8")

        return self._by_lane(x, convert)

    # --- last resort

    def wgmma_settled(self, accumulator: Val) -> Val:
        """The accumulator (f32) after a wait: an empty instruction that what reads it depends on, so that nothing reads it
        earlier."""
        members = self.elements(accumulator)
        count = len(members)
        constraints = ",".join(["=f"] * count + [str(i) for i in range(count)])
        settled = self.inline_asm("", constraints, members, accumulator.t)
        assert settled is not None, "it has a result"
        return settled

    def inline_asm(
        self,
        text: str,
        constraints: str,
        operands: Sequence[Val] = (),
        result: str | ValueType | None = None,
        pure: bool = False,
    ) -> Val | None:
        """PTX text with LLVM's constraints (`r` i32, `l` i64, `f` f32, `h` i16, `=` output, `~{memory}`)."""
        attributes = {
            "asm_string": ir.StringAttr.get(text, self.module.context),
            "constraints": ir.StringAttr.get(constraints, self.module.context),
            "asm_dialect": self.attr("0 : i64"),
        }
        if not pure:
            attributes["has_side_effects"] = self.attr("unit")
        if result is None:
            self.op("llvm.inline_asm", operands, (), attributes)
            return None
        return self.emit("llvm.inline_asm", operands, self.type(result), attributes)
