"""Identities of files by their whole content, remembered for as long as a file is not touched.

    media_identity("clip.mp4")               # "3f7a...", None where there is nothing to read
    media_identity("frames/")                # of a folder: every file in it, with its name
    files_identity(["model.safetensors", "config.json"])

Every resume key and every cache key names its files by these and nothing less: a hash of a file's size and
ends misses what changed in the middle. A hash is remembered by device, inode, size and times of the file, in
memory and in the cache folder, so that a second run reads nothing twice. BLAKE2b reads about 1 GiB/s on one
core; several large files are read by several threads.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path

from vidllava.errors import MediaError
from vidllava.files.cache_folder import CacheFolder

# Times of files are as coarse as this on some file systems: younger ones may change without a trace.
_SETTLED_SECONDS = 2.0
_MAX_REMEMBERED = 1 << 16
_MAX_THREADS = 8
_PARALLEL_BYTES = 64 << 20
_DIGEST_BYTES = 20
_remembered: dict[FileStamp, str] = {}


@dataclass(frozen=True)
class FileStamp:
    """What changes whenever a file does: where it lies, its size, and when it was written."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, path: str | Path) -> FileStamp:
        """The stamp of a regular file. Raises MediaError."""
        name = os.fspath(path)
        try:
            status = os.stat(name)
        except FileNotFoundError:
            raise MediaError(name, "no such file", "check the path") from None
        except (OSError, ValueError) as fault:
            reason = getattr(fault, "strerror", None) or str(fault)
            raise MediaError(name, f"cannot be looked up: {reason}", "check the path") from None
        if not stat.S_ISREG(status.st_mode):
            raise MediaError(name, "is not a regular file", "give a file")
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    @property
    def is_settled(self) -> bool:
        """Old enough for every later change to show."""
        return time.time() - max(self.modified_ns, self.changed_ns) / 1e9 > _SETTLED_SECONDS

    @property
    def memo(self) -> str:
        """The name of this stamp's memo in a cache folder."""
        words = ":".join(str(value) for value in astuple(self))
        return f"content/{hashlib.blake2b(words.encode(), digest_size=16).hexdigest()}.json"


def content_hash(path: str, folder: CacheFolder | None = None) -> str | None:
    """BLAKE2b of the whole file in hex; None where the file changed while it was read.

    Remembered in memory and in ``folder``. Raises MediaError for a path that is not a readable file.
    """
    found, is_whole = _hashed(path, folder)
    return found if is_whole else None


def media_identity(path: str | Path, folder: CacheFolder | None = None) -> str | None:
    """The identity of a medium (or any other file) by its whole content; None where nothing can be read.

    Of a folder: the names and contents of all files in it, folders below included. ``folder`` is where hashes
    are remembered, by default the cache folder of the environment. A file that changes while it is read gets
    the hash of what was read, which is not remembered.
    """
    try:
        if os.path.isdir(path):
            return _folder_identity(Path(path), folder)
        return _hashed(path, folder or CacheFolder.of_environment())[0][: 2 * _DIGEST_BYTES]
    except (MediaError, OSError, TypeError, ValueError):  # missing, a FIFO, unreadable, no path at all
        return None


def files_identity(paths: Iterable[Path], folder: CacheFolder | None = None) -> str:
    """One identity for several files in their order: the name and the whole content of each."""
    listed = list(paths)
    memory = folder or CacheFolder.of_environment()

    def named(path: Path) -> tuple[str, str | None]:
        return path.name, media_identity(path, memory)

    total = sum(path.stat().st_size for path in listed if path.is_file())
    if total < _PARALLEL_BYTES:
        words = [named(path) for path in listed]
    else:  # hashing gives the interpreter free
        with ThreadPoolExecutor(min(os.cpu_count() or 1, _MAX_THREADS)) as pool:
            words = list(pool.map(named, listed))
    return hashlib.blake2b(json.dumps(words).encode(), digest_size=_DIGEST_BYTES).hexdigest()


def _folder_identity(path: Path, folder: CacheFolder | None) -> str:
    memory = folder or CacheFolder.of_environment()
    files = sorted(
        os.path.join(place, name)
        for place, _, names in os.walk(path)
        for name in names
        if os.path.isfile(os.path.join(place, name))
    )
    words = [(os.path.relpath(name, path), media_identity(name, memory)) for name in files]
    digest = hashlib.blake2b(json.dumps(words).encode(), digest_size=_DIGEST_BYTES)
    return f"folder-{digest.hexdigest()}"


def _hashed(path: str | Path, folder: CacheFolder | None) -> tuple[str, bool]:
    """(hash of the bytes that were read, whether the file stood still meanwhile). Raises MediaError."""
    before = FileStamp.of(path)
    found = _remembered.get(before) or _recall(before, folder)
    if found is None:
        try:
            with open(path, "rb") as file:
                found = hashlib.file_digest(file, "blake2b").hexdigest()
        except OSError as fault:
            raise MediaError(os.fspath(path), f"cannot be read: {fault.strerror}", "check the file") from None
        if FileStamp.of(path) != before:
            return found, False
        if before.is_settled and folder is not None:
            memo = json.dumps({"stamp": astuple(before), "blake2b": found})
            with contextlib.suppress(OSError):  # a full disk costs the next process a second reading
                folder.write(before.memo, memo.encode())
    if before.is_settled:
        if len(_remembered) >= _MAX_REMEMBERED:
            _remembered.clear()
        _remembered[before] = found
    return found, True


def _recall(stamp: FileStamp, folder: CacheFolder | None) -> str | None:
    data = folder.read(stamp.memo) if folder is not None else None
    if data is None:
        return None
    try:
        memo = json.loads(data)
        digest = memo["blake2b"]
        known = tuple(memo["stamp"]) == astuple(stamp) and len(bytes.fromhex(digest)) == 64
    except (ValueError, TypeError, KeyError):
        return None
    return digest if known else None
