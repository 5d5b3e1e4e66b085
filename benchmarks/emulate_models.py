"""Every kernel that models launch on a GPU, emulated without one: races, bounds, alignment, and results against the reference.

    python benchmarks/emulate_models.py                              # the node tests of the onnx package
    python benchmarks/emulate_models.py --only softmax --target sm_75
    python benchmarks/emulate_models.py MODEL.onnx ...               # small ones: the emulator runs a thread at a time

Each model runs as it is and with its inputs' sizes as names, on a GPU whose kernels are numpy's; each distinct dispatch is then
emulated on the operands that it got there, for any shape and for its own (`test/emulated_launches.py`), and compiled to PTX
(`--stop` names another stage of the tool chain, "" none). Models that Ingot refuses are counted. Prints what fails, by cause.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "test"))

from emulated_launches import Launch, compare, recorded, with_named_sizes

from ingot import backend
from ingot.compiler.compile_kernel import compile_stages
from ingot.cuda_targets import BY_NAME
from ingot.errors import CompileError, Error

Case = tuple[str, onnx.ModelProto, list[Any]]  # name, model, inputs


def cases_of_onnx(only: str) -> Iterator[Case]:
    """The node tests of the onnx package whose names match."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.random.seed(0)
        tests = load_model_tests(kind="node")
    for test in tests:
        if re.search(only, test.name):
            for inputs, _ in test.data_sets:
                yield test.name, test.model, list(map(_array, inputs))


def _array(value: Any) -> Any:
    """An input of a test as arrays."""
    match value:
        case onnx.TensorProto():
            return onnx.numpy_helper.to_array(value)
        case onnx.SequenceProto():
            return onnx.numpy_helper.to_list(value)
        case onnx.OptionalProto():
            return onnx.numpy_helper.to_optional(value)
    return value


def cases_of_files(paths: list[str]) -> Iterator[Case]:
    """Models with inputs drawn at random; sizes that have names are 3."""
    rng = np.random.default_rng(0)
    for path in paths:
        model = onnx.load(path)
        weights = {t.name for t in model.graph.initializer}
        inputs = []
        for info in model.graph.input:
            if info.name not in weights:
                shape = [d.dim_value or 3 for d in info.type.tensor_type.shape.dim]
                dtype = onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
                inputs.append((rng.standard_normal(shape) * 2).astype(dtype))
        yield Path(path).name, model, inputs


@dataclass
class Run:
    """What was emulated for a target, and what failed.

    Attributes:
        stop: the stage of the tool chain that kernels are compiled to; "" for none.
        seconds: of an emulation at most.
    """

    target: str
    stop: str
    seconds: int
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, str]] = field(default_factory=list)
    compiled: set[str] = field(default_factory=set)

    def cases(self, cases: Iterator[Case]) -> None:
        """Run models and emulate what they launch."""
        with recorded(self.target) as launches:
            for name, model, inputs in cases:
                for form, made in (("", model), ("shared", with_named_sizes(model)), ("named", with_named_sizes(model, False))):
                    self._run(name, form, made, inputs)
                    for launch in launches.take():
                        self._emulate(f"{name} {form}".rstrip(), launch)

    def _run(self, name: str, form: str, model: onnx.ModelProto, inputs: list[Any]) -> None:
        try:
            backend.prepare(model, "CUDA:0").run(inputs)
            self.counts[f"models run {form}".rstrip()] += 1
        except Error as error:
            self.counts[f"models refused {form}".rstrip()] += 1
            if isinstance(error, CompileError):
                self._failed(name, "draft", str(error), None)
        except Exception as error:
            self._failed(f"{name} {form}", "model", f"{type(error).__name__}: {error}", None)

    def _emulate(self, name: str, launch: Launch) -> None:
        self.counts["launches"] += 1
        target = BY_NAME[self.target]
        try:
            if self.stop and launch.dispatch.key not in self.compiled:
                self.compiled.add(launch.dispatch.key)
                compile_stages(launch.dispatch, target, stop=self.stop)
        except CompileError as error:
            self._failed(name, "compile", error.message, launch)
            return
        try:
            with limited(self.seconds):
                compare(launch, self.target)
        except Slow:
            self.counts["too slow to emulate"] += 1
        except NotImplementedError as error:
            self._failed(name, "no kernel", str(error), launch)
        except Exception as error:
            self._failed(name, "emulation", f"{type(error).__name__}: {error}", launch)

    def _failed(self, name: str, what: str, message: str, launch: Launch | None) -> None:
        d = launch and launch.dispatch
        row = {"case": name, "what": what, "message": message, "root": d.root if d else "", "dispatch": d.text if d else ""}
        row["sizes"] = json.dumps(launch.sizes) if launch else ""
        self.failures.append(row)
        print(f"{name}: {what}{' of ' + d.root if d else ''}: {message.splitlines()[0] if message else ''}", flush=True)


class Slow(Exception):
    """An emulation took too long."""


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raise Slow after so many seconds."""

    def stop(*_: object) -> None:
        raise Slow

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="files; by default the node tests of the onnx package")
    parser.add_argument("--target", dest="targets", action="append", choices=BY_NAME, help="by default sm_90a")
    parser.add_argument("--only", default="", help="node tests whose names match")
    parser.add_argument("--stop", default="ptx", help="compile to this stage")
    parser.add_argument("--seconds", type=int, default=20, help="of an emulation at most")
    parser.add_argument("--json", type=Path, help="write failures there")
    options = parser.parse_args()
    failures = []
    for target in options.targets or ["sm_90a"]:
        begin = time.monotonic()
        run = Run(target, options.stop, options.seconds)
        run.cases(cases_of_files(options.models) if options.models else cases_of_onnx(options.only))
        failures += [{"target": target, **f} for f in run.failures]
        counts = ", ".join(f"{n} {what}" for what, n in sorted(run.counts.items()))
        print(f"{target}: {len(run.failures)} failures; {counts}; {time.monotonic() - begin:.0f} s", flush=True)
        if options.json:
            options.json.write_text(json.dumps(failures, indent=1))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
