"""The benchmarks' UNet of Stable Diffusion computes what the exported graph does."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import zoo
from onnx import numpy_helper

torch = pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from unet import Config, UNet  # noqa: E402


def parameters_of(graph: onnx.GraphProto) -> Iterator[tuple[str, np.ndarray]]:
    """The parameters of an exported UNet by the names that they have in `UNet`.

    The exporter keeps the names of most parameters, but transposes the weights of matrix products without bias, and those of
    group normalization become operands of Mul and Add: these are found by the nodes that read them.
    """
    constants = {t.name: t for t in graph.initializer}
    for node in graph.node:
        scope, _, kind = node.name.removeprefix("/m/").rpartition("/")
        path = scope.replace("/", ".")
        for name in node.input:
            if name not in constants:
                continue
            array = numpy_helper.to_array(constants[name])
            if name.startswith("m."):
                yield name.removeprefix("m."), array
            elif kind == "MatMul":
                yield f"{path}.weight", array.T
            elif array.ndim == 3 and kind in ("Mul", "Add"):
                yield f"{path}.{'weight' if kind == 'Mul' else 'bias'}", array.flatten()


def test_unet_matches_the_exported_graph(zoo_model):
    folder = zoo_model("sd21_unet")
    parameters = {n: torch.from_numpy(np.array(a)) for n, a in parameters_of(onnx.load(folder / "model.onnx").graph)}
    context = parameters["down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"].shape[1]
    unet = UNet(Config(channels=(32, 64, 96, 96), layers=1, context=context, head_dim=16))
    unet.load_state_dict(parameters)  # strict: nothing is missing, nothing is left
    for feeds, reference in zoo.input_sets(folder):
        with torch.inference_mode():
            result = unet(**{name: torch.from_numpy(array) for name, array in feeds.items()})
        assert zoo.relative_error(result.numpy(), reference["out_sample"]) <= 1e-5


def test_full_size_has_the_published_parameters():
    with torch.device("meta"):
        unet = UNet()
    assert sum(p.numel() for p in unet.parameters()) == zoo.read("sd21_unet_full").meta["params"] == 865910724
