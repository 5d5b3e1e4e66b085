"""The runtime cache: compiled kernels and launch programs in one SQLite file.

A table maps a kind and a key to bytes and their SHA-256. Values are machine code, so the directory is private to its owner, a
file of somebody else is ignored, and `import_from` must be asked for. Only the process that uses the cache writes to it, and
reading never does: time stamps of use are collected and written in one transaction with the next value, or at exit. A cache
that is damaged or of a newer format is set aside and made anew: no trouble with the cache stops a program. Any other trouble (a
full disk, a lock) is waited out, and the file stays as it is.

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
from collections.abc import Iterable, Iterator
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
# A value that damage turned into text or a number is bytes again, and its hash tells.
_VALUES = "CAST(value AS BLOB), CAST(sha256 AS BLOB)"
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


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
        self._closed = False
        self._db = self._open()
        atexit.register(self.close)

    @staticmethod
    def open_default() -> RuntimeCache:
        """The process' cache at `default_path()`; a forked child gets one of its own."""
        key = str(default_path()), os.getpid()
        with _shared_lock:
            if key not in _shared or _shared[key]._closed:
                _shared[key] = RuntimeCache()
            return _shared[key]

    # Opening ----------------------------------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        try:
            with contextlib.suppress(FileExistsError):
                platform.make_private(self.path)
            for place in (self.path.parent, self.path):
                if place.exists() and not platform.owned_by_user(place):
                    return self._in_memory(f"{place} belongs to somebody else, or others may write to it")
            try:
                return self._connect()
            except (sqlite3.Error, _UnusableError) as e:
                if not _is_damage(e):
                    raise
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
            columns = {row[1] for row in db.execute("PRAGMA table_info(entries)")}
            if not {"kind", "key", "value", "sha256", "used"} <= columns:
                raise _UnusableError("it is no cache")
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
        if os.getpid() != self._pid:
            return found  # SQLite's connections do not survive a fork
        with self._lock:
            for start in range(0, len(keys), 500):
                part = keys[start : start + 500]
                marks = ",".join("?" * len(part))
                query = f"SELECT key, {_VALUES} FROM entries WHERE kind = ? AND key IN ({marks})"
                try:
                    rows = self._db.execute(query, [kind, *part]).fetchall()
                except sqlite3.DatabaseError as e:
                    self._recover(e)
                    return {}
                for key, value, digest in rows:
                    if value is not None and hashlib.sha256(value).digest() == digest:
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
        with self._lock:
            try:
                self._insert((kind, k, v, hashlib.sha256(v).digest()) for k, v in values.items())
            except sqlite3.DatabaseError as e:
                self._recover(e)

    def _insert(self, rows: Iterable[tuple[str, str, bytes, bytes]]) -> int:
        """Store (kind, key, value, hash) rows in one transaction; gives their number."""
        now, count = time.time_ns(), 0
        self._db.execute("BEGIN IMMEDIATE")
        self._stamp()
        for row in rows:
            self._db.execute("INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?)", (*row, now))
            count += 1
        self._trim()
        self._db.execute("COMMIT")
        return count

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
        """After an error of the file: a damaged one is set aside; anything else (a full disk, a lock) is waited out."""
        if self._closed:  # while a background thread compiles on, as the process ends
            return
        self._roll_back()
        if not _is_damage(error):
            self.problem = str(error)
            return
        with contextlib.suppress(sqlite3.Error):
            self._db.close()
        try:
            self._set_aside(str(error))
            self._db = self._connect()
        except (OSError, sqlite3.Error, _UnusableError) as e:
            self._db = self._in_memory(f"{self.path}: {e}")

    def _roll_back(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

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
            self._closed = True
            self._db.close()

    # Maintenance ------------------------------------------------------------------------------------------------------

    def info(self) -> dict[str, Any]:
        """The file, entries and bytes of values (by kind, too), whether it can be written, and what is wrong with it. Raises
        Error where it cannot be read."""
        with self._lock, _readable(self.path):
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
        """Drop every entry and give the space back; gives their number. Raises Error where the file cannot be written."""
        self._check_writable()
        with self._lock, self._written():
            count = self._db.execute("DELETE FROM entries").rowcount
            self._used.clear()
        with self._lock, contextlib.suppress(sqlite3.OperationalError):  # who reads it now keeps the space
            self._db.execute("VACUUM")
        return count

    def export(self, path: str | os.PathLike) -> int:
        """Copy every entry into a new cache file at `path`; gives their number. Raises Error where the file exists, or cannot
        be written."""
        path = Path(path)
        if path.exists():
            raise Error("the file exists", node=str(path), cure="name another, or delete it")
        count = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other, self._lock, _readable(self.path):
                os.chmod(path, 0o600)
                other.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {FORMAT};")
                for row in self._db.execute(f"SELECT kind, key, {_VALUES}, used FROM entries"):
                    other.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", row)
                    count += 1
                other.execute("COMMIT")
        except BaseException as e:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            if isinstance(e, OSError | sqlite3.Error):
                raise Error(f"cannot be written: {e}", node=str(path), cure="give a path that can be written") from None
            raise
        return count

    def import_from(self, path: str | os.PathLike) -> int:
        """Add the entries of another cache file; gives their number. Their contents are code that will be run: import only
        what you trust. Raises Error where it is no cache of this format, or this one cannot be written."""
        path = Path(path)
        if not path.is_file():
            raise Error("no such file", node=str(path), cure="check the path")
        self._check_writable()
        try:
            db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
            with contextlib.closing(db):
                if db.execute("PRAGMA user_version").fetchone()[0] != FORMAT:
                    raise Error("not a cache of this format", node=str(path), cure="export it again with this version")
                rows = db.execute(f"SELECT kind, key, {_VALUES} FROM entries").fetchall()
        except sqlite3.Error as e:
            raise Error(f"not a cache: {e}", node=str(path), cure="export it again") from None
        known = [r for r in rows if r[0] in KINDS and isinstance(r[1], str) and r[2] is not None]
        good = [r for r in known if hashlib.sha256(r[2]).digest() == r[3]]
        with self._lock, self._written():
            self._insert(good)
        return len(good)

    def _check_writable(self) -> None:
        if not self.writable:
            raise Error("the cache can only be read", node=str(self.path), cure="set INGOT_CACHE_DIR to another directory")

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        """Raise Error for what keeps the file from being written."""
        try:
            yield
        except sqlite3.Error as e:
            self._roll_back()
            raise Error(f"the cache cannot be written: {e}", node=str(self.path), cure="try again, or make room") from None


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Raise Error for what keeps a cache from being read."""
    try:
        yield
    except sqlite3.DatabaseError as e:
        raise Error(f"the cache cannot be read: {e}", node=str(path), cure="delete the file") from None


def _is_damage(error: Exception) -> bool:
    """True where a file is of no use any more, false for what passes."""
    return isinstance(error, _UnusableError) or getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE


class _UnusableError(Exception):
    """The file is a database, but not a cache that this program can use."""


_shared: dict[tuple[str, int], RuntimeCache] = {}
_shared_lock = threading.Lock()
