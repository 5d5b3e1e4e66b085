"""The options of `ingot run` and `ingot bench` that are arguments of `ingot.Session`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--device", help="cpu, or cuda:N [default: the GPU where one is found, else the CPU]."),
    click.option("--threads", type=click.IntRange(1), help="Threads a call uses on the CPU [default: the cores]."),
    click.option(
        "--specialize",
        type=click.Choice(["lazy", "eager", "none"]),
        default="lazy",
        help="When a shape gets kernels of its own on a GPU: in the background, at its first call, never [default: lazy].",
    ),
    click.option("--tf32", is_flag=True, help="Allow TF32 in matrix products of float32 on a GPU."),
    click.option(
        "--fast-accumulation", is_flag=True, help="Sum products of 8-bit floats in what a GPU's tensor cores keep (14 bits)."
    ),
)


def session_options(command: F) -> F:
    """Decorate a command's function, which receives them as keyword arguments of the same names."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
