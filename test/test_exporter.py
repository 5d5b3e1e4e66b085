"""The exporter: what was imported and is exported again passes ONNX's checker and computes the same in ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from ingot.compiler.exporter import export_model, save_model
from ingot.compiler.importer import import_model
from ingot.dialects.mlir import new_context
from ingot.errors import ModelError

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def model_of(nodes, inputs, outputs, initializers=(), opset=21, functions=(), domains=()):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, *t) for n, t in inputs.items()],
        [helper.make_tensor_value_info(n, *t) for n, t in outputs.items()],
        [numpy_helper.from_array(a, n) for n, a in dict(initializers).items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    model = helper.make_model(graph, opset_imports=opsets, functions=list(functions), ir_version=10)
    if any(t[1] is None for t in outputs.values()):  # the checker wants shapes of outputs
        inferred = onnx.shape_inference.infer_shapes(model).graph.output
        del model.graph.output[:]
        model.graph.output.extend(inferred)
    return model


def reexported(model) -> onnx.ModelProto:
    result = import_model(model, context=new_context(onnx=True))
    return export_model(result.module, result.weights)


def run(model: onnx.ModelProto, inputs):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    # Without graph optimizations both models run the same kernels, so that results are equal to the bit.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def assert_same(model, **inputs) -> onnx.ModelProto:
    """Both models compute the same, and the exported one is valid; returns it."""
    exported = reexported(model)
    onnx.checker.check_model(exported)
    for expected, got in zip(run(model, inputs), run(exported, inputs), strict=True):
        np.testing.assert_array_equal(got, expected)
    assert [v.name for v in exported.graph.input] == [v.name for v in model.graph.input]
    assert [v.name for v in exported.graph.output] == [v.name for v in model.graph.output]
    return exported


def data(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def op(op_type, inputs, outputs, **attributes):
    return helper.make_node(op_type, inputs.split(), outputs.split(), **attributes)


def test_a_small_network():
    weights = {"w": data(8, 3, 3, 3), "b": data(8), "g": data(8, 5), "shape": np.array([0, -1])}
    nodes = [
        op("Conv", "x w b", "c", pads=[1, 1, 1, 1], strides=[2, 2]),
        op("Relu", "c", "r"),
        op("GlobalAveragePool", "r", "p"),
        op("Reshape", "p shape", "f"),
        op("Gemm", "f g", "y", alpha=0.5),
    ]
    model = model_of(nodes, {"x": (FLOAT, ["N", 3, 8, 8])}, {"y": (FLOAT, ["N", 5])}, weights)
    exported = assert_same(model, x=data(2, 3, 8, 8))
    assert {t.name for t in exported.graph.initializer} >= {"w", "b", "g"}
    assert [d.dim_param for d in exported.graph.input[0].type.tensor_type.shape.dim] == ["N", "", "", ""]


def test_outputs_that_are_inputs_weights_or_the_same_value():
    nodes = [op("Relu", "x", "a"), op("Identity", "a", "b")]
    model = model_of(nodes, {"x": (FLOAT, [20])}, {n: (FLOAT, [20]) for n in ("a", "b", "x", "w")}, {"w": data(20)})
    # The names of inputs must stay apart from those of outputs: ONNX has no output that is an input.
    del model.graph.output[2]
    assert_same(model, x=data(20))


# Old opsets. Each case is an opset, nodes from x to y, initializers, and the shape of x.
OLD = {
    "batch_normalization": (7, [op("BatchNormalization", "x s s s a", "y")], {"s": data(3), "a": data(3) ** 2}, (2, 3, 4)),
    "clip": (7, [op("Clip", "x", "y", min=-0.5, max=0.5)], {}, (2, 3)),
    "clip_of_a_computed_type": (
        9,
        [op("Cast", "x", "t", to=10), op("Clip", "t", "c", max=0.5), op("Cast", "c", "y", to=1)],
        {},
        (9,),
    ),
    "dropout": (7, [op("Dropout", "x", "y", ratio=0.3)], {}, (2, 3)),
    "gemm": (7, [op("Gemm", "x w b", "y", transB=1)], {"w": data(5, 3), "b": data(5)}, (2, 3)),
    "max_pool": (8, [op("MaxPool", "x", "y", kernel_shape=[2, 2])], {}, (1, 2, 4, 4)),
    "pad": (7, [op("Pad", "x", "y", pads=[0, 1, 2, 0], value=2.5)], {}, (2, 3)),
    "pad_reflect": (7, [op("Pad", "x", "y", pads=[0, 1, 0, 1], mode="reflect")], {}, (2, 3)),
    "reduce_mean": (7, [op("ReduceMean", "x", "y", axes=[1, 2], keepdims=0)], {}, (2, 3, 4)),
    "reduce_sum_all": (11, [op("ReduceSum", "x", "y")], {}, (2, 3, 4)),
    "reduce_l2": (13, [op("ReduceL2", "x", "y", axes=[-1])], {}, (2, 3, 4)),
    "resize_10": (10, [op("Resize", "x s", "y", mode="linear")], {"s": np.float32([1, 1, 2, 2])}, (1, 2, 3, 3)),
    "resize_11": (
        11,
        [op("Resize", "x r s", "y", coordinate_transformation_mode="align_corners", mode="linear")],
        {"s": np.float32([1, 1, 2, 2]), "r": np.float32([])},
        (1, 2, 3, 3),
    ),
    "resize_11_sizes": (
        11,
        [op("Resize", "x r r s", "y", mode="nearest", nearest_mode="floor")],
        {"s": np.array([1, 2, 6, 5]), "r": np.float32([])},
        (1, 2, 3, 3),
    ),
    "scatter": (9, [op("Scatter", "x i u", "y", axis=1)], {"i": np.array([[1, 0]]), "u": data(1, 2)}, (2, 3)),
    "slice": (9, [op("Slice", "x", "y", starts=[1, -2], ends=[2, 100], axes=[0, 2])], {}, (2, 3, 4)),
    "softmax_of_many_axes": (7, [op("Softmax", "x", "y", axis=1)], {}, (2, 3, 4)),
    "softmax_of_the_last_axis": (11, [op("Relu", "x", "r"), op("Softmax", "r", "y", axis=2)], {}, (2, 3, 4)),
    "log_softmax": (12, [op("LogSoftmax", "x", "y")], {}, (2, 3, 4)),
    "split": (11, [op("Split", "x", "a b", axis=1, split=[1, 2]), op("Concat", "b a", "y", axis=1)], {}, (2, 3)),
    "split_evenly": (13, [op("Split", "x", "a b", axis=0), op("Sub", "b a", "y")], {}, (2, 3)),
    "squeeze": (11, [op("Unsqueeze", "x", "t", axes=[0, 2]), op("Squeeze", "t", "y", axes=[0])], {}, (2, 3)),
    "top_k": (7, [op("TopK", "x", "y i", k=2, axis=1)], {}, (2, 3)),
    "upsample_7": (7, [op("Upsample", "x", "y", scales=[1.0, 1.0, 2.0, 3.0])], {}, (1, 2, 3, 3)),
    "upsample_9": (9, [op("Upsample", "x s", "y", mode="linear")], {"s": np.float32([1, 1, 2, 2])}, (1, 2, 3, 3)),
    "grid_sample": (16, [op("GridSample", "x g", "y", mode="bilinear")], {"g": data(1, 2, 2, 2)}, (1, 1, 3, 3)),
    "dft": (17, [op("DFT", "x", "y", axis=1)], {}, (1, 4, 3, 1)),
    "roi_align": (
        10,
        [op("RoiAlign", "x r i", "y", output_height=2, output_width=2)],
        {"r": np.float32([[0, 0, 3, 3]]), "i": np.array([0])},
        (1, 2, 4, 4),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OLD)
def test_old_opsets(case):
    """ONNX Runtime runs the old model by its own kernels for the old versions: the upgrade is checked against those."""
    opset, nodes, initializers, shape = OLD[case]
    model = model_of(nodes, {"x": (FLOAT, shape)}, {"y": (FLOAT, None)}, initializers, opset=opset)
    # Values that float16 holds too, for ONNX Runtime computes float16 in float32 where it has no kernel.
    assert_same(model, x=data(*shape).astype(np.float16).astype(np.float32))


def test_group_normalization_of_opset_18_has_parameters_for_groups():
    node = op("GroupNormalization", "x s b", "y", num_groups=2)
    x, s, b = data(2, 6, 3), data(2), data(2) + 1
    model = model_of([node], {"x": (FLOAT, [2, 6, 3])}, {"y": (FLOAT, [2, 6, 3])}, {"s": s, "b": b}, opset=18)
    groups = x.reshape(2, 2, -1)
    normal = (groups - groups.mean(-1, keepdims=True)) / np.sqrt(groups.var(-1, keepdims=True) + 1e-5)
    expected = (normal * s[:, None] + b[:, None]).reshape(x.shape)
    np.testing.assert_allclose(run(reexported(model), {"x": x})[0], expected, rtol=1e-5, atol=1e-6)


def test_the_last_axis_of_an_old_softmax_needs_no_reshaping():
    opset, nodes, _, shape = OLD["softmax_of_the_last_axis"]
    exported = reexported(model_of(nodes, {"x": (FLOAT, shape)}, {"y": (FLOAT, None)}, opset=opset))
    assert [n.op_type for n in exported.graph.node] == ["Relu", "Softmax"]


def test_models_older_than_opset_7_go_through_the_converter_of_onnx():
    """Before 7, broadcasting was an attribute."""
    node = op("Add", "x b", "y", broadcast=1, axis=0)
    x, b = data(2, 3), data(2)
    model = model_of([node], {"x": (FLOAT, [2, 3]), "b": (FLOAT, [2])}, {"y": (FLOAT, [2, 3])}, opset=6)
    np.testing.assert_array_equal(run(reexported(model), {"x": x, "b": b})[0], x + b[:, None])


@pytest.mark.parametrize(
    ("opset", "node", "reason"),
    [
        (7, op("BatchNormalization", "x x x x x", "y", spatial=0), "spatial = 0"),
        (7, op("BatchNormalization", "x x x x x", "y m v"), "training outputs"),
        (8, op("Scan", "x x", "y", num_scan_inputs=1, body=helper.make_graph([], "b", [], [])), "batch axis"),
        (11, op("Resize", "x x x", "y", coordinate_transformation_mode="tf_half_pixel_for_nn"), "withdrawn in opset 13"),
    ],
)
def test_what_cannot_be_upgraded_is_refused(opset, node, reason):
    with pytest.raises(ModelError, match=reason):
        reexported(model_of([node], {"x": (FLOAT, [2])}, {"y": (FLOAT, None)}, opset=opset))


def value(name, *t):
    return helper.make_tensor_value_info(name, *t)


def test_if():
    then = helper.make_graph([op("Neg", "t", "o")], "then", [], [value("o", FLOAT, None)])
    # An output that the branch only passes through.
    other = helper.make_graph([op("Identity", "t", "p"), op("Add", "p w", "q")], "else", [], [value("q", FLOAT, None)])
    nodes = [op("Relu", "x", "t"), op("If", "c", "y", then_branch=then, else_branch=other)]
    model = model_of(nodes, {"x": (FLOAT, ["N"]), "c": (BOOL, [])}, {"y": (FLOAT, None)}, {"w": data(1)})
    for c in (True, False):
        assert_same(model, x=data(5), c=np.array(c))


def test_if_whose_branches_return_outer_values():
    then = helper.make_graph([op("Identity", "x", "o")], "then", [], [value("o", FLOAT, None)])
    other = helper.make_graph([op("Constant", "", "k", value_floats=[1.0, 2.0])], "else", [], [value("k", FLOAT, None)])
    model = model_of(
        [op("If", "c", "y", then_branch=then, else_branch=other)], {"x": (FLOAT, [2]), "c": (BOOL, [])}, {"y": (FLOAT, None)}
    )
    for c in (True, False):
        assert_same(model, x=data(2), c=np.array(c))


def test_loop():
    body = helper.make_graph(
        [
            op("Add", "acc step", "next"),
            op("ReduceSum", "next", "total", keepdims=0),
            op("Less", "total limit", "go"),
            op("Identity", "next", "scan"),
        ],
        "body",
        [value("i", INT64, []), value("cond", BOOL, []), value("acc", FLOAT, [2])],
        [value("go", BOOL, []), value("next", FLOAT, [2]), value("scan", FLOAT, [2])],
    )
    model = model_of(
        [op("Loop", "n c x", "y s", body=body)],
        {"x": (FLOAT, [2]), "n": (INT64, []), "c": (BOOL, [])},
        {"y": (FLOAT, [2]), "s": (FLOAT, [None, 2])},
        {"step": np.float32([1.0, 2.0]), "limit": np.array(10.0, np.float32)},
    )
    assert_same(model, x=np.zeros(2, np.float32), n=np.array(10), c=np.array(True))


def test_scan():
    body = helper.make_graph(
        [op("Add", "s e", "t"), op("Identity", "t", "o")],
        "body",
        [value("s", FLOAT, [3]), value("e", FLOAT, [3])],
        [value("t", FLOAT, [3]), value("o", FLOAT, [3])],
    )
    model = model_of(
        [op("Scan", "z x", "y o", body=body, num_scan_inputs=1, scan_input_directions=[1])],
        {"x": (FLOAT, [4, 3])},
        {"y": (FLOAT, None), "o": (FLOAT, None)},
        {"z": np.zeros(3, np.float32)},
    )
    assert_same(model, x=data(4, 3))


def test_local_functions_with_subgraphs():
    """A function called twice, with an If inside, whose names must not meet; one output passes an input through."""
    then = helper.make_graph([op("Neg", "t", "o")], "then", [], [value("o", FLOAT, None)])
    other = helper.make_graph([op("Abs", "t", "o")], "else", [], [value("o", FLOAT, None)])
    function = helper.make_function(
        "local",
        "F",
        ["a", "c"],
        ["r", "c"],
        [op("Relu", "a", "t"), op("If", "c", "r", then_branch=then, else_branch=other)],
        [helper.make_opsetid("", 21)],
    )
    nodes = [op("F", "x p", "u v", domain="local"), op("Not", "v", "q"), op("F", "u q", "y", domain="local")]
    model = model_of(nodes, {"x": (FLOAT, [4]), "p": (BOOL, [])}, {"y": (FLOAT, [4])}, functions=[function], domains=["local"])
    for p in (True, False):
        exported = reexported(model)
        x = data(4)
        expected = np.abs(np.maximum(-np.maximum(x, 0), 0)) if p else -np.maximum(np.maximum(x, 0), 0)
        np.testing.assert_array_equal(run(exported, {"x": x, "p": np.array(p)})[0], expected)


def test_sequences_and_contributed_operators():
    nodes = [
        op("SplitToSequence", "x", "s", axis=0),
        op("ConcatFromSequence", "s", "t", axis=0),
        op("QuickGelu", "t", "y", domain="com.microsoft"),
    ]
    model = model_of(nodes, {"x": (FLOAT, [3, 2])}, {"y": (FLOAT, [3, 2])}, domains=["com.microsoft"])
    assert_same(model, x=data(3, 2))


def test_four_bit_and_bfloat16_weights_keep_their_bits():
    tensor = helper.make_tensor("q", TensorProto.INT4, [3, 3], [-8, 7, 0, 1, -1, 2, 3, -3, 4])
    scale = numpy_helper.from_array(np.float32(0.5), "s")
    model = model_of([op("DequantizeLinear", "q s", "y")], {}, {"y": (FLOAT, [3, 3])})
    model.graph.initializer.extend([tensor, scale])
    exported = assert_same(model)
    kept = next(t for t in exported.graph.initializer if t.name == "q")
    np.testing.assert_array_equal(numpy_helper.to_array(kept), numpy_helper.to_array(tensor))


def test_external_weights_round_trip(tmp_path):
    weights = {"w": data(64, 64), "v": data(8)}
    model = model_of(
        [op("MatMul", "x w", "t"), op("MatMul", "t w", "y")], {"x": (FLOAT, [2, 64])}, {"y": (FLOAT, None)}, weights
    )
    result = import_model(model, context=new_context(onnx=True))
    path = tmp_path / "m.onnx"
    save_model(result.module, result.weights, path, external_bytes=1024)
    assert path.stat().st_size < 1000
    onnx.checker.check_model(str(path))
    again = import_model(path, context=new_context(onnx=True))
    np.testing.assert_array_equal(again.weights["w"].array(), weights["w"])
    save_model(again.module, again.weights, tmp_path / "inline.onnx")
    np.testing.assert_array_equal(
        run(onnx.load(tmp_path / "inline.onnx"), {"x": data(2, 64)})[0], run(model, {"x": data(2, 64)})[0]
    )


@pytest.mark.parametrize(
    ("nodes", "initializers", "expected"),
    [
        ([op("Neg", "x", "t"), op("Flatten", "t", "y")], {}, 13),  # the type of t is not known
        ([op("LayerNormalization", "x s", "y")], {"s": data(4)}, 17),
        ([op("Softmax", "x", "t"), op("Gelu", "t", "y")], {}, 20),
        ([op("Cast", "x", "t", to=TensorProto.FLOAT8E4M3FN), op("Cast", "t", "y", to=1)], {}, 19),
        ([op("Cast", "x", "y", to=1, saturate=1)], {}, 19),
    ],
)
def test_the_opset_is_the_oldest_that_suffices(nodes, initializers, expected):
    model = model_of(nodes, {"x": (FLOAT, [2, 4])}, {"y": (FLOAT, [2, 4])}, initializers)
    assert {o.domain: o.version for o in reexported(model).opset_import} == {"": expected}


def test_a_weight_that_is_missing_is_named():
    result = import_model(
        model_of([op("Add", "x w", "y")], {"x": (FLOAT, [20])}, {"y": (FLOAT, None)}, {"w": data(20)}),
        context=new_context(onnx=True),
    )
    del result.weights["w"]
    with pytest.raises(ModelError, match="w: the weight store has no such weight"):
        export_model(result.module, result.weights)
