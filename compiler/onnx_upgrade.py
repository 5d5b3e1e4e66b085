"""Rewrites nodes of older opsets to the newest version of their operators, by a table.

A row stands for one change of an operator's signature or meaning (onnx/docs/Changelog.md); a node of opset v passes through
the rows with `opset > v` in order. Changes that only widen types, or add an attribute whose default keeps the old meaning, need
none. Nodes that have no equivalent raise UpgradeError.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ingot.compiler.onnx_graph import OLDEST_OPSET, Node, Normalizer, UpgradeError
from ingot.dtypes import onnx_numpy


@dataclass
class _Rewrite:
    """The nodes that replace `node`: `before` it, itself, and `after` it."""

    node: Node
    normalizer: Normalizer
    before: list[Node] = field(default_factory=list)
    after: list[Node] = field(default_factory=list)

    def emit(self, op_type: str, inputs: list[str], **attributes: object) -> str:
        """Add a node in front and give its output's name."""
        return self._emit(self.before, op_type, inputs, attributes)

    def _emit(self, where: list[Node], op_type: str, inputs: list[str], attributes: dict[str, object]) -> str:
        output = self.normalizer.fresh(f"{self.node.name}.{op_type}")
        where.append(Node(op_type, "", f"{self.node.name}.{op_type}", inputs, [output], attributes))
        return output

    def constant(self, array: np.ndarray) -> str:
        """Add a constant in front."""
        return self.emit("Constant", [], value=array)

    def scalar_like(self, value: float, like: str) -> str:
        """Add a scalar of the element type of value `like` in front."""
        onnx_type = self.normalizer.element_type(like)
        if onnx_type is None:
            return self.emit("CastLike", [self.constant(np.array(value, np.float32)), like])
        return self.constant(np.array(value).astype(onnx_numpy(onnx_type)))

    def attribute_to_input(self, name: str, index: int, dtype: type = np.int64) -> None:
        """Move an attribute, if the node has it, to input `index`, as a constant."""
        value = self.node.attributes.pop(name, None)
        if value is not None:
            self.set_input(index, self.constant(np.array(value, dtype)))

    def set_input(self, index: int, value: str) -> None:
        self.node.inputs += [""] * (index + 1 - len(self.node.inputs))
        self.node.inputs[index] = value

    def replace_output(self, index: int) -> tuple[str, str]:
        """Give output `index` a new name; returns (new, old)."""
        old = self.node.outputs[index]
        self.node.outputs[index] = self.normalizer.fresh(self.node.name)
        return self.node.outputs[index], old

    def append(self, op_type: str, inputs: list[str], output: str, **attributes: object) -> None:
        """Add a node behind that computes `output`."""
        self.after.append(Node(op_type, "", f"{self.node.name}.{op_type}", inputs, [output], attributes))


@dataclass(frozen=True)
class _Row:
    """`apply` turns a node from before `opset` into one of it."""

    opset: int
    apply: Callable[[_Rewrite], None]


def upgrade(node: Node, opset: int, normalizer: Normalizer) -> list[Node]:
    """The nodes that compute what `node` does at version `opset` of its domain, in order.

    Raises UpgradeError where there are none.
    """
    if node.domain:
        return [node]
    if node.op_type == "Constant":
        return [_canonical_constant(node)]
    rows = _ROWS.get(node.op_type)
    if rows is None or rows[-1].opset <= opset:
        return [node]
    rewrite = _Rewrite(node, normalizer)
    for row in rows:
        if opset < row.opset:
            row.apply(rewrite)
    return [*rewrite.before, rewrite.node, *rewrite.after]


def oldest_opset(op_type: str) -> int:
    """The first opset of ai.onnx at which an operator means what its newest version means."""
    rows = _ROWS.get(op_type)
    return rows[-1].opset if rows else OLDEST_OPSET


def _canonical_constant(node: Node) -> Node:
    """Every spelling of Constant as one with `value`."""
    found = {name: v for name, v in node.attributes.items() if v is not None}
    if len(found) != 1:
        raise UpgradeError(f"must have exactly one attribute, but has {sorted(found)}")
    ((name, value),) = found.items()
    dtypes = {"value_int": np.int64, "value_ints": np.int64, "value_float": np.float32, "value_floats": np.float32}
    if name in ("value_string", "value_strings"):
        value = np.array(value, dtype=object)
    elif name in dtypes:
        value = np.array(value, dtypes[name])
    node.attributes = {"value": value}
    return node


# Rows -----------------------------------------------------------------------------------------------------------------


def _axes_to_input(r: _Rewrite) -> None:
    r.attribute_to_input("axes", 1)


def _batch_normalization_9(r: _Rewrite) -> None:
    if r.node.attributes.pop("spatial", 1) != 1:
        raise UpgradeError("spatial = 0 (statistics per activation) has no equivalent")


def _batch_normalization_14(r: _Rewrite) -> None:
    if any(r.node.outputs[1:]):
        raise UpgradeError("training outputs have no equivalent; export the model for inference")


def _clip_11(r: _Rewrite) -> None:
    for index, name in ((1, "min"), (2, "max")):
        value = r.node.attributes.pop(name, None)
        if value is not None:
            r.set_input(index, r.scalar_like(value, r.node.inputs[0]))


def _coerced_axis_13(r: _Rewrite) -> None:
    # Before 13 the input is seen as a matrix: the axes from `axis` on are normalized together.
    axis = r.node.attributes.pop("axis", 1)
    r.node.attributes["axis"] = -1
    x = r.node.inputs[0]
    rank = r.normalizer.rank(x) if axis != -1 else None
    if axis == -1 or (rank is not None and axis == rank - 1):
        return
    r.set_input(0, r.emit("Flatten", [x], axis=axis))
    new, old = r.replace_output(0)
    r.append("Reshape", [new, r.emit("Shape", [x])], old)


def _dft_20(r: _Rewrite) -> None:
    r.set_input(2, r.constant(np.array(r.node.attributes.pop("axis", 1), np.int64)))


def _dropout_12(r: _Rewrite) -> None:
    ratio = r.node.attributes.pop("ratio", 0.5)
    r.set_input(1, r.constant(np.array(ratio, np.float32)))


def _dropout_10(r: _Rewrite) -> None:
    if any(r.node.outputs[1:]):
        mask, old = r.replace_output(1)
        r.append("CastLike", [mask, r.node.inputs[0]], old)


def _grid_sample_20(r: _Rewrite) -> None:
    names = {"bilinear": "linear", "bicubic": "cubic"}
    mode = r.node.attributes.get("mode", "bilinear")
    r.node.attributes["mode"] = names.get(mode, mode)


def _group_normalization_21(r: _Rewrite) -> None:
    # Scale and bias were one a group; now they are one a channel.
    groups = r.node.attributes.get("num_groups")
    if groups is None:
        raise UpgradeError("required attribute 'num_groups' is missing")
    channels = r.emit("Shape", [r.node.inputs[0]], start=1, end=2)
    count = r.constant(np.array([groups], np.int64))
    sizes = r.emit("Concat", [count, r.emit("Div", [channels, count])], axis=0)
    one, all_ = r.constant(np.array([1], np.int64)), r.constant(np.array([-1], np.int64))
    for index in (1, 2):
        column = r.emit("Unsqueeze", [r.node.inputs[index], one])
        r.set_input(index, r.emit("Reshape", [r.emit("Expand", [column, sizes]), all_]))


def _pad_11(r: _Rewrite) -> None:
    r.attribute_to_input("pads", 1)
    value = r.node.attributes.pop("value", 0.0)
    if value != 0.0:
        r.set_input(2, r.scalar_like(value, r.node.inputs[0]))


def _resize_11(r: _Rewrite) -> None:
    if len(r.node.inputs) > 1:
        r.node.inputs = [r.node.inputs[0], "", r.node.inputs[1]]
    r.node.attributes.setdefault("mode", "nearest")
    r.node.attributes |= {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


def _resize_13(r: _Rewrite) -> None:
    if r.node.attributes.get("coordinate_transformation_mode") == "tf_half_pixel_for_nn":
        raise UpgradeError("coordinate_transformation_mode tf_half_pixel_for_nn was withdrawn in opset 13")
    if len(r.node.inputs) > 3 and r.node.inputs[3]:
        r.set_input(2, "")  # version 11 demands an empty tensor for scales beside sizes
    if r.node.attributes.get("coordinate_transformation_mode") != "tf_crop_and_resize" and len(r.node.inputs) > 1:
        r.set_input(1, "")


def _roi_align_16(r: _Rewrite) -> None:
    r.node.attributes["coordinate_transformation_mode"] = "output_half_pixel"


def _scan_9(r: _Rewrite) -> None:
    raise UpgradeError("version 8 has a batch axis and lengths, and no equivalent; export with opset 9 or newer")


def _scatter_11(r: _Rewrite) -> None:
    r.node.op_type = "ScatterElements"


def _slice_10(r: _Rewrite) -> None:
    for index, name in ((1, "starts"), (2, "ends"), (3, "axes")):
        r.attribute_to_input(name, index)


def _split_13(r: _Rewrite) -> None:
    r.attribute_to_input("split", 1)


def _split_18(r: _Rewrite) -> None:
    if len(r.node.inputs) < 2 or not r.node.inputs[1]:
        r.node.attributes["num_outputs"] = len(r.node.outputs)


def _top_k_10(r: _Rewrite) -> None:
    k = r.node.attributes.pop("k", None)
    if k is None:
        raise UpgradeError("required attribute 'k' is missing")
    r.set_input(1, r.constant(np.array([k], np.int64)))


def _upsample_9(r: _Rewrite) -> None:
    r.attribute_to_input("scales", 1, np.float32)


def _upsample_10(r: _Rewrite) -> None:
    r.node.op_type = "Resize"


_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")

_ROWS: dict[str, tuple[_Row, ...]] = {
    "BatchNormalization": (_Row(9, _batch_normalization_9), _Row(14, _batch_normalization_14)),
    "Clip": (_Row(11, _clip_11),),
    "DFT": (_Row(20, _dft_20),),
    "Dropout": (_Row(10, _dropout_10), _Row(12, _dropout_12)),
    "GridSample": (_Row(20, _grid_sample_20),),
    "GroupNormalization": (_Row(21, _group_normalization_21),),
    **dict.fromkeys(("Hardmax", "LogSoftmax", "Softmax"), (_Row(13, _coerced_axis_13),)),
    "Pad": (_Row(11, _pad_11),),
    **{f"Reduce{name}": (_Row(18, _axes_to_input),) for name in _REDUCTIONS},
    "ReduceSum": (_Row(13, _axes_to_input),),
    "Resize": (_Row(11, _resize_11), _Row(13, _resize_13)),
    "RoiAlign": (_Row(16, _roi_align_16),),
    "Scan": (_Row(9, _scan_9),),
    "Scatter": (_Row(11, _scatter_11),),
    "Slice": (_Row(10, _slice_10),),
    "Split": (_Row(13, _split_13), _Row(18, _split_18)),
    "Squeeze": (_Row(13, _axes_to_input),),
    "TopK": (_Row(10, _top_k_10),),
    "Unsqueeze": (_Row(13, _axes_to_input),),
    "Upsample": (_Row(9, _upsample_9), _Row(10, _upsample_10), _Row(11, _resize_11), _Row(13, _resize_13)),
}
