"""Sections and symbols of an ELF64 file: an object of the CPU's code generator, or a cubin.

Structures follow the System V ABI (Elf64_Ehdr, Elf64_Shdr, Elf64_Sym): https://gitlab.com/x86-psABIs/x86-64-ABI.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

SHT_PROGBITS, SHT_SYMTAB, SHT_RELA, SHT_NOBITS = 1, 2, 4, 8


@dataclass
class Section:
    """A section header; `address` is the linker's, -1 before it places the section."""

    name: str
    type: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    address: int = -1


@dataclass(frozen=True)
class Symbol:
    """A symbol: `section` is the number of the section that it lies in, 0 where it is undefined."""

    name: str
    section: int
    value: int
    binding: int
    kind: int


class ElfFile:
    """The sections and symbols of `data`, which must be ELF64 in little-endian order. Raises ValueError."""

    def __init__(self, data: bytes) -> None:
        if data[:6] != b"\x7fELF\x02\x01":
            raise ValueError("not an ELF file of 64 bits")
        self.data = data
        self.type, self.machine = struct.unpack_from("<HH", data, 16)
        (table,) = struct.unpack_from("<Q", data, 40)
        size, count, names = struct.unpack_from("<HHH", data, 58)
        rows = [struct.unpack_from("<IIQQQQIIQQ", data, table + i * size) for i in range(count)]
        strings = rows[names][4]
        self.sections = [Section(self._string(strings + r[0]), r[1], r[2], r[4], r[5], r[6], r[7], max(1, r[8])) for r in rows]
        self.symbols: list[Symbol] = []
        for section in self.sections:
            if section.type == SHT_SYMTAB:
                base = self.sections[section.link].offset
                for i in range(section.size // 24):
                    name, info, _, index, value, _ = struct.unpack_from("<IBBHQQ", data, section.offset + 24 * i)
                    self.symbols.append(Symbol(self._string(base + name), index, value, info >> 4, info & 15))

    def _string(self, offset: int) -> str:
        return self.data[offset : self.data.index(b"\0", offset)].decode()

    def contents(self, section: Section) -> bytes:
        """A section's bytes in the file."""
        return self.data[section.offset : section.offset + section.size]
