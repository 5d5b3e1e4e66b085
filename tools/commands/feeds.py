"""Inputs for `ingot run` and `ingot bench`: read from files, or drawn at random."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ingot.dtypes import ONNX_TYPE_BY_NAME, onnx_numpy
from ingot.errors import InputError

DEFAULT_DIM = 1


def parse_dims(texts: Sequence[str]) -> dict[str, int]:
    """`("batch=2", "seq=128")` as a dictionary. Raises InputError quoting the text at fault."""
    dims = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not value.isdigit():
            raise InputError(f"--dim {text!r} is not NAME=SIZE")
        dims[name] = int(value)
    return dims


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file. Raises InputError where it is none."""
    try:
        with np.load(path) as data:
            return dict(data)
    except (OSError, ValueError) as e:
        cure = "give an .npz file of arrays named as the inputs"
        raise InputError(f"cannot read inputs: {e}", node=str(path), cure=cure) from e


def random_feeds(inputs: Sequence[Any], dims: dict[str, int], seed: int = 0) -> dict[str, np.ndarray]:
    """Random arrays for a session's inputs: standard normal floats, zeros and ones elsewhere; sizes not given are 1."""
    from ingot import dims as expressions

    rng = np.random.default_rng(seed)
    feeds = {}
    for spec in inputs:
        shape = []
        for d in spec.shape:
            d = expressions.as_dim(d)
            env = {name: dims.get(name, DEFAULT_DIM) for name in expressions.symbols(d)}
            shape.append(expressions.evaluate(d, env))
        dtype = onnx_numpy(ONNX_TYPE_BY_NAME[spec.type.removeprefix("tensor(").removesuffix(")")])
        if dtype.kind in "iub":
            feeds[spec.name] = rng.integers(0, 2, shape).astype(dtype)
        else:
            feeds[spec.name] = rng.standard_normal(shape, dtype=np.float32).astype(dtype)
    return feeds
