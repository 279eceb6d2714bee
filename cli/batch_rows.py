"""The rows of ``ask --batch``: a question and its media each, every one checked before the first is answered.

    {"id": "7", "media": ["a.mp4", "b.png"], "question": "what differs?", "num_frames": 16, "start": "0:10"}

``video`` or ``image`` may stand for ``media``; a row without an ``id`` is known by its line.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vidllava.data.row import RowFault
from vidllava.data.row_frames import NUMBERS, RATE, TIMES, WORDS, own_frames
from vidllava.errors import DatasetError
from vidllava.files.identity import media_identity
from vidllava.media.files import is_file_name
from vidllava.media.sources import is_descriptor

MAX_SHOWN = 5  # faults named in the error; the rest are counted
_NAME_CHARACTERS = 50
_MEDIA = ("media", "video", "image")
_KNOWN = {"id", "question", *_MEDIA, *NUMBERS, *TIMES, *WORDS, RATE}


class OutsideRoot(RowFault):
    """A path that leads out of the media root."""


@dataclass(frozen=True)
class Row:
    """One question."""

    id: str | int
    media: tuple[str, ...]
    """As the row has them."""
    paths: tuple[str, ...]
    question: str
    own: tuple[tuple[str, Any], ...]
    """Options of ``AskOptions`` that this row sets itself."""

    @cached_property
    def key(self) -> str:
        """Names what was asked, the content of the media with it."""
        contents = [media_identity(path) for path in self.paths]
        words = json.dumps([self.id, self.question, self.media, contents, self.own])
        return hashlib.blake2b(words.encode(), digest_size=12).hexdigest()


def read_rows(path: Path, media_root: Path | None) -> tuple[list[Row], list[str]]:
    """(the rows, keys that mean nothing here). Raises DatasetError naming the line of every fault."""
    root = media_root if media_root is not None else path.parent
    if not root.is_dir():
        raise DatasetError(root, "the media root is no folder", "give an existing folder as --media-root")
    rows: list[Row] = []
    faults: list[str] = []
    first_line: dict[str, int] = {}
    outside = False
    ignored: dict[str, None] = {}
    number = 0
    for line, text in _lines(path):
        number += 1
        try:
            record = _decode(text)
            row = _row(record, line, root.resolve())
            if str(row.id) in first_line:
                raise RowFault(f"id {row.id!r} was used by line {first_line[str(row.id)]}")
            first_line[str(row.id)] = line
            rows.append(row)
            ignored |= dict.fromkeys(key for key in record if key not in _KNOWN)
        except RowFault as fault:
            faults.append(f"line {line}: {fault}")
            outside |= isinstance(fault, OutsideRoot)
    if faults:
        more = f"; and {len(faults) - MAX_SHOWN} more" if len(faults) > MAX_SHOWN else ""
        listed = "; ".join(faults[:MAX_SHOWN]) + more
        hint = "mend or remove these lines"
        if outside:
            hint = f"the media root is {root.resolve()}; --media-root / allows every path"
        raise DatasetError(path, f"{len(faults)} of {number} rows cannot be used: {listed}", hint)
    if not rows:
        raise DatasetError(path, "holds no rows", "one JSON object a line")
    return rows, list(ignored)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as fault:
        raise DatasetError(path, f"is not UTF-8 (byte {fault.start})", "convert it to UTF-8") from None
    except OSError as fault:
        raise DatasetError(path, fault.strerror or "cannot be read", "check the path") from None
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line


def _decode(text: str) -> dict[str, Any]:
    try:
        record = json.loads(text)
    except json.JSONDecodeError as fault:
        raise RowFault(f"invalid JSON: {fault.msg}") from None
    except ValueError:
        raise RowFault("invalid JSON: a number of too many digits") from None
    except RecursionError:
        raise RowFault("invalid JSON: nested too deeply") from None
    if not isinstance(record, dict):
        raise RowFault("must be an object")
    return record


def _row(record: dict[str, Any], line: int, root: Path) -> Row:
    question = record.get("question")
    if not isinstance(question, str) or not question.strip():
        raise RowFault("needs `question`, a text")
    identity = record.get("id", line)
    if isinstance(identity, bool) or not isinstance(identity, str | int):
        raise RowFault("`id` must be a text or a whole number")
    named = [key for key in _MEDIA if record.get(key) is not None]
    if len(named) != 1:
        raise RowFault("needs one of `media`, `video` and `image`")
    value = record[named[0]]
    media = [value] if isinstance(value, str) else value
    if not isinstance(media, list) or not media or not all(isinstance(name, str) for name in media):
        raise RowFault(f"`{named[0]}` must be a file name or a list of file names")
    paths = tuple(_path(name, root) for name in media)
    return Row(identity, tuple(media), paths, question.strip(), own_frames(record))


def _path(name: str, root: Path) -> str:
    """Under the media root, links followed: a data set from elsewhere must not point at other files."""
    if "://" in name:
        raise RowFault(f"{_short(name)}: only local files are read in a batch")
    if not name or "\0" in name:
        raise RowFault(f"{_short(name)} is no file name")
    if not is_file_name(name):  # half a surrogate pair: the look-up says so in this row's answer
        return str(root / name)
    if is_descriptor(str(root / name)):
        raise RowFault(f"{_short(name)} is an open file of this process: give its own path")
    if not Path(os.path.realpath(root / name)).is_relative_to(root):
        raise OutsideRoot(f"{_short(name)} lies outside the media root")
    return str(root / name)


def _short(name: str) -> str:
    """The name in quotes; of a long one the end, where files differ."""
    return repr(name if len(name) <= _NAME_CHARACTERS else f"...{name[3 - _NAME_CHARACTERS :]}")
