"""`ingot check`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("check", help="Say whether an engine is intact and can run on this machine; exit status 1 where it cannot.")
@click.argument("engine", type=click.Path(path_type=Path))
@click.option("--header-only", is_flag=True, help="Read the header alone, not the weights.")
def command(engine: Path, header_only: bool) -> None:
    from ingot.engine import Engine

    loaded = Engine.load(engine)
    if not header_only:
        loaded.verify_hashes()
    click.echo(f"{engine}: {'header is valid' if header_only else 'intact'}, format {loaded.header.format_version}")
