"""Moves, reductions and pooling for NVIDIA GPUs without one: numerics and races on the emulator, accesses in PTX."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import cuda_dispatches as make
import numpy as np
import pytest
from cuda_emulation import run_emulated

from ingot import dims
from ingot.compiler.codegen.family import emit
from ingot.compiler.reference import run_dispatch
from ingot.compiler.toolchain.stages import compile_kernels
from ingot.cuda_targets import BY_NAME
from ingot.dialects.mlir import kernel_context
from ingot.dispatch import Dispatch, ScalarRegion, TensorArg, contiguous

TARGETS = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90a", "sm_120a")


def check(d: Dispatch, sizes: Mapping[str, int] | None = None, target: str = "sm_90a") -> None:
    """Run on the emulator and compare with the float64 reference."""
    found = run_emulated(d, target, sizes)
    exact = run_dispatch(make.unrounded(d), found.operands, sizes, float64=True)
    peers = run_dispatch(d, found.operands, sizes)
    for got, reference, peer in zip(found.results, exact, peers, strict=True):
        if got.dtype.kind in "iub" or d.root == "move":
            assert got.tobytes() == np.ascontiguousarray(peer).tobytes()
        else:
            make.check_against(got, reference, peer)


def copy(x: TensorArg, y: TensorArg) -> Dispatch:
    return make.make("move", [x], [y], [ScalarRegion((x.dtype,), (), (0,))])


def ptx_of(d: Dispatch, target: str = "sm_90a") -> str:
    with kernel_context():
        return compile_kernels(emit(d, BY_NAME[target]).module, target, stop="ptx")


# Moves ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["i1", "i8", "f8E4M3FN", "f16", "f32", "i64"])
def test_transposes_of_every_width(dtype: str) -> None:
    check(make.move((65, 78), (1, 0), dtype))


@pytest.mark.parametrize(
    ("shape", "perm"),
    [((2, 70, 77), (0, 2, 1)), ((2, 17, 3, 16), (0, 2, 1, 3)), ((2, 40, 6, 6), (0, 2, 3, 1)), ((2, 3, 8, 8), (0, 2, 3, 1))],
)
def test_permutations(shape: tuple[int, ...], perm: tuple[int, ...]) -> None:
    check(make.move(shape, perm))


def test_moves_of_any_size() -> None:
    check(make.move(("a", "b"), (1, 0), "f32"), {"a": 70, "b": 33})
    check(make.move(("a", "b", 8), (1, 0, 2)), {"a": 7, "b": 3})


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (contiguous("f16", 4, 24), TensorArg("f16", (4, 24), (40, 1), 16)),
        (contiguous("f16", 4, 24), TensorArg("f16", (4, 24), (41, 1), 2)),
        (contiguous("f16", 4, 24), TensorArg("f16", (4, 24), (1, 7), 2)),
        (TensorArg("f16", (40, 48), (1, 40), 64), TensorArg("f16", (40, 48), (50, 1), 4)),
        (TensorArg("f32", (5, 8), (0, 1), 64), contiguous("f32", 5, 8)),
        (contiguous("f32"), contiguous("f32")),
    ],
    ids=["aligned part", "odd part", "columns", "transposed part", "broadcast", "scalar"],
)
def test_moves_into_parts(x: TensorArg, y: TensorArg) -> None:
    check(copy(x, y))


def test_four_bit_elements_move_as_bytes() -> None:
    d = make.make("move", *([[contiguous("i4", 4, 8)]] * 2), [ScalarRegion(("i4",), (), (0,))])
    with kernel_context():
        assert emit(d, BY_NAME["sm_90a"]).plan.launches[0].bytes == 2 * 16
    with kernel_context(), pytest.raises(NotImplementedError, match="whole bytes"):
        emit(copy(contiguous("i4", 4, 7), TensorArg("i4", (4, 7), (8, 1), 1)), BY_NAME["sm_90a"])


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (contiguous("f16", 2, 8, 24), TensorArg("f16", (2, 8, 24), (40 * 24, 24, 1), 16)),
        (TensorArg("f16", (40, 48), (1, 40), 64), TensorArg("f16", (40, 48), (50, 1), 4)),
        (contiguous("f4E2M1FN", 4, 8), TensorArg("f4E2M1FN", (4, 8), (16, 1), 4)),
    ],
    ids=["rows", "transposed", "bytes"],
)
@pytest.mark.parametrize("nbytes", [0, 96])
def test_parts_that_begin_where_the_size_table_says(x: TensorArg, y: TensorArg, nbytes: int) -> None:
    d = replace(copy(x, y), symbols=("d0", "d1"), multiples=(16, 32))
    d0, d1 = map(dims.symbol, d.symbols)
    check(replace(d, offsets=(("result", 0, d0),)), {"d0": nbytes, "d1": 32})
    d = replace(d, offsets=(("operand", 0, d0 + d1), ("result", 0, d1)))
    known, moved = d.specialize({"d1": 32}).without_known_offsets()
    check(d, {"d0": nbytes, "d1": 32})
    assert (known.offsets, moved) == ((("operand", 0, d0 + 32),), {("result", 0): 32})
    assert known.symbols == ("d0",)
    check(make.append(3, 2, 16, 40), {"offset": 5 * 32})
    check(known, {"d0": nbytes})


def test_region_of_a_transpose() -> None:
    r = make.Region("f16")
    region = r.end(r.narrow(r.add("addf", r.wide(0, "f16"), r.load(1, "f16")), "f32"))
    x = TensorArg("f16", (40, 48), (1, 40), 64)
    check(make.make("move", [x, contiguous("f16", 48)], [contiguous("f32", 40, 48)], [region]))


def test_accesses_of_16_bytes() -> None:
    assert re.findall(r"ld\.global\S*\.v4", ptx_of(make.move((2, 128, 12, 64), (0, 2, 1, 3))))
    ptx = ptx_of(make.move((256, 512), (1, 0)))
    assert re.findall(r"ld\.global\S*\.v4", ptx)
    assert re.findall(r"st\.global\S*\.v4", ptx)
    assert "st.shared" in ptx


# Reductions -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["sum", "max", "min", "prod"])
@pytest.mark.parametrize(("shape", "axes"), [((5, 77), (1,)), ((77, 5), (0,)), ((5, 2048), (1,))])
@pytest.mark.parametrize("dtype", ["f32", "i32"])
def test_kinds(kind: str, shape: tuple[int, ...], axes: tuple[int, ...], dtype: str) -> None:
    if kind == "prod" and shape[1] > 100:
        shape = (5, 96)  # longer products of normally distributed numbers vanish
    check(make.reduce(kind, shape, axes, dtype))


@pytest.mark.parametrize(
    "d",
    [
        make.reduce("max", (5, 77), (1,), "i1"),
        make.reduce("min", (77, 5), (0,), "i1"),
        make.reduce("sum", (5, 77), (1,), "i64"),
        make.reduce("sum", (3, 40, 16), (1,), "f16"),
        make.reduce("sum", (3, 40, 16), (0, 2), "bf16"),
        make.reduce("sum", (13, 5, 6), (0, 1, 2)),
        make.reduce("sum", (2, 40000), (1,)),
        make.reduce("max", (9000, 8), (0,)),
    ],
    ids=["i1", "i1 across", "i64", "middle", "two", "all", "split", "split across"],
)
def test_reductions(d: Dispatch) -> None:
    check(d)


@pytest.mark.parametrize("b", [0, 1, 100])
def test_reductions_of_any_size(b: int) -> None:
    check(make.reduce("sum", ("a", "b", 16), (1,)), {"a": 3, "b": b})
    check(make.reduce("max", ("a", "b"), (1,), "f16"), {"a": 3, "b": b})


def spoil(views: list[np.ndarray]) -> None:
    """Put a NaN and an infinity into the first operand."""
    views[0][..., 3, 5] = np.nan
    views[0][..., 2, 4] = np.inf


@pytest.mark.parametrize("target", ["sm_75", "sm_90a"])
@pytest.mark.parametrize("d", [
    make.reduce("max", (40, 40), (0,)), make.reduce("min", (40, 40), (1,)),
    make.pool("max", (1, 9, 9, 8), (1, 4, 4, 8), (3, 3), (2, 2), (0,) * 4, "f32"),
], ids=["across", "along", "pool"])  # fmt: skip
def test_nan_wins(d: Dispatch, target: str) -> None:
    """Extrema of elements with a NaN are NaN: numpy's and ONNX's rule."""
    found = run_emulated(d, target, prepare=spoil)
    (reference,) = run_dispatch(d, found.operands)
    assert np.isnan(reference).any()
    assert np.array_equal(found.results[0], reference, equal_nan=True)


# Pooling --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f16", "f32"])
@pytest.mark.parametrize(
    ("kind", "options"),
    [("max", {}), ("sum", {}), ("average", {}), ("average", {"include_pad": True})],
    ids=["max", "sum", "average", "padding counts"],
)
def test_pools(kind: str, options: dict[str, bool], dtype: str) -> None:
    check(make.pool(kind, (2, 9, 11, 20), (2, 5, 6, 20), (3, 3), (2, 2), (1, 1, 1, 1), dtype, **options))


def test_pools_of_one_axis_and_of_large_windows() -> None:
    check(make.pool("max", (2, 20, 7), (2, 10, 7), (2,), (2,), (0, 0)))
    check(make.pool("average", (1, 12, 12, 8), (1, 1, 1, 8), (12, 12), (1, 1), (0,) * 4, "f32"))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pools_of_few_channels(channels: int) -> None:
    """Rows of results that are whole vectors although channels alone are none."""
    check(make.pool("average", (1, 4, 4, channels), (1, 2, 2, channels), (3, 3), (1, 1), (0,) * 4, "f32"))
    check(make.pool("max", (2, 8, 16, channels), (2, 4, 8, channels), (2, 2), (2, 2), (0,) * 4))


def test_pools_of_channels_that_repeat() -> None:
    for kind in ("average", "max"):
        d = make.pool(kind, (3, 12, 8), (3, 12, 8), (5,), (1,), (2, 2))
        x = replace(d.operands[0], strides=(12, 1, 0))
        check(replace(d, operands=(x,)))


@pytest.mark.parametrize("target", TARGETS)
def test_machine_code(target: str) -> None:
    for d in (
        make.move((64, 64), (1, 0)),
        make.reduce("max", (64, 512), (1,), "bf16"),
        make.reduce("sum", (512, 64), (0,), "bf16"),
        make.pool("max", (1, 8, 8, 32), (1, 4, 4, 32), (2, 2), (2, 2), (0,) * 4),
    ):
        with kernel_context():
            assert compile_kernels(emit(d, BY_NAME[target]).module, target)[:4] == b"\x7fELF"
