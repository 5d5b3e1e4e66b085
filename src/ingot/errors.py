"""The one class of error that users of Ingot see."""

from __future__ import annotations

from collections.abc import Iterable


class Error(Exception):
    """A failure with the node at fault and the cure, in one line.

    Args:
        message: what is wrong, quoting the offending values.
        node: name of the ONNX node, or of the file or input, at fault.
        cure: what the user can do about it.
    """

    def __init__(self, message: str, *, node: str | None = None, cure: str | None = None) -> None:
        self.message, self.node, self.cure = message, node, cure
        text = f"{node}: {message}" if node else message
        super().__init__(f"{text} ({cure})" if cure else text)


class ModelError(Error):
    """The ONNX model is invalid, or uses what Ingot does not support.

    Args:
        constants: names of inputs whose values have to be known when compiling.
    """

    def __init__(
        self, message: str, *, node: str | None = None, cure: str | None = None, constants: Iterable[str] = ()
    ) -> None:
        super().__init__(message, node=node, cure=cure)
        self.constants = tuple(constants)


class CompileError(Error):
    """A pass, a kernel or the code generator failed."""


class EngineError(Error):
    """An engine file is damaged, foreign, or not valid here."""


class InputError(Error):
    """An input's name, shape or dtype is not what the engine expects."""


class DeviceError(Error):
    """The device is missing, out of memory, lost, or a kernel faulted."""
