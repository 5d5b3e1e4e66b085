"""Recurrent operators: one product for what all steps make of their inputs, then a loop over the steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ingot import dims
from ingot.dims import Dim
from ingot.passes.onnx_inference.recurrent import GATES
from ingot.passes.onnx_lowering.elementwise import clamp, softplus
from ingot.passes.onnx_lowering.graph_builder import GraphBuilder
from ingot.passes.onnx_lowering.lowering import Lowering, lowering
from ingot.passes.onnx_lowering.region_builder import RegionBuilder, Scalar
from ingot.passes.onnx_lowering.values import TypedValue

Function = Callable[[RegionBuilder, Scalar], Scalar]


@dataclass(frozen=True)
class _Activation:
    """An activation function of x, alpha and beta, with their defaults; None where it has none."""

    f: Callable[[RegionBuilder, Scalar, Scalar, Scalar], Scalar]
    alpha: float | None = None
    beta: float | None = None


def _elu(b: RegionBuilder, x: Scalar, alpha: Scalar, _: Scalar) -> Scalar:
    below = b.mulf(alpha, b.subf(b.exp(b.minf(x, b.like(0, x))), b.like(1, x)))
    return b.select(b.cmpf_olt(x, b.like(0, x)), below, x)


def _hard_sigmoid(b: RegionBuilder, x: Scalar, alpha: Scalar, beta: Scalar) -> Scalar:
    return clamp(b, b.fma(x, alpha, beta), 0.0, 1.0)


_ACTIVATIONS = {
    "Relu": _Activation(lambda b, x, *_: b.maxf(x, b.like(0, x))),
    "Tanh": _Activation(lambda b, x, *_: b.tanh(x)),
    "Sigmoid": _Activation(lambda b, x, *_: b.sigmoid(x)),
    "Softsign": _Activation(lambda b, x, *_: b.divf(x, b.addf(b.like(1, x), b.absf(x)))),
    "Softplus": _Activation(lambda b, x, *_: softplus(b, x)),
    "Affine": _Activation(lambda b, x, alpha, beta: b.fma(x, alpha, beta), 1.0, 0.0),
    "LeakyRelu": _Activation(lambda b, x, a, _: b.select(b.cmpf_olt(x, b.like(0, x)), b.mulf(a, x), x), 0.01),
    "ThresholdedRelu": _Activation(lambda b, x, a, _: b.select(b.cmpf_olt(x, a), b.like(0, x), x), 1.0),
    "ScaledTanh": _Activation(lambda b, x, alpha, beta: b.mulf(alpha, b.tanh(b.mulf(beta, x))), 1.0, 1.0),
    "HardSigmoid": _Activation(_hard_sigmoid, 0.2, 0.5),
    "Elu": _Activation(_elu, 1.0),
}
_DEFAULTS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}


def _activations(low: Lowering) -> list[Function]:
    """The activation functions of all directions, one after the other; they take their parameters from the attributes in
    turn."""
    directions = 2 if low.attr("direction") == "bidirectional" else 1
    wanted = len(_DEFAULTS[low.op]) * directions
    names = list(low.attr("activations") or _DEFAULTS[low.op] * directions)
    names = names[:wanted] if low.op == "RNN" else names  # its default is for both directions
    if len(names) != wanted:
        raise low.fail(f"{len(names)} activations for {directions} directions", "correct the attribute activations")
    alphas, betas = (iter(low.attr(n) or ()) for n in ("activation_alpha", "activation_beta"))
    limit = low.attr("clip")
    return [_activation(low, name, alphas, betas, limit) for name in names]


def _activation(low: Lowering, name: str, alphas: Iterator[float], betas: Iterator[float], limit: float | None) -> Function:
    row = {n.lower(): a for n, a in _ACTIVATIONS.items()}.get(name.lower())
    if row is None:
        raise low.fail(f"activation {name} is not supported", f"use one of {', '.join(_ACTIVATIONS)}")
    alpha = None if row.alpha is None else next(alphas, row.alpha)
    beta = None if row.beta is None else next(betas, row.beta)

    def f(b: RegionBuilder, x: Scalar) -> Scalar:
        x = clamp(b, x, -limit, limit) if limit else x
        return row.f(b, x, b.like(alpha or 0.0, x), b.like(beta or 0.0, x))

    return f


@lowering(*GATES)
def _recurrent(low: Lowering) -> list[TypedValue]:
    functions = _activations(low)
    directions = 2 if low.attr("direction") == "bidirectional" else 1
    per = len(functions) // directions
    found = []
    for d in range(directions):
        backwards = bool(d) or low.attr("direction") == "reverse"
        found.append(_Direction(low, d, functions[d * per : (d + 1) * per], backwards).run())
    batch_first = bool(low.attr("layout"))
    y, *states = (_joined(low, parts, i == 0) for i, parts in enumerate(zip(*found, strict=True)))
    if batch_first:
        return [low.build.transpose(y, (2, 0, 1, 3)), *(low.build.transpose(s, (1, 0, 2)) for s in states)]
    return [y, *states]


def _joined(low: Lowering, parts: Sequence[TypedValue], is_sequence: bool) -> TypedValue:
    """What the directions give, [T, B, H] or [B, H], with an axis of directions before B."""
    shape = (*parts[0].shape[:-2], 1, *parts[0].shape[-2:])
    axis = 1 if is_sequence else 0
    whole = tuple(len(parts) if i == axis else d for i, d in enumerate(shape))
    return low.build.concat([low.build.reshaped(p, shape) for p in parts], axis, whole)


class _Direction:
    """One direction of a recurrent node."""

    def __init__(self, low: Lowering, number: int, functions: Sequence[Function], backwards: bool) -> None:
        self.low, self.number, self.functions, self.backwards = low, number, functions, backwards
        self.x = low.tensor(0)
        self.time = 1 if low.attr("layout") else 0
        self.length, self.batch = self.x.shape[self.time], self.x.shape[1 - self.time]
        self.gates = GATES[low.op]
        self.r = low.tensor(2)
        self.hidden = int(self.r.shape[2])  # type: ignore[arg-type]
        self.type = self.x.type
        self.lengths = None if not low.has(4) else low.build.tensor(low.build.reshape(low.source(4), (self.batch, 1)))
        # Biases of a GRU's last gate that are multiplied by its reset gate cannot be added beforehand.
        self.is_reset_late = low.op == "GRU" and bool(low.attr("linear_before_reset"))

    def run(self) -> list[TypedValue]:
        """All hidden states [T, B, H], and the last state or states [B, H]."""
        low, build = self.low, self.low.build
        count = 2 if low.op == "LSTM" else 1
        carried = [self._first_state(5 + i) for i in range(count)]
        carried.append(build.empty(self.type, (self.length, self.batch, self.hidden)))
        late = self._bias(1) if self.is_reset_late else None
        peepholes = low.tensor(7) if low.op == "LSTM" and low.has(7) else None
        optional = [self.lengths, late, peepholes]
        captured = [self._inputs(), self.r, *(x for x in optional if x is not None)]
        symbol = f"step_{len(build.created)}_{self.number}"
        step = dims.symbol(symbol)
        position = self.length - 1 - step if self.backwards else step

        def body(inner: GraphBuilder, states: Sequence[TypedValue], inside: Sequence[TypedValue]) -> list[TypedValue]:
            rest = iter(inside[2:])
            lengths, bias, holes = (None if x is None else next(rest) for x in optional)
            x = inner.slice_axis(inside[0], self.time, position, 1)
            r = inner.reshaped(inner.slice_axis(inside[1], 0, self.number, 1), self.r.shape[1:])
            cell = _Step(self, inner, inner.reshaped(x, (self.batch, x.shape[2])), r, lengths, position)
            *memory, y = states
            new = cell.lstm(memory[0], memory[1], holes) if count == 2 else [cell.simple(memory[0], bias)]
            out = new[0] if lengths is None else cell.masked(new[0])
            part = inner.reshaped(out, (1, self.batch, self.hidden))
            return [*new, inner.move_into(part, y, [position, 0, 0])]

        *last, y = build.loop(symbol, self.length, carried, captured, body)
        return [y, *last]

    def _first_state(self, operand: int) -> TypedValue:
        low, shape = self.low, (self.batch, self.hidden)
        if not low.has(operand):
            return low.build.pointwise(self.type, shape, lambda b: b.known(0.0, self.type))
        axis = 1 if low.attr("layout") else 0
        return low.build.reshaped(low.build.slice_axis(low.tensor(operand), axis, self.number, 1), shape)

    def _inputs(self) -> TypedValue:
        """What the gates get from the inputs of all steps and from biases, in X's layout."""
        low, build = self.low, self.low.build
        w = build.reshaped(build.slice_axis(low.tensor(1), 0, self.number, 1), low.tensor(1).shape[1:])
        flat = build.reshaped(self.x, (self.x.shape[0] * self.x.shape[1], self.x.shape[2]))
        biases = [b for b in (self._bias(0), self._bias(1)) if b is not None]
        late = 2 * self.hidden if self.is_reset_late else None

        def biased(b: RegionBuilder, y: Scalar) -> Scalar:
            for number, bias in enumerate(biases):
                e = b.load(bias)
                if number and late is not None:
                    e = b.select(b.cmpi_slt(b.index(1), b.const(late, "i64")), e, b.like(0, e))
                y = b.addf(y, e)
            return y

        shape = (flat.shape[0], w.shape[0])
        y = build.matmul(flat, build.transpose(w, (1, 0)), shape, self.type, biased)
        return build.reshaped(y, (*self.x.shape[:2], w.shape[0]))

    def _bias(self, half: int) -> TypedValue | None:
        """The first or second half of this direction's biases."""
        low, size = self.low, self.gates * self.hidden
        if not low.has(3):
            return None
        both = low.tensor(3)
        part = low.build.slice(both, [self.number, half * size], [1, size])
        return low.build.reshaped(part, (size,))


@dataclass
class _Step:
    """An iteration.

    Attributes:
        x: what the gates get from this step's input, [B, gates * H].
        r: the recurrence weights, [gates * H, H].
        lengths: of the sequences, [B, 1].
        position: of this step in the sequences.
    """

    direction: _Direction
    build: GraphBuilder
    x: TypedValue
    r: TypedValue
    lengths: TypedValue | None
    position: Dim

    def _gate(self, x: TypedValue, number: int, count: int = 1) -> TypedValue:
        size = self.direction.hidden
        return self.build.slice_axis(x, x.rank - 1, number * size, count * size)

    def _product(self, h: TypedValue, first: int, count: int, add: TypedValue | None) -> TypedValue:
        """h times the weights of `count` gates from the `first` on, plus a tensor."""
        size = self.direction.hidden
        rows = self.build.slice_axis(self.r, 0, first * size, count * size)
        shape = (h.shape[0], count * size)

        def finish(b: RegionBuilder, y: Scalar) -> Scalar:
            return y if add is None else b.addf(y, b.load(add))

        return self.build.matmul(h, self.build.transpose(rows, (1, 0)), shape, h.type, finish)

    def _state(self, old: TypedValue, body: Callable[[RegionBuilder], Scalar]) -> TypedValue:
        """A new state; where the sequence has ended, the old one."""

        def kept(b: RegionBuilder) -> Scalar:
            y = body(b)
            return y if self.lengths is None else b.select(self._runs(b), y, b.load(old))

        return self.build.pointwise(old.type, old.shape, kept)

    def _runs(self, b: RegionBuilder) -> Scalar:
        assert self.lengths is not None
        return b.cmpi_slt(b.dim(self.position), b.to_index(b.load(self.lengths)))

    def masked(self, x: TypedValue) -> TypedValue:
        """x, or 0 where the sequence has ended."""

        def body(b: RegionBuilder) -> Scalar:
            e = b.load(x)
            return b.select(self._runs(b), e, b.like(0, e))

        return self.build.pointwise(x.type, x.shape, body)

    def simple(self, h: TypedValue, late: TypedValue | None) -> TypedValue:
        """The next state of an RNN or GRU."""
        f = self.direction.functions
        if self.direction.gates == 1:
            g = self._product(h, 0, 1, self.x)
            return self._state(h, lambda b: f[0](b, b.load(g)))
        if self.direction.is_reset_late:
            return self._late_reset(h, late)
        g = self._product(h, 0, 2, self._gate(self.x, 0, 2))
        reset = self.build.pointwise(
            h.type, h.shape, lambda b: b.mulf(f[0](b, b.load(self._gate(g, 1))), b.load(h))
        )
        candidate = self._product(reset, 2, 1, self._gate(self.x, 2))

        def body(b: RegionBuilder) -> Scalar:
            return _mixed(b, f[0](b, b.load(self._gate(g, 0))), f[1](b, b.load(candidate)), b.load(h))

        return self._state(h, body)

    def _late_reset(self, h: TypedValue, late: TypedValue | None) -> TypedValue:
        """The next state of a GRU that multiplies the product by its reset gate, not what is multiplied."""
        f = self.direction.functions
        g = self._product(h, 0, 3, None)
        bias = None if late is None else self._gate(late, 2)

        def body(b: RegionBuilder) -> Scalar:
            z, r = (f[0](b, b.addf(b.load(self._gate(self.x, i)), b.load(self._gate(g, i)))) for i in (0, 1))
            recurrent = b.load(self._gate(g, 2))
            if bias is not None:
                recurrent = b.addf(recurrent, b.load(bias))
            candidate = f[1](b, b.addf(b.load(self._gate(self.x, 2)), b.mulf(r, recurrent)))
            return _mixed(b, z, candidate, b.load(h))

        return self._state(h, body)

    def lstm(self, h: TypedValue, c: TypedValue, peepholes: TypedValue | None) -> list[TypedValue]:
        """The next hidden state and cell; gates are input, output, forget, cell."""
        f, g, last = self.direction.functions
        sums = self._product(h, 0, 4, self.x)
        holes = None if peepholes is None else self.build.slice_axis(peepholes, 0, self.direction.number, 1)
        coupled = bool(self.direction.low.attr("input_forget"))

        def gate(b: RegionBuilder, number: int, cell: Scalar) -> Scalar:
            s = b.load(self._gate(sums, number))
            return f(b, s if holes is None else b.addf(s, b.mulf(b.load(self._gate(holes, number)), cell)))

        def cell(b: RegionBuilder) -> Scalar:
            old = b.load(c)
            i = gate(b, 0, old)
            forget = b.subf(b.like(1, i), i) if coupled else gate(b, 2, old)
            return b.addf(b.mulf(forget, old), b.mulf(i, g(b, b.load(self._gate(sums, 3)))))

        new = self._state(c, cell)

        def hidden(b: RegionBuilder) -> Scalar:
            value = b.load(new)
            return b.mulf(gate(b, 1, value), last(b, value))

        return [self._state(h, hidden), new]


def _mixed(b: RegionBuilder, z: Scalar, candidate: Scalar, h: Scalar) -> Scalar:
    """(1 - z) * candidate + z * h."""
    return b.addf(b.mulf(b.subf(b.like(1, z), z), candidate), b.mulf(z, h))
