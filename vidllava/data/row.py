"""What the row formats have in common: turns, media, the frames asked for, and the match between them.

A format file turns its own spelling into these pieces; ``sample_of`` puts them together and checks them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from vidllava.data.keys import CLIPS, FRAMES, MEDIA, PICTURES, SAMPLING, is_given, kind_of, one_of, shown
from vidllava.data.media_root import MediaRoot
from vidllava.data.source import RowFault, Sample, Visual
from vidllava.errors import DatasetError, MediaError, UsageError
from vidllava.media.files import media_kind
from vidllava.media.timeline import Sampling, SamplingRequest, parse_rate, parse_time
from vidllava.prompting.turns import MediaKind, Placeholder, Role, Turn, check_turns

NUMBERS = ("num_frames", "fps", "max_frames")
TIMES = {"start": "start_seconds", "end": "end_seconds"}
WORDS = ("sampling",)
RATE = "frame_rate"
"""Pictures a second of a folder of pictures."""
RANGE = tuple(TIMES.values())

_QUESTION_KEYS = {**dict.fromkeys(NUMBERS), **TIMES, **dict.fromkeys(WORDS)}
_TRAINING_KEYS = {
    "num_frames": "num_frames",
    "nframes": "num_frames",
    "fps": "fps",
    "max_frames": "max_frames",
    "sampling": "sampling",
    "video_start": "start_seconds",
    "video_end": "end_seconds",
    **TIMES,
}


def own_frames(record: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Pairs of an option of a question and its value, checked together. Raises RowFault."""
    own: dict[str, Any] = {}
    for key, field in _QUESTION_KEYS.items():
        if record.get(key) is not None:
            own[field or key] = _value(field or key, key, record[key])
    rate = None if record.get(RATE) is None else rate_of(record[RATE], RATE)
    try:
        SamplingRequest(**own)
    except UsageError as fault:
        raise RowFault(str(fault)) from None
    return (*own.items(), *([] if rate is None else [(RATE, rate)]))


def wanted_frames(*records: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a ``SamplingRequest`` that a training row sets; a later record goes before an earlier one."""
    wanted: dict[str, Any] = {}
    for record in records:
        named: dict[str, str] = {}
        record = _with_range(record)
        for key, field in _TRAINING_KEYS.items():
            if record.get(key) is None:
                continue
            value = _value(field, key, record[key])
            if named.setdefault(field, key) != key and wanted[field] != value:
                raise RowFault(f"`{named[field]}` and `{key}` say different things")
            wanted[field] = value
    return wanted


def _value(field: str, key: str, value: object) -> Any:
    """The value of a ``SamplingRequest``'s ``field`` that stands under ``key``. Raises RowFault."""
    if field == "fps":
        return rate_of(value, key)
    if field == "sampling":
        if value not in get_args(Sampling):
            raise RowFault(f"`{key}` must be {' or '.join(get_args(Sampling))}, not {shown(value)}")
        return value
    if field in RANGE:
        return _time_of(value, key)
    if isinstance(value, bool) or not isinstance(value, int):
        what = shown(value) if isinstance(value, float) else kind_of(value)
        raise RowFault(f"`{key}` must be a whole number, not {what}")
    return value


def rate_of(value: object, key: str) -> float:
    """Frames a second, by the parser of ``--fps``. Raises RowFault."""
    try:
        return parse_rate(value, f"`{key}`")
    except UsageError as fault:
        raise RowFault(str(fault)) from None


def _time_of(value: object, key: str) -> float:
    """Seconds, by the parser of ``--start`` where the value is a text. Raises RowFault."""
    try:
        if isinstance(value, str):
            return parse_time(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    except UsageError as fault:
        raise RowFault(f"`{key}`: {fault}") from None
    except OverflowError:
        what = "is more seconds than can be counted; it must be 0 s or later, and below 1e300 s"
        raise RowFault(f"`start` or `end` {what}") from None
    raise RowFault(f"`{key}` must be seconds or mm:ss, not {kind_of(value)}")


def _with_range(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """InternVL's `clip`, [start, end] in seconds, as two keys."""
    pair = record.get("clip")
    if not is_given(pair):
        return record
    if not isinstance(pair, list) or len(pair) != 2:
        raise RowFault("`clip` must be [start, end] in seconds; a file is named as `video`")
    if any(record.get(key) is not None for key in ("start", "end")):
        raise RowFault("`clip` and `start` or `end` both give a range; give one")
    return {**record, "start": pair[0], "end": pair[1]}


def refuse_frame_keys(record: Mapping[str, Any], where: str = "") -> None:
    """Raises RowFault for keys that choose frames, of a row or part that names no clip."""
    for key in SAMPLING:
        if is_given(record.get(key)):
            raise RowFault(f"{where}`{key}` is for videos, and none is named; leave it out")


ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
}
_PAIR: tuple[Role, Role] = ("user", "assistant")
_ENTRY_KEYS = ("path", "url", "bytes", "detail")
_FLAG = re.compile(r"--([a-z]+(?:-[a-z]+)*)")
Clip = str | list[str]
"""What a row names as a video: a file, a folder of pictures, or a list of pictures."""


@dataclass(frozen=True)
class RowContext:
    """What a parser must know besides the row: its number and where its media lie."""

    number: int
    root: MediaRoot


TextOf = Callable[[Mapping[str, Any], int, Role], Turn]


def turns_of(record: Mapping[str, Any], key: str, text_of: TextOf) -> list[Turn]:
    """The turns in the list under the row's ``key``; ``text_of`` reads what a turn says.

    The row's own `system` line stands before them, and so do the question-answer pairs of its `history`.
    """
    items = record.get(key)
    if not isinstance(items, list) or not items:
        raise RowFault(f"needs `{key}`, a list of turns")
    turns: list[Turn] = []
    for number, item in enumerate(items, 1):
        if not isinstance(item, dict):
            raise RowFault(f"turn {number} must be an object, not {kind_of(item)}")
        _, speaker = one_of(item, ("from", "role"), f"turn {number}: ") or ("", None)
        role = ROLES.get(speaker) if isinstance(speaker, str) else None
        if role is None:
            raise RowFault(f"turn {number} is from {speaker!r}; known are " + ", ".join(ROLES))
        turn = text_of(item, number, role)
        if role == "assistant" and not turn.text.strip():
            raise RowFault(f"turn {number} is an empty answer")
        turns.append(turn if _is_learned(item, number, role) else replace(turn, learned=False))
    return _opened(record, turns, text_of)


def _opened(record: Mapping[str, Any], turns: list[Turn], text_of: TextOf) -> list[Turn]:
    """The turns after the row's `system` line and the pairs of its `history`, where it has them."""
    system = record.get("system")
    first = turns[:1] if turns[0].role == "system" else []
    if is_given(system):
        if not isinstance(system, str):
            raise RowFault(f"`system` must be a text, not {kind_of(system)}")
        if first and first[0].text != system:
            raise RowFault("`system` and the first turn are two system lines")
        first = first or [Turn("system", system)]
    return [*first, *_history(record.get("history"), text_of), *turns[int(turns[0].role == "system") :]]


def _history(pairs: object, text_of: TextOf) -> list[Turn]:
    """swift's and LLaMA-Factory's `history`: [[question, answer], ...], learned like every other answer."""
    if not is_given(pairs):
        return []
    turns: list[Turn] = []
    for pair in pairs if isinstance(pairs, list) else [None]:
        if not isinstance(pair, list) or [type(text) for text in pair] != [str, str] or not all(pair):
            raise RowFault("`history` must be a list of [question, answer] pairs of texts")
        turns += [text_of({"content": text}, 0, role) for text, role in zip(pair, _PAIR, strict=True)]
    return turns


def _is_learned(item: Mapping[str, Any], number: int, role: Role) -> bool:
    """OpenAI's `weight` (0 or 1) and swift's `loss` (a truth value) of a turn: is this answer trained on?"""
    weight, loss = item.get("weight"), item.get("loss")
    if weight is not None and (isinstance(weight, bool) or weight not in (0, 1)):
        raise RowFault(f"turn {number}: `weight` must be 0 or 1, not {shown(weight)}")
    if loss is not None and not isinstance(loss, bool):
        raise RowFault(f"turn {number}: `loss` must be true or false, not {shown(loss)}")
    if role != "assistant" and (weight or loss):
        raise RowFault(f"turn {number} is the {role}'s: only answers are trained on")
    return weight != 0 and loss is not False


def text_turn(item: Mapping[str, Any], number: int, role: Role) -> Turn:
    """A turn whose words are one text, with `<image>` and `<video>` where the visuals stand."""
    found = one_of(item, ("value", "content"), f"turn {number}: ")
    text = item.get("value", item.get("content")) if found is None else found[1]
    if not isinstance(text, str):
        raise RowFault(f"turn {number} needs a text, not {kind_of(text)}")
    return Turn(role, text)


def media_of(record: Mapping[str, Any], root: MediaRoot) -> tuple[list[str], list[Clip]]:
    """The picture files and the clips that a row names, whichever of the known keys it names them under."""
    pictures, clips = one_of(record, PICTURES), one_of(record, CLIPS)
    frames, mixed = record.get(FRAMES), record.get(MEDIA)
    if is_given(frames):
        if clips is not None:
            raise RowFault(f"`{FRAMES}` and `{clips[0]}` both name clips; name them under one key")
        clips = (FRAMES, [pictures_named(frames, FRAMES)])
    if is_given(mixed):
        beside = pictures or clips
        if beside is not None:
            raise RowFault(f"`{MEDIA}` and `{beside[0]}` both name media; name them under one key")
        names = pictures_named(mixed, MEDIA)
        found = [_kind_of_file(name, root) for name in names]
        pictures = (MEDIA, [name for name, kind in zip(names, found, strict=True) if kind == "picture"])
        clips = (MEDIA, [name for name, kind in zip(names, found, strict=True) if kind == "video"])
    return (
        [] if pictures is None else pictures_named(pictures[1], pictures[0]),
        [] if clips is None else clips_named(clips[1], clips[0]),
    )


def _kind_of_file(name: str, root: MediaRoot) -> str:
    """What a file is that is named without its kind: looked up in its first bytes; a folder is a clip."""
    try:
        return "video" if root.is_folder(name) else media_kind(root.file(name))
    except MediaError as fault:
        raise RowFault(f"{name!r} {fault.what}") from None


def picture_visuals(names: Sequence[str], num_clips: int, root: MediaRoot) -> list[Visual]:
    """A picture that is alone in its row is tiled (AnyRes), one of several is not."""
    alone = len(names) == 1 and not num_clips
    return [Visual(kind="picture" if alone else "pictures", path=root.file(name)) for name in names]


def clip_visual(clip: Clip, wanted: Mapping[str, Any], root: MediaRoot) -> Visual:
    """A video file, or pictures that are one: then ``fps`` is how many of them make a second.

    Without it they stand a second apart, and a range in seconds would mean nothing.
    """
    try:
        if isinstance(clip, str) and not root.is_folder(clip):
            return Visual(
                kind="video", path=root.file(clip), request=SamplingRequest(**wanted) if wanted else None
            )
        pictures = root.pictures(clip) if isinstance(clip, str) else tuple(root.file(name) for name in clip)
        if not pictures:
            raise RowFault("a video is an empty list of pictures")
        others = {name: value for name, value in wanted.items() if name != "fps"}
        if "fps" not in wanted and any(name in others for name in RANGE):
            raise RowFault("a range of a folder of pictures needs `fps`, its pictures per second")
        SamplingRequest(fps=wanted.get("fps"))  # checks it
        request = SamplingRequest(**others) if others else None
    except UsageError as error:
        raise RowFault(_in_a_row(error)) from None
    return Visual(
        kind="video", pictures=pictures, pictures_per_second=float(wanted.get("fps", 1.0)), request=request
    )


def _in_a_row(error: UsageError) -> str:
    """What is wrong with a request, with the names that rows use for what are flags elsewhere."""
    return f"{_FLAG.sub(_key, error.thing)}: {_FLAG.sub(_key, error.what)}"


def _key(flag: re.Match[str]) -> str:
    return f"`{flag[1].replace('-', '_')}`"


def pictures_named(value: object, key: str) -> list[str]:
    """A file name or a list of them; see `_path` for objects that name one."""
    names = [_path(entry, key) for entry in (value if isinstance(value, list) else [value])]
    if not all(isinstance(name, str) for name in names):
        raise RowFault(f"`{key}` must be a file name or a list of file names")
    return names


def clips_named(value: object, key: str) -> list[Clip]:
    """A file or folder name or a list of them; a list within the list is the pictures of one clip."""
    clips = [_path(entry, key) for entry in (value if isinstance(value, list) else [value])]
    if not all(_is_clip(clip) for clip in clips):
        raise RowFault(f"`{key}` must be a file name or a list of file names")
    return clips


def _path(entry: Any, key: str) -> Any:
    """The file that an entry of a media list names: as a text, or as an object's `path` or `url`."""
    if isinstance(entry, list):
        return [_path(each, key) for each in entry]
    if not isinstance(entry, dict):
        return entry
    if entry.get("bytes") is not None:
        raise RowFault(f"`{key}` holds the bytes of a file: write the file and name it")
    found = one_of(entry, ("path", "url"), f"`{key}`: ")
    if found is None or any(is_given(value) for name, value in entry.items() if name not in _ENTRY_KEYS):
        raise RowFault(f"`{key}` holds an object; give a file name, or an object with `path` or `url` alone")
    return found[1]


def _is_clip(clip: object) -> bool:
    return isinstance(clip, str) or (isinstance(clip, list) and all(isinstance(name, str) for name in clip))


def matched(turns: Iterable[Turn], pictures: list[Visual], clips: list[Visual]) -> tuple[Visual, ...]:
    """Each placeholder's visual in order: `<image>` takes the next picture, or the next clip where none is
    left (LLaVA-NeXT writes `<image>` for a clip too); `<video>` takes the next clip."""
    pictures, clips = list(pictures), list(clips)
    visuals: list[Visual] = []
    for mark in (mark for turn in turns if turn.slots for mark in turn.placeholders):
        waiting = pictures if pictures and mark is Placeholder.IMAGE else clips
        if waiting:
            visuals.append(waiting.pop(0))
    return (*visuals, *pictures, *clips)  # left over: the check says how many


def sample_of_texts(
    record: Mapping[str, Any], turns: Sequence[Turn], context: RowContext, key: str
) -> Sample:
    """The sample of a row whose texts, under ``key``, hold a placeholder for each of its media.

    Raises RowFault.
    """
    names, clips = media_of(record, context.root)
    if not clips:
        refuse_frame_keys(record)
    pictures = picture_visuals(names, len(clips), context.root)
    wanted = wanted_frames(record) if clips else {}
    films = [clip_visual(clip, wanted, context.root) for clip in clips]
    return sample_of(record, turns, matched(turns, pictures, films), context.number, key)


def sample_of(
    record: Mapping[str, Any], turns: Sequence[Turn], visuals: tuple[Visual, ...], number: int, key: str
) -> Sample:
    """The checked sample of row ``number``. Raises RowFault."""
    kinds: list[MediaKind] = ["video" if visual.kind == "video" else "picture" for visual in visuals]
    try:
        check_turns(turns, kinds, source=key)
    except DatasetError as error:
        raise RowFault(f"{error.thing}: {error.what}") from None
    return Sample(
        id=id_of(record) or f"row-{number}",
        turns=tuple(turns),
        visuals=visuals,
        prompt_id=_prompt_of(record),
        dataset=_dataset_of(record),
    )


def _prompt_of(record: Mapping[str, Any]) -> int | str | None:
    """The formatting prompt that the row itself names: a number or a data set's name."""
    value = record.get("format", record.get("prompt_id"))
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | str)):
        raise RowFault(f"`format` must be a number or a name, not {kind_of(value)}")
    return value


def _dataset_of(record: Mapping[str, Any]) -> str | None:
    """The data set that the row says it is from."""
    metadata = record.get("metadata")
    inner = metadata.get("dataset") if isinstance(metadata, dict) else None
    return next((name for name in (record.get("data_source"), inner) if isinstance(name, str)), None)


def id_of(record: object) -> str | None:
    """The row's own name, where it has one."""
    if not isinstance(record, dict):
        return None
    identity = record.get("id", record.get("sample_id"))
    return None if identity is None else str(identity)
