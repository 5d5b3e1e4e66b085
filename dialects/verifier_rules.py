"""The rules of `ingot.dialects.verifier`, one function an operation: what is wrong with it, or None."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ingot import dims
from ingot.dialects.ingot import DEFS, NAME, STATISTICS, dtype_of, shape_of
from ingot.dialects.mlir import ir, type_text
from ingot.dialects.plain import attribute
from ingot.dialects.scalar_table import TABLE
from ingot.dialects.verifier import differ
from ingot.dims import Dim
from ingot.dtypes import DTYPES, ONNX_TYPE_BY_NAME
from ingot.matmul_scales import matmul_scales

Fault = str | None
Shape = tuple[Dim, ...]


def _show(shape: Sequence[Dim]) -> str:
    return f"[{', '.join(map(str, shape))}]"


# Attributes -----------------------------------------------------------------------------------------------------------

_KINDS: dict[str, Callable[[Any], bool]] = {
    "an integer": lambda v: type(v) is int,
    "a float": lambda v: isinstance(v, float),
    "a string": lambda v: isinstance(v, str),
    "an array of integers": lambda v: isinstance(v, tuple) and all(type(x) is int for x in v),
    "an array of strings": lambda v: isinstance(v, tuple) and all(isinstance(x, str) for x in v),
    "a number": lambda v: isinstance(v, bool | int | float),
}
_ATTRIBUTE_KINDS: dict[str, str] = {
    "perm": "an array of integers", "axes": "an array of integers", "steps": "an array of integers",
    "dilations": "an array of integers", "kernel": "an array of integers", "pads": "an array of integers",
    "starts": "an array of strings", "inputs": "an array of strings", "input_types": "an array of strings",
    "sym_name": "a string", "name": "a string", "type": "a string", "left": "a string", "right": "a string",
    "relation": "a string", "message": "a string", "kind": "a string", "acc": "a string", "dim": "a string",
    "groups": "an integer", "a_block": "an integer", "b_block": "an integer",
    "axis": "an integer", "epsilon": "a float", "scale": "a float", "value": "a number",
    "trips": "a string", "symbol": "a string", "expression": "a string", "carried": "an integer",
    "strides": "an array of integers",
}  # fmt: skip


# Attributes whose class tells their kind; others are read.
_CLASSES: dict[str, tuple[type, ...]] = {
    "an integer": (ir.IntegerAttr,), "a float": (ir.FloatAttr,), "a string": (ir.StringAttr,),
    "an array of integers": (ir.DenseI64ArrayAttr, ir.DenseI32ArrayAttr), "a number": (ir.IntegerAttr, ir.FloatAttr),
}  # fmt: skip


def attribute_fault(name: str, attr: ir.Attribute) -> Fault:
    """What is wrong with the kind of a required attribute."""
    kind = _ATTRIBUTE_KINDS[name]
    if type(attr) in _CLASSES.get(kind, ()):
        return None
    try:
        fits = _KINDS[kind](attribute(attr))
    except ValueError:
        fits = False
    return None if fits else f"attribute '{name}' is {attr}, expected {kind}"


# Scalars --------------------------------------------------------------------------------------------------------------

_INTS = frozenset(n for n, t in DTYPES.items() if t.kind != "float")
_FLOATS = frozenset(n for n, t in DTYPES.items() if t.kind == "float")
_COMPUTED = frozenset({"f32", "f64"})
# Casts: which types they take and give, and how their widths relate (1 widens, -1 narrows, 0 either).
_CASTS: dict[str, tuple[frozenset[str], frozenset[str], int]] = {
    "extf": (_FLOATS, _FLOATS, 1), "truncf": (_FLOATS, _FLOATS, -1), "extsi": (_INTS - {"i1"}, _INTS, 1),
    "extui": (_INTS, _INTS, 1), "trunci": (_INTS, _INTS, -1), "sitofp": (_INTS - {"i1"}, _FLOATS, 0),
    "uitofp": (_INTS, _FLOATS, 0), "fptosi": (_FLOATS, _INTS, 0), "fptoui": (_FLOATS, _INTS, 0),
}  # fmt: skip


def row(op: ir.Operation) -> Fault:
    """Operand and result types of a row of the scalar table."""
    name = op.name[len(NAME) + 1 :]
    entry = TABLE[name]
    types = [type_text(v.type) for v in op.operands]
    result = type_text(op.results[0].type)
    if len(types) != len(entry.params):
        return f"takes {len(entry.params)} operands, got {len(types)}"
    for letter, found in zip(entry.params, types, strict=True):
        if letter == "f" and found not in _FLOATS:
            return f"takes floating-point values, got {found}"
        if letter == "i" and found not in _INTS:
            return f"takes integers, got {found}"
        if letter == "b" and found != "i1":
            return f"takes an i1 first, got {found}"
    if entry.result == "cast":
        return _cast(name, types[0], result)
    alike = types[1:] if entry.params[0] == "b" else types
    if len(set(alike)) > 1:
        return f"takes values of one type, got {', '.join(alike)}"
    if entry.params[0] == "f" and types[0] not in _COMPUTED:
        return f"computes in f32 or f64, got {types[0]}: extend it first"
    expected = "i1" if entry.result == "i1" else alike[-1]
    return None if result == expected else f"gives {expected}, its result is {result}"


def _cast(name: str, source: str, target: str) -> Fault:
    if source not in DTYPES or target not in DTYPES:
        return f"cannot cast {source} to {target}"
    bits = (1 if source == "i1" else DTYPES[source].bits), (1 if target == "i1" else DTYPES[target].bits)
    if name == "bitcast":
        return None if bits[0] == bits[1] else f"cannot cast {source} to {target}: their widths differ"
    sources, targets, direction = _CASTS[name]
    widens = bits[1] > bits[0]
    if source not in sources or target not in targets or (direction and widens != (direction > 0)):
        hint = " (an i1 extends by extui)" if source == "i1" and "si" in name else ""
        return f"cannot cast {source} to {target}{hint}"
    return None


def _load(op: ir.Operation) -> Fault:
    stored, result = dtype_of(op.operands[0]), type_text(op.results[0].type)
    return None if stored == result else f"loads {stored}, its result is {result}"


def _load_at(op: ir.Operation) -> Fault:
    rank = len(shape_of(op.operands[0]))
    indices = [type_text(v.type) for v in list(op.operands)[1:]]
    if len(indices) != rank or any(t != "i64" for t in indices):
        return f"takes {rank} i64 indices, one for each axis, got {', '.join(indices) or 'none'}"
    return _load(op)


def _index(op: ir.Operation) -> Fault:
    return None if type_text(op.results[0].type) == "i64" else f"gives i64, its result is {op.results[0].type}"


def _dim(op: ir.Operation) -> Fault:
    dims.parse(op.attributes["dim"].value)
    return _index(op)


def _const(op: ir.Operation) -> Fault:
    value, result = op.attributes["value"], type_text(op.results[0].type)
    kind = DTYPES[result].kind if result in DTYPES else ""
    if kind == "float":
        fits = isinstance(value, ir.FloatAttr)
    else:
        fits = isinstance(value, ir.BoolAttr) if kind == "bool" else isinstance(value, ir.IntegerAttr)
    return None if fits else f"has value {value}, its result is {result}"


SCALAR_RULES: dict[str, Callable[[ir.Operation], Fault]] = {
    "ingot.load": _load,
    "ingot.load_at": _load_at,
    "ingot.index": _index,
    "ingot.dim": _dim,
    "ingot.const": _const,
}


# Regions --------------------------------------------------------------------------------------------------------------


def _region(op: ir.Operation, number: int, args: Sequence[str], domain: Shape, yields: Sequence[str] | None) -> Fault:
    """Faults of a scalar region: its arguments, what it reads over its domain, and the types that it yields."""
    name = DEFS[op.name].regions[number]
    blocks = op.regions[number].blocks
    if len(blocks) != 1:
        return f"region '{name}' has {len(blocks)} blocks, expected 1"
    block = blocks[0]
    found = [type_text(a.type) for a in block.arguments]
    if found != list(args):
        return f"region '{name}' takes ({', '.join(found)}), expected ({', '.join(args)})"
    last = None
    for view in block.operations:
        inner = last = view.operation
        if inner.name == "ingot.load":
            if (fault := _load_fault(inner.operands[0], domain)) is not None:
                return fault
        elif inner.name == "ingot.index" and inner.attributes["axis"].value >= len(domain):
            return f"reads index {inner.attributes['axis'].value} of a domain of {len(domain)} axes"
        elif DEFS[inner.name].kind != "scalar" and inner.name != "ingot.yield":
            return f"region '{name}' holds '{inner.name}', which is no scalar operation"
    if last is None or last.name != "ingot.yield":
        return f"region '{name}' does not end in ingot.yield"
    given = [type_text(v.type) for v in last.operands]
    if yields is not None and given != list(yields):
        return f"region '{name}' yields ({', '.join(given)}), expected ({', '.join(yields)})"
    return None


def _load_fault(tensor: ir.Value, domain: Shape) -> Fault:
    shape = shape_of(tensor)
    fits = len(shape) <= len(domain)
    for size, wide in zip(reversed(shape), reversed(domain), strict=False):
        fits = fits and (size == 1 or not differ(size, wide))
    return None if fits else f"loads {tensor.type} over the domain {_show(domain)}"


def _yielded(op: ir.Operation, number: int) -> str:
    """The type that a region yields first."""
    blocks = op.regions[number].blocks
    operations = list(blocks[0].operations) if len(blocks) else []
    operands = list(operations[-1].operation.operands) if operations else []
    return type_text(operands[0].type) if operands else "nothing"


def _same_shape(kind: str, found: Shape, expected: Shape) -> Fault:
    if len(found) != len(expected) or any(differ(a, b) for a, b in zip(found, expected, strict=True)):
        return f"{kind} has shape {_show(found)}, expected {_show(expected)}"
    return None


def _results(op: ir.Operation, expected: Shape | None = None) -> Fault:
    """Results are at least one, of one shape, which is the expected one; their elements may be of several types."""
    if not len(op.results):
        return "has no result"
    if len({shape_of(r) for r in op.results}) > 1:
        return f"has results of several shapes: {', '.join(_show(shape_of(r)) for r in op.results)}"
    return None if expected is None else _same_shape("result", shape_of(op.results[0]), expected)


def _last_region(op: ir.Operation, number: int, args: Sequence[str]) -> Fault:
    return _region(op, number, args, shape_of(op.results[0]), [dtype_of(r) for r in op.results])


def _first(*faults: Callable[[], Fault]) -> Fault:
    """The first fault found."""
    for find in faults:
        if (fault := find()) is not None:
            return fault
    return None


# Structure, sources and effects ---------------------------------------------------------------------------------------


def _func(op: ir.Operation) -> Fault:
    names, types = attribute(op.attributes["inputs"]), attribute(op.attributes["input_types"])
    blocks = op.regions[0].blocks
    if len(blocks) != 1:
        return f"has {len(blocks)} blocks, expected 1"
    arguments = list(blocks[0].arguments)
    if not len(names) == len(types) == len(arguments):
        return f"has {len(arguments)} arguments, {len(names)} names and {len(types)} types of inputs"
    if len(set(names)) != len(names):
        return f"has two inputs of one name: {', '.join(names)}"
    for name, type_, argument in zip(names, types, arguments, strict=True):
        if (fault := _onnx_type(f"input {name!r}", type_, dtype_of(argument))) is not None:
            return fault
    operations = list(blocks[0].operations)
    if not operations or operations[-1].operation.name != "ingot.return":
        return "does not end in ingot.return"
    return None


def _if(op: ir.Operation) -> Fault:
    condition, *captured = op.operands
    if dtype_of(condition) != "i1" or dims.product(shape_of(condition)) != 1:
        return f"takes one i1 as its condition, got {condition.type}"
    taken = [type_text(v.type) for v in captured]
    return _first(lambda: _control_region(op, 0, taken), lambda: _control_region(op, 1, taken))


def _loop(op: ir.Operation) -> Fault:
    dims.parse(op.attributes["trips"].value)
    carried, tensors = op.attributes["carried"].value, list(op.operands)
    if carried != len(op.results) or carried > len(tensors):
        return f"carries {carried} of {len(tensors)} tensors, and has {len(op.results)} results"
    for tensor, result in zip(tensors, op.results, strict=False):
        if tensor.type != result.type:
            return f"carries {tensor.type}, its result is {result.type}"
    if "while" in op.attributes and (not carried or dtype_of(tensors[0]) != "i1" or dims.product(shape_of(tensors[0])) != 1):
        return f"takes one i1 first, as its condition, got {tensors[0].type if tensors else 'nothing'}"
    return _control_region(op, 0, [type_text(v.type) for v in tensors])


def _host_read(op: ir.Operation) -> Fault:
    value = op.operands[0]
    one = dtype_of(value) in ("i64", "i32") and dims.product(shape_of(value)) == 1
    return None if one else f"reads one i64 or i32, got {value.type}"


def _define(op: ir.Operation) -> Fault:
    expression = dims.parse(op.attributes["expression"].value)
    name = op.attributes["symbol"].value
    return f"defines {name} by itself" if name in dims.symbols(expression) else None


def _control_region(op: ir.Operation, number: int, taken: Sequence[str]) -> Fault:
    """Faults of a region of a control operation that takes values of types `taken` and gives the operation's results."""
    name = DEFS[op.name].regions[number]
    blocks = op.regions[number].blocks
    if len(blocks) != 1:
        return f"region '{name}' has {len(blocks)} blocks, expected 1"
    found = [type_text(a.type) for a in blocks[0].arguments]
    if found != list(taken):
        return f"region '{name}' takes ({', '.join(found)}), expected ({', '.join(taken)})"
    operations = [inner.operation for inner in blocks[0].operations]
    if not operations or operations[-1].name != "ingot.return":
        return f"region '{name}' does not end in ingot.return"
    given = [type_text(inner.operands[0].type) for inner in operations if inner.name == "ingot.result"]
    expected = [type_text(r.type) for r in op.results]
    return None if given == expected else f"region '{name}' gives ({', '.join(given)}), expected ({', '.join(expected)})"


def _onnx_type(what: str, name: str, storage: str) -> Fault:
    row_ = ONNX_TYPE_BY_NAME.get(name)
    if row_ is None:
        return f"{what} is of type {name!r}, which ONNX does not have"
    return None if row_.storage == storage else f"{what} of type {name} is stored as {row_.storage}, not as {storage}"


def _output(op: ir.Operation) -> Fault:
    return _onnx_type(f"output {op.attributes['name'].value!r}", op.attributes["type"].value, dtype_of(op.operands[0]))


def _guard(op: ir.Operation) -> Fault:
    for side in ("left", "right"):
        dims.parse(op.attributes[side].value)
    relation = op.attributes["relation"].value
    return None if relation in ("eq", "le") else f"has relation {relation!r}, expected eq or le"


def _weight(op: ir.Operation) -> Fault:
    shape = shape_of(op.results[0])
    return None if all(isinstance(d, int) for d in shape) else f"has sizes that are not constant: {_show(shape)}"


# Views ----------------------------------------------------------------------------------------------------------------


def _same_dtype(op: ir.Operation) -> Fault:
    source, result = dtype_of(op.operands[0]), dtype_of(op.results[0])
    return None if source == result else f"views {source} as {result}"


def _reshape(op: ir.Operation) -> Fault:
    old, new = shape_of(op.operands[0]), shape_of(op.results[0])
    if differ(dims.product(old), dims.product(new)):
        return f"reshapes {_show(old)} to {_show(new)}, which has another number of elements"
    return _same_dtype(op)


def _transpose(op: ir.Operation) -> Fault:
    perm, shape = attribute(op.attributes["perm"]), shape_of(op.operands[0])
    if sorted(perm) != list(range(len(shape))):
        return f"has perm {_show(perm)}, which is no permutation of {len(shape)} axes"
    expected = tuple(shape[p] for p in perm)
    return _same_shape("result", shape_of(op.results[0]), expected) or _same_dtype(op)


def _slice(op: ir.Operation) -> Fault:
    old, new = shape_of(op.operands[0]), shape_of(op.results[0])
    starts, steps = attribute(op.attributes["starts"]), attribute(op.attributes["steps"])
    if not len(starts) == len(steps) == len(old) == len(new):
        return f"has {len(starts)} starts and {len(steps)} steps for {len(old)} axes"
    for text, step, size, count in zip(starts, steps, old, new, strict=True):
        start = dims.parse(text)
        if step == 0:
            return "has a step of 0"
        last = start + step * (count - 1)
        if isinstance(count, int) and count > 0:
            for position in (start, last):
                beyond = position - size
                if (isinstance(position, int) and position < 0) or (isinstance(beyond, int) and beyond >= 0):
                    return f"reads position {position} of an axis of size {size}"
    return _same_dtype(op)


def _expand(op: ir.Operation) -> Fault:
    old, new = shape_of(op.operands[0]), shape_of(op.results[0])
    if len(old) > len(new) or any(a != 1 and differ(a, b) for a, b in zip(reversed(old), reversed(new), strict=False)):
        return f"expands {_show(old)} to {_show(new)}"
    return _same_dtype(op)


# Roots ----------------------------------------------------------------------------------------------------------------


def _pointwise(op: ir.Operation) -> Fault:
    return _results(op) or _last_region(op, 0, ())


def _move(op: ir.Operation) -> Fault:
    x = op.operands[0]
    shape, result = shape_of(x), op.results[0]
    into = len(op.operands) == 2
    if into != ("offsets" in op.attributes):
        return "takes `into` and `offsets` together"
    if into:
        offsets = attribute(op.attributes["offsets"])
        whole = shape_of(result)
        if op.operands[1].type != result.type:
            return f"moves into {op.operands[1].type}, its result is {result.type}"
        if not len(offsets) == len(shape) == len(whole):
            return f"has {len(offsets)} offsets for {_show(shape)} in {_show(whole)}"
        for text, size, room in zip(offsets, shape, whole, strict=True):
            beyond = dims.parse(text) + size - room
            if isinstance(beyond, int) and beyond > 0:
                return f"moves {_show(shape)} to {_show(offsets)}, beyond {_show(whole)}"
    elif (fault := _same_shape("result", shape_of(result), shape)) is not None:
        return fault
    return _region(op, 0, [dtype_of(x)], shape, [dtype_of(result)])


def _matmul(op: ir.Operation) -> Fault:
    a, b = (shape_of(v) for v in op.operands[:2])
    if len(a) < 2 or len(b) < 2:
        return f"multiplies {_show(a)} and {_show(b)}: both need two axes"
    if differ(a[-1], b[-2]):
        return f"multiplies {_show(a)} and {_show(b)}: {a[-1]} is not {b[-2]}"
    rank = max(len(a), len(b)) - 2
    lead: list[Dim] = []
    for i in range(-rank, 0):
        x, y = (s[:-2][i] if len(s) - 2 >= -i else 1 for s in (a, b))
        if x != 1 and y != 1 and differ(x, y):
            return f"multiplies {_show(a)} and {_show(b)}: {x} and {y} do not broadcast"
        lead.append(y if x == 1 else x)
    fault = _matmul_scales(op, a, b) or _results(op, (*lead, a[-2], b[-1]))
    fault = fault or _last_region(op, 0, [op.attributes["acc"].value])
    return fault or _product_types(op, scaled=len(op.operands) > 2)


# What may have scales, and what scales are.
_QUANTIZED = frozenset({"i8", "i4", "f8E4M3FN", "f8E5M2", "f4E2M1FN"})
_SCALES = frozenset({"f32", "f16", "bf16", "f8E4M3FN", "f8E8M0FNU"})


def _matmul_scales(op: ir.Operation, a: Shape, b: Shape) -> Fault:
    """Scales of a, one for each row and block of k; of b, and its zero points, one for each block of k and column."""
    attrs = {n: attribute(op.attributes[n]) for n in ("a_block", "b_block", "b_zero") if n in op.attributes}
    both = op.name == f"{NAME}.scaled_matmul"
    if "b_zero" in attrs if both else "a_block" in attrs:
        return f"has attribute {'b_zero' if both else 'a_block'!r}: that is {'matmul' if both else 'scaled_matmul'}'s"
    try:
        scales = matmul_scales(attrs)
    except ValueError as error:
        return str(error)
    if len(op.operands) != 2 + scales.count:
        return f"has {len(op.operands)} operands, its attributes ask for {2 + scales.count}"
    for name, number, block in (("a", scales.a_scale, scales.a_block), ("b", scales.b_scale, scales.b_block)):
        if number is None:
            continue
        blocks = dims.ceildiv(a[-1], block) if block else 1
        shape = (*a[:-1], blocks) if name == "a" else (*b[:-2], blocks, b[-1])
        numbers = [number] if name == "a" or scales.b_zero is None else [number, scales.b_zero]
        for i in numbers:
            fault = _same_shape(f"operand {i}", shape_of(op.operands[i]), shape)
            if fault is not None:
                return fault
        dtype, scale = dtype_of(op.operands["ab".index(name)]), dtype_of(op.operands[number])
        if dtype not in _QUANTIZED:
            return f"has scales of {name}, which is {dtype}: {', '.join(sorted(_QUANTIZED))} have scales"
        if scale not in _SCALES:
            return f"has scales of {name} of type {scale}: they are {', '.join(sorted(_SCALES))}"
    return None


def _product_types(op: ir.Operation, *, scaled: bool) -> Fault:
    """The accumulator's type and the signedness of the operands of a matmul or conv."""
    acc = op.attributes["acc"].value
    types = [dtype_of(v) for v in list(op.operands)[:2]]
    for name, dtype in zip("ab", types, strict=True):
        if f"{name}_unsigned" in op.attributes and DTYPES[dtype].kind != "int":
            return f"has attribute '{name}_unsigned', but {name} is {dtype}"
    integers = not scaled and all(DTYPES[t].kind == "int" for t in types)
    if acc not in (("i32", "i64") if integers else ("f32", "f64")):
        how = "with scales " if scaled else ""
        return f"accumulates {types[0]} times {types[1]} {how}in {acc}: that is {'i32 or i64' if integers else 'f32 or f64'}"
    return None


def _conv(op: ir.Operation) -> Fault:
    x, w = (shape_of(v) for v in op.operands)
    spatial = len(x) - 2
    if spatial < 1 or len(w) != len(x):
        return f"convolves {_show(x)} with {_show(w)}: both need one axis for each of N, spatial axes, C"
    fault = _window_attrs(op, spatial, ("strides", "dilations"))
    if fault is not None:
        return fault
    groups: int = op.attributes["groups"].value
    transposed = "transposed" in op.attributes
    channels, made = (w[0], w[-1] * groups) if transposed else (w[-1] * groups, w[0])
    if differ(x[-1], channels):
        return f"convolves {_show(x)} with {_show(w)} in {groups} groups: {x[-1]} channels are not {channels}"
    if groups < 1 or (isinstance(made, int) and made % groups):
        return f"has {groups} groups for {made} channels"
    result = shape_of(op.results[0]) if len(op.results) else ()
    if len(result) != len(x) or differ(result[0], x[0]) or differ(result[-1], made):
        return f"result has shape {_show(result)}, expected [{x[0]}, ..., {made}]"
    if not transposed:
        pads, strides, dilations = (attribute(op.attributes[n]) for n in ("pads", "strides", "dilations"))
        for i in range(spatial):
            room = x[1 + i] + pads[i] + pads[spatial + i] - dilations[i] * (w[1 + i] - 1) - 1
            expected = dims.floordiv(room, strides[i]) + 1
            if differ(result[1 + i], expected):
                return f"result has size {result[1 + i]} on axis {1 + i}, expected {expected}"
    fault = _results(op) or _last_region(op, 0, [op.attributes["acc"].value])
    return fault or _product_types(op, scaled=False)


def _window_attrs(op: ir.Operation, spatial: int, names: Sequence[str]) -> Fault:
    for name in (*names, "pads"):
        values = attribute(op.attributes[name])
        expected = 2 * spatial if name == "pads" else spatial
        if len(values) != expected:
            return f"has {name} {_show(values)}, expected {expected} of them"
        if any(v < (0 if name == "pads" else 1) for v in values):
            return f"has {name} {_show(values)}"
    return None


def _attention(op: ir.Operation) -> Fault:
    q, k, v, *rest = (shape_of(x) for x in op.operands)
    if {len(q), len(k), len(v)} != {4}:
        return f"takes q {_show(q)}, k {_show(k)}, v {_show(v)}: each needs four axes"
    pairs = ((q[0], k[0]), (q[3], k[3]), *zip(k[:3], v[:3], strict=True))
    heads = isinstance(q[1], int) and isinstance(k[1], int) and (k[1] == 0 or q[1] % k[1] != 0)
    if heads or any(differ(a, b) for a, b in pairs):
        return f"takes q {_show(q)}, k {_show(k)}, v {_show(v)}, which do not fit"
    return _first(
        lambda: _lengths(op, q[0], *rest),
        lambda: _results(op, (*q[:3], v[3])),
        lambda: _region(op, 0, ["f32"], (*q[:3], k[2]), ["f32"]),
        lambda: _last_region(op, 1, ["f32"]),
    )


def _lengths(op: ir.Operation, batch: Dim, *given: Shape) -> Fault:
    if ("ragged" in op.attributes) != bool(given):
        return "has lengths, but is not ragged" if given else "is ragged without lengths"
    if not given or (len(given[0]) == 1 and not differ(given[0][0], batch) and dtype_of(op.operands[3]) in ("i32", "i64")):
        return None
    return f"takes lengths {op.operands[3].type}, expected i32 or i64 [{batch}]"


def _axes(op: ir.Operation, rank: int) -> Fault:
    axes = attribute(op.attributes["axes"])
    if not all(0 <= a < rank for a in axes) or len(set(axes)) != len(axes):
        return f"has axes {_show(axes)} of a tensor of {rank}"
    return None


def _kind(op: ir.Operation, *kinds: str) -> Fault:
    kind = op.attributes["kind"].value
    return None if kind in kinds else f"is of kind {kind!r}, expected {', '.join(kinds)}"


def _reduce(op: ir.Operation) -> Fault:
    x = op.operands[0]
    shape = shape_of(x)
    axes = set(attribute(op.attributes["axes"]))
    kept = tuple(1 if i in axes else d for i, d in enumerate(shape))
    mapped = _yielded(op, 0)
    return _first(
        lambda: _kind(op, "sum", "max", "min", "prod"),
        lambda: _axes(op, len(shape)),
        lambda: _results(op, kept),
        lambda: _region(op, 0, [dtype_of(x)], shape, [mapped]),
        lambda: _last_region(op, 1, [mapped]),
    )


def _normalize(op: ir.Operation) -> Fault:
    x = op.operands[0]
    shape = shape_of(x)
    mapped = _yielded(op, 0)
    statistics = STATISTICS.get(op.attributes["kind"].value, ())
    taken = [len(b.arguments) for b in op.regions[1].blocks]
    arguments = [mapped] * (1 + len(statistics) if taken != [1] else 1)
    return _first(
        lambda: _kind(op, "softmax", "log_softmax", "layer", "rms"),
        lambda: _axes(op, len(shape)),
        lambda: _results(op, shape),
        lambda: None if mapped in _COMPUTED else f"normalizes {mapped}, expected f32 or f64",
        lambda: _region(op, 0, [dtype_of(x)], shape, [mapped]),
        lambda: _last_region(op, 1, arguments),
    )


def _pool(op: ir.Operation) -> Fault:
    x, result = shape_of(op.operands[0]), shape_of(op.results[0]) if len(op.results) else ()
    arguments = [type_text(a.type) for b in op.regions[0].blocks for a in b.arguments]
    if len(x) < 3 or len(result) != len(x) or differ(x[0], result[0]) or differ(x[-1], result[-1]):
        return f"pools {_show(x)} to {_show(result)}"
    return _first(
        lambda: _kind(op, "max", "average", "sum"),
        lambda: _window_attrs(op, len(x) - 2, ("kernel", "strides", "dilations")),
        lambda: _results(op),
        lambda: _last_region(op, 0, arguments[:1]),
    )


def _scatter(op: ir.Operation) -> Fault:
    x, updates = (shape_of(v) for v in op.operands)
    return _first(
        lambda: _kind(op, "set", "sum", "prod", "max", "min"),
        lambda: _axes(op, len(updates)),
        lambda: _results(op, x),
        lambda: None if dtype_of(op.operands[0]) == dtype_of(op.results[0]) else f"gives {op.results[0].type}",
        lambda: _region(op, 0, [], updates, ["i64"] * len(x)),
        lambda: _region(op, 1, [], updates, [dtype_of(op.results[0])]),
    )


def _scan(op: ir.Operation) -> Fault:
    x = op.operands[0]
    shape, mapped = shape_of(x), _yielded(op, 0)
    return _first(
        lambda: _kind(op, "sum", "prod"),
        lambda: _axis(op, len(shape)),
        lambda: _results(op, shape),
        lambda: _region(op, 0, [dtype_of(x)], shape, [mapped]),
        lambda: _last_region(op, 1, [mapped]),
    )


def _topk(op: ir.Operation) -> Fault:
    x, result = shape_of(op.operands[0]), shape_of(op.results[0])

    def kept() -> Fault:
        axis = op.attributes["axis"].value
        if isinstance(x[axis], int) and isinstance(result[axis], int) and result[axis] > x[axis]:
            return f"gives {result[axis]} positions of {x[axis]} elements"
        return _same_shape("result", result, tuple(result[i] if i == axis else d for i, d in enumerate(x)))

    return _first(
        lambda: _axis(op, len(x)),
        lambda: f"gives {op.results[0].type}, expected i64" if dtype_of(op.results[0]) != "i64" else None,
        lambda: f"has rank {len(result)}, its operand {len(x)}" if len(result) != len(x) else kept(),
        lambda: _region(op, 0, [dtype_of(op.operands[0])], x, [_yielded(op, 0)]),
    )


def _axis(op: ir.Operation, rank: int) -> Fault:
    axis = op.attributes["axis"].value
    return None if 0 <= axis < rank else f"has axis {axis} of a tensor of {rank}"


RULES: dict[str, Callable[[ir.Operation], Fault]] = {
    "ingot.func": _func,
    "ingot.if": _if,
    "ingot.loop": _loop,
    "ingot.host_read": _host_read,
    "ingot.define": _define,
    "ingot.output": _output,
    "ingot.guard": _guard,
    "ingot.weight": _weight,
    "ingot.reshape": _reshape,
    "ingot.transpose": _transpose,
    "ingot.slice": _slice,
    "ingot.expand": _expand,
    "ingot.pointwise": _pointwise,
    "ingot.move": _move,
    "ingot.matmul": _matmul,
    "ingot.scaled_matmul": _matmul,
    "ingot.conv": _conv,
    "ingot.attention": _attention,
    "ingot.reduce": _reduce,
    "ingot.normalize": _normalize,
    "ingot.pool": _pool,
    "ingot.scatter": _scatter,
    "ingot.scan": _scan,
    "ingot.topk": _topk,
}
