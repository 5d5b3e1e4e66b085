"""What `ingot run` and `ingot bench` take: an engine file, or an ONNX model that is compiled first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ingot.engine import Engine

MODEL_SUFFIXES = (".onnx", ".onnxtxt", ".textproto")


def open_engine(path: Path, progress: Callable[[str, int, int], None]) -> Engine:
    """The engine in a file, or that of the ONNX model in it. Raises EngineError or ModelError."""
    if path.suffix in MODEL_SUFFIXES:
        from ingot.compiler.driver import compile_model

        return compile_model(path, progress=progress)
    return Engine.load(path)
