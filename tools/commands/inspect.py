"""`ingot inspect`."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("inspect", help="Print an engine's inputs, outputs, weights and IR.")
@click.argument("engine", type=click.Path(path_type=Path))
@click.option("--ir", is_flag=True, help="Print the AOT IR as text.")
@click.option("--weights", is_flag=True, help="List the weights.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(engine: Path, ir: bool, weights: bool, as_json: bool) -> None:
    from ingot.engine import Engine

    loaded = Engine.load(engine)
    if ir:
        click.echo(loaded.ir_text())
        return
    report = loaded.inspect()
    if as_json:
        click.echo(json.dumps(report, indent=1))
        return
    for key, value in report.items():
        if key in ("inputs", "outputs"):
            click.echo(f"{key}:")
            for spec in value:
                click.echo(f"  {spec['name']}: {spec['type']}[{', '.join(map(str, spec['shape']))}]")
        elif key == "weights":
            total = sum(w["bytes"] for w in value)
            click.echo(f"weights: {len(value)}, {total / 1e6:.1f} MB")
            for w in value if weights else ():
                click.echo(f"  {w['name']}: {w['dtype']}{w['shape']}")
        else:
            click.echo(f"{key}: {value}")
