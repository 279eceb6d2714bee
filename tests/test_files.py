"""Hashes that are read again exactly when a file was touched, whole writes, and logs that lose nothing."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
import time
from pathlib import Path

import pytest

from vidllava.errors import MediaError, ResourceError, UsageError
from vidllava.files import identity
from vidllava.files.cache_folder import CacheFolder
from vidllava.files.identity import FileStamp, content_hash, files_identity, media_identity
from vidllava.files.json_log import JsonLog
from vidllava.files.writing import refuse_inputs, replacing, write_json, write_text


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


def test_an_empty_file_and_one_that_changes_have_an_identity_that_is_not_remembered(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").touch()
    assert media_identity(tmp_path / "empty") is not None
    before, digest = media_identity(file), hashlib.file_digest

    def slow(*arguments: object) -> object:
        found = digest(*arguments)  # type: ignore[arg-type]
        file.write_bytes(b"other")
        return found

    monkeypatch.setattr(hashlib, "file_digest", slow)
    assert media_identity(file) == before, "of the bytes that were read"
    monkeypatch.setattr(hashlib, "file_digest", digest)
    assert media_identity(file) != before


def test_many_large_files_are_read_once_by_several_threads(
    tmp_path: Path, settled: None, readings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "_PARALLEL_BYTES", 10)
    files = [tmp_path / f"{number}.safetensors" for number in range(6)]
    for number, path in enumerate(files):
        path.write_bytes(bytes([number]) * 1000)
    folder = CacheFolder(tmp_path / "cache")
    first = files_identity(files, folder)
    monkeypatch.setattr(identity, "_remembered", {})
    monkeypatch.setattr(identity, "_PARALLEL_BYTES", 1 << 30)
    assert files_identity(files, folder) == first
    assert len(readings) == 6
    assert files_identity(files[::-1], folder) != first


def test_a_write_is_flushed_renamed_and_its_folder_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    flush, move = os.fsync, os.replace

    def flushed(handle: int) -> None:
        calls.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        flush(handle)

    def moved(source: str, target: str) -> None:
        calls.append("rename")
        move(source, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", moved)
    write_json(tmp_path / "a.json", {"a": "ü"})
    assert calls == ["file", "rename", "folder"]
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"a": "ü"}
    calls.clear()
    write_text(tmp_path / "b.txt", "b", durable=False)
    assert calls == ["rename"]


@pytest.mark.parametrize("step", ["open", "fsync", "replace", "block"])
def test_a_write_that_fails_leaves_the_old_content_and_nothing_beside(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old", encoding="utf-8")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if step != "block":
        monkeypatch.setattr(os, step, full)

    def write() -> None:
        with replacing(path) as file:
            file.write(b"new")
            if step == "block":
                full()

    with pytest.raises(ResourceError, match="No space left") as fault:
        write()
    monkeypatch.undo()
    assert fault.value.exit_code == 6
    assert path.read_text(encoding="utf-8") == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["a.txt"]


def test_an_interruption_while_writing_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with replacing(tmp_path / "a.txt") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_new_files_have_what_the_umask_leaves_and_old_ones_keep_their_mode(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "new", "a")
        (tmp_path / "old").touch(mode=0o600)
        write_text(tmp_path / "old", "a")
        with JsonLog(tmp_path / "log", check=check) as log:
            log.append(ROW)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"new": 0o640, "old": 0o600, "log": 0o640}


def test_a_name_of_any_length_can_be_written_and_a_device_cannot(tmp_path: Path) -> None:
    write_text(tmp_path / ("ü" * 120), "a")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ResourceError, match="not a regular file"):
        write_text(tmp_path / "fifo", "a")
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)


ROW = {"key": "a", "value": 1}


def check(record: dict[str, object]) -> str | None:
    return None if "key" in record else "is not ours"


BEGINS = re.compile(rb'\{"key": "[a-z]')


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        (b'{"key": "a"}\n{"key": "b", "va', [{"key": "a"}]),
        (b'{"key": "a"}\n{', [{"key": "a"}]),
        (b'{"key": "a"}\n' + bytes(40), [{"key": "a"}]),
        (b'{"key": "a", "val', []),
        (b'{"key": "a"}\n{"key": "b"}', [{"key": "a"}, {"key": "b"}]),
        (b'{"key": "a"}', [{"key": "a"}]),
        (b"", []),
    ],
    ids=[
        "cut off",
        "one byte",
        "zeros of a power cut",
        "cut off, first",
        "no line end",
        "no line end, first",
        "empty",
    ],
)
def test_a_log_that_is_ours_goes_on(tmp_path: Path, content: bytes, kept: list[object]) -> None:
    path = tmp_path / "log"
    path.write_bytes(content)
    with JsonLog(path, check=check, begins=BEGINS) as log:
        assert log.records == kept
        assert path.read_bytes() == content, "nothing is changed before the first line"
        log.append(ROW)
    assert [json.loads(line) for line in path.read_bytes().splitlines()] == [*kept, ROW]
    assert path.read_bytes().endswith(b"\n")


@pytest.mark.parametrize(
    "content",
    [
        b'{"ke',
        b'{"other": 1',
        b'{"other": 1}',
        b'{"key": "a"}\n{"other": 1}',
        b'{"key": "a"}\nnote',
        b'{"key": "a"}\n["list"]',
        b'{"key": "a"}\n\n{"key": "b"}\n',
        b'{"key": "a"}\n{"key": "b"\n{"key": "c"}\n',
        b"\0" * 40,
        b"[1]\n",
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
    ],
    ids=range(12),
)
@pytest.mark.parametrize("begins", [None, BEGINS])
def test_a_log_with_one_byte_of_somebody_else_is_refused_and_stays(
    tmp_path: Path, content: bytes, begins: re.Pattern[bytes] | None
) -> None:
    path = tmp_path / "log"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"line \d is not ours"):
        JsonLog(path, check=check, begins=begins)
    assert path.read_bytes() == content
    with JsonLog(path, check=check, overwrite=True) as log:  # it was not left locked
        assert path.read_bytes() == content
        log.append(ROW)
    assert json.loads(path.read_bytes()) == ROW


def test_a_line_is_on_the_disk_when_append_returns_and_one_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    flush, write = os.fsync, os.write
    monkeypatch.setattr(
        os, "fsync", lambda handle: (flushed.append(os.fstat(handle).st_size), flush(handle))[1]
    )
    path = tmp_path / "log"
    with JsonLog(path, check=check) as log:
        log.append(ROW)
        whole = path.read_bytes()
        assert flushed == [len(whole)]

        def short(handle: int, data: bytes) -> int:
            """Takes ten bytes, and then the disk is full."""
            if os.fstat(handle).st_size > len(whole):
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(handle, data[:10])

        monkeypatch.setattr(os, "write", short)
        with pytest.raises(ResourceError, match="No space left"):
            log.append(ROW)
        assert path.read_bytes() == whole
        monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:3]))
        log.append(ROW)
    assert path.read_bytes() == whole * 2


def test_a_log_has_one_writer_also_after_it_was_replaced(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with JsonLog(path, check=check) as log:
        log.append(ROW)
        for records in ([], [ROW, ROW], [ROW, ROW]):
            log.replace(records)  # type: ignore[arg-type]
            with pytest.raises(UsageError, match="is being written by another run"):
                JsonLog(path, check=check)
        log.append({"key": "last"})
        assert log.read() == [ROW, ROW, {"key": "last"}]
    with JsonLog(path, check=check) as log:
        assert len(log.records) == 3
    assert [one.name for one in tmp_path.iterdir()] == ["log"]


def test_a_failed_replacement_leaves_a_log_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    with JsonLog(path, check=check) as log:
        log.append(ROW)

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as broken:
            broken.setattr(os, "replace", full)
            with pytest.raises(ResourceError):
                log.replace([])
        log.append(ROW)
    assert path.read_bytes().splitlines() == [json.dumps(ROW).encode()] * 2


def test_an_output_is_known_as_an_input_by_every_name(tmp_path: Path) -> None:
    path, link, second = tmp_path / "a", tmp_path / "link", tmp_path / "second"
    path.touch()
    link.symlink_to(path)
    os.link(path, second)
    refuse_inputs("-o", tmp_path / "new", [path])
    refuse_inputs("-o", path, [tmp_path / "missing", "https://x", "nul\0", tmp_path])
    for name in (path, link, second):
        with pytest.raises(UsageError, match="is an input of this command"):
            refuse_inputs("-o", name, [tmp_path / "missing", path])
