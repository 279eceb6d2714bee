"""The one table of keys that rows may have: which are read, which only describe, which are refused and why.

The keys are those of the neighbouring formats: LLaVA, M4-Instruct, ms-swift, OpenAI messages, LLaMA-Factory
(ShareGPT), Qwen's and InternVL's fine-tuning data. A key of any of them has a reader in every format here, or
refuses its row: text or media that a row names are never left out in silence. What no format knows is
collected, and told once per file. A key whose value is null, or an empty text, list or object says nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from vidllava.data.source import RowFault

PICTURES = ("image", "images", "image_url", "image_urls", "image_path", "image_paths")
CLIPS = ("video", "videos", "video_url", "video_urls", "video_path", "video_paths")
MEDIA, FRAMES = "media", "frames"
SPOKEN = ("conversations", "messages")
OPENING = ("system", "history")
SAMPLING = (
    *("num_frames", "nframes", "fps", "max_frames", "sampling"),
    *("video_start", "video_end", "start", "end", "clip"),
)
NAMES = ("id", "sample_id", "format", "prompt_id", "data_source", "metadata", "choice_list")
_DESCRIBING = frozenset(
    (
        *("width", "height", "width_list", "height_list", "image_size", "duration", "length", "dataset"),
        *("source", "dataset_name", "model", "type", "task", "task_type", "category"),
        *("question_type", "question_id", "video_id", "image_id", "split", "language", "license"),
        *("channel", "tag", "tags", "origin_dataset"),
    )
)
"""Notes about a row, that change neither its words nor its media in any format."""

_TOOLS = "is for tool calls, which are not supported; leave the row out"
_PREFERENCE = "is for preference training, which is not supported; keep the answer to learn alone"
_SOUND = "is not supported: pictures and videos are"
_PLACES = "is not put into the text; write boxes and references there, and leave the key out"
_SECOND = "would be a second conversation beside the row's; put all turns into one list"
_PIXELS = "is not followed, the size of pictures is the model's own; leave it out"
_WEIGHTS = "is not supported; an answer is learned or not: give `weight` or `loss` in its turn"
_ROW_REFUSED = {
    **dict.fromkeys(("tools", "functions", "tool_calls", "function_call"), _TOOLS),
    **dict.fromkeys(
        ("rejected", "chosen", "rejected_response", "rejected_messages", "rejected_images", "kto_tag"),
        _PREFERENCE,
    ),
    **dict.fromkeys(("audios", "audio", "audio_url", "audio_path", "speech"), _SOUND),
    **dict.fromkeys(("objects", "bbox", "bboxes", "boxes", "ref", "masks", "points"), _PLACES),
    **dict.fromkeys(
        ("query", "response", "instruction", "input", "output", "prompt", "completion"),
        _SECOND,
    ),
    **dict.fromkeys(("conversations", "messages"), _SECOND),
    "data_path": "is where the media lie; give it as --media-root, and leave the key out",
    "loss_scale": _WEIGHTS,
}
_TURN_REFUSED = {
    **dict.fromkeys(
        (*PICTURES, *CLIPS, MEDIA, FRAMES),
        "stands in a turn; name the files beside the turns, or as parts of its `content`",
    ),
    **dict.fromkeys(("tool_calls", "function_call", "tool_call_id", "tools"), _TOOLS),
    **dict.fromkeys(("audio", "audios"), _SOUND),
    **dict.fromkeys(
        ("reasoning_content", "reasoning", "thinking"), "is not learned; write it into the answer's text"
    ),
    "refusal": "is not learned; write it as the answer's text",
    "loss_scale": _WEIGHTS,
    **dict.fromkeys(("objects", "bbox"), _PLACES),
}
_PART_REFUSED = {
    **dict.fromkeys(("min_pixels", "max_pixels", "total_pixels", "resized_height", "resized_width"), _PIXELS),
    "min_frames": "is not supported; give `num_frames`, or `fps` with `max_frames`",
    **dict.fromkeys(("audio", "audios", "input_audio", "audio_url"), _SOUND),
    **dict.fromkeys(
        ("file", "file_id", "data", "base64", "bytes"), "holds a file; write it to disk and name it"
    ),
    "bbox": _PLACES,
}
_ROW_REFUSED |= {key: what for key, what in _PART_REFUSED.items() if key == "min_frames" or what == _PIXELS}
_ROW_KNOWN = (
    frozenset((*PICTURES, *CLIPS, MEDIA, FRAMES, *OPENING, *SAMPLING, *NAMES))
    | _DESCRIBING
    | _ROW_REFUSED.keys()
)
_TURN_KNOWN = frozenset(("from", "role", "value", "content", "weight", "loss")) | _TURN_REFUSED.keys()
_PART_KNOWN = frozenset(("type", "text", "url", "path", *PICTURES, *CLIPS, *SAMPLING)) | _PART_REFUSED.keys()
_MAX_CHARACTERS = 60


def is_given(value: object) -> bool:
    """Whether a key with this value says anything: tables fill the columns of other rows with such."""
    return value is not None and value not in ("", [], {})


def check_row(record: Mapping[str, Any], spoken: str) -> None:
    """Raise RowFault for a key of the row, whose turns stand under `spoken`, that cannot be followed."""
    _check(record, _ROW_REFUSED, "", but=spoken)
    if isinstance(record.get("label"), bool):
        raise RowFault(f"`label` {_PREFERENCE}")
    for number, turn in enumerate(_objects(record.get(spoken)), 1):
        _check(turn, _TURN_REFUSED, f"turn {number}: ")
        for place, part in enumerate(_objects(turn.get("content")), 1):
            _check(part, _PART_REFUSED, f"turn {number} part {place}: ")


def unknown_keys(record: Mapping[str, Any], own: frozenset[str] = frozenset()) -> set[str]:
    """The keys of the row, its turns and their parts that no format knows; ``own``: keys of one format."""
    found = _unknown(record, _ROW_KNOWN | own, "")
    for spoken in SPOKEN:
        for turn in _objects(record.get(spoken)):
            found |= _unknown(turn, _TURN_KNOWN, f"{spoken}[].")
            for part in _objects(turn.get("content")):
                found |= _unknown(part, _PART_KNOWN, f"{spoken}[].content[].")
    return found


def one_of(record: Mapping[str, Any], keys: Iterable[str], where: str = "") -> tuple[str, Any] | None:
    """The first of `keys` that says anything, with its value. Raises RowFault where another differs."""
    given = [(key, record[key]) for key in keys if key in record and is_given(record[key])]
    for key, value in given[1:]:
        if _as_list(value) != _as_list(given[0][1]):
            raise RowFault(f"{where}`{given[0][0]}` and `{key}` say different things")
    return given[0] if given else None


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _check(item: Mapping[str, Any], refused: Mapping[str, str], where: str, but: str = "") -> None:
    for key in item:
        if key in refused and key != but and is_given(item[key]):
            raise RowFault(f"{where}`{key}` {refused[key]}")


def _unknown(item: Mapping[str, Any], known: frozenset[str], where: str) -> set[str]:
    return {where + key[:_MAX_CHARACTERS] for key in item if key not in known and is_given(item[key])}


def _objects(items: object) -> list[Mapping[str, Any]]:
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def shown(value: object) -> str:
    """A JSON value in a message: itself where it is short, else what it is."""
    return json.dumps(value) if isinstance(value, bool | int | float) else kind_of(value)


def kind_of(value: object) -> str:
    """What a JSON value is, in words."""
    names = {type(None): "nothing", bool: "a truth value", int: "a number", float: "a number", str: "a text"}
    return names.get(type(value), "a list" if isinstance(value, list) else "an object")
