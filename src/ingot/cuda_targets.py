"""NVIDIA GPUs as data: one `Target` a compute capability that Ingot generates code for.

Sources: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability" (shared memory, registers, threads);
PTX ISA, "Release Notes" (the version that introduced a target) and the `.target` requirements of each instruction. A target
with the suffix `a` uses instructions of that architecture alone, and its code runs on no other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

from ingot.errors import DeviceError
from ingot.target import Target

_KB = 1024
_HALF = ("mma.m16n8k16.f16", "mma.m16n8k16.bf16")
_AMPERE = (*_HALF, "mma.m16n8k8.tf32", "mma.m16n8k32.s8", "mma.m16n8k32.u8")
_ADA = (*_AMPERE, "mma.m16n8k32.e4m3", "mma.m16n8k32.e5m2")
_HOPPER = tuple(
    f"wgmma.m64k{k}.{t}"
    for t, k in (("f16", 16), ("bf16", 16), ("tf32", 8), ("s8", 32), ("u8", 32), ("e4m3", 32), ("e5m2", 32))
)
_BLACKWELL_CONSUMER = (
    *_AMPERE, "mma.m16n8k32.f8f6f4.e4m3", "mma.m16n8k32.f8f6f4.e5m2", "mma.m16n8k32.f8f6f4.e2m1",
    "mma.m16n8k32.mxf8f6f4.e4m3", "mma.m16n8k32.mxf8f6f4.e5m2", "mma.m16n8k32.mxf8f6f4.e2m1",
    "mma.m16n8k64.mxf4", "mma.m16n8k64.mxf4nvf4",
)  # fmt: skip
_PACKS = ("i8", "i4", "f8E4M3FN", "f8E5M2", "f4E2M1FN")


def _row(
    name: str, ptx: int, shared_kb: int, threads: int, blocks: int, mma: tuple[str, ...], *, cluster: int = 1,
    wide: int = 0, wgmma: bool = False, packs: tuple[str, ...] = _PACKS,
) -> Target:  # fmt: skip
    sm = int(name[3:].rstrip("a"))
    return Target(
        name, "cuda", sm=sm, ptx=ptx, shared_bytes=shared_kb * _KB, shared_reserved=_KB if sm >= 80 else 0,
        max_threads=threads, max_blocks=blocks, max_cluster=cluster, wide_cluster=wide or cluster, mma=mma,
        cp_async=sm >= 80, tma=sm >= 90, wgmma=wgmma, packs=packs,
    )  # fmt: skip


CUDA_TARGETS: tuple[Target, ...] = (
    # Not E4M3: decoding it takes so many instructions that each warp's doing it costs more than a block's doing it once.
    _row(
        "sm_75", 88, 64, 1024, 16, ("mma.m16n8k8.f16", "mma.m8n8k16.s8", "mma.m8n8k16.u8"),
        packs=tuple(t for t in _PACKS if t != "f8E4M3FN"),
    ),
    _row("sm_80", 88, 163, 2048, 32, _AMPERE),
    _row("sm_86", 88, 99, 1536, 16, _AMPERE),
    _row("sm_87", 88, 163, 1536, 16, _AMPERE),
    _row("sm_88", 90, 99, 1536, 16, _AMPERE),
    _row("sm_89", 88, 99, 1536, 24, _ADA),
    _row("sm_90a", 88, 227, 2048, 32, (*_HOPPER, *_AMPERE), cluster=8, wide=16, wgmma=True),
    _row("sm_100a", 88, 227, 2048, 32, _ADA, cluster=8, wide=16),
    _row("sm_103a", 88, 227, 2048, 32, _ADA, cluster=8, wide=16),
    _row("sm_120a", 88, 99, 1536, 24, _BLACKWELL_CONSUMER, cluster=8),
    _row("sm_121a", 88, 99, 1536, 24, _BLACKWELL_CONSUMER, cluster=8),
)
BY_NAME = {t.name: t for t in CUDA_TARGETS}


def target(name: str) -> Target:
    """The row named `name`, or the portable part of the row whose name has the suffix `a` besides. Raises DeviceError listing
    the rows where there is none."""
    found = BY_NAME.get(name)
    if found is None and name + "a" in BY_NAME:
        return _portable(BY_NAME[name + "a"])
    if found is None:
        raise DeviceError(f"no target {name!r}", cure=f"targets are {', '.join(BY_NAME)}")
    return found


def _portable(row: Target) -> Target:
    """The part of a row that other GPUs of its family have too: its name without `a`, instructions that need no suffix."""
    portable = tuple(m for m in row.mma if m.startswith("mma.") and "f8f6f4" not in m and "mxf4" not in m)
    return replace(row, name=row.name.rstrip("a"), mma=portable, wgmma=False)


def target_for(compute_capability: tuple[int, int]) -> Target:
    """The target to generate code with for a GPU of `compute_capability` (major, minor).

    A GPU newer than the rows of its family uses the nearest older row; where that row is specific to its architecture, its
    portable part (the name without `a`, and the instructions that need no suffix), because code with the suffix would not load.
    Raises DeviceError for GPUs older than sm_75 and for unknown families.
    """
    major, minor = compute_capability
    family = [t for t in CUDA_TARGETS if t.sm // 10 == major and t.sm % 10 <= minor]
    if not family:
        raise DeviceError(
            f"a GPU of compute capability {major}.{minor} is not supported",
            cure=f"supported are {', '.join(BY_NAME)} and newer GPUs of these families",
        )
    row = family[-1]
    if row.sm % 10 == minor or not row.name.endswith("a"):
        return row
    return _portable(row)


@dataclass(frozen=True)
class DeviceFacts:
    """What differs between GPUs of one compute capability.

    Attributes:
        sms: multiprocessors.
        l2_bytes: second-level cache.
        bandwidth: bytes per second of device memory.
        tflops: dense rate of tensor cores over 16-bit floats, with sums in f32, in 1e12/s.
        f32_tflops: rate of f32 multiply-adds outside tensor cores in 1e12/s.
        i8: how many times that of 16-bit floats the rate of 8-bit integers is.
        f4: the same of 4-bit floats.
    """

    sms: int
    l2_bytes: int
    bandwidth: float
    tflops: float
    f32_tflops: float
    i8: float = 2.0
    f4: float = 4.0

    def peak(self, arithmetic: str) -> float:
        """Operations per second of an `arithmetic`: `f32`, `tf32`, `i8`, or bits of a tensor core's floats: `16`, `8`, `4`.

        Raises KeyError for others.
        """
        tensor = {"tf32": 0.5, "16": 1.0, "8": 2.0, "4": self.f4, "i8": self.i8}
        return 1e12 * (self.f32_tflops if arithmetic == "f32" else self.tflops * tensor[arithmetic])

    @property
    def sm_tflops(self) -> float:
        """What an SM does of `tflops`."""
        return self.tflops / self.sms


# `sm_tflops` from which on shared memory holds an SM's tensor cores back: an A100 has 2.9, GeForce cards 0.8 to 1.3.
WHOLE_SM_TFLOPS = 2.5
# GeForce cards sum products of floats in f32 at half the rate at which they sum them in f16; integers, and 4-bit floats, have
# the whole rate.
_GEFORCE = {"i8": 4.0, "f4": 8.0}
# Facts of a typical GPU of each target (NVIDIA's whitepapers of Turing, GA102, Ada, RTX Blackwell, A100, H100; data sheets of
# H200, B200, Jetson AGX Orin and DGX Spark), for choosing schedules with no device at hand.
TYPICAL: dict[str, DeviceFacts] = {
    "sm_75": DeviceFacts(68, 5632 << 10, 616e9, 53.8, 13.4, **_GEFORCE),  # RTX 2080 Ti
    "sm_80": DeviceFacts(108, 40 << 20, 1555e9, 312, 19.5),  # A100
    "sm_86": DeviceFacts(82, 6 << 20, 936e9, 71, 35.6, **_GEFORCE),  # RTX 3090
    "sm_87": DeviceFacts(16, 4 << 20, 204e9, 43, 5.3),  # Jetson AGX Orin
    "sm_88": DeviceFacts(16, 4 << 20, 204e9, 43, 5.3),  # no product's data sheet is known: as sm_87
    "sm_89": DeviceFacts(128, 72 << 20, 1008e9, 165.2, 82.6, **_GEFORCE),  # RTX 4090
    "sm_90a": DeviceFacts(132, 50 << 20, 4800e9, 989, 66.9),  # H200
    "sm_100a": DeviceFacts(148, 126 << 20, 8000e9, 2250, 74.5),  # B200
    "sm_103a": DeviceFacts(148, 126 << 20, 8000e9, 2250, 74.5),
    "sm_120a": DeviceFacts(170, 96 << 20, 1792e9, 209.5, 104.8, **_GEFORCE),  # RTX 5090
    "sm_121a": DeviceFacts(48, 24 << 20, 273e9, 125, 31),  # DGX Spark
}


@cache
def facts(row: Target) -> DeviceFacts:
    """Facts of a typical GPU of the target; where `row` says how many SMs there are, of one with so many, and with rates in
    proportion."""
    typical = TYPICAL.get(row.name) or TYPICAL[row.name + "a"]
    if not row.sms:
        return typical
    share = row.sms / typical.sms
    return replace(
        typical, sms=row.sms, bandwidth=typical.bandwidth * share, tflops=typical.tflops * share,
        f32_tflops=typical.f32_tflops * share,
    )  # fmt: skip


def with_sms(row: Target, sms: int) -> Target:
    """The target of a GPU of `sms` multiprocessors: `row` itself where a typical one has as many."""
    return row if sms == facts(row).sms else replace(row, sms=sms)
