"""LLaVA rows: `conversations` between human and gpt, about an `image` (or a list of them) or a `video`.

    {"id": "7", "image": "a.png", "conversations": [
        {"from": "human", "value": "<image>\\nWhat is it?"}, {"from": "gpt", "value": "A cat."}]}
    {"id": "8", "video": "clip.mp4", "start": 2.0, "end": 9.5, "num_frames": 16, ...}

`start` and `end` are seconds (also `video_start`, `video_end`); `fps` and `max_frames` go like `num_frames`.

Several views of one scene (3-D data) are several pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vidllava.data.row import (
    RowContext,
    clip_visual,
    clips_named,
    matched,
    picture_visuals,
    pictures_named,
    sample_of,
    text_turn,
    turns_of,
    wanted_frames,
)
from vidllava.data.source import Sample
from vidllava.prompting.turns import Turn

KEY = "conversations"


def parse(record: Mapping[str, Any], context: RowContext) -> Sample:
    """The sample in one row. Raises RowFault."""
    return parse_turns(record, turns_of(record.get(KEY), KEY, text_turn), context)


def parse_turns(record: Mapping[str, Any], turns: list[Turn], context: RowContext) -> Sample:
    """The sample of these turns and the row's media."""
    names, clips = pictures_named(record.get("image"), "image"), clips_named(record.get("video"), "video")
    pictures = picture_visuals(names, len(clips), context.root)
    wanted = wanted_frames(record) if clips else {}
    films = [clip_visual(clip, wanted, context.root) for clip in clips]
    return sample_of(record, turns, matched(turns, pictures, films), context.number, KEY)
