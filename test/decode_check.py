"""Decoding with a donated cache, for every device: tokens one by one, and no compiler from the third token on."""

from __future__ import annotations

from typing import Any

import numpy as np
import zoo

TOKENS = 256


class NoCompiler:
    """Stands in for a session's compile server once nothing may be compiled any more."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the compile server was asked ({name}) after the second token")


def check_decoding(session: Any) -> None:
    """Decode 256 tokens of a llama_kv of the zoo; every 32nd token's logits equal those of a run over the whole sequence."""
    inputs = {i.name for i in session.get_inputs()}
    tokens = np.random.default_rng(0).integers(0, 2000, (1, TOKENS))
    bound = session.bind(donate=True, capacity=TOKENS)
    client, kept = session._loader.client, {}
    for t in range(TOKENS):
        if t == 2:
            session._loader.client = NoCompiler()
        feeds = {
            "input_ids": tokens[:, t : t + 1],
            "attention_mask": np.ones((1, t + 1), np.int64),
            "position_ids": np.array([[t]], np.int64),
        }
        (logits,) = bound.run(["logits"], {n: a for n, a in feeds.items() if n in inputs})
        if t % 32 == 31:
            kept[t] = logits[:, -1].copy()
    session._loader.client = client
    stats = session.stats()
    assert stats["state_copies"] == 0
    assert stats.get("graphs", 0) <= 10
    states = [i for i in session.get_inputs() if i.name.startswith("past")]
    empty = {i.name: np.zeros((1, i.shape[1], 0, i.shape[3]), np.float32) for i in states}
    for t, logits in kept.items():
        whole = {
            "input_ids": tokens[:, : t + 1],
            "attention_mask": np.ones((1, t + 1), np.int64),
            "position_ids": np.arange(t + 1)[None],
            **empty,
        }
        (expected,) = session.run(["logits"], {n: a for n, a in whole.items() if n in inputs})
        assert zoo.relative_error(logits, expected[:, -1]) <= 1e-4
