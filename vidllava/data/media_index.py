"""Headers of media files, remembered in SQLite, so that a data set is looked through once.

    with MediaIndex(CacheFolder.of_environment(), print) as index:
        index.find(path)                   # a Header, or None: not looked at, or changed since
        index.keep(path, Header(height=480, width=640))

A file is known by its path, inode, size and times. Several processes may use the index at once. It only
saves time: a database that is broken is made anew, one that stays locked is left alone, and both are said. It
takes an eighth of the cache folder at most: where it would be more, the older half is forgotten.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from vidllava.errors import MediaError, ResourceError
from vidllava.files.cache_folder import CacheFolder
from vidllava.media.sampler import HeaderSampler

FILE = "media-5.sqlite3"
"""The number is that of the table and of what a look finds: another one is another file."""
_LOCK_SECONDS = 5.0
_ROWS_AT_ONCE = 256
_SHARE = 8
_MIN_BYTES = 1 << 16
# Times of files may be as coarse as this: a younger one may change without a trace.
_SETTLED_SECONDS = 2.0
_TABLE = (
    "CREATE TABLE IF NOT EXISTS media (path TEXT PRIMARY KEY, stamp TEXT, "
    "height INTEGER, width INTEGER, times BLOB, seconds REAL, fault TEXT, kept_ns INTEGER) WITHOUT ROWID"
)
_TABLES = "SELECT name FROM sqlite_master WHERE name = 'media'"
_READ = "SELECT height, width, times, seconds, fault FROM media WHERE path = ? AND stamp = ?"
_WRITE = "INSERT OR REPLACE INTO media VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_MIDDLE = "SELECT kept_ns FROM media ORDER BY kept_ns LIMIT 1 OFFSET (SELECT count(*) / 2 FROM media)"
_FORGET = "DELETE FROM media WHERE kept_ns < ?"
_NANO = 1e9


@dataclass(frozen=True, eq=False)
class Header:
    """What one look into a file found: the upright size, a clip's times, or why it cannot be used."""

    height: int = 0
    width: int = 0
    frame_times: np.ndarray | None = None
    """float64 [num_frames] seconds from the first frame; None for a picture."""
    duration_seconds: float | None = None
    """Of a clip, the end of its last frame."""
    fault: str | None = None
    """One line; then the rest means nothing."""


class MediaIndex:
    """For any number of threads. ``folder`` None, or one that keeps nothing, gives an index that forgets."""

    def __init__(self, folder: CacheFolder | None, note: Callable[[str], None]) -> None:
        self._note, self._lock = note, threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._new: list[tuple[object, ...]] = []
        if folder is None or folder.limit_bytes == 0:
            return
        self.path = folder.path / FILE
        self._limit_bytes = max(folder.limit_bytes // _SHARE, _MIN_BYTES)
        try:
            folder.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._open()
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)

    def __enter__(self) -> MediaIndex:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write down what is new. The index answers nothing afterwards."""
        with self._lock:
            self._write()
            if self._database is not None:
                self._database.close()
            self._database = None

    def find(self, path: str) -> Header | None:
        """What is known of the file as it is now."""
        with self._lock:
            if self._database is None:
                return None
            try:
                status = os.stat(path)
                row = self._database.execute(_READ, (path, _stamp(status))).fetchone()
                return None if row is None else _header(*row)
            except (OSError, ValueError, zlib.error, UnicodeEncodeError):
                return None
            except sqlite3.Error as error:
                self._recover(error)
                return None

    def keep(self, path: str, status: os.stat_result, header: Header) -> None:
        """Remember ``header``, which was read when the file had this ``status``."""
        if time.time() - status.st_mtime_ns / _NANO < _SETTLED_SECONDS:
            return
        times = None if header.frame_times is None else _packed(header.frame_times)
        what = (header.height, header.width, times, header.duration_seconds, header.fault)
        row = (path, _stamp(status), *what, time.time_ns())
        with self._lock:
            if self._database is None:
                return
            self._new.append(row)
            if len(self._new) >= _ROWS_AT_ONCE:
                self._write()

    def _open(self) -> None:
        """Raises sqlite3.Error or OSError."""
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        try:
            self._connect()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):  # locked, or a disk that is full
                raise
            self._anew(error)

    def _connect(self) -> None:
        # A lock around every use makes up for the check of the thread.
        self._database = sqlite3.connect(self.path, timeout=_LOCK_SECONDS, check_same_thread=False)
        if self._database.execute(_TABLES).fetchone() is None:  # a table that is there needs no lock to look
            self._database.execute(_TABLE)
            self._database.commit()

    def _anew(self, error: Exception) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
        self._note(f"the index of media headers is broken ({error}) and is made anew: {self.path}")
        for name in (self.path, f"{self.path}-journal"):
            with suppress(FileNotFoundError):
                os.unlink(name)
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        self._connect()

    def _write(self) -> None:
        rows, self._new = self._new, []
        if self._database is None or not rows:
            return
        try:
            with self._database:
                self._database.executemany(_WRITE, rows)
            if os.path.getsize(self.path) > self._limit_bytes:
                _forget_older_half(self._database)
        except (UnicodeEncodeError, OSError):  # a file name that is not text, or the folder was deleted
            pass
        except sqlite3.Error as error:
            self._recover(error)

    def _recover(self, error: sqlite3.Error) -> None:
        """Go on with a new database where this one is broken, and with none where it cannot be used."""
        try:
            if isinstance(error, sqlite3.OperationalError):
                raise error
            self._anew(error)
        except (sqlite3.Error, OSError) as second:
            self._give_up(second)

    def _give_up(self, error: Exception) -> None:
        if self._database is not None:
            with suppress(sqlite3.Error):
                self._database.close()
        self._database = None
        self._note(f"media headers are not remembered: {error} ({self.path})")


def empty(folder: CacheFolder) -> None:
    """Forget every header. Raises ResourceError where another process holds the index for long.

    The file itself stays, of a few pages: one that is unlinked while another process writes can break the
    next one, by the journal that both would have.
    """
    with suppress(FileNotFoundError, NotADirectoryError):
        for path in folder.databases():
            if path.name == FILE:
                _empty_table(path)
            elif not path.name.startswith(FILE):  # of another version; our own journal is SQLite's business
                path.unlink()


def _empty_table(path: Path) -> None:
    database = sqlite3.connect(path, timeout=_LOCK_SECONDS, isolation_level=None)
    try:
        if database.execute(_TABLES).fetchone() is not None:
            database.execute("DELETE FROM media")
            database.execute("VACUUM")
    except sqlite3.OperationalError as error:
        raise ResourceError(path, str(error), "try again when no data set is looked at") from None
    except sqlite3.DatabaseError:  # broken: nobody can use it
        path.unlink()
    finally:
        database.close()


def _forget_older_half(database: sqlite3.Connection) -> None:
    with database:
        database.execute(_FORGET, database.execute(_MIDDLE).fetchone())
    with suppress(sqlite3.OperationalError):  # somebody reads: the free pages are used again all the same
        database.execute("VACUUM")


def _stamp(status: os.stat_result) -> str:
    """What changes whenever a file does: where it lies, its size and both its times."""
    facts = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return ":".join(str(fact) for fact in facts)


def _packed(times: np.ndarray) -> bytes:
    """Steps in whole nanoseconds, deflated: a steady rate is a few bytes, however long the clip."""
    return zlib.compress(np.diff(np.rint(times * _NANO).astype(np.int64), prepend=0).tobytes())


def _header(height: int, width: int, times: bytes | None, seconds: float | None, fault: str | None) -> Header:
    found = None if times is None else np.cumsum(np.frombuffer(zlib.decompress(times), np.int64)) / _NANO
    return Header(int(height), int(width), found, seconds, fault)


class Headers:
    """Looks files up in the index, else opens them. For any number of threads."""

    def __init__(self, index: MediaIndex) -> None:
        self._index = index

    def picture(self, path: str, sampler: HeaderSampler) -> Header:
        """The upright size of a picture. Raises MediaError, ResourceError."""
        return self._look(path, lambda: Header(*sampler.picture_size(path)), clip=False)

    def clip(self, path: str, sampler: HeaderSampler) -> Header:
        """The upright size and the times of a clip. Raises MediaError, ResourceError."""

        def probed() -> Header:
            info = sampler.probe(path)
            return Header(info.height, info.width, info.frame_times, info.duration_seconds)

        return self._look(path, probed, clip=True)

    def _look(self, path: str, look: Callable[[], Header], *, clip: bool) -> Header:
        known = self._index.find(path)
        # A file may be named as a picture and as a clip: what one look found says nothing of the other.
        if known is not None and known.fault is None and (known.frame_times is not None) == clip:
            return known
        if known is not None and known.fault is not None and known.fault.startswith(_MARKS[clip]):
            thing, what, hint = known.fault.removeprefix(_MARKS[clip]).split("\0")
            raise MediaError(thing, what, hint)
        try:
            status = os.stat(path)
        except OSError as error:
            raise MediaError(
                path, (error.strerror or "cannot be read").lower(), "check its permissions"
            ) from None
        try:
            found = look()
        except MediaError as error:
            words = "\0".join((error.thing, error.what, error.hint or ""))
            self._index.keep(path, status, Header(fault=_MARKS[clip] + words))
            raise
        self._index.keep(path, status, found)
        return found


_MARKS = {True: "clip:", False: "picture:"}
