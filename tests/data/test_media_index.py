"""Headers are read once and remembered; the index may be shared, broken or locked."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from vidllava.data import media_index
from vidllava.data.media_index import FILE, Header, Headers, MediaIndex, empty
from vidllava.errors import MediaError, ResourceError
from vidllava.files.cache_folder import CacheFolder
from vidllava.media.sampler import IN_PROCESS, InProcess


class Counting(InProcess):
    """Counts the files that are opened."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []

    def picture_size(self, path: str) -> tuple[int, int]:
        self.opened.append(Path(path).name)
        return super().picture_size(path)

    def probe(self, path: str):
        self.opened.append(Path(path).name)
        return super().probe(path)


@pytest.fixture
def folder(tmp_path: Path) -> CacheFolder:
    return CacheFolder(tmp_path / "cache")


@pytest.fixture
def old(media: Path) -> Path:
    """The media, written long ago: a change would show."""
    for path in media.rglob("*"):
        os.utime(path, (1e9, 1e9))
    return media


def open_index(folder: CacheFolder, notes: list[str] | None = None) -> MediaIndex:
    return MediaIndex(folder, pytest.fail if notes is None else notes.append)  # type: ignore[arg-type]


def looked(folder: CacheFolder, media: Path, notes: list[str] | None = None) -> Counting:
    """Look at three files through an index of its own."""
    sampler = Counting()
    with open_index(folder, notes) as index:
        headers = Headers(index)
        picture = headers.picture(str(media / "1.png"), sampler)
        assert (picture.height, picture.width) == (70, 140)
        clip = headers.clip(str(media / "clip.mkv"), sampler)
        expected = IN_PROCESS.probe(str(media / "clip.mkv"))
        assert (clip.height, clip.width) == (expected.height, expected.width)
        assert clip.frame_times is not None
        assert np.abs(clip.frame_times - expected.frame_times).max() < 1e-9
        with pytest.raises(MediaError, match=r"page.png: is an HTML page \(the download"):
            headers.picture(str(media / "page.png"), sampler)
    return sampler


def test_a_file_is_opened_once_in_any_number_of_runs(folder: CacheFolder, old: Path):
    assert looked(folder, old).opened == ["1.png", "clip.mkv", "page.png"]
    assert looked(folder, old).opened == []
    assert (folder.path / FILE).stat().st_mode & 0o777 == 0o600
    # A long steady clip is a few bytes.
    assert len(media_index._packed(np.arange(100_000) / 25.0)) < 2000


@pytest.mark.parametrize("change", ["size", "time"])
def test_a_file_that_changed_is_opened_again(folder: CacheFolder, old: Path, change: str):
    looked(folder, old)
    path = old / "1.png"
    if change == "size":
        path.write_bytes(path.read_bytes() + b"more")
        os.utime(path, (1e9, 1e9))
    else:
        os.utime(path, (1e9 + 1, 1e9 + 1))
    assert looked(folder, old).opened == ["1.png"]


def test_a_file_that_was_just_written_is_not_remembered(folder: CacheFolder, media: Path):
    looked(folder, media)
    assert looked(folder, media).opened == ["1.png", "clip.mkv", "page.png"]


def test_one_file_as_picture_and_as_clip_is_two_questions(folder: CacheFolder, old: Path):
    for _ in range(2):
        with open_index(folder) as index:
            headers = Headers(index)
            with pytest.raises(MediaError):
                headers.picture(str(old / "clip.mkv"), IN_PROCESS)
            assert headers.clip(str(old / "clip.mkv"), IN_PROCESS).frame_times is not None


def test_a_missing_file_is_told(folder: CacheFolder, old: Path):
    with open_index(folder) as index, pytest.raises(MediaError, match="no such file"):
        Headers(index).picture(str(old / "gone.png"), IN_PROCESS)


@pytest.mark.parametrize("content", [b"no database at all", b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_broken_index_is_made_anew_and_that_is_said(folder: CacheFolder, old: Path, content: bytes):
    folder.path.mkdir()
    (folder.path / FILE).write_bytes(content)
    notes: list[str] = []
    assert looked(folder, old, notes).opened == ["1.png", "clip.mkv", "page.png"]
    assert len(notes) == 1
    assert "is broken" in notes[0]
    assert looked(folder, old).opened == []


def test_an_index_that_breaks_in_use_is_made_anew(folder: CacheFolder, old: Path):
    looked(folder, old)
    notes: list[str] = []
    with open_index(folder, notes) as index:
        path = folder.path / FILE
        path.write_bytes(b"\xff" * path.stat().st_size)
        index.find(str(old / "1.png"))
        Headers(index).picture(str(old / "1.png"), IN_PROCESS)
    assert ["is broken" in note for note in notes] == [True]
    with open_index(folder) as index:
        assert index.find(str(old / "1.png")) is not None


def test_a_table_of_another_form_is_no_answer(folder: CacheFolder, old: Path):
    folder.path.mkdir()
    with sqlite3.connect(folder.path / FILE) as other:
        other.execute("CREATE TABLE media (name TEXT)")
    other.close()
    notes: list[str] = []
    assert looked(folder, old, notes).opened == ["1.png", "clip.mkv", "page.png"]
    assert "not remembered" in notes[0]
    assert len(notes) == 1


def test_a_locked_index_is_left_alone(folder: CacheFolder, old: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(media_index, "_LOCK_SECONDS", 0.1)
    open_index(folder).close()
    other = sqlite3.connect(folder.path / FILE)
    other.execute("BEGIN EXCLUSIVE")
    notes: list[str] = []
    start = time.monotonic()
    assert looked(folder, old, notes).opened == ["1.png", "clip.mkv", "page.png"]
    assert time.monotonic() - start < 20
    assert len(notes) == 1
    assert "locked" in notes[0]
    other.close()


@pytest.mark.parametrize("case", ["no folder", "limit 0", "a file in the way"])
def test_it_does_without_where_nothing_can_be_kept(tmp_path: Path, old: Path, case: str):
    (tmp_path / "file").write_bytes(b"")
    notes: list[str] = []
    folder = {
        "no folder": None,
        "limit 0": CacheFolder(tmp_path / "none", 0),
        "a file in the way": CacheFolder(tmp_path / "file" / "cache"),
    }[case]
    sampler = Counting()
    with MediaIndex(folder, notes.append) as index:
        for _ in range(2):
            Headers(index).picture(str(old / "1.png"), sampler)
    assert sampler.opened == ["1.png", "1.png"]
    assert len(notes) == (case == "a file in the way")
    assert not (tmp_path / "none").exists()


def test_several_threads_and_processes_write_at_once(folder: CacheFolder, old: Path):
    program = (
        "import os, sys; from vidllava.files.cache_folder import CacheFolder; from pathlib import Path\n"
        "from vidllava.data.media_index import Header, MediaIndex\n"
        "status = os.stat(sys.argv[2])\n"
        "with MediaIndex(CacheFolder(Path(sys.argv[1])), sys.exit) as index:\n"
        "    for n in range(600): index.keep(f'{sys.argv[3]}-{n}', status, Header(1, n))\n"
    )
    command = [sys.executable, "-c", program, str(folder.path), str(old / "1.png")]
    others = [subprocess.Popen([*command, f"p{n}"]) for n in range(2)]
    status = os.stat(old / "1.png")
    with open_index(folder) as index:

        def keep(name: int) -> None:
            for n in range(600):
                index.keep(f"t{name}-{n}", status, Header(1, n))

        threads = [threading.Thread(target=keep, args=(n,)) for n in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [other.wait(60) for other in others] == [0, 0]
    with sqlite3.connect(folder.path / FILE) as read:
        assert read.execute("SELECT count(*) FROM media").fetchone() == (2400,)
    read.close()


def fill(index: MediaIndex, path: Path, count: int, name: str = "f") -> None:
    status, times = os.stat(path), np.random.default_rng(0).random(40).cumsum()
    for n in range(count):
        index.keep(f"{name}-{n}", status, Header(1, 1, times))


def names(folder: CacheFolder) -> set[str]:
    with sqlite3.connect(folder.path / FILE) as read:
        found = {name for (name,) in read.execute("SELECT path FROM media")}
    read.close()
    return found


def test_it_takes_an_eighth_of_the_folder_and_the_oldest_go(tmp_path: Path, old: Path):
    folder = CacheFolder(tmp_path / "cache", limit_bytes=4 << 20)
    with open_index(folder) as index:
        fill(index, old / "1.png", 1024, "old")
        assert len(names(folder)) == 1024
        fill(index, old / "1.png", 2048, "new")
    assert (folder.path / FILE).stat().st_size <= (4 << 20) / 8
    left = names(folder)
    assert "new-2047" in left
    assert not any(name.startswith("old") for name in left)
    assert len(left) > 500


def test_its_bytes_count_and_can_be_given_back_while_it_is_in_use(folder: CacheFolder, old: Path):
    (folder.path).mkdir()
    (folder.path / "media-1.sqlite3").write_bytes(b"of an earlier version")
    with open_index(folder) as index:
        fill(index, old / "1.png", 2048)
        size = (folder.path / FILE).stat().st_size
        assert folder.usage().num_bytes == size + 21
        assert folder.usage().num_entries == 0
        empty(folder)
        assert names(folder) == set()
        assert folder.usage().num_bytes < size / 10
        fill(index, old / "1.png", 256, "again")  # who uses it goes on
    assert len(names(folder)) == 256


def test_features_make_room_for_it(folder: CacheFolder, old: Path):
    with open_index(folder) as index:
        fill(index, old / "1.png", 512)
    small = CacheFolder(folder.path, folder.usage().num_bytes + 5000)
    small.write("features/a", b"x" * 4000)
    os.utime(small.path / "features" / "a", (1e9, 1e9))
    small.write("features/b", b"x" * 4000)
    assert small.read("features/a") is None
    assert small.read("features/b") is not None
    assert len(names(folder)) == 512


@pytest.mark.parametrize("state", ["none", "broken", "locked", "no table"])
def test_emptying_what_is_no_index(folder: CacheFolder, monkeypatch: pytest.MonkeyPatch, state: str):
    monkeypatch.setattr(media_index, "_LOCK_SECONDS", 0.1)
    if state == "none":
        return empty(folder)
    folder.path.mkdir()
    path = folder.path / FILE
    if state == "locked":
        open_index(folder).close()
        other = sqlite3.connect(path)
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ResourceError, match="locked"):
            empty(folder)
        return other.close()
    path.write_bytes(b"no database" * 500 if state == "broken" else b"")
    empty(folder)
    assert path.exists() == (state == "no table")
    return None


def test_a_file_that_was_replaced_with_its_size_and_time_kept_is_looked_at_again(
    folder: CacheFolder, tmp_path: Path
):
    """As ``cp -p`` and ``rsync -a`` do."""
    path, other = tmp_path / "a.png", tmp_path / "b.png"
    for one in (path, other):
        one.write_bytes(one.name.encode() * 10)
        os.utime(one, (1e9, 1e9))
    with MediaIndex(folder, print) as index:
        index.keep(str(path), os.stat(path), Header(1, 2))
    with MediaIndex(folder, print) as index:
        assert index.find(str(path)) is not None
        os.replace(other, path)
        assert index.find(str(path)) is None
