"""Dispatches that the tests and the benchmark of CUDA kernels share: one constructor a family, and random operands for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ingot import dims
from ingot.dispatch import Dispatch, ScalarInst, ScalarRegion, TensorArg, contiguous
from ingot.dtypes import DTYPES

Size = int | str


class Region:
    """A scalar region being written: each method adds an instruction and returns its value's number."""

    def __init__(self, *args: str) -> None:
        self.args, self.insts = args, []  # type: tuple[str, ...], list[ScalarInst]

    def add(self, op: str, *operands: int, type: str = "f32", **attrs: object) -> int:
        self.insts.append(ScalarInst(op, operands, type, tuple(sorted(attrs.items()))))  # type: ignore[arg-type]
        return len(self.args) + len(self.insts) - 1

    def wide(self, value: int, dtype: str) -> int:
        """`value` of a storage type in the type that regions compute in."""
        return value if dtype in ("f32", "f64", "i32") else self.add("extf", value)

    def load(self, operand: int, dtype: str) -> int:
        return self.wide(self.add("load", type=dtype, operand=operand), dtype)

    def narrow(self, value: int, dtype: str) -> int:
        return value if dtype in ("f32", "f64", "i32") else self.add("truncf", value, type=dtype)

    def end(self, *values: int) -> ScalarRegion:
        return ScalarRegion(self.args, tuple(self.insts), values)


def widen(dtype: str) -> ScalarRegion:
    """A map region: an element of storage type `dtype` in f32."""
    r = Region(dtype)
    return r.end(r.wide(0, dtype))


def narrow(dtype: str, acc: str = "f32") -> ScalarRegion:
    """An epilogue region: an accumulator rounded to `dtype`."""
    r = Region(acc)
    return r.end(r.narrow(0, dtype))


def rescaled(acc: str, out: str, scale: int) -> ScalarRegion:
    """An epilogue region: an accumulator times a scale, rounded to the nearest number of `out`."""
    r = Region(acc)
    x = r.add("mulf", 0 if acc == "f32" else r.add("sitofp", 0), r.load(scale, "f32"))
    if out != "i8":
        return r.end(r.narrow(x, out))
    x = r.add("maxf", r.add("roundeven", x), r.add("const", value=-128.0))
    return r.end(r.add("fptosi", r.add("minf", x, r.add("const", value=127.0)), type="i8"))


def quantized_in_epilogue(d: Dispatch, out: str = "i8") -> Dispatch:
    """A product or convolution with one scale a column, whose results are of type `out`."""
    (result,) = d.results
    scale = contiguous("f32", result.shape[-1])
    region = rescaled(str(d.attr("acc")), out, len(d.operands))
    return replace(d, operands=(*d.operands, scale), results=(replace(result, dtype=out),), regions=(region,))


def bias_gelu(dtype: str, bias: int) -> ScalarRegion:
    """An epilogue region: gelu(acc + bias) with erf."""
    r = Region("f32")
    x = r.add("addf", 0, r.load(bias, dtype))
    e = r.add("erf", r.add("mulf", x, r.add("const", value=0.70710678)))
    half = r.add("mulf", x, r.add("const", value=0.5))
    return r.end(r.narrow(r.add("mulf", half, r.add("addf", e, r.add("const", value=1.0))), dtype))


def symbols_of(*tensors: TensorArg) -> tuple[str, ...]:
    """Names of the sizes that tensors depend on, sorted."""
    return tuple(sorted(dims.symbols_of(d for t in tensors for d in (*t.shape, *t.strides))))


def make(
    root: str, operands: Sequence[TensorArg], results: Sequence[TensorArg], regions: Sequence[ScalarRegion],
    attrs: Mapping[str, object] | None = None, multiples: Mapping[str, int] | None = None,
) -> Dispatch:
    """A dispatch with its symbols found; `multiples` gives what is known to divide them."""
    names = symbols_of(*operands, *results)
    known = tuple((multiples or {}).get(n, 1) for n in names)
    return Dispatch(
        root, tuple(operands), tuple(results), tuple(sorted((attrs or {}).items())), tuple(regions), names, known
    )  # type: ignore[arg-type]


def swapped(t: TensorArg) -> TensorArg:
    """A tensor of the same shape whose last axis but one is the contiguous one."""
    *lead, a, b = t.shape
    strides = dims.row_major((*lead, b, a))
    return TensorArg(t.dtype, t.shape, (*strides[:-2], strides[-1], strides[-2]), t.align)


def matmul(
    m: Size, n: Size, k: Size, dtype: str = "bf16", *, batch: Sequence[Size] = (), out: str = "", acc: str = "f32",
    a_transposed: bool = False, b_transposed: bool = False, region: ScalarRegion | None = None, bias: bool = False,
    tf32: bool = False, multiples: Mapping[str, int] | None = None, b_batch: bool = True, fast_accumulation: bool = False,
) -> Dispatch:
    """C = A * B (+ bias and gelu); `a_transposed`: A lies M-major, `b_transposed`: B lies K-major."""
    out = out or (dtype if not dtype.startswith(("f8", "i8")) else "i32" if dtype == "i8" else "bf16")
    a = contiguous(dtype, *batch, m, k)
    b = contiguous(dtype, *(batch if b_batch else ()), k, n)
    operands = [swapped(a) if a_transposed else a, swapped(b) if b_transposed else b]
    if bias:
        operands.append(contiguous(out, n))
        region = bias_gelu(out, 2)
    attrs: dict[str, object] = {"acc": acc}
    attrs |= {name: True for name, on in (("tf32", tf32), ("fast_accumulation", fast_accumulation)) if on}
    result = contiguous(out, *batch, m, n)
    return make("matmul", operands, [result], [region or narrow(out, acc)], attrs, multiples)


def quantized_matmul(
    m: Size, n: Size, k: Size, a: str = "f16", b: str = "i4", *, scale: str = "", a_scale: str = "", block: int = 0,
    zero: bool = False, b_transposed: bool = True, a_transposed: bool = False, unsigned: bool = False, out: str = "f32",
    batch: Sequence[Size] = (), multiples: Mapping[str, int] | None = None,
) -> Dispatch:
    """C = A * B of types `a` and `b`, with scales of types `a_scale` and `scale` for every `block` k (0: one for all of k)."""
    x, y = contiguous(a, *batch, m, k), contiguous(b, *batch, k, n)
    operands = [swapped(x) if a_transposed else x, swapped(y) if b_transposed else y]
    count = dims.ceildiv(dims.as_dim(k), block) if block else 1
    attrs: dict[str, object] = {"acc": "f32"}
    if a_scale:
        attrs["a_block"] = block
        operands.append(contiguous(a_scale, *batch, m, count))
    if scale:
        attrs["b_block"] = block
        s = contiguous(scale, *batch, count, n)
        operands.append(swapped(s) if b_transposed else s)
    if zero:
        attrs["b_zero"] = True
        z = contiguous(b, *batch, count, n)
        operands.append(swapped(z) if b_transposed else z)
    if unsigned:
        attrs["b_unsigned"] = True
    return make("matmul", operands, [contiguous(out, *batch, m, n)], [narrow(out)], attrs, multiples)


def packed(d: Dispatch) -> Dispatch:
    """A matmul whose b, of columns that are contiguous, lies in packed order."""
    return replace(d, attrs=tuple(sorted((*d.attrs, ("b_packed", True)))))


def scales_by_columns(d: Dispatch) -> Dispatch:
    """A quantized matmul whose scales and zero points of neighbouring columns are neighbours in memory."""
    beside = (contiguous(t.dtype, *t.shape) for t in d.operands[2:])
    return replace(d, operands=(*d.operands[:2], *beside))


def pointwise_add_gelu(*shape: Size, dtype: str = "bf16", multiples: Mapping[str, int] | None = None) -> Dispatch:
    """gelu(x + y) of two tensors."""
    r = Region()
    x = r.add("addf", r.load(0, dtype), r.load(1, dtype))
    e = r.add("erf", r.add("mulf", x, r.add("const", value=0.70710678)))
    half = r.add("mulf", x, r.add("const", value=0.5))
    region = r.end(r.narrow(r.add("mulf", half, r.add("addf", e, r.add("const", value=1.0))), dtype))
    t = contiguous(dtype, *shape)
    return make("pointwise", [t, t], [t], [region], {}, multiples)


def pointwise_cast(name: str, source: str, result: str, *shape: Size) -> Dispatch:
    """A cast, one of the scalar table's."""
    r = Region()
    region = r.end(r.add(name, r.add("load", type=source, operand=0), type=result))
    return make("pointwise", [contiguous(source, *shape)], [contiguous(result, *shape)], [region])


def pointwise_requantize(*shape: Size, dtype: str = "f4E2M1FN") -> Dispatch:
    """Elements of a small float times one of f32 for each column, on the same grid again."""
    r = Region()
    value = r.add("mulf", r.add("extf", r.add("load", type=dtype, operand=0)), r.add("load", operand=1))
    region = r.end(r.add("truncf", value, type=dtype))
    t = contiguous(dtype, *shape)
    return make("pointwise", [t, contiguous("f32", shape[-1])], [t], [region])


def pointwise_add_relu(
    *shape: Size, dtype: str = "bf16", other: Sequence[Size] | None = None, multiples: Mapping[str, int] | None = None
) -> Dispatch:
    """relu(x + y), where y of shape `other` is broadcast."""
    r = Region()
    x = r.add("addf", r.load(0, dtype), r.load(1, dtype))
    region = r.end(r.narrow(r.add("maxf", x, r.add("const", value=0.0)), dtype))
    t = contiguous(dtype, *shape)
    y = contiguous(dtype, *other) if other is not None else t
    return make("pointwise", [t, y], [t], [region], {}, multiples)


def normalize(
    kind: str, *shape: Size, axes: Sequence[int] = (-1,), dtype: str = "bf16", affine: bool = False,
    multiples: Mapping[str, int] | None = None,
) -> Dispatch:
    """A normalization of a contiguous tensor; `affine` multiplies by and adds vectors along the last axis."""
    t = contiguous(dtype, *shape)
    operands, r = [t], Region("f64" if dtype == "f64" else "f32")
    y = 0
    if affine:
        vector = contiguous(dtype, shape[-1])
        operands += [vector, vector]
        y = r.add("addf", r.add("mulf", 0, r.load(1, dtype)), r.load(2, dtype))
    rank = len(shape)
    attrs = {"kind": kind, "axes": tuple(a % rank for a in axes), "epsilon": 1e-5}
    return make("normalize", operands, [t], [widen(dtype), r.end(r.narrow(y, dtype))], attrs, multiples)


def group_norm_silu(n: Size, positions: Size, groups: int, per_group: int, dtype: str = "f16") -> Dispatch:
    """A group normalization of a channels-last image as a UNet has it: a scale and a shift of each channel, then SiLU."""
    x, channels = contiguous(dtype, n, positions, groups, per_group), contiguous("f32", groups, per_group)
    r = Region("f32")
    y = r.add("addf", r.add("mulf", 0, r.load(1, "f32")), r.load(2, "f32"))
    y = r.add("mulf", y, r.add("sigmoid", y))
    attrs = {"kind": "layer", "axes": (1, 3), "epsilon": 1e-5}
    return make("normalize", [x, channels, channels], [x], [widen(dtype), r.end(r.narrow(y, dtype))], attrs)


def rotary(
    *shape: Size, interleaved: bool, norm: bool, dtype: str = "f16", angles: str = "", shared: bool = False,
    multiples: Mapping[str, int] | None = None,
) -> Dispatch:
    """A rotary embedding of x [..., D], after an RMS normalization over D with a weight where `norm`, as `ingot-fuse` makes it:
    D is [D/2, 2] or [2, D/2], and partners are x with the pairs' axis backwards. cos and sin [rows, D] are of type `angles`;
    `shared`: they are [rows, D/2], read by both of a pair."""
    *lead, size = (dims.as_dim(d) for d in shape)
    assert isinstance(size, int)
    pairs = (size // 2, 2) if interleaved else (2, size // 2)
    domain = (*lead, *pairs)
    x = contiguous(dtype, *domain)
    place = len(domain) - (1 if interleaved else 2)
    flipped = replace(x, strides=tuple(-s if i == place else s for i, s in enumerate(x.strides)))
    table = contiguous(angles or dtype, *domain[1:])
    if shared:
        table = contiguous(angles or dtype, *(1 if i == place - 1 else n for i, n in enumerate(domain[1:])))
    weight = contiguous("f32", *pairs)
    turned = replace(weight, strides=tuple(-s if i == place - len(lead) else s for i, s in enumerate(weight.strides)))
    operands = [x, flipped, table, table, *([weight, turned] if norm else [])]
    r = Region("f32", "f32") if norm else Region()
    own, other = r.load(0, dtype) if not norm else 0, r.load(1, dtype)
    if norm:
        own = r.add("mulf", own, r.load(4, "f32"))
        other = r.add("mulf", r.add("mulf", other, 1), r.load(5, "f32"))
    zero = r.add("const", type="i64", value=0)
    is_first = r.add("cmpi_eq", r.add("index", type="i64", axis=place), zero, type="i1")
    other = r.add("select", is_first, r.add("negf", other), other)
    y = r.add("addf", r.add("mulf", own, r.load(2, table.dtype)), r.add("mulf", other, r.load(3, table.dtype)))
    last = r.end(r.narrow(y, dtype))
    if not norm:
        return make("pointwise", operands, [x], [last], {}, multiples)
    attrs = {"kind": "rms", "axes": (len(lead), len(lead) + 1), "epsilon": 1e-6}
    return make("normalize", operands, [x], [widen(dtype), last], attrs, multiples)


def move(
    shape: Sequence[Size], perm: Sequence[int], dtype: str = "f16", *, multiples: Mapping[str, int] | None = None
) -> Dispatch:
    """A transpose made contiguous: axis i of the result is axis perm[i] of a contiguous tensor."""
    t = contiguous(dtype, *shape)
    x = TensorArg(dtype, tuple(t.shape[i] for i in perm), tuple(t.strides[i] for i in perm), t.align)
    return make("move", [x], [contiguous(dtype, *x.shape)], [ScalarRegion((dtype,), (), (0,))], {}, multiples)


def append(heads: int, count: int, size: int, capacity: int, dtype: str = "f16") -> Dispatch:
    """`count` new rows for each head of a cache, which begin `offset` bytes behind its address."""
    x = TensorArg(dtype, (heads, count, size), (size, heads * size, 1))
    y = TensorArg(dtype, (heads, count, size), (capacity * size, size, 1), 16)
    d = make("move", [x], [y], [ScalarRegion((dtype,), (), (0,))])
    offset = dims.symbol("offset")
    return replace(d, symbols=("offset",), multiples=(size * x.type.bytes,), offsets=(("result", 0, offset),))


def reduce(
    kind: str, shape: Sequence[Size], axes: Sequence[int], dtype: str = "f32", *, multiples: Mapping[str, int] | None = None
) -> Dispatch:
    """A reduction with kept axes of size 1; 16-bit floats are reduced in f32."""
    acc = "f32" if dtype in ("f16", "bf16") else dtype
    out = [1 if i in axes else n for i, n in enumerate(shape)]
    attrs = {"kind": kind, "axes": tuple(axes)}
    operand, result = contiguous(dtype, *shape), contiguous(dtype, *out)
    region = widen(dtype) if acc == "f32" else ScalarRegion((dtype,), (), (0,))
    finish = narrow(dtype) if acc == "f32" else ScalarRegion((acc,), (), (0,))
    return make("reduce", [operand], [result], [region, finish], attrs, multiples)


def pool(
    kind: str, shape: Sequence[Size], out: Sequence[Size], kernel: Sequence[int], strides: Sequence[int], pads: Sequence[int],
    dtype: str = "f16", *, include_pad: bool = False, multiples: Mapping[str, int] | None = None,
) -> Dispatch:
    """Pooling, channels last: `shape` and `out` are of the operand and the result."""
    attrs: dict[str, object] = {
        "kind": kind, "kernel": tuple(kernel), "strides": tuple(strides), "dilations": (1,) * len(kernel), "pads": tuple(pads),
    }  # fmt: skip
    if include_pad:
        attrs["count_include_pad"] = True
    acc = "f32"
    return make("pool", [contiguous(dtype, *shape)], [contiguous(dtype, *out)], [narrow(dtype, acc)], attrs, multiples)


def conv(
    n: Size, size: Sequence[Size], channels: int, outputs: int, kernel: Sequence[int], *, strides: Sequence[int] = (),
    dilations: Sequence[int] = (), pads: Sequence[int] = (), groups: int = 1, dtype: str = "f16", acc: str = "f32",
    out: str = "", transposed: bool = False, bias: bool = False, tf32: bool = False, region: ScalarRegion | None = None,
    multiples: Mapping[str, int] | None = None,
) -> Dispatch:
    """A convolution of a contiguous channels-last tensor [n, size..., channels] (+ bias and gelu); pads default to 0."""
    rank, out = len(kernel), out or dtype
    strides, dilations = tuple(strides) or (1,) * rank, tuple(dilations) or (1,) * rank
    pads = tuple(pads) or (0,) * (2 * rank)
    x = contiguous(dtype, n, *size, channels)
    reach = [(t - 1) * d + 1 for t, d in zip(kernel, dilations, strict=True)]
    around = [a + b for a, b in zip(pads[:rank], pads[rank:], strict=True)]
    if transposed:
        w = contiguous(dtype, channels, *kernel, outputs // groups)
        spatial = [(d - 1) * s - p + r for d, s, p, r in zip(x.shape[1:-1], strides, around, reach, strict=True)]
    else:
        w = contiguous(dtype, outputs, *kernel, channels // groups)
        spatial = [dims.floordiv(d + p - r, s) + 1 for d, s, p, r in zip(x.shape[1:-1], strides, around, reach, strict=True)]
    operands = [x, w]
    if bias:
        operands.append(contiguous(out, outputs))
        region = bias_gelu(out, 2)
    attrs: dict[str, object] = {"acc": acc, "strides": strides, "dilations": dilations, "pads": pads, "groups": groups}
    attrs |= {name: True for name, on in (("transposed", transposed), ("tf32", tf32)) if on}
    return make("conv", operands, [contiguous(out, n, *spatial, outputs)], [region or narrow(out, acc)], attrs, multiples)


def attention(
    batch: Size, heads: int, queries: Size, keys: Size, depth: int, dtype: str = "f16", *, kv_heads: int = 0, depth_v: int = 0,
    causal: bool = False, mask: Sequence[Size] = (), boolean: bool = False, interleaved: bool = False,
    ragged: str = "", multiples: Mapping[str, int] | None = None,
) -> Dispatch:
    """Attention; `mask` is the shape of a mask that is added to scores, or (`boolean`) keeps those where it is true.

    `interleaved`: heads lie within positions, [batch, S, heads, depth]. `ragged`: type of the lengths, operand 3.
    """
    kv_heads, depth_v = kv_heads or heads, depth_v or depth

    def tensor(h: int, n: Size, d: int) -> TensorArg:
        if not interleaved:
            return contiguous(dtype, batch, h, n, d)
        t = contiguous(dtype, batch, n, h, d)
        return TensorArg(dtype, tuple(t.shape[i] for i in (0, 2, 1, 3)), tuple(t.strides[i] for i in (0, 2, 1, 3)), t.align)

    operands = [tensor(heads, queries, depth), tensor(kv_heads, keys, depth), tensor(kv_heads, keys, depth_v)]
    if ragged:
        operands.append(contiguous(ragged, batch))
    scores = Region("f32")
    value, number = 0, len(operands)
    if mask and boolean:
        operands.append(contiguous("i1", *mask))
        kept = scores.add("load", type="i1", operand=number)
        value = scores.add("select", kept, 0, scores.add("const", value=float("-inf")))
    elif mask:
        operands.append(contiguous(dtype, *mask))
        value = scores.add("addf", 0, scores.load(number, dtype))
    attrs: dict[str, object] = {"scale": depth**-0.5}
    attrs |= {name: True for name, given in (("causal", causal), ("ragged", ragged)) if given}
    return make(
        "attention", operands, [tensor(heads, queries, depth_v)], [scores.end(value), narrow(dtype)], attrs, multiples
    )


@dataclass(frozen=True)
class Operand:
    """An operand's memory (one-dimensional; a byte for each element below 8 bits), the view that the dispatch reads, and the
    number of element 0, which is not the first where strides are negative."""

    memory: np.ndarray
    view: np.ndarray
    start: int = 0

    def packed(self) -> np.ndarray:
        """The memory as kernels see it: elements of 4 bits lie in pairs, the first in the lower nibble."""
        t = self.memory.dtype
        if t not in (DTYPES["i4"].np, DTYPES["f4E2M1FN"].np):
            return self.memory
        codes = self.memory.view(np.uint8) & 15
        codes = np.append(codes, np.zeros(len(codes) % 2, np.uint8))
        return codes[::2] | codes[1::2] << 4


def random_operands(d: Dispatch, sizes: Mapping[str, int], seed: int = 0) -> list[Operand]:
    """Normally distributed operands (integers: -5 to 5) with the dispatch's strides."""
    rng = np.random.default_rng(seed)
    return [_random(rng, t, sizes) for t in d.operands]


def _random(rng: np.random.Generator, t: TensorArg, sizes: Mapping[str, int]) -> Operand:
    shape = tuple(dims.evaluate(x, sizes) for x in t.shape)
    strides = tuple(dims.evaluate(x, sizes) for x in t.strides)
    extent = 1 + sum((n - 1) * abs(s) for n, s in zip(shape, strides, strict=True)) if all(shape) else 0
    start = sum((n - 1) * -s for n, s in zip(shape, strides, strict=True) if s < 0) if all(shape) else 0
    if t.dtype == "f8E8M0FNU":
        memory = np.exp2(rng.integers(-3, 4, extent).astype(np.float32)).astype(t.type.np)
    elif t.type.kind == "float":
        memory = rng.standard_normal(extent, np.float32).astype(t.type.np)
    elif t.type.kind == "bool":
        memory = rng.integers(0, 2, extent).astype(bool)
    else:
        memory = rng.integers(-5, 6, extent).astype(t.type.np)
    return Operand(memory, strided(memory[start:], shape, strides), start)


def strided(memory: np.ndarray, shape: Sequence[int], strides: Sequence[int]) -> np.ndarray:
    """A view of `memory` with strides in elements; numpy's own does not know every small float, so bits are viewed."""
    size = memory.itemsize
    bits = np.lib.stride_tricks.as_strided(memory.view(f"u{size}"), shape, [s * size for s in strides])
    return bits.view(memory.dtype)


def unrounded(d: Dispatch) -> Dispatch:
    """The dispatch with f32 results in place of narrower floats, for references.

    A reference that is itself rounded to the results' type hides that rounding, and then the few values that another order of
    summation rounds the other way are the whole error.
    """

    def widen(region: ScalarRegion) -> ScalarRegion:
        results = []
        for value in region.results:
            inst = region.insts[value - len(region.args)] if value >= len(region.args) else None
            results.append(inst.args[0] if inst is not None and inst.op == "truncf" else value)
        return replace(region, results=tuple(results))

    if any(r.type.kind != "float" or r.type.bits >= 32 for r in d.results):
        return d
    results = tuple(replace(r, dtype="f32") for r in d.results)
    return replace(d, results=results, regions=(*d.regions[:-1], *map(widen, d.regions[-1:])))


@dataclass(frozen=True)
class Errors:
    """Errors of a result against a float64 reference: bias and spread, relative to the reference's root mean square."""

    bias: float
    spread: float
    worst: float


def errors(result: np.ndarray, reference: np.ndarray) -> Errors:
    """Raises AssertionError where NaN and infinities are not where the reference has them."""
    x, r = result.astype(np.float64).ravel(), reference.astype(np.float64).ravel()
    finite = np.isfinite(r)
    assert np.array_equal(finite, np.isfinite(x)), f"{np.sum(finite != np.isfinite(x))} values differ in being finite"
    assert np.array_equal(r[~finite], x[~finite], equal_nan=True), "infinities and NaN differ"
    scale = max(1e-30, float(np.sqrt(np.mean(r[finite] ** 2))) if finite.any() else 1.0)
    e = (x[finite] - r[finite]) / scale
    return Errors(float(e.mean()), float(e.std()), float(np.abs(e).max(initial=0.0))) if e.size else Errors(0.0, 0.0, 0.0)


def check_against(result: np.ndarray, reference: np.ndarray, peer: np.ndarray, sum_bits: int = 0) -> Errors:
    """The statistical rule: no bias, and a spread not above 1.2 times that of another implementation, `peer`.

    `sum_bits`: fraction bits of the sums of the instruction that was used, where they are less than an f32's. Sums of 128 k
    with so many bits, added in f32, have a spread of 2**-sum_bits, whatever k is; the peer, which has none, gets it.
    Raises AssertionError with the numbers.
    """
    ours, theirs = errors(result, reference), errors(peer, reference)
    allowed = np.hypot(theirs.spread, 2.0**-sum_bits if sum_bits else 0.0)
    assert abs(ours.bias) <= 1e-5 + 0.2 * ours.spread, f"biased: {ours}, the other implementation {theirs}"
    assert ours.spread <= 1e-5 + 1.2 * allowed, f"spread: {ours}, the other implementation {theirs}"
    return ours


def before_rounding(d: Dispatch) -> Dispatch:
    """The dispatch with f32 results: what `roundeven` takes in a region that ends in integers."""
    *others, region = d.regions
    (at,) = [i for i, inst in enumerate(region.insts) if inst.op == "roundeven"]
    region = replace(region, results=(region.insts[at].args[0],))
    return replace(d, results=tuple(replace(r, dtype="f32") for r in d.results), regions=(*others, region))


def check_rounded(result: np.ndarray, reference: np.ndarray, sum_bits: int = 0) -> None:
    """Integers that are rounded from sums of floats, against `reference` before rounding: another integer than the nearest only
    where the sum's error, six times the spread that `check_against` allows, can reach the middle between two. Each column has a
    scale of its own, which its errors share: they are measured by the column's root mean square."""
    reference = reference.astype(np.float64)
    size = np.sqrt(np.mean(reference**2, axis=tuple(range(reference.ndim - 1)), keepdims=True))
    error = 1e-5 + 1.2 * (2.0**-sum_bits if sum_bits else 0.0)
    limits = np.iinfo(result.dtype)
    apart = np.abs(result - np.clip(reference, limits.min, limits.max))
    excess = (apart - 0.5) / (error * size)
    worst = excess.argmax()
    found = f"{apart.flat[worst]:.4g} from the unrounded result: {excess.flat[worst]:.3g} spreads over 0.5"
    assert excess.flat[worst] <= 6, found


def extent(t: TensorArg, sizes: Mapping[str, int]) -> tuple[list[int], list[int], int]:
    """(sizes, strides in elements, elements of memory) of a tensor."""
    shape, strides = [dims.evaluate(x, sizes) for x in t.shape], [dims.evaluate(x, sizes) for x in t.strides]
    return shape, strides, 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) if all(shape) else 0


def result_view(memory: np.ndarray, t: TensorArg, sizes: Mapping[str, int]) -> np.ndarray:
    """A result's elements in its memory, an array of bytes."""
    shape, strides, count = extent(t, sizes)
    if t.type.bits < 8:  # two a byte, of which numpy keeps one
        memory = np.stack([memory & 15, memory >> 4], axis=-1).reshape(-1)[:count]
        if t.type.kind == "int":
            memory = ((memory.view(np.int8) ^ 8) - 8).view(np.uint8)
    return strided(memory.view(t.type.np), shape, strides)


def peers(d: Dispatch, operands: Sequence[np.ndarray], sizes: Mapping[str, int]) -> list[np.ndarray]:
    """What another implementation of the same precision gives, whose spread kernels are measured by.

    numpy in f32, but for attention of 16-bit types: there probabilities are rounded to that type before they meet values, as in
    every one-pass implementation. Where f32 may be rounded to tf32, the bits that tensor cores do not read are cut off.
    """
    from ingot.compiler.reference import RootCall, run_dispatch, run_region

    dtype = d.operands[0].type if d.operands else d.results[0].type
    if d.attr("tf32", False) and dtype.name == "f32":
        cut = [(x.astype(np.float32).view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32) for x in operands[:2]]
        return run_dispatch(d, [*cut, *operands[2:]], sizes)
    if d.root != "attention" or dtype.bits != 16:
        return run_dispatch(d, operands, sizes)
    q, k, v = (x.astype(np.float32) for x in operands[:3])
    group = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, group, 1), np.repeat(v, group, 1)
    scores = np.matmul(q, k.swapaxes(2, 3)) * np.float32(d.attr("scale"))
    call = RootCall(d.root, operands, dict(d.attrs), d.regions, [], sizes)
    (scores,) = run_region(call, d.regions[0], (scores,), scores.shape)
    s, t = scores.shape[2:]
    counts = np.minimum(operands[3] if d.attr("ragged", False) else t, t).reshape(-1, 1, 1, 1)
    seen = np.arange(t) < counts
    if d.attr("causal", False):
        seen = seen & (np.arange(t) <= np.arange(s)[:, None] + (counts - s))
    scores = np.where(seen, scores, np.float32(-np.inf))
    with np.errstate(all="ignore"):
        p = np.exp(scores - scores.max(-1, keepdims=True))
        y = np.matmul(p.astype(dtype.np).astype(np.float32), v) / p.sum(-1, keepdims=True)
    return [x.astype(r.type.np) for x, r in zip(run_region(call, d.regions[1], (y,), y.shape), d.results, strict=True)]


def scatter(
    kind: str, shape: Sequence[Size], updates: Sequence[Size], axis: int, dtype: str = "f32", index: str = "i64"
) -> Dispatch:
    """Elements of `updates` go to the places in x that indices, of the same shape, give along `axis`."""
    x, u, i = contiguous(dtype, *shape), contiguous(dtype, *updates), contiguous(index, *updates)
    place, value = Region(), Region()
    at = place.add("load", type=index, operand=2)
    at = at if index == "i64" else place.add("extsi", at, type="i64")
    at = place.add("maxsi", at, place.add("const", type="i64", value=0), type="i64")  # random ones may be negative
    where = [at if a == axis else place.add("index", type="i64", axis=a) for a in range(len(shape))]
    regions = [place.end(*where), value.end(value.add("load", type=dtype, operand=1))]
    return make("scatter", [x, u, i], [x], regions, {"kind": kind, "axes": (axis,)})


def scan(
    kind: str, shape: Sequence[Size], axis: int, dtype: str = "f32", *, exclusive: bool = False, reverse: bool = False
) -> Dispatch:
    """A scan of a contiguous tensor; 16-bit floats are scanned in f32."""
    acc = "f32" if dtype in ("f16", "bf16") else dtype
    t = contiguous(dtype, *shape)
    attrs: dict[str, object] = {"kind": kind, "axis": axis}
    attrs |= {n: True for n, given in (("exclusive", exclusive), ("reverse", reverse)) if given}
    regions = [widen(dtype), narrow(dtype)] if acc == "f32" else [ScalarRegion((dtype,), (), (0,))] * 2
    return make("scan", [t], [t], regions, attrs)


def topk(shape: Sequence[Size], axis: int, k: Size, dtype: str = "f32") -> Dispatch:
    """The positions of the k largest elements along an axis of a contiguous tensor."""
    region = widen(dtype) if dtype in ("f16", "bf16") else ScalarRegion((dtype,), (), (0,))
    out = [k if a == axis else n for a, n in enumerate(shape)]
    return make("topk", [contiguous(dtype, *shape)], [contiguous("i64", *out)], [region], {"axis": axis})
