"""Fixtures that all suites share."""

from __future__ import annotations

import fcntl
import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says something of the machine's other work, and nothing of the code.
settings.register_profile("ingot", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ingot")

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "test"), str(ROOT / "test" / "zoo")]
FILLED = ROOT / "build" / "zoo"


def pytest_collection_finish() -> None:
    """Collect garbage seldom: kernels have many handles, mostly free of cycles, and walking them took a tenth of the time."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@pytest.fixture(scope="session")
def zoo_model():
    """A function from a model's name to the folder where it is filled, with references.

    Models stay filled from run to run. A lock for each keeps the processes of one run from filling it at the same time.
    """
    import zoo

    def fill(name: str) -> Path:
        FILLED.mkdir(parents=True, exist_ok=True)
        with (FILLED / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return zoo.fill(name, FILLED)

    return fill


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A runtime cache of this run's own, so that no test meets what an earlier run left."""
    patch = pytest.MonkeyPatch()
    patch.setenv("INGOT_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()
