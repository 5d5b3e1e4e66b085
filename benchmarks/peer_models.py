"""PyTorch's side of `cuda_peers.py`: the zoo's full-size models as a user would run them eagerly in fp16.

Weights are random: what is compared is time. Architectures are the published ones, out of torchvision, timm and transformers;
the UNet and the video transformer are ours, because diffusers is rarely installed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Feeds = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Peer:
    """A model of the zoo in PyTorch.

    Attributes:
        library: where the module comes from, for the report.
        build: makes the module, on the default device and in float32.
        convolutional: memory layouts are worth trying: channels last, and channels first.
    """

    library: str
    build: Callable[[], nn.Module]
    convolutional: bool = False


def _resnet50() -> nn.Module:
    from torchvision.models import resnet50

    return resnet50()


def _bert() -> nn.Module:
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(attn_implementation="sdpa"))


def _vit() -> nn.Module:
    import timm

    return timm.create_model("vit_base_patch16_224", num_classes=1000)


def _unet() -> nn.Module:
    from unet import UNet

    return UNet()


def _video_transformer() -> nn.Module:
    from video_transformer import VideoTransformer

    return VideoTransformer()


PEERS = {
    "resnet50_full": Peer("torchvision", _resnet50, convolutional=True),
    "bert_full": Peer("transformers", _bert),
    "vit_full": Peer("timm", _vit),
    "sd21_unet_full": Peer("benchmarks/unet.py", _unet, convolutional=True),
    "ltx_video_full": Peer("benchmarks/video_transformer.py", _video_transformer),
}
# Modules that take one array take it by position, whatever they call it.
_BY_POSITION = ("pixel_values",)
_LAYOUTS = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}


@dataclass
class EagerModel:
    """A module in fp16 with its inputs on the device.

    Attributes:
        run: a call; work is queued, not waited for.
        layout: of images in memory; empty where there are none.
        parameters: how many the module has.
    """

    run: Callable[[], Any]
    layout: str
    parameters: int


def eager_models(name: str, feeds: Feeds, device: torch.device, dtype: torch.dtype) -> list[EagerModel]:
    """The peer of model `name` ready to run: once, or in each memory layout that may be the fastest.

    Args:
        feeds: the zoo's inputs; floats are converted to `dtype`.

    Raises:
        ImportError: its library is not installed.
    """
    peer = PEERS[name]
    torch.backends.cudnn.benchmark = True
    with device:
        module = peer.build()
    module = module.eval().requires_grad_(False).to(dtype)
    parameters = sum(p.numel() for p in module.parameters())
    arrays = {n: to_device(a, device, dtype) for n, a in feeds.items()}
    found = []
    for layout in list(_LAYOUTS) if peer.convolutional else [""]:
        form = _LAYOUTS.get(layout, torch.contiguous_format)
        # A copy for each layout, as both are run in turns; the models are small beside the GPU's memory.
        laid = copy.deepcopy(module).to(memory_format=form) if peer.convolutional else module
        inputs = {n: a.to(memory_format=form) if a.ndim == 4 else a for n, a in arrays.items()}
        found.append(EagerModel(_call(laid, inputs), layout, parameters))
    return found


def to_device(array: np.ndarray, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A tensor on the device; floats in `dtype`."""
    tensor = torch.from_numpy(np.ascontiguousarray(array)).to(device)
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _call(module: nn.Module, arrays: Mapping[str, Tensor]) -> Callable[[], Any]:
    positional = [a for n, a in arrays.items() if n in _BY_POSITION]
    named = {n: a for n, a in arrays.items() if n not in _BY_POSITION}

    @torch.inference_mode()
    def run() -> Any:
        return module(*positional, **named)

    return run


def captured(run: Callable[[], Any]) -> Callable[[], None]:
    """The work that `run` queues as a CUDA graph; a call replays it. Raises RuntimeError where it cannot be captured."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        result = run()

    def replay() -> None:
        graph.replay()

    replay.result = result  # type: ignore[attr-defined]  # the graph writes to it
    return replay
