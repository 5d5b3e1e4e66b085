"""`ingot targets`."""

from __future__ import annotations

import click


@click.command("targets", help="Print the targets that kernels can be compiled for, and what each offers.")
def command() -> None:
    from ingot.compiler.codegen.mma_table import rows_for
    from ingot.cuda_targets import CUDA_TARGETS

    click.echo(f"{'target':10s} {'PTX':>4s} {'shared KB':>9s} {'cluster':>7s}  matrix instructions")
    click.echo(f"{'cpu':10s} {'-':>4s} {'-':>9s} {'-':>7s}  the host's vector instructions")
    for t in CUDA_TARGETS:
        rows = " ".join(f"{row.name}*" if row.on_hardware else row.name for row in rows_for(t))
        version = f"{t.ptx // 10}.{t.ptx % 10}"
        click.echo(f"{t.name:10s} {version:>4s} {t.shared_bytes // 1024:9d} {t.max_cluster:7d}  {rows}")
    click.echo("* its results were checked on a GPU; all others on an emulator")
