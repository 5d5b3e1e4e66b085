"""Pipelines from Python: text and back, running, what failures become, instrumentation, patterns, the registry."""

from __future__ import annotations

import importlib.metadata
import io
import re
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingot.dialects.mlir import ir, new_context, operation_key
from ingot.errors import CompileError, ModelError
from ingot.passes import Instrumentation, Pass, PassContext, PassRegistry, Pipeline, registry
from ingot.passes.option_text import format_value, parse_value, split
from ingot.passes.patterns import Rewriter, fused_location, has_one_use, operations, rewrite
from ingot.passes.registry import CPP_PASSES

ROOT = Path(__file__).parents[1]
FUNC = """
func.func @f(%x: i32) -> i32 {
  %a = arith.addi %x, %x : i32 loc("a")
  %b = arith.addi %x, %x : i32 loc("b")
  %c = arith.muli %a, %b : i32 loc("c")
  return %c : i32
}
"""


@dataclass(frozen=True, kw_only=True)
class Record(Pass):
    """Count the operations of a name into a slot."""

    name: ClassVar[str] = "test-record"
    op: str = "arith.addi"
    scale: float = 1.0
    fail: bool = False

    def run(self, module: ir.Module, ctx: PassContext) -> None:
        ctx.slots.setdefault("counts", []).append(len(operations(module, self.op)))
        if self.fail:
            raise IndexError("planted")


@pytest.fixture
def context():
    with new_context() as ctx, ir.Location.unknown():
        yield ctx


@pytest.fixture
def module(context):
    return ir.Module.parse(FUNC)


# Text -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "builtin.module()",
        "builtin.module(cse)",
        "builtin.module(canonicalize{max-iterations=3 top-down=false},func.func(cse,canonicalize),symbol-dce)",
        "builtin.module(canonicalize{disable-patterns={a,b}},cse)",
    ],
)
def test_text_round_trips(text):
    assert str(Pipeline.parse(text)) == text


def test_text_without_the_anchor():
    assert str(Pipeline.parse(" cse ,\n canonicalize ")) == "builtin.module(cse,canonicalize)"


def test_pipeline_from_objects_prints_what_differs_from_defaults():
    pipeline = Pipeline([Record(), Record(op="arith.muli", scale=2), "cse"]) + Pipeline([Record(fail=True)])
    expected = "builtin.module(test-record,test-record{op=arith.muli scale=2},cse,test-record{fail=true})"
    assert str(pipeline) == expected


values = st.one_of(
    st.tuples(st.just(int), st.integers()),
    st.tuples(st.just(float), st.floats(allow_nan=False)),
    st.tuples(st.just(bool), st.booleans()),
    st.tuples(st.just(str), st.text(max_size=12)),
    st.tuples(st.just(int | None), st.none() | st.integers()),
    st.tuples(st.just(str | None), st.none() | st.text(max_size=8)),
    st.tuples(st.just(tuple[int, ...]), st.lists(st.integers(), max_size=4).map(tuple)),
    st.tuples(st.just(list[str]), st.lists(st.text(max_size=8), max_size=4)),
)


@given(values)
def test_option_values_round_trip(typed):
    kind, value = typed
    text = format_value(value)
    assert parse_value(text, kind) == value
    assert split(f"a={text} b=1", " ") == ([f"a={text}", "b=1"])


@pytest.mark.parametrize(
    ("text", "kind"), [("1.5", int), ("x", float), ("yes", bool), ("a b", str), ('"a', str), ("1,x", list[int])]
)
def test_option_values_of_the_wrong_type(text, kind):
    with pytest.raises((ValueError, CompileError)):
        parse_value(text, kind)


def test_options_of_other_types_are_the_authors_mistake():
    with pytest.raises(TypeError, match="a pass option is an int"):
        parse_value("x", dict)


@pytest.mark.parametrize("name", CPP_PASSES)
def test_suggested_cpp_passes_exist(name):
    assert str(Pipeline([name])) == f"builtin.module({name})"


# Running --------------------------------------------------------------------------------------------------------------


def test_python_and_cpp_passes_run_in_order(module):
    ctx = Pipeline([Record(), "cse", "canonicalize", Record()]).run(module)
    assert ctx.slots["counts"] == [2, 1]


def test_consecutive_cpp_passes_share_a_pass_manager_unless_timed(module):
    together, apart = Instrumentation(), Instrumentation(time_each=True)
    Pipeline(["cse", "canonicalize", Record(), "cse"]).run(module, None, together)
    Pipeline(["cse", "canonicalize", Record(), "cse"]).run(module, None, apart)
    assert [t.name for t in together.timings] == ["cse+canonicalize", "test-record", "cse"]
    assert [t.name for t in apart.timings] == ["cse", "canonicalize", "test-record", "cse"]


def test_a_defect_becomes_a_compile_error_whose_command_replays_it(module, tmp_path):
    file = tmp_path / "repro.mlir"
    with pytest.raises(CompileError, match="pass test-record failed: IndexError: planted") as caught:
        Pipeline(["cse", Record(fail=True)]).run(module, None, Instrumentation(reproducer=file))
    assert isinstance(caught.value.__cause__, IndexError)
    assert (
        caught.value.cure
        == f"replay with: {shlex.join(['ingot-opt', '--pass-pipeline=builtin.module(test-record{fail=true})', str(file)])}"
    )
    replayed = ir.Module.parse(file.read_text())
    assert Pipeline([Record()]).run(replayed).slots["counts"] == [1]


def test_without_a_path_the_reproducer_is_a_temporary_file(module):
    with pytest.raises(CompileError) as caught:
        Pipeline([Record(fail=True)]).run(module)
    file = Path(shlex.split(caught.value.cure)[-1])
    assert "arith.muli" in file.read_text()
    file.unlink()


def test_a_reproducer_that_cannot_be_written_hides_no_failure(module, tmp_path):
    with pytest.raises(CompileError, match="pass test-record failed: IndexError: planted") as caught:
        Pipeline([Record(fail=True)]).run(module, None, Instrumentation(reproducer=tmp_path / "none" / "repro.mlir"))
    assert caught.value.cure is None


def test_a_failing_cpp_pass_is_found_among_those_that_ran_together(context, tmp_path):
    module = ir.Module.parse("""
      func.func @f(%x: tensor<4xf32>) -> tensor<4xf32> {
        %a = "ingot.reshape"(%x) : (tensor<4xf32>) -> tensor<4xf32> loc("view")
        %b = "ingot.reshape"(%x) : (tensor<4xf32>) -> tensor<4xf32>
        return %a : tensor<4xf32>
      }""")
    file = tmp_path / "repro.mlir"
    with pytest.raises(CompileError, match=r"^view: pass one-shot-bufferize failed: op was not bufferized") as caught:
        Pipeline.parse("cse,one-shot-bufferize,canonicalize").run(module, None, Instrumentation(reproducer=file))
    assert "--pass-pipeline=builtin.module(one-shot-bufferize)" in caught.value.cure
    assert len(operations(ir.Module.parse(file.read_text()), "ingot.reshape")) == 1  # the IR after cse


def test_errors_of_the_model_pass_through(module):
    @dataclass(frozen=True, kw_only=True)
    class Refuse(Pass):
        name: ClassVar[str] = "test-refuse"

        def run(self, module: ir.Module, ctx: PassContext) -> None:
            raise ModelError("no", node="n", cure="yes")

    with pytest.raises(ModelError, match=re.escape("n: no (yes)")) as caught:
        Pipeline([Refuse()]).run(module)
    assert not getattr(caught.value, "__notes__", [])


def test_progress_is_told_before_each_pass(module):
    seen = []
    Pipeline([Record(), "cse"]).run(module, None, Instrumentation(on_pass=lambda *args: seen.append(args)))
    assert seen == [("test-record", 0, 2), ("cse", 1, 2)]


def test_print_ir_after_change_is_silent_where_nothing_changed(module):
    out = io.StringIO()
    Pipeline([Record(), "cse", "cse"]).run(module, None, Instrumentation(print_ir="changed", print_to=out))
    assert re.findall(r"IR Dump After (\S+)", out.getvalue()) == ["cse"]


def test_survive_crash_needs_a_path():
    with pytest.raises(ValueError, match="needs the path"):
        Instrumentation(survive_crash=True)


# Patterns -------------------------------------------------------------------------------------------------------------


def test_rewriting_reaches_a_fixed_point_and_keeps_locations(module):
    def double_to_shift(op: ir.Operation, rewriter: Rewriter) -> bool:
        if op.operands[0] != op.operands[1]:
            return False
        new = rewriter.create("arith.shli", [op.results[0].type], op.operands)
        rewriter.replace_op(op, new)
        return True

    assert rewrite(module, {"arith.addi": double_to_shift}) == 2
    module.operation.verify()
    assert [op.location.name_str for op in operations(module, "arith.shli")] == ["a", "b"]
    assert operations(module, "arith.addi") == []


def test_new_operations_and_users_are_visited(module):
    visited = []

    def once(op: ir.Operation, rewriter: Rewriter) -> bool:
        visited.append(op.name)
        if op.name != "arith.addi":
            return False
        new = rewriter.create("arith.shli", [op.results[0].type], op.operands)
        rewriter.replace_op(op, new)
        return True

    rewrite(module, dict.fromkeys(("arith.addi", "arith.shli", "arith.muli"), once))
    assert visited.count("arith.shli") == 2
    assert visited[:2] == ["arith.addi", "arith.addi"]


def test_patterns_that_never_end_are_stopped(module):
    def again(op: ir.Operation, rewriter: Rewriter) -> bool:
        rewriter.replace_op(op, rewriter.create("arith.addi", [op.results[0].type], op.operands))
        return True

    with pytest.raises(RuntimeError, match=r"no fixed point after 50 rewrites; the last was by .*again on arith.addi"):
        rewrite(module, {"arith.addi": again}, max_rewrites=50)


def test_erasing_what_is_used_is_refused(module):
    add, *_, mul = operations(module, "arith.addi", "arith.muli")
    rewriter = Rewriter()
    with pytest.raises(ValueError, match=re.escape("cannot erase arith.addi: arith.muli uses its result 0")):
        rewriter.erase(add)
    assert not rewriter.erase_if_unused(add)
    with pytest.raises(ValueError, match="replaced by a result of the operation to erase"):
        rewriter.replace_op(mul, mul)
    with pytest.raises(ValueError, match="has 1 results, its replacement 0"):
        rewriter.replace_op(mul, [])
    constant = rewriter.create("arith.constant", [ir.F32Type.get()], attributes={"value": ir.FloatAttr.get_f32(1)}, before=mul)
    with pytest.raises(ValueError, match="is i32, its replacement f32"):
        rewriter.replace_op(mul, constant)
    with pytest.raises(ValueError, match=r"nowhere to insert arith\.addi"):
        rewriter.create("arith.addi")
    assert rewriter.erase_if_unused(constant)
    module.operation.verify()


def test_an_erased_region_leaves_the_worklist(context):
    module = ir.Module.parse(
        "func.func @f(%c: i1, %x: i32) { scf.if %c { %a = arith.addi %x, %x : i32  %b = arith.muli %a, %a : i32 } return }"
    )

    def drop(op: ir.Operation, rewriter: Rewriter) -> bool:
        rewriter.erase(op)
        return True

    def fail(op: ir.Operation, rewriter: Rewriter) -> bool:
        raise AssertionError(f"{op.name} was visited")

    assert rewrite(module, {"scf.if": drop, "arith.addi": fail, "arith.muli": fail}) == 1


def test_fused_locations_name_each_source_once(module):
    a, b, c = operations(module, "arith.addi", "arith.muli")
    assert fused_location(a, a).name_str == "a"
    both = fused_location(a, b)
    assert [part.name_str for part in fused_location(both, c, a).locations] == ["a", "b", "c"]


def test_uses_are_counted(module):
    a, _, c = operations(module, "arith.addi", "arith.muli")
    assert has_one_use(a.result)
    c.operands[1] = a.result
    assert not has_one_use(a.result)


def test_operation_keys_outlive_changes(module):
    first, second = operations(module, "arith.addi")
    key = operation_key(first)
    first.attributes["overflowFlags"] = ir.Attribute.parse("#arith.overflow<nsw>")
    assert operation_key(operations(module, "arith.addi")[0]) == key != operation_key(second)


# Registry -------------------------------------------------------------------------------------------------------------


def test_every_file_of_the_package_defines_the_pass_it_is_named_after():
    names = PassRegistry().names()
    assert names
    assert [cls.name for cls in PassRegistry().all()] == names


def test_naming_a_pass_imports_no_other():
    code = (
        "import sys; from ingot.passes import PassRegistry; assert PassRegistry().find('no-such-pass') is None;"
        "assert not [m for m in sys.modules if 'torch_mlir' in m or m == 'ingot.passes.infer_shapes']"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class _EntryPoint:
    def __init__(self, name: str, value: object) -> None:
        self.name, self.value = name, f"package:{value}"
        self.load = lambda: value


def _with_entry_points(monkeypatch, *points: _EntryPoint) -> PassRegistry:
    monkeypatch.setattr(registry, "_entry_points", lambda: points)
    return PassRegistry()


def test_passes_of_installed_packages(monkeypatch):
    assert str(Pipeline.parse("test-record{op=a}", _with_entry_points(monkeypatch, _EntryPoint("test-record", Record)))) == (
        "builtin.module(test-record{op=a})"
    )


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([_EntryPoint("other", Record)], "is not a pass named 'other'"),
        ([_EntryPoint("other", 3)], "is not a pass named 'other'"),
        ([_EntryPoint("other", Record), _EntryPoint("other", Record)], "pass 'other' is defined by package:"),
    ],
)
def test_broken_entry_points(monkeypatch, points, message):
    with pytest.raises(CompileError, match=re.escape(message)):
        _with_entry_points(monkeypatch, *points).find("other")


def test_the_entry_point_group_is_read(monkeypatch):
    registry._entry_points.cache_clear()
    asked = []
    none = importlib.metadata.EntryPoints()
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **query: asked.append(query) or none)
    assert PassRegistry().find("no-such-pass") is None
    registry._entry_points.cache_clear()
    assert asked == [{"group": "ingot.passes"}]


# Documentation and start-up -------------------------------------------------------------------------------------------


def test_the_tutorial_shows_the_code_of_its_example():
    text = (ROOT / "docs" / "write-a-pass.md").read_text()
    blocks = re.findall(r"```(python|mlir)\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 3
    for language, block in blocks:
        example = ROOT / "examples" / "passes" / f"fold_double_transpose.{'py' if language == 'python' else language}"
        assert block in example.read_text()


def test_help_is_quick():
    """Beyond what the interpreter takes by itself, which is most of it where other processes keep the cores busy."""

    def best_of(arguments: list[str]) -> float:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
            times.append(time.perf_counter() - start)
        return min(times)

    assert best_of(["-m", "ingot.tools.ingot_opt", "--help"]) - best_of(["-c", "pass"]) < 0.3
