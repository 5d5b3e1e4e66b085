"""The kernel builder: folding, control flow, memory, conversions and scalar regions, run as host code against numpy."""

from __future__ import annotations

import re

import ml_dtypes
import numpy as np
import pytest
from kernel_testing import LoadedImage

from ingot.compiler.codegen.kernel_builder import KernelModule, Param
from ingot.compiler.codegen.scalar_lowering import ScalarEmitter, emit_region
from ingot.compiler.codegen.small_floats import SMALL_FLOATS
from ingot.compiler.toolchain.stages import compile_kernels
from ingot.dialects.scalar_table import ROWS
from ingot.dispatch import ScalarInst, ScalarRegion
from ingot.dtypes import DTYPES


def run(build, *arrays, params=None):
    """Compile one kernel whose parameters are pointers to `arrays` and call it."""
    with KernelModule("cpu") as m:
        types = params or [Param(f"p{i}", "ptr") for i in range(len(arrays))]
        with m.kernel("kernel", types) as k:
            build(k, *k.args)
        image = compile_kernels(m.module, "cpu")
    LoadedImage(image).call("kernel", *arrays)


def emitted(build, target="cpu", **options):
    """Names of the operations in the body of one kernel."""
    with KernelModule(target) as m:
        with m.kernel("kernel", [Param("p", "ptr"), Param("n", "i64")], **options) as k:
            build(k, *k.args)
        entry = m.module.body.operations[0].regions[0].blocks[0]
        return [op.operation.name for op in entry.operations][1:-1]


def test_index_arithmetic_folds_and_reduces_strength():
    def build(k, p, n):
        assert (k.const(4, "i64") * 8 + 1).const == 33
        assert (n + 0) is n
        assert (n * 1) is n
        assert (n * 0).const == 0
        assert (k.const(-1, "i32") >> 28).const == 15
        assert k.const(-7, "i64").sdiv(2).const == -3
        assert k.const(-7, "i64").srem(2).const == -1
        assert k.const(300, "i8").const == 44
        _ = n // 8 + n % 8

    assert (
        emitted(build) == ["arith.shrui", "arith.constant", "arith.andi", "arith.addi"]
        or emitted(build).count("arith.constant") == 2
    )
    assert not {"arith.divui", "arith.remui"} & set(emitted(build))


def test_operands_of_different_types_are_refused():
    def build(k, p, n):
        with pytest.raises(ValueError, match="types i64 and i32"):
            _ = n + k.const(1, "i32").like(k.load(p, "i32"))
        with pytest.raises(ValueError, match="truth"):
            bool(n < 3)
        with pytest.raises(ValueError, match="not a constant"):
            _ = n + 0.5
        with pytest.raises(ValueError, match="bitcast"):
            k.bitcast(n, "f32")

    emitted(build)


def test_float_arithmetic_allows_contraction_only():
    with KernelModule("cpu") as m:
        with m.kernel("kernel", [Param("p", "ptr")]) as k:
            x = k.load(k.args[0], "f32")
            k.store(x * x + 1.0, k.args[0])
        text = m.text()
    assert text.count("fastmath<contract>") == 2
    assert "reassoc" not in text


def test_loops_conditionals_and_carried_values():
    out = np.zeros(4, np.float32)

    def build(k, p):
        zero, one = k.const(0.0), k.const(1, "i64")
        with k.for_(0, 10, carry=[[zero], one]) as loop:
            (total,), product = loop.carry
            with k.if_else(loop.iv % 2 < 1, results=["f32"]) as branch:
                with branch.then:
                    branch.yield_([total + 1.0])
                with branch.else_:
                    branch.yield_([total])
            loop.yield_([branch.results, product * 2])
        (total,), product = loop.results
        with k.while_([product], lambda carry: carry[0] > 100) as halving:
            halving.yield_([halving.carry[0] // 2])
        k.store(total, p)
        k.store(product.to("f32"), p + 4)
        k.store(halving.results[0].to("f32"), p + 8)
        (n,) = k.for_unrolled(0, k.const(11, "i64") + halving.results[0] * 0, 4, lambda i, c: [c[0] + i], [k.const(0, "i64")])
        k.store(n.to("f32"), p + 12)

    run(build, out)
    assert out.tolist() == [5.0, 1024.0, 64.0, 55.0]


def test_an_unfinished_carried_loop_is_refused():
    def build(k, p, n):
        with pytest.raises(ValueError, match="must end with yield_"), k.for_(0, n, carry=[k.const(1.0)]):
            pass
        raise KeyboardInterrupt  # the kernel is not finished after a refused loop

    with pytest.raises(KeyboardInterrupt):
        emitted(build)


def test_vectors_masks_and_gathers():
    x = np.arange(16, dtype=np.float32)
    out = np.full(24, -1, np.float32)

    def build(k, p, q):
        lanes = k.iota("vector<8xi64>")
        mask = lanes < 5
        v = k.masked_load(p, "vector<8xf32>", mask, 7.0)
        k.store(v, q, align=4)
        k.masked_store(v * 2.0, q + 32, mask)
        picked = k.gather(p.at(lanes * 2, "f32"), "f32")
        k.scatter(picked, (q + 64).at(7 - lanes, "f32"))
        k.store(k.reduce("add", picked) + k.reduce("max", v), q + 60)

    run(build, x, out)
    expected = np.concatenate([[0, 1, 2, 3, 4, 7, 7, 7], [0, 2, 4, 6, 8, -1, -1, 56 + 7], np.arange(14, -2, -2)])
    assert np.array_equal(out, expected.astype(np.float32))


def test_local_memory_and_constant_tables():
    out = np.zeros(2, np.float32)

    def build(k, p):
        scratch = k.alloca(64)
        k.store(k.load(k.constant_table([0.1, -2.5], "f32").at(1, "f32"), "f32"), scratch)
        k.store(k.load(scratch, "f32"), p)
        k.store(k.load(k.constant_table([3, 4], "i32"), "i32").to("f32"), p + 4)

    run(build, out)
    assert out.tolist() == [-2.5, 3.0]


SPECIALS = [0.0, -0.0, np.inf, -np.inf, 2**-10, 2**-10 * (1 + 2**-20), 448, 464, 465, 5, 0.25, 0.75, 65504, 65520, 2**-25]


def sample(n=4096):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(n) * np.exp2(rng.integers(-30, 20, n))
    x[: len(SPECIALS)] = SPECIALS
    return x.astype(np.float32)


@pytest.mark.parametrize("lanes", [0, 8])
@pytest.mark.parametrize("mlir", SMALL_FLOATS)
def test_small_floats_round_as_ml_dtypes(mlir, lanes):
    name = DTYPES[mlir].numpy
    dtype = DTYPES[mlir].np
    x = sample()
    codes, back = np.zeros(x.size, np.uint8), np.zeros_like(x)

    def build(k, p, q, r):
        f32, i8 = ("vector<8xf32>", "vector<8xi8>") if lanes else ("f32", "i8")
        with k.for_(0, x.size, lanes or 1) as loop:
            code = k.encode_float(k.load(p.at(loop.iv, "f32"), f32), mlir)
            assert code.t is k.type(i8)
            k.store(code, q.at(loop.iv, "i8"))
            k.store(k.decode_float(code, mlir), r.at(loop.iv, "f32"))

    run(build, x, codes, back)
    largest = float(ml_dtypes.finfo(dtype).max)
    expected = np.clip(x, -largest, largest).astype(dtype)
    mask = 15 if name == "float4_e2m1fn" else 255
    assert np.array_equal(codes, expected.view(np.uint8) & mask)
    assert np.array_equal(back, expected.astype(np.float32))


@pytest.mark.parametrize("mlir", [*SMALL_FLOATS, "f8E8M0FNU"])
def test_every_code_of_a_small_float_decodes(mlir):
    name = DTYPES[mlir].numpy
    codes = np.arange(16 if name == "float4_e2m1fn" else 256, dtype=np.uint8)
    out = np.zeros(codes.size, np.float32)

    def build(k, p, q):
        with k.for_(0, codes.size) as loop:
            k.store(k.decode_float(k.load(p.at(loop.iv, "i8"), "i8"), mlir), q.at(loop.iv, "f32"))

    run(build, codes, out)
    assert np.array_equal(out, codes.view(getattr(ml_dtypes, name)).astype(np.float32), equal_nan=True)


@pytest.mark.parametrize("source", ["f32", "f64"])
@pytest.mark.parametrize("target", ["f16", "bf16"])
def test_casts_to_16_bits_round_once(source, target):
    x = np.concatenate([sample(), [np.nan]]).astype({"f32": np.float32, "f64": np.float64}[source])
    if source == "f64":
        x[20:30] = 1 + 2.0**-11 * (1 + np.arange(10) * 2.0**-40)  # just above a halfway case
    out = np.zeros(x.size, np.uint16)

    def build(k, p, q):
        with k.for_(0, x.size) as loop:
            k.store(k.load(p.at(loop.iv, source), source).to(target), q.at(loop.iv, target))

    run(build, x, out)
    dtype = np.dtype(np.float16 if target == "f16" else ml_dtypes.bfloat16)
    with np.errstate(over="ignore"):
        if target == "f16":
            expected = x.astype(dtype).view(np.uint16)
        else:  # ml_dtypes goes through f32; the correctly rounded value comes from integer arithmetic on f64
            bits = x.astype(np.float64).view(np.uint64)
            low, half = bits & ((1 << 45) - 1), np.uint64(1 << 44)
            up = (low > half) | ((low == half) & ((bits >> np.uint64(45)) & np.uint64(1) == 1))
            kept = ((bits >> np.uint64(45)) + up) << np.uint64(45)
            expected = kept.view(np.float64).astype(np.float32).view(np.uint32) >> 16
    nan = np.isnan(x)
    assert np.array_equal(out[~nan], expected[~nan].astype(np.uint16))
    assert np.isnan(out[nan].view(dtype).astype(np.float32)).all()


def test_integer_casts_and_booleans():
    x = np.array([-3, 0, 200, 127], np.int32)
    out = np.zeros(4, np.int64)
    flags = np.zeros(4, np.uint8)

    def build(k, p, q, r):
        with k.for_(0, 4) as loop:
            v = k.load(p.at(loop.iv, "i32"), "i32")
            k.store(v.to("i8").to("i64", signed=False) * 1000 + v.to("i8").to("i64"), q.at(loop.iv, "i64"))
            k.store_as(v.to("i1"), r + loop.iv, "i1")
            k.store_as(k.load_as(r + loop.iv, "i1"), r + loop.iv, "i1")

    run(build, x, out, flags)
    assert out.tolist() == [253000 - 3, 0, 200000 - 56, 127127]
    assert flags.tolist() == [1, 0, 1, 1]


@pytest.fixture(scope="module")
def scalar_rows():
    """One image with every row of the scalar table, as scalars and as vectors of 8."""
    cases = []
    with KernelModule("cpu") as m:
        for row in ROWS:
            if row.cuda_only or row.result == "cast":
                continue
            for lanes in (0, 8):
                types = ["f32" if c == "f" else "i1" if c == "b" else "i32" for c in row.params]
                with m.kernel(f"{row.name}_{lanes}", [Param(f"p{i}", "ptr") for i in range(len(types) + 1)]) as k:
                    with k.for_(0, 64, lanes or 1) as loop:
                        args = [
                            k.load_as(p.at(loop.iv, "i8" if t == "i1" else t), t, lanes)
                            for p, t in zip(k.args, types, strict=False)
                        ]
                        y = getattr(ScalarEmitter(k), row.name)(*args)
                        result = y.t.element.name
                        k.store_as(y, k.args[-1].at(loop.iv, "i8" if result == "i1" else result), result)
                cases.append((row, lanes, types, result))
        return LoadedImage(compile_kernels(m.module, "cpu")), cases


def test_scalar_table_rows_match_numpy(scalar_rows):
    image, cases = scalar_rows
    rng = np.random.default_rng(0)
    wrong = []
    for row, lanes, types, result in cases:
        args = []
        for i, t in enumerate(types):
            if t == "f32":
                x = (rng.standard_normal(64) * 4).astype(np.float32)
                args.append(np.abs(x) if row.name in ("log", "sqrt", "rsqrt", "pow") and i == 0 else x)
            elif t == "i1":
                args.append(rng.integers(0, 2, 64).astype(bool))
            else:
                x = rng.integers(-50, 50, 64).astype(np.int32)
                x = np.where(x == 0, 3, x).astype(np.int32)
                args.append(np.abs(x) % 31 if row.name.startswith("sh") and i == 1 else x)
        out = np.zeros(64, {"f32": np.float32, "i32": np.int32, "i1": bool}[result])
        image.call(f"{row.name}_{lanes}", *args, out)
        if row.exact:
            good = np.array_equal(out, row.numpy(*args))
        else:
            exact = row.numpy(*(x.astype(np.float64) for x in args))
            good = np.max(np.abs(out - exact) / np.abs(exact)) <= max(row.bound, 1.01) * 2.0**-24
        if not good:
            wrong.append((row.name, lanes))
    assert not wrong


def test_a_region_reads_from_loaders():
    region = ScalarRegion(
        args=("f32",),
        insts=(
            ScalarInst("load", (), "f8E4M3FN", (("operand", 1),)),
            ScalarInst("extf", (1,), "f32"),
            ScalarInst("mulf", (0, 2), "f32"),
            ScalarInst("index", (), "i64", (("axis", 0),)),
            ScalarInst("sitofp", (4,), "f32"),
            ScalarInst("addf", (3, 5), "f32"),
            ScalarInst("const", (), "f32", (("value", 2.0),)),
            ScalarInst("load", (), "i4", (("operand", 2),)),
            ScalarInst("extsi", (8,), "i32"),
        ),
        results=(6, 7, 9),
    )
    codes = np.array([1.5, -2, 448, 0.125] * 2, ml_dtypes.float8_e4m3fn)
    nibbles = np.array([0, 7, 8, 15] * 2, np.uint8)
    out, twos, whole = np.zeros(8, np.float32), np.zeros(8, np.float32), np.zeros(8, np.int32)

    def build(k, c, s, p, q, r):
        sources = {1: c, 2: s}
        results = emit_region(
            k,
            region,
            [k.const(3.0, "vector<8xf32>")],
            load=lambda operand: k.load(sources[operand], "vector<8xi8>"),
            index=lambda axis: k.iota("vector<8xi64>"),
            lanes=8,
        )
        for value, target in zip(results, (p, q, r), strict=True):
            k.store(value, target)
        with pytest.raises(NotImplementedError, match="no load"):
            emit_region(k, region, [k.const(3.0)])

    run(build, codes, nibbles, out, twos, whole)
    assert np.array_equal(out, codes.astype(np.float32) * 3 + np.arange(8, dtype=np.float32))
    assert (twos == 2).all()
    assert whole.tolist() == [0, 7, -8, -1] * 2


def test_prmt_reaches_ptx_with_its_selector_last():
    """PTX ISA, "prmt": d, a, b, c, where c selects. The emulator cannot tell: it runs the operation, not the PTX."""
    with KernelModule("sm_90a") as m:
        with m.kernel("f", [Param("p", "ptr<1>")], threads=32) as k:
            (p,) = k.args
            k.store(k.prmt(k.load(p, "i32"), k.load(p + 4, "i32"), 0x7440), p + 8)
        ptx = compile_kernels(m.module, "sm_90a", stop="ptx")
    low, high = re.findall(r"ld\.global\.b32\s+(%r\d+), \[%rd\d+(?:\+4)?\]", ptx)
    assert re.search(rf"prmt\.b32\s+%r\d+, {low}, {high}, 0x7440", ptx), ptx
