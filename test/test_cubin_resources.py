"""What kernels ask of an SM, read from cubins, and how many blocks of such kernels an SM of each target holds."""

from __future__ import annotations

import pytest

from ingot.compiler.toolchain.cubin import assemble
from ingot.compiler.toolchain.cubin_resources import Resources, resources
from ingot.cuda_targets import BY_NAME, CUDA_TARGETS
from ingot.target import Target

PTX = """
.version {version}
.target {target}
.address_size 64
.visible .entry plain(.param .u64 p) .maxntid 64, 1, 1
{{
  .reg .b64 %a; .reg .b32 %v;
  ld.param.u64 %a, [p]; cvta.to.global.u64 %a, %a; ld.global.u32 %v, [%a]; add.u32 %v, %v, 1; st.global.u32 [%a], %v; ret;
}}
.visible .entry holds(.param .u64 p) .maxntid 64, 1, 1
{{
  .reg .b64 %a, %l, %o; .reg .b32 %v, %i;
  .local .align 4 .b8 depot[64];
  .shared .align 4 .b8 tile[512];
  ld.param.u64 %a, [p]; cvta.to.global.u64 %a, %a; mov.u32 %i, %tid.x; mov.u64 %l, depot;
  and.b32 %v, %i, 15; mul.wide.u32 %o, %v, 4; add.u64 %o, %l, %o; st.local.u32 [%o], %i;
  ld.global.u32 %v, [%a]; and.b32 %v, %v, 15; mul.wide.u32 %o, %v, 4; add.u64 %o, %l, %o; ld.local.u32 %v, [%o];
  mov.u32 %i, tile; st.shared.u32 [%i], %v; bar.sync 0; ld.shared.u32 %v, [%i+4]; st.global.u32 [%a], %v; ret;
}}
"""


@pytest.mark.parametrize("t", CUDA_TARGETS, ids=lambda t: t.name)
def test_resources_of_a_cubin(t: Target) -> None:
    found = resources(assemble(PTX.format(target=t.name, version=t.ptx / 10), t.name))
    plain, holds = found["plain"], found["holds"]
    assert set(found) == {"plain", "holds"}
    assert (plain.local_bytes, plain.shared_bytes) == (0, 0)
    assert (holds.local_bytes, holds.shared_bytes) == (64, 512)
    assert all(4 <= r.registers <= 40 for r in found.values())


def test_spilled_registers_are_local_memory() -> None:
    count = 80
    names = ", ".join(f"%v{i}" for i in range(count))
    loads = "".join(f"ld.volatile.global.u32 %v{i}, [%a+{4 * i}]; " for i in range(count))
    stores = "".join(f"st.volatile.global.u32 [%a+{4 * i}], %v{i}; " for i in range(count))
    body = f".reg .b64 %a; .reg .b32 {names}; ld.param.u64 %a, [p]; {loads} bar.sync 0; {stores} ret;"
    head = ".version 8.8\n.target sm_80\n.address_size 64\n.visible .entry f(.param .u64 p) "
    few = resources(assemble(f"{head} .maxntid 64,1,1 .maxnreg 32 {{ {body} }}", "sm_80"))["f"]
    many = resources(assemble(f"{head} .maxntid 64,1,1 {{ {body} }}", "sm_80"))["f"]
    assert few.registers <= 32
    assert few.local_bytes >= 4 * (count - 32)
    assert many.registers >= count
    assert many == Resources(many.registers, 0, 0)


def test_what_is_no_cubin_is_refused() -> None:
    with pytest.raises(ValueError, match="not an ELF file"):
        resources(b"text")


@pytest.mark.parametrize(
    ("name", "threads", "registers", "shared", "blocks"),
    [
        ("sm_86", 256, 64, 0, 4),  # registers
        ("sm_86", 256, 32, 0, 6),  # threads
        ("sm_86", 32, 16, 0, 16),  # blocks
        ("sm_89", 32, 16, 0, 24),
        ("sm_90a", 32, 16, 0, 32),
        ("sm_86", 128, 64, 48 << 10, 2),  # a kilobyte of each block's is the driver's
        ("sm_86", 128, 64, 50 << 10, 1),
        ("sm_75", 128, 64, 32 << 10, 2),  # which Turing's is not
        ("sm_120a", 128, 64, 99 << 10, 1),
        ("sm_120a", 128, 64, (99 << 10) + 1, 0),
        ("sm_90a", 384, 168, 200 << 10, 1),
        ("sm_80", 96, 168, 0, 4),  # three warps to each quarter of the registers
        ("sm_80", 288, 255, 0, 0),  # nine warps where eight fit
        ("sm_80", 256, 255, 0, 1),
        ("sm_80", 1056, 32, 0, 0),
        ("sm_80", 32, 256, 0, 0),
    ],
)
def test_blocks_that_an_sm_holds(name: str, threads: int, registers: int, shared: int, blocks: int) -> None:
    assert BY_NAME[name].resident_blocks(threads, registers, shared) == blocks
