"""Sequences and optional values, which disappear in shape inference, against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from test_onnx_lowering import Case, Lowered, check

from ingot.errors import ModelError

THREE = {"a": ("f", ["N", 3]), "b": ("f", ["M", 3]), "c": ("f", ["N", 3])}
SIZES = [{"N": 2, "M": 4}, {"N": 1, "M": 1}]
PARTS = {"x": ("f", [4, "N"])}
CASES = {
    "concatenated": Case("s = SequenceConstruct (a, b, c)\n y = ConcatFromSequence <axis = 0> (s)", THREE, SIZES),
    "stacked": Case("s = SequenceConstruct (a, c)\n y = ConcatFromSequence <axis = -1, new_axis = 1> (s)", THREE, SIZES),
    "inserted": Case("""s = SequenceEmpty ()
                        t = SequenceInsert (s, a)
                        u = SequenceInsert (t, b)
                        v = SequenceInsert (u, c, at)
                        y = ConcatFromSequence <axis = 0> (v)""", THREE, SIZES, {"at": np.int64(-1)}),
    "erased": Case("""s = SequenceConstruct (a, b, c)
                      t = SequenceErase (s, at)
                      u = SequenceErase (t)
                      y = SequenceAt (u, at)
                      n = SequenceLength (t)""", THREE, SIZES, {"at": np.int64(0)}, ["y", "n"]),
    "split_in_ones": Case("""s = SplitToSequence <axis = 0, keepdims = 0> (x)
                             y = SequenceAt (s, at)
                             n = SequenceLength (s)""", PARTS, SIZES, {"at": np.int64(-1)}, ["y", "n"]),
    "split_in_threes": Case("""s = SplitToSequence (x, by)
                               y = SequenceAt (s, first)
                               z = SequenceAt (s, last)""", PARTS, SIZES,
                            {"by": np.int64(3), "first": np.int64(0), "last": np.int32(1)}, ["y", "z"]),
    "split_in_parts": Case("""s = SplitToSequence <axis = 1> (x, by)
                              y = SequenceAt (s, at)""", {"x": ("f", [4, "N"]), "by": ("l", [2])},
                           [{"N": 5, "by": [2, 3]}, {"N": 1, "by": [0, 1]}], {"at": np.int64(1)}),
    "optional": Case("""o = Optional (a)
                        p = Identity (o)
                        y = OptionalGetElement (p)
                        h = OptionalHasElement (p)""", THREE, SIZES, outputs=["y", "h"]),
    "optional_sequence": Case("""s = SequenceConstruct (a, b)
                                 o = Optional (s)
                                 t = OptionalGetElement (o)
                                 y = SequenceAt (t, at)""", THREE, SIZES, {"at": np.int64(1)}),
    "no_element": Case("h = OptionalHasElement ()", {}, [{}], outputs=["h"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_sequences(case: Case) -> None:
    lowered = check(case)
    assert not any("onnx" in op for op in lowered.ops())


def test_an_optional_value_decides_a_branch_when_compiling() -> None:
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 20]>
        g (float[N, 3] x) => (float[N, 3] y, float[N, 3] z) {
            o = Optional (x)
            e = Optional <type = float[2]> ()
            h = OptionalHasElement (o)
            n = OptionalHasElement (e)
            y = If (h) <then_branch = a () => (float[N, 3] u) { u = OptionalGetElement (o) },
                        else_branch = b () => (float[N, 3] v) { v = Neg (x) }>
            z = If (n) <then_branch = c () => (float[N, 3] p) { p = OptionalGetElement (e) },
                        else_branch = d () => (float[N, 3] q) { q = Neg (x) }>
        }""")
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = Lowered(model).run({"x": x})
    assert np.array_equal(found["y"], x)
    assert np.array_equal(found["z"], -x)


REFUSED = {
    "a_position_that_is_computed": (
        Case("s = SequenceConstruct (a, b)\n y = SequenceAt (s, i)", {**THREE, "i": ("l", [])}, []),
        "node_1_SequenceAt: SequenceAt: input 1, which decides what is computed, is not constant .*--constant i=",
    ),
    "parts_of_an_unknown_number": (
        Case("s = SplitToSequence <axis = 1> (x)\n y = SequenceAt (s, at)", PARTS, [], {"at": np.int64(0)}),
        "node_0_SplitToSequence: SplitToSequence: the number of its parts, N, is not known when compiling",
    ),
    "an_output": (Case("y = SequenceConstruct (a, b)", THREE, []), "y: an output that is a sequence is not supported"),
    "a_position_out_of_range": (
        Case("s = SequenceConstruct (a, b)\n y = SequenceAt (s, at)", THREE, [], {"at": np.int64(2)}),
        "node_1_SequenceAt: SequenceAt: position 2 is out of range for a sequence of 2",
    ),
    "nothing": (
        Case("o = Optional <type = float[2]> ()\n y = OptionalGetElement (o)", {}, []),
        "node_1_OptionalGetElement: OptionalGetElement: input 0 has no element",
    ),
}


@pytest.mark.parametrize(("case", "message"), REFUSED.values(), ids=REFUSED)
def test_refusals(case: Case, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Lowered(case.model())


def test_a_sequence_that_a_branch_gives_is_refused() -> None:
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 20]>
        g (bool c, float[3] x) => (float[3] y) {
            zero = Constant <value_int = 0> ()
            s = If (c) <then_branch = t () => (seq(float[3]) u) { u = SequenceConstruct (x) },
                        else_branch = e () => (seq(float[3]) v) { v = SequenceConstruct (x, x) }>
            y = SequenceAt (s, zero)
        }""")
    with pytest.raises(ModelError, match="If: output u of its body is a sequence, which is not supported"):
        Lowered(model)


def test_a_sequence_that_a_loop_carries_is_refused() -> None:
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 20]>
        g (int64 n, float[3] x) => (float[K] y) {
            s = SequenceConstruct (x)
            t = Loop (n, , s) <body = b (int64 i, bool c, seq(float[3]) u) => (bool d, seq(float[3]) v) {
                d = Identity (c)
                v = SequenceInsert (u, x)
            }>
            y = ConcatFromSequence <axis = 0> (t)
        }""")
    with pytest.raises(ModelError, match="Loop: an operand that is a sequence is not supported"):
        Lowered(model)
