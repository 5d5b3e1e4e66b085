"""The options of `ingot run` and `ingot bench` that are arguments of `ingot.Session`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--device", help="cpu, or cuda:N [default: the GPU where one is found, else the CPU]."),
    click.option("--threads", type=click.IntRange(1), help="Threads a call uses on the CPU [default: the cores]."),
    click.option("--tf32", is_flag=True, help="Allow TF32 in matrix products of float32 on a GPU."),
)


def session_options(command: F) -> F:
    """Decorate a command's function, which receives them as the keyword arguments `device`, `threads` and `tf32`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
