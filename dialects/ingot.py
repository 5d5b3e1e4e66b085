"""The `ingot` dialect: the AOT IR that engine files hold.

Small and closed. A module holds one `ingot.func`; its body is a sequence of

- *sources*: `weight` (by name; bytes live beside the IR) and `empty`;
- *views*: `reshape`, `transpose`, `slice`, `expand`: another way to read the same memory, never a kernel;
- *dispatches*: one root operation each with its full semantics, and *scalar regions* that hold what is fused into it;
- *control*: `if` and `loop`, whose regions are sequences of the same kind;
- `guard`s, `output`s and the terminator `return`.

The weights program, where there is one, is a second function, `weights`, after the main one: its outputs are the derived
weights that the main function reads by name, each computed from sources that keep the model's names. A JIT may append a third,
`packing`, whose outputs are weights as its target's instructions take them (`ingot-pack-weights`); no engine holds it.

Values are tensors. A dimension that is not constant is a shape expression (`ingot.dims`); the expressions of a type's dynamic
dimensions, in order, are its encoding: `tensor<?x?x768xf32, #ingot.dims<["N", "S"]>>`.

Scalar regions. A region is a program over scalars, run for every element of an iteration domain. Its block arguments are the
root's own values (an accumulator, a normalized element). It reads further tensors with `ingot.load`, whose tensor is
right-aligned with the domain and repeats along axes of size 1, and with `ingot.load_at`, at computed indices. Everything else
in it is a row of `scalar_table`. It ends in `ingot.yield`, one value for each result. Because regions read what they fuse by
themselves, a root's operands are only those its semantics need:

    %y = "ingot.matmul"(%x, %w) ({
    ^bb0(%acc: f32):
      %b = "ingot.load"(%bias) : (tensor<768xf32>) -> f32
      %s = "ingot.addf"(%acc, %b) : (f32, f32) -> f32
      "ingot.yield"(%s) : (f32) -> ()
    }) : (tensor<?x768xf32, #ingot.dims<["N"]>>, tensor<768x768xf32>) -> tensor<?x768xf32, #ingot.dims<["N"]>>

Quantization. Types are storage types: `i8`, `i4`, `f8E4M3FN`, `f8E5M2`, `f4E2M1FN`; 4-bit elements lie two a byte, the first in
the low nibble. What an element stands for is said by the operation that reads it. A scale that is the same along all that a
product sums belongs to the epilogue, which multiplies the accumulator by it (`i8` times `i8` in `i32`, `f8E4M3FN` times
`f8E4M3FN` in `f32`; a float times a quantized weight in `f32`):

    %y = "ingot.matmul"(%q, %w) ({
    ^bb0(%acc: i32):
      %f = "ingot.sitofp"(%acc) : (i32) -> f32
      %s = "ingot.load"(%scales) : (tensor<768xf32>) -> f32
      %r = "ingot.mulf"(%f, %s) : (f32, f32) -> f32
      "ingot.yield"(%r) : (f32) -> ()
    }) {acc = "i32"} : (tensor<?x768xi8, #ingot.dims<["N"]>>, tensor<768x768xi8>) -> tensor<?x768xf32, #ingot.dims<["N"]>>

The results of products, convolutions, attentions and normalizations may be of two types: the first one's, and the others'.

Scales that vary along it, and zero points of weights, are operands of a `matmul` or, where both of its operands have them, of a
`scaled_matmul` (`ingot.matmul_scales`). `conv` has none: what its epilogue cannot say stays a pointwise operation before it.
Zero points of activations are sums that the epilogue subtracts.

Control. A region of `if` or `loop` is isolated: what it reads of the values around it are operands, which its block arguments
stand for; weights it reads by name. Its results are `result`s, in order, before `return`, as a function's are `output`s.
IRDL gives all values of a variadic one type, so both lists are `SLOTS` optional slots, and the attributes `operandSegmentSizes`
and `resultSegmentSizes` say how many are filled: build these operations with `create_control`.

The semantics of each operation stand in its row of `OPS`; `ingot.compiler.interpreter` executes them on numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from ingot import dims
from ingot.dialects.mlir import ext, ir, irdl, reserve_dialect_module, type_text
from ingot.dialects.scalar_table import ROWS
from ingot.dims import Dim

NAME = "ingot"
SLOTS = 64  # the most tensors that a control operation takes, and that it gives
STATISTICS: dict[str, tuple[str, ...]] = {"layer": ("mean", "scale"), "rms": ("scale",)}  # (map(x) - mean) * scale is y
WEIGHTS_FUNC = "weights"  # the function that is the weights program: its outputs are the derived weights
PACKING_FUNC = "packing"  # what a JIT appends to it: run by the device, once the weights are there


@dataclass(frozen=True)
class OpDef:
    """A row of the dialect.

    Attributes:
        name: without the dialect's prefix.
        operands: names of the operands; `?x` is optional, `*x` variadic (of one type), at most one of these, last; or `+x`,
            `SLOTS` optional ones of any types, last.
        results: as operands.
        regions: names of its regions.
        attrs: names of the attributes it must have.
        kind: `structure`, `source`, `view`, `root`, `control`, `scalar` or `effect`.
        doc: its semantics.
    """

    name: str
    operands: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    attrs: tuple[str, ...] = ()
    kind: str = "root"
    doc: str = ""


OPS: tuple[OpDef, ...] = (
    OpDef("func", regions=("body",), attrs=("sym_name", "inputs", "input_types"), kind="structure",
          doc="An engine's function. Block arguments are the inputs, `inputs` their names, `input_types` their ONNX types."),
    OpDef("output", ("value",), attrs=("name", "type"), kind="effect",
          doc="`value` is the engine's output `name` of ONNX type `type`; outputs stand in the model's order."),
    OpDef("return", kind="structure", doc="Terminator of `func`, and of the regions of control operations."),
    OpDef("result", ("value",), kind="effect", doc="A result of a region of a control operation; they stand in order."),
    OpDef("yield", ("value", "*more"), kind="structure", doc="Terminator of a scalar region."),
    OpDef("guard", attrs=("left", "right", "relation", "message"), kind="effect",
          doc="At run time, `left` `relation` (eq, le) `right` over shape expressions, or the call fails with `message`."),
    # Sources
    OpDef("weight", results=("result",), attrs=("name",), kind="source",
          doc="The tensor stored under `name`; bytes (i8) that hold packed elements of another type are read as that type."),
    OpDef("empty", results=("result",), kind="source", doc="Memory with undefined contents, to `move` into."),
    # Views
    OpDef("reshape", ("x",), ("result",), kind="view", doc="The same elements in row-major order under another shape."),
    OpDef("transpose", ("x",), ("result",), attrs=("perm",), kind="view", doc="Axis i of the result is axis perm[i] of x."),
    OpDef("slice", ("x",), ("result",), attrs=("starts", "steps"), kind="view",
          doc="result[i...] = x[starts + i*steps...]; `starts` are shape expressions (strings), `steps` non-zero integers."),
    OpDef("expand", ("x",), ("result",), kind="view", doc="x, right-aligned, repeated along axes where it has size 1 or none."),
    # Control
    OpDef("if", ("condition", "+captured"), ("+results",), ("then", "else"), kind="control",
          doc="The results of `then` where `condition` (one i1) holds, else those of `else`; both regions take `captured`."),
    OpDef("loop", ("+tensors",), ("+results",), ("body",), ("trips", "symbol", "carried"), kind="control",
          doc="Runs `body` `trips` (a shape expression) times; `symbol` counts from 0 inside. The first `carried` tensors are "
          "what the first iteration takes, the rest is captured; an iteration's results are what the next one takes, the last "
          "one's are the operation's. With the unit attribute `while`, the first tensor is one i1, and an iteration runs "
          "only where it holds. A result that is a chain of `move ... into` the argument of its number is written in place."),
    OpDef("host_read", ("value",), attrs=("symbol",), kind="effect",
          doc="The host waits for the scalar `value` (i64 or i32) and binds `symbol` to it, for what follows in the block; "
          "where it may be negative, expressions spell it `signed(symbol)`."),
    OpDef("define", attrs=("symbol", "expression"), kind="effect",
          doc="Binds `symbol` to the value of a shape expression, which is never negative, for what follows in the block."),
    # Dispatches
    OpDef("pointwise", (), ("*results",), ("body",),
          doc="Every element of the results (all of one type) from `body`, whose domain is the results' shape."),
    OpDef("move", ("x", "?into"), ("result",), ("body",),
          doc="Copies x through `body` (argument: an element of x) into fresh memory, or, with `into` and the attribute "
          "`offsets` (shape expressions), over that part of `into`; the result is then `into` with the part replaced, in the "
          "same memory, and `into` must have no other use."),
    OpDef("matmul", ("a", "b", "*scales"), ("result", "*more"), ("epilogue",), ("acc",),
          doc="acc[..., m, n] = sum over k of a[..., m, k] * b[..., k, n], leading axes broadcast, accumulated in type `acc`; "
          "`epilogue` maps it to the results. Integers are signed but with the unit attribute `a_unsigned` or `b_unsigned`. "
          "With the attribute `b_block`, b is quantized and its scales are a further operand, with `b_zero` zero points of "
          "their type and shape another (ingot.matmul_scales). With the unit attribute `b_packed`, elements of b lie in the "
          "order of ingot.weight_packing."),
    OpDef("scaled_matmul", ("a", "b", "a_scales", "b_scales"), ("result", "*more"), ("epilogue",),
          ("acc", "a_block", "b_block"),
          doc="`matmul` of two operands with scales for each so many neighbours along k (ingot.matmul_scales)."),
    OpDef("conv", ("x", "w"), ("result", "*more"), ("epilogue",), ("acc", "strides", "dilations", "pads", "groups"),
          doc="Convolution, channels last: x [N, spatial..., C], w [M, kernel..., C/groups], results [N, spatial..., M]. "
          "`pads`: all beginnings, then all ends. With the attribute `transposed` (unit), ONNX's ConvTranspose: "
          "w [C, kernel..., M/groups], and `output_padding`. Integers are signed but with `a_unsigned` (x), `b_unsigned` (w)."),
    OpDef("attention", ("q", "k", "v", "?lengths"), ("result", "*more"), ("score", "epilogue"), ("scale",),
          doc="softmax over t of score(q[b, h, s, :] . k[b, h/g, t, :] * scale), times v[b, h/g, t, :], where g = heads of q / "
          "heads of k. `score` maps a product (f32) over the domain [B, H, S, T]; `epilogue` the result over [B, H, S, Dv]. "
          "The unit attribute `causal` states that the score of every t > s + (T - S) is minus infinity. With the unit "
          "attribute `ragged`, only the first `lengths[b]` (i32 or i64, at most T) keys of batch b count, instead of T."),
    OpDef("reduce", ("x",), ("*results",), ("map", "finish"), ("axes", "kind"),
          doc="`kind` (sum, max, min, prod) over `axes`, which keep size 1, of `map` (domain: x's shape), then `finish`."),
    OpDef("normalize", ("x",), ("result", "*more"), ("map", "epilogue"), ("axes", "kind", "epsilon"),
          doc="y = map(x) normalized over `axes`, in f32, then `epilogue` over x's shape. `kind`: softmax; log_softmax; layer: "
          "(y - mean) / sqrt(variance + epsilon); rms: y / sqrt(mean of squares + epsilon). After the normalized element, "
          "`epilogue` may take the row's `STATISTICS`, with which it normalizes other elements of the row."),
    OpDef("pool", ("x",), ("*results",), ("epilogue",), ("kind", "kernel", "strides", "dilations", "pads"),
          doc="`kind` (max, sum, average) over windows, channels last: x [N, spatial..., C]. The unit attribute "
          "`count_include_pad` makes padding count in an average."),
    OpDef("scatter", ("x", "updates"), ("*results",), ("place", "value"), ("kind", "axes"),
          doc="x with elements replaced (`kind` set) or combined (sum, prod, max, min). Over the domain of `updates`, `place` "
          "gives an i64 index for each axis of x, in range, and `value` what goes there. Only values whose positions in the "
          "domain differ along `axes` meet in one element; they are combined in the domain's order. Which one is set is open. "
          "With the unit attribute `in_place` (`ingot-plan-buffers`), the result lies in the memory of x."),
    OpDef("scan", ("x",), ("*results",), ("map", "finish"), ("axis", "kind"),
          doc="`finish` of `kind` (sum, prod) over all `map`ped elements of x along `axis` up to the current one. The unit "
          "attribute `exclusive` leaves out the current one, `reverse` begins at the end."),
    OpDef("topk", ("x",), ("result",), ("map",), ("axis",),
          doc="The positions (i64) along `axis` of the elements for which `map` is largest, as many as the result has, in "
          "descending order; of equal ones the first come first, and NaN before all."),
    # Scalar regions' own operations
    OpDef("load", ("tensor",), ("result",), kind="scalar", doc="The tensor's element at the current index."),
    OpDef("load_at", ("tensor", "*indices"), ("result",), kind="scalar",
          doc="The tensor's element at `indices` (i64, one an axis), which must be in range."),
    OpDef("index", (), ("result",), attrs=("axis",), kind="scalar", doc="The position along `axis` of the domain, i64."),
    OpDef("dim", (), ("result",), attrs=("dim",), kind="scalar", doc="The value of a shape expression, i64."),
    OpDef("const", (), ("result",), attrs=("value",), kind="scalar", doc="A scalar constant."),
    *(OpDef(row.name, tuple("abc"[: len(row.params)]), ("result",), kind="scalar", doc="A row of the scalar table.")
      for row in ROWS if not row.cuda_only),
)  # fmt: skip

DEFS: dict[str, OpDef] = {f"{NAME}.{op.name}": op for op in OPS}
ROOTS = frozenset(name for name, op in DEFS.items() if op.kind == "root")
CONTROL = frozenset(name for name, op in DEFS.items() if op.kind == "control")
VIEWS = frozenset(name for name, op in DEFS.items() if op.kind == "view")
SCALARS = frozenset(name for name, op in DEFS.items() if op.kind == "scalar")
_TERMINATORS = ("return", "yield")


@lru_cache(maxsize=1)
def _irdl_text() -> str:
    out = [f"irdl.dialect @{NAME} {{"]
    out.append('  irdl.attribute @dims { %0 = irdl.base "#builtin.array" irdl.parameters(expressions: %0) }')

    for op in OPS:
        out.append(f"  irdl.operation @{op.name} {{")
        # Operands and results each need a constraint of their own: one constraint is one type.
        body = []
        for kind, names in (("operands", op.operands), ("results", op.results)):
            if names and names[-1].startswith("+"):
                names = (*names[:-1], *(f"?{names[-1][1:]}_{i}" for i in range(SLOTS)))
            if names:
                constraints = [f"%{kind}{i}" for i in range(len(names))]
                body += [f"    {c} = irdl.any" for c in constraints]
                entries = []
                for n, c in zip(names, constraints, strict=True):
                    spelled = {"?": "optional ", "*": "variadic "}.get(n[0], "")
                    entries.append(f"{n.lstrip('?*')}: {spelled}{c}")
                body.append(f"    irdl.{kind}({', '.join(entries)})")
        if op.regions:
            body += [f"    %region{i} = irdl.region" for i in range(len(op.regions))]
            body.append(f"    irdl.regions({', '.join(f'{n}: %region{i}' for i, n in enumerate(op.regions))})")
        out += [*body, "  }"]
    return "\n".join([*out, "}"])


def load(*, verify: bool = True) -> None:
    """Load the dialect into the current context, once.

    Args:
        verify: check operations by `ingot.dialects.verifier` too, whose rules take most of the time that IR takes to parse.
    """
    context = ir.Context.current
    if context.is_dialect_loaded(NAME):
        return
    from ingot.dialects import verifier

    reserve_dialect_module(NAME)
    with ir.Location.unknown():
        irdl.load_dialects(ir.Module.parse(_irdl_text()))
    for name, op in DEFS.items():
        # Two equal `empty` are two pieces of memory: MLIR must not make one of them.
        if op.kind not in ("structure", "effect") and op.name != "empty":
            ext.Pure.attach(name)
        if verify:
            verifier.attach(name)
    for name in _TERMINATORS:
        ir.IsTerminatorTrait.attach(f"{NAME}.{name}")
    for name in (f"{NAME}.func", *CONTROL):
        ir.IsIsolatedFromAboveTrait.attach(name)


# Types ----------------------------------------------------------------------------------------------------------------


def tensor_type(dtype: str, shape: Sequence[Dim]) -> ir.RankedTensorType:
    """The tensor type of storage type `dtype` and sizes `shape`, in the current context."""
    expressions = [str(d) for d in shape if not isinstance(d, int)]
    sizes = "".join(f"{d}x" if isinstance(d, int) else "?x" for d in shape)
    encoding = ""
    if expressions:
        encoding = f", #{NAME}.dims<[{', '.join(f'{chr(34)}{e}{chr(34)}' for e in expressions)}]>"
    return ir.Type.parse(f"tensor<{sizes}{dtype}{encoding}>")


@lru_cache(maxsize=65536)
def _parse_type(text: str) -> tuple[str, tuple[Dim, ...]]:
    inner = text[len("tensor<") : -1]
    body, _, encoding = inner.partition(", ")
    *sizes, dtype = body.split("x")
    expressions: list[str] = []
    if encoding:
        if not encoding.startswith(f"#{NAME}.dims<[") or not encoding.endswith("]>"):
            raise ValueError(f"{text} has an encoding other than #{NAME}.dims")
        expressions = encoding[len(f"#{NAME}.dims<[") + 1 : -3].split('", "')
    if len(expressions) < sizes.count("?"):
        raise ValueError(f"{text} has a dynamic dimension without an expression in #{NAME}.dims")
    if len(expressions) > sizes.count("?"):
        raise ValueError(f"{text} has more expressions in #{NAME}.dims than dynamic dimensions")
    rest = iter(expressions)
    shape = tuple(dims.parse(next(rest)) if s == "?" else int(s) for s in sizes)
    return dtype, shape


def shape_of(value: ir.Value | ir.Type) -> tuple[Dim, ...]:
    """The sizes of a tensor value or type. Raises ValueError where a dynamic dimension has no expression."""
    return _parts(value)[1]


def dtype_of(value: ir.Value | ir.Type) -> str:
    """The storage type's name of a tensor value or type, or the name of a scalar type."""
    t = value if isinstance(value, ir.Type) else value.type
    text = type_text(t)
    return _parts(t)[0] if text.startswith("tensor<") else text


def _parts(value: ir.Value | ir.Type) -> tuple[str, tuple[Dim, ...]]:
    text = type_text(value if isinstance(value, ir.Type) else value.type)
    if not text.startswith("tensor<") or "*" in text.split(",")[0]:
        raise ValueError(f"{text} is not a ranked tensor type")
    return _parse_type(text)


def scalar_type(dtype: str) -> ir.Type:
    """The scalar type of a storage type, in the current context."""
    return ir.Type.parse(dtype)


# Building -------------------------------------------------------------------------------------------------------------


def create_control(
    name: str,
    operands: Sequence[ir.Value],
    result_types: Sequence[ir.Type],
    attrs: dict[str, ir.Attribute] | None = None,
    *,
    loc: ir.Location,
    ip: ir.InsertionPoint,
) -> ir.Operation:
    """Create the control operation `name` (without the dialect's prefix), whose regions are empty yet, at `ip`.

    Raises:
        ValueError: more operands or results than there are slots.
    """
    row = DEFS[f"{NAME}.{name}"]
    fixed = len(row.operands) - 1
    if len(operands) - fixed > SLOTS or len(result_types) > SLOTS:
        raise ValueError(f"{len(operands) - fixed} tensors in and {len(result_types)} out, the most are {SLOTS}")
    filled = {"operandSegmentSizes": len(operands), "resultSegmentSizes": len(result_types)}
    slots = {"operandSegmentSizes": fixed + SLOTS, "resultSegmentSizes": SLOTS}
    sizes = {n: ir.DenseI32ArrayAttr.get([1] * count + [0] * (slots[n] - count)) for n, count in filled.items()}
    return ir.Operation.create(
        f"{NAME}.{name}", results=list(result_types), operands=list(operands), attributes={**(attrs or {}), **sizes},
        regions=len(row.regions), loc=loc, ip=ip,
    )  # fmt: skip


# Walking --------------------------------------------------------------------------------------------------------------


def main_func(module: ir.Module | ir.Operation) -> ir.Operation:
    """The module's `ingot.func`. Raises ValueError where there is none."""
    body = module.body if isinstance(module, ir.Module) else module.regions[0].blocks[0]
    for op in body.operations:
        if op.operation.name == f"{NAME}.func":
            return op.operation
    raise ValueError("the module has no ingot.func: lower ONNX first (ingot-convert-onnx-to-ingot)")


def stages(module: ir.Module | ir.Operation) -> list[ir.Operation]:
    """The functions that run one after the other: the main one, and those that `ingot-split-stages` made of it."""
    body = module.body if isinstance(module, ir.Module) else module.regions[0].blocks[0]
    return [main_func(module), *(op.operation for op in body.operations if "ingot.stage" in op.operation.attributes)]


def find_func(module: ir.Module | ir.Operation, name: str) -> ir.Operation | None:
    """The module's `ingot.func` called `name`, or None."""
    body = module.body if isinstance(module, ir.Module) else module.regions[0].blocks[0]
    for op in body.operations:
        if op.operation.name == f"{NAME}.func" and op.operation.attributes["sym_name"].value == name:
            return op.operation
    return None


def loads(op: ir.Operation) -> list[ir.Operation]:
    """The `load` and `load_at` operations of a root's regions, in order."""
    return [
        inner.operation
        for region in op.regions
        for block in region.blocks
        for inner in block.operations
        if inner.operation.name in ("ingot.load", "ingot.load_at")
    ]


def inputs(op: ir.Operation) -> list[ir.Value]:
    """Every tensor that a dispatch reads: its operands, then those its regions load; each once."""
    out = list(op.operands)
    for inner in loads(op):
        tensor = inner.operands[0]
        if tensor not in out:
            out.append(tensor)
    return out


def blocks(func: ir.Operation) -> list[ir.Block]:
    """The body of a function, and the blocks of the control operations in it, inner ones first: those of an operation may be
    changed before the operation itself is erased."""
    found = [func.regions[0].blocks[0]]
    for block in found:
        for op in block.operations:
            if op.operation.name in CONTROL:
                found += [region.blocks[0] for region in op.operation.regions]
    return found[::-1]


def captured(op: ir.Operation) -> list[ir.Value]:
    """The operands of a control operation that the arguments of its regions stand for."""
    return list(op.operands)[len(DEFS[op.name].operands) - 1 :]


def carried(op: ir.Operation) -> int:
    """How many of the tensors that a control operation captures are an iteration's own: the first ones of a loop."""
    return int(op.attributes["carried"]) if op.name == f"{NAME}.loop" else 0


def region_results(region: ir.Region) -> list[ir.Operation]:
    """The `result` operations of a region of a control operation, in order."""
    return [op.operation for op in region.blocks[0].operations if op.operation.name == f"{NAME}.result"]
