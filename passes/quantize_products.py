"""Products of dequantized tensors become products of quantized ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from ingot import dims
from ingot.dialects import ingot as dialect
from ingot.dialects.layout import layout_of
from ingot.dialects.mlir import ir, operation_key
from ingot.dialects.plain import attribute, create_root, to_attribute
from ingot.dims import Dim
from ingot.dispatch import ScalarInst
from ingot.passes.pass_base import Pass, PassContext
from ingot.passes.recognize_attention import RecognizeAttention
from ingot.passes.rewriting import views
from ingot.passes.rewriting.dequantized import INTEGERS, Dequantized, Parameter, ZeroPoint, read_dequantized
from ingot.passes.rewriting.ops import Root, defining, erase_all_dead, operand_number, readers, replace_root, roots
from ingot.passes.rewriting.ops import replace as replace_op
from ingot.passes.rewriting.probabilities import read_probabilities
from ingot.passes.rewriting.scalar_regions import RegionBuilder, identity

_HALF_RANGE = {"i8": 128, "i4": 8}  # what an unsigned number exceeds the signed one of its bits, with the sign bit turned, by
# A register of bytes holds four neighbouring channels: with fewer, as in a first convolution over colours, every one is read by
# itself, which costs more than bytes save (an H200 takes 10 times as long as in 16 bits).
_LEAST_CHANNELS = 4
_PRODUCTS = ("ingot.matmul", "ingot.conv")
Shape = tuple[Dim, ...]


@dataclass(frozen=True, kw_only=True)
class QuantizeProducts(Pass):
    """Where matmuls and convolutions read dequantized tensors, let them read the quantized numbers, in one of these forms:

    - both operands with scales that are the same along all that is summed: a product of integers in i32, or of 8-bit floats in
      f32; its epilogue multiplies by the scales. Zero points are subtracted as sums: of a weight by the weights program, of an
      activation by a reduction. Unsigned integers become signed, by the operation that quantizes them where there is one.
      Weights of matmuls are made to lie along k. A convolution's padding is made explicit where 0 is not what it stands for.
    - both operands with scales of blocks along k: a scaled_matmul.
    - a float and a weight: the weight's scales, where they have blocks along k or it has zero points, are operands of the
      matmul, else of the epilogue.

    Whatever fits none stays a dequantization, as does a convolution over fewer than four channels, and as do the products of
    8-bit floats of an attention (`ingot-recognize-attention`), which multiplies floats. No form depends on a target.
    Runs after `ingot-layout` and before `ingot-fold-constants`, which would fold dequantized weights to floats. A zero point
    that is a weight of zeros is left out: a refitted engine keeps it 0.
    """

    name: ClassVar[str] = "ingot-quantize-products"

    def run(self, module: ir.Module, ctx: PassContext) -> None:
        for block in dialect.blocks(dialect.main_func(module)):
            erase_all_dead(block)
            rewriter = _Rewriter(ctx.weights)
            kept = {operation_key(op) for softmax in roots(block) for op in _attention_products(softmax, ctx.weights)}
            for op in [op for op in roots(block) if op.name in _PRODUCTS and operation_key(op) not in kept]:
                form = rewriter.matmul(Root.read(op)) if op.name == "ingot.matmul" else rewriter.conv(Root.read(op))
                if form is not None:
                    ctx.changed(form)
            rewriter.finish()
            erase_all_dead(block)


@dataclass
class _Rewriter:
    weights: Any
    signed: dict[ir.Value, ir.Value] = field(default_factory=dict)  # unsigned tensors -> the same numbers less half their range

    def finish(self) -> None:
        """Let what still reads unsigned activations read the signed ones."""
        for q, signed in self.signed.items():
            if not _is_constant(q):
                _read_signed(q, signed)

    # Which form ------------------------------------------------------------------------------------------------------

    def matmul(self, root: Root) -> str | None:
        """Rewrite a matmul; which form it has now, or None."""
        op = root.op
        if root.attr("acc") != "f32" or len(op.operands) != 2:
            return None
        a, b = (read_dequantized(x, op, self.weights) for x in op.operands)
        if b is None:
            return None
        if a is not None and _same_kind(a, b):
            if not any((a.blocks(-1), a.zero.blocks(-1), b.blocks(-2), b.zero.blocks(-2))):
                return self._uniform(root, a, b, (-1,), (-2,))
            if a.blocks(-1) > 1 and b.blocks(-2) > 1 and (form := self._scaled(root, a, b)) is not None:
                return form
        return self._weight_only(root, b) if _is_constant(b.q) else None

    def conv(self, root: Root) -> str | None:
        """Rewrite a convolution; which form it has now, or None."""
        op = root.op
        if root.attr("acc") != "f32":
            return None
        a, b = (read_dequantized(x, op, self.weights) for x in op.operands)
        if a is None or b is None or not _same_kind(a, b) or a.dtype == "f4E2M1FN":
            return None
        channels = dialect.shape_of(op.operands[0])[-1]
        if root.attr("groups") == 1 and isinstance(channels, int) and channels < _LEAST_CHANNELS:
            return None
        rank = len(dialect.shape_of(op.operands[0]))
        transposed = "transposed" in op.attributes
        outputs = rank - 1 if transposed else 0  # the axis of the weight that is not summed
        summed = tuple(i for i in range(rank) if i != outputs)
        if any(a.blocks(i) or a.zero.blocks(i) for i in range(1, rank)) or any(b.blocks(i) for i in summed):
            return None
        if not _signed_zero(b).is_zero or (transposed and b.blocks(outputs) and root.attr("groups") != 1):
            return None
        if transposed and not _signed_zero(a).is_zero:
            return None
        b = replace(b, scale=self._over_channels(b.scale, outputs, op))
        return self._uniform(root, a, b, tuple(range(1, rank)), summed)

    def _over_channels(self, p: Parameter, axis: int, before: ir.Operation) -> Parameter:
        """A weight's parameter along the last axis of a convolution's result."""
        size = dialect.shape_of(p.tensor)[axis]
        rank = len(p.blocks)
        return Parameter(views.reshape(p.tensor, (*(1,) * (rank - 1), size), before), (*(0,) * (rank - 1), p.blocks[axis]))

    # Both operands, scales in the epilogue ------------------------------------------------------------------------------

    def _uniform(self, root: Root, a: Dequantized, b: Dequantized, summed_a: Sequence[int], summed_b: Sequence[int]) -> str:
        op = root.op
        domain = dialect.shape_of(op.results[0])
        integers = a.dtype in INTEGERS
        a, b = (self._signed(x, op) for x in (a, b))
        qa, qb = (self._bytes(x.q, op) for x in (a, b))
        if root.name == "matmul" and _is_constant(qb):
            qb = _along_k(qb, op)
        attrs = {n: op.attributes[n] for n in op.attributes if n != "tf32"}
        if integers:
            attrs["acc"] = to_attribute("i32")
        if root.name == "conv" and not a.zero.is_zero and any(root.attr("pads")):
            qa = _padded(qa, root.attr("pads"), a.zero, op)
            attrs["pads"] = to_attribute((0,) * len(root.attr("pads")))
        tensors = [qa, qb]
        builder = RegionBuilder(("i32" if integers else "f32",))
        total = 0
        if not a.zero.is_zero:
            total = builder.emit("subi", total, self._correction(builder, tensors, root, a, b, summed_b))
        if not b.zero.is_zero:
            rows = _sum(qa, summed_a, op)
            zero = _load_zero(builder, tensors, b.zero)
            total = builder.emit("subi", total, builder.emit("muli", zero, _load(builder, tensors, rows)))
        value = builder.emit("sitofp", total, type="f32") if integers else total
        value = self._scaled_value(builder, tensors, value, [a.scale, b.scale, a.outer, b.outer], op)
        self._finish(root, builder, value, tensors, [qa, qb], attrs, domain)
        return "integers" if integers else "8-bit floats"

    def _correction(
        self, builder: RegionBuilder, tensors: list[ir.Value], root: Root, a: Dequantized, b: Dequantized, summed: Sequence[int]
    ) -> int:
        """a's zero point times the sum over b less b's zero point, which is the sum of what b contributes to it."""
        op = root.op
        qb = tensors[1]
        sums = _sum(qb, summed, op)
        count = dims.product(dialect.shape_of(qb)[i] for i in summed)
        if root.name == "conv":
            sums = views.reshape(sums, (*(1,) * (len(summed)), dims.product(dialect.shape_of(sums))), op)

        def contributed(r: RegionBuilder, own: list[ir.Value]) -> int:
            found = _load(r, own, sums)
            if not b.zero.is_zero:
                size = r.emit("trunci", r.emit("dim", type="i64", dim=str(count)), type="i32")
                found = r.emit("subi", found, r.emit("muli", _load_zero(r, own, b.zero), size))
            return found

        # A zero point that is one constant is multiplied into the sums: of a weight's, by the weights program.
        zero = a.zero.parameter
        if zero is None or (zero.is_uniform and _is_constant(zero.tensor)):
            flat = a.zero if zero is None else replace(a.zero, parameter=Parameter(views.reshape(zero.tensor, (1,), op), (0,)))
            product = _pointwise(
                "i32", dialect.shape_of(sums), op, lambda r, own: r.emit("muli", contributed(r, own), _load_zero(r, own, flat))
            )
            return _load(builder, tensors, product)
        shared = _pointwise("i32", dialect.shape_of(sums), op, contributed)
        return builder.emit("muli", _load(builder, tensors, shared), _load_zero(builder, tensors, a.zero))

    def _scaled_value(
        self, builder: RegionBuilder, tensors: list[ir.Value], value: int, scales: Sequence[Parameter | None], op: ir.Operation
    ) -> int:
        """A value times scales over the result's domain; constants of one number are multiplied into another constant first."""
        factors: list[ir.Value] = []
        constant: list[ir.Value] = []
        for p in sorted((p for p in scales if p is not None), key=lambda p: p.is_uniform):
            (constant if _is_constant(p.tensor) and (p.is_uniform or not constant) else factors).append(p.tensor)
        if len(constant) > 1:
            constant = [_product(constant, op)]
        for tensor in (*constant, *factors):
            value = builder.emit("mulf", value, _load_f32(builder, tensors, tensor))
        return value

    # Scales as operands -------------------------------------------------------------------------------------------------

    def _scaled(self, root: Root, a: Dequantized, b: Dequantized) -> str | None:
        """Both operands with scales for blocks along k."""
        op = root.op
        a, b = (self._signed(x, op) for x in (a, b))
        if not (a.zero.is_zero and b.zero.is_zero):
            return None
        shape_a, shape_b = dialect.shape_of(a.q), dialect.shape_of(b.q)
        blocks = [dialect.shape_of(a.scale.tensor)[-1], dialect.shape_of(b.scale.tensor)[-2]]
        scale_a = views.expand(a.scale.tensor, (*shape_a[:-1], blocks[0]), op)
        scale_b = views.expand(b.scale.tensor, (*shape_b[:-2], blocks[1], shape_b[-1]), op)
        attrs = {n: op.attributes[n] for n in op.attributes if n != "tf32"}
        attrs |= {"a_block": to_attribute(a.blocks(-1)), "b_block": to_attribute(b.blocks(-2))}
        operands = [a.q, b.q, scale_a, scale_b]
        builder, tensors = RegionBuilder(("f32",)), list(operands)
        outer = [p for p in (a.outer, b.outer) if p is not None]
        value = self._scaled_value(builder, tensors, 0, outer, op) if outer else 0
        self._finish(root, builder, value, tensors, operands, attrs, dialect.shape_of(op.results[0]), "scaled_matmul")
        return "scaled"

    def _weight_only(self, root: Root, b: Dequantized) -> str | None:
        """A float and a quantized weight."""
        op = root.op
        if b.blocks(-2) == 1 or b.zero.blocks(-2) not in (0, b.blocks(-2)):
            return None
        b = self._signed(b, op)
        a = op.operands[0]
        attrs = {n: op.attributes[n] for n in op.attributes if n != "tf32"}
        operands, scales = [a, b.q], [p for p in (b.outer,) if p is not None]
        if b.blocks(-2) or not b.zero.is_zero:
            attrs["b_block"] = to_attribute(b.blocks(-2))
            scale = b.scale.tensor
            if not b.zero.is_zero and dialect.dtype_of(scale).startswith("f8"):
                scale = _product([scale], op)  # which holds zero points
            shape = dialect.shape_of(b.q)
            whole = (*shape[:-2], dialect.shape_of(b.scale.tensor)[-2], shape[-1])
            operands.append(views.expand(scale, whole, op))
            if not b.zero.is_zero:
                attrs["b_zero"] = ir.UnitAttr.get()
                operands.append(views.expand(_float_zero(b.zero, dialect.dtype_of(scale), len(shape), op), whole, op))
        else:
            scales.insert(0, b.scale)
        builder, tensors = RegionBuilder(("f32",)), list(operands)
        value = self._scaled_value(builder, tensors, 0, scales, op) if scales else 0
        self._finish(root, builder, value, tensors, operands, attrs, dialect.shape_of(op.results[0]))
        return "weights"

    # Parts ----------------------------------------------------------------------------------------------------------------

    def _finish(
        self, root: Root, builder: RegionBuilder, value: int, tensors: list[ir.Value], operands: Sequence[ir.Value],
        attrs: dict[str, ir.Attribute], domain: Shape, name: str | None = None,
    ) -> None:  # fmt: skip
        """Replace a product by one whose epilogue makes `value` of its accumulator before it does what it did."""
        own = len(root.op.operands)
        numbers = {i: operand_number(tensors, t) for i, t in enumerate(root.tensors) if i >= own}
        results = builder.inline(root.regions[-1], [value], operands=numbers)
        new = replace_root(
            root, name=name, operands=operands, attrs=attrs, regions=[builder.finish(results)], tensors=tensors
        )
        replace_op(root.op, new.results)

    def _signed(self, x: Dequantized, before: ir.Operation) -> Dequantized:
        """The same numbers as signed integers."""
        if not x.unsigned:
            return x
        return replace(x, q=self._as_signed(x.q, before), unsigned=False, zero=_signed_zero(x))

    def _as_signed(self, q: ir.Value, before: ir.Operation) -> ir.Value:
        """Unsigned integers less half their range."""
        chain: list[views.View] = []
        while (op := defining(q)) is not None and op.name in dialect.VIEWS:
            chain.insert(0, views.read(op))
            q = op.operands[0]
        found = self.signed.get(q)
        if found is None:
            found = self.signed[q] = _less_half(q, before)
        for view in chain:
            found = views.make(replace(view, x=found), before)
        return found

    def _bytes(self, q: ir.Value, before: ir.Operation) -> ir.Value:
        """Integers of 4 bits as those of 8."""
        if dialect.dtype_of(q) != "i4":
            return q
        return _pointwise("i8", dialect.shape_of(q), before, lambda r, own: r.emit("extsi", _load(r, own, q), type="i8"))


def _attention_products(softmax: ir.Operation, weights: Any) -> list[ir.Operation]:
    """The products before and after a softmax that will be one attention, whose probabilities are rounded to 8-bit floats."""
    if softmax.name != "ingot.normalize" or attribute(softmax.attributes["kind"]) != "softmax":
        return []
    found = read_probabilities(Root.read(softmax), weights)
    if found is None or not found.rounded or found.reader.name != "ingot.matmul":
        return []
    if found.reader.operands[0] != found.tensor or found.reader.operands[1] == found.tensor:
        return []
    product = _scored(softmax.operands[0])
    depths = [] if product is None else [dialect.shape_of(x)[-1] for x in (product.operands[0], found.reader.operands[1])]
    if product is None or not all(isinstance(d, int) and d <= RecognizeAttention().max_head for d in depths):
        return []
    return [product, found.reader]


def _scored(x: ir.Value) -> ir.Operation | None:
    """The matmul of which pointwise operations make x, element by element."""
    op = defining(x)
    if op is None or len(op.results) != 1 or len(readers(x)) != 1:
        return None
    if op.name == "ingot.pointwise":
        made = [_scored(t) for t in Root.read(op).tensors if dialect.shape_of(t) == dialect.shape_of(x)]
        return next((m for m in made if m is not None), None)
    return op if op.name == "ingot.matmul" and not any(map(_is_constant, op.operands)) else None


def _same_kind(a: Dequantized, b: Dequantized) -> bool:
    """True where one instruction may multiply the elements."""
    return a.dtype == b.dtype or (a.dtype in INTEGERS and b.dtype in INTEGERS)


def _signed_zero(x: Dequantized) -> ZeroPoint:
    """The zero point of x made signed."""
    return replace(x.zero, offset=x.zero.offset - _HALF_RANGE[x.dtype]) if x.unsigned else x.zero


def _is_constant(value: ir.Value) -> bool:
    """True where a value is made of weights alone."""
    op = defining(value)
    if op is None or op.name == "ingot.empty":
        return False
    if op.name == "ingot.weight":
        return True
    return (op.name in dialect.VIEWS or op.name == "ingot.pointwise") and all(map(_is_constant, dialect.inputs(op)))


# Operations and parts of regions ----------------------------------------------------------------------------------------


def _pointwise(
    dtype: str, shape: Sequence[Dim], before: ir.Operation, body: Callable[[RegionBuilder, list[ir.Value]], int]
) -> ir.Value:
    """A pointwise operation before `before`; `body` adds what it loads to the list that it is given."""
    builder = RegionBuilder()
    tensors: list[ir.Value] = []
    region = builder.finish([body(builder, tensors)])
    type_ = dialect.tensor_type(dtype, shape)
    ip = ir.InsertionPoint(before)
    return create_root("pointwise", [], [type_], {}, [region], tensors, loc=before.location, ip=ip).results[0]


def _load(builder: RegionBuilder, tensors: list[ir.Value], tensor: ir.Value) -> int:
    return builder.emit("load", type=dialect.dtype_of(tensor), operand=operand_number(tensors, tensor))


def _load_f32(builder: RegionBuilder, tensors: list[ir.Value], tensor: ir.Value) -> int:
    return builder.emit("extf", _load(builder, tensors, tensor), type="f32")


def _load_zero(builder: RegionBuilder, tensors: list[ir.Value], zero: ZeroPoint) -> int:
    """A zero point in i32."""
    offset = builder.const(zero.offset, "i32")
    if zero.parameter is None:
        return offset
    element = _load(builder, tensors, zero.parameter.tensor)
    return builder.emit("addi", builder.emit("extui" if zero.unsigned else "extsi", element, type="i32"), offset)


def _float_zero(zero: ZeroPoint, dtype: str, rank: int, before: ir.Operation) -> ir.Value:
    """Zero points as a tensor of a float type."""
    shape = dialect.shape_of(zero.parameter.tensor) if zero.parameter else (1,) * rank

    def body(r: RegionBuilder, own: list[ir.Value]) -> int:
        number = r.emit("sitofp", _load_zero(r, own, zero), type="f32")
        return number if dtype == "f32" else r.emit("truncf", number, type=dtype)

    return _pointwise(dtype, shape, before, body)


def _product(tensors: Sequence[ir.Value], before: ir.Operation) -> ir.Value:
    """The f32 product of tensors, elementwise; all but the first have one element."""

    def body(r: RegionBuilder, own: list[ir.Value]) -> int:
        value = _load_f32(r, own, tensors[0])
        for tensor in tensors[1:]:
            value = r.emit("mulf", value, _load_f32(r, own, views.reshape(tensor, (1,), before)))
        return value

    return _pointwise("f32", dialect.shape_of(tensors[0]), before, body)


def _along_k(b: ir.Value, before: ir.Operation) -> ir.Value:
    """A weight [..., k, n] of 8-bit elements with neighbours along k next to each other, as instructions take them: a copy
    where it does not lie so."""
    found = layout_of(b)
    if found is not None and found[1].strides[-2] == 1:
        return b
    rank = len(dialect.shape_of(b))
    perm = (*range(rank - 2), rank - 1, rank - 2)
    turned = views.transpose(b, perm, before)
    copy = create_root("move", [turned], [turned.type], {}, [identity(dialect.dtype_of(b))], [turned],
                       loc=before.location, ip=ir.InsertionPoint(before)).results[0]  # fmt: skip
    return views.transpose(copy, perm, before)


def _sum(x: ir.Value, axes: Sequence[int], before: ir.Operation) -> ir.Value:
    """The i32 sum of integers over axes, which keep size 1."""
    shape = list(dialect.shape_of(x))
    axes = [a % len(shape) for a in axes]
    for a in axes:
        shape[a] = 1
    element = RegionBuilder((dialect.dtype_of(x),))
    wide = element.finish([element.emit("extsi", 0, type="i32")])
    attrs = {"axes": to_attribute(tuple(sorted(axes))), "kind": to_attribute("sum")}
    return create_root("reduce", [x], [dialect.tensor_type("i32", shape)], attrs, [wide, identity("i32")], [x],
                       loc=before.location, ip=ir.InsertionPoint(before)).results[0]  # fmt: skip


def _padded(x: ir.Value, pads: Sequence[int], zero: ZeroPoint, before: ir.Operation) -> ir.Value:
    """x [N, spatial..., C] with its spatial axes padded by a zero point."""
    shape = dialect.shape_of(x)
    spatial = len(pads) // 2
    whole = [*shape]
    for i in range(spatial):
        whole[1 + i] = shape[1 + i] + pads[i] + pads[spatial + i]

    def body(r: RegionBuilder, own: list[ir.Value]) -> int:
        operand_number(own, x)
        inside: int | None = None
        indices = []
        low = r.const(0, "i64")
        for axis, size in enumerate(shape):
            at = r.emit("index", type="i64", axis=axis)
            if 1 <= axis <= spatial and whole[axis] != size:
                at = r.emit("subi", at, r.const(pads[axis - 1], "i64"))
                end = r.emit("dim", type="i64", dim=str(size))
                fits = r.emit("andi", r.emit("cmpi_sge", at, low), r.emit("cmpi_slt", at, end))
                inside = fits if inside is None else r.emit("andi", inside, fits)
                last = r.emit("subi", end, r.const(1, "i64"))
                at = r.emit("maxsi", r.emit("minsi", at, last), low)
            indices.append(at)
        element = r.emit("load_at", *indices, type="i8", operand=0)
        outside = r.emit("trunci", _load_zero(r, own, zero), type="i8")
        return element if inside is None else r.emit("select", inside, element, outside)

    return _pointwise("i8", whole, before, body)


def _less_half(q: ir.Value, before: ir.Operation) -> ir.Value:
    """Unsigned integers less half their range, as signed ones, made right after q."""
    dtype = dialect.dtype_of(q)
    owner = defining(q)
    if owner is None:
        ip, loc = ir.InsertionPoint.at_block_begin(q.owner), before.location
    else:
        ip, loc = ir.InsertionPoint.after(owner), owner.location
    builder = RegionBuilder()
    number = builder.emit("extui", builder.emit("load", type=dtype, operand=0), type="i32")
    less = builder.emit("subi", number, builder.const(_HALF_RANGE[dtype], "i32"))
    region = builder.finish([builder.emit("trunci", less, type=dtype)])
    return create_root("pointwise", [], [q.type], {}, [region], [q], loc=loc, ip=ip).results[0]


def _read_signed(q: ir.Value, signed: ir.Value) -> None:
    """Let the pointwise operations that read q read `signed` and add what it lacks: what makes q then makes `signed` alone."""
    half = _HALF_RANGE[dialect.dtype_of(q)]
    maker = defining(signed)
    for op in readers(q):
        if op.name != "ingot.pointwise" or op == maker:
            continue
        root = Root.read(op)
        tensors = list(root.tensors)
        changed: dict[int, int] = {}
        for number, tensor in enumerate(root.tensors):
            moved = _same_view(tensor, q, signed, op)
            if moved is not None:
                changed[number] = operand_number(tensors, moved)
        (region,) = root.regions
        builder = RegionBuilder()

        def restored(inst: ScalarInst, args: tuple[int, ...], b: RegionBuilder = builder, new: dict = changed) -> int | None:
            if inst.op not in ("load", "load_at") or inst.attr("operand") not in new:
                return None
            element = b.emit(inst.op, *args, type=inst.type, operand=new[inst.attr("operand")])
            number = b.emit("addi", b.emit("extsi", element, type="i32"), b.const(half, "i32"))
            return b.emit("trunci", number, type=inst.type)

        results = builder.inline(region, replace=restored)
        new = replace_root(root, regions=[builder.finish(results)], tensors=tensors)
        replace_op(op, new.results)


def _same_view(tensor: ir.Value, q: ir.Value, other: ir.Value, before: ir.Operation) -> ir.Value | None:
    """Where a tensor is a view of q, the same view of another tensor."""
    chain: list[views.View] = []
    while tensor != q:
        op = defining(tensor)
        if op is None or op.name not in dialect.VIEWS:
            return None
        chain.insert(0, views.read(op))
        tensor = op.operands[0]
    for view in chain:
        other = views.make(replace(view, x=other), before)
    return other
