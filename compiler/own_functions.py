"""Operators whose results have sizes that depend on data, as functions of others, in ONNX's textual syntax.

What is computed has sizes known before; only in the end is as much of it taken as a number, read by the host, says. Counts are
taken in double: integers of small tensors are shape arithmetic, of which every element would be read.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import onnx

_HEADER = '<domain: "ingot", opset_import: ["" : 26]>\n'

# Each element that is not zero leaves its position where the sum of those before it says, all others one beyond the end.
_NON_ZERO = """NonZero (X) => (Y) {
    minus_one = Constant <value_ints = [-1]> ()
    zero = Constant <value_ints = [0]> ()
    one = Constant <value_ints = [1]> ()
    first = Constant <value_int = 0> ()
    step = Constant <value_int = 1> ()
    shape = Shape (X)
    size = Size (X)
    flat = Reshape (X, minus_one)
    mask = Cast <to = 9> (flat)
    numbers = Cast <to = 11> (mask)
    total = ReduceSum (numbers, zero)
    count = Cast <to = 7> (total)
    ones = Cast <to = 7> (mask)
    until = CumSum (ones, first)
    before = Sub (until, one)
    place = Where (mask, before, size)
    positions = Range (first, size, step)
    room = Add (size, step)
    rooms = Reshape (room, one)
    empty = ConstantOfShape <value = int64[1] {0}> (rooms)
    filled = ScatterElements <axis = 0> (empty, place, positions)
    found = Slice (filled, zero, count, zero)
    row = Unsqueeze (found, zero)
    sizes = Unsqueeze (shape, one)
    strides = CumProd <exclusive = 1, reverse = 1> (shape, first)
    steps = Unsqueeze (strides, one)
    quotients = Div (row, steps)
    Y = Mod (quotients, sizes)
}"""

_COMPRESS = """Compress <axis> (input, condition) => (output) {
    minus_one = Constant <value_ints = [-1]> ()
    places = NonZero (condition)
    at = Reshape (places, minus_one)
    output = Gather <axis : int = @axis> (input, at)
}"""

_COMPRESS_FLAT = """Compress (input, condition) => (output) {
    minus_one = Constant <value_ints = [-1]> ()
    flat = Reshape (input, minus_one)
    places = NonZero (condition)
    at = Reshape (places, minus_one)
    output = Gather <axis = 0> (flat, at)
}"""

# Candidates of each class by falling score, as many as the class with most of them has; one after the other removes those
# behind it that it overlaps. Corners may be any two opposite ones.
_NON_MAX_SUPPRESSION = """NonMaxSuppression (boxes, scores, given_most, given_overlap, given_least) => (selected) {
    zero = Constant <value_ints = [0]> ()
    one = Constant <value_ints = [1]> ()
    two = Constant <value_ints = [2]> ()
    three = Constant <value_ints = [3]> ()
    minus_one = Constant <value_ints = [-1]> ()
    last = Constant <value_int = 2> ()
    nothing = Constant <value_float = 0.0> ()
    {limits}
    above = Greater (scores, least)
    numbers = Cast <to = 11> (above)
    of_class = ReduceSum (numbers, two)
    of_any = ReduceMax <keepdims = 0> (of_class)
    counted = Cast <to = 7> (of_any)
    count = Reshape (counted, one)
    values, order = TopK <axis = 2> (scores, count)
    alive = Greater (values, least)
    classes = Shape <start = 1, end = 2> (scores)
    batch = Shape <start = 0, end = 1> (scores)
    length = Shape <start = 2, end = 3> (scores)
    four = Constant <value_ints = [4]> ()
    box_shape = Concat <axis = 0> (batch, classes, length, four)
    box_row = Unsqueeze (boxes, one)
    box_table = Expand (box_row, box_shape)
    index = Unsqueeze (order, minus_one)
    index_shape = Concat <axis = 0> (batch, classes, count, four)
    indices = Expand (index, index_shape)
    sorted = GatherElements <axis = 2> (box_table, indices)
    {corners}
    height = Sub (bottom, top)
    width = Sub (right, left)
    area = Mul (height, width)
    origin = Constant <value_int = 0> ()
    step = Constant <value_int = 1> ()
    ranks = Range (origin, counted, step)
    kept = Loop <body = suppress (int64 i, bool going, bool[B, C, M] now) => (bool go, bool[B, C, M] next) {
        go = Identity (going)
        at = Reshape (i, one)
        top_i = Gather <axis = 2> (top, at)
        left_i = Gather <axis = 2> (left, at)
        bottom_i = Gather <axis = 2> (bottom, at)
        right_i = Gather <axis = 2> (right, at)
        area_i = Gather <axis = 2> (area, at)
        kept_i = Gather <axis = 2> (now, at)
        inner_top = Max (top, top_i)
        inner_left = Max (left, left_i)
        inner_bottom = Min (bottom, bottom_i)
        inner_right = Min (right, right_i)
        tall = Sub (inner_bottom, inner_top)
        wide = Sub (inner_right, inner_left)
        some_tall = Max (tall, nothing)
        some_wide = Max (wide, nothing)
        common = Mul (some_tall, some_wide)
        both = Add (area, area_i)
        all = Sub (both, common)
        limit = Mul (all, overlap)
        meets = Greater (common, limit)
        counts = Greater (common, nothing)
        overlaps = And (meets, counts)
        behind = Greater (ranks, i)
        removes = And (overlaps, kept_i)
        removed = And (removes, behind)
        stays = Not (removed)
        next = And (now, stays)
    }> (counted, , alive)
    ones = Cast <to = 7> (kept)
    until = CumSum (ones, last)
    few = LessOrEqual (until, most)
    taken = And (kept, few)
    places = NonZero (taken)
    triples = Transpose (places)
    box = GatherND (order, triples)
    box_column = Unsqueeze (box, one)
    first_two = Slice (triples, zero, two, one)
    selected = Concat <axis = 1> (first_two, box_column)
}"""

_CORNERS = """a, b, c, d = Split <axis = 3, num_outputs = 4> (sorted)
    y_1 = Squeeze (a, minus_one)
    x_1 = Squeeze (b, minus_one)
    y_2 = Squeeze (c, minus_one)
    x_2 = Squeeze (d, minus_one)
    top = Min (y_1, y_2)
    left = Min (x_1, x_2)
    bottom = Max (y_1, y_2)
    right = Max (x_1, x_2)"""

_CENTERS = """a, b, c, d = Split <axis = 3, num_outputs = 4> (sorted)
    x = Squeeze (a, minus_one)
    y = Squeeze (b, minus_one)
    w = Squeeze (c, minus_one)
    h = Squeeze (d, minus_one)
    half = Constant <value_float = 0.5> ()
    half_w = Mul (w, half)
    half_h = Mul (h, half)
    top = Sub (y, half_h)
    left = Sub (x, half_w)
    bottom = Add (y, half_h)
    right = Add (x, half_w)"""

# What stands for the operands 2 to 4 where they are left out: no box, any overlap, any score.
_LIMITS = {"most": "<value_int = 0>", "overlap": "<value_float = 0.0>", "least": "<value_float = -3.4e38>"}


def _non_max_suppression(node: onnx.NodeProto) -> str:
    given = [i < len(node.input) and bool(node.input[i]) for i in range(2, 5)]
    limits = [
        f"{name} = Identity (given_{name})" if is_given else f"{name} = Constant {default} ()"
        for (name, default), is_given in zip(_LIMITS.items(), given, strict=True)
    ]
    centers = any(a.name == "center_point_box" and a.i for a in node.attribute)
    text = _NON_MAX_SUPPRESSION.replace("{limits}", "\n    ".join(limits))
    return text.replace("{corners}", _CENTERS if centers else _CORNERS)


def _compress(node: onnx.NodeProto) -> str:
    return _COMPRESS if any(a.name == "axis" for a in node.attribute) else _COMPRESS_FLAT


_TEXTS: dict[str, Callable[[onnx.NodeProto], str]] = {
    "NonZero": lambda node: _NON_ZERO,
    "Compress": _compress,
    "NonMaxSuppression": _non_max_suppression,
}


def own_function(node: onnx.NodeProto) -> onnx.FunctionProto | None:
    """The function by which Ingot computes a node of ai.onnx, or None."""
    text = _TEXTS.get(node.op_type)
    return None if text is None else _parsed(text(node))


@cache
def _parsed(text: str) -> onnx.FunctionProto:
    return onnx.parser.parse_function(_HEADER + text)
