"""Streams of other libraries, by their handles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ingot.errors import InputError

LEGACY_DEFAULT = 1  # CU_STREAM_LEGACY: what most libraries use unless told otherwise


@dataclass(frozen=True)
class CudaStream:
    """A user's stream: `handle` is a CUstream, `owner` what keeps it alive (a plain number keeps nothing alive)."""

    handle: int
    owner: Any = None


def as_stream(value: Any) -> CudaStream:
    """The stream that `value` is: a handle, an object with `__cuda_stream__` (cuda.core's protocol) or with `cuda_stream`
    (PyTorch's). Handle 0 is the legacy default stream. Raises InputError for anything else."""
    handle: Any = value
    if hasattr(value, "__cuda_stream__"):
        version, handle = value.__cuda_stream__()
        if version != 0:
            raise InputError(f"__cuda_stream__ has version {version}; 0 is known", cure="give the stream's handle")
    elif hasattr(value, "cuda_stream"):
        handle = value.cuda_stream
    if isinstance(handle, bool) or not isinstance(handle, int) or handle < 0:
        raise InputError(f"{value!r} is not a CUDA stream", cure="give its handle, or an object with __cuda_stream__")
    return CudaStream(handle or LEGACY_DEFAULT, value)
