"""Operators that are computed as functions of others, in ONNX's textual syntax: those whose results have sizes that depend on
data, and a determinant.

Where a size depends on data, what is computed has sizes known before; only in the end is as much of it taken as a number, read
by the host, says. Counts are taken in double: integers of small tensors are shape arithmetic, of which every element would be
read.
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

# `ids` numbers the classes of equal elements: in ascending order, and where that is not wanted by their first elements.
_UNIQUE = """Unique (X) => (Y, indices, inverse_indices, counts) {
    minus_one = Constant <value_ints = [-1]> ()
    zero = Constant <value_ints = [0]> ()
    one = Constant <value_ints = [1]> ()
    two = Constant <value_ints = [2]> ()
    first = Constant <value_int = 0> ()
    step = Constant <value_int = 1> ()
    {ids}
    beyond = Add (zeros, size)
    first_of = ScatterElements <axis = 0, reduction = "min"> (beyond, ids, positions)
    first_of_mine = Gather (first_of, ids)
    is_first = Equal (first_of_mine, positions)
    numbers = Cast <to = 11> (is_first)
    total = ReduceSum (numbers, zero)
    count = Cast <to = 7> (total)
    {order}
    indices = Slice (chosen, zero, count, zero)
    Y = Gather <axis = {axis}> (taken, indices)
    ones = Add (zeros, step)
    all_counts = ScatterElements <axis = 0, reduction = "add"> (zeros, inverse_indices, ones)
    counts = Slice (all_counts, zero, count, zero)
}"""

_UNIQUE_ELEMENTS = """size = Size (X)
    length = Reshape (size, one)
    zeros = ConstantOfShape <value = int64[1] {0}> (length)
    positions = Range (first, size, step)
    taken = Reshape (X, minus_one)
    values, sorted = TopK <largest = 0> (taken, length)
    back = Sub (positions, step)
    before = Max (back, first)
    value_before = Gather (values, before)
    repeats = Equal (values, value_before)
    differs = Not (repeats)
    at_start = Equal (positions, first)
    begins = Or (differs, at_start)
    begun = Cast <to = 7> (begins)
    until = CumSum (begun, first)
    number = Sub (until, step)
    ids = ScatterElements <axis = 0> (zeros, sorted, number)"""

# Each part along the axis is a row; of each pair of rows the first elements that differ decide. Time and memory grow with the
# square of the number of rows.
_UNIQUE_PARTS = """length = Shape <{part}> (X)
    size = Squeeze (length, zero)
    zeros = ConstantOfShape <value = int64[1] {0}> (length)
    positions = Range (first, size, step)
    taken = Identity (X)
    shape_before = Shape <end = {axis}> (X)
    some_before = Concat <axis = 0> (one, shape_before)
    outer = ReduceProd (some_before)
    {after}
    some_after = Concat <axis = 0> (one, shape_after)
    inner = ReduceProd (some_after)
    cube_shape = Concat <axis = 0> (outer, length, inner)
    cube = Reshape (X, cube_shape)
    turned = Transpose <perm = [1, 0, 2]> (cube)
    width = Mul (outer, inner)
    table_shape = Concat <axis = 0> (length, width)
    table = Reshape (turned, table_shape)
    mine = Unsqueeze (table, one)
    other = Unsqueeze (table, zero)
    same = Equal (mine, other)
    unlike = Not (same)
    unlike_numbers = Cast <to = 6> (unlike)
    column = ArgMax <axis = 2> (unlike_numbers)
    smaller = Less (other, mine)
    decides = GatherElements <axis = 2> (smaller, column)
    is_smaller = Squeeze (decides, two)
    any_unlike = ReduceMax <keepdims = 0> (unlike_numbers, two)
    no = Constant <value_int = 0> ()
    none = Cast <to = 6> (no)
    alike = Equal (any_unlike, none)
    my_position = Unsqueeze (positions, one)
    is_earlier = Less (positions, my_position)
    repeats = And (alike, is_earlier)
    repeats_numbers = Cast <to = 6> (repeats)
    is_repeated = ReduceMax <keepdims = 0> (repeats_numbers, one)
    is_new = Equal (is_repeated, none)
    before = And (is_smaller, is_new)
    before_numbers = Cast <to = 7> (before)
    ids = ReduceSum <keepdims = 0> (before_numbers, one)"""

_UNIQUE_ORDERS = {
    True: """chosen = Identity (first_of)
    inverse_indices = Identity (ids)""",
    False: """new = Cast <to = 7> (is_first)
    new_until = CumSum (new, first)
    new_number = Sub (new_until, step)
    inverse_indices = Gather (new_number, first_of_mine)
    chosen = ScatterElements <axis = 0, reduction = "min"> (beyond, inverse_indices, positions)""",
}


def _unique(node: onnx.NodeProto) -> str:
    given = {a.name: a.i for a in node.attribute}
    axis = given.get("axis")
    ids = _UNIQUE_ELEMENTS
    if axis is not None:
        is_last = axis == -1
        part = f"start = {axis}" + ("" if is_last else f", end = {axis + 1}")
        after = "shape_after = Identity (one)" if is_last else f"shape_after = Shape <start = {axis + 1}> (X)"
        ids = _UNIQUE_PARTS.replace("{part}", part).replace("{after}", after)
    text = _UNIQUE.replace("{ids}", ids).replace("{order}", _UNIQUE_ORDERS[bool(given.get("sorted", 1))])
    return text.replace("{axis}", str(axis or 0))


# Gaussian elimination: iteration k moves the row with the largest element of column k to place k, and takes multiples of it
# from those below.
_DET = """Det (X) => (Y) {
    minus_one = Constant <value_ints = [-1]> ()
    zero = Constant <value_ints = [0]> ()
    one = Constant <value_ints = [1]> ()
    two = Constant <value_ints = [2]> ()
    last_two = Constant <value_ints = [1, 2]> ()
    first = Constant <value_int = 0> ()
    step = Constant <value_int = 1> ()
    length = Shape <start = -1> (X)
    trips = Squeeze (length, zero)
    shape = Shape <end = -2> (X)
    matrices_shape = Concat <axis = 0> (minus_one, length, length)
    matrices = Reshape (X, matrices_shape)
    batch = Shape <end = 1> (matrices)
    number = Constant <value_float = 1.0> ()
    unit = CastLike (number, X)
    minus_unit = Neg (unit)
    nothing = Sub (unit, unit)
    units = Expand (unit, batch)
    positions = Range (first, trips, step)
    rest, product = Loop <body = eliminate (int64 k, bool going, float[B, N, N] now, float[B] factors)
        => (bool go, float[B, N, N] next, float[B] more) {
        go = Identity (going)
        at = Reshape (k, one)
        column = Gather <axis = 2> (now, k)
        sizes = Abs (column)
        waits = GreaterOrEqual (positions, k)
        candidates = Where (waits, sizes, minus_unit)
        pivot_place = ArgMax <axis = 1> (candidates)
        is_here = Equal (positions, k)
        is_there = Equal (positions, pivot_place)
        from_here = Where (is_there, k, positions)
        order = Where (is_here, pivot_place, from_here)
        order_column = Unsqueeze (order, two)
        whole = Shape (now)
        order_table = Expand (order_column, whole)
        sorted = GatherElements <axis = 1> (now, order_table)
        row = Gather <axis = 1> (sorted, at)
        pivot = Gather <axis = 2> (row, at)
        heads = Gather <axis = 2> (sorted, at)
        quotients = Div (heads, pivot)
        is_nothing = Equal (pivot, nothing)
        is_something = Not (is_nothing)
        is_below = Greater (positions, k)
        is_below_column = Unsqueeze (is_below, one)
        counts = And (is_below_column, is_something)
        multiples = Where (counts, quotients, nothing)
        change = Mul (multiples, row)
        next = Sub (sorted, change)
        stays = Equal (pivot_place, k)
        sign_column = Where (stays, unit, minus_unit)
        sign = Squeeze (sign_column, one)
        factor = Squeeze (pivot, last_two)
        signed = Mul (factor, sign)
        more = Mul (factors, signed)
    }> (trips, , matrices, units)
    Y = Reshape (product, shape)
}"""

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
    "Unique": _unique,
    "Det": lambda node: _DET,
}


def own_function(node: onnx.NodeProto) -> onnx.FunctionProto | None:
    """The function by which Ingot computes a node of ai.onnx, or None."""
    text = _TEXTS.get(node.op_type)
    return None if text is None else _parsed(text(node))


@cache
def _parsed(text: str) -> onnx.FunctionProto:
    return onnx.parser.parse_function(_HEADER + text)
