"""swift rows: `messages` whose texts hold `<image>` and `<video>`, and the files in `images` and `videos`.

A list within `videos` is the pictures of one clip.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vidllava.data.row import RowContext, sample_of_texts, text_turn, turns_of
from vidllava.data.source import Sample

NAME, KEY = "swift", "messages"
GENERAL = True
EXAMPLE = """\
{"messages": [{"role": "user", "content": "<video>Why?"},
{"role": "assistant", "content": "So."}], "videos": ["b.mp4"]}"""


def matches(record: Mapping[str, Any]) -> bool:
    """Whether a row is of this format."""
    return KEY in record


def parse(record: Mapping[str, Any], context: RowContext) -> Sample:
    """The sample in one row. Raises RowFault."""
    return sample_of_texts(record, turns_of(record, KEY, text_turn), context, KEY)
