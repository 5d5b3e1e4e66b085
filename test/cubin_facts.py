"""What a cubin says of its kernels: registers of a thread, bytes of its stack (where spilled registers go), opcodes of loops.

The cubin is an ELF file; a kernel's facts are attributes of its `.nv.info` section (`cuobjdump -elf` prints them). Instructions
take 16 bytes from sm_70 on; the lowest nine bits are the opcode, the next three the form of its operands (`cuobjdump -sass`
prints names and encodings).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_FRAME_SIZE, _REGISTERS = 0x11, 0x2F
_SIZED = 0x04  # the form of an attribute that is followed by its size
_BRANCH, HMMA = 0x147, 0x03C


@dataclass(frozen=True)
class CubinFacts:
    """Of one kernel.

    Attributes:
        registers: of a thread.
        stack: bytes of a thread.
    """

    registers: int
    stack: int


class _Elf:
    def __init__(self, data: bytes) -> None:
        (at,) = struct.unpack_from("<Q", data, 0x28)
        size, count, names = struct.unpack_from("<HHH", data, 0x3A)
        self.data = data
        self.sections = [struct.unpack_from("<IIQQQQIIQQ", data, at + i * size) for i in range(count)]
        self.titles = [self.text(self.body(names), s[0]) for s in self.sections]

    def body(self, i: int) -> bytes:
        return self.data[self.sections[i][4] : self.sections[i][4] + self.sections[i][5]]

    def named(self, title: str) -> bytes:
        return self.body(self.titles.index(title))

    @staticmethod
    def text(table: bytes, offset: int) -> str:
        return table[offset : table.index(b"\0", offset)].decode()


def cubin_facts(cubin: bytes) -> dict[str, CubinFacts]:
    """Facts of a cubin's kernels, by symbol."""
    elf = _Elf(cubin)
    table = elf.titles.index(".symtab")
    symbols, strings = elf.body(table), elf.body(elf.sections[table][6])
    found: dict[int, dict[int, int]] = {}
    for attribute, value in _attributes(elf.named(".nv.info")):
        if attribute in (_FRAME_SIZE, _REGISTERS):
            symbol, number = struct.unpack("<II", value)
            found.setdefault(symbol, {})[attribute] = number
    return {
        elf.text(strings, struct.unpack_from("<I", symbols, 24 * symbol)[0]): CubinFacts(facts[_REGISTERS], facts[_FRAME_SIZE])
        for symbol, facts in found.items()
    }


def _attributes(info: bytes) -> list[tuple[int, bytes]]:
    out, at = [], 0
    while at < len(info):
        form, attribute, size = struct.unpack_from("<BBH", info, at)
        at += 4
        if form == _SIZED:
            out.append((attribute, info[at : at + size]))
            at += size
    return out


def innermost_opcodes(cubin: bytes, symbol: str, sm: int, opcode: int = HMMA) -> list[int]:
    """Opcodes of the shortest loop, from a branch's target to a branch backwards, that has `opcode`. Raises ValueError where
    there is none."""
    machine = _Elf(cubin).named(f".text.{symbol}")
    words = struct.unpack(f"<{len(machine) // 8}Q", machine)
    codes = [word & 0x1FF for word in words[::2]]
    loops = []
    for i, code in enumerate(codes):
        if code == _BRANCH:
            first = i + 1 + _offset(words[2 * i], words[2 * i + 1], sm) // 16
            if first <= i and opcode in codes[first : i + 1]:
                loops.append(codes[first : i + 1])
    if not loops:
        raise ValueError(f"no loop of {symbol} has opcode {opcode:#x}")
    return min(loops, key=len)


def _offset(low: int, high: int, sm: int) -> int:
    """Bytes from the instruction after a branch to its target: a signed number of words; from sm_90 on, its lowest eight bits
    lie apart."""
    number = (high & 0x3FFFF) << 30 | low >> 34
    number -= (number >> 47) << 48
    return 4 * (number << 8 | low >> 16 & 0xFF) if sm >= 90 else 4 * number
