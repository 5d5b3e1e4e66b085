"""Rules for recurrent operators."""

from __future__ import annotations

from ingot.passes.onnx_inference.rules import Node, rule
from ingot.passes.onnx_inference.tensors import Tensor

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


@rule(*GATES)
def _recurrent(node: Node) -> list[Tensor]:
    x, w, r = (node.input(i) for i in range(3))
    gates, batch_first = GATES[node.op], bool(node.attr("layout"))
    length, batch = (x.shape[1], x.shape[0]) if batch_first else x.shape[:2]
    hidden = r.shape[2]
    directions = 2 if node.attr("direction") == "bidirectional" else 1
    if not isinstance(hidden, int):
        raise node.fail(f"a hidden state of {hidden} elements is not supported", "make its size constant")
    for tensor, sizes in ((w, (directions, gates * hidden, x.shape[2])), (r, (directions, gates * hidden, hidden))):
        for size, wanted in zip(tensor.shape, sizes, strict=True):
            node.equal(size, wanted, "weights do not have one row for each gate and element of the state")
    if node.has(3):
        node.equal(node.input(3).shape[1], 2 * gates * hidden, "there are not two biases for each row of the weights")
    if node.has(4):
        node.equal(node.input(4).shape[0], batch, "there is not one length for each sequence")
    state = (batch, directions, hidden) if batch_first else (directions, batch, hidden)
    for i in (5, 6):
        if node.has(i):
            for size, wanted in zip(node.input(i).shape, state, strict=True):
                node.equal(size, wanted, "the first state does not fit")
    y = (batch, length, directions, hidden) if batch_first else (length, directions, batch, hidden)
    states = [Tensor(x.type, state)] * (2 if node.op == "LSTM" else 1)
    return [Tensor(x.type, y), *states]
