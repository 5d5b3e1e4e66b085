"""Building and simplifying scalar regions: what is folded, what must not be, and that values stay the same bits."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ingot.compiler.reference import RootCall, run_region
from ingot.dispatch import ScalarInst, ScalarRegion
from ingot.passes.rewriting.scalar_regions import RegionBuilder, cost, simplify

FLOATS = np.array([0.0, -0.0, 1.0, -1.5, 3.0e38, 1e-40, np.inf, -np.inf, np.nan], np.float32)
INTS = np.array([0, 1, -1, 7, -8, 2**62, -(2**63)], np.int64)


def run(region: ScalarRegion, *args: np.ndarray) -> list[np.ndarray]:
    shape = args[0].shape
    call = RootCall("pointwise", (), {}, (region,), ())
    with np.errstate(all="ignore"):
        return [np.broadcast_to(v, shape) for v in run_region(call, region, args, shape)]


IDENTITIES = [
    ("mulf", 1.0, True), ("divf", 1.0, True), ("subf", 0.0, True), ("addf", -0.0, True),
    ("addf", 0.0, False), ("subf", -0.0, False), ("mulf", 0.0, False),
]  # fmt: skip


@pytest.mark.parametrize(("op", "value", "is_identity"), IDENTITIES)
def test_float_identities_are_exact(op: str, value: float, is_identity: bool) -> None:
    b = RegionBuilder(("f32",))
    result = b.emit(op, 0, b.const(value, "f32"))
    assert (result == 0) == is_identity
    if is_identity:
        row = ScalarRegion(("f32",), (ScalarInst("const", (), "f32", (("value", value),)), ScalarInst(op, (0, 1), "f32")), (2,))
        assert run(row, FLOATS)[0].tobytes() == FLOATS.tobytes()


def test_constants_of_one_value_and_two_spellings_stay_apart() -> None:
    b = RegionBuilder()
    zeros = b.const(0.0, "f32"), b.const(-0.0, "f32")
    assert zeros[0] != zeros[1]
    assert b.const(1, "i1") != b.const(1, "i64")
    assert b.const(math.nan, "f32") == b.const(math.nan, "f32")


def test_folding_rounds_as_the_type_does() -> None:
    b = RegionBuilder()
    third = b.emit("divf", b.const(1.0, "f32"), b.const(3.0, "f32"))
    assert b.constant(third) == float(np.float32(1) / np.float32(3))
    half = b.emit("truncf", third, type="f16")
    assert b.constant(half) == float(np.float16(1 / 3))
    wrapped = b.emit("addi", b.const(127, "i8"), b.const(1, "i8"))
    assert b.constant(wrapped) == -128
    assert b.constant(b.emit("exp", third)) is None  # not the same bits everywhere


def test_casts() -> None:
    b = RegionBuilder(("f16", "f32", "i8"))
    assert b.emit("truncf", b.emit("extf", 0, type="f32"), type="f16") == 0
    narrowed = b.emit("truncf", 1, type="f16")
    assert b.emit("extf", narrowed, type="f32") != 1
    assert b.emit("trunci", b.emit("extui", 2, type="i64"), type="i8") == 2
    assert b.inst(b.emit("extsi", b.emit("extsi", 2, type="i16"), type="i64")) == ScalarInst("extsi", (2,), "i64")


def test_unused_and_repeated_instructions_go() -> None:
    b = RegionBuilder(("f32",))
    first = b.emit("tanh", 0)
    b.emit("exp", 0)
    region = b.finish([b.emit("addf", first, b.emit("tanh", 0))])
    assert [i.op for i in region.insts] == ["tanh", "addf"]
    assert cost(region) == 13


def test_inlining_replaces_and_renumbers() -> None:
    inner = ScalarRegion(("f32",), (ScalarInst("load", (), "f32", (("operand", 1),)), ScalarInst("mulf", (0, 1), "f32")), (2,))
    b = RegionBuilder(("f32",))
    (value,) = b.inline(inner, [b.emit("negf", 0)], operands={1: 5})
    region = b.finish([value])
    assert [(i.op, i.args) for i in region.insts] == [("negf", (0,)), ("load", ()), ("mulf", (1, 2))]
    assert region.insts[1].attr("operand") == 5


@pytest.mark.parametrize("seed", range(6))
def test_random_regions_keep_their_bits(seed: int) -> None:
    """Simplified regions of exact operations give the same bits on special values; NaN may have another payload."""
    rng = np.random.default_rng(seed)
    ops = {"f32": ("addf", "subf", "mulf", "divf", "maxf", "minf"), "i64": ("addi", "subi", "muli", "andi", "ori", "xori",
                                                                             "maxsi", "minsi")}  # fmt: skip
    constants = {"f32": (0.0, -0.0, 1.0, 2.5), "i64": (0, 1, -1, 3)}
    for dtype, special in (("f32", FLOATS), ("i64", INTS)):
        x, y = (a.ravel() for a in np.meshgrid(special, special))
        for _ in range(40):
            insts: list[ScalarInst] = []
            for _ in range(rng.integers(1, 12)):
                known = 2 + len(insts)
                if rng.random() < 0.3:
                    value = constants[dtype][rng.integers(4)]
                    insts.append(ScalarInst("const", (), dtype, (("value", value),)))
                else:
                    op = ops[dtype][rng.integers(len(ops[dtype]))]
                    insts.append(ScalarInst(op, tuple(rng.integers(0, known, 2).tolist()), dtype))
            region = ScalarRegion((dtype, dtype), tuple(insts), (1 + len(insts),))
            simpler = simplify(region)
            assert len(simpler.insts) <= len(region.insts)
            before, after = run(region, x, y)[0], run(simpler, x, y)[0]
            numbers = before == before
            np.testing.assert_array_equal(after == after, numbers)
            assert after[numbers].tobytes() == before[numbers].tobytes(), (region, simpler)


def written_out_gelu(half: float = 0.5, one: float = 1.0, swapped: bool = False) -> ScalarRegion:
    """x/2 * (1 + tanh(1.5*x)) as exporters write it."""
    b = RegionBuilder(("f32",))
    halved = b.emit("mulf", b.const(half, "f32"), 0)
    total = b.emit("addf", b.const(one, "f32"), b.emit("tanh", b.emit("mulf", 0, b.const(1.5, "f32"))))
    return b.finish([b.emit("mulf", *((total, halved) if swapped else (halved, total)))])


@pytest.mark.parametrize("swapped", [False, True])
def test_a_half_of_one_plus_tanh_is_a_sigmoid(swapped: bool) -> None:
    region = written_out_gelu(swapped=swapped)
    assert [i.op for i in region.insts if i.op != "const"] == ["mulf", "mulf", "sigmoid", "mulf"]
    x = np.linspace(-8, 8, 1001, dtype=np.float32)
    wide = x.astype(np.float64)
    expected = wide / 2 * (1 + np.tanh(1.5 * wide))
    assert np.all(np.abs(run(region, x)[0] - expected) <= 2e-6 * np.abs(expected))
    b = RegionBuilder(("f32",))
    alone = b.finish([b.emit("mulf", b.emit("addf", b.emit("tanh", 0), b.const(1.0, "f32")), b.const(0.5, "f32"))])
    assert [i.op for i in alone.insts if i.op != "const"] == ["mulf", "sigmoid"]


@pytest.mark.parametrize("other", [{"half": 0.25}, {"one": 1.5}])
def test_other_sums_with_tanh_stay(other: dict[str, float]) -> None:
    assert "tanh" in [i.op for i in written_out_gelu(**other).insts]
