"""The UNet of Stable Diffusion 2.1 in PyTorch: the peer of `sd21_unet_full`.

The architecture is that of "High-Resolution Image Synthesis with Latent Diffusion Models" (Rombach et al., 2022) in the
configuration published with Stable Diffusion 2.1. Modules are named as in the published checkpoints, so that weights can be
exchanged by name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Config:
    """Sizes of a UNet; the defaults are those of Stable Diffusion 2.1.

    Attributes:
        channels: of each level, from the finest.
        layers: residual blocks a level on the way down; one more on the way up.
        context: size of the text's embeddings.
        head_dim: size of an attention head at every level.
        groups: of group normalization.
        latent: channels of input and output.
    """

    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers: int = 2
    context: int = 1024
    head_dim: int = 64
    groups: int = 32
    latent: int = 4


class ResnetBlock(nn.Module):
    """Two convolutions with the time's embedding added between them."""

    def __init__(self, config: Config, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(config.groups, inputs, eps=1e-5)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time_emb_proj = nn.Linear(4 * config.channels[0], outputs)
        self.norm2 = nn.GroupNorm(config.groups, outputs, eps=1e-5)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.conv1(functional.silu(self.norm1(x)))
        h = h + self.time_emb_proj(functional.silu(time))[:, :, None, None]
        h = self.conv2(functional.silu(self.norm2(h)))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Attention(nn.Module):
    """Attention of `x` to itself, or to a context."""

    def __init__(self, size: int, context: int, head_dim: int) -> None:
        super().__init__()
        self.heads = size // head_dim
        self.to_q = nn.Linear(size, size, bias=False)
        self.to_k = nn.Linear(context, size, bias=False)
        self.to_v = nn.Linear(context, size, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(size, size)])

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q, k, v = (
            t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in (self.to_q(x), self.to_k(context), self.to_v(context))
        )
        return self.to_out[0](functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Gate(nn.Module):
    """GEGLU ("GLU Variants Improve Transformer", Shazeer, 2020)."""

    def __init__(self, size: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(size, 2 * inner)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * functional.gelu(gate)


class FeedForward(nn.Module):
    """A gated layer of four times the size, and back."""

    def __init__(self, size: int) -> None:
        super().__init__()
        # The checkpoints' second entry is a dropout.
        self.net = nn.ModuleList([Gate(size, 4 * size), nn.Identity(), nn.Linear(4 * size, size)])

    def forward(self, x: Tensor) -> Tensor:
        return self.net[2](self.net[0](x))


class TransformerBlock(nn.Module):
    """Self-attention, attention to the text, feed-forward."""

    def __init__(self, config: Config, size: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(size)
        self.attn1 = Attention(size, size, config.head_dim)
        self.norm2 = nn.LayerNorm(size)
        self.attn2 = Attention(size, config.context, config.head_dim)
        self.norm3 = nn.LayerNorm(size)
        self.ff = FeedForward(size)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attn1(y, y)
        x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class Transformer(nn.Module):
    """A transformer block over the pixels of an image."""

    def __init__(self, config: Config, size: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(config.groups, size, eps=1e-6)
        self.proj_in = nn.Linear(size, size)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(config, size)])
        self.proj_out = nn.Linear(size, size)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        n, c, h, w = x.shape
        y = self.proj_in(self.norm(x).permute(0, 2, 3, 1).reshape(n, h * w, c))
        y = self.proj_out(self.transformer_blocks[0](y, context))
        return x + y.reshape(n, h, w, c).permute(0, 3, 1, 2)


class Resample(nn.Module):
    """Half the pixels (a convolution of stride 2) or twice as many (nearest, then a convolution)."""

    def __init__(self, size: int, *, up: bool) -> None:
        super().__init__()
        self.up = up
        self.conv = nn.Conv2d(size, size, 3, stride=1 if up else 2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest") if self.up else x)


class Level(nn.Module):
    """Residual blocks and transformers of one resolution; used on the way down, in the middle and on the way up."""

    def __init__(
        self, config: Config, sizes: list[tuple[int, int]], *, transformers: int, down: bool = False, up: bool = False
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([ResnetBlock(config, i, o) for i, o in sizes])
        outputs = sizes[-1][1]
        if transformers:
            self.attentions = nn.ModuleList([Transformer(config, outputs) for _ in range(transformers)])
        if down:
            self.downsamplers = nn.ModuleList([Resample(outputs, up=False)])
        if up:
            self.upsamplers = nn.ModuleList([Resample(outputs, up=True)])

    def step(self, index: int, x: Tensor, time: Tensor, context: Tensor) -> Tensor:
        """Residual block `index`, and its transformer where there is one."""
        x = self.resnets[index](x, time)
        return self.attentions[index](x, context) if hasattr(self, "attentions") else x


class TimeEmbedding(nn.Module):
    """Two layers over the sines and cosines of the time."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(size, 4 * size)
        self.linear_2 = nn.Linear(4 * size, 4 * size)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(functional.silu(self.linear_1(x)))


class UNet(nn.Module):
    """sample [N, latent, H, W], timestep [1], encoder_hidden_states [N, T, context] -> [N, latent, H, W]."""

    def __init__(self, config: Config | None = None) -> None:
        super().__init__()
        self.config = config = config or Config()
        channels, layers = config.channels, config.layers
        self.conv_in = nn.Conv2d(config.latent, channels[0], 3, padding=1)
        self.time_embedding = TimeEmbedding(channels[0])
        last = len(channels) - 1
        skips = [channels[0]]
        down = []
        for i, size in enumerate(channels):
            sizes = [(channels[max(i - 1, 0)], size)] + [(size, size)] * (layers - 1)
            # The coarsest level has no attention and does not get any coarser.
            down.append(Level(config, sizes, transformers=layers if i != last else 0, down=i != last))
            skips += [size] * (layers + (i != last))
        self.down_blocks = nn.ModuleList(down)
        self.mid_block = Level(config, [(channels[-1], channels[-1])] * 2, transformers=1)
        up = []
        before = channels[-1]
        for i, size in enumerate(reversed(channels)):
            sizes = []
            for _ in range(layers + 1):
                sizes.append((before + skips.pop(), size))
                before = size
            up.append(Level(config, sizes, transformers=layers + 1 if i else 0, up=i != last))
        self.up_blocks = nn.ModuleList(up)
        self.conv_norm_out = nn.GroupNorm(config.groups, channels[0], eps=1e-5)
        self.conv_out = nn.Conv2d(channels[0], config.latent, 3, padding=1)

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        time = self.time_embedding(self.frequencies(timestep, sample.shape[0]).to(sample.dtype))
        x = self.conv_in(sample)
        skips = [x]
        for level in self.down_blocks:
            for i in range(len(level.resnets)):
                x = level.step(i, x, time, encoder_hidden_states)
                skips.append(x)
            if hasattr(level, "downsamplers"):
                x = level.downsamplers[0](x)
                skips.append(x)
        x = self.mid_block.step(0, x, time, encoder_hidden_states)
        x = self.mid_block.resnets[1](x, time)
        for level in self.up_blocks:
            for i in range(len(level.resnets)):
                x = level.step(i, torch.cat([x, skips.pop()], dim=1), time, encoder_hidden_states)
            if hasattr(level, "upsamplers"):
                x = level.upsamplers[0](x)
        return self.conv_out(functional.silu(self.conv_norm_out(x)))

    def frequencies(self, timestep: Tensor, batch: int) -> Tensor:
        """Cosines and sines of the time, [batch, channels[0]], in float32 ("Attention Is All You Need", section 3.5)."""
        half = self.config.channels[0] // 2
        exponents = torch.arange(half, dtype=torch.float32, device=timestep.device) * (-math.log(10000.0) / half)
        angles = timestep.float().expand(batch)[:, None] * exponents.exp()
        return torch.cat([angles.cos(), angles.sin()], dim=-1)
