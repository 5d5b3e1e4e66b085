"""The tool chain: stages, literals between LLVM versions, the static linker, PTX and cubins for every target."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from kernel_testing import LoadedImage, everything

from ingot.compiler.codegen.kernel_builder import KernelModule, Param
from ingot.compiler.toolchain import llvm_ir
from ingot.compiler.toolchain.cubin import assemble
from ingot.compiler.toolchain.host import HostTarget, compile_object
from ingot.compiler.toolchain.image import link
from ingot.compiler.toolchain.literals import fix_literals
from ingot.compiler.toolchain.ptx import compile_ptx, entries, merge_ptx, ptx_version
from ingot.compiler.toolchain.stages import Options, Timings, compile_kernels, stages_of
from ingot.cuda_targets import CUDA_TARGETS
from ingot.errors import CompileError


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("float 1.000000e-01", "float 0x3FB99999A0000000"),
        ("float f0x3F4C422A", "float 0x3FE9884540000000"),
        ("float +inf", "float 0x7FF0000000000000"),
        ("float -qnan", "float 0xFFF8000000000000"),
        ("float +nan(0x1)", "float 0x7FF8000020000000"),
        ("float +snan(0x1)", "float 0x7FF0000020000000"),
        ("float 1.000000e-45", "float 0x36A0000000000000"),
        ("float 3.40282347e+38", "float 0x47EFFFFFE0000000"),
        ("half 1.000000e-01", "half 0xH2E66"),
        ("half 6.000000e-08", "half 0xH0001"),
        ("bfloat 1.000000e-01", "bfloat 0xR3DCD"),
        ("bfloat 3.380000e+38", "bfloat 0xR7F7E"),
        ("double 1.000000e-01", "double 0x3FB999999999999A"),
        ("double -0.000000e+00", "double 0x8000000000000000"),
        ("<2 x half> <half 1.0e+00, half f0x7E00>", "<2 x half> <half 0xH3C00, half 0xH7E00>"),
        ('call float asm "mul 1.000000e-01"', 'call float asm "mul 1.000000e-01"'),
        ("ret i32 %v1.0e+00", "ret i32 %v1.0e+00"),
    ],
)
def test_literals_become_those_of_llvm_22(before, after):
    assert fix_literals(f"  {before}\n") == f"  {after}\n"


def test_the_type_of_a_literal_is_the_last_on_its_own_line():
    text = "a = fadd half %x, 1.000000e+00\nb = fadd double %y, 1.000000e+00\n"
    assert fix_literals(text) == "a = fadd half %x, 0xH3C00\nb = fadd double %y, 0x3FF0000000000000\n"


def scale_module(factor=0.1):
    with KernelModule("cpu") as m:
        with m.kernel("scale", [Param("p", "ptr")]) as k:
            k.store(k.load(k.args[0], "f32") * factor, k.args[0])
        return m.text()


def test_stages_dump_and_resume(tmp_path):
    timings = Timings()
    options = Options(name="scale")
    image = compile_kernels(scale_module(), "cpu", dump_dir=tmp_path, options=options, timings=timings)
    assert list(timings.seconds) == ["llvm-dialect", "llvm-ir", "object", "image"]
    for stage in stages_of("cpu")[:-1]:
        path = tmp_path / f"scale{stage.suffix}"
        source = path.read_bytes() if stage.name == "object" else path.read_text()
        assert compile_kernels(source, "cpu", start=stage.name) == image, stage.name
    edited = (tmp_path / "scale.ll").read_text().replace("0x3FB99999A0000000", "0x4000000000000000")
    x = np.array([3], np.float32)
    LoadedImage(compile_kernels(edited, "cpu", start="llvm-ir")).call("scale", x)
    assert x[0] == 6
    with pytest.raises(ValueError, match="'ptx' is no stage of cpu"):
        compile_kernels(edited, "cpu", start="ptx")


def test_equal_sources_give_equal_bytes():
    assert compile_kernels(scale_module(), "cpu") == compile_kernels(scale_module(), "cpu")
    text = everything("sm_90a")
    assert compile_kernels(text, "sm_90a") == compile_kernels(text, "sm_90a")


def test_an_undefined_function_is_refused_by_name():
    text = "declare float @sinf(float)\ndefine float @f(float %x) {\n %y = call float @sinf(float %x)\n ret float %y\n}"
    with pytest.raises(CompileError, match="calls sinf"):
        link(compile_object(text))


def test_writable_data_is_refused():
    text = "@g = internal global i32 1\ndefine i32 @f() {\n %x = atomicrmw add ptr @g, i32 1 seq_cst\n ret i32 %x\n}"
    with pytest.raises(CompileError, match="writable data"):
        link(compile_object(text))


@pytest.mark.parametrize("level", [0, 3])
def test_memory_functions_are_linked_in(level):
    text = """
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare void @llvm.memmove.p0.p0.i64(ptr, ptr, i64, i1)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
define void @copy(ptr %a, ptr %b, i64 %n) {
  call void @llvm.memcpy.p0.p0.i64(ptr %a, ptr %b, i64 %n, i1 false)
  ret void
}
define void @move(ptr %a, ptr %b, i64 %n) {
  call void @llvm.memmove.p0.p0.i64(ptr %a, ptr %b, i64 %n, i1 false)
  ret void
}
define void @fill(ptr %a, ptr %b, i64 %n) {
  call void @llvm.memset.p0.i64(ptr %a, i8 7, i64 %n, i1 false)
  ret void
}"""
    image = link(compile_object(text, level=level))
    assert list(image.symbols) == ["copy", "fill", "move"]
    loaded = LoadedImage(image)
    a, b = np.zeros(100, np.uint8), np.arange(100, dtype=np.uint8)
    loaded.call("copy", a, b, 97)
    assert np.array_equal(a[:97], b[:97])
    assert not a[97:].any()
    c = b.copy()
    loaded.call("move", c[10:], c, 90)
    assert np.array_equal(c[10:], b[:90])
    c = b.copy()
    loaded.call("move", c, c[10:], 90)
    assert np.array_equal(c[:90], b[10:])
    loaded.call("fill", a, b, 5)
    assert a[:6].tolist() == [7] * 5 + [5]


def test_tables_are_reached_relative_to_the_code():
    # A switch becomes a table of results or of jump targets; both must work at any address.
    cases = "\n".join(f"    i64 {i}, label %c{i}" for i in range(12))
    bodies = "\n".join(
        f"c{i}:\n  store i64 {i * i * 7 % 31}, ptr %p\n  %v{i} = load volatile i64, ptr %p\n  br label %e" for i in range(12)
    )
    text = (
        "define void @pick(ptr %p) {\n  %n = load i64, ptr %p\n"
        f"  switch i64 %n, label %e [\n{cases}\n  ]\n{bodies}\ne:\n  ret void\n}}"
    )
    for level in (0, 3):
        loaded = LoadedImage(link(compile_object(text, level=level)))
        for i in range(13):
            x = np.array([i], np.int64)
            loaded.call("pick", x)
            assert x[0] == (i * i * 7 % 31 if i < 12 else 12)


def test_features_of_another_cpu():
    text = """define void @f(ptr %p) {
  %x = load <8 x float>, ptr %p
  %y = fadd <8 x float> %x, %x
  store <8 x float> %y, ptr %p
  ret void
}"""
    assert "ymm" in compile_object(text, HostTarget("x86-64-v3"), assembly=True)
    assert "ymm" not in compile_object(text, HostTarget("x86-64-v2"), assembly=True)


def test_operations_without_translation_are_refused():
    text = "func.func @f() { return }"
    from ingot.dialects.mlir import ir

    with ir.Context():
        with pytest.raises(CompileError, match=r"no translation to LLVM IR for func\.func, func\.return"):
            llvm_ir.to_llvm_ir(ir.Module.parse(text))


@pytest.mark.parametrize("operation", ["llvm.intr.exp", "llvm.intr.log2", "llvm.intr.tanh"])
def test_operations_that_would_end_the_process_are_refused(operation):
    with KernelModule("sm_80") as m:
        with m.kernel("kernel", [Param("p", "ptr<1>")], threads=32) as k:
            x = k.load(k.args[0], "f32")
            k.store(k.emit(operation, (x,), k.f32), k.args[0])
        with pytest.raises(CompileError, match=f"kernel: {operation} has no code on sm_80"):
            compile_kernels(m.text(), "sm_80")


@pytest.mark.parametrize("target", [t.name for t in CUDA_TARGETS])
def test_every_operation_assembles(target):
    text = everything(target)
    cubin = compile_kernels(text, target)
    assert cubin[:4] == b"\x7fELF"
    for name in re.findall(r"llvm\.func @(\w+)", text):
        assert name.encode() in cubin


def test_intended_instructions_are_in_the_ptx():
    ptx = compile_kernels(everything("sm_90a"), "sm_90a", stop="ptx")
    for instruction in (
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32",
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16",
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes",
        "ldmatrix.sync.aligned.m8n8.x4.shared.b16",
        "ex2.approx",
        "cvt.rn.satfinite.e5m2x2.f32",
        ".reqntid 128, 1, 1",
        ".explicitcluster",
    ):
        assert instruction in ptx, instruction
    ptx = compile_kernels(everything("sm_120a"), "sm_120a", stop="ptx")
    assert "kind::mxf4nvf4.block_scale.scale_vec::4X.f32.e2m1.e2m1.f32.ue4m3" in ptx


def test_targets_without_their_suffix():
    """What a newer GPU of a family runs: the portable part of the family's row."""
    text = "define ptx_kernel void @k() { ret void }"
    for name in ("sm_90", "sm_100", "sm_120"):
        assert assemble(compile_ptx(text, name), name)[:4] == b"\x7fELF"
    with pytest.raises(ValueError, match="no PTX version is known for 'sm_70'"):
        ptx_version("sm_70")


def test_the_assembler_is_quoted_and_the_failure_repeatable(tmp_path):
    ptx = ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry f() { frobnicate; }\n"
    with pytest.raises(CompileError, match="frobnicate") as caught:
        assemble(ptx, "sm_80", name="bad", reproducer_dir=tmp_path)
    assert f"ptxas -arch=sm_80 -O3 {tmp_path / 'bad.ptx'}" in str(caught.value)
    assert (tmp_path / "bad.ptx").read_text() == ptx
    with pytest.raises(CompileError, match=r"(?s)frobnicate.*the PTX could not be kept: Not a directory"):
        assemble(ptx, "sm_80", name="bad", reproducer_dir=tmp_path / "bad.ptx" / "x")


def test_kernels_are_batched_into_one_module():
    modules = []
    for name in ("first", "second"):
        with KernelModule("sm_86") as m:
            with m.kernel(name, [Param("p", "ptr<1>")], threads=32) as k:
                k.store(k.load(k.dynamic_shared(), "i32"), k.args[0])
            modules.append(compile_kernels(m.text(), "sm_86", stop="ptx"))
    merged = merge_ptx(modules)
    assert entries(merged) == ["first", "second"]
    cubin = assemble(merged, "sm_86")
    assert b"first" in cubin
    assert b"second" in cubin
    other = compile_ptx("define ptx_kernel void @k() { ret void }", "sm_80")
    with pytest.raises(ValueError, match="different targets"):
        merge_ptx([modules[0], other])


def test_compiling_imports_no_gpu_library_for_the_cpu():
    code = (
        "import sys\n"
        "from ingot.compiler.toolchain.stages import compile_kernels\n"
        "compile_kernels('define void @f() { ret void }', 'cpu', start='llvm-ir')\n"
        "assert not [m for m in sys.modules if m.startswith('cuda')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)
