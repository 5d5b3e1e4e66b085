"""Fixtures that all suites share."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "test"), str(ROOT / "test" / "zoo")]
FILLED = ROOT / "build" / "zoo"


@pytest.fixture(scope="session")
def zoo_model():
    """A function from a model's name to the folder where it is filled, with references."""
    import zoo

    return lambda name: zoo.fill(name, FILLED)
