"""`ingot`: compile ONNX models to engines, run, measure and inspect them."""

from __future__ import annotations

import importlib
import sys

import click

from ingot import __version__
from ingot.errors import Error

COMMANDS = {
    "compile": "Compile an ONNX model to an engine.",
    "run": "Run an engine or a model on inputs from a file, or on random ones.",
    "bench": "Measure latency, throughput, JIT and load times, and memory.",
    "inspect": "Print what an engine holds.",
    "check": "Say whether an engine is intact and valid on this machine.",
    "kernel": "List a model's kernels, print one's code, go on from an edited stage.",
    "targets": "Print the targets that kernels can be compiled for.",
    "cache": "Show, clear, export or import the runtime cache.",
}


class _LazyGroup(click.Group):
    """A group whose commands are imported when called, so that `--help` answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return importlib.import_module(f"ingot.tools.commands.{cmd_name}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def cli() -> None:
    """Ingot: ONNX models, cast once into portable engines, forged on the machine at hand."""


def main(argv: list[str] | None = None) -> int:
    """Run the tool; an `ingot.Error`, or what the system refuses, becomes one line on standard error and exit status 1."""
    try:
        cli.main(args=argv, prog_name="ingot", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as e:
        return e.exit_code
    except click.ClickException as e:
        e.show()
        return e.exit_code
    except click.Abort:
        click.echo("interrupted", err=True)
        return 130
    except Error as e:
        click.echo(f"ingot: error: {e}", err=True)
        return 1
    except OSError as e:
        where = f"{e.filename}: " if e.filename else ""
        click.echo(f"ingot: error: {where}{e.strerror or e}", err=True)
        return 1
    except MemoryError as e:
        click.echo(f"ingot: error: there is too little memory{f': {e}' if str(e) else ''} (use smaller inputs)", err=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
