"""From an engine and a target to a launch program with its kernels: out of the runtime cache, or by the compile server.

One interface for all targets: kernels are `KernelCode`, whatever their kind. Nothing here imports the compiler; where all is
cached, nothing is started.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from ingot import launch_program
from ingot.engine import Engine
from ingot.errors import CompileError, Error
from ingot.fingerprint import kernel_key, program_key
from ingot.kernel_code import KernelCode
from ingot.launch_program import LaunchProgram
from ingot.program_linking import link, specialize
from ingot.runtime import platform_posix as platform
from ingot.runtime.cache import RuntimeCache
from ingot.runtime.compile_client import CompileClient, Job, as_error
from ingot.runtime.kernel_batches import batches
from ingot.runtime.load_report import LoadReport
from ingot.target import Target

Progress = Callable[[str, int, int], None]  # what, done, of how many


@dataclass(frozen=True)
class LoadedProgram:
    """A complete launch program.

    Attributes:
        program: what to launch.
        kernels: code of `program.kernels`, in order.
        native: CPU: the program itself as machine code.
        thread_pool: CPU: the pool's machine code.
        report: what was compiled, and where the time went.
    """

    program: LaunchProgram
    kernels: tuple[KernelCode, ...]
    native: KernelCode | None = None
    thread_pool: KernelCode | None = None
    report: LoadReport = field(default_factory=LoadReport)


@dataclass
class ProgramLoader:
    """Loads programs with a cache and a compile server.

    Attributes:
        progress: called as kernels get ready.
        passes: further passes for launch programs.
    """

    cache: RuntimeCache
    client: CompileClient
    progress: Progress | None = None
    passes: tuple[str, ...] = ()

    def host_target(self) -> Target:
        """This machine's CPU as a target, without LLVM where the cache knows it."""
        key = hashlib.sha256(platform.cpu_identity().encode()).hexdigest()
        key = kernel_key("host", key)
        cached = self.cache.get("target", key)
        if cached is None:
            answer, _ = self.client.one(Job("target"))
            cached = _json(answer["target"])
            self.cache.put("target", key, cached)
        return _target(cached)

    def expect(self, engine: Engine) -> None:
        """Start the compile server if the cache does not know the engine: it warms up while the device is being opened."""
        if self.cache.get("engine", _engine_key(engine)) is None:
            with contextlib.suppress(CompileError):  # without a compiler, what is missing is said when a kernel is
                self.client.start()

    def load(self, engine: Engine, target: Target, report: LoadReport | None = None, stage: int = 0) -> LoadedProgram:
        """The engine's program on `target`.

        Args:
            report: receives what was compiled and the time of each step.
            stage: which, of those that follow one another (`EngineHeader.stages`).

        Raises:
            CompileError: a kernel cannot be compiled; the message names the first, and how many there are.
        """
        passes = self.passes
        if engine.header.stages > 1:
            passes = (f"ingot-select-stage{{number={stage}}}", *passes)
        key = program_key(_ir_sha256(engine), target.key, passes)
        report = report or LoadReport()
        with report.step("cached"):
            cached = self.cache.get("program", key)
        if cached is not None:
            try:
                return self._complete(cached, target, report)
            except ValueError:
                pass  # an entry that cannot be read is compiled again
        with report.step("draft"):
            if not self.client.running:
                self.client.start()
            answer, (draft, *dispatches) = self.client.one(Job("draft", target, (engine.ir,), passes))
            report.add_stages(answer)
            texts = [text.decode() for text in dispatches]
            keys = [kernel_key(text, target.key) for text in texts]
        with ThreadPoolExecutor(1) as thread:  # it reads the draft while kernels compile
            reading = thread.submit(launch_program.loads, draft)
            check = None if stage else Job("verify", blobs=(engine.ir,))  # of all stages
            kernels = self._kernels(texts, keys, target, report, check)
        with report.step("link"):
            program = link(reading.result(), keys, [k.plan for k in kernels])
            data = launch_program.dumps(program)
        native = b""
        if target.kind == "cpu":
            with report.step("native"):
                _, (native,) = self.client.one(Job("native", target, (data,)))
        value = len(data).to_bytes(8, "little") + data + native
        self.cache.put("program", key, value)
        self.cache.put("engine", _engine_key(engine), b"")
        return self._assemble(program, kernels, native, target, report)

    def specialize(
        self, program: LaunchProgram, env: Mapping[str, int], live: frozenset[str], target: Target
    ) -> LoadedProgram:
        """A complete program with kernels for the sizes at hand; see `ingot.program_linking.specialize`.

        Raises CompileError where a kernel cannot be compiled.
        """
        draft = specialize(program, env, live)
        texts = [e.dispatch for e in draft.kernels]
        keys = [kernel_key(text, target.key) for text in texts]
        report = LoadReport()
        kernels = self._kernels(texts, keys, target, report)
        return LoadedProgram(link(draft, keys, [k.plan for k in kernels]), tuple(kernels), report=report)

    def _complete(self, cached: bytes, target: Target, report: LoadReport) -> LoadedProgram:
        with report.step("cached"):
            length = int.from_bytes(cached[:8], "little")
            program = launch_program.loads(cached[8 : 8 + length])
        keys = [e.key for e in program.kernels]
        kernels = self._kernels([e.dispatch for e in program.kernels], keys, target, report)
        return self._assemble(program, kernels, cached[8 + length :], target, report)

    def _assemble(
        self, program: LaunchProgram, kernels: list[KernelCode], native: bytes, target: Target, report: LoadReport
    ) -> LoadedProgram:
        if target.kind != "cpu":
            return LoadedProgram(program, tuple(kernels), report=report)
        return LoadedProgram(program, tuple(kernels), KernelCode.loads(native), self._thread_pool(target), report)

    def _thread_pool(self, target: Target) -> KernelCode:
        key = kernel_key("thread pool", target.key)
        cached = self.cache.get("kernel", key)
        if cached is None:
            _, (cached,) = self.client.one(Job("thread-pool", target))
            self.cache.put("kernel", key, cached)
        return KernelCode.loads(cached)

    def _kernels(
        self, texts: Sequence[str], keys: Sequence[str], target: Target, report: LoadReport, check: Job | None = None
    ) -> list[KernelCode]:
        """Code of the dispatches `texts`, whose keys are `keys`. Raises the error of `check`, a job that is done besides."""
        with report.step("cached"):
            found = self._cached(keys)
        with report.step("kernels"):
            wanted = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
            fresh = self._compile(wanted, target, report, check) if wanted or check else {}
        report.kernels = len(set(keys))
        report.compiled = len(fresh)
        report.workers = self.client.workers if fresh else 0
        found |= fresh
        return [found[key] for key in keys]

    def _cached(self, keys: Sequence[str]) -> dict[str, KernelCode]:
        """The kernels that the cache has, with the modules that they share."""
        found = {key: KernelCode.loads(value) for key, value in self.cache.get_many("kernel", keys).items()}
        modules = self.cache.get_many("module", [code.module for code in found.values() if code.module])
        return {
            key: replace(code, code=modules[code.module]) if code.module else code
            for key, code in found.items()
            if not code.module or code.module in modules
        }

    def _compile(
        self, wanted: Mapping[str, str], target: Target, report: LoadReport, check: Job | None
    ) -> dict[str, KernelCode]:
        """Compile dispatches, given by key, and keep them in the cache; see `_kernels`."""
        keys, texts = list(wanted), [text.encode() for text in wanted.values()]
        groups = [[i] for i in range(len(keys))]
        if target.kind == "cuda":
            groups = batches(list(wanted.values()), self.client.workers)
        fresh: dict[str, KernelCode] = {}
        failures: list[Error] = []
        while groups or check:
            jobs = [Job("batch" if len(g) > 1 else "kernel", target, tuple(texts[i] for i in g)) for g in groups]
            jobs += [check] if check else []
            check = None
            again: list[list[int]] = []
            # Closed whatever happens: an exception may be kept, and with it the server's lock.
            with contextlib.closing(self.client.jobs(jobs)) as answers:
                for number, answer, blobs in answers:
                    if number == len(groups):
                        if isinstance(answer, Error):
                            raise answer
                        report.add_stages(answer)
                        continue
                    group = groups[number]
                    if isinstance(answer, Error):
                        if len(group) > 1:  # a kernel took its batch along
                            again += [[i] for i in group]
                        else:
                            failures.append(answer)
                    else:
                        report.add_stages(answer)
                        codes, faults = _unpack(answer, blobs)
                        failures += faults
                        fresh |= {keys[group[i]]: code for i, code in codes.items()}
                    if self.progress is not None:
                        self.progress("kernels", len(fresh) + len(failures), len(keys))
            groups = again
        self.cache.put_many("module", {code.module: code.code for code in fresh.values() if code.module})
        self.cache.put_many("kernel", {key: code.dumps() for key, code in fresh.items()})
        if failures:
            first = failures[0]
            if len(failures) > 1:
                first.add_note(f"and {len(failures) - 1} other kernels failed")
            raise first
        return fresh


def _ir_sha256(engine: Engine) -> str:
    return engine.header.ir_sha256 or hashlib.sha256(engine.ir).hexdigest()


def _engine_key(engine: Engine) -> str:
    return program_key(_ir_sha256(engine), "")


def _unpack(answer: Mapping[str, Any], blobs: Sequence[bytes]) -> tuple[dict[int, KernelCode], list[Error]]:
    """The kernels of an answer to a job, by their number in it, and the errors of those that failed."""
    if "faults" not in answer:
        return {0: KernelCode.loads(blobs[0])}, []
    module, *values = blobs
    codes = {number: KernelCode.loads(value) for number, value in enumerate(values) if value}
    codes = {number: replace(code, code=module) if code.module else code for number, code in codes.items()}
    return codes, [as_error(fault) for fault in answer["faults"].values()]


def _json(target: dict[str, Any]) -> bytes:
    import json

    return json.dumps(target, sort_keys=True).encode()


def _target(data: bytes) -> Target:
    import json

    return Target.from_json(json.loads(data))
