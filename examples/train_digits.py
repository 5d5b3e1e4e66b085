"""Train a small convolutional network on scikit-learn's handwritten digits and write it as ONNX.

    python examples/train_digits.py            # writes examples/digits.onnx and examples/digits_samples.npz

Needs numpy, onnx and scikit-learn; no deep-learning framework: the network is small enough for its gradients to be written
out. The result is committed, so that the demo needs none of this.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits

HERE = Path(__file__).parent
EPOCHS, BATCH, RATE, MOMENTUM = 40, 32, 0.02, 0.9


def patches(x: np.ndarray) -> np.ndarray:
    """3x3 windows with padding 1 of x [N, C, H, W], as [N, H, W, C*9]."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(x.shape[0], x.shape[2], x.shape[3], -1)


def unpatch(d: np.ndarray, channels: int) -> np.ndarray:
    """The transpose of `patches`: d [N, H, W, C*9] summed back to [N, C, H, W]."""
    n, h, w, _ = d.shape
    d = d.reshape(n, h, w, channels, 3, 3)
    out = np.zeros((n, channels, h + 2, w + 2), d.dtype)
    for i in range(3):
        for j in range(3):
            out[:, :, i : i + h, j : j + w] += d[:, :, :, :, i, j].transpose(0, 3, 1, 2)
    return out[:, :, 1:-1, 1:-1]


class Network:
    """Conv 3x3 (16), ReLU, conv 3x3 (32), ReLU, max pool 2x2, linear (10)."""

    def __init__(self, rng: np.random.Generator) -> None:
        def he(*shape: int) -> np.ndarray:
            return (rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)

        self.p = {
            "conv1.weight": he(16, 1, 3, 3),
            "conv1.bias": np.zeros(16, np.float32),
            "conv2.weight": he(32, 16, 3, 3),
            "conv2.bias": np.zeros(32, np.float32),
            "fc.weight": he(10, 32 * 4 * 4),
            "fc.bias": np.zeros(10, np.float32),
        }

    def step(self, x: np.ndarray, y: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
        """Mean cross-entropy of images x [N, 1, 8, 8] with labels y [N], and its gradients."""
        p, n = self.p, len(x)
        c1 = patches(x)
        a1 = np.maximum(c1 @ p["conv1.weight"].reshape(16, -1).T + p["conv1.bias"], 0).transpose(0, 3, 1, 2)
        c2 = patches(a1)
        a2 = np.maximum(c2 @ p["conv2.weight"].reshape(32, -1).T + p["conv2.bias"], 0).transpose(0, 3, 1, 2)
        tiles = a2.reshape(n, 32, 4, 2, 4, 2).transpose(0, 1, 2, 4, 3, 5).reshape(n, 32, 4, 4, 4)
        best = tiles.argmax(-1)
        flat = tiles.max(-1).reshape(n, -1)
        logits = flat @ p["fc.weight"].T + p["fc.bias"]
        z = np.exp(logits - logits.max(1, keepdims=True))
        z /= z.sum(1, keepdims=True)
        loss = -np.log(z[np.arange(n), y] + 1e-9).mean()
        z[np.arange(n), y] -= 1
        z /= n
        g = {"fc.weight": z.T @ flat, "fc.bias": z.sum(0)}
        d_tiles = np.zeros_like(tiles)
        np.put_along_axis(d_tiles, best[..., None], (z @ p["fc.weight"]).reshape(n, 32, 4, 4)[..., None], -1)
        d2 = d_tiles.reshape(n, 32, 4, 4, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(n, 32, 8, 8) * (a2 > 0)
        d2 = d2.transpose(0, 2, 3, 1)
        g["conv2.weight"] = np.einsum("nhwo,nhwi->oi", d2, c2).reshape(32, 16, 3, 3)
        g["conv2.bias"] = d2.sum((0, 1, 2))
        d1 = (unpatch(d2 @ p["conv2.weight"].reshape(32, -1), 16) * (a1 > 0)).transpose(0, 2, 3, 1)
        g["conv1.weight"] = np.einsum("nhwo,nhwi->oi", d1, c1).reshape(16, 1, 3, 3)
        g["conv1.bias"] = d1.sum((0, 1, 2))
        return float(loss), g


def to_onnx(p: dict[str, np.ndarray]) -> onnx.ModelProto:
    """The network as ONNX (opset 17): images [N, 1, 8, 8] in, probabilities [N, 10] out."""
    nodes = [
        helper.make_node("Conv", ["image", "conv1.weight", "conv1.bias"], ["c1"], "conv1", pads=[1] * 4, kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c1"], ["a1"], "relu1"),
        helper.make_node("Conv", ["a1", "conv2.weight", "conv2.bias"], ["c2"], "conv2", pads=[1] * 4, kernel_shape=[3, 3]),
        helper.make_node("Relu", ["c2"], ["a2"], "relu2"),
        helper.make_node("MaxPool", ["a2"], ["m"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["m"], ["f"], "flatten", axis=1),
        helper.make_node("Gemm", ["f", "fc.weight", "fc.bias"], ["logits"], "fc", transB=1),
        helper.make_node("Softmax", ["logits"], ["probabilities"], "softmax", axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in p.items()],
    )
    model = helper.make_model(graph, producer_name="ingot-example", opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    return model


def main() -> None:
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)[:, None]
    rng = np.random.default_rng(0)
    order = rng.permutation(len(images))
    train, held_out = order[:1437], order[1437:]
    network = Network(rng)
    velocity = {k: np.zeros_like(v) for k, v in network.p.items()}
    for epoch in range(EPOCHS):
        rate = RATE * (0.1 if epoch > EPOCHS * 0.75 else 1)
        for batch in np.array_split(rng.permutation(train), len(train) // BATCH):
            loss, gradients = network.step(images[batch], digits.target[batch])
            for k, g in gradients.items():
                velocity[k] = MOMENTUM * velocity[k] - rate * g
                network.p[k] += velocity[k]
        print(f"epoch {epoch + 1}/{EPOCHS}: loss {loss:.4f}")
    onnx.save(to_onnx(network.p), HERE / "digits.onnx")
    np.savez_compressed(HERE / "digits_samples.npz", images=images[held_out], labels=digits.target[held_out].astype(np.int64))


if __name__ == "__main__":
    main()
