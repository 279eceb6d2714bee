"""The row formats: told by their keys, row by row; a format is one module here, or a plug-in.

    parse_row({"id": "7", "image": "a.png", "conversations": [...]}, RowContext(7, root))    # a Sample

A format module defines

    NAME        what help and messages call it
    KEY         the key under which a row's turns stand
    EXAMPLE     a row for the help text
    matches(record) -> bool              whether a row is of this format
    parse(record, context) -> Sample     the sample in a row; raises RowFault

and may define KEYS, other keys that it alone reads, and GENERAL = True where it matches whatever has its KEY:
such formats are tried last. Detected by content: a file's name says nothing, and a file may hold rows of
several formats. Which keys a row may have besides is the same in all of them: `vidllava.data.keys`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from vidllava import registry
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


def formats() -> tuple[RowFormat, ...]:
    """In the order in which they are tried: the first that matches reads the row."""
    found = registry.members(__name__, "NAME", "KEY", "EXAMPLE", "matches", "parse")
    return tuple(sorted(found, key=lambda each: getattr(each, "GENERAL", False)))


def own_keys() -> frozenset[str]:
    """The keys that some format reads by itself."""
    return frozenset(key for each in formats() for key in (each.KEY, *getattr(each, "KEYS", ())))


def examples() -> str:
    """The formats with an example row of each, for the help text."""
    found = sorted(formats(), key=lambda each: each.NAME)
    width = max(len(each.NAME) for each in found) + 2
    rows = [
        (each.NAME if not at else "", line)
        for each in found
        for at, line in enumerate(each.EXAMPLE.splitlines())
    ]
    return "\n".join(f"{name:{width}}{line}" for name, line in rows)


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
    for each in formats():
        if each.matches(record):
            return each
    names = [key[:_KEY_CHARACTERS] for key in record][:_MAX_KEYS]
    more = ", ..." if len(record) > _MAX_KEYS else ""
    found = f"the keys {', '.join(names)}{more}" if names else "no keys"
    raise RowFault(f"has {found}; needs {_expected()}")


def _expected() -> str:
    """Each key that turns stand under, with the formats that call it so."""
    named: dict[str, list[str]] = {}
    for each in formats():
        named.setdefault(each.KEY, []).append(each.NAME)
    return " or ".join(f"`{key}` ({', '.join(names)})" for key, names in named.items())
