"""The runtime cache: compiled kernels and launch programs in one SQLite file.

A table maps a kind and a key to bytes and their SHA-256. Values are machine code, so the directory is private to its owner, a
file of somebody else is ignored, and `import_from` must be asked for. Only the process that uses the cache writes to it, and
reading never does: time stamps of use are collected and written in one transaction with the next value, or at exit. A cache
that is damaged or of a newer format is set aside and made anew: no trouble with the cache stops a program.

The file uses SQLite's write-ahead log (https://sqlite.org/wal.html) where the file system allows it, else a rollback journal.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ingot.errors import Error
from ingot.runtime import platform_posix as platform

FORMAT = 1
# Modules are code that several kernels share, by its SHA-256. An `engine` is one that has a program here, for some target.
KINDS = ("module", "kernel", "program", "target", "engine")
DEFAULT_LIMIT = 4 << 30
_SCHEMA = """
CREATE TABLE entries (
  kind TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, sha256 BLOB NOT NULL, used INTEGER NOT NULL,
  PRIMARY KEY (kind, key)) WITHOUT ROWID;
CREATE INDEX entries_by_use ON entries (used);
"""


def default_path() -> Path:
    """The cache file: in `INGOT_CACHE_DIR`, else in the user's cache directory."""
    directory = os.environ.get("INGOT_CACHE_DIR")
    return (Path(directory) if directory else platform.cache_directory()) / "cache.sqlite"


class RuntimeCache:
    """A cache file; threads may share one object.

    Args:
        path: the file; `default_path()` by default. None of its errors is fatal: without a usable file, values are kept in
            memory.
        limit: bytes of values above which those not used for longest are dropped.
    """

    def __init__(self, path: str | os.PathLike | None = None, *, limit: int = DEFAULT_LIMIT) -> None:
        self.path, self.limit = Path(path) if path is not None else default_path(), limit
        self.writable = True
        self.problem = ""  # why the file is not used as it should be, for people
        self._lock = threading.Lock()
        self._used: set[tuple[str, str]] = set()
        self._pid = os.getpid()
        self._db = self._open()
        atexit.register(self.close)

    @staticmethod
    def open_default() -> RuntimeCache:
        """The process' cache at `default_path()`; a forked child gets one of its own."""
        key = str(default_path()), os.getpid()
        with _shared_lock:
            if key not in _shared:
                _shared[key] = RuntimeCache()
            return _shared[key]

    # Opening ----------------------------------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        try:
            with contextlib.suppress(FileExistsError):
                platform.make_private(self.path.parent)
            if self.path.exists() and not platform.owned_by_user(self.path):
                return self._in_memory(f"{self.path} belongs to somebody else, or others may write to it")
            try:
                return self._connect()
            except (sqlite3.DatabaseError, _UnusableError) as e:
                if isinstance(e, sqlite3.OperationalError) and "locked" in str(e):
                    return self._in_memory(f"{self.path}: {e}")
                self._set_aside(str(e))
                return self._connect()
        except (OSError, sqlite3.Error, _UnusableError) as e:
            return self._in_memory(f"{self.path}: {e}")

    def _in_memory(self, problem: str) -> sqlite3.Connection:
        self.problem = problem
        db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        db.executescript(_SCHEMA)
        return db

    def _connect(self) -> sqlite3.Connection:
        fresh = not self.path.exists()
        parent_writable = os.access(self.path.parent, os.W_OK)
        self.writable = fresh or (os.access(self.path, os.W_OK) and parent_writable)
        mode = "rwc" if self.writable else "ro"
        # Without write access to the directory SQLite cannot make its log; such a file does not change under us.
        immutable = "" if parent_writable else "&immutable=1"
        uri = f"{self.path.absolute().as_uri()}?mode={mode}{immutable}"
        db = sqlite3.connect(uri, uri=True, timeout=10, isolation_level=None, check_same_thread=False)
        try:
            if fresh:
                os.chmod(self.path, 0o600)
            if self.writable:
                wal = platform.supports_wal(self.path.parent.resolve())
                db.execute(f"PRAGMA journal_mode = {'WAL' if wal else 'DELETE'}")
                db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA mmap_size = 0")  # a file cut short by someone else must be an error, not a signal
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0 and self.writable:
                db.execute("BEGIN IMMEDIATE")
                if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'entries'").fetchone():
                    for statement in _SCHEMA.strip().split(";\n"):
                        db.execute(statement)
                    db.execute(f"PRAGMA user_version = {FORMAT}")
                db.execute("COMMIT")
            elif version != FORMAT:
                raise _UnusableError(f"the cache has format {version}, this program uses {FORMAT}")
            db.execute("SELECT kind, key, value, sha256, used FROM entries LIMIT 0")
        except BaseException:
            db.close()
            raise
        return db

    def _set_aside(self, problem: str) -> None:
        self.problem = f"{problem}; the old cache was set aside"
        if not self.writable and self.path.exists():
            raise _UnusableError(problem)
        for suffix in ("-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        if self.path.exists():
            os.replace(self.path, self.path.with_suffix(".damaged"))

    # Using ------------------------------------------------------------------------------------------------------------

    def get(self, kind: str, key: str) -> bytes | None:
        """The value, or None. A value that does not match its hash counts as missing."""
        return self.get_many(kind, [key]).get(key)

    def get_many(self, kind: str, keys: Iterable[str]) -> dict[str, bytes]:
        """The values found among `keys`."""
        found: dict[str, bytes] = {}
        keys = list(dict.fromkeys(keys))
        with self._lock:
            for start in range(0, len(keys), 500):
                part = keys[start : start + 500]
                marks = ",".join("?" * len(part))
                query = f"SELECT key, value, sha256 FROM entries WHERE kind = ? AND key IN ({marks})"
                try:
                    rows = self._db.execute(query, [kind, *part]).fetchall()
                except sqlite3.DatabaseError as e:
                    self._recover(e)
                    return {}
                for key, value, digest in rows:
                    if hashlib.sha256(value).digest() == digest:
                        found[key] = value
                        self._used.add((kind, key))
        return found

    def put(self, kind: str, key: str, value: bytes) -> None:
        """Store one value."""
        self.put_many(kind, {key: value})

    def put_many(self, kind: str, values: dict[str, bytes]) -> None:
        """Store values in one transaction, and drop old ones where the limit is exceeded."""
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is no kind of entry; they are {', '.join(KINDS)}")
        if not values or not self.writable or os.getpid() != self._pid:
            return
        now = time.time_ns()
        rows = [(kind, k, v, hashlib.sha256(v).digest(), now) for k, v in values.items()]
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                self._stamp()
                self._db.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?)", rows)
                self._trim()
                self._db.execute("COMMIT")
            except sqlite3.DatabaseError as e:
                self._recover(e)

    def _stamp(self) -> None:
        now = time.time_ns()
        self._db.executemany("UPDATE entries SET used = ? WHERE kind = ? AND key = ?", [(now, *e) for e in sorted(self._used)])
        self._used.clear()

    def _trim(self) -> None:
        (total,) = self._db.execute("SELECT coalesce(sum(length(value)), 0) FROM entries").fetchone()
        if total <= self.limit:
            return
        rows = self._db.execute("SELECT kind, key, length(value) FROM entries ORDER BY used").fetchall()
        for kind, key, size in rows[:-1]:  # the newest stays, whatever its size
            if total <= self.limit:
                break
            self._db.execute("DELETE FROM entries WHERE kind = ? AND key = ?", (kind, key))
            total -= size

    def _recover(self, error: sqlite3.DatabaseError) -> None:
        """After an error of the file: a full disk or a lock is waited out, a damaged file is set aside."""
        with contextlib.suppress(sqlite3.Error):
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        if isinstance(error, sqlite3.OperationalError):
            self.problem = str(error)
            return
        with contextlib.suppress(sqlite3.Error):
            self._db.close()
        try:
            self._set_aside(str(error))
            self._db = self._connect()
        except (OSError, sqlite3.Error, _UnusableError) as e:
            self._db = self._in_memory(f"{self.path}: {e}")

    def close(self) -> None:
        """Write the time stamps and close the file; also done at exit."""
        if os.getpid() != self._pid:
            return
        atexit.unregister(self.close)
        with self._lock, contextlib.suppress(sqlite3.Error):
            if self._used and self.writable:
                self._db.execute("BEGIN IMMEDIATE")
                self._stamp()
                self._db.execute("COMMIT")
            self._db.close()

    # Maintenance ------------------------------------------------------------------------------------------------------

    def info(self) -> dict[str, Any]:
        """The file, entries and bytes of values (by kind, too), whether it can be written, and what is wrong with it."""
        with self._lock:
            rows = self._db.execute("SELECT kind, count(*), sum(length(value)) FROM entries GROUP BY kind").fetchall()
        return {
            "path": str(self.path),
            "entries": sum(n for _, n, _ in rows),
            "bytes": sum(b for _, _, b in rows),
            "kinds": {kind: {"entries": n, "bytes": b} for kind, n, b in rows},
            "writable": self.writable,
            "problem": self.problem,
        }

    def clear(self) -> int:
        """Drop every entry and give the space back; gives their number."""
        with self._lock:
            count = self._db.execute("DELETE FROM entries").rowcount
            self._db.execute("VACUUM")
        return count

    def export(self, path: str | os.PathLike) -> int:
        """Copy every entry into a new cache file at `path`; gives their number. Raises Error where the file exists."""
        if Path(path).exists():
            raise Error("the file exists", node=str(path), cure="name another, or delete it")
        other = RuntimeCache(path)
        with self._lock:
            rows = self._db.execute("SELECT kind, key, value FROM entries").fetchall()
        for kind in KINDS:
            other.put_many(kind, {key: value for k, key, value in rows if k == kind})
        other.close()
        return len(rows)

    def import_from(self, path: str | os.PathLike) -> int:
        """Add the entries of another cache file; gives their number. Their contents are code that will be run: import only
        what you trust. Raises Error where it is no cache of this format."""
        path = Path(path)
        if not path.is_file():
            raise Error("no such file", node=str(path), cure="check the path")
        try:
            db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
            with contextlib.closing(db):
                if db.execute("PRAGMA user_version").fetchone()[0] != FORMAT:
                    raise Error("not a cache of this format", node=str(path), cure="export it again with this version")
                rows = db.execute("SELECT kind, key, value, sha256 FROM entries").fetchall()
        except sqlite3.Error as e:
            raise Error(f"not a cache: {e}", node=str(path), cure="export it again") from None
        good = [(kind, key, value) for kind, key, value, digest in rows if hashlib.sha256(value).digest() == digest]
        for kind in KINDS:
            self.put_many(kind, {key: value for k, key, value in good if k == kind})
        return len(good)


class _UnusableError(Exception):
    """The file is a database, but not a cache that this program can use."""


_shared: dict[tuple[str, int], RuntimeCache] = {}
_shared_lock = threading.Lock()
