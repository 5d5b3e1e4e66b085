"""When specialized programs are built: at once, in the background, or never; each once, and failures are not fatal."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import pytest
from test_cuda_plan import make_program

from ingot import dims
from ingot.dispatch import from_json
from ingot.errors import CompileError
from ingot.kernel_plan import KernelPlan
from ingot.launch_program import GuardStep
from ingot.program_linking import link, specialize
from ingot.runtime.program_loader import LoadedProgram
from ingot.runtime.specialization import Specializer, check_mode


def wait_for(condition) -> None:
    event = threading.Event()
    for _ in range(200):
        if condition():
            return
        event.wait(0.01)
    pytest.fail("nothing happened for two seconds")


def make_specializer(mode):
    built = []

    def build(env, live):
        built.append((env, live))
        if env["N"] == 13:
            raise CompileError("unlucky")
        return LoadedProgram(make_program(), ())

    return Specializer(build, mode), built


def test_lazy_builds_at_the_second_call_and_gives_it_from_then_on():
    s, built = make_specializer("lazy")
    assert s.get("a", {"N": 1}, frozenset(), 0) is None
    assert built == []
    assert s.get("a", {"N": 1}, frozenset(), 1) is None
    wait_for(lambda: s.get("a", {"N": 1}, frozenset(), 2) is not None)
    assert built == [({"N": 1}, frozenset())]
    s.close()


def test_eager_builds_at_the_first_call():
    s, built = make_specializer("eager")
    program = s.get("a", {"N": 1}, frozenset({"M"}), 0)
    assert program is not None
    assert s.get("a", {"N": 1}, frozenset({"M"}), 1) is program
    assert len(built) == 1


def test_none_never_builds():
    s, built = make_specializer("none")
    assert s.get("a", {"N": 1}, frozenset(), 5) is None
    assert built == []


def test_a_shape_that_cannot_be_built_stays_general():
    s, built = make_specializer("lazy")
    s.get("a", {"N": 13}, frozenset(), 1)
    wait_for(lambda: "a" in s.failures)
    assert s.get("a", {"N": 13}, frozenset(), 2) is None
    assert len(built) == 1
    s.close()


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="specialize='sometimes' is none of lazy, eager, none"):
        check_mode("sometimes")


def test_specialized_programs_have_constants_and_keep_live_sizes():
    program = make_program()
    fixed = specialize(program, {"N": 1000})
    shapes = [from_json(json.loads(e.dispatch)).operands[0].shape for e in fixed.kernels]
    assert shapes == [(1000,), (1001,)]
    assert [s.kernel for s in fixed.steps] == [0, 1]
    assert all(s.sizes == () for s in fixed.steps)
    kept = specialize(program, {"N": 1000}, frozenset({"N"}))
    assert len(kept.kernels) == 1
    assert [s.sizes for s in kept.steps] == [s.sizes for s in program.steps]


def test_known_offsets_become_parts_of_addresses():
    """An offset of 0 is no work that is missing; one that stays live is read from the size table."""
    program = make_program()
    (entry,) = program.kernels
    d0, d1 = dims.symbol("d0"), dims.symbol("d1")
    plain = from_json(json.loads(entry.dispatch))
    dispatch = replace(plain, symbols=("d0", "d1"), multiples=(1, 8), offsets=(("result", 0, d1),))
    assert from_json(json.loads(dispatch.text)) == dispatch
    assert dispatch.placing == {"d1"}
    assert replace(dispatch, offsets=(("result", 0, d0),)).placing == set()
    at = dims.symbol("P")
    steps = tuple(replace(s, sizes=(*s.sizes, 8 * at)) for s in program.steps)
    program = replace(program, kernels=(replace(entry, dispatch=dispatch.text),), steps=steps)
    for position in (0, 3):
        fixed = specialize(program, {"N": 1000, "P": position})
        assert [from_json(json.loads(e.dispatch)).offsets for e in fixed.kernels] == [(), ()]
        assert [s.results[0].offset for s in fixed.steps] == [8 * position, dims.symbol("N") * 4 + 8 * position]
        assert [s.sizes for s in fixed.steps] == [(), ()]
    live = specialize(program, {"N": 1000, "P": 0}, frozenset({"P"}))
    assert [from_json(json.loads(e.dispatch)).offsets for e in live.kernels] == [(("result", 0, d1),)] * 2
    assert [s.sizes for s in live.steps] == [(8 * at,)] * 2
    assert [s.results[0].offset for s in live.steps] == [0, dims.symbol("N") * 4]


def test_the_workspace_is_placed_anew():
    program = make_program()
    d0 = dims.symbol("d0")
    linked = link(program, ["key"], [KernelPlan(program.kernels[0].plan.launches, d0 * 64)])
    assert linked.buffers[-1].kind == "arena"
    draft = specialize(linked, {"N": 1000})
    assert draft.buffers == program.buffers
    assert all(s.workspace is None for s in draft.steps if not isinstance(s, GuardStep))
    plans = [KernelPlan(program.kernels[0].plan.launches, n) for n in (512, 4096)]
    again = link(draft, ["a", "b"], plans)
    assert again.buffers[-1].bytes == 4096
    assert dims.evaluate(again.arena_bytes, {"N": 1000}) == dims.evaluate(again.buffers[-1].offset, {"N": 1000}) + 4096


def test_decoding_settles_on_two_shapes():
    """A prompt, then token by token, twice: one program for the prompt, one for tokens, asked for by the second call."""
    from types import SimpleNamespace

    from ingot.launch_program import State, dim_names
    from ingot.runtime.cuda_device import CudaContext
    from ingot.runtime.device import Sizes

    past, new = dims.symbol("past"), dims.symbol("new")
    variants: set = set()
    context = object.__new__(CudaContext)
    bindings = [SimpleNamespace(symbol=name) for name in ("past", "new", "mask", "batch")]
    state = State(0, 0, 2, past, past + new, "kept_capacity_0", "capacity_0")
    program = SimpleNamespace(states=(state,), live=("past",), bindings=bindings, values=(), definitions=())
    context._program = program
    context._executable = SimpleNamespace(has_variant=variants.__contains__)
    context._grown, context._live_sets, context._last, context._positions = frozenset(), [], None, frozenset()
    context._growing = {}
    asked = []
    for _ in range(2):
        length = 0
        for count in (8, *([1] * 20)):
            env = {"past": length, "new": count, "mask": length + count, "batch": 1, "kept_capacity_0": 64, "capacity_0": 64}
            env |= {"donated_0": 1}
            assert list(env) == dim_names(program)
            _, shape = context._live_set(Sizes(env, tuple(env.values()), 0, ()), (0,))
            if shape not in variants:
                variants.add(shape)
                asked.append(len(asked))
            length += count
    assert asked == [0, 1]
    assert len(variants) == 2


def test_the_thread_ends_with_its_work_and_a_defect_does_not_end_it():
    s, built = make_specializer("lazy")
    build, gate = s._build, threading.Event()

    def fail_first(env, live):
        gate.wait(10)
        if env["N"] == 1:
            raise AssertionError("a defect")
        return build(env, live)

    s._build = fail_first
    for n in range(1, 60):
        assert s.get(n, {"N": n + 20 * (n > 1)}, frozenset(), 1) is None
        if n == 1:
            wait_for(lambda: not s._waiting)
    assert len(s._waiting) <= 16
    gate.set()
    wait_for(lambda: s._thread is None)
    assert isinstance(s.failures[1], AssertionError)
    assert s.get(59, {"N": 79}, frozenset(), 2) is not None
    assert len(built) <= 17
    assert s.get(5, {"N": 25}, frozenset(), 2) is None  # it gave way; now it is asked for again
    wait_for(lambda: s.get(5, {"N": 25}, frozenset(), 3) is not None)
    s.close()


def test_closing_waits_for_one_program_alone():
    s, _ = make_specializer("lazy")
    gate, built = threading.Event(), []

    def slow(env, live):
        built.append(env)
        gate.wait(10)
        return LoadedProgram(make_program(), ())

    s._build = slow
    for n in range(1, 10):
        s.get(n, {"N": n}, frozenset(), 1)
    wait_for(lambda: built)
    threading.Timer(0.1, gate.set).start()
    s.close()
    assert len(built) == 1


def test_an_interrupted_program_is_built_again():
    s, _ = make_specializer("eager")
    build = s._build

    def interrupted(env, live):
        raise KeyboardInterrupt

    s._build = interrupted
    with pytest.raises(KeyboardInterrupt):
        s.get("a", {"N": 1}, frozenset(), 0)
    s._build = build
    assert s.get("a", {"N": 1}, frozenset(), 1) is not None
