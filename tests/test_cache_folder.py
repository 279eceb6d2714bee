"""The cache folder: bounded, private, whole files only, shared by processes, and nobody else's files."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vidllava.errors import UsageError
from vidllava.files.cache_folder import CacheFolder, Usage


def names(folder: CacheFolder) -> set[str]:
    return {path.name for path in (folder.path / "features").iterdir()}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    folder = CacheFolder(tmp_path / "cache")
    assert folder.read("features/a") is None
    assert folder.write("features/a", b"one")
    assert folder.write("features/a", b"two")
    assert folder.read("features/a") == b"two"
    assert folder.usage() == Usage(1, 3)


def test_files_and_folders_are_for_their_owner_alone(tmp_path: Path) -> None:
    folder = CacheFolder(tmp_path / "deep" / "cache")
    folder.write("features/a", b"one")
    modes = [
        stat.S_IMODE(path.stat().st_mode)
        for path in (folder.path, folder.path / "features", folder.path / "features" / "a")
    ]
    assert modes == [0o700, 0o700, 0o600]


def test_the_files_that_were_not_used_for_longest_make_room(tmp_path: Path) -> None:
    folder = CacheFolder(tmp_path, limit_bytes=30)
    for age, name in enumerate("abc"):
        folder.write(f"features/{name}", bytes(10))
        os.utime(tmp_path / "features" / name, (1000 + age, 1000 + age))
    folder.read("features/a")
    folder.write("features/d", bytes(10))
    assert names(folder) == {"a", "c", "d"}


def test_what_is_larger_than_the_limit_is_not_kept(tmp_path: Path) -> None:
    folder = CacheFolder(tmp_path / "cache", limit_bytes=10)
    assert not folder.write("features/a", bytes(11))
    assert not folder.path.exists()


def test_what_a_killed_process_left_is_cleared_away_and_what_one_writes_is_not(tmp_path: Path) -> None:
    folder = CacheFolder(tmp_path)
    folder.write("features/a", b"one")
    for name, age in ((".unfinished-old", 7200), (".unfinished-new", 10)):
        (tmp_path / "features" / name).write_bytes(b"half")
        os.utime(tmp_path / "features" / name, (time.time() - age,) * 2)
    folder.write("features/b", b"two")
    assert names(folder) == {"a", "b", ".unfinished-new"}


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = CacheFolder(tmp_path)
    folder.write("features/a", b"one")

    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="No space"):
        folder.write("features/a", b"two")
    assert names(folder) == {"a"}
    assert folder.read("features/a") == b"one"


def test_only_our_own_files_are_cleared(tmp_path: Path) -> None:
    folder = CacheFolder(tmp_path)
    (tmp_path / "mine.txt").write_text("keep", encoding="utf-8")
    folder.write("features/a", bytes(5))
    folder.write("content/b.json", bytes(2))
    assert folder.clear() == Usage(1, 7)
    assert folder.usage() == Usage(0, 0)
    assert (tmp_path / "mine.txt").exists()


def test_two_processes_at_once_never_see_half_a_file(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from vidllava.files.cache_folder import CacheFolder
folder, letter = CacheFolder(Path(sys.argv[1]), limit_bytes=300_000), sys.argv[2].encode()
for turn in range(150):
    name = f"features/{turn % 5}"
    folder.write(name, letter * 100_000)
    data = folder.read(name)
    assert data is None or (len(data) == 100_000 and len(set(data)) == 1), "half a file"
"""
    both = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path), letter], stderr=subprocess.PIPE)
        for letter in "ab"
    ]
    for process in both:
        _, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, b"")
    assert CacheFolder(tmp_path).usage().num_bytes <= 300_000


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VIDLLAVA_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert CacheFolder.of_environment().path == tmp_path / "own"
    monkeypatch.delenv("VIDLLAVA_CACHE")
    assert CacheFolder.of_environment().path == tmp_path / "xdg" / "vidllava"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert CacheFolder.of_environment().path == tmp_path / "home" / ".cache" / "vidllava"


@pytest.mark.parametrize(
    ("text", "limit"), [("", 2 << 30), ("0", 0), ("1000", 1000), ("500M", 500 << 20), ("1.5 GiB", 3 << 29)]
)
def test_the_limit_is_read_from_the_environment(
    text: str, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDLLAVA_CACHE_LIMIT", text)
    assert CacheFolder.of_environment().limit_bytes == limit


@pytest.mark.parametrize("text", ["much", "-1", "5X", "1G2"])
def test_a_limit_that_is_no_size_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDLLAVA_CACHE_LIMIT", text)
    with pytest.raises(UsageError, match="VIDLLAVA_CACHE_LIMIT"):
        CacheFolder.of_environment()
