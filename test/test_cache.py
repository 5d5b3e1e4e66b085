"""The runtime cache: values, limits, damage, foreign files, several processes."""

from __future__ import annotations

import os
import pwd
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ingot.errors import Error
from ingot.runtime import platform_posix
from ingot.runtime.cache import FORMAT, RuntimeCache, default_path


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


@pytest.mark.parametrize("how", ["export", "use"])
def test_a_directory_with_other_things_stays_open(tmp_path: Path, how: str) -> None:
    """Such as the one where `ingot cache export` is called, or /tmp in a container whose user is root."""
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / "of.others").write_text("")
    folder.chmod(0o777)
    if how == "export":
        cache = RuntimeCache(tmp_path / "private" / "cache.sqlite")
        cache.put("kernel", "a", b"code")
        assert cache.export(folder / "kernels.cache") == 1
    else:
        cache = RuntimeCache(folder / "cache.sqlite")
        assert "others may write" in cache.problem
        cache.put("kernel", "a", b"code")
        assert cache.get("kernel", "a") == b"code"
    assert folder.stat().st_mode & 0o777 == 0o777


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
    with sqlite3.connect(tmp_path / "x" / "out.sqlite") as db:
        db.execute("INSERT INTO entries VALUES ('kernel', 'text', 'text', 5, 0)")
    assert RuntimeCache(tmp_path / "z" / "cache.sqlite").import_from(tmp_path / "x" / "out.sqlite") == 1


def test_an_export_that_cannot_be_written_says_so(path: Path, tmp_path: Path) -> None:
    cache = RuntimeCache(path)
    cache.put("kernel", "a", b"code")
    (tmp_path / "file").write_text("")
    for bad in ("/proc/nowhere/out.cache", tmp_path / "file" / "out.cache"):
        with pytest.raises(Error, match="cannot be written"):
            cache.export(bad)


def test_a_cache_that_can_only_be_read_says_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = RuntimeCache(path)
    cache.put("kernel", "a", b"code")
    exported = path.parent / "exported"
    cache.export(exported)
    cache.close()
    monkeypatch.setattr(os, "access", lambda file, mode: mode != os.W_OK)
    cache = RuntimeCache(path)
    with pytest.raises(Error, match="the cache can only be read"):
        cache.clear()
    with pytest.raises(Error, match="the cache can only be read"):
        cache.import_from(exported)


def test_a_thread_that_compiles_on_as_the_process_ends_harms_nothing(path: Path) -> None:
    cache = RuntimeCache(path)
    cache.put("kernel", "a", b"code")
    cache.close()  # as at exit
    cache.put("kernel", "b", b"late")
    assert cache.get("kernel", "a") is None
    assert not path.with_suffix(".damaged").exists()
    assert RuntimeCache(path).get("kernel", "a") == b"code"


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN])
def test_what_passes_does_not_cost_the_cache(path: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = RuntimeCache(path)
    cache.put("kernel", "a", b"code")
    cache.close()

    def fail(*arguments: object, **options: object) -> None:
        error = sqlite3.OperationalError("no room")
        error.sqlite_errorcode = code
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(platform_posix, "supports_wal", fail)
        cache = RuntimeCache(path)
        assert "no room" in cache.problem
        cache.put("kernel", "b", b"here")
        assert cache.get("kernel", "b") == b"here"
    assert not path.with_suffix(".damaged").exists()
    assert RuntimeCache(path).get("kernel", "a") == b"code"


def test_values_of_other_types_are_missing(path: Path) -> None:
    cache = RuntimeCache(path)
    cache.put_many("kernel", {"a": b"code", "b": b"code"})
    cache.close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA ignore_check_constraints = 1")
        db.execute("UPDATE entries SET value = 17 WHERE key = 'a'")
        db.execute("UPDATE entries SET value = CAST(x'ff' AS TEXT) WHERE key = 'b'")
    assert RuntimeCache(path).get_many("kernel", ["a", "b"]) == {}


def test_a_user_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("INGOT_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: {}[uid])
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert default_path() == tmp_path / f"ingot-{os.getuid()}" / "cache.sqlite"
    RuntimeCache().put("kernel", "a", b"code")
    assert RuntimeCache().get("kernel", "a") == b"code"
    monkeypatch.setattr(tempfile, "tempdir", None)
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "_get_default_tempdir", lambda: open("/nowhere"))
        cache = RuntimeCache()
        cache.put("kernel", "a", b"code")
        assert cache.get("kernel", "a") == b"code"
        assert cache.problem
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / f"ingot-{os.getuid()}").chmod(0o777)
    (tmp_path / f"ingot-{os.getuid()}" / "planted").write_text("")
    assert RuntimeCache().get("kernel", "a") is None


def test_a_forked_child_leaves_the_connection_alone(path: Path) -> None:
    cache = RuntimeCache(path)
    cache.put("kernel", "a", b"code")
    pid = os.fork()
    if pid == 0:
        cache.put("kernel", "b", b"code")
        os._exit(0 if cache.get("kernel", "a") is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert cache.get("kernel", "a") == b"code"


def test_the_shared_cache_opens_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INGOT_CACHE_DIR", str(path.parent))
    RuntimeCache.open_default().put("kernel", "a", b"code")
    RuntimeCache.open_default().close()
    assert RuntimeCache.open_default().get("kernel", "a") == b"code"
