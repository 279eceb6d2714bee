"""Logs of JSON lines: one object a line, each on the disk before the next; a run that was cut off goes on.

    with JsonLog(path, check=what_is_wrong, overwrite=False) as log:
        log.records                        # what an earlier run left
        log.append({"key": "9be1", ...})

A file that exists is touched only after every byte of it is known to be a log of this command: every line is
checked, and a last line that was cut off is dropped only where earlier lines, or its own beginning, prove
whose it is. Nothing is changed before the first ``append`` or ``replace``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from vidllava.errors import ResourceError, UsageError
from vidllava.files.writing import json_line, unconverted_replacing, write_all

Record = dict[str, Any]
Check = Callable[[Record], str | None]
"""What is wrong with the object of a line, for a sentence after "line 3 "; None for one of ours."""
_MOST_LINE_BYTES = 64 << 20


@dataclass(frozen=True)
class Found:
    """What stands in a log."""

    records: list[Record]
    num_bytes: int
    """Of whole lines."""
    end: Literal["whole", "unended", "cut off"] = "whole"
    """``unended``: the last line lacks its line end alone; ``cut off``: more than that, and it is not in
    ``records``."""


def read_log(
    path: Path,
    check: Check,
    *,
    begins: re.Pattern[bytes] | None = None,
    flag: str = "--output",
    hint: str = "another name, or --overwrite",
) -> Found:
    """The records of ``path``, every one checked.

    ``begins`` matches a line of ours that was cut off, from its start: without it a file that holds nothing
    but a cut-off line is not known to be ours. Raises UsageError for a file that is something else.
    """
    records: list[Record] = []
    num_bytes = 0
    try:
        with path.open("rb") as file:
            while line := file.readline(_MOST_LINE_BYTES):
                is_ended = line.endswith(b"\n")
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError):
                    if not is_ended and _is_cut_off(line, is_first=not records, begins=begins):
                        return Found(records, num_bytes, "cut off")
                    record = None
                wrong = check(record) if isinstance(record, dict) else check({}) or "is not a JSON object"
                if wrong is not None:
                    what = f"line {len(records) + 1} {wrong}"
                    raise UsageError(f"{flag} {path}", what, hint)
                records.append(record)
                num_bytes += len(line)
                if not is_ended:
                    return Found(records, num_bytes, "unended")
    except OSError as fault:
        raise ResourceError(path, f"cannot be read: {fault.strerror}", "check its permissions") from None
    return Found(records, num_bytes)


def _is_cut_off(line: bytes, *, is_first: bool, begins: re.Pattern[bytes] | None) -> bool:
    """Whether a line that is not JSON and has no line end is the beginning of one of ours.

    After earlier lines of ours every beginning of an object is, and the zeros that a power cut may leave.
    """
    if len(line) == _MOST_LINE_BYTES:
        return False
    if is_first:
        return begins is not None and begins.match(line) is not None
    return line.startswith(b'{"') or line == b"{" or not line.strip(b"\0")


class JsonLog:
    """Locked while it is open: a second writer of the same file is refused."""

    def __init__(
        self,
        path: Path,
        *,
        check: Check,
        begins: re.Pattern[bytes] | None = None,
        overwrite: bool = False,
        flag: str = "--output",
        hint: str = "another name, or --overwrite",
    ) -> None:
        """``overwrite``: whatever stands there goes with the first ``append`` or ``replace``.

        Raises UsageError for a file that is not a log of this command or is being written by another run, and
        ResourceError where nothing can be written.
        """
        self.path = path
        self._flag, self._check, self._begins, self._hint = flag, check, begins, hint
        if path.is_dir():
            raise UsageError(f"{flag} {path}", "is a folder", "give a file name")
        if str(path) == "-" or (path.exists() and not path.is_file()):
            raise UsageError(f"{flag} {path}", "is not a regular file", "give a file name: its rows are kept")
        self._files = [self._open()]
        try:
            self._found = Found([], 0) if overwrite else self._read()
        except BaseException:
            self.close()
            raise
        self.records = self._found.records
        """What stood there when it was opened."""
        self._is_begun = not overwrite and self._found.end == "whole"

    @property
    def was_cut_off(self) -> bool:
        """Whether the last line was found incomplete, and is dropped."""
        return self._found.end == "cut off"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the file free."""
        while self._files:
            os.close(self._files.pop())

    def append(self, record: Record) -> None:
        """One more line, on the disk when this returns; of one that cannot be written whole nothing stays.

        Raises ResourceError.
        """
        data = json_line(record)
        descriptor = self._files[-1]
        try:
            self._begin()
            size = os.fstat(descriptor).st_size
            try:
                write_all(descriptor, data)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, size)
                raise
            os.fsync(descriptor)
        except OSError as fault:
            raise ResourceError(self.path, f"cannot be written: {fault.strerror}", "make room") from None

    def read(self) -> list[Record]:
        """The records that are on the disk, in the order in which they came."""
        return self._read().records

    def replace(self, records: Sequence[Record]) -> None:
        """The file with these records alone: whole at every moment, and locked under its old name and new.

        Raises ResourceError.
        """
        data = b"".join(json_line(record) for record in records)
        try:
            if os.fstat(self._files[-1]).st_size == len(data) and self.path.read_bytes() == data:
                self._is_begun = True
                return
            self._files.append(self._replaced(data))
        except OSError as fault:
            raise ResourceError(self.path, f"cannot be written: {fault.strerror}", "make room") from None
        self._is_begun = True

    def _replaced(self, data: bytes) -> int:
        """A locked descriptor of a new file with ``data``, which has taken the name. Raises OSError."""
        descriptor = -1
        try:
            with unconverted_replacing(self.path) as file:
                file.write(data)
                descriptor = os.dup(file.fileno())
                fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            if descriptor >= 0:
                os.close(descriptor)
            raise
        return descriptor

    def _begin(self) -> None:
        """Take away what was left of a line that was cut off, or all where it is overwritten; once."""
        if self._is_begun:
            return
        if self._found.end == "unended":
            write_all(self._files[-1], b"\n")
        else:
            os.ftruncate(self._files[-1], self._found.num_bytes)
        self._is_begun = True

    def _read(self) -> Found:
        return read_log(self.path, self._check, begins=self._begins, flag=self._flag, hint=self._hint)

    def _open(self) -> int:
        """A locked descriptor of the file that has the name now."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
        while True:
            try:
                descriptor = os.open(self.path, flags, 0o666)
            except (FileNotFoundError, NotADirectoryError):
                what = f"{self.path.parent} is not a folder"
                raise UsageError(f"{self._flag} {self.path}", what, "make it, or give another name") from None
            except OSError as fault:
                what = f"cannot be written: {fault.strerror}"
                raise ResourceError(self.path, what, f"another {self._flag}") from None
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found, named = os.fstat(descriptor), os.stat(self.path)
                if not stat.S_ISREG(found.st_mode):
                    raise OSError(errno.EINVAL, "is not a regular file")
                if os.path.samestat(found, named):
                    return descriptor
            except FileNotFoundError:
                pass
            except OSError:
                os.close(descriptor)
                what = "is being written by another run"
                raise UsageError(
                    f"{self._flag} {self.path}", what, "wait for it, or give another name"
                ) from None
            os.close(descriptor)  # renamed meanwhile by a run that has just ended
