"""`ingot run`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from ingot.tools.commands.session_options import session_options


@click.command("run", help="Run an engine (or an ONNX model, compiled first) and print or save its outputs.")
@click.argument("engine", type=click.Path(path_type=Path))
@click.option("-i", "--inputs", type=click.Path(path_type=Path), help="An .npz file of arrays named as the inputs.")
@click.option("-d", "--dim", "dims", multiple=True, metavar="NAME=SIZE", help="Size of a named dimension, for random inputs.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the outputs to this .npz file.")
@click.option("--seed", default=0, show_default=True, help="Seed of random inputs.")
@session_options
def command(
    engine: Path, inputs: Path | None, dims: tuple[str, ...], output: Path | None, seed: int, **session_arguments: Any
) -> None:
    from ingot.runtime.session import Session
    from ingot.tools.commands.engines import open_engine
    from ingot.tools.commands.feeds import choose_feeds, write_npz
    from ingot.tools.commands.progress import progress

    with progress() as update:
        session = Session(open_engine(engine, update), progress=update, **session_arguments)
        feeds = choose_feeds(session, inputs, dims, seed)
        results = session.run(None, feeds)
    named = {spec.name: np.asarray(value) for spec, value in zip(session.get_outputs(), results, strict=True)}
    for name, value in named.items():
        click.echo(f"{name}: {value.dtype}{list(value.shape)} {summary(value)}")
    if output is not None:
        write_npz(output, named)
        click.echo(f"wrote {output}")


def summary(value: np.ndarray) -> str:
    """Mean and extrema of floats, the first elements of anything else."""
    if not value.size or value.dtype.kind not in "fV":
        return " ".join(map(str, value.ravel()[:8]))
    wide = value.astype(np.float64)
    return f"mean {np.mean(wide):.6g}, min {np.min(wide):.6g}, max {np.max(wide):.6g}"
