"""swift rows: `messages` whose texts hold `<image>` and `<video>`, and the files in `images` and `videos`.

    {"messages": [{"role": "user", "content": "<image><video>which?"}, {"role": "assistant", "content": "a"}],
     "images": ["a.png"], "videos": ["b.mp4"]}

A list within `videos` is the pictures of one clip.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vidllava.data.row import (
    RowContext,
    RowFault,
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

KEY = "messages"


def parse(record: Mapping[str, Any], context: RowContext) -> Sample:
    """The sample in one row. Raises RowFault."""
    if record.get("audios"):
        raise RowFault("`audios` is not supported: pictures and videos are")
    turns = turns_of(record.get(KEY), KEY, text_turn)
    names, clips = files_of(record, "images", "image"), files_of(record, "videos", "video")
    pictures = picture_visuals(pictures_named(names, "images"), len(clips), context.root)
    wanted = wanted_frames(record) if clips else {}
    films = [clip_visual(clip, wanted, context.root) for clip in clips_named(clips, "videos")]
    return sample_of(record, turns, matched(turns, pictures, films), context.number, KEY)


def files_of(record: Mapping[str, Any], key: str, singular: str) -> list[Any]:
    """The entries of a media list; one that is an object names its file as `path`."""
    value = record.get(key, record.get(singular))
    entries = [] if value is None else value if isinstance(value, list) else [value]
    return [_path(entry, key) if isinstance(entry, dict) else entry for entry in entries]


def _path(entry: Mapping[str, Any], key: str) -> Any:
    if entry.get("bytes") is not None:
        raise RowFault(f"`{key}` holds the bytes of a file: write the file and name it")
    return entry.get("path")
