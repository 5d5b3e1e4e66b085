"""Token-by-token decoding for `cuda_peers.py`: a session with donated state, and transformers' Llama with its own caches."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from peer_models import captured
from torch import Tensor, nn

import ingot

TOKENS, PROMPT, CAPACITY = 256, 8, 512


@dataclass(frozen=True)
class Decoded:
    """One sequence.

    Attributes:
        tokens: greedily chosen after the prompt.
        seconds: until each of them was known, counted from the one before.
    """

    tokens: list[int]
    seconds: list[float]

    @property
    def tokens_per_second(self) -> float:
        """Of the whole sequence, the prompt's call included."""
        return len(self.seconds) / sum(self.seconds)

    @property
    def ms(self) -> float:
        """The median token's time."""
        return float(np.median(self.seconds)) * 1e3


def prompt(vocabulary: int) -> list[int]:
    """The tokens that every sequence starts with."""
    return np.random.default_rng(0).integers(0, vocabulary, PROMPT).tolist()


def decode(step: Callable[[list[int], int], int], first: list[int], tokens: int = TOKENS) -> Decoded:
    """`tokens` calls of `step`, which takes new tokens and how many came before them, and gives the next token."""
    new, position = first, 0
    chosen: list[int] = []
    seconds = []
    for _ in range(tokens):
        begin = time.perf_counter()
        token = step(new, position)
        seconds.append(time.perf_counter() - begin)
        chosen.append(token)
        position += len(new)
        new = [token]
    return Decoded(chosen, seconds)


def decode_with_session(session: ingot.Session, first: list[int], tokens: int = TOKENS) -> tuple[Decoded, dict[str, Any]]:
    """Decode twice with one bound session; the second sequence, and what both together cost.

    Returns:
        the second sequence, which finds plans and graphs ready; and `cold` tokens per second of the first one, `graphs`
        captured, `compiled_late` (kernels compiled after the second token), `state_copies`, `same` (both chose equal tokens).
    """
    bound = session.bind(donate=True, capacity=CAPACITY)
    graphs = session.stats().get("graphs", 0)
    compiled: list[int] = []

    def step(new: list[int], position: int) -> int:
        count = len(new)
        feeds = {
            "input_ids": np.array([new], np.int64),
            "attention_mask": np.ones((1, position + count), np.int64),
            "position_ids": np.arange(position, position + count, dtype=np.int64)[None],
        }
        (logits,) = bound.run(["logits"], feeds)
        stats = session.stats()
        compiled.append(stats["compiled_kernels"] + stats.get("specialized_kernels", 0))
        return int(np.asarray(logits)[0, -1].argmax())

    cold = decode(step, first, tokens)
    bound.reset()
    warm = decode(step, first, tokens)
    stats = session.stats()
    return warm, {
        "cold": cold.tokens_per_second,
        "graphs": stats.get("graphs", 0) - graphs,
        "compiled_late": compiled[-1] - compiled[1],
        "state_copies": stats["state_copies"],
        "same": cold.tokens == warm.tokens,
    }


def llama(device: torch.device, dtype: torch.dtype, layers: int = 16, vocabulary: int = 128256) -> nn.Module:
    """Llama 3.2 1B with random weights. Raises ImportError without transformers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=2048, intermediate_size=8192, num_hidden_layers=layers, num_attention_heads=32,
        num_key_value_heads=8, head_dim=64, rms_norm_eps=1e-5, rope_theta=500000.0, max_position_embeddings=131072,
        tie_word_embeddings=True, attn_implementation="sdpa",
    )  # fmt: skip
    with device:
        return LlamaForCausalLM(config).eval().requires_grad_(False).to(dtype)


def decode_dynamic(model: nn.Module, first: list[int], device: torch.device, tokens: int = TOKENS) -> Decoded:
    """Decode eagerly with a cache that grows by concatenation, twice; the second sequence."""
    from transformers import DynamicCache

    decoded = None
    for _ in range(2):
        cache = DynamicCache()

        @torch.inference_mode()
        def step(new: list[int], position: int, cache: Any = cache) -> int:
            logits = model(torch.tensor([new], device=device), past_key_values=cache, use_cache=True).logits
            return int(logits[0, -1].argmax())

        decoded = decode(step, first, tokens)
    assert decoded is not None
    return decoded


def decode_static(
    model: nn.Module, first: list[int], device: torch.device, tokens: int = TOKENS, *, graph: bool = False
) -> Decoded:
    """Decode with a cache of fixed size; with `graph`, a token is one CUDA graph.

    Raises whatever transformers and PyTorch raise where such a cache cannot be captured.
    """
    from transformers import StaticCache

    cache = StaticCache(config=model.config, max_cache_len=CAPACITY)
    ids = torch.zeros((1, 1), dtype=torch.int64, device=device)
    replay: Callable[[], None] | None = None

    @torch.inference_mode()
    def forward(tokens_in: Tensor) -> Tensor:
        return model(tokens_in, past_key_values=cache, use_cache=True).logits[0, -1].argmax()

    @torch.inference_mode()
    def step(new: list[int], position: int) -> int:
        if len(new) > 1:
            return int(forward(torch.tensor([new], device=device)))
        ids.fill_(new[0])
        if replay is None:
            return int(forward(ids))
        replay()
        return int(replay.result)  # type: ignore[attr-defined]

    decode(step, first, 4)
    if graph:
        replay = captured(lambda: forward(ids))
    with torch.inference_mode():
        cache.reset()
    return decode(step, first, tokens)
