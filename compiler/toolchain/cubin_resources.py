"""What the kernels of a cubin ask of an SM, read from the file: no driver is needed.

A cubin is an ELF file. Its section `.nv.info` holds attributes of functions: a byte of format, a byte that names the attribute,
two bytes that are its value or, in the format with a value of its own, the value's size; `cuobjdump -elf` prints them. The
static shared memory of a function is the size of its section `.nv.shared.NAME`, less what is reserved at its beginning.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ingot.compiler.toolchain.elf import ElfFile

_SIZED = 4  # the format of attributes whose value follows (EIFMT_SVAL)
_FRAME_SIZE, _REGCOUNT = 0x11, 0x2F  # EIATTR_FRAME_SIZE, EIATTR_REGCOUNT: pairs of a symbol's number and a value


@dataclass(frozen=True)
class Resources:
    """What a kernel takes.

    Attributes:
        registers: of a thread.
        local_bytes: memory of a thread's own: what spills, and arrays with computed indices.
        shared_bytes: of a block, static.
    """

    registers: int
    local_bytes: int
    shared_bytes: int


def resources(cubin: bytes) -> dict[str, Resources]:
    """Resources of the kernels of a cubin, by name. Raises ValueError where it is none."""
    elf = ElfFile(cubin)
    reserved = max((s.value for s in elf.symbols if s.name == ".nv.reservedSmem.cap"), default=0)
    found: dict[int, dict[str, int]] = {_REGCOUNT: {}, _FRAME_SIZE: {}}
    shared: dict[str, int] = {}
    for section in elf.sections:
        if section.name == ".nv.info":
            for attribute, value in _attributes(elf.contents(section)):
                if attribute in found:
                    symbol, number = struct.unpack("<II", value)
                    found[attribute][elf.symbols[symbol].name] = number
        elif section.name.startswith(".nv.shared."):
            shared[section.name.removeprefix(".nv.shared.")] = max(0, section.size - reserved)
    names = [s.name.removeprefix(".text.") for s in elf.sections if s.name.startswith(".text.")]
    return {n: Resources(found[_REGCOUNT][n], found[_FRAME_SIZE].get(n, 0), shared.get(n, 0)) for n in names}


def _attributes(data: bytes) -> list[tuple[int, bytes]]:
    """(attribute, value) of those that have a value of their own."""
    found, at = [], 0
    while at + 4 <= len(data):
        form, attribute, size = struct.unpack_from("<BBH", data, at)
        at += 4
        if form == _SIZED:
            found.append((attribute, data[at : at + size]))
            at += size
    return found
