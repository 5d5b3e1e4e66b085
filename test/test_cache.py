"""The runtime cache: values, limits, damage, foreign files, several processes."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from ingot.errors import Error
from ingot.runtime.cache import FORMAT, RuntimeCache


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "private" / "cache.sqlite"


def test_values_survive(path: Path) -> None:
    cache = RuntimeCache(path)
    assert cache.get("kernel", "a") is None
    cache.put("kernel", "a", b"code")
    cache.put_many("program", {"a": b"p", "b": b""})
    cache.close()
    cache = RuntimeCache(path)
    assert cache.get("kernel", "a") == b"code"
    assert cache.get_many("program", ["a", "b", "c"]) == {"a": b"p", "b": b""}
    assert {k: (v["entries"], v["bytes"]) for k, v in cache.info()["kinds"].items()} == {"kernel": (1, 4), "program": (2, 1)}
    assert cache.info()["entries"] == 3
    with pytest.raises(ValueError, match="'nonsense' is no kind"):
        cache.put("nonsense", "a", b"")
    assert cache.clear() == 3
    assert cache.info()["entries"] == 0


def test_private_to_its_owner(path: Path) -> None:
    RuntimeCache(path).put("kernel", "a", b"code")
    assert path.parent.stat().st_mode & 0o077 == 0
    assert path.stat().st_mode & 0o077 == 0


def test_foreign_file_is_ignored(path: Path) -> None:
    RuntimeCache(path).put("kernel", "a", b"code")
    path.chmod(0o666)
    cache = RuntimeCache(path)
    assert cache.get("kernel", "a") is None
    assert "others may write" in cache.problem
    cache.put("kernel", "a", b"new")
    assert cache.get("kernel", "a") == b"new"
    path.chmod(0o600)
    assert RuntimeCache(path).get("kernel", "a") == b"code"


def test_least_recently_used_goes_first(path: Path) -> None:
    cache = RuntimeCache(path, limit=2500)
    for name in "abc":
        cache.put("kernel", name, bytes(800))
    assert cache.get("kernel", "a") is not None  # now b is the oldest
    cache.put("kernel", "d", bytes(800))
    assert {k for k in "abcd" if cache.get("kernel", k)} == {"a", "c", "d"}


def test_reading_does_not_write(path: Path) -> None:
    cache = RuntimeCache(path)
    cache.put("kernel", "a", b"code")
    before = cache._db.total_changes
    for _ in range(10):
        cache.get("kernel", "a")
    assert cache._db.total_changes == before
    used = "SELECT used FROM entries"
    (old,) = sqlite3.connect(path).execute(used).fetchone()
    cache.close()
    (new,) = sqlite3.connect(path).execute(used).fetchone()
    assert new > old


def test_changed_value_is_missing(path: Path) -> None:
    cache = RuntimeCache(path)
    cache.put("kernel", "a", b"code")
    cache.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE entries SET value = x'00'")
    assert RuntimeCache(path).get("kernel", "a") is None


@pytest.mark.parametrize("damage", ["text", "middle", "short", "future", "other"])
def test_unusable_file_is_set_aside(path: Path, damage: str) -> None:
    cache = RuntimeCache(path)
    for i in range(50):
        cache.put("kernel", str(i), os.urandom(3000))
    cache.close()
    data = bytearray(path.read_bytes())
    match damage:
        case "text":
            path.write_bytes(b"this is not a database, certainly" * 200)
        case "middle":
            data[4096 : len(data) - 4096] = os.urandom(len(data) - 8192)
            path.write_bytes(data)
        case "short":
            path.write_bytes(data[:5000])
        case "future":
            with sqlite3.connect(path) as db:
                db.execute(f"PRAGMA user_version = {FORMAT + 1}")
        case "other":
            with sqlite3.connect(path) as db:
                db.execute("DROP TABLE entries")
    cache = RuntimeCache(path)
    assert len(cache.get_many("kernel", map(str, range(50)))) < 50
    cache.put("kernel", "new", b"code")
    assert cache.get("kernel", "new") == b"code"
    assert path.with_suffix(".damaged").exists()
    cache.close()
    assert RuntimeCache(path).get("kernel", "new") == b"code"


def test_read_only_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = RuntimeCache(path)
    cache.put("kernel", "a", b"code")
    cache.close()
    monkeypatch.setattr(os, "access", lambda file, mode: mode != os.W_OK)
    before = path.read_bytes()
    cache = RuntimeCache(path)
    assert not cache.writable
    assert cache.get("kernel", "a") == b"code"
    cache.put("kernel", "b", b"x")
    assert cache.get("kernel", "b") is None
    cache.close()
    assert path.read_bytes() == before
    assert sorted(p.name for p in path.parent.iterdir()) == ["cache.sqlite"]


def test_impossible_directory_is_not_fatal() -> None:
    cache = RuntimeCache("/proc/nowhere/cache.sqlite")
    cache.put("kernel", "a", b"code")
    assert cache.get("kernel", "a") == b"code"
    assert "nowhere" in cache.problem


def test_processes_share_a_file(path: Path) -> None:
    RuntimeCache(path).close()
    code = (
        "import sys; from ingot.runtime.cache import RuntimeCache as Cache; c = Cache(sys.argv[1])\n"
        "for i in range(30): c.put('kernel', sys.argv[2] + str(i), bytes(5000))"
    )
    workers = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in "abc"]
    assert [w.wait() for w in workers] == [0, 0, 0]
    assert RuntimeCache(path).info()["entries"] == 90


def test_export_and_import(path: Path, tmp_path: Path) -> None:
    cache = RuntimeCache(path)
    cache.put("kernel", "a", b"code")
    assert cache.export(tmp_path / "x" / "out.sqlite") == 1
    with pytest.raises(Error, match="the file exists"):
        cache.export(tmp_path / "x" / "out.sqlite")
    other = RuntimeCache(tmp_path / "y" / "cache.sqlite")
    assert other.import_from(tmp_path / "x" / "out.sqlite") == 1
    assert other.get("kernel", "a") == b"code"
    (tmp_path / "text").write_text("hello" * 1000)
    with pytest.raises(Error, match="not a cache"):
        other.import_from(tmp_path / "text")
    with pytest.raises(Error, match="no such file"):
        other.import_from(tmp_path / "absent")
