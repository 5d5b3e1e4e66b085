"""A lit test format for a compiler that is a Python library: RUN lines run in a forked child of a warm process.

An interpreter that imports MLIR for every command costs 0.5 s. Here lit's workers have everything imported, and contexts with
the dialects loaded; each test is a fork of such a worker that runs the project's own tools as function calls, pipes between
them being byte strings. A test that crashes or hangs takes only its fork with it. Commands that are not known here run as
processes.
"""

from __future__ import annotations

import io
import os
import re
import resource
import runpy
import select
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import lit.formats
import lit.ShCommands
import lit.ShUtil
import lit.Test
import lit.TestRunner

_WARM_CONTEXTS = 3  # a test that needs more makes them at 20 ms each
_contexts: list[Any] = []


def warm_up() -> None:
    """Import what most tests need; called once, in the process that lit's workers are forked from."""
    import filecheck.main  # noqa: F401

    import ingot.passes.pipeline
    import ingot.tools.ingot_opt  # noqa: F401
    from ingot.dialects import mlir, onnx  # noqa: F401


def _take_context() -> Any:
    """A context nobody has used: in a test's fork the worker's are as new."""
    from ingot.tools.ingot_opt import default_context

    return _contexts.pop() if _contexts else default_context()


class IngotTest(lit.formats.ShTest):
    """Tests are the `.mlir` and `.test` files under `directory`, with the RUN, XFAIL, REQUIRES and UNSUPPORTED lines of lit."""

    def __init__(self, directory: str, timeout: float = 60.0) -> None:
        super().__init__()
        self.directory = directory
        self.timeout = timeout  # seconds a test; lit's own --timeout needs psutil

    def getTestsInDirectory(self, testSuite: Any, path_in_suite: tuple[str, ...], litConfig: Any, localConfig: Any) -> Any:
        if path_in_suite[:1] == (self.directory,):
            yield from super().getTestsInDirectory(testSuite, path_in_suite, litConfig, localConfig)

    def execute(self, test: lit.Test.Test, litConfig: Any) -> lit.Test.Result:
        script = lit.TestRunner.parseIntegratedTestScript(test)
        if isinstance(script, lit.Test.Result):
            return script
        directory, base = lit.TestRunner.getTempPaths(test)
        substitutions = [*test.config.substitutions, *lit.TestRunner.getDefaultSubstitutions(test, directory, base)]
        conditions = dict.fromkeys(test.config.available_features, True)
        commands = lit.TestRunner.applySubstitutions(script, substitutions, conditions)
        os.makedirs(directory, exist_ok=True)
        if not _contexts:
            from ingot.tools.ingot_opt import default_context

            _contexts.extend(default_context() for _ in range(_WARM_CONTEXTS))
        timeout = litConfig.maxIndividualTestTime or self.timeout
        return _run_forked(lambda: run_script(commands, directory, dict(test.config.environment)), timeout)


def _run_forked(body: Callable[[], int], timeout: float) -> lit.Test.Result:
    """Run `body` in a fork, its output into a file; a crash is a failure, and so is running over `timeout` seconds."""
    with tempfile.TemporaryFile() as log:
        alive, alive_in_child = os.pipe()  # its end of file says that the child is gone
        pid = os.fork()
        if pid == 0:
            _child(body, log.fileno(), alive)
        os.close(alive_in_child)
        finished = bool(select.select([alive], [], [], timeout)[0])
        if not finished:
            os.killpg(pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.close(alive)
        log.seek(0)
        output = log.read().decode(errors="replace")
    if not finished:
        return lit.Test.Result(lit.Test.TIMEOUT, f"{output}\nran for more than {timeout:g} s\n")
    if status < 0:
        return lit.Test.Result(lit.Test.FAIL, f"{output}\nkilled by {signal.Signals(-status).name}\n")
    return lit.Test.Result(lit.Test.FAIL if status else lit.Test.PASS, output)


def _child(body: Callable[[], int], log: int, alive: int) -> NoReturn:
    """The life of a forked test; never returns."""
    status = 1
    try:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.close(alive)
        os.dup2(log, 1)  # MLIR writes some messages there by itself
        os.dup2(log, 2)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)
        status = body()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


# Running commands -----------------------------------------------------------------------------------------------------


_PIPE = "|"


@dataclass
class Result:
    """What a command left: its exit status (negative: killed by that signal), and both streams."""

    status: int
    stdout: bytes = b""
    stderr: bytes = b""


@dataclass
class Shell:
    """The state that the commands of a script share."""

    cwd: str
    env: dict[str, str] = field(default_factory=dict)


def run_script(commands: Sequence[str], directory: str, env: dict[str, str]) -> int:
    """Run the RUN lines of a test until one fails; a trace goes to stdout. Returns 0 or 1."""
    os.environ.clear()
    os.environ.update(env)
    os.chdir(directory)
    shell = Shell(directory, env)
    for command in commands:
        place, text = re.fullmatch(lit.TestRunner.kPdbgRegex, command).groups()  # type: ignore[union-attr]
        text = text.strip()
        started = time.perf_counter()
        try:
            parsed = lit.ShUtil.ShParser(text, pipefail=True).parse()
        except (ValueError, AttributeError) as error:  # lit reports an open quote through a function that does not exist
            print(f"# {place}\n$ {text}\ncannot parse: {error}")
            return 1
        status = _run_parsed(parsed, shell)
        if status:
            print(f"# {place}: exit status {status} after {time.perf_counter() - started:.2f} s\n$ {text}")
            return 1
    return 0


def _run_parsed(parsed: lit.ShUtil.Seq | lit.ShCommands.Pipeline, shell: Shell) -> int:
    if isinstance(parsed, lit.ShUtil.Seq):
        status = _run_parsed(parsed.lhs, shell)
        if parsed.op == ";" or (parsed.op == "&&") == (status == 0):
            return _run_parsed(parsed.rhs, shell)
        return status
    piped, statuses = b"", []
    for command in parsed.commands:
        result = _run_command(command, piped, shell)
        statuses.append(result.status)
        print(result.stderr.decode(errors="replace"), end="")
        piped = result.stdout
    print(piped.decode(errors="replace"), end="")
    return next((status for status in reversed(statuses) if status), 0)


def _run_command(command: lit.ShCommands.Command, stdin: bytes, shell: Shell) -> Result:
    """Run one command of a pipeline with its redirections."""
    args: list[str] = []
    for arg in command.args:
        args += arg.resolve(shell.cwd) if isinstance(arg, lit.ShUtil.GlobItem) else [arg]
    sinks: dict[int, str | None] = {1: _PIPE, 2: None}  # a path, the pipe, or None: the test's log
    for operator, target in command.redirects:
        match operator:
            case ("<",):
                stdin = Path(shell.cwd, target).read_bytes()
            case (">" | ">>" | "&>" as kind, *descriptor):
                if kind != ">>":
                    Path(shell.cwd, target).write_bytes(b"")
                sinks[descriptor[0] if descriptor else 1] = target
                if kind == "&>":
                    sinks[2] = target
            case (">&", int() as descriptor) if target.isdigit():
                sinks[descriptor] = sinks[int(target)]
            case _:
                raise NotImplementedError(f"redirection {operator} {target}")
    result = _run_args(args, stdin, shell, join=sinks[1] == sinks[2])
    streams: dict[str | None, bytes] = {_PIPE: b"", None: b""}
    for descriptor, data in ((1, result.stdout), (2, result.stderr)):
        sink = sinks[descriptor]
        if sink in streams:
            streams[sink] += data
        else:
            with open(Path(shell.cwd, sink), "ab") as file:
                file.write(data)
    return Result(result.status, streams[_PIPE], streams[None])


def _run_args(args: list[str], stdin: bytes, shell: Shell, *, join: bool) -> Result:
    """Run a command without redirections; `join` sends its standard error to its standard output."""
    match args:
        case ["not", "--crash", *rest]:
            result = _run_process(rest, stdin, shell, join=join)
            return Result(int(result.status >= 0), result.stdout, result.stderr)
        case ["not" | "!", *rest]:
            result = _run_args(rest, stdin, shell, join=join)
            return Result(int(result.status <= 0), result.stdout, result.stderr)
        case ["env", *rest]:
            env = dict(shell.env)
            while rest and (rest[0] == "-u" or "=" in rest[0]):
                if rest[0] == "-u":
                    env.pop(rest[1], None)
                    rest = rest[2:]
                else:
                    name, _, value = rest[0].partition("=")
                    env[name] = value
                    rest = rest[1:]
            return _run_args(rest, stdin, Shell(shell.cwd, env), join=join)
    tool = _TOOLS.get(os.path.basename(args[0]))
    if tool is None or (tool is _python and args[1:2] and args[1].startswith("-") and args[1] not in ("-c", "-m")):
        return _run_process(args, stdin, shell, join=join)
    return _call(tool, args, stdin, shell, join=join)


def _run_process(args: list[str], stdin: bytes, shell: Shell, *, join: bool) -> Result:
    try:
        done = subprocess.run(
            args,
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if join else subprocess.PIPE,
            cwd=shell.cwd,
            env=shell.env,
            check=False,
        )
    except OSError as error:
        return Result(127, b"", f"{shlex.join(args)}: {error.strerror}\n".encode())
    return Result(done.returncode, done.stdout, done.stderr or b"")


def _call(tool: Callable[[list[str]], int], args: list[str], stdin: bytes, shell: Shell, *, join: bool) -> Result:
    """Call a tool with the process's streams, arguments and environment replaced."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="surrogateescape", write_through=True)
    err = out if join else io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="surrogateescape", write_through=True)
    saved = sys.argv, sys.stdin, sys.stdout, sys.stderr
    os.environ.clear()
    os.environ.update(shell.env)
    sys.argv, sys.stdout, sys.stderr = args, out, err
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8", errors="surrogateescape")
    try:
        status = tool(args)
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            err.write(f"{stop.code}\n")
    except Exception:
        traceback.print_exc()
        status = 1
    finally:
        sys.argv, sys.stdin, sys.stdout, sys.stderr = saved
    streams = [s.buffer.getvalue() for s in (out, err)]  # type: ignore[attr-defined]
    return Result(status, streams[0], b"" if join else streams[1])


def _ingot_opt(args: list[str]) -> int:
    from ingot.tools.ingot_opt import main

    return main(args[1:], new_context=_take_context)


def _ingot(args: list[str]) -> int:
    from ingot.tools.ingot import main

    return main() or 0


def _filecheck(args: list[str]) -> int:
    from filecheck.main import main

    main(list(args))
    return 0


def _python(args: list[str]) -> int:
    if args[1] == "-c":
        sys.argv = ["-c", *args[3:]]
        exec(compile(args[2], "<string>", "exec"), {"__name__": "__main__"})
    elif args[1] == "-m":
        sys.argv = args[2:]
        runpy.run_module(args[2], run_name="__main__", alter_sys=True)
    else:
        sys.argv = args[1:]
        runpy.run_path(args[1], run_name="__main__")
    return 0


_TOOLS: dict[str, Callable[[list[str]], int]] = {
    "FileCheck": _filecheck,
    "filecheck": _filecheck,
    "ingot": _ingot,
    "ingot-opt": _ingot_opt,
    "python": _python,
}
