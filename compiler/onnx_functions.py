"""Operators that ONNX defines by a function of other operators (onnx.defs, "function body")."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import onnx


@cache
def function_body(op_type: str, opset: int) -> onnx.FunctionProto | None:
    """The function that defines an operator of ai.onnx in an opset, its attributes' defaults bound; None where it has none.

    Bodies that depend on a node are `dependent_body`'s.
    """
    try:
        schema = onnx.defs.get_schema(op_type, opset, "")
    except onnx.defs.SchemaError:
        return None
    if not schema.has_function:  # type: ignore[attr-defined]  # not in the stubs
        return None
    body = onnx.FunctionProto()
    body.CopyFrom(schema.function_body)
    given = {a.name for a in body.attribute_proto}
    defaults = [schema.attributes[name].default_value for name in body.attribute]
    body.attribute_proto.extend(d for d in defaults if d.name and d.name not in given)
    return body


def dependent_body(
    node: onnx.NodeProto, domain: str, opset: int, types: Sequence[onnx.TypeProto]
) -> onnx.FunctionProto | None:
    """The function that defines a node where that depends on its attributes, on which operands it has, or on their types; None
    where it has none.

    Args:
        domain: the operator's, "" for ai.onnx.
        opset: of the domain.
        types: of the operands; of one that is left out, or not known, an empty one.
    """
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, domain)
    except onnx.defs.SchemaError:
        return None
    if not schema.has_context_dependent_function:  # type: ignore[attr-defined]
        return None
    text = schema.get_context_dependent_function(node.SerializeToString(), [t.SerializeToString() for t in types])  # type: ignore[attr-defined]
    body = onnx.FunctionProto.FromString(text)
    return body if body.node else None
