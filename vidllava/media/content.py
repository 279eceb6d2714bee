"""Which content does a file hold? A hash of all its bytes, remembered for as long as the file is not touched.

content_hash("clip.mp4", folder)      # "3f7a...", or None where it changed while it was read
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from dataclasses import astuple, dataclass
from pathlib import Path

import av

from vidllava.cache_folder import CacheFolder
from vidllava.errors import MediaError
from vidllava.media.files import check_file

# Times of files are as coarse as this on some file systems: younger ones may change without a trace.
_SETTLED_SECONDS = 2.0
_MAX_REMEMBERED = 4096
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
        status = check_file(path)
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

    Remembered by device, inode, size and times, in memory and in ``folder``: a restart does not read the file
    again. Raises MediaError for a path that is no readable file.
    """
    before = FileStamp.of(path)
    found = _remembered.get(before) or _recall(before, folder)
    if found is None:
        try:
            with open(path, "rb") as file:
                found = hashlib.file_digest(file, "blake2b").hexdigest()
        except OSError as fault:
            raise MediaError(os.fspath(path), f"cannot be read: {fault.strerror}") from None
        if FileStamp.of(path) != before:
            return None
        if before.is_settled and folder is not None:
            memo = json.dumps({"stamp": astuple(before), "blake2b": found})
            with contextlib.suppress(OSError):  # a full disk costs the next process a second reading
                folder.write(before.memo, memo.encode())
    if before.is_settled:
        if len(_remembered) >= _MAX_REMEMBERED:
            _remembered.clear()
        _remembered[before] = found
    return found


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


def decoder_versions() -> dict[str, str]:
    """PyAV and the FFmpeg libraries under it: what may change pixels."""
    libraries = {
        name: ".".join(str(part) for part in version) for name, version in av.library_versions.items()
    }
    return {"av": av.__version__, **libraries}
