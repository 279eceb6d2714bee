"""Which frames does a row itself ask for? A count, a rate, a range: in `ask --batch` and in labelled sets."""

from __future__ import annotations

from typing import Any

from vidllava.data.row import RowFault
from vidllava.errors import UsageError
from vidllava.media.timeline import SamplingRequest, parse_rate, parse_time

NUMBERS = ("num_frames", "fps", "max_frames")
TIMES = {"start": "start_seconds", "end": "end_seconds"}
WORDS = ("sampling",)
RATE = "frame_rate"
"""Pictures a second of a folder of pictures."""


def own_frames(record: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Pairs of an option of a question and its value, checked together. Raises RowFault."""
    own: dict[str, Any] = {}
    for key in NUMBERS:
        value = record.get(key)
        if value is None:
            continue
        if key != "fps" and (isinstance(value, bool) or not isinstance(value, int)):
            raise RowFault(f"`{key}` must be a whole number")
        own[key] = value
    own.update({key: record[key] for key in WORDS if record.get(key) is not None})
    try:
        rate = None if record.get(RATE) is None else parse_rate(record[RATE], f"`{RATE}`")
        if "fps" in own:
            own["fps"] = parse_rate(own["fps"], "`fps`")
        for key, field in TIMES.items():
            value = record.get(key)
            if isinstance(value, str):
                own[field] = parse_time(value)
            elif isinstance(value, int | float) and not isinstance(value, bool):
                own[field] = float(value)
            elif value is not None:
                raise RowFault(f"`{key}` must be seconds or mm:ss")
        SamplingRequest(**own)
    except UsageError as fault:
        raise RowFault(str(fault)) from None
    except OverflowError:
        raise RowFault("`start` or `end` is more seconds than can be counted") from None
    return (*own.items(), *([] if rate is None else [(RATE, rate)]))
