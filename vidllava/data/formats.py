"""Which format is this row in? Told by its keys, row by row; each format has a file of its own.

    parse_row({"id": "7", "image": "a.png", "conversations": [...]}, RowContext(7, root))    # a Sample

Detected by content: a file's name says nothing, and a file may hold rows of several formats.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from vidllava.data import format_llava, format_m4, format_messages, format_swift
from vidllava.data.row import RowContext, RowFault, kind_of
from vidllava.data.source import Sample

Format = Literal["llava", "m4-instruct", "messages", "swift"]
_PARSERS = {
    "llava": format_llava.parse,
    "m4-instruct": format_m4.parse,
    "messages": format_messages.parse,
    "swift": format_swift.parse,
}
_EXPECTED = (
    "`conversations` (LLaVA, M4-Instruct) or `messages` (OpenAI parts, or swift with `images` and `videos`)"
)
_MAX_KEYS, _KEY_CHARACTERS = 12, 40


def parse_row(record: Any, context: RowContext) -> Sample:
    """One decoded JSON value as a sample. Raises RowFault."""
    if isinstance(record, RowFault):
        raise record
    if not isinstance(record, dict):
        raise RowFault(f"must be an object, not {kind_of(record)}")
    return _PARSERS[detect(record)](record, context)


def detect(record: Mapping[str, Any]) -> Format:
    """The format of one row. Raises RowFault saying what keys it has and what was expected."""
    if "conversations" in record:
        return "m4-instruct" if any(mark in record for mark in format_m4.MARKS) else "llava"
    if "messages" in record:
        messages = record["messages"]
        has_parts = isinstance(messages, list) and any(
            isinstance(item, dict) and isinstance(item.get("content"), list) for item in messages
        )
        return "messages" if has_parts else "swift"
    names = [key[:_KEY_CHARACTERS] for key in record][:_MAX_KEYS]
    more = ", ..." if len(record) > _MAX_KEYS else ""
    found = f"the keys {', '.join(names)}{more}" if names else "no keys"
    raise RowFault(f"has {found}; needs {_EXPECTED}")
