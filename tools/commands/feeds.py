"""Inputs for `ingot run` and `ingot bench`, read from files or drawn at random, and files of outputs."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ingot.dtypes import ONNX_TYPE_BY_NAME, onnx_numpy
from ingot.errors import Error, InputError

if TYPE_CHECKING:
    from ingot.runtime.session import Session

DEFAULT_DIM = 1
_MOST_ELEMENTS = 1 << 36  # of a random input


def parse_dims(texts: Sequence[str]) -> dict[str, int]:
    """`("batch=2", "seq=128")` as a dictionary. Raises InputError quoting the text at fault."""
    dims = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not value.isdecimal() or len(value) > 18:
            raise InputError(f"--dim {text!r} is not NAME=SIZE", cure="give a number, as in N=3")
        dims[name] = int(value)
    return dims


def read_npz(path: Path, inputs: Sequence[Any]) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, float32 ones converted where a session's input has a type that numpy's files have not.

    Raises InputError where the file is none.
    """
    cure = "give an .npz file of arrays named as the inputs"
    try:
        found = np.load(path, allow_pickle=False)
        if not isinstance(found, np.lib.npyio.NpzFile):
            raise InputError("holds one array, without a name", node=str(path), cure=cure)
        with found:
            arrays = dict(found)
    except OSError as e:
        raise InputError(f"cannot read inputs: {e.strerror or e}", node=str(path), cure=cure) from e
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as e:
        raise InputError("cannot read inputs: not an .npz file of arrays, or damaged", node=str(path), cure=cure) from e
    for spec in inputs:
        dtype = _numpy_type(spec.type)
        if spec.name in arrays and dtype.kind == "V" and arrays[spec.name].dtype == np.float32:
            arrays[spec.name] = arrays[spec.name].astype(dtype)
    return arrays


def _numpy_type(text: str) -> np.dtype:
    """The numpy type of ONNX Runtime's spelling `tensor(float)`."""
    return onnx_numpy(ONNX_TYPE_BY_NAME[text.removeprefix("tensor(").removesuffix(")")])


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an .npz file; types that numpy's files do not have (bfloat16) as float32. Raises Error where that fails."""
    try:
        # `np.savez` adds a suffix to the path, and takes no array named `file`.
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as file:
            for name, array in arrays.items():
                with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                    stored = array.astype(np.float32) if array.dtype.kind == "V" else array
                    np.lib.format.write_array(member, np.asanyarray(stored), allow_pickle=False)
    except OSError as e:
        raise Error(f"cannot write: {e.strerror or e}", node=str(path), cure="give a writable path") from e


def choose_feeds(session: Session, inputs: Path | None, dims: Sequence[str], seed: int = 0) -> dict[str, np.ndarray]:
    """The arrays of the file `inputs` where it is given, else random ones of sizes `dims`. Raises InputError."""
    if inputs is None:
        return random_feeds(session, parse_dims(dims), seed)
    if dims:
        raise InputError(f"--dim {dims[0]} is for random inputs, and --inputs gives a file", cure="leave one of them out")
    return read_npz(inputs, session.get_inputs())


def random_feeds(session: Session, dims: dict[str, int], seed: int = 0) -> dict[str, np.ndarray]:
    """Random arrays for a session's inputs: standard normal floats, zeros and ones elsewhere; sizes not given are 1, those that
    are elements of inputs among them.

    Raises InputError where `dims` names a dimension that no input has.
    """
    from ingot import dims as expressions

    inputs, elements = session.get_inputs(), session.get_size_elements()
    shapes = [tuple(map(expressions.as_dim, spec.shape)) for spec in inputs]
    given = {name for named in elements.values() for name in named.values()}
    known = sorted(given.union(*map(expressions.symbols_of, shapes)))
    for name in dims:
        if name not in known:
            named = f"its dimensions are {', '.join(known)}" if known else "its sizes are all fixed"
            raise InputError(f"--dim {name}: no input has this dimension", cure=named)
    rng = np.random.default_rng(seed)
    env = {name: dims.get(name, DEFAULT_DIM) for name in known}
    feeds = {}
    for spec, sizes in zip(inputs, shapes, strict=True):
        shape = [expressions.evaluate(d, env) for d in sizes]
        dtype = _numpy_type(spec.type)
        described = f"a random array of shape {shape}"
        if min(shape, default=0) < 0:
            raise InputError(f"{described} is impossible", node=spec.name, cure="give larger sizes by --dim")
        if math.prod(shape) > _MOST_ELEMENTS:
            raise InputError(f"{described} is too large", node=spec.name, cure="give smaller sizes by --dim")
        if dtype.kind in "iub":
            feeds[spec.name] = rng.integers(0, 2, shape).astype(dtype)
            for number, name in elements.get(spec.name, {}).items():
                feeds[spec.name].reshape(-1)[number] = env[name]
        else:
            feeds[spec.name] = rng.standard_normal(shape, dtype=np.float32).astype(dtype)
    return feeds
