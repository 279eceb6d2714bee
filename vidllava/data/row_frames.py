"""The frames that a row asks for (a count, a rate, a range), by one parser for every kind of row.

Training rows, rows of ``ask --batch`` and labelled sets differ in the spellings that they know, not in the
values: a rate is 2, "0.5" or "30000/1001", a time 12.5, "12.5" or "1:02.5".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from vidllava.data.keys import SAMPLING, is_given, kind_of, shown
from vidllava.data.source import RowFault
from vidllava.errors import UsageError
from vidllava.media.timeline import Sampling, SamplingRequest, parse_rate, parse_time

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
