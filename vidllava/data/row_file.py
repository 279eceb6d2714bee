"""The rows of a file by their offsets: one pass over it, a row in memory at a time, each read again later.

    rows = RecordFile(Path("train.json"))
    for raw in rows.scan():              # a JSON list or JSON lines, told by the first character
        raw.number, raw.start, raw.size  # bytes; raw.value is decoded JSON, or the fault of this row
    rows.read(raw.start, raw.size)       # from any process, started in any way

JSON lines go on after a faulty row. In a list nobody knows where the next entry begins, so its first fault of
grammar is its last row.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from vidllava.data.source import RowFault
from vidllava.errors import DatasetError

MAX_ROW_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 20
_HEAD_BYTES = 1 << 12
_BOM = codecs.BOM_UTF8
_SPACE = " \t\n\r"
# A literal or an escape that the end of a chunk cut in two is reported no further from the end than this.
_CUT_CHARACTERS = 16
# What may stand after a number that goes on in the next chunk.
_NUMBER_CUT = ("", ".", "e", "e+", "e-")


class RawRow(NamedTuple):
    """One row as it stands in the file."""

    number: int
    """Of the list's entry, or of the line; counted from 1."""
    start: int
    """Byte of the file at which it begins."""
    size: int
    """Bytes."""
    value: Any
    """Decoded JSON, or a ``RowFault``."""


class RecordFile:
    """The rows of one file. Can be pickled, and used in forked processes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fingerprint = ""
        """Hash of the file's bytes; known when ``scan`` has ended without a fault of grammar."""
        self._version = (0, 0)
        self._descriptor: int | None = None

    def scan(self) -> Iterator[RawRow]:
        """Every row in order. Raises DatasetError for a file that cannot be read."""
        try:
            with open(self.path, "rb") as file:
                status = os.fstat(file.fileno())
                self._version = (status.st_size, status.st_mtime_ns)
                _check_text(self.path, file.read(_HEAD_BYTES))
                file.seek(0)
                begin = len(_BOM) if file.read(len(_BOM)) == _BOM else 0
                is_list = _first_character(file, begin) == b"["
                file.seek(begin)
                hashed = hashlib.blake2b(digest_size=16)
                yield from _entries(file, begin, hashed) if is_list else _lines(file, begin, hashed)
                self.fingerprint = hashed.hexdigest()
        except OSError as error:
            raise DatasetError(
                self.path, error.strerror or "cannot be read", "check the path and its permissions"
            ) from None

    def read(self, start: int, size: int) -> Any:
        """The decoded row at these bytes. Raises DatasetError where the file is not what was scanned."""
        value = decode(self.raw(start, size))
        if isinstance(value, RowFault):
            raise DatasetError(self.path, "changed while it was in use", "start again")
        return value

    def raw(self, start: int, size: int) -> bytes:
        """The bytes of a row. Raises DatasetError as ``read`` does."""
        try:
            if self._descriptor is None:
                self._descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
                status = os.fstat(self._descriptor)
                if (status.st_size, status.st_mtime_ns) != self._version:
                    raise DatasetError(self.path, "changed while it was in use", "start again")
            # A position of its own for every reading: forked processes share the descriptor.
            return os.pread(self._descriptor, size, start)
        except OSError as error:
            raise DatasetError(
                self.path, error.strerror or "cannot be read", "check the path and its permissions"
            ) from None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_descriptor": None}

    def __del__(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)


def decode(data: bytes) -> Any:
    """JSON, or the ``RowFault`` that says why it is none."""
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_no_number)
    except UnicodeDecodeError as error:
        return RowFault(f"is not UTF-8 (byte {error.start})")
    except json.JSONDecodeError as error:
        return RowFault(f"invalid JSON at line {error.lineno} column {error.colno}: {error.msg}")
    except (RecursionError, ValueError) as error:  # ValueError: a number of thousands of digits
        return RowFault(_other_fault(error))


def _no_number(word: str) -> Any:
    """Python's reader takes NaN and Infinity, which are no JSON and no length of time either."""
    raise ValueError(f"{word} is not a number")


def _other_fault(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "JSON nested too deeply"
    return f"invalid JSON: {error}"


def _check_text(path: Path, head: bytes) -> None:
    """Raises DatasetError for a file that holds no rows at all: a reason for each line helps nobody."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DatasetError(path, "is UTF-16 text", "save it as UTF-8")
    if b"\0" in head:
        raise DatasetError(path, "is not text: it holds zero bytes", "rows are JSON in UTF-8")


def _first_character(file: BinaryIO, begin: int) -> bytes:
    file.seek(begin)
    while chunk := file.read(_CHUNK_BYTES):
        if found := chunk.lstrip():
            return found[:1]
    return b""


def _lines(file: BinaryIO, begin: int, hashed: hashlib.blake2b) -> Iterator[RawRow]:
    start, number = begin, 0
    while line := file.readline(MAX_ROW_BYTES + 1):
        number += 1
        size, too_large = len(line), len(line) > MAX_ROW_BYTES
        hashed.update(line)
        while too_large and not line.endswith(b"\n") and (line := file.readline(_CHUNK_BYTES)):
            size += len(line)
            hashed.update(line)
        if too_large:
            yield RawRow(number, start, size, _too_large())
        elif line.strip():
            yield RawRow(number, start, size, decode(line))
        start += size


def _too_large() -> RowFault:
    return RowFault(f"has more than {MAX_ROW_BYTES >> 20} MiB")


def _entries(file: BinaryIO, begin: int, hashed: hashlib.blake2b) -> Iterator[RawRow]:
    window = _Window(file, begin, hashed)
    number = 0
    try:
        window.take("[")
        while True:
            if window.peek() == "]" and number == 0:
                break
            number += 1
            value, start, size = window.value()
            yield RawRow(number, start, size, value)
            if window.peek() == "]":
                break
            if window.peek() != ",":
                raise window.fault("Expecting ',' delimiter")
            window.take(",")
        window.take("]")
        if window.peek():
            raise window.fault("Extra data")
    except RowFault as fault:
        yield RawRow(max(number, 1), window.start, 0, fault)


class _Window:
    """The part of a JSON list that is in memory: never much more than an entry."""

    def __init__(self, file: BinaryIO, begin: int, hashed: hashlib.blake2b) -> None:
        self._file, self._hashed = file, hashed
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._scan = json.JSONDecoder(parse_constant=_no_number).raw_decode
        self._text, self._place, self._ended = "", 0, False
        self._read = self.start = begin
        """``start``: the byte of the file at which the next character stands."""
        self._line, self._column = 1, 1

    def peek(self) -> str:
        """The next character that is not white space; empty at the end."""
        while True:
            place, text = self._place, self._text
            while place < len(text) and text[place] in _SPACE:
                place += 1
            self._advance(place)
            if place < len(text):
                return text[place]
            if self._ended:
                return ""
            self._more()

    def take(self, expected: str) -> None:
        """Go past a character that ``peek`` has shown."""
        assert self.peek() == expected
        self._advance(self._place + 1)

    def value(self) -> tuple[Any, int, int]:
        """(decoded JSON, its first byte, its bytes). Raises RowFault."""
        if not self.peek():
            raise self.fault("the list does not end")
        while True:
            try:
                value, end = self._scan(self._text, self._place)
            except json.JSONDecodeError as error:
                self._more_or_fault(error)
                continue
            except (RecursionError, ValueError) as error:
                raise RowFault(_other_fault(error)) from None
            if not self._ended and self._text[end:].lower() in _NUMBER_CUT:
                self._more()
                continue
            start = self.start
            self._advance(end)
            if self.start - start > MAX_ROW_BYTES:
                raise _too_large()
            return value, start, self.start - start

    def fault(self, what: str, place: int | None = None) -> RowFault:
        """``what`` is wrong at ``place`` of the text, or at the next character."""
        passed = self._text[self._place : self._place if place is None else place]
        line = self._line + passed.count("\n")
        column = self._column + len(passed) if line == self._line else len(passed) - passed.rfind("\n")
        return RowFault(f"invalid JSON at line {line} column {column}: {what}")

    def _more_or_fault(self, error: json.JSONDecodeError) -> None:
        """Read on where the entry is only cut by the end of what is in memory."""
        is_cut = error.pos >= len(self._text) - _CUT_CHARACTERS or error.msg.startswith("Unterminated")
        if self._ended or not is_cut:
            raise self.fault(error.msg, error.pos)
        if len(self._text) - self._place > MAX_ROW_BYTES:
            raise _too_large()
        self._more()

    def _more(self) -> None:
        """At least as much again as is there: an entry of any size is looked at a few times only."""
        data = self._file.read(max(_CHUNK_BYTES, len(self._text) - self._place))
        self._hashed.update(data)
        self._read += len(data)
        self._ended = not data
        try:
            new = self._decoder.decode(data, final=self._ended)
        except UnicodeDecodeError as error:
            byte = self._read - len(error.object) + error.start
            raise RowFault(f"is not UTF-8 (byte {byte})") from None
        self._text, self._place = self._text[self._place :] + new, 0

    def _advance(self, place: int) -> None:
        passed = self._text[self._place : place]
        self.start += len(passed) if passed.isascii() else len(passed.encode())
        if lines := passed.count("\n"):
            self._line += lines
            self._column = len(passed) - passed.rfind("\n")
        else:
            self._column += len(passed)
        self._place = place
