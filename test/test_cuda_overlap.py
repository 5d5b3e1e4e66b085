"""Programmatic dependent launch: kernels that may start early touch memory only after their wait. No GPU is needed."""

from __future__ import annotations

import re

import cuda_dispatches as make
import pytest
from cuda_emulation import check
from ptx_loops import blocks_of

from ingot.compiler.codegen.cuda_attention_wgmma import WgmmaAttentionSchedule
from ingot.compiler.codegen.cuda_kernel import takes_little
from ingot.compiler.codegen.family import Emitted, emit
from ingot.compiler.toolchain.stages import compile_kernels
from ingot.cuda_targets import BY_NAME
from ingot.dialects.mlir import kernel_context
from ingot.dispatch import Dispatch

WAIT = "griddepcontrol.wait"
# Global memory by name or by way of a copy engine; sizes are constant while a program runs, and prefetches go to L2.
GLOBAL = re.compile(
    r"\b(?:(?:ld|st|red|atom)\.(?!param|shared|local|const)|cp\.(?:async|reduce)\.(?!commit|wait|mbarrier|bulk\.prefetch))"
)

DISPATCHES = {
    "pointwise": make.pointwise_add_gelu("n", 100),
    "move": make.move(("n", 32, 64), (0, 2, 1)),
    "reduce": make.reduce("sum", ("n", 4096), (1,)),
    "normalize": make.normalize("layer", "n", 768, affine=True),
    "normalize of any length": make.normalize("softmax", "n", "m"),
    "pool": make.pool("max", ("n", 8, 8, 16), ("n", 4, 4, 16), (2, 2), (2, 2), (0, 0, 0, 0)),
    "matmul": make.matmul("n", 256, 256, bias=True),
    "matmul of one row": make.matmul(1, 4096, 4096),
    "matmul in f32": make.matmul("n", 256, 256, "f32"),
    "matmul of quantized weights": make.quantized_matmul("n", 256, 256, "f16", "i4", scale="f16", block=32),
    "matmul of one row and quantized weights": make.quantized_matmul(1, 4096, 4096, "f16", "i4", scale="f16", block=32),
    "conv": make.conv("n", (16, 16), 64, 64, (3, 3), pads=(1, 1, 1, 1)),
    "conv of three channels": make.conv("n", (16, 16), 3, 64, (3, 3), pads=(1, 1, 1, 1)),
    "attention": make.attention("n", 4, 512, 512, 64),
    "attention of one query": make.attention("n", 4, 1, "m", 64),
}  # fmt: skip


def kernels(d: Dispatch, target: str) -> tuple[Emitted, str]:
    with kernel_context():
        emitted = emit(d, BY_NAME[target])
        return emitted, compile_kernels(emitted.module, target, stop="ptx")


def _is_access(line: str, sizes: set[str]) -> bool:
    if not GLOBAL.search(line):
        return False
    return not (line.startswith("ld.global") and any(f"[{r}" in line for r in sizes))


@pytest.mark.parametrize("target", ["sm_90a", "sm_120a"])
@pytest.mark.parametrize("name", DISPATCHES)
def test_nothing_is_touched_before_the_wait(name: str, target: str) -> None:
    d = DISPATCHES[name]
    emitted, ptx = kernels(d, target)
    for launch in emitted.plan.launches:
        assert launch.overlaps
        blocks = blocks_of(ptx, launch.symbol)
        table = f"{launch.symbol}_param_{len(launch.buffers)}]"
        sizes: set[str] = set()
        before, todo = {0}, [0]  # blocks that paths without a wait reach
        found = 0
        while todo:
            block = blocks[todo.pop()]
            for line in block.lines:
                if WAIT in line:
                    found += 1
                    break
                if d.symbols and table in line:
                    sizes.add(line.split()[1].rstrip(","))
                elif line.startswith("cvta.to.global") and line.rstrip(";").split()[-1] in sizes:
                    sizes.add(line.split()[1].rstrip(","))
                assert not _is_access(line, sizes), line
            else:
                assert block.next, "a path without a wait: the kernel could end before those it follows"
                todo += [b for b in block.next if b not in before]
                before.update(block.next)
        assert found == 1
        starts = re.findall(r"griddepcontrol\.launch_dependents", "\n".join(x for b in blocks for x in b.lines))
        assert len(starts) == takes_little(launch)


def test_small_kernels_let_others_start_at_once() -> None:
    little, much = (kernels(make.pointwise_add_gelu(n, 4096), "sm_90a")[0].plan.launches[0] for n in (16, 4096))
    assert takes_little(little)
    assert not takes_little(much)
    small, large = (kernels(make.matmul(m, 4096, 4096), "sm_90a")[0].plan.launches[0] for m in (4, 4096))
    assert takes_little(small)
    assert not takes_little(large)


def test_the_wait_may_follow_a_prologue() -> None:
    _, ptx = kernels(make.matmul(4096, 4096, 4096), "sm_90a")
    assert ptx.index("mbarrier.init") < ptx.index(WAIT) < ptx.index("cp.async.bulk.tensor")
    with kernel_context():
        emitted = emit(DISPATCHES["attention"], BY_NAME["sm_90a"], WgmmaAttentionSchedule())
        ptx = compile_kernels(emitted.module, "sm_90a", stop="ptx")
    assert ptx.index("mbarrier.init") < ptx.index(WAIT) < ptx.index("cp.async.bulk.tensor")


WEIGHTS = {
    "by tensor map": (make.matmul(32, 768, 768, "f16"), "cp.async.bulk.prefetch.tensor.2d.L2"),
    "by address": (make.matmul(1, 4096, 512, "f16"), "cp.async.bulk.prefetch.L2"),
    "of a convolution": (make.conv(1, (8, 8), 64, 64, (3, 3), pads=(1, 1, 1, 1)), "cp.async.bulk.prefetch.L2"),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_are_fetched_before_the_wait(name: str) -> None:
    d, instruction = WEIGHTS[name]
    emitted, ptx = kernels(d, "sm_90a")
    assert 0 < ptx.index(instruction) < ptx.index(WAIT)
    assert check(d, "sm_90a", sizes=dict.fromkeys(d.symbols, 24)).plan == emitted.plan


@pytest.mark.parametrize("d", [
    make.matmul(512, 512, 512, "f16", batch=(2,)), make.matmul(64, 8192, 4096, "f16"), make.matmul("n", "m", 512, "f16"),
    make.matmul("n", 768, 768, "f16"), make.matmul(394, 768, 768, "f16"),
    make.pool("max", (2, 8, 8, 16), (2, 4, 4, 16), (2, 2), (2, 2), (0, 0, 0, 0)),
])  # fmt: skip
def test_what_is_not_fetched(d: Dispatch) -> None:
    """A batch of products is one of activations; large weights take long anyway, as do many rows, and sizes must be known."""
    assert "bulk.prefetch" not in kernels(d, "sm_90a")[1]


def test_older_targets_do_not_overlap() -> None:
    emitted, ptx = kernels(DISPATCHES["pointwise"], "sm_80")
    assert not any(x.overlaps for x in emitted.plan.launches)
    assert "griddepcontrol" not in ptx
