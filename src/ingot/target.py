"""Targets as data: what a kernel may use, and where it may run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

OVERLAP_SM = 90  # the first `sm` with programmatic dependent launch (PTX ISA, "griddepcontrol")


@dataclass(frozen=True)
class Target:
    """A machine to generate code for.

    Attributes:
        name: `cpu`, or `sm_XX` with its architecture-specific suffix.
        kind: `cpu` or `cuda`.
        features: CPU: LLVM's feature string of the host; it is part of every kernel's key.
        cpu: CPU: LLVM's name of the processor.
        vector_bits: CPU: width of a vector register.
        sm: CUDA: compute capability times ten (90 for sm_90a).
        ptx: CUDA: PTX ISA version times ten to emit.
        shared_bytes: CUDA: dynamic shared memory a block may have.
        registers: CUDA: 32-bit registers of an SM.
        max_threads: CUDA: threads an SM holds.
        max_cluster: CUDA: blocks of a portable cluster; 1 where there are no clusters.
        mma: CUDA: names of the tensor-core instruction rows it must use, best first.
        cp_async, tma, wgmma: CUDA: which copy and matrix engines it has.
        packs: CUDA: types of weights that its kernels take packed beside 16-bit floats (ingot.weight_packing).
    """

    name: str
    kind: str
    features: str = ""
    cpu: str = ""
    vector_bits: int = 0
    sm: int = 0
    ptx: int = 0
    shared_bytes: int = 0
    registers: int = 65536
    max_threads: int = 0
    max_cluster: int = 1
    mma: tuple[str, ...] = ()
    cp_async: bool = False
    tma: bool = False
    wgmma: bool = False
    packs: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Target:
        """The target whose fields are the values of `data`, lists for tuples."""
        fields: dict[str, Any] = {name: tuple(x) if isinstance(x, list) else x for name, x in data.items()}
        return cls(**fields)

    @property
    def halves(self) -> frozenset[str]:
        """CUDA: the floats of 16 bits that its tensor cores multiply."""
        return frozenset(dtype for name in self.mma if (dtype := name.rpartition(".")[2]) in ("f16", "bf16"))

    @property
    def overlaps_launches(self) -> bool:
        """CUDA: a kernel may start before the one it follows has ended, and wait."""
        return self.sm >= OVERLAP_SM

    @property
    def key(self) -> str:
        """What distinguishes this target's code in a cache."""
        return self.name if self.kind == "cuda" else f"{self.name}:{self.cpu}:{self.features}"
