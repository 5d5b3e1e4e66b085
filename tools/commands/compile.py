"""`ingot compile`."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ingot.engine import Engine


@click.command("compile", help="Compile an ONNX model to an engine file.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Engine file [default: the model's name with .ingot].")
@click.option("--constant", "constants", multiple=True, metavar="INPUT=VALUE",
              help="Make an input a constant: a number or a list, axes=[1] (repeatable).")  # fmt: skip
@click.option("--cast", type=click.Choice(["fp16", "bf16"]), help="Compute a float model in this type where that is safe.")
@click.option("--no-weights", is_flag=True, help="Leave the weights out; `Engine.refit` puts them back.")
@click.option("--target", "targets", multiple=True, metavar="NAME", help="Also fill the cache with its kernels (repeatable).")
@click.option("--pass", "passes", multiple=True, metavar="PASS", help="Run a pass after Ingot's own (repeatable).")
@click.option("--load", multiple=True, type=click.Path(path_type=Path), metavar="FILE.py", help="Load passes from a file.")
@click.option("--time-passes", is_flag=True, help="Print the share of each pass.")
@click.option("--dump-dir", type=click.Path(path_type=Path), help="Write the IR after each pass to this folder.")
def command(
    model: Path,
    output: Path | None,
    constants: tuple[str, ...],
    cast: str | None,
    no_weights: bool,
    targets: tuple[str, ...],
    passes: tuple[str, ...],
    load: tuple[Path, ...],
    time_passes: bool,
    dump_dir: Path | None,
) -> None:
    from ingot.compiler.driver import compile_model
    from ingot.cuda_targets import BY_NAME
    from ingot.errors import DeviceError
    from ingot.tools.commands.progress import progress

    known = ("cpu", *BY_NAME)
    for name in targets:  # a wrong name is found before the work
        if name not in known:
            raise DeviceError(f"no target {name!r}", cure=f"targets are {', '.join(known)}")
    start = time.perf_counter()
    with progress() as update:
        engine = compile_model(
            model,
            constants=parse_constants(constants),
            cast=cast,
            passes=passes,
            load=load,
            progress=update,
            time_passes=time_passes,
            dump_dir=dump_dir,
        )
        output = output or model.with_suffix(".ingot")
        engine.save(output, weights=not no_weights)
    seconds = time.perf_counter() - start
    size = output.stat().st_size
    click.echo(f"{output}: {size / 1e6:.1f} MB in {seconds:.2f} s")
    for note in engine.notes:
        click.echo(f"  {note}")
    for name in targets:
        compile_kernels(engine, name)


def parse_constants(texts: Sequence[str]) -> dict[str, Any]:
    """Values by name from `INPUT=VALUE` texts. Raises InputError for a text that is none."""
    from ingot.errors import InputError

    constants = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            constants[name] = json.loads(value)
        except json.JSONDecodeError:
            raise InputError(f"--constant {text} is not INPUT=VALUE", cure="give a number or a list, as in axes=[1]") from None
    return constants


def compile_kernels(engine: Engine, name: str) -> None:
    """Fill the runtime cache with an engine's kernels for a target, present or not. Raises Error for an unknown target."""
    from ingot.cuda_targets import target
    from ingot.runtime.cache import RuntimeCache
    from ingot.runtime.compile_client import shared_client
    from ingot.runtime.program_loader import ProgramLoader
    from ingot.runtime.specialization import machine_passes
    from ingot.tools.commands.progress import progress

    start = time.perf_counter()
    with progress() as update:
        loader = ProgramLoader(RuntimeCache.open_default(), shared_client(), update)
        machine = loader.host_target() if name == "cpu" else target(name)
        loader.passes = machine_passes(machine)
        stages = [loader.load(engine, machine, stage=number) for number in range(engine.header.stages)]
    seconds = time.perf_counter() - start
    kernels, compiled = sum(len(s.kernels) for s in stages), sum(s.report.compiled for s in stages)
    click.echo(f"{name}: {kernels} kernels, of which {compiled} were compiled, in {seconds:.2f} s")
