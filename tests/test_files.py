"""A file's hash is that of its bytes, and is read again exactly when the file was touched."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from vidllava.cache_folder import CacheFolder
from vidllava.errors import MediaError
from vidllava.files import identity
from vidllava.files.identity import FileStamp, content_hash


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"some bytes" * 1000)
    return path


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """All files count as old."""
    monkeypatch.setattr(identity, "_SETTLED_SECONDS", -60.0)


@pytest.fixture(autouse=True)
def restart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_remembered", {})


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each time that a whole file is read."""
    count: list[int] = []
    digest = hashlib.file_digest

    def counted(*arguments: object) -> object:
        count.append(1)
        return digest(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(hashlib, "file_digest", counted)
    return count


def test_it_is_the_hash_of_the_bytes(file: Path) -> None:
    assert content_hash(str(file)) == hashlib.blake2b(file.read_bytes()).hexdigest()


def test_a_restart_does_not_read_the_file_again(
    file: Path, tmp_path: Path, settled: None, readings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = CacheFolder(tmp_path / "cache")
    first = content_hash(str(file), folder)
    assert content_hash(str(file), folder) == first
    monkeypatch.setattr(identity, "_remembered", {})
    assert content_hash(str(file), folder) == first
    assert len(readings) == 1


def test_a_change_that_keeps_size_and_time_is_seen(file: Path, tmp_path: Path, settled: None) -> None:
    folder = CacheFolder(tmp_path / "cache")
    first, before = content_hash(str(file), folder), file.stat()
    file.write_bytes(b"SOME BYTES" * 1000)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert content_hash(str(file), folder) == hashlib.blake2b(file.read_bytes()).hexdigest() != first


def test_a_file_that_was_just_written_is_not_trusted_to_stay(
    file: Path, tmp_path: Path, readings: list[int]
) -> None:
    folder = CacheFolder(tmp_path / "cache")
    for _ in range(2):
        content_hash(str(file), folder)
    assert len(readings) == 2
    assert not folder.path.exists()


@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", b'{"stamp": [], "blake2b": "00"}', b"\xff\xfe"])
def test_a_damaged_memo_is_none(file: Path, tmp_path: Path, settled: None, damage: bytes) -> None:
    folder = CacheFolder(tmp_path / "cache")
    folder.write(FileStamp.of(file).memo, damage)
    assert content_hash(str(file), folder) == hashlib.blake2b(file.read_bytes()).hexdigest()


def test_a_file_that_changes_while_it_is_read_has_no_hash(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = hashlib.file_digest

    def slow(*arguments: object) -> object:
        found = digest(*arguments)  # type: ignore[arg-type]
        time.sleep(0.01)
        file.write_bytes(b"other")
        return found

    monkeypatch.setattr(hashlib, "file_digest", slow)
    assert content_hash(str(file)) is None


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no such file"):
        content_hash(str(tmp_path / "missing.mp4"))
