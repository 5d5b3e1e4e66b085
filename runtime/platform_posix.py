"""What is POSIX-only: executable memory, directories of the user, ownership of files, wake-ups between threads."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import platform
import stat
import sys
import tempfile
from pathlib import Path

# Numbers of the system calls that the thread pool makes (Linux: arch/x86/entry/syscalls/syscall_64.tbl, and
# include/uapi/asm-generic/unistd.h).
_SYSCALLS = {"x86_64": (202, 24), "aarch64": (98, 124)}


class CodeMapping:
    """Machine code in memory of its own: written once, then readable and executable, never both writable and executable."""

    def __init__(self, code: bytes) -> None:
        size = -(-max(len(code), 1) // mmap.PAGESIZE) * mmap.PAGESIZE
        self._map = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        self._map.write(code)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        if _libc().mprotect(ctypes.c_void_p(self.address), ctypes.c_size_t(size), mmap.PROT_READ | mmap.PROT_EXEC):
            raise OSError(ctypes.get_errno(), "memory cannot be made executable")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def syscall_address() -> int:
    """Address of libc's `syscall`, which native code calls to sleep and wake; 0 where it cannot be used."""
    if sys.platform != "linux" or platform.machine() not in _SYSCALLS:
        return 0
    return ctypes.cast(_libc().syscall, ctypes.c_void_p).value or 0


def syscall_numbers() -> tuple[int, int]:
    """The numbers of `futex` and `sched_yield` on this machine."""
    return _SYSCALLS[platform.machine()]


def cpu_count() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_identity() -> str:
    """Text that is equal on processors for which the same code is right and best: model and features."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    kept = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "Features", "CPU part")
    return "\n".join(line for line in lines if line.split("\t")[0].strip(" :") in kept)


def cache_directory() -> Path:
    """Where this user's caches live by the platform's convention (XDG Base Directory Specification; on macOS, Library)."""
    chosen = os.environ.get("XDG_CACHE_HOME")
    if chosen and sys.platform != "darwin":
        return Path(chosen) / "ingot"
    try:
        home = Path.home()
    except RuntimeError:  # a user without an entry in the table of users, as in a container
        with contextlib.suppress(OSError):
            return Path(tempfile.gettempdir()) / f"ingot-{os.getuid()}"
        return Path(os.devnull) / "ingot"  # which cannot be made: the cache is kept in memory
    return home / "Library" / "Caches" / "ingot" if sys.platform == "darwin" else home / ".cache" / "ingot"


def make_private(path: Path) -> None:
    """Create the directory of a file of ours, which only its owner may enter. One that exists is made so where it holds the
    file and its companions alone; a directory with other things in it is not ours to close. Raises OSError."""
    directory = path.parent
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    info = directory.stat()
    others_things = any(not name.startswith(path.stem) for name in os.listdir(directory))
    if info.st_mode & 0o077 and info.st_uid == os.getuid() and not others_things:
        directory.chmod(0o700)


def owned_by_user(path: Path) -> bool:
    """True where this user, or root, owns `path`, and nobody else may write to it."""
    info = path.stat()
    return info.st_uid in (os.getuid(), 0) and not info.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def supports_wal(directory: Path) -> bool:
    """False on file systems where SQLite's write-ahead log, which maps shared memory, is unsafe: those of a network."""
    network = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "fuse.sshfs", "lustre", "gpfs", "ceph", "beegfs"}
    best, kind = "", ""
    try:
        for line in Path("/proc/self/mounts").read_text().splitlines():
            _, point, name, *_ = line.split(" ")
            point = point.replace("\\040", " ")
            inside = str(directory) == point or str(directory).startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(best):
                best, kind = point, name
    except OSError:
        return True
    return kind not in network


def has_gpu() -> bool:
    """True where an NVIDIA GPU's device file exists (also that of Windows' subsystem for Linux)."""
    return any(Path(p).exists() for p in ("/dev/nvidiactl", "/dev/dxg"))
