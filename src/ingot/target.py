"""Targets as data: what a kernel may use, and where it may run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Of every compute capability here (CUDA C++ Programming Guide, "Technical Specifications per Compute Capability").
WARP, PARTS = 32, 4  # threads of a warp; parts of an SM, each with a quarter of its registers
MAX_BLOCK_THREADS, MAX_REGISTERS = 1024, 255
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
        shared_reserved: CUDA: shared memory that the driver keeps of each block's.
        registers: CUDA: 32-bit registers of an SM.
        max_threads: CUDA: threads an SM holds.
        max_blocks: CUDA: blocks an SM holds.
        sms: CUDA: SMs, where kernels are for a GPU that is not a typical one; else 0.
        max_cluster: CUDA: blocks of a portable cluster; 1 where there are no clusters.
        wide_cluster: CUDA: blocks of a cluster of a kernel that may have more than is portable.
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
    shared_reserved: int = 0
    registers: int = 65536
    max_threads: int = 0
    max_blocks: int = 0
    sms: int = 0
    max_cluster: int = 1
    wide_cluster: int = 1
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

    def resident_blocks(self, threads: int, registers: int, shared_bytes: int) -> int:
        """CUDA: blocks that an SM holds at once; 0 where not even one can be launched.

        Args:
            threads: of a block.
            registers: of a thread.
            shared_bytes: of a block, static and dynamic.
        """
        warps = -(-threads // WARP)
        if threads > MAX_BLOCK_THREADS or registers > MAX_REGISTERS or shared_bytes > self.shared_bytes:
            return 0
        # Registers come in units of 256 for a warp, from its part of the SM.
        of_part = self.registers // PARTS // (-(-max(1, registers) * WARP // 256) * 256)
        shared = -(-(shared_bytes + self.shared_reserved) // 128) * 128
        fits = (self.max_blocks, self.max_threads // (WARP * warps), PARTS * of_part // warps)
        return min(*fits, (self.shared_bytes + self.shared_reserved) // shared if shared else self.max_blocks)

    @property
    def key(self) -> str:
        """What distinguishes this target's code in a cache."""
        if self.kind == "cuda":
            return f"{self.name}:{self.sms}" if self.sms else self.name
        return f"{self.name}:{self.cpu}:{self.features}"
