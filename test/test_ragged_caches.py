"""Batches whose sequences have different lengths in one cache: GroupQueryAttention, and Attention over caches of fixed size.

Peers are ONNX Runtime, where it takes such a batch (one new position each), and numpy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from fake_cuda import install
from numpy_gpu import numpy_session
from test_onnx_lowering import Case, Lowered, reference, relative_error

import ingot
from ingot.errors import InputError, ModelError
from ingot.runtime import cuda_device

HEADS, KV_HEADS, SIZE, POSITIONS = 4, 2, 16, 32
ANGLES = np.random.default_rng(3).random((POSITIONS, SIZE // 2)) * 3
ROTARY = {"c": np.cos(ANGLES).astype(np.float32), "n": np.sin(ANGLES).astype(np.float32)}


@dataclass(frozen=True)
class Variant:
    """A GroupQueryAttention.

    Attributes:
        attributes: beyond the numbers of heads.
        softcap, window, interleaved: what `attributes` say, for the peer.
        rotary: whether keys and queries are turned.
        batch: its size, or its name.
    """

    attributes: str = ""
    softcap: float = 0.0
    window: int = 0
    rotary: bool = False
    interleaved: bool = False
    batch: str | int = "B"
    ids: bool = False

    def model(self) -> onnx.ModelProto:
        heads = f"num_heads = {HEADS}, kv_num_heads = {KV_HEADS}"
        rest = ", c, n" if self.rotary else ""
        rest += ", i" if self.ids else ""
        nodes = f"y, nk, nv = GroupQueryAttention <{heads}{self.attributes}> (q, k, v, pk, pv, l, t{rest})"
        b = self.batch
        inputs: dict[str, Any] = {
            "q": ("f", [b, "S", HEADS * SIZE]), "k": ("f", [b, "S", KV_HEADS * SIZE]), "v": ("f", [b, "S", KV_HEADS * SIZE]),
            "pk": ("f", [b, KV_HEADS, "P", SIZE]), "pv": ("f", [b, KV_HEADS, "P", SIZE]), "l": ("i", [b]), "t": ("i", []),
        }  # fmt: skip
        if self.ids:
            inputs["i"] = ("l", [b, "S"])
        return Case(
            nodes, inputs, [], ROTARY if self.rotary else {}, outputs=["y", "nk", "nv"], domain="com.microsoft"
        ).model()


VARIANTS = {
    "plain": Variant(),
    "rotary": Variant(", do_rotary = 1", rotary=True),
    "interleaved": Variant(", do_rotary = 1, rotary_interleaved = 1", rotary=True, interleaved=True),
    "position_ids": Variant(", do_rotary = 1", rotary=True, ids=True),
    "window": Variant(", local_window_size = 3", window=3),
    "softcap": Variant(", softcap = 2.0", softcap=2.0),
    "all": Variant(", do_rotary = 1, local_window_size = 4, softcap = 3.0", 3.0, 4, rotary=True),
    "static_batch": Variant(", do_rotary = 1", rotary=True, batch=3),
}


@dataclass
class Sequences:
    """The sequences of a batch, in numpy: all keys (turned) and values that each has, without padding."""

    variant: Variant
    keys: list[np.ndarray] = field(default_factory=list)  # [KV_HEADS, length, SIZE] each
    values: list[np.ndarray] = field(default_factory=list)

    def append(self, feeds: dict[str, np.ndarray], counts: list[int]) -> list[np.ndarray]:
        """What the first `counts[b]` new positions of each sequence see, [count, HEADS * SIZE]."""
        outputs = []
        for b, count in enumerate(counts):
            if b == len(self.keys):
                self.keys.append(np.zeros((KV_HEADS, 0, SIZE)))
                self.values.append(np.zeros((KV_HEADS, 0, SIZE)))
            start = self.keys[b].shape[1]
            q, k, v = (
                feeds[n][b, :count].reshape(count, feeds[n].shape[2] // SIZE, SIZE).swapaxes(0, 1).astype(np.float64)
                for n in ("q", "k", "v")
            )
            places = start + np.arange(count)
            q, k = self._turned(q, places), self._turned(k, places)
            self.keys[b] = np.concatenate([self.keys[b], k], 1)
            self.values[b] = np.concatenate([self.values[b], v], 1)
            outputs.append(self._attend(q, self.keys[b], self.values[b], places))
        return outputs

    def _turned(self, x: np.ndarray, places: np.ndarray) -> np.ndarray:
        if not self.variant.rotary:
            return x
        cos, sin = ROTARY["c"][places], ROTARY["n"][places]
        first, second = (x[..., ::2], x[..., 1::2]) if self.variant.interleaved else np.split(x, 2, -1)
        pair = first * cos - second * sin, second * cos + first * sin
        return np.stack(pair, -1).reshape(x.shape) if self.variant.interleaved else np.concatenate(pair, -1)

    def _attend(self, q: np.ndarray, k: np.ndarray, v: np.ndarray, places: np.ndarray) -> np.ndarray:
        group = HEADS // KV_HEADS
        scores = q @ np.repeat(k, group, 0).swapaxes(1, 2) / np.sqrt(SIZE)
        if self.variant.softcap:
            scores = np.tanh(scores / self.variant.softcap) * self.variant.softcap
        ahead = np.arange(k.shape[1]) - places[:, None]
        seen = ahead <= 0 if not self.variant.window else (ahead <= 0) & (ahead > -self.variant.window)
        e = np.exp(np.where(seen, scores, -np.inf))
        y = (e / e.sum(-1, keepdims=True)) @ np.repeat(v, group, 0)
        return y.swapaxes(0, 1).reshape(len(places), HEADS * SIZE)


@dataclass(frozen=True)
class Step:
    """New positions of each sequence, as many as the longest has; what is behind the others' own is padding."""

    counts: list[int]


# A prompt that is padded on the right, single positions, and three new positions of each sequence.
STEPS = [Step([5, 2, 4]), *[Step([1, 1, 1])] * 3, Step([3, 3, 3]), Step([1, 1, 1])]


def calls(variant: Variant, seed: int = 0) -> Iterator[tuple[dict[str, np.ndarray], list[int], list[int]]]:
    """(inputs without the cache, new positions, lengths after the call) of each step."""
    rng = np.random.default_rng(seed)
    lengths = [0, 0, 0]
    for step in STEPS:
        s = max(step.counts)
        starts = list(lengths)
        lengths = [a + b for a, b in zip(lengths, step.counts, strict=True)]
        feeds = {
            "q": rng.standard_normal((3, s, HEADS * SIZE)), "k": rng.standard_normal((3, s, KV_HEADS * SIZE)),
            "v": rng.standard_normal((3, s, KV_HEADS * SIZE)),
        }  # fmt: skip
        feeds = {name: x.astype(np.float32) for name, x in feeds.items()}
        feeds |= {"l": np.array(lengths, np.int32) - 1, "t": np.array(max(lengths), np.int32)}
        if variant.ids:
            feeds["i"] = np.array([[a + i for i in range(s)] for a in starts], np.int64)
        yield feeds, step.counts, lengths


def check_rows(y: np.ndarray, expected: list[np.ndarray]) -> None:
    for found, wanted in zip(y, expected, strict=True):
        assert relative_error(found[: len(wanted)], wanted) <= 3e-6


def empty_cache() -> dict[str, np.ndarray]:
    return {name: np.zeros((3, KV_HEADS, 0, SIZE), np.float32) for name in ("pk", "pv")}


@pytest.mark.parametrize("name", VARIANTS)
def test_generation_step_by_step(name: str) -> None:
    """In the interpreter, and in compiled kernels; every row of the cache that counts, too."""
    variant = VARIANTS[name]
    lowered, session = Lowered(variant.model()), ingot.Session(ingot.compile(variant.model()), "cpu")
    sequences, cache = Sequences(variant), empty_cache()
    for feeds, counts, lengths in calls(variant):
        expected = sequences.append(feeds, counts)
        given = {**feeds, **cache}
        interpreted = lowered.run(given)
        y, keys, values = session.run(None, given)
        for outputs in ((interpreted["y"], interpreted["nk"], interpreted["nv"]), (y, keys, values)):
            check_rows(outputs[0], expected)
            for b, length in enumerate(lengths):
                np.testing.assert_allclose(outputs[1][b, :, :length], sequences.keys[b], rtol=1e-5, atol=1e-5)
                np.testing.assert_allclose(outputs[2][b, :, :length], sequences.values[b], rtol=1e-5, atol=1e-5)
            assert np.isfinite(outputs[1]).all()
        cache = {"pk": keys, "pv": values}
    session.close()


@pytest.mark.parametrize("name", VARIANTS)
def test_onnx_runtime_says_the_same(name: str) -> None:
    """It takes a prompt, and then one position at a time; caches are its own."""
    variant = VARIANTS[name]
    oracle, session = reference(variant.model()), ingot.Session(ingot.compile(variant.model()), "cpu")
    theirs, ours = empty_cache(), empty_cache()
    for feeds, counts, lengths in list(calls(variant))[:4]:
        wanted, *presents = oracle.run(None, {**feeds, **theirs})
        y, *grown = session.run(None, {**feeds, **ours})
        for b, count in enumerate(counts):
            assert relative_error(y[b, :count], wanted[b, :count]) <= 5e-6
        for mine, other in zip(grown, presents, strict=True):
            for b, length in enumerate(lengths):
                np.testing.assert_allclose(mine[b, :, :length], other[b, :, :length], rtol=1e-5, atol=1e-5)
        theirs, ours = (dict(zip(("pk", "pv"), caches, strict=True)) for caches in (presents, grown))
    session.close()


def test_a_sequence_with_an_empty_past() -> None:
    """It begins beside sequences that have one: with one position, and with three."""
    variant = VARIANTS["rotary"]
    session = ingot.Session(ingot.compile(variant.model()), "cpu")
    rng = np.random.default_rng(5)
    for s in (1, 3):
        sequences, cache = Sequences(variant), empty_cache()
        for counts, lengths in (([4, 2, 0], [4, 2, 0]), ([s, s, s], [4 + s, 2 + s, s])):
            feeds = {n: rng.standard_normal((3, max(counts), w * SIZE)).astype(np.float32)
                     for n, w in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS))}  # fmt: skip
            feeds |= {"l": np.array(lengths, np.int32) - 1, "t": np.array(max(lengths), np.int32)}
            expected = sequences.append(feeds, counts)
            y, keys, values = session.run(None, {**feeds, **cache})
            check_rows(y, expected)
            cache = {"pk": keys, "pv": values}
    session.close()


def test_lengths_that_cannot_be_give_no_number() -> None:
    """Beyond the cache; and, in a batch of one, before its end: there is no other sequence that could have made it longer."""
    session = ingot.Session(ingot.compile(VARIANTS["plain"].model()), "cpu")

    def run(lengths: list[int]) -> np.ndarray:
        batch = len(lengths)
        rng = np.random.default_rng(1)
        feeds = {n: rng.standard_normal((batch, 1, w * SIZE)).astype(np.float32)
                 for n, w in (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS))}  # fmt: skip
        feeds |= {n: rng.standard_normal((batch, KV_HEADS, 3, SIZE)).astype(np.float32) for n in ("pk", "pv")}
        feeds |= {"l": np.array(lengths, np.int32) - 1, "t": np.array(4, np.int32)}
        return np.isnan(session.run(["y"], feeds)[0]).all(axis=(1, 2))

    assert run([4, 3, 1]).tolist() == [False, False, False]
    assert run([4, 5, 2]).tolist() == [False, True, False]
    assert run([4]).tolist() == [False]
    assert run([3]).tolist() == [True]
    session.close()


def check_donated(session: ingot.Session, variant: Variant) -> None:
    """Generate with caches that stay where they are."""
    bound = session.bind(donate=True, capacity=64)
    sequences, first = Sequences(variant), empty_cache()
    for feeds, counts, _ in calls(variant):
        expected = sequences.append(feeds, counts)
        (y,) = bound.run(["y"], {**feeds, **first})
        first = {}
        check_rows(y, expected)
    assert set(bound.lengths.values()) == {sum(max(step.counts) for step in STEPS)}
    assert session.stats()["state_copies"] == 0


@pytest.mark.parametrize("name", ["rotary", "window"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_donated_caches_are_never_copied(name: str, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    variant = VARIANTS[name]
    engine = ingot.compile(variant.model())
    if device == "cpu":
        session = ingot.Session(engine, "cpu")
    else:
        session, _ = numpy_session(engine, install(monkeypatch), monkeypatch, specialize="none")
    check_donated(session, variant)
    session.close()


def test_a_batch_of_one_launches_no_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it launches for a position, kernel by kernel, is what a model of batches of one does, and the lengths; several
    sequences take two copies and two scatters besides. As many graphs serve all lengths of a bucket."""

    def generate(variant: Variant, batch: int) -> tuple[int, int]:
        session, cuda = numpy_session(
            ingot.compile(variant.model()), install(monkeypatch), monkeypatch, specialize="none"
        )
        bound = session.bind(donate=True, capacity=64)
        first = {name: np.zeros((batch, KV_HEADS, 0, SIZE), np.float32) for name in ("pk", "pv")}
        launches, length = [], 0
        for count in [5, *[1] * 8]:
            length += count
            widths = {"q": HEADS * SIZE, "k": KV_HEADS * SIZE, "v": KV_HEADS * SIZE}
            feeds = {n: np.ones((batch, count, w), np.float32) for n, w in widths.items()}
            cuda.log.clear()
            bound.run(["y"], {**feeds, **first, "l": np.full(batch, length - 1, np.int32), "t": np.array(length, np.int32)})
            launches.append(len(cuda.named("launch")))
            first = {}
        graphs = session.stats()["graphs"]
        session.close()
        return launches[1], graphs

    alone, graphs = generate(Variant(", do_rotary = 1", rotary=True, batch=1), 1)
    assert generate(VARIANTS["rotary"], 1) == (alone + 1, graphs)
    assert generate(VARIANTS["rotary"], 3) == (alone + 5, graphs)


# Attention over caches of a fixed size (ONNX, Attention since 24: nonpad_kv_seqlen; TensorScatter) -----------------------

STORED = 24
FIXED: dict[str, Any] = {
    "q": ("f", ["B", HEADS, "S", SIZE]), "k": ("f", ["B", KV_HEADS, "S", SIZE]), "v": ("f", ["B", KV_HEADS, "S", SIZE]),
    "pk": ("f", ["B", KV_HEADS, STORED, SIZE]), "pv": ("f", ["B", KV_HEADS, STORED, SIZE]), "w": ("l", ["B"]),
    "n": ("l", ["B"]),
}  # fmt: skip
ATTENTIONS = {
    "all": "", "causal": "<is_causal = 1>", "softcap": "<is_causal = 1, softcap = 2.0>",
    "scores": "<is_causal = 1, qk_matmul_output_mode = 2>",
}  # fmt: skip


def fixed(attributes: str, outputs: str = "y") -> Case:
    nodes = f"""nk = TensorScatter <axis = 2> (pk, k, w)
        nv = TensorScatter <axis = 2> (pv, v, w)
        {outputs} = Attention {attributes} (q, nk, nv, , , , n)"""
    return Case(nodes, FIXED, [], outputs=["y", "nk", "nv"], opset=24)


def fixed_calls() -> Iterator[dict[str, np.ndarray]]:
    """New positions of each sequence behind its own, without the caches; lengths of some are less than the queries'."""
    rng = np.random.default_rng(2)
    starts = np.array([7, 0, 3])
    for s in (4, 1, 1):
        yield {
            "q": rng.standard_normal((3, HEADS, s, SIZE)).astype(np.float32),
            "k": rng.standard_normal((3, KV_HEADS, s, SIZE)).astype(np.float32),
            "v": rng.standard_normal((3, KV_HEADS, s, SIZE)).astype(np.float32),
            "w": starts, "n": starts + s - (s == 4) * np.array([0, 1, 0]),
        }  # fmt: skip
        starts = starts + s


@pytest.mark.parametrize("name", ATTENTIONS)
def test_caches_of_a_fixed_size(name: str) -> None:
    case = fixed(ATTENTIONS[name], "y, , , z" if name == "scores" else "y")
    if name == "scores":
        case.outputs = ["y", "nk", "nv", "z"]
    made = case.model()
    oracle, lowered, session = reference(made), Lowered(made), ingot.Session(ingot.compile(made), "cpu")
    cache = {n: np.random.default_rng(1).standard_normal((3, KV_HEADS, STORED, SIZE)).astype(np.float32) for n in ("pk", "pv")}
    for feeds in fixed_calls():
        given = {**feeds, **cache}
        expected = oracle.run(None, given)
        interpreted = lowered.run(given)
        for outputs in ([interpreted[n] for n in case.outputs], session.run(None, given)):
            for found, wanted in zip(outputs, expected, strict=True):
                np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5)
        cache = {"pk": expected[1], "pv": expected[2]}
    session.close()


def test_lengths_beside_a_past_are_refused() -> None:
    nodes = "y, nk, nv = Attention (q, k, v, , pk, pv, n)"
    inputs = {n: FIXED[n] for n in ("q", "k", "v", "pk", "pv", "n")}
    with pytest.raises(ModelError, match=r"nonpad_kv_seqlen beside past_key is not supported \(append by TensorScatter"):
        Lowered(Case(nodes, inputs, [], outputs=["y", "nk", "nv"], opset=24).model())


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("given", [True, False])
def test_donated_caches_of_a_fixed_size(device: str, given: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """They stay where they are; zeros where the first call gives none."""
    engine = ingot.compile(fixed(ATTENTIONS["causal"]).model())
    if device == "cpu":
        session = ingot.Session(engine, "cpu")
    else:
        session, cuda = numpy_session(engine, install(monkeypatch), monkeypatch, specialize="none")
        monkeypatch.setattr(cuda_device, "SMALL", -1)  # a copy for each input
    bound, feeds = check_donated_of_a_fixed_size(session, given)
    if device == "cuda":
        cuda.log.clear()
        bound.run(["y"], {**feeds, "w": np.array([9, 9, 9]), "n": np.array([10, 10, 10])})
        assert {entry[1] for entry in cuda.named("upload")} == {feeds[n].nbytes for n in ("q", "k", "w")}
        assert cuda.named("allocate", "allocate_async") == []
    session.close()


def check_donated_of_a_fixed_size(session: ingot.Session, given: bool) -> tuple[Any, dict[str, np.ndarray]]:
    """Generate by `fixed(ATTENTIONS["causal"])`; the bound session, and what was last fed."""
    oracle = reference(fixed(ATTENTIONS["causal"]).model())
    bound = session.bind(donate=True)
    rng = np.random.default_rng(1)
    cache = {n: given * rng.standard_normal((3, KV_HEADS, STORED, SIZE)).astype(np.float32) for n in ("pk", "pv")}
    first = cache if given else {}
    for feeds in fixed_calls():
        expected = oracle.run(None, {**feeds, **cache})
        y, keys, values = bound.run(None, {**feeds, **first})
        first, cache = {}, {"pk": expected[1], "pv": expected[2]}
        for found, wanted in zip((y, np.asarray(keys), np.asarray(values)), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5)
    bound.reset()
    assert bound.lengths == {}
    assert session.stats()["state_copies"] == 0
    return bound, feeds


def test_an_input_that_is_read_again_is_not_donated() -> None:
    nodes = """nk = TensorScatter <axis = 2> (pk, k, w)
        y = Add (nk, pk)"""
    made = Case(nodes, {n: FIXED[n] for n in ("pk", "k", "w")}, [], outputs=["y", "nk"], opset=24).model()
    session = ingot.Session(ingot.compile(made), "cpu")
    with pytest.raises(InputError, match="donatable are: none"):
        session.bind(donate=["pk"])
    session.close()
