"""Rotary embeddings as one dispatch, alone and after a normalization, on both kinds of target: numerics, and accesses."""

from __future__ import annotations

import re

import cuda_dispatches as make
import numpy as np
import pytest
from cpu_kernel_harness import CompiledDispatch, place
from cuda_emulation import check

from ingot.compiler.codegen.cuda_normalize import NormalizeSchedule
from ingot.compiler.codegen.family import emit
from ingot.compiler.cpu_target import host_target
from ingot.compiler.reference import run_dispatch
from ingot.compiler.toolchain.stages import compile_kernels
from ingot.cuda_targets import BY_NAME
from ingot.dialects.mlir import kernel_context
from ingot.dispatch import Dispatch, contiguous

FORMS = [pytest.param(i, n, id=f"{'pairs' if i else 'halves'}{'_norm' if n else ''}") for i in (0, 1) for n in (0, 1)]


def ptx_of(d: Dispatch, target: str = "sm_90a") -> str:
    with kernel_context():
        return compile_kernels(emit(d, BY_NAME[target]).module, target, stop="ptx")


@pytest.mark.parametrize("dtype", ["f16", "bf16", "f32"])
@pytest.mark.parametrize(("interleaved", "norm"), FORMS)
def test_cuda(interleaved: bool, norm: bool, dtype: str) -> None:
    check(make.rotary(2, 29, 64, interleaved=interleaved, norm=norm, dtype=dtype), "sm_80")
    check(make.rotary(4, 60, 12, interleaved=interleaved, norm=norm, dtype=dtype), "sm_80")
    check(make.rotary(4, 60, 6, interleaved=interleaved, norm=norm, dtype=dtype), "sm_80")


@pytest.mark.parametrize("dtype", ["f16", "f32"])
@pytest.mark.parametrize(("interleaved", "norm"), FORMS)
def test_cuda_tables_of_one_angle_a_pair(interleaved: bool, norm: bool, dtype: str) -> None:
    check(make.rotary(2, 29, 64, interleaved=interleaved, norm=norm, dtype=dtype, shared=True), "sm_80")
    check(make.rotary(4, 60, 6, interleaved=interleaved, norm=norm, dtype=dtype, shared=True), "sm_80")
    d = make.rotary("n", "s", 2048, interleaved=interleaved, norm=norm, dtype=dtype, angles="f32", shared=True)
    check(d, "sm_80", sizes={"n": 2, "s": 3})


@pytest.mark.parametrize("norm", [False, True])
def test_cuda_accesses_of_tables_of_one_angle_a_pair(norm: bool) -> None:
    """Both tables are read once: four angles are eight bytes, beside eight elements of 16."""
    text = ptx_of(make.rotary(2, 6144, 2048, interleaved=True, norm=norm, shared=True))
    accesses = re.findall(r"(?:ld|st)\.global(?:\.nc)?\.(\S+)", text)
    narrow = [a for a in accesses if a in ("v2.b32", "v2.u32", "b64", "u64", "v4.b16", "v4.u16")]
    wide = [a for a in accesses if a in ("v4.b32", "v4.u32", "v4.f32", "v2.b64", "v2.u64")]
    assert narrow
    assert len(narrow) + len(wide) == len(accesses), accesses


@pytest.mark.parametrize(("interleaved", "norm"), FORMS)
def test_cuda_with_sizes_at_run_time(interleaved: bool, norm: bool) -> None:
    d = make.rotary("n", "s", 48, interleaved=interleaved, norm=norm, angles="f32")
    check(d, "sm_80", sizes={"n": 3, "s": 17})


@pytest.mark.parametrize("interleaved", [False, True])
def test_cuda_long_rows(interleaved: bool) -> None:
    check(make.rotary(1, 3, 2048, interleaved=interleaved, norm=True), "sm_80")
    d = make.rotary(1, 3, 512, interleaved=interleaved, norm=True)
    check(d, "sm_80", schedule=NormalizeSchedule(32, 8, 1, chunked=True, axes=1 + interleaved))


@pytest.mark.parametrize(("interleaved", "norm"), FORMS)
def test_cuda_accesses_of_16_bytes(interleaved: bool, norm: bool) -> None:
    text = ptx_of(make.rotary(2, 6144, 2048, interleaved=interleaved, norm=norm))
    accesses = re.findall(r"(?:ld|st)\.global(?:\.nc)?\.(\S+)", text)
    # LLVM writes a vector of eight halves as v4 of 32 bits.
    assert accesses
    assert {a for a in accesses} <= {"v4.b32", "v4.u32", "v4.f32", "v2.b64", "v2.u64"}, accesses


@pytest.mark.parametrize("dtype", ["f16", "bf16", "f32"])
@pytest.mark.parametrize(("interleaved", "norm"), FORMS)
def test_cpu(interleaved: bool, norm: bool, dtype: str) -> None:
    sizes = {"s": 37}
    for size, shared in ((6, False), (12, False), (24, False), (64, False), (6, True), (64, True)):
        d = make.rotary(3, "s", size, interleaved=interleaved, norm=norm, dtype=dtype, shared=shared)
        operands = [place(t, o.view, sizes) for t, o in zip(d.operands, make.random_operands(d, sizes), strict=True)]
        (got,) = CompiledDispatch(d).run(operands, sizes)
        (exact,) = run_dispatch(make.unrounded(d), operands, sizes, float64=True)
        (peer,) = make.peers(d, operands, sizes)
        make.check_against(got, exact, peer)


def test_pairs_are_vectors_on_the_cpu() -> None:
    """Lanes run over pairs: f32 pairs read backwards are loads of whole vectors, not gathers."""
    d = make.rotary(1, 8, 64, interleaved=True, norm=True, dtype="f32")
    with kernel_context():
        text = str(emit(d, host_target()).module)
    assert "gather" not in text
    assert "vector.shuffle" in text


def rows_of_a_table(interleaved: bool) -> Dispatch:
    """x [6, 16, D/2, 2] or [6, 16, D] plus rows of a table [9, D/2] or [9, D], chosen by ids [6, 16], all of f16."""
    inner = (32, 2) if interleaved else (64,)
    x, table, ids = contiguous("f16", 6, 16, *inner), contiguous("f16", 9, inner[0]), contiguous("i64", 6, 16)
    r = make.Region()
    place = r.add("load_at", *(r.add("index", type="i64", axis=i) for i in (0, 1)), type="i64", operand=2)
    row = r.add("load_at", place, r.add("index", type="i64", axis=2), type="f16", operand=1)
    y = r.add("addf", r.load(0, "f16"), r.add("extf", row))
    return make.make("pointwise", [x, table, ids], [x], [r.end(r.narrow(y, "f16"))])


@pytest.mark.parametrize("interleaved", [False, True])
def test_rows_of_a_table_are_runs_of_memory(interleaved: bool) -> None:
    d = rows_of_a_table(interleaved)

    def prepare(operands: list) -> None:
        operands[2][...] = np.arange(96).reshape(6, 16) % 9

    check(d, "sm_80", prepare=prepare)
    loads = re.findall(r"ld\.global(?:\.nc)?\.(\S+)", ptx_of(d))
    wide = ["v4.b32", "v4.b16"] if interleaved else ["v4.b32", "v4.b32"]  # x, and the table, which serves both of a pair
    assert sorted(set(loads) - {"b32", "b64"}) == sorted(set(wide)), loads  # ids are scalars
