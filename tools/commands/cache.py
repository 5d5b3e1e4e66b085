"""`ingot cache`."""

from __future__ import annotations

from pathlib import Path

import click


@click.group("cache", help="Show, clear, export or import the runtime cache of kernels and launch programs.")
def command() -> None:
    pass


@command.command("info", help="Where the cache is, and what it holds.")
def info() -> None:
    from ingot.runtime.cache import RuntimeCache

    cache = RuntimeCache.open_default()
    report = cache.info()
    click.echo(f"{report['path']}: {report['entries']} entries, {report['bytes'] / 1e6:.1f} MB")
    for kind, held in report["kinds"].items():
        click.echo(f"  {kind:8s} {held['entries']:6d} {held['bytes'] / 1e6:8.1f} MB")
    if report["problem"]:
        click.echo(f"  not used as it should be: {report['problem']}")


@command.command("clear", help="Remove every entry.")
def clear() -> None:
    from ingot.runtime.cache import RuntimeCache

    click.echo(f"removed {RuntimeCache.open_default().clear()} entries")


@command.command("export", help="Write the cache to a file that another machine of the same kind can import.")
@click.argument("path", type=click.Path(path_type=Path))
def export(path: Path) -> None:
    from ingot.runtime.cache import RuntimeCache

    click.echo(f"wrote {RuntimeCache.open_default().export(path)} entries to {path}")


@command.command("import", help="Add an exported cache's entries. They are code: import only files you trust.")
@click.argument("path", type=click.Path(path_type=Path))
def import_(path: Path) -> None:
    from ingot.runtime.cache import RuntimeCache

    click.echo(f"imported {RuntimeCache.open_default().import_from(path)} entries")
