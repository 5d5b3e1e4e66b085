"""Machine code of a CPU, mapped and called without LLVM."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from ingot.errors import DeviceError
from ingot.kernel_code import KernelCode
from ingot.runtime.platform_posix import CodeMapping

_ALIGNMENT = 4096  # the linker's: sections keep the alignment they have inside an image


class CpuImages:
    """Several images in one mapping. `address(i, symbol)` finds a function of the i-th.

    Raises:
        DeviceError: memory cannot be made executable, or code is not for a CPU.
    """

    def __init__(self, codes: Sequence[KernelCode]) -> None:
        text = bytearray()
        self._starts: list[int] = []
        self._symbols = [c.symbols for c in codes]
        for code in codes:
            if code.kind != "image":
                raise DeviceError(f"code of kind {code.kind!r} does not run on a CPU")
            text += bytes(-len(text) % _ALIGNMENT)
            self._starts.append(len(text))
            text += code.code
        try:
            self._mapping = CodeMapping(bytes(text))
        except OSError as e:
            raise DeviceError(f"machine code cannot be loaded: {e}", cure="allow executable memory for this process") from e

    def address(self, number: int, symbol: str) -> int:
        """Address of a function. Raises KeyError where the image has none of this name."""
        return self._mapping.address + self._starts[number] + self._symbols[number][symbol]

    def function(self, number: int, symbol: str, arguments: int) -> Any:
        """A function as a Python callable of `arguments` addresses or i64 values; it runs without the interpreter's lock."""
        prototype = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * arguments)
        return prototype(self.address(number, symbol))
