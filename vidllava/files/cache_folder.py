"""The cache folder on disk: shared by processes, bounded in size, least recently used files deleted first.

    folder = CacheFolder.of_environment()
    folder.write("features/ab12.safetensors", data)     # whole or not at all; the least used files make room
    folder.read("features/ab12.safetensors")            # bytes, or None

Files are for their owner alone (0600 in folders of 0700). A name is read and replaced as a whole, so that any
number of processes may use the folder at once.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vidllava.errors import UsageError
from vidllava.files.writing import UNFINISHED, unconverted_replacing

FOLDER_VARIABLE = "VIDLLAVA_CACHE"
LIMIT_VARIABLE = "VIDLLAVA_CACHE_LIMIT"
DEFAULT_LIMIT_BYTES = 2 << 30
SECTIONS = ("features", "content", "lengths", "tokenizers")
"""The folders inside that are ours: nothing else is counted or deleted."""
_DATABASE = re.compile(r"media-\d+\.sqlite3(-journal)?")
"""The index of media headers (`vidllava.data.media_index`) counts, and bounds and empties itself."""
MAX_FILES = 20_000
_STALE_SECONDS = 3600.0
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True)
class Usage:
    """What lies in the folder. The entries are features; the bytes are of everything, memos of file hashes,
    lengths of texts and the index of media headers too."""

    num_entries: int
    num_bytes: int


@dataclass(frozen=True)
class CacheFolder:
    """``path`` need not exist yet. ``limit_bytes`` 0 keeps nothing."""

    path: Path
    limit_bytes: int = DEFAULT_LIMIT_BYTES

    @classmethod
    def of_environment(cls) -> CacheFolder:
        """VIDLLAVA_CACHE, else ``vidllava`` in XDG_CACHE_HOME or ~/.cache. Raises UsageError for a limit
        that is not a size."""
        own = os.environ.get(FOLDER_VARIABLE)
        home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        return cls(Path(own).expanduser() if own else Path(home) / "vidllava", limit_of_environment())

    def read(self, name: str) -> bytes | None:
        """The bytes of ``name``, which counts as used now; None where it is not there or cannot be read."""
        path = self.path / name
        try:
            data = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        return data

    def write(self, name: str, data: bytes) -> bool:
        """Put ``data`` under ``name`` and make room; False where it is larger than the limit.

        Raises OSError where the disk is full or the folder cannot be written.
        """
        if len(data) > self.limit_bytes:
            return False
        path = self.path / name
        for folder in (self.path, path.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Not flushed to the disk: an entry that a power cut leaves torn is not an entry.
        with unconverted_replacing(path, durable=False, mode=0o600) as file:
            file.write(data)
        self._make_room()
        return True

    def remove(self, name: str) -> None:
        """Delete ``name``, if it is there."""
        with contextlib.suppress(OSError):
            (self.path / name).unlink()

    def usage(self) -> Usage:
        """What lies in the folder now."""
        files = list(self._files())
        entries = sum(file.path.parent.name == "features" for file in files)
        return Usage(entries, sum(file.num_bytes for file in files) + self._database_bytes())

    def databases(self) -> list[Path]:
        """The index of media headers, where there is one, and those of other versions."""
        if not self.path.is_dir():
            return []
        return sorted(path for path in self.path.iterdir() if _DATABASE.fullmatch(path.name))

    def clear(self) -> Usage:
        """Delete every file of ours but the databases; returns what was deleted."""
        entries = num_bytes = 0
        for file in list(self._files()):
            try:
                file.path.unlink()
            except FileNotFoundError:  # another process was quicker
                continue
            entries += file.path.parent.name == "features"
            num_bytes += file.num_bytes
        return Usage(entries, num_bytes)

    def _make_room(self) -> None:
        """Delete the files that were not used for longest until the rest is within the limits."""
        now = time.time()
        files = sorted(self._files(), key=lambda file: file.used_at)
        num_bytes, num_files = sum(file.num_bytes for file in files) + self._database_bytes(), len(files)
        for file in files:
            if file.path.name.startswith(UNFINISHED):
                # What a killed process left is rubbish; what another one is writing is not.
                wanted = now - file.used_at <= _STALE_SECONDS
            else:
                wanted = num_bytes <= self.limit_bytes and num_files <= MAX_FILES
            if wanted:
                continue
            with contextlib.suppress(OSError):
                file.path.unlink()
            num_bytes -= file.num_bytes
            num_files -= 1

    def _database_bytes(self) -> int:
        total = 0
        with contextlib.suppress(OSError):  # gone since it was listed
            for path in self.databases():
                total += path.lstat().st_size
        return total

    def _files(self) -> Iterator[_File]:
        for section in SECTIONS:
            try:
                listed = list(os.scandir(self.path / section))
            except OSError:
                continue
            for entry in listed:
                with contextlib.suppress(OSError):  # deleted since it was listed
                    if entry.is_file(follow_symlinks=False):
                        status = entry.stat(follow_symlinks=False)
                        yield _File(Path(entry.path), status.st_size, status.st_mtime)


@dataclass(frozen=True)
class _File:
    path: Path
    num_bytes: int
    used_at: float


def limit_of_environment() -> int:
    """Bytes of VIDLLAVA_CACHE_LIMIT, such as 500M or 2G. Raises UsageError."""
    text = os.environ.get(LIMIT_VARIABLE, "").strip()
    if not text:
        return DEFAULT_LIMIT_BYTES
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text, re.IGNORECASE)
    if match is None or math.isinf(float(match[1])):
        raise UsageError(LIMIT_VARIABLE, f"{text!r} is not a size", "for example 500M or 2G; 0 keeps nothing")
    return int(float(match[1]) * _UNITS[match[2].upper()])
