"""A small static linker: an ELF object becomes one flat, position-independent image that the runtime maps without LLVM.

The image holds every allocated section at its alignment, zero-initialized data included, with all relocations resolved:
they are PC-relative, so that the bytes can be mapped anywhere (64-byte aligned or better), read and execute only.
Nothing outside the image is
referenced: an undefined symbol other than the three that LLVM inserts by itself (`memcpy`, `memmove`, `memset`), which
    are linked in, is an error.

Relocations follow the System V ABI, AMD64 supplement: https://gitlab.com/x86-psABIs/x86-64-ABI (Elf64_Rela).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache

from ingot.compiler.toolchain.elf import SHT_NOBITS, SHT_PROGBITS, SHT_RELA, ElfFile, Section
from ingot.errors import CompileError


@dataclass(frozen=True)
class Image:
    """Machine code and read-only data as plain bytes; `symbols` maps each kernel's name to its offset."""

    data: bytes
    symbols: dict[str, int]

    ALIGN = 4096  # of the mapping; sections inside keep their own alignments


# Elf64_Rela types that do not depend on where the image is mapped.
_R_PC64, _R_PC32, _R_PLT32 = 24, 2, 4
_SHF_ALLOC, _SHF_WRITE = 2, 1
_SKIPPED_SECTIONS = (".eh_frame", ".note", ".comment")  # unwinding and notes: nothing here throws


class _Object(ElfFile):
    """The parts of an ELF64 relocatable object that linking needs."""

    def __init__(self, data: bytes) -> None:
        try:
            super().__init__(data)
        except ValueError:
            self.machine = 0
        if (self.machine, self.type) != (62, 1):
            raise CompileError("the code generator's output is not an x86-64 ELF object")

    def kept(self) -> list[Section]:
        """Sections that go into the image."""
        return [
            s
            for s in self.sections
            if s.flags & _SHF_ALLOC
            and s.size
            and s.type in (SHT_PROGBITS, SHT_NOBITS)
            and not s.name.startswith(_SKIPPED_SECTIONS)
        ]

    def undefined(self) -> list[str]:
        """Names that another object must define."""
        return sorted({s.name for s in self.symbols if s.section == 0 and s.name and s.name != "_GLOBAL_OFFSET_TABLE_"})


@cache
def _library_object() -> bytes:
    from ingot.compiler.toolchain.host import HostTarget, compile_object

    return compile_object(_library_ir(), HostTarget("x86-64-v2"), level=1)


def _library_ir() -> str:
    """The three functions with `rep movsb` / `rep stosb`, which every x86-64 since 2013 runs at full bandwidth."""
    clobbers = "~{memory},~{dirflag},~{fpsr},~{flags}"
    move = f'"rep movsb", "={{di}},={{si}},={{cx}},0,1,2,{clobbers}"'
    back = f'"std; rep movsb; cld", "={{di}},={{si}},={{cx}},0,1,2,{clobbers}"'
    fill = f'"rep stosb", "={{di}},={{cx}},0,1,{{al}},{clobbers}"'
    return f"""
define ptr @memcpy(ptr %d, ptr %s, i64 %n) nounwind {{
  %r = call {{ ptr, ptr, i64 }} asm sideeffect {move}(ptr %d, ptr %s, i64 %n)
  ret ptr %d
}}
define ptr @memmove(ptr %d, ptr %s, i64 %n) nounwind {{
  %a = ptrtoint ptr %d to i64
  %b = ptrtoint ptr %s to i64
  %o = sub i64 %a, %b
  %overlaps = icmp ult i64 %o, %n
  br i1 %overlaps, label %backward, label %forward
forward:
  %f = call {{ ptr, ptr, i64 }} asm sideeffect {move}(ptr %d, ptr %s, i64 %n)
  ret ptr %d
backward:
  %last = add i64 %n, -1
  %de = getelementptr i8, ptr %d, i64 %last
  %se = getelementptr i8, ptr %s, i64 %last
  %r = call {{ ptr, ptr, i64 }} asm sideeffect {back}(ptr %de, ptr %se, i64 %n)
  ret ptr %d
}}
define ptr @memset(ptr %d, i32 %c, i64 %n) nounwind {{
  %b = trunc i32 %c to i8
  %r = call {{ ptr, i64 }} asm sideeffect {fill}(ptr %d, i64 %n, i8 %b)
  ret ptr %d
}}
"""


_LIBRARY_SYMBOLS = frozenset(("memcpy", "memmove", "memset"))


def link(data: bytes) -> Image:
    """Link one ELF object into an `Image`.

    Raises:
        CompileError: it refers to an undefined symbol, has writable data, or a relocation that depends on the load address.
    """
    objects = [_Object(data)]
    undefined = objects[0].undefined()
    foreign = [name for name in undefined if name not in _LIBRARY_SYMBOLS]
    if foreign:
        raise CompileError(
            f"the kernel calls {', '.join(foreign)}, which nothing defines",
            cure="expand the operation in Kernel IR instead of leaving it to a library",
        )
    if undefined:
        objects.append(_Object(_library_object()))
    size = 0
    for o in objects:
        for section in o.kept():
            if section.flags & _SHF_WRITE and not section.name.startswith(".data.rel.ro"):
                raise CompileError(f"the kernel has writable data in {section.name}", cure="pass a workspace instead")
            section.address = -(-size // section.align) * section.align
            size = section.address + section.size
    out = bytearray(size)
    exported: dict[str, int] = {}
    for o in objects:
        for section in o.kept():
            if section.type == SHT_PROGBITS:
                out[section.address : section.address + section.size] = o.contents(section)
        for symbol in o.symbols:
            if symbol.section and symbol.section < 0xFF00 and symbol.binding == 1 and symbol.kind == 2:
                exported[symbol.name] = o.sections[symbol.section].address + symbol.value
    for o in objects:
        for section in o.sections:
            if section.type == SHT_RELA and o.sections[section.info].address >= 0:
                _relocate(o, section, out, exported)
    own = {s.name for s in objects[0].symbols if s.section and s.binding == 1 and s.kind == 2}
    return Image(bytes(out), {name: offset for name, offset in sorted(exported.items()) if name in own})


def _relocate(o: _Object, table: Section, out: bytearray, exported: dict[str, int]) -> None:
    target = o.sections[table.info]
    for i in range(table.size // 24):
        offset, info, addend = struct.unpack_from("<QQq", o.data, table.offset + 24 * i)
        symbol, kind = o.symbols[info >> 32], info & 0xFFFFFFFF
        place = target.address + offset
        if symbol.section == 0:
            value = exported[symbol.name]
        else:
            home = o.sections[symbol.section]
            if home.address < 0:
                raise CompileError(f"a relocation refers to section {home.name}, which is not in the image")
            value = home.address + symbol.value
        relative = value + addend - place
        if kind in (_R_PC32, _R_PLT32):
            struct.pack_into("<i", out, place, relative)
        elif kind == _R_PC64:
            struct.pack_into("<q", out, place, relative)
        else:
            raise CompileError(f"relocation type {kind} against {symbol.name or home.name} depends on the load address")
