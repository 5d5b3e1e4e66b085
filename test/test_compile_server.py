"""The compile server: jobs, failures, crashes of workers, and its end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ingot import framing, launch_program
from ingot.dispatch import Dispatch, ScalarInst, ScalarRegion, contiguous
from ingot.engine import Engine
from ingot.errors import CompileError, EngineError, Error
from ingot.fingerprint import kernel_key
from ingot.kernel_code import KernelCode
from ingot.runtime import compile_client
from ingot.runtime.cache import RuntimeCache
from ingot.runtime.compile_client import CompileClient, Job
from ingot.runtime.load_report import LoadReport
from ingot.runtime.program_loader import ProgramLoader
from ingot.target import Target


def unary(name: str) -> Dispatch:
    x = contiguous("f32", "d0", 64)
    insts = (ScalarInst("load", (), "f32", (("operand", 0),)), ScalarInst(name, (0,), "f32"))
    return Dispatch("pointwise", (x,), (x,), (), (ScalarRegion((), insts, (1,)),), ("d0",), (1,))


@pytest.fixture(scope="module")
def client() -> Iterator[CompileClient]:
    c = CompileClient(workers=2)
    yield c
    c.close()


@pytest.fixture(scope="module")
def target(client: CompileClient) -> Target:
    answer, _ = client.one(Job("target"))
    return Target(**{**answer["target"], "mma": ()})


def kernel(d: Dispatch, target: Target) -> Job:
    return Job("kernel", target, (d.text.encode(),))


def test_kernels_come_back(client: CompileClient, target: Target) -> None:
    assert target.kind == "cpu"
    assert target.features
    names = ["negf", "sqrt", "exp", "tanh"]
    found = {i: KernelCode.loads(blobs[0]) for i, _, blobs in client.jobs([kernel(unary(n), target) for n in names])}
    assert sorted(found) == [0, 1, 2, 3]
    for code in found.values():
        assert code.kind == "image"
        assert code.plan.launches[0].symbol in code.symbols


def test_failure_names_dispatch_and_repeats(client: CompileClient, target: Target) -> None:
    bad = Dispatch("nonesuch", (), ())
    with pytest.raises(CompileError, match="no code for nonesuch on cpu") as e:
        client.one(kernel(bad, target))
    command = str(e.value.cure)
    assert "ingot kernel" in command
    file = Path(command.rpartition(" ")[2])
    assert "nonesuch" in file.read_text()
    file.unlink()
    with pytest.raises(EngineError, match="IR is invalid"):
        client.one(Job("draft", target, (b"not MLIR",)))
    with pytest.raises(CompileError, match="knows no job"):
        client.one(Job("dance", target))


def test_dead_worker_costs_one_error(client: CompileClient, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    crash = CompileClient(workers=2)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "crashing_family"))
    crash.start()
    monkeypatch.delenv("PYTHONPATH")
    jobs = [kernel(unary("negf"), target), kernel(Dispatch("crash", (), ()), target), kernel(unary("exp"), target)]
    answers = {i: answer for i, answer, _ in crash.jobs(jobs)}
    assert isinstance(answers[1], CompileError)
    assert "SIGABRT" in str(answers[1])
    assert "LLVM ERROR: cannot select" in str(answers[1])
    assert not isinstance(answers[0], CompileError)
    assert not isinstance(answers[2], CompileError)
    # The place of the dead worker is taken.
    crash.one(kernel(unary("sqrt"), target))
    crash.close()


def test_a_worker_that_hangs_costs_one_error(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    c = CompileClient(workers=2, job_seconds=1.5)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "crashing_family"))
    c.start()
    monkeypatch.delenv("PYTHONPATH")
    c.one(Job("target"))  # workers are warm
    begin = time.monotonic()
    jobs = [kernel(Dispatch("hang", (), ()), target), kernel(unary("negf"), target)]
    answers = {i: answer for i, answer, _ in c.jobs(jobs)}
    assert 1.5 <= time.monotonic() - begin < 30
    with pytest.raises(CompileError, match=r"no code for hang on cpu: the compiler's worker did not end within 1.5 s"):
        raise answers[0]
    assert not isinstance(answers[1], CompileError)
    c.one(kernel(unary("sqrt"), target))
    c.close()


def test_server_restarts_and_ends_with_its_client(target: Target) -> None:
    c = CompileClient(workers=1)
    c.one(kernel(unary("negf"), target))
    process = c._process
    assert process is not None
    workers = children(process.pid)
    assert workers
    process.send_signal(signal.SIGKILL)
    process.wait()
    c.one(kernel(unary("negf"), target))
    c.close()
    deadline = time.time() + 5
    while time.time() < deadline and any(os.path.exists(f"/proc/{p}") for p in workers):
        time.sleep(0.05)
    assert not any(os.path.exists(f"/proc/{p}") for p in workers)


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_worker_from_before_warming_up_gives_its_place(target: Target) -> None:
    c = CompileClient(workers=1)
    with pytest.raises(EngineError):
        c.one(Job("draft", target, (b"not MLIR",)))
    assert c._process is not None
    (first,) = children(c._process.pid)
    c.one(kernel(unary("negf"), target))
    (second,) = children(c._process.pid)
    assert second != first
    c.one(kernel(unary("exp"), target))
    with pytest.raises(EngineError):
        c.one(Job("draft", target, (b"not MLIR",)))
    assert children(c._process.pid) == [second]
    c.close()


WARM = """
import os, sys
from ingot.compiler import warm_up
from ingot.compiler.compile_kernel import compile_stages
from ingot.compiler.cpu_target import host_target
from ingot.cuda_targets import BY_NAME

target = host_target() if sys.argv[1] == "cpu" else BY_NAME[sys.argv[1]]
for step in [*warm_up.general_steps(), *warm_up.target_steps(target)]:
    step()
assert len(os.listdir("/proc/self/task")) == 1, "a thread is left"
before = set(sys.modules)
pid = os.fork()
if pid == 0:
    plan, code = compile_stages(warm_up.TRIAL, target)
    late = sorted(set(sys.modules) - before)
    print(late, flush=True)
    os._exit(1 if late or not plan.launches or not code else 0)
assert os.waitpid(pid, 0)[1] == 0
assert not [m for m in sys.modules if m.startswith("torch_mlir.dialects._arith")]
"""


@pytest.mark.parametrize("name", ["cpu", "sm_90a"])
def test_what_is_warm_has_no_thread_and_needs_no_import(name: str) -> None:
    subprocess.run([sys.executable, "-c", WARM, name], check=True, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})


def test_stages_are_dumped(target: Target, tmp_path: Path) -> None:
    c = CompileClient(workers=1, dump_dir=str(tmp_path / "dump"))
    c.one(kernel(unary("negf"), target))
    c.close()
    suffixes = {"".join(p.suffixes) for p in (tmp_path / "dump").iterdir()}
    assert {".mlir", ".llvm.mlir", ".ll", ".o", ".img"} <= suffixes


def test_stages_that_cannot_be_dumped(target: Target, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    c = CompileClient(workers=1, dump_dir=str(tmp_path / "file" / "dump"))
    with pytest.raises(CompileError, match=r"Not a directory"):
        c.one(kernel(unary("negf"), target))
    with pytest.raises(CompileError, match=r"/file/dump: the compiler: Not a directory \(check INGOT_DUMP_DIR"):
        c.one(Job("draft", target, (Engine.load(Path(__file__).parent / "data" / "format_1.ingot").ir,)))
    c.close()


def test_threads_may_start_one_server(target: Target) -> None:
    c = CompileClient(workers=1)
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(c.one(Job("target"))[0]["target"])) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(answers) == 4
    assert answers[0] == answers[3]
    c.close()


def test_an_interrupt_leaves_no_answers_to_the_next_caller(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    c = CompileClient(workers=1)
    expected = c.one(kernel(unary("exp"), target))[1]
    receive = framing.receive
    turns = iter([KeyboardInterrupt])

    def interrupted(sock: socket.socket) -> tuple[dict, list[bytes]] | None:
        for error in turns:
            raise error
        return receive(sock)

    monkeypatch.setattr(framing, "receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        c.one(kernel(unary("negf"), target))
    assert c.one(kernel(unary("exp"), target))[1] == expected
    c.close()


def test_a_kept_exception_does_not_keep_the_server(target: Target) -> None:
    """As in a notebook, which keeps the last exception, and so the frames that it went through."""
    c = CompileClient(workers=1)

    def progress(what: str, done: int, count: int) -> None:
        raise RuntimeError("enough")

    loader = ProgramLoader(RuntimeCache("/proc/nowhere/cache.sqlite"), c, progress)
    texts = [unary(name).text for name in ("negf", "exp")]
    with pytest.raises(RuntimeError, match="enough") as kept:
        loader._kernels(texts, texts, target, LoadReport())
    assert not c._lock.locked(), kept
    c.one(kernel(unary("sqrt"), target))
    c.close()


def test_a_server_that_is_about_to_end_for_want_of_work_is_replaced(target: Target) -> None:
    c = CompileClient(workers=1)
    c._process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.3)"])
    c._sock, theirs = socket.socketpair()
    theirs.close()
    assert c.running
    c.one(kernel(unary("negf"), target))
    c.close()
    c._process = subprocess.Popen([sys.executable, "-c", "import sys, time; time.sleep(0.3); sys.exit(3)"])
    c._sock, theirs = socket.socketpair()
    theirs.close()
    with pytest.raises(CompileError, match="the compile server ended with code 3"):
        c.one(kernel(unary("negf"), target))
    c.start()
    assert c._process is not None
    threading.Timer(0.1, c._process.kill).start()  # as the system does where memory runs out
    with pytest.raises(CompileError, match=r"the compile server was ended by SIGKILL .*INGOT_WORKERS=1"):
        c.one(kernel(unary("negf"), target))


@pytest.mark.parametrize("variable", ["INGOT_WORKERS", "INGOT_JOB_SECONDS"])
def test_an_environment_that_makes_no_sense(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("many", "-1", "nan"):
        monkeypatch.setenv(variable, text)
        with pytest.raises(Error, match=rf"the environment has {variable}={text} \(give a number, or unset it\)"):
            CompileClient()


def test_a_draft_is_not_used_before_its_ir_is_verified(client: CompileClient, target: Target, tmp_path: Path) -> None:
    """The draft leaves the dialect's rules to a job that runs beside the kernels': what breaks one is an error all the same,
    and neither the program nor kernels are kept."""
    engine = Engine.load(Path(__file__).parent / "data" / "format_1.ingot")
    _, (program, *dispatches) = client.one(Job("draft", target, (engine.ir,)))
    assert [text.decode() for text in dispatches] == [k.dispatch for k in launch_program.loads(program).kernels]
    assert client.one(Job("verify", blobs=(engine.ir,)))[1] == []

    engine.ir = engine.ir_text().replace("tensor<24xf32>", "tensor<23xf32>").encode()  # a bias for fewer columns
    client.one(Job("draft", target, (engine.ir,)))
    with pytest.raises(EngineError, match=r"IR is invalid.*23"):
        client.one(Job("verify", blobs=(engine.ir,)))
    engine.header = replace(engine.header, ir_sha256="")
    cache = RuntimeCache(tmp_path / "cache.sqlite")
    loader = ProgramLoader(cache, CompileClient(workers=2))
    for _ in range(2):
        with pytest.raises(EngineError, match="IR is invalid"):
            loader.load(engine, target)
    assert not cache.get_many("kernel", [kernel_key(text.decode(), target.key) for text in dispatches])
    loader.client.close()
    cache.close()


def test_a_draft_that_fails_says_what_the_verifier_finds(client: CompileClient, target: Target) -> None:
    engine = Engine.load(Path(__file__).parent / "data" / "format_1.ingot")
    text = engine.ir_text().replace(' {name = "w"}', "")
    with pytest.raises(EngineError, match=r"IR is invalid.*requires attribute 'name'"):
        client.one(Job("draft", target, (text.encode(),)))


def test_no_place_for_temporary_files(target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose file system can only be read: kernels compile, and failures say what failed."""
    (tmp_path / "sitecustomize.py").write_text(
        "import tempfile\n"
        "def fail(): raise FileNotFoundError(2, 'No usable temporary directory found')\n"
        "tempfile._get_default_tempdir = fail\n"
    )
    c = CompileClient(workers=1)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    c.start()
    c.one(kernel(unary("negf"), target))
    with pytest.raises(CompileError, match=r"no code for nonesuch on cpu.*the dispatch is"):
        c.one(kernel(Dispatch("nonesuch", (), ()), target))
    c.close()


def test_bytecode_that_ends_its_reader_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "import ingot.compiler.jit as jit\n"
        "jit.parse = lambda bytecode: os.abort()\n"
    )
    engine = Engine.load(Path(__file__).parent / "data" / "format_1.ingot")
    c = CompileClient(workers=1)
    monkeypatch.setattr(compile_client, "shared_client", lambda: c)
    assert "ingot.func" in engine.ir_text()
    engine.ir = b"ML\xefR no bytecode"
    with pytest.raises(EngineError, match="the engine's IR is invalid"):
        engine.ir_text()
    c.close()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(EngineError, match=r"the engine's IR cannot be read: the compiler's worker ended with SIGABRT"):
        engine.ir_text()
    c.close()
