"""Operators that ONNX defines by a function of other operators (onnx.defs, "function body")."""

from __future__ import annotations

from functools import cache

import onnx


@cache
def function_body(op_type: str, opset: int) -> onnx.FunctionProto | None:
    """The function that defines an operator of ai.onnx in an opset, its attributes' defaults bound; None where it has none.

    Bodies that depend on the operands' types are not considered.
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
