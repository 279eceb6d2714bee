"""OpenAI-style rows: `messages` whose content is a text or a list of parts, media among them.

`type` is text, image, image_url, video or video_url. A media part without a file takes the next one of the
row's `images` or `videos`. Parts say where the visuals stand, so "<image>" in a text is plain text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vidllava.data.keys import CLIPS, PICTURES, is_given, kind_of, one_of
from vidllava.data.row import (
    Clip,
    RowContext,
    clip_visual,
    clips_named,
    media_of,
    picture_visuals,
    pictures_named,
    refuse_frame_keys,
    sample_of,
    turns_of,
    wanted_frames,
)
from vidllava.data.source import RowFault, Sample, Visual
from vidllava.prompting.turns import Placeholder, Role, Turn

NAME, KEY = "messages", "messages"
EXAMPLE = """\
{"messages": [{"role": "user", "content": [
{"type": "image_url", "image_url": {"url": "a.png"}},
{"type": "text", "text": "What is it?"}]},
{"role": "assistant", "content": "A cat."}]}"""
_TEXTS = ("text", "input_text", "output_text")
_PICTURES = ("image", "image_url", "input_image")
_VIDEOS = ("video", "video_url", "input_video")


def matches(record: Mapping[str, Any]) -> bool:
    """Whether a row is of this format: some message of it is a list of parts."""
    messages = record.get(KEY)
    return isinstance(messages, list) and any(
        isinstance(item, dict) and isinstance(item.get("content"), list) for item in messages
    )


def parse(record: Mapping[str, Any], context: RowContext) -> Sample:
    """The sample in one row. Raises RowFault."""
    found = _Media(record, context)
    turns = turns_of(record, KEY, found.turn)
    found.check_all_used()
    num_clips = sum(not isinstance(item, str) for item in found.items)
    if not num_clips:
        refuse_frame_keys(record)
    names = [item for item in found.items if isinstance(item, str)]
    pictures = iter(picture_visuals(names, num_clips, context.root))
    visuals: list[Visual] = []
    for item in found.items:
        if isinstance(item, str):
            visuals.append(next(pictures))
        else:
            visuals.append(clip_visual(item[0], item[1], context.root))
    return sample_of(record, turns, tuple(visuals), context.number, KEY)


class _Media:
    """What the parts name, in the order of the conversation."""

    def __init__(self, record: Mapping[str, Any], context: RowContext) -> None:
        self.items: list[str | tuple[Clip, dict[str, Any]]] = []
        """A picture's name, or a clip and the frames wanted of it."""
        self._record = record
        pictures, clips = media_of(record, context.root)
        self._waiting: dict[str, list[Any]] = {"images": pictures, "videos": clips}

    def turn(self, item: Mapping[str, Any], number: int, role: Role) -> Turn:
        """What one message says."""
        content = item.get("content")
        if isinstance(content, str):
            return Turn(role, content, ())
        if not isinstance(content, list):
            raise RowFault(f"turn {number} needs a text or a list of parts, not {kind_of(content)}")
        parts = [self._part(part, number, place) for place, part in enumerate(content, 1)]
        return Turn.from_parts(role, parts)

    def check_all_used(self) -> None:
        """Raises RowFault where the row lists media that no part stands for."""
        for key, rest in self._waiting.items():
            if rest:
                raise RowFault(f"`{key}` lists {len(rest)} more than the parts of the messages stand for")

    def _part(self, part: object, number: int, place: int) -> str | Placeholder:
        where = f"turn {number} part {place}"
        if isinstance(part, str):
            return part
        if not isinstance(part, dict):
            raise RowFault(f"{where} must be an object, not {kind_of(part)}")
        kind = part.get("type")
        if kind in _TEXTS:
            if not isinstance(part.get("text"), str):
                raise RowFault(f"{where} needs a `text`, not {kind_of(part.get('text'))}")
            _refuse(part, (*PICTURES, *CLIPS, "url", "path"), where)
            refuse_frame_keys(part, f"{where}: ")
            return part["text"]
        if kind in _PICTURES:
            _refuse(part, (*CLIPS, "text"), where)
            refuse_frame_keys(part, f"{where}: ")
            name = self._file(part, PICTURES, "images", where)
            (name,) = pictures_named([name], where)
            self.items.append(name)
            return Placeholder.IMAGE
        if kind in _VIDEOS:
            _refuse(part, (*PICTURES, "text"), where)
            clip: Clip = self._file(part, CLIPS, "videos", where)
            self.items.append((clips_named([clip], where)[0], wanted_frames(self._record, part)))
            return Placeholder.VIDEO
        known = ", ".join((_TEXTS[0], *_PICTURES[:2], *_VIDEOS[:2]))
        raise RowFault(f"{where} is of type {kind!r}; known are {known}")

    def _file(self, part: Mapping[str, Any], keys: tuple[str, ...], key: str, where: str) -> Any:
        """What a media part names, however it spells it."""
        found = one_of(part, (*keys, "url", "path"), f"{where}: ")
        if found is not None:
            return found[1]
        if not self._waiting[key]:
            raise RowFault(f"{where} names no file, and the row's `{key}` has none left")
        return self._waiting[key].pop(0)


def _refuse(part: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    """Raises RowFault for what a part of this type cannot hold."""
    for key in keys:
        if is_given(part.get(key)):
            raise RowFault(
                f"{where} is of type {part.get('type')!r} and holds `{key}`; give it a part of its own"
            )
