"""Decoding with donated states in the CUDA runtime, on a GPU whose kernels are numpy's: what a token does."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
from fake_cuda import FakeCuda, FakeDriver, install
from numpy_gpu import numpy_session
from test_sizes_from_inputs import Case

import ingot

LAYERS = """g (float[B, S, 4] x, float[B, T] mask, float[B, P, 4] past_a, float[B, P, 4] past_b)
    => (float[B, S, 4] y, float[B, T, 4] a, float[B, T, 4] b) {
        h = Tanh(x)
        a = Concat <axis = 1> (past_a, x)
        b = Concat <axis = 1> (past_b, h)
        axes = Constant <value_ints = [2]> ()
        m = Unsqueeze(mask, axes)
        one = Constant <value_ints = [1]> ()
        am = Mul(a, m)
        at = ReduceSum <keepdims = 1> (am, one)
        bt = ReduceMax <keepdims = 1> (b, one)
        both = Add(at, bt)
        y = Add(both, h) }"""


@pytest.fixture(autouse=True)
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    return install(monkeypatch)


class Decoder:
    """A bound session, and what it should say, by numpy."""

    def __init__(self, session: ingot.Session, donate: Any = True, capacity: int = 64) -> None:
        self.bound = session.bind(donate=donate, capacity=capacity)
        self.kept = [f"past_{c}" for c in "ab" if donate is not True and f"past_{c}" not in donate]
        self.rng = np.random.default_rng(0)
        self.begin(2)

    def begin(self, batch: int) -> None:
        """Begin a new sequence."""
        self.bound.reset()
        self.x = np.zeros((batch, 0, 4), np.float32)

    def feeds(self, count: int) -> dict[str, np.ndarray]:
        """The inputs of the next `count` positions."""
        batch, length, _ = self.x.shape
        x = self.rng.standard_normal((batch, count, 4)).astype(np.float32)
        mask = self.rng.integers(0, 2, (batch, length + count)).astype(np.float32)
        states = {"past_a": self.x, "past_b": np.tanh(self.x)}
        return {"x": x, "mask": mask, **{name: states[name] for name in self.kept}}

    def step(self, count: int = 1) -> None:
        """Run `count` positions and compare."""
        feeds = self.feeds(count)
        y, b = self.bound.run(["y", "b"], feeds)
        self.x = np.concatenate([self.x, feeds["x"]], 1)
        h = np.tanh(self.x)
        expected = (self.x * feeds["mask"][..., None]).sum(1, keepdims=True) + h.max(1, keepdims=True) + h[:, -count:]
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(np.asarray(b), h, rtol=1e-6)


def make(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch, mode: str = "eager") -> tuple[ingot.Session, FakeCuda]:
    return numpy_session(ingot.compile(Case(LAYERS, []).model()), driver, monkeypatch, specialize=mode)


@pytest.mark.parametrize("mode", ["none", "eager"])
def test_a_token_updates_no_node_and_moves_no_memory(mode: str, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    session, cuda = make(driver, monkeypatch, mode)
    decoder = Decoder(session)
    decoder.step(5)
    for _ in range(3):  # kernel by kernel, captured, replayed
        decoder.step()
    driver.updates.clear()
    cuda.log.clear()
    replays, graphs = driver.replays, session.stats()["graphs"]
    for _ in range(40):
        decoder.step()
    assert driver.updates == []
    assert driver.replays - replays == 40
    assert session.stats()["graphs"] == graphs
    assert cuda.named("allocate", "free", "launch") == []
    assert len(cuda.named("upload")) == 2 * 40  # x with the mask, and the sizes
    assert session.stats()["state_copies"] == 0


def test_buffers_that_grow_and_other_batches(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    session, cuda = make(driver, monkeypatch)
    decoder = Decoder(session, capacity=1)
    for batch, steps in ((2, (3, *[1] * 70)), (3, (2, *[1] * 20)), (3, (1, 1, 4, 1)), (2, (40, *[1] * 30))):
        decoder.begin(batch)
        for count in steps:
            decoder.step(count)
    assert session.stats()["state_copies"] == 4  # both states, in the first sequence and in the last
    session.close()
    del session, decoder
    gc.collect()
    assert cuda.memory == {}


def test_one_of_two_states_is_donated(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    session, _ = make(driver, monkeypatch)
    decoder = Decoder(session, ["past_b"])
    decoder.step(3)
    for _ in range(4):
        decoder.step()
    graphs = session.stats()["graphs"]
    for _ in range(20):
        decoder.step()
    assert session.stats()["graphs"] == graphs


def test_sequences_in_turn(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bound sessions share a context: what lies where is found anew, and buffers go with their session."""
    session, cuda = make(driver, monkeypatch)
    decoders = [Decoder(session) for _ in range(2)]
    for count in (4, *[1] * 10):
        for decoder in decoders:
            decoder.step(count)
    assert session.stats()["contexts"] == 1
    before = len(cuda.memory)
    del decoders, decoder
    gc.collect()
    assert len(cuda.memory) == before - 4


def test_a_call_that_fails_leaves_the_sequence_as_it_was(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    session, cuda = make(driver, monkeypatch)
    decoder = Decoder(session)
    for count in (4, *[1] * 5):
        decoder.step(count)
    lengths = decoder.bound.lengths

    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    for name in ("upload", "synchronize"):
        with monkeypatch.context() as patch:
            patch.setattr(cuda, name, interrupt)
            with pytest.raises(KeyboardInterrupt):
                decoder.bound.run(["y"], decoder.feeds(1))
        assert decoder.bound.lengths == lengths
    with pytest.raises(ingot.Error, match=r"mask: axis 0 is B"):
        decoder.bound.run(["y"], {**decoder.feeds(1), "mask": np.ones((3, 10), np.float32)})
    with pytest.raises(ingot.Error, match=r"past_a: this state is the session's"):
        decoder.bound.run(["y"], {**decoder.feeds(1), "past_a": decoder.x})
    assert decoder.bound.lengths == lengths
    for _ in range(5):
        decoder.step()
