"""From AOT IR to canonical dispatches: places, symbols, regions, broadcasting that is known only at run time."""

from __future__ import annotations

import pytest

from ingot import dims
from ingot.compiler.dispatch_builder import BuiltDispatch, PlaceResolver, build_dispatch
from ingot.dialects import ingot as dialect
from ingot.dialects.mlir import context, ir
from ingot.dispatch import Dispatch, from_json, to_json
from ingot.errors import CompileError


def tensor(*shape: int | str, dtype: str = "f32") -> str:
    """The text of a tensor type with sizes given as numbers or expressions."""
    sizes = "".join(f"{d}x" if isinstance(d, int) else "?x" for d in shape)
    names = ", ".join(f'"{d}"' for d in shape if not isinstance(d, int))
    return f"tensor<{sizes}{dtype}{f', #ingot.dims<[{names}]>' if names else ''}>"


def build(arguments: dict[str, str], body: str, moving: frozenset[str] = frozenset()) -> list[BuiltDispatch]:
    """The dispatches of a function."""
    args = ", ".join(f"%{n}: {t}" for n, t in arguments.items())
    names, types = (", ".join(f'"{x}"' for x in xs) for xs in (arguments, ["float"] * len(arguments)))
    text = f"""
      "ingot.func"() ({{ ^bb0({args}):
        {body}
        "ingot.return"() : () -> () }}) {{sym_name = "main", inputs = [{names}], input_types = [{types}]}} : () -> ()"""
    with context():
        module = ir.Module.parse(text)
        module.operation.verify()
        places = PlaceResolver()
        ops = dialect.main_func(module).regions[0].blocks[0].operations
        return [build_dispatch(op.operation, places, moving=moving) for op in ops if op.operation.name in dialect.ROOTS]


COPY = '"ingot.yield"(%e) : (f32) -> ()'


def test_matmul_with_epilogue_and_transposed_weight() -> None:
    x, y = tensor("N", "S", 64), tensor("N", "S", 32)
    (built,) = build(
        {"x": x},
        f"""%w = "ingot.weight"() {{name = "w"}} : () -> tensor<32x64xf32>
        %b = "ingot.weight"() {{name = "b"}} : () -> tensor<32xf32>
        %t = "ingot.transpose"(%w) {{perm = [1, 0]}} : (tensor<32x64xf32>) -> tensor<64x32xf32>
        %y = "ingot.matmul"(%x, %t) ({{ ^bb0(%e: f32):
          %v = "ingot.load"(%b) : (tensor<32xf32>) -> f32
          %s = "ingot.addf"(%e, %v) : (f32, f32) -> f32
          "ingot.yield"(%s) : (f32) -> () }}) {{acc = "f32"}} : ({x}, tensor<64x32xf32>) -> {y}""",
    )
    d = built.dispatch
    assert d.root == "matmul"
    assert d.attr("acc") == "f32"
    assert [t.shape for t in d.operands] == [(dims.parse("d0"), dims.parse("d1"), 64), (64, 32), (32,)]
    assert d.operands[1].strides == (1, 64)
    assert d.operands[0].align == 16
    assert d.operands[1].align == 64
    assert d.symbols == ("d0", "d1")
    assert built.sizes == (dims.symbol("N"), dims.symbol("S"))
    assert [i.op for i in d.regions[0].insts] == ["load", "addf"]
    assert d.regions[0].insts[0].attr("operand") == 2
    assert from_json(to_json(d)) == d


def test_equal_dispatches_of_different_names_are_equal() -> None:
    def copy(n: str) -> Dispatch:
        t = tensor(n, 8)
        body = f"""%y = "ingot.pointwise"() ({{ %e = "ingot.load"(%x) : ({t}) -> f32 {COPY} }}) : () -> {t}"""
        return build({"x": t}, body)[0].dispatch

    assert copy("batch") == copy("2*rows + 1")
    assert copy("batch").key == copy("rows").key
    assert copy("batch") != copy("4*rows")  # known to be divisible


def test_strides_of_views_are_expressed_over_sizes() -> None:
    qkv, heads = tensor("N", "S", 192), tensor("N", 4, "S", 16)
    (built,) = build(
        {"x": qkv},
        f"""%k = "ingot.slice"(%x) {{starts = ["0", "0", "64"], steps = [1, 1, 1]}} : ({qkv}) -> {tensor("N", "S", 64)}
        %r = "ingot.reshape"(%k) : ({tensor("N", "S", 64)}) -> {tensor("N", "S", 4, 16)}
        %t = "ingot.transpose"(%r) {{perm = [0, 2, 1, 3]}} : ({tensor("N", "S", 4, 16)}) -> {heads}
        %y = "ingot.pointwise"() ({{ %e = "ingot.load"(%t) : ({heads}) -> f32 {COPY} }}) : () -> {heads}""",
    )
    (operand,) = built.dispatch.operands
    assert [str(s) for s in operand.strides] == ["192*d1", "16", "192", "1"]
    assert built.operands[0].byte_offset == 256
    assert operand.align == 16


def test_concatenation_writes_into_parts() -> None:
    a, b, y = tensor("N", 3), tensor("N", "M"), tensor("N", "M + 3")
    first, second = build(
        {"a": a, "b": b},
        f"""%m = "ingot.empty"() : () -> {y}
        %p = "ingot.move"(%a, %m) ({{ ^bb0(%e: f32): {COPY} }}) {{offsets = ["0", "0"]}} : ({a}, {y}) -> {y}
        %q = "ingot.move"(%b, %p) ({{ ^bb0(%e: f32): {COPY} }}) {{offsets = ["0", "3"]}} : ({b}, {y}) -> {y}""",
    )
    assert first.dispatch.root == "move"
    assert len(first.dispatch.operands) == 1
    assert first.results[0].base == second.results[0].base
    assert second.results[0].byte_offset == 12
    assert second.dispatch.results[0].align == 4
    assert second.dispatch.attr("offsets") is None
    # The row pitch M + 3 is no size of the part that is written, so it is a symbol of its own.
    assert second.sizes == (dims.symbol("N"), dims.symbol("M"), dims.parse("M + 3"))
    assert [str(s) for s in second.dispatch.results[0].strides] == ["d2", "1"]


def test_where_views_begin_may_be_a_size() -> None:
    """Of what moves while launches stay, and of no other; a product's operand is placed by the host."""
    old, new, y = tensor("B", "P", 8), tensor("B", 1, 8), tensor("B", "P + 1", 8)
    body = f"""%m = "ingot.empty"() : () -> {y}
        %p = "ingot.move"(%a, %m) ({{ ^bb0(%e: f32): {COPY} }}) {{offsets = ["0", "0", "0"]}} : ({old}, {y}) -> {y}
        %q = "ingot.move"(%b, %p) ({{ ^bb0(%e: f32): {COPY} }}) {{offsets = ["0", "P", "0"]}} : ({new}, {y}) -> {y}
        %s = "ingot.slice"(%q) {{starts = ["0", "P", "0"], steps = [1, 1, 1]}} : ({y}) -> {new}
        %w = "ingot.weight"() {{name = "w"}} : () -> tensor<8x8xf32>
        %r = "ingot.matmul"(%s, %w) ({{ ^bb0(%e: f32): {COPY} }}) {{acc = "f32"}} : ({new}, tensor<8x8xf32>) -> {new}"""
    first, second, product = build({"a": old, "b": new}, body, frozenset({"P"}))
    at = dims.symbol("P") * 32
    assert first.dispatch.offsets == ()
    ((kind, index, nbytes),) = second.dispatch.offsets
    assert (kind, index) == ("result", 0)
    assert dict(zip(second.dispatch.symbols, second.sizes, strict=True))[str(nbytes)] == at
    assert second.results[0].byte_offset == 0
    assert second.dispatch.results[0].align == 32
    assert (product.dispatch.offsets, product.operands[0].byte_offset) == ((), at)
    still = build({"a": old, "b": new}, body, frozenset({"B"}))[1]
    assert (still.dispatch.offsets, still.results[0].byte_offset) == ((), at)


def test_axis_that_may_be_one_gets_a_run_time_stride() -> None:
    a, b, y = tensor("N", 4), tensor("M", 4), tensor("bcast(M, N)", 4)
    (built,) = build(
        {"a": a, "b": b},
        f"""%y = "ingot.pointwise"() ({{
          %p = "ingot.load"(%a) : ({a}) -> f32
          %q = "ingot.load"(%b) : ({b}) -> f32
          %e = "ingot.addf"(%p, %q) : (f32, f32) -> f32 {COPY} }}) : () -> {y}""",
    )
    env = {"N": 5, "M": 1}
    sizes = {s: dims.evaluate(d, env) for s, d in zip(built.dispatch.symbols, built.sizes, strict=True)}
    strides = [[dims.evaluate(s, sizes) for s in t.strides] for t in built.dispatch.operands]
    assert strides == [[4, 1], [0, 1]]


def test_dims_in_regions_are_symbols() -> None:
    y = tensor("N", 4)
    (built,) = build(
        {"x": y},
        f"""%y = "ingot.pointwise"() ({{
          %i = "ingot.index"() {{axis = 0}} : () -> i64
          %n = "ingot.dim"() {{dim = "2*N"}} : () -> i64
          %k = "ingot.dim"() {{dim = "7"}} : () -> i64
          %s = "ingot.addi"(%i, %n) : (i64, i64) -> i64
          %e = "ingot.sitofp"(%s) : (i64) -> f32 {COPY} }}) : () -> {y}""",
    )
    insts = built.dispatch.regions[0].insts
    assert [(i.op, dict(i.attrs)) for i in insts[:3]] == [
        ("index", {"axis": 0}),
        ("dim", {"dim": "d1"}),
        ("const", {"value": 7}),
    ]
    assert built.dispatch.multiples == (1, 2)


def test_reshape_that_must_copy_is_refused() -> None:
    x, t, y = tensor("N", "S"), tensor("S", "N"), tensor("N*S")
    with pytest.raises(CompileError, match=r"reshape from \[S, N\] to \[N\*S\] has to copy"):
        build(
            {"x": x},
            f"""%t = "ingot.transpose"(%x) {{perm = [1, 0]}} : ({x}) -> {t}
            %r = "ingot.reshape"(%t) : ({t}) -> {y}
            %y = "ingot.pointwise"() ({{ %e = "ingot.load"(%r) : ({y}) -> f32 {COPY} }}) : () -> {y}""",
        )
