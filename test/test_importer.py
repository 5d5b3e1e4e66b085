"""The importer: what it accepts, what the IR says, where the weights are, and what users see when a model is wrong."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ingot.compiler import onnx_file
from ingot.compiler.importer import ImportedModel, import_model
from ingot.dialects import onnx as dialect
from ingot.dialects import onnx_types as types
from ingot.dialects.mlir import ir, new_context
from ingot.dtypes import ONNX_TYPES, onnx_numpy
from ingot.errors import ModelError

FLOAT = TensorProto.FLOAT


def model_of(nodes, inputs, outputs, initializers=(), opset=20, functions=(), domains=(), ir_version=10):
    """A model whose inputs and outputs are given as name -> (element type, shape)."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, *t) for n, t in inputs.items()],
        [helper.make_tensor_value_info(n, *t) for n, t in outputs.items()],
        [numpy_helper.from_array(a, n) if isinstance(a, np.ndarray) else a for n, a in dict(initializers).items()],
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=opsets, functions=list(functions), ir_version=ir_version)


# Handles of operations do not keep their module alive.
_modules: list[ir.Module] = []


@pytest.fixture(autouse=True)
def _drop_modules():
    yield
    _modules.clear()


def imported(model) -> ImportedModel:
    result = import_model(model, context=new_context(onnx=True))
    result.module.operation.verify()
    _modules.append(result.module)
    return result


def body(result: ImportedModel) -> list[ir.Operation]:
    return [op.operation for op in dialect.main_graph(result.module).regions[0].blocks[0].operations]


def relu_model(**kwargs):
    return model_of([helper.make_node("Relu", ["x"], ["y"], "r")], {"x": (FLOAT, ["N", 3])}, {"y": (FLOAT, ["N", 3])}, **kwargs)


# What the IR says


def test_inputs_outputs_and_locations():
    result = imported(
        model_of(
            [helper.make_node("Relu", ["x"], ["t"], "/enc/act"), helper.make_node("Neg", ["t"], ["y"])],
            {"x": (FLOAT, ["batch", None, 3])},
            {"y": (FLOAT, ["batch", "rest", 3])},
        )
    )
    graph = dialect.main_graph(result.module)
    assert [n.value for n in graph.attributes["input_names"]] == ["x"]
    relu, neg, output, end = body(result)
    assert str(relu.operands[0].type) == 'tensor<?x?x3xf32, #ingot.dims<["batch", "x_1"]>>'
    assert str(output.attributes["type"].value) == 'tensor<?x?x3xf32, #ingot.dims<["batch", "rest"]>>'
    assert output.attributes["name"].value == "y"
    assert [dialect.node_name(op) for op in (relu, neg)] == ["/enc/act", "Neg_1"]
    assert relu.location.name_str == "enc.act"
    assert end.name == dialect.RETURN
    assert types.is_unknown(relu.result)


def test_dimension_names_that_are_no_identifiers():
    shape = ["batch-size", "batch.size", "past", "past + 1", "?", "?"]
    result = imported(model_of([helper.make_node("Relu", ["x"], ["y"])], {"x": (FLOAT, shape)}, {"y": (FLOAT, None)}))
    x = body(result)[0].operands[0]
    # "batch-size" is a name, for neither part of it is one; "past + 1" is an expression; "?" is never the same twice.
    assert [str(d) for d in types.shape_of(x)] == ["batch_size", "batch_size_1", "past", "past + 1", "x_4", "x_5"]


def test_declared_types_are_hints_without_names():
    model = relu_model()
    model.graph.node.add(op_type="Neg", input=["y"], output=["z"])
    model.graph.value_info.append(helper.make_tensor_value_info("y", FLOAT, ["unk__1", 3]))
    assert str(body(imported(model))[0].result.type) == "tensor<?x3xf32>"


def test_absent_inputs_keep_their_place():
    nodes = [
        helper.make_node("Resize", ["x", "", "", "sizes"], ["y"]),
        helper.make_node("LayerNormalization", ["y", "s"], ["", "", "inv"]),
    ]
    result = imported(
        model_of(
            nodes,
            {"x": (FLOAT, [1, 1, 2, 2])},
            {"inv": (FLOAT, None)},
            {"sizes": np.array([1, 1, 4, 4]), "s": np.ones(4, np.float32)},
        )
    )
    resize, norm = (op for op in body(result) if dialect.is_onnx(op) and op.name != dialect.CONSTANT)
    x, roi, scales, sizes = dialect.onnx_operands(resize)
    assert roi is None
    assert scales is None
    assert dialect.op_input(resize, "sizes") == sizes
    assert dialect.constant_value(sizes).tolist() == [1, 1, 4, 4]
    assert x == dialect.main_graph(result.module).regions[0].blocks[0].arguments[0]
    # Y always exists, so it has a result although the model gives it no name; Mean is optional.
    y, mean, inverse = dialect.onnx_results(norm)
    assert mean is None
    assert (y, inverse) == tuple(norm.results)


def test_attributes_as_plain_values():
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 0, 0], auto_pad="NOTSET", group=2)
    model = model_of([node], {"x": (FLOAT, [1, 2, 8, 8]), "w": (FLOAT, [4, 1, 3, 3])}, {"y": (FLOAT, None)})
    conv = body(imported(model))[0]
    assert dialect.op_type(conv) == "Conv"
    assert [dialect.attr(conv, n) for n in ("pads", "auto_pad", "group", "strides")] == [[1, 1, 0, 0], "NOTSET", 2, None]
    with pytest.raises(KeyError):
        dialect.attr(conv, "stride")


def test_contrib_operators_keep_their_domain():
    node = helper.make_node("QuickGelu", ["x"], ["y"], domain="com.microsoft")
    model = model_of([node], {"x": (FLOAT, [2])}, {"y": (FLOAT, [2])}, domains=["com.microsoft"])
    op = body(imported(model))[0]
    assert op.name == "onnx.com.microsoft.QuickGelu"
    assert dialect.attr(op, "alpha") == pytest.approx(1.702)


def test_small_tensors_are_constants_and_others_weights():
    tensors = {
        "shape": np.arange(1024),
        "table": np.arange(1025),
        "scale": np.ones(1, np.float32),
        "bias": np.ones(2, np.float32),
        "half": np.ones(1, onnx_numpy(next(t for t in ONNX_TYPES if t.name == "bfloat16"))),
    }
    nodes = [helper.make_node("Identity", [n], [f"{n}_y"]) for n in tensors]
    result = imported(model_of(nodes, {}, {f"{n}_y": (1, None) for n in tensors}, tensors))
    kinds = {dialect.node_name(op): op.name for op in body(result)[: len(tensors)]}
    assert kinds == {
        "shape": dialect.CONSTANT,
        "table": dialect.WEIGHT,
        "scale": dialect.CONSTANT,
        "bias": dialect.WEIGHT,
        "half": dialect.WEIGHT,
    }
    assert list(result.weights) == ["table", "bias", "half"]


def test_every_spelling_of_constant():
    spellings = {
        "value": numpy_helper.from_array(np.array([1.5], np.float32)),
        "value_int": 3,
        "value_ints": [1, 2],
        "value_float": 2.5,
        "value_floats": [0.5],
    }
    nodes = [helper.make_node("Constant", [], [name], **{name: value}) for name, value in spellings.items()]
    values = {
        dialect.node_name(op): dialect.constant_value(op.result)
        for op in body(imported(model_of(nodes, {}, {n: (1, None) for n in spellings})))
        if op.name == dialect.CONSTANT
    }
    expected = [np.array([1.5], np.float32), np.array(3), np.array([1, 2]), np.float32(2.5), np.array([0.5], np.float32)]
    for (name, value), want in zip(values.items(), expected, strict=True):
        assert value.dtype == want.dtype, name
        np.testing.assert_array_equal(value, want)


def test_strings():
    tensor = helper.make_tensor("s", TensorProto.STRING, [2], [b"a", "é".encode()])
    result = imported(model_of([helper.make_node("Identity", ["s"], ["y"])], {}, {"y": (8, [2])}, {"s": tensor}))
    constant = body(result)[0]
    assert str(constant.result.type) == "tensor<2x!onnx.String>"
    assert dialect.constant_value(constant.result).tolist() == ["a", "é"]


def test_inputs_that_are_initializers_are_weights():
    model = model_of(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        {"x": (FLOAT, [17]), "w": (FLOAT, [17])},
        {"y": (FLOAT, [17])},
        {"w": np.ones(17, np.float32)},
    )
    result = imported(model)
    assert [n.value for n in dialect.main_graph(result.module).attributes["input_names"]] == ["x"]
    assert list(result.weights) == ["w"]


def test_nodes_out_of_order_are_sorted():
    nodes = [helper.make_node("Neg", ["t"], ["y"], "second"), helper.make_node("Relu", ["x"], ["t"], "first")]
    result = imported(model_of(nodes, {"x": (FLOAT, [2])}, {"y": (FLOAT, [2])}))
    assert [dialect.node_name(op) for op in body(result)[:2]] == ["first", "second"]


def test_more_inputs_than_slots_are_nested():
    nodes = [helper.make_node("Concat", ["x"] * 70, ["y"], "c", axis=0)]
    result = imported(model_of(nodes, {"x": (FLOAT, [2])}, {"y": (FLOAT, [140])}))
    counts = [len(dialect.onnx_operands(op)) for op in body(result) if op.name == "onnx.Concat"]
    assert counts == [64, 6, 2]


def test_models_as_text():
    text = """< ir_version: 8, opset_import: ["" : 17] >
    agraph (float[N, 3] x) => (float[N, 3] y) { y = Relu(x) }"""
    assert body(imported(onnx.parser.parse_model(text)))[0].name == "onnx.Relu"


@pytest.mark.parametrize("suffix", [".onnxtxt", ".textproto"])
def test_textual_files(tmp_path, suffix):
    path = tmp_path / f"m{suffix}"
    model = relu_model()
    path.write_text(onnx.printer.to_text(model) if suffix == ".onnxtxt" else str(model))
    assert body(imported(path))[0].name == "onnx.Relu"


# Weights


def weight_model(arrays):
    nodes = [helper.make_node("Identity", [n], [f"{n}_y"]) for n in arrays]
    return model_of(nodes, {}, {f"{n}_y": (1, None) for n in arrays}, arrays, opset=25)


def test_weights_are_views_of_the_mapped_file(tmp_path):
    path = tmp_path / "m.onnx"
    expected = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    onnx.save(weight_model({"w": expected}), path)
    source = imported(path).weights["w"]
    np.testing.assert_array_equal(source.array(), expected)
    assert np.shares_memory(source.array(), source.array())
    assert not source.array().flags.writeable
    region = source.region
    assert region is not None
    assert path.read_bytes()[region.offset : region.offset + region.length] == expected.tobytes()


def test_external_data(tmp_path):
    path = tmp_path / "m.onnx"
    arrays = {"a": np.arange(5000.0), "b": np.arange(3000, dtype=np.int32)}
    onnx.save(weight_model(arrays), path, save_as_external_data=True, location="m.data", size_threshold=0)
    weights = imported(path).weights
    for name, expected in arrays.items():
        np.testing.assert_array_equal(weights[name].array(), expected)
        assert weights[name].region.path == str(tmp_path / "m.data")


@pytest.mark.parametrize("onnx_type", ONNX_TYPES, ids=lambda t: t.name)
@pytest.mark.parametrize("raw", [True, False])
def test_every_element_type(onnx_type, raw):
    """Odd sizes too, where the last 4-bit element shares its byte with nothing."""
    values = np.random.default_rng(1).integers(0 if not onnx_type.signed else -3, 4, (1031, 3))
    if onnx_type.name == "float8e8m0":  # powers of two
        values = np.abs(values) + 1
    expected = values.astype(onnx_numpy(onnx_type))
    tensor = numpy_helper.from_array(expected, "w")
    if not raw:
        tensor = helper.make_tensor("w", onnx_type.code, expected.shape, expected.reshape(-1).tolist())
    result = imported(model_of([helper.make_node("Identity", ["w"], ["y"])], {}, {"y": (1, None)}, {"w": tensor}, opset=25))
    assert result.weights["w"].dtype == onnx_type.storage
    np.testing.assert_array_equal(result.weights["w"].array(), numpy_helper.to_array(tensor))
    assert str(body(result)[0].result.type) == f"tensor<1031x3x{types.element_name(onnx_type)}>"


def test_large_tensors_in_nodes_and_subgraphs_stay_in_the_file(tmp_path):
    table = np.arange(4096, dtype=np.float32)
    branch = helper.make_graph(
        [
            helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(table)),
            helper.make_node("Add", ["x", "c"], ["o"]),
        ],
        "then",
        [],
        [helper.make_tensor_value_info("o", FLOAT, [4096])],
    )
    other = helper.make_graph(
        [helper.make_node("Add", ["x", "d"], ["o"])],
        "else",
        [],
        [helper.make_tensor_value_info("o", FLOAT, [4096])],
        [numpy_helper.from_array(table, "d")],
    )
    node = helper.make_node("If", ["p"], ["y"], then_branch=branch, else_branch=other)
    path = tmp_path / "m.onnx"
    onnx.save(model_of([node], {"x": (FLOAT, [4096]), "p": (TensorProto.BOOL, [])}, {"y": (FLOAT, [4096])}), path)
    weights = imported(path).weights
    assert set(weights) == {"c", "d"}
    for name in weights:
        assert weights[name].region is not None
        np.testing.assert_array_equal(weights[name].array(), table)


def test_sparse_initializers_become_dense():
    values = numpy_helper.from_array(np.array([1.0, 2.0], np.float32), "w")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([3, 25])), [5, 6])
    model = model_of([helper.make_node("Identity", ["w"], ["y"])], {}, {"y": (FLOAT, [5, 6])})
    model.graph.sparse_initializer.append(sparse)
    expected = np.zeros(30, np.float32)
    expected[[3, 25]] = 1.0, 2.0
    np.testing.assert_array_equal(imported(model).weights["w"].array(), expected.reshape(5, 6))


# Control flow and functions


def test_captures_and_regions():
    then = helper.make_graph(
        [helper.make_node("Neg", ["t"], ["a"])], "then", [], [helper.make_tensor_value_info("a", FLOAT, [2])]
    )
    other = helper.make_graph(
        [helper.make_node("Abs", ["t"], ["a"])], "else", [], [helper.make_tensor_value_info("a", FLOAT, [2])]
    )
    nodes = [
        helper.make_node("Relu", ["x"], ["t"]),
        helper.make_node("If", ["p"], ["y"], then_branch=then, else_branch=other),
    ]
    result = imported(model_of(nodes, {"x": (FLOAT, [2]), "p": (TensorProto.BOOL, [])}, {"y": (FLOAT, [2])}))
    relu, branch, *_ = body(result)
    first, second = (region.blocks[0].operations[0].operation for region in branch.regions)
    assert (first.name, second.name) == ("onnx.Neg", "onnx.Abs")
    assert first.operands[0] == relu.result
    assert dialect.outputs(branch.regions[0])[0].operands[0] == first.result


def test_functions_are_inlined_with_their_attributes():
    inner = helper.make_function(
        "local", "Scale", ["x"], ["y"],
        [
            helper.make_node("LeakyRelu", ["x"], ["t"], "act"),
            helper.make_node("Neg", ["t"], ["y"]),
        ],
        [helper.make_opsetid("", 20)],
        attributes=["slope"],
    )  # fmt: skip
    inner.node[0].attribute.add(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    outer = helper.make_function(
        "local", "Twice", ["x"], ["y"],
        [
            helper.make_node("Scale", ["x"], ["t"], "a", domain="local", slope=0.25),
            helper.make_node("Scale", ["t"], ["y"], "b", domain="local"),
        ],
        [helper.make_opsetid("", 20), helper.make_opsetid("local", 1)],
    )  # fmt: skip
    node = helper.make_node("Twice", ["x"], ["y"], "call", domain="local")
    model = model_of([node], {"x": (FLOAT, [2])}, {"y": (FLOAT, [2])}, functions=[inner, outer], domains=["local"])
    ops = body(imported(model))[:4]
    assert [op.name for op in ops] == ["onnx.LeakyRelu", "onnx.Neg"] * 2
    assert [dialect.node_name(op) for op in ops[:2]] == ["call/a/act", "call/a/Neg_1"]
    assert dialect.attr(ops[0], "alpha") == 0.25
    assert dialect.attr(ops[2], "alpha") == pytest.approx(0.01)  # LeakyRelu's default: the call gives no slope


# Errors


def refused(model) -> ModelError:
    with pytest.raises(ModelError) as caught:
        import_model(model, context=new_context(onnx=True))
    return caught.value


def test_all_unsupported_nodes_at_once():
    nodes = [
        helper.make_node("Frobnicate", ["x"], ["a"], "n1"),
        helper.make_node("Relu", ["a"], ["b"], "n2", slope=1),
        helper.make_node("Conv", ["b"], ["c"], "n3"),
        helper.make_node("Mystery", ["c"], ["y"], "n4", domain="acme"),
    ]
    message = str(refused(model_of(nodes, {"x": (FLOAT, [2])}, {"y": (FLOAT, [2])}, domains=["acme"])))
    assert "4 of the model's nodes" in message
    assert "n1: Frobnicate of ONNX opset 20 is not an operator" in message
    assert "n2: unrecognized attribute: slope for operator Relu" in message
    assert "n3: has 1 inputs, but Conv takes 2 to 3" in message
    assert "n4: Mystery of domain 'acme'" in message


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([("Relu", ["nothing"], ["y"])], "input 'nothing' is neither an input"),
        ([("Add", ["x", "b"], ["a"]), ("Relu", ["a"], ["b"]), ("Neg", ["b"], ["y"])], "has a cycle through n0, n1"),
        ([("Relu", ["x"], ["t"])], "output 'y' of graph 'g' is not computed"),
        ([("Relu", ["x"], ["y"]), ("Neg", ["x"], ["y"])], "n1: value 'y' is defined a second time"),
        ([("Add", ["x", ""], ["y"])], "has 1 inputs, but Add takes exactly 2"),
        ([("Softmax", ["x"], ["y"], {"axis": 0.5})], "attribute 'axis' is expected to have field of kind INT"),
        ([("Transpose", ["x"], ["y"], {"perm": "no"})], "attribute 'perm' is expected to have field of kind INTS"),
        ([("Upsample", ["x", "x"], ["y"])], "Upsample was withdrawn in opset 10"),
    ],
)  # fmt: skip
def test_invalid_graphs(nodes, expected):
    protos = [helper.make_node(op, i, o, f"n{k}", **(rest[0] if rest else {})) for k, (op, i, o, *rest) in enumerate(nodes)]
    assert expected in str(refused(model_of(protos, {"x": (FLOAT, [2])}, {"y": (FLOAT, [2])})))


def test_opsets_that_the_onnx_package_does_not_know():
    assert "the installed onnx package knows" in str(refused(relu_model(opset=9999)))


def test_nesting_deeper_than_protobuf_allows():
    inner = b""
    for _ in range(150):  # graph: node: attribute: graph
        for number in (6, 5, 1):
            inner = onnx_file._field(number, inner + bytes([0x3A, 0x00]))
    assert "nested more than" in str(refused(onnx_file._field(7, inner + onnx_file._field(2, bytes(2000)))))


def test_truncated_files(tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(weight_model({"w": np.ones((64, 64), np.float32)}), path)
    whole = path.read_bytes()
    for end in {0, 1, 7, 20, 100, len(whole) // 2, len(whole) - 1}:
        path.write_bytes(whole[:end])
        error = str(refused(path))
        assert "m.onnx" in error or "initializer" in error, (end, error)


def test_damaged_files_are_errors_not_crashes(tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(weight_model({"w": np.ones((32, 32), np.float32), "v": np.arange(4)}), path)
    whole = bytearray(path.read_bytes())
    header = [*range(60), *range(len(whole) - 400, len(whole))]
    rng = np.random.default_rng(0)
    context = new_context(onnx=True)
    outcomes = set()
    for position in rng.choice(header, 300):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << rng.integers(8)
        try:
            import_model(bytes(damaged), context=context)
            outcomes.add("imported")
        except ModelError:
            outcomes.add("refused")
    assert outcomes == {"imported", "refused"}


def test_external_data_that_is_missing_or_short(tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(weight_model({"w": np.arange(5000.0)}), path, save_as_external_data=True, location="m.data", size_threshold=0)
    data = tmp_path / "m.data"
    data.write_bytes(data.read_bytes()[:-1])
    assert "damaged, truncated or of another model" in str(refused(path))
    data.unlink()
    assert "'m.data', which does not exist" in str(refused(path))
    assert "import the model by its path" in str(refused(path.read_bytes()))


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", ""])
def test_external_data_outside_the_folder_is_refused(tmp_path, location):
    (tmp_path / "secret").write_bytes(bytes(4 * 5000))
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[5000], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    folder = tmp_path / "model"
    folder.mkdir()
    path = folder / "m.onnx"
    path.write_bytes(weight_model({"w": tensor}).SerializeToString())
    assert "outside the model's folder" in str(refused(path))


def test_a_missing_file_and_a_foreign_file(tmp_path):
    assert "cannot be read" in str(refused(tmp_path / "no.onnx"))
    path = tmp_path / "pointer.onnx"
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "git lfs pull" in str(refused(path))


def test_unsupported_element_types_name_the_tensor():
    tensor = helper.make_tensor("w", TensorProto.COMPLEX64, [1], [1 + 2j])
    assert "'w' has element type COMPLEX64" in str(refused(weight_model({"w": tensor})))


def test_values_that_do_not_fill_the_tensor():
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[4], raw_data=bytes(12))
    assert "holds 12 bytes, but float[4] takes 16" in str(refused(weight_model({"w": tensor})))


# The file walker


def test_stripping_keeps_everything_else():
    """The walk removes raw data of tensors of at least INLINE_BYTES and nothing else."""
    arrays = {"big": np.arange(4096.0), "small": np.arange(8.0)}
    model = weight_model(arrays)
    file = onnx_file.read_model(model.SerializeToString())
    big, small = file.model.graph.initializer
    assert not big.HasField("raw_data")
    assert small.raw_data == arrays["small"].tobytes()
    del model.graph.initializer[:], file.model.graph.initializer[:]
    assert file.model == model


# The dialect


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"onnx.Relu"(%x) {slope = 1 : i64} : (tensor<2xf32>) -> tensor<2xf32>', "unrecognized attribute: slope"),
        ('"onnx.Softmax"(%x) {axis = 1.0 : f32} : (tensor<2xf32>) -> tensor<2xf32>', "field of kind INT"),
        ('"onnx.Cast"(%x) : (tensor<2xf32>) -> tensor<2xf32>', "required attribute 'to' is missing"),
        ('"onnx.Weight"() : () -> tensor<2xf32>', "required attribute 'name' is missing"),
        ('"onnx.Relu"(%x, %x) : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>', "expects exactly 1 operands"),
        ('"onnx.Typo"(%x) : (tensor<2xf32>) -> tensor<2xf32>', "onnx.Typo"),
    ],
)
def test_the_verifier_checks_against_the_schema(text, expected):
    module = f"""
    "onnx.Graph"() ({{
    ^bb0(%x: tensor<2xf32>):
      %y = {text} loc("/the/node")
      "onnx.Return"() : () -> ()
    }}) {{sym_name = "g", input_names = ["x"]}} : () -> ()"""
    with new_context(onnx=True), pytest.raises(ir.MLIRError) as caught:
        ir.Module.parse(module)
    assert expected in str(caught.value)


def test_modules_survive_text_and_bytecode():
    model = relu_model()
    model.graph.node.add(op_type="Concat", input=["y", "x"], output=["z"]).attribute.add(name="axis", type=2, i=0)
    result = imported(model)
    text = str(result.module)
    with result.module.context:
        assert str(ir.Module.parse(text)) == text


def test_unused_pure_operations_are_removed_and_random_ones_merged_never():
    from ingot.dialects.mlir import PassManager

    nodes = [
        helper.make_node("Relu", ["x"], ["unused"]),
        helper.make_node("RandomNormalLike", ["x"], ["a"]),
        helper.make_node("RandomNormalLike", ["x"], ["b"]),
        helper.make_node("Neg", ["a"], ["c"]),
        helper.make_node("Neg", ["a"], ["d"]),
        helper.make_node("Sum", ["a", "b", "c", "d"], ["y"]),
    ]
    result = imported(model_of(nodes, {"x": (FLOAT, [2])}, {"y": (FLOAT, [2])}))
    with result.module.context:
        PassManager.parse("builtin.module(cse)").run(result.module.operation)
    names = [op.name for op in body(result)]
    assert names[:4] == ["onnx.RandomNormalLike", "onnx.RandomNormalLike", "onnx.Neg", "onnx.Sum"]


def test_slopes_of_a_prelu_before_opset_7_lie_along_axis_1():
    """ONNX's converter leaves them as they are, and they would meet the last axis."""
    node = helper.make_node("PRelu", ["x", "s"], ["y"])
    sizes = {"x": (FLOAT, [2, 3, 4, 5]), "s": (FLOAT, [3])}
    result = imported(model_of([node], sizes, {"y": (FLOAT, [2, 3, 4, 5])}, opset=6, ir_version=3))
    assert [op.name for op in body(result)][-4:-2] == ["onnx.Unsqueeze", "onnx.PRelu"]


def test_a_function_over_sequences_is_refused_without_a_crash():
    """ONNX's library ends the process where it writes such a body without the types of the sequences."""
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        g (seq(float[N]) s) => (seq(float[N]) y) {
            y = SequenceMap <body = b (float[N] x) => (float[N] z) { z = Identity (x) }> (s)
        }""")
    result = import_model(model, context=new_context(onnx=True), decompose=lambda op_type: True)
    _modules.append(result.module)
    assert "onnx.SequenceMap" in [op.name for op in body(result)]
