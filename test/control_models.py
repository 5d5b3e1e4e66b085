"""Models with ONNX control flow, and inputs for them: what the tests of every device run.

`MODELS` maps names to (model, feeds); each feed takes another way through the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

Feeds = Mapping[str, np.ndarray]

RNG = np.random.default_rng(7)
WEIGHT = RNG.standard_normal((4, 4), dtype=np.float32)
START = np.array([0.0, 1.0, 2.0, 3.0], np.float32)
CHANNELS = {n: RNG.uniform(0.5, 1.5, 4).astype(np.float32) for n in ("scale", "shift", "mean", "variance")}
KERNEL = RNG.standard_normal((4, 4, 3), dtype=np.float32)
WEIGHTS = {"w": WEIGHT, "start": START, "kernel": KERNEL, **CHANNELS}  # of all models, by name
CONDITION = (TensorProto.BOOL, [])
MATRIX = (TensorProto.FLOAT, [None, 4])
COUNT = (TensorProto.INT64, [])


def graph(name: str, nodes: Sequence, outputs: Sequence[str], **types: tuple) -> onnx.GraphProto:
    """A subgraph, or with `types` of its inputs a graph; outputs are float tensors of rank 2 unless `types` names them."""
    values = {n: helper.make_tensor_value_info(n, *t) for n, t in types.items()}
    found = [values.pop(n, None) or helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, 4]) for n in outputs]
    return helper.make_graph(list(nodes), name, list(values.values()), found)


def model(nodes: Sequence, outputs: Sequence[str], **types: tuple) -> onnx.ModelProto:
    """A model over x: float[N, 4], the weight w: float[4, 4] and inputs of other types."""
    main = graph("main", nodes, outputs, x=(TensorProto.FLOAT, ["N", 4]), **types)
    main.initializer.append(onnx.numpy_helper.from_array(WEIGHT, "w"))
    made = helper.make_model(main, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return made


def x(rows: int, number: int = 0) -> np.ndarray:
    """float[rows, 4]; another one for each number."""
    return np.random.default_rng((rows, number)).standard_normal((rows, 4), dtype=np.float32)


def reference(made: onnx.ModelProto, feeds: Feeds) -> list[np.ndarray]:
    """What ONNX Runtime gives."""
    onnx.checker.check_model(made)
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, dict(feeds))


def branches() -> tuple[onnx.GraphProto, onnx.GraphProto]:
    """`then` gives x w and softmax(h), `else` relu(h) + x and h^T^T; both capture x and h."""
    then = [helper.make_node("MatMul", ["x", "w"], ["t0"]), helper.make_node("Softmax", ["h"], ["t1"])]
    other = [
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Add", ["r", "x"], ["e0"]),
        helper.make_node("Identity", ["h"], ["e1"]),
    ]
    return graph("then", then, ["t0", "t1"]), graph("else", other, ["e0", "e1"])


def body(nodes: Sequence, outputs: Sequence[str], condition: str = "going", inner: str = "", **types: tuple) -> onnx.GraphProto:
    """A loop's body: iteration `i`, condition `going`, and the carried values of `types`; gives `condition` and `outputs`.

    A loop in a loop needs names of its own: the former, and `goes_on`, with the suffix `inner`.
    """
    inputs = [
        helper.make_tensor_value_info(f"i{inner}", TensorProto.INT64, []),
        helper.make_tensor_value_info(f"going{inner}", TensorProto.BOOL, []),
        *(helper.make_tensor_value_info(n, *t) for n, t in types.items()),
    ]
    goes_on = helper.make_node("Identity", [condition + inner], [f"goes_on{inner}"])
    found = [helper.make_tensor_value_info(f"goes_on{inner}", TensorProto.BOOL, [])]
    found += [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs]
    return helper.make_graph([*nodes, goes_on], f"body{inner}", inputs, found)


def if_on_an_input() -> tuple[onnx.ModelProto, list[Feeds]]:
    then, other = branches()
    nodes = [
        helper.make_node("Exp", ["x"], ["h"]),
        helper.make_node("If", ["c"], ["a", "b"], then_branch=then, else_branch=other),
        helper.make_node("Add", ["a", "b"], ["s"]),
        helper.make_node("MatMul", ["s", "w"], ["y"]),
    ]
    feeds = [{"x": x(rows), "c": np.array(taken)} for rows in (1, 5) for taken in (True, False)]
    return model(nodes, ["y", "a"], c=CONDITION), feeds


def if_on_a_computed_condition() -> tuple[onnx.ModelProto, list[Feeds]]:
    then, other = branches()
    nodes = [
        helper.make_node("Transpose", ["x"], ["xt"], perm=[1, 0]),
        helper.make_node("Transpose", ["xt"], ["h"], perm=[1, 0]),
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        helper.make_node("Constant", [], ["zero"], value_float=0.0),
        helper.make_node("Greater", ["total", "zero"], ["c"]),
        helper.make_node("If", ["c"], ["a", "b"], then_branch=then, else_branch=other),
    ]
    return model(nodes, ["a", "b"]), [{"x": np.abs(x(3)) * np.float32(scale)} for scale in (1, -1)]


def nested_if() -> tuple[onnx.ModelProto, list[Feeds]]:
    then, other = branches()
    nested = [
        helper.make_node("Mul", ["h", "x"], ["m"]),
        helper.make_node("If", ["d"], ["n0", "n1"], then_branch=then, else_branch=other),
        helper.make_node("Add", ["n1", "m"], ["n2"]),
    ]
    plain = [helper.make_node("Neg", ["h"], ["p0"]), helper.make_node("Mul", ["p0", "x"], ["p2"])]
    nodes = [
        helper.make_node("Exp", ["x"], ["h"]),
        helper.make_node("If", ["c"], ["a", "b"], then_branch=graph("then", nested, ["n0", "n2"]),
                         else_branch=graph("else", plain, ["p0", "p2"])),
        helper.make_node("Sub", ["a", "b"], ["y"]),
    ]  # fmt: skip
    ways = ((True, True), (True, False), (False, True))
    feeds = [{"x": x(3), "c": np.array(outer), "d": np.array(inner)} for outer, inner in ways]
    return model(nodes, ["y", "b"], c=CONDITION, d=CONDITION, y=MATRIX), feeds


def loop_with_a_trip_count_input() -> tuple[onnx.ModelProto, list[Feeds]]:
    nodes = [
        helper.make_node("MatMul", ["a", "w"], ["p"]),
        helper.make_node("Tanh", ["p"], ["t"]),
        helper.make_node("Cast", ["i"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["b", "f"], ["bf"]),
        helper.make_node("Add", ["bf", "h"], ["b1"]),
    ]
    loop = body(nodes, ["t", "b1"], a=MATRIX, b=MATRIX)
    main = [
        helper.make_node("Exp", ["x"], ["h"]),
        helper.make_node("Loop", ["m", "", "x", "h"], ["y", "z"], body=loop),
        helper.make_node("Add", ["y", "z"], ["s"]),
    ]
    return model(main, ["s", "y"], m=COUNT), [{"x": x(3), "m": np.array(trips)} for trips in (0, 1, 4)]


def loop_that_swaps() -> tuple[onnx.ModelProto, list[Feeds]]:
    loop = body([helper.make_node("Identity", [n], [f"{n}1"]) for n in "ab"], ["b1", "a1"], a=MATRIX, b=MATRIX)
    main = [helper.make_node("Exp", ["x"], ["h"]), helper.make_node("Loop", ["m", "", "x", "h"], ["y", "z"], body=loop)]
    return model(main, ["y", "z"], m=COUNT), [{"x": x(3), "m": np.array(trips)} for trips in (1, 2, 5)]


def loop_that_ends_early(with_count: bool) -> tuple[onnx.ModelProto, list[Feeds]]:
    nodes = [
        helper.make_node("Add", ["a", "a"], ["d"]),
        helper.make_node("ReduceSum", ["d"], ["total"], keepdims=0),
        helper.make_node("Less", ["total", "limit"], ["less"]),
    ]
    loop = body(nodes, ["d"], "less", a=MATRIX)
    count = "m" if with_count else ""
    main = [helper.make_node("Exp", ["x"], ["h"]), helper.make_node("Loop", [count, "c", "h"], ["y"], body=loop)]
    types = {"limit": (TensorProto.FLOAT, []), "c": CONDITION} | ({"m": COUNT} if with_count else {})
    fixed = {"x": x(2)} | ({"m": np.array(6)} if with_count else {})
    ways = [(limit, begins) for limit in (-1.0, 5.0, 1e9) for begins in (True, False)]
    feeds = [fixed | {"limit": np.array(limit, np.float32), "c": np.array(begins)} for limit, begins in ways]
    return model(main, ["y"], **types), feeds


def loop_over_rows() -> tuple[onnx.ModelProto, list[Feeds]]:
    """Its trip count is a size, and it has a scan output."""
    nodes = [
        helper.make_node("Gather", ["h", "i"], ["row"], axis=0),
        helper.make_node("Add", ["a", "row"], ["sum"]),
        helper.make_node("MatMul", ["sum", "w"], ["out"]),
    ]
    loop = body(nodes, ["sum", "out"], a=(TensorProto.FLOAT, [4]))
    main = [
        helper.make_node("Exp", ["x"], ["h"]),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Constant", [], ["zero"], value_int=0),
        helper.make_node("Gather", ["shape", "zero"], ["m"]),
        helper.make_node("Constant", [], ["start"], value_floats=START.tolist()),
        helper.make_node("Loop", ["m", "", "start"], ["last", "y"], body=loop),
        helper.make_node("Relu", ["y"], ["r"]),
    ]
    return model(main, ["r", "y"]), [{"x": x(rows) - 4} for rows in (5, 90)]


def loop_over_slices() -> tuple[onnx.ModelProto, list[Feeds]]:
    """Slices from the iteration to the next have one element."""
    nodes = [
        helper.make_node("Add", ["i", "one"], ["next"]),
        helper.make_node("Unsqueeze", ["i", "zero"], ["from"]),
        helper.make_node("Unsqueeze", ["next", "zero"], ["to"]),
        helper.make_node("Slice", ["x", "from", "to", "zero"], ["part"]),
        helper.make_node("Add", ["a", "part"], ["sum"]),
        helper.make_node("Neg", ["part"], ["out"]),
    ]
    main = [
        helper.make_node("Constant", [], ["one"], value_int=1),
        helper.make_node("Constant", [], ["zero"], value_ints=[0]),
        helper.make_node("Shape", ["x"], ["shape"], end=1),
        helper.make_node("Squeeze", ["shape"], ["m"]),
        helper.make_node("Loop", ["m", "", "v"], ["last", "y"], body=body(nodes, ["sum", "out"], a=MATRIX)),
    ]
    made = model(main, ["last", "y"], v=(TensorProto.FLOAT, [1, 4]), y=(TensorProto.FLOAT, [None, 1, 4]))
    return made, [{"x": x(n), "v": x(1, 1)} for n in (1, 4)]


def if_in_a_loop() -> tuple[onnx.ModelProto, list[Feeds]]:
    then = graph("then", [helper.make_node("Mul", ["a", "h"], ["t"])], ["t"])
    other = graph("else", [helper.make_node("Add", ["a", "h"], ["e"])], ["e"])
    nodes = [
        helper.make_node("Mod", ["i", "two"], ["odd"]),
        helper.make_node("Cast", ["odd"], ["is_odd"], to=TensorProto.BOOL),
        helper.make_node("If", ["is_odd"], ["b"], then_branch=then, else_branch=other),
    ]
    main = [
        helper.make_node("Constant", [], ["two"], value_int=2),
        helper.make_node("Exp", ["x"], ["h"]),
        helper.make_node("Loop", ["m", "", "x"], ["y"], body=body(nodes, ["b"], a=MATRIX)),
    ]
    return model(main, ["y"], m=COUNT), [{"x": x(2), "m": np.array(3)}]


def scan(num: int, inputs: Sequence[str], outputs: Sequence[str], nodes: Sequence, gives: Sequence[str], takes: dict, **attrs):
    """A Scan node whose body takes values of types `takes`."""
    arguments = [helper.make_tensor_value_info(n, *t) for n, t in takes.items()]
    found = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in gives]
    inner = helper.make_graph(list(nodes), "body", arguments, found)
    return helper.make_node("Scan", list(inputs), list(outputs), num_scan_inputs=num, body=inner, **attrs)


VECTOR = (TensorProto.FLOAT, [4])


def scan_over_rows() -> tuple[onnx.ModelProto, list[Feeds]]:
    """A recurrent cell; it reads a captured tensor, a weight, and rows of an input and of a computed tensor."""
    cell = [
        helper.make_node("MatMul", ["row", "w"], ["p"]),
        helper.make_node("Add", ["p", "state"], ["q"]),
        helper.make_node("Mul", ["q", "other"], ["r"]),
        helper.make_node("Add", ["r", "b"], ["s"]),
        helper.make_node("Tanh", ["s"], ["next"]),
        helper.make_node("Neg", ["next"], ["given"]),
    ]
    takes = {"state": VECTOR, "row": VECTOR, "other": VECTOR}
    main = [
        helper.make_node("Constant", [], ["start"], value_floats=START.tolist()),
        helper.make_node("Sigmoid", ["x"], ["h"]),
        scan(2, ["start", "x", "h"], ["last", "y"], cell, ["next", "given"], takes),
        helper.make_node("Add", ["y", "h"], ["z"]),
    ]
    return model(main, ["last", "z", "y"], b=VECTOR, last=VECTOR), [{"x": x(n), "b": x(1, 1)[0]} for n in (1, 6, 80)]


def scan_along_axes_and_backwards() -> tuple[onnx.ModelProto, list[Feeds]]:
    """Of lengths that are not proven equal, without a state, and with one output that is stacked in the middle."""
    steps = [
        helper.make_node("Add", ["column", "row"], ["sum"]),
        helper.make_node("Mul", ["column", "row"], ["product"]),
    ]
    takes = {"column": (TensorProto.FLOAT, [4]), "row": VECTOR}
    attrs = {
        "scan_input_axes": [1, 0],
        "scan_input_directions": [1, 0],
        "scan_output_axes": [-1, 0],
        "scan_output_directions": [0, 1],
    }
    main = [
        helper.make_node("Transpose", ["v"], ["t"], perm=[1, 0]),
        scan(2, ["t", "x"], ["y", "z"], steps, ["sum", "product"], takes, **attrs),
    ]
    made = model(main, ["y", "z"], v=(TensorProto.FLOAT, ["K", 4]), y=(TensorProto.FLOAT, [4, None]))
    return made, [{"x": x(n), "v": x(n, 1)} for n in (3, 70)]


def networks_in_regions() -> tuple[onnx.ModelProto, list[Feeds]]:
    """A loop's body is a normalization in arithmetic and an attention, a branch a convolution with batch normalization."""
    attention = [
        helper.make_node("Mul", ["a", "a"], ["squares"]),
        helper.make_node("ReduceMean", ["squares"], ["mean_square"], axes=[-1]),
        helper.make_node("Add", ["mean_square", "epsilon"], ["above"]),
        helper.make_node("Sqrt", ["above"], ["root"]),
        helper.make_node("Div", ["a", "root"], ["n"]),
        helper.make_node("MatMul", ["n", "w"], ["q"]),
        helper.make_node("Transpose", ["n"], ["k"], perm=[1, 0]),
        helper.make_node("MatMul", ["q", "k"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "n"], ["b"]),
    ]
    convolution = [
        helper.make_node("Transpose", ["y0"], ["yt"], perm=[1, 0]),
        helper.make_node("Unsqueeze", ["yt", "zero"], ["y3"]),
        helper.make_node("Conv", ["y3", "kernel"], ["c0"], pads=[1, 1]),
        helper.make_node("BatchNormalization", ["c0", "scale", "shift", "mean", "variance"], ["c1"]),
        helper.make_node("Relu", ["c1"], ["c2"]),
        helper.make_node("Squeeze", ["c2", "zero"], ["c3"]),
        helper.make_node("Transpose", ["c3"], ["t"], perm=[1, 0]),
    ]
    then, other = graph("then", convolution, ["t"]), graph("else", [helper.make_node("Neg", ["y0"], ["e"])], ["e"])
    main = [
        helper.make_node("Constant", [], ["epsilon"], value_float=1e-5),
        helper.make_node("Constant", [], ["zero"], value_ints=[0]),
        helper.make_node("Loop", ["m", "", "x"], ["y0"], body=body(attention, ["b"], a=MATRIX)),
        helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other),
    ]
    made = model(main, ["y"], c=CONDITION, m=COUNT)
    made.graph.initializer.extend(onnx.numpy_helper.from_array(WEIGHTS[n], n) for n in ("kernel", *CHANNELS))
    return made, [{"x": x(5), "m": np.array(trips), "c": np.array(taken)} for trips, taken in ((2, True), (3, False))]


def guard_in_a_branch() -> tuple[onnx.ModelProto, list[Feeds]]:
    """Only its first branch needs v to have 4 rows."""
    then = graph("then", [helper.make_node("MatMul", ["x", "v"], ["t"])], ["t"])
    other = graph("else", [helper.make_node("Neg", ["x"], ["e"])], ["e"])
    nodes = [
        helper.make_node("If", ["c"], ["a"], then_branch=then, else_branch=other),
        helper.make_node("Tanh", ["a"], ["y"]),
    ]
    feeds = [{"x": x(3), "c": np.array(taken), "v": x(rows, 1)} for taken, rows in ((True, 4), (False, 4), (False, 5))]
    return model(nodes, ["y"], c=CONDITION, v=(TensorProto.FLOAT, ["K", 4])), feeds


MODELS: dict[str, Callable[[], tuple[onnx.ModelProto, list[Feeds]]]] = {
    "if_on_an_input": if_on_an_input,
    "if_on_a_computed_condition": if_on_a_computed_condition,
    "nested_if": nested_if,
    "loop_with_a_trip_count_input": loop_with_a_trip_count_input,
    "loop_that_swaps": loop_that_swaps,
    "loop_that_ends_early": lambda: loop_that_ends_early(False),
    "loop_that_ends_early_or_after_its_count": lambda: loop_that_ends_early(True),
    "loop_over_rows": loop_over_rows,
    "loop_over_slices": loop_over_slices,
    "if_in_a_loop": if_in_a_loop,
    "scan_over_rows": scan_over_rows,
    "scan_along_axes_and_backwards": scan_along_axes_and_backwards,
    "networks_in_regions": networks_in_regions,
    "guard_in_a_branch": guard_in_a_branch,
}
