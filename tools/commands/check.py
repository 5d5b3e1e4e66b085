"""`ingot check`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("check", help="Say whether an engine is intact and can run on this machine; exit status 1 where it cannot.")
@click.argument("engine", type=click.Path(path_type=Path))
@click.option("--header-only", is_flag=True, help="Check header and IR, not the weights.")
def command(engine: Path, header_only: bool) -> None:
    from ingot.engine import Engine

    loaded = Engine.load(engine)
    if not header_only:
        loaded.verify_hashes()
    state = "header and IR are valid" if header_only else "intact"
    without = ", without weights: refit it before it runs" if loaded.is_stripped else ""
    click.echo(f"{engine}: {state}, format {loaded.header.format_version}{without}")
