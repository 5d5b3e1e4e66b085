"""Small kernels of a GPU in one module: which are, what the cache keeps of them, and what a failure costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ingot.compiler.compile_batch import compile_batch
from ingot.compiler.toolchain.ptx import entries, merge_ptx
from ingot.cuda_targets import target
from ingot.dispatch import Dispatch, ScalarInst, ScalarRegion, contiguous
from ingot.errors import CompileError
from ingot.fingerprint import kernel_key
from ingot.kernel_code import KernelCode
from ingot.runtime.cache import RuntimeCache
from ingot.runtime.compile_client import CompileClient
from ingot.runtime.kernel_batches import batches
from ingot.runtime.load_report import LoadReport
from ingot.runtime.program_loader import ProgramLoader

SM_86 = target("sm_86")


def unary(name: str) -> Dispatch:
    x = contiguous("f32", "d0", 64)
    insts = (ScalarInst("load", (), "f32", (("operand", 0),)), ScalarInst(name, (0,), "f32"))
    return Dispatch("pointwise", (x,), (x,), (), (ScalarRegion((), insts, (1,)),), ("d0",), (1,))


def product(rows: int) -> Dispatch:
    a, b, c = contiguous("f16", rows, 64), contiguous("f16", 64, 32), contiguous("f16", rows, 32)
    return Dispatch("matmul", (a, b), (c,))


def with_epilogue(d: Dispatch, instructions: int) -> Dispatch:
    """A product whose results are negated so often."""
    insts = tuple(ScalarInst("negf", (i,), "f32") for i in range(instructions))
    return replace(d, regions=(ScalarRegion(("f32",), insts, (instructions,)),))


@pytest.fixture
def loader(tmp_path: Path) -> Iterator[ProgramLoader]:
    client = CompileClient(workers=1)
    yield ProgramLoader(RuntimeCache(tmp_path / "cache.sqlite"), client)
    client.close()


def load(loader: ProgramLoader, dispatches: list[Dispatch]) -> tuple[list[KernelCode], int]:
    """The kernels and how many had to be compiled."""
    texts = [d.text for d in dispatches]
    report = LoadReport()
    codes = loader._kernels(texts, [kernel_key(t, SM_86.key) for t in texts], SM_86, report)
    return codes, report.compiled


def test_products_with_long_epilogues_come_first() -> None:
    """The epilogue is written out for each of a thread's accumulators: GELUs take twice as long as sums."""
    texts = [with_epilogue(product(512 + n), n).text for n in (1, 12, 90, 4)]
    assert batches(texts, 4) == [[2], [1], [3], [0]]


def test_small_kernels_are_spread_over_workers_and_big_ones_stand_alone() -> None:
    texts = [product(512).text, *(unary("negf").text for _ in range(40)), product(1).text]
    assert list(map(len, batches(texts, 4))) == [11, 11, 11, 8, 1]
    assert list(map(len, batches(texts, 1))) == [16, 16, 9, 1]
    assert list(map(len, batches(texts, 64))) == [1, *[3] * 13, 2]
    groups = batches(texts, 4)
    assert [0] in groups
    assert sorted(i for group in groups for i in group) == list(range(42))


def test_kernels_share_a_module_that_is_kept_once(loader: ProgramLoader) -> None:
    dispatches = [unary(name) for name in ("negf", "absf", "sqrt")]
    codes, compiled = load(loader, dispatches)
    assert compiled == 3
    assert len({code.plan.launches[0].symbol for code in codes}) == 3
    assert len({code.module for code in codes}) == 1
    assert codes[0].module
    for code in codes:
        assert code.code[:4] == b"\x7fELF"
        assert code.plan.launches[0].symbol.encode() in code.code
    kinds = loader.cache.info()["kinds"]
    assert kinds["module"] == {"entries": 1, "bytes": len(codes[0].code)}
    assert kinds["kernel"]["entries"] == 3
    assert kinds["kernel"]["bytes"] < len(codes[0].code)
    again, compiled = load(loader, dispatches)
    assert compiled == 0
    assert again == codes
    assert again[0].code is again[1].code


def test_kernels_without_their_module_are_compiled_again(loader: ProgramLoader) -> None:
    codes, _ = load(loader, [unary("negf"), unary("absf")])
    loader.cache._db.execute("DELETE FROM entries WHERE kind = 'module'")
    again, compiled = load(loader, [unary("negf"), unary("absf")])
    assert compiled == 2
    assert again == codes


def test_a_failure_costs_its_kernel_only(loader: ProgramLoader) -> None:
    bad = Dispatch("reduce", (contiguous("f32", 4),), (contiguous("f32", 4),))  # no region: nothing to reduce with
    with pytest.raises(CompileError, match="no code for reduce on sm_86"):
        load(loader, [unary("negf"), bad, unary("absf")])
    codes, compiled = load(loader, [unary("negf"), unary("absf")])
    assert compiled == 0
    assert codes[0].module == codes[1].module != ""


def test_a_dead_worker_costs_its_kernel_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = ProgramLoader(RuntimeCache(tmp_path / "cache.sqlite"), CompileClient(workers=1))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "crashing_family"))
    loader.client.start()
    monkeypatch.delenv("PYTHONPATH")
    with pytest.raises(CompileError, match=r"no code for pointwise on sm_86: .*SIGABRT") as e:
        load(loader, [unary("negf"), unary("asinh"), unary("absf")])
    assert not getattr(e.value, "__notes__", [])
    assert load(loader, [unary("negf"), unary("absf")])[1] == 0
    loader.client.close()


def test_what_the_assembler_refuses_together_is_assembled_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from ingot.compiler import compile_batch as module

    monkeypatch.setattr(module, "merge_ptx", lambda modules: "no PTX")
    batch = compile_batch([unary("negf"), unary("absf")], SM_86)
    assert batch.module == b""
    for code in batch.kernels:
        assert isinstance(code, KernelCode)
        assert code.module == ""
        assert code.code[:4] == b"\x7fELF"


def test_symbols_of_modules_do_not_collide() -> None:
    text = """
.version 8.8
.target sm_86
.address_size 64

.const .align 4 .b8 table_0[8] = {1, 0, 0, 0, %d, 0, 0, 0};
.func  (.param .b32 func_retval0) helper()
{
	st.param.b32 	[func_retval0], %d;
	ret;
}
.visible .entry %s(.param .u64 p)
{
	.reg .b32 %%r<4>;
	.shared .align 4 .b8 own[4];
	ld.const.b32 	%%r1, [table_0+4];
	st.shared.b32 	[own], %%r1;
	ret;
}
"""
    merged = merge_ptx([text % (2, 5, "first"), text % (3, 6, "second")])
    assert entries(merged) == ["first", "second"]
    assert "[table_0_m0+4]" in merged
    assert "[table_0_m1+4]" in merged
    assert "helper_m1()" in merged
    assert merged.count(".b8 own[4]") == 2
    from ingot.compiler.toolchain.cubin import assemble

    cubin = assemble(merged, "sm_86")
    assert b"first" in cubin
    assert b"second" in cubin
    with pytest.raises(ValueError, match=r"one name cannot be merged: \['first'\]"):
        merge_ptx([text % (2, 5, "first"), text % (3, 6, "first")])
