"""The emulator's matrix instructions: every mma row against numpy, through ldmatrix, and the fragment tables by themselves."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from tensor_core_sums import LEAST_EXPONENT, instruction

from ingot.compiler.codegen.kernel_builder import KernelModule, Param
from ingot.compiler.codegen.mma_table import MMA_ROWS
from ingot.compiler.emulator import emulate
from ingot.compiler.emulator.formats import decode
from ingot.compiler.emulator.fragments import LAYOUTS, mma_fragments, scale_lanes, wgmma_accumulator, wgmma_registers

FLOATS = {
    "f16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "tf32": np.float32,
    "e4m3": ml_dtypes.float8_e4m3fn,
    "e5m2": ml_dtypes.float8_e5m2,
    "e2m3": ml_dtypes.float6_e2m3fn,
    "e3m2": ml_dtypes.float6_e3m2fn,
    "e2m1": ml_dtypes.float4_e2m1fn,
}


@pytest.mark.parametrize("row", LAYOUTS, ids=lambda r: f"m{r.shape[0]}n{r.shape[1]}k{r.shape[2]}b{r.bits}")
def test_fragments_hold_every_element_once(row):
    m, n, k = row.shape
    for index, (rows, columns), count in zip(
        mma_fragments(row.shape, row.bits), ((m, k), (k, n), (m, n)), row.counts, strict=True
    ):
        assert index.lane.shape == (rows, columns)
        places = index.lane * count + index.element
        assert np.array_equal(np.sort(places.ravel()), np.arange(32 * count))


@pytest.mark.parametrize("row", MMA_ROWS, ids=lambda r: r.name)
def test_the_emitters_table_agrees_with_the_isa(row):
    """The code generator's table of instructions, which shares nothing with the emulator's, element by element."""
    a, b, c = (fragment for fragment in (row.a, row.b, row.c))
    if row.engine == "wgmma":
        ours = wgmma_registers(row.k, row.bits)
        for lane in range(32):
            for element in range(a.elements):
                place = a.position(lane, element)
                assert (ours.lane[place], ours.element[place]) == (lane, element)
        d = wgmma_accumulator(row.n)
        for lane in range(32):
            for element in range(c.elements):
                place = c.position(lane, element)
                assert (d.lane[place], d.element[place]) == (lane, element)
        return
    ours_a, ours_b, ours_c = mma_fragments((row.m, row.n, row.k), row.bits)
    for fragment, index, transposed in ((a, ours_a, False), (b, ours_b, True), (c, ours_c, False)):
        assert fragment.elements * 32 == index.lane.size
        for lane in range(32):
            for element in range(fragment.elements):
                place = fragment.position(lane, element)
                place = place[::-1] if transposed else place
                assert (index.lane[place], index.element[place]) == (lane, element), (place, lane, element)
    if row.scale is not None:
        rows, columns = scale_lanes(0, 0)
        assert [row.scale_lane_a(i) for i in range(row.m)] == rows.tolist()
        assert [row.scale_lane_b(i) for i in range(row.n)] == columns.tolist()


def test_wgmma_fragments_are_those_of_four_warps():
    d = wgmma_accumulator(24)
    assert np.array_equal(np.sort((d.lane * 12 + d.element).ravel()), np.arange(128 * 12))
    one = mma_fragments((16, 8, 16), 16)[2]
    assert np.array_equal(d.lane[16:32, 8:16], one.lane + 32)
    assert np.array_equal(d.element[16:32, 8:16], one.element + 4)
    a = wgmma_registers(16, 16)
    assert np.array_equal(a.lane[48:64], mma_fragments((16, 8, 16), 16)[0].lane + 96)


def operand(rng, shape, kind):
    """Random codes of an operand type: (containers, float64 values). Small integers for integer types."""
    if kind in ("s8", "u8", "s4", "u4"):
        low, high = {"s8": (-128, 128), "u8": (0, 256), "s4": (-8, 8), "u4": (0, 16)}[kind]
        values = rng.integers(low, high, shape)
        return (values & (0xFF if kind[1] == "8" else 15)).astype(np.uint8), values.astype(np.float64)
    x = rng.standard_normal(shape).astype(FLOATS[kind])
    values = x.astype(np.float64)
    if kind == "tf32":
        bits = x.view(np.uint32) & np.uint32(0xFFFFE000)
        return x.view(np.uint32), bits.view(np.float32).astype(np.float64)
    if kind == "e2m1":
        return x.view(np.uint8) & 15, values
    if kind in ("e2m3", "e3m2"):
        return x.view(np.uint8) & 63, values
    return x.view(np.uint16 if x.itemsize == 2 else np.uint8), values


def pack(containers, bits):
    """Row-major bytes of a matrix of containers."""
    if bits == 4:
        return (containers[:, ::2] | containers[:, 1::2] << 4).astype(np.uint8)
    return np.ascontiguousarray(containers).view(np.uint8)


def run_mma(emit, a_bytes, b_bytes, c, extra=(), target="sm_120a"):
    """D of one mma: A (m rows) and B (n rows of K) come by ldmatrix from row-major bytes, C and D by the ISA's c_i formula."""
    m, n = c.shape
    out = np.zeros_like(c)
    element = "i32" if c.dtype == np.int32 else "f32"
    row_bytes = a_bytes.shape[1]
    with KernelModule(target) as module:
        params = [Param(f"p{i}", "ptr<1>") for i in range(4 + len(extra))]
        with module.kernel("kernel", params, threads=32) as k:
            pa, pb, pc, pd, *more = k.args
            t = k.thread_id()
            shared = k.dynamic_shared()
            for base, p, size in ((0, pa, a_bytes.size), (4096, pb, b_bytes.size)):
                with k.for_(t * 4, size, 128) as loop:
                    k.store(k.load(p + loop.iv, "i32"), shared + loop.iv + base)
            k.warp_sync()
            # Matrices of 8 rows x 16 bytes: A's go down the rows first, then along K; B's along K.
            a = []
            for column in range(0, row_bytes, 16):
                if m == 16:
                    a += k.ldmatrix(shared + ((t & 15) * row_bytes + column), 2)
                else:
                    a += k.ldmatrix(shared + ((t & 7) * row_bytes + column), 1)
            b = [k.ldmatrix(shared + ((t & 7) * row_bytes + column + 4096), 1)[0] for column in range(0, row_bytes, 16)]
            row, column = t >> 2, (t & 3) * 2
            places = [((row + 8 * half) * n + column) for half in range(m // 8)]
            cs = [k.load(pc.at(p + i, element), element) for p in places for i in range(2)]
            ds = emit(k, a, b, cs, *[k.load(p.at(t, "i32"), "i32") for p in more])
            for i, d in enumerate(ds):
                k.store(d, pd.at(places[i // 2] + i % 2, element))
        report = emulate(
            module.module, "kernel", 1, 32, [a_bytes, b_bytes, c, out, *extra], dynamic_shared_bytes=4096 + b_bytes.size
        )
    report.check()
    return out, report


ROWS = [
    ((16, 8, 8), "f16", "f16"), ((16, 8, 16), "f16", "f16"), ((16, 8, 8), "bf16", "bf16"), ((16, 8, 16), "bf16", "bf16"),
    ((16, 8, 4), "tf32", "tf32"), ((16, 8, 8), "tf32", "tf32"),
    ((8, 8, 16), "s8", "s8"), ((16, 8, 16), "u8", "s8"), ((16, 8, 32), "s8", "u8"), ((16, 8, 32), "u8", "u8"),
    ((8, 8, 32), "s4", "s4"), ((16, 8, 32), "u4", "s4"), ((16, 8, 64), "s4", "u4"),
    ((16, 8, 32), "e4m3", "e4m3"), ((16, 8, 32), "e4m3", "e5m2"), ((16, 8, 32), "e5m2", "e4m3"),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "a_type", "b_type"), ROWS, ids=lambda x: str(x).replace(" ", ""))
def test_mma_rows(shape, a_type, b_type):
    m, n, k = shape
    rng = np.random.default_rng(0)
    bits = {"tf32": 32, "f16": 16, "bf16": 16, "s4": 4, "u4": 4}.get(a_type, 8)
    a, a_values = operand(rng, (m, k), a_type)
    b, b_values = operand(rng, (n, k), b_type)
    integer = a_type[0] in "su"
    c = rng.integers(-99, 99, (m, n)).astype(np.int32) if integer else rng.standard_normal((m, n)).astype(np.float32)
    out, report = run_mma(lambda kb, x, y, z: kb.mma(shape, x, y, z, a_type, b_type), pack(a, bits), pack(b, bits), c)
    expected = (a_values @ b_values.T + c).astype(c.dtype)
    if {a_type, b_type} <= set(LEAST_EXPONENT):
        expected = instruction(a_values, b_values.T, c, (a_type, b_type), "mma")
    assert np.array_equal(out, expected)
    assert report.executed[f"mma.m{m}n{n}k{k}.{a_type}.{b_type}"] == 1


def test_integer_accumulation_saturates_or_wraps():
    a = np.full((16, 32), 127, np.uint8)
    c = np.full((16, 8), 2**31 - 5, np.int32)
    wrapped, _ = run_mma(lambda kb, x, y, z: kb.mma((16, 8, 32), x, y, z, "s8"), a, a[:8], c)
    kept, _ = run_mma(lambda kb, x, y, z: kb.mma((16, 8, 32), x, y, z, "s8", satfinite=True), a, a[:8], c)
    assert (wrapped == 2**31 - 5 + 127 * 127 * 32 - 2**32).all()
    assert (kept == 2**31 - 1).all()


SIX = ("e4m3", "e5m2", "e2m3", "e3m2", "e2m1")


@pytest.mark.parametrize("a_type", SIX)
@pytest.mark.parametrize("b_type", SIX)
def test_mma_f8f6f4(a_type, b_type):
    rng = np.random.default_rng(1)
    a, a_values = operand(rng, (16, 32), a_type)
    b, b_values = operand(rng, (8, 32), b_type)
    a, b = (x << 2 if kind == "e2m1" else x for x, kind in ((a, a_type), (b, b_type)))  # 4-bit values sit in bits 2 to 5
    c = rng.standard_normal((16, 8)).astype(np.float32)

    def emit(k, x, y, z):
        return k.mma((16, 8, 32), x, y, z, a_type, b_type, kind="f8f6f4")

    out, _ = run_mma(emit, a, b, c)
    assert np.array_equal(out, (a_values @ b_values.T + c).astype(np.float32))


@pytest.mark.parametrize(
    ("kind", "k", "vector", "scale_type", "a_type", "b_type"),
    [
        ("mxf4nvf4", 64, 4, "ue4m3", "e2m1", "e2m1"),
        ("mxf4nvf4", 64, 2, "ue8m0", "e2m1", "e2m1"),
        ("mxf4", 64, 2, "ue8m0", "e2m1", "e2m1"),
        ("mxf8f6f4", 32, 1, "ue8m0", "e4m3", "e4m3"),
        ("mxf8f6f4", 32, 1, "ue8m0", "e5m2", "e2m1"),
        ("mxf8f6f4", 32, 1, "ue8m0", "e3m2", "e2m3"),
    ],
)
@pytest.mark.parametrize("selectors", [(0, 0), (1, 1)])
def test_mma_block_scale(kind, k, vector, scale_type, a_type, b_type, selectors):
    rng = np.random.default_rng(2)
    a, a_values = operand(rng, (16, k), a_type)
    b, b_values = operand(rng, (8, k), b_type)
    packed = kind != "mxf8f6f4"
    if not packed:
        a, b = (x << 2 if t == "e2m1" else x for x, t in ((a, a_type), (b, b_type)))
    bits = 4 if packed else 8
    low, high = (0x30, 0x48) if scale_type == "ue4m3" else (120, 134)
    a_scales, b_scales = rng.integers(low, high, (16, vector), np.uint8), rng.integers(low, high, (8, vector), np.uint8)
    byte = {4: 0, 2: 2 * selectors[0], 1: 3 * selectors[0]}[vector]
    # Where the hardware looks: A's row r in lane 4 * (r % 8) + 2 * id + r / 8, B's column c in lane 4 * c + id. All other
    # bytes are garbage.
    words_a, words_b = (rng.integers(0, 256, (32, 4)).astype(np.uint8) for _ in range(2))
    for row in range(16):
        words_a[4 * (row % 8) + 2 * selectors[1] + row // 8, byte : byte + vector] = a_scales[row]
    for column in range(8):
        words_b[4 * column + selectors[1], byte : byte + vector] = b_scales[column]
    c = rng.standard_normal((16, 8)).astype(np.float32)

    def emit(kb, x, y, z, sa, sb):
        chosen = (byte, selectors[1])
        return kb.mma_block_scale(
            (16, 8, k), x, y, z, a_type, b_type, kind=kind, scale_vector=vector, scale_type=scale_type,
            a_scale=sa, b_scale=sb, a_selector=chosen, b_selector=chosen,
        )  # fmt: skip

    extra = (words_a.view(np.int32).ravel(), words_b.view(np.int32).ravel())
    out, report = run_mma(emit, pack(a, bits), pack(b, bits), c, extra)
    left = a_values * np.repeat(decode(a_scales, scale_type), k // vector, axis=1)
    right = b_values * np.repeat(decode(b_scales, scale_type), k // vector, axis=1)
    assert np.array_equal(out, (left @ right.T + c).astype(np.float32))
    assert sum(n for name, n in report.executed.items() if kind in name) == 1


def test_scales_lie_in_different_lanes_for_each_selector():
    for thread in range(2):
        rows, columns = scale_lanes(thread, thread)
        assert len(set(rows)) == 16
        assert len(set(columns)) == 8
        assert set(rows // 4) == set(range(8))


@pytest.mark.parametrize(("load", "store"), [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_ldmatrix_and_stmatrix_transpose(count, load, store):
    x = np.arange(64 * count, dtype=np.int16)
    out = np.zeros_like(x)
    with KernelModule("sm_90a") as module:
        with module.kernel("kernel", [Param("x", "ptr<1>"), Param("y", "ptr<1>")], threads=32) as k:
            p, q = k.args
            t = k.thread_id()
            shared = k.dynamic_shared()
            with k.for_(t, 32 * count, 32) as loop:
                k.store(k.load(p.at(loop.iv, "i32"), "i32"), shared.at(loop.iv, "i32"))
            k.warp_sync()
            words = k.ldmatrix(shared + (t % (8 * count)) * 16, count, transpose=load)
            k.stmatrix(shared + 512 + (t % (8 * count)) * 16, words, transpose=store)
            k.warp_sync()
            with k.for_(t, 32 * count, 32) as loop:
                k.store(k.load(shared.at(loop.iv + 128, "i32"), "i32"), q.at(loop.iv, "i32"))
        emulate(module.module, "kernel", 1, 32, [x, out], dynamic_shared_bytes=1024).check()
    matrices = x.reshape(count, 8, 8)
    assert np.array_equal(out.reshape(count, 8, 8), matrices.swapaxes(1, 2) if load != store else matrices)
