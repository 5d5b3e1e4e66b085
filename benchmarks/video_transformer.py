"""The transformer of LTX-Video in PyTorch: the peer of `ltx_video_full`, and where its ONNX file comes from.

    python benchmarks/video_transformer.py export OUT [--layers 28]     # OUT/model.onnx and its inputs

The architecture is that of "LTX-Video: Realtime Video Latent Diffusion" (HaCohen et al., 2024) in the configuration published
with its two billion parameters: rotary positions in time, height and width; adaptive normalization with one table a block
(PixArt-alpha, Chen et al., 2023); queries and keys normalized over all heads. Modules are named as in the published
checkpoints.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

FRAMES, HEIGHT, WIDTH = 16, 16, 24  # of latents: 121 frames of 512 x 768
CAPTION = 128  # tokens of text


@dataclass(frozen=True)
class Config:
    """Sizes; the defaults are those of LTX-Video 2B.

    Attributes:
        layers: blocks.
        heads, head_dim: of attention.
        latent: channels of input and output.
        caption: size of the text's embeddings.
        theta: base of the rotary frequencies.
    """

    layers: int = 28
    heads: int = 32
    head_dim: int = 64
    latent: int = 128
    caption: int = 4096
    theta: float = 10000.0

    @property
    def size(self) -> int:
        return self.heads * self.head_dim


class RmsNorm(nn.Module):
    """x / rms(x), computed in float32, with a weight where `affine`."""

    def __init__(self, size: int, affine: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        y = (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype)
        return y if self.weight is None else y * self.weight


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Neighbouring pairs of x [B, S, size] turned by angles given as cos and sin of the same shape."""
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack((-odd, even), dim=-1).flatten(-2)
    return (x.float() * cos + turned.float() * sin).to(x.dtype)


class Attention(nn.Module):
    """Attention of `x` to itself, or to a context."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        size = config.size
        self.heads = config.heads
        self.norm_q, self.norm_k = RmsNorm(size, affine=True), RmsNorm(size, affine=True)
        self.to_q, self.to_k, self.to_v = (nn.Linear(size, size) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(size, size)])

    def forward(
        self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None, angles: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        source = x if context is None else context
        q, k, v = self.norm_q(self.to_q(x)), self.norm_k(self.to_k(source)), self.to_v(source)
        if angles is not None:
            q, k = rotated(q, *angles), rotated(k, *angles)
        q, k, v = (t.unflatten(2, (self.heads, -1)).transpose(1, 2) for t in (q, k, v))
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.to_out[0](y.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    """Two linear layers with a tanh GELU between."""

    def __init__(self, size: int) -> None:
        super().__init__()
        first = nn.Module()
        first.proj = nn.Linear(size, 4 * size)
        self.net = nn.ModuleList([first, nn.Identity(), nn.Linear(4 * size, size)])

    def forward(self, x: Tensor) -> Tensor:
        return self.net[2](functional.gelu(self.net[0].proj(x), approximate="tanh"))


class Block(nn.Module):
    """Self-attention, attention to the text, feed-forward; the first and last scaled, shifted and gated by the time."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.norm1, self.norm2 = RmsNorm(config.size, affine=False), RmsNorm(config.size, affine=False)
        self.attn1, self.attn2 = Attention(config), Attention(config)
        self.ff = FeedForward(config.size)
        self.scale_shift_table = nn.Parameter(torch.randn(6, config.size) / math.sqrt(config.size))

    def forward(self, x: Tensor, text: Tensor, mask: Tensor, time: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
        table = self.scale_shift_table + time  # [B, 1, 6, size]
        shift1, scale1, gate1, shift2, scale2, gate2 = table.unbind(2)
        x = x + gate1 * self.attn1(self.norm1(x) * (1 + scale1) + shift1, angles=angles)
        x = x + self.attn2(x, text, mask)
        return x + gate2 * self.ff(self.norm2(x) * (1 + scale2) + shift2)


class Embedding(nn.Module):
    """Two linear layers with an activation between."""

    def __init__(self, inputs: int, size: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(inputs, size), nn.Linear(size, size)

    def forward(self, x: Tensor, tanh_gelu: bool = False) -> Tensor:
        x = self.linear_1(x)
        return self.linear_2(functional.gelu(x, approximate="tanh") if tanh_gelu else functional.silu(x))


class AdaptiveNorm(nn.Module):
    """Embeds the time, and gives what every block adds to its table."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.emb = nn.Module()
        self.emb.timestep_embedder = Embedding(256, size)
        self.linear = nn.Linear(size, 6 * size)

    def forward(self, timestep: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        frequencies = torch.exp(torch.arange(128, device=timestep.device, dtype=torch.float32) * (-math.log(10000.0) / 128))
        phase = timestep.float()[:, None] * frequencies
        embedded = self.emb.timestep_embedder(torch.cat([phase.cos(), phase.sin()], -1).to(dtype))
        return self.linear(functional.silu(embedded)), embedded


class VideoTransformer(nn.Module):
    """Predicts the velocity of latents.

    `forward` takes latents [B, S, 128], the positions of their centres [B, S, 3] as fractions of the largest time, height and
    width, the text's embeddings [B, T, 4096], its mask [B, T] (int64, 1: a token), and the time [B] (0 to 1000).
    """

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = config = config or Config()
        size = config.size
        self.proj_in = nn.Linear(config.latent, size)
        self.time_embed = AdaptiveNorm(size)
        self.caption_projection = Embedding(config.caption, size)
        self.transformer_blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.scale_shift_table = nn.Parameter(torch.randn(2, size) / math.sqrt(size))
        self.norm_out = nn.LayerNorm(size, eps=1e-6, elementwise_affine=False)
        self.proj_out = nn.Linear(size, config.latent)

    def angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin [B, S, size], float32; a pair of neighbours shares its angle."""
        size, count = self.config.size, self.config.size // 6
        powers = torch.linspace(0, 1, count, device=positions.device, dtype=torch.float32)
        frequencies = self.config.theta**powers * (math.pi / 2)
        phase = (positions.float()[..., None] * 2 - 1) * frequencies  # [B, S, 3, count]
        phase = phase.transpose(-1, -2).flatten(2).repeat_interleave(2, dim=-1)
        rest = size - 6 * count
        return functional.pad(phase.cos(), (rest, 0), value=1.0), functional.pad(phase.sin(), (rest, 0))

    def forward(self, latents: Tensor, positions: Tensor, text: Tensor, text_mask: Tensor, timestep: Tensor) -> Tensor:
        angles = self.angles(positions)
        mask = ((1 - text_mask.to(latents.dtype)) * -10000.0)[:, None, None, :]
        x = self.proj_in(latents)
        time, embedded = self.time_embed(timestep, latents.dtype)
        time = time.unflatten(1, (1, 6, -1))
        text = self.caption_projection(text, tanh_gelu=True)
        for block in self.transformer_blocks:
            x = block(x, text, mask, time, angles)
        shift, scale = (self.scale_shift_table + embedded[:, None, None]).unbind(2)
        return self.proj_out(self.norm_out(x) * (1 + scale) + shift)


NAMES = ("latents", "positions", "text", "text_mask", "timestep")


def inputs(batch: int, grid: tuple[int, int, int], tokens: int, config: Config) -> dict[str, np.ndarray]:
    """Seeded inputs for a video of `grid` latents (time, height, width) and a text of `tokens`."""
    rng = np.random.default_rng(math.prod(grid))
    axes = [(np.arange(n, dtype=np.float32) + 0.5) / n for n in grid]
    positions = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(1, -1, 3).repeat(batch, 0)
    text_mask = np.ones((batch, tokens), np.int64)
    text_mask[:, tokens - tokens // 4 :] = 0
    return {
        "latents": rng.standard_normal((batch, math.prod(grid), config.latent), np.float32),
        "positions": positions,
        "text": rng.standard_normal((batch, tokens, config.caption), np.float32),
        "text_mask": text_mask,
        "timestep": np.linspace(900, 300, batch, dtype=np.float32),
    }


def export(folder: Path, config: Config, grids: list[tuple[int, int, int]]) -> None:
    """Write `model.onnx`, `inputs_k.npz` and `meta.json` as the zoo's recipes are made from."""
    torch.manual_seed(0)
    module = VideoTransformer(config).eval().requires_grad_(False)
    folder.mkdir(parents=True, exist_ok=True)
    sets = [inputs(1 + k % 2, grid, CAPTION // (k + 1), config) for k, grid in enumerate(grids)]
    for k, feeds in enumerate(sets):
        np.savez(folder / f"inputs_{k}.npz", **feeds)
    sample = tuple(torch.from_numpy(v) for v in inputs(2, (2, 2, 4), 8, config).values())
    batch, sequence, tokens = (torch.export.Dim(n) for n in ("N", "S", "T"))
    shapes = ({0: batch, 1: sequence}, {0: batch, 1: sequence}, {0: batch, 1: tokens}, {0: batch, 1: tokens}, {0: batch})
    program = torch.onnx.export(
        module, sample, input_names=list(NAMES), output_names=["velocity"], dynamic_shapes=shapes, dynamo=True, opset_version=20
    )
    program.save(folder / "model.onnx", external_data=config.layers > 4)
    nodes = len(program.model.graph)
    parameters = sum(p.numel() for p in module.parameters())
    meta = {"family": "ltx_video", "dtype": "fp32", "exporter": "dynamo", "nodes": nodes, "params": parameters, "opset": 20}
    (folder / "meta.json").write_text(json.dumps(meta))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["export"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=Config.layers)
    parser.add_argument("--heads", type=int, default=Config.heads)
    parser.add_argument("--small", action="store_true", help="few latents, for references on a CPU")
    options = parser.parse_args()
    config = Config(layers=options.layers, heads=options.heads)
    small = [(2, 3, 4), (1, 4, 5), (3, 2, 3)]
    export(options.folder, config, small if options.small else [(FRAMES, HEIGHT, WIDTH), (8, 8, 12), (4, 16, 16)])


if __name__ == "__main__":
    main()
