"""Where numpy's arrays lie on the GPU from call to call."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from fake_cuda import FakeCuda

from ingot.errors import DeviceError
from ingot.runtime.cuda_staging import LARGE, SMALL, Landing, SmallInputs, Staging


def at(address: int, like: np.ndarray) -> np.ndarray:
    """What lies at an address."""
    return np.frombuffer(ctypes.string_at(address, like.nbytes), like.dtype).reshape(like.shape)


def test_memory_that_grows_a_little_stays() -> None:
    cuda, settled = FakeCuda(), []
    staging = Staging(cuda)  # type: ignore[arg-type]
    first = staging.address(100, lambda: settled.append(1))
    assert staging.address(4000, lambda: settled.append(2)) == first
    staging.address(1 << 20, lambda: settled.append(3))
    assert settled == [1, 3]
    assert len(cuda.memory) == 1
    staging.free()
    assert cuda.memory == {}


def test_small_inputs_come_in_one_copy_and_stay_where_they_are() -> None:
    cuda, rng, settled = FakeCuda(), np.random.default_rng(0), []
    small = SmallInputs(cuda)  # type: ignore[arg-type]
    places = []
    for length in range(1, 200):
        arrays = {0: np.array([[length]]), 2: np.arange(length), 5: rng.standard_normal((3, 7)).astype(np.float32)}
        found = small.upload(arrays, 7, lambda: settled.append(1))
        for i, array in arrays.items():
            np.testing.assert_array_equal(at(found[i], array), array)
            assert found[i] % 256 == 0
        places.append(found)
    assert len(cuda.named("upload")) == 199
    assert len({tuple(p.values()) for p in places}) == 2  # 1600 bytes of integers outgrow the first room
    assert settled == [1]
    assert cuda.named("upload")[0][1] < 8000


def test_small_inputs_that_are_empty_missing_or_of_the_largest_size() -> None:
    cuda = FakeCuda()
    small = SmallInputs(cuda)  # type: ignore[arg-type]
    one, most, none = np.arange(9, dtype=np.int32), np.arange(SMALL // 4, dtype=np.int32), np.zeros((0, 4), np.float32)
    for arrays in ({0: one, 1: one + 1}, {1: most, 2: none}, {0: most, 1: most + 1, 2: one}, {0: none, 2: none}):
        found = small.upload(arrays, 7, lambda: None)
        assert len(set(found.values())) == len(arrays)
        for i, array in arrays.items():
            np.testing.assert_array_equal(at(found[i], array), array)
    assert len(cuda.memory) == 1
    small.free()
    assert cuda.memory == {}


@pytest.mark.parametrize("pinned", [True, False])
def test_outputs_land_in_page_locked_memory_as_far_as_they_are_small(pinned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, rng = FakeCuda(), np.random.default_rng(0)
    if not pinned:

        def refuse(nbytes: int) -> int:
            raise DeviceError("no page-locked memory")

        monkeypatch.setattr(cuda, "pinned", refuse)
    landing = Landing(cuda)  # type: ignore[arg-type]
    for sizes in ((10,), (10, 0, 300), (LARGE // 8, 5, LARGE // 4, 7), (LARGE // 4,) * 6):
        sources = [rng.standard_normal(n).astype(np.float32 if n < LARGE // 8 else np.float64) for n in sizes]
        arrays = [np.zeros_like(a) for a in sources]
        landed = landing.download([(a, s.ctypes.data) for a, s in zip(arrays, sources, strict=True)], 7)
        small = [n for n, a in enumerate(arrays) if a.nbytes <= LARGE]
        assert [next(i for i, a in enumerate(arrays) if a is b) for b, _ in landed] == (small[:4] if pinned else [])
        for array, address in landed:
            assert not array.any()
            ctypes.memmove(array.ctypes.data, address, array.nbytes)
        for array, source in zip(arrays, sources, strict=True):
            np.testing.assert_array_equal(array, source)
    landing.free()
    assert cuda.memory == {}
