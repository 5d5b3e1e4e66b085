"""Signatures of ONNX operators as plain data: the schemas of the `onnx` package, newest version each, and `onnx_contrib`'s.

The dialect, its verifier, the importer and the exporter read the same rows. Nothing here needs MLIR.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

from ingot.dialects.onnx_contrib import SIGNATURES

# IRDL gives all operands of a variadic one type, so a variadic is this many optional slots (see `Operator.operand_slots`).
VARIADIC_SLOTS = 64
CONTROL_SLOTS = 128

# Operators whose results differ from call to call: neither folded nor merged.
RANDOM = frozenset({"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"})

# Subgraph attributes in the order of the operation's regions; others are alphabetical.
_REGION_ORDER = {"If": ("then_branch", "else_branch")}


@dataclass(frozen=True)
class Formal:
    """A formal input or output.

    Attributes:
        kind: "single" (always there), "optional" or "variadic" (the last one).
        type: a type variable of the schema ("T") or a type ("tensor(int64)"); "" where the schema does not say.
    """

    name: str
    kind: str
    type: str = ""


@dataclass(frozen=True)
class Attribute:
    """A formal attribute. `kind` is AttributeProto.AttributeType in lower case; `default` a plain Python value or None."""

    name: str
    kind: str
    required: bool
    default: Any = None


@dataclass(frozen=True)
class Operator:
    """One operator at its newest version.

    Attributes:
        domain: "" for ai.onnx.
        op_type: ONNX's name.
        inputs, outputs: formal parameters in order.
        attributes: formal attributes by name, subgraphs excluded.
        regions: names of the subgraph attributes, in the order of the operation's regions; an absent one is an empty region.
        optional_regions: those that may be absent.
        min_inputs, min_outputs: the fewest of a variadic count, as ONNX states them.
        version: the opset of `domain` that this signature appeared in.
        deprecated: whether `version` withdrew the operator.
    """

    domain: str
    op_type: str
    inputs: tuple[Formal, ...]
    outputs: tuple[Formal, ...]
    attributes: Mapping[str, Attribute] = field(hash=False)
    regions: tuple[str, ...] = ()
    min_inputs: int = 0
    min_outputs: int = 0
    version: int = 1
    deprecated: bool = False
    optional_regions: tuple[str, ...] = ()

    @cached_property
    def name(self) -> str:
        """The operation's name without the dialect's prefix: `Conv`, `com.microsoft.QuickGelu`."""
        return f"{self.domain}.{self.op_type}" if self.domain else self.op_type

    @cached_property
    def max_inputs(self) -> int:
        return len(self.operand_slots)

    @cached_property
    def max_outputs(self) -> int:
        return len(self.result_slots)

    @cached_property
    def operand_slots(self) -> tuple[bool, ...]:
        """One entry a slot, True where it may be empty."""
        return self._slots(self.inputs)

    @cached_property
    def result_slots(self) -> tuple[bool, ...]:
        return self._slots(self.outputs)

    @cached_property
    def operand_segments(self) -> bool:
        """Whether the operation carries `operandSegmentSizes`: IRDL needs them where two slots or more may be empty."""
        return sum(self.operand_slots) > 1

    @cached_property
    def result_segments(self) -> bool:
        return sum(self.result_slots) > 1

    @cached_property
    def input_index(self) -> Mapping[str, int]:
        return {f.name: i for i, f in enumerate(self.inputs)}

    @cached_property
    def required_attributes(self) -> tuple[str, ...]:
        return tuple(a.name for a in self.attributes.values() if a.required)

    @cached_property
    def keeps_type(self) -> bool:
        """Whether the schema gives the first output the element type of the first input."""
        return bool(self.inputs and self.outputs and self.inputs[0].type and self.inputs[0].type == self.outputs[0].type)

    @cached_property
    def random(self) -> bool:
        return not self.domain and self.op_type in RANDOM

    def _slots(self, formals: Sequence[Formal]) -> tuple[bool, ...]:
        fixed = tuple(f.kind != "single" for f in formals if f.kind != "variadic")
        if len(fixed) == len(formals):
            return fixed
        return fixed + (True,) * (CONTROL_SLOTS if self.regions else VARIADIC_SLOTS)

    def find_fault(self, inputs: int, outputs: int, attributes: Mapping[str, Any]) -> str | None:
        """What ONNX's checker would object to in a node with that many inputs and outputs and these attribute names."""
        if not self.min_inputs <= inputs <= self.max_inputs:
            return f"has {inputs} inputs, but {self.op_type} takes {_range(self.min_inputs, self.max_inputs)}"
        if not self.min_outputs <= outputs <= self.max_outputs:
            return f"has {outputs} outputs, but {self.op_type} gives {_range(self.min_outputs, self.max_outputs)}"
        for name in attributes:
            if name not in self.attributes and name not in self.regions:
                return f"unrecognized attribute: {name} for operator {self.op_type}"
        for name in (*self.required_attributes, *self.regions):
            if name not in attributes and name not in self.optional_regions:
                return f"required attribute '{name}' is missing"
        return None


def _range(low: int, high: int) -> str:
    return f"exactly {low}" if low == high else f"{low} to {high}"


@cache
def operators() -> Mapping[str, Operator]:
    """Every operator by `Operator.name`, in a fixed order."""
    import onnx.defs

    found = [_from_onnx(s) for s in onnx.defs.get_all_schemas()]
    for domain, signatures in SIGNATURES.items():
        found += [parse_signature(domain, text) for text in signatures]
    return {op.name: op for op in sorted(found, key=lambda op: (op.domain, op.op_type))}


def lookup(domain: str, op_type: str) -> Operator | None:
    """The operator of that domain (`ai.onnx` is "") and name, or None."""
    if domain == "ai.onnx":
        domain = ""
    return operators().get(f"{domain}.{op_type}" if domain else op_type)


def _from_onnx(schema: Any) -> Operator:
    from onnx import defs, helper

    option, kind = defs.OpSchema.FormalParameterOption, defs.OpSchema.AttrType
    kinds = {option.Single: "single", option.Optional: "optional", option.Variadic: "variadic"}
    graphs = [name for name, a in schema.attributes.items() if a.type == kind.GRAPH]
    attributes = {}
    for name, a in sorted(schema.attributes.items()):
        if a.type != kind.GRAPH:
            default = helper.get_attribute_value(a.default_value) if a.default_value.type else None
            if isinstance(default, bytes):
                default = default.decode()
            elif a.type.name == "STRINGS" and default is not None:
                default = [text.decode() for text in default]
            attributes[name] = Attribute(name, a.type.name.lower(), a.required, default)
    return Operator(
        domain=schema.domain,
        op_type=schema.name,
        inputs=tuple(Formal(f.name, kinds[f.option], f.type_str) for f in schema.inputs),
        outputs=tuple(Formal(f.name, kinds[f.option], f.type_str) for f in schema.outputs),
        attributes=attributes,
        regions=_REGION_ORDER.get(schema.name, tuple(sorted(graphs))),
        min_inputs=schema.min_input,
        min_outputs=schema.min_output,
        version=schema.since_version,
        deprecated=schema.deprecated,
        optional_regions=tuple(sorted(name for name in graphs if not schema.attributes[name].required)),
    )


_SIGNATURE = re.compile(r"(\w+)\((.*?)\) -> \((.*?)\) \{(.*)\}")
_VALUES = {"int": int, "float": float, "string": str}
_KINDS = {"?": "optional", "*": "variadic"}


def parse_signature(domain: str, text: str) -> Operator:
    """The operator that a row of `onnx_contrib` spells. Raises ValueError quoting a row that it cannot read."""
    match = _SIGNATURE.fullmatch(text)
    if match is None:
        raise ValueError(f"not an operator's signature: {text!r}")
    name, inputs, outputs, attributes = match.groups()
    formal_inputs, formal_outputs = _formals(inputs), _formals(outputs)
    rows = {}
    for item in filter(None, attributes.split(", ")):
        attribute, _, rest = item.partition(": ")
        kind, _, default = rest.partition(" = ")
        rows[attribute] = Attribute(
            attribute, kind.rstrip("!"), kind.endswith("!"), _VALUES[kind](default) if default else None
        )
    return Operator(
        domain,
        name,
        formal_inputs,
        formal_outputs,
        rows,
        min_inputs=_least(formal_inputs),
        min_outputs=_least(formal_outputs),
    )


def _formals(text: str) -> tuple[Formal, ...]:
    return tuple(Formal(f.rstrip("?*"), _KINDS.get(f[-1], "single")) for f in text.split(", ") if f)


def _least(formals: Sequence[Formal]) -> int:
    """The number of leading parameters that a node must spell out: up to the last one that is always there."""
    return max((i + 1 for i, f in enumerate(formals) if f.kind == "single"), default=0)
