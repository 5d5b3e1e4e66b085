"""Memory of outputs that stay on the GPU: kept when callers let it go, and given again once the GPU is done with it."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from fake_cuda import FakeCuda, FakeDriver, install
from test_cuda_context import call, make, on_device

from ingot.errors import DeviceError
from ingot.runtime import cuda_output_memory
from ingot.runtime.cuda_output_memory import OutputPool


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    return install(monkeypatch)


def test_calls_in_a_row_use_two_pieces_in_turn(driver: FakeDriver) -> None:
    cuda = FakeCuda()
    executable, binder = make(cuda)
    context = executable.new_context()
    driver.on_launch = cuda.on_launch
    x = on_device(cuda, np.arange(4, dtype=np.float32))
    found, y = [], None
    for _ in range(6):
        ((y,), _) = context.run(call(binder, x))
        found.append(y.address)
        np.testing.assert_array_equal(y.numpy(), np.arange(4) + 2)
    assert found[:2] * 3 == found
    assert found[0] != found[1]
    cuda.log.clear()
    ((y,), _) = context.run(call(binder, x))
    assert cuda.named("allocate", "free") == []
    launched = cuda.log.index(("synchronize", context.stream))
    assert cuda.log.index(("synchronize_all",)) < launched  # before anything writes to it
    context.close()
    executable.close()
    del x, y
    gc.collect()
    assert cuda.memory == {}


def test_what_is_kept_has_limits_and_goes_with_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_output_memory, "_KEPT_BYTES", 5000)
    cuda = FakeCuda()
    pool = OutputPool(cuda)  # type: ignore[arg-type]
    pieces = [pool.take(500) for _ in range(6)]
    assert len({p.address for p in pieces}) == 6
    pieces.clear()
    assert len(cuda.memory) == 4
    pieces = [pool.take(4000)]
    del pieces
    assert len(cuda.memory) == 4  # 2000 + 4000 bytes are too many
    last = pool.take(500)
    pool.close()
    assert list(cuda.memory) == [last.address]
    del last
    assert cuda.memory == {}
    pool = OutputPool(cuda)  # type: ignore[arg-type]
    pool.take(500)
    assert len(cuda.memory) == 1
    del pool
    assert cuda.memory == {}


def test_what_is_kept_is_given_back_where_memory_is_missing() -> None:
    cuda = FakeCuda()
    pool = OutputPool(cuda)  # type: ignore[arg-type]
    pool.take(4096)
    cuda.limit = 5000
    big = pool.take(4500)
    assert list(cuda.memory) == [big.address]
    with pytest.raises(DeviceError, match="out of memory"):
        pool.take(4500)


def test_a_lost_gpu_has_nothing_to_free() -> None:
    cuda = FakeCuda()
    pool = OutputPool(cuda)  # type: ignore[arg-type]
    piece = pool.take(100)
    pool.take(100)
    cuda.fault = DeviceError("lost")
    with pytest.raises(DeviceError, match="lost"):
        pool.take(100)
    del piece, pool
    assert cuda.named("free") == []
