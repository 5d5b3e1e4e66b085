"""Loops of machine code: opcodes of the innermost one that has a given instruction.

Instructions take 16 bytes from sm_70 on; the lowest nine bits are the opcode, the next three the form of its operands
(`cuobjdump -sass` prints names and encodings).
"""

from __future__ import annotations

import struct

from ingot.compiler.toolchain.elf import ElfFile

_BRANCH, HMMA = 0x147, 0x03C


def innermost_opcodes(cubin: bytes, symbol: str, sm: int, opcode: int = HMMA) -> list[int]:
    """Opcodes of the shortest loop, from a branch's target to a branch backwards, that has `opcode`. Raises ValueError where
    there is none."""
    elf = ElfFile(cubin)
    (section,) = (s for s in elf.sections if s.name == f".text.{symbol}")
    machine = elf.contents(section)
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
