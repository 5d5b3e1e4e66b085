"""Dispatches, kernel plans and launch programs are plain data that survive JSON."""

from __future__ import annotations

import json

import pytest

from ingot import dims, dispatch, kernel_plan, launch_program
from ingot.dispatch import Dispatch, ScalarInst, ScalarRegion, contiguous
from ingot.kernel_plan import BufferArg, KernelLaunch, KernelPlan, TensorMapArg
from ingot.launch_program import (
    Binding,
    Buffer,
    BufferRef,
    DispatchStep,
    GuardStep,
    HostReadStep,
    IfStep,
    KernelEntry,
    LaunchProgram,
    LoopStep,
    State,
    TensorSpec,
)

D0 = dims.symbol("d0")
REGION = ScalarRegion(
    ("f32",),
    (
        ScalarInst("load", (), "f32", (("operand", 2),)),
        ScalarInst("dim", (), "i64", (("dim", "d0 + 1"),)),
        ScalarInst("const", (), "f32", (("value", 0.5),)),
        ScalarInst("addf", (0, 1), "f32"),
    ),
    (4,),
)
MATMUL = Dispatch(
    "matmul",
    (contiguous("f32", "d0", 768), contiguous("f32", 768, 64), contiguous("f32", 64)),
    (contiguous("f32", "d0", 64),),
    (("acc", "f32"),),
    (REGION,),
    ("d0",),
    (1,),
)
TILES = TensorMapArg("operand", 1, "f32", (D0, 768), (3072,), (32, 64), 128, ((0, 0), (1, 1), 8, 8), steps=(2, 1))
PLAN = KernelPlan(
    (
        KernelLaunch("k", (dims.ceildiv(D0, 64), 1, 1), (BufferArg("operand"), BufferArg("workspace", 0, D0 * 4)), flops=D0),
        KernelLaunch("t", (1, 1, 1), (TILES,)),
    ),
    D0 * 4,
)


def test_dispatch_survives_json_and_keeps_its_key():
    again = dispatch.from_json(json.loads(MATMUL.text))
    assert again == MATMUL
    assert again.key == MATMUL.key


def test_specialized_dispatch_has_constants_everywhere():
    fixed = MATMUL.specialize({"d0": 5})
    assert fixed.operands[0].shape == (5, 768)
    assert fixed.symbols == () == fixed.multiples
    assert fixed.regions[0].insts[1] == ScalarInst("const", (), "i64", (("value", 6),))
    assert fixed.key != MATMUL.key


def test_contiguity_ignores_strides_of_single_elements():
    row = contiguous("f32", 1, "d0")
    assert row.is_contiguous
    assert dispatch.TensorArg("f32", (1, D0), (999, 1)).is_contiguous
    assert not dispatch.TensorArg("f32", (D0, 2), (4, 1)).is_contiguous


def test_kernel_plan_survives_json():
    assert kernel_plan.from_json(json.loads(json.dumps(kernel_plan.to_json(PLAN)))) == PLAN


def _program() -> LaunchProgram:
    n = dims.symbol("N")
    step = DispatchStep(0, (BufferRef(0, n * 4),), (BufferRef(1),), (n,), BufferRef(2), "node")
    return LaunchProgram(
        "cpu",
        (TensorSpec("x", "float", (n, 3)),),
        (TensorSpec("y", "float", (n, 3)),),
        (Binding("N", 0, 0),),
        (Buffer("input", n * 12), Buffer("output", n * 12), Buffer("arena", n, n * 256), Buffer("weight", 4, name="w")),
        (KernelEntry("key", PLAN, MATMUL.text),),
        (
            step,
            GuardStep(n, 3, "eq", "sizes differ", "node"),
            HostReadStep("m", BufferRef(2)),
            IfStep(BufferRef(2), (step,), ()),
            LoopStep(n, None, "i", (step,)),
        ),
        n * 512,
        (State(0, 0, 2, n, n + 1, "c0", "c1", (0,)),),
        ("N",),
    )


def test_launch_program_survives_its_text():
    program = _program()
    data = launch_program.dumps(program)
    assert launch_program.loads(data) == program
    assert launch_program.dumps(launch_program.loads(data)) == data


@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", b'{"version":1}', b"\xff\xfe", b'{"version":999}'])
def test_damaged_programs_are_refused(damage):
    with pytest.raises(ValueError, match=r"launch program|Expecting"):
        launch_program.loads(damage)
