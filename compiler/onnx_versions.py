"""Which opset a model needs: the oldest at which all of its nodes are valid and mean what they mean in the `onnx` dialect.

Runtimes lag behind the standard: ONNX Runtime reads opset 28 and has no kernel for DequantizeLinear of that version.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from functools import cache

import onnx

from ingot.compiler.onnx_upgrade import oldest_opset
from ingot.dtypes import OnnxType

# Below this, runtimes' support is older than the attributes' defaults of today.
FLOOR = 13


def required_opset(
    op_type: str, attributes: Collection[str], inputs: Sequence[OnnxType | None], outputs: Sequence[OnnxType | None]
) -> int:
    """The oldest opset of ai.onnx at which a node of that operator is valid.

    Args:
        attributes: names of the attributes that it states.
        inputs, outputs: element types, None for absent parameters and unknown types.
    """
    versions = _history().get(op_type, ())
    least = oldest_opset(op_type)
    for schema in versions:
        if _accepts(schema, attributes, inputs, outputs):
            return max(FLOOR, least, schema.since_version)
    return max((FLOOR, least, *(s.since_version for s in versions)))


@cache
def _history() -> Mapping[str, Sequence[onnx.defs.OpSchema]]:
    history = defaultdict(list)
    for schema in onnx.defs.get_all_schemas_with_history():
        if not schema.domain and not schema.deprecated:
            history[schema.name].append(schema)
    return {name: sorted(schemas, key=lambda s: s.since_version) for name, schemas in history.items()}


def _accepts(
    schema: onnx.defs.OpSchema,
    attributes: Collection[str],
    inputs: Sequence[OnnxType | None],
    outputs: Sequence[OnnxType | None],
) -> bool:
    if not schema.min_input <= len(inputs) <= schema.max_input or not schema.min_output <= len(outputs) <= schema.max_output:
        return False
    if not set(attributes) <= set(schema.attributes):
        return False
    allowed = {c.type_param_str: set(c.allowed_type_strs) for c in schema.type_constraints}
    for formals, types in ((schema.inputs, inputs), (schema.outputs, outputs)):
        for i, t in enumerate(types):
            formal = formals[min(i, len(formals) - 1)]
            if t is not None and f"tensor({t.name})" not in allowed.get(formal.type_str, {formal.type_str}):
                return False
    return True
