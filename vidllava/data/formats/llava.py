"""LLaVA rows: `conversations` between human and gpt, about an `image` (or a list of them) or a `video`.

`start` and `end` are seconds (also `video_start`, `video_end`); `fps` and `max_frames` go like `num_frames`.
Several views of one scene (3-D data) are several pictures. InternVL's and LLaMA-Factory's rows are LLaVA's
with `images`, `videos` and `system` beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vidllava.data.row import RowContext, sample_of_texts, text_turn, turns_of
from vidllava.data.source import Sample

NAME, KEY = "llava", "conversations"
GENERAL = True
EXAMPLE = """\
{"image": "a.png", "conversations": [
{"from": "human", "value": "<image>\\nWhat is it?"},
{"from": "gpt", "value": "A cat."}]}
{"video": "b.mp4", "start": 2.5, "end": 9, "fps": 2, ...}"""


def matches(record: Mapping[str, Any]) -> bool:
    """Whether a row is of this format."""
    return KEY in record


def parse(record: Mapping[str, Any], context: RowContext) -> Sample:
    """The sample in one row. Raises RowFault."""
    return sample_of_texts(record, turns_of(record, KEY, text_turn), context, KEY)
