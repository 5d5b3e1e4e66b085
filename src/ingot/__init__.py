"""Ingot: ONNX models become portable engines, and engines become native kernels on the GPU or CPU at hand.

The public names are loaded on first use, so that `import ingot` costs a few milliseconds.
"""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "Builder": "ingot.compiler.builder",
    "Engine": "ingot.engine",
    "Error": "ingot.errors",
    "Session": "ingot.runtime.session",
    "compile": "ingot.compiler.driver",
}
__version__ = "0.1.0"
__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'ingot' has no attribute {name!r}")
