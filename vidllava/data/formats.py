"""The row formats: told by their keys, row by row; a format is one file, and one entry in `FORMATS`.

    parse_row({"id": "7", "image": "a.png", "conversations": [...]}, RowContext(7, root))    # a Sample

A format module has a `NAME`, the `KEY` under which its turns stand, `matches(record)`,
`parse(record, context)` and an `EXAMPLE` for the help text. Detected by content: a file's name says nothing,
and a file may hold rows of several formats. Which keys a row may have besides is the same in all of them:
`vidllava.data.keys`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from vidllava.data import format_llava, format_m4, format_messages, format_swift
from vidllava.data.keys import check_row, kind_of
from vidllava.data.row import RowContext
from vidllava.data.source import RowFault, Sample


class RowFormat(Protocol):
    """What a format module offers."""

    NAME: str
    KEY: str
    EXAMPLE: str

    def matches(self, record: Mapping[str, Any], /) -> bool: ...

    def parse(self, record: Mapping[str, Any], context: RowContext, /) -> Sample: ...


FORMATS: tuple[RowFormat, ...] = (format_m4, format_llava, format_messages, format_swift)
"""In the order in which they are tried: the first that matches reads the row."""
_MAX_KEYS, _KEY_CHARACTERS = 12, 40


def parse_row(record: Any, context: RowContext) -> Sample:
    """One decoded JSON value as a sample. Raises RowFault."""
    if isinstance(record, RowFault):
        raise record
    if not isinstance(record, dict):
        raise RowFault(f"must be an object, not {kind_of(record)}")
    found = detect(record)
    check_row(record, found.KEY)
    return found.parse(record, context)


def detect(record: Mapping[str, Any]) -> RowFormat:
    """The format of one row. Raises RowFault saying what keys it has and what was expected."""
    for each in FORMATS:
        if each.matches(record):
            return each
    names = [key[:_KEY_CHARACTERS] for key in record][:_MAX_KEYS]
    more = ", ..." if len(record) > _MAX_KEYS else ""
    found = f"the keys {', '.join(names)}{more}" if names else "no keys"
    raise RowFault(f"has {found}; needs {_expected()}")


def _expected() -> str:
    """Each key that turns stand under, with the formats that call it so."""
    named: dict[str, list[str]] = {}
    for each in FORMATS:
        named.setdefault(each.KEY, []).append(each.NAME)
    return " or ".join(f"`{key}` ({', '.join(names)})" for key, names in named.items())
