"""`ingot run`."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np


@click.command("run", help="Run an engine (or an ONNX model, compiled first) and print or save its outputs.")
@click.argument("engine", type=click.Path(path_type=Path))
@click.option("-i", "--inputs", type=click.Path(path_type=Path), help="An .npz file of arrays named as the inputs.")
@click.option("-d", "--dim", "dims", multiple=True, metavar="NAME=SIZE", help="Size of a named dimension, for random inputs.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the outputs to this .npz file.")
@click.option("--device", help="cpu, or cuda:N [default: the GPU where one is found, else the CPU].")
@click.option("--seed", default=0, show_default=True, help="Seed of random inputs.")
def command(
    engine: Path, inputs: Path | None, dims: tuple[str, ...], output: Path | None, device: str | None, seed: int
) -> None:
    from ingot.runtime.session import Session
    from ingot.tools.commands.feeds import parse_dims, random_feeds, read_npz
    from ingot.tools.commands.progress import progress

    with progress() as update:
        session = Session(engine, device=device, progress=update)
        feeds = read_npz(inputs) if inputs else random_feeds(session.get_inputs(), parse_dims(dims), seed)
        results = session.run(None, feeds)
    named = {spec.name: value for spec, value in zip(session.get_outputs(), results, strict=True)}
    for name, value in named.items():
        value = np.asarray(value)
        if value.size and value.dtype.kind in "fV":
            wide = value.astype(np.float64)
            detail = f"mean {wide.mean():.6g}, min {wide.min():.6g}, max {wide.max():.6g}"
        else:
            detail = " ".join(map(str, value.ravel()[:8]))
        click.echo(f"{name}: {value.dtype}{list(value.shape)} {detail}")
    if output:
        # .npz files have no bfloat16 or smaller floats: widen what numpy itself does not know.
        np.savez(output, **{k: v.astype(np.float32) if v.dtype.kind == "V" else v for k, v in named.items()})
        click.echo(f"wrote {output}")
